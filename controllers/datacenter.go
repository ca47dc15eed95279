package controllers

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// DatacenterReconciler says in a Datacenter's status which of its servers are connected and
// current, and hands the approval of absent zones to the hub.
type DatacenterReconciler struct {
	Client  client.Client
	Hub     *control.Hub
	Estate  *EstateReconciler
	Reports *Reports
	// Workloads are what became of the servers that the operator runs; nil: it runs none.
	Workloads *WorkloadReports
	Budget    *StatusBudget
	Events    events.EventRecorder
	Clock     clock.PassiveClock
	// Foreign returns the overrides in force that come from another hub cluster.
	Foreign func() []render.ForeignOverride
}

// +kubebuilder:rbac:groups=fingerpost.dev,resources=datacenters,verbs=get;list;watch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=datacenters/status,verbs=get;update;patch

// Reconcile writes the status of one Datacenter, on transitions only.
func (r *DatacenterReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var dc v1alpha1.Datacenter
	err := r.Client.Get(ctx, req.NamespacedName, &dc)
	if apierrors.IsNotFound(err) {
		r.Budget.Same(req.NamespacedName, r.Clock.Now())
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading Datacenter %s: %w", req.Name, err)
	}
	for digest := range approvals(&dc) {
		r.Hub.ApproveAbsence(dc.Name, digest)
	}
	if !r.Estate.Complete() {
		return reconcile.Result{}, nil // the estate calls again
	}
	var all v1alpha1.DatacenterList
	if err := r.Client.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Datacenters: %w", err)
	}
	in := render.DatacenterInputs{Datacenter: &dc, Servers: r.servers(dc.Name), Others: all.Items, Workloads: r.Workloads.Of(dc.Name), Foreign: r.Foreign(), Now: metav1.NewTime(r.Clock.Now())}
	in.Undeclared = undeclared(r.Hub, pointers(all.Items))
	want := render.DatacenterStatus(in)
	var again time.Duration
	if at := render.DatacenterChanges(in); !at.IsZero() {
		again = at.Sub(in.Now.Time)
	}
	if equality.Semantic.DeepEqual(dc.Status, want) {
		r.Budget.Same(req.NamespacedName, r.Clock.Now())
		return reconcile.Result{RequeueAfter: again}, nil
	}
	lasting := statusInterval
	if dc.Status.ObservedGeneration != dc.Generation {
		lasting = 0
	}
	if wait := r.Budget.Wait(req.NamespacedName, r.Clock.Now(), lasting); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	before := dc.DeepCopy()
	dc.Status = want
	if err := r.Client.Status().Patch(ctx, &dc, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
		}
		return reconcile.Result{}, fmt.Errorf("writing the status of Datacenter %s: %w", dc.Name, err)
	}
	r.Budget.Wrote(req.NamespacedName, r.Clock.Now())
	r.announce(&dc, before.Status.Conditions, want.Conditions)
	r.announceVantage(&dc, before.Status.Vantage, want.Vantage)
	return reconcile.Result{RequeueAfter: again}, nil
}

// approvals are the digests that a Datacenter's annotation approves.
func approvals(dc *v1alpha1.Datacenter) iter.Seq[string] {
	return func(yield func(string) bool) {
		for digest := range strings.SplitSeq(dc.Annotations[v1alpha1.ApproveRemovalAnnotation], ",") {
			if digest = strings.TrimSpace(digest); digest != "" && !yield(digest) {
				return
			}
		}
	}
}

