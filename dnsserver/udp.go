package dnsserver

import (
	"errors"
	"net"
	"os"
	"sync/atomic"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// udpWorker answers what comes to one socket.
type udpWorker struct {
	conn       *net.UDPConn
	anyAddress bool // bound to all addresses: replies must name theirs
	responder  *responder
	counts     *counters
	draining   *atomic.Bool
}

// serve returns nil when the read deadline passes while draining.
func (w *udpWorker) serve() error {
	message := make([]byte, zone.MaxMessage) // a query is never cut: the longest datagram is shorter
	var reply [zone.MaxUDP]byte
	var control []byte
	if w.anyAddress {
		control = make([]byte, controlSize)
	}
	for {
		n, controlled, _, client, err := w.conn.ReadMsgUDPAddrPort(message, control)
		if err != nil {
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded) && w.draining.Load():
				return nil
			case errors.Is(err, net.ErrClosed):
				return err
			}
			w.counts.failures.Add(1)
			continue
		}
		r := w.responder.answer(reply[:0], message[:n], client.Addr().Unmap())
		if r == nil {
			continue
		}
		if _, _, err := w.conn.WriteMsgUDPAddrPort(r, sourceControl(control[:controlled]), client); err != nil {
			w.counts.failures.Add(1)
		}
	}
}
