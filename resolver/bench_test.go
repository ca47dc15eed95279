package resolver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// tell reports times in ms.
func tell(b *testing.B, of string, took []float64) {
	b.Helper()
	if len(took) == 0 {
		b.Fatalf("there are no times %s", of)
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2], of+"p50-ms")
	b.ReportMetric(took[len(took)*99/100], of+"p99-ms")
	b.ReportMetric(took[len(took)-1], of+"worst-ms")
}

// milliseconds is a length of time.
func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// BenchmarkFlush tells how long it takes from the call until the engine has the new answer of one name whose TTL is 60 s, and
// of 200 names at once, all of them cached, beside 100,000 other names.
func BenchmarkFlush(b *testing.B) {
	w := newWorld(b)
	var many []changes.Change
	for i := range 200 {
		many = append(many, changes.Change{Name: mustZoneName(b, fmt.Sprintf("n%d.w.pay.corp.", i))})
	}
	for _, p := range products {
		b.Run("engine="+string(p), func(b *testing.B) {
			c := w.config()
			c.CacheMiB = 256
			s := startPool(b, p, c)
			s.fill(b, 100_000)
			for _, all := range [][]changes.Change{app(b), many} {
				b.Run(fmt.Sprintf("names=%d", len(all)), func(b *testing.B) {
					var took []float64
					for n := 0; b.Loop(); n++ {
						b.StopTimer()
						for _, c := range all {
							s.ask(c.Name.String())
						}
						w.move(payCorp, fmt.Sprintf("10.9.%d.%d", n/200%256, n%200+1), 1, 2)
						b.StartTimer()
						began := time.Now()
						if outcomes := s.Flush(b.Context(), all); slices.Contains(outcomes, Unconfirmed) {
							b.Fatal(outcomes)
						}
						took = append(took, milliseconds(time.Since(began)))
					}
					tell(b, "", took)
				})
			}
		})
	}
}

