package zone

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// Locator tells where clients are: it has a location, a small number, for every address. It is
// immutable and takes some 6 octets for an IPv4 network and 18 for an IPv6 one, and 256 KiB once
// there are many IPv4 networks.
//
// Networks become ranges of addresses, sorted, neighbours of one location united. So it tells not
// only the location of a client but also how much around the client has the same location, which
// is what the scope of an answer needs to know (RFC 7871 §7.2.1) and the longest matching prefix
// does not tell: 10.0.0.0/8 is no scope for a client outside of 10.1.0.0/16 if that is elsewhere.
type Locator struct {
	locations int

	four  []uint32 // where ranges start; the first at 0
	four2 []uint16 // location of each
	// top has for the first 16 bits of an IPv4 address the range that their first address is in,
	// and one behind the last; nil if there are few ranges.
	top []uint32

	six  []six // as of IPv4
	six2 []uint16
}

// six is an IPv6 address as a number.
type six struct{ hi, lo uint64 }

// Place says that the addresses of a network have a location.
type Place struct {
	Network  netip.Prefix
	Location uint16
}

// Overlap says which of several networks that an address is in counts.
type Overlap uint8

const (
	// Longest has the longest prefix count, of two that are equal the first in the list.
	Longest Overlap = iota
	// Lowest has the lowest location count.
	Lowest
)

// NewLocator makes a Locator with locations 0 to locations-1. Addresses in no network have
// location 0. IPv4 networks that are written as IPv6 ones (RFC 4291 §2.5.5.2) are taken as IPv4.
// A network that is none, or a location that is too high, is an error.
func NewLocator(locations int, places []Place, overlap Overlap) (*Locator, error) {
	sorted := slices.Clone(places)
	for i := range sorted {
		p := &sorted[i]
		network, ok := canonical(p.Network)
		if !ok {
			return nil, fmt.Errorf("%s is no network", p.Network)
		}
		if int(p.Location) >= locations {
			return nil, fmt.Errorf("network %s has location %d of %d", p.Network, p.Location, locations)
		}
		p.Network = network
	}
	slices.SortStableFunc(sorted, func(a, b Place) int { return a.Network.Compare(b.Network) }) // IPv4 comes first
	fours, _ := slices.BinarySearchFunc(sorted, true, func(p Place, _ bool) int {
		if p.Network.Addr().Is4() {
			return -1
		}
		return 1
	})
	l := &Locator{locations: max(locations, 1)}
	var starts []six
	starts, l.four2 = ranges(sorted[:fours], overlap)
	l.four = make([]uint32, len(starts))
	for i, s := range starts {
		l.four[i] = uint32(s.lo)
	}
	l.six, l.six2 = ranges(sorted[fours:], overlap)
	l.indexFour(fewRanges)
	return l, nil
}

