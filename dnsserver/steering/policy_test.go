package steering

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func seq[V any](networks map[string]V) iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		for n, v := range networks {
			if !yield(netip.MustParsePrefix(n), v) {
				return
			}
		}
	}
}

func geoTable(t testing.TB, r *Record) *GeoTable {
	t.Helper()
	g, err := NewGeoTable(seq(map[string]Country{
		"10.1.0.0/16": {"DE", "EU"}, "10.1.128.0/17": {"FR", "EU"}, "10.2.0.0/16": {"US", "NA"}, "10.3.0.0/16": {"", "AS"}, "2001:db8::/32": {"de", "eu"},
	}), seq(map[string]uint32{"10.2.7.0/24": 64500, "10.2.0.0/16": 64501, "10.1.7.0/24": 64502}), r.ASNs())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGeo(t *testing.T) {
	const pools = `
policy Geo
pool op geo=AS64500: 10.9.0.1
pool de geo=DE,CH: 10.9.0.2
pool eu geo=EU,NA: 10.9.0.3
pool rest: 10.9.0.4
`
	for sentence, tc := range map[string]struct{ health, client, want string }{
		"the country goes before the continent":          {"", "10.1.0.1", "10.9.0.2"},
		"then the continent":                             {"", "10.1.200.1", "10.9.0.3"},
		"the network operator before both":               {"", "10.2.7.1", "10.9.0.1"},
		"an operator that no pool is for does not count": {"", "10.1.7.1", "10.9.0.2"},
		"an operator's network without an own pool":      {"", "10.2.8.1", "10.9.0.3"},
		"a continent alone":                              {"", "10.3.0.1", "10.9.0.4"},
		"a client that the database does not know":       {"", "192.0.2.1", "10.9.0.4"},
		"IPv6":                              {"", "2001:db8::1", "10.9.0.2"},
		"the next best if the pool is down": {"de: down", "10.1.0.1", "10.9.0.3"},
		"then the one for all others":       {"de: down, eu: down", "10.1.0.1", "10.9.0.4"},
		"then any":                          {"de: down, eu: down, rest: down", "10.1.0.1", "10.9.0.1"},
		"other clients are not touched by the loss of that pool": {"de: down", "10.2.7.1", "10.9.0.1"},
	} {
		t.Run(sentence, func(t *testing.T) {
			r := record(t, pools)
			res := Compile(r, &Inputs{Now: now, World: threeDatacenters(t), Health: view(t, r, tc.health), Geo: geoTable(t, r)})
			if got := serve(t, r, res.Steered).ask(t, tc.client); got != tc.want {
				t.Errorf("answered %s, wanted %s", got, tc.want)
			}
		})
	}
	r := record(t, pools)
	res := Compile(r, &Inputs{Now: now, World: threeDatacenters(t)})
	if got := serve(t, r, res.Steered).ask(t, "10.1.0.1"); got != "10.9.0.4" {
		t.Errorf("without a database answered %s", got)
	}
	if got := res.Steered.Scope(netip.MustParseAddr("10.1.0.1")); got != 1 {
		t.Errorf("without a database the scope is %d", got)
	}
	res = Compile(r, &Inputs{Now: now, Geo: geoTable(t, r)})
	if get := res.Summary.For("dc-a"); !slices.Contains(get.Pools, "de") || !slices.Contains(get.Pools, "rest") {
		t.Errorf("clients get %v", get.Pools)
	}
	for client, want := range map[string]int{"10.1.0.1": 17, "10.1.200.1": 17, "10.2.7.1": 24, "10.2.200.1": 17, "10.1.7.1": 17} {
		if got := res.Steered.Scope(netip.MustParseAddr(client)); got != want {
			t.Errorf("the scope of %s is %d, wanted %d", client, got, want)
		}
	}
}

func TestGeoTableKnowsTheOperatorsThatRecordsName(t *testing.T) {
	r := record(t, "policy Geo\npool a geo=AS64500,AS64501: 10.9.0.1\npool b geo=AS64500: 10.9.0.2")
	g := geoTable(t, r)
	if !g.Covers(r.ASNs()) || g.Covers([]uint32{64502}) || (*GeoTable)(nil).Covers(r.ASNs()) || !(*GeoTable)(nil).Covers(nil) {
		t.Error("the table covers others than it was made for")
	}
	if c, asn := g.Locate(netip.MustParseAddr("10.2.7.9")); c != (Country{"US", "NA"}) || asn != 64500 {
		t.Errorf("located at %v, %d", c, asn)
	}
}

func TestLatency(t *testing.T) {
	const pools = `
policy Latency
hysteresis 20
pool a dc-a: 10.1.9.9 10.1.9.10
pool b dc-b: 10.2.9.9
pool c dc-c: 10.3.9.9
`
	const ms = time.Millisecond
	type step struct {
		health     string
		a, b, c    time.Duration // from dc-a; 0: not measured
		want, away string        // at 10.1.0.1, and in nobody's networks
	}
	for sentence, steps := range map[string][]step{
		"the quickest is chosen":                                {{"", 30 * ms, 10 * ms, 20 * ms, "10.2.9.9", "10.2.9.9"}},
		"not if it is down":                                     {{"b: down", 30 * ms, 10 * ms, 20 * ms, "10.3.9.9", "10.3.9.9"}},
		"what is not measured is not chosen":                    {{"", 30 * ms, 0, 0, "10.1.9.10 10.1.9.9", "10.1.9.10 10.1.9.9"}},
		"without any measurement the nearest is":                {{"", 0, 0, 0, "10.1.9.10 10.1.9.9", "10.1.9.10 10.1.9.9"}},
		"a little quicker does not move clients":                {{"", 10 * ms, 30 * ms, 30 * ms, "10.1.9.10 10.1.9.9", "10.1.9.10 10.1.9.9"}, {"", 10 * ms, 9 * ms, 30 * ms, "10.1.9.10 10.1.9.9", "10.1.9.10 10.1.9.9"}},
		"much quicker does":                                     {{"", 10 * ms, 30 * ms, 30 * ms, "10.1.9.10 10.1.9.9", "10.1.9.10 10.1.9.9"}, {"", 10 * ms, 8 * ms, 30 * ms, "10.2.9.9", "10.2.9.9"}},
		"equal ones: the nearest, of dc-c which dc-a prefers":   {{"a: down", 1 * ms, 9 * ms, 9 * ms, "10.3.9.9", "10.2.9.9"}},
		"a loss moves at once, and hysteresis holds on the way": {{"a: down", 10 * ms, 12 * ms, 30 * ms, "10.2.9.9", "10.2.9.9"}, {"", 10 * ms, 12 * ms, 30 * ms, "10.2.9.9", "10.2.9.9"}, {"", 9 * ms, 12 * ms, 30 * ms, "10.1.9.10 10.1.9.9", "10.1.9.10 10.1.9.9"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			r, w := record(t, pools), threeDatacenters(t)
			var memory Memory
			for i, s := range steps {
				v := view(t, r, s.health)
				for j, rtt := range []time.Duration{s.a, s.b, s.c} {
					if rtt > 0 {
						v.Pools[j].Targets[0].Latency = map[string]time.Duration{"dc-a": rtt, "dc-b": 50*ms - rtt}
					}
				}
				res := Compile(r, &Inputs{Now: now, World: w, Health: v, Memory: memory})
				memory = res.Memory
				server := serve(t, r, res.Steered)
				if got := server.ask(t, "10.1.0.1"); got != s.want {
					t.Errorf("step %d: answered %s, wanted %s", i+1, got, s.want)
				}
				if got := server.ask(t, anyone); got != s.away {
					t.Errorf("step %d: in nobody's networks answered %s, wanted %s", i+1, got, s.away)
				}
			}
		})
	}
}

func TestFlattenedNamesAreAnsweredAsTheirAddresses(t *testing.T) {
	known := map[string][]string{
		"one.example.net.": {"192.0.2.1", "192.0.2.2", "2001:db8::1"}, "two.example.net.": {"192.0.2.3"}, "both.example.net.": {"192.0.2.1", "192.0.2.4"},
	}
	resolved := func(n zone.Name) (all []netip.Addr, ttl uint32, ok bool) {
		for _, a := range known[n.String()] {
			all = append(all, netip.MustParseAddr(a))
		}
		return all, 20, len(all) > 0
	}
	for sentence, tc := range map[string]struct {
		record, health string
		want           []string
	}{
		"all addresses": {"policy Failover\nflatten\npool a: one.example.net two.example.net", "", []string{
			"10.1.0.1 => 192.0.2.1 192.0.2.2 192.0.2.3", "10.1.0.1 AAAA => 2001:db8::1", "10.1.0.1 TXT => nodata"}},
		"each once":                                 {"policy Failover\nflatten\npool a: one.example.net both.example.net", "", []string{"10.1.0.1 => 192.0.2.1 192.0.2.2 192.0.2.4"}},
		"a name that is down is left out":           {"policy Failover\nflatten\npool a: one.example.net two.example.net", "a: down up", []string{"10.1.0.1 => 192.0.2.3"}},
		"a name without addresses is down":          {"policy Failover\nflatten\npool a: nope.example.net\npool b: two.example.net", "", []string{"10.1.0.1 => 192.0.2.3"}},
		"no addresses at all are a failure":         {"policy Failover\nflatten\npool a: nope.example.net", "", []string{"10.1.0.1 => SERVFAIL"}},
		"a fallback is looked up too":               {"policy Failover\nflatten\npool a: nope.example.net\nalldown Fallback two.example.net", "", []string{"10.1.0.1 => 192.0.2.3"}},
		"if that has no address, it is a failure":   {"policy Failover\nflatten\npool a: nope.example.net\nalldown Fallback nope2.example.net", "", []string{"10.1.0.1 => SERVFAIL"}},
		"down, but with addresses: they are tried":  {"policy Failover\nflatten\npool a: two.example.net", "a: down", []string{"10.1.0.1 => 192.0.2.3"}},
		"HTTPS has them as hints":                   {"policy Failover\nflatten\npool a: two.example.net\nservice https 443", "", []string{`10.1.0.1 HTTPS => 1 . ipv4hint="192.0.2.3"`}},
		"SRV leads to the host, which has them all": {"policy Failover\nflatten\npool a: two.example.net\nservice _a._tcp 80\nsrv _a._tcp", "", []string{"10.1.0.1 SRV => 0 0 80 app.pay.bank."}},
	} {
		t.Run(sentence, func(t *testing.T) {
			r := record(t, tc.record)
			res := Compile(r, &Inputs{Now: now, Health: view(t, r, tc.health), Resolved: resolved})
			s := serve(t, r, res.Steered)
			for _, line := range tc.want {
				question, want, _ := strings.Cut(line, " => ")
				if got := s.ask(t, question); got != want {
					t.Errorf("%s is answered %s, wanted %s", question, got, want)
				}
			}
			if res.TTL != 20 && !strings.Contains(tc.record, "nope") {
				t.Errorf("TTL %d", res.TTL)
			}
		})
	}
}

// TestSharesInsideAPool counts what many clients get over time.
func TestSharesInsideAPool(t *testing.T) {
	count := func(t *testing.T, text, health string) map[string]int {
		t.Helper()
		r := record(t, text)
		s := serve(t, r, Compile(r, &Inputs{Now: now, World: threeDatacenters(t), Health: view(t, r, health)}).Steered)
		counts := map[string]int{}
		for i := range 200 {
			for j := range 10 {
				s.scratch.Now = now.Unix() + int64(60*j)
				counts[s.ask(t, netip.AddrFrom4([4]byte{10, 1, byte(i), 1}).String())]++
			}
		}
		return counts
	}
	near := func(got, want int) bool { return got > want*8/10 && got < want*12/10 }
	if got := count(t, "policy Nearest\npool a Weighted: 10.0.0.1/3 10.0.0.2/1", ""); !near(got["10.0.0.1"], 1500) || !near(got["10.0.0.2"], 500) {
		t.Errorf("3 to 1: %v", got)
	}
	if got := count(t, "policy Weighted\npool a weight=3: 10.0.0.1\npool b weight=1: 10.0.0.2", ""); !near(got["10.0.0.1"], 1500) || !near(got["10.0.0.2"], 500) {
		t.Errorf("3 to 1 between pools: %v", got)
	}
	if got := count(t, "policy RoundRobin\npool a: 10.0.0.1\npool b: 10.0.0.2", ""); got["10.0.0.1"] != 1000 || got["10.0.0.2"] != 1000 {
		t.Errorf("in turn: %v", got)
	}
	for _, text := range []string{
		"policy Nearest\npool a ClientHash: 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4",
		"policy ClientHash\npool a: 10.0.0.1\npool b: 10.0.0.2\npool c: 10.0.0.3\npool d: 10.0.0.4",
	} {
		r := record(t, text)
		for i, lost := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
			down := "a: " + strings.Repeat("up ", i) + "down" + strings.Repeat(" up", 3-i)
			if len(r.Pools) > 1 {
				down = string(rune('a'+i)) + ": down"
			}
			all := serve(t, r, Compile(r, &Inputs{Now: now}).Steered)
			less := serve(t, r, Compile(r, &Inputs{Now: now, Health: view(t, r, down)}).Steered)
			for j := range 200 {
				client := netip.AddrFrom4([4]byte{10, byte(j), 0, 1}).String()
				was, is := all.ask(t, client), less.ask(t, client)
				if was != lost && was != is || is == lost {
					t.Fatalf("client %s got %s and, without %s, %s", client, was, lost, is)
				}
				less.scratch.Now += 60
				if again := less.ask(t, client); again != is {
					t.Fatalf("client %s got %s and later %s", client, is, again)
				}
			}
		}
	}
}

