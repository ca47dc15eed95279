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
	now := time.Unix(1e9, 0)
	for want, c := range map[string]chain{
		"Degraded: issuer's certificate expires in 3 days": {now.Add(3*day + time.Hour), true},
		"Degraded: certificate expires in 1 day":           {now.Add(day), false},
		"Degraded: certificate expired":                    {now.Add(-time.Second), false},
		"Up":                                               {now.Add(10 * day), true},
	} {
		if r := (&tlsProbe{soon: 10 * day}).judge(c, now); r.String() != want {
			t.Errorf("%s, wanted %s", r, want)
		}
	}
}

func TestKnownChains(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	middle := a.authority(-day, 3*day)
	parse := func(c tls.Certificate) *x509.Certificate {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	leaf, below := parse(a.issue(-day, 2*day)), parse(middle.issue(-day, 5*day))
	pool := func(of *testAuthority) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(of.cert)
		return p
	}
	now := time.Now()
	var k knownChains
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		as    string
		roots *x509.CertPool
		at    time.Time
		ok    bool
		want  chain
	}{
		{"one is good", []*x509.Certificate{leaf}, "app.pay.bank", pool(a), now, true, chain{leaf.NotAfter, false}},
		{"it is good again", []*x509.Certificate{leaf}, "app.pay.bank", pool(a), now, true, chain{leaf.NotAfter, false}},
		{"not for another name", []*x509.Certificate{leaf}, "web.pay.bank", pool(a), now, false, chain{}},
		{"not when it has ended", []*x509.Certificate{leaf}, "app.pay.bank", pool(a), now.Add(2 * day), false, chain{}},
		{"not before its issuer is known", []*x509.Certificate{below}, "app.pay.bank", pool(a), now, false, chain{}},
		{"its issuer ends first", []*x509.Certificate{below, middle.cert}, "app.pay.bank", pool(a), now, true, chain{middle.cert.NotAfter, true}},
		{"not when the issuer has ended", []*x509.Certificate{below, middle.cert}, "app.pay.bank", pool(a), now.Add(4 * day), false, chain{}},
	} {
		if got, err := k.verify(c.chain, c.as, c.roots, c.at); (err == nil) != c.ok || got != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	if len(k.all) != 2 {
		t.Errorf("%d are known", len(k.all))
	}
	var others knownChains
	if _, err := others.verify([]*x509.Certificate{leaf}, "app.pay.bank", pool(other), now); err == nil {
		t.Error("good for another authority")
	}
}
