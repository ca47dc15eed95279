package mesh_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh/meshpb"
)

// patience is how long something may take that takes milliseconds on a quiet machine.
const patience = 30 * time.Second

// authority makes certificates.
type authority struct {
	t *testing.T
	*controltest.Authority
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	return &authority{t, controltest.NewAuthority(t)}
}

// server is one end of a mesh.
type server struct {
	t         *testing.T
	id        health.ServerID
	mesh      *mesh.Mesh
	listener  net.Listener
	creds     control.Credentials
	grpc      *grpc.Server
	serving   sync.WaitGroup
	messages  chan string
	connected chan health.ServerID
	overrides chan [][]byte
}

func (a *authority) server(ctx context.Context, datacenter string) *server {
	a.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	s := &server{
		t: a.t, id: health.ServerID{Datacenter: datacenter, Group: "authoritative", Name: "ns1"},
		messages: make(chan string, 100), connected: make(chan health.ServerID, 100), overrides: make(chan [][]byte, 100),
		creds: a.Credentials(control.GroupKey{Datacenter: datacenter, Group: "authoritative"}.URI()),
	}
	s.mesh = mesh.New(mesh.Options{
		Self: s.id, Credentials: s.creds, Log: testr.New(a.t),
		OnMessage: func(from health.ServerID, m health.Message) {
			select {
			case s.messages <- from.String() + " " + describe(m):
			default:
			}
		},
		OnConnected: func(peer health.ServerID) { s.connected <- peer },
		OnOverrides: func(o [][]byte) { s.overrides <- o },
	})
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		a.t.Fatal(err)
	}
	s.serve(s.listener)
	s.serving.Go(func() { _ = s.mesh.Run(ctx) })
	a.t.Cleanup(func() { cancel(); s.grpc.Stop(); s.serving.Wait() })
	return s
}

func (s *server) serve(l net.Listener) {
	s.grpc = grpc.NewServer(control.ServerOptions(s.creds)...)
	s.mesh.Register(s.grpc)
	running := s.grpc
	s.serving.Go(func() { _ = running.Serve(l) })
}

func (s *server) peer() mesh.Peer {
	return mesh.Peer{ServerID: s.id, Address: s.listener.Addr().String()}
}

func describe(m health.Message) string {
	switch {
	case m.Heartbeat != nil:
		return fmt.Sprintf("heartbeat %d", m.Heartbeat.Seq)
	case m.Ballots != nil:
		return fmt.Sprintf("ballots %d: %d", m.Ballots.Seq, len(m.Ballots.Ballots))
	}
	return fmt.Sprintf("%+v", m)
}

// next waits for an element.
func next[T any](t *testing.T, of string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %s", of, patience)
		panic("unreachable")
	}
}

func heartbeat(seq uint64) health.Message {
	return health.Message{Heartbeat: &health.Heartbeat{Seq: seq}}
}

// within has the test's servers end before goroutines are counted.
func within(t *testing.T) context.Context {
	t.Helper()
	ignored := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignored) })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx
}

func TestServersHearEachOtherInOrder(t *testing.T) {
	ctx := within(t)
	a := newAuthority(t)
	one, two, three := a.server(ctx, "dc-a"), a.server(ctx, "dc-b"), a.server(ctx, "dc-c")
	peers := []mesh.Peer{one.peer(), two.peer(), three.peer()}
	for _, s := range []*server{one, two, three} {
		s.mesh.SetPeers(peers)
	}
	heard := map[health.ServerID]bool{next(t, "connection", one.connected): true, next(t, "connection", one.connected): true}
	if diff := cmp.Diff(map[health.ServerID]bool{two.id: true, three.id: true}, heard); diff != "" {
		t.Fatalf("connected (-want +got)\n%s", diff)
	}
	one.mesh.Send([]health.Envelope{{Message: health.Message{Ballots: &health.Ballots{Seq: 1, Ballots: make([]health.Ballot, 3)}}}, {To: two.id, Message: heartbeat(2)}})
	one.mesh.SendOverrides([][]byte{{1, 2}})
	for _, want := range []string{"dc-a/authoritative/ns1 ballots 1: 3", "dc-a/authoritative/ns1 heartbeat 2"} {
		if got := next(t, "message", two.messages); got != want {
			t.Errorf("dc-b hears %q, want %q", got, want)
		}
	}
	if got, want := next(t, "message", three.messages), "dc-a/authoritative/ns1 ballots 1: 3"; got != want {
		t.Errorf("dc-c hears %q, want %q", got, want)
	}
	if got := next(t, "overrides", three.overrides); !cmp.Equal(got, [][]byte{{1, 2}}) {
		t.Errorf("dc-c hears of overrides %v", got)
	}
}

