package control

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// session is the server's end of one welcomed stream. Messages are taken one by one; what is
// complete goes to a few workers, so that a store can write several zones to disk at once.
// While a session lasts nobody else changes the replica.
type session struct {
	c       *Client
	seen    string // cluster of Hello, which Held leaves out
	cluster string // of the hub
	jobs    chan func()
	fetches chan *controlpb.Fetch
	listed  chan struct{} // closed when the hub was told what is held
	large   chan struct{} // one element while a large transfer waits for a worker or is with it

	sendMu sync.Mutex
	send   func(*controlpb.ServerMessage) error

	// Used by handle alone.
	open     map[uint64]*transfer
	removing *removal // names still come

	mu     sync.Mutex
	busy   map[resource]bool // begun, not answered
	failed error             // the stream is about to end; what comes is dropped
	cancel context.CancelFunc
	grace  *time.Timer
}

const (
	maxOpen       = 4       // transfers begun and not committed
	workers       = 16      // installs and removals at once
	largeTransfer = 1 << 20 // octets; of complete transfers above it one at a time is kept in memory
	fetchQueue    = 16      // more are refused
)

// transfer is a zone or a document on its way in.
type transfer struct {
	header
	assembly assembly
	document *incoming // nil: a zone
	received int64
	refusal  *controlpb.Nack // set: it is refused already, and the rest of it dropped
}

// header is what Begin says of a zone.
type header struct {
	id          uint64
	apex        zone.Name // "" if it could not be read
	version     zone.Version
	source      string
	cluster     string
	base        zone.Digest // zero: none
	guard       zone.GuardPolicy
	predecessor uint32
	approved    string
}

type removal struct {
	id       uint64
	apexes   []zone.Name
	approved string
}

func (r *removal) resources() []resource {
	all := make([]resource, len(r.apexes))
	for i, apex := range r.apexes {
		all[i] = zoneResource(apex)
	}
	return all
}

func newSession(c *Client, send func(*controlpb.ServerMessage) error, seen string) *session {
	return &session{
		c: c, send: send, seen: seen, jobs: make(chan func()), fetches: make(chan *controlpb.Fetch, fetchQueue), large: make(chan struct{}, 1),
		listed: make(chan struct{}),
		open:   map[uint64]*transfer{}, busy: map[resource]bool{},
	}
}

// run has the session, which begins with the hub's Welcome and ends with the stream or ctx;
// cancel must end ctx. It returns when nothing of the session is under way any more.
func (s *session) run(ctx context.Context, cancel context.CancelFunc, welcome *controlpb.HubMessage, recv func() (*controlpb.HubMessage, error)) error {
	s.cancel = cancel
	s.cluster = welcome.GetWelcome().GetCluster()
	stop := s.start(ctx)
	err := s.handle(ctx, welcome)
	if err == nil {
		s.list()
		close(s.listed)
	}
	for err == nil {
		var m *controlpb.HubMessage
		if m, err = recv(); err == nil {
			err = s.handle(ctx, m)
		}
	}
	cancel()
	stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grace != nil {
		s.grace.Stop()
	}
	return cmp.Or(s.failed, err)
}

// start starts what works beside handle. stop waits for its end, which comes with ctx.
func (s *session) start(ctx context.Context) (stop func()) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for {
				select {
				case job := <-s.jobs:
					job()
				case <-ctx.Done():
					return
				}
			}
		})
	}
	all.Go(func() {
		select {
		case <-s.listed:
			s.c.reports.send(ctx, s.say)
		case <-ctx.Done():
		}
	})
	all.Go(func() {
		for {
			select {
			case m := <-s.fetches:
				s.answerFetch(m)
			case <-s.c.wakeLate:
				for r, v := range s.c.lateAcks() {
					s.say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_Ack{
						Ack: &controlpb.Ack{Apex: []byte(r.apex), Version: versionMessage(v), Document: r.document},
					}})
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return all.Wait
}

// say sends a message. That a stream is broken is learned from receiving.
func (s *session) say(m *controlpb.ServerMessage) {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	_ = s.send(m)
}

// fail lets the hub hear the last message and end the stream, and ends it if it does not.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
		s.grace = time.AfterFunc(goodbyePatience, s.cancel)
	}
}

