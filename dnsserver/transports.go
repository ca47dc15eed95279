package dnsserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// transport is a way in which queries come over connections.
type transport uint8

const (
	overTCP     transport = iota
	overDoT               // RFC 7858
	overDoH               // RFC 8484; connections to it may bring HTTPDNS too
	overHTTPDNS           // in clear text
	transports
)

func (t transport) String() string {
	return [transports]string{"tcp", "dot", "doh", "httpdns"}[t]
}

// title is what people call it.
func (t transport) title() string {
	return [transports]string{"TCP", "DNS over TLS", "DNS over HTTPS", "HTTPDNS"}[t]
}

// protocols are what is negotiated under TLS, none for clear text.
func (t transport) protocols() []string {
	switch t {
	case overDoT:
		return []string{"dot"}
	case overDoH:
		return []string{"h2", "http/1.1"}
	default:
		return nil
	}
}

// network is the address family's variant of "udp" or "tcp": IPv6 sockets take no IPv4.
func network(protocol string, address netip.AddrPort) string {
	if address.Addr().Is4() {
		return protocol + "4"
	}
	return protocol + "6"
}

// listenTCP binds an address. Idle connections are ended by the server's own timeout: the kernel is not asked to look after
// them, which takes four system calls for each.
func listenTCP(address netip.AddrPort) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1}
	l, err := lc.Listen(context.Background(), network("tcp", address), address.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// listener takes the connections to one address.
type listener struct {
	*net.TCPListener
	over       transport
	streams    *streams
	exchanges  *exchanges
	config     *tls.Config   // nil for clear text
	serve      func(*stream) // until its end, or hands it over to who drops it
	web        *web          // of DoH and HTTPDNS
	failures   *atomic.Uint64
	handshakes *atomic.Uint64 // that failed

	closing atomic.Bool
	ended   chan struct{} // closed when no more connections come
	until   time.Time     // end of draining, zero before; guarded by streams.mu
}

// run takes connections until stop, then it returns nil.
func (l *listener) run() error {
	const shortest, longest = 5 * time.Millisecond, time.Second
	defer close(l.ended)
	pause := shortest
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			pause = shortest
			l.streams.take(conn, l)
		case l.closing.Load():
			l.sweep()
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			l.failures.Add(1)
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

// stop ends run. Connections that came before are served until the given time.
func (l *listener) stop(until time.Time) {
	l.streams.drain(l, until)
	if l.web != nil {
		l.web.drain(until)
	}
	l.closing.Store(true)
	_ = l.SetDeadline(time.Unix(1, 0)) // wakes it up
}

// sweep takes what the kernel has in its queue, and closes: to clients these connections are open.
func (l *listener) sweep() {
	const longest = time.Second // while they keep coming
	defer l.Close()
	wait := time.Millisecond
	for end := time.Now().Add(longest); time.Now().Before(end); {
		if l.SetDeadline(time.Now().Add(wait)) != nil {
			return
		}
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			l.streams.take(conn, l)
		case errors.Is(err, os.ErrDeadlineExceeded) && queued(l.TCPListener):
			wait *= 2 // this thread had no CPU for so long
		default:
			return
		}
	}
}

// exchange is what answering takes while there is something to answer.
type exchange struct {
	responder *responder
	reply     [zone.MaxMessage]byte
}

// exchanges are those of one transport, for whoever has something to answer.
type exchanges struct {
	pool   sync.Pool // of *exchange
	counts *counters
}

func newExchanges(s *Server, over zone.Transport, via transport) *exchanges {
	x := &exchanges{counts: &counters{}}
	x.pool.New = func() any {
		r := newResponder(&s.answering, over, x.counts)
		r.via = via
		return &exchange{responder: r}
	}
	return x
}

func (x *exchanges) get() *exchange  { return x.pool.Get().(*exchange) }
func (x *exchanges) put(e *exchange) { x.pool.Put(e) }

// place is where a listener was asked for; its port may be 0.
type place struct {
	over    transport
	address netip.AddrPort
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.over, b.over), a.address.Compare(b.address))
}

// listeners are all that take connections. Which there are may change at any time.
type listeners struct {
	streams    *streams
	exchanges  [transports]*exchanges
	handshakes [transports]atomic.Uint64
	panics     *panics
	log        logr.Logger
	drain      time.Duration
	dns        []netip.AddrPort // what is answered over UDP
	// certificate is for TLS; nil if there is none.
	certificate func() (*tls.Certificate, error)

	mu      sync.Mutex
	open    map[place]*listener
	running sync.WaitGroup
	started bool
	stopped bool
	failed  chan error // the first listener that ended by itself
}

