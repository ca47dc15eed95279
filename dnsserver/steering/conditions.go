package steering

import (
	"math/bits"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
)

// targets is a set of a pool's targets by index.
type targets uint64

func (s targets) count() int         { return bits.OnesCount64(uint64(s)) }
func (s targets) has(i int) bool     { return s>>i&1 != 0 }
func (s targets) with(i int) targets { return s | 1<<i }

// condition is how a pool is, as far as it matters for choosing.
type condition struct {
	states   []health.State
	gated    bool    // a gate is down
	out      bool    // the pool was left
	awaiting bool    // it stays although it is down
	held     bool    // a target stays as it is, for nobody confirms
	all      targets // that may be answered: not drained, or forced
	least    int     // healthy targets that the pool needs
	// ranks are those of all that are not Down: Up or Unknown, Degraded, and both with weight 0.
	ranks [4]targets
}

// rank puts the targets of all into ranks.
func (c *condition) rank(p *Pool) {
	c.ranks = [4]targets{}
	for i := range p.Targets {
		if !c.all.has(i) || c.states[i] == health.Down || c.gated {
			continue
		}
		rank := 0
		if c.states[i] == health.Degraded {
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
		p, c := &r.Pools[i], &all[i]
		c.all = targets(1)<<len(p.Targets) - 1
		c.least = p.MinHealthy
		c.states = make([]health.State, len(p.Targets))
		seen := in.pool(i)
		if seen != nil {
			c.gated, c.out, c.awaiting = seen.Gated, seen.Out, seen.Awaiting
		}
		for j := range p.Targets {
			switch t := &p.Targets[j]; {
			case r.Flatten && len(resolve(in, t)) == 0:
				c.states[j] = health.Down // there is nothing to answer
			case in.Health == nil || len(p.Probes) == 0:
				c.states[j] = health.Up
			case seen != nil && j < len(seen.Targets):
				c.states[j] = seen.Targets[j].State
				c.held = c.held || seen.Targets[j].Held
			}
		}
		c.rank(p)
	}
	return all
}

// pool is what is known of a pool's health, nil if nothing is.
func (in *Inputs) pool(i int) *health.PoolView {
	if in.Health == nil || i >= len(in.Health.Pools) {
		return nil
	}
	return &in.Health.Pools[i]
}

// ttl is what answers have, in seconds: with a derived TTL no more than the time until the answer
// may be another, within its bounds; of names that are looked up no more than theirs, but 1.
func (r *Record) ttl(in *Inputs) uint32 {
	ttl := r.TTL
	if r.LeastTTL < r.TTL {
		for i := range r.Pools {
			seen := in.pool(i)
			if seen == nil || len(r.Pools[i].Probes) == 0 {
				continue
			}
			for j := range seen.Targets {
				ttl = uint32(min(time.Duration(ttl), max(0, seen.Targets[j].FlipIn/time.Second)))
			}
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
