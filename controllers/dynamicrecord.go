package controllers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// recordsByZone is the cache's index of DynamicRecords by the DNSZone that they want to be in, as namespace/name.
const recordsByZone = "spec.zoneRef"

func indexRecordZone(o client.Object) []string {
	return []string{render.ZoneOf(o.(*v1alpha1.DynamicRecord)).String()}
}

// steeredZone is what the leader knows of the steered names of one zone.
type steeredZone struct {
	placement *render.Placement
	records   map[types.NamespacedName]steeredRecord
}

// steeredRecord is what became of one DynamicRecord when its zone was last published.
type steeredRecord struct {
	generation int64
	decision   *render.SteeredDecision
	refused    render.Refusal // why it could not enter the zone; nil if it is there
	since      uint32         // serial that servers hold, or a later one, if they serve the record as it is
}

// steer decides about the DynamicRecords of a zone. Inputs beside them come from the cache.
func (r *ZoneReconciler) steer(ctx context.Context, z *v1alpha1.DNSZone, place *render.Placement, published *zone.Content) (*render.Steered, map[types.NamespacedName]int64, error) {
	var records v1alpha1.DynamicRecordList
	if err := r.Client.List(ctx, &records, client.MatchingFields{recordsByZone: render.Key(z).String()}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, fmt.Errorf("listing DynamicRecords: %w", err)
	}
	in := render.SteeredInputs{
		Zone: z, Placement: place, Published: published,
		Probes: map[types.NamespacedName]*v1alpha1.HealthProbe{}, Datacenters: map[string]*v1alpha1.Datacenter{},
		NamespaceLabels: map[string]map[string]string{}, Secrets: map[types.NamespacedName]render.Refusal{},
	}
	generations := map[types.NamespacedName]int64{}
	for i := range records.Items {
		o := &records.Items[i]
		if o.DeletionTimestamp == nil {
			in.Records = append(in.Records, o)
			generations[types.NamespacedName{Namespace: o.Namespace, Name: o.Name}] = o.Generation
			in.NamespaceLabels[o.Namespace] = nil
		}
	}
	var datacenters v1alpha1.DatacenterList
	if err := r.Client.List(ctx, &datacenters, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, fmt.Errorf("listing Datacenters: %w", err)
	}
	for i := range datacenters.Items {
		in.Datacenters[datacenters.Items[i].Name] = &datacenters.Items[i]
	}
	for namespace := range in.NamespaceLabels {
		var probes v1alpha1.HealthProbeList
		if err := r.Client.List(ctx, &probes, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
			return nil, nil, fmt.Errorf("listing HealthProbes: %w", err)
		}
		for i := range probes.Items {
			p := &probes.Items[i]
			in.Probes[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = p
		}
		faults, err := r.Secrets.Faults(ctx, probes.Items)
		if err != nil {
			return nil, nil, err
		}
		maps.Copy(in.Secrets, faults)
		o := namespaceMetadata()
		if err := r.Client.Get(ctx, types.NamespacedName{Name: namespace}, o); client.IgnoreNotFound(err) != nil {
			return nil, nil, fmt.Errorf("reading namespace %s: %w", namespace, err)
		}
		in.NamespaceLabels[namespace] = o.Labels
	}
	return render.SteerZone(in), generations, nil
}

func namespaceMetadata() *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return m
}

