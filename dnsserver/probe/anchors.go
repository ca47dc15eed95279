package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// anchorPorts are asked beside ICMP: whoever refuses a connection is as reachable as who accepts it.
var anchorPorts = [...]uint16{443, 53}

// Anchors reports which of the addresses answer in any way before ctx, which must have a deadline, ends: an echo request,
// or a connection that is accepted or refused. They are of the estate's owner, so nothing is denied.
func Anchors(ctx context.Context, anchors []netip.Addr) []bool {
	reachable := make([]bool, len(anchors))
	var all sync.WaitGroup
	for i, a := range anchors {
		all.Go(func() { reachable[i] = anchor(ctx, a.Unmap()) })
	}
	all.Wait()
	return reachable
}

func anchor(ctx context.Context, address netip.Addr) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan bool, 1+len(anchorPorts))
	go func() { answers <- ping(ctx, address) == nil }()
	for _, port := range anchorPorts {
		go func() { answers <- speaks(ctx, address, port) }()
	}
	reachable := false
	for range cap(answers) { // also the slower ones, which end when one has answered
		if <-answers && !reachable {
			reachable = true
			cancel()
		}
	}
	return reachable
}

// speaks reports whether the address accepts or refuses a connection.
func speaks(ctx context.Context, address netip.Addr, port uint16) bool {
	d := net.Dialer{KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(address, port).String())
	if err == nil {
		_ = c.Close()
	}
	return err == nil || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
}
