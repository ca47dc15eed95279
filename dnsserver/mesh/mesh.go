// Package mesh carries what servers tell each other about targets: directly, over mutual TLS, without any hub.
//
// Each server dials every other and speaks on the connection that it opened; what it hears comes on those that others
// opened. A message arrives in order or not at all: after a break the peer is told of the new connection, and what was
// lost is found by package health.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh/meshpb"
)

// protocol is the version of the messages.
const protocol = 1

const (
	// maxQueue bounds what waits for a peer that does not take it, in messages. Then the connection is given up: the
	// next one starts afresh.
	maxQueue = 4096
	// deaf is how long a peer may leave heartbeats unanswered.
	deaf = 2 * time.Second
)

// Options of a Mesh. The functions are called from many goroutines, and may block for a little.
type Options struct {
	Self        health.ServerID // datacenter and group are those of the certificate
	Credentials control.Credentials
	Log         logr.Logger
	// OnMessage gets what a peer says.
	OnMessage func(from health.ServerID, m health.Message)
	// OnConnected is called when what is sent reaches a peer again.
	OnConnected func(peer health.ServerID)
	// OnOverrides gets a peer's break-glass overrides; nil: they are ignored.
	OnOverrides func(overrides [][]byte)
}

// Peer is another server and where it listens.
type Peer struct {
	health.ServerID
	Address string // HOST:PORT
}

// Mesh is the connections of one server.
type Mesh struct {
	opts Options

	mu      sync.Mutex
	ctx     context.Context // nil before Run
	running sync.WaitGroup
	peers   map[health.ServerID]*link
	meshpb.UnimplementedMeshServer
}

// New returns a mesh without peers.
func New(o Options) *Mesh {
	return &Mesh{opts: o, peers: map[health.ServerID]*link{}}
}

// Register makes m hear what others say. m needs control.ServerOptions.
func (m *Mesh) Register(r grpc.ServiceRegistrar) { meshpb.RegisterMeshServer(r, m) }

// Run connects to the peers until ctx ends.
func (m *Mesh) Run(ctx context.Context) error {
	m.mu.Lock()
	m.ctx = ctx
	for _, l := range m.peers {
		m.start(l)
	}
	m.mu.Unlock()
	<-ctx.Done()
	m.running.Wait()
	return nil
}

// SetPeers makes these the peers. The server itself, and peers without an address, are left out.
func (m *Mesh) SetPeers(peers []Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := map[health.ServerID]string{}
	for _, p := range peers {
		if p.ServerID != m.opts.Self && p.Address != "" {
			want[p.ServerID] = p.Address
		}
	}
	for id, l := range m.peers {
		if want[id] != l.address {
			l.stop()
			delete(m.peers, id)
		}
	}
	for id, address := range want {
		if m.peers[id] == nil {
			l := &link{mesh: m, peer: id, address: address, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
			m.peers[id] = l
			if m.ctx != nil {
				m.start(l)
			}
		}
	}
}

// start runs a link. m.mu is held.
func (m *Mesh) start(l *link) {
	ctx, cancel := context.WithCancel(m.ctx)
	go func() {
		<-l.stopped
		cancel()
	}()
	context.AfterFunc(ctx, l.stop)
	m.running.Go(func() { l.run(ctx) })
}

// Send gives messages to the connections and never waits. What is for a peer that is not connected is lost.
func (m *Mesh) Send(envelopes []health.Envelope) {
	for _, e := range envelopes {
		if message := encode(e.Message); message != nil {
			m.send(e.To, message)
		}
	}
}

// SendOverrides tells every connected peer of break-glass overrides.
func (m *Mesh) SendOverrides(overrides [][]byte) {
	m.send(health.ServerID{}, &meshpb.Message{Message: &meshpb.Message_Overrides{Overrides: &meshpb.Overrides{Overrides: overrides}}})
}

func (m *Mesh) send(to health.ServerID, message *meshpb.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if to != (health.ServerID{}) {
		if l := m.peers[to]; l != nil {
			l.put(message)
		}
		return
	}
	for _, l := range m.peers {
		l.put(message)
	}
}

// Connected lists the peers that what is sent reaches, sorted.
func (m *Mesh) Connected() []health.ServerID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var connected []health.ServerID
	for _, id := range slices.SortedFunc(maps.Keys(m.peers), compareIDs) {
		if m.peers[id].connected() {
			connected = append(connected, id)
		}
	}
	return connected
}

func compareIDs(a, b health.ServerID) int {
	return control.ServerID(a).Compare(control.ServerID(b))
}

