package steering

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// drawMessage draws a record of addresses. That of target j of pool i is 10.0.i.j or 2001:db8::i:j, so that
// an answer tells where it comes from.
func drawMessage(t *rapid.T) *steeringpb.Record {
	m := &steeringpb.Record{
		Source: "payments/app", Ttl: uint32(rapid.IntRange(0, 100).Draw(t, "ttl")), Host: "app.pay.bank.",
		Policy:      steeringpb.Policy(rapid.IntRange(0, 6).Draw(t, "policy")),
		WhenAllDown: rapid.SampledFrom([]steeringpb.AllDown{0, 1, 3, 4}).Draw(t, "alldown"),
		Probes:      []*steeringpb.Probe{{Interval: 1000}},
		Latency:     &steeringpb.Latency{HysteresisPercent: 10},
	}
	count := rapid.IntRange(1, 5).Draw(t, "pools")
	for i := range count {
		p := &steeringpb.Pool{
			Name: fmt.Sprintf("p%d", i), Datacenter: rapid.SampledFrom([]string{"", "dc-a", "dc-b", "dc-c"}).Draw(t, "dc"),
			Policy: steeringpb.PoolPolicy(rapid.IntRange(0, 3).Draw(t, "pool policy")), Weight: uint32(rapid.IntRange(0, 3).Draw(t, "weight")),
			MinHealthy: uint32(rapid.IntRange(0, 3).Draw(t, "min")), MaxAnswers: uint32(rapid.IntRange(0, 3).Draw(t, "max")), Probes: []uint32{0},
		}
		if m.Policy == steeringpb.Policy_GEO {
			p.Geo = &steeringpb.Geo{Countries: rapid.SampledFrom([][]string{nil, {"DE"}, {"US", "FR"}}).Draw(t, "geo"), Asns: rapid.SampledFrom([][]uint32{nil, {64500}}).Draw(t, "asns")}
		}
		for j := range rapid.IntRange(1, 4).Draw(t, "targets") {
			target := &steeringpb.Target{Address: fmt.Sprintf("10.0.%d.%d", i, j), Weight: uint32(rapid.IntRange(0, 2).Draw(t, "target weight"))}
			if rapid.Bool().Draw(t, "six") {
				target.Address = fmt.Sprintf("2001:db8::%d:%d", i, j)
			}
			p.Targets = append(p.Targets, target)
		}
		m.Pools = append(m.Pools, p)
	}
	for range rapid.IntRange(0, 2).Draw(t, "rules") {
		m.Rules = append(m.Rules, &steeringpb.Rule{
			Networks: []string{rapid.SampledFrom([]string{"10.1.0.0/16", "10.1.7.0/24", "10.0.0.0/8", "2001:db8::/32"}).Draw(t, "network")},
			Pools:    []string{fmt.Sprintf("p%d", rapid.IntRange(0, count-1).Draw(t, "rule's pool"))},
		})
	}
	return m
}

func drawView(t *rapid.T, r *Record) *health.View {
	v := &health.View{}
	for i := range r.Pools {
		p := health.PoolView{Gated: rapid.IntRange(0, 9).Draw(t, "gated") == 0}
		for range r.Pools[i].Targets {
			target := health.TargetView{State: health.State(rapid.IntRange(0, 3).Draw(t, "state"))}
			if rapid.Bool().Draw(t, "measured") {
				target.Latency = map[string]time.Duration{"dc-a": time.Duration(rapid.IntRange(1, 100).Draw(t, "rtt")) * time.Millisecond}
			}
			p.Targets = append(p.Targets, target)
		}
		v.Pools = append(v.Pools, p)
	}
	return v
}

var clients = []string{"10.1.7.1", "10.1.8.1", "10.2.0.1", "10.3.0.1", "192.0.2.1", "2001:db8:1::1", "2001:db8:9::1", "2001:db9::1"}

