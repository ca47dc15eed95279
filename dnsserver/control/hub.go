package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// ProtocolVersion is what both ends of a stream must have in common.
const ProtocolVersion = 1

// Zone is one zone as the leader wants it served.
type Zone struct {
	Content *zone.Content
	Version zone.Version     // Version.Digest is Content.Digest()
	Source  string           // namespace/name of the DNSZone; servers record and report it
	Groups  []GroupKey       // who serves it
	Guard   zone.GuardPolicy // enforced again by the servers

	// Predecessor is the serial that the guard was applied against; 0 for none. A server that
	// is older than that catches up without asking again.
	Predecessor     uint32
	ApprovedRemoval string // Removal.Digest that a person approved, or ""
}

// same reports whether z and o are the same to a server; equal digests stand for equal content.
func (z *Zone) same(o *Zone) bool {
	return z.Version == o.Version && z.Source == o.Source && z.Guard == o.Guard && z.Predecessor == o.Predecessor &&
		z.ApprovedRemoval == o.ApprovedRemoval && slices.Equal(z.Groups, o.Groups)
}

// HubOptions configure a Hub. Callbacks are hints that something is worth a look: they are
// called from several goroutines, without locks held, and must not block.
type HubOptions struct {
	Log     logr.Logger
	Cluster string // identity of this hub's cluster, never empty

	MaxBytesInFlight int64        // octets of whole zones on their way to all servers; 0: 64 MiB
	MaxZoneBytes     int64        // octets of content that a server may send up; 0: 512 MiB
	MaxServers       int          // streams at once; 0: 4096
	MaxOfGroup       int          // of these, streams of one group, and so with one certificate; 0: 256
	MaxAbsent        AbsenceLimit // zones that may go from a server without approval; zero: 10 and 30%

	// Known reports whether there is a group of agents; nil: all are known. Agents of others are refused. It must not call the hub.
	Known func(GroupKey) bool

	OnZone   func(apex zone.Name) // a server reported, acked, refused or dropped it; not called when a server leaves
	OnServer func(ServerID)       // it joined, left, came in or out of sync, answered a document, or its absent zones changed
	OnEpoch  func(seen uint64)    // an authoritative server has seen this epoch, and ours is not above it

	// OnReport gets what servers report, one call at a time for each stream; body is the callee's. A server
	// reports all again after it joined.
	OnReport func(id ServerID, kind string, body []byte)

	DocumentRetry time.Duration // so long after a refusal a document is sent again; 0: 1 min

	Now func() time.Time // nil: time.Now
}

// Hub is the hub's side of all streams. It does nothing before Lead. Methods may be called
// concurrently and, but for Fetch, never wait for a server.
type Hub struct {
	controlpb.UnimplementedHubServer
	opts    HubOptions
	budget  *budget
	fetches chan struct{} // one element for each fetch under way
	sent    Sent          // guarded by mu

	mu               sync.Mutex
	epoch            uint64 // 0: not leading
	complete         bool
	zones            map[zone.Name]*desired
	documents        map[GroupKey]map[string]*desiredDocument // by kind
	documentRevision uint64                                   // the last
	open             map[*peer]struct{}                       // every stream, also of servers that have not said Hello
	openOf           map[GroupKey]int                         // counts these
	peers            map[ServerID]*peer                       // the welcomed ones
	past             map[ServerID]*past                       // of servers that lost zones under this leader
	approved         map[string][]string                      // digests by datacenter, newest last
}

// desired is what the hub knows of a zone that is published or retained.
type desired struct {
	zone     Zone // Content is nil while retained
	groups   map[GroupKey]bool
	revision uint64 // changes with every change of zone; a refused revision is not sent again
	octets   int64  // of the whole zone, encoded; 0: not counted
	recent   []recent
}

type recent struct {
	version zone.Version
	content *zone.Content
}

// keepRecent is how many versions of a zone the hub keeps as bases of deltas, beside those
// that connected servers hold.
const keepRecent = 8

func (d *desired) published() bool { return d != nil && d.zone.Content != nil }

