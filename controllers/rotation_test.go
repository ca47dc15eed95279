package controllers_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/renameio/v2"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// mount does what a kubelet does: it keeps the files of a process as the Secret of its group is.
func (e *estate) mount(p *process, group control.GroupKey) {
	e.t.Helper()
	folder := filepath.Dir(p.config.Hub.Certificate)
	w, err := e.api.Watch(e.t.Context(), &corev1.SecretList{}, client.InNamespace(operatorNamespace))
	if err != nil {
		e.t.Fatal(err)
	}
	go func() {
		for event := range w.ResultChan() {
			s, ok := event.Object.(*corev1.Secret)
			if !ok || s.Name != "fingerpost-server."+group.Datacenter+"."+group.Group {
				continue
			}
			for name, data := range s.Data {
				if held, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !bytes.Equal(held, data) {
					if err := renameio.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil && e.t.Context().Err() == nil {
						e.t.Errorf("writing %s: %v", name, err)
					}
				}
			}
		}
	}()
}

// authorities are the CAs that a Secret's bundle has, by number.
func (e *estate) bundle(secret string) []string {
	e.t.Helper()
	var s corev1.Secret
	if err := e.api.Get(e.t.Context(), client.ObjectKey{Namespace: operatorNamespace, Name: secret}, &s); err != nil {
		e.t.Fatal(err)
	}
	cas, err := pki.ParseCertificates(s.Data[pki.BundleKey])
	if err != nil {
		e.t.Fatal(err)
	}
	var all []string
	for _, ca := range cas {
		all = append(all, ca.SerialNumber.String())
	}
	return all
}

// issuer is the CA that has signed the certificate in a Secret.
func (e *estate) issuer(secret string) string {
	e.t.Helper()
	var s corev1.Secret
	if err := e.api.Get(e.t.Context(), client.ObjectKey{Namespace: operatorNamespace, Name: secret}, &s); err != nil {
		return err.Error()
	}
	leaf, err := pki.ParseCertificates(s.Data[pki.CertificateKey])
	cas, err2 := pki.ParseCertificates(s.Data[pki.BundleKey])
	if err != nil || err2 != nil {
		return fmt.Sprint(err, err2)
	}
	for _, ca := range cas {
		if leaf[0].CheckSignatureFrom(ca) == nil {
			return ca.SerialNumber.String()
		}
	}
	return "nobody"
}

// TestCertificatesAndTheirCAChangeUnderLoad has certificates that live for a minute and are renewed after six seconds, and a CA
// whose successor, which is trusted already, signs from five seconds on. Changes and queries go on all the time.
func TestCertificatesAndTheirCAChangeUnderLoad(t *testing.T) {
	policy := pki.Policy{LeafLife: time.Minute, RenewAt: 10, CALife: 4 * time.Minute, Skew: time.Hour}
	e := newEstate(t, strings.ReplaceAll(twoDatacenters, "management: External", "management: External, limits: {mode: \"Off\"}"), rootZone, corpZone(0))
	e.certificates = policy
	if err := e.api.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace(operatorNamespace)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // others have longer certificates
		if err := e.api.DeleteAllOf(context.WithoutCancel(t.Context()), &corev1.Secret{}, client.InNamespace(operatorNamespace)); err != nil {
			t.Error(err)
		}
	})
	now := time.Now()
	ca, err := pki.NewAuthority(nil, now.Add(-2*time.Minute), policy)
	if err != nil {
		t.Fatal(err)
	}
	if ca, _, _, err = ca.Advance(now.Add(-55*time.Second), policy); err != nil {
		t.Fatal(err)
	}
	e.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "fingerpost-ca"}, Type: corev1.SecretTypeTLS, Data: ca.Data()})
	manager := e.startManager(0)
	var servers []*process
	for _, dc := range []string{"dc-a", "dc-b"} {
		for _, group := range []string{"root", "authoritative"} {
			p := e.startProcess(control.ServerID{Datacenter: dc, Group: group, Name: "1"}, t.TempDir())
			e.mount(p, control.GroupKey{Datacenter: dc, Group: group})
			if group == "authoritative" {
				servers = append(servers, p)
			}
		}
	}
	e.awaitReady("payments", "corp")
	first := e.issuer("fingerpost-server.dc-a.authoritative")

	// Steady questions, none of which may be lost, and a change every 50 ms.
	var asked, changes atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	halt := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer halt()
	for _, s := range servers {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := s.given("127.0.0.1", "www.corp."); !strings.HasPrefix(got, "NOERROR 10.") {
					t.Errorf("question %d to %s is answered with %q", asked.Load(), s.address, got)
					return
				}
				asked.Add(1)
			}
		})
	}
	change := func() error {
		n := changes.Add(1)
		return e.tryApply(strings.Replace(corpZone(0), "10.0.0.1", fmt.Sprintf("10.1.%d.%d", n>>8&0xff, n&0xff), 1))
	}
	load.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if err := change(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	e.poll(func() error {
		for _, name := range []string{"fingerpost-hub", "fingerpost-server.dc-a.authoritative", "fingerpost-server.dc-b.authoritative"} {
			if by := e.issuer(name); by == first {
				return fmt.Errorf("%s is of the first CA yet, %s", name, by)
			}
		}
		return nil
	})
	if cas := e.bundle("fingerpost-server.dc-a.authoritative"); len(cas) < 2 {
		t.Errorf("after the succession the CAs %v are trusted: what the first one has signed is valid yet", cas)
	}

	// All streams are made anew, under the second CA.
	manager.stop()
	e.startManager(1)
	halt()
	last := fmt.Sprintf("NOERROR 10.1.%d.%d", changes.Load()>>8&0xff, changes.Load()&0xff)
	e.poll(func() error {
		for _, s := range servers {
			if got := s.given("127.0.0.1", "www.corp."); got != last {
				return fmt.Errorf("%s answers %q, want %q", s.address, got, last)
			}
		}
		return nil
	})
	e.awaitReady("payments", "corp")
	t.Logf("%d questions, %d changes", asked.Load(), changes.Load())
}

