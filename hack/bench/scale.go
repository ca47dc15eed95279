//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	ac "github.com/fingerpost-dns/fingerpost/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

const (
	scaleDatacenters, scaleDatacentersShort = 100, 10
	scaleZones, scaleZonesShort             = 10_000, 200
	scaleChanges, scaleChangesShort         = 50, 10
	scaleRest, scaleRestShort               = 30, 5 // seconds for which nothing happens
	scaleWriters                            = 8     // applies under way at once

	resyncRecords, resyncRecordsShort = 1_000_000, 2 * mapRecords
	resyncTimes, resyncTimesShort     = 3, 1
	resyncSettled                     = 5 * time.Second // after a resync, for memory
)

// Leases of scale: the API server is so busy while zones are created that a leader may lose a shorter one.
var scaleLeases = estate.Options{LeaseDuration: 30 * time.Second, RenewDeadline: 25 * time.Second, RetryPeriod: 2 * time.Second}

// scaleGroups are the server groups of each simulated datacenter, of scaleServers each.
var scaleGroups = []string{"authoritative", "internal"}

const (
	scaleServers = 2
	scaleMost    = 256 // datacenters: each has an octet in its servers' addresses
)

// scale measures a manager with many datacenters and zones, and one that sends a large zone.
func scale(b *bench) ([]report.Table, error) {
	var tables []report.Table
	for _, part := range []struct {
		name string
		run  func(*bench) ([]report.Table, error)
	}{{"crowded", crowded}, {"resync", resync}} {
		one := *b
		one.dir = b.path(part.name)
		if err := os.Mkdir(one.dir, 0o755); err != nil {
			return nil, err
		}
		some, err := part.run(&one)
		if err != nil {
			return nil, err
		}
		for _, t := range some {
			fmt.Println(t.Text()) // the other part takes long
		}
		tables = append(tables, some...)
	}
	return tables, nil
}

// largeEstate is a run of the first part. Its real servers and datacenters are those of the samples, without zones; the
// others are simulated.
type largeEstate struct {
	*bench
	e           *estate.Estate
	api         client.Client
	datacenters []string // the simulated ones, in the order of their numbers
	zones       int
	servers     []*simulated

	mu       sync.Mutex
	awaited  zone.Name      // "": none
	missing  map[string]int // servers that lack the awaited zone, by datacenter
	complete chan time.Time // has room for one: when the last of them had it
}

// simulated is a dnsserver less its sockets: the client of the stream, with its certificate, before the replica with its
// copy on disk.
type simulated struct {
	id     control.ServerID
	client *control.Client
	*dnsserver.Replica
	estate *largeEstate
}

// Install is the replica's. When it returns, the client acknowledges.
func (s *simulated) Install(ctx context.Context, f control.Fence, z control.Installed) error {
	err := s.Replica.Install(ctx, f, z)
	if err == nil {
		s.estate.installed(s.id.Datacenter, z.Content.Apex(), time.Now())
	}
	return err
}

