package controllers

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// documentSecrets is the kind of the document that has the client certificates of probes.
const documentSecrets = "secrets"

const (
	// probeSecretCheck is how often Secrets of probes are read: nobody may list or watch Secrets, so this is how a renewed
	// certificate is noticed.
	probeSecretCheck = time.Minute
	// probeSecretRetry is how often while one can't be used, for somebody waits.
	probeSecretRetry = 5 * time.Second
)

// ProbeSecrets knows the client certificates that HealthProbes name. It reads Secrets by name and past the cache.
//
// The manager has no right to do so by itself: its roles are for its own namespace. Whoever owns a namespace gives it the
// right there by a RoleBinding to ClusterRole fingerpost-probe-secrets, or to a Role with the names of the Secrets.
type ProbeSecrets struct {
	Secrets client.Reader // live

	mu   sync.Mutex
	read map[types.NamespacedName]probeSecret
}

// probeSecret is what was read of one Secret.
type probeSecret struct {
	certificate *steeringpb.Certificate // the last that could be used; nil: there was none
	fault       render.Refusal          // why there is none now; nil: it is as in the Secret
}

// Faults says what is wrong with the Secrets of these probes. Those not known yet are read.
func (s *ProbeSecrets) Faults(ctx context.Context, probes []v1alpha1.HealthProbe) (map[types.NamespacedName]render.Refusal, error) {
	faults := map[types.NamespacedName]render.Refusal{}
	for i := range probes {
		key, named := secretOf(&probes[i])
		if !named {
			continue
		}
		s.mu.Lock()
		known, is := s.read[key]
		s.mu.Unlock()
		if !is {
			var err error
			if known, _, err = s.refresh(ctx, key); err != nil {
				return nil, err
			}
		}
		if known.fault != nil {
			faults[key] = known.fault
		}
	}
	return faults, nil
}

// secretOf is the Secret that a probe names, if it does.
func secretOf(p *v1alpha1.HealthProbe) (types.NamespacedName, bool) {
	name := render.ProbeSecret(p)
	return types.NamespacedName{Namespace: p.Namespace, Name: name}, name != ""
}

