package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	program "github.com/fingerpost-dns/fingerpost/hack/process"
)

// TestASecondHubClusterTakesOver is the procedure of docs/operations.md: the first hub is destroyed with its etcd, the second has the
// manifests from git, without one zone and without an override that somebody made by hand.
func TestASecondHubClusterTakesOver(t *testing.T) {
	plane, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	destroy := sync.OnceFunc(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(destroy)
	api, err := equip(plane)
	if err != nil {
		t.Fatal(err)
	}
	second := newEstate(t)
	first := estateOn(t, api, plane)
	first.hub = second.hub // servers have both in order: the first hub listens at the first address
	const byHand = `
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: forgotten, namespace: dns-root}
spec: {name: forgotten, serverGroup: authoritative, records: [{name: www, type: A, values: [10.0.0.9]}]}
---
apiVersion: fingerpost.dev/v1alpha1
kind: TrafficOverride
metadata: {name: drain-dc-a, namespace: payments}
spec: {action: Drain, drain: {datacenter: dc-a}, expires: "2099-12-01T04:00:00Z", reason: CHG-1}
`
	first.begin(steeredEstate)
	manager := first.startManager(0)
	servers, near, _ := first.startSteered("  steering: {policy: Nearest}\n")
	steered := steeredApp(int(netip.MustParseAddrPort(near.address).Port()), "  steering: {policy: Nearest}\n")
	first.awaitGiven(servers, "NOERROR "+backendA, "NOERROR "+backendB)
	first.apply(byHand)
	first.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)
	first.awaitReady("dns-root", "forgotten")
	published := first.awaitReady("dns-root", "corp").Status.Published
	first.awaitRecord(columns("2/2", "dc-b"))

	// What is backed up: the CA, without which no server trusts the second hub.
	var ca corev1.Secret
	if err := first.api.Get(t.Context(), client.ObjectKey{Namespace: operatorNamespace, Name: "fingerpost-ca"}, &ca); err != nil {
		t.Fatal(err)
	}
	manager.stop()
	destroy()
	if err := second.api.DeleteAllOf(t.Context(), &corev1.Secret{}, client.InNamespace(operatorNamespace)); err != nil {
		t.Fatal(err)
	}
	second.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: ca.Name, Labels: ca.Labels}, Type: ca.Type, Data: ca.Data})

	second.apply(strings.Replace(steeredEstate, "kind: Datacenter\nmetadata: {name: dc-b}", "kind: Datacenter\nmetadata: {name: dc-c}", 1)) // whoever applied them has missed one
	promoted := second.startManager(1)
	second.apply(steered)
	second.poll(func() error {
		c := second.datacenterCondition("dc-a", v1alpha1.ConditionRemovalWithheld)
		for _, want := range []string{"forgotten", "payments/drain-dc-a (drain dc-a", "servers of dc-b have zones of another hub cluster"} {
			if c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, want) {
				return fmt.Errorf("nothing of %q in %+v", want, c)
			}
		}
		return nil
	})
	second.awaitGiven(servers, "NOERROR "+backendB, "NOERROR "+backendB)

	// Everything of git is applied. What is not in git goes on.
	second.apply(steeredEstate)
	if err := second.api.Delete(t.Context(), &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: "dc-c"}}); err != nil {
		t.Fatal(err)
	}
	second.awaitReady("dns-root", "corp")
	second.awaitRecord(columns("2/2", "dc-b"))
	late := second.startProcess(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: "late"}, t.TempDir())
	second.awaitGiven(append(servers, late), "NOERROR "+backendB, "NOERROR "+backendB)
	second.apply(strings.Replace(steeredEstate[strings.LastIndex(steeredEstate, "---\n"):], "serverGroup: authoritative",
		"serverGroup: authoritative\n  records: [{name: new, type: A, values: [10.0.0.7]}]", 1))
	second.poll(func() error {
		for _, s := range servers {
			if got := second.dig(s, "new.corp.", dns.TypeA); !strings.Contains(got, "10.0.0.7") {
				return fmt.Errorf("%s: %s", s.config.Hub.Name, got)
			}
			if got := second.dig(s, "www.forgotten.", dns.TypeA); !strings.Contains(got, "10.0.0.9") {
				t.Fatalf("%s lost a zone that the second cluster does not know: %s", s.config.Hub.Name, got)
			}
		}
		return nil
	})
	if now := second.awaitReady("dns-root", "corp").Status.Published; now.Serial <= published.Serial || now.Digest == published.Digest {
		t.Errorf("%+v follows %+v of the first cluster", now, published)
	}

	// A manager that restarts knows it from the servers alone.
	promoted.stop()
	second.startManager(1)
	second.apply(strings.Replace(steeredEstate[strings.LastIndex(steeredEstate, "---\n"):], "serverGroup: authoritative",
		"serverGroup: authoritative\n  records: [{name: newer, type: A, values: [10.0.0.8]}]", 1))
	second.poll(func() error {
		if got := second.dig(late, "newer.corp.", dns.TypeA); !strings.Contains(got, "10.0.0.8") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	second.awaitGiven(append(servers, late), "NOERROR "+backendB, "NOERROR "+backendB)

	// A person approves the end of both.
	var digests string
	second.poll(func() error {
		c := second.datacenterCondition("dc-a", v1alpha1.ConditionRemovalWithheld)
		if c == nil || !strings.Contains(c.Message, "forgotten") || !strings.Contains(c.Message, "payments/drain-dc-a") || strings.Contains(c.Message, "no such Datacenter") {
			return fmt.Errorf("%+v", c)
		}
		digests = c.Message[strings.LastIndex(c.Message, v1alpha1.ApproveRemovalAnnotation+"=")+len(v1alpha1.ApproveRemovalAnnotation)+1:]
		return nil
	})
	for _, name := range []string{"dc-a", "dc-b"} {
		second.annotate(&v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name}}, digests)
	}
	second.awaitGiven(append(servers, late), "NOERROR "+backendA, "NOERROR "+backendB)
	second.poll(func() error {
		for _, s := range servers {
			if got := second.dig(s, "www.forgotten.", dns.TypeA); !strings.Contains(got, "REFUSED") {
				return fmt.Errorf("%s: %s", s.config.Hub.Name, got)
			}
		}
		if c := second.datacenterCondition("dc-a", v1alpha1.ConditionRemovalWithheld); c == nil || c.Status != metav1.ConditionFalse {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

func (e *estate) datacenterCondition(name, typ string) *metav1.Condition {
	e.t.Helper()
	var dc v1alpha1.Datacenter
	if err := e.api.Get(e.t.Context(), client.ObjectKey{Name: name}, &dc); err != nil {
		e.t.Fatal(err)
	}
	return meta.FindStatusCondition(dc.Status.Conditions, typ)
}

// journal keeps what a server has installed.
type journal struct {
	control.Replica
	t    *testing.T
	id   string
	all  *contents
	mu   sync.Mutex
	last map[zone.Name]zone.Version
}

// contents is what each serial of a zone stands for, at all servers.
type contents struct {
	mu sync.Mutex
	of map[zone.Name]map[uint32]zone.Digest
}

func (c *contents) note(t *testing.T, server string, apex zone.Name, v zone.Version) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[apex] == nil {
		c.of[apex] = map[uint32]zone.Digest{}
	}
	if known, ok := c.of[apex][v.Serial]; ok && known != v.Digest {
		t.Errorf("%s: serial %d of %s stands for %.12s and for %.12s", server, v.Serial, apex, known, v.Digest)
	}
	c.of[apex][v.Serial] = v.Digest
}

func (j *journal) Install(ctx context.Context, f control.Fence, z control.Installed) error {
	err := j.Replica.Install(ctx, f, z)
	if err != nil {
		return err
	}
	apex := z.Content.Apex()
	j.mu.Lock()
	before := j.last[apex]
	j.last[apex] = z.Version
	j.mu.Unlock()
	if !before.IsZero() && before != z.Version && !zone.SerialLess(before.Serial, z.Version.Serial) {
		j.t.Errorf("%s: serial %d of %s follows %d", j.id, z.Version.Serial, apex, before.Serial)
	}
	j.all.note(j.t, j.id, apex, z.Version)
	return nil
}

// stormSeed chooses when managers die and sleep, and what changes: FINGERPOST_SEED repeats a run.
func stormSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("FINGERPOST_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatalf("FINGERPOST_SEED: %v", err)
		}
	}
	t.Logf("repeat with FINGERPOST_SEED=%d", seed)
	return seed
}

