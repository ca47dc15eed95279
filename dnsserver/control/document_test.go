package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
)

func publishDocument(t *testing.T, h *manager, kind, body string) {
	t.Helper()
	if err := h.PublishDocument(group, Document{kind, []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

// documentsOf returns what the hub says of a server's documents, by kind.
func documentsOf(h *manager, id ServerID) map[string]ServerDocument {
	all := map[string]ServerDocument{}
	for _, s := range h.Servers() {
		if s.ID == id {
			for _, d := range s.Documents {
				all[d.Kind] = d
			}
		}
	}
	return all
}

func TestDocumentsReachServersThatAreThereAndThatJoin(t *testing.T) {
	w := newWorld(t)
	hub := w.leading(published(content("test", 1, nil), 1))
	publishDocument(t, hub, "settings", "one")
	if err := hub.PublishDocument(GroupKey{"dc-b", "authoritative"}, Document{"settings", []byte("of others")}); err != nil {
		t.Fatal(err)
	}
	s := w.server("one", w.replica(), []*manager{hub})
	w.await("it is synced", s.synced)
	if got := s.body("settings"); got != "one" {
		t.Errorf("settings are %q", got)
	}
	pool := GroupKey{"dc-a", "pool.dns.office"}
	if err := hub.PublishDocument(pool, Document{"resolver", []byte("of a pool")}); err != nil {
		t.Fatal(err)
	}
	agent := w.server("agent", w.replica(), []*manager{hub}, func(o *ClientOptions) { o.Credentials = w.ca.credentials(t, pool.URI()) })
	w.await("an agent of a pool is synced", agent.synced)
	if got := agent.body("resolver"); got != "of a pool" || agent.body("settings") != "" || len(agent.Held()) != 0 {
		t.Errorf("an agent of a pool has %q, settings %q and %d zones", got, agent.body("settings"), len(agent.Held()))
	}
	large := strings.Repeat("0123456789abcdef", MaxDocument/16)
	publishDocument(t, hub, "overrides", large)
	publishDocument(t, hub, "settings", "two")
	publishDocument(t, hub, "topology", "")
	w.await("the latest are there", func() bool {
		_, empty := s.Document("topology")
		return s.body("settings") == "two" && s.body("overrides") == large && empty
	})
	w.await("the hub knows", func() bool { r := hub.Servers()[0]; return len(r.Documents) == 3 && r.Synced() })
	if hub.traffic.most > chunkSize+1024 {
		t.Errorf("a message had %d octets", hub.traffic.most)
	}

	// The same again, also after a reconnect and by another leader, sends nothing.
	publishDocument(t, hub, "settings", "two")
	begun := hub.traffic.of("Begin")
	s.stop()
	s = w.server("one", s.memory, []*manager{hub})
	w.await("it is synced again", s.synced)
	hub.Resign()
	w.await("it was sent away", func() bool { return s.State().Hub == "" })
	hub.Lead(2)
	publishDocument(t, hub, "settings", "two")
	hub.SetComplete()
	w.await("it is synced by the new leader", func() bool {
		return s.synced() && s.State().Fence.Epoch == 2 && documentsOf(hub, s.id)["settings"].Current
	})
	if n := hub.traffic.of("Begin"); n != begun {
		t.Errorf("%d transfers of what is there", n-begun)
	}

	// What is withdrawn stays where it is.
	hub.WithdrawDocument(group, "settings")
	if got := documentsOf(hub, s.id); len(got) != 0 || s.body("settings") != "two" {
		t.Errorf("after the withdrawal: %v, settings %q", got, s.body("settings"))
	}
}

func TestDocumentsThatCannotBeSentAreErrors(t *testing.T) {
	h := NewHub(HubOptions{Log: logr.Discard(), Cluster: here})
	for name, d := range map[string]Document{
		"no kind":         {"", nil},
		"a wrong kind":    {"Settings", nil},
		"too long a kind": {strings.Repeat("k", 64), nil},
		"too large":       {"settings", make([]byte, MaxDocument+1)},
	} {
		if err := h.PublishDocument(group, d); err == nil {
			t.Errorf("%s: published", name)
		}
	}
}

func TestSyncedMeansDocumentsToo(t *testing.T) {
	w := newWorld(t)
	hub := w.leading()
	publishDocument(t, hub, "settings", "one")
	r := w.raw(hub, w.ca.credentials(t, group.URI()))
	r.send(&controlpb.Hello{Protocol: ProtocolVersion, Name: "one", Documents: true})
	if r.recv().GetWelcome() == nil {
		t.Fatal("no welcome")
	}
	r.send(&controlpb.Held{Last: true})
	begin, body := r.transfer()
	if d := begin.GetDocument(); d.GetKind() != "settings" || string(body) != "one" || d.GetSize() != 3 {
		t.Fatalf("the hub sent %v", begin)
	}
	if got := hub.Servers()[0]; got.Synced() {
		t.Errorf("reported as %+v before the answer", got)
	}
	r.send(&controlpb.Ack{Transfer: begin.GetTransfer()})
	if m := r.recv(); m.GetSynced() == nil {
		t.Errorf("the hub sent %v", m)
	}
	if got := hub.Servers()[0]; !got.Synced() {
		t.Errorf("reported as %+v", got)
	}
}

func TestARefusedDocumentLeavesTheOneBeforeAndIsTriedAgainLater(t *testing.T) {
	w := newWorld(t)
	hub := w.hub(func(o *HubOptions) { o.DocumentRetry = 50 * time.Millisecond })
	hub.Lead(1)
	hub.SetComplete()
	r := w.replica()
	var mu sync.Mutex
	refusals, inUse := 0, true
	r.documentFault = func(d Document) error {
		mu.Lock()
		defer mu.Unlock()
		if string(d.Body) == "port 853" && inUse {
			refusals++
			return errors.New("port 853 is in use")
		}
		return nil
	}
	publishDocument(t, hub, "settings", "one")
	s := w.server("one", r, []*manager{hub})
	w.await("it is synced", s.synced)
	publishDocument(t, hub, "settings", "port 853")
	w.await("the refusal is reported", func() bool {
		d := documentsOf(hub, s.id)["settings"]
		return !d.Current && d.Nack != nil && d.Nack.Reason == "Failed" && d.Nack.Message == "port 853 is in use"
	})
	if r := hub.Servers()[0]; r.Synced() || s.body("settings") != "one" || s.State().Nacks["Failed"] == 0 {
		t.Errorf("reported as %+v, settings %q, nacks %v", r, s.body("settings"), s.State().Nacks)
	}
	w.await("it was tried again", func() bool { mu.Lock(); defer mu.Unlock(); return refusals > 1 })
	mu.Lock()
	inUse = false
	mu.Unlock()
	w.await("it is there when it can be", func() bool { return s.body("settings") == "port 853" && documentsOf(hub, s.id)["settings"].Current })

	// A refused one is replaced at once by another.
	mu.Lock()
	inUse = true
	mu.Unlock()
	publishDocument(t, hub, "settings", "two")
	w.await("the next is there", func() bool { return s.body("settings") == "two" && hub.Servers()[0].Synced() })
}

func TestADocumentThatIsNotOnDiskIsReportedUntilItIs(t *testing.T) {
	w := newWorld(t)
	hub := w.leading()
	r := w.replica()
	r.documentFault = func(Document) error { return &NotDurableError{errors.New("disk full")} }
	publishDocument(t, hub, "settings", "one")
	s := w.server("one", r, []*manager{hub})
	report := func() ServerDocument { return documentsOf(hub, s.id)["settings"] }
	for range 2 { // a new stream reports the same
		w.await("it is in force", func() bool { d := report(); return s.synced() && d.Current && d.NotDurable })
		s.stop()
		s = w.server("one", r, []*manager{hub})
	}
	w.await("it is in force", func() bool { d := report(); return s.synced() && d.Current && d.NotDurable })
	r.mu.Lock()
	r.documentsBehind["settings"] = false
	r.mu.Unlock()
	r.onDocumentDurable("settings", Document{"settings", []byte("one")}.Digest())
	w.await("it is reported as durable", func() bool { d := report(); return d.Current && !d.NotDurable })
	if n := hub.traffic.of("Begin"); n != 1 {
		t.Errorf("%d transfers", n)
	}
}

func TestADocumentOfAnOldLeaderIsRefusedWhenItIsApplied(t *testing.T) {
	w := newWorld(t)
	hub := w.leading()
	publishDocument(t, hub, "settings", "one")
	r := w.replica()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	r.documentFault = func(d Document) error {
		if string(d.Body) == "of an old leader" {
			close(arrived)
			<-goOn
		}
		return nil
	}
	s := w.server("one", r, []*manager{hub})
	w.await("it is synced", s.synced)
	publishDocument(t, hub, "settings", "of an old leader")
	<-arrived
	if err := s.Raise(t.Context(), Fence{2, here}); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	w.await("the leader hears that it is none", func() bool { return len(w.seenEpochs()) > 0 })
	if got := s.body("settings"); got != "one" || s.State().Nacks["StaleEpoch"] == 0 {
		t.Errorf("settings are %q, nacks %v", got, s.State().Nacks)
	}
}

func TestDocumentsThatAreNotWhatTheySayAreRefused(t *testing.T) {
	good := Document{"settings", []byte("0123456789")}
	wrong := Document{"settings", []byte("9876543210")}.Digest()
	for name, test := range map[string]struct {
		begin  *controlpb.Document
		parts  []string
		reason controlpb.Nack_Reason
	}{
		"no kind":            {&controlpb.Document{Digest: wrong[:], Size: 10}, []string{"0123456789"}, controlpb.Nack_MALFORMED},
		"no digest":          {&controlpb.Document{Kind: "settings", Size: 10}, []string{"0123456789"}, controlpb.Nack_MALFORMED},
		"too large to begin": {&controlpb.Document{Kind: "settings", Digest: wrong[:], Size: MaxDocument + 1}, nil, controlpb.Nack_TOO_LARGE},
		"more than it says":  {documentMessage(good, good.Digest()).Document, []string{"0123", "4567890"}, controlpb.Nack_TOO_LARGE},
		"less than it says":  {documentMessage(good, good.Digest()).Document, []string{"0123"}, controlpb.Nack_MALFORMED},
		"another digest":     {documentMessage(good, wrong).Document, []string{"01234", "56789"}, controlpb.Nack_DIGEST_MISMATCH},
		"as it says":         {documentMessage(good, good.Digest()).Document, []string{"01234", "56789"}, controlpb.Nack_REASON_UNSPECIFIED},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, server := w.scripted(w.replica())
			s.say(1, &controlpb.Begin{Transfer: 7, Resource: &controlpb.Begin_Document{Document: test.begin}})
			for _, part := range test.parts {
				s.say(1, &controlpb.Chunk{Transfer: 7, Nodes: []byte(part)})
			}
			s.say(1, &controlpb.Commit{Transfer: 7})
			m := s.recv(t)
			if test.reason == controlpb.Nack_REASON_UNSPECIFIED {
				if a := m.GetAck(); a.GetTransfer() != 7 || a.GetDocument() != "settings" || server.body("settings") != "0123456789" {
					t.Errorf("answered by %v", m)
				}
				return
			}
			if n := m.GetNack(); n.GetTransfer() != 7 || n.GetReason() != test.reason {
				t.Errorf("answered by %v", m)
			}
			if _, has := server.Document("settings"); has {
				t.Error("it is in force")
			}
		})
	}
}

func TestAServerKeepsABoundedNumberOfDocuments(t *testing.T) {
	w := newWorld(t)
	hub := w.leading()
	r := w.replica()
	for i := range maxKinds {
		kind := fmt.Sprintf("kind-%d", i)
		r.documents[kind] = Document{kind, nil}
	}
	publishDocument(t, hub, "kind-7", "new")
	publishDocument(t, hub, "settings", "one too many")
	s := w.server("one", r, []*manager{hub})
	w.await("one is there, one is refused", func() bool {
		n := documentsOf(hub, s.id)["settings"].Nack
		return s.body("kind-7") == "new" && n != nil && n.Reason == "TooLarge"
	})
}

// TestOlderServersAreSentNoDocuments and count as if there were none.
func TestOlderServersAreSentNoDocuments(t *testing.T) {
	w := newWorld(t)
	hub := w.leading(published(content("test", 1, nil), 1))
	publishDocument(t, hub, "settings", "one")
	r := w.raw(hub, w.ca.credentials(t, group.URI()))
	r.join("one")
	begin, _ := r.transfer()
	if begin.GetZone() == nil {
		t.Fatalf("the hub sent %v", begin)
	}
	r.send(&controlpb.Ack{Transfer: begin.GetTransfer()})
	publishDocument(t, hub, "settings", "two")
	if m := r.recv(); m.GetSynced() == nil {
		t.Errorf("the hub sent %v", m)
	}
	if got := hub.Servers()[0]; got.TakesDocuments || len(got.Documents) != 0 || !got.Synced() {
		t.Errorf("reported as %+v", got)
	}
}

func TestTheHubRefusesWrongDocuments(t *testing.T) {
	digest := Document{}.Digest()
	for name, held := range map[string][]*controlpb.HeldDocument{
		"a wrong kind":   {{Kind: "no kind", Digest: digest[:]}},
		"no digest":      {{Kind: "settings"}},
		"one twice":      {{Kind: "settings", Digest: digest[:]}, {Kind: "settings", Digest: digest[:]}},
		"more than many": manyHeldDocuments(maxKinds + 1),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.raw(w.leading(), w.ca.credentials(t, group.URI()))
			r.send(&controlpb.Hello{Protocol: ProtocolVersion, Name: "one", Documents: true})
			if r.recv().GetWelcome() == nil {
				t.Fatal("no welcome")
			}
			r.send(&controlpb.Held{Documents: held, Last: true})
			ends(t, r, codes.InvalidArgument, "Held")
		})
	}
}

