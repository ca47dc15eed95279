package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HealthProbe says how to find out whether a target is up, how often, and who is believed. The address comes from the
// target, the rest from the probe. The authoritative servers themselves probe, from where they stand, and only what their
// Datacenter lets probes reach.
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
// +kubebuilder:validation:XValidation:rule="!has(self.spec.calculated) || !self.spec.calculated.probes.exists(p, p.name == self.metadata.name)",message="a probe can't be calculated of itself",fieldPath=".spec.calculated.probes"
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
	// +kubebuilder:default={conditions: {{type: "Accepted", status: "Unknown", reason: "Pending", message: "No controller has looked at this object yet", lastTransitionTime: "1970-01-01T00:00:00Z"}, {type: "Ready", status: "Unknown", reason: "Pending", message: "No controller has looked at this object yet", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
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
// +kubebuilder:validation:Enum=TCP;HTTP;HTTPS;TLS;GRPC;DNS;ICMP;Calculated
type ProbeType string

const (
	// ProbeTCP connects.
	ProbeTCP ProbeType = "TCP"
	// ProbeHTTP makes an HTTP request.
	ProbeHTTP ProbeType = "HTTP"
	// ProbeHTTPS makes an HTTPS request.
	ProbeHTTPS ProbeType = "HTTPS"
	// ProbeTLS shakes hands, and looks at the certificate.
	ProbeTLS ProbeType = "TLS"
	// ProbeGRPC asks a gRPC health service.
	ProbeGRPC ProbeType = "GRPC"
	// ProbeDNS makes a DNS query.
	ProbeDNS ProbeType = "DNS"
	// ProbeICMP sends an echo request (ping).
	ProbeICMP ProbeType = "ICMP"
	// ProbeCalculated asks nobody: it is made of other probes.
	ProbeCalculated ProbeType = "Calculated"
)

