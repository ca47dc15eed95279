package controllers

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// heardReports is what servers tell, and who was called for it.
type heardReports struct {
	*Reports
	t      *testing.T
	called []string
}

func newHeardReports(t *testing.T) *heardReports {
	t.Helper()
	h := &heardReports{t: t}
	h.Reports = &Reports{
		Clock:    clocktesting.NewFakeClock(time.Unix(1000, 0)),
		OnRecord: func(key types.NamespacedName) { h.called = append(h.called, key.Name) },
		OnServer: func(id control.ServerID) { h.called = append(h.called, id.String()) },
	}
	return h
}

func (h *heardReports) tell(id control.ServerID, kind string, pool string, records ...string) {
	h.t.Helper()
	m := &steeringpb.Report{}
	for _, name := range records {
		m.Records = append(m.Records, &steeringpb.RecordReport{Source: "n/" + name, Pools: []string{pool}})
	}
	body, err := proto.Marshal(m)
	if err != nil {
		h.t.Fatal(err)
	}
	h.Take(id, kind, body)
}

func (h *heardReports) told(name string) (pools []string) {
	for _, r := range h.Of(types.NamespacedName{Namespace: "n", Name: name}) {
		pools = append(pools, r.GetPools()...)
	}
	return pools
}

var reporter = control.ServerID{Datacenter: "dc-a", Group: "g", Name: "1"}

func TestRecordsThatAreDividedAnewAreToldOnce(t *testing.T) {
	h := newHeardReports(t)
	h.tell(reporter, "steering-32-000", "before", "a", "b")
	h.tell(reporter, "steering-32-001", "before", "c", "gone")
	h.tell(reporter, "steering-64-000", "after", "a")
	h.tell(reporter, "steering-64-020", "after", "b")
	h.tell(reporter, "steering-64-001", "after", "c")
	for name, want := range map[string]string{"a": "[after]", "b": "[after]", "c": "[after]", "gone": "[]"} {
		if got := fmt.Sprint(h.told(name)); got != want {
			t.Errorf("of %s servers have told %s, want %s", name, got, want)
		}
	}
	if !slices.Contains(h.called, "gone") {
		t.Error("nobody was called for a record of which the server tells no more")
	}
}

func TestReportsOfServersThatAreGoneAreForgotten(t *testing.T) {
	h := newHeardReports(t)
	other := control.ServerID{Datacenter: "dc-b", Group: "g", Name: "1"}
	h.tell(reporter, "steering-32-000", "a", "app")
	h.tell(other, "steering-32-000", "b", "app")
	h.called = nil
	h.Forget(func(id control.ServerID) bool { return id == other })
	if got := h.told("app"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("servers tell of %v", got)
	}
	if !slices.Equal(h.called, []string{"app"}) {
		t.Errorf("called for %v", h.called)
	}
	h.called = nil
	h.Forget(func(id control.ServerID) bool { return id == other })
	if len(h.called) > 0 {
		t.Errorf("nothing was forgotten, and called for %v", h.called)
	}
}

func TestVotesOfADatacenterCountWhereItCanBeSeen(t *testing.T) {
	vantage := func(isolated bool, unreachable ...string) *steeringpb.VantageReport {
		return &steeringpb.VantageReport{Isolated: isolated, Unreachable: unreachable}
	}
	server := func(dc, name string) control.ServerID {
		return control.ServerID{Datacenter: dc, Group: "g", Name: name}
	}
	for rule, c := range map[string]struct {
		vantages map[control.ServerID]*steeringpb.VantageReport
		away     []control.ServerID
		want     bool
	}{
		"a witness that is connected":               {map[control.ServerID]*steeringpb.VantageReport{server("dc-w", "1"): vantage(false), server("dc-a", "1"): vantage(false)}, nil, true},
		"one that was never there":                  {map[control.ServerID]*steeringpb.VantageReport{server("dc-a", "1"): vantage(false, "dc-w")}, nil, false},
		"one that has lost the hub, and peers hear": {map[control.ServerID]*steeringpb.VantageReport{server("dc-w", "1"): vantage(false), server("dc-a", "1"): vantage(false)}, []control.ServerID{server("dc-w", "1")}, true},
		"one that nobody hears":                     {map[control.ServerID]*steeringpb.VantageReport{server("dc-w", "1"): vantage(false), server("dc-a", "1"): vantage(false, "dc-w")}, []control.ServerID{server("dc-w", "1")}, false},
		"one that is isolated":                      {map[control.ServerID]*steeringpb.VantageReport{server("dc-w", "1"): vantage(true), server("dc-a", "1"): vantage(false)}, nil, false},
		"one of whose servers one alone is":         {map[control.ServerID]*steeringpb.VantageReport{server("dc-w", "1"): vantage(true), server("dc-w", "2"): vantage(false)}, nil, true},
	} {
		t.Run(rule, func(t *testing.T) {
			h := newHeardReports(t)
			connected := map[control.ServerID]bool{}
			for id, v := range c.vantages {
				body, err := proto.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				h.Take(id, vantageReport, body)
				if !slices.Contains(c.away, id) {
					connected[id] = true
				}
			}
			if got := h.Sees(connected)("dc-w"); got != c.want {
				t.Errorf("its votes count: %v", got)
			}
		})
	}
}

