// Package pool is what managers and the agents of a pool of recursive servers tell each other: what each server is to do, and
// what became of it.
package pool

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

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
	// Drain is how long the engine answers on, unready, before it is stopped; 0 stands for 5s.
	Drain engine.Duration `json:"drain,omitempty"`
}

// Notifiers are authoritative servers, as HOST:PORT of their peer listeners. With none, names are flushed by request alone.
type Notifiers struct {
	Local  []string `json:"local,omitempty"`  // of the agent's datacenter: all are listened to
	Others []string `json:"others,omitempty"` // of other datacenters: listened to while no local one is connected
}

// MaxKeepWarm bounds Pool.KeepWarm.
const MaxKeepWarm = 1000

const (
	defaultDrain = 5 * time.Second
	maxDrain     = 10 * time.Minute
	maxNotifiers = 256 // of each kind
)

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
	if time.Duration(p.Drain) > maxDrain {
		fault("drain", "is %s, and may be %s", p.Drain, maxDrain)
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
	return errors.Join(errs...)
}

// At is the engine's part for a server that clients ask at these addresses. Where the Pool itself names addresses, those are
// meant. Where it has no source, questions to authorities come from the first of the addresses of each family.
func (p *Pool) At(listen []netip.AddrPort) *engine.Config {
	c := p.Config
	if len(c.Listen) == 0 {
		c.Listen = slices.Clone(listen)
	}
	if len(c.Source) == 0 {
		for _, a := range c.Listen {
			of := a.Addr().Unmap()
			if !of.IsUnspecified() && !slices.ContainsFunc(c.Source, func(s netip.Addr) bool { return s.Is4() == of.Is4() }) {
				c.Source = append(c.Source, of)
			}
		}
	}
	return &c
}

// DrainFor is Drain, or what 0 stands for.
func (p *Pool) DrainFor() time.Duration { return cmp.Or(time.Duration(p.Drain), defaultDrain) }

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