func (d *desired) wantedBy(g GroupKey) bool { return d.published() && d.groups[g] }

func (d *desired) content(digest zone.Digest) *zone.Content {
	for _, r := range d.recent {
		if r.version.Digest == digest {
			return r.content
		}
	}
	return nil
}

// ahead reports whether a held version, which nobody published, is one that the published
// serial does not exceed; far, that it is so far beyond that reserving beyond it would be
// giving the serial away (2^30 of 2^32).
func (d *desired) ahead(held zone.Version) (ahead, far bool) {
	if held.IsZero() || slices.ContainsFunc(d.recent, func(r recent) bool { return r.version == held }) {
		return false, false
	}
	want := d.zone.Version.Serial
	switch {
	case held.Serial == want:
		return true, false
	case zone.SerialLess(want, held.Serial):
		return true, held.Serial-want > 1<<30
	default:
		return false, false
	}
}

// past is what happened to a server's zones, kept over reconnects.
type past struct {
	removed  removals
	withheld map[zone.Name]bool // absent zones that wait for approval
	last     time.Time          // the server was connected
}

// NewHub returns a hub that follows: it answers every server with NotLeader.
func NewHub(opts HubOptions) *Hub {
	if opts.MaxBytesInFlight <= 0 {
		opts.MaxBytesInFlight = 64 << 20
	}
	if opts.MaxZoneBytes <= 0 {
		opts.MaxZoneBytes = defaultZoneBytes
	}
	if opts.MaxServers <= 0 {
		opts.MaxServers = 4096
	}
	if opts.MaxOfGroup <= 0 {
		opts.MaxOfGroup = 256
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.DocumentRetry <= 0 {
		opts.DocumentRetry = time.Minute
	}
	opts.MaxAbsent = opts.MaxAbsent.orDefault()
	h := &Hub{opts: opts, budget: &budget{size: opts.MaxBytesInFlight}, fetches: make(chan struct{}, maxFetches), open: map[*peer]struct{}{}, openOf: map[GroupKey]int{}}
	h.forget()
	return h
}

// defaultZoneBytes bounds a zone as it is sent, in octets: several million records.
const defaultZoneBytes = 512 << 20

// forget drops the state of a leadership. h.mu is held, or h not shared yet.
func (h *Hub) forget() {
	h.epoch, h.complete = 0, false
	h.zones = map[zone.Name]*desired{}
	h.documents = map[GroupKey]map[string]*desiredDocument{}
	h.peers = map[ServerID]*peer{}
	h.past = map[ServerID]*past{}
	h.approved = map[string][]string{}
}

// Register makes s serve the hub. s needs ServerOptions.
func (h *Hub) Register(s grpc.ServiceRegistrar) { controlpb.RegisterHubServer(s, h) }

// notes collects what the callbacks are to be told once the lock is released.
type notes struct {
	zones   map[zone.Name]struct{}
	servers map[ServerID]struct{}
	epoch   uint64
}

func (n *notes) zone(apex zone.Name) {
	if n.zones == nil {
		n.zones = map[zone.Name]struct{}{}
	}
	n.zones[apex] = struct{}{}
}

func (n *notes) server(id ServerID) {
	if n.servers == nil {
		n.servers = map[ServerID]struct{}{}
	}
	n.servers[id] = struct{}{}
}

// change runs f under the lock and tells the callbacks afterwards.
func (h *Hub) change(f func(n *notes)) {
	var n notes
	h.mu.Lock()
	f(&n)
	h.mu.Unlock()
	if h.opts.OnEpoch != nil && n.epoch != 0 {
		h.opts.OnEpoch(n.epoch)
	}
	if h.opts.OnServer != nil {
		for id := range n.servers {
			h.opts.OnServer(id)
		}
	}
	if h.opts.OnZone != nil {
		for apex := range n.zones {
			h.opts.OnZone(apex)
		}
	}
}

// Lead accepts streams and pushes under the epoch, which only grows: a lower one is ignored.
func (h *Hub) Lead(epoch uint64) {
	h.change(func(n *notes) {
		if epoch <= h.epoch {
			return
		}
		h.epoch = epoch
		for p := range h.open {
			p.tryWelcome(n)
		}
	})
}

// Resign stops leading: servers are sent to the next hub, and all state is dropped.
func (h *Hub) Resign() {
	h.change(func(n *notes) {
		for p := range h.open {
			p.end(errNotLeader)
		}
		for id := range h.peers {
			n.server(id)
		}
		h.forget()
	})
}

// Publish makes z what the servers of its groups are to serve. The latest call wins; the
// same zone again changes nothing, not even for a server that refused it. z is not to be
// changed afterwards. A version whose digest is not that of the content is not published.
func (h *Hub) Publish(z Zone) {
	apex := z.Content.Apex()
	if z.Version.Digest != z.Content.Digest() {
		h.opts.Log.Error(fmt.Errorf("version %s is not that of the content", z.Version), "zone is not published", "zone", apex)
		return
	}
	h.change(func(n *notes) {
		d := h.zones[apex]
		if d == nil {
			d = &desired{}
			h.zones[apex] = d
		}
		if d.published() && d.zone.same(&z) {
			return
		}
		if d.zone.Version.Digest != z.Version.Digest {
			d.octets = 0
		}
		d.zone = z
		d.revision++
		d.groups = map[GroupKey]bool{}
		for _, g := range z.Groups {
			d.groups[g] = true
		}
		d.recent = slices.DeleteFunc(d.recent, func(r recent) bool { return r.version == z.Version })
		d.recent = append(d.recent, recent{z.Version, z.Content})
		if extra := len(d.recent) - keepRecent; extra > 0 {
			d.recent = slices.Delete(d.recent, 0, extra)
		}
		h.reconsider(apex, n)
	})
}

// Retain leaves on every server what it has of the zone, and sends nothing.
func (h *Hub) Retain(apex zone.Name) {
	h.change(func(n *notes) {
		d := h.zones[apex]
		if d == nil {
			d = &desired{}
			h.zones[apex] = d
		}
		d.zone, d.groups = Zone{}, nil
		d.revision++
		h.reconsider(apex, n)
	})
}

// Withdraw says that nobody is to serve the zone any more. Servers drop it within the limits
// on absence, once SetComplete was called.
func (h *Hub) Withdraw(apex zone.Name) {
	h.change(func(n *notes) {
		delete(h.zones, apex)
		h.reconsider(apex, n)
	})
}

func (h *Hub) reconsider(apex zone.Name, n *notes) {
	for _, p := range h.peers {
		p.reconsider(apex, n)
	}
}

// SetComplete says that every zone there is was published, retained or withdrawn: from now
// on zones that servers hold and nobody wants are absent.
func (h *Hub) SetComplete() {
	h.change(func(*notes) {
		h.complete = true
		for _, p := range h.peers {
			p.ruleAgain()
		}
	})
}

// keepApprovals bounds the approvals of a datacenter; the oldest are dropped.
const keepApprovals = 64

// ApproveAbsence lets the servers of the datacenter drop the absent zones that the digest
// (ServerReport.Absence) stands for, now or when they come to be held back.
func (h *Hub) ApproveAbsence(datacenter, digest string) {
	h.change(func(*notes) {
		list := h.approved[datacenter]
		if digest == "" || slices.Contains(list, digest) {
			return
		}
		h.approved[datacenter] = append(list[max(0, len(list)+1-keepApprovals):], digest)
		for _, p := range h.peers {
			if p.id.Datacenter == datacenter {
				p.ruleAgain()
			}
		}
	})
}

// ZoneReport is how far a zone is on its way to the connected servers.
type ZoneReport struct {
	Wanted  zone.Version // zero: not published
	Servers []ZoneServer // those that are to serve it, and others that hold it; by ID
	Ahead   []Ahead      // by server
}

// ZoneServer is one zone at one server.
type ZoneServer struct {
	ID         ServerID
	Wanted     bool         // the server is to serve it
	Held       zone.Version // what it serves; zero: nothing
	Current    bool         // it serves the wanted version
	NotDurable bool         // what it serves is not on its disk
	Nack       *Nack        // it refused what was sent last; nil: it did not
}

// Nack says why a server refused a zone.
type Nack struct {
	Version zone.Version
	Reason  string // StaleEpoch, BaseMissing, DigestMismatch, Malformed, TooLarge, GuardHeld or Failed
	Message string
	Removal *zone.Removal // GuardHeld: what would go from that server, with the digest to approve
}

// Ahead is a version that a server holds, that this hub did not publish, and that the wanted
// serial does not exceed. The server is sent nothing until a serial beyond it is published.
type Ahead struct {
	ID      ServerID
	Version zone.Version

	// TooFar is set when it is more than 2^30 beyond the wanted serial. It is then no reason
	// to reserve beyond it, and the server is sent the wanted version.
	TooFar bool
}

// Zone reports on one zone.
func (h *Hub) Zone(apex zone.Name) ZoneReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	var r ZoneReport
	d := h.zones[apex]
	if d.published() {
		r.Wanted = d.zone.Version
	}
	for _, p := range h.peersInOrder() {
		s := p.zones[apex]
		if s == nil || !p.ready() {
			continue
		}
		r.Servers = append(r.Servers, ZoneServer{
			ID: p.id, Wanted: s.wanted, Held: s.held.Version, Current: s.current, NotDurable: s.held.NotDurable, Nack: s.nack,
		})
		if s.wanted {
			if ahead, far := d.ahead(s.held.Version); ahead {
				r.Ahead = append(r.Ahead, Ahead{p.id, s.held.Version, far})
			}
		}
	}
	return r
}

