package v1alpha1_test

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	applyconfiguration "github.com/fingerpost-dns/fingerpost/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

// TestServerSideApply holds that several writers of one zone do not undo each other: lists of named things are merged by
// name, and the operator's status by its fields.
func TestServerSideApply(t *testing.T) {
	c := apiServer(t)
	ns := namespace(t)
	zone := func(records ...*applyconfiguration.ZoneRecordApplyConfiguration) *applyconfiguration.DNSZoneApplyConfiguration {
		return applyconfiguration.DNSZone("pay", ns).WithSpec(applyconfiguration.DNSZoneSpec().
			WithName("pay.bank").WithServerGroup("authoritative").WithRecords(records...))
	}
	record := func(name, address string) *applyconfiguration.ZoneRecordApplyConfiguration {
		return applyconfiguration.ZoneRecord().WithName(name).WithType("A").WithValues(address)
	}
	for _, step := range []struct {
		owner string
		zone  *applyconfiguration.DNSZoneApplyConfiguration
		want  []string
	}{
		{"mail-team", zone(record("mail", "10.1.0.25"), record("imap", "10.1.0.26")), []string{"imap 10.1.0.26", "mail 10.1.0.25"}},
		{"web-team", zone(record("www", "10.1.0.80")), []string{"imap 10.1.0.26", "mail 10.1.0.25", "www 10.1.0.80"}},
		{"mail-team", zone(record("mail", "10.1.0.27")), []string{"mail 10.1.0.27", "www 10.1.0.80"}},
	} {
		if err := c.Apply(t.Context(), step.zone, client.FieldOwner(step.owner)); err != nil {
			t.Fatalf("%s: %v", step.owner, err)
		}
		var got []string
		for _, r := range get(t, c, ns).Spec.Records {
			got = append(got, r.Name+" "+r.Values[0])
		}
		slices.Sort(got)
		if !slices.Equal(got, step.want) {
			t.Errorf("after the apply of %s: %v, want %v", step.owner, got, step.want)
		}
	}

	condition := func(conditionType, reason string) *metav1ac.ConditionApplyConfiguration {
		return metav1ac.Condition().WithType(conditionType).WithStatus(metav1.ConditionTrue).
			WithReason(reason).WithMessage("").WithLastTransitionTime(metav1.Now())
	}
	status := applyconfiguration.DNSZone("pay", ns).WithStatus(applyconfiguration.DNSZoneStatus().
		WithPublished(applyconfiguration.PublishedVersion().WithSerial(7).WithDigest("d")).
		WithConditions(condition(v1alpha1.ConditionDelegated, v1alpha1.ReasonDelegated), condition(v1alpha1.ConditionReady, v1alpha1.ReasonReady)))
	if err := c.SubResource("status").Apply(t.Context(), status, client.FieldOwner("operator"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	z := get(t, c, ns)
	var got []string
	for _, c := range z.Status.Conditions {
		got = append(got, c.Type+" "+string(c.Status))
	}
	slices.Sort(got)
	if want := []string{"Accepted Unknown", "Delegated True", "Ready True"}; !slices.Equal(got, want) || z.Status.Published == nil || z.Status.Published.Serial != 7 {
		t.Errorf("status %v, %v; want %v", got, z.Status.Published, want)
	}
}

// get returns the zone pay of a namespace.
func get(t *testing.T, c client.Client, namespace string) *v1alpha1.DNSZone {
	t.Helper()
	z := &v1alpha1.DNSZone{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "pay"}, z); err != nil {
		t.Fatal(err)
	}
	return z
}
