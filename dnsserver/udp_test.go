package dnsserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// udpClient asks in a way that needs no timeouts to see that there is no reply: with one worker,
// replies come in the order of the questions.
type udpClient struct {
	*net.UDPConn
	t testing.TB
}

func newUDPClient(t testing.TB, server netip.AddrPort) *udpClient {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &udpClient{conn, t}
}

func (c *udpClient) send(message []byte) {
	c.t.Helper()
	if _, err := c.Write(message); err != nil {
		c.t.Fatalf("sending %d octets: %v", len(message), err)
	}
}

// last is a question whose reply shows that all before it have been seen.
var last = []byte("\xff\xff\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04last\x00\x00\x01\x00\x01")

// replies returns what comes up to the reply to last, which it sends.
func (c *udpClient) replies() (all [][]byte) {
	c.t.Helper()
	c.send(last)
	for {
		b := make([]byte, 65536)
		n, err := c.Read(b)
		if err != nil {
			c.t.Fatalf("after %d replies: %v", len(all), err)
		}
		if bytes.Equal(b[12:n], last[12:]) {
			return all
		}
		all = append(all, b[:n])
	}
}

// oddMessages makes messages of all kinds that a server may meet: questions about names that
// example zones have or not, with what EDNS can say, and what is left of them after accidents.
func oddMessages(t testing.TB, r *rand.Rand, n int) [][]byte {
	t.Helper()
	labels := []string{"www", "big", "ns", "example", "test", "nope", "*", "a", strings.Repeat("x", 63)}
	types := []uint16{dns.TypeA, dns.TypeNS, dns.TypeSOA, dns.TypeAAAA, dns.TypeTXT, dns.TypeDS, dns.TypeANY, dns.TypeAXFR, 65280}
	var all [][]byte
	for range n {
		name := "example.test."
		for range r.IntN(4) {
			if longer := labels[r.IntN(len(labels))] + "." + name; len(longer) < 250 {
				name = longer
			}
		}
		if r.IntN(10) == 0 {
			name = "elsewhere."
		}
		mixed := []byte(name)
		for i, c := range mixed {
			if 'a' <= c && c <= 'z' && r.IntN(3) == 0 {
				mixed[i] = c - 32
			}
		}
		m := new(dns.Msg)
		m.SetQuestion(string(mixed), types[r.IntN(len(types))])
		m.Id = uint16(r.IntN(0xffff)) // 0xffff is the last question's
		m.RecursionDesired, m.CheckingDisabled = r.IntN(2) == 0, r.IntN(5) == 0
		if r.IntN(20) == 0 {
			m.Opcode = r.IntN(16)
		}
		if r.IntN(20) == 0 {
			m.Question[0].Qclass = uint16(r.IntN(256))
		}
		if r.IntN(3) > 0 {
			m.SetEdns0(uint16(r.IntN(5000)), r.IntN(2) == 0)
			o := m.IsEdns0()
			if r.IntN(10) == 0 {
				o.SetVersion(1)
			}
			if r.IntN(5) == 0 {
				o.Option = append(o.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"})
			}
			if r.IntN(5) == 0 {
				o.Option = append(o.Option, &dns.EDNS0_LOCAL{Code: zone.OptionState})
			}
			if r.IntN(10) == 0 { // around the longest that is read, and far beyond
				o.Option = append(o.Option, &dns.EDNS0_PADDING{Padding: make([]byte, []int{1000, 1500 + r.IntN(100), 60000}[r.IntN(3)])})
			}
		}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		switch r.IntN(10) {
		case 0:
			b = b[:r.IntN(len(b))]
		case 1:
			b[r.IntN(min(len(b), 80))] ^= byte(1 << r.IntN(8))
		case 2:
			b = append(b, 0)
		}
		all = append(all, b)
	}
	return all
}

func TestBothUDPPathsGiveTheSameReplies(t *testing.T) {
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(t)}, nil)
	for _, address := range []netip.AddrPort{loopback(), netip.MustParseAddrPort("[::1]:0")} {
		one := newUDPClient(t, serve(t, Options{Addresses: []netip.AddrPort{address}, View: view, Workers: 1}).Addresses()[0])
		other := newUDPClient(t, serve(t, Options{Addresses: []netip.AddrPort{address}, View: view, Workers: 1, udp: portableUDP}).Addresses()[0])
		const messages, atOnce = 20000, 20
		r := rand.New(rand.NewPCG(1, 2))
		answered := 0
		for range messages / atOnce {
			asked := oddMessages(t, r, atOnce)
			for _, m := range asked {
				one.send(m)
				other.send(m)
			}
			got, want := withoutCookies(one.replies()), withoutCookies(other.replies())
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || !bytes.Equal(got[i], want[i]) {
					t.Fatalf("replies differ from number %d on: %x\nand\n%x\nto\n%x", i, got[min(i, len(got)):], want[min(i, len(want)):], asked)
				}
			}
			answered += len(got)
		}
		if answered < messages*3/4 || answered == messages {
			t.Errorf("%d of %d messages are answered", answered, messages)
		}
	}
}

// withoutCookies takes the server's half out of the cookies in replies to oddMessages: it has the time.
func withoutCookies(replies [][]byte) [][]byte {
	for _, r := range replies {
		if n := len(r); n > 28 && bytes.HasPrefix(r[n-28:], []byte{0, 10, 0, 24}) {
			clear(r[n-16:])
		}
	}
	return replies
}

