package control

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// peer is the hub's end of one stream. Two goroutines serve it: receive hands what comes to
// handle, transmit sends what next returns. What waits to be sent is a set of zone names;
// what is sent of a zone is decided when its turn comes.
type peer struct {
	hub   *Hub
	group GroupKey
	wake  chan struct{} // one element: there may be something to send

	once  sync.Once
	ended chan struct{} // closed by end
	cause error         // set before ended is closed

	// Guarded by hub.mu.
	state      peerState
	id         ServerID
	software   string
	fence      Fence // the highest the server has seen
	oweWelcome bool
	zones      map[zone.Name]*slot
	dirty      nameSet            // zones to look at
	flights    map[uint64]*flight // by transfer
	lastID     uint64             // of transfers, batches and fetches
	wanted     int                // slots that are wanted, current, hold something
	current    int
	holds      int
	inSync     bool // all that is wanted is current, as told last

	from             net.Addr // of the stream; nil: not known
	address          string   // where peers reach the server; "": not known
	takesDocuments   bool
	documents        map[string]*documentSlot   // by kind
	documentFlights  map[uint64]*documentFlight // by transfer
	documentsDue     bool                       // some may have to be sent
	heldDocuments    int                        // listed by Held
	wantedDocuments  int                        // slots that are wanted, and of these current
	currentDocuments int

	absent  map[zone.Name]struct{} // held, unwanted, not being removed
	ruleDue bool                   // the absent zones are to be ruled on
	batch   *batch                 // the removal under way
	refused string                 // digest of an approved removal that the server refused all the same
	absence Absence

	asked      []*fetch // not sent yet
	fetching   map[uint64]*fetch
	toldSynced bool

	// Owned by transmit.
	out      []*controlpb.HubMessage // to be sent next: one transfer or batch at most
	bulk     []*flight               // wait for a share of the budget, first come first served
	sending  *flight                 // the one of them that is being sent in chunks
	bulkTurn bool                    // a chunk of sending comes before the next dirty zone
}

type peerState int

const (
	stateNew     peerState = iota // no Hello yet
	stateWaiting                  // for an epoch of ours that the server admits
	stateListing                  // welcomed; Held messages come
	stateReady
)

// slot is one zone at one server: what it has and what it should have.
type slot struct {
	held     Held          // as reported or acked; zero Version: nothing
	content  *zone.Content // of held, if the hub has it: the base of deltas
	distrust bool          // the server could not use that base
	flight   *flight       // sent or about to be, and not answered; nil: none
	removing bool          // part of the batch under way

	nack         *Nack
	nackRevision uint64 // of desired, that was refused

	wanted, current, counted bool // as counted in peer.wanted, current, holds
}

func (s *slot) holds() bool { return !s.held.Version.IsZero() }

// flight is a transfer, from the decision to send until the answer.
type flight struct {
	id        uint64
	apex      zone.Name
	zone      Zone
	revision  uint64
	base      *zone.Content // nil: the whole zone is sent
	size      int64         // of a bulk transfer, in octets
	lease     *lease        // nil: none was asked for; written by transmit, under the lock
	committed bool          // all of it was given to the stream
	pull      func() ([]byte, bool)
	stop      func()
}

// batch is a removal that the server has not answered.
type batch struct {
	id       uint64
	apexes   []zone.Name
	approved string
	sent     bool
}

// nameSet is a set of names that are taken out in the order they came in.
type nameSet struct {
	order []zone.Name
	in    map[zone.Name]struct{}
}

// add reports whether n is new in the set.
func (s *nameSet) add(n zone.Name) bool {
	if _, ok := s.in[n]; ok {
		return false
	}
	if s.in == nil {
		s.in = map[zone.Name]struct{}{}
	}
	s.in[n] = struct{}{}
	s.order = append(s.order, n)
	return true
}

func (s *nameSet) take() (n zone.Name, ok bool) {
	if len(s.order) == 0 {
		return "", false
	}
	n = s.order[0]
	s.order = s.order[1:]
	delete(s.in, n)
	return n, true
}

func newPeer(h *Hub, group GroupKey, from net.Addr) *peer {
	return &peer{
		hub: h, group: group, from: from, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		zones: map[zone.Name]*slot{}, flights: map[uint64]*flight{}, absent: map[zone.Name]struct{}{}, fetching: map[uint64]*fetch{},
		documents: map[string]*documentSlot{}, documentFlights: map[uint64]*documentFlight{},
	}
}

