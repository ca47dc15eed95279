package health_test

import (
	"container/heap"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Times of the simulated networks and of what S4's glue does.
const (
	nearby    = time.Millisecond      // one way inside a datacenter
	faraway   = 10 * time.Millisecond // between two
	reconnect = time.Second           // until a broken mesh connection is tried again
	keepalive = 5 * time.Second       // until a mesh connection breaks whose packets are lost one way
	booting   = time.Second           // a restart
	anchorGap = time.Second           // between rounds of anchors
	saveGap   = time.Second           // between writes to disk
)

var epoch = time.Date(2026, time.December, 1, 0, 0, 0, 0, time.UTC)

// world is an estate in virtual time: datacenters, links, servers, targets, a hub.
type world struct {
	t       testing.TB
	now     time.Time
	queue   queue
	seq     int
	dcs     []*site
	servers []*server
	targets map[string]*aim // by address
	lost    map[[2]string]time.Time
	anchor  map[[2]string]bool // anchors of [1] don't answer [0], though both are connected
	topo    *steeringpb.Topology
	view    *steering.World
	records []*steering.Record
	pbs     []*steeringpb.Record

	hubAt     string // datacenter
	hubDead   bool
	overrides []*steering.Override
	version   int

	answered func(s *server, at time.Time) // called after any server compiled
	real     *processes                    // what does all that instead; nil: it is simulated
}

// site is a datacenter.
type site struct {
	name    string
	witness bool
	dead    bool
	cut     bool // off from everything
}

// aim is a target.
type aim struct {
	dc   string
	dead bool // its host answers with a refusal
}

type server struct {
	w       *world
	id      health.ServerID
	site    *site
	machine *health.Machine
	boot    uint64
	alive   bool
	paused  bool
	still   time.Time // since when
	backlog []func()  // of a paused server
	disk    map[string][]byte
	probes  map[health.CheckID]*probing
	wake    time.Time
	results map[string]*steering.Result
	control map[string]health.Controls
	known   []*steering.Override
	version int      // of known: the highest is the latest
	kept    struct { // on disk
		known   []*steering.Override
		version int
	}
	peers  map[health.ServerID]bool // connected
	events []health.Event
}

type probing struct {
	check   health.Check
	stopped bool
}

type happening struct {
	at  time.Time
	seq int
	do  func()
}

type queue []happening

func (q *queue) Len() int { return len(*q) }
func (q *queue) Less(i, j int) bool {
	a, b := (*q)[i], (*q)[j]
	return a.at.Before(b.at) || a.at.Equal(b.at) && a.seq < b.seq
}
func (q *queue) Swap(i, j int) { (*q)[i], (*q)[j] = (*q)[j], (*q)[i] }
func (q *queue) Push(x any)    { *q = append(*q, x.(happening)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, happening{w.now.Add(d), w.seq, do})
}

// run lets time pass until at.
func (w *world) run(at time.Time) {
	for len(w.queue) > 0 && !w.queue[0].at.After(at) {
		h := heap.Pop(&w.queue).(happening)
		w.now = h.at
		h.do()
	}
	w.now = at
}

// newWorld builds an estate and starts its servers.
func newWorld(t testing.TB, topo *steeringpb.Topology, records []*steeringpb.Record) *world {
	t.Helper()
	w := &world{
		t: t, now: epoch, targets: map[string]*aim{}, lost: map[[2]string]time.Time{}, anchor: map[[2]string]bool{}, topo: topo,
	}
	var err error
	if w.view, err = steering.NewWorld(topo); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		raw, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		owner, err := zone.ParseName(strings.TrimPrefix(r.GetSource(), "test/")+".example.", zone.Root)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := steering.Decode(owner, string(raw))
		if err != nil {
			t.Fatal(err)
		}
		w.records = append(w.records, decoded)
		w.pbs = append(w.pbs, r)
		for _, p := range r.GetPools() {
			for _, target := range p.GetTargets() {
				w.targets[target.GetAddress()] = &aim{dc: p.GetDatacenter()}
			}
		}
	}
	for _, d := range topo.GetDatacenters() {
		s := &site{name: d.GetName(), witness: d.GetWitness()}
		w.dcs = append(w.dcs, s)
		for _, pb := range d.GetServers() {
			w.servers = append(w.servers, &server{
				w: w, id: health.ServerID{Datacenter: d.GetName(), Group: pb.GetGroup(), Name: pb.GetName()}, site: s, disk: map[string][]byte{},
			})
		}
	}
	w.hubAt = w.dcs[0].name
	for _, s := range w.servers {
		s.start()
	}
	return w
}

