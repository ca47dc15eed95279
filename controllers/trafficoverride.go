package controllers

import (
	"context"
	"fmt"
	"maps"
	"reflect"
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

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// documentOverrides is the kind of the document that has all overrides.
const documentOverrides = "overrides"

// OverrideReconciler tells all servers of all TrafficOverrides, and says in each one's status what it has done.
type OverrideReconciler struct {
	Client    client.Client
	Hub       *control.Hub
	Estate    *EstateReconciler
	Reports   *Reports
	Budget    *StatusBudget
	Events    events.EventRecorder
	Clock     clock.PassiveClock
	Namespace string // the operator's own, whose overrides act on all records
	Cluster   string // identity of the cluster
	// OnForeign is called when Foreign has become another list. It does not block.
	OnForeign func()
	// Settled reports whether the servers have said what they have in force. Before that nothing is published.
	Settled func() bool

	mu        sync.Mutex
	decided   map[types.NamespacedName]decidedOverride
	foreign   []render.ForeignOverride
	published map[control.GroupKey]bool
	since     time.Time // when this manager began to lead, or soon after
}

type decidedOverride struct {
	message *steeringpb.Override
	refused render.Refusal
}

// everyOverride asks for the document to be made anew.
var everyOverride = reconcile.Request{}

// +kubebuilder:rbac:groups=fingerpost.dev,resources=trafficoverrides,verbs=get;list;watch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=trafficoverrides/status,verbs=get;update;patch

// Reconcile publishes all overrides, and writes the status of one.
func (r *OverrideReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if err := r.publish(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if req == everyOverride {
		return r.statuses(ctx)
	}
	return r.status(ctx, req.NamespacedName)
}

// publish gives the servers of every group what is to be in force: what the API has, and what servers have from another hub
// cluster whose objects are not here. An empty list ends all that this cluster has made.
func (r *OverrideReconciler) publish(ctx context.Context) error {
	var overrides v1alpha1.TrafficOverrideList
	var records v1alpha1.DynamicRecordList
	var datacenters v1alpha1.DatacenterList
	for _, list := range []client.ObjectList{&overrides, &records, &datacenters} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("listing for overrides: %w", err)
		}
	}
	decided := map[types.NamespacedName]decidedOverride{}
	in := render.OverridesInputs{Cluster: r.Cluster, Told: r.Reports.Told(), Approved: map[string]bool{}, Now: r.Clock.Now()}
	for i := range overrides.Items {
		o := &overrides.Items[i]
		if o.DeletionTimestamp != nil {
			continue
		}
		message, refused := render.Override(o, records.Items, r.Namespace, r.Clock.Now())
		decided[client.ObjectKeyFromObject(o)] = decidedOverride{message, refused}
		if refused == nil {
			in.Own = append(in.Own, message)
		}
	}
	for _, dc := range datacenters.Items {
		for digest := range approvals(&dc) {
			in.Approved[digest] = true
		}
	}
	all, foreign := render.Overrides(in)
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(all)
	if err != nil {
		return fmt.Errorf("encoding overrides: %w", err)
	}
	groups := map[control.GroupKey]bool{}
	for _, dc := range datacenters.Items {
		for _, g := range dc.Spec.ServerGroups {
			groups[control.GroupKey{Datacenter: dc.Name, Group: g.Name}] = true
		}
	}
	settled := r.Settled() // if not, the leader calls again
	for g := range groups {
		if !settled {
			continue
		}
		if err := r.Hub.PublishDocument(g, control.Document{Kind: documentOverrides, Body: body}); err != nil {
			return fmt.Errorf("publishing overrides: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for g := range r.published {
		if !groups[g] {
			r.Hub.WithdrawDocument(g, documentOverrides)
		}
	}
	if !reflect.DeepEqual(digestsOf(r.foreign), digestsOf(foreign)) {
		defer r.OnForeign()
	}
	r.decided, r.published, r.foreign = decided, groups, foreign
	if r.since.IsZero() {
		r.since = r.Clock.Now()
	}
	return nil
}

// Foreign returns the overrides in force that come from another hub cluster and that no TrafficOverride here stands for, by source.
func (r *OverrideReconciler) Foreign() []render.ForeignOverride {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.foreign
}

func digestsOf(foreign []render.ForeignOverride) []string {
	digests := make([]string, len(foreign))
	for i, o := range foreign {
		digests[i] = o.Digest
	}
	return digests
}

// statuses writes the status of every override, and asks again when the first of them may change by itself.
func (r *OverrideReconciler) statuses(ctx context.Context) (reconcile.Result, error) {
	r.mu.Lock()
	keys := slices.SortedFunc(maps.Keys(r.decided), compareKeys)
	r.mu.Unlock()
	var soonest time.Duration
	for _, key := range keys {
		result, err := r.status(ctx, key)
		if err != nil {
			return reconcile.Result{}, err
		}
		if after := result.RequeueAfter; after > 0 && (soonest == 0 || after < soonest) {
			soonest = after
		}
	}
	return reconcile.Result{RequeueAfter: soonest}, nil
}

// status writes the status of one override, on transitions only.
func (r *OverrideReconciler) status(ctx context.Context, key types.NamespacedName) (reconcile.Result, error) {
	var o v1alpha1.TrafficOverride
	if err := r.Client.Get(ctx, key, &o); apierrors.IsNotFound(err) || err == nil && o.DeletionTimestamp != nil {
		r.Budget.Same(key, r.Clock.Now())
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading TrafficOverride %s: %w", key, err)
	}
	r.mu.Lock()
	d, known := r.decided[key]
	r.mu.Unlock()
	if !r.Estate.Complete() || !known {
		return reconcile.Result{}, nil
	}
	now := r.Clock.Now()
	in := render.OverrideStatusInputs{Override: &o, Message: d.message, Refused: d.refused, Now: metav1.NewTime(now)}
	if d.refused == nil {
		r.servers(ctx, &in)
	}
	want := render.OverrideStatus(in)
	// It ends, and old answers end, by themselves.
	var again time.Duration
	for _, at := range []*metav1.Time{want.SafeAt, &o.Spec.Expires} {
		if at != nil {
			if wait := at.Sub(now); wait > 0 && (again == 0 || wait < again) {
				again = wait
			}
		}
	}
	if equality.Semantic.DeepEqual(o.Status, want) {
		r.Budget.Same(key, now)
		return reconcile.Result{RequeueAfter: again}, nil
	}
	if wait := r.Budget.Wait(key, now, 0); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	before := o.DeepCopy()
	o.Status = want
	if err := r.Client.Status().Patch(ctx, &o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
		}
		return reconcile.Result{}, fmt.Errorf("writing the status of TrafficOverride %s: %w", key, err)
	}
	r.Budget.Wrote(key, now)
	r.announce(&o, before.Status.Conditions, want.Conditions)
	return reconcile.Result{RequeueAfter: again}, nil
}

// servers gathers what servers say of the override and of the records that it acts on.
func (r *OverrideReconciler) servers(ctx context.Context, in *render.OverrideStatusInputs) {
	connected := map[control.ServerID]bool{}
	expected, witness := r.expected(ctx)
	for _, s := range r.Hub.Servers() {
		connected[s.ID] = true
		expected.add(r.Estate, s.ID)
		for _, d := range s.Documents {
			if d.Kind == documentOverrides && !d.Current {
				in.Behind = append(in.Behind, s.ID.String())
			}
		}
	}
	for _, source := range in.Message.GetRecords() {
		key, ok := parseSource(source)
		if !ok {
			continue
		}
		var o v1alpha1.DynamicRecord
		missing := map[control.ServerID]bool{}
		if err := r.Client.Get(ctx, key, &o, client.UnsafeDisableDeepCopy); err == nil {
			in.TTL = max(in.TTL, statedTTL(o.Status.TTL))
			if meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionProgrammed) {
				missing = maps.Clone(expected[render.ZoneOf(&o)])
			}
		}
		for _, report := range r.Reports.Of(key) {
			if delete(missing, report.Server); witness[report.Server.Datacenter] {
				continue // it answers nobody
			}
			in.Servers = append(in.Servers, render.OverrideServer{
				Record: source, Server: report.Server.String(), Connected: connected[report.Server], Heard: report.Heard, Report: report.RecordReport,
			})
		}
		for id := range missing {
			in.Servers = append(in.Servers, render.OverrideServer{Record: source, Server: id.String(), Connected: connected[id], Heard: r.since})
		}
	}
}

