package report

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Machine is what figures depend on.
type Machine struct {
	CPU    string `json:"cpu"` // model
	Cores  int    `json:"cores"`
	MiB    int    `json:"mib"` // of memory
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, %d CPUs, %.0f GiB, Linux %s, %s", m.CPU, m.Cores, float64(m.MiB)/1024, m.Kernel, m.Go)
}

// ThisMachine describes the machine. What it cannot find out is empty.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.CPU = field("/proc/cpuinfo", "model name")
	if kib, err := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB")); err == nil {
		m.MiB = kib / 1024
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	return m
}

// field returns the first value of a name in a file of lines "name : value".
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Load watches how much of the CPUs is used.
type Load struct {
	used, all uint64 // ticks
	ours      time.Duration
}

// tick is the unit of /proc/stat on Linux, whatever the kernel counts in.
const tick = 10 * time.Millisecond

// Watch begins.
func Watch() (l Load, err error) {
	if l.used, l.all, err = ticks(); err != nil {
		return l, err
	}
	l.ours, err = ours()
	return l, err
}

// Others returns the share of all CPUs, from 0 to 1, that other programs have used since then. What this process has
// started counts as its own once it was waited for.
func (l Load) Others() (float64, error) {
	now, err := Watch()
	if err != nil || now.all == l.all {
		return 0, err
	}
	others := time.Duration(now.used-l.used)*tick - (now.ours - l.ours)
	return max(0, float64(others)/float64(time.Duration(now.all-l.all)*tick)), nil
}

// ours returns the CPU time of this process and of all that it has waited for.
func ours() (total time.Duration, err error) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var r syscall.Rusage
		if err := syscall.Getrusage(who, &r); err != nil {
			return 0, err
		}
		total += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return total, nil
}

// ticks returns for how long the CPUs were used, and for how long they could have been, since the machine started.
func ticks() (used, all uint64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	const idle, iowait, steal = 3, 4, 7 // proc_stat(5); the guests' times behind are in the others
	for i, f := range strings.Fields(first)[1:] {
		v, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i <= steal {
			all += v
			if i != idle && i != iowait {
				used += v
			}
		}
	}
	return used, all, nil
}
