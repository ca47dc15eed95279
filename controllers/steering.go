package controllers

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// recordWriters is how many statuses of steered names may be on their way to the API server at once. In a mass flip it is the
// API server that takes its time: with few of them, a busy one would be the limit of how soon all are written.
const recordWriters = 32

// setupSteering adds what writes the statuses of steered names.
func setupSteering(ctx context.Context, mgr ctrl.Manager, records *RecordReconciler, calls <-chan event.GenericEvent) error {
	if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.DynamicRecord{}, recordsByZone, indexRecordZone); err != nil {
		return fmt.Errorf("indexing DynamicRecords: %w", err)
	}
	warm := true
	if err := ctrl.NewControllerManagedBy(mgr).Named("dynamicrecord").
		For(&v1alpha1.DynamicRecord{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.DNSZone{}, handler.EnqueueRequestsFromMapFunc(records.ofZone), builder.WithPredicates(acceptedChanged)).
		Watches(&v1alpha1.Datacenter{}, handler.EnqueueRequestsFromMapFunc(records.all), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(calls, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{EnableWarmup: &warm, MaxConcurrentReconciles: recordWriters}).
		Complete(records); err != nil {
		return fmt.Errorf("setting up DynamicRecords: %w", err)
	}
	return nil
}

// setupOverrides adds what tells servers of TrafficOverrides.
func setupOverrides(mgr ctrl.Manager, overrides *OverrideReconciler, calls <-chan event.GenericEvent) error {
	warm := true
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{everyOverride} })
	if err := ctrl.NewControllerManagedBy(mgr).Named("trafficoverride").
		For(&v1alpha1.TrafficOverride{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.DynamicRecord{}, all, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}))).
		Watches(&v1alpha1.Datacenter{}, all, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		WatchesRawSource(source.Channel(calls, gathered(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{everyOverride} }))).
		WatchesRawSource(once()).
		WithOptions(controller.Options{EnableWarmup: &warm}).
		Complete(overrides); err != nil {
		return fmt.Errorf("setting up TrafficOverrides: %w", err)
	}
	return nil
}

// setupProbes adds what writes the statuses of HealthProbes.
func setupProbes(mgr ctrl.Manager, probes *ProbeReconciler, calls <-chan event.GenericEvent) error {
	warm := true
	if err := ctrl.NewControllerManagedBy(mgr).Named("healthprobe").
		For(&v1alpha1.HealthProbe{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.DynamicRecord{}, gathered(probes.ofRecord)).
		Watches(&v1alpha1.HealthProbe{}, handler.EnqueueRequestsFromMapFunc(probes.ofRecord), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(calls, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{EnableWarmup: &warm}).
		Complete(probes); err != nil {
		return fmt.Errorf("setting up HealthProbes: %w", err)
	}
	return nil
}

// setupSecrets adds what gives servers the client certificates of probes.
func setupSecrets(mgr ctrl.Manager, secrets *SecretReconciler, calls <-chan event.GenericEvent) error {
	warm := true
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{{}} })
	changed := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	if err := ctrl.NewControllerManagedBy(mgr).Named("probe-secrets").
		Watches(&v1alpha1.HealthProbe{}, all, changed).
		Watches(&v1alpha1.DynamicRecord{}, all, changed).
		Watches(&v1alpha1.Datacenter{}, all, changed).
		WatchesRawSource(source.Channel(calls, all)).
		WatchesRawSource(once()).
		WithOptions(controller.Options{EnableWarmup: &warm}).
		Complete(secrets); err != nil {
		return fmt.Errorf("setting up secrets of probes: %w", err)
	}
	return nil
}

// secret calls for all that depends on the Secrets of a namespace: its HealthProbes, and the zones of its DynamicRecords.
func (r *relay) secret(ctx context.Context, namespace string) {
	var probes v1alpha1.HealthProbeList
	var records v1alpha1.DynamicRecordList
	for _, list := range []client.ObjectList{&probes, &records} {
		if err := r.client.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			log.FromContext(ctx).Error(err, "Listing what uses Secrets", "namespace", namespace)
			return
		}
	}
	for i := range probes.Items {
		r.pending.add(probeKey(client.ObjectKeyFromObject(&probes.Items[i])))
	}
	for i := range records.Items {
		r.call(render.ZoneOf(&records.Items[i]))
	}
}

