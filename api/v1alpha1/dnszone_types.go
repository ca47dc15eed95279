package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DNSZone is one zone of the DNS hierarchy: its name, the servers that serve it, its records, and the grants that it
// gives to child zones and to the records of others.
//
// The operator makes the zone's SOA and NS records and, in the parent zone, the delegation to it. Mistakes in single
// records are listed in status.findings; the other records are served. kubectl get dnszones -o wide shows the parent, and
// the reason when a zone is not ready.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=dz,categories=dns
// +kubebuilder:selectablefield:JSONPath=`.spec.name`
// +kubebuilder:selectablefield:JSONPath=`.spec.serverGroup`
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.spec.name`,description="Domain name of the zone"
// +kubebuilder:printcolumn:name="Serial",type=integer,JSONPath=`.status.published.serial`,description="SOA serial of the published version"
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.programmed`,description="Servers that serve the published version, of those that should"
// +kubebuilder:printcolumn:name="Delegated",type=string,JSONPath=`.status.conditions[?(@.type=="Delegated")].status`,description="Whether the parent zone refers to this one; empty for an apex zone"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Accepted and programmed"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Parent",type=string,priority=1,JSONPath=`.status.parent`,description="Namespace and name of the parent DNSZone"
// +kubebuilder:printcolumn:name="Group",type=string,priority=1,JSONPath=`.spec.serverGroup`,description="Server group that serves the zone"
// +kubebuilder:printcolumn:name="Mode",type=string,priority=1,JSONPath=`.status.mode`,description="Where the content comes from"
// +kubebuilder:printcolumn:name="Records",type=integer,priority=1,JSONPath=`.status.records`,description="Records served"
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why the zone is ready or not"
type DNSZone struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the standard object metadata. Its name is free: the domain name is spec.name.
	//
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the zone as wanted.
	//
	// +required
	Spec DNSZoneSpec `json:"spec,omitzero"`

	// status is what the operator found and what servers serve. Users do not write it.
	//
	// +optional
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "No controller has looked at this object yet", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "Pending", message: "No controller has looked at this object yet", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status DNSZoneStatus `json:"status,omitzero"`
}

// DNSZoneList is a list of DNSZones.
//
// +kubebuilder:object:root=true
type DNSZoneList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DNSZone `json:"items"`
}

