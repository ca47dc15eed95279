package controllers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// Clients near each datacenter, and backends in it.
const (
	clientA, clientB   = "127.101.0.9", "127.102.0.9"
	backendA, backendB = "127.101.1.1", "127.102.1.1"
)

const steeredEstate = `
apiVersion: v1
kind: Namespace
metadata: {name: dns-root}
---
apiVersion: v1
kind: Namespace
metadata: {name: payments}
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-a}
spec:
  rank: 1
  networks: [127.101.0.0/16]
  probes: {deniedNetworks: []}
  serverGroups: [{name: authoritative, management: External, addresses: [10.1.0.1]}]
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-b}
spec:
  rank: 2
  networks: [127.102.0.0/16]
  probes: {deniedNetworks: []}
  serverGroups: [{name: authoritative, management: External, addresses: [10.2.0.1]}]
---
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: corp, namespace: dns-root}
spec:
  name: corp
  serverGroup: authoritative
  allowedRecords: [{namespaces: {from: All}, hosts: ["*"]}]
`

// steeredApp is a record with one backend in each datacenter, which probes ask at the port.
func steeredApp(port int, more string) string {
	return fmt.Sprintf(`
apiVersion: fingerpost.dev/v1alpha1
kind: HealthProbe
metadata: {name: tcp, namespace: payments}
spec: {type: TCP, tcp: {port: %d}, interval: 1s, timeout: 500ms, failureThreshold: 1, successThreshold: 1}
---
apiVersion: fingerpost.dev/v1alpha1
kind: DynamicRecord
metadata: {name: app, namespace: payments}
spec:
  zoneRef: {name: corp, namespace: dns-root}
  host: app
  ttl: {value: 2s}
  pools:
  - {name: a, datacenter: dc-a, targets: [{address: %s}]}
  - {name: b, datacenter: dc-b, targets: [{address: %s}]}
  probeRef: {name: tcp}
%s`, port, backendA, backendB, more)
}

// backend is something that takes connections until it is closed.
type backend struct {
	t       *testing.T
	address string
	l       net.Listener
}

// startBackends starts one in each datacenter, at the same port.
func startBackends(t *testing.T) (a, b *backend, port int) {
	t.Helper()
	for range 50 {
		first, err := net.Listen("tcp", net.JoinHostPort(backendA, "0"))
		if err != nil {
			t.Fatal(err)
		}
		port = first.Addr().(*net.TCPAddr).Port
		second, err := net.Listen("tcp", fmt.Sprintf("%s:%d", backendB, port))
		if err != nil {
			_ = first.Close() // taken there: another port
			continue
		}
		a, b = &backend{t, first.Addr().String(), nil}, &backend{t, second.Addr().String(), nil}
		a.serve(first)
		b.serve(second)
		return a, b, port
	}
	t.Fatal("no free port")
	return nil, nil, 0
}

func (b *backend) serve(l net.Listener) {
	b.l = l
	b.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
}

func (b *backend) die() {
	if err := b.l.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *backend) rise() {
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.serve(l)
}

// poll looks again and again until check finds nothing wrong: answers over sockets give no sign when they change.
func (e *estate) poll(check func() error) {
	e.t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	deadline := time.Now().Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("after a minute: %v", err)
		}
		<-again.C
	}
}

// given is what a client at an address is answered: rcode and addresses.
func (p *process) given(client, name string) string {
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	c := dns.Client{Timeout: time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(client)}}}
	reply, _, err := c.Exchange(q, p.address)
	if err != nil {
		return err.Error()
	}
	answers := []string{dns.RcodeToString[reply.Rcode]}
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok {
			answers = append(answers, a.A.String())
		}
	}
	return strings.Join(answers, " ")
}

// dig is what a server answers, as text.
func (e *estate) dig(p *process, name string, qtype uint16) string {
	e.t.Helper()
	reply, err := dns.Exchange(new(dns.Msg).SetQuestion(name, qtype), p.address)
	if err != nil {
		e.t.Fatal(err)
	}
	return reply.String()
}

