package dnsserver

import (
	"bufio"
	"bytes"
	"container/list"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
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
		default:
			l.counts.failures.Add(1)
			if outOfFiles(err) && l.streams.makeRoom() {
				pause = shortest
			}
			time.Sleep(pause)
			pause = min(2*pause, longest)
		}
	}
}

// outOfFiles reports whether a system call failed because this process or the machine has as many
// files open as it may.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// streams is all open TCP connections.
type streams struct {
	opts    Options
	running sync.WaitGroup
	refused atomic.Uint64
	evicted atomic.Uint64
	unsent  atomic.Int64 // octets of replies that clients are to take
	long    atomic.Int32 // messages beyond streamBuffer that are being read

	mu    sync.Mutex
	open  crowd
	until time.Time // end of draining; zero before
}

// take serves a new connection. If its client has too many it is closed; if there are too many
// in all, another one makes room, see crowd.
func (s *streams) take(conn *net.TCPConn, l *tcpListener) {
	c := &stream{TCPConn: conn, client: conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), listener: l}
	admitted, full := s.admit(c)
	if !admitted {
		s.refused.Add(1)
		_ = conn.Close()
		return
	}
	if full {
		s.makeRoom()
	}
	go func() {
		defer s.running.Done()
		c.serve()
		s.drop(c)
	}()
}

// admit adds c unless its client has too many, and tells whether there are now too many in all.
func (s *streams) admit(c *stream) (admitted, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() || s.open.of(c.client) >= s.opts.MaxClientConnections {
		return false, false
	}
	s.open.add(c)
	s.running.Add(1)
	return true, s.open.size > s.opts.MaxConnections
}

// makeRoom closes the connection that is the fairest to close, and reports whether there was one.
func (s *streams) makeRoom() bool {
	s.mu.Lock()
	c := s.open.evict()
	s.mu.Unlock()
	if c == nil {
		return false
	}
	s.evicted.Add(1)
	_ = c.Close()
	return true
}

func (s *streams) drop(c *stream) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open.remove(c)
}

func (s *streams) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open.size
}

// arm gives c until the idle timeout, or the end of draining, to bring the next query. It
// returns the timeout, 0 while draining. It fails if c is closed.
func (s *streams) arm(c *stream) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() {
		return 0, c.SetReadDeadline(s.until)
	}
	s.open.touch(c)
	idle := s.opts.IdleTimeout
	if s.open.size >= s.opts.MaxConnections*3/4 {
		idle /= 10
	}
	return idle, c.SetReadDeadline(time.Now().Add(idle))
}

// drain lets no connection come, and those that are there end at the given time.
func (s *streams) drain(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = until
	for c := range s.open.all() {
		_ = c.SetReadDeadline(until) // fails only on a connection that has ended
	}
}

// patience is how long a client may take to accept replies: little once many octets wait for
// clients, so that those who never read cannot take all memory.
func (s *streams) patience() time.Duration {
	if s.unsent.Load() > maxUnsent {
		return s.opts.WriteTimeout / 50
	}
	return s.opts.WriteTimeout
}

// stream is one connection.
type stream struct {
	*net.TCPConn
	client   netip.Addr
	listener *tcpListener
	place    *list.Element // in its client's streams; of the crowd
}

const (
	// streamBuffer is what an idle connection holds of memory for reading; longer queries
	// take what they need as they come.
	streamBuffer = 1 << 10
	// keptReplies is what it holds at most for the next replies.
	keptReplies = 4 << 10
	// maxLong is how many connections may bring longer queries at once. Hardly any client does:
	// one more is closed.
	maxLong = 256
	// flushAt is how much of replies is gathered before it is sent, when several queries
	// came at once.
	flushAt = 16 << 10
	// maxUnsent is how many octets of replies may wait for clients before patience ends.
	maxUnsent = 64 << 20
	// shortestMessage is a header.
	shortestMessage = 12
)

// serve answers queries until the client ends, is idle or misbehaves: a length shorter than a
// header, replies not accepted. Clients pipeline (RFC 7766 §6.2.1.1). Answers come from memory,
// so that none is worth overtaking another: they go out in the order of the queries, those of
// queries that came together in one write, and never wait for a query that is not yet whole.
func (c *stream) serve() {
	all := c.listener.streams
	in := bufio.NewReaderSize(c, streamBuffer)
	var out []byte
	var idle time.Duration
	for {
		waits := !hasMessage(in)
		if waits || len(out) >= flushAt {
			if c.send(out) != nil {
				return
			}
			if out = out[:0]; cap(out) > keptReplies {
				out = nil
			}
		}
		if waits {
			var err error
			if idle, err = all.arm(c); err != nil {
				return
			}
		}
		message, err := all.read(in)
		if err != nil {
			_ = c.send(out) // which ends in any case
			return
		}
		out = c.listener.reply(out, message, c.client, idle)
	}
}

// send writes replies within the time that the client has to accept them.
func (c *stream) send(replies []byte) error {
	if len(replies) == 0 {
		return nil
	}
	all := c.listener.streams
	size := int64(cap(replies))
	all.unsent.Add(size)
	defer all.unsent.Add(-size)
	if err := c.SetWriteDeadline(time.Now().Add(all.patience())); err != nil {
		return err
	}
	_, err := c.Write(replies)
	return err
}

// reply appends the reply to one message with its length, if one is owed. The timeout is what
// clients that ask are told, RFC 7828; 0 for nothing.
func (l *tcpListener) reply(out, message []byte, client netip.Addr, idle time.Duration) []byte {
	const unit, longest = 100 * time.Millisecond, 1<<16 - 1
	x := l.exchanges.Get().(*exchange)
	defer l.exchanges.Put(x)
	x.responder.scratch.KeepAlive = uint16(min(idle/unit, longest))
	r := x.responder.answer(x.reply[:0], message, client)
	if r == nil {
		return out
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(r)))
	return append(out, r...)
}

// read returns the next message, valid until the next read. What a client announces takes no
// memory before it comes.
func (s *streams) read(in *bufio.Reader) ([]byte, error) {
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
	defer s.long.Add(-1)
	if s.long.Add(1) > maxLong {
		return nil, errBusy
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

var (
	errShort = errors.New("a message shorter than its header")
	errBusy  = errors.New("too many long messages at once")
)

// hasMessage reports whether a whole message can be read without waiting.
func hasMessage(in *bufio.Reader) bool {
	if in.Buffered() < 2 {
		return false
	}
	head, err := in.Peek(2)
	return err == nil && in.Buffered() >= 2+int(binary.BigEndian.Uint16(head))
}