// DNSZoneSpec is a zone as its owner wants it.
//
// +kubebuilder:validation:XValidation:rule="self.name == '.' || !has(self.allowedChildren) || self.allowedChildren.all(c, c.names.all(n, n == '*' || n.endsWith('.' + self.name)))",message="a zone can only allow children below itself: every entry of allowedChildren[].names ends in this zone's name, such as *.pay.bank or cards.pay.bank in the zone pay.bank, or is *",fieldPath=".allowedChildren"
type DNSZoneSpec struct {
	// name is the zone's absolute domain name in lower case without the dot at the end, e.g. pay.bank, or "." for the
	// root. Internationalised names are written in their xn-- form. At most 189 characters, so that the name servers,
	// ns-DATACENTER.ZONE, are domain names too. It can't be changed: create a new zone, and delete the old one when
	// nobody uses it any more.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=189
	// +kubebuilder:validation:XValidation:rule="self == '.' || self.matches('^[a-z0-9_/-]{1,63}([.][a-z0-9_/-]{1,63})*$')",message="must be an absolute domain name in lower case without a dot at the end, such as pay.bank, or \".\" for the root: labels of letters, digits, - and _ (and / for RFC 2317), at most 63 characters each"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a zone can't be renamed: create a new DNSZone, and delete this one when nobody uses its names any more"
	Name string `json:"name,omitempty"`

	// serverGroup is the name of the server group that serves the zone, as in the Datacenters' serverGroups, e.g.
	// authoritative. In each datacenter the group must allow this object's namespace.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="must be the name of a server group: lower case letters, digits and -, beginning and ending with a letter or digit"
	ServerGroup string `json:"serverGroup,omitempty"`

	// datacenters limits the zone to some datacenters. Left out: every datacenter that has the server group.
	//
	// +optional
	Datacenters DatacenterSelection `json:"datacenters,omitzero"`

	// ttl has the zone's times to live: how long resolvers and clients may keep an answer. A change of a record is felt
	// everywhere only after the TTL of the old one.
	//
	// +optional
	// +kubebuilder:default={default: "60s", negative: "30s", infrastructure: "24h", min: "0s", max: "168h"}
	TTL ZoneTTL `json:"ttl,omitzero"`

	// soa has the fields of the zone's SOA record that its owner may choose. The rest of it, and the NS records of the
	// zone, are made by the operator.
	//
	// +optional
	// +kubebuilder:default={refresh: "1h", retry: "15m", expire: "336h"}
	SOA ZoneSOA `json:"soa,omitzero"`

	// records are the zone's records, one entry for each name and type, at most 1,000 entries. More, or whole zone
	// files, come from recordsFrom.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=1000
	Records []ZoneRecord `json:"records,omitempty"`

	// recordsFrom are sources of further records. All are merged with records: the same name and type in two sources
	// makes one record set with the values of both. A CNAME yields to other data at its name.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	RecordsFrom []RecordsSource `json:"recordsFrom,omitempty"`

	// allowedChildren grants the names below this zone to DNSZones of other namespaces, or of this one. A child zone
	// needs the grant of its closest enclosing zone; without one it is neither delegated nor served. Left out: no child
	// zones. Delegations to servers outside the system need no grant: write NS records.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	AllowedChildren []AllowedChildren `json:"allowedChildren,omitempty"`

	// allowedRecords grants names of this zone to DynamicRecords. Default: every name but the zone itself, to the
	// zone's own namespace. An empty list grants nothing.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:default={{namespaces: {from: "Same"}, hosts: {"*"}}}
	AllowedRecords []AllowedRecords `json:"allowedRecords,omitzero"`

	// ecs lets steered names answer by the client's own network, which resolvers tell (EDNS Client Subnet, RFC 7871).
	// Left out: clients are taken to be where their resolver is, and the option is ignored.
	//
	// +optional
	ECS *ZoneECS `json:"ecs,omitempty"`

	// guard holds back updates that would remove many records at once, until somebody approves them.
	//
	// +optional
	// +kubebuilder:default={}
	Guard ZoneGuard `json:"guard,omitzero"`
}

// The rules of ZoneTTL, ZoneSOA and HealthProbeSpec that compare durations let malformed ones pass: their own rule speaks.

// ZoneTTL has the times to live of a zone, in whole seconds, such as 30s, 5m or 24h.
//
// +kubebuilder:validation:XValidation:rule="[self.min, self.max].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || duration(self.min) <= duration(self.max)",message="min must not be above max",fieldPath=".min"
// +kubebuilder:validation:XValidation:rule="[self.min, self.default, self.max].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || (duration(self.min) <= duration(self.default) && duration(self.default) <= duration(self.max))",message="default must be between min and max",fieldPath=".default"
// +kubebuilder:validation:XValidation:rule="!has(self.classes) || self.classes.all(c, [self.min, c.ttl, self.max].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || (duration(self.min) <= duration(c.ttl) && duration(c.ttl) <= duration(self.max)))",message="the ttl of every class must be between min and max",fieldPath=".classes"
type ZoneTTL struct {
	// default is the TTL of records that have none of their own. In zone files of recordsFrom a $TTL goes before it.
	// Default: 60s.
	//
	// +optional
	// +kubebuilder:default="60s"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Default Duration `json:"default,omitempty"`

	// negative is how long resolvers may remember that a name or type does not exist (RFC 2308): the MINIMUM field and
	// the TTL of the SOA. A new name can stay invisible for this long to clients that asked for it before.
	// Default: 30s.
	//
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Negative Duration `json:"negative,omitempty"`

	// infrastructure is the TTL of what the operator makes: the zone's NS records and the addresses of its name
	// servers, here and in the parent. They change rarely; a long TTL lets resolvers work while a parent can't be
	// reached. Default: 24h.
	//
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Infrastructure Duration `json:"infrastructure,omitempty"`

	// min is the lowest TTL of the records in this zone; lower ones are served with min. Default: 0s.
	//
	// +optional
	// +kubebuilder:default="0s"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Min Duration `json:"min,omitempty"`

	// max is the highest TTL of the records in this zone; higher ones are served with max. Default: 168h, a week.
	//
	// +optional
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Max Duration `json:"max,omitempty"`

	// classes are named TTLs, which records choose with ttl.class, e.g.
	// [{name: critical, ttl: 5s}, {name: static, ttl: 1h}]. What a class is called and means is the owner's choice.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Classes []TTLClass `json:"classes,omitempty"`
}

