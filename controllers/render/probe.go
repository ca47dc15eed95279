package render

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

var vantages = map[v1alpha1.VantagePolicy]steeringpb.Vantage{
	v1alpha1.VantageQuorum: steeringpb.Vantage_QUORUM, v1alpha1.VantageLocal: steeringpb.Vantage_LOCAL,
	v1alpha1.VantageAny: steeringpb.Vantage_ANY, v1alpha1.VantageAll: steeringpb.Vantage_ALL,
}

// ProbeFault says why a HealthProbe is not accepted; nil if it is. known are all there are, and secrets says what is wrong
// with the Secrets that they name.
func ProbeFault(o *v1alpha1.HealthProbe, known map[types.NamespacedName]*v1alpha1.HealthProbe, secrets map[types.NamespacedName]Refusal) Refusal {
	_, parts, err := translateProbe(o)
	if err != nil {
		return refuse(v1alpha1.ReasonInvalidSpec, "%v", err)
	}
	if fault := secretFault(o, secrets); fault != nil {
		return fault
	}
	l := probeList{record: &steeringpb.Record{}, namespace: o.Namespace, known: known, secrets: secrets, index: map[string]uint32{}, open: []string{o.Name}}
	for _, part := range parts {
		if _, fault := l.add(part, "spec.calculated.probes"); fault != nil {
			return fault
		}
	}
	return nil
}

// ProbeSecret is the name of the Secret, in the namespace of the HealthProbe, that its client certificate is in. Empty:
// it has none.
func ProbeSecret(o *v1alpha1.HealthProbe) string {
	t := tlsOf(&o.Spec)
	if t == nil || t.ClientCertificateRef == nil {
		return ""
	}
	return t.ClientCertificateRef.Name
}

// secretFault says what is wrong with the Secret of a HealthProbe; nil: it has none, or one that can be used.
func secretFault(o *v1alpha1.HealthProbe, secrets map[types.NamespacedName]Refusal) Refusal {
	name := ProbeSecret(o)
	if name == "" {
		return nil
	}
	fault := secrets[types.NamespacedName{Namespace: o.Namespace, Name: name}]
	if fault == nil {
		return nil
	}
	return refuse(fault.Reason(), "clientCertificateRef: %v", fault)
}

// tlsOf returns how a probe makes its TLS connection; nil: by default, or it makes none.
func tlsOf(spec *v1alpha1.HealthProbeSpec) *v1alpha1.TLSSettings {
	switch {
	case spec.Type == v1alpha1.ProbeHTTPS && spec.HTTPS != nil:
		return spec.HTTPS.TLS
	case spec.Type == v1alpha1.ProbeTLS && spec.TLS != nil:
		return &spec.TLS.TLSSettings
	case spec.Type == v1alpha1.ProbeGRPC && spec.GRPC != nil:
		return spec.GRPC.TLS
	}
	return nil
}

// translateProbe makes of a HealthProbe what servers are told. parts are the names of the HealthProbes that a Calculated
// one is made of, whose indexes the caller fills in. What was left out has its default.
func translateProbe(o *v1alpha1.HealthProbe) (p *steeringpb.Probe, parts []string, err error) {
	spec := &o.Spec
	p = &steeringpb.Probe{
		Source:           o.Namespace + "/" + o.Name,
		Interval:         cmp.Or(milliseconds(&spec.Interval), 10_000),
		IdleInterval:     milliseconds(spec.IdleInterval),
		Timeout:          cmp.Or(milliseconds(&spec.Timeout), 2_000),
		FailureThreshold: number(spec.FailureThreshold, 3),
		SuccessThreshold: number(spec.SuccessThreshold, 2),
		HoldDown:         milliseconds(spec.HoldDown),
		Address:          string(spec.Address),
		Vantage:          vantages[spec.Vantage.Policy],
		Datacenters:      texts(spec.Vantage.Datacenters),
	}
	switch {
	case spec.Type == v1alpha1.ProbeTCP && spec.TCP != nil:
		p.Type = &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: uint32(spec.TCP.Port)}}
	case spec.Type == v1alpha1.ProbeHTTP && spec.HTTP != nil:
		var h *steeringpb.Http
		h, err = translateHTTP(&spec.HTTP.HTTPRequest, number(spec.HTTP.Port, 80))
		p.Type = &steeringpb.Probe_Http{Http: h}
	case spec.Type == v1alpha1.ProbeHTTPS && spec.HTTPS != nil:
		var h *steeringpb.Http
		h, err = translateHTTPS(o)
		p.Type = &steeringpb.Probe_Http{Http: h}
	case spec.Type == v1alpha1.ProbeTLS && spec.TLS != nil:
		var t security
		t, err = translateSecurity(o)
		p.Type = &steeringpb.Probe_Tls{Tls: &steeringpb.Tls{
			Port: number(spec.TLS.Port, 443), ServerName: t.name, SkipVerify: t.skip, CertificateAuthority: t.authority,
			ClientCertificate: t.secret, DegradedDays: number(spec.TLS.DegradedDays, 14),
		}}
	case spec.Type == v1alpha1.ProbeGRPC && spec.GRPC != nil:
		var t security
		t, err = translateSecurity(o)
		p.Type = &steeringpb.Probe_Grpc{Grpc: &steeringpb.Grpc{
			Port: uint32(spec.GRPC.Port), Service: spec.GRPC.Service, Tls: spec.GRPC.TLS != nil, ServerName: t.name,
			SkipVerify: t.skip, CertificateAuthority: t.authority, ClientCertificate: t.secret,
		}}
	case spec.Type == v1alpha1.ProbeDNS && spec.DNS != nil:
		var d *steeringpb.Dns
		d, err = translateDNS(spec.DNS)
		p.Type = &steeringpb.Probe_Dns{Dns: d}
	case spec.Type == v1alpha1.ProbeICMP:
		p.Type = &steeringpb.Probe_Icmp{Icmp: &steeringpb.Icmp{}}
	case spec.Type == v1alpha1.ProbeCalculated && spec.Calculated != nil:
		p.Type = &steeringpb.Probe_Calculated{Calculated: &steeringpb.Calculated{AtLeast: uint32(spec.Calculated.AtLeast)}}
		for _, part := range spec.Calculated.Probes {
			parts = append(parts, part.Name)
		}
	default:
		err = fmt.Errorf("spec.type %q is not known, or lacks its settings", spec.Type)
	}
	if err != nil {
		return nil, nil, err
	}
	return p, parts, nil
}

