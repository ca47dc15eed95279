package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DynamicRecord is one name whose answer is chosen for each client among healthy addresses of several pools, such as one
// pool a datacenter.
//
// This version of the operator stores DynamicRecords and does not act on them: Accepted is Unknown with the reason
// NotImplemented.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=dr,categories=dns
// +kubebuilder:selectablefield:JSONPath=`.spec.zoneRef.name`
// +kubebuilder:selectablefield:JSONPath=`.spec.host`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.host`,description="Name relative to the zone"
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.steering.policy`,description="How a pool is chosen"
// +kubebuilder:printcolumn:name="Healthy",type=string,JSONPath=`.status.healthy`,description="Healthy targets, of all"
// +kubebuilder:printcolumn:name="Serving",type=string,JSONPath=`.status.serving`,description="Datacenters whose addresses are answered"
// +kubebuilder:printcolumn:name="TTL",type=string,JSONPath=`.status.ttl`,description="TTL of the answers"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Accepted and programmed"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Worst-Failover",type=string,priority=1,JSONPath=`.status.worstFailover`,description="Longest time from a target's death until no client has its address"
// +kubebuilder:printcolumn:name="Override",type=string,priority=1,JSONPath=`.status.override`,description="TrafficOverride in force"
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why the record is ready or not"
type DynamicRecord struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the record as wanted.
	//
	// +required
	Spec DynamicRecordSpec `json:"spec,omitzero"`

	// status is what is answered and why. Users do not write it.
	//
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "NotImplemented", message: "This version of the operator does not act on DynamicRecords", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "NotImplemented", message: "This version of the operator does not act on DynamicRecords", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status DynamicRecordStatus `json:"status,omitzero"`
}

// DynamicRecordList is a list of DynamicRecords.
//
// +kubebuilder:object:root=true
type DynamicRecordList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DynamicRecord `json:"items"`
}

// DynamicRecordSpec is a steered name as its owner wants it.
//
// +kubebuilder:validation:XValidation:rule="self.pools.map(p, p.targets.size()).sum() <= 64",message="a DynamicRecord has at most 64 targets in all its pools together",fieldPath=".pools"
type DynamicRecordSpec struct {
	// zoneRef names the DNSZone that the name is in. The zone must grant the name in allowedRecords.
	//
	// +required
	ZoneRef ZoneRef `json:"zoneRef,omitzero"`

	// host is the name relative to the zone, e.g. app for app.pay.bank; "@" is the zone itself.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^(@|([*]|[a-z0-9_/-]{1,63})([.][a-z0-9_/-]{1,63})*)$')",message="must be a name relative to the zone in lower case, such as app or api.app, or @ for the zone itself"
	Host string `json:"host,omitempty"`

	// ttl is the TTL of the answers. Left out: the zone's ttl.default. A client may hold an old answer for this long
	// after a failover.
	//
	// +optional
	TTL *RecordTTL `json:"ttl,omitempty"`

	// steering says how a pool is chosen for a client.
	//
	// +required
	Steering Steering `json:"steering,omitzero"`

	// pools are groups of targets, such as one a datacenter; at most 16 pools, and 64 targets in all of them together.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Pools []Pool `json:"pools,omitempty"`

	// probeRef names the HealthProbe, in the same namespace, that says which targets are up. Left out: all are.
	//
	// +optional
	ProbeRef *ProbeRef `json:"probeRef,omitempty"`

	// whenAllDown says what to answer when no target of any pool is up.
	//
	// +optional
	// +kubebuilder:default={}
	WhenAllDown WhenAllDown `json:"whenAllDown,omitzero"`

	// failover says who decides that the answer moves to another pool.
	//
	// +optional
	// +kubebuilder:default={}
	Failover Failover `json:"failover,omitzero"`

	// failback says who decides that the answer returns to the first choice, and when.
	//
	// +optional
	// +kubebuilder:default={}
	Failback Failback `json:"failback,omitzero"`

	// onPeerLoss says what a datacenter does that can't see another, and can't know whether that one is dead or only
	// the link between them. TrustLocal: it serves what it sees. Hold: answers do not move until a witness, the other
	// datacenter's anchors or a person confirm. Default: Hold for the policy Failover, else TrustLocal.
	//
	// +optional
	// +kubebuilder:validation:Enum=TrustLocal;Hold
	OnPeerLoss OnPeerLoss `json:"onPeerLoss,omitempty"`

	// objectives are promises that the operator checks the other fields against.
	//
	// +optional
	Objectives Objectives `json:"objectives,omitzero"`
}

// ZoneRef names a DNSZone in the namespace of the object.
type ZoneRef struct {
	// name is the name of the DNSZone object, e.g. pay (not the domain name).
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// ProbeRef names a HealthProbe in the namespace of the object.
type ProbeRef struct {
	// name is the name of the HealthProbe, e.g. https.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// SteeringPolicy chooses a pool for a client.
//
// +kubebuilder:validation:Enum=Nearest;Failover;Weighted;RoundRobin;Latency;Geo;ClientHash
type SteeringPolicy string

const (
	// SteeringNearest chooses the nearest healthy datacenter.
	SteeringNearest SteeringPolicy = "Nearest"
	// SteeringFailover chooses the first healthy pool.
	SteeringFailover SteeringPolicy = "Failover"
	// SteeringWeighted shares clients by weight.
	SteeringWeighted SteeringPolicy = "Weighted"
	// SteeringRoundRobin shares clients equally.
	SteeringRoundRobin SteeringPolicy = "RoundRobin"
	// SteeringLatency chooses the pool that answers probes soonest.
	SteeringLatency SteeringPolicy = "Latency"
	// SteeringGeo chooses by the client's country, continent or network operator.
	SteeringGeo SteeringPolicy = "Geo"
	// SteeringClientHash keeps a client with the same pool.
	SteeringClientHash SteeringPolicy = "ClientHash"
)

// Steering says how a pool is chosen for a client.
type Steering struct {
	// policy is Nearest (the nearest healthy datacenter), Failover (the first healthy pool in the order written),
	// Weighted (by share), RoundRobin (equal shares), Latency (the pool that answers soonest), Geo (by country or
	// network operator) or ClientHash (a client stays with its pool).
	//
	// +required
	Policy SteeringPolicy `json:"policy,omitempty"`
}

// PoolPolicy chooses among the targets of a pool.
//
// +kubebuilder:validation:Enum=RoundRobin;Weighted;ClientHash;Failover
type PoolPolicy string

const (
	// PoolRoundRobin rotates the targets.
	PoolRoundRobin PoolPolicy = "RoundRobin"
	// PoolWeighted shares clients by the targets' weights.
	PoolWeighted PoolPolicy = "Weighted"
	// PoolClientHash keeps a client with the same target.
	PoolClientHash PoolPolicy = "ClientHash"
	// PoolFailover chooses the first healthy target.
	PoolFailover PoolPolicy = "Failover"
)

// Pool is a group of targets that are chosen together.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minHealthy) || self.minHealthy <= self.targets.size()",message="minHealthy must not be above the number of targets: the pool could never be used",fieldPath=".minHealthy"
type Pool struct {
	// name is the pool's name, unique in the record, e.g. a.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="must be lower case letters, digits and -, beginning and ending with a letter or digit"
	Name string `json:"name,omitempty"`

	// datacenter is the name of the Datacenter that the targets are in. It tells who is near them.
	//
	// +optional
	Datacenter DatacenterName `json:"datacenter,omitempty"`

	// policy chooses among the healthy targets of the pool: RoundRobin (all of them, rotated), Weighted (by weight),
	// ClientHash (a client stays with its target) or Failover (the first in the order written). Default: RoundRobin.
	//
	// +optional
	// +kubebuilder:default=RoundRobin
	Policy PoolPolicy `json:"policy,omitempty"`

	// minHealthy is how many healthy targets the pool needs to be used. Default: 1.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	MinHealthy *int32 `json:"minHealthy,omitempty"`

	// targets are the addresses to answer.
	//
	// +required
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Targets []Target `json:"targets,omitempty"`
}

// Target is one address to answer.
type Target struct {
	// address is what clients get, e.g. 10.1.9.9 or 2001:db8::9.
	//
	// +required
	Address IP `json:"address,omitempty"`

	// weight is the target's share for the pool policy Weighted, relative to the others, 0 to 1000. 0: only when
	// nothing else is healthy. Default: 1.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Weight *int32 `json:"weight,omitempty"`

	// probeAddress is what probes ask instead of address, e.g. 192.0.2.9 behind a network address translation.
	//
	// +optional
	ProbeAddress IP `json:"probeAddress,omitempty"`
}

// AllDownAction is what to answer when no target is up.
//
// +kubebuilder:validation:Enum=ReturnAll;LastGood;Fallback;NoData;ServFail
type AllDownAction string

const (
	// AllDownReturnAll answers all targets of the pool that would be chosen if all were up.
	AllDownReturnAll AllDownAction = "ReturnAll"
	// AllDownLastGood answers what was answered last while something was up.
	AllDownLastGood AllDownAction = "LastGood"
	// AllDownFallback answers a fallback.
	AllDownFallback AllDownAction = "Fallback"
	// AllDownNoData answers that the name has no address.
	AllDownNoData AllDownAction = "NoData"
	// AllDownServFail answers SERVFAIL.
	AllDownServFail AllDownAction = "ServFail"
)

// WhenAllDown says what to answer when no target of any pool is up.
type WhenAllDown struct {
	// action is ReturnAll (all targets of the pool that would be chosen if all were up), LastGood (what was answered
	// last while something was up), Fallback, NoData (the name exists and has no address) or ServFail. Default:
	// ReturnAll.
	//
	// +optional
	// +kubebuilder:default=ReturnAll
	Action AllDownAction `json:"action,omitempty"`
}

// DecisionMode says who decides.
//
// +kubebuilder:validation:Enum=Auto;Manual
type DecisionMode string

const (
	// DecisionAuto lets the servers decide.
	DecisionAuto DecisionMode = "Auto"
	// DecisionManual raises an Event and waits for a person.
	DecisionManual DecisionMode = "Manual"
)

// Failover says who decides that the answer moves to another pool.
type Failover struct {
	// mode is Auto (the servers decide) or Manual (an Event is raised, and a person decides). Default: Auto.
	//
	// +optional
	// +kubebuilder:default=Auto
	Mode DecisionMode `json:"mode,omitempty"`
}

// Failback says who decides that the answer returns to the first choice, and when.
type Failback struct {
	// mode is Auto (the servers decide) or Manual (an Event is raised, and a person decides). Default: Auto.
	//
	// +optional
	// +kubebuilder:default=Auto
	Mode DecisionMode `json:"mode,omitempty"`

	// delay is how long the first choice must be healthy again before the answer returns to it, e.g. 1m. Left out:
	// at once.
	//
	// +optional
	Delay *Duration `json:"delay,omitempty"`
}

// OnPeerLoss says what a datacenter does that can't see another.
type OnPeerLoss string

const (
	// OnPeerLossTrustLocal serves what the datacenter itself sees.
	OnPeerLossTrustLocal OnPeerLoss = "TrustLocal"
	// OnPeerLossHold moves nothing until somebody else confirms.
	OnPeerLossHold OnPeerLoss = "Hold"
)

// Objectives are promises that the operator checks the other fields against.
type Objectives struct {
	// rto is the recovery time objective: how long after a target's death clients may still be given its address or
	// hold it in a cache, e.g. 60s. If probes, TTL and the rest can't meet it, RTOFeasible is False and says what would.
	//
	// +optional
	RTO *Duration `json:"rto,omitempty"`
}

// DynamicRecordStatus is what is answered and why.
type DynamicRecordStatus struct {
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

	// healthy says how many targets are up, of how many, e.g. 3/4.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Healthy string `json:"healthy,omitempty"`

	// serving are the datacenters whose addresses are answered, e.g. dc-a,dc-b.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Serving string `json:"serving,omitempty"`

	// ttl is the TTL of the answers, e.g. 5s.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	TTL string `json:"ttl,omitempty"`

	// worstFailover is the longest time from a target's death until no client has its address, e.g. 40.2s.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	WorstFailover string `json:"worstFailover,omitempty"`

	// override is the TrafficOverride in force, as namespace/name.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=317
	Override string `json:"override,omitempty"`
}
