package render

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// MaxNameServers bounds the NS RRset of a zone: with 13 of them a priming answer still fits
// where the root's own does (RFC 8109 §4.2).
const MaxNameServers = 13

// Estate is all that decides which zones are served where, and who delegates to whom.
type Estate struct {
	Zones       []*v1alpha1.DNSZone
	Datacenters []*v1alpha1.Datacenter
	// NamespaceLabels has the labels of every namespace that holds a zone.
	NamespaceLabels map[string]map[string]string
	// ApexNamespaces are the namespaces whose zones need no parent in the system.
	ApexNamespaces []string
	// Incumbents says whose zone the servers hold, by zone name, from what they report.
	// It goes before what statuses say: those may be lost or restored from a backup.
	Incumbents map[zone.Name]types.NamespacedName
}

// Location is one server group of one datacenter.
type Location struct{ Datacenter, Group string }

// NameServer is one NS of a zone: the servers of one datacenter's group under one name.
type NameServer struct {
	Datacenter string
	Host       zone.Name // ns-DATACENTER.ZONE
	// Addresses are sorted. None: it is not known which there are, or none has answered yet; those that are published stay.
	Addresses []netip.Addr
}

// Delegation is what a parent says of one child zone.
type Delegation struct {
	Child       zone.Name
	Source      types.NamespacedName
	NameServers []NameServer
	// Frozen: the child's spec is wrong at present; what the parent has published of it stays.
	Frozen bool
}

// Placement is what the hierarchy decides about one DNSZone.
type Placement struct {
	Apex zone.Name
	// Refused says why the zone is not accepted; nil when it is.
	Refused Refusal
	// Keep: the zone is refused for its own spec, or for want of a parent, and not by others; so
	// servers keep what they have of it.
	Keep bool
	// Parent is the zone that delegates to this one; zero for an apex of the estate.
	Parent types.NamespacedName
	// ParentApex is the parent's name, "" for an apex of the estate.
	ParentApex zone.Name
	Locations  []Location // where it is served; sorted
	// Witnesses are where votes on its steered names are cast besides, by servers that hold it and answer nothing; sorted.
	Witnesses   []Location
	NameServers []NameServer // by rank of the datacenter, then name; at most MaxNameServers
	// UDPOnly is where the zone's servers take nothing over TCP; nil: nowhere.
	UDPOnly *UDPOnly
	// Unnamed are datacenters that serve the zone but have no place in the NS RRset any more.
	Unnamed  []string
	Children []Delegation // sorted by name
}

// Refusal is why something is not accepted; Reason is the condition's reason.
type Refusal interface {
	error
	Reason() string
}

type refusal struct{ reason, message string }

func (r refusal) Error() string  { return r.message }
func (r refusal) Reason() string { return r.reason }

// Refuse makes a Refusal.
func Refuse(reason, format string, args ...any) Refusal { return refuse(reason, format, args...) }

func refuse(reason, format string, args ...any) Refusal {
	return refusal{reason, fmt.Sprintf(format, args...)}
}

// claim is one DNSZone on its way through the hierarchy.
type claim struct {
	*Placement
	object    *v1alpha1.DNSZone
	key       types.NamespacedName
	incumbent bool
	granted   bool
	// fault is what is wrong with the zone's own spec or its server group.
	fault   Refusal
	foreign bool // the fault is a grant that others withhold
}

// Hierarchy decides about every zone of the estate. It is total: each zone gets a placement.
//
// Names are decided from the root down, since a grant counts only from an accepted parent.
// Of several claims to one name, one with a valid grant goes before one without, then the
// incumbent, then one without a fault of its own, then the older, then the lower namespace/name.
func Hierarchy(e Estate) map[types.NamespacedName]*Placement {
	h := hierarchy{Estate: e, accepted: map[zone.Name]*claim{}, byName: map[zone.Name][]*claim{}}
	placements := make(map[types.NamespacedName]*Placement, len(e.Zones))
	for _, z := range e.Zones {
		c := h.claim(z)
		placements[c.key] = c.Placement
		if c.Apex != "" {
			h.byName[c.Apex] = append(h.byName[c.Apex], c)
		}
	}
	names := make([]zone.Name, 0, len(h.byName))
	for n := range h.byName {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b zone.Name) int {
		return cmp.Or(cmp.Compare(a.Labels(), b.Labels()), a.Compare(b))
	})
	h.findGuests(names)
	for _, n := range names {
		h.decide(n)
	}
	for _, n := range names {
		if c := h.accepted[n]; c != nil && c.ParentApex != "" {
			parent := h.accepted[c.ParentApex]
			parent.Children = append(parent.Children, Delegation{Child: n, Source: c.key, NameServers: c.NameServers, Frozen: c.Keep})
		}
	}
	for _, p := range placements {
		slices.SortFunc(p.Children, func(a, b Delegation) int { return a.Child.Compare(b.Child) })
	}
	return placements
}

