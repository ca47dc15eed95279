package controllers_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func unstructuredOf(object map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: object}
}

const twoDatacenters = `
apiVersion: v1
kind: Namespace
metadata: {name: dns-root}
---
apiVersion: v1
kind: Namespace
metadata: {name: payments}
---
apiVersion: v1
kind: Namespace
metadata: {name: tenant}
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-a}
spec:
  rank: 1
  serverGroups:
  - {name: root, management: External, addresses: [192.0.2.1, 192.0.2.2]}
  - {name: authoritative, management: External, addresses: [192.0.2.11, 192.0.2.12]}
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-b}
spec:
  rank: 2
  serverGroups:
  - {name: root, management: External, addresses: [198.51.100.1, 198.51.100.2]}
  - {name: authoritative, management: External, addresses: [198.51.100.11, 198.51.100.12]}
`

const rootZone = `
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: root, namespace: dns-root}
spec:
  name: "."
  serverGroup: root
  allowedChildren:
  - {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: payments}}}, names: [corp]}
`

// corpZone has so many hosts, each in a record of its own.
func corpZone(hosts int) string {
	var b strings.Builder
	b.WriteString(`
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: corp, namespace: payments}
spec:
  name: corp
  serverGroup: authoritative
  records:
  - {name: www, type: A, values: [10.0.0.1]}
`)
	for i := range hosts {
		fmt.Fprintf(&b, "  - {name: h%d, type: A, values: [10.0.1.%d]}\n", i, i%256)
	}
	return b.String()
}

func TestAnAppliedZoneIsAnsweredInBothDatacentersAndDelegated(t *testing.T) {
	e := newEstate(t, twoDatacenters)
	e.startManager(0)
	servers := e.startServers()
	e.apply(rootZone)
	e.apply(corpZone(0))
	z := e.awaitReady("payments", "corp")
	if z.Status.Programmed != "4/4" || z.Status.Parent != "dns-root/root" || len(z.Status.NameServers) != 2 {
		t.Errorf("status is %+v", z.Status)
	}
	e.awaitCondition("payments", "corp", v1alpha1.ConditionDelegated, metav1.ConditionTrue, v1alpha1.ReasonDelegated)
	authoritative, roots := ofGroup(servers, "authoritative"), ofGroup(servers, "root")
	e.awaitAnswer(authoritative, "www.corp.", dns.TypeA, "NOERROR\nwww.corp. 60 IN A 10.0.0.1")
	e.awaitAnswer(roots, ".", dns.TypeNS, "NOERROR\n. 86400 IN NS ns-dc-a.\n. 86400 IN NS ns-dc-b.")
	for _, s := range roots {
		if got := s.ask("www.corp.", dns.TypeA); got != "NOERROR" {
			t.Errorf("%s, which serves the parent alone, answers %q", s.id, got)
		}
	}

	before := e.zone("payments", "corp").Status.Published.Serial
	e.apply(strings.Replace(corpZone(0), "10.0.0.1", "10.0.0.2", 1))
	e.awaitAnswer(authoritative, "www.corp.", dns.TypeA, "NOERROR\nwww.corp. 60 IN A 10.0.0.2")
	z = e.awaitReady("payments", "corp")
	if z.Status.Published.Serial <= before {
		t.Errorf("serial %d follows %d", z.Status.Published.Serial, before)
	}
	for _, s := range authoritative {
		if got, want := s.ask("corp.", dns.TypeSOA), fmt.Sprintf(" %d 3600 ", z.Status.Published.Serial); !strings.Contains(got, want) {
			t.Errorf("%s answers SOA with %q, want serial %d", s.id, got, z.Status.Published.Serial)
		}
	}

	// A new address of a server group reaches the zone and the glue in its parent.
	e.apply(strings.Replace(twoDatacenters, "192.0.2.12", "192.0.2.13", 1))
	e.awaitAnswer(authoritative, "ns-dc-a.corp.", dns.TypeA, "NOERROR\nns-dc-a.corp. 86400 IN A 192.0.2.11\nns-dc-a.corp. 86400 IN A 192.0.2.13")
	e.await(func() error {
		for _, s := range roots {
			if node := s.view.Zone("\x00").Content().Node("\x07ns-dc-a\x04corp\x00"); node == nil || !strings.Contains(fmt.Sprint(slices.Collect(node.RRset(1).All())), string([]byte{192, 0, 2, 13})) {
				return fmt.Errorf("%s has glue %v", s.id, node)
			}
		}
		return nil
	})
}

