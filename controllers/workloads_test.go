package controllers_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

// standIn does what a controller manager and kubelets do, as far as the operator sees it: an API server alone makes no
// pods. Pods of StatefulSets appear and end, their status says that they are ready, and budgets let one go.
type standIn struct {
	t         *testing.T
	api       client.WithWatch
	namespace string
	changed   func() // called after each step

	mu      sync.Mutex
	started map[types.UID]bool
	onStart func(pod string) // called once for each pod, in a goroutine of its own
	log     []string         // of pods that started
}

func startStandIn(t *testing.T, api client.WithWatch, namespace string, changed func()) *standIn {
	t.Helper()
	s := &standIn{t: t, api: api, namespace: namespace, changed: changed, started: map[types.UID]bool{}, onStart: func(string) {}}
	ctx, cancel := context.WithCancel(context.Background())
	wake := make(chan struct{}, 1)
	var running sync.WaitGroup
	for _, list := range []client.ObjectList{&appsv1.StatefulSetList{}, &corev1.PodList{}, &policyv1.PodDisruptionBudgetList{}} {
		w, err := api.Watch(ctx, list, client.InNamespace(namespace))
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for range w.ResultChan() {
				select {
				case wake <- struct{}{}:
				default:
				}
			}
		})
	}
	running.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
			}
			if err := s.step(ctx); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
				t.Errorf("stand-in: %v", err)
			}
			changed()
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

func (s *standIn) step(ctx context.Context) error {
	var sets appsv1.StatefulSetList
	var pods corev1.PodList
	var budgets policyv1.PodDisruptionBudgetList
	for _, list := range []client.ObjectList{&sets, &pods, &budgets} {
		if err := s.api.List(ctx, list, client.InNamespace(s.namespace)); err != nil {
			return err
		}
	}
	wanted := map[string]bool{}
	var errs []error
	for i := range sets.Items {
		set := &sets.Items[i]
		revision := revisionOf(set)
		for n := range int(ptr.Deref(set.Spec.Replicas, 1)) {
			name := fmt.Sprintf("%s-%d", set.Name, n)
			wanted[name] = true
			if !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Name == name }) {
				errs = append(errs, s.start(ctx, set, name, revision))
			}
		}
		if set.Status.UpdateRevision != revision || set.Status.ObservedGeneration != set.Generation {
			set.Status.UpdateRevision, set.Status.ObservedGeneration = revision, set.Generation
			errs = append(errs, s.api.Status().Update(ctx, set))
		}
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; !wanted[p.Name] {
			errs = append(errs, s.api.Delete(ctx, p))
		}
	}
	for i := range budgets.Items {
		b := &budgets.Items[i]
		if b.Status.ObservedGeneration != b.Generation || b.Status.DisruptionsAllowed != 1 || len(b.Status.DisruptedPods) > 0 {
			b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DisruptionsAllowed: 1, CurrentHealthy: 2, DesiredHealthy: 1, ExpectedPods: 2}
			errs = append(errs, s.api.Status().Update(ctx, b))
		}
	}
	s.note(pods.Items)
	return errors.Join(errs...)
}

func revisionOf(set *appsv1.StatefulSet) string {
	text, _ := json.Marshal(set.Spec.Template)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:4])
}

func (s *standIn) start(ctx context.Context, set *appsv1.StatefulSet, name, revision string) error {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: set.Namespace, Name: name, Labels: maps.Clone(set.Spec.Template.Labels)}, Spec: set.Spec.Template.Spec}
	p.Labels[appsv1.ControllerRevisionHashLabelKey] = revision
	for _, claim := range set.Spec.VolumeClaimTemplates {
		p.Spec.Volumes = append(slices.Clone(p.Spec.Volumes), corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + name},
		}})
	}
	if err := s.api.Create(ctx, p); err != nil {
		return err
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	return s.api.Status().Update(ctx, p)
}

// note tells of pods that have started or ended.
func (s *standIn) note(pods []corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pods {
		if !s.started[p.UID] {
			s.started[p.UID] = true
			s.log = append(s.log, p.Name)
			go s.onStart(p.Name)
		}
	}
}

// starts are the pods that were started, of those given, in order.
func (s *standIn) starts(of ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.log), func(pod string) bool { return !slices.Contains(of, pod) })
}

