//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/cluster"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

// story is what the steps of the test share.
type story struct {
	*testing.T // of the step that is being told
	*cluster.Cluster

	root  string // of the checkout
	dir   string // of what the test makes
	helm  string // program
	tools cluster.Programs
	new   string // version of this checkout's images
	old   string // version of the images to upgrade from
	began time.Time
}

// step begins a part of the story. What follows depends on it: if it fails, the story ends.
func (s *story) step(title string, tell func()) {
	t := s.T
	began := time.Now()
	fmt.Printf("\n%s\n", title)
	holds := t.Run(title, func(t *testing.T) { s.T = t; tell() })
	s.T = t
	if !holds {
		if s.Cluster != nil {
			s.lookAround()
		}
		t.FailNow()
	}
	fmt.Printf("  (%s)\n", ago(began))
}

// told writes something that was measured or found true.
func (s *story) told(format string, args ...any) {
	fmt.Printf("  = "+format+"\n", args...)
}

func ago(t time.Time) string { return fmt.Sprintf("%.1f s", time.Since(t).Seconds()) }

// run shows a command line and runs it against a cluster, with bash. It returns what the command prints.
func (s *story) run(in, line string) string {
	s.Helper()
	shown := line
	if in != cluster.Central {
		shown = "# at " + in + "\n    " + line
	}
	fmt.Printf("  $ %s\n", shown)
	return s.quiet(in, line)
}

// quiet is run without a word.
func (s *story) quiet(in, line string) string {
	s.Helper()
	out, err := s.try(in, line)
	if err != nil {
		s.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}

// try runs a command line that may fail.
func (s *story) try(in, line string) (string, error) {
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", line)
	cmd.Dir = s.root
	cmd.Env = []string{
		"KUBECONFIG=" + s.Kubeconfig(in), "HOME=" + s.dir, "DIR=" + s.dir,
		"PATH=" + strings.Join([]string{s.tools.Assets, filepath.Dir(s.helm), s.tools.Path}, ":"),
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := s.RunAt("wan", cmd)
	return strings.TrimSpace(out.String()), err
}

// until waits for something, asked for ten times a second, and returns how long that took.
func (s *story) until(limit time.Duration, what string, is func() bool) time.Duration {
	s.Helper()
	began := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Since(began) > limit {
			s.Fatalf("after %s it is still not so: %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(began)
}

// undisturbed asks questions while something happens, and a while longer, and holds that none has failed.
func (s *story) undisturbed(questions []question, happens func()) {
	s.Helper()
	sum := s.watched(questions, happens)
	if sum.failed > 0 {
		s.Errorf("%d questions failed", sum.failed)
	}
}

// afterwards is how long questions go on after what was to happen has happened: endpoints and caches follow late.
const afterwards = 3 * time.Second

// watched asks questions while something happens, and a while longer, and tells what became of them.
func (s *story) watched(questions []question, happens func()) tally {
	s.Helper()
	q := startAsking(s.Context(), s.Cluster, questions...)
	done := false
	defer func() {
		if !done {
			q.end()
		}
	}()
	happens()
	pause := time.NewTimer(afterwards)
	<-pause.C
	done = true
	r := q.end()
	sum := r.sum()
	s.told("%s", sum)
	for _, name := range r.names {
		if t := r.tally[name]; t.lost > 0 {
			fmt.Printf("    %s: %s\n", name, t)
		}
	}
	const most = 10
	for i, line := range sum.log {
		if i == most {
			fmt.Printf("    ... and %d more\n", len(sum.log)-most)
			break
		}
		fmt.Printf("    %s\n", line)
	}
	return sum
}

// lookAround writes what helps to understand why a step has failed.
func (s *story) lookAround() {
	for _, in := range []string{cluster.Central, "dc-c"} {
		for _, line := range []string{
			"kubectl get datacenters,dnszones,dynamicrecords,resolverpools -A -o wide",
			"kubectl get pods,services,statefulsets,deployments,endpointslices -A -o wide",
			"kubectl get events -A --sort-by=.lastTimestamp | tail -n 40",
			"kubectl describe datacenters | tail -n 120",
			"kubectl describe resolverpools -A | tail -n 120",
			"kubectl logs -n " + namespace + " -l app.kubernetes.io/name=fingerpost-manager --tail=200 --prefix | grep -v 'Starting EventSource' | tail -n 60",
			"kubectl logs -A -l app.kubernetes.io/managed-by=fingerpost --tail=20 --prefix",
		} {
			out, err := s.try(in, line)
			fmt.Printf("--- %s: %s\n%s\n", in, line, out)
			if err != nil {
				fmt.Println(err)
			}
		}
	}
	fmt.Printf("--- logs of the nodes are in %s if the cluster is kept (-keep)\n", s.Logs())
}

// checkout returns the root of the checkout.
func checkout(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// folder returns the folder of the test, which stays the same: a run that was killed is cleared away by the next.
func folder(t *testing.T) string {
	t.Helper()
	cache, err := controlplane.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "e2e")
	if old, err := cluster.Open(filepath.Join(dir, "cluster")); err == nil {
		if err := old.Down(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
