package health

import (
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// View is what the answers of a record are made of.
type View struct {
	Pools []PoolView // as in the record
	// Held: a verdict would have changed, and does not, because a datacenter is lost and nobody confirms.
	Held bool
	// Frozen: this datacenter is isolated; verdicts on other datacenters' targets stay as they are.
	Frozen bool
	// Disagreement: a vote is tied.
	Disagreement bool
}

// PoolView is what is known of one pool.
type PoolView struct {
	// State is Up if at least min_healthy targets are up, and all gates; Down if they can't be; else Unknown.
	State State
	// Gated: a gate of the pool is down: none of its targets is used.
	Gated bool
	// Out: the pool was left. It is used only when no pool that is in could be.
	Out bool
	// Awaiting: the pool is down, and only a person moves clients away from it: they are answered from it still.
	Awaiting bool
	// ReturnAt is when a pool that is Out and up comes in again; zero: it is down, a person must decide, or others see it
	// down.
	ReturnAt time.Time
	// Since is when the pool was left or came in again, last; zero: never.
	Since   time.Time
	Targets []TargetView // as in the record
}

// TargetView is what is known of one target: all its probes together, of which each must be up.
type TargetView struct {
	State State
	Since time.Time // of the State; zero if it is Unknown or the target has no probe
	Held  bool      // see View
	// Up of Electorate datacenters say up, by the probe that is worst off. Dissenting say otherwise than State, sorted.
	Up, Electorate int
	Dissenting     []string
	// Failure is why a probe from here failed, of the first that did last time. Empty: none did.
	Failure string
	// FlipIn is the shortest time until votes from here could change the State: 0 if it has no probe.
	FlipIn time.Duration
	// Latency is how soon the target answers probes from each datacenter, for records with the policy LATENCY.
	// Datacenters without a measurement are missing. Nil: none has one.
	Latency map[string]time.Duration
}

// Controls are what overrides in force mean for a record's latches. The zero value is: nothing.
type Controls struct {
	// Frozen: no latch changes (Freeze).
	Frozen bool
	// Failback: pools that are out come in as soon as they are up, without delay and whoever should decide (Failback).
	Failback bool
	// Forced are the pools that all clients are sent to (Force), by index. A pool that is down and waits for a person,
	// or that is up only because that is held, is left if it is not among them: the person has decided.
	Forced []int
	// Drained are pools without a target that may be answered (Drain), by index. No failover goes there, nor is one from
	// there remembered.
	Drained []int
}

// Vantage is how a server sees itself and the others.
type Vantage struct {
	Isolated, Sick bool
	Unreachable    []string // datacenters that have servers, none of which is heard, sorted
}

// Vantage returns how the server sees the others.
func (m *Machine) Vantage() Vantage {
	v := Vantage{Isolated: m.me.isolated, Sick: m.me.sick}
	for i := range m.places {
		if m.places[i].lost {
			v.Unreachable = append(v.Unreachable, m.places[i].name)
		}
	}
	return v
}

// View returns what the answers of a record are made of, as of the last Step. False: there is no such record.
func (m *Machine) View(now time.Time, source string) (View, bool) {
	r := m.records[source]
	if r == nil {
		return View{}, false
	}
	v := View{Pools: make([]PoolView, 0, len(r.pools)), Frozen: m.isolated()}
	m.evaluation++
	for i := range r.pools {
		p := &r.pools[i]
		pv := PoolView{
			State: p.state, Out: p.out, Awaiting: p.awaiting, ReturnAt: p.returnAt,
			Gated:   every(p.gates, m.evaluation, (*subject).verdict) == Down,
			Targets: make([]TargetView, 0, len(p.targets)),
		}
		if p.latched > 0 {
			pv.Since = time.UnixMilli(p.latched)
		}
		for _, t := range p.targets {
			pv.Targets = append(pv.Targets, m.viewTarget(now, r, t))
		}
		v.Held = v.Held || p.held
		v.Disagreement = v.Disagreement || p.tied
		v.Pools = append(v.Pools, pv)
	}
	return v, true
}

func (m *Machine) viewTarget(now time.Time, r *record, t target) TargetView {
	v := TargetView{State: every(t.probes, m.evaluation, (*subject).verdict)}
	var worst *subject
	var since int64
	for _, s := range t.leaves {
		c := s.check
		v.Held = v.Held || s.held
		since = max(since, s.since)
		if worst == nil || badness(s.state) > badness(worst.state) {
			worst = s
		}
		if f := c.tracker.Failure(); v.Failure == "" && c.running {
			v.Failure = f
		}
		if in := c.tracker.FlipIn(c.probe, now); in > 0 && (v.FlipIn == 0 || in < v.FlipIn) {
			v.FlipIn = in
		}
		if v.Latency == nil && r.pb.GetPolicy() == steeringpb.Policy_LATENCY {
			v.Latency = m.latencies(c)
		}
	}
	if worst == nil {
		return v
	}
	if v.State != Unknown {
		v.Since = time.UnixMilli(since)
	}
	electorate := worst.electorate
	if worst.check.probe.GetVantage() == steeringpb.Vantage_LOCAL {
		electorate = []int{m.at()}
	}
	for _, i := range electorate {
		if i >= len(worst.check.votes) || worst.check.votes[i] == Unknown {
			continue
		}
		vote := worst.check.votes[i]
		v.Electorate++
		if vote.IsUp() {
			v.Up++
		}
		if worst.state != Unknown && vote.IsUp() != worst.state.IsUp() {
			v.Dissenting = append(v.Dissenting, m.nameAt(i))
		}
	}
	slices.Sort(v.Dissenting)
	return v
}

// nameAt is the datacenter of votes[i].
func (m *Machine) nameAt(i int) string {
	if i == m.at() {
		return m.self.Datacenter
	}
	return m.places[i].name
}

// badness orders states.
func badness(s State) int { return slices.Index([]State{Up, Degraded, Unknown, Down}, s) }

// latencies returns the mean of what the servers of each datacenter measured.
func (m *Machine) latencies(c *check) map[string]time.Duration {
	type mean struct{ sum, n time.Duration }
	all := map[string]mean{}
	for i := range c.ballots {
		if b := &c.ballots[i]; b.Latency > 0 && b.peer.fresh && !b.peer.sick {
			s := all[b.peer.id.Datacenter]
			all[b.peer.id.Datacenter] = mean{s.sum + time.Duration(b.Latency)*time.Microsecond, s.n + 1}
		}
	}
	if len(all) == 0 {
		return nil
	}
	means := make(map[string]time.Duration, len(all))
	for name, s := range all {
		means[name] = s.sum / s.n
	}
	return means
}
