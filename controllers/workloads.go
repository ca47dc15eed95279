package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

const (
	// fieldOwner owns the fields that the operator sets.
	fieldOwner = "fingerpost"
	// ServersFinalizer keeps a Datacenter with servers in another cluster until they are gone, or were given up.
	ServersFinalizer = "fingerpost.dev/servers"
	// leavingSince is on pods that leave: since when clients are not sent to them.
	leavingSince = "fingerpost.dev/leaving-since"
)

const (
	// workloadPatience is how long one look at a Datacenter's servers may take.
	workloadPatience = 30 * time.Second
	// cleanupPatience is for how long a deleted Datacenter waits for a cluster that is away.
	cleanupPatience = time.Minute
	// rolloutCheck is how often servers are looked at while they restart or leave: nobody tells when a zone is current.
	rolloutCheck = 2 * time.Second
	// mendCheck is how often it is tried again what somebody has to mend: a namespace, a right, a quota.
	mendCheck = 10 * time.Second
	// remoteCheck is how often Secrets are read that other clusters depend on: nobody may list or watch Secrets.
	remoteCheck = time.Minute
	// workloadCheck is how often servers are looked at though nothing has changed.
	workloadCheck = 10 * time.Minute
)

// WorkloadReconciler runs the servers of Managed groups: it applies their objects, restarts servers one at a time when these
// change, and deletes what is not wanted any more. What it found goes into Reports, for the Datacenter's status.
type WorkloadReconciler struct {
	Client    client.Client // for Datacenters; reads are cached
	Secrets   client.Reader // live, for certificates in Namespace
	Places    *Places
	Hub       *control.Hub
	Reports   *WorkloadReports
	Events    events.EventRecorder
	Clock     clock.PassiveClock
	Namespace string   // the operator's own
	Image     string   // of groups that name none
	Hubs      []string // HOST:PORT that servers dial, in order of preference
}

// Servers run in the operator's namespace. In any other one the operator has no rights but those that config/rbac/remote
// gives, or somebody else.
//
// +kubebuilder:rbac:groups=fingerpost.dev,resources=datacenters,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=storage.k8s.io,resources=storageclasses,verbs=list
// +kubebuilder:rbac:groups=apps,namespace=system,resources=statefulsets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",namespace=system,resources=services;serviceaccounts,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,namespace=system,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=networking.k8s.io,namespace=system,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",namespace=system,resources=pods,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",namespace=system,resources=pods/eviction,verbs=create
// +kubebuilder:rbac:groups="",namespace=system,resources=events,verbs=list

