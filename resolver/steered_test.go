package resolver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// ttl is that of all names of steered worlds: what is seen before it is over was not there by itself.
const ttl = 3600

// steeredWorld is a world whose servers of pay.corp steer names, each by what it sees itself. Each datacenter has a hub of its
// own, so that one can be behind the other.
type steeredWorld struct {
	*world
	ca    *controltest.Authority
	hubs  map[int]*testHub
	edges map[int]*edge
}

// testHub is a manager's end of streams.
type testHub struct {
	*control.Hub
	address string
	stop    func()
	mu      sync.Mutex
	reports map[control.ServerID]*pool.Report
}

// startHub serves a hub that leads until the test ends.
func startHub(t testing.TB, ca *controltest.Authority) *testHub {
	t.Helper()
	h := &testHub{reports: map[control.ServerID]*pool.Report{}}
	h.Hub = control.NewHub(control.HubOptions{Log: logr.Discard(), Cluster: "test", OnReport: func(id control.ServerID, kind string, body []byte) {
		if kind != pool.ReportKind {
			return
		}
		r, err := pool.DecodeReport(body)
		if err != nil {
			t.Errorf("a report that can't be read: %v", err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.reports[id] = r
	}})
	server := grpc.NewServer(control.ServerOptions(ca.Credentials(control.HubURI()))...)
	h.Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address, h.stop = l.Addr().String(), server.Stop
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	h.Lead(1)
	h.SetComplete()
	return h
}

// report is the last one of a server; nil: there is none.
func (h *testHub) report(id control.ServerID) *pool.Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reports[id]
}

// edge is an authoritative server that steers.
type edge struct {
	at    netip.AddrPort
	start func()
	stop  func()
}

// servers is the group of a datacenter's authoritative servers.
func servers(dc int) control.GroupKey {
	return control.GroupKey{Datacenter: fmt.Sprintf("dc-%d", dc), Group: "authoritative"}
}

// newSteeredWorld has servers with these names in pay.corp.
func newSteeredWorld(t testing.TB, names ...*steeringpb.Record) *steeredWorld {
	t.Helper()
	w := &steeredWorld{world: newWorld(t), ca: controltest.NewAuthority(t), hubs: map[int]*testHub{}, edges: map[int]*edge{}}
	topology := &steeringpb.Topology{Key: []byte("key"), VoteTtl: 5000}
	for dc := 1; dc <= 2; dc++ {
		topology.Datacenters = append(topology.Datacenters, &steeringpb.Datacenter{
			Name: servers(dc).Datacenter, Rank: uint32(dc - 1), Servers: []*steeringpb.Server{{Group: "authoritative", Name: "a", Mesh: peerOf(dc)}},
		})
	}
	for dc := 1; dc <= 2; dc++ {
		w.datacenter(dc)[payCorp].stop()
		w.hubs[dc] = startHub(t, w.ca)
		for kind, m := range map[string]proto.Message{"topology": topology, "overrides": &steeringpb.Overrides{}} {
			body, err := proto.Marshal(m)
			if err == nil {
				err = w.hubs[dc].PublishDocument(servers(dc), control.Document{Kind: kind, Body: body})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	w.publish(1, "", []int{1, 2}, names...)
	for dc := 1; dc <= 2; dc++ {
		w.startEdge(dc)
	}
	return w
}

func peerOf(dc int) string { return fmt.Sprintf("10.%d.0.3:4444", dc) }

// publish has servers of datacenters get a version of pay.corp. more are records beside those that all versions have.
func (w *steeredWorld) publish(serial uint32, more string, dcs []int, names ...*steeringpb.Record) {
	w.t.Helper()
	text := strings.ReplaceAll(w.text(payCorp, "10.9.9.9"), "app.pay.corp. 60 IN A 10.9.9.9\n", "") + more
	content, _, faults := zone.Load(mustZoneName(w.t, "pay.corp."), strings.ReplaceAll(text, " 60 IN CNAME", fmt.Sprintf(" %d IN CNAME", ttl)))
	if content == nil {
		w.t.Fatal(faults)
	}
	var nodes []zone.Node
	for _, r := range names {
		rdata, err := proto.Marshal(r)
		if err != nil {
			w.t.Fatal(err)
		}
		nodes = append(nodes, zone.NewNode(mustZoneName(w.t, r.GetHost()), zone.NewRRset(zone.TypeSteered, 0, rdata)))
	}
	content, err := content.With(nodes...)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, dc := range dcs {
		w.hubs[dc].Publish(control.Zone{
			Content: content, Version: zone.Version{Serial: serial, Digest: content.Digest()}, Source: "test/pay.corp", Groups: []control.GroupKey{servers(dc)},
			Guard: zone.GuardPolicy{MinDeletes: 1000, MaxDeletePercent: 100},
		})
	}
}

// startEdge runs the steering server of a datacenter until the test ends.
func (w *steeredWorld) startEdge(dc int) {
	w.t.Helper()
	dir, state := w.ca.Dir(servers(dc)), w.t.TempDir()
	e := &edge{at: w.datacenter(dc)[payCorp].at}
	w.edges[dc] = e
	e.start = func() {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			ended <- dnsserver.Run(ctx, dnsserver.Config{
				Options: dnsserver.Options{Addresses: []netip.AddrPort{e.at}, Workers: 1, Log: logr.Discard()},
				Hub: &dnsserver.HubConfig{
					Hubs: []string{w.hubs[dc].address}, Name: "a", StateDir: state, PeerListen: peerOf(dc),
					Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Roots: filepath.Join(dir, "ca.crt"),
				},
			})
		}()
		e.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				w.t.Errorf("%s: %v", e.at, err)
			}
		})
		w.t.Cleanup(e.stop)
		eventually(w.t, e.at.String()+" answers", func() bool { return w.authoritative(dc, "short.pay.corp.") == "10.9.9.9" })
	}
	e.start()
}

