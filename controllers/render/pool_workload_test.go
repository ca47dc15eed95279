package render_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// TestPoolWorkloads renders the objects of the pools in testdata/pool-workloads, as they are applied.
func TestPoolWorkloads(t *testing.T) {
	goldens(t, "testdata/pool-workloads/*.txtar", "want.yaml", func(t *testing.T, in []byte) string {
		t.Helper()
		return manifests(t, render.PoolWorkload(poolInputs(t, in)))
	})
}

// manifests are the fields of objects as they are applied.
func manifests(t *testing.T, objects []render.Object) string {
	t.Helper()
	var out strings.Builder
	for _, o := range objects {
		fields, err := render.OwnedFields(o)
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n" + string(text))
	}
	return out.String()
}

// poolInputs reads a place, a Datacenter, a ResolverPool and what its members are told.
func poolInputs(t *testing.T, in []byte) render.PoolWorkloadInputs {
	t.Helper()
	var place struct {
		metav1.TypeMeta `json:",inline"`
		Namespace       string   `json:"namespace"`
		Hubs            []string `json:"hubs"`
		Owned           bool     `json:"owned"`
	}
	var dc v1alpha1.Datacenter
	var p v1alpha1.ResolverPool
	documents := bytes.Split(in, []byte("\n---\n"))
	for i, into := range []any{&place, &dc, &p} {
		if err := yaml.UnmarshalStrict(documents[i], into); err != nil {
			t.Fatal(err)
		}
	}
	config, err := pool.Decode(documents[3])
	if err != nil {
		t.Fatal(err)
	}
	if len(place.Hubs) == 0 {
		place.Hubs = []string{"fingerpost-hub.fingerpost-system.svc:8443"}
	}
	return render.PoolWorkloadInputs{
		Pool: &p, Datacenter: &dc, Namespace: place.Namespace, Hubs: place.Hubs, Owned: place.Owned, Config: config, Text: documents[3],
		Images: map[v1alpha1.ResolverEngine]string{
			v1alpha1.EngineUnbound: "fingerpost/resolver-unbound:test", v1alpha1.EngineKnotResolver: "fingerpost/resolver-knot:test",
			v1alpha1.EngineRecursor: "fingerpost/resolver-recursor:test",
		},
	}
}

func TestPoolWorkloadNames(t *testing.T) {
	long := strings.Repeat("x", 60)
	at := func(dc, namespace, name string) render.PoolPlace {
		return render.PoolPlace{Datacenter: dc, Pool: types.NamespacedName{Namespace: namespace, Name: name}}
	}
	names := map[string]string{}
	for _, p := range []render.PoolPlace{
		at("dc-a", "dns", "office"), at("dc-a", "dns2", "office"), at("dc", "dns", "a-office"), at("dc-a", "dns", "office-unbound"), at("dc-a", "dns-office", "unbound"),
		at(long, "dns", "office"), at(long, long, "office"), at(long, long, long),
	} {
		for _, engine := range []v1alpha1.ResolverEngine{"", v1alpha1.EngineUnbound, v1alpha1.EngineKnotResolver, v1alpha1.EngineRecursor} {
			name, what := render.PoolWorkloadName(p, engine), fmt.Sprint(p, engine)
			if other := names[name]; other != "" {
				t.Errorf("%s and %s are both called %s", what, other, name)
			}
			names[name] = what
			if problems := validation.IsDNS1035Label(name); len(problems) > 0 || len(name) > 52 {
				t.Errorf("%s is called %s: %v", what, name, problems)
			}
			if strings.HasPrefix(name, "fingerpost-") {
				t.Errorf("%s is called %s, as servers are", what, name)
			}
		}
	}
}

