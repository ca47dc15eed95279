package health_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// lab is machines whose messages arrive at once, in a time that tests set. Every second, and after every result, they
// step and anchors answer.
type lab struct {
	t       *testing.T
	now     time.Time
	topo    *steeringpb.Topology
	records []*steeringpb.Record
	m       map[string]*health.Machine // by server name
	ids     map[string]health.ServerID
	boots   uint64
	disk    map[string]map[string][]byte
	apart   map[string]bool // servers that no message reaches or leaves
	drop    func() bool     // whether the next message is lost; nil: none is
	silent  map[string]bool // datacenters whose anchors do not answer themselves
	events  map[string][]health.Event
	changed map[string]map[string]int
	sent    map[string]int // messages but heartbeats, by sender
	running map[string][]health.Check
	depth   int // of messages that follow from each other
}

func newLab(t *testing.T, topo *steeringpb.Topology, records ...*steeringpb.Record) *lab {
	t.Helper()
	l := &lab{
		t: t, now: epoch, topo: topo, records: records, m: map[string]*health.Machine{}, ids: map[string]health.ServerID{},
		disk: map[string]map[string][]byte{}, apart: map[string]bool{}, silent: map[string]bool{}, events: map[string][]health.Event{},
		changed: map[string]map[string]int{}, sent: map[string]int{}, running: map[string][]health.Check{},
	}
	for _, d := range topo.GetDatacenters() {
		for _, s := range d.GetServers() {
			l.ids[s.GetName()] = health.ServerID{Datacenter: d.GetName(), Group: s.GetGroup(), Name: s.GetName()}
			l.disk[s.GetName()] = map[string][]byte{}
		}
	}
	for name := range l.each() {
		l.start(name)
	}
	l.pass(3 * time.Second)
	return l
}

// each are the servers' names, in order.
func (l *lab) each() func(func(string) bool) {
	return slices.Values(slices.Sorted(maps.Keys(l.ids)))
}

func (l *lab) start(name string) {
	var stored []health.Stored
	for k, v := range l.disk[name] {
		stored = append(stored, health.Stored{Key: []byte(k), Value: v})
	}
	l.boots++
	l.m[name] = health.New(l.ids[name], l.boots, l.now, stored)
	l.events[name], l.changed[name], l.running[name] = nil, map[string]int{}, nil
	l.m[name].SetTopology(l.now, l.topo)
	for _, r := range l.records {
		l.m[name].SetRecord(l.now, r)
	}
	l.step(name)
	for peer := range l.each() {
		if l.m[peer] != nil && peer != name && !l.apart[peer] && !l.apart[name] {
			l.m[name].Connected(l.now, l.ids[peer])
			l.m[peer].Connected(l.now, l.ids[name])
			l.step(peer)
		}
	}
	l.step(name)
}

func (l *lab) kill(name string) { delete(l.m, name) }

func (l *lab) step(name string) {
	m := l.m[name]
	if m == nil {
		return
	}
	if l.depth++; l.depth > 200 {
		l.t.Fatalf("%s: messages beget messages without end", l.now.Sub(epoch))
	}
	defer func() { l.depth-- }()
	out := m.Step(l.now)
	if l.depth > 190 {
		for _, e := range out.Send {
			l.t.Logf("%s tells %s: heartbeat %v ballots %v ask %v table %v latches %v", name, e.To, e.Message.Heartbeat, e.Message.Ballots, e.Message.Ask != nil, e.Message.Table, e.Message.Latches)
		}
	}
	l.events[name] = append(l.events[name], out.Events...)
	l.running[name] = slices.DeleteFunc(l.running[name], func(c health.Check) bool { return slices.Contains(out.Stop, c.ID) })
	l.running[name] = append(l.running[name], out.Run...)
	for _, source := range out.Changed {
		l.changed[name][source]++
	}
	for _, s := range m.Unsaved(l.now) {
		l.disk[name][string(s.Key)] = s.Value
		if s.Value == nil {
			delete(l.disk[name], string(s.Key))
		}
	}
	for _, e := range out.Send {
		if e.Message.Heartbeat == nil {
			l.sent[name]++
		}
		for peer := range l.each() {
			if l.m[peer] == nil || peer == name || l.apart[name] || l.apart[peer] || e.To != (health.ServerID{}) && e.To != l.ids[peer] {
				continue
			}
			if l.drop == nil || !l.drop() {
				l.m[peer].Receive(l.now, l.ids[name], e.Message)
				l.step(peer)
			}
		}
	}
}

// pass lets time pass.
func (l *lab) pass(d time.Duration) {
	for until := l.now.Add(d); l.now.Before(until); {
		l.now = l.now.Add(min(time.Second, until.Sub(l.now)))
		for name := range l.each() {
			if m := l.m[name]; m != nil {
				for _, d := range l.topo.GetDatacenters() {
					if len(d.GetAnchors()) > 0 {
						m.AnchorRound(l.now, d.GetName(), !l.silent[l.ids[name].Datacenter])
					}
				}
				l.step(name)
			}
		}
	}
}

// see has a server see results of all of its checks of an address, one after the other at once.
func (l *lab) see(name, address, letters string) {
	l.t.Helper()
	found := false
	for _, c := range l.running[name] {
		if c.Address == address {
			found = true
			for _, r := range results(letters) {
				l.m[name].Result(l.now, c.ID, r)
				l.step(name)
			}
		}
	}
	if !found {
		l.t.Fatalf("%s does not probe %s", name, address)
	}
}

