package control

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// sibling serves copies of r to servers of the group, or to whom the credentials are for.
func (w *world) sibling(r Replica, g GroupKey) string {
	c := w.ca.credentials(w.t, g.URI())
	addr, _ := w.listen(c, "127.0.0.1:0", func(s *grpc.Server) { NewSibling(r, c).Register(s) })
	return addr
}

// alone starts a server whose hub does not answer.
func (w *world) alone(r *memory, hub *manager, siblings ...string) *server {
	return w.server("one", r, []*manager{hub}, func(o *ClientOptions) {
		o.Siblings = siblings
		o.SiblingAfter = time.Millisecond
	})
}

func (w *world) down() *manager {
	m := w.hub()
	m.stop()
	return m
}

func TestAnEmptyServerWithoutAHubCopiesFromASibling(t *testing.T) {
	w := newWorld(t)
	zones := append(manyZones(200), published(content("large.test", 40000, nil), 9))
	r := w.holding(here, zones...)
	r.put(zones[3], "cluster-0")
	r.fence = Fence{7, here}
	hub := w.hub()
	s := w.alone(w.replica(), hub, w.down().addr, w.sibling(r, group))
	w.await("all zones are here", func() bool { return s.State().CopiedAll })
	if n := s.State().Copied; n != 201 {
		t.Errorf("%d zones were copied", n)
	}
	for _, want := range r.Held() {
		got, _ := s.Zone(want.Apex)
		if got.Version != want.Version || got.Source != want.Source || got.Cluster != want.Cluster || got.Content.Digest() != want.Version.Digest {
			t.Fatalf("%s was copied as %+v", want.Apex, got)
		}
	}
	if s.Fence() != r.Fence() || s.State().Fence != r.Fence() {
		t.Errorf("the fence is %v", s.Fence())
	}
	// The hub confirms by digests what was copied.
	hub.Lead(8)
	for _, z := range zones {
		hub.Publish(z)
	}
	hub.SetComplete()
	w.await("it is synced", s.synced)
	if n := hub.traffic.of("Chunk"); n != 0 {
		t.Errorf("%d chunks were sent", n)
	}
}

func TestACopyIsNotMadeWhenThereIsAHub(t *testing.T) {
	w := newWorld(t)
	r := w.holding(here, manyZones(1)...)
	hub := w.leading()
	s := w.alone(w.replica(), hub, w.sibling(r, group))
	w.await("it is synced", s.synced)
	hub.stop()
	w.await("the copy follows when the hub is gone and there is still nothing", func() bool { return s.State().Copied == 1 })
}

func TestAServerThatHasZonesCopiesOnlyWhatItsDiskLost(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(5)
	r := w.holding(here, zones[0])
	r.lost = []zone.Name{zones[3].Content.Apex()}
	s := w.alone(r, w.down(), w.sibling(w.holding(here, zones...), group))
	w.await("the lost one is here", func() bool { return s.State().Copied == 1 })
	if s.State().CopiedAll {
		t.Error("one zone is called all")
	}
	if len(s.Held()) != 2 || s.version(zones[3].Content.Apex()) != zones[3].Version {
		t.Errorf("the server holds %v", s.Held())
	}
}

func TestACopyUnderAnOlderFenceKeepsOurs(t *testing.T) {
	w := newWorld(t)
	r, own := w.holding(here, manyZones(1)...), w.replica()
	r.fence, own.fence = Fence{3, here}, Fence{5, here}
	s := w.alone(own, w.down(), w.sibling(r, group))
	w.await("the zone is here", func() bool { return s.State().Copied == 1 })
	if s.Fence() != (Fence{5, here}) {
		t.Errorf("the fence is %v", s.Fence())
	}
}

func TestOnlyServersOfTheGroupMayCopy(t *testing.T) {
	w := newWorld(t)
	r := w.holding(here, manyZones(1)...)
	addr := w.sibling(r, group)
	for name, c := range map[string]Credentials{
		"another group":      w.ca.credentials(t, GroupKey{"dc-a", "root"}.URI()),
		"another datacenter": w.ca.credentials(t, GroupKey{"dc-b", "authoritative"}.URI()),
		"a pool":             w.ca.credentials(t, GroupKey{"dc-a", "pool.dns.office"}.URI()),
		"the hub":            w.ca.credentials(t, HubURI()),
		"nobody":             w.ca.credentials(t),
	} {
		t.Run(name, func(t *testing.T) {
			// The caller trusts whoever answers: it is the sibling that must refuse.
			conn, err := dial(addr, dialTLS(c, noCheck))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			stream, err := controlpb.NewSiblingClient(conn).Copy(t.Context(), &controlpb.CopyRequest{Protocol: ProtocolVersion})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
				t.Errorf("copy got %v", err)
			}
		})
	}
	// And the one that copies does not take zones from another group.
	s := w.alone(w.replica(), w.down(), w.sibling(r, GroupKey{"dc-b", "authoritative"}), addr)
	w.await("the right sibling was asked", func() bool { return s.State().Copied == 1 })
}

