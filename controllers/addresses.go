package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// AddressReconciler keeps in a Datacenter's status at which addresses the servers of its Managed groups answer, and which of
// these zones are delegated to. What becomes of an address decides render.Addresses; here is what that has to know: the
// Services and pods, the answers of addresses, and what servers hand out.
type AddressReconciler struct {
	Client client.Client // cached
	Places *Places
	Hub    *control.Hub
	Estate *EstateReconciler
	Zones  *ZoneReconciler
	Events events.EventRecorder
	Clock  clock.PassiveClock
	Port   uint16 // where servers answer DNS; 53 but in tests

	mu sync.Mutex
	// nodes is when a pod of a group on the network of its node was seen at an address last. A pod that restarts is away for a while.
	nodes map[render.Location]map[netip.Addr]time.Time
}

// AddressesFinalizer keeps a Datacenter that is being deleted until resolvers have forgotten the addresses of its Managed groups:
// its servers, which go with it, answer until then.
const AddressesFinalizer = "fingerpost.dev/addresses"

const (
	// askPatience is how long an address may take for an answer.
	askPatience = 2 * time.Second
	// readPatience is how long a cluster may take to tell what is in it.
	readPatience = 10 * time.Second
	// nodePatience is how long the pod of a node may be away before the node's address is lost.
	nodePatience = 2 * time.Minute
	// awayPatience is how long a server that is not connected is taken to hand out what it had.
	awayPatience = 24 * time.Hour
	// openPace and calmPace bound how often addresses are looked at: on their way to another state, and with nothing to do.
	openPace, calmPace = 500 * time.Millisecond, 30 * time.Second
)

// +kubebuilder:rbac:groups=fingerpost.dev,resources=datacenters,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=datacenters/status,verbs=get;update;patch
// +kubebuilder:rbac:groups="",namespace=system,resources=services,verbs=get;list;watch
// +kubebuilder:rbac:groups="",namespace=system,resources=pods,verbs=get;list;watch

// Reconcile moves the addresses of one Datacenter to their next states.
func (r *AddressReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var dc v1alpha1.Datacenter
	if err := r.Client.Get(ctx, req.NamespacedName, &dc); apierrors.IsNotFound(err) {
		r.forget(req.Name)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading Datacenter %s: %w", req.Name, err)
	}
	names := managedGroups(&dc)
	if err := r.hold(ctx, &dc, len(names) > 0); err != nil {
		return reconcile.Result{}, err
	}
	if len(names) == 0 {
		return reconcile.Result{}, client.IgnoreNotFound(r.write(ctx, &dc, nil))
	}
	cluster, err := r.read(ctx, &dc)
	groups := make([]render.GroupAddresses, len(names))
	var wait sync.WaitGroup
	for i, name := range names {
		if err != nil && dc.DeletionTimestamp.IsZero() {
			groups[i] = render.GroupAddresses{Group: name, Unknown: err.Error(), Result: render.AddressResult{Addresses: render.KnownAddresses(&dc, name)}}
			continue
		}
		wait.Go(func() { groups[i] = r.decide(ctx, &dc, name, cluster) })
	}
	wait.Wait()
	if err := r.write(ctx, &dc, groups); apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
	} else if err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: pace(groups, r.Clock.Now())}, nil
}

// hold keeps the Datacenter as long as it has addresses, and lets go of it when it is to be deleted and has none.
func (r *AddressReconciler) hold(ctx context.Context, dc *v1alpha1.Datacenter, managed bool) error {
	before := dc.DeepCopy()
	change := controllerutil.RemoveFinalizer
	if dc.DeletionTimestamp.IsZero() && managed {
		change = controllerutil.AddFinalizer
	} else if managed {
		return nil
	}
	if !change(dc, AddressesFinalizer) {
		return nil
	}
	if err := r.Client.Patch(ctx, dc, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing the finalizer of Datacenter %s: %w", dc.Name, err)
	}
	return nil
}

// managedGroups are the names of the datacenter's Managed groups, sorted, with those that go.
func managedGroups(dc *v1alpha1.Datacenter) []string {
	names := render.LeavingGroups(dc)
	for _, g := range dc.Spec.ServerGroups {
		if dc.DeletionTimestamp.IsZero() && g.Management == v1alpha1.ServerGroupManaged && !slices.Contains(names, g.Name) {
			names = append(names, g.Name)
		}
	}
	slices.Sort(names)
	return names
}

