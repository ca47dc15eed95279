//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

const (
	flipApex = "flip.test"
	flipPort = 8000 // of targets

	flipTimeout = "900ms" // of probes

	flipRecords, flipRecordsShort = 10_000, 1000
	flipTargets, flipTargetsShort = 200, 50 // of each datacenter: records share them
	flipSingles, flipSinglesShort = 40, 5   // names that lose their target alone, of each kind
	flipWatched                   = 30 * time.Second
	flipLeaders, flipLeadersShort = 3, 1

	// Aims.
	flipStatuses                  = 60 // seconds from the first answer that moved to the last status
	flipLocal                     = 50 // milliseconds from the deciding probe to the answer
	flipQuorum, flipQuorumSlowest = 20, 200
)

// flip measures what happens when targets die: of all records in one datacenter at once, and of one record.
func flip(b *bench) (tables []report.Table, err error) {
	f := &flipping{bench: b, records: b.times(flipRecords, flipRecordsShort), shared: b.times(flipTargets, flipTargetsShort)}
	if f.e, err = b.estate(estate.Options{}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.e.Stop()) }()
	if f.targets, err = startTargets(flipPort); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.targets.stop()) }()
	f.servers = f.e.Of("authoritative")
	for _, s := range f.servers {
		f.processes = append(f.processes, s.PID())
	}
	if err := f.create(); err != nil {
		return nil, err
	}
	for _, measure := range []func() (report.Table, error){f.rest, f.ones, f.leaders, f.all, f.load, f.written} {
		t, err := measure()
		if err != nil {
			return nil, err
		}
		fmt.Println(t.Text()) // it takes long
		tables = append(tables, t)
	}
	return tables, nil
}

// flipping is a run of flip.
type flipping struct {
	*bench
	e         *estate.Estate
	api       client.WithWatch
	targets   *targets
	servers   []*estate.Server
	processes []int // of the servers

	records, shared int
	restLoad        usage
	flipLoad        usage
	counted         map[string]float64 // writes while all answers moved
}

// shared target i of the datacenters, and the target of the one that fails alone.
func targetA(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 100, byte(i >> 8), byte(i)}) }
func targetB(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 200, byte(i >> 8), byte(i)}) }

func targetOf(kind, i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 101, byte(kind), byte(i)})
}

// networkA has all shared targets of dc-a.
var networkA = netip.MustParsePrefix("127.100.0.0/16")

var singleKinds = []v1alpha1.VantagePolicy{v1alpha1.VantageLocal, v1alpha1.VantageQuorum}

func massName(i int) string { return fmt.Sprintf("app%d", i) }

func singleName(kind v1alpha1.VantagePolicy, i int) string {
	return fmt.Sprintf("%s%d", strings.ToLower(string(kind)), i)
}

// create makes the zone, probes and records, and returns when all are served and nothing more is written.
func (f *flipping) create() (err error) {
	if f.api, err = f.watching(f.e); err != nil {
		return err
	}
	file := f.path("flip.yaml")
	var text strings.Builder
	// Whoever asks here is near to dc-a.
	for _, line := range []string{
		`kubectl patch datacenter dc-a --type merge -p '{"spec":{"networks":["127.0.0.0/8"],"probes":{"deniedNetworks":[]}}}'`,
		`kubectl patch datacenter dc-b --type merge -p '{"spec":{"probes":{"deniedNetworks":[]}}}'`,
	} {
		if _, err := f.e.Shell(line); err != nil {
			return err
		}
	}
	fmt.Fprintf(&text, `apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: flip, namespace: %s}
spec:
  name: %s
  serverGroup: authoritative
  allowedRecords: [{namespaces: {from: Same}, hosts: ["*"]}]
`, apexNamespace, flipApex)
	probe := func(name, interval, timeout string, failures int, vantage v1alpha1.VantagePolicy) {
		fmt.Fprintf(&text, `---
apiVersion: fingerpost.dev/v1alpha1
kind: HealthProbe
metadata: {name: %s, namespace: %s}
spec: {type: HTTP, http: {port: %d}, interval: %s, timeout: %s, failureThreshold: %d, vantage: {policy: %s}}
`, name, apexNamespace, flipPort, interval, timeout, failures, vantage)
	}
	probe("mass", f.interval().String(), flipTimeout, 3, v1alpha1.VantageQuorum)
	for _, kind := range singleKinds {
		probe(strings.ToLower(string(kind)), "1s", flipTimeout, 1, kind)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		return err
	}
	if _, err := f.e.Shell("kubectl apply --server-side -f " + file); err != nil {
		return err
	}
	creating, ctx := errgroup.WithContext(f.ctx)
	creating.SetLimit(8)
	add := func(name, probe string, a, b netip.Addr) {
		creating.Go(func() error { return f.api.Create(ctx, steeredRecord(name, probe, a, b)) })
	}
	for i := range f.records {
		add(massName(i), "mass", targetA(i%f.shared), targetB(i%f.shared))
	}
	for k, kind := range singleKinds {
		for i := range f.times(flipSingles, flipSinglesShort) {
			add(singleName(kind, i), strings.ToLower(string(kind)), targetOf(k, i), targetB(0))
		}
	}
	if err := creating.Wait(); err != nil {
		return err
	}
	return f.awaitServing("dc-a,dc-b")
}

