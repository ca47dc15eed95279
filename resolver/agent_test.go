package resolver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dnstap "github.com/dnstap/golang-dnstap"
	"github.com/miekg/dns"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// inside are the networks of the tests' worlds.
var inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fd00::/8")}

// TestEnginesTakeWhatIsRendered starts every product on every golden configuration: its own check passes where it has one,
// and it answers its local name.
func TestEnginesTakeWhatIsRendered(t *testing.T) {
	golden, err := filepath.Glob("engine/testdata/*.txtar")
	if err != nil || len(golden) == 0 {
		t.Fatal("no golden files", err)
	}
	files := filesOfOthers(t)
	for _, file := range golden {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in := strings.ReplaceAll(string(archive.Files[0].Data), "/etc/fingerpost", files)
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			for _, p := range products {
				t.Run(string(p), func(t *testing.T) {
					c := &engine.Config{}
					if err := yaml.UnmarshalStrict([]byte(in), c); err != nil {
						t.Fatal(err)
					}
					startPool(t, p, c)
				})
			}
		})
	}
}

// filesOfOthers is a folder with what configurations name: a certificate, a policy zone, and a socket that takes dnstap.
func filesOfOthers(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fp") //nolint:usetesting // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"dns.example"}, IsCA: true, BasicConstraintsValid: true}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	shown := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	for name, content := range map[string][]byte{
		"tls.crt": shown, "ca.crt": shown, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"rpz.zone": []byte("$ORIGIN rpz.corp.\n@ 60 IN SOA ns.corp. hostmaster.corp. 1 3600 600 86400 60\n@ 60 IN NS ns.corp.\nbad.example 60 IN CNAME .\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	taps, err := dnstap.NewFrameStreamSockInputFromPath(filepath.Join(dir, "dnstap.sock"))
	if err != nil {
		t.Fatal(err)
	}
	frames := make(chan []byte)
	go taps.ReadInto(frames)
	go func() {
		for range frames {
		}
	}()
	return dir
}

func TestOthersAreNotAnswered(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			c := w.config()
			c.Block.Names = []engine.Name{mustName(t, "blocked.corp.")}
			s := startPool(t, p, c)
			if got := s.ask("www.blocked.corp.").Rcode; got != dns.RcodeNameError {
				t.Errorf("a blocked name: %s", dns.RcodeToString[got])
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			reply, err := ask(ctx, netip.MustParseAddr("192.0.2.1"), s.at, question("app.corp.", dns.TypeA, true))
			if err != nil || reply.Rcode != dns.RcodeRefused {
				t.Errorf("a stranger got %v, %v", reply, err)
			}
		})
	}
}

