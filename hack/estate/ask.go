//go:build linux

package estate

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// Asker asks one server by UDP. It is for one goroutine.
type Asker struct {
	// Recursion asks as clients of resolvers do (RFC 1035 §4.1.1: RD), and not as resolvers.
	Recursion bool
	// Timeout is how long an answer is waited for; 0: a second.
	Timeout time.Duration

	conn *dns.Conn
}

// udpSize is the largest answer that is asked for, in octets.
const udpSize = 1232

// answerTimeout is how long a server on this machine may take.
const answerTimeout = time.Second

// NewAsker asks what listens at the address, whether or not anything does yet.
func NewAsker(at netip.AddrPort) (*Asker, error) { return NewAskerFrom(netip.Addr{}, at) }

// NewAskerFrom is NewAsker for a client at an address of this machine; the zero Addr leaves the choice to the system.
func NewAskerFrom(client netip.Addr, at netip.AddrPort) (*Asker, error) {
	var d net.Dialer
	if client.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, 0))
	}
	conn, err := d.Dial("udp", at.String())
	if err != nil {
		return nil, err
	}
	return &Asker{conn: &dns.Conn{Conn: conn, UDPSize: udpSize}}, nil
}

// Close closes the socket.
func (a *Asker) Close() { a.conn.Close() }

// Ask returns the server's answer, of whatever code.
func (a *Asker) Ask(name string, rrtype uint16) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), rrtype)
	query.RecursionDesired = a.Recursion
	query.SetEdns0(udpSize, false)
	if err := a.conn.SetDeadline(time.Now().Add(cmp.Or(a.Timeout, answerTimeout))); err != nil {
		return nil, err
	}
	if err := a.conn.WriteMsg(query); err != nil {
		return nil, err
	}
	for {
		reply, err := a.conn.ReadMsg()
		if err != nil || reply.Id == query.Id { // others are late answers to earlier questions
			return reply, err
		}
	}
}

// Await asks an address every millisecond until the answer is as expected, and returns when that came.
func Await(ctx context.Context, at netip.AddrPort, name string, rrtype uint16, expected func(*dns.Msg) bool) (time.Time, error) {
	a, err := NewAsker(at)
	if err != nil {
		return time.Time{}, err
	}
	defer a.Close()
	return a.Await(ctx, name, rrtype, expected)
}

// Await asks every millisecond until the answer is as expected, and returns when that came.
func (a *Asker) Await(ctx context.Context, name string, rrtype uint16, expected func(*dns.Msg) bool) (time.Time, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if reply, err := a.Ask(name, rrtype); err == nil && expected(reply) {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s does not give the expected answer for %s %s: %w", a.conn.RemoteAddr(), name, dns.TypeToString[rrtype], context.Cause(ctx))
		case <-tick.C:
		}
	}
}
