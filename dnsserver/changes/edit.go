package changes

import (
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// maxEdited bounds the names that are told of one new version of a zone.
const maxEdited = 10_000

// Edit is that a server answers from another version of a zone.
type Edit struct {
	Apex          zone.Name
	Before, After *zone.Content // nil: there was none, or is none any more
	Serial        uint32        // of After; 0 without
	At            time.Time
	// State returns the state that a name is in now.
	State func(owner zone.Name) uint64
}

// Take keeps aliases up to date with an edit.
func (a *Aliases) Take(e *Edit) {
	if e.Before == nil && e.After != nil { // as for all zones at the start: quicker
		for n := range e.After.All() {
			a.Replace(n.Owner, nil, target(n))
		}
		return
	}
	for ch := range zone.Diff(e.Before, e.After) {
		a.Replace(ch.Owner, target(ch.Old), target(ch.New))
	}
}

// target returns where a CNAME at the node leads to; nil if there is none.
func target(n *zone.Node) []zone.Name {
	for rdata := range n.RRset(zone.TypeCNAME).All() {
		return []zone.Name{zone.Name(rdata)}
	}
	return nil
}

// Changes returns the names whose answers the edit changes, in canonical order, and how many there are beyond 10,000. Changes of
// TTLs are none, and steered names count only for what is beside. What is below a delegation changes the delegation's name. Of
// names that exist only because there are others below them nothing is told.
func (e *Edit) Changes() (all []Change, beyond int) {
	var last zone.Name // a delegation that is told
	add := func(name zone.Name, beneath bool) {
		if name == last && len(all) > 0 {
			return
		}
		if len(all) == maxEdited {
			beyond++
			return
		}
		last = name
		all = append(all, Change{Name: name, Apex: e.Apex, Beneath: beneath, After: e.State(name), Serial: e.Serial, At: e.At})
	}
	for ch := range zone.Diff(e.Before, e.After) {
		isApex := ch.Owner == e.Apex
		if sameAnswers(ch.Old, ch.New, isApex) {
			continue
		}
		if cut := e.cut(ch.Owner); cut != "" {
			add(cut, true)
			continue
		}
		add(ch.Owner, ch.Owner.IsWildcard() || leadsBelow(ch.Old, isApex) || leadsBelow(ch.New, isApex) || isApex && (e.Before == nil || e.After == nil))
	}
	return all, beyond
}

// leadsBelow reports whether names below the node are answered by what is at it.
func leadsBelow(n *zone.Node, isApex bool) bool {
	return n.Has(zone.TypeDNAME) || n.Has(zone.TypeNS) && !isApex
}

// cut returns the delegation above a name, of either version; "" if there is none.
func (e *Edit) cut(owner zone.Name) (cut zone.Name) {
	for above := owner.Parent(); len(above) > len(e.Apex); above = above.Parent() {
		for _, c := range []*zone.Content{e.Before, e.After} {
			if c != nil && c.Node(above).Has(zone.TypeNS) {
				cut = above
			}
		}
	}
	return cut
}

// sameAnswers reports whether two nodes of one owner answer the same, TTLs apart. A SOA says nothing that resolvers' clients
// ask for.
func sameAnswers(a, b *zone.Node, isApex bool) bool {
	return answers(a, b, isApex) && answers(b, a, isApex)
}

// answers reports whether all that a answers b does too.
func answers(a, b *zone.Node, isApex bool) bool {
	if a == nil {
		return true
	}
	for _, s := range a.RRsets {
		if zone.IsPrivate(s.Type) || s.Type == zone.TypeSOA && isApex {
			continue
		}
		other := b.RRset(s.Type)
		s.TTL, other.TTL = 0, 0
		if s != other {
			return false
		}
	}
	return true
}
