package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/miekg/dns"
	"google.golang.org/grpc"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// hub is a leader that publishes to real servers.
type hub struct {
	*control.Hub
	t       testing.TB
	address string
	server  *grpc.Server
	changed chan struct{} // a server reported something
}

func newHub(t testing.TB, a *controltest.Authority) *hub {
	t.Helper()
	h := &hub{t: t, changed: make(chan struct{}, 1)}
	note := func() {
		select {
		case h.changed <- struct{}{}:
		default:
		}
	}
	h.Hub = control.NewHub(control.HubOptions{
		Log: logr.Discard(), Cluster: "test", OnZone: func(zone.Name) { note() }, OnServer: func(control.ServerID) { note() },
	})
	h.server = grpc.NewServer(control.ServerOptions(a.Credentials(control.HubURI()))...)
	h.Register(h.server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = l.Addr().String()
	ended := make(chan error, 1)
	go func() { ended <- h.server.Serve(l) }()
	t.Cleanup(func() {
		h.server.Stop()
		if err := <-ended; err != nil {
			t.Errorf("the hub ended with %v", err)
		}
	})
	return h
}

// publish sends a version of a zone and waits until so many servers have it on disk.
func (h *hub) publish(group control.GroupKey, apex, text string, servers int) {
	h.t.Helper()
	name, err := zone.ParseName(apex, "")
	if err != nil {
		h.t.Fatal(err)
	}
	content, version, faults := zone.Load(name, text)
	if content == nil {
		h.t.Fatal(faults)
	}
	h.Publish(control.Zone{
		Content: content, Version: version, Source: "test/" + apex, Groups: []control.GroupKey{group},
		Guard: zone.GuardPolicy{MinDeletes: 10, MaxDeletePercent: 30},
	})
	h.await(func() bool {
		current := 0
		for _, s := range h.Zone(name).Servers {
			if s.Current && !s.NotDurable {
				current++
			}
		}
		return current == servers
	})
}

func (h *hub) await(done func() bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	for !done() {
		select {
		case <-h.changed:
		case <-ctx.Done():
			h.t.Fatalf("servers do not follow: %+v", h.Servers())
		}
	}
}

// TestServesAHub is the life of two servers of a group.
func TestServesAHub(t *testing.T) {
	ca := controltest.NewAuthority(t)
	group := control.GroupKey{Datacenter: "dc-a", Group: "authoritative"}
	h := newHub(t, ca)
	tlsDir, stateA, stateB := ca.Dir(group), t.TempDir(), t.TempDir()
	peerA := loopback() + ":4444"
	args := func(name, state string, more ...string) []string {
		return append([]string{"--hub", h.address, "--tls-dir", tlsDir, "--state-dir", state, "--name", name}, more...)
	}
	expect := func(r *running, when, name, want string) {
		t.Helper()
		if got := r.dig("udp", name, dns.TypeA); got != want {
			t.Errorf("%s: %s is %q, wanted %q", when, name, got, want)
		}
	}
	ready := func(r *running, when string, want int, text string) {
		t.Helper()
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for deadline := time.Now().Add(20 * time.Second); ; <-again.C {
			status, body := r.get("/readyz")
			switch {
			case status == want && strings.Contains(body, text):
				return
			case time.Now().After(deadline):
				t.Fatalf("%s: /readyz says %d %s", when, status, body)
			}
		}
	}
	const soa = "$TTL 60\n@ SOA ns hostmaster %d 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n"
	version := func(serial, www string) string {
		return strings.ReplaceAll(soa, "%d", serial) + "www A " + www + "\n"
	}

	a := start(t, args("a", stateA, "--peer-listen", peerA)...)
	expect(a, "before anything came", "www.one.test.", "SERVFAIL")
	ready(a, "before anything came", http.StatusServiceUnavailable, "no zones were received yet")

	h.Lead(1)
	a.log("connected")
	h.publish(group, "one.test", version("7", "10.0.0.7"), 1)
	h.publish(group, "two.test", version("1", "10.0.0.8"), 1)
	h.SetComplete()
	h.await(func() bool { s := h.Servers(); return len(s) == 1 && s[0].Current == 2 })
	expect(a, "with zones", "www.one.test.", "NOERROR 10.0.0.7")
	expect(a, "with zones", "www.three.test.", "REFUSED")
	h.publish(group, "one.test", version("8", "10.0.0.9"), 1)
	expect(a, "after a change", "www.one.test.", "NOERROR 10.0.0.9")
	ready(a, "with zones", http.StatusOK, "ok")
	if _, metrics := a.get("/metrics"); !strings.Contains(metrics, "\nfingerpost_dnsserver_hub_connected 1\n") ||
		!strings.Contains(metrics, `fingerpost_dnsserver_zone_serial{zone="one.test."} 8`) ||
		!strings.Contains(metrics, "\nfingerpost_dnsserver_zones_installed_total 3\n") {
		t.Errorf("metrics with a hub are\n%s", metrics)
	}

	h.server.Stop()
	a.log("connection to the hub ended")
	expect(a, "without the hub", "www.one.test.", "NOERROR 10.0.0.9")
	ready(a, "without the hub", http.StatusOK, "ok")
	if _, metrics := a.get("/metrics"); !strings.Contains(metrics, "\nfingerpost_dnsserver_hub_connected 0\n") {
		t.Errorf("metrics without a hub are\n%s", metrics)
	}

	b := start(t, args("b", stateB, "--sibling", peerA)...)
	b.log("copied zones from a sibling")
	expect(b, "empty, without the hub", "www.one.test.", "NOERROR 10.0.0.9")
	ready(b, "empty, without the hub", http.StatusOK, "ok")

	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for range a.lines {
	}
	_ = a.cmd.Wait() // killed
	again := start(t, args("a", stateA)...)
	expect(again, "started from disk", "www.one.test.", "NOERROR 10.0.0.9")
	expect(again, "started from disk", "www.two.test.", "NOERROR 10.0.0.8")
	ready(again, "started from disk", http.StatusOK, "ok")
	again.signal(syscall.SIGHUP) // nothing to reload, no reason to end
	expect(again, "after SIGHUP", "www.one.test.", "NOERROR 10.0.0.9")
}

func TestFaultsOfAServerWithAHub(t *testing.T) {
	ca := controltest.NewAuthority(t)
	tlsDir := ca.Dir(control.GroupKey{Datacenter: "dc-a", Group: "authoritative"})
	taken, err := net.Listen("tcp", loopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	file := write(t, filepath.Join(t.TempDir(), "file"), "")
	for sentence, tc := range map[string]struct {
		args []string
		want string
	}{
		"no certificate":             {[]string{"--tls-dir", t.TempDir()}, "reading certificates: "},
		"a name that is none":        {[]string{"--tls-dir", tlsDir, "--name", "a/b"}, `"a/b" is no name for a server`},
		"an address in use":          {[]string{"--tls-dir", tlsDir, "--peer-listen", address}, "listening on " + address + " for siblings: address already in use"},
		"a state folder that is one": {[]string{"--tls-dir", tlsDir, "--state-dir", file}, "opening the store: "},
	} {
		t.Run(sentence, func(t *testing.T) {
			args := append([]string{"--hub", "127.0.0.1:1", "--http-listen", "", "--listen", loopback() + ":0", "--state-dir", t.TempDir()}, tc.args...)
			cmd := process(t, args...)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.HasPrefix(string(out), "dnsserver: "+tc.want) || strings.Count(string(out), "\n") != 1 {
				t.Errorf("it ended with %v and said\n%s", err, out)
			}
		})
	}
}
