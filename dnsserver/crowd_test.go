package dnsserver

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestCrowdAgreesWithItsDefinition compares it with one that looks at all streams each time.
func TestCrowdAgreesWithItsDefinition(t *testing.T) {
	type state struct {
		count int // of streams
		last  int // when something happened
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		var w crowd
		active := map[*stream]int{} // when each was active
		clients := map[netip.Addr]*state{}
		var gone []*stream
		happens := func(c *stream, now, more int) {
			s := clients[c.client]
			if s == nil {
				s = &state{}
				clients[c.client] = s
			}
			s.count, s.last = s.count+more, now
			if s.count == 0 {
				delete(clients, c.client)
			}
		}
		for now := range 1000 {
			streams := slices.SortedFunc(maps.Keys(active), func(a, b *stream) int { return active[a] - active[b] })
			switch op := r.IntN(10); {
			case op < 4:
				c := &stream{client: netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(1 + int(seed)))})}
				w.add(c)
				active[c] = now
				happens(c, now, 1)
			case len(streams) == 0:
				if w.evict() != nil {
					t.Fatal("an empty crowd has a stream")
				}
			case op < 7:
				c := streams[r.IntN(len(streams))]
				w.touch(c)
				active[c] = now
				happens(c, now, 0)
			default:
				want := slices.MinFunc(streams, func(a, b *stream) int {
					x, y := clients[a.client], clients[b.client]
					return cmp.Or(y.count-x.count, x.last-y.last, active[a]-active[b])
				})
				if op == 9 {
					want = streams[r.IntN(len(streams))]
					w.remove(want)
				} else if c := w.evict(); c != want {
					t.Fatalf("seed %d, step %d: one of %s is evicted, wanted one of %s", seed, now, c.client, want.client)
				}
				delete(active, want)
				happens(want, now, -1)
				gone = append(gone, want)
			}
			if len(gone) > 0 { // nothing happens to those that are out
				c := gone[r.IntN(len(gone))]
				w.touch(c)
				w.remove(c)
			}
			if w.size != len(active) || len(w.clients) != len(clients) {
				t.Fatalf("seed %d, step %d: %d streams of %d clients, wanted %d of %d", seed, now, w.size, len(w.clients), len(active), len(clients))
			}
			for address, s := range clients {
				if w.of(address) != s.count {
					t.Fatalf("seed %d, step %d: %s has %d streams, wanted %d", seed, now, address, w.of(address), s.count)
				}
			}
		}
		all := map[*stream]bool{}
		for c := range w.all() {
			all[c] = true
		}
		if len(all) != len(active) {
			t.Errorf("seed %d: all are %d streams, wanted %d", seed, len(all), len(active))
		}
	}
}
