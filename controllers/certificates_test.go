package controllers_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers"
	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

const day = 24 * time.Hour

// operator is one manager's reconcilers in a namespace of its own, with a clock that stands still.
type operator struct {
	api       client.WithWatch // as the manager sees it: counts what it writes
	admin     client.WithWatch
	namespace string
	now       time.Time
	writes    atomic.Int32
	changed   atomic.Int32 // calls of AuthorityChanged
	events    *events.FakeRecorder
	hub       *controllers.HubCertificateReconciler
	servers   *controllers.CertificateReconciler
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	return newManager(apiServer(t), newNamespace(t))
}

// newManager is another manager in the namespace.
func newManager(api client.WithWatch, namespace string) *operator {
	o := &operator{admin: api, namespace: namespace, now: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), events: events.NewFakeRecorder(100)}
	o.use(interceptor.NewClient(api, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			o.writes.Add(1)
			return c.Create(ctx, obj, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			o.writes.Add(1)
			return c.Update(ctx, obj, opts...)
		},
	}))
	return o
}

// use makes the reconcilers work through c.
func (o *operator) use(c client.WithWatch) {
	o.api = c
	issuer := controllers.CertificateIssuer{
		Secrets: c, Writer: c, Events: o.events, Namespace: o.namespace,
		Policy: pki.DefaultPolicy(), Now: func() time.Time { return o.now },
	}
	o.hub = &controllers.HubCertificateReconciler{
		CertificateIssuer: issuer,
		Source:            controllers.NewHubCertificateSource(c, o.namespace),
		AuthorityChanged:  func() { o.changed.Add(1) },
	}
	o.servers = &controllers.CertificateReconciler{CertificateIssuer: issuer, Scheme: c.Scheme(), Pools: c}
}

// datacenter makes a Datacenter with groups. Its name is unique: Datacenters are in no namespace.
func (o *operator) datacenter(t *testing.T, groups ...string) *v1alpha1.Datacenter {
	t.Helper()
	dc := &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{GenerateName: "dc-"}}
	for _, g := range groups {
		dc.Spec.ServerGroups = append(dc.Spec.ServerGroups, v1alpha1.ServerGroup{Name: g, Management: v1alpha1.ServerGroupManaged})
	}
	if err := o.admin.Create(t.Context(), dc); err != nil {
		t.Fatal(err)
	}
	return dc
}

