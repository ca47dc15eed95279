package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// ClientOptions configure the server's side of the stream.
type ClientOptions struct {
	Hubs     []string // HOST:PORT of managers, or of names that stand for several; at least one
	Siblings []string // HOST:PORT of other servers of the group, or of names that stand for all of it; may be empty

	Credentials     Credentials
	Name            string // of this server, unique in its group
	SoftwareVersion string
	// Peer is HOST:PORT where siblings and peers reach this server; ":PORT": at the address that
	// the hub sees; "": nowhere.
	Peer    string
	Replica Replica
	Log     logr.Logger

	MaxAbsent    AbsenceLimit  // zones that the hub may remove without approval; zero: 10 and 30%
	MaxZoneBytes int64         // octets of one zone as it is sent; 0: 512 MiB
	SiblingAfter time.Duration // so long an empty server is without a hub before it asks a sibling; 0: 2 s

	OnState func(State) // called after changes, one call at a time; must not block
	Now     func() time.Time
}

// State is what a Client has to tell about itself.
type State struct {
	Hub         string    // that the server is connected to, as in ClientOptions.Hubs; "": none
	Fence       Fence     // the highest seen
	LastContact time.Time // when the last stream ended, or now while connected; zero: never
	Synced      bool      // the hub has said since the start that nothing is left to send
	LastError   string    // why the last stream or attempt ended; "" while connected

	Installed uint64            // zones installed since the start, new versions and copies
	Documents uint64            // documents installed since the start
	Removed   uint64            // zones removed
	Nacks     map[string]uint64 // refusals by reason, see Nack.Reason
	Copied    uint64            // zones that came from a sibling
	CopiedAll bool              // a sibling has sent since the start all zones that it has
}

// Client connects a server to the hub that leads, and keeps its Replica as the hub wants it.
type Client struct {
	opts ClientOptions

	mu       sync.Mutex
	state    State
	owner    owner
	freed    chan struct{} // closed when the owner leaves, and replaced
	stopCopy context.CancelFunc
	sessions int // begun so far
	removed  removals
	heldBack map[zone.Name]bool // zones whose last update the guard held back

	durableMu sync.Mutex
	durable   map[resource]zone.Version // became durable, not told to the hub; of documents the digest
	lacking   map[resource]zone.Version // reported to the hub as not durable
	wakeLate  chan struct{}             // one element: both may have entries in common

	reports reports
}

// owner is who may change the replica: one session or one copy at a time.
type owner int

const (
	ownerNone owner = iota
	ownerCopy
	ownerSession
)

// NewClient returns a client that does nothing before Run.
func NewClient(opts ClientOptions) (*Client, error) {
	if len(opts.Hubs) == 0 {
		return nil, errors.New("no hub is given")
	}
	if !isServerName(opts.Name) {
		return nil, fmt.Errorf("%q is no name for a server", opts.Name)
	}
	if opts.MaxZoneBytes <= 0 {
		opts.MaxZoneBytes = defaultZoneBytes
	}
	if opts.SiblingAfter <= 0 {
		opts.SiblingAfter = 2 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.MaxAbsent = opts.MaxAbsent.orDefault()
	c := &Client{
		opts: opts, freed: make(chan struct{}), heldBack: map[zone.Name]bool{},
		durable: map[resource]zone.Version{}, lacking: map[resource]zone.Version{}, wakeLate: make(chan struct{}, 1),
	}
	opts.Replica.OnDurable(func(apex zone.Name, v zone.Version) { c.becameDurable(zoneResource(apex), v) })
	opts.Replica.OnDocumentDurable(func(kind string, digest zone.Digest) {
		c.becameDurable(resource{document: kind}, zone.Version{Digest: digest})
	})
	return c, nil
}

// State returns the present state.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stateLocked()
}

func (c *Client) stateLocked() State {
	s := c.state
	s.Nacks = maps.Clone(s.Nacks)
	if s.Hub != "" {
		s.LastContact = c.opts.Now()
	}
	return s
}

// update changes the state and tells OnState.
func (c *Client) update(f func(s *State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.state)
	if c.opts.OnState != nil {
		c.opts.OnState(c.stateLocked())
	}
}

// Run connects, and connects again, until ctx ends; then it returns nil once everything that
// it started has ended.
func (c *Client) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for i, hub := range c.opts.Hubs {
		all.Go(func() { c.follow(ctx, i, hub) })
	}
	if len(c.opts.Siblings) > 0 {
		all.Go(func() { c.copyWhenAlone(ctx) })
	}
	all.Wait()
	return nil
}

// stagger is what a hub later in the list is asked later.
const stagger = 30 * time.Millisecond

// follow asks one hub again and again whether it leads, as long as there is no session with
// another one, and has the session with it if it does.
func (c *Client) follow(ctx context.Context, place int, hub string) {
	var failures pauses
	for pause(ctx, time.Duration(place)*stagger) {
		if !c.waitFree(ctx) {
			return
		}
		started := time.Now()
		err := c.attempt(ctx, hub)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errTaken) {
			failures.reset()
			continue
		}
		if time.Since(started) > time.Minute {
			failures.reset()
		}
		if !pause(ctx, failures.next(limitAfter(err), jitter())) {
			return
		}
	}
}

