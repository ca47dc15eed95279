package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// statusInterval is the shortest time between two status writes of one object. Reserving a
// serial does not wait for it.
const statusInterval = time.Second

// awayInterval is how long a server must have been away before zones say so. Their number is
// why: the Datacenter says it after statusInterval.
const awayInterval = 10 * time.Second

// ZoneReconciler brings every server of a zone to the zone's desired content, and says in
// the zone's status how far that is.
type ZoneReconciler struct {
	Client client.Client // cached; ConfigMaps by metadata only
	Live   client.Reader // for the content of ConfigMaps
	Hub    *control.Hub
	Estate *EstateReconciler
	Call   func(types.NamespacedName) // has a zone reconciled; does not block
	// CallRecord has a DynamicRecord reconciled; Waiting lists those of a zone that wait for servers.
	CallRecord func(types.NamespacedName)
	Waiting    func(zone types.NamespacedName) []types.NamespacedName
	Secrets    *ProbeSecrets
	// CallSecrets has the certificates of probes published anew; it does not block.
	CallSecrets func()
	// CallHints has the root hints made anew; it does not block.
	CallHints func()
	Budget    *StatusBudget
	Events    events.EventRecorder
	Clock     clock.PassiveClock

	mu      sync.Mutex
	memory  map[types.NamespacedName]*memory
	written map[types.NamespacedName]written
	steered map[types.NamespacedName]*steeredZone
	fetches map[types.NamespacedName]*fetch
	fits    map[types.NamespacedName]fit
}

// fit is what of some content does not fit replies of some size.
type fit struct {
	digest zone.Digest
	size   int
	found  render.Oversized
}

// fetch is published content on its way from a server.
type fetch struct {
	digest  zone.Digest
	done    bool
	content *zone.Content
	err     error
}

// written is a zone as this manager wrote its status, which the cache learns of a little later.
type written struct {
	older []string // the resourceVersions that it was made from, one after the other
	zone  *v1alpha1.DNSZone
}

// memory is what the leader knows of a zone beside the API. All of it can be lost.
type memory struct {
	result  *render.Result // of the last rendering
	applied *render.Result // the last of which everything was published
	content *zone.Content  // as published
	version zone.Version   // as published
	// predecessor is the serial that the guard was applied against before version was
	// published; 0: against nothing, or it is not known.
	predecessor uint32
}

// +kubebuilder:rbac:groups=fingerpost.dev,resources=dnszones,verbs=get;list;watch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=dnszones/status,verbs=get;update;patch
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconcile publishes one zone.
func (r *ZoneReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var z v1alpha1.DNSZone
	if err := r.Client.Get(ctx, req.NamespacedName, &z); apierrors.IsNotFound(err) || err == nil && z.DeletionTimestamp != nil {
		r.remember(req.NamespacedName, nil)
		r.forgetWritten(req.NamespacedName)
		r.forgetRecords(req.NamespacedName)
		r.Estate.Forget(req.NamespacedName)
		r.Budget.Same(req.NamespacedName, r.Clock.Now())
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading DNSZone %s: %w", req.NamespacedName, err)
	}
	r.catchUp(&z)
	place, decided := r.Estate.Placement(&z)
	if !decided {
		return reconcile.Result{}, nil // the estate calls again
	}
	status := render.StatusInputs{Zone: &z, Placement: place, Published: z.Status.Published, Records: publishedSources(&z)}
	if place.Refused != nil {
		if place.Keep && !r.Estate.Retain(req.NamespacedName, place) {
			return reconcile.Result{}, nil // the estate calls again
		}
		r.remember(req.NamespacedName, nil)
		if !place.Keep {
			r.forgetRecords(req.NamespacedName)
		}
		r.Estate.Done(req.NamespacedName)
		return r.finish(ctx, &z, status)
	}
	err := r.publish(ctx, &z, place, &status)
	switch wait := (notYet{}); {
	case err == nil:
	case errors.Is(err, errOverruled):
		return reconcile.Result{}, nil // the estate calls again
	case errors.As(err, &wait):
		log.FromContext(ctx).V(1).Info("Waiting", "for", wait.what)
		return reconcile.Result{RequeueAfter: time.Second}, nil
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: 10 * time.Millisecond}, nil // somebody else wrote; look again
	default:
		r.Estate.RetainFirst(req.NamespacedName, place)
		status = render.StatusInputs{Zone: &z, Placement: place, Published: z.Status.Published, Records: publishedSources(&z), Failure: err.Error()}
		if _, unwritten := r.finish(ctx, &z, status); unwritten != nil {
			err = errors.Join(err, unwritten)
		}
		return reconcile.Result{}, fmt.Errorf("publishing zone %s: %w", z.Spec.Name, err)
	}
	r.Estate.Done(req.NamespacedName)
	return r.finish(ctx, &z, status)
}