// peersInOrder returns the welcomed servers by ID. h.mu is held.
func (h *Hub) peersInOrder() []*peer {
	return slices.SortedFunc(maps.Values(h.peers), func(a, b *peer) int { return a.id.Compare(b.id) })
}

// ServerReport is the state of one connected server.
type ServerReport struct {
	ID       ServerID
	Software string // version, as it says
	Peer     string // HOST:PORT where siblings and peers reach it, as it says; "": not known
	Wanted   int    // zones that it is to serve
	Current  int    // of these: served in the wanted version
	Absence  Absence

	TakesDocuments bool             // its program knows documents; if not, it is sent none
	Documents      []ServerDocument // that it is to have, by kind
}

// Synced reports whether the server has everything that it is to have.
func (r *ServerReport) Synced() bool {
	return r.Wanted == r.Current && !slices.ContainsFunc(r.Documents, func(d ServerDocument) bool { return !d.Current })
}

// Absence is the zones that a server holds, nobody wants, and only an approval removes.
type Absence struct {
	Count    int
	Examples []zone.Name // the first in canonical order, at most zone.MaxRemovalExamples
	Digest   string      // for ApproveAbsence; "" if Count is 0
}

// Servers reports on the connected authoritative servers, by ID.
func (h *Hub) Servers() []ServerReport { return h.connected(true) }

