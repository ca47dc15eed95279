package dnsserver

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file, and no other, has raw system calls and unsafe: recvmmsg and sendmmsg, of which
// neither x/sys/unix nor package net has a form that takes memory which is prepared once.

// batchSize is how many datagrams one system call receives or sends at most. The gain of batches
// is all there from 16 on; memory and the time that a thread spends in one call grow with them.
const batchSize = 64

// mmsghdr is struct mmsghdr of recvmmsg(2); the compiler pads it as C does.
type mmsghdr struct {
	unix.Msghdr
	size uint32 // of the datagram, in octets
}

// batch is the memory of one worker: datagrams received, each with where it came from, and
// replies in their place. The kernel writes to it only during calls of receive. It is kept alive
// and in its place by who calls the methods: the Go heap does not move objects.
//
// What the kernel fills is in arrays of their own without pointers, which the garbage collector
// does not look at.
type batch struct {
	received int
	replies  int

	in, out     [batchSize]mmsghdr
	inIO, outIO [batchSize]unix.Iovec

	data    []byte // stride octets for each
	stride  int
	peers   *[batchSize][peerSize]byte
	control *[batchSize][controlRoom]byte
}

const (
	peerSize = unix.SizeofSockaddrInet6 // the longer of the two

	// controlRoom holds the control message that names the address a datagram came to, for
	// IPv6 the longer, with what alignment needs.
	controlRoom = 40
)

// newBatch makes a batch for replies of up to so many octets.
//
// Where datagrams start is an odd number of cache lines apart, so that their heads, which is where
// most of the work is, do not all compete for the same few sets of a cache.
func newBatch(reply int) *batch {
	const line = 64
	lines := (max(maxDatagram, reply)+line-1)/line | 1
	b := &batch{
		data:    make([]byte, batchSize*lines*line),
		stride:  lines * line,
		peers:   new([batchSize][peerSize]byte),
		control: new([batchSize][controlRoom]byte),
	}
	for i := range batchSize {
		in, out := &b.in[i], &b.out[i]
		b.inIO[i].Base = &b.data[i*b.stride]
		b.inIO[i].SetLen(maxDatagram)
		in.Iov, in.Name, in.Control = &b.inIO[i], &b.peers[i][0], &b.control[i][0]
		in.SetIovlen(1)
		out.Iov = &b.outIO[i]
		out.SetIovlen(1)
	}
	b.received = batchSize // makes receive set all lengths
	return b
}

// receive takes what a socket holds, up to batchSize datagrams, and returns how many; none is no
// error. It forgets what was received before, and its replies. It never waits.
func (b *batch) receive(fd int) (int, error) {
	// Lengths have been used up by the last call.
	for i := range b.received {
		b.in[i].Namelen = peerSize
		b.in[i].SetControllen(controlRoom)
	}
	b.received, b.replies = 0, 0
	// A call that does not wait need not tell the scheduler of Go that it may, which costs a
	// quarter of the call itself and, on a busy machine, often the CPU. The garbage collector and
	// other goroutines can't stop the thread meanwhile: that is tens of microseconds.
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0) //nolint:gosec // see above
	switch errno {
	case 0:
		b.received = int(n)
		return b.received, nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, errno
}

// datagram returns the i-th datagram received; its capacity is for the reply.
func (b *batch) datagram(i int) []byte {
	at := i * b.stride
	return b.data[at : at+int(b.in[i].size) : at+b.stride]
}

// client returns where the i-th datagram came from, without the zone of a link-local address.
func (b *batch) client(i int) netip.Addr {
	peer := &b.peers[i]
	// struct sockaddr_in has its address from octet 4 on, sockaddr_in6 from octet 8 on.
	if b.in[i].Namelen == unix.SizeofSockaddrInet4 {
		return netip.AddrFrom4([4]byte(peer[4:8]))
	}
	return netip.AddrFrom16([16]byte(peer[8:24])).Unmap()
}

// port returns the port that the i-th datagram came from.
func (b *batch) port(i int) uint16 { return binary.BigEndian.Uint16(b.peers[i][2:]) } // as with client

// reply puts the first octets of the memory of the i-th datagram behind the replies to send.
func (b *batch) reply(i, size int) {
	in, out := &b.in[i], &b.out[b.replies]
	b.outIO[b.replies].Base = &b.data[i*b.stride]
	b.outIO[b.replies].SetLen(size)
	out.Name, out.Namelen = in.Name, in.Namelen
	out.Control = nil
	out.SetControllen(0)
	if in.Controllen > 0 {
		if c := sourceControl(b.control[i][:in.Controllen]); c != nil {
			out.Control = &c[0]
			out.SetControllen(len(c))
		}
	}
	b.replies++
}

// send sends all replies and returns how many could not be sent. It waits while the socket has no
// room for them, as long as the socket's options say.
func (b *batch) send(fd int) (failed int) {
	for sent := 0; sent < b.replies; {
		replies, count := uintptr(unsafe.Pointer(&b.out[sent])), uintptr(b.replies-sent) //nolint:gosec // the memory is kept by b
		// For RawSyscall6 see receive.
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), replies, count, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EAGAIN {
			n, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), replies, count, 0, 0, 0)
		}
		switch errno {
		case 0:
			sent += int(n)
		case unix.EINTR:
		default: // speaks of the first
			sent++
			failed++
		}
	}
	return failed
}

// unusable reports whether an error of receive is one of the socket itself, which will not pass.
func unusable(err error) bool {
	switch err { //nolint:errorlint // receive returns no wrapped errors
	case syscall.EBADF, syscall.ENOTSOCK, syscall.EFAULT, syscall.EINVAL, syscall.ENOSYS, syscall.EPERM:
		return true
	}
	return false
}
