package resolver

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// Times of names that are kept warm.
const (
	warmLook     = time.Second            // between looks at which are due
	warmRate     = 100                    // names a second
	warmSlots    = 64                     // names at the same time
	warmLeast    = 5 * time.Second        // between questions for one name, however short its TTL is
	warmMost     = time.Hour              // the same, however long
	warmFailed   = 10 * time.Second       // until a name is asked for again that was not answered
	prefetchTime = 250 * time.Millisecond // that an engine may take to ask again by itself
)

// isKeptWarm reports whether a name is to be in the cache whether clients ask or not.
func (a *Agent) isKeptWarm(name zone.Name) bool {
	c, _ := a.doing()
	return slices.ContainsFunc(c.KeepWarm, func(n engine.Name) bool { return zoneName(n) == name })
}

// keepWarm has the engine ask again for the addresses of names before they expire, until ctx ends.
func (a *Agent) keepWarm(ctx context.Context) {
	var mu sync.Mutex // guards due
	due := map[engine.Name]time.Time{}
	limit := rate.NewLimiter(warmRate, 1)
	slots := make(chan struct{}, warmSlots)
	var all sync.WaitGroup
	defer all.Wait()
	tick := time.NewTicker(warmLook)
	defer tick.Stop()
	for {
		c, _ := a.doing()
		mu.Lock()
		maps.DeleteFunc(due, func(name engine.Name, _ time.Time) bool { return !slices.Contains(c.KeepWarm, name) })
		var now []engine.Name
		for _, name := range c.KeepWarm {
			if !time.Now().Before(due[name]) {
				now = append(now, name)
				due[name] = time.Now().Add(warmMost) // while it is worked on
			}
		}
		mu.Unlock()
		for _, name := range now {
			if limit.Wait(ctx) != nil {
				return
			}
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				life := a.warm(ctx, name)
				mu.Lock()
				defer mu.Unlock()
				// Not all names of a pool at once, nor those of all pools.
				due[name] = time.Now().Add(life - time.Duration(rand.Int64N(int64(life/10))))
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// warm has the addresses of a name in the cache, fresh, and returns after how long it has to be looked at again.
func (a *Agent) warm(ctx context.Context, name engine.Name) time.Duration {
	next := warmMost
	for _, t := range concurrently([]uint16{dns.TypeA, dns.TypeAAAA}, func(t uint16) (next time.Duration) {
		left, full, ok := a.freshen(ctx, name.String(), t)
		if !ok {
			return warmFailed
		}
		return left - full/10 - warmLook
	}) {
		next = min(next, t)
	}
	return max(next, warmLeast)
}

// freshen asks for records. Those whose time is nearly over are asked for again by the engine, by itself or because it was
// made to forget them: only if an authority answers. left is the time until they expire, full the time that they are good when
// they are fresh; 0: not known.
func (a *Agent) freshen(ctx context.Context, name string, rrtype uint16) (left, full time.Duration, ok bool) {
	r := a.current()
	look := func() *dns.Msg {
		one, cancel := context.WithTimeout(ctx, recursionTimeout)
		defer cancel()
		m, err := a.flusher.asker.ask(one, a.flusher.toEngine(r), question(name, rrtype, true))
		if err != nil || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
			return nil
		}
		left = life(m)
		return m
	}
	m := look()
	if m == nil {
		return 0, 0, false
	}
	servers, err := a.flusher.find.of(ctx, r.config, r.at, zoneNameOf(name), false)
	if err != nil {
		return left, 0, true
	}
	got, _ := a.flusher.find.askAll(ctx, r.config, servers, name, rrtype, authoritative)
	got = slices.DeleteFunc(got, func(r reply) bool { return !authoritative(r.message) })
	if len(got) == 0 {
		return left, 0, true
	}
	full = kept(r.config, got[0].message)
	soon := full/10 + 2*warmLook
	if left > soon || full < warmLeast {
		return left, full, true
	}
	pause := time.NewTimer(prefetchTime)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return left, full, true
	}
	if m = look(); m == nil || left > soon {
		return left, full, m != nil
	}
	names := []zone.Name{zoneNameOf(name)}
	for _, rr := range m.Answer {
		if owner := zoneNameOf(rr.Header().Name); !slices.Contains(names, owner) {
			names = append(names, owner)
		}
	}
	if _, err := r.control.Flush(ctx, names...); err != nil {
		return left, full, true
	}
	return left, full, look() != nil
}

// zoneNameOf is a name of a message as those of zones; the root if it can't be one.
func zoneNameOf(name string) zone.Name {
	n, err := zone.ParseName(name, "")
	if err != nil {
		return zone.Root
	}
	return n
}

// kept is how long an engine has what an authority says, as clients see it.
func kept(c *engine.Config, m *dns.Msg) time.Duration {
	full := life(m)
	bounds := []engine.Duration{c.TTL.Max, c.ClientMaxTTL}
	if len(m.Answer) == 0 {
		bounds = append(bounds, c.TTL.Negative)
	}
	for _, bound := range bounds {
		if bound > 0 {
			full = min(full, time.Duration(bound))
		}
	}
	return full
}

// life is how long an answer is good: the least TTL of its records, or what its SOA says (RFC 2308 §5).
func life(m *dns.Msg) time.Duration {
	least := uint32(warmMost / time.Second)
	for _, rr := range m.Answer {
		least = min(least, rr.Header().Ttl)
	}
	if len(m.Answer) == 0 {
		for _, rr := range m.Ns {
			if soa, is := rr.(*dns.SOA); is {
				least = min(least, soa.Hdr.Ttl, soa.Minttl)
			}
		}
	}
	return time.Duration(least) * time.Second
}