// interval is that of the probe of most records.
func (f *flipping) interval() time.Duration {
	if f.Short {
		return time.Second
	}
	return 10 * time.Second
}

// watching returns a client that can watch, and sends as fast as it is told to.
func (b *bench) watching(e *estate.Estate) (client.WithWatch, error) {
	plain, err := b.connect(e)
	if err != nil {
		return nil, err
	}
	config := e.ControlPlane.Config()
	config.QPS = -1
	return client.NewWithWatch(config, client.Options{Scheme: plain.Scheme()})
}

// steeredRecord has a target in each datacenter.
func steeredRecord(name, probe string, a, b netip.Addr) *v1alpha1.DynamicRecord {
	pool := func(name string, target netip.Addr) v1alpha1.Pool {
		return v1alpha1.Pool{Name: name, Datacenter: v1alpha1.DatacenterName("dc-" + name), Targets: []v1alpha1.Target{{Address: v1alpha1.TargetAddress(target.String())}}}
	}
	ttl := v1alpha1.Duration("30s")
	return &v1alpha1.DynamicRecord{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: apexNamespace},
		Spec: v1alpha1.DynamicRecordSpec{
			ZoneRef: v1alpha1.ZoneRef{Name: "flip"}, Host: name, TTL: &v1alpha1.SteeredTTL{Value: &ttl},
			Steering: v1alpha1.Steering{Policy: v1alpha1.SteeringNearest},
			Pools:    []v1alpha1.Pool{pool("a", a), pool("b", b)},
			ProbeRef: &v1alpha1.ProbeRef{Name: probe},
		},
	}
}

// awaitServing returns when all records are ready and say that they serve so, and no status is written any more.
func (f *flipping) awaitServing(datacenters string) error {
	var last string
	for deadline := time.Now().Add(15 * time.Minute); ; {
		var all v1alpha1.DynamicRecordList
		if err := f.api.List(f.ctx, &all); err != nil {
			return err
		}
		missing := 0
		for i := range all.Items {
			if !recordSettled(&all.Items[i], datacenters) {
				missing++
				last = fmt.Sprintf("%s: %+v", all.Items[i].Name, all.Items[i].Status)
			}
		}
		if missing == 0 {
			return f.awaitSilence(f.e)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d records do not serve %s, such as %s", missing, datacenters, last)
		}
		if err := f.pause(2 * time.Second); err != nil {
			return err
		}
	}
}

func recordSettled(r *v1alpha1.DynamicRecord, datacenters string) bool {
	ready := slices.ContainsFunc(r.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionTrue
	})
	return ready && r.Status.Serving == datacenters
}

// usage is what programs use, by name.
type usage map[string]used

type used struct {
	cpu    float64 // of one CPU, in percent
	memory float64 // MiB, at the end
}

// programs are those that are looked at.
func (f *flipping) programs() map[string]int {
	all := map[string]int{}
	for _, s := range f.servers {
		all["dnsserver "+s.Instance+" of "+s.Datacenter] = s.PID()
	}
	if l := f.e.Leader(); l != nil {
		all["manager that leads"] = l.PID()
	}
	return all
}

// measured returns what programs, which are processes by name, use while something happens.
func measured(programs map[string]int, happens func() error) (usage, error) {
	before := map[string]time.Duration{}
	for name, pid := range programs {
		cpu, err := group{pid}.cpuTime()
		if err != nil {
			return nil, err
		}
		before[name] = cpu
	}
	began := time.Now()
	if err := happens(); err != nil {
		return nil, err
	}
	took, all := time.Since(began), usage{}
	for name, pid := range programs {
		cpu, err := group{pid}.cpuTime()
		if err != nil {
			return nil, err
		}
		memory, err := group{pid}.memory()
		if err != nil {
			return nil, err
		}
		all[name] = used{100 * float64(cpu-before[name]) / float64(took), memory}
	}
	return all, nil
}

