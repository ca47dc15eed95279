package controllers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

const (
	// hubRefresh is how long a follower may serve the certificate that the leader has just replaced.
	hubRefresh = 30 * time.Second
	// hubAwait is how often a manager without a certificate looks for one.
	hubAwait = time.Second
)

// errNoHubCertificate is what clients' handshakes fail with until the first leader has made a certificate.
var errNoHubCertificate = errors.New("the hub has no certificate yet")

// HubCertificateSource holds the certificate of the hub, and the CAs whose clients it lets in, as last read from the hub's
// Secret. Every manager has one, leading or not: a follower, too, completes handshakes, to say that it does not lead.
// It is safe for concurrent use.
type HubCertificateSource struct {
	secrets client.Reader // not a cache
	secret  types.NamespacedName
	current atomic.Pointer[hubCertificate]
}

type hubCertificate struct {
	version string // the Secret's resource version
	pair    *tls.Certificate
	clients *x509.CertPool
}

// NewHubCertificateSource returns a source that is empty until its first Reconcile or Install.
func NewHubCertificateSource(secrets client.Reader, namespace string) *HubCertificateSource {
	return &HubCertificateSource{secrets: secrets, secret: types.NamespacedName{Namespace: namespace, Name: HubSecret}}
}

// Reconcile reads the Secret. What can't be used is reported and leaves the source with what it has.
func (s *HubCertificateSource) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	secret := &corev1.Secret{}
	err := s.secrets.Get(ctx, s.secret, secret)
	switch {
	case apierrors.IsNotFound(err) && s.current.Load() == nil:
		return reconcile.Result{RequeueAfter: hubAwait}, nil
	case apierrors.IsNotFound(err):
		log.FromContext(ctx).Info("The Secret with the hub's certificate is gone: going on with the last one", "secret", s.secret)
		return reconcile.Result{RequeueAfter: hubRefresh}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("reading Secret %s: %w", s.secret, err)
	}
	if err := s.Install(ctx, secret); err != nil {
		log.FromContext(ctx).Error(err, "The hub's certificate can't be used: going on with the last one")
	}
	return reconcile.Result{RequeueAfter: hubRefresh}, nil
}

// Install makes the certificate in secret, which is the hub's as read or written, the current one.
func (s *HubCertificateSource) Install(ctx context.Context, secret *corev1.Secret) error {
	if c := s.current.Load(); c != nil && c.version == secret.ResourceVersion {
		return nil
	}
	pair, err := tls.X509KeyPair(secret.Data[pki.CertificateKey], secret.Data[pki.PrivateKeyKey])
	if err != nil {
		return fmt.Errorf("hub certificate in Secret %s: %w", s.secret, err)
	}
	trusted, err := pki.ParseCertificates(secret.Data[pki.BundleKey])
	if err != nil {
		return fmt.Errorf("%s in Secret %s: %w", pki.BundleKey, s.secret, err)
	}
	clients := x509.NewCertPool()
	for _, ca := range trusted {
		clients.AddCert(ca)
	}
	s.current.Store(&hubCertificate{version: secret.ResourceVersion, pair: &pair, clients: clients})
	log.FromContext(ctx).Info("The hub shows a new certificate", "expires", pair.Leaf.NotAfter, "trusted", len(trusted))
	return nil
}

// Credentials returns the source as the hub's listener takes it. What they return is current at each call; before there
// is a certificate, it is an error.
func (s *HubCertificateSource) Credentials() control.Credentials {
	return control.Credentials{
		Certificate: func() (*tls.Certificate, error) {
			c := s.current.Load()
			if c == nil {
				return nil, errNoHubCertificate
			}
			return c.pair, nil
		},
		Roots: func() (*x509.CertPool, error) {
			c := s.current.Load()
			if c == nil {
				return nil, errNoHubCertificate
			}
			return c.clients, nil
		},
	}
}

// Check is a health check: an error until there is a certificate.
func (s *HubCertificateSource) Check(*http.Request) error {
	if s.current.Load() == nil {
		return errNoHubCertificate
	}
	return nil
}
