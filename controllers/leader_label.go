package controllers

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// LeaderLabel is "true" on the pod of the manager that leads, and on no other for long: the Service fingerpost-hub selects
// by it.
const LeaderLabel = "fingerpost.dev/leader"

const (
	// leaderLabelCheck is how often a leader looks whether its pod, and no other, has the label.
	leaderLabelCheck = time.Minute
	// leaderLabelPatience is how long a manager that leads no more tries to take the label off its pod.
	leaderLabelPatience = 5 * time.Second
)

// PodLabeler puts LeaderLabel on the pod of the manager that leads, and takes it off others, where one that was killed
// or cut off has left it.
type PodLabeler struct {
	Pods      client.Reader // not a cache: a cache would watch pods
	Writer    client.Writer
	Namespace string // the operator's
	Pod       string // this manager's
}

// setupPodLabeler adds a PodLabeler to mgr.
func setupPodLabeler(mgr ctrl.Manager, namespace, pod string) error {
	r := &PodLabeler{Pods: mgr.GetAPIReader(), Writer: mgr.GetClient(), Namespace: namespace, Pod: pod}
	if err := mgr.Add(r); err != nil {
		return fmt.Errorf("adding the leader's label: %w", err)
	}
	if err := ctrl.NewControllerManagedBy(mgr).Named("leader-label").WatchesRawSource(once()).Complete(r); err != nil {
		return fmt.Errorf("setting up the leader's label: %w", err)
	}
	return nil
}

// +kubebuilder:rbac:groups="",namespace=system,resources=pods,verbs=list;patch

// Reconcile labels the pod of this manager and no other.
func (r *PodLabeler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var labelled metav1.PartialObjectMetadataList
	labelled.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	if err := r.Pods.List(ctx, &labelled, client.InNamespace(r.Namespace), client.MatchingLabels{LeaderLabel: "true"}); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing pods labelled as leader: %w", err)
	}
	own, errs := false, []error(nil)
	for _, pod := range labelled.Items {
		if pod.Name == r.Pod {
			own = true
			continue
		}
		if err := client.IgnoreNotFound(r.label(ctx, pod.Name, "null")); err != nil {
			errs = append(errs, fmt.Errorf("taking the leader's label off pod %s: %w", pod.Name, err))
		}
	}
	if !own {
		if err := r.label(ctx, r.Pod, `"true"`); err != nil {
			errs = append(errs, fmt.Errorf("labelling pod %s as leader: %w", r.Pod, err))
		}
	}
	return reconcile.Result{RequeueAfter: leaderLabelCheck}, errors.Join(errs...)
}

// label sets the label of a pod to a value, in JSON.
func (r *PodLabeler) label(ctx context.Context, pod, value string) error {
	object := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: pod}}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	return r.Writer.Patch(ctx, object, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, LeaderLabel, value)))
}

// NeedLeaderElection makes the manager start this when it leads.
func (*PodLabeler) NeedLeaderElection() bool { return true }

// Start waits until ctx ends, then takes the label off the pod of this manager.
func (r *PodLabeler) Start(ctx context.Context) error {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaderLabelPatience)
	defer cancel()
	if err := client.IgnoreNotFound(r.label(ctx, r.Pod, "null")); err != nil {
		return fmt.Errorf("taking the leader's label off pod %s: %w", r.Pod, err)
	}
	return nil
}