// errOverruled says that the zone has another place since its reconciler looked.
var errOverruled = errors.New("the estate has decided anew")

// notYet is a state that passes by itself.
type notYet struct{ what string }

func (e notYet) Error() string { return "waiting for " + e.what }

// publish renders the zone, reserves a serial for content that is new, and hands both to the
// hub. It fills what status says of it.
func (r *ZoneReconciler) publish(ctx context.Context, z *v1alpha1.DNSZone, place *render.Placement, status *render.StatusInputs) error {
	key := render.Key(z)
	known := r.recall(key)
	in := render.Inputs{Zone: z, Placement: place, Hides: r.hidden(place)}
	var err error
	if in.Sources, err = r.sources(ctx, z, known.result); err != nil {
		return err
	}
	stated, err := versionOf(z.Status.Published)
	if err != nil {
		return err
	}
	held := r.Hub.Held(place.Apex)
	if !r.Estate.Informed() && (stated.IsZero() || slices.ContainsFunc(held, func(h control.HeldReport) bool { return h.Source != key.String() })) {
		return notYet{"servers to say whose zone they hold"}
	}
	before, contested := latest(stated, append(versions(held), known.version)...)
	if before != stated {
		status.Records = nil // they are of another version
	}
	for _, h := range held {
		if v := h.Version; v.Serial != before.Serial && !zone.SerialLess(v.Serial, before.Serial) {
			r.Events.Eventf(z, nil, corev1.EventTypeWarning, v1alpha1.ReasonEpochTooFarAhead, "Publish",
				"server %s reports serial %d, too far ahead of %d to be followed: it is given the published version", h.ID, v.Serial, before.Serial)
		}
	}
	in.Published = r.contentInMemory(known, place.Apex, before.Digest)
	generations := map[types.NamespacedName]int64{}
	draw := func() (*render.Result, error) {
		if in.Steered, generations, err = r.steer(ctx, z, place, in.Published); err != nil {
			return nil, err
		}
		return render.Zone(in, known.result), nil
	}
	want, err := draw()
	if err != nil {
		return err
	}
	if in.Published == nil && !before.IsZero() && want.Content.Digest() == before.Digest {
		in.Published = want.Content
	}
	if in.Published == nil && !before.IsZero() {
		if in.Published, err = r.fetch(ctx, key, place.Apex, before, held); err != nil {
			return err
		}
		if in.Published == nil && len(want.Unknown) > 0 {
			return fmt.Errorf("%s is missing, and no connected server holds what was published of it", strings.Join(want.Unknown, ", "))
		}
		if want, err = draw(); err != nil { // what is kept of the published content may be other than before
			return err
		}
	}
	policy := guardPolicy(z)
	approved := z.Annotations[v1alpha1.ApproveRemovalAnnotation]
	decision := render.Guard(render.GuardInputs{
		Published: in.Published, Desired: want, Applied: known.applied, AppliedRecords: status.Records, Policy: policy,
		Approved: approved, Under: func(child zone.Name) int { return r.under(key, child) },
	})
	next := &memory{result: want, applied: known.applied, content: decision.Content, version: before, predecessor: known.predecessor}
	if decision.Withheld == nil {
		next.applied = want
		status.Records = want.SourceRecords()
	}
	status.Result, status.Withheld = want, decision.Withheld

	floor := want.SerialFloor
	if f := z.Spec.SOA.SerialFloor; f != nil && (floor == 0 || zone.SerialLess(floor, uint32(*f))) {
		floor = uint32(*f)
	}
	digest := decision.Content.Digest()
	switch {
	case digest != before.Digest || before.Serial == 0 || contested || floor != 0 && zone.SerialLess(before.Serial, floor):
		next.version = zone.Version{Serial: zone.NextSerial(before.Serial, floor, r.Clock.Now()), Digest: digest}
		next.predecessor = before.Serial
		if in.Published == nil {
			next.predecessor = 0 // servers have to compare for themselves
		}
	case before != known.version: // another leader has published it, for whose guard servers may have had the last word
		next.predecessor = before.Serial
		if slices.ContainsFunc(held, func(h control.HeldReport) bool { return h.Version != before }) {
			next.predecessor = 0
		}
	}
	status.Published = &v1alpha1.PublishedVersion{
		Serial: int64(next.version.Serial), Digest: digest.String(), Records: int32(decision.Content.Records()),
	}
	if z.Status.Published == nil || *z.Status.Published != *status.Published {
		if err := r.reserve(ctx, z, status); err != nil {
			return err
		}
	}
	var kept []zone.Name
	if decision.Withheld != nil {
		kept = decision.Withheld.Delegations
	}
	groups := groupKeys(place.Locations)
	if in.Steered.Any() {
		groups = append(groups, groupKeys(place.Witnesses)...)
	}
	inForce := r.Estate.Publish(key, place, kept, func() {
		r.remember(key, next)
		r.Hub.Publish(control.Zone{
			Content: decision.Content, Version: next.version, Source: key.String(), Groups: groups,
			Guard: policy, Predecessor: next.predecessor, ApprovedRemoval: approved,
		})
	})
	if !inForce {
		return errOverruled
	}
	if place.Apex == rootApex {
		r.CallHints()
	}
	status.Oversized = r.oversized(key, place.UDPOnly, decision.Content)
	r.notifyChildren(place, known, next)
	r.noteRecords(z, place, in.Steered, generations, want.RefusedRecords(), known.content, next.content, next.version)
	for _, key := range r.Waiting(key) {
		r.CallRecord(key)
	}
	return nil
}

