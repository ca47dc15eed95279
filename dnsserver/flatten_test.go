package dnsserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// resolver answers for every name what it is told to.
type resolver struct {
	address netip.AddrPort
	answers atomic.Pointer[func(*dns.Msg) *dns.Msg]
}

func startResolver(t *testing.T) *resolver {
	t.Helper()
	return startResolverAt(t, "127.0.0.1")
}

func startResolverAt(t *testing.T, address string) *resolver {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	r := &resolver{address: c.LocalAddr().(*net.UDPAddr).AddrPort()}
	s := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		_ = w.WriteMsg((*r.answers.Load())(q))
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err == nil {
			t.Error("the resolver has ended by itself")
		}
	})
	return r
}

// say makes the answer: the records, by type of the question, or the rcode.
func (r *resolver) say(t *testing.T, rcode int, records ...string) {
	t.Helper()
	var rrs []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	f := func(q *dns.Msg) *dns.Msg {
		reply := new(dns.Msg).SetRcode(q, rcode)
		for _, rr := range rrs {
			if rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME {
				reply.Answer = append(reply.Answer, rr)
			}
		}
		return reply
	}
	r.answers.Store(&f)
}

// nobody is denied.
func nobody(netip.Addr) bool { return false }

// TestResolversThatAreDeniedAreNotAsked: flatten.resolvers are a tenant's word, like the targets of probes.
func TestResolversThatAreDeniedAreNotAsked(t *testing.T) {
	secret, open := startResolverAt(t, "127.0.0.9"), startResolver(t)
	secret.say(t, dns.RcodeSuccess, "cdn.example.net. 30 A 192.0.2.66")
	open.say(t, dns.RcodeSuccess, "cdn.example.net. 30 A 192.0.2.1")
	const name, key = zone.Name("\x03cdn\x07example\x03net\x00"), "\x04bank\x00"
	for rule, c := range map[string]struct {
		resolvers []netip.AddrPort
		denies    bool
		want      string
		logs      int
	}{
		"the next one is asked instead":    {[]netip.AddrPort{secret.address, open.address}, true, "[192.0.2.1]", 1},
		"if all are denied nothing is":     {[]netip.AddrPort{secret.address}, true, "[]", 1},
		"one that may be reached is asked": {[]netip.AddrPort{secret.address, open.address}, false, "[192.0.2.66]", 0},
	} {
		t.Run(rule, func(t *testing.T) {
			logs := 0
			denied := func(a netip.Addr) bool { return c.denies && a == secret.address.Addr() }
			f := newFlattener(nil, func(string) {}, denied, funcr.New(func(string, string) { logs++ }, funcr.Options{}))
			r := &steering.Record{Source: "payments/apex", Flatten: true, Resolvers: c.resolvers, Pools: []steering.Pool{{Targets: []steering.Target{{Name: name}}}}}
			f.want(ownerKey{key, key}, r)
			for range 2 {
				f.look(t.Context(), lookedUp{name, joined(c.resolvers)}, c.resolvers)
			}
			addresses, _, _ := f.of(r)(name)
			if got := fmt.Sprint(addresses); got != c.want {
				t.Errorf("addresses are %s, want %s", got, c.want)
			}
			if logs != c.logs {
				t.Errorf("the log has %d lines, want %d", logs, c.logs)
			}
		})
	}
}

