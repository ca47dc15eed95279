package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// runWithProgress runs a command of the go tool, or one that is as quiet, and returns what it writes to stdout. It tells
// progress that it starts, and every ten seconds how far it is. total is the number of packages that `go build -v`
// will name if nothing of it is cached; 0 for other commands. When the command's context ends it is interrupted. An
// error carries the command's last complaints.
func runWithProgress(cmd *exec.Cmd, what string, total int, progress io.Writer) (string, error) {
	said := &goOutput{}
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // go passes it on to its compilers
	cmd.WaitDelay = 10 * time.Second

	fmt.Fprintln(progress, what)
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- cmd.Run() }()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintf(progress, "%s: %s%v so far\n", what, said.far(total), time.Since(began).Round(time.Second))
		case err := <-done:
			if err != nil {
				return "", errors.Join(err, said.complaints())
			}
			return stdout.String(), nil
		}
	}
}

// goOutput reads what the go tool writes to stderr.
type goOutput struct {
	mu       sync.Mutex
	rest     []byte   // a line that has not ended yet
	modules  int      // downloaded
	packages int      // compiled
	last     []string // the last lines that are not about modules
}

func (o *goOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rest = append(o.rest, p...)
	for {
		line, rest, ended := bytes.Cut(o.rest, []byte("\n"))
		if !ended {
			return len(p), nil
		}
		o.rest = rest
		if bytes.HasPrefix(line, []byte("go: downloading ")) {
			o.modules++
			continue
		}
		if !bytes.ContainsAny(line, " \t") {
			o.packages++
		}
		const keep = 20
		o.last = append(o.last, string(line))
		o.last = o.last[max(0, len(o.last)-keep):]
	}
}

// far says how much has been done, with a comma behind each figure; "" if there is nothing to say.
func (o *goOutput) far(total int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var far string
	if total > 0 {
		far = fmt.Sprintf("%d of %d packages, ", o.packages, total)
	}
	if o.modules > 0 {
		far += fmt.Sprintf("%d modules downloaded, ", o.modules)
	}
	return far
}

// complaints returns the last lines as an error; nil if there are none.
func (o *goOutput) complaints() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if text := strings.TrimSpace(strings.Join(o.last, "\n") + "\n" + string(o.rest)); text != "" {
		return errors.New(text)
	}
	return nil
}
