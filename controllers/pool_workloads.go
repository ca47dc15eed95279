package controllers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// scaleOwner owns the number of replicas of a Deployment from when load is to decide it until somebody has decided.
const scaleOwner = "fingerpost-autoscaling"

// PoolWorkloadReconciler runs the members of Managed pools in one datacenter after the other: it applies their objects, and
// deletes what is not wanted any more. What it found goes into Reports, for the pools' status.
type PoolWorkloadReconciler struct {
	Client    client.Client // for Datacenters and ResolverPools; reads are cached
	Secrets   client.Reader // live, for certificates in Namespace, and those of transports in the namespaces of pools
	Places    *Places
	Told      *ToldPools
	Reports   *PoolWorkloadReports
	Namespace string                             // the operator's own
	Images    map[v1alpha1.ResolverEngine]string // of members that name none
	Hubs      []string                           // HOST:PORT that agents dial, in order of preference
}

// Members run where the servers of their datacenter do, with the same rights and these.
//
// +kubebuilder:rbac:groups=fingerpost.dev,resources=datacenters,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=fingerpost.dev,resources=resolverpools,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps,namespace=system,resources=deployments,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=autoscaling,namespace=system,resources=horizontalpodautoscalers,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",namespace=system,resources=configmaps,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",namespace=system,resources=services;serviceaccounts,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,namespace=system,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,namespace=system,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",namespace=system,resources=pods,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,verbs=get;create;patch;delete

// Reconcile brings the members of all pools in one Datacenter to what is declared, one step further.
func (r *PoolWorkloadReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var dc v1alpha1.Datacenter
	if err := r.Client.Get(ctx, req.NamespacedName, &dc); apierrors.IsNotFound(err) {
		r.Places.Drop(req.Name)
		r.Reports.put(req.Name, nil)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading Datacenter %s: %w", req.Name, err)
	}
	if ending(&dc) {
		r.Reports.put(dc.Name, nil)
		return reconcile.Result{}, nil // whoever lets go of it deletes all
	}
	ctx, cancel := context.WithTimeout(ctx, workloadPatience)
	defer cancel()
	wanted, held, err := r.pools(ctx, &dc)
	if err != nil {
		return reconcile.Result{}, err
	}
	reports := map[types.NamespacedName]*render.PoolWorkloadReport{}
	for i := range wanted {
		reports[client.ObjectKeyFromObject(&wanted[i])] = blankReport(&wanted[i], dc.Name)
	}
	again, err := r.run(ctx, &dc, wanted, held, reports)
	if refused, ok := errors.AsType[render.Refusal](err); ok {
		for _, report := range reports {
			report.Failure = render.Refuse(v1alpha1.ReasonClusterAway, "nothing is known of the members, which go on as they are: %v", refused)
		}
	}
	r.Reports.put(dc.Name, reports)
	if err != nil && len(reports) > 0 {
		return reconcile.Result{}, fmt.Errorf("running members of pools in Datacenter %s: %w", dc.Name, err)
	}
	return reconcile.Result{RequeueAfter: cmp.Or(again, workloadCheck)}, nil // where no pool is, whoever runs servers says what is wrong
}

