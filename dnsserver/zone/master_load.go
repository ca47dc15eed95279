package zone

import (
	"bytes"
	"cmp"
	"fmt"
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
	l := loader{apex: apex, index: map[Name]int{}, unsigned: map[uint16]int{}}
	for r, fault := range ParseMaster(text, apex) {
		switch {
		case fault != nil:
			l.add(fault)
		default:
			l.record(r)
		}
	}
	c := l.content()
	if c == nil {
		return nil, Version{}, l.report(text)
	}
	return c, Version{l.serial, c.Digest()}, l.report(text)
}

// loader gathers the records of a zone by owner.
type loader struct {
	apex     Name
	index    map[Name]int // in owners
	owners   [][]Record   // the records of one owner each, in the order of the file
	soa      []byte       // of the apex, with its serial; nil if there is none
	serial   uint32
	unsigned map[uint16]int // records left out by type, see IsSigning
	faults   []*Fault
	beyond   int // faults that are only counted, and
	fatal    int // how many of these are no warnings
}

func (l *loader) add(f *Fault) {
	switch {
	case len(l.faults) < maxFaults:
		l.faults = append(l.faults, f)
	case f.Warning:
		l.beyond++
	default:
		l.beyond++
		l.fatal++
	}
}

// fail reports a fault of a record; its text is filled in by report.
func (l *loader) fail(r Record, warning bool, reason, defect string) {
	l.add(&Fault{Line: r.Line, Column: r.Column, Err: &RuleError{r.Owner, r.Type, reason, defect}, Warning: warning})
}

// record takes in one record.
func (l *loader) record(r Record) {
	switch {
	case !r.Owner.Within(l.apex):
		l.fail(r, true, "OutOfZone", "it is outside zone "+l.apex.String())
		return
	case IsSigning(r.Type):
		l.unsigned[r.Type]++
		return
	case !r.HasTTL:
		l.fail(r, false, "BadTTL", "it has no TTL, and no $TTL and no record before it states one")
		return
	case r.Type == TypeSOA && r.Owner == l.apex:
		soa, err := ParseSOA(string(r.RData))
		switch {
		case err != nil: // cannot be: rdata is checked
			return
		case l.soa != nil && !bytes.Equal(l.soa, r.RData):
			l.fail(r, false, "MultipleSOA", "the zone has two (RFC 1035 §5.2)")
			return
		case l.soa != nil:
			return
		}
		l.soa, l.serial = r.RData, soa.Serial
		soa.Serial = 0
		r.RData = soa.Pack()
	}
	i, ok := l.index[r.Owner]
	if !ok {
		i = len(l.owners)
		l.index[r.Owner] = i
		l.owners = append(l.owners, nil)
	}
	l.owners[i] = append(l.owners[i], r)
}

// content builds the zone of what was taken in.
func (l *loader) content() *Content {
	nodes := make([]Node, 0, len(l.owners))
	for _, records := range l.owners {
		node, dropped := CheckNode(l.apex, l.node(records))
		for _, d := range dropped {
			lost := slices.Collect(d.RRset.All())
			first := records[slices.IndexFunc(records, func(r Record) bool {
				return r.Type == d.RRset.Type && slices.Contains(lost, string(r.RData))
			})]
			l.add(&Fault{Line: first.Line, Column: first.Column, Err: d.Err, Warning: d.Harmless})
		}
		nodes = append(nodes, node)
	}
	c, err := NewContent(l.apex, nodes)
	if err != nil || l.soa == nil { // an err cannot be: owners are in the zone, each once
		l.whole(false, TypeSOA, "NoSOA", "the zone has none at its apex (RFC 1035 §5.2)")
		return nil
	}
	if !c.Node(l.apex).Has(TypeNS) {
		l.whole(false, TypeNS, "NoNS", "the zone has none at its apex (RFC 1035 §5.2)")
	}
	if len(l.unsigned) > 0 {
		l.whole(true, 0, "Unsigned", fmt.Sprintf("the zone is served unsigned, without %s", counts(l.unsigned)))
	}
	var visible []Node
	for n, by := range Covered(c) {
		records := l.owners[l.index[n.Owner]]
		if by.Has(TypeDNAME) {
			l.fail(records[0], false, "BelowDNAME", fmt.Sprintf("it is below the DNAME of %s (RFC 6672 §2.4)", by.Owner))
			visible = append(visible, Node{Owner: n.Owner})
			continue
		}
		first := records[slices.IndexFunc(records, func(r Record) bool { return !isAddress(r.Type) })]
		l.fail(first, true, "Occluded", fmt.Sprintf("it is hidden by the delegation of %s", by.Owner))
		visible = append(visible, NewNode(n.Owner, n.RRset(TypeA), n.RRset(TypeAAAA))) // they may be glue
	}
	if c, err = c.With(visible...); err != nil { // cannot be: the owners are those of c
		return nil
	}
	return c
}

// whole reports a fault of the zone as a whole.
func (l *loader) whole(warning bool, typ uint16, reason, defect string) {
	l.fail(Record{Owner: l.apex, Type: typ}, warning, reason, defect)
}

// counts is "2 DNSKEY, 10 RRSIG".
func counts(types map[uint16]int) string {
	var parts []string
	for _, typ := range slices.Sorted(maps.Keys(types)) {
		parts = append(parts, fmt.Sprintf("%d %s", types[typ], TypeString(typ)))
	}
	return strings.Join(parts, ", ")
}

// node makes the RRsets of one owner; of different TTLs the lowest counts (RFC 2181 §5.2).
func (l *loader) node(records []Record) Node {
	byType := slices.Clone(records)
	slices.SortStableFunc(byType, func(a, b Record) int { return int(a.Type) - int(b.Type) })
	var sets []RRset
	for len(byType) > 0 {
		first := byType[0]
		ttl, differs := first.TTL, -1
		var rdata [][]byte
		size := 0
		for size < len(byType) && byType[size].Type == first.Type {
			r := byType[size]
			if r.TTL != first.TTL && differs < 0 {
				differs = size
			}
			ttl = min(ttl, r.TTL)
			rdata = append(rdata, r.RData)
			size++
		}
		if differs >= 0 {
			l.fail(byType[differs], true, "TTLMismatch", fmt.Sprintf("its TTL is not that of line %d; all get the lowest, %d", first.Line, ttl))
		}
		sets = append(sets, NewRRset(first.Type, ttl, rdata...))
		byType = byType[size:]
	}
	return NewNode(records[0].Owner, sets...)
}

// report returns the faults in order, each with its line of the text.
func (l *loader) report(text string) []*Fault {
	slices.SortStableFunc(l.faults, func(a, b *Fault) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	line := 0
	current := ""
	for _, f := range l.faults {
		for line < f.Line {
			current, text, _ = strings.Cut(text, "\n")
			line++
		}
		if f.Line > 0 && f.Text == "" {
			f.Text = printable(current)
		}
	}
	if l.beyond > 0 {
		l.faults = append(l.faults, &Fault{
			Err: &RuleError{l.apex, 0, "MoreFaults", fmt.Sprintf("%d more faults, %d of them no warnings", l.beyond, l.fatal)}, Warning: l.fatal == 0,
		})
	}
	return l.faults
}
