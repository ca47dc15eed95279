package probe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// errNoSecret is what a handshake that needs a client certificate ends with if there is none.
var errNoSecret = errors.New("no client certificate")

// security is how a probe does TLS.
type security struct {
	config *tls.Config
	env    Env
	check  bool // certificates
	// secret is the name of the client certificate's Secret; empty: there is none.
	secret string
	known  knownChains
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
		InsecureSkipVerify: true, //nolint:gosec // verify does it, or nobody if the probe's owner wants that
		NextProtos:         cfg.protocols,
		// Hybrid key exchange costs as much again as the rest of a handshake, to hide nothing: probes have no secrets.
		CurvePreferences:       []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		SessionTicketsDisabled: true, // each probe sees the certificate
	}
	if cfg.authorities != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(cfg.authorities)) {
			return nil, errors.New("the certificate authority has no certificate in PEM form")
		}
	}
	return &security{config: c, env: env, check: !cfg.skipVerify, secret: cfg.secret}, nil
}

// peer is what the handshake told of a target.
type peer struct {
	protocol string // by ALPN; empty: none
	chain    chain
}

// chain is when the certificates end that a target depends on: the first of them, and whether that is one of its
// issuers' and not its own.
type chain struct {
	ends   time.Time
	issuer bool
}

// dial connects and shakes hands; the Result is Up, or says which of the two failed. s nil: there is no handshake.
func (s *security) dial(ctx context.Context, d *dialer, target netip.Addr, port uint16) (*conn, peer, Result) {
	var with *tls.Config
	var p peer
	if s != nil {
		var err error
		if with, err = s.configFor(target, &p); err != nil {
			return nil, peer{}, notConnected(err)
		}
	}
	c, err := d.dial(ctx, "tcp", target, port)
	if err != nil {
		return nil, peer{}, notConnected(err)
	}
	if s == nil {
		return c, peer{}, up()
	}
	secure := tls.Client(c.Conn, with)
	if err := secure.Handshake(); err != nil { //nolint:noctx // c breaks when ctx ends
		_ = c.Close()
		return nil, peer{}, failure(err, down(Timeout, "connected, but no TLS handshake"), "TLS handshake failed")
	}
	c.Conn = secure
	return c, p, up()
}

// configFor returns the configuration for one handshake with the target, which fills in p.
func (s *security) configFor(target netip.Addr, p *peer) (*tls.Config, error) {
	c := s.config.Clone()
	if c.ServerName == "" {
		c.ServerName = target.String()
	}
	c.VerifyConnection = func(state tls.ConnectionState) error {
		p.protocol = state.NegotiatedProtocol
		if len(state.PeerCertificates) == 0 {
			return errors.New("no certificate")
		}
		if !s.check {
			p.chain = chain{ends: state.PeerCertificates[0].NotAfter} // what else came is any
			return nil
		}
		var err error
		p.chain, err = s.known.verify(state.PeerCertificates, c.ServerName, c.RootCAs, time.Now())
		return err
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

// knownChains remembers which certificates were verified. The verdict on certificates depends on nothing but them, the
// name, the authorities and the time, so it holds until the first of the chain ends. The zero value knows none.
type knownChains struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]chain // by name and certificates
}

// maxKnownChains bounds a map of knownChains: a target that shows another certificate each time must not fill memory.
const maxKnownChains = 1024

func (k *knownChains) verify(certificates []*x509.Certificate, name string, roots *x509.CertPool, now time.Time) (chain, error) {
	h := sha256.New()
	h.Write([]byte(name))
	for _, c := range certificates { // DER has its length in itself, and a name no 0
		h.Write([]byte{0})
		h.Write(c.Raw)
	}
	key := [sha256.Size]byte(h.Sum(nil))
	k.mu.Lock()
	found, ok := k.all[key]
	k.mu.Unlock()
	if ok && now.Before(found.ends) {
		return found, nil
	}
	options := x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now, Intermediates: x509.NewCertPool()}
	for _, c := range certificates[1:] {
		options.Intermediates.AddCert(c)
	}
	chains, err := certificates[0].Verify(options)
	if err != nil {
		return chain{}, err
	}
	found = chain{ends: chains[0][0].NotAfter}
	for _, c := range chains[0][1:] {
		if c.NotAfter.Before(found.ends) {
			found = chain{ends: c.NotAfter, issuer: true}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil || len(k.all) >= maxKnownChains {
		k.all = map[[sha256.Size]byte]chain{}
	}
	k.all[key] = found
	return found, nil
}
