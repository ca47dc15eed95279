package zone

import (
	"crypto/sha256"
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
// Nodes stand in blocks: the hash of its name makes one node in 32 the head of a block, which has
// all nodes from there to the next head. The blocks are in a persistent treap by their heads: a
// changed version shares with the old one all blocks but those that changed, and costs O(log n)
// for each changed owner. Every subtree carries a SHA-256 of what it holds, and neither blocks nor
// the treap's shape depend on anything but the names; so the root's hash identifies the content,
// and Diff skips what two versions share.
//
// What is returned of a node is a copy, but for its rdata.
type Content struct {
	apex Name
	lead *block // the nodes before the first head; nil for none
	root *tree  // the blocks with heads
}

// tree is a block and those before and after it.
type tree struct {
	*block
	left, right *tree
	owners      int // of the subtree
	records     int
	sealed      bool // hash is valid
	hash        [sha256.Size]byte
}

func newTree(b *block, left, right *tree) *tree {
	t := &tree{block: b, left: left, right: right, owners: b.count, records: b.total}
	if left != nil {
		t.owners += left.owners
		t.records += left.records
	}
	if right != nil {
		t.owners += right.owners
		t.records += right.records
	}
	return t
}

// seal fills in the hashes of t, which nobody else has yet. What is shared has been sealed.
func (t *tree) seal() {
	if t == nil || t.sealed {
		return
	}
	t.left.seal()
	t.right.seal()
	t.block.seal()
	var b [3 * sha256.Size]byte
	copy(b[:], t.block.hash[:])
	if t.left != nil {
		copy(b[sha256.Size:], t.left.hash[:])
	}
	if t.right != nil {
		copy(b[2*sha256.Size:], t.right.hash[:])
	}
	t.hash, t.sealed = sha256.Sum256(b[:]), true
}

// NewContent builds the content of zone apex. Order of the nodes does not matter; nodes
// without RRsets are left out. It fails on owners outside the zone and on an owner that
// comes twice.
func NewContent(apex Name, nodes []Node) (*Content, error) {
	type keyed struct {
		key  string
		node *Node
	}
	sorted := make([]keyed, 0, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		if !n.Owner.Within(apex) {
			return nil, fmt.Errorf("zone %s: owner %s is out of zone", apex, n.Owner)
		}
		if len(n.RRsets) > 0 {
			sorted = append(sorted, keyed{relative(n.Owner, apex).key(), n})
		}
	}
	slices.SortFunc(sorted, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	b := blockBuilder{apex: apex}
	for i, k := range sorted {
		if i > 0 && k.key == sorted[i-1].key {
			return nil, fmt.Errorf("zone %s: owner %s comes twice", apex, k.node.Owner)
		}
		b.add([]byte(k.key), k.node)
	}
	return joinBlocks(apex, []builtBlocks{b.done()}), nil
}

// newSortedContent builds the content of zone apex of nodes in canonical order, each owner
// once, in parts that follow one another. It works on up to so many parts at once. Nodes
// without RRsets are left out.
func newSortedContent(apex Name, parts [][]Node, threads int) *Content {
	built := make([]builtBlocks, len(parts))
	inParallel(threads, len(parts), func(i int) {
		b := blockBuilder{apex: apex}
		var key [2*MaxName + 1]byte
		for j := range parts[i] {
			if n := &parts[i][j]; len(n.RRsets) > 0 {
				b.add(relative(n.Owner, apex).appendKey(key[:0]), n)
			}
		}
		built[i] = b.done()
	})
	return joinBlocks(apex, built)
}

// joinBlocks makes content of blocks of parts that follow one another.
func joinBlocks(apex Name, parts []builtBlocks) *Content {
	c := &Content{apex: apex}
	var heads []*block
	for _, p := range parts {
		switch {
		case p.lead == nil:
		case len(heads) == 0:
			c.lead = c.lead.followedBy(p.lead)
		default:
			heads[len(heads)-1] = heads[len(heads)-1].followedBy(p.lead)
		}
		heads = append(heads, p.heads...)
	}
	c.root = build(heads)
	return c.seal()
}

// seal fills in all hashes of c, which nobody else has yet.
func (c *Content) seal() *Content {
	c.lead.seal()
	c.root.seal()
	return c
}

// build makes the treap of blocks in order, in linear time: the stack holds the right spine of the
// tree so far.
func build(blocks []*block) *tree {
	type open struct {
		*block
		left *tree
	}
	var spine []open
	// fold closes the spine from index i on into one subtree.
	fold := func(i int) *tree {
		var t *tree
		for j := len(spine) - 1; j >= i; j-- {
			t = newTree(spine[j].block, spine[j].left, t)
		}
		spine = spine[:i]
		return t
	}
	for _, b := range blocks {
		i := len(spine)
		for i > 0 && b.above(spine[i-1].block) {
			i--
		}
		spine = append(spine, open{b, fold(i)})
	}
	return fold(0)
}

// Apex returns the zone's name.
func (c *Content) Apex() Name { return c.apex }

// Digest identifies the content; it costs nothing.
func (c *Content) Digest() Digest {
	b := []byte(c.apex)
	for _, hash := range [...]*[sha256.Size]byte{c.lead.sum(), c.root.sum()} {
		if hash != nil {
			b = append(b, hash[:]...)
		} else {
			b = append(b, 0)
		}
	}
	return sha256.Sum256(b)
}

func (t *tree) sum() *[sha256.Size]byte {
	if t == nil {
		return nil
	}
	return &t.hash
}

// Owners counts the owner names that have records.
func (c *Content) Owners() int {
	n := 0
	if c.lead != nil {
		n += c.lead.count
	}
	if c.root != nil {
		n += c.root.owners
	}
	return n
}

// Records counts the records.
func (c *Content) Records() int {
	n := 0
	if c.lead != nil {
		n += c.lead.total
	}
	if c.root != nil {
		n += c.root.records
	}
	return n
}

// floor returns the block in which a name with the key stands, if it does; nil if that is the lead
// and there is none. The key is relative to the apex.
func (c *Content) floor(key string) *block {
	found := c.lead
	for t := c.root; t != nil; {
		if t.key <= key {
			found, t = t.block, t.right
		} else {
			t = t.left
		}
	}
	return found
}

// Node returns the node of owner, or nil.
func (c *Content) Node(owner Name) *Node {
	if !owner.Within(c.apex) {
		return nil
	}
	prefix := relative(owner, c.apex)
	sets, ok := c.floor(prefix.key()).sets(string(prefix))
	if !ok {
		return nil
	}
	return &Node{Owner: owner, RRsets: unpackSets(make([]RRset, 0, setCount(sets)), sets)}
}

// Exists reports whether owner has records or is an empty non-terminal (RFC 4592 §2.2.2):
// a name below it has some.
func (c *Content) Exists(owner Name) bool {
	if !owner.Within(c.apex) {
		return c.apex.Within(owner) && c.Owners() > 0
	}
	prefix := relative(owner, c.apex)
	key := prefix.key()
	for b := range c.blocks(key) {
		for data := b.data; data != ""; {
			var name string
			name, _, data = cutEntry(data)
			if belowOrEqual(name, string(prefix)) {
				return true
			}
		}
		if b != c.lead && b.key > key {
			return false // it starts behind what was looked for
		}
	}
	return false
}

// All yields every node in canonical order.
func (c *Content) All() iter.Seq[*Node] { return c.Within(Root) }

// Within yields the nodes of owner and of all names below it in canonical order.
func (c *Content) Within(owner Name) iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		var prefix Name
		if owner.Within(c.apex) {
			prefix = relative(owner, c.apex)
		} else if !c.apex.Within(owner) {
			return
		}
		key, begun := prefix.key(), false
		for b := range c.blocks(key) {
			nodes := b.nodes(c.apex)
			for i := range nodes {
				n := &nodes[i]
				switch within := prefix == "" || n.Owner.Within(owner); {
				case within:
					begun = true
					if !yield(n) {
						return
					}
				case begun:
					return
				}
			}
			if !begun && b != c.lead && b.key > key {
				return
			}
		}
	}
}

