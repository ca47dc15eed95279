package resolver

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is an engine that runs. Its methods may be called at the same time.
type process struct {
	cmd    *exec.Cmd
	said   *tail
	exited chan struct{} // closed when it has ended
	err    error         // how it ended; valid when exited is closed
}

// startProcess starts a program whose working directory is folder. What it says goes to log as well.
func startProcess(folder, program string, args []string, log io.Writer) (*process, error) {
	p := &process{cmd: exec.Command(program, args...), said: &tail{to: log}, exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = folder, p.said, p.said, endWithParent()
	started := make(chan error)
	go func() {
		// The kernel watches the thread that made the child, not the process: this one is for the child alone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", program, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended says how the process ended and what it said last.
func (p *process) ended() error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("ended (%s): %s", how, p.said.complaint())
}

// stop asks the process to end, insists after the grace period, and returns when it has ended.
func (p *process) stop(grace time.Duration) {
	if grace > 0 {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-p.exited:
			return
		case <-t.C:
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// runCheck runs a program to its end, and returns what it complained about if it did not exit with 0.
func runCheck(folder string, command []string) error {
	cmd := exec.Command(command[0], command[1:]...)
	said := &tail{to: io.Discard}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = folder, said, said, endWithParent()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return errors.New(said.complaint())
	}
	return err
}

// tail keeps the last lines that a program says. It is for concurrent use.
type tail struct {
	mu      sync.Mutex
	to      io.Writer
	lines   []string // at most tailLines
	partial string
}

const tailLines = 40

// Write implements io.Writer; it takes everything.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = t.to.Write(b)
	text := t.partial + string(b)
	for {
		line, rest, ok := strings.Cut(text, "\n")
		if !ok {
			t.partial = text[:min(len(text), 4096)]
			break
		}
		t.lines, text = append(t.lines, line), rest
	}
	t.lines = slices.Delete(t.lines, 0, max(0, len(t.lines)-tailLines))
	return len(b), nil
}

// complaint is the lines that look like errors, or else the last ones: four at most.
func (t *tail) complaint() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := slices.Clone(t.lines)
	if t.partial != "" {
		lines = append(lines, t.partial)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.TrimSpace(l) == "" })
	errs := slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		l = strings.ToLower(l)
		return !strings.Contains(l, "error") && !strings.Contains(l, "fatal") && !strings.Contains(l, "exception") && !strings.Contains(l, "unable to") && !strings.Contains(l, ".conf:")
	})
	if len(errs) == 0 {
		errs = lines
	}
	errs = slices.Compact(errs[max(0, len(errs)-4):])
	if len(errs) == 0 {
		return "it said nothing"
	}
	return strings.Join(errs, "; ")
}
