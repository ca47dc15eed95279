package controllers

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

func TestWhatCountsAsPublished(t *testing.T) {
	v := func(serial uint32, digest byte) zone.Version {
		return zone.Version{Serial: serial, Digest: zone.Digest{digest}}
	}
	for rule, c := range map[string]struct {
		stated    zone.Version
		others    []zone.Version
		want      zone.Version
		contested bool
	}{
		"nothing, where nobody knows anything":                           {},
		"the status, while servers are older or have nothing":            {stated: v(5, 1), others: []zone.Version{v(4, 2), {}, v(5, 1)}, want: v(5, 1)},
		"what servers hold, where the status was lost":                   {others: []zone.Version{v(7, 3), v(9, 1), v(8, 2)}, want: v(9, 1)},
		"what a server holds, where the status is from a backup":         {stated: v(5, 1), others: []zone.Version{v(9, 2)}, want: v(9, 2)},
		"so it is where the backup has the same content":                 {stated: v(5, 1), others: []zone.Version{v(9, 1)}, want: v(9, 1)},
		"over the wrap of serials too":                                   {stated: v(1<<32-2, 1), others: []zone.Version{v(3, 2)}, want: v(3, 2)},
		"not what is too far ahead to be true":                           {stated: v(5, 1), others: []zone.Version{v(6+1<<30, 2), v(6+1<<31, 2)}, want: v(5, 1)},
		"a serial that stands for two contents is contested":             {stated: v(5, 1), others: []zone.Version{v(5, 2)}, want: v(5, 1), contested: true},
		"also if the second is seen first":                               {stated: v(5, 1), others: []zone.Version{v(5, 2), v(5, 1)}, want: v(5, 1), contested: true},
		"a later one ends that":                                          {stated: v(5, 1), others: []zone.Version{v(5, 2), v(6, 3)}, want: v(6, 3)},
		"servers that hold two contents of a serial contest it likewise": {others: []zone.Version{v(6, 1), v(6, 2)}, want: v(6, 1), contested: true},
	} {
		t.Run(rule, func(t *testing.T) {
			if got, contested := latest(c.stated, c.others...); got != c.want || contested != c.contested {
				t.Errorf("%v, contested %v; want %v, %v", got, contested, c.want, c.contested)
			}
		})
	}
}

// TestObjectsThatWaitForTheBudgetAskOnce has a thousand zones wait at once, as when a
// datacenter is away: each is told when its turn comes, and finds it granted then.
func TestObjectsThatWaitForTheBudgetAskOnce(t *testing.T) {
	b := NewStatusBudget(50)
	start := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	next := map[types.NamespacedName]time.Time{}
	for i := range 1000 {
		next[types.NamespacedName{Name: fmt.Sprint(i)}] = start
	}
	calls := map[types.NamespacedName]int{}
	last := start
	for len(next) > 0 {
		now := time.Time{}
		for _, at := range next {
			if now.IsZero() || at.Before(now) {
				now = at
			}
		}
		for key, at := range next {
			if at.After(now) {
				continue
			}
			calls[key]++
			if wait := b.Wait(key, now, time.Second); wait > 0 {
				next[key] = now.Add(wait)
				continue
			}
			b.Wrote(key, now)
			delete(next, key)
			last = now
		}
	}
	for key, n := range calls {
		if n > 3 { // when it differs, when that has lasted, when it is its turn
			t.Errorf("%s asked %d times", key.Name, n)
		}
	}
	if took := last.Sub(start); took < 19*time.Second || took > 21*time.Second {
		t.Errorf("1000 writes took %s at 50 a second", took)
	}
}

// newTestEstate has a hub without servers, and zones in an apex namespace.
func newTestEstate() (*EstateReconciler, func(names ...string) (decide []types.NamespacedName)) {
	hub := control.NewHub(control.HubOptions{Log: logr.Discard(), Cluster: "test"})
	r := &EstateReconciler{
		Hub: hub, ApexNamespaces: []string{"dns"}, Settled: func() bool { return true }, Call: func(types.NamespacedName) {},
		Changed: make(chan event.GenericEvent, 1), OnComplete: func() {}, OnDecision: func() {},
	}
	return r, func(names ...string) []types.NamespacedName {
		e := render.Estate{ApexNamespaces: r.ApexNamespaces, Datacenters: []*v1alpha1.Datacenter{{
			ObjectMeta: metav1.ObjectMeta{Name: "dc-a"},
			Spec:       v1alpha1.DatacenterSpec{ServerGroups: []v1alpha1.ServerGroup{{Name: "g", Addresses: []v1alpha1.IP{"192.0.2.1"}}}},
		}}}
		for _, name := range names {
			z := &v1alpha1.DNSZone{Spec: v1alpha1.DNSZoneSpec{Name: name, ServerGroup: "g"}}
			z.Namespace, z.Name = "dns", name
			e.Zones = append(e.Zones, z)
		}
		return r.replace(e, render.Hierarchy(e), true)
	}
}

