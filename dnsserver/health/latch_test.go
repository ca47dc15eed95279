package health_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestALatchStandsOverAnotherInOneWayOnly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	some := func() health.Latch {
		return health.Latch{Out: rng.IntN(2) == 0, At: int64(rng.IntN(3)), By: string(rune('a' + rng.IntN(2)))}
	}
	for range 10_000 {
		a, b, c := some(), some(), some()
		if a.After(b) && b.After(a) {
			t.Fatalf("%v and %v stand over each other", a, b)
		}
		if !a.After(b) && !b.After(a) && a != b {
			t.Fatalf("neither of %v and %v stands over the other", a, b)
		}
		if a.After(b) && b.After(c) && !a.After(c) {
			t.Fatalf("%v, %v and %v are in no order", a, b, c)
		}
	}
}

// app is a record of two pools, down and up in the datacenters of a lab of three with one server each.
func app(t *testing.T, change func(*steeringpb.Record)) *lab {
	t.Helper()
	topo := estate(1, false, "dc-a", "dc-b", "dc-c")
	r := recordOf(topo, "app", steeringpb.Policy_FAILOVER, quick())
	if change != nil {
		change(r)
	}
	l := newLab(t, topo, r)
	for _, address := range []string{aTarget, bTarget, cTarget} {
		l.all("dc-a-1 dc-b-1 dc-c-1", address, "u")
	}
	l.pass(10 * time.Second)
	return l
}

// fall has the target of dc-a be down for a moment, seen by all.
func (l *lab) fall() {
	l.t.Helper()
	l.all(all3, aTarget, "dd")
	l.pass(2 * time.Second)
	l.all(all3, aTarget, "uu")
}

const all3 = "dc-a-1 dc-b-1 dc-c-1"

