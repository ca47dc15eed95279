package render

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// dynamicRecords is the name of the DynamicRecords of a zone among its sources.
const dynamicRecords = "DynamicRecords"

// SteeredInputs is all that decides about the DynamicRecords of one zone.
type SteeredInputs struct {
	Zone      *v1alpha1.DNSZone
	Placement *Placement
	Records   []*v1alpha1.DynamicRecord // whose zoneRef is the zone, in any order
	Probes    map[types.NamespacedName]*v1alpha1.HealthProbe
	// Secrets says what is wrong with those that Probes name; one that can be used is not in it.
	Secrets map[types.NamespacedName]Refusal
	// Datacenters are all there are, by name.
	Datacenters map[string]*v1alpha1.Datacenter
	// NamespaceLabels has the labels of every namespace that holds a record.
	NamespaceLabels map[string]map[string]string
	// Published is what servers hold or are to hold; nil where there is none or it is unknown.
	Published *zone.Content
}

// Steered is what becomes of the DynamicRecords of one zone.
type Steered struct {
	// Decisions has every record of the inputs.
	Decisions map[types.NamespacedName]*SteeredDecision

	owners   map[zone.Name]steeredOwner
	findings []v1alpha1.Finding
}

// SteeredDecision is what becomes of one DynamicRecord.
type SteeredDecision struct {
	Owner zone.Name // of the addresses; "" if the host is no name
	// Refused says why the record is not accepted; nil when it is.
	Refused Refusal
	// Keep: it is refused for its own spec, so what servers have of it goes on being served.
	Keep bool
	// Record is what servers are told; nil if nothing, or if it is kept.
	Record *steeringpb.Record
	// NotIdle are the HealthProbes whose idleInterval servers are not told of, for it alone would break objectives.rto.
	NotIdle []string
}

// Any reports whether the zone has steered names.
func (s *Steered) Any() bool { return len(s.owners) > 0 }

// ZoneOf is the DNSZone that a DynamicRecord wants to be in.
func ZoneOf(r *v1alpha1.DynamicRecord) types.NamespacedName {
	return types.NamespacedName{Namespace: cmp.Or(r.Spec.ZoneRef.Namespace, r.Namespace), Name: r.Spec.ZoneRef.Name}
}

// steeredOwner is what enters the zone at one owner.
type steeredOwner struct {
	source types.NamespacedName
	types  []uint16 // of static records that can't stand beside it; nil: of any type
	ttl    uint32
	rdata  []byte
}

// steeredClaim is one DynamicRecord on its way.
type steeredClaim struct {
	*SteeredDecision
	object             *v1alpha1.DynamicRecord
	key                types.NamespacedName
	granted, incumbent bool
	fault              Refusal
}

// SteerZone decides about all DynamicRecords of a zone. It is total: each record gets a decision, and what is wrong with one
// does not touch the others.
//
// Of several records of one name, one with a valid grant goes before one without, then the one that is served, then one
// without a fault of its own, then the older, then the lower namespace/name.
func SteerZone(in SteeredInputs) *Steered {
	s := &Steered{Decisions: map[types.NamespacedName]*SteeredDecision{}, owners: map[zone.Name]steeredOwner{}}
	byOwner := map[zone.Name][]*steeredClaim{}
	for _, object := range in.Records {
		c := &steeredClaim{SteeredDecision: &SteeredDecision{}, object: object, key: types.NamespacedName{Namespace: object.Namespace, Name: object.Name}}
		s.Decisions[c.key] = c.SteeredDecision
		owner, err := zone.ParseName(object.Spec.Host, in.Placement.Apex)
		if err != nil {
			c.Refused = refuse(v1alpha1.ReasonInvalidSpec, "spec.host: %v", err)
			continue
		}
		c.Owner = owner
		c.granted = in.grants(object)
		c.incumbent = publishedSource(in.Published, owner) == c.key.String()
		if c.Record, c.fault = in.translate(object, owner); c.fault == nil {
			c.NotIdle = refuseIdle(c.Record, owner, object.Spec.Objectives.ClientCache)
		}
		byOwner[owner] = append(byOwner[owner], c)
	}
	for _, owner := range sortedNames(byOwner) {
		s.decide(in, byOwner[owner])
	}
	if in.Zone.Spec.ECS != nil {
		s.findings = in.longNetworks()
	}
	s.findings = append(s.findings, in.deniedResolvers(s)...)
	return s
}

