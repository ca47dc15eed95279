package render

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// PoolStatusInputs is all that the status of a pool is made of.
type PoolStatusInputs struct {
	Pool *v1alpha1.ResolverPool
	// Refused is why members in datacenters that Configs lack are told nothing new; nil: there are none.
	Refused Refusal
	Configs []PoolDatacenter // by name of the datacenter; none: it is not known where members are to be
	Agents  []PoolAgent      // connected, in any order
	Pods    *PoolPods        // of a Managed pool; nil: they were not looked at yet, or it has none
	// Lapsed are those of the status's SourceAddresses that no member has told for long.
	Lapsed map[v1alpha1.IP]bool
	Now    metav1.Time
}

// PoolDatacenter is a datacenter that a pool is in.
type PoolDatacenter struct {
	Name    string
	Refused Refusal // why members there are told nothing new; nil: they are told what follows
	// Digest is that of what they are told, and Unsupported what their programs can't do.
	Digest      string
	Unsupported map[v1alpha1.ResolverEngine][]string
}

// PoolAgent is an agent with a stream to the hub.
type PoolAgent struct {
	Datacenter, Name string
	Report           *pool.Report // nil: it has not told anything yet
	Nack             string       // why it refuses what it was sent; "": it does not
}

// PoolPods is what became of the members that the operator runs.
type PoolPods struct {
	Counts    map[MemberPlace]PodCount // none of a datacenter whose cluster is away
	Addresses []netip.Addr             // at which clients reach them, sorted
	Troubles  []Refusal                // the first to be mended first
}

// MemberPlace is one program of a pool in one datacenter.
type MemberPlace struct {
	Datacenter string
	Engine     v1alpha1.ResolverEngine
}

// PodCount is how many pods there are to be, and how many are ready.
type PodCount struct{ Desired, Ready int32 }

func (m *PoolAgent) String() string {
	who := m.Datacenter + "/" + m.Name
	if m.Report != nil {
		who += " (" + string(m.Report.Engine) + ")"
	}
	return who
}

func (m *PoolAgent) place() MemberPlace {
	if m.Report == nil {
		return MemberPlace{Datacenter: m.Datacenter}
	}
	return MemberPlace{m.Datacenter, v1alpha1.ResolverEngine(m.Report.Engine)}
}

// poolStatus is a status on its way.
type poolStatus struct {
	PoolStatusInputs
	v1alpha1.ResolverPoolStatus
	desired, ready map[MemberPlace]int32
	told           map[string]string // digest of what members are told, by datacenter; without those that are told nothing new
}

// PoolStatus says how a pool is doing. What members were told before goes on while they are told nothing new.
func PoolStatus(in PoolStatusInputs) v1alpha1.ResolverPoolStatus {
	in.Agents = slices.Clone(in.Agents)
	slices.SortFunc(in.Agents, func(a, b PoolAgent) int {
		return cmp.Or(cmp.Compare(a.Datacenter, b.Datacenter), cmp.Compare(a.Name, b.Name))
	})
	s := poolStatus{PoolStatusInputs: in, desired: map[MemberPlace]int32{}, ready: map[MemberPlace]int32{}, told: map[string]string{}}
	s.ObservedGeneration, s.Conditions = in.Pool.Generation, slices.Clone(in.Pool.Status.Conditions)
	s.count()
	s.SourceAddresses = s.sources()
	accepted := s.accepted()
	programmed, reason, message := s.programmed()
	if !accepted {
		programmed, reason, message = false, v1alpha1.ReasonNotAccepted, "members that this is about are told nothing new, and go on as they are"
	}
	s.set(v1alpha1.ConditionProgrammed, programmed, reason, message)
	s.becomes(v1alpha1.ConditionReady, accepted, programmed, reason, message)
	s.degraded()
	s.recursion()
	s.flushable()
	s.clientAddresses()
	if in.Pods == nil {
		if in.Pool.Spec.Management == v1alpha1.ResolverPoolExternal {
			meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionWorkloadsReady)
		}
	} else if t := in.Pods.Troubles; len(t) > 0 {
		s.set(v1alpha1.ConditionWorkloadsReady, false, t[0].Reason(), strings.Join(refusals(t), "; "))
	} else {
		s.set(v1alpha1.ConditionWorkloadsReady, true, v1alpha1.ReasonWorkloadsReady, "members run as declared")
	}
	return s.ResolverPoolStatus
}

