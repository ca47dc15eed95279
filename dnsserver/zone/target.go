package zone

import (
	"fmt"
	"slices"
)

// CheckTargets reports NS, MX and SRV records of a zone whose target, in the same zone, has no
// address there or is an alias (RFC 2181 §10.3), and NS records of a cut that lack glue
// (RFC 9471 §2.1). All are warnings, in order of lines: the records are served as they are.
//
// The text is the master file that c was loaded from. Targets in other zones and behind other
// cuts are not looked at, nor is the root, which stands for no target (RFC 2782, RFC 7505).
func CheckTargets(c *Content, text string) []*Fault {
	var faults []*Fault
	for r, fault := range ParseMaster(text, c.Apex()) {
		if fault != nil { // which Load has reported
			continue
		}
		target, ok := targetOf(r)
		if !ok || target == Root || !target.Within(c.Apex()) || !c.Node(r.Owner).Has(r.Type) {
			continue
		}
		reason, defect := judgeTarget(c, r, target)
		if reason == "" {
			continue
		}
		faults = append(faults, &Fault{
			Line: r.Line, Column: r.Column, Warning: true,
			Err: &RuleError{r.Owner, r.Type, reason, fmt.Sprintf("%s %s", target, defect)},
		})
	}
	return faults
}

// targetOf returns the host that a record points to, ok false for records that point to none.
func targetOf(r Record) (target Name, ok bool) {
	at, has := map[uint16]int{TypeNS: 0, TypeMX: 2, TypeSRV: 6}[r.Type]
	if !has || len(r.RData) <= at {
		return "", false
	}
	target, _, err := NameFromWire(r.RData[at:])
	return target, err == nil
}

// judgeTarget returns what is wrong with the target of r, a name in the zone; reason is "" if
// nothing is.
func judgeTarget(c *Content, r Record, target Name) (reason, defect string) {
	cut, dname := above(c, target)
	switch {
	case cut != nil && r.Type == TypeNS && cut.Owner == r.Owner:
		if !hasAddress(c.Node(target)) {
			return "NoGlue", "is behind this delegation and has no address as glue (RFC 9471 §2.1)"
		}
		return "", ""
	case cut != nil:
		return "", ""
	}
	n := c.Node(target)
	if !c.Exists(target) {
		n = wildcardFor(c, target)
	}
	switch {
	case dname != nil || n.Has(TypeCNAME):
		return "TargetIsAlias", "is an alias, which it must not be (RFC 2181 §10.3)"
	case !hasAddress(n):
		return "NoAddress", "has no address in this zone"
	}
	return "", ""
}

// above returns the topmost delegation at or above a name of the zone, or else the DNAME above it.
func above(c *Content, name Name) (cut, dname *Node) {
	var path []Name // from the name up to the apex
	for n := name; ; n = n.Parent() {
		path = append(path, n)
		if n == c.Apex() {
			break
		}
	}
	for _, owner := range slices.Backward(path) {
		n := c.Node(owner)
		switch {
		case owner != c.Apex() && n.Has(TypeNS):
			return n, nil
		case owner != name && n.Has(TypeDNAME):
			return nil, n
		}
	}
	return nil, nil
}

// wildcardFor returns the wildcard that answers for a name of the zone that does not exist, or
// nil (RFC 4592 §3.3.1).
func wildcardFor(c *Content, name Name) *Node {
	for !c.Exists(name) {
		name = name.Parent()
	}
	wild, err := name.Child("*")
	if err != nil { // too long for a name
		return nil
	}
	return c.Node(wild)
}

func hasAddress(n *Node) bool { return n.Has(TypeA) || n.Has(TypeAAAA) }
