//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// group is the processes that one program is made of: NSD forks.
type group []int

// groupOf lists the processes of a process group.
func groupOf(leader int) (group, error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var all group
	for _, e := range entries {
		pid, err := strconv.Atoi(filepath.Base(e))
		if err != nil {
			continue
		}
		if id, err := unix.Getpgid(pid); err == nil && id == leader {
			all = append(all, pid)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("process %d has ended", leader)
	}
	return all, nil
}

// cpuTime returns for how long all threads have run on a CPU, see threads.
func (g group) cpuTime() (total time.Duration, err error) {
	all, err := g.threads()
	for _, ran := range all {
		total += ran
	}
	return total, err
}

// threads returns for how long each thread has run on a CPU, as the scheduler counts it: to the nanosecond. On a
// loopback device that includes what the kernel does to deliver what they send.
func (g group) threads() (map[int]time.Duration, error) {
	all := map[int]time.Duration{}
	for _, pid := range g {
		paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(paths) == 0 {
			return nil, fmt.Errorf("process %d has ended", pid)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // the thread has ended
			}
			thread, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			ran, _, _ := bytes.Cut(text, []byte(" "))
			ns, err := strconv.ParseInt(string(ran), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			all[thread] = time.Duration(ns)
		}
	}
	return all, nil
}

// memory returns how many MiB all processes have in memory, what they share counted once.
func (g group) memory() (mib float64, err error) {
	for _, pid := range g {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "\nPss:")
		kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			return 0, err
		}
		mib += kib / 1024
	}
	return mib, nil
}

// resetPeak has peak begin anew, see proc_pid_clear_refs(5).
func (g group) resetPeak() error {
	for _, pid := range g {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return err
		}
	}
	return nil
}

// peak returns how many MiB the processes had in memory at most, each at its own time.
func (g group) peak() (mib float64, err error) {
	for _, pid := range g {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "\nVmHWM:")
		kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		if err != nil {
			return 0, err
		}
		mib += kib / 1024
	}
	return mib, nil
}