// refresh reads a Secret, and reports whether it is other than before in what follows from it. A certificate that can't be
// read any more stays known: servers go on with it.
func (s *ProbeSecrets) refresh(ctx context.Context, key types.NamespacedName) (now probeSecret, changed bool, err error) {
	if now, err = readCertificate(ctx, s.Secrets, key); err != nil {
		return probeSecret{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.read[key]
	if now.certificate == nil {
		now.certificate = before.certificate
	}
	if s.read == nil {
		s.read = map[types.NamespacedName]probeSecret{}
	}
	s.read[key] = now
	return now, !known || text(before.fault) != text(now.fault) || !proto.Equal(before.certificate, now.certificate), nil
}

// readCertificate reads a Secret of a user's namespace. What only a person can mend is a fault.
func readCertificate(ctx context.Context, live client.Reader, key types.NamespacedName) (probeSecret, error) {
	var secret corev1.Secret
	switch err := live.Get(ctx, key, &secret); {
	case apierrors.IsNotFound(err):
		return probeSecret{fault: render.Refuse(v1alpha1.ReasonSecretNotFound, "there is no Secret %s", key)}, nil
	case apierrors.IsForbidden(err):
		return probeSecret{fault: render.Refuse(v1alpha1.ReasonSecretNotUsable,
			"the manager may not read Secret %s: bind ClusterRole fingerpost-probe-secrets to its ServiceAccount in namespace %s", key, key.Namespace)}, nil
	case err != nil:
		return probeSecret{}, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	return certificateOf(key, &secret), nil
}

// certificateOf makes of a Secret what servers are told. Faults never quote what is in it.
func certificateOf(key types.NamespacedName, secret *corev1.Secret) probeSecret {
	for _, field := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(bytes.TrimSpace(secret.Data[field])) == 0 {
			return probeSecret{fault: render.Refuse(v1alpha1.ReasonSecretNotFound, "Secret %s has no key %q: it needs %s and %s",
				key, field, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)}
		}
	}
	c := &steeringpb.Certificate{Secret: key.String(), Certificate: secret.Data[corev1.TLSCertKey], Key: secret.Data[corev1.TLSPrivateKeyKey]}
	if _, err := tls.X509KeyPair(c.Certificate, c.Key); err != nil {
		return probeSecret{fault: render.Refuse(v1alpha1.ReasonSecretNotUsable, "Secret %s: %s is no certificate with %s as its key, both in PEM form",
			key, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)}
	}
	return probeSecret{certificate: c}
}

// SecretReconciler gives servers the client certificates that their probes show. It has one object, all of them, so
// requests are all alike.
type SecretReconciler struct {
	Client  client.Reader // cached
	Secrets *ProbeSecrets
	Hub     *control.Hub
	Zones   *ZoneReconciler
	// Complete reports whether it is known where zones are served. Before that servers keep what they have.
	Complete func() bool
	// Changed is called with the namespace of a Secret that is other than before. It does not block.
	Changed func(ctx context.Context, namespace string)
}

// Reconcile reads all Secrets that probes name, and publishes to each group the certificates of the namespaces that have
// DynamicRecords there.
func (r *SecretReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	var probes v1alpha1.HealthProbeList
	var records v1alpha1.DynamicRecordList
	var datacenters v1alpha1.DatacenterList
	for _, list := range []client.ObjectList{&probes, &records, &datacenters} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return reconcile.Result{}, fmt.Errorf("listing for secrets of probes: %w", err)
		}
	}
	next, errs := probeSecretCheck, []error(nil)
	named := map[types.NamespacedName]*steeringpb.Certificate{} // nil: servers keep what they have of it
	for i := range probes.Items {
		key, names := secretOf(&probes.Items[i])
		if _, done := named[key]; done || !names {
			continue
		}
		s, changed, err := r.Secrets.refresh(ctx, key)
		if err != nil {
			errs = append(errs, err) // what is known of it stays
			s = r.Secrets.known(key)
		}
		if changed {
			r.Changed(ctx, key.Namespace)
		}
		if s.fault != nil {
			next = probeSecretRetry
		}
		named[key] = s.certificate
	}
	r.Secrets.forget(named)
	if !r.Complete() {
		return reconcile.Result{RequeueAfter: probeSecretRetry}, errors.Join(errs...) // called again then
	}
	tenants := map[render.Location]map[string]bool{} // namespaces with records at the place
	for i := range records.Items {
		for _, l := range r.Zones.locations(render.ZoneOf(&records.Items[i])) {
			if tenants[l] == nil {
				tenants[l] = map[string]bool{}
			}
			tenants[l][records.Items[i].Namespace] = true
		}
	}
	keys := slices.SortedFunc(maps.Keys(named), compareKeys)
	for _, dc := range datacenters.Items {
		for _, g := range dc.Spec.ServerGroups {
			message := &steeringpb.Certificates{}
			for _, key := range keys {
				switch c := named[key]; {
				case !tenants[render.Location{Datacenter: dc.Name, Group: g.Name}][key.Namespace]:
				case c != nil:
					message.Certificates = append(message.Certificates, c)
				default:
					message.Certificates = append(message.Certificates, &steeringpb.Certificate{Secret: key.String()})
				}
			}
			body, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
			if err != nil {
				return reconcile.Result{}, errors.New("encoding client certificates of probes: a name is invalid text") // err may quote
			}
			errs = append(errs, r.Hub.PublishDocument(control.GroupKey{Datacenter: dc.Name, Group: g.Name}, control.Document{Kind: documentSecrets, Body: body}))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return reconcile.Result{}, fmt.Errorf("giving servers the client certificates of probes: %w", err)
	}
	if len(named) == 0 {
		return reconcile.Result{}, nil // until a probe names one
	}
	return reconcile.Result{RequeueAfter: next}, nil
}

// known returns what was read of a Secret last.
func (s *ProbeSecrets) known(key types.NamespacedName) probeSecret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read[key]
}

// forget drops what nobody names any more.
func (s *ProbeSecrets) forget(named map[types.NamespacedName]*steeringpb.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.read, func(key types.NamespacedName, _ probeSecret) bool { _, stays := named[key]; return !stays })
}
