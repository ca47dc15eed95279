package steering

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// The tests tell of records, health and overrides in a language of their own.

// now is when the tests take place.
var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// number returns the value that a protobuf enum has for a name, written as in the API or the protocol.
func number(t testing.TB, values map[string]int32, name, prefix string) int32 {
	t.Helper()
	canonical := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "_", "")) }
	for known, v := range values {
		if canonical(known) == canonical(prefix+name) {
			return v
		}
	}
	t.Fatalf("there is no %q in %v", name, values)
	return 0
}

// message reads a record, one statement a line:
//
//	policy Nearest
//	ttl 60 (or 5..60, derived)
//	pool NAME [DATACENTER] [RoundRobin|Weighted|ClientHash|Failover] [weight=N] [min=N] [max=N] [geo=DE,EU,AS64500]: TARGET[/WEIGHT][@PORT] ...
//	rule NETWORK,... POOL,...
//	alldown LastGood (or Fallback ADDRESS ...)
//	service https|LABEL PORT [ALPN,...]
//	failover Manual, failback Manual, flatten, hysteresis N, srv LABEL
//
// Every pool has one probe.
func message(t testing.TB, text string) *steeringpb.Record {
	t.Helper()
	m := &steeringpb.Record{
		Source: "payments/app", Ttl: 60, Host: "app.pay.bank.",
		Probes: []*steeringpb.Probe{{Source: "payments/tcp", Interval: 10000, Timeout: 2000, FailureThreshold: 3, Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: 443}}}},
	}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "policy":
			m.Policy = steeringpb.Policy(number(t, steeringpb.Policy_value, words[1], ""))
		case "ttl":
			least, most, derived := strings.Cut(words[1], "..")
			if !derived {
				most = least
			}
			m.Ttl = uint32(integer(t, most))
			if derived {
				m.TtlMin = uint32(integer(t, least))
			}
		case "pool":
			m.Pools = append(m.Pools, poolOf(t, strings.TrimPrefix(strings.TrimSpace(line), "pool ")))
		case "rule":
			m.Rules = append(m.Rules, &steeringpb.Rule{Networks: strings.Split(words[1], ","), Pools: strings.Split(words[2], ",")})
		case "alldown":
			m.WhenAllDown = steeringpb.AllDown(number(t, steeringpb.AllDown_value, words[1], ""))
			m.Fallback = words[2:]
		case "service":
			s := &steeringpb.Service{Port: uint32(integer(t, words[2]))}
			if words[1] != "https" {
				s.Kind, s.Label = steeringpb.Service_SRV, words[1]
			}
			if len(words) > 3 {
				s.Alpn = strings.Split(words[3], ",")
			}
			m.Services = append(m.Services, s)
		case "failover":
			m.FailoverManual = words[1] == "Manual"
		case "failback":
			m.FailbackManual = words[1] == "Manual"
		case "flatten":
			m.Flatten, m.Resolvers = true, []string{"192.0.2.53:53"}
		case "hysteresis":
			m.Latency = &steeringpb.Latency{HysteresisPercent: uint32(integer(t, words[1]))}
		case "srv":
			m.SrvLabel = words[1]
		default:
			t.Fatalf("no statement: %s", line)
		}
	}
	return m
}

func integer(t testing.TB, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func poolOf(t testing.TB, text string) *steeringpb.Pool {
	t.Helper()
	head, targets, ok := strings.Cut(text, ": ")
	if !ok {
		t.Fatalf("no pool: %s", text)
	}
	words := strings.Fields(head)
	p := &steeringpb.Pool{Name: words[0], Weight: 1, MinHealthy: 1, Probes: []uint32{0}}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "RoundRobin", "Weighted", "ClientHash", "Failover":
			p.Policy = steeringpb.PoolPolicy(number(t, steeringpb.PoolPolicy_value, key, "POOL_"))
		case "weight":
			p.Weight = uint32(integer(t, value))
		case "min":
			p.MinHealthy = uint32(integer(t, value))
		case "max":
			p.MaxAnswers = uint32(integer(t, value))
		case "geo":
			p.Geo = &steeringpb.Geo{}
			for g := range strings.SplitSeq(value, ",") {
				if asn, ok := strings.CutPrefix(g, "AS"); ok && asn != "" {
					p.Geo.Asns = append(p.Geo.Asns, uint32(integer(t, asn)))
				} else if slices.Contains([]string{"AF", "AN", "AS", "EU", "NA", "OC", "SA"}, g) {
					p.Geo.Continents = append(p.Geo.Continents, g)
				} else {
					p.Geo.Countries = append(p.Geo.Countries, g)
				}
			}
		default:
			p.Datacenter = word
		}
	}
	for word := range strings.FieldsSeq(targets) {
		target := &steeringpb.Target{Weight: 1}
		word, port, hasPort := strings.Cut(word, "@")
		if hasPort {
			target.Port = uint32(integer(t, port))
		}
		word, weight, hasWeight := strings.Cut(word, "/")
		if hasWeight {
			target.Weight = uint32(integer(t, weight))
		}
		if _, err := netip.ParseAddr(word); err == nil {
			target.Address = word
		} else {
			target.Name = word + "."
		}
		p.Targets = append(p.Targets, target)
	}
	return p
}

