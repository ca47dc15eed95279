package render_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// officeIn is a pool of one Unbound and one Knot Resolver in each of dc-a and dc-b, which are told configuration 2, and whose
// members go by it, answer, and are told of changes.
func officeIn(management v1alpha1.ResolverPoolManagement) render.PoolStatusInputs {
	in := render.PoolStatusInputs{Now: metav1.NewTime(time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)), Pool: &v1alpha1.ResolverPool{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dns-root", Name: "office", Generation: 3},
		Spec: v1alpha1.ResolverPoolSpec{
			Class: "office", Management: management,
			Members: []v1alpha1.ResolverMember{{Engine: v1alpha1.EngineUnbound, Replicas: new(int32(1))}, {Engine: v1alpha1.EngineKnotResolver, Replicas: new(int32(1))}},
		},
	}}
	for i, dc := range []string{"dc-a", "dc-b"} {
		in.Configs = append(in.Configs, render.PoolDatacenter{Name: dc, Digest: "2"})
		for j, product := range []engine.Product{engine.KnotResolver, engine.Unbound} {
			at := netip.MustParseAddr(fmt.Sprintf("10.%d.0.%d", i+1, 53+j))
			in.Agents = append(in.Agents, render.PoolAgent{Datacenter: dc, Name: strings.ToLower(string(product)), Report: &pool.Report{
				Engine: product, Ready: true, Configuration: "2", Newest: "2", Recursion: &pool.Recursion{OK: true},
				Listen: []netip.AddrPort{netip.AddrPortFrom(at, 53)}, Source: []netip.Addr{at}, Flush: pool.Flush{Notifiers: []string{"10.1.0.1:8054"}},
			}})
		}
	}
	return in
}

