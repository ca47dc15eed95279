package resolver

import (
	"context"
	"errors"
	"fmt"
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
	authorityTimeout = time.Second            // of one question
	authorityGrace   = 100 * time.Millisecond // for the others when one has answered
	cutLife          = 10 * time.Second       // how long the servers of a zone are taken for known
	mostCuts         = 10000                  // zones whose servers are kept
)

// errNoAuthority says that nobody with authority answers, as seen from the engine's own address.
var errNoAuthority = errors.New("no authority answers")

// authorities finds who answers for names, from the root down, as the engine beside it would. It is for concurrent use.
type authorities struct {
	mu   sync.Mutex
	cuts map[zone.Name]cut
}

// cut is a zone's servers.
type cut struct {
	servers []netip.Addr
	until   time.Time
}

// reply is what one server said; nil if it said nothing.
type reply struct {
	server  netip.Addr
	message *dns.Msg
}

// askAll asks servers at once, from the engine's own address, and returns the answers in the servers' order: when all have
// answered, or soon after the first useful one. missing are those that have not by then.
func askAll(ctx context.Context, c *engine.Config, servers []netip.Addr, name string, rrtype uint16, useful func(*dns.Msg) bool) (got []reply, missing []netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
	defer cancel()
	replies := make(chan reply, len(servers))
	for _, server := range servers {
		go func() {
			m, err := ask(ctx, source(c, server), netip.AddrPortFrom(server, dnsPort), question(name, rrtype, false))
			if err != nil {
				m = nil
			}
			replies <- reply{server, m}
		}()
	}
	var late <-chan time.Time
	for open := len(servers); open > 0; {
		select {
		case r := <-replies:
			open--
			if r.message == nil {
				continue
			}
			got = append(got, r)
			if late == nil && useful(r.message) {
				late = time.After(authorityGrace)
			}
		case <-late:
			open = 0
		case <-ctx.Done():
			open = 0
		}
	}
	for _, s := range servers {
		if !slices.ContainsFunc(got, func(r reply) bool { return r.server == s }) {
			missing = append(missing, s)
		}
	}
	slices.SortFunc(got, func(a, b reply) int { return a.server.Compare(b.server) })
	return got, missing
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

// of returns the servers of the zone that a name is in. at is the engine, which is asked for the addresses of servers
// whose parent has none.
func (a *authorities) of(ctx context.Context, c *engine.Config, at netip.AddrPort, name zone.Name) ([]netip.Addr, error) {
	apex, servers := a.known(name)
	if apex != "" {
		if found, err := a.below(ctx, c, at, name, apex, servers); err == nil {
			return found, nil
		}
		// They may have moved.
		a.forget(apex)
		servers = nil
	}
	for _, r := range c.RootHints {
		servers = append(servers, r.Addresses...)
	}
	return a.below(ctx, c, at, name, zone.Root, servers)
}

// below returns the servers of the zone that a name is in, from a zone above on.
func (a *authorities) below(ctx context.Context, c *engine.Config, at netip.AddrPort, name, apex zone.Name, servers []netip.Addr) ([]netip.Addr, error) {
	for {
		got, _ := askAll(ctx, c, servers, name.String(), dns.TypeA, func(m *dns.Msg) bool {
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
		slices.SortFunc(below, netip.Addr.Compare)
		apex, servers = child, slices.Compact(below)
		if len(servers) == 0 {
			return nil, fmt.Errorf("%s: the servers of %s have no address: %w", name, apex, errNoAuthority)
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
			if reply, err := ask(one, netip.Addr{}, at, question(name, rrtype, true)); err == nil {
				take(reply.Answer, name)
			}
			cancel()
		}
	}
	return found
}

// known is the deepest zone above a name whose servers are known; "" if none is.
func (a *authorities) known(name zone.Name) (zone.Name, []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for n := name; n != zone.Root; n = n.Parent() {
		if c, ok := a.cuts[n]; ok && now.Before(c.until) {
			return n, c.servers
		}
	}
	return "", nil
}

func (a *authorities) forget(apex zone.Name) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.cuts, apex)
}

func (a *authorities) keep(apex zone.Name, servers []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cuts == nil || len(a.cuts) >= mostCuts {
		a.cuts = map[zone.Name]cut{}
	}
	a.cuts[apex] = cut{servers, time.Now().Add(cutLife)}
}
