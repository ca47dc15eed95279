package health

import (
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// Tracker turns the results of one check into the vote of this server. The zero value votes Unknown.
//
// From Unknown, one result decides. From then on the state changes after failure_threshold failures in a row, or
// success_threshold successes, and not within hold_down after the change before. A target that fell three times within
// ten minutes flaps: it needs four times as many successes. Degraded and Up take turns at once.
type Tracker struct {
	state   State
	since   time.Time // of the state
	changed time.Time // the last change between up and down; zero: none yet
	falls   [flapFalls]time.Time
	against int    // results in a row against the state
	blind   int    // results in a row that say nothing
	silent  bool   // with Down: all failures since the last answer were silence
	failure string // of the last result that was not Up, until the state is Up and so is a result
}

// A target flaps that fell so often within so long; it is up again after so many times the successes.
const (
	flapFalls  = 3
	flapWithin = 10 * time.Minute
	flapFactor = 4
)

// State returns the vote, and since when it is that.
func (t *Tracker) State() (State, time.Time) { return t.state, t.since }

// Failure returns why the last result that was not Up was not, if it matters still.
func (t *Tracker) Failure() string { return t.failure }

// Result takes a result that came at now, and reports whether the State changed.
func (t *Tracker) Result(p *steeringpb.Probe, now time.Time, r Result) bool {
	if r.Outcome != Up {
		t.failure = r.Failure
	}
	if r.Outcome == Unknown {
		t.blind++
		if t.state == Unknown || t.blind < threshold(p.GetFailureThreshold()) {
			return false
		}
		t.state, t.since, t.against = Unknown, now, 0
		return true
	}
	t.blind = 0
	if r.Outcome == Down {
		t.silent = r.Silent && (t.silent || t.state != Down && t.against == 0)
	}
	switch {
	case t.state == Unknown:
		t.state, t.since, t.against = r.Outcome, now, 0
		return true
	case t.state.IsUp() == r.Outcome.IsUp():
		t.against = 0
		if r.Outcome == Up {
			t.failure = ""
		}
		if t.state == r.Outcome {
			return false
		}
		t.state, t.since = r.Outcome, now
		return true
	}
	t.against++
	if t.against < t.needed(p, now) || now.Sub(t.changed) < milliseconds(p.GetHoldDown()) {
		return false
	}
	t.state, t.since, t.changed, t.against = r.Outcome, now, now, 0
	switch r.Outcome {
	case Down:
		t.fell(now)
	case Up:
		t.failure = ""
	}
	return true
}

// FlipIn returns the shortest time until the State could change between up and down, if results come every interval: the
// next one within one. 0: the State is Unknown.
func (t *Tracker) FlipIn(p *steeringpb.Probe, now time.Time) time.Duration {
	if t.state == Unknown {
		return 0
	}
	results := time.Duration(max(t.needed(p, now)-t.against, 1)) * milliseconds(p.GetInterval())
	return max(results, milliseconds(p.GetHoldDown())-now.Sub(t.changed))
}

// Doubted reports whether the last result was against the State.
func (t *Tracker) Doubted() bool { return t.against > 0 }

// Flaps reports whether the target needs more successes than others.
func (t *Tracker) Flaps(now time.Time) bool {
	first := t.falls[0]
	return !first.IsZero() && now.Sub(first) < flapWithin
}

// needed is how many results in a row change the state.
func (t *Tracker) needed(p *steeringpb.Probe, now time.Time) int {
	switch {
	case t.state.IsUp():
		return threshold(p.GetFailureThreshold())
	case t.Flaps(now):
		return threshold(p.GetSuccessThreshold()) * flapFactor
	default:
		return threshold(p.GetSuccessThreshold())
	}
}

func (t *Tracker) fell(now time.Time) {
	copy(t.falls[:], t.falls[1:])
	t.falls[flapFalls-1] = now
}

// Silent reports whether the state is Down, and the target has done nothing but not answer.
func (t *Tracker) Silent() bool { return t.state == Down && t.silent }

// forget makes the vote Unknown.
func (t *Tracker) forget(now time.Time) { *t = Tracker{since: now, falls: t.falls} }

func threshold(n uint32) int              { return max(1, int(min(n, 1000))) }
func milliseconds(n uint64) time.Duration { return time.Duration(min(n, 1<<40)) * time.Millisecond }
