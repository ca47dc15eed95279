package dnsserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/go-logr/logr/testr"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// loopback is an address of this machine that nobody else uses, with port 0.
func loopback() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(254)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))}), 0)
}

func loadZone(t testing.TB, apex, text string) *zone.Served {
	t.Helper()
	name, err := zone.ParseName(apex, "")
	if err != nil {
		t.Fatal(err)
	}
	content, version, faults := zone.Load(name, text)
	for _, f := range faults {
		t.Fatal(f)
	}
	z, err := zone.NewServed(content, version)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// exampleZone has names with small and large answers.
func exampleZone(t testing.TB) *zone.Served {
	t.Helper()
	var b strings.Builder
	b.WriteString("$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 10.0.0.1\nwww A 10.0.0.2\n")
	for i := range 2000 {
		fmt.Fprintf(&b, "big A 10.1.%d.%d\n", i/250, i%250)
	}
	return loadZone(t, "example.test", b.String())
}

// serve runs a server until the test ends.
func serve(t testing.TB, opts Options) *Server {
	t.Helper()
	if opts.View == nil {
		opts.View = &zone.View{}
		opts.View.Update([]*zone.Served{exampleZone(t)}, nil)
	}
	if len(opts.Addresses) == 0 {
		opts.Addresses = []netip.AddrPort{loopback()}
	}
	if opts.Log.GetSink() == nil {
		opts.Log = testr.New(t.(*testing.T))
	}
	s, err := Listen(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving ended with %v", err)
		}
	})
	return s
}

func query(name string) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.SetEdns0(1232, false)
	return m
}

func exchangeWith(t testing.TB, network string, address netip.AddrPort, m *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	r, _, err := c.Exchange(m, address.String())
	if err != nil {
		t.Fatalf("asking %s over %s: %v", address, network, err)
	}
	return r
}