func refusals(of []Refusal) []string {
	texts := make([]string, len(of))
	for i, r := range of {
		texts[i] = r.Error()
	}
	return texts
}

func (s *poolStatus) set(typ string, is bool, reason, message string) {
	status := metav1.ConditionFalse
	if is {
		status = metav1.ConditionTrue
	}
	s.condition(typ, status, reason, message)
}

func (s *poolStatus) condition(typ string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: typ, Status: status, Reason: reason, Message: clip(message, 2048), ObservedGeneration: s.Pool.Generation, LastTransitionTime: s.Now,
	})
}

// count fills in who there is to be, and who answers.
func (s *poolStatus) count() {
	var datacenters, engines []string
	for _, c := range s.Configs {
		datacenters = append(datacenters, c.Name)
		if c.Refused == nil {
			s.told[c.Name] = c.Digest
		}
	}
	for _, m := range s.Pool.Spec.Members {
		engines = append(engines, string(m.Engine))
		for _, dc := range datacenters {
			at := MemberPlace{dc, m.Engine}
			s.desired[at] = DeclaredMembers(m)
			if n, counted := s.counted(at); counted {
				s.desired[at], s.ready[at] = n.Desired, n.Ready
			}
		}
	}
	if len(s.Configs) == 0 { // those that there were are
		datacenters = splitList(s.Pool.Status.Datacenters)
		for _, m := range s.Pool.Status.Members {
			s.desired[MemberPlace{string(m.Datacenter), m.Engine}] = ptr.Deref(m.Desired, 0)
		}
	}
	for i := range s.Agents {
		m := &s.Agents[i]
		if _, counted := s.counted(m.place()); !counted && m.Report != nil && m.Report.Ready {
			s.ready[m.place()]++
		}
	}
	slices.Sort(engines)
	s.Engines, s.Datacenters, s.VIP = strings.Join(engines, ","), strings.Join(datacenters, ","), strings.Join(s.vips(), ",")
	ready, all := int32(0), int32(0)
	for _, at := range s.places() {
		all += max(s.desired[at], s.ready[at])
		ready += s.ready[at]
		s.ResolverPoolStatus.Members = append(s.ResolverPoolStatus.Members, v1alpha1.ResolverMemberStatus{
			Datacenter: v1alpha1.DatacenterName(at.Datacenter), Engine: at.Engine, Desired: new(s.desired[at]), Ready: new(s.ready[at]),
			Unsupported: s.unsupported(at), Message: clip(strings.Join(s.faults(at), "; "), 1024),
		})
	}
	s.ReadyMembers = fmt.Sprintf("%d/%d", ready, all)
}