// awaitGiven waits until all servers answer clients of dc-a and dc-b so.
func (e *estate) awaitGiven(servers []*process, toA, toB string) {
	e.t.Helper()
	e.poll(func() error {
		for _, s := range servers {
			for client, want := range map[string]string{clientA: toA, clientB: toB} {
				if got := s.given(client, "app.corp."); got != want {
					return fmt.Errorf("%s answers %s with %q, want %q", s.config.Hub.Name, client, got, want)
				}
			}
		}
		return nil
	})
}

func (e *estate) awaitRecord(check func(*v1alpha1.DynamicRecord) error) *v1alpha1.DynamicRecord {
	e.t.Helper()
	var o v1alpha1.DynamicRecord
	e.poll(func() error {
		if err := e.api.Get(e.t.Context(), client.ObjectKey{Namespace: "payments", Name: "app"}, &o); err != nil {
			return err
		}
		if o.Status.ObservedGeneration != o.Generation {
			return fmt.Errorf("status is of generation %d, not %d", o.Status.ObservedGeneration, o.Generation)
		}
		if err := check(&o); err != nil {
			return fmt.Errorf("%w: %+v", err, o.Status)
		}
		return nil
	})
	return &o
}

func columns(healthy, serving string) func(*v1alpha1.DynamicRecord) error {
	return func(o *v1alpha1.DynamicRecord) error {
		if o.Status.Healthy != healthy || o.Status.Serving != serving || !meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionReady) {
			return fmt.Errorf("healthy %s, serving %s; want %s, %s and Ready", o.Status.Healthy, o.Status.Serving, healthy, serving)
		}
		return nil
	}
}

func recordCondition(typ string, status metav1.ConditionStatus, reason, message string) func(*v1alpha1.DynamicRecord) error {
	return func(o *v1alpha1.DynamicRecord) error {
		c := meta.FindStatusCondition(o.Status.Conditions, typ)
		if c == nil || c.Status != status || c.Reason != reason || !strings.Contains(c.Message, message) {
			return fmt.Errorf("condition %s is %+v", typ, c)
		}
		return nil
	}
}

func (e *estate) startSteered(more string) (servers []*process, a, b *backend) {
	e.t.Helper()
	a, b, port := startBackends(e.t)
	for _, dc := range []string{"dc-a", "dc-b"} {
		servers = append(servers, e.startProcess(control.ServerID{Datacenter: dc, Group: "authoritative", Name: "ns-" + dc}, e.t.TempDir()))
	}
	e.apply(steeredApp(port, more))
	return servers, a, b
}

func TestANameAnswersTheNearestHealthyAddress(t *testing.T) {
	e := newEstate(t, steeredEstate)
	e.startManager(0)
	servers, a, b := e.startSteered("  steering: {policy: Nearest}\n  objectives: {rto: 7s}\n")
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	o := e.awaitRecord(columns("2/2", "dc-a,dc-b"))
	if o.Status.TTL != "2s" || o.Status.WorstFailover != "7.2s" {
		t.Errorf("status is %+v", o.Status)
	}
	if err := recordCondition(v1alpha1.ConditionRTOFeasible, metav1.ConditionFalse, "TooSlow", "5s until votes lapse + 0.2s + 2s = 7.2s > 7s; TTL 1s meets it")(o); err != nil {
		t.Error(err) // 5s until votes lapse, 0.2s, and the TTL
	}

	serial := e.zone("dns-root", "corp").Status.Published.Serial
	a.die()
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
	o = e.awaitRecord(columns("1/2", "dc-b"))
	down := o.Status.Targets[0]
	if down.State != v1alpha1.TargetDown || down.LastFailure != "connection refused" || down.Since == nil {
		t.Errorf("the dead target is %+v", down)
	}
	if got := e.zone("dns-root", "corp").Status.Published.Serial; got != serial {
		t.Errorf("the flip has changed the serial from %d to %d", serial, got)
	}

	b.die()
	e.awaitRecord(recordCondition(v1alpha1.ConditionHealthy, metav1.ConditionFalse, "AllDown", "ReturnAll"))
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	a.rise()
	b.rise()
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	e.awaitRecord(columns("2/2", "dc-a,dc-b"))
}

