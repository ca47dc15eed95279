package controllers

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// workloadWorkers is how many Datacenters are looked at at once. Most of the time they wait for a cluster, and one that is
// away keeps its worker for workloadPatience: others must not wait for it.
const workloadWorkers = 64

// setupWorkloads adds to mgr what runs servers while it leads. Datacenters whose servers change come by changed.
func setupWorkloads(mgr ctrl.Manager, r *WorkloadReconciler, changed <-chan event.GenericEvent) error {
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		<-ctx.Done()
		r.Places.Close()
		return nil
	})); err != nil {
		return fmt.Errorf("adding the watches of servers: %w", err)
	}
	err := ctrl.NewControllerManagedBy(mgr).Named("workloads").
		For(&v1alpha1.Datacenter{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.Funcs{UpdateFunc: matters}))).
		WatchesRawSource(source.Channel(changed, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workloadWorkers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](time.Second, time.Minute),
		}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("setting up workloads: %w", err)
	}
	return nil
}

// matters reports whether an update that leaves the spec as it is changes what becomes of servers: who still holds the
// Datacenter, and which addresses resolvers may come to.
func matters(e event.UpdateEvent) bool {
	before, is := e.ObjectOld.(*v1alpha1.Datacenter)
	after, still := e.ObjectNew.(*v1alpha1.Datacenter)
	if !is || !still {
		return false
	}
	addresses := func(dc *v1alpha1.Datacenter) map[string][]v1alpha1.ServerAddress {
		all := map[string][]v1alpha1.ServerAddress{}
		for _, g := range dc.Status.ServerGroups {
			all[g.Name] = g.Addresses
		}
		return all
	}
	return !slices.Equal(before.Finalizers, after.Finalizers) || !reflect.DeepEqual(addresses(before), addresses(after))
}
