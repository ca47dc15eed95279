// Package worlds makes zones and questions that tests compare answers by. Equal seeds give equal
// results.
package worlds

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// generator makes zones in which names meet often: few labels, all depths, every kind of
// record that changes how others are answered.
type generator struct {
	*rand.Rand
	apex  string
	names map[string]*owner // absolute names
}

// owner is what stands at a name of the zone.
type owner struct {
	types map[string][]string // presentation form of rdata by type
	ttl   map[string]int
	cut   bool // a delegation
	alias bool // CNAME
	moved bool // DNAME
	below bool // under a delegation: glue and hidden data
}

var labels = []string{"a", "b", "c", "www", "host", "mail", "*", "_sip._tcp", "A-B", `x\.y`, `\000`, `\255z`, strings.Repeat("l", 63)}

// Zone makes a zone from a seed, as a master file, and lists its names. The apex is absolute.
func Zone(seed uint64, apex string) (text string, names []string) {
	g := &generator{rand.New(rand.NewPCG(seed, 1)), apex, map[string]*owner{}}
	g.add(apex, "SOA", fmt.Sprintf("ns1.%s hostmaster.%s %d 7200 3600 604800 %d", apex, apex, 1+g.IntN(1<<31), []int{0, 60, 86400}[g.IntN(3)]))
	g.add(apex, "NS", g.join("ns1"))
	g.add(apex, "NS", "ns.elsewhere.invalid.")
	g.add(g.join("ns1"), "A", g.address())
	if g.IntN(2) == 0 {
		g.add(g.join("ns1"), "AAAA", g.address6())
	}
	for range 8 {
		g.delegation(g.name())
	}
	for range 3 {
		g.dname(g.name())
	}
	for range 15 {
		g.cname(g.name())
	}
	for range 60 {
		g.data(g.name())
	}
	// A name of 255 octets.
	if long := strings.Repeat("m", 63) + "." + strings.Repeat("n", 63) + "." + strings.Repeat("o", 63) + "." + apex; len(long)+1 < 250 {
		g.data(strings.Repeat("p", 255-len(long)-2) + "." + long)
	}
	names = slices.Sorted(maps.Keys(g.names))
	return g.text(), names
}

func (g *generator) join(labels ...string) string {
	if g.apex == "." {
		return strings.Join(labels, ".") + "."
	}
	return strings.Join(append(labels, g.apex), ".")
}

// name draws a name below the apex, one to four labels.
func (g *generator) name() string {
	var parts []string
	for range 1 + min(g.IntN(4), g.IntN(4)) {
		parts = append(parts, labels[g.IntN(len(labels)-g.IntN(5))])
	}
	return g.join(parts...)
}

// target draws a name to point to: mostly one of this zone.
func (g *generator) target() string {
	switch g.IntN(10) {
	case 0:
		return "www.elsewhere.invalid."
	case 1, 2, 3:
		return g.name()
	}
	names := slices.Sorted(maps.Keys(g.names))
	return names[g.IntN(len(names))]
}

func (g *generator) address() string {
	return fmt.Sprintf("10.%d.%d.%d", g.IntN(256), g.IntN(256), g.IntN(256))
}
func (g *generator) address6() string {
	return fmt.Sprintf("2001:db8::%x:%x", g.IntN(1<<16), g.IntN(1<<16))
}

func (g *generator) at(name string) *owner {
	if g.names[name] == nil {
		g.names[name] = &owner{types: map[string][]string{}, ttl: map[string]int{}}
	}
	return g.names[name]
}

func (g *generator) add(name, typ, rdata string) {
	o := g.at(name)
	if !slices.Contains(o.types[typ], rdata) {
		o.types[typ] = append(o.types[typ], rdata)
	}
	if _, ok := o.ttl[typ]; !ok {
		o.ttl[typ] = []int{0, 60, 300, 86400, 604800}[g.IntN(5)]
	}
}

// above tells what hides a name: the delegation or the DNAME above it.
func (g *generator) above(name string) (cut, moved bool) {
	for i, end := dns.NextLabel(name, 0); !end; i, end = dns.NextLabel(name, i) {
		if o := g.names[name[i:]]; o != nil && name[i:] != g.apex {
			cut = cut || o.cut
			moved = moved || o.moved
		}
	}
	return cut, moved
}

// delegation makes a cut where nothing stands yet, with glue in the domain, of siblings,
// elsewhere, or none.
func (g *generator) delegation(name string) {
	if cut, moved := g.above(name); cut || moved || g.names[name] != nil || strings.Contains(name, "*") {
		return
	}
	g.at(name).cut = true
	for i := range 1 + g.IntN(4) {
		server := fmt.Sprintf("ns%d.%s", i, name)
		switch g.IntN(5) {
		case 0:
			server = g.target()
		case 1:
			server = fmt.Sprintf("ns%d.elsewhere.invalid.", i)
		case 2: // in the domain, without glue
		default:
			g.add(server, "A", g.address())
			if g.IntN(2) == 0 {
				g.add(server, "AAAA", g.address6())
			}
			g.at(server).below = true
		}
		g.add(name, "NS", server)
	}
	if g.IntN(2) == 0 {
		g.add(name, "DS", fmt.Sprintf("%d 8 2 %064x", g.IntN(1<<16), g.Uint64()))
	}
	if g.IntN(3) == 0 { // hidden by the cut
		g.add("hidden."+name, "TXT", `"hidden"`)
		g.at("hidden." + name).below = true
	}
}

