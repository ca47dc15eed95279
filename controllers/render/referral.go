package render

import (
	"fmt"
	"net/netip"
	"reflect"
	"sync"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// referral is what a question for the NS of a name came to.
type referral struct {
	servers []NameServer
	finding *v1alpha1.Finding // nil: it fits
}

// oversized asks the zone as resolvers do for its own NS and for every delegation to a child
// zone, and reports what does not fit: a resolver would have to come again over TCP, which
// firewalls inside a company often close. Names whose servers are as in prev, which may be
// nil, are not asked again.
func (r *Result) oversized(in Inputs, prev *Result) {
	// A view costs time for all names of the zone, and most changes leave nothing to ask.
	view := sync.OnceValue(func() *zone.View {
		served, err := zone.NewServed(r.Content, zone.Version{Serial: 1, Digest: r.Content.Digest()})
		if err != nil {
			panic(fmt.Sprintf("zone %s: %v", r.settings.apex, err)) // the operator's SOA is always there
		}
		v := new(zone.View)
		v.Update([]*zone.Served{served}, nil)
		return v
	})
	r.referrals = map[zone.Name]referral{}
	ask := func(owner zone.Name, servers []NameServer, what string) {
		if prev != nil {
			known, ok := prev.referrals[owner]
			if ok && reflect.DeepEqual(known.servers, servers) && !prev.covered(owner) && !r.covered(owner) {
				r.referrals[owner] = known
				return
			}
		}
		answer := referral{servers: servers}
		want := 0
		for _, ns := range servers {
			want += len(ns.Addresses)
		}
		if got, fits := askNS(view(), owner); !fits || got < want {
			answer.finding = &v1alpha1.Finding{
				Record: owner.String() + " NS", Reason: v1alpha1.FindingReferralTooLarge,
				Message: fmt.Sprintf("%s does not fit in %d octets with the addresses of all its name servers (%d of %d do): use fewer datacenters, or fewer addresses in their server groups",
					what, zone.MaxUDP, got, want),
			}
		}
		r.referrals[owner] = answer
	}
	ask(r.settings.apex, in.Placement.NameServers, "the answer to a question for the name servers of the zone")
	for _, child := range in.Placement.Children {
		if !child.Frozen {
			ask(child.Child, child.NameServers, "the referral to child zone "+child.Child.String())
		}
	}
}

// covered reports whether a zone cut or a DNAME above the name, or a DNAME at it, decides what is answered.
func (r *Result) covered(owner zone.Name) bool {
	for at := owner; at.Within(r.settings.apex); at = at.Parent() {
		if n := r.Content.Node(at); r.isCut(n) && (at != owner || n.Has(zone.TypeDNAME)) {
			return true
		}
	}
	return false
}

// askNS returns how many addresses come along with the NS of owner, and whether the answer is whole.
func askNS(view *zone.View, owner zone.Name) (addresses int, fits bool) {
	q := new(dns.Msg)
	q.SetQuestion(owner.String(), dns.TypeNS)
	q.SetEdns0(zone.MaxUDP, false)
	wire, err := q.Pack()
	if err != nil {
		return 0, false
	}
	var reply dns.Msg
	if err := reply.Unpack(view.Answer(new(zone.Scratch), make([]byte, zone.MaxUDP), wire, netip.Addr{}, zone.UDP)); err != nil {
		return 0, false
	}
	for _, rr := range reply.Extra {
		if t := rr.Header().Rrtype; t == dns.TypeA || t == dns.TypeAAAA {
			addresses++
		}
	}
	return addresses, !reply.Truncated
}
