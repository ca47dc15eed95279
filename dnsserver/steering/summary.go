package steering

import (
	"cmp"
	"slices"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// summarise says what was decided, for people and for the next time.
func (k *compiler) summarise() {
	s := &k.result.Summary
	k.summarisePools(s)
	given := make([][]Given, 0, len(k.cells)) // by cells, shared where cells are the same
	remembered := make([]Remembered, 0, len(k.cells))
	for i := range k.cells {
		c := &k.cells[i]
		same := slices.IndexFunc(k.cells[:i], func(d cell) bool { return d.instead == c.instead && d.whole == c.whole && d.choice.equal(c.choice) })
		if same >= 0 {
			given = append(given, given[same])
		} else {
			given = append(given, k.given(c))
		}
		remembered = append(remembered, k.remember(c, given[i]))
		s.Clients = append(s.Clients, k.clientsGet(c, &remembered[i]))
		if c.Rule < 0 {
			for _, o := range c.choice.of {
				s.Serving = append(s.Serving, cmp.Or(k.r.Pools[o.pool].Datacenter, k.r.Pools[o.pool].Name))
			}
		}
	}
	slices.Sort(s.Serving)
	s.Serving = slices.Compact(s.Serving)
	k.result.Memory = k.memory(remembered)
	for _, e := range k.result.Effects {
		if e.Acts {
			s.Override = e.Source
			break
		}
	}
}

func (k *compiler) summarisePools(s *Summary) {
	for i := range k.r.Pools {
		p, c := &k.r.Pools[i], &k.base[i]
		state := PoolState{Name: p.Name, Out: c.out, Awaiting: c.awaiting, Targets: make([]TargetState, len(p.Targets))}
		for j := range p.Targets {
			state.Targets[j] = TargetState{Address: p.Targets[j].String(), State: c.states[j], Drained: k.acting.drained[i].has(j)}
			if c.states[j].IsUp() {
				s.Healthy++
			}
			if c.states[j] != health.Down {
				state.Healthy++
			}
		}
		s.Targets += len(p.Targets)
		state.Usable = state.Healthy >= p.MinHealthy && !c.gated
		s.Pools = append(s.Pools, state)
	}
}

// given is what a cell's clients get.
func (k *compiler) given(c *cell) []Given {
	if len(c.choice.of) == 0 {
		g := Given{Instead: c.instead.String()}
		if c.instead == steeringpb.AllDown_FALLBACK {
			g.Targets = k.names(outcome{option: option{pool: -1}, instead: c.instead})
		}
		return []Given{g}
	}
	all := make([]Given, len(c.choice.of))
	for i, o := range c.choice.of {
		all[i] = Given{Pool: k.r.Pools[o.pool].Name, Targets: k.names(outcome{option: o}), Whole: c.whole}
		if k.r.Policy == steeringpb.Policy_WEIGHTED {
			all[i].Weight = k.r.Pools[o.pool].Weight
		}
	}
	return all
}

// remember is what the next compilation is to know of a cell.
func (k *compiler) remember(c *cell, given []Given) Remembered {
	m := Remembered{Clients: c.Clients, Given: given, Since: k.in.Now}
	if c.before != nil && slices.EqualFunc(c.before.Given, given, Given.equal) {
		m.Since = c.before.Since
	}
	switch {
	case k.r.WhenAllDown != steeringpb.AllDown_LAST_GOOD:
	case c.good && !k.acting.frozen:
		m.Good = given
	case c.before != nil:
		m.Good = c.before.Good
	}
	return m
}

func (g Given) equal(h Given) bool {
	return g.Pool == h.Pool && g.Instead == h.Instead && g.Whole == h.Whole && slices.Equal(g.Targets, h.Targets)
}

func (k *compiler) clientsGet(c *cell, m *Remembered) ClientsGet {
	get := ClientsGet{Clients: c.Clients, Why: c.why, Since: m.Since}
	for _, g := range m.Given {
		if g.Pool != "" {
			get.Pools = append(get.Pools, g.Pool)
		}
		for _, t := range g.Targets {
			if !slices.Contains(get.Targets, t) {
				get.Targets = append(get.Targets, t)
			}
		}
	}
	if c.awaiting >= 0 {
		get.Awaiting = k.r.Pools[c.awaiting].Name
	}
	return get
}

// For returns what clients near a datacenter get that match no rule; "" is clients in nobody's
// networks. If that does not depend on where they are, it is what all get; if it depends on
// something else, as with the policy Geo, it is what the first of them get with the pools of all.
func (s *Summary) For(datacenter string) ClientsGet {
	var out ClientsGet
	for _, c := range s.Clients {
		if c.Rule >= 0 {
			break
		}
		if c.Location == datacenter {
			return c
		}
		if out.Targets == nil {
			out = c
			out.Pools, out.Targets = slices.Clone(c.Pools), slices.Clone(c.Targets)
			continue
		}
		for _, p := range c.Pools {
			if !slices.Contains(out.Pools, p) {
				out.Pools = append(out.Pools, p)
			}
		}
		for _, t := range c.Targets {
			if !slices.Contains(out.Targets, t) {
				out.Targets = append(out.Targets, t)
			}
		}
	}
	return out
}
