package zone

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzNameFromWire reads any octets as a name, as miekg/dns does without compression.
func FuzzNameFromWire(f *testing.F) {
	for _, seed := range []string{"\x00", "\x01a\x00", "\x03WwW\x07example\x00rest", "\xc0\x00", "\x3f" + strings.Repeat("x", 63) + "\x00", strings.Repeat("\x01a", 127) + "\x00", strings.Repeat("\x01a", 128) + "\x00", "\x05ab"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		n, size, err := NameFromWire(wire)
		text, end, trusted := dns.UnpackDomainName(wire, 0)
		compressed := false
		for i := 0; i < len(wire) && wire[i] != 0; i += 1 + int(wire[i]) {
			compressed = compressed || wire[i] > MaxLabel
		}
		if compressed && err == nil {
			t.Fatalf("%x is not compressed: %s", wire, n)
		}
		if compressed {
			return
		}
		if (err == nil) != (trusted == nil) {
			t.Fatalf("%x is %q, %v, and to miekg/dns %q, %v", wire, n, err, text, trusted)
		}
		if err != nil {
			return
		}
		if size != end || len(n) != size {
			t.Errorf("%x: %d octets, to miekg/dns %d", wire, size, end)
		}
		for _, s := range []string{text, n.String()} {
			if again, err := ParseName(s, ""); err != nil || again != n {
				t.Errorf("%q reads back as %q, %v", s, again, err)
			}
		}
	})
}

// FuzzLoad loads any text as a zone, on one thread and on several: what is kept can be served, and
// every name of it is answered.
func FuzzLoad(f *testing.F) {
	const head = "$TTL 60\n@ SOA ns host 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n"
	for _, seed := range []string{
		"", "*.w A 10.0.0.2\na.w CNAME ns\n", "d NS ns.d\nns.d A 10.0.0.3\nd DS 1 8 1 0102030405060708091011121314151617181920\nx.d TXT hidden\n",
		"m DNAME ns\nx.m A 10.0.0.4\n", "c CNAME c\nc A 10.0.0.5\n", "@ SOA ns host 2 2 3 4 5\n", "a 5 A 10.0.0.6\na 6 A 10.0.0.7\n", "$ORIGIN other.\na A 10.0.0.8\n", "@ DNSKEY 257 3 8 AwEA\n",
	} {
		f.Add(head + seed)
	}
	apex := Name("\x01o\x00")
	client := netip.MustParseAddr("192.0.2.1")
	f.Fuzz(func(t *testing.T, text string) {
		c, v, faults := Load(apex, text)
		other, w, again := load(apex, text, fine(4))
		if v != w || len(faults) != len(again) || (c == nil) != (other == nil) {
			t.Fatalf("on one thread %v with %d faults, on several %v with %d", v, len(faults), w, len(again))
		}
		for i, fault := range faults {
			if faultText(fault) != faultText(again[i]) {
				t.Errorf("fault %s is on several threads %s", faultText(fault), faultText(again[i]))
			}
		}
		if c == nil {
			return
		}
		z, err := NewServed(c, v)
		if err != nil {
			t.Fatal(err)
		}
		view := &View{}
		view.Update([]*Served{z}, nil)
		s, reply := &Scratch{}, make([]byte, MaxMessage)
		for n := range c.All() {
			if !n.Owner.Within(apex) {
				t.Fatalf("%s is not in the zone", n.Owner)
			}
			if kept, dropped := CheckNode(apex, *n); len(dropped) > 0 {
				t.Errorf("of %s only %v can be served: %v", n.Owner, kept, dropped[0].Err)
			}
			q := &dns.Msg{Question: []dns.Question{{Name: n.Owner.String(), Qtype: n.RRsets[0].Type, Qclass: dns.ClassINET}}}
			message, err := q.Pack()
			if err != nil {
				t.Fatalf("%s: %v", n.Owner, err)
			}
			var m dns.Msg
			if err := m.Unpack(view.Answer(s, reply, message, client, TCP)); err != nil || m.Rcode != dns.RcodeSuccess {
				t.Errorf("%v is answered %v, %v", q.Question[0], &m, err)
			}
		}
	})
}
