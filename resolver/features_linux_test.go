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
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dnstap "github.com/dnstap/golang-dnstap"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/resolver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// configOf is config for a product that has an address of its own: all run at the same time.
func (w *world) configOf(p engine.Product) *engine.Config {
	w.t.Helper()
	at := netip.AddrFrom4([4]byte{10, 1, 1, byte(1 + slices.Index(products, p))})
	c := w.config()
	c.Listen = []netip.AddrPort{netip.AddrPortFrom(at, 53)}
	c.Source = []netip.Addr{at}
	return c
}

// lacks reports whether the engine says that it can't do a thing, or a part of it.
func (s *member) lacks(feature string) bool {
	return slices.ContainsFunc(s.Unsupported(), func(u engine.Unsupported) bool {
		return u.Feature == feature || strings.HasPrefix(u.Feature, feature+".")
	})
}

// askFrom asks for an address as a client elsewhere would, for two seconds. nil: there was no answer.
func (s *member) askFrom(client, name string) *dns.Msg {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
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
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
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
			if p == engine.Recursor {
				// Who confirms flushes asks authorities from the address of the engine.
				name := "beside.near.corp."
				if got := s.askFrom("127.5.6.7", name); got == nil || said(got) != spyAddress {
					t.Fatalf("%s: %v", name, got)
				}
				for _, q := range spy.of(name) {
					if q.ecs == nil || q.ecs.Address.String() != c.Source[0].String() {
						t.Errorf("authorities are told that the agent beside the engine is %v, not %s", q.ecs, c.Source[0])
					}
				}
			}
			if mixed == s.lacks("randomCase") {
				t.Errorf("names in mixed case are asked for: %t", mixed)
			}
		})
	}
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
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
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
}

// TestAnotherCertificateIsShown: one that a new configuration names, whatever the engine keeps of the one before.
func TestAnotherCertificateIsShown(t *testing.T) {
	w := newWorld(t)
	folders := []string{filesOfOthers(t), filesOfOthers(t)}
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			config := func(folder string) *engine.Config {
				c := w.configOf(p)
				c.TLS = &engine.TLS{DoT: []netip.AddrPort{netip.AddrPortFrom(c.Source[0], 853)}, Certificate: mustPath(t, folder, "tls.crt"), Key: mustPath(t, folder, "tls.key")}
				return c
			}
			s := startPool(t, p, config(folders[0]))
			if s.lacks("tls.dot") {
				return
			}
			for _, folder := range folders {
				c := config(folder)
				s.set(c)
				if err := s.Refused(); err != nil {
					t.Fatal(err)
				}
				ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
				if err != nil {
					t.Fatal(err)
				}
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(ca)
				client := dns.Client{Net: "tcp-tls", TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "dns.example"}}
				if _, _, err := client.ExchangeContext(t.Context(), question("app.pay.corp.", dns.TypeA, true), c.TLS.DoT[0].String()); err != nil {
					t.Errorf("%s: %v", folder, err)
				}
			}
		})
	}
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
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
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
}

func TestQueriesAndRepliesAreTold(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
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
}

// feed is a primary of a policy zone that has bad.feed.example as not there.
type feed struct{ zone string }

// ServeDNS implements dns.Handler.
func (f feed) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	records := []dns.RR{}
	for _, text := range []string{"@ 60 IN SOA ns.corp. hostmaster.corp. 1 3600 600 86400 60", "@ 60 IN NS ns.corp.", "app.deep.pay.corp 60 IN CNAME .", "@ 60 IN SOA ns.corp. hostmaster.corp. 1 3600 600 86400 60"} {
		owner, rest, _ := strings.Cut(text, " ")
		rr, err := dns.NewRR(strings.TrimPrefix(owner+"."+f.zone, "@.") + " " + rest)
		if err != nil {
			panic(err)
		}
		records = append(records, rr)
	}
	switch q.Question[0].Qtype {
	case dns.TypeAXFR, dns.TypeIXFR:
		m.Answer = records
	case dns.TypeSOA:
		m.Answer = records[:1]
	}
	_ = w.WriteMsg(m)
}