// TTLClass is a TTL with a name.
type TTLClass struct {
	// name is what records write in ttl.class, e.g. critical.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`

	// ttl is the TTL of the class, in whole seconds, e.g. 5s.
	//
	// +required
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	TTL Duration `json:"ttl,omitempty"`
}

// ZoneSOA has the fields of the SOA record (RFC 1035 §3.3.13) that are the owner's to choose. The primary name server is
// the zone's first, the serial counts by itself, and MINIMUM is ttl.negative.
//
// +kubebuilder:validation:XValidation:rule="[self.refresh, self.retry, self.expire].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || duration(self.expire) > duration(self.refresh) + duration(self.retry)",message="expire must be above refresh plus retry, else a secondary would drop the zone before its first retry",fieldPath=".expire"
type ZoneSOA struct {
	// contact is the mailbox of the person responsible for the zone: a mail address such as dns@bank.example, or the
	// form of the SOA record, such as dns.bank.example. Default: hostmaster.ZONE.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9._+/\\\\\\\\-]+(@[A-Za-z0-9.-]+)?$')",message="must be a mail address such as dns@bank.example, or a mailbox as a domain name such as dns.bank.example"
	Contact string `json:"contact,omitempty"`

	// refresh is how often a secondary server asks for a new version. Default: 1h.
	//
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="SOA timers are whole numbers of seconds: write 15m, 1h or 24h, without milliseconds"
	Refresh Duration `json:"refresh,omitempty"`

	// retry is how long a secondary server waits after a refresh that failed. Default: 15m.
	//
	// +optional
	// +kubebuilder:default="15m"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="SOA timers are whole numbers of seconds: write 15m, 1h or 24h, without milliseconds"
	Retry Duration `json:"retry,omitempty"`

	// expire is when a secondary server that can't refresh stops answering. Default: 336h, two weeks.
	//
	// +optional
	// +kubebuilder:default="336h"
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="SOA timers are whole numbers of seconds: write 15m, 1h or 24h, without milliseconds"
	Expire Duration `json:"expire,omitempty"`

	// serialFloor is the lowest serial to publish, 1 to 4294967295: for a zone that moves here from another system,
	// the serial that its secondaries hold, e.g. 2026112201. Serials are the time in seconds since 1970 where nothing
	// demands more.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	SerialFloor *int64 `json:"serialFloor,omitempty"`
}

// RecordType is the type of a record: a mnemonic such as A or MX, or TYPE and a number (RFC 3597).
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=16
// +kubebuilder:validation:XValidation:rule="self != 'SOA'",message="the operator owns the SOA of a zone: set spec.soa and spec.ttl instead"
// +kubebuilder:validation:XValidation:rule="!(self in ['DNSKEY','RRSIG','NSEC','NSEC3','NSEC3PARAM','CDS','CDNSKEY'])",message="zones are not signed: DNSKEY, RRSIG, NSEC, NSEC3, NSEC3PARAM, CDS and CDNSKEY records can't be served (DS at a delegation can)"
// +kubebuilder:validation:XValidation:rule="self in ['A','AAAA','AFSDB','AMTRELAY','APL','CAA','CERT','CNAME','CSYNC','DHCID','DNAME','DS','EUI48','EUI64','GPOS','HINFO','HIP','HTTPS','IPSECKEY','ISDN','KEY','KX','L32','L64','LOC','LP','MB','MG','MINFO','MR','MX','NAPTR','NID','NINFO','NS','NSAP-PTR','OPENPGPKEY','PTR','PX','RESINFO','RP','RT','SMIMEA','SPF','SRV','SSHFP','SVCB','TALINK','TLSA','TXT','URI','X25','ZONEMD'] || self in ['SOA','DNSKEY','RRSIG','NSEC','NSEC3','NSEC3PARAM','CDS','CDNSKEY'] || self.matches('^TYPE(0|[1-9][0-9]{0,4})$')",message="must be a record type in upper case, such as A, AAAA, CNAME, MX, TXT, SRV, CAA, NS, PTR, SVCB, HTTPS, TLSA, SSHFP, NAPTR or DNAME, or TYPE and its number (RFC 3597), such as TYPE65280"
type RecordType string

