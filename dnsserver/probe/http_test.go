package probe

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// quiet is for servers whose clients go away.
var quiet = log.New(io.Discard, "", 0)

func TestHTTP(t *testing.T) {
	site := http.NewServeMux()
	answer := func(path string, status int, body string) {
		site.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = io.WriteString(w, body) })
	}
	answer("/", 200, "all is well: 42")
	answer("/503", 503, "evil words of the target")
	answer("/401", 401, "")
	answer("/204", 204, "")
	to := func(path, location string) {
		site.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		})
	}
	to("/there", "/204")
	to("/absolute", "http://app.pay.bank/204")
	to("/elsewhere", "http://other.bank/204")
	to("/loop", "/loop")
	to("/file", "file:///204")
	to("/nowhere", "http://app.pay.bank:99999/")
	to("/nonsense", "http://[::1/")
	site.HandleFunc("/host", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "app.pay.bank" || r.UserAgent() != "fingerpost-probe" || r.ProtoMajor == 1 && r.Header.Get("Connection") != "close" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	site.HandleFunc("/method", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Method+" "+r.URL.RawQuery) })
	site.HandleFunc("/hints", func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			w.WriteHeader(http.StatusEarlyHints)
		}
		_, _ = io.WriteString(w, "after all")
	})
	site.HandleFunc("/chunks", func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range "in many chunks" {
			_, _ = fmt.Fprintf(w, "%c", c)
			_ = http.NewResponseController(w).Flush()
		}
	})
	site.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) {
		for range maxBody / 8 {
			_, _ = io.WriteString(w, "12345678")
		}
		_, _ = io.WriteString(w, "end")
	})
	site.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	a := newAuthority(t)
	good := a.issue(-day, day)
	plainPort := webServer(t, site, nil)
	ports := map[string]uint16{
		"HTTP":             plainPort,
		"HTTPS":            webServer(t, site, &tls.Config{Certificates: []tls.Certificate{good}}),
		"HTTPS, no HTTP/2": webServer(t, site, &tls.Config{Certificates: []tls.Certificate{good}, NextProtos: []string{"http/1.1"}}),
	}
	for name, c := range map[string]struct {
		cfg     *steeringpb.Http
		want    string
		timeout time.Duration
	}{
		"200 is up":                              {&steeringpb.Http{}, "Up", late},
		"so is any of 200-299":                   {&steeringpb.Http{Path: "/204"}, "Up", late},
		"503 is not":                             {&steeringpb.Http{Path: "/503"}, "Down: HTTP 503, wanted 200-299", late},
		"nor is 404":                             {&steeringpb.Http{Path: "/404%20?q=a"}, "Up", late},
		"what is wanted is up":                   {&steeringpb.Http{Path: "/401", ExpectedStatus: statuses(200, 299, 401, 401)}, "Up", late},
		"what is not wanted is down":             {&steeringpb.Http{Path: "/503", ExpectedStatus: statuses(200, 299, 401, 401)}, "Down: HTTP 503, wanted 200-299, 401", late},
		"the host is the one given":              {&steeringpb.Http{Path: "/host", Host: "app.pay.bank"}, "Up", late},
		"else it is the address":                 {&steeringpb.Http{Path: "/host"}, "Down: HTTP 400, wanted 200-299", late},
		"a redirect is an answer":                {&steeringpb.Http{Path: "/there"}, "Down: HTTP 302, wanted 200-299", late},
		"one that may be followed is":            {&steeringpb.Http{Path: "/there", FollowRedirects: 1}, "Up", late},
		"but not round and round":                {&steeringpb.Http{Path: "/loop", FollowRedirects: 3}, "Down: more than 3 redirects", late},
		"nor to another host":                    {&steeringpb.Http{Path: "/elsewhere", Host: "app.pay.bank", FollowRedirects: 3}, "Down: HTTP 302, wanted 200-299", late},
		"nor to what is no page":                 {&steeringpb.Http{Path: "/file", FollowRedirects: 3}, "Down: HTTP 302, wanted 200-299", late},
		"nor to no port":                         {&steeringpb.Http{Path: "/nowhere", Host: "app.pay.bank", FollowRedirects: 3}, "Down: HTTP 302, wanted 200-299", late},
		"nor to nonsense":                        {&steeringpb.Http{Path: "/nonsense", FollowRedirects: 3}, "Down: HTTP 302, wanted 200-299", late},
		"the body has the text":                  {&steeringpb.Http{BodyContains: "is well"}, "Up", late},
		"the body lacks the text":                {&steeringpb.Http{BodyContains: "is bad"}, "Down: the body lacks the text wanted", late},
		"the body matches":                       {&steeringpb.Http{BodyMatches: `well: \d+$`}, "Up", late},
		"the body does not match":                {&steeringpb.Http{BodyMatches: `^well`}, "Down: the body does not match the expression wanted", late},
		"a bad status is told before a bad body": {&steeringpb.Http{Path: "/503", BodyContains: "x"}, "Down: HTTP 503, wanted 200-299", late},
		"the body may come in chunks":            {&steeringpb.Http{Path: "/chunks", BodyContains: "in many chunks"}, "Up", late},
		"what comes on the way is passed over":   {&steeringpb.Http{Path: "/hints", BodyContains: "after all"}, "Up", late},
		"the body is read up to a limit":         {&steeringpb.Http{Path: "/long", BodyMatches: `12345678$`}, "Up", late},
		"what is beyond does not count":          {&steeringpb.Http{Path: "/long", BodyContains: "end"}, "Down: the body lacks the text wanted", late},
		"nobody waits for a body without need":   {&steeringpb.Http{Path: "/endless"}, "Up", late},
		"one that never ends comes too late":     {&steeringpb.Http{Path: "/endless", BodyContains: "begin"}, "Down: connected, but no answer within 150ms", soon},
		"other methods":                          {&steeringpb.Http{Path: "/method?a=b", Method: "OPTIONS", BodyContains: "OPTIONS a=b"}, "Up", late},
		"POST has no body":                       {&steeringpb.Http{Path: "/method", Method: "POST", BodyContains: "POST"}, "Up", late},
		"HEAD gets no body":                      {&steeringpb.Http{Path: "/", Method: "HEAD", BodyContains: "well"}, "Down: the body lacks the text wanted", late},
		"HEAD is up by its status":               {&steeringpb.Http{Path: "/", Method: "HEAD"}, "Up", late},
	} {
		for how, port := range ports {
			t.Run(name+", by "+how, func(t *testing.T) {
				c.cfg.Port, c.cfg.Tls, c.cfg.ServerName, c.cfg.CertificateAuthority = uint32(port), how != "HTTP", "app.pay.bank", a.pem
				is(t, ask(t, httpOf(c.cfg, c.timeout), anywhere(), localhost), c.want)
			})
		}
	}

	t.Run("a redirect leads from HTTP to HTTPS at the same address", func(t *testing.T) {
		to("/secure", fmt.Sprintf("https://app.pay.bank:%d/204", ports["HTTPS"]))
		cfg := &steeringpb.Http{Port: uint32(plainPort), Path: "/secure", Host: "app.pay.bank", FollowRedirects: 1, CertificateAuthority: a.pem}
		is(t, ask(t, httpOf(cfg, late), anywhere(), localhost), "Up")
	})
	t.Run("a redirect to the host without a port leads to the usual port", func(t *testing.T) {
		next, ok := redirect(step{port: 8080, method: "POST", host: "app.pay.bank", path: "/a/b"},
			response{status: 303, field: func(string) string { return "HTTPS://APP.pay.bank/c?d#e" }})
		if want := (step{true, 443, "GET", "APP.pay.bank", "/c?d"}); !ok || next != want {
			t.Errorf("%+v, wanted %+v", next, want)
		}
	})
	t.Run("the host is never looked up", func(t *testing.T) {
		is(t, ask(t, httpOf(&steeringpb.Http{Port: uint32(plainPort), Host: "no.such.name.invalid"}, late), anywhere(), localhost), "Up")
	})
	t.Run("an IPv6 address as host is in brackets", func(t *testing.T) {
		l, port := listen(t, "::1")
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != fmt.Sprintf("[::1]:%d", port) {
				w.WriteHeader(http.StatusBadRequest)
			}
		})}
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Serve(l) }()
		is(t, ask(t, httpOf(&steeringpb.Http{Port: uint32(port)}, late), anywhere(), netip.MustParseAddr("::1")), "Up")
		s.Close()
		<-done
	})
}