func splitList(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// places are those of members that there are to be or that answer, at most 192 as in the status, sorted.
func (s *poolStatus) places() []MemberPlace {
	all := maps.Clone(s.desired)
	for at := range s.ready {
		all[at] += 0
	}
	sorted := slices.SortedFunc(maps.Keys(all), func(a, b MemberPlace) int {
		return cmp.Or(cmp.Compare(a.Datacenter, b.Datacenter), cmp.Compare(a.Engine, b.Engine))
	})
	return sorted[:min(len(sorted), 192)]
}

// unsupported is what of the spec a program can't do.
func (s *poolStatus) unsupported(at MemberPlace) []string {
	for _, c := range s.Configs {
		if c.Name != at.Datacenter {
			continue
		}
		var all []string
		for _, text := range c.Unsupported[at.Engine] {
			all = append(all, clip(text, 256))
		}
		return all[:min(len(all), 32)]
	}
	return nil
}

// faults are what is wrong with the connected members of a place, each with its name.
func (s *poolStatus) faults(at MemberPlace) []string {
	var all []string
	for i := range s.Agents {
		m := &s.Agents[i]
		if m.place() != at {
			continue
		}
		if why := s.refused(m); why != "" {
			all = append(all, m.Name+" refuses its configuration: "+why)
		}
		if m.Report.Pending != "" {
			all = append(all, m.Name+" "+m.Report.Pending)
		}
		if at := m.Report.Flush.Missed; !at.IsZero() {
			all = append(all, m.Name+" may have old copies of names that changed before "+at.Format("2006-01-02T15:04:05Z07:00")+": it was away for longer than servers remember changes")
		}
		if !m.Report.Ready && m.Report.NotReady != "" {
			all = append(all, m.Name+" is not ready: "+m.Report.NotReady)
		}
	}
	return all
}

// refused is what a member complains about in what it is told now; "": it does not.
func (s *poolStatus) refused(m *PoolAgent) string {
	told := s.told[m.Datacenter]
	switch r := m.Report; {
	case told == "":
		return ""
	case r != nil && r.Refused != "" && (r.Newest == told || r.Newest == ""):
		return r.Refused
	case r != nil && r.Configuration == told:
		return ""
	default:
		return m.Nack
	}
}

// counted is how many pods there are of a program in a datacenter; false: agents alone tell.
func (s *poolStatus) counted(at MemberPlace) (PodCount, bool) {
	if s.Pods == nil {
		return PodCount{}, false
	}
	n, counted := s.Pods.Counts[at]
	return n, counted
}

// vips are where clients ask.
func (s *poolStatus) vips() []string {
	var all []netip.Addr
	switch {
	case s.Pods != nil:
		all = slices.Clone(s.Pods.Addresses)
	case s.Pool.Spec.Management == v1alpha1.ResolverPoolExternal:
		for _, m := range s.Agents {
			if m.Report == nil {
				continue
			}
			for _, at := range m.Report.Listen {
				if !at.Addr().IsUnspecified() {
					all = append(all, at.Addr().Unmap())
				}
			}
		}
	}
	if e := s.Pool.Spec.Exposure; e != nil && e.Type == v1alpha1.ResolverNodePort {
		for _, dc := range e.Datacenters {
			for _, a := range dc.Addresses {
				all = append(all, parsed(a))
			}
		}
	}
	var texts []string
	for _, a := range sortAddresses(all) {
		texts = append(texts, a.String())
	}
	return texts[:min(len(texts), 64)]
}

// SourcesOf are the addresses that a member says its questions come from: one of IPv4 and one of IPv6 at the most.
func SourcesOf(r *pool.Report) []v1alpha1.IP {
	var four, six []v1alpha1.IP
	for _, a := range r.Source {
		switch a = a.Unmap(); {
		case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "":
		case a.Is4() && four == nil:
			four = []v1alpha1.IP{v1alpha1.IP(a.String())}
		case a.Is6() && six == nil:
			six = []v1alpha1.IP{v1alpha1.IP(a.String())}
		}
	}
	return append(four, six...)
}

// sources are where questions of members come from: those of members that are not connected are known from before, unless they
// have lapsed. Where there are too many, those that members tell now are kept.
func (s *poolStatus) sources() []v1alpha1.IP {
	const most = 1024
	var live, before []netip.Addr
	connected := map[MemberPlace]int32{}
	for i := range s.Agents {
		if m := &s.Agents[i]; m.Report != nil {
			connected[m.place()]++
			for _, text := range SourcesOf(m.Report) {
				live = append(live, parsed(text))
			}
		}
	}
	for at, n := range s.desired {
		if connected[at] >= n {
			continue
		}
		for _, text := range s.Pool.Status.SourceAddresses {
			if a := parsed(text); a.IsValid() && !s.Lapsed[text] {
				before = append(before, a)
			}
		}
		break
	}
	live = sortAddresses(live)
	live = live[:min(len(live), most)]
	before = sortAddresses(slices.DeleteFunc(before, func(a netip.Addr) bool { return slices.Contains(live, a) }))
	var texts []v1alpha1.IP
	for _, a := range sortAddresses(append(live, before[:min(len(before), most-len(live))]...)) {
		texts = append(texts, v1alpha1.IP(a.String()))
	}
	return texts
}

// accepted sets the condition and returns it.
func (s *poolStatus) accepted() bool {
	refused := s.Refused
	for _, c := range s.Configs {
		if refused == nil && c.Refused != nil {
			refused = c.Refused
		}
	}
	if refused != nil {
		s.set(v1alpha1.ConditionAccepted, false, refused.Reason(), refused.Error())
		return false
	}
	s.set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "every program can be configured like this; what it can't do is in status.members[].unsupported")
	return true
}

