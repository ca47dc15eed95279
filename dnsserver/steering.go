package dnsserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh"
	"github.com/fingerpost-dns/fingerpost/dnsserver/probe"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// steererOptions are who a steerer works for.
type steererOptions struct {
	Self health.ServerID
	View *zone.View // whose steered names it gives answers
	Log  logr.Logger
	// Report tells the hub, coalesced.
	Report func(kind string, body []byte) error
	// Unreport has the hub that leads next not told of a kind any more.
	Unreport func(kind string)
	// Send gives messages to peers, SetPeers says who they are.
	Send     func([]health.Envelope)
	SetPeers func([]mesh.Peer)
	// SendOverrides tells peers of break-glass overrides.
	SendOverrides func([][]byte)
	// Memory keeps what must survive a restart; nil: nothing does.
	Memory steeringMemory
	// Own are addresses that probes must not reach by default: this server's.
	Own []netip.Addr
	Geo []string // databases of where clients are
	// Peers counts the servers that hear this one.
	Peers func() int
	// Changed is told of a name that the view answers otherwise by now; nil: nobody is.
	Changed func(changes.Change)
	// Leads is told to which names an owner may answer that it is an alias, and did before; nil: nobody is.
	Leads func(owner zone.Name, was, is []zone.Name)
}

// steeringMemory is the part of the store that keeps what was decided.
type steeringMemory interface {
	// LoadState returns all entries.
	LoadState() (map[string][]byte, error)
	// SaveState writes entries; nil removes one.
	SaveState(map[string][]byte) error
}

// steerer keeps the answers of all steered names as they are to be: it runs the probes that they need, decides by what
// these and the peers say, and gives the view new answers whenever that changes something.
//
// Whoever tells it something takes mu for a moment; one goroutine does what follows.
type steerer struct {
	opts      steererOptions
	scheduler *probe.Scheduler
	maker     *probe.Maker
	kick      chan struct{} // has an element when there is something to do

	mu       sync.Mutex
	machine  *health.Machine
	world    *steering.World
	topology *steeringpb.Topology
	reach    probe.Reach
	hub      []*steering.Override  // from the hub
	told     *steeringpb.Overrides // the same, as the hub has told of them; nil: it has not
	local    localOverrides        // break-glass
	secrets  map[string]*tls.Certificate
	sources  map[string]*steeredSource
	owners   map[ownerKey]string // the source of each steered owner
	dirty    map[string]bool     // sources to be compiled again
	until    time.Time           // the soonest of the sources' until; zero: none has one
	unsaved  map[string][]byte
	// Reports: the records of each kind, and the kinds to be told again. The hub was told last at reported.
	kinds     map[string]map[string]*steeredSource
	parts     int // into how many kinds records are divided
	unreports map[string]bool
	shown     map[string]bool // sources of which there may be something to tell
	reported  time.Time
	vantage   *string // as told last; nil: not yet
	// remembered is what was on disk at the start.
	remembered map[string][]byte
	flatten    *flattener
	geography  geography
	geo        *steering.GeoTable // nil: nothing is known
	crowded    time.Time          // when it was told last that there are too many probes; of keep
	restarts   []time.Time        // of the machine, the last ones
	pause      time.Time          // until when it is left alone, after it has failed too often; zero: it is not
	judged     bool               // it was ready once
	panics     uint64             // of the machine, ever
	events     eventLog           // of the goroutine
}

type ownerKey struct{ apex, owner zone.Name }

// steeredSource is one DynamicRecord: the owner of its addresses, and those of its SRV records.
type steeredSource struct {
	source   string
	kind     string             // of its report
	spec     *steeringpb.Record // of the host
	names    map[ownerKey]*steeredName
	until    time.Time                // compile again then; zero: never
	controls health.Controls          // as the machine was told last
	decided  *steering.Result         // of the host; nil: none yet
	report   *steeringpb.RecordReport // immutable
}

