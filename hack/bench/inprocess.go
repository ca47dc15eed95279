//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/hack/bench/report"
	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

// Aims for one answer without sockets, in nanoseconds, without and with all features.
const (
	answerAim         = 220
	answerFeaturesAim = 430
)

// inProcess measures the making of answers alone, one after the other.
func inProcess(b *bench) ([]report.Table, error) {
	zones := b.usualZone()
	var text strings.Builder
	if _, err := zones[0].WriteTo(&text); err != nil {
		return nil, err
	}
	apex, err := zone.ParseName(zones[0].Apex(), "")
	if err != nil {
		return nil, err
	}
	content, version, faults := zone.Load(apex, text.String())
	if len(faults) > 0 {
		return nil, faults[0]
	}
	served, err := zone.NewServed(content, version)
	if err != nil {
		return nil, err
	}
	view := &zone.View{}
	view.Update([]*zone.Served{served}, nil)
	mix := workload.Usual
	mix.Cookies = 20
	t := report.Table{
		Title:   "Answers made in process, the usual mix about " + report.Number(b.names()) + " names",
		Columns: []report.Column{{Name: "CPU an answer", Unit: report.Nanoseconds}, {Name: "memory allocated", Unit: report.Octets}},
		Notes:   []string{"Limits of rates are no part of it."},
	}
	for _, c := range []struct {
		name      string
		questions workload.Questions
		config    *zone.Config
		aim       float64
	}{
		{"no features", zones.Questions(queryQuestions, workload.Usual, nil), nil, answerAim},
		{"cookies and NSID, 20% of questions with a cookie", zones.Questions(queryQuestions, mix, []byte("fingerpt")), &zone.Config{NSID: "bench", Cookies: [][16]byte{{1}}}, answerFeaturesAim},
	} {
		var took, octets []float64
		for range b.rounds() {
			ns, allocated, err := answerTime(view, c.config, c.questions)
			if err != nil {
				return nil, err
			}
			took, octets = append(took, ns), append(octets, allocated)
		}
		t.Rows = append(t.Rows, report.Row{Name: c.name, Values: []report.Figure{report.Median(took).Below(c.aim), report.Median(octets).Below(0)}})
	}
	return []report.Table{t}, nil
}

// answerTime has all questions answered, and returns the nanoseconds and the octets allocated for one of them.
func answerTime(view *zone.View, config *zone.Config, questions workload.Questions) (ns, octets float64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	client := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	scratch, reply := &zone.Scratch{Config: config, Now: time.Now().Unix()}, make([]byte, zone.MaxUDP)
	answers := 0
	pass := func() {
		for rest := []byte(questions); len(rest) > 0; answers++ {
			size := 2 + int(binary.BigEndian.Uint16(rest))
			view.Answer(scratch, reply, rest[2:size], client, zone.UDP)
			rest = rest[size:]
		}
	}
	pass()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	answers = 0
	began, err := threadTime()
	if err != nil {
		return 0, 0, err
	}
	for range 5 {
		pass()
	}
	ended, err := threadTime()
	runtime.ReadMemStats(&after)
	return float64(ended-began) / float64(answers), float64(int(float64(after.TotalAlloc-before.TotalAlloc) / float64(answers))), err
}

// threadTime is how long this thread has run.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("reading the thread's clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
