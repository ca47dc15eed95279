package dnsserver

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// streams is all connections, over every transport: their limits are common to all.
type streams struct {
	opts    Options
	running sync.WaitGroup
	refused atomic.Uint64
	evicted atomic.Uint64
	unsent  atomic.Int64 // octets of replies that clients are to take
	long    atomic.Int32 // messages beyond streamBuffer that are being read
	asked   atomic.Int32 // HTTP requests under way
	turns   turns        // of handshakes and requests over HTTP

	mu   sync.Mutex
	open crowd
	of   [transports]int // how many of open came over each
}

// stream is one connection.
type stream struct {
	net.Conn // tcp, or TLS over it once hands are shaken
	tcp      *net.TCPConn
	client   netip.Addr
	listener *listener
	place    *list.Element // in its client's streams; of the crowd
	dropped  atomic.Bool
}

// take serves a new connection. If its client has too many it is closed; if there are too many
// in all, another one makes room, see crowd.
func (s *streams) take(conn *net.TCPConn, l *listener) {
	c := &stream{Conn: conn, tcp: conn, client: conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), listener: l}
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
		if l.config != nil && !c.shakeHands() {
			c.drop()
			return
		}
		l.serve(c)
	}()
}

// admit adds c unless its client has too many, and tells whether there are now too many in all.
func (s *streams) admit(c *stream) (admitted, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open.of(c.client) >= s.opts.MaxClientConnections {
		return false, false
	}
	s.open.add(c)
	s.of[c.listener.over]++
	s.running.Add(1)
	return true, s.open.size > s.opts.MaxConnections
}

// makeRoom closes the connection that is the fairest to close, and reports whether there was one.
func (s *streams) makeRoom() bool {
	s.mu.Lock()
	c := s.open.evict()
	if c != nil {
		s.of[c.listener.over]--
	}
	s.mu.Unlock()
	if c == nil {
		return false
	}
	s.evicted.Add(1)
	_ = c.tcp.Close() // without a word: the client may not take any
	return true
}

// drop ends c, once: then it counts no more.
func (c *stream) drop() {
	_ = c.tcp.Close()
	if c.dropped.Swap(true) {
		return
	}
	s := c.listener.streams
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open.remove(c) {
		s.of[c.listener.over]--
	}
	s.running.Done()
}

// counts returns how many connections there are over each transport.
func (s *streams) counts() [transports]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of
}

func (s *streams) count() (all int) {
	for _, n := range s.counts() {
		all += n
	}
	return all
}

// arm gives c until the idle timeout, or the end of draining, to bring the next query. It
// returns the timeout, 0 while draining. It fails if c is closed.
func (s *streams) arm(c *stream) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until := c.listener.until; !until.IsZero() {
		return 0, c.tcp.SetReadDeadline(until)
	}
	s.open.touch(c)
	idle := s.patienceFor(s.opts.IdleTimeout)
	return idle, c.tcp.SetReadDeadline(time.Now().Add(idle))
}

// touch notes that c was active.
func (s *streams) touch(c *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open.touch(c)
}

// armHandshake gives c the time of a handshake, less if there are many connections or draining
// ends before. The handshake does not make it active.
func (s *streams) armHandshake(c *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	until := time.Now().Add(s.patienceFor(s.opts.HandshakeTimeout))
	if end := c.listener.until; !end.IsZero() && end.Before(until) {
		until = end
	}
	return c.tcp.SetDeadline(until)
}

// patienceFor returns how long a client may take, of whom as much as usual is asked if there is
// room for others. The caller holds s.mu.
func (s *streams) patienceFor(usual time.Duration) time.Duration {
	if s.open.size >= s.opts.MaxConnections*3/4 {
		return usual / 10
	}
	return usual
}

// drain has the connections of l end at the given time.
func (s *streams) drain(l *listener, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.until = until
	for c := range s.open.all() {
		if c.listener == l {
			_ = c.tcp.SetReadDeadline(until) // fails only on a connection that has ended
		}
	}
}

// cut closes the connections of l. Who serves them drops them.
func (s *streams) cut(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open.all() {
		if c.listener == l {
			_ = c.tcp.Close()
		}
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

// shakeHands puts TLS between c and what is answered, and reports whether that went well.
func (c *stream) shakeHands() bool {
	all := c.listener.streams
	if all.armHandshake(c) != nil {
		return false
	}
	w := &wire{TCPConn: c.tcp, stream: c, computing: true}
	all.turns.begin(c.client)
	conn := tls.Server(w, c.listener.config)
	err := conn.Handshake()
	w.computing = false
	all.turns.end()
	if err != nil {
		c.listener.handshakes.Add(1)
		return false
	}
	c.Conn = conn
	return c.tcp.SetDeadline(time.Time{}) == nil
}

// wire is a connection as TLS and HTTP see it.
type wire struct {
	*net.TCPConn
	stream    *stream
	computing bool // in a handshake, and in turn
}

// Read gives the turn in a handshake to others while there is nothing to read.
func (w *wire) Read(b []byte) (int, error) {
	if !w.computing {
		return w.TCPConn.Read(b)
	}
	turns := &w.stream.listener.streams.turns
	turns.end()
	defer turns.begin(w.stream.client)
	return w.TCPConn.Read(b)
}

// Close implements net.Conn.
func (w *wire) Close() error {
	w.stream.drop()
	return nil
}

// turns bounds how many handshakes and requests over HTTP compute at once, which take far longer
// than other queries, so that a flood of them leaves CPUs to these. Clients take turns: one that
// starts many delays its own alone.
type turns struct {
	mu      sync.Mutex
	taken   int
	max     int
	clients map[netip.Addr]*list.Element // of those who wait, in order
	order   list.List                    // of *queue, whose turn is next first; none is empty
}

// queue is what of a client waits for a turn.
type queue struct {
	client netip.Addr
	turns  []chan struct{} // closed when it is their turn
}

// begin waits for a turn.
func (t *turns) begin(client netip.Addr) {
	t.mu.Lock()
	if t.taken < t.max {
		t.taken++
		t.mu.Unlock()
		return
	}
	at := t.clients[client]
	if at == nil {
		at = t.order.PushBack(&queue{client: client})
		if t.clients == nil {
			t.clients = map[netip.Addr]*list.Element{}
		}
		t.clients[client] = at
	}
	turn := make(chan struct{})
	q := at.Value.(*queue)
	q.turns = append(q.turns, turn)
	t.mu.Unlock()
	<-turn
}

// end passes a turn on.
func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.order.Front()
	if at == nil {
		t.taken--
		return
	}
	q := at.Value.(*queue)
	close(q.turns[0])
	if q.turns = q.turns[1:]; len(q.turns) > 0 {
		t.order.MoveToBack(at)
		return
	}
	t.order.Remove(at)
	delete(t.clients, q.client)
}
