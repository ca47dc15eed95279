package dnsserver

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh"
	"github.com/fingerpost-dns/fingerpost/dnsserver/probe"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// manyNames is a steerer, which nobody runs, of so many names in one zone, with a target in each of two datacenters. So
// many names share one.
type manyNames struct {
	*steerer
	names   int
	checks  []health.Check
	reports map[string]int // how often each kind was told
	view    *zone.View
	apex    zone.Name
}

func newManyNames(t testing.TB, names, sharing int) *manyNames {
	t.Helper()
	m := &manyNames{names: names, reports: map[string]int{}, view: &zone.View{}}
	var err error
	m.steerer, err = newSteerer(steererOptions{
		Self: health.ServerID{Datacenter: "dc-a", Group: "g", Name: "ns1"}, View: m.view, Log: logr.Discard(),
		Report: func(kind string, _ []byte) error {
			m.reports[kind]++
			return nil
		},
		Send: func([]health.Envelope) {}, SetPeers: func([]mesh.Peer) {}, SendOverrides: func([][]byte) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.apex, err = zone.ParseName("bank.", ""); err != nil {
		t.Fatal(err)
	}
	soa := zone.SOA{MName: m.apex, RName: m.apex, Minimum: 300}
	nodes := []zone.Node{zone.NewNode(m.apex, zone.NewRRset(zone.TypeSOA, 300, soa.Pack()))}
	for i := range names {
		owner := m.owner(t, i)
		target := i / sharing
		pool := func(dc string, net int) *steeringpb.Pool {
			return &steeringpb.Pool{
				Name: dc, Datacenter: dc, MinHealthy: 1, Probes: []uint32{0},
				Targets: []*steeringpb.Target{{Address: fmt.Sprintf("10.%d.%d.%d", net, target>>8, target&255), Weight: 1}},
			}
		}
		rdata, err := proto.Marshal(&steeringpb.Record{
			Source: fmt.Sprintf("bank/h%d", i), Host: owner.String(), Ttl: 30, Policy: steeringpb.Policy_NEAREST,
			Pools: []*steeringpb.Pool{pool("dc-a", 1), pool("dc-b", 2)},
			Probes: []*steeringpb.Probe{{
				Source: "bank/tcp", Interval: 10_000, Timeout: 1000, FailureThreshold: 3, SuccessThreshold: 2, Vantage: steeringpb.Vantage_LOCAL,
				Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: 80}},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, zone.NewNode(owner, zone.NewRRset(zone.TypeSteered, 0, rdata)))
	}
	content, err := zone.NewContent(m.apex, nodes)
	if err != nil {
		t.Fatal(err)
	}
	served, err := zone.NewServed(content, zone.Version{Serial: 1, Digest: content.Digest()})
	if err != nil {
		t.Fatal(err)
	}
	m.view.Update([]*zone.Served{served}, nil)
	topology, err := proto.Marshal(&steeringpb.Topology{Key: []byte("key"), Datacenters: []*steeringpb.Datacenter{
		{Name: "dc-a", Rank: 1, Servers: []*steeringpb.Server{{Group: "g", Name: "ns1"}}}, {Name: "dc-b", Rank: 2},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.document(documentTopology, topology); err != nil {
		t.Fatal(err)
	}
	m.zoneChanged(m.apex, nil, content, false)
	out, _, _, _ := m.decide() //nolint:dogsled // what is to be probed is all that matters
	m.checks = out.Run
	for _, c := range m.checks {
		m.deliver(c.ID, probe.Result{Outcome: probe.Up, Latency: time.Millisecond})
	}
	m.settle()
	return m
}

func (m *manyNames) owner(t testing.TB, i int) zone.Name {
	t.Helper()
	owner, err := zone.ParseName(fmt.Sprintf("h%d.bank.", i), "")
	if err != nil {
		t.Fatal(err)
	}
	return owner
}

// settle does all that is to be done now.
func (m *manyNames) settle() {
	for {
		m.step()
		m.mu.Lock()
		rest := len(m.dirty)
		m.reported = time.Time{}
		told := len(m.unreports)+len(m.shown) == 0
		m.mu.Unlock()
		if rest == 0 && told {
			return
		}
	}
}

// A target that fails now and then, and never so often that it counts, is nothing that anybody has to be told.
func TestAMillionResultsThatMoveNothingAreToldToNobody(t *testing.T) {
	m := newManyNames(t, 200, 1)
	clear(m.reports)
	m.save()
	failures := 0
	for i := range 1_000_000 {
		r := probe.Result{Outcome: probe.Up, Latency: time.Millisecond, Smoothed: time.Millisecond}
		if round := i / len(m.checks); (round+i)%4 < 2 {
			r = probe.Result{Outcome: probe.Down, Code: probe.Refused, Reason: "connection refused"}
			failures++
		}
		m.deliver(m.checks[i%len(m.checks)].ID, r)
		if i%10 == 0 {
			m.step()
		}
	}
	m.settle()
	if len(m.reports) > 0 {
		t.Errorf("after %d failures that count for nothing the hub was told %v", failures, m.reports)
	}
}

// BenchmarkResult takes results that move nothing, each with all that follows.
func BenchmarkResult(b *testing.B) {
	for _, names := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			m := newManyNames(b, names, 50)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				m.deliver(m.checks[i%len(m.checks)].ID, probe.Result{Outcome: probe.Up, Latency: time.Millisecond, Smoothed: time.Millisecond})
				m.step()
				i++
			}
		})
	}
}