// deniedResolvers finds resolvers of accepted records that the servers of some datacenter must not ask. (The API server's
// addresses are not known here: servers know them.)
func (in SteeredInputs) deniedResolvers(s *Steered) []v1alpha1.Finding {
	var findings []v1alpha1.Finding
	for _, o := range in.Records {
		key := types.NamespacedName{Namespace: o.Namespace, Name: o.Name}
		if o.Spec.Flatten == nil || s.Decisions[key].Refused != nil {
			continue
		}
		for _, text := range o.Spec.Flatten.Resolvers {
			resolver, err := netip.ParseAddr(string(text))
			if err != nil {
				continue
			}
			var at []string
			for _, l := range in.Placement.Locations {
				if dc := in.Datacenters[l.Datacenter]; dc != nil && denies(dc, resolver.Unmap()) && !slices.Contains(at, dc.Name) {
					at = append(at, dc.Name)
				}
			}
			if len(at) > 0 {
				slices.Sort(at)
				findings = append(findings, v1alpha1.Finding{
					Source: "spec.flatten of DynamicRecord " + key.String(), Record: o.Spec.Host, Reason: v1alpha1.FindingResolverDenied,
					Message: fmt.Sprintf("resolver %s is not asked by the servers of %s: their probes.deniedNetworks, or the default, deny it", resolver, strings.Join(at, ", ")),
				})
			}
		}
	}
	slices.SortStableFunc(findings, func(a, b v1alpha1.Finding) int { return cmp.Compare(a.Source, b.Source) })
	return findings
}

// denies reports whether servers of a datacenter must not reach an address for tenants, as far as is known here.
func denies(dc *v1alpha1.Datacenter, a netip.Addr) bool {
	within := func(text string) bool {
		p, err := netip.ParsePrefix(text)
		return err == nil && p.Contains(a)
	}
	if stated := dc.Spec.Probes.DeniedNetworks; stated != nil {
		return slices.ContainsFunc(texts(*stated), within)
	}
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || slices.ContainsFunc(TopologyInputs{}.denied(dc), within)
}

// longNetworks finds what makes resolvers that tell of their clients' networks keep many answers for one name.
func (in SteeredInputs) longNetworks() []v1alpha1.Finding {
	var findings []v1alpha1.Finding
	look := func(source, record string, networks []v1alpha1.CIDR) {
		for _, n := range networks {
			p, err := netip.ParsePrefix(string(n))
			if err == nil && (p.Addr().Is4() && p.Bits() > 24 || p.Addr().Is6() && p.Bits() > 56) {
				findings = append(findings, v1alpha1.Finding{
					Source: source, Record: record, Reason: v1alpha1.FindingLongNetwork,
					Message: fmt.Sprintf("network %s is longer than /24 (IPv6: /56): resolvers that tell of their clients' networks keep an answer for every such network", n),
				})
			}
		}
	}
	for _, name := range sortedKeys(in.Datacenters) {
		look("datacenter/"+name, name, in.Datacenters[name].Spec.Networks)
	}
	for _, r := range in.Records {
		for _, m := range r.Spec.Match {
			look(fmt.Sprintf("spec.match of DynamicRecord %s/%s", r.Namespace, r.Name), r.Spec.Host, m.Networks)
		}
	}
	return findings
}

func sortedNames[V any](m map[zone.Name]V) []zone.Name {
	names := make([]zone.Name, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.SortFunc(names, zone.Name.Compare)
	return names
}

// decide chooses between the claims to one owner.
func (s *Steered) decide(in SteeredInputs, claims []*steeredClaim) {
	slices.SortFunc(claims, func(a, b *steeredClaim) int {
		return cmp.Or(
			first(a.granted, b.granted),
			first(a.incumbent, b.incumbent),
			first(a.fault == nil, b.fault == nil),
			a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time),
			cmp.Compare(a.key.String(), b.key.String()))
	})
	for i, c := range claims {
		record := c.Record
		c.Record = nil
		switch {
		case !c.granted:
			c.Refused = refuse(v1alpha1.ReasonNotAllowedByZone, "zone %s (DNSZone %s) does not allow the host %q in namespace %q: it needs an entry in spec.allowedRecords",
				in.Placement.Apex, Key(in.Zone), c.object.Spec.Host, c.key.Namespace)
		case i > 0:
			c.Refused = refuse(v1alpha1.ReasonNameConflict, "%s is served for DynamicRecord %s", c.Owner, claims[0].key)
		case c.fault != nil:
			c.Refused = c.fault
			c.Keep = c.incumbent
			if c.Keep {
				s.keep(in.Published, c)
			}
		default:
			c.Record = record
			s.admit(c)
		}
	}
}

