package dnsserver

import "net/netip"

// Settings are what may be changed of a running server: those of its server group. The zero value has the defaults.
type Settings struct {
	// MaxUDP is the longest reply over UDP in octets, 512 to 4096; 0 stands for 1232.
	MaxUDP int
	// NSID has the server say who it is to those who ask (RFC 5001).
	NSID bool
	// CookieSecrets are those of the group's server cookies (RFC 9018), 16 octets each: the first makes them, all
	// are accepted. Empty: each server makes its own, and cookies of one are renewed by the next.
	CookieSecrets [][16]byte
	// Resolvers are addresses of the company's own resolvers: exempt from response rate limits.
	Resolvers  []netip.Prefix
	Limits     Limits
	Transports Transports
}

// Limits bound what clients may ask. Zero rates are no limit.
type Limits struct {
	// LogOnly counts and logs what would be dropped, and answers it.
	LogOnly bool
	// Responses bounds equal answers to one client prefix, per second (response rate limiting).
	Responses int
	// Slip is which of the dropped answers go out truncated: each 1st, 2nd, ...; 0: none.
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