func manyHeldDocuments(n int) (held []*controlpb.HeldDocument) {
	digest := Document{}.Digest()
	for i := range n {
		held = append(held, &controlpb.HeldDocument{Kind: fmt.Sprintf("kind-%d", i), Digest: digest[:]})
	}
	return held
}

func TestACopyBringsDocumentsAlong(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(3)
	r := w.holding(here, zones...)
	r.fence = Fence{7, here}
	large := strings.Repeat("0123456789abcdef", MaxDocument/16)
	for kind, body := range map[string]string{"settings": "one", "overrides": large, "topology": "", "secrets": "refused"} {
		r.documents[kind] = Document{kind, []byte(body)}
	}
	own := w.replica()
	own.documents["settings"] = Document{"settings", []byte("what is here stays")}
	own.documentFault = func(d Document) error {
		if d.Kind == "secrets" {
			return errors.New("not now")
		}
		return nil
	}
	s := w.alone(own, w.down(), w.sibling(r, group))
	w.await("all is here", func() bool { return s.State().CopiedAll })
	if got := s.State(); got.Documents != 2 || got.Copied != 3 || s.body("overrides") != large || s.body("settings") != "what is here stays" {
		t.Errorf("%+v, settings %q, %d octets of overrides", got, s.body("settings"), len(s.body("overrides")))
	}
	if _, has := s.Document("topology"); !has || s.Fence() != (Fence{7, here}) {
		t.Errorf("topology is here: %v; the fence is %v", has, s.Fence())
	}
}

