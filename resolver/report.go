package resolver

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// Report is how the agent and its engine do, without the engine's counters.
func (a *Agent) Report() pool.Report {
	r := pool.Report{At: time.Now(), Started: a.started, Engine: a.o.Product, Version: a.o.Version, Ready: true}
	if err := a.Ready(); err != nil {
		r.Ready, r.NotReady = false, err.Error()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r.EngineVersion, r.Newest, r.Pending, r.Recursion, r.EngineDeaths = a.version, a.newest, a.pending, a.recursed, a.deaths
	if a.inForce != nil {
		r.Configuration = a.inForce.digest
	}
	if a.refused != nil {
		r.Refused = a.refused.Error()
	}
	if e := a.running; e != nil {
		r.Unsupported, r.Listen, r.Source = e.rendered.Unsupported, e.config.Listen, e.config.Source
		r.Flush = a.flusher.report(a.o.Product, e.config)
	}
	return r
}

// counters are what the engine counts, nil if it does not say.
func (a *Agent) counters(ctx context.Context) map[string]float64 {
	e := a.current()
	if e == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statisticsTimeout)
	defer cancel()
	statistics, err := e.control.Statistics(ctx)
	if err != nil {
		return nil
	}
	counters := map[string]float64{}
	for statistic, value := range statistics {
		counters[string(statistic)] = value
	}
	return counters
}

// describe is the state in words, for people.
func (a *Agent) describe() string {
	var b strings.Builder
	r := a.Report()
	if r.Ready {
		b.WriteString("ready\n")
	} else {
		fmt.Fprintf(&b, "not ready: %s\n", r.NotReady)
	}
	fmt.Fprintf(&b, "engine %s %s, configuration %s\n", r.Engine, r.EngineVersion, r.Configuration)
	for _, u := range r.Unsupported {
		fmt.Fprintf(&b, "unsupported: %s\n", u)
	}
	if r.Refused != "" {
		fmt.Fprintf(&b, "refused: %s\n", r.Refused)
	}
	if r.Pending != "" {
		fmt.Fprintf(&b, "the engine %s\n", r.Pending)
	}
	if r.Recursion != nil && !r.Recursion.OK {
		fmt.Fprintf(&b, "recursion fails: %s\n", r.Recursion.Why)
	}
	for _, n := range r.Flush.Notifiers {
		fmt.Fprintf(&b, "changes are heard from %s\n", n)
	}
	for _, z := range r.Flush.NotFlushable {
		fmt.Fprintf(&b, "not flushable: %s\n", z)
	}
	if !r.Flush.Missed.IsZero() {
		fmt.Fprintf(&b, "names that changed before %s may have old answers\n", r.Flush.Missed.Format(time.RFC3339))
	}
	if r.Flush.Waiting > 0 {
		fmt.Fprintf(&b, "names to be flushed again: %d\n", r.Flush.Waiting)
	}
	return b.String()
}
