package dnsserver

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func packed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDNSOverHTTPS holds RFC 8484, over both versions of HTTP.
func TestDNSOverHTTPS(t *testing.T) {
	s := everyTransport(t, Options{})
	at := "https://" + addressOf(t, s, overDoH).String()
	ask := packed(t, query("www.example.test."))
	padded := query("www.example.test.")
	padded.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 60)}}
	long := query("www.example.test.")
	long.Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 60000)}}
	inURL := func(b []byte) string { return pathDoH + "?dns=" + base64.RawURLEncoding.EncodeToString(b) }
	bad := bytes.Clone(ask)
	bad[5] = 2 // questions

	type want struct {
		status  int
		rcode   int
		answers int
		cache   string
	}
	good := want{200, dns.RcodeSuccess, 1, "private, max-age=300"}
	for sentence, tc := range map[string]struct {
		method, path string
		body         []byte
		header       http.Header
		want         want
	}{
		"GET":                       {path: inURL(ask), want: good},
		"GET with other parameters": {path: inURL(ask) + "&x=1&ct", want: good},
		"HEAD":                      {method: "HEAD", path: inURL(ask), want: want{status: 200, cache: "private, max-age=300"}},
		"POST":                      {method: "POST", body: ask, want: good},
		"POST with parameters of the type": {
			method: "POST", body: ask, header: http.Header{"Content-Type": {"Application/DNS-Message; charset=x"}}, want: good,
		},
		"POST of 60,000 octets":        {method: "POST", body: packed(t, long), want: good},
		"an answer of 32,000 octets":   {method: "POST", body: packed(t, query("big.example.test.")), want: want{200, 0, 2000, "private, max-age=300"}},
		"a name that does not exist":   {path: inURL(packed(t, query("nope.example.test."))), want: want{200, dns.RcodeNameError, 0, "private, max-age=60"}},
		"a zone that is not here":      {path: inURL(packed(t, query("elsewhere.test."))), want: want{200, dns.RcodeRefused, 0, "no-store"}},
		"two questions":                {path: inURL(bad), want: want{200, dns.RcodeFormatError, 0, "no-store"}},
		"no parameter":                 {path: pathDoH, want: want{status: 400}},
		"the parameter twice":          {path: inURL(ask) + "&dns=AAAA", want: want{status: 400}},
		"an empty message":             {path: pathDoH + "?dns=", want: want{status: 400}},
		"less than a header":           {path: inURL(ask[:11]), want: want{status: 400}},
		"base64 with padding":          {path: pathDoH + "?dns=" + url.QueryEscape(base64.URLEncoding.EncodeToString(ask[:len(ask)-1])), want: want{status: 400}},
		"base64 of the other alphabet": {path: pathDoH + "?dns=" + url.QueryEscape("++//"), want: want{status: 400}},
		"parameters that are none":     {path: pathDoH + "?dns=%zz", want: want{status: 400}},
		"POST of nothing":              {method: "POST", body: []byte{}, want: want{status: 400}},
		"POST of another type":         {method: "POST", body: ask, header: http.Header{"Content-Type": {"application/json"}}, want: want{status: 415}},
		"POST of compressed content":   {method: "POST", body: ask, header: http.Header{"Content-Encoding": {"gzip"}}, want: want{status: 415}},
		"POST of more than a message":  {method: "POST", body: make([]byte, zone.MaxMessage+1), want: want{status: 413}},
		"another method":               {method: "PUT", body: ask, want: want{status: 405}},
		"another path":                 {path: "/", want: want{status: 404}},
		"a header of 30,000 octets":    {path: inURL(ask), header: http.Header{"X": {strings.Repeat("a", 30000)}}, want: want{status: 431}},
		"a header of many fields":      {path: inURL(ask), header: http.Header{"X": slices.Repeat([]string{strings.Repeat("a", 1000)}, 25)}, want: want{status: 431}},
		"a URL of 30,000 octets":       {path: inURL(make([]byte, 22500)), want: want{status: 431}},
	} {
		for _, version2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", sentence, version2), func(t *testing.T) {
				if tc.method == "" {
					tc.method = http.MethodGet
				}
				if tc.path == "" {
					tc.path = pathDoH
				}
				r, err := http.NewRequestWithContext(t.Context(), tc.method, at+tc.path, bytes.NewReader(tc.body))
				if err != nil {
					t.Fatal(err)
				}
				if tc.body != nil {
					r.Header.Set("Content-Type", typeMessage)
				}
				maps.Copy(r.Header, tc.header)
				resp, err := webClient(t, version2).Do(r)
				if err != nil && version2 && tc.want.status == 431 {
					return // with one field that is too long the connection ends (RFC 7541 §7.4)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != tc.want.status || (resp.ProtoMajor == 2) != version2 {
					t.Fatalf("%s %s", resp.Status, resp.Proto)
				}
				if tc.want.status == 405 && resp.Header.Get("Allow") == "" {
					t.Error("the methods that are allowed are not told")
				}
				if tc.want.status != 200 {
					if got := resp.Header.Get("Content-Type"); got == typeMessage || len(body) == 0 {
						t.Errorf("a fault is told as %q: %s", got, body)
					}
					return
				}
				if got := resp.Header.Get("Content-Type"); got != typeMessage {
					t.Errorf("content type %q", got)
				}
				if got := resp.Header.Get("Cache-Control"); got != tc.want.cache {
					t.Errorf("cache control %q, wanted %q", got, tc.want.cache)
				}
				if tc.method == http.MethodHead {
					return
				}
				var m dns.Msg
				if err := m.Unpack(body); err != nil || m.Rcode != tc.want.rcode || len(m.Answer) != tc.want.answers || m.Truncated {
					t.Errorf("answered %v, %v", &m, err)
				}
			})
		}
	}
	if resp, err := webClient(t, true).Post(at+pathDoH, typeMessage, bytes.NewReader(packed(t, padded))); err != nil {
		t.Error(err)
	} else {
		defer resp.Body.Close()
		if resp.ContentLength != 468 {
			t.Errorf("a client that pads gets %d octets", resp.ContentLength)
		}
	}
	if status, _ := get(t, webClient(t, false), "http://"+addressOf(t, s, overHTTPDNS).String()+inURL(ask)); status != 404 {
		t.Errorf("DNS over HTTP in clear text says %d", status)
	}
}

