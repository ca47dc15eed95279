//go:build linux

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what a machine is told at its start. It is found again in the state of the cluster.
type machine struct {
	Name    string       `json:"name"`
	Kind    kind         `json:"kind"`
	Dir     string       `json:"dir"`     // of the cluster
	Address netip.Prefix `json:"address"` // of eth0; of the bridge, if it is wan
	Number  int          `json:"number"`  // of the datacenter, from 1; 0: it is none
	// ControlPlane is set on nodes that are a cluster of their own: the machine runs that cluster's control plane, too.
	ControlPlane bool     `json:"controlPlane,omitempty"`
	Cluster      cluster  `json:"cluster"` // that a control plane or node belongs to
	Programs     Programs `json:"programs"`
	Cgroup       string   `json:"cgroup,omitempty"` // of a node's pods, below the root of each hierarchy
	Datacenters  int      `json:"datacenters"`      // in all clusters
}

// cluster is one control plane and its nodes.
type cluster struct {
	Name  string         `json:"name"`
	API   netip.AddrPort `json:"api"`
	Nodes []string       `json:"nodes"`
}

// dir is the folder of a cluster's control plane in that of all clusters. It has the kubeconfigs, too.
func (c cluster) dir(all string) string { return filepath.Join(all, "clusters", c.Name) }

type kind string

const (
	wan          kind = "wan"
	controlPlane kind = "control plane"
	node         kind = "node"
)

func (m machine) disk() string { return filepath.Join(m.Dir, "machines", m.Name) }

func (m machine) log(program string) string {
	return filepath.Join(m.Dir, "logs", m.Name+"-"+program+".log")
}

// Arguments by which a program is a machine's first process, or the one beside it that does the work.
const (
	firstArgument  = "fingerpost-cluster-machine"
	workerArgument = "fingerpost-cluster-worker"
)

// Descriptors of a machine's first process.
const (
	lifeline = 3 // read: plugged, then kept, or the end of file when whoever started it is gone
	ready    = 4 // written when the machine does what it is for
)

// Words on these descriptors.
const (
	plugged = 'p' // the cable is in
	kept    = 'k' // the machine goes on without the process that started it
	isReady = 'r'
)

