package controllers

import (
	"context"
	"errors"
	"fmt"
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
	Leader *Leader
	Call   func(types.NamespacedName) // has a zone reconciled; does not block
	Budget *StatusBudget
	Events events.EventRecorder
	Clock  clock.PassiveClock

	mu     sync.Mutex
	memory map[types.NamespacedName]*memory
}

// memory is what the leader knows of a zone beside the API. All of it can be lost.
type memory struct {
	result  *render.Result // of the last rendering
	applied *render.Result // the last of which everything was published
	content *zone.Content  // as published
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
		r.Estate.Forget(req.NamespacedName)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading DNSZone %s: %w", req.NamespacedName, err)
	}
	place, decided := r.Estate.Placement(&z)
	if !decided {
		return reconcile.Result{}, nil // the estate calls again
	}
	status := render.StatusInputs{Zone: &z, Placement: place, Published: z.Status.Published, Records: publishedSources(&z)}
	if place.Refused != nil {
		if place.Keep {
			r.Hub.Retain(place.Apex)
		}
		r.remember(req.NamespacedName, nil)
		r.Estate.Done(req.NamespacedName)
		return r.finish(ctx, &z, status)
	}
	err := r.publish(ctx, &z, place, &status)
	switch wait := (notYet{}); {
	case errors.As(err, &wait):
		log.FromContext(ctx).V(1).Info("Waiting", "for", wait.what)
		return reconcile.Result{RequeueAfter: time.Second}, nil
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: 10 * time.Millisecond}, nil // somebody else wrote; look again
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("publishing zone %s: %w", z.Spec.Name, err)
	}
	r.Estate.Done(req.NamespacedName)
	return r.finish(ctx, &z, status)
}

// notYet is a state that passes by itself.
type notYet struct{ what string }

func (e notYet) Error() string { return "waiting for " + e.what }

// publish renders the zone, reserves a serial for content that is new, and hands both to the
// hub. It fills what status says of it.
func (r *ZoneReconciler) publish(ctx context.Context, z *v1alpha1.DNSZone, place *render.Placement, status *render.StatusInputs) error {
	known := r.recall(render.Key(z))
	in := render.Inputs{Zone: z, Placement: place, Hides: r.hidden(place)}
	var err error
	if in.Sources, err = r.sources(ctx, z, known.result); err != nil {
		return err
	}
	version, held, err := r.published(z, place.Apex)
	if err != nil {
		return err
	}
	in.Published = r.contentInMemory(known, place.Apex, version.Digest)
	want := render.Zone(in, known.result)
	if in.Published == nil && !version.IsZero() && want.Content.Digest() == version.Digest {
		in.Published = want.Content
	}
	if in.Published == nil && !version.IsZero() {
		if in.Published, err = r.fetch(ctx, place.Apex, version, held); err != nil {
			return err
		}
		want = render.Zone(in, nil) // what is kept of the published content may be other than before
	}
	policy := guardPolicy(z)
	decision := render.Guard(render.GuardInputs{
		Published: in.Published, Desired: want, Applied: known.applied, AppliedRecords: status.Records, Policy: policy,
		Approved: z.Annotations[v1alpha1.ApproveRemovalAnnotation], Under: r.under,
	})
	next := &memory{result: want, applied: known.applied, content: decision.Content}
	if decision.Withheld == nil {
		next.applied = want
		status.Records = want.SourceRecords()
	}
	status.Result, status.Withheld = want, decision.Withheld

	predecessor := version.Serial
	if decision.Content.Digest() != version.Digest || version.Serial == 0 {
		floor := want.SerialFloor
		if f := z.Spec.SOA.SerialFloor; f != nil && (floor == 0 || zone.SerialLess(floor, uint32(*f))) {
			floor = uint32(*f)
		}
		version = zone.Version{Serial: zone.NextSerial(version.Serial, floor, r.Clock.Now()), Digest: decision.Content.Digest()}
	}
	status.Published = &v1alpha1.PublishedVersion{Serial: int64(version.Serial), Digest: version.Digest.String(), Records: int32(decision.Content.Records())}
	if z.Status.Published == nil || *z.Status.Published != *status.Published {
		if err := r.reserve(ctx, z, status); err != nil {
			return err
		}
	}
	r.remember(render.Key(z), next)
	r.Hub.Publish(control.Zone{
		Content: decision.Content, Version: version, Source: render.Key(z).String(), Groups: groupKeys(place.Locations),
		Guard: policy, Predecessor: predecessor, ApprovedRemoval: decision.Approved,
	})
	r.notifyChildren(place, known, next)
	var kept []zone.Name
	if decision.Withheld != nil {
		kept = decision.Withheld.Delegations
	}
	r.Estate.Released(render.Key(z), kept)
	return nil
}

