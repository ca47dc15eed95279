package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DynamicRecord is one name whose answer is chosen for each client among healthy addresses of several pools, such as one
// pool a datacenter.
//
// Servers in every datacenter probe the targets, agree on which are up, and answer from what they agree on. All of it goes
// on without the control plane.
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
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "Waiting for the controller", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "Pending", message: "Waiting for the controller", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
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
// +kubebuilder:validation:XValidation:rule="self.pools.all(p, p.targets.all(t, isIP(t.address))) || self.pools.all(p, p.targets.all(t, !isIP(t.address)))",message="targets must be all addresses or all names: a name is answered as a CNAME, which can't stand beside addresses",fieldPath=".pools"
// +kubebuilder:validation:XValidation:rule="!has(self.flatten) || self.pools.all(p, p.targets.all(t, !isIP(t.address)))",message="flatten is for targets that are names: these are addresses already",fieldPath=".flatten"
// +kubebuilder:validation:XValidation:rule="self.host != '@' || has(self.flatten) || self.pools.all(p, p.targets.all(t, isIP(t.address)))",message="the zone itself (@) can't be an alias: give flatten, so that the servers look the names up and answer addresses",fieldPath=".host"
// +kubebuilder:validation:XValidation:rule="self.steering.policy != 'Nearest' || self.pools.size() == 1 || self.pools.all(p, has(p.datacenter))",message="with the policy Nearest every pool needs its datacenter: it tells who is near",fieldPath=".pools"
// +kubebuilder:validation:XValidation:rule="self.steering.policy == 'Weighted' || self.pools.all(p, !has(p.weight))",message="weight of a pool is for the steering policy Weighted; to share inside a pool, give its targets weights and the pool the policy Weighted",fieldPath=".pools"
// +kubebuilder:validation:XValidation:rule="self.steering.policy != 'Weighted' || self.pools.exists(p, !has(p.weight) || p.weight > 0)",message="at least one pool needs a weight above 0",fieldPath=".pools"
// +kubebuilder:validation:XValidation:rule="self.steering.policy == 'Geo' || self.pools.all(p, !has(p.geo))",message="geo is for the steering policy Geo",fieldPath=".pools"
// +kubebuilder:validation:XValidation:rule="!has(self.match) || self.match.all(m, m.pools.all(n, self.pools.exists(p, p.name == n)))",message="match names a pool that is not in pools",fieldPath=".match"
// +kubebuilder:validation:XValidation:rule="self.failover.mode != 'Manual' || self.steering.policy in ['Failover', 'Nearest', 'Weighted', 'Geo', 'Latency']",message="failover by hand is for the policies Failover, Nearest, Weighted, Geo and Latency",fieldPath=".failover"
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

	// ttl is the TTL of the answers: a class of the zone, a value, or derived. Left out: the zone's ttl.default. A client
	// may hold an old answer for this long after a failover.
	//
	// +optional
	TTL *SteeredTTL `json:"ttl,omitempty"`

	// steering says how a pool is chosen for a client.
	//
	// +required
	Steering Steering `json:"steering,omitzero"`

	// match are rules in front of the policy, for canaries and tests: clients of the networks get the pools named, among
	// which the policy chooses. The first rule that matches counts.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Match []Match `json:"match,omitempty"`

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

	// flatten has the servers look up targets that are names and answer the addresses, as an alias can't stand beside
	// other data, such as at the zone itself (@). The last good addresses are kept when the lookup fails.
	//
	// +optional
	Flatten *Flatten `json:"flatten,omitempty"`

	// services are RRsets of other types that are answered from the same pools.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	Services []Service `json:"services,omitempty"`

	// whenAllDown says what to answer when no target of any pool is up.
	//
	// +optional
	// +kubebuilder:default={action: ReturnAll}
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

// ZoneRef names a DNSZone.
type ZoneRef struct {
	// namespace is the namespace of the DNSZone. Left out: the namespace of the object. The zone must grant the name to
	// the object's namespace in allowedRecords.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

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

	// latency has settings of the policy Latency.
	//
	// +optional
	Latency *LatencySteering `json:"latency,omitempty"`
}