func TestAPeerThatComesBackIsConnectedAgain(t *testing.T) {
	ctx := within(t)
	a := newAuthority(t)
	one, two := a.server(ctx, "dc-a"), a.server(ctx, "dc-b")
	one.mesh.SetPeers([]mesh.Peer{two.peer()})
	next(t, "connection", one.connected)
	two.grpc.Stop()
	l, err := net.Listen("tcp", two.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	two.serve(l)
	if got := next(t, "connection", one.connected); got != two.id {
		t.Errorf("%s is connected", got)
	}
	one.mesh.Send([]health.Envelope{{Message: heartbeat(7)}})
	if got := next(t, "message", two.messages); got != "dc-a/authoritative/ns1 heartbeat 7" {
		t.Errorf("it hears %q", got)
	}
}

// TestAPeerThatDoesNotAnswerIsGivenUp: a connection to a machine that has vanished looks open for a long time.
func TestAPeerThatDoesNotAnswerIsGivenUp(t *testing.T) {
	ctx := within(t)
	a := newAuthority(t)
	one := a.server(ctx, "dc-a")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	attempts := make(chan net.Conn, 100)
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				close(attempts)
				return
			}
			attempts <- conn
		}
	}()
	one.mesh.SetPeers([]mesh.Peer{{ServerID: health.ServerID{Datacenter: "dc-b", Group: "authoritative", Name: "ns1"}, Address: silent.Addr().String()}})
	first := next(t, "attempt", attempts)
	defer first.Close()
	second := next(t, "second attempt", attempts)
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestACertificateOfAnotherDatacenterIsRefused(t *testing.T) {
	ctx := within(t)
	a := newAuthority(t)
	one, two, right := a.server(ctx, "dc-a"), a.server(ctx, "dc-b"), a.server(ctx, "dc-c")
	impostor := two.peer()
	impostor.Datacenter = "dc-x" // expected there, but the certificate is for dc-b
	one.mesh.SetPeers([]mesh.Peer{impostor, right.peer()})
	if got := next(t, "connection", one.connected); got != right.id {
		t.Errorf("%s is connected", got)
	}
	one.mesh.Send([]health.Envelope{{Message: heartbeat(1)}})
	next(t, "message", right.messages)
	if connected := one.mesh.Connected(); len(connected) != 1 || connected[0] != right.id {
		t.Errorf("connected are %v", connected)
	}
	select {
	case m := <-two.messages:
		t.Errorf("the impostor hears %q", m)
	default:
	}
}

func TestStrangersAreRefused(t *testing.T) {
	ctx := within(t)
	ours, theirs := newAuthority(t), newAuthority(t)
	one, two := ours.server(ctx, "dc-a"), theirs.server(ctx, "dc-b")
	friend := ours.server(ctx, "dc-c")
	two.mesh.SetPeers([]mesh.Peer{one.peer()})
	friend.mesh.SetPeers([]mesh.Peer{one.peer()})
	next(t, "connection", friend.connected)
	friend.mesh.Send([]health.Envelope{{Message: heartbeat(1)}})
	if got := next(t, "message", one.messages); got != "dc-c/authoritative/ns1 heartbeat 1" {
		t.Errorf("it hears %q", got)
	}
	if connected := two.mesh.Connected(); len(connected) != 0 {
		t.Errorf("the stranger is connected to %v", connected)
	}
}

// TestResolversHaveNoVote: agents of pools have certificates of the same authority, for other things.
func TestResolversHaveNoVote(t *testing.T) {
	ctx := within(t)
	a := newAuthority(t)
	one := a.server(ctx, "dc-a")
	agent := a.Credentials(control.GroupKey{Datacenter: "dc-a", Group: "pool.dns.office"}.URI())
	conn, err := control.DialPeer(one.listener.Addr().String(), agent, control.GroupKey{Datacenter: "dc-a", Group: "authoritative"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := meshpb.NewMeshClient(conn).Tell(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*meshpb.Message{
		{Message: &meshpb.Message_Hello{Hello: &meshpb.Hello{Protocol: 1, Name: "agent"}}},
		{Message: &meshpb.Message_Overrides{Overrides: &meshpb.Overrides{Overrides: [][]byte{{1}}}}},
	} {
		if stream.Send(m) != nil {
			break // refused already
		}
	}
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("an agent that votes gets %v", err)
	}
	select {
	case o := <-one.overrides:
		t.Errorf("its overrides %v are heard", o)
	default:
	}
}
