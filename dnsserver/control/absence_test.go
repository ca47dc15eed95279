package control

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func TestRuleOnAbsence(t *testing.T) {
	limit := AbsenceLimit{Zones: 3, Percent: 50}
	some := func(count int, change ...func(int, *absentZone)) []absentZone {
		var all []absentZone
		for i := range count {
			z := absentZone{apex: mustName(fmt.Sprintf("z%d.test", i))}
			for _, f := range change {
				f(i, &z)
			}
			all = append(all, z)
		}
		return all
	}
	foreign := func(from int) func(int, *absentZone) {
		return func(i int, z *absentZone) { z.foreign = i >= from }
	}
	withheld := func(from int) func(int, *absentZone) {
		return func(i int, z *absentZone) { z.withheld = i >= from }
	}
	tests := map[string]struct {
		absent        []absentZone
		holds, recent int
		removed, held int
	}{
		"nothing is absent":                                           {nil, 10, 0, 0, 0},
		"few zones go, though they are all":                           {some(3), 3, 0, 3, 0},
		"many zones go if they are a small part":                      {some(50), 100, 0, 50, 0},
		"many zones that are a large part are held":                   {some(51), 100, 0, 0, 51},
		"what went just before counts, against what there was before": {some(1), 3, 3, 0, 1},
		"what went just before counts, and is a small part":           {some(1), 100, 3, 1, 0},
		"zones of another cluster are held, be they few":              {some(2, foreign(1)), 100, 0, 1, 1},
		"zones of another cluster count":                              {some(4, foreign(1)), 5, 0, 0, 4},
		"what was held back stays held":                               {some(2, withheld(1)), 100, 0, 1, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := ruleOnAbsence(test.absent, test.holds, test.recent, limit, func(string) bool { return false })
			if len(r.remove) != test.removed || len(r.held) != test.held || (r.digest != "") != (test.held > 0) || r.approved {
				t.Errorf("ruling is %+v", r)
			}
			if !slices.IsSortedFunc(r.held, zone.Name.Compare) {
				t.Error("not in order")
			}
			slices.Reverse(test.absent)
			again := ruleOnAbsence(test.absent, test.holds, test.recent, limit, func(d string) bool { return d == r.digest })
			if again.digest != r.digest || again.approved != (test.held > 0) {
				t.Errorf("approved ruling is %+v", again)
			}
		})
	}
}

func TestRemovalsCountForTenMinutes(t *testing.T) {
	var r removals
	start := time.Unix(1000, 0)
	for i := range 1000 {
		r.add(start.Add(time.Duration(i)*100*time.Millisecond), 1)
	}
	if len(r.steps) > 101 {
		t.Errorf("%d steps", len(r.steps))
	}
	for _, test := range []struct {
		after time.Duration
		want  int
	}{{100 * time.Second, 1000}, {absenceWindow - 1, 1000}, {absenceWindow, 990}, {absenceWindow + 50*time.Second, 490}, {absenceWindow + 100*time.Second, 0}} {
		if got := r.recent(start.Add(test.after)); got != test.want {
			t.Errorf("after %s %d count, wanted %d", test.after, got, test.want)
		}
	}
}

func TestAbsenceLimitDefaults(t *testing.T) {
	if got := (AbsenceLimit{}).orDefault(); got != (AbsenceLimit{10, 30}) {
		t.Errorf("default is %v", got)
	}
	if got := (AbsenceLimit{Zones: -1}).orDefault(); got != (AbsenceLimit{}) || !got.Exceeded(1, 100) {
		t.Errorf("negative numbers give %v", got)
	}
}

// holding is a replica that has the zones from a cluster.
func (w *world) holding(cluster string, zones ...Zone) *memory {
	r := w.replica()
	for _, z := range zones {
		r.put(z, cluster)
	}
	return r
}

