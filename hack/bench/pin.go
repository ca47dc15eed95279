//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/bench/blast"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// The server that is measured has one CPU to itself, the generator the other.
const (
	serverCPU    = 0
	generatorCPU = 1
)

// startPinned runs a program on one CPU.
func startPinned(o process.Options, cpu int, path string, args ...string) (*process.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return process.Start(o, self, append([]string{pinArgument, strconv.Itoa(cpu), path}, args...)...)
}

// become is what this program does as one of those that are measured. It returns only on errors.
func become(what string, args []string) error {
	switch {
	case what == echoArgument && len(args) == 1:
		return echo(args[0])
	case what == serveArgument && len(args) == 1:
		return serve(args[0])
	case what == streamArgument && len(args) == 1:
		return askStream(args[0])
	case what == pinArgument && len(args) >= 2:
		return pin(args[0], args[1], args[1:])
	}
	return fmt.Errorf("%s with %q", what, args)
}

// pin becomes another program, on one CPU. It returns only on errors.
func pin(cpu, program string, args []string) error {
	n, err := strconv.Atoi(cpu)
	if err != nil {
		return err
	}
	runtime.LockOSThread() // what Exec keeps is this thread's
	var only unix.CPUSet
	only.Set(n)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("using CPU %d: %w", n, err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	return unix.Exec(path, args, os.Environ())
}

// echo is the least that a server can do.
func echo(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return blast.Echo(at)
}