// everyWrite counts what all but the bench write into the API, but for leases.
func (f *flipping) everyWrite() (map[string]float64, error) {
	all := map[string]float64{}
	for name, labels := range map[string][]string{
		"statuses of DynamicRecords": {`resource="dynamicrecords"`, `subresource="status"`},
		"statuses of HealthProbes":   {`resource="healthprobes"`, `subresource="status"`},
		"statuses of DNSZones":       {`resource="dnszones"`, `subresource="status"`},
		"statuses of Datacenters":    {`resource="datacenters"`, `subresource="status"`},
		"Events":                     {`resource="events"`},
	} {
		n, err := f.writes(f.e, labels...)
		if err != nil {
			return nil, err
		}
		all[name] = n
	}
	return all, nil
}

// writesDuring counts what is written while something happens.
func (f *flipping) writesDuring(happens func() error) (map[string]float64, error) {
	before, err := f.everyWrite()
	if err != nil {
		return nil, err
	}
	if err := happens(); err != nil {
		return nil, err
	}
	after, err := f.everyWrite()
	for name := range after {
		after[name] -= before[name]
	}
	return after, err
}

// rest measures what probes cost while nothing happens.
func (f *flipping) rest() (t report.Table, err error) {
	before := f.targets.requests.Load()
	began := time.Now()
	writes, err := f.writesDuring(func() error {
		f.restLoad, err = measured(f.programs(), func() error { return f.pause(flipWatched) })
		return err
	})
	if err != nil {
		return t, err
	}
	probes, sum := float64(f.targets.requests.Load()-before), 0.0
	for _, n := range writes {
		sum += n
	}
	return report.Table{
		Title:   fmt.Sprintf("Nothing happens to %s steered names with %s targets", report.Number(f.records), report.Number(2*f.shared)),
		Columns: []report.Column{{Name: "number", Unit: report.Count}},
		Rows: []report.Row{
			{Name: "probes a second, of all servers", Values: []report.Figure{report.Of(probes / time.Since(began).Seconds())}},
			{Name: "API writes", Values: []report.Figure{report.Of(sum).Below(0)}},
		},
	}, nil
}

// ones has records lose their target, one after the other.
func (f *flipping) ones() (t report.Table, err error) {
	t = report.Table{
		Title: "The target of one name fails: from the probe that decides to the new answer, at each server",
		Columns: []report.Column{
			{Name: "answers", Unit: report.Count}, {Name: "p50", Unit: report.Milliseconds}, {Name: "p99", Unit: report.Milliseconds}, {Name: "slowest", Unit: report.Milliseconds},
		},
		Notes: []string{
			fmt.Sprintf("In an estate of %s names. The target begins to answer 503, which counts at once (failureThreshold 1). For Local the later one of the datacenter's two servers decides, for Quorum the last one of all four: the time goes from the moment before the target sends it the answer to the first new answer by UDP, for which servers are asked every millisecond.", report.Number(f.records)),
		},
	}
	for k, kind := range singleKinds {
		var times []time.Duration
		for i := range f.times(flipSingles, flipSinglesShort) {
			took, err := f.one(kind, singleName(kind, i), targetOf(k, i))
			if errors.Is(err, errUndecided) {
				fmt.Printf("left out: %v\n", err)
				continue
			} else if err != nil {
				return t, err
			}
			times = append(times, took...)
		}
		if len(times) == 0 {
			return t, errUndecided
		}
		slices.Sort(times)
		p50, p99 := report.Duration(report.Quantile(times, 0.5)), report.Duration(report.Quantile(times, 0.99))
		if kind == v1alpha1.VantageLocal {
			p99 = p99.Below(flipLocal)
		} else {
			p50, p99 = p50.Below(flipQuorum), p99.Below(flipQuorumSlowest)
		}
		t.Rows = append(t.Rows, report.Row{Name: string(kind), Values: []report.Figure{
			report.Of(float64(len(times))), p50, p99, report.Duration(times[len(times)-1]),
		}})
	}
	return t, nil
}

