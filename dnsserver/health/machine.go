package health

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

const (
	// What a server knew before it stopped, or stood still, counts for so long.
	remembered = 10 * time.Minute
	// A server that starts waits so long for the latches of others; half of it if it has siblings, and only others answer.
	adoptWithin = 2 * time.Second
	// A server is ready so long after its start, whatever its probes do.
	readyWithin = 30 * time.Second
	// A server is sick if it sees down so many checks and more than half of those that it has in common with siblings
	// that see them up, for a voteTTL. It recovers when these are a quarter or less.
	sickFrom = 3
	// Anchors count as silent after so many rounds in a row without an answer.
	silentRounds = 2
	// Latencies are told again when they changed by this part, so long after the last time.
	latencyPart  = 10
	latencyAgain = 10 * time.Second
)

// Machine is the health of all steered names as one server sees it. It is not safe for concurrent use.
//
// Call the methods that tell it something, then Step, which says what follows; and call Step when Output.Wake comes. now
// must have a monotonic reading, or at least never go back.
//
// # Latches
//
// A pool that is down for a second is left, once another is up: its latch says Out, and clients get other pools. With failover by
// hand, and if the pool is not down only because that is held, a person must have forced another pool first. It comes in again when it was up for the failback delay, or when a
// person fails it back; at once if no pool that is in is up, or with the policy FAILOVER if a pool before it is in use.
//
// Latches are for all datacenters, but where the deciding datacenter decides for itself alone: when the pool's probes are
// Local; when this datacenter is isolated, or that of the pool is lost, and the record trusts local sight; and when that
// of the pool is lost, the record holds, and not more than half of the electorate besides it see what this datacenter
// sees. Such latches are told to all as well. A server that starts takes over those of its siblings; if it has none, it
// leaves the pools that every other datacenter has left.
type Machine struct {
	self ServerID
	boot uint64
	// nonce is another after each start and waking: only peers count that have answered it.
	nonce uint64

	start, last         time.Time // start: of the process, or when it woke
	born                time.Time // of the process
	settled             bool      // what others know was adopted
	answering, ready    bool
	nextBeat, nextAlive time.Time
	nextForget          time.Time
	beatNow             bool // flags of the heartbeat changed

	topology *steeringpb.Topology
	voteTTL  time.Duration
	places   []place // by name
	own      int     // index of this server's; -1: none
	witness  bool
	stated   map[ServerID]bool // servers of the topology

	peers  map[ServerID]*peer
	me     *peer
	estate bool // flags or freshness of a peer changed: survey, then judge all

	parts [256]map[CheckID]*check // by first octet
	dirty []*check
	all   bool // all checks are
	grown bool // a voteTTL has passed since the start: who is not heard is lost

	// By place, and one more for this server if it is in none: room for count.
	tallies    []tally
	statements []statement
	votes      []State

	common, disagree, downs, votesCast int // of checks: see stands
	unjudged                           int // checks without a first result
	sickSince                          time.Time

	silent    int       // rounds of this datacenter's anchors in a row without an answer
	touched   time.Time // when one of them answered
	connected time.Time // since when they answered without a round missed
	doubted   map[*check]bool

	records  map[string]*record
	controls map[string]Controls
	stir     map[*record]bool // to be judged again
	left     map[*record]bool // records with a pool that is out
	timers   timers

	evaluation uint64 // see formula

	latches     map[LatchKey]Latch
	latchDigest uint64
	latched     time.Time // when one changed last
	newLatches  map[LatchKey]bool

	out     Output
	changed map[string]bool
	shown   map[string]bool
	run     map[*check]bool // that may have to start or stop

	stored       map[CheckID]storedCheck // from disk, not yet claimed
	unsaved      map[CheckID]bool
	unsavedLatch map[LatchKey]bool
}

// New returns the machine of a server that starts at now. boot is above 0 and differs from that of the process before.
// stored is what Unsaved returned, the latest of each key, in any order; entries that do not parse are left out.
func New(self ServerID, boot uint64, now time.Time, stored []Stored) *Machine {
	m := &Machine{
		self: self, boot: boot, nonce: boot, start: now, born: now, last: now, own: -1, voteTTL: defaultVoteTTL, connected: now,
		topology: &steeringpb.Topology{},
		stated:   map[ServerID]bool{}, peers: map[ServerID]*peer{}, doubted: map[*check]bool{},
		records: map[string]*record{}, controls: map[string]Controls{}, stir: map[*record]bool{}, left: map[*record]bool{},
		latches: map[LatchKey]Latch{}, newLatches: map[LatchKey]bool{},
		changed: map[string]bool{}, shown: map[string]bool{}, run: map[*check]bool{},
		unsaved: map[CheckID]bool{}, unsavedLatch: map[LatchKey]bool{},
	}
	for i := range m.parts {
		m.parts[i] = map[CheckID]*check{}
	}
	m.makeRoom()
	m.me = m.peer(self)
	m.me.boot, m.me.fresh, m.me.whole = boot, true, true
	m.restore(now, stored)
	return m
}