// TestAStolenCertificateIsNoOtherDatacenters has a thief with the certificate of dc-a, who says that he is a server of dc-b by name.
func TestAStolenCertificateIsNoOtherDatacenters(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, strings.Replace(corpZone(0), "serverGroup: authoritative", "serverGroup: authoritative\n  datacenters: {names: [dc-b]}", 1))
	e.startManager(0)
	owner := e.startProcess(control.ServerID{Datacenter: "dc-b", Group: "authoritative", Name: "1"}, t.TempDir())
	e.awaitReady("payments", "corp")
	thief := e.startProcess(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "1"}, t.TempDir(), owner.peer)
	dc := e.awaitDatacenter("dc-a", "1/4", "1/1") // it is there, and has all that it is to have
	if s := dc.Status.Servers[0]; s.Group != "authoritative" || s.Zones != "0/0" {
		t.Errorf("the thief is %+v", s)
	}
	if got := e.dig(thief, "www.corp.", dns.TypeA); !strings.Contains(got, "REFUSED") {
		t.Errorf("the thief got the zone of dc-b: %s", got)
	}
	z := e.zone("payments", "corp")
	if z.Status.Programmed != "1/2" || len(z.Status.Datacenters) != 1 || z.Status.Datacenters[0].Servers != "1/2" {
		t.Errorf("the thief counts as a server of dc-b: %+v", z.Status)
	}

	// Alone, without a hub, he asks the owner as a sibling.
	thief.stop()
	thief.config.Hub.Hubs = []string{freeAddress(t)}
	thief.start()
	again := e.startProcess(control.ServerID{Datacenter: "dc-b", Group: "authoritative", Name: "2"}, t.TempDir(), owner.peer)
	again.stop()
	again.config.Hub.Hubs, again.config.Hub.StateDir = thief.config.Hub.Hubs, t.TempDir()
	again.start() // a real sibling, which begins after him, gets a copy
	e.poll(func() error {
		if got := again.given("127.0.0.1", "www.corp."); got != "NOERROR 10.0.0.1" {
			return fmt.Errorf("a sibling answers %q", got)
		}
		return nil
	})
	if got := thief.given("127.0.0.1", "www.corp."); strings.HasPrefix(got, "NOERROR") {
		t.Errorf("the thief copied the zone of dc-b: %s", got)
	}
	if c := e.datacenterCondition("dc-b", v1alpha1.ConditionAccepted); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("dc-b: %+v", c)
	}
}
