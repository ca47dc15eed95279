package zone

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// maxFaults bounds how many faults Load returns one by one.
const maxFaults = 1000

// Load reads a whole zone from a master file, for a server that has nothing else to go by.
//
// The content holds all that can be served; it is nil if there is no SOA at the apex. The
// version has that SOA's serial. Faults are in order of lines, those of the zone as a whole
// (line 0) first; beyond 1,000 a last one counts the rest. A zone with a fault that is no
// Warning should not be served: some of its names would be missing or wrong.
func Load(apex Name, text string) (*Content, Version, []*Fault) {
	return LoadParallel(apex, text, 1)
}

// LoadParallel is Load on up to so many threads; its result does not depend on their number.
// The text is shorter than 4 GiB.
func LoadParallel(apex Name, text string, threads int) (*Content, Version, []*Fault) {
	return load(apex, text, sharingFor(threads))
}

func load(apex Name, text string, s sharing) (*Content, Version, []*Fault) {
	l := loader{apex: apex, sharing: s, skip: len(apex.key()), unsigned: map[uint16]int{}}
	l.gathered = readChunks(text, apex, s, func(lines int) *gathered {
		return &gathered{apex: apex, unsigned: map[uint16]int{}, records: make([]loaded, 0, lines), runs: make([]run, 0, lines*3/4)}
	})
	for _, g := range l.gathered {
		l.faults.merge(&g.faults)
		for typ, n := range g.unsigned {
			l.unsigned[typ] += n
		}
	}
	c := l.content()
	if c == nil {
		return nil, Version{}, l.faults.report(apex, text)
	}
	return c, Version{l.serial, c.Digest()}, l.faults.report(apex, text)
}

// faultList gathers the first faults of a text and counts the others.
type faultList struct {
	list   []*Fault
	beyond int // faults that are only counted, and
	fatal  int // how many of these are no warnings
}

func (f *faultList) add(fault *Fault) {
	f.list = append(f.list, fault)
	if len(f.list) >= 2*maxFaults {
		f.trim()
	}
}

// fail reports a fault of a record; its text is filled in by report.
func (f *faultList) fail(owner Name, r *loaded, warning bool, reason, defect string) {
	f.add(&Fault{Line: int(r.line), Column: int(r.column), Err: &RuleError{owner, r.typ, reason, defect}, Warning: warning})
}

