//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/runtime"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	ac "github.com/fingerpost-dns/fingerpost/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

const (
	apexNamespace = "bench" // of zones that need no parent
	changingName  = "changing"

	inlineRecords   = 100
	mostRecords     = 1000 // that a DNSZone may have inline
	importedRecords = 100_000
	mapRecords      = 20_000 // of one ConfigMap: some 700 KiB

	// Aims for the 99th percentile from the end of the API server's write on, in milliseconds.
	inlineLimit   = 100
	importedLimit = 300

	changeTimes, changeTimesShort = 200, 10
	otherTimes                    = 20 // where there is no aim
)

// change measures how long the change of one record takes to all servers of a zone, which are four in two datacenters.
func change(b *bench) (tables []report.Table, err error) {
	e, err := b.estate(estate.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Stop()) }()
	api, err := b.connect(e)
	if err != nil {
		return nil, err
	}
	inline := inlineZone("inline", inlineRecords)
	t := report.Table{
		Title:   "A changed record: from the start of the write to the new answer at all servers of both datacenters",
		Columns: changeColumns,
		Notes: []string{
			"The write is one server-side apply, from the request to the response. Each of the four servers of the zone is asked by UDP every millisecond; a change counts when the last one gives the new answer. After the write: what is left when its own time is taken off.",
			fmt.Sprintf("The zone of %s records is %d ConfigMaps of %s records; one record of one of them changes.", report.Number(importedRecords), importedRecords/mapRecords, report.Number(mapRecords)),
			"kubectl's write is the whole run of `kubectl apply --server-side`, with its own start.",
		},
	}
	for _, c := range []struct {
		name  string
		zone  *changingZone
		times int
		limit float64
	}{
		{report.Number(inlineRecords) + " records", inline, changeTimes, inlineLimit},
		{report.Number(importedRecords) + " records, in ConfigMaps", importedZone(importedRecords), changeTimes, importedLimit},
		{report.Number(mostRecords) + " records, the most without ConfigMaps", inlineZone("most", mostRecords), otherTimes, 0},
	} {
		if err := c.zone.create(b.ctx, api); err != nil {
			return nil, err
		}
		times, err := b.changes(e, c.zone, b.times(c.times, changeTimesShort), func(value string) error {
			return c.zone.apply(b.ctx, api, value)
		})
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, changeRow(c.name, times, c.limit))
	}
	file := b.path("zone.json")
	times, err := b.changes(e, inline, b.times(otherTimes, changeTimesShort), func(value string) error {
		text, err := json.Marshal(inline.with(value))
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
		_, err = e.Shell("kubectl apply --server-side --field-manager bench -f " + file)
		return err
	})
	if err != nil {
		return nil, err
	}
	t.Rows = append(t.Rows, changeRow(report.Number(inlineRecords)+" records, by kubectl", times, 0))
	return []report.Table{t}, nil
}

// estate starts everything, with zones allowed to stand alone in apexNamespace.
func (b *bench) estate(o estate.Options) (e *estate.Estate, err error) {
	o.Programs, o.Dir, o.ApexNamespaces = b.Programs, b.path(), []string{apexNamespace}
	if e, err = estate.New(b.ctx, o); err != nil {
		return nil, err
	}
	b.ctx = e.Context
	if err := e.Up(); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	if _, err := e.Shell("kubectl create namespace " + apexNamespace); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

// connect returns a client of the estate's API server.
func (b *bench) connect(e *estate.Estate) (client.Client, error) {
	kinds := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(kinds), v1alpha1.AddToScheme(kinds)); err != nil {
		return nil, err
	}
	return client.New(e.ControlPlane.Config(), client.Options{Scheme: kinds})
}

// changingZone is a zone of which one record changes, the A record of changingName.
type changingZone struct {
	apex string
	zone *ac.DNSZoneApplyConfiguration
	maps []runtime.ApplyConfiguration // that the zone imports
	// with returns the object that has the record, with this address.
	with func(address string) runtime.ApplyConfiguration
}

