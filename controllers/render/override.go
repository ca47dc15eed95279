package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// OverridesInputs is all that servers are told of overrides.
type OverridesInputs struct {
	Cluster string                 // identity of the cluster that the objects are in
	Own     []*steeringpb.Override // of its TrafficOverrides; in any order
	// Told are the overrides that servers have in force, as each of them reports; nil: none.
	Told [][]*steeringpb.Override
	// Approved are the digests that people have approved.
	Approved map[string]bool
	Now      time.Time
}

// ForeignOverride is one of another hub cluster, which no TrafficOverride of this one stands for.
type ForeignOverride struct {
	*steeringpb.Override
	Digest string // to approve its end
}

// Overrides returns the list that servers get, and those of its overrides that come from another hub cluster, by source: they
// go on until they expire, a TrafficOverride of their name is made, or their end is approved. So a second hub cluster whose
// objects are not all there ends nothing by mistake.
func Overrides(in OverridesInputs) (*steeringpb.Overrides, []ForeignOverride) {
	list := &steeringpb.Overrides{Cluster: in.Cluster}
	known := map[string]bool{}
	for _, o := range in.Own {
		known[o.GetSource()] = true
		own := proto.CloneOf(o)
		own.Cluster = in.Cluster
		list.Overrides = append(list.Overrides, own)
	}
	latest := map[string]*steeringpb.Override{} // by source
	for _, told := range in.Told {
		for _, o := range told {
			if o.GetCluster() == "" || o.GetCluster() == in.Cluster || known[o.GetSource()] || o.GetExpires() <= uint64(in.Now.UnixMilli()) {
				continue
			}
			if before := latest[o.GetSource()]; before == nil || before.GetCreated() < o.GetCreated() || before.GetCreated() == o.GetCreated() && before.GetExpires() < o.GetExpires() {
				latest[o.GetSource()] = o
			}
		}
	}
	var foreign []ForeignOverride
	for _, source := range sortedKeys(latest) {
		o := latest[source]
		if digest := overrideDigest(o); in.Approved[digest] {
			list.Ended = append(list.Ended, source)
		} else if _, err := steering.NewOverride(o); err == nil {
			list.Overrides = append(list.Overrides, o)
			foreign = append(foreign, ForeignOverride{o, digest})
		}
	}
	slices.SortFunc(list.Overrides, func(a, b *steeringpb.Override) int { return cmp.Compare(a.GetSource(), b.GetSource()) })
	return list, foreign
}

// overrideDigest stands for one override of another cluster: 16 hexadecimal digits.
func overrideDigest(o *steeringpb.Override) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%d", o.GetCluster(), o.GetSource(), o.GetCreated(), o.GetExpires()))
	return hex.EncodeToString(sum[:8])
}

