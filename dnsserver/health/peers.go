package health

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

const (
	ballotsPerMessage = 500
	latchesPerMessage = 2000
	latchesSize       = 512 << 10 // octets of one message, about: what names may be long in
	latchesWaiting    = 1 << 20
	// A peer is asked again, and sent all latches again, so long after the last time.
	askAgain = 2 * time.Second
	// Peers that are in no topology and silent are forgotten after so long.
	forgetPeer = 10 * time.Minute
)

// peer is a server that votes; this one is one of them.
type peer struct {
	id    ServerID
	place int // index into Machine.places; -1: none
	// heard is when the last message came; zero: not since the start.
	heard time.Time
	nonce uint64    // that it answered; it counts if that is Machine.nonce
	fresh bool      // heard within a voteTTL, and it counts
	since time.Time // when it became fresh

	// Its table of ballots, as far as it is known.
	boot  uint64
	seq   uint64
	parts [256]uint64 // digests
	whole bool        // it is complete, by digest or a Table
	asked time.Time

	// Latches.
	sent      time.Time // all latches were, last; zero: not over this connection
	sentTo    uint64    // its boot then
	waiting   []Latch   // that came before it was fresh
	complete  bool      // all of its own have come, or were equal
	different int       // heartbeats in a row whose digest is not ours

	settled, isolated, sick bool
	began                   int64 // Heartbeat.Began
	anchors                 []string
}

// ballot is what one server says of a check.
type ballot struct {
	peer *peer
	Ballot
}

// Receive takes a message of a peer, whose datacenter and group were proved.
func (m *Machine) Receive(now time.Time, from ServerID, msg Message) {
	m.enter(now)
	if from == m.self {
		return
	}
	p := m.peer(from)
	p.heard = now
	switch {
	case msg.Heartbeat != nil:
		m.heartbeat(now, p, msg.Heartbeat)
	case msg.Ballots != nil:
		m.ballots(now, p, msg.Ballots)
	case msg.Ask != nil:
		m.answer(now, p, msg.Ask)
	case msg.Table != nil:
		m.table(p, msg.Table)
	case msg.Latches != nil:
		m.takeLatches(now, p, msg.Latches)
	}
}

// takeLatches merges latches, but those of a peer that does not count yet only when it does: together with its votes.
func (m *Machine) takeLatches(now time.Time, p *peer, ls *Latches) {
	if ls.Last && ls.Nonce == m.nonce && p.nonce != m.nonce {
		p.nonce = m.nonce
		m.counts(now, p)
	}
	if !p.fresh {
		p.waiting = append(p.waiting, ls.Latches...)
		if len(p.waiting) > latchesWaiting {
			p.waiting = nil // the next heartbeats show that they are missing
		}
		return
	}
	for _, l := range ls.Latches {
		m.merge(l)
	}
	p.complete = p.complete || ls.Last
}

// counts has a peer count that is heard again, or for the first time.
func (m *Machine) counts(now time.Time, p *peer) {
	p.fresh, p.since = true, now
	m.estate = true
	for _, l := range p.waiting {
		m.merge(l)
	}
	p.waiting = nil
}

// Connected tells that messages reach the peer again: it is told what it missed. That a connection broke need not be told:
// a peer is lost when it was not heard for a voteTTL.
func (m *Machine) Connected(now time.Time, id ServerID) {
	m.enter(now)
	if id == m.self {
		return
	}
	p := m.peer(id)
	p.asked, p.sent, p.complete, p.different = time.Time{}, time.Time{}, false, 0
	m.send(id, Message{Heartbeat: m.state()})
	if p.nonce != m.nonce {
		m.ask(now, p)
	}
}

func (m *Machine) peer(id ServerID) *peer {
	p := m.peers[id]
	if p == nil {
		p = &peer{id: id, place: m.placeOf(id.Datacenter)}
		m.peers[id] = p
	}
	return p
}

