package render

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// MaxFindings is how many findings a status lists; status.findingsTotal counts all.
const MaxFindings = 32

// ServerReport is what one connected server says of one zone that it should serve.
type ServerReport struct {
	Location
	Name    string
	Version zone.Version // held; zero if none
	Current bool         // serves the published version and has it on disk
	// Refusal quotes a server that refused the published version; NotDurable one that serves
	// it but could not write it. Empty where that is not so.
	Refusal    string
	NotDurable string
}

// StatusInputs is all that a zone's status says.
type StatusInputs struct {
	Zone      *v1alpha1.DNSZone // status as it is now: transition times are kept
	Placement *Placement
	Result    *Result // nil if the zone was not rendered
	Withheld  *Withheld
	Published *v1alpha1.PublishedVersion
	Failure   string         // why nothing could be decided, or not be published; "" if it was
	Records   map[string]int // records by source as last published in full
	Oversized *Oversized     // what does not fit into Placement.UDPOnly; nil: not known
	// InParent: what the parent publishes refers to this zone.
	InParent bool
	Servers  []ServerReport   // connected ones that should serve the zone
	Declared map[Location]int // how many servers there should be
	Now      metav1.Time
}

// ZoneStatus says what is true of a zone.
func ZoneStatus(in StatusInputs) v1alpha1.DNSZoneStatus {
	old := in.Zone.Status
	s := v1alpha1.DNSZoneStatus{
		ObservedGeneration: in.Zone.Generation,
		Conditions:         slices.Clone(old.Conditions),
		Published:          in.Published,
		Mode:               v1alpha1.ZoneModePrimary,
		Parent:             "",
		Findings:           old.Findings,
		FindingsTotal:      old.FindingsTotal,
	}
	if in.Placement.Parent.Name != "" {
		s.Parent = in.Placement.Parent.String()
	}
	if in.Published != nil {
		s.Records = in.Published.Records
	}
	for _, ns := range in.nameServers() {
		s.NameServers = append(s.NameServers, strings.TrimSuffix(ns.Host.String(), "."))
	}
	if in.Result != nil {
		s.FindingsTotal = int32(len(in.Result.Findings))
		s.Findings = slices.Clone(in.Result.Findings[:min(len(in.Result.Findings), MaxFindings)])
	}
	s.Sources = SourceStatuses(in.Records)
	set := func(typ string, is bool, reason, message string) {
		status := metav1.ConditionFalse
		if is {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: typ, Status: status, Reason: reason, Message: clip(message, 2048), ObservedGeneration: in.Zone.Generation, LastTransitionTime: in.Now,
		})
	}
	if in.Failure == "" {
		in.withheld(set)
	}
	in.oversized(set, func(typ string) { meta.RemoveStatusCondition(&s.Conditions, typ) })
	if in.Placement.Refused != nil {
		reason, message := in.Placement.Refused.Reason(), in.Placement.Refused.Error()
		if in.Placement.Keep {
			message += "; servers go on with what they have"
		}
		set(v1alpha1.ConditionAccepted, false, reason, message)
		set(v1alpha1.ConditionProgrammed, false, v1alpha1.ReasonNotAccepted, "the zone is not accepted")
		set(v1alpha1.ConditionReady, false, reason, message)
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionDegraded)
		in.delegated(&s, set)
		return s
	}
	set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, in.acceptedBy())
	in.delegated(&s, set)
	if in.Failure != "" {
		in.programmed(&s)
		set(v1alpha1.ConditionProgrammed, false, v1alpha1.ReasonPending, in.Failure)
		set(v1alpha1.ConditionReady, false, v1alpha1.ReasonPending, in.Failure)
		return s
	}
	programmed, reason, message := in.programmed(&s)
	set(v1alpha1.ConditionProgrammed, programmed, reason, message)
	if programmed {
		set(v1alpha1.ConditionReady, true, v1alpha1.ReasonReady, "accepted and programmed")
	} else {
		set(v1alpha1.ConditionReady, false, reason, message)
	}
	degraded, reason, message := in.degraded()
	set(v1alpha1.ConditionDegraded, degraded, reason, message)
	return s
}