// latest returns the version that servers hold or are to hold: what the status states, unless
// this leader or a server knows of a later one, since the status was lost, was restored from a
// backup, is older in the cache, or another hub has published meanwhile. Versions more than
// 2^30 ahead are a mistake, not later. contested: another one has the same serial, which so
// stands for two contents.
func latest(stated zone.Version, others ...zone.Version) (v zone.Version, contested bool) {
	v = stated
	for _, o := range others {
		switch {
		case o.IsZero() || o == v:
		case v.IsZero(), zone.SerialLess(v.Serial, o.Serial) && o.Serial-v.Serial <= 1<<30:
			v, contested = o, false
		case o.Serial == v.Serial:
			contested = true
		}
	}
	return v, contested
}

func versions(held []control.HeldReport) []zone.Version {
	all := make([]zone.Version, len(held))
	for i, h := range held {
		all[i] = h.Version
	}
	return all
}

// versionOf reads a published version; nil is none.
func versionOf(p *v1alpha1.PublishedVersion) (zone.Version, error) {
	if p == nil {
		return zone.Version{}, nil
	}
	digest, err := zone.ParseDigest(p.Digest)
	if err != nil {
		return zone.Version{}, fmt.Errorf("status.published: %w", err)
	}
	return zone.Version{Serial: uint32(p.Serial), Digest: digest}, nil
}

