package resolver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dnstap "github.com/dnstap/golang-dnstap"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// eachProduct runs a test for all products at the same time, each with an address of its own.
func eachProduct(t *testing.T, w *world, test func(t *testing.T, p engine.Product, c *engine.Config)) {
	t.Helper()
	for i, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			at := netip.AddrFrom4([4]byte{10, 1, 1, byte(i + 1)})
			c := w.config()
			c.Listen = []netip.AddrPort{netip.AddrPortFrom(at, 53)}
			c.Source = []netip.Addr{at}
			test(t, p, c)
		})
	}
}

// lacks reports whether the engine says that it can't do a thing, or a part of it.
func (s *pool) lacks(feature string) bool {
	return slices.ContainsFunc(s.Unsupported(), func(u engine.Unsupported) bool {
		return u.Feature == feature || strings.HasPrefix(u.Feature, feature+".")
	})
}

// askFrom asks for an address as a client elsewhere would, within a second. nil: there was no answer.
func (s *pool) askFrom(client, name string) *dns.Msg {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	reply, err := ask(ctx, netip.MustParseAddr(client), s.at, question(name, dns.TypeA, true))
	if err != nil {
		return nil
	}
	return reply
}

func TestWhatAuthoritiesSee(t *testing.T) {
	w := newWorld(t)
	spy := w.startSpy("near.corp.", "plain.corp.")
	eachProduct(t, w, func(t *testing.T, p engine.Product, c *engine.Config) {
		c.RandomCase = true
		c.ECS = &engine.ECS{Zones: []engine.Name{mustName(t, "near.corp.")}, IPv4: 20}
		s := startPool(t, p, c)
		mixed := false
		for i := range 8 {
			for _, zone := range spy.zones {
				name := fmt.Sprintf("n%d-%s.%s", i, strings.ToLower(string(p)), zone)
				if got := s.askFrom("10.5.6.7", name); got == nil || said(got) != spyAddress {
					t.Fatalf("%s: %v", name, got)
				}
				seen := spy.of(name)
				if len(seen) == 0 {
					t.Fatalf("%s was not asked for", name)
				}
				for _, q := range seen {
					mixed = mixed || q.name != name
					if q.from != c.Source[0] {
						t.Errorf("%s was asked for from %s, not %s", name, q.from, c.Source[0])
					}
					switch told := zone == "near.corp." && !s.lacks("ecs") || zone == "near.corp." && p == engine.Unbound; {
					case (q.ecs != nil) != told:
						t.Errorf("%s: authorities are told the client's network: %v", name, q.ecs)
					case told && (q.ecs.SourceNetmask != 20 || q.ecs.Address.String() != "10.5.0.0"):
						t.Errorf("%s: they are told %v", name, q.ecs)
					}
				}
			}
		}
		if mixed == s.lacks("randomCase") {
			t.Errorf("names in mixed case are asked for: %t", mixed)
		}
	})
}

// mustPath reads a path.
func mustPath(t testing.TB, elements ...string) engine.Path {
	t.Helper()
	path, err := engine.ParsePath(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestClientsAskOverTLSAndHTTPS(t *testing.T) {
	w := newWorld(t)
	folder := filesOfOthers(t)
	ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	trust := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "dns.example"}
	eachProduct(t, w, func(t *testing.T, p engine.Product, c *engine.Config) {
		dot, doh := netip.AddrPortFrom(c.Source[0], 853), netip.AddrPortFrom(c.Source[0], 443)
		c.TLS = &engine.TLS{DoT: []netip.AddrPort{dot}, DoH: []netip.AddrPort{doh}, Certificate: mustPath(t, folder, "tls.crt"), Key: mustPath(t, folder, "tls.key")}
		s := startPool(t, p, c)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()

		client := dns.Client{Net: "tcp-tls", TLSConfig: trust}
		switch reply, _, err := client.ExchangeContext(ctx, question("app.pay.corp.", dns.TypeA, true), dot.String()); {
		case s.lacks("tls.dot"):
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("over TLS, which it has not: %v, %v", reply, err)
			}
		case err != nil || said(reply) != "10.9.9.9":
			t.Errorf("over TLS: %v, %v", reply, err)
		}

		packed, err := question("app.pay.corp.", dns.TypeA, true).Pack()
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+doh.String()+"/dns-query", bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/dns-message")
		over := &http.Client{Transport: &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true, DisableKeepAlives: true}}
		response, err := over.Do(request)
		if s.lacks("tls.doh") {
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("over HTTPS, which it has not: %v, %v", response, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		reply := new(dns.Msg)
		if err := reply.Unpack(body); err != nil || response.StatusCode != http.StatusOK || said(reply) != "10.9.9.9" {
			t.Errorf("over HTTPS: %s, %v, %v", response.Status, reply, err)
		}
	})
}

// proxied is a message with the header of a load balancer (PROXY protocol, version 2) before it.
func proxied(t *testing.T, network, client string, to netip.AddrPort, name string) []byte {
	t.Helper()
	head := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21"), map[string]byte{"tcp": 0x11, "udp": 0x12}[network], 0, 12)
	head = append(append(head, netip.MustParseAddr(client).AsSlice()...), to.Addr().AsSlice()...)
	head = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(head, 4711), to.Port())
	packed, err := question(name, dns.TypeA, true).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if network == "tcp" {
		head = binary.BigEndian.AppendUint16(head, uint16(len(packed)))
	}
	return append(head, packed...)
}

