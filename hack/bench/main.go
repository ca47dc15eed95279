//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// benchmark measures one aspect.
type benchmark struct {
	name  string
	about string
	tools []string // programs that hack/deps gets
	run   func(*bench) ([]report.Table, error)
}

var benchmarks = []benchmark{
	{"change", "from an apply to the new answer at all servers of both datacenters", nil, change},
	{"start", "from the start of a dnsserver to its first answer, from its disk", nil, start},
	{"leader", "from kill -9 of the leading manager to all servers in sync with the other", nil, leader},
	{"queries", "CPU time for a query and queries a second, beside NSD and Knot DNS", []string{"nsd", "knotd"}, queries},
}

// page is where -update puts results.
const page = "docs/benchmarks.md"

// settings is what the outer process tells the inner one.
type settings struct {
	Programs estate.Programs `json:"programs"`
	Private  bool            `json:"private"` // in a network namespace of its own
	Dir      string          `json:"dir"`     // for everything that is written and thrown away

	Names   []string       `json:"names"`
	Short   bool           `json:"short"`
	Quiet   time.Duration  `json:"quiet"`
	JSON    string         `json:"json"`
	Update  bool           `json:"update"`
	Machine report.Machine `json:"machine"`
	Commit  string         `json:"commit"`
}

// bench is a run of one benchmark.
type bench struct {
	settings
	ctx context.Context
	dir string // of its own, empty at the start

	addresses int // that nextAddress has given
}

// times returns how often something is measured: less often for a short run.
func (b *bench) times(usual, short int) int {
	if b.Short {
		return short
	}
	return usual
}

// path returns a path below the folder of the run.
func (b *bench) path(elements ...string) string {
	return filepath.Join(append([]string{b.dir}, elements...)...)
}

// Arguments that make this program something else than the outer process.
const (
	insideArgument = "inside" // with settings as JSON: the inner process
	echoArgument   = "echo"   // with an address: a server that only sends back
	pinArgument    = "pin"    // with a CPU, a program and its arguments: becomes that program, on that CPU alone
)

func main() {
	if len(os.Args) > 1 && (os.Args[1] == echoArgument || os.Args[1] == pinArgument) { // signals end these at once
		fail(become(os.Args[1], os.Args[2:]))
	}
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case interrupted:
		os.Exit(130) // as shells do
	}
	fail(err)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == estate.ProbeArgument:
		return estate.Probe()
	case len(args) == 2 && args[0] == insideArgument:
		return inside(ctx, args[1])
	}
	return outside(ctx, args)
}

// outside is the outer process.
func outside(ctx context.Context, args []string) error {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&s.JSON, "json", "", "`file` for the results, as a list of reports")
	flags.BoolVar(&s.Update, "update", false, "put the results into "+page)
	flags.BoolVar(&s.Short, "short", false, "measure less often: to try the benchmarks, not for figures to show")
	flags.DurationVar(&s.Quiet, "quiet", 0, "wait so `long` before each benchmark for other programs to use less than 5% of the CPUs")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: go run ./hack/bench [flags] [name...]\n\nBenchmarks (default: all):\n")
		for _, b := range benchmarks {
			fmt.Fprintf(flags.Output(), "  %-8s  %s\n", b.name, b.about)
		}
		fmt.Fprintln(flags.Output(), "\nFlags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(flags.Args())
	if err != nil {
		return err
	}
	var tools []string
	for _, b := range chosen {
		s.Names = append(s.Names, b.name)
		tools = append(tools, b.tools...)
	}
	if s.JSON != "" { // before the working directory changes
		if s.JSON, err = filepath.Abs(s.JSON); err != nil {
			return err
		}
	}
	if s.Programs, err = estate.Prepare(ctx, tools...); err != nil {
		return err
	}
	s.Machine, s.Commit = report.ThisMachine(), commit(ctx)
	wanted, err := estate.Addresses()
	if err != nil {
		return err
	}
	if s.Private, err = estate.ChooseNetwork(ctx, wanted); err != nil {
		return err
	}
	if s.Dir, err = os.MkdirTemp("", "fingerpost-bench-*"); err != nil {
		return err
	}
	arg, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := estate.RunInside(ctx, s.Private, insideArgument, string(arg)); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the benchmarks did not get to their end; logs are in %s", s.Dir)
	}
	return errors.Join(ctx.Err(), os.RemoveAll(s.Dir))
}

// choose returns the benchmarks named, or all, in their order.
func choose(names []string) (chosen []benchmark, err error) {
	known := map[string]bool{}
	for _, b := range benchmarks {
		known[b.name] = true
		if len(names) == 0 || slices.Contains(names, b.name) {
			chosen = append(chosen, b)
		}
	}
	for _, n := range names {
		if !known[n] {
			return nil, fmt.Errorf("there is no benchmark %q, but %s", n, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
	}
	return chosen, nil
}

// commit returns the commit of the checkout, or nothing if git does not know it.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}

// inside is the inner process.
func inside(ctx context.Context, arg string) error {
	var s settings
	if err := json.Unmarshal([]byte(arg), &s); err != nil {
		return fmt.Errorf("reading settings: %w", err)
	}
	ctx, err := estate.Inside(ctx, s.Private)
	if err != nil {
		return err
	}
	chosen, err := choose(s.Names)
	if err != nil {
		return err
	}
	var reports []report.Report
	for _, b := range chosen {
		r := report.Report{Benchmark: b.name, Commit: s.Commit, Machine: s.Machine}
		if err := s.awaitQuiet(ctx); err != nil {
			return err
		}
		r.Date = time.Now()
		load, err := report.Watch()
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n\n", b.name, b.about)
		one := &bench{settings: s, ctx: ctx, dir: filepath.Join(s.Dir, b.name)}
		if err := os.Mkdir(one.dir, 0o755); err != nil {
			return err
		}
		if r.Tables, err = b.run(one); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		if r.Busy, err = load.Others(); err != nil {
			return err
		}
		for _, t := range r.Tables {
			fmt.Println(t.Text())
		}
		fmt.Printf("%s It took %s.\n\n", r.Circumstances(), time.Since(r.Date).Round(time.Second))
		reports = append(reports, r)
		if err := s.save(reports); err != nil {
			return err
		}
	}
	return nil
}

// awaitQuiet returns when other programs use little of the CPUs, or when it was long enough.
func (s settings) awaitQuiet(ctx context.Context) error {
	const low, period = 0.05, 3 * time.Second
	for deadline := time.Now().Add(s.Quiet); time.Now().Before(deadline); {
		load, err := report.Watch()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(period):
		}
		if busy, err := load.Others(); err != nil || busy < low {
			return err
		}
	}
	return nil
}

// save writes the results where flags have asked for them: after each benchmark, so that the failure of a later one
// costs none.
func (s settings) save(reports []report.Report) error {
	if s.JSON != "" {
		text, err := json.MarshalIndent(reports, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.JSON, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if !s.Update {
		return nil
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	updated, err := reports[len(reports)-1].Update(string(text))
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(updated), 0o644)
}
