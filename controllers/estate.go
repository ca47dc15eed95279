package controllers

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// estateKey is the one request of the EstateReconciler: the hierarchy is decided as a whole.
var estateKey = reconcile.Request{NamespacedName: types.NamespacedName{Name: "estate"}}

// EstateReconciler decides about the hierarchy: who is accepted, who delegates to whom.
// It keeps the decisions in memory for the ZoneReconciler, and calls it for every zone whose
// decision changed. A change of records alone does not come here.
type EstateReconciler struct {
	Client         client.Reader // cached
	Hub            *control.Hub
	ApexNamespaces []string
	// Settled reports whether the servers have said what they hold.
	Settled func() bool
	// Call has a zone reconciled anew; it does not block.
	Call func(types.NamespacedName)
	// Changed asks for a decision; a full channel has asked already.
	Changed chan<- event.GenericEvent
	// OnDecision is called when something is decided anew; it does not block.
	OnDecision func()
	// OnComplete is called once, when Complete begins to be true; it does not block.
	OnComplete func()

	mu      sync.Mutex
	decided map[types.NamespacedName]decided
	owners  map[zone.Name]types.NamespacedName // of accepted zones, and of those that are kept
	waiting map[types.NamespacedName]bool      // zones whose reconciler wants to be called after the next decision
	// orphans are zone names that nobody owns any more and that lie below an owned one: servers
	// keep them until the closest zone above has let go of the delegation.
	orphans map[zone.Name]bool
	// informed: the decisions in force were made after servers had said whose zones they hold.
	informed bool
	// open are the zones that the servers' first full list still waits for; nil before the first informed decision.
	open map[types.NamespacedName]bool
	// documents: what servers are told beside zones is published, as far as it can be.
	documents bool
	complete  bool
}

// decided is a placement and what it was decided from.
type decided struct {
	claim     claim
	placement *render.Placement
}

// claim is the part of a DNSZone that the hierarchy depends on.
type claim struct {
	uid         types.UID
	name        string
	group       string
	datacenters []v1alpha1.DatacenterName
	children    []v1alpha1.AllowedChildren
}

func claimOf(z *v1alpha1.DNSZone) claim {
	return claim{z.UID, z.Spec.Name, z.Spec.ServerGroup, z.Spec.Datacenters.Names, z.Spec.AllowedChildren}
}

// Placement returns what is decided about z as it is now. If nothing is, a decision is asked
// for and the zone's reconciler will be called after it.
func (r *EstateReconciler) Placement(z *v1alpha1.DNSZone) (*render.Placement, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d, ok := r.decided[render.Key(z)]; ok && reflect.DeepEqual(d.claim, claimOf(z)) {
		return d.placement, true
	}
	if r.waiting == nil {
		r.waiting = map[types.NamespacedName]bool{}
	}
	r.waiting[render.Key(z)] = true
	r.ask()
	return nil, false
}

// kept returns the placement of a zone that is refused while servers go on serving what they have of it; nil: it is not.
func (r *EstateReconciler) kept(key types.NamespacedName) *render.Placement {
	r.mu.Lock()
	defer r.mu.Unlock()
	if place := r.decided[key].placement; place != nil && place.Refused != nil && place.Keep {
		return place
	}
	return nil
}

// Forget asks for a decision without the zone, which is gone.
func (r *EstateReconciler) Forget(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.decided[key]; known {
		r.ask()
	}
	r.settle(key)
}

// Done notes that the zone was published, kept or refused. After the last one of those that
// existed when servers had reported, they are told which zones nobody wants.
func (r *EstateReconciler) Done(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle(key)
}

// Complete reports whether every zone was done once. Until then statuses are left as they
// are: what they say of a zone depends on others, and servers have yet to hear of some.
func (r *EstateReconciler) Complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.complete
}

// DocumentsPublished says that what servers are told beside zones was published: they have not heard all before.
func (r *EstateReconciler) DocumentsPublished() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.documents = true
	r.settle(types.NamespacedName{})
}

func (r *EstateReconciler) settle(key types.NamespacedName) {
	delete(r.open, key)
	if r.open == nil || len(r.open) > 0 || !r.documents || r.complete {
		return
	}
	r.complete = true
	r.Hub.SetComplete()
	for key := range r.decided {
		r.Call(key)
	}
	r.OnComplete()
}

// Informed reports whether the decisions in force take into account what the servers hold.
// Before that the API alone counts, and its statuses may be lost, old, or of a zone that has
// yielded to another since.
func (r *EstateReconciler) Informed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.informed
}

// Publish calls publish if place is still what is decided about the zone, and reports whether
// it is. No decision comes between the two: a zone that lost its place is not published after
// it was withdrawn. Where the decision has changed, the zone's reconciler was called for it.
//
// kept are the child zones that the zone keeps delegated on account of its guard. Orphans
// that it has let go of are withdrawn from the servers.
func (r *EstateReconciler) Publish(key types.NamespacedName, place *render.Placement, kept []zone.Name, publish func()) bool {
	return r.act(key, place, func() {
		publish()
		r.release(key, place.Apex, kept)
	})
}