func TestLatches(t *testing.T) {
	byHand := func(r *steeringpb.Record) { r.FailoverManual, r.FailbackManual = true, true }
	delayed := func(r *steeringpb.Record) { r.FailbackDelay = 60_000 }
	nearest := func(r *steeringpb.Record) { r.Policy = steeringpb.Policy_NEAREST; r.FailbackManual = true }
	tests := map[string]struct {
		record func(*steeringpb.Record)
		do     func(l *lab)
	}{
		"a pool that is down is left, and comes in when it was up for the delay": {delayed, func(l *lab) {
			l.all(all3, aTarget, "dd")
			l.want("test/app", "D! U U")
			l.all(all3, aTarget, "uu")
			l.want("test/app", "U! U U")
			if at := l.view("dc-b-1", "test/app").Pools[0].ReturnAt; !at.Equal(l.now.Add(time.Minute)) {
				l.t.Errorf("returns at %v", at.Sub(l.now))
			}
			l.pass(59 * time.Second)
			l.want("test/app", "U! U U")
			l.pass(time.Second)
			l.want("test/app", "U U U")
		}},
		"falling again starts the delay over": {delayed, func(l *lab) {
			l.fall()
			l.pass(30 * time.Second)
			l.fall()
			l.pass(59 * time.Second)
			l.want("test/app", "U! U U")
			l.pass(2 * time.Second)
			l.want("test/app", "U U U")
		}},
		"a pool behind the one in use is not left": {byHand, func(l *lab) {
			l.all(all3, bTarget, "dd")
			l.want("test/app", "U D U")
		}},
		"but it is when the one before it is left, too": {delayed, func(l *lab) {
			l.all(all3, bTarget, "dd")
			l.all(all3, aTarget, "dd")
			l.want("test/app", "D! D! U")
			l.all(all3, bTarget, "uu")
			l.want("test/app", "D! U! U") // b does not take over at once
			l.pass(61 * time.Second)
			l.want("test/app", "D! U U")
		}},
		"behind a pool that came back it comes in at once": {delayed, func(l *lab) {
			l.all(all3, aTarget+"", "dd")
			l.all(all3, bTarget, "dd")
			l.pass(2 * time.Second)
			l.all(all3, aTarget, "uu")
			l.pass(61 * time.Second)
			l.want("test/app", "U D! U")
			l.all(all3, bTarget, "uu")
			l.want("test/app", "U U U")
		}},
		"with other policies every pool is somebody's": {nearest, func(l *lab) {
			l.all(all3, bTarget, "dd")
			l.want("test/app", "U D! U")
			l.all(all3, bTarget, "uu")
			l.pass(time.Hour)
			l.want("test/app", "U U! U")
			if e := (health.Event{Kind: health.FailbackAwaited, Record: "test/app", Pool: "b"}); !slices.Contains(l.events["dc-c-1"], e) {
				l.t.Errorf("events are %v", l.events["dc-c-1"])
			}
		}},
		"when all are down nothing is left": {nearest, func(l *lab) {
			l.all(all3, aTarget, "dd")
			l.all(all3, bTarget, "dd")
			l.all(all3, cTarget, "dd")
			l.want("test/app", "D D D")
		}},
		"what was left comes in at once if it is all there is": {nearest, func(l *lab) {
			l.fall()
			l.all(all3, bTarget, "dd")
			l.all(all3, cTarget, "dd")
			l.pass(time.Second)
			l.want("test/app", "U D! D!")
		}},
		"with failover by hand a pool that is down waits for a person": {byHand, func(l *lab) {
			l.all(all3, aTarget, "dd")
			l.want("test/app", "D? U U")
			if e := (health.Event{Kind: health.FailoverAwaited, Record: "test/app", Pool: "a"}); !slices.Contains(l.events["dc-c-1"], e) {
				l.t.Errorf("events are %v", l.events["dc-c-1"])
			}
			l.all(all3, aTarget, "uu")
			l.want("test/app", "U U U")
		}},
		"a person who forces another pool has decided": {byHand, func(l *lab) {
			l.all(all3, aTarget, "dd")
			l.controls(health.Controls{Forced: []int{1}})
			l.want("test/app", "D! U U")
			l.controls(health.Controls{})
			l.all(all3, aTarget, "uu")
			l.pass(time.Hour)
			l.want("test/app", "U! U U")
			l.controls(health.Controls{Failback: true})
			l.pass(time.Second)
			l.want("test/app", "U U U")
		}},
		"a person who forces the pool that is down has not": {byHand, func(l *lab) {
			l.all(all3, aTarget, "dd")
			l.controls(health.Controls{Forced: []int{0}})
			l.want("test/app", "D? U U")
		}},
		"forcing a pool while all is well leaves nothing behind": {byHand, func(l *lab) {
			l.controls(health.Controls{Forced: []int{1}})
			l.controls(health.Controls{})
			l.want("test/app", "U U U")
		}},
		"failing back waits until the pool is up": {byHand, func(l *lab) {
			l.all(all3, aTarget, "dd")
			l.controls(health.Controls{Forced: []int{1}})
			l.controls(health.Controls{Failback: true})
			l.want("test/app", "D! U U")
			l.all(all3, aTarget, "uu")
			l.pass(time.Second)
			l.want("test/app", "U U U")
		}},
		"failing back spares the delay": {delayed, func(l *lab) {
			l.fall()
			l.want("test/app", "U! U U")
			l.controls(health.Controls{Failback: true})
			l.pass(time.Second)
			l.want("test/app", "U U U")
		}},
		"a freeze freezes latches, too": {delayed, func(l *lab) {
			l.controls(health.Controls{Frozen: true})
			l.all(all3, aTarget, "dd")
			l.want("test/app", "D U U")
			l.controls(health.Controls{})
			l.want("test/app", "D! U U")
			l.controls(health.Controls{Frozen: true})
			l.all(all3, aTarget, "uu")
			l.pass(time.Hour)
			l.want("test/app", "U! U U")
		}},
		"a drained pool is not left": {nearest, func(l *lab) {
			l.controls(health.Controls{Drained: []int{0}})
			l.all(all3, aTarget, "dd")
			l.want("test/app", "D U U")
			l.all(all3, aTarget, "uu")
			l.controls(health.Controls{})
			l.want("test/app", "U U U")
		}},
		"there is no failover to drained pools": {nearest, func(l *lab) {
			l.controls(health.Controls{Drained: []int{1, 2}})
			l.all(all3, aTarget, "dd")
			l.want("test/app", "D U U")
			l.controls(health.Controls{Drained: []int{1}})
			l.want("test/app", "D! U U")
		}},
		"a record without a second pool has none to leave": {func(r *steeringpb.Record) { r.Pools = r.Pools[:1] }, func(*lab) {}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if name == "a record without a second pool has none to leave" {
				topo := estate(1, false, "dc-a")
				l := newLab(t, topo, recordOf(topo, "app", steeringpb.Policy_FAILOVER, quick()))
				l.see("dc-a-1", aTarget, "udd")
				l.want("test/app", "D")
				return
			}
			test.do(app(t, test.record))
		})
	}
}

func TestServersWithDifferentHistoriesConverge(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			l := app(t, func(r *steeringpb.Record) {
				r.HoldOnPeerLoss = seed%2 == 0
				r.Policy = either(seed%3 == 0, steeringpb.Policy_FAILOVER, steeringpb.Policy_NEAREST)
				r.FailbackDelay = 5000
			})
			for range 30 {
				for name := range l.each() {
					l.apart[name] = rng.IntN(2) == 0
				}
				for name := range l.each() {
					if !l.apart[name] {
						for other := range l.each() {
							if other != name && !l.apart[other] {
								l.m[name].Connected(l.now, l.ids[other])
							}
						}
					}
					l.see(name, []string{aTarget, bTarget, cTarget}[rng.IntN(3)], either(rng.IntN(2) == 0, "dd", "uuuuuuuu"))
				}
				l.pass(time.Duration(rng.IntN(12)) * time.Second)
			}
			clear(l.apart)
			for name := range l.each() {
				for other := range l.each() {
					if other != name {
						l.m[name].Connected(l.now, l.ids[other])
					}
				}
			}
			l.pass(10 * time.Second)
			digests := map[uint64]bool{}
			for name := range l.each() {
				h := heartbeatOf(t, l.m[name], health.ServerID{Name: "x"}, l.now)
				digests[h.LatchDigest] = true
			}
			if len(digests) != 1 {
				t.Errorf("%d different sets of latches", len(digests))
			}
			for _, address := range []string{aTarget, bTarget, cTarget} {
				l.all(all3, address, "uuuuuuuu")
			}
			l.pass(10 * time.Second)
			l.want("test/app", "U U U")
		})
	}
}

