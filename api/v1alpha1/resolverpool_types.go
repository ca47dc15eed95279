package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ResolverPool is a pool of recursive resolvers for one class of clients, in one datacenter or in several: programs of more
// than one maker, so that a fault of one does not take all down, which start at the operator's own root zone and ask nobody
// else. An agent beside each of them configures it, watches it by real queries, and has it forget a name at once when that
// name's answer changes. Its name is a DNS label.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=rp,categories=dns
// +kubebuilder:selectablefield:JSONPath=`.spec.class`
// +kubebuilder:printcolumn:name="Class",type=string,JSONPath=`.spec.class`,description="Class of clients"
// +kubebuilder:printcolumn:name="Engines",type=string,JSONPath=`.status.engines`,description="Resolver programs in use"
// +kubebuilder:printcolumn:name="Ready-Members",type=string,JSONPath=`.status.readyMembers`,description="Members that answer, of all"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Accepted and programmed, and answering in every datacenter"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Datacenters",type=string,priority=1,JSONPath=`.status.datacenters`,description="Datacenters with members"
// +kubebuilder:printcolumn:name="VIP",type=string,priority=1,JSONPath=`.status.vip`,description="Addresses that clients ask"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="a ResolverPool's name must be a DNS label (lower case letters, digits and -, no dots): it is part of the names of what runs it"
type ResolverPool struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata. Its name is a DNS label.
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
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "Waiting for the controller", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "Pending", message: "Waiting for the controller", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
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

// ResolverPoolManagement says who starts the members of a pool.
//
// +kubebuilder:validation:Enum=Managed;External
type ResolverPoolManagement string

const (
	// ResolverPoolManaged is a pool whose members the operator runs.
	ResolverPoolManaged ResolverPoolManagement = "Managed"
	// ResolverPoolExternal is a pool whose members somebody else starts.
	ResolverPoolExternal ResolverPoolManagement = "External"
)

