package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ResolverPool is a pool of recursive resolvers for one class of clients.
//
// This version of the operator stores ResolverPools and does not act on them: Accepted is Unknown with the reason
// NotImplemented.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=rp,categories=dns
// +kubebuilder:selectablefield:JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="Class",type=string,JSONPath=`.spec.class`,description="Class of clients"
// +kubebuilder:printcolumn:name="Engines",type=string,JSONPath=`.status.engines`,description="Resolver programs in use"
// +kubebuilder:printcolumn:name="Ready-Members",type=string,JSONPath=`.status.readyMembers`,description="Members that answer, of all"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Accepted and programmed"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Datacenters",type=string,priority=1,JSONPath=`.status.datacenters`,description="Datacenters with members"
// +kubebuilder:printcolumn:name="VIP",type=string,priority=1,JSONPath=`.status.vip`,description="Address that clients ask"
type ResolverPool struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the pool as wanted.
	//
	// +required
	Spec ResolverPoolSpec `json:"spec,omitzero"`

	// status is how the pool is doing. Users do not write it.
	//
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "NotImplemented", message: "This version of the operator does not act on ResolverPools", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "NotImplemented", message: "This version of the operator does not act on ResolverPools", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status ResolverPoolStatus `json:"status,omitzero"`
}

// ResolverPoolList is a list of ResolverPools.
//
// +kubebuilder:object:root=true
type ResolverPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ResolverPool `json:"items"`
}

// ResolverPoolSpec is a resolver pool as its owner wants it.
type ResolverPoolSpec struct {
	// class is the class of clients that the pool is for, e.g. office or production. Its name and meaning are the
	// owner's choice.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="must be lower case letters, digits and -, beginning and ending with a letter or digit, such as office or production"
	Class string `json:"class,omitempty"`

	// datacenters limits the pool to some datacenters. Left out: every datacenter.
	//
	// +optional
	Datacenters DatacenterSelection `json:"datacenters,omitzero"`
}

// ResolverPoolStatus is how a resolver pool is doing.
type ResolverPoolStatus struct {
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

	// engines are the resolver programs in use, e.g. unbound,knot.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Engines string `json:"engines,omitempty"`

	// readyMembers says how many members answer, of how many, e.g. 4/4.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	ReadyMembers string `json:"readyMembers,omitempty"`

	// datacenters are the datacenters with members, e.g. dc-a,dc-b.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Datacenters string `json:"datacenters,omitempty"`

	// vip is the address that clients ask.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	VIP string `json:"vip,omitempty"`
}
