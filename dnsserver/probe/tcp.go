package probe

import (
	"context"
	"errors"
	"net/netip"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// tcpProbe is up if the port accepts a connection. It sends nothing.
type tcpProbe struct {
	dialer *dialer
	port   uint16
}

func newTCP(cfg *steeringpb.Tcp, env Env) (*tcpProbe, error) {
	port, err := portOf(cfg.GetPort())
	if err != nil {
		return nil, err
	}
	return &tcpProbe{newDialer(env), port}, nil
}

func (p *tcpProbe) ask(ctx context.Context, target netip.Addr) Result {
	c, err := p.dialer.dial(ctx, "tcp", target, p.port)
	if err != nil {
		return notConnected(err)
	}
	_ = c.Close()
	return up()
}

func portOf(n uint32) (uint16, error) {
	if n == 0 || n > 65535 {
		return 0, errors.New("a port is 1 to 65535")
	}
	return uint16(n), nil
}
