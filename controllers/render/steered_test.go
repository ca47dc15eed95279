package render_test

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

const payApex = zone.Name("\x03pay\x04bank\x00")

// payZone is a zone that lets its own namespace have any name but the apex.
func payZone() *v1alpha1.DNSZone {
	z := &v1alpha1.DNSZone{}
	z.Namespace, z.Name, z.UID, z.Generation = "payments", "pay", "uid", 1
	z.Spec.Name = "pay.bank"
	z.Spec.AllowedRecords = []v1alpha1.AllowedRecords{{Namespaces: v1alpha1.NamespaceSelection{From: v1alpha1.NamespacesFromSame}, Hosts: []string{"*"}}}
	return z
}

func dynamic(namespace, name, host string, age time.Duration, targets ...string) *v1alpha1.DynamicRecord {
	r := &v1alpha1.DynamicRecord{}
	r.Namespace, r.Name, r.CreationTimestamp = namespace, name, metav1.NewTime(statusNow.Add(-age))
	r.Spec.ZoneRef = v1alpha1.ZoneRef{Namespace: "payments", Name: "pay"}
	r.Spec.Host, r.Spec.Steering.Policy = host, v1alpha1.SteeringNearest
	pool := v1alpha1.Pool{Name: "a"}
	for _, a := range targets {
		pool.Targets = append(pool.Targets, v1alpha1.Target{Address: v1alpha1.TargetAddress(a)})
	}
	r.Spec.Pools = []v1alpha1.Pool{pool}
	return r
}

// steer renders a zone with its DynamicRecords.
func steer(z *v1alpha1.DNSZone, published *zone.Content, prev *render.Result, sources []render.Source, records ...*v1alpha1.DynamicRecord) (*render.Steered, *render.Result) {
	place := &render.Placement{Apex: payApex, Locations: []render.Location{{Datacenter: "dc-a", Group: "g"}}, NameServers: []render.NameServer{
		{Datacenter: "dc-a", Host: mustChild(payApex, "ns-dc-a"), Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}}
	steered := render.SteerZone(render.SteeredInputs{Zone: z, Placement: place, Records: records, Published: published})
	return steered, render.Zone(render.Inputs{Zone: z, Placement: place, Sources: sources, Steered: steered, Published: published}, prev)
}

// TestIncrementalRenderingOfSteeredNamesEqualsFull edits DynamicRecords and the records beside them in random ways.
func TestIncrementalRenderingOfSteeredNamesEqualsFull(t *testing.T) {
	hosts := []string{"a", "b.a", "c", "*.c", "x.child", "@", "bad..name"}
	targets := []string{"10.0.0.1", "2001:db8::1", "cdn.example", "a.pay.bank"}
	static := []string{"a A 10.9.9.9\n", "a TXT x\n", "c CNAME d\n", "child NS ns.example.\n", "b.a DNAME z.example.\n", "_http._tcp.a SRV 1 1 1 h\n"}
	rapid.Check(t, func(t *rapid.T) {
		z := payZone()
		z.Spec.AllowedRecords[0].Hosts = []string{"*", "@"}
		z.Spec.AllowedRecords[0].Namespaces.From = v1alpha1.NamespacesFromAll
		var prev *render.Result
		var published *zone.Content
		records := map[string]*v1alpha1.DynamicRecord{}
		text := ""
		for version := range rapid.IntRange(2, 6).Draw(t, "versions") {
			for range rapid.IntRange(1, 4).Draw(t, "edits") {
				name := fmt.Sprint("r", rapid.IntRange(0, 3).Draw(t, "record"))
				switch rapid.IntRange(0, 4).Draw(t, "edit") {
				case 0:
					delete(records, name)
				case 1:
					text = ""
					for range rapid.IntRange(0, 3).Draw(t, "lines") {
						text += rapid.SampledFrom(static).Draw(t, "line")
					}
				default:
					r := dynamic("payments", name, rapid.SampledFrom(hosts).Draw(t, "host"), time.Hour, rapid.SampledFrom(targets).Draw(t, "target"))
					if rapid.Bool().Draw(t, "srv") {
						port := int32(80)
						r.Spec.Services = []v1alpha1.Service{{Type: v1alpha1.ServiceSRV, Name: "_http._tcp", Port: &port}}
					}
					records[name] = r
				}
			}
			z.Generation++
			var all []*v1alpha1.DynamicRecord
			for _, r := range records {
				all = append(all, r) // in any order
			}
			sources := []render.Source{{Name: "configmap/z/z", Text: text, Version: text}}
			_, full := steer(z, published, nil, sources, all...)
			_, incremental := steer(z, published, prev, sources, all...)
			if full.Content.Digest() != incremental.Content.Digest() {
				t.Fatalf("version %d: content differs (-full +incremental)\n%s", version, cmp.Diff(recordsText(full.Content), recordsText(incremental.Content)))
			}
			if diff := cmp.Diff(full.Findings, incremental.Findings); diff != "" {
				t.Fatalf("version %d: findings differ (-full +incremental)\n%s", version, diff)
			}
			prev = incremental
			if rapid.Bool().Draw(t, "publish") {
				published = incremental.Content
			}
		}
	})
}

// recordsText is records, where that name is taken.
var recordsText = records

func TestTheGuardHoldsBackDynamicRecordsThatVanishEnMasse(t *testing.T) {
	var all []*v1alpha1.DynamicRecord
	for i := range 100 {
		all = append(all, dynamic("payments", fmt.Sprint("r", i), fmt.Sprint("h", i), time.Hour, "10.0.0.1"))
	}
	_, before := steer(payZone(), nil, nil, nil, all...)
	for sentence, c := range map[string]struct {
		left     int
		withheld bool
	}{
		"a few pass":                 {95, false},
		"most of them are held":      {20, true},
		"so are all of them":         {0, true},
		"nothing that stays is lost": {100, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, after := steer(payZone(), before.Content, before, nil, all[:c.left]...)
			d := render.Guard(render.GuardInputs{
				Published: before.Content, Desired: after, Applied: before, AppliedRecords: before.SourceRecords(), Policy: zone.GuardPolicy{MinDeletes: 10, MaxDeletePercent: 30},
			})
			if (d.Withheld != nil) != c.withheld {
				t.Fatalf("withheld: %+v", d.Withheld)
			}
			last := d.Content.Node(mustChild(payApex, "h99")).RRset(zone.TypeSteered)
			if served := last.Len() > 0; served != (c.withheld || c.left == 100) {
				t.Errorf("the last name is served: %v", served)
			}
			if c.withheld {
				if d.Withheld.Records != 100-c.left {
					t.Errorf("%d are withheld, wanted %d", d.Withheld.Records, 100-c.left)
				}
			}
		})
	}
}

