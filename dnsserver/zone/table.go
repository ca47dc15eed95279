package zone

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

// middle is pages that follow one another.
type middle struct {
	stamp uint64 // of the table that may change it
	own   uint64 // which pages that table may change, a bit each
	pages [middlePages]*page
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
	t.root = make([]*middle, (t.pages+middlePages-1)/middlePages)
	return t
}

// page is where slots with the tag are: it may be nil if there are none.
func (t *table) page(tag uint32) *page {
	n := uint(uint64(tag) * uint64(t.pages) >> 32)
	m := t.root[n/middlePages]
	if m == nil {
		return nil
	}
	return m.pages[n%middlePages]
}

// changeable is page for a change, which no other table sees.
func (t *table) changeable(tag uint32) *page {
	n := uint(uint64(tag) * uint64(t.pages) >> 32)
	m := t.root[n/middlePages]
	switch {
	case m == nil:
		m = &middle{stamp: t.stamp}
		t.root[n/middlePages] = m
	case m.stamp != t.stamp:
		m = &middle{stamp: t.stamp, pages: m.pages}
		t.root[n/middlePages] = m
	}
	p := m.pages[n%middlePages]
	if m.own>>(n%middlePages)&1 == 0 {
		own := new(page)
		if p != nil {
			*own = *p
		}
		p = own
		m.pages[n%middlePages] = p
		m.own |= 1 << (n % middlePages)
	}
	return p
}

// home is the first slot for a tag, the first of a cache line. A line has no free slot before one
// in use, and slots are in use from home to where the tag is.
func home(tag uint32) uint32 { return tag % pageSlots / lineSlots * lineSlots }

// line is the slots of the cache line where a tag is at home; nil if p is.
type line [lineSlots]uint64

func (p *page) line(tag uint32) *line {
	if p == nil {
		return nil
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
	if uint32(slot>>32) != tag {
		return other
	}
	return uint32(slot)
}

// next returns the ref of the next slot with the tag, from so many behind home on, and how many it
// is behind home; 0 if there is none. The page may be nil.
func (p *page) next(tag, steps uint32) (ref, at uint32) {
	if p == nil {
		return 0, 0
	}
	h := home(tag)
	for ; steps < pageSlots; steps++ {
		s := p[(h+steps)%pageSlots]
		if s == 0 {
			break
		}
		if uint32(s>>32) == tag {
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

// grow gives t a quarter of pages more.
func (t *table) grow() {
	old := *t
	t.pages += t.pages/4 + 1
	for t.root = nil; t.root == nil; {
		t.root = make([]*middle, (t.pages+middlePages-1)/middlePages)
		if !t.addAll(&old) {
			t.root = nil
			t.pages += t.pages/8 + 1
		}
	}
}

// addAll reports false if a page has not enough slots.
func (t *table) addAll(old *table) bool {
	for _, m := range old.root {
		if m == nil {
			continue
		}
		for _, p := range m.pages {
			if p == nil {
				continue
			}
			for _, s := range p {
				if s != 0 && !t.changeable(uint32(s>>32)).add(uint32(s>>32), uint32(s)) {
					return false
				}
			}
		}
	}
	return true
}
