package render_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func TestTopology(t *testing.T) {
	group := func(name string, addresses ...v1alpha1.IP) v1alpha1.ServerGroup {
		return v1alpha1.ServerGroup{Name: name, Addresses: addresses}
	}
	a := &v1alpha1.Datacenter{
		ObjectMeta: metav1.ObjectMeta{Name: "dc-a"},
		Spec: v1alpha1.DatacenterSpec{
			Rank: ptr.To[int32](7), Networks: []v1alpha1.CIDR{"10.1.0.0/16"}, Prefer: []v1alpha1.DatacenterName{"dc-c", "dc-b"}, Anchors: []v1alpha1.IP{"10.9.0.1", "10.9.1.1"},
			ServerGroups: []v1alpha1.ServerGroup{group("root", "192.0.2.1", "2001:DB8::1"), group("auth", "192.0.2.1")},
		},
		Status: v1alpha1.DatacenterStatus{Servers: []v1alpha1.ServerStatus{
			{Group: "auth", Name: "1", PeerAddress: "192.0.2.1:1", State: v1alpha1.ServerConnected},
			{Group: "auth", Name: "2", PeerAddress: "192.0.2.2:1", State: v1alpha1.ServerDisconnected},
			{Group: "gone", Name: "1", PeerAddress: "192.0.2.3:1", State: v1alpha1.ServerDisconnected},
		}},
	}
	b := &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: "dc-b"}, Spec: v1alpha1.DatacenterSpec{Probes: v1alpha1.DatacenterProbes{DeniedNetworks: &[]v1alpha1.CIDR{}}}}
	c := &v1alpha1.Datacenter{
		ObjectMeta: metav1.ObjectMeta{Name: "dc-c"},
		Spec: v1alpha1.DatacenterSpec{
			Role: v1alpha1.DatacenterRoleWitness, Probes: v1alpha1.DatacenterProbes{DeniedNetworks: &[]v1alpha1.CIDR{"10.0.0.0/8"}},
			ServerGroups: []v1alpha1.ServerGroup{group("votes")},
		},
	}
	in := render.TopologyInputs{
		Datacenters: []*v1alpha1.Datacenter{c, b, a}, Key: []byte("key"), APIServer: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
		Connected: []render.TopologyServer{
			{"dc-c", "votes", "w", ""}, {"dc-a", "root", "9", "192.0.2.9:1"}, {"dc-a", "auth", "1", "192.0.2.1:2"}, {"dc-a", "other", "1", "192.0.2.1:3"},
		},
	}
	want := &steeringpb.Topology{Key: []byte("key"), VoteTtl: 5000, Datacenters: []*steeringpb.Datacenter{
		{
			Name: "dc-a", Networks: []string{"10.1.0.0/16"}, Prefer: []string{"dc-c", "dc-b"}, Rank: 0, Anchors: []string{"10.9.0.1", "10.9.1.1"},
			DefaultDenied: true, DeniedNetworks: []string{"10.96.0.1/32", "192.0.2.1/32", "2001:db8::1/128"},
			Servers: []*steeringpb.Server{{Group: "auth", Name: "1", Mesh: "192.0.2.1:2"}, {Group: "auth", Name: "2", Mesh: "192.0.2.2:1"}, {Group: "root", Name: "9", Mesh: "192.0.2.9:1"}},
		},
		{Name: "dc-b", Rank: 1},
		{Name: "dc-c", Rank: 2, Witness: true, DeniedNetworks: []string{"10.0.0.0/8"}, Servers: []*steeringpb.Server{{Group: "votes", Name: "w"}}},
	}}
	got := render.Topology(in)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := steering.NewWorld(got); err != nil {
		t.Errorf("servers can't read it: %v", err)
	}
	in.Datacenters = []*v1alpha1.Datacenter{a, b, c}
	if again := render.Topology(in); !proto.Equal(got, again) {
		t.Error("the order of Datacenters matters")
	}
	in.Voting = map[string]bool{"auth": true} // the group root has no steered names; a Witness votes by whatever group
	want.Datacenters[0].Servers = want.Datacenters[0].Servers[:2]
	if diff := cmp.Diff(want, render.Topology(in), protocmp.Transform()); diff != "" {
		t.Errorf("with groups that do not vote (-want +got)\n%s", diff)
	}
}

