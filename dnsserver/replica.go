package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/store"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Replica is the zones of a server whose zones come from a hub: what the view answers with,
// and its copy on disk. Documents that come with them are kept likewise; what they mean is for
// the handler to know. It implements control.Replica.
//
// A change goes to disk first and is visible after. Where the disk refuses it, or has not
// answered for slowDisk, it is visible nevertheless: answering comes first. Then the disk is
// tried again until it has what the view has.
//
// One goroutine writes. Changes that come while it is busy share the next write.
type Replica struct {
	view     *zone.View
	disk     disk
	log      logr.Logger
	slowDisk time.Duration
	orders   chan *order
	closing  chan struct{}
	closed   chan struct{} // by the goroutine, at its end
	closeErr error         // of the disk; to be read after closed

	mu        sync.Mutex // the view changes under it too
	zones     map[zone.Name]*control.Installed
	fence     control.Fence
	behind    map[zone.Name]bool // zones of which the disk has something else than zones, or might
	onDisk    control.Fence      // the fence that the disk has
	lost      map[zone.Name]bool
	onDurable func(zone.Name, zone.Version)
	onZone    func(apex zone.Name, before, after *control.Installed) // nil: nobody asks
	failing   bool                                                   // the last write failed

	installing        sync.Mutex // held while a document is installed: one at a time, before mu
	handler           func(kind string, body []byte) error
	documents         map[string]*control.Document // in force, by kind
	behindDocuments   map[string]bool              // as behind
	lostDocuments     map[string]bool
	onDocumentDurable func(kind string, digest zone.Digest)
}

// disk is what Replica needs of store.Store.
type disk interface {
	Commit(f store.Fence, changes ...store.Change) error
	CommitDocuments(f store.Fence, documents ...store.Document) error
	Close() error
}

