package zone

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Digest identifies content: equal digests mean equal apex and equal nodes. The SOA serial
// takes no part, see Content.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d is the zero digest, which no content has.
func (d Digest) IsZero() bool { return d == Digest{} }

// ParseDigest reads what String writes.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return Digest{}, fmt.Errorf("digest %q is not %d hexadecimal digits", s, 2*len(d))
	}
	return Digest(b), nil
}

// Content is all nodes of one zone, immutable, in canonical order (RFC 4034 §6.1).
//
// The SOA record of a zone's apex is stored with serial 0: which serial the content is
// published under is part of the Version, so that equal content has an equal digest
// whatever its history.
//
// Content is a persistent treap: a changed version shares all unchanged nodes with the old
// one and costs O(log n) for each changed owner. Every subtree carries a SHA-256 of what it
// holds, and a treap's shape depends on nothing but its keys; so the root's hash identifies
// the content, and Diff skips what two versions share.
type Content struct {
	apex Name
	root *tree
}

// entry is one node with what the tree needs to know of it.
type entry struct {
	node     Node
	key      string // node.Owner.key()
	priority uint64 // from the hash of the key: nobody can choose names that unbalance the tree
	hash     [sha256.Size]byte
	records  int
}

type tree struct {
	*entry
	left, right *tree
	hash        [sha256.Size]byte
	owners      int
	total       int // records of the subtree
}

func newEntry(n Node) *entry {
	key := n.Owner.key()
	prio := sha256.Sum256([]byte(key))
	return &entry{
		node: n, key: key, priority: binary.BigEndian.Uint64(prio[:]),
		hash: sha256.Sum256(AppendNode(nil, n)), records: n.Records(),
	}
}

// above is the heap order; keys decide between equal priorities, so that shapes stay unique.
func (e *entry) above(o *entry) bool {
	return cmp.Or(cmp.Compare(e.priority, o.priority), strings.Compare(o.key, e.key)) > 0
}

func newTree(e *entry, left, right *tree) *tree {
	t := &tree{entry: e, left: left, right: right, owners: 1, total: e.records}
	var b [3 * sha256.Size]byte
	copy(b[:], e.hash[:])
	if left != nil {
		copy(b[sha256.Size:], left.hash[:])
		t.owners += left.owners
		t.total += left.total
	}
	if right != nil {
		copy(b[2*sha256.Size:], right.hash[:])
		t.owners += right.owners
		t.total += right.total
	}
	t.hash = sha256.Sum256(b[:])
	return t
}

