//go:build linux

package blast

import (
	"math/bits"
	"time"
)

// steps is how many buckets there are between a power of two and the next: they tell times 3% apart.
const steps = 32

// Histogram counts durations.
type Histogram struct {
	counts [64 * steps]uint64
	total  uint64
}

// Add counts d, n times.
func (h *Histogram) Add(d time.Duration, n uint64) {
	h.counts[bucket(d)] += n
	h.total += n
}

// merge adds what another one has counted.
func (h *Histogram) merge(other *Histogram) {
	for i, n := range &other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// Quantile returns a duration that the share q of those counted do not exceed, 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank, seen := uint64(q*float64(h.total)), uint64(0)
	for i, n := range &h.counts {
		if seen += n; n > 0 && seen >= rank {
			return longest(i)
		}
	}
	return 0
}

// bucket returns d's place. Those below steps nanoseconds have one each.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < steps {
		return int(v)
	}
	power := bits.Len64(v) - bits.Len64(steps) // v>>power is at least steps and below 2*steps
	return power*steps + int(v>>power)
}

// longest returns the longest duration of a bucket.
func longest(i int) time.Duration {
	if i < steps {
		return time.Duration(i)
	}
	power := i/steps - 1
	return time.Duration((uint64(i-power*steps)+1)<<power - 1)
}