// datacenter reads a Datacenter.
func (e *estate) datacenter(name string) *v1alpha1.Datacenter {
	e.t.Helper()
	var dc v1alpha1.Datacenter
	if err := e.api.Get(e.t.Context(), types.NamespacedName{Name: name}, &dc); err != nil {
		e.t.Fatal(err)
	}
	return &dc
}

// clearWorkloads deletes what runs servers in a namespace.
func clearWorkloads(t *testing.T, api client.Client, namespace string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, o := range []client.Object{
		&appsv1.StatefulSet{}, &corev1.Service{}, &corev1.Pod{}, &policyv1.PodDisruptionBudget{}, &networkingv1.NetworkPolicy{}, &corev1.ServiceAccount{},
	} {
		if err := api.DeleteAllOf(ctx, o, client.InNamespace(namespace), client.MatchingLabels{render.LabelManagedBy: render.ManagedBy}); err != nil {
			t.Error(err)
		}
	}
}

const managedDatacenter = `
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-m}
spec:
  serverGroups:
  - {name: root, management: Managed, exposure: {type: ExternalIPs, addresses: [192.0.2.53]}}
  - {name: extra, management: Managed, replicas: 3, exposure: {type: NodePort, addresses: [192.0.2.54], nodePort: 31053}}
`

