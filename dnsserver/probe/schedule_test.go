package probe

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
)

// target is a Prober whose target answers after some time, unless time is up before. It keeps when it was asked.
type target struct {
	answers time.Duration
	timeout time.Duration

	mu      sync.Mutex
	asked   []time.Time
	running int
	most    int
	stopped int // probes that were called off
}

func (f *target) Probe(ctx context.Context, _ netip.Addr) Result {
	began := time.Now()
	f.mu.Lock()
	f.asked = append(f.asked, began)
	f.running++
	f.most = max(f.most, f.running)
	answers := f.answers
	f.mu.Unlock()
	timer := time.NewTimer(min(answers, f.timeout))
	defer timer.Stop()
	result := up()
	if answers > f.timeout {
		result = down(Timeout, "no answer")
	}
	select {
	case <-timer.C:
	case <-ctx.Done():
		result = unknown(Canceled, "called off")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	if result.Code == Canceled {
		f.stopped++
	}
	result.Latency = time.Since(began)
	return result
}

// times returns when the target was asked.
func (f *target) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// counts returns how many probes run, how many ran at a time at most, and how many were called off.
func (f *target) counts() (running, most, stopped int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running, f.most, f.stopped
}

// answersIn changes how long the target takes.
func (f *target) answersIn(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = d
}

// gaps returns the times between two probes.
func (f *target) gaps() []time.Duration {
	var gaps []time.Duration
	times := f.times()
	for i := 1; i < len(times); i++ {
		gaps = append(gaps, times[i].Sub(times[i-1]))
	}
	return gaps
}

// checkOf returns the nth check of a target.
func checkOf(n int, f Prober, interval time.Duration) Check {
	var id health.CheckID
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}) // IDs are hashes
	binary.BigEndian.PutUint64(id[:], r.Uint64())
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return Check{ID: id, Prober: f, Interval: interval, Timeout: 2 * time.Second}
}

// fleet returns n checks of targets that answer so quickly.
func fleet(first, n int, interval, answers time.Duration) ([]Check, []*target) {
	checks, targets := make([]Check, n), make([]*target, n)
	for i := range n {
		targets[i] = &target{answers: answers, timeout: 2 * time.Second}
		checks[i] = checkOf(first+i, targets[i], interval)
	}
	return checks, targets
}

// running runs a Scheduler in a bubble of synctest until the test ends.
func running(t *testing.T, o Options) *Scheduler {
	t.Helper()
	if o.Deliver == nil {
		o.Deliver = func(health.CheckID, Result) {}
	}
	s := NewScheduler(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// within fails the test if a duration is not in the bounds. The schedule is exact to a tick.
func within(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least-tick || got > most+tick {
		t.Errorf("%s: %s, wanted %s to %s", what, got, least, most)
	}
}

func TestChecksAreProbedOnceAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, Options{})
		checks, targets := fleet(0, 200, 10*time.Second, time.Millisecond)
		s.Set(checks)
		time.Sleep(1000 * time.Second)
		var sum time.Duration
		n, different := 0, map[time.Duration]bool{}
		for _, f := range targets {
			for _, g := range f.gaps() {
				within(t, "between two probes", g, 9*time.Second, 11*time.Second)
				different[g] = true
				sum += g
				n++
			}
		}
		within(t, "mean", sum/time.Duration(n), 9900*time.Millisecond, 10100*time.Millisecond)
		if len(different) < n/10 {
			t.Errorf("%d probes have %d different distances: no jitter", n, len(different))
		}
	})
}

// TestNoBursts holds for a start with 20,000 targets, and for what follows.
func TestNoBursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, Options{})
		checks, targets := fleet(0, 20_000, 10*time.Second, time.Millisecond)
		begin := time.Now()
		s.Set(checks)
		time.Sleep(60 * time.Second)
		slots := make([]int, 600) // of 100 ms; 200 probes are expected in each
		for _, f := range targets {
			times := f.times()
			within(t, "first probe", times[0].Sub(begin), 0, 11*time.Second)
			for _, at := range times {
				if slot := int(at.Sub(begin) / (100 * time.Millisecond)); slot < len(slots) {
					slots[slot]++
				}
			}
		}
		for i, n := range slots {
			if math.Abs(float64(n)-200) > 5*math.Sqrt(200) {
				t.Errorf("%d probes in the 100 ms after %s, wanted about 200", n, time.Duration(i)*100*time.Millisecond)
			}
		}
	})
}

func TestLongIntervalsBeginEarlyAndSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, Options{})
		checks, targets := fleet(0, 3600, time.Hour, time.Millisecond)
		begin := time.Now()
		s.Set(checks)
		time.Sleep(5 * time.Hour)
		minutes := make([]int, 200) // after the first
		for _, f := range targets {
			times, gaps := f.times(), f.gaps()
			within(t, "first probe", times[0].Sub(begin), 0, 20*time.Second)
			within(t, "second probe after the first", gaps[0], 10*time.Second, 66*time.Minute)
			for _, g := range gaps[1:] {
				within(t, "between two probes", g, 54*time.Minute, 66*time.Minute)
			}
			for _, at := range times {
				if m := int(at.Sub(begin)/time.Minute) - 1; m >= 0 && m < len(minutes) {
					minutes[m]++
				}
			}
		}
		for m, n := range minutes {
			if math.Abs(float64(n)-60) > 5*math.Sqrt(60) {
				t.Errorf("%d probes in minute %d, wanted about 60", n, m+1)
			}
		}
	})
}

func TestSilentTargetsDelayNoOther(t *testing.T) {
	for name, c := range map[string]struct {
		places int
		late   time.Duration // by which probes of targets that answer may be
		silent int           // the most probes of a silent target that may be missed, in a minute
	}{
		"with places for all none waits at all":                              {8192, 0, 0},
		"with too few those that answer wait for the first probes of others": {1000, 12 * time.Second, 6},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := running(t, Options{MaxInFlight: c.places})
				good, answering := fleet(0, 10_000, 10*time.Second, time.Millisecond)
				bad, silent := fleet(10_000, 10_000, 10*time.Second, time.Hour)
				s.Set(slices.Concat(good, bad))
				if n := s.Stats().Needed; math.Abs(n-4000) > 1 {
					t.Errorf("needed %f", n)
				}
				time.Sleep(60 * time.Second)
				for _, f := range answering {
					for i, g := range f.gaps() {
						if i < 2 {
							within(t, "between the first probes", g, 9*time.Second-c.late, 11*time.Second+c.late)
						} else {
							within(t, "between two probes", g, 9*time.Second, 11*time.Second)
						}
					}
				}
				for _, f := range silent {
					if n := len(f.times()); n < 5-c.silent {
						t.Errorf("a silent target was probed %d times", n)
					}
				}
				if n := s.Stats(); n.InFlight > c.places {
					t.Errorf("%d probes in flight", n.InFlight)
				}
			})
		})
	}
}

func TestOneProbeOfACheckAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, Options{})
		f := &target{answers: 25 * time.Second, timeout: time.Hour}
		s.Set([]Check{checkOf(0, f, 10*time.Second)})
		time.Sleep(10 * time.Minute)
		if _, most, _ := f.counts(); most != 1 {
			t.Errorf("%d at a time", most)
		}
		for _, g := range f.gaps() {
			within(t, "between two probes", g, 25*time.Second, 25*time.Second)
		}
	})
}

// log keeps what is delivered.
type deliveries struct {
	mu  sync.Mutex
	all map[health.CheckID][]Result
}

func (d *deliveries) deliver(id health.CheckID, r Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[health.CheckID][]Result{}
	}
	d.all[id] = append(d.all[id], r)
}

func (d *deliveries) of(id health.CheckID) []Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.all[id])
}

func TestRemovedChecksStopAtOnceAndSayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deliveries
		s := running(t, Options{Deliver: d.deliver})
		gone := &target{answers: time.Second, timeout: 2 * time.Second}
		stays := &target{answers: time.Second, timeout: 2 * time.Second}
		a, b := checkOf(0, gone, 10*time.Second), checkOf(1, stays, 10*time.Second)
		s.Set([]Check{a, b})
		for n := 0; n == 0; n, _, _ = gone.counts() {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		s.Update(nil, []health.CheckID{a.ID})
		synctest.Wait()
		if n, _, stopped := gone.counts(); n != 0 || stopped != 1 {
			t.Error("the probe of a check that was removed goes on")
		}
		time.Sleep(time.Minute)
		if n := len(d.of(a.ID)); n != 0 || len(gone.times()) != 1 {
			t.Errorf("%d results after the end, %d probes", n, len(gone.times()))
		}
		if len(d.of(b.ID)) < 5 {
			t.Error("the other check ended too")
		}
		s.Set([]Check{b, a}) // and back
		time.Sleep(time.Minute)
		if len(d.of(a.ID)) < 5 {
			t.Error("a check that came back is not probed")
		}
		s.Set(nil)
		if n := s.Stats(); n.Checks != 0 || n.Waiting != 0 {
			t.Errorf("%+v", n)
		}
		synctest.Wait()
		if n := s.Stats().InFlight; n != 0 {
			t.Errorf("%d probes in flight", n)
		}
	})
}

