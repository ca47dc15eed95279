package charts_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// patience is how long anything may take that takes a moment.
const patience = time.Minute

// TestRightsAreEnough installs the chart, and runs the manager with the arguments and the rights that the chart gives it,
// and a server: a zone must become ready and be answered, and nothing be refused to the manager. Once with rights in all
// namespaces, once with those in listed ones.
func TestRightsAreEnough(t *testing.T) {
	for name, listed := range map[string]string{"in all namespaces": "null", "in listed namespaces": "{payments}"} {
		t.Run(name, func(t *testing.T) {
			plane, api := startCluster(t)
			for _, ns := range []string{namespace, "payments", "cards"} {
				create(t, api, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{
					"pod-security.kubernetes.io/enforce": "restricted",
				}}})
			}
			server := address(t, 53053)
			r := &release{t: t, helm: "helm4", plane: plane, api: api}
			r.runJobs()
			r.do("install", "--values", valuesOf(t, server), "--set", "watchNamespaces="+listed)

			// The pods that the Deployment would have: the API server takes them as those of a restricted namespace.
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}
			r.get("fingerpost-manager", d)
			for _, pod := range []string{"manager-dead", "manager-0", "manager-1"} {
				create(t, api, &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod, Labels: d.Spec.Template.Labels},
					Spec:       d.Spec.Template.Spec,
				})
			}
			dead := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "manager-dead"}}
			label(t, api, dead)

			m := startManager(t, plane, d.Spec.Template.Spec.Containers[0], "manager-0")
			m.awaitReady(t)
			awaitLeader(t, api, "manager-0")
			next := startManager(t, plane, d.Spec.Template.Spec.Containers[0], "manager-1")
			next.awaitReady(t) // one that does not lead is ready too

			await(t, api, &appsv1.StatefulSetList{}, func(list *appsv1.StatefulSetList) string {
				if len(list.Items) == 1 && list.Items[0].Name == "fingerpost-dc-a-run" {
					return ""
				}
				return fmt.Sprintf("%d StatefulSets, wanted that of the Managed group", len(list.Items))
			}, client.InNamespace(namespace))
			startServer(t, plane, m.hub, server)
			create(t, api, parsed(t, &v1alpha1.DNSZone{}, `{metadata: {name: pay, namespace: payments}, spec: {name: pay, serverGroup: root, recordsFrom: [{configMapKeyRef: {name: legacy, key: zone}}]}}`))
			create(t, api, parsed(t, &v1alpha1.DNSZone{}, `{metadata: {name: cards, namespace: cards}, spec: {name: cards, serverGroup: root, records: [{name: www, type: A, values: [192.0.2.2]}]}}`))
			create(t, api, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "legacy"}, Data: map[string]string{"zone": "www IN A 192.0.2.1\n"}})
			awaitZone(t, api, "dns-root", "root")
			awaitZone(t, api, "payments", "pay")
			if got := ask(t, server, "www.pay."); got != "192.0.2.1" {
				t.Errorf("www.pay. is %q", got)
			}
			create(t, api, parsed(t, &v1alpha1.HealthProbe{}, `{metadata: {name: up, namespace: payments}, spec: {type: TCP, tcp: {port: 9}}}`))
			create(t, api, parsed(t, &v1alpha1.DynamicRecord{}, `{metadata: {name: app, namespace: payments}, spec: {zoneRef: {name: pay}, host: app,
				steering: {policy: Nearest}, pools: [{name: a, datacenter: dc-a, targets: [{address: 192.0.2.9}]}], probeRef: {name: up}}}`))
			create(t, api, parsed(t, &v1alpha1.TrafficOverride{}, `{metadata: {name: drain, namespace: payments}, spec: {action: Drain, drain: {datacenter: dc-a},
				expires: "2099-12-01T04:00:00Z", reason: test}}`))
			await(t, api, &v1alpha1.HealthProbeList{}, func(l *v1alpha1.HealthProbeList) string {
				return unseen("HealthProbe", l.Items[0].Status.ObservedGeneration)
			})
			await(t, api, &v1alpha1.DynamicRecordList{}, func(l *v1alpha1.DynamicRecordList) string {
				return unseen("DynamicRecord", l.Items[0].Status.ObservedGeneration)
			})
			await(t, api, &v1alpha1.TrafficOverrideList{}, func(l *v1alpha1.TrafficOverrideList) string {
				return unseen("TrafficOverride", l.Items[0].Status.ObservedGeneration)
			})
			pool := parsed(t, &v1alpha1.ResolverPool{}, `{metadata: {name: office, namespace: payments}, spec: {class: office, clientNetworks: [10.0.0.0/8], exposure: {type: ClusterIP},
				members: [{engine: Unbound, autoscaling: {maxReplicas: 4}}, {engine: KnotResolver}]}}`)
			create(t, api, pool)
			resolvers := func(deployments, autoscalers, policies int) {
				for list, want := range map[client.ObjectList]int{
					&appsv1.DeploymentList{}: deployments, &autoscalingv2.HorizontalPodAutoscalerList{}: autoscalers, &networkingv1.NetworkPolicyList{}: policies,
				} {
					await(t, api, list, func(list client.ObjectList) string {
						if n := meta.LenList(list); n != want {
							return fmt.Sprintf("%d %T of the pool, wanted %d", n, list, want)
						}
						return ""
					}, client.InNamespace(namespace), client.HasLabels{"fingerpost.dev/pool"})
				}
			}
			resolvers(2, 1, 1)
			await(t, api, &v1alpha1.ResolverPoolList{}, func(l *v1alpha1.ResolverPoolList) string {
				return unseen("ResolverPool", l.Items[0].Status.ObservedGeneration)
			})
			if err := api.Delete(t.Context(), pool); err != nil {
				t.Fatal(err)
			}
			resolvers(0, 0, 0)
			cards := &v1alpha1.DNSZone{ObjectMeta: metav1.ObjectMeta{Namespace: "cards"}}
			if listed == "null" {
				awaitZone(t, api, "cards", "cards")
			} else if r.get("cards", cards); cards.Status.ObservedGeneration != 0 {
				t.Errorf("a zone of a namespace that is not listed was looked at: %+v", cards.Status)
			}

			for what, attributes := range map[string]authorizationv1.ResourceAttributes{
				"read Secrets of tenants":       {Verb: "get", Resource: "secrets", Namespace: "payments"},
				"list Secrets of its own":       {Verb: "list", Resource: "secrets", Namespace: namespace},
				"change zones":                  {Verb: "update", Group: "fingerpost.dev", Resource: "dnszones", Namespace: "payments"},
				"change kinds":                  {Verb: "update", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions", Name: "dnszones.fingerpost.dev"},
				"change pods of others":         {Verb: "patch", Resource: "pods", Namespace: "payments"},
				"give itself rights":            {Verb: "create", Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
				"read zones of other namespace": {Verb: "list", Group: "fingerpost.dev", Resource: "dnszones", Namespace: "cards"},
			} {
				if may := allowed(t, api, attributes); may != (listed == "null" && attributes.Namespace == "cards") {
					t.Errorf("whether it may %s: %t", what, may)
				}
			}

			m.stop(t)
			awaitLeader(t, api, "manager-1") // long before the lease would have ended
			next.stop(t)
			var pods corev1.PodList
			if err := api.List(t.Context(), &pods, client.InNamespace(namespace), leads); err != nil || len(pods.Items) != 0 {
				t.Errorf("after all have stopped, %d pods are labelled as leader (%v)", len(pods.Items), err)
			}
		})
	}
}

