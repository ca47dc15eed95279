package dnsserver

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
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

// flattener looks up the names of targets that are answered as addresses. The last good addresses are kept, over restarts
// too. What the resolvers of one record say is never answered for another that asks others.
type flattener struct {
	changed func(source string)     // does not block for long
	denied  func(a netip.Addr) bool // resolvers that must not be asked: a record's user has this server ask them
	log     logr.Logger
	kick    chan struct{}

	mu         sync.Mutex
	names      map[lookedUp]*flattened
	users      map[ownerKey][]lookedUp
	remembered map[string][]byte // from disk, until somebody wants it or run begins; by key
	unsaved    map[lookedUp]bool
	unclaimed  []string // keys to be removed from disk
	told       map[netip.AddrPort]bool
}

// lookedUp is a name and who is asked for it.
type lookedUp struct {
	name      zone.Name
	resolvers string // as joined makes it
}

func joined(resolvers []netip.AddrPort) string { return fmt.Sprint(resolvers) }

// key is that of the entry on disk.
func (l lookedUp) key() string { return flattenState + l.name.String() + l.resolvers }

type flattened struct {
	users     map[ownerKey]string // source by owner
	resolvers []netip.AddrPort
	lastGood
	due     time.Time
	running bool
}

// lastGood is what was found last.
type lastGood struct {
	Addresses []netip.Addr `json:"addresses"` // nil: never looked up with success; else 1 to steering.MaxTargets, sorted
	TTL       uint32       `json:"ttl"`       // in seconds
}

// newFlattener returns one that knows what save has saved: nil if nothing.
func newFlattener(saved map[string][]byte, changed func(source string), denied func(a netip.Addr) bool, log logr.Logger) *flattener {
	f := &flattener{
		changed: changed, denied: denied, log: log, told: map[netip.AddrPort]bool{}, kick: make(chan struct{}, 1), names: map[lookedUp]*flattened{}, users: map[ownerKey][]lookedUp{},
		remembered: map[string][]byte{}, unsaved: map[lookedUp]bool{},
	}
	for key, body := range saved {
		if _, is := cutPrefix(key, flattenState); is {
			f.remembered[key] = body
		}
	}
	return f
}

// want has the names of a record's targets looked up, instead of those that were wanted for the owner before. What is known
// of names that stay is kept.
func (f *flattener) want(key ownerKey, r *steering.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.users[key]
	f.users[key] = nil
	resolvers := joined(r.Resolvers)
	for i := range r.Pools {
		for j := range r.Pools[i].Targets {
			name := lookedUp{r.Pools[i].Targets[j].Name, resolvers}
			if name.name == "" || slices.Contains(f.users[key], name) {
				continue
			}
			n := f.names[name]
			if n == nil {
				n = &flattened{users: map[ownerKey]string{}, resolvers: r.Resolvers}
				if json.Unmarshal(f.remembered[name.key()], &n.lastGood) != nil || len(n.Addresses) > steering.MaxTargets {
					n.lastGood = f.goodBefore(name.name, before)
				}
				delete(f.remembered, name.key())
				f.names[name] = n
			}
			n.users[key] = r.Source
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

// goodBefore is what was found for a name among those of the same record as it was: now others are asked. f.mu is held.
func (f *flattener) goodBefore(name zone.Name, before []lookedUp) lastGood {
	for _, l := range before {
		if n := f.names[l]; l.name == name && n != nil {
			return n.lastGood
		}
	}
	return lastGood{}
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
func (f *flattener) leave(key ownerKey, name lookedUp) {
	if n := f.names[name]; n != nil {
		if delete(n.users, key); len(n.users) == 0 {
			delete(f.names, name)
			f.unsaved[name] = true
		}
	}
}

// of returns what names were last looked up to with success for a record, as steering.Inputs.Resolved.
func (f *flattener) of(r *steering.Record) func(zone.Name) (addresses []netip.Addr, ttl uint32, ok bool) {
	if !r.Flatten {
		return nil
	}
	resolvers := joined(r.Resolvers)
	return func(name zone.Name) ([]netip.Addr, uint32, bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := f.names[lookedUp{name, resolvers}]; n != nil && n.Addresses != nil {
			return n.Addresses, n.TTL, true
		}
		return nil, 0, false
	}
}

// save adds what changed to entries for the disk.
func (f *flattener) save(entries map[string][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.unsaved {
		var body []byte
		if n := f.names[name]; n != nil && n.Addresses != nil {
			body, _ = json.Marshal(n.lastGood) // addresses and a number
		}
		entries[name.key()] = body
	}
	clear(f.unsaved)
	for _, key := range f.unclaimed {
		if _, known := entries[key]; !known {
			entries[key] = nil
		}
	}
	f.unclaimed = nil
}

// run looks up what is due until ctx ends.
func (f *flattener) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	f.forgetUnclaimed()
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

// forgetUnclaimed drops what is remembered and that no zone on disk wanted.
func (f *flattener) forgetUnclaimed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unclaimed = slices.Collect(maps.Keys(f.remembered))
	clear(f.remembered)
}

// look looks up one name and notes what was found.
func (f *flattener) look(ctx context.Context, name lookedUp, resolvers []netip.AddrPort) {
	addresses, ttl, ok := lookup(ctx, name.name, f.allowed(name.name, resolvers))
	f.mu.Lock()
	n := f.names[name]
	var sources []string
	if n != nil {
		n.running = false
		wait := flattenSoonest
		if ok {
			wait = min(max(time.Duration(ttl)*time.Second, flattenSoonest), flattenLatest)
			if !slices.Equal(n.Addresses, addresses) {
				f.unsaved[name] = true
			}
			if f.unsaved[name] || n.TTL != ttl {
				for _, source := range n.users {
					sources = append(sources, source)
				}
			}
			n.lastGood = lastGood{addresses, ttl}
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

// allowed returns the resolvers that may be asked now. Of one that may not the log tells, once.
func (f *flattener) allowed(name zone.Name, resolvers []netip.AddrPort) []netip.AddrPort {
	var all []netip.AddrPort
	for _, r := range resolvers {
		denied := f.denied(r.Addr())
		if !denied {
			all = append(all, r)
		}
		f.mu.Lock()
		tell := denied && !f.told[r]
		f.told[r] = denied
		f.mu.Unlock()
		if tell {
			f.log.Info("a resolver of flatten is not asked: the Datacenter's probes.deniedNetworks, or their default, deny it", "resolver", r.String(), "name", name.String())
		}
	}
	return all
}

// lookup asks the resolvers, one after the other, for both kinds of addresses. It fails if none has an answer to either.
func lookup(ctx context.Context, name zone.Name, resolvers []netip.AddrPort) (addresses []netip.Addr, ttl uint32, ok bool) {
	ttl = uint32(flattenLatest / time.Second)
	for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answered := false
		for _, resolver := range resolvers {
			reply, err := askResolver(ctx, name, typ, resolver)
			if err != nil || reply.Rcode != dns.RcodeSuccess || len(reply.Question) != 1 ||
				reply.Question[0].Qtype != typ || !strings.EqualFold(reply.Question[0].Name, name.String()) {
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
	addresses = slices.Compact(addresses)
	return addresses[:min(len(addresses), steering.MaxTargets)], ttl, len(addresses) > 0
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