// programmed reports whether the connected members go by what they are told.
func (s *poolStatus) programmed() (programmed bool, reason, message string) {
	var refused []string
	waiting := 0
	for i := range s.Agents {
		m := &s.Agents[i]
		told := s.told[m.Datacenter]
		if why := s.refused(m); why != "" {
			refused = append(refused, m.String()+": "+why)
		} else if told != "" && (m.Report == nil || m.Report.Configuration != told) {
			waiting++
		}
	}
	switch {
	case len(s.Agents) == 0:
		return false, v1alpha1.ReasonNoServers, "no member of the pool is connected"
	case len(refused) > 0:
		return false, v1alpha1.ReasonRejected, "refused, what was in force before stays: " + strings.Join(refused, "; ")
	case waiting > 0:
		return false, v1alpha1.ReasonPending, fmt.Sprintf("%d of %d connected members have yet to apply the newest configuration", waiting, len(s.Agents))
	default:
		return true, v1alpha1.ReasonProgrammed, "every connected member goes by the newest configuration"
	}
}

// becomes sets Ready. A datacenter of which no member is connected is not known to be without: that is Degraded.
func (s *poolStatus) becomes(typ string, accepted, programmed bool, reason, message string) {
	switch silent := s.silent(); {
	case !accepted:
		c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionAccepted)
		s.set(typ, false, c.Reason, c.Message)
	case !programmed:
		s.set(typ, false, reason, message)
	case len(silent) > 0:
		s.set(typ, false, v1alpha1.ReasonNoReadyMembers, "no member answers in "+strings.Join(silent, ", "))
	default:
		s.set(typ, true, v1alpha1.ReasonReady, "members answer in every datacenter that is connected, by the newest configuration")
	}
}

// byDatacenter counts members that there are to be, that answer, and that are connected.
func (s *poolStatus) byDatacenter() (desired, ready, connected map[string]int32) {
	desired, ready, connected = map[string]int32{}, map[string]int32{}, map[string]int32{}
	for at, n := range s.desired {
		desired[at.Datacenter] += n
	}
	for at, n := range s.ready {
		ready[at.Datacenter] += n
	}
	for _, m := range s.Agents {
		connected[m.Datacenter]++
	}
	return desired, ready, connected
}

// silent are datacenters of which it is known that no member answers, by name.
func (s *poolStatus) silent() []string {
	desired, ready, connected := s.byDatacenter()
	var all []string
	for _, dc := range slices.Sorted(maps.Keys(desired)) {
		if desired[dc] > 0 && ready[dc] == 0 && (connected[dc] > 0 || s.Pods != nil) {
			all = append(all, dc)
		}
	}
	return all
}

func (s *poolStatus) degraded() {
	desired, _, connected := s.byDatacenter()
	var away, short, strange []string
	for _, dc := range slices.Sorted(maps.Keys(desired)) {
		if desired[dc] > 0 && connected[dc] == 0 {
			away = append(away, dc)
		}
	}
	for _, at := range s.places() {
		if s.desired[at] > s.ready[at] {
			short = append(short, fmt.Sprintf("%s: %d of %d %s", at.Datacenter, s.ready[at], s.desired[at], at.Engine))
		}
	}
	for i := range s.Agents {
		if m := &s.Agents[i]; m.Report != nil && s.desired[m.place()] == 0 {
			strange = append(strange, m.String())
		}
	}
	switch {
	case len(away) > 0:
		s.set(v1alpha1.ConditionDegraded, true, v1alpha1.ReasonDatacenterUnreachable, "no member is connected in "+strings.Join(away, ", "))
	case len(short) > 0:
		s.set(v1alpha1.ConditionDegraded, true, v1alpha1.ReasonMembersNotReady, "members that answer: "+strings.Join(short, ", "))
	case len(strange) > 0:
		s.set(v1alpha1.ConditionDegraded, true, v1alpha1.ReasonUnknownMembers, "of programs or in datacenters that the spec does not have: "+strings.Join(strange, ", "))
	default:
		s.set(v1alpha1.ConditionDegraded, false, v1alpha1.ReasonHealthy, "all members answer")
	}
}