// authoritative is what the server of a datacenter says of a name's address; "" if nothing.
func (w *steeredWorld) authoritative(dc int, name string) string {
	ctx, cancel := context.WithTimeout(context.Background(), authorityTimeout)
	defer cancel()
	reply, err := ask(ctx, netip.Addr{}, w.edges[dc].at, question(name, dns.TypeA, false))
	if err != nil {
		return ""
	}
	return said(reply)
}

// awaitEdges returns when the servers of datacenters say so of a name.
func (w *steeredWorld) awaitEdges(name, address string, dcs ...int) {
	w.t.Helper()
	for _, dc := range dcs {
		eventually(w.t, fmt.Sprintf("dc-%d says that %s is %s", dc, name, address), func() bool { return w.authoritative(dc, name) == address })
	}
}

// failover is a name that is at the first address where somebody listens at a port, as each server sees it.
func failover(name string, port uint32, vantage steeringpb.Vantage, addresses ...string) *steeringpb.Record {
	r := &steeringpb.Record{
		Source: "pay/" + name, Host: name, Ttl: ttl, Policy: steeringpb.Policy_FAILOVER,
		Probes: []*steeringpb.Probe{{
			Source: "pay/tcp", Interval: 100, Timeout: 90, FailureThreshold: 1, SuccessThreshold: 1, Vantage: vantage,
			Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: port}},
		}},
	}
	for _, a := range addresses {
		r.Pools = append(r.Pools, &steeringpb.Pool{Name: a, Targets: []*steeringpb.Target{{Address: a, Weight: 1}}, Probes: []uint32{0}})
	}
	return r
}

// listenAt takes connections at an address until it is stopped.
func listenAt(t testing.TB, address string) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return func() { _ = l.Close() }
}

// listenTo is an agent of the first datacenter with an engine, which hears what servers tell.
func (w *steeredWorld) listenTo(p engine.Product, change func(*pool.Pool)) *member {
	w.t.Helper()
	do := pool.Pool{
		Config: *w.config(), RecursionCheck: mustName(w.t, "deep.pay.corp."),
		Notifiers: pool.Notifiers{Local: []string{peerOf(1)}, Others: []string{peerOf(2)}},
	}
	if change != nil {
		change(&do)
	}
	s := startMember(w.t, Options{Product: p, Watch: changes.WatchOptions{Credentials: w.ca.Credentials(agents.URI()), Name: "one"}}, do)
	eventually(w.t, "changes are heard", func() bool { return len(s.Report().Flush.Notifiers) > 0 })
	return s
}

// agents is the group of the agents of a pool.
var agents = control.GroupKey{Datacenter: "dc-1", Group: pool.GroupName("dns", "office")}

// address is what the engine says of a name's address, behind all aliases.
func (s *member) address(name string) string {
	s.t.Helper()
	for _, rr := range s.ask(name).Answer {
		if a, is := rr.(*dns.A); is {
			return a.A.String()
		}
	}
	return ""
}

// calm reports whether nothing is left to flush.
func (s *member) calm() bool { return s.Report().Flush.Waiting == 0 }

