package dnsserver

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/limit"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Options configure a Server. Zero values stand for the defaults given.
type Options struct {
	// Addresses to answer on, each over UDP and TCP; at least one. Port 0 takes a free one,
	// the same for both.
	Addresses []netip.AddrPort
	// Settings are those at the start, see Server.Configure. An unspecified address in their
	// Transports stands for all of its family in Addresses.
	Settings
	// Identity is what the server calls itself where NSID is switched on, up to zone.MaxNSID octets.
	Identity string
	// Certificate is what clients are shown over TLS, called for every connection, concurrently;
	// nil if there is none: then there is neither DNS over TLS nor over HTTPS.
	Certificate func() (*tls.Certificate, error)
	View        *zone.View
	Log         logr.Logger

	// Workers is the number of threads that answer over UDP, each on one socket of every address,
	// among which the kernel divides clients; default: as many as there are CPUs to use. With
	// very many addresses each has fewer sockets. Where the kernel can't divide clients, each
	// address has one worker.
	Workers int

	// MaxConnections bounds open connections in all, over every transport, default 10,000: for one
	// more, that of the clients with most which was idle for longest is closed.
	// MaxClientConnections bounds those from one address, default 1,000: more are closed at once.
	MaxConnections       int
	MaxClientConnections int

	// IdleTimeout is how long a connection may take to bring the next whole query, default
	// DefaultIdleTimeout; over TCP and TLS a tenth of that while three quarters of MaxConnections
	// are open.
	IdleTimeout time.Duration

	// HandshakeTimeout is how long a client may take to agree on TLS, default 5 s; as with
	// IdleTimeout less while many connections are open.
	HandshakeTimeout time.Duration

	// WriteTimeout is how long a client may take to accept replies over connections, default 5 s.
	WriteTimeout time.Duration

	// Drain is for how long queries are still answered after the end of Serve's context: what
	// was under way, or in the kernel, gets its reply. Default 100 ms.
	Drain time.Duration

	// taps show some of the queries to others.
	taps []tap

	// udp chooses how to answer over UDP, default what is best on this system.
	udp func(workers, addresses int) udpPath
}

// DefaultIdleTimeout is of the order that RFC 7766 §6.2.3 recommends.
const DefaultIdleTimeout = 10 * time.Second

func (o Options) orDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 10000
	}
	if o.MaxClientConnections <= 0 {
		o.MaxClientConnections = 1000
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = DefaultIdleTimeout
	}
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = 5 * time.Second
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 5 * time.Second
	}
	if o.Drain <= 0 {
		o.Drain = 100 * time.Millisecond
	}
	if o.udp == nil {
		o.udp = defaultUDP
	}
	return o
}

// Server answers DNS over UDP and, as Transports say, over connections.
type Server struct {
	opts      Options
	addresses []netip.AddrPort
	udp       udpPath
	udpCounts []*counters // of each worker
	udpWork   []udpWorker
	listeners listeners
	streams   streams
	answering answering
	draining  atomic.Bool
	leaving   atomic.Bool // it answers on, and is to be sent no more clients
	parting   atomic.Bool // nor those that had been sent to it before

	ownSecret   [16]byte        // of cookies, where the group has none
	configuring sync.Mutex      // for Configure, and accounts
	accounts    *limit.Accounts // nil until there are limits
}

// Listen binds all sockets, or none: an address that is in use is an error.
func Listen(opts Options) (*Server, error) {
	opts = opts.orDefaults()
	if len(opts.Addresses) == 0 {
		return nil, errors.New("no address to listen on")
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, udp: opts.udp(opts.Workers, len(opts.Addresses)),
		streams:   streams{opts: opts, turns: turns{max: max(1, opts.Workers/2)}},
		answering: answering{view: opts.View, started: time.Now(), panics: panics{log: opts.Log}, overLimit: overLimit{log: opts.Log}, taps: opts.taps},
	}
	_, _ = rand.Read(s.ownSecret[:]) // never fails
	s.apply(&opts.Settings)
	s.listeners = listeners{
		streams: &s.streams, panics: &s.answering.panics, log: opts.Log, drain: opts.Drain, certificate: opts.Certificate,
		open: map[place]*listener{}, failed: make(chan error, 1),
	}
	for over := range s.listeners.exchanges {
		way := zone.TCP
		if transport(over).protocols() != nil {
			way = zone.TLS
		}
		s.listeners.exchanges[over] = newExchanges(s, way, transport(over))
	}
	for _, address := range opts.Addresses {
		if err := s.bind(address); err != nil {
			s.close()
			return nil, fmt.Errorf("listening on %s: %w", address, cause(err))
		}
	}
	if err := s.listeners.set(opts.Transports); err != nil {
		s.close()
		return nil, err
	}
	s.udpWork = s.udp.workers(func() *responder {
		counts := &counters{}
		s.udpCounts = append(s.udpCounts, counts)
		return newResponder(&s.answering, zone.UDP, counts)
	})
	return s, nil
}

