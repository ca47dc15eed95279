package dnsserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/go-logr/logr/testr"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// selfSigned makes a certificate for a name, in PEM, and its key.
func selfSigned(t testing.TB, name string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func testCertificate(t testing.TB) func() (*tls.Certificate, error) {
	t.Helper()
	pair, err := tls.X509KeyPair(selfSigned(t, "dns.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	return func() (*tls.Certificate, error) { return &pair, nil }
}

// everyTransport runs a server with all transports: HTTPDNS beside DNS over HTTPS and in clear text.
func everyTransport(t testing.TB, opts Options) *Server {
	t.Helper()
	address := loopback()
	plain := loopback()
	opts.Addresses = []netip.AddrPort{address}
	opts.Transports = Transports{DoT: []netip.AddrPort{address}, DoH: []netip.AddrPort{address}, HTTPDNS: []netip.AddrPort{address, plain}}
	opts.Certificate = testCertificate(t)
	return serve(t, opts)
}

// addressOf returns the first address of a transport.
func addressOf(t testing.TB, s *Server, over transport) netip.AddrPort {
	t.Helper()
	for _, l := range s.listeners.addresses() {
		// Of HTTPDNS, that in clear text.
		if l.over == over && (over != overHTTPDNS || l.address != addressOf(t, s, overDoH)) {
			return l.address
		}
	}
	t.Fatalf("there is no listener for %s", over)
	return netip.AddrPort{}
}

func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
}

// dialDoT connects with TLS from an address of this machine, "" for any.
func dialDoT(t testing.TB, s *Server, client string) *tls.Conn {
	t.Helper()
	conn, err := (&tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}, Timeout: 10 * time.Second}, Config: clientTLS("dot"),
	}).Dial("tcp", addressOf(t, s, overDoT).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*tls.Conn)
}

// webClient asks over one version of HTTP.
func webClient(t testing.TB, version2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: clientTLS(), ForceAttemptHTTP2: version2, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func TestAnswersOverTLS(t *testing.T) {
	s := everyTransport(t, Options{IdleTimeout: 20 * time.Second})
	conn := dialDoT(t, s, "")
	if state := conn.ConnectionState(); state.NegotiatedProtocol != "dot" || state.Version != tls.VersionTLS13 {
		t.Errorf("agreed on %q, version %x", state.NegotiatedProtocol, state.Version)
	}
	// Pipelined, of every size, cut anywhere.
	var out []byte
	const n = 200
	for i := range n {
		m := query("www.example.test.")
		if i%20 == 0 {
			m = query("big.example.test.")
		}
		m.Id = uint16(i)
		m.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}, &dns.EDNS0_PADDING{Padding: make([]byte, 30)}}
		out = append(out, framed(t, m)...)
	}
	go func() {
		for part := range slices.Chunk(out, 333) {
			if _, err := conn.Write(part); err != nil {
				t.Errorf("writing: %v", err)
				return
			}
		}
		_ = conn.CloseWrite()
	}()
	for i := range n {
		want := 1
		if i%20 == 0 {
			want = 2000
		}
		r := readFramed(t, conn)
		if int(r.Id) != i || len(r.Answer) != want {
			t.Fatalf("reply %d has ID %d and %d records", i, r.Id, len(r.Answer))
		}
		var keepAlive uint16
		padded := false
		for _, o := range r.IsEdns0().Option {
			switch o := o.(type) {
			case *dns.EDNS0_TCP_KEEPALIVE:
				keepAlive = o.Timeout
			case *dns.EDNS0_PADDING:
				padded = true
			}
		}
		if keepAlive != 200 || !padded {
			t.Fatalf("reply %d states an idle timeout of %d, padded %t", i, keepAlive, padded)
		}
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ends with %v, wanted close_notify", err)
	}
}

