package controllers_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// process is a whole dnsserver: sockets, store and stream.
type process struct {
	t       *testing.T
	config  dnsserver.Config
	address string // of DNS
	peer    string // of the listener for siblings
	stop    func()
}

// startProcess starts one, whose state lies in the folder, when its certificate exists.
func (e *estate) startProcess(id control.ServerID, dir string, siblings ...string) *process {
	e.t.Helper()
	p := e.newProcess(id, dir, siblings...)
	p.start()
	return p
}

// newProcess is a process that is yet to be started.
func (e *estate) newProcess(id control.ServerID, dir string, siblings ...string) *process {
	e.t.Helper()
	secret := e.awaitSecret("fingerpost-server." + id.Datacenter + "." + id.Group)
	files := e.t.TempDir()
	for name, data := range secret.Data {
		if err := os.WriteFile(filepath.Join(files, name), data, 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	p := &process{t: e.t, address: freeDNSAddress(e.t), peer: freeAddress(e.t)}
	p.config = dnsserver.Config{
		Options:    dnsserver.Options{Addresses: []netip.AddrPort{netip.MustParseAddrPort(p.address)}, Log: testr.New(e.t), Workers: 1},
		HTTPListen: freeAddress(e.t),
		Hub: &dnsserver.HubConfig{
			Hubs: e.hub, Certificate: filepath.Join(files, "tls.crt"), Key: filepath.Join(files, "tls.key"), Roots: filepath.Join(files, "ca.crt"),
			Name: id.Name, StateDir: dir, PeerListen: p.peer, Siblings: siblings,
		},
		Version: "test",
	}
	return p
}

// freeDNSAddress is an address that is free over UDP and TCP.
func freeDNSAddress(t *testing.T) string {
	t.Helper()
	for range 20 {
		address := freeAddress(t)
		if c, err := net.ListenPacket("udp", address); err == nil {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

func (p *process) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- dnsserver.Run(ctx, p.config) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Errorf("dnsserver: %v", err)
		}
	})
	p.t.Cleanup(p.stop)
}

// exchange asks until the server answers at all: it may have just begun.
func (p *process) exchange(m *dns.Msg) *dns.Msg {
	p.t.Helper()
	c := dns.Client{Timeout: time.Second}
	for end := time.Now().Add(time.Minute); ; {
		reply, _, err := c.Exchange(m, p.address)
		if err == nil && reply.Rcode != dns.RcodeRefused { // not loaded yet
			return reply
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s: %v %v", p.address, reply, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// room asks for an answer of some 3,000 octets. whole tells whether all of it came; and nsid what the server calls itself.
func (p *process) room() (whole bool, nsid string) {
	p.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion("long.corp.", dns.TypeTXT)
	q.SetEdns0(4096, false)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	var reply *dns.Msg
	for range 3 { // a query on its way when settings changed may be answered by the ones before
		reply = p.exchange(q)
	}
	for _, o := range reply.IsEdns0().Option {
		if o, ok := o.(*dns.EDNS0_NSID); ok {
			nsid = o.Nsid
		}
	}
	return !reply.Truncated && len(reply.Answer) == 13, nsid
}

// cookie asks with a cookie, 8 octets of which are the client's, and returns the whole one to use next.
func (p *process) cookie(cookie string) string {
	p.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion("www.corp.", dns.TypeA)
	q.SetEdns0(1232, false)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie})
	for _, o := range p.exchange(q).IsEdns0().Option {
		if o, ok := o.(*dns.EDNS0_COOKIE); ok {
			return o.Cookie
		}
	}
	p.t.Fatal("the reply has no cookie")
	return ""
}

// metric returns the sum of the samples whose line begins so.
func (p *process) metric(prefix string) float64 {
	p.t.Helper()
	reply, err := http.Get("http://" + p.config.HTTPListen + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, prefix) {
			var v float64
			if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &v); err != nil {
				p.t.Fatalf("%q: %v", line, err)
			}
			sum, found = sum+v, true
		}
	}
	if !found {
		p.t.Fatalf("no metric %s", prefix)
	}
	return sum
}

// oneServerEach has one authoritative server in each of two datacenters; the settings are those of dc-a.
func oneServerEach(settings string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: dns-root}
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-a}
spec:
  serverGroups: [{name: authoritative, management: External, addresses: [10.1.0.1]%s}]
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-b}
spec:
  serverGroups: [{name: authoritative, management: External, addresses: [10.2.0.1]}]
