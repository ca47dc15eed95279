package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// raw is a server made by hand: the test reads and writes the messages.
type raw struct {
	t      *testing.T
	stream controlpb.Hub_SyncClient
	cancel context.CancelFunc
}

func (w *world) raw(hub *manager, c Credentials) *raw {
	w.t.Helper()
	conn, err := dial(hub.addr, HubTLS(c))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(func() {
		cancel()
		_ = conn.Close()
	})
	stream, err := controlpb.NewHubClient(conn).Sync(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return &raw{w.t, stream, cancel}
}

func (r *raw) send(m any) {
	r.t.Helper()
	out := &controlpb.ServerMessage{}
	switch m := m.(type) {
	case *controlpb.Hello:
		out.Message = &controlpb.ServerMessage_Hello{Hello: m}
	case *controlpb.Held:
		out.Message = &controlpb.ServerMessage_Held{Held: m}
	case *controlpb.Ack:
		out.Message = &controlpb.ServerMessage_Ack{Ack: m}
	case *controlpb.Nack:
		out.Message = &controlpb.ServerMessage_Nack{Nack: m}
	case *controlpb.FetchChunk:
		out.Message = &controlpb.ServerMessage_FetchChunk{FetchChunk: m}
	case *controlpb.Report:
		out.Message = &controlpb.ServerMessage_Report{Report: m}
	case *controlpb.FetchFailed:
		out.Message = &controlpb.ServerMessage_FetchFailed{FetchFailed: m}
	default:
		r.t.Fatalf("what is %T?", m)
	}
	_ = r.stream.Send(out) // recv has the error
}

func (r *raw) recv() *controlpb.HubMessage {
	r.t.Helper()
	m, err := r.stream.Recv()
	if err != nil {
		r.t.Fatalf("stream ended: %v", err)
	}
	return m
}

// join is welcomed and lists what it holds.
func (r *raw) join(name string, held ...*controlpb.HeldZone) {
	r.t.Helper()
	r.send(&controlpb.Hello{Protocol: ProtocolVersion, Name: name})
	if m := r.recv(); m.GetWelcome() == nil {
		r.t.Fatalf("got %v instead of Welcome", m)
	}
	r.send(&controlpb.Held{Zones: held, Last: true})
}

// transfer receives one transfer whole.
func (r *raw) transfer() (*controlpb.Begin, []byte) {
	r.t.Helper()
	var begin *controlpb.Begin
	var nodes []byte
	for {
		switch m := r.recv().GetMessage().(type) {
		case *controlpb.HubMessage_Begin:
			begin = m.Begin
		case *controlpb.HubMessage_Chunk:
			nodes = append(nodes, m.Chunk.GetNodes()...)
		case *controlpb.HubMessage_Commit:
			return begin, nodes
		case *controlpb.HubMessage_Synced:
		default:
			r.t.Fatalf("got %T in a transfer", m)
		}
	}
}

func ends(t *testing.T, r *raw, code codes.Code, text string) {
	t.Helper()
	for {
		_, err := r.stream.Recv()
		if err == nil {
			continue
		}
		if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), text) {
			t.Errorf("stream ended with %v, wanted %s: %q", err, code, text)
		}
		return
	}
}

func TestAZoneReachesEveryServerOfItsGroupAndIsReportedAsCurrent(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 5, nil), 7)
	hub := w.leading(z)
	one := w.server("one", w.replica(), []*manager{hub})
	two := w.server("two", w.replica(), []*manager{hub})
	w.await("both are synced", func() bool { return one.synced() && two.synced() })
	for _, s := range []*server{one, two} {
		got, ok := s.Zone(z.Content.Apex())
		if !ok || got.Version != z.Version || got.Source != z.Source || got.Cluster != here || got.Content.Digest() != z.Version.Digest {
			t.Errorf("%s has %+v", s.id, got)
		}
	}
	report := hub.Zone(z.Content.Apex())
	if report.Wanted != z.Version || len(report.Servers) != 2 || len(report.Ahead) != 0 {
		t.Fatalf("report is %+v", report)
	}
	for i, want := range []ServerID{one.id, two.id} {
		if got := report.Servers[i]; got != (ZoneServer{ID: want, Wanted: true, Held: z.Version, Current: true}) {
			t.Errorf("report of server %d is %+v", i, got)
		}
	}
	servers := hub.Servers()
	if len(servers) != 2 || servers[0].ID != one.id || servers[0].Software != "test" || servers[0].Wanted != 1 || servers[0].Current != 1 {
		t.Errorf("servers are %+v", servers)
	}
	one.stop()
	w.await("the hub has noticed that one left", func() bool { return len(hub.Servers()) == 1 })
}

func TestZonesOfOtherGroupsDoNotGoDownTheStream(t *testing.T) {
	w := newWorld(t)
	mine, others := published(content("mine.test", 1, nil), 1), published(content("others.test", 1, nil), 1)
	others.Groups = []GroupKey{{"dc-a", "root"}, {"dc-b", "authoritative"}}
	hub := w.leading(mine, others)
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	if held := s.Held(); len(held) != 1 || held[0].Apex != mine.Content.Apex() {
		t.Errorf("the server holds %v", held)
	}
	if n := hub.traffic.of("Begin"); n != 1 {
		t.Errorf("%d transfers, wanted 1", n)
	}
	if got := hub.Zone(others.Content.Apex()).Servers; len(got) != 0 {
		t.Errorf("the zone of others is reported at %v", got)
	}
}

