package probe

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestMain(m *testing.M) {
	if child := os.Getenv("PROBE_TEST_CHILD"); child != "" {
		children[child]()
		return
	}
	goleak.VerifyTestMain(m)
}

// children are what the test binary does when it is started by a test: as a process of its own.
var children = map[string]func(){
	"ping": pingInNamespace, "pings": pings, "targets": benchTargets, "blackhole": muteTargets,
}

var localhost = netip.MustParseAddr("127.0.0.1")

// anywhere is an Env without denied networks.
func anywhere() Env { return Env{Denied: Deny().Denies} }

// soon is the timeout of probes that are to run into it, and late of those that are not.
const soon, late = 150 * time.Millisecond, 20 * time.Second

// probeOf returns a probe without its type.
func probeOf(timeout time.Duration) *steeringpb.Probe {
	return &steeringpb.Probe{Source: "payments/test", Interval: 30_000, Timeout: uint64(timeout.Milliseconds())}
}

func tcpOf(port uint16, timeout time.Duration) *steeringpb.Probe {
	p := probeOf(timeout)
	p.Type = &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: uint32(port)}}
	return p
}

func httpOf(cfg *steeringpb.Http, timeout time.Duration) *steeringpb.Probe {
	p := probeOf(timeout)
	p.Type = &steeringpb.Probe_Http{Http: cfg}
	return p
}

// ask makes a prober of cfg and asks once.
func ask(t testing.TB, cfg *steeringpb.Probe, env Env, target netip.Addr) Result {
	t.Helper()
	p, err := New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	return p.Probe(t.Context(), target)
}

// is fails the test unless the result says what is wanted, as by Result.String. " | " stands between words that may both
// be: the system tells of the end of a connection in its own order.
func is(t testing.TB, got Result, want string) {
	t.Helper()
	if !slices.Contains(strings.Split(want, " | "), got.String()) {
		t.Errorf("%s (%s), wanted %s", got, got.Code, want)
	}
	if (got.Outcome == Up) != (got.Code == "") || (got.Outcome == Up) != (got.Reason == "") {
		t.Errorf("%+v: code and reason go with every outcome but Up", got)
	}
	if strings.Contains(got.Reason, " within ") && (got.Code == Silent) == strings.HasPrefix(got.Reason, "connected") {
		t.Errorf("%+v: only those are silent that do not even connect", got)
	}
	if got.Latency <= 0 {
		t.Errorf("%+v: no latency", got)
	}
}

// listen returns a listener on a free port, which closes with the test.
func listen(t testing.TB, address string) (net.Listener, uint16) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, netip.MustParseAddrPort(l.Addr().String()).Port()
}

// closedPort returns a port on which nobody listens.
func closedPort(t testing.TB) uint16 {
	t.Helper()
	l, port := listen(t, "127.0.0.1")
	l.Close()
	return port
}

// speaker is a server that handles each connection with a function; the port is returned. Connections close when the
// function returns; with the test at the latest.
func speaker(t testing.TB, speak func(net.Conn)) uint16 {
	t.Helper()
	l, port := listen(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { c.Close() })
			go func() { defer stop(); defer c.Close(); speak(c) }()
		}
	}()
	return port
}

// blackhole accepts connections and never answers.
func blackhole(t testing.TB) uint16 {
	t.Helper()
	return speaker(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
}

// fullPort returns a port of a listener whose queue is full: the system drops those who want to connect.
func fullPort(t testing.TB, address string) uint16 {
	t.Helper()
	l, port := listen(t, address)
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { c.Close() })
	}
}

// testAuthority is a certificate authority for one test.
type testAuthority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t testing.TB) *testAuthority {
	t.Helper()
	return (&testAuthority{t: t}).authority(-1000*day, 1000*day)
}

// authority returns another authority below this one, or of itself if there is none yet, valid as said from now.
func (a *testAuthority) authority(from, to time.Duration) *testAuthority {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority", SerialNumber: rand.Text()},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	by, with := template, key
	if a.cert != nil {
		by, with = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), with)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &testAuthority{a.t, cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// issue returns a certificate for app.pay.bank and 127.0.0.1 that is valid as said, from now.
func (a *testAuthority) issue(from, to time.Duration, change ...func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "evil words of the target"},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		DNSNames: []string{"app.pay.bank"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, f := range change {
		f(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// webServer serves HTTP, with a certificate HTTPS, and returns the port.
func webServer(t testing.TB, h http.Handler, config *tls.Config) uint16 {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = quiet
	if config == nil {
		s.Start()
	} else {
		s.TLS = config
		s.EnableHTTP2 = true
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String()).Port()
}