// TestTheOperatorRunsServers is the life of a Datacenter with Managed groups, under a manager with the rights of
// config/rbac. What pods do is the stand-in's doing; the servers are real ones, named as the pods.
func TestTheOperatorRunsServers(t *testing.T) {
	e := newEstate(t)
	t.Cleanup(func() { clearWorkloads(t, e.api, operatorNamespace) })
	nodes := startStandIn(t, e.api, operatorNamespace, e.signal)
	held := make(chan struct{}) // closed when new servers may join
	close(held)
	var mu sync.Mutex
	servers := map[string]*server{}
	nodes.onStart = func(pod string) {
		mu.Lock()
		before, gate := servers[pod], held
		mu.Unlock()
		if before != nil {
			before.stop()
		}
		<-gate
		group, _, _ := strings.Cut(strings.TrimPrefix(pod, "fingerpost-dc-m-"), "-")
		s := e.startServer(control.ServerID{Datacenter: "dc-m", Group: group, Name: pod}, t.TempDir())
		mu.Lock()
		defer mu.Unlock()
		servers[pod] = s
	}
	for _, list := range []client.ObjectList{&appsv1.StatefulSetList{}, &corev1.ServiceList{}, &corev1.PodList{}, &networkingv1.NetworkPolicyList{}} {
		e.watch(list)
	}
	e.startManager(0)
	e.apply(managedDatacenter)
	e.awaitDatacenterCondition("dc-m", v1alpha1.ConditionWorkloadsReady, metav1.ConditionTrue, v1alpha1.ReasonWorkloadsReady, "")
	var dc *v1alpha1.Datacenter
	e.await(func() error {
		dc = e.datacenter("dc-m")
		for _, g := range dc.Status.ServerGroups {
			if want := map[string]int32{"root": 2, "extra": 3}[g.Name]; ptr.Deref(g.Replicas, 0) != want || ptr.Deref(g.ReadyReplicas, 0) != want || ptr.Deref(g.UpdatedReplicas, 0) != want {
				return fmt.Errorf("group %s: %+v", g.Name, g)
			}
		}
		if dc.Status.ServersReady != "5/5" {
			return fmt.Errorf("servers %s", dc.Status.ServersReady)
		}
		return nil
	})

	t.Log("drift in fields that the operator owns is repaired, others' fields stay")
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "fingerpost-dc-m-root"}}
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "fingerpost-dc-m-root"}}
	e.patch(service, `{"metadata": {"annotations": {"example.com/theirs": "stays"}}, "spec": {"externalTrafficPolicy": "Cluster"}}`)
	e.patch(set, `{"spec": {"replicas": 5, "minReadySeconds": 7}}`)
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "fingerpost-dc-m-root"}}
	if err := e.api.Delete(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	e.await(func() error {
		for _, o := range []client.Object{service, set, policy} {
			if err := e.api.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				return err
			}
		}
		if service.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal || *set.Spec.Replicas != 2 {
			return fmt.Errorf("policy %s, %d replicas", service.Spec.ExternalTrafficPolicy, *set.Spec.Replicas)
		}
		return nil
	})
	if service.Annotations["example.com/theirs"] != "stays" || set.Spec.MinReadySeconds != 7 {
		t.Errorf("what others have set is gone: %v, %d", service.Annotations, set.Spec.MinReadySeconds)
	}
	e.awaitDatacenterCondition("dc-m", v1alpha1.ConditionWorkloadsReady, metav1.ConditionTrue, v1alpha1.ReasonWorkloadsReady, "")

	t.Log("another image: the last server restarts, and the next not before it is connected")
	first, second := "fingerpost-dc-m-root-1", "fingerpost-dc-m-root-0"
	began := len(nodes.starts(first, second))
	gate := make(chan struct{})
	mu.Lock()
	held = gate
	mu.Unlock()
	e.apply(strings.Replace(managedDatacenter, "{name: root, ", "{name: root, image: example.com/dnsserver:next, ", 1))
	e.awaitDatacenterCondition("dc-m", v1alpha1.ConditionWorkloadsReady, metav1.ConditionFalse, v1alpha1.ReasonRolling, "root-1 is not connected with every zone current")
	if got := nodes.starts(first, second)[began:]; !slices.Equal(got, []string{first}) {
		t.Errorf("restarted before the first is current: %v", got)
	}
	close(gate)
	e.awaitDatacenterCondition("dc-m", v1alpha1.ConditionWorkloadsReady, metav1.ConditionTrue, v1alpha1.ReasonWorkloadsReady, "")
	if got := nodes.starts(first, second)[began:]; !slices.Equal(got, []string{first, second}) {
		t.Errorf("restarted: %v", got)
	}

	t.Log("one server less: it is out of the Service before it ends")
	e.apply(strings.Replace(managedDatacenter, "replicas: 3", "replicas: 2", 1))
	last := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "fingerpost-dc-m-extra-2"}}
	e.await(func() error {
		if err := e.api.Get(t.Context(), client.ObjectKeyFromObject(last), last); err != nil {
			t.Fatalf("it has ended at once: %v", err)
		}
		if last.Labels[render.LabelServing] != "false" {
			return errors.New("it still serves")
		}
		return nil
	})
	e.await(func() error {
		if err := e.api.Get(t.Context(), client.ObjectKeyFromObject(last), last); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is still there: %w", err)
		}
		return nil
	})

	t.Log("a group that is not declared any more goes, with all that it had")
	e.apply(strings.Join(strings.Split(managedDatacenter, "\n")[:7], "\n"))
	e.await(func() error {
		for _, list := range []client.ObjectList{&appsv1.StatefulSetList{}, &corev1.ServiceList{}, &policyv1.PodDisruptionBudgetList{}, &networkingv1.NetworkPolicyList{}, &corev1.ServiceAccountList{}} {
			if err := e.api.List(t.Context(), list, client.InNamespace(operatorNamespace), client.MatchingLabels{render.LabelGroup: "extra", render.LabelManagedBy: render.ManagedBy}); err != nil {
				return err
			}
			if n := meta.LenList(list); n > 0 {
				return fmt.Errorf("%d %T", n, list)
			}
		}
		return nil
	})
	if err := e.api.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil {
		t.Error(err)
	}
	if len(set.OwnerReferences) != 1 || set.OwnerReferences[0].UID != dc.UID {
		t.Errorf("the StatefulSet's owners are %+v: the Datacenter's end would leave it", set.OwnerReferences)
	}
}

func (e *estate) patch(o client.Object, merge string) {
	e.t.Helper()
	if err := e.api.Patch(e.t.Context(), o, client.RawPatch(types.MergePatchType, []byte(merge)), client.FieldOwner("somebody")); err != nil {
		e.t.Fatal(err)
	}
}

// workloads is a WorkloadReconciler without a manager: it does one step when it is told to.
type workloads struct {
	*controllers.WorkloadReconciler
	e      *estate
	clock  *clocktesting.FakePassiveClock
	events *events.FakeRecorder
}

