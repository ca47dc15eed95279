package v1alpha1

// ApproveRemovalAnnotation approves one removal that the guard withholds. Its value is the digest from the message of
// the condition RemovalWithheld, so that an approval given for one removal never lets another one pass. It is read from
// a DNSZone for records that would vanish from the zone, and from a Datacenter for zones that would vanish from its
// servers: there it may have several digests with commas between them, since servers may wait with different removals.
const ApproveRemovalAnnotation = "fingerpost.dev/approve-removal"

// Condition types. A condition that is absent says nothing; Ready and Accepted are present from the start, as Unknown.
const (
	// ConditionReady is True when the object is accepted and programmed (kstatus). An unhealthy target does not make a
	// record not ready: that is Healthy.
	ConditionReady = "Ready"
	// ConditionAccepted is True when the object's spec is valid together with the objects it refers to, and everybody who
	// must grant something has granted it. An object that is not accepted is never pushed to servers.
	ConditionAccepted = "Accepted"
	// ConditionProgrammed is True when every reachable server that the object concerns serves the published version and
	// has it on disk, at least one of them in each reachable datacenter and at least one in all.
	ConditionProgrammed = "Programmed"
	// ConditionDegraded is True when what is served is complete but less redundant than declared, such as when a
	// datacenter can't be reached, or when a part was left out as a finding.
	ConditionDegraded = "Degraded"
	// ConditionDelegated, on a DNSZone, is True when the parent zone refers to it. An apex zone, which has no parent in
	// the system, does not have this condition.
	ConditionDelegated = "Delegated"
	// ConditionHealthy, on a DynamicRecord, is True when every target is up. What is served while it is False says the message.
	ConditionHealthy = "Healthy"
	// ConditionRTOFeasible, on a DynamicRecord with objectives.rto, is True when probes, TTL and the rest can meet it. The
	// message has the sum, and if False a remedy.
	ConditionRTOFeasible = "RTOFeasible"
	// ConditionOverridden, on a DynamicRecord, is True while a TrafficOverride changes its answers.
	ConditionOverridden = "Overridden"
	// ConditionVantageDisagreement, on a DynamicRecord, is True while the votes about a target are tied: it keeps its state.
	ConditionVantageDisagreement = "VantageDisagreement"
	// ConditionSplitRisk, on a DynamicRecord with onPeerLoss Hold, is True when nothing could tell a dead datacenter from a
	// cut link: there is no witness, and the datacenters have no anchors.
	ConditionSplitRisk = "SplitRisk"
	// ConditionAwaitingApproval, on a DynamicRecord, is True while a move waits for a person.
	ConditionAwaitingApproval = "AwaitingApproval"
	// ConditionSafeToProceed, on a TrafficOverride, is True when every resolver that got an old answer has dropped it.
	ConditionSafeToProceed = "SafeToProceed"
	// ConditionBreakGlass, on a Datacenter, is True while overrides are in force that were made at a server, by dnsserver
	// ctl. The message lists them. No TrafficOverride has them: they end by themselves, or at a server.
	ConditionBreakGlass = "BreakGlass"
	// ConditionNetworkConflict, on a Datacenter, is True when another Datacenter has some of its networks too and comes first:
	// clients there are near the other one. It is absent if that is not so.
	ConditionNetworkConflict = "NetworkConflict"
	// ConditionWorkloadsReady, on a Datacenter with Managed groups, is True when their servers run as the spec wants them:
	// objects are applied, pods are ready and up to date, and addresses are there. If not, the message says what to do.
	ConditionWorkloadsReady = "WorkloadsReady"
	// ConditionClusterReachable, on a Datacenter with a kubeconfig, is True when its cluster answers and lets the operator
	// in. If not, servers there go on as they are.
	ConditionClusterReachable = "ClusterReachable"
	// ConditionRemovalWithheld is True while the guard holds back removals until somebody approves them. The message
	// has the count, examples and the digest to approve.
	ConditionRemovalWithheld = "RemovalWithheld"
	// ConditionAddressesReady, on a Datacenter with Managed server groups, is True when zones are delegated to every address
	// that the groups are to have, and it is known which these are.
	ConditionAddressesReady = "AddressesReady"
	// ConditionOversized, on a DNSZone, is True when some of its answers do not fit into what a server group sends over
	// UDP, and the group's TCP is closed: nobody can get them. A zone whose groups have TCP open does not have it.
	ConditionOversized = "Oversized"
	// ConditionRecursionWorks, on a ResolverPool, is True when every member that can be reached gets from the root to the
	// leaves of the hierarchy. False does not make the pool not ready: a dead tier of authoritative servers is no fault of
	// its own, and what it has in its caches is still answered.
	ConditionRecursionWorks = "RecursionWorks"
	// ConditionFlushable, on a ResolverPool, is False when some of what members keep does not move when its answer changes:
	// the message says what.
	ConditionFlushable = "Flushable"
	// ConditionClientAddressesKept, on a ResolverPool, is False when members may see the address of a load balancer or node
	// instead of the client's: the message says why, and what limits, networks and near answers then mean.
	ConditionClientAddressesKept = "ClientAddressesKept"
)