func drawOverrides(t *rapid.T, r *Record) []*Override {
	var all []*Override
	for i := range rapid.IntRange(0, 4).Draw(t, "overrides") {
		m := &steeringpb.Override{
			Source: fmt.Sprintf("ops/%d", i), AllRecords: rapid.Bool().Draw(t, "all"), Records: []string{r.Source},
			Created: uint64(rapid.IntRange(1, 3).Draw(t, "created")), Expires: uint64(now.UnixMilli()) + 1000, KeepAtLeast: uint32(rapid.IntRange(0, 2).Draw(t, "keep")),
		}
		dc := rapid.SampledFrom([]string{"", "dc-a", "dc-b"}).Draw(t, "override's dc")
		pool := rapid.SampledFrom([]string{"p0", "p1"}).Draw(t, "override's pool")
		switch rapid.IntRange(0, 4).Draw(t, "action") {
		case 0:
			m.Action = &steeringpb.Override_Freeze{Freeze: &steeringpb.Freeze{}}
		case 1:
			m.Action = &steeringpb.Override_Force{Force: &steeringpb.Force{Datacenter: dc, Pool: pool, IgnoreHealth: rapid.Bool().Draw(t, "ignore")}}
		case 2:
			m.Action = &steeringpb.Override_Drain{Drain: &steeringpb.Drain{Datacenter: dc, Pool: pool}}
		case 3:
			m.Action = &steeringpb.Override_RaiseTtl{RaiseTtl: &steeringpb.RaiseTTL{Ttl: uint32(rapid.IntRange(0, 200).Draw(t, "raise"))}}
		default:
			m.Action = &steeringpb.Override_Block{Block: &steeringpb.Block{Networks: []string{"10.1.7.0/25", "192.0.2.0/24"}}}
		}
		o, err := NewOverride(m)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

func geoForModel(t *rapid.T) *GeoTable {
	g, err := NewGeoTable(seq(map[string]Country{"10.1.0.0/16": {"DE", "EU"}, "10.2.0.0/16": {"US", "NA"}, "2001:db8::/33": {"FR", "EU"}}),
		seq(map[string]uint32{"10.1.7.0/26": 64500}), []uint32{64500})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// model says from the design what may be answered, for a record without overrides and latches.
type model struct {
	m *steeringpb.Record
	v *health.View
}

func (o model) pools(client netip.Addr) (eligible []int) {
	for _, rule := range o.m.Rules {
		for _, n := range rule.Networks {
			if netip.MustParsePrefix(n).Contains(client) {
				for i, p := range o.m.Pools {
					if p.Name == rule.Pools[0] {
						return []int{i}
					}
				}
			}
		}
	}
	for i := range o.m.Pools {
		eligible = append(eligible, i)
	}
	return eligible
}

func (o model) up(pool int) (count int) {
	for j, t := range o.v.Pools[pool].Targets {
		if (t.State == health.Up || t.State == health.Unknown) && o.m.Pools[pool].Targets[j].Weight > 0 && !o.v.Pools[pool].Gated {
			count++
		}
	}
	return count
}

func (o model) down(pool, target int) bool {
	return o.v.Pools[pool].Targets[target].State == health.Down || o.v.Pools[pool].Gated
}

// TestAnswersAreWhatTheDesignAllows asks for random records in random states.
func TestAnswersAreWhatTheDesignAllows(t *testing.T) {
	w := threeDatacenters(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := drawMessage(rt)
		r, err := NewRecord(parsed(t, m.Host), m)
		if err != nil {
			rt.Fatal(err)
		}
		in := &Inputs{Now: now, World: w, Health: drawView(rt, r), Geo: geoForModel(rt)}
		res := Compile(r, in)
		if res.fault != nil {
			rt.Fatal(res.fault)
		}
		o := model{m, in.Health}
		s := serve(t, r, res.Steered)
		for _, client := range clients {
			address := netip.MustParseAddr(client)
			eligible := o.pools(address)
			four, six := reply(t, s, client, dns.TypeA), reply(t, s, client, dns.TypeAAAA)
			if four.Rcode != six.Rcode || four.Rcode == dns.RcodeNameError {
				rt.Fatalf("rcodes %d and %d", four.Rcode, six.Rcode)
			}
			var answered []place
			for _, rr := range slices.Concat(four.Answer, six.Answer) {
				answered = append(answered, placeOf(rr))
			}
			for _, rr := range slices.Concat(four.Ns, six.Ns) {
				if rr.Header().Ttl > m.Ttl {
					rt.Fatalf("the SOA of no data has a TTL of %d, above %d", rr.Header().Ttl, m.Ttl)
				}
			}
			o.hold(rt, client, eligible, answered, four.Rcode)
		}
	})
}

func (o model) hold(t *rapid.T, client string, eligible []int, answered []place, rcode int) {
	var good []int // pools with enough targets up
	anyUp, anyAlive := false, false
	for _, i := range eligible {
		weightless := o.m.Policy == steeringpb.Policy_WEIGHTED && o.m.Pools[i].Weight == 0
		if o.up(i) >= int(max(1, o.m.Pools[i].MinHealthy)) && !weightless {
			good = append(good, i)
		}
		anyUp = anyUp || o.up(i) > 0
		for j := range o.m.Pools[i].Targets {
			anyAlive = anyAlive || !o.down(i, j)
		}
	}
	for _, a := range answered {
		switch {
		case a.pool != answered[0].pool:
			t.Fatalf("client %s gets pools %d and %d: types do not agree", client, a.pool, answered[0].pool)
		case !slices.Contains(eligible, a.pool):
			t.Fatalf("client %s gets pool %d, which is not for it", client, a.pool)
		case anyAlive && o.down(a.pool, a.target):
			t.Fatalf("client %s gets target %v, which is down, and another is not", client, a)
		case len(good) > 0 && !slices.Contains(good, a.pool):
			t.Fatalf("client %s gets pool %d, and %v have enough targets up", client, a.pool, good)
		case len(good) > 0 && o.v.Pools[a.pool].Targets[a.target].State == health.Degraded:
			t.Fatalf("client %s gets target %v, which is degraded", client, a)
		case len(good) > 0 && o.m.Pools[a.pool].Targets[a.target].Weight == 0:
			t.Fatalf("client %s gets target %v with weight 0", client, a)
		}
	}
	if anyAlive && rcode != dns.RcodeSuccess {
		t.Fatalf("client %s gets rcode %d, and something is alive", client, rcode)
	}
	if anyAlive && len(answered) == 0 {
		t.Fatalf("client %s gets nothing at all", client)
	}
	if len(answered) > 0 && len(good) > 0 && o.m.Policy == steeringpb.Policy_FAILOVER && answered[0].pool != good[0] {
		t.Fatalf("client %s gets pool %d, and %d is before it", client, answered[0].pool, good[0])
	}
	if len(answered) > 0 && len(good) > 0 && o.m.Policy == steeringpb.Policy_NEAREST {
		own := ""
		for network, dc := range map[string]string{"10.1.0.0/16": "dc-a", "2001:db8:1::/48": "dc-a", "10.2.0.0/16": "dc-b", "10.3.0.0/16": "dc-c"} {
			if netip.MustParsePrefix(network).Contains(netip.MustParseAddr(client)) {
				own = dc
			}
		}
		for _, i := range good {
			if own != "" && o.m.Pools[i].Datacenter == own && o.m.Pools[answered[0].pool].Datacenter != own {
				t.Fatalf("client %s in %s gets pool %d, and %d is there", client, own, answered[0].pool, i)
			}
		}
	}
}

type place struct{ pool, target int }

func placeOf(rr dns.RR) place {
	switch rr := rr.(type) {
	case *dns.A:
		a := rr.A.To4()
		return place{int(a[2]), int(a[3])}
	case *dns.AAAA:
		return place{int(rr.AAAA[13]), int(rr.AAAA[15])}
	}
	return place{-1, -1}
}

func reply(t testing.TB, s *server, client string, qtype uint16) *dns.Msg {
	t.Helper()
	q := &dns.Msg{}
	q.SetQuestion(s.owner.String(), qtype)
	packed, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := &dns.Msg{}
	if err := m.Unpack(s.view.Answer(&s.scratch, make([]byte, 0, zone.MaxMessage), packed, netip.MustParseAddr(client), zone.UDP)); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestServersAgree compiles the same at two servers, which learned of overrides in different order.
func TestServersAgree(t *testing.T) {
	w := threeDatacenters(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := drawMessage(rt)
		r, err := NewRecord(parsed(t, m.Host), m)
		if err != nil {
			rt.Fatal(err)
		}
		v, o, g := drawView(rt, r), drawOverrides(rt, r), geoForModel(rt)
		shuffled := slices.Clone(o)
		rand.New(rand.NewPCG(1, rapid.Uint64().Draw(rt, "order"))).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		one := serve(t, r, Compile(r, &Inputs{Now: now, World: w, Health: v, Geo: g, Overrides: o}).Steered)
		again, err := NewRecord(r.Owner, proto.CloneOf(m))
		if err != nil {
			rt.Fatal(err)
		}
		two := serve(t, again, Compile(again, &Inputs{Now: now, World: threeDatacenters(t), Health: v, Geo: geoForModel(rt), Overrides: shuffled}).Steered)
		for _, client := range clients {
			for _, qtype := range []string{" A", " AAAA"} {
				if a, b := one.ask(t, client+qtype), two.ask(t, client+qtype); a != b {
					rt.Fatalf("%s gets %s here and %s there", client+qtype, a, b)
				}
			}
		}
	})
}

// TestScopes holds what resolvers with ECS rely on: in the block that a scope states all clients get the same,
// and what happens to targets does not change the scope.
func TestScopes(t *testing.T) {
	w := threeDatacenters(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := drawMessage(rt)
		r, err := NewRecord(parsed(t, m.Host), m)
		if err != nil {
			rt.Fatal(err)
		}
		g := geoForModel(rt)
		blocks := slices.DeleteFunc(drawOverrides(rt, r), func(o *Override) bool { return o.Action != Block })
		one := Compile(r, &Inputs{Now: now, World: w, Health: drawView(rt, r), Geo: g, Overrides: blocks})
		two := Compile(r, &Inputs{Now: now, World: w, Health: drawView(rt, r), Geo: g, Overrides: blocks})
		s := serve(t, r, one.Steered)
		drawn := m.Policy == steeringpb.Policy_WEIGHTED || m.Policy == steeringpb.Policy_ROUND_ROBIN
		for _, p := range m.Pools {
			drawn = drawn || p.Policy == steeringpb.PoolPolicy_POOL_WEIGHTED || p.MaxAnswers > 0
		}
		for _, client := range clients {
			a := netip.MustParseAddr(client)
			scope := one.Steered.Scope(a)
			if other := two.Steered.Scope(a); other != scope {
				rt.Fatalf("the scope of %s is %d, and %d with other targets up", client, scope, other)
			}
			if drawn {
				continue
			}
			// Another client of the same block.
			block := netip.PrefixFrom(a, scope).Masked()
			b := block.Addr().AsSlice()
			for i := range b {
				if free := 8*(i+1) - scope; free > 0 {
					b[i] |= rapid.Byte().Draw(rt, "client") & byte(1<<min(free, 8)-1)
				}
			}
			other, _ := netip.AddrFromSlice(b)
			if x, y := s.ask(t, client), s.ask(t, other.String()); x != y {
				rt.Fatalf("%s gets %s and %s, of its block %s, gets %s", client, x, other, block, y)
			}
		}
	})
}

// TestMemoryNeverBreaks compiles with the memory of another record, as after an edit.
func TestMemoryNeverBreaks(t *testing.T) {
	w := threeDatacenters(t)
	rapid.Check(t, func(rt *rapid.T) {
		draw := func() *Record {
			r, err := NewRecord(parsed(t, "app.pay.bank."), drawMessage(rt))
			if err != nil {
				rt.Fatal(err)
			}
			return r
		}
		before, after := draw(), draw()
		memory := Compile(before, &Inputs{Now: now, World: w, Health: drawView(rt, before)}).Memory
		res := Compile(after, &Inputs{Now: now, World: w, Health: drawView(rt, after), Overrides: drawOverrides(rt, after), Memory: memory})
		if res.fault != nil {
			rt.Fatal(res.fault)
		}
		for _, targets := range res.targets {
			for _, target := range targets {
				known := slices.ContainsFunc(after.Pools, func(p Pool) bool {
					return slices.ContainsFunc(p.Targets, func(t Target) bool { return t.String() == target })
				})
				if !known {
					rt.Fatalf("%s is answered, and is no target any more", target)
				}
			}
		}
	})
}