func newWorkloads(t *testing.T, e *estate) *workloads {
	t.Helper()
	w := &workloads{e: e, clock: clocktesting.NewFakePassiveClock(time.Now()), events: events.NewFakeRecorder(100)}
	places := &controllers.Places{Config: e.cp.Config(), Secrets: e.api, Namespace: operatorNamespace, Changed: func(string) {}, PoolsChanged: func(string) {}, Log: testr.New(t)}
	t.Cleanup(places.Close)
	w.WorkloadReconciler = &controllers.WorkloadReconciler{
		Client: e.api, Secrets: e.api, Places: places, Hub: control.NewHub(control.HubOptions{Log: testr.New(t)}), Events: w.events, Clock: w.clock,
		Reports: &controllers.WorkloadReports{OnReport: func(string) {}}, Namespace: operatorNamespace, Image: "fingerpost/dnsserver:test",
		Hubs: []string{"fingerpost-hub.fingerpost-system.svc:8443", "hub.example.net:8443"},
	}
	return w
}

// step reconciles a Datacenter, and returns its conditions as they would be.
func (w *workloads) step(name string) (map[string]metav1.Condition, error) {
	w.e.t.Helper()
	_, err := w.Reconcile(w.e.t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	conditions := map[string]metav1.Condition{}
	dc := &v1alpha1.Datacenter{}
	if e := w.e.api.Get(w.e.t.Context(), types.NamespacedName{Name: name}, dc); e == nil {
		for _, c := range render.DatacenterStatus(render.DatacenterInputs{Datacenter: dc, Workloads: w.Reports.Of(name)}).Conditions {
			conditions[c.Type] = c
		}
	}
	return conditions, err
}

// expect steps and compares a condition: its status, reason, and words of its message.
func (w *workloads) expect(name, typ, status, reason, words string) {
	w.e.t.Helper()
	got, err := w.step(name)
	if c := got[typ]; string(c.Status) != status || c.Reason != reason || !strings.Contains(c.Message, words) {
		w.e.t.Errorf("%s: %s is %s %s %q, want %s %s with %q (error %v)", name, typ, c.Status, c.Reason, c.Message, status, reason, words, err)
	}
}

// another is a second cluster, where users have the rights of config/rbac/remote.
func another(t *testing.T) (*controlplane.ControlPlane, client.WithWatch) {
	t.Helper()
	plane, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	api, err := client.NewWithWatch(plane.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return plane, api
}

// kubeconfig is one for a user of a cluster.
func kubeconfig(t *testing.T, plane *controlplane.ControlPlane, user string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := plane.WriteKubeconfig(file, user); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (e *estate) secret(name string, data map[string][]byte) {
	e.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: name}, Data: data}
	err := e.api.Create(e.t.Context(), s)
	if apierrors.IsAlreadyExists(err) {
		err = e.api.Update(e.t.Context(), s)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := e.api.Delete(context.WithoutCancel(e.t.Context()), s); client.IgnoreNotFound(err) != nil {
			e.t.Error(err)
		}
	})
}

const remoteOperator = "system:serviceaccount:fingerpost:fingerpost-operator"

const remoteDatacenter = `
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-r}
spec:
  cluster: {kubeconfigSecretRef: {name: dc-r}, namespace: fingerpost}
  serverGroups: [{name: root, management: Managed, exposure: {type: HostNetwork}}]
`