func TestAReconnectWithoutChangesSendsNoZone(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(50)
	hub := w.leading(zones...)
	r := w.replica()
	first := w.server("one", r, []*manager{hub})
	w.await("it is synced", first.synced)
	first.stop()

	next := w.leading(zones...) // a new leader whose zones all match
	next.Lead(2)
	again := w.server("one", r, []*manager{next})
	w.await("it is synced", again.synced)
	if n := next.traffic.of("Begin"); n != 0 || next.Sent() != (Sent{}) {
		t.Errorf("%d transfers to a server that has everything: %+v", n, next.Sent())
	}
	if got := next.Servers()[0]; got.Wanted != 50 || got.Current != 50 {
		t.Errorf("server is reported as %+v", got)
	}
	if f := r.Fence(); f != (Fence{2, here}) {
		t.Errorf("the fence is %v", f)
	}
}

func TestAChangeOfOneRecordSendsThatOwnerOnly(t *testing.T) {
	w := newWorld(t)
	const hosts = 2000
	hub := w.leading(published(content("test", hosts, nil), 1))
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	whole := hub.traffic.octets()
	hub.traffic.reset()

	changed := published(content("test", hosts, map[int]byte{77: 1}), 2)
	hub.Publish(changed)
	w.await("the change is there", func() bool { return s.version(changed.Content.Apex()) == changed.Version })
	if n := hub.traffic.octets(); n > 400 || n*100 > whole {
		t.Errorf("%d octets for one record, %d for the whole zone", n, whole)
	}
	if hub.traffic.of("Begin") != 1 || hub.traffic.of("Chunk") != 1 || hub.traffic.of("Commit") != 1 {
		t.Errorf("messages: %v", hub.traffic.count)
	}
	w.await("the change is acked", func() bool { return hub.Zone(changed.Content.Apex()).Servers[0].Current })

	// A server that was away finds its old content still known.
	s.stop()
	hub.Publish(published(content("test", hosts, map[int]byte{77: 1, 78: 2}), 3))
	hub.traffic.reset()
	s = w.server("one", s.memory, []*manager{hub})
	w.await("it is synced again", s.synced)
	if n := hub.traffic.octets(); n > 400 {
		t.Errorf("%d octets to catch up by one record", n)
	}
}

func TestEqualContentUnderANewSerialSendsTheVersionOnly(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 2000, nil), 1)
	hub := w.leading(z)
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	installed, _ := s.Zone(z.Content.Apex())
	hub.traffic.reset()
	z.Version.Serial = 2
	hub.Publish(z)
	w.await("the serial is there", func() bool { return s.version(z.Content.Apex()).Serial == 2 })
	if hub.traffic.of("Chunk") != 0 || hub.traffic.of("Begin") != 1 {
		t.Errorf("messages: %v", hub.traffic.count)
	}
	if sent := hub.Sent(); sent.Whole != 1 || sent.Versions != 1 || sent.Changes != 0 || sent.Octets == 0 {
		t.Errorf("counted %+v", sent)
	}
	if now, _ := s.Zone(z.Content.Apex()); now.Content != installed.Content {
		t.Error("content that has not changed was replaced")
	}
}

func TestAHubOfAnotherClusterConfirmsZonesWithoutSendingThem(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 100, nil), 5)
	r := w.replica()
	r.put(z, "cluster-0")
	hub := w.leading(z)
	s := w.server("one", r, []*manager{hub})
	w.await("the zone is the new cluster's", func() bool { got, _ := s.Zone(z.Content.Apex()); return got.Cluster == here })
	if hub.traffic.of("Chunk") != 0 {
		t.Error("content was sent to a server that has it")
	}
}

func TestLargeZonesGoInChunksOfBoundedSize(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 40000, nil), 1)
	hub := w.leading(z)
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	if s.version(z.Content.Apex()) != z.Version {
		t.Error("the zone is not there")
	}
	if n := hub.traffic.of("Chunk"); n < 4 {
		t.Errorf("%d chunks", n)
	}
	if hub.traffic.most > chunkSize+1024 {
		t.Errorf("a message of %d octets", hub.traffic.most)
	}
}

func TestADeltaThatIsMoreThanTheZoneBecomesTheWholeZone(t *testing.T) {
	w := newWorld(t)
	hub := w.leading(published(content("test", 20000, nil), 1))
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	small := published(content("test", 10, map[int]byte{1: 1}), 2)
	small.Predecessor = 2
	hub.traffic.reset()
	hub.Publish(small)
	w.await("the small zone is there", func() bool { return s.version(small.Content.Apex()) == small.Version })
	if n := hub.traffic.octets(); n > 2000 {
		t.Errorf("%d octets for a zone of ten records", n)
	}
}