func TestBlockedNamesAreNotThere(t *testing.T) {
	w := newWorld(t)
	folder := filesOfOthers(t)
	serve(t, feed{"feed.corp."}, "10.4.0.1")
	if err := os.WriteFile(filepath.Join(folder, "rpz.zone"), []byte("$ORIGIN rpz.corp.\n@ 60 IN SOA ns.corp. hostmaster.corp. 1 3600 600 86400 60\n@ 60 IN NS ns.corp.\nshort.pay.corp 60 IN CNAME .\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
			pattern, err := engine.ParsePattern(`^sh[aeiou]rt\.corp$`)
			if err != nil {
				t.Fatal(err)
			}
			c.Block = engine.Block{
				Names:    []engine.Name{mustName(t, "www.pay.corp.")},
				Patterns: []engine.Pattern{pattern},
				RPZ: []engine.RPZ{
					{Name: mustName(t, "rpz.corp."), File: mustPath(t, folder, "rpz.zone")},
					{Name: mustName(t, "feed.corp."), Primaries: []netip.AddrPort{netip.MustParseAddrPort("10.4.0.1:53")}},
				},
			}
			s := startPool(t, p, c)
			if !s.lacks("block.rpz") {
				eventually(t, "the policy zone is there", func() bool { return s.ask("app.deep.pay.corp.").Rcode == dns.RcodeNameError })
			}
			for name, tt := range map[string]struct {
				name, feature string
				blocked       bool
			}{
				"a name is blocked":                 {"www.pay.corp.", "block.names", true},
				"so is what is below it":            {"a.b.www.pay.corp.", "block.names", true},
				"and in other case":                 {"WWW.pay.CORP.", "block.names", true},
				"a pattern matches":                 {"SHORT.corp.", "block.patterns", true},
				"a pattern is not a longer name's":  {"short.deep.pay.corp.", "block.patterns", false},
				"a policy zone of a file":           {"short.pay.corp.", "block.rpz.file", true},
				"a policy zone by transfer":         {"app.deep.pay.corp.", "block.rpz", true},
				"other names are answered as usual": {"app.pay.corp.", "block", false},
			} {
				if tt.blocked && slices.ContainsFunc(s.Unsupported(), func(u engine.Unsupported) bool { return u.Feature == tt.feature }) {
					tt.blocked = false
				}
				if got := s.ask(tt.name); (got.Rcode == dns.RcodeNameError) != tt.blocked {
					t.Errorf("%s: %s is %s", name, tt.name, dns.RcodeToString[got.Rcode])
				}
			}
		})
	}
}

// burst asks for a name so many times from an address, without waiting for answers, and counts those that come, and for how
// many seconds it has asked.
func (s *member) burst(client, name string, queries int) (answers int, seconds float64) {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(client)}}
	conn, err := d.DialContext(s.t.Context(), "udp", s.at.String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	packed, err := question(name, dns.TypeA, true).Pack()
	if err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		reply := make([]byte, 1500)
		for answers < queries {
			if _, err := conn.Read(reply); err != nil {
				return
			}
			answers++
		}
	}()
	began := time.Now()
	for range queries {
		if _, err := conn.Write(packed); err != nil {
			s.t.Fatal(err)
		}
	}
	seconds = time.Since(began).Seconds()
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		s.t.Fatal(err)
	}
	<-done
	return answers, seconds
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	spy := w.startSpy("one.corp.", "many.corp.")
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
			const most, queries = 20, 200
			c.Limits = engine.Limits{Client: most, NAT: []engine.NATLimit{{Networks: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/24")}, Client: 5000}}}
			if p == engine.Unbound {
				c.Limits.NAT = nil // each has the greatest limit
			}
			s := startPool(t, p, c)
			s.ask("app.pay.corp.")
			// Unbound lets one of ten through.
			answers, seconds := s.burst("10.5.0.1", "app.pay.corp.", queries)
			if bound := most*(int(seconds)+2) + queries/5; answers == 0 || answers > bound {
				t.Errorf("a client has %d answers to %d queries in %.1fs, and may have %d", answers, queries, seconds, bound)
			}
			if answers := s.askFrom("10.5.0.2", "app.pay.corp."); answers == nil {
				t.Error("another client has no answer")
			}
			if p != engine.Unbound {
				if answers, _ := s.burst("10.7.0.1", "app.pay.corp.", queries); answers < queries*3/4 { // some may be lost
					t.Errorf("an address that many share has %d answers of %d", answers, queries)
				}
			}
			// The agent asks as often as it needs to.
			var all []changes.Change
			for i := range 100 {
				name := fmt.Sprintf("n%d.pay.corp.", i)
				s.askFrom(fmt.Sprintf("10.6.1.%d", i), name)
				all = append(all, changes.Change{Name: mustZoneName(t, name)})
			}
			if outcomes := s.Flush(t.Context(), all); slices.ContainsFunc(outcomes, func(o Outcome) bool { return o != Confirmed }) {
				t.Errorf("flushes are %v", outcomes)
			}
			if statistics, err := s.current().control.Statistics(t.Context()); err != nil || statistics[control.Limited] == 0 {
				t.Errorf("what is beyond the limit is not counted: %v, %v", statistics, err)
			}

			bounded := *c
			bounded.Limits.Domain = most
			s.set(&bounded)
			if err := s.Refused(); err != nil {
				t.Fatal(err)
			}
			// each asks for 200 names that are in no cache, and counts what comes to the authorities.
			each := func(zone string, client func(i int) string) (came int, limited bool) {
				name := func(i int) string { return fmt.Sprintf("n%d-%s.%s", i, strings.ToLower(string(p)), zone) }
				began := time.Now()
				var asked sync.WaitGroup
				for i := range queries {
					asked.Go(func() { s.askFrom(client(i), name(i)) })
				}
				asked.Wait()
				for i := range queries {
					came += len(spy.of(name(i)))
				}
				return came, came <= most*(int(time.Since(began).Seconds())+2)+2*queries/5
			}
			if came, limited := each("one.corp.", func(int) string { return "10.5.0.3" }); came == 0 || !limited {
				t.Errorf("one client has authorities asked %d times", came)
			}
			if came, limited := each("many.corp.", func(i int) string { return fmt.Sprintf("10.6.0.%d", i) }); came == 0 || limited == s.lacks("limits.domain") {
				t.Errorf("authorities of a zone were asked %d times", came)
			}
		})
	}
}

