//go:build linux

package estate

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// Asker asks one server by UDP. It is for one goroutine.
type Asker struct {
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
	return &Asker{&dns.Conn{Conn: conn, UDPSize: udpSize}}, nil
}

// Close closes the socket.
func (a *Asker) Close() { a.conn.Close() }

// Ask returns the server's answer, of whatever code.
func (a *Asker) Ask(name string, rrtype uint16) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), rrtype)
	query.RecursionDesired = false
	query.SetEdns0(udpSize, false)
	if err := a.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
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
	return AwaitFrom(ctx, netip.Addr{}, at, name, rrtype, expected)
}

// AwaitFrom is Await for a client at an address of this machine.
func AwaitFrom(ctx context.Context, client netip.Addr, at netip.AddrPort, name string, rrtype uint16, expected func(*dns.Msg) bool) (time.Time, error) {
	a, err := NewAskerFrom(client, at)
	if err != nil {
		return time.Time{}, err
	}
	defer a.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if reply, err := a.Ask(name, rrtype); err == nil && expected(reply) {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s does not give the expected answer for %s %s: %w", at, name, dns.TypeToString[rrtype], context.Cause(ctx))
		case <-tick.C:
		}
	}
}