// ResolverPoolSpec is a resolver pool as its owner wants it.
//
// +kubebuilder:validation:XValidation:rule="self.management != 'External' || self.members.all(m, !has(m.image) && !has(m.architecture) && !has(m.autoscaling) && !has(m.pods))",message="image, architecture, autoscaling and pods are for Managed pools: an External pool has the members that somebody starts for it",fieldPath=".members"
// +kubebuilder:validation:XValidation:rule="self.management != 'External' || !has(self.exposure)",message="exposure is for Managed pools: members of an External pool listen where they were told by --listen",fieldPath=".exposure"
// +kubebuilder:validation:XValidation:rule="self.management != 'External' || !has(self.disruption)",message="disruption is for Managed pools: the members of an External pool are in no pods",fieldPath=".disruption"
// +kubebuilder:validation:XValidation:rule="!has(self.exposure) || !has(self.exposure.datacenters) || !has(self.datacenters) || !has(self.datacenters.names) || self.datacenters.names.size() == 0 || self.exposure.datacenters.all(d, d.name in self.datacenters.names)",message="exposure.datacenters has a datacenter that the pool is not in",fieldPath=".exposure.datacenters"
// +kubebuilder:validation:XValidation:rule="!has(self.proxyProtocol) || !has(self.transports) || ((self.transports.dot.access != 'Open' || self.transports.dot.port != self.proxyProtocol.port) && (self.transports.doh.access != 'Open' || self.transports.doh.port != self.proxyProtocol.port))",message="proxyProtocol needs a port of its own, beside those of dot and doh",fieldPath=".proxyProtocol.port"
// +kubebuilder:validation:XValidation:rule="!has(self.clientMaxTTL) || !has(self.ttl) || !has(self.ttl.min) || [self.clientMaxTTL, self.ttl.min].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || duration(self.ttl.min) <= duration(self.clientMaxTTL)",message="clientMaxTTL is below ttl.min: give clients a larger bound, or the cache a smaller one",fieldPath=".clientMaxTTL"
// +kubebuilder:validation:XValidation:rule="self.management != 'Managed' || ((!has(self.transports) || ((self.transports.dot.access != 'Open' || !(self.transports.dot.port in [5353, 8056])) && (self.transports.doh.access != 'Open' || !(self.transports.doh.port in [5353, 8056])))) && (!has(self.proxyProtocol) || !(self.proxyProtocol.port in [5353, 8056])))",message="members that the operator runs need ports 5353 and 8056 for themselves"
type ResolverPoolSpec struct {
	// class is the class of clients that the pool is for, e.g. office or production. Its name and meaning are the
	// owner's choice.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="must be lower case letters, digits and -, beginning and ending with a letter or digit, such as office or production"
	Class string `json:"class,omitempty"`

	// datacenters limits the pool to some datacenters. Left out: every datacenter, but not a Witness.
	//
	// +optional
	Datacenters DatacenterSelection `json:"datacenters,omitzero"`

	// management is Managed (the operator runs the members where the servers of each Datacenter run) or External
	// (somebody else starts resolver-agent, with a certificate for the datacenter and this pool, and it gets its
	// configuration from the operator). Default: Managed.
	//
	// +optional
	// +kubebuilder:default=Managed
	Management ResolverPoolManagement `json:"management,omitempty"`

	// members are the resolver programs of the pool, and how many of each run in every datacenter. Two programs or more
	// keep the pool answering when a fault takes all of one.
	//
	// +required
	// +listType=map
	// +listMapKey=engine
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	Members []ResolverMember `json:"members,omitempty"`

	// rootZone names the DNSZone "." whose servers the members begin at. It may be in any namespace. Left out: the root
	// zone of the operator, of which there is one. Without a root zone that has servers nothing is configured: resolvers
	// would ask the root servers of the internet.
	//
	// +optional
	RootZone *ZoneRef `json:"rootZone,omitempty"`

	// recursionCheck is the zone below which members ask, again and again, for a name that nobody has, to know that they get
	// from the root to the leaves, e.g. pay.corp. Left out: the deepest zone of the operator.
	//
	// +optional
	RecursionCheck DomainName `json:"recursionCheck,omitempty"`

	// internetAccess says whether names outside of the operator's hierarchy can be resolved. Left out: they can't.
	//
	// +optional
	// +kubebuilder:default={}
	InternetAccess InternetAccess `json:"internetAccess,omitzero"`

	// clientNetworks are the clients that are answered, e.g. [10.0.0.0/8]. All others are refused.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	ClientNetworks []CIDR `json:"clientNetworks,omitempty"`

	// authorityNetworks are networks in which authoritative servers of others may be asked, beside the operator's own
	// servers, whose addresses are always allowed, e.g. [10.7.0.0/24] for a reverse zone that an old server has. Whatever
	// referrals say, nothing else is asked. Left out: only the operator's own servers.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	AuthorityNetworks []CIDR `json:"authorityNetworks,omitempty"`

	// sourceNetworks are networks from which members ask authoritative servers: each takes its own address in them, e.g.
	// [10.1.0.0/24, 10.2.0.0/24] where clients ask an anycast address, to which no answer would find back. Left out: a
	// member asks from the address at which it is asked.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	SourceNetworks []CIDR `json:"sourceNetworks,omitempty"`

	// ttl bounds how long members keep answers, and what they tell clients. Left out: as the zones say.
	//
	// +optional
	TTL CacheTTL `json:"ttl,omitzero"`

	// clientMaxTTL is the most that clients are told, in whole seconds, whatever members keep, e.g. 5s. What clients
	// keep does not move when an answer changes: a low bound has them ask again soon. Left out: what is left of the
	// record's TTL.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	ClientMaxTTL *Duration `json:"clientMaxTTL,omitempty"`

	// prefetch is Enabled (records that are asked for often are asked for again before they expire) or Disabled.
	// Default: Disabled.
	//
	// +optional
	// +kubebuilder:default=Disabled
	Prefetch Switch `json:"prefetch,omitempty"`

	// keepWarm are names that are always in the cache, e.g. [app.pay.corp]: the agent asks for them before they expire,
	// also where the program can't prefetch.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	KeepWarm []DomainName `json:"keepWarm,omitempty"`

	// serveStale lets members answer from expired records when no authoritative server answers (RFC 8767). Left out:
	// they answer SERVFAIL.
	//
	// +optional
	ServeStale *ServeStale `json:"serveStale,omitempty"`

	// queryNameCase is Randomized (the case of letters in questions to authoritative servers is mixed, and must come back
	// the same: 0x20, against forged answers) or Plain. Default: Plain.
	//
	// +optional
	// +kubebuilder:default=Plain
	QueryNameCase QueryNameCase `json:"queryNameCase,omitempty"`

	// ecs has authoritative servers of some zones told the client's network (RFC 7871). Left out: nobody is told.
	//
	// +optional
	ECS *ResolverECS `json:"ecs,omitempty"`

	// dnssec says whether answers are validated. Left out: they are not.
	//
	// +optional
	// +kubebuilder:default={}
	DNSSEC ResolverDNSSEC `json:"dnssec,omitzero"`

	// limits bound queries a second. Left out: there are no limits.
	//
	// +optional
	Limits ResolverLimits `json:"limits,omitzero"`

	// blockLists are names that clients are told do not exist. Left out: none.
	//
	// +optional
	BlockLists BlockLists `json:"blockLists,omitzero"`

	// queryLog tells clients' queries and their answers to somebody. Left out: nobody is told.
	//
	// +optional
	QueryLog *QueryLog `json:"queryLog,omitempty"`

	// transports say how clients may ask besides UDP and TCP on port 53.
	//
	// +optional
	// +kubebuilder:default={}
	Transports ResolverTransports `json:"transports,omitzero"`

	// proxyProtocol is where a load balancer asks that says whose queries it brings (PROXY protocol, version 2). Left
	// out: clients are whom packets come from.
	//
	// +optional
	ProxyProtocol *ResolverProxyProtocol `json:"proxyProtocol,omitempty"`

	// exposure says how clients reach the members of a Managed pool. Left out: by a Service of type LoadBalancer in each
	// datacenter, over all programs.
	//
	// +optional
	Exposure *ResolverExposure `json:"exposure,omitempty"`

	// disruption bounds how many members of a Managed pool may be away at once because somebody drains nodes. Left out: one
	// in each datacenter.
	//
	// +optional
	Disruption *ResolverDisruption `json:"disruption,omitempty"`
}