// ttls are the TTLs of all records of an answer, without the pseudo-record of EDNS.
func ttls(m *dns.Msg) (of []uint32) {
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		of = append(of, rr.Header().Ttl)
	}
	return of
}

func TestTTLsAreBounded(t *testing.T) {
	w := newWorld(t)
	spy := w.startSpy("spied.corp.", "told.corp.")
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
			c.TTL = engine.TTL{Min: engine.Duration(30 * time.Second), Max: engine.Duration(300 * time.Second), Negative: engine.Duration(40 * time.Second)}
			s := startPool(t, p, c)
			own := "-" + strings.ToLower(string(p)) + ".spied.corp."
			for name, tt := range map[string]struct {
				name        string
				least, most uint32
			}{
				"a short TTL is made longer":       {"t1" + own, 25, 30},
				"a long one is made shorter":       {"t100000" + own, 290, 300},
				"others are as they are":           {"t100" + own, 90, 100},
				"what is not there is so not long": {"no" + own, 30, 40},
			} {
				for range 2 { // from authorities, and from the cache
					if got := ttls(s.ask(tt.name)); len(got) == 0 || slices.Min(got) < tt.least || slices.Max(got) > tt.most {
						t.Errorf("%s: %s has %v", name, tt.name, got)
					}
				}
			}

			// What is kept already stays as it is.
			own = "-" + strings.ToLower(string(p)) + ".told.corp."
			told := *c
			told.TTL, told.ClientMaxTTL = engine.TTL{}, engine.Duration(time.Second)
			s.set(&told)
			if err := s.Refused(); err != nil {
				t.Fatal(err)
			}
			asked := map[string]int{}
			for _, name := range []string{"t50" + own, "no" + own} {
				for range 2 {
					if got := ttls(s.ask(name)); len(got) == 0 || slices.Max(got) > 1 {
						t.Errorf("clients are told of %s for %v", name, got)
					}
				}
				asked[name] = len(spy.of(name))
			}
			expire()
			for name, before := range asked {
				s.ask(name)
				again := len(spy.of(name)) > before
				if bounded := p == engine.Unbound; again != bounded {
					t.Errorf("%s is asked for again: %t", name, again)
				}
			}
		})
	}
}

func TestPopularNamesAreAskedForBeforeTheyExpire(t *testing.T) {
	w := newWorld(t)
	spy := w.startSpy("spied.corp.")
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
			const ttl = 8
			c.Prefetch, c.TTL.Min = true, engine.Duration(6*time.Second)
			s := startPool(t, p, c)
			name := fmt.Sprintf("t%d-%s.spied.corp.", ttl, strings.ToLower(string(p)))
			eventually(t, name+" is asked for again", func() bool {
				s.ask(name)
				return len(spy.of(name)) > 1
			})
			if seen := spy.of(name); seen[1].at.Sub(seen[0].at) >= ttl*time.Second {
				t.Errorf("after %s", seen[1].at.Sub(seen[0].at))
			}
		})
	}
}

