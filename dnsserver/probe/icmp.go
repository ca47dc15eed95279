package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"net"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// icmpProbe is up if the target answers an echo request. It uses sockets that need no privilege, only that the system
// lets the server's group have them (net.ipv4.ping_group_range, for IPv6 too).
type icmpProbe struct {
	denied func(netip.Addr) bool
}

func newICMP(env Env) *icmpProbe { return &icmpProbe{env.Denied} }

func (p *icmpProbe) ask(ctx context.Context, target netip.Addr) Result {
	if p.denied(target) {
		return notConnected(errDenied)
	}
	if err := ping(ctx, target); err != nil {
		return notConnected(err)
	}
	return up()
}

// errNoPing is what a ping ends with that the system does not permit.
var errNoPing = errors.New("ICMP not permitted")

// protocolICMP and protocolICMP6 are IANA's numbers.
const (
	protocolICMP  = 1
	protocolICMP6 = 58
)

// ping returns when the target has answered an echo request. The error is errNoPing if this server may not ask.
func ping(ctx context.Context, target netip.Addr) error {
	network, local, request := "udp4", "0.0.0.0", icmp.Message{Type: ipv4.ICMPTypeEcho}
	if target.Is6() {
		network, local, request = "udp6", "::", icmp.Message{Type: ipv6.ICMPTypeEchoRequest}
	}
	c, err := icmp.ListenPacket(network, local)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return errNoPing
	case err != nil:
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })()

	echo := &icmp.Echo{Data: make([]byte, 16)} // the system puts in the ID and keeps sockets apart by it
	if _, err := rand.Read(echo.Data); err != nil {
		return err
	}
	request.Body = echo
	packet, err := request.Marshal(nil)
	if err != nil {
		return err
	}
	to := &net.UDPAddr{IP: target.AsSlice(), Zone: target.Zone()}
	buffer := make([]byte, 512)
	return insist(ctx, c, func() error {
		_, err := c.WriteTo(packet, to)
		return err
	}, func() (bool, error) {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			return false, err
		}
		sender, ok := from.(*net.UDPAddr)
		return ok && isEcho(buffer[:n], sender.AddrPort().Addr(), target, echo.Data), nil
	})
}

// isEcho reports whether a message answers the echo request with the data to the target.
func isEcho(message []byte, from, target netip.Addr, data []byte) bool {
	protocol, kind := protocolICMP, icmp.Type(ipv4.ICMPTypeEchoReply)
	if target.Is6() {
		protocol, kind = protocolICMP6, ipv6.ICMPTypeEchoReply
	}
	m, err := icmp.ParseMessage(protocol, message)
	if err != nil || m.Type != kind || from.Unmap().WithZone("") != target.WithZone("") {
		return false
	}
	echo, ok := m.Body.(*icmp.Echo)
	return ok && bytes.Equal(echo.Data, data)
}