// valuesOf writes values for one datacenter with a server, and the root zone.
func valuesOf(t *testing.T, server netAddr) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "values.yaml")
	text := "apexNamespaces: [payments, cards]\nrootZone: {enabled: true, spec: {serverGroup: root, allowedChildren: [{namespaces: {from: All}, names: [pay, cards]}]}}\n" +
		"datacenters: {dc-a: {serverGroups: [{name: root, management: External, addresses: [" + server.host + "]}, {name: run, management: Managed}]}}\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// netAddr is a loopback address that no other test uses, with a port of it.
type netAddr struct{ host, port string }

func (a netAddr) String() string { return net.JoinHostPort(a.host, a.port) }

func (a netAddr) at(port int) string { return net.JoinHostPort(a.host, fmt.Sprint(port)) }

func address(t *testing.T, port int) netAddr {
	t.Helper()
	host := fmt.Sprintf("127.%d.%d.%d", 40+rand.IntN(60), rand.IntN(256), 1+rand.IntN(254))
	return netAddr{host, fmt.Sprint(port)}
}

// runningManager is a manager in a pod that is there in name only.
type runningManager struct {
	process          *process.Process
	log, hub, health string
}

// startManager runs the manager as the container says, as the ServiceAccount, at addresses of its own.
func startManager(t *testing.T, plane *controlplane.ControlPlane, container corev1.Container, pod string) *runningManager {
	t.Helper()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := plane.WriteKubeconfig(kubeconfig, account); err != nil {
		t.Fatal(err)
	}
	at := address(t, 8443)
	m := &runningManager{log: filepath.Join(dir, "log"), hub: at.String(), health: at.at(8081)}
	args := append(container.Args, "--hub-listen="+m.hub, "--health-listen="+m.health, "--metrics-listen="+at.at(8080), "--verbosity=1")
	var err error
	m.process, err = process.Start(process.Options{
		Name: pod, Log: m.log, Env: []string{"KUBECONFIG=" + kubeconfig, "HOME=" + dir, "POD_NAME=" + pod, "POD_NAMESPACE=" + namespace},
	}, program(t, "manager"), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.process.Stop(0); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(m.process.LastWords())
		}
	})
	return m
}

// awaitReady waits until the kubelet would take the manager for ready.
func (m *runningManager) awaitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for last := "it was not asked yet"; ; {
		select {
		case <-m.process.Exited():
			t.Fatalf("the manager has ended:\n%s", m.process.LastWords())
		case <-ctx.Done():
			t.Fatalf("the manager is not ready: %s\n%s", last, m.process.LastWords())
		case <-again.C:
			response, err := http.Get("http://" + m.health + "/readyz?verbose")
			if err != nil {
				last = err.Error()
				continue
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if last = string(body); response.StatusCode == http.StatusOK {
				return
			}
		}
	}
}