// crowded is the first part.
func crowded(b *bench) (tables []report.Table, err error) {
	datacenters := b.times(scaleDatacenters, scaleDatacentersShort)
	l := &largeEstate{bench: b, zones: b.times(scaleZones, scaleZonesShort)}
	if b.Datacenters > 0 {
		datacenters = b.Datacenters
	}
	if b.Zones > 0 {
		l.zones = b.Zones
	}
	if l.e, err = b.estate(scaleLeases); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.e.Stop()) }()
	if l.api, err = b.watching(l.e); err != nil {
		return nil, err
	}
	samples := map[string]bool{}
	for _, s := range l.e.Servers {
		samples[s.Datacenter] = true
	}
	if least := len(samples) + 2; datacenters < least || datacenters > scaleMost {
		return nil, fmt.Errorf("%d datacenters: wanted %d, for %d are real and zones need two more, to %d, which have addresses", datacenters, least, len(samples), scaleMost)
	}
	for i := range datacenters - len(samples) {
		l.datacenters = append(l.datacenters, fmt.Sprintf("sim-%d", i))
	}
	ctx, cancel := context.WithCancel(b.ctx)
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
		for _, s := range l.servers {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := l.start(ctx, &running); err != nil {
		return nil, err
	}
	title := fmt.Sprintf("%d datacenters of two groups, %s zones of two datacenters each", datacenters, report.Number(l.zones))
	loaded, err := l.create()
	if err != nil {
		return nil, err
	}
	rest, err := l.rest()
	if err != nil {
		return nil, err
	}
	changes, err := l.changes()
	if err != nil {
		return nil, err
	}
	taken, err := l.takeOver(l.e, l.api, l.current(len(l.e.Servers)+len(l.servers)))
	if err != nil {
		return nil, err
	}
	row := func(name string, f report.Figure) report.Row {
		return report.Row{Name: name, Values: []report.Figure{f}}
	}
	return []report.Table{
		{
			Title:   title + ": programs at rest",
			Columns: []report.Column{{Name: "CPU", Unit: report.Percent}, {Name: "memory", Unit: report.MiB}},
			Rows:    rest,
			Notes: []string{
				fmt.Sprintf("%d of the %d servers are simulated: clients of the stream in one process, each with a connection and a certificate of its group of its own and with its copy on disk, as in dnsserver, but without DNS sockets. The other %d are real, and have no zones. A zone has %d records and is at %d simulated servers.",
					len(l.servers), len(l.servers)+len(l.e.Servers), len(l.e.Servers), leaderRecords, 2*scaleServers),
				fmt.Sprintf("CPU in percent of one CPU, during %s after the last status was written. The simulated servers are in the process that measures.", l.restTime()),
			},
		},
		{
			Title: title + ": one zone changes", Columns: changeColumns, Rows: []report.Row{changeRow("to all acknowledgements", changes, 0)},
			Notes: []string{fmt.Sprintf("The change ends when the last of the zone's %d servers has it in force and on disk and sends its acknowledgement. After the write: what is left when the API server's own time is taken off.", 2*scaleServers)},
		},
		{
			Title: title + ": time for all", Columns: []report.Column{{Name: "time", Unit: report.Seconds}},
			Rows: []report.Row{
				row("zones created, until all servers have them", report.Of(loaded.Seconds())),
				row("the leader is killed, until the other manager leads", report.Of(taken.elected.Seconds())),
				row("from then on, until all servers are in sync with it", report.Of((taken.synced - taken.elected).Seconds())),
			},
			Notes: []string{fmt.Sprintf("Once. Zones are created by %d applies at a time. A lease lasts %s and is looked at every %s: that is the time to the election. The new leader sent %.0f zones whole, changes of %.0f and versions of %.0f, and wrote %.0f statuses until %s after all were in sync.",
				scaleWriters, scaleLeases.LeaseDuration, scaleLeases.RetryPeriod, taken.transfers["whole"], taken.transfers["changes"], taken.transfers["version"], taken.statusWrites, lateWrites)},
		},
	}, nil
}

// start makes the simulated datacenters and their servers, and returns when all are connected.
func (l *largeEstate) start(ctx context.Context, running *sync.WaitGroup) error {
	applying, applyCtx := errgroup.WithContext(ctx)
	applying.SetLimit(scaleWriters)
	for i, name := range l.datacenters {
		spec := ac.DatacenterSpec()
		for g, group := range scaleGroups {
			made := ac.ServerGroup().WithName(group).WithManagement(v1alpha1.ServerGroupExternal)
			for s := range scaleServers {
				made.WithAddresses(v1alpha1.IP(netip.AddrFrom4([4]byte{127, 50 + byte(g), byte(i), byte(s + 1)}).String()))
			}
			spec.WithServerGroups(made)
		}
		applying.Go(func() error { return applyTo(applyCtx, l.api, ac.Datacenter(name).WithSpec(spec)) })
	}
	if err := applying.Wait(); err != nil {
		return err
	}
	if _, err := l.e.Shell("manager certs export --all --timeout 3m --dir " + l.e.Path("certs")); err != nil {
		return err
	}
	var hubs []string
	for _, m := range l.e.Managers {
		hubs = append(hubs, netip.AddrPortFrom(m.Addr, estate.HubPort).String())
	}
	for _, dc := range l.datacenters {
		for _, group := range scaleGroups {
			folder := func(name string) string { return l.e.Path("certs", dc, group, name) }
			files, err := control.NewFiles(folder("tls.crt"), folder("tls.key"), folder("ca.crt"))
			if err != nil {
				return err
			}
			for i := range scaleServers {
				s := &simulated{id: control.ServerID{Datacenter: dc, Group: group, Name: fmt.Sprintf("ns%d", i+1)}, estate: l}
				if s.Replica, err = dnsserver.OpenReplica(l.e.Path("state", dc, group, s.id.Name), new(zone.View), logr.Discard()); err != nil {
					return err
				}
				l.servers = append(l.servers, s)
				if s.client, err = control.NewClient(control.ClientOptions{
					Hubs: hubs, Credentials: files.Credentials(), Name: s.id.Name, SoftwareVersion: "bench", Replica: s, Log: logr.Discard(),
				}); err != nil {
					return err
				}
				running.Go(func() { _ = s.client.Run(ctx) }) // nil always
			}
		}
	}
	return l.e.Until(2*time.Minute, "all simulated servers are connected", l.connected)
}