// end makes the stream end with the cause; only the first call counts.
func (p *peer) end(cause error) {
	p.once.Do(func() {
		p.cause = cause
		close(p.ended)
	})
}

func (p *peer) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// late ends a stream that has not come beyond a state.
func (p *peer) late(cause error, beyond peerState) {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if p.state <= beyond {
		p.end(cause)
	}
}

// poke makes transmit look whether there is something to send.
func (p *peer) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *peer) ready() bool { return p.state == stateReady }

func (p *peer) receive(stream grpc.BidiStreamingServer[controlpb.ServerMessage, controlpb.HubMessage]) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.handle(m); err != nil {
			return err
		}
	}
}

func (p *peer) transmit(stream grpc.BidiStreamingServer[controlpb.ServerMessage, controlpb.HubMessage]) error {
	defer p.stopBulk()
	for {
		if p.over() {
			if errors.Is(p.cause, errNotLeader) {
				_ = stream.Send(notLeader()) // the status says the same
			}
			return p.cause
		}
		if m := p.next(); m != nil {
			if err := stream.Send(m); err != nil {
				return err
			}
			continue
		}
		select {
		case <-p.wake:
		case <-p.ended:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// handle takes one message from the server. An error ends the stream.
func (p *peer) handle(m *controlpb.ServerMessage) error {
	switch m := m.GetMessage().(type) {
	case *controlpb.ServerMessage_FetchChunk:
		return p.takeFetched(m.FetchChunk)
	case *controlpb.ServerMessage_FetchFailed:
		p.failFetch(m.FetchFailed)
		return nil
	case *controlpb.ServerMessage_Report:
		id, err := p.takeReport(m.Report)
		if err == nil && p.hub.opts.OnReport != nil {
			p.hub.opts.OnReport(id, m.Report.GetKind(), m.Report.GetBody())
		}
		return err
	}
	var err error
	p.hub.change(func(n *notes) {
		if p.over() {
			err = p.cause
			return
		}
		switch m := m.GetMessage().(type) {
		case *controlpb.ServerMessage_Hello:
			err = p.takeHello(m.Hello, n)
		case *controlpb.ServerMessage_Held:
			err = p.takeHeld(m.Held, n)
		case *controlpb.ServerMessage_Ack:
			err = p.takeAck(m.Ack, n)
		case *controlpb.ServerMessage_NotDurable:
			err = p.takeNotDurable(m.NotDurable, n)
		case *controlpb.ServerMessage_Nack:
			err = p.takeNack(m.Nack, n)
		case *controlpb.ServerMessage_Removed:
			err = p.takeRemoved(m.Removed, n)
		default: // of a later version
		}
	})
	if err != nil {
		p.hub.opts.Log.Info("stream ends", "group", p.group, "server", p.id.Name, "reason", status.Convert(err).Message())
	}
	return err
}

func malformed(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// maxEpochStep bounds how far beyond ours an epoch may be that a server reports: epochs
// count leaders, and one server must not be able to use them up.
const maxEpochStep = 1 << 32

func (p *peer) checkEpoch(epoch uint64) error {
	if epoch > p.hub.epoch && epoch-p.hub.epoch > maxEpochStep {
		return malformed("epoch %d is impossible: ours is %d", epoch, p.hub.epoch)
	}
	return nil
}

// seen notes an epoch that the other end has seen. What an agent says raises no epoch of ours: it waits until the epoch is
// raised by what authoritative servers have seen.
func (p *peer) seen(epoch uint64, n *notes) {
	if p.group.Authoritative() {
		n.epoch = max(n.epoch, epoch)
	}
}

func (p *peer) takeHello(m *controlpb.Hello, n *notes) error {
	if p.state != stateNew {
		return malformed("a second Hello")
	}
	if m.GetProtocol() != ProtocolVersion {
		return status.Errorf(codes.FailedPrecondition, "server %q (%s) speaks protocol version %d, this hub speaks %d: update the older one",
			clip(m.GetName()), clip(m.GetSoftware()), m.GetProtocol(), ProtocolVersion)
	}
	if !isServerName(m.GetName()) {
		return malformed("%q is no name for a server", clip(m.GetName()))
	}
	if err := p.checkEpoch(m.GetEpoch()); err != nil {
		return err
	}
	p.id = ServerID{p.group.Datacenter, p.group.Group, m.GetName()}
	p.software = clip(m.GetSoftware())
	p.fence = Fence{m.GetEpoch(), m.GetCluster()}
	p.takesDocuments = m.GetDocuments()
	p.address = reachable(m.GetPeer(), p.from)
	p.state = stateWaiting
	p.tryWelcome(n)
	return nil
}

// tryWelcome lets the server in, or tells it our new epoch, if it admits our epoch.
func (p *peer) tryWelcome(n *notes) {
	h := p.hub
	if p.state == stateNew || p.over() {
		return
	}
	ours := Fence{h.epoch, h.opts.Cluster}
	if !p.fence.Admits(ours) {
		p.seen(p.fence.Epoch, n)
		return
	}
	p.fence = ours
	p.oweWelcome = true
	p.poke()
	if p.state != stateWaiting {
		return
	}
	if old := h.peers[p.id]; old != nil {
		old.end(errReplaced)
	}
	h.peers[p.id] = p
	p.state = stateListing
}

// maxHeld bounds the zones of one server.
const maxHeld = 1 << 18

func (p *peer) takeHeld(m *controlpb.Held, n *notes) error {
	if p.state != stateListing {
		return malformed("Held is not expected now")
	}
	if len(m.GetZones()) > 0 && !p.group.Authoritative() {
		return malformed("Held: group %s is none of authoritative servers, and has no zones", p.group)
	}
	for _, z := range m.GetZones() {
		apex, err := apexOf(z.GetApex())
		if err != nil {
			return malformed("Held: %v", err)
		}
		v, err := versionOf(z.GetVersion())
		if err != nil {
			return malformed("Held: zone %s: %v", apex, err)
		}
		held := Held{Apex: apex, Version: v, Source: clip(z.GetSource()), Cluster: clip(z.GetCluster()), Records: int(z.GetRecords()), NotDurable: z.GetNotDurable()}
		if held.Cluster == "" {
			held.Cluster = p.fence.Cluster
		}
		s := p.zones[apex]
		if s == nil {
			if len(p.zones) >= maxHeld {
				return status.Errorf(codes.ResourceExhausted, "more than %d zones", maxHeld)
			}
			s = &slot{}
			p.zones[apex] = s
		}
		if s.holds() {
			return malformed("Held: zone %s comes twice", apex)
		}
		s.held = held
		n.zone(apex)
	}
	for _, d := range m.GetDocuments() {
		if err := p.takeHeldDocument(d); err != nil {
			return err
		}
	}
	if !m.GetLast() {
		return nil
	}
	p.state = stateReady
	p.ruleDue = true
	for apex := range p.zones {
		p.reconsider(apex, n)
	}
	for apex := range p.hub.zones {
		p.reconsider(apex, n)
	}
	for kind := range p.hub.documents[p.group] {
		p.reconsiderDocument(kind, n)
	}
	p.inSync = p.isInSync()
	n.server(p.id)
	p.hub.opts.Log.Info("server joined", "server", p.id, "software", p.software, "zones", p.holds, "wanted", p.wanted, "current", p.current)
	p.poke()
	return nil
}

// reconsider brings all that is derived of one zone up to date after any change of what the
// server has or should have. It is cheap, and says nothing to the server by itself.
func (p *peer) reconsider(apex zone.Name, n *notes) {
	d, s := p.hub.zones[apex], p.zones[apex]
	wanted := d.wantedBy(p.group)
	if s == nil {
		if !wanted {
			return
		}
		s = &slot{}
		p.zones[apex] = s
	}
	count(&p.wanted, &s.wanted, wanted)
	count(&p.current, &s.current, wanted && s.held.Version == d.zone.Version)
	count(&p.holds, &s.counted, s.holds())
	if s.holds() && s.content == nil && !s.distrust && d != nil {
		s.content = d.content(s.held.Version.Digest)
	}
	if s.nack != nil && (d == nil || d.revision != s.nackRevision) {
		s.nack = nil
	}
	if p.due(d, s) && p.dirty.add(apex) {
		p.poke()
	}
	p.reconsiderAbsence(apex, s, d != nil && d.zone.Content == nil)
	p.noteSync(n)
	if !wanted && !s.holds() && s.flight == nil && !s.removing {
		delete(p.zones, apex)
	}
}

// count keeps the total of what is true.
func count(total *int, was *bool, is bool) {
	if is && !*was {
		*total++
	} else if !is && *was {
		*total--
	}
	*was = is
}

func (p *peer) isInSync() bool {
	return p.wanted == p.current && p.wantedDocuments == p.currentDocuments
}

func (p *peer) noteSync(n *notes) {
	if inSync := p.isInSync(); p.ready() && inSync != p.inSync {
		p.inSync = inSync
		n.server(p.id)
	}
}

// due reports whether the zone is to be sent: wanted, not what the server has, not under way,
// not refused, and not beyond what we may serve.
func (p *peer) due(d *desired, s *slot) bool {
	if !s.wanted || s.flight != nil || s.removing || s.nack != nil {
		return false
	}
	if s.current && s.held.Source == d.zone.Source && s.held.Cluster == p.hub.opts.Cluster {
		return false
	}
	ahead, far := d.ahead(s.held.Version)
	return !ahead || far
}

func (p *peer) reconsiderAbsence(apex zone.Name, s *slot, retained bool) {
	past := p.hub.past[p.id]
	if !s.holds() || s.wanted || retained {
		if past != nil {
			delete(past.withheld, apex)
		}
		if _, was := p.absent[apex]; was {
			delete(p.absent, apex)
			p.ruleAgain()
		}
		return
	}
	if _, was := p.absent[apex]; !was && !s.removing && s.flight == nil {
		p.absent[apex] = struct{}{}
		p.ruleAgain()
	}
}

// ruleAgain makes transmit rule on the absent zones.
func (p *peer) ruleAgain() {
	p.ruleDue = true
	p.poke()
}

// answered returns the transfer that the server may answer now, and forgets it.
func (p *peer) answered(id uint64) (*flight, *slot, error) {
	f := p.flights[id]
	if f == nil || !f.committed {
		return nil, nil, malformed("an answer to transfer %d, which was not committed", id)
	}
	delete(p.flights, id)
	f.lease.release()
	s := p.zones[f.apex]
	s.flight = nil
	return f, s, nil
}

// installed notes that the server serves what was sent.
func (p *peer) installed(f *flight, s *slot, notDurable bool, n *notes) {
	s.held = Held{
		Apex: f.apex, Version: f.zone.Version, Source: f.zone.Source, Cluster: p.hub.opts.Cluster,
		Records: f.zone.Content.Records(), NotDurable: notDurable,
	}
	s.content, s.distrust, s.nack = f.zone.Content, false, nil
	p.reconsider(f.apex, n)
	n.zone(f.apex)
	p.poke() // perhaps it was the last one before Synced
}

func (p *peer) takeAck(m *controlpb.Ack, n *notes) error {
	if m.GetTransfer() != 0 {
		if f, s := p.answeredDocument(m.GetTransfer()); f != nil {
			p.installedDocument(f, s, false, n)
			return nil
		}
		f, s, err := p.answered(m.GetTransfer())
		if err == nil {
			p.installed(f, s, false, n)
		}
		return err
	}
	if kind := m.GetDocument(); kind != "" {
		if s := p.documents[kind]; s != nil && s.holds && bytes.Equal(s.held[:], m.GetVersion().GetDigest()) && s.notDurable {
			s.notDurable = false
			n.server(p.id)
		}
		return nil
	}
	apex, err := apexOf(m.GetApex())
	if err != nil {
		return malformed("Ack: %v", err)
	}
	v, err := versionOf(m.GetVersion())
	if err != nil {
		return malformed("Ack: zone %s: %v", apex, err)
	}
	if s := p.zones[apex]; s != nil && s.held.Version == v && s.held.NotDurable {
		s.held.NotDurable = false
		n.zone(apex)
	}
	return nil
}

func (p *peer) takeNotDurable(m *controlpb.NotDurable, n *notes) error {
	if f, s := p.answeredDocument(m.GetTransfer()); f != nil {
		p.hub.opts.Log.Info("document is in force but not on disk", "server", p.id, "kind", f.document.Kind, "reason", clip(m.GetMessage()))
		p.installedDocument(f, s, true, n)
		return nil
	}
	f, s, err := p.answered(m.GetTransfer())
	if err != nil {
		return err
	}
	p.hub.opts.Log.Info("zone is served but not on disk", "server", p.id, "zone", f.apex, "reason", clip(m.GetMessage()))
	p.installed(f, s, true, n)
	return nil
}

// reasons are the names of refusals in reports and metrics.
var reasons = map[controlpb.Nack_Reason]string{
	controlpb.Nack_STALE_EPOCH:     "StaleEpoch",
	controlpb.Nack_BASE_MISSING:    "BaseMissing",
	controlpb.Nack_DIGEST_MISMATCH: "DigestMismatch",
	controlpb.Nack_MALFORMED:       "Malformed",
	controlpb.Nack_TOO_LARGE:       "TooLarge",
	controlpb.Nack_GUARD_HELD:      "GuardHeld",
	controlpb.Nack_ABSENCE_HELD:    "AbsenceHeld",
	controlpb.Nack_FAILED:          "Failed",
}

func reasonName(r controlpb.Nack_Reason) string {
	if name, ok := reasons[r]; ok {
		return name
	}
	return "Failed"
}

func (p *peer) takeNack(m *controlpb.Nack, n *notes) error {
	if m.GetReason() == controlpb.Nack_STALE_EPOCH {
		if err := p.checkEpoch(m.GetEpoch()); err != nil {
			return err
		}
		if m.GetEpoch() >= p.hub.epoch {
			p.seen(m.GetEpoch(), n)
		}
		return status.Errorf(codes.Aborted, "server has seen epoch %d", m.GetEpoch())
	}
	if f, s := p.answeredDocument(m.GetTransfer()); f != nil {
		p.refusedDocument(f, s, m, n)
		return nil
	}
	if p.batch != nil && p.batch.id == m.GetTransfer() {
		return p.takeBatchNack(m, n)
	}
	f, s, err := p.answered(m.GetTransfer())
	if err != nil {
		return err
	}
	again := m.GetReason() == controlpb.Nack_BASE_MISSING || m.GetReason() == controlpb.Nack_DIGEST_MISMATCH
	if again && f.base != nil {
		s.content, s.distrust = nil, true // the whole zone next
	} else {
		s.nack = &Nack{Version: f.zone.Version, Reason: reasonName(m.GetReason()), Message: clip(m.GetMessage()), Removal: removalOf(m.GetRemoval())}
		s.nackRevision = f.revision
		p.hub.opts.Log.Info("server refused a zone", "server", p.id, "zone", f.apex, "version", f.zone.Version, "reason", s.nack.Reason, "message", s.nack.Message)
	}
	p.reconsider(f.apex, n)
	n.zone(f.apex)
	p.poke()
	return nil
}

func removalOf(m *controlpb.Removal) *zone.Removal {
	if m == nil {
		return nil
	}
	r := &zone.Removal{Records: int(m.GetRecords()), Of: int(m.GetOf()), Digest: clip(m.GetDigest())}
	for _, b := range m.GetExamples() {
		if owner, err := apexOf(b); err == nil && len(r.Examples) < zone.MaxRemovalExamples {
			r.Examples = append(r.Examples, owner)
		}
	}
	return r
}

// answeredBatch returns the batch that the server may answer now, and forgets it.
func (p *peer) answeredBatch(id uint64) (*batch, error) {
	b := p.batch
	if b == nil || b.id != id || !b.sent {
		return nil, malformed("an answer to removal %d, which was not sent", id)
	}
	p.batch = nil
	p.ruleAgain()
	return b, nil
}

func (p *peer) takeBatchNack(m *controlpb.Nack, n *notes) error {
	b, err := p.answeredBatch(m.GetTransfer())
	if err != nil {
		return err
	}
	p.hub.opts.Log.Info("server refused to drop zones", "server", p.id, "zones", len(b.apexes), "reason", clip(m.GetMessage()))
	if b.approved != "" {
		p.refused = b.approved
	}
	past := p.hub.pastOf(p.id)
	for _, apex := range b.apexes {
		past.withheld[apex] = true
		p.zones[apex].removing = false
		p.reconsider(apex, n)
	}
	return nil
}

func (p *peer) takeRemoved(m *controlpb.Removed, n *notes) error {
	b, err := p.answeredBatch(m.GetTransfer())
	if err != nil {
		return err
	}
	if b.approved == "" {
		p.hub.pastOf(p.id).removed.add(p.hub.opts.Now(), len(b.apexes))
	}
	for _, apex := range b.apexes {
		s := p.zones[apex]
		s.removing, s.held, s.content, s.distrust = false, Held{}, nil, false
		p.reconsider(apex, n)
		n.zone(apex)
	}
	p.hub.opts.Log.Info("server dropped zones", "server", p.id, "zones", len(b.apexes))
	return nil
}

// pastOf returns what happened to a server's zones, and forgets servers that did not come
// back. h.mu is held.
func (h *Hub) pastOf(id ServerID) *past {
	if p := h.past[id]; p != nil {
		return p
	}
	now := h.opts.Now()
	for other, p := range h.past {
		if h.peers[other] == nil && now.Sub(p.last) >= absenceWindow {
			delete(h.past, other)
		}
	}
	p := &past{withheld: map[zone.Name]bool{}, last: now}
	h.past[id] = p
	return p
}
