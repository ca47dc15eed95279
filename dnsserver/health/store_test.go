package health_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestAServerGoesOnFromItsDisk(t *testing.T) {
	l := two(t, false, func(r *steeringpb.Record) { r.FailbackManual, r.HoldOnPeerLoss = true, true })
	l.all(everywhere, bTarget, "dd")
	l.want("test/app", "U D!")
	l.all(everywhere, bTarget, "uu")
	l.want("test/app", "U U!")
	l.all(everywhere, aTarget, "d") // half way
	l.pass(time.Minute)
	for _, name := range []string{"dc-b-1", "dc-b-2"} {
		l.kill(name)
	}
	l.apart["dc-a-1"], l.apart["dc-a-2"] = true, true
	l.pass(2 * time.Minute)
	l.start("dc-b-1") // nobody else is there
	l.want("test/app", "U U!", "dc-b-1")
	if l.m["dc-b-1"].Answering() {
		t.Error("answers before it has asked others")
	}
	l.pass(2 * time.Second)
	if !l.m["dc-b-1"].Answering() {
		t.Error("does not answer after 2 s")
	}
	l.see("dc-b-1", aTarget, "s") // thresholds go on from up
	l.want("test/app", "U U!", "dc-b-1")
}

func TestVerdictsOfOldDisksAreForgottenAndLatchesAreNot(t *testing.T) {
	for _, away := range []time.Duration{9 * time.Minute, 11 * time.Minute} {
		l := two(t, false, func(r *steeringpb.Record) { r.FailbackManual = true })
		l.all(everywhere, bTarget, "dd")
		l.want("test/app", "U D!")
		l.kill("dc-a-1")
		l.apart["dc-a-1"] = true
		l.now = l.now.Add(away)
		l.start("dc-a-1")
		l.want("test/app", either(away < 10*time.Minute, "U D!", "- -!"), "dc-a-1")
	}
}

func TestDamagedEntriesAreLeftOut(t *testing.T) {
	l := two(t, false, func(r *steeringpb.Record) { r.FailbackManual = true })
	l.all(everywhere, bTarget, "dd")
	l.want("test/app", "U D!")
	for k, v := range l.disk["dc-a-1"] {
		for cut := range len(v) {
			damaged := []health.Stored{{Key: []byte(k), Value: v[:cut]}}
			for other, good := range l.disk["dc-a-1"] {
				if other != k {
					damaged = append(damaged, health.Stored{Key: []byte(other), Value: good})
				}
			}
			m := health.New(l.ids["dc-a-1"], 9, l.now, damaged)
			m.SetTopology(l.now, l.topo)
			m.SetRecord(l.now, l.records[0])
			m.Step(l.now)
			if v, _ := m.View(l.now, "test/app"); k[0] == 'l' == v.Pools[1].Out {
				t.Fatalf("with %q cut to %d octets pool b is out: %v", k, cut, v.Pools[1].Out)
			}
		}
	}
}

func TestWhatNobodyClaimsIsDeleted(t *testing.T) {
	l := two(t, false, nil)
	l.kill("dc-a-1")
	l.records = nil
	l.start("dc-a-1")
	l.pass(11 * time.Minute)
	for k := range l.disk["dc-a-1"] {
		if k[0] == 'c' {
			t.Error("a check that nobody wants is on disk still")
		}
	}
}

func TestOldLatchesAreForgotten(t *testing.T) {
	l := two(t, false, nil)
	l.all(everywhere, bTarget, "dd")
	l.want("test/app", "U D!")
	l.all(everywhere, bTarget, "uu")
	l.pass(2 * time.Second)
	l.want("test/app", "U U")
	count := func() (n int) {
		for k := range l.disk["dc-a-1"] {
			n += either(k[0] == 'l', 1, 0)
		}
		return n
	}
	if count() == 0 {
		t.Fatal("no latch on disk")
	}
	l.now = l.now.Add(31 * 24 * time.Hour)
	l.pass(2 * time.Second)
	if n := count(); n != 0 {
		t.Errorf("%d latches on disk a month later", n)
	}
}