// Tell hears one peer.
func (m *Mesh) Tell(stream grpc.BidiStreamingServer[meshpb.Message, meshpb.Heard]) error {
	group, err := control.CallerGroup(stream.Context())
	if err != nil {
		return err
	}
	if !group.Authoritative() {
		return status.Errorf(codes.PermissionDenied, "group %s has no vote", group)
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	switch {
	case hello == nil || hello.GetName() == "" || len(hello.GetName()) > 253:
		return status.Error(codes.InvalidArgument, "the first message is no Hello")
	case hello.GetProtocol() != protocol:
		return status.Errorf(codes.FailedPrecondition, "protocol version %d is spoken, this server speaks %d", hello.GetProtocol(), protocol)
	}
	from := health.ServerID{Datacenter: group.Datacenter, Group: group.Group, Name: hello.GetName()}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if o := message.GetOverrides(); o != nil {
			if m.opts.OnOverrides != nil {
				m.opts.OnOverrides(o.GetOverrides())
			}
			continue
		}
		said, err := decode(message)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		m.opts.OnMessage(from, said)
		if said.Heartbeat != nil {
			if err := stream.Send(&meshpb.Heard{}); err != nil {
				return err
			}
		}
	}
}

// link is what one peer is told.
type link struct {
	mesh    *Mesh
	peer    health.ServerID
	address string
	wake    chan struct{} // something was put
	once    sync.Once
	stopped chan struct{}

	mu    sync.Mutex
	open  bool // there is a connection
	queue []*meshpb.Message
	unfit bool // the queue overflowed: the connection is to be given up
}

func (l *link) stop() { l.once.Do(func() { close(l.stopped) }) }

func (l *link) connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// put queues a message if there is a connection. Of heartbeats that wait the last is enough, if nothing came between.
func (l *link) put(message *meshpb.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open || l.unfit {
		return
	}
	if n := len(l.queue); n > 0 && message.GetHeartbeat() != nil && l.queue[n-1].GetHeartbeat() != nil {
		l.queue[n-1] = message
		return
	}
	if len(l.queue) >= maxQueue {
		l.queue, l.unfit = nil, true
	} else {
		l.queue = append(l.queue, message)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

var errOverflow = errors.New("the peer does not keep up")

func (l *link) take() ([]*meshpb.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unfit {
		return nil, errOverflow
	}
	queue := l.queue
	l.queue = nil
	return queue, nil
}

// run keeps a connection to the peer until ctx ends.
func (l *link) run(ctx context.Context) {
	pauses := control.NewPauses()
	reported := ""
	for ctx.Err() == nil {
		began := time.Now()
		err := l.connect(ctx)
		l.mu.Lock()
		l.open, l.queue, l.unfit = false, nil, false
		l.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > deaf {
			pauses = control.NewPauses()
		}
		if text := fmt.Sprint(err); text != reported {
			reported = text
			l.mesh.opts.Log.V(1).Info("no connection to a peer", "peer", l.peer.String(), "address", l.address, "cause", text)
		}
		if !pauses.Wait(ctx) {
			return
		}
	}
}

// connect opens a connection and speaks on it until it breaks.
func (l *link) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := control.DialPeer(l.address, l.mesh.opts.Credentials, control.GroupKey{Datacenter: l.peer.Datacenter, Group: l.peer.Group})
	if err != nil {
		return err
	}
	defer conn.Close()
	watchdog := time.AfterFunc(deaf, cancel)
	defer watchdog.Stop()
	stream, err := meshpb.NewMeshClient(conn).Tell(ctx)
	if err != nil {
		return err
	}
	hello := &meshpb.Hello{Protocol: protocol, Name: l.mesh.opts.Self.Name}
	if err := stream.Send(&meshpb.Message{Message: &meshpb.Message_Hello{Hello: hello}}); err != nil {
		return err
	}
	l.mu.Lock()
	l.open = true
	l.mu.Unlock()
	l.mesh.opts.OnConnected(l.peer)
	broken := make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				broken <- err
				return
			}
			watchdog.Reset(deaf)
		}
	}()
	for {
		queue, err := l.take()
		if err != nil {
			return err
		}
		for _, message := range queue {
			if err := stream.Send(message); err != nil {
				return errors.Join(err, drain(broken))
			}
		}
		select {
		case <-l.wake:
		case err := <-broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain returns why the other direction ended, if it has.
func drain(broken <-chan error) error {
	select {
	case err := <-broken:
		return err
	default:
		return nil
	}
}