func (w *world) site(name string) *site {
	for _, s := range w.dcs {
		if s.name == name {
			return s
		}
	}
	w.t.Fatalf("there is no datacenter %q", name)
	return nil
}

func (w *world) server(name string) *server {
	for _, s := range w.servers {
		if s.id.Name == name {
			return s
		}
	}
	w.t.Fatalf("there is no server %q", name)
	return nil
}

// passes reports whether packets go from one datacenter to another.
func (w *world) passes(from, to string) bool {
	a, b := w.site(from), w.site(to)
	_, lost := w.lost[[2]string{from, to}]
	return !a.dead && !b.dead && (from == to || !a.cut && !b.cut && !lost)
}

// joined reports whether a mesh connection between two datacenters works, or still does: TCP notices loss one way only
// after a time.
func (w *world) joined(a, b string) bool {
	there, back := w.passes(a, b), w.passes(b, a)
	if there == back {
		return there
	}
	since := w.lost[[2]string{a, b}]
	if there {
		since = w.lost[[2]string{b, a}]
	}
	return w.now.Sub(since) < keepalive
}

func (w *world) delay(a, b string) time.Duration {
	if a == b {
		return nearby
	}
	return faraway
}

// --- servers ---

func (s *server) start() {
	w := s.w
	s.alive, s.boot = true, s.boot+1
	s.peers, s.probes = map[health.ServerID]bool{}, map[health.CheckID]*probing{}
	s.results, s.control = map[string]*steering.Result{}, map[string]health.Controls{}
	var stored []health.Stored
	for _, k := range slices.Sorted(maps.Keys(s.disk)) {
		stored = append(stored, health.Stored{Key: []byte(k), Value: s.disk[k]})
	}
	s.machine = health.New(s.id, s.boot, w.now, stored)
	s.machine.SetTopology(w.now, w.topo)
	for _, r := range w.pbs {
		s.machine.SetRecord(w.now, r)
	}
	boot := s.boot
	s.every(boot, saveGap, s.save)
	s.every(boot, anchorGap, s.anchors)
	s.every(boot, reconnect, s.connect)
	s.every(boot, reconnect, s.sync)
	s.after(boot, 10*time.Millisecond, s.connect)
	s.known, s.version = s.kept.known, s.kept.version
	for _, r := range w.records {
		s.compile(r)
	}
	s.sync()
	s.step()
}

// after runs do later if the same process lives then; when it is paused, once it goes on.
func (s *server) after(boot uint64, d time.Duration, do func()) {
	s.w.after(d, func() {
		switch {
		case s.boot != boot || !s.alive:
		case s.paused:
			s.backlog = append(s.backlog, do)
		default:
			do()
		}
	})
}

func (s *server) every(boot uint64, gap time.Duration, do func()) {
	s.after(boot, gap, func() {
		do()
		s.every(boot, gap, do)
	})
}

func (s *server) kill() {
	s.alive, s.paused, s.backlog = false, false, nil
	s.boot++
	for _, p := range s.w.servers {
		delete(p.peers, s.id)
	}
}

func (s *server) pause() { s.paused, s.still = true, s.w.now }

func (s *server) resume() {
	s.paused = false
	todo := s.backlog
	s.backlog = nil
	for _, do := range todo {
		do()
	}
}

