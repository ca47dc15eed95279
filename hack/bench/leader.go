//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	ac "github.com/fingerpost-dns/fingerpost/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

const (
	leaderZones, leaderZonesShort = 1000, 100
	leaderRecords                 = 10 // of each zone
	leaderTimes, leaderTimesShort = 5, 1

	// lateWrites is how long after a new leader is in sync status writes are still counted: a manager waits ten seconds
	// before it says that a server is away.
	lateWrites = 15 * time.Second
)

// leader kills the leading manager again and again, and measures how long the other one takes and what it does.
func leader(b *bench) (tables []report.Table, err error) {
	e, err := b.estate(estate.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Stop()) }()
	api, err := b.connect(e)
	if err != nil {
		return nil, err
	}
	zones := b.times(leaderZones, leaderZonesShort)
	for i := range zones {
		if err := applyTo(b.ctx, api, smallZone(i)); err != nil {
			return nil, err
		}
	}
	if err := b.awaitReady(e, api, zones); err != nil {
		return nil, err
	}
	synced := b.allCurrent(e, zones)
	var elected, current, afterElection, whole, deltas, versions, octets, statuses []float64
	for range b.times(leaderTimes, leaderTimesShort) {
		t, err := b.takeOver(e, api, synced)
		if err != nil {
			return nil, err
		}
		elected = append(elected, t.elected.Seconds())
		current = append(current, t.synced.Seconds())
		afterElection = append(afterElection, (t.synced - t.elected).Seconds())
		whole = append(whole, t.transfers["whole"])
		deltas = append(deltas, t.transfers["changes"])
		versions = append(versions, t.transfers["version"])
		octets = append(octets, t.octets)
		statuses = append(statuses, t.statusWrites)
	}
	row := func(name string, f report.Figure) report.Row {
		return report.Row{Name: name, Values: []report.Figure{f}}
	}
	seconds := report.Table{
		Title:   fmt.Sprintf("The leader of %s zones at %d servers is killed", report.Number(zones), len(e.Servers)),
		Columns: []report.Column{{Name: "after kill -9", Unit: report.Seconds}},
		Rows: []report.Row{
			row("the other manager leads", report.Median(elected)),
			row("all servers are in sync with it", report.Median(current)),
			row("in sync, from its election on", report.Median(afterElection)),
		},
		Notes: []string{fmt.Sprintf("Median of %d times. A lease lasts 15 s, the manager's default, and is looked at every 2 s: that is the time to the election.", len(current))},
	}
	counts := report.Table{
		Title:   "What the new leader sends and writes",
		Columns: []report.Column{{Name: "number", Unit: report.Count}},
		Rows: []report.Row{
			row("zones sent whole", report.Median(whole).Below(0)),
			row("zones of which changes were sent", report.Median(deltas).Below(0)),
			row("zones of which only the version was sent", report.Median(versions)),
			row("octets of zones sent", report.Median(octets)),
			row("writes of statuses", report.Median(statuses).Below(0)),
		},
		Notes: []string{fmt.Sprintf("Writes are counted by the API server from the kill until %s after the last server was in sync.", lateWrites)},
	}
	return []report.Table{seconds, counts}, nil
}

// smallZone is one of many.
func smallZone(i int) *ac.DNSZoneApplyConfiguration {
	name := fmt.Sprintf("zone%d", i)
	z := zoneNamed(name, name+".test")
	for j := range leaderRecords - 1 {
		z.Spec.WithRecords(record(fmt.Sprintf("host%d", j), hostAddress(i*leaderRecords+j)))
	}
	z.Spec.WithRecords(record(changingName, hostAddress(i)))
	return z
}

// awaitReady returns when all zones are ready, all servers have them, and no status is going to be written any more.
func (b *bench) awaitReady(e *estate.Estate, api client.Client, zones int) error {
	current := b.allCurrent(e, zones)
	if err := e.Until(5*time.Minute, "all zones are ready and all servers current", func() bool {
		return current(e.Leader()) && b.ready(api) == zones
	}); err != nil {
		return err
	}
	return b.awaitSilence(e)
}

// awaitSilence returns when no status was written for a while.
func (b *bench) awaitSilence(e *estate.Estate) error {
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); {
		before, err := b.statusWrites(e)
		if err != nil {
			return err
		}
		if err := b.pause(lateWrites); err != nil {
			return err
		}
		if after, err := b.statusWrites(e); err != nil || after == before {
			return err
		}
	}
	return errors.New("statuses are written all the time, though nothing changes")
}

func (b *bench) pause(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	case <-time.After(d):
		return nil
	}
}

// ready counts the zones that are.
func (b *bench) ready(api client.Client) int {
	var zones v1alpha1.DNSZoneList
	if err := api.List(b.ctx, &zones); err != nil {
		return 0
	}
	n := 0
	for _, z := range zones.Items {
		for _, c := range z.Status.Conditions {
			if c.Type == v1alpha1.ConditionReady && c.Status == "True" {
				n++
			}
		}
	}
	return n
}

// progress is how far one server is.
type progress struct{ wanted, current float64 }

