package steering

import (
	"slices"
	"testing"
	"time"
)

func TestLedger(t *testing.T) {
	r, w := record(t, twoPools+"ttl 30"), threeDatacenters(t)
	compile := func(health, o string) *Result {
		return Compile(r, &Inputs{Now: now, World: w, Health: view(t, r, health), Overrides: overrides(t, o)})
	}
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	ask := func(res *Result, seconds int, client string) {
		s := serve(t, r, res.Steered)
		s.scratch.Now = at(seconds).Unix()
		s.ask(t, client)
	}
	var l Ledger
	all := compile("", "")
	l.Replace(now, all)
	if got := l.Settled(now); !got.IsZero() {
		t.Errorf("nothing was answered, and it is settled at %s", got)
	}
	ask(all, 10, "10.1.0.1")
	ask(all, 12, "10.2.0.1")
	ask(all, 15, "10.1.0.1")
	drained := compile("", "Drain dc-b")
	l.Replace(at(20), drained)
	if got, want := l.Settled(at(20)), at(12+1+30); !got.Equal(want) {
		t.Errorf("pool b was answered last at 12 s: settled at %s, wanted %s", got, want)
	}
	if got, ok := l.Released(at(20), []string{"10.2.9.9"}); !ok || !got.Equal(at(43)) {
		t.Errorf("released at %s, %v", got, ok)
	}
	if _, ok := l.Released(at(20), []string{"10.2.9.9", "10.1.9.9"}); ok {
		t.Error("a target is released that is answered")
	}
	if got := l.Settled(at(44)); !got.IsZero() {
		t.Errorf("still to be settled at %s", got)
	}
	// Back and forth: the last time counts.
	ask(drained, 40, "10.1.0.1")
	l.Replace(at(41), all)
	ask(all, 42, "10.2.0.1")
	l.Replace(at(43), drained)
	if got, want := l.Settled(at(43)), at(42+1+30); !got.Equal(want) {
		t.Errorf("settled at %s, wanted %s", got, want)
	}
	// A restart forgets when, not what.
	var again Ledger
	again.Begin(at(50), all.Memory, 30*time.Second)
	again.Replace(at(50), drained)
	if got, want := again.Settled(at(50)), at(80); !got.Equal(want) {
		t.Errorf("after a restart settled at %s, wanted %s", got, want)
	}
}

// TestARestartRemembersTheTTLsThatWereRaised: what was handed out while an override raised the TTL is held for as long.
func TestARestartRemembersTheTTLsThatWereRaised(t *testing.T) {
	r, w := record(t, twoPools+"ttl 30"), threeDatacenters(t)
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	compile := func(seconds int, o string, m Memory) *Result {
		return Compile(r, &Inputs{Now: at(seconds), World: w, Health: view(t, r, ""), Overrides: overrides(t, o), Memory: m})
	}
	plain := compile(0, "", Memory{})
	raised := compile(10, "RaiseTTL 300", plain.Memory)
	lowered := compile(20, "", raised.Memory)
	later := compile(330, "", lowered.Memory)
	for sentence, tc := range map[string]struct {
		memory  Memory
		restart int
		want    int
	}{
		"the record's own":                                 {plain.Memory, 5, 5 + 30},
		"one that is raised":                               {raised.Memory, 15, 15 + 300},
		"one that was raised until shortly before":         {lowered.Memory, 25, 20 + 300},
		"not one that was raised longer ago than it lasts": {later.Memory, 340, 340 + 30},
	} {
		drained := compile(tc.restart, "Drain dc-b", tc.memory)
		var l Ledger
		l.Begin(at(tc.restart), tc.memory, 30*time.Second)
		l.Replace(at(tc.restart), drained)
		if got := l.Settled(at(tc.restart)); !got.Equal(at(tc.want)) {
			t.Errorf("%s: settled at %s, wanted %s", sentence, got.Sub(now), at(tc.want).Sub(now))
		}
	}
}

func TestSafeAt(t *testing.T) {
	at := func(seconds int) time.Time { return now.Add(time.Duration(seconds) * time.Second) }
	for sentence, tc := range map[string]struct {
		servers []ServerAnswer
		want    int
		waiting []string
		certain bool
	}{
		"nobody holds anything":                            {[]ServerAnswer{{Name: "a"}, {Name: "b"}}, 0, nil, true},
		"the last of all counts":                           {[]ServerAnswer{{Name: "a", Settled: at(20)}, {Name: "b", Settled: at(30)}, {Name: "c"}}, 30, []string{"a", "b"}, true},
		"what is over does not":                            {[]ServerAnswer{{Name: "a", Settled: at(-20)}}, 0, nil, true},
		"one that is lost counts from its last contact":    {[]ServerAnswer{{Name: "a", Settled: at(20)}, {Name: "b", Contact: at(-5)}}, 55, []string{"a", "b"}, false},
		"if that was long ago, it is over but not certain": {[]ServerAnswer{{Name: "b", Contact: at(-100)}}, 0, nil, false},
	} {
		safe, waiting, certain := SafeAt(now, tc.servers, time.Minute)
		if !safe.Equal(at(tc.want)) || !slices.Equal(waiting, tc.waiting) || certain != tc.certain {
			t.Errorf("%s: %s, waiting for %v, certain %v", sentence, safe, waiting, certain)
		}
	}
}
