package resolver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// dnsPort is where authorities answer.
const dnsPort = 53

// Times of asking authorities.
const (
	authorityTimeout = time.Second      // of one question
	cutLife          = 10 * time.Second // how long the servers of a zone are taken for known
	cutUse           = time.Hour        // how long they are looked up again after they were needed last
	mostCuts         = 10000            // zones whose servers are kept
	contactInterval  = time.Second      // between questions that tell who answers
	silenceLife      = time.Second      // until a zone of which nobody answered is asked for again
)

// errNoAuthority says that nobody with authority answers, as seen from the engine's own address.
var errNoAuthority = errors.New("no authority answers")

// authorities finds who answers for names, from the root down, as the engine beside it would, and asks them. It is for
// concurrent use.
type authorities struct {
	*exchange
	mu     sync.Mutex
	cuts   map[zone.Name]*cut
	silent map[zone.Name]*silence // zones of which nobody answered last
}

// silence is that nobody with authority for a zone answered.
type silence struct {
	servers []netip.Addr // that were asked; nil: none are known
	since   time.Time
	asking  bool // somebody finds out whether it has ended
}

// cut is a zone's servers.
type cut struct {
	servers []netip.Addr
	found   time.Time
	used    time.Time
}

func newAuthorities() *authorities {
	return &authorities{exchange: newExchange(), cuts: map[zone.Name]*cut{}, silent: map[zone.Name]*silence{}}
}

// reply is what one server said.
type reply struct {
	server  netip.Addr
	message *dns.Msg
}

// askAll asks servers at once, from the engine's own address, and returns the answers in the servers' order: when all have
// answered, or when a useful answer is there and the others are late by their own measure. missing are those that have not
// answered by then.
func (a *authorities) askAll(ctx context.Context, c *engine.Config, servers []netip.Addr, name string, rrtype uint16, useful func(*dns.Msg) bool) (got []reply, missing []netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
	defer cancel()
	began := time.Now()
	replies := make(chan reply, len(servers))
	open := map[netip.Addr]bool{}
	for _, server := range servers {
		open[server] = true
		go func() {
			m := question(name, rrtype, false)
			o := m.IsEdns0()
			o.Option = append(o.Option, &dns.EDNS0_LOCAL{Code: zone.OptionState})
			m, err := a.ask(ctx, towards(c, server), m)
			if err != nil {
				m = nil
			}
			replies <- reply{server, m}
		}()
	}
	// Those who are silent are known before anybody is asked.
	grace := map[netip.Addr]time.Duration{}
	for _, server := range servers {
		grace[server] = a.grace(server)
	}
	late := time.NewTimer(authorityTimeout)
	defer late.Stop()
	for satisfied := false; len(open) > 0; {
		select {
		case r := <-replies:
			delete(open, r.server)
			if r.message != nil {
				got = append(got, r)
				satisfied = satisfied || useful(r.message)
			}
		case <-late.C:
			clear(open)
		case <-ctx.Done():
			clear(open)
		}
		if !satisfied || len(open) == 0 {
			continue
		}
		longest := time.Duration(0)
		for server := range open {
			longest = max(longest, grace[server])
		}
		late.Reset(longest - time.Since(began))
	}
	for _, s := range servers {
		if !slices.ContainsFunc(got, func(r reply) bool { return r.server == s }) {
			missing = append(missing, s)
		}
	}
	slices.SortFunc(got, func(a, b reply) int { return a.server.Compare(b.server) })
	return got, missing
}

// towards is the engine's own way to a server.
func towards(c *engine.Config, server netip.Addr) path {
	return path{source(c, server), netip.AddrPortFrom(server, dnsPort)}
}

// source is the address that the engine asks a server from; the zero Addr if the kernel chooses.
func source(c *engine.Config, server netip.Addr) netip.Addr {
	for _, a := range c.Source {
		if a.Unmap().Is4() == server.Unmap().Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// authoritative reports whether an answer is one of a server that has authority for the name.
func authoritative(m *dns.Msg) bool {
	return m.Authoritative && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError)
}

// referral is the zone that an answer points to, and its servers' names; the zone is "" if it points nowhere below apex.
func referral(m *dns.Msg, name, apex zone.Name) (child zone.Name, servers []string) {
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) > 0 {
		return "", nil
	}
	for _, rr := range m.Ns {
		ns, ok := rr.(*dns.NS)
		if !ok {
			continue
		}
		owner, err := zone.ParseName(ns.Hdr.Name, "")
		if err != nil || !owner.Below(apex) || !name.Within(owner) {
			continue
		}
		child, servers = owner, append(servers, ns.Ns)
	}
	return child, servers
}