// SourceStatuses writes counts of records by source, sorted.
func SourceStatuses(records map[string]int) []v1alpha1.SourceStatus {
	var sources []v1alpha1.SourceStatus
	for _, name := range sortedKeys(records) {
		sources = append(sources, v1alpha1.SourceStatus{Name: name, Records: int32(records[name])})
	}
	return sources
}

// nameServers are those that the zone has now; what is not known of them is left out.
func (in StatusInputs) nameServers() []NameServer {
	if in.Result != nil {
		return in.Result.NameServers
	}
	return slices.DeleteFunc(slices.Clone(in.Placement.NameServers), func(ns NameServer) bool { return len(ns.Addresses) == 0 })
}

type setCondition func(typ string, is bool, reason, message string)

func (in StatusInputs) acceptedBy() string {
	if in.Placement.Parent.Name == "" {
		return fmt.Sprintf("namespace %s may have zones without a parent", in.Zone.Namespace)
	}
	return fmt.Sprintf("allowed by zone %s (DNSZone %s)", in.Placement.ParentApex, in.Placement.Parent)
}

func (in StatusInputs) delegated(s *v1alpha1.DNSZoneStatus, set setCondition) {
	switch {
	case in.Placement.Parent.Name == "":
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionDelegated)
	case in.InParent:
		set(v1alpha1.ConditionDelegated, true, v1alpha1.ReasonDelegated,
			fmt.Sprintf("zone %s refers to %s", in.Placement.ParentApex, strings.Join(s.NameServers, ", ")))
	case in.Placement.Refused != nil:
		set(v1alpha1.ConditionDelegated, false, v1alpha1.ReasonNotAccepted, "the zone is not accepted")
	case len(in.nameServers()) == 0:
		set(v1alpha1.ConditionDelegated, false, v1alpha1.ReasonNoNameServers,
			fmt.Sprintf("no chosen datacenter has an address for server group %q", in.Zone.Spec.ServerGroup))
	default:
		set(v1alpha1.ConditionDelegated, false, v1alpha1.ReasonPending, fmt.Sprintf("zone %s does not refer to it yet", in.Placement.ParentApex))
	}
}

func (in StatusInputs) withheld(set setCondition) {
	w := in.Withheld
	if w == nil {
		set(v1alpha1.ConditionRemovalWithheld, false, v1alpha1.ReasonNothingWithheld, "no removal waits for approval")
		return
	}
	set(v1alpha1.ConditionRemovalWithheld, true, w.Reason, fmt.Sprintf(
		"%s would be removed, of %d (%s), so nothing is; e.g. at %s. To approve: kubectl annotate --overwrite dnszone -n %s %s %s=%s",
		count(w.Records, "record"), w.Of, w.Why, inText(w.Examples), in.Zone.Namespace, in.Zone.Name, v1alpha1.ApproveRemovalAnnotation, w.Digest))
}

// inText writes names for a sentence, as in spec.name: without the dot at the end.
func inText(names []zone.Name) string {
	texts := make([]string, len(names))
	for i, n := range names {
		if texts[i] = strings.TrimSuffix(n.String(), "."); texts[i] == "" {
			texts[i] = "."
		}
	}
	return strings.Join(texts, ", ")
}

