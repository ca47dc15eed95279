package probe

import (
	"context"
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
	c, told, result := p.security.dial(ctx, p.dialer, target, p.port)
	if result.Outcome != Up {
		return result
	}
	_ = c.Close()
	return p.judge(told.chain, time.Now())
}

func (p *tlsProbe) judge(of chain, now time.Time) Result {
	left := of.ends.Sub(now)
	if p.soon == 0 || left >= p.soon {
		return up()
	}
	reason := "certificate"
	if of.issuer {
		reason = "issuer's certificate"
	}
	switch {
	case left < 0:
		reason += " expired"
	case left < day:
		reason += " expires in less than a day"
	case left < 2*day:
		reason += " expires in 1 day"
	default:
		reason += " expires in " + strconv.Itoa(int(left/day)) + " days"
	}
	return Result{Outcome: Degraded, Code: Expiring, Reason: reason}
}
