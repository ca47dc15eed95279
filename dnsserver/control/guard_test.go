package control

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// script is a hub made by hand: the test writes what it sends.
type script struct {
	controlpb.UnimplementedHubServer
	to   chan *controlpb.HubMessage
	from chan *controlpb.ServerMessage
}

func (s *script) Sync(stream controlpb.Hub_SyncServer) error {
	received := make(chan error, 1)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			select {
			case s.from <- m:
			case <-stream.Context().Done():
			}
		}
	}()
	for {
		select {
		case m := <-s.to:
			if err := stream.Send(m); err != nil {
				return err
			}
		case err := <-received:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func (w *world) serveScript(s *script) string {
	addr, _ := w.listen(w.ca.credentials(w.t, HubURI()), "127.0.0.1:0", func(g *grpc.Server) { controlpb.RegisterHubServer(g, s) })
	return addr
}

// scripted starts a hub made by hand and a server that it has welcomed.
func (w *world) scripted(r *memory, change ...func(*ClientOptions)) (*script, *server) {
	w.t.Helper()
	s := &script{to: make(chan *controlpb.HubMessage), from: make(chan *controlpb.ServerMessage, 100)}
	m := &manager{}
	m.addr = w.serveScript(s)
	client := w.server("one", r, []*manager{m}, change...)
	if s.recv(w.t).GetHello() == nil {
		w.t.Fatal("no Hello")
	}
	s.say(1, &controlpb.Welcome{Cluster: here})
	for !s.recv(w.t).GetHeld().GetLast() {
	}
	return s, client
}

func (s *script) recv(t *testing.T) *controlpb.ServerMessage {
	t.Helper()
	select {
	case m := <-s.from:
		return m
	case <-time.After(limit):
		t.Fatal("the server says nothing")
		return nil
	}
}

func hubMessage(epoch uint64, m any) *controlpb.HubMessage {
	out := &controlpb.HubMessage{Epoch: epoch}
	switch m := m.(type) {
	case *controlpb.Welcome:
		out.Message = &controlpb.HubMessage_Welcome{Welcome: m}
	case *controlpb.Begin:
		out.Message = &controlpb.HubMessage_Begin{Begin: m}
	case *controlpb.Chunk:
		out.Message = &controlpb.HubMessage_Chunk{Chunk: m}
	case *controlpb.Commit:
		out.Message = &controlpb.HubMessage_Commit{Commit: m}
	case *controlpb.Remove:
		out.Message = &controlpb.HubMessage_Remove{Remove: m}
	case *controlpb.Fetch:
		out.Message = &controlpb.HubMessage_Fetch{Fetch: m}
	case *controlpb.Synced:
		out.Message = &controlpb.HubMessage_Synced{Synced: m}
	}
	return out
}

func (s *script) say(epoch uint64, messages ...any) {
	for _, m := range messages {
		s.to <- hubMessage(epoch, m)
	}
}

// push sends a whole zone, or the change from base, in parts of size octets.
func (s *script) push(epoch, id uint64, z Zone, base *zone.Content, size int) {
	f := flight{id: id, apex: z.Content.Apex(), zone: z, base: base}
	nodes := wholeZone(z.Content)
	if base != nil {
		nodes = changes(base, z.Content)
	}
	s.say(epoch, f.beginMessage().GetBegin())
	for part := range chunks(nodes, size) {
		s.say(epoch, &controlpb.Chunk{Transfer: id, Nodes: part})
	}
	s.say(epoch, &controlpb.Commit{Transfer: id})
}

func TestTheServerAppliesTheGuardAgain(t *testing.T) {
	before := published(content("test", 10, nil), 10)
	same := content("test", 10, map[int]byte{3: 1})
	half := content("test", 5, nil)
	removal := zone.Removals(before.Content, half, nil)
	strict := zone.GuardPolicy{MinDeletes: 2, MaxDeletePercent: 30}
	tests := map[string]struct {
		cluster string // that the server has the zone from
		next    *zone.Content
		change  func(*Zone)
		passes  bool
	}{
		"a removal beyond the policy is held":                          {here, half, func(*Zone) {}, false},
		"a removal within the policy passes":                           {here, half, func(z *Zone) { z.Guard.MinDeletes = 5 }, true},
		"a changed record counts as removed, within the policy":        {here, same, func(*Zone) {}, true},
		"an approved removal passes":                                   {here, half, func(z *Zone) { z.ApprovedRemoval = removal.Digest }, true},
		"the approval of another removal does not count":               {here, half, func(z *Zone) { z.ApprovedRemoval = "0123456789abcdef" }, false},
		"a server older than the predecessor catches up":               {here, half, func(z *Zone) { z.Predecessor = 11 }, true},
		"a server at the predecessor is guarded":                       {here, half, func(z *Zone) { z.Predecessor = 10 }, false},
		"a server beyond the predecessor is guarded":                   {here, half, func(z *Zone) { z.Predecessor = 9 }, false},
		"a hub of another cluster is guarded whatever its chain":       {"cluster-0", half, func(z *Zone) { z.Predecessor = 11 }, false},
		"a hub of another cluster may remove within the policy":        {"cluster-0", same, func(*Zone) {}, true},
		"a hub of another cluster may remove what a person approved":   {"cluster-0", half, func(z *Zone) { z.ApprovedRemoval = removal.Digest }, true},
		"equal content under another version removes nothing":          {"cluster-0", before.Content, func(*Zone) {}, true},
		"emptying a zone is held, also as a catch-up of another hub's": {"cluster-0", content("test", 0, nil), func(z *Zone) { z.Predecessor = 11 }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.replica()
			r.put(before, test.cluster)
			next := published(test.next, 12)
			next.Guard = strict
			test.change(&next)
			hub := w.leading(next)
			s := w.server("one", r, []*manager{hub})
			w.await("it is synced", s.synced)
			report := hub.Zone(next.Content.Apex()).Servers[0]
			if test.passes {
				if !report.Current || report.Nack != nil || s.version(next.Content.Apex()) != next.Version {
					t.Errorf("reported as %+v", report)
				}
				return
			}
			if report.Current || report.Nack == nil || report.Nack.Reason != "GuardHeld" || s.version(next.Content.Apex()) != before.Version {
				t.Fatalf("reported as %+v", report)
			}
			want := zone.Removals(before.Content, test.next, nil)
			if got := report.Nack.Removal; got.Digest != want.Digest || got.Records != want.Records || got.Of != want.Of || !slices.Equal(got.Examples, want.Examples) {
				t.Errorf("removal is %+v, wanted %+v", got, want)
			}
			// The digest of the report is what approves it.
			next.ApprovedRemoval = report.Nack.Removal.Digest
			hub.Publish(next)
			w.await("the approved removal is there", func() bool { return s.version(next.Content.Apex()) == next.Version })
		})
	}
}

func TestWhatTheGuardHeldBackIsNoCatchUpLater(t *testing.T) {
	w := newWorld(t)
	before := published(content("test", 10, nil), 10)
	hub := w.leading(before)
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	next := published(content("test", 2, nil), 11)
	next.Guard, next.Predecessor = zone.GuardPolicy{MinDeletes: 2, MaxDeletePercent: 30}, 10
	apex := next.Content.Apex()
	nack := func() *Nack { return hub.Zone(apex).Servers[0].Nack }
	hub.Publish(next)
	w.await("it is held", func() bool { return nack() != nil })
	// The hub, which let it pass, goes on from there: the server is older now than what the
	// hub compares with.
	next.Predecessor = 11
	hub.Publish(next)
	w.await("it is held again", func() bool { return s.State().Nacks["GuardHeld"] == 2 })
	later := published(content("test", 1, nil), 12)
	later.Guard, later.Predecessor = next.Guard, 11
	hub.Publish(later)
	w.await("the next is held too", func() bool { return s.State().Nacks["GuardHeld"] == 3 && nack() != nil })
	later.ApprovedRemoval = nack().Removal.Digest
	hub.Publish(later)
	w.await("what is approved is there", func() bool { return s.version(apex) == later.Version })
	// From now on it follows as any other.
	last := published(content("test", 0, nil), 13)
	last.Guard, last.Predecessor = zone.GuardPolicy{}, 13
	hub.Publish(last)
	w.await("it follows", func() bool { return s.version(apex) == last.Version })
}

func TestZonesUnderARemovedDelegationCount(t *testing.T) {
	parent := func(children ...string) *zone.Content {
		nodes := []zone.Node{zone.NewNode(mustName("test"), zone.NewRRset(zone.TypeTXT, 60, []byte("\x01a")))}
		for _, c := range children {
			nodes = append(nodes, zone.NewNode(mustName(c), zone.NewRRset(zone.TypeNS, 60, []byte(mustName("ns.test")))))
		}
		c, err := zone.NewContent(mustName("test"), nodes)
		if err != nil {
			panic(err)
		}
		return c
	}
	w := newWorld(t)
	r := w.replica()
	child, below := published(content("big.test", 50, nil), 1), published(content("deep.big.test", 20, nil), 1)
	for _, z := range []Zone{published(parent("big.test", "small.test"), 1), child, below, published(content("small.test", 1, nil), 1)} {
		r.put(z, here)
	}
	hub := w.hub()
	hub.Lead(1)
	without := published(parent("small.test"), 2)
	without.Guard = zone.GuardPolicy{MinDeletes: 10, MaxDeletePercent: 30}
	hub.Publish(without)
	for _, apex := range []string{"big.test", "deep.big.test", "small.test"} {
		hub.Retain(mustName(apex))
	}
	hub.SetComplete()
	s := w.server("one", r, []*manager{hub})
	w.await("it is synced", s.synced)
	nack := hub.Zone(mustName("test")).Servers[0].Nack
	if nack == nil || nack.Removal == nil {
		t.Fatalf("nack is %+v", nack)
	}
	if want := 1 + 51 + 21; nack.Removal.Records != want || nack.Removal.Of != 3+51+21 {
		t.Errorf("%d of %d records, wanted %d of %d", nack.Removal.Records, nack.Removal.Of, want, 3+51+21)
	}
}

func TestContentThatIsNotWhatItsVersionSaysIsRefused(t *testing.T) {
	z := published(content("test", 5, nil), 2)
	old := published(content("test", 4, nil), 1)
	tests := map[string]struct {
		send   func(s *script)
		reason controlpb.Nack_Reason
	}{
		"a whole zone with a wrong digest": {func(s *script) {
			wrong := z
			wrong.Version.Digest[0]++
			s.push(1, 1, wrong, nil, chunkSize)
		}, controlpb.Nack_DIGEST_MISMATCH},
		"a change with a wrong digest": {func(s *script) {
			wrong := z
			wrong.Version.Digest[0]++
			s.push(1, 1, wrong, old.Content, chunkSize)
		}, controlpb.Nack_DIGEST_MISMATCH},
		"a whole zone with a part missing": {func(s *script) {
			f := flight{id: 1, apex: z.Content.Apex(), zone: z}
			s.say(1, f.beginMessage().GetBegin(), &controlpb.Commit{Transfer: 1})
		}, controlpb.Nack_DIGEST_MISMATCH},
		"a change of content that is not here": {func(s *script) {
			s.push(1, 1, z, content("test", 3, nil), chunkSize)
		}, controlpb.Nack_BASE_MISSING},
		"a node that is no node": {func(s *script) {
			f := flight{id: 1, apex: z.Content.Apex(), zone: z}
			s.say(1, f.beginMessage().GetBegin(), &controlpb.Chunk{Transfer: 1, Nodes: []byte{2, 9, 9}}, &controlpb.Commit{Transfer: 1})
		}, controlpb.Nack_MALFORMED},
		"half a node": {func(s *script) {
			f := flight{id: 1, apex: z.Content.Apex(), zone: z}
			s.say(1, f.beginMessage().GetBegin(), &controlpb.Chunk{Transfer: 1, Nodes: []byte{99, 1}}, &controlpb.Commit{Transfer: 1})
		}, controlpb.Nack_MALFORMED},
		"a node of another zone": {func(s *script) {
			f := flight{id: 1, apex: z.Content.Apex(), zone: z}
			s.say(1, f.beginMessage().GetBegin())
			for part := range chunks(wholeZone(content("other", 1, nil)), chunkSize) {
				s.say(1, &controlpb.Chunk{Transfer: 1, Nodes: part})
			}
			s.say(1, &controlpb.Commit{Transfer: 1})
		}, controlpb.Nack_MALFORMED},
		"a resource that this version does not know": {func(s *script) {
			s.say(1, &controlpb.Begin{Transfer: 1}, &controlpb.Chunk{Transfer: 1, Nodes: []byte{1}}, &controlpb.Commit{Transfer: 1})
		}, controlpb.Nack_MALFORMED},
		"a zone beyond the limit": {func(s *script) {
			s.push(1, 1, published(content("test", 1000, nil), 2), nil, 100)
		}, controlpb.Nack_TOO_LARGE},
		"a node beyond the limit, announced only": {func(s *script) {
			f := flight{id: 1, apex: z.Content.Apex(), zone: z}
			s.say(1, f.beginMessage().GetBegin(), &controlpb.Chunk{Transfer: 1, Nodes: []byte{0xff, 0xff, 0xff, 0x7f, 1}}, &controlpb.Commit{Transfer: 1})
		}, controlpb.Nack_TOO_LARGE},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.replica()
			r.put(old, here)
			s, server := w.scripted(r, func(o *ClientOptions) { o.MaxZoneBytes = 20000 })
			test.send(s)
			if nack := s.recv(t).GetNack(); nack.GetReason() != test.reason || nack.GetTransfer() != 1 {
				t.Errorf("answered by %v", nack)
			}
			if got := server.version(old.Content.Apex()); got != old.Version {
				t.Errorf("the server has %v", got)
			}
			// It was not held against the zone or the stream.
			s.push(1, 2, z, old.Content, 7)
			if ack := s.recv(t).GetAck(); ack.GetTransfer() != 2 {
				t.Errorf("then answered by %v", ack)
			}
			if got := server.version(old.Content.Apex()); got != z.Version {
				t.Errorf("then the server has %v", got)
			}
			if n := server.State().Nacks[reasons[test.reason]]; n != 1 {
				t.Errorf("counted refusals are %v", server.State().Nacks)
			}
		})
	}
}

