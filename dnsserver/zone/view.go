package zone

import (
	"fmt"
	"iter"
	"maps"
	"sync"
	"sync/atomic"
)

// Served is one version of a zone in the form that answers are made of. It is immutable.
type Served struct {
	content *Content
	version Version

	labels   int    // of the apex name
	apex     *Node  // holds the SOA with serial 0
	soa      RRset  // the apex SOA with the serial of version
	negative uint32 // TTL of the SOA in negative answers, RFC 2308 §5, seconds

	// What answers are made of; only what is in a View has it.
	index    *index
	readySOA readySOA

	trusted *Networks // resolvers whose Client Subnet option is believed (RFC 7871)
}

// indexed returns z ready to answer. What is served now, nil if nothing, saves work.
func (z *Served) indexed(now *Served) *Served {
	ready := *z
	if now != nil {
		ready.index = now.index.with(now.content, z.content)
	} else {
		ready.index = newIndex(z.content, nil)
	}
	ready.readySOA = newReadySOA(&ready)
	if now != nil {
		ready.trusted = now.trusted
	}
	return &ready
}

// NewServed prepares content for serving under a version. It costs the same for every size
// of content: what takes longer is Update's. Content without exactly one well-formed SOA record at its apex is refused.
func NewServed(content *Content, version Version) (*Served, error) {
	apex := content.Node(content.Apex())
	set := apex.RRset(TypeSOA)
	if set.Len() != 1 {
		return nil, fmt.Errorf("serving zone %s: %d SOA records at the apex, wanted 1", content.Apex(), set.Len())
	}
	var soa SOA
	for rdata := range set.All() {
		var err error
		if soa, err = ParseSOA(rdata); err != nil {
			return nil, fmt.Errorf("serving zone %s: %w", content.Apex(), err)
		}
	}
	soa.Serial = version.Serial
	return &Served{
		content: content, version: version,
		labels:   content.Apex().Labels(),
		apex:     apex,
		soa:      NewRRset(TypeSOA, set.TTL, soa.Pack()),
		negative: min(set.TTL, soa.Minimum),
	}, nil
}

// Apex returns the zone's name.
func (z *Served) Apex() Name { return z.content.Apex() }

// Content returns what is served, the SOA with serial 0.
func (z *Served) Content() *Content { return z.content }

// Version returns serial and digest that the content is served under.
func (z *Served) Version() Version { return z.version }

// View is the zones that a server answers for. Any number of goroutines may read while
// another writes: readers never lock and see of every zone one whole version.
//
// The zero View is one of a server that has no state yet: it answers every query with
// SERVFAIL, until the first Update.
type View struct {
	writer sync.Mutex
	// zones is what is answered from, held what there is: the same, unless the view is mute. They are replaced when zones
	// come or go, and nil before the first Update.
	zones, held atomic.Pointer[zoneSet]
	mute        bool
}

// Mute has a view refuse every query, as if it had no zones, or ends that. Everything else goes on.
func (v *View) Mute(mute bool) {
	v.writer.Lock()
	defer v.writer.Unlock()
	v.mute = mute
	if held := v.held.Load(); held != nil {
		v.hold(held)
	}
}

// Muted reports whether the view refuses every query.
func (v *View) Muted() bool {
	v.writer.Lock()
	defer v.writer.Unlock()
	return v.mute
}

// hold replaces what there is. v.writer is held.
func (v *View) hold(set *zoneSet) {
	v.held.Store(set)
	if v.mute {
		set = &zoneSet{}
	}
	v.zones.Store(set)
}

// zoneSet is immutable but for what the slots hold, so that a new version of a zone does not
// copy the map.
type zoneSet struct {
	slots map[Name]*slot
	depth int // labels of the longest apex
	// parents are apexes below which there are others.
	parents map[Name]bool
}

type slot struct{ served atomic.Pointer[Served] }

