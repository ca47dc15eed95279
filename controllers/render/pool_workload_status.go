package render

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// PoolWorkloadReport is what became of the members that the operator runs for a pool in one datacenter.
type PoolWorkloadReport struct {
	Datacenter string
	// Failure is why not everything was applied, with a reason of WorkloadsReady; nil: it was.
	Failure Refusal
	Members []MemberReport  // by engine
	Service *corev1.Service // that clients come by; nil: there is none
	Waiting string          // what a restart, or the end of members that are not wanted any more, waits for; "": nothing
}

// MemberReport is what became of the members of one engine.
type MemberReport struct {
	Engine     v1alpha1.ResolverEngine
	Failure    Refusal            // why they are not as declared; nil: they are
	Declared   int32              // that there are to be, at least where load decides
	Deployment *appsv1.Deployment // as it is; nil: there is none
	Pods       []corev1.Pod
}

// Member is the part of the report on one engine; nil: the pool has none of it.
func (r *PoolWorkloadReport) Member(engine string) *MemberReport {
	at := slices.IndexFunc(r.Members, func(m MemberReport) bool { return string(m.Engine) == engine })
	if at < 0 {
		return nil
	}
	return &r.Members[at]
}

// Short are the engines of which not all members are available, in words; "": none.
func (r *PoolWorkloadReport) Short() string {
	var short []string
	for i := range r.Members {
		if m := &r.Members[i]; m.Deployment == nil || !MembersSettled(m.Deployment) {
			short = append(short, string(m.Engine))
		}
	}
	return strings.Join(short, " and ")
}

// Desired is how many members there are to be now.
func (m *MemberReport) Desired() int32 {
	if m.Deployment == nil {
		return m.Declared
	}
	return ptr.Deref(m.Deployment.Spec.Replicas, m.Declared)
}

// Ready is how many pods are ready and are to stay.
func (m *MemberReport) Ready() int32 {
	ready := int32(0)
	for i := range m.Pods {
		if PodReady(&m.Pods[i]) {
			ready++
		}
	}
	return ready
}

// Addresses are those at which clients reach the members, sorted.
func (r *PoolWorkloadReport) Addresses() []netip.Addr {
	if r.Service == nil {
		return nil
	}
	all := ServiceAddresses(r.Service)
	if typ, _ := exposed(r.Service); typ == v1alpha1.ExposureType(v1alpha1.ResolverClusterIP) {
		all = nil
		for _, text := range r.Service.Spec.ClusterIPs {
			if a, err := netip.ParseAddr(text); err == nil {
				all = append(all, a.Unmap())
			}
		}
	}
	return sortAddresses(all)
}

// PodsOf is what reports on the members of one pool say of it; nil if there are none.
func PodsOf(reports []*PoolWorkloadReport) *PoolPods {
	if len(reports) == 0 {
		return nil
	}
	pods := &PoolPods{Counts: map[MemberPlace]PodCount{}}
	for _, r := range reports {
		pods.Addresses = append(pods.Addresses, r.Addresses()...)
		pods.Troubles = append(pods.Troubles, r.troubles()...)
		if r.Failure != nil && r.Failure.Reason() == v1alpha1.ReasonClusterAway {
			continue
		}
		for i := range r.Members {
			m := &r.Members[i]
			pods.Counts[MemberPlace{r.Datacenter, m.Engine}] = PodCount{Desired: m.Desired(), Ready: m.Ready()}
		}
	}
	pods.Addresses = sortAddresses(pods.Addresses)
	sortTroubles(pods.Troubles)
	return pods
}

func (r *PoolWorkloadReport) troubles() []Refusal {
	if r.Failure != nil && r.Failure.Reason() == v1alpha1.ReasonClusterAway {
		return []Refusal{Refuse(r.Failure.Reason(), "%s: %v", r.Datacenter, r.Failure)}
	}
	var all []Refusal
	add := func(reason, message string) { all = append(all, Refuse(reason, "%s: %s", r.Datacenter, message)) }
	if r.Failure != nil {
		add(r.Failure.Reason(), r.Failure.Error())
	}
	for i := range r.Members {
		for _, t := range r.Members[i].troubles() {
			add(t.Reason(), t.Error())
		}
	}
	if message := addressPending(r.Service, "NodePort or ClusterIP"); message != "" {
		add(v1alpha1.ReasonAddressPending, message)
	}
	if r.Waiting != "" {
		add(v1alpha1.ReasonRolling, r.Waiting)
	}
	return all
}

