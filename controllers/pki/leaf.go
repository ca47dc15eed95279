package pki

import (
	"cmp"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Profile is what a leaf must say: whom it names and what it may be used for. Lists are sorted, without duplicates.
type Profile struct {
	CommonName string // for readers; nobody verifies it
	DNSNames   []string
	Addresses  []netip.Addr // IPv4 addresses in their 4 byte form, no zones
	URIs       []string
	Usages     []x509.ExtKeyUsage
}

// HubName is how servers reach the hub: a DNS name or an address.
type HubName struct {
	dns     string // lower case; empty: an address
	address netip.Addr
}

func (n HubName) String() string {
	if n.dns != "" {
		return n.dns
	}
	return n.address.String()
}

// ParseHubName reads a DNS name (without final dot or wildcard) or an IP address.
func ParseHubName(text string) (HubName, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		if address.Zone() != "" {
			return HubName{}, fmt.Errorf("hub name %q: addresses in certificates have no zone", text)
		}
		return HubName{address: address.Unmap()}, nil
	}
	dns := strings.ToLower(text)
	if len(validation.IsDNS1123Subdomain(dns)) > 0 {
		return HubName{}, fmt.Errorf("hub name %q: must be a DNS name or an IP address, without port", text)
	}
	return HubName{dns: dns}, nil
}

// HubProfile is the leaf of the hub, which identity names. Servers verify that alone, other programs names: those given,
// and those under which the hub is always found: its Service in namespace, and this machine.
func HubProfile(identity *url.URL, namespace string, names []HubName) Profile {
	const service = "fingerpost-hub"
	p := Profile{
		CommonName: service,
		URIs:       []string{identity.String()},
		DNSNames:   []string{"localhost", service, service + "." + namespace, service + "." + namespace + ".svc"},
		Addresses:  []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()},
		Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if n.dns != "" {
			p.DNSNames = append(p.DNSNames, n.dns)
		} else {
			p.Addresses = append(p.Addresses, n.address)
		}
	}
	p.DNSNames = sorted(p.DNSNames, cmp.Compare)
	p.Addresses = sorted(p.Addresses, netip.Addr.Compare)
	return p
}

// ServerProfile is the leaf of the servers of one group, which identity names. They use it towards the hub as clients
// and towards each other as both.
func ServerProfile(identity *url.URL) Profile {
	return Profile{
		CommonName: "fingerpost-server",
		URIs:       []string{identity.String()},
		Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// Issue makes a leaf with a new key, valid from now, that does not outlive the CA.
func (a Authority) Issue(want Profile, now time.Time, p Policy) (*KeyPair, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: want.CommonName},
		NotBefore:             now.Add(-p.Skew),
		NotAfter:              now.Add(p.LeafLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           want.Usages,
		DNSNames:              want.DNSNames,
	}
	if end := a.signing.cert.NotAfter; end.Before(template.NotAfter) {
		template.NotAfter = end
	}
	for _, address := range want.Addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	for _, text := range want.URIs {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("identity %q: %w", text, err)
		}
		template.URIs = append(template.URIs, u)
	}
	return newKeyPair(template, a.signing)
}

// LeafData is the data of a leaf's Secret, with the CAs that its owner trusts.
func (a Authority) LeafData(leaf *KeyPair) map[string][]byte {
	return map[string][]byte{CertificateKey: leaf.certPEM, PrivateKeyKey: leaf.keyPEM, BundleKey: a.Bundle()}
}

// Check looks at the data of a leaf's Secret (nil if there is none) and returns why it must be issued again, or "" with the
// leaf as it is and when it will be due. Whether its bundle is the present one does not matter here.
func (a Authority) Check(data map[string][]byte, want Profile, now time.Time, p Policy) (leaf *KeyPair, due time.Time, reissue string) {
	if len(data[CertificateKey]) == 0 && len(data[PrivateKeyKey]) == 0 {
		return nil, now, "there was none"
	}
	leaf, err := checkLeaf(data, want, a.trusted, now)
	if err != nil {
		return nil, now, "the one before could not be used: " + err.Error()
	}
	if due = p.due(leaf.cert.NotBefore, leaf.cert.NotAfter); !now.Before(due) {
		return nil, now, "the one before was due for renewal"
	}
	return leaf, due, ""
}

// ParseLeaf reads the data of a leaf's Secret, as its owner will use it: certificate, key and bundle are whole and belong
// together, the certificate is what want says, and valid now.
func ParseLeaf(data map[string][]byte, want Profile, now time.Time) (*KeyPair, error) {
	trusted, err := ParseCertificates(data[BundleKey])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", BundleKey, err)
	}
	return checkLeaf(data, want, trusted, now)
}

func checkLeaf(data map[string][]byte, want Profile, trusted []*x509.Certificate, now time.Time) (*KeyPair, error) {
	leaf, err := ParseKeyPair(data[CertificateKey], data[PrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", CertificateKey, PrivateKeyKey, err)
	}
	if err := want.compare(leaf.cert); err != nil {
		return nil, fmt.Errorf("%s: %w", CertificateKey, err)
	}
	roots := x509.NewCertPool()
	for _, c := range trusted {
		roots.AddCert(c)
	}
	if _, err := leaf.cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: want.Usages}); err != nil {
		return nil, fmt.Errorf("%s: %w", CertificateKey, err)
	}
	return leaf, nil
}

// compare says what cert has otherwise than p wants.
func (p Profile) compare(cert *x509.Certificate) error {
	var addresses []netip.Addr
	for _, ip := range cert.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			addresses = append(addresses, a.Unmap())
		}
	}
	var uris []string
	for _, u := range cert.URIs {
		uris = append(uris, u.String())
	}
	switch {
	case !slices.Equal(sorted(slices.Clone(cert.DNSNames), cmp.Compare), p.DNSNames),
		!slices.Equal(sorted(addresses, netip.Addr.Compare), p.Addresses),
		!slices.Equal(sorted(uris, cmp.Compare), p.URIs):
		return errors.New("the certificate is for other names")
	case slices.ContainsFunc(p.Usages, func(u x509.ExtKeyUsage) bool { return !slices.Contains(cert.ExtKeyUsage, u) }):
		return errors.New("the certificate is for another usage")
	case cert.IsCA:
		return errors.New("the certificate is one of a CA")
	}
	return nil
}

// sorted sorts values in place and drops duplicates.
func sorted[T comparable](values []T, compare func(a, b T) int) []T {
	slices.SortFunc(values, compare)
	return slices.Compact(values)
}
