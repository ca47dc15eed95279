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
	// A new table has pagesFilled slots in use on each page, on average. It gets more pages
	// when it has pagesFull, or when one page is full.
	pagesFilled = 72
	pagesFull   = 92
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

// next returns the ref of the next slot with the tag, 0 if there is none, and where to go on.
// The search begins with at = tag.
func (p *page) next(tag, at uint32) (ref, behind uint32) {
	for ; at-tag < pageSlots; at++ {
		s := p[at%pageSlots]
		if s == 0 {
			break
		}
		if uint32(s>>32) == tag {
			return uint32(s), at + 1
		}
	}
	return 0, at
}

// replace puts ref in place of old, which the table has under the tag.
func (t *table) replace(tag, old, ref uint32) {
	p := t.changeable(tag)
	for i := tag; ; i++ {
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
	for i := range uint32(pageSlots) {
		if s := &p[(tag+i)%pageSlots]; *s == 0 {
			*s = uint64(tag)<<32 | uint64(ref)
			return true
		}
	}
	return false
}

// remove frees the slot that has ref under the tag.
func (t *table) remove(tag, ref uint32) {
	p := t.changeable(tag)
	i := tag
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

// grow gives t half as many pages more.
func (t *table) grow() {
	old := *t
	t.pages += t.pages/2 + 1
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