func (o *operator) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	s := &corev1.Secret{}
	if err := o.admin.Get(t.Context(), types.NamespacedName{Namespace: o.namespace, Name: name}, s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (o *operator) serverSecret(t *testing.T, dc *v1alpha1.Datacenter, group string) *corev1.Secret {
	t.Helper()
	return o.secret(t, controllers.ServerSecret(control.GroupKey{Datacenter: dc.Name, Group: group}))
}

// edit changes a Secret as a person with kubectl does.
func (o *operator) edit(t *testing.T, name string, change func(*corev1.Secret)) {
	t.Helper()
	s := o.secret(t, name)
	change(s)
	if err := o.admin.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func (o *operator) remove(t *testing.T, name string) {
	t.Helper()
	if err := o.admin.Delete(t.Context(), o.secret(t, name)); err != nil {
		t.Fatal(err)
	}
}

// reconcileHub returns after which time the reconciler wants to be called again.
func (o *operator) reconcileHub(t *testing.T) time.Duration {
	t.Helper()
	result, err := o.hub.Reconcile(t.Context(), reconcile.Request{})
	if err != nil {
		t.Fatal(err)
	}
	return result.RequeueAfter
}

func (o *operator) reconcileServers(t *testing.T, dc *v1alpha1.Datacenter) time.Duration {
	t.Helper()
	result, err := o.servers.Reconcile(t.Context(), dc)
	if err != nil {
		t.Fatal(err)
	}
	return result.RequeueAfter
}

// takeEvents returns the Events since the last call, in order.
func (o *operator) takeEvents() []string {
	var all []string
	for {
		select {
		case e := <-o.events.Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// expectEvents fails t unless each of the Events since the last call has the text at its place in want.
func (o *operator) expectEvents(t *testing.T, want ...string) {
	t.Helper()
	got := o.takeEvents()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = strings.Contains(got[i], want[i])
	}
	if !ok {
		t.Errorf("events:\n%s\nwanted ones with:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, e := range got {
		if strings.Contains(e, "PRIVATE KEY--") {
			t.Errorf("an Event quotes a key: %s", e)
		}
	}
}

func leaf(t *testing.T, s *corev1.Secret) *x509.Certificate {
	t.Helper()
	certs, err := pki.ParseCertificates(s.Data[pki.CertificateKey])
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func trusted(t *testing.T, s *corev1.Secret) []*x509.Certificate {
	t.Helper()
	certs, err := pki.ParseCertificates(s.Data[pki.BundleKey])
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

func TestSecretsAreMadeOnceAndThenLeftAlone(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root", "authoritative")
	if got := o.reconcileHub(t); got != 10*time.Minute {
		t.Errorf("hub: next check after %s", got)
	}
	if got := o.reconcileServers(t, dc); got != 10*time.Minute {
		t.Errorf("servers: next check after %s", got)
	}
	if got := o.writes.Load(); got != 4 {
		t.Errorf("%d writes, wanted 4", got)
	}
	if got := o.changed.Load(); got != 1 {
		t.Errorf("Datacenters were told %d times that there is a CA", got)
	}
	o.expectEvents(t, "Normal CACreated made a CA", "Normal CertificateIssued", "Normal CertificateIssued", "Normal CertificateIssued")
	if err := o.hub.Source.Check(nil); err != nil {
		t.Errorf("the hub does not have its certificate yet: %v", err)
	}

	s := o.serverSecret(t, dc, "root")
	if s.Type != corev1.SecretTypeTLS || len(s.Data) != 3 {
		t.Errorf("type %s, %d keys", s.Type, len(s.Data))
	}
	if want := "fingerpost-server." + dc.Name + ".root"; s.Name != want {
		t.Errorf("name %s, wanted %s", s.Name, want)
	}
	if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != dc.UID || s.OwnerReferences[0].Kind != "Datacenter" {
		t.Errorf("owners %v: the Secret would not go with its Datacenter", s.OwnerReferences)
	}
	if got := fmt.Sprint(leaf(t, s).URIs); got != "[fingerpost://datacenter/"+dc.Name+"/group/root]" {
		t.Errorf("identity %s", got)
	}
	if !bytes.Equal(s.Data[pki.BundleKey], o.secret(t, controllers.AuthoritySecret).Data[pki.BundleKey]) {
		t.Error("the servers don't trust what the CA's Secret says")
	}

	o.writes.Store(0)
	for _, after := range []time.Duration{0, 10 * time.Minute, 50 * day} {
		o.now = o.now.Add(after)
		o.reconcileHub(t)
		o.reconcileServers(t, dc)
	}
	if got := o.writes.Load(); got != 0 {
		t.Errorf("%d writes although nothing was due", got)
	}
	o.expectEvents(t)
}

func TestLeavesAreRenewedWhenDue(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	o.takeEvents()
	hub, server := o.secret(t, controllers.HubSecret), o.serverSecret(t, dc, "root")
	due := o.now.Add(90 * day * 66 / 100)

	o.now = due.Add(-3 * time.Minute)
	if a, b := o.reconcileHub(t), o.reconcileServers(t, dc); a != 3*time.Minute || b != 3*time.Minute {
		t.Errorf("due in 3 minutes, but called again after %s and %s", a, b)
	}
	if o.secret(t, controllers.HubSecret).ResourceVersion != hub.ResourceVersion {
		t.Error("the hub's certificate was renewed early")
	}
	o.now = due
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	o.expectEvents(t, "CertificateIssued issued the certificate in Secret fingerpost-hub, because the one before was due", "CertificateIssued")
	for _, pair := range [][2]*corev1.Secret{{hub, o.secret(t, controllers.HubSecret)}, {server, o.serverSecret(t, dc, "root")}} {
		before, after := leaf(t, pair[0]), leaf(t, pair[1])
		if !after.NotAfter.Equal(o.now.Add(90*day)) || bytes.Equal(pair[0].Data[pki.PrivateKeyKey], pair[1].Data[pki.PrivateKeyKey]) {
			t.Errorf("%s: valid until %s, before until %s", pair[0].Name, after.NotAfter, before.NotAfter)
		}
	}
	shown, err := o.hub.Source.Credentials().Certificate()
	if err != nil || !shown.Leaf.Equal(leaf(t, o.secret(t, controllers.HubSecret))) {
		t.Errorf("the hub does not show its new certificate at once (%v)", err)
	}
}

func TestGroupsOfAChangedDatacenterGetTheirSecret(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	before := o.serverSecret(t, dc, "root")
	dc.Spec.ServerGroups = append(dc.Spec.ServerGroups, v1alpha1.ServerGroup{Name: "authoritative", Management: v1alpha1.ServerGroupManaged})
	o.reconcileServers(t, dc)
	if got := fmt.Sprint(leaf(t, o.serverSecret(t, dc, "authoritative")).URIs); !strings.HasSuffix(got, "/group/authoritative]") {
		t.Errorf("identity %s", got)
	}
	if o.serverSecret(t, dc, "root").ResourceVersion != before.ResourceVersion {
		t.Error("the neighbour's Secret was written")
	}
}

// TestAPoolThatGoesWhileNobodyLeadsTakesItsSecret: the next leader has not seen it.
func TestAPoolThatGoesWhileNobodyLeadsTakesItsSecret(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	var pools []*v1alpha1.ResolverPool
	for _, name := range []string{"goes", "stays"} {
		p := &v1alpha1.ResolverPool{ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: name}, Spec: v1alpha1.ResolverPoolSpec{
			Class: "office", Datacenters: v1alpha1.DatacenterSelection{Names: []v1alpha1.DatacenterName{v1alpha1.DatacenterName(dc.Name)}},
			Members:        []v1alpha1.ResolverMember{{Engine: v1alpha1.EngineUnbound}},
			ClientNetworks: []v1alpha1.CIDR{"10.0.0.0/8"},
		}}
		if err := o.admin.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		pools = append(pools, p)
	}
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	goes, stays := pool.GroupName(o.namespace, "goes"), pool.GroupName(o.namespace, "stays")
	o.serverSecret(t, dc, goes)
	if err := o.admin.Delete(t.Context(), pools[0]); err != nil {
		t.Fatal(err)
	}
	next := newManager(o.admin, o.namespace)
	next.reconcileServers(t, dc)
	name := types.NamespacedName{Namespace: o.namespace, Name: controllers.ServerSecret(control.GroupKey{Datacenter: dc.Name, Group: goes})}
	if err := o.admin.Get(t.Context(), name, &corev1.Secret{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Secret of a pool that is gone: %v", err)
	}
	o.serverSecret(t, dc, stays)
	o.serverSecret(t, dc, "root")
	var noted corev1.ConfigMap
	if err := o.admin.Get(t.Context(), types.NamespacedName{Namespace: o.namespace, Name: "fingerpost-pool-secrets"}, &noted); err != nil || len(noted.Data) != 1 {
		t.Errorf("noted are %v (%v)", noted.Data, err)
	}
}

func TestOtherHubNamesAskForAnotherCertificate(t *testing.T) {
	o := newOperator(t)
	o.reconcileHub(t)
	name, err := pki.ParseHubName("hub.example.net")
	if err != nil {
		t.Fatal(err)
	}
	o.hub.HubNames = []pki.HubName{name}
	o.reconcileHub(t)
	if err := leaf(t, o.secret(t, controllers.HubSecret)).VerifyHostname("hub.example.net"); err != nil {
		t.Error(err)
	}
}

// TestTwoManagersThatStartAtOnceMakeOneCA lets two managers see that there is nothing before either writes.
func TestTwoManagersThatStartAtOnceMakeOneCA(t *testing.T) {
	first := newOperator(t)
	second := newManager(first.admin, first.namespace)
	var looking sync.WaitGroup
	looking.Add(2)
	for _, o := range []*operator{first, second} {
		var once sync.Once
		o.use(interceptor.NewClient(o.api, interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
				once.Do(func() {
					looking.Done()
					looking.Wait()
				})
				return c.Create(ctx, obj, opts...)
			},
		}))
	}
	var after [2]reconcile.Result
	var errs [2]error
	var done sync.WaitGroup
	for i, o := range []*operator{first, second} {
		done.Go(func() { after[i], errs[i] = o.hub.Reconcile(t.Context(), reconcile.Request{}) })
	}
	done.Wait()
	if errs[0] != nil || errs[1] != nil {
		t.Fatalf("%v, %v", errs[0], errs[1])
	}
	if shorter := min(after[0].RequeueAfter, after[1].RequeueAfter); shorter > time.Second {
		t.Errorf("the loser looks again only after %s", shorter)
	}
	made := joined(first.takeEvents(), second.takeEvents())
	if got := strings.Count(made, "CACreated"); got != 1 {
		t.Errorf("%d CAs were made:\n%s", got, made)
	}
	authority := first.secret(t, controllers.AuthoritySecret).ResourceVersion
	for _, o := range []*operator{first, second} {
		o.reconcileHub(t)
		roots, err := o.hub.Source.Credentials().Roots()
		if err != nil {
			t.Fatal(err)
		}
		shown, err := o.hub.Source.Credentials().Certificate()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := shown.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: o.now}); err != nil {
			t.Errorf("the hub's certificate is of another CA: %v", err)
		}
	}
	if first.secret(t, controllers.AuthoritySecret).ResourceVersion != authority {
		t.Error("the CA changed after the race")
	}
}

func joined(parts ...[]string) string { return strings.Join(slices.Concat(parts...), "\n") }

// TestWhatAnotherManagerHasWrittenInBetweenStays lets somebody write the hub's Secret between the moments when it is read and written.
func TestWhatAnotherManagerHasWrittenInBetweenStays(t *testing.T) {
	o := newOperator(t)
	o.reconcileHub(t)
	o.now = o.now.Add(60 * day)
	plain := o.api
	var once sync.Once
	o.use(interceptor.NewClient(plain, interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.UpdateOption) error {
			once.Do(func() { o.edit(t, controllers.HubSecret, func(s *corev1.Secret) { s.Labels["theirs"] = "stays" }) })
			return c.Update(ctx, obj, opts...)
		},
	}))
	if got := o.reconcileHub(t); got != time.Second {
		t.Errorf("after a lost race the Secret is read again after %s", got)
	}
	if !leaf(t, o.secret(t, controllers.HubSecret)).NotAfter.Before(o.now.Add(31 * day)) {
		t.Error("the other's write was overwritten")
	}
	o.reconcileHub(t)
	s := o.secret(t, controllers.HubSecret)
	if s.Labels["theirs"] != "stays" || !leaf(t, s).NotAfter.Equal(o.now.Add(90*day)) {
		t.Errorf("labels %v, valid until %s", s.Labels, leaf(t, s).NotAfter)
	}
}

func TestADamagedCAIsNotReplaced(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	o.takeEvents()
	good := o.secret(t, controllers.AuthoritySecret)
	o.edit(t, controllers.AuthoritySecret, func(s *corev1.Secret) { s.Data[pki.PrivateKeyKey] = []byte("oops") })
	damaged := o.secret(t, controllers.AuthoritySecret)
	o.writes.Store(0)
	o.now = o.now.Add(89 * day) // everything is due
	if a, b := o.reconcileHub(t), o.reconcileServers(t, dc); a != 10*time.Minute || b != 10*time.Minute {
		t.Errorf("looks again after %s and %s", a, b)
	}
	if got := o.writes.Load(); got != 0 {
		t.Errorf("%d writes", got)
	}
	if got := o.secret(t, controllers.AuthoritySecret); got.ResourceVersion != damaged.ResourceVersion {
		t.Error("the CA's Secret was written")
	}
	const want = "Warning DamagedSecret secret %s/fingerpost-ca is damaged and left as it is: tls.crt and tls.key: private key: "
	o.expectEvents(t, fmt.Sprintf(want, o.namespace), fmt.Sprintf(want, o.namespace))
	if err := o.hub.Source.Check(nil); err != nil {
		t.Errorf("the hub lost its certificate: %v", err)
	}

	o.edit(t, controllers.AuthoritySecret, func(s *corev1.Secret) { s.Data = good.Data })
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	o.expectEvents(t, "CertificateIssued", "CertificateIssued")
}

func TestADeletedCAIsSucceededAndWhatItHasSignedStays(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	o.takeEvents()
	old := leaf(t, o.secret(t, controllers.AuthoritySecret))
	hub, server := o.secret(t, controllers.HubSecret), o.serverSecret(t, dc, "root")
	o.remove(t, controllers.AuthoritySecret)
	o.reconcileServers(t, dc)
	o.expectEvents(t)
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	o.expectEvents(t, "CACreated the Secret was gone", "CertificateUpdated", "CertificateUpdated")
	if leaf(t, o.secret(t, controllers.AuthoritySecret)).Equal(old) {
		t.Error("there is no new CA")
	}
	for _, before := range []*corev1.Secret{hub, server} {
		after := o.secret(t, before.Name)
		if !leaf(t, after).Equal(leaf(t, before)) {
			t.Errorf("%s: a certificate that is valid was replaced by one that nobody out there trusts yet", before.Name)
		}
		if cas := trusted(t, after); len(cas) != 2 || !cas[1].Equal(old) {
			t.Errorf("%s trusts %d CAs, wanted the new one and the old one", before.Name, len(cas))
		}
	}
}

func TestADeletedCAIsNotSucceededIfItsBundleIsLost(t *testing.T) {
	o := newOperator(t)
	o.reconcileHub(t)
	o.takeEvents()
	o.remove(t, controllers.AuthoritySecret)
	o.edit(t, controllers.HubSecret, func(s *corev1.Secret) { s.Data[pki.BundleKey] = []byte("oops") })
	o.writes.Store(0)
	o.reconcileHub(t)
	o.expectEvents(t, "Warning DamagedSecret secret "+o.namespace+"/fingerpost-hub is damaged and left as it is: ca.crt: no certificate in PEM form; and Secret fingerpost-ca")
	if got := o.writes.Load(); got != 0 {
		t.Errorf("%d writes", got)
	}
	o.remove(t, controllers.HubSecret)
	o.reconcileHub(t)
	o.expectEvents(t, "CACreated made a CA", "CertificateIssued")
}

func TestACAFromElsewhereIsUsed(t *testing.T) {
	o := newOperator(t)
	ca, err := pki.NewAuthority(nil, o.now, pki.DefaultPolicy())
	if err != nil {
		t.Fatal(err)
	}
	data := ca.Data()
	delete(data, pki.BundleKey) // as of `kubectl create secret tls`
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: controllers.AuthoritySecret},
		Type:       corev1.SecretTypeTLS, Data: data,
	}
	if err := o.admin.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	o.reconcileHub(t)
	o.expectEvents(t, "CAUpdated", "CertificateIssued")
	if cas := trusted(t, o.secret(t, controllers.HubSecret)); len(cas) != 1 || !cas[0].Equal(ca.Signing()) {
		t.Error("the hub trusts another CA")
	}
}