// Reconcile brings the servers of one Datacenter to what is declared, one step further.
func (r *WorkloadReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var dc v1alpha1.Datacenter
	if err := r.Client.Get(ctx, req.NamespacedName, &dc); apierrors.IsNotFound(err) {
		r.Places.Drop(req.Name)
		r.Reports.put(req.Name, nil)
		return reconcile.Result{}, nil
	} else if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading Datacenter %s: %w", req.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, workloadPatience)
	defer cancel()
	if ending(&dc) {
		return r.end(ctx, &dc)
	}
	report := &render.WorkloadReport{Remote: dc.Spec.Cluster != nil && dc.Spec.Cluster.KubeconfigSecretRef != nil}
	again, err := r.run(ctx, &dc, report)
	if refused, ok := errors.AsType[render.Refusal](err); ok { // it is in the status now, and tried again as errors are
		report.Cluster = refused
	}
	r.Reports.put(dc.Name, report)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("running the servers of Datacenter %s: %w", dc.Name, err)
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// ending reports whether the Datacenter is gone but for the servers that it has in another cluster.
func ending(dc *v1alpha1.Datacenter) bool {
	return !dc.DeletionTimestamp.IsZero() && slices.Equal(dc.Finalizers, []string{ServersFinalizer})
}

// run applies what there is to be, and returns when to look again. Errors that are Refusals are about the cluster.
func (r *WorkloadReconciler) run(ctx context.Context, dc *v1alpha1.Datacenter, report *render.WorkloadReport) (time.Duration, error) {
	managed := func(g v1alpha1.ServerGroup) bool { return g.Management == v1alpha1.ServerGroupManaged }
	if report.Remote && slices.ContainsFunc(dc.Spec.ServerGroups, managed) && dc.DeletionTimestamp.IsZero() {
		if err := setFinalizer(ctx, r.Client, dc, controllerutil.AddFinalizer); err != nil {
			return 0, err
		}
	}
	place, err := r.Places.Of(ctx, dc)
	if err != nil {
		return 0, err
	}
	live, err := observe(ctx, place, dc.Name)
	if err != nil {
		return 0, fault(place, &report.Failure, err)
	}
	if !slices.ContainsFunc(dc.Spec.ServerGroups, managed) {
		return workloadCheck, fault(place, &report.Failure, r.prune(ctx, dc, place, live))
	}
	if report.Failure, err = ensureNamespace(ctx, place); err != nil {
		return 0, fault(place, &report.Failure, err)
	}
	if report.Failure != nil {
		for _, g := range dc.Spec.ServerGroups {
			if managed(g) {
				set, _, pods := live.of(g.Name)
				report.Groups = append(report.Groups, render.GroupReport{Name: g.Name, Declared: render.DeclaredServers(g), Set: set, Pods: pods})
			}
		}
		return mendCheck, nil
	}
	again := workloadCheck
	if !place.Own {
		again = remoteCheck
	}
	storage, err := hasDefaultStorage(ctx, place)
	if err != nil {
		return 0, fault(place, &report.Failure, err)
	}
	for _, g := range dc.Spec.ServerGroups {
		if !managed(g) {
			continue
		}
		group, soon, err := r.group(ctx, dc, g, place, live, storage)
		report.Groups = append(report.Groups, group)
		if err != nil {
			return 0, fault(place, &report.Failure, err)
		}
		again = min(again, soon)
	}
	return again, fault(place, &report.Failure, r.prune(ctx, dc, place, live))
}

// fault makes of what a call to a place ended with a Refusal if the cluster is at fault; of the operator's own cluster only
// rights are worth telling, and that is in failure then, if nothing else is.
func fault(place Place, failure *render.Refusal, err error) error {
	fault := clusterFault(err)
	switch {
	case fault == nil:
		return err
	case place.Remote:
		return fault
	case fault.Reason() == v1alpha1.ReasonForbidden && *failure == nil:
		*failure = render.Refuse(v1alpha1.ReasonForbidden, "%v. The rights that are needed are in config/rbac/remote: apply it for namespace %s, with the manager's ServiceAccount",
			err, place.Namespace)
	}
	return err
}

// setFinalizer adds the finalizer to the Datacenter, or removes it.
func setFinalizer(ctx context.Context, to client.Writer, dc *v1alpha1.Datacenter, change func(client.Object, string) bool) error {
	before := dc.DeepCopy()
	if !change(dc, ServersFinalizer) {
		return nil
	}
	if err := to.Patch(ctx, dc, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("writing the finalizer: %w", err)
	}
	return nil
}

// found is what there is of a Datacenter's servers.
type found struct {
	sets     []appsv1.StatefulSet
	services []corev1.Service
	pods     []corev1.Pod
	// all are the objects that the operator made, pods and Secrets not among them.
	all []client.Object
}

// observe reads what the operator has made for a Datacenter, and the pods that came of it.
func observe(ctx context.Context, place Place, datacenter string) (found, error) {
	var f found
	var (
		sets     appsv1.StatefulSetList
		services corev1.ServiceList
		pods     corev1.PodList
		budgets  policyv1.PodDisruptionBudgetList
		policies networkingv1.NetworkPolicyList
		accounts corev1.ServiceAccountList
	)
	var err error
	if f.all, err = listMade(ctx, place, datacenter, selection.DoesNotExist, &sets, &services, &budgets, &policies, &accounts); err != nil {
		return f, err
	}
	_, err = listMade(ctx, place, datacenter, selection.DoesNotExist, &pods)
	f.sets, f.services, f.pods = sets.Items, services.Items, pods.Items
	return f, err
}

// listMade fills lists with what the operator has made for a Datacenter's servers (ofPools is DoesNotExist), or for members of
// pools there (Exists), and with their pods. It returns all objects, list by list.
func listMade(ctx context.Context, place Place, datacenter string, ofPools selection.Operator, lists ...client.ObjectList) ([]client.Object, error) {
	pools, err := labels.NewRequirement(render.LabelPool, ofPools, nil)
	if err != nil {
		return nil, err
	}
	selector := client.MatchingLabelsSelector{Selector: labels.SelectorFromSet(render.DatacenterSelector(datacenter)).Add(*pools)}
	var all []client.Object
	for _, list := range lists {
		if err := place.Client.List(ctx, list, client.InNamespace(place.Namespace), selector); err != nil {
			return nil, fmt.Errorf("listing what runs in namespace %s: %w", place.Namespace, err)
		}
		if err := meta.EachListItem(list, func(o runtime.Object) error { all = append(all, o.(client.Object)); return nil }); err != nil {
			return nil, fmt.Errorf("reading a list: %w", err)
		}
	}
	return all, nil
}

// of returns the part that belongs to a group.
func (f found) of(group string) (set *appsv1.StatefulSet, services []corev1.Service, pods []corev1.Pod) {
	for i := range f.sets {
		if f.sets[i].Labels[render.LabelGroup] == group {
			set = &f.sets[i]
		}
	}
	for _, s := range f.services {
		if s.Labels[render.LabelGroup] == group && s.Labels[render.LabelService] == render.ServiceOfClients {
			services = append(services, s)
		}
	}
	for _, p := range f.pods {
		if p.Labels[render.LabelGroup] == group {
			pods = append(pods, p)
		}
	}
	return set, services, pods
}

// ensureNamespace makes the place's namespace if it is missing and may be made.
func ensureNamespace(ctx context.Context, place Place) (render.Refusal, error) {
	if place.Own {
		return nil, nil
	}
	ns := &corev1.Namespace{}
	switch err := place.Client.Get(ctx, types.NamespacedName{Name: place.Namespace}, ns); {
	case apierrors.IsForbidden(err):
		return nil, nil // it will show
	case apierrors.IsNotFound(err):
		ns.Name, ns.Labels = place.Namespace, map[string]string{render.LabelManagedBy: render.ManagedBy}
		if err := place.Client.Create(ctx, ns); apierrors.IsForbidden(err) {
			return render.Refuse(v1alpha1.ReasonNamespaceMissing, "there is no namespace %s, and the operator may not make it: kubectl create namespace %s", place.Namespace, place.Namespace), nil
		} else if client.IgnoreAlreadyExists(err) != nil {
			return nil, fmt.Errorf("making namespace %s: %w", place.Namespace, err)
		}
	case err != nil:
		return nil, fmt.Errorf("reading namespace %s: %w", place.Namespace, err)
	case !ns.DeletionTimestamp.IsZero():
		return terminating(place.Namespace), nil
	}
	return nil, nil
}

func terminating(namespace string) render.Refusal {
	return render.Refuse(v1alpha1.ReasonNamespaceTerminating, "namespace %s is being deleted, and its servers with it. If that was not meant, they are made again "+
		"when it is gone and there again", namespace)
}

// defaultStorageClass marks the StorageClass of claims that name none.
const defaultStorageClass = "storageclass.kubernetes.io/is-default-class"

// hasDefaultStorage reports whether the cluster has a default StorageClass that the operator may see.
func hasDefaultStorage(ctx context.Context, place Place) (bool, error) {
	var classes storagev1.StorageClassList
	if err := place.Client.List(ctx, &classes); apierrors.IsForbidden(err) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("listing StorageClasses: %w", err)
	}
	return slices.ContainsFunc(classes.Items, func(c storagev1.StorageClass) bool { return c.Annotations[defaultStorageClass] == "true" }), nil
}