func (s *server) save() {
	for _, e := range s.machine.Unsaved(s.w.now) {
		if e.Value == nil {
			delete(s.disk, string(e.Key))
		} else {
			s.disk[string(e.Key)] = e.Value
		}
	}
}

// connect keeps mesh connections as they can be.
func (s *server) connect() {
	for _, p := range s.w.servers {
		if p == s {
			continue
		}
		up := p.alive && s.w.joined(s.id.Datacenter, p.id.Datacenter) && (!p.paused || s.w.now.Sub(p.still) < keepalive)
		switch {
		case !up:
			delete(s.peers, p.id)
			delete(p.peers, s.id)
		case !s.peers[p.id] && !p.paused && s.w.passes(s.id.Datacenter, p.id.Datacenter) && s.w.passes(p.id.Datacenter, s.id.Datacenter):
			s.peers[p.id], p.peers[s.id] = true, true
			s.machine.Connected(s.w.now, p.id)
			s.step()
			p.after(p.boot, s.w.delay(s.id.Datacenter, p.id.Datacenter), func() {
				p.machine.Connected(s.w.now, s.id)
				p.step()
			})
		}
	}
}

// anchors asks all anchors. Those of a datacenter are in two other places: a server reaches them unless it is cut off.
func (s *server) anchors() {
	for _, d := range s.w.topo.GetDatacenters() {
		if len(d.GetAnchors()) > 0 {
			s.machine.AnchorRound(s.w.now, d.GetName(), !s.site.cut && !s.w.anchor[[2]string{s.id.Datacenter, d.GetName()}])
		}
	}
	s.step()
}

// sync gets overrides from the hub, else from peers.
func (s *server) sync() {
	w := s.w
	if w.hubReaches(s) {
		s.take(w.version, w.overrides)
		return
	}
	for _, p := range w.servers {
		if p.alive && w.passes(p.id.Datacenter, s.id.Datacenter) && w.passes(s.id.Datacenter, p.id.Datacenter) {
			s.take(p.version, p.known)
		}
	}
}

func (w *world) hubReaches(s *server) bool {
	return !w.hubDead && s.alive && w.passes(w.hubAt, s.id.Datacenter) && w.passes(s.id.Datacenter, w.hubAt)
}

// take has overrides in force, unless it has later ones.
func (s *server) take(version int, all []*steering.Override) {
	if version <= s.version {
		return
	}
	s.version, s.known = version, all
	s.kept.version, s.kept.known = version, all
	for _, r := range s.w.records {
		s.compile(r)
	}
	s.step()
}

func (s *server) step() {
	for {
		out := s.machine.Step(s.w.now)
		s.handle(out)
		again := false
		for _, source := range out.Changed {
			for _, r := range s.w.records {
				if r.Source == source && s.compile(r) {
					again = true
				}
			}
		}
		if s.w.answered != nil {
			s.w.answered(s, s.w.now)
		}
		if !again {
			s.wake = out.Wake
			if !out.Wake.After(s.w.now) {
				s.w.t.Fatalf("%s: at %s Step asks to be called again at %s", s.id, s.w.now.Sub(epoch), out.Wake.Sub(epoch))
			}
			boot := s.boot
			s.after(boot, out.Wake.Sub(s.w.now), func() {
				if s.wake.Equal(out.Wake) {
					s.step()
				}
			})
			return
		}
	}
}

// compile reports whether the overrides mean something else for the record's latches than before.
func (s *server) compile(r *steering.Record) bool {
	view, ok := s.machine.View(s.w.now, r.Source)
	if !ok {
		s.w.t.Fatalf("%s: no view of %s", s.id, r.Source)
	}
	in := &steering.Inputs{Now: s.w.now, World: s.w.view, Health: &view, Overrides: s.known}
	if old := s.results[r.Source]; old != nil {
		in.Memory = old.Memory
	}
	result := steering.Compile(r, in)
	s.results[r.Source] = result
	if fmt.Sprint(s.control[r.Source]) == fmt.Sprint(result.Controls) {
		return false
	}
	s.control[r.Source] = result.Controls
	s.machine.SetControls(s.w.now, r.Source, result.Controls)
	return true
}