// workloads is what there is of a datacenter's servers in its cluster.
type workloads struct {
	services []corev1.Service // those that clients come to
	pods     []corev1.Pod
	known    bool // else the cluster is away
}

// read reads the Services and the pods of a datacenter.
func (r *AddressReconciler) read(ctx context.Context, dc *v1alpha1.Datacenter) (workloads, error) {
	var w workloads
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	place, err := r.Places.Of(ctx, dc)
	if err != nil {
		return w, err
	}
	to, namespace := place.Client, place.Namespace
	of := []client.ListOption{client.InNamespace(namespace), client.MatchingLabels(render.DatacenterSelector(dc.Name))}
	var services corev1.ServiceList
	if err := to.List(ctx, &services, of...); err != nil {
		return w, fmt.Errorf("listing Services in namespace %s: %w", namespace, err)
	}
	for _, s := range services.Items {
		if s.Labels[render.LabelService] == render.ServiceOfClients {
			w.services = append(w.services, s)
		}
	}
	var pods corev1.PodList
	if err := to.List(ctx, &pods, of...); err != nil {
		return w, fmt.Errorf("listing pods in namespace %s: %w", namespace, err)
	}
	w.pods, w.known = pods.Items, true
	return w, nil
}

// decide moves the addresses of one group.
func (r *AddressReconciler) decide(ctx context.Context, dc *v1alpha1.Datacenter, name string, cluster workloads) render.GroupAddresses {
	l := render.Location{Datacenter: dc.Name, Group: name}
	in := render.AddressInputs{Known: render.KnownAddresses(dc, name), Removed: true, Now: r.Clock.Now()}
	exposed := render.ExposureInputs{Datacenter: dc.Name, Known: in.Known, Services: cluster.of(name), Nodes: r.nodesOf(l, cluster)}
	tcp := true
	for _, g := range dc.Spec.ServerGroups {
		if g.Name == name && g.Management == v1alpha1.ServerGroupManaged && dc.DeletionTimestamp.IsZero() {
			in.Removed, exposed.Group, tcp = false, &g, g.Transports.TCP != v1alpha1.TransportClosed
		}
	}
	held := render.Exposed(exposed)
	if !cluster.known { // it is away, and the datacenter is to go: nobody takes its addresses for lost
		for _, k := range in.Known {
			if a, err := netip.ParseAddr(string(k.Address)); err == nil {
				held.Held = append(held.Held, a.Unmap())
			}
		}
	}
	in.Wanted, in.Held = held.Wanted, held.Held
	zones := r.Estate.Uses(l)
	// A group that is taken out of a Datacenter while zones need it is a mistake. A whole Datacenter is not.
	needs := func(u Use) bool { return u.Elsewhere || dc.DeletionTimestamp.IsZero() }
	in.Last = in.Removed && r.Estate.Complete() && !slices.ContainsFunc(zones, needs)
	if leaves(in) {
		in.HandedOut, in.TTL = r.handedOut(ctx, l, in.Known, zones, !dc.DeletionTimestamp.IsZero())
	}
	var none string
	if ask := render.ToAsk(in); len(ask) > 0 {
		if apex, ok := r.questionFor(l, zones); ok {
			in.Answers = r.ask(ctx, ask, apex, tcp)
		} else {
			none = "no server of it has a zone yet that could be asked for"
		}
	}
	result := render.Addresses(in)
	waits := held.Waits
	if none != "" && waits == "" {
		waits = none
	}
	return render.GroupAddresses{Group: name, Result: result, Wants: len(in.Wanted) > 0, Waits: waits, Removed: in.Removed}
}

// leaves reports whether some address leaves, or may now begin to: only then it matters what servers hand out, which is a look
// at every zone of the group.
func leaves(in render.AddressInputs) bool {
	return slices.ContainsFunc(in.Known, func(k v1alpha1.ServerAddress) bool {
		a, err := netip.ParseAddr(string(k.Address))
		return err == nil && (k.State == v1alpha1.ServerAddressLeaving ||
			k.State == v1alpha1.ServerAddressDelegated && (in.Removed || !slices.Contains(in.Wanted, a.Unmap())))
	})
}

// of returns the Services of one group.
func (w workloads) of(group string) (services []corev1.Service) {
	for _, s := range w.services {
		if s.Labels[render.LabelGroup] == group {
			services = append(services, s)
		}
	}
	return services
}