func (s *session) hasFailed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed != nil
}

// list tells the hub what the replica holds.
func (s *session) list() {
	s.c.forgetLate()
	held := s.c.opts.Replica.Held()
	part, octets := &controlpb.Held{}, 0
	flush := func() {
		s.say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_Held{Held: part}})
		part, octets = &controlpb.Held{}, 0
	}
	for _, h := range held {
		z := &controlpb.HeldZone{
			Apex: []byte(h.Apex), Version: versionMessage(h.Version), Source: h.Source, Records: uint32(h.Records), NotDurable: h.NotDurable,
		}
		if h.Cluster != s.cluster {
			z.Cluster = h.Cluster
		}
		const perZone = 64 // octets, about, beside the texts
		octets += len(h.Apex) + len(h.Source) + len(z.Cluster) + perZone
		if part.Zones = append(part.Zones, z); octets >= chunkSize {
			flush()
		}
	}
	documents := s.c.opts.Replica.Documents()
	for _, d := range documents {
		part.Documents = append(part.Documents, &controlpb.HeldDocument{Kind: d.Kind, Digest: d.Digest[:], NotDurable: d.NotDurable})
	}
	part.Last = true
	flush()
	for _, h := range held {
		if h.NotDurable {
			s.c.reportedLacking(zoneResource(h.Apex), h.Version)
		}
	}
	for _, d := range documents {
		if d.NotDurable {
			s.c.reportedLacking(resource{document: d.Kind}, zone.Version{Digest: d.Digest})
		}
	}
}

func protocolError(format string, args ...any) error {
	return status.Errorf(codes.Internal, "the hub broke the protocol: "+format, args...)
}

// handle takes one message from the hub. An error ends the stream.
func (s *session) handle(ctx context.Context, m *controlpb.HubMessage) error {
	if s.hasFailed() {
		return nil
	}
	f := Fence{m.GetEpoch(), s.cluster}
	switch m := m.GetMessage().(type) {
	case *controlpb.HubMessage_Welcome:
		return s.takeWelcome(ctx, m.Welcome, f)
	case *controlpb.HubMessage_NotLeader:
		return errNotLeader
	case *controlpb.HubMessage_Begin:
		return s.takeBegin(m.Begin)
	case *controlpb.HubMessage_Chunk:
		return s.takeChunk(m.Chunk)
	case *controlpb.HubMessage_Commit:
		return s.takeCommit(ctx, m.Commit, f)
	case *controlpb.HubMessage_Remove:
		return s.takeRemove(ctx, m.Remove, f)
	case *controlpb.HubMessage_Fetch:
		select {
		case s.fetches <- m.Fetch:
		default:
			s.failFetch(m.Fetch.GetFetch(), "too many fetches at once")
		}
	case *controlpb.HubMessage_Synced:
		s.c.update(func(st *State) { st.Synced = true })
	default: // of a later version
	}
	return nil
}

// takeWelcome raises the fence before anything else is done for this hub.
func (s *session) takeWelcome(ctx context.Context, m *controlpb.Welcome, f Fence) error {
	if m.GetCluster() == "" || m.GetCluster() != s.cluster {
		return protocolError("its cluster is %q after %q", clip(m.GetCluster()), clip(s.cluster))
	}
	err := s.c.opts.Replica.Raise(context.WithoutCancel(ctx), f)
	var stale *StaleEpochError
	var undurable *NotDurableError
	switch {
	case errors.As(err, &stale):
		s.refuseStale(0, stale)
		return nil
	case errors.As(err, &undurable):
		s.c.opts.Log.Error(err, "the hub's epoch is not on disk", "epoch", f.Epoch)
	case err != nil:
		return fmt.Errorf("raising the epoch to %d: %w", f.Epoch, err)
	}
	s.c.update(func(st *State) { st.Fence = f })
	return nil
}