// expectedServers are the servers that answer for each zone, as far as they were ever seen.
type expectedServers map[types.NamespacedName]map[control.ServerID]bool

// expected returns the servers that have left, and which datacenters are witnesses.
func (r *OverrideReconciler) expected(ctx context.Context) (all expectedServers, witness map[string]bool) {
	all, witness = expectedServers{}, map[string]bool{}
	var datacenters v1alpha1.DatacenterList
	if err := r.Client.List(ctx, &datacenters, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing Datacenters")
	}
	for _, dc := range datacenters.Items {
		witness[dc.Name] = dc.Spec.Role == v1alpha1.DatacenterRoleWitness
		for _, s := range dc.Status.Servers {
			if s.State == v1alpha1.ServerDisconnected {
				all.add(r.Estate, control.ServerID{Datacenter: dc.Name, Group: s.Group, Name: s.Name})
			}
		}
	}
	return all, witness
}

func (e expectedServers) add(estate *EstateReconciler, id control.ServerID) {
	for _, key := range estate.ServedAt(render.Location{Datacenter: id.Datacenter, Group: id.Group}) {
		if e[key] == nil {
			e[key] = map[control.ServerID]bool{}
		}
		e[key][id] = true
	}
}

// statedTTL reads the longest TTL of what status.ttl says, such as 5s or 5-60s.
func statedTTL(text string) time.Duration {
	if _, most, is := strings.Cut(text, "-"); is {
		text = most
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0
	}
	return d
}

func (r *OverrideReconciler) announce(o *v1alpha1.TrafficOverride, before, after []metav1.Condition) {
	for _, typ := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionDegraded, v1alpha1.ConditionSafeToProceed} {
		now, old := meta.FindStatusCondition(after, typ), meta.FindStatusCondition(before, typ)
		if now == nil || old != nil && old.Status == now.Status && old.Reason == now.Reason {
			continue
		}
		switch {
		case typ == v1alpha1.ConditionSafeToProceed && now.Status == metav1.ConditionTrue:
			r.Events.Eventf(o, nil, corev1.EventTypeNormal, now.Reason, "Override", "%s", note(now.Message))
		case typ == v1alpha1.ConditionAccepted && now.Status == metav1.ConditionFalse, typ == v1alpha1.ConditionDegraded && now.Status == metav1.ConditionTrue:
			r.Events.Eventf(o, nil, corev1.EventTypeWarning, now.Reason, "Override", "%s", note(now.Message))
		}
	}
}
