package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
)

// errNoSecret is what a handshake that needs a client certificate ends with if there is none.
var errNoSecret = errors.New("no client certificate")

// security is how a probe does TLS.
type security struct {
	config *tls.Config
	env    Env
	// secret is the name of the client certificate's Secret; empty: there is none.
	secret string
}

// securityOf is what the kinds with TLS have in common. name is the SNI, and what the certificate must be for; empty: the
// target's address, which is no SNI.
type securityOf struct {
	name, authorities, secret string
	skipVerify                bool
	protocols                 []string // ALPN
}

func newSecurity(cfg securityOf, env Env) (*security, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         cfg.name,
		InsecureSkipVerify: cfg.skipVerify, //nolint:gosec // what the probe's owner asks for
		NextProtos:         cfg.protocols,
		// Hybrid key exchange would double what a handshake costs, to hide nothing: probes have no secrets.
		CurvePreferences:       []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		SessionTicketsDisabled: true, // each probe sees the certificate
	}
	if cfg.authorities != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(cfg.authorities)) {
			return nil, errors.New("the certificate authority has no certificate in PEM form")
		}
	}
	return &security{config: c, env: env, secret: cfg.secret}, nil
}

// ready returns the configuration for a handshake with the target. It fails before anything is sent.
func (s *security) ready(target netip.Addr) (*tls.Config, error) {
	c := s.config
	if c.ServerName != "" && s.secret == "" {
		return c, nil
	}
	c = c.Clone()
	if c.ServerName == "" {
		c.ServerName = target.String()
	}
	if s.secret == "" {
		return c, nil
	}
	if s.env.Certificate == nil {
		return nil, errNoSecret
	}
	certificate, err := s.env.Certificate(s.secret)
	if err != nil || certificate == nil {
		return nil, errNoSecret
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	return c, nil
}

// dial connects and shakes hands; words says which of the two failed. s nil: there is no handshake.
func (s *security) dial(ctx context.Context, d *dialer, target netip.Addr, port uint16) (c *conn, state *tls.ConnectionState, failed Result) {
	var config *tls.Config
	if s != nil {
		var err error
		if config, err = s.ready(target); err != nil {
			return nil, nil, notConnected(err)
		}
	}
	c, err := d.dial(ctx, "tcp", target, port)
	if err != nil {
		return nil, nil, notConnected(err)
	}
	if s == nil {
		return c, nil, up()
	}
	secure := tls.Client(c.Conn, config)
	if err := secure.Handshake(); err != nil { //nolint:noctx // c breaks when ctx ends
		_ = c.Close()
		return nil, nil, failure(err, "connected, but no TLS handshake", "TLS handshake failed")
	}
	now := secure.ConnectionState()
	c.Conn = secure
	return c, &now, up()
}
