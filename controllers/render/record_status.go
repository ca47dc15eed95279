package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// RecordServer is what one server says of one steered name.
type RecordServer struct {
	Datacenter string
	Stale      bool // it has no stream to the hub any more: the report is what it told last
	Report     *steeringpb.RecordReport
}

// RecordStatusInputs is all that a DynamicRecord's status says.
type RecordStatusInputs struct {
	Record   *v1alpha1.DynamicRecord // status as it is now: transition times are kept
	Decision *SteeredDecision        // nil if there is none; Absent says why
	Absent   Refusal
	// Kept: its zone is refused, and servers go on serving the zone, and the record, as they were. Servers then are those
	// that speak of the record as it is; none if it is not known that they do.
	Kept bool
	// Programmed says whether servers serve the record as it is, with a reason and words.
	Programmed       bool
	ProgrammedReason string
	ProgrammedWords  string
	// Servers are those that have reported on the record, by rank of their datacenters, then name.
	Servers []RecordServer
	// Failover is the longest time until no client has a dead target's address; nil if the record is not accepted.
	Failover *Failover
	// Split says why nothing could tell a dead datacenter from a cut link; "" if something can, or it does not matter.
	Split string
	Now   metav1.Time
}

// Failover is the arithmetic of the recovery time of one record.
type Failover struct {
	Worst    time.Duration
	Feasible bool   // it meets objectives.rto; true without one
	Sum      string // how it comes about, and with an objective how it compares and what would meet it
}

// RecordStatus says what is true of a DynamicRecord.
func RecordStatus(in RecordStatusInputs) v1alpha1.DynamicRecordStatus {
	old := in.Record.Status
	s := v1alpha1.DynamicRecordStatus{
		ObservedGeneration: in.Record.Generation, Conditions: slices.Clone(old.Conditions),
		Healthy: old.Healthy, Serving: old.Serving, Targets: old.Targets, Datacenters: old.Datacenters, Override: old.Override,
	}
	set := func(typ string, is bool, reason, message string) {
		status := metav1.ConditionFalse
		if is {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: typ, Status: status, Reason: reason, Message: clip(message, 2048), ObservedGeneration: in.Record.Generation, LastTransitionTime: in.Now,
		})
	}
	refused := in.Absent
	if refused == nil && in.Decision != nil {
		refused = in.Decision.Refused
	}
	if refused != nil {
		in.refused(&s, refused, set)
		return s
	}
	set(v1alpha1.ConditionAccepted, true, v1alpha1.ReasonAccepted, "the spec is valid and the zone allows the name")
	set(v1alpha1.ConditionProgrammed, in.Programmed, in.ProgrammedReason, in.ProgrammedWords)
	if in.Programmed {
		set(v1alpha1.ConditionReady, true, v1alpha1.ReasonReady, "accepted and programmed")
	} else {
		set(v1alpha1.ConditionReady, false, in.ProgrammedReason, in.ProgrammedWords)
	}
	s.TTL = ttlText(in.Decision.Record)
	in.failover(&s, set)
	in.observe(&s, set)
	if in.Split != "" {
		set(v1alpha1.ConditionSplitRisk, true, "NoWitness", in.Split)
	} else {
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionSplitRisk)
	}
	return s
}

// refused writes why a record is not served as it is. What is observed of the version that goes on being served stays.
func (in RecordStatusInputs) refused(s *v1alpha1.DynamicRecordStatus, why Refusal, set setCondition) {
	words := "the record is not served"
	switch {
	case in.Kept:
		words = "the zone goes on being served as it was, and the record with it"
		in.observe(s, set)
	case in.Decision != nil && in.Decision.Keep:
		words = "the version before goes on being served"
	default:
		s.Healthy, s.Serving, s.TTL, s.WorstFailover, s.Override, s.Targets, s.Datacenters = "", "", "", "", "", nil, nil
		for _, typ := range []string{v1alpha1.ConditionHealthy, v1alpha1.ConditionRTOFeasible, v1alpha1.ConditionOverridden,
			v1alpha1.ConditionVantageDisagreement, v1alpha1.ConditionSplitRisk, v1alpha1.ConditionAwaitingApproval} {
			meta.RemoveStatusCondition(&s.Conditions, typ)
		}
	}
	set(v1alpha1.ConditionAccepted, false, why.Reason(), why.Error())
	set(v1alpha1.ConditionProgrammed, false, v1alpha1.ReasonNotAccepted, words)
	set(v1alpha1.ConditionReady, false, why.Reason(), why.Error())
}

func ttlText(r *steeringpb.Record) string {
	if r.GetTtlMin() > 0 && r.GetTtlMin() < r.GetTtl() {
		return fmt.Sprintf("%d-%ds", r.GetTtlMin(), r.GetTtl())
	}
	return fmt.Sprintf("%ds", r.GetTtl())
}

