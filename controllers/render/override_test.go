package render

import (
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
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
