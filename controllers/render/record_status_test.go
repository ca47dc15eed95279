package render

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// reported is what a server says of a record with one target in each of two pools.
func reported(datacenter string, stale bool, pool string, a, b steeringpb.TargetReport_State) RecordServer {
	return RecordServer{Datacenter: datacenter, Stale: stale, Report: &steeringpb.RecordReport{
		State: steeringpb.RecordReport_PREFERRED, Pools: []string{pool},
		Targets: []*steeringpb.TargetReport{{State: a}, {State: b}},
	}}
}

func TestStatusCountsOnlyServersThatCanBeAsked(t *testing.T) {
	const up, down = steeringpb.TargetReport_UP, steeringpb.TargetReport_DOWN
	type observed struct{ healthy, serving, a, b string }
	for name, test := range map[string]struct {
		servers []RecordServer
		want    observed
	}{
		"all are connected": {
			[]RecordServer{reported("dc-a", false, "a", up, up), reported("dc-b", false, "b", up, up)},
			observed{"2/2", "dc-a,dc-b", "Preferred", "Preferred"},
		},
		"a datacenter that is gone is neither healthy by its own word nor served": {
			[]RecordServer{reported("dc-a", true, "a", up, up), reported("dc-b", false, "b", down, up)},
			observed{"1/2", "dc-b", "Stale", "Preferred"},
		},
		"the other server of a datacenter speaks for one that is gone": {
			[]RecordServer{reported("dc-a", true, "a", down, up), reported("dc-a", false, "a", up, up), reported("dc-b", false, "b", up, up)},
			observed{"2/2", "dc-a,dc-b", "Preferred", "Preferred"},
		},
		"when nobody is connected what is known stays": {
			[]RecordServer{reported("dc-a", true, "a", down, up), reported("dc-b", true, "b", down, up)},
			observed{"before", "before", "", ""},
		},
	} {
		record := &v1alpha1.DynamicRecord{}
		record.Spec.Pools = []v1alpha1.Pool{
			{Name: "a", Datacenter: "dc-a", Targets: []v1alpha1.Target{{Address: "10.1.9.9"}}},
			{Name: "b", Datacenter: "dc-b", Targets: []v1alpha1.Target{{Address: "10.2.9.9"}}},
		}
		record.Status.Healthy, record.Status.Serving = "before", "before"
		s := RecordStatus(RecordStatusInputs{
			Record: record, Decision: &SteeredDecision{Record: &steeringpb.Record{}}, Programmed: true, ProgrammedReason: v1alpha1.ReasonProgrammed,
			Servers: test.servers, Now: metav1.Now(),
		})
		got := observed{healthy: s.Healthy, serving: s.Serving}
		for _, dc := range s.Datacenters {
			if dc.Name == "dc-a" {
				got.a = dc.State
			} else {
				got.b = dc.State
			}
		}
		if got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// TestTheRecordOfAKeptZoneSaysThatItIsServed: the zone is refused, such as for a parent that is gone, and goes on being served.
func TestTheRecordOfAKeptZoneSaysThatItIsServed(t *testing.T) {
	const up, down = steeringpb.TargetReport_UP, steeringpb.TargetReport_DOWN
	absent := Refuse(v1alpha1.ReasonZoneNotAccepted, "DNSZone dns/corp is not accepted: its parent is gone")
	for rule, c := range map[string]struct {
		kept                   bool
		servers                []RecordServer
		healthy, serving, said string
	}{
		"a zone that is withdrawn has no records": {
			false, nil, "", "", "the record is not served",
		},
		"what servers say of a kept one goes on being told": {
			true, []RecordServer{reported("dc-a", false, "b", down, up), reported("dc-b", false, "b", down, up)},
			"1/2", "dc-b", "the zone goes on being served as it was, and the record with it",
		},
		"until they have said something what is known stays": {
			true, nil, "2/2", "dc-a,dc-b", "the zone goes on being served as it was, and the record with it",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			record := &v1alpha1.DynamicRecord{}
			record.Spec.Pools = []v1alpha1.Pool{
				{Name: "a", Datacenter: "dc-a", Targets: []v1alpha1.Target{{Address: "10.1.9.9"}}},
				{Name: "b", Datacenter: "dc-b", Targets: []v1alpha1.Target{{Address: "10.2.9.9"}}},
			}
			record.Status.Healthy, record.Status.Serving = "2/2", "dc-a,dc-b"
			s := RecordStatus(RecordStatusInputs{Record: record, Absent: absent, Kept: c.kept, Servers: c.servers, Now: metav1.Now()})
			accepted, programmed := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionAccepted), meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionProgrammed)
			if accepted == nil || accepted.Status != metav1.ConditionFalse || accepted.Reason != v1alpha1.ReasonZoneNotAccepted {
				t.Errorf("condition Accepted is %+v", accepted)
			}
			if programmed == nil || programmed.Message != c.said {
				t.Errorf("condition Programmed is %+v, want %q", programmed, c.said)
			}
			if s.Healthy != c.healthy || s.Serving != c.serving {
				t.Errorf("healthy %q, serving %q; want %q, %q", s.Healthy, s.Serving, c.healthy, c.serving)
			}
		})
	}
}