// TestSRVAgreesWithItsHost holds both owners of one record to the same pick.
func TestSRVAgreesWithItsHost(t *testing.T) {
	const text = "policy Weighted\npool a weight=1: 10.0.0.1@1\npool b weight=1: 10.0.0.2@2\nservice _a._tcp 80\n"
	host, srv := record(t, text), record(t, text+"srv _a._tcp")
	w := threeDatacenters(t)
	one := serve(t, host, Compile(host, &Inputs{Now: now, World: w}).Steered)
	two := serve(t, srv, Compile(srv, &Inputs{Now: now, World: w}).Steered)
	for i := range 100 {
		client := netip.AddrFrom4([4]byte{10, byte(i), 0, 1}).String()
		a, port := one.ask(t, client), two.ask(t, client+" SRV")
		if want := "0 0 " + a[len(a)-1:] + " app.pay.bank."; port != want {
			t.Fatalf("client %s gets %s and %s", client, a, port)
		}
	}
}

func TestWorld(t *testing.T) {
	w := threeDatacenters(t)
	for datacenter, want := range map[string]string{"dc-a": "dc-a,dc-c,dc-b", "dc-b": "dc-b,dc-a,dc-c", "": "dc-a,dc-b,dc-c", "dc-x": "dc-a,dc-b,dc-c"} {
		if got := strings.Join(w.Near(datacenter), ","); got != want {
			t.Errorf("near %q are %s, wanted %s", datacenter, got, want)
		}
	}
	if got := w.Locate(netip.MustParseAddr("10.2.3.4")); got != "dc-b" {
		t.Errorf("located in %q", got)
	}
	if got := (*World)(nil).Near("dc-a"); len(got) != 0 {
		t.Errorf("the empty world has %v", got)
	}
	for sentence, m := range map[string]*steeringpb.Topology{
		"a network that is none": {Datacenters: []*steeringpb.Datacenter{{Name: "a", Networks: []string{"10.0.0.0"}}}},
		"a name that is empty":   {Datacenters: []*steeringpb.Datacenter{{}}},
		"a name twice":           {Datacenters: []*steeringpb.Datacenter{{Name: "a"}, {Name: "a"}}},
	} {
		if _, err := NewWorld(m); err == nil {
			t.Errorf("%s is taken", sentence)
		}
	}
	if _, err := DecodeWorld([]byte{0xff}); err == nil {
		t.Error("what is no topology is taken")
	}
}

