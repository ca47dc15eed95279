package render

import (
	"fmt"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// oversized asks the zone as resolvers do for its own NS and for every delegation to a child
// zone, and reports what does not fit: a resolver would have to come again over TCP, which
// firewalls inside a company often close.
func (r *Result) oversized(in Inputs) []v1alpha1.Finding {
	served, err := zone.NewServed(r.Content, zone.Version{Serial: 1, Digest: r.Content.Digest()})
	if err != nil {
		panic(fmt.Sprintf("zone %s: %v", r.settings.apex, err)) // the operator's SOA is always there
	}
	var view zone.View
	view.Update([]*zone.Served{served}, nil)
	var findings []v1alpha1.Finding
	ask := func(owner zone.Name, servers []NameServer, what string) {
		want := 0
		for _, ns := range servers {
			want += len(ns.Addresses)
		}
		if got, fits := askNS(&view, owner); !fits || got < want {
			findings = append(findings, v1alpha1.Finding{
				Record: owner.String() + " NS", Reason: v1alpha1.FindingReferralTooLarge,
				Message: fmt.Sprintf("%s does not fit in %d octets with the addresses of all its name servers (%d of %d do): use fewer datacenters, or fewer addresses in their server groups",
					what, zone.MaxUDP, got, want),
			})
		}
	}
	ask(r.settings.apex, in.Placement.NameServers, "the answer to a question for the name servers of the zone")
	for _, child := range in.Placement.Children {
		if !child.Frozen {
			ask(child.Child, child.NameServers, "the referral to child zone "+child.Child.String())
		}
	}
	return findings
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