// inSync returns how far the leader sees its servers, by their labels.
func (b *bench) inSync(m *estate.Program) (map[string]progress, error) {
	if m == nil {
		return nil, errors.New("no manager leads")
	}
	text, err := estate.Metrics(b.ctx, m)
	if err != nil {
		return nil, err
	}
	states := map[string]progress{}
	for labels, v := range estate.Series(text, "fingerpost_hub_server_zones_wanted") {
		states[labels] = progress{wanted: v}
	}
	for labels, v := range estate.Series(text, "fingerpost_hub_server_zones_current") {
		states[labels] = progress{states[labels].wanted, v}
	}
	return states, nil
}

// complete reports whether every authoritative server has so many zones, and no server lacks any.
func complete(states map[string]progress, zones int) bool {
	for labels, s := range states {
		if s.current != s.wanted || strings.Contains(labels, `group="authoritative"`) && s.current != float64(zones) {
			return false
		}
	}
	return true
}

// allCurrent returns what tells whether a manager sees all servers of the estate, every authoritative one with so many zones.
func (b *bench) allCurrent(e *estate.Estate, zones int) func(*estate.Program) bool {
	return func(m *estate.Program) bool {
		states, err := b.inSync(m)
		return err == nil && len(states) == len(e.Servers) && complete(states, zones)
	}
}

// takeover is one change of the leader.
type takeover struct {
	elected, synced time.Duration      // since the kill
	transfers       map[string]float64 // by kind
	octets          float64
	statusWrites    float64
}

// takeOver kills the leader, waits for the other to be in sync, which synced tells of it, and starts the killed one again.
func (b *bench) takeOver(e *estate.Estate, api client.Client, synced func(leader *estate.Program) bool) (t takeover, err error) {
	old := e.Leader()
	if old == nil {
		return t, errors.New("no manager leads")
	}
	other := e.Managers[0]
	if other == old {
		other = e.Managers[1]
	}
	writes, err := b.statusWrites(e)
	if err != nil {
		return t, err
	}
	versions, err := b.versions(api)
	if err != nil {
		return t, err
	}
	sent, err := estate.Metrics(b.ctx, other)
	if err != nil {
		return t, err
	}
	began := time.Now()
	if err := old.Kill(); err != nil {
		return t, err
	}
	if err := e.Until(3*time.Minute, "the other manager leads", func() bool { return e.Leads(other) }); err != nil {
		return t, err
	}
	t.elected = time.Since(began)
	if err := e.Until(3*time.Minute, "all servers are in sync with the new leader", func() bool { return synced(other) }); err != nil {
		return t, err
	}
	t.synced = time.Since(began)
	if err := b.pause(lateWrites); err != nil {
		return t, err
	}
	after, err := b.statusWrites(e)
	if err != nil {
		return t, err
	}
	t.statusWrites = after - writes
	versionsAfter, err := b.versions(api)
	if err != nil {
		return t, err
	}
	if t.statusWrites == 0 && !maps.Equal(versions, versionsAfter) {
		return t, errors.New("the API server counted no status write, and still objects have other resourceVersions")
	}
	sentAfter, err := estate.Metrics(b.ctx, other)
	if err != nil {
		return t, err
	}
	t.transfers = map[string]float64{}
	for _, kind := range []string{"whole", "changes", "version"} {
		t.transfers[kind] = estate.Sum(sentAfter, transfersMetric, `kind="`+kind+`"`) - estate.Sum(sent, transfersMetric, `kind="`+kind+`"`)
	}
	t.octets = estate.Sum(sentAfter, octetsMetric) - estate.Sum(sent, octetsMetric)
	if err := e.Start(old); err != nil {
		return t, err
	}
	return t, e.Until(time.Minute, "the killed manager is back", func() bool {
		_, err := estate.Metrics(b.ctx, old)
		return err == nil
	})
}

const (
	transfersMetric = "fingerpost_hub_transfers_total"
	octetsMetric    = "fingerpost_hub_transferred_bytes_total"
)

// statusWrites returns how often statuses of our kinds were written since the API server started.
func (b *bench) statusWrites(e *estate.Estate) (float64, error) {
	return b.writes(e, `group="fingerpost.dev"`, `subresource="status"`)
}

// writes returns how many requests that are no reads the API server has counted since it started, of those that have the
// labels.
func (b *bench) writes(e *estate.Estate, labels ...string) (n float64, err error) {
	text, err := b.apiMetrics(e.ControlPlane.Config())
	if err != nil {
		return 0, err
	}
	n = estate.Sum(text, "apiserver_request_total", labels...)
	for _, verb := range []string{"GET", "LIST", "WATCH"} {
		n -= estate.Sum(text, "apiserver_request_total", append(slices.Clone(labels), `verb="`+verb+`"`)...)
	}
	return n, nil
}

func (b *bench) apiMetrics(config *rest.Config) (string, error) {
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		return "", err
	}
	defer c.CloseIdleConnections()
	request, err := http.NewRequestWithContext(b.ctx, http.MethodGet, config.Host+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := c.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("metrics of the API server: %s", response.Status)
	}
	return string(text), err
}

// versions returns the resourceVersion of every zone.
func (b *bench) versions(api client.Client) (map[string]string, error) {
	var zones v1alpha1.DNSZoneList
	if err := api.List(b.ctx, &zones); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, z := range zones.Items {
		all[z.Name] = z.ResourceVersion
	}
	return all, nil
}
