package zone

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"maps"
	"slices"
)

// index finds the names that exist in one version of a zone, those with records and empty
// non-terminals, and has for each what answers are made of. Finding or missing a name costs
// the same whatever the zone's size. Like Content it is persistent: what has been published
// never changes, a changed version shares most of the old one's memory and costs little for
// each changed owner.
type index struct {
	apex     Name
	apexHash uint64
	labels   int // of apex
	depth    int // no name has more labels
	top      record
	table    table
	chunks   [][]byte       // that records and referrals are in; nil for none
	slots    []*steeredSlot // of steered names
	memory   *memory
}

// indexSeed makes it impossible to choose names that collide.
var indexSeed = maphash.MakeSeed()

func hashName(name []byte) uint64 { return maphash.Bytes(indexSeed, name) }

// tagOf is the part of a name's hash that a table knows.
func tagOf(hash uint64) uint32 { return uint32(hash >> 32) }

// isOwner reports whether r is the record of a name of the zone.
func (x *index) isOwner(r record, name []byte) bool {
	size := len(name) - len(x.apex)
	return size >= 0 && bytes.Equal(r.owner(), name[:size])
}

// find returns the record of a name of the zone in wire form and lower case, nil if it does not exist.
func (x *index) find(name []byte) record { return x.findTagged(tagOf(hashName(name)), name) }

func (x *index) findTagged(tag uint32, name []byte) record {
	p := x.table.page(tag)
	return x.confirm(x.seek(p, p.line(tag), tag), tag, name)
}

// confirm is findTagged if first is what seek has found under the tag.
func (x *index) confirm(first record, tag uint32, name []byte) record {
	if first == nil || x.isOwner(first, name) {
		return first
	}
	if ref := x.ref(tag, Name(name)); ref != 0 {
		return x.at(ref)
	}
	return nil
}

// seek returns the first record that has the tag, nil if there is none, without reading it. The
// line is that of the tag in p.
func (x *index) seek(p *page, l *line, tag uint32) record {
	ref, full := l.find(tag)
	if ref == 0 {
		if !full {
			return nil
		}
		if ref, _ = p.next(tag, lineSlots); ref == 0 {
			return nil
		}
	}
	return x.at(ref)
}

// suffix is find of the last labels of a name that is below the apex.
func (x *index) suffix(name *dissected, depth int) record {
	switch {
	case depth == x.labels:
		return x.top
	case depth > x.depth:
		return nil
	}
	return x.find(name.suffix(depth))
}

// encloser returns the record of the closest encloser of a name below the apex that does not
// exist (RFC 4592 §3.3.1), and how many labels it has.
func (x *index) encloser(name *dissected) (r record, depth int) {
	r, depth = x.top, x.labels
	try := name.labels - 1 // most likely
	for limit := try; depth < limit; try = (depth + limit + 1) / 2 {
		if found := x.suffix(name, try); found != nil {
			r, depth = found, try
		} else {
			limit = try - 1
		}
	}
	return r, depth
}

// indexer makes a version of an index.
type indexer struct {
	index
	content *Content
	old     *index // whose slots and flags are kept, or nil
	made    []byte

	// What is written in new chunks, and in the one with number begun from there on, nobody else
	// has yet.
	fresh     []uint32
	begun     uint32
	begunUsed int
	*compiler
}