// group brings one group one step further, and returns when to look again. What a user can mend is in the report.
func (r *WorkloadReconciler) group(
	ctx context.Context, dc *v1alpha1.Datacenter, g v1alpha1.ServerGroup, place Place, live found, storage bool,
) (render.GroupReport, time.Duration, error) {
	key := control.GroupKey{Datacenter: dc.Name, Group: g.Name}
	report := render.GroupReport{Name: g.Name, Declared: render.DeclaredServers(g)}
	set, services, pods := live.of(g.Name)
	report.Set, report.Pods = set, pods
	hubs := reachableHubs(place, r.Hubs)
	switch {
	case render.ServerImage(g, r.Image) == "":
		report.Failure = render.Refuse(v1alpha1.ReasonNoImage, "no image is given: set image, or the manager's --dnsserver-image")
		return report, workloadCheck, nil
	case len(hubs) == 0:
		report.Failure = noHub(r.Hubs)
		return report, workloadCheck, nil
	}
	if !place.Own {
		of := render.DatacenterSelector(key.Datacenter)
		of[render.LabelGroup] = key.Group
		if found, err := copyCertificate(ctx, r.Secrets, types.NamespacedName{Namespace: r.Namespace, Name: ServerSecret(key)}, place, of); err != nil {
			report.Failure, err = mendable(err)
			return report, mendCheck, err
		} else if !found {
			return report, rolloutCheck, nil // it is issued in a moment
		}
	}
	running := report.Declared
	if set != nil {
		running = int(ptr.Deref(set.Spec.Replicas, 0))
	}
	states := r.states(dc, g, set, pods)
	leave := render.Leave(report.Declared, running, states, r.Clock.Now())
	if err := r.mark(ctx, place, pods, leave); err != nil {
		report.Failure, err = mendable(err)
		return report, mendCheck, err
	}
	for _, o := range render.Workload(render.WorkloadInputs{
		Datacenter: dc, Group: g, Namespace: place.Namespace, Image: r.Image, Hubs: hubs, Replicas: leave.Replicas, Owned: !place.Remote,
		Running: set, DefaultStorage: storage, Services: services,
	}) {
		applied, err := apply(ctx, place, o)
		if err != nil {
			report.Failure, err = mendable(err)
			return report, mendCheck, err
		}
		switch a := applied.(type) {
		case *appsv1.StatefulSet:
			report.Set = a
		case *corev1.Service:
			if a.Labels[render.LabelService] == render.ServiceOfClients {
				report.Service = a
			}
		}
	}
	again := workloadCheck
	if leave.Again > 0 {
		again = leave.Again
	}
	restart, waiting := "", ""
	if report.Set.Status.ObservedGeneration == report.Set.Generation { // else it is not known yet which pods are outdated
		restart, waiting = render.NextRestart(r.states(dc, g, report.Set, pods), leave.Replicas)
	}
	if restart != "" {
		err := r.restart(ctx, dc, place, g.Name, restart)
		waiting = restart + " restarts"
		if apierrors.IsTooManyRequests(err) {
			waiting, err = fmt.Sprintf("PodDisruptionBudget %s lets nobody take down %s yet", render.WorkloadName(render.Location(key)), restart), nil
		}
		if err != nil {
			report.Failure, err = mendable(err)
			return report, mendCheck, err
		}
	}
	report.Waiting = strings.Join(slices.DeleteFunc([]string{leave.Waiting, waiting}, func(s string) bool { return s == "" }), "; ")
	if report.Waiting != "" {
		again = min(again, rolloutCheck)
	}
	if len(pods) < leave.Replicas {
		again = min(again, remoteCheck)
		var err error
		if report.Complaint, err = complaint(ctx, place, report.Set); err != nil {
			return report, 0, err
		}
	}
	return report, again, nil
}

