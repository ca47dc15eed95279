package render

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// SplitRisk says why nothing could tell a dead datacenter from a cut link for a record that holds in doubt; "" if
// something can, or the record does not hold. sees says whether a datacenter's votes can be had and count: a witness that is
// gone, or cut off itself, confirms nothing.
func SplitRisk(r *steeringpb.Record, datacenters []v1alpha1.Datacenter, sees func(datacenter string) bool) string {
	if !r.GetHoldOnPeerLoss() {
		return ""
	}
	in := TopologyInputs{Datacenters: make([]*v1alpha1.Datacenter, len(datacenters))}
	witness := "there is no Witness"
	for i := range datacenters {
		dc := &datacenters[i]
		in.Datacenters[i] = dc
		for _, g := range dc.Spec.ServerGroups { // declared is enough: what is lost was there
			in.Connected = append(in.Connected, TopologyServer{Datacenter: dc.Name, Group: g.Name})
		}
		if dc.Spec.Role == v1alpha1.DatacenterRoleWitness {
			witness = "no Witness that votes on the targets can be heard and sees them"
		}
	}
	without := health.Unconfirmed(Topology(in), r, sees)
	if len(without) == 0 {
		return ""
	}
	return fmt.Sprintf("onPeerLoss is Hold, %s, and no anchors are given for %s: if such a datacenter falls silent, nothing tells its death from a cut link, and answers stay until a person forces them",
		witness, strings.Join(without, ", "))
}

// reckon is what a record's failover is worked out from; false if nothing probes it, or SteerZone has refused it.
func reckon(r *steeringpb.Record, owner zone.Name, clients v1alpha1.ClientCache) (steering.Failover, bool) {
	record, err := steering.NewRecord(owner, r)
	if err != nil {
		return steering.Failover{}, false
	}
	f, probed := record.Failover(steering.DefaultVoteTTL)
	if clients != "" {
		f.Flush = steering.FlushTime
	}
	if clients != "" && clients != v1alpha1.ClientCacheNone {
		if f.ClientCache, err = v1alpha1.Duration(clients).Parse(); err != nil { // the API server has checked it
			f.Flush = 0
		}
	}
	return f, probed
}

// RecordFailover works out how long a record may take to move off a dead target, at most; nil if nothing probes it.
// lowest is the zone's least TTL, and clients what the record says that they keep.
func RecordFailover(r *steeringpb.Record, owner zone.Name, lowest time.Duration, clients v1alpha1.ClientCache) *Failover {
	f, probed := reckon(r, owner, clients)
	if !probed {
		return nil
	}
	out := &Failover{Worst: f.Worst(), Sum: f.String(), Feasible: true}
	if rto := time.Duration(r.GetRto()) * time.Millisecond; rto > 0 {
		out.Feasible, out.Sum = f.Meets(rto), f.Explain(rto, lowest)
		if f.Flush > 0 {
			out.Sum += "; that is for clients of ResolverPools that keep no more than objectives.clientCache says"
		}
	}
	return out
}

// refuseIdle takes from a record's probes the idle intervals that break its objective where without them it is met, and
// returns the names of these probes.
func refuseIdle(r *steeringpb.Record, owner zone.Name, clients v1alpha1.ClientCache) []string {
	rto := time.Duration(r.GetRto()) * time.Millisecond
	if rto == 0 || !slices.ContainsFunc(r.GetProbes(), func(p *steeringpb.Probe) bool { return p.GetIdleInterval() > 0 }) {
		return nil
	}
	idle := make([]uint64, len(r.Probes))
	for i, p := range r.Probes {
		idle[i], p.IdleInterval = p.IdleInterval, 0
	}
	meets := func() bool {
		f, probed := reckon(r, owner, clients)
		return !probed || f.Meets(rto)
	}
	met := meets()
	var refused []string
	for i, p := range r.Probes {
		if p.IdleInterval = idle[i]; idle[i] > 0 && met && !meets() {
			p.IdleInterval = 0
			_, name, _ := strings.Cut(p.GetSource(), "/")
			refused = append(refused, name)
		}
	}
	return refused
}
