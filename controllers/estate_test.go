package controllers_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/miekg/dns"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers"
	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

const operatorNamespace = "fingerpost-system"

// estate is a real API server, managers with no more rights than config/rbac gives them, and
// servers that hold zones on disk and answer from memory; all but the DNS sockets.
type estate struct {
	t   *testing.T
	api client.WithWatch
	cp  *controlplane.ControlPlane
	hub []string // where managers listen; servers try them in turn

	cookieRotation time.Duration                            // of managers; 0: the default
	statusWrites   int                                      // of managers, a second; 0: 50
	certificates   pki.Policy                               // of managers; zero: the default
	dnsPort        uint16                                   // where managers ask addresses; 0: 53
	replicas       func(*dnsserver.Replica) control.Replica // what servers say they have; nil: what they have

	changed chan struct{} // closed and replaced whenever an object or a server changed
	mu      sync.Mutex
	servers map[control.ServerID]*server
}

// newEstate returns an estate with the given objects, YAML documents, on the API server that
// the stories share. Each finds it without zones, Datacenters and traces of leaders; secrets
// of servers stay.
func newEstate(t *testing.T, objects ...string) *estate {
	t.Helper()
	e := estateOn(t, apiServer(t), cluster.plane)
	e.clear()
	t.Cleanup(e.clear)
	e.begin(objects...)
	return e
}

// estateOn is an estate on a control plane, without anything.
func estateOn(t *testing.T, api client.WithWatch, plane *controlplane.ControlPlane) *estate {
	t.Helper()
	e := &estate{t: t, api: api, cp: plane, changed: make(chan struct{}), servers: map[control.ServerID]*server{}}
	for range 2 {
		e.hub = append(e.hub, freeAddress(t))
	}
	return e
}

// begin gives the manager its rights and applies the objects.
func (e *estate) begin(objects ...string) {
	e.t.Helper()
	e.grant()
	e.watch(&v1alpha1.DNSZoneList{})
	e.watch(&v1alpha1.DatacenterList{})
	e.watch(&v1alpha1.ResolverPoolList{})
	for _, doc := range objects {
		e.apply(doc)
	}
}

// clear deletes what a story leaves, when its managers have stopped.
func (e *estate) clear() {
	ctx := context.WithoutCancel(e.t.Context())
	var zones v1alpha1.DNSZoneList
	var sources corev1.ConfigMapList
	objects := []client.Object{&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "fingerpost-manager"}}}
	for _, list := range []client.ObjectList{&zones, &sources} {
		if err := e.api.List(ctx, list); err != nil {
			e.t.Fatal(err)
		}
	}
	for i := range zones.Items {
		objects = append(objects, &zones.Items[i])
	}
	for i := range sources.Items {
		if ns := sources.Items[i].Namespace; ns == operatorNamespace || ns == "payments" {
			objects = append(objects, &sources.Items[i])
		}
	}
	for _, o := range objects {
		if err := client.IgnoreNotFound(e.api.Delete(ctx, o)); err != nil {
			e.t.Fatal(err)
		}
	}
	for _, o := range []client.Object{&v1alpha1.DynamicRecord{}, &v1alpha1.HealthProbe{}, &v1alpha1.TrafficOverride{}} {
		if err := e.api.DeleteAllOf(ctx, o, client.InNamespace("payments")); err != nil {
			e.t.Fatal(err)
		}
	}
	for _, namespace := range []string{"dns-root", "payments"} {
		if err := e.api.DeleteAllOf(ctx, &v1alpha1.ResolverPool{}, client.InNamespace(namespace)); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := e.api.DeleteAllOf(ctx, &v1alpha1.Datacenter{}); err != nil {
		e.t.Fatal(err)
	}
	var left v1alpha1.DatacenterList
	if err := e.api.List(ctx, &left); err != nil {
		e.t.Fatal(err)
	}
	for i := range left.Items { // nobody is there to let go of them
		if err := client.IgnoreNotFound(e.api.Patch(ctx, &left.Items[i], client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))); err != nil {
			e.t.Fatal(err)
		}
	}
}

// addresses counts those that freeAddress has given out.
var addresses atomic.Uint32

