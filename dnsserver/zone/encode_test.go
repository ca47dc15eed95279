package zone

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func bigZone(t testing.TB) *Served {
	t.Helper()
	var b strings.Builder
	b.WriteString("@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n")
	for i := range 40 {
		fmt.Fprintf(&b, "forty A 10.0.1.%d\n", i)
	}
	for i := range 2000 {
		fmt.Fprintf(&b, "many A 10.1.%d.%d\n", i/250, i%250)
		fmt.Fprintf(&b, "names MX %d host%d.of.some.depth\n", i, i)
	}
	for i := range 5000 {
		fmt.Fprintf(&b, "toomany A 10.2.%d.%d\n", i/250, i%250)
	}
	b.WriteString("link CNAME many\n")
	// A delegation whose glue does not fit 512 octets, and one whose siblings' does not.
	for i := range 13 {
		fmt.Fprintf(&b, "indomain NS ns%d.indomain\nns%d.indomain A 10.3.0.%d\nns%d.indomain AAAA 2001:db8::%d\n", i, i, i, i, i)
	}
	b.WriteString("sib NS ns.far\n")
	for i := range 13 {
		fmt.Fprintf(&b, "siblings NS ns%d.sib\nns%d.sib A 10.4.0.%d\nns%d.sib AAAA 2001:db8::%d\n", i, i, i, i, i)
	}
	b.WriteString("siblings NS ns.siblings\nns.siblings A 10.5.0.1\n")
	for i := range 6 { // 497 octets with the question: no address fits 512
		server := strings.Repeat("a", 60) + strconv.Itoa(i)
		fmt.Fprintf(&b, "full NS %s.sib\n%s.sib A 10.6.0.%d\n", server, server, i)
	}
	return served(t, "example.test.", b.String())
}

func TestSizes(t *testing.T) {
	v := viewOf(bigZone(t))
	for sentence, tc := range map[string]struct {
		question string
		want     string // rcode, flags, counts of question, answer, authority, additional
	}{
		"40 addresses do not fit 512 octets, and none is sent":            {"forty.example.test. A", "NOERROR aa tc 1/0/0/0"},
		"40 addresses fit 1232 octets":                                    {"forty.example.test. A +edns=4096", "NOERROR aa edns=1232 1/40/0/1"},
		"a client that takes less than 512 octets gets 512":               {"ns.example.test. A +edns=0", "NOERROR aa edns=1232 1/1/0/1"},
		"2000 addresses do not fit 1232 octets, whatever the client says": {"many.example.test. A +edns=65535", "NOERROR aa tc edns=1232 1/0/0/1"},
		"the links of a chain that fit are sent":                          {"link.example.test. A +edns=1232", "NOERROR aa tc edns=1232 1/1/0/1"},
		"2000 addresses fit TCP":                                          {"many.example.test. A +tcp", "NOERROR aa 1/2000/0/0"},
		"2000 names fit TCP by compression":                               {"names.example.test. MX +tcp", "NOERROR aa 1/2000/0/0"},
		"5000 addresses do not fit TCP":                                   {"toomany.example.test. A +tcp +edns=1232", "NOERROR aa tc edns=1232 1/0/0/1"},
		"glue in the domain must fit (RFC 9471)":                          {"x.indomain.example.test. A", "NOERROR tc 1/0/13/10"},
		"glue in the domain that fits is all there":                       {"x.indomain.example.test. A +tcp", "NOERROR 1/0/13/26"},
		"siblings' glue that does not fit is left out":                    {"x.siblings.example.test. A", "NOERROR 1/0/14/10"},
		"siblings' glue that fits is all there":                           {"x.siblings.example.test. A +edns=1232", "NOERROR edns=1232 1/0/14/28"},
		"siblings' glue is needed where there is nothing else":            {"x.full.example.test. A", "NOERROR tc 1/0/6/0"},
	} {
		t.Run(sentence, func(t *testing.T) {
			message, over := question(t, tc.question)
			reply := ask(v, &Scratch{}, message, over)
			if got := summary(t, reply); got != tc.want {
				t.Errorf("answered %s, %d octets, wanted %s", got, len(reply), tc.want)
			}
		})
	}
}

func TestEveryLimitIsKept(t *testing.T) {
	v, s := viewOf(bigZone(t)), &Scratch{}
	for _, name := range []string{"x.indomain", "x.siblings", "forty", "link", "nope", "x.full"} {
		message, _ := question(t, name+".example.test. A +edns=512")
		size := len(message) - 11 + 3 // where the OPT record has its size
		whole := map[bool]int{}
		for limit := 512; limit <= MaxUDP+1; limit++ {
			binary.BigEndian.PutUint16(message[size:], uint16(limit))
			reply := ask(v, s, message, UDP)
			if len(reply) > min(limit, MaxUDP) {
				t.Fatalf("%s: %d octets for a client that takes %d", name, len(reply), limit)
			}
			var m dns.Msg
			if err := m.Unpack(reply); err != nil {
				t.Fatalf("%s within %d: %v", name, limit, err)
			}
			whole[!m.Truncated]++
			if whole[true] > 0 && m.Truncated {
				t.Fatalf("%s: truncated within %d, but not within less", name, limit)
			}
		}
	}
}