// managerProcess is the real program.
type managerProcess struct {
	running *program.Process
	log     string
}

func buildManager(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manager")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../cmd/manager").CombinedOutput(); err != nil {
		t.Fatalf("building the manager: %v\n%s", err, out)
	}
	return path
}

// runManager starts the n-th manager, 0 or 1, as a process.
func (e *estate) runManager(path string, n int) *managerProcess {
	e.t.Helper()
	m := &managerProcess{log: filepath.Join(e.t.TempDir(), "log")}
	var err error
	m.running, err = program.Start(program.Options{Name: fmt.Sprintf("manager %d", n), Env: []string{"KUBECONFIG=" + e.managerKubeconfig()}, Log: m.log}, path,
		"--namespace="+operatorNamespace, "--apex-namespaces=dns-root", "--hub-listen="+e.hub[n], "--metrics-listen=0", "--health-listen=0",
		"--lease-duration=2s", "--lease-renew-deadline=1500ms", "--lease-retry-period=300ms")
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := m.running.Stop(0); err != nil {
			e.t.Error(err)
		}
		if text, err := os.ReadFile(m.log); err == nil && e.t.Failed() {
			e.t.Logf("manager %d:\n%s", n, text)
		}
	})
	return m
}

// leader waits until a manager leads under another epoch than the one before, and returns its number and that epoch.
func (e *estate) leader(servers []*server, before uint64) (n int, epoch uint64) {
	e.t.Helper()
	e.poll(func() error {
		for _, s := range servers {
			state := s.client.State()
			if n = slices.Index(e.hub, state.Hub); n >= 0 && state.Fence.Epoch > before {
				epoch = state.Fence.Epoch
				return nil
			}
		}
		return fmt.Errorf("no server follows a hub with an epoch above %d", before)
	})
	return n, epoch
}