// statuses returns ranges by their ends.
func statuses(ends ...uint32) []*steeringpb.StatusRange {
	var all []*steeringpb.StatusRange
	for i := 0; i < len(ends); i += 2 {
		all = append(all, &steeringpb.StatusRange{First: ends[i], Last: ends[i+1]})
	}
	return all
}

// TestHTTPOfTargetsThatDoNotSpeakIt also holds that nothing of what they say is quoted.
func TestHTTPOfTargetsThatDoNotSpeakIt(t *testing.T) {
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				_, _ = io.WriteString(c, text)
			}
		}
	}
	floods := func(begin, more string) func(net.Conn) {
		return func(c net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, c) }()
			_, err := io.WriteString(c, begin)
			for err == nil {
				_, err = io.WriteString(c, strings.Repeat(more, 1000))
			}
		}
	}
	for name, c := range map[string]struct {
		speak   func(net.Conn)
		body    string // wanted
		timeout time.Duration
		want    string
	}{
		"it says nothing":             {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "", soon, "Down: connected, but no answer within 150ms"},
		"it hangs up":                 {says(""), "", late, "Down: connection closed before the answer"},
		"it hangs up in the middle":   {says("HTTP/1.1 200 O"), "", late, "Down: connection closed before the answer"},
		"its body is cut":             {says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"), "ab", late, "Down: connection closed before the answer"},
		"it resets the connection":    {func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }, "", late, "Down: connection reset"},
		"it speaks something else":    {says("SSH-2.0-evil words\r\n\r\n"), "", late, "Down: the answer is not HTTP"},
		"its status is no number":     {says("HTTP/1.1 evil words\r\n\r\n"), "", late, "Down: the answer is not HTTP"},
		"its chunks are none":         {says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nevil\r\n"), "a", late, "Down: the answer is not HTTP"},
		"its fields never end":        {floods("HTTP/1.1 200 OK\r\n", "a: b\r\n"), "", late, "Down: the answer is not HTTP"},
		"its first line never ends":   {floods("HTTP/1.1 200 ", "evil"), "", late, "Down: the answer is not HTTP"},
		"it is always on the way":     {says(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 99)), "", late, "Down: the answer is not HTTP"},
		"its words are evil":          {says("HTTP/1.1 500 evil words\r\n\r\nevil words"), "", late, "Down: HTTP 500, wanted 200-299"},
		"its status is out of bounds": {says("HTTP/1.1 999 evil words\r\n\r\n"), "", late, "Down: HTTP 999, wanted 200-299"},
		"it has no length":            {says("HTTP/1.1 200 OK\r\n\r\nthe text until the end"), "until the end", late, "Up"},
		"it is of the last century":   {says("HTTP/1.0 200 OK\r\n\r\nthe text"), "the text", late, "Up"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &steeringpb.Http{Port: uint32(speaker(t, c.speak)), BodyContains: c.body}
			want := c.want
			if want == "Down: connection closed before the answer" {
				want += " | Down: connection reset"
			}
			is(t, ask(t, httpOf(cfg, c.timeout), anywhere(), localhost), want)
		})
	}
}

