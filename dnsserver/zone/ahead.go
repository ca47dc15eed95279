package zone

// Ahead is the memory that View.Ahead takes. Each worker has its own; the zero value is ready.
type Ahead struct {
	name    dissected
	lookups []lookup
	touched byte
}

// lookup is one of many that are made at once.
type lookup struct {
	index *index
	page  *page
	tag   uint32
	ref   uint32
}

// aheadNames is how many names of each question are looked up ahead: its own, and the one
// above, which is often a zone cut.
const aheadNames = 2

// Ahead prepares for answering many messages: it brings what Answer will read of the zones
// into the caches of the CPU. It takes one step for all messages before the next step for any,
// so that the CPU waits for memory once for many and not for each. It changes no answer, and
// messages may be anything.
func (v *View) Ahead(a *Ahead, messages [][]byte) {
	zones := v.zones.Load()
	if zones == nil || len(messages) < 2 {
		return
	}
	found := a.lookups[:0]
	name := &a.name
	for _, m := range messages {
		if len(m) < headerSize || !name.read(m[headerSize:]) {
			continue
		}
		z := zones.closest(name, name.labels)
		if z == nil {
			continue
		}
		for depth := name.labels; depth > max(z.labels, name.labels-aheadNames); depth-- {
			tag := tagOf(hashName(name.suffix(depth)))
			if p := z.index.table.page(tag); p != nil {
				found = append(found, lookup{index: z.index, page: p, tag: tag})
			}
		}
	}
	a.lookups = found
	for i := range found {
		l := &found[i]
		l.ref, _ = l.page.next(l.tag, l.tag)
	}
	var touched byte // what is read must be used
	for i := range found {
		l := &found[i]
		if l.ref != 0 {
			r := l.index.at(l.ref)
			touched += r[0] + r[min(len(r)-1, 56)]
		}
	}
	a.touched = touched
	clear(a.lookups) // a worker without work keeps no old version of a zone in memory
}
