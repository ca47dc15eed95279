package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// patience bounds waits for what has to happen; nothing is asserted by it.
const patience = 60 * time.Second

// eventually returns when a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("it did not happen that %s", what)
		}
	}
}

// Addresses of these tests, which nobody else's take.
const (
	engineAt = "127.53.6.1:5306"
	httpAt   = "127.53.6.1:8056"
	flushAt  = "127.53.6.1:8054"
)

// pool is a configuration whose authorities are nobody.
const pool = `
listen: ["` + engineAt + `"]
clients: [127.0.0.0/8]
rootHints: [{name: ns-a, addresses: [127.53.6.9]}]
authorityNetworks: [127.53.6.0/24]
loopbackServers: true
cacheMiB: 8
`

func TestTheAgentRunsAnEngineFromAFile(t *testing.T) {
	dir, err := os.MkdirTemp("", "fp") //nolint:usetesting // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	config := filepath.Join(dir, "pool.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(config+".new", config); err != nil {
			t.Fatal(err)
		}
	}
	write(pool)
	client := certificates(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := command()
	c.SetArgs([]string{
		"--engine", "Unbound", "--config", config, "--dir", filepath.Join(dir, "run"), "--http-listen", httpAt, "--flush-listen", flushAt, "--tls-dir", dir,
		"--drain", "0s", "--log-format", "json",
	})
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()
	get := func(path string) (int, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+httpAt+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0, ""
		}
		defer reply.Body.Close()
		text, _ := io.ReadAll(reply.Body)
		return reply.StatusCode, string(text)
	}
	eventually(t, "it is ready", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		default:
		}
		code, _ := get("/readyz")
		return code == http.StatusOK
	})

	write(pool + "block: {names: [blocked.corp]}\n")
	eventually(t, "a change of the file is in force", func() bool {
		m := new(dns.Msg).SetQuestion("www.blocked.corp.", dns.TypeA)
		m.SetEdns0(1232, false)
		reply, _, err := (&dns.Client{Timeout: time.Second}).ExchangeContext(t.Context(), m, engineAt)
		return err == nil && reply.Rcode == dns.RcodeNameError
	})
	for _, bad := range []struct{ text, want string }{
		{"listen: [\n", "refused: error converting YAML to JSON: yaml: line 1: "},
		{pool + "rootHint: []\n", `unknown field "rootHint"`},
		{strings.Replace(pool, "rootHints: [{name: ns-a, addresses: [127.53.6.9]}]", "rootHints: []", 1), "refused: rootHints is empty"},
	} {
		write(bad.text)
		eventually(t, "it is refused: "+bad.want, func() bool {
			_, status := get("/status")
			return strings.Contains(status, bad.want) && strings.HasPrefix(status, "ready")
		})
	}

	// What is not there yet may come: nobody touches the configuration for it.
	rpz := filepath.Join(dir, "rpz.zone")
	write(pool + "block: {rpz: [{name: rpz.corp, file: " + rpz + "}]}\n")
	eventually(t, "a file that is not there is missed", func() bool {
		_, status := get("/status")
		return strings.Contains(status, "refused: block.rpz[0].file can't be read: ")
	})
	if err := os.WriteFile(rpz, []byte("$ORIGIN rpz.corp.\n@ 60 IN SOA ns.corp. hostmaster.corp. 1 3600 600 86400 60\n@ 60 IN NS ns.corp.\nbad.example 60 IN CNAME .\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is in force when the file is there", func() bool {
		_, status := get("/status")
		return !strings.Contains(status, "refused")
	})

	flush := func(client *tls.Config) (string, error) {
		h := &http.Client{Transport: &http.Transport{TLSClientConfig: client, DisableKeepAlives: true}, Timeout: 10 * time.Second}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+flushAt+"/v1/flush", strings.NewReader(`{"changes": [{"name": "app.corp"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := h.Do(request)
		if err != nil {
			return "", err
		}
		defer reply.Body.Close()
		text, err := io.ReadAll(reply.Body)
		return strings.TrimSpace(string(text)), err
	}
	stranger := client.Clone()
	stranger.Certificates = nil
	if said, err := flush(stranger); err == nil {
		t.Errorf("a client without a certificate flushed: %s", said)
	}
	if said, err := flush(client); err != nil || said != `{"outcomes":["NoAuthority"]}` {
		t.Errorf("a client with a certificate got %q, %v", said, err)
	}

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if code, _ := get("/readyz"); code != 0 {
		t.Errorf("it still answers: %d", code)
	}
}

// certificates writes those of a server into dir, and returns how a client shows one of the same authority.
func certificates(t *testing.T, dir string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, DNSNames: []string{"agent"},
	}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	shown, hidden := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for name, content := range map[string][]byte{"tls.crt": shown, "ca.crt": shown, "tls.key": hidden} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(shown, hidden)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(shown)
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "agent", Certificates: []tls.Certificate{pair}}
}

func TestAddressesAreReadAsKubernetesWritesThem(t *testing.T) {
	for text, want := range map[string]string{"10.1.2.3": "10.1.2.3:53", "fd00::3": "[fd00::3]:53", "[fd00::3]": "[fd00::3]:53", "[fd00::3]:5353": "[fd00::3]:5353", "10.1.2.3:5353": "10.1.2.3:5353"} {
		if got, err := parseListen(text, 53); err != nil || got.String() != want {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
}

func TestWhatIsAskedWrongIsToldAtOnce(t *testing.T) {
	good := filepath.Join(t.TempDir(), "pool.yaml")
	if err := os.WriteFile(good, []byte(pool), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte(strings.Replace(pool, "[{name: ns-a, addresses: [127.53.6.9]}]", "[]", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	base := []string{"--engine", "Unbound", "--config", good, "--dir", dir, "--http-listen", ""}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"an engine that is none":                  {append(base, "--engine", "BIND"), `--engine: engine "BIND" is none of [KnotResolver Recursor Unbound]`},
		"no configuration":                        {[]string{"--engine", "Unbound", "--dir", dir}, "either --config or --hub has to say what the server does"},
		"a configuration that is not there":       {append(base, "--config", "/nonexistent"), "/nonexistent: open /nonexistent: no such file or directory"},
		"a configuration that is bad":             {append(base, "--config", bad), bad + ": rootHints is empty: the server would ask the root servers of the internet"},
		"managers without a certificate":          {append(base, "--hub", "hub:1"), "--hub needs --tls-dir"},
		"flushes by everybody":                    {append(base, "--flush-listen", "0.0.0.0:0"), "it needs --tls-dir, or anybody could empty the cache"},
		"certificates that are not there":         {append(base, "--tls-dir", "/nonexistent"), "--tls-dir: stat /nonexistent/tls.crt: no such file or directory"},
		"an address that is none":                 {append(base, "--listen", "192.0.2.1,ns"), `--listen: ParseAddr("ns"): unable to parse IP`},
		"a folder that no engine's file may name": {append(base, "--dir", "/tmp/a b"), fmt.Sprintf("--dir: path %q is not absolute, or has other characters than letters, digits and ._@:+-", "/tmp/a b")},
	} {
		t.Run(name, func(t *testing.T) {
			c := command()
			c.SetArgs(tt.args)
			c.SetOut(&bytes.Buffer{})
			if err := c.ExecuteContext(t.Context()); err == nil || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