// fill has the engine cache so many names.
func (s *member) fill(b *testing.B, names int) {
	b.Helper()
	x := newExchange()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(names) {
					return
				}
				ctx, cancel := context.WithTimeout(b.Context(), patience)
				_, err := x.ask(ctx, path{to: s.at}, question(fmt.Sprintf("fill-%d.w.deep.pay.corp.", n), dns.TypeA, true))
				cancel()
				if err != nil {
					b.Errorf("filling the cache: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}

// poll asks a server for a name's address every millisecond until ctx ends, and tells f what it says.
func poll(ctx context.Context, at netip.AddrPort, name string, recursive bool, f func(address string, took time.Duration)) {
	x := newExchange()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		one, cancel := context.WithTimeout(ctx, recursionTimeout)
		reply, err := x.ask(one, path{to: at}, question(name, dns.TypeA, recursive))
		cancel()
		if err == nil {
			f(said(reply), time.Since(began))
		}
		<-tick.C
	}
}

// switchable is a target of probes over HTTP, which is well or not.
type switchable struct {
	sick   atomic.Bool
	mu     sync.Mutex
	denied []time.Time // when it said so
}

// startSwitchable serves one at an address until the benchmark ends.
func startSwitchable(b *testing.B, address string) *switchable {
	b.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	t := &switchable{}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if t.sick.Load() {
			t.mu.Lock()
			t.denied = append(t.denied, time.Now())
			t.mu.Unlock()
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = server.Serve(l) }()
	b.Cleanup(func() { _ = server.Close() })
	return t
}

// BenchmarkSwitch tells when a client who asks every millisecond sees a failover of a name whose TTL is 60 s: after the probe
// that decided, after the first authority has switched, and after the last one has.
func BenchmarkSwitch(b *testing.B) {
	const name = "app.pay.corp."
	for _, p := range products {
		b.Run("engine="+string(p), func(b *testing.B) {
			target := startSwitchable(b, "10.1.9.1:80")
			startSwitchable(b, "10.2.9.1:80")
			r := failover(name, 80, steeringpb.Vantage_QUORUM, "10.1.9.1", "10.2.9.1")
			r.Ttl, r.Probes[0].Type = 60, &steeringpb.Probe_Http{Http: &steeringpb.Http{Path: "/", Port: 80}}
			w := newSteeredWorld(b, r)
			s := w.listenTo(p, nil)
			var probe, first, last []float64
			for b.Loop() {
				b.StopTimer()
				target.sick.Store(false)
				w.awaitEdges(name, "10.1.9.1", 1, 2)
				eventually(b, "clients see it", func() bool { return s.calm() && s.address(name) == "10.1.9.1" })
				ctx, cancel := context.WithCancel(b.Context())
				var seen [3]atomic.Int64 // when it was seen first: by a client, and at authorities
				var all sync.WaitGroup
				for i, at := range []netip.AddrPort{s.at, w.edges[1].at, w.edges[2].at} {
					all.Go(func() {
						poll(ctx, at, name, i == 0, func(address string, _ time.Duration) {
							if address == "10.2.9.1" {
								seen[i].CompareAndSwap(0, time.Now().UnixNano())
							}
						})
					})
				}
				target.mu.Lock()
				target.denied = nil
				target.mu.Unlock()
				b.StartTimer()
				target.sick.Store(true)
				eventually(b, "clients and authorities have switched", func() bool { return seen[0].Load() > 0 && seen[1].Load() > 0 && seen[2].Load() > 0 })
				b.StopTimer()
				cancel()
				all.Wait()
				since := func(nanoseconds int64) float64 {
					return max(0, milliseconds(time.Duration(seen[0].Load()-nanoseconds)))
				}
				target.mu.Lock()
				probe = append(probe, since(target.denied[0].UnixNano()))
				target.mu.Unlock()
				first = append(first, since(min(seen[1].Load(), seen[2].Load())))
				last = append(last, since(max(seen[1].Load(), seen[2].Load())))
				b.StartTimer()
			}
			tell(b, "probe-", probe)
			tell(b, "first-", first)
			tell(b, "last-", last)
		})
	}
}

// BenchmarkTenThousandNames tells how long it takes until 10,000 names that move at once, of which clients have asked for 2,000,
// have no old answer in the cache any more, and what clients who ask for another name wait meanwhile.
func BenchmarkTenThousandNames(b *testing.B) {
	const names, asked = 10_000, 2_000
	for _, p := range products {
		b.Run("engine="+string(p), func(b *testing.B) {
			target := startSwitchable(b, "10.1.9.1:80")
			startSwitchable(b, "10.2.9.1:80")
			all := make([]*steeringpb.Record, names)
			for i := range all {
				all[i] = failover(fmt.Sprintf("h%d.pay.corp.", i), 80, steeringpb.Vantage_QUORUM, "10.1.9.1", "10.2.9.1")
				all[i].Probes[0].Type, all[i].Probes[0].Interval, all[i].Probes[0].Timeout = &steeringpb.Probe_Http{Http: &steeringpb.Http{Path: "/", Port: 80}}, 1000, 900
			}
			w := newSteeredWorld(b, all...)
			last := fmt.Sprintf("h%d.pay.corp.", names-1)
			s := w.listenTo(p, func(do *pool.Pool) { do.CacheMiB = 128 })
			var settled, old, waits []float64
			for b.Loop() {
				b.StopTimer()
				target.sick.Store(false)
				w.awaitEdges(last, "10.1.9.1", 1, 2)
				eventually(b, "all is calm", s.calm)
				for i := range asked {
					s.ask(fmt.Sprintf("h%d.pay.corp.", i*names/asked))
				}
				s.ask("short.deep.pay.corp.")
				ctx, cancel := context.WithCancel(b.Context())
				var others sync.WaitGroup
				others.Go(func() {
					poll(ctx, s.at, "app.deep.pay.corp.", true, func(_ string, took time.Duration) { waits = append(waits, milliseconds(took)) })
				})
				before := s.looks()
				b.StartTimer()
				target.sick.Store(true)
				w.awaitEdges("h0.pay.corp.", "10.2.9.1", 1)
				began := time.Now()
				eventually(b, "all have been looked at", func() bool { return s.looks() >= before+names && s.calm() })
				settled = append(settled, milliseconds(time.Since(began)))
				b.StopTimer()
				cancel()
				others.Wait()
				stale := 0.0
				for i := range asked {
					if s.address(fmt.Sprintf("h%d.pay.corp.", i*names/asked)) != "10.2.9.1" {
						stale++
					}
				}
				old = append(old, stale)
				b.StartTimer()
			}
			tell(b, "settled-", settled)
			tell(b, "wait-", waits)
			b.ReportMetric(slices.Max(old), "old-answers")
		})
	}
}

// looks counts names that were looked at and are settled.
func (s *member) looks() uint64 {
	outcomes := s.Report().Flush.Outcomes
	return outcomes[string(Confirmed)] + outcomes[string(NotCached)]
}

// BenchmarkMissWithoutADatacenter tells how long clients wait for names that are in nobody's cache when all servers of one
// datacenter take questions without a word.
func BenchmarkMissWithoutADatacenter(b *testing.B) {
	for _, p := range products {
		b.Run("engine="+string(p), func(b *testing.B) {
			w := newWorld(b)
			s := startPool(b, p, w.config())
			for _, apex := range levels[1:] {
				s.ask("app." + apex)
			}
			for _, a := range w.datacenter(2) {
				b.Cleanup(w.blackhole(a))
			}
			var took []float64
			failed := 0
			for n := 0; b.Loop(); n++ {
				began := time.Now()
				ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
				reply, err := ask(ctx, netip.Addr{}, s.at, question(fmt.Sprintf("n%d.%s", n, levels[1+n%3]), dns.TypeA, true))
				cancel()
				if err != nil || reply.Rcode != dns.RcodeNameError {
					failed++
				}
				took = append(took, time.Since(began).Seconds()*1000)
			}
			tell(b, "", took)
			b.ReportMetric(float64(failed), "failed")
		})
	}
}