func dialTCP(t testing.TB, s *Server) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(s.Addresses()[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func framed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func readFramed(t testing.TB, r io.Reader) *dns.Msg {
	t.Helper()
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		t.Fatalf("reading the length of a reply: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("reading a reply: %v", err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return m
}

// eachUDPPath runs a test for every way to answer over UDP.
func eachUDPPath(t *testing.T, test func(*testing.T, func(workers, addresses int) udpPath)) {
	t.Helper()
	t.Run("the default path", func(t *testing.T) { test(t, defaultUDP) })
	t.Run("the portable path", func(t *testing.T) { test(t, portableUDP) })
}

func portableUDP(workers, _ int) udpPath { return newUDPConns(workers) }

func TestServerAnswersOnEveryAddress(t *testing.T) { eachUDPPath(t, testServerAnswersOnEveryAddress) }

func testServerAnswersOnEveryAddress(t *testing.T, udp func(workers, addresses int) udpPath) {
	t.Helper()
	s := serve(t, Options{udp: udp, Addresses: []netip.AddrPort{loopback(), loopback(), netip.MustParseAddrPort("[::1]:0")}})
	for _, address := range s.Addresses() {
		for _, network := range []string{"udp", "tcp"} {
			r := exchangeWith(t, network, address, query("www.example.test."))
			if len(r.Answer) != 1 || !r.Authoritative {
				t.Errorf("%s over %s answers %v", address, network, r)
			}
		}
		if r := exchangeWith(t, "udp", address, query("big.example.test.")); !r.Truncated || len(r.Answer) != 0 {
			t.Errorf("%s: a large answer is not truncated over UDP", address)
		}
		if r := exchangeWith(t, "tcp", address, query("big.example.test.")); len(r.Answer) != 2000 {
			t.Errorf("%s: a large answer has %d records over TCP", address, len(r.Answer))
		}
	}
}

func TestRepliesLeaveFromTheAddressThatWasAsked(t *testing.T) {
	eachUDPPath(t, testRepliesLeaveFromTheAddressThatWasAsked)
}

func testRepliesLeaveFromTheAddressThatWasAsked(t *testing.T, udp func(workers, addresses int) udpPath) {
	t.Helper()
	for _, wildcard := range []string{"0.0.0.0:0", "[::]:0"} {
		s := serve(t, Options{udp: udp, Addresses: []netip.AddrPort{netip.MustParseAddrPort(wildcard)}})
		port := s.Addresses()[0].Port()
		asked := []netip.AddrPort{netip.AddrPortFrom(loopback().Addr(), port), netip.AddrPortFrom(loopback().Addr(), port)}
		if wildcard[0] == '[' {
			asked = []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Loopback(), port)}
		}
		for _, address := range asked {
			// A connected socket takes no reply from elsewhere.
			if r := exchangeWith(t, "udp", address, query("www.example.test.")); len(r.Answer) != 1 {
				t.Errorf("%s: %s answers %v", wildcard, address, r)
			}
		}
		if err := s.Probe(t.Context(), exampleZone(t)); err != nil {
			t.Errorf("%s: %v", wildcard, err)
		}
	}
}

func TestAnAddressInUseIsAnError(t *testing.T) {
	s := serve(t, Options{})
	address := s.Addresses()[0]
	want := "listening on " + address.String() + ": address already in use"
	check := func(sentence string, address netip.AddrPort) {
		t.Helper()
		view := &zone.View{}
		other, err := Listen(Options{Addresses: []netip.AddrPort{loopback(), address}, View: view, Log: logr.Discard()})
		if err == nil {
			other.close()
			t.Fatalf("%s is no error", sentence)
		}
		if err.Error() != want {
			t.Errorf("%s: %q, wanted %q", sentence, err, want)
		}
	}
	check("the address of another dnsserver", address)

	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	udp := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	want = "listening on " + udp.String() + ": address already in use"
	check("an address that is in use over UDP alone", udp)

	want = "listening on 192.0.2.1:0: cannot assign requested address"
	check("an address of another machine", netip.MustParseAddrPort("192.0.2.1:0"))
}

func TestPipelinedQueriesAreAnsweredInOneGo(t *testing.T) {
	s := serve(t, Options{})
	conn := dialTCP(t, s)
	var out []byte
	const n = 500
	for i := range n {
		m := query("www.example.test.")
		if i%50 == 0 {
			m = query("big.example.test.")
		}
		m.Id = uint16(i)
		out = append(out, framed(t, m)...)
	}
	go func() {
		// In pieces that cut messages anywhere.
		for len(out) > 0 {
			k := min(len(out), 1+rand.IntN(700))
			if _, err := conn.Write(out[:k]); err != nil {
				t.Errorf("writing: %v", err)
				return
			}
			out = out[k:]
		}
		_ = conn.CloseWrite()
	}()
	for i := range n {
		want := 1
		if i%50 == 0 {
			want = 2000
		}
		if r := readFramed(t, conn); int(r.Id) != i || len(r.Answer) != want {
			t.Fatalf("reply %d has ID %d and %d records", i, r.Id, len(r.Answer))
		}
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the last reply: %v", err)
	}
}

func TestMisbehavingStreamsAreClosed(t *testing.T) {
	s := serve(t, Options{IdleTimeout: 300 * time.Millisecond, WriteTimeout: 300 * time.Millisecond})
	question := framed(t, query("www.example.test."))
	long := query("www.example.test.")
	long.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 60000)}}
	for sentence, tc := range map[string]struct {
		send    []byte
		replies int
	}{
		"one that sends nothing":                     {nil, 0},
		"one that is idle after a query":             {question, 1},
		"one that sends half a length":               {question[:1], 0},
		"one that sends half a query":                {question[:20], 0},
		"one that announces more than it sends":      {append([]byte{0xff, 0xff}, question...), 0},
		"one that announces less than a header":      {[]byte{0, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 0},
		"one that announces nothing":                 {[]byte{0, 0}, 0},
		"one that sends a response and then nothing": {append([]byte{0, 12, 1, 2, 0x80}, make([]byte, 9)...), 0},
		"one that sends a long query and a short":    {append(framed(t, long), question...), 2},
	} {
		t.Run(sentence, func(t *testing.T) {
			conn := dialTCP(t, s)
			if _, err := conn.Write(tc.send); err != nil {
				t.Fatal(err)
			}
			for range tc.replies {
				readFramed(t, conn)
			}
			// A reset is an end as well: there was something that was not read.
			if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection goes on: %d octets, %v", n, err)
			}
		})
	}
	t.Run("one that does not read its replies", func(t *testing.T) {
		conn := dialTCP(t, s)
		if err := conn.SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		m := framed(t, query("big.example.test."))
		for {
			if _, err := conn.Write(bytes.Repeat(m, 100)); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection goes on")
				}
				return
			}
		}
	})
	if r := exchangeWith(t, "tcp", s.Addresses()[0], query("www.example.test.")); len(r.Answer) != 1 {
		t.Errorf("others are answered %v", r)
	}
}

// TestShutdownAnswersWhatWasAsked asks all the time: every query that was sent before the
// shutdown began is answered, over UDP and TCP.
func TestShutdownAnswersWhatWasAsked(t *testing.T) { eachUDPPath(t, testShutdownAnswersWhatWasAsked) }

func testShutdownAnswersWhatWasAsked(t *testing.T, udp func(workers, addresses int) udpPath) {
	t.Helper()
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(t)}, nil)
	s, err := Listen(Options{Addresses: []netip.AddrPort{loopback()}, View: view, Log: testr.New(t), Workers: 2, Drain: time.Second, udp: udp})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()

	question, err := query("www.example.test.").Pack()
	if err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	const perClient = 50
	var sent sync.WaitGroup
	for range 20 {
		sent.Add(1)
		clients.Go(func() {
			conn, err := net.Dial("udp", s.Addresses()[0].String())
			if err != nil {
				t.Error(err)
				sent.Done()
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			for range perClient {
				if _, err := conn.Write(question); err != nil {
					t.Error(err)
				}
			}
			sent.Done()
			for i := range perClient {
				if _, err := conn.Read(make([]byte, 512)); err != nil {
					t.Errorf("UDP query %d is not answered: %v", i, err)
					return
				}
			}
		})
		conn := dialTCP(t, s)
		sent.Add(1)
		clients.Go(func() {
			m := framed(t, query("big.example.test."))
			if _, err := conn.Write(bytes.Repeat(m, 10)); err != nil {
				t.Error(err)
			}
			sent.Done()
			for range 10 {
				readFramed(t, conn)
			}
		})
	}
	sent.Wait()
	stop()
	clients.Wait()
	if err := <-done; err != nil {
		t.Errorf("serving ended with %v", err)
	}
	if _, err := net.Dial("tcp", s.Addresses()[0].String()); err == nil {
		t.Error("connections are still taken")
	}
}

