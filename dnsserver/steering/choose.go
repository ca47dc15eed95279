package steering

import (
	"slices"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// option is a pool with those of its targets that would be answered.
type option struct {
	pool int
	set  targets
}

// pools is a set of a record's pools by index.
type pools uint32

func (s pools) has(i int) bool { return s>>i&1 != 0 }

// choice is some options and how one of them is picked for a client. Without options there is nothing
// to answer.
type choice struct {
	pick zone.Pick
	of   []option
}

func (c choice) equal(d choice) bool { return slices.Equal(c.of, d.of) }

// samePools reports whether two choices are of the same pools.
func (c choice) samePools(d choice) bool {
	return slices.EqualFunc(c.of, d.of, func(a, b option) bool { return a.pool == b.pool })
}

// tiers are the ways in which a pool may be used, the best first. Only if no pool can be used in one
// way is the next looked at. Each returns the targets to answer, none if the pool can't be used so.
var tiers = [...]func(c *condition, weightless bool) targets{
	// Enough targets are up. A pool that stays in use although it is down counts here.
	func(c *condition, weightless bool) targets {
		switch set := c.some(); {
		case c.awaiting && set != 0:
			return set
		case c.awaiting:
			return c.all
		case c.out || weightless:
			return 0
		}
		return c.enough(0)
	},
	// Enough are up or degraded.
	func(c *condition, weightless bool) targets {
		if c.out || weightless {
			return 0
		}
		return c.enough(1)
	},
	// Enough are, those with weight 0 included; or the pool has weight 0.
	func(c *condition, _ bool) targets {
		if c.out {
			return 0
		}
		return c.enough(len(c.ranks) - 1)
	},
	// Some are, fewer than the pool should have.
	func(c *condition, _ bool) targets {
		if c.out {
			return 0
		}
		return c.some()
	},
	// The pool was given up, but it is all there is.
	func(c *condition, _ bool) targets {
		if set := c.enough(len(c.ranks) - 1); set != 0 {
			return set
		}
		return c.some()
	},
}

// options returns how the pools of a set can be used; none if all is down.
func (r *Record) options(of pools, state []condition) []option {
	var found []option
	for _, tier := range tiers {
		for i := range state {
			if !of.has(i) {
				continue
			}
			weightless := r.Policy == steeringpb.Policy_WEIGHTED && r.Pools[i].Weight == 0
			if set := tier(&state[i], weightless); set != 0 {
				found = append(found, option{i, set})
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// undrained returns all pools of a set with all targets that may be answered, whatever their health.
// Targets with weight 0 are left out where there are others.
func (r *Record) undrained(of pools, state []condition) []option {
	up := slices.Clone(state)
	for i := range up {
		up[i].states = make([]health.State, len(up[i].states))
		up[i].gated, up[i].out, up[i].awaiting = false, false, false
		up[i].least = min(up[i].least, max(1, up[i].all.count()))
		up[i].rank(&r.Pools[i])
	}
	return r.options(of, up)
}

// policy chooses between pools.
type policy interface {
	// choose takes one or some of the options, of which there is at least one, for clients at a
	// place of the plan.
	choose(place int, of []option, before *Remembered) choice
}

// plan is what a record's answers depend on of where clients are, for a world and a database.
type plan struct {
	world *World
	table *GeoTable
	// policy is the dimensions that the policy looks at, and places the names of their classes'
	// combinations, those of the last dimension next to each other. Without dimensions there is
	// one place.
	policy []zone.Dimension
	places []string
	by     *zone.Dimensions // of rules and policy; nil without any
	geo    *geo             // for the policy Geo
	fault  error
	// clients digests all this, see Record.digestClients.
	clients uint64
}

// plan returns the record's plan, which it keeps as long as world and database are the same.
func (r *Record) plan(in *Inputs) *plan {
	w := in.World.orNowhere()
	if p := r.last.Load(); p != nil && p.world == w && p.table == in.Geo {
		return p
	}
	p := &plan{world: w, table: in.Geo, places: []string{""}}
	switch r.Policy {
	case steeringpb.Policy_GEO:
		p.geo = newGeo(r, in.Geo)
		p.policy, p.places = p.geo.dimensions, p.geo.names
	case steeringpb.Policy_NEAREST, steeringpb.Policy_LATENCY:
		if len(r.Pools) > 1 {
			p.policy, p.places, p.by = w.dimension, w.places, w.by
		}
	}
	if r.rules != nil {
		p.by, p.fault = r.dimensions(r.rules, p.policy)
	} else if p.by == nil && len(p.policy) > 0 {
		p.by, p.fault = zone.NewDimensions(p.policy...)
	}
	p.clients = r.digestClients(p)
	r.last.Store(p)
	return p
}

// dimensions puts that of rules before those of the policy.
func (r *Record) dimensions(rules *zone.Locator, policy []zone.Dimension) (*zone.Dimensions, error) {
	return zone.NewDimensions(append([]zone.Dimension{{Where: rules, Count: rules.Locations()}}, policy...)...)
}

// newPolicy returns the record's policy.
func newPolicy(r *Record, in *Inputs, p *plan) policy {
	switch r.Policy {
	case steeringpb.Policy_FAILOVER:
		return failover{}
	case steeringpb.Policy_WEIGHTED:
		return shared{zone.PickWeighted}
	case steeringpb.Policy_ROUND_ROBIN:
		return shared{zone.PickTurn}
	case steeringpb.Policy_CLIENT_HASH:
		return shared{zone.PickHash}
	case steeringpb.Policy_GEO:
		return p.geo
	case steeringpb.Policy_LATENCY:
		return &latency{nearest{r, p.world}, in}
	default:
		return nearest{r, p.world}
	}
}

// first is a choice of one option.
func first(o option) choice { return choice{zone.PickFirst, []option{o}} }
