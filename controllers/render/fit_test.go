package render_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func TestWhatDoesNotFitWhereTCPIsClosedIsACondition(t *testing.T) {
	const open, closed = v1alpha1.TransportOpen, v1alpha1.TransportClosed
	group := func(name string, tcp v1alpha1.TransportAccess, size *int32) v1alpha1.ServerGroup {
		return v1alpha1.ServerGroup{Name: name, Addresses: []v1alpha1.IP{"192.0.2.1"}, MaxUDPSize: size, Transports: v1alpha1.ServerTransports{TCP: tcp}}
	}
	text := strings.Repeat("x", 220)
	long := func(records int) []v1alpha1.ZoneRecord {
		var values []string
		for i := range records {
			values = append(values, fmt.Sprintf("%d%s", i, text))
		}
		return []v1alpha1.ZoneRecord{{Name: "long", Type: "TXT", Values: values}, {Name: "www", Type: "A", Values: []string{"10.0.0.1"}}}
	}
	for rule, c := range map[string]struct {
		a, b    v1alpha1.ServerGroup // of dc-a and dc-b
		records []v1alpha1.ZoneRecord
		want    string // "": no condition
	}{
		"where TCP is open nothing is said":           {group("auth", open, nil), group("auth", open, nil), long(13), ""},
		"TCP closed in another group does not matter": {group("auth", open, nil), group("root", closed, nil), long(13), ""},
		"what fits": {group("auth", closed, nil), group("auth", open, nil), long(1), "False Fits 1232 octets of UDP at dc-a/auth"},
		"what fits into the more that one group sends": {group("auth", closed, ptr.To[int32](4096)), group("auth", open, nil), long(13), "False Fits 4096 octets"},
		"the least of the groups counts":               {group("auth", closed, ptr.To[int32](4096)), group("auth", closed, ptr.To[int32](1232)), long(13), "True TooLargeWithoutTCP 1 answer does not fit into the 1232 octets of UDP at dc-b/auth, where TCP is closed: long.corp TXT ("},
		"groups with the same are both named":          {group("auth", closed, nil), group("auth", closed, nil), long(13), "True TooLargeWithoutTCP UDP at dc-a/auth, dc-b/auth"},
		"it says what to do":                           {group("auth", closed, nil), group("auth", open, nil), long(13), "True TooLargeWithoutTCP raise the group's maxUDPSize (up to 4096), or open its transports.tcp"},
	} {
		t.Run(rule, func(t *testing.T) {
			z := &v1alpha1.DNSZone{
				ObjectMeta: metav1.ObjectMeta{Name: "corp", Namespace: "dns", Generation: 3},
				Spec:       v1alpha1.DNSZoneSpec{Name: "corp", ServerGroup: "auth", Records: c.records},
			}
			// What was true before must not stay.
			z.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionOversized, Status: metav1.ConditionTrue, Reason: "Before"}}
			estate := render.Estate{Zones: []*v1alpha1.DNSZone{z}, ApexNamespaces: []string{"dns"}}
			for name, g := range map[string]v1alpha1.ServerGroup{"dc-a": c.a, "dc-b": c.b} {
				estate.Datacenters = append(estate.Datacenters, &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.DatacenterSpec{ServerGroups: []v1alpha1.ServerGroup{g}}})
			}
			place := render.Hierarchy(estate)[render.Key(z)]
			in := render.StatusInputs{Zone: z, Placement: place}
			if only := place.UDPOnly; only != nil {
				found := render.FindOversized(render.Zone(render.Inputs{Zone: z, Placement: place}, nil).Content, only.Size)
				in.Oversized = &found
			}
			got := ""
			if cond := meta.FindStatusCondition(render.ZoneStatus(in).Conditions, v1alpha1.ConditionOversized); cond != nil {
				got = fmt.Sprintf("%s %s %s", cond.Status, cond.Reason, cond.Message)
			}
			words := strings.SplitN(c.want, " ", 3)
			if (got == "") != (c.want == "") || c.want != "" && (!strings.HasPrefix(got, words[0]+" "+words[1]+" ") || !strings.Contains(got, words[2])) {
				t.Errorf("condition is %q, want %q", got, c.want)
			}
			in.Oversized = nil // it could not be found out
			if cond := meta.FindStatusCondition(render.ZoneStatus(in).Conditions, v1alpha1.ConditionOversized); (cond == nil) != (place.UDPOnly == nil) {
				t.Errorf("without a look the condition is %v", cond)
			}
		})
	}
}