// nodesOf returns the addresses of the nodes of a group's pods, by the pod's place in the group; those of pods that restart too.
func (r *AddressReconciler) nodesOf(l render.Location, cluster workloads) []render.NodeAddress {
	now := r.Clock.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.nodes[l]
	if seen == nil {
		seen = map[netip.Addr]time.Time{}
	}
	var nodes []render.NodeAddress
	for _, p := range cluster.pods {
		if p.Labels[render.LabelGroup] != l.Group || !p.Spec.HostNetwork {
			continue
		}
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		for _, ip := range p.Status.HostIPs {
			if a, err := netip.ParseAddr(ip.IP); err == nil {
				seen[a.Unmap()] = now
				nodes = append(nodes, render.NodeAddress{Address: a.Unmap(), Pod: p.Name, Ready: ready})
			}
		}
	}
	for a, last := range seen {
		if now.Sub(last) > nodePatience {
			delete(seen, a)
		} else if !slices.ContainsFunc(nodes, func(n render.NodeAddress) bool { return n.Address == a }) {
			nodes = append(nodes, render.NodeAddress{Address: a})
		}
	}
	if r.nodes == nil {
		r.nodes = map[render.Location]map[netip.Addr]time.Time{}
	}
	r.nodes[l] = seen
	return nodes
}

func (r *AddressReconciler) forget(datacenter string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.nodes, func(l render.Location, _ map[netip.Addr]time.Time) bool { return l.Datacenter == datacenter })
}

// questionFor returns a zone that an address of the group can be asked for: one that a server there has.
func (r *AddressReconciler) questionFor(l render.Location, zones []Use) (zone.Name, bool) {
	for _, u := range zones {
		if !slices.Contains(u.Placement.Locations, l) {
			continue
		}
		for _, s := range r.Hub.Zone(u.Placement.Apex).Servers {
			if s.ID.Datacenter == l.Datacenter && s.ID.Group == l.Group && s.Wanted && !s.Held.IsZero() {
				return u.Placement.Apex, true
			}
		}
	}
	return "", false
}

// ask asks every address for the SOA of a zone, over UDP and, if tcp, over TCP.
func (r *AddressReconciler) ask(ctx context.Context, addresses []netip.Addr, apex zone.Name, tcp bool) map[netip.Addr]error {
	answers := make(map[netip.Addr]error, len(addresses))
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, a := range addresses {
		wait.Go(func() {
			at := netip.AddrPortFrom(a, r.Port)
			err := askSOA(ctx, "udp", at, apex)
			if err == nil && tcp {
				err = askSOA(ctx, "tcp", at, apex)
			}
			mu.Lock()
			defer mu.Unlock()
			answers[a] = err
		})
	}
	wait.Wait()
	return answers
}

// askSOA asks for the SOA of a zone. The error says what is wrong with the answer; nil: it is one of an authoritative server.
func askSOA(ctx context.Context, network string, at netip.AddrPort, apex zone.Name) error {
	q := new(dns.Msg)
	q.SetQuestion(apex.String(), dns.TypeSOA)
	q.RecursionDesired = false
	c := dns.Client{Net: network, Timeout: askPatience}
	reply, _, err := c.ExchangeContext(ctx, q, at.String())
	switch {
	case err != nil:
		var op *net.OpError // whose text has the port that was asked from, each time another
		if errors.As(err, &op) && op.Timeout() {
			return fmt.Errorf("no answer over %s within %s", network, askPatience)
		} else if errors.As(err, &op) {
			err = op.Err
		}
		return fmt.Errorf("over %s: %w", network, err)
	case reply.Rcode != dns.RcodeSuccess:
		return fmt.Errorf("it answers %s to a question for zone %s over %s", dns.RcodeToString[reply.Rcode], apex, network)
	case !reply.Authoritative || !slices.ContainsFunc(reply.Answer, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeSOA && dns.CanonicalName(rr.Header().Name) == apex.String()
	}):
		return fmt.Errorf("what answers over %s is not authoritative for zone %s", network, apex)
	}
	return nil
}