// connected reports whether all simulated servers are in a stream with one and the same leader, and were sent everything.
func (l *largeEstate) connected() bool {
	var epoch uint64
	for _, s := range l.servers {
		state := s.client.State()
		if state.Hub == "" || !state.Synced || epoch != 0 && s.Fence().Epoch != epoch {
			return false
		}
		epoch = s.Fence().Epoch
	}
	return true
}

// current returns what tells whether a manager sees so many servers, and all of them with all their zones. Its metrics are
// only asked for when the simulated servers are connected to it: they are long.
func (l *largeEstate) current(servers int) func(*estate.Program) bool {
	return func(m *estate.Program) bool {
		hub := netip.AddrPortFrom(m.Addr, estate.HubPort).String()
		for _, s := range l.servers {
			if s.client.State().Hub != hub {
				return false
			}
		}
		states, err := l.inSync(m)
		if err != nil || len(states) != servers {
			return false
		}
		copies := 0.0
		for _, s := range states {
			if s.current != s.wanted {
				return false
			}
			copies += s.current
		}
		return copies == float64(l.zones*2*scaleServers)
	}
}

// zone returns zone i, with an address for the record that changes. Zones are spread over all datacenters and groups.
func (l *largeEstate) zone(i int, address string) *ac.DNSZoneApplyConfiguration {
	n := len(l.datacenters)
	z := smallZone(i)
	z.Spec.WithServerGroup(scaleGroups[i/n%len(scaleGroups)]).WithDatacenters(ac.DatacenterSelection().WithNames(
		v1alpha1.DatacenterName(l.datacenters[i%n]), v1alpha1.DatacenterName(l.datacenters[(i+1)%n])))
	if address != "" {
		z.Spec.Records[len(z.Spec.Records)-1] = *record(changingName, address)
	}
	return z
}

// create makes all zones and returns how long it took until the last server had the last one. When it returns, all is
// quiet.
func (l *largeEstate) create() (took time.Duration, err error) {
	began := time.Now()
	creating, ctx := errgroup.WithContext(l.ctx)
	creating.SetLimit(scaleWriters)
	for i := range l.zones {
		creating.Go(func() error { return applyTo(ctx, l.api, l.zone(i, "")) })
	}
	if err := creating.Wait(); err != nil {
		return 0, err
	}
	if err := l.e.Until(10*time.Minute, "all servers have all zones", func() bool {
		held := 0
		for _, s := range l.servers {
			held += len(s.Held())
		}
		return held == l.zones*2*scaleServers || l.pause(100*time.Millisecond) != nil
	}); err != nil {
		return 0, err
	}
	took = time.Since(began)
	for {
		if err := l.awaitSilence(l.e); err != nil {
			return 0, err
		}
		if l.ready(l.api) == l.zones {
			return took, nil
		}
	}
}

func (l *largeEstate) restTime() time.Duration {
	return time.Duration(l.times(scaleRest, scaleRestShort)) * time.Second
}

// rest tells what programs use while nothing happens.
func (l *largeEstate) rest() (rows []report.Row, err error) {
	leader := l.e.Leader()
	if leader == nil {
		return nil, errors.New("no manager leads")
	}
	programs := map[string]int{"manager that leads": leader.PID(), "the simulated servers together": os.Getpid()}
	for _, m := range l.e.Managers {
		if m != leader {
			programs["manager that stands by"] = m.PID()
		}
	}
	all, err := measured(programs, func() error { return l.pause(l.restTime()) })
	for _, name := range []string{"manager that leads", "manager that stands by", "the simulated servers together"} {
		rows = append(rows, report.Row{Name: name, Values: []report.Figure{report.Of(all[name].cpu), report.Of(all[name].memory)}})
	}
	return rows, err
}

// changes has zones change, one after the other.
func (l *largeEstate) changes() (times []changeTime, err error) {
	n := l.times(scaleChanges, scaleChangesShort)
	for i := range n {
		number := i * l.zones / n
		z := l.zone(number, l.nextAddress())
		apex, err := zone.ParseName(*z.Spec.Name, zone.Root)
		if err != nil {
			return nil, err
		}
		done := l.await(apex, z.Spec.Datacenters.Names)
		began := time.Now()
		if err := applyTo(l.ctx, l.api, z); err != nil {
			return nil, err
		}
		written := time.Now()
		select {
		case last := <-done:
			times = append(times, changeTime{written.Sub(began), last.Sub(began)})
		case <-l.ctx.Done():
			return nil, context.Cause(l.ctx)
		case <-time.After(time.Minute):
			return nil, fmt.Errorf("the change of %s is not at all servers", *z.Spec.Name)
		}
		if err := l.pause(200 * time.Millisecond); err != nil {
			return nil, err
		}
	}
	return times, nil
}

