//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/bench/blast"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// streamJob is what the process that asks over connections is told: it has generatorCPU for itself, as the one for UDP has.
type streamJob struct {
	Options       blast.StreamOptions `json:"options"`
	QuestionsFile string              `json:"questionsFile"`
	Processes     group               `json:"processes"` // of the server
	Result        string              `json:"result"`
}

// streamReport is what it says.
type streamReport struct {
	CPU    time.Duration `json:"cpu"` // the server's
	Result *blast.Result `json:"result"`
}

// askStream is what that process does.
func askStream(text string) error {
	var job streamJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	var err error
	if job.Options.Questions, err = os.ReadFile(job.QuestionsFile); err != nil {
		return err
	}
	var used [2]time.Duration
	var failed error
	mark := 0
	job.Options.Mark = func() {
		var err error
		used[mark], err = job.Processes.cpuTime()
		failed = errors.Join(failed, err)
		mark++
	}
	result, err := blast.Stream(job.Options)
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	report, err := json.Marshal(streamReport{used[1] - used[0], result})
	if err != nil {
		return err
	}
	return os.WriteFile(job.Result, report, 0o644)
}

// askStream has a server answer over connections.
func (c *contestant) askStream(b *bench, o blast.StreamOptions, questionsFile string) (round, error) {
	dir, err := os.MkdirTemp(b.dir, "stream-*")
	if err != nil {
		return round{}, err
	}
	defer os.RemoveAll(dir)
	o.Server = c.address
	if o.TLS {
		o.Server = netip.AddrPortFrom(c.address.Addr(), c.settings.TLSPort)
	}
	o.Warm = warm
	job := streamJob{Options: o, QuestionsFile: questionsFile, Processes: c.processes, Result: filepath.Join(dir, "result")}
	text, err := json.Marshal(job)
	if err != nil {
		return round{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return round{}, err
	}
	p, err := startPinned(process.Options{Name: "stream", Dir: dir, Log: filepath.Join(dir, "log")}, generatorCPU, self, streamArgument, string(text))
	if err != nil {
		return round{}, err
	}
	select {
	case <-p.Exited():
	case <-b.ctx.Done():
		return round{}, errors.Join(b.ctx.Err(), p.Stop(0))
	}
	said, err := os.ReadFile(job.Result)
	if err != nil {
		return round{}, fmt.Errorf("asking over connections: %s", p.LastWords())
	}
	var r streamReport
	if err := json.Unmarshal(said, &r); err != nil {
		return round{}, err
	}
	if r.Result.Answers == 0 {
		return round{}, errSilent
	}
	return round{cpu: float64(r.CPU) / float64(r.Result.Answers), result: r.Result}, nil
}
