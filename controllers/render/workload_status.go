package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// WorkloadReport is what became of the servers that the operator runs for a Datacenter.
type WorkloadReport struct {
	// Cluster is why the cluster can't be worked with; nil: it can.
	Cluster Refusal
	Remote  bool // it is not the operator's own
	Groups  []GroupReport
	// Failure is what concerns all groups, such as a namespace that is missing; nil: nothing.
	Failure Refusal
}

// GroupReport is what became of the servers of one Managed group.
type GroupReport struct {
	Name     string
	Declared int // servers
	// Failure is why not everything was applied; nil: it was.
	Failure Refusal
	Set     *appsv1.StatefulSet // as it is; nil: there is none
	Pods    []corev1.Pod
	Service *corev1.Service // that clients are to come by; nil: there is none
	// Complaint is what Kubernetes said last when it could not make a pod; "" if it could.
	Complaint string
	Waiting   string // what a restart or a departure waits for; "": none is under way
}

// WorkloadReasons are the reasons of the condition WorkloadsReady for what is wrong, the first to be mended first.
var workloadReasons = []string{
	v1alpha1.ReasonClusterAway, v1alpha1.ReasonNamespaceTerminating, v1alpha1.ReasonNamespaceMissing, v1alpha1.ReasonNoImage, v1alpha1.ReasonNoHub,
	v1alpha1.ReasonForbidden, v1alpha1.ReasonQuotaExceeded, v1alpha1.ReasonRefused, v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonSecretNotUsable, v1alpha1.ReasonImageNotPulled, v1alpha1.ReasonPodsFailing,
	v1alpha1.ReasonPodsPending, v1alpha1.ReasonAddressPending, v1alpha1.ReasonRolling, v1alpha1.ReasonPodsNotReady,
}

// Transient reports whether a reason of WorkloadsReady=False asks nobody to do anything.
func Transient(reason string) bool {
	return reason == v1alpha1.ReasonRolling || reason == v1alpha1.ReasonPodsNotReady
}

// conditions puts WorkloadsReady and ClusterReachable.
func (r *WorkloadReport) conditions(s *v1alpha1.DatacenterStatus, set setCondition) {
	switch {
	case !r.Remote && r.Cluster == nil:
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionClusterReachable)
	case r.Cluster != nil:
		set(v1alpha1.ConditionClusterReachable, false, r.Cluster.Reason(), r.Cluster.Error())
		set(v1alpha1.ConditionWorkloadsReady, false, v1alpha1.ReasonClusterAway, "nothing is known of the servers, which go on as they are: "+r.Cluster.Error())
		return
	default:
		set(v1alpha1.ConditionClusterReachable, true, v1alpha1.ReasonReachable, "the cluster answers")
	}
	troubles := r.troubles()
	switch {
	case len(troubles) > 0:
		texts := make([]string, len(troubles))
		for i, t := range troubles {
			texts[i] = t.Error()
		}
		set(v1alpha1.ConditionWorkloadsReady, false, troubles[0].Reason(), strings.Join(slices.Compact(texts), "; "))
	case len(r.Groups) == 0:
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionWorkloadsReady)
	default:
		set(v1alpha1.ConditionWorkloadsReady, true, v1alpha1.ReasonWorkloadsReady, "all servers run as declared")
	}
}

// troubles is what is wrong, the first to be mended first.
func (r *WorkloadReport) troubles() []Refusal {
	var all []Refusal
	if r.Failure != nil {
		all = append(all, r.Failure)
	}
	for i := range r.Groups {
		all = append(all, r.Groups[i].troubles()...)
	}
	sortTroubles(all)
	return all
}

// sortTroubles puts first what is to be mended first.
func sortTroubles(all []Refusal) {
	slices.SortStableFunc(all, func(a, b Refusal) int {
		return cmp.Compare(slices.Index(workloadReasons, a.Reason()), slices.Index(workloadReasons, b.Reason()))
	})
}

