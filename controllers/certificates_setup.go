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
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/pki"
)

// CertificateOptions is what the certificates of the stream depend on.
type CertificateOptions struct {
	Namespace string        // of the Secrets: the operator's own
	HubNames  []pki.HubName // how servers reach the hub, beside its Service's name and this machine; may be empty
	Policy    pki.Policy    // must be valid
}

// SetupCertificates adds to mgr what makes and renews the certificates while it leads, and what reads that of the hub
// whether it leads or not. It returns the latter, still empty.
func SetupCertificates(mgr ctrl.Manager, o CertificateOptions) (*HubCertificateSource, error) {
	if err := o.Policy.Validate(); err != nil {
		return nil, err
	}
	issuer := CertificateIssuer{
		Secrets:   mgr.GetAPIReader(),
		Writer:    mgr.GetClient(),
		Events:    mgr.GetEventRecorder("fingerpost"),
		Namespace: o.Namespace,
		Policy:    o.Policy,
		Now:       time.Now,
	}
	hubSource := NewHubCertificateSource(mgr.GetAPIReader(), o.Namespace)
	changed := make(chan event.GenericEvent, 1)
	hub := &HubCertificateReconciler{
		CertificateIssuer: issuer,
		HubNames:          o.HubNames,
		Source:            hubSource,
		AuthorityChanged: func() {
			select {
			case changed <- event.GenericEvent{Object: &v1alpha1.Datacenter{}}:
			default: // one is waiting already: it brings this change along
			}
		},
	}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("hub-certificate").
		WatchesRawSource(once()).
		Complete(hub)
	if err != nil {
		return nil, fmt.Errorf("hub certificate: %w", err)
	}
	always := false
	err = ctrl.NewControllerManagedBy(mgr).
		Named("hub-certificate-source").
		WithOptions(controller.Options{NeedLeaderElection: &always}).
		WatchesRawSource(once()).
		Complete(hubSource)
	if err != nil {
		return nil, fmt.Errorf("source of the hub certificate: %w", err)
	}
	warm := true
	servers := &CertificateReconciler{CertificateIssuer: issuer, Scheme: mgr.GetScheme(), Pools: mgr.GetClient()}
	err = ctrl.NewControllerManagedBy(mgr).
		Named("certificates").
		For(&v1alpha1.Datacenter{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.ResolverPool{}, handler.EnqueueRequestsFromMapFunc(everyDatacenter(mgr.GetClient())), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(changed, handler.EnqueueRequestsFromMapFunc(everyDatacenter(mgr.GetClient())))).
		WithOptions(controller.Options{EnableWarmup: &warm}).
		Complete(reconcile.AsReconciler(mgr.GetClient(), servers))
	if err != nil {
		return nil, fmt.Errorf("certificates of servers: %w", err)
	}
	return hubSource, nil
}

// once is one request at the start of a controller; from then on its reconciler says when it wants the next.
func once() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(reconcile.Request{})
		return nil
	})
}

func everyDatacenter(cached client.Reader) handler.MapFunc {
	return func(ctx context.Context, _ client.Object) []reconcile.Request {
		var all v1alpha1.DatacenterList
		if err := cached.List(ctx, &all); err != nil {
			log.FromContext(ctx).Error(err, "Datacenters get the new CA at their next check: listing them failed")
			return nil
		}
		requests := make([]reconcile.Request, len(all.Items))
		for i := range all.Items {
			requests[i].Name = all.Items[i].Name
		}
		return requests
	}
}