func TestOversizedAnswersAreCountedAndTheFirstAreNamed(t *testing.T) {
	var text strings.Builder
	text.WriteString("$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n")
	for i := range 20 {
		for j := range 6 {
			fmt.Fprintf(&text, "t%02d TXT %d%s\n", i, j, strings.Repeat("x", 220))
		}
	}
	c, _, faults := zone.Load("\x04corp\x00", text.String())
	if len(faults) > 0 {
		t.Fatal(faults[0])
	}
	found := render.FindOversized(c, 1232)
	var names []string
	for _, o := range found.Examples {
		names = append(names, o.Owner.String())
	}
	if diff := cmp.Diff([]string{"t00.corp.", "t01.corp.", "t02.corp.", "t03.corp.", "t04.corp."}, names); diff != "" || found.Count != 20 {
		t.Errorf("%d found; the first (-want +got):\n%s", found.Count, diff)
	}
}

// TestSteeredNamesThatMayNotFitAreNamed has pools of IPv6 addresses: 64 need 1,792 octets if all are answered.
func TestSteeredNamesThatMayNotFitAreNamed(t *testing.T) {
	for rule, c := range map[string]struct {
		targets, most int
		flatten       bool
		want          []string
	}{
		"a pool that fits":     {10, 0, false, nil},
		"a pool that does not": {64, 0, false, []string{"big.corp. AAAA"}},
		"maxAnswers does not help: when all are down all are given": {64, 2, false, []string{"big.corp. AAAA"}},
		"what a flattened name will be is not known":                {1, 0, true, nil},
	} {
		t.Run(rule, func(t *testing.T) {
			pool := v1alpha1.Pool{Name: "p"}
			for i := range c.targets {
				target := v1alpha1.TargetAddress(fmt.Sprintf("2001:db8::%x", i+1))
				if c.flatten {
					target = "origin.example.net"
				}
				pool.Targets = append(pool.Targets, v1alpha1.Target{Address: target})
			}
			if c.most > 0 {
				pool.MaxAnswers = new(int32(c.most))
			}
			record := func(host string) *v1alpha1.DynamicRecord {
				r := &v1alpha1.DynamicRecord{ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: host}, Spec: v1alpha1.DynamicRecordSpec{
					ZoneRef: v1alpha1.ZoneRef{Name: "corp"}, Host: host, Pools: []v1alpha1.Pool{pool}, Steering: v1alpha1.Steering{Policy: v1alpha1.SteeringNearest},
				}}
				if c.flatten {
					r.Spec.Flatten = &v1alpha1.Flatten{Resolvers: []v1alpha1.IP{"192.0.2.53"}}
				}
				return r
			}
			z := &v1alpha1.DNSZone{ObjectMeta: metav1.ObjectMeta{Name: "corp", Namespace: "dns"}, Spec: v1alpha1.DNSZoneSpec{
				Name: "corp", ServerGroup: "auth", Records: []v1alpha1.ZoneRecord{{Name: "www", Type: "A", Values: []string{"10.0.0.1"}}},
				AllowedRecords: []v1alpha1.AllowedRecords{{Namespaces: v1alpha1.NamespaceSelection{From: v1alpha1.NamespacesFromSame}, Hosts: []string{"*"}}},
			}}
			estate := render.Estate{Zones: []*v1alpha1.DNSZone{z}, ApexNamespaces: []string{"dns"}, Datacenters: []*v1alpha1.Datacenter{{
				ObjectMeta: metav1.ObjectMeta{Name: "dc-a"}, Spec: v1alpha1.DatacenterSpec{ServerGroups: []v1alpha1.ServerGroup{{Name: "auth", Addresses: []v1alpha1.IP{"192.0.2.1"}}}},
			}}}
			place := render.Hierarchy(estate)[render.Key(z)]
			steered := render.SteerZone(render.SteeredInputs{Zone: z, Placement: place, Records: []*v1alpha1.DynamicRecord{record("big")}})
			for key, d := range steered.Decisions {
				if d.Refused != nil {
					t.Fatalf("%s: %v", key, d.Refused)
				}
			}
			found := render.FindOversized(render.Zone(render.Inputs{Zone: z, Placement: place, Steered: steered}, nil).Content, 1232)
			var got []string
			for _, o := range found.Examples {
				got = append(got, fmt.Sprintf("%s %s", o.Owner, zone.TypeString(o.Type)))
			}
			if len(got) != found.Count {
				t.Errorf("%d counted, %d named", found.Count, len(got))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
}