func TestADamagedLeafIsIssuedAgainAndForeignKeysStay(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	o.takeEvents()
	name := o.serverSecret(t, dc, "root").Name
	o.edit(t, name, func(s *corev1.Secret) {
		s.Data[pki.PrivateKeyKey] = []byte("oops")
		s.Data["theirs"] = []byte("stays")
		s.Labels, s.OwnerReferences = map[string]string{"theirs": "stays"}, nil
	})
	o.reconcileServers(t, dc)
	o.expectEvents(t, "CertificateIssued issued the certificate in Secret "+name+", because the one before could not be used")
	s := o.secret(t, name)
	if _, err := pki.ParseLeaf(s.Data, controllers.ServerProfile(control.GroupKey{Datacenter: dc.Name, Group: "root"}), o.now); err != nil {
		t.Error(err)
	}
	if string(s.Data["theirs"]) != "stays" || s.Labels["theirs"] != "stays" || len(s.Labels) != 4 || len(s.OwnerReferences) != 1 {
		t.Errorf("labels %v, owners %v", s.Labels, s.OwnerReferences)
	}
	o.edit(t, name, func(s *corev1.Secret) { s.Data[pki.BundleKey] = nil })
	o.reconcileServers(t, dc)
	o.expectEvents(t, "CertificateUpdated")
	if !leaf(t, o.secret(t, name)).Equal(leaf(t, s)) || len(trusted(t, o.secret(t, name))) != 1 {
		t.Error("a lost bundle replaced the certificate")
	}
	o.remove(t, name)
	o.reconcileServers(t, dc)
	o.expectEvents(t, "because there was none")
}

