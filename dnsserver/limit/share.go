package limit

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"net/netip"
)

// Share divides what one worker can do among pairs of a client and a name, when it is asked for
// more than it can do: the pairs with most queries lose queries first, and one with no more than
// the average loses none. Otherwise it does nothing. It is for clients that are exempt from rate
// limits, as resolvers are. It is not for concurrent use; the zero Share is ready.
type Share struct {
	active     bool
	overloaded bool // in the present period
	start, end Time // of it
	counts     *shareCounts

	// Queries of one pair in a period that are answered: threshold, but never all at its start,
	// and in any case as many as the pairs had on average in the period before.
	threshold, average uint32
}

// shareCounts counts what is answered in one period. What a pair has had is the lowest of some
// numbers, so that a pair is hardly ever taken for another, and if it is then for one period only.
type shareCounts struct {
	seed  maphash.Seed
	cells [shareRows][shareCells]uint32
	pairs uint32 // cells of the first row in use
	most  uint32 // answers of one pair
	all   uint32 // queries, those that were shed too
	shed  bool   // some were
}

const (
	shareRows  = 4
	shareCells = 4096
	// SharePeriod is for how long queries are counted before they are judged by it.
	SharePeriod Time = 100e6
)

// Overloaded says that the worker can't keep up now.
func (s *Share) Overloaded(now Time) {
	if !s.active {
		s.active = true
		s.threshold, s.average = math.MaxUint32, math.MaxUint32
		s.begin(now)
	}
	s.overloaded = true
}

// Active reports whether Admit is to be asked.
func (s *Share) Active() bool { return s.active }

// Admit reports whether a query of a client for a name, given as a hash, is to be answered.
func (s *Share) Admit(now Time, client netip.Addr, name uint64) bool {
	if s.active && now >= s.end {
		s.next(now)
	}
	if !s.active {
		return true
	}
	c := s.counts
	c.all++
	cells := c.of(client, name)
	had := *cells[0]
	for _, cell := range cells {
		had = min(had, *cell)
	}
	if had >= s.average && Time(had)*SharePeriod >= Time(s.threshold)*(now-s.start) {
		c.shed = true
		return false
	}
	if *cells[0] == 0 {
		c.pairs++
	}
	for _, cell := range cells {
		*cell++
	}
	c.most = max(c.most, had+1)
	return true
}

// next ends a period.
func (s *Share) next(now Time) {
	c := s.counts
	s.average = max(1, c.all/max(1, c.pairs))
	switch {
	case s.overloaded:
		s.threshold = max(min(s.threshold, c.most)/4*3, s.average)
	case !c.shed:
		s.active = false
	default:
		s.threshold += s.threshold/16 + 1
	}
	s.begin(now)
}

func (s *Share) begin(now Time) {
	if s.counts == nil {
		s.counts = &shareCounts{}
	}
	*s.counts = shareCounts{seed: maphash.MakeSeed()}
	s.overloaded = false
	s.start, s.end = now, now+SharePeriod
}

// of returns the numbers of a pair.
func (c *shareCounts) of(client netip.Addr, name uint64) (cells [shareRows]*uint32) {
	var key [24]byte
	a := client.As16()
	copy(key[:], a[:])
	binary.NativeEndian.PutUint64(key[16:], name)
	h := maphash.Bytes(c.seed, key[:])
	for row := range cells {
		cells[row] = &c.cells[row][h%shareCells]
		h >>= 16
	}
	return cells
}