// firstAddress is the record's at the beginning.
const firstAddress = "10.255.0.1"

func record(name, address string) *ac.ZoneRecordApplyConfiguration {
	return ac.ZoneRecord().WithName(name).WithType("A").WithValues(address)
}

func hostAddress(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255) }

func zoneNamed(name, apex string) *ac.DNSZoneApplyConfiguration {
	return ac.DNSZone(name, apexNamespace).WithSpec(ac.DNSZoneSpec().WithName(apex).WithServerGroup("authoritative"))
}

// inlineZone has all its records in the DNSZone.
func inlineZone(name string, records int) *changingZone {
	z := &changingZone{apex: name + ".test"}
	build := func(address string) *ac.DNSZoneApplyConfiguration {
		made := zoneNamed(name, z.apex)
		for i := range records - 1 {
			made.Spec.WithRecords(record(fmt.Sprintf("host%d", i), hostAddress(i)))
		}
		made.Spec.WithRecords(record(changingName, address))
		return made
	}
	z.zone = build(firstAddress)
	z.with = func(address string) runtime.ApplyConfiguration { return build(address) }
	return z
}

// importedZone has its records, a multiple of mapRecords, in ConfigMaps. The one that changes is in the middle of the first.
func importedZone(records int) *changingZone {
	z := &changingZone{apex: "imported.test", zone: zoneNamed("imported", "imported.test")}
	text := func(part int, changing string) string {
		var s strings.Builder
		for i := part * mapRecords; i < (part+1)*mapRecords; i++ {
			if i == mapRecords/2 {
				fmt.Fprintf(&s, "%s A %s\n", changingName, changing)
			} else {
				fmt.Fprintf(&s, "host%d.dept%d A %s\n", i, i%40, hostAddress(i))
			}
		}
		return s.String()
	}
	build := func(part int, changing string) runtime.ApplyConfiguration {
		return corev1ac.ConfigMap(fmt.Sprintf("part-%d", part), apexNamespace).WithData(map[string]string{"zone": text(part, changing)})
	}
	for part := range records / mapRecords {
		z.maps = append(z.maps, build(part, firstAddress))
		z.zone.Spec.WithRecordsFrom(ac.RecordsSource().WithConfigMapKeyRef(ac.ConfigMapKeyRef().WithName(fmt.Sprintf("part-%d", part)).WithKey("zone")))
	}
	z.with = func(address string) runtime.ApplyConfiguration { return build(0, address) }
	return z
}

func applyTo(ctx context.Context, api client.Client, o runtime.ApplyConfiguration) error {
	return api.Apply(ctx, o, client.FieldOwner("bench"), client.ForceOwnership)
}

// create makes all objects of the zone.
func (z *changingZone) create(ctx context.Context, api client.Client) error {
	for _, o := range append(slices.Clone(z.maps), runtime.ApplyConfiguration(z.zone)) {
		if err := applyTo(ctx, api, o); err != nil {
			return err
		}
	}
	return nil
}

// apply gives the changing record an address.
func (z *changingZone) apply(ctx context.Context, api client.Client, address string) error {
	return applyTo(ctx, api, z.with(address))
}

// changeTime is what one change took.
type changeTime struct {
	write time.Duration // of the API server
	all   time.Duration // from the start of the write to the last server's new answer
}

