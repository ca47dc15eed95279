package zone

import "math/bits"

// table finds records of an index by a tag, which is part of the hash of their names. It is a
// persistent hash table: pages of slots, of which a change copies those it touches. A page has
// no pointers, so that the garbage collector does not look into it.
//
// A slot is 0 if it is free, else the tag in the upper half and the ref of the record in the
// lower.
type table struct {
	root  []*middle
	pages int
	used  int // slots
	stamp uint64
}

// middle is pages that follow one another. Those of a new table are in one piece, where they are
// found without a look at where they are; those that a change has copied are not.
type middle struct {
	stamp uint64 // of the table that may change it
	own   uint64 // which pages that table may change, a bit each
	moved uint64 // which pages are in copies
	base  []page
	// copies is nil as long as no page has moved.
	copies *[middlePages]*page
}

type page [pageSlots]uint64

const (
	middlePages = 64
	pageSlots   = 128
	lineSlots   = 8
	// A new table has pagesFilled slots in use on each page, on average. It gets more pages
	// when it has pagesFull, or when one page is full.
	pagesFilled = 88
	pagesFull   = 100
)

// newTable makes a table for so many slots. A stamp is one that no other table ever had
// whose memory it shares.
func newTable(used int, stamp uint64) table {
	t := table{pages: used/pagesFilled + 1, stamp: stamp}
	t.allocate()
	return t
}

// allocate gives t empty pages.
func (t *table) allocate() {
	t.root = make([]*middle, (t.pages+middlePages-1)/middlePages)
	for i := range t.root {
		t.root[i] = &middle{stamp: t.stamp, own: 1<<middlePages - 1, base: make([]page, min(middlePages, t.pages-i*middlePages))}
	}
}

// page is where slots with the tag are.
func (t *table) page(tag uint32) *page {
	n := uint(uint64(tag) * uint64(t.pages) >> 32)
	m := t.root[n/middlePages]
	if n %= middlePages; m.moved>>n&1 != 0 {
		return m.copies[n]
	}
	return &m.base[n]
}

// changeable is page for a change, which no other table sees.
func (t *table) changeable(tag uint32) *page {
	n := uint(uint64(tag) * uint64(t.pages) >> 32)
	at := &t.root[n/middlePages]
	if (*at).stamp != t.stamp {
		own := **at
		own.stamp, own.own = t.stamp, 0
		if own.copies != nil {
			copies := *own.copies
			own.copies = &copies
		}
		*at = &own
	}
	m := *at
	if n %= middlePages; m.own>>n&1 == 0 {
		if m.copies == nil {
			m.copies = &[middlePages]*page{}
		}
		own := new(page)
		*own = *t.page(tag)
		m.copies[n] = own
		m.own |= 1 << n
		m.moved |= 1 << n
		if bits.OnesCount64(m.moved) == len(m.base) {
			m.base = nil
		}
	}
	return t.page(tag)
}

// home is the first slot for a tag, the first of a cache line. A line has no free slot before one
// in use, and slots are in use from home to where the tag is.
func home(tag uint32) uint32 { return tag % pageSlots / lineSlots * lineSlots }

// line is the slots of the cache line where a tag is at home.
type line [lineSlots]uint64

func (p *page) line(tag uint32) *line {
	if p == nil {
		return nil // never; without this the compiler has the start of p read, which is another line
	}
	h := home(tag)
	return (*line)(p[h : h+lineSlots])
}

// find returns the ref of a slot with the tag, 0 if there is none. It looks at all slots, as
// branches could not be foretold. If full, there may be more behind the line.
func (l *line) find(tag uint32) (ref uint32, full bool) {
	ref = refOr(l[7], tag, 0)
	ref = refOr(l[6], tag, ref)
	ref = refOr(l[5], tag, ref)
	ref = refOr(l[4], tag, ref)
	ref = refOr(l[3], tag, ref)
	ref = refOr(l[2], tag, ref)
	ref = refOr(l[1], tag, ref)
	ref = refOr(l[0], tag, ref)
	return ref, l[7] != 0
}

// refOr returns the ref in a slot if that has the tag, else other.
func refOr(slot uint64, tag, other uint32) uint32 {
	if slot>>32 != uint64(tag) {
		return other
	}
	return uint32(slot)
}

// next returns the ref of the next slot with the tag, from so many behind home on, and how many it
// is behind home; 0 if there is none.
func (p *page) next(tag, steps uint32) (ref, at uint32) {
	h := home(tag)
	for ; steps < pageSlots; steps++ {
		s := p[(h+steps)%pageSlots]
		if s == 0 {
			break
		}
		if s>>32 == uint64(tag) {
			return uint32(s), steps
		}
	}
	return 0, steps
}

// has reports whether t has ref under the tag.
func (t *table) has(tag, ref uint32) bool {
	p := t.page(tag)
	for steps := uint32(0); ; steps++ {
		var found uint32
		if found, steps = p.next(tag, steps); found == 0 || found == ref {
			return found != 0
		}
	}
}

// replace puts ref in place of old, which the table has under the tag.
func (t *table) replace(tag, old, ref uint32) {
	p := t.changeable(tag)
	for i := home(tag); ; i++ {
		if p[i%pageSlots] == uint64(tag)<<32|uint64(old) {
			p[i%pageSlots] = uint64(tag)<<32 | uint64(ref)
			return
		}
	}
}

// add puts ref, which is not 0, under the tag.
func (t *table) add(tag, ref uint32) {
	if t.used >= t.pages*pagesFull {
		t.grow()
	}
	for !t.changeable(tag).add(tag, ref) {
		t.grow()
	}
	t.used++
}

// add reports false if the page has no free slot.
func (p *page) add(tag, ref uint32) bool {
	h := home(tag)
	for i := range uint32(pageSlots) {
		if s := &p[(h+i)%pageSlots]; *s == 0 {
			*s = uint64(tag)<<32 | uint64(ref)
			return true
		}
	}
	return false
}

// remove frees the slot that has ref under the tag.
func (t *table) remove(tag, ref uint32) {
	p := t.changeable(tag)
	i := home(tag)
	for p[i%pageSlots] != uint64(tag)<<32|uint64(ref) {
		i++
	}
	p[i%pageSlots] = 0
	t.used--
	for i++; p[i%pageSlots] != 0; i++ { // what stood behind it for want of room
		s := p[i%pageSlots]
		p[i%pageSlots] = 0
		p.add(uint32(s>>32), uint32(s))
	}
}

// grow gives t a quarter of pages more, or as many as it takes that none is full.
func (t *table) grow() {
	old := *t
	for grown := false; !grown; {
		t.pages += t.pages/4 + 1
		t.allocate()
		grown = t.addAll(&old)
	}
}

// addAll reports false if a page has not enough slots.
func (t *table) addAll(old *table) bool {
	for i := range old.pages {
		m := old.root[i/middlePages]
		var p *page
		if i %= middlePages; m.moved>>i&1 != 0 {
			p = m.copies[i]
		} else {
			p = &m.base[i]
		}
		for _, s := range p {
			if s != 0 && !t.changeable(uint32(s>>32)).add(uint32(s>>32), uint32(s)) {
				return false
			}
		}
	}
	return true
}
