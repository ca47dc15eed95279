package controlplane

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// process is a program that this one has started.
type process struct {
	name   string
	log    string // file with its output
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended and been waited for
}

// start runs a program in dir with an empty environment, its output appended to the file log. The program ends with this
// process at the latest (on Linux), and is in a process group of its own: an interrupt from the terminal
// reaches this process alone, which stops its children in order.
func start(path, dir, log string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{name: filepath.Base(path), log: log, cmd: exec.Command(path, args...), exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = dir, []string{}, out, out
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

// stop asks the process to end, insists after the grace period, and returns when it has ended. No grace: it insists at
// once. Of a process that ended before, it returns nil.
func (p *process) stop(grace time.Duration) error {
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

func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stopping %s: %w", p.name, err)
	}
	return nil
}

// lastWords returns the end of the process's log.
func (p *process) lastWords() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-2000):])
}
