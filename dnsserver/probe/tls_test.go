package probe

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	serve := func(from, to time.Duration) uint32 {
		return uint32(webServer(t, http.NotFoundHandler(), &tls.Config{Certificates: []tls.Certificate{a.issue(from, to)}}))
	}
	expired, today, week, year := serve(-2*day, -day), serve(-day, time.Hour), serve(-day, 7*day+time.Hour), serve(-day, 365*day)
	for name, c := range map[string]struct {
		cfg  *steeringpb.Tls
		want string
	}{
		"a certificate that lasts is up":                      {&steeringpb.Tls{Port: year, DegradedDays: 21}, "Up"},
		"one that ends soon is degraded":                      {&steeringpb.Tls{Port: week, DegradedDays: 21}, "Degraded: certificate expires in 7 days"},
		"unless soon is sooner":                               {&steeringpb.Tls{Port: week, DegradedDays: 7}, "Up"},
		"or nobody cares":                                     {&steeringpb.Tls{Port: today}, "Up"},
		"one that ends today says so":                         {&steeringpb.Tls{Port: today, DegradedDays: 1}, "Degraded: certificate expires in less than a day"},
		"one that has ended is down":                          {&steeringpb.Tls{Port: expired, DegradedDays: 21}, "Down: certificate expired"},
		"if it is not checked it is degraded":                 {&steeringpb.Tls{Port: expired, DegradedDays: 21, SkipVerify: true}, "Degraded: certificate expired"},
		"or up":                                               {&steeringpb.Tls{Port: expired, SkipVerify: true}, "Up"},
		"the name is checked":                                 {&steeringpb.Tls{Port: year, ServerName: "web.pay.bank"}, "Down: certificate is not for web.pay.bank"},
		"the name may be what the certificate is for":         {&steeringpb.Tls{Port: year, ServerName: "app.pay.bank"}, "Up"},
		"what is behind the handshake does not matter":        {&steeringpb.Tls{Port: year}, "Up"},
		"a server without TLS that says nothing is timed out": {&steeringpb.Tls{Port: uint32(blackhole(t))}, "Down: connected, but no TLS handshake within 150ms"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.CertificateAuthority = a.pem
			timeout := late
			if c.cfg.Port != expired && c.cfg.Port != today && c.cfg.Port != week && c.cfg.Port != year {
				timeout = soon
			}
			p := probeOf(timeout)
			p.Type = &steeringpb.Probe_Tls{Tls: c.cfg}
			is(t, ask(t, p, anywhere(), localhost), c.want)
		})
	}
	t.Run("the chain ends with the first of its certificates", func(t *testing.T) {
		now := time.Unix(1e9, 0)
		chain := []*x509.Certificate{{NotAfter: now.Add(300 * day)}, {NotAfter: now.Add(3 * day)}, {NotAfter: now.Add(30 * day)}}
		r := (&tlsProbe{soon: 10 * day}).judge(chain, now)
		if r.String() != "Degraded: issuer's certificate expires in 3 days" || r.Code != Expiring {
			t.Error(r)
		}
	})
}
