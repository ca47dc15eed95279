package resolver

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// products are all that the tests go over.
var products = []engine.Product{engine.Unbound, engine.KnotResolver, engine.Recursor}

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

// world is a private root with the delegations of the internet's top level in place, and three levels of our own below it.
// Every zone has a server in each of two datacenters, 10.1.0.0/16 and 10.2.0.0/16.
type world struct {
	t       testing.TB
	folder  string
	servers map[string]*authority // by address
	serials map[string]int        // of contents of zones
}

// levels are the zones; the n-th is at 10.D.0.n+1.
var levels = []string{".", "corp.", "pay.corp.", "deep.pay.corp."}

// authority is a server of one zone.
type authority struct {
	apex   string
	at     netip.AddrPort
	file   string
	reload chan struct{}
	stop   func() // nil: it does not run
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, folder: t.TempDir(), servers: map[string]*authority{}, serials: map[string]int{}}
	for n, apex := range levels {
		for dc := 1; dc <= 2; dc++ {
			at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(dc), 0, byte(n + 1)}), 53)
			a := &authority{apex: apex, at: at, file: filepath.Join(w.folder, fmt.Sprintf("%s%szone", at.Addr(), apex)), reload: make(chan struct{})}
			w.servers[at.Addr().String()] = a
			w.write(a, w.text(n, "10.9.9.9"))
			w.start(a)
		}
	}
	return w
}

// serial is that of a zone with this address of app: as long as it stays the same, and then a greater one.
func (w *world) serial(apex, app string) int {
	if w.serials[apex+" "+app] == 0 {
		w.serials[apex]++
		for key := range w.serials {
			if strings.HasPrefix(key, apex+" ") {
				delete(w.serials, key)
			}
		}
		w.serials[apex+" "+app] = w.serials[apex]
	}
	return w.serials[apex+" "+app]
}

// text is a zone as a master file; app has the given address.
func (w *world) text(level int, app string) string {
	apex := levels[level]
	var b strings.Builder
	under := func(label string) string {
		if apex == "." {
			return label + "."
		}
		return label + "." + apex
	}
	fmt.Fprintf(&b, "%s 3600 IN SOA %s hostmaster.corp. %d 1800 900 604800 60\n", apex, under("ns-1"), w.serial(apex, app))
	for dc := 1; dc <= 2; dc++ {
		fmt.Fprintf(&b, "%[1]s 3600 IN NS %[2]s\n%[2]s 3600 IN A 10.%[3]d.0.%[4]d\n", apex, under(fmt.Sprintf("ns-%d", dc)), dc, level+1)
	}
	if level+1 < len(levels) {
		for dc := 1; dc <= 2; dc++ {
			fmt.Fprintf(&b, "%[1]s 3600 IN NS ns-%[2]d.%[1]s\nns-%[2]d.%[1]s 3600 IN A 10.%[2]d.0.%[3]d\n", levels[level+1], dc, level+2)
		}
	}
	if apex == "." {
		b.WriteString(topLevel(w.t))
		return b.String()
	}
	fmt.Fprintf(&b, "app.%s 60 IN A %s\nwww.%[1]s 60 IN CNAME app.%[1]s\nshort.%[1]s 1 IN A %[2]s\n*.w.%[1]s 3600 IN A 10.9.9.9\n", apex, app)
	return b.String()
}

// topLevel is the delegations of the IANA root zone, without DNSSEC.
func topLevel(t testing.TB) string {
	t.Helper()
	f, err := os.Open("../dnsserver/zone/testdata/root.zone.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(all)) {
		if f := strings.Fields(line); len(f) > 4 && f[0] != "." && (f[3] == "NS" || f[3] == "A" || f[3] == "AAAA") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (w *world) write(a *authority, text string) {
	w.t.Helper()
	if err := os.WriteFile(a.file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// start has a server answer.
func (w *world) start(a *authority) {
	w.t.Helper()
	apex, err := zone.ParseName(a.apex, "")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- dnsserver.Run(ctx, dnsserver.Config{
			Options: dnsserver.Options{Addresses: []netip.AddrPort{a.at}, Workers: 1, Log: logr.Discard()},
			Zones:   []dnsserver.ZoneFile{{Apex: apex, Path: a.file}}, Reload: a.reload,
		})
	}()
	var once sync.Once
	a.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				w.t.Errorf("%s of %s: %v", a.at, a.apex, err)
			}
		})
	}
	w.t.Cleanup(a.stop)
	eventually(w.t, a.at.String()+" answers", func() bool {
		one, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		reply, err := ask(one, netip.Addr{}, a.at, question(a.apex, dns.TypeSOA, false))
		return err == nil && reply.Authoritative
	})
}

