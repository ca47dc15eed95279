package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// PoolReconciler tells the members of ResolverPools what to do, and says in the status of each pool how
// its members are doing. It works on one pool at a time.
type PoolReconciler struct {
	Client  client.Client
	Hub     *control.Hub
	Estate  *EstateReconciler
	Configs *PoolConfigs
	Reports *PoolReports
	// Running is what became of the pods of a Managed pool; nil: nobody has looked yet.
	Running func(types.NamespacedName) *render.PoolPods
	Told    *ToldPools // what members of Managed pools are told
	Budget  *StatusBudget
	Events  events.EventRecorder
	Clock   clock.PassiveClock

	published map[types.NamespacedName]map[control.GroupKey]bool
	pace      writePace
	began     time.Time // when the estate was complete
	deaths    map[control.ServerID]engineDeaths
	heard     map[types.NamespacedName]map[v1alpha1.IP]time.Time // when a member has told last that its questions come from there
}

// engineDeaths is what was told of the deaths of a member's engine.
type engineDeaths struct {
	started time.Time // of the agent that counts
	count   uint64
	told    time.Time
}

const (
	// poolLasting is how long a status must have been another one before it is written. poolWrites may follow each other as
	// they come, and then one each poolInterval: a member that comes and goes does not write each time.
	poolLasting  = 2 * time.Second
	poolWrites   = 10
	poolInterval = 15 * time.Second
	// poolCheck is how often certificates that pools name are read, which nobody may watch.
	poolCheck = time.Minute
	// poolRetry is how often while one is missing, for somebody waits.
	poolRetry = 5 * time.Second
	// sourcesKept is how long questions from an address are of a member that tells it no more.
	sourcesKept = time.Hour
	// deathsAgain is how often it is told that one member's engine has died.
	deathsAgain = 5 * time.Minute
)

// +kubebuilder:rbac:groups=fingerpost.dev,resources=resolverpools,verbs=get;list;watch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=resolverpools/status,verbs=get;update;patch

// Reconcile publishes what the members of one pool are to do, and writes its status on transitions only.
func (r *PoolReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var p v1alpha1.ResolverPool
	if err := r.Client.Get(ctx, req.NamespacedName, &p); apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil {
		r.publish(req.NamespacedName, nil)
		r.Told.Drop(req.NamespacedName)
		r.forget(req.NamespacedName)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading ResolverPool %s: %w", req.NamespacedName, err)
	}
	if !r.Estate.Complete() {
		return reconcile.Result{}, nil // the estate calls again
	}
	configs, refused, err := r.Configs.Of(ctx, &p)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("working out what members of ResolverPool %s are told: %w", req.NamespacedName, err)
	}
	again := r.after(&p, refused)
	if len(configs) > 0 {
		if err := r.tell(&p, configs); err != nil {
			return reconcile.Result{}, err
		}
	}
	in := render.PoolStatusInputs{Pool: &p, Refused: refused, Agents: r.agents(req.NamespacedName), Now: metav1.NewTime(r.Clock.Now())}
	for _, c := range configs {
		in.Configs = append(in.Configs, render.PoolDatacenter{Name: c.Datacenter.Name, Refused: c.Refused, Digest: pool.Digest(c.Text), Unsupported: c.Unsupported})
	}
	if p.Spec.Management != v1alpha1.ResolverPoolExternal {
		in.Pods = r.Running(req.NamespacedName)
	}
	r.announceDeaths(&p, in.Agents)
	lapsed, lapses := r.lapsed(&p, in.Agents)
	in.Lapsed = lapsed
	if lapses > 0 && (again == 0 || lapses < again) {
		again = lapses
	}
	if wait := r.settling(&in); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	wait, err := r.write(ctx, &p, render.PoolStatus(in))
	if wait > 0 && (again == 0 || wait < again) {
		again = wait
	}
	return reconcile.Result{RequeueAfter: again}, err
}

// settling returns how long at the most to wait until as many members have told how they are as there were before: a new leader
// leaves the status as it finds it until then.
func (r *PoolReconciler) settling(in *render.PoolStatusInputs) time.Duration {
	if r.began.IsZero() {
		r.began = r.Clock.Now()
	}
	before, told := int32(0), int32(0)
	for _, ready := range readyByDatacenter(&in.Pool.Status) {
		before += ready
	}
	for _, a := range in.Agents {
		if a.Report != nil {
			told++
		}
	}
	if told >= before && (before == 0 || in.Pods != nil || in.Pool.Spec.Management == v1alpha1.ResolverPoolExternal) {
		return 0
	}
	return settleTime - r.Clock.Since(r.began)
}