func (m *Machine) heartbeat(now time.Time, p *peer, h *Heartbeat) {
	p.began = h.Began
	if !p.fresh && p.nonce == m.nonce {
		m.counts(now, p)
	}
	if p.settled != h.Settled || p.isolated != h.Isolated || p.sick != h.Sick || !slices.Equal(p.anchors, h.Anchors) {
		p.settled, p.isolated, p.sick, p.anchors = h.Settled, h.Isolated, h.Sick, h.Anchors
		m.estate = true
	}

	whole := p.whole
	p.whole = p.boot == h.Boot && p.seq >= h.Seq && (p.seq > h.Seq || sum(&p.parts) == h.Digest)
	if p.boot == 0 && h.Seq == 0 && h.Digest == 0 { // has told nothing yet
		p.boot, p.whole = h.Boot, true
	}
	if !p.whole || p.nonce != m.nonce {
		m.ask(now, p)
	}
	m.estate = m.estate || whole != p.whole

	if h.LatchDigest == m.latchDigest {
		p.complete, p.different = true, 0
		return
	}
	// What is on its way makes digests differ, too.
	p.different++
	if first := p.sent.IsZero() || p.sentTo != h.Boot; !first && (p.different < 2 || now.Sub(m.latched) < askAgain || now.Sub(p.sent) < askAgain) {
		return
	}
	p.sentTo = h.Boot
	m.sendLatches(now, p, 0)
}

// sendLatches sends a peer all latches, unasked if nonce is 0.
func (m *Machine) sendLatches(now time.Time, p *peer, nonce uint64) {
	p.sent, p.different = now, 0
	all := slices.SortedFunc(maps.Values(m.latches), func(a, b Latch) int { return compareKeys(a.LatchKey, b.LatchKey) })
	for first := true; first || len(all) > 0; first = false {
		n := latchesFitting(all)
		m.send(p.id, Message{Latches: &Latches{Latches: all[:n], Last: n == len(all), Nonce: nonce}})
		all = all[n:]
	}
}

// latchesFitting counts those at the beginning that fit into one message: one at least, if there are any.
func latchesFitting(all []Latch) int {
	size := 0
	for i := range all[:min(len(all), latchesPerMessage)] {
		l := &all[i]
		size += len(l.Record) + len(l.Pool) + len(l.Scope) + len(l.By) + 64
		if size > latchesSize && i > 0 {
			return i
		}
	}
	return min(len(all), latchesPerMessage)
}

func (m *Machine) ask(now time.Time, p *peer) {
	if !p.asked.IsZero() && now.Sub(p.asked) < askAgain {
		return
	}
	p.asked = now
	m.send(p.id, Message{Ask: &Ask{Nonce: m.nonce, Digests: slices.Clone(p.parts[:]), LatchDigest: m.latchDigest}})
}

// ballots takes changed votes of a peer. Each is complete, so they count even if others are missing before them.
func (m *Machine) ballots(now time.Time, p *peer, b *Ballots) {
	if p.boot == b.Boot && b.Seq <= p.seq {
		return
	}
	if p.boot == 0 && b.Seq == 1 {
		p.boot, p.whole = b.Boot, true
	}
	gap := p.boot != b.Boot || b.Seq != p.seq+1
	p.boot, p.seq = b.Boot, b.Seq
	for i := range b.Ballots {
		m.cast(p, &b.Ballots[i])
	}
	if gap {
		p.whole = false
		m.ask(now, p)
	}
}

// answer tells the peer what it lacks.
func (m *Machine) answer(now time.Time, p *peer, a *Ask) {
	m.send(p.id, Message{Heartbeat: m.state()})
	defer func() {
		if a.LatchDigest != m.latchDigest {
			m.sendLatches(now, p, a.Nonce)
		} else {
			m.send(p.id, Message{Latches: &Latches{Last: true, Nonce: a.Nonce}})
		}
	}()
	var t Table
	flush := func(last bool) {
		t.Boot, t.Seq, t.Last = m.boot, m.me.seq, last
		sent := t
		m.send(p.id, Message{Table: &sent})
		t = Table{}
	}
	for part := range 256 {
		if part < len(a.Digests) && a.Digests[part] == m.me.parts[part] {
			continue
		}
		t.Parts = append(t.Parts, uint8(part))
		for _, c := range m.parts[part] {
			if b := c.of(m.me); b != nil {
				t.Ballots = append(t.Ballots, b.Ballot)
			}
		}
		if len(t.Ballots) >= ballotsPerMessage {
			sortBallots(t.Ballots)
			flush(false)
		}
	}
	sortBallots(t.Ballots)
	flush(true)
}

