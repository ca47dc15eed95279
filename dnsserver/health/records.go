package health

import (
	"cmp"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// record is one steered name.
type record struct {
	source   string
	pb       *steeringpb.Record
	pools    []pool
	subjects []*subject // of all pools, each once
	controls Controls
}

// pool is one of its pools, as of the last judgement.
type pool struct {
	home    string // datacenter
	targets []target
	gates   []*formula // all of which must be up
	local   bool       // it has a Local probe: datacenters differ

	state      State // Up or Down; Unknown: not known
	since      time.Time
	out        bool
	turned     time.Time // when out changed, as this server saw it
	latched    int64     // when the latch changed, Unix milliseconds; 0: never
	awaiting   bool
	held, tied bool
	doubtful   bool      // up only because that is held
	clear      time.Time // since when nobody disputes that it is up; zero: somebody does, or it is in, or down
	timer      time.Time // the last one set
	returnAt   time.Time // zero: a person must let it in, or it is in, or down
}

// target is one of its targets.
type target struct {
	probes []*formula // all of which must be up; none: it is
	leaves []*subject // that they are made of
}

// formula is the state of one target by one probe: of a subject, or of at least so many others. Formulas share parts.
type formula struct {
	leaf    *subject
	atLeast int
	of      []*formula

	asked  uint64 // when it was evaluated last, by Machine.evaluation
	result State
}

// state evaluates f by given verdicts, once in each evaluation. The zero formula is Unknown.
func (f *formula) state(evaluation uint64, verdict func(*subject) State) State {
	if f.leaf != nil {
		return verdict(f.leaf)
	}
	if f.asked == evaluation {
		return f.result
	}
	f.asked, f.result = evaluation, Unknown // also what parts of f see that are made of it
	var t tally
	for _, o := range f.of {
		t.add(o.state(evaluation, verdict))
	}
	switch {
	case f.atLeast == 0:
	case t.up >= f.atLeast:
		f.result = Up
	case t.up+t.degraded >= f.atLeast:
		f.result = Degraded
	case len(f.of)-t.down < f.atLeast:
		f.result = Down
	}
	return f.result
}

// collect appends the subjects of f that are not in seen.
func (f *formula) collect(seen map[*formula]bool, to []*subject) []*subject {
	if seen[f] {
		return to
	}
	seen[f] = true
	if f.leaf != nil {
		return append(to, f.leaf)
	}
	for _, o := range f.of {
		to = o.collect(seen, to)
	}
	return to
}

// every is the state of what needs all formulas up: Up if there are none.
func every(fs []*formula, evaluation uint64, verdict func(*subject) State) State {
	worst := Up
	for _, f := range fs {
		switch s := f.state(evaluation, verdict); {
		case s == Down:
			return Down
		case s == Unknown, worst == Up:
			worst = s
		}
	}
	return worst
}

func (r *record) derivedTTL() bool { return r.pb.GetTtlMin() > 0 && r.pb.GetTtlMin() < r.pb.GetTtl() }

// SetRecord adds a record, or replaces the one of the same source. r must not change afterwards. Of several Records with
// one source (SRV owners) give any: they have the same pools.
func (m *Machine) SetRecord(now time.Time, r *steeringpb.Record) {
	m.enter(now)
	old := m.records[r.GetSource()]
	n := &record{source: r.GetSource(), pb: r, controls: m.controls[r.GetSource()]}
	for _, p := range r.GetPools() {
		n.pools = append(n.pools, m.newPool(n, p))
	}
	if old != nil {
		n.continues(old)
	}
	m.records[n.source] = n
	m.stir[n] = true
	m.changed[n.source] = true
	if old != nil {
		m.release(old)
	}
}

// RemoveRecord removes a record. Its latches stay for a month, in case that it comes back.
func (m *Machine) RemoveRecord(now time.Time, source string) {
	m.enter(now)
	r := m.records[source]
	if r == nil {
		return
	}
	delete(m.records, source)
	delete(m.changed, source)
	delete(m.shown, source)
	m.release(r)
}

// newPool makes the formulas of a pool.
func (m *Machine) newPool(r *record, p *steeringpb.Pool) pool {
	n := pool{home: p.GetDatacenter()}
	b := builder{m: m, record: r, home: p.GetDatacenter(), made: map[asking]*formula{}}
	for _, t := range p.GetTargets() {
		var of target
		seen := map[*formula]bool{}
		for _, i := range p.GetProbes() {
			f := b.formula(i, addressOf(t))
			of.probes = append(of.probes, f)
			of.leaves = f.collect(seen, of.leaves)
		}
		n.targets = append(n.targets, of)
	}
	for _, i := range p.GetGates() {
		// A gate that has no address of its own is open if it is for one of the targets.
		gate := &formula{atLeast: 1}
		for _, t := range p.GetTargets() {
			gate.of = append(gate.of, b.formula(i, addressOf(t)))
		}
		n.gates = append(n.gates, gate)
	}
	n.local = b.local
	return n
}

// addressOf is what probes of a target ask, unless they have an address themselves.
func addressOf(t *steeringpb.Target) string {
	return cmp.Or(t.GetProbeAddress(), t.GetAddress(), t.GetName())
}

// builder makes the formulas of one pool, each once.
type builder struct {
	m      *Machine
	record *record
	home   string
	made   map[asking]*formula
	local  bool
}

type asking struct {
	probe   uint32
	address string
}

// formula makes the formula of a probe of the record for an address. Probes that the record does not have, and those made
// of themselves, are Unknown for ever.
func (b *builder) formula(i uint32, address string) *formula {
	if int64(i) >= int64(len(b.record.pb.GetProbes())) {
		return &formula{}
	}
	probe := b.record.pb.GetProbes()[i]
	address = cmp.Or(probe.GetAddress(), address)
	if f := b.made[asking{i, address}]; f != nil {
		return f
	}
	f := &formula{}
	b.made[asking{i, address}] = f
	if c := probe.GetCalculated(); c != nil {
		var of []*formula
		for _, j := range c.GetProbes() {
			of = append(of, b.formula(j, address))
		}
		f.of, f.atLeast = of, threshold(c.GetAtLeast())
		return f
	}
	b.local = b.local || probe.GetVantage() == steeringpb.Vantage_LOCAL
	f.leaf = b.m.subscribe(b.record, b.home, probe, address)
	return f
}

// subscribe returns the subject of a target, and has r judged when it changes.
func (m *Machine) subscribe(r *record, home string, probe *steeringpb.Probe, address string) *subject {
	id := NewCheckID(probe, address)
	c := m.parts[id[0]][id]
	if c == nil {
		c = m.addCheck(id)
	}
	if c.probe == nil {
		c.probe, c.address = probe, address
	}
	s := &subject{check: c, home: home, hold: r.pb.GetHoldOnPeerLoss(), users: map[*record]bool{}}
	at, found := slices.BinarySearchFunc(c.subjects, s, func(a, b *subject) int {
		return cmp.Or(cmp.Compare(a.home, b.home), cmp.Compare(number(a.hold), number(b.hold)))
	})
	if found {
		s = c.subjects[at]
	} else {
		c.subjects = slices.Insert(c.subjects, at, s)
		m.place(s)
		m.claim(s)
		m.run[c] = true
		m.touch(c)
	}
	if !slices.Contains(r.subjects, s) {
		r.subjects = append(r.subjects, s)
		s.users[r] = true
		if r.pb.GetPolicy() == steeringpb.Policy_LATENCY {
			c.wantsLatency++
			m.touch(c)
		}
	}
	return s
}

// continues has the pools of r go on where those of old were, by name.
func (r *record) continues(old *record) {
	for i := range r.pools {
		for j := range old.pools {
			if r.pb.GetPools()[i].GetName() != old.pb.GetPools()[j].GetName() {
				continue
			}
			p, o := &r.pools[i], &old.pools[j]
			p.state, p.since, p.out, p.latched, p.turned, p.clear = o.state, o.since, o.out, o.latched, o.turned, o.clear
			p.awaiting, p.held, p.tied = o.awaiting, o.held, o.tied
		}
	}
}

// release ends the subscriptions of a record.
func (m *Machine) release(r *record) {
	delete(m.stir, r)
	delete(m.left, r)
	for _, s := range r.subjects {
		delete(s.users, r)
		c := s.check
		if r.pb.GetPolicy() == steeringpb.Policy_LATENCY {
			c.wantsLatency--
		}
		if len(s.users) == 0 {
			c.subjects = slices.DeleteFunc(c.subjects, func(o *subject) bool { return o == s })
			m.run[c] = true
			m.unsaved[c.id] = true
		}
		m.touch(c)
	}
}

// place finds the datacenters of a subject in the topology.
func (m *Machine) place(s *subject) {
	s.homeAt = m.placeOf(s.home)
	s.electorate = s.electorate[:0]
	for _, name := range Electorate(m.topology, s.check.probe, s.home) {
		s.electorate = append(s.electorate, m.placeOf(name))
	}
}

// schedule finds out which checks are to be run here, after something changed: all of them, at a witness those that it
// votes on.
func (m *Machine) schedule() {
	for c := range m.run {
		run := false
		c.foreign = true
		for _, s := range c.subjects {
			run = run || !m.witness || slices.Contains(s.electorate, m.own)
			c.foreign = c.foreign && (s.homeAt < 0 || s.homeAt != m.own)
		}
		if run == c.running {
			continue
		}
		c.running = run
		m.touch(c)
		if run {
			m.out.Run = append(m.out.Run, Check{ID: c.id, Probe: c.probe, Address: c.address})
			m.unjudged++
			c.judged = false
			continue
		}
		m.out.Stop = append(m.out.Stop, c.id)
		if !c.judged {
			m.unjudged--
		}
		c.tracker = Tracker{}
		c.latency, c.latencyMicros = 0, 0
		delete(m.doubted, c)
	}
	clear(m.run)
	slices.SortFunc(m.out.Run, func(a, b Check) int { return slices.Compare(a.ID[:], b.ID[:]) })
	slices.SortFunc(m.out.Stop, func(a, b CheckID) int { return slices.Compare(a[:], b[:]) })
}

func number(b bool) int { return either(b, 1, 0) }