// Agents reports on who is connected and is no authoritative server, by ID. Agents hold no zones, and their word counts for
// nothing that authoritative servers are told.
func (h *Hub) Agents() []ServerReport { return h.connected(false) }

func (h *Hub) connected(authoritative bool) []ServerReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []ServerReport
	for _, p := range h.peersInOrder() {
		if p.ready() && p.group.Authoritative() == authoritative {
			r := ServerReport{
				ID: p.id, Software: p.software, Peer: p.address, Wanted: p.wanted, Current: p.current, Absence: p.absence, TakesDocuments: p.takesDocuments,
			}
			for _, kind := range slices.Sorted(maps.Keys(p.documents)) {
				if s := p.documents[kind]; s.wanted {
					r.Documents = append(r.Documents, ServerDocument{
						Kind: kind, Digest: h.documents[p.group][kind].digest, Current: s.current, NotDurable: s.notDurable, Nack: s.nack,
					})
				}
			}
			all = append(all, r)
		}
	}
	return all
}

// Sent counts what a hub has sent to servers since it was made.
type Sent struct {
	Whole     uint64 // transfers of whole zones
	Changes   uint64 // transfers of what differed
	Versions  uint64 // transfers of a version, source or cluster without content
	Documents uint64 // transfers of documents
	Removals  uint64 // zones asked to be dropped
	Octets    uint64 // of encoded content
}