// steeredName is one owner.
type steeredName struct {
	record  *steering.Record
	memory  steering.Memory
	result  *steering.Result // that the view has; nil: none yet
	ledger  steering.Ledger
	changed time.Time // since when the present answer is given
	// state is what those who ask know, if known: of before the last restart, or 0 of a name that was not steered before.
	state uint64
	known bool
}

func newSteerer(o steererOptions) (*steerer, error) {
	s := &steerer{
		opts: o, kick: make(chan struct{}, 1),
		sources: map[string]*steeredSource{}, owners: map[ownerKey]string{},
		dirty: map[string]bool{}, unsaved: map[string][]byte{}, kinds: map[string]map[string]*steeredSource{}, parts: reportParts, unreports: map[string]bool{}, shown: map[string]bool{}, secrets: map[string]*tls.Certificate{},
		reach: probe.DenyByDefault(o.Own...), geography: geography{files: o.Geo, again: make(chan struct{}, 1)},
	}
	var stored []health.Stored
	if o.Memory != nil {
		state, err := o.Memory.LoadState()
		if err != nil {
			return nil, fmt.Errorf("loading what was decided before: %w", err)
		}
		for key, value := range state {
			if rest, is := cutPrefix(key, healthState); is {
				stored = append(stored, health.Stored{Key: []byte(rest), Value: value})
			}
		}
		s.local.load(time.Now(), state)
		s.remembered = state
	}
	now := time.Now()
	s.machine = health.New(o.Self, uint64(now.UnixNano()), now, stored)
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(o.Self.String()))
	s.scheduler = probe.NewScheduler(probe.Options{Deliver: s.deliver, Seed: seed.Sum64()})
	s.maker = probe.NewMaker(probe.Env{Denied: s.denied, Certificate: s.certificate, Lookup: lookUp, Panicked: s.panicked})
	s.flatten = newFlattener(s.remembered, s.resolved, s.denied, o.Log)
	return s, nil
}

// Prefixes of keys in the memory.
const (
	healthState   = "health/"
	memoryState   = "memory/"
	overrideState = "override/"
	flattenState  = "flatten/"
)

func cutPrefix(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || s[:len(prefix)] != prefix {
		return s, false
	}
	return s[len(prefix):], true
}

// poke has the goroutine look.
func (s *steerer) poke() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// zoneChanged takes the steered names of a zone that the view answers for by now. after is nil if it is gone. news tells that
// names which it has and before has not were answered otherwise.
func (s *steerer) zoneChanged(apex zone.Name, before, after *zone.Content, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.poke()
	at := time.Now()
	for ch := range zone.Diff(before, after) {
		old, now := ch.Old.RRset(zone.TypeSteered), ch.New.RRset(zone.TypeSteered)
		if old == now {
			continue
		}
		s.ownerChanged(at, ownerKey{apex, ch.Owner}, now, news && old.Empty(), after == nil)
	}
	if old, now := settingsOf(before), settingsOf(after); old != now {
		s.trust(apex, now)
	}
}

// ownerChanged takes what is at an owner that is or was steered. fresh tells that it was answered without steering before,
// unserved that its zone is not served any more. mu is held.
func (s *steerer) ownerChanged(at time.Time, key ownerKey, set zone.RRset, fresh, unserved bool) {
	record, spec, err := decodeSteered(key.owner, set)
	if err != nil {
		s.opts.Log.Error(err, "steered name can't be used", "name", key.owner.String())
	}
	var before *steeredName
	if source, known := s.owners[key]; known && (record == nil || record.Source != source) {
		before = s.sources[source].names[key]
		s.forget(key)
	}
	switch {
	case record != nil:
		n := s.learn(key, record, spec)
		if before != nil {
			n.state, n.known = before.state, before.known
		}
		n.known = n.known || fresh // in state 0
	case before == nil: // it was never of use
	case unserved:
		s.changed(changes.Change{Name: key.owner, Apex: key.apex, At: at})
	default:
		s.tell(at, key, before, s.opts.View.State(key.apex, key.owner))
	}
}

