package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Datacenter says once what a datacenter is: which clients are near it, and which authoritative DNS servers run in it, in
// groups. Its name becomes part of the names of name servers (ns-NAME.ZONE): a DNS label of at most 60 characters.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=dc,categories=dns
// +kubebuilder:selectablefield:JSONPath=`.spec.region`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Accepted and programmed"
// +kubebuilder:printcolumn:name="Servers",type=string,JSONPath=`.status.serversReady`,description="Servers connected, of those declared"
// +kubebuilder:printcolumn:name="Synced",type=string,JSONPath=`.status.synced`,description="Servers that serve the published version of all their zones, of those connected"
// +kubebuilder:printcolumn:name="Vantage",type=string,JSONPath=`.status.vantage`,description="How the datacenter sees the others"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 60 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="a Datacenter's name must be a DNS label of at most 60 characters (lower case letters, digits and -, no dots): its name servers are called ns-NAME"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.prefer) || !(self.metadata.name in self.spec.prefer)",message="prefer lists the next nearest datacenters: it must not have the datacenter itself",fieldPath=".spec.prefer"
type Datacenter struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata. Its name is the datacenter's: a DNS label of at most 60 characters.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the datacenter as declared.
	//
	// +required
	Spec DatacenterSpec `json:"spec,omitzero"`

	// status is who is connected and current. Users do not write it.
	//
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "No controller has looked at this object yet", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "Pending", message: "No controller has looked at this object yet", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status DatacenterStatus `json:"status,omitzero"`
}

// DatacenterList is a list of Datacenters.
//
// +kubebuilder:object:root=true
type DatacenterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Datacenter `json:"items"`
}

// DatacenterRole says what the servers of a datacenter do.
//
// +kubebuilder:validation:Enum=Full;Witness
type DatacenterRole string

const (
	// DatacenterRoleFull is a datacenter whose servers answer clients and vote.
	DatacenterRoleFull DatacenterRole = "Full"
	// DatacenterRoleWitness is a third place whose servers vote on the health of others and answer nobody.
	DatacenterRoleWitness DatacenterRole = "Witness"
)

// ServerGroupManagement says who starts the servers of a group.
//
// +kubebuilder:validation:Enum=Managed;External
type ServerGroupManagement string

const (
	// ServerGroupManaged is a group whose servers the operator runs.
	ServerGroupManaged ServerGroupManagement = "Managed"
	// ServerGroupExternal is a group whose servers somebody else starts.
	ServerGroupExternal ServerGroupManagement = "External"
)

// DatacenterSpec is a datacenter as declared.
//
// +kubebuilder:validation:XValidation:rule="self.role != 'Witness' || !has(self.networks) || self.networks.size() == 0",message="a Witness answers no clients: it can't have networks",fieldPath=".networks"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.serverGroups) || !oldSelf.serverGroups.exists(g, g.management == 'Managed') || (has(self.cluster) == has(oldSelf.cluster) && (!has(self.cluster) || (self.cluster.__namespace__ == oldSelf.cluster.__namespace__ && has(self.cluster.kubeconfigSecretRef) == has(oldSelf.cluster.kubeconfigSecretRef))))",message="servers do not move: make another Datacenter where they are to run, wait until it is ready, and delete this one",fieldPath=".cluster"
type DatacenterSpec struct {
	// region is where the datacenter is, for people and for selection, e.g. north. It does not affect answers.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region,omitempty"`

	// role is Full (answers clients, probes and votes) or Witness (probes and votes only: a third place that helps two
	// datacenters to tell a dead one from a cut link). Default: Full.
	//
	// +optional
	// +kubebuilder:default=Full
	Role DatacenterRole `json:"role,omitempty"`

	// networks are the clients and resolvers that are near this datacenter, e.g. [10.1.0.0/16, "2001:db8:a::/48"].
	// Where networks of several datacenters hold an address, the longest prefix wins.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	Networks []CIDR `json:"networks,omitempty"`

	// prefer are the next nearest datacenters for clients of this one, the nearest first, e.g. [dc-b, dc-c]. The
	// others follow by rank, then by name.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a == b))",message="prefer must not have a datacenter twice"
	Prefer []DatacenterName `json:"prefer,omitempty"`

	// rank orders datacenters for clients that are in nobody's networks: lowest first, equal at every server. It also
	// orders the zones' name servers. Datacenters without a rank come after all that have one; equal ranks are ordered
	// by name.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Rank *int32 `json:"rank,omitempty"`

	// anchors are addresses outside of the datacenter's own failure domain, such as routers of two other places, e.g.
	// [10.9.0.1, 10.9.1.1]. If none of them answers, the datacenter knows that it is cut off, and does not judge
	// others. Two or more: one alone can't tell its own death from the cut.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.size() != 1",message="give two anchors or more, or none: with one alone its own death looks like a datacenter that is cut off"
	Anchors []IP `json:"anchors,omitempty"`

	// probes limits what probes from this datacenter may reach.
	//
	// +optional
	Probes DatacenterProbes `json:"probes,omitzero"`

	// cluster is where the servers of Managed groups run. Left out: in the operator's own cluster and namespace. Once
	// there is a Managed group, it changes no more but for the name of the Secret.
	//
	// +optional
	Cluster *DatacenterCluster `json:"cluster,omitempty"`

	// nodeSelector has the labels of the datacenter's nodes where several datacenters are in one cluster, e.g.
	// {topology.kubernetes.io/zone: dc-a}. Servers of Managed groups and members of Managed ResolverPools run on nodes
	// that have all of them; a change restarts both, one after another. Left out: every node.
	//
	// +optional
	NodeSelector NodeSelector `json:"nodeSelector,omitempty"`

	// serverGroups are the groups of authoritative servers in this datacenter. Zones choose a group by name. Root,
	// static and dynamic zones are best kept in groups of their own, of at least two servers each.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	ServerGroups []ServerGroup `json:"serverGroups,omitempty"`
}