// changes has the record changed n times, by write, and waits each time until all servers have it.
func (b *bench) changes(e *estate.Estate, z *changingZone, n int, write func(address string) error) (times []changeTime, err error) {
	if _, err := awaitAnswer(b.ctx, e, z.apex, ""); err != nil { // any
		return nil, err
	}
	pause := rand.New(rand.NewPCG(3, uint64(n)))
	for range n {
		// Changes come at any moment of what the manager does by itself, such as writing statuses.
		select {
		case <-b.ctx.Done():
			return nil, context.Cause(b.ctx)
		case <-time.After(50*time.Millisecond + time.Duration(pause.IntN(450))*time.Millisecond):
		}
		address := b.nextAddress()
		var written time.Time
		var failed error
		began := time.Now()
		var writing sync.WaitGroup
		writing.Go(func() {
			failed = write(address)
			written = time.Now()
		})
		last, err := awaitAnswer(b.ctx, e, z.apex, address)
		writing.Wait()
		if err := errors.Join(failed, err); err != nil {
			return nil, err
		}
		times = append(times, changeTime{written.Sub(began), last.Sub(began)})
	}
	return times, nil
}

// nextAddress returns another address each time.
func (b *bench) nextAddress() string {
	b.addresses++
	return fmt.Sprintf("10.254.%d.%d", b.addresses>>8, b.addresses&255)
}

// awaitAnswer returns when the last server of the zone had the address; "" is any. All servers that have it not yet are
// asked every millisecond, at the cost of as little CPU time as possible: it is the same CPUs that the change needs.
func awaitAnswer(ctx context.Context, e *estate.Estate, apex, address string) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	query, err := new(dns.Msg).SetQuestion(changingName+"."+apex+".", dns.TypeA).Pack()
	if err != nil {
		return last, err
	}
	var wanted []byte // the end of an answer with one A record and nothing behind it
	if address != "" {
		wanted = netip.MustParseAddr(address).AsSlice()
	}
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for _, s := range e.Of("authoritative") {
		conn, err := net.Dial("udp", netip.AddrPortFrom(s.Addr, estate.DNSPort).String())
		if err != nil {
			return last, err
		}
		conns = append(conns, conn)
	}
	waiting := slices.Clone(conns)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	reply := make([]byte, 1232)
	for {
		for _, conn := range waiting {
			_, _ = conn.Write(query) // a server that is not there gives no answer
		}
		waiting = slices.DeleteFunc(waiting, func(conn net.Conn) bool {
			_ = conn.SetReadDeadline(time.Now().Add(answerPatience))
			n, err := conn.Read(reply)
			return err == nil && n > dnsHeader && reply[7] == 1 && bytes.HasSuffix(reply[:n], wanted)
		})
		if len(waiting) == 0 {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("%d servers do not give the new answer for %s: %w", len(waiting), apex, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

const (
	dnsHeader = 12
	// answerPatience is how long a server on this machine may take to answer; an answer that comes later is read the next time.
	answerPatience = 100 * time.Millisecond
)

// changeColumns are those of changeRow.
var changeColumns = []report.Column{
	{Name: "changes", Unit: report.Count},
	{Name: "API server's write p50", Unit: report.Milliseconds}, {Name: "p99", Unit: report.Milliseconds},
	{Name: "in all p50", Unit: report.Milliseconds}, {Name: "p99", Unit: report.Milliseconds},
	{Name: "after the write p50", Unit: report.Milliseconds}, {Name: "p99", Unit: report.Milliseconds},
}

// changeRow has the percentiles of changes, with an aim for the last one unless limit is 0.
func changeRow(name string, times []changeTime, limit float64) report.Row {
	row := report.Row{Name: name, Values: []report.Figure{report.Of(float64(len(times)))}}
	for _, of := range []func(changeTime) time.Duration{
		func(c changeTime) time.Duration { return c.write },
		func(c changeTime) time.Duration { return c.all },
		func(c changeTime) time.Duration { return c.all - c.write },
	} {
		var sorted []time.Duration
		for _, c := range times {
			sorted = append(sorted, of(c))
		}
		slices.Sort(sorted)
		row.Values = append(row.Values, report.Duration(report.Quantile(sorted, 0.5)), report.Duration(report.Quantile(sorted, 0.99)))
	}
	if limit > 0 {
		last := &row.Values[len(row.Values)-1]
		*last = last.Below(limit)
	}
	return row
}