func mustName(t testing.TB, text string) engine.Name {
	t.Helper()
	n, err := engine.ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// expire returns when a record that was got before, with the TTL of short, has expired: engines count whole seconds.
func expire() { <-time.NewTimer(2500 * time.Millisecond).C }

// atOnce does a thing with each member, at the same time.
func atOnce(members []*member, do func(s *member)) {
	var all sync.WaitGroup
	for _, s := range members {
		all.Go(func() { do(s) })
	}
	all.Wait()
}

func TestExpiredRecordsServeWhenAllAuthoritiesAreGoneAndNotBefore(t *testing.T) {
	w := newWorld(t)
	var members []*member
	for _, p := range products {
		c := w.configOf(p)
		c.ServeStale = &engine.ServeStale{MaxAge: engine.Duration(time.Hour)}
		members = append(members, startPool(t, p, c))
	}
	is := func(when, want string) {
		t.Helper()
		atOnce(members, func(s *member) {
			if got := said(s.ask("short.pay.corp.")); got != want {
				t.Errorf("%s: %s says %q, not %q", when, s.o.Product, got, want)
			}
		})
	}
	is("before", "10.9.9.9")
	w.move(payCorp, "10.9.9.10", 1, 2)
	expire()
	is("while authorities answer", "10.9.9.10")
	for _, a := range w.datacenter(2) {
		t.Cleanup(w.blackhole(a))
	}
	w.move(payCorp, "10.9.9.11", 1)
	expire()
	// Who has no answer in time gets the expired one, and the next the new one (RFC 8767 §5).
	atOnce(members, func(s *member) {
		eventually(t, fmt.Sprintf("%s has the answer of the datacenter that is left", s.o.Product), func() bool { return said(s.ask("short.pay.corp.")) == "10.9.9.11" })
	})
	for _, a := range w.datacenter(1) {
		a.stop()
	}
	expire()
	atOnce(members, func(s *member) {
		eventually(t, "the expired record is served", func() bool { return said(s.ask("short.pay.corp.")) == "10.9.9.11" })
		if err := s.Ready(); err != nil {
			t.Errorf("authorities that are gone make %s unready: %v", s.o.Product, err)
		}
	})
}

func TestExpiredRecordsAreNotServedForever(t *testing.T) {
	w := newWorld(t)
	var members []*member
	// The Recursor counts in steps of 30 s, and is left out: a test would take as long.
	for _, p := range []engine.Product{engine.Unbound, engine.KnotResolver} {
		c := w.configOf(p)
		c.ServeStale = &engine.ServeStale{MaxAge: engine.Duration(2 * time.Second), TTL: engine.Duration(time.Second)}
		members = append(members, startPool(t, p, c))
	}
	atOnce(members, func(s *member) { s.ask("short.pay.corp.") })
	for _, dc := range []int{1, 2} {
		for _, a := range w.datacenter(dc) {
			a.stop()
		}
	}
	for _, s := range members {
		eventually(t, fmt.Sprintf("%s serves it no more", s.o.Product), func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			// Nobody is owed an answer, and none in time.
			reply, err := ask(ctx, netip.Addr{}, s.at, question("short.pay.corp.", dns.TypeA, true))
			return err != nil || len(reply.Answer) == 0
		})
	}
}

func TestABadConfigurationLeavesTheEngineAsItWas(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			s.ask("app.pay.corp.")
			before := s.current()
			file, err := engine.ParsePath(filepath.Join(t.TempDir(), "rpz.zone"))
			if err == nil {
				err = os.WriteFile(file.String(), []byte("this is no zone\n"), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			c := *w.config()
			// The port is that of no address here: it can be listened on by one who has it already.
			taken, err := net.Listen("tcp", "10.1.0.53:5311")
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			c.Listen = append(c.Listen, netip.MustParseAddrPort("10.1.0.53:5311"))
			c.Block.RPZ = []engine.RPZ{{Name: mustName(t, "rpz.corp."), File: file}}
			s.set(&c)
			t.Logf("refused: %v", s.Refused())
			if s.Refused() == nil {
				t.Error("it was not refused")
			}
			if s.current().rendered.Generation != before.rendered.Generation {
				t.Error("the configuration before is not in force")
			}
			eventually(t, "it is ready", func() bool { return s.Ready() == nil })
			if got := said(s.ask("app.deep.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("it resolves %q", got)
			}
			// The next good one is taken.
			good := *w.config()
			good.TTL.Max = engine.Duration(time.Hour)
			s.set(&good)
			if err := s.Refused(); err != nil {
				t.Errorf("the good one is refused: %v", err)
			}
		})
	}
}

func TestAConfigurationThatStopsRecursionIsTakenBack(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			c := *w.config()
			c.RootHints = []engine.RootServer{{Name: mustName(t, "ns-9."), Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.1")}}}
			c.AuthorityNetworks = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}
			s.set(&c)
			if err := s.Refused(); err == nil || !strings.Contains(err.Error(), "does not resolve names below deep.pay.corp.") {
				t.Errorf("refused: %v", err)
			}
			eventually(t, "it resolves again", func() bool { return said(s.ask("app.deep.pay.corp.")) == "10.9.9.9" })
		})
	}
}

