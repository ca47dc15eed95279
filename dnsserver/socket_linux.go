package dnsserver

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// udpSockets is how many sockets an address has for so many workers.
func udpSockets(workers int) int { return workers }

// listenUDP binds one of the sockets that share an address.
func listenUDP(address netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = setUDPOptions(int(fd), address.Addr()) })
		if err != nil {
			return err
		}
		return failed
	}}
	conn, err := lc.ListenPacket(context.Background(), network("udp", address), address.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// openUDP is listenUDP for a socket that package net knows nothing of: while a worker is busy,
// datagrams that come wake nobody up.
func openUDP(address netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET6
	var to unix.Sockaddr
	if a := address.Addr(); a.Is4() {
		family = unix.AF_INET
		to = &unix.SockaddrInet4{Port: int(address.Port()), Addr: a.As4()}
	} else {
		scope, err := interfaceIndex(a.Zone())
		if err != nil {
			return 0, err
		}
		to = &unix.SockaddrInet6{Port: int(address.Port()), Addr: a.As16(), ZoneId: scope}
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := prepareUDP(fd, address.Addr(), to); err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func prepareUDP(fd int, address netip.Addr, to unix.Sockaddr) error {
	if address.Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	timeout := unix.NsecToTimeval(sendTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return err
	}
	if err := setUDPOptions(fd, address); err != nil {
		return err
	}
	return unix.Bind(fd, to)
}

// interfaceIndex returns the number of an interface given by name or number, 0 for "".
func interfaceIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

// sendTimeout is for how long a worker waits for room for replies in its socket: others are then
// worth more.
const sendTimeout = 100 * time.Millisecond

// receiveBuffer is what a socket may hold that is not read yet, in octets; the system may
// allow less.
const receiveBuffer = 4 << 20

func setUDPOptions(fd int, address netip.Addr) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	// Replies fit every path; a forged ICMP message must not make them smaller or stop them.
	if address.Is4() {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
	}
	switch {
	case !address.IsUnspecified():
		return nil
	case address.Is4():
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	default:
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
}

// queued reports whether there are connections to accept.
func queued(l *net.TCPListener) (some bool) {
	raw, err := l.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		some = n > 0 && err == nil
	})
	return some && err == nil
}

// controlSize holds the control message that names the address a datagram came to.
var controlSize = unix.CmsgSpace(unix.SizeofInet6Pktinfo)

// sourceControl makes of the control message of a query that of its reply: it leaves from
// the address that the query came to, by whatever interface leads to the client. The
// message is changed in place.
func sourceControl(control []byte) []byte {
	if len(control) < unix.SizeofCmsghdr {
		return nil
	}
	h, data, _, err := unix.ParseOneSocketControlMessage(control)
	if err != nil {
		return nil
	}
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		// in_pktinfo: interface, the address to answer from, the address in the query's header.
		binary.NativeEndian.PutUint32(data, 0)
		copy(data[4:8], data[8:12])
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		// in6_pktinfo: address, interface, which link-local addresses need.
		if a := netip.AddrFrom16([16]byte(data)); !a.IsLinkLocalUnicast() {
			binary.NativeEndian.PutUint32(data[16:], 0)
		}
	default:
		return nil
	}
	return control
}