// DomainName is an absolute domain name in lower case, such as pay.corp; "." is the root.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self == '.' || self.matches('^[a-z0-9_-]{1,63}([.][a-z0-9_-]{1,63})*$')",message="must be an absolute domain name in lower case without a dot at the end, such as pay.corp, or \".\" for the root: labels of letters, digits, - and _, at most 63 characters each"
type DomainName string

// ResolverEngine is a recursive resolver program.
//
// +kubebuilder:validation:Enum=Unbound;KnotResolver;Recursor
type ResolverEngine string

const (
	// EngineUnbound is Unbound of NLnet Labs.
	EngineUnbound ResolverEngine = "Unbound"
	// EngineKnotResolver is Knot Resolver 5 of CZ.NIC.
	EngineKnotResolver ResolverEngine = "KnotResolver"
	// EngineRecursor is PowerDNS Recursor.
	EngineRecursor ResolverEngine = "Recursor"
)

// ResolverMember is one resolver program of a pool, and how many of it run in every datacenter.
//
// +kubebuilder:validation:XValidation:rule="!has(self.autoscaling) || !has(self.replicas)",message="give replicas, or autoscaling with its bounds, not both",fieldPath=".replicas"
type ResolverMember struct {
	// engine is Unbound, KnotResolver (version 5) or Recursor (PowerDNS Recursor).
	//
	// +required
	Engine ResolverEngine `json:"engine,omitempty"`

	// replicas is how many of them run in every datacenter, 1 to 64; in an External pool, how many somebody is to start
	// there. Left out: 2, or what autoscaling finds.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	Replicas *int32 `json:"replicas,omitempty"`

	// autoscaling has Kubernetes choose the number in each datacenter by load.
	//
	// +optional
	Autoscaling *ResolverAutoscaling `json:"autoscaling,omitempty"`

	// image is that of the program with its agent, e.g. registry.example.net/fingerpost/resolver-unbound:v0.2.0. Left
	// out: what the operator was told for this engine.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^ \\\\t\\\\n]+$')",message="must be the name of an image, without spaces"
	Image string `json:"image,omitempty"`

	// architecture is that of the nodes that may run them, as in their label kubernetes.io/arch, e.g. amd64 or arm64. Left
	// out: any that the image is for.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9_]+$')",message="must be an architecture as in the label kubernetes.io/arch, such as amd64 or arm64"
	Architecture string `json:"architecture,omitempty"`

	// threads is how many CPUs each uses, 1 to 256. Default: 1.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	Threads *int32 `json:"threads,omitempty"`

	// cacheMiB is the size of the cache of each in MiB, 4 to 1048576. Default: 64.
	//
	// +optional
	// +kubebuilder:default=64
	// +kubebuilder:validation:Minimum=4
	// +kubebuilder:validation:Maximum=1048576
	CacheMiB *int32 `json:"cacheMiB,omitempty"`

	// pods are how and where Kubernetes runs them, beside the nodes of their datacenter.
	//
	// +optional
	Pods *ServerPods `json:"pods,omitempty"`
}

// AutoscalingMetric is a load by which the number of members is chosen.
//
// +kubebuilder:validation:Enum=CPU;Queries
type AutoscalingMetric string

const (
	// AutoscaleCPU is the CPU that members use, of what they ask for.
	AutoscaleCPU AutoscalingMetric = "CPU"
	// AutoscaleQueries is the queries a second that members answer, of what one can.
	AutoscaleQueries AutoscalingMetric = "Queries"
)