func TestLimitsAreEnforcedWhereStrangersCanAsk(t *testing.T) {
	for addresses, want := range map[string]v1alpha1.LimitsMode{
		"":                         v1alpha1.LimitsLog,
		"10.0.0.1 192.168.0.1":     v1alpha1.LimitsLog,
		"127.0.0.1 ::1 fd00::1":    v1alpha1.LimitsLog,
		"100.64.0.1":               v1alpha1.LimitsLog,
		"::ffff:10.0.0.1":          v1alpha1.LimitsLog,
		"10.0.0.1 198.51.100.1":    v1alpha1.LimitsEnforce,
		"2001:db8::1":              v1alpha1.LimitsEnforce,
		"172.32.0.1":               v1alpha1.LimitsEnforce,
		"fd00::1 2a00:1450::2:2:3": v1alpha1.LimitsEnforce,
	} {
		var g v1alpha1.ServerGroup
		for a := range strings.FieldsSeq(addresses) {
			g.Addresses = append(g.Addresses, v1alpha1.IP(a))
		}
		if got := render.LimitsMode(g); got != want {
			t.Errorf("at %q they are %s, want %s", addresses, got, want)
		}
		for _, mode := range []v1alpha1.LimitsMode{v1alpha1.LimitsEnforce, v1alpha1.LimitsLog, v1alpha1.LimitsOff} {
			g.Limits.Mode = mode
			if got := render.LimitsMode(g); got != mode {
				t.Errorf("at %q they are %s where %s is stated", addresses, got, mode)
			}
		}
	}
}

