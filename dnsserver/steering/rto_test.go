package steering

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestExplainFailover(t *testing.T) {
	const s = time.Second
	usual := Failover{Interval: 10 * s, FailureThreshold: 3, Timeout: 2 * s, VoteTTL: 5 * s, TTL: 60 * s}
	for sentence, tc := range map[string]struct {
		change func(f *Failover)
		rto    time.Duration
		want   string
	}{
		"another TTL, or another interval with its TTL": {nil, 60 * s,
			"3 x 10s x 1.1 + 2s + 0.2s + 60s = 95.2s > 60s; TTL 24s meets it, or interval 3s with TTL 47s"},
		"met":                            {func(f *Failover) { f.TTL = 24 * s }, 60 * s, "3 x 10s x 1.1 + 2s + 0.2s + 24s = 59.2s <= 60s"},
		"an interval alone":              {nil, 90 * s, "3 x 10s x 1.1 + 2s + 0.2s + 60s = 95.2s > 90s; TTL 54s meets it, or interval 8s"},
		"the idle interval counts":       {func(f *Failover) { f.IdleInterval = 60 * s }, 120 * s, "3 x 60s x 1.1 + 2s + 0.2s + 60s = 260.2s > 120s; interval 17s meets it"},
		"hold-down counts":               {func(f *Failover) { f.HoldDown = 5 * s }, 100 * s, "3 x 10s x 1.1 + 2s + 5s + 0.2s + 60s = 100.2s > 100s; TTL 59s meets it, or interval 9s"},
		"votes lapse later":              {func(f *Failover) { f.Interval, f.Timeout = s, s/2 }, 60 * s, "5s until votes lapse + 0.2s + 60s = 65.2s > 60s; TTL 54s meets it"},
		"fewer failures if nothing else": {nil, 9 * s, "3 x 10s x 1.1 + 2s + 0.2s + 60s = 95.2s > 9s; failureThreshold 1 with interval 3s and TTL 3s meets it"},
		"nothing meets it":               {nil, 5 * s, "3 x 10s x 1.1 + 2s + 0.2s + 60s = 95.2s > 5s; no TTL from 1s on and no interval above the timeout meet it"},
		"clients that keep nothing":      {func(f *Failover) { f.Flush = s }, 60 * s, "3 x 10s x 1.1 + 2s + 0.2s + 1s of flushing = 36.2s <= 60s"},
		"what clients keep counts":       {func(f *Failover) { f.Flush, f.ClientCache = s, 10*s }, 40 * s, "3 x 10s x 1.1 + 2s + 0.2s + 1s of flushing + 10s at clients = 46.2s > 40s; TTL 3s meets it, or interval 8s"},
		"clients keep no more than the TTL": {func(f *Failover) { f.Flush, f.ClientCache, f.TTL = s, 10*s, 5*s }, 60 * s,
			"3 x 10s x 1.1 + 2s + 0.2s + 1s of flushing + 5s at clients = 41.2s <= 60s"},
		"another TTL does not help who keeps nothing": {func(f *Failover) { f.Flush = s }, 30 * s, "3 x 10s x 1.1 + 2s + 0.2s + 1s of flushing = 36.2s > 30s; interval 8s meets it"},
		"a timeout that is no whole second": {func(f *Failover) { f.Timeout = 1500 * time.Millisecond }, 60 * s,
			"3 x 10s x 1.1 + 1.5s + 0.2s + 60s = 94.7s > 60s; TTL 25s meets it, or interval 2s with TTL 51s"},
	} {
		t.Run(sentence, func(t *testing.T) {
			f := usual
			if tc.change != nil {
				tc.change(&f)
			}
			if got := f.Explain(tc.rto, 0); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestRemediesMeetTheObjective(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := func(name string, most int) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * 100 * time.Millisecond
		}
		f := Failover{
			Interval: ms("interval", 600) + time.Second, IdleInterval: ms("idle", 1200), FailureThreshold: rapid.IntRange(1, 10).Draw(t, "threshold"),
			HoldDown: ms("holdDown", 100), VoteTTL: ms("voteTTL", 100), TTL: time.Duration(rapid.IntRange(0, 600).Draw(t, "ttl")) * time.Second,
		}
		if rapid.Bool().Draw(t, "flushed") {
			f.Flush, f.ClientCache = ms("flush", 20)+time.Millisecond, ms("clients", 600)
		}
		f.Timeout = min(ms("timeout", 100), f.Interval-time.Millisecond)
		rto := ms("rto", 3000)
		least := time.Duration(rapid.IntRange(0, 10).Draw(t, "least")) * time.Second
		remedies := f.Remedies(rto, least)
		if f.Meets(rto) && len(remedies) > 0 {
			t.Fatalf("%s is met and has remedies %v", f, remedies)
		}
		for _, r := range remedies {
			g := f.With(r)
			switch {
			case g.Worst() > rto:
				t.Fatalf("%s: the remedy %s comes to %s > %s", f, r, g, rto)
			case r == Remedy{}:
				t.Fatal("a remedy that changes nothing")
			case r.Interval != 0 && (r.Interval <= f.Timeout || r.Interval < time.Second):
				t.Fatalf("interval %s is not above the timeout %s", r.Interval, f.Timeout)
			case r.TTL != 0 && (r.TTL < least || r.TTL > f.kept()):
				t.Fatalf("TTL %s is out of bounds", r.TTL)
			}
			// One second more would not do, for a TTL alone.
			if more := r; r.TTL > 0 && r.TTL < f.kept() {
				more.TTL += time.Second
				if more.TTL < f.kept() && f.With(more).Meets(rto) {
					t.Fatalf("%s: TTL %s meets it too", f, more.TTL)
				}
			}
		}
		// If there is none, not even the shortest of everything meets it.
		shortest := f.With(Remedy{TTL: max(least, time.Second), FailureThreshold: 1})
		if interval := f.Timeout.Truncate(time.Second) + time.Second; interval < f.between() {
			shortest = shortest.With(Remedy{Interval: interval})
		}
		if len(remedies) == 0 && !f.Meets(rto) && f.kept() > max(least, time.Second) && shortest.Meets(rto) {
			t.Fatalf("%s > %s has no remedy, and %s would do", f, rto, shortest)
		}
	})
}

func TestTheSlowestProbeCounts(t *testing.T) {
	m := message(t, twoPools+"ttl 5..60")
	slow := message(t, twoPools).Probes[0]
	slow.Interval = 30000
	m.Probes = append(m.Probes, slow)
	m.Pools[1].Gates = []uint32{1}
	r, err := NewRecord(parsed(t, "app.pay.bank."), m)
	if err != nil {
		t.Fatal(err)
	}
	f, ok := r.Failover(5 * time.Second)
	if got, want := f.String(), "3 x 30s x 1.1 + 2s + 0.2s + 5s = 106.2s"; !ok || got != want {
		t.Errorf("got %s, wanted %s", got, want)
	}
	r = record(t, twoPools)
	for i := range r.Pools {
		r.Pools[i].Probes = nil
	}
	if _, ok := r.Failover(5 * time.Second); ok {
		t.Error("a record that nobody probes has a failover")
	}
}