const (
	defaultSlowDisk = 5 * time.Second

	// One write takes at most so many changes, or so many owners of changed zones.
	maxOrders      = 64
	maxOrderOwners = 100_000

	// The disk is tried again after these times, doubled from the first to the last.
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// order is one change that somebody waits for.
type order struct {
	fence  control.Fence
	apex   zone.Name          // "" where only the fence changes
	zone   *control.Installed // nil removes
	served *zone.Served       // of zone
	result chan error         // has room for one

	// document is in force already, under a fence that was admitted then; apex is "".
	document *control.Document

	settled bool // under Replica.mu: answered, the writer has nothing left to decide
}

// OpenReplica loads the zones of a directory into the view, if there are any, and takes the
// directory for this process. Damaged zones are logged, and listed by Lost.
func OpenReplica(dir string, view *zone.View, log logr.Logger) (*Replica, error) {
	s, found, err := store.Open(dir, func(err error) { log.Error(err, "disk") })
	if err != nil {
		return nil, err
	}
	return newReplica(s, found, view, log), nil
}

func newReplica(d disk, found store.Found, view *zone.View, log logr.Logger) *Replica {
	r := &Replica{
		view: view, disk: d, log: log, slowDisk: defaultSlowDisk,
		orders: make(chan *order), closing: make(chan struct{}), closed: make(chan struct{}),
		zones: map[zone.Name]*control.Installed{}, behind: map[zone.Name]bool{}, lost: map[zone.Name]bool{},
		fence: control.Fence(found.Fence), onDisk: control.Fence(found.Fence),
		onDurable: func(zone.Name, zone.Version) {},
		documents: map[string]*control.Document{}, behindDocuments: map[string]bool{}, lostDocuments: map[string]bool{},
		onDocumentDurable: func(string, zone.Digest) {},
	}
	for _, d := range found.Documents {
		doc := control.Document(d)
		r.documents[d.Kind] = &doc
	}
	for _, kind := range found.LostDocuments {
		r.lostDocuments[kind] = true
	}
	for _, apex := range found.Lost {
		r.lost[apex] = true
	}
	var all []*zone.Served
	for _, z := range found.Zones {
		apex := z.Content.Apex()
		served, err := zone.NewServed(z.Content, z.Version)
		if err != nil { // cannot be: what was installed was served
			log.Error(err, "zone on disk cannot be served")
			r.lost[apex], r.behind[apex] = true, true
			continue
		}
		installed := control.Installed(z)
		r.zones[apex] = &installed
		all = append(all, served)
	}
	if len(all) > 0 {
		view.Update(all, nil)
	}
	go r.write()
	return r
}

// Close waits for the write under way, tries once more to write what the disk lacks, and
// gives the directory free. The view stays as it is. The error is the disk's.
func (r *Replica) Close() error {
	r.mu.Lock()
	select {
	case <-r.closing:
	default:
		close(r.closing)
	}
	r.mu.Unlock()
	<-r.closed
	return r.closeErr
}

// OnDurable implements control.Replica.
func (r *Replica) OnDurable(f func(apex zone.Name, v zone.Version)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onDurable = f
}

// Held implements control.Replica.
func (r *Replica) Held() []control.Held {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := make([]control.Held, 0, len(r.zones))
	for apex, z := range r.zones {
		held = append(held, control.Held{
			Apex: apex, Version: z.Version, Source: z.Source, Cluster: z.Cluster,
			Records: z.Content.Records(), NotDurable: r.behind[apex],
		})
	}
	slices.SortFunc(held, func(a, b control.Held) int { return a.Apex.Compare(b.Apex) })
	return held
}

// Zone implements control.Replica.
func (r *Replica) Zone(apex zone.Name) (control.Installed, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if z := r.zones[apex]; z != nil {
		return *z, true
	}
	return control.Installed{}, false
}

// HandleDocuments sets who is given the body of every document that is to be in force, and gives
// it those that came from disk, by kind. It is called by one goroutine at a time. An error
// refuses the document: the one before stays. Errors are logged and go to the hub, so they must
// not quote the body, nor may it be changed. One from disk that is refused is taken for missing,
// so that the hub sends it again.
func (r *Replica) HandleDocuments(handler func(kind string, body []byte) error) {
	r.installing.Lock()
	defer r.installing.Unlock()
	r.mu.Lock()
	documents := maps.Clone(r.documents)
	r.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(documents)) {
		if err := handler(kind, documents[kind].Body); err != nil {
			r.log.Error(err, "document on disk is refused", "kind", kind)
			delete(documents, kind)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handler, r.documents = handler, documents
	maps.DeleteFunc(r.behindDocuments, func(kind string, _ bool) bool { return documents[kind] == nil })
}

// Documents implements control.Replica.
func (r *Replica) Documents() []control.HeldDocument {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := make([]control.HeldDocument, 0, len(r.documents))
	for _, kind := range slices.Sorted(maps.Keys(r.documents)) {
		held = append(held, control.HeldDocument{Kind: kind, Digest: r.documents[kind].Digest(), NotDurable: r.behindDocuments[kind]})
	}
	return held
}

// Document implements control.Replica.
func (r *Replica) Document(kind string) (control.Document, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.documents[kind]; d != nil {
		return *d, true
	}
	return control.Document{}, false
}

// LostDocuments implements control.Replica.
func (r *Replica) LostDocuments() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.lostDocuments))
}

// OnDocumentDurable implements control.Replica.
func (r *Replica) OnDocumentDurable(f func(kind string, digest zone.Digest)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onDocumentDurable = f
}

// InstallDocument implements control.Replica. Unlike a zone, a document takes effect first and
// is written then: whether it can take effect is for the handler to say.
func (r *Replica) InstallDocument(ctx context.Context, f control.Fence, d control.Document) error {
	r.installing.Lock()
	defer r.installing.Unlock()
	r.mu.Lock()
	if !r.fence.Admits(f) {
		defer r.mu.Unlock()
		return &control.StaleEpochError{Fence: f, Seen: r.fence}
	}
	r.fence = f
	handler := r.handler
	r.mu.Unlock()
	if handler != nil {
		if err := handler(d.Kind, d.Body); err != nil {
			return err
		}
	}
	r.mu.Lock()
	r.documents[d.Kind] = &d
	delete(r.lostDocuments, d.Kind)
	r.mu.Unlock()
	err := r.do(ctx, &order{fence: f, document: &d})
	var undurable *control.NotDurableError
	if err == nil || errors.As(err, &undurable) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behindDocuments[d.Kind] = true
	return &control.NotDurableError{Err: err}
}