// jsonZone has records of many forms.
func jsonZone(t testing.TB) *zone.Served {
	t.Helper()
	return loadZone(t, "example.test", `$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 10.0.0.1
www A 10.0.0.2
www 90 AAAA 2001:db8::2
alias CNAME www
mail MX 10 www
text TXT "a \"b\"" "<c>"
odd\.label\000 A 10.0.0.3
_sip._tcp SRV 1 2 3 www
svc HTTPS 1 . alpn=h2 port=8443
unknown TYPE65000 \# 3 010203
sub NS ns.sub
ns.sub A 10.0.0.4
`)
}

// TestHTTPDNS holds what the parameters mean, and the form of the answers.
func TestHTTPDNS(t *testing.T) {
	view := &zone.View{}
	view.Update([]*zone.Served{jsonZone(t)}, nil)
	s := everyTransport(t, Options{View: view})
	plain, secure := "http://"+addressOf(t, s, overHTTPDNS).String(), "https://"+addressOf(t, s, overDoH).String()
	const flags = `"TC":false,"RD":false,"RA":false,"AD":false,"CD":false,`
	question := func(name string, qtype uint16) string {
		return fmt.Sprintf(`"Question":[{"name":%q,"type":%d}]`, name, qtype)
	}
	soa := `"Authority":[{"name":"example.test.","type":6,"TTL":60,"data":"ns.example.test. hostmaster.example.test. 1 3600 600 86400 60"}]`
	answer := func(status int, question string, more ...string) string {
		return fmt.Sprintf(`{"Status":%d,`, status) + flags + strings.Join(append([]string{question}, more...), ",") + "}\n"
	}
	www := `"Answer":[{"name":"www.example.test.","type":1,"TTL":300,"data":"10.0.0.2"}]`
	for sentence, tc := range map[string]struct {
		query string
		want  string // the body of status 200, or the error of status 400
	}{
		"a name":                       {"name=www.example.test", answer(0, question("www.example.test.", 1), www)},
		"a name with its final dot":    {"name=www.example.test.", answer(0, question("www.example.test.", 1), www)},
		"a name in upper case":         {"name=WWW.example.TEST", answer(0, question("www.example.test.", 1), www)},
		"a type by mnemonic":           {"name=www.example.test&type=aaaa", answer(0, question("www.example.test.", 28), `"Answer":[{"name":"www.example.test.","type":28,"TTL":90,"data":"2001:db8::2"}]`)},
		"a type by number":             {"name=www.example.test&type=28", answer(0, question("www.example.test.", 28), `"Answer":[{"name":"www.example.test.","type":28,"TTL":90,"data":"2001:db8::2"}]`)},
		"a type without mnemonic":      {"name=unknown.example.test&type=TYPE65000", answer(0, question("unknown.example.test.", 65000), `"Answer":[{"name":"unknown.example.test.","type":65000,"TTL":300,"data":"\\# 3 010203"}]`)},
		"an alias":                     {"name=alias.example.test&type=A", answer(0, question("alias.example.test.", 1), `"Answer":[{"name":"alias.example.test.","type":5,"TTL":300,"data":"www.example.test."},{"name":"www.example.test.","type":1,"TTL":300,"data":"10.0.0.2"}]`)},
		"a service":                    {"name=_sip._tcp.example.test&type=SRV", answer(0, question("_sip._tcp.example.test.", 33), `"Answer":[{"name":"_sip._tcp.example.test.","type":33,"TTL":300,"data":"1 2 3 www.example.test."}]`)},
		"HTTPS":                        {"name=svc.example.test&type=HTTPS", answer(0, question("svc.example.test.", 65), `"Answer":[{"name":"svc.example.test.","type":65,"TTL":300,"data":"1 . alpn=\"h2\" port=\"8443\""}]`)},
		"texts":                        {"name=text.example.test&type=TXT", answer(0, question("text.example.test.", 16), `"Answer":[{"name":"text.example.test.","type":16,"TTL":300,"data":"\"a \\\"b\\\"\" \"<c>\""}]`)},
		"a name with escapes":          {"name=odd%5C.label%5C000.example.test", answer(0, question(`odd\.label\000.example.test.`, 1), `"Answer":[{"name":"odd\\.label\\000.example.test.","type":1,"TTL":300,"data":"10.0.0.3"}]`)},
		"a name that does not exist":   {"name=nope.example.test", answer(3, question("nope.example.test.", 1), soa)},
		"a type that is not there":     {"name=www.example.test&type=MX", answer(0, question("www.example.test.", 15), soa)},
		"a delegation":                 {"name=x.sub.example.test", answer(0, question("x.sub.example.test.", 1), `"Authority":[{"name":"sub.example.test.","type":2,"TTL":300,"data":"ns.sub.example.test."}]`, `"Additional":[{"name":"ns.sub.example.test.","type":1,"TTL":300,"data":"10.0.0.4"}]`)},
		"a zone that is not here":      {"name=elsewhere.test", answer(5, question("elsewhere.test.", 1), `"Comment":"Not Authoritative (EDE 20)"`)},
		"a client":                     {"name=www.example.test&client=192.0.2.7", answer(0, question("www.example.test.", 1), www, `"edns_client_subnet":"192.0.2.7/0"`)},
		"a client's network":           {"name=www.example.test&edns_client_subnet=192.0.2.7/24", answer(0, question("www.example.test.", 1), www, `"edns_client_subnet":"192.0.2.0/0"`)},
		"a client of IPv6":             {"name=www.example.test&client=2001:db8::7/56", answer(0, question("www.example.test.", 1), www, `"edns_client_subnet":"2001:db8::/0"`)},
		"a client without network":     {"name=www.example.test&client=0.0.0.0/0", answer(0, question("www.example.test.", 1), www, `"edns_client_subnet":"0.0.0.0/0"`)},
		"a client of IPv4 as IPv6":     {"name=www.example.test&client=::ffff:192.0.2.7", answer(0, question("www.example.test.", 1), www, `"edns_client_subnet":"192.0.2.7/0"`)},
		"both parameters, alike":       {"name=www.example.test&client=192.0.2.7&edns_client_subnet=192.0.2.7", answer(0, question("www.example.test.", 1), www, `"edns_client_subnet":"192.0.2.7/0"`)},
		"flags":                        {"name=www.example.test&cd=1&do=true", strings.Replace(answer(0, question("www.example.test.", 1), www), `"CD":false`, `"CD":true`, 1)},
		"flags that are not set":       {"name=www.example.test&cd=0&do=false", answer(0, question("www.example.test.", 1), www)},
		"parameters that mean nothing": {"name=www.example.test&random_padding=xyz&ct=", answer(0, question("www.example.test.", 1), www)},
		"no name":                      {"type=A", "name is missing: /resolve?name=www.example.com&type=A"},
		"an empty label":               {"name=a..b", `name "a..b" has an empty label`},
		"a label of 64 octets":         {"name=" + strings.Repeat("a", 64), `name "` + strings.Repeat("a", 64) + `" has a label longer than 63 octets`},
		"a name of 256 octets":         {"name=" + strings.Repeat("a.", 128), `name "` + strings.Repeat("a.", 128) + `" is longer than 255 octets`},
		"a name in Unicode":            {"name=b%C3%BCcher.example.test", `name "bücher.example.test" is not in ASCII: give its labels in the form xn--... (RFC 5890)`},
		"a name that is no text":       {"name=%ff.example.test", `name "\xff.example.test" is not in ASCII: give its labels in the form xn--... (RFC 5890)`},
		"an origin":                    {"name=@", `name "@" is only known in zone files`},
		"two names":                    {"name=a&name=b", "name is given more than once"},
		"an unknown type":              {"name=a&type=NOSUCH", `type "NOSUCH" is neither a mnemonic such as AAAA nor a number from 1 to 65535`},
		"a type too large":             {"name=a&type=65536", `type "65536" is neither a mnemonic such as AAAA nor a number from 1 to 65535`},
		"type 0":                       {"name=a&type=0", `type "0" is neither a mnemonic such as AAAA nor a number from 1 to 65535`},
		"a client that is none":        {"name=a&client=localhost", `client "localhost" is neither an address nor a network ADDRESS/BITS`},
		"a client with too many bits":  {"name=a&client=192.0.2.1/33", `client "192.0.2.1/33" is neither an address nor a network ADDRESS/BITS`},
		"a client of an interface":     {"name=a&client=fe80::1%25eth0", `client "fe80::1%eth0" is neither an address nor a network ADDRESS/BITS`},
		"two clients":                  {"name=a&client=192.0.2.1&edns_client_subnet=192.0.2.2", "client and edns_client_subnet say the same: give one of them"},
		"a flag that is none":          {"name=a&do=yes", `do="yes" is neither 1, 0, true nor false`},
		"parameters that are none":     {"name=%zz", "the parameters are not well formed"},
	} {
		t.Run(sentence, func(t *testing.T) {
			for _, at := range []string{plain, secure} {
				status, body := get(t, webClient(t, true), at+pathResolve+"?"+tc.query)
				want := http.StatusOK
				if !strings.HasPrefix(tc.want, "{") {
					want = http.StatusBadRequest
					var fault webError
					if err := json.Unmarshal([]byte(body), &fault); err != nil {
						t.Fatalf("%s: %v", body, err)
					}
					body = fault.Error
				}
				if status != want || body != tc.want {
					t.Errorf("%d\n%s\nwanted %d\n%s", status, body, want, tc.want)
				}
			}
		})
	}
	resp, err := webClient(t, false).Post(plain+pathResolve+"?name=www.example.test", typeMessage, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("POST gets %s %v", resp.Status, resp.Header)
	}
	resp, err = webClient(t, false).Get(plain + pathResolve + "?name=www.example.test&type=AAAA")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Cache-Control"); got != "private, max-age=90" {
		t.Errorf("cache control %q", got)
	}
}