// ReasonPending is the reason of every condition of an object that no controller has seen yet.
const ReasonPending = "Pending"

// Reasons of the condition Accepted.
const (
	// ReasonAccepted: the object is valid and everything it needs was granted.
	ReasonAccepted = "Accepted"
	// ReasonNotAllowedByParent: the closest enclosing zone has no entry in allowedChildren for this zone and namespace.
	ReasonNotAllowedByParent = "NotAllowedByParent"
	// ReasonNotAllowedAsApex: no zone of the system encloses this one, and its namespace is not one of the operator's apex namespaces.
	ReasonNotAllowedAsApex = "NotAllowedAsApex"
	// ReasonNameConflict: another object has the name: the one that is served already, else the older, else the lower namespace/name.
	ReasonNameConflict = "NameConflict"
	// ReasonHidesZones: the zone would put itself between a parent and zones of others that this parent has granted.
	ReasonHidesZones = "HidesZones"
	// ReasonUnknownServerGroup: no chosen datacenter has the server group.
	ReasonUnknownServerGroup = "UnknownServerGroup"
	// ReasonServerGroupNotAllowed: the server group's allowedZones excludes the zone's namespace.
	ReasonServerGroupNotAllowed = "ServerGroupNotAllowed"
	// ReasonUnknownDatacenter: spec.datacenters names a datacenter that does not exist.
	ReasonUnknownDatacenter = "UnknownDatacenter"
	// ReasonInvalidSpec: the spec contradicts itself in a way that the API server does not check.
	ReasonInvalidSpec = "InvalidSpec"
)

// Reasons of the condition Accepted of DynamicRecords, HealthProbes and TrafficOverrides.
const (
	// ReasonZoneNotFound: spec.zoneRef names no DNSZone of the namespace, or of one that grants the name.
	ReasonZoneNotFound = "ZoneNotFound"
	// ReasonZoneNotAccepted: the zone itself is not accepted.
	ReasonZoneNotAccepted = "ZoneNotAccepted"
	// ReasonNotAllowedByZone: the zone has no entry in allowedRecords for this host and namespace.
	ReasonNotAllowedByZone = "NotAllowedByZone"
	// ReasonProbeNotFound: a probeRef names no HealthProbe of the namespace.
	ReasonProbeNotFound = "ProbeNotFound"
	// ReasonProbeNotAccepted: the HealthProbe is not valid.
	ReasonProbeNotAccepted = "ProbeNotAccepted"
	// ReasonProbeCycle: a Calculated probe is made, through others, of itself.
	ReasonProbeCycle = "ProbeCycle"
	// ReasonSecretNotFound: the Secret that a probe's client certificate is in does not exist, or lacks a key.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretNotUsable: the Secret can't be read, or what it has is no certificate with its key.
	ReasonSecretNotUsable = "SecretNotUsable"
	// ReasonSelectsNothing: the override acts on no DynamicRecord.
	ReasonSelectsNothing = "SelectsNothing"
	// ReasonExpired: the override has ended.
	ReasonExpired = "Expired"
	// ReasonKeepAtLeast: the override would leave a name fewer healthy targets than keepAtLeast: there it does nothing.
	ReasonKeepAtLeast = "KeepAtLeast"
)

