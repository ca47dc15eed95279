package zone

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/gaissmai/bart"
	"pgregory.net/rapid"
)

// drawNetworks draws networks that often hold or neighbour one another.
func drawNetworks(t *rapid.T, locations int) []Place {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Place {
		location := uint16(rapid.IntRange(0, locations-1).Draw(t, "location"))
		if rapid.Bool().Draw(t, "four") {
			b := [4]byte{
				rapid.SampledFrom([]byte{0, 10, 255}).Draw(t, "a"), rapid.SampledFrom([]byte{0, 1, 2, 255}).Draw(t, "b"),
				rapid.SampledFrom([]byte{0, 3, 255}).Draw(t, "c"), rapid.Byte().Draw(t, "d"),
			}
			return Place{netip.PrefixFrom(netip.AddrFrom4(b), rapid.IntRange(0, 32).Draw(t, "bits")), location}
		}
		b := [16]byte{0: rapid.SampledFrom([]byte{0, 0x20, 255}).Draw(t, "a")}
		for i := 1; i < 16; i++ {
			b[i] = rapid.SampledFrom([]byte{0, 1, 255}).Draw(t, "b")
		}
		return Place{netip.PrefixFrom(netip.AddrFrom16(b), rapid.IntRange(0, 128).Draw(t, "bits")), location}
	}), 0, 100).Draw(t, "networks")
}

// naive locates by looking at every network.
func naive(places []Place, overlap Overlap, a netip.Addr) uint16 {
	location, longest := uint16(0), -1
	for _, p := range places {
		switch network := p.Network.Masked(); {
		case !network.Contains(a):
		case overlap == Lowest && (longest < 0 || p.Location < location), overlap == Longest && network.Bits() > longest:
			location, longest = p.Location, network.Bits()
		}
	}
	return location
}

func TestLocatorAgreesWithLookingAtEveryNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const locations = 5
		places := drawNetworks(t, locations)
		overlap := rapid.SampledFrom([]Overlap{Longest, Lowest}).Draw(t, "overlap")
		l, err := NewLocator(locations, places, overlap)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "index") {
			l.indexFour(0)
		}
		var ask []netip.Addr
		for _, p := range places {
			first, last := bounds(p.Network.Masked())
			for _, x := range []six{first, last} {
				if p.Network.Addr().Is4() {
					for d := -1; d <= 1; d++ {
						v := uint32(x.lo) + uint32(d)
						ask = append(ask, netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}))
					}
					continue
				}
				a := sixAddr(x)
				ask = append(ask, a)
				if n := a.Next(); n.IsValid() {
					ask = append(ask, n)
				}
				if n := a.Prev(); n.IsValid() {
					ask = append(ask, n)
				}
			}
		}
		ask = append(ask, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
		for _, a := range ask {
			if a.Is4In6() {
				continue // is asked as IPv4
			}
			want := naive(places, overlap, a)
			if got := l.Locate(a); got != want {
				t.Fatalf("%s is at %d, wanted %d", a, got, want)
			}
			holdsBlock(t, l, places, overlap, a)
		}
	})
}

func sixAddr(x six) netip.Addr {
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(x.hi>>(56-8*i)), byte(x.lo>>(56-8*i))
	}
	return netip.AddrFrom16(b)
}

// holdsBlock checks that a block has one location, and that the block twice as large has not.
func holdsBlock(t *rapid.T, l *Locator, places []Place, overlap Overlap, a netip.Addr) {
	bits := l.Block(a)
	uniform := func(block netip.Prefix) bool {
		first, last := bounds(block)
		// Locations change at the bounds of networks only.
		at := []netip.Addr{block.Addr()}
		for _, p := range places {
			if network := p.Network.Masked(); block.Overlaps(network) {
				from, to := bounds(network)
				for _, x := range []six{from, to} {
					if !x.less(first) && !last.less(x) {
						at = append(at, addrOf(x, a.Is4()))
					}
					if x, ok := x.next(a.Is4()); ok && !x.less(first) && !last.less(x) {
						at = append(at, addrOf(x, a.Is4()))
					}
				}
			}
		}
		for _, b := range at {
			if !a.Is4() && b.Is4In6() {
				continue
			}
			if naive(places, overlap, b) != naive(places, overlap, a) {
				return false
			}
		}
		return true
	}
	if block := netip.PrefixFrom(a, bits).Masked(); !uniform(block) {
		t.Fatalf("the block %s of %s has several locations", block, a)
	}
	if bits > 0 {
		if block := netip.PrefixFrom(a, bits-1).Masked(); uniform(block) {
			t.Fatalf("the block of %s may be %s", a, block)
		}
	}
}

func addrOf(x six, four bool) netip.Addr {
	if four {
		return netip.AddrFrom4([4]byte{byte(x.lo >> 24), byte(x.lo >> 16), byte(x.lo >> 8), byte(x.lo)})
	}
	return sixAddr(x)
}

func TestLocatorRefusesWhatIsNoNetwork(t *testing.T) {
	for sentence, p := range map[string]Place{
		"a prefix that is none":           {},
		"a location that there is not":    {netip.MustParsePrefix("10.0.0.0/8"), 3},
		"IPv4 addresses and IPv6 mixed":   {netip.MustParsePrefix("::ffff:0:0/95"), 1},
		"a prefix longer than an address": {netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33), 1},
	} {
		if _, err := NewLocator(3, []Place{p}, Longest); err == nil {
			t.Errorf("%s is taken", sentence)
		}
	}
	l, err := NewLocator(3, []Place{{netip.MustParsePrefix("::ffff:10.0.0.0/104"), 1}}, Longest)
	if err != nil || l.Locate(netip.MustParseAddr("10.1.2.3")) != 1 || l.Locate(netip.MustParseAddr("::ffff:10.1.2.3")) != 1 {
		t.Errorf("IPv4 in IPv6 form is not IPv4: %v", err)
	}
}

// manyNetworks are so many /24 and /48 of some places.
func manyNetworks(count int) []Place {
	var places []Place
	for i := range count {
		places = append(places,
			Place{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 24), uint16(1 + i*7%8)},
			Place{netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i)}), 48), uint16(1 + i*7%8)})
	}
	return places
}

func BenchmarkLocate(b *testing.B) {
	for _, count := range []int{16, 200, 10000} {
		places := manyNetworks(count)
		l, err := NewLocator(9, places, Longest)
		if err != nil {
			b.Fatal(err)
		}
		trie := &bart.Table[uint16]{}
		for _, p := range places {
			trie.Insert(p.Network, p.Location)
		}
		r := rand.New(rand.NewPCG(1, 2))
		var four, six [4096]netip.Addr
		for i := range four {
			n := r.IntN(count)
			four[i] = netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(i)})
			six[i] = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(n >> 8), byte(n), 15: byte(i)})
		}
		for name, addrs := range map[string]*[4096]netip.Addr{"IPv4": &four, "IPv6": &six} {
			b.Run(fmt.Sprintf("%s/networks=%d/ranges", name, count), func(b *testing.B) {
				i := 0
				for b.Loop() {
					l.Locate(addrs[i%len(addrs)])
					i++
				}
			})
			b.Run(fmt.Sprintf("%s/networks=%d/bart", name, count), func(b *testing.B) {
				i := 0
				for b.Loop() {
					trie.Lookup(addrs[i%len(addrs)])
					i++
				}
			})
		}
	}
}
