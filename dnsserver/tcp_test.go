package dnsserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// dialFrom connects from an address of this machine.
func dialFrom(t *testing.T, s *Server, client string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(client)}, net.TCPAddrFromAddrPort(s.Addresses()[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// answered asks, and reports whether an answer comes before the connection ends.
func answered(t *testing.T, conn *net.TCPConn) bool {
	t.Helper()
	if _, err := conn.Write(framed(t, query("www.example.test."))); err != nil {
		return false
	}
	var b [2]byte
	_, err := io.ReadFull(conn, b[:])
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, binary.BigEndian.Uint16(b[:])))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("neither an answer comes nor an end")
	}
	return err == nil
}

func TestConnectionsAreLimited(t *testing.T) {
	s := serve(t, Options{MaxConnections: 3, MaxClientConnections: 2})
	one, two := dialFrom(t, s, "127.0.0.2"), dialFrom(t, s, "127.0.0.2")
	if !answered(t, one) || !answered(t, two) {
		t.Fatal("two connections are not answered")
	}
	if answered(t, dialFrom(t, s, "127.0.0.2")) {
		t.Error("the third connection of a client is answered")
	}
	other := dialFrom(t, s, "127.0.0.3")
	if !answered(t, other) {
		t.Error("the connection of another client is not answered")
	}
	fourth := dialFrom(t, s, "127.0.0.4")
	if !answered(t, fourth) {
		t.Error("one connection too many in all is not answered")
	}
	if answered(t, one) {
		t.Error("of the client with most connections, the one that was idle for longest goes on")
	}
	if !answered(t, other) || !answered(t, fourth) || !answered(t, two) {
		t.Error("others had to go as well")
	}
	if !answered(t, dialFrom(t, s, "127.0.0.5")) || answered(t, other) || !answered(t, two) || !answered(t, fourth) {
		t.Error("among clients with one connection each, it is not the one that was idle for longest that goes")
	}
	if evicted, refused := s.streams.evicted.Load(), s.streams.refused.Load(); evicted != 2 || refused != 1 {
		t.Errorf("%d evicted and %d refused", evicted, refused)
	}
}

// TestManyIdleConnections: 10,000 idle connections keep nobody from being answered, and when
// they end, their memory is there again.
func TestManyIdleConnections(t *testing.T) {
	const clients, each = 10, 1000
	s := serve(t, Options{IdleTimeout: time.Hour, MaxConnections: clients * each})
	if !answered(t, dialFrom(t, s, "127.0.0.2")) {
		t.Fatal("a first connection is not answered")
	}
	before := memoryInUse()
	release := attack(t, holdTCP, s.Addresses()[0], clients, each)
	during := memoryInUse()
	if n := s.streams.count(); n != clients*each {
		t.Errorf("%d connections are open", n)
	}
	for i := range 100 {
		if !answered(t, dialFrom(t, s, fmt.Sprintf("127.0.1.%d", 1+i))) {
			t.Fatalf("new client %d is not answered", i)
		}
	}
	if r := exchangeWith(t, "udp", s.Addresses()[0], query("www.example.test.")); len(r.Answer) != 1 {
		t.Errorf("over UDP is answered %v", r)
	}
	if n, evicted := s.streams.count(), s.streams.evicted.Load(); n != clients*each || evicted < 100 {
		t.Errorf("%d connections are open, %d were evicted", n, evicted)
	}
	if n := s.streams.refused.Load(); n > 0 {
		t.Errorf("%d connections were refused", n)
	}
	release()
	for s.streams.count() > 101 { // those of this process, which are idle too
		if t.Context().Err() != nil {
			t.Fatalf("%d connections stay open", s.streams.count())
		}
		runtime.Gosched()
	}
	after := memoryInUse()
	const mib = 1 << 20
	t.Logf("memory before %d, during %d, after %d KiB", before>>10, during>>10, after>>10)
	if during-before > 200*mib || after-before > 16*mib {
		t.Errorf("memory is %d MiB before, %d MiB with %d connections, %d MiB after", before/mib, during/mib, clients*each, after/mib)
	}
}

