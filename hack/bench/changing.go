//go:build linux

package main

import (
	"errors"
	"fmt"

	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

// Aims with changes going on, as shares of what is without them.
const (
	changingCPUAim     = 1.05
	changingLatencyAim = 1.2
)

// updates measures what changes cost those who ask meanwhile.
func updates(b *bench) (tables []report.Table, err error) {
	f := &field{zones: b.usualZone()}
	if err := b.start(f); err != nil {
		return nil, err
	}
	c, err := b.inner(f, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	a := asking{questions: f.zones.Questions(queryQuestions, workload.Usual, nil), length: b.length()}
	most, err := c.ask(a)
	if err != nil {
		return nil, err
	}
	a.thread = most.thread // the one that answers
	half := a
	half.rate = most.result.Rate() / 2

	states := []struct {
		name, command string
		reached       []float64
	}{
		{name: "no changes"},
		{name: report.Number(updateRate) + " changed records a second", command: changeRecords},
		{name: report.Number(updateRate) + " changed steered names a second", command: changeSteered},
	}
	entrants := func(a asking) (list []entrant) {
		for i := range states {
			s := &states[i]
			list = append(list, entrant{name: s.name, ask: func() (round, error) {
				r, reached, err := c.askChanging(a, s.command)
				if s.command != "" {
					s.reached = append(s.reached, reached)
				}
				return r, err
			}})
		}
		return list
	}
	list := entrants(a)
	full, err := b.compare(list)
	if err != nil {
		return nil, err
	}
	halves, err := b.compare(entrants(half))
	if err != nil {
		return nil, err
	}
	t := report.Table{
		Title: "Records and steered names change meanwhile",
		Columns: []report.Column{
			{Name: "CPU a query", Unit: report.Nanoseconds}, {Name: "/ without", Unit: report.Ratio}, {Name: "other CPU", Unit: report.Percent}, {Name: "changes", Unit: report.PerSecond},
			{Name: "half load: p50", Unit: report.Microseconds}, {Name: "p99", Unit: report.Microseconds}, {Name: "/ without", Unit: report.Ratio},
		},
		Notes: []string{
			"All of the server is on one CPU. CPU a query is that of the thread that answers; other CPU is what changes, and what they leave to be cleaned up, take of that CPU while as many queries come as are answered.",
			"Records change as a hub has them changed: some at once in a new version of the zone, several hundred versions a second. Steered names change one by one.",
		},
	}
	for i, s := range states {
		var cpu, ratio, other, p50, p99, slower []float64
		for j, r := range full[i] {
			cpu, ratio, other = append(cpu, r.cpu), append(ratio, r.cpu/full[0][j].cpu), append(other, 100*r.other)
			h, without := halves[i][j].result, halves[0][j].result
			p50 = append(p50, float64(h.Latency.Quantile(0.5).Nanoseconds())/1000)
			p99 = append(p99, float64(h.Latency.Quantile(0.99).Nanoseconds())/1000)
			slower = append(slower, float64(h.Latency.Quantile(0.99))/float64(without.Latency.Quantile(0.99)))
		}
		more, later := report.Median(ratio), report.Median(slower)
		if s.command != "" {
			more, later = more.Below(changingCPUAim), later.Below(changingLatencyAim)
		}
		t.Rows = append(t.Rows, report.Row{Name: s.name, Values: []report.Figure{
			report.Median(cpu), more, report.Median(other), report.Median(s.reached), report.Median(p50), report.Median(p99), later,
		}})
	}
	return []report.Table{t}, nil
}

// askChanging asks our server while it has things changed, unless the command is "". reached is how many changes it made in a second.
func (c *contestant) askChanging(a asking, command string) (r round, reached float64, err error) {
	if command == "" {
		r, err = c.ask(a)
		return r, 0, err
	}
	if _, err := c.command(command); err != nil {
		return r, 0, err
	}
	r, err = c.ask(a)
	did, failed := c.command(changeStop)
	return r, float64(did.Changes) / did.Elapsed.Seconds(), errors.Join(err, failed)
}

// Aims of steered answers, as shares of what static ones take, and of what gdnsd's take.
const (
	steeredAim     = 0.95
	steeredIPv6Aim = 0.85
	steeredGdnsd   = 1.05
)

// steered compares answers that depend on the client's network with those that do not, and with gdnsd's.
func steered(b *bench) (tables []report.Table, err error) {
	for _, ipv6 := range []bool{false, true} {
		more, err := b.steeredTables(ipv6)
		if err != nil {
			return nil, err
		}
		tables = append(tables, more...)
	}
	return tables, nil
}

func (b *bench) steeredTables(ipv6 bool) (tables []report.Table, err error) {
	f := &field{zones: b.usualZone(), ipv6: ipv6}
	if err := b.start(f); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	own, err := b.inner(f, true)
	if err != nil {
		return nil, err
	}
	peer := b.contenders()[gdnsd]
	peer.prepare = gdnsdSteered
	other, err := f.start(b, peer)
	if err != nil {
		return nil, err
	}
	static := f.zones.Questions(queryQuestions, workload.Usual, nil)
	compare := func(title string, aim float64, a asking) error {
		ask := func(c *contestant, a asking) func() (round, error) { return func() (round, error) { return c.ask(a) } }
		unsteered := a
		unsteered.questions = static
		list := []entrant{
			{name: ours + ", steered", ask: ask(own, a)},
			{name: ours + ", the usual mix", aim: aim, ask: ask(own, unsteered)},
			{name: gdnsd + ", geoip", aim: steeredGdnsd, ask: ask(other, a)},
		}
		rounds, err := b.compare(list)
		if err != nil {
			return err
		}
		tables = append(tables, queryTable(title, list, rounds))
		return nil
	}
	what := fmt.Sprintf("%d names, %d locations, %s networks, ", workload.SteeredNames, workload.Datacenters, report.Number(len(workload.Networks())))
	if ipv6 {
		return tables, compare(what+"told by ECS of IPv6 clients, over IPv6", steeredIPv6Aim, asking{questions: workload.SteeredQuestions(queryQuestions, true, true), length: b.length()})
	}
	if err := compare(what+"told by ECS", steeredAim, asking{questions: workload.SteeredQuestions(queryQuestions, true, false), length: b.length()}); err != nil {
		return nil, err
	}
	const sources = 64
	return tables, compare(fmt.Sprintf("%stold by the source address, of which there are %d", what, sources), steeredAim,
		asking{questions: workload.SteeredQuestions(queryQuestions, false, false), sources: workload.Sources(sources), length: b.length()})
}