// pools are those that are to have members in a datacenter, by namespace and name, and those of which it can't be told: what
// runs of them stays.
func (r *PoolWorkloadReconciler) pools(ctx context.Context, dc *v1alpha1.Datacenter) (wanted []v1alpha1.ResolverPool, held map[types.NamespacedName]bool, err error) {
	var pools v1alpha1.ResolverPoolList
	var datacenters v1alpha1.DatacenterList
	for _, list := range []client.ObjectList{&pools, &datacenters} {
		if err := r.Client.List(ctx, list); err != nil {
			return nil, nil, fmt.Errorf("listing pools of Datacenter %s: %w", dc.Name, err)
		}
	}
	var all []*v1alpha1.Datacenter
	for i := range datacenters.Items {
		all = append(all, &datacenters.Items[i])
	}
	held = map[types.NamespacedName]bool{}
	for _, p := range pools.Items {
		if p.Spec.Management == v1alpha1.ResolverPoolExternal || !p.DeletionTimestamp.IsZero() {
			continue
		}
		switch chosen, err := render.PoolDatacenters(&p, all); {
		case slices.ContainsFunc(chosen, func(c *v1alpha1.Datacenter) bool { return c.Name == dc.Name }):
			wanted = append(wanted, p)
		case err != nil:
			held[client.ObjectKeyFromObject(&p)] = dc.DeletionTimestamp.IsZero()
		}
	}
	slices.SortFunc(wanted, func(a, b v1alpha1.ResolverPool) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return wanted, held, nil
}

// blankReport is that of a pool of which nothing is known but what is declared.
func blankReport(p *v1alpha1.ResolverPool, datacenter string) *render.PoolWorkloadReport {
	report := &render.PoolWorkloadReport{Datacenter: datacenter}
	for _, m := range render.PoolMembers(p) {
		report.Members = append(report.Members, render.MemberReport{Engine: m.Engine, Declared: render.DeclaredMembers(m)})
	}
	return report
}

// run applies what there is to be of all pools, and returns when to look again. Errors that are Refusals are about the
// cluster.
func (r *PoolWorkloadReconciler) run(
	ctx context.Context, dc *v1alpha1.Datacenter, wanted []v1alpha1.ResolverPool, held map[types.NamespacedName]bool, reports map[types.NamespacedName]*render.PoolWorkloadReport,
) (time.Duration, error) {
	if dc.Spec.Cluster != nil && dc.Spec.Cluster.KubeconfigSecretRef != nil && len(wanted) > 0 {
		if err := setFinalizer(ctx, r.Client, dc, controllerutil.AddFinalizer); err != nil {
			return 0, err
		}
	}
	place, err := r.Places.Of(ctx, dc)
	if err != nil {
		return 0, err
	}
	var failure render.Refusal // which all pools have
	defer func() {
		for _, report := range reports {
			if report.Failure == nil {
				report.Failure = failure
			}
		}
	}()
	live, err := observePools(ctx, place, dc.Name)
	if err != nil {
		return 0, fault(place, &failure, err)
	}
	if len(wanted) > 0 {
		if failure, err = ensureNamespace(ctx, place); err != nil {
			return 0, fault(place, &failure, err)
		}
	}
	again := workloadCheck
	var errs []error
	for i := range wanted {
		p := &wanted[i]
		at := render.PoolPlace{Pool: client.ObjectKeyFromObject(p), Datacenter: dc.Name}
		found, report := live[at], reports[at.Pool]
		delete(live, at)
		found.fill(report)
		if failure != nil {
			again = mendCheck
			continue
		}
		soon, err := r.pool(ctx, dc, p, place, found, report)
		errs = append(errs, err)
		again = min(again, cmp.Or(soon, again))
	}
	for at, found := range live {
		if held[at.Pool] {
			continue
		}
		if len(found.pods) > 0 { // what says who they are, and whom they may ask, outlasts them
			found.all = slices.DeleteFunc(found.all, func(o client.Object) bool {
				switch o.(type) {
				case *networkingv1.NetworkPolicy, *corev1.ServiceAccount:
					return true
				}
				return false
			})
		}
		errs = append(errs, found.remove(ctx, place, at))
	}
	return again, fault(place, &failure, errors.Join(errs...))
}

// madeForPool is what there is of one pool in one datacenter. nil: nothing.
type madeForPool struct {
	deployments []appsv1.Deployment
	service     *corev1.Service
	pods        []corev1.Pod
	// all are the objects that the operator made, pods and Secrets not among them.
	all []client.Object
}

// observePools reads what the operator has made for members of pools in a Datacenter, and the pods that came of it.
func observePools(ctx context.Context, place Place, datacenter string) (map[render.PoolPlace]*madeForPool, error) {
	made := map[render.PoolPlace]*madeForPool{}
	of := func(o client.Object) *madeForPool {
		at, _ := render.PoolOf(o)
		if made[at] == nil {
			made[at] = &madeForPool{}
		}
		return made[at]
	}
	var deployments appsv1.DeploymentList
	var services corev1.ServiceList
	var pods corev1.PodList
	all, err := listMade(ctx, place, datacenter, selection.Exists, &autoscalingv2.HorizontalPodAutoscalerList{}, &deployments, &services, &corev1.ConfigMapList{},
		&policyv1.PodDisruptionBudgetList{}, &networkingv1.NetworkPolicyList{}, &corev1.ServiceAccountList{})
	if err != nil {
		return nil, err
	}
	if _, err := listMade(ctx, place, datacenter, selection.Exists, &pods); err != nil {
		return nil, err
	}
	for _, o := range all {
		f := of(o)
		f.all = append(f.all, o)
		switch o := o.(type) {
		case *appsv1.Deployment:
			f.deployments = append(f.deployments, *o)
		case *corev1.Service:
			f.service = o
		}
	}
	for i := range pods.Items {
		f := of(&pods.Items[i])
		f.pods = append(f.pods, pods.Items[i])
	}
	return made, nil
}

// fill puts what there is into a report.
func (f *madeForPool) fill(report *render.PoolWorkloadReport) {
	if f == nil {
		return
	}
	report.Service = f.service
	for i := range report.Members {
		m := &report.Members[i]
		for j := range f.deployments {
			if f.deployments[j].Labels[render.LabelEngine] == string(m.Engine) {
				m.Deployment = &f.deployments[j]
			}
		}
		for _, p := range f.pods {
			if p.Labels[render.LabelEngine] == string(m.Engine) {
				m.Pods = append(m.Pods, p)
			}
		}
	}
}

// remove deletes all that there is of a pool.
func (f *madeForPool) remove(ctx context.Context, place Place, at render.PoolPlace) error {
	secrets := []string{render.PoolCertificateSecret(at)}
	if !place.Own { // there it is as it was issued
		secrets = append(secrets, ServerSecret(poolGroup(at.Datacenter, at.Pool)))
	}
	for _, name := range secrets { // first: nobody lists them
		if err := remove(ctx, place, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: place.Namespace, Name: name}}); err != nil {
			return err
		}
	}
	for _, o := range f.all {
		if err := remove(ctx, place, o); err != nil {
			return err
		}
	}
	return nil
}

