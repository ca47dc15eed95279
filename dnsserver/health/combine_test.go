package health_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func TestCombineDecidesByPolicy(t *testing.T) {
	const (
		local, anyUp, all, quorum = steeringpb.Vantage_LOCAL, steeringpb.Vantage_ANY, steeringpb.Vantage_ALL, steeringpb.Vantage_QUORUM
		u, d, g, n                = health.Up, health.Down, health.Degraded, health.Unknown
	)
	type votes = []health.State
	tests := map[string]struct {
		policy  steeringpb.Vantage
		votes   votes
		present health.State
		want    health.State
		tied    bool
	}{
		"any is up if one is":                           {anyUp, votes{d, u, d}, d, u, false},
		"any is down if all are":                        {anyUp, votes{d, d}, u, d, false},
		"any is degraded if no other is up":             {anyUp, votes{d, g}, u, g, false},
		"any prefers up to degraded":                    {anyUp, votes{g, u, g}, d, u, false},
		"all is up if all are":                          {all, votes{u, u}, d, u, false},
		"all is down if one is":                         {all, votes{u, d, u}, u, d, false},
		"all is degraded if one is":                     {all, votes{u, g, u}, u, g, false},
		"two of three are a quorum":                     {quorum, votes{d, d, u}, u, d, false},
		"degraded votes for up":                         {quorum, votes{d, g, g}, d, g, false},
		"degraded and up share a side":                  {quorum, votes{d, g, u}, d, u, false},
		"one of two is a tie, which keeps up":           {quorum, votes{u, d}, u, u, true},
		"one of two is a tie, which keeps down":         {quorum, votes{u, d}, d, d, true},
		"two of four is a tie":                          {quorum, votes{u, d, d, g}, g, g, true},
		"a tie keeps even what is not known":            {quorum, votes{u, d}, n, n, true},
		"one alone decides alone":                       {quorum, votes{d}, u, d, false},
		"who does not know does not count":              {quorum, votes{n, d, n}, u, d, false},
		"no vote keeps what is":                         {quorum, votes{n, n}, u, u, false},
		"no vote keeps what is, of any":                 {anyUp, nil, d, d, false},
		"no vote keeps what is, of all":                 {all, votes{n}, g, g, false},
		"of one vote all policies make the same: local": {local, votes{d}, u, d, false},
		"of one vote all policies make the same: any":   {anyUp, votes{g}, u, g, false},
		"of one vote all policies make the same: all":   {all, votes{g}, u, g, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, tied := health.Combine(test.policy, test.votes, test.present)
			if got != test.want || tied != test.tied {
				t.Errorf("got %v, tied %v, want %v, %v", got, tied, test.want, test.tied)
			}
			slices.Reverse(test.votes)
			if again, _ := health.Combine(test.policy, test.votes, test.present); again != got {
				t.Errorf("in another order %v, not %v", again, got)
			}
		})
	}
}

