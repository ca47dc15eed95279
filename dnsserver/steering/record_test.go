package steering

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestNewRecordRefusesWhatIsNoRecord(t *testing.T) {
	calculated := func(parts ...uint32) *steeringpb.Probe {
		return &steeringpb.Probe{Type: &steeringpb.Probe_Calculated{Calculated: &steeringpb.Calculated{AtLeast: 1, Probes: parts}}}
	}
	for sentence, tc := range map[string]struct {
		change func(m *steeringpb.Record)
		want   string
	}{
		"no pools":               {func(m *steeringpb.Record) { m.Pools = nil }, "0 pools, wanted 1 to 16"},
		"an empty pool":          {func(m *steeringpb.Record) { m.Pools[0].Targets = nil }, "pool a has no targets"},
		"two pools of a name":    {func(m *steeringpb.Record) { m.Pools[1].Name = "a" }, "empty or another's"},
		"a pool without a name":  {func(m *steeringpb.Record) { m.Pools[1].Name = "" }, "empty or another's"},
		"addresses and names":    {func(m *steeringpb.Record) { m.Pools[1].Targets[0] = &steeringpb.Target{Name: "x.example."} }, "all addresses or all names"},
		"a target twice":         {func(m *steeringpb.Record) { m.Pools[0].Targets[1] = m.Pools[0].Targets[0] }, "has target 10.1.9.9 twice"},
		"a target that is none":  {func(m *steeringpb.Record) { m.Pools[0].Targets[0] = &steeringpb.Target{} }, "or neither"},
		"an address that is not": {func(m *steeringpb.Record) { m.Pools[0].Targets[0].Address = "10.1.9" }, `"10.1.9" is no address`},
		"an address with a zone": {func(m *steeringpb.Record) { m.Pools[0].Targets[0].Address = "fe80::1%eth0" }, "no address that clients can reach"},
		"the record itself": {func(m *steeringpb.Record) {
			m.Pools = m.Pools[1:]
			m.Pools[0].Targets[0] = &steeringpb.Target{Name: "app.pay.bank."}
		}, "is the record itself"},
		"a probe address that is not": {func(m *steeringpb.Record) { m.Pools[0].Targets[0].ProbeAddress = "x" }, `probe address "x" is none`},
		"a weight that is too high":   {func(m *steeringpb.Record) { m.Pools[0].Targets[0].Weight = 1 << 20 }, "too high"},
		"a pool's weight too":         {func(m *steeringpb.Record) { m.Pools[0].Weight = 1 << 20 }, "is above"},
		"a probe that there is not":   {func(m *steeringpb.Record) { m.Pools[0].Probes = []uint32{1} }, "has probe 1 of 1"},
		"a gate that there is not":    {func(m *steeringpb.Record) { m.Pools[0].Gates = []uint32{7} }, "has probe 7 of 1"},
		"a policy of the future":      {func(m *steeringpb.Record) { m.Policy = 99 }, "policy 99 is not known"},
		"a pool's policy too":         {func(m *steeringpb.Record) { m.Pools[0].Policy = 99 }, "policy 99 is not known"},
		"an action of the future":     {func(m *steeringpb.Record) { m.WhenAllDown = 99 }, "whenAllDown 99 is not known"},
		"a vantage of the future":     {func(m *steeringpb.Record) { m.Probes[0].Vantage = 99 }, "vantage 99 is not known"},
		"a TTL that is too long":      {func(m *steeringpb.Record) { m.Ttl = 1 << 31 }, "is above"},
		"a time that is too long":     {func(m *steeringpb.Record) { m.Rto = 1 << 60 }, "is too long"},
		"a probe's time that is":      {func(m *steeringpb.Record) { m.Probes[0].Timeout = 1 << 60 }, "is too long"},
		"a probe made of itself":      {func(m *steeringpb.Record) { m.Probes = append(m.Probes, calculated(0, 2), calculated(1)) }, "is calculated of itself"},
		"a part that there is not":    {func(m *steeringpb.Record) { m.Probes = append(m.Probes, calculated(9)) }, "is calculated of probe 9 of 2"},
		"a probe made of nothing":     {func(m *steeringpb.Record) { m.Probes = append(m.Probes, calculated()) }, "at least 1 of 0 others"},
		"parts without number":        {bomb, "is calculated of more than 256 others"},
		"a rule without networks":     {func(m *steeringpb.Record) { m.Rules = []*steeringpb.Rule{{Pools: []string{"a"}}} }, "has 0 networks"},
		"a rule without pools":        {func(m *steeringpb.Record) { m.Rules = []*steeringpb.Rule{{Networks: []string{"10.0.0.0/8"}}} }, "names no pool"},
		"a rule for another pool": {func(m *steeringpb.Record) {
			m.Rules = []*steeringpb.Rule{{Networks: []string{"10.0.0.0/8"}, Pools: []string{"x"}}}
		}, `pool "x", which there is not`},
		"a rule for no network": {func(m *steeringpb.Record) {
			m.Rules = []*steeringpb.Rule{{Networks: []string{"10.0.0.1"}, Pools: []string{"a"}}}
		}, "is no network"},
		"no fallback": {func(m *steeringpb.Record) { m.WhenAllDown = steeringpb.AllDown_FALLBACK }, "0 fallbacks"},
		"a fallback of names": {func(m *steeringpb.Record) {
			m.WhenAllDown, m.Fallback = steeringpb.AllDown_FALLBACK, []string{"x.example", "y.example"}
		}, "or one name"},
		"a name beside addresses": {func(m *steeringpb.Record) {
			m.WhenAllDown, m.Fallback = steeringpb.AllDown_FALLBACK, []string{"x.example"}
		}, "can't take turns with addresses"},
		"a service of the future":      {func(m *steeringpb.Record) { m.Services = []*steeringpb.Service{{Kind: 9}} }, "service 0: kind 9"},
		"a service's port":             {func(m *steeringpb.Record) { m.Services = []*steeringpb.Service{{Port: 1 << 16}} }, "port 65536"},
		"an empty protocol":            {func(m *steeringpb.Record) { m.Services = []*steeringpb.Service{{Alpn: []string{""}}} }, "is no protocol"},
		"SRV of no service":            {func(m *steeringpb.Record) { m.SrvLabel = "_x._tcp" }, `no SRV service "_x._tcp"`},
		"addresses with other ports":   {func(m *steeringpb.Record) { m.Services, m.Pools[0].Targets[1].Port = []*steeringpb.Service{{}}, 99 }, "use names as targets"},
		"addresses that are flattened": {func(m *steeringpb.Record) { m.Flatten = true }, "flatten is for targets that are names"},
		"a resolver without a port":    {func(m *steeringpb.Record) { m.Resolvers = []string{"10.0.0.1"} }, "no address with a port"},
		"more targets than there may be": {func(m *steeringpb.Record) {
			for i := range 70 {
				m.Pools[0].Targets = append(m.Pools[0].Targets, &steeringpb.Target{Address: fmt.Sprintf("10.5.0.%d", i)})
			}
		}, "more than 64 targets"},
		"kinds of clients without number": {func(m *steeringpb.Record) {
			for i := range 14 {
				var geo steeringpb.Geo
				for j := range uint32(1 << 14) {
					if j>>i&1 != 0 {
						geo.Asns = append(geo.Asns, j)
					}
				}
				geo.Continents = []string{[]string{"EU", "AF"}[i%2]}
				m.Pools = append(m.Pools, &steeringpb.Pool{Name: fmt.Sprintf("g%d", i), Targets: []*steeringpb.Target{{Address: "10.0.0.1"}}, Geo: &geo})
			}
		}, "kinds of clients apart"},
	} {
		t.Run(sentence, func(t *testing.T) {
			m := message(t, twoPools)
			tc.change(m)
			_, err := NewRecord(parsed(t, "app.pay.bank."), m)
			var fault *RecordError
			if !errors.As(err, &fault) || !strings.Contains(err.Error(), tc.want) || fault.Reason() != "InvalidSpec" {
				t.Errorf("got %v, wanted %s", err, tc.want)
			}
		})
	}
	if _, err := Decode("\x03app\x00", "\xff\xff"); err == nil {
		t.Error("octets that are no message are taken")
	}
}

