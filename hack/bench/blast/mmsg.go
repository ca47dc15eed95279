//go:build linux

package blast

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is the arrays that recvmmsg(2) and sendmmsg(2) read and fill. The kernel gets pointers into them, and the heap does
// not move: a batch that is in use must only be reachable.
type batch struct {
	headers   []mmsghdr
	vectors   []unix.Iovec
	addresses []unix.RawSockaddrInet6 // nil for a connected socket
	buffers   [][]byte
}

// mmsghdr is struct mmsghdr; the compiler pads it as C does.
type mmsghdr struct {
	unix.Msghdr
	size uint32
}

// newBatch has room for so many messages, each in a buffer of so many octets; 0: the caller sets them.
func newBatch(messages, octets int, withAddresses bool) *batch {
	b := &batch{headers: make([]mmsghdr, messages), vectors: make([]unix.Iovec, messages), buffers: make([][]byte, messages)}
	if withAddresses {
		b.addresses = make([]unix.RawSockaddrInet6, messages)
	}
	for i := range b.headers {
		b.headers[i].Iov = &b.vectors[i]
		b.headers[i].SetIovlen(1)
		if octets > 0 {
			b.set(i, make([]byte, octets))
		}
		if withAddresses {
			b.headers[i].Name = (*byte)(unsafe.Pointer(&b.addresses[i]))
		}
	}
	return b
}

// set makes data, which must not be empty, message i.
func (b *batch) set(i int, data []byte) {
	b.buffers[i] = data
	b.vectors[i].Base = &data[0]
	b.vectors[i].SetLen(len(data))
}

// receive fills the first elements with the messages that are there, and returns how many. With unix.MSG_WAITFORONE it waits
// for one, with unix.MSG_DONTWAIT it does not. With unix.MSG_TRUNC sizes are those of the datagrams even if the buffers are smaller.
func (b *batch) receive(socket, flags int) (int, unix.Errno) {
	for i := range b.addresses {
		b.headers[i].Namelen = unix.SizeofSockaddrInet6
	}
	return b.call(unix.SYS_RECVMMSG, socket, len(b.headers), flags)
}

// send sends the first n and returns how many went.
func (b *batch) send(socket, n int) (int, unix.Errno) {
	return b.call(unix.SYS_SENDMMSG, socket, n, 0)
}

// call is a system call that the runtime is not told of: this thread is for the caller alone, and nothing waits for it.
func (b *batch) call(trap uintptr, socket, n, flags int) (int, unix.Errno) {
	done, _, errno := unix.RawSyscall6(trap, uintptr(socket), uintptr(unsafe.Pointer(&b.headers[0])), uintptr(n), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(done), 0
}

// buffer is what sockets are asked to hold, in octets; the system may allow less.
const buffer = 4 << 20

// connect makes a UDP socket that talks to server, from source if that is valid.
func connect(server netip.AddrPort, source netip.Addr) (int, error) {
	s, err := open(server, func(s int, at unix.Sockaddr) error {
		if source.IsValid() {
			if err := unix.Bind(s, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
				return fmt.Errorf("from %s: %w", source, err)
			}
		}
		return unix.Connect(s, at)
	})
	return s, err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// open makes a UDP socket for an address; use is unix.Bind or unix.Connect, or one that calls it.
func open(address netip.AddrPort, use func(int, unix.Sockaddr) error) (int, error) {
	family := unix.AF_INET6
	if address.Addr().Is4() {
		family = unix.AF_INET
	}
	socket, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		_ = unix.SetsockoptInt(socket, unix.SOL_SOCKET, option, buffer)
	}
	if err := use(socket, sockaddr(address)); err != nil {
		_ = unix.Close(socket)
		return 0, fmt.Errorf("socket for %s: %w", address, err)
	}
	return socket, nil
}
