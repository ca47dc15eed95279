package steering

import (
	"cmp"
	"slices"
)

// nearest chooses the pool of the datacenter that is nearest to the client. Of pools in one
// datacenter it is the first in the order written; pools in none are the farthest.
type nearest struct {
	r *Record
	w *World
}

func (n nearest) choose(place int, of []option, _ *Remembered) choice {
	return first(slices.MinFunc(of, func(a, b option) int { return n.compare(place, a, b) }))
}

func (n nearest) compare(place int, a, b option) int {
	return cmp.Or(
		cmp.Compare(n.w.distanceTo(place, n.r.Pools[a.pool].Datacenter), n.w.distanceTo(place, n.r.Pools[b.pool].Datacenter)),
		cmp.Compare(a.pool, b.pool))
}
