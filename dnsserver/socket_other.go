//go:build !linux

package dnsserver

import (
	"net"
	"net/netip"
)

// defaultUDP is the way to answer over UDP on systems without recvmmsg and sendmmsg.
func defaultUDP(workers, _ int) udpPath { return newUDPConns(workers) }

// udpSockets is how many sockets an address has: elsewhere the kernel does not divide clients
// among several.
func udpSockets(int) int { return 1 }

func listenUDP(address netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP(network("udp", address), net.UDPAddrFromAddrPort(address))
}

// controlSize is 0: replies leave from the address that the system chooses, so that a
// server on several addresses must name each.
const controlSize = 0

func sourceControl([]byte) []byte { return nil }

// queued reports whether there are connections to accept, false where nobody knows.
func queued(*net.TCPListener) bool { return false }
