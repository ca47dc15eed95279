package render

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestSafeToProceed(t *testing.T) {
	now := time.Date(2099, 12, 1, 4, 0, 0, 0, time.UTC)
	const drain = "payments/drain-b"
	report := func(settled time.Time) *steeringpb.RecordReport {
		r := &steeringpb.RecordReport{Effects: []*steeringpb.RecordReport_Effect{{Source: drain, Acts: true}}}
		if !settled.IsZero() {
			r.Settled = uint64(settled.UnixMilli())
		}
		return r
	}
	for sentence, tc := range map[string]struct {
		servers []OverrideServer
		behind  []string
		want    string // reason of the condition
		safeIn  time.Duration
	}{
		"nobody got an old answer":                                    {servers: []OverrideServer{{Connected: true, Report: report(time.Time{})}}, want: "Drained"},
		"a resolver holds an old answer":                              {servers: []OverrideServer{{Connected: true, Report: report(now.Add(20 * time.Second))}}, want: "Draining", safeIn: 20 * time.Second},
		"nobody has told anything":                                    {want: "Pending", safeIn: -1},
		"a server has the override and has not answered by it yet":    {servers: []OverrideServer{{Connected: true, Report: &steeringpb.RecordReport{}}}, want: "Pending", safeIn: -1},
		"a server that answers for the zone has not told of the name": {servers: []OverrideServer{{Connected: true}, {Connected: true, Report: report(time.Time{})}}, want: "Pending", safeIn: -1},
		"a server does not have the override":                         {servers: []OverrideServer{{Connected: true, Report: report(time.Time{})}}, behind: []string{"dc-a/auth/0"}, want: "Pending", safeIn: -1},
		"a server has left a moment ago":                              {servers: []OverrideServer{{Heard: now.Add(-10 * time.Second), Report: report(time.Time{})}}, want: "Draining", safeIn: 50 * time.Second},
		"a server that never told this manager anything is away":      {servers: []OverrideServer{{Heard: now.Add(-15 * time.Second)}}, want: "Draining", safeIn: 45 * time.Second},
		"a server has left long ago":                                  {servers: []OverrideServer{{Heard: now.Add(-time.Hour), Report: report(time.Time{})}}, want: "Drained"},
	} {
		t.Run(sentence, func(t *testing.T) {
			got := OverrideStatus(OverrideStatusInputs{
				Override: &v1alpha1.TrafficOverride{}, Message: &steeringpb.Override{Source: drain, Records: []string{"payments/app"}},
				Behind: tc.behind, Servers: tc.servers, TTL: time.Minute, Now: metav1.NewTime(now),
			})
			c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionSafeToProceed)
			safeIn := time.Duration(-1)
			if got.SafeAt != nil {
				safeIn = got.SafeAt.Sub(now)
			}
			if c == nil || c.Reason != tc.want || (c.Status == metav1.ConditionTrue) != (tc.want == "Drained") || safeIn != tc.safeIn {
				t.Errorf("%+v, safe in %s", c, safeIn)
			}
		})
	}
	got := OverrideStatus(OverrideStatusInputs{
		Override: &v1alpha1.TrafficOverride{Status: v1alpha1.TrafficOverrideStatus{SafeAt: &metav1.Time{Time: now}}},
		Refused:  refuse("X", "%v", errors.New("no")), Now: metav1.NewTime(now),
	})
	if got.SafeAt != nil {
		t.Error("an override that is not accepted is safe at some time")
	}
}

func TestOverridesOfAnotherHubClusterEndByNameOnly(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	drain := func(source, cluster string, expires time.Time) *steeringpb.Override {
		return &steeringpb.Override{
			Source: source, Cluster: cluster, Created: uint64(now.Add(-time.Hour).UnixMilli()), Expires: uint64(expires.UnixMilli()), AllRecords: true, KeepAtLeast: 1,
			Action: &steeringpb.Override_Drain{Drain: &steeringpb.Drain{Datacenter: "dc-b"}},
		}
	}
	later, over := now.Add(time.Hour), now.Add(-time.Minute)
	for sentence, c := range map[string]struct {
		own, told []*steeringpb.Override
		approved  string // source whose end is approved
		want      string // sources and clusters of the list
		ended     string
		foreign   string
	}{
		"what the API has is told as of this cluster":                 {own: []*steeringpb.Override{drain("ops/a", "", later)}, want: "ops/a of second"},
		"what this cluster had and has no more ends":                  {told: []*steeringpb.Override{drain("ops/a", "second", later)}},
		"what another cluster had goes on":                            {told: []*steeringpb.Override{drain("ops/a", "first", later)}, want: "ops/a of first", foreign: "ops/a"},
		"what another cluster had and this one has too is this one's": {own: []*steeringpb.Override{drain("ops/a", "", later)}, told: []*steeringpb.Override{drain("ops/a", "first", later)}, want: "ops/a of second"},
		"what another cluster had and is over is over":                {told: []*steeringpb.Override{drain("ops/a", "first", over)}},
		"what another cluster had ends when that is approved":         {told: []*steeringpb.Override{drain("ops/a", "first", later), drain("ops/b", "first", later)}, approved: "ops/a", want: "ops/b of first", ended: "ops/a", foreign: "ops/b"},
		"what nobody says whose it is ends with the list":             {told: []*steeringpb.Override{drain("ops/a", "", later)}},
	} {
		t.Run(sentence, func(t *testing.T) {
			in := OverridesInputs{Cluster: "second", Own: c.own, Told: [][]*steeringpb.Override{c.told, c.told}, Approved: map[string]bool{}, Now: now}
			for _, o := range c.told {
				if o.GetSource() == c.approved {
					in.Approved[overrideDigest(o)] = true
				}
			}
			list, foreign := Overrides(in)
			var got, others []string
			for _, o := range list.GetOverrides() {
				got = append(got, o.GetSource()+" of "+o.GetCluster())
			}
			for _, o := range foreign {
				others = append(others, o.GetSource())
			}
			if strings.Join(got, ", ") != c.want || strings.Join(list.GetEnded(), ", ") != c.ended || strings.Join(others, ", ") != c.foreign {
				t.Errorf("list %q, ended %q, foreign %q", got, list.GetEnded(), others)
			}
			if lost := steering.Forgotten(&steeringpb.Overrides{Cluster: "first", Overrides: c.told}, list, now); len(lost) > 0 {
				t.Errorf("servers that have told would refuse it for %v", lost)
			}
		})
	}
	first := &steeringpb.Overrides{Cluster: "first", Overrides: []*steeringpb.Override{drain("ops/b", "first", later), drain("ops/a", "first", later), drain("ops/c", "first", over)}}
	for sentence, c := range map[string]struct {
		next *steeringpb.Overrides
		want string
	}{
		"another cluster does not know them":    {&steeringpb.Overrides{Cluster: "second"}, "ops/a ops/b"},
		"the same cluster ends them":            {&steeringpb.Overrides{Cluster: "first"}, ""},
		"a manager that does not say who it is": {&steeringpb.Overrides{}, ""},
		"another cluster knows one and ends the other": {&steeringpb.Overrides{
			Cluster: "second", Overrides: []*steeringpb.Override{drain("ops/a", "second", later)}, Ended: []string{"ops/b"},
		}, ""},
	} {
		t.Run("a server: "+sentence, func(t *testing.T) {
			if got := strings.Join(steering.Forgotten(first, c.next, now), " "); got != c.want {
				t.Errorf("forgotten are %q, want %q", got, c.want)
			}
		})
	}
}