// gatherFor is how long requests gather that many objects make at once.
const gatherFor = 500 * time.Millisecond

// gathered enqueues what may wait for a little: in a mass flip thousands of records call for one object, which looks at all
// of them.
func gathered(of handler.MapFunc) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	add := func(ctx context.Context, o client.Object, q queue) {
		for _, request := range of(ctx, o) {
			q.AddAfter(request, gatherFor)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { add(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			add(ctx, e.ObjectOld, q)
			add(ctx, e.ObjectNew, q)
		},
		DeleteFunc:  func(ctx context.Context, e event.DeleteEvent, q queue) { add(ctx, e.Object, q) },
		GenericFunc: func(ctx context.Context, e event.GenericEvent, q queue) { add(ctx, e.Object, q) },
	}
}

// everyRecord calls for all DynamicRecords: their statuses can be written from now on.
func (r *relay) everyRecord(ctx context.Context) {
	var records v1alpha1.DynamicRecordList
	if err := r.client.List(ctx, &records, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing DynamicRecords")
	}
	for i := range records.Items {
		r.record(client.ObjectKeyFromObject(&records.Items[i]))
	}
	r.override()
}

// acceptedChanged lets pass what decides whether a zone has records at all.
var acceptedChanged = predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*v1alpha1.DNSZone), e.ObjectNew.(*v1alpha1.DNSZone)
		return accepted(before) != accepted(after)
	},
}

// accepted is the reason of a zone's condition Accepted, "" if it is True.
func accepted(z *v1alpha1.DNSZone) string {
	for _, c := range z.Status.Conditions {
		if c.Type == v1alpha1.ConditionAccepted && c.Status != "True" {
			return c.Reason + c.Message
		}
	}
	return ""
}

// ofZone lists the DynamicRecords that want to be in a zone.
func (r *RecordReconciler) ofZone(ctx context.Context, z client.Object) []reconcile.Request {
	return r.list(ctx, client.MatchingFields{recordsByZone: client.ObjectKeyFromObject(z).String()})
}

// all lists all DynamicRecords: anchors and ranks of a Datacenter have to do with any.
func (r *RecordReconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.list(ctx)
}

func (r *RecordReconciler) list(ctx context.Context, of ...client.ListOption) []reconcile.Request {
	var records v1alpha1.DynamicRecordList
	if err := r.Client.List(ctx, &records, append(of, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "Listing DynamicRecords")
		return nil
	}
	requests := make([]reconcile.Request, len(records.Items))
	for i := range records.Items {
		requests[i] = reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&records.Items[i])}
	}
	return requests
}

func zoneOfRecord(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: render.ZoneOf(o.(*v1alpha1.DynamicRecord))}}
}

// zonesOfProbe lists the zones of the DynamicRecords that may use a HealthProbe: all of its namespace.
func (r *ZoneReconciler) zonesOfProbe(ctx context.Context, o client.Object) []reconcile.Request {
	return r.zonesWithRecords(ctx, client.InNamespace(o.GetNamespace()))
}

// steeredZones lists all zones that have DynamicRecords.
func (r *ZoneReconciler) steeredZones(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.zonesWithRecords(ctx)
}

func (r *ZoneReconciler) zonesWithRecords(ctx context.Context, of ...client.ListOption) []reconcile.Request {
	var records v1alpha1.DynamicRecordList
	if err := r.Client.List(ctx, &records, append(of, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "Listing DynamicRecords")
		return nil
	}
	seen := map[types.NamespacedName]bool{}
	var requests []reconcile.Request
	for i := range records.Items {
		if key := render.ZoneOf(&records.Items[i]); !seen[key] {
			seen[key] = true
			requests = append(requests, reconcile.Request{NamespacedName: key})
		}
	}
	return requests
}
