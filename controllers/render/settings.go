package render

import (
	"net/netip"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// LimitsMode is what happens to what is over a group's limits. If the group does not say, a wrong guess must not hurt:
// limits are enforced only where strangers can ask. Inside a company a few resolvers ask nearly all there is to ask, and
// those that nobody has listed would be the first to be limited.
func LimitsMode(g v1alpha1.ServerGroup) v1alpha1.LimitsMode {
	if g.Limits.Mode != "" {
		return g.Limits.Mode
	}
	for _, text := range g.Addresses {
		if a, err := netip.ParseAddr(string(text)); err == nil && isPublic(a.Unmap()) {
			return v1alpha1.LimitsEnforce
		}
	}
	return v1alpha1.LimitsLog
}

// sharedAddresses are those between a provider and its customers (RFC 6598).
var sharedAddresses = netip.MustParsePrefix("100.64.0.0/10")

// isPublic reports whether strangers may reach the address. IsPrivate is RFC 1918 and RFC 4193.
func isPublic(a netip.Addr) bool {
	return !a.IsPrivate() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !sharedAddresses.Contains(a)
}