// bomb makes probes of which each is made of many of the one before.
func bomb(m *steeringpb.Record) {
	for i := range uint32(20) {
		parts := make([]uint32, 64)
		for j := range parts {
			parts[j] = i
		}
		m.Probes = append(m.Probes, &steeringpb.Probe{Type: &steeringpb.Probe_Calculated{Calculated: &steeringpb.Calculated{AtLeast: 1, Probes: parts}}})
	}
}

func TestZoneSettings(t *testing.T) {
	rdata, err := proto.Marshal(&steeringpb.ZoneSettings{EcsTrusted: []string{"10.0.0.53/32", "2001:db8::/64"}})
	if err != nil {
		t.Fatal(err)
	}
	if trusted, err := DecodeZoneSettings(string(rdata)); err != nil || len(trusted) != 2 || trusted[0] != netip.MustParsePrefix("10.0.0.53/32") {
		t.Errorf("got %v, %v", trusted, err)
	}
	for _, bad := range []string{"\xff", "\x0a\x01x"} {
		if _, err := DecodeZoneSettings(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestNewOverrideRefusesWhatIsNoOverride(t *testing.T) {
	for sentence, m := range map[string]*steeringpb.Override{
		"without a source":      {Action: &steeringpb.Override_Freeze{}},
		"without an action":     {Source: "a/b"},
		"a drain of nothing":    {Source: "a/b", Action: &steeringpb.Override_Drain{}},
		"a force of nothing":    {Source: "a/b", Action: &steeringpb.Override_Force{Force: &steeringpb.Force{IgnoreHealth: true}}},
		"a block of nobody":     {Source: "a/b", Action: &steeringpb.Override_Block{}},
		"a block of no network": {Source: "a/b", Action: &steeringpb.Override_Block{Block: &steeringpb.Block{Networks: []string{"x"}}}},
	} {
		if _, err := NewOverride(m); err == nil {
			t.Errorf("%s: no error", sentence)
		}
	}
	document, err := proto.Marshal(&steeringpb.Overrides{Overrides: []*steeringpb.Override{{
		Source: "a/b", Expires: uint64(now.UnixMilli()), Action: &steeringpb.Override_Drain{Drain: &steeringpb.Drain{Target: "2001:DB8:0::9"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := DecodeOverrides(document)
	if err != nil || len(all) != 1 || all[0].Target != "2001:db8::9" || all[0].InForce(now) || !all[0].InForce(now.Add(-time.Second)) || all[0].Concerns("x/y") {
		t.Errorf("got %+v, %v", all, err)
	}
	if _, err := DecodeOverrides([]byte{0xff}); err == nil {
		t.Error("octets that are no message are taken")
	}
}

// FuzzDecode takes any octets for a record. What is one compiles in any state, and the answers parse.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		twoPools, inOrder + "failover Manual", "policy Weighted\npool a weight=3: 10.0.0.1/2\npool b: 2001:db8::1@80\nservice https 443 h2",
		"policy Geo\npool a geo=DE,EU,AS64500: 10.0.0.1\npool b: 10.0.0.2\nrule 10.7.0.0/16 b", "policy Failover\nflatten\npool a: one.example.net/3\nalldown LastGood",
		"policy ClientHash\npool a ClientHash: one.example.net@80 two.example.net\nservice _sip._tcp 5060\nsrv _sip._tcp", twoPools + "alldown Fallback 10.9.9.9",
	} {
		rdata, err := proto.Marshal(message(f, text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(rdata), uint8(3))
	}
	w := threeDatacenters(f)
	geo, err := NewGeoTable(seq(map[string]Country{"10.1.0.0/16": {"DE", "EU"}}), seq(map[string]uint32{"10.2.0.0/16": 64500}), []uint32{64500})
	if err != nil {
		f.Fatal(err)
	}
	owner := parsed(f, "app.pay.bank.")
	f.Fuzz(func(t *testing.T, rdata string, states uint8) {
		r, err := Decode(owner, rdata)
		if err != nil {
			if r != nil {
				t.Error("a record comes with an error")
			}
			return
		}
		v := &health.View{}
		for i := range r.Pools {
			p := health.PoolView{Out: states&64 != 0, Awaiting: states&128 != 0}
			for j := range r.Pools[i].Targets {
				p.Targets = append(p.Targets, health.TargetView{State: health.State((int(states) + i + j) % 4)})
			}
			v.Pools = append(v.Pools, p)
		}
		in := &Inputs{Now: now, World: w, Health: v, Geo: geo, Overrides: overrides(t, "Drain dc-a; Block 10.7.0.0/16")}
		res := Compile(r, in)
		in.Memory = res.Memory
		in.Overrides = overrides(t, "Freeze")
		for _, res := range []*Result{res, Compile(r, in)} {
			if res.fault != nil {
				t.Fatal(res.fault)
			}
			s := serve(t, r, res.Steered)
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeHTTPS, dns.TypeTXT} {
				if m := reply(t, s, "10.7.0.1", qtype); m.Rcode == dns.RcodeNameError {
					t.Error("NXDOMAIN of a name that exists")
				}
			}
			if scope := res.Steered.Scope(netip.MustParseAddr("10.7.0.1")); scope < 0 || scope > 32 {
				t.Errorf("scope %d", scope)
			}
			r.Failover(time.Second)
		}
	})
}
