package render_test

import (
	"testing"

	"golang.org/x/tools/txtar"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	dnsprobe "github.com/fingerpost-dns/fingerpost/dnsserver/probe"
)

// probe reads a HealthProbe of the namespace payments.
func probe(t *testing.T, name, spec string) *v1alpha1.HealthProbe {
	t.Helper()
	p := &v1alpha1.HealthProbe{}
	p.Namespace, p.Name = "payments", name
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProbeFaults(t *testing.T) {
	known := map[types.NamespacedName]*v1alpha1.HealthProbe{}
	for name, spec := range map[string]string{
		"icmp":      `{type: ICMP}`,
		"both":      `{type: Calculated, calculated: {atLeast: 2, probes: [{name: icmp}, {name: icmp-too}]}}`,
		"icmp-too":  `{type: ICMP}`,
		"round":     `{type: Calculated, calculated: {atLeast: 1, probes: [{name: and-round}]}}`,
		"and-round": `{type: Calculated, calculated: {atLeast: 1, probes: [{name: icmp}, {name: round}]}}`,
		"bad":       `{type: DNS, dns: {name: app.pay.bank, type: MX, expectedAnswers: [mail]}}`,
	} {
		known[types.NamespacedName{Namespace: "payments", Name: name}] = probe(t, name, spec)
	}
	secrets := map[types.NamespacedName]render.Refusal{
		{Namespace: "payments", Name: "gone"}: render.Refuse(v1alpha1.ReasonSecretNotFound, "there is no Secret payments/gone"),
	}
	known[types.NamespacedName{Namespace: "payments", Name: "without"}] = probe(t, "without", `{type: TLS, tls: {clientCertificateRef: {name: gone}}}`)
	for name, c := range map[string]struct{ probe, spec, reason, message string }{
		"a Secret that can be used is fine": {"x", `{type: TLS, tls: {clientCertificateRef: {name: here}}}`, "", ""},
		"a client certificate must be there": {"x", `{type: TLS, tls: {clientCertificateRef: {name: gone}}}`,
			v1alpha1.ReasonSecretNotFound, "clientCertificateRef: there is no Secret payments/gone"},
		"also of the parts of a probe": {"x", `{type: Calculated, calculated: {atLeast: 1, probes: [{name: without}]}}`,
			v1alpha1.ReasonSecretNotFound, "spec.calculated.probes: HealthProbe without: clientCertificateRef: there is no Secret payments/gone"},
		"one that asks is fine":          {"x", `{type: TCP, tcp: {port: 80}}`, "", ""},
		"one that is calculated is fine": {"x", `{type: Calculated, calculated: {atLeast: 1, probes: [{name: both}, {name: icmp}]}}`, "", ""},
		"one can't be made of itself": {"round", `{type: Calculated, calculated: {atLeast: 1, probes: [{name: and-round}]}}`,
			v1alpha1.ReasonProbeCycle, "spec.calculated.probes: HealthProbe round is calculated of itself: round, and-round, round"},
		"nor of those that are made of themselves": {"x", `{type: Calculated, calculated: {atLeast: 1, probes: [{name: round}]}}`,
			v1alpha1.ReasonProbeCycle, "spec.calculated.probes: HealthProbe round is calculated of itself: x, round, and-round, round"},
		"nor of one that does not exist": {"x", `{type: Calculated, calculated: {atLeast: 1, probes: [{name: none}]}}`,
			v1alpha1.ReasonProbeNotFound, `spec.calculated.probes: there is no HealthProbe "none" in namespace "payments"`},
		"nor of a bad one": {"x", `{type: Calculated, calculated: {atLeast: 1, probes: [{name: bad}]}}`,
			v1alpha1.ReasonProbeNotAccepted, `spec.calculated.probes: HealthProbe bad: dns.expectedAnswers: "mail" is no data of a record of type MX`},
		"an answer is of the type": {"x", `{type: DNS, dns: {name: app.pay.bank, type: MX, expectedAnswers: [mail]}}`,
			v1alpha1.ReasonInvalidSpec, `dns.expectedAnswers: "mail" is no data of a record of type MX`},
		"an answer is one": {"x", `{type: DNS, dns: {name: app.pay.bank, type: TXT, expectedAnswers: ["a\nb"]}}`,
			v1alpha1.ReasonInvalidSpec, `dns.expectedAnswers: "a\nb" is no data of a record of type TXT`},
		"an authority is a certificate": {"x", `{type: GRPC, grpc: {port: 1, tls: {certificateAuthority: "-----BEGIN CERTIFICATE-----"}}}`,
			v1alpha1.ReasonInvalidSpec, "certificateAuthority has no certificate that can be read"},
		"a type that is not known is refused": {"x", `{type: QUIC}`, v1alpha1.ReasonInvalidSpec, `spec.type "QUIC" is not known, or lacks its settings`},
	} {
		t.Run(name, func(t *testing.T) {
			fault := render.ProbeFault(probe(t, c.probe, c.spec), known, secrets)
			switch {
			case fault == nil && c.reason != "":
				t.Errorf("accepted, wanted %s", c.message)
			case fault != nil && (fault.Reason() != c.reason || fault.Error() != c.message):
				t.Errorf("%s: %s\nwanted %s: %s", fault.Reason(), fault, c.reason, c.message)
			}
		})
	}
}

// TestServersCanRunWhatIsAccepted holds the two ends of a probe's way together: what is accepted here is a probe there.
func TestServersCanRunWhatIsAccepted(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/probes-of-every-type.txtar")
	if err != nil {
		t.Fatal(err)
	}
	w := parseEstate(t, archive.Files[0].Data)
	steered := render.SteerZone(render.SteeredInputs{
		Zone: w.Zones[0], Placement: &render.Placement{Apex: mustName(t, "pay.bank.")}, Records: w.dynamic, Probes: w.probes,
	})
	n := 0
	for key, d := range steered.Decisions {
		if fault := render.ProbeFault(w.probes[key], w.probes, nil); (fault == nil) != (d.Refused == nil) {
			t.Errorf("HealthProbe %s: %v, DynamicRecord of that name: %v", key, fault, d.Refused)
		}
		for _, p := range d.Record.GetProbes() {
			if p.GetCalculated() != nil {
				continue
			}
			n++
			if _, err := dnsprobe.New(p, dnsprobe.Env{}); err != nil {
				t.Errorf("accepted, and no server can run it: %v", err)
			}
		}
	}
	if n < 13 {
		t.Errorf("only %d probes were tried", n)
	}
}

func TestProbeSecret(t *testing.T) {
	for spec, want := range map[string]string{
		`{type: ICMP}`:             "",
		`{type: HTTPS, https: {}}`: "",
		`{type: HTTPS, https: {tls: {clientCertificateRef: {name: a}}}}`:                             "a",
		`{type: TLS, tls: {clientCertificateRef: {name: b}}}`:                                        "b",
		`{type: GRPC, grpc: {port: 1, tls: {clientCertificateRef: {name: c}}}}`:                      "c",
		`{type: TCP, tcp: {port: 1}, https: {tls: {clientCertificateRef: {name: of another type}}}}`: "",
	} {
		if got := render.ProbeSecret(probe(t, "x", spec)); got != want {
			t.Errorf("%s: %q, wanted %q", spec, got, want)
		}
	}
}
