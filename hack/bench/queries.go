//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/bench/blast"
	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

const (
	queryNames     = 100_000
	queryQuestions = 200_000
)

// questionMixes are what servers are asked, one table each.
var questionMixes = []struct {
	title string
	mix   workload.Mix
}{
	{"80% answers, 10% NXDOMAIN, 5% referrals, 5% NODATA", workload.Usual},
	{"NXDOMAIN alone, random names", workload.Mix{NXDomain: 100, EDNS: 70}},
}

// queries compares servers that have the same zone. Each has one CPU and is asked from the other.
func queries(b *bench) (tables []report.Table, err error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("one CPU for the server and one for the questions are needed")
	}
	made := workload.NewZone(queryNames)
	zoneFile := b.path("zone")
	file, err := os.Create(zoneFile)
	if err != nil {
		return nil, err
	}
	_, err = made.WriteTo(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	var running []*contestant
	defer func() {
		for _, c := range running {
			err = errors.Join(err, c.stop())
		}
	}()
	for _, c := range b.contenders() {
		one, err := b.startContender(c, zoneFile, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
		if err != nil {
			return nil, err
		}
		running = append(running, one)
	}
	loading, err := loadTable(running)
	if err != nil {
		return nil, err
	}
	for _, m := range questionMixes {
		rounds, err := b.compare(running, made.Questions(queryQuestions, m.mix))
		if err != nil {
			return nil, err
		}
		tables = append(tables, queryTable(m.title, running, rounds))
	}
	return append(tables, loading), nil
}

// round is what one server did in one round.
type round struct {
	cpu    float64 // nanoseconds of the server's a query
	result *blast.Result
}

// compare asks one server after the other, round after round. The result has the rounds of each.
func (b *bench) compare(running []*contestant, questions workload.Questions) ([][]round, error) {
	rounds := make([][]round, len(running))
	length := 4 * time.Second
	if b.Short {
		length = time.Second
	}
	for range b.times(5, 2) {
		for i, c := range running {
			if err := b.ctx.Err(); err != nil {
				return nil, err
			}
			r, err := ask(c, questions, length)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			rounds[i] = append(rounds[i], r)
		}
	}
	return rounds, nil
}

// ask has one server answer as much as it can for a time.
func ask(c *contestant, questions workload.Questions, length time.Duration) (round, error) {
	var used [2]time.Duration
	var failed error
	mark := 0
	result, err := blast.Run(blast.Options{
		Server: c.address, Questions: questions, CPU: generatorCPU, Warm: time.Second, Length: length,
		Mark: func() {
			var err error
			used[mark], err = c.processes.cpuTime()
			failed = errors.Join(failed, err)
			mark++
		},
	})
	if err := errors.Join(err, failed); err != nil {
		return round{}, err
	}
	if result.Answers == 0 {
		return round{}, errors.New("it does not answer")
	}
	return round{float64(used[1]-used[0]) / float64(result.Answers), result}, nil
}

// queryTable compares the servers, of which the first is ours.
func queryTable(title string, running []*contestant, rounds [][]round) report.Table {
	t := report.Table{
		Title: title,
		Columns: []report.Column{
			{Name: "CPU a query", Unit: report.Nanoseconds}, {Name: "/ " + ours, Unit: report.Ratio}, {Name: "queries", Unit: report.PerSecond},
			{Name: "without answer", Unit: report.Percent},
		},
	}
	for i, c := range running {
		var cpu, ratio, rate, lost []float64
		for j, r := range rounds[i] {
			cpu = append(cpu, r.cpu)
			ratio = append(ratio, r.cpu/rounds[0][j].cpu)
			rate = append(rate, r.result.Rate())
			lost = append(lost, 100*float64(r.result.Lost)/float64(r.result.Lost+r.result.Answers))
		}
		t.Rows = append(t.Rows, report.Row{Name: c.name, Values: []report.Figure{
			report.Median(cpu), report.Median(ratio), report.Median(rate), report.Median(lost),
		}})
	}
	return t
}

// loadTable says what it took until the servers answered. The echo has nothing to load.
func loadTable(running []*contestant) (report.Table, error) {
	t := report.Table{
		Title:   "Loading " + report.Number(queryNames) + " names",
		Columns: []report.Column{{Name: "first answer after", Unit: report.Seconds}, {Name: "memory", Unit: report.MiB}},
	}
	for _, c := range running {
		if !c.answers {
			continue
		}
		mib, err := c.processes.memory()
		if err != nil {
			return t, err
		}
		t.Rows = append(t.Rows, report.Row{Name: c.name, Values: []report.Figure{report.Of(c.loaded.Seconds()), report.Of(mib)}})
	}
	return t, nil
}