func (s *server) handle(out health.Output) {
	s.events = append(s.events, out.Events...)
	for _, id := range out.Stop {
		s.probes[id].stopped = true
		delete(s.probes, id)
	}
	for _, c := range out.Run {
		p := &probing{check: c}
		s.probes[c.ID] = p
		boot := s.boot
		interval := time.Duration(c.Probe.GetInterval()) * time.Millisecond
		phase := time.Duration(int(c.ID[0])*7+s.number()*131) * time.Millisecond
		s.after(boot, phase%min(interval, time.Second), func() { s.probe(boot, p, interval) })
	}
	for _, e := range out.Send {
		for _, p := range s.w.servers {
			if p == s || !s.peers[p.id] || e.To != (health.ServerID{}) && e.To != p.id {
				continue
			}
			if !s.w.passes(s.id.Datacenter, p.id.Datacenter) {
				continue
			}
			boot := p.boot
			p.after(boot, s.w.delay(s.id.Datacenter, p.id.Datacenter), func() {
				if !p.peers[s.id] {
					return
				}
				p.machine.Receive(s.w.now, s.id, e.Message)
				p.step()
			})
		}
	}
}

func (s *server) number() int { return slices.Index(s.w.servers, s) }

// probe asks a target now and every interval.
func (s *server) probe(boot uint64, p *probing, interval time.Duration) {
	if p.stopped {
		return
	}
	began := s.w.now
	result, took := health.Result{Outcome: health.Up}, time.Duration(0)
	target := s.w.targets[p.check.Address]
	there := s.w.passes(s.id.Datacenter, target.dc) && s.w.passes(target.dc, s.id.Datacenter)
	switch {
	case !there:
		took = time.Duration(p.check.Probe.GetTimeout()) * time.Millisecond
		result = health.Result{Outcome: health.Down, Silent: true, Failure: "no answer within 2s"}
	case target.dead:
		took = 2 * s.w.delay(s.id.Datacenter, target.dc)
		result = health.Result{Outcome: health.Down, Failure: "connection refused"}
	default:
		took = 2 * s.w.delay(s.id.Datacenter, target.dc)
	}
	s.after(boot, took, func() {
		if p.stopped {
			return
		}
		result.Took = s.w.now.Sub(began)
		if result.Took > took+time.Second { // paused meanwhile
			result = health.Result{Outcome: health.Unknown, Failure: "this server stood still while it waited"}
		}
		s.machine.Result(s.w.now, p.check.ID, result)
		s.step()
	})
	s.after(boot, interval, func() { s.probe(boot, p, interval) })
}

// answering reports whether the server may answer.
func (s *server) answering(r *steering.Record) bool {
	if s.w.real != nil {
		got := s.answer(r, s.id.Datacenter)
		return got != "?" && got != "-"
	}
	return s.machine.Answering()
}

// answer is what the server gives clients near a datacenter: pools joined by +; "-" if it is not there, "?" if it may not
// answer yet. A real one gives one of the pools that are joined.
func (s *server) answer(r *steering.Record, near string) string {
	if s.w.real != nil {
		return s.w.real.ask(s, r, near)
	}
	if !s.alive || s.site.dead {
		return "-"
	}
	if !s.machine.Answering() || s.results[r.Source] == nil {
		return "?"
	}
	get := s.results[r.Source].Summary.For(near)
	return strings.Join(get.Pools, "+")
}

// --- what happens ---

