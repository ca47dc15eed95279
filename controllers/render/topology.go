package render

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// TopologyInputs is all that servers are told of each other.
type TopologyInputs struct {
	Datacenters []*v1alpha1.Datacenter // all, in any order
	// Connected are the servers with a stream to the hub. Others are taken from the statuses: one that the hub does not
	// see goes on voting.
	Connected []TopologyServer
	// Voting are the names of the server groups that serve zones with steered names. Servers of other groups are told of
	// nobody, and nobody of them: they have no say. Those of a Witness are told of in any case. Nil: all have.
	Voting    map[string]bool
	Key       []byte       // shared by all servers
	APIServer []netip.Addr // addresses of the API server, as far as known
}

// TopologyServer is one server and where its peers reach it, HOST:PORT; "" if that is not known.
type TopologyServer struct{ Datacenter, Group, Name, Peer string }

// voteTTL is how long a vote counts that was not renewed, in milliseconds.
const voteTTL = 5000

// Topology is what every server of every datacenter is told of the others.
func Topology(in TopologyInputs) *steeringpb.Topology {
	ranked := slices.Clone(in.Datacenters)
	slices.SortFunc(ranked, func(a, b *v1alpha1.Datacenter) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
	})
	t := &steeringpb.Topology{Key: in.Key, VoteTtl: voteTTL}
	for i, dc := range ranked {
		d := &steeringpb.Datacenter{
			Name: dc.Name, Rank: uint32(i), Witness: dc.Spec.Role == v1alpha1.DatacenterRoleWitness,
			Networks: texts(dc.Spec.Networks), Prefer: texts(dc.Spec.Prefer), Anchors: texts(dc.Spec.Anchors), Servers: in.servers(dc),
		}
		if stated := dc.Spec.Probes.DeniedNetworks; stated != nil {
			d.DeniedNetworks = texts(*stated)
		} else {
			d.DefaultDenied, d.DeniedNetworks = true, in.denied(dc)
		}
		t.Datacenters = append(t.Datacenters, d)
	}
	slices.SortFunc(t.Datacenters, func(a, b *steeringpb.Datacenter) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return t
}

func texts[T ~string](list []T) []string {
	var all []string
	for _, t := range list {
		all = append(all, string(t))
	}
	return all
}

// servers lists those of a datacenter's groups that vote, by group and name.
func (in TopologyInputs) servers(dc *v1alpha1.Datacenter) []*steeringpb.Server {
	declared := map[string]bool{}
	for _, g := range dc.Spec.ServerGroups {
		declared[g.Name] = in.Voting == nil || in.Voting[g.Name] || dc.Spec.Role == v1alpha1.DatacenterRoleWitness
	}
	var servers []*steeringpb.Server
	add := func(group, name, peer string) {
		known := slices.ContainsFunc(servers, func(s *steeringpb.Server) bool { return s.GetGroup() == group && s.GetName() == name })
		if declared[group] && !known {
			servers = append(servers, &steeringpb.Server{Group: group, Name: name, Mesh: peer})
		}
	}
	for _, s := range in.Connected {
		if s.Datacenter == dc.Name {
			add(s.Group, s.Name, s.Peer)
		}
	}
	for _, s := range dc.Status.Servers {
		add(s.Group, s.Name, s.PeerAddress)
	}
	slices.SortFunc(servers, func(a, b *steeringpb.Server) int {
		return cmp.Or(cmp.Compare(a.GetGroup(), b.GetGroup()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return servers
}

// denied are the addresses that probes must not reach if the Datacenter does not state networks: what is denied
// everywhere the servers know by themselves.
func (in TopologyInputs) denied(dc *v1alpha1.Datacenter) []string {
	addresses := slices.Clone(in.APIServer)
	for _, g := range dc.Spec.ServerGroups {
		for _, text := range WithAddresses(dc, g).Addresses {
			if a, err := netip.ParseAddr(string(text)); err == nil {
				addresses = append(addresses, a.Unmap())
			}
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	var all []string
	for _, a := range slices.Compact(addresses) {
		all = append(all, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return all
}