// newIndex makes the index of all names of a zone. Steered names keep the slots they have in
// old, which may be nil.
func newIndex(c *Content, old *index) *index {
	x := &indexer{content: c, old: old, index: index{
		apex: c.apex, apexHash: hashName([]byte(c.apex)), labels: c.apex.Labels(), memory: &memory{stamp: 1, number: noChunk},
		table: newTable(c.Owners(), 1),
	}}
	x.begun = noChunk
	x.compiler = compilers.Get().(*compiler)
	defer compilers.Put(x.compiler)
	var cuts []Name
	type ancestor struct {
		name  Name
		ref   uint32
		cover int // labels of the topmost cut or DNAME above or at the name, or -1
	}
	var path []ancestor // from the apex to the last name
	add := func(name Name, sets []RRset) {
		f := x.fields(name, sets)
		cover := -1
		if len(path) > 0 {
			cover = path[len(path)-1].cover
			if cover >= 0 {
				f.flags |= flagCovered
				f.cover = cover
			}
			if name.IsWildcard() {
				x.at(path[len(path)-1].ref)[1] |= flagWildcard
			}
		}
		ref := x.write(&f)
		x.table.add(tagOf(hashName([]byte(name))), ref)
		labels := x.labels + len(path)
		if cover < 0 && f.flags&(flagCut|flagDNAME) != 0 {
			cover = labels
			if f.flags&flagCut != 0 {
				cuts = append(cuts, name)
			}
		}
		x.depth = max(x.depth, labels)
		path = append(path, ancestor{name, ref, cover})
	}
	add(c.apex, c.Node(c.apex).sets())
	x.top = x.at(path[0].ref)
	for n := range c.All() {
		if n.Owner == c.apex {
			continue
		}
		for !n.Owner.Below(path[len(path)-1].name) {
			path = path[:len(path)-1]
		}
		var between [maxLabels]Name
		count := 0
		for name := n.Owner.Parent(); name != path[len(path)-1].name; name = name.Parent() {
			between[count] = name
			count++
		}
		for ; count > 0; count-- {
			add(between[count-1], nil)
		}
		add(n.Owner, n.RRsets)
	}
	x.referrals(cuts)
	x.clip()
	x.top = x.find([]byte(c.apex))
	done := x.index
	return &done
}

// sets returns the RRsets of a node that may be nil.
func (n *Node) sets() []RRset {
	if n == nil {
		return nil
	}
	return n.RRsets
}

// with returns x, the index of before, changed to that of after.
func (x *index) with(before, after *Content) *index {
	var changes []Change
	for ch := range Diff(before, after) {
		if changes = append(changes, ch); len(changes) > x.table.used/4+64 {
			return newIndex(after, x)
		}
	}
	if x.memory.lostSlots > len(x.slots)/2+100 {
		return newIndex(after, x)
	}
	next := &indexer{content: after, old: x, index: *x}
	next.table.root = slices.Clone(x.table.root)
	next.memory.stamp++
	next.table.stamp = next.memory.stamp
	next.slots = slices.Clip(x.slots)
	if next.begun = noChunk; next.current() {
		next.begun, next.begunUsed = x.memory.number, x.memory.used
	}
	next.compiler = compilers.Get().(*compiler)
	defer compilers.Put(next.compiler)
	if !next.change(changes) {
		return newIndex(after, x)
	}
	next.tidy()
	next.top = next.find([]byte(x.apex))
	done := next.index
	return &done
}

// dirt is the names whose records are to be made anew; true where it is not known whether the
// name has a wildcard below it.
type dirt map[Name]bool

func (d dirt) add(name Name) {
	if _, ok := d[name]; !ok {
		d[name] = false
	}
}

