package probe

import (
	"context"
	"crypto/x509"
	"net/netip"
	"strconv"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// tlsProbe is up if a TLS handshake succeeds, and degraded if the certificate, or one that it was signed by on the way to
// the authority, ends soon.
type tlsProbe struct {
	dialer   *dialer
	security *security
	port     uint16
	soon     time.Duration
}

func newTLS(cfg *steeringpb.Tls, env Env) (*tlsProbe, error) {
	port, err := portOf(cfg.GetPort())
	if err != nil {
		return nil, err
	}
	s, err := newSecurity(securityOf{
		name:        cfg.GetServerName(),
		authorities: cfg.GetCertificateAuthority(),
		secret:      cfg.GetClientCertificate(),
		skipVerify:  cfg.GetSkipVerify(),
	}, env)
	if err != nil {
		return nil, err
	}
	return &tlsProbe{newDialer(env), s, port, time.Duration(min(cfg.GetDegradedDays(), 36500)) * day}, nil
}

const day = 24 * time.Hour

func (p *tlsProbe) ask(ctx context.Context, target netip.Addr) Result {
	c, state, result := p.security.dial(ctx, p.dialer, target, p.port)
	if result.Outcome != Up {
		return result
	}
	_ = c.Close()
	chain := state.PeerCertificates[:min(len(state.PeerCertificates), 1)] // unverified: what else came is any
	if len(state.VerifiedChains) > 0 {
		chain = state.VerifiedChains[0]
	}
	return p.judge(chain, time.Now())
}

// judge looks at the certificates that the target depends on, its own first.
func (p *tlsProbe) judge(chain []*x509.Certificate, now time.Time) Result {
	if p.soon == 0 || len(chain) == 0 {
		return up()
	}
	ends, whose := chain[0].NotAfter, "certificate"
	for _, c := range chain[1:] {
		if c.NotAfter.Before(ends) {
			ends, whose = c.NotAfter, "issuer's certificate"
		}
	}
	switch left := ends.Sub(now); {
	case left >= p.soon:
		return up()
	case left < 0:
		return Result{Outcome: Degraded, Code: Expiring, Reason: whose + " expired"}
	case left < day:
		return Result{Outcome: Degraded, Code: Expiring, Reason: whose + " expires in less than a day"}
	default:
		return Result{Outcome: Degraded, Code: Expiring, Reason: whose + " expires in " + strconv.Itoa(int(left/day)) + " days"}
	}
}
