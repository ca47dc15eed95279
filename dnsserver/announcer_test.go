package dnsserver

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// announcing is a server without sockets, what is told of it, and what it keeps on disk.
type announcing struct {
	t       *testing.T
	disk    keptState
	hub     *hubSource
	serving *control.Installed // of the zone bank
	serial  uint32
	down    map[string]bool // addresses
	checks  map[health.CheckID]string
	heard   []changes.Change
	states  []uint64 // in the order in which they were told
}

// start begins from disk, like a process.
func (a *announcing) start() {
	a.t.Helper()
	s, _ := testSteerer(a.t, a.disk)
	clear(a.checks)
	a.hub = &hubSource{view: s.opts.View, steerer: s, announcer: newAnnouncer(s.opts.View, logr.Discard())}
	s.opts.Changed = func(c changes.Change) { a.heard = append(a.heard, c) }
	s.opts.Leads = a.hub.announcer.aliases.Replace
	body, err := proto.Marshal(&steeringpb.Topology{Datacenters: []*steeringpb.Datacenter{
		{Name: "dc-a", Servers: []*steeringpb.Server{{Group: "authoritative", Name: "auth-0"}}},
	}})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := s.document(documentTopology, body); err != nil {
		a.t.Fatal(err)
	}
	if a.serving != nil {
		a.install(nil, a.serving)
	}
	a.hub.announcer.complete.Store(true)
	a.settle()
}

// stop keeps what a process does.
func (a *announcing) stop() { a.hub.steerer.save() }

// install has the view answer from another version.
func (a *announcing) install(before, after *control.Installed) {
	a.t.Helper()
	const apex = zone.Name("\x04bank\x00")
	if after == nil {
		a.hub.view.Update(nil, []zone.Name{apex})
	} else {
		served, err := zone.NewServed(after.Content, after.Version)
		if err != nil {
			a.t.Fatal(err)
		}
		a.hub.view.Update([]*zone.Served{served}, nil)
	}
	a.hub.zoneChanged(apex, before, after)
	a.serving = after
}

// edit publishes the zone with steered names: each label has the source of its record and the addresses or names of its pools,
// the first of which is answered if it is up.
func (a *announcing) edit(names map[string]string) {
	a.t.Helper()
	const apex = zone.Name("\x04bank\x00")
	soa := zone.SOA{MName: apex, RName: apex, Minimum: 60}
	nodes := []zone.Node{zone.NewNode(apex, zone.NewRRset(zone.TypeSOA, 60, soa.Pack()))}
	for label, text := range names {
		words := strings.Fields(text)
		r := &steeringpb.Record{
			Source: words[0], Ttl: 5, Policy: steeringpb.Policy_FAILOVER,
			Probes: []*steeringpb.Probe{{Source: "payments/tcp", Interval: 1000, Timeout: 500, FailureThreshold: 1, SuccessThreshold: 1,
				Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: 443}}}},
		}
		for _, to := range words[1:] {
			target := &steeringpb.Target{Address: to, Weight: 1}
			if strings.HasSuffix(to, ".") {
				target = &steeringpb.Target{Name: to, ProbeAddress: "192.0.2.1", Weight: 1}
			}
			r.Pools = append(r.Pools, &steeringpb.Pool{Name: to, Targets: []*steeringpb.Target{target}, Probes: []uint32{0}})
		}
		rdata, err := proto.Marshal(r)
		if err != nil {
			a.t.Fatal(err)
		}
		owner, err := zone.ParseName(label, apex)
		if err != nil {
			a.t.Fatal(err)
		}
		nodes = append(nodes, zone.NewNode(owner, zone.NewRRset(zone.TypeSteered, 0, rdata)))
	}
	content, err := zone.NewContent(apex, nodes)
	if err != nil {
		a.t.Fatal(err)
	}
	a.serial++
	a.install(a.serving, &control.Installed{Content: content, Version: zone.Version{Serial: a.serial, Digest: content.Digest()}})
	a.settle()
}

// settle has probes find what is down, until that is decided.
func (a *announcing) settle() {
	a.t.Helper()
	s := a.hub.steerer
	for range 6 {
		out, _, _, _ := s.decide() //nolint:dogsled // what is to be probed is all that matters
		for _, c := range out.Run {
			a.checks[c.ID] = c.Address
		}
		for id, address := range a.checks {
			result := health.Result{Outcome: health.Up}
			if a.down[address] {
				result.Outcome = health.Down
			}
			s.machine.Result(time.Now(), id, result)
		}
		time.Sleep(time.Second) // of the bubble
	}
	s.decide()
}