// tell tells of a name that it is in a state now, unless it was in that before. mu is held.
func (s *steerer) tell(at time.Time, key ownerKey, n *steeredName, state uint64) {
	if n.known && n.state != state {
		s.changed(changes.Change{Name: key.owner, Apex: key.apex, Before: []uint64{n.state}, After: state, At: at})
	}
	n.state, n.known = state, true
}

func (s *steerer) changed(c changes.Change) {
	c.Beneath = c.Name.IsWildcard()
	if s.opts.Changed != nil {
		s.opts.Changed(c)
	}
}

func settingsOf(c *zone.Content) string {
	if c == nil {
		return ""
	}
	for rdata := range c.Node(c.Apex()).RRset(zone.TypeZoneSettings).All() {
		return rdata
	}
	return ""
}

// trust has a zone believe what resolvers tell of their clients.
func (s *steerer) trust(apex zone.Name, settings string) {
	trusted, err := steering.DecodeZoneSettings(settings)
	if err != nil {
		s.opts.Log.Error(err, "settings of a zone can't be used", "zone", apex.String())
	}
	s.opts.View.TrustSubnets(apex, zone.NewNetworks(trusted))
}

// decodeSteered reads what is at a steered owner; nil if there is nothing, or nothing that can be used.
func decodeSteered(owner zone.Name, set zone.RRset) (*steering.Record, *steeringpb.Record, error) {
	for rdata := range set.All() {
		record, err := steering.Decode(owner, rdata)
		if err != nil {
			return nil, nil, err
		}
		spec := &steeringpb.Record{}
		if err := proto.Unmarshal([]byte(rdata), spec); err != nil {
			return nil, nil, err
		}
		return record, spec, nil
	}
	return nil, nil, nil
}

// learn adds a steered owner, or changes it: then what was decided, and what its targets are, stays. mu is held.
func (s *steerer) learn(key ownerKey, record *steering.Record, spec *steeringpb.Record) *steeredName {
	src := s.sources[record.Source]
	if src == nil {
		src = &steeredSource{source: record.Source, kind: reportKind(record.Source, s.parts), names: map[ownerKey]*steeredName{}}
		s.sources[record.Source] = src
		if s.kinds[src.kind] == nil {
			s.kinds[src.kind] = map[string]*steeredSource{}
		}
		s.kinds[src.kind][record.Source] = src
	}
	n := src.names[key]
	if n == nil {
		n = &steeredName{memory: s.recall(key)}
		n.state, n.known = n.memory.State, n.memory.State != 0
		src.names[key] = n
	}
	s.leads(key, n.record, record)
	n.record = record
	s.owners[key] = record.Source
	if record.SRV < 0 || src.spec == nil {
		src.spec = spec
		s.guard(func() { s.machine.SetRecord(time.Now(), spec) })
	}
	if record.Flatten {
		s.flatten.want(key, record)
	} else {
		s.flatten.drop(key)
	}
	if s.geo != nil && !s.geo.Covers(record.ASNs()) {
		select {
		case s.geography.again <- struct{}{}:
		default:
		}
	}
	s.dirty[record.Source] = true
	return n
}

// leads tells of what a name may be an alias to was and is so by its record, nil for none. mu is held.
func (s *steerer) leads(key ownerKey, was, is *steering.Record) {
	if s.opts.Leads != nil {
		s.opts.Leads(key.owner, was.AliasTo(), is.AliasTo())
	}
}

// forget removes a steered owner. mu is held.
func (s *steerer) forget(key ownerKey) {
	source, known := s.owners[key]
	if !known {
		return
	}
	delete(s.owners, key)
	s.flatten.drop(key)
	s.unsaved[memoryKey(key)] = nil
	src := s.sources[source]
	s.leads(key, src.names[key].record, nil)
	delete(src.names, key)
	if len(src.names) == 0 {
		delete(s.sources, source)
		delete(s.kinds[src.kind], source)
		s.guard(func() { s.machine.RemoveRecord(time.Now(), source) })
		s.unreports[src.kind] = true
	}
}