// NewContent builds the content of zone apex. Order of the nodes does not matter; nodes
// without RRsets are left out. It fails on owners outside the zone and on an owner that
// comes twice.
func NewContent(apex Name, nodes []Node) (*Content, error) {
	entries := make([]*entry, 0, len(nodes))
	for _, n := range nodes {
		if !n.Owner.Within(apex) {
			return nil, fmt.Errorf("zone %s: owner %s is out of zone", apex, n.Owner)
		}
		if len(n.RRsets) > 0 {
			entries = append(entries, newEntry(n))
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int { return strings.Compare(a.key, b.key) })
	for i := 1; i < len(entries); i++ {
		if entries[i].key == entries[i-1].key {
			return nil, fmt.Errorf("zone %s: owner %s comes twice", apex, entries[i].node.Owner)
		}
	}
	return &Content{apex: apex, root: build(entries)}, nil
}

// newSortedContent builds the content of zone apex of nodes in canonical order, each owner
// once, in parts that follow one another. It works on up to so many parts at once. Nodes
// without RRsets are left out.
func newSortedContent(apex Name, parts [][]Node, threads int) *Content {
	trees := make([]*tree, len(parts))
	inParallel(threads, len(parts), func(i int) {
		entries := make([]*entry, 0, len(parts[i]))
		for _, n := range parts[i] {
			if len(n.RRsets) > 0 {
				entries = append(entries, newEntry(n))
			}
		}
		trees[i] = build(entries)
	})
	c := &Content{apex: apex}
	for _, t := range trees {
		c.root = join(c.root, t)
	}
	return c
}

// build makes the treap of entries sorted by key, in linear time: the stack holds the right
// spine of the tree so far.
func build(entries []*entry) *tree {
	type open struct {
		*entry
		left *tree
	}
	var spine []open
	// fold closes the spine from index i on into one subtree.
	fold := func(i int) *tree {
		var t *tree
		for j := len(spine) - 1; j >= i; j-- {
			t = newTree(spine[j].entry, spine[j].left, t)
		}
		spine = spine[:i]
		return t
	}
	for _, e := range entries {
		i := len(spine)
		for i > 0 && e.above(spine[i-1].entry) {
			i--
		}
		spine = append(spine, open{e, fold(i)})
	}
	return fold(0)
}

// Apex returns the zone's name.
func (c *Content) Apex() Name { return c.apex }

// Digest identifies the content; it costs nothing.
func (c *Content) Digest() Digest {
	var b []byte
	b = append(b, c.apex...)
	if c.root != nil {
		b = append(b, c.root.hash[:]...)
	}
	return sha256.Sum256(b)
}

// Owners counts the owner names that have records.
func (c *Content) Owners() int {
	if c.root == nil {
		return 0
	}
	return c.root.owners
}

// Records counts the records.
func (c *Content) Records() int {
	if c.root == nil {
		return 0
	}
	return c.root.total
}

// Node returns the node of owner, or nil. It is shared: nobody may change it.
func (c *Content) Node(owner Name) *Node {
	key := owner.key()
	for t := c.root; t != nil; {
		switch order := strings.Compare(key, t.key); {
		case order < 0:
			t = t.left
		case order > 0:
			t = t.right
		default:
			return &t.node
		}
	}
	return nil
}

// Exists reports whether owner has records or is an empty non-terminal (RFC 4592 §2.2.2):
// a name below it has some.
func (c *Content) Exists(owner Name) bool {
	for range c.Within(owner) {
		return true
	}
	return false
}

// All yields every node in canonical order.
func (c *Content) All() iter.Seq[*Node] { return c.Within(Root) }

// Within yields the nodes of owner and of all names below it in canonical order.
func (c *Content) Within(owner Name) iter.Seq[*Node] {
	prefix := owner.key()
	return func(yield func(*Node) bool) { walk(c.root, prefix, yield) }
}

func walk(t *tree, prefix string, yield func(*Node) bool) bool {
	if t == nil {
		return true
	}
	switch {
	case strings.HasPrefix(t.key, prefix):
		return walk(t.left, prefix, yield) && yield(&t.node) && walk(t.right, prefix, yield)
	case t.key < prefix:
		return walk(t.right, prefix, yield)
	default:
		return walk(t.left, prefix, yield)
	}
}

// With returns c with the given nodes put in place of what their owners had; a node without
// RRsets removes its owner. Of several nodes of one owner the last counts. It fails, and
// changes nothing, on an owner outside the zone.
func (c *Content) With(nodes ...Node) (*Content, error) {
	root := c.root
	for _, n := range nodes {
		if !n.Owner.Within(c.apex) {
			return nil, fmt.Errorf("zone %s: owner %s is out of zone", c.apex, n.Owner)
		}
		if len(n.RRsets) == 0 {
			root = remove(root, n.Owner.key())
		} else {
			root = insert(root, newEntry(n))
		}
	}
	return &Content{apex: c.apex, root: root}, nil
}

func insert(t *tree, e *entry) *tree {
	switch {
	case t == nil:
		return newTree(e, nil, nil)
	case e.key == t.key:
		return newTree(e, t.left, t.right)
	case e.above(t.entry):
		left, right := split(t, e.key)
		return newTree(e, left, right)
	case e.key < t.key:
		return newTree(t.entry, insert(t.left, e), t.right)
	default:
		return newTree(t.entry, t.left, insert(t.right, e))
	}
}

// split divides t into what is before key and what is after it.
func split(t *tree, key string) (before, after *tree) {
	switch {
	case t == nil:
		return nil, nil
	case t.key < key:
		before, after = split(t.right, key)
		return newTree(t.entry, t.left, before), after
	case t.key > key:
		before, after = split(t.left, key)
		return before, newTree(t.entry, after, t.right)
	default:
		return t.left, t.right
	}
}

func remove(t *tree, key string) *tree {
	switch {
	case t == nil:
		return nil
	case key == t.key:
		return join(t.left, t.right)
	case key < t.key:
		left := remove(t.left, key)
		if left == t.left {
			return t
		}
		return newTree(t.entry, left, t.right)
	default:
		right := remove(t.right, key)
		if right == t.right {
			return t
		}
		return newTree(t.entry, t.left, right)
	}
}

// join unites two treaps, all keys of left being before those of right.
func join(left, right *tree) *tree {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	case left.above(right.entry):
		return newTree(left.entry, left.left, join(left.right, right))
	default:
		return newTree(right.entry, join(left, right.left), right.right)
	}
}

// Change is what happened to one owner between two versions; Old or New is nil where the
// owner had or has no records. Nodes are shared: nobody may change them.
type Change struct {
	Owner    Name
	Old, New *Node
}

// Removed counts the records of Old that New lacks; a changed TTL removes nothing.
func (ch Change) Removed() int {
	if ch.Old == nil {
		return 0
	}
	count := 0
	for _, s := range ch.Old.RRsets {
		count += ch.lost(s).Len()
	}
	return count
}

// lost returns the records of a set of the old node that the new one lacks. What servers are told about a name is
// replaced, not lost, as long as they are told something.
func (ch Change) lost(s RRset) RRset {
	if IsPrivate(s.Type) && ch.New.Has(s.Type) {
		return RRset{Type: s.Type}
	}
	return s.Without(ch.New.RRset(s.Type))
}

// Diff yields the owners whose nodes differ, in canonical order. It costs time for what
// differs, not for what the versions share. A nil Content stands for one without nodes.
func Diff(before, after *Content) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		var a, b *tree
		if before != nil {
			a = before.root
		}
		if after != nil {
			b = after.root
		}
		diff(a, b, yield)
	}
}

func diff(a, b *tree, yield func(Change) bool) bool {
	switch {
	case a == b || a != nil && b != nil && a.hash == b.hash:
		return true
	case a == nil:
		return diff(nil, b.left, yield) && yield(Change{b.node.Owner, nil, &b.node}) && diff(nil, b.right, yield)
	case b == nil:
		return diff(a.left, nil, yield) && yield(Change{a.node.Owner, &a.node, nil}) && diff(a.right, nil, yield)
	}
	// The tree whose root is higher in the heap divides the other.
	if a.key == b.key {
		if !diff(a.left, b.left, yield) {
			return false
		}
		if a.entry.hash != b.entry.hash && !yield(Change{a.node.Owner, &a.node, &b.node}) {
			return false
		}
		return diff(a.right, b.right, yield)
	}
	if a.above(b.entry) {
		before, after := split(b, a.key)
		return diff(a.left, before, yield) && yield(Change{a.node.Owner, &a.node, nil}) && diff(a.right, after, yield)
	}
	before, after := split(a, b.key)
	return diff(before, b.left, yield) && yield(Change{b.node.Owner, nil, &b.node}) && diff(after, b.right, yield)
}
