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
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// benchmark measures one aspect.
type benchmark struct {
	name  string
	about string
	tools []string // programs that hack/deps gets
	// estate tells that it needs managers and a control plane.
	estate bool
	run    func(*bench) ([]report.Table, error) // nil: its rows do
}

var benchmarks = []benchmark{
	{name: "change", about: "from an apply to the new answer at all servers of both datacenters", estate: true, run: change},
	{name: "start", about: "from the start of a dnsserver to its first answer, from its disk", run: start},
	{name: "leader", about: "from kill -9 of the leading manager to all servers in sync with the other", estate: true, run: leader},
	{name: "flip", about: "10,000 steered names whose datacenter dies: answers, statuses, API writes, load; and one name alone", estate: true, run: flip},
	{name: "scale", about: "100 datacenters of two groups and 10,000 zones on one manager, most servers simulated; and a million records for an empty server", estate: true, run: scale},
	{name: queriesName, about: "CPU time for a query and more, beside gdnsd, Knot DNS, NSD, BIND, PowerDNS and CoreDNS", tools: []string{"gdnsd", "knotd", "nsd", "named", "pdns_server"}},
}

// queriesName is the benchmark that has rows.
const queriesName = "queries"

// page is where -update puts results.
const page = "docs/benchmarks.md"

// settings is what the outer process tells the inner one.
type settings struct {
	Programs estate.Programs `json:"programs"`
	Private  bool            `json:"private"` // in a network namespace of its own
	Dir      string          `json:"dir"`     // for everything that is written and thrown away

	CoreDNS string `json:"coreDNS"` // path
	Echo    string `json:"echo"`    // path of the echo in C; "" if there is none

	Names       []string       `json:"names"`
	Rows        []string       `json:"rows"`   // of queries; none: all
	Rounds      int            `json:"rounds"` // 0: the usual number
	Short       bool           `json:"short"`
	Datacenters int            `json:"datacenters"` // of scale; 0: the usual number
	Zones       int            `json:"zones"`       // likewise
	Quiet       time.Duration  `json:"quiet"`
	JSON        string         `json:"json"`
	Update      bool           `json:"update"`
	Machine     report.Machine `json:"machine"`
	Commit      string         `json:"commit"`
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
	serveArgument  = "serve"  // with a serveJob as JSON: our server, with what only benchmarks do to it
	streamArgument = "stream" // with a streamJob as JSON: asks over connections
)

func main() {
	if len(os.Args) > 1 && slices.Contains([]string{echoArgument, pinArgument, serveArgument, streamArgument}, os.Args[1]) { // signals end these at once
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
	rowNames := flags.String("rows", "", "the `rows` of queries to measure, with commas between them")
	flags.IntVar(&s.Rounds, "rounds", 0, "how `often` each server is asked in queries (default 5, short 2)")
	flags.IntVar(&s.Datacenters, "datacenters", 0, "how `many` datacenters scale has (default 100, short 10)")
	flags.IntVar(&s.Zones, "zones", 0, "how `many` zones scale has (default 10,000, short 200)")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: go run ./hack/bench [flags] [name...]\n\nBenchmarks (default: all):\n")
		for _, b := range benchmarks {
			fmt.Fprintf(flags.Output(), "  %-8s  %s\n", b.name, b.about)
		}
		fmt.Fprintln(flags.Output(), "\nRows of queries (default: all):")
		for _, r := range rows {
			fmt.Fprintf(flags.Output(), "  %-9s  %s\n", r.name, r.about)
		}
		fmt.Fprintln(flags.Output(), "\nFlags:")
		flags.PrintDefaults()
	}
	// Flags may stand behind names.
	var names []string
	for rest := args; ; {
		if err := flags.Parse(rest); err != nil {
			return err
		}
		if flags.NArg() == 0 {
			break
		}
		names, rest = append(names, flags.Arg(0)), flags.Args()[1:]
	}
	if *rowNames != "" {
		s.Rows = strings.Split(*rowNames, ",")
		if len(names) == 0 {
			names = []string{queriesName}
		}
	}
	if _, err := chooseRows(s.Rows); err != nil {
		return err
	}
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	var tools []string
	prepare, servers := estate.PrepareServer, false
	for _, b := range chosen {
		s.Names = append(s.Names, b.name)
		tools = append(tools, b.tools...)
		servers = servers || b.name == queriesName
		if b.estate {
			prepare = estate.Prepare
		}
	}
	if s.JSON != "" { // before the working directory changes
		if s.JSON, err = filepath.Abs(s.JSON); err != nil {
			return err
		}
	}
	if s.Programs, err = prepare(ctx, tools...); err != nil {
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
	if servers {
		if s.CoreDNS, err = controlplane.CoreDNS(ctx, os.Stderr); err != nil {
			return fmt.Errorf("building CoreDNS: %w", err)
		}
		if s.Echo, err = buildEcho(ctx, s.Dir); errors.Is(err, errNoCompiler) {
			fmt.Fprintf(os.Stderr, "\n*** %v ***\n\n", err)
		} else if err != nil {
			return err
		}
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
		parts := []row{{b.name, b.about, b.run}}
		if b.name == queriesName {
			if parts, err = chooseRows(s.Rows); err != nil {
				return err
			}
			for i := range parts {
				parts[i].name = queriesName + "/" + parts[i].name
			}
		}
		for _, part := range parts {
			r, err := s.measure(ctx, part)
			if err != nil {
				return err
			}
			reports = append(reports, r)
			if err := s.save(reports); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure runs one benchmark, or one row.
func (s settings) measure(ctx context.Context, part row) (r report.Report, err error) {
	r = report.Report{Benchmark: part.name, Commit: s.Commit, Machine: s.Machine}
	if err := s.awaitQuiet(ctx); err != nil {
		return r, err
	}
	r.Date = time.Now()
	load, err := report.Watch()
	if err != nil {
		return r, err
	}
	fmt.Printf("%s: %s\n\n", part.name, part.about)
	one := &bench{settings: s, ctx: ctx, dir: filepath.Join(s.Dir, part.name)}
	if err := os.MkdirAll(one.dir, 0o755); err != nil {
		return r, err
	}
	if r.Tables, err = part.run(one); err != nil {
		return r, fmt.Errorf("%s: %w", part.name, err)
	}
	if r.Busy, err = load.Others(); err != nil {
		return r, err
	}
	if err := os.RemoveAll(one.dir); err != nil { // what went well is of no use any more, and large
		return r, err
	}
	for _, t := range r.Tables {
		fmt.Println(t.Text())
	}
	fmt.Printf("%s It took %s.\n\n", r.Circumstances(), time.Since(r.Date).Round(time.Second))
	return r, nil
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