func TestElectorateIsTheTargetsOwnAndItsTwoNearest(t *testing.T) {
	topo := estate(1, false, "dc-a", "dc-b", "dc-c", "dc-d", "dc-w")
	topo.Datacenters[3].Prefer = []string{"dc-w", "dc-z", "dc-b"}
	topo.Datacenters[1].Rank, topo.Datacenters[2].Rank = 2, 1
	tests := map[string]struct {
		stated []string
		home   string
		want   []string
	}{
		"by rank, if it prefers none":              {nil, "dc-a", []string{"dc-a", "dc-c", "dc-b"}},
		"those it prefers, a witness too":          {nil, "dc-d", []string{"dc-d", "dc-w", "dc-b"}},
		"a target in none: the first three":        {nil, "", []string{"dc-a", "dc-c", "dc-b"}},
		"one in an unknown one: the first three":   {nil, "dc-x", []string{"dc-a", "dc-c", "dc-b"}},
		"those that the probe states":              {[]string{"dc-d", "dc-b", "dc-x", "dc-d", "dc-a", "dc-c"}, "dc-a", []string{"dc-d", "dc-b", "dc-a", "dc-c"}},
		"the probe may leave out the target's own": {[]string{"dc-b"}, "dc-a", []string{"dc-b"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := health.Electorate(topo, &steeringpb.Probe{Datacenters: test.stated}, test.home); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	if got := health.Electorate(nil, nil, "dc-a"); len(got) != 0 {
		t.Errorf("without a topology: %v", got)
	}
}

func TestADeathThatNobodyCouldConfirmIsKnown(t *testing.T) {
	hold := func(topo *steeringpb.Topology) *steeringpb.Record {
		r := recordOf(topo, "app", steeringpb.Policy_FAILOVER, &steeringpb.Probe{})
		r.HoldOnPeerLoss = true
		return r
	}
	tests := map[string]struct {
		topo   *steeringpb.Topology
		change func(*steeringpb.Topology, *steeringpb.Record)
		want   string
		blind  string // a datacenter whose votes can't be had
	}{
		"two datacenters":                     {estate(2, false, "dc-a", "dc-b"), nil, "dc-a dc-b", ""},
		"two that have anchors":               {estate(2, true, "dc-a", "dc-b"), nil, "", ""},
		"two and a witness":                   {estate(2, false, "dc-a", "dc-b", "dc-w"), nil, "", ""},
		"a witness that is gone, or isolated": {estate(2, false, "dc-a", "dc-b", "dc-w"), nil, "dc-a dc-b", "dc-w"},
		"three":                               {estate(2, false, "dc-a", "dc-b", "dc-c"), nil, "", ""},
		"three, one of them blind":            {estate(2, false, "dc-a", "dc-b", "dc-c"), nil, "dc-a dc-b", "dc-c"},
		"three, one pool": {estate(2, false, "dc-a", "dc-b", "dc-c"), func(_ *steeringpb.Topology, r *steeringpb.Record) {
			r.Pools = r.Pools[:1]
		}, "", ""},
		"a record that trusts its sight": {estate(2, false, "dc-a", "dc-b"), func(_ *steeringpb.Topology, r *steeringpb.Record) {
			r.HoldOnPeerLoss = false
		}, "", ""},
		"a witness that is not asked": {estate(2, false, "dc-a", "dc-b", "dc-w"), func(_ *steeringpb.Topology, r *steeringpb.Record) {
			r.Probes[0].Datacenters = []string{"dc-a", "dc-b"}
		}, "dc-a dc-b", ""},
		"one of two has no anchors": {estate(2, true, "dc-a", "dc-b"), func(topo *steeringpb.Topology, _ *steeringpb.Record) {
			topo.Datacenters[0].Anchors = nil
		}, "dc-a", ""},
		"a datacenter without servers can't be lost": {estate(2, false, "dc-a", "dc-b"), func(topo *steeringpb.Topology, _ *steeringpb.Record) {
			topo.Datacenters[0].Servers, topo.Datacenters[1].Servers = nil, nil
		}, "", ""},
		"no probes": {estate(2, false, "dc-a", "dc-b"), func(_ *steeringpb.Topology, r *steeringpb.Record) {
			r.Pools[0].Probes, r.Pools[1].Probes = nil, nil
		}, "", ""},
		"by way of a calculated probe": {estate(2, false, "dc-a", "dc-b"), func(_ *steeringpb.Topology, r *steeringpb.Record) {
			r.Probes = []*steeringpb.Probe{calculated(1, 1, 0, 7), {}}
		}, "dc-a dc-b", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := hold(test.topo)
			if test.change != nil {
				test.change(test.topo, r)
			}
			got := strings.Join(health.Unconfirmed(test.topo, r, func(dc string) bool { return dc != test.blind }), " ")
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// calculated is a probe that is up if so many of others are.
func calculated(atLeast uint32, of ...uint32) *steeringpb.Probe {
	return &steeringpb.Probe{Type: &steeringpb.Probe_Calculated{Calculated: &steeringpb.Calculated{AtLeast: atLeast, Probes: of}}}
}

func TestCheckIDIsOfTheProbeAndNotOfItsName(t *testing.T) {
	probe := func(source, path string) *steeringpb.Probe {
		return &steeringpb.Probe{Source: source, Interval: 10_000, Type: &steeringpb.Probe_Http{Http: &steeringpb.Http{Path: path}}}
	}
	id := health.NewCheckID(probe("a/https", "/"), "10.0.0.1")
	if health.NewCheckID(probe("b/other", "/"), "10.0.0.1") != id {
		t.Error("the name of the probe counts")
	}
	if health.NewCheckID(probe("a/https", "/x"), "10.0.0.1") == id || health.NewCheckID(probe("a/https", "/"), "10.0.0.2") == id {
		t.Error("probe and address do not count")
	}
	// All servers of all versions must come to the same.
	if want := "78009aceaf6379182016bc6c4977622b"; id.String() != want {
		t.Errorf("the identity of a check changed from %s to %s: servers of different versions would not vote on the same", want, id)
	}
}