// Reasons of the condition Accepted of ResolverPools.
const (
	// ReasonNoRootZone: there is no root zone with servers, or none of that name, so that there are no root hints. What
	// members run already goes on.
	ReasonNoRootZone = "NoRootZone"
	// ReasonNoDatacenters: the pool is in no datacenter that answers clients.
	ReasonNoDatacenters = "NoDatacenters"
	// ReasonInvalidConfiguration: no program can be configured like this. The message names the fields.
	ReasonInvalidConfiguration = "InvalidConfiguration"
	// ReasonSourceNotFound: a ConfigMap of blockLists.rpz, or its key, does not exist.
	ReasonSourceNotFound = "SourceNotFound"
)

// Reasons of the condition Ready of ResolverPools that do not come from Accepted or Programmed.
const (
	// ReasonNoReadyMembers: no member of some datacenter answers.
	ReasonNoReadyMembers = "NoReadyMembers"
)

// Reasons of the condition Degraded of ResolverPools.
const (
	// ReasonMembersNotReady: fewer members answer than there are to be.
	ReasonMembersNotReady = "MembersNotReady"
	// ReasonUnknownMembers: resolvers have joined with the pool's certificate whose program is not one of its members.
	ReasonUnknownMembers = "UnknownMembers"
)

// Reasons of the condition RecursionWorks.
const (
	// ReasonRecursionWorks: every member gets from the root to the leaves.
	ReasonRecursionWorks = "RecursionWorks"
	// ReasonRecursionFails: some members do not. The message names them.
	ReasonRecursionFails = "RecursionFails"
	// ReasonNotChecked: there is no zone to check with, or no member has told yet.
	ReasonNotChecked = "NotChecked"
)

// Reasons of the condition Flushable.
const (
	// ReasonFlushable: all that members keep can be flushed.
	ReasonFlushable = "Flushable"
	// ReasonNotNotified: no authoritative server tells some members which answers have changed: there they move when their
	// TTL is over.
	ReasonNotNotified = "NotNotified"
	// ReasonECSNotFlushable: Unbound can't flush names of zones whose servers are told the client's network.
	ReasonECSNotFlushable = "ECSNotFlushable"
)

// Reasons of the condition ClientAddressesKept.
const (
	// ReasonClientAddressesKept: members see the clients' own addresses.
	ReasonClientAddressesKept = "ClientAddressesKept"
	// ReasonTrafficPolicy: the Service's externalTrafficPolicy lets nodes put their addresses in the clients' place.
	ReasonTrafficPolicy = "TrafficPolicy"
)

// Reasons of the condition Programmed. ReasonPending says that servers have yet to acknowledge.
const (
	// ReasonProgrammed: every reachable server serves the published version and holds it on disk.
	ReasonProgrammed = "Programmed"
	// ReasonNoServers: no server that should serve the object is connected.
	ReasonNoServers = "NoServers"
	// ReasonRejected: a server refused the published version and keeps the one before. The message quotes the server.
	ReasonRejected = "Rejected"
	// ReasonNotDurable: a server serves the published version but could not write it to its disk.
	ReasonNotDurable = "NotDurable"
	// ReasonNotAccepted: nothing is pushed because the object is not accepted.
	ReasonNotAccepted = "NotAccepted"
)

// Reasons of the condition Ready that do not come from Accepted or Programmed.
const (
	// ReasonReady: accepted and programmed.
	ReasonReady = "Ready"
)

// Reasons of the condition Degraded.
const (
	// ReasonHealthy is the reason of Degraded=False.
	ReasonHealthy = "Healthy"
	// ReasonHeld: a datacenter is silent, and the record does not move until somebody confirms what became of it.
	ReasonHeld = "Held"
	// ReasonDatacenterUnreachable: no server of a chosen datacenter is connected.
	ReasonDatacenterUnreachable = "DatacenterUnreachable"
	// ReasonServersMissing: fewer servers are connected than the datacenter declares.
	ReasonServersMissing = "ServersMissing"
	// ReasonOutdated: the program of a server is too old for something that it is to do.
	ReasonOutdated = "Outdated"
	// ReasonFindings: something was left out of what is served; see status.findings.
	ReasonFindings = "Findings"
	// ReasonSourceMissing: a ConfigMap of recordsFrom, or its key, is missing. Its last content goes on being served.
	ReasonSourceMissing = "SourceMissing"
	// ReasonEpochTooFarAhead: a server reports a serial or an epoch so far ahead that following it would be unsafe.
	ReasonEpochTooFarAhead = "EpochTooFarAhead"
)

