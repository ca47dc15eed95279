package engine

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Product is a recursive server that Fingerpost can run.
type Product string

// The products. Versions that the rendered files were tried with stand beside.
const (
	Unbound      Product = "Unbound"      // 1.17
	KnotResolver Product = "KnotResolver" // 5.6
	Recursor     Product = "Recursor"     // PowerDNS Recursor 4.8
)

var products = []Product{KnotResolver, Recursor, Unbound}

// ParseProduct reads the name of a product.
func ParseProduct(text string) (Product, error) {
	if p := Product(text); slices.Contains(products, p) {
		return p, nil
	}
	return "", fmt.Errorf("engine %q is none of %v", text, products)
}

// Config is what one recursive server does, in words that all products share. The zero value of a field that is not said to
// be required leaves the thing off.
type Config struct {
	// Listen are addresses with ports where clients ask over UDP and TCP. Required.
	Listen []netip.AddrPort `json:"listen,omitempty"`
	// TLS is how clients ask over encrypted transports.
	TLS *TLS `json:"tls,omitempty"`
	// ProxyProtocol is where a load balancer asks that says whose queries it brings (PROXYv2).
	ProxyProtocol *ProxyProtocol `json:"proxyProtocol,omitempty"`
	// Clients are the networks that are answered; all others are refused. Required.
	Clients []netip.Prefix `json:"clients"`
	// RootHints are the root servers. Required: without them every product asks those of the internet.
	RootHints []RootServer `json:"rootHints"`
	// Source are the addresses that questions to authorities come from, at most one a family; a family without one
	// uses what the kernel chooses.
	Source []netip.Addr `json:"source,omitempty"`
	// AuthorityNetworks are the only networks in which authorities are asked, besides root hints, upstreams and the
	// servers of internal zones, whatever referrals say; empty: everywhere.
	AuthorityNetworks []netip.Prefix `json:"authorityNetworks,omitempty"`
	// LoopbackServers lets authorities be on this machine: 127.0.0.0/8 and ::1.
	LoopbackServers bool `json:"loopbackServers,omitempty"`
	// Forward are zones that other resolvers are asked about, instead of authorities.
	Forward []Forward `json:"forward,omitempty"`
	// Internal are zones that authorities of ours are asked about though a zone above is forwarded.
	Internal []InternalZone `json:"internal,omitempty"`
	// Threads is the number of CPUs to use; 0 stands for 1.
	Threads int `json:"threads,omitempty"`
	// CacheMiB is the size of the cache; 0 stands for 64.
	CacheMiB int `json:"cacheMiB,omitempty"`
	TTL      TTL `json:"ttl,omitzero"`
	// ClientMaxTTL is the most that clients are told of any record, 0 for no bound. A product that can't tell clients less than
	// it keeps itself keeps records no longer either, and asks authorities more often.
	ClientMaxTTL Duration `json:"clientMaxTTL,omitempty"`
	// Prefetch asks again for a record that is asked for often, before it expires.
	Prefetch bool `json:"prefetch,omitempty"`
	// ServeStale answers from expired records when no authority answers (RFC 8767).
	ServeStale *ServeStale `json:"serveStale,omitempty"`
	// RandomCase mixes the case of letters in questions to authorities, which have to repeat it (0x20).
	RandomCase bool `json:"randomCase,omitempty"`
	// ECS tells authorities of some zones where the client is (RFC 7871).
	ECS *ECS `json:"ecs,omitempty"`
	// TrustAnchors have answers below them validated; empty: no DNSSEC. The internet's own anchor is never used
	// unless it is listed.
	TrustAnchors []Anchor `json:"trustAnchors,omitempty"`
	Limits       Limits   `json:"limits,omitzero"`
	Block        Block    `json:"block,omitzero"`
	// Dnstap tells clients' queries and replies to a socket.
	Dnstap *Dnstap `json:"dnstap,omitempty"`

	// FileDigests are SHA-256 digests of what is in the files of ReadFiles, as far as they are known. A file of another digest
	// makes another Rendered.Generation, whose Change has the server read it again.
	FileDigests map[Path][sha256.Size]byte `json:"-"`
}