func TestAgreesOnTLS(t *testing.T) {
	s := everyTransport(t, Options{})
	for sentence, tc := range map[string]struct {
		over      transport
		config    *tls.Config
		protocol  string
		wantError bool
	}{
		"DNS over TLS without ALPN":          {overDoT, clientTLS(), "", false},
		"DNS over TLS with ALPN":             {overDoT, clientTLS("dot"), "dot", false},
		"DNS over TLS with another protocol": {overDoT, clientTLS("h2"), "", true},
		"TLS 1.2":                            {overDoT, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, "", false},
		"TLS 1.1":                            {overDoT, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", true},
		"HTTP/2":                             {overDoH, clientTLS("h2", "http/1.1"), "h2", false},
		"HTTP/1.1":                           {overDoH, clientTLS("http/1.1"), "http/1.1", false},
		"HTTP with TLS 1.1":                  {overDoH, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", true},
		"HTTPS with DNS over TLS":            {overDoH, clientTLS("dot"), "", true},
	} {
		t.Run(sentence, func(t *testing.T) {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addressOf(t, s, tc.over).String(), tc.config)
			if err != nil {
				if !tc.wantError || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				return
			}
			defer conn.Close()
			if got := conn.ConnectionState().NegotiatedProtocol; tc.wantError || got != tc.protocol {
				t.Errorf("agreed on %q", got)
			}
		})
	}
}

// TestCertificatesAreReadAgain: new files are shown to new connections, damaged ones are not, and
// sessions are resumed.
func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	files := CertificateConfig{filepath.Join(dir, "crt"), filepath.Join(dir, "key")}
	modified := time.Now().Add(-time.Hour)
	write := func(certificate, key []byte) {
		t.Helper()
		modified = modified.Add(time.Minute)
		for path, content := range map[string][]byte{files.Certificate: certificate, files.Key: key} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, modified, modified); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(selfSigned(t, "one.test"))
	shown, err := openTLSFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	address := loopback()
	s := serve(t, Options{Addresses: []netip.AddrPort{address}, Settings: Settings{Transports: Transports{DoT: []netip.AddrPort{address}}}, Certificate: shown.certificate})
	cache := tls.NewLRUClientSessionCache(1)
	connect := func() tls.ConnectionState {
		t.Helper()
		config := clientTLS("dot")
		config.ClientSessionCache, config.ServerName = cache, "dns.test"
		conn, err := tls.Dial("tcp", addressOf(t, s, overDoT).String(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(framed(t, query("www.example.test."))); err != nil {
			t.Fatal(err)
		}
		readFramed(t, conn) // after the ticket
		return conn.ConnectionState()
	}
	subject := func(state tls.ConnectionState) string { return state.PeerCertificates[0].Subject.CommonName }
	first := connect()
	if subject(first) != "one.test" || first.DidResume {
		t.Fatalf("the first connection is shown %s, resumed %t", subject(first), first.DidResume)
	}
	if !connect().DidResume {
		t.Error("sessions are not resumed")
	}
	cache = nil
	expect := func(when, want string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(20 * time.Second); got != want && time.Now().Before(end); {
			got = subject(connect())
		}
		if got != want {
			t.Errorf("%s a connection is shown %s", when, got)
		}
	}
	write(selfSigned(t, "two.test"))
	expect("with new files", "two.test")
	certificate, _ := selfSigned(t, "three.test")
	_, other := selfSigned(t, "three.test")
	write(certificate, other)
	for end := time.Now().Add(20 * time.Second); ; {
		if _, err := shown.files.Status(); err != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a key of another certificate is not noticed")
		}
	}
	expect("with files that do not belong together", "two.test")
	write(selfSigned(t, "four.test"))
	expect("with good files again", "four.test")

	for sentence, bad := range map[string]CertificateConfig{
		"no key":         {Certificate: files.Certificate},
		"no certificate": {Key: files.Key},
		"no file":        {dir + "/none", files.Key},
	} {
		if _, err := openTLSFiles(bad); err == nil {
			t.Errorf("%s is no error", sentence)
		}
	}
	if problems, err := testutil.CollectAndLint(shown); err != nil || len(problems) > 0 {
		t.Errorf("metrics are not as they should be: %v %v", problems, err)
	}
}

// TestTransportsComeAndGo switches all transports while others ask over UDP and one connection
// after the other: nobody is without an answer.
func TestTransportsComeAndGo(t *testing.T) {
	address := loopback()
	s := serve(t, Options{Addresses: []netip.AddrPort{address}, Certificate: testCertificate(t), Drain: 50 * time.Millisecond})
	address = s.Addresses()[0]
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	asking := func(ask func() error) {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := ask(); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	asking(func() error {
		_, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(query("www.example.test."), address.String())
		return err
	})
	kept := netip.AddrPortFrom(loopback().Addr(), 8080)
	always := Transports{HTTPDNS: []netip.AddrPort{kept}}
	if err := s.listeners.set(always); err != nil {
		t.Fatal(err)
	}
	connected := make(chan struct{})
	web, once := webClient(t, false), sync.OnceFunc(func() { close(connected) })
	asking(func() error {
		defer once()
		resp, err := web.Get("http://" + kept.String() + "/resolve?name=www.example.test")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	})
	<-connected

	all := Transports{
		DoT: []netip.AddrPort{netip.AddrPortFrom(kept.Addr(), 8853)}, DoH: []netip.AddrPort{netip.AddrPortFrom(kept.Addr(), 8443)},
		HTTPDNS: []netip.AddrPort{kept, netip.AddrPortFrom(kept.Addr(), 8443)},
	}
	reachable := func(a netip.AddrPort) bool {
		conn, err := net.DialTimeout("tcp", a.String(), 5*time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}
	for round := range 5 {
		if err := s.listeners.set(all); err != nil {
			t.Fatal(err)
		}
		dot := dialDoT(t, s, "")
		tcp := dialTCP(t, s)
		ask := func(conn net.Conn) {
			t.Helper()
			if _, err := conn.Write(framed(t, query("www.example.test."))); err != nil {
				t.Fatal(err)
			}
			readFramed(t, conn)
		}
		ask(dot)
		ask(tcp)
		if status, _ := get(t, webClient(t, true), "https://"+all.DoH[0].String()+"/resolve?name=www.example.test"); status != http.StatusOK {
			t.Errorf("HTTPDNS beside DNS over HTTPS says %d", status)
		}
		without := always
		without.NoTCP = true
		if err := s.listeners.set(without); err != nil {
			t.Fatal(err)
		}
		if reachable(address) || reachable(all.DoT[0]) || reachable(all.DoH[0]) {
			t.Errorf("round %d: what was closed can be reached", round)
		}
		if !reachable(kept) {
			t.Errorf("round %d: what was not to change is gone", round)
		}
		// Connections that are there get what they ask before the end of draining, and then end.
		for _, conn := range []net.Conn{dot, tcp} {
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("round %d: a connection ends with %v", round, err)
			}
		}
	}
	cancel()
	clients.Wait()
	if err := s.listeners.set(Transports{DoH: []netip.AddrPort{kept}}); err != nil {
		t.Errorf("DNS over HTTPS in place of HTTPDNS: %v", err)
	}
}

// get returns status and body, without the header's end of line.
func get(t testing.TB, client *http.Client, url string) (status int, body string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestTransportsThatCannotBe(t *testing.T) {
	taken, err := net.Listen("tcp4", loopback().String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	used := taken.Addr().(*net.TCPAddr).AddrPort()
	other := loopback()
	s := serve(t, Options{})
	for sentence, tc := range map[string]struct {
		transports Transports
		want       string
	}{
		"an address in use":              {Transports{HTTPDNS: []netip.AddrPort{used, other}}, "listening on " + used.String() + " for HTTPDNS: address already in use"},
		"TLS without certificate":        {Transports{DoT: []netip.AddrPort{other}, HTTPDNS: []netip.AddrPort{other}}, "listening on " + other.String() + " for DNS over TLS: there is no certificate for TLS"},
		"a family without an address":    {Transports{DoH: []netip.AddrPort{netip.MustParseAddrPort("[::]:443")}, HTTPDNS: []netip.AddrPort{other}}, "listening on [::]:443 for DNS over HTTPS: this server answers on no address of that kind"},
		"an address of another machine":  {Transports{HTTPDNS: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80"), other}}, "listening on 192.0.2.1:80 for HTTPDNS: cannot assign requested address"},
		"nothing wrong":                  {Transports{HTTPDNS: []netip.AddrPort{other}}, ""},
		"one address for two transports": {Transports{HTTPDNS: []netip.AddrPort{other, s.Addresses()[0]}}, "listening on " + s.Addresses()[0].String() + " for HTTPDNS: address already in use"},
	} {
		t.Run(sentence, func(t *testing.T) {
			err := s.listeners.set(tc.transports)
			if text := fmt.Sprint(err); text != tc.want && (err != nil || tc.want != "") {
				t.Errorf("%q, wanted %q", text, tc.want)
			}
			// The rest is as it was to be.
			if status, body := get(t, webClient(t, false), "http://"+addressOf0(t, s).String()+"/resolve?name=www.example.test"); status != http.StatusOK {
				t.Errorf("what can be says %d %s", status, body)
			}
			if r := exchangeWith(t, "tcp", s.Addresses()[0], query("www.example.test.")); len(r.Answer) != 1 {
				t.Errorf("over TCP is answered %v", r)
			}
		})
	}
	view := &zone.View{}
	if broken, err := Listen(Options{Addresses: []netip.AddrPort{loopback()}, Settings: Settings{Transports: Transports{HTTPDNS: []netip.AddrPort{used}}}, View: view, Log: testr.New(t)}); err == nil {
		broken.close()
		t.Error("a server starts without one of its transports")
	}
}

// addressOf0 is that of HTTPDNS where there is no DNS over HTTPS.
func addressOf0(t *testing.T, s *Server) netip.AddrPort {
	t.Helper()
	for _, l := range s.listeners.addresses() {
		if l.over == overHTTPDNS {
			return l.address
		}
	}
	t.Fatal("there is no HTTPDNS")
	return netip.AddrPort{}
}

// TestUnspecifiedAddressesStandForAll that the server answers on.
func TestUnspecifiedAddressesStandForAll(t *testing.T) {
	one, two, six := loopback(), loopback(), netip.MustParseAddrPort("[::1]:0")
	any4, any6 := netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")
	s := serve(t, Options{
		Addresses: []netip.AddrPort{one, two, six}, Certificate: testCertificate(t),
		Settings: Settings{Transports: Transports{NoTCP: true, DoT: []netip.AddrPort{any4, any6}, HTTPDNS: []netip.AddrPort{any6}}},
	})
	var got []string
	for _, l := range s.listeners.addresses() {
		got = append(got, l.over.String()+" "+l.address.Addr().String())
	}
	want := []string{"dot " + one.Addr().String(), "dot " + two.Addr().String(), "dot ::1", "httpdns ::1"}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("connections are taken on %q", got)
	}
}

// TestConnectionsInTheQueueAreServed: clients whose connections no one had accepted yet when the
// server was told to end are answered all the same.
func TestConnectionsInTheQueueAreServed(t *testing.T) {
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(t)}, nil)
	address := loopback()
	s, err := Listen(Options{
		Addresses: []netip.AddrPort{address}, View: view, Log: testr.New(t), Drain: 2 * time.Second, Certificate: testCertificate(t),
		Settings: Settings{Transports: Transports{DoT: []netip.AddrPort{address}, HTTPDNS: []netip.AddrPort{address}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var waiting []*net.TCPConn
	for range 100 {
		conn := dialTCP(t, s)
		if _, err := conn.Write(framed(t, query("www.example.test."))); err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, conn)
	}
	var clients sync.WaitGroup
	var dialed sync.WaitGroup
	for range 20 {
		dialed.Add(2)
		clients.Go(func() {
			raw, err := net.Dial("tcp", addressOf(t, s, overDoT).String())
			dialed.Done()
			if err != nil {
				t.Error(err)
				return
			}
			conn := tls.Client(raw, clientTLS("dot"))
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := conn.Write(framed(t, query("www.example.test."))); err != nil {
				t.Error(err)
				return
			}
			readFramed(t, conn)
		})
		clients.Go(func() {
			conn, err := net.Dial("tcp", addressOf0(t, s).String())
			dialed.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, "GET /resolve?name=www.example.test HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Error(err)
				return
			}
			if all, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(all, []byte("HTTP/1.1 200 ")) || !bytes.Contains(all, []byte("Connection: close\r\n")) {
				t.Errorf("answered %q, %v", all, err)
			}
		})
	}
	dialed.Wait()
	ended, stop := context.WithCancel(t.Context())
	stop()
	done := make(chan error, 1)
	go func() { done <- s.Serve(ended) }()
	for i, conn := range waiting {
		if r := readFramed(t, conn); len(r.Answer) != 1 {
			t.Errorf("connection %d is answered %v", i, r)
		}
		_ = conn.Close()
	}
	clients.Wait()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestResponsesGetSilence: what is no query is owed no reply, over no transport.
func TestResponsesGetSilence(t *testing.T) {
	s := everyTransport(t, Options{})
	response := query("www.example.test.")
	response.Response = true
	b, err := response.Pack()
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.Dial("udp", s.Addresses()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_ = udp.SetDeadline(time.Now().Add(10 * time.Second))
	marker := query("www.example.test.")
	marker.Id = response.Id + 1
	second, err := marker.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range [][]byte{b, second} {
		if _, err := udp.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	reply := make([]byte, 512)
	if _, err := udp.Read(reply); err != nil || !bytes.Equal(reply[:2], second[:2]) {
		t.Errorf("over UDP is answered %x, %v", reply[:2], err)
	}
	for name, conn := range map[string]net.Conn{"TCP": dialTCP(t, s), "TLS": dialDoT(t, s, "")} {
		if _, err := conn.Write(append(framed(t, response), framed(t, marker)...)); err != nil {
			t.Fatal(err)
		}
		if r := readFramed(t, conn); r.Id != marker.Id {
			t.Errorf("over %s a response is answered", name)
		}
	}
	resp, err := webClient(t, true).Post("https://"+addressOf(t, s, overDoH).String()+pathDoH, typeMessage, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Content-Type") == typeMessage {
		t.Errorf("over HTTPS a response gets %s", resp.Status)
	}
}

func TestTransportsHaveMetrics(t *testing.T) {
	s := everyTransport(t, Options{})
	conn := dialDoT(t, s, "")
	for range 2 {
		if _, err := conn.Write(framed(t, query("www.example.test."))); err != nil {
			t.Fatal(err)
		}
		readFramed(t, conn)
	}
	web, at := webClient(t, true), "https://"+addressOf(t, s, overDoH).String()
	get(t, web, at+"/resolve?name=nope.example.test")
	get(t, web, at+"/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlBHRlc3QAAAEAAQ")
	plain, err := net.Dial("tcp", addressOf(t, s, overDoT).String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(plain, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // an alert, and the end
		t.Fatal(err)
	}
	for s.listeners.handshakes[overDoT].Load() == 0 || s.streams.counts()[overDoT] > 1 {
		if t.Context().Err() != nil {
			t.Fatal("a failed handshake is not counted")
		}
	}
	want := `
# HELP fingerpost_dnsserver_connections Open connections. Those to an address of DNS over HTTPS count there, whatever they bring.
# TYPE fingerpost_dnsserver_connections gauge
fingerpost_dnsserver_connections{transport="doh"} 1
fingerpost_dnsserver_connections{transport="dot"} 1
fingerpost_dnsserver_connections{transport="httpdns"} 0
fingerpost_dnsserver_connections{transport="tcp"} 0
# HELP fingerpost_dnsserver_tls_handshakes_failed_total Connections that ended before TLS was agreed on.
# TYPE fingerpost_dnsserver_tls_handshakes_failed_total counter
fingerpost_dnsserver_tls_handshakes_failed_total{transport="doh"} 0
fingerpost_dnsserver_tls_handshakes_failed_total{transport="dot"} 1
`
	if err := testutil.CollectAndCompare(s, strings.NewReader(want),
		"fingerpost_dnsserver_connections", "fingerpost_dnsserver_tls_handshakes_failed_total"); err != nil {
		t.Error(err)
	}
	for over, want := range map[transport][2]uint64{overDoT: {2, 0}, overDoH: {1, 0}, overHTTPDNS: {0, 1}} {
		counts := s.listeners.exchanges[over].counts
		if ok, missing := counts.messages[zone.RcodeSuccess].Load(), counts.messages[zone.RcodeNXDomain].Load(); ok != want[0] || missing != want[1] {
			t.Errorf("%s counts %d NOERROR and %d NXDOMAIN", over, ok, missing)
		}
	}
}

// BenchmarkConnections asks again and again over one connection; allocations are those of both ends.
func BenchmarkConnections(b *testing.B) {
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(b)}, nil)
	s := everyTransport(b, Options{View: view, Log: funcr.New(func(_, _ string) {}, funcr.Options{})})
	tcp, err := net.Dial("tcp", s.Addresses()[0].String())
	if err != nil {
		b.Fatal(err)
	}
	defer tcp.Close()
	dot, err := tls.Dial("tcp", addressOf(b, s, overDoT).String(), clientTLS("dot"))
	if err != nil {
		b.Fatal(err)
	}
	defer dot.Close()
	question, reply := framed(b, query("www.example.test.")), make([]byte, 512)
	b.Run("TCP, a connection each", func(b *testing.B) {
		for b.Loop() {
			conn, err := net.Dial("tcp", tcp.RemoteAddr().String())
			if err != nil {
				b.Fatal(err)
			}
			if _, err := conn.Write(question); err != nil {
				b.Fatal(err)
			}
			if n, err := conn.Read(reply); err != nil || n < 2 {
				b.Fatal(err)
			}
			_ = conn.(*net.TCPConn).SetLinger(0) // ports would run out
			_ = conn.Close()
		}
	})
	for name, conn := range map[string]net.Conn{"TCP": tcp, "TLS": dot} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conn.Write(question); err != nil {
					b.Fatal(err)
				}
				if n, err := conn.Read(reply); err != nil || n < 2 {
					b.Fatal(err)
				}
			}
		})
	}
}
