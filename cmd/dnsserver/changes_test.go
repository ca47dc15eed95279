package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// told is what a resolver agent hears.
type told struct {
	t         testing.TB
	connected chan bool
	all       chan changes.Change
	stop      func()
}

// listen begins to watch a server as an agent does.
func listen(t testing.TB, ca *controltest.Authority, server string) *told {
	t.Helper()
	w := &told{t: t, connected: make(chan bool, 100), all: make(chan changes.Change, 100_000)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		changes.Watch(ctx, changes.WatchOptions{
			Servers: []string{server}, Name: "agent", Log: logr.Discard(),
			Credentials: ca.Credentials(control.GroupKey{Datacenter: "dc-a", Group: "pool.dns.office"}.URI()),
			OnConnected: func(_ string, up bool) { w.connected <- up },
			OnChanges: func(_ string, all []changes.Change, missed bool) {
				if missed {
					t.Error("some changes are missing")
				}
				for _, c := range all {
					w.all <- c
				}
			},
		})
	}()
	w.stop = func() { cancel(); <-ended }
	t.Cleanup(w.stop)
	return w
}

func (w *told) await(up bool) {
	w.t.Helper()
	select {
	case got := <-w.connected:
		if got != up {
			w.t.Fatalf("connected: %t", got)
		}
	case <-time.After(20 * time.Second):
		w.t.Fatalf("it does not happen that connected is %t", up)
	}
}

func (w *told) next() changes.Change {
	w.t.Helper()
	select {
	case c := <-w.all:
		return c
	case <-time.After(20 * time.Second):
		w.t.Fatal("no change is told")
		panic("unreachable")
	}
}

// version asks for a name as an agent does.
func (r *running) version(network, name string) (answer string, serial uint32, state uint64) {
	r.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: zone.OptionState}}
	reply, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(m, r.Addresses[0])
	if err != nil {
		r.t.Fatalf("asking for %s: %v", name, err)
	}
	for _, rr := range reply.Answer {
		if a, is := rr.(*dns.A); is {
			answer = a.A.String()
		}
	}
	for _, o := range reply.IsEdns0().Option {
		if l, is := o.(*dns.EDNS0_LOCAL); is && l.Code == zone.OptionState {
			var ok bool
			if serial, state, ok = zone.ParseState(l.Data); !ok {
				r.t.Errorf("the option has %s", hex.EncodeToString(l.Data))
			}
		}
	}
	return answer, serial, state
}

// answers waits until the server answers a name with an address, and returns the state that the name is in.
func (r *running) answers(name, want string) (state uint64) {
	r.t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-again.C {
		answer, _, state := r.version("udp", name)
		if answer == want {
			return state
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s is answered %q, wanted %q", name, answer, want)
		}
	}
}