// removePools deletes all that there is of pools in a Datacenter that is gone. Where the operator has never had the rights that
// members need there is nothing of them.
func removePools(ctx context.Context, place Place, datacenter string) error {
	if accounts, err := listMade(ctx, place, datacenter, selection.Exists, &corev1.ServiceAccountList{}); err != nil || len(accounts) == 0 { // of which each pool has one, the last to go
		return err
	}
	live, err := observePools(ctx, place, datacenter)
	if err != nil {
		return err
	}
	var errs []error
	for at, found := range live {
		errs = append(errs, found.remove(ctx, place, at))
	}
	return errors.Join(errs...)
}

// pool brings one pool one step further, and returns when to look again. What a user can mend is in the report.
func (r *PoolWorkloadReconciler) pool(
	ctx context.Context, dc *v1alpha1.Datacenter, p *v1alpha1.ResolverPool, place Place, found *madeForPool, report *render.PoolWorkloadReport,
) (again time.Duration, err error) {
	at := render.PoolPlace{Pool: client.ObjectKeyFromObject(p), Datacenter: dc.Name}
	if found == nil {
		found = &madeForPool{}
	}
	hubs := reachableHubs(place, r.Hubs)
	if len(hubs) == 0 {
		report.Failure = noHub(r.Hubs)
		return 0, nil
	}
	defer func() {
		if err != nil && report.Failure == nil {
			again = mendCheck
			report.Failure, err = mendable(err)
		}
	}()
	if !place.Own {
		of := render.DatacenterSelector(at.Datacenter)
		maps.Copy(of, render.PoolSelector(at))
		name := types.NamespacedName{Namespace: r.Namespace, Name: ServerSecret(poolGroup(at.Datacenter, at.Pool))}
		if issued, err := copyCertificate(ctx, r.Secrets, name, place, of); err != nil {
			return 0, err
		} else if !issued {
			return rolloutCheck, nil // in a moment
		}
		again = remoteCheck
	}
	told, known := r.Told.of(at)
	if !known {
		return again, nil // what runs goes on; the pool says why nothing else does
	}
	in := render.PoolWorkloadInputs{
		Pool: p, Datacenter: dc, Namespace: place.Namespace, Images: r.Images, Config: told.Pool, Text: told.Text, Hubs: hubs, Owned: !place.Remote, Running: found.deployments,
	}
	objects := render.PoolWorkload(in)
	unusable, err := r.certificate(ctx, p, place, objects[0], found)
	if err != nil {
		return again, err
	}
	if encrypted(p) {
		again = remoteCheck // nobody tells when the certificate is another one
	}
	if err := r.apply(ctx, place, objects, found, report); err != nil {
		return again, err
	}
	report.Failure = unusable
	if report.Waiting != "" {
		again = rolloutCheck
	}
	return again, nil
}

