package probe

import (
	"fmt"
	"net/netip"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// Reach says which addresses probes must not reach: a probe is a request that a tenant makes this server send. The zero
// value denies nothing. It is immutable.
type Reach struct {
	denied []netip.Prefix // IPv4 networks in their own form
}

// Deny denies the networks, and nothing else: what a Datacenter states.
func Deny(networks ...netip.Prefix) Reach {
	r := Reach{denied: make([]netip.Prefix, 0, len(networks))}
	for _, n := range networks {
		if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
		r.denied = append(r.denied, n.Masked())
	}
	return r
}

// ReachFrom is what a Datacenter lets probes reach from a server that has the addresses own: what the Datacenter states is
// denied, and nothing else; if it states nothing, what DenyByDefault denies and what servers are told. Nil is a Datacenter
// that is not known yet, which states nothing.
func ReachFrom(d *steeringpb.Datacenter, own ...netip.Addr) (Reach, error) {
	var networks []netip.Prefix
	for _, text := range d.GetDeniedNetworks() {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			return Reach{}, fmt.Errorf("datacenter %s: denied network: %w", d.GetName(), err)
		}
		networks = append(networks, n)
	}
	r := Deny(networks...)
	if d == nil || d.GetDefaultDenied() {
		r.denied = append(r.denied, DenyByDefault(own...).denied...)
	}
	return r, nil
}

// DenyByDefault denies loopback, link-local, unspecified and multicast addresses, and those given: of this server and of
// the API server.
func DenyByDefault(own ...netip.Addr) Reach {
	networks := []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), // this host (RFC 1122 3.2.1.3): reaches loopback
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"), // also the metadata services of clouds
		netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("255.255.255.255/32"),
		netip.MustParsePrefix("::/128"),
		netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("ff00::/8"),
	}
	for _, a := range own {
		a = a.Unmap().WithZone("")
		networks = append(networks, netip.PrefixFrom(a, a.BitLen()))
	}
	return Deny(networks...)
}

// Denies reports whether the address is denied: itself, or the IPv4 address that it stands for. Invalid addresses are.
func (r Reach) Denies(address netip.Addr) bool {
	if !address.IsValid() {
		return true
	}
	address = address.Unmap().WithZone("")
	inner := embedded(address)
	for _, n := range r.denied {
		if n.Contains(address) || inner.IsValid() && n.Contains(inner) {
			return true
		}
	}
	return false
}

// embedded returns the IPv4 address that packets to an IPv6 address end at: behind a translator (RFC 6052), in 6to4
// (RFC 3056) or written as IPv4-compatible (RFC 4291 2.5.5.1). Invalid: there is none.
func embedded(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return netip.Addr{}
	}
	b := a.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a), netip.MustParsePrefix("::/96").Contains(a):
		return netip.AddrFrom4([4]byte(b[12:]))
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return netip.Addr{}
}