// TestAWitnessVotesAndAnswersNobody: its servers are of a group that the zone does not name, and hold the zone all the same.
func TestAWitnessVotesAndAnswersNobody(t *testing.T) {
	e := newEstate(t, steeredEstate+`
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-w}
spec:
  role: Witness
  probes: {deniedNetworks: []}
  serverGroups: [{name: votes, management: External, addresses: [10.3.0.1]}]
`)
	manager := e.startManager(0)
	servers, a, _ := e.startSteered("  steering: {policy: Nearest}\n")
	witness := e.startProcess(control.ServerID{Datacenter: "dc-w", Group: "votes", Name: "ns-dc-w"}, t.TempDir())
	votes := func(want ...string) func(*v1alpha1.DynamicRecord) error {
		return func(o *v1alpha1.DynamicRecord) error {
			for i, target := range o.Status.Targets {
				if target.Votes != want[i] {
					return fmt.Errorf("votes on %s are %s, want %s", target.Address, target.Votes, want[i])
				}
			}
			return columns(want[len(want)-2], want[len(want)-1])(o)
		}
	}
	silent := func() {
		t.Helper()
		for _, name := range []string{"app.corp.", "corp.", "ns-dc-a.corp."} {
			e.poll(func() error {
				switch got := witness.given(clientA, name); got {
				case "REFUSED":
					return nil
				case "NOERROR", "SERVFAIL", "NXDOMAIN":
					t.Errorf("the witness answers %s with %s", name, got)
					return nil
				default:
					return fmt.Errorf("%s: %s", name, got) // it does not listen yet
				}
			})
		}
	}
	o := e.awaitRecord(votes("3/3", "3/3", "2/2", "dc-a,dc-b"))
	if len(o.Status.Datacenters) != 2 {
		t.Errorf("a witness serves: %+v", o.Status.Datacenters)
	}
	silent()
	if host := e.dig(servers[0], "corp.", dns.TypeNS); strings.Contains(host, "dc-w") {
		t.Errorf("a witness is a name server: %s", host)
	}
	a.die()
	e.awaitRecord(columns("1/2", "dc-b"))

	manager.stop()
	witness.stop()
	witness.start() // what it is, it knows from its disk
	silent()
}

func TestSteeringGoesOnWithoutTheControlPlane(t *testing.T) {
	e := newEstate(t, steeredEstate)
	manager := e.startManager(0)
	servers, a, _ := e.startSteered("  steering: {policy: Failover}\n  onPeerLoss: TrustLocal\n")
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
	e.awaitRecord(columns("2/2", "dc-a"))
	manager.stop()

	a.die()
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
	servers[0].stop()
	servers[0].start() // it has neither a hub nor what it saw before the restart but what is on its disk
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
	a.rise()
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
	a.die()
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)

	e.startManager(1)
	e.awaitRecord(columns("1/2", "dc-b"))
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
}