// freeAddress is one with a port, for TCP. Each is on an IP address of its own, so that nobody else takes the port before it is used.
func freeAddress(t *testing.T) string {
	t.Helper()
	n := addresses.Add(1)
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 120+os.Getpid()%100, n>>8&0xff, n&0xff))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// grant gives the user "manager" the rights in config/rbac, and nothing else.
func (e *estate) grant() {
	e.t.Helper()
	e.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: " + operatorNamespace + "}")
	for _, file := range []string{"role.yaml", "probe_secrets.yaml"} {
		data, err := os.ReadFile("../config/rbac/" + file)
		if err != nil {
			e.t.Fatal(err)
		}
		e.apply(string(bytes.ReplaceAll(data, []byte("namespace: system"), []byte("namespace: "+operatorNamespace))))
	}
	e.apply(managerBindings)
	if err := e.cp.WriteKubeconfig(e.managerKubeconfig(), "manager"); err != nil {
		e.t.Fatal(err)
	}
}

const managerBindings = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: manager}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: manager}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: fingerpost-manager}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: manager, namespace: ` + operatorNamespace + `}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: manager}]
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: fingerpost-manager}
`

func (e *estate) managerKubeconfig() string { return e.cp.Kubeconfig() + ".manager" }

func (e *estate) create(o client.Object) {
	e.t.Helper()
	if err := e.api.Create(e.t.Context(), o); err != nil {
		e.t.Fatal(err)
	}
}

// apply is kubectl apply --server-side of YAML documents.
func (e *estate) apply(docs string) {
	e.t.Helper()
	if err := e.tryApply(docs); err != nil {
		e.t.Fatal(err)
	}
}

func (e *estate) tryApply(docs string) error {
	for doc := range strings.SplitSeq(docs, "\n---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			return err
		}
		if len(object) == 0 {
			continue
		}
		u := unstructuredOf(object)
		if err := e.api.Apply(e.t.Context(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("test"), client.ForceOwnership); err != nil {
			return fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	return nil
}

func (e *estate) signal() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *estate) watch(list client.ObjectList) {
	e.t.Helper()
	w, err := e.api.Watch(e.t.Context(), list)
	if err != nil {
		e.t.Fatal(err)
	}
	go func() {
		for range w.ResultChan() {
			e.signal()
		}
	}()
}

// await looks at the estate whenever something in it changed, until check finds nothing wrong.
func (e *estate) await(check func() error) {
	e.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		e.mu.Lock()
		changed := e.changed
		e.mu.Unlock()
		err := check()
		if err == nil {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			e.t.Fatalf("after a minute: %v", err)
		}
	}
}

// manager is one manager process, less the process.
type manager struct {
	stop func()
}

// startManager starts the n-th manager, 0 or 1; it leads if no other does.
func (e *estate) startManager(n int) *manager {
	e.t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", e.managerKubeconfig())
	if err != nil {
		e.t.Fatal(err)
	}
	cfg.QPS = -1
	skip, often := true, 100*time.Millisecond
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: e.api.Scheme(), Logger: testr.NewWithOptions(e.t, testr.Options{Verbosity: -1}),
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		LeaderElection: true, LeaderElectionID: "fingerpost-manager", LeaderElectionNamespace: operatorNamespace,
		LeaderElectionReleaseOnCancel: true, RetryPeriod: &often,
		Controller: config.Controller{SkipNameValidation: &skip},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = controllers.Setup(ctx, mgr, controllers.Options{
		Namespace: operatorNamespace, ApexNamespaces: []string{"dns-root"}, HubAddress: e.hub[n], StatusWrites: cmp.Or(e.statusWrites, 50), CookieRotation: e.cookieRotation, AddressPort: e.dnsPort,
		Certificates:   controllers.CertificateOptions{Namespace: operatorNamespace, Policy: cmp.Or(e.certificates, pki.DefaultPolicy())},
		DNSServerImage: "fingerpost/dnsserver:test", HubEndpoints: e.hub, ResolverImages: resolverImages("test"),
	})
	if err != nil {
		cancel()
		e.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	m := &manager{stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			e.t.Errorf("manager %d: %v", n, err)
		}
	})}
	e.t.Cleanup(m.stop)
	return m
}

// server is one dnsserver, less its sockets.
type server struct {
	id      control.ServerID
	view    *zone.View
	dir     string
	replica *dnsserver.Replica
	client  *control.Client
	stop    func()
}

// startServer starts a server, whose state lies in the folder, when its certificate exists.
func (e *estate) startServer(id control.ServerID, dir string) *server {
	e.t.Helper()
	secret := e.awaitSecret("fingerpost-server." + id.Datacenter + "." + id.Group)
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		e.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(secret.Data["ca.crt"])
	s := &server{id: id, dir: dir, view: &zone.View{}}
	if s.replica, err = dnsserver.OpenReplica(dir, s.view, testr.New(e.t)); err != nil {
		e.t.Fatal(err)
	}
	replica := control.Replica(s.replica)
	if e.replicas != nil {
		replica = e.replicas(s.replica)
	}
	s.client, err = control.NewClient(control.ClientOptions{
		Hubs: e.hub, Name: id.Name, SoftwareVersion: "test", Replica: replica, Log: testr.New(e.t).V(1),
		Credentials: control.Credentials{
			Certificate: func() (*tls.Certificate, error) { return &pair, nil },
			Roots:       func() (*x509.CertPool, error) { return roots, nil },
		},
		OnState: func(control.State) { e.signal() },
	})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.client.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			e.t.Errorf("server %s: %v", id, err)
		}
		if err := s.replica.Close(); err != nil {
			e.t.Errorf("server %s: closing: %v", id, err)
		}
		e.mu.Lock()
		delete(e.servers, id)
		e.mu.Unlock()
	})
	e.t.Cleanup(s.stop)
	e.mu.Lock()
	e.servers[id] = s
	e.mu.Unlock()
	return s
}

func (e *estate) awaitSecret(name string) *corev1.Secret {
	e.t.Helper()
	w, err := e.api.Watch(e.t.Context(), &corev1.SecretList{}, client.InNamespace(operatorNamespace))
	if err != nil {
		e.t.Fatal(err)
	}
	defer w.Stop()
	deadline := time.After(time.Minute)
	for {
		select {
		case event := <-w.ResultChan():
			if s, ok := event.Object.(*corev1.Secret); ok && s.Name == name {
				return s
			}
		case <-deadline:
			e.t.Fatalf("Secret %s did not appear within a minute", name)
		}
	}
}

// startServers starts two servers of every group in both datacenters of the test estates.
func (e *estate) startServers() []*server {
	e.t.Helper()
	var all []*server
	for _, dc := range []string{"dc-a", "dc-b"} {
		for _, group := range []string{"root", "authoritative"} {
			for _, name := range []string{"1", "2"} {
				all = append(all, e.startServer(control.ServerID{Datacenter: dc, Group: group, Name: name}, e.t.TempDir()))
			}
		}
	}
	return all
}

// ask asks a server and returns rcode and answer, one record a line.
func (s *server) ask(name string, typ uint16) string {
	q := new(dns.Msg)
	q.SetQuestion(name, typ)
	wire, err := q.Pack()
	if err != nil {
		return err.Error()
	}
	var reply dns.Msg
	if err := reply.Unpack(s.view.Answer(new(zone.Scratch), make([]byte, zone.MaxUDP), wire, netip.MustParseAddr("127.0.0.1"), zone.UDP)); err != nil {
		return err.Error()
	}
	text := dns.RcodeToString[reply.Rcode]
	for _, rr := range reply.Answer {
		text += "\n" + strings.Join(strings.Fields(rr.String()), " ")
	}
	return text
}

// zone reads a DNSZone.
func (e *estate) zone(namespace, name string) *v1alpha1.DNSZone {
	e.t.Helper()
	var z v1alpha1.DNSZone
	if err := e.api.Get(e.t.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &z); err != nil {
		e.t.Fatal(err)
	}
	return &z
}

// awaitReady waits until a zone is ready in its present generation.
func (e *estate) awaitReady(namespace, name string) *v1alpha1.DNSZone {
	e.t.Helper()
	return e.awaitCondition(namespace, name, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
}

func (e *estate) awaitCondition(namespace, name, typ string, status metav1.ConditionStatus, reason string) *v1alpha1.DNSZone {
	e.t.Helper()
	var z *v1alpha1.DNSZone
	e.await(func() error {
		z = e.zone(namespace, name)
		c := meta.FindStatusCondition(z.Status.Conditions, typ)
		if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != z.Generation {
			return fmt.Errorf("DNSZone %s/%s generation %d: condition %s is %+v", namespace, name, z.Generation, typ, c)
		}
		return nil
	})
	return z
}

// awaitAnswer waits until all of the servers give the answer.
func (e *estate) awaitAnswer(servers []*server, name string, typ uint16, want string) {
	e.t.Helper()
	e.await(func() error {
		for _, s := range servers {
			if got := s.ask(name, typ); got != want {
				return fmt.Errorf("%s answers %s %s with %q, want %q", s.id, name, dns.TypeToString[typ], got, want)
			}
		}
		return nil
	})
}

func ofGroup(servers []*server, group string) []*server {
	var some []*server
	for _, s := range servers {
		if s.id.Group == group {
			some = append(some, s)
		}
	}
	return some
}