// encrypted reports whether clients of the pool may ask over TLS.
func encrypted(p *v1alpha1.ResolverPool) bool {
	return p.Spec.Transports.DoT.Access == v1alpha1.TransportOpen || p.Spec.Transports.DoH.Access == v1alpha1.TransportOpen
}

// certificate brings the certificate that clients are shown to where members run, with labels and owner of another object of the
// pool. It is the Refusal that it can't be used: members go on with the one that they have.
func (r *PoolWorkloadReconciler) certificate(ctx context.Context, p *v1alpha1.ResolverPool, place Place, like client.Object, found *madeForPool) (unusable render.Refusal, err error) {
	at, _ := render.PoolOf(like)
	m := metav1.ObjectMeta{Namespace: place.Namespace, Name: render.PoolCertificateSecret(at), Labels: like.GetLabels(), OwnerReferences: like.GetOwnerReferences()}
	if !encrypted(p) {
		if found.service != nil && slices.ContainsFunc(found.service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == "dot" || p.Name == "doh" }) {
			return nil, remove(ctx, place, &corev1.Secret{ObjectMeta: m})
		}
		return nil, nil
	}
	if p.Spec.Transports.CertificateSecretRef == nil {
		return nil, nil // nor does the API server take it
	}
	read, err := readCertificate(ctx, r.Secrets, types.NamespacedName{Namespace: p.Namespace, Name: p.Spec.Transports.CertificateSecretRef.Name})
	if err != nil || read.fault != nil {
		return read.fault, err
	}
	return nil, keepSecret(ctx, place, m, map[string][]byte{corev1.TLSCertKey: read.certificate.GetCertificate(), corev1.TLSPrivateKeyKey: read.certificate.GetKey()})
}

// apply writes the objects of one pool, and deletes those of it that are not among them. Pods are made anew one engine at a time, and
// members that are not wanted any more end when all others are available.
func (r *PoolWorkloadReconciler) apply(ctx context.Context, place Place, objects []render.Object, found *madeForPool, report *render.PoolWorkloadReport) error {
	kept := map[string]bool{}
	identity := func(o client.Object) string { return fmt.Sprintf("%T %s", o, o.GetName()) }
	var wanted []*appsv1.Deployment
	for _, o := range objects {
		kept[identity(o)] = true
		if d, is := o.(*appsv1.Deployment); is && d.Spec.Template.Spec.Containers[0].Image != "" {
			wanted = append(wanted, d)
		}
	}
	now, waiting := render.MayApply(wanted, found.deployments)
	report.Waiting = waiting
	var digest string
	for _, o := range objects {
		switch o := o.(type) {
		case *appsv1.Deployment:
			m := report.Member(o.Labels[render.LabelEngine])
			if !slices.Contains(wanted, o) {
				m.Failure = render.Refuse(v1alpha1.ReasonNoImage, "no image is given: set image of the member, or the manager's --resolver-image %s=IMAGE", m.Engine)
				continue
			}
			if !slices.Contains(now, o) {
				continue
			}
			if o.Spec.Replicas == nil {
				if err := letScale(ctx, place, m.Deployment); err != nil {
					return err
				}
			}
		case *corev1.Service:
			if found.service != nil && render.ServiceReplaced(found.service, o) {
				if err := remove(ctx, place, found.service); err != nil {
					return err
				}
			}
		case *corev1.ConfigMap:
			digest = render.ConfigurationDigest(o)
		}
		applied, err := apply(ctx, place, o)
		if err != nil {
			return err
		}
		switch a := applied.(type) {
		case *appsv1.Deployment:
			report.Member(a.Labels[render.LabelEngine]).Deployment = a
		case *corev1.Service:
			report.Service = a
		}
	}
	if err := announce(ctx, place, found.pods, digest); err != nil {
		return err
	}
	for _, o := range found.all {
		if kept[identity(o)] {
			continue
		}
		if d, is := o.(*appsv1.Deployment); is {
			if short := report.Short(); len(short) > 0 {
				report.Waiting = fmt.Sprintf("members of %s end when all members of %s are available", d.Labels[render.LabelEngine], short)
				continue
			}
		}
		if err := remove(ctx, place, o); err != nil {
			return err
		}
	}
	return nil
}