func (s *session) refuseStale(id uint64, stale *StaleEpochError) {
	s.nack(&controlpb.Nack{Transfer: id, Reason: controlpb.Nack_STALE_EPOCH, Message: stale.Error(), Epoch: stale.Seen.Epoch})
	s.fail(stale)
}

func (s *session) nack(m *controlpb.Nack) {
	m.Message = clip(m.Message)
	s.c.update(func(st *State) {
		if st.Nacks == nil {
			st.Nacks = map[string]uint64{}
		}
		st.Nacks[reasonName(m.Reason)]++
	})
	s.say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_Nack{Nack: m}})
}

// claim marks what is being changed; false if one of it is already.
func (s *session) claim(what ...resource) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range what {
		if s.busy[r] {
			return false
		}
	}
	for _, r := range what {
		s.busy[r] = true
	}
	return true
}

// unclaim comes before the answer: the hub may begin the next transfer as soon as it has it.
func (s *session) unclaim(what ...resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range what {
		delete(s.busy, r)
	}
}

func parseHeader(id uint64, m *controlpb.Zone) (h header, err error) {
	h = header{
		id: id, source: m.GetSource(), cluster: m.GetCluster(), predecessor: m.GetPredecessor(), approved: m.GetApprovedRemoval(),
		guard: zone.GuardPolicy{MinDeletes: int(m.GetGuard().GetMinDeletes()), MaxDeletePercent: int(m.GetGuard().GetMaxDeletePercent())},
	}
	apex, err := apexOf(m.GetApex())
	if err != nil {
		return h, err
	}
	if h.version, err = versionOf(m.GetVersion()); err != nil {
		return h, fmt.Errorf("zone %s: %w", apex, err)
	}
	if len(m.GetBase()) > 0 {
		if h.base, err = digestOf(m.GetBase()); err != nil {
			return h, fmt.Errorf("zone %s: base: %w", apex, err)
		}
	}
	h.apex = apex
	return h, nil
}

func (s *session) takeBegin(m *controlpb.Begin) error {
	id := m.GetTransfer()
	if id == 0 || s.open[id] != nil {
		return protocolError("transfer %d begins twice", id)
	}
	if len(s.open) >= maxOpen {
		return protocolError("more than %d transfers are open", maxOpen)
	}
	t := &transfer{header: header{id: id}}
	s.open[id] = t
	switch m := m.GetResource().(type) {
	case *controlpb.Begin_Zone:
		return s.beginZone(t, m.Zone)
	case *controlpb.Begin_Document:
		return s.beginDocument(t, m.Document)
	default:
		t.refuse(fmt.Errorf("a resource of a later version is %w for this one", errMalformed))
		return nil
	}
}

func (s *session) beginDocument(t *transfer, m *controlpb.Document) error {
	d, err := parseDocument(m)
	if err != nil {
		t.refuse(err)
		return nil
	}
	if !s.claim(resource{document: d.kind}) {
		return protocolError("transfer %d begins before the last document %q was answered", t.id, d.kind)
	}
	t.document = d
	return nil
}

func (s *session) beginZone(t *transfer, m *controlpb.Zone) error {
	h, err := parseHeader(t.id, m)
	if err != nil {
		t.refuse(err)
		return nil
	}
	if !s.claim(zoneResource(h.apex)) {
		return protocolError("transfer %d begins before the last change of zone %s was answered", t.id, h.apex)
	}
	t.header = h
	t.assembly = assembly{apex: h.apex, room: s.c.opts.MaxZoneBytes}
	if h.base.IsZero() {
		return nil
	}
	if has, ok := s.c.opts.Replica.Zone(h.apex); ok && has.Version.Digest == h.base {
		t.assembly.base = has.Content
	} else {
		t.refusal = &controlpb.Nack{Reason: controlpb.Nack_BASE_MISSING, Message: fmt.Sprintf("zone %s: content %.12s is not here", h.apex, h.base)}
	}
	return nil
}