type hierarchy struct {
	Estate
	byName map[zone.Name][]*claim
	// accepted holds the winner of each name decided so far, also one that is kept for a fault of its own.
	accepted map[zone.Name]*claim
	// guests holds, by name, the incumbents that lie directly below it.
	guests map[zone.Name][]*claim
}

func (h *hierarchy) claim(z *v1alpha1.DNSZone) *claim {
	c := &claim{Placement: &Placement{}, object: z, key: types.NamespacedName{Namespace: z.Namespace, Name: z.Name}}
	apex, err := zone.ParseName(z.Spec.Name, "")
	if err != nil {
		c.Refused = refuse(v1alpha1.ReasonInvalidSpec, "spec.name: %v", err)
		return c
	}
	c.Apex = apex
	if holder, known := h.Incumbents[apex]; known {
		c.incumbent = holder == c.key
	} else {
		c.incumbent = z.Status.Published != nil && !withdrawn(z)
	}
	h.place(c)
	return c
}

// withdrawn reports whether the zone's status says that it was taken from servers, since
// others withheld what it needs.
func withdrawn(z *v1alpha1.DNSZone) bool {
	c := meta.FindStatusCondition(z.Status.Conditions, v1alpha1.ConditionAccepted)
	if c == nil || c.Status != metav1.ConditionFalse {
		return false
	}
	switch c.Reason {
	case v1alpha1.ReasonNotAllowedByParent, v1alpha1.ReasonNotAllowedAsApex, v1alpha1.ReasonNameConflict,
		v1alpha1.ReasonHidesZones, v1alpha1.ReasonServerGroupNotAllowed:
		return true
	}
	return false
}

// place works out where the zone is served, and under which name servers.
func (h *hierarchy) place(c *claim) {
	chosen := map[string]bool{}
	for _, n := range c.object.Spec.Datacenters.Names {
		chosen[string(n)] = true
	}
	known := map[string]bool{}
	withheld := false
	var leaving []Location
	var places []place
	datacenters := slices.Clone(h.Datacenters)
	slices.SortFunc(datacenters, func(a, b *v1alpha1.Datacenter) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Name, b.Name))
	})
	for _, dc := range datacenters {
		known[dc.Name] = true
		if dc.Spec.Role == v1alpha1.DatacenterRoleWitness {
			c.Witnesses = append(c.Witnesses, h.witnesses(c, dc)...)
			continue
		}
		if len(chosen) > 0 && !chosen[dc.Name] {
			continue
		}
		if goes, ok := h.leaving(c, dc); ok {
			leaving = append(leaving, Location{dc.Name, c.object.Spec.ServerGroup})
			places = append(places, goes)
		}
		for _, g := range dc.Spec.ServerGroups {
			if g.Name != c.object.Spec.ServerGroup || !dc.DeletionTimestamp.IsZero() {
				continue
			}
			if g.AllowedZones != nil && !h.selects(g.AllowedZones.Namespaces, "", c.key.Namespace) {
				withheld = true
				continue
			}
			c.Locations = append(c.Locations, Location{dc.Name, g.Name})
			places = append(places, placeOf(dc, g))
		}
	}
	h.nameServers(c, places)
	for _, n := range c.object.Spec.Datacenters.Names {
		if !known[string(n)] {
			c.fault = refuse(v1alpha1.ReasonUnknownDatacenter, "spec.datacenters.names: there is no Datacenter %q", n)
			return
		}
	}
	switch {
	case len(c.Locations) > 0:
	case withheld:
		c.foreign = true
		c.fault = refuse(v1alpha1.ReasonServerGroupNotAllowed,
			"server group %q is not open to namespace %q: see allowedZones of the group in the Datacenters", c.object.Spec.ServerGroup, c.key.Namespace)
	default:
		c.fault = refuse(v1alpha1.ReasonUnknownServerGroup, "no chosen datacenter has a server group %q", c.object.Spec.ServerGroup)
	}
	if len(c.Locations) > 0 {
		c.Locations = append(c.Locations, leaving...)
	}
	slices.SortFunc(c.Locations, func(a, b Location) int { return cmp.Compare(a.Datacenter, b.Datacenter) })
	slices.SortFunc(c.Witnesses, func(a, b Location) int {
		return cmp.Or(cmp.Compare(a.Datacenter, b.Datacenter), cmp.Compare(a.Group, b.Group))
	})
	c.UDPOnly = h.udpOnly(c.Locations)
}