// programmed fills the parts of the status that count servers.
func (in StatusInputs) programmed(s *v1alpha1.DNSZoneStatus) (programmed bool, reason, message string) {
	type tally struct {
		current, connected int
		lowest             uint32
	}
	tallies := map[string]*tally{}
	for _, l := range in.Placement.Locations {
		tallies[l.Datacenter] = &tally{}
	}
	var refused, notDurable, behind []string
	current := 0
	for _, srv := range in.Servers {
		t := tallies[srv.Datacenter]
		if t == nil {
			continue
		}
		t.connected++
		if v := srv.Version.Serial; v != 0 && (t.lowest == 0 || zone.SerialLess(v, t.lowest)) {
			t.lowest = v
		}
		who := srv.Datacenter + "/" + srv.Group + "/" + srv.Name
		switch {
		case srv.Current:
			t.current++
			current++
		case srv.Refusal != "":
			refused = append(refused, who+": "+srv.Refusal)
		case srv.NotDurable != "":
			notDurable = append(notDurable, who+": "+srv.NotDurable)
		default:
			behind = append(behind, who)
		}
	}
	total := 0
	for _, l := range in.Placement.Locations {
		t := tallies[l.Datacenter]
		should := max(in.Declared[l], t.connected)
		total += should
		dc := v1alpha1.ZoneDatacenterStatus{Name: v1alpha1.DatacenterName(l.Datacenter), Servers: fmt.Sprintf("%d/%d", t.current, should)}
		if t.lowest != 0 {
			serial := int64(t.lowest)
			dc.Serial = &serial
		}
		s.Datacenters = append(s.Datacenters, dc)
	}
	s.Programmed = fmt.Sprintf("%d/%d", current, total)
	slices.Sort(refused)
	slices.Sort(notDurable)
	slices.Sort(behind)
	switch {
	case in.Published == nil:
		return false, v1alpha1.ReasonPending, "nothing is published yet"
	case len(refused) > 0:
		return false, v1alpha1.ReasonRejected, "refused, the version before goes on being served: " + strings.Join(refused, "; ")
	case len(notDurable) > 0:
		return false, v1alpha1.ReasonNotDurable, "served, but not on disk: " + strings.Join(notDurable, "; ")
	case len(behind) > 0:
		return false, v1alpha1.ReasonPending, "waiting for " + strings.Join(behind, ", ")
	case current == 0:
		return false, v1alpha1.ReasonNoServers, fmt.Sprintf("no server of group %q is connected", in.Zone.Spec.ServerGroup)
	}
	return true, v1alpha1.ReasonProgrammed, "served and on disk at every server that can be reached"
}

func (in StatusInputs) degraded() (degraded bool, reason, message string) {
	connected := map[string]int{}
	for _, srv := range in.Servers {
		connected[srv.Datacenter]++
	}
	var away, short []string
	for _, l := range in.Placement.Locations {
		have, should := connected[l.Datacenter], in.Declared[l]
		switch {
		case have == 0:
			away = append(away, l.Datacenter)
		case have < should:
			short = append(short, fmt.Sprintf("%s: %d of %d servers", l.Datacenter, have, should))
		}
	}
	serious := 0
	first := ""
	missing := ""
	if in.Result != nil {
		for _, f := range in.Result.Findings {
			if missing == "" && f.Reason == v1alpha1.FindingSourceMissing {
				missing = f.Source + ": " + f.Message
			}
			if expected(f.Reason) {
				continue
			}
			if serious++; serious == 1 {
				first = describe(f)
			}
		}
	}
	switch {
	case len(away) > 0:
		return true, v1alpha1.ReasonDatacenterUnreachable, "no server connected in " + strings.Join(away, ", ")
	case len(short) > 0:
		return true, v1alpha1.ReasonServersMissing, strings.Join(short, "; ")
	case missing != "":
		return true, v1alpha1.ReasonSourceMissing, missing
	case serious > 0:
		return true, v1alpha1.ReasonFindings, fmt.Sprintf("%s, see status.findings; the first: %s", count(serious, "finding"), first)
	}
	return false, v1alpha1.ReasonHealthy, "all servers are connected and nothing was left out by mistake"
}

// expected reports findings that every imported zone has: they ask nobody to do anything.
func expected(reason string) bool {
	return reason == v1alpha1.FindingOperatorOwned || reason == v1alpha1.FindingDNSSECNotSigned
}

// describe writes a finding in one line.
func describe(f v1alpha1.Finding) string {
	where := f.Source
	if f.Line > 0 {
		where += fmt.Sprintf(" line %d", f.Line)
	}
	if where != "" {
		where += ": "
	}
	return where + f.Record + ": " + f.Message
}

// DatacenterServer is one server that has joined a datacenter.
type DatacenterServer struct {
	Group, Name, Version string
	Peer                 string                    // HOST:PORT where peers reach it; "": not known
	Current, Wanted      int                       // zones
	Synced               bool                      // it has all that it is to have, zones and documents
	Settings             bool                      // those of its group are in force
	Outdated             bool                      // its program knows no settings
	Refused              string                    // documents that it refused, and why; "" if it did not
	NotDurable           string                    // documents that are in force and not on its disk; "" if all are
	Vantage              *steeringpb.VantageReport // how it sees the other servers; nil: it has not told
	// Absent describes zones that the server holds, nobody wants any more, and whose removal waits for approval.
	Absent *Absence
}

