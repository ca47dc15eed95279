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
	// Call has a zone reconciled anew; it does not block.
	Call func(types.NamespacedName)
	// Changed asks for a decision; a full channel has asked already.
	Changed chan<- event.GenericEvent

	mu      sync.Mutex
	decided map[types.NamespacedName]decided
	owners  map[zone.Name]types.NamespacedName // of accepted zones, and of those that are kept
	waiting map[types.NamespacedName]bool      // zones whose reconciler wants to be called after the next decision
	// orphans are zone names that lost their place under a parent: servers keep them until
	// the parent has let go of the delegation, by parent.
	orphans map[types.NamespacedName]map[zone.Name]bool
	// open are the zones that the servers' first full list still waits for; nil before the first decision.
	open     map[types.NamespacedName]bool
	complete bool
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
// existed when this manager began to lead, servers are told which zones nobody wants.
func (r *EstateReconciler) Done(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settle(key)
}

func (r *EstateReconciler) settle(key types.NamespacedName) {
	delete(r.open, key)
	if r.open != nil && len(r.open) == 0 && !r.complete {
		r.complete = true
		r.Hub.SetComplete()
	}
}

// Released tells which zones a parent keeps delegated on account of its guard. Orphans that
// it has let go of are withdrawn from the servers.
func (r *EstateReconciler) Released(parent types.NamespacedName, kept []zone.Name) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range kept {
		if _, owned := r.owners[name]; !owned {
			r.orphan(parent, name)
		}
	}
	for name := range r.orphans[parent] {
		if slices.Contains(kept, name) {
			continue
		}
		delete(r.orphans[parent], name)
		if _, owned := r.owners[name]; !owned {
			r.Hub.Withdraw(name)
		}
	}
}

// orphan keeps the servers' copy of a zone that nobody owns while its parent delegates it.
func (r *EstateReconciler) orphan(parent types.NamespacedName, name zone.Name) {
	if r.orphans == nil {
		r.orphans = map[types.NamespacedName]map[zone.Name]bool{}
	}
	if r.orphans[parent] == nil {
		r.orphans[parent] = map[zone.Name]bool{}
	}
	r.orphans[parent][name] = true
	r.Hub.Retain(name)
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
	estate, err := r.gather(ctx)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("gathering the estate: %w", err)
	}
	for _, key := range r.replace(estate, render.Hierarchy(estate)) {
		r.Call(key)
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

// replace puts new decisions in force and returns the zones to reconcile, sorted.
func (r *EstateReconciler) replace(e render.Estate, placements map[types.NamespacedName]*render.Placement) []types.NamespacedName {
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
		r.decided[key] = d
		if owns(d.placement) {
			r.owners[d.placement.Apex] = key
		}
		if old, known := before[key]; !known || !reflect.DeepEqual(old.placement, d.placement) {
			call[key] = true
		}
	}
	for _, d := range before {
		apex := d.placement.Apex
		if _, owned := r.owners[apex]; owned || !owns(d.placement) {
			continue
		}
		if _, stays := r.decided[d.placement.Parent]; stays && d.placement.Parent.Name != "" {
			r.orphan(d.placement.Parent, apex)
			call[d.placement.Parent] = true
		} else {
			r.Hub.Withdraw(apex)
		}
	}
	if r.open == nil {
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
