package health

import (
	"iter"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// check is one check as this server knows it: what all say of it and, if it is run here, what it saw.
type check struct {
	id       CheckID
	ballots  []ballot   // at most one each server
	subjects []*subject // none: only others have records with it

	probe   *steeringpb.Probe // with subjects
	address string
	foreign bool // no subject is of this datacenter
	running bool // here
	judged  bool // has had a result

	tracker      Tracker
	silence      Result // that anchors must confirm, with Machine.doubted
	silenceBegan time.Time

	// This datacenter's vote as last decided, by this server or a sibling. It outlasts times without a vote.
	local statement

	wantsLatency  int // records with the policy LATENCY
	latency       time.Duration
	latencyMicros uint32 // as told
	latencyTold   time.Time

	votes  []State // of the datacenters, by place, as of the last judgement
	stands stands
	dirty  bool
}

// stands is how this server's vote stands to its siblings', for Machine.diagnose.
type stands struct {
	common, disagrees, down, votes bool
}

// subject is one check as records of one kind see it, of targets in one datacenter.
type subject struct {
	check *check
	home  string
	hold  bool

	homeAt     int   // place; -1: none
	electorate []int // places

	state State
	since int64 // Unix milliseconds: when it was decided, by whoever did

	held, tied bool
	users      map[*record]bool
}

// statement is what servers of a datacenter say that their datacenter votes: the latest counts.
type statement struct {
	state State
	since int64
}

func (s *statement) hear(state State, since int64) {
	if state == Unknown {
		return
	}
	if s.state == Unknown || since > s.since || since == s.since && state < s.state {
		s.state, s.since = state, since
	}
}

func (m *Machine) checks() iter.Seq[*check] {
	return func(yield func(*check) bool) {
		for i := range m.parts {
			for _, c := range m.parts[i] {
				if !yield(c) {
					return
				}
			}
		}
	}
}

func (m *Machine) addCheck(id CheckID) *check {
	c := &check{id: id}
	m.parts[id[0]][id] = c
	return c
}

// touch has the check judged in the next Step.
func (m *Machine) touch(c *check) {
	if !c.dirty {
		c.dirty = true
		m.dirty = append(m.dirty, c)
	}
}

// judgeChecks judges what was touched, and tells peers of own ballots that changed.
func (m *Machine) judgeChecks(now time.Time) {
	if m.all {
		m.all = false
		for c := range m.checks() {
			m.touch(c)
		}
	}
	var told []Ballot
	for _, c := range m.dirty {
		c.dirty = false
		if b, changed := m.judge(now, c); changed {
			told = append(told, b)
		}
		if len(c.ballots) == 0 && len(c.subjects) == 0 {
			delete(m.parts[c.id[0]], c.id)
		}
	}
	m.dirty = m.dirty[:0]
	sortBallots(told)
	for part := range slices.Chunk(told, ballotsPerMessage) {
		m.me.seq++
		m.send(ServerID{}, Message{Ballots: &Ballots{Boot: m.boot, Seq: m.me.seq, Ballots: part}})
	}
}

// judge counts the votes on a check, and decides on each of its subjects. It returns this server's ballot, and whether
// that changed.
func (m *Machine) judge(now time.Time, c *check) (Ballot, bool) {
	own := Ballot{Check: c.id}
	if c.running {
		if state, since := c.tracker.State(); state != Unknown {
			own.Vote, own.Since = state, since.UnixMilli()
		}
	}
	votes := m.count(now, c, own.Vote)
	recount := !slices.Equal(votes, c.votes)
	c.votes = append(c.votes[:0], votes...)
	if c.running {
		own.Datacenter, own.DatacenterSince = c.local.state, c.local.since
		own.Latency = c.tellLatency(now)
	}
	for _, s := range c.subjects {
		was := *s
		m.decide(now, s)
		if s.state != was.state || s.since != was.since {
			m.unsaved[c.id] = true
		}
		moved := s.state != was.state || s.held != was.held || s.tied != was.tied
		for r := range s.users {
			switch {
			case moved:
				m.stir[r] = true
				m.changed[r.source] = true
			case recount:
				m.shown[r.source] = true
			}
		}
		if s.state != Unknown {
			own.Verdicts = append(own.Verdicts, Verdict{Home: s.home, Hold: s.hold, State: s.state, Since: s.since})
		}
	}
	if old := c.of(m.me); old == nil && own.empty() || old != nil && old.equal(&own) {
		return own, false
	}
	m.put(c, m.me, &own)
	return own, true
}

// count returns the votes of the datacenters, by place, this server's own included: Unknown for those that have none,
// or are isolated. Behind them is a vote for where this server is if the topology does not know its datacenter. The
// result is good until the next call.
func (m *Machine) count(now time.Time, c *check, own State) []State {
	at := m.at()
	clear(m.tallies)
	clear(m.statements)
	for i := range c.ballots {
		b := &c.ballots[i]
		if p := b.peer; p != m.me && p.fresh && !p.sick && p.place >= 0 {
			m.tallies[p.place].add(b.Vote)
			m.statements[p.place].hear(b.Datacenter, b.DatacenterSince)
		}
	}
	m.compare(c, own, m.tallies[at].majority())
	if !m.me.sick {
		m.tallies[at].add(own)
	}
	m.statements[at].hear(c.local.state, c.local.since)

	for i := range m.tallies {
		t, vote := &m.tallies[i], Unknown
		if t.votes() > 0 {
			if vote = t.majority(); vote == Unknown {
				vote = m.statements[i].state
			}
		}
		if i != at {
			if i < len(m.places) && m.places[i].isolated {
				vote = Unknown
			}
			m.votes[i] = vote
			continue
		}
		if vote == Unknown && t.votes() > 0 { // tied from the beginning
			vote = Up
		}
		m.votes[i] = vote
		switch {
		case vote == Unknown:
		case t.majority() == Unknown && m.statements[i].state == vote:
			c.local = m.statements[i]
		case vote != c.local.state:
			c.local = statement{vote, now.UnixMilli()}
			m.unsaved[c.id] = true
		}
	}
	return m.votes
}

// at is where this server's datacenter is in m.votes.
func (m *Machine) at() int {
	if m.own < 0 {
		return len(m.places)
	}
	return m.own
}

// decide comes to a verdict.
func (m *Machine) decide(now time.Time, s *subject) {
	c := s.check
	own := c.votes[m.at()]
	kept := m.kept(s)
	next := Unknown // what was stays
	s.held, s.tied = false, false
	switch {
	case m.isolated():
		if s.homeAt == m.own {
			next = own
		}
	case c.probe.GetVantage() == steeringpb.Vantage_LOCAL:
		next = own
	default:
		var t tally
		absent := false
		for _, i := range s.electorate {
			t.add(c.votes[i])
			pl := &m.places[i]
			// Somebody who is not heard yet, or whose votes are still to come, may have one.
			absent = absent || i != m.own && c.votes[i] == Unknown && !pl.whole && (pl.fresh > 0 || pl.servers && !m.grown)
		}
		switch {
		case absent && kept.state != Unknown:
		case t.votes() > 0:
			next, s.tied = t.combine(c.probe.GetVantage(), Unknown)
		case !s.hold:
			next = own
		}
	}
	if next != Unknown && kept.state != Unknown && next.IsUp() != kept.state.IsUp() &&
		s.hold && s.homeAt >= 0 && s.homeAt != m.own && m.places[s.homeAt].lost && !m.confirmed(s, next) {
		s.held = true
		next = Unknown
	}
	if s.tied && kept.state == Unknown {
		kept = statement{Up, now.UnixMilli()}
	}
	verdict := kept
	if next != Unknown {
		verdict = statement{next, either(next == s.state, s.since, now.UnixMilli())}
	}
	s.state, s.since = verdict.state, verdict.since
}

// isolated reports whether this server's datacenter is.
func (m *Machine) isolated() bool { return m.own >= 0 && m.places[m.own].isolated }

// kept is the verdict when nothing new is decided: the latest that this datacenter came to. A server that has none takes
// over that of a peer, in the order of the electorate.
func (m *Machine) kept(s *subject) statement {
	best := statement{s.state, s.since}
	m.heard(s, m.self.Datacenter, &best)
	for _, i := range s.electorate {
		if best.state != Unknown {
			break
		}
		m.heard(s, m.places[i].name, &best)
	}
	return best
}

// heard adds what servers of a datacenter decided to what is known.
func (m *Machine) heard(s *subject, datacenter string, best *statement) {
	for i := range s.check.ballots {
		b := &s.check.ballots[i]
		if p := b.peer; p == m.me || !p.fresh || !p.settled || p.id.Datacenter != datacenter {
			continue
		}
		for _, v := range b.Verdicts {
			if v.Home == s.home && v.Hold == s.hold {
				best.hear(v.State, v.Since)
			}
		}
	}
}

// confirmed reports whether somebody else than this datacenter confirms a verdict on the target of a lost one: two
// places agree on it, or a witness says so; or the datacenter's own anchors answer from here, so that it is dead.
func (m *Machine) confirmed(s *subject, next State) bool {
	if next == Down && m.places[s.homeAt].anchors {
		return true
	}
	votes := s.check.votes
	agree := 0
	if v := votes[m.at()]; v != Unknown && v.IsUp() == next.IsUp() {
		agree++
	}
	for _, i := range s.electorate {
		if i == m.own || i == s.homeAt || votes[i] == Unknown || votes[i].IsUp() != next.IsUp() {
			continue
		}
		agree++
		if m.places[i].pb.GetWitness() {
			return true
		}
	}
	return agree >= 2
}

// compare keeps count of how this server's votes stand to its siblings'.
func (m *Machine) compare(c *check, own, siblings State) {
	add := func(s stands, n int) {
		m.votesCast += either(s.votes, n, 0)
		m.downs += either(s.down, n, 0)
		m.common += either(s.common, n, 0)
		m.disagree += either(s.disagrees, n, 0)
	}
	add(c.stands, -1)
	c.stands = stands{
		votes: own != Unknown, down: own == Down,
		common: own != Unknown && siblings.IsUp(), disagrees: own == Down && siblings.IsUp(),
	}
	add(c.stands, 1)
}

// diagnose finds out whether this server should abstain, and reports whether that changed.
func (m *Machine) diagnose(now time.Time) bool {
	if m.me.sick {
		well := m.common > 0 && m.disagree*4 <= m.common || m.common == 0 && m.downs*2 <= m.votesCast
		if !well {
			return false
		}
		m.sickSince = time.Time{}
	} else {
		if m.disagree < sickFrom || m.disagree*2 <= m.common {
			m.sickSince = time.Time{}
			return false
		}
		if m.sickSince.IsZero() {
			m.sickSince = now
		}
		if now.Sub(m.sickSince) < m.voteTTL {
			return false
		}
	}
	m.me.sick = !m.me.sick
	m.beatNow = true
	m.event(Event{Kind: either(m.me.sick, VantageSick, VantageRecovered)})
	return true
}

// tellLatency returns what peers are told of the latency: what they were told, unless it has changed by enough and for
// long enough.
func (c *check) tellLatency(now time.Time) uint32 {
	switch {
	case c.wantsLatency == 0:
		c.latencyMicros = 0
	case c.latencyMoved() && (c.latencyMicros == 0 || now.Sub(c.latencyTold) >= latencyAgain):
		c.latencyMicros, c.latencyTold = uint32(min(c.latency.Microseconds(), 1<<31)), now
	}
	return c.latencyMicros
}

// latencyMoved reports whether the latency is another than what peers were told.
func (c *check) latencyMoved() bool {
	told, now := c.latencyMicros, uint32(min(c.latency.Microseconds(), 1<<31))
	return now > 0 && (told == 0 || max(now, told)-min(now, told) > told/latencyPart)
}