// refuse turns an error of an assembly into the answer.
func (t *transfer) refuse(err error) {
	t.refusal = &controlpb.Nack{Reason: controlpb.Nack_MALFORMED, Message: err.Error()}
	if errors.Is(err, errTooLarge) {
		t.refusal.Reason = controlpb.Nack_TOO_LARGE
	}
	t.assembly = assembly{}
	if t.document != nil {
		t.document.body = nil
	}
}

// resource is what the transfer claims; zero if that could not be read.
func (t *transfer) resource() resource {
	if t.document != nil {
		return resource{document: t.document.kind}
	}
	return zoneResource(t.apex)
}

// installed is the version that an answer names.
func (t *transfer) installed() zone.Version {
	if t.document != nil {
		return zone.Version{Digest: t.document.digest}
	}
	return t.version
}

func (s *session) takeChunk(m *controlpb.Chunk) error {
	t := s.open[m.GetTransfer()]
	if t == nil {
		return protocolError("a chunk of transfer %d, which is not open", m.GetTransfer())
	}
	if t.refusal != nil {
		return nil
	}
	t.received += int64(len(m.GetNodes()))
	if err := t.add(m.GetNodes()); err != nil {
		t.refuse(err)
	}
	return nil
}

func (t *transfer) add(part []byte) error {
	if t.document != nil {
		return t.document.add(part)
	}
	return t.assembly.add(part)
}

func (s *session) takeCommit(ctx context.Context, m *controlpb.Commit, f Fence) error {
	t := s.open[m.GetTransfer()]
	if t == nil {
		return protocolError("a commit of transfer %d, which is not open", m.GetTransfer())
	}
	delete(s.open, t.id)
	if t.refusal != nil {
		s.unclaim(t.resource())
		t.refusal.Transfer = t.id
		s.nack(t.refusal)
		return nil
	}
	job := func() { s.install(ctx, t, f) }
	if t.received > largeTransfer {
		select {
		case s.large <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		job = func() {
			s.install(ctx, t, f)
			<-s.large
		}
	}
	return s.do(ctx, job)
}

func (s *session) do(ctx context.Context, job func()) error {
	select {
	case s.jobs <- job:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// install puts a complete transfer in place and answers it.
func (s *session) install(ctx context.Context, t *transfer, f Fence) {
	apply, count := s.apply, func(st *State) { st.Installed++ }
	if t.document != nil {
		apply, count = s.applyDocument, func(st *State) { st.Documents++ }
	}
	err := apply(ctx, t, f)
	what, v := t.resource(), t.installed()
	s.unclaim(what)
	var stale *StaleEpochError
	var undurable *NotDurableError
	var refused *refusedError
	switch {
	case err == nil:
		s.c.update(count)
		s.say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_Ack{
			Ack: &controlpb.Ack{Transfer: t.id, Apex: []byte(what.apex), Version: versionMessage(v), Document: what.document},
		}})
	case errors.As(err, &undurable):
		s.c.update(count)
		s.say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_NotDurable{NotDurable: &controlpb.NotDurable{
			Transfer: t.id, Apex: []byte(what.apex), Version: versionMessage(v), Document: what.document, Message: clip(err.Error()),
		}}})
		s.c.reportedLacking(what, v)
	case errors.As(err, &stale):
		s.refuseStale(t.id, stale)
	case errors.As(err, &refused):
		refused.nack.Transfer = t.id
		s.nack(refused.nack)
	default:
		s.nack(&controlpb.Nack{Transfer: t.id, Reason: controlpb.Nack_FAILED, Message: err.Error()})
	}
}

// refusedError is a refusal of ours, not of the replica.
type refusedError struct{ nack *controlpb.Nack }

func (e *refusedError) Error() string { return e.nack.GetMessage() }