func (r *ZoneReconciler) contentInMemory(known memory, apex zone.Name, d zone.Digest) *zone.Content {
	if known.content != nil && known.content.Digest() == d {
		return known.content
	}
	if d.IsZero() {
		return nil
	}
	return r.Hub.Content(apex, d)
}

// fetch gets published content from a server that holds it, else from the one that holds
// the newest. No server having any is no error: then there is nothing to guard. While it is on
// its way, which may take long, the error is a notYet, and the zone is reconciled when it is here.
func (r *ZoneReconciler) fetch(ctx context.Context, key types.NamespacedName, apex zone.Name, version zone.Version, held []control.HeldReport) (*zone.Content, error) {
	var newest zone.Version
	for _, h := range held {
		if h.Version.Digest == version.Digest {
			newest = h.Version
			break
		}
		if newest.IsZero() || zone.SerialLess(newest.Serial, h.Version.Serial) {
			newest = h.Version
		}
	}
	if newest.Digest != version.Digest && !r.Estate.Informed() {
		return nil, notYet{"a server that holds the published content"}
	}
	if newest.IsZero() {
		log.FromContext(ctx).Info("No server holds what is published, so the guard has nothing to compare with", "zone", apex.String(), "version", version.String())
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch f := r.fetches[key]; {
	case f == nil || f.digest != newest.Digest:
		r.startFetch(ctx, key, apex, newest.Digest)
	case f.done && f.err != nil:
		delete(r.fetches, key) // the queue tries again
		return nil, fmt.Errorf("fetching %s of zone %s from a server: %w", newest, apex, f.err)
	case f.done:
		return f.content, nil
	}
	return nil, notYet{"the published content from a server"}
}

// fetchPatience is how long a fetch may take.
const fetchPatience = 30 * time.Second

// startFetch fetches beside the reconciler, which has other zones to look after. r.mu is held.
func (r *ZoneReconciler) startFetch(ctx context.Context, key types.NamespacedName, apex zone.Name, digest zone.Digest) {
	f := &fetch{digest: digest}
	if r.fetches == nil {
		r.fetches = map[types.NamespacedName]*fetch{}
	}
	r.fetches[key] = f
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchPatience) // it ends with the hub's streams, too
		defer cancel()
		content, err := r.Hub.Fetch(ctx, apex, digest)
		r.mu.Lock()
		f.done, f.content, f.err = true, content, err
		r.mu.Unlock()
		r.Call(key)
	}()
}

// reserve writes the version to be published under the resourceVersion that was read. A
// conflict means that another leader, or a newer spec, is ahead: nothing may be pushed. With
// a new spec the rest of the status goes along, since one write has to say that it is pending.
// Status writes are not bound by it: what servers make of the version may be told at once.
func (r *ZoneReconciler) reserve(ctx context.Context, z *v1alpha1.DNSZone, status *render.StatusInputs) error {
	after := z.DeepCopy()
	if z.Status.ObservedGeneration != z.Generation && r.Estate.Complete() {
		in := *status
		in.Zone, in.Now = z, metav1.NewTime(r.Clock.Now())
		in.Servers, in.Declared = r.servers(status.Placement, zone.Version{}), r.declared(ctx)
		in.InParent = r.inParent(status.Placement)
		after.Status = render.ZoneStatus(in)
	}
	after.Status.Published = status.Published
	after.Status.Records = status.Published.Records
	after.Status.Sources = render.SourceStatuses(status.Records)
	if err := r.patchStatus(ctx, z, after); err != nil {
		return fmt.Errorf("reserving serial %d of zone %s: %w", status.Published.Serial, z.Spec.Name, err)
	}
	*z = *after
	r.Budget.Same(render.Key(z), r.Clock.Now())
	return nil
}

