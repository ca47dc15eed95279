package render_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// TestIncumbentsBeforeServersHaveReported has an older and a younger claim to one name, both
// granted: a new leader has nothing but statuses to tell whose zone is served.
func TestIncumbentsBeforeServersHaveReported(t *testing.T) {
	published := &v1alpha1.PublishedVersion{Serial: 1, Digest: "00"}
	refused := func(reason string) v1alpha1.DNSZoneStatus {
		return v1alpha1.DNSZoneStatus{Published: published, Conditions: []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: reason}}}
	}
	for rule, c := range map[string]struct {
		older, younger v1alpha1.DNSZoneStatus
		wins           string
	}{
		"of two that were never served the older wins":             {wins: "older"},
		"the one that was published wins":                          {younger: v1alpha1.DNSZoneStatus{Published: published}, wins: "younger"},
		"one that was published and has yielded since does not":    {older: refused(v1alpha1.ReasonNameConflict), younger: v1alpha1.DNSZoneStatus{Published: published}, wins: "younger"},
		"nor does one that had lost its grant":                     {older: refused(v1alpha1.ReasonNotAllowedByParent), younger: v1alpha1.DNSZoneStatus{Published: published}, wins: "younger"},
		"one that is kept for a mistake in its spec is served yet": {younger: refused(v1alpha1.ReasonUnknownServerGroup), wins: "younger"},
	} {
		t.Run(rule, func(t *testing.T) {
			e := render.Estate{ApexNamespaces: []string{"dns"}, Datacenters: []*v1alpha1.Datacenter{{
				ObjectMeta: metav1.ObjectMeta{Name: "dc-a"},
				Spec:       v1alpha1.DatacenterSpec{ServerGroups: []v1alpha1.ServerGroup{{Name: "g", Addresses: []v1alpha1.IP{"192.0.2.1"}}}},
			}}}
			for i, s := range []v1alpha1.DNSZoneStatus{c.older, c.younger} {
				z := &v1alpha1.DNSZone{Spec: v1alpha1.DNSZoneSpec{Name: "corp", ServerGroup: "g"}, Status: s}
				z.Namespace, z.Name = "dns", []string{"older", "younger"}[i]
				z.CreationTimestamp = metav1.NewTime(time.Unix(int64(i), 0))
				e.Zones = append(e.Zones, z)
			}
			for key, place := range render.Hierarchy(e) {
				if accepted := place.Refused == nil; accepted != (key.Name == c.wins) {
					t.Errorf("%s: refused is %v", key.Name, place.Refused)
				}
			}
		})
	}
}