// DatacenterCluster is the namespace of a cluster in which servers run.
type DatacenterCluster struct {
	// kubeconfigSecretRef is the Secret with the kubeconfig of the cluster, in the operator's namespace. A Secret that
	// changes is in use within a minute, without a restart. Left out: the operator's own cluster.
	//
	// +optional
	KubeconfigSecretRef *KubeconfigSecretReference `json:"kubeconfigSecretRef,omitempty"`

	// namespace is where the servers run, e.g. fingerpost. It is made if it is not there and the operator may make it;
	// for groups on the network of their nodes it must allow privileged pods. In the operator's own cluster the operator
	// needs the rights of config/rbac/remote there.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="must be the name of a namespace: lower case letters, digits and -, beginning and ending with a letter or digit"
	Namespace string `json:"namespace,omitempty"`
}

// KubeconfigSecretReference is one key of a Secret in the operator's namespace.
type KubeconfigSecretReference struct {
	// name is the Secret's.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// key is that of the kubeconfig in the Secret. The kubeconfig must have in itself all that it needs, a token or a
	// client certificate with its key, and the CA: it can neither start programs (exec) nor name files. Its current
	// context is used. Default: kubeconfig.
	//
	// +optional
	// +kubebuilder:default=kubeconfig
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key,omitempty"`
}

// DatacenterProbes limits what probes from a datacenter may reach.
type DatacenterProbes struct {
	// deniedNetworks are networks that probes from this datacenter must not reach, e.g. [169.254.0.0/16], nor lookups by
	// the flatten.resolvers of DynamicRecords. They replace the default list: loopback, link-local, the API server and the
	// servers' own addresses. An empty list denies nothing.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	DeniedNetworks *[]CIDR `json:"deniedNetworks,omitempty"`
}