func TestALoadBalancerSaysWhoAsks(t *testing.T) {
	w := newWorld(t)
	eachProduct(t, w, func(t *testing.T, p engine.Product, c *engine.Config) {
		at := netip.AddrPortFrom(c.Source[0], 5300)
		c.ProxyProtocol = &engine.ProxyProtocol{Listen: []netip.AddrPort{at}, From: []netip.Prefix{netip.MustParsePrefix("172.30.250.0/24")}}
		s := startPool(t, p, c)
		for name, tt := range map[string]struct {
			from, client string
			want         int // RCODE; -1: none that is good
		}{
			"a client is answered":               {"172.30.250.1", "10.5.0.1", dns.RcodeSuccess},
			"a stranger is refused":              {"172.30.250.1", "192.0.2.7", dns.RcodeRefused},
			"who is no balancer is not believed": {"10.5.0.2", "10.5.0.1", -1},
			"a stranger is no balancer":          {"192.0.2.7", "10.5.0.1", -1},
		} {
			for _, network := range []string{"udp", "tcp"} {
				t.Run(name+" over "+network, func(t *testing.T) {
					d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(tt.from)}}
					if network == "tcp" {
						d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(tt.from)}
					}
					conn, err := d.DialContext(t.Context(), network, at.String())
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					limit := 5 * time.Second
					if tt.want < 0 {
						limit = 500 * time.Millisecond
					}
					if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
						t.Fatal(err)
					}
					if _, err := conn.Write(proxied(t, network, tt.client, at, "app.pay.corp.")); err != nil {
						t.Fatal(err)
					}
					reply, err := (&dns.Conn{Conn: conn}).ReadMsg()
					switch good := err == nil && reply.Rcode == dns.RcodeSuccess; {
					case tt.want < 0:
						if everybody := s.lacks("proxyProtocol.from") && strings.HasPrefix(tt.from, "10."); good != everybody {
							t.Errorf("believed is %t, and it says that all clients are: %t", good, everybody)
						}
					case err != nil || reply.Rcode != tt.want:
						t.Errorf("got %v, %v", reply, err)
					}
				})
			}
		}
	})
}

func TestQueriesAndRepliesAreTold(t *testing.T) {
	w := newWorld(t)
	eachProduct(t, w, func(t *testing.T, p engine.Product, c *engine.Config) {
		dir, err := os.MkdirTemp("", "fp") //nolint:usetesting // the path of a socket is short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		c.Dnstap = &engine.Dnstap{Socket: mustPath(t, dir, "dnstap.sock")}
		taps, err := dnstap.NewFrameStreamSockInputFromPath(c.Dnstap.Socket.String())
		if err != nil {
			t.Fatal(err)
		}
		frames := make(chan []byte)
		go taps.ReadInto(frames)
		s := startPool(t, p, c)
		if s.lacks("dnstap") {
			return
		}
		// Frames are written when there are some, or every few seconds.
		for range 100 {
			s.askFrom("10.5.6.7", "app.pay.corp.")
		}
		told := map[dnstap.Message_Type]bool{}
		for limit := time.After(patience); len(told) < 2; {
			select {
			case frame := <-frames:
				d := &dnstap.Dnstap{}
				if err := proto.Unmarshal(frame, d); err != nil {
					t.Fatal(err)
				}
				packed := d.Message.QueryMessage
				if len(packed) == 0 {
					packed = d.Message.ResponseMessage
				}
				m := new(dns.Msg)
				if err := m.Unpack(packed); err != nil {
					t.Fatal(err)
				}
				if m.Question[0].Name == "app.pay.corp." && net.IP(d.Message.QueryAddress).String() == "10.5.6.7" {
					told[d.Message.GetType()] = true
				}
			case <-limit:
				t.Fatalf("told is %v", told)
			}
		}
		if !told[dnstap.Message_CLIENT_QUERY] || !told[dnstap.Message_CLIENT_RESPONSE] {
			t.Errorf("told is %v", told)
		}
	})
}
