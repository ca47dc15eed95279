package changes

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// BenchmarkTake is what aliases cost when a zone is loaded, one in ten of whose names is one.
func BenchmarkTake(b *testing.B) {
	for _, names := range []int{1e4, 1e6} {
		apex := mustName(b, "bank.")
		nodes := make([]zone.Node, 0, names)
		for i := range names {
			set := zone.NewRRset(zone.TypeA, 60, []byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			if i%10 == 0 {
				set = zone.NewRRset(zone.TypeCNAME, 60, []byte(mustName(b, fmt.Sprintf("h%d.bank.", i+1))))
			}
			nodes = append(nodes, zone.NewNode(mustName(b, fmt.Sprintf("h%d.bank.", i)), set))
		}
		c, err := zone.NewContent(apex, nodes)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NewAliases(logr.Discard()).Take(&Edit{Apex: apex, After: c})
			}
		})
	}
}

// BenchmarkAdd is what telling of one name more costs steering, with nobody and with ten who watch.
func BenchmarkAdd(b *testing.B) {
	for _, watchers := range []int{0, 10} {
		b.Run(fmt.Sprintf("watchers=%d", watchers), func(b *testing.B) {
			l := NewLog()
			names := make([]zone.Name, 10000)
			for i := range names {
				names[i] = mustName(b, fmt.Sprintf("h%d.bank.", i))
			}
			ended := make(chan struct{})
			for range watchers {
				go func() {
					at := cursor{}
					for {
						_, next, _, wake := l.since(time.Now(), at, maxChanges)
						at = next
						if wake == nil {
							continue
						}
						select {
						case <-wake:
						case <-ended:
							return
						}
					}
				}()
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				l.Add(Change{Name: names[i%len(names)], Before: []uint64{uint64(i)}, After: uint64(i + 1), At: time.Now()})
				i++
			}
			close(ended)
		})
	}
}
