package zone

import (
	"encoding/binary"
	"net/netip"
)

// Codes of EDNS options (IANA registry "DNS EDNS0 Option Codes").
const (
	optionNSID      = 3  // RFC 5001
	optionSubnet    = 8  // RFC 7871
	optionCookie    = 10 // RFC 7873
	optionKeepAlive = 11 // RFC 7828
	optionPadding   = 12 // RFC 7830
	optionEDE       = 15 // RFC 8914
)

// INFO-CODEs of Extended DNS Errors (RFC 8914 §4).
const (
	EDEOther                = 0
	EDEStaleAnswer          = 3
	EDENotReady             = 14
	EDEBlocked              = 15
	EDEProhibited           = 18
	EDEStaleNXDomain        = 19
	EDENotAuthoritative     = 20
	EDENotSupported         = 21
	EDENoReachableAuthority = 22

	edeNone = -1
)

// options is what the OPT record of one query asks for.
type options struct {
	nsid, keepAlive, padding, state bool

	cookie     [clientCookieSize + maxServerCookie]byte // the first cookieSize octets
	cookieSize int                                      // 0 for none

	subnet subnet
}

// subnet is a Client Subnet option (RFC 7871 §6).
type subnet struct {
	present bool
	family  uint16 // 1 or 2; 0, 1 or 2 if source is 0
	source  uint8  // length of the prefix
	address [16]byte
}

// octets is how many of the address go with the option.
func (n *subnet) octets() int { return (int(n.source) + 7) / 8 }

// size is that of the whole option.
func (n *subnet) size() int { return optionHead + 4 + n.octets() }

// prefix returns the network; the zero one if the client keeps it to itself.
func (n *subnet) prefix() netip.Prefix {
	switch {
	case n.source == 0:
		return netip.Prefix{}
	case n.family == 1:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(n.address[:4])), int(n.source))
	}
	return netip.PrefixFrom(netip.AddrFrom16(n.address), int(n.source))
}

// read reads the options in b, RFC 6891 §6.1.2. framed is false if their lengths do not fit, sound
// is false if what is in one known here is not what its RFC says. Unknown options are ignored, and
// of an option that comes twice all but the first.
func (o *options) read(b []byte) (framed, sound bool) {
	o.nsid, o.keepAlive, o.padding, o.state, o.cookieSize, o.subnet.present = false, false, false, false, 0, false
	sound = true
	for len(b) > 0 {
		if len(b) < optionHead {
			return false, false
		}
		code := binary.BigEndian.Uint16(b)
		end := optionHead + int(binary.BigEndian.Uint16(b[2:]))
		if end > len(b) {
			return false, false
		}
		data := b[optionHead:end]
		switch code {
		case optionCookie:
			if o.cookieSize == 0 {
				sound = o.readCookie(data) && sound
			}
		case optionSubnet:
			if !o.subnet.present {
				sound = o.subnet.read(data) && sound
			}
		case optionNSID:
			o.nsid = true // whatever is in it, RFC 5001 §2.1
		case optionKeepAlive:
			o.keepAlive = true
		case optionPadding:
			o.padding = true
		case OptionState:
			o.state = len(data) == 0
		}
		b = b[end:]
	}
	return true, sound
}

// readCookie takes a client cookie alone or with a server cookie (RFC 7873 §4).
func (o *options) readCookie(b []byte) bool {
	if len(b) != clientCookieSize && (len(b) < clientCookieSize+minServerCookie || len(b) > len(o.cookie)) {
		return false
	}
	o.cookieSize = copy(o.cookie[:], b)
	return true
}

// read takes what RFC 7871 §6 and §7.1.2 let a query have: a scope of 0, as many octets of the
// address as the prefix needs, and no bit behind it. No prefix needs no family.
func (n *subnet) read(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	n.family, n.source = binary.BigEndian.Uint16(b), b[2]
	longest := uint8(0)
	switch n.family {
	case 1:
		longest = 32
	case 2:
		longest = 128
	case 0:
	default:
		return false
	}
	scope, address := b[3], b[4:]
	if n.source > longest || scope != 0 || len(address) != n.octets() {
		return false
	}
	if used := n.source % 8; used != 0 && address[len(address)-1]<<used != 0 {
		return false
	}
	n.address = [16]byte{}
	copy(n.address[:], address)
	n.present = true
	return true
}

// Explain attaches an INFO-CODE of RFC 8914 to the reply that is being made, and a text that adds
// to it or "". It goes out if the client has sent an OPT record and there is room.
func (s *Scratch) explain(code int, text string) { s.ede, s.edeText = code, text }

// clientNetwork returns the network of the client that a question about z is about: that of a Client
// Subnet option if z trusts the resolver with it, else the resolver's address itself. stated is
// true if it is from the option.
func (s *Scratch) clientNetwork() (network netip.Prefix, stated bool) {
	if s.subnetTrusted && s.asked.subnet.source > 0 {
		return s.asked.subnet.prefix(), true
	}
	return netip.PrefixFrom(s.client, s.client.BitLen()), false
}

// setScope says for how long a prefix the answer is the same: SCOPE PREFIX-LENGTH of the Client
// Subnet option in the reply, if there is to be one (RFC 7871 §7.2.1).
func (s *Scratch) setScope(bits int) {
	if s.asked.subnet.source > 0 { // a resolver that states none is told none
		s.message.scope = uint8(bits)
	}
}

// trustSubnet has the reply repeat the query's Client Subnet option, with scope 0 unless setScope
// says otherwise, and clientNetwork go by it. It is called before the first record is put.
func (s *Scratch) trustSubnet() {
	s.subnetTrusted = true
	s.message.subnet = true
	s.message.keep(s.asked.subnet.size())
}

// readOptions reads the options of the query and decides on those of the reply. It reports whether
// they are sound; if they are not even framed there is no OPT record any more.
func (s *Scratch) readOptions(c *Config, b []byte, over Transport) (sound bool) {
	m, o := &s.message, &s.asked
	framed, sound := o.read(b)
	if !framed {
		s.query.edns = false
	}
	if !sound {
		return false
	}
	if o.keepAlive && over != UDP { // over UDP it means nothing, RFC 7828 §3.3.1
		m.keepAlive = s.KeepAlive
	}
	m.padded = o.padding && over == TLS // in clear text it must not be, RFC 7830 §6
	if o.nsid {
		m.nsid = c.NSID
	}
	m.asksState = o.state
	if o.cookieSize > 0 && len(c.Cookies) > 0 {
		s.cookie = answerCookie(&o.cookie, o.cookieSize, c.Cookies, s.client, s.Now)
		m.cookie = true
	}
	return true
}
