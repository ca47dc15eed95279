package controllers

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
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