func TestAServerThatLostDocumentsCopiesOnlyThose(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(3)
	r := w.holding(here, zones...)
	r.documents["settings"] = Document{"settings", []byte("one")}
	own := w.holding(here, zones[0])
	own.lostDocuments = []string{"settings"}
	s := w.alone(own, w.down(), w.sibling(r, group))
	w.await("it is here", func() bool { return s.body("settings") == "one" })
	s.stop()
	if got := s.State(); got.Copied != 0 || got.CopiedAll || len(s.Held()) != 1 {
		t.Errorf("%+v, %d zones", got, len(s.Held()))
	}
}

// TestAnOlderServerCopiesZonesAlone: it did not ask for documents, and would not understand them.
func TestAnOlderServerCopiesZonesAlone(t *testing.T) {
	w := newWorld(t)
	r := w.holding(here, manyZones(1)...)
	r.documents["settings"] = Document{"settings", []byte("one")}
	own := w.replica()
	c, err := NewClient(ClientOptions{Hubs: []string{"none:1"}, Name: "one", Replica: own, Credentials: w.ca.credentials(t, group.URI()), Log: w.log()})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.copyFrom(t.Context(), w.sibling(r, group), &controlpb.CopyRequest{Protocol: ProtocolVersion}); err != nil {
		t.Fatal(err)
	}
	if len(own.Held()) != 1 || len(own.Documents()) != 0 {
		t.Errorf("%d zones, %d documents", len(own.Held()), len(own.Documents()))
	}
}