func TestGrantsDecideWhatIsDelegatedAndServed(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone)
	e.startManager(0)
	servers := e.startServers()
	claim := strings.Replace(corpZone(0), "namespace: payments", "namespace: tenant", 1)
	e.apply(claim)
	z := e.awaitCondition("tenant", "corp", v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNotAllowedByParent)
	if z.Status.Published != nil {
		t.Error("a zone without a grant has a serial")
	}
	e.apply(corpZone(0))
	e.awaitReady("payments", "corp")
	e.awaitAnswer(ofGroup(servers, "authoritative"), "www.corp.", dns.TypeA, "NOERROR\nwww.corp. 60 IN A 10.0.0.1")

	// The parent takes the grant back: delegation and zone go, for its guard lets them.
	e.apply(strings.Replace(rootZone, "names: [corp]", "names: [other]", 1) + "  guard: {minDeletes: 100}\n")
	e.awaitCondition("payments", "corp", v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNotAllowedByParent)
	e.awaitAnswer(ofGroup(servers, "root"), "corp.", dns.TypeNS, "NXDOMAIN")
	e.awaitAnswer(ofGroup(servers, "authoritative"), "www.corp.", dns.TypeA, "REFUSED")
}

func TestOneWrongRecordStopsNoOther(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone)
	e.startManager(0)
	servers := e.startServers()
	var text strings.Builder
	for i := 1; i <= 900; i++ {
		if i == 812 {
			text.WriteString("h812 A not-an-address\n")
			continue
		}
		fmt.Fprintf(&text, "h%d A 10.0.%d.%d\n", i, i/256, i%256)
	}
	e.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "legacy"}, Data: map[string]string{"zone": text.String()}})
	e.apply(corpZone(0) + "  recordsFrom: [{configMapKeyRef: {name: legacy, key: zone}}]\n")
	e.awaitReady("payments", "corp")
	z := e.awaitCondition("payments", "corp", v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonFindings)
	if len(z.Status.Findings) != 1 || z.Status.Findings[0].Line != 812 || z.Status.Findings[0].Source != "configmap/legacy/zone" {
		t.Errorf("findings are %+v", z.Status.Findings)
	}
	e.awaitAnswer(ofGroup(servers, "authoritative"), "h900.corp.", dns.TypeA, "NOERROR\nh900.corp. 60 IN A 10.0.3.132")
	e.awaitAnswer(ofGroup(servers, "authoritative"), "h812.corp.", dns.TypeA, "NXDOMAIN")

	// The ConfigMap vanishes: what it gave stays, and the zone says so.
	if err := e.api.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "legacy"}}); err != nil {
		t.Fatal(err)
	}
	z = e.awaitCondition("payments", "corp", v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonSourceMissing)
	e.awaitAnswer(ofGroup(servers, "authoritative"), "h900.corp.", dns.TypeA, "NOERROR\nh900.corp. 60 IN A 10.0.3.132")
	serial := z.Status.Published.Serial

	// It comes back, mended: only the mended record is new.
	e.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "legacy"},
		Data: map[string]string{"zone": strings.Replace(text.String(), "not-an-address", "10.0.9.9", 1)}})
	e.awaitAnswer(ofGroup(servers, "authoritative"), "h812.corp.", dns.TypeA, "NOERROR\nh812.corp. 60 IN A 10.0.9.9")
	z = e.awaitCondition("payments", "corp", v1alpha1.ConditionDegraded, metav1.ConditionFalse, v1alpha1.ReasonHealthy)
	if z.Status.Published.Serial <= serial || len(z.Status.Findings) != 0 {
		t.Errorf("after mending: %+v", z.Status)
	}
}

