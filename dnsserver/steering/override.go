package steering

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Action is what an override does.
type Action uint8

// Actions in the order in which they decide: an earlier one goes before a later.
const (
	Freeze Action = iota
	Force
	Drain
	Failback
	RaiseTTL
	Block
)

func (a Action) String() string {
	return [...]string{"Freeze", "Force", "Drain", "Failback", "RaiseTTL", "Block"}[a]
}

// Override is a TrafficOverride or a break-glass one. It is immutable.
type Override struct {
	Source           string
	Reason           string
	Created, Expires time.Time
	Action           Action

	// Datacenter, Pool and Target say what Drain and Force are about: what is in all that are given.
	Datacenter, Pool, Target string
	KeepAtLeast              int  // healthy targets that Drain leaves
	IgnoreHealth             bool // of Force
	TTL                      uint32
	Networks                 []netip.Prefix // of Block

	all     bool
	records map[string]bool // sources
}

// DecodeOverrides reads the document that has all overrides.
func DecodeOverrides(document []byte) ([]*Override, error) {
	var m steeringpb.Overrides
	if err := proto.Unmarshal(document, &m); err != nil {
		return nil, fmt.Errorf("overrides do not decode: %w", err)
	}
	var all []*Override
	for _, o := range m.GetOverrides() {
		read, err := NewOverride(o)
		if err != nil {
			return nil, err
		}
		all = append(all, read)
	}
	return all, nil
}

// Forgotten returns the sources of overrides in force that the list before has from another cluster than that of the next list,
// and that the next one neither has nor says to be ended; sorted. Lists without a cluster end what they do not have.
func Forgotten(before, next *steeringpb.Overrides, now time.Time) []string {
	if next.GetCluster() == "" {
		return nil
	}
	var lost []string
	for _, o := range before.GetOverrides() {
		if o.GetCluster() == "" || o.GetCluster() == next.GetCluster() || !unixMilli(o.GetExpires()).After(now) || slices.Contains(next.GetEnded(), o.GetSource()) {
			continue
		}
		if !slices.ContainsFunc(next.GetOverrides(), func(n *steeringpb.Override) bool { return n.GetSource() == o.GetSource() }) {
			lost = append(lost, o.GetSource())
		}
	}
	slices.Sort(lost)
	return lost
}

// NewOverride reads one override.
func NewOverride(m *steeringpb.Override) (*Override, error) {
	o := &Override{
		Source: m.GetSource(), Reason: m.GetReason(), Created: unixMilli(m.GetCreated()), Expires: unixMilli(m.GetExpires()),
		KeepAtLeast: int(min(m.GetKeepAtLeast(), MaxTargets)), all: m.GetAllRecords(),
	}
	fault := func(format string, args ...any) error {
		return fmt.Errorf("override %s: %s", o.Source, fmt.Sprintf(format, args...))
	}
	if o.Source == "" {
		return nil, fault("has no source")
	}
	if len(m.GetRecords()) > 0 {
		o.records = make(map[string]bool, len(m.GetRecords()))
		for _, source := range m.GetRecords() {
			o.records[source] = true
		}
	}
	switch action := m.GetAction().(type) {
	case *steeringpb.Override_Drain:
		o.Action = Drain
		o.Datacenter, o.Pool, o.Target = action.Drain.GetDatacenter(), action.Drain.GetPool(), canonicalTarget(action.Drain.GetTarget())
	case *steeringpb.Override_Force:
		o.Action, o.IgnoreHealth = Force, action.Force.GetIgnoreHealth()
		o.Datacenter, o.Pool, o.Target = action.Force.GetDatacenter(), action.Force.GetPool(), canonicalTarget(action.Force.GetTarget())
	case *steeringpb.Override_Freeze:
		o.Action = Freeze
	case *steeringpb.Override_Failback:
		o.Action = Failback
	case *steeringpb.Override_RaiseTtl:
		o.Action, o.TTL = RaiseTTL, min(action.RaiseTtl.GetTtl(), zone.MaxTTL)
	case *steeringpb.Override_Block:
		o.Action = Block
		for _, text := range action.Block.GetNetworks() {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fault("%q is no network", text)
			}
			o.Networks = append(o.Networks, p)
		}
		if len(o.Networks) == 0 {
			return nil, fault("blocks no networks")
		}
	default:
		return nil, fault("has no action")
	}
	if (o.Action == Drain || o.Action == Force) && o.Datacenter == "" && o.Pool == "" && o.Target == "" {
		return nil, fault("names neither datacenter, pool nor target")
	}
	return o, nil
}

func unixMilli(ms uint64) time.Time {
	return time.UnixMilli(int64(min(ms, math.MaxInt64/1000000))).UTC()
}

// canonicalTarget writes an address or a name as Target.String does.
func canonicalTarget(text string) string {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.String()
	}
	if n, err := zone.ParseName(text, ""); err == nil {
		t := Target{Name: n}
		return t.String()
	}
	return text
}

// Concerns reports whether the override may act on the records of a source.
func (o *Override) Concerns(source string) bool { return o.all || o.records[source] }

// InForce reports whether the override has not ended. It begins when a server learns of it.
func (o *Override) InForce(now time.Time) bool { return now.Before(o.Expires) }

// narrowness orders overrides of one action: the higher goes first.
func (o *Override) narrowness() int {
	n := 0
	for i, given := range []bool{!o.all, o.Datacenter != "", o.Pool != "", o.Target != ""} {
		if given {
			n |= 1 << i
		}
	}
	return n
}

// covers reports whether the override is about a target of a pool.
func (o *Override) covers(p *Pool, target string) bool {
	return (o.Datacenter == "" || o.Datacenter == p.Datacenter) && (o.Pool == "" || o.Pool == p.Name) && (o.Target == "" || o.Target == target)
}

// about says what Drain and Force are about.
func (o *Override) about() string {
	var parts []string
	for _, part := range [][2]string{{"datacenter", o.Datacenter}, {"pool", o.Pool}, {"target", o.Target}} {
		if part[1] != "" {
			parts = append(parts, part[0]+" "+part[1])
		}
	}
	return strings.Join(parts, ", ")
}

// Order sorts overrides by precedence: Freeze, Force, Drain, then the others; of one action the
// narrower, then the older, then by source.
func Order(all []*Override) {
	slices.SortFunc(all, func(a, b *Override) int {
		return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(b.narrowness(), a.narrowness()),
			a.Created.Compare(b.Created), cmp.Compare(a.Source, b.Source))
	})
}

// Effect is what an override in force does to one record.
type Effect struct {
	Source string
	Action Action
	// Acts: it has a part in what is answered.
	Acts bool
	// Text says what it does, or why it does nothing.
	Text string
}
