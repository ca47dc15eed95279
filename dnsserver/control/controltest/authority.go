// Package controltest makes certificates for tests of what servers, agents and the hub tell each other.
package controltest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// Authority makes certificates that are valid for a day.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

// NewAuthority makes one for the test.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, pool: x509.NewCertPool()}
	a.cert, a.key = a.Issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pool.AddCert(a.cert)
	return a
}

// Certificate returns the authority's own.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Issue makes the certificate of a template, whose number, times and, if it has none, common name it sets.
func (a *Authority) Issue(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.Subject.CommonName == "" {
		template.Subject.CommonName = "test"
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// leaf makes the certificate of a group or of the hub, on this machine.
func (a *Authority) leaf(identity *url.URL) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	return a.Issue(&x509.Certificate{
		URIs: []*url.URL{identity}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
}

// Credentials makes those of a group, control.GroupKey.URI, or of the hub, control.HubURI.
func (a *Authority) Credentials(identity *url.URL) control.Credentials {
	a.t.Helper()
	cert, key := a.leaf(identity)
	pair := &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
	return control.Credentials{
		Certificate: func() (*tls.Certificate, error) { return pair, nil },
		Roots:       func() (*x509.CertPool, error) { return a.pool, nil },
	}
}

// Dir writes the files of a server of a group, tls.crt, tls.key and ca.crt, and returns their folder.
func (a *Authority) Dir(group control.GroupKey) string {
	a.t.Helper()
	cert, key := a.leaf(group.URI())
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	dir := a.t.TempDir()
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: cert.Raw},
		"tls.key": {Type: "PRIVATE KEY", Bytes: pkcs8},
		"ca.crt":  {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return dir
}
