package steering

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func TestStates(t *testing.T) {
	type decided struct {
		record, health, overrides string
		change                    func(*Record, *Inputs)
	}
	state := func(t *testing.T, d decided) uint64 {
		t.Helper()
		r := record(t, d.record)
		in := &Inputs{Now: now, World: threeDatacenters(t), Health: view(t, r, d.health), Overrides: overrides(t, d.overrides)}
		if d.change != nil {
			d.change(r, in)
		}
		res := Compile(r, in)
		if res.fault != nil {
			t.Fatal(res.fault)
		}
		if res.Memory.State != res.Steered.State() {
			t.Error("what is remembered is not what is told")
		}
		return res.Steered.State()
	}
	resolved := func(addresses ...string) func(*Record, *Inputs) {
		return func(_ *Record, in *Inputs) {
			in.Resolved = func(zone.Name) (all []netip.Addr, ttl uint32, ok bool) {
				for _, a := range addresses {
					all = append(all, netip.MustParseAddr(a))
				}
				return all, 20, true
			}
		}
	}
	good := func(r *Record, in *Inputs) {
		in.Memory = Compile(r, &Inputs{Now: now, World: in.World}).Memory
	}
	const flattened = "policy Failover\nflatten\npool a: one.example.net"
	for sentence, tc := range map[string]struct {
		a, b decided
		same bool
	}{
		"the same is decided at another time":       {decided{record: twoPools}, decided{record: twoPools, change: func(_ *Record, in *Inputs) { in.Now = in.Now.Add(time.Hour) }}, true},
		"the TTL is another":                        {decided{record: twoPools}, decided{record: twoPools, change: func(r *Record, _ *Inputs) { r.TTL, r.LeastTTL = 5, 5 }}, true},
		"a pool that is not answered goes down":     {decided{record: inOrder}, decided{record: inOrder, health: "b: down"}, true},
		"a target fails that another answers for":   {decided{record: "policy Nearest\npool a dc-a Failover: 10.1.9.9 10.1.9.10"}, decided{record: "policy Nearest\npool a dc-a Failover: 10.1.9.9 10.1.9.10", health: "a: up down"}, true},
		"the answers are the last good ones":        {decided{record: twoPools + "alldown LastGood", change: good}, decided{record: twoPools + "alldown LastGood", health: "a: down, b: down", change: good}, true},
		"flattened names have other addresses":      {decided{record: flattened, change: resolved("192.0.2.1")}, decided{record: flattened, change: resolved("192.0.2.2", "2001:db8::2")}, true},
		"a drain does what health did":              {decided{record: twoPools, health: "a: down"}, decided{record: twoPools, overrides: "Drain dc-a"}, true},
		"a pool has another name":                   {decided{record: "policy Failover\npool a: 10.1.9.9"}, decided{record: "policy Failover\npool x: 10.1.9.9"}, true},
		"a target goes down":                        {decided{record: twoPools}, decided{record: twoPools, health: "a: up down"}, false},
		"a pool goes down":                          {decided{record: twoPools}, decided{record: twoPools, health: "a: down"}, false},
		"some clients are given something else":     {decided{record: twoPools}, decided{record: twoPools, health: "b: down"}, false},
		"all goes down and is a failure":            {decided{record: twoPools + "alldown ServFail"}, decided{record: twoPools + "alldown ServFail", health: "a: down, b: down"}, false},
		"no data is no failure":                     {decided{record: twoPools + "alldown NoData", health: "a: down, b: down"}, decided{record: twoPools + "alldown ServFail", health: "a: down, b: down"}, false},
		"a weight is another":                       {decided{record: "policy Weighted\npool a weight=1: 10.1.9.9\npool b weight=1: 10.1.9.10"}, decided{record: "policy Weighted\npool a weight=2: 10.1.9.9\npool b weight=1: 10.1.9.10"}, false},
		"a rule is for other clients":               {decided{record: twoPools + "rule 10.1.7.0/24 b"}, decided{record: twoPools + "rule 10.1.8.0/24 b"}, false},
		"other clients are blocked":                 {decided{record: twoPools, overrides: "Block 10.1.7.0/24"}, decided{record: twoPools, overrides: "Block 10.1.8.0/24"}, false},
		"a datacenter has other clients":            {decided{record: twoPools}, decided{record: twoPools, change: otherNetworks(t)}, false},
		"which does not matter to who has no place": {decided{record: inOrder}, decided{record: inOrder, change: otherNetworks(t)}, true},
		"an alias leads elsewhere":                  {decided{record: "policy Failover\npool a: one.example.net\npool b: two.example.net"}, decided{record: "policy Failover\npool a: one.example.net\npool b: two.example.net", health: "a: down"}, false},
		"flattened names are others":                {decided{record: flattened, change: resolved("192.0.2.1")}, decided{record: "policy Failover\nflatten\npool a: two.example.net", change: resolved("192.0.2.1")}, false},
		"the protocols of HTTPS are others":         {decided{record: twoPools + "service https 443 h2"}, decided{record: twoPools + "service https 443 h3"}, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			if a, b := state(t, tc.a), state(t, tc.b); (a == b) != tc.same {
				t.Errorf("states %d and %d, wanted the same: %t", a, b, tc.same)
			}
		})
	}
	// Servers of one version after another tell agents the same.
	if got, want := state(t, decided{record: twoPools + "rule 10.1.7.0/24 b"}), uint64(17260570794896108930); got != want {
		t.Errorf("the state of a certain decision is %d, was %d", got, want)
	}
}

// otherNetworks gives what was dc-a's clients to dc-b.
func otherNetworks(t *testing.T) func(*Record, *Inputs) {
	t.Helper()
	return func(_ *Record, in *Inputs) {
		m := &steeringpb.Topology{}
		for i, dc := range in.World.Datacenters() {
			pb := &steeringpb.Datacenter{Name: dc.Name, Rank: uint32(i)}
			for _, n := range in.World.Datacenters()[(i+1)%3].Networks {
				pb.Networks = append(pb.Networks, n.String())
			}
			m.Datacenters = append(m.Datacenters, pb)
		}
		var err error
		if in.World, err = NewWorld(m); err != nil {
			t.Fatal(err)
		}
	}
}
