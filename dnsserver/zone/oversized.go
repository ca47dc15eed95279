package zone

import (
	"encoding/binary"
	"iter"
)

// Oversize is a question whose reply over UDP is truncated whatever the client takes: where it
// cannot ask again over a connection, it has no answer.
type Oversize struct {
	Owner    Name
	Type     uint16 // that is asked for; NS for a referral
	Referral bool   // of all names at and below the owner
	Size     int    // octets that the reply needs; 0 if it does not fit any message
}

// Oversized yields what does not fit replies over UDP of so many octets, 512 to MostUDP, in
// canonical order: RRsets with the aliases in the zone that lead to them, and referrals with their
// DS and the glue that they must have (RFC 9471). Room is kept for a resolver's cookie and client
// subnet of /56. Below wildcards and delegations the question's name may be as long as names can
// be. What DNAME makes and denials are not looked at: they fit 1,232 octets; nor are steered names, which package zone
// does not read.
//
// It costs a look at every name, hardly more where everything is small.
func Oversized(c *Content, limit int) iter.Seq[Oversize] {
	return func(yield func(Oversize) bool) {
		z := sizer{c: c, limit: limit, servers: map[Name]int{}}
		var cover *Node
		hidden := 0 // octets that addresses below cover take at most
		// refer looks at the delegation that all of is known by now.
		refer := func() bool {
			if cover == nil || cover.Has(TypeDNAME) {
				return true
			}
			size, fits := z.referral(cover, hidden)
			return fits || yield(Oversize{cover.Owner, TypeNS, true, size})
		}
		for n := range c.All() {
			if cover != nil && n.Owner.Below(cover.Owner) {
				hidden += most(n.RRset(TypeA), MaxName) + most(n.RRset(TypeAAAA), MaxName)
				continue
			}
			if !refer() {
				return
			}
			cover, hidden = nil, 0
			if n.Has(TypeDNAME) || n.Owner != c.Apex() && n.Has(TypeNS) {
				cover = n
			}
			if cover != nil && !cover.Has(TypeDNAME) {
				if set := n.RRset(TypeDS); !set.Empty() && !z.whole(n.Owner, nil, set, yield) {
					return
				}
				continue
			}
			if alias := n.RRset(TypeCNAME); !alias.Empty() {
				if !z.aliased(n, alias, yield) {
					return
				}
				continue
			}
			for _, set := range n.RRsets {
				if !IsPrivate(set.Type) && !z.whole(n.Owner, nil, set, yield) {
					return
				}
			}
		}
		refer()
	}
}

// sizer finds out how long replies are.
type sizer struct {
	c       *Content
	limit   int
	m       *message     // made when first needed: most zones have nothing that is large
	servers map[Name]int // octets of the shorter address RRset of name servers elsewhere in the zone; 0 for none
}

// KeptForOptions is what OPT takes with the options that resolvers send.
const KeptForOptions = optSize + optionHead + clientCookieSize + serverCookieSize + optionHead + 4 + 7

// most bounds the octets that a set takes, its owner being so long where it is not compressed.
func most(set RRset, owner int) int {
	if set.Empty() {
		return 0
	}
	const smallest = 2 // of a packed record, which has 12 octets in a message
	return owner + len(set.rdata) + len(set.rdata)/smallest*10
}

// whole yields the set if the reply to the longest question for it, by way of the aliases given, does
// not fit.
func (z *sizer) whole(owner Name, aliases []*Node, set RRset, yield func(Oversize) bool) bool {
	asked := owner
	bound := most(set, 0)
	for i, n := range aliases {
		if i == 0 {
			asked = n.Owner
		}
		bound += most(n.RRset(TypeCNAME), MaxName)
	}
	if headerSize+MaxName+4+bound+KeptForOptions <= z.limit {
		return true
	}
	m, name := z.begin(asked)
	fits := true
	for i, n := range aliases {
		at := []byte(n.Owner)
		if i == 0 {
			at = name
		}
		fits = fits && m.put(at, n.RRset(TypeCNAME), 0)
	}
	if len(aliases) > 0 {
		name = []byte(owner)
	}
	fits = fits && m.put(name, set, 0)
	return z.judge(Oversize{Owner: asked, Type: set.Type}, fits, yield)
}

// judge yields what was written, if it does not fit.
func (z *sizer) judge(o Oversize, written bool, yield func(Oversize) bool) bool {
	if written {
		if o.Size = z.m.n + KeptForOptions; o.Size <= z.limit {
			return true
		}
	}
	return yield(o)
}

// aliased yields what the alias at n leads to and does not fit together with it.
func (z *sizer) aliased(n *Node, alias RRset, yield func(Oversize) bool) bool {
	if !z.whole(n.Owner, nil, alias, yield) {
		return false
	}
	if z.small(alias) {
		return true
	}
	aliases := []*Node{n}
	for len(aliases) < maxLinks {
		last := aliases[len(aliases)-1].RRset(TypeCNAME)
		target := nameIn(last.firstRData(), z.c.Apex())
		if target == "" {
			return true
		}
		if cut, dname := above(z.c, target); cut != nil || dname != nil {
			return true // the client goes on from there if need be
		}
		next := z.c.Node(target)
		if !z.c.Exists(target) {
			next = wildcardFor(z.c, target)
		}
		if next == nil || next.Has(TypeSteered) {
			return true
		}
		if !next.Has(TypeCNAME) {
			for _, set := range next.RRsets {
				if !IsPrivate(set.Type) && !z.whole(target, aliases, set, yield) {
					return false
				}
			}
			return true
		}
		aliases = append(aliases, &Node{Owner: target, RRsets: next.RRsets})
	}
	return true
}