// TestSlowWriters: clients that bring a query octet by octet keep nobody waiting. They have as
// long as idle ones for a whole query, however many octets come.
func TestSlowWriters(t *testing.T) {
	s := serve(t, Options{IdleTimeout: 2 * time.Second})
	long := query("www.example.test.")
	long.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 60000)}}
	whole := framed(t, query("www.example.test."))
	var slow []*net.TCPConn
	for i := range 200 {
		conn := dialTCP(t, s)
		part := whole[:1+i%(len(whole)-1)]
		if i%2 == 0 {
			part = framed(t, long)[:1000+i]
		}
		if _, err := conn.Write(part); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	start := time.Now()
	for range 100 {
		exchangeWith(t, "tcp", s.Addresses()[0], query("www.example.test."))
		exchangeWith(t, "udp", s.Addresses()[0], query("www.example.test."))
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("200 queries of others took %v", took)
	}
	for i, conn := range slow {
		if i%2 == 1 {
			if _, err := conn.Write(whole[1+i%(len(whole)-1):]); err != nil {
				t.Fatal(err)
			}
			if r := readFramed(t, conn); len(r.Answer) != 1 {
				t.Fatalf("a query that came in two parts is answered %v", r)
			}
		}
	}
	conn := slow[0]
	for sent := 0; ; sent++ {
		if sent > 10000 {
			t.Fatal("a client that sends an octet now and then is never closed")
		}
		if _, err := conn.Write([]byte{0}); err != nil {
			break
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
}

// TestClientsThatNeverRead: they keep nobody waiting, and when there is much that they do not
// take, they go soon.
func TestClientsThatNeverRead(t *testing.T) {
	s := serve(t, Options{WriteTimeout: time.Minute})
	ask := bytes.Repeat(framed(t, query("big.example.test.")), 500)
	never := func() *net.TCPConn {
		conn := dialTCP(t, s)
		if err := conn.SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(ask[:len(ask)/2]); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	for range 50 {
		never()
	}
	start := time.Now()
	for range 100 {
		exchangeWith(t, "tcp", s.Addresses()[0], query("www.example.test."))
		exchangeWith(t, "udp", s.Addresses()[0], query("www.example.test."))
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("200 queries of others took %v", took)
	}
	s.streams.unsent.Add(maxUnsent) // as if very many clients did so
	defer s.streams.unsent.Add(-maxUnsent)
	conn := never()
	for {
		if _, err := conn.Write(ask); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection goes on")
			}
			break
		}
	}
	if r := exchangeWith(t, "tcp", s.Addresses()[0], query("big.example.test.")); len(r.Answer) != 2000 {
		t.Errorf("a client that reads is answered %d records", len(r.Answer))
	}
}

// TestLongQueriesAreFew: they take memory, which is bounded for all clients together.
func TestLongQueriesAreFew(t *testing.T) {
	s := serve(t, Options{})
	long := query("www.example.test.")
	long.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 2000)}}
	ask := func() error {
		conn := dialTCP(t, s)
		if _, err := conn.Write(append(framed(t, query("www.example.test.")), framed(t, long)...)); err != nil {
			t.Fatal(err)
		}
		readFramed(t, conn)
		_, err := io.ReadFull(conn, make([]byte, 2))
		return err
	}
	if err := ask(); err != nil {
		t.Errorf("a long query is not answered: %v", err)
	}
	s.streams.long.Add(maxLong)
	if err := ask(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one long query too many: %v", err)
	}
	s.streams.long.Add(-maxLong)
	if err := ask(); err != nil {
		t.Errorf("a long query after others have gone is not answered: %v", err)
	}
}

// TestRepliesDoNotWaitForTheRestOfAQuery: what is whole is answered.
func TestRepliesDoNotWaitForTheRestOfAQuery(t *testing.T) {
	s := serve(t, Options{IdleTimeout: time.Hour})
	conn := dialTCP(t, s)
	one := framed(t, query("www.example.test."))
	for cut := range len(one) {
		if _, err := conn.Write(append(append(append([]byte{}, one...), one...), one[:cut]...)); err != nil {
			t.Fatal(err)
		}
		readFramed(t, conn)
		readFramed(t, conn)
		if _, err := conn.Write(one[cut:]); err != nil {
			t.Fatal(err)
		}
		readFramed(t, conn)
	}
	// Neither do they for one that can never be.
	if _, err := conn.Write(append(one, 0, 1, 0)); err != nil {
		t.Fatal(err)
	}
	readFramed(t, conn)
	if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on: %d octets, %v", n, err)
	}
}

func TestKeepAliveSaysHowLongAnIdleConnectionStays(t *testing.T) {
	told := func(s *Server, network string) (timeout uint16, ok bool) {
		t.Helper()
		m := query("www.example.test.")
		m.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}}
		for _, option := range exchangeWith(t, network, s.Addresses()[0], m).IsEdns0().Option {
			if k, is := option.(*dns.EDNS0_TCP_KEEPALIVE); is {
				return k.Timeout, true
			}
		}
		return 0, false
	}
	s := serve(t, Options{IdleTimeout: 20 * time.Second, MaxConnections: 4})
	if timeout, ok := told(s, "tcp"); timeout != 200 || !ok {
		t.Errorf("over TCP a client is told %d, %t", timeout, ok)
	}
	if timeout, ok := told(s, "udp"); ok {
		t.Errorf("over UDP a client is told %d", timeout)
	}
	for i := range 3 {
		if !answered(t, dialFrom(t, s, fmt.Sprintf("127.0.0.%d", 2+i))) {
			t.Fatal("a connection is not answered")
		}
	}
	if timeout, ok := told(s, "tcp"); timeout != 20 || !ok {
		t.Errorf("when there are many connections a client is told %d, %t", timeout, ok)
	}
	if timeout, ok := told(serve(t, Options{IdleTimeout: 10 * time.Hour}), "tcp"); timeout != 65535 || !ok {
		t.Errorf("of a very long time a client is told %d, %t", timeout, ok)
	}
}