func TestAZoneThatLostItsPlaceIsNotPublishedByWhoHadBegun(t *testing.T) {
	r, decide := newTestEstate()
	decide("a", "b")
	key := types.NamespacedName{Namespace: "dns", Name: "a"}
	z := &v1alpha1.DNSZone{Spec: v1alpha1.DNSZoneSpec{Name: "a", ServerGroup: "g"}}
	z.Namespace, z.Name = key.Namespace, key.Name
	place, decided := r.Placement(z)
	if !decided {
		t.Fatal("nothing is decided")
	}
	result := render.Zone(render.Inputs{Zone: z, Placement: place}, nil)
	version := zone.Version{Serial: 1, Digest: result.Content.Digest()}
	publish := func() { r.Hub.Publish(control.Zone{Content: result.Content, Version: version}) }
	if called := decide("a", "b", "c"); len(called) != 1 || called[0].Name != "c" {
		t.Errorf("a decision about c calls for %v", called)
	}
	if !r.Publish(key, place, nil, publish) || r.Hub.Zone(place.Apex).Wanted != version {
		t.Fatal("a decision about another zone stops this one")
	}
	decide("b") // while its reconciler was at work, the zone was deleted
	if r.Publish(key, place, nil, publish) || !r.Hub.Zone(place.Apex).Wanted.IsZero() {
		t.Error("the zone was published after it was withdrawn")
	}
}

func TestAMemberThatComesAndGoesDoesNotWriteEachTime(t *testing.T) {
	key, start := types.NamespacedName{Namespace: "dns", Name: "office"}, time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	p, writes := writePace{}, 0
	const span = 10 * time.Minute
	for after := time.Duration(0); after < span; after += 3 * time.Second {
		if now := start.Add(after); p.wait(key, now) <= 0 {
			p.wrote(key, now)
			writes++
		}
	}
	if most := poolWrites + int(span/poolInterval); writes > most || writes < most-2 {
		t.Errorf("%d writes in %s, of %d", writes, span, most)
	}
	later := start.Add(span + poolWrites*poolInterval)
	for i := range poolWrites {
		if wait := p.wait(key, later); wait > 0 {
			t.Fatalf("after a quiet time write %d waits for %s", i, wait)
		}
		p.wrote(key, later)
	}
	if wait := p.wait(key, later); wait <= 0 || wait > poolInterval {
		t.Errorf("after %d writes the next waits for %s", poolWrites, wait)
	}
}

func TestAddressesThatNoMemberTellsLapseAfterAnHour(t *testing.T) {
	now := clocktesting.NewFakeClock(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	r := &PoolReconciler{Clock: now}
	p := &v1alpha1.ResolverPool{Status: v1alpha1.ResolverPoolStatus{SourceAddresses: []v1alpha1.IP{"10.0.0.1", "10.0.0.2"}}}
	agents := []render.PoolAgent{{Report: &pool.Report{Source: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}}
	look := func(after time.Duration, agents []render.PoolAgent, want string) {
		t.Helper()
		now.Step(after)
		lapsed, next := r.lapsed(p, agents)
		if got := fmt.Sprint(slices.Sorted(maps.Keys(lapsed)), next); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	look(0, agents, "[] 1h0m0s")
	look(50*time.Minute, agents, "[] 10m0s")
	look(0, nil, "[] 10m0s")
	look(10*time.Minute, nil, "[10.0.0.2] 50m0s")
	look(50*time.Minute, nil, "[10.0.0.1 10.0.0.2] 0s")
	look(0, agents, "[10.0.0.2] 0s")
}

// TestATroubleThatLastsIsToldOnce: what agents tell every few seconds about the same trouble is the same to statuses.
func TestATroubleThatLastsIsToldOnce(t *testing.T) {
	told := 0
	r := &PoolReports{OnPool: func(types.NamespacedName) { told++ }}
	id := control.ServerID{Datacenter: "dc-a", Group: pool.GroupName("dns", "office"), Name: "unbound-1"}
	for i := range 5 {
		body, err := json.Marshal(pool.Report{
			At: time.Now(), Engine: engine.Unbound, NotReady: fmt.Sprintf("Unbound has not answered for %d.5s", i),
			Refused:   fmt.Sprintf("with its new configuration it does not resolve fingerpost-check-%08x.corp.", i),
			Recursion: &pool.Recursion{Seconds: float64(i), Why: fmt.Sprintf("fingerpost-check-%08x.corp.: read udp 127.0.0.1:%d->127.0.0.1:53: i/o timeout", i, 40000+i)},
			Flush:     pool.Flush{Waiting: i, Outcomes: map[string]uint64{"Confirmed": uint64(i)}}, Counters: map[string]float64{"queries": float64(i)},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.Take(id, body)
	}
	if told != 1 {
		t.Errorf("one trouble was told %d times", told)
	}
	if got, want := r.Of(id).Recursion.Why, "*.corp.: read udp 127.0.0.1->127.0.0.1:53: i/o timeout"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
	if got, want := r.Of(id).NotReady, "Unbound has not answered for long"; got != want {
		t.Errorf("it is %q, want %q", got, want)
	}
}
