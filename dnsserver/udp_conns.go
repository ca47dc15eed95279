package dnsserver

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// udpConns answers with the sockets of package net, one datagram at a time.
type udpConns struct {
	sockets int // of an address
	conns   []*connWorker
}

func newUDPConns(workers int) *udpConns { return &udpConns{sockets: udpSockets(workers)} }

func (p *udpConns) bind(address netip.AddrPort) error {
	for range p.sockets {
		conn, err := listenUDP(address)
		if err != nil {
			return err
		}
		p.conns = append(p.conns, &connWorker{conn: conn, anyAddress: address.Addr().IsUnspecified()})
	}
	return nil
}

func (p *udpConns) workers(newResponder func() *responder) []udpWorker {
	var all []udpWorker
	for _, w := range p.conns {
		w.responder = newResponder()
		all = append(all, w)
	}
	return all
}

func (p *udpConns) close() {
	for _, w := range p.conns {
		_ = w.conn.Close() // nobody can do anything about it
	}
}

// connWorker answers what comes to one socket.
type connWorker struct {
	conn       *net.UDPConn
	anyAddress bool // bound to all addresses: replies must name theirs
	responder  *responder
	draining   atomic.Bool
}

func (w *connWorker) drain(until time.Time) {
	w.draining.Store(true)
	_ = w.conn.SetReadDeadline(until) // fails only on a socket that has ended
}

func (w *connWorker) serve() error {
	message := make([]byte, maxDatagram)
	var control []byte
	if w.anyAddress {
		control = make([]byte, controlSize)
	}
	for {
		n, controlled, _, client, err := w.conn.ReadMsgUDPAddrPort(message[:maxDatagram], control)
		if err != nil {
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded) && w.draining.Load():
				return nil
			case errors.Is(err, net.ErrClosed):
				return err
			}
			w.responder.counts.failures.Add(1)
			continue
		}
		if room := max(maxDatagram, w.responder.settings.Load().replyRoom()); room != len(message) {
			fits := make([]byte, room)
			copy(fits, message[:n])
			message = fits
		}
		if w.responder.watched != nil {
			w.responder.watched.port = client.Port()
		}
		r := w.responder.answer(message[:0], datagram(message[:n]), client.Addr().Unmap())
		if r == nil {
			continue
		}
		if _, _, err := w.conn.WriteMsgUDPAddrPort(r, sourceControl(control[:controlled]), client); err != nil {
			w.responder.counts.failures.Add(1)
		}
	}
}
