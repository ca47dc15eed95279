package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrafficOverride is an operational act on steered names, such as the drain of a datacenter for a maintenance, kept apart
// from the declared records and ending by itself.
//
// This version of the operator stores TrafficOverrides and does not act on them: Accepted is Unknown with the reason
// NotImplemented.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=to,categories=dns
// +kubebuilder:selectablefield:JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`,description="What the override does"
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.status.target`,description="What it does it to"
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.spec.expires`,description="When it ends by itself"
// +kubebuilder:printcolumn:name="Safe-At",type=string,JSONPath=`.status.safeAt`,description="When no client holds the old answer any more"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Accepted and programmed"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrafficOverride struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the override as wanted.
	//
	// +required
	Spec TrafficOverrideSpec `json:"spec,omitzero"`

	// status is what the override has done. Users do not write it.
	//
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "NotImplemented", message: "This version of the operator does not act on TrafficOverrides", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "NotImplemented", message: "This version of the operator does not act on TrafficOverrides", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status TrafficOverrideStatus `json:"status,omitzero"`
}

// TrafficOverrideList is a list of TrafficOverrides.
//
// +kubebuilder:object:root=true
type TrafficOverrideList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrafficOverride `json:"items"`
}

// OverrideAction is what an override does.
//
// +kubebuilder:validation:Enum=Drain
type OverrideAction string

// OverrideDrain moves clients away from a datacenter.
const OverrideDrain OverrideAction = "Drain"

// TrafficOverrideSpec is an operational act.
//
// +kubebuilder:validation:XValidation:rule="(self.action == 'Drain') == has(self.drain)",message="drain is required when action is Drain, and must be left out otherwise",fieldPath=".drain"
type TrafficOverrideSpec struct {
	// action is what to do: Drain. The field named like it says to what.
	//
	// +required
	Action OverrideAction `json:"action,omitempty"`

	// drain says what clients are moved away from; with action: Drain.
	//
	// +optional
	Drain *Drain `json:"drain,omitempty"`

	// expires is when the override ends by itself, in UTC, e.g. "2099-12-01T04:00:00Z". Servers end it also when the
	// control plane is gone.
	//
	// +required
	Expires metav1.Time `json:"expires,omitzero"`

	// reason says why, for those who look at it later, e.g. the number of a change: CHG-1.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Reason string `json:"reason,omitempty"`

	// keepAtLeast is the number of healthy targets that must remain for each name, 0 to 64. Names that would have
	// fewer are left as they are. Default: 1.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=64
	KeepAtLeast *int32 `json:"keepAtLeast,omitempty"`
}

// Drain says what clients are moved away from.
type Drain struct {
	// datacenter is the name of the Datacenter to drain, e.g. dc-b.
	//
	// +required
	Datacenter DatacenterName `json:"datacenter,omitempty"`
}

// TrafficOverrideStatus is what an override has done.
type TrafficOverrideStatus struct {
	// conditions are Accepted and Ready.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the metadata.generation that this status is about.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// target is what the override acts on, in short, e.g. dc-b.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Target string `json:"target,omitempty"`

	// safeAt is when no client holds the old answer any more, in UTC.
	//
	// +optional
	SafeAt *metav1.Time `json:"safeAt,omitempty"`
}