// witnesses are the groups of a Witness that hold the zone, wherever that is served: the one of the zone's group's name, or all
// if it has none of that name.
func (h *hierarchy) witnesses(c *claim, dc *v1alpha1.Datacenter) (all []Location) {
	for _, g := range dc.Spec.ServerGroups {
		if g.AllowedZones != nil && !h.selects(g.AllowedZones.Namespaces, "", c.key.Namespace) {
			continue
		}
		if g.Name == c.object.Spec.ServerGroup {
			return []Location{{dc.Name, g.Name}}
		}
		all = append(all, Location{dc.Name, g.Name})
	}
	return all
}

// place is what a datacenter has for the name servers of a zone.
type place struct {
	datacenter string
	addresses  []netip.Addr // that zones are delegated to; sorted
	// reserve are those that the group is about to leave, or has lost, for a zone that has no others; sorted.
	reserve []netip.Addr
	// unknown: nothing is known yet of the group's addresses, or none of them has answered.
	unknown bool
}

func placeOf(dc *v1alpha1.Datacenter, g v1alpha1.ServerGroup) place {
	p := place{datacenter: dc.Name, addresses: addressesOf(dc, g, v1alpha1.ServerAddressDelegated)}
	if g.Management == v1alpha1.ServerGroupManaged {
		p.reserve = addressesOf(dc, g, v1alpha1.ServerAddressLeaving)
		if len(p.reserve) == 0 {
			p.reserve = addressesOf(dc, g, v1alpha1.ServerAddressLost)
		}
		p.unknown = len(p.addresses) == 0 && len(p.reserve) == 0
	}
	return p
}

// leaving is what there is of a group that goes: it serves the zone until resolvers have forgotten its addresses, without a
// name server once the status says that they leave.
func (h *hierarchy) leaving(c *claim, dc *v1alpha1.Datacenter) (place, bool) {
	group := c.object.Spec.ServerGroup
	served := slices.ContainsFunc(c.object.Status.Datacenters, func(s v1alpha1.ZoneDatacenterStatus) bool { return string(s.Name) == dc.Name })
	if !served || !slices.Contains(LeavingGroups(dc), group) {
		return place{}, false
	}
	g := v1alpha1.ServerGroup{Name: group, Management: v1alpha1.ServerGroupManaged}
	return place{datacenter: dc.Name, addresses: addressesOf(dc, g, v1alpha1.ServerAddressDelegated)}, true
}

// nameServers gives the zone one name server in each place that has addresses. A zone without any gets those of the reserve:
// a delegation that does not work is mended when an address is back, but a name that seems not to exist is forgotten everywhere.
func (h *hierarchy) nameServers(c *claim, places []place) {
	reserve := !slices.ContainsFunc(places, func(p place) bool { return len(p.addresses) > 0 })
	for _, p := range places {
		addresses := p.addresses
		if reserve {
			addresses = p.reserve
		}
		if len(addresses) == 0 && !p.unknown {
			continue
		}
		host, err := c.Apex.Child("ns-" + p.datacenter)
		if err != nil || len(c.NameServers) == MaxNameServers {
			c.Unnamed = append(c.Unnamed, p.datacenter)
			continue
		}
		c.NameServers = append(c.NameServers, NameServer{Datacenter: p.datacenter, Host: host, Addresses: addresses})
	}
}

// rank orders datacenters; those without a rank come last.
func rank(dc *v1alpha1.Datacenter) int64 {
	if dc.Spec.Rank == nil {
		return 1 << 32
	}
	return int64(*dc.Spec.Rank)
}

