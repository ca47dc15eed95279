package dnsserver

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// FuzzLimitedReplies asks the same twice where one reply a second is allowed: what comes instead of
// the second one is as much of a reply as DNS wants, and no better for an attack than the query.
func FuzzLimitedReplies(f *testing.F) {
	for _, m := range []*dns.Msg{query("www.example.test."), withCookie(query("nope.www.example.test."), "0011223344556677"), query("elsewhere.")} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(1), true)
		f.Add(b[:len(b)-1], uint8(2), false)
	}
	plain := query("example.test.")
	plain.Extra = nil
	b, err := plain.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint8(0), false)
	f.Fuzz(func(t *testing.T, message []byte, slip uint8, tcp bool) {
		if len(message) > maxQuery {
			return
		}
		d := newDesk(t, Settings{Limits: Limits{Responses: 1, Queries: 2, Slip: int(slip % 3)}, Transports: Transports{NoTCP: tcp}}, zone.UDP)
		dst := make([]byte, 0, zone.MaxUDP)
		from := netip.MustParseAddr("192.0.2.1")
		first := bytes.Clone(d.answerOne(dst, bytes.Clone(message), from))
		for range 4 {
			d.begin(d.at.Add(time.Millisecond))
			reply := d.answerOne(dst, bytes.Clone(message), from)
			if reply == nil || bytes.Equal(reply, first) {
				continue
			}
			if first == nil {
				t.Fatalf("after silence %x", reply)
			}
			var m, before dns.Msg
			if err := m.Unpack(reply); err != nil {
				t.Fatalf("%x: %v", reply, err)
			}
			if err := before.Unpack(first); err != nil {
				t.Fatal(err)
			}
			badCookie := extendedRcode(&m) == dns.RcodeBadCookie
			switch {
			case len(m.Answer)+len(m.Ns) > 0 || len(m.Extra) > 1 || m.Id != before.Id || len(m.Question) != len(before.Question):
				t.Errorf("instead of\n%v\nthere is\n%v", &before, &m)
			case m.Truncated == badCookie, badCookie && m.Authoritative:
				t.Errorf("neither a truncated reply nor BADCOOKIE:\n%v", &m)
			case m.Truncated && (tcp || slip%3 == 0):
				t.Error("a reply slips that must not")
			case len(reply) > len(message)+len("sixteen octets..")+11 && len(m.Question) == 1:
				t.Errorf("%d octets for a query of %d", len(reply), len(message))
			}
		}
	})
}
