package zone

// Ahead is the memory that View.Ahead takes. Each worker has its own; the zero value is ready.
type Ahead struct {
	name    dissected
	lookups []lookup
	touched byte
}

// lookup is one of many that are made at once.
type lookup struct {
	hash uint64
	path uint64 // what is left of hash to choose branches
	twig *twig
	node *Node
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
			hash := hashName(name.suffix(depth))
			found = append(found, lookup{hash: hash, path: hash >> branchBits, twig: &z.index.root[hash%(1<<branchBits)]})
		}
	}
	a.lookups = found
	for more := true; more; {
		more = false
		for i := range found {
			l := &found[i]
			if b := l.twig.branch; b != nil {
				l.twig = &b[l.path%(1<<branchBits)]
				l.path >>= branchBits
				more = true
			}
		}
	}
	for i := range found {
		l := &found[i]
		for j := range l.twig.leaves {
			if leaf := &l.twig.leaves[j]; uint64(leaf.hash) == l.hash>>32 {
				l.node = leaf.node
				break
			}
		}
	}
	found = compact(found)
	var touched byte // what is read must be used
	for i := range found {
		touched += byte(len(found[i].node.RRsets))
	}
	for i := range found {
		n := found[i].node
		touched += n.Owner[0]
		if len(n.RRsets) > 0 {
			touched += byte(n.RRsets[0].Type)
		}
	}
	for i := range found {
		if n := found[i].node; len(n.RRsets) > 0 {
			touched += n.RRsets[0].rdata[0]
		}
	}
	a.touched = touched
	clear(a.lookups) // a worker without work keeps no old version of a zone in memory
}

// compact leaves out lookups that have found nothing.
func compact(all []lookup) []lookup {
	n := 0
	for i := range all {
		if all[i].node != nil {
			all[n] = all[i]
			n++
		}
	}
	return all[:n]
}