// table takes parts of a peer's table.
func (m *Machine) table(p *peer, t *Table) {
	if p.boot == t.Boot && t.Seq < p.seq {
		return // of before what it told meanwhile: the next heartbeat shows whether something is missing
	}
	if p.boot != t.Boot {
		p.boot, p.seq = t.Boot, 0
	}
	p.seq = max(p.seq, t.Seq)
	told := make(map[CheckID]bool, len(t.Ballots))
	for i := range t.Ballots {
		told[t.Ballots[i].Check] = true
		m.cast(p, &t.Ballots[i])
	}
	for _, part := range t.Parts {
		for id, c := range m.parts[part] {
			if !told[id] && c.of(p) != nil {
				m.cast(p, &Ballot{Check: id})
			}
		}
	}
	if t.Last {
		m.estate = m.estate || !p.whole
		p.whole, p.asked = true, time.Time{}
	}
}

// cast makes b the ballot of p, and has the check judged.
func (m *Machine) cast(p *peer, b *Ballot) {
	c := m.parts[b.Check[0]][b.Check]
	if c == nil {
		if b.empty() {
			return
		}
		c = m.addCheck(b.Check)
	}
	m.put(c, p, b)
	m.touch(c)
}

// put makes b the ballot of p. What latencies decide, and whether a pool is disputed, is looked at again.
func (m *Machine) put(c *check, p *peer, b *Ballot) {
	part := &p.parts[c.id[0]]
	old := c.of(p)
	latency, verdicts := uint32(0), []Verdict(nil)
	if old != nil {
		latency, verdicts = old.Latency, old.Verdicts
	}
	measured, others := latency != b.Latency, p != m.me && !slices.Equal(verdicts, b.Verdicts)
	for _, s := range c.subjects {
		if !measured && !others {
			break
		}
		for r := range s.users {
			if measured && r.pb.GetPolicy() == steeringpb.Policy_LATENCY {
				m.changed[r.source] = true
			}
			if others && m.left[r] {
				m.stir[r] = true
			}
		}
	}
	if old != nil {
		*part -= old.digest()
	}
	if b.empty() {
		c.ballots = slices.DeleteFunc(c.ballots, func(x ballot) bool { return x.peer == p })
		return
	}
	*part += b.digest()
	if old != nil {
		old.Ballot = *b
	} else {
		c.ballots = append(c.ballots, ballot{peer: p, Ballot: *b})
	}
}

// of returns the ballot of p; nil: there is none. It is good until the next one is cast.
func (c *check) of(p *peer) *ballot {
	for i := range c.ballots {
		if c.ballots[i].peer == p {
			return &c.ballots[i]
		}
	}
	return nil
}

// expire notices who was not heard for a voteTTL, and forgets who is gone for good.
func (m *Machine) expire(now time.Time) {
	for id, p := range m.peers {
		if p == m.me {
			continue
		}
		if p.fresh && now.Sub(p.heard) >= m.voteTTL {
			p.fresh = false
			m.estate = true
		}
		if !p.fresh && !m.stated[id] && now.Sub(later(p.heard, m.start)) >= forgetPeer {
			for part := range m.parts {
				for check, c := range m.parts[part] {
					if c.of(p) != nil {
						m.cast(p, &Ballot{Check: check})
					}
				}
			}
			delete(m.peers, id)
		}
	}
}

// survey brings m.places up to date with the peers' flags, after some of them changed.
func (m *Machine) survey(now time.Time) {
	for i := range m.places {
		pl := &m.places[i]
		pl.fresh, pl.whole, pl.isolated, pl.anchors = 0, true, true, pl.here
	}
	for _, p := range m.peers {
		if p.place < 0 || !p.fresh {
			continue
		}
		pl := &m.places[p.place]
		pl.fresh++
		pl.whole = pl.whole && (p.whole || now.Sub(p.since) >= m.voteTTL)
		pl.isolated = pl.isolated && p.isolated
		if p.place != m.own {
			continue
		}
		for _, name := range p.anchors {
			if i := m.placeOf(name); i >= 0 {
				m.places[i].anchors = true
			}
		}
	}
	for i := range m.places {
		pl := &m.places[i]
		pl.whole = pl.whole && pl.fresh > 0
		pl.isolated = pl.isolated && pl.fresh > 0
		lost := pl.servers && pl.fresh == 0 && m.grown && pl.joined.IsZero()
		if lost != pl.lost {
			pl.lost = lost
			if !lost {
				pl.back = now
			}
			m.event(Event{Kind: either(lost, PeerLost, PeerBack), Datacenter: pl.name})
		}
		if !pl.lost && !pl.back.IsZero() && now.Sub(pl.back) < m.voteTTL { // its servers come one by one
			m.forgive(now, i)
		}
	}
}