// findGuests notes which incumbents lie directly below each name, with no other incumbent between.
func (h *hierarchy) findGuests(names []zone.Name) {
	h.guests = map[zone.Name][]*claim{}
	for _, n := range names {
		for _, c := range h.byName[n] {
			if !c.incumbent {
				continue
			}
			for above := n.Parent(); above != ""; above = above.Parent() {
				h.guests[above] = append(h.guests[above], c)
				if slices.ContainsFunc(h.byName[above], func(o *claim) bool { return o.incumbent }) {
					break
				}
			}
		}
	}
}

// decide chooses between the claims to one name; all names above are decided already.
func (h *hierarchy) decide(n zone.Name) {
	claims := h.byName[n]
	var parent *claim
	for above := n.Parent(); above != "" && parent == nil; above = above.Parent() {
		parent = h.accepted[above]
	}
	for _, c := range claims {
		c.granted = h.grants(parent, c)
	}
	slices.SortFunc(claims, func(a, b *claim) int {
		return cmp.Or(
			first(a.granted, b.granted),
			first(a.incumbent, b.incumbent),
			first(a.fault == nil, b.fault == nil),
			a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time),
			cmp.Compare(a.key.String(), b.key.String()))
	})
	winner := claims[0]
	for _, c := range claims {
		if parent != nil {
			c.Parent, c.ParentApex = parent.key, parent.Apex
		}
		switch {
		case !c.granted && parent == nil:
			c.Refused = refuse(v1alpha1.ReasonNotAllowedAsApex,
				"no zone of the system is above %s, and namespace %q is not one of the operator's apex namespaces (%s)",
				n, c.key.Namespace, cmp.Or(strings.Join(h.ApexNamespaces, ", "), "none"))
			// Nobody took a grant back: the zone above was deleted, or a flag was changed. All
			// that was served below must not go with it.
			c.Keep = c == winner && c.incumbent
			if c.Keep {
				h.accepted[n] = c
			}
		case !c.granted:
			c.Refused = refuse(v1alpha1.ReasonNotAllowedByParent,
				"zone %s (DNSZone %s) does not allow %s in namespace %q: it needs an entry in spec.allowedChildren",
				parent.Apex, parent.key, n, c.key.Namespace)
		case c != winner:
			c.Refused = refuse(v1alpha1.ReasonNameConflict, "zone %s is served for DNSZone %s", n, winner.key)
		case !c.incumbent && h.hides(c) != nil:
			guest := h.hides(c)
			c.Refused = refuse(v1alpha1.ReasonHidesZones,
				"zone %s would take %s (DNSZone %s) away from its parent, and does not allow it: it needs an entry in spec.allowedChildren",
				n, guest.Apex, guest.key)
		case c.fault != nil:
			c.Refused = c.fault
			c.Keep = c.incumbent && !c.foreign
			if c.Keep {
				h.accepted[n] = c
			}
		default:
			h.accepted[n] = c
		}
	}
}

// first orders true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// grants reports whether parent, nil for none, lets c have its name.
func (h *hierarchy) grants(parent, c *claim) bool {
	if parent == nil {
		return slices.Contains(h.ApexNamespaces, c.key.Namespace)
	}
	for _, allowed := range parent.object.Spec.AllowedChildren {
		if h.selects(allowed.Namespaces, parent.key.Namespace, c.key.Namespace) && allowsName(allowed.Names, c.Apex) {
			return true
		}
	}
	return false
}

// hides returns an incumbent that c would cut off from its parent and does not allow, or nil.
func (h *hierarchy) hides(c *claim) *claim {
	for _, guest := range h.guests[c.Apex] {
		if !h.grants(c, guest) {
			return guest
		}
	}
	return nil
}

// allowsName matches a child's name: exactly, by "*.suffix" for any name below suffix, or by "*".
func allowsName(patterns []string, child zone.Name) bool {
	for _, p := range patterns {
		if p == "*" {
			return true
		}
		suffix, wild := strings.CutPrefix(p, "*.")
		name, err := zone.ParseName(suffix, "")
		if err == nil && (wild && child.Below(name) || !wild && child == name) {
			return true
		}
	}
	return false
}

// selects reports whether the selection, made by an object in namespace own ("" for one
// without), covers the namespace. A selector that does not parse covers none.
func (h *hierarchy) selects(s v1alpha1.NamespaceSelection, own, namespace string) bool {
	switch s.From {
	case v1alpha1.NamespacesFromAll:
		return true
	case v1alpha1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(s.Selector)
		return err == nil && selector.Matches(labels.Set(h.NamespaceLabels[namespace]))
	default:
		return own == namespace
	}
}
