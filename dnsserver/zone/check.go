package zone

import (
	"fmt"
	"iter"
	"slices"
)

// typeZONEMD is a digest over a zone with its DNSSEC records (RFC 8976).
const typeZONEMD uint16 = 63

// RuleError reports records that are well formed and cannot be served where they stand.
type RuleError struct {
	Owner  Name
	Type   uint16
	reason string
	defect string
}

func (e *RuleError) Error() string {
	if e.Type == 0 {
		return fmt.Sprintf("%s: %s", e.Owner, e.defect)
	}
	return fmt.Sprintf("%s %s: %s", e.Owner, TypeString(e.Type), e.defect)
}

// Reason is the reason of the condition or finding that the error becomes.
func (e *RuleError) Reason() string { return e.reason }

// Dropped is the records of one owner and type that a zone leaves out, and why.
type Dropped struct {
	RRset    RRset
	Err      *RuleError
	Harmless bool // no answer of an unsigned zone could have held them
}

// IsSigning reports whether records of the type are of use in signed zones only, so that a
// zone of this unsigned product leaves them out. DS at a delegation is not among them.
func IsSigning(typ uint16) bool {
	switch typ {
	case TypeRRSIG, TypeNSEC, TypeNSEC3, TypeNSEC3PARAM, TypeDNSKEY, TypeCDS, TypeCDNSKEY, typeSIG, typeNXT, typeZONEMD:
		return true
	}
	return false
}

// CheckNode divides the records of one owner of zone apex into what can be served together
// and what must go. Where two cannot both stay, the choice depends on the records alone:
// CNAME yields to other data (RFC 1034 §3.6.2), and of types that have one record the first
// in canonical order stays. Neither n nor its RRsets change.
func CheckNode(apex Name, n Node) (kept Node, dropped []Dropped) {
	if isPlain(n) {
		return n, nil
	}
	sets := slices.Clone(n.RRsets)
	drop := func(i int, lost RRset, reason, defect string) {
		dropped = append(dropped, Dropped{RRset: lost, Err: &RuleError{n.Owner, lost.Type, reason, defect}})
		sets[i] = sets[i].Without(lost)
	}
	harmless := func() { dropped[len(dropped)-1].Harmless = true }
	atApex := n.Owner == apex
	others := 0
	for i, s := range sets {
		switch {
		case IsSigning(s.Type):
			drop(i, s, "Unsigned", "the zone is served unsigned")
			harmless()
		case s.Type == TypeDS && atApex:
			drop(i, s, "Unsigned", "DS belongs to the parent's side of a delegation (RFC 4035 §2.4)")
			harmless()
		case s.Type == TypeSOA && !atApex:
			drop(i, s, "MisplacedSOA", "SOA belongs to the apex "+apex.String()+" alone (RFC 1035 §5.2)")
		case s.Type == TypeDNAME && !atApex && n.Has(TypeNS):
			drop(i, s, "DNAMEAtDelegation", "behind the delegation nobody sees DNAME (RFC 6672 §2.3)")
			harmless()
		case messageSize(n.Owner, s) > MaxMessage:
			drop(i, s, "RRsetTooLarge", fmt.Sprintf("%d records do not fit a message of %d octets", s.Len(), MaxMessage))
		default:
			if s.Type != TypeCNAME {
				others++
			}
			if single(s.Type) && s.Len() > 1 {
				drop(i, s.Without(s.first()), "Multiple"+TypeString(s.Type), "only one record can be here, the first in canonical order stays")
			}
		}
	}
	if others > 0 {
		for i, s := range sets {
			if s.Type == TypeCNAME && !s.Empty() {
				drop(i, s, "CNAMEAndOtherData", "CNAME cannot be beside other data (RFC 1034 §3.6.2)")
			}
		}
	}
	return NewNode(n.Owner, sets...), dropped
}

// isPlain reports whether n is one of the many nodes that no rule of CheckNode is about.
func isPlain(n Node) bool {
	size := 0
	for _, s := range n.RRsets {
		size += len(s.rdata)
		switch s.Type {
		case TypeA, TypeAAAA, TypeTXT, TypeMX, TypeSRV, TypePTR, TypeNS:
		default:
			return false
		}
	}
	return size < MaxMessage/8 // a record takes at least 2 of these octets and 12 more in a message
}

// single reports whether an RRset of the type has one record (RFC 2181 §10.1, RFC 6672 §2.4).
func single(typ uint16) bool { return typ == TypeCNAME || typ == TypeDNAME || typ == TypeSOA }

// first is the set's first record.
func (s RRset) first() RRset {
	for r := range s.All() {
		return NewRRset(s.Type, s.TTL, []byte(r))
	}
	return s
}

// MaxMessage is the largest DNS message, in octets.
const MaxMessage = 1<<16 - 1

// messageSize is that of an answer with the whole set over TCP: header, question, the records
// with compressed owners but no compression in rdata, and OPT.
func messageSize(owner Name, s RRset) int {
	const header, fixedQuestion, record, opt = 12, 4, 2 + 10, 11
	size := header + len(owner) + fixedQuestion + opt
	for r := range s.All() {
		size += record + len(r)
	}
	return size
}

// Covered yields the nodes of c of which a DNAME above them (RFC 6672 §2.4) or a delegation
// above them hides something, in canonical order, each with the topmost node that does so.
// Addresses below delegations may be glue: a node that has nothing else is left out.
func Covered(c *Content) iter.Seq2[*Node, *Node] { return covered(c.Apex(), c.All()) }

// covered is Covered of the nodes of zone apex, in canonical order. What it has yielded may be changed.
func covered(apex Name, nodes iter.Seq[*Node]) iter.Seq2[*Node, *Node] {
	return func(yield func(n, by *Node) bool) {
		var cover *Node
		for n := range nodes {
			if cover != nil && n.Owner.Below(cover.Owner) {
				glue := !cover.Has(TypeDNAME) && !slices.ContainsFunc(n.RRsets, func(s RRset) bool { return !isAddress(s.Type) })
				if !glue && !yield(n, cover) {
					return
				}
				continue
			}
			cover = nil
			if n.Has(TypeDNAME) || n.Owner != apex && n.Has(TypeNS) {
				cover = n
			}
		}
	}
}

func isAddress(typ uint16) bool { return typ == TypeA || typ == TypeAAAA }
