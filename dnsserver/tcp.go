package dnsserver

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// network is the address family's variant of "udp" or "tcp": IPv6 sockets take no IPv4.
func network(protocol string, address netip.AddrPort) string {
	if address.Addr().Is4() {
		return protocol + "4"
	}
	return protocol + "6"
}

func listenTCP(address netip.AddrPort) (*net.TCPListener, error) {
	return net.ListenTCP(network("tcp", address), net.TCPAddrFromAddrPort(address))
}

// tcpListener takes the connections to one address.
type tcpListener struct {
	*net.TCPListener
	streams   *streams
	draining  *atomic.Bool
	counts    *counters
	exchanges sync.Pool // of *exchange
}

// exchange is what answering takes while there is something to answer.
type exchange struct {
	responder *responder
	reply     [zone.MaxMessage]byte
}

// serve returns nil when the listener is closed while draining.
func (l *tcpListener) serve() error {
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause := shortest
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			pause = shortest
			l.streams.take(conn, l)
		case errors.Is(err, net.ErrClosed):
			if l.draining.Load() {
				return nil
			}
			return err
		default: // too many open files, mostly: others that end make room
			l.counts.failures.Add(1)
			time.Sleep(pause)
			pause = min(2*pause, longest)
		}
	}
}

// streams is all open TCP connections.
type streams struct {
	opts    Options
	running sync.WaitGroup
	refused atomic.Uint64

	mu       sync.Mutex
	open     map[*stream]struct{}
	byClient map[netip.Addr]int
	until    time.Time // end of draining; zero before
}

// take serves a new connection, or closes it if there are too many.
func (s *streams) take(conn *net.TCPConn, l *tcpListener) {
	c := &stream{TCPConn: conn, client: conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), listener: l}
	if !s.admit(c) {
		s.refused.Add(1)
		_ = conn.Close()
		return
	}
	go func() {
		defer s.running.Done()
		c.serve()
		s.drop(c)
	}()
}

func (s *streams) admit(c *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= s.opts.MaxConnections || s.byClient[c.client] >= s.opts.MaxClientConnections || !s.until.IsZero() {
		return false
	}
	s.open[c] = struct{}{}
	s.byClient[c.client]++
	s.running.Add(1)
	return true
}

func (s *streams) drop(c *stream) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	if s.byClient[c.client]--; s.byClient[c.client] == 0 {
		delete(s.byClient, c.client)
	}
}

func (s *streams) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// arm gives c until the idle timeout, or the end of draining, to bring the next query.
func (s *streams) arm(c *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() {
		return c.SetReadDeadline(s.until)
	}
	idle := s.opts.IdleTimeout
	if len(s.open) >= s.opts.MaxConnections*3/4 {
		idle /= 10
	}
	return c.SetReadDeadline(time.Now().Add(idle))
}

// drain lets no connection come, and those that are there end at the given time.
func (s *streams) drain(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = until
	for c := range s.open {
		_ = c.SetReadDeadline(until) // fails only on a connection that has ended
	}
}

// stream is one connection.
type stream struct {
	*net.TCPConn
	client   netip.Addr
	listener *tcpListener
}

const (
	// streamBuffer is what an idle connection holds of memory for reading; longer queries
	// take what they need as they come.
	streamBuffer = 1 << 10
	// flushAt is how much of replies is gathered before it is sent, when several queries
	// came at once.
	flushAt = 16 << 10
	// shortestMessage is a header.
	shortestMessage = 12
)

// serve answers queries in their order (RFC 7766 §6.2.1.1 has the client pipeline) until the
// client ends, is idle or misbehaves: a length shorter than a header, replies not accepted.
func (c *stream) serve() {
	all := c.listener.streams
	in := bufio.NewReaderSize(c, streamBuffer)
	var out []byte
	for {
		if all.arm(c) != nil {
			return
		}
		message, err := readMessage(in)
		if err != nil {
			return
		}
		out = c.listener.reply(out, message, c.client)
		if len(out) == 0 || len(out) < flushAt && hasMessage(in) {
			continue
		}
		if c.SetWriteDeadline(time.Now().Add(all.opts.WriteTimeout)) != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
		if out = out[:0]; cap(out) > flushAt {
			out = nil
		}
	}
}

// reply appends the reply to one message with its length, if one is owed.
func (l *tcpListener) reply(out, message []byte, client netip.Addr) []byte {
	x := l.exchanges.Get().(*exchange)
	defer l.exchanges.Put(x)
	r := x.responder.answer(x.reply[:0], message, client)
	if r == nil {
		return out
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(r)))
	return append(out, r...)
}

// readMessage returns the next message, valid until the next read. What a client announces
// takes no memory before it comes.
func readMessage(in *bufio.Reader) ([]byte, error) {
	head, err := in.Peek(2)
	if err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(head))
	if size < shortestMessage {
		return nil, errShort
	}
	if 2+size <= in.Size() {
		b, err := in.Peek(2 + size)
		if err != nil {
			return nil, err
		}
		_, err = in.Discard(2 + size) // what was peeked at stays until the next read
		return b[2:], err
	}
	if _, err := in.Discard(2); err != nil {
		return nil, err
	}
	var long bytes.Buffer
	if _, err := io.CopyN(&long, in, int64(size)); err != nil {
		return nil, err
	}
	return long.Bytes(), nil
}

var errShort = errors.New("a message shorter than its header")

// hasMessage reports whether a whole message can be read without waiting.
func hasMessage(in *bufio.Reader) bool {
	if in.Buffered() < 2 {
		return false
	}
	head, err := in.Peek(2)
	return err == nil && in.Buffered() >= 2+int(binary.BigEndian.Uint16(head))
}
