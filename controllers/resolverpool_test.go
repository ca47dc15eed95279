package controllers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/resolver"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

const officePool = `
apiVersion: fingerpost.dev/v1alpha1
kind: ResolverPool
metadata: {name: office, namespace: dns-root}
spec:
  class: office
  datacenters: {names: [dc-a, dc-b]}
  management: External
  members: [{engine: Unbound, replicas: 1, threads: 2}, {engine: KnotResolver, replicas: 1}]
  clientNetworks: [10.0.0.0/8]
`

// resolverMember is an agent whose engine goes by whatever it is told, unless it refuses that.
type resolverMember struct {
	*server
	estate *estate
	kept   *memberReplica

	mu     sync.Mutex
	report pool.Report
}

// memberReplica refuses documents while it is told to.
type memberReplica struct {
	control.Replica
	mu     sync.Mutex
	refuse string
	seen   func(text []byte, refused string)
}

func (r *memberReplica) InstallDocument(ctx context.Context, f control.Fence, d control.Document) error {
	r.mu.Lock()
	refuse := r.refuse
	r.mu.Unlock()
	r.seen(d.Body, refuse)
	if refuse != "" {
		return errors.New(refuse)
	}
	return r.Replica.InstallDocument(ctx, f, d)
}

// startMember starts an agent of the pool office with the certificate that the manager has made for it.
func (e *estate) startMember(datacenter string, product engine.Product, address string) *resolverMember {
	e.t.Helper()
	at := netip.MustParseAddr(address)
	m := &resolverMember{estate: e, report: pool.Report{
		At: time.Now(), Started: time.Now(), Engine: product, Ready: true, Listen: []netip.AddrPort{netip.AddrPortFrom(at, 53)}, Source: []netip.Addr{at},
		Recursion: &pool.Recursion{OK: true}, Flush: pool.Flush{Notifiers: []string{"192.0.2.1:8054"}},
	}}
	m.kept = &memberReplica{seen: func(text []byte, refused string) {
		m.tell(func(r *pool.Report) {
			if r.Newest, r.Refused = pool.Digest(text), refused; refused == "" {
				r.Configuration = r.Newest
			}
		})
	}}
	e.replicas = func(r *dnsserver.Replica) control.Replica { m.kept.Replica = r; return m.kept }
	defer func() { e.replicas = nil }()
	m.mu.Lock() // what comes before there is a client waits
	m.server = e.startServer(control.ServerID{Datacenter: datacenter, Group: pool.GroupName("dns-root", "office"), Name: strings.ToLower(string(product)) + "-1"}, e.t.TempDir())
	m.mu.Unlock()
	m.tell(func(*pool.Report) {})
	return m
}

// tell changes what the agent reports.
func (m *resolverMember) tell(change func(*pool.Report)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.report)
	m.report.At = time.Now()
	body, err := json.Marshal(m.report)
	if err != nil {
		panic(err)
	}
	if err := m.client.Report(pool.ReportKind, body); err != nil {
		panic(err)
	}
}

// told is what the agent goes by.
func (m *resolverMember) told() *pool.Pool {
	d, has := m.kept.Document(pool.DocumentKind)
	if !has {
		return nil
	}
	p, err := pool.Decode(d.Body)
	if err != nil {
		m.estate.t.Fatal(err)
	}
	return p
}

func (e *estate) pool() *v1alpha1.ResolverPool {
	e.t.Helper()
	p := &v1alpha1.ResolverPool{}
	if err := e.api.Get(e.t.Context(), client.ObjectKey{Namespace: "dns-root", Name: "office"}, p); err != nil {
		e.t.Fatal(err)
	}
	return p
}