func TestAWithdrawnZoneGoesOnceTheHubKnowsAll(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(5)
	hub := w.hub()
	hub.Lead(1)
	for _, z := range zones[:3] {
		hub.Publish(z)
	}
	hub.Retain(zones[3].Content.Apex())
	s := w.server("one", w.holding(here, zones...), []*manager{hub})
	w.await("it has joined", func() bool { return len(hub.Servers()) == 1 })
	hub.Withdraw(zones[0].Content.Apex())
	if hub.traffic.of("Remove") != 0 || len(s.Held()) != 5 {
		t.Fatal("zones went before the hub knew all")
	}
	hub.SetComplete()
	w.await("withdrawn and unknown zones are gone", func() bool { return len(s.Held()) == 3 })
	w.await("it is synced", s.synced)
	for i, want := range []bool{false, true, true, true, false} {
		if _, ok := s.Zone(zones[i].Content.Apex()); ok != want {
			t.Errorf("zone %d is there: %v", i, ok)
		}
		if got := len(hub.Held(zones[i].Content.Apex())) == 1; got != want {
			t.Errorf("the hub says that zone %d is there: %v", i, got)
		}
	}
	if st := s.State(); st.Removed != 2 {
		t.Errorf("%d removals counted", st.Removed)
	}
	hub.Publish(zones[0])
	w.await("it is back", func() bool { return s.version(zones[0].Content.Apex()) == zones[0].Version })
}

func TestAZoneThatMovesToOtherGroupsIsAbsent(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 1, nil), 1)
	hub := w.leading(z)
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	z.Groups = []GroupKey{{"dc-b", "authoritative"}}
	hub.Publish(z)
	w.await("it is gone", func() bool { return len(s.Held()) == 0 })
}

func TestAnEmptiedHubRemovesNothingUntilItIsApproved(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(40)
	hub := w.leading() // knows of no zone at all
	s := w.server("one", w.holding(here, zones...), []*manager{hub})
	w.await("the absence is reported", func() bool { return len(hub.Servers()) == 1 && hub.Servers()[0].Absence.Count > 0 })
	absence := hub.Servers()[0].Absence
	if absence.Count != 40 || len(absence.Examples) != zone.MaxRemovalExamples || absence.Examples[1] != zones[1].Content.Apex() || len(absence.Digest) != 16 {
		t.Fatalf("absence is %+v", absence)
	}
	hub.ApproveAbsence("dc-b", absence.Digest)
	hub.ApproveAbsence("dc-a", "0123456789abcdef")
	hub.Retain(zones[39].Content.Apex()) // one is known again: another digest
	w.await("the digest follows", func() bool { return hub.Servers()[0].Absence.Count == 39 })
	hub.ApproveAbsence("dc-a", absence.Digest)
	if hub.traffic.of("Remove") != 0 || len(s.Held()) != 40 {
		t.Fatal("zones went without approval")
	}
	hub.ApproveAbsence("dc-a", hub.Servers()[0].Absence.Digest)
	w.await("the approved ones are gone", func() bool { return len(s.Held()) == 1 })
	w.await("nothing is held back", func() bool { return hub.Servers()[0].Absence.Count == 0 })
}

func TestAnApprovalMayComeBeforeTheServer(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(40)
	var names []zone.Name
	for _, z := range zones {
		names = append(names, z.Content.Apex())
	}
	hub := w.leading()
	hub.ApproveAbsence("dc-a", namesDigest(names))
	s := w.server("one", w.holding(here, zones...), []*manager{hub})
	w.await("they are gone", func() bool { return hub.traffic.of("Remove") == 1 && len(s.Held()) == 0 })
}