func TestTheGuardHoldsBackMassRemovalsUntilApproved(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, corpZone(100))
	leader := e.startManager(0)
	servers := e.startServers()
	authoritative := ofGroup(servers, "authoritative")
	e.awaitReady("payments", "corp")
	e.awaitAnswer(authoritative, "h42.corp.", dns.TypeA, "NOERROR\nh42.corp. 60 IN A 10.0.1.42")

	edited := strings.Replace(corpZone(0), "www", "new", 1)
	e.apply(edited)
	z := e.awaitCondition("payments", "corp", v1alpha1.ConditionRemovalWithheld, metav1.ConditionTrue, v1alpha1.ReasonMassRemoval)
	e.awaitAnswer(authoritative, "new.corp.", dns.TypeA, "NOERROR\nnew.corp. 60 IN A 10.0.0.1")
	e.awaitAnswer(authoritative, "h42.corp.", dns.TypeA, "NOERROR\nh42.corp. 60 IN A 10.0.1.42")

	// A new leader, which remembers nothing, holds back the same.
	leader.stop()
	e.startManager(1)
	e.apply(edited + "  - {name: newer, type: A, values: [10.0.0.3]}\n")
	e.awaitAnswer(authoritative, "newer.corp.", dns.TypeA, "NOERROR\nnewer.corp. 60 IN A 10.0.0.3")
	e.awaitAnswer(authoritative, "h42.corp.", dns.TypeA, "NOERROR\nh42.corp. 60 IN A 10.0.1.42")
	again := e.awaitCondition("payments", "corp", v1alpha1.ConditionRemovalWithheld, metav1.ConditionTrue, v1alpha1.ReasonMassRemoval)

	message := meta.FindStatusCondition(z.Status.Conditions, v1alpha1.ConditionRemovalWithheld).Message
	_, digest, found := strings.Cut(message, v1alpha1.ApproveRemovalAnnotation+"=")
	if !found {
		t.Fatalf("the message tells no digest: %s", message)
	}
	if other := meta.FindStatusCondition(again.Status.Conditions, v1alpha1.ConditionRemovalWithheld).Message; !strings.HasSuffix(other, digest) {
		t.Errorf("an addition changed what has to be approved:\n%s\n%s", message, other)
	}
	e.annotate(again, digest)
	e.awaitAnswer(authoritative, "h42.corp.", dns.TypeA, "NXDOMAIN")
	e.awaitCondition("payments", "corp", v1alpha1.ConditionRemovalWithheld, metav1.ConditionFalse, v1alpha1.ReasonNothingWithheld)
	e.awaitReady("payments", "corp")
}

func TestADeletedZoneLeavesOnlyWhenItsParentLetsGo(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, corpZone(100))
	e.startManager(0)
	servers := e.startServers()
	authoritative, roots := ofGroup(servers, "authoritative"), ofGroup(servers, "root")
	e.awaitReady("payments", "corp")
	if err := e.api.Delete(t.Context(), e.zone("payments", "corp")); err != nil {
		t.Fatal(err)
	}
	z := e.awaitCondition("dns-root", "root", v1alpha1.ConditionRemovalWithheld, metav1.ConditionTrue, v1alpha1.ReasonMassRemoval)
	for _, s := range authoritative {
		if got := s.ask("h42.corp.", dns.TypeA); !strings.HasPrefix(got, "NOERROR\n") {
			t.Errorf("%s answers %q while the delegation stays", s.id, got)
		}
	}
	e.approve(z, z.Status.Conditions)
	e.awaitAnswer(roots, "corp.", dns.TypeNS, "NXDOMAIN")
	e.awaitAnswer(authoritative, "h42.corp.", dns.TypeA, "REFUSED")
}

func TestADeletedParentDoesNotTakeItsChildrenAlong(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, corpZone(0))
	leader := e.startManager(0)
	servers := e.startServers()
	authoritative := ofGroup(servers, "authoritative")
	e.awaitReady("payments", "corp")
	if err := e.api.Delete(t.Context(), e.zone("dns-root", "root")); err != nil {
		t.Fatal(err)
	}
	e.awaitAnswer(ofGroup(servers, "root"), ".", dns.TypeSOA, "REFUSED")
	e.awaitCondition("payments", "corp", v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNotAllowedAsApex)
	leader.stop()
	e.startManager(1)
	e.apply(rootZone) // with a new leader and its parent back, it is as before
	e.awaitReady("payments", "corp")
	for _, s := range authoritative {
		if n := s.client.State().Removed; n != 0 {
			t.Errorf("%s removed %d zones", s.id, n)
		}
	}
	e.awaitAnswer(authoritative, "www.corp.", dns.TypeA, "NOERROR\nwww.corp. 60 IN A 10.0.0.1")
}

