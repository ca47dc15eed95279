//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
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
	pid, err := processOf(conn, f.processes)
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

// processOf finds out which process has the other end of a connection of this machine.
func processOf(conn net.Conn, processes []int) (int, error) {
	inode, err := inodeOf(conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort())
	if err != nil {
		return 0, err
	}
	socket := fmt.Sprintf("socket:[%d]", inode)
	for _, pid := range processes {
		folder := "/proc/" + strconv.Itoa(pid) + "/fd/"
		open, err := os.ReadDir(folder)
		if err != nil {
			return 0, err
		}
		for _, fd := range open {
			if to, err := os.Readlink(folder + fd.Name()); err == nil && to == socket {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("%s is closed, or none of the processes has it", conn.RemoteAddr())
}

// inodeOf asks the kernel for the inode of a TCP socket over IPv4 (sock_diag(7)).
func inodeOf(self, peer netip.AddrPort) (uint32, error) {
	const header, request, answer, inodeAt = unix.SizeofNlMsghdr, 56, 72, 68
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	defer unix.Close(socket)
	m := binary.NativeEndian.AppendUint32(nil, header+request)
	m = binary.NativeEndian.AppendUint16(m, unix.SOCK_DIAG_BY_FAMILY)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST)
	m = append(m, make([]byte, 8)...)                   // sequence, port
	m = append(m, unix.AF_INET, unix.IPPROTO_TCP, 0, 0) // struct inet_diag_req_v2
	m = binary.NativeEndian.AppendUint32(m, ^uint32(0)) // any state
	m = binary.BigEndian.AppendUint16(m, self.Port())   // struct inet_diag_sockid
	m = binary.BigEndian.AppendUint16(m, peer.Port())
	for _, a := range []netip.AddrPort{self, peer} {
		m = append(append(m, a.Addr().Unmap().AsSlice()...), make([]byte, 12)...)
	}
	m = append(m, 0, 0, 0, 0)                        // any interface
	m = append(m, slices.Repeat([]byte{0xff}, 8)...) // no cookie
	if err := unix.Sendto(socket, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(socket, reply, 0)
	switch {
	case err != nil:
		return 0, err
	case n >= header+4 && binary.NativeEndian.Uint16(reply[4:]) == unix.NLMSG_ERROR:
		return 0, fmt.Errorf("looking for the socket %s: %w", self, unix.Errno(-int32(binary.NativeEndian.Uint32(reply[header:]))))
	case n < header+answer:
		return 0, fmt.Errorf("looking for the socket %s: the kernel's answer has %d octets", self, n)
	}
	return binary.NativeEndian.Uint32(reply[header+inodeAt:]), nil
}
