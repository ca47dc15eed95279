package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/url"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"
	"pgregory.net/rapid"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// pipe is a stream without a socket: every message waits for its receiver. It is the hub's end.
type pipe struct {
	grpc.ServerStream
	ctx  context.Context
	up   chan *controlpb.ServerMessage
	down chan *controlpb.HubMessage
}

func (p *pipe) Context() context.Context { return p.ctx }

func (p *pipe) Send(m *controlpb.HubMessage) error {
	select {
	case p.down <- m:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pipe) Recv() (*controlpb.ServerMessage, error) {
	select {
	case m := <-p.up:
		return m, nil
	case <-p.ctx.Done():
		return nil, p.ctx.Err()
	}
}

// newPipe returns a stream of a server whose certificate is for the group.
func newPipe(ctx context.Context, g GroupKey) (*pipe, context.CancelFunc) {
	ctx = grpcpeer.NewContext(ctx, &grpcpeer.Peer{
		Addr: &net.TCPAddr{}, AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{
			VerifiedChains: [][]*x509.Certificate{{{URIs: []*url.URL{g.URI()}}}},
		}},
	})
	ctx, cancel := context.WithCancel(ctx)
	return &pipe{ctx: ctx, up: make(chan *controlpb.ServerMessage), down: make(chan *controlpb.HubMessage)}, cancel
}