func (in RecordStatusInputs) failover(s *v1alpha1.DynamicRecordStatus, set setCondition) {
	f := in.Failover
	if f == nil {
		s.WorstFailover = ""
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionRTOFeasible)
		return
	}
	s.WorstFailover = steering.InSeconds(f.Worst)
	switch rto := in.Record.Spec.Objectives.RTO; {
	case rto == nil:
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionRTOFeasible)
	case f.Feasible:
		words := f.Sum
		if idle := in.Decision.NotIdle; len(idle) > 0 {
			words += fmt.Sprintf("; the idleInterval of HealthProbe %s would break it, and is not used for this record", strings.Join(idle, ", "))
		}
		set(v1alpha1.ConditionRTOFeasible, true, "Feasible", words)
	default:
		set(v1alpha1.ConditionRTOFeasible, false, "TooSlow", f.Sum)
	}
}

var targetStates = map[steeringpb.TargetReport_State]v1alpha1.TargetState{
	steeringpb.TargetReport_UP: v1alpha1.TargetUp, steeringpb.TargetReport_DEGRADED: v1alpha1.TargetDegraded,
	steeringpb.TargetReport_DOWN: v1alpha1.TargetDown, steeringpb.TargetReport_UNKNOWN: v1alpha1.TargetUnknown,
}

var servingStates = map[steeringpb.RecordReport_State]string{
	steeringpb.RecordReport_PREFERRED: "Preferred", steeringpb.RecordReport_FAILED_OVER: "FailedOver", steeringpb.RecordReport_ALL_DOWN: "AllDown",
	steeringpb.RecordReport_HELD: "Held", steeringpb.RecordReport_AWAITING: "AwaitingApproval", steeringpb.RecordReport_OVERRIDDEN: "Overridden",
	steeringpb.RecordReport_NOT_READY: "NotReady",
}

// fresh are the servers that are connected, and of the datacenters that have none of these the first one.
func (in RecordStatusInputs) fresh() (connected, stale []RecordServer) {
	heard := map[string]bool{}
	for _, srv := range in.Servers {
		if !srv.Stale {
			connected = append(connected, srv)
			heard[srv.Datacenter] = true
		}
	}
	for _, srv := range in.Servers {
		if !heard[srv.Datacenter] {
			stale = append(stale, srv)
			heard[srv.Datacenter] = true
		}
	}
	return connected, stale
}

// observe writes what servers say, if one is connected; else nobody looks, and what is known stays.
func (in RecordStatusInputs) observe(s *v1alpha1.DynamicRecordStatus, set setCondition) {
	if slices.ContainsFunc(in.Servers, func(srv RecordServer) bool { return !srv.Stale }) {
		in.observed(s, set)
	}
}

