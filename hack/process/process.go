// Package process runs programs that end when this one does, however it ends. The control plane of tests, the demo and
// the benchmarks start what they need with it. Nothing of the product imports it.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a program that this one has started. Its methods may be called at the same time.
type Process struct {
	name   string
	log    string // file with its output
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended and been waited for
}

// Options say how a program is started.
type Options struct {
	Name string   // for messages
	Dir  string   // working directory; empty: this process's
	Env  []string // all of the environment, NAME=VALUE; nothing is inherited
	Log  string   // file that its output is appended to
}

// Start runs a program. On Linux it ends with this process at the latest, and it is in a process group of its own: an
// interrupt from the terminal reaches this process alone, which stops its children in order.
func Start(o Options, path string, args ...string) (*Process, error) {
	out, err := os.OpenFile(o.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &Process{name: o.Name, log: o.Log, cmd: exec.Command(path, args...), exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = o.Dir, append([]string{}, o.Env...), out, out
	p.cmd.SysProcAttr = ownGroupAndEndWithParent()
	started := make(chan error)
	go func() {
		// Linux signals the child when the thread that made it ends, not the process: this thread is for the child alone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // why it ended is in its log, and told by whoever did not expect it
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	return p, nil
}

// PID returns the process's number, which may have been given to another one if it has ended.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Stop asks the process to end, insists after the grace period, and returns when it has ended. No grace: it insists at
// once. Of a process that ended before, it returns nil.
func (p *Process) Stop(grace time.Duration) error {
	if grace > 0 {
		if err := p.signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-p.exited:
			return nil
		case <-time.After(grace):
		}
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.exited
	return nil
}

func (p *Process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	return nil
}

// LastWords returns the end of the process's log.
func (p *Process) LastWords() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-2000):])
}