func TestAFailoverReachesClientsBeforeTheTTLIsOver(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			down := listenAt(t, "10.1.9.1:80")
			listenAt(t, "10.2.9.1:80")
			w := newSteeredWorld(t, failover("app.pay.corp.", 80, steeringpb.Vantage_LOCAL, "10.1.9.1", "10.2.9.1"))
			w.awaitEdges("app.pay.corp.", "10.1.9.1", 1, 2)
			s := w.listenTo(p, nil)
			for _, name := range []string{"app.pay.corp.", "www.pay.corp."} {
				if got := s.address(name); got != "10.1.9.1" {
					t.Fatalf("%s is at %q", name, got)
				}
			}
			down()
			for _, name := range []string{"app.pay.corp.", "www.pay.corp."} {
				eventually(t, name+" has failed over", func() bool { return s.address(name) == "10.2.9.1" })
			}
			eventually(t, "nothing is left to flush", s.calm)
			listenAt(t, "10.1.9.1:80")
			for _, name := range []string{"app.pay.corp.", "www.pay.corp."} {
				eventually(t, name+" is back", func() bool { return s.address(name) == "10.1.9.1" })
			}
			eventually(t, "nothing is left to flush", s.calm)
		})
	}
}

func TestAFailoverReachesClientsWhileADatacenterIsLost(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			down := listenAt(t, "10.2.9.1:80")
			listenAt(t, "10.1.9.1:80")
			w := newSteeredWorld(t, failover("app.pay.corp.", 80, steeringpb.Vantage_LOCAL, "10.2.9.1", "10.1.9.1"))
			w.awaitEdges("app.pay.corp.", "10.2.9.1", 1, 2)
			s := w.listenTo(p, nil)
			if got := s.address("app.pay.corp."); got != "10.2.9.1" {
				t.Fatalf("it is at %q", got)
			}
			w.edges[2].stop()
			var lift []func()
			for _, a := range w.datacenter(2) {
				lift = append(lift, w.blackhole(a))
			}
			down()
			eventually(t, "it has failed over", func() bool { return s.address("app.pay.corp.") == "10.1.9.1" })
			eventually(t, "it is known that a server has not been heard", func() bool { return !s.calm() })
			for i, a := range w.datacenter(2) {
				lift[i]()
				if i != payCorp {
					w.start(a)
				}
			}
			w.edges[2].start()
			eventually(t, "the server that is back has been looked at", s.calm)
			if got := s.address("app.pay.corp."); got != "10.1.9.1" {
				t.Errorf("then it is at %q", got)
			}
		})
	}
}

// TestAServerThatIsBehindLeavesNothingOld: one server fails over long before the other one does.
func TestAServerThatIsBehindLeavesNothingOld(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			early, late := listenAt(t, "10.1.9.1:80"), listenAt(t, "10.1.9.1:81")
			listenAt(t, "10.2.9.1:80")
			listenAt(t, "10.2.9.1:81")
			w := newSteeredWorld(t, failover("app.pay.corp.", 80, steeringpb.Vantage_LOCAL, "10.1.9.1", "10.2.9.1"))
			w.publish(1, "", []int{2}, failover("app.pay.corp.", 81, steeringpb.Vantage_LOCAL, "10.1.9.1", "10.2.9.1"))
			w.awaitEdges("app.pay.corp.", "10.1.9.1", 1, 2)
			s := w.listenTo(p, nil)
			s.address("app.pay.corp.")
			early()
			w.awaitEdges("app.pay.corp.", "10.2.9.1", 1)
			eventually(t, "it is known that a server is behind", func() bool { return s.Report().Flush.Outcomes[string(Unconfirmed)] > 0 })
			if got := w.authoritative(2, "app.pay.corp."); got != "10.1.9.1" {
				t.Fatalf("the late server says %s", got)
			}
			late()
			eventually(t, "nothing is left to flush", s.calm)
			if got := s.address("app.pay.corp."); got != "10.2.9.1" {
				t.Errorf("it is at %q", got)
			}
		})
	}
}