// HealthProbeSpec is a probe as its owner wants it.
//
// +kubebuilder:validation:XValidation:rule="(self.type == 'TCP') == has(self.tcp)",message="tcp is required when type is TCP, and must be left out otherwise",fieldPath=".tcp"
// +kubebuilder:validation:XValidation:rule="(self.type == 'HTTP') == has(self.http)",message="http is required when type is HTTP, and must be left out otherwise",fieldPath=".http"
// +kubebuilder:validation:XValidation:rule="(self.type == 'HTTPS') == has(self.https)",message="https is required when type is HTTPS, and must be left out otherwise",fieldPath=".https"
// +kubebuilder:validation:XValidation:rule="(self.type == 'TLS') == has(self.tls)",message="tls is required when type is TLS, and must be left out otherwise",fieldPath=".tls"
// +kubebuilder:validation:XValidation:rule="(self.type == 'GRPC') == has(self.grpc)",message="grpc is required when type is GRPC, and must be left out otherwise",fieldPath=".grpc"
// +kubebuilder:validation:XValidation:rule="(self.type == 'DNS') == has(self.dns)",message="dns is required when type is DNS, and must be left out otherwise",fieldPath=".dns"
// +kubebuilder:validation:XValidation:rule="(self.type == 'Calculated') == has(self.calculated)",message="calculated is required when type is Calculated, and must be left out otherwise",fieldPath=".calculated"
// +kubebuilder:validation:XValidation:rule="self.type != 'Calculated' || !has(self.address)",message="a Calculated probe asks nobody: address is for the probes that it is made of",fieldPath=".address"
// +kubebuilder:validation:XValidation:rule="[self.interval, self.timeout].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || duration(self.timeout) < duration(self.interval)",message="timeout must be below interval",fieldPath=".timeout"
// +kubebuilder:validation:XValidation:rule="!has(self.idleInterval) || [self.interval, self.idleInterval].exists(d, !d.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')) || duration(self.idleInterval) >= duration(self.interval)",message="idleInterval must not be below interval",fieldPath=".idleInterval"
type HealthProbeSpec struct {
	// type is the kind of probe: TCP (the port accepts connections), HTTP or HTTPS (a request gets a wanted answer), TLS
	// (the handshake succeeds, and the certificate does not end soon), GRPC (the gRPC health service says SERVING), DNS
	// (a query gets a wanted answer), ICMP (the address answers a ping) or Calculated (enough of other probes are up).
	// The field named like it has its settings; ICMP has none.
	//
	// +required
	Type ProbeType `json:"type,omitempty"`

	// tcp has the settings of a probe of the type TCP.
	//
	// +optional
	TCP *TCPProbe `json:"tcp,omitempty"`

	// http has the settings of a probe of the type HTTP.
	//
	// +optional
	HTTP *HTTPProbe `json:"http,omitempty"`

	// https has the settings of a probe of the type HTTPS.
	//
	// +optional
	HTTPS *HTTPSProbe `json:"https,omitempty"`

	// tls has the settings of a probe of the type TLS.
	//
	// +optional
	TLS *TLSProbe `json:"tls,omitempty"`

	// grpc has the settings of a probe of the type GRPC.
	//
	// +optional
	GRPC *GRPCProbe `json:"grpc,omitempty"`

	// dns has the settings of a probe of the type DNS.
	//
	// +optional
	DNS *DNSProbe `json:"dns,omitempty"`

	// calculated has the settings of a probe of the type Calculated. It has no schedule of its own: interval and what
	// follows it say nothing there.
	//
	// +optional
	Calculated *CalculatedProbe `json:"calculated,omitempty"`

	// address is what the probe asks instead of the targets' addresses, e.g. 192.0.2.9. Then all targets are as this
	// one answers. A probe that gates a pool needs it.
	//
	// +optional
	Address IP `json:"address,omitempty"`

	// interval is the time between two probes of a target from one server, 1s to 1h, with a jitter of 10%. Default: 10s.
	//
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || (duration(self) >= duration('1s') && duration(self) <= duration('1h'))",message="interval must be between 1s and 1h"
	Interval Duration `json:"interval,omitempty"`

	// idleInterval is the interval while nobody asks for any of the names that the probe is for, e.g. 60s; it must not be
	// below interval. Left out: interval. It is not used for a DynamicRecord whose objectives.rto it would break: that is
	// probed at interval all the time, as its condition RTOFeasible says.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || (duration(self) >= duration('1s') && duration(self) <= duration('1h'))",message="idleInterval must be between 1s and 1h"
	IdleInterval *Duration `json:"idleInterval,omitempty"`

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

	// holdDown is for how long after a change of a target's state it does not change again, e.g. 30s; 1h at most. Left
	// out: thresholds alone decide.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) <= duration('1h')",message="holdDown must be 1h or less"
	HoldDown *Duration `json:"holdDown,omitempty"`

	// vantage says which datacenters' probes decide.
	//
	// +optional
	// +kubebuilder:default={policy: Quorum}
	Vantage ProbeVantage `json:"vantage,omitzero"`
}

