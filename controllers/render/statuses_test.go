package render_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// reported is what a server tells of a record, or of itself.
type reported struct {
	metav1.TypeMeta `json:",inline"`
	Server          string          `json:"server"` // datacenter/group/name
	Gone            *metav1.Time    `json:"gone"`   // heard last then; left out: it is connected
	Behind          bool            `json:"behind"` // it has yet to get the overrides
	Record          json.RawMessage `json:"record"`
	Vantage         json.RawMessage `json:"vantage"`
}

func (r reported) datacenter() string { return strings.Split(r.Server, "/")[0] }

func (r reported) record(t testing.TB) *steeringpb.RecordReport {
	t.Helper()
	m := &steeringpb.RecordReport{}
	if err := protojson.Unmarshal(r.Record, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// statusNow is the time in the statuses.
var statusNow = metav1.NewTime(time.Date(2026, 12, 1, 4, 0, 0, 0, time.UTC))

const operatorNamespace = "fingerpost-system"

// TestStatuses has the statuses of the objects in testdata/statuses.
func TestStatuses(t *testing.T) {
	goldens(t, "testdata/statuses/*.txtar", "want", func(t *testing.T, in []byte) string {
		t.Helper()
		return statuses(t, parseEstate(t, in))
	})
}

func statuses(t testing.TB, w *world) string {
	t.Helper()
	var out strings.Builder
	show := func(kind, name string, status any, conditions []metav1.Condition) {
		text, err := yaml.Marshal(status)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "# %s %s\n", kind, name)
		var fields map[string]any
		if err := yaml.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		delete(fields, "conditions")
		if text, err = yaml.Marshal(fields); err != nil {
			t.Fatal(err)
		}
		out.Write(text)
		for _, c := range conditions {
			fmt.Fprintf(&out, "%s: %s (%s, %s): %s\n", c.Type, c.Status, c.Reason, c.LastTransitionTime.UTC().Format("15:04:05"), c.Message)
		}
		out.WriteString("\n")
	}
	placements := render.Hierarchy(w.Estate)
	decisions := map[types.NamespacedName]*render.SteeredDecision{}
	for _, z := range w.Zones {
		maps.Copy(decisions, w.steered(z, placements[render.Key(z)]).Decisions)
	}
	var datacenters []v1alpha1.Datacenter
	for _, dc := range w.Datacenters {
		datacenters = append(datacenters, *dc)
	}
	for _, o := range w.dynamic {
		key := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
		in := render.RecordStatusInputs{
			Record: o, Decision: decisions[key], Now: statusNow, Programmed: true, ProgrammedReason: v1alpha1.ReasonProgrammed, ProgrammedWords: "known to every server that can be reached",
		}
		if d := decisions[key]; d == nil {
			in.Absent = render.Refuse(v1alpha1.ReasonZoneNotFound, "spec.zoneRef: there is no DNSZone %s", render.ZoneOf(o))
		} else if d.Record != nil {
			in.Failover = render.RecordFailover(d.Record, d.Owner, 0, o.Spec.Objectives.ClientCache)
			in.Split = render.SplitRisk(d.Record, datacenters, func(string) bool { return true })
		}
		for _, r := range w.reports {
			if r.Record != nil && r.record(t).GetSource() == key.String() {
				in.Servers = append(in.Servers, render.RecordServer{Datacenter: r.datacenter(), Stale: r.Gone != nil, Report: r.record(t)})
			}
		}
		s := render.RecordStatus(in)
		show("DynamicRecord", key.String(), s, s.Conditions)
		o.Status = s
		if again := render.RecordStatus(in); gocmp.Diff(again, s) != "" {
			t.Errorf("DynamicRecord %s: the same inputs write another status: %s", key, gocmp.Diff(again, s))
		}
	}
	var probes []v1alpha1.HealthProbe
	for _, p := range w.probes {
		probes = append(probes, *p)
	}
	slices.SortFunc(probes, func(a, b v1alpha1.HealthProbe) int { return strings.Compare(a.Name, b.Name) })
	for i := range probes {
		s := render.ProbeStatus(&probes[i], probes, w.missing, statusNow)
		used, up, down := 0, 0, 0
		for _, o := range w.dynamic {
			if render.UsesProbe(o, probes[i].Name, probes) {
				used++
			}
			u, d := render.ProbedTargets(o, probes[i].Name, probes)
			up, down = up+u, down+d
		}
		s.UsedBy, s.Up, s.Down = fmt.Sprint(used), fmt.Sprint(up), fmt.Sprint(down)
		show("HealthProbe", probes[i].Namespace+"/"+probes[i].Name, s, s.Conditions)
	}
	var records []v1alpha1.DynamicRecord
	for _, o := range w.dynamic {
		records = append(records, *o)
	}
	for _, o := range w.overrides {
		message, refused := render.Override(o, records, operatorNamespace, statusNow.Time)
		in := render.OverrideStatusInputs{Override: o, Message: message, Refused: refused, TTL: time.Minute, Now: statusNow}
		for _, r := range w.reports {
			if r.Behind {
				in.Behind = append(in.Behind, r.Server)
			}
			if r.Record == nil || !slices.Contains(message.GetRecords(), r.record(t).GetSource()) {
				continue
			}
			heard := statusNow
			if r.Gone != nil {
				heard = *r.Gone
			}
			in.Servers = append(in.Servers, render.OverrideServer{Record: r.record(t).GetSource(), Server: r.Server, Connected: r.Gone == nil, Heard: heard.Time, Report: r.record(t)})
		}
		s := render.OverrideStatus(in)
		name := o.Namespace + "/" + o.Name
		if message != nil {
			text, err := protojson.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, text); err != nil {
				t.Fatal(err)
			}
			name += " " + compact.String()
		}
		show("TrafficOverride", name, s, s.Conditions)
	}
	for _, dc := range w.Datacenters {
		in := render.DatacenterInputs{Datacenter: dc, Now: statusNow}
		for _, r := range w.reports {
			if r.Vantage == nil || r.datacenter() != dc.Name {
				continue
			}
			m := &steeringpb.VantageReport{}
			if err := protojson.Unmarshal(r.Vantage, m); err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(r.Server, "/")
			in.Servers = append(in.Servers, render.DatacenterServer{Group: parts[1], Name: parts[2], Synced: true, Settings: true, Vantage: m})
		}
		if len(in.Servers) == 0 {
			continue
		}
		s := render.DatacenterStatus(in)
		s.Servers, s.ServerGroups = nil, nil
		show("Datacenter", dc.Name, s, s.Conditions)
	}
	return out.String()
}
