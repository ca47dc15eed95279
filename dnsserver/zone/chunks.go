package zone

import "slices"

// Records and referrals, items in short, are in chunks of memory that is written once and has no
// pointers. A ref is 0 for none, else the number of a chunk and a place there, in units.
const (
	chunkUnit  = 4 // octets
	chunkUnits = 1 << 16
	// Chunks have minChunk to maxChunk octets, and more if one item takes more.
	minChunk = 1 << 10
	maxChunk = chunkUnits * chunkUnit

	noChunk = 1<<32 - 1
)

// memory is where all versions of an index that were made of one another write what they add. Only
// the writer uses it. What it counts is right for versions of which each was made of the one
// before; for others it is a guess.
type memory struct {
	chunk  []byte // that is being filled
	number uint32 // of it
	used   int    // octets of it
	stamp  uint64 // of the last table

	chunks    []occupied // by number
	octets    int        // of all chunks
	live      int        // of these, in items that the last version has
	lostSlots int        // of names that are not steered any more
}

type occupied struct{ octets, live int }

// wholeUnits rounds octets up.
func wholeUnits(octets int) int { return (octets + chunkUnit - 1) / chunkUnit * chunkUnit }

func (x *index) at(ref uint32) record { return x.chunks[ref/chunkUnits][ref%chunkUnits*chunkUnit:] }

// current reports whether x has the chunk that is being filled. It does not if another version was
// made of the same one as x.
func (x *indexer) current() bool {
	m := x.memory
	return int(m.number) < len(x.chunks) && len(m.chunk) > 0 && len(x.chunks[m.number]) > 0 && &m.chunk[0] == &x.chunks[m.number][0]
}

// take returns memory for an item of so many octets, whole units.
func (x *indexer) take(size int) (ref uint32, b []byte) {
	m := x.memory
	if !x.current() || len(m.chunk)-m.used < size {
		octets := min(max(minChunk, m.live/4/chunkUnit*chunkUnit), maxChunk)
		x.open(make([]byte, max(octets, size+chunkUnit)))
	}
	ref = m.number*chunkUnits + uint32(m.used/chunkUnit)
	b = m.chunk[m.used : m.used+size]
	m.used += size
	x.count(m.number, size)
	return ref, b
}

// open has a chunk filled from now on, under a number that x does not use.
func (x *indexer) open(chunk []byte) {
	m := x.memory
	number := slices.IndexFunc(x.chunks, func(c []byte) bool { return c == nil })
	if number < 0 {
		number = len(x.chunks)
		x.chunks = append(slices.Clip(x.chunks), nil)
	} else {
		x.chunks = slices.Clone(x.chunks)
	}
	for len(m.chunks) <= number {
		m.chunks = append(m.chunks, occupied{})
	}
	x.close(uint32(number))
	m.chunks[number].octets = len(chunk)
	m.octets += len(chunk)
	x.chunks[number] = chunk
	x.fresh = append(x.fresh, uint32(number))
	m.chunk, m.number, m.used = chunk, uint32(number), chunkUnit // so that no ref is 0
}

// close forgets what is counted of a chunk.
func (x *indexer) close(number uint32) {
	m := x.memory
	m.octets -= m.chunks[number].octets
	m.live -= m.chunks[number].live
	m.chunks[number] = occupied{}
}

// count adds octets of items in a chunk, or takes them off.
func (x *indexer) count(number uint32, octets int) {
	x.memory.chunks[number].live += octets
	x.memory.live += octets
}

// isFresh reports whether nobody else has the item at ref yet.
func (x *indexer) isFresh(ref uint32) bool {
	number := ref / chunkUnits
	return number == x.begun && int(ref%chunkUnits)*chunkUnit >= x.begunUsed || slices.Contains(x.fresh, number)
}

// release counts a record, and its referral, that x does not have any more.
func (x *indexer) release(ref uint32) {
	r := x.at(ref)
	x.count(ref/chunkUnits, -r.size())
	if r.is(flagCut) {
		x.releaseReferral(r.referral())
	}
	if r.is(flagSteered) {
		x.memory.lostSlots++ // unless the next record of the name takes it
	}
}

func (x *indexer) releaseReferral(ref uint32) {
	if ref != 0 {
		x.count(ref/chunkUnits, -x.referral(ref).size())
	}
}

// clip gives back what is left of the last chunk.
func (x *indexer) clip() {
	m := x.memory
	last := slices.Clone(m.chunk[:m.used])
	m.octets -= len(m.chunk) - len(last)
	m.chunks[m.number].octets = len(last)
	x.chunks[m.number] = last
	m.chunk, m.number, m.used = nil, noChunk, 0
}

const (
	// spareOctets may be lost to what is gone, beside half as much as is live.
	spareOctets = 1 << 14
	// mostMoved bounds the chunks that one version empties.
	mostMoved = 4
)

// tidy empties chunks that have the least live items, if too much memory is lost.
func (x *indexer) tidy() {
	m := x.memory
	for range mostMoved {
		if m.octets-m.live <= m.live/2+spareOctets {
			return
		}
		worst, lost := -1, 1.0
		for i, c := range m.chunks {
			if share := float64(c.live) / float64(c.octets); c.octets > 0 && share < lost && uint32(i) != m.number && i < len(x.chunks) && x.chunks[i] != nil {
				worst, lost = i, share
			}
		}
		if worst < 0 || lost > 3.0/4 {
			return
		}
		x.empty(uint32(worst))
	}
}

// empty moves the items that x has in a chunk to another one.
func (x *indexer) empty(number uint32) {
	chunk := x.chunks[number]
	for at := chunkUnit; len(chunk)-at >= recordHeader; {
		ref := number*chunkUnits + uint32(at/chunkUnit)
		if item := chunk[at:]; item[0] == isReferral {
			at += referral(item).size()
			x.moveReferral(ref)
		} else {
			if [recordHeader]byte(item) == ([recordHeader]byte{}) { // nothing was written from here on
				break
			}
			at += record(item).size()
			x.moveRecord(ref)
		}
	}
	x.close(number)
	x.chunks = slices.Clone(x.chunks)
	x.chunks[number] = nil
}

// moveRecord gives a record another place, if x has it.
func (x *indexer) moveRecord(ref uint32) {
	r := x.at(ref)
	var name [MaxName]byte
	tag := tagOf(hashName(append(append(name[:0], r.owner()...), x.apex...)))
	if !x.table.has(tag, ref) {
		return
	}
	size := r.size()
	to, b := x.take(size)
	copy(b, r[:size])
	x.table.replace(tag, ref, to)
}

// moveReferral gives a referral another place, if x has it.
func (x *indexer) moveReferral(ref uint32) {
	made := x.referral(ref)
	tag := tagOf(made.hash())
	p := x.table.page(tag)
	for steps := uint32(0); ; steps++ {
		var cut uint32
		if cut, steps = p.next(tag, steps); cut == 0 {
			return
		}
		if r := x.at(cut); r.is(flagCut) && r.referral() == ref {
			to, b := x.take(made.size())
			copy(b, made)
			x.renew(tag, cut).setReferral(to)
			return
		}
	}
}

// renew returns the record at ref, or a copy of it in its place, that nobody else has.
func (x *indexer) renew(tag, ref uint32) record {
	r := x.at(ref)
	if x.isFresh(ref) {
		return r
	}
	size := r.size()
	to, b := x.take(size)
	copy(b, r[:size])
	x.count(ref/chunkUnits, -size)
	x.table.replace(tag, ref, to)
	return record(b)
}
