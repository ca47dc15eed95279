// Package pool is what managers and the agents of a pool of recursive servers tell each other: what each server is to do, and
// what became of it.
package pool

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// Kinds of the document that holds a Pool, and of the report that holds a Report, on the stream between hub and agent.
const (
	DocumentKind = "resolver"
	ReportKind   = "resolver"
)

// Pool is what one agent and its engine do. As text it is JSON or YAML, the fields of engine.Config beside those of the agent.
type Pool struct {
	// Config may lack Listen, which differs from agent to agent: see At.
	engine.Config

	// RecursionCheck is a zone at the end of the hierarchy: names below it that nobody has are asked for through the engine.
	// The zero Name stands for none.
	RecursionCheck engine.Name `json:"recursionCheck,omitzero"`
	// KeepWarm are names whose addresses are asked for before they expire from the cache, whether clients ask or not. At
	// most MaxKeepWarm.
	KeepWarm []engine.Name `json:"keepWarm,omitempty"`
	// Notifiers tell which names have other answers now.
	Notifiers Notifiers `json:"notifiers,omitzero"`

	// Members are what differs from product to product: of one that is not here Config says all.
	Members map[engine.Product]Member `json:"members,omitempty"`
	// SourceNetworks are networks from which questions to authorities come: from the first of the machine's own addresses in
	// them, of each family. Empty: see At.
	SourceNetworks []netip.Prefix `json:"sourceNetworks,omitempty"`
	// Ports are where clients ask besides, at the addresses of Listen.
	Ports Ports `json:"ports,omitzero"`
	// Files are texts by name. A path FilesFolder/NAME in Config stands for wherever the agent has written the text. As files
	// are read when a configuration is applied, one with another text has another name.
	Files map[string]string `json:"files,omitempty"`
}

// Member is what differs from product to product. 0 stands for what Config says.
type Member struct {
	Threads  int `json:"threads,omitempty"`
	CacheMiB int `json:"cacheMiB,omitempty"`
}

// Ports are where clients ask besides. 0: they do not. Those of DoT and DoH need the TLS of Config, Proxy its ProxyProtocol.
type Ports struct {
	DoT   uint16 `json:"dot,omitempty"`
	DoH   uint16 `json:"doh,omitempty"`
	Proxy uint16 `json:"proxy,omitempty"` // where a load balancer says whose queries it brings
}

// FilesFolder is where paths of Config have Files.
const FilesFolder = "/pool-files"

var fileName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)

// Notifiers are authoritative servers, as HOST:PORT of their peer listeners. With none, names are flushed by request alone.
type Notifiers struct {
	Local  []string `json:"local,omitempty"`  // of the agent's datacenter: all are listened to
	Others []string `json:"others,omitempty"` // of other datacenters: listened to while no local one is connected
}

// MaxKeepWarm bounds Pool.KeepWarm.
const MaxKeepWarm = 1000

const maxNotifiers = 256 // of each kind

// Decode reads a Pool. Fields that are not known are refused, and so is what Check finds in the agent's part; what the
// engine can't be told is for engine.Render to say.
func Decode(text []byte) (*Pool, error) {
	p := &Pool{}
	if err := yaml.UnmarshalStrict(text, p); err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}

// Check returns all that is wrong with the agent's part: engine.ConfigErrors, joined.
func (p *Pool) Check() error {
	var errs []error
	fault := func(field, format string, args ...any) {
		errs = append(errs, &engine.ConfigError{Field: field, Defect: fmt.Sprintf(format, args...)})
	}
	if len(p.KeepWarm) > MaxKeepWarm {
		fault("keepWarm", "has %d names, and may have %d", len(p.KeepWarm), MaxKeepWarm)
	}
	if slices.Contains(p.KeepWarm, engine.Name{}) {
		fault("keepWarm", "has an empty name")
	}
	for _, list := range []struct {
		field string
		of    []string
	}{{"notifiers.local", p.Notifiers.Local}, {"notifiers.others", p.Notifiers.Others}} {
		if len(list.of) > maxNotifiers {
			fault(list.field, "has %d servers, and may have %d", len(list.of), maxNotifiers)
		}
		for i, at := range list.of {
			host, port, err := net.SplitHostPort(at)
			if n, e := strconv.ParseUint(port, 10, 16); err != nil || host == "" || e != nil || n == 0 {
				fault(fmt.Sprintf("%s[%d]", list.field, i), "is %q, and has to be HOST:PORT", at)
			}
		}
	}
	for i, n := range p.SourceNetworks {
		if !n.IsValid() || n != n.Masked() {
			fault(fmt.Sprintf("sourceNetworks[%d]", i), "is no network: its address has bits beyond its length")
		}
	}
	if p.TLS == nil && p.Ports.DoT+p.Ports.DoH != 0 {
		fault("ports", "has dot or doh, and there is no tls")
	}
	if p.ProxyProtocol == nil && p.Ports.Proxy != 0 {
		fault("ports.proxy", "is %d, and there is no proxyProtocol", p.Ports.Proxy)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		if !fileName.MatchString(name) {
			fault("files", "has %q, and names have letters, digits and ._-", name)
		}
	}
	for i, z := range p.Block.RPZ {
		name, ours := strings.CutPrefix(z.File.String(), FilesFolder+"/")
		if line, directive := directive(p.Files[name]); ours && line > 0 {
			fault(fmt.Sprintf("block.rpz[%d]", i), "%s has %s in line %d: files of others are not read, and records are written out", z.Name, directive, line)
		}
	}
	return errors.Join(errs...)
}