// The rules for A and AAAA look at the first three values: to look at all 64 would take more than the cost that the API
// server allows for a rule. The renderer looks at every value of every type and reports findings.

// ZoneRecord is the record set of one name and type.
//
// +kubebuilder:validation:XValidation:rule="self.name != '@' || self.type != 'NS'",message="the operator owns the NS records of the zone itself; to delegate a name below it to other servers, give that name",fieldPath=".type"
// +kubebuilder:validation:XValidation:rule="self.name != '@' || self.type != 'CNAME'",message="a CNAME can't stand at @, beside the SOA and NS of the zone: use A, AAAA or HTTPS records",fieldPath=".type"
// +kubebuilder:validation:XValidation:rule="!(self.type in ['CNAME','DNAME']) || self.values.size() == 1",message="a CNAME or DNAME has exactly one value",messageExpression="self.name + ': a CNAME or DNAME has exactly one value'",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="self.type != 'A' || [0, 1, 2].all(i, i >= self.values.size() || (isIP(self.values[i]) && ip(self.values[i]).family() == 4))",message="the values of an A record are IPv4 addresses, such as 10.1.0.25",messageExpression="self.name + ': the values of an A record are IPv4 addresses, such as 10.1.0.25'",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="self.type != 'AAAA' || [0, 1, 2].all(i, i >= self.values.size() || (isIP(self.values[i]) && ip(self.values[i]).family() == 6))",message="the values of an AAAA record are IPv6 addresses, such as 2001:db8::25",messageExpression="self.name + ': the values of an AAAA record are IPv6 addresses, such as 2001:db8::25'",fieldPath=".values"
type ZoneRecord struct {
	// name is the owner of the records: relative to the zone, e.g. mail or _ldap._tcp; "@" for the zone itself; "*" or
	// "*.office" for a wildcard; or absolute with a dot at the end, e.g. mail.pay.bank.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=254
	// +kubebuilder:validation:XValidation:rule="self.matches('^(@|([*]|[A-Za-z0-9_/-]{1,63})([.][A-Za-z0-9_/-]{1,63})*[.]?)$')",message="must be @ (the zone itself), or a name in the zone such as mail, _ldap._tcp or *.office (* only as the first label), with a dot at the end if it is absolute; labels of letters, digits, - and _, at most 63 characters each"
	Name string `json:"name,omitempty"`

	// type is the type of the records in upper case, such as A, AAAA, CNAME, MX, TXT, SRV, CAA, NS, PTR, SVCB, HTTPS, TLSA,
	// SSHFP, NAPTR or DNAME. A type without a mnemonic is written TYPE and its number, with values in the form of
	// RFC 3597, e.g. TYPE65280 and \# 4 0a000001.
	//
	// +required
	Type RecordType `json:"type,omitempty"`

	// ttl is the TTL of the records. Left out: the zone's ttl.default.
	//
	// +optional
	TTL *RecordTTL `json:"ttl,omitempty"`

	// values are the records' data as in a zone file, one entry for each record, e.g. [10.1.0.25], ["10 mail"] or
	// ["0 5 389 dc1", "0 5 389 dc2"]. Domain names are relative to the zone; absolute ones end in a dot. The value of a
	// TXT record is the text itself and needs no quotes inside it, e.g. ["v=spf1 mx -all"]; one that begins with a
	// double quote is read as a zone file's quoted strings. Order does not matter. At most 64 values of 1024
	// characters; larger ones come from recordsFrom.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=1024
	Values []string `json:"values,omitempty"`
}