func TestAChangeKeepsTheCacheWhereTheEngineCan(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			s.ask("app.pay.corp.")
			pid := s.current().process.pid()
			// Only a cache still has the address when it has moved.
			w.move(2, "10.9.9.10", 1, 2)
			defer w.move(2, "10.9.9.9", 1, 2)
			c := *w.config()
			c.Clients = append([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, c.Clients...)
			s.set(&c)
			if err := s.Refused(); err != nil {
				t.Fatal(err)
			}
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("the cache was lost: %q", got)
			}
			if same := s.current().process.pid() == pid; same != (p != engine.KnotResolver) {
				t.Errorf("the same process: %t", same)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if reply, err := ask(ctx, netip.MustParseAddr("192.0.2.1"), s.at, question("app.pay.corp.", dns.TypeA, true)); err != nil || reply.Rcode != dns.RcodeSuccess {
				t.Errorf("the new client got %v, %v", reply, err)
			}
		})
	}
}

func TestARestartThatEmptiesTheCacheWaitsForItsTurnAndDrains(t *testing.T) {
	w := newWorld(t)
	start := func(t *testing.T, spread time.Duration) *member {
		t.Helper()
		return startMember(t, Options{Product: engine.Recursor, Drain: 2 * time.Second, Name: "one", Spread: spread}, pool.Pool{Config: *w.config(), RecursionCheck: mustName(t, "deep.pay.corp.")})
	}
	colder := *w.config()
	colder.CacheMiB *= 2

	t.Run("while it waits it is ready, and a newer configuration overtakes", func(t *testing.T) {
		s := start(t, 1000*time.Hour)
		before := s.current().process
		overtaken := make(chan struct{})
		go func() {
			defer close(overtaken)
			s.set(&colder)
		}()
		eventually(t, "it says what it waits for", func() bool { return strings.HasPrefix(s.Report().Pending, "restarts at ") })
		if err := s.Ready(); err != nil {
			t.Errorf("it is not ready: %v", err)
		}
		lighter := *w.config()
		lighter.Block.Names = []engine.Name{mustName(t, "blocked.corp.")}
		s.set(&lighter)
		<-overtaken
		if r := s.Report(); r.Pending != "" || r.Refused != "" || r.Newest != r.Configuration || s.current().process != before {
			t.Errorf("it is %+v", r)
		}
	})
	t.Run("who dies waits no more", func(t *testing.T) {
		s := start(t, 1000*time.Hour)
		go s.set(&colder)
		eventually(t, "it waits", func() bool { return s.Report().Pending != "" })
		if err := syscall.Kill(s.current().process.pid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it answers by the new configuration", func() bool { return s.current().config.CacheMiB == colder.CacheMiB && s.Ready() == nil })
	})
	t.Run("it answers, unready, until it is restarted", func(t *testing.T) {
		s := start(t, 0)
		before := s.current().process
		go s.set(&colder)
		eventually(t, "it is unready", func() bool { return s.Ready() != nil })
		if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" || s.current().process != before {
			t.Errorf("it answers %q", got)
		}
		eventually(t, "another process is ready", func() bool { return s.current().process != before && s.Ready() == nil && s.Report().Pending == "" })
	})
}

func TestARestartInVainIsNotRepeatedAtOnce(t *testing.T) {
	w := newWorld(t)
	s := startPool(t, engine.Recursor, w.config())
	c := *w.config()
	c.RootHints = []engine.RootServer{{Name: mustName(t, "ns-9."), Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.1")}}}
	s.set(&c)
	if s.Refused() == nil {
		t.Fatal("it is not refused")
	}
	before := s.current().process
	s.set(&c)
	if s.Refused() == nil || s.current().process != before {
		t.Errorf("the cache was emptied once more: %v", s.Refused())
	}
	if n := strings.Count(s.log.String(), "the new configuration is refused"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

func TestAKilledEngineRunsAgain(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			dead := s.current()
			if err := syscall.Kill(dead.process.pid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "another process answers", func() bool { return s.current() != dead && s.Ready() == nil })
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("it resolves %q", got)
			}
			if text := scrape(t, s.Agent); !strings.Contains(text, fmt.Sprintf(`fingerpost_resolver_engine_deaths_total{engine=%q} 1`, p)) {
				t.Error("the death is not counted")
			}
		})
	}
}