// blocks yields the blocks from that on in which a name with the key stands.
func (c *Content) blocks(key string) iter.Seq[*block] {
	return func(yield func(*block) bool) {
		first := c.lead
		var behind []*tree // the next one is the last
		for t := c.root; t != nil; {
			if t.key <= key {
				first, t = t.block, t.right
			} else {
				behind = append(behind, t)
				t = t.left
			}
		}
		if first != nil && !yield(first) {
			return
		}
		for len(behind) > 0 {
			t := behind[len(behind)-1]
			behind = behind[:len(behind)-1]
			if !yield(t.block) {
				return
			}
			for t = t.right; t != nil; t = t.left {
				behind = append(behind, t)
			}
		}
	}
}

// With returns c with the given nodes put in place of what their owners had; a node without
// RRsets removes its owner. Of several nodes of one owner the last counts. It fails, and
// changes nothing, on an owner outside the zone.
func (c *Content) With(nodes ...Node) (*Content, error) {
	next := *c
	for i := range nodes {
		n := &nodes[i]
		if !n.Owner.Within(c.apex) {
			return nil, fmt.Errorf("zone %s: owner %s is out of zone", c.apex, n.Owner)
		}
		if len(n.RRsets) == 0 {
			next.remove(n.Owner)
		} else {
			next.put(n)
		}
	}
	return next.seal(), nil
}