func TestAHubThatBreaksTheProtocolIsLeft(t *testing.T) {
	z := published(content("test", 1, nil), 1)
	begin := func(id uint64) *controlpb.Begin {
		f := flight{id: id, apex: z.Content.Apex(), zone: z}
		return f.beginMessage().GetBegin()
	}
	tests := map[string]struct {
		say  []any
		text string
	}{
		"a transfer without number":        {[]any{begin(0)}, "transfer 0"},
		"a transfer begun twice":           {[]any{begin(1), begin(1)}, "begins twice"},
		"two transfers of one zone":        {[]any{begin(1), begin(2)}, "before the last change"},
		"a chunk of nothing":               {[]any{&controlpb.Chunk{Transfer: 1}}, "not open"},
		"a commit of nothing":              {[]any{&controlpb.Commit{Transfer: 1}}, "not open"},
		"too many open transfers":          {[]any{&controlpb.Begin{Transfer: 1}, &controlpb.Begin{Transfer: 2}, &controlpb.Begin{Transfer: 3}, &controlpb.Begin{Transfer: 4}, &controlpb.Begin{Transfer: 5}}, "more than 4"},
		"another cluster in mid-stream":    {[]any{&controlpb.Welcome{Cluster: "cluster-2"}}, "cluster"},
		"removals mixed up":                {[]any{&controlpb.Remove{Transfer: 1}, &controlpb.Remove{Transfer: 2}}, "before removal 1"},
		"a removal of no zone":             {[]any{&controlpb.Remove{Transfer: 1, Apexes: [][]byte{{9}}}}, "removal"},
		"a removal of a zone under change": {[]any{begin(1), &controlpb.Remove{Transfer: 2, Last: true, Apexes: [][]byte{[]byte(z.Content.Apex())}}}, "not answered"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, server := w.scripted(w.replica())
			s.say(1, test.say...)
			w.await("the stream has ended", func() bool {
				st := server.State()
				return st.Hub == "" && strings.Contains(st.LastError, "broke the protocol") && strings.Contains(st.LastError, test.text)
			})
		})
	}
}

