package render

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Inputs is all that a zone's content depends on.
type Inputs struct {
	Zone      *v1alpha1.DNSZone // spec, uid and generation count
	Placement *Placement
	Sources   []Source // one for each entry of spec.recordsFrom, in its order
	// Steered are the zone's steered names; nil: none.
	Steered *Steered
	// Published is the content that servers hold or are to hold; nil where there is none or it
	// is unknown. Only delegations to children whose spec is wrong are taken from it, addresses of name servers that are not
	// known now, and which of a steered name and the records beside it was there first.
	Published *zone.Content
	// Hides are names of the parent that this zone's cut hides; see Result.Hidden.
	Hides Hidden
}

// Source is the text of one entry of spec.recordsFrom.
type Source struct {
	Name    string // as in findings: configmap/NAME/KEY
	Version string // changes when Text does: UID and resourceVersion; "" if Missing
	Text    string
	Missing bool // the ConfigMap or its key does not exist
}

// Hidden are names that a zone cut makes invisible.
type Hidden struct {
	Count    int
	Examples []zone.Name // the first, at most 3
}

// Result is one rendered zone. It serves as the memory for rendering the next version.
type Result struct {
	Content *zone.Content
	// Findings are what is wrong in the input, in the order of sources and lines.
	Findings []v1alpha1.Finding
	// Hidden are the records below each delegation to a child zone of the estate: the
	// child reports them too.
	Hidden map[zone.Name]Hidden
	// NameServers are those of the zone, as it was rendered: none is without an address.
	NameServers []NameServer
	// SerialFloor is the highest serial of imported SOA records; 0 if there is none.
	SerialFloor uint32
	// Unknown lists sources that are missing and whose last content is not remembered: what
	// is published must not be diminished on their account.
	Unknown []string

	settings  settings
	sources   []*source // spec.records first, then Inputs.Sources, then the DynamicRecords
	steered   map[zone.Name]steeredOwner
	published *zone.Content
	operator  map[zone.Name][]zone.Record
	byOwner   map[zone.Name][]v1alpha1.Finding // what merging an owner found; only owners with findings
	byCut     map[zone.Name]hiddenBy           // zone cuts and DNAMEs that hide names
	// referrals are the zone's own NS and those of its children, as asked for.
	referrals map[zone.Name]referral
}

type hiddenBy struct {
	Hidden
	delegation bool // to a child zone of the estate
}

// settings are the parts of a spec that touch every owner.
type settings struct {
	apex            zone.Name
	ttl, min, max   uint32
	negative, infra uint32
	soa             zone.SOA
	sources         string // their names in order: another list means a full merge
}

// Zone renders one zone. It is total: a bad record is left out and becomes a Finding, so
// that one user's mistake never stops another user's names.
//
// Given the result of an earlier version, or nil, it parses and merges only what changed;
// the outcome is the same. Which of two records stays where both can't is zone.CheckNode's rule.
func Zone(in Inputs, prev *Result) *Result {
	in.Placement = in.Placement.asPublished(in.Published)
	r := &Result{settings: settingsOf(in), NameServers: in.Placement.NameServers}
	full := prev == nil || prev.settings != r.settings
	if full {
		r.byOwner, r.byCut = map[zone.Name][]v1alpha1.Finding{}, map[zone.Name]hiddenBy{}
	} else {
		r.byOwner, r.byCut = maps.Clone(prev.byOwner), maps.Clone(prev.byCut)
	}
	r.sources = append(r.parse(in, prev), in.Steered.source())
	if in.Steered != nil {
		r.steered = in.Steered.owners
	}
	r.published = in.Published
	r.operator = operatorRecords(in, r.settings)

	changed := map[zone.Name]bool{}
	if full {
		for _, s := range r.sources {
			for owner := range s.owners {
				changed[owner] = true
			}
		}
		for owner := range r.operator {
			changed[owner] = true
		}
	} else {
		for i, s := range r.sources {
			if s == prev.sources[i] {
				continue
			}
			differ(prev.sources[i].owners, s.owners, changed)
		}
		differ(prev.operator, r.operator, changed)
	}
	r.merge(prev, full, changed)
	r.occlude(prev, full, changed)
	r.oversized(in, prev)
	r.report(in)
	return r
}