func TestPoolStatus(t *testing.T) {
	report := func(in *render.PoolStatusInputs, i int, change func(r *pool.Report)) { change(in.Agents[i].Report) }
	for sentence, tc := range map[string]struct {
		management v1alpha1.ResolverPoolManagement
		change     func(in *render.PoolStatusInputs)
		ready      string   // column READY-MEMBERS
		want       []string // conditions, as TYPE STATUS REASON: and a part of the message
	}{
		"all is well": {"External", func(*render.PoolStatusInputs) {}, "4/4", []string{
			"Accepted True Accepted: ", "Programmed True Programmed: ", "Ready True Ready: ", "Degraded False Healthy: ", "RecursionWorks True RecursionWorks: ", "Flushable True Flushable: ",
		}},
		"a member that refuses keeps the pool from being programmed, and is named with its complaint": {"External", func(in *render.PoolStatusInputs) {
			report(in, 1, func(r *pool.Report) {
				r.Configuration, r.Newest, r.Refused = "1", "2", "unbound.conf:12: error: unknown keyword"
			})
		}, "4/4", []string{"Accepted True", "Programmed False Rejected: refused, what was in force before stays: dc-a/unbound (Unbound): unbound.conf:12: error", "Ready False Rejected"}},
		"a complaint about another configuration is old": {"External", func(in *render.PoolStatusInputs) {
			report(in, 1, func(r *pool.Report) { r.Configuration, r.Newest, r.Refused = "0", "1", "unbound.conf:12: error" })
		}, "4/4", []string{"Programmed False Pending: 1 of 4"}},
		"a refusal that only the hub has heard of counts": {"External", func(in *render.PoolStatusInputs) {
			in.Agents[0].Nack = "kresd.conf:3: no"
			report(in, 0, func(r *pool.Report) { r.Configuration, r.Newest = "1", "1" })
		}, "4/4", []string{"Programmed False Rejected: refused, what was in force before stays: dc-a/knotresolver (KnotResolver): kresd.conf:3: no"}},
		"a member that was never told is waited for": {"External", func(in *render.PoolStatusInputs) {
			in.Agents[0].Report = nil
		}, "3/4", []string{"Programmed False Pending: 1 of 4", "Degraded True MembersNotReady: members that answer: dc-a: 0 of 1 KnotResolver"}},
		"one member less is degraded, and ready": {"External", func(in *render.PoolStatusInputs) {
			report(in, 0, func(r *pool.Report) { r.Ready, r.NotReady = false, "the engine does not answer" })
		}, "3/4", []string{"Ready True Ready: ", "Degraded True MembersNotReady: members that answer: dc-a: 0 of 1 KnotResolver"}},
		"a datacenter whose members do not answer is not ready": {"External", func(in *render.PoolStatusInputs) {
			for i := range 2 {
				report(in, i, func(r *pool.Report) { r.Ready = false })
			}
		}, "2/4", []string{"Programmed True", "Ready False NoReadyMembers: no member answers in dc-a"}},
		"a datacenter that is not connected is degraded, and the pool ready: nobody knows": {"External", func(in *render.PoolStatusInputs) {
			in.Agents = in.Agents[:2]
		}, "2/4", []string{"Programmed True", "Ready True", "Degraded True DatacenterUnreachable: no member is connected in dc-b"}},
		"nobody is connected": {"External", func(in *render.PoolStatusInputs) { in.Agents = nil }, "0/4", []string{
			"Programmed False NoServers: ", "Ready False NoServers: ", "RecursionWorks Unknown NotChecked: ", "Flushable Unknown Pending: ",
		}},
		"a dead tier of servers leaves the pool ready": {"External", func(in *render.PoolStatusInputs) {
			report(in, 3, func(r *pool.Report) { r.Recursion = &pool.Recursion{Why: "x.pay.corp.: SERVFAIL"} })
		}, "4/4", []string{"Ready True", "RecursionWorks False RecursionFails: 1 of 4 members do not get from the root to the leaves: dc-b/unbound (Unbound): x.pay.corp.: SERVFAIL"}},
		"a member that hears of no changes is named": {"External", func(in *render.PoolStatusInputs) {
			report(in, 2, func(r *pool.Report) { r.Flush.Notifiers = nil })
		}, "4/4", []string{"Ready True", "Flushable False NotNotified: ", "dc-b/knotresolver (KnotResolver)"}},
		"what Unbound keeps for clients' networks can't be flushed": {"External", func(in *render.PoolStatusInputs) {
			in.Pool.Spec.ECS = &v1alpha1.ResolverECS{Zones: []v1alpha1.DomainName{"pay.corp"}}
		}, "4/4", []string{"Flushable False ECSNotFlushable: ", ": pay.corp."}},
		"one that is no member is named": {"External", func(in *render.PoolStatusInputs) {
			in.Agents = append(in.Agents, render.PoolAgent{Datacenter: "dc-a", Name: "stray", Report: &pool.Report{
				Engine: engine.Recursor, Ready: true, Configuration: "2", Recursion: &pool.Recursion{OK: true}, Flush: pool.Flush{Notifiers: []string{"a:1"}},
			}})
		}, "5/5", []string{"Degraded True UnknownMembers: ", "dc-a/stray (Recursor)"}},
		"without a root zone members go on as they are": {"External", func(in *render.PoolStatusInputs) {
			for i := range in.Configs {
				in.Configs[i] = render.PoolDatacenter{Name: in.Configs[i].Name, Refused: render.Refuse(v1alpha1.ReasonNoRootZone, "there is no root")}
			}
		}, "4/4", []string{"Accepted False NoRootZone: there is no root", "Programmed False NotAccepted: members that this is about are told nothing new", "Ready False NoRootZone: there is no root", "Degraded False"}},
		"a pool that is refused as a whole keeps its members in sight": {"External", func(in *render.PoolStatusInputs) {
			in.Pool.Status = render.PoolStatus(officeIn("External"))
			in.Refused, in.Configs = render.Refuse(v1alpha1.ReasonUnknownDatacenter, "there is no dc-c"), nil
		}, "4/4", []string{"Accepted False UnknownDatacenter: there is no dc-c", "Degraded False Healthy"}},
		"a datacenter that is not there is said, and the others are told": {"External", func(in *render.PoolStatusInputs) {
			in.Refused = render.Refuse(v1alpha1.ReasonUnknownDatacenter, "there is no dc-c")
		}, "4/4", []string{"Accepted False UnknownDatacenter: there is no dc-c", "Programmed False NotAccepted: members that this is about", "Degraded False Healthy"}},
		"pods count, not their agents": {"Managed", func(in *render.PoolStatusInputs) {
			in.Pods = &render.PoolPods{Counts: map[render.MemberPlace]render.PodCount{
				{Datacenter: "dc-a", Engine: "Unbound"}: {Desired: 2, Ready: 1}, {Datacenter: "dc-a", Engine: "KnotResolver"}: {Desired: 1, Ready: 1},
				{Datacenter: "dc-b", Engine: "Unbound"}: {Desired: 1, Ready: 0}, {Datacenter: "dc-b", Engine: "KnotResolver"}: {Desired: 1, Ready: 0},
			}, Troubles: []render.Refusal{render.Refuse(v1alpha1.ReasonPodsPending, "dc-b: no node")}}
		}, "2/5", []string{"Ready False NoReadyMembers: no member answers in dc-b", "WorkloadsReady False PodsPending: dc-b: no node", "ClientAddressesKept True"}},
		"nodes in the clients' place are said": {"Managed", func(in *render.PoolStatusInputs) {
			in.Pool.Spec.Exposure = &v1alpha1.ResolverExposure{Type: v1alpha1.ResolverLoadBalancer, ExternalTrafficPolicy: v1alpha1.TrafficCluster}
		}, "4/4", []string{"ClientAddressesKept False TrafficPolicy: "}},
	} {
		t.Run(sentence, func(t *testing.T) {
			in := officeIn(tc.management)
			tc.change(&in)
			s := render.PoolStatus(in)
			var got []string
			for _, c := range s.Conditions {
				got = append(got, fmt.Sprintf("%s %s %s: %s", c.Type, c.Status, c.Reason, c.Message))
			}
			all := strings.Join(got, "\n")
			for _, want := range tc.want {
				if !strings.Contains(all, want) {
					t.Errorf("no condition is %q:\n%s", want, all)
				}
			}
			if s.ReadyMembers != tc.ready || s.Datacenters != "dc-a,dc-b" || s.Engines != "KnotResolver,Unbound" || s.ObservedGeneration != 3 {
				t.Errorf("ready %s of %s in %s, generation %d", s.ReadyMembers, s.Engines, s.Datacenters, s.ObservedGeneration)
			}
			in.Pool.Status = s
			in.Now = metav1.NewTime(in.Now.Add(time.Hour))
			if diff := cmp.Diff(s, render.PoolStatus(in)); diff != "" {
				t.Errorf("nothing has changed, and the status is another one:\n%s", diff)
			}
		})
	}
}