// admit adds what servers are told of an accepted record: at its owner, and at those of its SRV records. If one of them can't
// be told, none is.
func (s *Steered) admit(c *steeredClaim) {
	owners := map[zone.Name]steeredOwner{}
	add := func(owner zone.Name, r *steeringpb.Record) bool {
		if _, err := steering.NewRecord(owner, r); err != nil { // servers would say the same, later
			c.Refused = refuse(v1alpha1.ReasonInvalidSpec, "%v", err)
			return false
		}
		rdata, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
		if err != nil || len(rdata) > 1<<16-1 {
			c.Refused = refuse(v1alpha1.ReasonInvalidSpec, "the record and its probes are too large together: %d octets of at most 65535", len(rdata))
			return false
		}
		owners[owner] = steeredOwner{source: c.key, types: conflicting(r), ttl: c.Record.GetTtl(), rdata: rdata}
		return true
	}
	fits := add(c.Owner, c.Record)
	for _, service := range c.Record.GetServices() {
		owner, err := zone.ParseName(service.GetLabel(), c.Owner)
		if !fits || service.GetKind() != steeringpb.Service_SRV || err != nil { // translate has looked
			continue
		}
		_, taken := s.owners[owner]
		if _, twice := owners[owner]; taken || twice {
			continue // a record of its own goes before
		}
		srv := proto.CloneOf(c.Record)
		srv.SrvLabel = service.GetLabel()
		fits = add(owner, srv)
	}
	if !fits {
		c.Record = nil
		return
	}
	maps.Copy(s.owners, owners)
}

// conflicting are the types that can't be served beside a steered record; nil: all, since a CNAME is answered (RFC 1034 §3.6.2).
func conflicting(r *steeringpb.Record) []uint16 {
	switch {
	case r.GetSrvLabel() != "":
		return []uint16{zone.TypeSRV, zone.TypeCNAME, zone.TypeDNAME}
	case !r.GetFlatten() && !isAddressText(r):
		return nil
	}
	return []uint16{zone.TypeA, zone.TypeAAAA, zone.TypeCNAME, zone.TypeHTTPS, zone.TypeSVCB, zone.TypeDNAME}
}

func isAddressText(r *steeringpb.Record) bool {
	return len(r.GetPools()) > 0 && len(r.GetPools()[0].GetTargets()) > 0 && r.GetPools()[0].GetTargets()[0].GetAddress() != ""
}

// keep leaves at the owners of a record what is published of it.
func (s *Steered) keep(published *zone.Content, c *steeredClaim) {
	for n := range published.Within(c.Owner) {
		if publishedSource(published, n.Owner) != c.key.String() {
			continue
		}
		set := n.RRset(zone.TypeSteered)
		for rdata := range set.All() {
			var r steeringpb.Record
			if proto.Unmarshal([]byte(rdata), &r) == nil { // as publishedSource has found
				s.owners[n.Owner] = steeredOwner{source: c.key, types: conflicting(&r), ttl: set.TTL, rdata: []byte(rdata)}
			}
		}
	}
}

// publishedSource returns the DynamicRecord that an owner is served for, as namespace/name; "" if for none.
func publishedSource(published *zone.Content, owner zone.Name) string {
	if published == nil {
		return ""
	}
	for rdata := range published.Node(owner).RRset(zone.TypeSteered).All() {
		var r steeringpb.Record
		if proto.Unmarshal([]byte(rdata), &r) == nil {
			return r.GetSource()
		}
	}
	return ""
}

// grants reports whether the zone lets the record have its host.
func (in SteeredInputs) grants(r *v1alpha1.DynamicRecord) bool {
	for _, allowed := range in.Zone.Spec.AllowedRecords {
		if selectsNamespace(allowed.Namespaces, in.Zone.Namespace, r.Namespace, in.NamespaceLabels[r.Namespace]) && allowsHost(allowed.Hosts, r.Spec.Host) {
			return true
		}
	}
	return false
}