func TestASecretThatCannotChangeIsAPersonsBusiness(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "authoritative", "root")
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	o.takeEvents()
	frozen := o.serverSecret(t, dc, "authoritative").Name
	o.edit(t, frozen, func(s *corev1.Secret) { yes := true; s.Immutable = &yes })
	o.reconcileServers(t, dc)
	o.expectEvents(t)
	o.now = o.now.Add(60 * day)
	o.reconcileServers(t, dc)
	o.expectEvents(t, "Warning DamagedSecret secret "+o.namespace+"/"+frozen+" is damaged and left as it is: it must change, but is marked immutable",
		"Normal CertificateIssued") // the neighbour's
}

func TestEverybodyTrustsTheNextCABeforeItSigns(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	o.reconcileHub(t)
	old := leaf(t, o.secret(t, controllers.AuthoritySecret))
	o.now = o.now.Add((3650 - 3*90) * day)
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	if got := o.changed.Load(); got != 2 {
		t.Errorf("Datacenters were told %d times of the CA, wanted twice", got)
	}
	if !strings.Contains(joined(o.takeEvents()), "CASucceeded announced the next CA") {
		t.Error("no Event tells of the next CA")
	}
	next := trusted(t, o.secret(t, controllers.AuthoritySecret))[1]
	for _, s := range []*corev1.Secret{o.secret(t, controllers.HubSecret), o.serverSecret(t, dc, "root")} {
		if cas := trusted(t, s); len(cas) != 2 || leaf(t, s).CheckSignatureFrom(old) != nil {
			t.Errorf("%s: trusts %d CAs; signed by the old one: %v", s.Name, len(cas), leaf(t, s).CheckSignatureFrom(old))
		}
	}
	o.now = o.now.Add(90 * day)
	o.reconcileHub(t)
	o.reconcileServers(t, dc)
	if got := leaf(t, o.secret(t, controllers.AuthoritySecret)); !got.Equal(next) {
		t.Error("the next CA does not sign")
	}
	if got := slices.Collect(maps.Keys(o.secret(t, controllers.AuthoritySecret).Data)); len(got) != 3 {
		t.Errorf("keys %v: the old CA's key should be gone", got)
	}
	for _, s := range []*corev1.Secret{o.secret(t, controllers.HubSecret), o.serverSecret(t, dc, "root")} {
		if cas := trusted(t, s); len(cas) != 2 || leaf(t, s).CheckSignatureFrom(next) != nil {
			t.Errorf("%s: trusts %d CAs; signed by the next one: %v", s.Name, len(cas), leaf(t, s).CheckSignatureFrom(next))
		}
	}
}