// all have several servers see the same.
func (l *lab) all(names, address, letters string) {
	l.t.Helper()
	for name := range strings.FieldsSeq(names) {
		l.see(name, address, letters)
	}
}

func (l *lab) view(name, source string) health.View {
	l.t.Helper()
	v, ok := l.m[name].View(l.now, source)
	if !ok {
		l.t.Fatalf("%s has no view of %s", name, source)
	}
	return v
}

// states writes what a server knows of a record: for each pool the states of its targets, then ! if it was left, ? if it
// waits for a person.
func (l *lab) states(name, source string) string {
	var all []string
	for _, p := range l.view(name, source).Pools {
		text := ""
		for _, t := range p.Targets {
			text += map[health.State]string{health.Unknown: "-", health.Up: "U", health.Degraded: "G", health.Down: "D"}[t.State]
		}
		if p.Out {
			text += "!"
		}
		if p.Awaiting {
			text += "?"
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

func (l *lab) want(source, states string, names ...string) {
	l.t.Helper()
	if len(names) == 0 {
		names = slices.Collect(l.each())
	}
	for _, name := range names { // a pool that is down is left a second later
		if slices.ContainsFunc(l.view(name, source).Pools, func(p health.PoolView) bool { return p.State == health.Down && !p.Out }) {
			l.pass(time.Second)
			break
		}
	}
	for _, name := range names {
		if got := l.states(name, source); got != states {
			l.t.Errorf("%s: %s has %s, want %s", l.now.Sub(epoch), name, got, states)
		}
	}
}

func (l *lab) controls(c health.Controls) {
	for name, m := range l.m {
		for _, r := range l.records {
			m.SetControls(l.now, r.GetSource(), c)
		}
		l.step(name)
	}
}

const aTarget, bTarget, cTarget = "10.1.9.9", "10.2.9.9", "10.3.9.9"

func quick() *steeringpb.Probe { return probeEvery(time.Second, 500*time.Millisecond, 2, 2) }

// two is a lab of two datacenters with two servers each and one record, all well.
func two(t *testing.T, anchors bool, change func(*steeringpb.Record)) *lab {
	t.Helper()
	topo := estate(2, anchors, "dc-a", "dc-b")
	r := recordOf(topo, "app", steeringpb.Policy_NEAREST, quick())
	if change != nil {
		change(r)
	}
	l := newLab(t, topo, r)
	for name := range l.each() {
		l.all(name, aTarget, "u")
		l.all(name, bTarget, "u")
	}
	l.want("test/app", "U U")
	return l
}

const everywhere = "dc-a-1 dc-a-2 dc-b-1 dc-b-2"

func TestATieOfSiblingsKeepsTheirDatacentersVote(t *testing.T) {
	l := two(t, false, nil)
	l.all("dc-b-1 dc-b-2", aTarget, "dd")
	l.see("dc-a-1", aTarget, "dd") // tied with its sibling: dc-a stays up; then dc-a and dc-b are tied
	l.want("test/app", "U U")
	if v := l.view("dc-b-1", "test/app"); !v.Disagreement || v.Pools[0].Targets[0].Up != 1 || v.Pools[0].Targets[0].Electorate != 2 || !slices.Equal(v.Pools[0].Targets[0].Dissenting, []string{"dc-b"}) {
		t.Errorf("shown is %+v", v)
	}
	l.see("dc-a-2", aTarget, "dd")
	l.want("test/app", "D! U")

	l.see("dc-a-2", aTarget, "uu") // now the tie keeps down
	l.want("test/app", "D! U")
	// A server that starts anew, with nothing, learns what the tie keeps.
	l.disk["dc-b-2"] = map[string][]byte{}
	l.kill("dc-b-2")
	l.start("dc-b-2")
	l.see("dc-b-2", aTarget, "d")
	l.want("test/app", "D! U")
	l.see("dc-a-1", aTarget, "uu")
	l.pass(time.Second)
	l.want("test/app", "D! U") // dc-a up, dc-b down: again a tie, which keeps down
	l.all("dc-b-1 dc-b-2", aTarget, "uu")
	l.want("test/app", "U U")
}

func TestPoliciesOfVantage(t *testing.T) {
	tests := map[string]struct {
		policy     steeringpb.Vantage
		down       string // who sees the target of a down
		atA, atB   string
		local, all string
	}{
		"local: each datacenter follows its own vote": {steeringpb.Vantage_LOCAL, "dc-b-1 dc-b-2", "U U", "D! U", "", ""},
		"any: up while one says so":                   {steeringpb.Vantage_ANY, "dc-b-1 dc-b-2", "U U", "U U", "", ""},
		"any: down when all are":                      {steeringpb.Vantage_ANY, everywhere, "D! U", "D! U", "", ""},
		"all: down when one is":                       {steeringpb.Vantage_ALL, "dc-b-1 dc-b-2", "D! U", "D! U", "", ""},
		"quorum: a tie keeps what was":                {steeringpb.Vantage_QUORUM, "dc-b-1 dc-b-2", "U U", "U U", "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := two(t, false, func(r *steeringpb.Record) { r.Probes[0].Vantage = test.policy })
			l.all(test.down, aTarget, "dd")
			l.pass(time.Second)
			l.want("test/app", test.atA, "dc-a-1", "dc-a-2")
			l.want("test/app", test.atB, "dc-b-1", "dc-b-2")
		})
	}
}

func TestVotesLapseAfterTheVoteTTL(t *testing.T) {
	l := two(t, false, nil)
	l.all("dc-b-1 dc-b-2", aTarget, "dd")
	l.apart["dc-a-1"], l.apart["dc-a-2"] = true, true
	l.pass(4 * time.Second)
	l.want("test/app", "U U")
	l.pass(2 * time.Second)
	l.want("test/app", "D! U", "dc-b-1", "dc-b-2")
	l.want("test/app", "U U", "dc-a-1", "dc-a-2")
	if got := l.m["dc-b-1"].Vantage().Unreachable; !slices.Equal(got, []string{"dc-a"}) {
		t.Errorf("unreachable is %v", got)
	}
	if e := (health.Event{Kind: health.PeerLost, Datacenter: "dc-a"}); !slices.Contains(l.events["dc-b-1"], e) {
		t.Errorf("events are %v", l.events["dc-b-1"])
	}
}

func TestAStatedVoteTTLCounts(t *testing.T) {
	topo := estate(2, false, "dc-a", "dc-b")
	topo.VoteTtl = 20_000
	l := newLab(t, topo, recordOf(topo, "app", steeringpb.Policy_NEAREST, quick()))
	for name := range l.each() {
		l.see(name, aTarget, "u")
	}
	l.pass(20 * time.Second)
	l.all("dc-b-1 dc-b-2", aTarget, "dd")
	l.apart["dc-a-1"], l.apart["dc-a-2"] = true, true
	l.pass(18 * time.Second)
	l.want("test/app", "U -", "dc-b-1")
	l.pass(3 * time.Second)
	l.want("test/app", "D -", "dc-b-1")
}

func TestADatacenterThatIsCutOffBlamesNobodyElse(t *testing.T) {
	l := two(t, true, nil)
	l.silent["dc-a"] = true
	l.pass(time.Second)
	l.all("dc-a-1 dc-a-2", bTarget, "sss") // before it is known to be isolated
	l.want("test/app", "U U")
	l.pass(2 * time.Second)
	for _, name := range []string{"dc-a-1", "dc-a-2"} {
		if !l.m[name].Vantage().Isolated || !l.view(name, "test/app").Frozen {
			t.Errorf("%s does not know that it is isolated", name)
		}
	}
	// Its own targets follow what it sees itself, whatever others say; theirs stay, whatever they say.
	l.all("dc-b-1 dc-b-2", bTarget, "dd")
	l.want("test/app", "U U", "dc-a-1", "dc-a-2")
	l.want("test/app", "U D!", "dc-b-1", "dc-b-2")
	l.all("dc-a-1 dc-a-2", aTarget, "dd")
	l.want("test/app", "D! U", "dc-a-1", "dc-a-2")
	// Its vote does not count elsewhere.
	l.want("test/app", "U D!", "dc-b-1", "dc-b-2")

	l.silent["dc-a"] = false
	l.pass(2 * time.Second)
	if l.m["dc-a-1"].Vantage().Isolated {
		t.Error("isolated although an anchor answers")
	}
	// Connected again they are tied about both, and dc-a left its pool for itself alone.
	l.want("test/app", "D! U", "dc-a-1", "dc-a-2")
	l.want("test/app", "U D!", "dc-b-1", "dc-b-2")
}

func TestSilenceWaitsForAnAnchorToAnswer(t *testing.T) {
	l := two(t, true, func(r *steeringpb.Record) {
		r.Probes[0].FailureThreshold = 1
		r.Probes[0].Vantage = steeringpb.Vantage_LOCAL
	})
	silent := func(name string) {
		for _, c := range l.running[name] {
			if c.Address == bTarget {
				l.m[name].Result(l.now, c.ID, health.Result{Outcome: health.Down, Silent: true, Failure: "no answer", Took: 300 * time.Millisecond})
				l.step(name)
			}
		}
	}
	l.now = l.now.Add(400 * time.Millisecond) // the anchors answered before the probe began
	silent("dc-a-1")
	silent("dc-a-2")
	l.want("test/app", "U U", "dc-a-1")
	l.pass(time.Second) // and again
	l.want("test/app", "U D!", "dc-a-1")

	l.all("dc-a-1 dc-a-2", bTarget, "uu")
	l.pass(time.Second)
	l.want("test/app", "U U", "dc-a-1")
	l.now = l.now.Add(400 * time.Millisecond)
	silent("dc-a-1")
	silent("dc-a-2")
	l.silent["dc-a"] = true
	l.pass(time.Second) // this time they do not
	l.silent["dc-a"] = false
	l.pass(2 * time.Second)
	l.want("test/app", "U U", "dc-a-1")

	l.now = l.now.Add(400 * time.Millisecond)
	l.all("dc-a-1 dc-a-2", bTarget, "d") // who refuses is there: no need to wait
	l.want("test/app", "U D!", "dc-a-1")
}

func TestASickVantageAbstains(t *testing.T) {
	topo := estate(2, false, "dc-a", "dc-b")
	var records []*steeringpb.Record
	for i := range 8 {
		r := recordOf(topo, fmt.Sprintf("app%d", i), steeringpb.Policy_NEAREST, quick())
		r.Pools[1].Targets[0].Address = fmt.Sprintf("10.2.9.%d", i)
		records = append(records, r)
	}
	l := newLab(t, topo, records...)
	for name := range l.each() {
		l.see(name, aTarget, "u")
		for i := range 8 {
			l.see(name, fmt.Sprintf("10.2.9.%d", i), "u")
		}
	}
	for i := range 5 {
		l.see("dc-a-1", fmt.Sprintf("10.2.9.%d", i), "dd")
	}
	l.pass(4 * time.Second)
	if l.m["dc-a-1"].Vantage().Sick {
		t.Fatal("sick at once: a sibling may only be later to see it")
	}
	l.pass(3 * time.Second)
	if !l.m["dc-a-1"].Vantage().Sick || l.m["dc-a-2"].Vantage().Sick {
		t.Fatal("one sees down more than half of what its sibling sees up")
	}
	// Without its sibling it does not speak for the datacenter: dc-b alone decides.
	l.see("dc-b-1", "10.2.9.7", "dd")
	l.see("dc-b-2", "10.2.9.7", "dd")
	l.kill("dc-a-2")
	l.pass(6 * time.Second)
	l.want("test/app0", "U U", "dc-a-1", "dc-b-1")
	l.want("test/app7", "U D!", "dc-a-1", "dc-b-1")
	for i := range 5 {
		l.see("dc-a-1", fmt.Sprintf("10.2.9.%d", i), "uu")
	}
	if l.m["dc-a-1"].Vantage().Sick {
		t.Error("sick still, although it sees most up again")
	}
	var kinds []health.EventKind
	for _, e := range l.events["dc-a-1"] {
		kinds = append(kinds, e.Kind)
	}
	if !slices.Contains(kinds, health.VantageSick) || !slices.Contains(kinds, health.VantageRecovered) {
		t.Errorf("events are %v", kinds)
	}
}

func TestDeathSeenByOneSiblingFirstIsNoSickness(t *testing.T) {
	topo := estate(2, false, "dc-a", "dc-b")
	r := recordOf(topo, "app", steeringpb.Policy_NEAREST, quick())
	for i := range 4 {
		r.Pools[1].Targets = append(r.Pools[1].Targets, &steeringpb.Target{Address: fmt.Sprintf("10.2.9.%d", i)})
	}
	l := newLab(t, topo, r)
	for name := range l.each() {
		for _, c := range l.running[name] {
			l.see(name, c.Address, "u")
		}
	}
	for _, name := range []string{"dc-a-1", "dc-a-2", "dc-b-1", "dc-b-2"} {
		for _, p := range r.Pools[1].Targets {
			l.see(name, p.Address, "dd")
		}
		l.pass(time.Second)
	}
	l.want("test/app", "U DDDDD!")
	l.pass(10 * time.Second)
	for name := range l.each() {
		if l.m[name].Vantage().Sick {
			t.Errorf("%s is called sick", name)
		}
	}
}

func TestAWitnessProbesWhatItVotesOnAndDecidesNothing(t *testing.T) {
	topo := estate(1, false, "dc-a", "dc-b", "dc-w")
	both := recordOf(topo, "both", steeringpb.Policy_FAILOVER, quick())
	named := recordOf(topo, "named", steeringpb.Policy_FAILOVER, probeEvery(2*time.Second, time.Second, 1, 1))
	named.Probes[0].Datacenters = []string{"dc-a", "dc-b"}
	l := newLab(t, topo, both, named)
	if got := len(l.running["dc-w-1"]); got != 2 {
		t.Errorf("the witness runs %d checks, not the 2 of the record that names it", got)
	}
	if got := len(l.running["dc-a-1"]); got != 4 {
		t.Errorf("dc-a-1 runs %d checks, not all 4", got)
	}
	for name := range l.each() {
		l.all(name, aTarget, "uu")
		l.all(name, bTarget, "uu")
	}
	l.apart["dc-a-1"], l.apart["dc-b-1"] = true, true
	l.see("dc-w-1", aTarget, "dd")
	l.pass(10 * time.Second)
	if v := l.view("dc-w-1", "test/both"); v.Pools[0].Out {
		t.Error("a witness left a pool")
	}
	l.apart["dc-b-1"] = false
	l.see("dc-b-1", aTarget, "dd")
	l.pass(time.Second)
	l.want("test/both", "D! U", "dc-b-1")
	// It keeps what others decided, and gives it back.
	l.disk["dc-b-1"] = map[string][]byte{}
	l.start("dc-b-1")
	l.pass(3 * time.Second)
	l.want("test/both", "D! U", "dc-b-1")
}

func TestAServerWithoutItsDatacenterInTheTopologyFollowsItself(t *testing.T) {
	topo := estate(1, false, "dc-a", "dc-b")
	r := recordOf(topo, "app", steeringpb.Policy_NEAREST, quick())
	r.Probes[0].Vantage = steeringpb.Vantage_LOCAL
	m := health.New(health.ServerID{Datacenter: "dc-x", Group: "dns", Name: "x"}, 1, epoch, nil)
	m.SetTopology(epoch, topo)
	m.SetRecord(epoch, r)
	out := m.Step(epoch)
	for _, c := range out.Run {
		m.Result(epoch, c.ID, health.Result{Outcome: either(c.Address == aTarget, health.Down, health.Up)})
	}
	m.Step(epoch.Add(3 * time.Second))
	m.Step(epoch.Add(4 * time.Second))
	v, _ := m.View(epoch, "test/app")
	if v.Pools[0].Targets[0].State != health.Down || !v.Pools[0].Out || v.Pools[1].Out {
		t.Errorf("view is %+v", v)
	}
	if got := v.Pools[0].Targets[0]; got.Electorate != 1 || got.Up != 0 {
		t.Errorf("votes are %d of %d", got.Up, got.Electorate)
	}
}

func TestAServerAloneDecidesWithoutATopology(t *testing.T) {
	r := recordOf(estate(1, false, "dc-a", "dc-b"), "app", steeringpb.Policy_NEAREST, quick())
	m := health.New(health.ServerID{Datacenter: "dc-a", Group: "dns", Name: "x"}, 1, epoch, nil)
	m.SetRecord(epoch, r)
	out := m.Step(epoch)
	if m.Answering() {
		t.Error("answers although it may hear of others yet")
	}
	for _, c := range out.Run {
		m.Result(epoch, c.ID, health.Result{Outcome: either(c.Address == aTarget, health.Down, health.Up)})
	}
	m.Step(epoch.Add(2 * time.Second))
	if v, _ := m.View(epoch, "test/app"); !m.Answering() || !m.Ready() || v.Pools[0].Targets[0].State != health.Down {
		t.Errorf("answering %v, ready %v, view %+v", m.Answering(), m.Ready(), v)
	}
}

func TestReadyAfterTheFirstRoundOrHalfAMinute(t *testing.T) {
	topo := estate(1, false, "dc-a")
	r := recordOf(topo, "app", steeringpb.Policy_NEAREST, quick())
	r.Pools[0].Targets = append(r.Pools[0].Targets, &steeringpb.Target{Address: "10.1.9.10"})
	for _, seen := range []int{1, 2} {
		m := health.New(health.ServerID{Datacenter: "dc-a", Group: "dns", Name: "dc-a-1"}, 1, epoch, nil)
		m.SetTopology(epoch, topo)
		m.SetRecord(epoch, r)
		out := m.Step(epoch)
		if !m.Answering() || m.Ready() {
			t.Errorf("alone in the world: answering %v, ready %v", m.Answering(), m.Ready())
		}
		for _, c := range out.Run[:seen] {
			m.Result(epoch, c.ID, health.Result{})
		}
		m.Step(epoch.Add(29 * time.Second))
		if m.Ready() != (seen == 2) {
			t.Errorf("ready %v after %d of 2 checks", m.Ready(), seen)
		}
		m.Step(epoch.Add(30 * time.Second))
		if !m.Ready() {
			t.Error("not ready after 30 s")
		}
	}
}

func TestCalculatedProbesAndGates(t *testing.T) {
	topo := estate(1, false, "dc-a")
	// Probe 0 asks port 1, 1 asks port 2, 2 asks a fixed address.
	ask := func(port uint32) *steeringpb.Probe {
		return &steeringpb.Probe{Interval: 1000, Timeout: 500, FailureThreshold: 1, SuccessThreshold: 1, Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: port}}}
	}
	fixed := ask(3)
	fixed.Address = "10.0.0.1"
	const x, y = "10.1.9.1", "10.1.9.2"
	port := func(address string, n uint32) string { return fmt.Sprintf("%s:%d", address, n) }
	type down = []string
	tests := map[string]struct {
		probes, gates []uint32
		more          []*steeringpb.Probe // from 3 on
		down          down
		want          string // of pool a
		gated         bool
	}{
		"all probes of a target must be up":             {[]uint32{0, 1}, nil, nil, down{port(x, 2)}, "DU", false},
		"without probes a target is up":                 {nil, nil, nil, nil, "UU", false},
		"one of two is enough":                          {[]uint32{3}, nil, []*steeringpb.Probe{calculated(1, 0, 1)}, down{port(x, 2), port(y, 1), port(y, 2)}, "UD", false},
		"two of two are not":                            {[]uint32{3}, nil, []*steeringpb.Probe{calculated(2, 0, 1)}, down{port(x, 2)}, "DU", false},
		"more than there are is never up":               {[]uint32{3}, nil, []*steeringpb.Probe{calculated(3, 0, 1)}, nil, "DD", false},
		"calculated of calculated":                      {[]uint32{4}, nil, []*steeringpb.Probe{calculated(1, 0, 1), calculated(2, 3, 2)}, down{port(x, 1), port(x, 2)}, "DU", false},
		"one with its own address is of all targets":    {[]uint32{4}, nil, []*steeringpb.Probe{calculated(1, 0, 1), calculated(2, 3, 2)}, down{"10.0.0.1:3"}, "DD", false},
		"a calculated probe of itself is not known":     {[]uint32{3}, nil, []*steeringpb.Probe{calculated(1, 3)}, nil, "--", false},
		"two of each other are not known":               {[]uint32{3}, nil, []*steeringpb.Probe{calculated(1, 4), calculated(1, 3)}, nil, "--", false},
		"but what else is enough is":                    {[]uint32{3}, nil, []*steeringpb.Probe{calculated(1, 3, 0)}, nil, "UU", false},
		"a probe that there is not is not known":        {[]uint32{9}, nil, nil, nil, "--", false},
		"a gate with its own address":                   {[]uint32{0}, []uint32{2}, nil, down{"10.0.0.1:3"}, "UU", true},
		"a gate without one is open for any of targets": {[]uint32{0}, []uint32{1}, nil, down{port(x, 2)}, "UU", false},
		"and shut if it is for none":                    {[]uint32{0}, []uint32{1}, nil, down{port(x, 2), port(y, 2)}, "UU", true},
		"a calculated gate":                             {[]uint32{0}, []uint32{3}, []*steeringpb.Probe{calculated(2, 0, 2)}, down{"10.0.0.1:3"}, "UU", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &steeringpb.Record{
				Source: "test/app", Probes: append([]*steeringpb.Probe{ask(1), ask(2), fixed}, test.more...),
				Pools: []*steeringpb.Pool{
					{Name: "a", Datacenter: "dc-a", Probes: test.probes, Gates: test.gates, Targets: []*steeringpb.Target{{Address: x}, {Address: "10.1.9.8", ProbeAddress: y}}},
					{Name: "b", Targets: []*steeringpb.Target{{Address: "192.0.2.1"}}},
				},
			}
			l := newLab(t, topo, r)
			for _, c := range slices.Clone(l.running["dc-a-1"]) {
				outcome := either(slices.Contains(test.down, port(c.Address, c.Probe.GetTcp().GetPort())), health.Down, health.Up)
				l.m["dc-a-1"].Result(l.now, c.ID, health.Result{Outcome: outcome})
			}
			l.pass(2 * time.Second)
			if got := strings.TrimSuffix(strings.Fields(l.states("dc-a-1", "test/app"))[0], "!"); got != test.want {
				t.Errorf("targets are %s, want %s", got, test.want)
			}
			p := l.view("dc-a-1", "test/app").Pools[0]
			if p.Gated != test.gated || test.gated && (p.State != health.Down || !p.Out) {
				t.Errorf("gated %v, state %v, out %v", p.Gated, p.State, p.Out)
			}
		})
	}
}