func TestOfTwoDynamicRecordsOfOneNameOneIsServed(t *testing.T) {
	elder, younger := dynamic("payments", "elder", "app", 2*time.Hour, "10.0.0.1"), dynamic("payments", "younger", "app", time.Hour, "10.0.0.2")
	twin := dynamic("payments", "twin", "app", time.Hour, "10.0.0.3")
	broken := dynamic("payments", "broken", "app", 3*time.Hour, "app.pay.bank")
	stranger := dynamic("tenant", "stranger", "app", 4*time.Hour, "10.0.0.4")
	incumbentBroken := younger.DeepCopy()
	incumbentBroken.Spec.Pools[0].Targets[0].Address = "app.pay.bank"
	_, younger1 := steer(payZone(), nil, nil, nil, younger)
	_, strange := steer(func() *v1alpha1.DNSZone {
		z := payZone()
		z.Spec.AllowedRecords[0].Namespaces.From = v1alpha1.NamespacesFromAll
		return z
	}(), nil, nil, nil, stranger)
	for sentence, c := range map[string]struct {
		published *zone.Content
		records   []*v1alpha1.DynamicRecord
		served    string
		refused   map[string]string // by name
	}{
		"the elder of two":                         {nil, []*v1alpha1.DynamicRecord{younger, elder}, "payments/elder", map[string]string{"younger": v1alpha1.ReasonNameConflict}},
		"of the same age the lower name":           {nil, []*v1alpha1.DynamicRecord{younger, twin}, "payments/twin", map[string]string{"younger": v1alpha1.ReasonNameConflict}},
		"the one that is served already":           {younger1.Content, []*v1alpha1.DynamicRecord{elder, younger}, "payments/younger", map[string]string{"elder": v1alpha1.ReasonNameConflict}},
		"one that is right before one that is not": {nil, []*v1alpha1.DynamicRecord{broken, younger}, "payments/younger", map[string]string{"broken": v1alpha1.ReasonNameConflict}},
		"one with a grant before one without":      {nil, []*v1alpha1.DynamicRecord{stranger, younger}, "payments/younger", map[string]string{"stranger": v1alpha1.ReasonNotAllowedByZone}},
		"even if that was served":                  {strange.Content, []*v1alpha1.DynamicRecord{stranger, younger}, "payments/younger", map[string]string{"stranger": v1alpha1.ReasonNotAllowedByZone}},
		"the served one keeps its name when it is edited wrongly": {younger1.Content, []*v1alpha1.DynamicRecord{incumbentBroken, elder}, "payments/younger",
			map[string]string{"younger": v1alpha1.ReasonInvalidSpec, "elder": v1alpha1.ReasonNameConflict}},
	} {
		t.Run(sentence, func(t *testing.T) {
			steered, result := steer(payZone(), c.published, nil, nil, c.records...)
			served := ""
			for rdata := range result.Content.Node(mustChild(payApex, "app")).RRset(zone.TypeSteered).All() {
				if _, rest, is := strings.Cut(rdata, "payments/"); is {
					served = "payments/" + rest[:strings.IndexFunc(rest, func(r rune) bool { return r < 'a' || r > 'z' })]
				}
			}
			if served != c.served {
				t.Errorf("%q is served, wanted %q", served, c.served)
			}
			for _, r := range c.records {
				d := steered.Decisions[types.NamespacedName{Namespace: r.Namespace, Name: r.Name}]
				reason := ""
				if d.Refused != nil {
					reason = d.Refused.Reason()
				}
				if reason != c.refused[r.Name] {
					t.Errorf("%s is refused for %q, wanted %q", r.Name, reason, c.refused[r.Name])
				}
			}
		})
	}
}

