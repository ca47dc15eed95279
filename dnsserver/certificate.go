package dnsserver

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// CertificateConfig names PEM files, which are read again when they change: a certificate with
// those between it and its authority, and its key.
type CertificateConfig struct {
	Certificate, Key string
}

// tlsFiles is the certificate that clients are shown, where it has files of its own.
type tlsFiles struct{ files *control.Files }

func openTLSFiles(cfg CertificateConfig) (*tlsFiles, error) {
	if cfg.Certificate == "" || cfg.Key == "" {
		return nil, errors.New("a certificate for TLS needs its key, and a key its certificate")
	}
	files, err := control.NewFiles(cfg.Certificate, cfg.Key, "")
	if err != nil {
		return nil, fmt.Errorf("reading the certificate for TLS: %w", err)
	}
	return &tlsFiles{files}, nil
}

func (f *tlsFiles) certificate() (*tls.Certificate, error) {
	return f.files.Credentials().Certificate()
}

var metricTLSCertificate = metric("tls_certificate_expiry_timestamp_seconds", "When the certificate that clients are shown over TLS expires, if it has files of its own.")

// Describe implements prometheus.Collector.
func (f *tlsFiles) Describe(ch chan<- *prometheus.Desc) { ch <- metricTLSCertificate }

// Collect implements prometheus.Collector.
func (f *tlsFiles) Collect(ch chan<- prometheus.Metric) {
	expires, _ := f.files.Status() // Files.Watch tells why newer files can't be used
	ch <- prometheus.MustNewConstMetric(metricTLSCertificate, prometheus.GaugeValue, float64(expires.Unix()))
}