// differ adds to changed the owners whose records are not the same in both maps.
func differ(before, after map[zone.Name][]zone.Record, changed map[zone.Name]bool) {
	for owner, records := range after {
		if !slices.EqualFunc(before[owner], records, sameRecord) {
			changed[owner] = true
		}
	}
	for owner := range before {
		if _, stays := after[owner]; !stays {
			changed[owner] = true
		}
	}
}

// sameRecord compares lines too: findings quote them.
func sameRecord(a, b zone.Record) bool {
	return a.Line == b.Line && a.Type == b.Type && a.TTL == b.TTL && a.HasTTL == b.HasTTL && bytes.Equal(a.RData, b.RData)
}

// merge renders every changed owner into the content.
func (r *Result) merge(prev *Result, full bool, changed map[zone.Name]bool) {
	nodes := make([]zone.Node, 0, len(changed))
	for owner := range changed {
		node, findings := r.node(owner)
		if len(findings) > 0 {
			r.byOwner[owner] = findings
		} else {
			delete(r.byOwner, owner)
		}
		if !full {
			if old := prev.Content.Node(owner); old == nil && len(node.RRsets) == 0 || old != nil && old.Equal(&node) {
				continue
			}
		}
		nodes = append(nodes, node)
	}
	var err error
	if full {
		r.Content, err = zone.NewContent(r.settings.apex, nodes)
	} else {
		r.Content, err = prev.Content.With(nodes...)
	}
	if err != nil {
		// Owners were checked to be in the zone, and a map has each once.
		panic(fmt.Sprintf("rendering zone %s: %v", r.settings.apex, err))
	}
}

// node merges the records of all sources at one owner.
func (r *Result) node(owner zone.Name) (zone.Node, []v1alpha1.Finding) {
	var findings []v1alpha1.Finding
	records := slices.Clone(r.operator[owner])
	origin := make([]string, len(records)) // the source of each record; "" is the operator
	reserved, delegated := r.reserved(owner)
	for _, s := range r.sources {
		for _, rec := range s.owners[owner] {
			steered := rec.Type == zone.TypeSteered
			switch {
			case steered && (reserved != "" || delegated):
				why, what := v1alpha1.FindingOperatorOwned, reserved
				if delegated {
					why, what = v1alpha1.FindingOccluded, "the name is delegated to a child zone, write the record there"
				}
				findings = append(findings, v1alpha1.Finding{Source: steeredSource(r.steered[owner].source), Record: owner.String(), Reason: why, Message: "left out: " + what})
				continue
			case steered:
				var more []v1alpha1.Finding
				records, origin, more = r.mergeSteered(rec, records, origin)
				findings = append(findings, more...)
				continue
			case reserved != "":
				findings = append(findings, finding(s.name, rec, v1alpha1.FindingOperatorOwned, "left out: "+reserved))
				continue
			case delegated && rec.Type == zone.TypeNS:
				findings = append(findings, finding(s.name, rec, v1alpha1.FindingOperatorOwned,
					"left out: the operator delegates this name to a child zone, see spec.allowedChildren"))
				continue
			case delegated && rec.Type != zone.TypeDS:
				findings = append(findings, finding(s.name, rec, v1alpha1.FindingOccluded,
					"left out: the name is delegated to a child zone, write the record there"))
				continue
			}
			if !rec.HasTTL {
				rec.TTL = r.settings.ttl
			}
			rec.TTL = min(max(rec.TTL, r.settings.min), r.settings.max)
			records = append(records, rec)
			origin = append(origin, s.name)
		}
	}
	node, more := mergeNode(r.settings.apex, owner, records, origin)
	return node, append(findings, more...)
}