func FuzzRestore(f *testing.F) {
	var t testing.T
	l := two(&t, false, func(r *steeringpb.Record) { r.FailbackManual = true })
	l.all(everywhere, bTarget, "dd")
	l.want("test/app", "U D!")
	for k, v := range l.disk["dc-a-1"] {
		f.Add([]byte(k), v)
	}
	topo, record, now := l.topo, l.records[0], l.now
	f.Fuzz(func(t *testing.T, key, value []byte) {
		alive := health.Stored{Key: []byte("a"), Value: l.disk["dc-a-1"]["a"]}
		m := health.New(health.ServerID{Datacenter: "dc-a", Group: "dns", Name: "dc-a-1"}, 1, now, []health.Stored{alive, {Key: key, Value: value}})
		m.SetTopology(now, topo)
		m.SetRecord(now, record)
		m.Step(now)
		if _, ok := m.View(now, "test/app"); !ok {
			t.Error("no view")
		}
		// What it stores, it reads, and stores again the same.
		now := now.Add(time.Minute)
		first := m.Unsaved(now)
		again := health.New(health.ServerID{Datacenter: "dc-a", Group: "dns", Name: "dc-a-1"}, 1, now, first)
		again.SetTopology(now, topo)
		again.SetRecord(now, record)
		for _, c := range again.Step(now).Run {
			again.Result(now, c.ID, health.Result{})
		}
		_ = again.Unsaved(now)
		v1, _ := m.View(now, "test/app")
		v2, _ := again.View(now, "test/app")
		for i := range v1.Pools {
			if fmt.Sprint(v1.Pools[i].Out) != fmt.Sprint(v2.Pools[i].Out) && len(first) > 1 {
				t.Errorf("pool %d was out: %v, and is: %v", i, v1.Pools[i].Out, v2.Pools[i].Out)
			}
		}
	})
}