func TestADeadEngineIsStartedByANewConfiguration(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			if err := syscall.Kill(s.current().process.pid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			c := *w.config()
			c.TTL.Max = engine.Duration(time.Hour)
			s.set(&c)
			eventually(t, "it answers by the new configuration", func() bool { return s.current().config.TTL == c.TTL && s.Refused() == nil && s.Ready() == nil })
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("it resolves %q", got)
			}
		})
	}
}

func TestAHungEngineIsUnreadyUntilItAnswers(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			pid := s.current().process.pid()
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is unready", func() bool { return s.Ready() != nil })
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is ready again", func() bool { return s.Ready() == nil })
		})
	}
}

func TestADrainingEngineAnswersAndIsUnready(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startMember(t, Options{Product: p, Drain: time.Hour}, pool.Pool{Config: *w.config()})
			go s.cancel()
			eventually(t, "it is unready", func() bool { return s.Ready() != nil })
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("it answers %q", got)
			}
			// One that dies now stays dead, and the agent ends.
			if err := syscall.Kill(s.current().process.pid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// scrape is the text of /metrics.
func scrape(t *testing.T, a *Agent) string {
	t.Helper()
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func TestStatisticsHaveOneVocabulary(t *testing.T) {
	w := newWorld(t)
	lacks := map[engine.Product][]control.Statistic{
		engine.Unbound:      {control.Timeouts},
		engine.KnotResolver: {control.Prefetches, control.Stale},
		engine.Recursor:     {control.Stale},
	}
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			for range 3 {
				s.ask("app.pay.corp.")
			}
			s.ask("nobody.pay.corp.")
			got, err := s.current().control.Statistics(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Log(got)
			for _, statistic := range control.All() {
				_, told := got[statistic]
				lacking := false
				for _, l := range lacks[p] {
					lacking = lacking || l == statistic
				}
				if told == lacking {
					t.Errorf("%s: told is %t", statistic, told)
				}
			}
			for _, positive := range []control.Statistic{control.Queries, control.CacheHits, control.CacheMisses, control.NoError, control.NXDomain, control.Upstream, control.CacheEntries} {
				if got[positive] == 0 {
					t.Errorf("%s is 0", positive)
				}
			}
			if text := scrape(t, s.Agent); !strings.Contains(text, fmt.Sprintf(`fingerpost_resolver_queries_total{engine=%q}`, p)) {
				t.Errorf("no metrics:\n%s", text)
			}
		})
	}
}

func TestAFlushForgetsANameAndNoOther(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			for _, name := range []string{"app.corp.", "app.pay.corp.", "www.pay.corp."} {
				s.ask(name)
			}
			w.move(1, "10.9.9.10", 1, 2)
			w.move(2, "10.9.9.10", 1, 2)
			defer w.move(1, "10.9.9.9", 1, 2)
			defer w.move(2, "10.9.9.9", 1, 2)
			if _, err := s.current().control.Flush(t.Context(), mustZoneName(t, "app.pay.corp.")); err != nil {
				t.Fatal(err)
			}
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.10" {
				t.Errorf("the flushed name is %q", got)
			}
			if got := said(s.ask("app.corp.")); got != "10.9.9.9" {
				t.Errorf("the other name is %q", got)
			}
		})
	}
}

func mustZoneName(t testing.TB, text string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(text, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNamesAreNoCommands flushes names that hold what control protocols take for their own.
func TestNamesAreNoCommands(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			for _, text := range []string{".", `a\039\041 quit\(\) --.corp.`, `a\010quit\(\)\010.corp.`, `\$.corp.`, `a\ b.corp.`, `\000\255.corp.`, `\\\\.corp.`, `]]\.x.corp.`, "corp$."} {
				if _, err := s.current().control.Flush(t.Context(), mustZoneName(t, text)); err != nil {
					t.Errorf("flushing %s: %v", text, err)
				}
			}
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("it resolves %q", got)
			}
		})
	}
}