// allowsHost matches a host: exactly, by "*.app" for all below app, or by "*" for all but the zone itself.
func allowsHost(patterns []string, host string) bool {
	for _, p := range patterns {
		suffix, wild := strings.CutPrefix(p, "*.")
		switch {
		case p == host, p == "*" && host != "@", wild && strings.HasSuffix(host, "."+suffix):
			return true
		}
	}
	return false
}

// selectsNamespace reports whether the selection, made by an object in namespace own ("" for one without), covers a
// namespace with such labels. A selector that does not parse covers none.
func selectsNamespace(s v1alpha1.NamespaceSelection, own, namespace string, its map[string]string) bool {
	switch s.From {
	case v1alpha1.NamespacesFromAll:
		return true
	case v1alpha1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(s.Selector)
		return err == nil && selector.Matches(labels.Set(its))
	default:
		return own == namespace
	}
}

// translate makes of a DynamicRecord what servers are told, or says what is wrong with it.
func (in SteeredInputs) translate(o *v1alpha1.DynamicRecord, owner zone.Name) (*steeringpb.Record, Refusal) {
	spec := &o.Spec
	r := &steeringpb.Record{
		Source: o.Namespace + "/" + o.Name, Host: owner.String(),
		Policy:         policies[spec.Steering.Policy],
		WhenAllDown:    allDown[spec.WhenAllDown.Action],
		FailoverManual: spec.Failover.Mode == v1alpha1.DecisionManual,
		FailbackManual: spec.Failback.Mode == v1alpha1.DecisionManual,
		FailbackDelay:  milliseconds(spec.Failback.Delay),
		HoldOnPeerLoss: holds(spec),
		Rto:            milliseconds(spec.Objectives.RTO),
	}
	if fault := in.ttl(r, spec.TTL); fault != nil {
		return nil, fault
	}
	for _, a := range spec.WhenAllDown.Fallback {
		r.Fallback = append(r.Fallback, string(a))
	}
	if l := spec.Steering.Latency; spec.Steering.Policy == v1alpha1.SteeringLatency {
		r.Latency = &steeringpb.Latency{HysteresisPercent: 20}
		if l != nil && l.HysteresisPercent != nil {
			r.Latency.HysteresisPercent = uint32(*l.HysteresisPercent)
		}
	}
	if f := spec.Flatten; f != nil {
		r.Flatten = true
		for _, a := range f.Resolvers {
			r.Resolvers = append(r.Resolvers, netip.AddrPortFrom(netip.MustParseAddr(string(a)), 53).String())
		}
	}
	for _, m := range spec.Match {
		rule := &steeringpb.Rule{Pools: m.Pools}
		for _, n := range m.Networks {
			rule.Networks = append(rule.Networks, string(n))
		}
		r.Rules = append(r.Rules, rule)
	}
	for _, service := range spec.Services {
		out, fault := in.service(service, owner)
		if fault != nil {
			return nil, fault
		}
		r.Services = append(r.Services, out)
	}
	probes := probeList{record: r, namespace: o.Namespace, known: in.Probes, secrets: in.Secrets, index: map[string]uint32{}}
	for i := range spec.Pools {
		pool, fault := in.pool(&spec.Pools[i], spec, owner, &probes)
		if fault != nil {
			return nil, fault
		}
		r.Pools = append(r.Pools, pool)
	}
	return r, nil
}

// holds reports whether a record does not move when a peer is lost, by its word or by default.
func holds(spec *v1alpha1.DynamicRecordSpec) bool {
	if spec.OnPeerLoss == "" {
		return spec.Steering.Policy == v1alpha1.SteeringFailover
	}
	return spec.OnPeerLoss == v1alpha1.OnPeerLossHold
}

var policies = map[v1alpha1.SteeringPolicy]steeringpb.Policy{
	v1alpha1.SteeringNearest: steeringpb.Policy_NEAREST, v1alpha1.SteeringFailover: steeringpb.Policy_FAILOVER,
	v1alpha1.SteeringWeighted: steeringpb.Policy_WEIGHTED, v1alpha1.SteeringRoundRobin: steeringpb.Policy_ROUND_ROBIN,
	v1alpha1.SteeringLatency: steeringpb.Policy_LATENCY, v1alpha1.SteeringGeo: steeringpb.Policy_GEO,
	v1alpha1.SteeringClientHash: steeringpb.Policy_CLIENT_HASH,
}