// TestNobodyTellsWhatIsNotHisToTell has holders of both sorts of certificates tell a real hub everything.
func TestNobodyTellsWhatIsNotHisToTell(t *testing.T) {
	reports := &Reports{Clock: clocktesting.NewFakeClock(time.Unix(1000, 0)), OnRecord: func(types.NamespacedName) {}, OnServer: func(control.ServerID) {}}
	agents := &PoolReports{OnPool: func(types.NamespacedName) {}}
	take, taken := takeReports(reports, agents), make(chan string, 8)
	hub := control.NewHub(control.HubOptions{Log: testr.New(t), Cluster: "here", OnReport: func(id control.ServerID, kind string, body []byte) {
		take(id, kind, body)
		taken <- kind
	}})
	hub.Lead(1)
	ca := controltest.NewAuthority(t)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listening := grpc.NewServer(control.ServerOptions(ca.Credentials(control.HubURI()))...)
	hub.Register(listening)
	ended := make(chan struct{})
	go func() { _ = listening.Serve(socket); close(ended) }() // ends when it is stopped
	t.Cleanup(func() { listening.Stop(); <-ended })

	vantage, err := proto.Marshal(&steeringpb.VantageReport{Told: []*steeringpb.Override{{Source: "n/drain"}}})
	if err != nil {
		t.Fatal(err)
	}
	records, err := proto.Marshal(&steeringpb.Report{Records: []*steeringpb.RecordReport{{Source: "n/app", Pools: []string{"forged"}}}})
	if err != nil {
		t.Fatal(err)
	}
	member, err := json.Marshal(pool.Report{Engine: engine.Unbound, Ready: true})
	if err != nil {
		t.Fatal(err)
	}
	tellAll := func(id control.ServerID) {
		conn, err := grpc.NewClient(socket.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(control.HubTLS(ca.Credentials(id.GroupKey().URI())))))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		stream, err := controlpb.NewHubClient(conn).Sync(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*controlpb.ServerMessage{
			{Message: &controlpb.ServerMessage_Hello{Hello: &controlpb.Hello{Protocol: control.ProtocolVersion, Name: id.Name}}},
			{Message: &controlpb.ServerMessage_Held{Held: &controlpb.Held{Last: true}}},
			{Message: &controlpb.ServerMessage_Report{Report: &controlpb.Report{Kind: vantageReport, Body: vantage}}},
			{Message: &controlpb.ServerMessage_Report{Report: &controlpb.Report{Kind: steeringReports + "32-000", Body: records}}},
			{Message: &controlpb.ServerMessage_Report{Report: &controlpb.Report{Kind: pool.ReportKind, Body: member}}},
		} {
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			select {
			case <-taken:
			case <-time.After(time.Minute):
				t.Fatalf("the hub does not take what %s tells", id)
			}
		}
	}
	app := types.NamespacedName{Namespace: "n", Name: "app"}

	agent := control.ServerID{Datacenter: "dc-a", Group: pool.GroupName("dns", "office"), Name: "unbound-1"}
	tellAll(agent)
	if told := reports.Told(); len(told) > 0 {
		t.Errorf("an agent of a pool has overrides put in force: %v", told)
	}
	if told := reports.Of(app); len(told) > 0 {
		t.Errorf("an agent of a pool tells of a record: %v", told)
	}
	if seen := reports.Vantages("dc-a"); len(seen) > 0 {
		t.Errorf("an agent of a pool tells what servers see: %v", seen)
	}
	if agents.Of(agent) == nil {
		t.Error("what an agent tells of itself is lost")
	}

	tellAll(reporter)
	if told, of := reports.Told(), reports.Of(app); len(told) != 1 || len(of) != 1 || of[0].Server != reporter {
		t.Errorf("what a server tells is lost: overrides %v, records %v", told, of)
	}
	if agents.Of(reporter) != nil {
		t.Error("a server counts as a member of a pool")
	}
}