func TestANewLeaderSendsAndWritesNothing(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, corpZone(3))
	leader := e.startManager(0)
	servers := e.startServers()
	e.awaitReady("dns-root", "root")
	e.awaitReady("payments", "corp")
	for _, name := range []string{"dc-a", "dc-b"} {
		e.awaitDatacenter(name, "4/4", "4/4")
	}
	versions := map[string]string{}
	for _, o := range e.statuses() {
		versions[o.GetName()] = o.GetResourceVersion()
	}
	installed := map[*server]uint64{}
	for _, s := range servers {
		installed[s] = s.client.State().Installed
	}
	e.startManager(1)
	leader.stop()
	epochs := map[*server]uint64{}
	for _, s := range servers {
		epochs[s] = 2
	}
	e.await(func() error {
		for _, s := range servers {
			if st := s.client.State(); st.Fence.Epoch < epochs[s] || !st.Synced {
				return fmt.Errorf("%s: %+v", s.id, st)
			}
		}
		return nil
	})
	// What comes after shows that the new leader has finished with what was before.
	e.apply(corpZone(4))
	e.awaitAnswer(ofGroup(servers, "authoritative"), "h3.corp.", dns.TypeA, "NOERROR\nh3.corp. 60 IN A 10.0.1.3")
	for _, s := range servers {
		want := installed[s]
		if s.id.Group == "authoritative" {
			want++
		}
		if got := s.client.State().Installed; got != want {
			t.Errorf("%s installed %d zones, want %d", s.id, got, want)
		}
	}
	for _, o := range e.statuses() {
		if o.GetName() != "corp" && o.GetResourceVersion() != versions[o.GetName()] {
			t.Errorf("%s was written by the new leader:\n%+v", o.GetName(), o)
		}
	}
}

func TestALeaderWithAnEmptiedAPITakesNothingAway(t *testing.T) {
	zones := ""
	for i := range 12 {
		zones += fmt.Sprintf(`
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: zone%d, namespace: dns-root}
spec: {name: zone%d, serverGroup: authoritative, records: [{name: www, type: A, values: [10.0.0.1]}]}
---`, i, i)
	}
	e := newEstate(t, twoDatacenters, zones)
	leader := e.startManager(0)
	servers := ofGroup(e.startServers(), "authoritative")
	for i := range 12 {
		e.awaitReady("dns-root", fmt.Sprintf("zone%d", i))
	}
	leader.stop()
	if err := e.api.DeleteAllOf(t.Context(), &v1alpha1.DNSZone{}, client.InNamespace("dns-root")); err != nil {
		t.Fatal(err)
	}
	e.startManager(1)
	var digest string
	e.await(func() error {
		for _, name := range []string{"dc-a", "dc-b"} {
			var dc v1alpha1.Datacenter
			if err := e.api.Get(t.Context(), client.ObjectKey{Name: name}, &dc); err != nil {
				return err
			}
			c := meta.FindStatusCondition(dc.Status.Conditions, v1alpha1.ConditionRemovalWithheld)
			if c == nil || c.Status != metav1.ConditionTrue {
				return fmt.Errorf("Datacenter %s: %+v", name, c)
			}
			_, digest, _ = strings.Cut(c.Message, v1alpha1.ApproveRemovalAnnotation+"=")
		}
		return nil
	})
	for _, s := range servers {
		if got := s.ask("www.zone7.", dns.TypeA); got != "NOERROR\nwww.zone7. 60 IN A 10.0.0.1" {
			t.Errorf("%s answers %q", s.id, got)
		}
	}
	for _, name := range []string{"dc-a", "dc-b"} {
		e.annotate(&v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name}}, digest)
	}
	e.awaitAnswer(servers, "www.zone7.", dns.TypeA, "REFUSED")
}

