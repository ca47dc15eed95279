package render

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// UDPOnly is where clients of a zone can't ask over TCP: what does not fit there over UDP has no answer.
type UDPOnly struct {
	Size      int        // the least that a reply may have at one of the locations, in octets
	Locations []Location // those with that size; sorted
}

// udpOnly returns where of the placement's locations TCP is closed; nil: nowhere.
func (h *hierarchy) udpOnly(locations []Location) *UDPOnly {
	var only *UDPOnly
	for _, dc := range h.Datacenters {
		for _, g := range dc.Spec.ServerGroups {
			at := Location{dc.Name, g.Name}
			if g.Transports.TCP != v1alpha1.TransportClosed || !slices.Contains(locations, at) {
				continue
			}
			size := zone.MaxUDP
			if g.MaxUDPSize != nil {
				size = int(*g.MaxUDPSize)
			}
			switch {
			case only == nil || size < only.Size:
				only = &UDPOnly{size, []Location{at}}
			case size == only.Size:
				only.Locations = append(only.Locations, at)
			}
		}
	}
	if only != nil {
		slices.SortFunc(only.Locations, func(a, b Location) int { return cmp.Compare(a.Datacenter, b.Datacenter) })
	}
	return only
}

// Oversized is what of a zone's content does not fit replies of some size.
type Oversized struct {
	Count    int
	Examples []zone.Oversize // the first in canonical order, at most maxOversized
}

const maxOversized = 5

// FindOversized looks at the whole content. Of steered names the most that they may answer counts, as when all targets of a
// pool are down; what flattened ones will be looked up to is not known, and they are left out.
func FindOversized(c *zone.Content, size int) Oversized {
	var found Oversized
	for _, kind := range []iter.Seq[zone.Oversize]{zone.Oversized(c, size), oversizedSteered(c, size)} {
		first := len(found.Examples) + maxOversized
		for o := range kind {
			if found.Count++; len(found.Examples) < first {
				found.Examples = append(found.Examples, o)
			}
		}
	}
	slices.SortStableFunc(found.Examples, func(a, b zone.Oversize) int { return a.Owner.Compare(b.Owner) })
	found.Examples = found.Examples[:min(len(found.Examples), maxOversized)]
	return found
}

// oversizedSteered yields the steered names of which some answer may not fit.
func oversizedSteered(c *zone.Content, size int) iter.Seq[zone.Oversize] {
	return func(yield func(zone.Oversize) bool) {
		for n := range c.All() {
			for rdata := range n.RRset(zone.TypeSteered).All() {
				r, err := steering.Decode(n.Owner, rdata)
				if err != nil || r.Flatten && r.SRV < 0 {
					continue
				}
				typ, octets := r.LargestReply()
				if n.Owner.IsWildcard() { // whose questions may be as long as names can be
					octets += zone.MaxName - len(n.Owner)
				}
				if octets += zone.KeptForOptions; octets > size && !yield(zone.Oversize{Owner: n.Owner, Type: typ, Size: octets}) {
					return
				}
			}
		}
	}
}

// oversized says whether all of the zone can be asked for. Where TCP is open it can.
func (in StatusInputs) oversized(set setCondition, remove func(typ string)) {
	only := in.Placement.UDPOnly
	switch {
	case only == nil || in.Placement.Refused != nil:
		remove(v1alpha1.ConditionOversized)
	case in.Oversized == nil: // not known now: what was found stays
	case in.Oversized.Count == 0:
		set(v1alpha1.ConditionOversized, false, v1alpha1.ReasonFits, fmt.Sprintf("every answer fits into the %d octets of UDP at %s, where TCP is closed", only.Size, namesOf(only.Locations)))
	default:
		var examples []string
		for _, o := range in.Oversized.Examples {
			examples = append(examples, describeOversize(o))
		}
		more := ""
		if in.Oversized.Count > len(examples) {
			more = " and others"
		}
		set(v1alpha1.ConditionOversized, true, v1alpha1.ReasonTooLargeWithoutTCP, fmt.Sprintf(
			"%s not fit into the %d octets of UDP at %s, where TCP is closed: %s%s. Resolvers can't get them: make them smaller, or raise the group's maxUDPSize (up to %d), or open its transports.tcp",
			plural(in.Oversized.Count, "answer does", "answers do"), only.Size, namesOf(only.Locations), strings.Join(examples, ", "), more, zone.MostUDP))
	}
}

func namesOf(locations []Location) string {
	var all []string
	for _, l := range locations {
		all = append(all, l.Datacenter+"/"+l.Group)
	}
	return strings.Join(all, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func describeOversize(o zone.Oversize) string {
	what := fmt.Sprintf("%s %s", inText([]zone.Name{o.Owner}), dns.Type(o.Type))
	if o.Referral {
		what = "the referral to " + inText([]zone.Name{o.Owner})
	}
	if o.Size == 0 {
		return what + " (more than any reply can have)"
	}
	return fmt.Sprintf("%s (%d octets)", what, o.Size)
}
