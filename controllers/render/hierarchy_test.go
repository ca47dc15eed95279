package render_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
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

// TestNameServersOfManagedGroups has the zone corp in two datacenters, below a root that somebody else serves. What is published of
// it, before, is one name server in each.
func TestNameServersOfManagedGroups(t *testing.T) {
	const publishedA, publishedB = "192.0.2.99", "198.51.100.99"
	managed := func(name, known string) *v1alpha1.Datacenter {
		return &v1alpha1.Datacenter{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v1alpha1.DatacenterSpec{ServerGroups: []v1alpha1.ServerGroup{{Name: "auth", Management: v1alpha1.ServerGroupManaged}}},
			Status:     v1alpha1.DatacenterStatus{ServerGroups: []v1alpha1.ServerGroupStatus{{Name: "auth", Addresses: knownIn(t, known)}}},
		}
	}
	external := func(name string, address v1alpha1.IP) *v1alpha1.Datacenter {
		return &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.DatacenterSpec{ServerGroups: []v1alpha1.ServerGroup{
			{Name: "auth", Management: v1alpha1.ServerGroupExternal, Addresses: []v1alpha1.IP{address}},
		}}}
	}
	undeclared := func(dc *v1alpha1.Datacenter) *v1alpha1.Datacenter {
		dc.Spec.ServerGroups = nil
		return dc
	}
	deleted := func(dc *v1alpha1.Datacenter) *v1alpha1.Datacenter {
		dc.DeletionTimestamp = &metav1.Time{Time: addressDay}
		return dc
	}
	for rule, c := range map[string]struct {
		a, b  *v1alpha1.Datacenter
		first bool   // nothing is published yet
		want  string // what root and corp say
		at    string // datacenters that serve corp, "" for both
	}{
		"addresses that are delegated to are name servers, others are not": {
			a: managed("dc-a", "192.0.2.1 Delegated 0, 192.0.2.2 Pending 0, 192.0.2.3 Leaving 0, 2001:db8::1 Delegated 0"), b: external("dc-b", "198.51.100.1"),
			want: "ns-dc-a 192.0.2.1 2001:db8::1, ns-dc-b 198.51.100.1",
		},
		"a group without an address that answers has no name server": {
			a: managed("dc-a", "192.0.2.1 Pending 0"), b: external("dc-b", "198.51.100.1"), first: true, want: "ns-dc-b 198.51.100.1",
		},
		"what is published of a group stays while nothing is known of it": {
			a: managed("dc-a", ""), b: managed("dc-b", "198.51.100.1 Pending 0"), want: "ns-dc-a " + publishedA + ", ns-dc-b " + publishedB,
		},
		"what is published of a group stays beside what is known of others": {
			a: managed("dc-a", ""), b: managed("dc-b", "198.51.100.1 Delegated 0"), want: "ns-dc-a " + publishedA + ", ns-dc-b 198.51.100.1",
		},
		"a zone of which nothing is known at all has no name servers": {a: managed("dc-a", ""), b: managed("dc-b", ""), first: true},
		"a lost address is no name server":                            {a: managed("dc-a", "192.0.2.1 Lost 0"), b: external("dc-b", "198.51.100.1"), want: "ns-dc-b 198.51.100.1"},
		"lost addresses stay in a zone that has no others": {
			a: managed("dc-a", "192.0.2.1 Lost 0"), b: managed("dc-b", "198.51.100.1 Lost 0"), want: "ns-dc-a 192.0.2.1, ns-dc-b 198.51.100.1",
		},
		"addresses that leave stay in a zone that has no others": {
			a: managed("dc-a", "192.0.2.1 Leaving 0, 192.0.2.2 Lost 0"), b: external("dc-b", "not an address"), want: "ns-dc-a 192.0.2.1",
		},
		"a group that is declared no more goes on serving without a name server": {
			a: undeclared(managed("dc-a", "192.0.2.1 Leaving 0")), b: external("dc-b", "198.51.100.1"), want: "ns-dc-b 198.51.100.1",
		},
		"its name server is there until the status says that it leaves": {
			a: undeclared(managed("dc-a", "192.0.2.1 Delegated 0")), b: external("dc-b", "198.51.100.1"), want: "ns-dc-a 192.0.2.1, ns-dc-b 198.51.100.1",
		},
		"it is gone with its last address": {
			a: undeclared(managed("dc-a", "")), b: external("dc-b", "198.51.100.1"), want: "ns-dc-b 198.51.100.1", at: "dc-b",
		},
		"a datacenter that is being deleted goes on serving without a name server": {
			a: deleted(managed("dc-a", "192.0.2.1 Leaving 0")), b: external("dc-b", "198.51.100.1"), want: "ns-dc-b 198.51.100.1",
		},
		"a datacenter whose servers somebody else has started goes at once": {
			a: deleted(external("dc-a", "192.0.2.1")), b: external("dc-b", "198.51.100.1"), want: "ns-dc-b 198.51.100.1", at: "dc-b",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			zones := []*v1alpha1.DNSZone{
				{ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: "root"}, Spec: v1alpha1.DNSZoneSpec{Name: ".", ServerGroup: "root", AllowedChildren: []v1alpha1.AllowedChildren{
					{Namespaces: v1alpha1.NamespaceSelection{From: v1alpha1.NamespacesFromAll}, Names: []string{"*"}},
				}}},
				{ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: "corp"}, Spec: v1alpha1.DNSZoneSpec{Name: "corp", ServerGroup: "auth"},
					Status: v1alpha1.DNSZoneStatus{Datacenters: []v1alpha1.ZoneDatacenterStatus{{Name: "dc-a"}, {Name: "dc-b"}}}},
			}
			above := external("dc-r", "203.0.113.1")
			above.Spec.ServerGroups[0].Name = "root"
			estate := func(a, b *v1alpha1.Datacenter) map[types.NamespacedName]*render.Placement {
				return render.Hierarchy(render.Estate{Zones: zones, Datacenters: []*v1alpha1.Datacenter{above, a, b}, ApexNamespaces: []string{"dns"}})
			}
			published := make([]*zone.Content, len(zones))
			for i, z := range zones {
				if !c.first {
					published[i] = render.Zone(render.Inputs{Zone: z, Placement: estate(external("dc-a", publishedA), external("dc-b", publishedB))[render.Key(z)]}, nil).Content
				}
			}
			places := estate(c.a, c.b)
			for i, z := range zones {
				content := render.Zone(render.Inputs{Zone: z, Placement: places[render.Key(z)], Published: published[i]}, nil).Content
				var got []string
				for rdata := range content.Node(mustName(t, "corp")).RRset(zone.TypeNS).All() {
					host, _, err := zone.NameFromWire([]byte(rdata))
					if err != nil {
						t.Fatal(err)
					}
					text := strings.TrimSuffix(host.String(), ".corp.")
					for _, typ := range []uint16{zone.TypeA, zone.TypeAAAA} {
						for address := range content.Node(host).RRset(typ).All() {
							text += " " + zone.RDataString(typ, address)
						}
					}
					got = append(got, text)
				}
				slices.Sort(got)
				if text := strings.Join(got, ", "); text != c.want {
					t.Errorf("zone %s has name servers %q of corp, want %q", z.Spec.Name, text, c.want)
				}
			}
			var at []string
			for _, l := range places[render.Key(zones[1])].Locations {
				at = append(at, l.Datacenter)
			}
			if text := strings.Join(at, " "); text != cmp.Or(c.at, "dc-a dc-b") {
				t.Errorf("corp is served at %s", text)
			}
		})
	}
}

func TestRootHints(t *testing.T) {
	z := &v1alpha1.DNSZone{ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: "root"}, Spec: v1alpha1.DNSZoneSpec{Name: ".", ServerGroup: "root"}}
	place := &render.Placement{Apex: "\x00", NameServers: []render.NameServer{
		{Datacenter: "dc-a", Host: mustName(t, "ns-dc-a"), Addresses: addressesIn("192.0.2.1 192.0.2.2")},
		{Datacenter: "dc-b", Host: mustName(t, "ns-dc-b"), Addresses: addressesIn("2001:db8::1")},
	}}
	want := `.                        86400 NS   ns-dc-a.
ns-dc-a.                 86400 A    192.0.2.1
ns-dc-a.                 86400 A    192.0.2.2
.                        86400 NS   ns-dc-b.
ns-dc-b.                 86400 AAAA 2001:db8::1
`
	if got := render.RootHints(render.Zone(render.Inputs{Zone: z, Placement: place}, nil).Content); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := render.RootHints(render.Zone(render.Inputs{Zone: z, Placement: &render.Placement{Apex: "\x00"}}, nil).Content); got != "" {
		t.Errorf("of a root without servers there are hints: %s", got)
	}
}