func TestAMessageOfAnOldEpochInAStreamIsRefused(t *testing.T) {
	w := newWorld(t)
	s, server := w.scripted(w.replica())
	z := published(content("test", 1, nil), 1)
	s.push(5, 1, z, nil, chunkSize)
	if s.recv(t).GetAck() == nil {
		t.Fatal("no ack")
	}
	next := published(content("test", 2, nil), 2)
	s.push(4, 2, next, z.Content, chunkSize)
	if nack := s.recv(t).GetNack(); nack.GetReason() != controlpb.Nack_STALE_EPOCH || nack.GetEpoch() != 5 {
		t.Errorf("answered by %v", nack)
	}
	// The hub does not end the stream, so the server does.
	w.await("the stream has ended", func() bool { return server.State().Hub == "" })
	if server.version(z.Content.Apex()) != z.Version {
		t.Error("the old epoch's change was applied")
	}
}

func TestSeveralInstallsAreUnderWayAtOnce(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	all := make(chan struct{})
	arrived := make(chan struct{}, 8)
	r.before = func(Installed) {
		arrived <- struct{}{}
		<-all
	}
	s := w.server("one", r, []*manager{w.leading(manyZones(8)...)})
	for range 8 { // a store can write them together
		select {
		case <-arrived:
		case <-time.After(limit):
			t.Fatal("installs wait for each other")
		}
	}
	close(all)
	w.await("it is synced", s.synced)
}

func TestTheEndOfAStreamWaitsForInstallsUnderWay(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	arrived, goOn := make(chan struct{}, 1), make(chan struct{})
	r.before = func(Installed) {
		select {
		case arrived <- struct{}{}:
			<-goOn
		default:
		}
	}
	z := published(content("test", 1, nil), 1)
	first, second := w.leading(z), w.hub()
	s := w.server("one", r, []*manager{first, second})
	<-arrived
	first.Resign()
	second.Lead(2)
	second.Publish(z)
	second.SetComplete()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := s.Raise(ctx, Fence{2, here}); err != nil { // the install must not slip past a newer epoch
		t.Fatal(err)
	}
	close(goOn)
	w.await("it is synced by the second", func() bool { return s.synced() && s.State().Hub == second.addr })
	if got, _ := s.Zone(z.Content.Apex()); got.Version != z.Version {
		t.Errorf("the server has %v", got.Version)
	}
	if installs, _ := r.counts(); installs != 1 || second.traffic.of("Begin") != 1 {
		t.Errorf("%d installs, %d transfers of the second", installs, second.traffic.of("Begin"))
	}
}