// change brings x up to date after changes of the content. It reports false if too much depends
// on what has changed.
func (x *indexer) change(changes []Change) bool {
	dirty := dirt{}
	for _, ch := range changes {
		if r := x.find([]byte(ch.Owner)); r != nil && r.is(flagServer) &&
			(r.RRset(TypeA) != ch.New.RRset(TypeA) || r.RRset(TypeAAAA) != ch.New.RRset(TypeAAAA)) {
			return false
		}
		dirty.add(ch.Owner)
		if (ch.Old == nil) != (ch.New == nil) {
			x.existence(dirty, ch)
		}
		if x.covers(ch.Old) != x.covers(ch.New) {
			for n := range x.content.Within(ch.Owner) {
				for name := n.Owner; name != ch.Owner; name = name.Parent() {
					dirty.add(name)
				}
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(dirty), func(a, b Name) int {
		return cmp.Or(a.Labels()-b.Labels(), cmp.Compare(a, b))
	})
	for _, name := range names {
		x.refresh(name, dirty[name])
	}
	cuts := map[Name]bool{}
	for _, name := range names {
		if cut := x.cutOf(name); cut != "" {
			cuts[cut] = true
		}
	}
	x.referrals(slices.Sorted(maps.Keys(cuts)))
	return true
}

// covers reports whether a node hides names below it.
func (x *indexer) covers(n *Node) bool {
	return n.Has(TypeDNAME) || n != nil && n.Owner != x.apex && n.Has(TypeNS)
}

// existence adds what depends on whether the owner has records: empty non-terminals above it, and
// what is to know of a wildcard.
func (x *indexer) existence(dirty dirt, ch Change) {
	for name := ch.Owner; name != x.apex; {
		parent := name.Parent()
		if name.IsWildcard() {
			dirty[parent] = true
		}
		if ch.New != nil && x.find([]byte(parent)) != nil || ch.New == nil && x.content.Exists(parent) {
			return
		}
		dirty.add(parent)
		name = parent
	}
}

// refresh makes the record of a name anew, or takes it away if the name does not exist. What is
// above it has been refreshed.
func (x *indexer) refresh(name Name, wildcard bool) {
	tag := tagOf(hashName([]byte(name)))
	ref := x.ref(tag, name)
	node := x.content.Node(name)
	if name != x.apex && node == nil && !x.content.Exists(name) {
		if ref != 0 {
			x.release(ref)
			x.table.remove(tag, ref)
		}
		return
	}
	f := x.fields(name, node.sets())
	if ref != 0 {
		f.flags = x.at(ref)[1] & (flagServer | flagWildcard)
	}
	if wildcard {
		f.flags &^= flagWildcard
		if child, err := name.Child("*"); err == nil && x.content.Exists(child) {
			f.flags |= flagWildcard
		}
	}
	if name != x.apex {
		switch above := x.find([]byte(name.Parent())); {
		case above.is(flagCovered):
			f.flags |= flagCovered
			f.cover = above.cover()
		case above.is(flagCut | flagDNAME):
			f.flags |= flagCovered
			f.cover = name.Labels() - 1
		}
	}
	x.depth = max(x.depth, name.Labels())
	next := x.write(&f)
	if ref == 0 {
		x.table.add(tag, next)
		return
	}
	x.release(ref)
	x.table.replace(tag, ref, next)
}

// ref returns the ref of a name, 0 if there is none.
func (x *index) ref(tag uint32, name Name) uint32 {
	p := x.table.page(tag)
	for steps := uint32(0); ; steps++ {
		var ref uint32
		if ref, steps = p.next(tag, steps); ref == 0 || string(x.at(ref).owner()) == string(name[:len(name)-len(x.apex)]) {
			return ref
		}
	}
}

// cutOf returns the topmost zone cut at or above a name, or "".
func (x *indexer) cutOf(name Name) Name {
	r := x.find([]byte(name))
	for r == nil {
		name = name.Parent()
		r = x.find([]byte(name))
	}
	if r.is(flagCovered) {
		for range name.Labels() - r.cover() {
			name = name.Parent()
		}
		r = x.find([]byte(name))
	}
	if r.is(flagCut) {
		return name
	}
	return ""
}

// fields begins the record of a name.
func (x *indexer) fields(name Name, sets []RRset) fields {
	f := fields{name: name, owner: name[:len(name)-len(x.apex)], sets: sets}
	for _, set := range f.sets {
		if set.Type == TypeSteered {
			f.slot = x.slot(name)
		}
	}
	return f
}

// write makes a record and returns its ref.
func (x *indexer) write(f *fields) uint32 {
	x.made = appendRecord(x.made[:0], f, func(dst []byte, set RRset) []byte { return x.appendReadySet(dst, f, set) })
	ref, b := x.take(len(x.made))
	copy(b, x.made)
	return ref
}

// slot returns the number of the slot of a steered name.
func (x *indexer) slot(owner Name) uint32 {
	slot := &steeredSlot{}
	if x.old != nil {
		if r := x.old.find([]byte(owner)); r != nil && r.is(flagSteered) {
			slot = x.old.slots[r.slot()]
			if int(r.slot()) < len(x.slots) && x.slots[r.slot()] == slot {
				x.memory.lostSlots-- // as the record goes, release adds it
				return r.slot()
			}
		}
	}
	x.slots = append(x.slots, slot)
	return uint32(len(x.slots) - 1)
}