// Fence implements control.Replica.
func (r *Replica) Fence() control.Fence {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fence
}

// Lost implements control.Replica.
func (r *Replica) Lost() []zone.Name {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Keys(r.lost), zone.Name.Compare)
}

// Install implements control.Replica.
func (r *Replica) Install(ctx context.Context, f control.Fence, z control.Installed) error {
	apex := z.Content.Apex()
	if z.Content.Digest() != z.Version.Digest {
		return fmt.Errorf("installing zone %s: its content is not that of version %s", apex, z.Version)
	}
	served, err := zone.NewServed(z.Content, z.Version)
	if err != nil {
		return err
	}
	return r.do(ctx, &order{fence: f, apex: apex, zone: &z, served: served})
}

// Remove implements control.Replica.
func (r *Replica) Remove(ctx context.Context, f control.Fence, apex zone.Name) error {
	return r.do(ctx, &order{fence: f, apex: apex})
}

// Raise implements control.Replica.
func (r *Replica) Raise(ctx context.Context, f control.Fence) error {
	return r.do(ctx, &order{fence: f})
}

var (
	errClosing  = errors.New("the server is stopping")
	errSlowDisk = errors.New("the disk does not answer")
)

// do has an order written and applied. ctx counts until the writer takes it.
func (r *Replica) do(ctx context.Context, o *order) error {
	o.result = make(chan error, 1)
	slow := time.NewTimer(r.slowDisk)
	defer slow.Stop()
	select {
	case r.orders <- o:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.closing:
		return errClosing
	case <-slow.C:
		return r.settle(o)
	}
	select {
	case err := <-o.result:
		return err
	case <-slow.C:
		return r.settle(o)
	}
}

// settle applies an order without waiting for the disk any longer.
func (r *Replica) settle(o *order) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.settled {
		return <-o.result
	}
	o.settled = true
	if err := r.admit(o); err != nil {
		return err
	}
	r.apply(o)
	switch {
	case o.apex != "":
		r.behind[o.apex] = true
	case o.document != nil:
		r.behindDocuments[o.document.Kind] = true
	}
	return &control.NotDurableError{Err: errSlowDisk}
}

// admit compares the fence and raises it.
func (r *Replica) admit(o *order) error {
	if o.document != nil {
		return nil
	}
	if !r.fence.Admits(o.fence) {
		return &control.StaleEpochError{Fence: o.fence, Seen: r.fence}
	}
	r.fence = o.fence
	return nil
}

// apply makes admitted orders visible, in one step.
func (r *Replica) apply(orders ...*order) {
	install, remove := map[zone.Name]*zone.Served{}, map[zone.Name]bool{}
	before := map[zone.Name]*control.Installed{}
	for _, o := range orders {
		if was := r.zones[o.apex]; was != nil && before[o.apex] == nil {
			before[o.apex] = was
		}
		switch {
		case o.apex == "":
			continue
		case o.zone != nil:
			r.zones[o.apex] = o.zone
			install[o.apex] = o.served
			delete(remove, o.apex)
		case r.zones[o.apex] != nil:
			delete(r.zones, o.apex)
			delete(install, o.apex)
			remove[o.apex] = true
		}
		delete(r.lost, o.apex)
	}
	if len(install)+len(remove) > 0 {
		r.view.Update(slices.Collect(maps.Values(install)), slices.Collect(maps.Keys(remove)))
	}
	if r.onZone == nil {
		return
	}
	for apex := range install {
		r.onZone(apex, before[apex], r.zones[apex])
	}
	for apex := range remove {
		r.onZone(apex, before[apex], nil)
	}
}

// OnZone sets who is told what a zone was and is, nil for none, when the view has changed; nil is for none. It is called at
// once for what is served by now. It must not call r.
func (r *Replica) OnZone(f func(apex zone.Name, before, after *control.Installed)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for apex, z := range r.zones {
		f(apex, nil, z)
	}
	r.onZone = f
}