// enter is told the time by whoever was told something. A server that stood still for a voteTTL has missed what others
// decided: it goes on as after a start, but goes on answering.
func (m *Machine) enter(now time.Time) {
	gap := now.Sub(m.last)
	m.last = later(m.last, now)
	if gap < m.voteTTL {
		return
	}
	m.start, m.settled = now, false
	m.nonce++
	m.connected = now
	m.silent = 0
	clear(m.doubted)
	for _, p := range m.peers {
		if p != m.me {
			p.fresh, p.settled, p.complete, p.whole = false, false, false, false
			p.heard, p.asked, p.waiting = time.Time{}, time.Time{}, nil
		}
	}
	if gap >= remembered {
		for c := range m.checks() {
			c.tracker.forget(now)
			for _, s := range c.subjects {
				s.state = Unknown
			}
		}
	}
	m.estate, m.beatNow = true, true
}

// makeRoom has what votes are counted in fit the places and, behind them, a server that is in none.
func (m *Machine) makeRoom() {
	m.tallies = make([]tally, len(m.places)+1)
	m.statements = make([]statement, len(m.places)+1)
	m.votes = make([]State, len(m.places)+1)
}

// SetTopology tells what datacenters and servers there are. The server itself need not be among them. t must not change
// afterwards.
func (m *Machine) SetTopology(now time.Time, t *steeringpb.Topology) {
	m.enter(now)
	old := map[string]place{}
	for _, pl := range m.places {
		old[pl.name] = pl
	}
	m.topology = t
	m.voteTTL = defaultVoteTTL
	if t.GetVoteTtl() > 0 {
		m.voteTTL = max(milliseconds(t.GetVoteTtl()), time.Second)
	}
	m.places = nil
	clear(m.stated)
	for _, d := range t.GetDatacenters() {
		pl := old[d.GetName()]
		pl.name, pl.pb, pl.servers = d.GetName(), d, false
		if len(d.GetAnchors()) == 0 {
			pl.here = false
		}
		for _, s := range d.GetServers() {
			id := ServerID{d.GetName(), s.GetGroup(), s.GetName()}
			m.stated[id] = true
			pl.servers = pl.servers || id != m.self
		}
		if pl.servers && !old[pl.name].servers {
			pl.joined = now
		}
		m.places = append(m.places, pl)
	}
	slices.SortStableFunc(m.places, func(a, b place) int { return strings.Compare(a.name, b.name) })
	m.places = slices.CompactFunc(m.places, func(a, b place) bool { return a.name == b.name })
	m.own = m.placeOf(m.self.Datacenter)
	m.witness = m.own >= 0 && m.places[m.own].pb.GetWitness()
	for _, p := range m.peers {
		p.place = m.placeOf(p.id.Datacenter)
	}
	if !m.anchored() {
		m.silent, m.me.isolated = 0, false
	}
	m.makeRoom()
	for c := range m.checks() {
		c.votes = nil
		for _, s := range c.subjects {
			m.place(s)
		}
		m.run[c] = true
	}
	for _, r := range m.records {
		m.stir[r] = true
		m.changed[r.source] = true
	}
	m.estate, m.beatNow = true, true
}

// placeOf returns the index of a datacenter; -1: there is none of that name.
func (m *Machine) placeOf(name string) int {
	i, ok := slices.BinarySearchFunc(m.places, name, func(p place, name string) int { return strings.Compare(p.name, name) })
	if !ok {
		return -1
	}
	return i
}

// anchored reports whether this datacenter has what it takes to find out that it is isolated.
func (m *Machine) anchored() bool {
	return m.own >= 0 && len(m.places[m.own].pb.GetAnchors()) >= minAnchors
}

// SetControls replaces what overrides mean for a record. They are kept for records that are not there yet.
func (m *Machine) SetControls(now time.Time, source string, c Controls) {
	m.enter(now)
	if c.isZero() {
		delete(m.controls, source)
	} else {
		m.controls[source] = c
	}
	if r := m.records[source]; r != nil {
		r.controls = c
		m.stir[r] = true
	}
}

func (c Controls) isZero() bool {
	return !c.Frozen && !c.Failback && len(c.Forced) == 0 && len(c.Drained) == 0
}