`, settings)
}

func longZone() string {
	text := `
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: corp, namespace: dns-root}
spec:
  name: corp
  serverGroup: authoritative
  records:
  - {name: www, type: A, values: [10.0.0.1]}
  - {name: long, type: TXT, values: [`
	for i := range 13 {
		text += fmt.Sprintf("%s,", strings.Repeat(string(rune('a'+i)), 220))
	}
	return strings.TrimSuffix(text, ",") + "]}\n"
}

// awaitGroup waits until a Datacenter says, of its present generation, how many servers have the settings of the group.
func (e *estate) awaitGroup(name string, want v1alpha1.ServerGroupStatus) *v1alpha1.Datacenter {
	e.t.Helper()
	var dc v1alpha1.Datacenter
	e.await(func() error {
		if err := e.api.Get(e.t.Context(), client.ObjectKey{Name: name}, &dc); err != nil {
			return err
		}
		if dc.Status.ObservedGeneration != dc.Generation || !slices.ContainsFunc(dc.Status.ServerGroups, func(g v1alpha1.ServerGroupStatus) bool { return reflect.DeepEqual(g, want) }) {
			return fmt.Errorf("Datacenter %s generation %d: %+v", name, dc.Generation, dc.Status)
		}
		return nil
	})
	return &dc
}

// settledGroup is what a Datacenter says when its one server has the settings of its group.
func settledGroup(mode v1alpha1.LimitsMode) v1alpha1.ServerGroupStatus {
	return v1alpha1.ServerGroupStatus{Name: "authoritative", LimitsMode: mode, Settings: "1/1"}
}

func (e *estate) awaitDatacenterCondition(name, typ string, status metav1.ConditionStatus, reason, message string) {
	e.t.Helper()
	e.await(func() error {
		var dc v1alpha1.Datacenter
		if err := e.api.Get(e.t.Context(), client.ObjectKey{Name: name}, &dc); err != nil {
			return err
		}
		c := meta.FindStatusCondition(dc.Status.Conditions, typ)
		if c == nil || c.Status != status || c.Reason != reason || !strings.Contains(c.Message, message) || c.ObservedGeneration != dc.Generation {
			return fmt.Errorf("Datacenter %s: condition %s is %+v", name, typ, c)
		}
		return nil
	})
}

func TestSettingsReachTheServersOfTheirGroupAndStay(t *testing.T) {
	e := newEstate(t, oneServerEach(""), longZone())
	leader := e.startManager(0)
	dir := t.TempDir()
	a := e.startProcess(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "a"}, dir)
	b := e.startProcess(control.ServerID{Datacenter: "dc-b", Group: "authoritative", Name: "b"}, t.TempDir())
	e.awaitReady("dns-root", "corp")
	dc := e.awaitGroup("dc-a", settledGroup(v1alpha1.LimitsLog))
	if peer := dc.Status.Servers[0].PeerAddress; peer != a.peer {
		t.Errorf("a's peers reach it at %q, want %q", peer, a.peer)
	}
	if whole, nsid := a.room(); whole || nsid != "" {
		t.Errorf("by default the answer is whole: %v, NSID %q", whole, nsid)
	}

	e.apply(oneServerEach(", maxUDPSize: 4096, nsid: Enabled, limits: {mode: Enforce}"))
	e.awaitGroup("dc-a", settledGroup(v1alpha1.LimitsEnforce))
	if whole, nsid := a.room(); !whole || nsid != fmt.Sprintf("%x", "a") {
		t.Errorf("with more room the answer is whole: %v, NSID %q", whole, nsid)
	}
	if whole, nsid := b.room(); whole || nsid != "" {
		t.Errorf("in the other datacenter the answer is whole: %v, NSID %q", whole, nsid)
	}

	// Anycast may take a client to another datacenter: its cookie is good there.
	const clientCookie = "0011223344556677"
	cookie := a.cookie(clientCookie)
	if len(cookie) != 48 {
		t.Fatalf("the cookie is %q", cookie)
	}
	if again := b.cookie(cookie); again != cookie {
		t.Errorf("the other server makes %q of %q", again, cookie)
	}

	// What a server can't do it refuses, and says so; when it can, it does it.
	host, _, _ := net.SplitHostPort(a.address)
	taken, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	port := taken.Addr().(*net.TCPAddr).Port
	e.apply(oneServerEach(fmt.Sprintf(", maxUDPSize: 4096, transports: {httpdns: {access: Open, port: %d}}", port)))
	e.awaitDatacenterCondition("dc-a", v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonRejected, "authoritative/a: settings: Failed: ")
	e.awaitDatacenterCondition("dc-a", v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonRejected, "in use")
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	e.apply(oneServerEach(fmt.Sprintf(", maxUDPSize: 4096, nsid: Enabled, transports: {httpdns: {access: Open, port: %d}}", port)))
	e.awaitDatacenterCondition("dc-a", v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, "")
	conn, err := net.Dial("tcp", taken.Addr().String())
	if err != nil {
		t.Errorf("HTTPDNS: %v", err)
	} else {
		_ = conn.Close()
	}

	// Without any manager a server that is started again goes by what it was told, and so does a new one beside it.
	leader.stop()
	a.stop()
	a.start()
	if whole, nsid := a.room(); !whole || nsid == "" {
		t.Errorf("after a restart the answer is whole: %v, NSID %q", whole, nsid)
	}
	e.apply(oneServerEach(", maxUDPSize: 4096")) // nobody is there to act on it
	sibling := e.startProcess(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "a2"}, t.TempDir(), a.peer)
	if got := sibling.cookie(clientCookie); len(got) != 48 {
		t.Errorf("the copy's cookie is %q", got)
	}
	if again := b.cookie(a.cookie(clientCookie)); len(again) != 48 {
		t.Errorf("the cookie is %q", again)
	}
	for name, p := range map[string]*process{"b": b, "a2": sibling} {
		if bad := p.metric(`fingerpost_dnsserver_cookies_total{cookie="bad"`); bad != 0 {
			t.Errorf("%s took %v cookies for bad", name, bad)
		}
	}
}

// TestCookieSecretsRotateWithoutABadCookie rotates every two seconds: a client that asks one server after the other is
// never told that its cookie is bad.
func TestCookieSecretsRotateWithoutABadCookie(t *testing.T) {
	e := newEstate(t, oneServerEach(""), longZone())
	e.cookieRotation = 2 * time.Second
	e.watch(&corev1.SecretList{})
	e.startManager(0)
	processes := []*process{
		e.startProcess(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "a"}, t.TempDir()),
		e.startProcess(control.ServerID{Datacenter: "dc-b", Group: "authoritative", Name: "b"}, t.TempDir()),
	}
	e.awaitReady("dns-root", "corp")
	for _, dc := range []string{"dc-a", "dc-b"} {
		e.awaitGroup(dc, settledGroup(v1alpha1.LimitsLog))
	}
	before := map[*process]float64{}
	for _, p := range processes {
		before[p] = p.metric(`fingerpost_dnsserver_cookies_total{cookie="bad"`)
	}
	key := client.ObjectKey{Namespace: operatorNamespace, Name: "fingerpost-cookies.authoritative"}
	current := func() string {
		var s corev1.Secret
		if err := e.api.Get(t.Context(), key, &s); err != nil {
			t.Fatal(err)
		}
		return string(s.Data["current"])
	}
	cookie := processes[0].cookie("0011223344556677")
	for range 3 {
		last := current()
		e.await(func() error {
			cookie = processes[1].cookie(cookie)
			cookie = processes[0].cookie(cookie)
			if current() == last {
				return fmt.Errorf("the secret that makes cookies is still the same")
			}
			return nil
		})
	}
	for _, p := range processes {
		if bad := p.metric(`fingerpost_dnsserver_cookies_total{cookie="bad"`); bad != before[p] {
			t.Errorf("%v cookies were bad", bad-before[p])
		}
	}
}

// TestTheTopologyOutlivesServersAndLeaders: what the hub does not see may go on voting.
func TestTheTopologyOutlivesServersAndLeaders(t *testing.T) {
	e := newEstate(t, oneServerEach(""), longZone())
	leader := e.startManager(0)
	dir := t.TempDir()
	a := e.startServer(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "a"}, dir)
	b := e.startProcess(control.ServerID{Datacenter: "dc-b", Group: "authoritative", Name: "b"}, t.TempDir())
	e.awaitGroup("dc-b", settledGroup(v1alpha1.LimitsLog))
	hasPeer := func() error {
		d, _ := a.replica.Document("topology")
		if !strings.Contains(string(d.Body), b.peer) { // a text in the message
			return fmt.Errorf("a's topology of %d octets does not have b's address", len(d.Body))
		}
		return nil
	}
	e.await(func() error {
		if d, _ := a.replica.Document("topology"); !strings.Contains(string(d.Body), "dc-b") {
			return fmt.Errorf("a has no topology")
		}
		return nil
	})
	if hasPeer() == nil {
		t.Error("a is told of b, though there is nothing to vote on")
	}
	e.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: payments}
---
apiVersion: fingerpost.dev/v1alpha1
kind: DynamicRecord
metadata: {name: app, namespace: payments}
spec:
  zoneRef: {name: corp, namespace: dns-root}
  host: app
  steering: {policy: Nearest}
  pools: [{name: a, targets: [{address: 192.0.2.1}]}]
`)
	e.poll(hasPeer)
	e.await(func() error { // before it leaves, the API has its address
		var dc v1alpha1.Datacenter
		if err := e.api.Get(t.Context(), client.ObjectKey{Name: "dc-b"}, &dc); err != nil {
			return err
		}
		if len(dc.Status.Servers) != 1 || dc.Status.Servers[0].PeerAddress != b.peer {
			return fmt.Errorf("servers are %+v", dc.Status.Servers)
		}
		return nil
	})
	b.stop()
	e.awaitDatacenterCondition("dc-b", v1alpha1.ConditionDegraded, metav1.ConditionTrue, v1alpha1.ReasonServersMissing, "authoritative/b")
	leader.stop()
	e.startManager(1)
	e.await(func() error {
		if s := a.client.State(); s.Fence.Epoch < 2 || !s.Synced || s.Hub == "" {
			return fmt.Errorf("a: %+v", s)
		}
		return nil
	})
	// Another topology reaches it, in which b still has its place.
	d, _ := a.replica.Document("topology")
	e.apply(strings.Replace(oneServerEach(""), "metadata: {name: dc-b}\nspec:", "metadata: {name: dc-b}\nspec:\n  networks: [10.2.0.0/16]", 1))
	e.await(func() error {
		next, _ := a.replica.Document("topology")
		if next.Digest() == d.Digest() || !strings.Contains(string(next.Body), "10.2.0.0/16") {
			return fmt.Errorf("the topology has not changed")
		}
		return hasPeer()
	})
}

func TestAZoneSaysWhatNobodyCanGetWhereTCPIsClosed(t *testing.T) {
	e := newEstate(t, oneServerEach(", transports: {tcp: Closed}"), longZone())
	e.startManager(0)
	a := e.startProcess(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "a"}, t.TempDir())
	e.awaitReady("dns-root", "corp")
	z := e.awaitCondition("dns-root", "corp", v1alpha1.ConditionOversized, metav1.ConditionTrue, v1alpha1.ReasonTooLargeWithoutTCP)
	message := meta.FindStatusCondition(z.Status.Conditions, v1alpha1.ConditionOversized).Message
	if !strings.Contains(message, "dc-a/authoritative") || !strings.Contains(message, "long.corp TXT") {
		t.Errorf("the message is %q", message)
	}
	e.awaitGroup("dc-a", settledGroup(v1alpha1.LimitsLog))
	if conn, err := net.Dial("tcp", a.address); err == nil {
		_ = conn.Close()
		t.Error("TCP is open")
	}
	e.apply(oneServerEach(", maxUDPSize: 4096, transports: {tcp: Closed}"))
	e.awaitCondition("dns-root", "corp", v1alpha1.ConditionOversized, metav1.ConditionFalse, v1alpha1.ReasonFits)
	e.awaitGroup("dc-a", settledGroup(v1alpha1.LimitsLog))
	if whole, _ := a.room(); !whole {
		t.Error("what fits is cut")
	}
	e.apply(oneServerEach(", maxUDPSize: 4096, transports: {tcp: Open}"))
	e.await(func() error {
		if c := meta.FindStatusCondition(e.zone("dns-root", "corp").Status.Conditions, v1alpha1.ConditionOversized); c != nil {
			return fmt.Errorf("condition is still %+v", c)
		}
		return nil
	})
}