func TestADrainMovesClientsAndSaysWhenItIsSafe(t *testing.T) {
	e := newEstate(t, steeredEstate)
	e.startManager(0)
	servers, _, b := e.startSteered("  steering: {policy: Nearest}\n")
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	e.apply(`
apiVersion: fingerpost.dev/v1alpha1
kind: TrafficOverride
metadata: {name: drain-dc-a, namespace: payments}
spec: {action: Drain, drain: {datacenter: dc-a}, expires: "2099-12-01T04:00:00Z", reason: CHG-1}
`)
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
	e.awaitRecord(func(o *v1alpha1.DynamicRecord) error {
		if o.Status.Override != "payments/drain-dc-a" || o.Status.Serving != "dc-b" {
			return fmt.Errorf("override %s, serving %s", o.Status.Override, o.Status.Serving)
		}
		return recordCondition(v1alpha1.ConditionOverridden, metav1.ConditionTrue, "Override", "payments/drain-dc-a")(o)
	})
	override := func(check func(*v1alpha1.TrafficOverride) error) {
		t.Helper()
		e.poll(func() error {
			var o v1alpha1.TrafficOverride
			if err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "payments", Name: "drain-dc-a"}, &o); err != nil {
				return err
			}
			if err := check(&o); err != nil {
				return fmt.Errorf("%w: %+v", err, o.Status)
			}
			return nil
		})
	}
	override(func(o *v1alpha1.TrafficOverride) error {
		if !meta.IsStatusConditionTrue(o.Status.Conditions, v1alpha1.ConditionSafeToProceed) || o.Status.SafeAt == nil || o.Status.Target != "dc-a" || o.Status.Records != 1 {
			return fmt.Errorf("not safe")
		}
		return nil
	})

	// It would leave nothing: then it does nothing, and says so.
	b.die()
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
	override(func(o *v1alpha1.TrafficOverride) error {
		if c := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionDegraded); c == nil || c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonKeepAtLeast {
			return fmt.Errorf("condition Degraded is %+v", c)
		}
		if c := meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionSafeToProceed); c == nil || c.Status != metav1.ConditionFalse {
			return fmt.Errorf("clients stay, and condition SafeToProceed is %+v", c)
		}
		return nil
	})
	b.rise()
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)

	if err := e.api.Delete(t.Context(), &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "drain-dc-a"}}); err != nil {
		t.Fatal(err)
	}
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	e.awaitRecord(func(o *v1alpha1.DynamicRecord) error {
		if o.Status.Override != "" || meta.FindStatusCondition(o.Status.Conditions, v1alpha1.ConditionOverridden) != nil {
			return fmt.Errorf("still overridden")
		}
		return nil
	})
}

// override makes an override by a server's own control.
func (p *process) override(body string) string {
	p.t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dnsserver.DialControl(ctx, p.config.Hub.StateDir)
	}}}
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "http://server/overrides", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	reply, err := c.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer reply.Body.Close()
	var text json.RawMessage
	_ = json.NewDecoder(reply.Body).Decode(&text) // there may be none
	return fmt.Sprintf("%d %s", reply.StatusCode, text)
}

func TestBreakGlassSpreadsAmongServersAndShowsWhenTheHubIsBack(t *testing.T) {
	e := newEstate(t, steeredEstate)
	manager := e.startManager(0)
	servers, _, _ := e.startSteered("  steering: {policy: Nearest}\n")
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	manager.stop()
	drain := func(lasting time.Duration) string {
		return fmt.Sprintf(`{"source": "local/drain", "allRecords": true, "expires": "%d", "keepAtLeast": 1, "drain": {"datacenter": "dc-b"}}`, time.Now().Add(lasting).UnixMilli())
	}
	if got := servers[0].override(drain(48 * time.Hour)); !strings.HasPrefix(got, "400") {
		t.Errorf("an override of two days is answered %s", got)
	}
	if got := servers[0].override(strings.Replace(drain(time.Hour), "dc-b", "dc-x", 1)); !strings.HasPrefix(got, "400") {
		t.Errorf("an override of what no record has is answered %s", got)
	}
	if got := servers[0].override(drain(time.Hour)); !strings.HasPrefix(got, "204") {
		t.Fatalf("an override is answered %s", got)
	}
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
	servers[1].stop()
	servers[1].start()
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
	e.startManager(1)
	e.awaitRecord(recordCondition(v1alpha1.ConditionOverridden, metav1.ConditionTrue, "Override", "local/drain"))
	if got := servers[1].override(drain(0)); !strings.HasPrefix(got, "204") { // ended, at the other server
		t.Fatalf("the end is answered %s", got)
	}
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
}