// TLS is how clients ask over encrypted transports. One of DoT and DoH at least.
type TLS struct {
	DoT         []netip.AddrPort `json:"dot,omitempty"` // RFC 7858
	DoH         []netip.AddrPort `json:"doh,omitempty"` // RFC 8484, at /dns-query
	Certificate Path             `json:"certificate"`   // of a chain, PEM
	Key         Path             `json:"key"`           // PEM
}

// ProxyProtocol is where a load balancer asks. Both lists are required. Ports are other ones than those of Config.Listen.
type ProxyProtocol struct {
	Listen []netip.AddrPort `json:"listen,omitempty"`
	From   []netip.Prefix   `json:"from"` // whom is believed
}

// RootServer is a server of the root zone.
type RootServer struct {
	Name      Name         `json:"name"`
	Addresses []netip.Addr `json:"addresses"` // one at least
}

// Forward sends questions about zones to other resolvers. They are asked as resolvers: recursion desired.
type Forward struct {
	Zones     []Name     `json:"zones"`     // "." for all but Config.Internal
	Upstreams []Upstream `json:"upstreams"` // any of them is asked
}

// InternalZone is a zone with its authoritative servers.
type InternalZone struct {
	Zone    Name         `json:"zone"`
	Servers []netip.Addr `json:"servers"`
}

// Upstream is a resolver that questions are forwarded to.
type Upstream struct {
	Address netip.AddrPort `json:"address"`
	// TLS asks over TLS alone (RFC 7858). All upstreams of a Forward do, or none.
	TLS *UpstreamTLS `json:"tls,omitempty"`
}

// UpstreamTLS says whose certificate an upstream has to show.
type UpstreamTLS struct {
	Name Name `json:"name"`
	CA   Path `json:"ca"` // certificates that theirs derives from, PEM
}

// TTL bounds how long answers are kept and told to be good. 0 is no bound of ours.
type TTL struct {
	Min      Duration `json:"min,omitempty"`
	Max      Duration `json:"max,omitempty"`
	Negative Duration `json:"negative,omitempty"` // most for NXDOMAIN and NODATA (RFC 2308)
}

// ServeStale bounds the use of expired records. They are used when authorities have been asked for Patience and none has
// answered, not before.
type ServeStale struct {
	MaxAge   Duration `json:"maxAge"`             // since expiry; required
	TTL      Duration `json:"ttl,omitempty"`      // in such answers; 0 stands for 30s (RFC 8767 §4)
	Patience Duration `json:"patience,omitempty"` // 0 stands for 1.8s (RFC 8767 §5)
}

func (s *ServeStale) ttl() int64 { return cmp.Or(s.TTL, Duration(30*time.Second)).Seconds() }

// staleTTL is the TTL of expired records in answers, in seconds.
func (c *Config) staleTTL() int64 {
	ttl := c.ServeStale.ttl()
	if most := c.ClientMaxTTL.Seconds(); most > 0 {
		ttl = min(ttl, most)
	}
	return ttl
}

func (s *ServeStale) patience() time.Duration {
	return time.Duration(cmp.Or(s.Patience, Duration(1800*time.Millisecond)))
}

// ECS is for which zones the client's network is told.
type ECS struct {
	Zones []Name `json:"zones"`
	// Prefixes told, in bits; 0 stands for 24 and 56.
	IPv4 int `json:"ipv4,omitempty"`
	IPv6 int `json:"ipv6,omitempty"`
}

// Limits bound queries a second; 0 is no limit.
type Limits struct {
	Client int        `json:"client,omitempty"` // of one address: what is beyond gets no answer
	NAT    []NATLimit `json:"nat,omitempty"`    // instead of Client; of several the longest network decides
	Domain int        `json:"domain,omitempty"` // to the authorities of one zone: who needs more gets SERVFAIL
}