func TestAllThreadsForget(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			c := w.config()
			c.Threads = 4
			s := startPool(t, p, c)
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.current().process.pid()))
			if err != nil {
				t.Fatal(err)
			}
			if enough := len(tasks) >= 4; enough == s.lacks("threads") {
				t.Errorf("there are %d threads", len(tasks))
			}
			// Each question is from another port: threads share them out.
			all := func(want string) {
				t.Helper()
				for range 50 {
					if got := said(s.ask("app.pay.corp.")); got != want {
						t.Fatalf("%q, not %q", got, want)
					}
				}
			}
			all("10.9.9.9")
			w.move(payCorp, "10.9.9.10", 1, 2)
			defer w.move(payCorp, "10.9.9.9", 1, 2)
			if got := s.Flush(t.Context(), app(t)); !slices.Equal(got, []Outcome{Confirmed}) {
				t.Errorf("the flush is %v", got)
			}
			all("10.9.9.10")
		})
	}
}

func TestAnswersAreValidatedFromPrivateAnchors(t *testing.T) {
	leaf := signZone(t, "corp.", "corp. 3600 IN NS ns.corp.", "ns.corp. 3600 IN A 10.8.0.2", "app.corp. 60 IN A 10.9.9.9", "bogus.corp. 60 IN A 10.9.9.9")
	root := signZone(t, ".", ". 3600 IN NS ns.", "ns. 3600 IN A 10.8.0.1", "corp. 3600 IN NS ns.corp.", leaf.key.ToDS(dns.SHA256).String(), "ns.corp. 3600 IN A 10.8.0.2")
	serve(t, root, "10.8.0.1")
	serve(t, leaf, "10.8.0.2")
	w := &world{t: t}
	for name, tt := range map[string]struct {
		anchor dns.RR // nil: none
		bogus  int
	}{
		"from a DS record":        {root.key.ToDS(dns.SHA256), dns.RcodeServerFailure},
		"from a key":              {root.key, dns.RcodeServerFailure},
		"of which there are none": {nil, dns.RcodeSuccess},
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range products {
				t.Run(string(p), func(t *testing.T) {
					t.Parallel()
					c := w.configOf(p)
					c.RootHints = []engine.RootServer{{Name: mustName(t, "ns."), Addresses: []netip.Addr{netip.MustParseAddr("10.8.0.1")}}}
					if tt.anchor != nil {
						anchor, err := engine.ParseAnchor(tt.anchor.String())
						if err != nil {
							t.Fatal(err)
						}
						c.TrustAnchors = []engine.Anchor{anchor}
					}
					s := startPool(t, p, c)
					for name, want := range map[string]int{"app.corp.": dns.RcodeSuccess, "nobody.corp.": dns.RcodeNameError, "bogus.corp.": tt.bogus} {
						q := question(name, dns.TypeA, true)
						q.AuthenticatedData = true
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						reply, err := ask(ctx, netip.Addr{}, s.at, q)
						cancel()
						if err != nil || reply.Rcode != want {
							t.Fatalf("%s: %v, %v", name, reply, err)
						}
						if secure := tt.anchor != nil && want != dns.RcodeServerFailure; reply.AuthenticatedData != secure {
							t.Errorf("%s: validated is %t", name, reply.AuthenticatedData)
						}
						if want == dns.RcodeServerFailure {
							why := ""
							for _, option := range reply.IsEdns0().Option {
								if e, ok := option.(*dns.EDNS0_EDE); ok {
									why = dns.ExtendedErrorCodeToString[e.InfoCode]
								}
							}
							if why == "" {
								t.Errorf("nothing says why %s fails: %v", name, reply)
							}
						}
					}
				})
			}
		})
	}
}

