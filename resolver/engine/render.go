package engine

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Rendered is a server's whole configuration.
type Rendered struct {
	// Files in order of name. Their names are relative to the server's own folder, which is its working directory.
	Files []File
	// Program and Args start the server in the foreground, in its own folder.
	Program string
	Args    []string
	// Check is a program with arguments that exits with 0 if it takes the files, started in a folder that has them;
	// nil: the product has none.
	Check []string
	// Generation is a digest of the files, 16 hexadecimal digits. The running server answers ReadyName with it.
	Generation string
	// Unsupported is what the server does not do though the Config has it, in order of feature.
	Unsupported []Unsupported
}

// File is one that a server reads.
type File struct {
	Name    string
	Content string
	Change  Change
}

// Change is the least that makes a running server see that a file is another one. The greater includes the lesser.
type Change int

// Changes, as what they cost.
const (
	ReloadPart Change = iota // one part is read again; nothing is lost
	Reload                   // all is read again; the cache is kept
	Replace                  // another process takes over the addresses and the cache
	Restart                  // another process, with an empty cache
)

func (c Change) String() string { return [...]string{"ReloadPart", "Reload", "Replace", "Restart"}[c] }

// Unsupported is something that a product can't do.
type Unsupported struct {
	Feature string `json:"feature"` // field of Config as in JSON, from the top
	Reason  string `json:"reason"`
}

func (u Unsupported) String() string { return u.Feature + ": " + u.Reason }

// ReadyName has a TXT record with Rendered.Generation, TTL 0, that the server answers by itself: no authority is asked.
const ReadyName = "ready." + readyZone

const readyZone = "resolver-agent.invalid."

// Render renders the files of one server. folder is its own, an absolute path. A Config that Check finds wrong is an error.
func Render(p Product, c *Config, folder Path) (*Rendered, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if folder == (Path{}) {
		return nil, fmt.Errorf("rendering %s: there is no folder", p)
	}
	var r *Rendered
	switch p {
	case Unbound:
		r = unbound(c, folder)
	case KnotResolver:
		r = knotResolver(c)
	case Recursor:
		r = recursor(c)
	default:
		return nil, fmt.Errorf("rendering: %q is no engine", p)
	}
	r.Files = append(r.Files, File{"root.hints", rootHints(c.RootHints), max(r.Files[0].Change, Reload)})
	slices.SortFunc(r.Files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(r.Unsupported, func(a, b Unsupported) int { return cmp.Compare(a.Feature, b.Feature) })
	digest := sha256.New()
	for _, f := range r.Files {
		fmt.Fprintf(digest, "%s %d\n", f.Name, len(f.Content))
		_, _ = io.WriteString(digest, f.Content)
	}
	r.Generation = hex.EncodeToString(digest.Sum(nil)[:8])
	for i := range r.Files {
		r.Files[i].Content = strings.ReplaceAll(r.Files[i].Content, generation, r.Generation)
		if strings.Contains(r.Files[i].Content, unsafe) {
			return nil, fmt.Errorf("rendering %s: a value has a quote, a backslash or a control character", r.Files[i].Name)
		}
	}
	return r, nil
}

// generation stands for Rendered.Generation until the digest is known. No value of a Config can hold it.
const generation = "\x00generation\x00"

// unsafe stands for values that could end the string which they are in. There are none: values are checked when they are read.
// Render fails if it comes upon one nevertheless.
const unsafe = "\x00unsafe\x00"

// plain is a text that is in a string of any product's files.
func plain(text string) string {
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '\'' || c == '"' || c == '\\' {
			return unsafe
		}
	}
	return text
}

func (r *Rendered) lacks(feature, format string, args ...any) {
	r.Unsupported = append(r.Unsupported, Unsupported{feature, fmt.Sprintf(format, args...)})
}

// contents are comments that say what is in files, of which the server is told the paths alone.
func (c *Config) contents(comment string, files []Path) string {
	var b strings.Builder
	for _, f := range files {
		if digest, known := c.FileDigests[f]; known {
			fmt.Fprintf(&b, "%s %s has %x\n", comment, f, digest)
		}
	}
	return b.String()
}

// rootHints is a master file (RFC 1035 §5) with a root zone's NS and addresses.
func rootHints(servers []RootServer) string {
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, ". 3600000 IN NS %s\n", s.Name)
		for _, a := range s.Addresses {
			fmt.Fprintf(&b, "%s 3600000 IN %s %s\n", s.Name, addressType(a), a.Unmap())
		}
	}
	return b.String()
}

func addressType(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "A"
	}
	return "AAAA"
}

// own are addresses that the agent beside the server asks from: loopback, and what the server itself listens on.
func (c *Config) own() []netip.Prefix {
	own := slices.Clone(loopback)
	for _, a := range c.Listen {
		if !a.Addr().IsUnspecified() {
			own = append(own, netip.PrefixFrom(a.Addr().Unmap().WithZone(""), a.Addr().Unmap().BitLen()))
		}
	}
	return own
}

