package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HealthProbe says how to find out whether a target is up, how often, and who is believed. The address comes from the
// target, the rest from the probe.
//
// This version of the operator stores HealthProbes and does not act on them: Accepted is Unknown with the reason
// NotImplemented.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hp,categories=dns
// +kubebuilder:selectablefield:JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.type`,description="Kind of probe"
// +kubebuilder:printcolumn:name="Interval",type=string,JSONPath=`.spec.interval`,description="Time between probes"
// +kubebuilder:printcolumn:name="Used-By",type=string,JSONPath=`.status.usedBy`,description="DynamicRecords that use the probe"
// +kubebuilder:printcolumn:name="Up",type=string,JSONPath=`.status.up`,description="Targets that are up"
// +kubebuilder:printcolumn:name="Down",type=string,JSONPath=`.status.down`,description="Targets that are down"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Accepted and programmed"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HealthProbe struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the probe as wanted.
	//
	// +required
	Spec HealthProbeSpec `json:"spec,omitzero"`

	// status says who uses the probe and what it found. Users do not write it.
	//
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "NotImplemented", message: "This version of the operator does not act on HealthProbes", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "NotImplemented", message: "This version of the operator does not act on HealthProbes", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status HealthProbeStatus `json:"status,omitzero"`
}

// HealthProbeList is a list of HealthProbes.
//
// +kubebuilder:object:root=true
type HealthProbeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HealthProbe `json:"items"`
}

// ProbeType is the kind of a probe.
//
// +kubebuilder:validation:Enum=HTTPS
type ProbeType string

// ProbeHTTPS is a probe by an HTTPS request.
const ProbeHTTPS ProbeType = "HTTPS"

// HealthProbeSpec is a probe as its owner wants it.
//
// +kubebuilder:validation:XValidation:rule="(self.type == 'HTTPS') == has(self.https)",message="https is required when type is HTTPS, and must be left out otherwise",fieldPath=".https"
// +kubebuilder:validation:XValidation:rule="[self.interval, self.timeout].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || duration(self.timeout) < duration(self.interval)",message="timeout must be below interval",fieldPath=".timeout"
type HealthProbeSpec struct {
	// type is the kind of probe: HTTPS. The field named like it has its settings.
	//
	// +required
	Type ProbeType `json:"type,omitempty"`

	// https has the settings of a probe of the type HTTPS.
	//
	// +optional
	HTTPS *HTTPProbe `json:"https,omitempty"`

	// interval is the time between two probes of a target from one server, 1s to 1h. Default: 10s.
	//
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || (duration(self) >= duration('1s') && duration(self) <= duration('1h'))",message="interval must be between 1s and 1h"
	Interval Duration `json:"interval,omitempty"`

	// timeout is how long a probe may take; it must be below interval. Default: 2s.
	//
	// +optional
	// +kubebuilder:default="2s"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) >= duration('1ms')",message="timeout must be 1ms or more"
	Timeout Duration `json:"timeout,omitempty"`

	// failureThreshold is how many probes in a row must fail until a target is down, 1 to 100. Default: 3.
	//
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	FailureThreshold *int32 `json:"failureThreshold,omitempty"`

	// successThreshold is how many probes in a row must succeed until a target is up again, 1 to 100. Default: 2.
	//
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	SuccessThreshold *int32 `json:"successThreshold,omitempty"`

	// vantage says which datacenters' probes decide.
	//
	// +optional
	// +kubebuilder:default={}
	Vantage ProbeVantage `json:"vantage,omitzero"`
}

// HTTPProbe has the settings of a probe by HTTP request. The request goes to the target's address.
type HTTPProbe struct {
	// port is the TCP port, 1 to 65535. Default: 443.
	//
	// +optional
	// +kubebuilder:default=443
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	// path is the path and query of the request, e.g. /healthz. Default: /.
	//
	// +optional
	// +kubebuilder:default="/"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/')",message="path must begin with /"
	Path string `json:"path,omitempty"`

	// host is the Host header and the name in the TLS handshake, e.g. app.pay.bank. Left out: the target's address.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9._-]+$')",message="must be a host name such as app.pay.bank, without port"
	Host string `json:"host,omitempty"`

	// expectedStatus are the HTTP status codes that mean up: codes and ranges, e.g. ["200-299", "401"]. Default:
	// ["200-299"].
	//
	// +optional
	// +listType=set
	// +kubebuilder:default={"200-299"}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=3
	// +kubebuilder:validation:items:MaxLength=7
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$') && (self.size() == 3 || self.substring(0, 3) <= self.substring(4))",message="must be a status code such as 200, or a range such as 200-299"
	ExpectedStatus []string `json:"expectedStatus,omitempty"`
}

// VantagePolicy says which datacenters' verdicts count.
//
// +kubebuilder:validation:Enum=Local;Any;All;Quorum
type VantagePolicy string

const (
	// VantageLocal lets each datacenter follow its own probes.
	VantageLocal VantagePolicy = "Local"
	// VantageAny means up if one datacenter says up.
	VantageAny VantagePolicy = "Any"
	// VantageAll means up only if every datacenter says up.
	VantageAll VantagePolicy = "All"
	// VantageQuorum follows the majority.
	VantageQuorum VantagePolicy = "Quorum"
)

// ProbeVantage says which datacenters' probes decide whether a target is up.
type ProbeVantage struct {
	// policy is Local (each datacenter follows its own probes), Any (up if one datacenter says up), All (up only if
	// every one does) or Quorum (the majority). Default: Quorum.
	//
	// +optional
	// +kubebuilder:default=Quorum
	Policy VantagePolicy `json:"policy,omitempty"`
}

// HealthProbeStatus says who uses a probe and what it found.
type HealthProbeStatus struct {
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

	// usedBy is the number of DynamicRecords that use the probe, as text.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	UsedBy string `json:"usedBy,omitempty"`

	// up is the number of targets that are up, as text.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Up string `json:"up,omitempty"`

	// down is the number of targets that are down, as text.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Down string `json:"down,omitempty"`
}