// datacenter are the servers of one datacenter.
func (w *world) datacenter(dc int) (servers []*authority) {
	for n := range levels {
		servers = append(servers, w.servers[fmt.Sprintf("10.%d.0.%d", dc, n+1)])
	}
	return servers
}

// blackhole stops a server, and takes what is sent to it without a word: no answer, no ICMP. It lasts until the returned
// function is called, after which start may be.
func (w *world) blackhole(a *authority) (lift func()) {
	w.t.Helper()
	a.stop()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a.at))
	if err != nil {
		w.t.Fatal(err)
	}
	return func() { c.Close() }
}

// move gives app another address at all servers of a zone that run, and returns when they answer it.
func (w *world) move(level int, app string, dcs ...int) {
	w.t.Helper()
	for _, dc := range dcs {
		a := w.datacenter(dc)[level]
		w.write(a, w.text(level, app))
		a.reload <- struct{}{}
		eventually(w.t, a.at.String()+" has the change", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			reply, err := ask(ctx, netip.Addr{}, a.at, question("app."+a.apex, dns.TypeA, false))
			return err == nil && said(reply) == app
		})
	}
}

// config is what resolvers of these tests do, if nothing else is said.
func (w *world) config() *engine.Config {
	w.t.Helper()
	c := &engine.Config{
		Listen:            []netip.AddrPort{netip.MustParseAddrPort("10.1.0.53:53")},
		Clients:           []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		AuthorityNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Source:            []netip.Addr{netip.MustParseAddr("10.1.0.53")},
		CacheMiB:          16,
	}
	for dc := 1; dc <= 2; dc++ {
		name, err := engine.ParseName(fmt.Sprintf("ns-%d.", dc))
		if err != nil {
			w.t.Fatal(err)
		}
		c.RootHints = append(c.RootHints, engine.RootServer{Name: name, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(dc), 0, 1})}})
	}
	return c
}

// member is an agent with its engine.
type member struct {
	*Agent
	t      testing.TB
	at     netip.AddrPort
	cancel func() // has the agent drain and end
	log    *lockedBuffer
	pool   pool.Pool // what it was told first
}

// lockedBuffer is for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startPool runs an agent with an engine until the test ends, and checks the hierarchy.
func startPool(t testing.TB, p engine.Product, c *engine.Config) *member {
	t.Helper()
	return startMember(t, Options{Product: p}, pool.Pool{Config: *c, RecursionCheck: mustName(t, "deep.pay.corp.")})
}

// startMember runs an agent with an engine until the test ends. It has its folder and log from here.
func startMember(t testing.TB, o Options, do pool.Pool) *member {
	t.Helper()
	s := newMember(t, o, do)
	s.give(&do)
	if err := s.Refused(); err != nil {
		t.Fatalf("%s is not started: %v\n%s", o.Product, err, s.log)
	}
	eventually(t, string(o.Product)+" is ready", func() bool { return s.Ready() == nil })
	return s
}

// newMember runs an agent that was told nothing yet.
func newMember(t testing.TB, o Options, do pool.Pool) *member {
	t.Helper()
	if o.Folder == (engine.Path{}) {
		o.Folder = shortFolder(t)
	}
	s := &member{t: t, log: &lockedBuffer{}, pool: do}
	if listen := append(do.Listen, o.Listen...); len(listen) > 0 {
		s.at = listen[0]
	}
	o.EngineLog, o.Log = s.log, logr.FromSlogHandler(slog.NewTextHandler(s.log, nil))
	s.Agent = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	s.cancel = func() {
		cancel()
		<-ended
	}
	t.Cleanup(func() {
		s.cancel()
		if t.Failed() {
			t.Logf("%s said:\n%s", o.Product, s.log)
		}
	})
	return s
}

// shortFolder is one for an engine, until the test ends: the path of a socket is short.
func shortFolder(t testing.TB) engine.Path {
	t.Helper()
	dir, err := os.MkdirTemp("", "fp") //nolint:usetesting // that of the test is long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	folder, err := engine.ParsePath(dir)
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// give gives the agent another Pool, and returns when it has taken or refused it.
func (s *member) give(do *pool.Pool) {
	s.t.Helper()
	text, err := json.Marshal(do)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = s.Configure(s.t.Context(), text)
}

// set gives the agent another configuration of its engine.
func (s *member) set(c *engine.Config) {
	s.t.Helper()
	do := s.pool
	do.Config = *c
	s.give(&do)
}

// ask asks the engine for an address as a client would.
func (s *member) ask(name string) *dns.Msg {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	reply, err := ask(ctx, netip.Addr{}, s.at, question(name, dns.TypeA, true))
	if err != nil {
		s.t.Fatalf("asking for %s: %v\n%s", name, err, s.log)
	}
	return reply
}

// Unsupported is what the engine does not do though its configuration has it.
func (s *member) Unsupported() []engine.Unsupported { return s.Report().Unsupported }