// cause strips what net adds to a system's error: the operation, and the address a second time.
func cause(err error) error {
	if call := (*os.SyscallError)(nil); errors.As(err, &call) {
		return call.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

func (s *Server) bind(address netip.AddrPort) error {
	// TCP first, even if it is not wanted: its sockets are not shared, so that another server's
	// address is never taken for one to share.
	l, err := s.listeners.listen(place{overTCP, address})
	if err != nil {
		return err
	}
	bound := netip.AddrPortFrom(address.Addr(), l.Addr().(*net.TCPAddr).AddrPort().Port())
	s.listeners.dns = append(s.listeners.dns, bound)
	s.listeners.open[place{overTCP, bound}] = l
	if err := s.udp.bind(bound); err != nil {
		return err
	}
	s.addresses = append(s.addresses, bound)
	return nil
}

// Addresses returns what the server listens on, with the ports that were chosen.
func (s *Server) Addresses() []netip.AddrPort { return s.addresses }

// Serve answers until ctx ends, and then what has come by then; it returns nil. Any other
// end of a socket is an error, which ends all others too.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	failed := make(chan error, len(s.udpWork)+1)
	for _, w := range s.udpWork {
		workers.Go(func() { failed <- w.serve(); cancel() })
	}
	s.listeners.startAll()
	select {
	case <-ctx.Done():
	case err := <-s.listeners.failed:
		failed <- err
	}
	s.drain()
	workers.Wait()
	s.listeners.running.Wait()
	s.streams.running.Wait()
	s.udp.close()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// drain makes all workers end when what has come is answered.
func (s *Server) drain() {
	until := time.Now().Add(s.opts.Drain)
	s.draining.Store(true)
	for _, w := range s.udpWork {
		w.drain(until)
	}
	s.listeners.stopAll(until)
}

// close ends a server that never served.
func (s *Server) close() {
	s.listeners.close()
	s.udp.close()
}

// Probe asks the server for the SOA of the zone, or if there is none of any name, over every
// UDP address as a client would. The reply must be authoritative if there is a zone.
func (s *Server) Probe(ctx context.Context, z *zone.Served) error {
	for _, address := range s.addresses {
		conn, err := dialServer(ctx, address)
		if err == nil {
			err = askSOA(conn, z)
			_ = conn.Close()
		}
		if err != nil {
			return fmt.Errorf("asking %s: %w", address, err)
		}
	}
	return nil
}

// replies is how many replies the server has sent over UDP.
func (s *Server) replies() (n uint64) {
	for rcode := range maxRcode + 1 {
		n += sum(s.udpCounts, func(c *counters) *atomic.Uint64 { return &c.messages[rcode] })
	}
	return n
}

// dialServer returns a socket that is connected to an address that this server listens on. It lives as long as ctx allows.
func dialServer(ctx context.Context, address netip.AddrPort) (net.Conn, error) {
	if a := address.Addr(); a.IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if a.Is6() {
			loopback = netip.IPv6Loopback()
		}
		address = netip.AddrPortFrom(loopback, address.Port())
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address.String())
	if err != nil {
		return nil, cause(err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// askSOA asks for the SOA of z, or if that is nil of any name: then every reply will do.
func askSOA(conn net.Conn, z *zone.Served) error {
	name := zone.Root
	if z != nil {
		name = z.Apex()
	}
	query := append([]byte{0x46, 0x50, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, name...)
	query = append(query, 0, byte(zone.TypeSOA), 0, 1)
	if _, err := conn.Write(query); err != nil {
		return cause(err)
	}
	reply := make([]byte, zone.MaxUDP)
	n, err := conn.Read(reply)
	if err != nil {
		return cause(err)
	}
	const authoritativeReply = 0x84
	if z != nil && (n < 12 || reply[2] != authoritativeReply || reply[3] != 0 || reply[7] == 0) {
		return fmt.Errorf("zone %s: the reply is no authoritative answer", z.Apex())
	}
	return nil
}