// Sent returns the counts.
func (h *Hub) Sent() Sent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sent
}

// HeldReport is what a server says it has of a zone.
type HeldReport struct {
	ID ServerID
	Held
}

// Held reports which connected servers have the zone, by ID, whether or not it is published.
func (h *Hub) Held(apex zone.Name) []HeldReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []HeldReport
	for _, p := range h.peersInOrder() {
		if s := p.zones[apex]; s != nil && p.ready() && s.holds() {
			all = append(all, HeldReport{p.id, s.held})
		}
	}
	return all
}

// HeldZones lists the zones that some connected server has, in canonical order.
func (h *Hub) HeldZones() []zone.Name {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[zone.Name]struct{}{}
	for _, p := range h.peers {
		for apex, s := range p.zones {
			if p.ready() && s.holds() {
				seen[apex] = struct{}{}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(seen), zone.Name.Compare)
}

// ForeignDatacenters lists the datacenters of connected servers that hold a zone of another hub cluster, sorted.
func (h *Hub) ForeignDatacenters() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[string]struct{}{}
	for _, p := range h.peers {
		if _, known := seen[p.id.Datacenter]; known || !p.ready() {
			continue
		}
		for _, s := range p.zones {
			if s.holds() && s.held.Cluster != h.opts.Cluster {
				seen[p.id.Datacenter] = struct{}{}
				break
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// Content returns content of the zone that the hub has in memory, for it was published under
// this leader and is recent; else nil.
func (h *Hub) Content(apex zone.Name, digest zone.Digest) *zone.Content {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.zones[apex]; d != nil {
		return d.content(digest)
	}
	return nil
}

// How long a stream may take for its beginning, and for hearing that it ends.
const (
	helloPatience   = 10 * time.Second
	heldPatience    = time.Minute
	goodbyePatience = 500 * time.Millisecond
)

var (
	errNotLeader = status.Error(codes.Unavailable, "this hub does not lead")
	errReplaced  = status.Error(codes.Aborted, "the server has opened another stream")
	errLeft      = status.Error(codes.Aborted, "the stream has ended")
)

// Sync serves one stream.
func (h *Hub) Sync(stream grpc.BidiStreamingServer[controlpb.ServerMessage, controlpb.HubMessage]) error {
	group, err := callerGroup(stream.Context())
	if err != nil {
		h.opts.Log.Info("refused a server", "reason", status.Convert(err).Message())
		return err
	}
	p, err := h.admit(group, callerAddress(stream.Context()))
	if err != nil {
		if errors.Is(err, errNotLeader) {
			_ = stream.Send(notLeader()) // the status says the same to who does not read it
		}
		return err
	}
	defer h.leave(p)
	done := make(chan error, 2)
	go func() { done <- p.receive(stream) }()
	go func() { done <- p.transmit(stream) }()
	begin := time.AfterFunc(helloPatience, func() { p.late(status.Error(codes.DeadlineExceeded, "no Hello in time"), stateNew) })
	defer begin.Stop()
	list := time.AfterFunc(heldPatience, func() {
		p.late(status.Error(codes.DeadlineExceeded, "not welcomed, or held zones not listed, in time"), stateListing)
	})
	defer list.Stop()
	select {
	case err = <-done:
		return err
	case <-p.ended:
	}
	// The last words are for a server that reads.
	goodbye := time.NewTimer(goodbyePatience)
	defer goodbye.Stop()
	select {
	case <-done: //nolint:errcheck // the cause is what ended the stream
	case <-goodbye.C:
	}
	return p.cause
}

func (h *Hub) admit(group GroupKey, from net.Addr) (*peer, error) {
	known := h.known(group)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.epoch == 0 {
		return nil, errNotLeader
	}
	if !known {
		return nil, unknownGroup(group)
	}
	if len(h.open) >= h.opts.MaxServers {
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams are open already", len(h.open))
	}
	if h.openOf[group] >= h.opts.MaxOfGroup {
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams of group %s are open already", h.openOf[group], group)
	}
	p := newPeer(h, group, from)
	h.open[p] = struct{}{}
	h.openOf[group]++
	return p, nil
}

func (h *Hub) known(group GroupKey) bool {
	return group.Authoritative() || h.opts.Known == nil || h.opts.Known(group)
}

func unknownGroup(group GroupKey) error {
	return status.Errorf(codes.PermissionDenied, "there is no group %s of agents any more", group)
}

// Expel ends the streams of agents whose group HubOptions.Known does not report any more.
func (h *Hub) Expel() {
	h.mu.Lock()
	groups := slices.Collect(maps.Keys(h.openOf))
	h.mu.Unlock()
	groups = slices.DeleteFunc(groups, h.known)
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range h.open {
		if slices.Contains(groups, p.group) {
			p.end(unknownGroup(p.group))
		}
	}
}

// leave forgets a stream that has ended.
func (h *Hub) leave(p *peer) {
	p.end(errLeft)
	h.change(func(n *notes) {
		delete(h.open, p)
		if h.openOf[p.group]--; h.openOf[p.group] == 0 {
			delete(h.openOf, p.group)
		}
		for _, f := range p.flights {
			f.lease.release()
		}
		if h.peers[p.id] != p {
			return
		}
		delete(h.peers, p.id)
		if past := h.past[p.id]; past != nil {
			past.last = h.opts.Now()
		}
		n.server(p.id)
		h.opts.Log.Info("server left", "server", p.id)
	})
}

func notLeader() *controlpb.HubMessage {
	return &controlpb.HubMessage{Message: &controlpb.HubMessage_NotLeader{NotLeader: &controlpb.NotLeader{}}}
}

// maxFetches bounds how many zones are fetched at once.
const maxFetches = 8

// NotHeldError says that no connected server could give the content asked for.
type NotHeldError struct {
	Apex   zone.Name
	Digest zone.Digest
	Last   error // from the last server asked; nil: none holds it
}

func (e *NotHeldError) Error() string {
	if e.Last != nil {
		return fmt.Sprintf("zone %s: content %.12s could not be fetched: %v", e.Apex, e.Digest, e.Last)
	}
	return fmt.Sprintf("zone %s: no connected server holds content %.12s", e.Apex, e.Digest)
}

func (e *NotHeldError) Unwrap() error { return e.Last }

// Fetch returns the content of that digest from memory, or from a server that holds it: of
// the zone's groups, if the zone is published. It tries one server after the other and fails
// with a NotHeldError, or when ctx ends.
func (h *Hub) Fetch(ctx context.Context, apex zone.Name, digest zone.Digest) (*zone.Content, error) {
	if c := h.Content(apex, digest); c != nil {
		return c, nil
	}
	select {
	case h.fetches <- struct{}{}:
		defer func() { <-h.fetches }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	tried := map[ServerID]bool{}
	failed := &NotHeldError{Apex: apex, Digest: digest}
	for {
		p := h.holder(apex, digest, tried)
		if p == nil {
			return nil, failed
		}
		tried[p.id] = true
		c, err := p.fetch(ctx, apex, digest)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failed.Last = fmt.Errorf("server %s: %w", p.id, err)
	}
}

func (h *Hub) holder(apex zone.Name, digest zone.Digest, but map[ServerID]bool) *peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.zones[apex]
	for _, p := range h.peersInOrder() {
		if but[p.id] || !p.ready() || d.published() && !d.groups[p.id.GroupKey()] {
			continue
		}
		if s := p.zones[apex]; s != nil && s.held.Version.Digest == digest {
			return p
		}
	}
	return nil
}
