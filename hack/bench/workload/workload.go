// Package workload makes the zones and questions that benchmarks use. Equal arguments give equal results, byte by byte.
package workload

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
)

// Apex is the zone that NewZone makes.
const Apex = "bench.test."

// Record types that questions ask for (IANA registry "Resource Record (RR) TYPEs").
const (
	typeA    uint16 = 1
	typeMX   uint16 = 15
	typeTXT  uint16 = 16
	typeAAAA uint16 = 28
)

// Zone is a zone like those of large companies: hosts at two and three labels below the apex, aliases, texts of
// external-dns, and delegations with glue.
type Zone struct {
	apex  string // absolute
	text  strings.Builder
	names int

	addresses, both, aliases, texts, cuts, large []string // names relative to the apex, by what they have
}

// Zones are what a server has.
type Zones []*Zone

// departments and teams are how many subdomains the hosts are spread over; hosts as often are at the apex itself.
const (
	departments = 997
	teams       = 499
)

// largeNames is how many names with large RRsets a zone with many names has.
const largeNames = 100

// NewZone makes a zone with so many names beside the two servers of the zone; one in twenty of them is a delegation to two
// servers below it. It has some 1.6 records a name.
func NewZone(names int) *Zone { return newZone(Apex, names, 1) }

// NewZones makes so many zones of that many names each.
func NewZones(count, names int) Zones {
	zones := make(Zones, count)
	for i := range zones {
		zones[i] = newZone(fmt.Sprintf("z%d.%s", i, Apex), names, uint64(i+2))
	}
	return zones
}

func newZone(apex string, names int, seed uint64) *Zone {
	z := &Zone{apex: apex, names: names}
	random := rand.New(rand.NewPCG(seed, uint64(names)))
	address := func() string {
		return fmt.Sprintf("10.%d.%d.%d", random.IntN(256), random.IntN(256), 1+random.IntN(250))
	}
	record := func(owner, rest string) { fmt.Fprintf(&z.text, "%s %s\n", owner, rest) }
	fmt.Fprintf(&z.text, "$ORIGIN %s\n$TTL 300\n", apex)
	record("@", "3600 SOA ns1 hostmaster 1 7200 900 1209600 300")
	record("@", "NS ns1")
	record("@", "NS ns2")
	record("ns1", "A 192.0.2.1")
	record("ns2", "A 192.0.2.2")
	for i := range names {
		name := nameOf(i)
		switch kind := i * 37 % 100; { // kinds of a few names are those of many
		case kind < 58:
			record(name, "A "+address())
			z.addresses = append(z.addresses, name)
		case kind < 80:
			record(name, "A "+address())
			record(name, "A "+address())
			record(name, fmt.Sprintf("AAAA 2001:db8:%x::%x", random.IntN(1<<16), i&0xffff))
			z.addresses = append(z.addresses, name)
			z.both = append(z.both, name)
		case kind < 88:
			record(name, "CNAME "+nameOf(random.IntN(names)/300*300)) // a multiple of 300 has an address
			z.aliases = append(z.aliases, name)
		case kind < 95:
			record(name, fmt.Sprintf(`TXT "heritage=external-dns,external-dns/owner=default,id=%d"`, i))
			z.texts = append(z.texts, name)
		default:
			cut := fmt.Sprintf("d%d", i)
			for _, ns := range []string{"ns1", "ns2"} {
				record(cut, "NS "+ns+"."+cut)
				record(ns+"."+cut, "A "+address())
			}
			z.cuts = append(z.cuts, cut)
		}
	}
	if names >= 10*largeNames {
		for i := range largeNames {
			name := fmt.Sprintf("large%d", i)
			for j := range 24 {
				record(name, "A "+address())
				record(name, fmt.Sprintf("AAAA 2001:db8:%x::%x", random.IntN(1<<16), j))
			}
			for j := range 3 {
				record(name, fmt.Sprintf(`TXT "k=%d;p=%s"`, j, strings.Repeat("0123456789abcdef", 13)))
			}
			z.large = append(z.large, name)
		}
	}
	return z
}

func nameOf(i int) string {
	switch i % 3 {
	case 0:
		return fmt.Sprintf("h%d", i)
	case 1:
		return fmt.Sprintf("svc-%d.dept%d", i, i%departments)
	default:
		return fmt.Sprintf("api%x.team%d.prod", i, i%teams)
	}
}

// Apex is the zone's name, absolute.
func (z *Zone) Apex() string { return z.apex }