// FuzzMachine tells a machine anything in any order. It must not fail, and must come to what it would come to if it judged
// all anew.
func FuzzMachine(f *testing.F) {
	f.Add([]byte("abcdefghijklmnopqrstuvwxyz0123456789"))
	f.Add(bytes.Repeat([]byte{0, 3, 7, 11, 250, 9}, 40))
	topos := []*steeringpb.Topology{estate(2, true, "dc-a", "dc-b", "dc-w"), estate(1, false, "dc-a", "dc-b", "dc-c"), {}, estate(1, true, "dc-b")}
	var records []*steeringpb.Record
	for i, policy := range []steeringpb.Policy{steeringpb.Policy_FAILOVER, steeringpb.Policy_NEAREST, steeringpb.Policy_LATENCY} {
		for _, topo := range topos[:2] {
			r := recordOf(topo, fmt.Sprint(i), policy, quick())
			r.HoldOnPeerLoss, r.FailoverManual, r.FailbackDelay = i != 1, i == 2, uint64(i*1500)
			records = append(records, r)
		}
	}
	records = append(records, &steeringpb.Record{}, &steeringpb.Record{Source: "test/x", Pools: []*steeringpb.Pool{{}, {Targets: []*steeringpb.Target{{}}, Probes: []uint32{0, 9}, Gates: []uint32{0}}}, Probes: []*steeringpb.Probe{calculated(2, 0, 1, 5)}})
	f.Fuzz(func(t *testing.T, script []byte) {
		next := func(n int) int {
			if len(script) == 0 {
				return 0
			}
			b := script[0]
			script = script[1:]
			return int(b) % n
		}
		self := health.ServerID{Datacenter: "dc-a", Group: "dns", Name: "dc-a-1"}
		now := epoch
		m := health.New(self, 7, now, nil)
		topo := &steeringpb.Topology{}
		var run []health.Check
		peer := func() health.ServerID {
			dc := []string{"dc-a", "dc-b", "dc-c", "dc-x"}[next(4)]
			return health.ServerID{Datacenter: dc, Group: "dns", Name: dc + "-" + fmt.Sprint(1+next(2))}
		}
		ballot := func() health.Ballot {
			b := health.Ballot{Check: health.CheckID{byte(next(3))}, Vote: health.State(next(4)), Since: int64(next(256)), Datacenter: health.State(next(4)), Latency: uint32(next(3))}
			if len(run) > 0 && next(3) > 0 {
				b.Check = run[next(len(run))].ID
			}
			if next(2) == 0 {
				b.Verdicts = []health.Verdict{{Home: []string{"dc-a", "dc-b", ""}[next(3)], Hold: next(2) == 0, State: health.State(next(4)), Since: epoch.UnixMilli() + int64(next(256))}}
			}
			return b
		}
		for len(script) > 0 {
			now = now.Add(time.Duration(next(256)*next(40)) * time.Millisecond)
			switch next(12) {
			case 0:
				topo = topos[next(len(topos))]
				m.SetTopology(now, topo)
			case 1:
				m.SetRecord(now, records[next(len(records))])
			case 2:
				m.RemoveRecord(now, records[next(len(records))].GetSource())
			case 3:
				m.SetControls(now, records[next(len(records))].GetSource(), health.Controls{Frozen: next(2) == 0, Failback: next(2) == 0, Forced: []int{next(4)}, Drained: []int{next(4)}})
			case 4, 5:
				if len(run) > 0 {
					m.Result(now, run[next(len(run))].ID, health.Result{Outcome: health.State(next(4)), Silent: next(2) == 0, Took: time.Duration(next(256)) * time.Millisecond, Latency: time.Duration(next(256)) * time.Millisecond})
				}
			case 6:
				m.AnchorRound(now, []string{"dc-a", "dc-b", "dc-x"}[next(3)], next(2) == 0)
			case 7:
				m.Receive(now, peer(), health.Message{Heartbeat: &health.Heartbeat{Boot: uint64(next(3)), Began: int64(next(3)), Seq: uint64(next(3)), Digest: uint64(next(2)), Settled: next(2) == 0, Isolated: next(3) == 0, Sick: next(3) == 0, Anchors: []string{"dc-b"}}})
			case 8:
				m.Receive(now, peer(), health.Message{Ballots: &health.Ballots{Boot: uint64(next(3)), Seq: uint64(next(4)), Ballots: []health.Ballot{ballot(), ballot()}}})
			case 9:
				m.Receive(now, peer(), health.Message{Table: &health.Table{Boot: uint64(next(3)), Seq: uint64(next(4)), Parts: []uint8{uint8(next(256)), 0}, Ballots: []health.Ballot{ballot()}, Last: next(2) == 0}})
				m.Receive(now, peer(), health.Message{Latches: &health.Latches{Last: true, Nonce: uint64(6 + next(4)), Latches: []health.Latch{{LatchKey: health.LatchKey{Record: "test/" + fmt.Sprint(next(3)), Pool: []string{"a", "b", "z"}[next(3)], Scope: []string{"", "dc-a", "dc-b"}[next(3)]}, Out: next(2) == 0, At: now.UnixMilli() - int64(next(256)), By: "x"}}}})
			case 10:
				m.Receive(now, peer(), health.Message{Ask: &health.Ask{Digests: make([]uint64, next(2)*256)}})
				m.Connected(now, peer())
			default:
				m.Receive(now, peer(), health.Message{})
			}
			if next(3) == 0 {
				continue
			}
			out := m.Step(now)
			if !out.Wake.After(now) {
				t.Fatalf("asks to be called again at once, at %v", now.Sub(epoch))
			}
			run = append(slices.DeleteFunc(run, func(c health.Check) bool { return slices.Contains(out.Stop, c.ID) }), out.Run...)
			for _, s := range m.Unsaved(now) {
				if len(s.Key) == 0 {
					t.Fatal("stores without a key")
				}
			}
		}
		m.Step(now)
		view := func(r *steeringpb.Record) string {
			v, _ := m.View(now, r.GetSource())
			for _, p := range v.Pools {
				for i := range p.Targets {
					p.Targets[i].Latency = nil // told anew when there is an occasion, if it is time
				}
			}
			return fmt.Sprintf("%+v", v)
		}
		before := make([]string, len(records))
		for i, r := range records {
			before[i] = view(r)
		}
		m.SetTopology(now, topo) // everything is judged again
		m.Step(now)
		for i, r := range records {
			if now := view(r); now != before[i] {
				t.Errorf("%s\n%s, judged anew\n%s", r.GetSource(), before[i], now)
			}
		}
	})
}
