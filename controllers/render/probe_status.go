package render

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// UsesProbe reports whether a DynamicRecord uses the HealthProbe of that name, by itself or through Calculated ones. probes
// are all of its namespace.
func UsesProbe(o *v1alpha1.DynamicRecord, name string, probes []v1alpha1.HealthProbe) bool {
	for i := range o.Spec.Pools {
		if poolUsesProbe(o, &o.Spec.Pools[i], name, probes) {
			return true
		}
	}
	return false
}

func poolUsesProbe(o *v1alpha1.DynamicRecord, pool *v1alpha1.Pool, name string, probes []v1alpha1.HealthProbe) bool {
	var refs []string
	for _, ref := range []*v1alpha1.ProbeRef{o.Spec.ProbeRef, pool.ProbeRef} {
		if ref != nil {
			refs = append(refs, ref.Name)
		}
	}
	for i := 0; i < len(refs); i++ { // refs grows by what they are calculated of
		if refs[i] == name {
			return true
		}
		at := slices.IndexFunc(probes, func(p v1alpha1.HealthProbe) bool { return p.Name == refs[i] })
		if at < 0 {
			continue
		}
		if _, parts, err := translateProbe(&probes[at]); err == nil {
			for _, part := range parts {
				if !slices.Contains(refs, part) {
					refs = append(refs, part)
				}
			}
		}
	}
	return false
}

// ProbedTargets counts the targets of a DynamicRecord that hang on the HealthProbe of that name, by their states.
func ProbedTargets(o *v1alpha1.DynamicRecord, name string, probes []v1alpha1.HealthProbe) (up, down int) {
	hang := map[string]bool{}
	for i := range o.Spec.Pools {
		hang[o.Spec.Pools[i].Name] = poolUsesProbe(o, &o.Spec.Pools[i], name, probes)
	}
	for _, t := range o.Status.Targets {
		switch {
		case !hang[t.Pool]:
		case t.State == v1alpha1.TargetUp, t.State == v1alpha1.TargetDegraded:
			up++
		case t.State == v1alpha1.TargetDown:
			down++
		}
	}
	return up, down
}

// ProbeStatus says whether a HealthProbe is valid. probes are all of its namespace, and secrets says what is wrong with the
// Secrets that they name. Counts are for the caller.
func ProbeStatus(p *v1alpha1.HealthProbe, probes []v1alpha1.HealthProbe, secrets map[types.NamespacedName]Refusal, now metav1.Time) v1alpha1.HealthProbeStatus {
	s := v1alpha1.HealthProbeStatus{ObservedGeneration: p.Generation, Conditions: slices.Clone(p.Status.Conditions)}
	set := func(typ string, is bool, reason, message string) {
		status := metav1.ConditionFalse
		if is {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: typ, Status: status, Reason: reason, Message: clip(message, 2048), ObservedGeneration: p.Generation, LastTransitionTime: now,
		})
	}
	known := map[types.NamespacedName]*v1alpha1.HealthProbe{}
	for i := range probes {
		known[types.NamespacedName{Namespace: probes[i].Namespace, Name: probes[i].Name}] = &probes[i]
	}
	if fault := ProbeFault(p, known, secrets); fault != nil {
		set(v1alpha1.ConditionAccepted, false, fault.Reason(), fault.Error())
		set(v1alpha1.ConditionReady, false, fault.Reason(), fault.Error())
		return s
	}
	set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "the spec is valid")
	set(v1alpha1.ConditionReady, true, v1alpha1.ReasonReady, "servers run it for the records that use it")
	return s
}