func TestNamesAreCompressedWhereAllowed(t *testing.T) {
	z := served(t, "example.test.", `
@ SOA ns hostmaster 1 2 3 4 5
@ NS ns.example.test.
ns A 10.0.0.1
a CNAME target
b PTR target
c MX 1 target
d SRV 1 2 3 target
e DNAME target
f RP target target
g AFSDB 1 target
h NAPTR 1 2 "s" "x" "" target
i KX 1 target
j SVCB 1 target alpn=h2
k MINFO target target
l TYPE65280 \# 21 06746172676574076578616d706c65047465737400
`)
	v := viewOf(z)
	for name, tc := range map[string]struct {
		typ        uint16
		compressed bool
	}{
		"@": {dns.TypeSOA, true}, "a": {dns.TypeCNAME, true}, "b": {dns.TypePTR, true}, "c": {dns.TypeMX, true}, "k": {dns.TypeMINFO, true},
		"d": {dns.TypeSRV, false}, "e": {dns.TypeDNAME, false}, "f": {dns.TypeRP, false}, "g": {dns.TypeAFSDB, false},
		"h": {dns.TypeNAPTR, false}, "i": {dns.TypeKX, false}, "j": {dns.TypeSVCB, false}, "l": {65280, false},
	} {
		owner := strings.TrimPrefix(name+".example.test.", "@.")
		message, _ := question(t, owner+" "+dns.Type(tc.typ).String())
		reply := ask(v, &Scratch{}, message, UDP)
		rest := string(reply[len(message):]) // behind the question
		if strings.Contains(rest[2:], "\x07example\x04test\x00") == tc.compressed {
			t.Errorf("%s: compressed %v, wanted %v: %x", dns.Type(tc.typ), !tc.compressed, tc.compressed, rest)
		}
		if rest[0] != 0xc0 || rest[1] != 12 {
			t.Errorf("%s: the owner is not a pointer to the question: %x", dns.Type(tc.typ), rest[:2])
		}
		var m dns.Msg
		if err := m.Unpack(reply); err != nil || len(m.Answer) == 0 || !dns.IsSubDomain("example.test.", m.Answer[0].Header().Name) {
			t.Errorf("%s: %v %v", dns.Type(tc.typ), m.Answer, err)
		}
	}
}

func TestKeepAliveIsStatedToThoseWhoAskOverTCP(t *testing.T) {
	v := viewOf(bigZone(t))
	const asking = "\x00\x0b\x00\x00"
	asks, silent := opt(asking), opt("")
	for sentence, tc := range map[string]struct {
		name    string
		options string
		over    Transport
		timeout uint16 // 100 ms
		want    bool
		ede     bool
	}{
		"one who asks over TCP is told":            {"ns.example.test.", asks, TCP, 100, true, false},
		"one who asks with a timeout is told":      {"ns.example.test.", opt("\x00\x0b\x00\x02\x00\x01"), TCP, 65535, true, false},
		"one who asks between other options":       {"ns.example.test.", opt("\x00\x03\x00\x00" + asking + "\xff\x00\x00\x01a"), TCP, 1, true, false},
		"one who asks over UDP is not told":        {"ns.example.test.", asks, UDP, 100, false, false},
		"one who does not ask is not told":         {"ns.example.test.", silent, TCP, 100, false, false},
		"nobody is told where nothing is known":    {"ns.example.test.", asks, TCP, 0, false, false},
		"it stands beside an extended error":       {"elsewhere.", asks, TCP, 100, true, true},
		"it stands beside a negative answer":       {"nope.example.test.", asks, TCP, 100, true, false},
		"it stands in a reply that is truncated":   {"toomany.example.test.", asks, TCP, 100, true, false},
		"it stands beside the largest of answers":  {"many.example.test.", asks, TCP, 100, true, false},
		"a query after another does not inherit":   {"ns.example.test.", silent, TCP, 100, false, false},
		"a query without EDNS gets no OPT to hold": {"ns.example.test.", "", TCP, 100, false, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			message, _ := question(t, tc.name+" A")
			if tc.options != "" {
				message = append(message, tc.options...)
				message[11] = 1
			}
			s := &Scratch{KeepAlive: tc.timeout}
			other, _ := question(t, "ns.example.test. A")
			other = append(other, asks...)
			other[11] = 1
			ask(v, s, other, TCP)
			reply := ask(v, s, message, tc.over)
			var m dns.Msg
			if err := m.Unpack(reply); err != nil {
				t.Fatal(err)
			}
			told, ede := false, false
			if o := m.IsEdns0(); o != nil {
				for _, option := range o.Option {
					switch option := option.(type) {
					case *dns.EDNS0_TCP_KEEPALIVE:
						told = option.Timeout == tc.timeout
					case *dns.EDNS0_EDE:
						ede = true
					}
				}
			}
			if told != tc.want || ede != tc.ede {
				t.Errorf("answered %v", &m)
			}
			memory := make([]byte, 0, MaxMessage)
			if n := testing.AllocsPerRun(10, func() { v.Answer(s, memory, message, client, tc.over) }); n > 0 {
				t.Errorf("%g allocations", n)
			}
		})
	}
}