// reachableHubs are the endpoints that can be reached from a place: those of the own cluster's Services are nothing to others.
func reachableHubs(place Place, all []string) []string {
	if !place.Remote {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(endpoint string) bool {
		host, _, err := net.SplitHostPort(endpoint)
		return err == nil && (strings.HasSuffix(host, ".svc") || strings.Contains(host, ".svc."))
	})
}

func noHub(all []string) render.Refusal {
	return render.Refuse(v1alpha1.ReasonNoHub, "servers in another cluster can't reach %s: give the manager a --hub-endpoint that is reached from there", strings.Join(all, ", "))
}

// states is what there is to know of a group's pods.
func (r *WorkloadReconciler) states(dc *v1alpha1.Datacenter, g v1alpha1.ServerGroup, set *appsv1.StatefulSet, pods []corev1.Pod) []render.ServerPod {
	current := map[string]bool{}
	for _, s := range r.Hub.Servers() {
		if s.ID.Datacenter == dc.Name && s.ID.Group == g.Name {
			current[s.ID.Name] = s.Synced()
		}
	}
	declared := render.DeclaredServers(g)
	delegated := map[netip.Addr]bool{} // that are not let go yet
	for _, status := range dc.Status.ServerGroups {
		for _, a := range status.Addresses {
			if addr, err := netip.ParseAddr(string(a.Address)); status.Name == g.Name && err == nil && a.State != v1alpha1.ServerAddressPending {
				delegated[addr.Unmap()] = true
			}
		}
	}
	states := make([]render.ServerPod, 0, len(pods))
	for i := range pods {
		p := &pods[i]
		state := render.ServerPod{
			Name: p.Name, Ordinal: ordinal(p.Name), Outdated: render.PodOutdated(p, set), Ready: render.PodReady(p),
			Ending: !p.DeletionTimestamp.IsZero(), Current: current[p.Name],
		}
		if p.Labels[render.LabelServing] == "false" {
			state.Leaving, _ = time.Parse(time.RFC3339, p.Annotations[leavingSince])
			if state.Leaving.IsZero() {
				state.Leaving = r.Clock.Now() // somebody else's doing
			}
		}
		if p.Spec.HostNetwork && state.Ordinal < declared {
			for _, ip := range p.Status.HostIPs {
				if a, err := netip.ParseAddr(ip.IP); err == nil {
					delete(delegated, a.Unmap()) // this one stays
				}
			}
		}
		states = append(states, state)
	}
	for i := range pods {
		if pods[i].Spec.HostNetwork && states[i].Ordinal >= declared {
			states[i].Delegated = slices.ContainsFunc(pods[i].Status.HostIPs, func(ip corev1.HostIP) bool {
				a, err := netip.ParseAddr(ip.IP)
				return err == nil && delegated[a.Unmap()]
			})
		}
	}
	return states
}