// NATLimit is the limit of addresses that many clients share.
type NATLimit struct {
	Networks []netip.Prefix `json:"networks"` // required
	Client   int            `json:"client"`   // of each address in them; 0 is no limit
}

// Block is what clients get NXDOMAIN for.
type Block struct {
	Names    []Name    `json:"names,omitempty"`    // and all below them
	Patterns []Pattern `json:"patterns,omitempty"` // and whatever has one of these, at most 64
	RPZ      []RPZ     `json:"rpz,omitempty"`      // the first that knows a name decides
}

// RPZ is a response policy zone, from a file or by transfer: one of the two.
type RPZ struct {
	Name      Name             `json:"name"`
	File      Path             `json:"file,omitzero"` // master file
	Primaries []netip.AddrPort `json:"primaries,omitempty"`
}

// triggers are what names in response policy zones end with that stand for something else than a name.
var triggers = []string{"rpz-client-ip.", "rpz-ip.", "rpz-nsip.", "rpz-nsdname."}

// Dnstap is where queries and replies are told to, as frame streams.
type Dnstap struct {
	Socket Path `json:"socket"` // somebody listens there before the server starts
}

// ConfigError says what of a Config contradicts itself or is missing.
type ConfigError struct {
	Field  string // as in JSON, from the top
	Defect string
}

func (e *ConfigError) Error() string { return e.Field + " " + e.Defect }

// Reason is that of the condition that the error becomes.
func (*ConfigError) Reason() string { return "InvalidConfiguration" }

// ReadFiles are the files of others that servers read, those of all products together: certificates, keys and policy zones. In
// order, without duplicates.
func (c *Config) ReadFiles() []Path {
	files := append(c.serviceFiles(), c.upstreamCAs()...)
	files = append(files, c.policyFiles()...)
	slices.SortFunc(files, func(a, b Path) int { return cmp.Compare(a.text, b.text) })
	return slices.DeleteFunc(slices.Compact(files), func(p Path) bool { return p == Path{} })
}

// serviceFiles are what encrypted transports show clients.
func (c *Config) serviceFiles() []Path {
	if c.TLS == nil {
		return nil
	}
	return []Path{c.TLS.Certificate, c.TLS.Key}
}

// upstreamCAs are what upstreams are believed by, in order of Forward.
func (c *Config) upstreamCAs() (files []Path) {
	for _, f := range c.Forward {
		for _, u := range f.Upstreams {
			if u.TLS != nil {
				files = append(files, u.TLS.CA)
			}
		}
	}
	return files
}

// policyFiles are the response policy zones that come from files.
func (c *Config) policyFiles() (files []Path) {
	for _, z := range c.Block.RPZ {
		if z.File != (Path{}) {
			files = append(files, z.File)
		}
	}
	return files
}

// addresses reports whether all are addresses that somebody can be asked at, and there is one.
func addresses(of []netip.Addr) bool {
	return len(of) > 0 && !slices.ContainsFunc(of, func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() || a.Zone() != "" })
}

// address reports whether it is an address with a port that somebody can be asked at.
func address(a netip.AddrPort) bool {
	return addresses([]netip.Addr{a.Addr()}) && a.Port() != 0
}