// Absence is the removal of whole zones that waits for approval.
type Absence struct {
	Count    int
	Examples []zone.Name
	Digest   string
	Reason   string // of the condition RemovalWithheld
}

// DatacenterInputs is all that a Datacenter's status says.
type DatacenterInputs struct {
	Datacenter *v1alpha1.Datacenter
	Servers    []DatacenterServer    // connected
	Others     []v1alpha1.Datacenter // all that there are, itself too
	Foreign    []ForeignOverride     // in force at servers
	Undeclared []string              // datacenters of another hub cluster whose servers are here; sorted
	Workloads  *WorkloadReport       // of Managed groups; nil: they were not looked at yet
	Now        metav1.Time
}

// DatacenterStatus says which servers are connected and current. A server that left stays
// listed as long as fewer are connected than the group declares.
func DatacenterStatus(in DatacenterInputs) v1alpha1.DatacenterStatus {
	dc := in.Datacenter
	s := v1alpha1.DatacenterStatus{ObservedGeneration: dc.Generation, Conditions: slices.Clone(dc.Status.Conditions), Vantage: cmp.Or(vantage(in.Servers), dc.Status.Vantage)}
	declared, connected := map[string]int{}, map[string]int{}
	total := 0
	for _, g := range dc.Spec.ServerGroups {
		declared[g.Name] = DeclaredServers(g)
	}
	listed := map[string]v1alpha1.ServerStatus{}
	synced, settled := 0, map[string]int{}
	var refused, notDurable, outdated []string
	for _, srv := range in.Servers {
		who := srv.Group + "/" + srv.Name
		connected[srv.Group]++
		if srv.Synced {
			synced++
		}
		if srv.Settings {
			settled[srv.Group]++
		}
		if srv.Outdated {
			outdated = append(outdated, who)
		}
		if srv.Refused != "" {
			refused = append(refused, who+": "+srv.Refused)
		}
		if srv.NotDurable != "" {
			notDurable = append(notDurable, who+": "+srv.NotDurable)
		}
		listed[who] = v1alpha1.ServerStatus{
			Group: srv.Group, Name: srv.Name, State: v1alpha1.ServerConnected, Version: srv.Version, PeerAddress: srv.Peer,
			Zones: fmt.Sprintf("%d/%d", srv.Current, srv.Wanted),
		}
	}
	for _, g := range dc.Spec.ServerGroups {
		s.ServerGroups = append(s.ServerGroups, v1alpha1.ServerGroupStatus{
			Name: g.Name, LimitsMode: LimitsMode(WithAddresses(dc, g)), Addresses: KnownAddresses(dc, g.Name), Settings: fmt.Sprintf("%d/%d", settled[g.Name], connected[g.Name]),
		})
	}
	for _, name := range LeavingGroups(dc) {
		if !slices.ContainsFunc(s.ServerGroups, func(g v1alpha1.ServerGroupStatus) bool { return g.Name == name }) {
			s.ServerGroups = append(s.ServerGroups, v1alpha1.ServerGroupStatus{Name: name, Addresses: KnownAddresses(dc, name)})
		}
	}
	slices.SortFunc(s.ServerGroups, func(a, b v1alpha1.ServerGroupStatus) int { return strings.Compare(a.Name, b.Name) })
	for group, n := range declared {
		total += max(n, connected[group])
	}
	var away []string
	known := maps.Clone(connected)
	for _, srv := range dc.Status.Servers {
		if _, here := listed[srv.Group+"/"+srv.Name]; !here && known[srv.Group] < declared[srv.Group] {
			known[srv.Group]++
			srv.State, srv.Zones = v1alpha1.ServerDisconnected, ""
			listed[srv.Group+"/"+srv.Name] = srv
			away = append(away, srv.Group+"/"+srv.Name)
		}
	}
	for _, key := range sortedKeys(listed)[:min(len(listed), 64)] {
		s.Servers = append(s.Servers, listed[key])
	}
	s.ServersReady = fmt.Sprintf("%d/%d", len(in.Servers), total)
	s.Synced = fmt.Sprintf("%d/%d", synced, len(in.Servers))
	set := func(typ string, is bool, reason, message string) {
		status := metav1.ConditionFalse
		if is {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: typ, Status: status, Reason: reason, Message: clip(message, 2048), ObservedGeneration: dc.Generation, LastTransitionTime: in.Now,
		})
	}
	set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "the spec is valid")
	if shared := in.sharedNetworks(); shared != "" {
		set(v1alpha1.ConditionNetworkConflict, true, v1alpha1.ReasonSharedNetworks, shared)
	} else {
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionNetworkConflict)
	}
	workloads(in.Workloads, dc.Status, &s, set)
	missing := total - len(in.Servers)
	slices.Sort(refused)
	slices.Sort(notDurable)
	slices.Sort(outdated)
	programmed, reason, message := true, v1alpha1.ReasonProgrammed, "every connected server serves the published version of all its zones under the settings of its group"
	switch {
	case len(dc.Spec.ServerGroups) == 0:
		message = "no server group is declared"
	case len(in.Servers) == 0:
		programmed, reason, message = false, v1alpha1.ReasonNoServers, "no server is connected"
	case len(refused) > 0:
		programmed, reason, message = false, v1alpha1.ReasonRejected, "refused, what was in force before stays: "+strings.Join(refused, "; ")
	case len(notDurable) > 0:
		programmed, reason, message = false, v1alpha1.ReasonNotDurable, "in force, but not on disk: "+strings.Join(notDurable, "; ")
	case synced < len(in.Servers):
		programmed, reason = false, v1alpha1.ReasonPending
		message = fmt.Sprintf("%d of %d connected servers serve the published version of all their zones under the settings of their group", synced, len(in.Servers))
	}
	set(v1alpha1.ConditionProgrammed, programmed, reason, message)
	if programmed {
		reason = v1alpha1.ReasonReady
	}
	set(v1alpha1.ConditionReady, programmed, reason, message)
	switch {
	case missing > 0:
		message := count(missing, "declared server") + " not connected"
		if len(away) > 0 {
			slices.Sort(away)
			message += ": " + strings.Join(away, ", ")
		}
		set(v1alpha1.ConditionDegraded, true, v1alpha1.ReasonServersMissing, message)
	case len(outdated) > 0:
		set(v1alpha1.ConditionDegraded, true, v1alpha1.ReasonOutdated, "answer by the settings that they were started with, since their program knows no others: update "+strings.Join(outdated, ", "))
	default:
		set(v1alpha1.ConditionDegraded, false, v1alpha1.ReasonHealthy, "all declared servers are connected")
	}
	in.withheld(set)
	if text, _ := breakGlass(in.Servers, in.Now.Time); text != "" {
		set(v1alpha1.ConditionBreakGlass, true, "LocalOverrides", "made at servers by dnsserver ctl, and unknown to the API: "+text)
	} else if vantage(in.Servers) != "" { // else nobody has told yet: what is known stays
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionBreakGlass)
	}
	return s
}

