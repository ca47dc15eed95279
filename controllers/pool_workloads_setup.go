package controllers

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/util/workqueue"
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
)

// setupPoolWorkloads adds to mgr what runs members of pools while it leads. Datacenters where something about them changes
// come by changed.
func setupPoolWorkloads(mgr ctrl.Manager, r *PoolWorkloadReconciler, changed <-chan event.GenericEvent) error {
	everywhere := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request {
		var all v1alpha1.DatacenterList
		if err := mgr.GetClient().List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
			return nil // of a cache that stops
		}
		requests := make([]reconcile.Request, len(all.Items))
		for i := range all.Items {
			requests[i].Name = all.Items[i].Name
		}
		return requests
	})
	if err := ctrl.NewControllerManagedBy(mgr).Named("pool-workloads").
		For(&v1alpha1.Datacenter{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.Funcs{UpdateFunc: matters}))).
		Watches(&v1alpha1.ResolverPool{}, everywhere, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(changed, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workloadWorkers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, time.Minute),
		}).
		Complete(r); err != nil {
		return fmt.Errorf("setting up workloads of pools: %w", err)
	}
	return nil
}