// ResolverAutoscaling has Kubernetes choose the number of members.
//
// +kubebuilder:validation:XValidation:rule="self.minReplicas <= self.maxReplicas",message="minReplicas must not be above maxReplicas",fieldPath=".minReplicas"
// +kubebuilder:validation:XValidation:rule="(self.metric == 'Queries') == has(self.queriesPerSecond)",message="queriesPerSecond is required with metric Queries, and must be left out otherwise",fieldPath=".queriesPerSecond"
type ResolverAutoscaling struct {
	// minReplicas is the least number in each datacenter, 1 to 64. Default: 2.
	//
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	MinReplicas *int32 `json:"minReplicas,omitempty"`

	// maxReplicas is the largest number in each datacenter, 1 to 64.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	MaxReplicas int32 `json:"maxReplicas,omitempty"`

	// metric is CPU (what members use of the CPU that they ask for) or Queries (how many a second they answer; needs an
	// adapter in the cluster that serves fingerpost_resolver_queries_per_second of pods). Default: CPU.
	//
	// +optional
	// +kubebuilder:default=CPU
	Metric AutoscalingMetric `json:"metric,omitempty"`

	// headroomPercent is how much of what members can do is kept free, in percent, 5 to 90. Default: 30.
	//
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=90
	HeadroomPercent *int32 `json:"headroomPercent,omitempty"`

	// queriesPerSecond is how many queries one member can answer, as measured; with metric Queries.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	QueriesPerSecond *int32 `json:"queriesPerSecond,omitempty"`
}

// InternetAccessMode says whether names outside of the hierarchy can be resolved.
//
// +kubebuilder:validation:Enum=None;Forward
type InternetAccessMode string

const (
	// InternetNone resolves names of the operator's hierarchy only.
	InternetNone InternetAccessMode = "None"
	// InternetForward asks other resolvers for the rest, or for some zones.
	InternetForward InternetAccessMode = "Forward"
)

// InternetAccess says whether names outside of the operator's hierarchy can be resolved.
//
// +kubebuilder:validation:XValidation:rule="(has(self.mode) && self.mode == 'Forward') == has(self.forward)",message="forward is required when mode is Forward, and must be left out otherwise",fieldPath=".forward"
type InternetAccess struct {
	// mode is None (only names of the operator's hierarchy are resolved, and no query leaves for anywhere else) or Forward
	// (other resolvers are asked for the rest, or for some zones). Default: None.
	//
	// +optional
	// +kubebuilder:default=None
	Mode InternetAccessMode `json:"mode,omitempty"`

	// forward are zones and the resolvers that are asked for names in them. The operator's own zones stay its own, also
	// below a zone that is forwarded.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.filter(f, f.zones.exists(z, z == '.')).size() <= 1",message="two entries are for all names (\".\"): give one, with all its upstreams"
	Forward []ForwardRule `json:"forward,omitempty"`
}

// ForwardRule sends questions about zones to other resolvers.
//
// +kubebuilder:validation:XValidation:rule="self.upstreams.all(u, has(u.tls)) || self.upstreams.all(u, !has(u.tls))",message="upstreams must all have tls, or none: else questions would leave in the clear when the others are down",fieldPath=".upstreams"
type ForwardRule struct {
	// zones are the zones, e.g. [partner.example]. Default: ["."], which is all names but the operator's own.
	//
	// +optional
	// +listType=set
	// +kubebuilder:default={"."}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Zones []DomainName `json:"zones,omitempty"`

	// upstreams are the resolvers that are asked; any of them.
	//
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Upstreams []ForwardUpstream `json:"upstreams,omitempty"`
}

// ForwardUpstream is a resolver that questions are forwarded to.
type ForwardUpstream struct {
	// address is the resolver's, e.g. 192.0.2.53.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="!isIP(self) || (!ip(self).isUnspecified() && !ip(self).isLinkLocalMulticast() && !ip(self).isLinkLocalUnicast())",message="must be an address that can be asked: not unspecified (0.0.0.0 or ::) and not link-local"
	Address IP `json:"address,omitempty"`

	// port is the resolver's. Left out: 53, or 853 with tls.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	// tls asks over TLS alone (RFC 7858). Left out: in the clear.
	//
	// +optional
	TLS *UpstreamTLS `json:"tls,omitempty"`
}

// UpstreamTLS says whose certificate an upstream has to show.
type UpstreamTLS struct {
	// serverName is the name in the upstream's certificate, e.g. dns.example.net.
	//
	// +required
	ServerName DomainName `json:"serverName,omitempty"`

	// caBundle are the certificates, in PEM, that the upstream's derives from.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	// +kubebuilder:validation:XValidation:rule="self.contains('-----BEGIN CERTIFICATE-----')",message="must be certificates in PEM, beginning with -----BEGIN CERTIFICATE-----"
	CABundle string `json:"caBundle,omitempty"`
}