func TestCalculatedProbesThatShareManyPartsAreEvaluatedOnce(t *testing.T) {
	r := &steeringpb.Record{Source: "test/app", Pools: []*steeringpb.Pool{{Name: "a", Probes: []uint32{0}, Targets: []*steeringpb.Target{{Address: "10.0.0.1"}}}}}
	for i := range uint32(63) { // each is made of all behind it: 2^62 ways through
		var of []uint32
		for j := i + 1; j < 64; j++ {
			of = append(of, j)
		}
		r.Probes = append(r.Probes, calculated(1, of...))
	}
	r.Probes = append(r.Probes, quick())
	l := newLab(t, estate(1, false, "dc-a"), r)
	l.see("dc-a-1", "10.0.0.1", "u")
	l.want("test/app", "U")
}

func TestMinHealthy(t *testing.T) {
	topo := estate(1, false, "dc-a")
	r := &steeringpb.Record{Source: "test/app", Probes: []*steeringpb.Probe{quick()}, Pools: []*steeringpb.Pool{
		{Name: "a", MinHealthy: 2, Probes: []uint32{0}, Targets: []*steeringpb.Target{{Address: "10.1.9.1"}, {Address: "10.1.9.2"}, {Address: "10.1.9.3"}}},
		{Name: "b", Targets: []*steeringpb.Target{{Address: "192.0.2.1"}}},
	}}
	l := newLab(t, topo, r)
	l.see("dc-a-1", "10.1.9.1", "d")
	l.want("test/app", "D-- U")
	l.see("dc-a-1", "10.1.9.2", "u")
	l.see("dc-a-1", "10.1.9.3", "g")
	l.want("test/app", "DUG U")
	l.see("dc-a-1", "10.1.9.3", "dd")
	l.want("test/app", "DUD! U")
}