// LatencySteering has settings of the policy Latency.
type LatencySteering struct {
	// hysteresisPercent is by how much another pool must be quicker than the present one to take its place, in percent.
	// Default: 20.
	//
	// +optional
	// +kubebuilder:default=20
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=90
	HysteresisPercent *int32 `json:"hysteresisPercent,omitempty"`
}

// SteeredTTL is the TTL of a steered name: exactly one of class, value and derived.
//
// +kubebuilder:validation:XValidation:rule="[has(self.class), has(self.value), has(self.derived)].filter(x, x).size() == 1",message="give exactly one of class (the name of one of the zone's ttl.classes), value (a duration such as 60s) and derived"
type SteeredTTL struct {
	// class is the name of one of the zone's ttl.classes, e.g. critical.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Class string `json:"class,omitempty"`

	// value is the TTL itself, in whole seconds, e.g. 60s or 1h. Values outside the zone's ttl.min and ttl.max are
	// served with the nearer of the two.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Value *Duration `json:"value,omitempty"`

	// derived lets servers lower the TTL while the answer may change soon, since probes of a target have begun to fail
	// or to succeed again, and raise it to max while nothing points to a change.
	//
	// +optional
	Derived *DerivedTTL `json:"derived,omitempty"`
}

// DerivedTTL bounds a TTL that servers derive.
//
// +kubebuilder:validation:XValidation:rule="[self.min, self.max].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || duration(self.min) <= duration(self.max)",message="min must not be above max",fieldPath=".min"
type DerivedTTL struct {
	// min is the least TTL, in whole seconds, e.g. 5s.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Min Duration `json:"min,omitempty"`

	// max is the TTL while nothing points to a change, in whole seconds, e.g. 60s. RTO arithmetic counts min: the TTL
	// falls as soon as a probe fails.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Max Duration `json:"max,omitempty"`
}

// Match sends clients of some networks to some of the pools.
type Match struct {
	// networks are the clients, e.g. [10.1.77.0/24]: their own addresses where the zone trusts the resolver's EDNS
	// Client Subnet, else those of their resolvers.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Networks []CIDR `json:"networks,omitempty"`

	// pools are names of the record's pools.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=63
	Pools []string `json:"pools,omitempty"`
}

// Flatten says how names of targets are looked up.
type Flatten struct {
	// resolvers are asked for the names, on port 53, e.g. [10.1.0.53, 10.2.0.53]. Those in the probes.deniedNetworks of a
	// server's Datacenter are not asked by it; where it states none, loopback, link-local, the API server and the servers
	// themselves are not.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Resolvers []IP `json:"resolvers,omitempty"`
}

// ServiceType is the type of an RRset beside the addresses.
//
// +kubebuilder:validation:Enum=HTTPS;SRV
type ServiceType string

const (
	// ServiceHTTPS is an HTTPS RRset (RFC 9460) at the name itself.
	ServiceHTTPS ServiceType = "HTTPS"
	// ServiceSRV is an SRV RRset (RFC 2782) at a name below.
	ServiceSRV ServiceType = "SRV"
)