// CacheTTL bounds how long answers are kept.
//
// +kubebuilder:validation:XValidation:rule="!has(self.min) || !has(self.max) || [self.min, self.max].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || duration(self.min) <= duration(self.max)",message="min must not be above max",fieldPath=".min"
type CacheTTL struct {
	// min is the least, in whole seconds, whatever the record says, e.g. 1s. It delays failovers where the answers change
	// with nobody telling. Left out: as the record says.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Min *Duration `json:"min,omitempty"`

	// max is the most, in whole seconds, e.g. 24h. Left out: as the record says, or what the program has for the most.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Max *Duration `json:"max,omitempty"`

	// negative is the most for the answer that there is no such name or record (RFC 2308), in whole seconds, e.g. 30s. Left
	// out: as the zone says.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Negative *Duration `json:"negative,omitempty"`
}

// ServeStale bounds the use of expired records.
type ServeStale struct {
	// maxAge is how long after its expiry a record may be used, in whole seconds, e.g. 24h; RFC 8767 advises one to three
	// days, and a week is the most.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="write whole seconds: 30m, 24h or 72h, without milliseconds"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s)){1,4}$') || (duration(self) > duration('0s') && duration(self) <= duration('168h'))",message="must be more than 0s and at most a week (168h)"
	MaxAge Duration `json:"maxAge,omitempty"`

	// ttl is what clients are told with such an answer, in whole seconds. Default: 30s, as RFC 8767 advises.
	//
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s or 1m, without milliseconds"
	TTL Duration `json:"ttl,omitempty"`

	// patience is for how long authoritative servers are asked before such an answer is given, at most 5s, after which
	// clients have given up. Default: 1800ms, as RFC 8767 advises.
	//
	// +optional
	// +kubebuilder:default="1800ms"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || (duration(self) > duration('0s') && duration(self) <= duration('5s'))",message="must be more than 0s and at most 5s"
	Patience Duration `json:"patience,omitempty"`
}

// QueryNameCase says how names are written in questions to authoritative servers.
//
// +kubebuilder:validation:Enum=Randomized;Plain
type QueryNameCase string

const (
	// QueryNameCaseRandomized mixes the case of letters.
	QueryNameCaseRandomized QueryNameCase = "Randomized"
	// QueryNameCasePlain writes names as clients do.
	QueryNameCasePlain QueryNameCase = "Plain"
)

// ResolverECS is for which zones authoritative servers are told the client's network.
type ResolverECS struct {
	// zones are the zones, with all below them, e.g. [pay.corp]. Names in them that a member of the engine Unbound has in
	// its cache can't be flushed: they move when their TTL is over.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Zones []DomainName `json:"zones,omitempty"`

	// ipv4PrefixLength is how many bits of an IPv4 address are told. Default: 24.
	//
	// +optional
	// +kubebuilder:default=24
	// +kubebuilder:validation:Minimum=8
	// +kubebuilder:validation:Maximum=32
	IPv4PrefixLength *int32 `json:"ipv4PrefixLength,omitempty"`

	// ipv6PrefixLength is how many bits of an IPv6 address are told. Default: 56.
	//
	// +optional
	// +kubebuilder:default=56
	// +kubebuilder:validation:Minimum=16
	// +kubebuilder:validation:Maximum=128
	IPv6PrefixLength *int32 `json:"ipv6PrefixLength,omitempty"`
}

// ResolverDNSSECMode says whether answers are validated.
//
// +kubebuilder:validation:Enum=Off;Validate
type ResolverDNSSECMode string

const (
	// DNSSECOff validates nothing.
	DNSSECOff ResolverDNSSECMode = "Off"
	// DNSSECValidate validates answers below trust anchors.
	DNSSECValidate ResolverDNSSECMode = "Validate"
)

// ResolverDNSSEC says whether answers are validated.
//
// +kubebuilder:validation:XValidation:rule="(has(self.mode) && self.mode == 'Validate') == has(self.trustAnchors)",message="trustAnchors are required when mode is Validate, and must be left out otherwise",fieldPath=".trustAnchors"
type ResolverDNSSEC struct {
	// mode is Off, or Validate (answers below trustAnchors that are not signed as they should be become SERVFAIL). Default:
	// Off.
	//
	// +optional
	// +kubebuilder:default=Off
	Mode ResolverDNSSECMode `json:"mode,omitempty"`

	// trustAnchors are DS or DNSKEY records, as in a zone file, e.g. ["corp. IN DS 12345 13 2 0123...CDEF"]. The
	// internet's is in use only if it is here.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=4096
	// +kubebuilder:validation:items:XValidation:rule="self.matches('[ \\\\t](DS|DNSKEY)[ \\\\t]')",message="must be a DS or DNSKEY record as in a zone file, such as: corp. IN DS 12345 13 2 0123ABCD"
	TrustAnchors []string `json:"trustAnchors,omitempty"`
}

