package health

import "github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"

// Combine returns what a policy makes of the votes of an electorate: those of its datacenters that are fresh and not
// isolated. Votes that are Unknown do not count.
//
// Local has no electorate: of one vote, the datacenter's own, all policies make the same. Any is up if one vote is, All
// if every one is, Quorum if more than half are. A tie of Quorum, and no vote at all, keep present; tied is true for the
// former. What is up is Degraded if that is what most of the votes for up say; for Any if all of them do, for All if one
// does.
func Combine(policy steeringpb.Vantage, votes []State, present State) (verdict State, tied bool) {
	var t tally
	for _, v := range votes {
		t.add(v)
	}
	return t.combine(policy, present)
}

// tally counts votes.
type tally struct {
	up, degraded, down int
}

func (t *tally) add(v State) {
	switch v {
	case Up:
		t.up++
	case Degraded:
		t.degraded++
	case Down:
		t.down++
	}
}

func (t *tally) votes() int { return t.up + t.degraded + t.down }

// majority is what more than half say; Unknown: tied, or no votes.
func (t *tally) majority() State {
	switch ups := t.up + t.degraded; {
	case t.down > ups:
		return Down
	case ups > t.down && t.degraded > t.up:
		return Degraded
	case ups > t.down:
		return Up
	default:
		return Unknown
	}
}

func (t *tally) combine(policy steeringpb.Vantage, present State) (verdict State, tied bool) {
	if t.votes() == 0 {
		return present, false
	}
	switch policy {
	case steeringpb.Vantage_ANY:
		switch {
		case t.up > 0:
			return Up, false
		case t.degraded > 0:
			return Degraded, false
		}
		return Down, false
	case steeringpb.Vantage_ALL:
		switch {
		case t.down > 0:
			return Down, false
		case t.degraded > 0:
			return Degraded, false
		}
		return Up, false
	}
	if m := t.majority(); m != Unknown {
		return m, false
	}
	return present, true
}
