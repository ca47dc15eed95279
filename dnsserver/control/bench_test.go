package control

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// station is a hub and a server on two ends of a socket, without what tests watch.
type station struct {
	hub     *Hub
	addr    string
	ca      *authority
	changed chan struct{} // one element: a zone was acked, or the server synced
}

func newStation(b *testing.B) *station {
	b.Helper()
	s := &station{ca: newAuthority(b), changed: make(chan struct{}, 1)}
	signal := func() {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
	s.hub = NewHub(HubOptions{Cluster: here, Log: logr.Discard(), OnZone: func(zone.Name) { signal() }, OnServer: func(ServerID) { signal() }})
	addr, stop, err := serve(s.ca.credentials(b, HubURI()), "127.0.0.1:0", func(g *grpc.Server) { s.hub.Register(g) })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(stop)
	s.addr = addr
	return s
}

// connect starts a server with the replica and returns how to stop it.
func (s *station) connect(b *testing.B, r *memory) (stop func()) {
	b.Helper()
	signal := func(State) {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
	c, err := NewClient(ClientOptions{
		Hubs: []string{s.addr}, Name: "one", Credentials: s.ca.credentials(b, group.URI()), Replica: r, Log: logr.Discard(), OnState: signal,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func (s *station) await(holds func() bool) {
	for !holds() {
		<-s.changed
	}
}

func (s *station) inSync() bool {
	all := s.hub.Servers()
	return len(all) == 1 && all[0].Wanted > 0 && all[0].Wanted == all[0].Current
}

// BenchmarkChange is one record changed in a zone, from Publish to the ack of one server.
func BenchmarkChange(b *testing.B) {
	for _, hosts := range []int{100, 60_000} {
		b.Run(fmt.Sprintf("records=%d", hosts), func(b *testing.B) {
			s := newStation(b)
			c := content("test", hosts, nil)
			s.hub.Lead(1)
			s.hub.Publish(published(c, 1))
			s.hub.SetComplete()
			defer s.connect(b, newMemory(newBell()))()
			s.await(s.inSync)
			serial := uint32(1)
			owner := mustName("h7.test")
			b.ReportAllocs()
			for b.Loop() {
				serial++
				var err error
				c, err = c.With(zone.NewNode(owner, zone.NewRRset(zone.TypeA, 60, []byte{10, 9, byte(serial >> 8), byte(serial)})))
				if err != nil {
					b.Fatal(err)
				}
				s.hub.Publish(published(c, serial))
				s.await(s.inSync)
			}
			if sent := s.hub.Sent(); sent.Changes != uint64(serial-1) || sent.Whole != 1 {
				b.Errorf("%d changes were sent as %+v", serial-1, sent)
			}
		})
	}
}

// BenchmarkJoin is a server that connects, from dialling until the hub knows that it is
// current: with nothing, or with everything.
func BenchmarkJoin(b *testing.B) {
	for _, zones := range []int{1000, 10_000} {
		all := manyZones(zones)
		s := newStation(b)
		s.hub.Lead(1)
		for _, z := range all {
			s.hub.Publish(z)
		}
		s.hub.SetComplete()
		join := func(r *memory) {
			stop := s.connect(b, r)
			s.await(s.inSync)
			stop()
			s.await(func() bool { return len(s.hub.Servers()) == 0 })
		}
		b.Run(fmt.Sprintf("zones=%d/empty", zones), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				join(newMemory(newBell()))
			}
		})
		b.Run(fmt.Sprintf("zones=%d/current", zones), func(b *testing.B) {
			r := newMemory(newBell())
			for _, z := range all {
				r.put(z, here)
			}
			b.ReportAllocs()
			for b.Loop() {
				join(r)
			}
		})
	}
}