// Override makes of a TrafficOverride what servers are told. Those in the operator's namespace act on the records of all
// namespaces. records are all there are. Nil with a Refusal: servers are told nothing.
func Override(o *v1alpha1.TrafficOverride, records []v1alpha1.DynamicRecord, operator string, now time.Time) (*steeringpb.Override, Refusal) {
	spec := &o.Spec
	out := &steeringpb.Override{
		Source: o.Namespace + "/" + o.Name, Reason: spec.Reason,
		Created: uint64(o.CreationTimestamp.UnixMilli()), Expires: uint64(max(0, spec.Expires.UnixMilli())), KeepAtLeast: 1,
	}
	if spec.KeepAtLeast != nil {
		out.KeepAtLeast = uint32(*spec.KeepAtLeast)
	}
	if !spec.Expires.After(now) {
		return nil, refuse(v1alpha1.ReasonExpired, "the override ended at %s: give a later expires, or delete it", spec.Expires.UTC().Format(time.RFC3339))
	}
	if fault := selectRecords(out, o, records, o.Namespace == operator); fault != nil {
		return nil, fault
	}
	switch spec.Action {
	case v1alpha1.OverrideDrain:
		out.Action = &steeringpb.Override_Drain{Drain: &steeringpb.Drain{
			Datacenter: string(spec.Drain.Datacenter), Pool: spec.Drain.Pool, Target: string(spec.Drain.Target),
		}}
	case v1alpha1.OverrideForce:
		out.Action = &steeringpb.Override_Force{Force: &steeringpb.Force{
			Datacenter: string(spec.Force.Datacenter), Pool: spec.Force.Pool, Target: string(spec.Force.Target),
			IgnoreHealth: spec.Force.Health == v1alpha1.ForceHealthIgnored,
		}}
	case v1alpha1.OverrideFreeze:
		out.Action = &steeringpb.Override_Freeze{Freeze: &steeringpb.Freeze{}}
	case v1alpha1.OverrideFailback:
		out.Action = &steeringpb.Override_Failback{Failback: &steeringpb.Failback{}}
	case v1alpha1.OverrideRaiseTTL:
		out.Action = &steeringpb.Override_RaiseTtl{RaiseTtl: &steeringpb.RaiseTTL{Ttl: seconds(spec.RaiseTTL.TTL, 0)}}
	case v1alpha1.OverrideBlock:
		block := &steeringpb.Block{}
		for _, n := range spec.Block.Networks {
			block.Networks = append(block.Networks, string(n))
		}
		out.Action = &steeringpb.Override_Block{Block: block}
	default:
		return nil, refuse(v1alpha1.ReasonInvalidSpec, "spec.action %q is not known", spec.Action)
	}
	return out, nil
}

// selectRecords says which records an override acts on, or why on none.
func selectRecords(out *steeringpb.Override, o *v1alpha1.TrafficOverride, records []v1alpha1.DynamicRecord, everywhere bool) Refusal {
	place := places(&o.Spec)
	var selector labels.Selector
	if r := o.Spec.Records; r != nil && r.Selector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(r.Selector); err != nil {
			return refuse(v1alpha1.ReasonInvalidSpec, "spec.records.selector: %v", err)
		}
	}
	here, touched := 0, 0
	for i := range records {
		r := &records[i]
		if r.Namespace != o.Namespace && !everywhere {
			continue
		}
		named := o.Spec.Records == nil ||
			selector != nil && selector.Matches(labels.Set(r.Labels)) || r.Namespace == o.Namespace && slices.Contains(o.Spec.Records.Names, r.Name)
		if !named {
			continue
		}
		here++
		if !hasPlace(r, place) {
			continue
		}
		touched++
		out.Records = append(out.Records, r.Namespace+"/"+r.Name)
	}
	slices.Sort(out.Records)
	switch {
	case o.Spec.Records != nil && len(o.Spec.Records.Names) > 0 && !everywhere:
		for _, name := range o.Spec.Records.Names {
			if !slices.ContainsFunc(records, func(r v1alpha1.DynamicRecord) bool { return r.Namespace == o.Namespace && r.Name == name }) {
				return refuse(v1alpha1.ReasonSelectsNothing, "spec.records.names: there is no DynamicRecord %q in namespace %q", name, o.Namespace)
			}
		}
	case here == 0:
		return refuse(v1alpha1.ReasonSelectsNothing, "no DynamicRecord of %s is selected", scope(o.Namespace, everywhere))
	}
	if touched == 0 {
		return refuse(v1alpha1.ReasonSelectsNothing, "none of the %s selected has %s", count(here, "DynamicRecord"), placeText(place))
	}
	return nil
}

func scope(namespace string, everywhere bool) string {
	if everywhere {
		return "any namespace"
	}
	return "namespace " + namespace
}

// places is what Drain and Force are about; nil for the others.
func places(spec *v1alpha1.TrafficOverrideSpec) *v1alpha1.OverrideTarget {
	switch {
	case spec.Action == v1alpha1.OverrideDrain && spec.Drain != nil:
		return spec.Drain
	case spec.Action == v1alpha1.OverrideForce && spec.Force != nil:
		return &spec.Force.OverrideTarget
	}
	return nil
}

