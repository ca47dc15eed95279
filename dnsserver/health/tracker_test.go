package health_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// results makes results of letters: u up, d down, g degraded, s silent, x nothing learned.
func results(letters string) []health.Result {
	var all []health.Result
	for _, l := range letters {
		switch l {
		case 'u':
			all = append(all, health.Result{Outcome: health.Up})
		case 'd':
			all = append(all, health.Result{Outcome: health.Down, Failure: "connection refused"})
		case 'g':
			all = append(all, health.Result{Outcome: health.Degraded, Failure: "certificate ends in 3 days"})
		case 's':
			all = append(all, health.Result{Outcome: health.Down, Silent: true, Failure: "no answer"})
		case 'x':
			all = append(all, health.Result{Failure: "out of ports"})
		}
	}
	return all
}

// TestTrackerFollowsResults gives one result every 10 s to a probe with 3 failures, 2 successes.
func TestTrackerFollowsResults(t *testing.T) {
	tests := map[string]struct {
		results  string
		holdDown time.Duration
		want     string // the state after each: U, D, G or - for unknown
	}{
		"nothing is known before the first result":               {"", 0, ""},
		"the first result decides: up":                           {"u", 0, "U"},
		"the first result decides: down":                         {"d", 0, "D"},
		"two failures of three are not down":                     {"udd", 0, "UUU"},
		"three failures in a row are down":                       {"uddd", 0, "UUUD"},
		"a success between starts the count over":                {"uddudd", 0, "UUUUUU"},
		"one success of two is not up":                           {"udddu", 0, "UUUDD"},
		"two successes in a row are up":                          {"uddduu", 0, "UUUDDU"},
		"a failure between starts the count over, too":           {"udddudu", 0, "UUUDDDD"},
		"degraded is up, at once":                                {"ug", 0, "UG"},
		"degraded and well again":                                {"ugu", 0, "UGU"},
		"a degraded answer brings back as degraded":              {"udddgg", 0, "UUUDDG"},
		"a degraded answer ends a row of failures":               {"uddgdd", 0, "UUUGGG"},
		"what says nothing counts for nothing":                   {"uddxd", 0, "UUUUD"},
		"failing to ask for as often as failing makes it blind":  {"uxxx", 0, "UUU-"},
		"a blind server knows with the next result":              {"uxxxd", 0, "UUU-D"},
		"no change within the hold-down":                         {"udddddd", 65 * time.Second, "UUUDDDD"},
		"hold-down does not count from the first state":          {"uddd", time.Hour, "UUUD"},
		"after a change none for the hold-down":                  {"uddduuuuuuu", 65 * time.Second, "UUUDDDDDDDU"},
		"hold-down over, the next result decides, once enough":   {"uddduuduu", 45 * time.Second, "UUUDDDDDU"},
		"three falls in ten minutes: four times as many to rise": {"u" + strings.Repeat("ddduu", 2) + "ddd" + "uuuuuuuu", 0, "U" + strings.Repeat("UUDDU", 2) + "UUD" + "DDDDDDDU"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := &steeringpb.Probe{Interval: 10_000, FailureThreshold: 3, SuccessThreshold: 2, HoldDown: uint64(test.holdDown.Milliseconds())}
			var tracker health.Tracker
			now, got := epoch, ""
			for _, r := range results(test.results) {
				before, _ := tracker.State()
				changed := tracker.Result(p, now, r)
				state, since := tracker.State()
				if changed != (before != state) {
					t.Errorf("after %s: changed %v, from %v to %v", got, changed, before, state)
				}
				if changed && !since.Equal(now) {
					t.Errorf("after %s: since %v", got, since)
				}
				got += map[health.State]string{health.Unknown: "-", health.Up: "U", health.Degraded: "G", health.Down: "D"}[state]
				now = now.Add(10 * time.Second)
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestTrackerThatFlappedLongAgoRisesAsUsual(t *testing.T) {
	p := &steeringpb.Probe{Interval: 10_000, FailureThreshold: 1, SuccessThreshold: 1}
	var tracker health.Tracker
	now := epoch
	for range 5 {
		for _, r := range results("ud") {
			tracker.Result(p, now, r)
			now = now.Add(5 * time.Minute)
		}
	}
	if tracker.Flaps(now) {
		t.Error("falls ten minutes apart are no flapping")
	}
	tracker.Result(p, now, results("u")[0])
	if state, _ := tracker.State(); state != health.Up {
		t.Errorf("state %v after one success", state)
	}
}

func TestTrackerSaysWhyAndWhen(t *testing.T) {
	p := &steeringpb.Probe{Interval: 10_000, FailureThreshold: 3, SuccessThreshold: 2}
	tests := map[string]struct {
		results string
		failure string
		flipIn  time.Duration
		doubted bool
		silent  bool
	}{
		"nothing known":                        {"", "", 0, false, false},
		"up":                                   {"u", "", 30 * time.Second, false, false},
		"one failure":                          {"ud", "connection refused", 20 * time.Second, true, false},
		"two failures":                         {"udd", "connection refused", 10 * time.Second, true, false},
		"down":                                 {"uddd", "connection refused", 20 * time.Second, false, false},
		"a success after that keeps the words": {"udddu", "connection refused", 10 * time.Second, true, false},
		"up again":                             {"uddduu", "", 30 * time.Second, false, false},
		"up again after one failure":           {"udu", "", 30 * time.Second, false, false},
		"the last words":                       {"usd", "connection refused", 10 * time.Second, true, false},
		"degraded":                             {"g", "certificate ends in 3 days", 30 * time.Second, false, false},
		"silent":                               {"usss", "no answer", 20 * time.Second, false, true},
		"silent, but it had refused before":    {"udss", "no answer", 20 * time.Second, false, false},
		"silent, and one success since":        {"usssu", "no answer", 10 * time.Second, true, true},
		"silent, and it refuses since":         {"usssd", "connection refused", 20 * time.Second, false, false},
		"silent from the first":                {"s", "no answer", 20 * time.Second, false, true},
		"refused, then silent when down":       {"uddds", "no answer", 20 * time.Second, false, false},
		"nothing learned has words, too":       {"ux", "out of ports", 30 * time.Second, false, false},
		"silent with an answer in between is no row":  {"usus", "no answer", 20 * time.Second, true, false},
		"silent after an answer, all of the last row": {"udusss", "no answer", 20 * time.Second, false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var tracker health.Tracker
			now := epoch
			for _, r := range results(test.results) {
				tracker.Result(p, now, r)
				now = now.Add(10 * time.Second)
			}
			if got := tracker.Failure(); got != test.failure {
				t.Errorf("failure %q, want %q", got, test.failure)
			}
			if got := tracker.FlipIn(p, now); got != test.flipIn {
				t.Errorf("flips in %v, want %v", got, test.flipIn)
			}
			if got := tracker.Doubted(); got != test.doubted {
				t.Errorf("doubted %v, want %v", got, test.doubted)
			}
			if got := tracker.Silent(); got != test.silent {
				t.Errorf("silent %v, want %v", got, test.silent)
			}
		})
	}
}