func TestWhatADatacenterSaysOfItsServers(t *testing.T) {
	dc := &v1alpha1.Datacenter{
		ObjectMeta: metav1.ObjectMeta{Name: "dc-a"},
		Spec:       v1alpha1.DatacenterSpec{ServerGroups: []v1alpha1.ServerGroup{{Name: "root", Addresses: []v1alpha1.IP{"10.0.0.1", "10.0.0.2"}}}},
	}
	good := func(name string) render.DatacenterServer {
		return render.DatacenterServer{Group: "root", Name: name, Peer: "10.0.0.9:1", Current: 2, Wanted: 2, Synced: true, Settings: true}
	}
	refusing, undurable, outdated := good("2"), good("2"), good("2")
	refusing.Synced, refusing.Settings, refusing.Refused = false, false, "settings: Failed: port 853 is in use"
	undurable.NotDurable = "settings"
	outdated.Outdated, outdated.Settings = true, false
	withheld := func(name, digest string, zones int) render.DatacenterServer {
		s := good(name)
		s.Absent = &render.Absence{Count: zones, Examples: []zone.Name{"\x01z\x00"}, Digest: digest, Reason: v1alpha1.ReasonMassRemoval}
		return s
	}
	for rule, c := range map[string]struct {
		servers []render.DatacenterServer
		want    map[string]string // condition: status, reason and part of the message
		group   v1alpha1.ServerGroupStatus
	}{
		"all is well": {
			[]render.DatacenterServer{good("1"), good("2")},
			map[string]string{"Programmed": "True Programmed under the settings", "Ready": "True Ready under the settings", "Degraded": "False Healthy", "RemovalWithheld": "False NothingWithheld"},
			v1alpha1.ServerGroupStatus{Name: "root", LimitsMode: v1alpha1.LimitsLog, Settings: "2/2"},
		},
		"one refuses its settings": {
			[]render.DatacenterServer{good("1"), refusing},
			map[string]string{"Programmed": "False Rejected root/2: settings: Failed: port 853 is in use", "Ready": "False Rejected root/2"},
			v1alpha1.ServerGroupStatus{Name: "root", LimitsMode: v1alpha1.LimitsLog, Settings: "1/2"},
		},
		"one can't write them": {
			[]render.DatacenterServer{good("1"), undurable},
			map[string]string{"Programmed": "False NotDurable root/2: settings"},
			v1alpha1.ServerGroupStatus{Name: "root", LimitsMode: v1alpha1.LimitsLog, Settings: "2/2"},
		},
		"one is too old for them": {
			[]render.DatacenterServer{good("1"), outdated},
			map[string]string{"Programmed": "True Programmed", "Degraded": "True Outdated root/2"},
			v1alpha1.ServerGroupStatus{Name: "root", LimitsMode: v1alpha1.LimitsLog, Settings: "1/2"},
		},
		"servers wait with the same removal": {
			[]render.DatacenterServer{withheld("1", "aa", 12), withheld("2", "aa", 12)},
			map[string]string{"RemovalWithheld": "True MassRemoval approve-removal=aa"},
			v1alpha1.ServerGroupStatus{Name: "root", LimitsMode: v1alpha1.LimitsLog, Settings: "2/2"},
		},
		"servers wait with different removals, which go together": {
			[]render.DatacenterServer{withheld("1", "aa", 12), withheld("2", "bb", 13)},
			map[string]string{"RemovalWithheld": "True MassRemoval approve-removal=bb,aa"},
			v1alpha1.ServerGroupStatus{Name: "root", LimitsMode: v1alpha1.LimitsLog, Settings: "2/2"},
		},
	} {
		t.Run(rule, func(t *testing.T) {
			s := render.DatacenterStatus(render.DatacenterInputs{Datacenter: dc, Servers: c.servers})
			for typ, want := range c.want {
				got := meta.FindStatusCondition(s.Conditions, typ)
				if got == nil {
					t.Fatalf("no condition %s", typ)
				}
				words := strings.SplitN(want, " ", 3)
				if string(got.Status) != words[0] || got.Reason != words[1] || len(words) > 2 && !strings.Contains(got.Message, words[2]) {
					t.Errorf("%s is %s %s %q, want %s", typ, got.Status, got.Reason, got.Message, want)
				}
			}
			if len(s.ServerGroups) != 1 || !reflect.DeepEqual(s.ServerGroups[0], c.group) {
				t.Errorf("groups are %+v, want %+v", s.ServerGroups, c.group)
			}
			if s.Servers[0].PeerAddress != "10.0.0.9:1" {
				t.Errorf("servers are %+v", s.Servers)
			}
		})
	}
}

func TestWhoseANetworkIsThatTwoDatacentersHave(t *testing.T) {
	datacenter := func(name string, rank int32, networks ...v1alpha1.CIDR) v1alpha1.Datacenter {
		return v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.DatacenterSpec{Rank: &rank, Networks: networks}}
	}
	all := []v1alpha1.Datacenter{
		datacenter("dc-a", 2, "10.1.0.0/16", "10.2.0.0/16"), datacenter("dc-b", 1, "10.2.0.0/16", "10.3.0.0/16"), datacenter("dc-c", 2, "10.2.0.0/16", "10.1.0.0/24"),
	}
	topology := render.Topology(render.TopologyInputs{Datacenters: []*v1alpha1.Datacenter{&all[0], &all[1], &all[2]}})
	world, err := steering.NewWorld(topology)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"10.2.0.0/16 (dc-b) are near the other", "", "10.2.0.0/16 (dc-a), 10.2.0.0/16 (dc-b)"} {
		s := render.DatacenterStatus(render.DatacenterInputs{Datacenter: &all[i], Others: all})
		got := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionNetworkConflict)
		if (got != nil) != (want != "") || got != nil && !strings.Contains(got.Message, want) {
			t.Errorf("%s: %+v, want %q", all[i].Name, got, want)
		}
	}
	if near := world.Locate(netip.MustParseAddr("10.2.0.1")); near != "dc-b" {
		t.Errorf("clients in the network are near %s", near)
	}
}