// TestATargetThatIsHeldIsNotCalledHealthy: servers act as if it were up, since nobody confirms that it is not.
func TestATargetThatIsHeldIsNotCalledHealthy(t *testing.T) {
	const up, down = steeringpb.TargetReport_UP, steeringpb.TargetReport_DOWN
	held := func(datacenter string, a, b steeringpb.TargetReport_State) RecordServer {
		r := reported(datacenter, false, "a", a, b)
		r.Report.State, r.Report.Targets[0].Held, r.Report.Targets[0].Failure = steeringpb.RecordReport_HELD, true, "no answer within 2s"
		return r
	}
	for rule, c := range map[string]struct {
		servers                []RecordServer
		healthy, reason, first string
		status                 metav1.ConditionStatus
	}{
		"its datacenter is silent": {
			[]RecordServer{reported("dc-a", true, "a", up, up), held("dc-b", up, up)}, "1/2", "Held", "Unknown no answer within 2s", metav1.ConditionFalse,
		},
		"it is silent, and the others are down": {
			[]RecordServer{held("dc-b", up, down)}, "0/2", "Held", "Unknown no answer within 2s", metav1.ConditionFalse,
		},
		"only the link to it is cut, and its own datacenter says what it is": {
			[]RecordServer{reported("dc-a", false, "a", up, up), held("dc-b", up, up)}, "2/2", "AllUp", "Up ", metav1.ConditionTrue,
		},
	} {
		t.Run(rule, func(t *testing.T) {
			record := &v1alpha1.DynamicRecord{}
			record.Spec.Pools = []v1alpha1.Pool{
				{Name: "a", Datacenter: "dc-a", Targets: []v1alpha1.Target{{Address: "10.1.9.9"}}},
				{Name: "b", Datacenter: "dc-b", Targets: []v1alpha1.Target{{Address: "10.2.9.9"}}},
			}
			s := RecordStatus(RecordStatusInputs{
				Record: record, Decision: &SteeredDecision{Record: &steeringpb.Record{}}, Programmed: true, ProgrammedReason: v1alpha1.ReasonProgrammed,
				Servers: c.servers, Now: metav1.Now(),
			})
			healthy := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionHealthy)
			if s.Healthy != c.healthy || healthy.Reason != c.reason || healthy.Status != c.status {
				t.Errorf("healthy %s, condition %+v; want %s, %s %s", s.Healthy, healthy, c.healthy, c.status, c.reason)
			}
			if got := string(s.Targets[0].State) + " " + s.Targets[0].LastFailure; got != c.first {
				t.Errorf("the target is %q, want %q", got, c.first)
			}
		})
	}
}