// limitAfter is how long a hub is left alone at most after it failed so.
func limitAfter(err error) time.Duration {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.FailedPrecondition, codes.InvalidArgument, codes.Unimplemented, codes.ResourceExhausted:
		return refusedWait
	default:
		return maxPause
	}
}

var errTaken = errors.New("there is a session with another hub")

// waitFree waits until there is no session; false if ctx ended.
func (c *Client) waitFree(ctx context.Context) bool {
	for {
		c.mu.Lock()
		busy, freed := c.owner == ownerSession, c.freed
		c.mu.Unlock()
		if !busy {
			return ctx.Err() == nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return false
		}
	}
}

// claim makes the caller the one that may change the replica. A session ends a copy that is
// under way and fails with errTaken when there is another session.
func (c *Client) claim(ctx context.Context, who owner) error {
	for {
		c.mu.Lock()
		if c.owner == ownerNone {
			c.owner = who
			if who == ownerSession {
				c.sessions++
			}
			c.mu.Unlock()
			return nil
		}
		if c.owner == ownerSession || who == ownerCopy {
			c.mu.Unlock()
			return errTaken
		}
		c.stopCopy()
		freed := c.freed
		c.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Client) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owner = ownerNone
	close(c.freed)
	c.freed = make(chan struct{})
}

// attempt opens a stream to the hub and stays with it as long as it lasts. The error says
// why it is over; it is never nil.
func (c *Client) attempt(ctx context.Context, hub string) error {
	err := c.connect(ctx, hub)
	if ctx.Err() == nil && !errors.Is(err, errTaken) {
		c.update(func(s *State) { s.LastError = fmt.Sprintf("hub %s: %s", hub, status.Convert(err).Message()) })
	}
	return err
}

// welcomePatience is how long a hub may take to answer Hello. One that knows of a higher
// epoch than its own first has to take a higher one.
const welcomePatience = 10 * time.Second

func (c *Client) connect(ctx context.Context, hub string) error {
	conn, err := dial(hub, HubTLS(c.opts.Credentials))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := time.AfterFunc(welcomePatience, cancel)
	defer patience.Stop()
	stream, err := controlpb.NewHubClient(conn).Sync(ctx)
	if err != nil {
		return err
	}
	seen := c.opts.Replica.Fence()
	_ = stream.Send(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_Hello{Hello: &controlpb.Hello{
		Protocol: ProtocolVersion, Name: c.opts.Name, Software: c.opts.SoftwareVersion, Epoch: seen.Epoch, Cluster: seen.Cluster,
		Documents: true, Peer: c.opts.Peer,
	}}}) // Recv has the error
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	switch m.GetMessage().(type) {
	case *controlpb.HubMessage_Welcome:
	case *controlpb.HubMessage_NotLeader:
		return errNotLeader
	default:
		return status.Errorf(codes.Internal, "hub %s began with neither Welcome nor NotLeader", hub)
	}
	patience.Stop()
	if err := c.claim(ctx, ownerSession); err != nil {
		return err
	}
	defer c.release()
	c.update(func(s *State) { s.Hub, s.LastError = hub, "" })
	c.opts.Log.Info("connected", "hub", hub, "epoch", m.GetEpoch(), "cluster", m.GetWelcome().GetCluster())
	err = newSession(c, stream.Send, seen.Cluster).run(ctx, cancel, m, stream.Recv)
	c.update(func(s *State) { s.Hub, s.LastContact = "", c.opts.Now() })
	c.opts.Log.Info("connection to the hub ended", "hub", hub, "reason", status.Convert(err).Message())
	return err
}

func (c *Client) holdsBack(apex zone.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heldBack[apex]
}

func (c *Client) noteHeldBack(apex zone.Name, held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if held {
		c.heldBack[apex] = true
	} else {
		delete(c.heldBack, apex)
	}
}

// becameDurable is told by the replica; it does not block.
func (c *Client) becameDurable(r resource, v zone.Version) {
	c.durableMu.Lock()
	c.durable[r] = v
	c.durableMu.Unlock()
	c.checkLate()
}

// reportedLacking notes that the hub was told that a version is not durable.
func (c *Client) reportedLacking(r resource, v zone.Version) {
	c.durableMu.Lock()
	c.lacking[r] = v
	c.durableMu.Unlock()
	c.checkLate()
}

func (c *Client) checkLate() {
	select {
	case c.wakeLate <- struct{}{}:
	default:
	}
}

// lateAcks returns, once, the versions that were reported as not durable and are it now.
func (c *Client) lateAcks() map[resource]zone.Version {
	c.durableMu.Lock()
	defer c.durableMu.Unlock()
	late := map[resource]zone.Version{}
	for r, v := range c.lacking {
		if c.durable[r] == v {
			late[r] = v
			delete(c.lacking, r)
			delete(c.durable, r)
		}
	}
	return late
}

// forgetLate drops what concerns an earlier stream.
func (c *Client) forgetLate() {
	c.durableMu.Lock()
	defer c.durableMu.Unlock()
	clear(c.durable)
	clear(c.lacking)
}