// mergeNode makes RRsets of an owner's records and leaves out what can't be served together.
// origin has the source of each record, "" for the operator.
func mergeNode(apex, owner zone.Name, records []zone.Record, origin []string) (zone.Node, []v1alpha1.Finding) {
	var findings []v1alpha1.Finding
	var order []uint16
	rdata, ttl := map[uint16][][]byte{}, map[uint16]uint32{}
	for i, rec := range records {
		lowest, seen := ttl[rec.Type]
		switch {
		case !seen:
			order = append(order, rec.Type)
			ttl[rec.Type] = rec.TTL
		case rec.TTL != lowest:
			ttl[rec.Type] = min(lowest, rec.TTL)
			findings = append(findings, finding(origin[i], rec, v1alpha1.FindingTTLMismatch,
				fmt.Sprintf("TTL %d differs from that of other records of this name and type; all are served with the lowest (RFC 2181 §5.2)", rec.TTL)))
		}
		rdata[rec.Type] = append(rdata[rec.Type], rec.RData)
	}
	sets := make([]zone.RRset, 0, len(order))
	for _, typ := range order {
		sets = append(sets, zone.NewRRset(typ, ttl[typ], rdata[typ]...))
	}
	node, dropped := zone.CheckNode(apex, zone.NewNode(owner, sets...))
	for _, d := range dropped {
		for gone := range d.RRset.All() {
			for i, rec := range records {
				if rec.Type == d.RRset.Type && string(rec.RData) == gone {
					findings = append(findings, finding(origin[i], rec, d.Err.Reason(), "left out: "+d.Err.Error()))
				}
			}
		}
	}
	return node, findings
}

// reserved says why owner belongs to the operator alone, "" if it does not, and whether it
// is the cut of a child zone.
func (r *Result) reserved(owner zone.Name) (why string, delegated bool) {
	own := r.operator[owner]
	if len(own) == 0 || owner == r.settings.apex {
		return "", false
	}
	if own[0].Type == zone.TypeNS {
		return "", true
	}
	return "the operator makes the addresses of name servers, from the Datacenters", false
}

// occlude finds the names that can't be seen because a zone cut or a DNAME lies above them
// (RFC 2136 §7.18). Addresses below a cut to servers outside the estate may be glue.
func (r *Result) occlude(prev *Result, full bool, changed map[zone.Name]bool) {
	if full {
		r.scan(r.settings.apex)
		return
	}
	cut := func(owner zone.Name) bool { return r.isCut(r.Content.Node(owner)) || r.isCut(prev.Content.Node(owner)) }
	for owner := range changed {
		var region zone.Name // the highest cut, now or before, decides about all below it
		for above := owner; above.Within(r.settings.apex); above = above.Parent() {
			if cut(above) {
				region = above
			}
		}
		if region != "" {
			r.scan(region)
		}
	}
}

// isCut reports whether the names below n can't be seen.
func (r *Result) isCut(n *zone.Node) bool {
	return n.Has(zone.TypeDNAME) || n.Has(zone.TypeNS) && n.Owner != r.settings.apex
}

// scan works out anew what is hidden at and below region.
func (r *Result) scan(region zone.Name) {
	if region == r.settings.apex {
		clear(r.byCut)
	} else {
		for cut := range r.byCut {
			if cut.Within(region) {
				delete(r.byCut, cut)
			}
		}
	}
	var cut zone.Name
	var found hiddenBy
	flush := func() {
		if cut != "" && found.Count > 0 {
			r.byCut[cut] = found
		}
		cut = ""
	}
	for n := range r.Content.Within(region) {
		if cut != "" && n.Owner.Below(cut) {
			if hidden := hiddenRecords(n, r, found.delegation); hidden > 0 {
				found.Count += hidden
				if len(found.Examples) < 3 {
					found.Examples = append(found.Examples, n.Owner)
				}
			}
			continue
		}
		flush()
		if r.isCut(n) {
			own := r.operator[n.Owner]
			cut, found = n.Owner, hiddenBy{delegation: n.Owner != r.settings.apex && len(own) > 0 && own[0].Type == zone.TypeNS}
		}
	}
	flush()
}

// hiddenRecords counts the records of a node below a cut that can't be seen there.
func hiddenRecords(n *zone.Node, r *Result, delegation bool) int {
	if len(r.operator[n.Owner]) > 0 {
		return 0 // glue that the operator made
	}
	count := 0
	for _, s := range n.RRsets {
		if delegation || s.Type != zone.TypeA && s.Type != zone.TypeAAAA {
			count += s.Len()
		}
	}
	return count
}

