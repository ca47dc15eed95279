package render

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

var vantages = map[v1alpha1.VantagePolicy]steeringpb.Vantage{
	v1alpha1.VantageQuorum: steeringpb.Vantage_QUORUM, v1alpha1.VantageLocal: steeringpb.Vantage_LOCAL,
	v1alpha1.VantageAny: steeringpb.Vantage_ANY, v1alpha1.VantageAll: steeringpb.Vantage_ALL,
}

// translateProbe makes of a HealthProbe what servers are told. parts are the names of the HealthProbes that a Calculated
// one is made of, whose indexes the caller fills in.
func translateProbe(o *v1alpha1.HealthProbe) (p *steeringpb.Probe, parts []string, err error) {
	spec := &o.Spec
	p = &steeringpb.Probe{
		Source: o.Namespace + "/" + o.Name, Interval: milliseconds(&spec.Interval), Timeout: milliseconds(&spec.Timeout),
		FailureThreshold: 3, SuccessThreshold: 2, Vantage: vantages[spec.Vantage.Policy],
	}
	if spec.FailureThreshold != nil {
		p.FailureThreshold = uint32(*spec.FailureThreshold)
	}
	if spec.SuccessThreshold != nil {
		p.SuccessThreshold = uint32(*spec.SuccessThreshold)
	}
	switch h := spec.HTTPS; {
	case spec.Type == v1alpha1.ProbeHTTPS && h != nil:
		out := &steeringpb.Http{Tls: true, Port: 443, Path: h.Path, Host: h.Host}
		if h.Port != nil {
			out.Port = uint32(*h.Port)
		}
		for _, text := range h.ExpectedStatus {
			r, err := statusRange(text)
			if err != nil {
				return nil, nil, err
			}
			out.ExpectedStatus = append(out.ExpectedStatus, r)
		}
		p.Type = &steeringpb.Probe_Http{Http: out}
	default:
		return nil, nil, fmt.Errorf("spec.type %q is not known", spec.Type)
	}
	return p, nil, nil
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