// ServerGroup is a group of authoritative servers in one datacenter that serve the same zones.
//
// +kubebuilder:validation:XValidation:rule="self.management == 'External' || !has(self.addresses)",message="addresses are for External groups: the operator finds those of a Managed group by itself",fieldPath=".addresses"
// +kubebuilder:validation:XValidation:rule="self.management != 'External' || has(self.addresses)",message="an External group needs the addresses of its servers: they go into NS glue",fieldPath=".addresses"
// +kubebuilder:validation:XValidation:rule="self.management == 'Managed' || !has(self.replicas)",message="replicas are for Managed groups: an External group has the servers that somebody starts for it",fieldPath=".replicas"
// +kubebuilder:validation:XValidation:rule="self.management == 'Managed' || (!has(self.image) && !has(self.exposure) && !has(self.storage) && !has(self.pods))",message="image, exposure, storage and pods are for Managed groups: an External group has the servers that somebody starts for it"
// +kubebuilder:validation:XValidation:rule="oldSelf.management != 'Managed' || self.management != 'Managed' || (has(self.storage) == has(oldSelf.storage) && (!has(self.storage) || self.storage == oldSelf.storage))",message="the volumes of running servers can't change: make another group, move the zones to it, and remove this one",fieldPath=".storage"
// +kubebuilder:validation:XValidation:rule="self.management != 'Managed' || !has(self.transports) || ((self.transports.dot.access != 'Open' || !(self.transports.dot.port in [5353, 8053, 8054])) && (self.transports.doh.access != 'Open' || !(self.transports.doh.port in [5353, 8053, 8054])) && (self.transports.httpdns.access != 'Open' || !(self.transports.httpdns.port in [5353, 8053, 8054])))",message="servers that the operator runs need ports 5353, 8053 and 8054 for themselves",fieldPath=".transports"
type ServerGroup struct {
	// name is what zones write in serverGroup, e.g. root or authoritative: a DNS label.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="must be a DNS label: lower case letters, digits and -, beginning and ending with a letter or digit"
	Name string `json:"name,omitempty"`

	// management is Managed (the operator runs the servers) or External (somebody else starts them, with a certificate
	// for this datacenter and group).
	//
	// +required
	Management ServerGroupManagement `json:"management,omitempty"`

	// replicas is the number of servers of a Managed group, 1 to 64. Two or more are needed to survive the loss of
	// one. Left out: 2.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	Replicas *int32 `json:"replicas,omitempty"`

	// image is that of the servers of a Managed group, e.g. registry.example.net/fingerpost/dnsserver:v0.2.0. Left out:
	// what the operator was told by --dnsserver-image.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^ \\\\t\\\\n]+$')",message="must be the name of an image, without spaces"
	Image string `json:"image,omitempty"`

	// exposure says how clients reach the servers of a Managed group. Left out: by a Service of type LoadBalancer.
	//
	// +optional
	Exposure *ServerExposure `json:"exposure,omitempty"`

	// storage is the volume on which each server of a Managed group keeps a copy of its zones. Left out: 1Gi of the
	// default StorageClass where there is one when the group is made, else a folder that lives as long as the server's
	// pod; a server that has lost its copy gets it from another one of the group, or from the operator.
	//
	// +optional
	Storage *ServerStorage `json:"storage,omitempty"`

	// pods are how and where Kubernetes runs the servers of a Managed group.
	//
	// +optional
	Pods *ServerPods `json:"pods,omitempty"`

	// addresses are where the servers of an External group answer DNS, on port 53, e.g. [192.0.2.1, 192.0.2.2]. They
	// go into the zones' name server records and into the delegations to them.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:XValidation:rule="!isIP(self) || (!ip(self).isUnspecified() && !ip(self).isLinkLocalMulticast() && !ip(self).isLinkLocalUnicast())",message="must be an address that resolvers can reach: not unspecified (0.0.0.0 or ::) and not link-local"
	Addresses []IP `json:"addresses,omitempty"`

	// allowedZones says which namespaces' zones may use the group here. Left out: those of every namespace.
	//
	// +optional
	AllowedZones *AllowedZones `json:"allowedZones,omitempty"`

	// maxUDPSize is how many octets an answer over UDP has at most, 512 to 4096. More than 1232 may not come through
	// where packets are tunnelled or fragments dropped; where TCP is closed, it is what every answer has to fit into.
	// Default: 1232.
	//
	// +optional
	// +kubebuilder:default=1232
	// +kubebuilder:validation:Minimum=512
	// +kubebuilder:validation:Maximum=4096
	MaxUDPSize *int32 `json:"maxUDPSize,omitempty"`

	// nsid is Enabled (servers tell their name to who asks for it by the EDNS option NSID, RFC 5001) or Disabled.
	// Default: Disabled.
	//
	// +optional
	// +kubebuilder:default=Disabled
	NSID Switch `json:"nsid,omitempty"`

	// resolvers are the networks of the company's own resolvers, e.g. [10.1.0.53/32, 10.1.1.53/32]. Limits do not apply
	// to them; when servers have more to do than they can, resolvers share fairly what they can do. Members of ResolverPools
	// are among them by the addresses from which they ask.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	Resolvers []CIDR `json:"resolvers,omitempty"`

	// limits bound what clients may ask over UDP, so that servers can't be used to flood others.
	//
	// +optional
	// +kubebuilder:default={}
	Limits ServerLimits `json:"limits,omitzero"`

	// transports say how clients may ask besides UDP.
	//
	// +optional
	// +kubebuilder:default={}
	Transports ServerTransports `json:"transports,omitzero"`
}