// awaitPool waits for a condition of the pool office, with a text in its message.
func (e *estate) awaitPool(typ string, status metav1.ConditionStatus, reason, message string) *v1alpha1.ResolverPool {
	e.t.Helper()
	var p *v1alpha1.ResolverPool
	e.await(func() error {
		p = e.pool()
		c := meta.FindStatusCondition(p.Status.Conditions, typ)
		if c == nil || c.Status != status || c.Reason != reason || !strings.Contains(c.Message, message) {
			return fmt.Errorf("%s is %+v", typ, c)
		}
		return nil
	})
	return p
}

// versionsOfPool are the resource versions of the pool office since the one given, without it.
func (e *estate) versionsOfPool(since string) []string {
	e.t.Helper()
	w, err := e.api.Watch(e.t.Context(), &v1alpha1.ResolverPoolList{}, client.InNamespace("dns-root"), &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: since}})
	if err != nil {
		e.t.Fatal(err)
	}
	defer w.Stop()
	last := e.pool().ResourceVersion
	var versions []string
	for event := range w.ResultChan() {
		p, is := event.Object.(*v1alpha1.ResolverPool)
		if !is {
			e.t.Fatalf("watching ResolverPools: %+v", event)
		}
		if versions = append(versions, p.ResourceVersion); p.ResourceVersion == last {
			return versions
		}
	}
	e.t.Fatal("the watch of ResolverPools has ended")
	return nil
}

// awaitEvent waits for an Event about the pool office.
func (e *estate) awaitEvent(reason, text string) {
	e.t.Helper()
	e.watch(&eventsv1.EventList{})
	e.await(func() error {
		var list eventsv1.EventList
		if err := e.api.List(e.t.Context(), &list, client.InNamespace("dns-root")); err != nil {
			return err
		}
		var reasons []string
		for _, event := range list.Items {
			if event.Regarding.Name == "office" {
				reasons = append(reasons, event.Reason+": "+event.Note)
			}
			if event.Regarding.Kind == "ResolverPool" && event.Reason == reason && strings.Contains(event.Note, text) {
				return nil
			}
		}
		return fmt.Errorf("no Event %s with %q among %q", reason, text, reasons)
	})
}