// join connects a client to a hub until cut is called.
func join(h *Hub, c *Client, g GroupKey) (cut func()) {
	p, cancel := newPipe(context.Background(), g)
	ctx := p.ctx
	ended := make(chan struct{})
	go func() {
		_ = h.Sync(p)
		cancel()
	}()
	go func() {
		defer close(ended)
		defer cancel()
		send := func(m *controlpb.ServerMessage) error {
			select {
			case p.up <- m:
				return nil
			case <-ctx.Done():
				return io.EOF
			}
		}
		recv := func() (*controlpb.HubMessage, error) {
			select {
			case m := <-p.down:
				return m, nil
			case <-ctx.Done():
				return nil, io.EOF
			}
		}
		seen := c.opts.Replica.Fence()
		_ = send(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_Hello{Hello: &controlpb.Hello{
			Protocol: ProtocolVersion, Name: c.opts.Name, Epoch: seen.Epoch, Cluster: seen.Cluster, Documents: true,
		}}})
		m, err := recv()
		if err != nil || m.GetWelcome() == nil || c.claim(ctx, ownerSession) != nil {
			return
		}
		defer c.release()
		_ = newSession(c, send, seen.Cluster).run(ctx, cancel, m, recv)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// TestServersEndUpWithWhatWasPublishedLast plays arbitrary histories: documents and versions of
// zones published, zones withdrawn and retained while streams break anywhere, disks fail, and leaders follow each
// other, also of another cluster. When all is quiet, every server has exactly what is wanted.
func TestServersEndUpWithWhatWasPublishedLast(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		history := rapid.SliceOfN(rapid.Custom(drawEvent), 1, 30).Draw(rt, "history")
		var err error
		synctest.Test(t, func(*testing.T) { err = playHistory(history) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

const zonesCount, serversCount = 4, 2

// event is one step of a history.
type event struct {
	what         string
	zone, server int
	hosts        int // 9000 take several chunks
	address      byte
}

func drawEvent(t *rapid.T) event {
	return event{
		what: rapid.SampledFrom([]string{
			"publish", "publish", "publish", "version", "withdraw", "retain", "document", "document", "reconnect", "lead", "cluster", "disk", "heal", "wait",
		}).Draw(t, "what"),
		zone:    rapid.IntRange(0, zonesCount-1).Draw(t, "zone"),
		server:  rapid.IntRange(0, serversCount-1).Draw(t, "server"),
		hosts:   rapid.SampledFrom([]int{0, 3, 40, 9000}).Draw(t, "hosts"),
		address: rapid.Byte().Draw(t, "address"),
	}
}

func playHistory(history []event) error {
	apexes := make([]zone.Name, zonesCount)
	for i := range apexes {
		apexes[i] = mustName(fmt.Sprintf("z%d.test", i))
	}
	everything := AbsenceLimit{Zones: 1 << 20, Percent: 100}

	type wish int
	const (
		unknown wish = iota
		wanted
		retained
	)
	wishes := map[zone.Name]wish{}
	latest := map[zone.Name]Zone{}
	documents := map[string]Document{}
	serial := uint32(0)
	epoch := uint64(0)
	cluster := here

	var hub *Hub
	var servers [serversCount]*memory
	var clients [serversCount]*Client
	var cuts [serversCount]func()
	connect := func(i int) {
		cuts[i]()
		cuts[i] = join(hub, clients[i], group)
	}
	lead := func() {
		if hub != nil {
			hub.Resign()
		}
		epoch++
		hub = NewHub(HubOptions{
			Cluster: cluster, Log: logr.Discard(), MaxBytesInFlight: 1 << 20, MaxAbsent: everything,
			OnZone: func(zone.Name) {}, OnServer: func(ServerID) {}, OnEpoch: func(uint64) {},
		})
		hub.Lead(epoch)
		for i := range cuts {
			connect(i)
		}
		for _, apex := range apexes {
			switch wishes[apex] {
			case wanted:
				hub.Publish(latest[apex])
			case retained:
				hub.Retain(apex)
			}
		}
		for _, d := range documents {
			_ = hub.PublishDocument(group, d)
		}
		hub.SetComplete()
	}
	for i := range servers {
		servers[i] = newMemory(newBell())
		c, err := NewClient(ClientOptions{Hubs: []string{"none"}, Name: fmt.Sprint(i), Replica: servers[i], Log: logr.Discard(), MaxAbsent: everything})
		if err != nil {
			return err
		}
		clients[i] = c
		cuts[i] = func() {}
	}
	defer func() {
		hub.Resign()
		for _, cut := range cuts {
			cut()
		}
		synctest.Wait()
	}()
	lead()

	for _, e := range history {
		apex, i := apexes[e.zone], e.server
		switch e.what {
		case "publish":
			serial++
			z := published(content(apex.String(), e.hosts, map[int]byte{1: e.address}), serial)
			latest[apex], wishes[apex] = z, wanted
			hub.Publish(z)
		case "version":
			if wishes[apex] == wanted {
				serial++
				z := latest[apex]
				z.Version.Serial = serial
				latest[apex] = z
				hub.Publish(z)
			}
		case "withdraw":
			wishes[apex] = unknown
			hub.Withdraw(apex)
		case "retain":
			wishes[apex] = retained
			hub.Retain(apex)
		case "document":
			d := Document{fmt.Sprintf("kind-%d", e.zone), bytes.Repeat([]byte{e.address}, e.hosts*100)}
			documents[d.Kind] = d
			if err := hub.PublishDocument(group, d); err != nil {
				return err
			}
		case "reconnect":
			connect(i)
		case "lead":
			lead()
		case "cluster":
			cluster = map[string]string{here: "cluster-2", "cluster-2": here}[cluster]
			lead()
		case "disk":
			servers[i].mu.Lock()
			servers[i].fault = func(Installed) error { return &NotDurableError{io.ErrShortWrite} }
			servers[i].documentFault = func(Document) error { return &NotDurableError{io.ErrShortWrite} }
			servers[i].mu.Unlock()
		case "heal":
			servers[i].heal()
		case "wait":
			synctest.Wait()
		}
	}

	// Zones that another cluster left behind go with approval.
	synctest.Wait()
	for _, r := range hub.Servers() {
		hub.ApproveAbsence(r.ID.Datacenter, r.Absence.Digest)
	}
	synctest.Wait()
	for _, s := range servers {
		s.heal()
	}
	synctest.Wait()

	for i, s := range servers {
		for _, apex := range apexes {
			got, held := s.Zone(apex)
			if held && got.Content.Digest() != got.Version.Digest {
				return fmt.Errorf("server %d: zone %s: content is not that of version %s", i, apex, got.Version)
			}
			switch {
			case wishes[apex] == wanted && (got.Version != latest[apex].Version || got.Cluster != cluster):
				return fmt.Errorf("server %d: zone %s is %s of %q, wanted %s", i, apex, got.Version, got.Cluster, latest[apex].Version)
			case wishes[apex] == unknown && held:
				return fmt.Errorf("server %d: zone %s is still there", i, apex)
			}
		}
	}
	for i, s := range servers {
		for kind, want := range documents {
			if got, _ := s.Document(kind); !bytes.Equal(got.Body, want.Body) {
				return fmt.Errorf("server %d: document %s has %d octets, wanted %d", i, kind, len(got.Body), len(want.Body))
			}
		}
	}
	for _, apex := range apexes {
		for _, r := range hub.Zone(apex).Servers {
			if r.NotDurable || r.Nack != nil || r.Current != (wishes[apex] == wanted) {
				return fmt.Errorf("zone %s is reported as %+v", apex, r)
			}
		}
	}
	reports := hub.Servers()
	if len(reports) != serversCount {
		return fmt.Errorf("%d servers are connected", len(reports))
	}
	for i, r := range reports {
		for _, d := range r.Documents {
			if !d.Current || d.NotDurable || d.Nack != nil {
				return fmt.Errorf("document %s is reported as %+v", d.Kind, d)
			}
		}
		if r.Wanted != r.Current || len(r.Documents) != len(documents) || r.Absence.Count != 0 || !clients[i].State().Synced {
			return fmt.Errorf("server is reported as %+v", r)
		}
	}
	if hub.budget.used != 0 {
		return fmt.Errorf("%d octets are in flight", hub.budget.used)
	}
	return nil
}
