package render_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

func pod(name string, change func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: name, Labels: map[string]string{appsv1.ControllerRevisionHashLabelKey: "new"}},
		Spec:       corev1.PodSpec{NodeName: "n1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	if change != nil {
		p.Status.Conditions = nil
		change(&p)
	}
	return p
}

func waitingFor(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Image: "example.com/dnsserver:v9", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error"}},
		}}
	}
}

func TestWhatADatacenterSaysOfItsWorkloads(t *testing.T) {
	dc := &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: "dc-a"}, Spec: v1alpha1.DatacenterSpec{ServerGroups: []v1alpha1.ServerGroup{
		{Name: "root", Management: v1alpha1.ServerGroupManaged},
	}}}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](2)},
		Status: appsv1.StatefulSetStatus{ObservedGeneration: 2, UpdateRevision: "new"}}
	good := []corev1.Pod{pod("p-0", nil), pod("p-1", nil)}
	with := func(g render.GroupReport) *render.WorkloadReport {
		g.Name, g.Declared = "root", 2
		if g.Set == nil {
			g.Set = set
		}
		return &render.WorkloadReport{Groups: []render.GroupReport{g}}
	}
	bad := func(change func(*corev1.Pod)) *render.WorkloadReport {
		return with(render.GroupReport{Pods: []corev1.Pod{good[0], pod("p-1", change)}})
	}
	balanced := func(addresses ...corev1.LoadBalancerIngress) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: "s"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer},
			Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: addresses}}}
	}
	for rule, c := range map[string]struct {
		report            *render.WorkloadReport
		workloads, reachs string // status, reason, words; "" if there is no such condition
		counts            string // replicas/ready/updated
	}{
		"all is well":                            {with(render.GroupReport{Pods: good}), "True WorkloadsReady", "", "2/2/2"},
		"all is well elsewhere":                  {&render.WorkloadReport{Remote: true}, "", "True Reachable", ""},
		"a cluster that is away":                 {&render.WorkloadReport{Remote: true, Cluster: render.Refuse("Unreachable", "no route")}, "False ClusterAway no route", "False Unreachable no route", ""},
		"the namespace goes":                     {&render.WorkloadReport{Failure: render.Refuse("NamespaceTerminating", "it goes")}, "False NamespaceTerminating it goes", "", ""},
		"an object is refused":                   {with(render.GroupReport{Pods: good, Failure: render.Refuse("Refused", "no such type")}), "False Refused group root: no such type", "", "2/2/2"},
		"an image that can't be pulled":          {bad(waitingFor("ImagePullBackOff", "not found")), "False ImageNotPulled node n1 can't get image example.com/dnsserver:v9 for pod p-1 (not found)", "", "2/1/2"},
		"the same, when it is to be tried again": {bad(waitingFor("ImagePullBackOff", `Back-off pulling image "example.com/dnsserver:v9": ErrImagePull: not found`)), "False ImageNotPulled (not found)", "", "2/1/2"},
		"a server that ends again and again":     {bad(waitingFor("CrashLoopBackOff", "back-off 20s")), "False PodsFailing pod p-1 ends again and again (Error, code 1)", "", "2/1/2"},
		"the same, while it runs for a moment": {bad(func(p *corev1.Pod) {
			waitingFor("", "")(p)
			p.Status.ContainerStatuses[0].State, p.Status.ContainerStatuses[0].RestartCount = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, 2
		}), "False PodsFailing pod p-1 ends again and again (Error, code 1)", "", "2/1/2"},
		"a server that has restarted once": {bad(func(p *corev1.Pod) {
			waitingFor("", "")(p)
			p.Status.ContainerStatuses[0].State, p.Status.ContainerStatuses[0].RestartCount = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, 1
		}), "False PodsNotReady", "", "2/1/2"},
		"a node that has no memory left": {bad(func(p *corev1.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "low on memory"
		}),
			"False PodsFailing node n1 has ended pod p-1 (Evicted: low on memory)", "", "2/1/2"},
		"no node takes a pod": {bad(func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes: disk pressure"}}
		}), "False PodsPending no node takes pod p-1: 0/3 nodes: disk pressure", "", "2/1/2"},
		"a pod that starts":                  {bad(func(*corev1.Pod) {}), "False PodsNotReady group root: 1 of 2 pods are ready, not p-1", "", "2/1/2"},
		"a quota that is used up":            {with(render.GroupReport{Pods: good[:1], Complaint: "pods p-1 is forbidden: exceeded quota: q"}), "False QuotaExceeded Raise the ResourceQuota", "", "2/1/1"},
		"a namespace without privileges":     {with(render.GroupReport{Pods: good[:1], Complaint: `violates PodSecurity "restricted:latest": host namespaces`}), "False Forbidden pod-security.kubernetes.io/enforce=privileged", "", "2/1/1"},
		"a load balancer without an address": {with(render.GroupReport{Pods: good, Service: balanced()}), "False AddressPending the cluster's default provider has given Service dns/s no address yet", "", "2/2/2"},
		"a load balancer with one":           {with(render.GroupReport{Pods: good, Service: balanced(corev1.LoadBalancerIngress{IP: "192.0.2.1"})}), "True WorkloadsReady", "", "2/2/2"},
		"servers restart":                    {with(render.GroupReport{Pods: good, Waiting: "p-1 is not ready"}), "False Rolling waiting: p-1 is not ready", "", "2/2/2"},
		"what has to be mended comes before what has not": {with(render.GroupReport{Pods: []corev1.Pod{good[0], pod("p-1", waitingFor("ErrImagePull", "no"))}, Waiting: "p-1 is not ready"}),
			"False ImageNotPulled ", "", "2/1/2"},
		"an outdated pod": {with(render.GroupReport{Waiting: "x", Pods: []corev1.Pod{good[0], pod("p-1", func(p *corev1.Pod) {
			p.Labels = map[string]string{appsv1.ControllerRevisionHashLabelKey: "old"}
		})}}), "False Rolling", "", "2/1/1"},
	} {
		t.Run(rule, func(t *testing.T) {
			s := render.DatacenterStatus(render.DatacenterInputs{Datacenter: dc, Workloads: c.report})
			for typ, want := range map[string]string{v1alpha1.ConditionWorkloadsReady: c.workloads, v1alpha1.ConditionClusterReachable: c.reachs} {
				got := meta.FindStatusCondition(s.Conditions, typ)
				if want == "" || got == nil {
					if got != nil || want != "" {
						t.Errorf("%s is %+v, want %q", typ, got, want)
					}
					continue
				}
				words := strings.SplitN(want, " ", 3)
				if string(got.Status) != words[0] || got.Reason != words[1] || len(words) > 2 && !strings.Contains(got.Message, words[2]) {
					t.Errorf("%s is %s %s %q, want %s", typ, got.Status, got.Reason, got.Message, want)
				}
			}
			if c.counts == "" {
				return
			}
			g := s.ServerGroups[0]
			if got := strings.Join([]string{itoa(g.Replicas), itoa(g.ReadyReplicas), itoa(g.UpdatedReplicas)}, "/"); got != c.counts {
				t.Errorf("counts are %s, want %s", got, c.counts)
			}
			again := render.DatacenterStatus(render.DatacenterInputs{Datacenter: &v1alpha1.Datacenter{ObjectMeta: dc.ObjectMeta, Spec: dc.Spec, Status: s}})
			if g := again.ServerGroups[0]; itoa(g.Replicas) != c.counts[:1] || meta.FindStatusCondition(again.Conditions, v1alpha1.ConditionWorkloadsReady) == nil {
				t.Errorf("a new leader that has not looked yet forgets: %+v", again)
			}
		})
	}
}

func itoa(n *int32) string { return fmt.Sprint(ptr.Deref(n, 9)) }