var poolPolicies = map[v1alpha1.PoolPolicy]steeringpb.PoolPolicy{
	v1alpha1.PoolRoundRobin: steeringpb.PoolPolicy_POOL_ROUND_ROBIN, v1alpha1.PoolWeighted: steeringpb.PoolPolicy_POOL_WEIGHTED,
	v1alpha1.PoolClientHash: steeringpb.PoolPolicy_POOL_CLIENT_HASH, v1alpha1.PoolFailover: steeringpb.PoolPolicy_POOL_FAILOVER,
}

var allDown = map[v1alpha1.AllDownAction]steeringpb.AllDown{
	v1alpha1.AllDownReturnAll: steeringpb.AllDown_RETURN_ALL, v1alpha1.AllDownLastGood: steeringpb.AllDown_LAST_GOOD,
	v1alpha1.AllDownFallback: steeringpb.AllDown_FALLBACK, v1alpha1.AllDownNoData: steeringpb.AllDown_NO_DATA,
	v1alpha1.AllDownServFail: steeringpb.AllDown_SERV_FAIL,
}

// ttl works out the TTL of a record within the bounds of the zone.
func (in SteeredInputs) ttl(r *steeringpb.Record, t *v1alpha1.SteeredTTL) Refusal {
	z := in.Zone.Spec.TTL
	lowest, highest := seconds(z.Min, 0), seconds(z.Max, zone.MaxTTL)
	bound := func(ttl uint32) uint32 { return min(max(ttl, lowest), highest) }
	standard := seconds(z.Default, 60)
	switch {
	case t == nil:
		r.Ttl = bound(standard)
	case t.Value != nil:
		r.Ttl = bound(seconds(*t.Value, standard))
	case t.Derived != nil:
		r.Ttl, r.TtlMin = bound(seconds(t.Derived.Max, standard)), bound(seconds(t.Derived.Min, standard))
	default:
		i := slices.IndexFunc(z.Classes, func(c v1alpha1.TTLClass) bool { return c.Name == t.Class })
		if i < 0 {
			return refuse(v1alpha1.ReasonInvalidSpec, "spec.ttl.class: %q is not one of the ttl.classes of DNSZone %s", t.Class, Key(in.Zone))
		}
		r.Ttl = bound(seconds(z.Classes[i].TTL, standard))
	}
	return nil
}

func (in SteeredInputs) service(s v1alpha1.Service, owner zone.Name) (*steeringpb.Service, Refusal) {
	out := &steeringpb.Service{Alpn: s.Alpn}
	if s.Port != nil {
		out.Port = uint32(*s.Port)
	}
	if s.Type == v1alpha1.ServiceSRV {
		out.Kind, out.Label = steeringpb.Service_SRV, s.Name
		if _, err := zone.ParseName(s.Name, owner); err != nil {
			return nil, refuse(v1alpha1.ReasonInvalidSpec, "spec.services: %s: %v", s.Name, err)
		}
	}
	return out, nil
}

func (in SteeredInputs) pool(p *v1alpha1.Pool, spec *v1alpha1.DynamicRecordSpec, owner zone.Name, probes *probeList) (*steeringpb.Pool, Refusal) {
	out := &steeringpb.Pool{Name: p.Name, Datacenter: string(p.Datacenter), Policy: poolPolicies[p.Policy], Weight: 1, MinHealthy: 1}
	if p.Datacenter != "" && in.Datacenters[string(p.Datacenter)] == nil {
		return nil, refuse(v1alpha1.ReasonUnknownDatacenter, "spec.pools: pool %s: there is no Datacenter %q", p.Name, p.Datacenter)
	}
	if p.Weight != nil {
		out.Weight = uint32(*p.Weight)
	}
	if p.MinHealthy != nil {
		out.MinHealthy = uint32(*p.MinHealthy)
	}
	if p.MaxAnswers != nil {
		out.MaxAnswers = uint32(*p.MaxAnswers)
	}
	if g := p.Geo; g != nil {
		out.Geo = &steeringpb.Geo{Countries: g.Countries}
		for _, c := range g.Continents {
			out.Geo.Continents = append(out.Geo.Continents, string(c))
		}
		for _, n := range g.ASNs {
			out.Geo.Asns = append(out.Geo.Asns, uint32(n))
		}
	}
	if spec.ProbeRef != nil {
		i, fault := probes.add(spec.ProbeRef.Name, "spec.probeRef")
		if fault != nil {
			return nil, fault
		}
		out.Probes = []uint32{i}
	}
	if p.ProbeRef != nil {
		where := fmt.Sprintf("spec.pools: pool %s: probeRef", p.Name)
		i, fault := probes.add(p.ProbeRef.Name, where)
		if fault != nil {
			return nil, fault
		}
		if fault := probes.gate(i, where); fault != nil {
			return nil, fault
		}
		out.Gates = []uint32{i}
	}
	for _, t := range p.Targets {
		target, fault := steeredTarget(&t, owner)
		if fault != nil {
			return nil, refuse(fault.Reason(), "spec.pools: pool %s: %v", p.Name, fault)
		}
		out.Targets = append(out.Targets, target)
	}
	return out, nil
}