// await returns what gets the time at which the last server of the datacenters has installed a zone.
func (l *largeEstate) await(apex zone.Name, datacenters []v1alpha1.DatacenterName) <-chan time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awaited, l.missing, l.complete = apex, map[string]int{}, make(chan time.Time, 1)
	for _, dc := range datacenters {
		l.missing[string(dc)] = scaleServers
	}
	return l.complete
}

// installed is told by servers, each of which installs one version of the awaited zone.
func (l *largeEstate) installed(datacenter string, apex zone.Name, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if apex != l.awaited {
		return
	}
	if l.missing[datacenter]--; l.missing[datacenter] == 0 {
		delete(l.missing, datacenter)
	}
	if len(l.missing) == 0 {
		l.awaited = ""
		l.complete <- at
	}
}

// resync measures a server that has lost its disk and gets a large zone again.
func resync(b *bench) (tables []report.Table, err error) {
	e, err := b.estate(scaleLeases)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Stop()) }()
	api, err := b.watching(e)
	if err != nil {
		return nil, err
	}
	records := b.times(resyncRecords, resyncRecordsShort)
	z := importedZone(records)
	if err := z.create(b.ctx, api); err != nil {
		return nil, err
	}
	if err := b.awaitReady(e, api, 1); err != nil {
		return nil, err
	}
	server := e.Of("authoritative")[0]
	var synced, octets []float64
	before, peak, after := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for range b.times(resyncTimes, resyncTimesShort) {
		leader := e.Leader()
		if leader == nil {
			return nil, errors.New("no manager leads")
		}
		manager := group{leader.PID()}
		mib, err := manager.memory()
		if err != nil {
			return nil, err
		}
		before["manager"] = append(before["manager"], mib)
		sent, err := estate.Metrics(b.ctx, leader)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(manager.resetPeak(), server.Kill(), os.RemoveAll(e.Path("state", server.Datacenter, server.Group, server.Instance))); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := e.Start(&server.Program); err != nil {
			return nil, err
		}
		if err := e.Until(5*time.Minute, "the server that was empty has everything", func() bool {
			text, err := estate.Metrics(b.ctx, &server.Program)
			return err == nil && estate.Sum(text, "fingerpost_dnsserver_hub_synced") == 1
		}); err != nil {
			return nil, err
		}
		synced = append(synced, time.Since(began).Seconds())
		if err := b.pause(resyncSettled); err != nil {
			return nil, err
		}
		for name, g := range map[string]group{"dnsserver": {server.PID()}, "manager": manager} {
			most, err := g.peak()
			if err != nil {
				return nil, err
			}
			left, err := g.memory()
			if err != nil {
				return nil, err
			}
			peak[name], after[name] = append(peak[name], most), append(after[name], left)
		}
		sentAfter, err := estate.Metrics(b.ctx, leader)
		if err != nil {
			return nil, err
		}
		octets = append(octets, (estate.Sum(sentAfter, octetsMetric)-estate.Sum(sent, octetsMetric))/(1<<20))
	}
	t := report.Table{
		Title: fmt.Sprintf("A server without a disk copy gets %s records from the manager", report.Number(records)),
		Columns: []report.Column{
			{Name: "time", Unit: report.Seconds}, {Name: "memory before", Unit: report.MiB}, {Name: "at most", Unit: report.MiB}, {Name: "after", Unit: report.MiB},
		},
		Notes: []string{
			fmt.Sprintf("Median of %d times. One zone in %d ConfigMaps of %s records, sent as %.0f MiB over the stream to a real dnsserver whose folder was removed; memory after %s later. Synced: the server has everything in force and on disk, and the manager has said that nothing is left to send.",
				len(synced), records/mapRecords, report.Number(mapRecords), report.Median(octets).Value, resyncSettled),
		},
		Rows: []report.Row{
			{Name: "from its exec until it is synced", Values: []report.Figure{report.Median(synced), {}, {}, {}}},
		},
	}
	for _, name := range []string{"manager", "dnsserver"} {
		t.Rows = append(t.Rows, report.Row{Name: name, Values: []report.Figure{{}, report.Median(before[name]), report.Median(peak[name]), report.Median(after[name])}})
	}
	return []report.Table{t}, nil
}