// Kinds of documents about steering: a steeringpb.Topology, Overrides and Certificates.
const (
	documentTopology  = "topology"
	documentOverrides = "overrides"
	documentSecrets   = "secrets"
)

// document takes what the hub says for all servers.
func (s *steerer) document(kind string, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.poke()
	now := time.Now()
	switch kind {
	case documentTopology:
		t := &steeringpb.Topology{}
		if err := proto.Unmarshal(body, t); err != nil {
			return fmt.Errorf("topology does not decode: %w", err)
		}
		world, err := steering.NewWorld(t)
		if err != nil {
			return err
		}
		reach, err := probe.ReachFrom(datacenterOf(t, s.opts.Self.Datacenter), s.opts.Own...)
		if err != nil {
			return err
		}
		if !votes(t, s.opts.Self) {
			t = withoutServers(t)
		}
		s.world, s.topology, s.reach = world, t, reach
		s.guard(func() { s.machine.SetTopology(now, t) })
		s.opts.View.Mute(datacenterOf(t, s.opts.Self.Datacenter).GetWitness())
		s.opts.SetPeers(peersOf(t))
		s.allDirty()
	case documentOverrides:
		overrides, err := steering.DecodeOverrides(body)
		if err != nil {
			return err
		}
		message := &steeringpb.Overrides{}
		if err := proto.Unmarshal(body, message); err != nil {
			return fmt.Errorf("overrides do not decode: %w", err)
		}
		if lost := steering.Forgotten(s.told, message, now); len(lost) > 0 {
			return fmt.Errorf("the hub of another cluster has told of overrides in force that this one does not know, and whose end nobody has approved: %s", strings.Join(lost, ", "))
		}
		s.hub, s.told = overrides, message
		s.allDirty()
	case documentSecrets:
		certificates, err := decodeCertificates(body, s.secrets)
		if err != nil {
			return err
		}
		s.secrets = certificates
	default:
		return fmt.Errorf("documents of kind %q mean nothing to this server", kind)
	}
	return nil
}

func (s *steerer) allDirty() {
	for source := range s.sources {
		s.dirty[source] = true
	}
}

// overrides are all that may be in force.
func (s *steerer) overrides() []*steering.Override {
	return append(slices.Clone(s.hub), s.local.all()...)
}

// datacenterOf returns what the topology says of a datacenter; nil: nothing.
func datacenterOf(t *steeringpb.Topology, name string) *steeringpb.Datacenter {
	for _, dc := range t.GetDatacenters() {
		if dc.GetName() == name {
			return dc
		}
	}
	return nil
}

// votes reports whether servers of self's group vote, in its datacenter.
func votes(t *steeringpb.Topology, self health.ServerID) bool {
	return slices.ContainsFunc(datacenterOf(t, self.Datacenter).GetServers(), func(s *steeringpb.Server) bool { return s.GetGroup() == self.Group })
}

// withoutServers is what the topology is to a server that has no steered names: it hears nobody, and misses nobody.
func withoutServers(t *steeringpb.Topology) *steeringpb.Topology {
	t = proto.CloneOf(t)
	for _, dc := range t.GetDatacenters() {
		dc.Servers = nil
	}
	return t
}

func peersOf(t *steeringpb.Topology) []mesh.Peer {
	var peers []mesh.Peer
	for _, dc := range t.GetDatacenters() {
		for _, srv := range dc.GetServers() {
			peers = append(peers, mesh.Peer{
				ServerID: health.ServerID{Datacenter: dc.GetName(), Group: srv.GetGroup(), Name: srv.GetName()}, Address: srv.GetMesh(),
			})
		}
	}
	return peers
}

// hear takes a message of a peer.
func (s *steerer) hear(from health.ServerID, m health.Message) {
	s.mu.Lock()
	s.guard(func() { s.machine.Receive(time.Now(), from, m) })
	s.mu.Unlock()
	s.poke()
}

// connected notes that a peer hears this server again.
func (s *steerer) connected(peer health.ServerID) {
	s.mu.Lock()
	s.guard(func() { s.machine.Connected(time.Now(), peer) })
	overrides := s.local.encoded()
	s.mu.Unlock()
	s.poke()
	if len(overrides) > 0 {
		s.opts.SendOverrides(overrides)
	}
}