// after is when to look again at what nobody watches; 0: the pool names no such thing.
func (*PoolReconciler) after(p *v1alpha1.ResolverPool, refused render.Refusal) time.Duration {
	switch {
	case p.Spec.Transports.CertificateSecretRef == nil:
		return 0
	case refused != nil:
		return poolRetry
	}
	return poolCheck
}

// tell hands what members are to do to who runs them, or publishes it to those that somebody else runs.
func (r *PoolReconciler) tell(p *v1alpha1.ResolverPool, configs []PoolConfig) error {
	key, told := client.ObjectKeyFromObject(p), map[control.GroupKey]bool{}
	if p.Spec.Management != v1alpha1.ResolverPoolExternal {
		r.Told.Put(key, configs)
		r.publish(key, told)
		return nil
	}
	r.Told.Drop(key)
	var errs []error
	for _, c := range configs {
		group := poolGroup(c.Datacenter.Name, key)
		told[group] = true
		if c.Refused == nil {
			errs = append(errs, r.Hub.PublishDocument(group, control.Document{Kind: pool.DocumentKind, Body: c.Text}))
		}
	}
	r.publish(key, told)
	return errors.Join(errs...)
}

// poolGroup is the group of a pool's members in a datacenter.
func poolGroup(datacenter string, key types.NamespacedName) control.GroupKey {
	return control.GroupKey{Datacenter: datacenter, Group: pool.GroupName(key.Namespace, key.Name)}
}

// poolKnown reports whether a group is that of a pool's members in one of its datacenters. What can't be read is known.
func poolKnown(ctx context.Context, cached client.Reader, group control.GroupKey) bool {
	namespace, name, is := pool.ParseGroup(group.Group)
	var p v1alpha1.ResolverPool
	var dc v1alpha1.Datacenter
	if !is {
		return false
	}
	for key, object := range map[types.NamespacedName]client.Object{{Namespace: namespace, Name: name}: &p, {Name: group.Datacenter}: &dc} {
		if err := cached.Get(ctx, key, object, client.UnsafeDisableDeepCopy); err != nil {
			return !apierrors.IsNotFound(err)
		}
	}
	return p.DeletionTimestamp.IsZero() && render.PoolIn(&p, &dc)
}

// publish notes where a pool has members that are told, and withdraws what is told elsewhere. Agents that belong to no
// pool any more are expelled.
func (r *PoolReconciler) publish(key types.NamespacedName, told map[control.GroupKey]bool) {
	for group := range r.published[key] {
		if !told[group] {
			r.Hub.WithdrawDocument(group, pool.DocumentKind)
		}
	}
	r.Hub.Expel()
	if told == nil {
		delete(r.published, key)
		return
	}
	if r.published == nil {
		r.published = map[types.NamespacedName]map[control.GroupKey]bool{}
	}
	r.published[key] = told
}

// forget drops what is known of a pool that is gone.
func (r *PoolReconciler) forget(key types.NamespacedName) {
	r.Budget.Same(key, r.Clock.Now())
	delete(r.pace, key)
	delete(r.heard, key)
	maps.DeleteFunc(r.deaths, func(id control.ServerID, _ engineDeaths) bool { of, _ := poolOf(id); return of == key })
}

// agents are the connected ones of a pool.
func (r *PoolReconciler) agents(key types.NamespacedName) []render.PoolAgent {
	var all []render.PoolAgent
	for _, s := range r.Hub.Agents() {
		if of, is := poolOf(s.ID); !is || of != key {
			continue
		}
		a := render.PoolAgent{Datacenter: s.ID.Datacenter, Name: s.ID.Name, Report: r.Reports.Of(s.ID)}
		for _, d := range s.Documents {
			if d.Kind == pool.DocumentKind && d.Nack != nil {
				a.Nack = steady(d.Nack.Message)
			}
		}
		all = append(all, a)
	}
	return all
}