func TestAFalseCopyOfADocumentInstallsNothing(t *testing.T) {
	d := Document{"settings", []byte("0123456789")}
	wrong := Document{"settings", nil}.Digest()
	offer := &controlpb.CopyMessage{Message: &controlpb.CopyMessage_Offer{Offer: &controlpb.Offer{Epoch: 2, Cluster: here, Zones: 1, Documents: 1}}}
	begin := func(m *controlpb.Begin_Document) *controlpb.CopyMessage {
		return &controlpb.CopyMessage{Message: &controlpb.CopyMessage_Begin{Begin: &controlpb.Begin{Transfer: 1, Resource: m}}}
	}
	chunk := &controlpb.CopyMessage{Message: &controlpb.CopyMessage_Chunk{Chunk: &controlpb.Chunk{Transfer: 1, Nodes: d.Body}}}
	commit := &controlpb.CopyMessage{Message: &controlpb.CopyMessage_Commit{Commit: &controlpb.Commit{Transfer: 1}}}
	right := begin(documentMessage(d, d.Digest()))
	for name, messages := range map[string][]*controlpb.CopyMessage{
		"a wrong digest": {offer, begin(documentMessage(d, wrong)), chunk, commit},
		"too much":       {offer, right, chunk, chunk, commit},
		"too little":     {offer, right, commit},
		"no kind":        {offer, begin(&controlpb.Begin_Document{Document: &controlpb.Document{}}), chunk, commit},
		"no end":         {offer, right, chunk},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			addr, _ := w.listen(w.ca.credentials(t, group.URI()), "127.0.0.1:0", func(s *grpc.Server) {
				controlpb.RegisterSiblingServer(s, &forger{messages: messages})
			})
			r := w.replica()
			c, err := NewClient(ClientOptions{Hubs: []string{"none:1"}, Name: "one", Replica: r, Credentials: w.ca.credentials(t, group.URI()), Log: w.log()})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.copyFrom(t.Context(), addr, &controlpb.CopyRequest{}); err == nil || len(r.Documents()) != 0 {
				t.Errorf("%v, %d documents", err, len(r.Documents()))
			}
		})
	}
}

