//go:build linux

package cluster

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestADatacenterOfItsOwnIsInNoOtherCluster(t *testing.T) {
	c := &Cluster{state: state{Cgroup: "group"}}
	got := map[string]string{}
	for _, m := range c.plan(Options{Dir: "/dir", Datacenters: []string{"a", "b", "c"}, Own: []string{"b"}}) {
		got[m.Name] = m.Address.Addr().String() + " " + m.Cluster.Name
	}
	want := map[string]string{
		"wan": "10.88.0.254 ", "control-plane": "10.88.0.1 central",
		"a": "10.88.0.11 central", "b": "10.88.0.12 b", "c": "10.88.0.13 central",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
	c.state.Machines = c.plan(Options{Dir: "/dir", Datacenters: []string{"a", "b", "c"}, Own: []string{"b"}})
	clusters := map[string][]string{}
	for _, cl := range c.clusters() {
		clusters[cl.Name] = cl.Nodes
	}
	if diff := cmp.Diff(map[string][]string{"central": {"a", "c"}, "b": {"b"}}, clusters); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
}

func TestAddressesOfADatacenter(t *testing.T) {
	for got, want := range map[netip.Addr]string{
		nodeAddress(2).Addr(): "10.88.0.12", pods(2).Addr(): "10.244.2.0", ServiceAddress(2, 7): "10.89.2.7", ClientAddress(2): "10.2.0.9",
	} {
		if got.String() != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// child starts a process that waits.
func child(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // killed, perhaps
	})
	return cmd
}

func TestKillEndsTheMachinesProcess(t *testing.T) {
	cmd := child(t)
	since, err := startOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r := running{PID: cmd.Process.Pid, Since: since}
	if !r.alive() {
		t.Fatal("a process that runs is not alive")
	}
	if err := r.kill(); err != nil {
		t.Fatal(err)
	}
	if r.alive() {
		t.Error("a process that was killed is alive")
	}
}

func TestKillLeavesAProcessThatGotTheNumberOfTheMachines(t *testing.T) {
	cmd := child(t)
	since, err := startOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := (running{PID: cmd.Process.Pid, Since: since - 1}).kill(); err != nil {
		t.Fatal(err)
	}
	if !(running{PID: cmd.Process.Pid, Since: since}).alive() {
		t.Error("another process was killed")
	}
}

func TestAControlGroupIsRemovedWithThoseBelowItAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	group := filepath.Join(dir, "group")
	if err := os.MkdirAll(filepath.Join(group, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := removeFolders(group); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(group); err == nil {
		t.Error("it is still there")
	}
	if err := removeFolders(group); err != nil {
		t.Errorf("what is gone already: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeFolders(dir); err == nil {
		t.Error("a folder with a file in it was removed, which is no control group")
	}
	if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
}

func TestOpenSaysThatThereIsNone(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNone) {
		t.Errorf("error: %v", err)
	}
}