// TestPatternsMeanTheSame has engines and Go agree on which names have a pattern.
func TestPatternsMeanTheSame(t *testing.T) {
	w := newWorld(t)
	bodies := []string{
		`a`, `a$`, `a*b`, `a+b`, `a?b`, `ab{2}`, `ab{1,3}c`, `ab{2,}c`, `[a-c]x`, `[^a-c]x`, `[^.]*\.b`, `.b`, `..$`, `\d+`, `\d{2}\.`, `\w\.`, `_x`, `[a_-]{2}`, `-+x`, `x.*y.*z`,
		`a.c\.corp$`, `\.corp`, `[0-9a-f]{4}`, `(?:a|b)c`, `[[:alpha:]]{3}[[:digit:]]`,
	}
	texts := []string{
		"a", "b", "ab", "aab", "abb", "abbc", "abbbc", "abbbbc", "ax", "dx", "-x", "x", "a.b", "a.b.c", "12", "7", "7.a", "42.a", "w_x", "a-", "_-", "--x", "xayaz", "xyz", "xzy", "abc", "a_c", "deadbeef", "c0de", "ac", "bc", "abc1", "ab1",
	}
	var patterns []engine.Pattern
	for i, body := range bodies {
		p, err := engine.ParsePattern(fmt.Sprintf("^p%d-%s", i, body))
		if err != nil {
			t.Fatal(err)
		}
		patterns = append(patterns, p)
	}
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			c := w.configOf(p)
			c.Block.Patterns = patterns
			s := startPool(t, p, c)
			if s.lacks("block.patterns") {
				return
			}
			for i, pattern := range patterns {
				re := regexp.MustCompile(pattern.String())
				for _, text := range texts {
					name := fmt.Sprintf("p%d-%s.corp", i, text)
					reply := s.ask(name + ".")
					blocked := false
					for _, option := range reply.IsEdns0().Option {
						e, ok := option.(*dns.EDNS0_EDE)
						blocked = blocked || ok && e.InfoCode == dns.ExtendedErrorCodeBlocked
					}
					if want := re.MatchString(name); blocked != want {
						t.Errorf("%s in %s: the engine says %t, Go %t", pattern, name, blocked, want)
					}
				}
			}
		})
	}
}

func TestTheRecursorForgetsWhatItKeepsForNetworks(t *testing.T) {
	down := listenAt(t, "10.1.9.1:80")
	listenAt(t, "10.2.9.1:80")
	w := newSteeredWorld(t, failover("app.pay.corp.", 80, steeringpb.Vantage_LOCAL, "10.1.9.1", "10.2.9.1"))
	w.awaitEdges("app.pay.corp.", "10.1.9.1", 1, 2)
	s := w.listenTo(engine.Recursor, func(do *pool.Pool) { do.ECS = &engine.ECS{Zones: []engine.Name{mustName(t, "pay.corp.")}} })
	if got := s.Report().Flush.NotFlushable; got != nil {
		t.Errorf("told are %s", got)
	}
	clients := []string{"10.5.6.7", "10.6.7.8"}
	for _, client := range clients {
		if got := s.askFrom(client, "app.pay.corp."); got == nil || said(got) != "10.1.9.1" {
			t.Fatalf("%s: %v", client, got)
		}
	}
	down()
	eventually(t, "the change is confirmed", func() bool { return s.Report().Flush.Outcomes[string(Confirmed)] > 0 && s.calm() })
	for _, client := range clients {
		if got := s.askFrom(client, "app.pay.corp."); got == nil || said(got) != "10.2.9.1" {
			t.Errorf("%s after it: %v", client, got)
		}
	}
}

// TestARenewedCertificateIsShown: certificates are renewed in their files, of which the configuration has the paths.
func TestARenewedCertificateIsShown(t *testing.T) {
	w := newWorld(t)
	for _, p := range []engine.Product{engine.Unbound, engine.KnotResolver} {
		t.Run(string(p), func(t *testing.T) {
			folder := filesOfOthers(t)
			dot := netip.MustParseAddrPort("10.1.0.53:853")
			c := w.config()
			c.TLS = &engine.TLS{DoT: []netip.AddrPort{dot}, Certificate: mustPath(t, folder, "tls.crt"), Key: mustPath(t, folder, "tls.key")}
			s := startPool(t, p, c)
			shown := func(is string) bool {
				pemText, err := os.ReadFile(filepath.Join(is, "tls.crt"))
				if err != nil {
					t.Fatal(err)
				}
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(pemText)
				client := dns.Client{Net: "tcp-tls", Timeout: 2 * time.Second, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "dns.example"}}
				_, _, err = client.ExchangeContext(t.Context(), question("app.pay.corp.", dns.TypeA, true), dot.String())
				return err == nil
			}
			if !shown(folder) {
				t.Fatal("the first certificate is not shown")
			}
			away := filepath.Join(t.TempDir(), "tls.crt")
			if err := os.Rename(filepath.Join(folder, "tls.crt"), away); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is missed", func() bool { return s.Refused() != nil })
			if err := os.Rename(away, filepath.Join(folder, "tls.crt")); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is missed no more", func() bool { return s.Refused() == nil })
			next := filesOfOthers(t)
			for _, name := range []string{"tls.key", "tls.crt"} {
				if err := os.Rename(filepath.Join(next, name), filepath.Join(folder, name)); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the renewed certificate is shown", func() bool { return shown(folder) })
			eventually(t, "nothing is refused", func() bool { return s.Ready() == nil && s.Refused() == nil })
		})
	}
}