// ordinal is the number at the end of the name of a StatefulSet's pod.
func ordinal(pod string) int {
	n, err := strconv.Atoi(pod[strings.LastIndexByte(pod, '-')+1:])
	if err != nil {
		return -1
	}
	return n
}

// mark takes pods out of the Service that are to leave, and puts back those that stay after all.
func (r *WorkloadReconciler) mark(ctx context.Context, place Place, pods []corev1.Pod, d render.Departure) error {
	for i := range pods {
		p := &pods[i]
		before := p.DeepCopy()
		switch {
		case slices.Contains(d.Withdraw, p.Name):
			metav1.SetMetaDataLabel(&p.ObjectMeta, render.LabelServing, "false")
			metav1.SetMetaDataAnnotation(&p.ObjectMeta, leavingSince, r.Clock.Now().UTC().Format(time.RFC3339))
		case slices.Contains(d.Return, p.Name):
			metav1.SetMetaDataLabel(&p.ObjectMeta, render.LabelServing, "true")
			delete(p.Annotations, leavingSince)
		default:
			continue
		}
		if err := place.Client.Patch(ctx, p, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("labelling pod %s: %w", p.Name, err)
		}
	}
	return nil
}

// restart has a pod made anew, if its PodDisruptionBudget lets it go.
func (r *WorkloadReconciler) restart(ctx context.Context, dc *v1alpha1.Datacenter, place Place, group, pod string) error {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: place.Namespace, Name: pod}}
	if err := place.Client.SubResource("eviction").Create(ctx, p, &policyv1.Eviction{}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("evicting pod %s: %w", pod, err)
	}
	r.Events.Eventf(dc, nil, corev1.EventTypeNormal, "ServerRestart", "Restart", "restarting server %s of group %s: it is not as declared", pod, group)
	return nil
}

// copyCertificate brings the certificate in a Secret of the operator to a place, under the same name. It is not found before it
// was issued.
func copyCertificate(ctx context.Context, secrets client.Reader, name types.NamespacedName, place Place, labels map[string]string) (found bool, err error) {
	var issued corev1.Secret
	if err := secrets.Get(ctx, name, &issued); apierrors.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("reading Secret %s: %w", name, err)
	}
	data := map[string][]byte{}
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, pki.BundleKey} {
		data[key] = issued.Data[key]
	}
	return true, keepSecret(ctx, place, metav1.ObjectMeta{Namespace: place.Namespace, Name: name.Name, Labels: labels}, data)
}

// keepSecret has a Secret at a place hold data, with a certificate and its key.
func keepSecret(ctx context.Context, place Place, m metav1.ObjectMeta, data map[string][]byte) error {
	var held corev1.Secret
	at := types.NamespacedName{Namespace: m.Namespace, Name: m.Name}
	switch err := place.Client.Get(ctx, at, &held); {
	case err == nil && maps.EqualFunc(data, held.Data, slices.Equal):
		return nil
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("reading Secret %s: %w", at, err)
	}
	_, err := apply(ctx, place, &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: m, Type: corev1.SecretTypeTLS, Data: data})
	return err
}

