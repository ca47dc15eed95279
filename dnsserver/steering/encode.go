package steering

import (
	"slices"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// outcome is one answer: an option, or without a pool what is answered instead, or REFUSED.
type outcome struct {
	option // pool -1: none
	instead
	stale, whole, refused bool
}

// encode makes the ready answers of the cells.
func (k *compiler) encode() {
	a := &zone.Answers{
		Seed: seed(k.in.World.orNowhere().key, k.r.Host), TTL: k.result.TTL, Slot: max(k.r.TTL, 1), Types: k.types(), Prefixed: k.prefixed(),
	}
	blocked := len(k.acting.blocked) > 0
	a.By, k.result.fault = k.by()
	for i := range k.cells {
		pick, of := k.cells[i].alternatives(k)
		a.Cells = append(a.Cells, k.place(a, pick, of))
		if blocked && i == len(k.plan.places)-1 { // behind those that match no rule
			refused := k.place(a, zone.PickFirst, []zone.Alternative{{Outcome: k.outcome(outcome{option: option{pool: -1}, refused: true})}})
			a.Cells = append(a.Cells, slices.Repeat([]int{refused}, len(k.plan.places))...)
		}
	}
	for _, o := range k.outcomes {
		a.Outcomes = append(a.Outcomes, k.answer(o))
		k.result.targets = append(k.result.targets, k.names(o))
	}
	a.State = k.state(a)
	if k.result.fault == nil {
		k.result.Steered, k.result.fault = zone.NewSteered(a)
	}
	if k.result.fault != nil {
		k.result.Steered = failing(a)
	}
}

// by is what the answer depends on of the client's address.
func (k *compiler) by() (*zone.Dimensions, error) {
	if len(k.acting.blocked) == 0 {
		return k.plan.by, k.plan.fault
	}
	rules, err := k.r.ruleLocator(k.acting.blocked)
	if err != nil {
		return nil, err
	}
	return k.r.dimensions(rules, k.plan.policy)
}

// failing answers SERVFAIL to all: it is for what can't be encoded, which no Record comes to.
func failing(a *zone.Answers) *zone.Steered {
	st, err := zone.NewSteered(&zone.Answers{
		Types: a.Types, Slot: a.Slot, Cells: []int{0}, Choices: []zone.Choice{{Of: []zone.Alternative{{}}}},
		Outcomes: []zone.Outcome{{Rcode: zone.RcodeServFail}}, State: a.State,
	})
	if err != nil {
		panic(err)
	}
	return st
}

// types are those that the owner answers itself.
func (k *compiler) types() []uint16 {
	switch {
	case k.r.SRV >= 0:
		return []uint16{zone.TypeSRV}
	case k.r.Names && !k.r.Flatten:
		return []uint16{zone.TypeCNAME}
	}
	types := []uint16{zone.TypeA, zone.TypeAAAA}
	for i := range k.r.Services {
		if k.r.Services[i].Kind == steeringpb.Service_HTTPS {
			types = append(types, zone.TypeHTTPS)
			break
		}
	}
	return types
}

// prefixed reports whether the answer depends on the client's prefix, as far as it does not depend on
// health.
func (k *compiler) prefixed() bool {
	if k.r.Policy == steeringpb.Policy_CLIENT_HASH && len(k.r.Pools) > 1 {
		return true
	}
	return slices.ContainsFunc(k.r.Pools, func(p Pool) bool {
		return p.Policy == steeringpb.PoolPolicy_POOL_CLIENT_HASH && len(p.Targets) > 1
	})
}

// alternatives are what a cell's clients get one of.
func (c *cell) alternatives(k *compiler) (zone.Pick, []zone.Alternative) {
	if len(c.choice.of) == 0 {
		return zone.PickFirst, []zone.Alternative{{Outcome: k.outcome(outcome{option: option{pool: -1}, instead: c.instead})}}
	}
	sum := uint32(0)
	for _, o := range c.choice.of {
		sum += k.r.Pools[o.pool].Weight
	}
	all := make([]zone.Alternative, len(c.choice.of))
	for i, o := range c.choice.of {
		p := &k.r.Pools[o.pool]
		all[i] = zone.Alternative{Outcome: k.outcome(outcome{option: o, stale: c.stale, whole: c.whole}), Weight: p.Weight, ID: identity(p.Name)}
		if sum == 0 {
			all[i].Weight = 1
		}
	}
	return c.choice.pick, all
}

// outcome returns the index of an outcome.
func (k *compiler) outcome(o outcome) int {
	i := slices.Index(k.outcomes, o)
	if i < 0 {
		i = len(k.outcomes)
		k.outcomes = append(k.outcomes, o)
	}
	return i
}

// place returns the index of a choice.
func (k *compiler) place(a *zone.Answers, pick zone.Pick, of []zone.Alternative) int {
	i := slices.IndexFunc(a.Choices, func(c zone.Choice) bool { return c.Pick == pick && slices.Equal(c.Of, of) })
	if i < 0 {
		i = len(a.Choices)
		a.Choices = append(a.Choices, zone.Choice{Pick: pick, Of: of})
	}
	return i
}

// part returns the targets of an outcome; ok false if it has none.
func (k *compiler) part(o outcome) (p part, ok bool) {
	switch {
	case o.pool >= 0:
		p = answered(&k.r.Pools[o.pool], o.set)
		if o.whole {
			p.pool = &Pool{Name: p.pool.Name}
		}
		return p, true
	case !o.refused && o.instead == steeringpb.AllDown_FALLBACK:
		return k.fallback(), true
	}
	return part{}, false
}

// answer makes the RRsets of an outcome.
func (k *compiler) answer(o outcome) zone.Outcome {
	p, ok := k.part(o)
	switch {
	case ok && o.stale:
		return zone.Outcome{EDE: zone.EDEStaleAnswer, Sets: k.r.sets(k.in, p, k.result.TTL)}
	case ok:
		return zone.Outcome{Sets: k.r.sets(k.in, p, k.result.TTL)}
	case o.refused:
		return zone.Outcome{Rcode: zone.RcodeRefused, EDE: zone.EDEBlocked}
	case o.instead == steeringpb.AllDown_SERV_FAIL:
		return zone.Outcome{Rcode: zone.RcodeServFail, EDE: zone.EDENoReachableAuthority}
	}
	return zone.Outcome{}
}

// names are the targets of an outcome as users write them.
func (k *compiler) names(o outcome) []string {
	p, _ := k.part(o)
	all := make([]string, len(p.targets))
	for i := range p.targets {
		all[i] = p.targets[i].String()
	}
	return all
}
