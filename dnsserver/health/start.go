package health

import (
	"cmp"
	"slices"
	"time"
)

// settle ends the wait for what others know, once it has come or taken long enough.
func (m *Machine) settle(now time.Time) {
	if m.settled {
		return
	}
	waited := now.Sub(m.start)
	siblings, others := false, len(m.stated) > 1 || len(m.stated) == 1 && !m.stated[m.self]
	for id := range m.stated {
		siblings = siblings || id != m.self && id.Datacenter == m.self.Datacenter
	}
	sibling, peer := false, false
	for _, p := range m.peers {
		if p == m.me || !p.fresh || !p.settled || !p.complete || !p.whole {
			continue
		}
		if p.id.Datacenter == m.self.Datacenter {
			sibling = true
		} else {
			peer = true
		}
	}
	switch {
	case sibling, !others && len(m.topology.GetDatacenters()) > 0, waited >= adoptWithin:
	case peer && (!siblings || waited >= adoptWithin/2):
	default:
		return
	}
	if !sibling {
		m.adopt()
	}
	m.settled, m.beatNow = true, true
	m.all = true
	for _, r := range m.records {
		m.stir[r] = true
	}
}

// Answering reports whether steered names may be answered: latches were adopted, or there was nobody to adopt from
// within 2 s. Once true it stays.
func (m *Machine) Answering() bool { return m.answering }

// Ready reports whether the server may call itself ready: Answering, and each check had a first result or 30 s passed.
// Once true it stays.
func (m *Machine) Ready() bool { return m.ready }

// tell sends heartbeats that are due, and notices what the server may do by now.
func (m *Machine) tell(now time.Time) {
	m.answering = m.answering || m.settled
	m.ready = m.ready || m.answering && (m.unjudged == 0 || now.Sub(m.born) >= readyWithin)
	if !m.beatNow && now.Before(m.nextBeat) {
		return
	}
	m.beatNow = false
	m.nextBeat = now.Add(m.voteTTL / heartbeatsPerTTL)
	m.send(ServerID{}, Message{Heartbeat: m.state()})
}

// wake returns when Step has something to do, if nobody tells it anything.
func (m *Machine) wake(now time.Time) time.Time {
	at := m.nextBeat
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if !m.settled {
		half := m.start.Add(adoptWithin / 2)
		sooner(either(now.Before(half), half, m.start.Add(adoptWithin)))
	}
	if !m.grown {
		sooner(m.start.Add(m.voteTTL))
	}
	for i := range m.places {
		if pl := &m.places[i]; !pl.joined.IsZero() {
			sooner(pl.joined.Add(m.voteTTL))
		}
	}
	for _, p := range m.peers {
		if p != m.me && p.fresh {
			sooner(p.heard.Add(m.voteTTL))
		}
	}
	if !m.sickSince.IsZero() && !m.me.sick {
		sooner(m.sickSince.Add(m.voteTTL))
	}
	if len(m.timers) > 0 {
		sooner(m.timers[0].at)
	}
	return later(at, now)
}

func (m *Machine) event(e Event) { m.out.Events = append(m.out.Events, e) }

func sortEvents(es []Event) {
	slices.SortStableFunc(es, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.Record, b.Record), cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Datacenter, b.Datacenter))
	})
}