func TestADatacenterWaitsForTheCA(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	if got := o.reconcileServers(t, dc); got != 10*time.Minute {
		t.Errorf("looks again after %s: it will be told", got)
	}
	if got := o.writes.Load(); got != 0 {
		t.Errorf("%d writes", got)
	}
	o.expectEvents(t)
}

func TestADatacenterThatIsBeingDeletedGetsNoSecrets(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	o.reconcileHub(t)
	now := metav1.NewTime(o.now)
	dc.DeletionTimestamp = &now
	o.writes.Store(0)
	o.reconcileServers(t, dc)
	if got := o.writes.Load(); got != 0 {
		t.Errorf("%d writes", got)
	}
}

func TestAFollowerReadsTheHubsCertificateAndKeepsIt(t *testing.T) {
	o := newOperator(t)
	follower := controllers.NewHubCertificateSource(o.admin, o.namespace)
	read := func() time.Duration {
		t.Helper()
		result, err := follower.Reconcile(t.Context(), reconcile.Request{})
		if err != nil {
			t.Fatal(err)
		}
		return result.RequeueAfter
	}
	if got := read(); got != time.Second || follower.Check(nil) == nil {
		t.Errorf("before there is a certificate: looks again after %s, healthy: %v", got, follower.Check(nil))
	}
	if _, err := follower.Credentials().Certificate(); err == nil {
		t.Error("there is no certificate, and no error")
	}
	if _, err := follower.Credentials().Roots(); err == nil {
		t.Error("nobody is trusted, and there is no error")
	}
	o.reconcileHub(t)
	if got := read(); got != 30*time.Second || follower.Check(nil) != nil {
		t.Errorf("looks again after %s, healthy: %v", got, follower.Check(nil))
	}
	shown := func() *x509.Certificate {
		t.Helper()
		c, err := follower.Credentials().Certificate()
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	first := leaf(t, o.secret(t, controllers.HubSecret))
	o.edit(t, controllers.HubSecret, func(s *corev1.Secret) { s.Data[pki.CertificateKey] = []byte("oops") })
	if read(); !shown().Equal(first) {
		t.Error("a damaged Secret took the certificate away")
	}
	o.reconcileHub(t)
	if read(); !shown().Equal(leaf(t, o.secret(t, controllers.HubSecret))) || shown().Equal(first) {
		t.Error("the certificate that the leader has made is not shown")
	}
	last := shown()
	o.remove(t, controllers.HubSecret)
	if got := read(); got != 30*time.Second || !shown().Equal(last) {
		t.Errorf("a deleted Secret took the certificate away, or it is looked for again only after %s", got)
	}
}

// TestAManagerNeedsNoMoreRightsThanDeclared runs a manager as a user with the rights of config/rbac.
func TestAManagerNeedsNoMoreRightsThanDeclared(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root") // is there before the manager
	mgr := startManager(t, o)
	o.awaitSecret(t, controllers.ServerSecret(control.GroupKey{Datacenter: dc.Name, Group: "root"}))
	late := o.datacenter(t, "authoritative")
	o.awaitSecret(t, controllers.ServerSecret(control.GroupKey{Datacenter: late.Name, Group: "authoritative"}))
	if err := mgr.source.Check(nil); err != nil {
		t.Errorf("the hub has no certificate: %v", err)
	}
	o.awaitEvent(t, late.Name, "CertificateIssued")
	if err := mgr.client.List(t.Context(), &corev1.SecretList{}, client.InNamespace(o.namespace)); err == nil {
		t.Error("this user may list Secrets: the test tests nothing")
	}
}

// TestAManagerThatDoesNotLeadWritesNothing runs a manager while somebody else holds the lease.
func TestAManagerThatDoesNotLeadWritesNothing(t *testing.T) {
	o := newOperator(t)
	dc := o.datacenter(t, "root")
	o.reconcileHub(t)
	before := o.secret(t, controllers.HubSecret)
	o.edit(t, controllers.HubSecret, func(s *corev1.Secret) { delete(s.Labels, "app.kubernetes.io/managed-by") }) // a leader would put it back
	mgr := startManager(t, o, func(options *ctrl.Options) {
		options.LeaderElection = true
		options.LeaderElectionID = "manager"
		options.LeaderElectionNamespace = o.namespace
		options.LeaderElectionResourceLockInterface = heldLock{}
	})
	<-mgr.shown // in time, or the test times out
	certificate, err := mgr.source.Credentials().Certificate()
	if err != nil || !certificate.Leaf.Equal(leaf(t, before)) {
		t.Errorf("the follower does not show the hub's certificate (%v)", err)
	}
	select {
	case <-mgr.Elected():
		t.Fatal("it leads: the test tests nothing")
	default:
	}
	var made corev1.SecretList
	if err := o.admin.List(t.Context(), &made, client.InNamespace(o.namespace)); err != nil || len(made.Items) != 2 {
		t.Errorf("%d Secrets (%v), wanted CA and hub; Datacenter %s must wait for a leader", len(made.Items), err, dc.Name)
	}
	if len(o.secret(t, controllers.HubSecret).Labels) != 0 {
		t.Error("the follower has written the hub's Secret")
	}
}

// runningManager is a whole manager with the certificates' controllers, as another user than the administrator.
type runningManager struct {
	ctrl.Manager
	client client.Client // as that user
	source *controllers.HubCertificateSource
	shown  chan struct{} // closed when the hub has a certificate
}

// startManager runs a manager until the end of the test.
func startManager(t *testing.T, o *operator, change ...func(*ctrl.Options)) *runningManager {
	t.Helper()
	m := &runningManager{shown: make(chan struct{})}
	var once sync.Once
	logger := funcr.New(func(_, args string) {
		if strings.Contains(args, "The hub shows a new certificate") {
			once.Do(func() { close(m.shown) })
		}
	}, funcr.Options{})
	user := o.leastPrivilege(t)
	anew := true
	options := ctrl.Options{
		Scheme:     o.admin.Scheme(),
		Logger:     logger,
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &anew}, // this process runs several
	}
	for _, f := range change {
		f(&options)
	}
	var err error
	if m.Manager, err = ctrl.NewManager(user, options); err != nil {
		t.Fatal(err)
	}
	m.source, err = controllers.SetupCertificates(m.Manager, controllers.CertificateOptions{Namespace: o.namespace, Policy: pki.DefaultPolicy()})
	if err != nil {
		t.Fatal(err)
	}
	if m.client, err = client.New(user, client.Options{Scheme: o.admin.Scheme()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("manager: %v", err)
		}
	})
	return m
}

