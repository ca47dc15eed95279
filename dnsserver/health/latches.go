package health

import (
	"container/heap"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// Entries that say In, or are about records that are not here, are forgotten after so long.
const rememberLatch = 30 * 24 * time.Hour

// A pool is left when it was down for so long: before, it is not used, but for some moments servers may see it down that
// others do not. Nor does it come in so soon after it was left; if it is all there is, it is used meanwhile.
const latchPause = time.Second

// judgeRecords judges the records that something happened to, and those whose time has come.
func (m *Machine) judgeRecords(now time.Time) {
	for len(m.timers) > 0 && !m.timers[0].at.After(now) {
		t := heap.Pop(&m.timers).(timer)
		if m.records[t.record.source] == t.record {
			m.stir[t.record] = true
		}
	}
	for r := range m.stir {
		delete(m.stir, r)
		m.judgeRecord(now, r)
	}
	if len(m.newLatches) == 0 {
		return
	}
	var told []Latch
	for key := range m.newLatches {
		told = append(told, m.latches[key])
	}
	clear(m.newLatches)
	slices.SortFunc(told, func(a, b Latch) int { return compareKeys(a.LatchKey, b.LatchKey) })
	for len(told) > 0 {
		n := latchesFitting(told)
		m.send(ServerID{}, Message{Latches: &Latches{Latches: told[:n]}})
		told = told[n:]
	}
}

// judgeRecord brings the pools of a record up to date, and sets its latches.
func (m *Machine) judgeRecord(now time.Time, r *record) {
	m.evaluation++
	before := slices.Clone(r.pools)
	for i := range r.pools {
		m.judgePool(r, i)
	}
	if m.settled && !m.witness && !r.controls.Frozen && len(r.pools) > 1 {
		m.latch(now, r)
	}
	delete(m.left, r)
	for i := range r.pools {
		p, was := &r.pools[i], &before[i]
		if p.out {
			m.left[r] = true
		}
		name := r.pb.GetPools()[i].GetName()
		if p.state != was.state || p.out != was.out || p.awaiting != was.awaiting || p.held != was.held || !p.returnAt.Equal(was.returnAt) {
			m.changed[r.source] = true
		}
		event := func(kind EventKind, begins bool) {
			if begins {
				m.event(Event{Kind: kind, Record: r.source, Pool: name})
			}
		}
		event(FailedOver, p.out && !was.out)
		event(FailedBack, was.out && !p.out)
		event(FailoverAwaited, p.awaiting && !was.awaiting)
		event(FailbackAwaited, p.pending(r) && !was.pending(r))
		event(Held, p.held && !was.held)
		event(Disagreement, p.tied && !was.tied)
	}
}

// pending reports whether the pool waits for a person to let it in.
func (p *pool) pending(r *record) bool {
	return p.out && p.state == Up && r.pb.GetFailbackManual() && !r.controls.Failback
}

// judgePool finds out whether a pool is up, and what its latch says.
func (m *Machine) judgePool(r *record, i int) {
	p, pb := &r.pools[i], r.pb.GetPools()[i]
	p.held, p.tied = false, false
	for _, t := range p.targets {
		for _, s := range t.leaves {
			p.held = p.held || s.held
			p.tied = p.tied || s.tied
		}
	}
	state := p.judge(pb.GetMinHealthy(), m.evaluation, (*subject).verdict)
	p.doubtful = false
	if p.held && state == Up {
		m.evaluation++
		p.doubtful = p.judge(pb.GetMinHealthy(), m.evaluation, (*subject).unheld) == Down
	}
	if state != p.state {
		p.state, p.since = state, m.last
	}
	l := m.effective(r.source, pb.GetName(), m.self.Datacenter)
	if p.out != l.Out {
		p.turned = m.last
	}
	p.out, p.latched = l.Out, l.At
	p.awaiting = p.awaiting && !m.settled // after a pause it waits on until others were heard
	p.returnAt = time.Time{}
}

// judge is Up or Down, or Unknown if that is not known, by given verdicts.
func (p *pool) judge(minHealthy uint32, evaluation uint64, verdict func(*subject) State) State {
	up, unknown := 0, 0
	for _, t := range p.targets {
		switch s := every(t.probes, evaluation, verdict); {
		case s.IsUp():
			up++
		case s == Unknown:
			unknown++
		}
	}
	needed := threshold(minHealthy)
	gate := every(p.gates, evaluation, verdict)
	switch {
	case gate == Down, up+unknown < needed:
		return Down
	case gate.IsUp() && up >= needed:
		return Up
	default:
		return Unknown
	}
}

func (s *subject) verdict() State { return s.state }

// unheld is what the verdict would be if it were not held.
func (s *subject) unheld() State {
	switch {
	case !s.held:
		return s.state
	case s.state.IsUp():
		return Down
	default:
		return Up
	}
}

// effective is the entry that a datacenter follows: zero if there is none.
func (m *Machine) effective(record, pool, datacenter string) Latch {
	own, all := m.latches[LatchKey{record, pool, datacenter}], m.latches[LatchKey{Record: record, Pool: pool}]
	if own.After(all) {
		return own
	}
	return all
}

// latch decides which pools are left and which come in again.
func (m *Machine) latch(now time.Time, r *record) {
	drained := func(i int) bool { return slices.Contains(r.controls.Drained, i) }
	elsewhere := func(i int) bool { // could clients of pool i get another
		for j := range r.pools {
			if j != i && r.pools[j].state == Up && !drained(j) {
				return true
			}
		}
		return false
	}
	// With FAILOVER the pools behind the one in use are nobody's.
	inOrder := r.pb.GetPolicy() == steeringpb.Policy_FAILOVER && len(r.pb.GetRules()) == 0
	used := len(r.pools) // the first pool in use

	for i := range r.pools {
		p := &r.pools[i]
		switch {
		case p.out || drained(i):
		case p.state != Down && !p.doubtful:
			used = min(used, i)
		case inOrder && used < i || !elsewhere(i):
		default:
			person := len(r.controls.Forced) > 0 && !slices.Contains(r.controls.Forced, i)
			waits := p.doubtful || r.pb.GetFailoverManual()
			switch at := p.since.Add(latchPause); {
			case waits && !person:
				p.awaiting = !p.doubtful
				used = min(used, i)
			case !waits && now.Before(m.news(p)):
				used = min(used, i)
				m.again(m.news(p), r, i)
			case !waits && now.Before(at):
				m.again(at, r, i)
			default:
				m.decideLatch(now, r, i, "", Latch{Out: true, Person: waits})
			}
		}
	}
	for i := range r.pools {
		p := &r.pools[i]
		if !p.out || p.state != Up || p.doubtful && used < len(r.pools) {
			p.clear = time.Time{}
			continue
		}
		// Somebody who sees the pool down would take it out again: only what has to be is done against him, and for
		// this datacenter alone, as is what the others need not do.
		scope := ""
		disputed, all := m.disputed(r, i)
		if disputed {
			p.clear = time.Time{}
		} else if p.clear.IsZero() {
			p.clear = now
		}
		if disputed || !all || used == len(r.pools) {
			scope = m.self.Datacenter
		}
		at := p.turned.Add(latchPause) // if servers ever disagree without knowing, they do so slowly
		switch {
		case used == len(r.pools):
			at = now
		case r.controls.Failback:
		case disputed:
			continue
		case !all:
			m.again(now.Add(latchPause), r, i)
			continue
		case inOrder && used < i:
		case r.pb.GetFailbackManual():
			continue
		default:
			at = later(at, p.clear.Add(milliseconds(r.pb.GetFailbackDelay())))
		}
		if now.Before(at) {
			p.returnAt = at
			m.again(at, r, i)
			continue
		}
		m.decideLatch(now, r, i, scope, Latch{Person: r.controls.Failback})
	}
}

// news is until when what was known of a pool is being put right, since its datacenter is heard again.
func (m *Machine) news(p *pool) time.Time {
	if home := m.placeOf(p.home); home >= 0 && !m.places[home].back.IsZero() {
		return m.places[home].back.Add(latchPause)
	}
	return time.Time{}
}

// again has the record judged at that time, for the sake of pool i.
func (m *Machine) again(at time.Time, r *record, i int) {
	if p := &r.pools[i]; !p.timer.Equal(at) {
		p.timer = at
		heap.Push(&m.timers, timer{at, r})
	}
}

// disputed reports whether the verdicts of some other server, for whom a latch would count as well, have pool i down; all
// is whether those of all of them are known.
func (m *Machine) disputed(r *record, i int) (disputed, all bool) {
	p := &r.pools[i]
	alone := m.alone(r, p)
	all = true
	for _, o := range m.peers {
		if o == m.me || !o.fresh || !o.settled || o.place < 0 || m.places[o.place].pb.GetWitness() || alone && o.place != m.own {
			continue
		}
		all = all && o.whole
		m.evaluation++
		theirs := func(s *subject) State {
			if b := s.check.of(o); b != nil {
				for _, v := range b.Verdicts {
					if v.Home == s.home && v.Hold == s.hold {
						return v.State
					}
				}
			}
			return s.state
		}
		disputed = disputed || p.judge(r.pb.GetPools()[i].GetMinHealthy(), m.evaluation, theirs) == Down
	}
	m.evaluation++
	return disputed, all
}

// decideLatch sets the latch of pool i to l, for the scope, or this datacenter if it decides alone.
func (m *Machine) decideLatch(now time.Time, r *record, i int, scope string, l Latch) {
	p := &r.pools[i]
	l.LatchKey = LatchKey{Record: r.source, Pool: r.pb.GetPools()[i].GetName(), Scope: scope}
	if m.alone(r, p) {
		l.Scope = m.self.Datacenter
	}
	l.At, l.By = max(now.UnixMilli(), p.latched+1), m.self.String()
	m.putLatch(l)
	m.newLatches[l.LatchKey] = true
	p.out, p.latched, p.turned = l.Out, l.At, now
}

// alone reports whether this datacenter decides about a pool for itself only.
func (m *Machine) alone(r *record, p *pool) bool {
	home := m.placeOf(p.home)
	switch {
	case p.local || m.own < 0:
		return true
	case !r.pb.GetHoldOnPeerLoss():
		return m.isolated() || home >= 0 && m.places[home].lost
	case home < 0 || !m.places[home].lost:
		return false
	}
	// Of those that hold, more than half of the electorate decide for all: its datacenter does not count.
	for _, t := range p.targets {
		for _, s := range t.leaves {
			agree, all := 0, 0
			for _, i := range s.electorate {
				if i == home {
					continue
				}
				all++
				if v := s.check.votes[i]; v != Unknown && v.IsUp() == s.unheld().IsUp() {
					agree++
				}
			}
			if agree*2 <= all {
				return true
			}
		}
	}
	return false
}

// merge takes a latch over if it stands over what is known.
func (m *Machine) merge(l Latch) {
	if old, known := m.latches[l.LatchKey]; known && !l.After(old) {
		return
	}
	m.putLatch(l)
	if r := m.records[l.Record]; r != nil {
		m.stir[r] = true
	}
}

func (m *Machine) putLatch(l Latch) {
	if old, known := m.latches[l.LatchKey]; known {
		m.latchDigest -= old.digest()
	}
	m.latches[l.LatchKey] = l
	m.latchDigest += l.digest()
	m.latched = m.last
	m.unsavedLatch[l.LatchKey] = true
}

func (l Latch) digest() uint64 {
	h := newHash()
	h.text(l.Record)
	h.text(l.Pool)
	h.text(l.Scope)
	h.number(uint64(number(l.Out)))
	h.number(uint64(l.At))
	h.text(l.By)
	h.number(uint64(number(l.Person)))
	return h.sum()
}

// adopt has this datacenter leave the pools that every datacenter has left whose servers are settled and heard. It is for
// a server that starts without siblings: while it was away, others decided without it.
func (m *Machine) adopt() {
	var others []string
	for i := range m.places {
		if i == m.own || m.places[i].pb.GetWitness() {
			continue
		}
		for _, p := range m.peers {
			if p.place == i && p.fresh && p.settled {
				others = append(others, m.places[i].name)
				break
			}
		}
	}
	if len(others) == 0 {
		return
	}
	for _, r := range m.records {
		for i, pb := range r.pb.GetPools() {
			if r.pools[i].local {
				continue
			}
			own := m.effective(r.source, pb.GetName(), m.self.Datacenter)
			var latest Latch
			all := true
			for _, name := range others {
				l := m.effective(r.source, pb.GetName(), name)
				all = all && l.Out
				if l.After(latest) {
					latest = l
				}
			}
			if all && !own.Out && latest.After(own) {
				latest.Scope = m.self.Datacenter
				m.merge(latest)
				m.newLatches[latest.LatchKey] = true
			}
		}
	}
}

// timer has a record judged again.
type timer struct {
	at     time.Time
	record *record
}

type timers []timer

func (t *timers) Len() int           { return len(*t) }
func (t *timers) Less(i, j int) bool { return (*t)[i].at.Before((*t)[j].at) }
func (t *timers) Swap(i, j int)      { (*t)[i], (*t)[j] = (*t)[j], (*t)[i] }
func (t *timers) Push(x any)         { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
}