// TCPProbe has the settings of a probe by connecting. Nothing is sent.
type TCPProbe struct {
	// port is the TCP port, 1 to 65535.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// HTTPProbe has the settings of a probe by HTTP request. The request goes to the target's address, whatever the host is.
type HTTPProbe struct {
	// port is the TCP port, 1 to 65535. Default: 80.
	//
	// +optional
	// +kubebuilder:default=80
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	HTTPRequest `json:",inline"`
}

// HTTPSProbe has the settings of a probe by HTTPS request. The request goes to the target's address, whatever the host is.
// The target may choose HTTP/2.
type HTTPSProbe struct {
	// port is the TCP port, 1 to 65535. Default: 443.
	//
	// +optional
	// +kubebuilder:default=443
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	HTTPRequest `json:",inline"`

	// tls says how the connection is made. Left out: the certificate must be of an authority that the servers' system
	// trusts, and for the host.
	//
	// +optional
	TLS *TLSSettings `json:"tls,omitempty"`
}

// HTTPMethod is the method of a request.
//
// +kubebuilder:validation:Enum=GET;HEAD;OPTIONS;POST
type HTTPMethod string

// HTTPMethodGet is the method of most requests.
const HTTPMethodGet HTTPMethod = "GET"

// HTTPRequest is an HTTP request, and the answer to it that means up.
type HTTPRequest struct {
	// method is GET, HEAD, OPTIONS or POST, with no body. Default: GET.
	//
	// +optional
	// +kubebuilder:default=GET
	Method HTTPMethod `json:"method,omitempty"`

	// path is the path and query of the request, e.g. /healthz. Default: /.
	//
	// +optional
	// +kubebuilder:default="/"
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/')",message="path must begin with /"
	// +kubebuilder:validation:XValidation:rule="self.matches('^[!-~]*$')",message="path must be of printable ASCII characters without spaces: write %20 for a space"
	Path string `json:"path,omitempty"`

	// host is the Host header, and the name in the TLS handshake, e.g. app.pay.bank. It is never looked up. Left out: the
	// target's address.
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

	// expectedBody is what the body must have to mean up. Its first 64 KiB are looked at. Left out: anything.
	//
	// +optional
	ExpectedBody *ExpectedBody `json:"expectedBody,omitempty"`

	// followRedirects is how many redirects are followed, 0 to 10, all to the target's address. One to another host is
	// never followed: what that answers says nothing about the target. Default: 0: a redirect is the answer.
	//
	// +optional
	// +kubebuilder:default=0
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	FollowRedirects *int32 `json:"followRedirects,omitempty"`
}

// ExpectedBody is what a body must have: exactly one of the fields.
//
// +kubebuilder:validation:XValidation:rule="has(self.contains) != has(self.matches)",message="give exactly one of contains (a text) and matches (a regular expression)"
type ExpectedBody struct {
	// contains is a text that the body must have in it, e.g. "status": "UP".
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Contains string `json:"contains,omitempty"`

	// matches is a regular expression (RE2 syntax) that must match somewhere in the body, e.g. "status":\s*"UP".
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="''.matches(self) || !''.matches(self)",message="must be a regular expression in RE2 syntax"
	Matches string `json:"matches,omitempty"`
}

// CertificateCheck says whether certificates are checked.
//
// +kubebuilder:validation:Enum=Full;None
type CertificateCheck string

const (
	// CertificateCheckFull checks authority, name and dates.
	CertificateCheckFull CertificateCheck = "Full"
	// CertificateCheckNone takes any certificate.
	CertificateCheckNone CertificateCheck = "None"
)

// TLSSettings say how a TLS connection is made.
//
// +kubebuilder:validation:XValidation:rule="self.certificateCheck != 'None' || !has(self.certificateAuthority)",message="with certificateCheck None no authority is asked: leave certificateAuthority out",fieldPath=".certificateAuthority"
type TLSSettings struct {
	// serverName is the name in the handshake (SNI) and that which the certificate must be for, e.g. app.pay.bank. Left
	// out: the host of a request; where there is none, the target's address, which the certificate must be for then.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9._-]+$')",message="must be a host name such as app.pay.bank"
	ServerName string `json:"serverName,omitempty"`

	// certificateCheck is Full (the certificate must be of a known authority, for the name, and not have ended) or None
	// (any certificate will do). Default: Full.
	//
	// +optional
	// +kubebuilder:default=Full
	CertificateCheck CertificateCheck `json:"certificateCheck,omitempty"`

	// certificateAuthority has the certificates, in PEM form, of the authorities that are known. Left out: those that the
	// servers' system trusts.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	// +kubebuilder:validation:XValidation:rule="self.contains('-----BEGIN CERTIFICATE-----')",message="must have a certificate in PEM form: -----BEGIN CERTIFICATE----- ..."
	CertificateAuthority string `json:"certificateAuthority,omitempty"`

	// clientCertificateRef names a Secret of the namespace, of the type kubernetes.io/tls, with the certificate and key
	// that the probe shows. The operator reads it by name and hands it to the servers that probe for the namespace. It
	// may do so only where a RoleBinding in the namespace gives its ServiceAccount the ClusterRole
	// fingerpost-probe-secrets, or a Role for this Secret alone.
	//
	// +optional
	ClientCertificateRef *SecretRef `json:"clientCertificateRef,omitempty"`
}

// SecretRef names a Secret in the namespace of the object.
type SecretRef struct {
	// name is the name of the Secret, e.g. probe-client.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// TLSProbe has the settings of a probe by TLS handshake.
type TLSProbe struct {
	// port is the TCP port, 1 to 65535. Default: 443.
	//
	// +optional
	// +kubebuilder:default=443
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	TLSSettings `json:",inline"`

	// degradedDays makes a target Degraded, so that others go before it, when its certificate or one of its issuers' ends
	// in fewer days, 0 to 3650; 0: never. Default: 14.
	//
	// +optional
	// +kubebuilder:default=14
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3650
	DegradedDays *int32 `json:"degradedDays,omitempty"`
}

// GRPCProbe has the settings of a probe by the gRPC health service (grpc.health.v1).
type GRPCProbe struct {
	// port is the TCP port, 1 to 65535.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// service is the name of the gRPC service that is asked for, e.g. pay.Ledger. Left out: the server as a whole.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Service string `json:"service,omitempty"`

	// tls has the probe use TLS, and says how; {} for the defaults. Left out: the connection is not encrypted.
	//
	// +optional
	TLS *TLSSettings `json:"tls,omitempty"`
}

// DNSProbeTransport is how a DNS query travels.
//
// +kubebuilder:validation:Enum=UDP;TCP
type DNSProbeTransport string

const (
	// DNSProbeUDP asks over UDP, and again over TCP where an answer was truncated and is needed.
	DNSProbeUDP DNSProbeTransport = "UDP"
	// DNSProbeTCP asks over TCP.
	DNSProbeTCP DNSProbeTransport = "TCP"
)

// DNSProbe has the settings of a probe by DNS query.
//
// +kubebuilder:validation:XValidation:rule="!has(self.expectedAnswers) || self.expectedRcode == 'NOERROR'",message="only NOERROR comes with answers: leave expectedAnswers out",fieldPath=".expectedAnswers"
type DNSProbe struct {
	// port is the port, 1 to 65535. Default: 53.
	//
	// +optional
	// +kubebuilder:default=53
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	// transport is UDP or TCP. Default: UDP.
	//
	// +optional
	// +kubebuilder:default=UDP
	Transport DNSProbeTransport `json:"transport,omitempty"`

	// name is the domain name to ask for, e.g. pay.bank, or "." for the root.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^([.]|([A-Za-z0-9_*/-]{1,63}[.])*[A-Za-z0-9_*/-]{1,63}[.]?)$')",message="must be a domain name such as pay.bank, or . for the root"
	Name string `json:"name,omitempty"`

	// type is the type of records to ask for: A, AAAA, CAA, CNAME, DNSKEY, DS, HTTPS, MX, NAPTR, NS, PTR, SOA, SRV, SVCB
	// or TXT.
	//
	// +required
	// +kubebuilder:validation:Enum=A;AAAA;CAA;CNAME;DNSKEY;DS;HTTPS;MX;NAPTR;NS;PTR;SOA;SRV;SVCB;TXT
	Type string `json:"type,omitempty"`

	// expectedRcode is the response code that means up: NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP or REFUSED. Default: NOERROR.
	//
	// +optional
	// +kubebuilder:default=NOERROR
	// +kubebuilder:validation:Enum=NOERROR;FORMERR;SERVFAIL;NXDOMAIN;NOTIMP;REFUSED
	ExpectedRcode string `json:"expectedRcode,omitempty"`

	// expectedAnswers are data that must be among the records of the type in the answer, as in a zone file, e.g.
	// [10.1.9.9] or ["10 mail.pay.bank."]; names in them are absolute. Left out: any answer will do, also an empty one.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	ExpectedAnswers []string `json:"expectedAnswers,omitempty"`
}

// CalculatedProbe is up if enough of other probes are up for a target. It follows them at once.
//
// +kubebuilder:validation:XValidation:rule="self.atLeast <= self.probes.size()",message="atLeast must not be above the number of probes: it could never be up",fieldPath=".atLeast"
type CalculatedProbe struct {
	// atLeast is how many of the probes must be up, 1 to 64.
	//
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	AtLeast int32 `json:"atLeast,omitempty"`

	// probes are HealthProbes of the namespace, at most 64, e.g. [{name: https}, {name: database}]. They may be Calculated
	// themselves, but not of each other.
	//
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Probes []ProbeRef `json:"probes,omitempty"`
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
//
// +kubebuilder:validation:XValidation:rule="self.policy != 'Local' || !has(self.datacenters)",message="with the policy Local each datacenter follows its own probes: leave datacenters out",fieldPath=".datacenters"
type ProbeVantage struct {
	// policy is Local (each datacenter follows its own probes), Any (up if one datacenter says up), All (up only if
	// every one does) or Quorum (the majority). Default: Quorum.
	//
	// +optional
	// +kubebuilder:default=Quorum
	Policy VantagePolicy `json:"policy,omitempty"`

	// datacenters are those that vote, e.g. [dc-a, dc-b, witness]. Left out: that of the target's pool and the two nearest
	// to it.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Datacenters []DatacenterName `json:"datacenters,omitempty"`
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
