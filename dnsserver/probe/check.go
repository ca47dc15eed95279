package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
)

// Check is one probe of one target, to be run again and again.
type Check struct {
	ID     health.CheckID
	Prober Prober
	// Address is given to the Prober.
	Address netip.Addr
	// Interval is the time between the begins of two probes, positive. IdleInterval is that while nobody asks for what
	// hangs on the check; 0: Interval.
	Interval, IdleInterval time.Duration
	// Timeout is how long the Prober takes at most. It only goes into Stats.Needed, and into who waits for whom.
	Timeout time.Duration
}

// Maker makes what a Scheduler runs of what package health wants to be run. Checks whose probes are equal share a Prober.
// It is for concurrent use.
type Maker struct {
	env  Env
	mu   sync.Mutex
	made map[health.CheckID]weak.Pointer[prober] // by the ID of a check without address
}

// NewMaker returns a Maker whose probers have the Env.
func NewMaker(env Env) *Maker {
	return &Maker{env: env, made: map[health.CheckID]weak.Pointer[prober]{}}
}

// Check returns the check. A name is looked up for each probe, within the time of the probe, and its first address
// asked. A probe that makes no sense to this server, as when it is too old for it, is run and always Unknown.
func (m *Maker) Check(of health.Check) Check {
	c := Check{
		ID:           of.ID,
		Interval:     max(milliseconds(of.Probe.GetInterval()), time.Second),
		IdleInterval: milliseconds(of.Probe.GetIdleInterval()),
		Timeout:      milliseconds(of.Probe.GetTimeout()),
	}
	p, err := m.prober(of)
	if err != nil {
		c.Prober = senseless(err.Error())
		return c
	}
	c.Prober = p
	if c.Address, err = netip.ParseAddr(of.Address); err != nil {
		c.Prober = &byName{p, of.Address}
	}
	return c
}

// prober returns a prober of the check's probe: the one that is in use if there is one.
func (m *Maker) prober(of health.Check) (*prober, error) {
	key := health.NewCheckID(of.Probe, "")
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.made[key].Value(); p != nil {
		return p, nil
	}
	p, err := newProber(of.Probe, m.env)
	if err != nil {
		return nil, err
	}
	m.made[key] = weak.Make(p)
	runtime.AddCleanup(p, m.forget, key)
	return p, nil
}

// forget is called when nobody uses a prober any more.
func (m *Maker) forget(key health.CheckID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made[key].Value() == nil { // else another was made
		delete(m.made, key)
	}
}

// senseless stands for a prober that could not be made, for the reason.
type senseless string

func (s senseless) Probe(context.Context, netip.Addr) Result {
	r := unknown(Internal, "this server can't run the "+string(s))
	r.Latency = 1
	return r
}

// byName asks the first address of a name.
type byName struct {
	*prober
	name string
}

func (b *byName) Probe(ctx context.Context, _ netip.Addr) Result {
	return b.within(ctx, func(ctx context.Context) Result {
		if b.env.Lookup == nil {
			return unknown(NoAddress, "this server can't look up names")
		}
		addresses, err := b.env.Lookup(ctx, b.name)
		var missing *net.DNSError
		switch {
		case err == nil && len(addresses) > 0:
			return b.kind.ask(ctx, addresses[0].Unmap())
		case err == nil, errors.As(err, &missing) && missing.IsNotFound:
			return down(NoAddress, "the target's name has no address")
		default:
			return unknown(NoAddress, "the target's name could not be looked up")
		}
	})
}