// ResolverLimits bound queries a second.
//
// +kubebuilder:validation:XValidation:rule="!has(self.nat) || has(self.clientQueriesPerSecond)",message="nat gives addresses that many clients share another limit than clientQueriesPerSecond, which is left out: nobody has a limit",fieldPath=".nat"
type ResolverLimits struct {
	// clientQueriesPerSecond is how many queries a second a member takes from one address over UDP. Left out: as many as
	// come.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	ClientQueriesPerSecond *int32 `json:"clientQueriesPerSecond,omitempty"`

	// domainQueriesPerSecond is how many questions a second a member sends to the authoritative servers of one zone. Left
	// out: as many as clients need.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	DomainQueriesPerSecond *int32 `json:"domainQueriesPerSecond,omitempty"`

	// nat are networks whose addresses stand for many clients each, such as those of firewalls that translate, with limits of
	// their own.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	NAT []NATLimit `json:"nat,omitempty"`
}

// NATLimit is the limit of addresses that many clients share.
type NATLimit struct {
	// networks are the addresses, e.g. [10.1.254.0/28].
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Networks []CIDR `json:"networks,omitempty"`

	// queriesPerSecond is how many queries a second a member takes from one of the addresses. 0: as many as come.
	//
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	QueriesPerSecond *int32 `json:"queriesPerSecond,omitempty"`
}

// BlockLists are names that clients are told do not exist.
type BlockLists struct {
	// names are names that do not exist, with all below them, e.g. [ads.example].
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	Names []DomainName `json:"names,omitempty"`

	// patterns are regular expressions, looked for in names in lower case without the final dot, e.g. ['^tracker[0-9]+[.]'],
	// which do not exist: characters, classes such as [a-z0-9] and how often one comes (?, *, +, {2,4}), without | and
	// groups, and at most two of * and +.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Patterns []string `json:"patterns,omitempty"`

	// rpz are response policy zones. The first that knows a name decides.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	RPZ []ResponsePolicyZone `json:"rpz,omitempty"`
}

// ResponsePolicyZone is a zone of rules about names, from a ConfigMap or by transfer.
//
// +kubebuilder:validation:XValidation:rule="has(self.configMapKeyRef) != has(self.primaries)",message="give exactly one of configMapKeyRef (the zone's text) and primaries (servers to transfer it from)"
type ResponsePolicyZone struct {
	// name is the zone's, e.g. rpz.example.
	//
	// +required
	Name DomainName `json:"name,omitempty"`

	// configMapKeyRef is where the zone's text is, as an RFC 1035 master file, in the namespace of the pool. A text that
	// changes is in use without a restart. All that members are told has 900 KiB at most.
	//
	// +optional
	ConfigMapKeyRef *ConfigMapKeyRef `json:"configMapKeyRef,omitempty"`

	// primaries are servers that the zone is transferred from.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	Primaries []ServerEndpoint `json:"primaries,omitempty"`
}