// deployments makes those of a text such as "Unbound old 2/2", what of it is as declared now, how many members of how many are available.
func deployments(t *testing.T, text string) (wanted []*appsv1.Deployment, running []appsv1.Deployment) {
	t.Helper()
	for part := range strings.SplitSeq(text, ", ") {
		var engine, state string
		var available, replicas int32
		if _, err := fmt.Sscanf(part, "%s %s %d/%d", &engine, &state, &available, &replicas); err != nil {
			t.Fatal(err)
		}
		w := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(engine), Labels: map[string]string{render.LabelEngine: engine}, Annotations: map[string]string{"fingerpost.dev/template": "new"}}}
		wanted = append(wanted, w)
		if state == "missing" {
			continue
		}
		r := w.DeepCopy()
		r.Annotations["fingerpost.dev/template"] = state
		r.Spec.Replicas = &replicas
		r.Status = appsv1.DeploymentStatus{Replicas: replicas, UpdatedReplicas: replicas, AvailableReplicas: available}
		running = append(running, *r)
	}
	return wanted, running
}

func TestMembersAreMadeAnewOneEngineAtATime(t *testing.T) {
	for rule, c := range map[string]struct{ deployments, now, waiting string }{
		"what is as declared is repaired at any time":     {"Recursor new 2/2, Unbound new 1/2", "recursor unbound", ""},
		"all are made at once":                            {"Recursor missing 0/0, Unbound missing 0/0", "recursor unbound", ""},
		"one goes, the next waits":                        {"Recursor old 2/2, Unbound old 2/2", "recursor", "Unbound is made anew when all members of Recursor are available"},
		"the next waits while members are made anew":      {"Recursor new 1/2, Unbound old 2/2", "recursor", "Unbound is made anew when all members of Recursor are available"},
		"the next goes when all are available":            {"Recursor new 2/2, Unbound old 2/2", "recursor unbound", ""},
		"one that is short of members goes first":         {"Recursor old 2/2, Unbound old 1/2", "unbound", "Recursor is made anew when all members of Unbound are available"},
		"a new way that does not work stops at the first": {"KnotResolver new 2/2, Recursor new 0/2, Unbound old 2/2", "knotresolver recursor", "Unbound is made anew when all members of Recursor are available"},
		"one of which nobody answers does not wait":       {"Recursor new 1/2, Unbound old 0/2", "recursor unbound", ""},
		"an engine that comes in is waited for":           {"Recursor missing 0/0, Unbound old 2/2", "recursor", "Unbound is made anew when all members of Recursor are available"},
		"a second change of the one that is made anew":    {"Recursor old 1/2, Unbound old 2/2", "recursor", "Unbound is made anew when all members of Recursor are available"},
		"two that are short of members still take turns":  {"Recursor old 1/2, Unbound old 1/2", "recursor", "Unbound is made anew when all members of Recursor are available"},
	} {
		t.Run(rule, func(t *testing.T) {
			now, waiting := render.MayApply(deployments(t, c.deployments))
			var names []string
			for _, d := range now {
				names = append(names, d.Name)
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != c.now || waiting != c.waiting {
				t.Errorf("applies %q, waiting: %q", got, waiting)
			}
		})
	}
}

// member is a pod that is ready or not.
func member(name string, ready corev1.ConditionStatus) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: name}, Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}}}
}