func steeredTarget(t *v1alpha1.Target, owner zone.Name) (*steeringpb.Target, Refusal) {
	out := &steeringpb.Target{Weight: 1, ProbeAddress: string(t.ProbeAddress)}
	if t.Weight != nil {
		out.Weight = uint32(*t.Weight)
	}
	if t.Port != nil {
		out.Port = uint32(*t.Port)
	}
	if _, err := netip.ParseAddr(string(t.Address)); err == nil {
		out.Address = string(t.Address)
		return out, nil
	}
	name, err := zone.ParseName(strings.TrimSuffix(string(t.Address), ".")+".", "")
	switch {
	case err != nil:
		return nil, refuse(v1alpha1.ReasonInvalidSpec, "target %s: %v", t.Address, err)
	case name == owner:
		return nil, refuse(v1alpha1.ReasonInvalidSpec, "target %s is the record itself", t.Address)
	}
	out.Name = name.String()
	return out, nil
}

// milliseconds reads a duration; the API server has checked its form. Nil is 0.
func milliseconds(d *v1alpha1.Duration) uint64 {
	if d == nil {
		return 0
	}
	v, err := d.Parse()
	if err != nil {
		return 0
	}
	return uint64(v / time.Millisecond)
}

// probeList gathers the probes of a record.
type probeList struct {
	record    *steeringpb.Record
	namespace string
	known     map[types.NamespacedName]*v1alpha1.HealthProbe
	secrets   map[types.NamespacedName]Refusal
	index     map[string]uint32 // by name
	open      []string          // names of those that are being added: one in it again is a cycle
}

// add returns the index of the probe of that name in the record, and adds those it is calculated of. where is the field
// that names it.
func (l *probeList) add(name, where string) (uint32, Refusal) {
	if i, known := l.index[name]; known {
		return i, nil
	}
	if slices.Contains(l.open, name) {
		return 0, refuse(v1alpha1.ReasonProbeCycle, "%s: HealthProbe %s is calculated of itself: %s", where, name, strings.Join(append(l.open, name), ", "))
	}
	object := l.known[types.NamespacedName{Namespace: l.namespace, Name: name}]
	if object == nil {
		return 0, refuse(v1alpha1.ReasonProbeNotFound, "%s: there is no HealthProbe %q in namespace %q", where, name, l.namespace)
	}
	p, parts, err := translateProbe(object)
	if err != nil {
		return 0, refuse(v1alpha1.ReasonProbeNotAccepted, "%s: HealthProbe %s: %v", where, name, err)
	}
	if fault := secretFault(object, l.secrets); fault != nil {
		return 0, refuse(fault.Reason(), "%s: HealthProbe %s: %v", where, name, fault)
	}
	l.open = append(l.open, name)
	for _, part := range parts {
		i, fault := l.add(part, where)
		if fault != nil {
			return 0, fault
		}
		p.GetCalculated().Probes = append(p.GetCalculated().Probes, i)
	}
	l.open = l.open[:len(l.open)-1]
	i := uint32(len(l.record.Probes))
	l.index[name] = i
	l.record.Probes = append(l.record.Probes, p)
	return i, nil
}