// webFor answers requests without a network.
func webFor(t testing.TB, s *Server) (handle func(r *http.Request) *httptest.ResponseRecorder) {
	t.Helper()
	for _, l := range s.listeners.open {
		if l.web == nil || l.over != overDoH {
			continue
		}
		c := &stream{client: netip.MustParseAddr("192.0.2.1"), listener: l}
		return func(r *http.Request) *httptest.ResponseRecorder {
			ctx := contextWithStream(r.Context(), c)
			out := httptest.NewRecorder()
			l.web.ServeHTTP(out, r.WithContext(ctx))
			return out
		}
	}
	t.Fatal("there is no DNS over HTTPS")
	return nil
}

// unserved is a server with all transports that takes nothing from its sockets.
func unserved(t testing.TB, view *zone.View) *Server {
	t.Helper()
	address := loopback()
	all := []netip.AddrPort{address}
	s, err := Listen(Options{
		Addresses: all, View: view, Log: logr.Discard(), Certificate: testCertificate(t), Settings: Settings{Transports: Transports{DoT: all, DoH: all, HTTPDNS: all}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// FuzzDNSOverHTTPS holds answers to what RFC 8484 says of every answer to any request.
func FuzzDNSOverHTTPS(f *testing.F) {
	view := &zone.View{}
	view.Update([]*zone.Served{jsonZone(f)}, nil)
	handle := webFor(f, unserved(f, view))
	for _, name := range []string{"www.example.test.", "nope.example.test.", "x.sub.example.test.", "."} {
		f.Add(packed(f, query(name)), typeMessage, true)
		f.Add(packed(f, query(name)), typeMessage, false)
	}
	f.Add([]byte("AAAB"), "text/plain", true)
	f.Add([]byte{}, "application/dns-message; x", true)
	f.Fuzz(func(t *testing.T, message []byte, contentType string, post bool) {
		var r *http.Request
		if post {
			r = httptest.NewRequest(http.MethodPost, pathDoH, bytes.NewReader(message))
			r.Header.Set("Content-Type", contentType)
		} else {
			r = httptest.NewRequest(http.MethodGet, pathDoH, nil)
			r.URL.RawQuery = "dns=" + base64.RawURLEncoding.EncodeToString(message)
		}
		out := handle(r)
		isQuery := len(message) >= 12 && message[2]&0x80 == 0
		switch out.Code {
		case http.StatusOK:
			var m dns.Msg
			if err := m.Unpack(out.Body.Bytes()); err != nil {
				t.Fatalf("our own reply does not parse: %v", err)
			}
			if !isQuery || !m.Response || out.Header().Get("Content-Type") != typeMessage || !bytes.Equal(out.Body.Bytes()[:2], message[:2]) {
				t.Errorf("answered %v, %v", &m, out.Header())
			}
			if len(m.Answer)+len(m.Ns) == 0 != (out.Header().Get("Cache-Control") == "no-store") {
				t.Errorf("to be kept as %q: %v", out.Header().Get("Cache-Control"), &m)
			}
		case http.StatusBadRequest:
			if isQuery {
				t.Errorf("a query is refused: %s", out.Body)
			}
		case http.StatusUnsupportedMediaType:
			if !post || contentType == typeMessage {
				t.Errorf("the type %q is refused", contentType)
			}
		case http.StatusRequestEntityTooLarge:
			if len(message) <= zone.MaxMessage {
				t.Errorf("%d octets are too many", len(message))
			}
		default:
			t.Errorf("status %d", out.Code)
		}
	})
}

// FuzzHTTPDNS: whatever the parameters are, the answer is JSON, and agrees with that to the same
// question over DNS.
func FuzzHTTPDNS(f *testing.F) {
	view := &zone.View{}
	view.Update([]*zone.Served{jsonZone(f)}, nil)
	s := unserved(f, view)
	handle := webFor(f, s)
	for _, query := range []string{
		"name=www.example.test", "name=text.example.test&type=TXT&client=192.0.2.1", "name=odd%5C.label%5C000.example.test&do=1",
		"name=.&type=255", "name=%ff", "name=a&type=TYPE65535&client=2001:db8::/56&cd=true", "name=svc.example.test&type=65", "%", "name=a;b",
	} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, parameters string) {
		r := httptest.NewRequest(http.MethodGet, pathResolve, nil)
		r.URL.RawQuery = parameters
		out := handle(r)
		switch out.Code {
		case http.StatusBadRequest:
			var fault webError
			if err := json.Unmarshal(out.Body.Bytes(), &fault); err != nil || fault.Error == "" {
				t.Errorf("a fault is told as %s: %v", out.Body, err)
			}
		case http.StatusOK:
			var got resolution
			if err := json.Unmarshal(out.Body.Bytes(), &got); err != nil {
				t.Fatalf("%s: %v", out.Body, err)
			}
			m := new(dns.Msg)
			m.SetQuestion(got.Question[0].Name, got.Question[0].Type)
			m.SetEdns0(1232, false)
			x := s.listeners.exchanges[overTCP].get()
			defer s.listeners.exchanges[overTCP].put(x)
			if err := m.Unpack(x.responder.answer(x.reply[:0], packed(t, m), netip.Addr{})); err != nil {
				t.Fatal(err)
			}
			if got.Status != m.Rcode || len(got.Answer) != len(m.Answer) || len(got.Authority) != len(m.Ns) {
				t.Errorf("%s says %s, DNS says %v", parameters, out.Body, m)
			}
		default:
			t.Errorf("status %d", out.Code)
		}
	})
}

// BenchmarkHTTP answers requests without a network.
func BenchmarkHTTP(b *testing.B) {
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(b)}, nil)
	handle := webFor(b, unserved(b, view))
	for name, path := range map[string]string{
		"dns-query":   pathDoH + "?dns=" + base64.RawURLEncoding.EncodeToString(packed(b, query("www.example.test."))),
		"resolve":     pathResolve + "?name=www.example.test",
		"resolve-big": pathResolve + "?name=big.example.test",
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			b.ReportAllocs()
			for b.Loop() {
				if out := handle(r); out.Code != http.StatusOK {
					b.Fatal(out.Body)
				}
			}
		})
	}
}
