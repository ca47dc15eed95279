package dnsserver

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh"
	"github.com/fingerpost-dns/fingerpost/dnsserver/probe"
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
					tellAll(t, s, topology, content)
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

// TestAMachineThatFailsBeginsAnewWithItsLatches: a pool was left, which only a person may undo. Whatever fails when the machine
// is told something, the pool stays left, and the failure is counted and logged once.
func TestAMachineThatFailsBeginsAnewWithItsLatches(t *testing.T) {
	topology := &steeringpb.Topology{Datacenters: []*steeringpb.Datacenter{{Name: "dc-a", Servers: []*steeringpb.Server{{Group: "authoritative", Name: "auth-0"}}}}}
	content := steeredContent(t, &steeringpb.Record{
		Source: "payments/app", Host: "app.bank.", Ttl: 5, Policy: steeringpb.Policy_FAILOVER, FailbackManual: true,
		Probes: []*steeringpb.Probe{{Source: "payments/tcp", Interval: 1000, Timeout: 500, FailureThreshold: 1, SuccessThreshold: 1,
			Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: 443}}}},
		Pools: []*steeringpb.Pool{
			{Name: "a", Targets: []*steeringpb.Target{{Address: "192.0.2.1"}}, Probes: []uint32{0}},
			{Name: "b", Targets: []*steeringpb.Target{{Address: "192.0.2.2"}}, Probes: []uint32{0}},
		},
	})
	for name, tc := range map[string]struct {
		memory func() steeringMemory
		fail   func(*steerer)
	}{
		"what the machine can still tell is enough":        {func() steeringMemory { return nil }, func(s *steerer) { s.guard(func() { panic("told something") }) }},
		"what it can't tell is on disk":                    {func() steeringMemory { return keptState{} }, func(s *steerer) { s.machine = nil; s.hear(health.ServerID{}, health.Message{}) }},
		"so it is if the result of a probe is too much":    {func() steeringMemory { return keptState{} }, func(s *steerer) { s.machine = nil; s.deliver(health.CheckID{}, probe.Result{}) }},
		"or that there is a connection":                    {func() steeringMemory { return keptState{} }, func(s *steerer) { s.machine = nil; s.connected(health.ServerID{}) }},
		"or what it is to do now":                          {func() steeringMemory { return keptState{} }, func(s *steerer) { s.machine = nil; s.step() }},
		"or what it is to save":                            {func() steeringMemory { return keptState{} }, func(s *steerer) { s.machine = nil; s.save() }},
		"it may fail again and again within a short while": {func() steeringMemory { return keptState{} }, func(s *steerer) { s.machine = nil; s.step(); s.machine = nil; s.step() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, _ := testSteerer(t, tc.memory())
				var logged []string
				s.opts.Log = funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{})
				tellAll(t, s, topology, content)
				see := func(a health.State) {
					s.step()
					for i, id := range s.machine.Checks("payments/app") { // in the order of the pools
						outcome := health.Up
						if i == 0 {
							outcome = a
						}
						s.machine.Result(time.Now(), id, health.Result{Outcome: outcome})
					}
					for range 5 {
						time.Sleep(time.Second)
						s.step()
					}
				}
				pool := func() string { return strings.Join(s.sources["payments/app"].report.GetPools(), ",") }
				if see(health.Up); pool() != "a" {
					t.Fatalf("on a good day it answers with pool %q", pool())
				}
				if see(health.Down); pool() != "b" {
					t.Fatalf("with the first pool down it answers with pool %q", pool())
				}
				s.save()
				logged = nil
				tc.fail(s)
				if pool() != "b" {
					t.Errorf("when it fails it answers with pool %q", pool())
				}
				if see(health.Up); pool() != "b" {
					t.Errorf("after it has failed it answers with pool %q, which nobody has let in", pool())
				}
				failures := 0
				for _, line := range logged {
					if strings.Contains(line, "begins anew") {
						failures++
					}
				}
				if failures != 1 {
					t.Errorf("the failure is logged %d times: %q", failures, logged)
				}
				if s.panics == 0 {
					t.Error("it is not counted")
				}
			})
		})
	}
}

// tellAll tells a steerer that has just begun of the topology and its zone.
func tellAll(t *testing.T, s *steerer, topology *steeringpb.Topology, content *zone.Content) {
	t.Helper()
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
	s.zoneChanged(content.Apex(), nil, content, false)
	s.step()
}

// TestWhatAlwaysFailsIsLeftAlone: a server that can't decide any more answers on as it did, tries again later, and stays ready.
func TestWhatAlwaysFailsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := testSteerer(t, nil)
		s.step()
		time.Sleep(time.Minute)
		s.step()
		if err := s.ready(); err != nil {
			t.Fatal(err)
		}
		for range maxRestarts + 1 {
			s.guard(func() { panic("always") })
		}
		if want := time.Now().Add(longPause); !s.pause.Equal(want) {
			t.Fatalf("it is left alone until %s, wanted %s", s.pause, want)
		}
		told := false
		if s.guard(func() { told = true }); told {
			t.Error("it is told something while it is left alone")
		}
		if s.step(); s.pause.IsZero() {
			t.Error("it decides while it is left alone")
		}
		if err := s.ready(); err != nil {
			t.Errorf("clients are sent elsewhere: %v", err)
		}
		time.Sleep(longPause)
		s.step()
		if s.guard(func() { told = true }); !told || !s.pause.IsZero() {
			t.Error("it is left alone for longer")
		}
	})
}

// TestAServerWithoutSteeredNamesHearsNobody: of a group that does not vote, such as that of the root, no connection is wanted.
func TestAServerWithoutSteeredNamesHearsNobody(t *testing.T) {
	for group, want := range map[string]int{"authoritative": 2, "root": 0} {
		t.Run(group, func(t *testing.T) {
			var peers []mesh.Peer
			s, err := newSteerer(steererOptions{
				Self: health.ServerID{Datacenter: "dc-a", Group: group, Name: "0"}, View: &zone.View{}, SetPeers: func(all []mesh.Peer) { peers = all },
			})
			if err != nil {
				t.Fatal(err)
			}
			body, err := proto.Marshal(&steeringpb.Topology{Datacenters: []*steeringpb.Datacenter{
				{Name: "dc-a", Servers: []*steeringpb.Server{{Group: "authoritative", Name: "0", Mesh: "192.0.2.1:1"}}},
				{Name: "dc-b", Rank: 1, Servers: []*steeringpb.Server{{Group: "authoritative", Name: "0", Mesh: "192.0.2.2:1"}}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.document(documentTopology, body); err != nil {
				t.Fatal(err)
			}
			if len(peers) != want {
				t.Errorf("its peers are %v", peers)
			}
		})
	}
}
