package steering

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
)

// acting is what the overrides in force do to a record.
type acting struct {
	effects []Effect
	until   time.Time // when one of them ends; zero if none is in force

	frozen  bool
	forced  bool        // of all rules and pools, only what state has counts
	moved   bool        // state is not what health alone makes of it
	state   []condition // of each pool
	drained []targets   // of each pool
	ttl     uint32      // answers have at least; 0 for nothing
	blocked []netip.Prefix

	failback bool
}

// act applies the overrides to what health says of the pools. It does not change base.
func (r *Record) act(in *Inputs, base []condition) *acting {
	a := &acting{state: base, drained: make([]targets, len(r.Pools))}
	var all []*Override
	for _, o := range in.Overrides {
		if o.Concerns(r.Source) && o.InForce(in.Now) {
			all = append(all, o)
			if a.until.IsZero() || o.Expires.Before(a.until) {
				a.until = o.Expires
			}
		}
	}
	Order(all)
	decided := [Block + 1]string{} // source of the override that decides, of each action
	for _, o := range all {
		var acts bool
		var text string
		switch {
		case o.Action != Drain && o.Action != Block && o.Action != Failback && decided[o.Action] != "":
			text = fmt.Sprintf("%s goes before it", decided[o.Action])
		case (o.Action == Force || o.Action == Drain) && a.frozen:
			text = fmt.Sprintf("answers are frozen by %s", decided[Freeze])
		case o.Action == Drain && a.forced:
			text = fmt.Sprintf("answers are forced by %s", decided[Force])
		default:
			acts, text = a.apply(r, o)
		}
		if acts {
			decided[o.Action] = o.Source
		}
		a.effects = append(a.effects, Effect{Source: o.Source, Action: o.Action, Acts: acts, Text: text})
	}
	return a
}

func (a *acting) apply(r *Record, o *Override) (acts bool, text string) {
	switch o.Action {
	case Freeze:
		a.frozen = true
		return true, "keeps answers as they were"
	case Force:
		return a.force(r, o)
	case Drain:
		return a.drain(r, o)
	case RaiseTTL:
		a.ttl = o.TTL
		if o.TTL <= r.TTL {
			return false, fmt.Sprintf("the TTL is %d s without it", r.TTL)
		}
		return true, fmt.Sprintf("raises the TTL to %d s", o.TTL)
	case Block:
		a.blocked = append(a.blocked, o.Networks...)
		return true, fmt.Sprintf("refuses clients of %d networks", len(o.Networks))
	default: // Failback
		a.failback = true
		if slices.ContainsFunc(a.state, func(c condition) bool { return c.out }) {
			return true, "lets pools in again that were left"
		}
		return false, "no pool was left"
	}
}

// covered returns which targets of each pool an override is about.
func (o *Override) covered(r *Record) (sets []targets, count int) {
	sets = make([]targets, len(r.Pools))
	for i := range r.Pools {
		p := &r.Pools[i]
		for j := range p.Targets {
			if o.covers(p, p.Targets[j].String()) {
				sets[i] = sets[i].with(j)
				count++
			}
		}
	}
	return sets, count
}

// healthy counts the targets that may be answered and are not Down.
func healthy(state []condition) (count int) {
	for i := range state {
		for _, rank := range state[i].ranks {
			count += rank.count()
		}
	}
	return count
}

func (a *acting) force(r *Record, o *Override) (acts bool, text string) {
	sets, count := o.covered(r)
	if count == 0 {
		return false, fmt.Sprintf("there is no %s to force", o.about())
	}
	forced := slices.Clone(a.state)
	for i := range forced {
		c := &forced[i]
		c.all, c.least, c.out, c.awaiting = sets[i], 1, false, false
		if o.IgnoreHealth {
			c.states, c.gated = make([]health.State, len(c.states)), false
		}
		c.rank(&r.Pools[i])
	}
	if healthy(forced) == 0 {
		return false, fmt.Sprintf("nothing of %s is up: the policy goes on", o.about())
	}
	a.state, a.forced, a.moved = forced, true, true
	return true, fmt.Sprintf("forces %s", o.about())
}

func (a *acting) drain(r *Record, o *Override) (acts bool, text string) {
	sets, count := o.covered(r)
	if count == 0 {
		return false, fmt.Sprintf("there is no %s to drain", o.about())
	}
	drained := slices.Clone(a.state)
	fresh := 0
	for i := range drained {
		c := &drained[i]
		fresh += (c.all & sets[i]).count()
		c.all &^= sets[i]
		c.rank(&r.Pools[i])
	}
	if left := healthy(drained); left < o.KeepAtLeast {
		return false, fmt.Sprintf("would leave %d healthy targets, and keepAtLeast is %d: nothing is drained", left, o.KeepAtLeast)
	}
	a.state, a.moved = drained, true
	for i := range sets {
		a.drained[i] |= sets[i]
	}
	if fresh == 0 {
		return true, fmt.Sprintf("%s is drained already", o.about())
	}
	return true, fmt.Sprintf("drains %d of %d targets", count, r.count())
}

// count is how many targets all pools have.
func (r *Record) count() (n int) {
	for i := range r.Pools {
		n += len(r.Pools[i].Targets)
	}
	return n
}

// controls is what the overrides mean for the latches of the record.
func (a *acting) controls() health.Controls {
	c := health.Controls{Frozen: a.frozen, Failback: a.failback && !a.frozen}
	for i := range a.state {
		switch {
		case a.forced && a.state[i].all != 0:
			c.Forced = append(c.Forced, i)
		case !a.forced && a.state[i].all == 0:
			c.Drained = append(c.Drained, i)
		}
	}
	return c
}