func TestMembersOfAPoolAreToldWhatToDoAndSayHowTheyAre(t *testing.T) {
	e := newEstate(t, twoDatacenters, rootZone, corpZone(0), officePool)
	leader := e.startManager(0)
	servers := e.startServers()
	e.awaitPool(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonNoServers, "no member")

	a := e.startMember("dc-a", engine.Unbound, "10.1.0.53")
	p := e.awaitPool(v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonDatacenterUnreachable, "no member is connected in dc-b")
	var told *pool.Pool
	e.await(func() error {
		if told = a.told(); told == nil {
			return errors.New("it is told nothing")
		}
		return nil
	})
	var hints []string
	for _, h := range told.RootHints {
		hints = append(hints, fmt.Sprint(h.Name, h.Addresses))
	}
	if want := []string{"ns-dc-a. [192.0.2.1 192.0.2.2]", "ns-dc-b. [198.51.100.1 198.51.100.2]"}; !slices.Equal(hints, want) {
		t.Errorf("it begins at %q, want %q", hints, want)
	}
	if told.RecursionCheck.String() != "corp." || len(told.AuthorityNetworks) != 8 || told.Members[engine.Unbound].Threads != 2 {
		t.Errorf("it is told %+v", told)
	}

	b := e.startMember("dc-a", engine.KnotResolver, "10.1.0.54")
	c := e.startMember("dc-b", engine.Unbound, "10.2.0.53")
	d := e.startMember("dc-b", engine.KnotResolver, "10.2.0.54")
	e.await(func() error {
		p = e.pool()
		if p.Status.ReadyMembers != "4/4" || !meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionReady) {
			return fmt.Errorf("%+v", p.Status)
		}
		return nil
	})
	if s := p.Status; s.Engines != "KnotResolver,Unbound" || s.Datacenters != "dc-a,dc-b" || s.VIP != "10.1.0.53,10.1.0.54,10.2.0.53,10.2.0.54" || len(s.Members) != 4 {
		t.Errorf("status is %+v", s)
	}
	for _, typ := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionProgrammed, v1alpha1.ConditionRecursionWorks, v1alpha1.ConditionFlushable} {
		if !meta.IsStatusConditionTrue(p.Status.Conditions, typ) {
			t.Errorf("%s is %+v", typ, meta.FindStatusCondition(p.Status.Conditions, typ))
		}
	}

	// Servers do not limit them, and count them neither as servers nor as voters.
	e.await(func() error {
		for _, s := range servers {
			var settings controlpb.Settings
			doc, _ := s.replica.Document("settings")
			if err := proto.Unmarshal(doc.Body, &settings); err != nil {
				return err
			}
			if want := []string{"10.1.0.53/32", "10.1.0.54/32", "10.2.0.53/32", "10.2.0.54/32"}; !slices.Equal(settings.GetResolvers(), want) {
				return fmt.Errorf("%s exempts %q", s.id, settings.GetResolvers())
			}
		}
		return nil
	})
	if dc := e.awaitDatacenter("dc-a", "4/4", "4/4"); len(dc.Status.Servers) != 4 {
		t.Errorf("servers are %+v", dc.Status.Servers)
	}

	// A new leader finds all as it is, and writes nothing. What comes after shows that it has looked.
	version := p.ResourceVersion
	e.startManager(1)
	leader.stop()
	a.tell(func(r *pool.Report) { r.Recursion = &pool.Recursion{Why: "x.corp.: no answer"} })
	p = e.awaitPool(v1alpha1.ConditionRecursionWorks, metav1.ConditionFalse, v1alpha1.ReasonRecursionFails, "dc-a/unbound-1")
	if written := e.versionsOfPool(version); len(written) != 1 || p.Status.ReadyMembers != "4/4" {
		t.Errorf("the new leader has written %v, ready is %s", written, p.Status.ReadyMembers)
	}
	a.tell(func(r *pool.Report) { r.Recursion = &pool.Recursion{OK: true} })

	// One refuses what is new, and goes on.
	a.kept.mu.Lock()
	a.kept.refuse = "unbound.conf:12: error: unknown keyword"
	a.kept.mu.Unlock()
	e.apply(officePool + "  prefetch: Enabled\n")
	p = e.awaitPool(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonRejected, "dc-a/unbound-1 (Unbound): unbound.conf:12: error: unknown keyword")
	if m := p.Status.Members[1]; m.Engine != v1alpha1.EngineUnbound || !strings.Contains(m.Message, "unbound.conf:12") {
		t.Errorf("the member's status is %+v", m)
	}
	if meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionReady) || p.Status.ReadyMembers != "4/4" {
		t.Errorf("with a refused configuration, status is %+v", p.Status)
	}
	e.awaitEvent(v1alpha1.ReasonRejected, "unbound.conf:12")
	a.kept.mu.Lock()
	a.kept.refuse = ""
	a.kept.mu.Unlock()
	e.apply(officePool + "  prefetch: Enabled\n  clientMaxTTL: 5s\n")
	e.awaitPool(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, "")

	// A dead tier of servers is no fault of the pool's; a datacenter without a member that answers is.
	c.tell(func(r *pool.Report) { r.Recursion = &pool.Recursion{Why: "x.corp.: SERVFAIL"} })
	p = e.awaitPool(v1alpha1.ConditionRecursionWorks, metav1.ConditionFalse, v1alpha1.ReasonRecursionFails, "dc-b/unbound-1 (Unbound): x.corp.: SERVFAIL")
	if !meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionReady) {
		t.Error("a dead tier of servers makes the pool not ready")
	}
	for _, m := range []*resolverMember{a, b} {
		m.tell(func(r *pool.Report) { r.Ready, r.NotReady, r.EngineDeaths = false, "the engine does not answer", 1 })
	}
	e.awaitPool(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNoReadyMembers, "dc-a")
	e.awaitEvent("LastMemberLost", "dc-a")
	e.awaitEvent("EngineDied", " of dc-a/")
	for _, m := range []*resolverMember{a, b} {
		m.tell(func(r *pool.Report) { r.Ready, r.NotReady = true, "" })
	}
	e.awaitPool(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")

	// Members that are not connected are exempt as before.
	d.stop()
	p = e.awaitPool(v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonMembersNotReady, "dc-b: 0 of 1 KnotResolver")
	if len(p.Status.SourceAddresses) != 4 {
		t.Errorf("questions come from %v", p.Status.SourceAddresses)
	}

	// Without a root zone members are told nothing, and go on.
	if err := e.api.Delete(t.Context(), e.zone("dns-root", "root")); err != nil {
		t.Fatal(err)
	}
	e.awaitPool(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNoRootZone, "root servers of the internet")
	if len(a.told().RootHints) != 2 {
		t.Errorf("without a root zone it is told %+v", a.told())
	}

	// The pool is deleted, and with it what lets members in.
	secret := client.ObjectKey{Namespace: operatorNamespace, Name: "fingerpost-server.dc-a.pool.dns-root.office"}
	if err := e.api.Get(t.Context(), secret, &corev1.Secret{}); err != nil {
		t.Fatal(err)
	}
	e.watch(&corev1.SecretList{})
	if err := e.api.Delete(t.Context(), e.pool()); err != nil {
		t.Fatal(err)
	}
	e.await(func() error {
		if err := e.api.Get(t.Context(), secret, &corev1.Secret{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("its Secret: %w", err)
		}
		return nil
	})

	// Who has a copy of it is not let in by the hub.
	e.await(func() error {
		if last := a.client.State().LastError; !strings.Contains(last, "no group dc-a/pool.dns-root.office") {
			return fmt.Errorf("the stream of a member ended with %q", last)
		}
		return nil
	})
}

func TestPoolsSayWhatTheyLack(t *testing.T) {
	e := newEstate(t, twoDatacenters, corpZone(0), officePool)
	e.startManager(0)
	e.startServers()
	e.awaitPool(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNoRootZone, `there is no DNSZone "."`)
	e.awaitEvent(v1alpha1.ReasonNoRootZone, "root servers of the internet")
	e.apply(rootZone)
	e.awaitPool(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "")
	e.apply(strings.Replace(officePool, "dc-b", "dc-c", 1))
	e.awaitPool(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonUnknownDatacenter, "dc-c")
	a := e.startMember("dc-a", engine.Unbound, "10.1.0.53")
	e.await(func() error {
		if a.told() == nil {
			return errors.New("a datacenter that is there waits for one that is not")
		}
		return nil
	})

	// What it names appears later: nobody has to touch the pool.
	withSources := officePool + "  blockLists: {rpz: [{name: rpz.corp, configMapKeyRef: {name: rpz, key: zone}}]}\n" +
		"  transports: {dot: {access: Open}, certificateSecretRef: {name: office-tls}}\n"
	e.apply(withSources)
	e.awaitPool(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSourceNotFound, "there is no ConfigMap dns-root/rpz")
	e.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "dns-root", Name: "rpz"}, Data: map[string]string{"zone": "ads.example CNAME .\n"}})
	t.Cleanup(func() {
		_ = e.api.Delete(context.WithoutCancel(t.Context()), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "dns-root", Name: "rpz"}})
	})
	e.awaitPool(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotUsable, "bind ClusterRole fingerpost-probe-secrets")
}