// patchStatus writes the status of after, which becomes what the API server answers, if the object still is as before.
func (r *ZoneReconciler) patchStatus(ctx context.Context, before, after *v1alpha1.DNSZone) error {
	if err := r.Client.Status().Patch(ctx, after, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return err
	}
	after.ManagedFields = nil // as in the cache
	r.wrote(before, after)
	return nil
}

// wrote notes that after was written where before had been.
func (r *ZoneReconciler) wrote(before, after *v1alpha1.DNSZone) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.written == nil {
		r.written = map[types.NamespacedName]written{}
	}
	w := written{zone: after.DeepCopy()}
	if last := r.written[render.Key(after)]; last.zone != nil && last.zone.ResourceVersion == before.ResourceVersion {
		w.older = last.older
	}
	w.older = append(w.older, before.ResourceVersion)
	r.written[render.Key(after)] = w
}

// catchUp makes of z, as the cache has it, what this manager has written meanwhile: servers ack within milliseconds, and
// a decision on the version before would end in a conflict.
func (r *ZoneReconciler) catchUp(z *v1alpha1.DNSZone) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, known := r.written[render.Key(z)]
	switch {
	case !known:
	case slices.Contains(w.older, z.ResourceVersion):
		w.zone.DeepCopyInto(z)
	default:
		delete(r.written, render.Key(z)) // the cache has it, or something newer
	}
}

func (r *ZoneReconciler) forgetWritten(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.written, key)
}

// finish writes the status if it says something new, not more often than statusInterval.
func (r *ZoneReconciler) finish(ctx context.Context, z *v1alpha1.DNSZone, in render.StatusInputs) (reconcile.Result, error) {
	if !r.Estate.Complete() {
		return reconcile.Result{}, nil // the estate calls for every zone then
	}
	version, err := versionOf(in.Published)
	if err != nil {
		return reconcile.Result{}, err
	}
	in.Zone, in.Now = z, metav1.NewTime(r.Clock.Now())
	in.Servers, in.Declared = r.servers(in.Placement, version), r.declared(ctx)
	in.InParent = r.inParent(in.Placement)
	want := render.ZoneStatus(in)
	if equality.Semantic.DeepEqual(z.Status, want) {
		r.Budget.Same(render.Key(z), r.Clock.Now())
		return reconcile.Result{}, nil
	}
	if wait := r.Budget.Wait(render.Key(z), r.Clock.Now(), lasting(z, in, want)); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	before := z.DeepCopy()
	z.Status = want
	if err := r.patchStatus(ctx, before, z); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
		}
		return reconcile.Result{}, fmt.Errorf("writing the status of DNSZone %s: %w", render.Key(z), err)
	}
	r.Budget.Wrote(render.Key(z), r.Clock.Now())
	r.announce(z, before.Status.Conditions, want.Conditions)
	return reconcile.Result{}, nil
}

// lasting is how long a zone's status must have been wrong before it is written. A new spec
// gets its status at once, and so does the end of what somebody waits for. A server that is
// away may be restarting, and all its zones with it; a failure may pass.
func lasting(z *v1alpha1.DNSZone, in render.StatusInputs, want v1alpha1.DNSZoneStatus) time.Duration {
	is := func(s v1alpha1.DNSZoneStatus, typ string) bool { return meta.IsStatusConditionTrue(s.Conditions, typ) }
	declared := 0
	for _, l := range in.Placement.Locations {
		declared += in.Declared[l]
	}
	switch {
	case in.Failure != "":
		return awayInterval
	case z.Status.ObservedGeneration != z.Generation,
		is(want, v1alpha1.ConditionReady) && !is(z.Status, v1alpha1.ConditionReady),
		is(z.Status, v1alpha1.ConditionRemovalWithheld) && !is(want, v1alpha1.ConditionRemovalWithheld):
		return 0
	case in.Placement.Refused == nil && len(in.Servers) < declared:
		return awayInterval
	default:
		return statusInterval
	}
}