func TestUnusualDatagrams(t *testing.T) { eachUDPPath(t, testUnusualDatagrams) }

func testUnusualDatagrams(t *testing.T, udp func(workers, addresses int) udpPath) {
	t.Helper()
	s := serve(t, Options{Workers: 1, udp: udp})
	padded := func(size int) []byte {
		m := query("www.example.test.")
		m.Id = 0x1234
		bare, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, size-len(bare)-4)}}
		b, err := m.Pack()
		if err != nil || len(b) != size {
			t.Fatalf("%d octets, %v", len(b), err)
		}
		return b
	}
	formerr := "123481010000000000000000"
	for sentence, tc := range map[string]struct {
		send []byte
		want string // start of the reply in hexadecimal digits; "" for none
	}{
		"nothing":                          {nil, ""},
		"less than a header":               {make([]byte, 11), ""},
		"a response":                       {append([]byte{0x12, 0x34, 0x81}, make([]byte, 9)...), ""},
		"a header alone":                   {append([]byte{0x12, 0x34, 0x01, 0, 0, 1}, make([]byte, 6)...), formerr},
		"the longest query":                {padded(maxQuery), "1234850000010001"},
		"a query of an octet more":         {padded(maxQuery + 1), formerr},
		"a query of two octets more":       {padded(maxQuery + 2), formerr},
		"the longest datagram":             {padded(65507), formerr},
		"a long response":                  {append([]byte{0x12, 0x34, 0x81}, make([]byte, 5000)...), ""},
		"a long message of another opcode": {append([]byte{0x12, 0x34, 0x28}, make([]byte, 5000)...), "1234a8040000"},
	} {
		t.Run(sentence, func(t *testing.T) {
			c := newUDPClient(t, s.Addresses()[0])
			c.send(tc.send)
			got := c.replies()
			switch {
			case tc.want == "" && len(got) > 0:
				t.Errorf("answered %x", got)
			case tc.want != "" && (len(got) != 1 || !strings.HasPrefix(hex.EncodeToString(got[0]), tc.want)):
				t.Errorf("answered %x, wanted %s", got, tc.want)
			case tc.want == formerr && len(got[0]) != header:
				t.Errorf("FORMERR has %d octets", len(got[0]))
			}
		})
	}
}

// fragile panics at some questions.
type fragile struct {
	*zone.View
	at func(message []byte) bool
}

func (f fragile) Answer(s *zone.Scratch, dst, message []byte, client netip.Addr, over zone.Transport) []byte {
	reply := f.View.Answer(s, dst, message, client, over) // spoils the message
	f.check(message)
	return reply
}

func (f fragile) AnswerAhead(s *zone.Scratch, a *zone.Ahead, i int, dst, message []byte, client netip.Addr, over zone.Transport) []byte {
	reply := f.View.AnswerAhead(s, a, i, dst, message, client, over)
	f.check(message)
	return reply
}

func (f fragile) check(message []byte) {
	if f.at(message) {
		panic("as the test wants it")
	}
}

// TestAPanicCostsOneQueryOfABatch has all queries in the kernel before the first is read.
func TestAPanicCostsOneQueryOfABatch(t *testing.T) { eachUDPPath(t, testAPanicCostsOneQueryOfABatch) }

func testAPanicCostsOneQueryOfABatch(t *testing.T, udp func(workers, addresses int) udpPath) {
	t.Helper()
	breaks := map[uint16]bool{0: true, 7: true, 8: true, 49: true}
	view := &zone.View{}
	view.Update([]*zone.Served{loadZone(t, "example.test", "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 10.0.0.1\n* A 10.0.0.2\n")}, nil)
	s, err := Listen(Options{Addresses: []netip.AddrPort{loopback()}, View: view, Log: logr.Discard(), Workers: 1, udp: func(workers, addresses int) udpPath {
		return spiedPath{udp(workers, addresses), func(r *responder) {
			r.view = fragile{view, func(message []byte) bool { return breaks[binary.BigEndian.Uint16(message)] }}
		}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := newUDPClient(t, s.Addresses()[0])
	const queries = 50
	for id := range uint16(queries) {
		m := query(fmt.Sprintf("n%d.example.test.", id)) // what breaks once is not asked again
		m.Id = id
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		c.send(b)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	got := c.replies()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serving ended with %v", err)
	}
	if len(got) != queries {
		t.Fatalf("%d replies to %d queries", len(got), queries)
	}
	for id, b := range got {
		var m dns.Msg
		if err := m.Unpack(b); err != nil || int(m.Id) != id {
			t.Fatalf("reply %d has ID %d, %v", id, m.Id, err)
		}
		if failed := m.Rcode == dns.RcodeServerFailure; failed != breaks[m.Id] || !failed && len(m.Answer) != 1 {
			t.Errorf("query %d is answered %v", id, &m)
		}
	}
	if n := s.answering.panics.count.Load(); n != uint64(len(breaks)) {
		t.Errorf("%d panics are counted", n)
	}
	if n := s.udpCounts[0].messages[dns.RcodeSuccess].Load(); n != uint64(queries-len(breaks)) {
		t.Errorf("%d answers are counted, wanted %d", n, queries-len(breaks))
	}
}

// spiedPath shows the responders of a path.
type spiedPath struct {
	udpPath
	see func(*responder)
}

func (p spiedPath) workers(newResponder func() *responder) []udpWorker {
	return p.udpPath.workers(func() *responder {
		r := newResponder()
		p.see(r)
		return r
	})
}