// of returns the servers that answer for a name, which is the apex of a zone if apex is set: those are taken for known for a
// while. at is the engine, which is asked for the addresses of servers whose parent has none.
func (a *authorities) of(ctx context.Context, c *engine.Config, at netip.AddrPort, name zone.Name, apex bool) ([]netip.Addr, error) {
	from, servers, fresh := a.known(name)
	if apex && from == name && fresh {
		return servers, nil
	}
	if from != "" && fresh {
		if found, err := a.below(ctx, c, at, name, from, servers); err == nil {
			return found, nil
		}
	}
	top, hints := start(c, name)
	found, err := a.below(ctx, c, at, name, top, hints)
	if err != nil && apex && from == name {
		return servers, nil // who is above does not answer: they may not have moved
	}
	if err == nil && apex {
		a.keep(name, found)
	}
	return found, err
}

// start is where the search for a name's servers begins: an internal zone, or the root.
func start(c *engine.Config, name zone.Name) (apex zone.Name, servers []netip.Addr) {
	apex = zone.Root
	for _, r := range c.RootHints {
		servers = append(servers, r.Addresses...)
	}
	for _, z := range c.Internal {
		if inner := zoneName(z.Zone); name.Within(inner) && inner.Within(apex) {
			apex, servers = inner, z.Servers
		}
	}
	return apex, servers
}

// zoneName is an engine's name as those of zones.
func zoneName(n engine.Name) zone.Name {
	name, err := zone.ParseName(n.String(), "")
	if err != nil {
		return zone.Root // it is none: engine.ParseName made it of one
	}
	return name
}

// below returns the servers of the zone that a name is in, from a zone above on.
func (a *authorities) below(ctx context.Context, c *engine.Config, at netip.AddrPort, name, apex zone.Name, servers []netip.Addr) ([]netip.Addr, error) {
	for {
		got, _ := a.askAll(ctx, c, servers, name.String(), dns.TypeA, func(m *dns.Msg) bool {
			child, _ := referral(m, name, apex)
			return child != "" || authoritative(m)
		})
		var child zone.Name
		var below []netip.Addr
		for _, r := range got {
			next, names := referral(r.message, name, apex)
			switch {
			case next == "" && authoritative(r.message):
				return servers, nil
			case next == "":
				continue
			}
			child = next
			below = append(below, a.addresses(ctx, at, r.message, names)...)
		}
		if child == "" {
			return nil, fmt.Errorf("%s: of the servers of %s %w", name, apex, errNoAuthority)
		}
		below = slices.DeleteFunc(below, func(server netip.Addr) bool { return !c.Asks(server) })
		slices.SortFunc(below, netip.Addr.Compare)
		apex, servers = child, slices.Compact(below)
		if len(servers) == 0 {
			return nil, fmt.Errorf("%s: the servers of %s have no address that may be asked: %w", name, apex, errNoAuthority)
		}
		a.keep(apex, servers)
	}
}

// addresses are those of servers: the glue, or what the engine says of those without.
func (a *authorities) addresses(ctx context.Context, at netip.AddrPort, m *dns.Msg, names []string) (found []netip.Addr) {
	take := func(of []dns.RR, name string) (glued bool) {
		for _, rr := range of {
			var ip []byte
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if addr, ok := netip.AddrFromSlice(ip); ok && dns.CanonicalName(rr.Header().Name) == dns.CanonicalName(name) {
				found, glued = append(found, addr.Unmap()), true
			}
		}
		return glued
	}
	for _, name := range names {
		if take(m.Extra, name) {
			continue
		}
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			one, cancel := context.WithTimeout(ctx, authorityTimeout)
			if reply, err := ask(one, beside(at), at, question(name, rrtype, true)); err == nil {
				take(reply.Answer, name)
			}
			cancel()
		}
	}
	return found
}

