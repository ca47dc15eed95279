package control

import (
	"context"
	"math/rand/v2"
	"time"
)

// Pauses between attempts at one hub: from minPause on, doubled up to the limit of the kind
// of failure. A leader change is followed within a second because neither a follower nor an
// address that does not answer is left alone for longer than maxPause.
const (
	minPause    = 50 * time.Millisecond
	maxPause    = 600 * time.Millisecond
	refusedWait = 5 * time.Second // limit when the hub understood and refused: only a person changes that
)

// pauses counts the failures in a row.
type pauses struct{ failures int }

// next returns the pause before the next attempt: between half and all of minPause doubled
// with every failure, at most limit. random is in [0,1).
func (p *pauses) next(limit time.Duration, random float64) time.Duration {
	full := limit
	if p.failures < 20 {
		full = min(limit, minPause<<p.failures)
	}
	p.failures++
	return full/2 + time.Duration(random*float64(full/2))
}

func (p *pauses) reset() { p.failures = 0 }

// pause waits; false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func jitter() float64 { return rand.Float64() }