func TestAStormOfSingleWithdrawalsIsHeldBack(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(30)
	hub := w.leading(zones...)
	r := w.replica()
	s := w.server("one", r, []*manager{hub})
	w.await("it is synced", s.synced)
	absent := func() int { return hub.Servers()[0].Absence.Count }
	for i := range 20 {
		hub.Withdraw(zones[i].Content.Apex())
		w.await("it is gone or held back", func() bool { return 30-len(hub.HeldZones())+absent() == i+1 })
		w.clock.advance(time.Second)
	}
	if gone := 30 - len(s.Held()); gone != 10 || absent() != 10 {
		t.Fatalf("%d are gone, %d held back", gone, absent())
	}
	// Neither a reconnect nor time lets them go.
	s.stop()
	w.await("it has left", func() bool { return len(hub.Servers()) == 0 })
	w.clock.advance(2 * absenceWindow)
	s = w.server("one", r, []*manager{hub})
	w.await("it is synced again", s.synced)
	if len(s.Held()) != 20 || absent() != 10 {
		t.Fatalf("%d are left, %d held back", len(s.Held()), absent())
	}
	// A zone that is wanted again is not held against it when it is withdrawn later.
	hub.Publish(zones[19])
	w.await("one less is held back", func() bool { return absent() == 9 })
	hub.ApproveAbsence("dc-a", hub.Servers()[0].Absence.Digest)
	w.await("the approved are gone", func() bool { return len(s.Held()) == 11 })
	hub.Withdraw(zones[19].Content.Apex())
	w.await("it goes", func() bool { return len(s.Held()) == 10 && absent() == 0 })
}

func TestAfterTheWindowSingleWithdrawalsGoAgain(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(30)
	hub := w.leading(zones...)
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	for i := range 20 {
		hub.Withdraw(zones[i].Content.Apex())
		w.await("it is gone, and the hub knows", func() bool { return len(s.Held()) == 29-i && len(hub.HeldZones()) == 29-i })
		w.clock.advance(absenceWindow / 9)
	}
}

func TestZonesOfAnotherClusterGoWithApprovalOnly(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(30)
	hub := w.leading(zones[1:]...)
	s := w.server("one", w.holding("cluster-0", zones...), []*manager{hub})
	w.await("it is held back", func() bool { return len(hub.Servers()) == 1 && hub.Servers()[0].Absence.Count == 1 })
	w.await("the others are the new cluster's", func() bool {
		return !slices.ContainsFunc(s.Held()[1:], func(h Held) bool { return h.Cluster != here })
	})
	hub.Withdraw(zones[5].Content.Apex()) // confirmed before: as any zone of ours
	w.await("it is gone", func() bool { return len(s.Held()) == 29 })
	if got := hub.Servers()[0].Absence; got.Count != 1 || got.Examples[0] != zones[0].Content.Apex() {
		t.Fatalf("absence is %+v", got)
	}
	hub.ApproveAbsence("dc-a", hub.Servers()[0].Absence.Digest)
	w.await("the approved one is gone", func() bool { return len(s.Held()) == 28 })
}