func TestLatencyIsToldAndSpared(t *testing.T) {
	l := two(t, false, func(r *steeringpb.Record) { r.Policy = steeringpb.Policy_LATENCY })
	measure := func(name string, d time.Duration) {
		for _, c := range l.running[name] {
			if c.Address == aTarget {
				l.m[name].Result(l.now, c.ID, health.Result{Outcome: health.Up, Latency: d})
				l.step(name)
			}
		}
	}
	measure("dc-b-1", 20*time.Millisecond)
	measure("dc-b-2", 30*time.Millisecond)
	measure("dc-a-1", time.Millisecond)
	want := map[string]time.Duration{"dc-a": time.Millisecond, "dc-b": 25 * time.Millisecond}
	if got := l.view("dc-a-2", "test/app").Pools[0].Targets[0].Latency; !maps.Equal(got, want) {
		t.Errorf("latency is %v, want %v", got, want)
	}
	changed, sent := l.changed["dc-a-2"]["test/app"], l.sent["dc-b-1"]
	for range 9 {
		l.pass(time.Second)
		measure("dc-b-1", 40*time.Millisecond) // more, but too soon
	}
	if l.sent["dc-b-1"] != sent {
		t.Error("told again within 10 s")
	}
	l.pass(2 * time.Second)
	measure("dc-b-1", 40*time.Millisecond)
	l.pass(20 * time.Second)
	measure("dc-b-1", 41*time.Millisecond) // not worth it
	if got := l.sent["dc-b-1"] - sent; got != 1 {
		t.Errorf("told %d times, not once", got)
	}
	if got := l.changed["dc-a-2"]["test/app"] - changed; got != 1 {
		t.Errorf("compiled %d times, not once", got)
	}
	if got := l.view("dc-a-2", "test/app").Pools[0].Targets[0].Latency["dc-b"]; got != 35*time.Millisecond {
		t.Errorf("latency is %v", got)
	}
}