// ExposureType says how clients reach servers.
//
// +kubebuilder:validation:Enum=LoadBalancer;NodePort;ExternalIPs;HostNetwork
type ExposureType string

const (
	// ExposureLoadBalancer is a Service of type LoadBalancer: the cluster's provider gives it addresses.
	ExposureLoadBalancer ExposureType = "LoadBalancer"
	// ExposureNodePort is a Service of type NodePort: something in front forwards port 53 of addresses to the nodes.
	ExposureNodePort ExposureType = "NodePort"
	// ExposureExternalIPs is a Service with externalIPs, which the network brings to the nodes.
	ExposureExternalIPs ExposureType = "ExternalIPs"
	// ExposureHostNetwork is servers on port 53 of their nodes.
	ExposureHostNetwork ExposureType = "HostNetwork"
)

// ServerExposure says how clients reach the servers of a Managed group. Servers see the clients' own addresses: Services
// have externalTrafficPolicy Local, so that only nodes with a server take queries.
//
// +kubebuilder:validation:XValidation:rule="!(self.type in ['NodePort', 'ExternalIPs']) || has(self.addresses)",message="NodePort and ExternalIPs need the addresses at which clients ask on port 53: they go into NS glue",fieldPath=".addresses"
// +kubebuilder:validation:XValidation:rule="self.type != 'HostNetwork' || !has(self.addresses)",message="with HostNetwork the addresses are those of the nodes that run servers",fieldPath=".addresses"
// +kubebuilder:validation:XValidation:rule="self.type != 'HostNetwork' || !has(self.annotations)",message="annotations are for the Service, and HostNetwork has none: those of the pods are in pods.annotations",fieldPath=".annotations"
// +kubebuilder:validation:XValidation:rule="self.type == 'LoadBalancer' || !has(self.loadBalancerClass)",message="loadBalancerClass is for type LoadBalancer",fieldPath=".loadBalancerClass"
// +kubebuilder:validation:XValidation:rule="self.type == 'NodePort' || !has(self.nodePort)",message="nodePort is for type NodePort",fieldPath=".nodePort"
type ServerExposure struct {
	// type is LoadBalancer (the cluster's provider gives the Service its addresses), NodePort (something in front of the
	// nodes forwards port 53 of addresses to the Service's node port, and keeps the clients' addresses), ExternalIPs
	// (the network brings addresses to the nodes; deprecated in Kubernetes, for tests) or HostNetwork (servers
	// answer on port 53 of their nodes, one on each node; the namespace must allow privileged pods). Default:
	// LoadBalancer.
	//
	// +optional
	// +kubebuilder:default=LoadBalancer
	Type ExposureType `json:"type,omitempty"`

	// addresses are where clients ask, on port 53, e.g. [192.0.2.53, "2001:db8::53"]: NS glue has these and no
	// others. NodePort and ExternalIPs need them. With LoadBalancer the provider is asked for them, by
	// spec.loadBalancerIP if it is one, else as its annotations say; left out: whatever the provider gives.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:XValidation:rule="!isIP(self) || (!ip(self).isUnspecified() && !ip(self).isLoopback() && !ip(self).isLinkLocalMulticast() && !ip(self).isLinkLocalUnicast())",message="must be an address that resolvers can reach: not unspecified (0.0.0.0 or ::), loopback or link-local"
	Addresses []IP `json:"addresses,omitempty"`

	// loadBalancerClass says which of several providers makes the load balancer, e.g. example.com/internal. Left out:
	// the cluster's default one. Where it changes, another Service is made beside the first, which stays until resolvers have
	// forgotten its addresses.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	LoadBalancerClass string `json:"loadBalancerClass,omitempty"`

	// nodePort is the node port of DNS over UDP and TCP, 1 to 65535 as the cluster allows (30000 to 32767 by default).
	// Left out: Kubernetes chooses, one for UDP and another for TCP.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	NodePort *int32 `json:"nodePort,omitempty"`

	// annotations are put on the Service, for its provider, e.g.
	// {metallb.io/loadBalancerIPs: "192.0.2.53"}.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ServerStorage is a volume for each server. It goes when the server goes: it has nothing that is not elsewhere.
type ServerStorage struct {
	// size is how large the volume is, e.g. 2Gi. A zone takes about twice the octets of its zone file. Default: 1Gi.
	//
	// +optional
	// +kubebuilder:default="1Gi"
	Size resource.Quantity `json:"size,omitzero"`

	// storageClassName is the StorageClass of the volume. Left out: the cluster's default one.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	StorageClassName string `json:"storageClassName,omitempty"`
}

// NodeSelector is labels of nodes, all of which a node must have.
//
// +kubebuilder:validation:MaxProperties=32
// +kubebuilder:validation:XValidation:rule="self.all(key, !format.qualifiedName().validate(key).hasValue())",message="keys must be labels of nodes, such as topology.kubernetes.io/zone"
type NodeSelector map[string]LabelValue

// LabelValue is the value of a label. It may be empty.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="!format.labelValue().validate(self).hasValue()",message="must be the value of a label: letters, digits, -, _ and ., beginning and ending with a letter or digit"
type LabelValue string

// ServerPods are how and where Kubernetes runs servers. A change restarts servers, one at a time.
type ServerPods struct {
	// resources are what a server asks for and what it may use at most. Left out: it asks for 100m of a CPU and 128Mi of
	// memory, and has no limits.
	//
	// +optional
	Resources *ServerResources `json:"resources,omitempty"`

	// nodeSelector has labels of the nodes that may run servers, e.g. {disktype: ssd}, beside those of
	// spec.nodeSelector; where both have a label, this value counts. Left out: every node of the datacenter.
	//
	// +optional
	NodeSelector NodeSelector `json:"nodeSelector,omitempty"`

	// tolerations are taints of nodes that servers put up with.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Tolerations []ServerToleration `json:"tolerations,omitempty"` //nolint:kubeapilinter // as in pods: each of its fields may be left out

	// priorityClassName is the PriorityClass of the pods, e.g. system-cluster-critical. Left out: the cluster's default.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// imagePullSecrets are the names of Secrets with which the image is pulled, in the namespace where servers run.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	ImagePullSecrets []string `json:"imagePullSecrets,omitempty"`

	// labels are put on the pods, beside those of the operator, which can't be changed.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Labels map[string]string `json:"labels,omitempty"`

	// annotations are put on the pods.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ServerResources are what a server asks for, and what it may use.
type ServerResources struct {
	// requests are what a node must have free for a server, by resource, e.g. {cpu: 500m, memory: 512Mi}.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=8
	Requests map[string]resource.Quantity `json:"requests,omitempty"` //nolint:kubeapilinter // as in pods

	// limits are what a server may use at most, by resource, e.g. {memory: 1Gi}. A limit of cpu makes answers wait.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=8
	Limits map[string]resource.Quantity `json:"limits,omitempty"` //nolint:kubeapilinter // as in pods
}

// TolerationOperator says how a toleration's value is compared with that of a taint.
//
// +kubebuilder:validation:Enum=Exists;Equal
type TolerationOperator string

// TaintEffect is what a taint does to pods that do not tolerate it.
//
// +kubebuilder:validation:Enum=NoSchedule;PreferNoSchedule;NoExecute
type TaintEffect string

// ServerToleration is a toleration as in pods.
//
// +kubebuilder:validation:XValidation:rule="has(self.key) || self.operator == 'Exists'",message="a toleration without a key tolerates all taints: that needs operator Exists",fieldPath=".operator"
// +kubebuilder:validation:XValidation:rule="self.operator == 'Equal' || !has(self.value)",message="operator Exists compares no value",fieldPath=".value"
// +kubebuilder:validation:XValidation:rule="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",message="tolerationSeconds goes with effect NoExecute",fieldPath=".tolerationSeconds"
type ServerToleration struct {
	// key is that of the taint. Left out: all taints, with operator Exists.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	Key string `json:"key,omitempty"`

	// operator is Exists (whatever the taint's value) or Equal. Default: Equal.
	//
	// +optional
	// +kubebuilder:default=Equal
	Operator TolerationOperator `json:"operator,omitempty"`

	// value is that of the taint, for operator Equal.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Value string `json:"value,omitempty"`

	// effect is that of the taint: NoSchedule, PreferNoSchedule or NoExecute. Left out: every effect.
	//
	// +optional
	Effect TaintEffect `json:"effect,omitempty"`

	// tolerationSeconds is for how many seconds a taint of effect NoExecute is tolerated. Left out: for ever.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=31536000
	TolerationSeconds *int64 `json:"tolerationSeconds,omitempty"`
}

// Switch says whether something is in use.
//
// +kubebuilder:validation:Enum=Enabled;Disabled
type Switch string

const (
	// SwitchEnabled is in use.
	SwitchEnabled Switch = "Enabled"
	// SwitchDisabled is not in use.
	SwitchDisabled Switch = "Disabled"
)

// LimitsMode says what happens to what is over a limit.
//
// +kubebuilder:validation:Enum=Enforce;Log;Off
type LimitsMode string

const (
	// LimitsEnforce drops or cuts answers that are over a limit.
	LimitsEnforce LimitsMode = "Enforce"
	// LimitsLog counts and logs what is over a limit, and answers it.
	LimitsLog LimitsMode = "Log"
	// LimitsOff has no limits.
	LimitsOff LimitsMode = "Off"
)

// ServerLimits bound what one client, or one network of clients, may ask of each server over UDP. Who asks over TCP or
// shows a valid DNS cookie has proved its address: answers to it are not limited.
type ServerLimits struct {
	// mode is Enforce (what is over a limit is dropped, or answered truncated), Log (it is counted, logged and
	// answered) or Off. Left out: Enforce if one of the group's addresses is public, else Log: inside a company nearly
	// all queries come from a few resolvers. status.serverGroups shows what is in force.
	//
	// +optional
	Mode LimitsMode `json:"mode,omitempty"`

	// responsesPerSecond is how many equal answers a second one client gets (response rate limiting). 0: as many as it
	// asks for. Default: 200.
	//
	// +optional
	// +kubebuilder:default=200
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	ResponsesPerSecond *int32 `json:"responsesPerSecond,omitempty"`

	// slip is which of the answers over responsesPerSecond are sent truncated instead of dropped, so that a real client
	// can come again over TCP: with 2 every second one, with 1 all, with 0 none. Without TCP none is. Default: 2.
	//
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	Slip *int32 `json:"slip,omitempty"`

	// queriesPerSecond is how many queries a second one client may send, whatever it asks. 0: as many as it likes.
	// Default: 0.
	//
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100000
	QueriesPerSecond *int32 `json:"queriesPerSecond,omitempty"`

	// ipv4PrefixLength is how many leading bits of an IPv4 address make a client: 32 counts each address by itself, 24
	// all of a /24 together. Default: 32.
	//
	// +optional
	// +kubebuilder:default=32
	// +kubebuilder:validation:Minimum=8
	// +kubebuilder:validation:Maximum=32
	IPv4PrefixLength *int32 `json:"ipv4PrefixLength,omitempty"`

	// ipv6PrefixLength is how many leading bits of an IPv6 address make a client: 128 counts each address by itself, 56
	// all of a /56 together, which is what a customer of a public provider has. Default: 128.
	//
	// +optional
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=16
	// +kubebuilder:validation:Maximum=128
	IPv6PrefixLength *int32 `json:"ipv6PrefixLength,omitempty"`

	// exempt are networks of clients without limits, beside resolvers, e.g. [10.0.0.0/8].
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	Exempt []CIDR `json:"exempt,omitempty"`
}

// TransportAccess says whether clients may use a transport.
//
// +kubebuilder:validation:Enum=Open;Closed
type TransportAccess string

const (
	// TransportOpen is a transport that clients may use.
	TransportOpen TransportAccess = "Open"
	// TransportClosed is a transport that nobody listens on.
	TransportClosed TransportAccess = "Closed"
)

// ServerTransports say how clients may ask besides UDP on port 53. Servers listen on every address on which they answer
// over UDP.
//
// +kubebuilder:validation:XValidation:rule="!has(self.dot) || !has(self.doh) || self.dot.access != 'Open' || self.doh.access != 'Open' || self.dot.port != self.doh.port",message="dot and doh can't share a port",fieldPath=".doh.port"
// +kubebuilder:validation:XValidation:rule="!has(self.dot) || !has(self.doh) || self.dot.access != 'Open' || self.httpdns.access != 'Open' || self.dot.port != self.httpdns.port",message="dot and httpdns can't share a port",fieldPath=".httpdns.port"
type ServerTransports struct {
	// tcp is Open or Closed: TCP on port 53. Without it no answer is truncated, since who got one could not ask again;
	// what does not fit into maxUDPSize is a condition of its zone. Default: Open, as RFC 7766 wants it.
	//
	// +optional
	// +kubebuilder:default=Open
	TCP TransportAccess `json:"tcp,omitempty"`

	// dot is DNS over TLS (RFC 7858). Default: Closed.
	//
	// +optional
	// +kubebuilder:default={}
	DoT DoTTransport `json:"dot,omitzero"`

	// doh is DNS over HTTPS (RFC 8484). Default: Closed.
	//
	// +optional
	// +kubebuilder:default={}
	DoH DoHTransport `json:"doh,omitzero"`

	// httpdns is HTTPDNS: GET /resolve?name=&type=&client= answers with JSON, for programs that go round their local
	// resolver. It is HTTPS on the port of doh, if that is open, and clear text on any other. Default: Closed.
	//
	// +optional
	// +kubebuilder:default={}
	HTTPDNS HTTPDNSTransport `json:"httpdns,omitzero"`
}

// DoTTransport is DNS over TLS.
type DoTTransport struct {
	// access is Open or Closed. Default: Closed.
	//
	// +optional
	// +kubebuilder:default=Closed
	Access TransportAccess `json:"access,omitempty"`

	// port is where servers listen. Not 53. Default: 853.
	//
	// +optional
	// +kubebuilder:default=853
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self != 53",message="port 53 is that of plain DNS"
	Port int32 `json:"port,omitempty"`
}

// DoHTransport is DNS over HTTPS.
type DoHTransport struct {
	// access is Open or Closed. Default: Closed.
	//
	// +optional
	// +kubebuilder:default=Closed
	Access TransportAccess `json:"access,omitempty"`

	// port is where servers listen. Not 53. Default: 443.
	//
	// +optional
	// +kubebuilder:default=443
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self != 53",message="port 53 is that of plain DNS"
	Port int32 `json:"port,omitempty"`
}

// HTTPDNSTransport is HTTPDNS, in clear text or beside DNS over HTTPS.
type HTTPDNSTransport struct {
	// access is Open or Closed. Default: Closed.
	//
	// +optional
	// +kubebuilder:default=Closed
	Access TransportAccess `json:"access,omitempty"`

	// port is where servers listen. Not 53. Default: 80.
	//
	// +optional
	// +kubebuilder:default=80
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self != 53",message="port 53 is that of plain DNS"
	Port int32 `json:"port,omitempty"`
}

// AllowedZones grants a server group to the zones of some namespaces.
//
// +kubebuilder:validation:XValidation:rule="self.namespaces.from != 'Same'",message="a Datacenter is in no namespace: from must be All or Selector",fieldPath=".namespaces.from"
type AllowedZones struct {
	// namespaces says whose DNSZones may use the group: from All, or Selector with a selector.
	//
	// +required
	Namespaces NamespaceSelection `json:"namespaces,omitzero"`
}

// DatacenterStatus is who is connected and current.
type DatacenterStatus struct {
	// conditions are Accepted, Programmed, Degraded, RemovalWithheld, WorkloadsReady and ClusterReachable where the
	// operator runs servers, and Ready, which sums up the first two: accepted and programmed.
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

	// serversReady says how many servers are connected, of how many declared, e.g. 4/4.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	ServersReady string `json:"serversReady,omitempty"`

	// synced says how many connected servers serve the published version of all their zones under the settings of their
	// group, of how many connected, e.g. 4/4.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Synced string `json:"synced,omitempty"`

	// vantage says how the datacenter sees the others: how many of its servers hear all datacenters and vote, of how many
	// that have told, e.g. 2/2. Isolated: its anchors do not answer, so that it judges no target elsewhere. Sick: servers
	// abstain, since others of the datacenter see up what they see down. Can't see dc-b: no server there is heard.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Vantage string `json:"vantage,omitempty"`

	// servers are the servers that have joined with a certificate for this datacenter. The first 64 by group and name.
	//
	// +optional
	// +listType=map
	// +listMapKey=group
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Servers []ServerStatus `json:"servers,omitempty"`

	// serverGroups is what is in force for each server group, by name; also for groups that are declared no more, as long
	// as resolvers may come to their addresses.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	ServerGroups []ServerGroupStatus `json:"serverGroups,omitempty"`
}

// ServerGroupStatus is what is in force for one server group.
type ServerGroupStatus struct {
	// name is the group's.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// limitsMode is what happens to what is over a limit, as in limits.mode or as the group's addresses decide: Enforce,
	// Log or Off.
	//
	// +optional
	LimitsMode LimitsMode `json:"limitsMode,omitempty"`

	// settings says how many connected servers of the group have its settings in force, of how many connected, e.g. 2/2.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Settings string `json:"settings,omitempty"`

	// replicas is how many servers of a Managed group there are to be at present. While servers leave, it is more than
	// the spec says.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Replicas *int32 `json:"replicas,omitempty"`

	// readyReplicas is how many pods of a Managed group are ready: their servers answer for all their zones.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	ReadyReplicas *int32 `json:"readyReplicas,omitempty"`

	// updatedReplicas is how many pods of a Managed group are as the spec wants them now.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	UpdatedReplicas *int32 `json:"updatedReplicas,omitempty"`

	// addresses are where the servers of a Managed group answer clients, or are about to, or did until lately.
	//
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=64
	Addresses []ServerAddress `json:"addresses,omitempty"`
}

// ServerAddressState says what an address of servers is used for.
//
// +kubebuilder:validation:Enum=Pending;Delegated;Leaving;Lost
type ServerAddressState string

const (
	// ServerAddressPending is an address that does not answer yet: nobody is referred to it.
	ServerAddressPending ServerAddressState = "Pending"
	// ServerAddressDelegated is an address in NS glue.
	ServerAddressDelegated ServerAddressState = "Delegated"
	// ServerAddressLeaving is an address that is no longer in NS glue, and goes on answering those who were referred to it.
	ServerAddressLeaving ServerAddressState = "Leaving"
	// ServerAddressLost is the last address of the group, which was taken from it without warning. Only a zone that would
	// have no address at all is still delegated to it.
	ServerAddressLost ServerAddressState = "Lost"
)

// ServerAddress is an address at which servers of a group answer clients.
type ServerAddress struct {
	// address is the address.
	//
	// +required
	Address IP `json:"address,omitempty"`

	// state is Pending (it does not answer yet: nobody is referred to it), Delegated (it is in NS glue), Leaving (it is
	// there no longer, and goes on answering until caches have forgotten it) or Lost (the group's last address, taken from
	// it without warning: it is in the glue of those zones only that would have no address at all).
	//
	// +required
	State ServerAddressState `json:"state,omitempty"`

	// since is when the address got into this state.
	//
	// +required
	Since metav1.Time `json:"since,omitzero"`

	// until is when an address that is Leaving is let go: by then no server will have handed it out for as long as caches
	// keep it. Left out while some server may still do so.
	//
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
}

// ServerState says whether a server's stream to the hub is up.
//
// +kubebuilder:validation:Enum=Connected;Disconnected
type ServerState string

const (
	// ServerConnected is a server with a stream to the leading hub.
	ServerConnected ServerState = "Connected"
	// ServerDisconnected is a server without one. It goes on answering with what it has.
	ServerDisconnected ServerState = "Disconnected"
)

// ServerStatus is one authoritative server of a datacenter.
type ServerStatus struct {
	// group is the server's group.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Group string `json:"group,omitempty"`

	// name is the server's instance name, unique in its group.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// state is Connected, or Disconnected: the server then goes on answering with what it has.
	//
	// +required
	State ServerState `json:"state,omitempty"`

	// version is the version of the server's program.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Version string `json:"version,omitempty"`

	// zones says of how many zones the server serves the published version, of how many it should serve, e.g. 12/12.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Zones string `json:"zones,omitempty"`

	// peerAddress is where siblings and servers of other datacenters reach the server, HOST:PORT. It is kept here for
	// them while the server has no stream to the hub.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=263
	PeerAddress string `json:"peerAddress,omitempty"`
}