// canonical returns the network that p stands for, without octets behind the prefix.
func canonical(p netip.Prefix) (network netip.Prefix, ok bool) {
	if !p.IsValid() {
		return netip.Prefix{}, false
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, false // IPv4 and something else
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// ranges divides all addresses of one family, by networks in order: where ranges start, and the location of
// each. IPv4 addresses are numbers below 2^32.
func ranges(places []Place, overlap Overlap) (starts []six, locations []uint16) {
	starts, locations = append(make([]six, 0, 2*len(places)+1), six{}), append(make([]uint16, 0, 2*len(places)+1), 0)
	emit := func(start six, location uint16) {
		if last := len(starts) - 1; starts[last] == start {
			locations[last] = location
		} else {
			starts, locations = append(starts, start), append(locations, location)
		}
		if n := len(starts); n > 1 && locations[n-1] == locations[n-2] {
			starts, locations = starts[:n-1], locations[:n-1]
		}
	}
	type open struct {
		last     six // address
		location uint16
		network  netip.Prefix
	}
	var stack []open // networks that hold the present address, the shortest first
	// closeBefore ends the networks that end before an address, or all.
	closeBefore := func(next six, all bool) {
		for len(stack) > 0 {
			top := stack[len(stack)-1]
			if !all && !top.last.less(next) {
				return
			}
			stack = stack[:len(stack)-1]
			after, more := top.last.next(top.network.Addr().Is4())
			if !more {
				continue // an outer one ends there too
			}
			location := uint16(0)
			if len(stack) > 0 {
				location = stack[len(stack)-1].location
			}
			emit(after, location)
		}
	}
	for _, p := range places {
		first, last := bounds(p.Network)
		closeBefore(first, false)
		location := p.Location
		if len(stack) > 0 {
			outer := stack[len(stack)-1]
			switch {
			case overlap == Lowest:
				location = min(location, outer.location)
			case outer.network == p.Network:
				location = outer.location
			}
		}
		stack = append(stack, open{last, location, p.Network})
		emit(first, location)
	}
	closeBefore(six{}, true)
	return slices.Clone(starts), slices.Clone(locations)
}

func (a six) less(b six) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// next returns the address after a, more false if there is none.
func (a six) next(four bool) (after six, more bool) {
	if four {
		return six{0, a.lo + 1}, a.lo != 1<<32-1
	}
	lo, carry := bits.Add64(a.lo, 1, 0)
	hi, end := bits.Add64(a.hi, 0, carry)
	return six{hi, lo}, end == 0
}

// bounds returns the first and last address of a network.
func bounds(p netip.Prefix) (first, last six) {
	if a := p.Addr(); a.Is4() {
		start := fourOf(a)
		return six{0, uint64(start)}, six{0, uint64(start | uint32(1<<(32-p.Bits())-1))}
	}
	first = sixOf(p.Addr())
	last = first
	switch n := p.Bits(); {
	case n <= 64:
		last.lo = ^uint64(0)
		last.hi |= ^uint64(0) >> n // none for 64
	default:
		last.lo |= ^uint64(0) >> (n - 64)
	}
	return first, last
}

func fourOf(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func sixOf(a netip.Addr) six {
	b := a.As16()
	return six{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// fewRanges are found without an index.
const fewRanges = 64

func (l *Locator) indexFour(few int) {
	if len(l.four) <= few {
		return
	}
	l.top = make([]uint32, 1<<16+1)
	at := 0
	for i := range l.top[:1<<16] {
		for at+1 < len(l.four) && l.four[at+1] <= uint32(i)<<16 {
			at++
		}
		l.top[i] = uint32(at)
	}
	l.top[1<<16] = uint32(len(l.four) - 1)
}

// Locations is how many locations there are.
func (l *Locator) Locations() int { return l.locations }

// Locate returns the location of an address.
func (l *Locator) Locate(a netip.Addr) uint16 {
	if a.Is4() || a.Is4In6() {
		return l.four2[l.findFour(fourOf(a))]
	}
	return l.six2[l.findSix(sixOf(a))]
}

// Block returns the length of the shortest prefix around an address whose addresses all have its
// location: 0 if all addresses of its family have.
func (l *Locator) Block(a netip.Addr) int {
	if a.Is4() || a.Is4In6() {
		x := fourOf(a)
		i := l.findFour(x)
		length := 0
		if i > 0 {
			length = bits.LeadingZeros32(x^(l.four[i]-1)) + 1
		}
		if i+1 < len(l.four) {
			length = max(length, bits.LeadingZeros32(x^l.four[i+1])+1)
		}
		return length
	}
	x := sixOf(a)
	i := l.findSix(x)
	length := 0
	if i > 0 {
		length = x.common(l.six[i].previous()) + 1
	}
	if i+1 < len(l.six) {
		length = max(length, x.common(l.six[i+1])+1)
	}
	return length
}

// previous returns the address before a, which is not the first.
func (a six) previous() six {
	lo, borrow := bits.Sub64(a.lo, 1, 0)
	return six{a.hi - borrow, lo}
}

// common returns how many leading bits two different addresses have in common.
func (a six) common(b six) int {
	if a.hi != b.hi {
		return bits.LeadingZeros64(a.hi ^ b.hi)
	}
	return 64 + bits.LeadingZeros64(a.lo^b.lo)
}

// findFour returns the range that an address is in.
func (l *Locator) findFour(x uint32) int {
	starts, base, n := l.four, 0, len(l.four)
	if l.top != nil {
		base = int(l.top[x>>16])
		n = int(l.top[x>>16+1]) - base + 1
	}
	for n > 1 {
		half := n >> 1
		// No branch depends on the address: none could be predicted.
		_, below := bits.Sub64(uint64(x), uint64(starts[base+half]), 0)
		base += half & (int(below) - 1)
		n -= half
	}
	return base
}

func (l *Locator) findSix(x six) int {
	starts, base, n := l.six, 0, len(l.six)
	for n > 1 {
		half := n >> 1
		s := &starts[base+half]
		_, below := bits.Sub64(x.lo, s.lo, 0)
		_, below = bits.Sub64(x.hi, s.hi, below)
		base += half & (int(below) - 1)
		n -= half
	}
	return base
}