// Retain leaves on the servers what they have of the zone, under the conditions of Publish.
func (r *EstateReconciler) Retain(key types.NamespacedName, place *render.Placement) bool {
	return r.act(key, place, func() { r.Hub.Retain(place.Apex) })
}

// RetainFirst is Retain for a zone that could not be published since this manager began to
// lead. Others no longer wait for it.
func (r *EstateReconciler) RetainFirst(key types.NamespacedName, place *render.Placement) {
	r.act(key, place, func() {
		if r.open[key] {
			r.Hub.Retain(place.Apex)
			r.settle(key)
		}
	})
}

func (r *EstateReconciler) act(key types.NamespacedName, place *render.Placement, f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.decided[key].placement != place {
		return false
	}
	f()
	return true
}

func (r *EstateReconciler) release(parent types.NamespacedName, apex zone.Name, kept []zone.Name) {
	below := func(name zone.Name) bool {
		return slices.ContainsFunc(kept, func(cut zone.Name) bool { return name.Within(cut) })
	}
	if len(kept) > 0 {
		for _, name := range r.Hub.HeldZones() {
			if _, owned := r.owners[name]; !owned && below(name) {
				r.orphan(name)
			}
		}
	}
	for name := range r.orphans {
		if !name.Below(apex) || below(name) {
			continue
		}
		if closest, _ := r.closest(name); closest != parent {
			continue
		}
		delete(r.orphans, name)
		r.Hub.Withdraw(name)
		for key, d := range r.decided { // who was refused the name may say that its parent refers to it
			if d.placement.Apex == name {
				r.Call(key)
			}
		}
	}
}

// orphan has servers keep their copy of a zone that nobody owns. It reports whether they did
// not before.
func (r *EstateReconciler) orphan(name zone.Name) bool {
	if r.orphans[name] {
		return false
	}
	if r.orphans == nil {
		r.orphans = map[zone.Name]bool{}
	}
	r.orphans[name] = true
	r.Hub.Retain(name)
	return true
}

// closest returns the owner of the closest zone above the name.
func (r *EstateReconciler) closest(name zone.Name) (types.NamespacedName, bool) {
	for above := name.Parent(); above != ""; above = above.Parent() {
		if key, owned := r.owners[above]; owned {
			return key, true
		}
	}
	return types.NamespacedName{}, false
}

// Elsewhere reports whether a zone other than parent delegates to the accepted zone of that
// name: its records stay when parent does so no longer.
func (r *EstateReconciler) Elsewhere(name zone.Name, parent types.NamespacedName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, owned := r.owners[name]
	if !owned {
		return false
	}
	d := r.decided[key].placement
	return d.Parent.Name != "" && d.Parent != parent
}

// ServedAt lists the DNSZones that the servers of a group serve, sorted.
func (r *EstateReconciler) ServedAt(l render.Location) []types.NamespacedName {
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []types.NamespacedName
	for key, d := range r.decided {
		if d.placement.Refused == nil && slices.Contains(d.placement.Locations, l) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

// Use is a zone that uses a server group of a datacenter, or would if it were accepted.
type Use struct {
	Key       types.NamespacedName
	Placement *render.Placement
	Elsewhere bool // it has a name server in another datacenter
}

// Uses lists the zones that name the group and may be in the datacenter, by key.
func (r *EstateReconciler) Uses(l render.Location) []Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	var uses []Use
	for key, d := range r.decided {
		chosen := d.claim.datacenters
		if d.claim.group != l.Group || len(chosen) > 0 && !slices.Contains(chosen, v1alpha1.DatacenterName(l.Datacenter)) {
			continue
		}
		elsewhere := slices.ContainsFunc(d.placement.NameServers, func(ns render.NameServer) bool { return ns.Datacenter != l.Datacenter })
		uses = append(uses, Use{key, d.placement, elsewhere})
	}
	slices.SortFunc(uses, func(a, b Use) int { return compareKeys(a.Key, b.Key) })
	return uses
}

// Decided returns what is decided about a zone; false if nothing is.
func (r *EstateReconciler) Decided(key types.NamespacedName) (*render.Placement, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, known := r.decided[key]
	return d.placement, known
}

// Placements returns what is decided about every zone.
func (r *EstateReconciler) Placements() map[types.NamespacedName]*render.Placement {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[types.NamespacedName]*render.Placement, len(r.decided))
	for key, d := range r.decided {
		all[key] = d.placement
	}
	return all
}

// Owner returns the DNSZone whose zone has the name.
func (r *EstateReconciler) Owner(name zone.Name) (types.NamespacedName, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, owned := r.owners[name]
	return key, owned
}

// Refresh asks for a decision.
func (r *EstateReconciler) Refresh() { r.ask() }

