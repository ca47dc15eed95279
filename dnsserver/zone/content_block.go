package zone

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"strings"
)

// block is nodes that follow one another. It is immutable but for its hash, which is filled in
// before others than its maker see it. The nil block has no nodes.
type block struct {
	key      string // of the head, relative to the apex; "" for a lead
	priority uint64 // of the head
	data     string // entries, see appendEntry
	count    int    // of nodes
	total    int    // of records
	sealed   bool   // hash is valid
	hash     [sha256.Size]byte
}

// priorityOf is a number for a key that is hard to choose.
func priorityOf(key []byte) uint64 {
	sum := sha256.Sum256(key)
	return binary.BigEndian.Uint64(sum[:])
}

// isHead reports whether a node starts a block; one in 32 does.
func isHead(priority uint64) bool { return priority>>59 == 1<<5-1 }

// above is the heap order; keys decide between equal priorities, so that shapes stay unique.
func (b *block) above(o *block) bool {
	return cmp.Or(cmp.Compare(b.priority, o.priority), strings.Compare(o.key, b.key)) > 0
}

func (b *block) seal() {
	if b != nil && !b.sealed {
		b.hash, b.sealed = sha256.Sum256([]byte(b.data)), true
	}
}

func (b *block) sum() *[sha256.Size]byte {
	if b == nil {
		return nil
	}
	return &b.hash
}

// same reports whether two blocks, both sealed, have the same nodes.
func (b *block) same(o *block) bool { return b == o || b != nil && o != nil && b.hash == o.hash }

// followedBy returns b, which may be nil, with the nodes of next behind its own.
func (b *block) followedBy(next *block) *block {
	switch {
	case next == nil || next.count == 0:
		return b
	case b == nil:
		return &block{data: next.data, count: next.count, total: next.total}
	}
	return &block{key: b.key, priority: b.priority, data: b.data + next.data, count: b.count + next.count, total: b.total + next.total}
}

// spliced returns b, which may be nil, with entries in place of what stands at data[at:end].
func (b *block) spliced(at, end int, entry string) *block {
	next := &block{}
	if b != nil {
		next.key, next.priority = b.key, b.priority
		next.data = b.data[:at] + entry + b.data[end:]
	} else {
		next.data = entry
	}
	for data := next.data; data != ""; next.count++ {
		var sets string
		_, sets, data = cutEntry(data)
		next.total += countRecords(sets)
	}
	return next
}

// seek returns where the entry of a name stands, or, if at == end, where it belongs.
func (b *block) seek(name, key string) (at, end int) {
	if b == nil {
		return 0, 0
	}
	var buf [2*MaxName + 1]byte
	for rest := b.data; rest != ""; {
		at = len(b.data) - len(rest)
		var found string
		found, _, rest = cutEntry(rest)
		if found == name {
			return at, len(b.data) - len(rest)
		}
		if string(Name(found).appendKey(buf[:0])) > key {
			return at, at
		}
	}
	return len(b.data), len(b.data)
}

// sets returns the RRsets of a name as its entry has them.
func (b *block) sets(name string) (sets string, ok bool) {
	if b == nil {
		return "", false
	}
	for rest := b.data; rest != ""; {
		var found string
		if found, sets, rest = cutEntry(rest); found == name {
			return sets, true
		}
	}
	return "", false
}

// nodes returns all nodes.
func (b *block) nodes(apex Name) []Node {
	if b == nil {
		return nil
	}
	size, sets := 0, 0
	for rest := b.data; rest != ""; {
		var name, packed string
		name, packed, rest = cutEntry(rest)
		size += len(name) + len(apex)
		sets += setCount(packed)
	}
	// All nodes share two pieces of memory beside the block's.
	var text strings.Builder
	text.Grow(size)
	all, nodes := make([]RRset, 0, sets), make([]Node, 0, b.count)
	for rest := b.data; rest != ""; {
		var name, packed string
		name, packed, rest = cutEntry(rest)
		start, first := text.Len(), len(all)
		text.WriteString(name)
		text.WriteString(string(apex))
		all = unpackSets(all, packed)
		nodes = append(nodes, Node{Owner: Name(text.String()[start:]), RRsets: all[first:len(all):len(all)]})
	}
	return nodes
}

// relative is an owner without the apex that it ends with: labels without the root's, "" for the
// apex. Its key orders names of a zone as that of the whole name does.
func relative(owner, apex Name) Name { return owner[:len(owner)-len(apex)] }

// belowOrEqual is Within of relative names.
func belowOrEqual(name, above string) bool {
	if !strings.HasSuffix(name, above) {
		return false
	}
	at := 0
	for at < len(name)-len(above) {
		at += 1 + int(name[at])
	}
	return at == len(name)-len(above)
}