func TestADoubtedTargetShortensDerivedTTLs(t *testing.T) {
	l := two(t, false, func(r *steeringpb.Record) { r.Ttl, r.TtlMin = 60, 5 })
	before := l.changed["dc-a-1"]["test/app"]
	l.see("dc-a-1", aTarget, "d")
	if got := l.view("dc-a-1", "test/app").Pools[0].Targets[0]; got.FlipIn != time.Second || got.Failure != "connection refused" {
		t.Errorf("flips in %v, failure %q", got.FlipIn, got.Failure)
	}
	l.see("dc-a-1", aTarget, "u")
	if got := l.changed["dc-a-1"]["test/app"] - before; got != 2 {
		t.Errorf("compiled %d times, not twice", got)
	}
}

func TestSteadyResultsCostNothing(t *testing.T) {
	l := two(t, false, nil)
	l.pass(20 * time.Second)
	changed, sent, saved := l.changed["dc-a-1"]["test/app"], l.sent["dc-a-1"], len(l.disk["dc-a-1"])
	for range 100_000 {
		l.m["dc-a-1"].Result(l.now, l.running["dc-a-1"][0].ID, health.Result{Outcome: health.Up, Latency: time.Millisecond})
	}
	if got := l.m["dc-a-1"].Unsaved(l.now); len(got) > 0 {
		t.Errorf("to be saved: %v", got)
	}
	l.step("dc-a-1")
	if l.changed["dc-a-1"]["test/app"] != changed || l.sent["dc-a-1"] != sent || len(l.disk["dc-a-1"]) != saved {
		t.Error("results that change nothing are told or stored")
	}
}