func (s *poolStatus) recursion() {
	checked := 0
	var failing []string
	for i := range s.Agents {
		m := &s.Agents[i]
		if m.Report == nil || m.Report.Recursion == nil {
			continue
		}
		if checked++; !m.Report.Recursion.OK {
			failing = append(failing, m.String()+": "+m.Report.Recursion.Why)
		}
	}
	switch {
	case checked == 0:
		s.condition(v1alpha1.ConditionRecursionWorks, metav1.ConditionUnknown, v1alpha1.ReasonNotChecked, "no connected member has tried to get from the root to a leaf: see spec.recursionCheck")
	case len(failing) > 0:
		s.set(v1alpha1.ConditionRecursionWorks, false, v1alpha1.ReasonRecursionFails,
			fmt.Sprintf("%d of %d members do not get from the root to the leaves: %s", len(failing), checked, strings.Join(failing, "; ")))
	default:
		s.set(v1alpha1.ConditionRecursionWorks, true, v1alpha1.ReasonRecursionWorks, "every connected member gets from the root to the leaves")
	}
}

func (s *poolStatus) flushable() {
	zones := map[engine.Name]bool{}
	var unheard []string
	heard := 0
	for i := range s.Agents {
		m := &s.Agents[i]
		if m.Report == nil {
			continue
		}
		for _, z := range m.Report.Flush.NotFlushable {
			zones[z] = true
		}
		if len(m.Report.Flush.Notifiers) == 0 {
			unheard = append(unheard, m.String())
		} else {
			heard++
		}
	}
	ecs := s.Pool.Spec.ECS != nil && slices.ContainsFunc(s.Pool.Spec.Members, func(m v1alpha1.ResolverMember) bool { return m.Engine == v1alpha1.EngineUnbound })
	switch {
	case ecs || len(zones) > 0:
		var names []string
		for z := range zones {
			names = append(names, z.String())
		}
		if ecs {
			for _, z := range s.Pool.Spec.ECS.Zones {
				names = append(names, strings.TrimSuffix(string(z), ".")+".")
			}
		}
		slices.Sort(names)
		s.set(v1alpha1.ConditionFlushable, false, v1alpha1.ReasonECSNotFlushable,
			"Unbound can't forget what it keeps for clients' networks: names of these zones move when their TTL is over: "+strings.Join(slices.Compact(names), ", "))
	case len(unheard) > 0:
		s.set(v1alpha1.ConditionFlushable, false, v1alpha1.ReasonNotNotified,
			"no authoritative server tells these members which answers have changed, so that old ones stay until their TTL is over: "+strings.Join(unheard, ", "))
	case heard == 0:
		s.condition(v1alpha1.ConditionFlushable, metav1.ConditionUnknown, v1alpha1.ReasonPending, "no member has told yet")
	default:
		s.set(v1alpha1.ConditionFlushable, true, v1alpha1.ReasonFlushable, "members forget a name as soon as its answer changes")
	}
}

func (s *poolStatus) clientAddresses() {
	switch e := s.Pool.Spec.Exposure; {
	case s.Pool.Spec.Management == v1alpha1.ResolverPoolExternal:
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionClientAddressesKept) // it is not known what is in front
	case e != nil && e.ExternalTrafficPolicy == v1alpha1.TrafficCluster && e.Type != v1alpha1.ResolverClusterIP:
		s.set(v1alpha1.ConditionClientAddressesKept, false, v1alpha1.ReasonTrafficPolicy,
			"with exposure.externalTrafficPolicy Cluster members may see nodes in the place of clients: clientNetworks has to have the nodes, limits count all clients of a node as one, and near answers are near to the node")
	default:
		s.set(v1alpha1.ConditionClientAddressesKept, true, v1alpha1.ReasonClientAddressesKept, "members see the clients' own addresses, if no load balancer in front replaces them")
	}
}