// deliver takes the result of a probe.
func (s *steerer) deliver(id health.CheckID, r probe.Result) {
	s.mu.Lock()
	s.guard(func() { s.machine.Result(time.Now(), id, r.Health()) })
	s.mu.Unlock()
	s.poke()
}

// resolved notes that the addresses of a flattened name changed.
func (s *steerer) resolved(source string) {
	s.mu.Lock()
	s.dirty[source] = true
	s.mu.Unlock()
	s.poke()
}

// saveEvery is how often what changed goes to disk.
const saveEvery = time.Second

// run works until ctx ends.
func (s *steerer) run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { s.scheduler.Run(ctx) })
	running.Go(func() { s.watchAnchors(ctx) })
	running.Go(func() { s.flatten.run(ctx) })
	running.Go(func() { s.watchGeography(ctx) })
	running.Go(func() { s.keep(ctx) })
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		select {
		case <-ctx.Done():
			running.Wait()
			s.save()
			return nil
		case <-s.kick:
		case <-wake.C:
		}
		wake.Reset(max(0, time.Until(s.step())))
	}
}

// keep does until ctx ends what no answer waits for: a disk may take long.
func (s *steerer) keep(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		s.local.forget(time.Now())
		s.mu.Unlock()
		s.save()
		s.idle()
		s.tellCrowded(time.Now())
	}
}

// step does all that follows from what was told, and returns when there is more to do.
func (s *steerer) step() time.Time {
	out, run, reports, wake := s.decide()
	s.opts.Send(out.Send)
	if len(run)+len(out.Stop) > 0 {
		s.scheduler.Update(run, out.Stop)
	}
	for kind, message := range reports {
		body, err := marshal.Marshal(message)
		if err == nil {
			err = s.opts.Report(kind, body)
		}
		if err != nil {
			s.opts.Log.Error(err, "reporting")
		}
	}
	s.events.tell(s.opts.Log, time.Now(), out.Events)
	return wake
}

// eventLog logs events: of many within a moment only the first ones, and then how many there were.
type eventLog struct {
	began time.Time // the present moment
	count int       // of events in it
}

const (
	eventsTold   = 20
	eventsWithin = 10 * time.Second
)

func (l *eventLog) tell(log logr.Logger, now time.Time, events []health.Event) {
	if len(events) == 0 {
		return
	}
	if now.Sub(l.began) >= eventsWithin {
		if more := l.count - eventsTold; more > 0 {
			log.Info("steering: more events than are logged", "since", l.began.UTC().Format(time.RFC3339), "more", more)
		}
		l.began, l.count = now, 0
	}
	for _, e := range events {
		if l.count++; l.count <= eventsTold || e.Record == "" {
			log.Info("steering", "event", string(e.Kind), "record", e.Record, "pool", e.Pool, "datacenter", e.Datacenter)
		} else if l.count == eventsTold+1 {
			log.Info("steering: many events, the others of the next moment are not logged", "within", eventsWithin.String())
		}
	}
}

// decide is the part of step that nobody else may be in.
func (s *steerer) decide() (out health.Output, run []probe.Check, reports map[string]proto.Message, wake time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if cause := recover(); cause != nil {
			s.begin(cause, debug.Stack())
			wake = time.Now().Add(restartPause)
		}
	}()
	now := time.Now()
	switch {
	case now.Before(s.pause):
		return out, nil, nil, s.pause
	case !s.pause.IsZero(): // it was told nothing meanwhile
		s.pause = time.Time{}
		s.renew(now)
	}
	out = s.machine.Step(now)
	s.answerEarly(now)
	for _, source := range out.Changed {
		s.dirty[source] = true
	}
	if !s.until.IsZero() && !s.until.After(now) {
		s.until = time.Time{}
		for source, src := range s.sources {
			if !src.until.IsZero() && !src.until.After(now) {
				s.dirty[source] = true
				src.until = time.Time{}
			}
			s.wakeAt(src.until)
		}
	}
	if s.machine.Answering() {
		// Those that health changed come first: others may be all there are.
		s.compileDirty(now, slices.Values(out.Changed))
		s.compileDirty(now, maps.Keys(s.dirty))
	}
	for _, source := range out.Shown {
		s.shown[source] = true
	}
	reports = s.reports(now)
	wake = now.Add(time.Minute)
	for _, at := range []time.Time{out.Wake, s.until, s.reportsDue()} {
		if !at.IsZero() && at.Before(wake) {
			wake = at
		}
	}
	if len(s.dirty) > 0 && s.machine.Answering() {
		wake = now
	}
	return out, s.schedule(out), reports, wake
}