// TestLeadersThatDieAndSleepInAStormReuseNoSerial kills the leading manager with SIGKILL, or stops it until another one leads,
// at random moments while a thousand changes are made.
func TestLeadersThatDieAndSleepInAStormReuseNoSerial(t *testing.T) {
	const changes, disturbances, zones = 1000, 3, 8
	seed := stormSeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	e := newEstate(t, twoDatacenters, strings.Replace(rootZone, "names: [corp]", `names: ["*"]`, 1))
	all := &contents{of: map[zone.Name]map[uint32]zone.Digest{}}
	started := 0
	e.replicas = func(r *dnsserver.Replica) control.Replica {
		started++
		return &journal{Replica: r, t: t, id: fmt.Sprintf("server %d", started), all: all, last: map[zone.Name]zone.Version{}}
	}
	path := buildManager(t)
	managers := []*managerProcess{e.runManager(path, 0), e.runManager(path, 1)}
	servers := e.startServers()

	declared := make([]map[int]int, zones) // of each zone: the host's last octets
	apply := func(z int) {
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: fingerpost.dev/v1alpha1\nkind: DNSZone\nmetadata: {name: z%d, namespace: payments}\nspec:\n  name: z%d\n  serverGroup: authoritative\n  guard: {maxDeletePercent: 100}\n  records:\n", z, z)
		for _, host := range slices.Sorted(maps.Keys(declared[z])) {
			fmt.Fprintf(&b, "  - {name: h%d, type: A, values: [10.0.%d.%d]}\n", host, declared[z][host]>>8, declared[z][host]&0xff)
		}
		e.apply(b.String())
	}
	for z := range declared {
		declared[z] = map[int]int{0: 0}
		apply(z)
	}
	killsFirst := random.IntN(2)
	var epoch uint64
	for part := range disturbances {
		var lead int
		lead, epoch = e.leader(servers, epoch)
		at := random.IntN(changes / disturbances)
		kill := part%2 == killsFirst
		for i := range changes/disturbances + 1 {
			if i == at {
				signal := syscall.SIGSTOP
				if kill {
					signal = syscall.SIGKILL
				}
				if err := syscall.Kill(managers[lead].running.PID(), signal); err != nil {
					t.Fatal(err)
				}
			}
			z := random.IntN(zones)
			switch host := random.IntN(12); {
			case host > 0 && random.IntN(4) == 0:
				delete(declared[z], host)
			default:
				declared[z][host] = part<<8 | i&0xff
			}
			apply(z)
		}
		next, _ := e.leader(servers, epoch)
		if next == lead {
			t.Fatalf("manager %d leads again, which was disturbed", lead)
		}
		if !kill { // it goes on where it was, and ends when it finds that it leads no more
			if err := syscall.Kill(managers[lead].running.PID(), syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
		<-managers[lead].running.Exited()
		managers[lead] = e.runManager(path, lead)
	}
	for z := range declared {
		e.awaitReady("payments", fmt.Sprintf("z%d", z))
		for host := range 12 {
			want := "NXDOMAIN"
			if octets, there := declared[z][host]; there {
				want = fmt.Sprintf("NOERROR\nh%d.z%d. 60 IN A 10.0.%d.%d", host, z, octets>>8, octets&0xff)
			}
			e.awaitAnswer(ofGroup(servers, "authoritative"), fmt.Sprintf("h%d.z%d.", host, z), dns.TypeA, want)
		}
	}
	for _, s := range ofGroup(servers, "authoritative") {
		for z := range declared {
			published := e.zone("payments", fmt.Sprintf("z%d", z)).Status.Published
			if held, _ := s.replica.Zone(zone.Name(fmt.Sprintf("\x02z%d\x00", z))); int64(held.Version.Serial) != published.Serial || held.Version.Digest.String() != published.Digest {
				t.Errorf("%s holds %s of z%d, published is %+v", s.id, held.Version, z, published)
			}
		}
	}
}