// noteRecords remembers what became of a zone's DynamicRecords in the version that was published, and calls for those
// that it changes, and for those that wait for servers.
func (r *ZoneReconciler) noteRecords(z *v1alpha1.DNSZone, place *render.Placement, steered *render.Steered, generations map[types.NamespacedName]int64,
	refused map[string]render.Refusal, before, after *zone.Content, version zone.Version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.steered == nil {
		r.steered = map[types.NamespacedName]*steeredZone{}
	}
	known := r.steered[render.Key(z)]
	if known == nil {
		known = &steeredZone{}
	}
	now := &steeredZone{placement: place, records: make(map[types.NamespacedName]steeredRecord, len(steered.Decisions))}
	for key, d := range steered.Decisions {
		rec := steeredRecord{generation: generations[key], decision: d, refused: refused[key.String()], since: version.Serial}
		old, had := known.records[key]
		if had && before != nil && before.Node(d.Owner).RRset(zone.TypeSteered) == after.Node(d.Owner).RRset(zone.TypeSteered) {
			rec.since = old.since
		}
		now.records[key] = rec
		if !had || old.generation != rec.generation || old.since != rec.since || text(old.refused) != text(rec.refused) ||
			text(old.decision.Refused) != text(d.Refused) || known.placement != place {
			r.CallRecord(key)
		}
	}
	for key := range known.records {
		if _, stays := now.records[key]; !stays {
			r.CallRecord(key)
		}
	}
	if known.placement != place {
		r.CallSecrets()
	}
	r.steered[render.Key(z)] = now
}

// locations lists where targets of a zone's DynamicRecords are probed; none if there is no such zone.
func (r *ZoneReconciler) locations(zoneKey types.NamespacedName) []render.Location {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.steered[zoneKey]; known != nil && known.placement != nil {
		return slices.Concat(known.placement.Locations, known.placement.Witnesses)
	}
	return nil
}

func text(r render.Refusal) string {
	if r == nil {
		return ""
	}
	return r.Reason() + r.Error()
}

// forgetRecords notes that nothing of a zone's DynamicRecords is served any more.
func (r *ZoneReconciler) forgetRecords(zoneKey types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.steered[zoneKey]; known != nil {
		delete(r.steered, zoneKey)
		for key := range known.records {
			r.CallRecord(key)
		}
	}
}

// record returns what became of one DynamicRecord when its zone was last published.
func (r *ZoneReconciler) record(zoneKey, key types.NamespacedName) (steeredRecord, *render.Placement, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.steered[zoneKey]
	if known == nil {
		return steeredRecord{}, nil, false
	}
	rec, ok := known.records[key]
	return rec, known.placement, ok
}

// RecordReconciler says in a DynamicRecord's status what is answered and why. What servers are told of it is its zone's.
type RecordReconciler struct {
	Client  client.Client
	Zones   *ZoneReconciler
	Estate  *EstateReconciler
	Reports *Reports
	Budget  *StatusBudget
	Events  *steeringEvents
	Clock   clock.PassiveClock

	mu      sync.Mutex
	waiting map[types.NamespacedName]map[types.NamespacedName]bool // records that wait for servers, by their zone
	began   time.Time                                              // when the first status could be written; zero: not yet
}

// recordInputs is what a status says, and who has yet to tell something of it.
type recordInputs struct {
	render.RecordStatusInputs
	missing int // connected servers of the zone that have told nothing of the record
}

// reportPatience is for how long a new leader leaves what statuses say of targets as it finds it, while connected servers have
// yet to report.
const reportPatience = 15 * time.Second

// patience returns how much of reportPatience is left.
func (r *RecordReconciler) patience() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.began.IsZero() {
		r.began = r.Clock.Now()
	}
	return reportPatience - r.Clock.Since(r.began)
}

// unheard reports whether somebody has yet to tell something of a record whose status somebody has written before.
func (r *RecordReconciler) unheard(in recordInputs) bool {
	return in.missing > 0 && len(in.Record.Status.Datacenters) > 0
}

// +kubebuilder:rbac:groups=fingerpost.dev,resources=dynamicrecords,verbs=get;list;watch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=dynamicrecords/status,verbs=get;update;patch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=healthprobes,verbs=get;list;watch