func TestPanicsCostOneQuery(t *testing.T) {
	var logged []string
	log := funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{})
	s := &Server{}
	s.apply(&Settings{})
	s.answering.panics.log = log
	s.answering.view = (*zone.View)(nil) // answering panics
	counts := &counters{}
	r := newResponder(&s.answering, zone.UDP, counts)
	ask := func(name string) *dns.Msg {
		message, err := query(name).Pack()
		if err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		reply := r.answer(make([]byte, 0, zone.MaxUDP), message, netip.MustParseAddr("192.0.2.1"))
		if err := m.Unpack(reply); err != nil || m.Id != binary.BigEndian.Uint16(message) || !m.Response || !m.RecursionDesired {
			t.Fatalf("answered %v %v", &m, err)
		}
		return &m
	}
	for _, name := range []string{"www.example.test.", "ns.example.test.", "big.example.test."} {
		if m := ask(name); m.Rcode != dns.RcodeServerFailure {
			t.Fatalf("answered %v", m)
		}
	}
	if n := s.answering.panics.count.Load(); n != 3 || len(logged) != 1 || !strings.Contains(logged[0], "192.0.2.1") || !strings.Contains(logged[0], "03777777") {
		t.Errorf("%d panics, logged %q", n, logged)
	}
	// Questions of death are not tried again, in whatever case they come, until some minutes are over.
	if m := ask("WWW.example.test."); m.Rcode != dns.RcodeRefused || s.answering.panics.count.Load() != 3 {
		t.Errorf("the question is answered %v again", m)
	}
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(t)}, nil)
	s.answering.view, r.view = view, view
	if m := ask("www.example.test."); m.Rcode != dns.RcodeRefused || counts.messages[quarantined].Load() != 2 {
		t.Errorf("the question is answered %v at once", m)
	}
	if m := ask("nope.example.test."); m.Rcode != dns.RcodeNameError {
		t.Errorf("the next query is answered %v", m)
	}
	r.scratch.Now += quarantineFor
	message, err := query("www.example.test.").Pack()
	if err != nil {
		t.Fatal(err)
	}
	if reply := r.answerOne(make([]byte, 0, zone.MaxUDP), message, netip.Addr{}); reply[3]&0xf != dns.RcodeSuccess {
		t.Errorf("some minutes later it is answered %x", reply)
	}
}

func TestMetrics(t *testing.T) {
	s := serve(t, Options{Workers: 2})
	address := s.Addresses()[0]
	for range 3 {
		exchangeWith(t, "udp", address, query("www.example.test."))
	}
	exchangeWith(t, "udp", address, query("nope.example.test."))
	exchangeWith(t, "tcp", address, query("elsewhere.test."))
	bad := query("www.example.test.")
	bad.IsEdns0().SetVersion(1)
	exchangeWith(t, "udp", address, bad)
	problems, err := testutil.CollectAndLint(s)
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics are not as they should be: %v %v", problems, err)
	}
	want := `
# HELP fingerpost_dnsserver_responses_total Replies sent, by response code; those from 23 on count as 23.
# TYPE fingerpost_dnsserver_responses_total counter
`
	for _, transport := range []string{"doh", "dot", "httpdns", "tcp", "udp"} {
		for rcode, n := range map[string]map[string]int{
			"NOERROR": {"udp": 3}, "NXDOMAIN": {"udp": 1}, "REFUSED": {"tcp": 1}, "FORMERR": {}, "SERVFAIL": {}, "NOTIMP": {},
		} {
			want += fmt.Sprintf("fingerpost_dnsserver_responses_total{rcode=%q,transport=%q} %d\n", rcode, transport, n[transport])
		}
	}
	want += `fingerpost_dnsserver_responses_total{rcode="BADVERS",transport="udp"} 1` + "\n"
	want += `
# HELP fingerpost_dnsserver_zones Zones served.
# TYPE fingerpost_dnsserver_zones gauge
fingerpost_dnsserver_zones 1
# HELP fingerpost_dnsserver_zone_serial SOA serial of a zone served. Left out by servers of more than 1,000 zones.
# TYPE fingerpost_dnsserver_zone_serial gauge
fingerpost_dnsserver_zone_serial{zone="example.test."} 1
`
	if err := testutil.CollectAndCompare(s, strings.NewReader(want),
		"fingerpost_dnsserver_responses_total", "fingerpost_dnsserver_zones", "fingerpost_dnsserver_zone_serial"); err != nil {
		t.Error(err)
	}
}