func TestNamesAreFlattenedToTheirLastGoodAddresses(t *testing.T) {
	dead, alive := startResolver(t), startResolver(t)
	dead.say(t, dns.RcodeServerFailure)
	name, err := zone.ParseName("cdn.example.net.", "")
	if err != nil {
		t.Fatal(err)
	}
	key := ownerKey{"\x04bank\x00", "\x04bank\x00"}
	record := func(names ...zone.Name) *steering.Record {
		r := &steering.Record{Source: "payments/apex", Flatten: true, Resolvers: []netip.AddrPort{dead.address, alive.address}}
		for _, n := range names {
			r.Pools = append(r.Pools, steering.Pool{Targets: []steering.Target{{Name: n}}})
		}
		return r
	}
	changed := make(chan string, 10)
	f := newFlattener(nil, func(source string) { changed <- source }, nobody, logr.Discard())
	resolvers := []netip.AddrPort{dead.address, alive.address}
	look := func() { f.look(t.Context(), lookedUp{name, joined(resolvers)}, resolvers) }
	addresses := func(f *flattener) ([]netip.Addr, uint32, bool) {
		return f.of(&steering.Record{Flatten: true, Resolvers: resolvers})(name)
	}
	f.want(key, record(name))
	if _, _, ok := addresses(f); ok {
		t.Error("there are addresses before anybody looked")
	}

	alive.say(t, dns.RcodeSuccess, "cdn.example.net. 300 CNAME edge.example.net.", "edge.example.net. 30 A 192.0.2.2", "edge.example.net. 60 A 192.0.2.1",
		"edge.example.net. 60 AAAA 2001:db8::1")
	look()
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
	if got, ttl, ok := addresses(f); !ok || ttl != 30 || !slices.Equal(got, want) {
		t.Errorf("addresses are %v, TTL %d, %v", got, ttl, ok)
	}
	if source := <-changed; source != "payments/apex" {
		t.Errorf("changed is %q", source)
	}

	for what, say := range map[string]func(){
		"a failure":     func() { alive.say(t, dns.RcodeServerFailure) },
		"no such name":  func() { alive.say(t, dns.RcodeNameError) },
		"no addresses":  func() { alive.say(t, dns.RcodeSuccess) },
		"the same once": func() { alive.say(t, dns.RcodeServerFailure) },
	} {
		say()
		look()
		if got, _, ok := addresses(f); !ok || !slices.Equal(got, want) {
			t.Errorf("after %s addresses are %v, %v", what, got, ok)
		}
	}
	select {
	case <-changed:
		t.Error("a failure has changed something")
	default:
	}

	saved := map[string][]byte{}
	f.save(saved)
	again := newFlattener(saved, nil, nobody, logr.Discard())
	if again.want(key, record(name)); len(saved) != 1 {
		t.Errorf("%d names were saved", len(saved))
	}
	if got, ttl, ok := addresses(again); !ok || ttl != 30 || !slices.Equal(got, want) {
		t.Errorf("after a restart addresses are %v, TTL %d, %v", got, ttl, ok)
	}
	again = newFlattener(saved, nil, nobody, logr.Discard())
	again.forgetUnclaimed()
	gone := map[string][]byte{}
	again.save(gone)
	if body, told := gone[lookedUp{name, joined(resolvers)}.key()]; !told || body != nil {
		t.Errorf("what nobody wants after a restart stays on disk: %q", gone)
	}

	// Somebody else's resolvers have no part in it.
	liar := startResolver(t)
	liar.say(t, dns.RcodeSuccess, "cdn.example.net. 300 A 203.0.113.66")
	theirs := record(name)
	theirs.Source, theirs.Resolvers = "mallory/x", []netip.AddrPort{liar.address}
	f.want(ownerKey{"\x04bank\x00", "\x01x\x04bank\x00"}, theirs)
	f.look(t.Context(), lookedUp{name, joined(theirs.Resolvers)}, theirs.Resolvers)
	if source := <-changed; source != "mallory/x" {
		t.Errorf("changed is %q", source)
	}
	if got, _, ok := addresses(f); !ok || !slices.Equal(got, want) {
		t.Errorf("after others asked a liar addresses are %v, %v", got, ok)
	}

	f.want(key, record(name, "\x05other\x00")) // an edit of the record
	if got, _, ok := addresses(f); !ok || !slices.Equal(got, want) {
		t.Errorf("after an edit addresses are %v, %v", got, ok)
	}
	edited := record(name)
	edited.Resolvers = resolvers[:1]
	f.want(key, edited)
	if got, _, ok := f.of(edited)(name); !ok || !slices.Equal(got, want) {
		t.Errorf("after other resolvers were given addresses are %v, %v", got, ok)
	}
	f.want(key, record("\x05other\x00"))
	if _, _, ok := addresses(f); ok {
		t.Error("a name that nobody wants is remembered")
	}
}

// TestFlatteningRuns: what is wanted is looked up, and again when its time comes.
func TestFlatteningRuns(t *testing.T) {
	r := startResolver(t)
	r.say(t, dns.RcodeSuccess, "x.example. 0 A 192.0.2.7")
	changed := make(chan string, 10)
	f := newFlattener(nil, func(source string) { changed <- source }, nobody, logr.Discard())
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(ended); f.run(ctx) }()
	f.want(ownerKey{}, &steering.Record{Source: "a/b", Flatten: true, Resolvers: []netip.AddrPort{r.address},
		Pools: []steering.Pool{{Targets: []steering.Target{{Name: "\x01x\x07example\x00"}}}}})
	select {
	case <-changed:
	case <-time.After(30 * time.Second):
		t.Error("nothing was looked up")
	}
	cancel()
	<-ended
}
