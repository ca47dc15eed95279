package controllers_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/testr"
	"golang.org/x/tools/txtar"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// poolWorkloads is a PoolWorkloadReconciler without a manager: it does one step when it is told to.
type poolWorkloads struct {
	*controllers.PoolWorkloadReconciler
	e      *estate
	place  client.Client // where members run
	within string        // the namespace there

	mu      sync.Mutex
	changed map[types.NamespacedName]int // how often it was said that there is something new about a pool
}

func newPoolWorkloads(t *testing.T, e *estate, place client.Client, within string) *poolWorkloads {
	t.Helper()
	e.apply("{apiVersion: v1, kind: Namespace, metadata: {name: payments}}")
	w := &poolWorkloads{e: e, place: place, within: within, changed: map[types.NamespacedName]int{}}
	nobody := func(string) {}
	places := &controllers.Places{Config: e.cp.Config(), Secrets: e.api, Namespace: operatorNamespace, Changed: nobody, PoolsChanged: nobody, Log: testr.New(t)}
	t.Cleanup(places.Close)
	w.PoolWorkloadReconciler = &controllers.PoolWorkloadReconciler{
		Client: e.api, Secrets: e.api, Places: places, Told: &controllers.ToldPools{Changed: nobody}, Namespace: operatorNamespace,
		Reports: &controllers.PoolWorkloadReports{OnReport: func(p types.NamespacedName) { w.mu.Lock(); w.changed[p]++; w.mu.Unlock() }},
		Images:  resolverImages("test"),
		Hubs:    []string{"fingerpost-hub.fingerpost-system.svc:8443", "hub.example.net:8443"},
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := e.api.DeleteAllOf(ctx, &v1alpha1.ResolverPool{}, client.InNamespace("payments")); err != nil {
			t.Error(err)
		}
		for _, o := range []client.Object{
			&appsv1.Deployment{}, &autoscalingv2.HorizontalPodAutoscaler{}, &corev1.Pod{}, &corev1.Service{}, &corev1.ConfigMap{}, &policyv1.PodDisruptionBudget{},
			&networkingv1.NetworkPolicy{}, &corev1.ServiceAccount{}, &corev1.Secret{},
		} {
			if err := place.DeleteAllOf(ctx, o, client.InNamespace(within), client.MatchingLabels{render.LabelManagedBy: render.ManagedBy}); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// resolverImages are those of two engines.
func resolverImages(version string) map[v1alpha1.ResolverEngine]string {
	return map[v1alpha1.ResolverEngine]string{
		v1alpha1.EngineUnbound: "fingerpost/resolver-unbound:" + version, v1alpha1.EngineKnotResolver: "fingerpost/resolver-knotresolver:" + version,
	}
}

// tell says what the members of the pool are told in the given Datacenters.
func (w *poolWorkloads) tell(text string, datacenters ...string) {
	w.e.t.Helper()
	p, err := pool.Decode([]byte(text))
	if err != nil {
		w.e.t.Fatal(err)
	}
	var configs []controllers.PoolConfig
	for _, dc := range datacenters {
		configs = append(configs, controllers.PoolConfig{Datacenter: w.e.datacenter(dc), PoolRendered: render.PoolRendered{Pool: p, Text: []byte(text)}})
	}
	w.Told.Put(types.NamespacedName{Namespace: "payments", Name: "office"}, configs)
}

// step reconciles a Datacenter.
func (w *poolWorkloads) step(name string) error {
	w.e.t.Helper()
	_, err := w.Reconcile(w.e.t.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Name: name}})
	return err
}

// report is what was found of the pool in a Datacenter last; nil: nothing.
func (w *poolWorkloads) report(datacenter string) *render.PoolWorkloadReport {
	all := w.Reports.Of(types.NamespacedName{Namespace: "payments", Name: "office"})
	if at := slices.IndexFunc(all, func(r *render.PoolWorkloadReport) bool { return r.Datacenter == datacenter }); at >= 0 {
		return all[at]
	}
	return nil
}

// expect steps and compares what is to be mended first: its reason, and words of its message; "" for nothing.
func (w *poolWorkloads) expect(datacenter, reason, words string) {
	w.e.t.Helper()
	err := w.step(datacenter)
	if err != nil && reason != v1alpha1.ReasonClusterAway {
		w.e.t.Error(err)
	}
	if w.report(datacenter) == nil {
		w.e.t.Fatalf("no report (error %v)", err)
	}
	troubles := render.PodsOf([]*render.PoolWorkloadReport{w.report(datacenter)}).Troubles
	var texts []string
	for _, trouble := range troubles {
		texts = append(texts, trouble.Error())
	}
	told := strings.Join(texts, "; ")
	switch {
	case reason == "" && len(troubles) > 0:
		w.e.t.Errorf("%s: %q", troubles[0].Reason(), told)
	case reason == "":
	case len(troubles) == 0:
		w.e.t.Errorf("nothing is wrong, want %s", reason)
	case troubles[0].Reason() != reason || !strings.Contains(told, words):
		w.e.t.Errorf("%s: %q, want %s with %q", troubles[0].Reason(), told, reason, words)
	}
}

// made are the objects of pools, as KIND NAME, sorted.
func (w *poolWorkloads) made() []string {
	w.e.t.Helper()
	var all []string
	for kind, list := range map[string]client.ObjectList{
		"Deployment": &appsv1.DeploymentList{}, "HorizontalPodAutoscaler": &autoscalingv2.HorizontalPodAutoscalerList{}, "Service": &corev1.ServiceList{}, "ConfigMap": &corev1.ConfigMapList{},
		"PodDisruptionBudget": &policyv1.PodDisruptionBudgetList{}, "NetworkPolicy": &networkingv1.NetworkPolicyList{}, "ServiceAccount": &corev1.ServiceAccountList{}, "Secret": &corev1.SecretList{},
	} {
		if err := w.place.List(w.e.t.Context(), list, client.InNamespace(w.within), client.HasLabels{render.LabelPool}); err != nil {
			w.e.t.Fatal(err)
		}
		if err := meta.EachListItem(list, func(o runtime.Object) error { all = append(all, kind+" "+o.(client.Object).GetName()); return nil }); err != nil {
			w.e.t.Fatal(err)
		}
	}
	slices.Sort(all)
	return all
}

// name is that of the objects of an engine of the pool in a datacenter.
func memberName(datacenter string, engine v1alpha1.ResolverEngine) string {
	return render.PoolWorkloadName(render.PoolPlace{Pool: types.NamespacedName{Namespace: "payments", Name: "office"}, Datacenter: datacenter}, engine)
}

func (w *poolWorkloads) deployment(datacenter string, engine v1alpha1.ResolverEngine) *appsv1.Deployment {
	w.e.t.Helper()
	var d appsv1.Deployment
	if err := w.place.Get(w.e.t.Context(), types.NamespacedName{Namespace: w.within, Name: memberName(datacenter, engine)}, &d); err != nil {
		w.e.t.Fatal(err)
	}
	return &d
}

// available does what Kubernetes does of Deployments: so many members of each are available, as they are to be now.
func (w *poolWorkloads) available(datacenter string, engines ...v1alpha1.ResolverEngine) {
	w.e.t.Helper()
	for _, engine := range engines {
		d := w.deployment(datacenter, engine)
		n := ptr.Deref(d.Spec.Replicas, 1)
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
		if err := w.place.Status().Update(w.e.t.Context(), d); err != nil {
			w.e.t.Fatal(err)
		}
	}
}

// start makes a pod of a Deployment, which the API server admits or not.
func (w *poolWorkloads) start(d *appsv1.Deployment, name string) error {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: name, Labels: d.Spec.Template.Labels}, Spec: d.Spec.Template.Spec}
	if err := w.place.Create(w.e.t.Context(), p); err != nil {
		return err
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	return w.place.Status().Update(w.e.t.Context(), p)
}