// put changes c, which nobody else has yet.
func (c *Content) put(n *Node) {
	prefix := string(relative(n.Owner, c.apex))
	key := Name(prefix).key()
	b := c.floor(key)
	entry := appendEntry(nil, prefix, n.RRsets)
	at, end := b.seek(prefix, key)
	priority := priorityOf([]byte(key))
	if at < end || !isHead(priority) {
		c.set(b, b.spliced(at, end, string(entry)))
		return
	}
	after := b.spliced(0, at, string(entry))
	after.key, after.priority = key, priority
	if b != nil {
		c.set(b, b.spliced(at, len(b.data), ""))
	}
	c.root = insert(c.root, after)
}

// remove changes c, which nobody else has yet.
func (c *Content) remove(owner Name) {
	prefix := string(relative(owner, c.apex))
	key := Name(prefix).key()
	b := c.floor(key)
	at, end := b.seek(prefix, key)
	switch {
	case at == end:
	case b == c.lead || b.key != key:
		c.set(b, b.spliced(at, end, ""))
	default: // the rest of its block follows the block before
		c.root = remove(c.root, key)
		before := c.floor(key)
		c.set(before, before.followedBy(b.spliced(0, end, "")))
	}
}

// set puts the next block in place of one of c's.
func (c *Content) set(b, next *block) {
	switch {
	case b != c.lead:
		c.root = replace(c.root, next)
	case next == nil || next.count == 0:
		c.lead = nil
	default:
		c.lead = next
	}
}

func replace(t *tree, b *block) *tree {
	switch {
	case b.key < t.key:
		return newTree(t.block, replace(t.left, b), t.right)
	case b.key > t.key:
		return newTree(t.block, t.left, replace(t.right, b))
	}
	return newTree(b, t.left, t.right)
}

// insert adds a block whose key t does not have.
func insert(t *tree, b *block) *tree {
	switch {
	case t == nil:
		return newTree(b, nil, nil)
	case b.above(t.block):
		left, right := split(t, b.key)
		return newTree(b, left, right)
	case b.key < t.key:
		return newTree(t.block, insert(t.left, b), t.right)
	default:
		return newTree(t.block, t.left, insert(t.right, b))
	}
}