// announce makes an Event of every transition that a person cares about. Servers that come
// and go are their Datacenter's: each has all its zones with it.
func (r *ZoneReconciler) announce(z *v1alpha1.DNSZone, before, after []metav1.Condition) {
	bad := map[string]metav1.ConditionStatus{
		v1alpha1.ConditionAccepted:        metav1.ConditionFalse,
		v1alpha1.ConditionRemovalWithheld: metav1.ConditionTrue,
		v1alpha1.ConditionDegraded:        metav1.ConditionTrue,
		v1alpha1.ConditionOversized:       metav1.ConditionTrue,
	}
	for _, c := range after {
		trouble, watched := bad[c.Type]
		old := meta.FindStatusCondition(before, c.Type)
		switch {
		case c.Type == v1alpha1.ConditionProgrammed && c.Reason == v1alpha1.ReasonRejected && (old == nil || old.Reason != c.Reason):
			r.Events.Eventf(z, nil, corev1.EventTypeWarning, c.Reason, "Publish", "%s", note(c.Message))
		case !watched, fleet(c), old != nil && fleet(*old) && c.Status != trouble:
		case c.Status == trouble && (old == nil || old.Status != trouble || old.Reason != c.Reason):
			r.Events.Eventf(z, nil, corev1.EventTypeWarning, c.Reason, "Publish", "%s", note(c.Message))
		case c.Status != trouble && old != nil && old.Status == trouble:
			r.Events.Eventf(z, nil, corev1.EventTypeNormal, c.Reason, "Publish", "%s", note(c.Message))
		}
	}
}

func fleet(c metav1.Condition) bool {
	return c.Reason == v1alpha1.ReasonDatacenterUnreachable || c.Reason == v1alpha1.ReasonServersMissing
}

// note fits a message into an Event (at most 1,024 characters).
func note(message string) string { return message[:min(len(message), 1000)] }

// servers lists the connected servers that are to serve the zone, with what the hub knows of
// it at each.
func (r *ZoneReconciler) servers(place *render.Placement, version zone.Version) []render.ServerReport {
	at := map[control.ServerID]control.ZoneServer{}
	for _, s := range r.Hub.Zone(place.Apex).Servers {
		at[s.ID] = s
	}
	var reports []render.ServerReport
	for _, connected := range r.Hub.Servers() {
		id := connected.ID
		location := render.Location{Datacenter: id.Datacenter, Group: id.Group}
		if !slices.Contains(place.Locations, location) {
			continue
		}
		s := at[id] // zero: it has nothing, and nothing is published
		report := render.ServerReport{
			Location: location, Name: id.Name, Version: s.Held, Current: s.Wanted && s.Current && s.Held == version && !s.NotDurable,
		}
		if s.NotDurable {
			report.NotDurable = "its disk refuses the write"
		}
		if s.Nack != nil {
			report.Refusal = fmt.Sprintf("%s: %s", s.Nack.Reason, s.Nack.Message)
		}
		reports = append(reports, report)
	}
	return reports
}

// declared counts the servers that every group should have.
func (r *ZoneReconciler) declared(ctx context.Context) map[render.Location]int {
	counts := map[render.Location]int{}
	var datacenters v1alpha1.DatacenterList
	if err := r.Client.List(ctx, &datacenters, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing Datacenters")
		return counts
	}
	for _, dc := range datacenters.Items {
		for _, g := range dc.Spec.ServerGroups {
			counts[render.Location{Datacenter: dc.Name, Group: g.Name}] = render.DeclaredServers(g)
		}
	}
	return counts
}

// under counts the records that servers hold of a zone and of all zones below it: they go
// with the delegation, unless another zone than parent delegates to it.
func (r *ZoneReconciler) under(parent types.NamespacedName, child zone.Name) int {
	if r.Estate.Elsewhere(child, parent) {
		return 0
	}
	records := 0
	for _, apex := range r.Hub.HeldZones() {
		if !apex.Within(child) {
			continue
		}
		most := 0
		for _, h := range r.Hub.Held(apex) {
			most = max(most, h.Records)
		}
		records += most
	}
	return records
}