// failover is a name that moves from one address to another when nobody listens there.
func failover(t testing.TB, name, first, second, port string) zone.Node {
	t.Helper()
	var number uint32
	if _, err := fmt.Sscan(port, &number); err != nil {
		t.Fatal(err)
	}
	pool := func(address string) *steeringpb.Pool {
		return &steeringpb.Pool{Name: address, Targets: []*steeringpb.Target{{Address: address, Weight: 1}}, Probes: []uint32{0}}
	}
	rdata, err := proto.Marshal(&steeringpb.Record{
		Source: "pay/" + name, Ttl: 60, Policy: steeringpb.Policy_FAILOVER, Pools: []*steeringpb.Pool{pool(first), pool(second)},
		Probes: []*steeringpb.Probe{{
			Source: "pay/tcp", Interval: 200, Timeout: 150, FailureThreshold: 1, SuccessThreshold: 1, Vantage: steeringpb.Vantage_LOCAL,
			Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: number}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	owner, err := zone.ParseName(name, "")
	if err != nil {
		t.Fatal(err)
	}
	return zone.NewNode(owner, zone.NewRRset(zone.TypeSteered, 0, rdata))
}

// alone is the topology of one server, a.
func alone(group control.GroupKey) *steeringpb.Topology {
	return &steeringpb.Topology{Key: []byte("key"), Datacenters: []*steeringpb.Datacenter{
		{Name: group.Datacenter, Servers: []*steeringpb.Server{{Group: group.Group, Name: "a"}}},
	}}
}

// steered publishes a zone with steered names to all servers, and who these are.
func (h *hub) steered(topology *steeringpb.Topology, apex, text string, serial uint32, names ...zone.Node) {
	h.t.Helper()
	name, err := zone.ParseName(apex, "")
	if err != nil {
		h.t.Fatal(err)
	}
	content, _, faults := zone.Load(name, text)
	if content == nil {
		h.t.Fatal(faults)
	}
	if content, err = content.With(names...); err != nil {
		h.t.Fatal(err)
	}
	var groups []control.GroupKey
	for _, dc := range topology.GetDatacenters() {
		groups = append(groups, control.GroupKey{Datacenter: dc.GetName(), Group: dc.GetServers()[0].GetGroup()})
	}
	h.Publish(control.Zone{
		Content: content, Version: zone.Version{Serial: serial, Digest: content.Digest()}, Source: "test/" + apex, Groups: groups,
		Guard: zone.GuardPolicy{MinDeletes: 10, MaxDeletePercent: 30},
	})
	for kind, m := range map[string]proto.Message{"topology": topology, "overrides": &steeringpb.Overrides{}} {
		body, err := proto.Marshal(m)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, g := range groups {
			if err := h.PublishDocument(g, control.Document{Kind: kind, Body: body}); err != nil {
				h.t.Fatal(err)
			}
		}
	}
}

// target listens at an address until it is stopped.
func target(t testing.TB, address string) (at net.Addr, stop func()) {
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
	return l.Addr(), func() { _ = l.Close() }
}

// targets listen at one port of two addresses; the first until down is called.
func targets(t testing.TB) (first, second, port string, down func()) {
	t.Helper()
	first, second = loopback(), loopback()
	at, down := target(t, first+":0")
	_, port, err := net.SplitHostPort(at.String())
	if err != nil {
		t.Fatal(err)
	}
	target(t, second+":"+port)
	return first, second, port, down
}

// TestResolversAreToldOfChanges has an agent watch a server whose steered name fails over and back, whose zone is edited, and
// which restarts while its targets change.
func TestResolversAreToldOfChanges(t *testing.T) {
	ca := controltest.NewAuthority(t)
	group := control.GroupKey{Datacenter: "dc-a", Group: "authoritative"}
	h := newHub(t, ca)
	first, second, port, down := targets(t)
	const text = "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\nwww CNAME app\nalias CNAME www\n"
	h.steered(alone(group), "one.test", text+"ftp A 10.0.0.7\n", 7, failover(t, "app.one.test.", first, second, port))
	h.steered(alone(group), "two.test", "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\nshop CNAME www.one.test.\n", 1)
	h.Lead(1)
	h.SetComplete()
	peer := loopback() + ":4444"
	args := []string{"--hub", h.address, "--tls-dir", ca.Dir(group), "--state-dir", t.TempDir(), "--name", "a", "--peer-listen", peer}
	server := start(t, args...)
	w := listen(t, ca, peer)
	w.await(true)
	answers := func(want string) uint64 { return server.answers("app.one.test.", want) }
	before := answers(first)
	if len(w.all) > 0 {
		t.Errorf("of its first zones it is told %+v", <-w.all)
	}

	moved := func(sentence, to string, left, after uint64) (state uint64) {
		t.Helper()
		c := w.next()
		for _, network := range []string{"udp", "tcp"} { // what is told is in force
			answer, serial, state := server.version(network, "app.one.test.")
			if answer != to || state != c.After || c.Awaits(serial, state) {
				t.Errorf("%s: %+v is told, and over %s it answers %s in state %d", sentence, c, network, answer, state)
			}
		}
		var aliases []string
		for _, a := range c.Aliases {
			aliases = append(aliases, a.String())
		}
		if diff := cmp.Diff([]string{"alias.one.test.", "www.one.test.", "shop.two.test."}, aliases); diff != "" {
			t.Errorf("%s: aliases (-want +got):\n%s", sentence, diff)
		}
		if c.Name.String() != "app.one.test." || c.Apex.String() != "one.test." || c.Serial != 0 || !c.Awaits(7, left) || after != 0 && c.After != after {
			t.Errorf("%s: from %d to %d it is told %+v", sentence, left, after, c)
		}
		return c.After
	}
	down()
	away := moved("it fails over", second, before, 0)
	_, down = target(t, first+":"+port)
	moved("it fails back", first, away, before)

	h.steered(alone(group), "one.test", text+"ftp A 10.0.0.8\nnew A 10.0.0.9\n", 9, failover(t, "app.one.test.", first, second, port))
	for _, name := range []string{"ftp.one.test.", "new.one.test."} {
		c := w.next()
		answer, serial, state := server.version("udp", name)
		if c.Name.String() != name || c.Serial != 9 || len(c.Before) != 0 || c.Awaits(serial, state) || !c.Awaits(7, 0) || answer == "" || answer == "10.0.0.7" {
			t.Errorf("an edit is told as %+v, and %s is answered %s of serial %d", c, name, answer, serial)
		}
	}

	other := listen(t, ca, peer) // comes late
	other.await(true)
	late := map[string]changes.Change{}
	for len(other.all) > 0 {
		c := <-other.all
		late[c.Name.String()] = c
	}
	if c := late["app.one.test."]; c.After != before || !c.Awaits(9, away) || c.Awaits(9, before) || late["ftp.one.test."].Serial != 9 {
		t.Errorf("who comes late is told %+v", late)
	}
	other.stop()
	if _, metrics := server.get("/metrics"); !strings.Contains(metrics, "\nfingerpost_dnsserver_aliases 3\n") || !strings.Contains(metrics, "\nfingerpost_dnsserver_change_watchers ") {
		t.Errorf("metrics are\n%s", metrics)
	}

	server.stop()
	w.await(false)
	down()
	server = start(t, args...)
	w.await(true)
	moved("it moved while the server was away", second, before, away)
	server.stop()
	w.await(false)
	server = start(t, args...)
	w.await(true)
	answers(second)
	if len(w.all) > 0 {
		t.Errorf("of a restart it is told %+v", <-w.all)
	}
}

// TestServersThatDecidedTheSameAreInTheSameState: each has its own process, datacenter and probes.
func TestServersThatDecidedTheSameAreInTheSameState(t *testing.T) {
	ca := controltest.NewAuthority(t)
	h := newHub(t, ca)
	first, second, port, down := targets(t)
	topology := &steeringpb.Topology{Key: []byte("key")}
	peers := map[string]string{"dc-a": loopback() + ":4444", "dc-b": loopback() + ":4444"}
	for rank, dc := range []string{"dc-a", "dc-b"} {
		topology.Datacenters = append(topology.Datacenters, &steeringpb.Datacenter{
			Name: dc, Rank: uint32(rank), Networks: []string{fmt.Sprintf("10.%d.0.0/16", rank+1)},
			Servers: []*steeringpb.Server{{Group: "authoritative", Name: "a", Mesh: peers[dc]}},
		})
	}
	h.steered(topology, "one.test", "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n", 7, failover(t, "app.one.test.", first, second, port))
	h.Lead(1)
	h.SetComplete()
	var servers []*running
	var agents []*told
	for dc, peer := range peers {
		servers = append(servers, start(t, "--hub", h.address, "--tls-dir", ca.Dir(control.GroupKey{Datacenter: dc, Group: "authoritative"}),
			"--state-dir", t.TempDir(), "--name", "a", "--peer-listen", peer))
		w := listen(t, ca, peer)
		w.await(true)
		agents = append(agents, w)
	}
	same := func(address string) {
		t.Helper()
		if one, other := servers[0].answers("app.one.test.", address), servers[1].answers("app.one.test.", address); one != other || one == 0 {
			t.Errorf("both answer %s, in states %d and %d", address, one, other)
		}
	}
	same(first)
	down()
	same(second)
	one, other := agents[0].next(), agents[1].next()
	one.At, other.At = time.Time{}, time.Time{} // each has its own
	if diff := cmp.Diff(one, other); diff != "" {
		t.Errorf("one server tells (-) otherwise than the other (+):\n%s", diff)
	}
}

// TestTenThousandNamesMoveAtOnce: all of them are told, each once, and in force by then.
func TestTenThousandNamesMoveAtOnce(t *testing.T) {
	const names = 10_000
	ca := controltest.NewAuthority(t)
	group := control.GroupKey{Datacenter: "dc-a", Group: "authoritative"}
	h := newHub(t, ca)
	first, second, port, down := targets(t)
	var all []zone.Node
	for i := range names {
		all = append(all, failover(t, fmt.Sprintf("h%d.one.test.", i), first, second, port))
	}
	h.steered(alone(group), "one.test", "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n", 7, all...)
	h.Lead(1)
	h.SetComplete()
	peer := loopback() + ":4444"
	server := start(t, "--hub", h.address, "--tls-dir", ca.Dir(group), "--state-dir", t.TempDir(), "--name", "a", "--peer-listen", peer)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-again.C {
		if _, metrics := server.get("/metrics"); strings.Contains(metrics, fmt.Sprintf("\nfingerpost_dnsserver_steering_records{state=\"preferred\"} %d\n", names)) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer all names")
		}
	}
	w := listen(t, ca, peer)
	w.await(true)
	if len(w.all) > 0 {
		t.Errorf("at the start %d changes are told: %+v", len(w.all), <-w.all)
	}
	_, _, before := server.version("udp", "h0.one.test.")
	began := time.Now()
	down()
	seen := map[zone.Name]bool{}
	for len(seen) < names {
		c := w.next()
		if seen[c.Name] || !c.Awaits(7, before) {
			t.Fatalf("it is told %+v after %d others", c, len(seen))
		}
		seen[c.Name] = true
		if len(seen)%1000 == 1 {
			if answer, serial, state := server.version("udp", c.Name.String()); answer != second || c.Awaits(serial, state) {
				t.Errorf("%s is told, and answered %s", c.Name, answer)
			}
		}
	}
	t.Logf("%d names were told within %s of the end of their target", names, time.Since(began).Round(time.Millisecond))
}