// Reasons of the condition Delegated.
const (
	// ReasonDelegated: the parent zone refers to this zone, with the addresses of its servers.
	ReasonDelegated = "Delegated"
	// ReasonNoNameServers: no chosen datacenter has an address for the zone's server group.
	ReasonNoNameServers = "NoNameServers"
)

// Reasons of the condition RemovalWithheld.
const (
	// ReasonNothingWithheld is the reason of RemovalWithheld=False.
	ReasonNothingWithheld = "NothingWithheld"
	// ReasonMassRemoval: an update would remove more than the zone's guard, or the manager's flags, let pass at once.
	ReasonMassRemoval = "MassRemoval"
	// ReasonSourceVanished: a ConfigMap or zone that held published content is gone; or servers have something from another
	// hub cluster that no object of this one stands for.
	ReasonSourceVanished = "SourceVanished"
)

// Reasons of the condition AddressesReady.
const (
	// ReasonAddressesDelegated: zones are delegated to every address that the groups are to have.
	ReasonAddressesDelegated = "AddressesDelegated"
	// ReasonNoAddress: a group has no address yet. The message says what is waited for.
	ReasonNoAddress = "NoAddress"
	// ReasonAddressSilent: an address does not answer for the group's zones, so nothing is delegated to it.
	ReasonAddressSilent = "AddressSilent"
	// ReasonAddressLost: a group lost its last address. Zones that have no other stay delegated to it.
	ReasonAddressLost = "AddressLost"
	// ReasonAddressesUnknown: the cluster of the servers can't be asked. What was delegated to last stays.
	ReasonAddressesUnknown = "AddressesUnknown"
)

// Reasons of the condition Oversized.
const (
	// ReasonFits: every answer fits.
	ReasonFits = "Fits"
	// ReasonTooLargeWithoutTCP: the message names the first answers that do not fit, and what can be done.
	ReasonTooLargeWithoutTCP = "TooLargeWithoutTCP"
)

// Reasons of the condition WorkloadsReady. More than one may apply: the first in this order is given.
const (
	// ReasonWorkloadsReady: everything is applied, and the servers are ready and up to date.
	ReasonWorkloadsReady = "WorkloadsReady"
	// ReasonClusterAway: the cluster can't be reached; see ClusterReachable.
	ReasonClusterAway = "ClusterAway"
	// ReasonNoImage: neither the group nor the operator says which image the servers have.
	ReasonNoImage = "NoImage"
	// ReasonNoHub: the operator was not told where servers of other clusters reach it.
	ReasonNoHub = "NoHub"
	// ReasonNamespaceMissing: the namespace is not there, and the operator may not make it.
	ReasonNamespaceMissing = "NamespaceMissing"
	// ReasonNamespaceTerminating: the namespace is being deleted.
	ReasonNamespaceTerminating = "NamespaceTerminating"
	// ReasonForbidden: the API server, or a policy behind it, does not let the operator write an object.
	ReasonForbidden = "Forbidden"
	// ReasonQuotaExceeded: a ResourceQuota of the namespace leaves no room.
	ReasonQuotaExceeded = "QuotaExceeded"
	// ReasonRefused: the API server refuses an object, such as a Service of a type that it does not know how to make.
	ReasonRefused = "Refused"
	// ReasonImageNotPulled: a node can't get the image.
	ReasonImageNotPulled = "ImageNotPulled"
	// ReasonPodsFailing: servers end, again and again.
	ReasonPodsFailing = "PodsFailing"
	// ReasonPodsPending: no node takes a pod.
	ReasonPodsPending = "PodsPending"
	// ReasonAddressPending: no provider has given the Service an address.
	ReasonAddressPending = "AddressPending"
	// ReasonRolling: servers are restarted one by one, or leave.
	ReasonRolling = "Rolling"
	// ReasonPodsNotReady: servers start, or can't answer for all their zones.
	ReasonPodsNotReady = "PodsNotReady"
)

// ReasonSharedNetworks is the reason of NetworkConflict.
const ReasonSharedNetworks = "SharedNetworks"