// stop ends the manager in order, and reports what it was not allowed to do.
func (m *runningManager) stop(t *testing.T) {
	t.Helper()
	if err := m.process.Stop(20 * time.Second); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(m.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "forbidden") || strings.Contains(line, "cannot ") {
			t.Errorf("the manager lacks a right: %s", line)
		}
	}
}

// startServer runs a server of dc-a/root with a certificate that an administrator exports.
func startServer(t *testing.T, plane *controlplane.ControlPlane, hub string, at netAddr) {
	t.Helper()
	dir := t.TempDir()
	export, err := process.Start(process.Options{Name: "export", Log: filepath.Join(dir, "export.log"), Env: []string{"KUBECONFIG=" + plane.Kubeconfig(), "HOME=" + dir}},
		program(t, "manager"), "certs", "export", "--all", "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	<-export.Exited()
	if _, err := os.Stat(filepath.Join(dir, "dc-a", "root", "tls.crt")); err != nil {
		t.Fatalf("exporting certificates: %s", export.LastWords())
	}
	server, err := process.Start(process.Options{Name: "dnsserver", Log: filepath.Join(dir, "log")}, program(t, "dnsserver"),
		"--hub", hub, "--tls-dir", filepath.Join(dir, "dc-a", "root"), "--state-dir", filepath.Join(dir, "state"), "--name", "ns1",
		"--listen", at.String(), "--http-listen", at.at(8053))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(0); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(server.LastWords())
		}
	})
}

// ask returns the address of a name, as a server says.
func ask(t *testing.T, server netAddr, name string) string {
	t.Helper()
	reply, err := dns.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), server.String())
	if err != nil {
		t.Fatal(err)
	}
	if len(reply.Answer) != 1 {
		return reply.String()
	}
	return reply.Answer[0].(*dns.A).A.String()
}

func create(t *testing.T, api client.Client, object client.Object) {
	t.Helper()
	if err := api.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// parsed fills an object from YAML and returns it.
func parsed[O client.Object](t *testing.T, object O, text string) O {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// unseen says that a status has not been written, unless it has.
func unseen(kind string, observed int64) string {
	if observed == 0 {
		return "no status of " + kind
	}
	return ""
}

// label marks a pod as that of the leader, as one leaves it that is killed.
func label(t *testing.T, api client.Client, pod *corev1.Pod) {
	t.Helper()
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"`+controllers.LeaderLabel+`":"true"}}}`))
	if err := api.Patch(t.Context(), pod, patch); err != nil {
		t.Fatal(err)
	}
}

// await waits until nothing is missing from a list. missing says what is.
func await[L client.ObjectList](t *testing.T, api client.WithWatch, list L, missing func(L) string, options ...client.ListOption) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	changes, err := api.Watch(ctx, list, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Stop()
	for {
		if err := api.List(ctx, list, options...); err != nil {
			t.Fatal(err)
		}
		says := missing(list)
		if says == "" {
			return
		}
		if _, open := <-changes.ResultChan(); !open {
			t.Fatal(says)
		}
	}
}

// leads selects the pods that are labelled as the leader's.
var leads = client.MatchingLabels{controllers.LeaderLabel: "true"}

// awaitLeader waits until a pod, and no other, is labelled as the leader's.
func awaitLeader(t *testing.T, api client.WithWatch, pod string) {
	t.Helper()
	await(t, api, &corev1.PodList{}, func(list *corev1.PodList) string {
		var names []string
		for _, p := range list.Items {
			if p.Labels[controllers.LeaderLabel] == "true" {
				names = append(names, p.Name)
			}
		}
		if slices.Equal(names, []string{pod}) {
			return ""
		}
		return fmt.Sprintf("%v are labelled as leader, wanted %s", names, pod)
	}, client.InNamespace(namespace))
}

func awaitZone(t *testing.T, api client.WithWatch, namespace, name string) {
	t.Helper()
	await(t, api, &v1alpha1.DNSZoneList{}, func(list *v1alpha1.DNSZoneList) string {
		for _, z := range list.Items {
			if z.Name != name {
				continue
			}
			if meta.IsStatusConditionTrue(z.Status.Conditions, v1alpha1.ConditionReady) {
				return ""
			}
			return fmt.Sprintf("zone %s/%s is not ready: %+v", namespace, name, z.Status)
		}
		return fmt.Sprintf("there is no zone %s/%s", namespace, name)
	}, client.InNamespace(namespace))
}

// allowed reports whether the manager's ServiceAccount has a right.
func allowed(t *testing.T, api client.Client, attributes authorizationv1.ResourceAttributes) bool {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: account, Groups: []string{"system:serviceaccounts", "system:authenticated"}, ResourceAttributes: &attributes,
	}}
	create(t, api, review)
	return review.Status.Allowed
}