// ServerEndpoint is an address with a port.
type ServerEndpoint struct {
	// address is the server's, e.g. 192.0.2.10.
	//
	// +required
	Address IP `json:"address,omitempty"`

	// port is the server's. Default: 53.
	//
	// +optional
	// +kubebuilder:default=53
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`
}

// QueryLog says who is told of clients' queries.
type QueryLog struct {
	// dnstap tells queries and answers in the format of dnstap.
	//
	// +required
	Dnstap ResolverDnstap `json:"dnstap,omitzero"`
}

// ResolverDnstap is where queries and answers are told to.
type ResolverDnstap struct {
	// socket is the path of a unix socket whose reader is there before the member starts, e.g. /run/dnstap/collector.sock.
	// Of a Managed pool it is a socket of the node, and the namespace must allow pods to mount its folder.
	//
	// +required
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=100
	// +kubebuilder:validation:XValidation:rule="self.matches('^(/[A-Za-z0-9_@:+-][A-Za-z0-9._@:+-]*){2,}$')",message="must be the absolute path of a socket in a folder, such as /run/dnstap/collector.sock: letters, digits and ._@:+-"
	Socket string `json:"socket,omitempty"`
}

// ResolverTransports say how clients may ask besides UDP and TCP on port 53.
//
// +kubebuilder:validation:XValidation:rule="has(self.certificateSecretRef) || ((!has(self.dot) || self.dot.access != 'Open') && (!has(self.doh) || self.doh.access != 'Open'))",message="dot and doh need a certificate: give certificateSecretRef",fieldPath=".certificateSecretRef"
// +kubebuilder:validation:XValidation:rule="!has(self.certificateSecretRef) || self.dot.access == 'Open' || self.doh.access == 'Open'",message="certificateSecretRef is for dot and doh, and neither is Open",fieldPath=".certificateSecretRef"
// +kubebuilder:validation:XValidation:rule="!has(self.dot) || !has(self.doh) || self.dot.access != 'Open' || self.doh.access != 'Open' || self.dot.port != self.doh.port",message="dot and doh can't share a port",fieldPath=".doh.port"
type ResolverTransports struct {
	// dot is DNS over TLS (RFC 7858). Default: Closed.
	//
	// +optional
	// +kubebuilder:default={}
	DoT DoTTransport `json:"dot,omitzero"`

	// doh is DNS over HTTPS (RFC 8484), at /dns-query. Default: Closed.
	//
	// +optional
	// +kubebuilder:default={}
	DoH DoHTransport `json:"doh,omitzero"`

	// certificateSecretRef names the Secret with the certificate that clients are shown, in the namespace of the pool, as
	// of type kubernetes.io/tls: tls.crt and tls.key. The operator reads it by name, and may do so only where a RoleBinding
	// in the namespace gives its ServiceAccount the ClusterRole fingerpost-probe-secrets, or a Role for this Secret alone.
	// A renewed one is in use within minutes.
	//
	// +optional
	CertificateSecretRef *SecretRef `json:"certificateSecretRef,omitempty"`
}

// ResolverProxyProtocol is where a load balancer asks that says whose queries it brings.
type ResolverProxyProtocol struct {
	// port is where members listen for it, over UDP and TCP. Not 53. Default: 5300.
	//
	// +optional
	// +kubebuilder:default=5300
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self != 53",message="port 53 is that of clients that ask for themselves"
	Port int32 `json:"port,omitempty"`

	// from are the load balancers that are believed, e.g. [10.1.0.5/32].
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	From []CIDR `json:"from,omitempty"`
}

// ResolverExposureType says how clients reach the members of a pool.
//
// +kubebuilder:validation:Enum=LoadBalancer;ClusterIP;NodePort;ExternalIPs
type ResolverExposureType string

const (
	// ResolverLoadBalancer is a Service of type LoadBalancer.
	ResolverLoadBalancer ResolverExposureType = "LoadBalancer"
	// ResolverClusterIP is a Service for clients in the cluster only.
	ResolverClusterIP ResolverExposureType = "ClusterIP"
	// ResolverNodePort is a Service of type NodePort.
	ResolverNodePort ResolverExposureType = "NodePort"
	// ResolverExternalIPs is a Service with externalIPs.
	ResolverExternalIPs ResolverExposureType = "ExternalIPs"
)

// ServiceTrafficPolicy says which members a node hands queries to.
//
// +kubebuilder:validation:Enum=Local;Cluster
type ServiceTrafficPolicy string

const (
	// TrafficLocal hands queries to members of the same node only, and keeps the client's address.
	TrafficLocal ServiceTrafficPolicy = "Local"
	// TrafficCluster hands queries to all members, and may replace the client's address by that of a node.
	TrafficCluster ServiceTrafficPolicy = "Cluster"
)

// TrafficDistribution says which members are preferred, as in Services.
//
// +kubebuilder:validation:Enum=PreferSameZone;PreferSameNode
type TrafficDistribution string

// ResolverExposure says how clients reach the members of a Managed pool: one Service in each datacenter, over all programs.
//
// +kubebuilder:validation:XValidation:rule="self.type != 'ExternalIPs' || has(self.datacenters)",message="ExternalIPs needs the addresses of each datacenter at which clients ask",fieldPath=".datacenters"
// +kubebuilder:validation:XValidation:rule="self.type == 'LoadBalancer' || !has(self.loadBalancerClass)",message="loadBalancerClass is for type LoadBalancer",fieldPath=".loadBalancerClass"
// +kubebuilder:validation:XValidation:rule="self.type == 'NodePort' || !has(self.nodePort)",message="nodePort is for type NodePort",fieldPath=".nodePort"
// +kubebuilder:validation:XValidation:rule="self.type != 'ClusterIP' || !has(self.externalTrafficPolicy) || self.externalTrafficPolicy == 'Local'",message="nothing comes from outside to a Service of type ClusterIP: leave externalTrafficPolicy out",fieldPath=".externalTrafficPolicy"
type ResolverExposure struct {
	// type is LoadBalancer (the cluster's provider gives the Service its addresses), ClusterIP (for clients in the
	// cluster), NodePort (something in front of the nodes forwards port 53 of addresses to the Service's node port) or
	// ExternalIPs (the network brings addresses to the nodes; deprecated in Kubernetes, for tests). Default: LoadBalancer.
	//
	// +optional
	// +kubebuilder:default=LoadBalancer
	Type ResolverExposureType `json:"type,omitempty"`

	// datacenters have the addresses that clients ask. ExternalIPs needs them. With LoadBalancer the provider is asked for
	// them, by spec.loadBalancerIP if it is one, else as its annotations say; with ClusterIP they become the Service's
	// own, which are chosen when it is made; with NodePort they are shown in status.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Datacenters []DatacenterAddresses `json:"datacenters,omitempty"`

	// loadBalancerClass says which of several providers makes the load balancer, e.g. example.com/internal. Left out:
	// the cluster's default one.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	LoadBalancerClass string `json:"loadBalancerClass,omitempty"`

	// annotations are put on the Services, for their provider.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Annotations map[string]string `json:"annotations,omitempty"`

	// nodePort is the node port of DNS over UDP and TCP, 1 to 65535 as the cluster allows (30000 to 32767 by default).
	// Left out: Kubernetes chooses, one for UDP and another for TCP.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	NodePort *int32 `json:"nodePort,omitempty"`

	// externalTrafficPolicy is Local (only nodes with a member take queries from outside, and members see the clients' own
	// addresses, which clientNetworks, limits and near answers are about) or Cluster (every node does, and members see
	// nodes). Default: Local.
	//
	// +optional
	// +kubebuilder:default=Local
	ExternalTrafficPolicy ServiceTrafficPolicy `json:"externalTrafficPolicy,omitempty"`

	// internalTrafficPolicy is Cluster (pods of the cluster reach every member) or Local (those of their own node only).
	// Default: Cluster.
	//
	// +optional
	// +kubebuilder:default=Cluster
	InternalTrafficPolicy ServiceTrafficPolicy `json:"internalTrafficPolicy,omitempty"`

	// trafficDistribution is PreferSameZone or PreferSameNode (members of the client's zone or node are preferred where
	// there are some; Kubernetes 1.35 has both). Left out: none is preferred.
	//
	// +optional
	TrafficDistribution TrafficDistribution `json:"trafficDistribution,omitempty"`
}

// DatacenterAddresses are addresses in one datacenter.
type DatacenterAddresses struct {
	// name is the Datacenter's.
	//
	// +required
	Name DatacenterName `json:"name,omitempty"`

	// addresses are where clients ask, on port 53, e.g. [10.1.0.53].
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:XValidation:rule="!isIP(self) || (!ip(self).isUnspecified() && !ip(self).isLoopback() && !ip(self).isLinkLocalMulticast() && !ip(self).isLinkLocalUnicast())",message="must be an address that clients can reach: not unspecified (0.0.0.0 or ::), loopback or link-local"
	Addresses []IP `json:"addresses,omitempty"`
}

// ResolverDisruption bounds how many members may be away at once.
type ResolverDisruption struct {
	// maxUnavailable is how many members of the pool may be away at once in each datacenter, of all programs together, 1 to
	// 64. Default: 1.
	//
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	MaxUnavailable *int32 `json:"maxUnavailable,omitempty"`
}

// ResolverPoolStatus is how a resolver pool is doing.
type ResolverPoolStatus struct {
	// conditions are Accepted, Programmed (every member that can be reached has the newest configuration in force),
	// RecursionWorks (members get from the root to the leaves), Degraded, Flushable, ClientAddressesKept, WorkloadsReady where
	// the operator runs the members, and Ready: accepted, programmed, and answering in every datacenter.
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

	// engines are the resolver programs in use, e.g. KnotResolver,Unbound.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Engines string `json:"engines,omitempty"`

	// readyMembers says how many members answer, of how many there are to be, e.g. 4/4.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	ReadyMembers string `json:"readyMembers,omitempty"`

	// datacenters are the datacenters with members, e.g. dc-a,dc-b.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Datacenters string `json:"datacenters,omitempty"`

	// vip are the addresses that clients ask, e.g. 10.1.0.53,10.2.0.53.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	VIP string `json:"vip,omitempty"`

	// sourceAddresses are the addresses from which members ask authoritative servers, which exempt them from limits. Those of
	// members that are not connected stay while some are missing, for an hour. Of each member one of IPv4 and one of IPv6 counts.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1024
	SourceAddresses []IP `json:"sourceAddresses,omitempty"`

	// members say how each program is doing in each datacenter.
	//
	// +optional
	// +listType=map
	// +listMapKey=datacenter
	// +listMapKey=engine
	// +kubebuilder:validation:MaxItems=192
	Members []ResolverMemberStatus `json:"members,omitempty"`
}

// ResolverMemberStatus is how one resolver program is doing in one datacenter.
type ResolverMemberStatus struct {
	// datacenter is the Datacenter's name.
	//
	// +required
	Datacenter DatacenterName `json:"datacenter,omitempty"`

	// engine is Unbound, KnotResolver or Recursor.
	//
	// +required
	Engine ResolverEngine `json:"engine,omitempty"`

	// desired is how many there are to be.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Desired *int32 `json:"desired,omitempty"`

	// ready is how many answer.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Ready *int32 `json:"ready,omitempty"`

	// unsupported is what of the spec the program can't do, each with what it does instead.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=256
	Unsupported []string `json:"unsupported,omitempty"`

	// message says what is wrong, e.g. what the program complains about in its configuration, with the line.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}