// known is the deepest zone above a name whose servers are known, "" if none is. Those that are not fresh may have moved.
func (a *authorities) known(name zone.Name) (apex zone.Name, servers []netip.Addr, fresh bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for n := name; n != zone.Root; n = n.Parent() {
		if c, ok := a.cuts[n]; ok {
			c.used = now
			// They are looked up again before the time is over, as long as run does it.
			return n, c.servers, now.Sub(c.found) < 3*cutLife
		}
	}
	return "", nil, false
}

// present are up to so many zones that were asked for lately, one of whose servers has answered since a time, as has one of each
// such zone below: there is somebody who says anew what is forgotten. A zone below one of them is left out. Sorted.
func (a *authorities) present(since time.Time, most int) (zones []zone.Name) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var absent []zone.Name
	for apex, c := range a.cuts {
		if slices.ContainsFunc(c.servers, func(s netip.Addr) bool { return a.answeredSince(s, since) }) {
			zones = append(zones, apex)
		} else {
			absent = append(absent, apex)
		}
	}
	zones = slices.DeleteFunc(zones, func(z zone.Name) bool {
		return slices.ContainsFunc(absent, func(n zone.Name) bool { return n.Below(z) })
	})
	all := slices.Clone(zones)
	zones = slices.DeleteFunc(zones, func(z zone.Name) bool {
		return slices.ContainsFunc(all, func(above zone.Name) bool { return z.Below(above) })
	})
	slices.SortFunc(zones, zone.Name.Compare)
	return zones[:min(len(zones), most)]
}

// isSilent reports whether nobody with authority for a zone answered a short time ago, so that its many names do not wait one by
// one; servers are those that were asked. Of those who get false when that time is over, one at a time, each calls heard.
func (a *authorities) isSilent(apex zone.Name) (servers []netip.Addr, silent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.silent[apex]
	if s == nil {
		return nil, false
	}
	if s.asking || time.Since(s.since) < silenceLife && !slices.ContainsFunc(s.servers, func(server netip.Addr) bool { return a.answeredSince(server, s.since) }) {
		return s.servers, true
	}
	s.asking = true
	return nil, false
}

// heard notes whether somebody with authority for a zone answered; servers are those that were asked.
func (a *authorities) heard(apex zone.Name, servers []netip.Addr, answered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if answered {
		delete(a.silent, apex)
		return
	}
	if len(a.silent) >= mostCuts {
		clear(a.silent)
	}
	a.silent[apex] = &silence{servers: servers, since: time.Now()}
}

func (a *authorities) keep(apex zone.Name, servers []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if c := a.cuts[apex]; c != nil {
		c.servers, c.found = servers, now
		return
	}
	if len(a.cuts) >= mostCuts {
		clear(a.cuts)
	}
	a.cuts[apex] = &cut{servers, now, now}
}

// refresh looks up servers again that have been known for cutLife, and finds out who answers, so that a change of a name
// meets nobody for the first time.
func (a *authorities) refresh(ctx context.Context, c *engine.Config, at netip.AddrPort) {
	now := time.Now()
	var due []zone.Name
	servers := map[netip.Addr]zone.Name{} // with a zone that each has
	_, roots := start(c, zone.Root)
	for _, s := range roots {
		servers[s] = zone.Root
	}
	a.mu.Lock()
	maps.DeleteFunc(a.cuts, func(_ zone.Name, c *cut) bool { return now.Sub(c.used) > cutUse })
	for apex, c := range a.cuts {
		if now.Sub(c.found) >= cutLife && len(due) < mostRefreshes {
			due = append(due, apex)
		}
		for _, s := range c.servers {
			servers[s] = apex
		}
	}
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
	defer cancel()
	var all sync.WaitGroup
	asked := map[netip.Addr]bool{}
	for server, apex := range servers {
		asked[server] = true
		all.Go(func() {
			_, _ = a.ask(ctx, towards(c, server), question(apex.String(), dns.TypeSOA, false))
		})
	}
	for _, apex := range due {
		all.Go(func() {
			top, hints := start(c, apex)
			if found, err := a.below(ctx, c, at, apex, top, hints); err == nil {
				a.keep(apex, found)
			}
		})
	}
	all.Wait()
	a.forgetBut(asked)
}

// mostRefreshes bounds zones whose servers are looked up at the same time.
const mostRefreshes = 50