// appendEntry appends what a block has of a node:
//
//	1  size of the relative owner, and this
//	1  number of RRsets, or 255 and the number in 2 octets
//	   of each RRset
//	2      type
//	4      TTL
//	2      size of the packed records, or, the highest bit set, in 4 octets
//	       these, as in RRset
//
// Numbers are big-endian.
func appendEntry(dst []byte, name string, sets []RRset) []byte {
	dst = append(dst, byte(len(name)))
	dst = append(dst, name...)
	if len(sets) < 255 {
		dst = append(dst, byte(len(sets)))
	} else {
		dst = binary.BigEndian.AppendUint16(append(dst, 255), uint16(len(sets)))
	}
	for _, s := range sets {
		dst = binary.BigEndian.AppendUint16(dst, s.Type)
		dst = binary.BigEndian.AppendUint32(dst, s.TTL)
		if len(s.rdata) < 1<<15 {
			dst = binary.BigEndian.AppendUint16(dst, uint16(len(s.rdata)))
		} else {
			dst = binary.BigEndian.AppendUint32(dst, 1<<31|uint32(len(s.rdata)))
		}
		dst = append(dst, s.rdata...)
	}
	return dst
}

// cutEntry takes apart the first entry of data, which is not empty: the relative owner, the RRsets,
// and what follows.
func cutEntry(data string) (name, sets, rest string) {
	size := 1 + int(data[0])
	name, sets = data[1:size], data[size:]
	count, rest := cutCount(sets)
	for ; count > 0; count-- {
		_, rest = cutSet(rest)
	}
	return name, sets[:len(sets)-len(rest)], rest
}

func cutCount(sets string) (count int, rest string) {
	if sets[0] < 255 {
		return int(sets[0]), sets[1:]
	}
	return int(sets[1])<<8 | int(sets[2]), sets[3:]
}

// cutSet reads the first RRset.
func cutSet(sets string) (s RRset, rest string) {
	s.Type = uint16(sets[0])<<8 | uint16(sets[1])
	s.TTL = uint32(sets[2])<<24 | uint32(sets[3])<<16 | uint32(sets[4])<<8 | uint32(sets[5])
	size, at := int(sets[6])<<8|int(sets[7]), 8
	if size >= 1<<15 {
		size, at = size&(1<<15-1)<<16|int(sets[8])<<8|int(sets[9]), 10
	}
	s.rdata = sets[at : at+size]
	return s, sets[at+size:]
}

// setCount counts the RRsets of an entry.
func setCount(sets string) int {
	count, _ := cutCount(sets)
	return count
}

// unpackSets appends the RRsets of an entry to dst.
func unpackSets(dst []RRset, sets string) []RRset {
	count, rest := cutCount(sets)
	for ; count > 0; count-- {
		var s RRset
		s, rest = cutSet(rest)
		dst = append(dst, s)
	}
	return dst
}

func countRecords(sets string) (n int) {
	count, rest := cutCount(sets)
	for ; count > 0; count-- {
		var s RRset
		s, rest = cutSet(rest)
		n += s.Len()
	}
	return n
}

// blockBuilder makes blocks of nodes in canonical order.
type blockBuilder struct {
	apex  Name
	block block // the last one, but for its data
	data  []byte
	built builtBlocks
	text  strings.Builder // of several blocks
	spare []block
}

// blockText is how many octets blocks of the same time share: few enough that little is kept in
// memory by one that stays, and enough that memory is not split into parts too small for others.
const blockText = 1 << 15

// builtBlocks is the blocks of a part of the zone. The lead belongs to what is before the part.
type builtBlocks struct {
	lead  *block
	heads []*block
}

// add takes in the next node, which has RRsets. The key is relative to the apex.
func (b *blockBuilder) add(key []byte, n *Node) {
	if priority := priorityOf(key); isHead(priority) {
		b.flush()
		b.block = block{key: b.keep(key), priority: priority}
	}
	b.data = appendEntry(b.data, string(relative(n.Owner, b.apex)), n.RRsets)
	b.block.count++
	b.block.total += n.Records()
}

func (b *blockBuilder) flush() {
	if b.block.count == 0 {
		return
	}
	if len(b.spare) == 0 {
		b.spare = make([]block, 16)
	}
	done := &b.spare[0]
	b.spare = b.spare[1:]
	*done = b.block
	done.data = b.keep(b.data)
	b.data = b.data[:0]
	if done.priority == 0 {
		b.built.lead = done
	} else {
		done.seal()
		b.built.heads = append(b.built.heads, done)
	}
}

// keep returns a copy of text.
func (b *blockBuilder) keep(text []byte) string {
	if b.text.Cap()-b.text.Len() < len(text) {
		b.text.Reset()
		b.text.Grow(max(len(text), blockText))
	}
	start := b.text.Len()
	b.text.Write(text)
	return b.text.String()[start:]
}

func (b *blockBuilder) done() builtBlocks {
	b.flush()
	return b.built
}

// entries reads the entries of blocks that follow one another.
type entries struct {
	left       []*block
	rest       string // of the present block
	name, sets string // of the present entry
	end        bool   // there is none any more
}

func (e *entries) next() {
	for e.rest == "" {
		if len(e.left) == 0 {
			e.end = true
			return
		}
		e.rest, e.left = e.left[0].data, e.left[1:]
	}
	e.name, e.sets, e.rest = cutEntry(e.rest)
}