// RecordsSource is one source of records. Exactly one of its fields is set.
//
// +kubebuilder:validation:ExactlyOneOf=configMapKeyRef
type RecordsSource struct {
	// configMapKeyRef names a key of a ConfigMap that holds zone file text (RFC 1035 §5), e.g.
	// {name: legacy-zone, key: zonefile}. Its SOA, the NS of the zone itself and DNSSEC records are left out, with a
	// finding that counts them. $ORIGIN starts as the zone's name; $INCLUDE is not allowed.
	//
	// +optional
	ConfigMapKeyRef *ConfigMapKeyRef `json:"configMapKeyRef,omitempty"`
}

// ConfigMapKeyRef names a key of a ConfigMap in the namespace of the object.
type ConfigMapKeyRef struct {
	// name is the name of the ConfigMap.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="must be the name of a ConfigMap: lower case letters, digits, - and ."
	Name string `json:"name,omitempty"`

	// key is the key in its data, e.g. zonefile.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9._-]+$')",message="must be a key of a ConfigMap: letters, digits, -, _ and ."
	Key string `json:"key,omitempty"`
}

// AllowedChildren grants names to child zones of some namespaces.
type AllowedChildren struct {
	// namespaces says whose DNSZones may have the names.
	//
	// +required
	Namespaces NamespaceSelection `json:"namespaces,omitzero"`

	// names are the child zones, absolute, in lower case, without a dot at the end: a zone's name, e.g.
	// pay.bank; "*.pay.bank" for every zone below pay.bank, at any depth; or "*" for every zone below this one.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=191
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^([*]|([*][.])?[a-z0-9_/-]{1,63}([.][a-z0-9_/-]{1,63})*)$')",message="must be the absolute name of a child zone in lower case without a dot at the end, such as pay.bank, or *.pay.bank for every zone below it, or * for every zone below this one"
	Names []string `json:"names,omitempty"`
}

// ZoneECS says which resolvers are believed about their clients.
type ZoneECS struct {
	// trustedResolvers are the resolvers' addresses, as networks, e.g. [10.1.0.53/32, "2001:db8::/64"]. What others tell
	// is ignored. Resolvers then keep an answer for each network of clients: networks longer than /24 or /56 in
	// Datacenters and DynamicRecords cost them memory and are a finding.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	TrustedResolvers []CIDR `json:"trustedResolvers,omitempty"`
}

// AllowedRecords grants names of a zone to DynamicRecords of some namespaces.
type AllowedRecords struct {
	// namespaces says whose DynamicRecords may have the names.
	//
	// +required
	Namespaces NamespaceSelection `json:"namespaces,omitzero"`

	// hosts are names relative to the zone: a name, e.g. app; "*.app" for every name below app; "*" for every name but
	// the zone itself; "@" for the zone itself, which has to be named explicitly.
	//
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^(@|[*]|([*][.])?[a-z0-9_/-]{1,63}([.][a-z0-9_/-]{1,63})*)$')",message="must be a name relative to the zone in lower case, such as app, or *.app for every name below it, or * for every name but the zone itself, or @ for the zone itself"
	Hosts []string `json:"hosts,omitempty"`
}

// ZoneGuard limits how much one update may remove. If an update would remove more than minDeletes records and also more
// than maxDeletePercent percent of its source (records, or one entry of recordsFrom) or of the zone, none of its removals
// happen; additions do. The condition RemovalWithheld then says what would go, and how to approve it. Names below a child
// zone whose delegation would vanish count too.
type ZoneGuard struct {
	// maxDeletePercent is the share of the records, in percent, that an update may remove. 100 switches the guard off.
	// Default: 30.
	//
	// +optional
	// +kubebuilder:default=30
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	MaxDeletePercent *int32 `json:"maxDeletePercent,omitempty"`

	// minDeletes is the number of records that an update may always remove, whatever their share. Default: 10.
	//
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000000
	MinDeletes *int32 `json:"minDeletes,omitempty"`
}