// heard collects reports.
type heard struct {
	bell *bell
	mu   sync.Mutex
	all  []string
}

func (h *heard) report(id ServerID, kind string, body []byte) {
	h.mu.Lock()
	h.all = append(h.all, fmt.Sprintf("%s %s %s", id, kind, body))
	h.mu.Unlock()
	h.bell.ring()
}

func (h *heard) last(n int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.all[max(0, len(h.all)-n):], "\n")
}

func TestReportsReachTheHubThatLeadsAndTheNextOne(t *testing.T) {
	w := newWorld(t)
	h := &heard{bell: w.bell}
	hubs := []*manager{w.hub(func(o *HubOptions) { o.OnReport = h.report }), w.hub(func(o *HubOptions) { o.OnReport = h.report })}
	s := w.server("one", w.replica(), hubs)
	report := func(kind, body string) {
		if err := s.Report(kind, []byte(body)); err != nil {
			t.Error(err)
		}
	}
	report("verdicts", "before anybody leads")
	report("verdicts", "1")
	report("answers", "2")
	hubs[0].Lead(1)
	hubs[0].SetComplete()
	both := "dc-a/authoritative/one answers 2\ndc-a/authoritative/one verdicts 1"
	w.await("the hub knows both", func() bool { return h.last(9) == both })
	largest := strings.Repeat("v", MaxReport)
	report("verdicts", largest)
	w.await("the next follows", func() bool { return h.last(1) == "dc-a/authoritative/one verdicts "+largest })
	hubs[0].Resign()
	hubs[1].Lead(2)
	w.await("the next leader knows both", func() bool { return h.last(2) == strings.Replace(both, " 1", " "+largest, 1) })
}

