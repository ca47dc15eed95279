package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// Credentials are who this end is and whom it trusts. Both functions are called for every
// connection and may be called concurrently: what they return may change at any time.
//
// A server's certificate has the URI SAN of its group and the extended key usages of client
// and server, for it is both towards its siblings. The hub's has HubURI and the usage of a
// server. No host names are checked: an address says nothing about who may answer there.
type Credentials struct {
	Certificate func() (*tls.Certificate, error)
	Roots       func() (*x509.CertPool, error) // the authorities, used for nothing but Fingerpost
}

func (c Credentials) leaf() (*x509.Certificate, error) {
	cert, err := c.Certificate()
	if err != nil {
		return nil, err
	}
	if cert.Leaf != nil {
		return cert.Leaf, nil
	}
	if len(cert.Certificate) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return x509.ParseCertificate(cert.Certificate[0])
}

// ServerTLS is for those who listen: TLS 1.3, callers must show a certificate of the
// authorities. Which server it was made for is checked by each call.
func ServerTLS(c Credentials) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			roots, err := c.Roots()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				NextProtos:             []string{"h2"},
				ClientAuth:             tls.RequireAndVerifyClientCert,
				ClientCAs:              roots,
				SessionTicketsDisabled: true, // a resumed session would skip what the authorities are today
				GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Certificate() },
			}, nil
		},
	}
}

// HubTLS is for servers that dial the hub.
func HubTLS(c Credentials) *tls.Config {
	return dialTLS(c, func(leaf *x509.Certificate) error {
		u, err := ownURI(leaf)
		if err != nil {
			return err
		}
		if u.String() != HubURI().String() {
			return fmt.Errorf("certificate %q is for %s, wanted %s", leaf.Subject, u, HubURI())
		}
		return nil
	})
}

// SiblingTLS is for servers that dial another one of their own group.
func SiblingTLS(c Credentials) *tls.Config {
	return dialTLS(c, func(leaf *x509.Certificate) error {
		own, err := c.leaf()
		if err != nil {
			return err
		}
		want, err := CertifiedGroup(own)
		if err != nil {
			return err
		}
		got, err := CertifiedGroup(leaf)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("certificate %q is for group %s, wanted a sibling of %s", leaf.Subject, got, want)
		}
		return nil
	})
}

func dialTLS(c Credentials, check func(leaf *x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Certificate() },
		InsecureSkipVerify:   true, //nolint:gosec // VerifyConnection verifies the chain, and the URI SAN instead of a host name
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("no certificate was shown")
			}
			roots, err := c.Roots()
			if err != nil {
				return err
			}
			between := x509.NewCertPool()
			for _, cert := range s.PeerCertificates[1:] {
				between.AddCert(cert)
			}
			leaf := s.PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{
				Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			}); err != nil {
				return err
			}
			return check(leaf)
		},
	}
}

// Files are credentials in PEM files that are read again when they have changed. A change
// that can't be used (half written, a key that does not belong to the certificate) leaves
// the last good ones in force.
type Files struct {
	certificate, key, roots string

	mu      sync.Mutex
	stamps  [3]stamp
	checked time.Time
	cert    *tls.Certificate
	pool    *x509.CertPool
	err     error
}

// stamp tells one state of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// recheck is how long files are taken for unchanged after a look at them.
const recheck = time.Second

// NewFiles reads certificate, key and authorities for the first time. Who does not ask for
// others' certificates needs no authorities: roots is "".
func NewFiles(certificate, key, roots string) (*Files, error) {
	f := &Files{certificate: certificate, key: key, roots: roots}
	f.reload(time.Now())
	if f.err != nil {
		return nil, f.err
	}
	return f, nil
}

// Credentials returns the files as credentials.
func (f *Files) Credentials() Credentials {
	return Credentials{
		Certificate: func() (*tls.Certificate, error) {
			cert, _, _ := f.current()
			return cert, nil
		},
		Roots: func() (*x509.CertPool, error) {
			_, pool, _ := f.current()
			return pool, nil
		},
	}
}

// Status returns when the certificate in force expires, and why the files that are there
// now can't be used; nil if they are in force.
func (f *Files) Status() (expires time.Time, err error) {
	cert, _, err := f.current()
	return cert.Leaf.NotAfter, err
}

// Watch logs, once, that changed files can't be used, and when they can, until ctx ends.
func (f *Files) Watch(ctx context.Context, log logr.Logger) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	last := ""
	for {
		expires, err := f.Status()
		switch {
		case err == nil && last != "":
			log.Info("certificates can be used again", "expires", expires)
			last = ""
		case err != nil && err.Error() != last:
			log.Error(err, "certificates can't be used, the old ones stay in force", "expires", expires)
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Group returns the group that the certificate in force is for.
func (f *Files) Group() (GroupKey, error) {
	cert, _, _ := f.current()
	return CertifiedGroup(cert.Leaf)
}

func (f *Files) current() (*tls.Certificate, *x509.CertPool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= recheck || now.Before(f.checked) {
		f.reload(now)
	}
	return f.cert, f.pool, f.err
}

func (f *Files) reload(now time.Time) {
	f.checked = now
	var stamps [3]stamp
	for i, path := range []string{f.certificate, f.key, f.roots} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			f.err = err
			return
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	if f.err == nil && f.cert != nil && stamps == f.stamps {
		return
	}
	cert, err := tls.LoadX509KeyPair(f.certificate, f.key)
	if err != nil {
		f.err = fmt.Errorf("loading %s and %s: %w", f.certificate, f.key, err)
		return
	}
	pool := x509.NewCertPool()
	if f.roots != "" {
		pem, err := os.ReadFile(f.roots)
		if err != nil {
			f.err = err
			return
		}
		if !pool.AppendCertsFromPEM(pem) {
			f.err = fmt.Errorf("%s has no certificate in it", f.roots)
			return
		}
	}
	f.stamps, f.cert, f.pool, f.err = stamps, &cert, pool, nil
}

const (
	// maxMessage bounds what either end accepts as one message, in octets: chunkSize, the
	// parts of lists, and room.
	maxMessage = 1 << 20

	// chunkSize is how much of a zone one message carries at most, in octets.
	chunkSize = 256 << 10

	// A peer that is silent is asked for a sign of life, by servers that listen and by those
	// that dial (gRPC lets these not ask more often), and given up after deadAfter. Those that dial
	// may ask every aliveAtMost.
	aliveEvery     = 2 * time.Second
	aliveEveryDial = 10 * time.Second
	aliveAtMost    = 5 * time.Second
	deadAfter      = 5 * time.Second

	connectPatience = 3 * time.Second // for TCP
	handshakeBound  = 5 * time.Second // for all that comes before the first call
	maxStreams      = 16              // of one connection
)

// ServerOptions are for a gRPC server that a Hub or a Sibling registers with: credentials,
// limits, and keepalives that notice a dead peer within 7 s.
func ServerOptions(c Credentials) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(ServerTLS(c))),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeBound),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: aliveEvery, Timeout: deadAfter}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: aliveAtMost, PermitWithoutStream: true}),
	}
}

func dialOptions(config *tls.Config) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(dialAny),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: aliveEveryDial, Timeout: deadAfter}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectPatience}),
	}
}

// dialAny connects to one of the addresses of a host, in random order: where the managers
// share a name, the next attempt may meet the one that leads.
func dialAny(ctx context.Context, hostport string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	dialer := net.Dialer{Timeout: connectPatience / time.Duration(len(addresses))}
	for _, a := range addresses {
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(a, port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// dial makes a connection that is opened by its first call.
func dial(hostport string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+hostport, dialOptions(config)...)
}