// DNSZoneStatus is what the operator found and what servers serve.
type DNSZoneStatus struct {
	// conditions are Accepted, Programmed, Degraded, Delegated, RemovalWithheld, Oversized, and Ready, which sums them up:
	// accepted and programmed.
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

	// published is the version of the zone that servers are to serve. It is written before servers get it, so that no
	// serial is ever used for two contents.
	//
	// +optional
	Published *PublishedVersion `json:"published,omitempty"`

	// programmed says how many servers serve the published version, of how many that should, e.g. 4/4.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Programmed string `json:"programmed,omitempty"`

	// parent is the DNSZone that delegates to this one, as namespace/name. Empty for an apex zone.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=317
	Parent string `json:"parent,omitempty"`

	// mode says where the zone's content comes from. Primary: from this object and what it refers to.
	//
	// +optional
	// +kubebuilder:validation:Enum=Primary
	Mode ZoneMode `json:"mode,omitempty"`

	// records is the number of records served, with those that the operator makes.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Records int32 `json:"records,omitempty"`

	// nameServers are the names in the zone's NS records, absolute without a dot at the end, e.g. ns-dc-a.pay.bank.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=13
	// +kubebuilder:validation:items:MaxLength=253
	NameServers []string `json:"nameServers,omitempty"`

	// datacenters says for each chosen datacenter how many of its servers are current.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Datacenters []ZoneDatacenterStatus `json:"datacenters,omitempty"`

	// sources counts the records that each source gave to the published version: spec.records, and the entries of
	// recordsFrom as configmap/NAME/KEY. The guard compares with these counts.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=65
	Sources []SourceStatus `json:"sources,omitempty"`

	// findings are the mistakes in the zone's records: what was left out or changed, and why. The first 32.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Findings []Finding `json:"findings,omitempty"`

	// findingsTotal is the number of all findings.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	FindingsTotal int32 `json:"findingsTotal,omitempty"`
}

// ZoneMode says where the content of a zone comes from.
type ZoneMode string

// ZoneModePrimary is the mode of a zone whose content comes from its DNSZone and what that refers to.
const ZoneModePrimary ZoneMode = "Primary"

// PublishedVersion is one version of a zone's content.
type PublishedVersion struct {
	// serial is the SOA serial. It grows with every change of content, in the arithmetic of RFC 1982.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	Serial int64 `json:"serial,omitempty"`

	// digest identifies the content without its serial: equal content has the same digest.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`

	// records is the number of records in this version.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Records int32 `json:"records,omitempty"`
}

// SourceStatus is what one source of records gave to the published version.
type SourceStatus struct {
	// name is the source: spec.records, or the ConfigMap and key as configmap/NAME/KEY.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=520
	Name string `json:"name,omitempty"`

	// records is the number of records from the source.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Records int32 `json:"records,omitempty"`
}

// ZoneDatacenterStatus is how one datacenter serves a zone.
type ZoneDatacenterStatus struct {
	// name is the name of the Datacenter.
	//
	// +required
	Name DatacenterName `json:"name,omitempty"`

	// servers says how many of the datacenter's servers serve the published version, e.g. 2/2.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Servers string `json:"servers,omitempty"`

	// serial is the lowest serial that a connected server of the datacenter serves. Left out while none is known.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	Serial *int64 `json:"serial,omitempty"`
}

// Finding is one mistake in a zone's records and what was done about it.
type Finding struct {
	// source is where the record is written: spec.records, or the ConfigMap and key as configmap/NAME/KEY.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=520
	Source string `json:"source,omitempty"`

	// line is the line in the source's text, from 1. Left out for records that are not lines of a text.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	Line int32 `json:"line,omitempty"`

	// record is the owner and type, or the beginning of the text in question, e.g. mail.pay.bank. MX.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Record string `json:"record,omitempty"`

	// reason is the kind of mistake in one word, e.g. CNAMEConflict.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`

	// message says what is wrong, what was done about it, and where possible what to do.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}