// Reconcile writes the status of one DynamicRecord, on transitions only.
func (r *RecordReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var o v1alpha1.DynamicRecord
	if err := r.Client.Get(ctx, req.NamespacedName, &o); apierrors.IsNotFound(err) || err == nil && o.DeletionTimestamp != nil {
		r.Budget.Same(req.NamespacedName, r.Clock.Now())
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading DynamicRecord %s: %w", req.NamespacedName, err)
	}
	if !r.Estate.Complete() {
		return reconcile.Result{}, nil // called again then
	}
	in, decided, err := r.inputs(ctx, &o)
	if err != nil || !decided {
		return reconcile.Result{}, err // the zone calls again
	}
	var again time.Duration
	if wait := r.patience(); wait > 0 && r.unheard(in) {
		in.Servers, again = nil, wait // what is observed stays as it is; reports call again
	}
	want := render.RecordStatus(in.RecordStatusInputs)
	if equality.Semantic.DeepEqual(o.Status, want) {
		r.Budget.Same(req.NamespacedName, r.Clock.Now())
		return reconcile.Result{RequeueAfter: again}, nil
	}
	lasting := statusInterval
	ready := func(s v1alpha1.DynamicRecordStatus) bool {
		return meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionReady)
	}
	if o.Status.ObservedGeneration != o.Generation || ready(want) && !ready(o.Status) || o.Status.Serving != want.Serving {
		lasting = 0
	}
	if wait := r.Budget.Wait(req.NamespacedName, r.Clock.Now(), lasting); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	before := o.Status
	o.Status = want
	if err := r.Client.Status().Update(ctx, &o); err != nil { // it costs the API server less than a patch, and in a mass flip there are many
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return reconcile.Result{RequeueAfter: 250 * time.Millisecond}, nil // when the cache has caught up
		}
		return reconcile.Result{}, fmt.Errorf("writing the status of DynamicRecord %s: %w", req.NamespacedName, err)
	}
	r.Budget.Wrote(req.NamespacedName, r.Clock.Now())
	r.Events.record(&o, before, want)
	return reconcile.Result{}, nil
}

// inputs gathers what the status says; false if the zone has yet to decide about the record as it is.
func (r *RecordReconciler) inputs(ctx context.Context, o *v1alpha1.DynamicRecord) (recordInputs, bool, error) {
	key, zoneKey := client.ObjectKeyFromObject(o), render.ZoneOf(o)
	in := recordInputs{RecordStatusInputs: render.RecordStatusInputs{Record: o, Now: metav1.NewTime(r.Clock.Now())}}
	var z v1alpha1.DNSZone
	if err := r.Client.Get(ctx, zoneKey, &z, client.UnsafeDisableDeepCopy); apierrors.IsNotFound(err) || err == nil && z.DeletionTimestamp != nil {
		in.Absent = render.Refuse(v1alpha1.ReasonZoneNotFound, "spec.zoneRef: there is no DNSZone %s", zoneKey)
		return in, true, nil
	} else if err != nil {
		return in, false, fmt.Errorf("reading DNSZone %s: %w", zoneKey, err)
	}
	if c := meta.FindStatusCondition(z.Status.Conditions, v1alpha1.ConditionAccepted); c != nil && c.Status == metav1.ConditionFalse && c.ObservedGeneration == z.Generation {
		in.Absent = render.Refuse(v1alpha1.ReasonZoneNotAccepted, "DNSZone %s is not accepted: %s", zoneKey, c.Message)
		if place := r.Estate.kept(zoneKey); place != nil {
			r.observe(&in, key, place)
			in.Kept = len(in.Servers) > 0 || len(o.Status.Datacenters) > 0
			if rec, _, known := r.Zones.record(zoneKey, key); !known || rec.generation != o.Generation {
				in.Servers = nil // they speak of targets that the spec may not have any more
			}
		}
		return in, true, nil
	}
	rec, place, known := r.Zones.record(zoneKey, key)
	if !known || rec.generation != o.Generation {
		return in, false, nil
	}
	connected := r.observe(&in, key, place)
	in.Decision = rec.decision
	if rec.refused != nil {
		in.Absent = rec.refused
	}
	if in.Absent == nil && rec.decision.Refused == nil {
		in.Programmed, in.ProgrammedReason, in.ProgrammedWords = r.programmed(zoneKey, place, rec)
		r.wait(zoneKey, key, !in.Programmed)
		var datacenters v1alpha1.DatacenterList
		if err := r.Client.List(ctx, &datacenters, client.UnsafeDisableDeepCopy); err != nil {
			return in, false, fmt.Errorf("listing Datacenters: %w", err)
		}
		in.Failover = render.RecordFailover(rec.decision.Record, rec.decision.Owner, leastTTL(&z), o.Spec.Objectives.ClientCache)
		in.Split = render.SplitRisk(rec.decision.Record, datacenters.Items, r.Reports.Sees(connected))
	} else {
		r.wait(zoneKey, key, false)
	}
	return in, true, nil
}