// fill puts the counts of the group's servers into its status.
func (g *GroupReport) fill(s *v1alpha1.ServerGroupStatus) {
	replicas := int32(g.Declared)
	if g.Set != nil {
		replicas = ptr.Deref(g.Set.Spec.Replicas, replicas)
	}
	ready, updated := int32(0), int32(0)
	for i := range g.Pods {
		if PodReady(&g.Pods[i]) {
			ready++
		}
		if !PodOutdated(&g.Pods[i], g.Set) {
			updated++
		}
	}
	s.Replicas, s.ReadyReplicas, s.UpdatedReplicas = &replicas, &ready, &updated
}

// PodReady reports whether the pod is ready and is to stay.
func PodReady(p *corev1.Pod) bool {
	return p.DeletionTimestamp.IsZero() && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// PodOutdated reports whether the pod is other than the StatefulSet makes them now, as far as Kubernetes has told.
func PodOutdated(p *corev1.Pod, set *appsv1.StatefulSet) bool {
	if set == nil || set.Status.UpdateRevision == "" || set.Status.ObservedGeneration < set.Generation {
		return false
	}
	return p.Labels[appsv1.ControllerRevisionHashLabelKey] != set.Status.UpdateRevision
}

// troubles is what is wrong with the group's servers.
func (g *GroupReport) troubles() []Refusal {
	if g.Failure != nil {
		return []Refusal{Refuse(g.Failure.Reason(), "group %s: %s", g.Name, g.Failure.Error())}
	}
	var all []Refusal
	add := func(reason, format string, args ...any) {
		all = append(all, Refuse(reason, "group "+g.Name+": "+format, args...))
	}
	ready := 0
	var waiting []string
	for i := range g.Pods {
		p := &g.Pods[i]
		if PodReady(p) {
			ready++
			continue
		}
		if reason, message := podTrouble(p); reason != "" {
			add(reason, "%s", message)
		} else {
			waiting = append(waiting, p.Name)
		}
	}
	replicas := g.Declared
	if g.Set != nil {
		replicas = int(ptr.Deref(g.Set.Spec.Replicas, int32(replicas)))
	}
	if len(g.Pods) < replicas && g.Complaint != "" {
		reason, message := noPod(g.Complaint, "HostNetwork needs")
		add(reason, "%s", message)
	}
	if message := addressPending(g.Service, "NodePort or HostNetwork"); message != "" {
		add(v1alpha1.ReasonAddressPending, "%s", message)
	}
	switch {
	case g.Waiting != "":
		add(v1alpha1.ReasonRolling, "servers restart or leave one by one; waiting: %s", g.Waiting)
	case ready < replicas && len(all) == 0:
		slices.Sort(waiting)
		add(v1alpha1.ReasonPodsNotReady, "%d of %d pods are ready", ready, replicas)
		if len(waiting) > 0 {
			all[0] = Refuse(v1alpha1.ReasonPodsNotReady, "%s, not %s", all[0].Error(), strings.Join(waiting, ", "))
		}
	}
	return all
}

// noPod is what Kubernetes complains about when it can't make a pod. Pods with something special (whose, such as "HostNetwork
// needs") must be allowed it.
func noPod(complaint, whose string) (reason, message string) {
	message = "Kubernetes can't make a pod: " + complaint
	switch {
	case strings.Contains(complaint, "exceeded quota"):
		return v1alpha1.ReasonQuotaExceeded, message + ". Raise the ResourceQuota, or ask for less in pods.resources"
	case strings.Contains(complaint, "violates PodSecurity"):
		return v1alpha1.ReasonForbidden, message + ". " + whose + " a namespace with the label pod-security.kubernetes.io/enforce=privileged"
	case strings.Contains(complaint, "forbidden"):
		return v1alpha1.ReasonForbidden, message
	}
	return v1alpha1.ReasonPodsPending, message
}

// addressPending says that a load balancer (nil: there is none) has no address; "" if it has, or is none.
func addressPending(s *corev1.Service, others string) string {
	if s == nil || s.Spec.Type != corev1.ServiceTypeLoadBalancer || len(s.Status.LoadBalancer.Ingress) > 0 {
		return ""
	}
	class := "the cluster's default provider"
	if s.Spec.LoadBalancerClass != nil {
		class = "the provider of class " + *s.Spec.LoadBalancerClass
	}
	return fmt.Sprintf("%s has given Service %s/%s no address yet; `kubectl describe service` says why. "+
		"Where nobody provides load balancers, use another exposure.type, such as %s", class, s.Namespace, s.Name, others)
}

// pullError comes before the cause in what kubelets say while they wait to pull an image again.
const pullError = "ErrImagePull: "

// podTrouble is why a pod will not get ready by itself; "" if it may. It says the same as long as nothing else is wrong,
// though kubelets try again and again, and write down each time how far they got.
func podTrouble(p *corev1.Pod) (reason, message string) {
	for _, c := range p.Status.ContainerStatuses {
		waiting := corev1.ContainerStateWaiting{}
		if c.State.Waiting != nil {
			waiting = *c.State.Waiting
		}
		switch waiting.Reason {
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable":
			why := waiting.Message
			if at := strings.Index(why, pullError); at >= 0 {
				why = why[at+len(pullError):]
			}
			return v1alpha1.ReasonImageNotPulled, fmt.Sprintf("node %s can't get image %s for pod %s (%s). Check the image's name, and that the node reaches "+
				"its registry, with pods.imagePullSecrets where it asks for credentials", p.Spec.NodeName, c.Image, p.Name, why)
		case "RunContainerError", "CreateContainerError", "CreateContainerConfigError":
			return v1alpha1.ReasonPodsFailing, fmt.Sprintf("pod %s can't be started (%s: %s)", p.Name, waiting.Reason, waiting.Message)
		}
		if ended := cmp.Or(c.LastTerminationState.Terminated, c.State.Terminated); ended != nil && (waiting.Reason == "CrashLoopBackOff" || c.RestartCount > 1) {
			return v1alpha1.ReasonPodsFailing, fmt.Sprintf("pod %s ends again and again (%s, code %d). `kubectl logs -n %s %s --previous` says more",
				p.Name, ended.Reason, ended.ExitCode, p.Namespace, p.Name)
		}
	}
	if p.Status.Phase == corev1.PodFailed {
		return v1alpha1.ReasonPodsFailing, fmt.Sprintf("node %s has ended pod %s (%s: %s). A node that lacks memory or disk does so: ask for what servers need in pods.resources",
			p.Spec.NodeName, p.Name, p.Status.Reason, p.Status.Message)
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return v1alpha1.ReasonPodsPending, fmt.Sprintf("no node takes pod %s: %s. Look at spec.nodeSelector, pods.nodeSelector, tolerations and resources, and at the StorageClass", p.Name, c.Message)
		}
	}
	return "", ""
}

// workloads puts what the report says into the status; without one (nil) what was said before stays.
func workloads(r *WorkloadReport, before v1alpha1.DatacenterStatus, s *v1alpha1.DatacenterStatus, set setCondition) {
	for i := range s.ServerGroups {
		group := &s.ServerGroups[i]
		if r != nil && r.Cluster == nil {
			if at := slices.IndexFunc(r.Groups, func(g GroupReport) bool { return g.Name == group.Name }); at >= 0 {
				r.Groups[at].fill(group)
			}
			continue
		}
		if at := slices.IndexFunc(before.ServerGroups, func(g v1alpha1.ServerGroupStatus) bool { return g.Name == group.Name }); at >= 0 {
			old := before.ServerGroups[at]
			group.Replicas, group.ReadyReplicas, group.UpdatedReplicas = old.Replicas, old.ReadyReplicas, old.UpdatedReplicas
		}
	}
	if r != nil {
		r.conditions(s, set)
	}
}