// Result tells what a probe saw that ends now. Results of checks that are not run any more are ignored.
func (m *Machine) Result(now time.Time, id CheckID, r Result) {
	m.enter(now)
	c := m.parts[id[0]][id]
	if c == nil || !c.running {
		return
	}
	if !c.judged {
		c.judged = true
		m.unjudged--
	}
	if r.Latency > 0 {
		c.latency = r.Latency
		if c.wantsLatency > 0 && c.latencyMoved() && now.Sub(c.latencyTold) >= latencyAgain {
			m.touch(c)
		}
	}
	if r.Outcome == Down && r.Silent && c.foreign && m.anchored() {
		// Silence of another datacenter counts only if this one was connected when it asked, and after.
		began := now.Add(-r.Took)
		switch {
		case m.silent > 0 || began.Before(m.connected):
			return
		case m.touched.Before(began):
			c.silence, c.silenceBegan = r, began
			m.doubted[c] = true
			return
		}
	}
	m.track(now, c, r)
}

// track has the tracker take a result.
func (m *Machine) track(now time.Time, c *check, r Result) {
	doubted, failure := c.tracker.Doubted(), c.tracker.Failure()
	if c.tracker.Result(c.probe, now, r) {
		m.touch(c)
		m.unsaved[c.id] = true
	}
	if doubted != c.tracker.Doubted() || failure != c.tracker.Failure() {
		for _, s := range c.subjects {
			for user := range s.users {
				m.shown[user.source] = true
				if user.derivedTTL() {
					m.changed[user.source] = true
				}
			}
		}
	}
}

// AnchorRound tells whether any anchor of a datacenter answered, after each was asked once: of its own (isolation), and of
// all others that have anchors (Hold). Every second or two.
func (m *Machine) AnchorRound(now time.Time, datacenter string, answered bool) {
	m.enter(now)
	i := m.placeOf(datacenter)
	if i < 0 {
		return
	}
	if pl := &m.places[i]; pl.here != answered {
		pl.here = answered
		m.estate, m.beatNow = true, true
	}
	if i != m.own || !m.anchored() {
		return
	}
	if !answered {
		m.silent = min(m.silent+1, silentRounds)
		clear(m.doubted)
	} else {
		if m.silent > 0 {
			m.silent = 0
			m.connected = now
		}
		m.touched = now
		for c := range m.doubted {
			delete(m.doubted, c)
			if c.running {
				m.track(now, c, c.silence)
			}
		}
	}
	if isolated := m.silent == silentRounds; isolated != m.me.isolated {
		m.me.isolated = isolated
		m.estate, m.beatNow = true, true
		m.event(Event{Kind: either(isolated, Isolated, IsolationEnded)})
	}
}

// Output is what a Step asks for. Nothing in it is touched by the Machine later.
type Output struct {
	Send    []Envelope
	Changed []string // sources of records whose answers may have changed, sorted: compile them again
	Shown   []string // sources of records of whose View only what people see changed, sorted
	Run     []Check  // to be probed from now on
	Stop    []CheckID
	Events  []Event
	Wake    time.Time // Step again then, at the latest
}

// Envelope is a message and who gets it.
type Envelope struct {
	To      ServerID // zero: every connected peer
	Message Message
}

// Step does what is due, and returns what follows from all that was told since the Step before.
func (m *Machine) Step(now time.Time) Output {
	m.enter(now)
	m.expire(now)
	if grown := now.Sub(m.start) >= m.voteTTL; grown != m.grown {
		m.grown, m.estate = grown, true
	}
	for i := range m.places {
		if pl := &m.places[i]; !pl.joined.IsZero() && now.Sub(pl.joined) >= m.voteTTL {
			pl.joined, m.estate = time.Time{}, true
		}
	}
	if m.estate {
		m.survey(now)
		m.estate, m.all = false, true
		for r := range m.left { // somebody else may dispute that a pool is up
			m.stir[r] = true
		}
	}
	m.settle(now)
	m.schedule()
	m.judgeChecks(now)
	if m.diagnose(now) {
		m.all = true
		m.judgeChecks(now)
	}
	m.judgeRecords(now)
	m.tell(now)

	out := m.out
	m.out = Output{}
	for source := range m.changed {
		delete(m.shown, source)
	}
	out.Changed = slices.Sorted(maps.Keys(m.changed))
	out.Shown = slices.Sorted(maps.Keys(m.shown))
	clear(m.changed)
	clear(m.shown)
	sortEvents(out.Events)
	out.Wake = m.wake(now)
	return out
}