// forger is a sibling made by hand.
type forger struct {
	controlpb.UnimplementedSiblingServer
	messages []*controlpb.CopyMessage
}

func (f *forger) Copy(_ *controlpb.CopyRequest, stream controlpb.Sibling_CopyServer) error {
	for _, m := range f.messages {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func copyMessages(z Zone, size int) (all []*controlpb.CopyMessage) {
	add := func(m *controlpb.CopyMessage) { all = append(all, m) }
	add(&controlpb.CopyMessage{Message: &controlpb.CopyMessage_Offer{Offer: &controlpb.Offer{Epoch: 2, Cluster: here, Zones: 1}}})
	add(&controlpb.CopyMessage{Message: &controlpb.CopyMessage_Begin{Begin: &controlpb.Begin{
		Transfer: 1, Resource: &controlpb.Begin_Zone{Zone: zoneMessage(z.Content.Apex(), Installed{Version: z.Version, Source: z.Source, Cluster: here})},
	}}})
	for part := range chunks(wholeZone(z.Content), size) {
		add(&controlpb.CopyMessage{Message: &controlpb.CopyMessage_Chunk{Chunk: &controlpb.Chunk{Transfer: 1, Nodes: part}}})
	}
	add(&controlpb.CopyMessage{Message: &controlpb.CopyMessage_Commit{Commit: &controlpb.Commit{Transfer: 1}}})
	return all
}

func TestAFalseCopyInstallsNothingAndTheNextSiblingIsAsked(t *testing.T) {
	z := published(content("test", 100, nil), 3)
	good := copyMessages(z, 100)
	wrong := z
	wrong.Version.Digest[0]++
	tests := map[string]struct {
		messages []*controlpb.CopyMessage
		logged   string
	}{
		"no offer":             {good[1:], "one offer"},
		"two offers":           {append(good[:1:1], good...), "one offer"},
		"nothing":              {nil, "ended before"},
		"no zones":             {[]*controlpb.CopyMessage{{Message: &controlpb.CopyMessage_Offer{Offer: &controlpb.Offer{}}}}, "no zones either"},
		"a wrong digest":       {copyMessages(wrong, 100), "digest"},
		"a part is missing":    {append(good[:3:3], good[4:]...), "malformed"},
		"the end is missing":   {good[:len(good)-1], "ended before"},
		"a zone within a zone": {append(good[:2:2], good[1:]...), "before it ended the last"},
		"a zone twice":         {slices.Concat(good, good[1:]), "twice"},
		"a chunk of nothing":   {append(good[:1:1], good[2:]...), "chunk of nothing"},
		"an end of nothing":    {append(good[:1:1], good[len(good)-1]), "ended nothing"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			addr, _ := w.listen(w.ca.credentials(t, group.URI()), "127.0.0.1:0", func(s *grpc.Server) {
				controlpb.RegisterSiblingServer(s, &forger{messages: test.messages})
			})
			r := w.replica()
			c, err := NewClient(ClientOptions{Hubs: []string{"none:1"}, Name: "one", Replica: r, Credentials: w.ca.credentials(t, group.URI()), Log: w.log()})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.copyFrom(t.Context(), addr, &controlpb.CopyRequest{}); err == nil || !strings.Contains(err.Error(), test.logged) {
				t.Errorf("copy ended with %v, wanted %q", err, test.logged)
			}
			if got, ok := r.Zone(z.Content.Apex()); ok && got.Version != z.Version {
				t.Errorf("installed %v", got.Version)
			}
			s := w.alone(r, w.down(), addr, w.sibling(w.holding(here, z), group))
			w.await("the zone is here", func() bool { return s.version(z.Content.Apex()) == z.Version })
		})
	}
}

func TestAHubThatComesEndsTheCopy(t *testing.T) {
	w := newWorld(t)
	zones := manyZones(3)
	r := w.replica()
	arrived, goOn := make(chan struct{}, 1), make(chan struct{})
	r.before = func(Installed) {
		select {
		case arrived <- struct{}{}:
			<-goOn
		default:
		}
	}
	hub := w.hub()
	s := w.alone(r, hub, w.sibling(w.holding(here, zones...), group))
	<-arrived
	newer := published(content("z00000.test", 2, nil), 2)
	hub.Lead(1)
	hub.Publish(newer)
	hub.SetComplete()
	close(goOn)
	w.await("the hub's version is here", func() bool { return s.version(newer.Content.Apex()) == newer.Version })
}

func TestSiblingsAreEveryServerOfANameButThisOne(t *testing.T) {
	c := &Client{opts: ClientOptions{
		Log: logr.Discard(), Peer: "127.0.0.1:8054", // an address of this machine, as a pod's is of the pod
		Siblings: []string{"127.0.0.1:8054", "127.0.0.1:8055", "127.9.9.9:8054", "127.9.9.9:8054", "[::1]:9", "no port"},
	}}
	if got, want := c.siblings(t.Context()), []string{"127.0.0.1:8055", "127.9.9.9:8054", "[::1]:9", "no port"}; !slices.Equal(got, want) {
		t.Errorf("siblings are %q, want %q", got, want)
	}
}