const managedPool = `
apiVersion: fingerpost.dev/v1alpha1
kind: ResolverPool
metadata: {name: office, namespace: payments}
spec:
  class: office
  datacenters: {names: [DATACENTERS]}
  members:
  - {engine: Unbound, replicas: 2}
  - {engine: KnotResolver, replicas: 2}
  clientNetworks: [10.0.0.0/8]
  exposure: {type: ClusterIP}
`

const managedPoolTold = `
clients: [10.0.0.0/8]
rootHints: [{name: ns-a, addresses: [10.1.0.1]}]
authorityNetworks: [10.1.0.1/32]
`

const poolDatacenter = `
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-p}
spec:
  cluster: {namespace: NAMESPACE}
  serverGroups: [{name: root, management: Managed, exposure: {type: NodePort, addresses: [192.0.2.53]}}]
`

var certificateOfAgents = map[string][]byte{"tls.crt": []byte("certificate"), "tls.key": []byte("key"), "ca.crt": []byte("ca")}

// restricted makes a namespace where pods are admitted by the strictest standard of Kubernetes.
func restricted(t *testing.T) string {
	t.Helper()
	name := newNamespace(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := apiServer(t).Patch(t.Context(), ns, client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}`))); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestTheOperatorRunsResolvers is the life of a Managed pool in one datacenter, in a namespace beside servers.
func TestTheOperatorRunsResolvers(t *testing.T) {
	e := newEstate(t)
	namespace := restricted(t)
	w, servers := newPoolWorkloads(t, e, e.api, namespace), newWorkloads(t, e)
	t.Cleanup(func() { clearWorkloads(t, e.api, namespace) })
	pools := func(change ...string) string {
		return strings.NewReplacer(append(change, "DATACENTERS", "dc-p")...).Replace(managedPool)
	}
	e.secret("fingerpost-server.dc-p.root", certificateOfAgents)
	e.apply(strings.ReplaceAll(poolDatacenter, "NAMESPACE", namespace))
	e.apply(pools())

	t.Log("nothing is made before it is known what members are told, and before they have a certificate")
	w.expect("dc-p", v1alpha1.ReasonPodsNotReady, "dc-p: KnotResolver: 0 of 2 pods are ready")
	w.tell(managedPoolTold, "dc-p")
	w.expect("dc-p", v1alpha1.ReasonPodsNotReady, "")
	if made := w.made(); len(made) > 0 {
		t.Errorf("made: %v", made)
	}

	t.Log("what is made, and that servers and members leave each other alone")
	e.secret("fingerpost-server.dc-p.pool.payments.office", certificateOfAgents)
	w.expect("dc-p", v1alpha1.ReasonPodsNotReady, "")
	all, unbound, knot := memberName("dc-p", ""), memberName("dc-p", v1alpha1.EngineUnbound), memberName("dc-p", v1alpha1.EngineKnotResolver)
	want := []string{
		"ConfigMap " + all, "Deployment " + knot, "Deployment " + unbound, "NetworkPolicy " + all, "PodDisruptionBudget " + all, "Secret fingerpost-server.dc-p.pool.payments.office",
		"Service " + all, "ServiceAccount " + all,
	}
	expectMade := func() {
		t.Helper()
		if made := w.made(); !slices.Equal(made, want) {
			t.Errorf("made:\n%s\nwant:\n%s", strings.Join(made, "\n"), strings.Join(want, "\n"))
		}
	}
	expectMade()
	for range 2 {
		servers.expect("dc-p", v1alpha1.ConditionWorkloadsReady, "False", v1alpha1.ReasonPodsNotReady, "0 of 2 pods are ready")
		w.expect("dc-p", v1alpha1.ReasonPodsNotReady, "")
	}
	expectMade()
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "fingerpost-dc-p-root"}}
	if err := e.api.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil {
		t.Error(err)
	}

	t.Log("pods are admitted by the restricted standard; all members are ready")
	w.available("dc-p", v1alpha1.EngineUnbound, v1alpha1.EngineKnotResolver)
	for _, engine := range []v1alpha1.ResolverEngine{v1alpha1.EngineUnbound, v1alpha1.EngineKnotResolver} {
		for i := range 2 {
			if err := w.start(w.deployment("dc-p", engine), fmt.Sprintf("%s-%d", memberName("dc-p", engine), i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.expect("dc-p", "", "")
	if r := w.report("dc-p"); len(r.Addresses()) == 0 || r.Members[0].Ready() != 2 || r.Members[1].Desired() != 2 {
		t.Errorf("addresses %v, members %+v", r.Addresses(), r.Members)
	}
	w.expect("dc-p", "", "") // pods were told what to read
	w.mu.Lock()
	before := maps.Clone(w.changed)
	w.mu.Unlock()
	w.expect("dc-p", "", "")
	w.mu.Lock()
	if !maps.Equal(before, w.changed) {
		t.Errorf("nothing has changed, and it was told: %v, then %v", before, w.changed)
	}
	w.mu.Unlock()

	t.Log("what members are told is another thing: no pod is made anew, and kubelets bring it at once")
	generation := w.deployment("dc-p", v1alpha1.EngineUnbound).Generation
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: unbound + "-0"}}
	if err := e.api.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
		t.Fatal(err)
	}
	digest := pod.Annotations[render.ConfigurationAnnotation]
	w.tell(managedPoolTold+"prefetch: true\n", "dc-p")
	w.expect("dc-p", "", "")
	var configuration corev1.ConfigMap
	if err := e.api.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: all}, &configuration); err != nil || !strings.Contains(configuration.Data["pool.yaml"], "prefetch: true") {
		t.Errorf("%v, %v", configuration.Data, err)
	}
	if err := e.api.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
		t.Fatal(err)
	}
	if digest == "" || pod.Annotations[render.ConfigurationAnnotation] == digest || w.deployment("dc-p", v1alpha1.EngineUnbound).Generation != generation {
		t.Errorf("annotation %q, before %q; the Deployment's generation is %d, before %d", pod.Annotations[render.ConfigurationAnnotation], digest,
			w.deployment("dc-p", v1alpha1.EngineUnbound).Generation, generation)
	}

	t.Log("other images: one engine at a time")
	image := func(engine v1alpha1.ResolverEngine) string {
		return w.deployment("dc-p", engine).Spec.Template.Spec.Containers[0].Image
	}
	w.Images = resolverImages("next")
	for range 2 {
		w.expect("dc-p", v1alpha1.ReasonRolling, "Unbound is made anew when all members of KnotResolver are available")
	}
	if image(v1alpha1.EngineKnotResolver) != "fingerpost/resolver-knotresolver:next" || image(v1alpha1.EngineUnbound) != "fingerpost/resolver-unbound:test" {
		t.Errorf("images are %s and %s", image(v1alpha1.EngineKnotResolver), image(v1alpha1.EngineUnbound))
	}
	w.available("dc-p", v1alpha1.EngineKnotResolver)
	w.expect("dc-p", v1alpha1.ReasonRolling, "Unbound: pods are made anew")
	w.available("dc-p", v1alpha1.EngineUnbound)
	w.expect("dc-p", "", "")
	if image(v1alpha1.EngineUnbound) != "fingerpost/resolver-unbound:next" {
		t.Errorf("the image is %s", image(v1alpha1.EngineUnbound))
	}

	t.Log("load decides: the number stays what it is until then, and what it decides stays")
	e.apply(pools("Unbound, replicas: 2", "Unbound, autoscaling: {minReplicas: 2, maxReplicas: 6}"))
	w.expect("dc-p", v1alpha1.ReasonRolling, "")
	if n := *w.deployment("dc-p", v1alpha1.EngineUnbound).Spec.Replicas; n != 2 {
		t.Errorf("%d replicas when load is to decide", n)
	}
	if err := e.api.SubResource("scale").Update(t.Context(), w.deployment("dc-p", v1alpha1.EngineUnbound), client.WithSubResourceBody(&autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: unbound}, Spec: autoscalingv1.ScaleSpec{Replicas: 5},
	})); err != nil {
		t.Fatal(err)
	}
	w.available("dc-p", v1alpha1.EngineUnbound)
	w.expect("dc-p", v1alpha1.ReasonPodsNotReady, "Unbound: 2 of 5 pods are ready")
	if n := *w.deployment("dc-p", v1alpha1.EngineUnbound).Spec.Replicas; n != 5 {
		t.Errorf("%d replicas, and load had decided for 5", n)
	}
	want = slices.Insert(slices.Clone(want), 3, "HorizontalPodAutoscaler "+unbound)
	expectMade()
	e.apply(pools())
	w.expect("dc-p", v1alpha1.ReasonRolling, "")
	w.available("dc-p", v1alpha1.EngineUnbound)
	w.expect("dc-p", "", "")
	want = slices.Delete(slices.Clone(want), 3, 4)
	expectMade()

	t.Log("another way to clients: what Kubernetes lets nobody change in place is made anew")
	e.apply(pools("type: ClusterIP", "type: LoadBalancer, loadBalancerClass: example.com/one"))
	w.expect("dc-p", v1alpha1.ReasonAddressPending, "the provider of class example.com/one has given Service "+namespace+"/"+all+" no address yet")
	e.apply(pools("type: ClusterIP", "type: LoadBalancer, loadBalancerClass: example.com/two"))
	w.expect("dc-p", v1alpha1.ReasonAddressPending, "example.com/two")
	e.apply(pools("type: ClusterIP", "type: NodePort, nodePort: 53"))
	w.expect("dc-p", v1alpha1.ReasonRefused, "The range of valid ports is 30000-32767")
	e.apply(pools())
	w.expect("dc-p", "", "")

	t.Log("an engine that is replaced by another one answers until that does")
	w.Images[v1alpha1.EngineRecursor] = ""
	e.apply(pools("KnotResolver", "Recursor"))
	w.expect("dc-p", v1alpha1.ReasonNoImage, "--resolver-image Recursor=IMAGE")
	w.Images[v1alpha1.EngineRecursor] = "fingerpost/resolver-recursor:next"
	w.expect("dc-p", v1alpha1.ReasonRolling, "members of KnotResolver end when all members of Recursor are available")
	w.deployment("dc-p", v1alpha1.EngineKnotResolver)
	w.available("dc-p", v1alpha1.EngineRecursor)
	w.expect("dc-p", v1alpha1.ReasonPodsNotReady, "Recursor: 0 of 2 pods are ready")
	want[1], want[2] = "Deployment "+memberName("dc-p", v1alpha1.EngineRecursor), "Deployment "+unbound
	expectMade()

	t.Log("a datacenter that is not there changes nothing where one is")
	e.apply(pools("KnotResolver", "Recursor", "DATACENTERS", "dc-p, dc-nowhere"))
	if err := w.step("dc-p"); err != nil {
		t.Error(err)
	}
	expectMade()

	t.Log("a pool that is deleted goes, with all that it had")
	if err := e.api.DeleteAllOf(t.Context(), &v1alpha1.ResolverPool{}, client.InNamespace("payments")); err != nil {
		t.Fatal(err)
	}
	if err := w.step("dc-p"); err != nil {
		t.Error(err)
	}
	want = []string{"NetworkPolicy " + all, "ServiceAccount " + all} // as long as pods are there
	expectMade()
	if err := e.api.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(namespace), client.HasLabels{render.LabelPool}, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	if err := w.step("dc-p"); err != nil {
		t.Error(err)
	}
	want = nil
	expectMade()
	if w.report("dc-p") != nil {
		t.Error("there is a report on a pool that is gone")
	}
	if err := e.api.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil {
		t.Errorf("the servers are gone with it: %v", err)
	}
}

// TestAManagedPool is the way from a ResolverPool to its pods and back, under a manager with the rights of config/rbac.
func TestAManagedPool(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, corpZone(0))
	w := newPoolWorkloads(t, e, e.api, operatorNamespace)
	for _, list := range []client.ObjectList{&appsv1.DeploymentList{}, &corev1.ConfigMapList{}, &v1alpha1.ResolverPoolList{}} {
		e.watch(list)
	}
	e.startManager(0)
	e.startServers()
	office := strings.Replace(managedPool, "DATACENTERS", "dc-a, dc-b", 1)
	e.apply(office)
	engines, datacenters := []v1alpha1.ResolverEngine{v1alpha1.EngineUnbound, v1alpha1.EngineKnotResolver}, []string{"dc-a", "dc-b"}
	status := func() (v1alpha1.ResolverPoolStatus, error) {
		var p v1alpha1.ResolverPool
		err := e.api.Get(t.Context(), types.NamespacedName{Namespace: "payments", Name: "office"}, &p)
		return p.Status, err
	}
	expect := func(status metav1.ConditionStatus, reason, words string, of func() (v1alpha1.ResolverPoolStatus, error)) (s v1alpha1.ResolverPoolStatus) {
		t.Helper()
		e.await(func() (err error) {
			if s, err = of(); err != nil {
				return err
			}
			c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionWorkloadsReady)
			if c == nil || c.Status != status || c.Reason != reason || !strings.Contains(c.Message, words) {
				return fmt.Errorf("WorkloadsReady is %+v", c)
			}
			return nil
		})
		return s
	}
	expect(metav1.ConditionFalse, v1alpha1.ReasonPodsNotReady, "dc-a: KnotResolver: 0 of 2 pods are ready", status)
	configuration := func(datacenter, text string) {
		t.Helper()
		e.await(func() error {
			var c corev1.ConfigMap
			if err := e.api.Get(t.Context(), types.NamespacedName{Namespace: operatorNamespace, Name: memberName(datacenter, "")}, &c); err != nil {
				return err
			}
			if !strings.Contains(c.Data["pool.yaml"], text) {
				return fmt.Errorf("members in %s are told %s", datacenter, c.Data["pool.yaml"])
			}
			return nil
		})
	}
	for _, dc := range datacenters {
		configuration(dc, "192.0.2.1")
		for _, engine := range engines {
			e.await(func() error {
				return e.api.Get(t.Context(), types.NamespacedName{Namespace: operatorNamespace, Name: memberName(dc, engine)}, &appsv1.Deployment{})
			})
			w.available(dc, engine)
			for i := range 2 {
				if err := w.start(w.deployment(dc, engine), fmt.Sprintf("%s-%d", memberName(dc, engine), i)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	s := expect(metav1.ConditionTrue, v1alpha1.ReasonWorkloadsReady, "", status)
	if s.ReadyMembers != "8/8" || s.VIP == "" || len(s.Members) != 4 {
		t.Errorf("status is %+v", s)
	}
	e.apply(office + "  prefetch: Enabled\n")
	for _, dc := range datacenters {
		configuration(dc, "prefetch: true")
	}
	if d := w.deployment("dc-a", v1alpha1.EngineUnbound); len(d.OwnerReferences) != 1 || d.OwnerReferences[0].Name != "dc-a" {
		t.Errorf("owners are %v: the Datacenter's end would leave it", d.OwnerReferences)
	}

	t.Log("it leaves a datacenter, then it is deleted")
	e.apply(strings.Replace(managedPool, "DATACENTERS", "dc-a", 1))
	without := func(datacenter string) func() error {
		return func() error {
			for _, o := range w.made() {
				if strings.Contains(o, "resolver-"+datacenter) && !strings.HasPrefix(o, "NetworkPolicy ") && !strings.HasPrefix(o, "ServiceAccount ") { // which stay for the pods that nobody ends here
					return fmt.Errorf("%s is there", o)
				}
			}
			return nil
		}
	}
	e.await(without("dc-b"))
	if err := e.api.DeleteAllOf(t.Context(), &v1alpha1.ResolverPool{}, client.InNamespace("payments")); err != nil {
		t.Fatal(err)
	}
	e.await(without("dc-a"))
}

// TestObjectsOfPoolsAreTaken has an API server take all objects that render's stories have, and their pods in a restricted namespace,
// but for those that mount a folder of the node.
func TestObjectsOfPoolsAreTaken(t *testing.T) {
	e := newEstate(t)
	stories, err := filepath.Glob("render/testdata/pool-workloads/*.txtar")
	if err != nil || len(stories) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, story := range stories {
		t.Run(strings.TrimSuffix(filepath.Base(story), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(story)
			if err != nil {
				t.Fatal(err)
			}
			namespace := restricted(t)
			var names []string
			for doc := range strings.SplitSeq(string(archive.Files[1].Data), "---\n") {
				u := &unstructured.Unstructured{}
				if err := yaml.Unmarshal([]byte(doc), u); err != nil {
					t.Fatal(err)
				}
				if u.Object == nil {
					continue
				}
				u.SetNamespace(namespace)
				u.SetOwnerReferences(nil)
				if err := e.api.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("test")); err != nil {
					t.Error(err)
				}
				if u.GetKind() == "Deployment" {
					names = append(names, u.GetName())
				}
			}
			for _, name := range names {
				var d appsv1.Deployment
				if err := e.api.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &d); err != nil {
					t.Fatal(err)
				}
				d.Spec.Template.Spec.PriorityClassName = "" // of which the namespace may have none
				mounts := slices.ContainsFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
				err := (&poolWorkloads{e: e, place: e.api}).start(&d, name)
				if mounts != (err != nil && strings.Contains(err.Error(), "violates PodSecurity")) || !mounts && err != nil {
					t.Errorf("a pod that mounts a folder of the node, %v: %v", mounts, err)
				}
			}
		})
	}
}

const remotePoolDatacenter = `
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-q}
spec:
  cluster: {kubeconfigSecretRef: {name: dc-q}, namespace: fingerpost}
`

// TestResolversInAnotherCluster is the life of a Managed pool in a datacenter with a cluster of its own, with the rights of
// config/rbac/remote, and in one of the operator's.
func TestResolversInAnotherCluster(t *testing.T) {
	e := newEstate(t)
	plane, remote := another(t)
	w, servers := newPoolWorkloads(t, e, remote, "fingerpost"), newWorkloads(t, e)
	servers.Places = w.Places
	t.Cleanup(func() { e.letGo("dc-q") })
	namespace := newNamespace(t)
	pools := func(change ...string) string {
		return strings.NewReplacer(append(change, "DATACENTERS", "dc-q, dc-p")...).Replace(managedPool)
	}
	e.apply(remotePoolDatacenter)
	e.apply(strings.Replace(poolDatacenter, "NAMESPACE", namespace, 1))
	e.apply(pools())
	for _, dc := range []string{"dc-p", "dc-q"} {
		e.secret("fingerpost-server."+dc+".pool.payments.office", certificateOfAgents)
	}
	w.tell(managedPoolTold, "dc-p", "dc-q")
	w.expect("dc-q", v1alpha1.ReasonClusterAway, "there is no Secret fingerpost-system/dc-q")
	e.secret("dc-q", map[string][]byte{"kubeconfig": kubeconfig(t, plane, remoteOperator)})
	w.expect("dc-q", v1alpha1.ReasonClusterAway, "The rights that are needed are in config/rbac/remote")
	there := &estate{t: t, api: remote, cp: plane}
	for _, file := range []string{"10-rights.yaml", "20-operator.yaml"} {
		text, err := os.ReadFile("../config/rbac/remote/" + file)
		if err != nil {
			t.Fatal(err)
		}
		there.apply(string(text))
	}

	t.Log("with the rights of config/rbac/remote")
	w.expect("dc-q", v1alpha1.ReasonPodsNotReady, "")
	unbound := w.deployment("dc-q", v1alpha1.EngineUnbound)
	if args := unbound.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--hub=hub.example.net:8443") || slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "--hub=fingerpost-hub") }) {
		t.Errorf("members in another cluster are told %v", args)
	}
	if dc := e.datacenter("dc-q"); len(unbound.OwnerReferences) > 0 || !slices.Equal(dc.Finalizers, []string{controllers.ServersFinalizer}) {
		t.Errorf("owners %v, finalizers %v: with the Datacenter's end something would be left", unbound.OwnerReferences, dc.Finalizers)
	}
	renewed := maps.Clone(certificateOfAgents)
	renewed["tls.crt"] = []byte("certificate 2")
	e.secret("fingerpost-server.dc-q.pool.payments.office", renewed)
	w.expect("dc-q", v1alpha1.ReasonPodsNotReady, "")
	copied := func(name string) *corev1.Secret {
		t.Helper()
		s := &corev1.Secret{}
		if err := remote.Get(t.Context(), types.NamespacedName{Namespace: "fingerpost", Name: name}, s); err != nil {
			t.Error(err)
		}
		return s
	}
	if got := copied("fingerpost-server.dc-q.pool.payments.office"); string(got.Data["tls.crt"]) != "certificate 2" {
		t.Errorf("copied is %q", got.Data["tls.crt"])
	}

	t.Log("a certificate for clients that is missing stops nothing, and comes when it is there")
	w.available("dc-q", v1alpha1.EngineUnbound, v1alpha1.EngineKnotResolver)
	encrypted := pools("exposure:", "transports: {dot: {access: Open}, certificateSecretRef: {name: shown}}\n  exposure:")
	e.apply(encrypted)
	w.expect("dc-q", v1alpha1.ReasonSecretNotFound, "there is no Secret payments/shown")
	certificate, key := selfSigned(t)
	shown := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "shown"}, Data: map[string][]byte{"tls.crt": certificate, "tls.key": key}}
	if err := e.api.Create(t.Context(), shown); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.api.Delete(context.WithoutCancel(t.Context()), shown); err != nil {
			t.Error(err)
		}
	})
	w.expect("dc-q", v1alpha1.ReasonPodsNotReady, "")
	if got := copied(memberName("dc-q", "") + "-transports"); !bytes.Equal(got.Data["tls.key"], shown.Data["tls.key"]) || len(got.Data) != 2 {
		t.Errorf("copied is not what clients are to be shown, or more: %d keys", len(got.Data))
	}
	if after := w.deployment("dc-q", v1alpha1.EngineUnbound); after.Generation != unbound.Generation {
		t.Error("pods are made anew because a transport was opened")
	}
	e.apply(pools())
	w.expect("dc-q", v1alpha1.ReasonPodsNotReady, "")
	if made := w.made(); slices.ContainsFunc(made, func(o string) bool { return strings.HasSuffix(o, "-transports") }) {
		t.Errorf("a certificate that nobody is shown any more is still there: %v", made)
	}

	t.Log("quotas")
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "fingerpost", Name: "few"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/networkpolicies.networking.k8s.io": resource.MustParse("0")}}}
	if err := remote.Create(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: quota.Spec.Hard}
	if err := remote.Status().Update(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	if err := remote.DeleteAllOf(t.Context(), &networkingv1.NetworkPolicy{}, client.InNamespace("fingerpost")); err != nil {
		t.Fatal(err)
	}
	w.expect("dc-q", v1alpha1.ReasonQuotaExceeded, "exceeded quota: few")
	if err := remote.Delete(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	w.expect("dc-q", v1alpha1.ReasonPodsNotReady, "")
	unbound = w.deployment("dc-q", v1alpha1.EngineUnbound)
	unbound.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: `pods "x" is forbidden: exceeded quota: few`}}
	if err := remote.Status().Update(t.Context(), unbound); err != nil {
		t.Fatal(err)
	}
	w.expect("dc-q", v1alpha1.ReasonQuotaExceeded, "dc-q: Unbound: Kubernetes can't make a pod")

	t.Log("the cluster goes away: members elsewhere do not mind, and a pool that is deleted meanwhile goes when it is back")
	if err := plane.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	w.expect("dc-q", v1alpha1.ReasonClusterAway, "which go on as they are: the cluster does not answer")
	w.expect("dc-p", v1alpha1.ReasonPodsNotReady, "")
	if err := e.api.DeleteAllOf(t.Context(), &v1alpha1.ResolverPool{}, client.InNamespace("payments")); err != nil {
		t.Fatal(err)
	}
	if err := w.step("dc-q"); err != nil {
		t.Errorf("an error about pools where none are to be: %v", err)
	}
	if err := plane.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.step("dc-q"); err != nil {
		t.Error(err)
	}
	if made := w.made(); len(made) > 0 {
		t.Errorf("left: %v", made)
	}

	t.Log("the Datacenter is deleted: nothing is left there")
	e.apply(pools())
	w.expect("dc-q", v1alpha1.ReasonPodsNotReady, "")
	if made := w.made(); len(made) != 8 {
		t.Errorf("made: %v", made)
	}
	if err := e.api.Delete(t.Context(), e.datacenter("dc-q")); err != nil {
		t.Fatal(err)
	}
	if err := w.step("dc-q"); err != nil {
		t.Error(err)
	}
	if _, err := servers.step("dc-q"); err != nil {
		t.Error(err)
	}
	if made := w.made(); len(made) > 0 {
		t.Errorf("left: %v", made)
	}
	if err := e.api.Get(t.Context(), types.NamespacedName{Name: "dc-q"}, &v1alpha1.Datacenter{}); !apierrors.IsNotFound(err) {
		t.Errorf("it hangs: %v", err)
	}
}