// report puts everything found into an order that does not depend on how it was found.
func (r *Result) report(in Inputs) {
	r.Findings = nil
	order := map[string]int{}
	for i, s := range r.sources {
		order[s.name] = i + 1
		r.Findings = append(r.Findings, s.findings...)
		r.SerialFloor = max(r.SerialFloor, s.serial)
		if s.unknown {
			r.Unknown = append(r.Unknown, s.name)
		}
	}
	for _, list := range r.byOwner {
		r.Findings = append(r.Findings, list...)
	}
	r.Hidden = map[zone.Name]Hidden{}
	for cut, hidden := range r.byCut {
		what := "the zone cut (NS) or DNAME at this name"
		if hidden.delegation {
			r.Hidden[cut] = hidden.Hidden
			what = "the delegation to child zone " + cut.String()
		}
		r.Findings = append(r.Findings, v1alpha1.Finding{
			Record: cut.String(), Reason: v1alpha1.FindingOccluded,
			Message: fmt.Sprintf("%s hides %s below it: %s", what, count(hidden.Count, "record"), examples(hidden.Hidden)),
		})
	}
	if len(r.byCut) > 0 {
		for owner, o := range r.steered {
			if f, hidden := r.hiddenRecord(owner, o); hidden {
				r.Findings = append(r.Findings, f)
			}
		}
	}
	if in.Hides.Count > 0 {
		r.Findings = append(r.Findings, v1alpha1.Finding{
			Record: r.settings.apex.String(), Reason: v1alpha1.FindingOccluded,
			Message: fmt.Sprintf("the cut of this zone hides %s of the parent zone: %s; move them here",
				count(in.Hides.Count, "record"), examples(in.Hides)),
		})
	}
	for _, dc := range in.Placement.Unnamed {
		r.Findings = append(r.Findings, v1alpha1.Finding{
			Record: r.settings.apex.String() + " NS", Reason: v1alpha1.FindingTooManyNameServers,
			Message: fmt.Sprintf("datacenter %s serves the zone but gets no NS record: a zone has at most %d name servers, whose names are at most %d octets long",
				dc, MaxNameServers, zone.MaxName),
		})
	}
	for _, answer := range r.referrals {
		if answer.finding != nil {
			r.Findings = append(r.Findings, *answer.finding)
		}
	}
	slices.SortFunc(r.Findings, func(a, b v1alpha1.Finding) int {
		return cmp.Or(cmp.Compare(order[a.Source], order[b.Source]), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Record, b.Record), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
}

func examples(h Hidden) string {
	names := make([]string, len(h.Examples))
	for i, n := range h.Examples {
		names[i] = n.String()
	}
	text := strings.Join(names, ", ")
	if h.Count > len(names) {
		text += ", ..."
	}
	return text
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func finding(source string, rec zone.Record, reason, message string) v1alpha1.Finding {
	return v1alpha1.Finding{
		Source: source, Line: int32(rec.Line), Reason: reason, Message: message,
		Record: fmt.Sprintf("%s %s", rec.Owner, zone.TypeString(rec.Type)),
	}
}

func settingsOf(in Inputs) settings {
	spec := &in.Zone.Spec
	s := settings{
		apex:     in.Placement.Apex,
		ttl:      seconds(spec.TTL.Default, 60),
		negative: seconds(spec.TTL.Negative, 30),
		infra:    seconds(spec.TTL.Infrastructure, defaultInfrastructureTTL),
		min:      seconds(spec.TTL.Min, 0),
		max:      seconds(spec.TTL.Max, zone.MaxTTL),
	}
	s.soa = zone.SOA{
		RName:   mailbox(spec.SOA.Contact, s.apex),
		Refresh: seconds(spec.SOA.Refresh, 3600), Retry: seconds(spec.SOA.Retry, 900),
		Expire: seconds(spec.SOA.Expire, 14*24*3600), Minimum: s.negative,
	}
	for _, src := range in.Sources {
		s.sources += src.Name + "\n"
	}
	return s
}

// defaultInfrastructureTTL is in seconds.
const defaultInfrastructureTTL = 24 * 3600

// seconds reads a duration; the API server has checked its form.
func seconds(d v1alpha1.Duration, unset uint32) uint32 {
	v, err := d.Parse()
	if err != nil {
		return unset
	}
	return uint32(min(v/time.Second, zone.MaxTTL))
}

// mailbox turns a mail address or a name into the RNAME of a SOA (RFC 1035 §8): the part
// before the @ is one label, dots and all.
func mailbox(contact string, apex zone.Name) zone.Name {
	local, host, isMail := strings.Cut(contact, "@")
	if !isMail {
		local, host = "", contact
	}
	name, err := zone.ParseName(host, "")
	if err == nil && isMail {
		name, err = name.Child(local)
	}
	if contact != "" && err == nil {
		return name
	}
	if name, err = apex.Child("hostmaster"); err != nil {
		return apex
	}
	return name
}

// operatorRecords are the records that the operator makes: SOA and NS of the apex, the
// addresses of the name servers, and the delegations to children with their glue.
func operatorRecords(in Inputs, s settings) map[zone.Name][]zone.Record {
	records := map[zone.Name][]zone.Record{}
	add := func(owner zone.Name, typ uint16, ttl uint32, rdata []byte) {
		records[owner] = append(records[owner], zone.Record{Owner: owner, Type: typ, TTL: ttl, HasTTL: true, RData: rdata})
	}
	point := func(at zone.Name, servers []NameServer) {
		for _, ns := range servers {
			add(at, zone.TypeNS, s.infra, []byte(ns.Host))
		}
		for _, ns := range servers {
			for _, a := range ns.Addresses {
				if a.Is4() {
					add(ns.Host, zone.TypeA, s.infra, a.AsSlice())
				} else {
					add(ns.Host, zone.TypeAAAA, s.infra, a.AsSlice())
				}
			}
		}
	}
	soa := s.soa
	soa.MName = s.apex
	if len(in.Placement.NameServers) > 0 {
		soa.MName = in.Placement.NameServers[0].Host
	}
	add(s.apex, zone.TypeSOA, s.infra, soa.Pack())
	point(s.apex, in.Placement.NameServers)
	if ecs := in.Zone.Spec.ECS; ecs != nil {
		add(s.apex, zone.TypeZoneSettings, 0, zoneSettings(ecs))
	}
	for _, child := range in.Placement.Children {
		if !child.Frozen {
			point(child.Child, child.NameServers)
			continue
		}
		maps.Copy(records, publishedDelegation(in.Published, child.Child))
	}
	return records
}

// asPublished returns the placement with the published addresses of those name servers, its own and its children's, whose
// addresses are not known now; without the name servers that have none.
func (p *Placement) asPublished(published *zone.Content) *Placement {
	resolve := func(servers []NameServer) ([]NameServer, bool) {
		if !slices.ContainsFunc(servers, func(ns NameServer) bool { return len(ns.Addresses) == 0 }) {
			return servers, false
		}
		var known []NameServer
		for _, ns := range servers {
			if len(ns.Addresses) == 0 {
				ns.Addresses = publishedAddresses(published, ns.Host)
			}
			if len(ns.Addresses) > 0 {
				known = append(known, ns)
			}
		}
		return known, true
	}
	own, changed := resolve(p.NameServers)
	children := slices.Clone(p.Children)
	for i, child := range children {
		servers, other := resolve(child.NameServers)
		children[i].NameServers, changed = servers, changed || other
	}
	if !changed {
		return p
	}
	resolved := *p
	resolved.NameServers, resolved.Children = own, children
	return &resolved
}

// publishedAddresses are those that published content, which may be nil, has at a name; sorted.
func publishedAddresses(published *zone.Content, host zone.Name) []netip.Addr {
	if published == nil {
		return nil
	}
	var all []netip.Addr
	node := published.Node(host)
	for _, typ := range []uint16{zone.TypeA, zone.TypeAAAA} {
		for rdata := range node.RRset(typ).All() {
			if a, ok := netip.AddrFromSlice([]byte(rdata)); ok {
				all = append(all, a)
			}
		}
	}
	return sortAddresses(all)
}

// publishedDelegation is what published content says of a child: its NS and their glue below it.
func publishedDelegation(published *zone.Content, child zone.Name) map[zone.Name][]zone.Record {
	records := map[zone.Name][]zone.Record{}
	if published == nil {
		return records
	}
	keep := func(owner zone.Name, types ...uint16) {
		node := published.Node(owner)
		for _, typ := range types {
			set := node.RRset(typ)
			for rdata := range set.All() {
				records[owner] = append(records[owner], zone.Record{Owner: owner, Type: typ, TTL: set.TTL, HasTTL: true, RData: []byte(rdata)})
			}
		}
	}
	keep(child, zone.TypeNS)
	for _, ns := range records[child] {
		if host, _, err := zone.NameFromWire(ns.RData); err == nil && host.Below(child) {
			keep(host, zone.TypeA, zone.TypeAAAA)
		}
	}
	return records
}

// Key identifies the object that a result is of.
func Key(z *v1alpha1.DNSZone) types.NamespacedName {
	return types.NamespacedName{Namespace: z.Namespace, Name: z.Name}
}