func (m *MemberReport) troubles() []Refusal {
	if m.Failure != nil {
		return []Refusal{Refuse(m.Failure.Reason(), "%s: %s", m.Engine, m.Failure.Error())}
	}
	var all []Refusal
	for i := range m.Pods {
		if p := &m.Pods[i]; !PodReady(p) {
			if reason, message := podTrouble(p); reason != "" {
				all = append(all, Refuse(reason, "%s", message))
			}
		}
	}
	if complaint := podsRefused(m.Deployment); complaint != "" {
		reason, message := noPod(complaint, "The socket of queryLog.dnstap needs")
		all = append(all, Refuse(reason, "%s: %s", m.Engine, message))
	}
	switch ready, desired := m.Ready(), m.Desired(); {
	case len(all) > 0:
	case m.Deployment == nil:
		all = append(all, Refuse(v1alpha1.ReasonPodsNotReady, "%s: 0 of %d pods are ready", m.Engine, desired))
	case m.rolling():
		all = append(all, Refuse(v1alpha1.ReasonRolling, "%s: pods are made anew, one by one", m.Engine))
	case ready < desired:
		all = append(all, Refuse(v1alpha1.ReasonPodsNotReady, "%s: %d of %d pods are ready", m.Engine, ready, desired))
	}
	return all
}

// rolling reports whether pods are there that are made anew.
func (m *MemberReport) rolling() bool {
	s := m.Deployment.Status
	return s.Replicas > s.UpdatedReplicas || s.Replicas > 0 && s.ObservedGeneration < m.Deployment.Generation
}

// podsRefused is why no pods are made of a Deployment (nil: there is none); "" if they are.
func podsRefused(d *appsv1.Deployment) string {
	if d == nil {
		return ""
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return c.Message
		}
	}
	return ""
}

// MembersSettled reports whether all pods of a Deployment are as it makes them now, and available, and no others are left.
func MembersSettled(d *appsv1.Deployment) bool {
	replicas := ptr.Deref(d.Spec.Replicas, 1)
	return d.Status.ObservedGeneration >= d.Generation && d.Status.Replicas == replicas && d.Status.UpdatedReplicas == replicas && d.Status.AvailableReplicas == replicas
}

// MayApply decides which Deployments of a pool may be applied now, given those that there are. Pods of one engine at a time are
// made anew: those of the next only when all others are available, so that at no time two engines are short of members. One of
// which nobody answers does not wait. waiting says what for; "": nothing waits.
func MayApply(wanted []*appsv1.Deployment, running []appsv1.Deployment) (now []*appsv1.Deployment, waiting string) {
	is := func(w *appsv1.Deployment) *appsv1.Deployment {
		if at := slices.IndexFunc(running, func(d appsv1.Deployment) bool { return d.Name == w.Name }); at >= 0 {
			return &running[at]
		}
		return nil
	}
	settled := func(w *appsv1.Deployment) bool { r := is(w); return r != nil && MembersSettled(r) }
	var behind, outdated []*appsv1.Deployment // behind are short of members already
	for _, w := range wanted {
		r := is(w)
		switch {
		case r == nil || r.Annotations[templateAnnotation] == w.Annotations[templateAnnotation] || r.Status.AvailableReplicas == 0:
			now = append(now, w)
		case settled(w):
			outdated = append(outdated, w)
		default:
			behind = append(behind, w)
		}
	}
	outdated = append(behind, outdated...)
	if len(outdated) == 0 {
		return now, ""
	}
	wait := func(w *appsv1.Deployment, short []string) string {
		return fmt.Sprintf("%s is made anew when all members of %s are available", w.Labels[LabelEngine], strings.Join(short, " and "))
	}
	var short []string
	for _, w := range wanted {
		if !slices.Contains(outdated, w) && !settled(w) {
			short = append(short, w.Labels[LabelEngine])
		}
	}
	if len(short) > 0 {
		return now, wait(outdated[0], short)
	}
	now = append(now, outdated[0])
	if len(outdated) > 1 {
		waiting = wait(outdated[1], []string{outdated[0].Labels[LabelEngine]})
	}
	return now, waiting
}