func TestOfManyVersionsAServerThatIsBusyGetsTheLatestOnly(t *testing.T) {
	w := newWorld(t)
	first := published(content("test", 10, nil), 1)
	hub := w.leading(first)
	r := w.raw(hub, w.ca.credentials(t, group.URI()))
	r.join("one")
	begin, _ := r.transfer()
	if begin.GetZone().GetVersion().GetSerial() != 1 {
		t.Fatalf("got %v", begin)
	}
	var last Zone
	for i := range 100 { // it has not answered yet
		last = published(content("test", 10, map[int]byte{1: byte(i)}), uint32(2+i))
		hub.Publish(last)
	}
	r.send(&controlpb.Ack{Transfer: begin.GetTransfer()})
	begin, nodes := r.transfer()
	if got := begin.GetZone(); got.GetVersion().GetSerial() != last.Version.Serial || !bytes.Equal(got.GetBase(), first.Version.Digest[:]) {
		t.Errorf("after the first came %v", got)
	}
	if len(nodes) > 100 {
		t.Errorf("%d octets for one owner", len(nodes))
	}
	r.send(&controlpb.Ack{Transfer: begin.GetTransfer()})
	w.await("the last is current", func() bool { return hub.Zone(last.Content.Apex()).Servers[0].Current })
	if n := hub.traffic.of("Begin"); n != 2 {
		t.Errorf("%d transfers for 101 versions", n)
	}
}

func TestAServerThatDoesNotReadDelaysNobody(t *testing.T) {
	w := newWorld(t)
	large := published(content("large.test", 100000, nil), 1)
	hub := w.hub(func(o *HubOptions) { o.MaxBytesInFlight = 16 << 20 })
	hub.Lead(1)
	hub.Publish(large)
	hub.SetComplete()
	stuck := w.raw(hub, w.ca.credentials(t, group.URI()))
	stuck.join("stuck")
	w.await("the stuck one has got some", func() bool { return hub.traffic.of("Chunk") > 0 })
	s := w.server("well", w.replica(), []*manager{hub})
	w.await("the well one is synced", s.synced)
	for i := range 20 {
		z := published(content("small.test", 3, map[int]byte{0: byte(i)}), uint32(1+i))
		hub.Publish(z)
		w.await("the change is there", func() bool { return s.version(z.Content.Apex()) == z.Version })
	}
	if hub.traffic.of("Commit") > 22 {
		t.Error("the stuck server was sent everything")
	}
}

func TestAZoneLargerThanTheBudgetPasses(t *testing.T) {
	w := newWorld(t)
	hub := w.hub(func(o *HubOptions) { o.MaxBytesInFlight = 1000 })
	hub.Lead(1)
	zones := []Zone{published(content("a.test", 1000, nil), 1), published(content("b.test", 1000, nil), 1), published(content("c.test", 1, nil), 1)}
	for _, z := range zones {
		hub.Publish(z)
	}
	hub.SetComplete()
	one := w.server("one", w.replica(), []*manager{hub})
	two := w.server("two", w.replica(), []*manager{hub})
	w.await("both are synced", func() bool { return one.synced() && two.synced() })
	if hub.budget.used != 0 || len(hub.budget.waiting) != 0 {
		t.Errorf("%d octets are still in flight", hub.budget.used)
	}
}

func TestASmallChangeOvertakesALargeZone(t *testing.T) {
	w := newWorld(t)
	base := published(content("small.test", 3, nil), 1)
	hub := w.leading(base, published(content("large.test", 200000, nil), 1))
	r := w.raw(hub, w.ca.credentials(t, group.URI()))
	r.join("one", &controlpb.HeldZone{Apex: []byte(base.Content.Apex()), Version: versionMessage(base.Version), Source: base.Source, Cluster: here})
	if m := r.recv(); m.GetBegin() == nil {
		t.Fatalf("got %v", m)
	}
	change := published(content("small.test", 3, map[int]byte{1: 1}), 2)
	hub.Publish(change)
	for {
		m := r.recv()
		if b := m.GetBegin(); b != nil {
			if string(b.GetZone().GetApex()) != string(change.Content.Apex()) {
				t.Fatalf("got %v", b)
			}
			return
		}
		if m.GetChunk() == nil {
			t.Fatal("the large zone was sent to its end first")
		}
	}
}

func TestAServerIsSentToTheHubThatLeads(t *testing.T) {
	w := newWorld(t)
	follower, leader := w.hub(), w.leading(published(content("test", 1, nil), 1))
	s := w.server("one", w.replica(), []*manager{follower, leader})
	w.await("it is synced", s.synced)
	if got := s.State().Hub; got != leader.addr {
		t.Errorf("connected to %s", got)
	}
}

func TestAChangeOfLeaderIsFollowed(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 1, nil), 1)
	first, second := w.leading(z), w.hub()
	s := w.server("one", w.replica(), []*manager{first, second})
	w.await("it is with the first", s.synced)
	first.Resign()
	if len(first.Servers()) != 0 {
		t.Error("a hub that resigned still has servers")
	}
	second.Lead(2)
	second.Publish(z)
	w.await("it is with the second", func() bool { return s.State().Hub == second.addr })
	w.await("the second knows that the zone is current", func() bool {
		r := second.Zone(z.Content.Apex())
		return len(r.Servers) == 1 && r.Servers[0].Current
	})
	if second.traffic.of("Begin") != 0 {
		t.Error("the second has sent what was there")
	}
	second.stop() // it dies
	first.Lead(3)
	w.await("it is with the first again", func() bool { return s.State().Hub == first.addr })
}