// Service is an RRset of another type that is answered from the same pools.
//
// +kubebuilder:validation:XValidation:rule="(self.type == 'SRV') == has(self.name)",message="name, such as _sip._tcp, is required for SRV, and must be left out for HTTPS",fieldPath=".name"
// +kubebuilder:validation:XValidation:rule="self.type == 'HTTPS' || !has(self.alpn)",message="alpn is for HTTPS",fieldPath=".alpn"
// +kubebuilder:validation:XValidation:rule="self.type != 'SRV' || has(self.port)",message="SRV needs a port",fieldPath=".port"
type Service struct {
	// type is HTTPS (at the name itself, with the chosen addresses as hints) or SRV (at name below it).
	//
	// +required
	Type ServiceType `json:"type,omitempty"`

	// name is the service and protocol in front of the host, e.g. _sip._tcp; for SRV.
	//
	// +optional
	// +kubebuilder:validation:MinLength=4
	// +kubebuilder:validation:MaxLength=127
	// +kubebuilder:validation:XValidation:rule="self.matches('^_[a-z0-9-]{1,62}[.]_[a-z0-9-]{1,62}$')",message="must be service and protocol, such as _sip._tcp"
	Name string `json:"name,omitempty"`

	// port is where the targets answer, 1 to 65535, unless a target has its own. Left out, with HTTPS: 443.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	// alpn are the protocols that the targets speak, e.g. [h2, http/1.1]; for HTTPS.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=32
	Alpn []string `json:"alpn,omitempty"`
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

	// weight is the pool's share for the steering policy Weighted, relative to the others, 0 to 1000. 0: only when no
	// other pool is usable. Default: 1.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Weight *int32 `json:"weight,omitempty"`

	// geo are the clients that the pool is for, with the steering policy Geo. Left out: those that no other pool is for.
	//
	// +optional
	Geo *Geo `json:"geo,omitempty"`

	// probeRef names a HealthProbe that gates the whole pool: while it is down no target of the pool is used. It must
	// have an address of its own, or be Calculated of such probes. The tiers of one business system that share a gate
	// move together.
	//
	// +optional
	ProbeRef *ProbeRef `json:"probeRef,omitempty"`

	// maxAnswers is how many addresses an answer has at most, 1 to 64. Left out: all that are chosen.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	MaxAnswers *int32 `json:"maxAnswers,omitempty"`

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

// Continent is AF (Africa), AN (Antarctica), AS (Asia), EU (Europe), NA (North America), OC (Oceania) or SA (South America).
//
// +kubebuilder:validation:Enum=AF;AN;AS;EU;NA;OC;SA
type Continent string

// Geo is the clients that a pool is for. The servers look them up in a database that is mounted into their pods.
//
// +kubebuilder:validation:XValidation:rule="has(self.countries) || has(self.continents) || has(self.asns)",message="give countries, continents or asns; leave geo out for a pool that takes all others"
type Geo struct {
	// countries are ISO 3166-1 codes, e.g. [DE, FR].
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=2
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[A-Z]{2}$')",message="must be a country code of two capital letters, such as DE"
	Countries []string `json:"countries,omitempty"`

	// continents are AF (Africa), AN (Antarctica), AS (Asia), EU (Europe), NA (North America), OC (Oceania) and SA (South
	// America).
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=7
	Continents []Continent `json:"continents,omitempty"`

	// asns are the numbers of clients' networks (autonomous systems), e.g. [64500].
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=4294967295
	ASNs []int64 `json:"asns,omitempty"`
}

// TargetAddress is an IP address, or a domain name, e.g. 10.1.9.9, 2001:db8::9 or app.example.net.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="isIP(self) || self.matches('^([a-z0-9_-]+[.])+[a-z_-][a-z0-9_-]*[.]?$')",message="must be an IP address such as 10.1.9.9 or 2001:db8::9, without port, or a domain name in lower case such as app.example.net"
// +kubebuilder:validation:XValidation:rule="!isIP(self) || (!ip(self).isUnspecified() && !ip(self).isLinkLocalMulticast() && !ip(self).isLinkLocalUnicast())",message="must be an address that clients can reach: not unspecified (0.0.0.0 or ::) and not link-local"
type TargetAddress string

// Target is one address to answer.
type Target struct {
	// address is what clients get, e.g. 10.1.9.9 or 2001:db8::9; or a domain name, e.g. app.example.net, which is
	// answered as a CNAME, or looked up with flatten.
	//
	// +required
	Address TargetAddress `json:"address,omitempty"`

	// port is where the target answers, 1 to 65535, in RRsets of services. Left out: the service's port.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

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
//
// +kubebuilder:validation:XValidation:rule="(has(self.action) && self.action == 'Fallback') == has(self.fallback)",message="fallback is required when action is Fallback, and must be left out otherwise",fieldPath=".fallback"
type WhenAllDown struct {
	// action is ReturnAll (all targets of the pool that would be chosen if all were up), LastGood (what was answered
	// last while something was up), Fallback, NoData (the name exists and has no address) or ServFail. Default:
	// ReturnAll.
	//
	// +optional
	// +kubebuilder:default=ReturnAll
	Action AllDownAction `json:"action,omitempty"`

	// fallback are the addresses, or the one name, to answer; with action: Fallback.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(a, isIP(a)) || self.size() == 1",message="give addresses, or one name"
	Fallback []TargetAddress `json:"fallback,omitempty"`
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

	// clientCache is what clients keep of an answer themselves, if all of them ask ResolverPools, whose members forget a
	// name when its answer changes: None, or a duration that is the most, e.g. 5s. Then rto and status.worstFailover count
	// this and the flush, instead of the TTL. It is a promise of who writes it: operating systems, browsers, JVMs,
	// forwarders and caches of nodes hold what they were given for the TTL that they were told (clientMaxTTL of the pool),
	// and resolvers that are no members of a pool for the TTL of the record. Left out: the TTL counts.
	//
	// +optional
	ClientCache ClientCache `json:"clientCache,omitempty"`
}

// ClientCache is None, or a duration such as 5s.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule="self == 'None' || self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')",message="must be None, or the most that clients keep as a duration such as 5s or 500ms"
type ClientCache string

// ClientCacheNone is clients that keep nothing.
const ClientCacheNone ClientCache = "None"

// DynamicRecordStatus is what is answered and why.
type DynamicRecordStatus struct {
	// conditions are Accepted, Programmed, Healthy, RTOFeasible, Overridden, Degraded (such as a split of the vote, or a
	// move that waits for a person), and Ready, which sums up Accepted and Programmed.
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

	// serving are the datacenters whose addresses are answered by the servers that can be asked, e.g. dc-a,dc-b.
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

	// targets are what is known of the targets, in the order of the spec.
	//
	// +optional
	// +listType=map
	// +listMapKey=pool
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=64
	Targets []TargetStatus `json:"targets,omitempty"`

	// datacenters say what the servers of each datacenter answer.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Datacenters []RecordDatacenterStatus `json:"datacenters,omitempty"`

	// override is the TrafficOverride in force, as namespace/name.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=317
	Override string `json:"override,omitempty"`
}

// TargetState is what the voting datacenters make of a target.
//
// +kubebuilder:validation:Enum=Up;Degraded;Down;Unknown
type TargetState string

const (
	// TargetUp is a target that is used.
	TargetUp TargetState = "Up"
	// TargetDegraded is a target that is used only where none is up.
	TargetDegraded TargetState = "Degraded"
	// TargetDown is a target that is not used.
	TargetDown TargetState = "Down"
	// TargetUnknown is a target that nobody could judge yet. It is used.
	TargetUnknown TargetState = "Unknown"
)

// TargetStatus is what is known of one target.
type TargetStatus struct {
	// pool is the target's pool.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Pool string `json:"pool,omitempty"`

	// address is the target's address or name.
	//
	// +required
	Address TargetAddress `json:"address,omitempty"`

	// state is Up, Degraded, Down or Unknown.
	//
	// +required
	State TargetState `json:"state,omitempty"`

	// votes says how many datacenters say up, of how many that have a say, e.g. 3/3.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Votes string `json:"votes,omitempty"`

	// dissenting are the datacenters that see it otherwise.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	Dissenting []DatacenterName `json:"dissenting,omitempty"`

	// since is when the state began, in UTC.
	//
	// +optional
	Since *metav1.Time `json:"since,omitempty"`

	// lastFailure says why the last probe failed, e.g. connection refused, or: HTTP 503, wanted 200-299.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	LastFailure string `json:"lastFailure,omitempty"`
}

// RecordDatacenterStatus is what the servers of one datacenter answer.
type RecordDatacenterStatus struct {
	// name is the Datacenter.
	//
	// +required
	Name DatacenterName `json:"name,omitempty"`

	// pools are what clients of this datacenter get, the pool's names in order of preference, e.g. a.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Pools string `json:"pools,omitempty"`

	// state is in a word why: Preferred, FailedOver, AllDown, Held, AwaitingApproval, Overridden, NotReady or Stale (none of
	// its servers is connected; this is what they told last).
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	State string `json:"state,omitempty"`
}
