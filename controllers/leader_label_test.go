package controllers_test

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/controllers"
)

// TestTheLeadersPodIsLabelled has two managers lead one after the other, of which the first is killed.
func TestTheLeadersPodIsLabelled(t *testing.T) {
	api, ns := apiServer(t), newNamespace(t)
	for _, name := range []string{"manager-0", "manager-1"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: map[string]string{"app": "manager"}}}
		pod.Spec.Containers = []corev1.Container{{Name: "manager", Image: "manager"}}
		if err := api.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	lead := func(pod string) *controllers.PodLabeler {
		t.Helper()
		r := &controllers.PodLabeler{Pods: api, Writer: api, Namespace: ns, Pod: pod}
		result, err := r.Reconcile(t.Context(), reconcile.Request{})
		if err != nil || result.RequeueAfter <= 0 {
			t.Errorf("%+v %v", result, err)
		}
		return r
	}
	expect := func(want ...string) {
		t.Helper()
		var pods corev1.PodList
		if err := api.List(t.Context(), &pods, client.InNamespace(ns), client.MatchingLabels{controllers.LeaderLabel: "true"}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range pods.Items {
			if got = append(got, p.Name); p.Labels["app"] != "manager" {
				t.Errorf("pod %s has lost labels: %v", p.Name, p.Labels)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v are labelled, wanted %v", got, want)
		}
	}
	lead("manager-0")
	expect("manager-0")
	second := lead("manager-1")
	expect("manager-1")
	ended, end := context.WithCancel(t.Context())
	end()
	if err := second.Start(ended); err != nil {
		t.Error(err)
	}
	expect()
	if err := api.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "manager-1"}}, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	if err := second.Start(ended); err != nil {
		t.Errorf("a pod that is gone: %v", err)
	}
}