// apply writes the object's fields, and makes it if it is not there. Fields that others have set stay. It returns the
// object as it is then.
func apply(ctx context.Context, place Place, o render.Object) (client.Object, error) {
	fields, err := render.OwnedFields(o)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: fields}
	what := fmt.Sprintf("%s %s/%s", u.GetKind(), u.GetNamespace(), u.GetName())
	if err := place.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.ForceOwnership); err != nil {
		return nil, fmt.Errorf("applying %s: %w", what, err)
	}
	applied := reflect.New(reflect.TypeOf(o).Elem()).Interface().(client.Object)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, applied); err != nil {
		return nil, fmt.Errorf("reading %s as applied: %w", what, err)
	}
	return applied, nil
}

// mendable turns an error of a call about one object into what a user can do about it; others stay errors.
func mendable(err error) (render.Refusal, error) {
	var status apierrors.APIStatus
	switch {
	case !errors.As(err, &status):
		return nil, err
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return render.Refuse(v1alpha1.ReasonNamespaceTerminating, "%v", err), nil
	case apierrors.IsNotFound(err):
		return render.Refuse(v1alpha1.ReasonNamespaceMissing, "%v. Make the namespace: kubectl create namespace", err), nil
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		return render.Refuse(v1alpha1.ReasonQuotaExceeded, "%v. Raise the ResourceQuota", err), nil
	case apierrors.IsForbidden(err):
		return render.Refuse(v1alpha1.ReasonForbidden, "%v. If it is a right that is missing, it is in config/rbac/remote; else a policy of the cluster does not let it pass", err), nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return render.Refuse(v1alpha1.ReasonRefused, "%v. Another exposure.type, or other values in pods, may do", err), nil
	}
	return nil, err
}

// complaint is what Kubernetes said last when it could not make a pod of the StatefulSet; "" if it said nothing.
func complaint(ctx context.Context, place Place, set *appsv1.StatefulSet) (string, error) {
	var list corev1.EventList
	err := place.Client.List(ctx, &list, client.InNamespace(place.Namespace), client.MatchingFields{
		"involvedObject.kind": "StatefulSet", "involvedObject.name": set.Name, "reason": "FailedCreate",
	})
	if apierrors.IsForbidden(err) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("listing Events of StatefulSet %s: %w", set.Name, err)
	}
	var last corev1.Event
	for _, e := range list.Items {
		if e.InvolvedObject.UID == set.UID && !e.LastTimestamp.Before(&last.LastTimestamp) {
			last = e
		}
	}
	return last.Message, nil
}

// prune deletes what is not wanted any more: all of a group that is not declared, and Services that nobody comes by. A
// group stays as long as resolvers may come to its addresses.
func (r *WorkloadReconciler) prune(ctx context.Context, dc *v1alpha1.Datacenter, place Place, live found) error {
	declared := map[string]*v1alpha1.ServerGroup{}
	for i := range dc.Spec.ServerGroups {
		if g := &dc.Spec.ServerGroups[i]; g.Management == v1alpha1.ServerGroupManaged {
			declared[g.Name] = g
		}
	}
	known := map[string]*v1alpha1.ServerGroupStatus{}
	for i := range dc.Status.ServerGroups {
		known[dc.Status.ServerGroups[i].Name] = &dc.Status.ServerGroups[i]
	}
	gone := map[string]bool{}
	for _, o := range live.all {
		name := o.GetLabels()[render.LabelGroup]
		if group := declared[name]; group != nil {
			s, is := o.(*corev1.Service)
			if !is || s.Labels[render.LabelService] != render.ServiceOfClients {
				continue
			}
			_, services, _ := live.of(name)
			if present := clientService(dc, *group, live); s.Name == present || render.ServiceStays(s, known[name], present, services) {
				continue
			}
		} else if known[name] != nil && len(known[name].Addresses) > 0 {
			continue
		} else {
			gone[name] = true
		}
		if err := remove(ctx, place, o); err != nil {
			return err
		}
	}
	if place.Own {
		return nil
	}
	for group := range gone {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: place.Namespace, Name: ServerSecret(control.GroupKey{Datacenter: dc.Name, Group: group})}}
		if err := remove(ctx, place, s); err != nil {
			return err
		}
	}
	return nil
}