func TestHTTPS(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sni" && r.TLS.ServerName != "app.pay.bank" {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	serve := func(c tls.Certificate, change ...func(*tls.Config)) uint32 {
		config := &tls.Config{Certificates: []tls.Certificate{c}}
		for _, f := range change {
			f(config)
		}
		return uint32(webServer(t, ok, config))
	}
	clients := x509.NewCertPool()
	clients.AddCert(other.cert)
	asking := func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, clients }
	ours, theirs := other.issue(-day, day), a.issue(-day, day)
	withSecret := Env{Denied: anywhere().Denied, Certificate: func(name string) (*tls.Certificate, error) {
		switch name {
		case "payments/ours":
			return &ours, nil
		case "payments/theirs":
			return &theirs, nil
		default:
			return nil, errNone
		}
	}}
	good := a.issue(-day, day)
	port := serve(good)
	mutual := serve(good, asking)
	notYet := serve(a.issue(day, 2*day))
	expired := serve(a.issue(-2*day, -day))
	for name, c := range map[string]struct {
		cfg  *steeringpb.Http
		env  Env
		want string
	}{
		"a good certificate is up":                            {&steeringpb.Http{Port: port, Host: "app.pay.bank", CertificateAuthority: a.pem}, anywhere(), "Up"},
		"the host is the SNI":                                 {&steeringpb.Http{Port: port, Host: "app.pay.bank", Path: "/sni", CertificateAuthority: a.pem}, anywhere(), "Up"},
		"a server name is another one":                        {&steeringpb.Http{Port: port, Host: "x.bank", ServerName: "app.pay.bank", Path: "/sni", CertificateAuthority: a.pem}, anywhere(), "Up"},
		"without a name it is for the address":                {&steeringpb.Http{Port: port, CertificateAuthority: a.pem}, anywhere(), "Up"},
		"for another name it is down":                         {&steeringpb.Http{Port: port, Host: "web.pay.bank", CertificateAuthority: a.pem}, anywhere(), "Down: certificate is not for web.pay.bank"},
		"an authority that is not known is down":              {&steeringpb.Http{Port: port, Host: "app.pay.bank"}, anywhere(), "Down: certificate signed by an unknown authority"},
		"so is another authority":                             {&steeringpb.Http{Port: port, Host: "app.pay.bank", CertificateAuthority: other.pem}, anywhere(), "Down: certificate signed by an unknown authority"},
		"an expired certificate is down":                      {&steeringpb.Http{Port: expired, CertificateAuthority: a.pem}, anywhere(), "Down: certificate expired"},
		"so is one of the future":                             {&steeringpb.Http{Port: notYet, CertificateAuthority: a.pem}, anywhere(), "Down: certificate not yet valid"},
		"so is one for clients alone":                         {&steeringpb.Http{Port: serve(a.issue(-day, day, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] })), CertificateAuthority: a.pem}, anywhere(), "Down: certificate is not valid for this use"},
		"nobody checks an expired one if told so":             {&steeringpb.Http{Port: expired, SkipVerify: true}, anywhere(), "Up"},
		"nobody checks the name if told so":                   {&steeringpb.Http{Port: port, Host: "web.pay.bank", SkipVerify: true}, anywhere(), "Up"},
		"a client certificate that is wanted and given is up": {&steeringpb.Http{Port: mutual, SkipVerify: true, ClientCertificate: "payments/ours"}, withSecret, "Up"},
		"one that is not given is down":                       {&steeringpb.Http{Port: mutual, SkipVerify: true}, withSecret, "Down: TLS alert: certificate required | Down: connection reset"},
		"one of another authority is down":                    {&steeringpb.Http{Port: mutual, SkipVerify: true, ClientCertificate: "payments/theirs"}, withSecret, "Down: TLS alert: unknown certificate authority | Down: connection reset"},
		"one that is not here says nothing of the target":     {&steeringpb.Http{Port: mutual, SkipVerify: true, ClientCertificate: "payments/lost"}, withSecret, "Unknown: the client certificate's Secret is missing or not usable here"},
		"nor does one if there are none":                      {&steeringpb.Http{Port: mutual, SkipVerify: true, ClientCertificate: "payments/ours"}, anywhere(), "Unknown: the client certificate's Secret is missing or not usable here"},
		"one that is given and not wanted is up":              {&steeringpb.Http{Port: port, SkipVerify: true, ClientCertificate: "payments/ours"}, withSecret, "Up"},
		"a target with an old TLS is down":                    {&steeringpb.Http{Port: serve(good, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), SkipVerify: true}, anywhere(), "Down: TLS alert: protocol version not supported"},
		"a target without TLS is down":                        {&steeringpb.Http{Port: uint32(webServer(t, ok, nil)), SkipVerify: true}, anywhere(), "Down: the answer is not TLS"},
		"a target that never shakes hands is down":            {&steeringpb.Http{Port: uint32(blackhole(t)), SkipVerify: true}, anywhere(), "Down: connected, but no TLS handshake within 150ms"},
		"a target that hangs up instead is down": {&steeringpb.Http{Port: uint32(speaker(t, func(c net.Conn) {
			_, _ = bufio.NewReader(c).ReadByte()
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		})), SkipVerify: true}, anywhere(), "Down: connection closed before the answer"},
		"a target that only speaks HTTP/2 is up":                {&steeringpb.Http{Port: serve(good, func(c *tls.Config) { c.NextProtos = []string{"h2"} }), SkipVerify: true}, anywhere(), "Up"},
		"a closed port is down":                                 {&steeringpb.Http{Port: uint32(closedPort(t)), SkipVerify: true}, anywhere(), "Down: connection refused"},
		"a denied address says nothing, whatever the Host says": {&steeringpb.Http{Port: port, Host: "app.pay.bank"}, Env{}, "Unknown: denied by the datacenter's probes.deniedNetworks"},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Tls = true
			timeout := late
			if strings.Contains(c.want, "150ms") {
				timeout = soon
			}
			is(t, ask(t, httpOf(c.cfg, timeout), c.env, localhost), c.want)
		})
	}
}