func TestRecordsAreRefusedWithTheReason(t *testing.T) {
	e := newEstate(t, steeredEstate)
	e.startManager(0)
	servers, _, _ := e.startSteered("  steering: {policy: Nearest}\n")
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	e.awaitRecord(columns("2/2", "dc-a,dc-b"))
	port := 1
	// A wrong spec: the last good one goes on being served.
	e.apply(strings.Replace(steeredApp(port, "  steering: {policy: Nearest}\n"), "probeRef: {name: tcp}", "probeRef: {name: none}", 1))
	e.awaitRecord(recordCondition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonProbeNotFound, `"none"`))
	for _, s := range servers {
		if got := s.given(clientA, "app.corp."); !strings.HasPrefix(got, "NOERROR "+backendA) {
			t.Errorf("%s answers %q", s.config.Hub.Name, got)
		}
	}
	// A grant that is withdrawn takes the name with it.
	e.apply(strings.Replace(steeredEstate, `{from: All}`, `{from: Same}`, 1))
	e.awaitRecord(recordCondition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNotAllowedByZone, "allowedRecords"))
	e.awaitGiven(servers, "NXDOMAIN", "NXDOMAIN")
}

func TestAnEditDoesNotBringADeadTargetBack(t *testing.T) {
	e := newEstate(t, steeredEstate)
	e.startManager(0)
	servers, a, _ := e.startSteered("  steering: {policy: Nearest}\n")
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	a.die()
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
	e.awaitRecord(columns("1/2", "dc-b"))
	stop, watched := make(chan struct{}), make(chan string, 1)
	go func() { // whoever asks while the edit is on its way
		defer close(watched)
		for {
			for _, s := range servers {
				if got := s.given(clientA, "app.corp."); got != "NOERROR "+backendB {
					watched <- got
					return
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	var o v1alpha1.DynamicRecord
	if err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "payments", Name: "app"}, &o); err != nil {
		t.Fatal(err)
	}
	ttl := v1alpha1.Duration("3s")
	o.Spec.TTL.Value = &ttl
	if err := e.api.Update(t.Context(), &o); err != nil {
		t.Fatal(err)
	}
	e.awaitRecord(func(o *v1alpha1.DynamicRecord) error {
		if o.Status.TTL != "3s" {
			return fmt.Errorf("the TTL is %s", o.Status.TTL)
		}
		return columns("1/2", "dc-b")(o)
	})
	close(stop)
	if got, bad := <-watched; bad {
		t.Errorf("meanwhile a client was given %q", got)
	}
}

func TestAFailoverByHandWaitsForAPerson(t *testing.T) {
	e := newEstate(t, steeredEstate)
	e.startManager(0)
	servers, a, _ := e.startSteered("  steering: {policy: Failover}\n  onPeerLoss: TrustLocal\n  failover: {mode: Manual}\n  failback: {mode: Manual}\n")
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
	e.awaitRecord(columns("2/2", "dc-a"))
	a.die()
	e.awaitRecord(recordCondition(v1alpha1.ConditionAwaitingApproval, metav1.ConditionTrue, "AwaitingApproval", "pool b"))
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
	force := `
apiVersion: fingerpost.dev/v1alpha1
kind: TrafficOverride
metadata: {name: go, namespace: payments}
spec: {action: %s, %sexpires: "2099-12-01T04:00:00Z"}
`
	e.apply(fmt.Sprintf(force, "Force", "force: {pool: b}, "))
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
	remove := func() {
		t.Helper()
		if err := e.api.Delete(t.Context(), &v1alpha1.TrafficOverride{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "go"}}); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	a.rise()
	e.awaitRecord(func(o *v1alpha1.DynamicRecord) error { // the person's decision stays, though the first choice is back
		if o.Status.Override != "" {
			return fmt.Errorf("still overridden")
		}
		return columns("2/2", "dc-b")(o)
	})
	e.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
	e.apply(fmt.Sprintf(force, "Failback", ""))
	e.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendA)
	remove()
	e.awaitRecord(columns("2/2", "dc-a"))
}

// manyRecords are records with one backend in each datacenter, in a zone of one server a datacenter.
func manyRecords(n, port int) string {
	var b strings.Builder
	for i := range n {
		one := strings.ReplaceAll(steeredApp(port, "  steering: {policy: Nearest}\n"), "app", fmt.Sprintf("app-%d", i))
		_, record, _ := strings.Cut(one, "---\n")
		b.WriteString("---\n" + record)
	}
	return b.String()
}

// steeredStatuses are the resource versions of all objects whose status says something of steering.
func (e *estate) steeredStatuses() map[string]string {
	e.t.Helper()
	versions := map[string]string{}
	var records v1alpha1.DynamicRecordList
	var probes v1alpha1.HealthProbeList
	if err := errors.Join(e.api.List(e.t.Context(), &records), e.api.List(e.t.Context(), &probes)); err != nil {
		e.t.Fatal(err)
	}
	for _, o := range records.Items {
		versions["DynamicRecord "+o.Name] = o.ResourceVersion
	}
	for _, o := range probes.Items {
		versions["HealthProbe "+o.Name] = o.ResourceVersion
	}
	for _, o := range e.statuses() {
		versions[fmt.Sprintf("%T %s", o, o.GetName())] = o.GetResourceVersion()
	}
	return versions
}

// TestNothingIsWrittenWhileNothingFlips lets servers probe 1,000 names for a while, and the leader change: all say the same as
// before, so nothing is written.
func TestNothingIsWrittenWhileNothingFlips(t *testing.T) {
	const names = 1000
	e := newEstate(t, steeredEstate)
	e.statusWrites = 1000
	leader := e.startManager(0)
	servers, _, b := e.startSteered("  steering: {policy: Nearest}\n")
	_, text, _ := net.SplitHostPort(b.address)
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	e.apply(manyRecords(names, port))
	e.poll(func() error {
		var records v1alpha1.DynamicRecordList
		if err := e.api.List(t.Context(), &records, client.InNamespace("payments")); err != nil {
			return err
		}
		for i := range records.Items {
			if err := columns("2/2", "dc-a,dc-b")(&records.Items[i]); err != nil {
				return fmt.Errorf("%s: %w", records.Items[i].Name, err)
			}
		}
		var p v1alpha1.HealthProbe
		if err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "payments", Name: "tcp"}, &p); err != nil {
			return err
		}
		if want := fmt.Sprint(names + 1); p.Status.UsedBy != want || p.Status.Up != fmt.Sprint(2*(names+1)) || p.Status.Down != "0" {
			return fmt.Errorf("HealthProbe is used by %s with %s up, want %s", p.Status.UsedBy, p.Status.Up, want)
		}
		for _, dc := range []string{"dc-a", "dc-b"} {
			var o v1alpha1.Datacenter
			if err := e.api.Get(t.Context(), client.ObjectKey{Name: dc}, &o); err != nil {
				return err
			}
			if o.Status.Vantage != "1/1" || o.Status.Synced != "1/1" {
				return fmt.Errorf("%s: VANTAGE is %q, SYNCED %q", dc, o.Status.Vantage, o.Status.Synced)
			}
		}
		return nil
	})
	probes := func() float64 {
		return servers[0].metric("fingerpost_dnsserver_probes_total ") + servers[1].metric("fingerpost_dnsserver_probes_total ")
	}
	rounds := func(n int) {
		t.Helper()
		until := probes() + float64(n*2*2) // the names share their checks
		e.poll(func() error {
			if done := probes(); done < until {
				return fmt.Errorf("%v of %v probes", done, until)
			}
			return nil
		})
	}
	before := e.steeredStatuses()
	rounds(5)
	same := func(when string) {
		t.Helper()
		for what, version := range e.steeredStatuses() {
			if version != before[what] {
				t.Errorf("%s: %s was written", when, what)
			}
		}
	}
	same("while probes run")
	e.startManager(1)
	leader.stop()
	e.apply(strings.ReplaceAll(manyRecords(1, port), "app-0", "another")) // done after all that was before
	e.poll(func() error {
		var o v1alpha1.DynamicRecord
		if err := e.api.Get(t.Context(), client.ObjectKey{Namespace: "payments", Name: "another"}, &o); err != nil {
			return err
		}
		return columns("2/2", "dc-a,dc-b")(&o)
	})
	rounds(3)
	after := e.steeredStatuses()
	for what, version := range before {
		if strings.HasPrefix(what, "DynamicRecord ") && after[what] != version {
			t.Errorf("the new leader has written %s", what)
		}
	}
}