// leastPrivilege makes a user with the rights of config/rbac/role.yaml, which is made from the markers in this package.
func (o *operator) leastPrivilege(t *testing.T) *rest.Config {
	t.Helper()
	text, err := os.ReadFile("../config/rbac/role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	user := "manager-of-" + o.namespace
	everywhere := metav1.ObjectMeta{Name: user}
	here := metav1.ObjectMeta{Name: user, Namespace: o.namespace}
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user}}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for _, kind := range []string{"ClusterRole", "Role"} {
		var rules struct {
			Kind  string
			Rules []rbacv1.PolicyRule
		}
		if err := documents.Decode(&rules); err != nil || rules.Kind != kind {
			t.Fatalf("%s where a %s should be (%v)", rules.Kind, kind, err)
		}
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: user}
		objects := []client.Object{
			&rbacv1.ClusterRole{ObjectMeta: everywhere, Rules: rules.Rules},
			&rbacv1.ClusterRoleBinding{ObjectMeta: everywhere, Subjects: subjects, RoleRef: ref},
		}
		if kind == "Role" {
			objects = []client.Object{
				&rbacv1.Role{ObjectMeta: here, Rules: rules.Rules},
				&rbacv1.RoleBinding{ObjectMeta: here, Subjects: subjects, RoleRef: ref},
			}
		}
		for _, obj := range objects {
			if err := o.admin.Create(t.Context(), obj); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := t.TempDir() + "/kubeconfig"
	if err := cluster.plane.WriteKubeconfig(path, user); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// awaitSecret returns when the Secret is there.
func (o *operator) awaitSecret(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch, err := o.admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(o.namespace),
		client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", name)})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	select {
	case _, ok := <-watch.ResultChan():
		if !ok {
			t.Fatalf("the watch for Secret %s ended", name)
		}
	case <-ctx.Done():
		t.Fatalf("Secret %s did not appear", name)
	}
}

// awaitEvent returns when there is an Event with this reason about an object that is in no namespace.
func (o *operator) awaitEvent(t *testing.T, name, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch, err := o.admin.Watch(ctx, &eventsv1.EventList{}, client.InNamespace(metav1.NamespaceDefault))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	for e := range watch.ResultChan() {
		if event, ok := e.Object.(*eventsv1.Event); ok && event.Regarding.Name == name && event.Reason == reason {
			return
		}
	}
	t.Fatalf("no Event %s about %s", reason, name)
}

// heldLock is a lease that somebody else has.
type heldLock struct{ resourcelock.Interface }

func (heldLock) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	now := metav1.Now()
	return &resourcelock.LeaderElectionRecord{
		HolderIdentity: "somebody else", LeaseDurationSeconds: 3600, AcquireTime: now, RenewTime: now,
	}, []byte("held"), nil
}

func (heldLock) Identity() string { return "this manager" }
func (heldLock) Describe() string { return "a lease" }