// compileFor is how long records are compiled until others may tell something again, such as a probe what it found.
const compileFor = 5 * time.Millisecond

// compileDirty compiles those of the records that are dirty, as long as compileFor lasts. mu is held.
func (s *steerer) compileDirty(now time.Time, sources iter.Seq[string]) {
	for source := range sources {
		if !s.dirty[source] {
			continue
		}
		if time.Since(now) > compileFor {
			return
		}
		delete(s.dirty, source)
		if src := s.sources[source]; src != nil {
			s.compile(now, src)
		}
	}
}

// wakeAt has records looked at again at a time, unless it is zero. mu is held.
func (s *steerer) wakeAt(at time.Time) {
	if !at.IsZero() && (s.until.IsZero() || at.Before(s.until)) {
		s.until = at
	}
}

const (
	// A machine that fails is made anew, after a pause; one that does so again and again, after a long one. Answers stay as
	// they are meanwhile.
	restartPause = time.Second
	maxRestarts  = 10
	restartsIn   = time.Minute
	longPause    = time.Minute
)

// guard has the machine told something. If it fails, it begins anew. mu is held.
func (s *steerer) guard(tell func()) {
	if time.Now().Before(s.pause) {
		return // it is made anew after it
	}
	if cause, stack := attempt(tell); cause != nil {
		s.begin(cause, stack)
	}
}

// attempt calls f and returns what it panics with, and where; nil: it does not.
func attempt(f func()) (cause any, stack []byte) {
	defer func() {
		if cause = recover(); cause != nil {
			stack = debug.Stack()
		}
	}()
	f()
	return nil, nil
}

// begin makes the machine anew, after it failed for the cause. It goes on from what the one before knew, as far as that can
// still be told, and else from what is on disk: above all, pools that were left stay so. mu is held.
func (s *steerer) begin(cause any, stack []byte) {
	now := time.Now()
	s.restarts = append(slices.DeleteFunc(s.restarts, func(t time.Time) bool { return now.Sub(t) > restartsIn }), now)
	s.panics++
	if len(s.restarts) == 1 { // the others say the same; their number is a metric
		s.opts.Log.Error(fmt.Errorf("panic: %v", cause), "deciding what is up failed; it begins anew", "stack", string(stack))
	}
	if len(s.restarts) > maxRestarts {
		s.restarts, s.pause = nil, now.Add(longPause)
		s.opts.Log.Error(fmt.Errorf("panic: %v", cause), "deciding what is up fails again and again; answers stay as they are for a while",
			"until", s.pause.UTC().Format(time.RFC3339), "stack", string(stack))
	}
	s.renew(now)
}

// renew makes the machine anew. mu is held.
func (s *steerer) renew(now time.Time) {
	s.machine = health.New(s.opts.Self, uint64(now.UnixNano()), now, s.known(now))
	if s.topology != nil {
		s.machine.SetTopology(now, s.topology)
	}
	for _, src := range s.sources {
		if cause, stack := attempt(func() { s.machine.SetRecord(now, src.spec) }); cause != nil {
			s.opts.Log.Error(fmt.Errorf("panic: %v", cause), "a record can't be judged; it is answered as before", "record", src.source, "stack", string(stack))
		}
		src.controls = health.Controls{}
	}
	s.scheduler.Set(nil)
	s.allDirty()
}