func TestAnOldLeaderIsRefusedWhenItsChangeIsApplied(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 1, nil), 1)
	old := w.leading(z)
	s := w.server("one", w.replica(), []*manager{old})
	w.await("it is synced", s.synced)

	// The old leader sleeps; a new one was met meanwhile.
	if err := s.Raise(t.Context(), Fence{5, here}); err != nil {
		t.Fatal(err)
	}
	late := published(content("test", 1, map[int]byte{0: 9}), 2)
	old.Publish(late)
	w.await("the old leader has heard of epoch 5", func() bool { return len(w.seenEpochs()) > 0 })
	if seen := w.seenEpochs()[0]; seen != 5 {
		t.Errorf("the old leader heard of epoch %d", seen)
	}
	if s.version(z.Content.Apex()) != z.Version {
		t.Error("a change of an old leader was applied")
	}
	if n := s.State().Nacks["StaleEpoch"]; n == 0 {
		t.Error("the refusal was not counted")
	}
	// It is not pushed to again before it leads under a higher epoch.
	w.await("the server has come back", func() bool { return len(w.seenEpochs()) > 1 })
	if len(old.Servers()) != 0 || old.traffic.of("Begin") != 2 {
		t.Errorf("servers %v, %d transfers", old.Servers(), old.traffic.of("Begin"))
	}
	old.Lead(6)
	w.await("the change is there", func() bool { return s.version(z.Content.Apex()) == late.Version })
	if f := s.Fence(); f != (Fence{6, here}) {
		t.Errorf("the fence is %v", f)
	}
}

func TestAHigherEpochOfTheSameLeaderRaisesTheFenceOfConnectedServers(t *testing.T) {
	w := newWorld(t)
	hub := w.leading()
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	hub.Lead(9)
	w.await("the fence is raised", func() bool { return s.State().Fence == Fence{9, here} })
	hub.Lead(8)
	if s.Fence().Epoch != 9 {
		t.Error("the epoch went back")
	}
}

func TestTwoClustersWithOneEpochExcludeEachOther(t *testing.T) {
	w := newWorld(t)
	r := w.replica()
	r.fence = Fence{4, "cluster-0"}
	hub := w.leading()
	hub.Lead(4)
	s := w.server("one", r, []*manager{hub})
	w.await("the hub has heard of its own epoch", func() bool { return len(w.seenEpochs()) > 0 })
	if got := w.seenEpochs()[0]; got != 4 {
		t.Errorf("heard of epoch %d", got)
	}
	hub.Lead(5)
	w.await("it is synced", s.synced)
}

func TestTheSecondStreamOfAServerReplacesTheFirst(t *testing.T) {
	w := newWorld(t)
	hub := w.leading()
	c := w.ca.credentials(t, group.URI())
	first := w.raw(hub, c)
	first.join("one")
	second := w.raw(hub, c)
	second.join("one")
	ends(t, first, codes.Aborted, "another stream")
	w.await("one server is there", func() bool { return len(hub.Servers()) == 1 })
}

func TestTheHubRefuses(t *testing.T) {
	w := newWorld(t)
	hub := w.leading()
	right, agent := w.ca.credentials(t, group.URI()), w.ca.credentials(t, agents.URI())
	hello := &controlpb.Hello{Protocol: ProtocolVersion, Name: "one"}
	root := &controlpb.HeldZone{Apex: []byte(zone.Root), Version: versionMessage(zone.Version{Serial: 1})}
	hex := func(s string) []byte { return []byte(s) }
	tests := map[string]struct {
		credentials Credentials
		first       []any
		code        codes.Code
		text        string
	}{
		"a certificate without URI SAN":              {w.ca.credentials(t), []any{hello}, codes.PermissionDenied, "no URI SAN"},
		"the hub's certificate":                      {w.ca.credentials(t, HubURI()), []any{hello}, codes.PermissionDenied, "not of the form fingerpost://datacenter/<datacenter>/group/<group>"},
		"a certificate for two groups":               {w.ca.credentials(t, group.URI(), GroupKey{"dc-b", "root"}.URI()), []any{hello}, codes.PermissionDenied, "more than one"},
		"another protocol version":                   {right, []any{&controlpb.Hello{Protocol: 9, Name: "one", Software: "v9"}}, codes.FailedPrecondition, `"one" (v9) speaks protocol version 9, this hub speaks 1`},
		"a server without a name":                    {right, []any{&controlpb.Hello{Protocol: ProtocolVersion}}, codes.InvalidArgument, "no name"},
		"a name with spaces":                         {right, []any{&controlpb.Hello{Protocol: ProtocolVersion, Name: "a b"}}, codes.InvalidArgument, "no name"},
		"an impossible epoch":                        {right, []any{&controlpb.Hello{Protocol: ProtocolVersion, Name: "one", Epoch: 1 << 60}}, codes.InvalidArgument, "impossible"},
		"held zones before Hello":                    {right, []any{&controlpb.Held{Last: true}}, codes.InvalidArgument, "not expected"},
		"a second Hello":                             {right, []any{hello, hello}, codes.InvalidArgument, "second Hello"},
		"a held zone without a name":                 {right, []any{hello, &controlpb.Held{Zones: []*controlpb.HeldZone{{}}}}, codes.InvalidArgument, "malformed"},
		"a held zone whose name is in upper case":    {right, []any{hello, &controlpb.Held{Zones: []*controlpb.HeldZone{{Apex: hex("\x01A\x00")}}}}, codes.InvalidArgument, "malformed"},
		"a held zone without a digest":               {right, []any{hello, &controlpb.Held{Zones: []*controlpb.HeldZone{{Apex: hex("\x00")}}}}, codes.InvalidArgument, "malformed"},
		"a zone held twice":                          {right, []any{hello, &controlpb.Held{Zones: []*controlpb.HeldZone{root, root}}}, codes.InvalidArgument, "twice"},
		"a zone held by an agent of resolvers":       {agent, []any{hello, &controlpb.Held{Zones: []*controlpb.HeldZone{root}, Last: true}}, codes.InvalidArgument, "has no zones"},
		"an agent's answer to a transfer of a zone":  {agent, []any{hello, &controlpb.Held{Last: true}, &controlpb.Ack{Transfer: 1}}, codes.InvalidArgument, "not committed"},
		"held zones after the last":                  {right, []any{hello, &controlpb.Held{Last: true}, &controlpb.Held{}}, codes.InvalidArgument, "not expected"},
		"the answer to a transfer that was not sent": {right, []any{hello, &controlpb.Held{Last: true}, &controlpb.Ack{Transfer: 7}}, codes.InvalidArgument, "not committed"},
		"a nack with an impossible epoch":            {right, []any{hello, &controlpb.Held{Last: true}, &controlpb.Nack{Reason: controlpb.Nack_STALE_EPOCH, Epoch: 1 << 63}}, codes.InvalidArgument, "impossible"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := w.raw(hub, test.credentials)
			for _, m := range test.first {
				r.send(m)
			}
			ends(t, r, test.code, test.text)
		})
	}
	if seen := w.seenEpochs(); len(seen) > 0 {
		t.Errorf("OnEpoch was told %v", seen)
	}
}