// Reasons of the condition ClusterReachable, and ReasonForbidden.
const (
	// ReasonReachable: the cluster answers.
	ReasonReachable = "Reachable"
	// ReasonKubeconfigNotFound: the Secret does not exist, or lacks the key.
	ReasonKubeconfigNotFound = "KubeconfigNotFound"
	// ReasonKubeconfigInvalid: what the Secret has is no kubeconfig that the operator can use.
	ReasonKubeconfigInvalid = "KubeconfigInvalid"
	// ReasonUnreachable: the cluster does not answer, or is not the one that the kubeconfig's CA vouches for.
	ReasonUnreachable = "Unreachable"
	// ReasonUnauthorized: the cluster does not accept the credentials.
	ReasonUnauthorized = "Unauthorized"
)

// Reasons of findings (status.findings[].reason).
const (
	// FindingSyntaxError: a line of a zone file, or the value of an inline record, can't be parsed.
	FindingSyntaxError = "SyntaxError"
	// FindingBadValue: the record parses but its content is impossible, such as an MX to an IP address.
	FindingBadValue = "BadValue"
	// FindingBadName: the record's owner is not a domain name: a label over 63 octets, or a name over 255.
	FindingBadName = "BadName"
	// FindingUnknownType: the record's type is not known and is not of the form TYPE123, or is one that zones can't hold.
	FindingUnknownType = "UnknownType"
	// FindingUnknownTTLClass: ttl.class is not one of the zone's ttl.classes. The record is served with the default TTL.
	FindingUnknownTTLClass = "UnknownTTLClass"
	// FindingTTLMismatch: records of one name and type have different TTLs (RFC 2181 §5.2). All get the lowest.
	FindingTTLMismatch = "TTLMismatch"
	// FindingOutOfZone: the record's name is not in the zone.
	FindingOutOfZone = "OutOfZone"
	// FindingOccluded: the record lies below a zone cut or a DNAME and can't be seen (RFC 2136 §7.18, RFC 6672 §2.4).
	FindingOccluded = "Occluded"
	// FindingCNAMEConflict: other data exists at the owner of a CNAME, or more than one CNAME (RFC 1034 §3.6.2).
	FindingCNAMEConflict = "CNAMEConflict"
	// FindingDNAMEConflict: more than one DNAME at an owner (RFC 6672 §2.4).
	FindingDNAMEConflict = "DNAMEConflict"
	// FindingDuplicate: the same record occurs twice. It is served once.
	FindingDuplicate = "Duplicate"
	// FindingOperatorOwned: the operator makes this record itself: the SOA and NS of the apex, the names ns-DATACENTER,
	// and the NS and glue of child zones that the system serves.
	FindingOperatorOwned = "OperatorOwned"
	// FindingDNSSECNotSigned: a DNSSEC record (such as RRSIG, NSEC, DNSKEY) of a zone that the operator does not sign.
	FindingDNSSECNotSigned = "DNSSECNotSigned"
	// FindingUnsupportedDirective: a zone file has a directive that imported text must not use, such as $INCLUDE.
	FindingUnsupportedDirective = "UnsupportedDirective"
	// FindingSourceMissing: a ConfigMap of recordsFrom, or its key, does not exist.
	FindingSourceMissing = "SourceMissing"
	// FindingTooLarge: a record, RRset, source or zone is over a limit of DNS (65,535 octets of rdata) or of the operator.
	FindingTooLarge = "TooLarge"
	// FindingReferralTooLarge: a referral or the priming answer would not fit in 1,232 octets.
	FindingReferralTooLarge = "ReferralTooLarge"
	// FindingTooManyNameServers: the zone is in more than 13 datacenters; the rest get no NS.
	FindingTooManyNameServers = "TooManyNameServers"
	// FindingLongNetwork: a network is longer than /24 or /56 in a zone whose resolvers tell of their clients' networks: each
	// of them has to keep many answers for one name.
	FindingLongNetwork = "LongNetwork"
	// FindingResolverDenied: a resolver of a DynamicRecord's flatten lies in networks that servers of a datacenter must not
	// reach for tenants, so they do not ask it.
	FindingResolverDenied = "ResolverDenied"
	// FindingNameConflict: a DynamicRecord or another source has the name already.
	FindingNameConflict = "NameConflict"
)
