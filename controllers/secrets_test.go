package controllers_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// selfSigned makes a certificate of its own authority, in PEM form.
func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "probe"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	octets, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: octets})
}

// startGuarded starts a target that shakes hands with those who show the certificate.
func startGuarded(t *testing.T, shown []byte) (port int) {
	t.Helper()
	certificate, key := selfSigned(t)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AppendCertsFromPEM(shown)
	l, err := tls.Listen("tcp", net.JoinHostPort(backendA, "0"), &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: known, MaxVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.(*tls.Conn).Handshake()
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// TestClientCertificatesOfProbesComeFromSecrets walks through all that may be wrong with one, until a target that demands it
// is up.
func TestClientCertificatesOfProbesComeFromSecrets(t *testing.T) {
	e := newEstate(t, steeredEstate)
	certificate, key := selfSigned(t)
	port := startGuarded(t, certificate)
	e.startManager(0)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "probe-client"}}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "fingerpost"},
		Subjects:   []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "manager"}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "fingerpost-probe-secrets"},
	}
	servers, _, _ := e.startSteered("  steering: {policy: Nearest}\n")
	guarded := func(interval string) string {
		return fmt.Sprintf(`
apiVersion: fingerpost.dev/v1alpha1
kind: HealthProbe
metadata: {name: guarded, namespace: payments}
spec: {type: TLS, tls: {port: %d, certificateCheck: None, degradedDays: 0, clientCertificateRef: {name: probe-client}}, interval: %s, timeout: 900ms, failureThreshold: 1, successThreshold: 1}
`, port, interval)
	}
	e.apply(guarded("1s"))
	e.apply(fmt.Sprintf(`
apiVersion: fingerpost.dev/v1alpha1
kind: DynamicRecord
metadata: {name: app, namespace: payments}
spec:
  zoneRef: {name: corp, namespace: dns-root}
  host: app
  ttl: {value: 2s}
  steering: {policy: Nearest}
  pools: [{name: a, datacenter: dc-a, targets: [{address: %s}]}]
  probeRef: {name: guarded}
`, backendA))
	t.Cleanup(func() {
		p := &v1alpha1.HealthProbe{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "guarded"}}
		for _, o := range []client.Object{p, binding, secret} {
			_ = e.api.Delete(context.WithoutCancel(t.Context()), o) // it may be gone
		}
	})
	probe := func(is bool, reason, words string) {
		t.Helper()
		e.poll(func() error {
			var p v1alpha1.HealthProbe
			if err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "payments", Name: "guarded"}, &p); err != nil {
				return err
			}
			c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionAccepted)
			if c == nil || (c.Status == metav1.ConditionTrue) != is || c.Reason != reason || !strings.Contains(c.Message, words) {
				return fmt.Errorf("condition Accepted is %+v", c)
			}
			return nil
		})
	}
	refused := func(reason, words string) {
		t.Helper()
		probe(false, reason, words)
		e.awaitRecord(recordCondition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, reason, words))
	}
	refused(v1alpha1.ReasonSecretNotUsable, "bind ClusterRole fingerpost-probe-secrets")
	e.create(binding)
	refused(v1alpha1.ReasonSecretNotFound, "there is no Secret payments/probe-client")
	secret.Data = map[string][]byte{corev1.TLSCertKey: certificate}
	e.create(secret)
	refused(v1alpha1.ReasonSecretNotFound, `has no key "tls.key"`)
	update := func(certificate, key []byte) {
		t.Helper()
		secret.Data = map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key}
		if err := e.api.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	_, another := selfSigned(t)
	update(certificate, another)
	refused(v1alpha1.ReasonSecretNotUsable, "is no certificate with tls.key as its key")
	update(certificate, key)
	probe(true, v1alpha1.ReasonAccepted, "valid")
	e.awaitRecord(columns("1/1", "dc-a"))
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)

	// A Secret that is gone is told, and takes nothing away: servers go on with what they have.
	if err := e.api.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	e.apply(guarded("2s"))
	refused(v1alpha1.ReasonSecretNotFound, "there is no Secret payments/probe-client")
	o := e.awaitRecord(recordCondition(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonNotAccepted, "the version before goes on being served"))
	if o.Status.Healthy != "1/1" || o.Status.Serving != "dc-a" {
		t.Errorf("status is %+v", o.Status)
	}
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
}