func TestReportsThatCannotBeSentAreErrors(t *testing.T) {
	c, err := NewClient(ClientOptions{Hubs: []string{"none:1"}, Name: "one", Replica: newMemory(newBell()), Log: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Report("Verdicts", nil)); err == nil {
		t.Error("a wrong kind was taken")
	}
	if err := c.Report("verdicts", make([]byte, MaxReport+1)); err == nil {
		t.Error("a body that is too large was taken")
	}
	for i := range maxReports {
		if err := c.Report(fmt.Sprintf("kind-%d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Report("verdicts", nil); err == nil {
		t.Error("one kind too many was taken")
	}
	c.Unreport("kind-0")
	if err := c.Report("verdicts", nil); err != nil {
		t.Errorf("a kind in the place of one that was dropped: %v", err)
	}
}

func TestReportsOfASecondBecomeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{}
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var sent []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.reports.send(ctx, func(m *controlpb.ServerMessage) {
				sent = append(sent, fmt.Sprintf("%s %s %s", time.Since(start), m.GetReport().GetKind(), m.GetReport().GetBody()))
			})
		}()
		for i := range 25 {
			if err := c.Report("verdicts", fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
			if i == 3 {
				if err := c.Report("answers", []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			time.Sleep(110 * time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		want := "0s verdicts 0\n330ms answers x\n1s verdicts 9\n2s verdicts 18\n3s verdicts 24"
		if got := strings.Join(sent, "\n"); got != want {
			t.Errorf("sent\n%s\nwant\n%s", got, want)
		}
	})
}

func TestTheHubRefusesWrongReports(t *testing.T) {
	for name, m := range map[string]*controlpb.Report{
		"a wrong kind": {Kind: "Verdicts"},
		"too large":    {Kind: "verdicts", Body: make([]byte, MaxReport+1)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.raw(w.leading(), w.ca.credentials(t, group.URI()))
			r.join("one")
			r.send(m)
			ends(t, r, codes.InvalidArgument, "report")
		})
	}
	t.Run("before Hello", func(t *testing.T) {
		w := newWorld(t)
		r := w.raw(w.leading(), w.ca.credentials(t, group.URI()))
		r.send(&controlpb.Report{Kind: "verdicts"})
		ends(t, r, codes.InvalidArgument, "not expected")
	})
}

func TestWhereServersSayThatPeersReachThem(t *testing.T) {
	from := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}
	for stated, want := range map[string]string{
		"":                              "",
		"192.0.2.1:8444":                "192.0.2.1:8444",
		"[2001:db8::1]:8444":            "[2001:db8::1]:8444",
		"auth-1.example:8444":           "auth-1.example:8444",
		":8444":                         "192.0.2.7:8444",
		":0":                            "",
		":70000":                        "",
		":dns":                          "",
		"192.0.2.1":                     "",
		"a b:8444":                      "",
		"a\nb:8444":                     "",
		strings.Repeat("a", 300) + ":1": "",
	} {
		if got := reachable(stated, from); got != want {
			t.Errorf("%q is reached at %q, want %q", stated, got, want)
		}
	}
	if got := reachable(":8444", nil); got != "" {
		t.Errorf("from nowhere it is reached at %q", got)
	}
	w := newWorld(t)
	hub := w.leading()
	s := w.server("one", w.replica(), []*manager{hub}, func(o *ClientOptions) { o.Peer = ":8444" })
	w.await("it is synced", s.synced)
	if got := hub.Servers()[0].Peer; got != "127.0.0.1:8444" {
		t.Errorf("the hub says %q", got)
	}
}

// TestBodiesOfDocumentsAreNeverLogged, whatever happens to them.
func TestBodiesOfDocumentsAreNeverLogged(t *testing.T) {
	const secret = "c29tZSBzZWNyZXQ"
	w := newWorld(t)
	var mu sync.Mutex
	var logged bytes.Buffer
	log := funcr.New(func(prefix, args string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&logged, prefix, args)
	}, funcr.Options{Verbosity: 10})
	hub := w.hub(func(o *HubOptions) { o.Log, o.DocumentRetry = log, 20*time.Millisecond })
	hub.Lead(1)
	hub.SetComplete()
	r := w.replica()
	attempts := 0
	r.documentFault = func(Document) error {
		switch attempts++; attempts {
		case 1:
			return errors.New("not now")
		case 2:
			return &NotDurableError{errors.New("disk full")}
		}
		return nil
	}
	publishDocument(t, hub, "secrets", secret)
	s := w.server("one", r, []*manager{hub}, func(o *ClientOptions) { o.Log = log })
	w.await("it is there", func() bool { return documentsOf(hub, s.id)["secrets"].NotDurable })
	other := w.server("two", w.replica(), []*manager{w.down()}, func(o *ClientOptions) {
		o.Log, o.Siblings, o.SiblingAfter = log, []string{w.sibling(w.holding(here, manyZones(1)...), group), w.sibling(r, group)}, time.Millisecond
	})
	w.await("it was copied", func() bool { return other.State().CopiedAll })
	mu.Lock()
	defer mu.Unlock()
	if text := logged.String(); !strings.Contains(text, "refused a document") || strings.Contains(text, secret) {
		t.Errorf("logged:\n%s", text)
	}
}