// TestServersInAnotherCluster is the life of a Datacenter in a cluster of its own, with the rights of config/rbac/remote.
func TestServersInAnotherCluster(t *testing.T) {
	e := newEstate(t)
	t.Cleanup(func() { clearWorkloads(t, e.api, operatorNamespace) })
	plane, remote := another(t)
	w := newWorkloads(t, e)
	t.Cleanup(func() { e.letGo("dc-r") })
	e.apply(remoteDatacenter)
	e.apply(managedDatacenter)
	certificate := map[string][]byte{"tls.crt": []byte("certificate 1"), "tls.key": []byte("key"), "ca.crt": []byte("ca"), "theirs": []byte("not for others")}
	e.secret("fingerpost-server.dc-r.root", certificate)

	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "False", v1alpha1.ReasonKubeconfigNotFound, "there is no Secret fingerpost-system/dc-r")
	e.secret("dc-r", map[string][]byte{"other": nil})
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "False", v1alpha1.ReasonKubeconfigNotFound, `key "kubeconfig"`)
	e.secret("dc-r", map[string][]byte{"kubeconfig": []byte("no: {")})
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "False", v1alpha1.ReasonKubeconfigInvalid, "it does not parse")
	e.secret("dc-r", map[string][]byte{"kubeconfig": kubeconfig(t, plane, remoteOperator)})
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "False", v1alpha1.ReasonForbidden, "config/rbac/remote")
	w.expect("dc-m", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonPodsNotReady, "0 of 2 pods are ready")

	t.Log("with the rights of config/rbac/remote")
	there := &estate{t: t, api: remote, cp: plane}
	for _, file := range []string{"10-rights.yaml", "20-operator.yaml"} {
		text, err := os.ReadFile("../config/rbac/remote/" + file)
		if err != nil {
			t.Fatal(err)
		}
		there.apply(string(text))
	}
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "True", v1alpha1.ReasonReachable, "")
	w.expect("dc-r", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonPodsNotReady, "0 of 2 pods are ready")
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "fingerpost", Name: "fingerpost-dc-r-root"}}
	if err := remote.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil {
		t.Fatal(err)
	}
	if args := set.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--hub=hub.example.net:8443") || slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "--hub=fingerpost-hub") }) {
		t.Errorf("servers of another cluster are told %v", args)
	}
	if len(set.OwnerReferences) > 0 {
		t.Errorf("somebody who is in another cluster owns the StatefulSet: %v", set.OwnerReferences)
	}
	copied := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "fingerpost", Name: "fingerpost-server.dc-r.root"}}
	awaitCopy := func(want string) {
		t.Helper()
		if err := remote.Get(t.Context(), client.ObjectKeyFromObject(copied), copied); err != nil {
			t.Fatal(err)
		}
		if len(copied.Data) != 3 || string(copied.Data["tls.crt"]) != want {
			t.Errorf("copied is %q of %d keys", copied.Data["tls.crt"], len(copied.Data))
		}
	}
	awaitCopy("certificate 1")
	certificate["tls.crt"] = []byte("certificate 2")
	e.secret("fingerpost-server.dc-r.root", certificate)
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "True", v1alpha1.ReasonReachable, "")
	awaitCopy("certificate 2")

	t.Log("other credentials in the Secret are in use, the old ones are not needed any more")
	if err := remote.Delete(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	there.apply(strings.ReplaceAll(bindRemote, "USER", "next"))
	e.secret("dc-r", map[string][]byte{"kubeconfig": kubeconfig(t, plane, "next")})
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "True", v1alpha1.ReasonReachable, "")
	if err := remote.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil {
		t.Fatal(err)
	}
	if creator := set.ManagedFields[0].Manager; creator != "fingerpost" {
		t.Errorf("made by %s", creator)
	}

	t.Log("the cluster goes away: a condition, and nobody else minds")
	if err := plane.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "False", v1alpha1.ReasonUnreachable, "the cluster does not answer")
	w.expect("dc-r", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonClusterAway, "go on as they are")
	w.expect("dc-m", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonPodsNotReady, "0 of 2 pods are ready")

	t.Log("deleted while the cluster is away: it is tried for a while, then told, and it goes")
	if err := e.api.Delete(t.Context(), e.datacenter("dc-r")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.step("dc-r"); err != nil {
		t.Fatal(err)
	}
	if dc := e.datacenter("dc-r"); len(dc.Finalizers) != 1 {
		t.Errorf("given up at once: %v", dc.Finalizers)
	}
	w.clock.SetTime(time.Now().Add(2 * time.Minute))
	if _, err := w.step("dc-r"); err != nil {
		t.Fatal(err)
	}
	if err := e.api.Get(t.Context(), types.NamespacedName{Name: "dc-r"}, &v1alpha1.Datacenter{}); !apierrors.IsNotFound(err) {
		t.Errorf("it hangs: %v", err)
	}
	if told := w.told(); !strings.Contains(told, "Warning ServersLeftBehind") || !strings.Contains(told, "kubectl delete -n fingerpost statefulsets") {
		t.Errorf("told is %q", told)
	}

	t.Log("deleted while it is there: nothing is left")
	if err := plane.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.apply(remoteDatacenter)
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "True", v1alpha1.ReasonReachable, "")
	if err := e.api.Delete(t.Context(), e.datacenter("dc-r")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.step("dc-r"); err != nil {
		t.Fatal(err)
	}
	for _, list := range []client.ObjectList{&appsv1.StatefulSetList{}, &corev1.ServiceList{}, &policyv1.PodDisruptionBudgetList{}, &networkingv1.NetworkPolicyList{}, &corev1.ServiceAccountList{}, &corev1.SecretList{}} {
		if err := remote.List(t.Context(), list, client.InNamespace("fingerpost"), client.MatchingLabels{render.LabelManagedBy: render.ManagedBy}); err != nil {
			t.Fatal(err)
		}
		if n := meta.LenList(list); n > 0 {
			t.Errorf("%d %T are left", n, list)
		}
	}
}

