package dnsserver

import (
	"fmt"
	"net/netip"

	"github.com/fingerpost-dns/fingerpost/dnsserver/limit"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Settings are what may be changed of a running server: those of its server group. The zero value has the defaults.
type Settings struct {
	// MaxUDP is the longest reply over UDP in octets, 512 to 4096; 0 stands for 1232.
	MaxUDP int
	// NSID has the server say who it is, Options.Identity, to those who ask (RFC 5001).
	NSID bool
	// CookieSecrets are those of the group's server cookies (RFC 9018), 16 octets each: the first makes them, all
	// are accepted. Empty: each server makes its own, and cookies of one are renewed by the next.
	CookieSecrets [][16]byte
	// Resolvers are addresses of the company's own resolvers: exempt from limits. When there are more
	// queries than the server can answer they share what it can, see limit.Share.
	Resolvers  []netip.Prefix
	Limits     Limits
	Transports Transports
}

// Limits bound what clients may ask over UDP. Zero rates are no limit. Who is over one can prove its
// address by asking over TCP or with a cookie; a good cookie is exempt from Responses.
type Limits struct {
	// LogOnly counts and logs what would be dropped, and answers it.
	LogOnly bool
	// Responses bounds equal answers to one client prefix, per second (response rate limiting).
	Responses int
	// Slip is which of the dropped answers go out truncated: each 1st, 2nd, ... 10th; 0: none. Without
	// TCP none does.
	Slip int
	// Queries bounds all queries of one client prefix, per second.
	Queries int
	// IPv4Prefix and IPv6Prefix are lengths of client prefixes; 0 stands for 32 and 128.
	IPv4Prefix, IPv6Prefix int
	// Exempt are clients without limits.
	Exempt []netip.Prefix
}

// Transports says how clients may ask, besides UDP.
type Transports struct {
	NoTCP bool // port 53 over TCP is closed: nothing is truncated without need
	// Addresses with ports; empty: the transport is off. TLS is with the certificate of the group, or the files given.
	DoT, DoH, HTTPDNS []netip.AddrPort
}

// check returns what is wrong with settings, Transports aside.
func (s *Settings) check() error {
	between := func(n, least, most int) bool { return n == 0 || least <= n && n <= most }
	l := &s.Limits
	switch {
	case !between(s.MaxUDP, 512, zone.MostUDP):
		return fmt.Errorf("the longest reply over UDP is to be 512 to %d octets, not %d", zone.MostUDP, s.MaxUDP)
	case !between(l.Responses, 1, limit.MaxRate):
		return fmt.Errorf("the limit of equal replies is to be up to %d a second, not %d", limit.MaxRate, l.Responses)
	case !between(l.Queries, 1, limit.MaxRate):
		return fmt.Errorf("the limit of queries is to be up to %d a second, not %d", limit.MaxRate, l.Queries)
	case !between(l.Slip, 1, limit.MaxSlip):
		return fmt.Errorf("of dropped replies each 1st to %dth may go out truncated, not each %dth", limit.MaxSlip, l.Slip)
	case !between(l.IPv4Prefix, 1, 32):
		return fmt.Errorf("an IPv4 prefix has 1 to 32 bits, not %d", l.IPv4Prefix)
	case !between(l.IPv6Prefix, 1, 128):
		return fmt.Errorf("an IPv6 prefix has 1 to 128 bits, not %d", l.IPv6Prefix)
	}
	for what, networks := range map[string][]netip.Prefix{"resolver": s.Resolvers, "exempt client": l.Exempt} {
		for _, p := range networks {
			if !p.IsValid() {
				return fmt.Errorf("the network of a %s is none", what)
			}
		}
	}
	return nil
}

// live is Settings as those who answer take them. It is immutable.
type live struct {
	config zone.Config

	limits    *limit.Limiter // nil for none
	logOnly   bool
	exempt    *zone.Networks // with the resolvers
	resolvers *zone.Networks
}

// replyRoom is how many octets a reply over UDP may have.
func (l *live) replyRoom() int { return max(l.config.MaxUDP, zone.MaxUDP) }

// accounts is how many clients and what they ask for are known to limits at once, at 8 octets each.
const accounts = 1 << 18

// Configure has the server answer by other settings from now on. Queries that come meanwhile are
// answered by these or those. Settings that make no sense change nothing. A transport that can't be
// opened is an error too, but the rest is as wanted.
func (s *Server) Configure(want Settings) error {
	if err := want.check(); err != nil {
		return err
	}
	s.configuring.Lock()
	defer s.configuring.Unlock()
	s.apply(&want)
	return s.listeners.set(want.Transports)
}

// apply makes of settings what answers go by. The caller holds configuring, or nobody answers yet.
func (s *Server) apply(want *Settings) {
	to := &live{
		config:    zone.Config{MaxUDP: want.MaxUDP, Cookies: want.CookieSecrets},
		logOnly:   want.Limits.LogOnly,
		resolvers: zone.NewNetworks(want.Resolvers),
		exempt:    zone.NewNetworks(append(append([]netip.Prefix(nil), want.Resolvers...), want.Limits.Exempt...)),
	}
	if want.NSID {
		to.config.NSID = s.opts.Identity[:min(len(s.opts.Identity), zone.MaxNSID)]
	}
	if len(to.config.Cookies) == 0 {
		to.config.Cookies = [][16]byte{s.ownSecret}
	}
	if l := want.Limits; l.Responses > 0 || l.Queries > 0 {
		if s.accounts == nil {
			s.accounts = limit.NewAccounts(accounts)
		}
		rates := limit.Rates{Responses: l.Responses, Queries: l.Queries, Slip: l.Slip, IPv4Prefix: l.IPv4Prefix, IPv6Prefix: l.IPv6Prefix}
		if want.Transports.NoTCP {
			rates.Slip = 0
		}
		to.limits = s.accounts.Limiter(rates)
	}
	s.answering.settings.Store(to)
}
