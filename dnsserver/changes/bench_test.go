package changes

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
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

// BenchmarkTell is from a change of the answers to the agent that hears of it, over the loopback, by mutual TLS.
func BenchmarkTell(b *testing.B) {
	ca := controltest.NewAuthority(b)
	l := NewLog()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(control.ServerOptions(ca.Credentials(servers.URI()))...)
	NewService(l, func(zone.Name) []zone.Name { return nil }, logr.Discard()).Register(server)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	defer server.Stop()
	connected, heard := make(chan struct{}, 1), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Watch(ctx, WatchOptions{
			Servers: []string{listener.Addr().String()}, Credentials: ca.Credentials(resolvers.URI()), Log: logr.Discard(),
			OnConnected: func(string, bool) { connected <- struct{}{} },
			OnChanges:   func(string, []Change, bool) { heard <- struct{}{} },
		})
	}()
	<-connected
	name := mustName(b, "app.bank.")
	var all []time.Duration
	for i := uint64(1); b.Loop(); i++ {
		b.StopTimer()
		time.Sleep(2 * gap) // else the next change waits for others to come with it
		began := time.Now()
		b.StartTimer()
		l.Add(Change{Name: name, Apex: name.Parent(), Before: []uint64{i}, After: i + 1, At: began})
		<-heard
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
	cancel()
	<-ended
}
