package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

const (
	// RootHintsConfigMap has the root hints for resolvers, in the operator's namespace.
	RootHintsConfigMap = "fingerpost-root-hints"
	rootHintsKey       = "root.hints"
	rootApex           = zone.Name("\x00")
)

// HintsReconciler keeps the hints of the published root zone in a ConfigMap. Without a root zone those that there are stay: a
// resolver without hints asks the roots of the internet.
type HintsReconciler struct {
	Client    client.Client // writes
	Live      client.Reader
	Zones     *ZoneReconciler
	Estate    *EstateReconciler
	Namespace string // the operator's own
}

// +kubebuilder:rbac:groups="",namespace=system,resources=configmaps,verbs=create
// +kubebuilder:rbac:groups="",namespace=system,resources=configmaps,verbs=get;update,resourceNames=fingerpost-root-hints

// Reconcile writes the hints if they are others than those that there are.
func (r *HintsReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	owner, owned := r.Estate.Owner(rootApex)
	root := r.Zones.recall(owner).content
	if !owned || root == nil {
		return reconcile.Result{}, nil
	}
	hints := render.RootHints(root)
	if hints == "" {
		return reconcile.Result{}, nil
	}
	key := types.NamespacedName{Namespace: r.Namespace, Name: RootHintsConfigMap}
	var held corev1.ConfigMap
	err := r.Live.Get(ctx, key, &held)
	switch {
	case apierrors.IsNotFound(err):
		err = r.Client.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{render.LabelManagedBy: render.ManagedBy}},
			Data:       map[string]string{rootHintsKey: hints},
		})
	case err == nil && held.Data[rootHintsKey] != hints:
		if held.Data == nil {
			held.Data = map[string]string{}
		}
		held.Data[rootHintsKey] = hints
		err = r.Client.Update(ctx, &held)
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("keeping root hints in ConfigMap %s: %w", key, err)
	}
	return reconcile.Result{}, nil
}