// Check returns all that is wrong with a Config whatever the product: ConfigErrors, joined. nil: every product renders it.
func (c *Config) Check() error {
	var errs []error
	fault := func(field, format string, args ...any) {
		errs = append(errs, &ConfigError{field, fmt.Sprintf(format, args...)})
	}
	used := map[netip.AddrPort]string{}
	listen := func(field string, at []netip.AddrPort) {
		for i, a := range at {
			f := fmt.Sprintf("%s[%d]", field, i)
			switch other, taken := used[a]; {
			case !a.IsValid() || a.Port() == 0:
				fault(f, "is no address with a port")
			case a.Addr().Zone() != "":
				fault(f, "is %q: there are no addresses of one link alone", a)
			case taken:
				fault(f, "is %s, as is %s", a, other)
			}
			used[a] = f
		}
	}
	networks := func(field string, of []netip.Prefix) {
		for i, p := range of {
			if !p.IsValid() || p != p.Masked() {
				fault(fmt.Sprintf("%s[%d]", field, i), "is no network: its address has bits beyond its length")
			}
		}
	}
	names := func(field string, of []Name) {
		for i, n := range of {
			if n == (Name{}) {
				fault(fmt.Sprintf("%s[%d]", field, i), "is empty")
			}
		}
	}
	between := func(field string, n, least, most int) {
		if n != 0 && (n < least || n > most) {
			fault(field, "is %d, and may be %d to %d", n, least, most)
		}
	}

	if len(c.Listen) == 0 {
		fault("listen", "is empty: nobody could ask")
	}
	listen("listen", c.Listen)
	if t := c.TLS; t != nil {
		if len(t.DoT)+len(t.DoH) == 0 {
			fault("tls", "has neither dot nor doh")
		}
		if t.Certificate == (Path{}) || t.Key == (Path{}) {
			fault("tls", "needs certificate and key")
		}
		listen("tls.dot", t.DoT)
		listen("tls.doh", t.DoH)
	}
	if p := c.ProxyProtocol; p != nil {
		if len(p.Listen) == 0 || len(p.From) == 0 {
			fault("proxyProtocol", "needs listen and from")
		}
		listen("proxyProtocol.listen", p.Listen)
		networks("proxyProtocol.from", p.From)
	}
	if len(c.Clients) == 0 {
		fault("clients", "is empty: nobody would be answered")
	}
	networks("clients", c.Clients)
	networks("authorityNetworks", c.AuthorityNetworks)
	if len(c.RootHints) == 0 {
		fault("rootHints", "is empty: the server would ask the root servers of the internet")
	}
	for i, r := range c.RootHints {
		if r.Name == (Name{}) || r.Name.text == "." || !addresses(r.Addresses) {
			fault(fmt.Sprintf("rootHints[%d]", i), "needs a name and addresses")
		}
	}
	families := map[bool]bool{}
	for i, a := range c.Source {
		if !addresses([]netip.Addr{a}) || families[a.Is4()] {
			fault(fmt.Sprintf("source[%d]", i), "is no address, or the second of its family")
		}
		families[a.Is4()] = true
	}
	forwarded := map[Name]int{}
	for i, f := range c.Forward {
		field := fmt.Sprintf("forward[%d]", i)
		if len(f.Zones) == 0 || len(f.Upstreams) == 0 {
			fault(field, "needs zones and upstreams")
		}
		names(field+".zones", f.Zones)
		for _, z := range f.Zones {
			if within(z.text, readyZone) {
				fault(field, "forwards %s, which servers answer by themselves", z)
			}
			if other, is := forwarded[z]; is {
				fault(field, "forwards %s, as forward[%d] does", z, other)
			}
			forwarded[z] = i
		}
		for j, u := range f.Upstreams {
			if !address(u.Address) {
				fault(fmt.Sprintf("%s.upstreams[%d]", field, j), "has no address with a port")
			}
			if (u.TLS == nil) != (f.Upstreams[0].TLS == nil) {
				fault(fmt.Sprintf("%s.upstreams[%d]", field, j), "has TLS where others have none: questions would leave in the clear")
			}
			if u.TLS != nil && (u.TLS.Name == (Name{}) || u.TLS.CA == (Path{})) {
				fault(fmt.Sprintf("%s.upstreams[%d].tls", field, j), "needs name and ca")
			}
		}
	}
	for i, z := range c.Internal {
		field := fmt.Sprintf("internal[%d]", i)
		if z.Zone == (Name{}) || !addresses(z.Servers) {
			fault(field, "needs zone and servers")
		}
		if within(z.Zone.text, readyZone) {
			fault(field, "is %s, which servers answer by themselves", z.Zone)
		}
		if _, is := forwarded[z.Zone]; is {
			fault(field, "is %s, which is forwarded", z.Zone)
		}
	}
	between("threads", c.Threads, 1, 256)
	between("cacheMiB", c.CacheMiB, 4, 1<<20)
	for field, d := range map[string]Duration{"ttl.min": c.TTL.Min, "ttl.max": c.TTL.Max, "ttl.negative": c.TTL.Negative, "clientMaxTTL": c.ClientMaxTTL} {
		if d > Duration(7*24*time.Hour) {
			fault(field, "is %s, and may be a week", d)
		}
	}
	if c.TTL.Max != 0 && c.TTL.Min > c.TTL.Max {
		fault("ttl.min", "is more than ttl.max")
	}
	if s := c.ServeStale; s != nil {
		switch {
		case s.MaxAge <= 0 || s.MaxAge > Duration(7*24*time.Hour):
			fault("serveStale.maxAge", "has to be up to a week (RFC 8767 §5 advises one to three days)")
		case s.patience() > 5*time.Second:
			fault("serveStale.patience", "is more than 5s, after which clients have given up")
		}
	}
	if e := c.ECS; e != nil {
		if len(e.Zones) == 0 {
			fault("ecs.zones", "is empty")
		}
		names("ecs.zones", e.Zones)
		between("ecs.ipv4", e.IPv4, 8, 32)
		between("ecs.ipv6", e.IPv6, 16, 128)
	}
	for i, a := range c.TrustAnchors {
		if a == (Anchor{}) {
			fault(fmt.Sprintf("trustAnchors[%d]", i), "is empty")
		}
	}
	between("limits.client", c.Limits.Client, 1, 1e6)
	limited := map[netip.Prefix]int{}
	for i, n := range c.Limits.NAT {
		field := fmt.Sprintf("limits.nat[%d]", i)
		if len(n.Networks) == 0 {
			fault(field, "has no networks")
		}
		networks(field+".networks", n.Networks)
		between(field+".client", n.Client, 1, 1e6)
		for _, p := range n.Networks {
			if other, is := limited[p]; is {
				fault(field, "has %s, as limits.nat[%d] has", p, other)
			}
			limited[p] = i
		}
	}
	between("limits.domain", c.Limits.Domain, 1, 1e6)
	names("block.names", c.Block.Names)
	for i, n := range c.Block.Names {
		last := n.text[strings.LastIndexByte(strings.TrimSuffix(n.text, "."), '.')+1:]
		switch {
		case n != Name{} && within(ReadyName, n.text):
			fault(fmt.Sprintf("block.names[%d]", i), "is %s, which has %s: servers answer that name when they work, and would never be ready", n, ReadyName)
		case slices.Contains(triggers, last):
			fault(fmt.Sprintf("block.names[%d]", i), "is %s: in a response policy zone that is no name", n)
		}
	}
	if len(c.Block.Patterns) > 64 {
		fault("block.patterns", "are %d, and may be 64: each is tried with every question", len(c.Block.Patterns))
	}
	for i, p := range c.Block.Patterns {
		if p == (Pattern{}) {
			fault(fmt.Sprintf("block.patterns[%d]", i), "is empty")
		}
	}
	for i, r := range c.Block.RPZ {
		if r.Name == (Name{}) || (r.File == Path{}) == (len(r.Primaries) == 0) {
			fault(fmt.Sprintf("block.rpz[%d]", i), "needs a name, and either file or primaries")
		}
		for j, a := range r.Primaries {
			if !address(a) {
				fault(fmt.Sprintf("block.rpz[%d].primaries[%d]", i, j), "is no address with a port")
			}
		}
	}
	if c.Dnstap != nil && c.Dnstap.Socket == (Path{}) {
		fault("dnstap.socket", "is empty")
	}
	slices.SortStableFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