func TestAServerTalksToNobodyButTheHub(t *testing.T) {
	w := newWorld(t)
	hub := w.leading(published(content("test", 1, nil), 1))
	impostor := w.hub()
	impostor.stop()
	impostor.addr, _ = w.listen(w.ca.credentials(t, group.URI()), impostor.addr, func(s *grpc.Server) { NewHub(HubOptions{}).Register(s) })
	s := w.server("one", w.replica(), []*manager{impostor})
	w.await("the impostor is refused", func() bool { return strings.Contains(s.State().LastError, "wanted fingerpost://hub") })
	s.stop()
	other := w.server("two", w.replica(), []*manager{hub}, func(o *ClientOptions) {
		o.Credentials.Roots = newAuthority(t).credentials(t).Roots
	})
	w.await("a hub of another authority is refused", func() bool { return strings.Contains(other.State().LastError, "unknown authority") })
	other.stop()
	stranger := w.server("three", w.replica(), []*manager{hub}, func(o *ClientOptions) {
		o.Credentials.Certificate = newAuthority(t).credentials(t, group.URI()).Certificate
	})
	w.await("a certificate of another authority is refused by the hub", func() bool { return strings.Contains(stranger.State().LastError, "unknown certificate authority") })
	if len(hub.Servers()) != 0 {
		t.Errorf("servers are %v", hub.Servers())
	}
}

func TestAHubThatIsFullSaysSo(t *testing.T) {
	w := newWorld(t)
	hub := w.hub(func(o *HubOptions) { o.MaxServers = 1 })
	hub.Lead(1)
	c := w.ca.credentials(t, group.URI())
	w.raw(hub, c).join("one")
	second := w.raw(hub, c)
	second.send(&controlpb.Hello{Protocol: ProtocolVersion, Name: "two"})
	ends(t, second, codes.ResourceExhausted, "1 streams are open already")
}

func TestStreamsOfOneGroupLeaveRoomForOthers(t *testing.T) {
	w := newWorld(t)
	hub := w.hub(func(o *HubOptions) { o.MaxOfGroup = 2 })
	hub.Lead(1)
	c := w.ca.credentials(t, agents.URI())
	first := w.raw(hub, c)
	first.join("one")
	w.raw(hub, c).join("two")
	third := w.raw(hub, c)
	third.send(&controlpb.Hello{Protocol: ProtocolVersion, Name: "three"})
	ends(t, third, codes.ResourceExhausted, "2 streams of group dc-a/pool.dns.office are open already")
	w.raw(hub, w.ca.credentials(t, group.URI())).join("one")
	if servers, others := hub.Servers(), hub.Agents(); len(servers) > 1 || len(others) > 2 {
		t.Errorf("servers are %v, agents %v", servers, others)
	}
	first.cancel()
	w.await("one of the group has left", func() bool {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		return hub.openOf[agents] == 1
	})
	w.raw(hub, c).join("three")
}