// applyDocument checks a complete document and installs it.
func (s *session) applyDocument(ctx context.Context, t *transfer, f Fence) error {
	d, err := t.document.document()
	switch {
	case errors.Is(err, errDigest):
		return &refusedError{&controlpb.Nack{Reason: controlpb.Nack_DIGEST_MISMATCH, Message: err.Error()}}
	case err != nil:
		return &refusedError{&controlpb.Nack{Reason: controlpb.Nack_MALFORMED, Message: err.Error()}}
	}
	replica := s.c.opts.Replica
	if _, has := replica.Document(d.Kind); !has && len(replica.Documents()) >= maxKinds {
		return &refusedError{&controlpb.Nack{Reason: controlpb.Nack_TOO_LARGE, Message: fmt.Sprintf("document %q: there are %d others", d.Kind, maxKinds)}}
	}
	return replica.InstallDocument(context.WithoutCancel(ctx), f, d)
}

// apply checks a complete transfer and installs it.
func (s *session) apply(ctx context.Context, t *transfer, f Fence) error {
	content, err := t.assembly.content()
	if err != nil {
		return &refusedError{&controlpb.Nack{Reason: controlpb.Nack_MALFORMED, Message: err.Error()}}
	}
	if content.Digest() != t.version.Digest {
		return &refusedError{&controlpb.Nack{
			Reason:  controlpb.Nack_DIGEST_MISMATCH,
			Message: fmt.Sprintf("zone %s: the content sent as version %s has digest %.12s", t.apex, t.version, content.Digest()),
		}}
	}
	has, ok := s.c.opts.Replica.Zone(t.apex)
	switch {
	case ok && has.Version.Digest == t.version.Digest:
		content = has.Content
	case ok:
		if r := s.guard(has, content, &t.header); r != nil {
			s.c.noteHeldBack(t.apex, true)
			return &refusedError{&controlpb.Nack{
				Reason:  controlpb.Nack_GUARD_HELD,
				Message: fmt.Sprintf("zone %s: %d of %d records would go; to approve that, the digest is %s", t.apex, r.Records, r.Of, r.Digest),
				Removal: removalMessage(r),
			}}
		}
	}
	s.c.noteHeldBack(t.apex, false)
	return s.c.opts.Replica.Install(context.WithoutCancel(ctx), f, Installed{Content: content, Version: t.version, Source: t.source, Cluster: s.cluster})
}

func removalMessage(r *zone.Removal) *controlpb.Removal {
	m := &controlpb.Removal{Records: uint64(r.Records), Of: uint64(r.Of), Digest: r.Digest}
	for _, owner := range r.Examples {
		m.Examples = append(m.Examples, []byte(owner))
	}
	return m
}

// guard returns what the update would remove if that is more than may go, else nil. The hub
// has applied the same guard to what it had published before; a server that is older than
// that and of the same cluster follows without asking again. One that has held an update
// back is not late: until the zone is installed again it goes on asking.
func (s *session) guard(has Installed, next *zone.Content, h *header) *zone.Removal {
	late := h.predecessor != 0 && zone.SerialLess(has.Version.Serial, h.predecessor)
	if late && has.Cluster == s.cluster && !s.c.holdsBack(h.apex) {
		return nil
	}
	var held []Held // read when the first delegation goes
	r := zone.Removals(has.Content, next, func(cut zone.Name) int {
		if held == nil {
			held = s.c.opts.Replica.Held()
		}
		below := 0
		for _, z := range held {
			if z.Apex != h.apex && z.Apex.Within(cut) {
				below += z.Records
			}
		}
		return below
	})
	if !h.guard.Exceeded(r.Records, r.Of) || h.approved != "" && h.approved == r.Digest {
		return nil
	}
	return &r
}

func (s *session) takeRemove(ctx context.Context, m *controlpb.Remove, f Fence) error {
	r := s.removing
	if r == nil {
		r = &removal{id: m.GetTransfer()}
		s.removing = r
	}
	if r.id != m.GetTransfer() || r.id == 0 {
		return protocolError("removal %d before removal %d is complete", m.GetTransfer(), r.id)
	}
	if len(r.apexes)+len(m.GetApexes()) > maxHeld {
		return protocolError("more than %d zones to remove", maxHeld)
	}
	for _, b := range m.GetApexes() {
		apex, err := apexOf(b)
		if err != nil {
			return protocolError("removal: %v", err)
		}
		r.apexes = append(r.apexes, apex)
	}
	if !m.GetLast() {
		return nil
	}
	s.removing = nil
	r.approved = m.GetApproved()
	slices.SortFunc(r.apexes, zone.Name.Compare)
	r.apexes = slices.Compact(r.apexes)
	if !s.claim(r.resources()...) {
		return protocolError("removal %d of a zone whose last change was not answered", r.id)
	}
	return s.do(ctx, func() { s.remove(ctx, r, f) })
}

