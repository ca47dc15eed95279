package resolver

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// path is from where to where questions go. from may be the zero Addr: the kernel chooses.
type path struct {
	from netip.Addr
	to   netip.AddrPort
}

// exchange asks servers, many questions at a time over one socket for each path, and knows who answers. It is for
// concurrent use.
type exchange struct {
	mu      sync.Mutex
	sockets map[path]*socket
	servers map[netip.Addr]*contact
}

// contact is what is known of a server that was asked.
type contact struct {
	rtt      time.Duration // of the last answers, smoothed; 0: none
	answered time.Time     // last; zero: never
	waiting  time.Time     // since when nothing has answered; zero: nothing is awaited
}

// socket is a connected one, until nothing is asked over it for idleSocket.
type socket struct {
	conn    *net.UDPConn
	mu      sync.Mutex
	waiting map[uint16]*waiter // by message ID; nil: it is closed
}

// waiter is one question on its way.
type waiter struct {
	question dns.Question
	sent     time.Time
	reply    chan *dns.Msg // one element; nil: the server refuses packets
}

const idleSocket = 10 * time.Second // the next one has another port

func newExchange() *exchange {
	return &exchange{sockets: map[path]*socket{}, servers: map[netip.Addr]*contact{}}
}

var errUnreachable = errors.New("the server refuses packets")

// ask sends a question over UDP, again over TCP if the answer is cut off. A lost packet is sent again once, when half the
// time that ctx leaves is over.
func (x *exchange) ask(ctx context.Context, p path, m *dns.Msg) (*dns.Msg, error) {
	half := time.NewTimer(authorityTimeout / 2)
	defer half.Stop()
	if deadline, ok := ctx.Deadline(); ok {
		half.Reset(time.Until(deadline) / 2)
	}
	w := &waiter{question: m.Question[0], sent: time.Now(), reply: make(chan *dns.Msg, 1)}
	s, err := x.send(p, w, m)
	if err != nil {
		return nil, err
	}
	defer func() { s.forget(m.Id) }()
	for {
		select {
		case reply := <-w.reply:
			switch {
			case reply == nil:
				return nil, errUnreachable
			case reply.Truncated:
				return ask(ctx, p.from, p.to, m)
			}
			return reply, nil
		case <-half.C:
			s.forget(m.Id)
			if s, err = x.send(p, w, m); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// send sends a question whose answer w waits for. It chooses the message's ID.
func (x *exchange) send(p path, w *waiter, m *dns.Msg) (*socket, error) {
	x.mu.Lock()
	c := x.contact(p.to.Addr())
	if c.waiting.IsZero() {
		c.waiting = time.Now()
	}
	s := x.sockets[p]
	x.mu.Unlock()
	if s == nil || !s.await(w, m) {
		var err error
		if s, err = x.open(p); err != nil {
			return nil, err
		}
		if !s.await(w, m) {
			return nil, errUnreachable
		}
	}
	packet, err := m.Pack()
	if err != nil {
		s.forget(m.Id)
		return nil, err
	}
	// An error is that of a packet before: an answer to this one may come.
	_, _ = s.conn.Write(packet)
	return s, nil
}

// contact is that of a server. x.mu is held.
func (x *exchange) contact(server netip.Addr) *contact {
	c := x.servers[server]
	if c == nil {
		c = &contact{}
		x.servers[server] = c
	}
	return c
}

// open makes a socket for a path, in the place of one that was closed.
func (x *exchange) open(p path) (*socket, error) {
	var from *net.UDPAddr
	if p.from.IsValid() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.from, 0))
	}
	conn, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(p.to))
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, waiting: map[uint16]*waiter{}}
	x.mu.Lock()
	x.sockets[p] = s
	x.mu.Unlock()
	go x.read(p, s)
	return s, nil
}

// await has w get the answer to m, under a new ID. It reports false if the socket is closed.
func (s *socket) await(w *waiter, m *dns.Msg) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == nil || len(s.waiting) > 1<<15 {
		return false
	}
	for {
		m.Id = uint16(rand.Uint32())
		if s.waiting[m.Id] == nil {
			s.waiting[m.Id] = w
			return true
		}
	}
}

func (s *socket) forget(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
}

// read gives answers to those who wait, until nobody has asked for a while.
func (x *exchange) read(p path, s *socket) {
	defer s.conn.Close()
	packet := make([]byte, dns.MaxMsgSize)
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(idleSocket))
		n, err := s.conn.Read(packet)
		switch timeout := net.Error(nil); {
		case errors.As(err, &timeout) && timeout.Timeout():
			if s.close(x, p) {
				return
			}
			continue
		case err != nil: // ICMP: nobody listens there
			s.refuse()
			continue
		}
		m := new(dns.Msg)
		if m.Unpack(packet[:n]) != nil || !m.Response || len(m.Question) != 1 {
			continue
		}
		s.mu.Lock()
		w := s.waiting[m.Id]
		if w != nil && m.Question[0].Qtype == w.question.Qtype && strings.EqualFold(m.Question[0].Name, w.question.Name) {
			delete(s.waiting, m.Id)
		} else {
			w = nil
		}
		s.mu.Unlock()
		if w == nil {
			continue
		}
		x.heard(p.to.Addr(), time.Since(w.sent))
		w.tell(m)
	}
}

// tell gives an answer; who has one already does not need it.
func (w *waiter) tell(m *dns.Msg) {
	select {
	case w.reply <- m:
	default:
	}
}

// close closes the socket if nobody waits.
func (s *socket) close(x *exchange, p path) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 {
		return false
	}
	s.waiting = nil
	if x.sockets[p] == s {
		delete(x.sockets, p)
	}
	return true
}

// refuse tells those who wait that the server does not answer.
func (s *socket) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.waiting {
		delete(s.waiting, id)
		w.tell(nil)
	}
}

// heard notes an answer.
func (x *exchange) heard(server netip.Addr, took time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.contact(server)
	c.answered, c.waiting = time.Now(), time.Time{}
	if c.rtt == 0 {
		c.rtt = took
	}
	c.rtt += (took - c.rtt) / 8
}

// Bounds of how long one waits for others when one server has answered.
const (
	leastGrace  = 100 * time.Millisecond
	mostGrace   = authorityTimeout
	silentAfter = 400 * time.Millisecond // without an answer a server is not waited for
)

// grace is how long a server may take when another one has answered; 0 if it has been silent.
func (x *exchange) grace(server netip.Addr) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.contact(server)
	if !c.waiting.IsZero() && time.Since(c.waiting) > max(silentAfter, 4*c.rtt) {
		return 0
	}
	return min(max(4*c.rtt, leastGrace), mostGrace)
}

// distance is the time that a server takes to answer; that of one that was never heard is the greatest.
func (x *exchange) distance(server netip.Addr) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	return cmp.Or(x.contact(server).rtt, mostGrace)
}

// answeredSince reports whether a server has answered after a time.
func (x *exchange) answeredSince(server netip.Addr, since time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.servers[server]
	return c != nil && c.answered.After(since)
}

// forgetBut drops what is known of servers that nobody asks any more.
func (x *exchange) forgetBut(but map[netip.Addr]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for server := range x.servers {
		if !but[server] {
			delete(x.servers, server)
		}
	}
}