func TestRecordsComeAndGo(t *testing.T) {
	l := two(t, false, nil)
	m := l.m["dc-a-1"]
	other := recordOf(l.topo, "other", steeringpb.Policy_WEIGHTED, quick())
	m.SetRecord(l.now, other)
	if out := m.Step(l.now); len(out.Run) > 0 || !slices.Equal(out.Changed, []string{"test/other"}) {
		t.Errorf("checks that run already run again: %v, changed %v", out.Run, out.Changed)
	}
	if v, _ := m.View(l.now, "test/other"); v.Pools[0].Targets[0].State != health.Up {
		t.Error("a record with a known target does not know its state")
	}
	m.RemoveRecord(l.now, "test/app")
	if out := m.Step(l.now); len(out.Stop) > 0 {
		t.Errorf("stopped what another record needs: %v", out.Stop)
	}
	if _, ok := m.View(l.now, "test/app"); ok {
		t.Error("a removed record has a view")
	}
	slow := recordOf(l.topo, "other", steeringpb.Policy_WEIGHTED, probeEvery(2*time.Second, time.Second, 2, 2))
	m.SetRecord(l.now, slow)
	if out := m.Step(l.now); len(out.Run) != 2 || len(out.Stop) != 2 {
		t.Errorf("another probe: runs %v, stops %v", out.Run, out.Stop)
	}
	m.RemoveRecord(l.now, "test/other")
	m.RemoveRecord(l.now, "test/other")
	m.Result(l.now, l.running["dc-a-1"][0].ID, results("d")[0])
	if out := m.Step(l.now); len(out.Stop) != 2 || len(out.Changed) > 0 {
		t.Errorf("stops %v, changed %v", out.Stop, out.Changed)
	}
	// Nothing of it is left on disk but the age.
	for k := range l.disk["dc-a-1"] {
		if k[0] == 'c' {
			found := false
			for _, s := range m.Unsaved(l.now) {
				found = found || string(s.Key) == k && s.Value == nil
			}
			if !found {
				t.Error("the disk keeps a check that nobody wants")
			}
			break
		}
	}
}

