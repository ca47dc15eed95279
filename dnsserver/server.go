package dnsserver

import (
	"context"
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

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Options configure a Server. Zero values stand for the defaults given.
type Options struct {
	// Addresses to answer on, each over UDP and TCP; at least one. Port 0 takes a free one,
	// the same for both.
	Addresses []netip.AddrPort
	View      *zone.View
	Log       logr.Logger

	// Workers is the number of threads that answer over UDP, each on one socket of every address,
	// among which the kernel divides clients; default: as many as there are CPUs to use. With
	// very many addresses each has fewer sockets. Where the kernel can't divide clients, each
	// address has one worker.
	Workers int

	// MaxConnections bounds open TCP connections in all, default 10,000: for one more, that of
	// the clients with most which was idle for longest is closed. MaxClientConnections bounds
	// those from one address, default 1,000: more are closed at once.
	MaxConnections       int
	MaxClientConnections int

	// IdleTimeout is how long a TCP connection may take to bring the next whole query,
	// default DefaultIdleTimeout; a tenth of that while three quarters of MaxConnections are open.
	IdleTimeout time.Duration

	// WriteTimeout is how long a client may take to accept replies over TCP, default 5 s.
	WriteTimeout time.Duration

	// Drain is for how long queries are still answered after the end of Serve's context: what
	// was under way, or in the kernel, gets its reply. Default 100 ms.
	Drain time.Duration

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

// Server answers DNS over UDP and TCP.
type Server struct {
	opts      Options
	addresses []netip.AddrPort
	udp       udpPath
	udpCounts []*counters // of each worker
	udpWork   []udpWorker
	tcp       []*tcpListener
	streams   streams
	panics    *panics
	draining  atomic.Bool
}

// Listen binds all sockets, or none: an address that is in use is an error.
func Listen(opts Options) (*Server, error) {
	opts = opts.orDefaults()
	if len(opts.Addresses) == 0 {
		return nil, errors.New("no address to listen on")
	}
	s := &Server{
		opts: opts, panics: &panics{log: opts.Log}, udp: opts.udp(opts.Workers, len(opts.Addresses)),
		streams: streams{opts: opts},
	}
	for _, address := range opts.Addresses {
		if err := s.bind(address); err != nil {
			s.close()
			return nil, fmt.Errorf("listening on %s: %w", address, cause(err))
		}
	}
	s.udpWork = s.udp.workers(func() *responder {
		counts := &counters{}
		s.udpCounts = append(s.udpCounts, counts)
		return newResponder(opts.View, zone.UDP, counts, s.panics)
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
	// TCP first: its sockets are not shared, so that another server's address is never taken
	// for one to share.
	l, err := listenTCP(address)
	if err != nil {
		return err
	}
	streamCounts := &counters{}
	s.tcp = append(s.tcp, &tcpListener{
		TCPListener: l, streams: &s.streams, draining: &s.draining, counts: streamCounts,
		exchanges: sync.Pool{New: func() any {
			return &exchange{responder: newResponder(s.opts.View, zone.TCP, streamCounts, s.panics)}
		}},
	})
	bound := netip.AddrPortFrom(address.Addr(), l.Addr().(*net.TCPAddr).AddrPort().Port())
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
	failed := make(chan error, len(s.udpWork)+len(s.tcp))
	for _, w := range s.udpWork {
		workers.Go(func() { failed <- w.serve(); cancel() })
	}
	for _, l := range s.tcp {
		workers.Go(func() { failed <- l.serve(); cancel() })
	}
	<-ctx.Done()
	s.drain()
	workers.Wait()
	s.streams.running.Wait()
	s.close()
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
	for _, l := range s.tcp {
		_ = l.Close() // nobody can do anything about it
	}
	for _, w := range s.udpWork {
		w.drain(until)
	}
	s.streams.drain(until)
}

func (s *Server) close() {
	for _, l := range s.tcp {
		_ = l.Close()
	}
	s.udp.close()
}

// Probe asks the server for the SOA of the zone, or if there is none of any name, over every
// UDP address as a client would. The reply must be authoritative if there is a zone.
func (s *Server) Probe(ctx context.Context, z *zone.Served) error {
	for _, address := range s.addresses {
		if err := probe(ctx, address, z); err != nil {
			return fmt.Errorf("asking %s: %w", address, err)
		}
	}
	return nil
}

func probe(ctx context.Context, address netip.AddrPort, z *zone.Served) error {
	if a := address.Addr(); a.IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if a.Is6() {
			loopback = netip.IPv6Loopback()
		}
		address = netip.AddrPortFrom(loopback, address.Port())
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address.String())
	if err != nil {
		return cause(err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
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