func TestThoseWhoDisagreeDoNotQuarrel(t *testing.T) {
	// After a split dc-a sees its own target up and the other down, dc-b the reverse, and the votes are tied for ever.
	topo := estate(1, false, "dc-a", "dc-b")
	l := newLab(t, topo, recordOf(topo, "app", steeringpb.Policy_NEAREST, quick()))
	l.all("dc-a-1 dc-b-1", aTarget, "u")
	l.all("dc-a-1 dc-b-1", bTarget, "u")
	l.apart["dc-a-1"] = true
	l.pass(6 * time.Second)
	l.see("dc-a-1", bTarget, "dd")
	l.see("dc-b-1", aTarget, "dd")
	l.want("test/app", "U D!", "dc-a-1")
	l.want("test/app", "D! U", "dc-b-1")
	clear(l.apart)
	l.pass(5 * time.Second)
	for round := range 3 {
		sent := l.sent["dc-a-1"] + l.sent["dc-b-1"]
		l.pass(time.Minute)
		l.want("test/app", "U D!", "dc-a-1")
		l.want("test/app", "D! U", "dc-b-1")
		if more := l.sent["dc-a-1"] + l.sent["dc-b-1"] - sent; more > 0 {
			t.Errorf("%d messages in a minute of disagreement", more)
		}
		switch round {
		case 0:
			l.controls(health.Controls{Failback: true})
		case 1:
			l.controls(health.Controls{})
			l.m["dc-a-1"].SetRecord(l.now, l.records[0])
		}
	}
}

func TestAPersonMayFailOverWhatIsHeld(t *testing.T) {
	l := two(t, false, func(r *steeringpb.Record) {
		r.Policy, r.HoldOnPeerLoss, r.FailbackDelay = steeringpb.Policy_FAILOVER, true, 10_000
	})
	l.apart["dc-a-1"], l.apart["dc-a-2"] = true, true
	l.pass(6 * time.Second)
	l.all("dc-b-1 dc-b-2", aTarget, "ss")
	l.want("test/app", "U U", "dc-b-1", "dc-b-2")
	v := l.view("dc-b-1", "test/app")
	if !v.Held || !v.Pools[0].Targets[0].Held {
		t.Errorf("held %v, target %v", v.Held, v.Pools[0].Targets[0].Held)
	}
	if e := (health.Event{Kind: health.Held, Record: "test/app", Pool: "a"}); !slices.Contains(l.events["dc-b-1"], e) {
		t.Errorf("events are %v", l.events["dc-b-1"])
	}
	l.controls(health.Controls{Forced: []int{1}})
	l.controls(health.Controls{})
	l.want("test/app", "U! U", "dc-b-1", "dc-b-2")
	l.pass(time.Minute)
	l.want("test/app", "U! U", "dc-b-1", "dc-b-2") // it is not up for those who can't see it
	clear(l.apart)
	l.all("dc-b-1 dc-b-2", aTarget, "uu")
	l.pass(5 * time.Second)
	l.want("test/app", "U! U")
	l.pass(10 * time.Second)
	l.want("test/app", "U U")
}

func TestOldMessagesDecideNothing(t *testing.T) {
	l := app(t, func(r *steeringpb.Record) { r.FailbackManual = true })
	stale := heartbeatOf(t, l.m["dc-b-1"], l.ids["dc-a-1"], l.now)
	sleeping := l.m["dc-a-1"]
	l.kill("dc-a-1")
	l.pass(10 * time.Second)
	l.all("dc-b-1 dc-c-1", aTarget, "dd")
	l.want("test/app", "D! U U", "dc-b-1", "dc-c-1")
	// dc-a-1 wakes, and first reads what waited for it.
	sleeping.Receive(l.now, l.ids["dc-b-1"], health.Message{Heartbeat: stale})
	sleeping.SetControls(l.now, "test/app", health.Controls{Failback: true})
	for _, e := range sleeping.Step(l.now).Send {
		if e.Message.Latches != nil && len(e.Message.Latches.Latches) > 0 {
			t.Errorf("it decided: %v", e.Message.Latches)
		}
	}
	l.m["dc-a-1"] = sleeping
	l.pass(3 * time.Second)
	l.want("test/app", "D! U U")
}