const bindRemote = `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: fingerpost-servers, namespace: fingerpost}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: fingerpost-servers}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: USER}]
`

// told is what the Events since the last call say.
func (w *workloads) told() string {
	var all []string
	for {
		select {
		case text := <-w.events.Events:
			all = append(all, text)
		default:
			return strings.Join(all, "\n")
		}
	}
}

// letGo takes finalizers from a Datacenter that a test leaves.
func (e *estate) letGo(name string) {
	dc := &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name}}
	err := e.api.Patch(context.WithoutCancel(e.t.Context()), dc, client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`)))
	if client.IgnoreNotFound(err) != nil {
		e.t.Error(err)
	}
}

func TestKubeconfigsThatCannotBeUsed(t *testing.T) {
	const good = `
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1", certificate-authority-data: ""}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: secret}}]
current-context: x
`
	e := newEstate(t)
	t.Cleanup(func() { e.letGo("dc-r") })
	w := newWorkloads(t, e)
	e.apply(remoteDatacenter)
	for name, c := range map[string]struct{ old, new, want string }{
		"a program for credentials": {"token: secret", `exec: {command: sh, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}`, "from a program"},
		"a file with the token":     {"token: secret", "tokenFile: /var/run/secrets/token", "names files"},
		"a file with the key":       {"token: secret", "client-key: /etc/key", "names files"},
		"a file with the CA":        {`certificate-authority-data: ""`, "certificate-authority: /etc/ca", "names files"},
		"a context that is missing": {"current-context: x", "current-context: other", `no context "other"`},
		"no server":                 {`server: "https://127.0.0.1:1", `, "", "no cluster with a server"},
		"no user":                   {"user: u}", "user: v}", "has no user"},
		"no verification":           {`certificate-authority-data: ""`, "insecure-skip-tls-verify: true", "pose as the cluster"},
	} {
		t.Run(name, func(*testing.T) {
			e.secret("dc-r", map[string][]byte{"kubeconfig": []byte(strings.Replace(good, c.old, c.new, 1))})
			w.expect("dc-r", v1alpha1.ConditionClusterReachable, "False", v1alpha1.ReasonKubeconfigInvalid, c.want)
		})
	}
	e.secret("dc-r", map[string][]byte{"kubeconfig": []byte(good)})
	w.expect("dc-r", v1alpha1.ConditionClusterReachable, "False", v1alpha1.ReasonUnreachable, "connection refused")
}

const nearbyDatacenter = `
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-n}
spec:
  cluster: {namespace: NAMESPACE}
  serverGroups: [{name: root, management: Managed, exposure: {type: NodePort, addresses: [192.0.2.53]}}]