// TestSetWaitsForDeliveries holds that no result of a removed check is being delivered when Set returns.
func TestSetWaitsForDeliveries(t *testing.T) {
	entered := make(chan struct{})
	var delivering atomic.Bool
	s := running(t, Options{Deliver: func(health.CheckID, Result) {
		delivering.Store(true)
		close(entered)
		<-time.After(20 * time.Millisecond) // slow
		delivering.Store(false)
	}})
	s.Set([]Check{checkOf(0, &target{timeout: time.Second}, 10*time.Millisecond)})
	<-entered
	s.Set(nil)
	if delivering.Load() {
		t.Error("Set has returned during a delivery")
	}
}

func TestIntervals(t *testing.T) {
	const at = 200 * time.Second
	for name, c := range map[string]struct {
		interval, idle time.Duration
		change         func(*Scheduler, Check)
		first          [2]time.Duration // from the change to the next probe
		then           [2]time.Duration
	}{
		"one that becomes shorter is followed at once": {100 * time.Second, 0, func(s *Scheduler, c Check) {
			c.Interval = 10 * time.Second
			s.Update([]Check{c}, nil)
		}, [2]time.Duration{0, 10 * time.Second}, [2]time.Duration{9 * time.Second, 11 * time.Second}},
		"one that becomes longer is followed from the next probe on": {10 * time.Second, 0, func(s *Scheduler, c Check) {
			c.Interval = 100 * time.Second
			s.Set([]Check{c})
		}, [2]time.Duration{0, 11 * time.Second}, [2]time.Duration{90 * time.Second, 110 * time.Second}},
		"one that stays is kept": {10 * time.Second, 0, func(s *Scheduler, c Check) { s.Set([]Check{c}) },
			[2]time.Duration{0, 11 * time.Second}, [2]time.Duration{9 * time.Second, 11 * time.Second}},
		"a check that is idle is probed less often": {10 * time.Second, 60 * time.Second, func(s *Scheduler, c Check) { s.SetIdle(true, c.ID, health.CheckID{}) },
			[2]time.Duration{0, 11 * time.Second}, [2]time.Duration{54 * time.Second, 66 * time.Second}},
		"one that can't be idle is not": {10 * time.Second, 0, func(s *Scheduler, c Check) { s.SetIdle(true, c.ID) },
			[2]time.Duration{0, 11 * time.Second}, [2]time.Duration{9 * time.Second, 11 * time.Second}},
		"one that is asked for again is probed as before": {10 * time.Second, 100 * time.Second, func(s *Scheduler, c Check) {
			s.SetIdle(true, c.ID)
			time.Sleep(45 * time.Second)
			s.SetIdle(false, c.ID)
		}, [2]time.Duration{0, 55 * time.Second}, [2]time.Duration{9 * time.Second, 11 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := running(t, Options{})
				for n := range 50 {
					f := &target{timeout: time.Second}
					check := checkOf(n, f, c.interval)
					check.IdleInterval = c.idle
					s.Set([]Check{check})
					begin := time.Now()
					time.Sleep(at)
					before := len(f.times())
					c.change(s, check)
					time.Sleep(1000 * time.Second)
					times := f.times()[before:]
					within(t, "first", times[0].Sub(begin.Add(at)), c.first[0], c.first[1])
					if name == "one that is asked for again is probed as before" {
						times = times[2:]
					}
					for i := 1; i < len(times); i++ {
						within(t, "then", times[i].Sub(times[i-1]), c.then[0], c.then[1])
					}
				}
			})
		})
	}
}

// TestManyThatAreAskedForAgainDoNotBurst is what happens when clients come back at night's end.
func TestManyThatAreAskedForAgainDoNotBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := running(t, Options{})
		checks, targets := fleet(0, 10_000, 10*time.Second, time.Millisecond)
		var ids []health.CheckID
		for i := range checks {
			checks[i].IdleInterval = 100 * time.Second
			ids = append(ids, checks[i].ID)
		}
		s.Set(checks)
		s.SetIdle(true, ids...)
		time.Sleep(500 * time.Second)
		s.SetIdle(false, ids...)
		begin := time.Now()
		time.Sleep(30 * time.Second)
		slots := make([]int, 30)
		for _, f := range targets {
			times := f.times()
			i, _ := slices.BinarySearchFunc(times, begin, time.Time.Compare)
			within(t, "first probe", times[i].Sub(begin), 0, 10*time.Second)
			for _, at := range times[i:] {
				if slot := int(at.Sub(begin) / time.Second); slot < len(slots) {
					slots[slot]++
				}
			}
		}
		for i, n := range slots {
			if n > 1250 {
				t.Errorf("%d probes in second %d, wanted about 1000", n, i)
			}
		}
	})
}