// servers lists the datacenter's connected authoritative servers.
func (r *DatacenterReconciler) servers(name string) []render.DatacenterServer {
	var servers []render.DatacenterServer
	vantages := r.Reports.Vantages(name)
	for _, s := range r.Hub.Servers() {
		if s.ID.Datacenter != name {
			continue
		}
		srv := render.DatacenterServer{
			Group: s.ID.Group, Name: s.ID.Name, Version: s.Software, Peer: s.Peer, Current: s.Current, Wanted: s.Wanted, Synced: s.Synced(),
			Outdated: !s.TakesDocuments, Vantage: vantages[s.ID],
		}
		var refused, notDurable []string
		for _, d := range s.Documents {
			switch {
			case d.Nack != nil:
				refused = append(refused, fmt.Sprintf("%s: %s: %s", d.Kind, d.Nack.Reason, d.Nack.Message))
			case d.NotDurable:
				notDurable = append(notDurable, d.Kind)
			}
			srv.Settings = srv.Settings || d.Kind == documentSettings && d.Current
		}
		srv.Refused, srv.NotDurable = strings.Join(refused, "; "), strings.Join(notDurable, ", ")
		if a := s.Absence; a.Count > 0 {
			srv.Absent = &render.Absence{Count: a.Count, Examples: a.Examples, Digest: a.Digest, Reason: v1alpha1.ReasonMassRemoval}
		}
		servers = append(servers, srv)
	}
	return servers
}

func (r *DatacenterReconciler) announce(dc *v1alpha1.Datacenter, before, after []metav1.Condition) {
	if now, old := meta.FindStatusCondition(after, v1alpha1.ConditionProgrammed), meta.FindStatusCondition(before, v1alpha1.ConditionProgrammed); now != nil &&
		now.Reason == v1alpha1.ReasonRejected && (old == nil || old.Message != now.Message) {
		r.Events.Eventf(dc, nil, corev1.EventTypeWarning, now.Reason, "Watch", "%s", note(now.Message))
	}
	for _, typ := range []string{v1alpha1.ConditionClusterReachable, v1alpha1.ConditionWorkloadsReady} {
		now, old := meta.FindStatusCondition(after, typ), meta.FindStatusCondition(before, typ)
		switch {
		case now == nil:
		case now.Status == metav1.ConditionFalse && !render.Transient(now.Reason) && (old == nil || old.Message != now.Message):
			r.Events.Eventf(dc, nil, corev1.EventTypeWarning, now.Reason, "Run", "%s", note(now.Message))
		case now.Status == metav1.ConditionTrue && old != nil && old.Status == metav1.ConditionFalse:
			r.Events.Eventf(dc, nil, corev1.EventTypeNormal, now.Reason, "Run", "%s", note(now.Message))
		}
	}
	for _, typ := range []string{v1alpha1.ConditionDegraded, v1alpha1.ConditionNetworkConflict, v1alpha1.ConditionRemovalWithheld, v1alpha1.ConditionBreakGlass} {
		now, old := meta.FindStatusCondition(after, typ), meta.FindStatusCondition(before, typ)
		switch {
		case now == nil:
		case now.Status == metav1.ConditionTrue && (old == nil || old.Message != now.Message):
			r.Events.Eventf(dc, nil, corev1.EventTypeWarning, now.Reason, "Watch", "%s", note(now.Message))
		case now.Status == metav1.ConditionFalse && old != nil && old.Status == metav1.ConditionTrue:
			r.Events.Eventf(dc, nil, corev1.EventTypeNormal, now.Reason, "Watch", "%s", note(now.Message))
		}
	}
}

// announceVantage tells that the datacenter sees the others no more, or again.
func (r *DatacenterReconciler) announceVantage(dc *v1alpha1.Datacenter, before, after string) {
	trouble := func(vantage string) string { return strings.TrimLeft(vantage, "0123456789/ ") }
	switch was, is := trouble(before), trouble(after); {
	case is == was || after == "" || before == "" && is == "":
	case is != "":
		r.Events.Eventf(dc, nil, corev1.EventTypeWarning, "Vantage", "Watch", "the datacenter's view of the others: %s", after)
	default:
		r.Events.Eventf(dc, nil, corev1.EventTypeNormal, "Vantage", "Watch", "the datacenter sees the others again: %s", after)
	}
}