func (r *ZoneReconciler) recall(key types.NamespacedName) memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.memory[key]; m != nil {
		return *m
	}
	return memory{}
}

func (r *ZoneReconciler) remember(key types.NamespacedName, m *memory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.fetches, key) // what it brought is in m, or of no use
	if m == nil {
		delete(r.fits, key)
	}
	if m == nil {
		delete(r.memory, key)
		return
	}
	if r.memory == nil {
		r.memory = map[types.NamespacedName]*memory{}
	}
	r.memory[key] = m
}

// oversized returns what of the content does not fit where TCP is closed; nil if that is nowhere.
func (r *ZoneReconciler) oversized(key types.NamespacedName, only *render.UDPOnly, c *zone.Content) *render.Oversized {
	r.mu.Lock()
	defer r.mu.Unlock()
	if only == nil {
		delete(r.fits, key)
		return nil
	}
	known, ok := r.fits[key]
	if !ok || known.digest != c.Digest() || known.size != only.Size {
		r.mu.Unlock() // it is a look at all names
		known = fit{c.Digest(), only.Size, render.FindOversized(c, only.Size)}
		r.mu.Lock()
		if r.fits == nil {
			r.fits = map[types.NamespacedName]fit{}
		}
		r.fits[key] = known
	}
	return &known.found
}

// inParent reports whether what the parent publishes refers to the zone.
func (r *ZoneReconciler) inParent(place *render.Placement) bool {
	if place.Parent.Name == "" {
		return false
	}
	parent := r.recall(place.Parent)
	return parent.content != nil && parent.content.Node(place.Apex).Has(zone.TypeNS)
}

// hidden returns the names of the parent that the zone's cut hides.
func (r *ZoneReconciler) hidden(place *render.Placement) render.Hidden {
	if place.Parent.Name == "" {
		return render.Hidden{}
	}
	if parent := r.recall(place.Parent); parent.result != nil {
		return parent.result.Hidden[place.Apex]
	}
	return render.Hidden{}
}

// notifyChildren calls for the children whose delegation or hidden names changed.
func (r *ZoneReconciler) notifyChildren(place *render.Placement, before memory, after *memory) {
	for _, child := range place.Children {
		was := before.content != nil && before.content.Node(child.Child).Has(zone.TypeNS)
		is := after.content.Node(child.Child).Has(zone.TypeNS)
		hid := 0
		if before.result != nil {
			hid = before.result.Hidden[child.Child].Count
		}
		if was != is || hid != after.result.Hidden[child.Child].Count {
			r.Call(child.Source)
		}
	}
}

func guardPolicy(z *v1alpha1.DNSZone) zone.GuardPolicy {
	p := zone.GuardPolicy{MinDeletes: 10, MaxDeletePercent: 30}
	if v := z.Spec.Guard.MinDeletes; v != nil {
		p.MinDeletes = int(*v)
	}
	if v := z.Spec.Guard.MaxDeletePercent; v != nil {
		p.MaxDeletePercent = int(*v)
	}
	return p
}

// publishedSources counts the records of each source when all was published last; nil: that
// is not known.
func publishedSources(z *v1alpha1.DNSZone) map[string]int {
	if len(z.Status.Sources) == 0 {
		return nil
	}
	counts := make(map[string]int, len(z.Status.Sources))
	for _, s := range z.Status.Sources {
		counts[s.Name] = int(s.Records)
	}
	return counts
}

func groupKeys(locations []render.Location) []control.GroupKey {
	keys := make([]control.GroupKey, len(locations))
	for i, l := range locations {
		keys[i] = control.GroupKey{Datacenter: l.Datacenter, Group: l.Group}
	}
	return keys
}