// TestServerThatStoodStillDoesNotCatchUp at once, but over as long as it stood still.
func TestServerThatStoodStillDoesNotCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewScheduler(Options{Deliver: func(health.CheckID, Result) {}})
		checks, targets := fleet(0, 10_000, 10*time.Second, time.Millisecond)
		s.Set(checks)
		time.Sleep(5 * time.Second)
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		time.Sleep(10 * time.Second)
		slots := make([]int, 10)
		for _, f := range targets {
			times := f.times()
			within(t, "first probe", times[0].Sub(begin), 0, 10*time.Second)
			for _, at := range times {
				slots[min(int(at.Sub(begin)/time.Second), 9)]++
			}
		}
		for i, n := range slots {
			if n > 2300 {
				t.Errorf("%d probes in second %d, wanted 2000 at most", n, i)
			}
		}
		cancel()
		<-done
	})
}

func TestNothingIsDeliveredAfterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		s := NewScheduler(Options{Deliver: func(health.CheckID, Result) {
			if ended {
				t.Error("a result after the end")
			}
		}})
		checks, targets := fleet(0, 100, time.Second, 500*time.Millisecond)
		s.Set(checks)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(10 * time.Second); cancel() }()
		s.Run(ctx)
		ended = true
		for _, f := range targets {
			if n, _, _ := f.counts(); n != 0 {
				t.Error("a probe runs on")
			}
		}
		s.Set(checks[:50])
		s.Set(nil)
		time.Sleep(time.Minute)
	})
}

func TestResultsHaveTheSmoothedLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deliveries
		s := running(t, Options{Deliver: d.deliver})
		f := &target{answers: 80 * time.Millisecond, timeout: time.Second}
		c := checkOf(0, f, time.Second)
		s.Set([]Check{c})
		time.Sleep(10 * time.Second)
		f.answersIn(160 * time.Millisecond)
		time.Sleep(time.Minute)
		f.answersIn(time.Hour)
		time.Sleep(10 * time.Second)
		got := d.of(c.ID)
		if s := got[0].Smoothed; s != 80*time.Millisecond {
			t.Errorf("first %s", s)
		}
		last := got[len(got)-1]
		within(t, "at last", last.Smoothed, 159*time.Millisecond, 160*time.Millisecond)
		if last.Outcome != Down {
			t.Error("the target is not down in the end")
		}
		for i := 1; i < len(got); i++ {
			if got[i].Smoothed < got[i-1].Smoothed {
				t.Error("it goes down while latency goes up")
			}
		}
	})
}

// TestAnyChangesKeepThePromises makes random changes, and looks at every probe and result.
func TestAnyChangesKeepThePromises(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex
			present := map[health.CheckID]bool{}
			s := running(t, Options{MaxInFlight: 5 + r.IntN(100), Seed: seed, Deliver: func(id health.CheckID, result Result) {
				mu.Lock()
				defer mu.Unlock()
				if !present[id] {
					t.Error("a result of a check that was removed")
				}
				if result.Code == Canceled {
					t.Error("a probe that was called off has a result")
				}
			}})
			every, targets := fleet(0, 40, 0, 0)
			for i, f := range targets {
				f.answers = time.Duration(r.IntN(3000)) * time.Millisecond
				every[i].Interval = time.Duration(2500+r.IntN(20_000)) * time.Millisecond
				every[i].IdleInterval = time.Duration(r.IntN(3)*40) * time.Second
			}
			for range 200 {
				time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
				var ids []health.CheckID
				var checks []Check
				for _, c := range every {
					if r.IntN(2) == 0 {
						checks = append(checks, c)
						ids = append(ids, c.ID)
					}
				}
				mark := func(to bool, ids ...health.CheckID) {
					mu.Lock()
					defer mu.Unlock()
					for _, id := range ids {
						present[id] = to
					}
				}
				switch r.IntN(4) {
				case 0: // present before it may be delivered, absent when Set has returned
					mark(true, ids...)
					s.Set(checks)
					for _, c := range every {
						if !slices.Contains(ids, c.ID) {
							mark(false, c.ID)
						}
					}
				case 1:
					s.Update(nil, ids)
					mark(false, ids...)
				case 2:
					mark(true, ids...)
					for i := range checks {
						checks[i].Interval = time.Duration(2500+r.IntN(20_000)) * time.Millisecond
					}
					s.Update(checks, ids)
				default:
					s.SetIdle(r.IntN(2) == 0, ids...)
				}
			}
			synctest.Wait()
			n := s.Stats()
			all := 0
			for _, f := range targets {
				n, most, _ := f.counts()
				if most > 1 {
					t.Error("two probes of a check at a time")
				}
				all += n
			}
			if all != n.InFlight || n.InFlight > n.MaxInFlight {
				t.Errorf("%d probes run, %+v", all, n)
			}
		})
	}
}