// TestWhatMembersSayOfTheirAddressesIsBounded: name servers do not limit who asks from there.
func TestWhatMembersSayOfTheirAddressesIsBounded(t *testing.T) {
	in := officeIn("External")
	in.Agents = in.Agents[:1]
	report := in.Agents[0].Report
	report.Source = nil
	for _, text := range []string{"0.0.0.0", "224.0.0.1", "fe80::1%eth0", "::ffff:10.1.0.53", "10.9.9.9", "2001:db8::53", "2001:db8::9", "10.9.9.10"} {
		report.Source = append(report.Source, netip.MustParseAddr(text))
	}
	if got := fmt.Sprint(render.PoolStatus(in).SourceAddresses); got != "[10.1.0.53 2001:db8::53]" {
		t.Errorf("a member that tells many asks from %s", got)
	}
	in.Pool.Status.SourceAddresses = []v1alpha1.IP{"10.1.0.54", "10.1.0.99"}
	in.Lapsed = map[v1alpha1.IP]bool{"10.1.0.99": true}
	if got := fmt.Sprint(render.PoolStatus(in).SourceAddresses); got != "[10.1.0.53 10.1.0.54 2001:db8::53]" {
		t.Errorf("after one has lapsed they ask from %s", got)
	}
	for i := range 2000 {
		in.Pool.Status.SourceAddresses = append(in.Pool.Status.SourceAddresses, v1alpha1.IP(fmt.Sprintf("10.0.%d.%d", i/250, i%250)))
	}
	if got := render.PoolStatus(in).SourceAddresses; len(got) != 1024 || !slices.Contains(got, "10.1.0.53") || !slices.Contains(got, "2001:db8::53") {
		t.Errorf("of too many addresses %d are kept, without those of the member that is there", len(got))
	}
}

func TestSourcesOfMembersThatAreAwayStay(t *testing.T) {
	in := officeIn("External")
	in.Pool.Status = render.PoolStatus(in)
	if got := fmt.Sprint(in.Pool.Status.SourceAddresses); got != "[10.1.0.53 10.1.0.54 10.2.0.53 10.2.0.54]" {
		t.Errorf("they ask from %s", got)
	}
	moved := officeIn("External")
	moved.Pool.Status = in.Pool.Status
	moved.Agents = moved.Agents[:3]
	moved.Agents[0].Report.Source = []netip.Addr{netip.MustParseAddr("10.1.0.99")}
	s := render.PoolStatus(moved)
	if got := fmt.Sprint(s.SourceAddresses); got != "[10.1.0.53 10.1.0.54 10.1.0.99 10.2.0.53 10.2.0.54]" {
		t.Errorf("while one is away they ask from %s", got)
	}
	back := officeIn("External")
	back.Pool.Status = s
	back.Agents[0].Report.Source = moved.Agents[0].Report.Source
	if got := fmt.Sprint(render.PoolStatus(back).SourceAddresses); got != "[10.1.0.54 10.1.0.99 10.2.0.53 10.2.0.54]" {
		t.Errorf("when all are there they ask from %s", got)
	}
	if c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionDegraded); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("Degraded is %+v", c)
	}
}