// one has a target fail and returns what each server took.
func (f *flipping) one(kind v1alpha1.VantagePolicy, name string, target netip.Addr) (times []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(f.ctx, 20*time.Second)
	defer cancel()
	fails := f.targets.fail(target, f.processes)
	defer f.targets.failing.Store(nil)
	moved := make([]time.Time, len(f.servers))
	asking, ctx := errgroup.WithContext(ctx)
	for i, s := range f.servers {
		asking.Go(func() error {
			moved[i], err = estate.Await(ctx, netip.AddrPortFrom(s.Addr, estate.DNSPort), name+"."+flipApex, dns.TypeA, answers(targetB(0)))
			return err
		})
	}
	if err := asking.Wait(); err != nil {
		return nil, err
	}
	for i, s := range f.servers {
		var deciding []int
		for _, other := range f.servers {
			if kind == v1alpha1.VantageQuorum || other.Datacenter == s.Datacenter {
				deciding = append(deciding, other.PID())
			}
		}
		decided, err := fails.decided(deciding)
		if err != nil {
			return nil, fmt.Errorf("%w: %s has moved %s: %w", errUndecided, s.Name, name, err)
		}
		times = append(times, moved[i].Sub(decided))
	}
	return times, nil
}

// errUndecided is what happens if probes take too long, so that a target is down before it has said so.
var errUndecided = errors.New("it is not known which probe has decided")

// answers expects one address.
func answers(want netip.Addr) func(*dns.Msg) bool {
	return func(m *dns.Msg) bool {
		if len(m.Answer) != 1 {
			return false
		}
		a, is := m.Answer[0].(*dns.A)
		return is && a.A.Equal(want.AsSlice())
	}
}

// leaders kills the leader again and again.
func (f *flipping) leaders() (t report.Table, err error) {
	if err := f.awaitServing("dc-a,dc-b"); err != nil { // those that failed are up again
		return t, err
	}
	var elected, synced, statuses []float64
	for range f.times(flipLeaders, flipLeadersShort) {
		o, err := f.takeOver(f.e, f.api, f.allCurrent(f.e, 1))
		if err != nil {
			return t, err
		}
		elected, synced, statuses = append(elected, o.elected.Seconds()), append(synced, (o.synced-o.elected).Seconds()), append(statuses, o.statusWrites)
	}
	return report.Table{
		Title:   fmt.Sprintf("The leader of %s steered names is killed", report.Number(f.records)),
		Columns: []report.Column{{Name: "seconds", Unit: report.Seconds}, {Name: "number", Unit: report.Count}},
		Rows: []report.Row{
			{Name: "the other manager leads, after kill -9", Values: []report.Figure{report.Median(elected), {}}},
			{Name: "all servers are in sync, from its election on", Values: []report.Figure{report.Median(synced), {}}},
			{Name: "writes of statuses", Values: []report.Figure{{}, report.Median(statuses).Below(0)}},
		},
		Notes: []string{fmt.Sprintf("Median of %d times. Writes are counted until %s after the last server was in sync.", len(synced), lateWrites)},
	}, nil
}

// all has the targets of dc-a go silent.
func (f *flipping) all() (t report.Table, err error) {
	ctx, cancel := context.WithTimeout(f.ctx, 10*time.Minute)
	defer cancel()
	answered := make([][]time.Time, len(f.servers))
	var written []time.Time
	began := time.Now()
	f.counted, err = f.writesDuring(func() error {
		f.flipLoad, err = measured(f.programs(), func() error {
			began = time.Now()
			f.targets.silent.Store(&networkA)
			watching, ctx := errgroup.WithContext(ctx)
			for i, s := range f.servers {
				watching.Go(func() error {
					answered[i], err = f.moves(ctx, s)
					return err
				})
			}
			watching.Go(func() error {
				written, err = f.statusMoves(ctx)
				return err
			})
			return watching.Wait()
		})
		if err != nil {
			return err
		}
		return f.awaitSilence(f.e)
	})
	if err != nil {
		return t, err
	}
	seconds := func(times ...time.Time) (all []float64) {
		for _, at := range times {
			all = append(all, at.Sub(began).Seconds())
		}
		slices.Sort(all)
		return all
	}
	moved, told := seconds(slices.Concat(answered...)...), seconds(written...)
	row := func(name string, f report.Figure) report.Row {
		return report.Row{Name: name, Values: []report.Figure{f}}
	}
	last := func(all []float64) float64 { return all[len(all)-1] }
	return report.Table{
		Title:   fmt.Sprintf("All targets of dc-a go silent at once: %s names at %d servers", report.Number(f.records), len(f.servers)),
		Columns: []report.Column{{Name: "after", Unit: report.Seconds}},
		Rows: []report.Row{
			row("the first answer has moved", report.Of(moved[0])),
			row("half of the answers have", report.Of(report.Quantile(moved, 0.5))),
			row("all have, at all servers", report.Of(last(moved))),
			row("the first status is written", report.Of(told[0])),
			row("half of the statuses are", report.Of(report.Quantile(told, 0.5))),
			row("all statuses are", report.Of(last(told))),
			row("from the first answer that moved to the last status", report.Of(last(told)-moved[0]).Below(flipStatuses)),
		},
		Notes: []string{
			fmt.Sprintf("Servers are asked by UDP for every name, some %d times a second for one of each target and then for the others that have it. The probe: HTTP every %s with a timeout of %s, down after 3 failures, by quorum.", time.Second/moveEvery, f.interval(), flipTimeout),
		},
	}, nil
}