// maxShared is how many networks a message lists that two datacenters have.
const maxShared = 4

// sharedNetworks says which networks the datacenter has in vain, since another has them that comes first; "": none.
func (in DatacenterInputs) sharedNetworks() string {
	own := map[netip.Prefix]bool{}
	for _, n := range in.Datacenter.Spec.Networks {
		if p, err := netip.ParsePrefix(string(n)); err == nil {
			own[p] = true
		}
	}
	var shared []string
	for i := range in.Others {
		other := &in.Others[i]
		if other.Name == in.Datacenter.Name || cmp.Or(cmp.Compare(rank(other), rank(in.Datacenter)), cmp.Compare(other.Name, in.Datacenter.Name)) > 0 {
			continue
		}
		for _, n := range other.Spec.Networks {
			if p, err := netip.ParsePrefix(string(n)); err == nil && own[p] {
				shared = append(shared, fmt.Sprintf("%s (%s)", p, other.Name))
			}
		}
	}
	if len(shared) == 0 {
		return ""
	}
	slices.Sort(shared)
	rest := ""
	if n := len(shared) - maxShared; n > 0 {
		rest = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("clients in %s%s are near the other Datacenter, which comes first by rank and name: take the network out of one of the two, or divide it",
		strings.Join(shared[:min(len(shared), maxShared)], ", "), rest)
}

// DatacenterChanges returns when the status changes by itself; zero: it does not.
func DatacenterChanges(in DatacenterInputs) time.Time {
	_, until := breakGlass(in.Servers, in.Now.Time)
	return until
}

// withheld says which removals wait for approval: of zones that nobody wants any more, and of overrides of another hub cluster.
func (in DatacenterInputs) withheld(set setCondition) {
	reason, message, digests := in.withheldZones()
	if len(in.Foreign) > 0 {
		texts := make([]string, 0, maxForeign)
		for _, o := range in.Foreign[:min(len(in.Foreign), maxForeign)] {
			texts = append(texts, fmt.Sprintf("%s (%s) until %s", o.GetSource(), localAction(o.Override), time.UnixMilli(int64(o.GetExpires())).UTC().Format(time.RFC3339)))
			digests = append(digests, o.Digest)
		}
		if message != "" {
			message += ". "
		}
		message += fmt.Sprintf("%s of another hub cluster in no TrafficOverride here, and in force until the end: %s. Apply here what is missing; or, to end all that is listed: kubectl annotate --overwrite datacenter %s %s=%s",
			plural(len(in.Foreign), "override is", "overrides are"), strings.Join(texts, "; "), in.Datacenter.Name, v1alpha1.ApproveRemovalAnnotation, strings.Join(digests, ","))
		reason = cmp.Or(reason, v1alpha1.ReasonSourceVanished)
	}
	if len(in.Undeclared) > 0 {
		if message != "" {
			message += ". "
		}
		message += fmt.Sprintf("servers of %s have zones of another hub cluster, and there is no such Datacenter here: until it is applied, or they are stopped, servers stay with what they were told of who is where",
			strings.Join(in.Undeclared, ", "))
		reason = cmp.Or(reason, v1alpha1.ReasonSourceVanished)
	}
	if message == "" {
		set(v1alpha1.ConditionRemovalWithheld, false, v1alpha1.ReasonNothingWithheld, "no removal waits for approval")
		return
	}
	set(v1alpha1.ConditionRemovalWithheld, true, reason, message)
}

// maxForeign is how many overrides of another hub cluster a message lists at once.
const maxForeign = 8

// withheldZones lists the removals that wait for approval. Servers may wait with different ones: each has its own digest.
func (in DatacenterInputs) withheldZones() (reason, message string, digests []string) {
	absences := map[string]*Absence{} // by digest
	for _, srv := range in.Servers {
		if srv.Absent != nil {
			absences[srv.Absent.Digest] = srv.Absent
		}
	}
	if len(absences) == 0 {
		return "", "", nil
	}
	digests = sortedKeys(absences)
	slices.SortStableFunc(digests, func(a, b string) int { return cmp.Compare(absences[b].Count, absences[a].Count) })
	digests = digests[:min(len(digests), maxAbsences)]
	what := make([]string, len(digests))
	for i, d := range digests {
		what[i] = fmt.Sprintf("%s, e.g. %s (%s)", count(absences[d].Count, "zone"), inText(absences[d].Examples), d)
	}
	first := absences[digests[0]]
	if len(digests) == 1 {
		return first.Reason, fmt.Sprintf(
			"%s that servers hold are in no DNSZone any more and go on being served, e.g. %s. To approve their removal: kubectl annotate --overwrite datacenter %s %s=%s",
			count(first.Count, "zone"), inText(first.Examples), in.Datacenter.Name, v1alpha1.ApproveRemovalAnnotation, digests[0]), digests
	}
	return first.Reason, fmt.Sprintf(
		"servers hold zones that are in no DNSZone any more and go on being served, not all the same: %s. To approve the removal of all: kubectl annotate --overwrite datacenter %s %s=%s",
		strings.Join(what, "; "), in.Datacenter.Name, v1alpha1.ApproveRemovalAnnotation, strings.Join(digests, ",")), digests
}

// maxAbsences is how many different removals a message lists at once, those of most zones first.
const maxAbsences = 4

// DeclaredServers is how many servers a group should have: its replicas, or one for each
// address where others start them.
func DeclaredServers(g v1alpha1.ServerGroup) int {
	if g.Management == v1alpha1.ServerGroupManaged {
		return int(ptr.Deref(g.Replicas, defaultReplicas))
	}
	return len(g.Addresses)
}

// defaultReplicas is how many servers a Managed group has that does not say.
const defaultReplicas = 2
