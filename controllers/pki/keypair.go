package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// KeyPair is a certificate with its private key, as PEM in Secrets and files. It is immutable.
type KeyPair struct {
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

// Certificate is the leaf: the first certificate of the chain. Not to be changed.
func (p *KeyPair) Certificate() *x509.Certificate { return p.cert }

// ParseKeyPair reads a certificate, or a chain that begins with it, and its private key. Every block must be whole: a
// damaged one is an error, never skipped. Errors do not quote the key.
func ParseKeyPair(certPEM, keyPEM []byte) (*KeyPair, error) {
	chain, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key: a %T can't sign", pair.PrivateKey)
	}
	return &KeyPair{cert: chain[0], key: signer, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// ParseCertificates reads one certificate or more. Every block must be whole: a damaged one is an error, never skipped,
// so that a bundle never loses a CA unnoticed. Text between the blocks is allowed.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is %q and not a certificate", len(certs)+1, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	switch begun := bytes.Count(text, []byte("-----BEGIN")); {
	case begun == 0:
		return nil, errors.New("no certificate in PEM form")
	case begun != len(certs): // pem.Decode passes over what it can't read
		return nil, fmt.Errorf("%d PEM blocks begin, but only %d are whole", begun, len(certs))
	}
	return certs, nil
}

// encodeCertificates is the inverse of ParseCertificates, without text between the blocks.
func encodeCertificates(certs []*x509.Certificate) []byte {
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// newKeyPair makes an ECDSA P-256 key and the certificate of template for it, signed by issuer; self-signed if issuer
// is nil. The serial number is random (RFC 5280 §4.1.2.2).
func newKeyPair(template *x509.Certificate, issuer *KeyPair) (*KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	parent, signer := template, crypto.Signer(key)
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %s: %w", template.Subject, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the new certificate of %s: %w", template.Subject, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key of %s: %w", template.Subject, err)
	}
	return &KeyPair{
		cert:    cert,
		key:     key,
		certPEM: encodeCertificates([]*x509.Certificate{cert}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}, nil
}