// allowed are the networks that are answered, sorted and without duplicates.
func (c *Config) allowed() []netip.Prefix {
	all := append(c.own(), c.Clients...)
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// rate is how many queries a second each address of a network may ask; 0 is no limit.
type rate struct {
	network netip.Prefix
	queries int
}

// rates are the networks with limits of their own, the longest first; nil: nobody is limited. What runs beside the server is
// not, as it asks for all names that change.
func (c *Config) rates() []rate {
	if c.Limits.Client == 0 && len(c.Limits.NAT) == 0 {
		return nil
	}
	var all []rate
	for _, p := range c.own() {
		all = append(all, rate{p, 0})
	}
	for _, n := range c.Limits.NAT {
		for _, p := range n.Networks {
			all = append(all, rate{p, n.Client})
		}
	}
	for _, everybody := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		all = append(all, rate{netip.PrefixFrom(everybody, 0), c.Limits.Client})
	}
	slices.SortStableFunc(all, func(a, b rate) int { return cmp.Compare(b.network.Bits(), a.network.Bits()) })
	return all
}

// at is how Unbound and Knot Resolver write an address with a port.
func at(a netip.AddrPort) string { return fmt.Sprintf("%s@%d", a.Addr(), a.Port()) }

// forwardsOver reports whether a zone above n, or n, is forwarded.
func (c *Config) forwardsOver(n string) bool {
	for _, f := range c.Forward {
		for _, z := range f.Zones {
			if within(n, z.text) {
				return true
			}
		}
	}
	return false
}

// within reports whether a name is an apex or below it; both are absolute.
func within(name, apex string) bool {
	return apex == "." || name == apex || strings.HasSuffix(name, "."+apex)
}

// reverse are the zones of private addresses (RFC 1918, RFC 6598, RFC 4193), which products answer by themselves unless told
// otherwise.
var reverse = func() []string {
	zones := []string{"10.in-addr.arpa.", "168.192.in-addr.arpa.", "d.f.ip6.arpa."}
	for i := 16; i < 32; i++ {
		zones = append(zones, fmt.Sprintf("%d.172.in-addr.arpa.", i))
	}
	for i := 64; i < 128; i++ {
		zones = append(zones, fmt.Sprintf("%d.100.in-addr.arpa.", i))
	}
	return zones
}()

// localReverse are those of reverse that have to be answered as not there: a zone above is forwarded, and the names of private
// addresses do not leave to upstreams. Those of Config.Internal are not among them.
func (c *Config) localReverse() []string {
	return slices.DeleteFunc(slices.Clone(reverse), func(z string) bool {
		return !c.forwardsOver(z) || slices.ContainsFunc(c.Internal, func(i InternalZone) bool { return within(z, i.Zone.text) })
	})
}

// resolvedReverse are the others: authorities are asked.
func (c *Config) resolvedReverse() []string {
	local := c.localReverse()
	return slices.DeleteFunc(slices.Clone(reverse), func(z string) bool { return slices.Contains(local, z) })
}

// each applies f to all values.
func each[T, R any](values []T, f func(T) R) []R {
	results := make([]R, len(values))
	for i, v := range values {
		results[i] = f(v)
	}
	return results
}

// join writes values one after another.
func join[T fmt.Stringer](values []T, between string) string {
	return strings.Join(each(values, T.String), between)
}

// servers are all that are named: root servers, those of internal zones, and upstreams.
func (c *Config) servers() (all []netip.Addr) {
	for _, r := range c.RootHints {
		all = append(all, r.Addresses...)
	}
	for _, z := range c.Internal {
		all = append(all, z.Servers...)
	}
	for _, f := range c.Forward {
		for _, u := range f.Upstreams {
			all = append(all, u.Address.Addr())
		}
	}
	return each(all, netip.Addr.Unmap)
}

// asked are the networks that questions may go to, sorted; nil: everywhere.
func (c *Config) asked() []netip.Prefix {
	if len(c.AuthorityNetworks) == 0 {
		return nil
	}
	all := slices.Clone(c.AuthorityNetworks)
	for _, a := range c.servers() {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// loopback are the addresses of this machine alone.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// local are the servers that are named and are on this machine.
func (c *Config) local() []netip.Prefix {
	return each(slices.DeleteFunc(c.servers(), func(a netip.Addr) bool { return !a.IsLoopback() }),
		func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) })
}

// Asks reports whether questions may go to an address.
func (c *Config) Asks(a netip.Addr) bool {
	asked := c.asked()
	return asked == nil || slices.ContainsFunc(asked, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// asksOver reports whether questions go to addresses of IPv4, or else of IPv6. Engines that take a family for usable look for
// addresses of servers there, which they do not get when authorities are gone.
func (c *Config) asksOver(v4 bool) bool {
	asked := c.asked()
	return asked == nil || slices.ContainsFunc(asked, func(p netip.Prefix) bool { return p.Addr().Is4() == v4 })
}

// others are the networks that have all addresses but those of the given ones, and no other.
func others(but []netip.Prefix) []netip.Prefix {
	var rest []netip.Prefix
	var divide func(netip.Prefix)
	divide = func(p netip.Prefix) {
		inside := false
		for _, b := range but {
			if b.Bits() <= p.Bits() && b.Contains(p.Addr()) {
				return
			}
			inside = inside || p.Contains(b.Addr())
		}
		if !inside {
			rest = append(rest, p)
			return
		}
		low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
		octets := p.Addr().AsSlice()
		octets[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
		high, _ := netip.AddrFromSlice(octets)
		divide(low)
		divide(netip.PrefixFrom(high, p.Bits()+1))
	}
	divide(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	divide(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	return rest
}