func TestLongNetworksAreFoundWhereResolversTellOfTheirClients(t *testing.T) {
	r := dynamic("payments", "app", "app", time.Hour, "10.0.0.1")
	r.Spec.Match = []v1alpha1.Match{{Networks: []v1alpha1.CIDR{"10.0.0.0/24", "10.0.1.0/25", "2001:db8::/56", "2001:db8::/57"}, Pools: []string{"a"}}}
	z := payZone()
	if _, result := steer(z, nil, nil, nil, r); len(result.Findings) != 0 {
		t.Errorf("without ECS there is nothing to find: %+v", result.Findings)
	}
	z.Spec.ECS = &v1alpha1.ZoneECS{TrustedResolvers: []v1alpha1.CIDR{"192.0.2.53/32"}}
	_, result := steer(z, nil, nil, nil, r)
	var found []string
	for _, f := range result.Findings {
		if f.Reason != v1alpha1.FindingLongNetwork {
			t.Errorf("finding %+v", f)
		}
		found = append(found, strings.Fields(f.Message)[1])
	}
	if diff := cmp.Diff([]string{"10.0.1.0/25", "2001:db8::/57"}, found); diff != "" {
		t.Error(diff)
	}
	if result.Content.Node(payApex).RRset(zone.TypeZoneSettings).Len() == 0 {
		t.Error("servers are not told whom the zone trusts")
	}
}

func TestResolversThatServersMustNotAskAreFindings(t *testing.T) {
	networks := func(all ...v1alpha1.CIDR) *[]v1alpha1.CIDR { return &all }
	for rule, c := range map[string]struct {
		denied   *[]v1alpha1.CIDR // nil: not stated
		resolver v1alpha1.IP
		want     string
	}{
		"by default any resolver elsewhere is asked":         {nil, "10.1.0.53", ""},
		"by default the server itself is not":                {nil, "127.0.0.53", "127.0.0.53 is not asked by the servers of dc-a"},
		"nor is another server of the datacenter":            {nil, "192.0.2.1", "192.0.2.1 is not asked by the servers of dc-a"},
		"what the Datacenter states replaces that":           {networks("10.9.0.0/16"), "127.0.0.53", ""},
		"and denies what it states":                          {networks("10.9.0.0/16"), "10.9.1.1", "10.9.1.1 is not asked by the servers of dc-a"},
		"an address that stands for an IPv4 address as well": {networks("10.9.0.0/16"), "::ffff:10.9.1.1", "10.9.1.1 is not asked by the servers of dc-a"},
	} {
		t.Run(rule, func(t *testing.T) {
			r := dynamic("payments", "cdn", "cdn", time.Hour, "origin.example.net")
			r.Spec.Flatten = &v1alpha1.Flatten{Resolvers: []v1alpha1.IP{c.resolver}}
			z := payZone()
			place := &render.Placement{Apex: payApex, Locations: []render.Location{{Datacenter: "dc-a", Group: "g"}}}
			steered := render.SteerZone(render.SteeredInputs{Zone: z, Placement: place, Records: []*v1alpha1.DynamicRecord{r}, Datacenters: map[string]*v1alpha1.Datacenter{"dc-a": {
				ObjectMeta: metav1.ObjectMeta{Name: "dc-a"},
				Spec: v1alpha1.DatacenterSpec{
					Probes: v1alpha1.DatacenterProbes{DeniedNetworks: c.denied}, ServerGroups: []v1alpha1.ServerGroup{{Name: "g", Addresses: []v1alpha1.IP{"192.0.2.1"}}},
				},
			}}})
			result := render.Zone(render.Inputs{Zone: z, Placement: place, Steered: steered}, nil)
			if refused := result.RefusedRecords(); len(refused) > 0 {
				t.Fatalf("the record does not enter the zone: %v", refused)
			}
			got := ""
			for _, f := range result.Findings {
				if f.Reason == v1alpha1.FindingResolverDenied {
					got += f.Message
				}
			}
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("the finding is %q, want %q", got, c.want)
			}
		})
	}
}