// setOverrides has the hub push overrides, or if at is a server, has that one spread them to its peers.
func (w *world) setOverrides(at *server, all ...*steering.Override) {
	w.version++
	version := w.version
	if at == nil || w.hubReaches(at) {
		w.overrides = all
	}
	for _, s := range w.servers {
		reached := w.hubReaches(s)
		if at != nil {
			reached = s.alive && w.passes(at.id.Datacenter, s.id.Datacenter) && w.passes(s.id.Datacenter, at.id.Datacenter)
		}
		if reached {
			s.after(s.boot, faraway, func() { s.take(version, all) })
		}
	}
}

func (w *world) siteDies(name string) {
	d := w.site(name)
	d.dead = true
	for _, s := range w.servers {
		if s.site == d {
			s.kill()
		}
	}
	if w.hubAt == name {
		w.hubDead = true
	}
}

func (w *world) siteReturns(name string) {
	d := w.site(name)
	d.dead = false
	for _, s := range w.servers {
		if s.site == d {
			s.restart(false)
		}
	}
	if w.hubAt == name {
		w.hubDead = false
	}
}

func (s *server) restart(emptyDisk bool) {
	s.kill()
	if emptyDisk {
		s.disk = map[string][]byte{}
		s.kept.version, s.kept.known = 0, nil
	}
	boot := s.boot
	s.w.after(booting, func() {
		if s.boot == boot && !s.alive && !s.site.dead {
			s.start()
		}
	})
}

// lose has packets from one datacenter to another be lost.
func (w *world) lose(from, to string) { w.lost[[2]string{from, to}] = w.now }
func (w *world) mend(from, to string) { delete(w.lost, [2]string{from, to}) }

// --- estates ---

// estate describes datacenters: with servers each, and with anchors or not. Witnesses are named dc-w.
func estate(servers int, anchors bool, names ...string) *steeringpb.Topology {
	t := &steeringpb.Topology{Key: []byte("key")}
	for i, name := range names {
		d := &steeringpb.Datacenter{
			Name: name, Rank: uint32(i), Networks: []string{fmt.Sprintf("10.%d.0.0/16", i+1)}, Witness: name == "dc-w",
		}
		if anchors {
			d.Anchors = []string{"10.99.0.1", "10.99.1.1"}
		}
		for n := range servers {
			d.Servers = append(d.Servers, &steeringpb.Server{Group: "dns", Name: fmt.Sprintf("%s-%d", name, n+1), Mesh: "x:1"})
		}
		t.Datacenters = append(t.Datacenters, d)
	}
	return t
}

// letter is the pool of a datacenter: a for dc-a.
func letter(dc string) string { return strings.TrimPrefix(dc, "dc-") }

// probeEvery is an HTTPS probe with thresholds.
func probeEvery(interval, timeout time.Duration, failures, successes uint32) *steeringpb.Probe {
	return &steeringpb.Probe{
		Source: "test/https", Interval: uint64(interval.Milliseconds()), Timeout: uint64(timeout.Milliseconds()),
		FailureThreshold: failures, SuccessThreshold: successes,
		Type: &steeringpb.Probe_Http{Http: &steeringpb.Http{Tls: true, Port: 443, Path: "/"}},
	}
}

// recordOf has a pool with one target in each datacenter that answers.
func recordOf(t *steeringpb.Topology, name string, policy steeringpb.Policy, probe *steeringpb.Probe) *steeringpb.Record {
	r := &steeringpb.Record{Source: "test/" + name, Ttl: 30, Policy: policy, Probes: []*steeringpb.Probe{probe}}
	for i, d := range t.GetDatacenters() {
		if d.GetWitness() {
			continue
		}
		p := &steeringpb.Pool{
			Name: letter(d.GetName()), Datacenter: d.GetName(), MinHealthy: 1, Probes: []uint32{0},
			Targets: []*steeringpb.Target{{Address: netip.AddrFrom4([4]byte{10, byte(i + 1), 9, 9}).String(), Weight: 1}},
		}
		if policy == steeringpb.Policy_WEIGHTED {
			p.Weight = 1
		}
		r.Pools = append(r.Pools, p)
	}
	return r
}
