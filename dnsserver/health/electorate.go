package health

import (
	"cmp"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// defaultVoteTTL is for topologies that state none. Heartbeats are heartbeatsPerTTL in that time.
const (
	defaultVoteTTL   = 5 * time.Second
	heartbeatsPerTTL = 5
)

// minAnchors is how many anchors a datacenter needs to be called isolated: one alone may be dead itself.
const minAnchors = 2

// nearest is how many datacenters besides the target's own vote on it, if the probe does not say.
const nearest = 2

// Electorate returns the datacenters that vote on a probe's targets in the datacenter home: those that the probe states,
// else home and the two nearest to it: those that it prefers, then by rank. If home is none of t's, or empty, the first
// three by rank. The result is in that order, without those that t does not have.
func Electorate(t *steeringpb.Topology, p *steeringpb.Probe, home string) []string {
	byRank := slices.Clone(t.GetDatacenters())
	slices.SortStableFunc(byRank, func(a, b *steeringpb.Datacenter) int {
		return cmp.Or(cmp.Compare(a.GetRank(), b.GetRank()), cmp.Compare(a.GetName(), b.GetName()))
	})
	var names []string
	add := func(name string) {
		known := slices.ContainsFunc(byRank, func(d *steeringpb.Datacenter) bool { return d.GetName() == name })
		if known && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if stated := p.GetDatacenters(); len(stated) > 0 {
		for _, name := range stated {
			add(name)
		}
		return names
	}
	add(home)
	for _, d := range byRank {
		if d.GetName() == home {
			for _, name := range d.GetPrefer() {
				add(name)
			}
		}
	}
	for _, d := range byRank {
		add(d.GetName())
	}
	return names[:min(len(names), 1+nearest)]
}

// Unconfirmed lists, sorted, the datacenters of a record that holds on peer loss whose death nobody could ever confirm to some
// other datacenter: there is no third place that votes and sees anything, and they have no anchors to be asked. sees says
// whether the votes of a datacenter can be had and count. A datacenter without servers can't be lost.
func Unconfirmed(t *steeringpb.Topology, r *steeringpb.Record, sees func(datacenter string) bool) []string {
	if !r.GetHoldOnPeerLoss() || len(r.GetPools()) < 2 {
		return nil
	}
	var homes []string
	for _, p := range r.GetPools() {
		home := datacenter(t, p.GetDatacenter())
		if home == nil || len(home.GetServers()) == 0 || len(home.GetAnchors()) > 0 || slices.Contains(homes, home.GetName()) {
			continue
		}
		alone := func(i uint32) bool {
			return slices.ContainsFunc(leaves(r, i), func(probe *steeringpb.Probe) bool {
				return unconfirmed(t, Electorate(t, probe, home.GetName()), home.GetName(), sees)
			})
		}
		if slices.ContainsFunc(p.GetProbes(), alone) {
			homes = append(homes, home.GetName())
		}
	}
	slices.Sort(homes)
	return homes
}

// unconfirmed reports whether some datacenter that answers has at most its own vote about home, if home is silent.
func unconfirmed(t *steeringpb.Topology, electorate []string, home string, sees func(datacenter string) bool) bool {
	for _, d := range t.GetDatacenters() {
		if d.GetWitness() || d.GetName() == home {
			continue
		}
		places := 1
		for _, name := range electorate {
			if name != home && name != d.GetName() && sees(name) {
				places++
			}
		}
		if places < 2 {
			return true
		}
	}
	return false
}

func datacenter(t *steeringpb.Topology, name string) *steeringpb.Datacenter {
	for _, d := range t.GetDatacenters() {
		if d.GetName() == name {
			return d
		}
	}
	return nil
}

// leaves returns the probes that are run for probe i of r: itself, or those that a Calculated one is made of. Cycles and
// indexes that r does not have add nothing.
func leaves(r *steeringpb.Record, i uint32) []*steeringpb.Probe {
	var found []*steeringpb.Probe
	seen := map[uint32]bool{}
	var visit func(i uint32)
	visit = func(i uint32) {
		if seen[i] || int64(i) >= int64(len(r.GetProbes())) {
			return
		}
		seen[i] = true
		p := r.GetProbes()[i]
		if c := p.GetCalculated(); c != nil {
			for _, j := range c.GetProbes() {
				visit(j)
			}
			return
		}
		found = append(found, p)
	}
	visit(i)
	return found
}

// place is a datacenter as the Machine sees it.
type place struct {
	name    string
	pb      *steeringpb.Datacenter
	servers bool      // has servers by the topology, other than this one
	joined  time.Time // when it got them, for a voteTTL: until then it is not lost; zero: longer ago

	fresh    int       // its servers that are heard, this one too
	whole    bool      // it has such, and all their ballots are known
	isolated bool      // all of those say so
	lost     bool      // it has servers, and none is heard
	back     time.Time // when that ended; zero: it never was
	anchors  bool      // one of its anchors answers from this datacenter, by any of its servers
	here     bool      // one of its anchors answers this server
}
