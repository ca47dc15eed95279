package zone

import (
	"net/netip"

	"github.com/gaissmai/bart"
)

// Config is how a server answers, beside what its zones say. It is immutable once a Scratch
// points to it. The zero Config has the defaults.
type Config struct {
	// MaxUDP bounds replies over UDP in octets, 512 to MostUDP; 0 stands for the constant MaxUDP.
	MaxUDP int
	// NSID is what the server calls itself to clients that ask (RFC 5001), up to MaxNSID octets
	// of any value; "" leaves the option out.
	NSID string
	// Cookies are the secrets of server cookies (RFC 9018): the first makes them, all are
	// accepted. Without any, cookies are ignored.
	Cookies [][16]byte
}

// MaxNSID bounds Config.NSID, so that it fits every reply.
const MaxNSID = 128

func (c *Config) maxUDP() int {
	if c.MaxUDP == 0 {
		return MaxUDP
	}
	return c.MaxUDP
}

// Networks is a set of addresses, given as networks. It is immutable; nil is empty.
type Networks struct{ table bart.Lite }

// NewNetworks makes a set of networks; nil of none. Addresses in them are in no zone (RFC 4007).
func NewNetworks(networks []netip.Prefix) *Networks {
	if len(networks) == 0 {
		return nil
	}
	n := &Networks{}
	for _, p := range networks {
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		n.table.Insert(p)
	}
	return n
}

// Contains reports whether an address, which is not an IPv4 one in IPv6 form, is in one of the networks.
func (n *Networks) Contains(a netip.Addr) bool { return n != nil && n.table.Lookup(a.WithZone("")) }
