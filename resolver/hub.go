package resolver

import (
	"context"
	"encoding/json"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// HubOptions say how an agent talks to its managers.
type HubOptions struct {
	Hubs        []string // HOST:PORT, in order of preference; at least one
	Credentials control.Credentials
	Name        string // of the agent, unique in its pool and datacenter
	// Configured says that the configuration comes from elsewhere: what the hub has is acknowledged and has no effect.
	Configured bool
}

// keptFile holds what the hub has sent, in the engine's folder.
const keptFile = "hub.json"

// Join tells managers how the agent does, and has it do what they say, until ctx ends. What they said last is kept in the
// engine's folder, and in force after a start before they are met. a.Run has to run.
func (a *Agent) Join(ctx context.Context, o HubOptions) error {
	r := openReplica(filepath.Join(a.o.Folder.String(), keptFile), a.o.Log, func(ctx context.Context, d control.Document) error {
		if d.Kind != pool.DocumentKind || o.Configured {
			return nil
		}
		return a.Configure(ctx, d.Body)
	})
	client, err := control.NewClient(control.ClientOptions{
		Hubs: o.Hubs, Credentials: o.Credentials, Name: o.Name, SoftwareVersion: a.o.Version, Replica: r, Log: a.o.Log,
	})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { r.run(ctx) })
	all.Go(func() { a.tell(ctx, client.Report) })
	r.begin(ctx)
	return client.Run(ctx)
}

const (
	reportLook  = 250 * time.Millisecond // between looks at what there is to report
	reportEvery = time.Second            // between reports, but of readiness and configurations
	countEvery  = 30 * time.Second       // between reports when nothing but counters has changed
)

// tell reports what has changed, until ctx ends.
func (a *Agent) tell(ctx context.Context, report func(kind string, body []byte) error) {
	tick := time.NewTicker(reportLook)
	defer tick.Stop()
	var last pool.Report
	for {
		now := a.Report()
		since := now.At.Sub(last.At)
		urgent := now.Ready != last.Ready || now.Configuration != last.Configuration || now.Refused != last.Refused
		if urgent || since >= countEvery || since >= reportEvery && !same(now, last) {
			now.Counters = a.counters(ctx)
			body, err := json.Marshal(now)
			if err == nil {
				err = report(pool.ReportKind, body)
			}
			if err != nil {
				a.o.Log.Error(err, "reporting")
			}
			last = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// same reports whether two reports say the same but for times and counters.
func same(a, b pool.Report) bool {
	a.At, a.Counters, b.Counters = b.At, nil, nil
	if a.Recursion != nil && b.Recursion != nil {
		one, other := *a.Recursion, *b.Recursion
		one.Seconds, other.Seconds = 0, 0
		a.Recursion, b.Recursion = &one, &other
	}
	return reflect.DeepEqual(a, b)
}