`

// TestServersInAnotherNamespace is a namespace of the operator's own cluster. The manager has the rights of
// config/rbac alone at first, then those of config/rbac/remote in the namespace.
func TestServersInAnotherNamespace(t *testing.T) {
	e := newEstate(t)
	w := newWorkloads(t, e)
	namespace := newNamespace(t)
	nearby := strings.ReplaceAll(nearbyDatacenter, "NAMESPACE", namespace)
	inNamespace := strings.NewReplacer("name: fingerpost\n", "name: "+namespace+"\n", "namespace: fingerpost\n", "namespace: "+namespace+"\n", "namespace: fingerpost}", "namespace: "+namespace+"}", "USER", "manager")
	t.Cleanup(func() { clearWorkloads(t, e.api, namespace) })
	manager, err := clientcmd.BuildConfigFromFlags("", e.managerKubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	w.Places.Config = manager
	e.secret("fingerpost-server.dc-n.root", map[string][]byte{"tls.crt": []byte("certificate"), "tls.key": []byte("key"), "ca.crt": []byte("ca")})
	e.apply(nearby)
	w.expect("dc-n", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonForbidden, "config/rbac/remote")

	rights, err := os.ReadFile("../config/rbac/remote/10-rights.yaml")
	if err != nil {
		t.Fatal(err)
	}
	e.apply(inNamespace.Replace(string(rights)))
	e.apply(inNamespace.Replace(bindRemote))
	w.expect("dc-n", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonPodsNotReady, "0 of 2 pods are ready")
	service := &corev1.Service{}
	if err := e.api.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: "fingerpost-dc-n-root"}, service); err != nil {
		t.Fatal(err)
	}
	if len(service.OwnerReferences) != 1 {
		t.Errorf("nothing deletes the Service with its Datacenter: %v", service.OwnerReferences)
	}
	if dc := e.datacenter("dc-n"); len(dc.Finalizers) > 0 {
		t.Errorf("the own cluster deletes what a Datacenter had by itself, and yet it has %v", dc.Finalizers)
	}

	t.Log("a Service that Kubernetes refuses")
	e.apply(strings.Replace(nearby, "type: NodePort,", "type: NodePort, nodePort: 53,", 1))
	w.expect("dc-n", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonRefused, "The range of valid ports is 30000-32767")

	t.Log("the namespace is being deleted; who would finish that is not here")
	if err := e.api.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	w.expect("dc-n", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonNamespaceTerminating, "namespace "+namespace+" is being deleted")
}

func TestAMissingNamespaceIsMadeByThoseWhoMay(t *testing.T) {
	e := newEstate(t)
	w := newWorkloads(t, e)
	t.Cleanup(func() { clearWorkloads(t, e.api, "made") })
	e.secret("fingerpost-server.dc-n.root", map[string][]byte{"tls.crt": []byte("certificate"), "tls.key": []byte("key"), "ca.crt": []byte("ca")})
	e.apply(strings.ReplaceAll(nearbyDatacenter, "NAMESPACE", "made"))
	w.expect("dc-n", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonPodsNotReady, "0 of 2 pods are ready")
	if err := e.api.Get(t.Context(), types.NamespacedName{Name: "made"}, &corev1.Namespace{}); err != nil {
		t.Error(err)
	}
}

// TestAClusterThatIsSilentDelaysNobody has clusters that take connections and say nothing, which is slower than any that
// refuses them; one more than Datacenters were looked at at once, if it were few.
func TestAClusterThatIsSilentDelaysNobody(t *testing.T) {
	e := newEstate(t)
	t.Cleanup(func() { clearWorkloads(t, e.api, operatorNamespace) })
	silent, err := net.Listen("tcp", freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	e.secret("dc-r", map[string][]byte{"kubeconfig": []byte(`
clusters: [{name: c, cluster: {server: "https://` + silent.Addr().String() + `"}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: secret}}]
current-context: x
`)})
	for i := range 20 {
		name := fmt.Sprintf("dc-r%d", i)
		e.apply(strings.Replace(remoteDatacenter, "{name: dc-r}", "{name: "+name+"}", 1))
		t.Cleanup(func() { e.letGo(name) })
	}
	e.watch(&appsv1.StatefulSetList{})
	e.startManager(0)
	e.await(func() error {
		var all v1alpha1.DatacenterList
		if err := e.api.List(t.Context(), &all); err != nil {
			return err
		}
		for _, dc := range all.Items { // who has the finalizer is waited for
			if len(dc.Finalizers) == 0 {
				return fmt.Errorf("nobody has begun with %s", dc.Name)
			}
		}
		return nil
	})
	began := time.Now()
	e.apply(managedDatacenter)
	e.await(func() error {
		return e.api.Get(t.Context(), types.NamespacedName{Namespace: operatorNamespace, Name: "fingerpost-dc-m-root"}, &appsv1.StatefulSet{})
	})
	if took := time.Since(began); took > 10*time.Second { // less than one of the silent takes
		t.Errorf("it took %s until somebody cared", took)
	}
	for i := range 20 {
		e.awaitDatacenterCondition(fmt.Sprintf("dc-r%d", i), v1alpha1.ConditionClusterReachable, metav1.ConditionFalse, v1alpha1.ReasonUnreachable, "does not answer")
	}
}