// forgive forgets votes against targets of a datacenter that is heard again, if it was cut off and not dead: one of its
// servers ran all the time. That its targets were silent says nothing of them then.
func (m *Machine) forgive(now time.Time, place int) {
	began := int64(math.MaxInt64)
	for _, p := range m.peers {
		if p.place == place && p.fresh && p.settled {
			began = min(began, p.began)
		}
	}
	for c := range m.checks() {
		if !c.running || !c.tracker.Silent() || !slices.ContainsFunc(c.subjects, func(s *subject) bool { return s.homeAt == place }) {
			continue
		}
		if _, since := c.tracker.State(); began < since.UnixMilli() && since.Before(m.places[place].back) {
			c.tracker.forget(now)
			m.unsaved[c.id] = true
		}
	}
}

// state is the heartbeat of now.
func (m *Machine) state() *Heartbeat {
	h := &Heartbeat{
		Boot: m.boot, Began: m.start.UnixMilli(), Seq: m.me.seq, Digest: sum(&m.me.parts), LatchDigest: m.latchDigest,
		Settled: m.settled, Isolated: m.me.isolated, Sick: m.me.sick,
	}
	for i := range m.places {
		if pl := &m.places[i]; pl.here && i != m.own {
			h.Anchors = append(h.Anchors, pl.name)
		}
	}
	slices.Sort(h.Anchors)
	return h
}

func (m *Machine) send(to ServerID, msg Message) {
	m.out.Send = append(m.out.Send, Envelope{To: to, Message: msg})
}

// empty reports whether the ballot says nothing.
func (b *Ballot) empty() bool {
	return b.Vote == Unknown && b.Datacenter == Unknown && b.Latency == 0 && len(b.Verdicts) == 0
}

func (b *Ballot) equal(o *Ballot) bool {
	return b.Check == o.Check && b.Vote == o.Vote && b.Since == o.Since && b.Datacenter == o.Datacenter &&
		b.DatacenterSince == o.DatacenterSince && b.Latency == o.Latency && slices.Equal(b.Verdicts, o.Verdicts)
}

// digest is equal at all servers, and only for equal ballots but for accidents. Sums of digests sum up tables.
func (b *Ballot) digest() uint64 {
	h := newHash()
	h.octets(b.Check[:])
	h.number(uint64(b.Vote))
	h.number(uint64(b.Since))
	h.number(uint64(b.Datacenter))
	h.number(uint64(b.DatacenterSince))
	h.number(uint64(b.Latency))
	for i := range b.Verdicts {
		v := &b.Verdicts[i]
		h.text(v.Home)
		h.number(either(v.Hold, uint64(1), 0))
		h.number(uint64(v.State))
		h.number(uint64(v.Since))
	}
	return h.sum()
}

func sortBallots(bs []Ballot) {
	slices.SortFunc(bs, func(a, b Ballot) int { return slices.Compare(a.Check[:], b.Check[:]) })
}

func compareKeys(a, b LatchKey) int {
	return cmp.Or(cmp.Compare(a.Record, b.Record), cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Scope, b.Scope))
}

func sum(parts *[256]uint64) uint64 {
	var s uint64
	for _, p := range parts {
		s += p
	}
	return s
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func either[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// hash is FNV-1a, finished so that sums of hashes mix well.
type hash uint64

func newHash() hash { return 14695981039346656037 }

func (h *hash) octets(s []byte) {
	for _, o := range s {
		*h = (*h ^ hash(o)) * 1099511628211
	}
}

func (h *hash) text(s string) {
	for i := range len(s) {
		*h = (*h ^ hash(s[i])) * 1099511628211
	}
	h.number(uint64(len(s)))
}

func (h *hash) number(n uint64) {
	for range 8 {
		*h = (*h ^ hash(n&0xff)) * 1099511628211
		n >>= 8
	}
}

func (h *hash) sum() uint64 {
	x := uint64(*h)
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