func TestAnAPIRestoredFromABackupNeverReusesASerial(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, corpZone(3))
	leader := e.startManager(0)
	servers := ofGroup(e.startServers(), "authoritative")
	z := e.awaitReady("payments", "corp")
	published := *z.Status.Published
	leader.stop()
	// What a restored backup, or the manifests from git on a new cluster, look like: no status.
	if err := e.api.Delete(t.Context(), z); err != nil {
		t.Fatal(err)
	}
	e.apply(corpZone(4))
	e.startManager(1)
	e.awaitAnswer(servers, "h3.corp.", dns.TypeA, "NOERROR\nh3.corp. 60 IN A 10.0.1.3")
	z = e.awaitReady("payments", "corp")
	if z.Status.Published.Serial <= published.Serial || z.Status.Published.Digest == published.Digest {
		t.Errorf("%+v follows %+v", z.Status.Published, published)
	}
}

// stuck is a server's replica that, while it is told to, does not give the content of zones z1, z2, ... away.
type stuck struct {
	control.Replica
	mu    sync.Mutex
	gate  chan struct{} // nil: it gives
	asked time.Time     // for the first time, in vain
}

func (s *stuck) Zone(apex zone.Name) (control.Installed, bool) {
	s.mu.Lock()
	gate := s.gate
	if gate != nil && s.asked.IsZero() {
		s.asked = time.Now()
	}
	s.mu.Unlock()
	if gate != nil && strings.HasPrefix(apex.String(), "z") {
		<-gate
	}
	return s.Replica.Zone(apex)
}

func TestZonesThatWaitForAServerHoldUpNoOthers(t *testing.T) {
	names := []string{"z1", "z2", "z3", "z4", "z5", "z6"}
	zones := func(address string, names ...string) (text string) {
		for _, name := range names {
			text += fmt.Sprintf(`
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: %s, namespace: dns-root}
spec: {name: %s, serverGroup: authoritative, records: [{name: www, type: A, values: [%s]}]}
---`, name, name, address)
		}
		return text
	}
	e := newEstate(t, oneServerEach(""), zones("10.0.0.1", names...))
	replica := &stuck{}
	e.replicas = func(r *dnsserver.Replica) control.Replica { replica.Replica = r; return replica }
	leader := e.startManager(0)
	s := e.startServer(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "1"}, t.TempDir())
	for _, name := range names {
		e.awaitReady("dns-root", name)
	}
	leader.stop()
	gate := make(chan struct{})
	replica.mu.Lock()
	replica.gate = gate
	replica.mu.Unlock()
	open := sync.OnceFunc(func() {
		replica.mu.Lock()
		replica.gate = nil
		replica.mu.Unlock()
		close(gate)
	})
	defer open()
	e.apply(zones("10.0.0.2", names...)) // a new leader has to ask the server what is published
	e.startManager(1)
	e.apply(zones("10.0.0.3", "quick"))
	e.awaitAnswer([]*server{s}, "www.quick.", dns.TypeA, "NOERROR\nwww.quick. 60 IN A 10.0.0.3")
	replica.mu.Lock()
	if took := time.Since(replica.asked); took >= 10*time.Second { // when the hub gives a fetch up
		t.Errorf("it took %s", took)
	}
	replica.mu.Unlock()
	if got := s.ask("www.z1.", dns.TypeA); got != "NOERROR\nwww.z1. 60 IN A 10.0.0.1" {
		t.Errorf("a zone that can't be compared is answered with %q", got)
	}
	open()
	for _, name := range names {
		e.awaitAnswer([]*server{s}, "www."+name+".", dns.TypeA, "NOERROR\nwww."+name+". 60 IN A 10.0.0.2")
	}
}

func TestDatacenterStatusSaysWhoIsConnected(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone)
	e.startManager(0)
	servers := e.startServers()
	e.awaitDatacenter("dc-a", "4/4", "4/4")
	e.awaitCondition("dns-root", "root", v1alpha1.ConditionDegraded, metav1.ConditionFalse, v1alpha1.ReasonHealthy)
	servers[0].stop()
	dc := e.awaitDatacenter("dc-a", "3/4", "3/3")
	c := meta.FindStatusCondition(dc.Status.Conditions, v1alpha1.ConditionDegraded)
	if c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "root/1") {
		t.Errorf("condition Degraded is %+v", c)
	}
	if len(dc.Status.Servers) != 4 {
		t.Errorf("servers are %+v", dc.Status.Servers)
	}
	// The zone stays ready: every server that can be reached is current.
	e.awaitReady("dns-root", "root")
	e.awaitCondition("dns-root", "root", v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonServersMissing)
}

