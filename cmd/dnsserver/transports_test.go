package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
)

// TestClientsOfEveryTransport asks as people do, with programs that are not ours.
func TestClientsOfEveryTransport(t *testing.T) {
	dir := t.TempDir()
	zone := zoneFile(t, dir, "zone", 7, "www A 10.0.0.2", "*.big TXT "+strings.Repeat(`"`+strings.Repeat("a", 250)+`" `, 20))
	ca := controltest.NewAuthority(t)
	at := loopback()
	certificate, key := ca.Issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "dns"}, DNSNames: []string{"dns.example.test"}, IPAddresses: []net.IP{net.ParseIP(at)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, kind string, der []byte) string {
		return write(t, filepath.Join(dir, name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	roots := file("ca.crt", "CERTIFICATE", ca.Certificate().Raw)
	r := start(t, "--zone", "example.test="+zone, "--listen", at+":5300", "--no-tcp", "--dot", "0.0.0.0", "--doh", at+":8443", "--httpdns", at+":8443", "--httpdns", at,
		"--tls-cert", file("tls.crt", "CERTIFICATE", certificate.Raw), "--tls-key", file("tls.key", "PRIVATE KEY", pkcs8))

	run := func(name string, args ...string) string {
		t.Helper()
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%v: hack/deps prints a PATH that has it", err)
		}
		out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	secure := "https://dns.example.test:8443/resolve?name=www.example.test"
	curl := []string{"--silent", "--show-error", "--max-time", "10", "--cacert", roots, "--resolve", "dns.example.test:8443:" + at}
	www := `{"Status":0,"TC":false,"RD":false,"RA":false,"AD":false,"CD":false,"Question":[{"name":"www.example.test.","type":1}],"Answer":[{"name":"www.example.test.","type":1,"TTL":300,"data":"10.0.0.2"}]}`
	for sentence, tc := range map[string]struct{ got, want string }{
		"kdig over UDP":   {run("kdig", "+short", "@"+at, "-p", "5300", "www.example.test"), "10.0.0.2"},
		"kdig over TLS":   {run("kdig", "+short", "@"+at, "+tls", "+tls-ca="+roots, "+tls-host=dns.example.test", "www.example.test"), "10.0.0.2"},
		"kdig with pads":  {run("kdig", "+short", "@"+at, "+tls", "+padding", "+tls-ca="+roots, "+tls-host=dns.example.test", "www.example.test"), "10.0.0.2"},
		"kdig over HTTPS": {run("kdig", "+short", "@"+at, "-p", "8443", "+https", "+tls-ca="+roots, "+tls-host=dns.example.test", "www.example.test"), "10.0.0.2"},
		"kdig with GET":   {run("kdig", "+short", "@"+at, "-p", "8443", "+https", "+https-get", "+tls-ca="+roots, "+tls-host=dns.example.test", "www.example.test"), "10.0.0.2"},
		"dig over TLS":    {run("dig", "+short", "@"+at, "+tls", "www.example.test"), "10.0.0.2"},
		"dig over HTTPS":  {run("dig", "+short", "@"+at, "-p", "8443", "+https", "www.example.test"), "10.0.0.2"},
		"curl":            {run("curl", append(curl, secure)...), www},
		"curl, HTTP/1.1":  {run("curl", append(curl, "--http1.1", secure)...), www},
		"curl, HTTP":      {run("curl", "--silent", "--max-time", "10", "http://"+at+"/resolve?name=www.example.test&type=1"), www},
	} {
		if tc.got != tc.want {
			t.Errorf("%s is answered\n%s", sentence, tc.got)
		}
	}
	if got := run("dig", "+tls", "@"+at, "x.big.example.test", "TXT"); strings.Count(got, strings.Repeat("a", 250)) != 20 {
		t.Errorf("over TLS a long answer is\n%s", got)
	}
	if got := run("dig", "+ignore", "@"+at, "-p", "5300", "x.big.example.test", "TXT"); !strings.Contains(got, " tc;") && !strings.Contains(got, " tc ") {
		t.Errorf("over UDP a long answer is\n%s", got)
	}
	var answer struct {
		Comment string `json:"Comment"`
	}
	if err := json.Unmarshal([]byte(run("curl", append(curl, "https://dns.example.test:8443/resolve?name=elsewhere.test")...)), &answer); err != nil || answer.Comment != "Not Authoritative (EDE 20)" {
		t.Errorf("a zone that is not here has the comment %q, %v", answer.Comment, err)
	}
	if _, err := net.Dial("tcp", at+":5300"); err == nil {
		t.Error("TCP is taken in spite of --no-tcp")
	}
	_, metrics := r.get("/metrics")
	for _, want := range []string{
		`fingerpost_dnsserver_responses_total{rcode="NOERROR",transport="dot"} 4`, `fingerpost_dnsserver_responses_total{rcode="NOERROR",transport="doh"} 3`,
		`fingerpost_dnsserver_responses_total{rcode="NOERROR",transport="httpdns"} 3`, "fingerpost_dnsserver_tls_certificate_expiry_timestamp_seconds ",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}
