// Package controllers does the Kubernetes side of Fingerpost: it reads objects, has render
// decide, reserves what is to be published, hands it to the hub, and writes statuses.
package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"google.golang.org/grpc"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// Options is what an operator's administrator sets.
type Options struct {
	Namespace       string   // the operator's own
	WatchNamespaces []string // whose objects are seen, beside those of Namespace; empty: all
	ApexNamespaces  []string
	PodName         string                             // of this manager, in Namespace; empty: it runs in no pod
	HubAddress      string                             // HOST:PORT to listen on for servers
	HubEndpoints    []string                           // HOST:PORT that servers of Managed groups dial, in order of preference
	DNSServerImage  string                             // of Managed groups that name none
	ResolverImages  map[v1alpha1.ResolverEngine]string // of members of Managed pools that name none
	Certificates    CertificateOptions
	MaxAbsent       control.AbsenceLimit
	StatusWrites    int                   // a second, for all objects
	AddressPort     uint16                // where the servers of Managed groups answer DNS; 0: 53
	CookieRotation  time.Duration         // how long a secret makes DNS cookies; 0: DefaultCookieRotation
	Metrics         prometheus.Registerer // nil: none are registered
}

// Setup adds everything to mgr: the hub, which every manager has, and the controllers, which
// only work in the one that leads.
func Setup(ctx context.Context, mgr ctrl.Manager, o Options) error {
	cluster, err := clusterID(ctx, mgr.GetAPIReader())
	if err != nil {
		return err
	}
	certificates, err := SetupCertificates(mgr, o.Certificates)
	if err != nil {
		return fmt.Errorf("setting up certificates: %w", err)
	}
	var (
		zones       = make(chan event.GenericEvent, 1024) // to be reconciled
		estate      = make(chan event.GenericEvent, 1)
		datacenters = make(chan event.GenericEvent, 1024)
		documents   = make(chan event.GenericEvent, 1)
		records     = make(chan event.GenericEvent, 1024)
		overrides   = make(chan event.GenericEvent, 1)
		probes      = make(chan event.GenericEvent, 1024)
		secrets     = make(chan event.GenericEvent, 1)
		hints       = make(chan event.GenericEvent, 1)
		workloads   = make(chan event.GenericEvent, 1024)
		members     = make(chan event.GenericEvent, 1024)
		addresses   = make(chan event.GenericEvent, 1024)
		pools       = make(chan event.GenericEvent, 1024)
		seen        = make(chan uint64, 1)
		joined      = make(chan control.ServerID, 1)
	)
	events := newRelay(mgr.GetClient(), zones, datacenters, records, overrides)
	events.probes, events.pools = probes, pools
	reports := &Reports{Clock: clock.RealClock{}, OnRecord: events.record, OnServer: events.vantage}
	agents := &PoolReports{OnPool: events.pool}
	hub := control.NewHub(control.HubOptions{
		Log: mgr.GetLogger().WithName("hub"), Cluster: cluster, MaxAbsent: o.MaxAbsent,
		OnReport: takeReports(reports, agents),
		Known: func(group control.GroupKey) bool {
			return !events.estate.Complete() || poolKnown(ctx, mgr.GetClient(), group)
		},
		OnZone: events.zone,
		OnServer: func(id control.ServerID) {
			reports.Contact(id)
			events.server(id)
			offer(joined, id)
			offer(documents, event.GenericEvent{Object: &metav1.PartialObjectMetadata{}})
		},
		OnEpoch: func(epoch uint64) { offer(seen, epoch) },
	})
	if o.Metrics != nil {
		if err := o.Metrics.Register(hubMetrics{hub}); err != nil {
			return fmt.Errorf("registering the hub's metrics: %w", err)
		}
	}
	budget := NewStatusBudget(o.StatusWrites)
	leader := &Leader{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Hub: hub, Namespace: o.Namespace, Seen: seen, Joined: joined,
	}
	estateReconciler := &EstateReconciler{
		Client: mgr.GetClient(), Hub: hub, ApexNamespaces: o.ApexNamespaces, Settled: leader.Settled, Call: events.call, Changed: estate,
	}
	leader.OnSettled = func() {
		estateReconciler.Refresh()
		events.override()
		offer(documents, event.GenericEvent{Object: &metav1.PartialObjectMetadata{}})
	}
	estateReconciler.OnComplete = func() {
		events.everyDatacenter(ctx)
		events.everyRecord(ctx)
		events.everyPool(ctx)
		go hub.Expel() // it asks the estate, which waits for this function
		offer(secrets, event.GenericEvent{Object: &metav1.PartialObjectMetadata{}})
	}
	estateReconciler.OnDecision = func() { events.everyPool(ctx) }
	probeSecrets := &ProbeSecrets{Secrets: mgr.GetAPIReader()}
	recorder := mgr.GetEventRecorder("fingerpost")
	zoneReconciler := &ZoneReconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Hub: hub, Estate: estateReconciler, Call: events.call,
		Budget: budget, Events: recorder, Clock: clock.RealClock{}, Secrets: probeSecrets,
		CallSecrets: func() { offer(secrets, event.GenericEvent{Object: &metav1.PartialObjectMetadata{}}) },
	}
	zoneReconciler.CallHints = func() { offer(hints, event.GenericEvent{Object: &metav1.PartialObjectMetadata{}}) }
	events.hub, events.estate, events.reports, events.agents = hub, estateReconciler, reports, agents
	recordReconciler := &RecordReconciler{
		Client: mgr.GetClient(), Zones: zoneReconciler, Estate: estateReconciler, Reports: reports, Budget: budget.Other(),
		Events: &steeringEvents{Recorder: recorder, Client: mgr.GetClient()}, Clock: clock.RealClock{},
	}
	zoneReconciler.CallRecord, zoneReconciler.Waiting = events.record, recordReconciler.Waiting
	if err := setupSteering(ctx, mgr, recordReconciler, records); err != nil {
		return err
	}
	overrideReconciler := &OverrideReconciler{
		Client: mgr.GetClient(), Hub: hub, Estate: estateReconciler, Reports: reports, Budget: budget.Other(), Events: recorder,
		Clock: clock.RealClock{}, Namespace: o.Namespace, Cluster: cluster, Settled: leader.Settled, OnForeign: func() { events.everyDatacenter(ctx) },
	}
	if err := setupOverrides(mgr, overrideReconciler, overrides); err != nil {
		return err
	}
	if err := setupProbes(mgr, &ProbeReconciler{
		Client: mgr.GetClient(), Estate: estateReconciler, Secrets: probeSecrets, Budget: budget.Other(), Clock: clock.RealClock{},
	}, probes); err != nil {
		return err
	}
	if err := setupSecrets(mgr, &SecretReconciler{
		Client: mgr.GetClient(), Secrets: probeSecrets, Hub: hub, Zones: zoneReconciler, Complete: estateReconciler.Complete, Changed: events.secret,
	}, secrets); err != nil {
		return err
	}
	membersChanged := newPendingSet(func(name any) {
		members <- event.GenericEvent{Object: &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name.(string)}}}
	})
	told := &ToldPools{Changed: func(datacenter string) { membersChanged.add(datacenter) }}
	pods := &PoolWorkloadReports{OnReport: events.pool}
	configs := &PoolConfigs{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Hub: hub, Estate: estateReconciler, Namespace: o.Namespace}
	if err := setupPools(mgr, &PoolReconciler{
		Client: mgr.GetClient(), Hub: hub, Estate: estateReconciler, Configs: configs, Reports: agents, Budget: budget.Other(), Events: recorder,
		Running: func(key types.NamespacedName) *render.PoolPods { return render.PodsOf(pods.Of(key)) }, Told: told, Clock: clock.RealClock{},
	}, pools); err != nil {
		return err
	}
	running := &WorkloadReports{OnReport: events.datacenter}
	changed := newPendingSet(func(name any) {
		e := event.GenericEvent{Object: &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name.(string)}}}
		workloads <- e
		addresses <- e
	})
	places := &Places{
		Config: mgr.GetConfig(), Secrets: mgr.GetAPIReader(), Namespace: o.Namespace, Log: mgr.GetLogger().WithName("places"),
		Changed: func(datacenter string) { changed.add(datacenter) }, PoolsChanged: func(datacenter string) { membersChanged.add(datacenter) },
	}
	if err := setupWorkloads(mgr, &WorkloadReconciler{
		Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Places: places, Hub: hub, Reports: running, Events: recorder, Clock: clock.RealClock{},
		Namespace: o.Namespace, Image: o.DNSServerImage, Hubs: o.HubEndpoints,
	}, workloads); err != nil {
		return err
	}
	if err := setupPoolWorkloads(mgr, &PoolWorkloadReconciler{
		Client: mgr.GetClient(), Secrets: mgr.GetAPIReader(), Places: places, Told: told, Reports: pods, Namespace: o.Namespace,
		Images: o.ResolverImages, Hubs: o.HubEndpoints,
	}, members); err != nil {
		return err
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.DNSZone{}, zonesByConfigMap, indexConfigMaps); err != nil {
		return fmt.Errorf("indexing DNSZones: %w", err)
	}
	warm := true
	namespaces := &metav1.PartialObjectMetadata{}
	namespaces.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	toEstate := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{estateKey} })
	if err := ctrl.NewControllerManagedBy(mgr).Named("estate").
		Watches(&v1alpha1.Datacenter{}, toEstate, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, addressesChanged))).
		WatchesMetadata(namespaces, toEstate, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		WatchesRawSource(source.Channel(estate, toEstate)).
		WatchesRawSource(once()).
		WithOptions(controller.Options{EnableWarmup: &warm, MaxConcurrentReconciles: 1}).
		Complete(estateReconciler); err != nil {
		return fmt.Errorf("setting up the estate: %w", err)
	}
	if err := ctrl.NewControllerManagedBy(mgr).Named("dnszone").
		For(&v1alpha1.DNSZone{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		WatchesMetadata(configMapMetadata(), handler.EnqueueRequestsFromMapFunc(zoneReconciler.zonesOf)).
		Watches(&v1alpha1.DynamicRecord{}, handler.EnqueueRequestsFromMapFunc(zoneOfRecord), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.HealthProbe{}, handler.EnqueueRequestsFromMapFunc(zoneReconciler.zonesOfProbe), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.Datacenter{}, handler.EnqueueRequestsFromMapFunc(zoneReconciler.steeredZones), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(zones, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{EnableWarmup: &warm, MaxConcurrentReconciles: 4}).
		Complete(zoneReconciler); err != nil {
		return fmt.Errorf("setting up DNSZones: %w", err)
	}
	if err := ctrl.NewControllerManagedBy(mgr).Named("datacenter").
		For(&v1alpha1.Datacenter{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&v1alpha1.Datacenter{}, handler.EnqueueRequestsFromMapFunc(everyDatacenter(mgr.GetClient())), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(source.Channel(datacenters, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{EnableWarmup: &warm}).
		Complete(&DatacenterReconciler{Client: mgr.GetClient(), Hub: hub, Estate: estateReconciler, Reports: reports, Workloads: running, Budget: budget, Events: recorder, Clock: clock.RealClock{}, Foreign: overrideReconciler.Foreign}); err != nil {
		return fmt.Errorf("setting up Datacenters: %w", err)
	}
	if err := setupAddresses(mgr, &AddressReconciler{
		Client: mgr.GetClient(), Hub: hub, Estate: estateReconciler, Zones: zoneReconciler, Events: recorder, Clock: clock.RealClock{}, Port: cmp.Or(o.AddressPort, 53),
		Places: places,
	}, addresses); err != nil {
		return err
	}
	documentReconciler := &DocumentReconciler{
		Client: mgr.GetClient(), Hub: hub, Settled: leader.Settled, Published: estateReconciler.DocumentsPublished,
		Forget: reports.Forget, APIServer: apiServerAddresses(mgr.GetConfig().Host), Now: time.Now,
		cookies: cookieKeeper{
			CertificateIssuer: CertificateIssuer{Secrets: mgr.GetAPIReader(), Writer: mgr.GetClient(), Namespace: o.Namespace},
			rotation:          cmp.Or(o.CookieRotation, DefaultCookieRotation),
		},
	}
	allDocuments := func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{{}} }
	toDocuments := handler.EnqueueRequestsFromMapFunc(allDocuments)
	if err := ctrl.NewControllerManagedBy(mgr).Named("documents").
		Watches(&v1alpha1.Datacenter{}, toDocuments, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, addressesChanged))).
		Watches(&v1alpha1.DynamicRecord{}, gathered(allDocuments), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.DNSZone{}, gathered(allDocuments), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.ResolverPool{}, gathered(allDocuments), builder.WithPredicates(sourcesChanged)).
		WatchesRawSource(source.Channel(documents, toDocuments)).
		WatchesRawSource(once()).
		WithOptions(controller.Options{EnableWarmup: &warm, MaxConcurrentReconciles: 1}).
		Complete(documentReconciler); err != nil {
		return fmt.Errorf("setting up documents: %w", err)
	}
	if err := ctrl.NewControllerManagedBy(mgr).Named("root-hints").
		WatchesRawSource(source.Channel(hints, toDocuments)).
		WithOptions(controller.Options{EnableWarmup: &warm}).
		Complete(&HintsReconciler{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Zones: zoneReconciler, Estate: estateReconciler, Namespace: o.Namespace}); err != nil {
		return fmt.Errorf("setting up root hints: %w", err)
	}
	if err := mgr.Add(leader); err != nil {
		return fmt.Errorf("adding the leader: %w", err)
	}
	if err := mgr.AddReadyzCheck("hub-certificate", certificates.Check); err != nil {
		return fmt.Errorf("adding a readiness check: %w", err)
	}
	if err := mgr.AddReadyzCheck("caches", func(r *http.Request) error { return cachesFilled(r.Context(), mgr.GetCache()) }); err != nil {
		return fmt.Errorf("adding a readiness check: %w", err)
	}
	if o.PodName != "" {
		if err := setupPodLabeler(mgr, o.Namespace, o.PodName); err != nil {
			return err
		}
	}
	if err := mgr.Add(&listener{address: o.HubAddress, hub: hub, certificates: certificates}); err != nil {
		return fmt.Errorf("adding the hub's listener: %w", err)
	}
	return nil
}

// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get,resourceNames=kube-system

// clusterID identifies the cluster by the UID of a namespace that is never deleted.
func clusterID(ctx context.Context, live client.Reader) (string, error) {
	var ns corev1.Namespace
	if err := live.Get(ctx, types.NamespacedName{Name: metav1.NamespaceSystem}, &ns); err != nil {
		return "", fmt.Errorf("reading namespace %s to identify the cluster: %w", metav1.NamespaceSystem, err)
	}
	return string(ns.UID), nil
}

// cachesFilled returns an error while objects that the manager watches are not all in memory, also in one that waits for the
// lead.
func cachesFilled(ctx context.Context, caches cache.Informers) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if !caches.WaitForCacheSync(ctx) {
		return errors.New("objects are still being read; if that does not end, the log says what the API server refuses")
	}
	return nil
}

// offer puts v into the channel if there is room: one that is waiting serves for both.
func offer[T any](to chan<- T, v T) {
	select {
	case to <- v:
	default:
	}
}

// listener serves the hub's port, in a leading manager and in one that is not: the latter
// tells servers to go on looking.
type listener struct {
	address      string
	hub          *control.Hub
	certificates *HubCertificateSource
}

// NeedLeaderElection makes the manager start this at once.
func (*listener) NeedLeaderElection() bool { return false }

// Start serves until ctx ends.
func (l *listener) Start(ctx context.Context) error {
	var config net.ListenConfig
	socket, err := config.Listen(ctx, "tcp", l.address)
	if err != nil {
		return fmt.Errorf("listening for servers: %w", err)
	}
	server := grpc.NewServer(control.ServerOptions(l.certificates.Credentials())...)
	l.hub.Register(server)
	log.FromContext(ctx).Info("Listening for servers", "address", socket.Addr().String())
	stopped := context.AfterFunc(ctx, server.Stop)
	defer stopped()
	if err := server.Serve(socket); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving the hub: %w", err)
	}
	return nil
}

// takeReports hands what is told to who keeps it. Members of pools tell of themselves and of nothing else: what is steered, seen
// and overridden is only for authoritative servers to tell.
func takeReports(reports *Reports, agents *PoolReports) func(id control.ServerID, kind string, body []byte) {
	return func(id control.ServerID, kind string, body []byte) {
		switch authoritative := id.GroupKey().Authoritative(); {
		case authoritative && kind != pool.ReportKind:
			reports.Take(id, kind, body)
		case !authoritative && kind == pool.ReportKind:
			agents.Take(id, body)
		}
	}
}

// relay turns what the hub tells into requests for the reconcilers. The hub must not wait:
// names gather in a set until the queue has taken them.
type relay struct {
	client      client.Reader
	zones       chan<- event.GenericEvent
	datacenters chan<- event.GenericEvent
	records     chan<- event.GenericEvent
	overrides   chan<- event.GenericEvent
	probes      chan<- event.GenericEvent
	pools       chan<- event.GenericEvent
	hub         *control.Hub
	estate      *EstateReconciler
	reports     *Reports
	agents      *PoolReports
	pending     *pendingSet
	connected   map[control.ServerID]bool // as deliver saw it last
}

func newRelay(reader client.Reader, zones, datacenters, records, overrides chan<- event.GenericEvent) *relay {
	r := &relay{client: reader, zones: zones, datacenters: datacenters, records: records, overrides: overrides, connected: map[control.ServerID]bool{}}
	r.pending = newPendingSet(r.deliver)
	return r
}

func (r *relay) zone(apex zone.Name)             { r.pending.add(apex) }
func (r *relay) call(key types.NamespacedName)   { r.pending.add(key) }
func (r *relay) record(key types.NamespacedName) { r.pending.add(recordKey(key)); r.override() }
func (r *relay) override() {
	offer(r.overrides, event.GenericEvent{Object: &v1alpha1.TrafficOverride{}})
}
func (r *relay) vantage(id control.ServerID)   { r.pending.add(id.Datacenter); r.override() }
func (r *relay) datacenter(name string)        { r.pending.add(name) }
func (r *relay) pool(key types.NamespacedName) { r.pending.add(poolKey(key)) }

// recordKey is a DynamicRecord among the items that wait, probeKey a HealthProbe, poolKey a ResolverPool.
type (
	poolKey   types.NamespacedName
	recordKey types.NamespacedName
	probeKey  types.NamespacedName
)

func (r *relay) server(id control.ServerID) {
	r.pending.add(id)
	if key, is := poolOf(id); is {
		r.pool(key)
		return
	}
	r.pending.add(id.Datacenter)
	r.override()
}

func (r *relay) deliver(item any) {
	switch v := item.(type) {
	case zone.Name:
		if key, owned := r.estate.Owner(v); owned {
			r.deliver(key)
		}
	case types.NamespacedName:
		r.zones <- event.GenericEvent{Object: &v1alpha1.DNSZone{ObjectMeta: metav1.ObjectMeta{Namespace: v.Namespace, Name: v.Name}}}
	case control.ServerID:
		connected := r.hub.Servers
		if !v.GroupKey().Authoritative() {
			connected = r.hub.Agents
		}
		here := slices.ContainsFunc(connected(), func(s control.ServerReport) bool { return s.ID == v })
		if here == r.connected[v] {
			return
		}
		if here {
			r.connected[v] = true
		} else {
			delete(r.connected, v)
		}
		r.reports.Connection(v)
		r.agents.Connection(v, here)
		for _, key := range r.estate.ServedAt(render.Location{Datacenter: v.Datacenter, Group: v.Group}) {
			r.call(key) // nobody waits for a server that has left
		}
	case recordKey:
		r.records <- event.GenericEvent{Object: &v1alpha1.DynamicRecord{ObjectMeta: metav1.ObjectMeta{Namespace: v.Namespace, Name: v.Name}}}
	case poolKey:
		r.pools <- event.GenericEvent{Object: &v1alpha1.ResolverPool{ObjectMeta: metav1.ObjectMeta{Namespace: v.Namespace, Name: v.Name}}}
	case probeKey:
		r.probes <- event.GenericEvent{Object: &v1alpha1.HealthProbe{ObjectMeta: metav1.ObjectMeta{Namespace: v.Namespace, Name: v.Name}}}
	case string:
		r.datacenters <- event.GenericEvent{Object: &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: v}}}
	}
}

// everyDatacenter calls for all Datacenters: their statuses can be trusted from now on.
func (r *relay) everyDatacenter(ctx context.Context) {
	var datacenters v1alpha1.DatacenterList
	if err := r.client.List(ctx, &datacenters, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "Listing Datacenters")
	}
	for _, dc := range datacenters.Items {
		r.pending.add(dc.Name)
	}
}

// everyPool calls for all ResolverPools: what is decided about zones, which their members begin at, may be another.
func (r *relay) everyPool(ctx context.Context) {
	for _, request := range everyPool(r.client)(ctx, nil) {
		r.pool(request.NamespacedName)
	}
}
