package steering

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// Checks returns what must be probed for the record to be judged, each once, in the order of probes.
// The result is shared: nobody may change it.
func (r *Record) Checks() []Check { return r.checks }

func (r *Record) allChecks() []Check {
	var all []Check
	seen := map[Check]bool{}
	add := func(c Check) {
		if !seen[c] {
			seen[c] = true
			all = append(all, c)
		}
	}
	for i := range r.Pools {
		p := &r.Pools[i]
		for _, probe := range p.Probes {
			for j := range p.Targets {
				r.eachCheck(probe, p.Targets[j].Probed, add)
			}
		}
		for _, gate := range p.Gates {
			r.eachCheck(gate, "", add)
		}
	}
	slices.SortStableFunc(all, func(a, b Check) int { return cmp.Compare(a.Probe, b.Probe) })
	return all
}

// TargetChecks returns the checks that one target of a pool is judged by, gates not included.
func (r *Record) TargetChecks(pool, target int) []Check {
	var all []Check
	p := &r.Pools[pool]
	for _, probe := range p.Probes {
		r.eachCheck(probe, p.Targets[target].Probed, func(c Check) {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		})
	}
	return all
}

// eachCheck calls f with what a probe of an address comes to. A check without address, which is a
// gate's that has none of its own, is left out: nothing can be probed.
func (r *Record) eachCheck(probe int, address string, f func(Check)) {
	p := &r.Probes[probe]
	for _, part := range p.Of {
		r.eachCheck(part, address, f)
	}
	if p.Of == nil {
		if c := (Check{probe, cmp.Or(p.Spec.GetAddress(), address)}); c.Address != "" {
			f(c)
		}
	}
}

// state is that of a probe of an address, which Calculated probes put together of others.
func (r *Record) state(in *Inputs, probe int, address string) State {
	p := &r.Probes[probe]
	if p.Of == nil {
		c := Check{probe, cmp.Or(p.Spec.GetAddress(), address)}
		if in.State == nil || c.Address == "" {
			return Up
		}
		return in.State(c)
	}
	var count [Down + 1]int
	for _, part := range p.Of {
		count[r.state(in, part, address)]++
	}
	switch {
	case count[Up] >= p.AtLeast:
		return Up
	case count[Up]+count[Degraded] >= p.AtLeast:
		return Degraded
	case len(p.Of)-count[Down] >= p.AtLeast:
		return Unknown
	}
	return Down
}

// worse of two states: Down, Degraded, Unknown, Up.
func worse(a, b State) State {
	rank := [...]int{Up: 0, Unknown: 1, Degraded: 2, Down: 3}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// targetState is that of a target: the worst of its probes. A name that is flattened and has no
// addresses is Down: there is nothing to answer.
func (r *Record) targetState(in *Inputs, p *Pool, t *Target) State {
	if r.Flatten && t.Name != "" && len(resolve(in, t)) == 0 {
		return Down
	}
	s := Up
	for _, probe := range p.Probes {
		s = worse(s, r.state(in, probe, t.Probed))
	}
	return s
}

// gate is the worst state of a pool's gates.
func (r *Record) gate(in *Inputs, p *Pool) State {
	s := Up
	for _, probe := range p.Gates {
		s = worse(s, r.state(in, probe, ""))
	}
	return s
}

// Usable tells of each pool whether it may be used by its health alone: no gate is down and at least
// minHealthy targets are not. Overrides and latches have no part in it.
func (r *Record) Usable(in *Inputs) []bool {
	usable := make([]bool, len(r.Pools))
	for i := range r.Pools {
		p := &r.Pools[i]
		healthy := 0
		for j := range p.Targets {
			if r.targetState(in, p, &p.Targets[j]) != Down {
				healthy++
			}
		}
		usable[i] = healthy >= p.MinHealthy && r.gate(in, p) != Down
	}
	return usable
}

// targets is a set of a pool's targets by index.
type targets uint64

func (s targets) count() int         { return bits.OnesCount64(uint64(s)) }
func (s targets) has(i int) bool     { return s>>i&1 != 0 }
func (s targets) with(i int) targets { return s | 1<<i }

// condition is how a pool is, as far as it matters for choosing.
type condition struct {
	states []State
	gate   State
	latch  Latch
	all    targets // that may be answered: not drained, or forced
	least  int     // healthy targets that the pool needs
	// ranks are those of all that are not Down: Up or Unknown, Degraded, and both with weight 0.
	ranks [4]targets
}

// rank puts the targets of all into ranks.
func (c *condition) rank(p *Pool) {
	c.ranks = [4]targets{}
	for i := range p.Targets {
		if !c.all.has(i) || c.states[i] == Down || c.gate == Down {
			continue
		}
		rank := 0
		if c.states[i] == Degraded || c.gate == Degraded {
			rank = 1
		}
		if p.Targets[i].Weight == 0 {
			rank += 2
		}
		c.ranks[rank] = c.ranks[rank].with(i)
	}
}

// enough returns the targets of the first ranks, up to the last one given, that are as many as the
// pool needs; none if they are too few.
func (c *condition) enough(last int) targets {
	set := targets(0)
	for _, rank := range c.ranks[:last+1] {
		if set |= rank; set.count() >= c.least {
			return set
		}
	}
	return 0
}

// some returns the targets of the first rank that has any.
func (c *condition) some() targets {
	for _, rank := range c.ranks {
		if rank != 0 {
			return rank
		}
	}
	return 0
}

// conditions judges all pools, without overrides.
func (r *Record) conditions(in *Inputs) []condition {
	all := make([]condition, len(r.Pools))
	for i := range r.Pools {
		p := &r.Pools[i]
		c := &all[i]
		c.all = targets(1)<<len(p.Targets) - 1
		c.least = p.MinHealthy
		c.gate = r.gate(in, p)
		c.states = make([]State, len(p.Targets))
		for j := range p.Targets {
			c.states[j] = r.targetState(in, p, &p.Targets[j])
		}
		if i < len(in.Latches) {
			c.latch = in.Latches[i]
		}
		c.rank(p)
	}
	return all
}

// ttl is what answers have, in seconds: with a derived TTL no more than the time until the answer
// may be another, within its bounds; of names that are looked up no more than theirs, but 1.
func (r *Record) ttl(in *Inputs) uint32 {
	ttl := r.TTL
	if r.LeastTTL < r.TTL && in.Flip != nil {
		for _, c := range r.checks {
			ttl = uint32(min(time.Duration(ttl), max(0, in.Flip(c)/time.Second)))
		}
		ttl = max(ttl, r.LeastTTL)
	}
	if r.Flatten && in.Resolved != nil {
		for i := range r.Pools {
			for j := range r.Pools[i].Targets {
				if _, its, ok := in.Resolved(r.Pools[i].Targets[j].Name); ok {
					ttl = min(ttl, max(its, 1))
				}
			}
		}
	}
	return ttl
}