// write takes orders until Close, and keeps trying to bring the disk up to date.
func (r *Replica) write() {
	defer close(r.closed)
	wait := firstRetry
	var retry time.Time // zero: none is due
	for {
		var due <-chan time.Time
		switch behind := r.isBehind(); {
		case !behind:
			wait, retry = firstRetry, time.Time{}
		case retry.IsZero():
			retry = time.Now().Add(wait)
			fallthrough
		default:
			due = time.After(time.Until(retry))
		}
		select {
		case o := <-r.orders:
			if r.writeOrders(r.gather(o)) && r.isBehind() { // the disk works again
				r.catchUp()
			}
		case <-due:
			r.catchUp()
			wait, retry = min(2*wait, lastRetry), time.Time{}
		case <-r.closing:
			if r.isBehind() {
				r.catchUp()
			}
			r.closeErr = r.disk.Close()
			return
		}
	}
}

// isBehind reports whether the disk may lack something.
func (r *Replica) isBehind() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.behind) > 0 || len(r.behindDocuments) > 0 || r.onDisk != r.fence
}

// gather adds what others wait for at this moment.
func (r *Replica) gather(first *order) []*order {
	orders := []*order{first}
	owners := first.owners()
	for len(orders) < maxOrders && owners < maxOrderOwners {
		select {
		case o := <-r.orders:
			orders = append(orders, o)
			owners += o.owners()
		default:
			return orders
		}
	}
	return orders
}

func (o *order) owners() int {
	if o.zone == nil {
		return 0
	}
	return o.zone.Content.Owners()
}

// writeOrders writes orders and applies them; it reports whether the disk took all. If it
// does not take them together, each is tried alone: what has no room must not keep the
// others from the disk.
func (r *Replica) writeOrders(orders []*order) bool {
	f, orders := r.admitted(orders)
	if len(orders) == 0 {
		return true
	}
	var changes []store.Change
	var documents []store.Document
	for _, o := range orders {
		switch {
		case o.apex != "":
			changes = append(changes, change(o.apex, o.zone))
		case o.document != nil:
			documents = append(documents, store.Document(*o.document))
		}
	}
	err := r.commit(f, changes, documents)
	if err == nil || len(orders) == 1 {
		r.written(f, orders, err)
		return err == nil
	}
	all := true
	for _, o := range orders {
		all = r.writeOrders([]*order{o}) && all
	}
	return all
}

func (r *Replica) commit(f control.Fence, changes []store.Change, documents []store.Document) error {
	if len(documents) > 0 {
		if err := r.disk.CommitDocuments(store.Fence(f), documents...); err != nil || len(changes) == 0 {
			return err
		}
	}
	return r.disk.Commit(store.Fence(f), changes...)
}

func change(apex zone.Name, z *control.Installed) store.Change {
	if z == nil {
		return store.Change{Apex: apex}
	}
	stored := store.Zone(*z)
	return store.Change{Apex: apex, Zone: &stored}
}

// admitted returns the orders that the fence admits, one after the other, and the fence
// behind them. It answers those that it does not admit.
func (r *Replica) admitted(orders []*order) (control.Fence, []*order) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.fence
	kept := orders[:0]
	for _, o := range orders {
		switch {
		case o.settled:
		case o.document != nil:
			kept = append(kept, o)
		case !f.Admits(o.fence):
			o.settled = true
			o.result <- &control.StaleEpochError{Fence: o.fence, Seen: f}
		default:
			f = o.fence
			kept = append(kept, o)
		}
	}
	return f, kept
}

// written applies orders which the disk has taken, under fence f, or refused with err. The
// fence decides again: it may have been raised while the disk was slow.
func (r *Replica) written(f control.Fence, orders []*order, err error) {
	r.mu.Lock()
	durable := map[zone.Name]zone.Version{}
	var documents []*control.Document // durable too
	defer func() {
		tell, tellDocument := r.onDurable, r.onDocumentDurable
		r.mu.Unlock()
		for apex, v := range durable {
			tell(apex, v)
		}
		for _, d := range documents {
			tellDocument(d.Kind, d.Digest())
		}
	}()
	r.noteDisk(f, err)
	var admitted []*order
	for _, o := range orders {
		if o.settled {
			continue
		}
		o.settled = true
		if stale := r.admit(o); stale != nil {
			o.result <- stale
			continue
		}
		admitted = append(admitted, o)
	}
	r.apply(admitted...)
	for _, o := range orders {
		switch {
		case o.document != nil:
			kind := o.document.Kind
			if err != nil || r.documents[kind] != o.document {
				r.behindDocuments[kind] = true
				continue
			}
			if r.behindDocuments[kind] {
				documents = append(documents, o.document)
			}
			delete(r.behindDocuments, kind)
		case o.apex == "":
		case err != nil || r.zones[o.apex] != o.zone:
			r.behind[o.apex] = true
		default:
			if r.behind[o.apex] && o.zone != nil {
				durable[o.apex] = o.zone.Version
			}
			delete(r.behind, o.apex)
		}
	}
	for _, o := range admitted {
		if err != nil {
			o.result <- &control.NotDurableError{Err: err}
		} else {
			o.result <- nil
		}
	}
}