func TestAgentsOfAGroupThatIsGoneAreExpelled(t *testing.T) {
	w := newWorld(t)
	var gone atomic.Bool
	hub := w.hub(func(o *HubOptions) { o.Known = func(g GroupKey) bool { return g != agents || !gone.Load() } })
	hub.Lead(1)
	agent, server := w.raw(hub, w.ca.credentials(t, agents.URI())), w.raw(hub, w.ca.credentials(t, group.URI()))
	agent.join("one")
	server.join("one")
	w.await("both are there", func() bool { return len(hub.Agents()) == 1 && len(hub.Servers()) == 1 })
	hub.Expel()
	gone.Store(true)
	if len(hub.Agents()) != 1 {
		t.Error("an agent of a group that there is was expelled")
	}
	hub.Expel()
	ends(t, agent, codes.PermissionDenied, "no group dc-a/pool.dns.office")
	again := w.raw(hub, w.ca.credentials(t, agents.URI()))
	again.send(&controlpb.Hello{Protocol: ProtocolVersion, Name: "one"})
	ends(t, again, codes.PermissionDenied, "no group dc-a/pool.dns.office")
	w.await("it has left", func() bool { return len(hub.Agents()) == 0 })
	if len(hub.Servers()) != 1 {
		t.Error("a server was expelled")
	}
}

// agents is a group of agents of resolvers.
var agents = GroupKey{"dc-a", "pool.dns.office"}

// TestAnAgentRaisesNoEpoch: it waits until authoritative servers have said what they have seen, and zones and servers are not
// counted by it.
func TestAnAgentRaisesNoEpoch(t *testing.T) {
	w := newWorld(t)
	hub := w.leading(published(content("test", 1, nil), 1))
	agent := w.raw(hub, w.ca.credentials(t, agents.URI()))
	agent.send(&controlpb.Hello{Protocol: ProtocolVersion, Name: "one", Epoch: 7, Cluster: "another"})
	stale := w.raw(hub, w.ca.credentials(t, agents.URI()))
	stale.join("two")
	w.await("an agent is there", func() bool { return len(hub.Agents()) == 1 })
	if servers := hub.Servers(); len(servers) > 0 {
		t.Errorf("agents count as servers: %v", servers)
	}
	stale.send(&controlpb.Nack{Reason: controlpb.Nack_STALE_EPOCH, Epoch: 7})
	ends(t, stale, codes.Aborted, "has seen epoch 7")
	if seen := w.seenEpochs(); len(seen) > 0 {
		t.Errorf("OnEpoch was told %v by agents", seen)
	}
	server := w.raw(hub, w.ca.credentials(t, group.URI()))
	server.send(&controlpb.Hello{Protocol: ProtocolVersion, Name: "one", Epoch: 7, Cluster: "another"})
	w.await("the epoch that a server has seen is told", func() bool { return slices.Contains(w.seenEpochs(), 7) })
	hub.Lead(8)
	if m := agent.recv(); m.GetWelcome() == nil {
		t.Errorf("got %v instead of Welcome", m)
	}
}

func TestTenThousandHeldZonesAreReportedInBoundedParts(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(10000)
	r := w.replica()
	for _, z := range zones {
		r.put(z, here)
	}
	hub := w.leading(zones...)
	s := w.server("one", r, []*manager{hub})
	w.await("it is synced", s.synced)
	if got := hub.Servers()[0]; got.Wanted != 10000 || got.Current != 10000 {
		t.Errorf("server is reported as %+v", got)
	}
	if hub.traffic.of("Begin") != 0 {
		t.Error("zones were sent that are there")
	}
	if got := hub.HeldZones(); len(got) != 10000 || got[7] != zones[7].Content.Apex() {
		t.Errorf("%d zones are held", len(got))
	}
	held := hub.Held(zones[3].Content.Apex())
	want := Held{zones[3].Content.Apex(), zones[3].Version, zones[3].Source, here, 2, false}
	if len(held) != 1 || held[0] != (HeldReport{s.id, want}) {
		t.Errorf("held is %+v", held)
	}
}

func TestAThousandZonesReachAnEmptyServer(t *testing.T) {
	w := newWorld(t)
	hub := w.leading(manyZones(1000)...)
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	if n := len(s.Held()); n != 1000 {
		t.Errorf("%d zones", n)
	}
}

func TestWhatIsServedButNotOnDiskIsReportedUntilItIs(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 1, nil), 1)
	hub := w.leading(z)
	r := w.replica()
	r.fault = func(Installed) error { return &NotDurableError{errors.New("disk full")} }
	s := w.server("one", r, []*manager{hub})
	apex := z.Content.Apex()
	report := func() ZoneServer { return hub.Zone(apex).Servers[0] }
	w.await("it is synced", s.synced)
	if got := report(); !got.Current || !got.NotDurable {
		t.Fatalf("reported as %+v", got)
	}
	// A new stream reports the same.
	s.stop()
	s = w.server("one", r, []*manager{hub})
	w.await("it is synced again", s.synced)
	if got := report(); !got.Current || !got.NotDurable {
		t.Fatalf("after a reconnect reported as %+v", got)
	}
	r.heal()
	w.await("it is reported as durable", func() bool { return !report().NotDurable })
	if hub.traffic.of("Begin") != 1 {
		t.Error("the zone was sent again")
	}
}