// gate refuses a probe that a pool can't be gated by: there is no target whose address it could ask.
func (l *probeList) gate(i uint32, where string) Refusal {
	p := l.record.Probes[i]
	if parts := p.GetCalculated(); parts != nil {
		for _, part := range parts.Probes {
			if fault := l.gate(part, where); fault != nil {
				return fault
			}
		}
		return nil
	}
	if p.GetAddress() == "" {
		return refuse(v1alpha1.ReasonProbeNotAccepted, "%s: HealthProbe %s needs spec.address: a pool has none that it could ask", where, p.GetSource())
	}
	return nil
}

// source makes of the decisions a source of the zone's records.
func (s *Steered) source() *source {
	out := &source{name: dynamicRecords, owners: map[zone.Name][]zone.Record{}}
	if s == nil {
		return out
	}
	for owner, o := range s.owners {
		out.owners[owner] = []zone.Record{{Owner: owner, Type: zone.TypeSteered, TTL: o.ttl, HasTTL: true, RData: o.rdata}}
	}
	out.records, out.findings = len(s.owners), s.findings
	return out
}

// steeredSource is how findings name the DynamicRecord.
func steeredSource(key types.NamespacedName) string { return "dynamicrecord/" + key.String() }

// RefusedRecords says which DynamicRecords could not enter the zone, beyond what SteerZone decides, by namespace/name.
func (r *Result) RefusedRecords() map[string]Refusal {
	refused := map[string]Refusal{}
	for _, f := range r.Findings {
		if source, is := strings.CutPrefix(f.Source, "dynamicrecord/"); is && refused[source] == nil {
			refused[source] = refuse(f.Reason, "%s: %s", f.Record, f.Message)
		}
	}
	return refused
}

// mergeSteered decides between a steered name and the records beside it, and returns the records to serve with their
// sources. What is published stays; else the static records do.
func (r *Result) mergeSteered(rec zone.Record, records []zone.Record, origin []string) ([]zone.Record, []string, []v1alpha1.Finding) {
	o := r.steered[rec.Owner]
	conflicts := func(i int) bool {
		return origin[i] != "" && (o.types == nil || slices.Contains(o.types, records[i].Type)) || origin[i] == "" && o.types == nil
	}
	var findings []v1alpha1.Finding
	stays := publishedSource(r.published, rec.Owner) != ""
	var kept []zone.Record
	var keptOrigin []string
	for i, other := range records {
		switch {
		case !conflicts(i):
		case stays && origin[i] != "":
			findings = append(findings, finding(origin[i], other, v1alpha1.FindingNameConflict,
				fmt.Sprintf("left out: DynamicRecord %s answers this name", o.source)))
			continue
		default:
			return records, origin, []v1alpha1.Finding{{
				Source: steeredSource(o.source), Record: rec.Owner.String(), Reason: v1alpha1.FindingNameConflict,
				Message: fmt.Sprintf("left out: the zone has a record of type %s at this name", zone.TypeString(other.Type)),
			}}
		}
		kept, keptOrigin = append(kept, other), append(keptOrigin, origin[i])
	}
	return append(kept, rec), append(keptOrigin, dynamicRecords), findings
}

// hiddenRecord returns a finding if a steered name lies below a zone cut or DNAME, where nobody sees it.
func (r *Result) hiddenRecord(owner zone.Name, o steeredOwner) (v1alpha1.Finding, bool) {
	for above := owner.Parent(); above != "" && above != r.settings.apex.Parent(); above = above.Parent() {
		if r.isCut(r.Content.Node(above)) {
			return v1alpha1.Finding{
				Source: steeredSource(o.source), Record: owner.String(), Reason: v1alpha1.FindingOccluded,
				Message: fmt.Sprintf("the zone cut (NS) or DNAME at %s hides this name", above),
			}, true
		}
	}
	return v1alpha1.Finding{}, false
}

// zoneSettings is what servers are told about a zone as a whole.
func zoneSettings(ecs *v1alpha1.ZoneECS) []byte {
	settings := &steeringpb.ZoneSettings{}
	for _, n := range ecs.TrustedResolvers {
		settings.EcsTrusted = append(settings.EcsTrusted, string(n))
	}
	slices.Sort(settings.EcsTrusted)
	rdata, err := proto.MarshalOptions{Deterministic: true}.Marshal(settings)
	if err != nil {
		panic(fmt.Sprintf("encoding settings of a zone: %v", err)) // strings of the API server are UTF-8
	}
	return rdata
}
