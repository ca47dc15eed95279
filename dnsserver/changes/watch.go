package changes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes/changespb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

const (
	// deaf is how long a server may be silent until its connection is given up.
	deaf = 3 * beat
	// lookEvery is how often it is looked up which addresses names stand for.
	lookEvery = 5 * time.Second
)

// WatchOptions say whom to watch. The functions are called from many goroutines, but for one address one at a time: while one
// runs, that server waits.
type WatchOptions struct {
	// Servers are HOST:PORT of peer listeners. A name may stand for several servers: each of its addresses is watched.
	Servers     []string
	Credentials control.Credentials
	Name        string // of the caller, for servers' logs
	Log         logr.Logger

	// OnChanges gets what the server at an address, ADDRESS:PORT, tells. missed: there were more, of which the server does not
	// know any more, or that can't be read. What was told by a server before is told again after it has started anew.
	OnChanges func(server string, all []Change, missed bool)
	// OnConnected is called when a server has told all that had changed before, and when the connection to it has broken.
	OnConnected func(server string, connected bool)

	// Lookup returns the addresses of a host; nil: net.DefaultResolver does.
	Lookup func(ctx context.Context, host string) ([]string, error)
}

// Watch watches the servers until ctx ends. It returns when no function will be called any more.
func Watch(ctx context.Context, o WatchOptions) {
	if o.Lookup == nil {
		o.Lookup = net.DefaultResolver.LookupHost
	}
	w := &watch{opts: o, links: map[string]*link{}}
	var all sync.WaitGroup
	for _, server := range o.Servers {
		all.Go(func() { w.follow(ctx, server) })
	}
	all.Wait()
	w.running.Wait()
}

type watch struct {
	opts    WatchOptions
	running sync.WaitGroup

	mu    sync.Mutex
	links map[string]*link // by address
}

// link is the watching of one address.
type link struct {
	address string
	users   int // of Servers that stand for it
	stop    context.CancelFunc
	at      cursor
}

// follow watches the addresses that one of Servers stands for.
func (w *watch) follow(ctx context.Context, server string) {
	known := map[string]bool{}
	reported := ""
	for ctx.Err() == nil {
		now, err := w.addresses(ctx, server)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != reported && ctx.Err() == nil {
			reported = text
			w.opts.Log.Info("looking up servers that tell changes", "server", server, "error", text)
		}
		if err == nil { // else the old ones are better than none
			for address := range known {
				if !now[address] {
					w.drop(address)
				}
			}
			for address := range now {
				if !known[address] {
					w.take(ctx, address)
				}
			}
			known = now
		}
		again := time.NewTimer(lookEvery)
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// addresses returns ADDRESS:PORT of all that a server stands for; not none.
func (w *watch) addresses(ctx context.Context, server string) (map[string]bool, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	found, err := w.opts.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no addresses", host)
	}
	all := map[string]bool{}
	for _, a := range found {
		all[net.JoinHostPort(a, port)] = true
	}
	return all, nil
}

// take has an address watched, once for all that stand for it.
func (w *watch) take(ctx context.Context, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.links[address]; l != nil {
		l.users++
		return
	}
	l := &link{address: address, users: 1}
	ctx, l.stop = context.WithCancel(ctx)
	w.links[address] = l
	w.running.Go(func() { w.run(ctx, l) })
}

func (w *watch) drop(address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.links[address]; l != nil {
		if l.users--; l.users == 0 {
			l.stop()
			delete(w.links, address)
		}
	}
}

// run keeps a connection to the server until ctx ends.
func (w *watch) run(ctx context.Context, l *link) {
	pauses := control.NewPauses()
	reported := ""
	for ctx.Err() == nil {
		began := time.Now()
		connected, err := w.connect(ctx, l)
		if connected {
			w.opts.OnConnected(l.address, false)
			reported = ""
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > deaf {
			pauses = control.NewPauses()
		}
		if text := fmt.Sprint(err); text != reported {
			reported = text
			w.opts.Log.Info("no changes are heard from a server", "address", l.address, "cause", text)
		}
		if !pauses.Wait(ctx) {
			return
		}
	}
}

// connect opens a connection and hears what comes until it breaks. connected: OnConnected was called.
func (w *watch) connect(ctx context.Context, l *link) (connected bool, _ error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := control.DialServer(l.address, w.opts.Credentials)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	watchdog := time.AfterFunc(deaf, cancel)
	defer watchdog.Stop()
	req := &changespb.WatchRequest{Protocol: protocol, Name: w.opts.Name, Boot: l.at.boot, Position: l.at.position}
	stream, err := changespb.NewChangesClient(conn).Watch(ctx, req)
	if err != nil {
		return false, err
	}
	for {
		batch, err := stream.Recv()
		if err != nil {
			return connected, err
		}
		watchdog.Stop()
		if len(batch.GetChanges()) > 0 || batch.GetMissed() {
			all, err := decode(batch.GetChanges())
			if err != nil {
				w.opts.Log.Error(err, "some changes that a server tells are none", "address", l.address)
			}
			w.opts.OnChanges(l.address, all, batch.GetMissed() || err != nil)
		}
		l.at = cursor{batch.GetBoot(), batch.GetPosition()}
		if batch.GetCaughtUp() && !connected {
			connected = true
			w.opts.OnConnected(l.address, true)
		}
		watchdog.Reset(deaf)
	}
}

// decode returns the changes that are whole, and what is wrong with others.
func decode(messages []*changespb.Change) (all []Change, err error) {
	all = make([]Change, 0, len(messages))
	for _, m := range messages {
		c, fault := decodeChange(m)
		if fault != nil {
			err = errors.Join(err, fault)
			continue
		}
		all = append(all, c)
	}
	return all, err
}

func decodeChange(m *changespb.Change) (c Change, err error) {
	c = Change{
		Beneath: m.GetBeneath(), Before: m.GetBefore(), After: m.GetAfter(), Serial: m.GetSerial(), At: time.UnixMilli(m.GetAt()),
	}
	if c.Name, err = name(m.GetName()); err != nil {
		return c, err
	}
	if c.Apex, err = name(m.GetApex()); err != nil {
		return c, err
	}
	for _, b := range m.GetAliases() {
		alias, err := name(b)
		if err != nil {
			return c, err
		}
		c.Aliases = append(c.Aliases, alias)
	}
	return c, nil
}

func name(b []byte) (zone.Name, error) {
	n, size, err := zone.NameFromWire(b)
	if err == nil && size != len(b) {
		err = fmt.Errorf("%d octets behind the name %s", len(b)-size, n)
	}
	return n, err
}