// clientService is the name of the Service that clients of a group come by; "": there is none.
func clientService(dc *v1alpha1.Datacenter, g v1alpha1.ServerGroup, live found) string {
	if g.Exposure != nil && g.Exposure.Type == v1alpha1.ExposureHostNetwork {
		return ""
	}
	_, services, _ := live.of(g.Name)
	return render.ClientService(render.Location{Datacenter: dc.Name, Group: g.Name}, g, services)
}

func remove(ctx context.Context, place Place, o client.Object) error {
	if err := place.Client.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationBackground)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting %T %s/%s: %w", o, o.GetNamespace(), o.GetName(), err)
	}
	return nil
}

// end deletes what a Datacenter that is gone has in another cluster, and lets go of it: in cleanupPatience at the latest.
func (r *WorkloadReconciler) end(ctx context.Context, dc *v1alpha1.Datacenter) (reconcile.Result, error) {
	err := r.cleanUp(ctx, dc)
	if err != nil && r.Clock.Since(dc.DeletionTimestamp.Time) < cleanupPatience {
		r.Reports.put(dc.Name, &render.WorkloadReport{Remote: true, Cluster: render.Refuse(v1alpha1.ReasonUnreachable,
			"deleting the servers failed, and is tried until %s: %v", dc.DeletionTimestamp.Add(cleanupPatience).UTC().Format(time.RFC3339), err)})
		log.FromContext(ctx).Info("Deleting the servers of a Datacenter failed, it is tried again", "datacenter", dc.Name, "reason", err.Error())
		return reconcile.Result{RequeueAfter: remoteCheck / 12}, nil
	}
	if err != nil {
		r.Events.Eventf(dc, nil, corev1.EventTypeWarning, "ServersLeftBehind", "Delete", "%s", note(fmt.Sprintf(
			"what ran servers in namespace %s of the cluster in Secret %s is still there: %v. Delete it: kubectl delete -n %s %s -l %s=%s",
			dc.Spec.Cluster.Namespace, dc.Spec.Cluster.KubeconfigSecretRef.Name, err, dc.Spec.Cluster.Namespace, madeThere, render.LabelDatacenter, dc.Name)))
		log.FromContext(ctx).Error(err, "A Datacenter is gone, its servers are left behind", "datacenter", dc.Name)
	}
	if err := setFinalizer(ctx, r.Client, dc, controllerutil.RemoveFinalizer); err != nil {
		return reconcile.Result{}, fmt.Errorf("letting go of Datacenter %s: %w", dc.Name, err)
	}
	return reconcile.Result{}, nil
}

// madeThere are the kinds of what the operator makes in another cluster, as kubectl has them.
const madeThere = "statefulsets,deployments,services,poddisruptionbudgets,networkpolicies,serviceaccounts,configmaps,horizontalpodautoscalers,secrets"

func (r *WorkloadReconciler) cleanUp(ctx context.Context, dc *v1alpha1.Datacenter) error {
	place, err := r.Places.Of(ctx, dc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, workloadPatience/2)
	defer cancel()
	live, err := observe(ctx, place, dc.Name)
	if err != nil {
		return err
	}
	gone := dc.DeepCopy()
	gone.Spec.ServerGroups, gone.Status.ServerGroups = nil, nil
	return errors.Join(r.prune(ctx, gone, place, live), removePools(ctx, place, dc.Name))
}

// WorkloadReports has what the last look at each Datacenter's servers has found.
type WorkloadReports struct {
	// OnReport is called with the name of a Datacenter whose report has changed. It does not block.
	OnReport func(datacenter string)

	mu      sync.Mutex
	reports map[string]*render.WorkloadReport
}

// Of returns the report on a Datacenter's servers, not to be changed; nil: nobody has looked yet.
func (w *WorkloadReports) Of(datacenter string) *render.WorkloadReport {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reports[datacenter]
}

func (w *WorkloadReports) put(datacenter string, r *render.WorkloadReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reports == nil {
		w.reports = map[string]*render.WorkloadReport{}
	}
	if r == nil {
		delete(w.reports, datacenter)
		return
	}
	w.reports[datacenter] = r
	w.OnReport(datacenter)
}