// split divides t into what is before key and what is after it.
func split(t *tree, key string) (before, after *tree) {
	switch {
	case t == nil:
		return nil, nil
	case t.key < key:
		before, after = split(t.right, key)
		return newTree(t.block, t.left, before), after
	case t.key > key:
		before, after = split(t.left, key)
		return before, newTree(t.block, after, t.right)
	default:
		return t.left, t.right
	}
}

// remove takes out the block with a key, which t has.
func remove(t *tree, key string) *tree {
	switch {
	case key == t.key:
		return join(t.left, t.right)
	case key < t.key:
		return newTree(t.block, remove(t.left, key), t.right)
	default:
		return newTree(t.block, t.left, remove(t.right, key))
	}
}

// join unites two treaps, all keys of left being before those of right.
func join(left, right *tree) *tree {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	case left.above(right.block):
		return newTree(left.block, left.left, join(left.right, right))
	default:
		return newTree(right.block, join(left, right.left), right.right)
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
// differs, not for what the versions share. A nil Content stands for one without nodes. Both are of
// the same zone.
func Diff(before, after *Content) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		var d differing
		var a, b Content
		if before != nil {
			a = *before
		}
		if after != nil {
			b = *after
		}
		if !a.lead.same(b.lead) {
			d.add(a.lead, b.lead)
		}
		d.gather(a.root, b.root)
		apex := a.apex
		if after != nil {
			apex = b.apex
		}
		d.each(apex, yield)
	}
}

// differing is the blocks of two versions that the other one does not have, in order.
type differing struct{ before, after []*block }

func (d *differing) add(a, b *block) {
	if a != nil {
		d.before = append(d.before, a)
	}
	if b != nil {
		d.after = append(d.after, b)
	}
}

// gather compares two trees. The one whose root is higher in the heap divides the other.
func (d *differing) gather(a, b *tree) {
	switch {
	case a == b || a != nil && b != nil && a.sealed && b.sealed && a.hash == b.hash:
	case a == nil:
		d.gather(nil, b.left)
		d.add(nil, b.block)
		d.gather(nil, b.right)
	case b == nil:
		d.gather(a.left, nil)
		d.add(a.block, nil)
		d.gather(a.right, nil)
	case a.key == b.key:
		d.gather(a.left, b.left)
		if !a.block.same(b.block) {
			d.add(a.block, b.block)
		}
		d.gather(a.right, b.right)
	case a.above(b.block):
		before, after := split(b, a.key)
		d.gather(a.left, before)
		d.add(a.block, nil)
		d.gather(a.right, after)
	default:
		before, after := split(a, b.key)
		d.gather(before, b.left)
		d.add(nil, b.block)
		d.gather(after, b.right)
	}
}

// each yields the nodes that differ in the blocks.
func (d *differing) each(apex Name, yield func(Change) bool) {
	a, b := entries{left: d.before}, entries{left: d.after}
	a.next()
	b.next()
	node := func(e *entries) *Node {
		return &Node{Owner: Name(e.name) + apex, RRsets: unpackSets(make([]RRset, 0, setCount(e.sets)), e.sets)}
	}
	for !a.end || !b.end {
		order := 0
		switch {
		case a.end:
			order = 1
		case b.end:
			order = -1
		case a.name != b.name:
			order = strings.Compare(Name(a.name).key(), Name(b.name).key())
		}
		switch {
		case order < 0:
			n := node(&a)
			if !yield(Change{n.Owner, n, nil}) {
				return
			}
			a.next()
		case order > 0:
			n := node(&b)
			if !yield(Change{n.Owner, nil, n}) {
				return
			}
			b.next()
		default:
			if a.sets != b.sets {
				before, after := node(&a), node(&b)
				if !yield(Change{after.Owner, before, after}) {
					return
				}
			}
			a.next()
			b.next()
		}
	}
}