// published returns the version that servers hold or are to hold: what the status says,
// unless servers report something newer that this API does not know of: its status was lost,
// it was restored from a backup, or another hub published meanwhile.
func (r *ZoneReconciler) published(z *v1alpha1.DNSZone, apex zone.Name) (zone.Version, []control.HeldReport, error) {
	var version zone.Version
	if p := z.Status.Published; p != nil {
		digest, err := zone.ParseDigest(p.Digest)
		if err != nil {
			return version, nil, fmt.Errorf("status.published: %w", err)
		}
		version = zone.Version{Serial: uint32(p.Serial), Digest: digest}
	}
	held := r.Hub.Held(apex)
	if version.IsZero() && len(held) == 0 && !r.Leader.Settled() {
		return version, nil, notYet{"servers to say what they hold"}
	}
	for _, h := range held {
		if version.Serial == 0 || h.Version.Digest != version.Digest && !zone.SerialLess(h.Version.Serial, version.Serial) {
			if version.Serial == 0 || h.Version.Serial-version.Serial <= 1<<30 {
				version = h.Version
			}
		}
	}
	return version, held, nil
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
// the newest. No server having any is no error: then there is nothing to guard.
func (r *ZoneReconciler) fetch(ctx context.Context, apex zone.Name, version zone.Version, held []control.HeldReport) (*zone.Content, error) {
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
	if newest.Digest != version.Digest && !r.Leader.Settled() {
		return nil, notYet{"a server that holds the published content"}
	}
	if newest.IsZero() {
		log.FromContext(ctx).Info("No server holds what is published, so the guard has nothing to compare with", "zone", apex.String(), "version", version.String())
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	content, err := r.Hub.Fetch(ctx, apex, newest.Digest)
	if err != nil {
		return nil, fmt.Errorf("fetching %s of zone %s from a server: %w", newest, apex, err)
	}
	return content, nil
}

// reserve writes the version to be published under the resourceVersion that was read. A
// conflict means that another leader, or a newer spec, is ahead: nothing may be pushed. With
// a new spec the rest of the status goes along, since one write has to say that it is pending.
func (r *ZoneReconciler) reserve(ctx context.Context, z *v1alpha1.DNSZone, status *render.StatusInputs) error {
	before := z.DeepCopy()
	if z.Status.ObservedGeneration != z.Generation {
		in := *status
		in.Zone, in.Now = before, metav1.NewTime(r.Clock.Now())
		in.Servers, in.Declared = r.servers(status.Placement, zone.Version{}), r.declared(ctx)
		in.InParent = r.inParent(status.Placement)
		z.Status = render.ZoneStatus(in)
	}
	z.Status.Published = status.Published
	z.Status.Records = status.Published.Records
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Status().Patch(ctx, z, patch); err != nil {
		return fmt.Errorf("reserving serial %d of zone %s: %w", status.Published.Serial, z.Spec.Name, err)
	}
	r.Budget.Wrote(render.Key(z), r.Clock.Now())
	return nil
}

// finish writes the status if it says something new, not more often than statusInterval.
func (r *ZoneReconciler) finish(ctx context.Context, z *v1alpha1.DNSZone, in render.StatusInputs) (reconcile.Result, error) {
	if !r.Leader.Settled() {
		return reconcile.Result{}, nil // the leader calls for every zone once servers have reported
	}
	var version zone.Version
	if p := in.Published; p != nil {
		digest, err := zone.ParseDigest(p.Digest)
		if err != nil {
			return reconcile.Result{}, fmt.Errorf("status.published of zone %s: %w", z.Spec.Name, err)
		}
		version = zone.Version{Serial: uint32(p.Serial), Digest: digest}
	}
	in.Zone, in.Now = z, metav1.NewTime(r.Clock.Now())
	in.Servers, in.Declared = r.servers(in.Placement, version), r.declared(ctx)
	in.InParent = r.inParent(in.Placement)
	want := render.ZoneStatus(in)
	if equality.Semantic.DeepEqual(z.Status, want) {
		r.Budget.Same(render.Key(z))
		return reconcile.Result{}, nil
	}
	if wait := r.Budget.Wait(render.Key(z), r.Clock.Now(), lasting(z, in)); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	before := z.DeepCopy()
	z.Status = want
	if err := r.Client.Status().Patch(ctx, z, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
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
// gets its status at once. A server that is away may be restarting, and all its zones with it.
func lasting(z *v1alpha1.DNSZone, in render.StatusInputs) time.Duration {
	if z.Status.ObservedGeneration != z.Generation {
		return 0
	}
	declared := 0
	for _, l := range in.Placement.Locations {
		declared += in.Declared[l]
	}
	if in.Placement.Refused == nil && len(in.Servers) < declared {
		return awayInterval
	}
	return statusInterval
}

// announce makes an Event of every transition that a person cares about.
func (r *ZoneReconciler) announce(z *v1alpha1.DNSZone, before, after []metav1.Condition) {
	bad := map[string]metav1.ConditionStatus{
		v1alpha1.ConditionAccepted:        metav1.ConditionFalse,
		v1alpha1.ConditionRemovalWithheld: metav1.ConditionTrue,
		v1alpha1.ConditionDegraded:        metav1.ConditionTrue,
	}
	for _, c := range after {
		trouble, watched := bad[c.Type]
		old := meta.FindStatusCondition(before, c.Type)
		switch {
		case c.Type == v1alpha1.ConditionProgrammed && c.Reason == v1alpha1.ReasonRejected && (old == nil || old.Reason != c.Reason):
			r.Events.Eventf(z, nil, corev1.EventTypeWarning, c.Reason, "Publish", "%s", note(c.Message))
		case !watched:
		case c.Status == trouble && (old == nil || old.Status != trouble || old.Reason != c.Reason):
			r.Events.Eventf(z, nil, corev1.EventTypeWarning, c.Reason, "Publish", "%s", note(c.Message))
		case c.Status != trouble && old != nil && old.Status == trouble:
			r.Events.Eventf(z, nil, corev1.EventTypeNormal, c.Reason, "Publish", "%s", note(c.Message))
		}
	}
}

// note fits a message into an Event (at most 1,024 characters).
func note(message string) string { return message[:min(len(message), 1000)] }

// servers joins what the hub knows of the zone with where it should be.
func (r *ZoneReconciler) servers(place *render.Placement, version zone.Version) []render.ServerReport {
	var reports []render.ServerReport
	for _, s := range r.Hub.Zone(place.Apex).Servers {
		if !s.Wanted {
			continue
		}
		report := render.ServerReport{
			Location: render.Location{Datacenter: s.ID.Datacenter, Group: s.ID.Group}, Name: s.ID.Name,
			Version: s.Held, Current: s.Current && s.Held == version && !s.NotDurable,
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

// under counts the records that servers hold of a zone and of all zones below it.
func (r *ZoneReconciler) under(child zone.Name) int {
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
	if m == nil {
		delete(r.memory, key)
		return
	}
	if r.memory == nil {
		r.memory = map[types.NamespacedName]*memory{}
	}
	r.memory[key] = m
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

func publishedSources(z *v1alpha1.DNSZone) map[string]int {
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
