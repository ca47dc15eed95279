package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkIdle tells what the agent itself takes while nobody asks its engine: memory, and the share of one CPU in 20 s.
func BenchmarkIdle(b *testing.B) {
	dir, err := os.MkdirTemp("", "fp") //nolint:usetesting // the path of a socket is short
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, config := filepath.Join(dir, "resolver-agent"), filepath.Join(dir, "pool.yaml")
	if said, err := exec.CommandContext(b.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, said)
	}
	if err := os.WriteFile(config, []byte(pool), 0o600); err != nil {
		b.Fatal(err)
	}
	agent := exec.CommandContext(b.Context(), program, "--engine", "Unbound", "--config", config, "--dir", filepath.Join(dir, "run"), "--http-listen", httpAt, "--drain", "0s")
	if err := agent.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = agent.Process.Signal(os.Interrupt)
		_ = agent.Wait()
	}()
	eventually(b, "it is ready", func() bool {
		reply, err := http.Get("http://" + httpAt + "/readyz")
		if err != nil {
			return false
		}
		reply.Body.Close()
		return reply.StatusCode == http.StatusOK
	})
	file := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", agent.Process.Pid, name))
		if err != nil {
			b.Fatal(err)
		}
		return string(text)
	}
	ticks := func() (sum float64) { // hundredths of a second
		_, rest, _ := strings.Cut(file("stat"), ") ")
		for _, field := range strings.Fields(rest)[11:13] {
			var n float64
			if _, err := fmt.Sscan(field, &n); err != nil {
				b.Fatal(err)
			}
			sum += n
		}
		return sum
	}
	for b.Loop() {
		before, began := ticks(), time.Now()
		<-time.NewTimer(20 * time.Second).C
		b.ReportMetric((ticks()-before)/time.Since(began).Seconds(), "%CPU")
	}
	for line := range strings.Lines(file("status")) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			b.ReportMetric(kib/1024, "MiB")
		}
	}
}