// observe gathers what the servers that answer a zone say of a record, and returns which servers are connected.
func (r *RecordReconciler) observe(in *recordInputs, key types.NamespacedName, place *render.Placement) (connected map[control.ServerID]bool) {
	rank := map[string]int{}
	for i, l := range place.NameServers {
		rank[l.Datacenter] = i
	}
	connected = map[control.ServerID]bool{}
	for _, s := range r.Zones.Hub.Servers() {
		connected[s.ID] = true
		if s.TakesDocuments && slices.Contains(place.Locations, render.Location{Datacenter: s.ID.Datacenter, Group: s.ID.Group}) {
			in.missing++
		}
	}
	for _, report := range r.Reports.Of(key) {
		if connected[report.Server] && slices.Contains(place.Locations, render.Location{Datacenter: report.Server.Datacenter, Group: report.Server.Group}) {
			in.missing--
		}
		if !slices.Contains(place.Locations, render.Location{Datacenter: report.Server.Datacenter, Group: report.Server.Group}) {
			continue // a witness, or one that does not serve the zone any more: nobody is answered by it
		}
		in.Servers = append(in.Servers, render.RecordServer{
			Datacenter: report.Server.Datacenter, Stale: !connected[report.Server], Report: report.RecordReport,
		})
	}
	slices.SortStableFunc(in.Servers, func(a, b render.RecordServer) int { return cmp.Compare(rank[a.Datacenter], rank[b.Datacenter]) })
	return connected
}

func leastTTL(z *v1alpha1.DNSZone) time.Duration {
	d, err := z.Spec.TTL.Min.Parse()
	if err != nil {
		return 0 // left out
	}
	return d
}

// programmed says whether every connected server of the zone holds a version with the record as it is.
func (r *RecordReconciler) programmed(zoneKey types.NamespacedName, place *render.Placement, rec steeredRecord) (is bool, reason, words string) {
	servers := r.Zones.servers(place, zone.Version{})
	if len(servers) == 0 {
		return false, v1alpha1.ReasonNoServers, fmt.Sprintf("no server of DNSZone %s is connected", zoneKey)
	}
	var behind, refused []string
	for _, s := range servers {
		who := s.Datacenter + "/" + s.Group + "/" + s.Name
		switch held := s.Version.Serial; {
		case held == rec.since || held != 0 && zone.SerialLess(rec.since, held):
		case s.Refusal != "":
			refused = append(refused, who+": "+s.Refusal)
		default:
			behind = append(behind, who)
		}
	}
	slices.Sort(behind)
	switch {
	case len(refused) > 0:
		return false, v1alpha1.ReasonRejected, "refused, the version before goes on being served: " + strings.Join(refused, "; ")
	case len(behind) > 0:
		return false, v1alpha1.ReasonPending, "waiting for " + strings.Join(behind, ", ")
	}
	return true, v1alpha1.ReasonProgrammed, "known to every server that can be reached"
}

// wait notes whether a record waits for servers.
func (r *RecordReconciler) wait(zoneKey, key types.NamespacedName, waits bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case waits && r.waiting[zoneKey] == nil:
		if r.waiting == nil {
			r.waiting = map[types.NamespacedName]map[types.NamespacedName]bool{}
		}
		r.waiting[zoneKey] = map[types.NamespacedName]bool{key: true}
	case waits:
		r.waiting[zoneKey][key] = true
	default:
		delete(r.waiting[zoneKey], key)
	}
}

// Waiting lists the records of a zone that wait for servers.
func (r *RecordReconciler) Waiting(zoneKey types.NamespacedName) []types.NamespacedName {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.waiting[zoneKey]))
}