// observed writes what the connected servers say. They vote with the others, wherever the hub is: what they make of a target
// is what counts. Of a datacenter that has none it is known what it answered last, and not what it answers.
func (in RecordStatusInputs) observed(s *v1alpha1.DynamicRecordStatus, set setCondition) {
	s.Targets, s.Datacenters, s.Override = nil, nil, ""
	var stale []RecordServer
	in.Servers, stale = in.fresh()
	index, up, unknown := 0, 0, 0
	var troubled, held []string
	for _, p := range in.Record.Spec.Pools {
		for _, t := range p.Targets {
			st, isHeld := in.target(index, string(p.Datacenter))
			if isHeld && !slices.Contains(held, string(p.Datacenter)) {
				held = append(held, string(p.Datacenter))
			}
			st.Pool, st.Address = p.Name, t.Address
			index++
			switch st.State {
			case v1alpha1.TargetUp, v1alpha1.TargetDegraded: // both are given to clients
				up++
			case v1alpha1.TargetUnknown:
				unknown++
			}
			if st.State != v1alpha1.TargetUp {
				words := fmt.Sprintf("%s (pool %s) is %s", t.Address, p.Name, strings.ToLower(string(st.State)))
				if st.LastFailure != "" {
					words += ": " + st.LastFailure
				}
				troubled = append(troubled, words)
			}
			s.Targets = append(s.Targets, st)
		}
	}
	s.Healthy = fmt.Sprintf("%d/%d", up, index)

	served := map[string]bool{} // pools that somebody is given
	var awaiting, tied []string
	for i, srv := range in.Servers {
		r := srv.Report
		s.Override = cmp.Or(s.Override, r.GetOverride())
		if i > 0 && in.Servers[i-1].Datacenter == srv.Datacenter {
			continue // servers of a datacenter agree, or will in a moment
		}
		pools := r.GetPools()
		if len(pools) > 0 {
			served[pools[0]] = true
		}
		if r.GetAwaiting() != "" {
			awaiting = append(awaiting, fmt.Sprintf("%s would move to pool %s", srv.Datacenter, r.GetAwaiting()))
		}
		if r.GetDisagreement() {
			tied = append(tied, srv.Datacenter)
		}
		s.Datacenters = append(s.Datacenters, v1alpha1.RecordDatacenterStatus{
			Name: v1alpha1.DatacenterName(srv.Datacenter), Pools: strings.Join(pools, ","), State: servingStates[r.GetState()],
		})
	}
	for _, srv := range stale {
		s.Datacenters = append(s.Datacenters, v1alpha1.RecordDatacenterStatus{
			Name: v1alpha1.DatacenterName(srv.Datacenter), Pools: strings.Join(srv.Report.GetPools(), ","), State: "Stale",
		})
	}
	slices.SortFunc(s.Datacenters, func(a, b v1alpha1.RecordDatacenterStatus) int { return cmp.Compare(a.Name, b.Name) })
	s.Serving = in.serving(served)

	switch {
	case unknown == index && index > 0:
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionHealthy, Status: metav1.ConditionUnknown, Reason: "NotJudged", ObservedGeneration: in.Record.Generation, LastTransitionTime: in.Now,
			Message: clip("no target is judged: "+strings.Join(troubled, "; "), 2048),
		})
	case len(held) > 0:
		set(v1alpha1.ConditionHealthy, false, v1alpha1.ReasonHeld, fmt.Sprintf("%d of %d targets are known to be up; onPeerLoss is Hold: answers stay, for nobody confirms what became of %s, which is silent. To move them: a TrafficOverride with action Force. %s",
			up, index, strings.Join(held, ", "), strings.Join(troubled, "; ")))
	case up == 0 && index > 0:
		set(v1alpha1.ConditionHealthy, false, "AllDown", fmt.Sprintf("no target is up; whenAllDown: %s. %s", in.Record.Spec.WhenAllDown.Action, strings.Join(troubled, "; ")))
	case up < index:
		set(v1alpha1.ConditionHealthy, false, "TargetsDown", fmt.Sprintf("%d of %d targets are up: %s", up, index, strings.Join(troubled, "; ")))
	case len(troubled) > 0:
		set(v1alpha1.ConditionHealthy, false, "TargetsDegraded", fmt.Sprintf("%d of %d targets are up: %s", up, index, strings.Join(troubled, "; ")))
	default:
		set(v1alpha1.ConditionHealthy, true, "AllUp", fmt.Sprintf("%d of %d targets are up", up, index))
	}
	condition := func(typ string, is bool, reason, message string) {
		if is {
			set(typ, true, reason, message)
		} else {
			meta.RemoveStatusCondition(&s.Conditions, typ)
		}
	}
	condition(v1alpha1.ConditionOverridden, s.Override != "", "Override", "TrafficOverride "+s.Override+" decides")
	condition(v1alpha1.ConditionVantageDisagreement, len(tied) > 0, "Tie",
		"the votes about a target are tied, it keeps its state; seen from "+strings.Join(tied, ", "))
	condition(v1alpha1.ConditionAwaitingApproval, len(awaiting) > 0, "AwaitingApproval", fmt.Sprintf(
		"%s; to let it: a TrafficOverride with action Force (fail over) or Failback (return)", strings.Join(awaiting, "; ")))
}

// serving lists the datacenters of the pools that somebody is given; a pool in none stands by its name.
func (in RecordStatusInputs) serving(served map[string]bool) string {
	var names []string
	for _, p := range in.Record.Spec.Pools {
		if name := cmp.Or(string(p.Datacenter), p.Name); served[p.Name] && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// target says what is known of the index-th target. A server of its own datacenter is heard first, then the others in
// order; who failed to reach it says why. held: what is known is of before its datacenter fell silent.
func (in RecordStatusInputs) target(index int, datacenter string) (best v1alpha1.TargetStatus, held bool) {
	best = v1alpha1.TargetStatus{State: v1alpha1.TargetUnknown}
	chosen := false
	for _, srv := range in.Servers {
		targets := srv.Report.GetTargets()
		if index >= len(targets) {
			continue
		}
		t := targets[index]
		if !chosen || srv.Datacenter == datacenter {
			failure := best.LastFailure
			held = t.GetHeld()
			best = v1alpha1.TargetStatus{State: targetStates[t.GetState()], LastFailure: clip(cmp.Or(t.GetFailure(), failure), 256)}
			if t.GetElectorate() > 0 {
				best.Votes = fmt.Sprintf("%d/%d", t.GetUp(), t.GetElectorate())
			}
			for _, dc := range t.GetDissenting() {
				best.Dissenting = append(best.Dissenting, v1alpha1.DatacenterName(dc))
			}
			if t.GetSince() > 0 {
				since := metav1.NewTime(time.UnixMilli(int64(t.GetSince())).UTC().Truncate(time.Second))
				best.Since = &since
			}
			if chosen {
				datacenter = "" // its own datacenter has spoken
			}
			chosen = true
		}
		if best.LastFailure == "" {
			best.LastFailure = clip(t.GetFailure(), 256)
		}
	}
	switch {
	case held:
		best.State = v1alpha1.TargetUnknown
	case best.State == v1alpha1.TargetUp:
		best.LastFailure = ""
	}
	return best, held
}