// says returns what was told since it was called last: states are letters, in the order in which they were heard of, and "-"
// that of a name that is not steered.
func (a *announcing) says() string {
	letter := func(state uint64) string {
		if state == 0 {
			return "-"
		}
		i := slices.Index(a.states, state)
		if i < 0 {
			i = len(a.states)
			a.states = append(a.states, state)
		}
		return string(rune('A' + i))
	}
	var all []string
	for _, c := range a.heard {
		text := c.Name.String()
		for _, state := range c.Before {
			text += " " + letter(state) + ">" + letter(c.After)
		}
		if c.Serial != 0 {
			text += fmt.Sprintf(" #%d", c.Serial)
		}
		if len(c.Before) > 0 && a.hub.view.State(c.Apex, c.Name) != c.After {
			a.t.Errorf("%s is told, but the name is in another state", text)
		}
		all = append(all, text)
	}
	a.heard = nil
	return strings.Join(all, "; ")
}

func TestSteeredNamesAreToldByTheirStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &announcing{t: t, disk: keptState{}, down: map[string]bool{}, checks: map[health.CheckID]string{}}
		expect := func(sentence, want string) {
			t.Helper()
			if got := a.says(); got != want {
				t.Errorf("%s: told %q, wanted %q", sentence, got, want)
			}
		}
		a.start()
		app := map[string]string{"app": "payments/app 192.0.2.1 192.0.2.2"}
		a.edit(app)
		expect("a name that is new to a server that is not", "app.bank. ->A")
		a.down["192.0.2.1"] = true
		a.settle()
		expect("it fails over", "app.bank. A>B")
		a.stop()
		a.start()
		expect("a restart", "")
		a.stop()
		a.down = map[string]bool{"192.0.2.2": true}
		a.start()
		expect("its targets changed during a restart", "app.bank. B>A")
		app["app"] = "payments/other 192.0.2.2 192.0.2.3"
		a.edit(app)
		expect("another record has the name: what is between is not told", "app.bank. A>C")
		app["app"] = "payments/other 192.0.2.3 192.0.2.2"
		a.edit(app)
		expect("its targets are in another order, and the answer the same", "")
		app["app"] = "payments/other 192.0.2.4"
		a.edit(app)
		expect("it has another target", "app.bank. C>D")
		a.edit(map[string]string{"any": "payments/any 192.0.2.5"})
		expect("it is not steered any more, and another is", "app.bank. D>-; any.bank. ->E")
		before := a.serving
		a.install(before, nil)
		expect("the zone goes", "any.bank.")
		a.install(nil, before)
		a.settle()
		expect("the zone comes back", "any.bank. ->E")
		a.stop()

		remember := regexp.MustCompile(`"state":\d+`)
		forge := func(with string) {
			for key, value := range a.disk {
				a.disk[key] = remember.ReplaceAll(value, []byte(with))
			}
		}
		forge(`"state":1234`)
		a.start()
		expect("a restart before which it was answered otherwise", "any.bank. F>E")
		a.stop()
		forge(`"unknown":1234`)
		a.start()
		expect("a restart before which nobody knows how it was answered", "")
	})
}

func TestNamesThatAreAliasesByTurnsAreKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &announcing{t: t, disk: keptState{}, down: map[string]bool{}, checks: map[health.CheckID]string{}}
		a.start()
		expect := func(sentence, of string, want ...string) {
			t.Helper()
			name, err := zone.ParseName(of, "")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, alias := range a.hub.announcer.aliases.Of(name) {
				got = append(got, alias.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: aliases of %s are %q, wanted %q", sentence, of, got, want)
			}
		}
		a.edit(map[string]string{"www": "payments/www one.bank. two.bank."})
		expect("answered now", "one.bank.", "www.bank.")
		expect("answered when the other is down", "two.bank.", "www.bank.")
		a.edit(map[string]string{"www": "payments/www one.bank. three.bank."})
		expect("a target that is none any more", "two.bank.")
		expect("a new target", "three.bank.", "www.bank.")
		a.edit(map[string]string{})
		expect("a name that is gone", "one.bank.")
	})
}