func owns(p *render.Placement) bool { return p.Refused == nil || p.Keep }

// ask never blocks: the channel holds one request, and one is enough.
func (r *EstateReconciler) ask() {
	select {
	case r.Changed <- event.GenericEvent{Object: &metav1.PartialObjectMetadata{}}:
	default:
	}
}

// Reconcile decides about all zones.
func (r *EstateReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	informed := r.Settled() // before servers are asked
	estate, err := r.gather(ctx)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("gathering the estate: %w", err)
	}
	changed := r.replace(estate, render.Hierarchy(estate), informed)
	for _, key := range changed {
		r.Call(key)
	}
	if len(changed) > 0 {
		r.OnDecision()
	}
	return reconcile.Result{}, nil
}

// gather reads shared objects from the cache: nothing below changes them.
func (r *EstateReconciler) gather(ctx context.Context) (render.Estate, error) {
	e := render.Estate{ApexNamespaces: r.ApexNamespaces, NamespaceLabels: map[string]map[string]string{}, Incumbents: map[zone.Name]types.NamespacedName{}}
	var zones v1alpha1.DNSZoneList
	if err := r.Client.List(ctx, &zones, client.UnsafeDisableDeepCopy); err != nil {
		return e, fmt.Errorf("listing DNSZones: %w", err)
	}
	for i := range zones.Items {
		z := &zones.Items[i]
		if z.DeletionTimestamp == nil {
			e.Zones = append(e.Zones, z)
		}
	}
	var datacenters v1alpha1.DatacenterList
	if err := r.Client.List(ctx, &datacenters, client.UnsafeDisableDeepCopy); err != nil {
		return e, fmt.Errorf("listing Datacenters: %w", err)
	}
	for i := range datacenters.Items {
		e.Datacenters = append(e.Datacenters, &datacenters.Items[i])
	}
	namespaces := metav1.PartialObjectMetadataList{}
	namespaces.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := r.Client.List(ctx, &namespaces, client.UnsafeDisableDeepCopy); err != nil {
		return e, fmt.Errorf("listing namespaces: %w", err)
	}
	for _, ns := range namespaces.Items {
		e.NamespaceLabels[ns.Name] = ns.Labels
	}
	for _, z := range e.Zones {
		apex, err := zone.ParseName(z.Spec.Name, "")
		if err != nil {
			continue
		}
		if holder, known := incumbent(r.Hub.Held(apex)); known {
			e.Incumbents[apex] = holder
		}
	}
	return e, nil
}

// incumbent returns the object that most of the servers' copies of a zone were made from.
func incumbent(held []control.HeldReport) (types.NamespacedName, bool) {
	votes := map[string]int{}
	for _, h := range held {
		votes[h.Source]++
	}
	best := ""
	for _, source := range slices.Sorted(maps.Keys(votes)) {
		if votes[source] > votes[best] {
			best = source
		}
	}
	return parseSource(best)
}

// replace puts new decisions in force and returns the zones to reconcile, sorted: those whose
// decision is another, and all of them with the first informed decision.
func (r *EstateReconciler) replace(e render.Estate, placements map[types.NamespacedName]*render.Placement, informed bool) []types.NamespacedName {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.decided
	r.decided = make(map[types.NamespacedName]decided, len(placements))
	call := r.waiting
	if call == nil {
		call = map[types.NamespacedName]bool{}
	}
	r.waiting = nil
	r.owners = make(map[zone.Name]types.NamespacedName, len(placements))
	for _, z := range e.Zones {
		key := render.Key(z)
		d := decided{claimOf(z), placements[key]}
		old, known := before[key]
		if known && reflect.DeepEqual(old.placement, d.placement) {
			d.placement = old.placement // who works by it goes on
		}
		if old.placement != d.placement || informed && !r.informed {
			call[key] = true
		}
		r.decided[key] = d
		if owns(d.placement) {
			r.owners[d.placement.Apex] = key
		}
	}
	for _, d := range before {
		if _, owned := r.owners[d.placement.Apex]; owned || !owns(d.placement) {
			continue
		}
		if parent, ok := r.closest(d.placement.Apex); ok && r.orphan(d.placement.Apex) {
			call[parent] = true
		} else if !ok {
			r.Hub.Withdraw(d.placement.Apex)
		}
	}
	for name := range r.orphans {
		if _, owned := r.owners[name]; owned {
			delete(r.orphans, name)
		} else if _, ok := r.closest(name); !ok {
			delete(r.orphans, name)
			r.Hub.Withdraw(name)
		}
	}
	if r.informed = informed; informed && r.open == nil {
		r.open = map[types.NamespacedName]bool{}
		for key := range r.decided {
			r.open[key] = true
		}
		r.settle(types.NamespacedName{}) // there may be none at all
	}
	keys := slices.Collect(maps.Keys(call))
	slices.SortFunc(keys, compareKeys)
	return keys
}