func hasPlace(r *v1alpha1.DynamicRecord, place *v1alpha1.OverrideTarget) bool {
	if place == nil {
		return true
	}
	for _, p := range r.Spec.Pools {
		if place.Datacenter != "" && p.Datacenter != place.Datacenter || place.Pool != "" && p.Name != place.Pool {
			continue
		}
		if place.Target == "" || slices.ContainsFunc(p.Targets, func(t v1alpha1.Target) bool { return t.Address == place.Target }) {
			return true
		}
	}
	return false
}

func placeText(place *v1alpha1.OverrideTarget) string {
	if place == nil {
		return ""
	}
	var parts []string
	if place.Datacenter != "" {
		parts = append(parts, "datacenter "+string(place.Datacenter))
	}
	if place.Pool != "" {
		parts = append(parts, "pool "+place.Pool)
	}
	if place.Target != "" {
		parts = append(parts, "target "+string(place.Target))
	}
	return strings.Join(parts, ", ")
}

// OverrideServer is what one server says of one record that an override acts on.
type OverrideServer struct {
	Record string // namespace/name
	Server string // datacenter/group/name
	// Connected: it says so now; else it said it when it was heard last.
	Connected bool
	Heard     time.Time
	Report    *steeringpb.RecordReport // nil: it has told nothing yet
}

// OverrideStatusInputs is all that a TrafficOverride's status says.
type OverrideStatusInputs struct {
	Override *v1alpha1.TrafficOverride // status as it is now
	Message  *steeringpb.Override      // nil if it was refused
	Refused  Refusal
	Behind   []string // connected servers that do not have it yet
	Servers  []OverrideServer
	// TTL is the longest of the records' TTLs, for servers that can't be asked.
	TTL time.Duration
	Now metav1.Time
}

// OverrideStatus says what is true of a TrafficOverride.
func OverrideStatus(in OverrideStatusInputs) v1alpha1.TrafficOverrideStatus {
	o := in.Override
	s := v1alpha1.TrafficOverrideStatus{
		ObservedGeneration: o.Generation, Conditions: slices.Clone(o.Status.Conditions),
		Target: clip(cmp.Or(strings.Join(targetParts(&o.Spec), " "), "all"), 512), SafeAt: o.Status.SafeAt,
	}
	set := func(typ string, is bool, reason, message string) {
		status := metav1.ConditionFalse
		if is {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: typ, Status: status, Reason: reason, Message: clip(message, 2048), ObservedGeneration: o.Generation, LastTransitionTime: in.Now,
		})
	}
	if in.Refused != nil {
		set(v1alpha1.ConditionAccepted, false, in.Refused.Reason(), in.Refused.Error())
		set(v1alpha1.ConditionProgrammed, false, v1alpha1.ReasonNotAccepted, "nothing is overridden")
		set(v1alpha1.ConditionReady, false, in.Refused.Reason(), in.Refused.Error())
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionSafeToProceed)
		s.SafeAt = nil
		return s
	}
	s.Records = int32(len(in.Message.GetRecords()))
	set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "acts on "+count(len(in.Message.GetRecords()), "DynamicRecord"))
	if len(in.Behind) > 0 {
		message := "waiting for " + strings.Join(in.Behind, ", ")
		set(v1alpha1.ConditionProgrammed, false, v1alpha1.ReasonPending, message)
		set(v1alpha1.ConditionReady, false, v1alpha1.ReasonPending, message)
	} else {
		set(v1alpha1.ConditionProgrammed, true, v1alpha1.ReasonProgrammed, "known to every server that can be reached")
		set(v1alpha1.ConditionReady, true, v1alpha1.ReasonReady, "accepted and programmed")
	}
	if kept := in.kept(set); kept != "" && in.Message.GetDrain() != nil {
		s.SafeAt = nil
		set(v1alpha1.ConditionSafeToProceed, false, v1alpha1.ReasonKeepAtLeast, "clients are not moved away everywhere: "+kept)
		return s
	}
	in.safe(&s, set)
	return s
}

