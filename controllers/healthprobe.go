package controllers

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// ProbeReconciler says in a HealthProbe's status who uses it and what it found. Servers are told of it with the records
// that use it.
type ProbeReconciler struct {
	Client  client.Client
	Estate  *EstateReconciler
	Secrets *ProbeSecrets
	Budget  *StatusBudget
	Clock   clock.PassiveClock
}

// probeInterval is the shortest time between two writes of the counts of a probe that many records use.
const probeInterval = 5 * time.Second

// +kubebuilder:rbac:groups=fingerpost.dev,resources=healthprobes/status,verbs=get;update;patch

// Reconcile writes the status of one HealthProbe, on transitions only.
func (r *ProbeReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var p v1alpha1.HealthProbe
	if err := r.Client.Get(ctx, req.NamespacedName, &p); apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil {
		r.Budget.Same(req.NamespacedName, r.Clock.Now())
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading HealthProbe %s: %w", req.NamespacedName, err)
	}
	if !r.Estate.Complete() {
		return reconcile.Result{RequeueAfter: probeInterval}, nil
	}
	var records v1alpha1.DynamicRecordList
	if err := r.Client.List(ctx, &records, client.InNamespace(p.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing DynamicRecords: %w", err)
	}
	var probes v1alpha1.HealthProbeList
	if err := r.Client.List(ctx, &probes, client.InNamespace(p.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing HealthProbes: %w", err)
	}
	usedBy, up, down := 0, 0, 0
	for i := range records.Items {
		o := &records.Items[i]
		if !render.UsesProbe(o, p.Name, probes.Items) {
			continue
		}
		usedBy++
		alive, dead := render.ProbedTargets(o, p.Name, probes.Items)
		up, down = up+alive, down+dead
	}
	secrets, err := r.Secrets.Faults(ctx, probes.Items)
	if err != nil {
		return reconcile.Result{}, err
	}
	want := render.ProbeStatus(&p, probes.Items, secrets, metav1.NewTime(r.Clock.Now()))
	want.UsedBy, want.Up, want.Down = strconv.Itoa(usedBy), strconv.Itoa(up), strconv.Itoa(down)
	if equality.Semantic.DeepEqual(p.Status, want) {
		r.Budget.Same(req.NamespacedName, r.Clock.Now())
		return reconcile.Result{}, nil
	}
	lasting := probeInterval
	if p.Status.ObservedGeneration != p.Generation {
		lasting = 0
	}
	if wait := r.Budget.Wait(req.NamespacedName, r.Clock.Now(), lasting); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	before := p.DeepCopy()
	p.Status = want
	if err := r.Client.Status().Patch(ctx, &p, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
		}
		return reconcile.Result{}, fmt.Errorf("writing the status of HealthProbe %s: %w", req.NamespacedName, err)
	}
	r.Budget.Wrote(req.NamespacedName, r.Clock.Now())
	return reconcile.Result{}, nil
}

// ofRecord lists the HealthProbes that a DynamicRecord may use: all of its namespace, for they may be made of each other.
func (r *ProbeReconciler) ofRecord(ctx context.Context, o client.Object) []reconcile.Request {
	var probes v1alpha1.HealthProbeList
	if err := r.Client.List(ctx, &probes, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	var requests []reconcile.Request
	record, isRecord := o.(*v1alpha1.DynamicRecord)
	for i := range probes.Items {
		if p := &probes.Items[i]; !isRecord || render.UsesProbe(record, p.Name, probes.Items) || p.Status.UsedBy != "" && p.Status.UsedBy != "0" {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)})
		}
	}
	return requests
}
