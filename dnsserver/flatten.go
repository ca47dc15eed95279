package dnsserver

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

const (
	// A name is looked up again when its TTL is over, but not sooner or later than this.
	flattenSoonest = 5 * time.Second
	flattenLatest  = 5 * time.Minute
	// flattenPatience is how long one resolver may take.
	flattenPatience = 2 * time.Second
	// flattenAtOnce is how many names are looked up at a time.
	flattenAtOnce = 16
)

// flattener looks up the names of targets that are answered as addresses. The last good addresses are kept.
type flattener struct {
	changed func(source string) // does not block for long
	kick    chan struct{}

	mu    sync.Mutex
	names map[zone.Name]*flattened
	users map[ownerKey][]zone.Name
}

type flattened struct {
	users     map[ownerKey]string // source by owner
	resolvers []netip.AddrPort
	good      []netip.Addr // nil: never looked up with success
	ttl       uint32       // of good, in seconds
	due       time.Time
	running   bool
}

func newFlattener(changed func(source string)) *flattener {
	return &flattener{changed: changed, kick: make(chan struct{}, 1), names: map[zone.Name]*flattened{}, users: map[ownerKey][]zone.Name{}}
}

// want has the names of a record's targets looked up, instead of those that were wanted for the owner before. What is known
// of names that stay is kept.
func (f *flattener) want(key ownerKey, r *steering.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.users[key]
	f.users[key] = nil
	for i := range r.Pools {
		for j := range r.Pools[i].Targets {
			name := r.Pools[i].Targets[j].Name
			if name == "" || slices.Contains(f.users[key], name) {
				continue
			}
			n := f.names[name]
			if n == nil {
				n = &flattened{users: map[ownerKey]string{}}
				f.names[name] = n
			}
			n.users[key] = r.Source
			n.resolvers = r.Resolvers
			f.users[key] = append(f.users[key], name)
		}
	}
	for _, name := range before {
		if !slices.Contains(f.users[key], name) {
			f.leave(key, name)
		}
	}
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// drop ends want.
func (f *flattener) drop(key ownerKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range f.users[key] {
		f.leave(key, name)
	}
	delete(f.users, key)
}

// leave ends the use of a name for an owner. f.mu is held.
func (f *flattener) leave(key ownerKey, name zone.Name) {
	if n := f.names[name]; n != nil {
		if delete(n.users, key); len(n.users) == 0 {
			delete(f.names, name)
		}
	}
}

// addresses returns what a name was last looked up to with success.
func (f *flattener) addresses(name zone.Name) (addresses []netip.Addr, ttl uint32, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.names[name]; n != nil && n.good != nil {
		return n.good, n.ttl, true
	}
	return nil, 0, false
}

// run looks up what is due until ctx ends.
func (f *flattener) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, flattenAtOnce)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		next := now.Add(time.Hour)
		f.mu.Lock()
		for name, n := range f.names {
			switch {
			case n.running:
			case n.due.After(now):
				if n.due.Before(next) {
					next = n.due
				}
			default:
				n.running = true
				resolvers := slices.Clone(n.resolvers)
				running.Go(func() {
					select {
					case places <- struct{}{}:
						defer func() { <-places }()
						f.look(ctx, name, resolvers)
					case <-ctx.Done():
					}
				})
			}
		}
		f.mu.Unlock()
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return
		case <-f.kick:
		case <-timer.C:
		}
	}
}

// look looks up one name and notes what was found.
func (f *flattener) look(ctx context.Context, name zone.Name, resolvers []netip.AddrPort) {
	addresses, ttl, ok := lookup(ctx, name, resolvers)
	f.mu.Lock()
	n := f.names[name]
	var sources []string
	if n != nil {
		n.running = false
		wait := flattenSoonest
		if ok {
			wait = min(max(time.Duration(ttl)*time.Second, flattenSoonest), flattenLatest)
			if n.good == nil || !slices.Equal(n.good, addresses) || n.ttl != ttl {
				for _, source := range n.users {
					sources = append(sources, source)
				}
			}
			n.good, n.ttl = addresses, ttl
		}
		n.due = time.Now().Add(wait)
	}
	f.mu.Unlock()
	select {
	case f.kick <- struct{}{}:
	default:
	}
	for _, source := range sources {
		f.changed(source)
	}
}

// lookup asks the resolvers, one after the other, for both kinds of addresses. It fails if none has an answer to either.
func lookup(ctx context.Context, name zone.Name, resolvers []netip.AddrPort) (addresses []netip.Addr, ttl uint32, ok bool) {
	ttl = uint32(flattenLatest / time.Second)
	for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answered := false
		for _, resolver := range resolvers {
			reply, err := askResolver(ctx, name, typ, resolver)
			if err != nil || reply.Rcode != dns.RcodeSuccess {
				continue
			}
			answered = true
			for _, rr := range reply.Answer {
				var a netip.Addr
				switch rr := rr.(type) {
				case *dns.A:
					a, _ = netip.AddrFromSlice(rr.A.To4())
				case *dns.AAAA:
					a, _ = netip.AddrFromSlice(rr.AAAA.To16())
				}
				if a.IsValid() {
					addresses = append(addresses, a)
					ttl = min(ttl, rr.Header().Ttl)
				}
			}
			break
		}
		if !answered {
			return nil, 0, false // half an answer would take addresses away
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses), ttl, len(addresses) > 0
}

func askResolver(ctx context.Context, name zone.Name, typ uint16, resolver netip.AddrPort) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, flattenPatience)
	defer cancel()
	m := new(dns.Msg).SetQuestion(name.String(), typ)
	c := &dns.Client{}
	reply, _, err := c.ExchangeContext(ctx, m, resolver.String())
	if err == nil && reply.Truncated {
		c.Net = "tcp"
		reply, _, err = c.ExchangeContext(ctx, m, resolver.String())
	}
	return reply, err
}