// handedOut returns which of the addresses that leave some server may still hand out, and how long resolvers keep what they
// are handed out. Kept zones do not count if the datacenter is being deleted: nobody may come to mend them.
func (r *AddressReconciler) handedOut(ctx context.Context, l render.Location, known []v1alpha1.ServerAddress, zones []Use, deleted bool) (map[netip.Addr]bool, time.Duration) {
	out, ttl := map[netip.Addr]bool{}, time.Duration(0)
	current := r.currentGroups()
	away := r.awayGroups(ctx)
	for _, u := range zones {
		if u.Placement.Refused != nil && (!u.Placement.Keep || deleted) {
			continue
		}
		held := []types.NamespacedName{u.Key}
		if u.Placement.Parent.Name != "" {
			held = append(held, u.Placement.Parent)
		}
		host, err := u.Placement.Apex.Child("ns-" + l.Datacenter)
		if err != nil {
			continue
		}
		for _, key := range held {
			ttl = max(ttl, r.infrastructureTTL(ctx, key))
			content, settled, locations := r.served(key, current)
			gone := slices.ContainsFunc(locations, func(l render.Location) bool { return away[l] })
			for _, k := range known {
				a, err := netip.ParseAddr(string(k.Address))
				if err != nil {
					continue
				}
				patience := gone && r.Clock.Since(k.Since.Time) < awayPatience
				if !settled || patience || hasAddress(content.Node(host), a.Unmap()) {
					out[a.Unmap()] = true
				}
			}
		}
	}
	return out, ttl
}

func hasAddress(n *zone.Node, a netip.Addr) bool {
	typ := zone.TypeAAAA
	if a.Is4() {
		typ = zone.TypeA
	}
	for rdata := range n.RRset(typ).All() {
		if rdata == string(a.AsSlice()) {
			return true
		}
	}
	return false
}

// served returns what is published of a zone, whether all connected servers that are to serve it have that, and where it is
// served. Content is nil, and nothing settled, if this leader has not published it.
func (r *AddressReconciler) served(key types.NamespacedName, current map[control.GroupKey]bool) (*zone.Content, bool, []render.Location) {
	known := r.Zones.recall(key)
	place, ok := r.Estate.Decided(key)
	if !ok || known.content == nil {
		return nil, false, nil
	}
	if !slices.ContainsFunc(place.Locations, func(l render.Location) bool {
		return !current[control.GroupKey{Datacenter: l.Datacenter, Group: l.Group}]
	}) {
		return known.content, true, place.Locations
	}
	for _, s := range r.Hub.Zone(place.Apex).Servers {
		if s.Wanted && !s.Current {
			return known.content, false, place.Locations
		}
	}
	return known.content, true, place.Locations
}

// currentGroups are those whose connected servers all have the published version of all their zones.
func (r *AddressReconciler) currentGroups() map[control.GroupKey]bool {
	current := map[control.GroupKey]bool{}
	for _, s := range r.Hub.Servers() {
		g := s.ID.GroupKey()
		before, known := current[g]
		current[g] = (before || !known) && s.Wanted == s.Current
	}
	return current
}

// awayGroups are those of which the status knows servers that are not connected: they answer with what they had.
func (r *AddressReconciler) awayGroups(ctx context.Context) map[render.Location]bool {
	away := map[render.Location]bool{}
	var datacenters v1alpha1.DatacenterList
	if err := r.Client.List(ctx, &datacenters, client.UnsafeDisableDeepCopy); err != nil {
		return away // of the cache: it has them, or the manager ends
	}
	for _, dc := range datacenters.Items {
		for _, s := range dc.Status.Servers {
			if s.State == v1alpha1.ServerDisconnected {
				away[render.Location{Datacenter: dc.Name, Group: s.Group}] = true
			}
		}
	}
	return away
}

func (r *AddressReconciler) infrastructureTTL(ctx context.Context, key types.NamespacedName) time.Duration {
	var z v1alpha1.DNSZone
	if err := r.Client.Get(ctx, key, &z, client.UnsafeDisableDeepCopy); err != nil {
		return 0 // it is gone, and nothing of it is handed out
	}
	return render.InfrastructureTTL(&z)
}

// write writes addresses and condition into the status, on transitions only, and tells of them.
func (r *AddressReconciler) write(ctx context.Context, dc *v1alpha1.Datacenter, groups []render.GroupAddresses) error {
	before := dc.DeepCopy()
	for _, g := range groups {
		setAddresses(&dc.Status, g.Group, g.Result.Addresses)
	}
	sum := render.SumAddresses(groups)
	if len(groups) == 0 {
		meta.RemoveStatusCondition(&dc.Status.Conditions, v1alpha1.ConditionAddressesReady)
	} else {
		status := metav1.ConditionFalse
		if sum.Is {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&dc.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionAddressesReady, Status: status, Reason: sum.Reason, Message: sum.Message,
			ObservedGeneration: dc.Generation, LastTransitionTime: metav1.NewTime(r.Clock.Now()),
		})
	}
	if reflect.DeepEqual(before.Status, dc.Status) {
		return nil
	}
	if err := r.Client.Status().Patch(ctx, dc, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("writing the addresses of Datacenter %s: %w", dc.Name, err)
	}
	for _, g := range groups {
		r.announce(dc, g, render.KnownAddresses(before, g.Group))
	}
	return nil
}