// directive finds the first line of a master file that has $INCLUDE, which reads any file of the machine (RFC 1035 §5.1), or
// $GENERATE, whose records may be more than there is memory, and is no comment. Where in the line does not count: products differ
// in what they take for its beginning. Line 0: there is none.
func directive(text string) (line int, directive string) {
	for n, l := range strings.Split(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"), "\n") {
		if strings.HasPrefix(strings.TrimSpace(l), ";") {
			continue
		}
		upper := strings.ToUpper(l)
		for _, d := range []string{"$INCLUDE", "$GENERATE"} {
			if strings.Contains(upper, d) {
				return n + 1, d
			}
		}
	}
	return 0, ""
}

// Host is what only an agent knows.
type Host struct {
	Engine    engine.Product
	Listen    []netip.AddrPort // where clients ask, if the Pool does not say
	Addresses []netip.Addr     // the machine's own; needed for SourceNetworks
	Files     string           // the folder where Files are written, without / at the end
}

// At is the engine's part for one agent. Where the Pool itself names addresses, those are meant. Where it has neither source
// nor SourceNetworks, questions to authorities come from the first of the addresses where clients ask, of each family. An
// error is an engine.ConfigError.
func (p *Pool) At(h Host) (*engine.Config, error) {
	c := p.Config
	if m, ok := p.Members[h.Engine]; ok {
		c.Threads, c.CacheMiB = cmp.Or(m.Threads, c.Threads), cmp.Or(m.CacheMiB, c.CacheMiB)
	}
	if len(c.Listen) == 0 {
		c.Listen = slices.Clone(h.Listen)
	}
	also := func(named []netip.AddrPort, port uint16) []netip.AddrPort {
		if len(named) > 0 || port == 0 {
			return named
		}
		var all []netip.AddrPort
		for _, a := range c.Listen {
			if at := netip.AddrPortFrom(a.Addr(), port); !slices.Contains(all, at) {
				all = append(all, at)
			}
		}
		return all
	}
	if c.TLS != nil {
		t := *c.TLS
		t.DoT, t.DoH = also(t.DoT, p.Ports.DoT), also(t.DoH, p.Ports.DoH)
		c.TLS = &t
	}
	if c.ProxyProtocol != nil {
		x := *c.ProxyProtocol
		x.Listen = also(x.Listen, p.Ports.Proxy)
		c.ProxyProtocol = &x
	}
	if err := p.source(&c, h); err != nil {
		return nil, err
	}
	return &c, p.place(&c, h.Files)
}

// source fills in where questions come from.
func (p *Pool) source(c *engine.Config, h Host) error {
	if len(c.Source) > 0 {
		return nil
	}
	from := func(a netip.Addr) {
		if !a.IsUnspecified() && !slices.ContainsFunc(c.Source, func(s netip.Addr) bool { return s.Is4() == a.Is4() }) {
			c.Source = append(c.Source, a)
		}
	}
	for _, a := range h.Addresses {
		if a = a.Unmap(); slices.ContainsFunc(p.SourceNetworks, func(n netip.Prefix) bool { return n.Contains(a) }) {
			from(a)
		}
	}
	switch {
	case len(p.SourceNetworks) == 0:
		for _, a := range c.Listen {
			from(a.Addr().Unmap())
		}
	case len(c.Source) == 0:
		return &engine.ConfigError{Field: "sourceNetworks", Defect: fmt.Sprintf("are %v, and none of this machine's addresses is in them", p.SourceNetworks)}
	}
	return nil
}

// place has the paths that stand for Files lead to where these are written.
func (p *Pool) place(c *engine.Config, folder string) error {
	var errs []error
	at := func(field string, path engine.Path) engine.Path {
		name, stands := strings.CutPrefix(path.String(), FilesFolder+"/")
		if !stands {
			return path
		}
		placed, err := engine.ParsePath(folder + "/" + name)
		if _, ok := p.Files[name]; !ok || err != nil {
			errs = append(errs, &engine.ConfigError{Field: field, Defect: fmt.Sprintf("is %s, and there is no such file", path)})
		}
		return placed
	}
	if c.TLS != nil {
		c.TLS.Certificate, c.TLS.Key = at("tls.certificate", c.TLS.Certificate), at("tls.key", c.TLS.Key)
	}
	c.Forward = slices.Clone(c.Forward)
	for i, f := range c.Forward {
		f.Upstreams = slices.Clone(f.Upstreams)
		for j, u := range f.Upstreams {
			if u.TLS != nil {
				f.Upstreams[j].TLS = &engine.UpstreamTLS{Name: u.TLS.Name, CA: at(fmt.Sprintf("forward[%d].upstreams[%d].tls.ca", i, j), u.TLS.CA)}
			}
		}
		c.Forward[i] = f
	}
	c.Block.RPZ = slices.Clone(c.Block.RPZ)
	for i, z := range c.Block.RPZ {
		c.Block.RPZ[i].File = at(fmt.Sprintf("block.rpz[%d].file", i), z.File)
	}
	return errors.Join(errs...)
}

// Digest identifies the text of a Pool: 16 hexadecimal digits.
func Digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// groupPrefix keeps pools and groups of servers apart: those are DNS labels, without a dot.
const groupPrefix = "pool."

// GroupName is the group that the certificates of a pool's agents are for. The pool's name is a DNS label.
func GroupName(namespace, name string) string { return groupPrefix + namespace + "." + name }

// ParseGroup is the reverse of GroupName; ok is false for the group of another kind of servers.
func ParseGroup(group string) (namespace, name string, ok bool) {
	rest, is := strings.CutPrefix(group, groupPrefix)
	namespace, name, cut := strings.Cut(rest, ".")
	return namespace, name, is && cut && namespace != "" && name != "" && !strings.Contains(name, ".")
}
