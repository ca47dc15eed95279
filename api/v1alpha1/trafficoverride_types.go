package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TrafficOverride is an operational act on steered names, such as the drain of a datacenter for a maintenance, kept apart
// from the declared records and ending by itself.
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
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "Waiting for the controller", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "Pending", message: "Waiting for the controller", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
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
// +kubebuilder:validation:Enum=Drain;Force;Freeze;Failback;RaiseTTL;Block
type OverrideAction string

const (
	// OverrideDrain moves clients away from a datacenter, pool or target.
	OverrideDrain OverrideAction = "Drain"
	// OverrideForce moves all clients to one datacenter, pool or target.
	OverrideForce OverrideAction = "Force"
	// OverrideFreeze keeps answers as they are.
	OverrideFreeze OverrideAction = "Freeze"
	// OverrideFailback lets records return to their first choice that wait for a person.
	OverrideFailback OverrideAction = "Failback"
	// OverrideRaiseTTL has answers live longer.
	OverrideRaiseTTL OverrideAction = "RaiseTTL"
	// OverrideBlock refuses clients of some networks.
	OverrideBlock OverrideAction = "Block"
)

// TrafficOverrideSpec is an operational act. Of several that concern a record, Freeze goes before Force, Force before Drain;
// of one action the narrower, then the older.
//
// +kubebuilder:validation:XValidation:rule="(self.action == 'Drain') == has(self.drain)",message="drain is required when action is Drain, and must be left out otherwise",fieldPath=".drain"
// +kubebuilder:validation:XValidation:rule="(self.action == 'Force') == has(self.force)",message="force is required when action is Force, and must be left out otherwise",fieldPath=".force"
// +kubebuilder:validation:XValidation:rule="(self.action == 'RaiseTTL') == has(self.raiseTTL)",message="raiseTTL is required when action is RaiseTTL, and must be left out otherwise",fieldPath=".raiseTTL"
// +kubebuilder:validation:XValidation:rule="(self.action == 'Block') == has(self.block)",message="block is required when action is Block, and must be left out otherwise",fieldPath=".block"
type TrafficOverrideSpec struct {
	// action is Drain (move clients away), Force (move all clients to one place), Freeze (keep answers as they are),
	// Failback (let records return that wait for a person), RaiseTTL or Block. The field named like it has its settings.
	//
	// +required
	Action OverrideAction `json:"action,omitempty"`

	// records are the DynamicRecords it acts on. Left out: all of its namespace; in the operator's own namespace, all of
	// every namespace.
	//
	// +optional
	Records *OverrideRecords `json:"records,omitempty"`

	// drain says what clients are moved away from; with action: Drain.
	//
	// +optional
	Drain *OverrideTarget `json:"drain,omitempty"`

	// force says where clients are moved to; with action: Force.
	//
	// +optional
	Force *Force `json:"force,omitempty"`

	// raiseTTL has the TTL that answers get at least; with action: RaiseTTL.
	//
	// +optional
	RaiseTTL *RaiseTTL `json:"raiseTTL,omitempty"`

	// block says which clients are refused; with action: Block.
	//
	// +optional
	Block *Block `json:"block,omitempty"`

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

	// keepAtLeast is the number of healthy targets that a drain must leave for each name, 0 to 64. Names that would have
	// fewer are left as they are. Default: 1.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=64
	KeepAtLeast *int32 `json:"keepAtLeast,omitempty"`
}

// OverrideRecords chooses DynamicRecords: those named, and those that the selector matches.
//
// +kubebuilder:validation:XValidation:rule="has(self.names) || has(self.selector)",message="give names or a selector, or leave records out for all"
type OverrideRecords struct {
	// names are names of DynamicRecords in the namespace of the override.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Names []string `json:"names,omitempty"`

	// selector matches labels of DynamicRecords, in the namespace of the override; from the operator's own namespace, in
	// all.
	//
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// OverrideTarget is a part of records: a datacenter, a pool, a target, or what is in all that are given.
//
// +kubebuilder:validation:XValidation:rule="has(self.datacenter) || has(self.pool) || has(self.target)",message="give a datacenter, a pool or a target"
type OverrideTarget struct {
	// datacenter is the name of the Datacenter, e.g. dc-b.
	//
	// +optional
	Datacenter DatacenterName `json:"datacenter,omitempty"`

	// pool is the name of a pool of the records.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Pool string `json:"pool,omitempty"`

	// target is the address or name of a target.
	//
	// +optional
	Target TargetAddress `json:"target,omitempty"`
}

// Force says where clients are moved to.
type Force struct {
	OverrideTarget `json:",inline"`

	// health says whether targets that are down are answered too: Respected or Ignored. Default: Respected.
	//
	// +optional
	// +kubebuilder:default=Respected
	Health ForceHealth `json:"health,omitempty"`
}

// ForceHealth says whether a forced target must be up.
//
// +kubebuilder:validation:Enum=Respected;Ignored
type ForceHealth string

const (
	// ForceHealthRespected answers forced targets that are up; if none is, the policy goes on as without.
	ForceHealthRespected ForceHealth = "Respected"
	// ForceHealthIgnored answers forced targets whether or not they are up.
	ForceHealthIgnored ForceHealth = "Ignored"
)

// RaiseTTL has the TTL that answers get at least.
type RaiseTTL struct {
	// ttl is in whole seconds, e.g. 10m, and counts within the zone's ttl.max.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	TTL Duration `json:"ttl,omitempty"`
}

// Block says which clients are refused.
type Block struct {
	// networks are the clients, e.g. [10.1.77.0/24]. They get REFUSED for the records.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Networks []CIDR `json:"networks,omitempty"`
}

// TrafficOverrideStatus is what an override has done.
type TrafficOverrideStatus struct {
	// conditions are Accepted, Programmed, SafeToProceed (every resolver that got an old answer has dropped it), and Ready,
	// which sums up Accepted and Programmed.
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
	// +kubebuilder:validation:MaxLength=512
	Target string `json:"target,omitempty"`

	// records is how many DynamicRecords it acts on.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Records int32 `json:"records,omitempty"`

	// safeAt is when every resolver that got the old answer must have dropped it, in UTC.
	//
	// +optional
	SafeAt *metav1.Time `json:"safeAt,omitempty"`
}
