package dnsserver

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// steeredContent is the zone bank with app.bank as the record says.
func steeredContent(t *testing.T, r *steeringpb.Record) *zone.Content {
	t.Helper()
	rdata, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	const apex = zone.Name("\x04bank\x00")
	soa := zone.SOA{MName: apex, RName: apex, Minimum: 60}
	c, err := zone.NewContent(apex, []zone.Node{
		zone.NewNode(apex, zone.NewRRset(zone.TypeSOA, 60, soa.Pack())),
		zone.NewNode("\x03app\x04bank\x00", zone.NewRRset(zone.TypeSteered, 60, rdata)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAServerThatRestartsAloneAnswers: no peer is there to tell what it missed.
func TestAServerThatRestartsAloneAnswers(t *testing.T) {
	topology := &steeringpb.Topology{Datacenters: []*steeringpb.Datacenter{
		{Name: "dc-a", Servers: []*steeringpb.Server{{Group: "authoritative", Name: "auth-0"}}},
		{Name: "dc-b", Rank: 1, Servers: []*steeringpb.Server{{Group: "authoritative", Name: "auth-0"}}},
	}}
	for name, tc := range map[string]struct {
		policy steeringpb.Policy
		away   time.Duration
		early  bool
	}{
		"at once, where a latch does not matter":             {steeringpb.Policy_NEAREST, time.Minute, true},
		"not at once, if it was away for long":               {steeringpb.Policy_NEAREST, time.Hour, false},
		"not at once, where another may have failed it over": {steeringpb.Policy_FAILOVER, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content := steeredContent(t, &steeringpb.Record{
					Source: "payments/app", Host: "app.bank.", Ttl: 5, Policy: tc.policy,
					Probes: []*steeringpb.Probe{{Source: "payments/tcp", Interval: 1000, Timeout: 500, FailureThreshold: 1, SuccessThreshold: 1,
						Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: 443}}}},
					Pools: []*steeringpb.Pool{
						{Name: "a", Datacenter: "dc-a", Targets: []*steeringpb.Target{{Address: "192.0.2.1"}}, Probes: []uint32{0}},
						{Name: "b", Datacenter: "dc-b", Targets: []*steeringpb.Target{{Address: "192.0.2.2"}}, Probes: []uint32{0}},
					},
				})
				disk := keptState{}
				start := func() *steerer {
					s, _ := testSteerer(t, disk)
					served, err := zone.NewServed(content, zone.Version{Serial: 1})
					if err != nil {
						t.Fatal(err)
					}
					s.opts.View.Update([]*zone.Served{served}, nil)
					body, err := proto.Marshal(topology)
					if err != nil {
						t.Fatal(err)
					}
					if err := s.document(documentTopology, body); err != nil {
						t.Fatal(err)
					}
					s.zoneChanged(content.Apex(), nil, content)
					s.step()
					return s
				}
				answers := func(s *steerer) bool {
					for _, src := range s.sources {
						for _, n := range src.names {
							return n.result != nil
						}
					}
					return false
				}
				s := start()
				if answers(s) {
					t.Error("it answers before it knows anything")
				}
				time.Sleep(3 * time.Second)
				for _, id := range s.machine.Checks("payments/app") {
					s.machine.Result(time.Now(), id, health.Result{Outcome: health.Up})
				}
				if s.step(); !answers(s) {
					t.Fatal("it does not answer after 3 s")
				}
				s.save()
				time.Sleep(tc.away)
				s = start()
				if got := answers(s); got != tc.early {
					t.Errorf("answers at once: %t", got)
				}
				time.Sleep(3 * time.Second)
				if s.step(); !answers(s) {
					t.Error("it never answers")
				}
			})
		})
	}
}