func TestTheServerHoldsAbsentZonesBackByItself(t *testing.T) {
	zones := manyZones(30)
	names := func(from, to int) (all [][]byte) {
		for _, z := range zones[from:to] {
			all = append(all, []byte(z.Content.Apex()))
		}
		return all
	}
	digest := func(from, to int) string {
		var all []zone.Name
		for _, z := range zones[from:to] {
			all = append(all, z.Content.Apex())
		}
		return namesDigest(all)
	}
	type step struct {
		remove *controlpb.Remove
		left   int // zones afterwards
		wait   time.Duration
	}
	tests := map[string]struct {
		cluster string
		steps   []step
	}{
		"too many at once": {here, []step{{&controlpb.Remove{Apexes: names(0, 11), Last: true}, 30, 0}}},
		"few at once":      {here, []step{{&controlpb.Remove{Apexes: names(0, 10), Last: true}, 20, 0}}},
		"few, and one more": {here, []step{
			{&controlpb.Remove{Apexes: names(0, 10), Last: true}, 20, time.Minute},
			{&controlpb.Remove{Apexes: names(10, 11), Last: true}, 20, absenceWindow},
			{&controlpb.Remove{Apexes: names(10, 11), Last: true}, 19, 0},
		}},
		"too many, in parts": {here, []step{
			{&controlpb.Remove{Apexes: names(0, 6)}, 30, 0},
			{&controlpb.Remove{Apexes: names(6, 12), Last: true}, 30, 0},
		}},
		"many that are approved": {here, []step{{&controlpb.Remove{Apexes: names(0, 20), Last: true, Approved: digest(0, 20)}, 10, 0}}},
		"approved ones do not count for the next": {here, []step{
			{&controlpb.Remove{Apexes: names(0, 20), Last: true, Approved: digest(0, 20)}, 10, 0},
			{&controlpb.Remove{Apexes: names(20, 30), Last: true}, 0, 0},
		}},
		"an approval of others":          {here, []step{{&controlpb.Remove{Apexes: names(0, 20), Last: true, Approved: digest(0, 19)}, 30, 0}}},
		"one of another cluster":         {"cluster-0", []step{{&controlpb.Remove{Apexes: names(0, 1), Last: true}, 30, 0}}},
		"approved of another cluster":    {"cluster-0", []step{{&controlpb.Remove{Apexes: names(0, 1), Last: true, Approved: digest(0, 1)}, 29, 0}}},
		"zones that are not here pass":   {here, []step{{&controlpb.Remove{Apexes: [][]byte{[]byte("\x01x\x00")}, Last: true}, 30, 0}}},
		"a zone that is named twice":     {here, []step{{&controlpb.Remove{Apexes: append(names(0, 10), names(0, 10)...), Last: true}, 20, 0}}},
		"nothing":                        {here, []step{{&controlpb.Remove{Last: true}, 30, 0}}},
		"nothing, with a false approval": {here, []step{{&controlpb.Remove{Last: true, Approved: "x"}, 30, 0}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, server := w.scripted(w.holding(test.cluster, zones...))
			for i, step := range test.steps {
				before := len(server.Held())
				step.remove.Transfer = 1
				if step.remove.GetLast() && i > 0 && test.steps[i-1].remove.GetLast() {
					step.remove.Transfer = uint64(i + 1)
				}
				s.say(1, step.remove)
				if !step.remove.GetLast() {
					continue
				}
				answer := s.recv(t)
				if n := len(server.Held()); n != step.left {
					t.Errorf("step %d: %d zones are left after %v, wanted %d", i, n, answer, step.left)
				}
				refused := answer.GetNack().GetReason() == controlpb.Nack_ABSENCE_HELD
				passes := before != step.left || name == "zones that are not here pass" || name == "nothing"
				if refused == passes {
					t.Errorf("step %d: answered by %v", i, answer)
				}
				w.clock.advance(step.wait)
			}
		})
	}
}

func TestWhatTheServerHeldBackIsReportedByTheHub(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(30)
	hub := w.leading(zones[5:]...)
	// This server is stricter than the hub.
	s := w.server("one", w.holding(here, zones...), []*manager{hub}, func(o *ClientOptions) { o.MaxAbsent = AbsenceLimit{Zones: 2, Percent: 1} })
	w.await("the hub knows", func() bool { return len(hub.Servers()) == 1 && hub.Servers()[0].Absence.Count == 5 })
	if len(s.Held()) != 30 || hub.traffic.of("Remove") != 1 {
		t.Errorf("%d zones, %d removals", len(s.Held()), hub.traffic.of("Remove"))
	}
	hub.ApproveAbsence("dc-a", hub.Servers()[0].Absence.Digest)
	w.await("they are gone", func() bool { return len(s.Held()) == 25 })
}

func TestAnApprovedRemovalThatIsRefusedIsNotRepeated(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 1, nil), 1)
	hub := w.leading()
	r := w.raw(hub, w.ca.credentials(t, group.URI()))
	hub.ApproveAbsence("dc-a", namesDigest([]zone.Name{z.Content.Apex()}))
	r.join("one", &controlpb.HeldZone{Apex: []byte(z.Content.Apex()), Version: versionMessage(z.Version), Cluster: "cluster-0"})
	m := r.recv().GetRemove()
	if m == nil || m.GetApproved() == "" {
		t.Fatalf("got %v", m)
	}
	r.send(&controlpb.Nack{Transfer: m.GetTransfer(), Reason: controlpb.Nack_ABSENCE_HELD})
	if m := r.recv(); m.GetSynced() == nil {
		t.Errorf("got %v", m)
	}
	if got := hub.Servers()[0].Absence.Count; got != 1 {
		t.Errorf("%d are held back", got)
	}
	r.send(&controlpb.Nack{Transfer: m.GetTransfer()})
	ends(t, r, codes.InvalidArgument, "not committed")
}