// Update serves the given versions in place of what their zones had, and stops serving the
// zones in remove, unless they are also in install. Each zone changes at one moment; new
// versions of zones served already are visible first, then all zones that come and go, at
// once. Zones come and go at the cost of the number of all zones, so callers pass them
// together. A zone that comes costs time for all its names, a version made with Content.With from
// the one served for what has changed. An Update without zones is good for saying that there are none to wait for.
func (v *View) Update(install []*Served, remove []Name) {
	v.writer.Lock()
	defer v.writer.Unlock()
	old := v.held.Load()
	if old == nil {
		old = &zoneSet{}
	}
	var come []*Served
	for _, z := range install {
		if s := old.slots[z.Apex()]; s != nil {
			s.served.Store(z.indexed(s.served.Load()))
		} else {
			come = append(come, z)
		}
	}
	stays := make(map[Name]bool, len(install))
	for _, z := range install {
		stays[z.Apex()] = true
	}
	var gone []Name
	for _, apex := range remove {
		if old.slots[apex] != nil && !stays[apex] {
			gone = append(gone, apex)
		}
	}
	if len(come) == 0 && len(gone) == 0 && old.slots != nil {
		return
	}
	next := &zoneSet{slots: make(map[Name]*slot, len(old.slots)+len(come))}
	maps.Copy(next.slots, old.slots)
	for _, apex := range gone {
		delete(next.slots, apex)
	}
	for _, z := range come {
		s := &slot{}
		s.served.Store(z.indexed(nil))
		next.slots[z.Apex()] = s
	}
	next.parents = map[Name]bool{}
	for apex := range next.slots {
		next.depth = max(next.depth, apex.Labels())
		for above := apex.Parent(); above != ""; above = above.Parent() {
			if next.slots[above] != nil {
				next.parents[above] = true
			}
		}
	}
	v.hold(next)
}

// TrustSubnets has a zone believe what the resolvers in these networks say of their clients
// (RFC 7871), in every version that follows too. Until then, and for other resolvers, the option
// means nothing. It reports whether the zone is served.
func (v *View) TrustSubnets(apex Name, resolvers *Networks) bool {
	v.writer.Lock()
	defer v.writer.Unlock()
	now := v.Zone(apex)
	if now == nil {
		return false
	}
	trusting := *now
	trusting.trusted = resolvers
	v.held.Load().slots[apex].served.Store(&trusting)
	return true
}

// Ready reports whether there was an Update.
func (v *View) Ready() bool { return v.held.Load() != nil }

// Zone returns what there is of the zone with exactly this apex, or nil.
func (v *View) Zone(apex Name) *Served {
	set := v.held.Load()
	if set == nil {
		return nil
	}
	if s := set.slots[apex]; s != nil {
		return s.served.Load()
	}
	return nil
}

// Len counts the zones.
func (v *View) Len() int {
	if set := v.held.Load(); set != nil {
		return len(set.slots)
	}
	return 0
}

// Zones yields what is served of every zone, in no order.
func (v *View) Zones() iter.Seq[*Served] {
	return func(yield func(*Served) bool) {
		set := v.held.Load()
		if set == nil {
			return
		}
		for _, s := range set.slots {
			if !yield(s.served.Load()) {
				return
			}
		}
	}
}

// closest returns the zone with the longest apex that is a suffix of n and has at most
// limit labels, or nil.
func (set *zoneSet) closest(n *dissected, limit int) *Served {
	for depth := min(n.labels, set.depth, limit); depth >= 0; depth-- {
		if s := set.slots[Name(n.suffix(depth))]; s != nil {
			return s.served.Load()
		}
	}
	return nil
}

// same reports whether z, of this set, is the closest zone at or above a name, without a search.
func (set *zoneSet) same(z *Served, n *dissected) bool {
	return z != nil && n.within(z.content.apex, z.labels) && (len(set.parents) == 0 || !set.parents[z.content.apex])
}

// authority returns the zone that answers for n, or nil. It is the closest one above or at
// n, but a DS RRset belongs to the parent's side of a zone cut (RFC 4035 §3.1.4.1): where
// the zone above an apex is served too, it answers. Then child tells that n is itself the
// apex of a served zone.
func (set *zoneSet) authority(n *dissected, qtype uint16) (z *Served, child bool) {
	z = set.closest(n, n.labels)
	if qtype != TypeDS || z == nil || z.labels != n.labels || n.labels == 0 {
		return z, false
	}
	if parent := set.closest(n, n.labels-1); parent != nil {
		return parent, true
	}
	return z, false
}
