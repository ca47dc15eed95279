package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// errDenied is what a dial of an address that probes must not reach ends with.
var errDenied = errors.New("denied")

// dialer dials targets, and only those that probes may reach.
type dialer struct {
	net.Dialer
}

func newDialer(env Env) *dialer {
	d := &dialer{}
	d.KeepAlive = -1 // connections are shorter than that
	d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil || env.Denied(a.Addr().Unmap()) {
			return errDenied
		}
		return nil
	}
	return d
}

// conn is a connection to a target. It breaks when the ctx that it was dialed with ends.
type conn struct {
	net.Conn
	stop func() bool
}

func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// dial connects over "tcp" or "udp".
func (d *dialer) dial(ctx context.Context, network string, target netip.Addr, port uint16) (*conn, error) {
	c, err := d.DialContext(ctx, network, netip.AddrPortFrom(target, port).String())
	if err != nil {
		return nil, err
	}
	return &conn{c, context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })}, nil
}

// again is how many times a probe over datagrams asks, in equal parts of its time: one lost packet says nothing.
const again = 3

// insist sends again and again until an answer was received, or time is up. What is received is answers and others.
func insist(ctx context.Context, c interface{ SetReadDeadline(time.Time) error }, send func() error, receive func() (answer bool, err error)) error {
	deadline, _ := ctx.Deadline()
	part := time.Until(deadline) / again
	for n := again - 1; ; n-- {
		if err := send(); err != nil {
			return err
		}
		if err := c.SetReadDeadline(deadline.Add(-time.Duration(n) * part)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil { // if it ends later, then that breaks the connection
			return err
		}
		for {
			answer, err := receive()
			var timeout net.Error
			switch {
			case answer:
				return nil
			case err == nil:
				continue
			case n == 0 || ctx.Err() != nil || !errors.As(err, &timeout) || !timeout.Timeout():
				return err
			}
			break
		}
	}
}

// notConnected is the result of a probe whose dial failed.
func notConnected(err error) Result {
	return failure(err, down(Silent, "no answer"), "not reachable")
}

// notAnswered is the result of a probe whose connection failed before the answer was complete. nonsense are the words for
// what is no answer at all.
func notAnswered(err error, nonsense string) Result {
	late := down(Timeout, "connected, but no answer")
	return failure(err, late, nonsense)
}

// failure puts an error in words that have nothing of the target. late is the result when time is up; the prober adds how
// long that is. Errors that are none of the system and of TLS are other.
func failure(err error, late Result, other string) Result {
	var timeout net.Error
	var errno syscall.Errno
	var record tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case errors.Is(err, errDenied):
		return unknown(Denied, "denied by the datacenter's probes.deniedNetworks")
	case errors.Is(err, errNoPing):
		return unknown(NotPermitted, "ICMP not permitted (net.ipv4.ping_group_range)")
	case errors.Is(err, errNoSecret):
		return unknown(NoSecret, "the client certificate's Secret is missing or not usable here")
	case errors.Is(err, context.Canceled):
		return unknown(Canceled, "called off")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return late
	case errors.As(err, &errno):
		return systemFailure(errno)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return down(Closed, "connection closed before the answer")
	case errors.As(err, &record):
		return down(Protocol, "the answer is not TLS")
	case errors.As(err, &alert) && alert.Op == "remote error" && alert.Err != nil: // words for a number, by crypto/tls
		return down(Handshake, "TLS alert: "+strings.TrimPrefix(alert.Err.Error(), "tls: "))
	}
	if r, ok := certificateFailure(err); ok {
		return r
	}
	return down(Protocol, other)
}

// systemFailure is what the system said when it was asked to talk to the target.
func systemFailure(errno syscall.Errno) Result {
	switch errno {
	case syscall.ECONNREFUSED:
		return down(Refused, "connection refused")
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return down(Closed, "connection reset")
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN:
		return down(Unreachable, "no route to host")
	case syscall.ENETUNREACH, syscall.ENETDOWN:
		return down(Unreachable, "network is unreachable")
	case syscall.EACCES: // also ICMPv6: administratively prohibited
		return down(Unreachable, "prohibited by a firewall or route")
	case syscall.EPERM:
		return unknown(NotPermitted, "not permitted by this server's firewall")
	case syscall.EMFILE, syscall.ENFILE:
		return unknown(Exhausted, "this server is out of file descriptors")
	case syscall.EADDRNOTAVAIL, syscall.EADDRINUSE:
		return unknown(Exhausted, "this server is out of ports, or has no address to ask from")
	case syscall.ENOMEM, syscall.ENOBUFS:
		return unknown(Exhausted, "this server is out of memory for connections")
	case syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT:
		return unknown(NotPermitted, "this server has no such kind of address")
	default:
		return down(Unreachable, "not reachable ("+errno.Error()+")")
	}
}

// certificateFailure is why the verification of a target's certificate failed, if that is what err says.
func certificateFailure(err error) (Result, bool) {
	var invalid x509.CertificateInvalidError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var failed *tls.CertificateVerificationError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if invalid.Cert != nil && time.Now().Before(invalid.Cert.NotBefore) {
			return down(Certificate, "certificate not yet valid"), true
		}
		return down(Certificate, "certificate expired"), true
	case errors.As(err, &authority):
		return down(Certificate, "certificate signed by an unknown authority"), true
	case errors.As(err, &name):
		return down(Certificate, "certificate is not for "+name.Host), true // as asked for
	case errors.As(err, &invalid), errors.As(err, &failed):
		return down(Certificate, "certificate is not valid for this use"), true
	}
	return Result{}, false
}