func TestWhatIsWrongWithMembersOfAPool(t *testing.T) {
	good, bad := member("u-1", corev1.ConditionTrue), member("u-2", corev1.ConditionFalse)
	unschedulable := member("u-2", corev1.ConditionFalse)
	unschedulable.Status.Conditions = append(unschedulable.Status.Conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes are available",
	})
	two := func(change func(*appsv1.Deployment)) *appsv1.Deployment {
		_, running := deployments(t, "Unbound new 2/2")
		change(&running[0])
		return &running[0]
	}
	settled := two(func(*appsv1.Deployment) {})
	balanced := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "dns", Name: "s", Annotations: map[string]string{render.ExposureAnnotation: "LoadBalancer"}}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	given := balanced.DeepCopy()
	given.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.53"}}
	inCluster := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{render.ExposureAnnotation: "ClusterIP"}}, Spec: corev1.ServiceSpec{ClusterIPs: []string{"fd00::53", "10.96.0.53"}}}
	for name, c := range map[string]struct {
		of        render.MemberReport
		service   *corev1.Service
		failure   render.Refusal
		waiting   string
		want      string // the first reason and a part of the message; "" for nothing
		addresses string
		counts    string // desired and ready; "" for not known
	}{
		"all is well": {render.MemberReport{Deployment: settled, Pods: []corev1.Pod{good, member("u-3", corev1.ConditionTrue)}}, given, nil, "", "", "[192.0.2.53]", "2/2"},
		"clients in the cluster ask both addresses": {render.MemberReport{Deployment: settled, Pods: []corev1.Pod{good, good}}, inCluster, nil, "", "", "[10.96.0.53 fd00::53]", "2/2"},
		"nothing is there yet":                      {render.MemberReport{}, nil, nil, "", "PodsNotReady dc-a: Unbound: 0 of 2 pods are ready", "[]", "2/0"},
		"a pod is not ready":                        {render.MemberReport{Deployment: settled, Pods: []corev1.Pod{good, bad}}, given, nil, "", "PodsNotReady dc-a: Unbound: 1 of 2 pods are ready", "[192.0.2.53]", "2/1"},
		"a pod that no node takes":                  {render.MemberReport{Deployment: settled, Pods: []corev1.Pod{good, unschedulable}}, given, nil, "", "PodsPending dc-a: no node takes pod u-2: 0/3 nodes", "[192.0.2.53]", "2/1"},
		"pods are made anew": {
			render.MemberReport{Deployment: two(func(d *appsv1.Deployment) { d.Status.Replicas, d.Status.UpdatedReplicas = 3, 1 }), Pods: []corev1.Pod{good, good, bad}}, given, nil,
			"KnotResolver waits", "Rolling dc-a: Unbound: pods are made anew, one by one; dc-a: KnotResolver waits", "[192.0.2.53]", "2/2",
		},
		"a socket of the node in a namespace that allows none": {
			render.MemberReport{Deployment: two(func(d *appsv1.Deployment) {
				d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: `pods "x" is forbidden: violates PodSecurity "restricted"`}}
			})}, given, nil, "", "Forbidden The socket of queryLog.dnstap needs a namespace with the label", "[192.0.2.53]", "2/0",
		},
		"no address is more urgent than a restart": {
			render.MemberReport{Deployment: settled, Pods: []corev1.Pod{good, good}}, balanced, nil, "Recursor waits", "AddressPending the cluster's default provider has given Service dns/s no address yet", "[]", "2/2",
		},
		"what one engine lacks": {render.MemberReport{Failure: render.Refuse(v1alpha1.ReasonNoImage, "no image is given")}, nil, nil, "", "NoImage dc-a: Unbound: no image is given", "[]", "2/0"},
		"a cluster that is away": {
			render.MemberReport{}, nil, render.Refuse(v1alpha1.ReasonClusterAway, "nothing is known"), "", "ClusterAway dc-a: nothing is known", "[]", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.of.Engine, c.of.Declared = v1alpha1.EngineUnbound, 2
			pods := render.PodsOf([]*render.PoolWorkloadReport{{Datacenter: "dc-a", Failure: c.failure, Members: []render.MemberReport{c.of}, Service: c.service, Waiting: c.waiting}})
			var texts []string
			for _, trouble := range pods.Troubles {
				texts = append(texts, trouble.Error())
			}
			reason, words, _ := strings.Cut(c.want, " ")
			switch told := strings.Join(texts, "; "); {
			case c.want == "" && told != "":
				t.Errorf("told: %s", told)
			case c.want != "" && (len(texts) == 0 || pods.Troubles[0].Reason() != reason || !strings.Contains(told, words)):
				t.Errorf("told: %s", told)
			}
			if got := fmt.Sprint(pods.Addresses); got != c.addresses {
				t.Errorf("addresses %s", got)
			}
			n, counted := pods.Counts[render.MemberPlace{Datacenter: "dc-a", Engine: v1alpha1.EngineUnbound}]
			if got := fmt.Sprintf("%d/%d", n.Desired, n.Ready); counted != (c.counts != "") || counted && got != c.counts {
				t.Errorf("counted %v: %s", counted, got)
			}
		})
	}
	if render.PodsOf(nil) != nil {
		t.Error("there are pods where nobody has looked")
	}
}