// TestARecordThatIsTooLargeLeavesNothingBehind: with its SRV records it is a little larger than at its own name, so there are
// sizes at which some of them would fit.
func TestARecordThatIsTooLargeLeavesNothingBehind(t *testing.T) {
	port := int32(80)
	record := func(padding int) *v1alpha1.DynamicRecord {
		r := dynamic("payments", "app", "app", time.Hour)
		for i := range steering.MaxTargets {
			long := strings.Repeat("x", 60)
			r.Spec.Pools[0].Targets = append(r.Spec.Pools[0].Targets, v1alpha1.Target{Address: v1alpha1.TargetAddress(fmt.Sprintf("t%d.%s.%s.%s", i, long, long, long))})
		}
		r.Spec.Pools[0].Name = strings.Repeat("p", 1+padding)
		for _, name := range []string{"_a._tcp", "_b." + strings.Repeat("x", 60)} {
			r.Spec.Services = append(r.Spec.Services, v1alpha1.Service{Type: v1alpha1.ServiceSRV, Name: name, Port: &port})
		}
		for i := range steering.MaxRules * steering.MaxNetworks {
			if i%steering.MaxNetworks == 0 {
				r.Spec.Match = append(r.Spec.Match, v1alpha1.Match{Pools: []string{r.Spec.Pools[0].Name}})
			}
			m := &r.Spec.Match[len(r.Spec.Match)-1]
			m.Networks = append(m.Networks, v1alpha1.CIDR(fmt.Sprintf("2001:db8:aaaa:bbbb:cccc:dddd:eeee:%x/128", 0x1000+i)))
		}
		return r
	}
	decide := func(padding int) (*render.Steered, *render.SteeredDecision) {
		steered, _ := steer(payZone(), nil, nil, nil, record(padding))
		return steered, steered.Decisions[types.NamespacedName{Namespace: "payments", Name: "app"}]
	}
	first := sort.Search(2000, func(padding int) bool { // at which the longest SRV record does not fit
		_, d := decide(padding)
		return d.Refused != nil
	})
	for padding := first - 1; padding < first+6; padding++ {
		steered, d := decide(padding)
		if d.Refused == nil != (padding < first) || d.Refused != nil && !strings.Contains(d.Refused.Error(), "too large") {
			t.Fatalf("with %d octets of padding it is refused: %v", padding, d.Refused)
		}
		if served := steered.Any(); served != (d.Refused == nil) || (d.Record != nil) != served {
			t.Errorf("with %d octets of padding it is refused: %v, and some of it is served: %v", padding, d.Refused, served)
		}
	}
}

func TestWhatIsKeptOfARefusedRecordStaysAlone(t *testing.T) {
	z := payZone()
	z.Spec.AllowedRecords[0].Hosts, z.Spec.AllowedRecords[0].Namespaces.From = []string{"*"}, v1alpha1.NamespacesFromAll
	_, before := steer(z, nil, nil, nil, dynamic("payments", "r", "a", time.Hour, "cdn.example"))
	text := []render.Source{{Name: "configmap/z/z", Text: "a TXT x\n", Version: "1"}}
	_, after := steer(z, before.Content, nil, text, dynamic("payments", "r", "a", time.Hour, "a.pay.bank")) // itself
	if diff := cmp.Diff(recordsText(before.Content), recordsText(after.Content)); diff != "" {
		t.Errorf("a CNAME is not alone (-before +after):\n%s", diff)
	}
}
