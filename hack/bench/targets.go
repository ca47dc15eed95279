//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// targets are what names are answered with: HTTP servers at all addresses of 127.0.0.0/8, on one port.
type targets struct {
	listener net.Listener
	served   sync.WaitGroup
	requests atomic.Int64

	silent  atomic.Pointer[netip.Prefix] // those in here take connections and say nothing
	failing atomic.Pointer[failing]
}

// failing is a target that answers 503 from now on.
type failing struct {
	target    netip.Addr
	processes []int // that may ask

	mu sync.Mutex
	// first is when each process was first answered so: the moment before the answer was sent.
	first   map[int]time.Time
	unknown error // why it is not known who has asked
}

// startTargets begins to answer.
func startTargets(port uint16) (*targets, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(netip.IPv4Unspecified(), port).String())
	if err != nil {
		return nil, err
	}
	t := &targets{listener: l}
	t.served.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				t.served.Go(func() { t.serve(conn.(*net.TCPConn)) })
			}
		}
	})
	return t, nil
}

// stop ends all.
func (t *targets) stop() error {
	err := t.listener.Close()
	t.served.Wait()
	return err
}

// patience is how long a client may take to ask, and to give up.
const patience = 10 * time.Second

func (t *targets) serve(conn *net.TCPConn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	self := conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	t.requests.Add(1)
	if s := t.silent.Load(); s != nil && s.Contains(self) {
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	for lines := bufio.NewScanner(conn); lines.Scan() && lines.Text() != ""; {
	}
	status := "200 OK"
	if f := t.failing.Load(); f != nil && f.target == self {
		status = "503 Service Unavailable"
		f.asked(conn)
	}
	_, _ = conn.Write([]byte("HTTP/1.1 " + status + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
}

// fail makes a target answer 503.
func (t *targets) fail(target netip.Addr, processes []int) *failing {
	f := &failing{target: target, processes: processes, first: map[int]time.Time{}}
	t.failing.Store(f)
	return f
}

// asked notes who is about to get an answer.
func (f *failing) asked(conn net.Conn) {
	pid, err := process.Peer(conn, f.processes)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.unknown = err
	} else if f.first[pid].IsZero() {
		f.first[pid] = time.Now()
	}
}

// decided is when the last of the processes got its first answer of 503.
func (f *failing) decided(processes []int) (last time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, pid := range processes {
		at := f.first[pid]
		if at.IsZero() {
			return last, errors.Join(fmt.Errorf("process %d has not asked %s", pid, f.target), f.unknown)
		}
		if at.After(last) {
			last = at
		}
	}
	return last, nil
}
