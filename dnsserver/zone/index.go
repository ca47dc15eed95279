package zone

import (
	"hash/maphash"
	"slices"
)

// index finds the names that exist in one version of a zone: those with records and empty
// non-terminals. It is a hash trie, so that finding or missing a name takes a few steps
// whatever the zone's size, where Content takes one for each doubling. Like Content it is
// persistent: what has been published never changes, a changed version shares most of the
// old one's memory and costs little for each changed owner.
type index struct {
	root branch
	// building means that nobody else sees the index yet: it is changed in place.
	building bool
}

// branch divides names by branchBits of their hash, the lowest first.
type branch [1 << branchBits]twig

const (
	branchBits = 4
	// leafSize bounds the leaves of a twig before it becomes a branch.
	leafSize = 16
	// branchDepth bounds the branches on a path; deeper, twigs have as many leaves as come.
	branchDepth = 32 / branchBits
)

// twig has either a branch or leaves.
type twig struct {
	branch *branch
	leaves []leaf
}

// leaf is one name.
type leaf struct {
	hash  uint32 // the bits that choose no branch
	below uint32 // owners below the name; an empty non-terminal without any does not exist
	node  *Node  // of an empty non-terminal one without RRsets
}

// indexSeed makes it impossible to choose names that collide.
var indexSeed = maphash.MakeSeed()

func hashName(name []byte) uint64 { return maphash.Bytes(indexSeed, name) }

// find returns the node of a name in wire form and lower case, which has no RRsets if the
// name is an empty non-terminal; nil if it does not exist.
func (x *index) find(name []byte) *Node {
	hash := hashName(name)
	b := &x.root
	for path := hash; ; path >>= branchBits {
		t := &b[path%uint64(len(b))]
		if t.branch != nil {
			b = t.branch
			continue
		}
		for i := range t.leaves {
			l := &t.leaves[i]
			if uint64(l.hash) == hash>>32 && string(l.node.Owner) == string(name) {
				return l.node
			}
		}
		return nil
	}
}

// newIndex makes the index of all names of a zone.
func newIndex(c *Content) *index {
	x := &index{building: true}
	for n := range c.All() {
		x.change(c.Apex(), Change{Owner: n.Owner, New: n})
	}
	x.building = false
	return x
}

// with returns x with changes of the zone.
func (x *index) with(before, after *Content) *index {
	changed := *x
	for ch := range Diff(before, after) {
		changed.change(after.Apex(), ch)
	}
	return &changed
}

func (x *index) change(apex Name, ch Change) {
	x.edit(ch.Owner, func(l *leaf) {
		if l.node = ch.New; l.node == nil {
			l.node = &Node{Owner: ch.Owner}
		}
	})
	if (ch.Old == nil) == (ch.New == nil) {
		return
	}
	for name := ch.Owner; name != apex; {
		name = name[1+name[0]:]
		x.edit(name, func(l *leaf) {
			if ch.New != nil {
				l.below++
			} else {
				l.below--
			}
		})
	}
}

// edit changes the leaf of a name, which is made if there is none, and goes if the name does
// not exist any more.
func (x *index) edit(name Name, edit func(*leaf)) {
	hash := maphash.String(indexSeed, string(name))
	b := &x.root
	path := hash
	for depth := 1; ; depth++ {
		t := &b[path%uint64(len(b))]
		path >>= branchBits
		if t.branch == nil {
			x.editLeaves(t, uint32(hash>>32), name, edit)
			if len(t.leaves) <= leafSize || depth == branchDepth {
				return
			}
			t.divide(depth)
			return
		}
		if !x.building {
			own := *t.branch
			t.branch = &own
		}
		b = t.branch
	}
}

func (x *index) editLeaves(t *twig, hash uint32, name Name, edit func(*leaf)) {
	i := slices.IndexFunc(t.leaves, func(l leaf) bool { return l.hash == hash && l.node.Owner == name })
	if i < 0 {
		i = len(t.leaves)
		grown := t.leaves
		if !x.building || len(grown) == cap(grown) {
			grown = make([]leaf, len(t.leaves), len(t.leaves)+4)
			copy(grown, t.leaves)
		}
		t.leaves = append(grown, leaf{hash: hash, node: &Node{Owner: name}})
	} else if !x.building {
		t.leaves = slices.Clone(t.leaves)
	}
	l := &t.leaves[i]
	edit(l)
	if len(l.node.RRsets) == 0 && l.below == 0 {
		t.leaves = slices.Delete(t.leaves, i, i+1)
	}
}

// divide puts the leaves of t, at so many branches from the root, on a branch of their own.
func (t *twig) divide(depth int) {
	b := new(branch)
	for _, l := range t.leaves {
		hash := maphash.String(indexSeed, string(l.node.Owner))
		to := &b[hash>>(depth*branchBits)%uint64(len(b))]
		to.leaves = append(to.leaves, l)
	}
	*t = twig{branch: b}
}