// Main makes this process a machine if that is what it was started as, and does not return then. Programs that call Up
// call it first.
func Main() {
	if len(os.Args) != 3 || (os.Args[1] != firstArgument && os.Args[1] != workerArgument) {
		return
	}
	var m machine
	err := json.Unmarshal([]byte(os.Args[2]), &m)
	if err == nil {
		if os.Args[1] == firstArgument {
			err = m.first()
		} else {
			err = m.work()
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", m.Name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// first is the first process of a machine. It makes the machine's file system, starts the worker, and buries the orphans of
// all. It ends with the worker, and by that everything else.
func (m machine) first() error {
	var word [1]byte
	line := os.NewFile(lifeline, "lifeline")
	unix.CloseOnExec(lifeline)
	if _, err := io.ReadFull(line, word[:]); err != nil || word[0] != plugged {
		return errors.New("whoever started this is gone")
	}
	if err := m.isolate(); err != nil {
		return err
	}
	arg, err := json.Marshal(m)
	if err != nil {
		return err
	}
	worker := exec.Command("/proc/self/exe", workerArgument, string(arg))
	worker.Stdout, worker.Stderr = os.Stdout, os.Stderr
	worker.Env = []string{"PATH=" + m.Programs.Path, "HOME=/var", "LANG=C"}
	told := os.NewFile(ready, "ready")
	worker.ExtraFiles = []*os.File{told} // as its descriptor 3
	if err := worker.Start(); err != nil {
		return err
	}
	told.Close()
	go func() {
		if _, err := io.ReadFull(line, word[:]); err != nil || word[0] != kept {
			os.Exit(1)
		}
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("waiting for processes: %w", err)
		case pid == worker.Process.Pid:
			return fmt.Errorf("the worker has ended: %s", worded(status))
		}
	}
}

func worded(status unix.WaitStatus) string {
	if status.Signaled() {
		return status.Signal().String()
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}

// work does what the machine is for, and returns when it can't any more.
func (m machine) work() error {
	ended := make(chan error)
	var err error
	switch m.Kind {
	case wan:
		err = m.forward()
	case controlPlane:
		err = m.connect()
		if err == nil {
			err = m.govern(ended)
		}
	case node:
		err = m.connect()
		if err == nil && m.ControlPlane {
			err = m.govern(ended)
		}
		if err == nil {
			err = m.serve(ended)
		}
	}
	if err != nil {
		return err
	}
	if _, err := os.NewFile(3, "ready").Write([]byte{isReady}); err != nil {
		return err
	}
	if m.Kind == wan { // the kernel does all the work
		return unix.Pause()
	}
	return <-ended
}

// running is a machine that was started.
type running struct {
	PID   int    `json:"pid"`
	Since uint64 `json:"since"` // when the process began, in clock ticks after the computer did: two processes of one PID differ in it
}

// starting is a machine whose cable is not in yet.
type starting struct {
	running
	name     string
	log      string
	lifeline *os.File
	ready    *os.File
}

// start makes a machine. It waits until its cable is in.
func (m machine) start() (_ *starting, err error) {
	arg, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{m.disk(), filepath.Dir(m.log(""))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(m.log("machine"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var theirs [2]*os.File
	s := &starting{name: m.Name, log: log.Name()}
	if theirs[0], s.lifeline, err = os.Pipe(); err != nil {
		return nil, err
	}
	defer theirs[0].Close()
	if s.ready, theirs[1], err = os.Pipe(); err != nil {
		s.lifeline.Close()
		return nil, err
	}
	defer theirs[1].Close()
	cmd := exec.Command("/proc/self/exe", firstArgument, string(arg))
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = "/", log, log, theirs[:]
	cmd.Env = []string{"PATH=" + m.Programs.Path, "LANG=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		s.lifeline.Close()
		s.ready.Close()
		return nil, fmt.Errorf("starting machine %s: %w", m.Name, err)
	}
	s.PID = cmd.Process.Pid
	go func() { _ = cmd.Wait() }() // why it has ended is in its log
	if s.Since, err = startOf(s.PID); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	return s, nil
}

// boot tells the machine that its cable is in, and returns when it does what it is for.
func (s *starting) boot(ctx context.Context, patience time.Duration) error {
	if _, err := s.lifeline.Write([]byte{plugged}); err != nil {
		return s.failed(err)
	}
	if err := s.ready.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return s.failed(err)
	}
	defer context.AfterFunc(ctx, func() { _ = s.ready.SetReadDeadline(time.Now()) })() // fails if it is closed: it was ready
	if _, err := io.ReadFull(s.ready, make([]byte, 1)); err != nil {
		return s.failed(errors.Join(err, ctx.Err()))
	}
	return s.ready.Close()
}

func (s *starting) failed(err error) error {
	said, _ := os.ReadFile(s.log) // if there is none, there is nothing to add
	return fmt.Errorf("machine %s did not start: %w\n%s", s.name, err, bytes.TrimSpace(said[max(0, len(said)-2000):]))
}

// keep lets the machine outlive this process.
func (s *starting) keep() error {
	_, err := s.lifeline.Write([]byte{kept})
	return errors.Join(err, s.lifeline.Close())
}

// abandon ends a machine that was started a moment ago.
func (s *starting) abandon() error {
	s.ready.Close()
	return errors.Join(s.lifeline.Close(), s.kill())
}

// startOf returns when a process began, as running.Since.
func startOf(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(rest)
	const starttime = 22 - 3 // proc(5) counts from 1, and two fields are before the rest
	if len(fields) <= starttime {
		return 0, fmt.Errorf("process %d: /proc says %q", pid, stat)
	}
	return strconv.ParseUint(fields[starttime], 10, 64)
}

// alive reports whether the machine runs.
func (r running) alive() bool {
	since, err := startOf(r.PID)
	if err != nil || since != r.Since {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.PID))
	return err == nil && !slices.Contains(strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):])), "Z")
}

// kill ends the machine, with everything in it, at once, and returns when it has ended. One that does not run stays so.
func (r running) kill() error {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !r.alive() { // looked at while the descriptor holds the number
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return err
	}
	const patience = 30_000 // ms
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("process %d does not end", r.PID)
		}
		return err
	}
}
