package steering

import (
	"net/netip"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Inputs is all that decides what a record answers. Nil functions and the zero values have the meaning
// given.
type Inputs struct {
	Now   time.Time
	World *World
	// Health is what is known of the pools and targets of the record; nil: all are Up. Pools and
	// targets that it lacks are Unknown.
	Health *health.View
	Geo    *GeoTable // nil: no database, clients are of unknown countries
	// Resolved has the addresses of a name that is flattened, and their TTL in seconds; ok false if
	// it was never looked up with success. Nil: no name was.
	Resolved func(zone.Name) (addresses []netip.Addr, ttl uint32, ok bool)
	// Overrides are those there are, in any order; those that are over or concern other records do
	// not count.
	Overrides []*Override
	Memory    Memory
}

// Result is what a record answers.
type Result struct {
	Steered *zone.Steered // for View.SetSteered
	Memory  Memory        // for the next Compile, also after a restart
	Summary Summary
	// Effects are what the overrides in force do, in the order in which they decide, and Controls
	// what they mean for health.Machine.
	Effects  []Effect
	Controls health.Controls
	// Until is when an override ends, and all is to be compiled again; zero if none does.
	Until time.Time
	TTL   uint32 // of the answers, in seconds

	// targets that each outcome of Steered has, by its index.
	targets [][]string
	fault   error // why Steered answers SERVFAIL to all; never set
}

// Memory is what was decided before. It is immutable, and kept as JSON over restarts.
type Memory struct {
	Classes []Remembered `json:"classes,omitempty"`
	// TTL is the longest that answers have, in seconds: the record's, or as an override raises it. Held is until when
	// somebody may hold an answer of before that had a longer one; zero: nobody does.
	TTL  uint32    `json:"ttl,omitempty"`
	Held time.Time `json:"held,omitzero"`
	// State is that of the answers, see zone.OptionState; 0: not known.
	State uint64 `json:"state,omitempty"`
}

// Same reports whether all of it is the same.
func (m Memory) Same(o Memory) bool {
	return m.Equal(o) && m.TTL == o.TTL && m.Held.Equal(o.Held) && m.State == o.State
}

// memory is that of these answers, after that of the ones before.
func (k *compiler) memory(classes []Remembered) Memory {
	before := k.in.Memory
	m := Memory{Classes: classes, TTL: max(k.r.TTL, k.result.TTL), Held: before.Held, State: k.result.Steered.State()}
	if before.TTL > m.TTL {
		if until := k.in.Now.Add(time.Duration(before.TTL) * time.Second).Round(0); until.After(m.Held) {
			m.Held = until
		}
	}
	return m
}

// Clients are some of the clients, who all get the same choice.
type Clients struct {
	// Rule is the index of the record's rule that they match, -1 for none.
	Rule int `json:"rule"`
	// Location is the datacenter that they are near, with the policy Geo the pools that are for
	// them, in order; "" where neither matters or is known.
	Location string `json:"location,omitempty"`
}

// Remembered is what some clients are given.
type Remembered struct {
	Clients
	Given []Given `json:"given"`
	// Good is what they were given last while a target was up; nil if that is Given.
	Good  []Given   `json:"good,omitempty"`
	Since time.Time `json:"since"` // Given
}

// Equal reports whether all clients are given the same, since the same time.
func (m Memory) Equal(o Memory) bool {
	return slices.EqualFunc(m.Classes, o.Classes, func(a, b Remembered) bool {
		return a.Clients == b.Clients && a.Since.Equal(b.Since) && slices.EqualFunc(a.Given, b.Given, Given.equal) && slices.EqualFunc(a.Good, b.Good, Given.equal)
	})
}

// Given is one of the answers that clients are given.
type Given struct {
	Pool    string   `json:"pool,omitempty"` // empty: not from a pool
	Targets []string `json:"targets,omitempty"`
	Weight  uint32   `json:"weight,omitempty"`
	Whole   bool     `json:"whole,omitempty"` // all of Targets at once, whatever the pool's policy
	// Instead is what is answered without a pool: a name of steeringpb.AllDown.
	Instead string `json:"instead,omitempty"`
}

// Summary is a record's state for people.
type Summary struct {
	Healthy, Targets int          // targets that are Up or Degraded, and all
	Pools            []PoolState  // in the order of the record
	Clients          []ClientsGet // those that match no rule, by location in order of rank; then each rule's
	// Serving are the datacenters that are answered to clients that match no rule, sorted; a pool
	// in no datacenter counts by its own name.
	Serving  []string
	Override string // source of the override that decides; "" if none acts
}

// PoolState is how one pool is.
type PoolState struct {
	Name    string
	Targets []TargetState // in the order of the pool
	Healthy int           // Up, Degraded or Unknown, whatever overrides say
	Usable  bool          // no gate is down, and Healthy is at least minHealthy
	// Out: the pool was left. Awaiting: it is down, and only a person moves clients away from it.
	Out, Awaiting bool
}

// TargetState is how one target is.
type TargetState struct {
	Address string
	State   health.State
	Drained bool
}

// Why says why clients get what they get.
type Why uint8

// Values of Why.
const (
	Preferred  Why = iota // the policy's first choice
	FailedOver            // another than that
	AllDown               // no target is up
	Held                  // a target would be down, and nobody confirms
	Awaiting              // it is down, and a person must decide
	Overridden            // by an override
	NotReady              // nothing is judged yet
)

func (w Why) String() string {
	return [...]string{"Preferred", "FailedOver", "AllDown", "Held", "AwaitingApproval", "Overridden", "NotReady"}[w]
}

// ClientsGet is what some clients are given.
type ClientsGet struct {
	Clients
	Pools   []string // the most preferred first; all that share the clients; none without a pool
	Targets []string
	Why     Why
	// Awaiting is the pool that the answer would move to if a person let it; "" if none.
	Awaiting string
	Since    time.Time
}

// Compile decides what a record answers to whom. It is total, and gives the same for the same inputs.
func Compile(r *Record, in *Inputs) *Result {
	p := r.plan(in)
	k := &compiler{r: r, in: in, base: r.conditions(in), plan: p, policy: newPolicy(r, in, p)}
	k.acting = r.act(in, k.base)
	k.result = &Result{
		Effects: k.acting.effects, Controls: k.acting.controls(), Until: k.acting.until, TTL: max(r.ttl(in), k.acting.ttl),
	}
	k.decide()
	k.encode()
	k.summarise()
	return k.result
}

// compiler is the state of one compilation.
type compiler struct {
	r        *Record
	in       *Inputs
	base     []condition // what health makes of the pools, without overrides
	acting   *acting
	plan     *plan
	policy   policy
	cells    []cell // for each rule, from none on, those of all places
	outcomes []outcome
	result   *Result
}

// cell is what clients that match one rule, or none, get at one place.
type cell struct {
	Clients
	choice   choice
	instead  instead // unless there is a choice
	stale    bool    // choice is what was good last
	whole    bool    // all targets of choice are answered, whatever the pool's policy
	good     bool    // a target is up
	why      Why
	awaiting int // pool that a move waits for a person to go to, -1 for none
	before   *Remembered
}

// instead is what is answered that is of no pool: a steeringpb.AllDown.
type instead = steeringpb.AllDown

// row is what all clients that match one rule, or none, have in common: the options that there are.
type row struct {
	now       []option
	undrained []option // all that is not drained, were it up
	// base is the options without overrides, ideal those were all up, and free those if no latch
	// were set; nil where they do not matter.
	base, ideal, free []option
}

func (k *compiler) decide() {
	k.cells = make([]cell, 0, (1+len(k.r.Rules))*len(k.plan.places))
	for rule := -1; rule < len(k.r.Rules); rule++ {
		row := k.row(rule)
		for place, name := range k.plan.places {
			c := cell{Clients: Clients{Rule: rule, Location: name}, awaiting: -1}
			c.before = k.in.Memory.find(c.Clients, len(k.cells))
			k.choose(&c, row, place)
			k.cells = append(k.cells, c)
		}
	}
}

// row works out the options of a rule, -1 for none. A Force goes before rules.
func (k *compiler) row(rule int) *row {
	const all = ^pools(0)
	of := all
	if rule >= 0 {
		of = 0
		for _, p := range k.r.Rules[rule].Pools {
			of |= 1 << p
		}
	}
	out := &row{ideal: k.r.undrained(of, k.base)}
	if k.acting.moved {
		out.base = k.r.options(of, k.base)
	}
	if k.acting.forced {
		of = all
	}
	out.now = k.r.options(of, k.acting.state)
	if len(out.now) == 0 {
		out.undrained = k.r.undrained(of, k.acting.state)
	}
	if slices.ContainsFunc(k.acting.state, func(c condition) bool { return c.out || c.awaiting }) {
		free := slices.Clone(k.acting.state)
		for i := range free {
			free[i].out, free[i].awaiting = false, false
		}
		out.free = k.r.options(of, free)
	}
	return out
}

// find returns what clients were given before, nil if that is not known. It is often at index hint.
func (m Memory) find(c Clients, hint int) *Remembered {
	if hint < len(m.Classes) && m.Classes[hint].Clients == c {
		return &m.Classes[hint]
	}
	for i := range m.Classes {
		if m.Classes[i].Clients == c {
			return &m.Classes[i]
		}
	}
	return nil
}

// choose decides for one cell.
func (k *compiler) choose(c *cell, r *row, place int) {
	c.good = len(r.now) > 0
	if k.acting.frozen && c.before != nil && k.recall(c, c.before.Given) {
		c.why = Overridden
		return
	}
	if !c.good {
		c.why = AllDown
		k.allDown(c, r, place)
		return
	}
	c.choice = k.policy.choose(place, r.now, c.before)
	k.explain(c, r, place)
}

// explain says why a cell has its choice.
func (k *compiler) explain(c *cell, r *row, place int) {
	chosen := &k.acting.state[c.choice.of[0].pool]
	ideal := k.policy.choose(place, r.ideal, c.before)
	switch {
	case k.acting.moved && (len(r.base) == 0 || !k.policy.choose(place, r.base, c.before).equal(c.choice)):
		c.why = Overridden
	case chosen.awaiting:
		c.why = Awaiting
	case chosen.held:
		c.why = Held
	case k.unjudged():
		c.why = NotReady
	case !ideal.samePools(c.choice):
		c.why = FailedOver
	}
	if len(r.free) == 0 {
		return
	}
	free := k.policy.choose(place, r.free, c.before)
	if byHand := chosen.awaiting || k.r.ManualFailback && k.acting.state[free.of[0].pool].out; byHand && !free.samePools(c.choice) {
		c.awaiting = free.of[0].pool
	}
}

// unjudged reports whether nothing is known of any target that is probed.
func (k *compiler) unjudged() bool {
	for i := range k.base {
		for _, s := range k.base[i].states {
			if s != health.Unknown {
				return false
			}
		}
	}
	return true
}

// allDown decides for a cell where no target is up.
func (k *compiler) allDown(c *cell, r *row, place int) {
	c.instead = k.r.WhenAllDown
	switch c.instead {
	case steeringpb.AllDown_LAST_GOOD:
		if c.before != nil && k.recall(c, c.before.Good) {
			c.stale = true
			return
		}
		k.returnAll(c, r, place) // nothing was good since the record is known
	case steeringpb.AllDown_RETURN_ALL:
		k.returnAll(c, r, place)
	case steeringpb.AllDown_FALLBACK:
		if len(k.r.sets(k.in, k.fallback(), 0)) == 0 {
			c.instead = steeringpb.AllDown_SERV_FAIL // a name without addresses
		}
	}
}

// returnAll answers all targets that are not drained of the pool that the policy chooses if all are up,
// whatever the pool's policy. If a person drained all, it is no data.
func (k *compiler) returnAll(c *cell, r *row, place int) {
	if len(r.undrained) == 0 {
		c.instead = steeringpb.AllDown_NO_DATA
		return
	}
	c.choice = k.policy.choose(place, r.undrained, nil)
	c.choice.of = slices.Clone(c.choice.of)
	for i := range c.choice.of {
		c.choice.of[i].set = k.acting.state[c.choice.of[i].pool].all
	}
	c.whole = true
	if !k.answerable(c.choice) {
		c.choice, c.whole, c.instead = choice{}, false, steeringpb.AllDown_SERV_FAIL
	}
}

// answerable reports whether each option of a choice has something to answer: names that are flattened
// may have no addresses.
func (k *compiler) answerable(c choice) bool {
	for _, o := range c.of {
		if len(k.r.sets(k.in, answered(&k.r.Pools[o.pool], o.set), 0)) == 0 {
			return false
		}
	}
	return len(c.of) > 0
}

// fallback is what is answered instead of pools.
func (k *compiler) fallback() part { return part{pool: &Pool{}, targets: k.r.Fallback} }

// recall gives a cell what was given before, as far as there still is such a thing.
func (k *compiler) recall(c *cell, given []Given) bool {
	if len(given) == 0 {
		return false
	}
	if name := given[0].Instead; name != "" {
		value, known := steeringpb.AllDown_value[name]
		c.choice, c.instead = choice{}, instead(value)
		return known && (c.instead != steeringpb.AllDown_FALLBACK || len(k.r.Fallback) > 0 && len(k.r.sets(k.in, k.fallback(), 0)) > 0)
	}
	var found choice
	c.whole = false
	for _, g := range given {
		pool := k.r.poolIndex(g.Pool)
		if pool < 0 {
			continue
		}
		o := option{pool: pool}
		for i := range k.r.Pools[pool].Targets {
			if slices.Contains(g.Targets, k.r.Pools[pool].Targets[i].String()) {
				o.set = o.set.with(i)
			}
		}
		if o.set != 0 {
			found.of = append(found.of, o)
			c.whole = c.whole || g.Whole
		}
	}
	if !k.answerable(found) {
		return false
	}
	if s, ok := k.policy.(shared); ok {
		found.pick = s.pick
	} else {
		found.of = found.of[:1]
	}
	c.choice = found
	return true
}