func number(n *int32, otherwise uint32) uint32 {
	if n == nil {
		return otherwise
	}
	return uint32(*n)
}

func translateHTTPS(o *v1alpha1.HealthProbe) (*steeringpb.Http, error) {
	h, err := translateHTTP(&o.Spec.HTTPS.HTTPRequest, number(o.Spec.HTTPS.Port, 443))
	if err != nil {
		return nil, err
	}
	t, err := translateSecurity(o)
	if err != nil {
		return nil, err
	}
	h.Tls, h.ServerName, h.SkipVerify, h.CertificateAuthority, h.ClientCertificate = true, t.name, t.skip, t.authority, t.secret
	return h, nil
}

func translateHTTP(r *v1alpha1.HTTPRequest, port uint32) (*steeringpb.Http, error) {
	h := &steeringpb.Http{Port: port, Path: cmp.Or(r.Path, "/"), Host: r.Host, FollowRedirects: number(r.FollowRedirects, 0)}
	if r.Method != v1alpha1.HTTPMethodGet {
		h.Method = string(r.Method)
	}
	for _, text := range r.ExpectedStatus {
		s, err := statusRange(text)
		if err != nil {
			return nil, err
		}
		h.ExpectedStatus = append(h.ExpectedStatus, s)
	}
	if b := r.ExpectedBody; b != nil {
		if _, err := regexp.Compile(b.Matches); err != nil {
			return nil, fmt.Errorf("expectedBody.matches: %w", err)
		}
		h.BodyContains, h.BodyMatches = b.Contains, b.Matches
	}
	return h, nil
}

// statusRange reads 200 or 200-299.
func statusRange(text string) (*steeringpb.StatusRange, error) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("expectedStatus %q is neither a code nor a range", text)
	}
	last, err := strconv.ParseUint(to, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("expectedStatus %q is neither a code nor a range", text)
	}
	return &steeringpb.StatusRange{First: uint32(first), Last: uint32(last)}, nil
}

// security is what kinds of probes with TLS have in common.
type security struct {
	name, authority, secret string
	skip                    bool
}

func translateSecurity(o *v1alpha1.HealthProbe) (security, error) {
	t := tlsOf(&o.Spec)
	if t == nil {
		return security{}, nil
	}
	out := security{name: t.ServerName, authority: t.CertificateAuthority, skip: t.CertificateCheck == v1alpha1.CertificateCheckNone}
	if out.authority != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(out.authority)) {
		return security{}, errors.New("certificateAuthority has no certificate that can be read")
	}
	if name := ProbeSecret(o); name != "" {
		out.secret = o.Namespace + "/" + name
	}
	return out, nil
}

func translateDNS(d *v1alpha1.DNSProbe) (*steeringpb.Dns, error) {
	out := &steeringpb.Dns{
		Port: number(d.Port, 53), Name: d.Name, Type: d.Type, Answers: d.ExpectedAnswers, Tcp: d.Transport == v1alpha1.DNSProbeTCP,
	}
	if d.ExpectedRcode != "NOERROR" {
		out.Rcode = d.ExpectedRcode
	}
	if _, ok := dns.IsDomainName(d.Name); !ok {
		return nil, fmt.Errorf("dns.name: %q is no domain name", d.Name)
	}
	for _, text := range d.ExpectedAnswers {
		if r, err := dns.NewRR(". 0 IN " + d.Type + " " + text); err != nil || r == nil || strings.Contains(text, "\n") {
			return nil, fmt.Errorf("dns.expectedAnswers: %q is no data of a record of type %s", text, d.Type)
		}
	}
	return out, nil
}