func TestAZoneBetweenTwoOthersComesAndGoes(t *testing.T) {
	allow := func(names string) string { return strings.Replace(rootZone, "names: [corp]", "names: ["+names+"]", 1) }
	pay := strings.NewReplacer("name: corp, namespace", "name: pay, namespace", "name: corp\n", "name: pay.corp\n").Replace(corpZone(100))
	e := newEstate(t, twoDatacenters, allow("corp, pay.corp"), pay)
	e.startManager(0)
	servers := e.startServers()
	authoritative, roots := ofGroup(servers, "authoritative"), ofGroup(servers, "root")
	e.awaitReady("payments", "pay")

	// It takes over the delegation, and the records below it are not lost: nothing is held back.
	e.apply(corpZone(0) + "  allowedChildren: [{namespaces: {from: Same}, names: [pay.corp]}]\n")
	e.awaitReady("payments", "corp")
	e.awaitAnswer(roots, "pay.corp.", dns.TypeNS, "NOERROR")
	e.await(func() error {
		for _, s := range roots {
			if s.view.Zone("\x00").Content().Node("\x03pay\x04corp\x00") != nil {
				return fmt.Errorf("%s has pay.corp beside corp", s.id)
			}
		}
		return nil
	})
	e.apply(allow("corp"))
	e.awaitReady("dns-root", "root")

	// It is deleted, and the zone below it with its grant: together they are too much.
	if err := e.api.Delete(t.Context(), e.zone("payments", "corp")); err != nil {
		t.Fatal(err)
	}
	z := e.awaitCondition("dns-root", "root", v1alpha1.ConditionRemovalWithheld, metav1.ConditionTrue, v1alpha1.ReasonMassRemoval)
	e.awaitCondition("payments", "pay", v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNotAllowedByParent)
	for _, s := range authoritative {
		for _, name := range []string{"www.corp.", "h42.pay.corp."} {
			if got := s.ask(name, dns.TypeA); !strings.HasPrefix(got, "NOERROR\n") {
				t.Errorf("%s answers %s with %q while the delegation stays", s.id, name, got)
			}
		}
	}
	e.approve(z, z.Status.Conditions)
	for _, name := range []string{"www.corp.", "h42.pay.corp."} {
		e.awaitAnswer(authoritative, name, dns.TypeA, "REFUSED")
	}
	e.awaitReady("dns-root", "root")
}

func TestAServerWithANewerVersionMakesTheLeaderReserveBeyond(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone)
	e.startManager(0)
	servers := e.startServers()
	e.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "legacy"}, Data: map[string]string{"zone": "a A 10.0.2.1\nb A 10.0.2.2\n"}})
	e.apply(corpZone(3) + "  recordsFrom: [{configMapKeyRef: {name: legacy, key: zone}}]\n")
	z := e.awaitReady("payments", "corp")

	// A server comes back from where another hub had published since.
	away := ofGroup(servers, "authoritative")[0]
	newer, _ := away.replica.Zone("\x04corp\x00")
	away.stop()
	view := &zone.View{}
	replica, err := dnsserver.OpenReplica(away.dir, view, testr.New(t))
	if err != nil {
		t.Fatal(err)
	}
	newer.Content, err = newer.Content.With(zone.NewNode("\x05other\x04corp\x00", zone.NewRRset(dns.TypeA, 60, []byte{10, 0, 3, 1})))
	if err != nil {
		t.Fatal(err)
	}
	newer.Version = zone.Version{Serial: newer.Version.Serial + 1000, Digest: newer.Content.Digest()}
	if err := replica.Install(t.Context(), replica.Fence(), newer); err != nil {
		t.Fatal(err)
	}
	if err := replica.Close(); err != nil {
		t.Fatal(err)
	}
	back := e.startServer(away.id, away.dir)
	authoritative := append(ofGroup(servers, "authoritative")[1:], back)
	e.awaitAnswer(authoritative, "other.corp.", dns.TypeA, "NXDOMAIN")
	for _, s := range authoritative {
		for _, name := range []string{"a.corp.", "b.corp.", "h2.corp."} {
			if got := s.ask(name, dns.TypeA); !strings.HasPrefix(got, "NOERROR\n") {
				t.Errorf("%s answers %s with %q", s.id, name, got)
			}
		}
	}
	e.await(func() error {
		if z = e.zone("payments", "corp"); z.Status.Published.Serial <= int64(newer.Version.Serial) || z.Status.Programmed != "4/4" {
			return fmt.Errorf("serial %d after %d of a server, programmed %s", z.Status.Published.Serial, newer.Version.Serial, z.Status.Programmed)
		}
		return nil
	})
}