// set has connections taken as t says and nowhere else. What stays goes on as it is. What can't be
// opened is an error, and does not keep the rest from being as t says.
func (ls *listeners) set(t Transports) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.stopped {
		return nil
	}
	want, errs := ls.places(t)
	until := time.Now().Add(ls.drain)
	for _, at := range slices.SortedFunc(maps.Keys(ls.open), comparePlaces) {
		if _, stays := want[at]; stays {
			continue
		}
		l := ls.open[at]
		delete(ls.open, at)
		if !ls.started {
			_ = l.Close()
			continue
		}
		ls.log.Info("taking no more connections", "transport", at.over.String(), "address", l.Addr().String())
		l.stop(until)
		<-l.ended // the address may be wanted for something else
	}
	for _, at := range slices.SortedFunc(maps.Keys(want), comparePlaces) {
		l := ls.open[at]
		if l == nil {
			var err error
			if l, err = ls.listen(at); err != nil {
				errs = append(errs, fmt.Errorf("listening on %s for %s: %w", at.address, at.over.title(), cause(err)))
				continue
			}
			ls.open[at] = l
			if ls.started {
				ls.log.Info("taking connections", "transport", at.over.String(), "address", l.Addr().String())
				ls.start(l)
			}
		}
		if l.web != nil {
			l.web.resolves.Store(want[at])
		}
	}
	return errors.Join(errs...)
}

// places returns where there are to be listeners, and of those with HTTP whether they are for HTTPDNS.
func (ls *listeners) places(t Transports) (want map[place]bool, errs []error) {
	want = map[place]bool{}
	if !t.NoTCP {
		for _, a := range ls.dns {
			want[place{overTCP, a}] = false
		}
	}
	for over, asked := range map[transport][]netip.AddrPort{overDoT: t.DoT, overDoH: t.DoH, overHTTPDNS: t.HTTPDNS} {
		all := ls.expand(asked)
		if len(all) == 0 && len(asked) > 0 {
			errs = append(errs, fmt.Errorf("listening on %s for %s: this server answers on no address of that kind", asked[0], over.title()))
		}
		for _, a := range all {
			want[place{over, a}] = over == overHTTPDNS
		}
	}
	for at := range want {
		shared := place{overDoH, at.address}
		if _, both := want[shared]; both && at.over == overHTTPDNS {
			delete(want, at)
			want[shared] = true
		}
	}
	return want, errs
}

// expand puts in place of an unspecified address all of its family that the server answers on.
func (ls *listeners) expand(asked []netip.AddrPort) (all []netip.AddrPort) {
	for _, a := range asked {
		if !a.Addr().IsUnspecified() {
			all = append(all, a)
			continue
		}
		for _, own := range ls.dns {
			if own.Addr().Is4() == a.Addr().Is4() {
				all = append(all, netip.AddrPortFrom(own.Addr(), a.Port()))
			}
		}
	}
	return all
}

var errNoCertificate = errors.New("there is no certificate for TLS")

// listen opens a listener, which takes no connections yet.
func (ls *listeners) listen(at place) (*listener, error) {
	l := &listener{
		over: at.over, streams: ls.streams, exchanges: ls.exchanges[at.over], failures: &ls.exchanges[at.over].counts.failures,
		handshakes: &ls.handshakes[at.over], ended: make(chan struct{}),
	}
	if protocols := at.over.protocols(); protocols != nil {
		if ls.certificate == nil {
			return nil, errNoCertificate
		}
		l.config = serverTLS(ls.certificate, protocols)
	}
	var err error
	if l.TCPListener, err = listenTCP(at.address); err != nil {
		return nil, err
	}
	switch at.over {
	case overTCP, overDoT:
		l.serve = func(c *stream) {
			defer c.drop()
			c.answerAll()
		}
	default:
		l.web = newWeb(ls, l)
		l.serve = l.web.take
	}
	return l, nil
}

// serverTLS is TLS 1.2 or later with sessions that can be resumed (RFC 8446 §2.2), their keys being
// the listener's own and changed every day.
func serverTLS(certificate func() (*tls.Certificate, error), protocols []string) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  protocols,
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
		DynamicRecordSizingDisabled: true, // replies are whole in any case: fewer system calls
	}
}

// start has l take connections. The caller holds ls.mu.
func (ls *listeners) start(l *listener) {
	run := func(run func() error) {
		if err := run(); err != nil {
			select {
			case ls.failed <- fmt.Errorf("taking connections on %s for %s: %w", l.Addr(), l.over.title(), err):
			default: // one is enough to end all
			}
		}
	}
	ls.running.Go(func() { run(l.run) })
	if l.web != nil {
		ls.running.Go(func() { run(l.web.serve) })
	}
}

// startAll has connections taken.
func (ls *listeners) startAll() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.started = true
	for _, l := range ls.open {
		ls.start(l)
	}
}

// stopAll ends all listeners, for good; connections are served until the given time.
func (ls *listeners) stopAll(until time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.stopped = true
	for _, l := range ls.open {
		l.stop(until)
	}
}

// close closes listeners that were never started.
func (ls *listeners) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.open {
		_ = l.Close()
	}
}

// addresses returns where connections are taken, in order of transports and addresses.
func (ls *listeners) addresses() (all []place) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for at, l := range ls.open {
		a := l.Addr().(*net.TCPAddr).AddrPort()
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		all = append(all, place{at.over, a})
		if at.over == overDoH && l.web.resolves.Load() {
			all = append(all, place{overHTTPDNS, a})
		}
	}
	slices.SortFunc(all, comparePlaces)
	return all
}