// small reports whether what the alias leads to fits in any case. If it can't be told with a look at
// each target the answer is no.
func (z *sizer) small(alias RRset) bool {
	bound := headerSize + MaxName + 4 + KeptForOptions
	for range maxLinks {
		bound += most(alias, MaxName)
		target := nameIn(alias.firstRData(), z.c.Apex())
		if target == "" {
			return bound <= z.limit
		}
		next := z.c.Node(target)
		if next == nil || next.Has(TypeNS) {
			return false
		}
		if alias = next.RRset(TypeCNAME); alias.Empty() {
			largest := 0
			for _, set := range next.RRsets {
				largest = max(largest, most(set, 0))
			}
			return bound+largest <= z.limit
		}
	}
	return false
}

// referral returns how many octets the longest reply with the delegation at n needs, 0 if no message
// holds them, and whether they fit. Addresses below it take no more than hidden.
func (z *sizer) referral(n *Node, hidden int) (size int, fits bool) {
	ns, ds := n.RRset(TypeNS), n.RRset(TypeDS)
	const slack = 256 // for the addresses of a server elsewhere in the zone, if there are none below
	if headerSize+MaxName+4+most(ns, 0)+most(ds, 0)+hidden+slack+KeptForOptions <= z.limit && z.elsewhere(n) <= slack {
		return 0, true
	}
	m, name := z.begin("\x01*" + n.Owner)
	name = name[len(name)-len(n.Owner):]
	m.section = sectionAuthority
	written := m.put(name, ns, 0) && m.put(name, ds, 0)
	m.section = sectionAdditional
	below := false
	for rdata := range ns.All() {
		server := nameIn(rdata, n.Owner)
		if server == "" {
			continue
		}
		for _, typ := range [...]uint16{TypeA, TypeAAAA} {
			set := z.c.Node(server).RRset(typ)
			below = below || !set.Empty()
			written = written && m.put([]byte(server), set, 0)
		}
	}
	size = m.n + KeptForOptions
	if !below {
		size += z.elsewhere(n)
	}
	if !written {
		size = 0
	}
	return size, written && size <= z.limit
}

// elsewhere returns how many octets the shortest address RRset takes of those servers of the
// delegation at n that are in the zone and not below n, 0 if there is none.
func (z *sizer) elsewhere(n *Node) (shortest int) {
	for rdata := range n.RRset(TypeNS).All() {
		server := nameIn(rdata, z.c.Apex())
		if server == "" || server.Within(n.Owner) {
			continue
		}
		size, known := z.servers[server]
		if !known {
			node := z.c.Node(server)
			if !z.c.Exists(server) {
				node = wildcardFor(z.c, server)
			}
			for _, typ := range [...]uint16{TypeA, TypeAAAA} {
				set := node.RRset(typ)
				// Its name stands in the reply already.
				if n := len(set.rdata) + set.Len()*10; n > 0 && (size == 0 || n < size) {
					size = n
				}
			}
			z.servers[server] = size
		}
		if size > 0 && (shortest == 0 || size < shortest) {
			shortest = size
		}
	}
	return shortest
}

// nameIn returns the name that is the whole of rdata, in lower case as content has it, or "" if it is
// none at or below apex.
func nameIn(rdata string, apex Name) Name {
	if wellFormedName(rdata) != len(rdata) || !Name(rdata).Within(apex) {
		return ""
	}
	return Name(rdata)
}

// begin starts the reply to a question for the name, or for the longest one that it stands for if it
// is a wildcard.
func (z *sizer) begin(asked Name) (m *message, name []byte) {
	if z.m == nil {
		z.m = &message{b: make([]byte, MaxMessage), limit: MaxMessage - KeptForOptions}
	}
	m = z.m
	name = []byte(asked)
	if asked.IsWildcard() {
		name = longest(asked.Parent())
	}
	m.names.reset()
	m.seeded, m.section, m.counts = false, sectionAnswer, [3]uint16{}
	m.question = len(name)
	m.n = headerSize + copy(m.b[headerSize:], name) + 4
	binary.BigEndian.PutUint32(m.b[m.n-4:], 0)
	return m, name
}

// longest returns the longest name below parent.
func longest(parent Name) []byte {
	var labels []byte
	for room := MaxName - len(parent); room > 1; room = MaxName - len(parent) - len(labels) {
		size := min(room-1, MaxLabel)
		if room-1-size == 1 {
			size-- // one octet is no label
		}
		labels = append(labels, byte(size))
		for range size {
			labels = append(labels, 'x')
		}
	}
	return append(labels, parent...)
}