// trim puts the faults in order and keeps the first.
func (f *faultList) trim() {
	slices.SortStableFunc(f.list, func(a, b *Fault) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	if len(f.list) <= maxFaults {
		return
	}
	for _, fault := range f.list[maxFaults:] {
		f.beyond++
		if !fault.Warning {
			f.fatal++
		}
	}
	clear(f.list[maxFaults:])
	f.list = f.list[:maxFaults]
}

// merge adds the faults of another list.
func (f *faultList) merge(other *faultList) {
	for _, fault := range other.list {
		f.add(fault)
	}
	f.beyond += other.beyond
	f.fatal += other.fatal
}

// report returns the faults in order, each with its line of the text.
func (f *faultList) report(apex Name, text string) []*Fault {
	f.trim()
	line := 0
	current := ""
	for _, fault := range f.list {
		for line < fault.Line {
			current, text, _ = strings.Cut(text, "\n")
			line++
		}
		if fault.Line > 0 && fault.Text == "" {
			fault.Text = printable(current)
		}
	}
	if f.beyond > 0 {
		f.list = append(f.list, &Fault{
			Err: &RuleError{apex, 0, "MoreFaults", fmt.Sprintf("%d more faults, %d of them no warnings", f.beyond, f.fatal)}, Warning: f.fatal == 0,
		})
	}
	return f.list
}

// loaded is a record that was taken in.
type loaded struct {
	rdata        string // with its length before it in two octets, as in an RRset
	ttl          uint32
	line, column uint32
	typ          uint16
}

// run is records of one owner that follow one another in the text.
type run struct {
	owner        Name
	key          string // of the owner
	first, count uint32 // in gathered.records
}

// gathered is what one part of the text gave.
type gathered struct {
	apex     Name
	records  []loaded
	runs     []run
	owner    Name // of the last record, also if that was left out
	within   bool // it is in the zone
	open     bool // the last run is its own
	unsigned map[uint16]int
	faults   faultList
	rdata    arena
	keys     arena
}

// found takes in one record or fault.
func (g *gathered) found(r *Record, fault *Fault) {
	if fault != nil {
		g.faults.add(fault)
		return
	}
	if r.Owner != g.owner {
		g.owner, g.within, g.open = r.Owner, r.Owner.Within(g.apex), false
	}
	l := loaded{ttl: r.TTL, line: uint32(r.Line), column: uint32(r.Column), typ: r.Type}
	switch {
	case !g.within:
		g.faults.fail(r.Owner, &l, true, "OutOfZone", "it is outside zone "+g.apex.String())
	case IsSigning(r.Type):
		g.unsigned[r.Type]++
	case !r.HasTTL:
		g.faults.fail(r.Owner, &l, false, "BadTTL", "it has no TTL, and no $TTL and no record before it states one")
	default:
		if !g.open {
			g.open = true
			var key [2*MaxName + 1]byte
			g.runs = append(g.runs, run{owner: r.Owner, key: g.keys.text(r.Owner.appendKey(key[:0])), first: uint32(len(g.records))})
		}
		g.runs[len(g.runs)-1].count++
		l.rdata = g.rdata.record(r.RData)
		g.records = append(g.records, l)
	}
}

// of returns the records of a run.
func (g *gathered) of(r *run) []loaded { return g.records[r.first:][:r.count:r.count] }

// loader makes a zone of what its parts gave.
type loader struct {
	apex     Name
	sharing  sharing
	skip     int // octets at the start of all keys
	gathered []*gathered
	parts    []*partOfZone
	soa      string // rdata of the apex's, with its serial; "" if there is none
	serial   uint32
	unsigned map[uint16]int // records left out by type, see IsSigning
	faults   faultList
}

// place is where a run is, with the start of its key to sort by.
type place struct {
	start    uint64 // of the key behind what all keys have in common
	gathered uint32
	run      uint32
}

func (l *loader) run(p place) *run { return &l.gathered[p.gathered].runs[p.run] }

// compare orders runs by owner, and runs of one owner as in the text.
func (l *loader) compare(a, b place) int {
	if a.start != b.start {
		return cmp.Compare(a.start, b.start)
	}
	return cmp.Or(strings.Compare(l.run(a).key[l.skip:], l.run(b).key[l.skip:]), cmp.Compare(a.gathered, b.gathered), cmp.Compare(a.run, b.run))
}

// keyStart is the start of a key as a number of the same order.
func keyStart(key string) uint64 {
	var start [8]byte
	copy(start[:], key)
	return binary.BigEndian.Uint64(start[:])
}

// places divides all runs among parts of the zone in canonical order; what is in a part is
// not in order. All runs of one owner are in one part.
func (l *loader) places() [][]place {
	runs := 0
	for _, g := range l.gathered {
		runs += len(g.runs)
	}
	count := l.sharing.count(runs, l.sharing.runs)
	// The owners with which parts start are those of a sample.
	var sample []place
	if count > 1 {
		const each = 64 // of a part
		step := max(runs/(count*each), 1)
		for i, g := range l.gathered {
			for j := 0; j < len(g.runs); j += step {
				sample = append(sample, place{keyStart(g.runs[j].key[l.skip:]), uint32(i), uint32(j)})
			}
		}
		slices.SortFunc(sample, l.compare)
	}
	var firsts []*run
	for i := 1; i < count; i++ {
		firsts = append(firsts, l.run(sample[len(sample)*i/count]))
	}
	divided := make([][][]place, len(l.gathered)) // by gathered, then by part
	inParallel(l.sharing.threads, len(l.gathered), func(i int) {
		g := l.gathered[i]
		mine := make([][]place, count)
		for p := range mine {
			mine[p] = make([]place, 0, len(g.runs)/count+len(g.runs)/(8*count)+8)
		}
		for j := range g.runs {
			r := &g.runs[j]
			part, exact := slices.BinarySearchFunc(firsts, r.key, func(first *run, key string) int { return strings.Compare(first.key, key) })
			if exact {
				for part < len(firsts) && firsts[part].key == r.key {
					part++
				}
			}
			mine[part] = append(mine[part], place{keyStart(r.key[l.skip:]), uint32(i), uint32(j)})
		}
		divided[i] = mine
	})
	parts := make([][]place, count)
	for p := range parts {
		for i := range divided {
			if len(divided) == 1 {
				parts[p] = divided[i][p]
			} else {
				parts[p] = append(parts[p], divided[i][p]...)
			}
		}
	}
	return parts
}

// partOfZone is nodes of the zone that follow one another.
type partOfZone struct {
	*loader
	places []place
	nodes  []Node   // some without RRsets
	ends   []uint32 // where in places those of each node end
	faults faultList

	sets   []RRset // holds those of many nodes
	rdata  arena
	joined []loaded // of one node, from several runs
	sorted []loaded // of one node, by type
	values []string // of one RRset
}

// content builds the zone of what was taken in.
func (l *loader) content() *Content {
	places := l.places()
	l.parts = make([]*partOfZone, len(places))
	inParallel(l.sharing.threads, len(places), func(i int) {
		p := &partOfZone{loader: l, places: places[i]}
		slices.SortFunc(p.places, l.compare)
		p.build()
		l.parts[i] = p
	})
	var apex *Node
	for _, p := range l.parts {
		l.faults.merge(&p.faults)
		if apex == nil && len(p.nodes) > 0 && p.nodes[0].Owner == l.apex { // it is the first of all
			apex = &p.nodes[0]
		}
	}
	if l.soa == "" {
		l.whole(false, TypeSOA, "NoSOA", "the zone has none at its apex (RFC 1035 §5.2)")
		return nil
	}
	if !apex.Has(TypeNS) {
		l.whole(false, TypeNS, "NoNS", "the zone has none at its apex (RFC 1035 §5.2)")
	}
	if len(l.unsigned) > 0 {
		l.whole(true, 0, "Unsigned", fmt.Sprintf("the zone is served unsigned, without %s", counts(l.unsigned)))
	}
	var records func() []loaded // of the node that all has yielded last
	all := func(yield func(*Node) bool) {
		for _, p := range l.parts {
			for i := range p.nodes {
				records = func() []loaded { return p.recordsOf(i) }
				if len(p.nodes[i].RRsets) > 0 && !yield(&p.nodes[i]) {
					return
				}
			}
		}
	}
	l.uncover(all, func() []loaded { return records() })
	nodes := make([][]Node, len(l.parts))
	for i, p := range l.parts {
		nodes[i] = p.nodes
	}
	l.parts, l.gathered = nil, nil
	return newSortedContent(l.apex, nodes, l.sharing.threads)
}

// uncover takes out what cannot be seen behind delegations and DNAMEs; records returns those
// of the node that nodes has yielded last.
func (l *loader) uncover(nodes iter.Seq[*Node], records func() []loaded) {
	for n, by := range covered(l.apex, nodes) {
		all := records()
		if by.Has(TypeDNAME) {
			l.faults.fail(n.Owner, &all[0], false, "BelowDNAME", fmt.Sprintf("it is below the DNAME of %s (RFC 6672 §2.4)", by.Owner))
			n.RRsets = nil
			continue
		}
		first := &all[slices.IndexFunc(all, func(r loaded) bool { return !isAddress(r.typ) })]
		l.faults.fail(n.Owner, first, true, "Occluded", fmt.Sprintf("it is hidden by the delegation of %s", by.Owner))
		*n = NewNode(n.Owner, n.RRset(TypeA), n.RRset(TypeAAAA)) // they may be glue
	}
}

// whole reports a fault of the zone as a whole.
func (l *loader) whole(warning bool, typ uint16, reason, defect string) {
	l.faults.fail(l.apex, &loaded{typ: typ}, warning, reason, defect)
}

// counts is "2 DNSKEY, 10 RRSIG".
func counts(types map[uint16]int) string {
	var parts []string
	for _, typ := range slices.Sorted(maps.Keys(types)) {
		parts = append(parts, fmt.Sprintf("%d %s", types[typ], TypeString(typ)))
	}
	return strings.Join(parts, ", ")
}

// build makes the nodes of the places, which are in order.
func (p *partOfZone) build() {
	p.nodes = make([]Node, 0, len(p.places))
	p.ends = make([]uint32, 0, len(p.places))
	for start := 0; start < len(p.places); {
		first := p.run(p.places[start])
		end := start + 1
		for end < len(p.places) && p.run(p.places[end]).owner == first.owner {
			end++
		}
		records := p.recordsAt(p.places[start:end])
		made := p.node(first.owner, records)
		node, dropped := CheckNode(p.apex, made)
		for _, d := range dropped {
			lost := slices.Collect(d.RRset.All())
			r := records[slices.IndexFunc(records, func(r loaded) bool {
				return r.typ == d.RRset.Type && slices.Contains(lost, p.value(first.owner, &r))
			})]
			p.faults.add(&Fault{Line: int(r.line), Column: int(r.column), Err: d.Err, Warning: d.Harmless})
		}
		p.nodes, p.ends = append(p.nodes, node), append(p.ends, uint32(end))
		start = end
	}
}

// recordsOf returns the records of a node in the order of the text, until the next call.
func (p *partOfZone) recordsOf(i int) []loaded {
	start := uint32(0)
	if i > 0 {
		start = p.ends[i-1]
	}
	return p.recordsAt(p.places[start:p.ends[i]])
}

func (p *partOfZone) recordsAt(places []place) []loaded {
	if len(places) == 1 {
		return p.gathered[places[0].gathered].of(p.run(places[0]))
	}
	p.joined = p.joined[:0]
	for _, at := range places {
		p.joined = append(p.joined, p.gathered[at.gathered].of(p.run(at))...)
	}
	return p.joined
}

// value is the rdata of a record as the zone keeps it.
func (p *partOfZone) value(owner Name, r *loaded) string {
	if r.typ == TypeSOA && owner == p.apex {
		soa, _ := ParseSOA(r.rdata[2:]) // it was checked
		soa.Serial = 0
		return string(soa.Pack())
	}
	return r.rdata[2:]
}

// node makes the RRsets of one owner; of different TTLs the lowest counts (RFC 2181 §5.2).
func (p *partOfZone) node(owner Name, records []loaded) Node {
	p.sorted = p.sorted[:0]
	inOrder := true
	for i := range records {
		r := &records[i]
		if r.typ == TypeSOA && owner == p.apex && !p.takeSOA(owner, r) {
			continue
		}
		inOrder = inOrder && (len(p.sorted) == 0 || p.sorted[len(p.sorted)-1].typ <= r.typ)
		p.sorted = append(p.sorted, *r)
	}
	rest := p.sorted
	if !inOrder {
		slices.SortStableFunc(rest, func(a, b loaded) int { return int(a.typ) - int(b.typ) })
	}
	if cap(p.sets)-len(p.sets) < len(rest) {
		p.sets = make([]RRset, 0, max(len(rest), min(2*cap(p.sets), 1024), 4))
	}
	start := len(p.sets)
	for len(rest) > 0 {
		size := 1
		for size < len(rest) && rest[size].typ == rest[0].typ {
			size++
		}
		p.sets = append(p.sets, p.set(owner, rest[:size]))
		rest = rest[size:]
	}
	return Node{Owner: owner, RRsets: p.sets[start:len(p.sets):len(p.sets)]}
}

// takeSOA notes the SOA of the zone. It returns false for another one, which has no place.
func (p *partOfZone) takeSOA(owner Name, r *loaded) bool {
	soa, err := ParseSOA(r.rdata[2:])
	switch {
	case err != nil: // cannot be: rdata is checked
		return false
	case p.soa == "":
		p.soa, p.serial = r.rdata, soa.Serial
		return true
	case p.soa != r.rdata:
		p.faults.fail(owner, r, false, "MultipleSOA", "the zone has two (RFC 1035 §5.2)")
	}
	return false
}

// set makes the RRset of records of one type.
func (p *partOfZone) set(owner Name, records []loaded) RRset {
	first := &records[0]
	s := RRset{Type: first.typ, TTL: first.ttl, rdata: first.rdata}
	if len(records) == 1 {
		if s.Type == TypeSOA && owner == p.apex {
			s.rdata = p.rdata.record([]byte(p.value(owner, first)))
		}
		return s
	}
	differs := -1
	p.values = p.values[:0]
	for i := range records {
		r := &records[i]
		if r.ttl != first.ttl && differs < 0 {
			differs = i
		}
		s.TTL = min(s.TTL, r.ttl)
		p.values = append(p.values, r.rdata)
	}
	if differs >= 0 {
		p.faults.fail(owner, &records[differs], true, "TTLMismatch", fmt.Sprintf("its TTL is not that of line %d; all get the lowest, %d", first.line, s.TTL))
	}
	slices.SortFunc(p.values, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
	p.values = slices.Compact(p.values)
	if len(p.values) > 1 {
		s.rdata = p.rdata.join(p.values)
	}
	return s
}