func (g *generator) dname(name string) {
	_, moved := g.above(name)
	if moved || g.names[name] != nil || strings.Contains(name, "*") {
		return
	}
	for other := range g.names { // nothing may stand below
		if dns.IsSubDomain(name, other) {
			return
		}
	}
	g.at(name).moved = true
	target := g.target()
	if g.IntN(4) == 0 {
		target = strings.Repeat("t", 60) + "." + strings.Repeat("u", 60) + "." + strings.Repeat("v", 60) + "." + g.apex
	}
	g.add(name, "DNAME", target)
}

// free reports whether ordinary data may stand at a name without changing what is there.
func (g *generator) free(name string) bool {
	_, moved := g.above(name)
	o := g.names[name]
	return !moved && (o == nil || !o.cut && !o.alias && !o.moved)
}

func (g *generator) cname(name string) {
	if !g.free(name) || g.names[name] != nil {
		return
	}
	g.at(name).alias = true
	g.add(name, "CNAME", g.target())
}

func (g *generator) data(name string) {
	if !g.free(name) {
		return
	}
	for range 1 + g.IntN(3) {
		switch g.IntN(11) {
		case 0, 1, 2:
			for range 1 + g.IntN(3) {
				g.add(name, "A", g.address())
			}
		case 3:
			g.add(name, "AAAA", g.address6())
		case 4:
			g.add(name, "TXT", fmt.Sprintf("%q", strings.Repeat("t", g.IntN(200))))
		case 5:
			g.add(name, "MX", fmt.Sprintf("%d %s", g.IntN(20), g.target()))
		case 6:
			g.add(name, "SRV", fmt.Sprintf("1 %d 80 %s", g.IntN(20), g.target()))
		case 7:
			g.add(name, "CAA", `0 issue "ca.invalid"`)
		case 8:
			g.add(name, "TYPE65280", `\# 4 `+fmt.Sprintf("%08x", g.Uint32()))
		case 9:
			g.add(name, "PTR", g.target())
		case 10:
			for i := range 10 * g.IntN(20) {
				g.add(name, "A", fmt.Sprintf("10.200.%d.%d", g.IntN(4), i))
			}
		}
	}
}

func (g *generator) text() string {
	var b strings.Builder
	write := func(name string) {
		o := g.names[name]
		for _, typ := range slices.Sorted(maps.Keys(o.types)) {
			for _, rdata := range o.types[typ] {
				fmt.Fprintf(&b, "%s %d IN %s %s\n", name, o.ttl[typ], typ, rdata)
			}
		}
	}
	for _, typ := range []string{"SOA"} { // first, as some readers want it
		fmt.Fprintf(&b, "%s %d IN SOA %s\n", g.apex, g.names[g.apex].ttl[typ], g.names[g.apex].types[typ][0])
		delete(g.names[g.apex].types, typ)
	}
	for _, name := range slices.Sorted(maps.Keys(g.names)) {
		write(name)
	}
	return b.String()
}

// Question draws one about the given zones' names: these, their parents, children and siblings;
// and whether to ask it over TCP.
func Question(r *rand.Rand, names []string) (m *dns.Msg, tcp bool) {
	name := names[r.IntN(len(names))]
	for range r.IntN(3) {
		switch r.IntN(4) {
		case 0, 1:
			name = labels[r.IntN(len(labels))] + "." + strings.TrimPrefix(name, ".")
		case 2:
			name = fmt.Sprintf("nope%d.%s", r.IntN(10), strings.TrimPrefix(name, "."))
		case 3:
			if i, end := dns.NextLabel(name, 0); !end {
				name = name[i:]
			}
		}
	}
	if _, ok := dns.IsDomainName(name); !ok {
		name = names[0]
	}
	if r.IntN(3) == 0 { // 0x20
		name = strings.Map(func(c rune) rune {
			if 'a' <= c && c <= 'z' && r.IntN(2) == 0 {
				return c - 'a' + 'A'
			}
			return c
		}, name)
	}
	types := []uint16{
		dns.TypeA, dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeSOA, dns.TypeCNAME, dns.TypeMX, dns.TypeTXT, dns.TypeDS, dns.TypeDS,
		dns.TypeDNAME, dns.TypeSRV, dns.TypePTR, dns.TypeCAA, 65280, 65281, dns.TypeANY, dns.TypeDNSKEY, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeHTTPS,
	}
	m = &dns.Msg{MsgHdr: dns.MsgHdr{Id: uint16(r.Uint32()), RecursionDesired: r.IntN(4) == 0}}
	m.Question = []dns.Question{{Name: name, Qtype: types[r.IntN(len(types))], Qclass: dns.ClassINET}}
	switch r.IntN(6) {
	case 0, 1:
		m.SetEdns0(1232, false)
	case 2, 3:
		m.SetEdns0(4096, true)
	case 4:
		m.SetEdns0(uint16(r.IntN(2000)), false)
	}
	return m, r.IntN(3) == 0
}
