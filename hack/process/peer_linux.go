package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Peer finds out which of the processes has the other end of a connection of this machine.
func Peer(conn net.Conn, processes []int) (int, error) {
	inode, err := inodeOf(conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort())
	if err != nil {
		return 0, err
	}
	socket := fmt.Sprintf("socket:[%d]", inode)
	for _, pid := range processes {
		folder := "/proc/" + strconv.Itoa(pid) + "/fd/"
		open, err := os.ReadDir(folder)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended
		} else if err != nil {
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