func record(t testing.TB, text string) *Record {
	t.Helper()
	m := message(t, text)
	owner := parsed(t, m.Host)
	if m.SrvLabel != "" {
		owner = parsed(t, m.SrvLabel+"."+m.Host)
	}
	r, err := NewRecord(owner, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parsed(t testing.TB, name string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(name, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// view reads the health of a record's pools, each as "NAME: STATE ... [WORD ...]": a state is up, down,
// degraded or unknown, a word out, awaiting, gated or held. A pool that is not named is up.
func view(t testing.TB, r *Record, text string) *health.View {
	t.Helper()
	v := &health.View{}
	for i := range r.Pools {
		p := health.PoolView{}
		for range r.Pools[i].Targets {
			p.Targets = append(p.Targets, health.TargetView{State: health.Up, FlipIn: time.Hour})
		}
		v.Pools = append(v.Pools, p)
	}
	for part := range strings.SplitSeq(text, ",") {
		name, words, ok := strings.Cut(strings.TrimSpace(part), ":")
		if !ok {
			continue
		}
		i := r.poolIndex(name)
		if i < 0 {
			t.Fatalf("there is no pool %s", name)
		}
		p := &v.Pools[i]
		target := 0
		for word := range strings.FieldsSeq(words) {
			switch word {
			case "out":
				p.Out = true
			case "awaiting":
				p.Awaiting = true
			case "gated":
				p.Gated = true
			case "held":
				for j := range p.Targets {
					p.Targets[j].Held = true
				}
			default:
				state := slices.IndexFunc([]string{"unknown", "up", "degraded", "down"}, func(s string) bool { return s == word })
				if state < 0 {
					t.Fatalf("no state: %s", word)
				}
				p.Targets[target].State = health.State(state)
				target++
			}
		}
		for ; target > 0 && target < len(p.Targets); target++ {
			p.Targets[target].State = p.Targets[target-1].State // the last goes for the rest
		}
	}
	return v
}

// override reads "Drain dc-b|pool=P|target=T [keep=N] [narrow] [age=N]", "Force ... [ignore]", "Freeze", "Failback", "RaiseTTL N" or
// "Block NETWORK,...". The n-th has the source o-N. narrow is for the record alone, age in seconds.
func override(t testing.TB, n int, text string) *Override {
	t.Helper()
	words := strings.Fields(text)
	m := &steeringpb.Override{
		Source: fmt.Sprintf("ops/o-%d", n), AllRecords: true, KeepAtLeast: 1,
		Created: uint64(now.UnixMilli()), Expires: uint64(now.Add(time.Hour).UnixMilli()),
	}
	var datacenter, pool, target string
	ignore := false
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "pool":
			pool = value
		case "target":
			target = value
		case "keep":
			m.KeepAtLeast = uint32(integer(t, value))
		case "narrow":
			m.AllRecords, m.Records = false, []string{"payments/app"}
		case "other":
			m.AllRecords, m.Records = false, []string{"payments/other"}
		case "age":
			m.Created -= uint64(1000 * integer(t, value))
		case "expired":
			m.Expires = uint64(now.UnixMilli())
		case "ignore":
			ignore = true
		default:
			datacenter = word
		}
	}
	switch words[0] {
	case "Drain":
		m.Action = &steeringpb.Override_Drain{Drain: &steeringpb.Drain{Datacenter: datacenter, Pool: pool, Target: target}}
	case "Force":
		m.Action = &steeringpb.Override_Force{Force: &steeringpb.Force{Datacenter: datacenter, Pool: pool, Target: target, IgnoreHealth: ignore}}
	case "Freeze":
		m.Action = &steeringpb.Override_Freeze{Freeze: &steeringpb.Freeze{}}
	case "Failback":
		m.Action = &steeringpb.Override_Failback{Failback: &steeringpb.Failback{}}
	case "RaiseTTL":
		m.Action = &steeringpb.Override_RaiseTtl{RaiseTtl: &steeringpb.RaiseTTL{Ttl: uint32(integer(t, words[1]))}}
	case "Block":
		m.Action = &steeringpb.Override_Block{Block: &steeringpb.Block{Networks: strings.Split(words[1], ",")}}
	}
	o, err := NewOverride(m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func overrides(t testing.TB, text string) []*Override {
	t.Helper()
	var all []*Override
	for i, part := range strings.Split(text, ";") {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, override(t, i+1, part))
		}
	}
	return all
}

// threeDatacenters is dc-a, which prefers dc-c, dc-b and dc-c, by rank.
func threeDatacenters(t testing.TB) *World {
	t.Helper()
	w, err := NewWorld(&steeringpb.Topology{Key: []byte("key"), Datacenters: []*steeringpb.Datacenter{
		{Name: "dc-a", Rank: 0, Networks: []string{"10.1.0.0/16", "2001:db8:1::/48"}, Prefer: []string{"dc-c"}},
		{Name: "dc-b", Rank: 1, Networks: []string{"10.2.0.0/16"}},
		{Name: "dc-c", Rank: 2, Networks: []string{"10.3.0.0/16"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// server answers for one compiled record.
type server struct {
	view    *zone.View
	scratch zone.Scratch
	owner   zone.Name
}

func serve(t testing.TB, r *Record, st *zone.Steered) *server {
	t.Helper()
	apex := parsed(t, "bank.")
	soa := zone.SOA{MName: apex, RName: apex, Minimum: 300}
	content, err := zone.NewContent(apex, []zone.Node{
		zone.NewNode(apex, zone.NewRRset(zone.TypeSOA, 300, soa.Pack())),
		zone.NewNode(r.Owner, zone.NewRRset(zone.TypeSteered, 0, []byte("x"))),
	})
	if err != nil {
		t.Fatal(err)
	}
	z, err := zone.NewServed(content, zone.Version{Serial: 1, Digest: content.Digest()})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{view: &zone.View{}, owner: r.Owner}
	s.view.Update([]*zone.Served{z}, nil)
	if !s.view.SetSteered(apex, r.Owner, st) {
		t.Fatal("the owner is not steered")
	}
	s.scratch.Now = now.Unix()
	return s
}

// ask answers "CLIENT [TYPE]" with the rdata in order, or why there is none.
func (s *server) ask(t testing.TB, question string) string {
	t.Helper()
	words := strings.Fields(question)
	qtype := dns.TypeA
	if len(words) > 1 {
		qtype = dns.StringToType[words[1]]
	}
	q := &dns.Msg{}
	q.SetQuestion(s.owner.String(), qtype)
	q.SetEdns0(1232, false)
	packed, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var m dns.Msg
	if err := m.Unpack(s.view.Answer(&s.scratch, make([]byte, 0, zone.MaxMessage), packed, netip.MustParseAddr(words[0]), zone.UDP)); err != nil {
		t.Fatal(err)
	}
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode]
	}
	if len(m.Answer) == 0 {
		return "nodata"
	}
	var all []string
	for _, rr := range m.Answer {
		all = append(all, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// ttl is what the first record of an answer has.
func (s *server) ttl(t testing.TB, client string) uint32 {
	t.Helper()
	q := &dns.Msg{}
	q.SetQuestion(s.owner.String(), dns.TypeA)
	packed, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var m dns.Msg
	if err := m.Unpack(s.view.Answer(&s.scratch, make([]byte, 0, zone.MaxMessage), packed, netip.MustParseAddr(client), zone.UDP)); err != nil {
		t.Fatal(err)
	}
	return slices.Concat(m.Answer, m.Ns)[0].Header().Ttl
}

// describe writes what clients get as "PLACE: POOLS WHY", those without a rule first.
func describe(s *Summary) string {
	var all []string
	for _, c := range s.Clients {
		where := cmp.Or(c.Location, "-")
		if c.Rule >= 0 {
			where = fmt.Sprintf("rule %d %s", c.Rule, where)
		}
		line := fmt.Sprintf("%s: %s %s", where, cmp.Or(strings.Join(c.Pools, "+"), "-"), c.Why)
		if c.Awaiting != "" {
			line += " -> " + c.Awaiting
		}
		all = append(all, line)
	}
	return strings.Join(all, ", ")
}