func TestNamesThatAreAnsweredByTurnsAreConfirmed(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			down := listenAt(t, "10.1.9.1:80")
			for _, a := range []string{"10.2.9.1:80", "10.2.9.2:80", "10.2.9.3:80", "10.2.9.4:80"} {
				listenAt(t, a)
			}
			r := failover("app.pay.corp.", 80, steeringpb.Vantage_LOCAL, "10.1.9.1", "10.2.9.1")
			r.Pools[1].Targets = nil
			for n := range 4 {
				r.Pools[1].Targets = append(r.Pools[1].Targets, &steeringpb.Target{Address: fmt.Sprintf("10.2.9.%d", n+1), Weight: uint32(10*n + 1)})
			}
			r.Pools[1].Policy, r.Pools[1].MaxAnswers = steeringpb.PoolPolicy_POOL_WEIGHTED, 1
			w := newSteeredWorld(t, r)
			w.awaitEdges("app.pay.corp.", "10.1.9.1", 1, 2)
			s := w.listenTo(p, nil)
			s.address("app.pay.corp.")
			down()
			eventually(t, "it has failed over", func() bool { return strings.HasPrefix(s.address("app.pay.corp."), "10.2.9.") })
			eventually(t, "it is confirmed", func() bool { return s.calm() && s.Report().Flush.Outcomes[string(Confirmed)] > 0 })
		})
	}
}

func TestAnEditOfAZoneReachesClientsBeforeTheTTLIsOver(t *testing.T) {
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			w := newSteeredWorld(t)
			records := func(n int) string {
				return fmt.Sprintf("ftp.pay.corp. %[1]d IN A 10.9.9.%[2]d\nnote.pay.corp. %[1]d IN TXT \"%[2]d\"\nwild.pay.corp. %[1]d IN A 10.9.9.1\n*.v.pay.corp. %[1]d IN A 10.9.9.%[2]d\n", ttl, n)
			}
			w.publish(2, records(1), []int{1, 2})
			w.awaitEdges("ftp.pay.corp.", "10.9.9.1", 1, 2)
			s := w.listenTo(p, nil)
			note := func() string {
				ctx, cancel := context.WithTimeout(t.Context(), recursionTimeout)
				defer cancel()
				reply, err := ask(ctx, netip.Addr{}, s.at, question("note.pay.corp.", dns.TypeTXT, true))
				if err != nil {
					t.Fatal(err)
				}
				return said(reply)
			}
			if ftp, below := s.address("ftp.pay.corp."), s.address("any.v.pay.corp."); ftp != "10.9.9.1" || below != "10.9.9.1" || note() != `"1"` {
				t.Fatalf("before: %s, %s, %s", ftp, below, note())
			}
			w.publish(3, records(2), []int{1, 2})
			eventually(t, "the address is another one", func() bool { return s.address("ftp.pay.corp.") == "10.9.9.2" })
			eventually(t, "the text is another one", func() bool { return note() == `"2"` })
			eventually(t, "what a wildcard stands for is another one", func() bool { return s.address("any.v.pay.corp.") == "10.9.9.2" })
			eventually(t, "nothing is left to flush", s.calm)
		})
	}
}

func TestServersOfOthersTellWhileTheOwnAreGone(t *testing.T) {
	down := listenAt(t, "10.1.9.1:80")
	listenAt(t, "10.2.9.1:80")
	w := newSteeredWorld(t, failover("app.pay.corp.", 80, steeringpb.Vantage_LOCAL, "10.1.9.1", "10.2.9.1"))
	w.awaitEdges("app.pay.corp.", "10.1.9.1", 1, 2)
	s := w.listenTo(engine.Unbound, nil)
	s.address("app.pay.corp.")
	w.edges[1].stop()
	eventually(t, "servers of others are heard", func() bool {
		heard := s.Report().Flush.Notifiers
		return len(heard) == 1 && heard[0] == peerOf(2)
	})
	down()
	eventually(t, "it has failed over", func() bool { return s.address("app.pay.corp.") == "10.2.9.1" })
	w.edges[1].start()
	eventually(t, "the own are heard again, and they alone", func() bool {
		heard := s.Report().Flush.Notifiers
		return len(heard) == 1 && heard[0] == peerOf(1)
	})
}

func TestZonesThatUnboundCanNotForgetAreTold(t *testing.T) {
	down := listenAt(t, "10.1.9.1:80")
	listenAt(t, "10.2.9.1:80")
	w := newSteeredWorld(t, failover("app.pay.corp.", 80, steeringpb.Vantage_LOCAL, "10.1.9.1", "10.2.9.1"))
	w.awaitEdges("app.pay.corp.", "10.1.9.1", 1, 2)
	s := w.listenTo(engine.Unbound, func(do *pool.Pool) { do.ECS = &engine.ECS{Zones: []engine.Name{mustName(t, "pay.corp.")}} })
	if got := fmt.Sprint(s.Report().Flush.NotFlushable); got != "[pay.corp.]" {
		t.Errorf("told are %s", got)
	}
	down()
	eventually(t, "it is said of the name", func() bool { return s.Report().Flush.Outcomes[string(NotFlushable)] > 0 })
}