func targetParts(spec *v1alpha1.TrafficOverrideSpec) []string {
	if place := places(spec); place != nil {
		var parts []string
		for _, part := range []string{string(place.Datacenter), place.Pool, string(place.Target)} {
			if part != "" {
				parts = append(parts, part)
			}
		}
		return parts
	}
	switch {
	case spec.Block != nil:
		return texts(spec.Block.Networks)
	case spec.RaiseTTL != nil:
		return []string{string(spec.RaiseTTL.TTL)}
	}
	return nil
}

// kept says for which records the override does nothing; "" if it acts on all.
func (in OverrideStatusInputs) kept(set setCondition) string {
	why := map[string]string{}
	for _, srv := range in.Servers {
		for _, e := range srv.Report.GetEffects() {
			if e.GetSource() == in.Message.GetSource() && !e.GetActs() && e.GetText() != "" {
				why[srv.Record] = e.GetText()
			}
		}
	}
	if len(why) == 0 {
		set(v1alpha1.ConditionDegraded, false, v1alpha1.ReasonHealthy, "it acts on all records selected")
		return ""
	}
	names := sortedKeys(why)
	words := fmt.Sprintf("it does nothing for %s, e.g. %s: %s", count(len(names), "record"), names[0], why[names[0]])
	set(v1alpha1.ConditionDegraded, true, v1alpha1.ReasonKeepAtLeast, words)
	return words
}

// before reports whether what a server says of a record is of before it answered by the override.
func (in OverrideStatusInputs) before(srv OverrideServer) bool {
	return srv.Connected && !slices.ContainsFunc(srv.Report.GetEffects(), func(e *steeringpb.RecordReport_Effect) bool {
		return e.GetSource() == in.Message.GetSource()
	})
}

// safe says when every resolver that got an old answer must have dropped it: from what servers really handed out. One that
// can't be asked counts as having handed it out when it was heard last.
func (in OverrideStatusInputs) safe(s *v1alpha1.TrafficOverrideStatus, set setCondition) {
	if len(in.Behind) > 0 || len(in.Servers) == 0 || slices.ContainsFunc(in.Servers, in.before) {
		s.SafeAt = nil
		set(v1alpha1.ConditionSafeToProceed, false, v1alpha1.ReasonPending, "not every server answers by it yet")
		return
	}
	answers := make([]steering.ServerAnswer, 0, len(in.Servers))
	away := map[string]bool{}
	for _, srv := range in.Servers {
		a := steering.ServerAnswer{Name: srv.Server}
		if srv.Report.GetSettled() > 0 {
			a.Settled = time.UnixMilli(int64(srv.Report.GetSettled()))
		}
		if !srv.Connected {
			a.Contact = srv.Heard
			away[srv.Server] = true
		}
		answers = append(answers, a)
	}
	at, waiting, _ := steering.SafeAt(in.Now.Time, answers, in.TTL)
	note := ""
	if len(away) > 0 {
		note = fmt.Sprintf(" Not asked, since not connected, and taken to have answered as before until last heard: %s.", strings.Join(sortedKeys(away), ", "))
	}
	const caches = "Resolvers that serve stale answers, and caches of clients (operating systems, JVMs), may hold it for longer."
	if len(waiting) > 0 {
		safeAt := metav1.NewTime(at.UTC().Add(time.Second - 1).Truncate(time.Second))
		s.SafeAt = &safeAt
		set(v1alpha1.ConditionSafeToProceed, false, "Draining", fmt.Sprintf("until %s resolvers may hold an old answer.%s %s", safeAt.Format(time.RFC3339), note, caches))
		return
	}
	if s.SafeAt == nil {
		safeAt := metav1.NewTime(in.Now.UTC().Truncate(time.Second))
		s.SafeAt = &safeAt
	}
	set(v1alpha1.ConditionSafeToProceed, true, "Drained", "every resolver that got an old answer must have dropped it."+note+" "+caches)
}