// known is what a machine made anew is to know: what is on disk, or is on its way there, and over that what the present one
// says. mu is held.
func (s *steerer) known(now time.Time) []health.Stored {
	entries := map[string][]byte{}
	take := func(from map[string][]byte) {
		for key, value := range from {
			if rest, is := cutPrefix(key, healthState); is {
				entries[rest] = value
			}
		}
	}
	if s.opts.Memory != nil {
		state, err := s.opts.Memory.LoadState()
		if err != nil {
			s.opts.Log.Error(err, "loading what was decided before")
		}
		take(state)
	}
	take(s.unsaved)
	var kept []health.Stored
	if cause, _ := attempt(func() { kept = s.machine.Kept(now) }); cause == nil {
		for _, e := range kept {
			entries[string(e.Key)] = e.Value
		}
	}
	stored := make([]health.Stored, 0, len(entries))
	for key, value := range entries {
		stored = append(stored, health.Stored{Key: []byte(key), Value: value})
	}
	return stored
}

// schedule makes probes of what the machine wants run. mu is held.
func (s *steerer) schedule(out health.Output) (run []probe.Check) {
	for _, c := range out.Run {
		run = append(run, s.maker.Check(c))
	}
	return run
}

// lookUp looks up a name that is probed, as the machine does.
func lookUp(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

func (s *steerer) denied(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reach.Denies(a)
}

func (s *steerer) certificate(name string) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.secrets[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("the certificate of Secret %s is not here", name)
}

func (s *steerer) panicked(cause any) {
	s.opts.Log.Error(fmt.Errorf("panic: %v", cause), "judging the answer of a target failed")
}

// anchorEvery is how often anchors are asked.
const anchorEvery = 2 * time.Second

// watchAnchors asks the anchors of all datacenters.
func (s *steerer) watchAnchors(ctx context.Context) {
	tick := time.NewTicker(anchorEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		t := s.topology
		s.mu.Unlock()
		var round sync.WaitGroup
		for _, dc := range t.GetDatacenters() {
			var anchors []netip.Addr
			for _, text := range dc.GetAnchors() {
				if a, err := netip.ParseAddr(text); err == nil {
					anchors = append(anchors, a)
				}
			}
			if len(anchors) == 0 {
				continue
			}
			round.Go(func() {
				within, cancel := context.WithTimeout(ctx, anchorEvery*3/4)
				defer cancel()
				answered := slices.Contains(probe.Anchors(within, anchors), true)
				if ctx.Err() != nil {
					return
				}
				s.mu.Lock()
				s.guard(func() { s.machine.AnchorRound(time.Now(), dc.GetName(), answered) })
				s.mu.Unlock()
				s.poke()
			})
		}
		round.Wait()
	}
}

// ready says why steered names are not judged yet, or nil.
func (s *steerer) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judged = s.judged || s.machine.Ready() // also of one that was made anew since
	if len(s.sources) > 0 && !s.judged {
		return fmt.Errorf("targets were not all probed yet")
	}
	return nil
}

// decodeCertificates reads the client certificates that probes show, by the name of their Secret. Of one that comes without
// its certificate that in force stays: the hub can't read it.
func decodeCertificates(body []byte, inForce map[string]*tls.Certificate) (map[string]*tls.Certificate, error) {
	m := &steeringpb.Certificates{}
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("certificates do not decode: %w", err)
	}
	certificates := map[string]*tls.Certificate{}
	for _, c := range m.GetCertificates() {
		if len(c.GetCertificate()) == 0 {
			if held := inForce[c.GetSecret()]; held != nil {
				certificates[c.GetSecret()] = held
			}
			continue
		}
		pair, err := tls.X509KeyPair(c.GetCertificate(), c.GetKey())
		if err != nil {
			return nil, fmt.Errorf("the certificate of Secret %s can't be used: %w", c.GetSecret(), err)
		}
		certificates[c.GetSecret()] = &pair
	}
	return certificates, nil
}
