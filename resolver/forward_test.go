package resolver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// upstream is a resolver of others: every name has the same address.
type upstream struct {
	mu    sync.Mutex
	asked []string
	stop  func()
}

// ServeDNS implements dns.Handler.
func (u *upstream) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	u.mu.Lock()
	u.asked = append(u.asked, strings.ToLower(q.Question[0].Name))
	u.mu.Unlock()
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if q.Question[0].Qtype == dns.TypeA {
		rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A 198.18.0.1")
		if err != nil {
			panic(err) // it is made of a question
		}
		m.Answer = []dns.RR{rr}
	}
	_ = w.WriteMsg(m)
}

// names are those that were asked for.
func (u *upstream) names() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.asked)
}

// startUpstream answers at port 53, and over TLS at port 853 with the certificate in a folder.
func startUpstream(t *testing.T, at, folder string) *upstream {
	t.Helper()
	u := &upstream{}
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	var servers []*dns.Server
	for _, s := range []*dns.Server{{Net: "udp", Addr: at + ":53"}, {Net: "tcp", Addr: at + ":53"}, {Net: "tcp-tls", Addr: at + ":853", TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}}} {
		started := make(chan struct{})
		failed := make(chan error, 1)
		s.Handler, s.NotifyStartedFunc = u, func() { close(started) }
		go func() { failed <- s.ListenAndServe() }()
		select {
		case <-started:
		case err := <-failed:
			t.Fatal(err)
		}
		servers = append(servers, s)
	}
	var once sync.Once
	u.stop = func() {
		once.Do(func() {
			for _, s := range servers {
				_ = s.Shutdown()
			}
		})
	}
	t.Cleanup(u.stop)
	return u
}

// TestOnlyWhatIsNotOursGoesToUpstreams forwards everything but our own zones, in the clear and over TLS.
func TestOnlyWhatIsNotOursGoesToUpstreams(t *testing.T) {
	w := newWorld(t)
	folder := filesOfOthers(t)
	ca, err := engine.ParsePath(filepath.Join(folder, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for transport, upstreams := range map[string][]engine.Upstream{
		"in the clear": {{Address: netip.MustParseAddrPort("192.0.2.1:53")}},
		"over TLS":     {{Address: netip.MustParseAddrPort("192.0.2.1:853"), TLS: &engine.UpstreamTLS{Name: mustName(t, "dns.example."), CA: ca}}},
	} {
		for _, p := range products {
			t.Run(fmt.Sprintf("%s/%s", transport, p), func(t *testing.T) {
				u := startUpstream(t, "192.0.2.1", folder)
				leaks := watchLeaks(t, append(slices.Clone(inside), netip.MustParsePrefix("192.0.2.1/32"))...)
				c := w.config()
				c.Source = nil
				c.Forward = []engine.Forward{{Zones: []engine.Name{mustName(t, ".")}, Upstreams: upstreams}}
				c.Internal = []engine.InternalZone{{Zone: mustName(t, "corp."), Servers: []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2")}}}
				s := startPool(t, p, c)
				if got := said(s.ask("www.example.com.")); got != "198.18.0.1" {
					t.Errorf("a name of others: %q", got)
				}
				for _, apex := range levels[1:] {
					if got := said(s.ask("app." + apex)); got != "10.9.9.9" {
						t.Errorf("app.%s: %q", apex, got)
					}
				}
				for _, reverse := range []string{"1.1.1.10.in-addr.arpa.", "1.1.16.172.in-addr.arpa.", "1.1.168.192.in-addr.arpa.", "1.0.64.100.in-addr.arpa.", "1.d.f.ip6.arpa."} {
					if got := s.ask(reverse).Rcode; got != dns.RcodeNameError {
						t.Errorf("%s: %s", reverse, dns.RcodeToString[got])
					}
				}
				u.stop()
				if got := said(s.ask("short.deep.pay.corp.")); got != "10.9.9.9" {
					t.Errorf("when upstreams are gone, a name of ours: %q", got)
				}
				for _, name := range u.names() {
					if strings.HasSuffix(name, "corp.") || strings.HasSuffix(name, ".arpa.") {
						t.Errorf("upstream was asked for %s", name)
					}
				}
				leaks.none(t, "forwarding")
			})
		}
	}
}

// TestAnUpstreamOnThisMachineIsAsked has a program beside the engine that knows others, as a proxy to them is.
func TestAnUpstreamOnThisMachineIsAsked(t *testing.T) {
	w := newWorld(t)
	startUpstream(t, "127.8.0.1", filesOfOthers(t))
	for _, p := range products {
		for where, networks := range map[string][]netip.Prefix{"in our networks": w.config().AuthorityNetworks, "everywhere": nil} {
			t.Run(fmt.Sprintf("%s/%s", where, p), func(t *testing.T) {
				c := w.config()
				c.Source, c.AuthorityNetworks = nil, networks
				c.Forward = []engine.Forward{{Zones: []engine.Name{mustName(t, "example.com.")}, Upstreams: []engine.Upstream{{Address: netip.MustParseAddrPort("127.8.0.1:53")}}}}
				s := startPool(t, p, c)
				if got := said(s.ask("www.example.com.")); got != "198.18.0.1" {
					t.Errorf("a name of others: %q", got)
				}
			})
		}
	}
}

// TestAnUpstreamThatIsAnotherIsNotBelieved has an upstream whose certificate is of another authority.
func TestAnUpstreamThatIsAnotherIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	ca, err := engine.ParsePath(filepath.Join(filesOfOthers(t), "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			startUpstream(t, "192.0.2.1", filesOfOthers(t))
			c := w.config()
			c.Source = nil
			c.Forward = []engine.Forward{{
				Zones:     []engine.Name{mustName(t, "example.com.")},
				Upstreams: []engine.Upstream{{Address: netip.MustParseAddrPort("192.0.2.1:853"), TLS: &engine.UpstreamTLS{Name: mustName(t, "dns.example."), CA: ca}}},
			}}
			s := startPool(t, p, c)
			unchecked := slices.ContainsFunc(s.Unsupported(), func(u engine.Unsupported) bool { return u.Feature == "forward.upstreams.tls" })
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			reply, err := ask(ctx, netip.Addr{}, s.at, question("www.example.com.", dns.TypeA, true))
			if believed := err == nil && len(reply.Answer) > 0; believed != unchecked {
				t.Errorf("believed is %t, and it says that certificates are unchecked: %t", believed, unchecked)
			}
		})
	}
}