func TestAMassEditWhileNobodyWatchesIsHeldByServersAndApprovedThere(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, corpZone(100))
	leader := e.startManager(0)
	servers := e.startServers()
	e.awaitReady("payments", "corp")
	for _, s := range servers {
		s.stop()
	}
	for _, name := range []string{"dc-a", "dc-b"} {
		e.awaitDatacenter(name, "0/4", "0/0")
	}
	leader.stop()
	before := e.zone("payments", "corp").Status.Published.Serial
	e.apply(corpZone(0))
	e.startManager(1) // which can't know what it publishes over
	e.await(func() error {
		if z := e.zone("payments", "corp"); z.Status.Published.Serial == before {
			return fmt.Errorf("published is %+v", z.Status.Published)
		}
		return nil
	})
	for i, s := range servers {
		servers[i] = e.startServer(s.id, s.dir)
	}
	authoritative := ofGroup(servers, "authoritative")
	z := e.awaitCondition("payments", "corp", v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonRejected)
	e.awaitAnswer(authoritative, "h42.corp.", dns.TypeA, "NOERROR\nh42.corp. 60 IN A 10.0.1.42")
	_, digest, found := strings.Cut(meta.FindStatusCondition(z.Status.Conditions, v1alpha1.ConditionProgrammed).Message, "the digest is ")
	if !found {
		t.Fatalf("Programmed tells no digest: %+v", z.Status.Conditions)
	}
	e.annotate(z, digest[:16])
	e.awaitAnswer(authoritative, "h42.corp.", dns.TypeA, "NXDOMAIN")
	e.awaitReady("payments", "corp")
}

// approve lets pass what the condition RemovalWithheld speaks of.
func (e *estate) approve(o client.Object, conditions []metav1.Condition) {
	e.t.Helper()
	message := meta.FindStatusCondition(conditions, v1alpha1.ConditionRemovalWithheld).Message
	_, digest, found := strings.Cut(message, v1alpha1.ApproveRemovalAnnotation+"=")
	if !found {
		e.t.Fatalf("the message tells no digest: %s", message)
	}
	e.annotate(o, digest)
}

func (e *estate) annotate(o client.Object, digest string) {
	e.t.Helper()
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.ApproveRemovalAnnotation, digest))
	if err := e.api.Patch(e.t.Context(), o, patch); err != nil {
		e.t.Fatal(err)
	}
}

func (e *estate) awaitDatacenter(name, servers, synced string) *v1alpha1.Datacenter {
	e.t.Helper()
	var dc v1alpha1.Datacenter
	e.await(func() error {
		if err := e.api.Get(e.t.Context(), client.ObjectKey{Name: name}, &dc); err != nil {
			return err
		}
		if dc.Status.ServersReady != servers || dc.Status.Synced != synced {
			return fmt.Errorf("Datacenter %s has servers %s, synced %s", name, dc.Status.ServersReady, dc.Status.Synced)
		}
		return nil
	})
	return &dc
}

// statuses lists all objects that have a status of ours.
func (e *estate) statuses() []client.Object {
	e.t.Helper()
	var zones v1alpha1.DNSZoneList
	var datacenters v1alpha1.DatacenterList
	for _, list := range []client.ObjectList{&zones, &datacenters} {
		if err := e.api.List(e.t.Context(), list); err != nil {
			e.t.Fatal(err)
		}
	}
	var all []client.Object
	for i := range zones.Items {
		all = append(all, &zones.Items[i])
	}
	for i := range datacenters.Items {
		all = append(all, &datacenters.Items[i])
	}
	return all
}