// startResolver starts a real agent of the pool office with a real Unbound, and returns where it answers.
func (e *estate) startResolver(datacenter, name string) string {
	e.t.Helper()
	files := e.t.TempDir()
	for file, data := range e.awaitSecret("fingerpost-server." + datacenter + "." + pool.GroupName("dns-root", "office")).Data {
		if err := os.WriteFile(filepath.Join(files, file), data, 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	shown, err := control.NewFiles(filepath.Join(files, "tls.crt"), filepath.Join(files, "tls.key"), filepath.Join(files, "ca.crt"))
	if err != nil {
		e.t.Fatal(err)
	}
	own, err := os.MkdirTemp("", "fp") // paths of sockets are short
	if err != nil {
		e.t.Fatal(err)
	}
	folder, err := engine.ParsePath(own)
	if err != nil {
		e.t.Fatal(err)
	}
	at := freeDNSAddress(e.t)
	agent := resolver.New(resolver.Options{
		Product: engine.Unbound, Folder: folder, Listen: []netip.AddrPort{netip.MustParseAddrPort(at)}, Version: "test", EngineLog: io.Discard, Log: testr.New(e.t).V(1),
		Watch: changes.WatchOptions{Credentials: shown.Credentials(), Name: name},
	})
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { agent.Run(ctx) })
	all.Go(func() {
		_ = agent.Join(ctx, resolver.HubOptions{Hubs: e.hub, Credentials: shown.Credentials(), Name: name}) // ends with ctx
	})
	e.t.Cleanup(func() {
		stop()
		all.Wait()
		if err := os.RemoveAll(own); err != nil {
			e.t.Error(err)
		}
	})
	return at
}

// TestARealResolverGoesByTheObject: what is applied is what an engine answers by, and what it does is in the status.
func TestARealResolverGoesByTheObject(t *testing.T) {
	const object = `
apiVersion: fingerpost.dev/v1alpha1
kind: ResolverPool
metadata: {name: office, namespace: dns-root}
spec:
  class: office
  datacenters: {names: [dc-a]}
  management: External
  members: [{engine: Unbound, replicas: 1}]
  clientNetworks: [127.0.0.0/8]
  blockLists: {names: [ads.example], rpz: [{name: rpz.corp, configMapKeyRef: {name: rpz, key: zone}}]}
`
	e := newEstate(t, twoDatacenters, rootZone)
	rules := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "dns-root", Name: "rpz"}, Data: map[string]string{"zone": "tracker.example CNAME .\n"}}
	e.create(rules)
	t.Cleanup(func() {
		if err := e.api.Delete(context.WithoutCancel(t.Context()), rules); err != nil {
			t.Error(err)
		}
	})
	e.apply(object)
	e.startManager(0)
	for _, group := range []string{"root", "authoritative"} {
		e.startProcess(control.ServerID{Datacenter: "dc-a", Group: group, Name: "1"}, t.TempDir())
	}
	at := e.startResolver("dc-a", "unbound-1")
	p := e.awaitPool(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	if p.Status.ReadyMembers != "1/1" || p.Status.VIP != netip.MustParseAddrPort(at).Addr().String() || p.Status.Members[0].Message != "" {
		t.Errorf("status is %+v", p.Status)
	}
	e.awaitPool(v1alpha1.ConditionFlushable, metav1.ConditionTrue, v1alpha1.ReasonFlushable, "") // servers tell it of changes
	blocked := func(name string) error {
		reply, err := dns.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), at)
		if err == nil && reply.Rcode != dns.RcodeNameError {
			err = fmt.Errorf("%s is answered with %s", name, dns.RcodeToString[reply.Rcode])
		}
		return err
	}
	for _, name := range []string{"www.ads.example.", "tracker.example."} {
		if err := blocked(name); err != nil {
			t.Error(err)
		}
	}
	rules.Data["zone"] += "spy.example CNAME .\n"
	if err := e.api.Update(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	e.poll(func() error { return blocked("spy.example.") })
	e.awaitPool(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, "")

	// What the engine does not take is said, with its own words, and what was in force stays.
	rules.Data["zone"] += "this is ( no zone file\n"
	if err := e.api.Update(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	e.awaitPool(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonRejected, "4:9: Syntax error, could not parse the RR's type; unbound-checkconf error: error parsing zonefile")
	if err := blocked("spy.example."); err != nil {
		t.Errorf("after a refused configuration: %v", err)
	}
}