func TestLargestReply(t *testing.T) {
	many := "policy Nearest\npool a:"
	for i := range 31 {
		many += fmt.Sprintf(" 10.0.0.%d 2001:db8::%d", i, i)
	}
	for text, want := range map[string]struct {
		qtype  uint16
		octets int
	}{
		twoPools: {zone.TypeA, 16 + 14 + 2*16}, many: {zone.TypeAAAA, 16 + 14 + 31*28},
		"policy Failover\npool a: one.example.net two.example.net":                                 {zone.TypeCNAME, 16 + 14 + 12 + 255},
		"policy Failover\nflatten\npool a: one.example.net":                                        {zone.TypeAAAA, 16 + 14 + 64*28},
		"policy Failover\npool a: 10.0.0.1\nalldown Fallback 10.0.0.1 10.0.0.2 10.0.0.3":           {zone.TypeA, 16 + 14 + 3*16},
		"policy Failover\npool a: one.example.net\nservice _a._tcp 80\nsrv _a._tcp":                {zone.TypeSRV, 16 + 22 + 12 + 6 + 17},
		"policy Failover\npool a Weighted max=1: 10.0.0.1 10.0.0.2 10.0.0.3\nservice https 443 h2": {zone.TypeA, 16 + 14 + 3*16},
	} {
		if qtype, octets := record(t, text).LargestReply(); qtype != want.qtype || octets != want.octets {
			t.Errorf("%s: %d octets of type %d, wanted %d of %d", text, octets, qtype, want.octets, want.qtype)
		}
	}
}
