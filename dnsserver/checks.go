package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// checks is what others ask about a server's state, to send clients to it or to start it anew.
type checks struct {
	server *Server
	view   *zone.View
	from   source

	mu sync.Mutex
	// answered are the zones that the server has answered for when it was asked by itself.
	answered map[zone.Name]bool

	replies atomic.Uint64 // that were sent until live was asked last
}

func newChecks(server *Server, view *zone.View, from source) *checks {
	return &checks{server: server, view: view, from: from, answered: map[zone.Name]bool{}}
}

// ready: the server serves, and goes on doing so.
func (c *checks) ready(ctx context.Context) error {
	if c.server.leaving.Load() || c.server.draining.Load() {
		return errors.New("shutting down")
	}
	return c.serving(ctx)
}

// serving: all zones are there, and the server has answered for each of them over its own sockets, once; and now does so
// for one of them, another each time, at every address. What was not asked in ctx's time is asked the next time.
func (c *checks) serving(ctx context.Context) error {
	switch {
	case c.server.parting.Load() || c.server.draining.Load():
		return errors.New("shutting down")
	case !c.view.Ready():
		return errors.New("no zones were received yet")
	}
	if err := c.from.ready(); err != nil {
		return err
	}
	var sample *zone.Served
	if !c.view.Muted() { // else any reply will do
		if err := c.askNew(ctx); err != nil {
			return err
		}
		for sample = range c.view.Zones() {
			break // maps yield in random order
		}
	}
	return c.server.Probe(ctx, sample)
}

// askNew asks for each zone that was never asked for, at one address: what is behind all of them is the same.
func (c *checks) askNew(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var conn net.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	for z := range c.view.Zones() {
		if c.answered[z.Apex()] {
			continue
		}
		var err error
		if conn == nil {
			conn, err = dialServer(ctx, c.server.addresses[0])
		}
		if err == nil {
			err = askSOA(conn, z)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("asked for %d of %d zones so far", len(c.answered), c.view.Len())
		case err != nil:
			return fmt.Errorf("asking %s: %w", c.server.addresses[0], err)
		}
		c.answered[z.Apex()] = true
	}
	if len(c.answered) > 2*c.view.Len() { // of zones that were removed
		for apex := range c.answered {
			if c.view.Zone(apex) == nil {
				delete(c.answered, apex)
			}
		}
	}
	return nil
}

// live: somebody got a reply since the last time, or the server gets one itself. A flood that leaves no room for the
// question is no reason to start anew.
func (c *checks) live(ctx context.Context) error {
	if now := c.server.replies(); now != c.replies.Swap(now) {
		return nil
	}
	return c.server.Probe(ctx, nil)
}