// noteDisk notes that the disk has fence f, or what it said instead.
func (r *Replica) noteDisk(f control.Fence, err error) {
	switch {
	case err == nil:
		r.onDisk = f
		if r.failing {
			r.log.Info("disk takes writes again")
		}
	case !r.failing:
		r.log.Error(err, "disk refuses to write; zones are served from memory and written later")
	}
	r.failing = err != nil
}

// catchUp writes what the disk lacks, as long as it takes it.
func (r *Replica) catchUp() {
	for r.isBehind() {
		f, lacking, documents := r.lacking()
		err := r.commitDocuments(f, documents)
		if err == nil && (len(documents) == 0 || len(lacking) > 0) {
			err = r.commitLacking(f, lacking)
		}
		if err == nil {
			continue
		}
		if len(lacking) > 1 { // in the hope that it is only one that has no room
			for apex, z := range lacking {
				_ = r.commitLacking(f, map[zone.Name]*control.Installed{apex: z})
			}
		}
		return
	}
}

// lacking picks zones that the disk lacks, in no order, and all documents.
func (r *Replica) lacking() (control.Fence, map[zone.Name]*control.Installed, []*control.Document) {
	r.mu.Lock()
	defer r.mu.Unlock()
	zones := map[zone.Name]*control.Installed{}
	owners := 0
	for apex := range r.behind {
		if z := r.zones[apex]; z != nil {
			owners += z.Content.Owners()
		}
		zones[apex] = r.zones[apex]
		if len(zones) == maxOrders || owners >= maxOrderOwners {
			break
		}
	}
	var documents []*control.Document
	for kind := range r.behindDocuments {
		documents = append(documents, r.documents[kind])
	}
	return r.fence, zones, documents
}

// commitDocuments writes documents, if there are any; of those that did not change meanwhile the
// disk is up to date.
func (r *Replica) commitDocuments(f control.Fence, documents []*control.Document) error {
	if len(documents) == 0 {
		return nil
	}
	var stored []store.Document
	for _, d := range documents {
		stored = append(stored, store.Document(*d))
	}
	err := r.disk.CommitDocuments(store.Fence(f), stored...)
	r.mu.Lock()
	r.noteDisk(f, err)
	tell := r.onDocumentDurable
	var durable []*control.Document
	for _, d := range documents {
		if err == nil && r.documents[d.Kind] == d {
			delete(r.behindDocuments, d.Kind)
			durable = append(durable, d)
		}
	}
	r.mu.Unlock()
	for _, d := range durable {
		tell(d.Kind, d.Digest())
	}
	return err
}

// commitLacking writes zones; of those that did not change meanwhile the disk is up to date.
func (r *Replica) commitLacking(f control.Fence, zones map[zone.Name]*control.Installed) error {
	var changes []store.Change
	for apex, z := range zones {
		changes = append(changes, change(apex, z))
	}
	err := r.disk.Commit(store.Fence(f), changes...)
	r.mu.Lock()
	r.noteDisk(f, err)
	tell := r.onDurable
	durable := map[zone.Name]zone.Version{}
	for apex, z := range zones {
		if err == nil && r.zones[apex] == z {
			delete(r.behind, apex)
			if z != nil {
				durable[apex] = z.Version
			}
		}
	}
	r.mu.Unlock()
	for apex, v := range durable {
		tell(apex, v)
	}
	return err
}