func TestLostMessagesAreFoundAndAskedFor(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	topo := estate(2, false, "dc-a", "dc-b")
	r := recordOf(topo, "app", steeringpb.Policy_NEAREST, quick())
	r.Pools[0].Targets = nil
	for i := range 300 {
		r.Pools[0].Targets = append(r.Pools[0].Targets, &steeringpb.Target{Address: fmt.Sprintf("10.1.%d.%d", i/100, i%100+1)})
	}
	l := newLab(t, topo, r)
	for range 20 {
		l.drop = func() bool { return rng.IntN(3) == 0 }
		for range 40 {
			target := r.Pools[0].Targets[rng.IntN(300)].Address
			for name := range l.each() {
				l.see(name, target, either(rng.IntN(2) == 0, "dd", "uu"))
			}
			if rng.IntN(10) == 0 {
				l.pass(time.Second)
			}
		}
		l.drop = nil
		l.pass(10 * time.Second)
		for i := range r.Pools[0].Targets {
			var views []string
			for name := range l.each() {
				v := l.view(name, "test/app").Pools[0].Targets[i]
				views = append(views, fmt.Sprint(v.Up, v.Electorate))
			}
			if slices.Sort(views); views[0] != views[3] {
				t.Fatalf("votes on target %d differ: %v", i, views)
			}
		}
	}
}

func TestOnlyPartsThatDifferAreSent(t *testing.T) {
	topo := estate(1, false, "dc-a", "dc-b")
	r := recordOf(topo, "app", steeringpb.Policy_NEAREST, quick())
	for i := range 2000 {
		r.Pools[0].Targets = append(r.Pools[0].Targets, &steeringpb.Target{Address: fmt.Sprintf("10.1.%d.%d", i/200+100, i%200+1)})
	}
	l := newLab(t, topo, r)
	for _, c := range slices.Clone(l.running["dc-a-1"]) {
		l.m["dc-a-1"].Result(l.now, c.ID, results("u")[0])
	}
	l.step("dc-a-1")
	l.pass(5 * time.Second)
	l.apart["dc-b-1"] = true
	l.pass(2 * time.Second)
	l.see("dc-a-1", "10.1.100.7", "dd")
	l.see("dc-a-1", "10.1.109.9", "dd")
	l.apart["dc-b-1"] = false
	ballots := 0
	// dc-b-1 hears a heartbeat, asks, and is told.
	l.m["dc-b-1"].Receive(l.now, l.ids["dc-a-1"], health.Message{Heartbeat: heartbeatOf(t, l.m["dc-a-1"], l.ids["dc-b-1"], l.now)})
	for _, e := range l.m["dc-b-1"].Step(l.now).Send {
		if e.Message.Ask != nil {
			l.m["dc-a-1"].Receive(l.now, l.ids["dc-b-1"], e.Message)
		}
	}
	for _, e := range l.m["dc-a-1"].Step(l.now).Send {
		if e.Message.Table != nil {
			ballots += len(e.Message.Table.Ballots)
			l.m["dc-b-1"].Receive(l.now, l.ids["dc-a-1"], e.Message)
		}
	}
	if ballots == 0 || ballots > 60 {
		t.Errorf("%d of 2000 ballots were sent for two that changed", ballots)
	}
}