func TestARefusedZoneIsNotSentAgainUntilSomethingChanges(t *testing.T) {
	w := newWorld(t)
	bad := published(content("test", 1, nil), 1)
	hub := w.leading(bad)
	r := w.replica()
	r.fault = func(z Installed) error {
		if z.Version.Serial == 1 {
			return errors.New("cannot be compiled")
		}
		return nil
	}
	s := w.server("one", r, []*manager{hub})
	w.await("it is synced", s.synced)
	nack := hub.Zone(bad.Content.Apex()).Servers[0].Nack
	if nack == nil || nack.Reason != "Failed" || nack.Version != bad.Version || nack.Message != "cannot be compiled" {
		t.Fatalf("nack is %+v", nack)
	}
	hub.Publish(bad) // as every reconcile does
	other := published(content("other.test", 1, nil), 5)
	hub.Publish(other)
	w.await("another zone is there", func() bool { return s.version(other.Content.Apex()) == other.Version })
	if n := hub.traffic.of("Begin"); n != 2 {
		t.Errorf("%d transfers", n)
	}
	good := published(bad.Content, 2)
	hub.Publish(good)
	w.await("the next version is there", func() bool { return s.version(good.Content.Apex()) == good.Version })
	w.await("nothing is refused", func() bool { return hub.Zone(good.Content.Apex()).Servers[0].Nack == nil })
}

func TestADeltaThatGoesWrongIsFollowedByTheWholeZone(t *testing.T) {
	for _, reason := range []controlpb.Nack_Reason{controlpb.Nack_BASE_MISSING, controlpb.Nack_DIGEST_MISMATCH} {
		t.Run(reason.String(), func(t *testing.T) {
			w := newWorld(t)
			hub := w.leading(published(content("test", 10, nil), 1))
			r := w.raw(hub, w.ca.credentials(t, group.URI()))
			r.join("one")
			begin, _ := r.transfer()
			r.send(&controlpb.Ack{Transfer: begin.GetTransfer()})
			next := published(content("test", 10, map[int]byte{1: 1}), 2)
			hub.Publish(next)
			begin, _ = r.transfer()
			if len(begin.GetZone().GetBase()) == 0 {
				t.Fatal("no delta")
			}
			r.send(&controlpb.Nack{Transfer: begin.GetTransfer(), Reason: reason})
			begin, _ = r.transfer()
			if len(begin.GetZone().GetBase()) != 0 {
				t.Fatal("a delta again")
			}
			r.send(&controlpb.Nack{Transfer: begin.GetTransfer(), Reason: reason})
			w.await("the refusal is reported", func() bool { return hub.Zone(next.Content.Apex()).Servers[0].Nack != nil })
			if n := hub.traffic.of("Begin"); n != 3 {
				t.Errorf("%d transfers", n)
			}
		})
	}
}

func TestAVersionNobodyPublishedIsReportedAsAhead(t *testing.T) {
	z := published(content("test", 3, nil), 1000)
	other := content("test", 4, nil)
	tests := map[string]struct {
		held   zone.Version
		ahead  bool
		tooFar bool
		sent   bool
	}{
		"an older serial is behind":                              {zone.Version{Serial: 999, Digest: other.Digest()}, false, false, true},
		"the same serial with other content":                     {zone.Version{Serial: 1000, Digest: other.Digest()}, true, false, false},
		"a higher serial with other content":                     {zone.Version{Serial: 1001, Digest: other.Digest()}, true, false, false},
		"a higher serial with the same content":                  {zone.Version{Serial: 1001, Digest: z.Version.Digest}, true, false, false},
		"2^30 ahead is the last that is believed":                {zone.Version{Serial: 1000 + 1<<30, Digest: other.Digest()}, true, false, false},
		"more than 2^30 ahead is not believed, and overwritten":  {zone.Version{Serial: 1001 + 1<<30, Digest: other.Digest()}, true, true, true},
		"beyond half of the serials is behind (RFC 1982 3.2)":    {zone.Version{Serial: 1001 + 1<<31, Digest: other.Digest()}, false, false, true},
		"an older serial with the same content gets the version": {zone.Version{Serial: 2, Digest: z.Version.Digest}, false, false, true},
		"what is published is not ahead":                         {z.Version, false, false, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			hub := w.leading(z)
			r := w.raw(hub, w.ca.credentials(t, group.URI()))
			r.join("one", &controlpb.HeldZone{Apex: []byte(z.Content.Apex()), Version: versionMessage(test.held), Source: z.Source, Cluster: here})
			w.await("it has joined", func() bool { return len(hub.Servers()) == 1 })
			report := hub.Zone(z.Content.Apex())
			if got := len(report.Ahead) == 1; got != test.ahead {
				t.Errorf("ahead is %v", report.Ahead)
			} else if got && (report.Ahead[0].TooFar != test.tooFar || report.Ahead[0].Version != test.held) {
				t.Errorf("ahead is %+v", report.Ahead[0])
			}
			if m := r.recv(); (m.GetBegin() != nil) != test.sent {
				t.Errorf("the hub sent %v", m)
			}
			if !test.ahead || test.tooFar {
				return
			}
			beyond := z // the controller reserves beyond it
			beyond.Version.Serial = test.held.Serial + 1
			hub.Publish(beyond)
			if begin, _ := r.transfer(); begin.GetZone().GetVersion().GetSerial() != beyond.Version.Serial {
				t.Errorf("the hub sent %v", begin)
			}
		})
	}
}