// Hosts returns absolute names that have A records and nothing below them.
func (z *Zone) Hosts() []string {
	hosts := make([]string, len(z.addresses))
	for i, name := range z.addresses {
		hosts[i] = name + "." + z.apex
	}
	return hosts
}

// FirstName is a name with an A record that every Zones has.
func (z Zones) FirstName() string { return "ns1." + z[0].apex }

// WriteTo writes the zone as a master file.
func (z *Zone) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, z.text.String())
	return int64(n), err
}

// Mix says which share of the questions, in percent, is of which kind.
type Mix struct {
	NXDomain, Referral, NoData int // the rest has an answer,
	Large                      int // and so many of all one from a large RRset
	EDNS                       int // has an OPT record, of whatever kind it is
	Cookies                    int // has a cookie as well (RFC 7873)
}

// Usual is what authoritative servers of companies are asked.
var Usual = Mix{NXDomain: 10, Referral: 5, NoData: 5, EDNS: 70}

// Questions are messages to send one after the other, over and over: each has its length before it in two octets, as over
// TCP. The IDs are 0.
type Questions []byte

// Questions makes questions about this zone alone, without cookies.
func (z *Zone) Questions(n int, mix Mix) Questions { return Zones{z}.Questions(n, mix, nil) }

// Questions makes so many questions about the zones in random order. The first is for FirstName. Cookies are what those
// with a cookie have.
func (z Zones) Questions(n int, mix Mix, cookie []byte) Questions {
	random := rand.New(rand.NewPCG(2, uint64(z[0].names)))
	questions := Questions{}.Add(z.FirstName(), typeA, nil)
	for range n - 1 {
		zone := z[random.IntN(len(z))]
		pick := func(names []string) string { return names[random.IntN(len(names))] + "." + zone.apex }
		var name string
		typ := typeA
		switch kind := random.IntN(100); {
		case kind < mix.NXDomain && random.IntN(2) == 0:
			name = fmt.Sprintf("nx%x.%s", random.Uint32(), zone.apex)
		case kind < mix.NXDomain:
			name = fmt.Sprintf("nx%x.team%d.prod.%s", random.Uint32(), random.IntN(teams), zone.apex)
		case kind < mix.NXDomain+mix.Referral:
			name = "www." + pick(zone.cuts)
		case kind < mix.NXDomain+mix.Referral+mix.NoData:
			name, typ = pick(zone.addresses), typeMX
		case kind < mix.NXDomain+mix.Referral+mix.NoData+mix.Large:
			name, typ = pick(zone.large), []uint16{typeA, typeAAAA, typeTXT}[random.IntN(3)]
		default:
			switch hit := random.IntN(100); {
			case hit < 60:
				name = pick(zone.addresses)
			case hit < 80:
				name, typ = pick(zone.both), typeAAAA
			case hit < 92:
				name = pick(zone.aliases)
			default:
				name, typ = pick(zone.texts), typeTXT
			}
		}
		var opt []byte
		switch share := random.IntN(100); {
		case share < mix.Cookies:
			opt = OPT(option(10, cookie))
		case share < mix.EDNS:
			opt = OPT(nil)
		}
		questions = questions.Add(name, typ, opt)
	}
	return questions
}

// OPT is an OPT record for answers of up to 1232 octets with the given options (RFC 6891 §6.1.2).
func OPT(options []byte) []byte {
	opt := []byte{0, 0, 41, 1232 >> 8, 1232 & 0xff, 0, 0, 0, 0}
	return append(binary.BigEndian.AppendUint16(opt, uint16(len(options))), options...)
}

// option is one EDNS option.
func option(code uint16, content []byte) []byte {
	o := binary.BigEndian.AppendUint16(nil, code)
	return append(binary.BigEndian.AppendUint16(o, uint16(len(content))), content...)
}

// Add appends a question for an absolute name in presentation form without escapes, and an OPT record unless it is nil.
func (q Questions) Add(name string, typ uint16, opt []byte) Questions {
	start := len(q)
	q = append(q, 0, 0) // its length
	additional := byte(0)
	if opt != nil {
		additional = 1
	}
	q = append(q, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, additional)
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(append(q, 0, byte(typ>>8), byte(typ), 0, 1), opt...)
	binary.BigEndian.PutUint16(q[start:], uint16(len(q)-start-2))
	return q
}

// First returns the first question, without its length.
func (q Questions) First() []byte { return q[2 : 2+binary.BigEndian.Uint16(q)] }
