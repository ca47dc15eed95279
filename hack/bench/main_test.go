//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// The test binary is what bench starts of itself too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{pinArgument, echoArgument, serveArgument, streamArgument}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestEveryBenchmarkHasItsPlaceInThePage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range benchmarks {
		if b.name != queriesName {
			names = append(names, b.name)
		}
	}
	for _, r := range rows {
		names = append(names, queriesName+"/"+r.name)
	}
	for _, name := range names {
		if _, err := (report.Report{Benchmark: name}).Update(string(text)); err != nil {
			t.Error(err)
		}
	}
}

func TestRowsAreChosenByName(t *testing.T) {
	if all, err := chooseRows(nil); err != nil || len(all) != len(rows) {
		t.Errorf("no name stands for %d rows, %v", len(all), err)
	}
	some, err := chooseRows([]string{"ipv6", "static"})
	if err != nil || len(some) != 2 || some[0].name != "static" || some[1].name != "ipv6" {
		t.Errorf("two names stand for %v, %v", some, err)
	}
	if _, err := chooseRows([]string{"static", "ipv7"}); err == nil || !strings.Contains(err.Error(), `"ipv7"`) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestConfigurationsCanBeFilled(t *testing.T) {
	b := &bench{}
	for name, c := range b.contenders() {
		for _, s := range []contenderSettings{
			{Dir: "/d", IP: "127.0.0.1", Port: 53, Zones: []zoneFile{{"a", "/a"}, {"b", "/b"}}},
			{Dir: "/d", IP: "::1", Port: 53, TLSPort: 853, Cert: "/c", Key: "/k", Features: true, Modules: "/m"},
		} {
			for file, text := range c.files {
				if got, err := fill(text, s); err != nil || strings.Contains(got, "{{") {
					t.Errorf("%s, %s: %v\n%s", name, file, err, got)
				}
			}
			for _, a := range c.args {
				if _, err := fill(a, s); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

func TestBenchmarksAreChosenByName(t *testing.T) {
	names := func(chosen []benchmark) (all []string) {
		for _, b := range chosen {
			all = append(all, b.name)
		}
		return all
	}
	all, err := choose(nil)
	if err != nil || len(all) != len(benchmarks) {
		t.Errorf("no name stands for %v, %v", names(all), err)
	}
	some, err := choose([]string{"queries", "start"})
	if err != nil || !slices.Equal(names(some), []string{"start", "queries"}) {
		t.Errorf("two names stand for %v, %v", names(some), err)
	}
	if _, err := choose([]string{"start", "speed"}); err == nil || !strings.Contains(err.Error(), `"speed"`) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestAPinnedProgramKeepsItsCPU(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := startPinned(process.Options{Name: "sleep", Env: []string{"PATH=" + os.Getenv("PATH")}, Log: log}, serverCPU, "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(0) })
	for deadline := time.Now().Add(10 * time.Second); ; {
		program, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/comm")
		if err != nil {
			t.Fatalf("%v\n%s", err, p.LastWords())
		}
		if strings.TrimSpace(string(program)) == "sleep" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is still %s\n%s", program, p.LastWords())
		}
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(p.PID(), &cpus); err != nil {
		t.Fatal(err)
	}
	if cpus.Count() != 1 || !cpus.IsSet(serverCPU) {
		t.Errorf("it may use %d CPUs", cpus.Count())
	}
}

func TestTheTimeOfAProgramIsThatOfAllItsProcesses(t *testing.T) {
	// Two processes that use a CPU as long as they live.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done & while :; do :; done")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	})
	var all group
	for deadline := time.Now().Add(10 * time.Second); len(all) < 2; {
		var err error
		if all, err = groupOf(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v", all)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; {
		used, err := all.cpuTime()
		if err != nil {
			t.Fatal(err)
		}
		first, err := all[:1].cpuTime()
		if err != nil {
			t.Fatal(err)
		}
		if second := used - first; first > 50*time.Millisecond && second > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("they have used %s, the first of them %s", used, first)
		}
	}
	if mib, err := all.memory(); err != nil || mib <= 0 || mib > 100 {
		t.Errorf("two shells use %v MiB, %v", mib, err)
	}
}