// lapsed returns those addresses in the status from which questions come no more, for no member has told them for sourcesKept,
// and how long it takes until there is another one; 0: members tell them all. What a leader finds in the status counts as told
// when it looks first.
func (r *PoolReconciler) lapsed(p *v1alpha1.ResolverPool, agents []render.PoolAgent) (lapsed map[v1alpha1.IP]bool, next time.Duration) {
	now, key := r.Clock.Now(), client.ObjectKeyFromObject(p)
	before, heard := r.heard[key], map[v1alpha1.IP]time.Time{}
	for _, a := range agents {
		if a.Report != nil {
			for _, source := range render.SourcesOf(a.Report) {
				heard[source] = now
			}
		}
	}
	lapsed = map[v1alpha1.IP]bool{}
	for _, source := range p.Status.SourceAddresses {
		if _, told := heard[source]; told {
			continue
		}
		at, known := before[source]
		if !known {
			at = now
		}
		heard[source] = at
		if left := sourcesKept - now.Sub(at); left <= 0 {
			lapsed[source] = true
		} else if next == 0 || left < next {
			next = left
		}
	}
	if r.heard == nil {
		r.heard = map[types.NamespacedName]map[v1alpha1.IP]time.Time{}
	}
	r.heard[key] = heard
	return lapsed, next
}

// write writes a status that is another one, or returns how long it has to wait.
func (r *PoolReconciler) write(ctx context.Context, p *v1alpha1.ResolverPool, want v1alpha1.ResolverPoolStatus) (time.Duration, error) {
	key, now := client.ObjectKeyFromObject(p), r.Clock.Now()
	if equality.Semantic.DeepEqual(p.Status, want) {
		r.Budget.Same(key, now)
		return 0, nil
	}
	if r.pace == nil {
		r.pace = writePace{}
	}
	lasting := poolLasting
	if p.Status.ObservedGeneration != p.Generation {
		lasting = 0
	} else if wait := r.pace.wait(key, now); wait > 0 {
		return wait, nil
	}
	if wait := r.Budget.Wait(key, now, lasting); wait > 0 {
		return wait, nil
	}
	before := p.DeepCopy()
	p.Status = want
	if err := r.Client.Status().Patch(ctx, p, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return 50 * time.Millisecond, nil
		}
		return 0, fmt.Errorf("writing the status of ResolverPool %s: %w", key, err)
	}
	r.Budget.Wrote(key, now)
	r.pace.wrote(key, now)
	r.announce(p, &before.Status, &want)
	return 0, nil
}

// writePace bounds how often the statuses of pools are written.
type writePace map[types.NamespacedName]*rate.Limiter

// wait returns how long a write of the object has to wait; 0 or less: it need not.
func (p writePace) wait(key types.NamespacedName, now time.Time) time.Duration {
	limit := p[key]
	if limit == nil {
		return 0
	}
	return time.Duration((1 - limit.TokensAt(now)) * float64(poolInterval))
}

// wrote notes a write, which need not have waited.
func (p writePace) wrote(key types.NamespacedName, now time.Time) {
	if p[key] == nil {
		p[key] = rate.NewLimiter(rate.Every(poolInterval), poolWrites)
	}
	p[key].ReserveN(now, 1)
}

// announce tells what has changed that people want to know.
func (r *PoolReconciler) announce(p *v1alpha1.ResolverPool, before, after *v1alpha1.ResolverPoolStatus) {
	tell := func(kind, reason, message string) {
		r.Events.Eventf(p, nil, kind, reason, "Resolve", "%s", note(message))
	}
	for _, typ := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionProgrammed, v1alpha1.ConditionRecursionWorks, v1alpha1.ConditionWorkloadsReady} {
		now, old := meta.FindStatusCondition(after.Conditions, typ), meta.FindStatusCondition(before.Conditions, typ)
		if now == nil {
			continue
		}
		quiet := render.Transient(now.Reason) || now.Reason == v1alpha1.ReasonPending || now.Reason == v1alpha1.ReasonNoServers || now.Reason == v1alpha1.ReasonNotAccepted
		switch {
		case now.Status == metav1.ConditionFalse && !quiet && (old == nil || old.Status != now.Status || old.Message != now.Message && typ != v1alpha1.ConditionRecursionWorks):
			tell(corev1.EventTypeWarning, now.Reason, now.Message)
		case now.Status == metav1.ConditionTrue && old != nil && old.Status == metav1.ConditionFalse && typ != v1alpha1.ConditionProgrammed:
			tell(corev1.EventTypeNormal, now.Reason, now.Message)
		}
	}
	was, is := readyByDatacenter(before), readyByDatacenter(after)
	for _, dc := range slices.Sorted(maps.Keys(is)) {
		switch {
		case was[dc] > 0 && is[dc] == 0:
			r.Events.Eventf(p, datacenterNamed(dc), corev1.EventTypeWarning, "LastMemberLost", "Resolve", "no member answers any more in %s", dc)
		case was[dc] == 0 && is[dc] > 0:
			r.Events.Eventf(p, datacenterNamed(dc), corev1.EventTypeNormal, "MembersReady", "Resolve", "members answer in %s", dc)
		}
	}
}