// remove takes a batch of zones away if it may go, and answers it.
func (s *session) remove(ctx context.Context, r *removal, f Fence) {
	replica := s.c.opts.Replica
	var present []Held
	held := replica.Held()
	for _, h := range held {
		if _, ok := slices.BinarySearchFunc(r.apexes, h.Apex, zone.Name.Compare); ok {
			present = append(present, h)
		}
	}
	if refusal := s.holdsAbsence(r, present, len(held)); refusal != "" {
		s.unclaim(r.resources()...)
		s.nack(&controlpb.Nack{Transfer: r.id, Reason: controlpb.Nack_ABSENCE_HELD, Message: refusal})
		return
	}
	gone := 0
	var err error
	for _, h := range present {
		var undurable *NotDurableError
		if err = replica.Remove(context.WithoutCancel(ctx), f, h.Apex); err != nil && !errors.As(err, &undurable) {
			break
		}
		s.c.noteHeldBack(h.Apex, false)
		gone, err = gone+1, nil
	}
	s.c.mu.Lock()
	if r.approved == "" && gone > 0 {
		s.c.removed.add(s.c.opts.Now(), gone)
	}
	s.c.mu.Unlock()
	s.c.update(func(st *State) { st.Removed += uint64(gone) })
	s.unclaim(r.resources()...)
	var stale *StaleEpochError
	switch {
	case err == nil:
		s.say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_Removed{Removed: &controlpb.Removed{Transfer: r.id}}})
	case errors.As(err, &stale):
		s.refuseStale(r.id, stale)
	default:
		s.fail(fmt.Errorf("removing a zone: %w", err)) // the next stream begins with what is there
	}
}

// holdsAbsence says why a batch may not go, of which the server holds some zones; "" if it may.
func (s *session) holdsAbsence(r *removal, present []Held, held int) string {
	digest := namesDigest(r.apexes)
	if r.approved != "" {
		if r.approved != digest {
			return fmt.Sprintf("the approval %s is not for these %d zones, whose digest is %s", clip(r.approved), len(r.apexes), digest)
		}
		return ""
	}
	for _, h := range present {
		if h.Cluster != s.cluster {
			return fmt.Sprintf("zone %s came from cluster %q and goes only with approval", h.Apex, h.Cluster)
		}
	}
	s.c.mu.Lock()
	recent := s.c.removed.recent(s.c.opts.Now())
	s.c.mu.Unlock()
	if s.c.opts.MaxAbsent.Exceeded(len(present)+recent, held+recent) {
		return fmt.Sprintf("%d of %d zones would go within %s", len(present)+recent, held+recent, absenceWindow)
	}
	return ""
}

func (s *session) failFetch(id uint64, why string) {
	s.say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_FetchFailed{FetchFailed: &controlpb.FetchFailed{Fetch: id, Message: why}}})
}

func (s *session) answerFetch(m *controlpb.Fetch) {
	apex, err := apexOf(m.GetApex())
	if err != nil {
		s.failFetch(m.GetFetch(), err.Error())
		return
	}
	z, ok := s.c.opts.Replica.Zone(apex)
	if !ok || !bytes.Equal(z.Version.Digest[:], m.GetDigest()) {
		s.failFetch(m.GetFetch(), fmt.Sprintf("zone %s: that content is not here", apex))
		return
	}
	chunk := func(part []byte, last bool) {
		s.say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_FetchChunk{FetchChunk: &controlpb.FetchChunk{Fetch: m.GetFetch(), Nodes: part, Last: last}}})
	}
	for part := range chunks(wholeZone(z.Content), chunkSize) {
		chunk(part, false)
	}
	chunk(nil, true)
}