// setAddresses puts the addresses of a group into the status. A group that is declared no more goes with its last address.
func setAddresses(s *v1alpha1.DatacenterStatus, group string, addresses []v1alpha1.ServerAddress) {
	for i := range s.ServerGroups {
		if s.ServerGroups[i].Name == group {
			s.ServerGroups[i].Addresses = addresses
			return
		}
	}
	if len(addresses) > 0 {
		s.ServerGroups = append(s.ServerGroups, v1alpha1.ServerGroupStatus{Name: group, Addresses: addresses})
		slices.SortFunc(s.ServerGroups, func(a, b v1alpha1.ServerGroupStatus) int { return strings.Compare(a.Name, b.Name) })
	}
}

// announce makes Events of what became of a group's addresses.
func (r *AddressReconciler) announce(dc *v1alpha1.Datacenter, g render.GroupAddresses, before []v1alpha1.ServerAddress) {
	was := map[v1alpha1.IP]v1alpha1.ServerAddressState{}
	for _, k := range before {
		was[k.Address] = k.State
	}
	for _, a := range g.Result.Lost {
		r.Events.Eventf(dc, nil, corev1.EventTypeWarning, v1alpha1.ReasonAddressLost, "Delegate",
			"group %s has lost address %s without warning: zones are not delegated to it any more, unless they have no other", g.Group, a)
	}
	for _, k := range g.Result.Addresses {
		if k.State == was[k.Address] {
			continue
		}
		switch k.State {
		case v1alpha1.ServerAddressDelegated:
			r.Events.Eventf(dc, nil, corev1.EventTypeNormal, "AddressDelegated", "Delegate", "group %s answers at %s: zones are delegated to it", g.Group, k.Address)
		case v1alpha1.ServerAddressLeaving:
			r.Events.Eventf(dc, nil, corev1.EventTypeNormal, "AddressLeaving", "Delegate",
				"zones of group %s are not delegated to %s any more, which is answered until resolvers have forgotten it", g.Group, k.Address)
		}
	}
}

// pace is how long nobody needs to look at the addresses, unless something happens that the manager hears of.
func pace(groups []render.GroupAddresses, now time.Time) time.Duration {
	next := calmPace
	for _, g := range groups {
		if at := g.Result.Again; !at.IsZero() {
			next = min(next, max(at.Sub(now), openPace))
		}
		for _, k := range g.Result.Addresses {
			if k.State != v1alpha1.ServerAddressDelegated && k.Until == nil {
				next = min(next, max(now.Sub(k.Since.Time)/4, openPace))
			}
		}
	}
	return next
}

// addressesChanged lets pass what changes the addresses that zones are delegated to.
var addressesChanged = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		return !reflect.DeepEqual(statesOf(e.ObjectOld.(*v1alpha1.Datacenter)), statesOf(e.ObjectNew.(*v1alpha1.Datacenter)))
	},
}

func statesOf(dc *v1alpha1.Datacenter) map[string]v1alpha1.ServerAddressState {
	states := map[string]v1alpha1.ServerAddressState{}
	for _, g := range dc.Status.ServerGroups {
		for _, k := range g.Addresses {
			states[g.Name+" "+string(k.Address)] = k.State
		}
	}
	return states
}

// setupAddresses adds to mgr what follows addresses. Datacenters whose servers change come by changed.
func setupAddresses(mgr ctrl.Manager, r *AddressReconciler, changed <-chan event.GenericEvent) error {
	warm := true
	if err := ctrl.NewControllerManagedBy(mgr).Named("addresses").
		For(&v1alpha1.Datacenter{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, addressesChanged))).
		WatchesRawSource(source.Channel(changed, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{EnableWarmup: &warm, MaxConcurrentReconciles: workloadWorkers}).
		Complete(r); err != nil {
		return fmt.Errorf("setting up addresses: %w", err)
	}
	return nil
}