// announce has kubelets bring a pool's ConfigMap up to date in its pods at once.
func announce(ctx context.Context, place Place, pods []corev1.Pod, digest string) error {
	for i := range pods {
		p := &pods[i]
		if p.Annotations[render.ConfigurationAnnotation] == digest || !p.DeletionTimestamp.IsZero() {
			continue
		}
		before := p.DeepCopy()
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, render.ConfigurationAnnotation, digest)
		if err := place.Client.Patch(ctx, p, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("annotating pod %s: %w", p.Name, err)
		}
	}
	return nil
}

// letScale leaves the number of replicas of a Deployment (nil: there is none) as it is when the operator does not say it any more:
// a field that nobody has would become 1.
func letScale(ctx context.Context, place Place, d *appsv1.Deployment) error {
	owns := func(e metav1.ManagedFieldsEntry) bool {
		var fields struct {
			Spec map[string]any `json:"f:spec"`
		}
		if e.Manager != fieldOwner || e.Operation != metav1.ManagedFieldsOperationApply || e.FieldsV1 == nil || json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields) != nil {
			return false
		}
		_, has := fields.Spec["f:replicas"]
		return has
	}
	if d == nil || !slices.ContainsFunc(d.ManagedFields, owns) {
		return nil
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"namespace": d.Namespace, "name": d.Name},
		"spec": map[string]any{"replicas": int64(ptr.Deref(d.Spec.Replicas, 1))},
	}}
	if err := place.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership, client.FieldOwner(scaleOwner)); err != nil {
		return fmt.Errorf("leaving the replicas of Deployment %s/%s to its load: %w", d.Namespace, d.Name, err)
	}
	return nil
}

// ToldPools has what the members of Managed pools are told: from who works it out to who runs them. It is in memory alone; what is
// not there yet leaves members as they are.
type ToldPools struct {
	// Changed is called with the name of a Datacenter whose members are told something else. It does not block.
	Changed func(datacenter string)

	mu    sync.Mutex
	pools map[render.PoolPlace]render.PoolRendered
}

// Put says what the members of a pool are told, by datacenter. Of one that is not among configs, or refused, they are told
// nothing else than before.
func (t *ToldPools) Put(pool types.NamespacedName, configs []PoolConfig) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pools == nil {
		t.pools = map[render.PoolPlace]render.PoolRendered{}
	}
	for _, c := range configs {
		at := render.PoolPlace{Pool: pool, Datacenter: c.Datacenter.Name}
		if before, is := t.pools[at]; c.Refused == nil && (!is || !slices.Equal(before.Text, c.Text)) {
			t.pools[at] = c.PoolRendered
			t.Changed(at.Datacenter)
		}
	}
}

// Drop forgets a pool that is gone, or that somebody else runs.
func (t *ToldPools) Drop(pool types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.pools, func(at render.PoolPlace, _ render.PoolRendered) bool { return at.Pool == pool })
}

// of returns what the members of a pool in a datacenter are told; false: it is not known yet.
func (t *ToldPools) of(at render.PoolPlace) (render.PoolRendered, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	told, known := t.pools[at]
	return told, known
}

// PoolWorkloadReports has what the last look at the members of each pool in each datacenter has found.
type PoolWorkloadReports struct {
	// OnReport is called with a pool of which something else was found. It does not block.
	OnReport func(types.NamespacedName)

	mu      sync.Mutex
	reports map[string]map[types.NamespacedName]*render.PoolWorkloadReport // by datacenter
}

// Of returns the reports on the members of a pool, by datacenter, not to be changed. There is none of a datacenter at which nobody
// has looked yet.
func (w *PoolWorkloadReports) Of(pool types.NamespacedName) []*render.PoolWorkloadReport {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*render.PoolWorkloadReport
	for _, datacenter := range slices.Sorted(maps.Keys(w.reports)) {
		if r := w.reports[datacenter][pool]; r != nil {
			all = append(all, r)
		}
	}
	return all
}

// put replaces the reports of a datacenter; none: nil.
func (w *PoolWorkloadReports) put(datacenter string, reports map[types.NamespacedName]*render.PoolWorkloadReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reports == nil {
		w.reports = map[string]map[types.NamespacedName]*render.PoolWorkloadReport{}
	}
	before := w.reports[datacenter]
	w.reports[datacenter] = reports
	for pool, now := range reports {
		if !reflect.DeepEqual(before[pool], now) {
			w.OnReport(pool)
		}
	}
	for pool := range before {
		if reports[pool] == nil {
			w.OnReport(pool)
		}
	}
}
