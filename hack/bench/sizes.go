//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

const (
	manyNames = 1_000_000
	mostNames = 5_000_000

	zoneCount, zoneCountShort = 20_000, 200
	zoneNames                 = 20 // of each

	loadTimes = 3 // or fewer rounds
	// settled is after what time memory counts: some programs give back what they used for loading.
	settled = 5 * time.Second
)

// Aims for 1,000,000 names.
const (
	loadAim   = 3.5 // seconds
	memoryAim = 170 // MiB
)

// loadColumns come before those of queryTable.
var loadColumns = []report.Column{{Name: "first answer after", Unit: report.Seconds}, {Name: "memory", Unit: report.MiB}}

// sized measures a field of the usual zone: what it takes to load on one CPU, and to answer.
func (b *bench) sized(f *field, servers []string, label string, questions int) (rows []report.Row, err error) {
	if err := b.start(f, servers...); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	list := b.entrants(f, f.zones.Questions(questions, workload.Usual, nil), nil)
	rounds, err := b.compare(list)
	if err != nil {
		return nil, err
	}
	for i, e := range list {
		mib, err := f.running[i].processes.memory()
		if err != nil {
			return nil, err
		}
		values := []report.Figure{report.Of(f.running[i].loaded.Seconds()), report.Of(mib)}
		rows = append(rows, report.Row{Name: label + e.name, Values: append(values, queryFigures(e, rounds[i], rounds[0])...)})
	}
	return rows, nil
}

func sizedTable(title string) report.Table {
	t := queryTable(title, []entrant{{name: ours}}, [][]round{nil})
	t.Columns, t.Rows = append(append([]report.Column{}, loadColumns...), t.Columns...), nil
	return t
}

// sizes compares servers with zones from small to large.
func sizes(b *bench) ([]report.Table, error) {
	t := sizedTable("One zone, by its size; each server loads and answers on one CPU")
	for _, names := range []int{100, 10_000, manyNames, mostNames} {
		servers := []string{ours, gdnsd, knot, nsd}
		if b.Short {
			names = min(names, 20_000)
		}
		// The servers have up to half a KiB for each name, and the generator its names and the zone's text.
		if need := float64(names) * 2.5 / 1024; need > availableMiB() {
			t.Notes = append(t.Notes, fmt.Sprintf("%s names are left out: they take some %s MiB, and this machine has %s to spare.",
				report.Number(names), report.Number(int(need)), report.Number(int(availableMiB()))))
			continue
		}
		rows, err := b.sized(&field{zones: workload.Zones{workload.NewZone(names)}}, servers, report.Number(names)+" names: ", min(max(queryQuestions, names), 1_000_000))
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, rows...)
	}
	return []report.Table{t}, nil
}

// availableMiB is the memory that can be had; 0 if that is not known.
func availableMiB() float64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nMemAvailable:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseFloat(fields[0], 64)
	return kib / 1024
}

// manyZones compares servers that have very many zones.
func manyZones(b *bench) ([]report.Table, error) {
	count := b.times(zoneCount, zoneCountShort)
	t := sizedTable(fmt.Sprintf("%s zones of %d names; each server loads and answers on one CPU", report.Number(count), zoneNames))
	rows, err := b.sized(&field{zones: workload.NewZones(count, zoneNames)}, []string{ours, gdnsd, knot, nsd, bind}, "", queryQuestions)
	if err != nil {
		return nil, err
	}
	t.Rows = rows
	return []report.Table{t}, nil
}

// load measures how long each server alone, with all CPUs, takes to load a large zone, and in how much memory.
func load(b *bench) ([]report.Table, error) {
	names := manyNames
	if b.Short {
		names = 20_000
	}
	times := min(b.rounds(), loadTimes)
	t := report.Table{
		Title: report.Number(names) + " names, each server alone on all CPUs",
		Columns: []report.Column{
			{Name: "first answer after", Unit: report.Seconds}, {Name: "CPU until then", Unit: report.Seconds},
			{Name: "memory", Unit: report.MiB}, {Name: "at most", Unit: report.MiB},
		},
		Notes: []string{fmt.Sprintf("Median of %d starts. Memory counts %s after the first answer.", times, settled)},
	}
	f := &field{zones: workload.Zones{workload.NewZone(names)}, anyCPU: true}
	if err := b.start(f); err != nil {
		return nil, err
	}
	for _, name := range all {
		loaded, used, memory, peak := []float64{}, []float64{}, []float64{}, []float64{}
		for range times {
			c, err := f.start(b, b.contenders()[name])
			if err != nil {
				return nil, err
			}
			select {
			case <-b.ctx.Done():
				return nil, errors.Join(b.ctx.Err(), f.stop())
			case <-time.After(settled):
			}
			now, err := c.processes.memory()
			most, failed := c.processes.peak()
			if err := errors.Join(err, failed, f.stop()); err != nil {
				return nil, err
			}
			loaded, used = append(loaded, c.loaded.Seconds()), append(used, c.used.Seconds())
			memory, peak = append(memory, now), append(peak, most)
		}
		took, mib := report.Median(loaded), report.Median(memory)
		if name == ours && !b.Short {
			took, mib = took.Below(loadAim), mib.Below(memoryAim)
		}
		t.Rows = append(t.Rows, report.Row{Name: name, Values: []report.Figure{took, report.Median(used), mib, report.Median(peak)}})
	}
	return []report.Table{t}, nil
}
