package v1alpha1

import (
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

	// serverGroups are the groups of authoritative servers in this datacenter. Zones choose a group by name. Root,
	// static and dynamic zones are best kept in groups of their own, of at least two servers each.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	ServerGroups []ServerGroup `json:"serverGroups,omitempty"`
}

// DatacenterProbes limits what probes from a datacenter may reach.
type DatacenterProbes struct {
	// deniedNetworks are networks that probes from this datacenter must not reach, e.g. [169.254.0.0/16]. They replace
	// the default list: loopback, link-local, the API server and the servers' own addresses. An empty list denies
	// nothing.
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
	// conditions are Accepted, Programmed, Degraded, RemovalWithheld, and Ready, which sums them up: accepted and
	// programmed.
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

	// synced says how many connected servers serve the published version of all their zones, of how many connected,
	// e.g. 4/4.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Synced string `json:"synced,omitempty"`

	// vantage says how the datacenter sees the others. Empty until probes and votes are in use.
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
}