func readyByDatacenter(s *v1alpha1.ResolverPoolStatus) map[string]int32 {
	ready := map[string]int32{}
	for _, m := range s.Members {
		ready[string(m.Datacenter)] += ptr.Deref(m.Ready, 0)
	}
	return ready
}

// announceDeaths tells that engines have died, of each member once in a while.
func (r *PoolReconciler) announceDeaths(p *v1alpha1.ResolverPool, agents []render.PoolAgent) {
	now, key := r.Clock.Now(), client.ObjectKeyFromObject(p)
	if r.deaths == nil {
		r.deaths = map[control.ServerID]engineDeaths{}
	}
	for _, a := range agents {
		if a.Report == nil {
			continue
		}
		id := control.ServerID{Datacenter: a.Datacenter, Group: poolGroup(a.Datacenter, key).Group, Name: a.Name}
		d, known := r.deaths[id]
		if !a.Report.Started.Equal(d.started) {
			d = engineDeaths{started: a.Report.Started, told: d.told}
			if !known {
				d.count = a.Report.EngineDeaths // told by the leader before, if they are new
			}
		}
		if died := a.Report.EngineDeaths; died > d.count && now.Sub(d.told) >= deathsAgain {
			r.Events.Eventf(p, datacenterNamed(a.Datacenter), corev1.EventTypeWarning, "EngineDied", "Resolve", "%s of %s/%s has died and is started again; %d times since the agent began",
				a.Report.Engine, a.Datacenter, a.Name, died)
			d.count, d.told = died, now
		}
		r.deaths[id] = d
	}
}

// setupPools adds what ResolverPools are reconciled by.
func setupPools(mgr ctrl.Manager, r *PoolReconciler, calls <-chan event.GenericEvent) error {
	warm := true
	if err := ctrl.NewControllerManagedBy(mgr).Named("resolverpool").
		For(&v1alpha1.ResolverPool{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesMetadata(configMapMetadata(), handler.EnqueueRequestsFromMapFunc(r.poolsOf)).
		Watches(&v1alpha1.Datacenter{}, gathered(everyPool(mgr.GetClient())), builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, addressesChanged, peersChanged))).
		WatchesRawSource(source.Channel(calls, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{EnableWarmup: &warm}).
		Complete(r); err != nil {
		return fmt.Errorf("setting up ResolverPools: %w", err)
	}
	return nil
}

// poolsOf lists the pools that have a response policy zone of a ConfigMap.
func (r *PoolReconciler) poolsOf(ctx context.Context, o client.Object) []reconcile.Request {
	var pools v1alpha1.ResolverPoolList
	if err := r.Client.List(ctx, &pools, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	var requests []reconcile.Request
	for i := range pools.Items {
		if slices.ContainsFunc(pools.Items[i].Spec.BlockLists.RPZ, func(z v1alpha1.ResponsePolicyZone) bool {
			return z.ConfigMapKeyRef != nil && z.ConfigMapKeyRef.Name == o.GetName()
		}) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&pools.Items[i])})
		}
	}
	return requests
}

// everyPool lists all ResolverPools.
func everyPool(cached client.Reader) handler.MapFunc {
	return func(ctx context.Context, _ client.Object) []reconcile.Request {
		var all v1alpha1.ResolverPoolList
		if err := cached.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
			return nil
		}
		requests := make([]reconcile.Request, len(all.Items))
		for i := range all.Items {
			requests[i].NamespacedName = client.ObjectKeyFromObject(&all.Items[i])
		}
		return requests
	}
}

// peersChanged holds for updates of a Datacenter whose servers are reached elsewhere.
var peersChanged = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false }, DeleteFunc: func(event.DeleteEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		peers := func(o client.Object) map[string]bool {
			dc, is := o.(*v1alpha1.Datacenter)
			all := map[string]bool{}
			if is {
				for _, s := range dc.Status.Servers {
					all[s.Group+" "+s.PeerAddress] = true
				}
			}
			return all
		}
		return !maps.Equal(peers(e.ObjectOld), peers(e.ObjectNew))
	},
}

// sourcesChanged holds where the addresses change from which members of a ResolverPool ask.
var sourcesChanged = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, is := e.ObjectOld.(*v1alpha1.ResolverPool)
		after, still := e.ObjectNew.(*v1alpha1.ResolverPool)
		return is && still && !slices.Equal(before.Status.SourceAddresses, after.Status.SourceAddresses)
	},
}