func TestFetchBringsContentUpTheStream(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 30000, nil), 3)
	r := w.replica()
	r.put(z, here)
	hub := w.leading()
	apex := z.Content.Apex()
	hub.Retain(apex)
	s := w.server("one", r, []*manager{hub})
	w.await("it is synced", s.synced)
	if c := hub.Content(apex, z.Version.Digest); c != nil {
		t.Fatal("the hub has the content already")
	}
	got, err := hub.Fetch(t.Context(), apex, z.Version.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest() != z.Version.Digest || got.Records() != z.Content.Records() {
		t.Error("other content was fetched")
	}
	var missing *NotHeldError
	if _, err := hub.Fetch(t.Context(), apex, zone.Digest{1}); !errors.As(err, &missing) || missing.Last != nil {
		t.Errorf("content that nobody has: %v", err)
	}
	hub.Publish(z)
	if c := hub.Content(apex, z.Version.Digest); c != z.Content {
		t.Error("published content is not at hand")
	}
}

func TestFetchBelievesDigestsOnlyAndTriesTheNextServer(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 3, nil), 3)
	apex := z.Content.Apex()
	held := func() *controlpb.HeldZone {
		return &controlpb.HeldZone{Apex: []byte(apex), Version: versionMessage(z.Version), Cluster: here}
	}
	hub := w.leading()
	c := w.ca.credentials(t, group.URI())
	answer := func(name string, reply func(r *raw, f *controlpb.Fetch)) {
		r := w.raw(hub, c)
		r.join(name, held())
		go func() {
			for {
				m, err := r.stream.Recv()
				if err != nil {
					return
				}
				if f := m.GetFetch(); f != nil {
					reply(r, f)
				}
			}
		}()
	}
	hub.Retain(apex)
	answer("a-liar", func(r *raw, f *controlpb.Fetch) {
		for part := range chunks(wholeZone(content("test", 4, nil)), chunkSize) {
			r.send(&controlpb.FetchChunk{Fetch: f.GetFetch(), Nodes: part})
		}
		r.send(&controlpb.FetchChunk{Fetch: f.GetFetch(), Last: true})
	})
	answer("b-broken", func(r *raw, f *controlpb.Fetch) {
		r.send(&controlpb.FetchChunk{Fetch: f.GetFetch(), Nodes: []byte{3, 1, 2, 3}})
	})
	answer("c-unwilling", func(r *raw, f *controlpb.Fetch) {
		r.send(&controlpb.FetchFailed{Fetch: f.GetFetch(), Message: "not here"})
	})
	answer("d-gone", func(r *raw, _ *controlpb.Fetch) { r.cancel() })
	w.await("all have joined", func() bool { return len(hub.Servers()) == 4 })
	var failed *NotHeldError
	if _, err := hub.Fetch(t.Context(), apex, z.Version.Digest); !errors.As(err, &failed) || failed.Last == nil || !strings.Contains(err.Error(), "d-gone") {
		t.Errorf("fetching from liars: %v", err)
	}
	r := w.replica()
	r.put(z, here)
	honest := w.server("e-honest", r, []*manager{hub})
	w.await("it is synced", honest.synced)
	if got, err := hub.Fetch(t.Context(), apex, z.Version.Digest); err != nil || got.Digest() != z.Version.Digest {
		t.Errorf("fetching: %v", err)
	}

	// Once the zone is published, only its own groups are asked.
	elsewhere := published(content("test", 5, nil), 9)
	elsewhere.Groups = []GroupKey{{"dc-b", "root"}}
	hub.Publish(elsewhere)
	if _, err := hub.Fetch(t.Context(), apex, z.Version.Digest); !errors.As(err, &failed) || failed.Last != nil {
		t.Errorf("fetching from another group: %v", err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	z := published(content("test", 3, nil), 3)
	hub := w.leading()
	hub.Retain(z.Content.Apex())
	r := w.raw(hub, w.ca.credentials(t, group.URI()))
	r.join("silent", &controlpb.HeldZone{Apex: []byte(z.Content.Apex()), Version: versionMessage(z.Version), Cluster: here})
	w.await("it has joined", func() bool { return len(hub.Servers()) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := hub.Fetch(ctx, z.Content.Apex(), z.Version.Digest)
		result <- err
	}()
	for r.recv().GetFetch() == nil {
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("fetch ended with %v", err)
	}
	if n := len(hub.peers[ServerID{group.Datacenter, group.Group, "silent"}].fetching); n != 0 {
		t.Errorf("%d fetches are remembered", n)
	}
}

func TestPublishIgnoresAVersionOfOtherContent(t *testing.T) {
	hub := NewHub(HubOptions{Cluster: here})
	z := published(content("test", 1, nil), 1)
	z.Version.Digest[0]++
	hub.Publish(z)
	if got := hub.Zone(z.Content.Apex()); !got.Wanted.IsZero() {
		t.Errorf("report is %+v", got)
	}
}

func ExampleGroupKey_URI() {
	fmt.Println(GroupKey{Datacenter: "dc-a", Group: "root"}.URI())
	// Output: fingerpost://datacenter/dc-a/group/root
}
