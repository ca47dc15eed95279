package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"time"
)

// Keys of the Secrets. The leaf's are those of type kubernetes.io/tls, and ca.crt as cert-manager has it.
const (
	CertificateKey = "tls.crt" // a leaf; in the CA's Secret: the CA that signs
	PrivateKeyKey  = "tls.key" // its private key
	BundleKey      = "ca.crt"  // every CA that is trusted now
	// NextCertificateKey and NextPrivateKeyKey are the CA that everybody trusts already and that will sign later. Only
	// in the CA's Secret, and only while the present CA comes to its end.
	NextCertificateKey = "next.crt"
	NextPrivateKeyKey  = "next.key"
)

// Authority is the CA of one operator: what signs, what will sign, and what everybody trusts. It is immutable.
type Authority struct {
	signing *KeyPair
	next    *KeyPair            // nil most of the time
	trusted []*x509.Certificate // signing, then next, then others that have signed before; no duplicates
}

// NewAuthority makes a CA that is valid from now. It signs at once; everybody also trusts inherited (may be empty),
// such as the CAs of an authority whose Secret was lost, as long as they have not expired.
func NewAuthority(inherited []*x509.Certificate, now time.Time, p Policy) (Authority, error) {
	signing, err := newCA(now, p)
	if err != nil {
		return Authority{}, err
	}
	inherited = slices.DeleteFunc(slices.Clone(inherited), func(c *x509.Certificate) bool { return c.NotAfter.Before(now) })
	return newAuthority(signing, nil, inherited), nil
}

// newAuthority puts the bundle in order.
func newAuthority(signing, next *KeyPair, trusted []*x509.Certificate) Authority {
	bundle := []*x509.Certificate{signing.cert}
	if next != nil {
		bundle = append(bundle, next.cert)
	}
	for _, c := range trusted {
		if !slices.ContainsFunc(bundle, c.Equal) {
			bundle = append(bundle, c)
		}
	}
	return Authority{signing: signing, next: next, trusted: bundle}
}

// ParseAuthority reads the data of the CA's Secret. Whatever is there must be whole: a half of it is never taken for
// the rest. A bundle that is absent, or that lacks the CAs whose keys are here, is completed with them: so the Secret of
// a CA from elsewhere needs tls.crt and tls.key only.
func ParseAuthority(data map[string][]byte) (Authority, error) {
	signing, err := parseCA(data, CertificateKey, PrivateKeyKey)
	if err != nil {
		return Authority{}, err
	}
	var next *KeyPair
	if len(data[NextCertificateKey]) > 0 || len(data[NextPrivateKeyKey]) > 0 {
		if next, err = parseCA(data, NextCertificateKey, NextPrivateKeyKey); err != nil {
			return Authority{}, err
		}
	}
	var trusted []*x509.Certificate
	if bundle := data[BundleKey]; len(bundle) > 0 {
		if trusted, err = ParseCertificates(bundle); err != nil {
			return Authority{}, fmt.Errorf("%s: %w", BundleKey, err)
		}
	}
	return newAuthority(signing, next, trusted), nil
}

func parseCA(data map[string][]byte, certKey, keyKey string) (*KeyPair, error) {
	for _, k := range []string{certKey, keyKey} {
		if len(data[k]) == 0 {
			return nil, fmt.Errorf("%s is missing", k)
		}
	}
	pair, err := ParseKeyPair(data[certKey], data[keyKey])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certKey, keyKey, err)
	}
	if c := pair.cert; !c.IsCA || (c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0) {
		return nil, fmt.Errorf("%s: not the certificate of a CA", certKey)
	}
	return pair, nil
}

// Data is the inverse of ParseAuthority: the data of the CA's Secret. The caller owns the map, not the values.
func (a Authority) Data() map[string][]byte {
	data := map[string][]byte{
		CertificateKey: a.signing.certPEM,
		PrivateKeyKey:  a.signing.keyPEM,
		BundleKey:      a.Bundle(),
	}
	if a.next != nil {
		data[NextCertificateKey], data[NextPrivateKeyKey] = a.next.certPEM, a.next.keyPEM
	}
	return data
}

// Bundle is every CA that is trusted now, as PEM: what goes into ca.crt of every leaf's Secret.
func (a Authority) Bundle() []byte { return encodeCertificates(a.trusted) }

// Signing is the certificate of the CA that signs. Not to be changed.
func (a Authority) Signing() *x509.Certificate { return a.signing.cert }

// Step is one step in the succession of CAs.
type Step int

// The steps, in the order in which the end of a CA brings them.
const (
	StepNone Step = iota
	// StepAnnounce makes the next CA: everybody comes to trust it, nothing is signed by it.
	StepAnnounce
	// StepPromote lets the next CA sign. The key of the one before is forgotten; its certificate stays in the bundle.
	StepPromote
	// StepRetire takes expired CAs out of the bundle.
	StepRetire
)

// String says what the step did, for an Event.
func (s Step) String() string {
	switch s {
	case StepAnnounce:
		return "announced the next CA: everybody is told to trust it, it does not sign yet"
	case StepPromote:
		return "the next CA signs now; the one before it stays trusted until it expires"
	case StepRetire:
		return "took expired CAs out of the bundle"
	default:
		return "nothing to do"
	}
}

// Due returns the step to take now, or StepNone and the time of the next one.
//
// The next CA is announced three lives of a leaf before the end of the one that signs, and signs one life later: by
// then every leaf in use was fetched together with a bundle that has it. The last leaves of the old CA then expire
// one life before it does. If all this comes late, the next CA signs when the old one expires, at the latest.
func (a Authority) Due(now time.Time, p Policy) (Step, time.Time) {
	end := a.signing.cert.NotAfter
	step, at := StepAnnounce, end.Add(-leavesPerCA*p.LeafLife)
	if a.next != nil {
		step, at = StepPromote, a.next.cert.NotBefore.Add(p.Skew+p.LeafLife)
		if end.Before(at) {
			at = end
		}
	}
	for _, c := range a.trusted {
		if c != a.signing.cert && (a.next == nil || c != a.next.cert) && c.NotAfter.Before(at) {
			step, at = StepRetire, c.NotAfter
		}
	}
	if now.Before(at) {
		return StepNone, at
	}
	return step, now
}

// Advance takes every step that is due and returns the resulting authority with the steps taken, none if it is a
// itself, and the time when the next one is due. Errors come from making keys only.
func (a Authority) Advance(now time.Time, p Policy) (result Authority, taken []Step, next time.Time, err error) {
	for {
		step, at := a.Due(now, p)
		switch step {
		case StepNone:
			return a, taken, at, nil
		case StepAnnounce:
			ca, err := newCA(now, p)
			if err != nil {
				return Authority{}, nil, time.Time{}, err
			}
			a = newAuthority(a.signing, ca, a.trusted)
		case StepPromote:
			a = newAuthority(a.next, nil, a.trusted)
		case StepRetire:
			a = newAuthority(a.signing, a.next, slices.DeleteFunc(slices.Clone(a.trusted), func(c *x509.Certificate) bool {
				return !now.Before(c.NotAfter)
			}))
		}
		taken = append(taken, step)
	}
}

// newCA makes a self-signed CA whose leaves can't sign.
func newCA(now time.Time, p Policy) (*KeyPair, error) {
	return newKeyPair(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "fingerpost-ca " + now.UTC().Format(time.DateOnly)},
		NotBefore:             now.Add(-p.Skew),
		NotAfter:              now.Add(p.CALife),
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil)
}