// heartbeatOf returns a heartbeat that the machine sends to a peer.
func heartbeatOf(t *testing.T, m *health.Machine, to health.ServerID, now time.Time) *health.Heartbeat {
	t.Helper()
	m.Connected(now, to)
	for _, e := range m.Step(now).Send {
		if e.Message.Heartbeat != nil {
			return e.Message.Heartbeat
		}
	}
	t.Fatal("no heartbeat")
	return nil
}

func TestAServerThatStoodStillAdoptsWhatOthersDecided(t *testing.T) {
	l := two(t, false, func(r *steeringpb.Record) { r.FailbackManual = true })
	l.pass(10 * time.Second)
	sleeping := l.m["dc-a-1"]
	l.kill("dc-a-1")
	l.pass(10 * time.Second)
	l.all("dc-a-2 dc-b-1 dc-b-2", aTarget, "dd")
	l.want("test/app", "D! U", "dc-a-2", "dc-b-1")
	l.all("dc-a-2 dc-b-1 dc-b-2", aTarget, "uu")
	l.pass(time.Minute)
	l.want("test/app", "U! U", "dc-a-2", "dc-b-1")
	l.m["dc-a-1"] = sleeping
	l.pass(3 * time.Second)
	l.want("test/app", "U! U")
	if !sleeping.Answering() {
		t.Error("it ended to answer")
	}
}

func TestAServerThatSleptForLongForgetsItsVotes(t *testing.T) {
	l := two(t, false, nil)
	l.pass(10 * time.Second)
	l.apart["dc-a-1"] = true
	sleeping := l.m["dc-a-1"]
	l.kill("dc-a-1")
	l.pass(11 * time.Minute)
	l.m["dc-a-1"] = sleeping
	l.pass(3 * time.Second)
	l.want("test/app", "- -", "dc-a-1")
}

// TestADatacenterThatIsNewIsNotLostBeforeItCouldBeHeard: its servers are told of some time after the start.
func TestADatacenterThatIsNewIsNotLostBeforeItCouldBeHeard(t *testing.T) {
	whole := estate(1, false, "dc-a", "dc-b")
	before := estate(1, false, "dc-a", "dc-b")
	before.Datacenters[1].Servers = nil
	m := health.New(health.ServerID{Datacenter: "dc-a", Group: "dns", Name: "dc-a-1"}, 1, epoch, nil)
	m.SetTopology(epoch, before)
	now := epoch.Add(time.Minute)
	m.Step(now)
	m.SetTopology(now, whole)
	lost := func(out health.Output) bool {
		return slices.Contains(out.Events, health.Event{Kind: health.PeerLost, Datacenter: "dc-b"})
	}
	for end := now.Add(5 * time.Second); now.Before(end); now = now.Add(100 * time.Millisecond) {
		if lost(m.Step(now)) {
			t.Fatalf("it is lost after %s", now.Sub(end.Add(-5*time.Second)))
		}
	}
	if !lost(m.Step(now)) {
		t.Error("it is not lost after a voteTTL of silence")
	}
}

func TestLatchesAreToldInMessagesThatFit(t *testing.T) {
	const records, fits = 3000, 1 << 20
	topo := estate(1, false, "dc-a", "dc-b")
	m := health.New(health.ServerID{Datacenter: "dc-a", Group: "dns", Name: "dc-a-1"}, 1, epoch, nil)
	other := health.ServerID{Datacenter: "dc-b", Group: "dns", Name: "dc-b-1"}
	m.SetTopology(epoch, topo)
	long := strings.Repeat("x", 240)
	var latches []health.Latch
	for i := range records {
		latches = append(latches, health.Latch{
			LatchKey: health.LatchKey{Record: fmt.Sprintf("%s/%s-%d", long[:60], long, i), Pool: long[:63], Scope: long[:63]}, Out: true, At: 1, By: long,
		})
	}
	m.Receive(epoch, other, health.Message{Heartbeat: &health.Heartbeat{Boot: 1}})
	now := epoch.Add(time.Second)
	for _, e := range m.Step(epoch).Send {
		if a := e.Message.Ask; a != nil {
			m.Receive(now, other, health.Message{Latches: &health.Latches{Latches: latches, Last: true, Nonce: a.Nonce}})
		}
	}
	m.Step(now)
	m.Receive(now, other, health.Message{Ask: &health.Ask{Nonce: 7}})
	told, last := 0, 0
	for _, e := range m.Step(now).Send {
		l := e.Message.Latches
		if l == nil {
			continue
		}
		size := 0
		for _, x := range l.Latches {
			size += len(x.Record) + len(x.Pool) + len(x.Scope) + len(x.By) + 30
		}
		if size > fits {
			t.Errorf("a message has %d octets", size)
		}
		told += len(l.Latches)
		if l.Last {
			last++
		}
	}
	if told != records || last != 1 {
		t.Errorf("%d latches were told with %d last messages, wanted %d and 1", told, last, records)
	}
}