// moveEvery is how often a server is asked for a name of each target.
const moveEvery = 250 * time.Millisecond

// moves asks a server until all names have moved to dc-b, and returns when each was seen to have.
func (f *flipping) moves(ctx context.Context, s *estate.Server) (at []time.Time, err error) {
	asker, err := estate.NewAsker(netip.AddrPortFrom(s.Addr, estate.DNSPort))
	if err != nil {
		return nil, err
	}
	defer asker.Close()
	next := make([]int, f.shared) // the first name of each target that has not moved
	for i := range next {
		next[i] = i
	}
	tick := time.NewTicker(moveEvery)
	defer tick.Stop()
	for len(at) < f.records {
		for target := range next {
			moved := answers(targetB(target))
			for ; next[target] < f.records; next[target] += f.shared {
				reply, err := asker.Ask(massName(next[target])+"."+flipApex, dns.TypeA)
				if err != nil || !moved(reply) {
					break
				}
				at = append(at, time.Now())
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d names have not moved at %s: %w", f.records-len(at), s.Name, context.Cause(ctx))
		case <-tick.C:
		}
	}
	return at, nil
}

// statusMoves returns when the status of each record first said that dc-b alone serves.
func (f *flipping) statusMoves(ctx context.Context) (at []time.Time, err error) {
	seen := map[string]bool{}
	look := func(r *v1alpha1.DynamicRecord) {
		if r.Status.Serving == "dc-b" && r.Spec.ProbeRef.Name == "mass" && !seen[r.Name] {
			seen[r.Name] = true
			at = append(at, time.Now())
		}
	}
	for len(seen) < f.records { // the API server ends a watch that is behind
		var all v1alpha1.DynamicRecordList
		if err := f.api.List(ctx, &all, client.InNamespace(apexNamespace)); err != nil {
			return nil, fmt.Errorf("%d statuses are not written: %w", f.records-len(seen), err)
		}
		for i := range all.Items {
			look(&all.Items[i])
		}
		w, err := f.api.Watch(ctx, &v1alpha1.DynamicRecordList{}, client.InNamespace(apexNamespace), &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: all.ResourceVersion}})
		if err != nil {
			return nil, err
		}
		for more := true; more && len(seen) < f.records; {
			select {
			case <-ctx.Done():
				w.Stop()
				return nil, fmt.Errorf("%d statuses are not written: %w", f.records-len(seen), context.Cause(ctx))
			case event, open := <-w.ResultChan():
				r, is := event.Object.(*v1alpha1.DynamicRecord)
				if more = open && (is || event.Type != watch.Error); is {
					look(r)
				}
			}
		}
		w.Stop()
	}
	return at, nil
}

// load tells what the programs have used.
func (f *flipping) load() (t report.Table, err error) {
	t = report.Table{
		Title: "Load of the programs",
		Columns: []report.Column{
			{Name: "CPU at rest", Unit: report.Percent}, {Name: "memory", Unit: report.MiB},
			{Name: "CPU while all moved", Unit: report.Percent}, {Name: "memory after", Unit: report.MiB},
		},
		Notes: []string{"In percent of one CPU. While all moved: from the moment that the targets went silent until the last status was written."},
	}
	var names []string
	for name := range f.flipLoad {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		rest, flip := f.restLoad[name], f.flipLoad[name]
		t.Rows = append(t.Rows, report.Row{Name: name, Values: []report.Figure{
			report.Of(rest.cpu), report.Of(rest.memory), report.Of(flip.cpu), report.Of(flip.memory),
		}})
	}
	return t, nil
}

// written tells what was written into the API.
func (f *flipping) written() (t report.Table, err error) {
	t = report.Table{
		Title:   "What was written into the API until all was quiet",
		Columns: []report.Column{{Name: "number", Unit: report.Count}},
	}
	var names []string
	for name := range f.counted {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Rows = append(t.Rows, report.Row{Name: name, Values: []report.Figure{report.Of(f.counted[name])}})
	}
	return t, nil
}
