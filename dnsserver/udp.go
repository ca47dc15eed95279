package dnsserver

import (
	"net/netip"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// udpPath is a way to answer over UDP. There are two, which give the same replies: udpBatches
// for Linux, and udpConns for every system.
type udpPath interface {
	// bind opens the sockets of one more address, whose port is not 0, or fails. Nobody else
	// may share it.
	bind(address netip.AddrPort) error
	// workers returns who answers on all addresses bound, each to be run by one goroutine.
	// It is called once, after the last bind.
	workers(newResponder func() *responder) []udpWorker
	// close closes all sockets. The workers have ended, or never ran.
	close()
}

// udpWorker answers what comes to some sockets.
type udpWorker interface {
	// serve answers until the time given to drain, then it returns nil. It returns the error of
	// a socket that can't be used any more.
	serve() error
	// drain may be called once, while serve runs or before.
	drain(until time.Time)
}

const (
	// maxQuery is the longest query that is answered over UDP, in octets: what passes every
	// network in one piece, and more than queries need.
	maxQuery = 25*64 - 1
	// maxDatagram is how much of a datagram is received, in octets: a longer one than maxQuery
	// is known by it. Replies of the default size fit too.
	maxDatagram = maxQuery + 1
)

// header is the size of a message's header, in octets.
const header = 12

// datagram returns what is answered of a datagram: of one that is too long the header, which gets
// FORMERR, or what else its flags ask for.
func datagram(received []byte) []byte {
	if len(received) > maxQuery {
		return received[:header]
	}
	return received
}

var _ [maxDatagram - zone.MaxUDP]struct{} // replies fit
