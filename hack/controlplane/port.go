package controlplane

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// hold takes a free TCP port of a loopback address until release is called. The port is bound with SO_REUSEPORT, but nothing
// listens: a program of the same user that sets SO_REUSEPORT too can listen on it, stop and listen again,
// and nobody else can have it in between.
func hold(addr netip.Addr) (held netip.AddrPort, release func(), err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("taking a free port of %v: %w", addr, err)
		}
	}()
	var family int
	var at unix.Sockaddr
	if addr.Is4() {
		family, at = unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4()}
	} else {
		family, at = unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	unix.CloseOnExec(fd)
	socket := os.NewFile(uintptr(fd), "held port")
	defer func() {
		if err != nil {
			socket.Close()
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return netip.AddrPort{}, nil, err
	}
	if err := unix.Bind(fd, at); err != nil {
		return netip.AddrPort{}, nil, err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	port := 0
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		port = b.Port
	case *unix.SockaddrInet6:
		port = b.Port
	}
	return netip.AddrPortFrom(addr, uint16(port)), func() { socket.Close() }, nil
}
