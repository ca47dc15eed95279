package steering

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Limits of a Record.
const (
	MaxPools    = 16
	MaxTargets  = 64 // in all pools together
	MaxRules    = 16
	MaxNetworks = 64 // of a rule
	MaxProbes   = 256
	MaxServices = 8
	MaxFallback = 16
	// MaxParts bounds how many checks a Calculated probe comes to, parts of parts included, and
	// MaxPoolProbes the probes, and the gates, of one pool.
	MaxParts      = 256
	MaxPoolProbes = 16
	// MaxPlaces bounds the combinations of rules, countries, continents and network operators that
	// pools tell apart.
	MaxPlaces   = 1 << 14
	maxWeight   = 1 << 16
	maxDuration = 366 * 24 * time.Hour
)

// Record is one steered name as a server knows it. It is immutable, for any number of goroutines.
type Record struct {
	Source string    // namespace/name of the DynamicRecord
	Owner  zone.Name // that answers
	// Host is the owner of the addresses: Owner, but for SRV.
	Host zone.Name
	// SRV is the index of the service that Owner answers, -1 at the host itself.
	SRV int

	TTL      uint32 // seconds
	LeastTTL uint32 // near a possible flip; TTL if it is not derived

	Policy steeringpb.Policy
	Pools  []Pool // 1 to MaxPools
	Names  bool   // targets are names, else addresses
	Rules  []Rule
	Probes []Probe

	WhenAllDown steeringpb.AllDown
	Fallback    []Target // for AllDown_FALLBACK, else empty

	ManualFailover bool
	ManualFailback bool
	FailbackDelay  time.Duration
	HoldOnPeerLoss bool
	Hysteresis     int // percent, of the policy Latency

	Flatten   bool // Names are looked up
	Resolvers []netip.AddrPort
	Services  []Service
	RTO       time.Duration // 0: none stated

	rules *zone.Locator // location n+1 is rule n; nil without rules
	last  atomic.Pointer[plan]
}

// Pool is some targets that are chosen together.
type Pool struct {
	Name       string
	Datacenter string // empty: in none
	Policy     steeringpb.PoolPolicy
	Weight     uint32
	MinHealthy int // at least 1
	MaxAnswers int // 0: all
	Targets    []Target
	Probes     []int // of each target, indexes into Record.Probes; none: always up
	Gates      []int
	Geo        Geo
}

// Target is an address, or a name.
type Target struct {
	Address netip.Addr
	Name    zone.Name
	Weight  uint32
	Port    uint16 // 0: the service's
	Probed  string // what probes ask: an address or a name
}

// String returns the address or the name without its final dot, as users write it.
func (t *Target) String() string {
	if t.Address.IsValid() {
		return t.Address.String()
	}
	if t.Name == zone.Root {
		return "."
	}
	return strings.TrimSuffix(t.Name.String(), ".")
}

// Geo is the clients that a pool is for; empty: those that no other pool is for.
type Geo struct {
	Countries  []string
	Continents []string
	ASNs       []uint32
}

func (g *Geo) empty() bool { return len(g.Countries)+len(g.Continents)+len(g.ASNs) == 0 }

// Rule sends clients of networks to some of the pools.
type Rule struct {
	Networks []netip.Prefix
	Pools    []int // indexes
}

// Probe is one of the record's.
type Probe struct {
	// Spec is shared: nobody may change it. Two probes whose specs are encoded alike are one.
	Spec *steeringpb.Probe
	// Of is the parts of a Calculated probe, of which AtLeast must be up; nil for one that is run.
	Of      []int
	AtLeast int
}

// Service is an RRset beside the addresses.
type Service struct {
	Kind  steeringpb.Service_Kind
	Label string
	Port  uint16
	Alpn  []string
}

// RecordError says why octets are no record, or what is wrong with it.
type RecordError struct{ Defect string }

func (e *RecordError) Error() string { return "steered record: " + e.Defect }

// Reason is the reason of the condition that the error becomes.
func (*RecordError) Reason() string { return "InvalidSpec" }

func defect(format string, args ...any) error { return &RecordError{fmt.Sprintf(format, args...)} }

// Decode reads the rdata of the TypeSteered record at an owner. It is total: octets are a Record that
// everything in this package takes, or an error.
func Decode(owner zone.Name, rdata string) (*Record, error) {
	var m steeringpb.Record
	if err := proto.Unmarshal([]byte(rdata), &m); err != nil {
		return nil, defect("does not decode: %v", err)
	}
	return NewRecord(owner, &m)
}

// NewRecord checks what servers are told at an owner and keeps references to it.
func NewRecord(owner zone.Name, m *steeringpb.Record) (*Record, error) {
	r := &Record{
		Source: m.GetSource(), Owner: owner, Host: owner, SRV: -1, TTL: m.GetTtl(), LeastTTL: m.GetTtlMin(),
		Policy: m.GetPolicy(), WhenAllDown: m.GetWhenAllDown(),
		ManualFailover: m.GetFailoverManual(), ManualFailback: m.GetFailbackManual(), HoldOnPeerLoss: m.GetHoldOnPeerLoss(),
		Hysteresis: int(min(m.GetLatency().GetHysteresisPercent(), 99)), Flatten: m.GetFlatten(),
	}
	for _, step := range []func(*steeringpb.Record) error{
		r.readHead, r.readProbes, r.readPools, r.readRules, r.readFallback, r.readServices, r.readResolvers,
	} {
		if err := step(m); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *Record) readHead(m *steeringpb.Record) (err error) {
	if r.TTL > zone.MaxTTL {
		return defect("ttl %d is above %d", r.TTL, zone.MaxTTL)
	}
	if r.LeastTTL == 0 || r.LeastTTL > r.TTL {
		r.LeastTTL = r.TTL
	}
	if steeringpb.Policy_name[int32(r.Policy)] == "" {
		return defect("policy %d is not known", r.Policy)
	}
	if steeringpb.AllDown_name[int32(r.WhenAllDown)] == "" {
		return defect("whenAllDown %d is not known", r.WhenAllDown)
	}
	if r.FailbackDelay, err = duration("failback delay", m.GetFailbackDelay()); err != nil {
		return err
	}
	r.RTO, err = duration("rto", m.GetRto())
	return err
}

// duration reads milliseconds.
func duration(what string, ms uint64) (time.Duration, error) {
	if ms > uint64(maxDuration/time.Millisecond) {
		return 0, defect("%s of %d ms is too long", what, ms)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func (r *Record) readProbes(m *steeringpb.Record) error {
	if len(m.GetProbes()) > MaxProbes {
		return defect("%d probes, at most %d", len(m.GetProbes()), MaxProbes)
	}
	for i, spec := range m.GetProbes() {
		p := Probe{Spec: spec}
		for _, ms := range []uint64{spec.GetInterval(), spec.GetIdleInterval(), spec.GetTimeout(), spec.GetHoldDown()} {
			if _, err := duration(fmt.Sprintf("probe %d: a time", i), ms); err != nil {
				return err
			}
		}
		if steeringpb.Vantage_name[int32(spec.GetVantage())] == "" {
			return defect("probe %d: vantage %d is not known", i, spec.GetVantage())
		}
		if c := spec.GetCalculated(); c != nil {
			if len(c.GetProbes()) == 0 || len(c.GetProbes()) > 64 || int(c.GetAtLeast()) > len(c.GetProbes()) {
				return defect("probe %d: at least %d of %d others", i, c.GetAtLeast(), len(c.GetProbes()))
			}
			p.AtLeast = max(1, int(c.GetAtLeast()))
			for _, part := range c.GetProbes() {
				if int64(part) >= int64(len(m.GetProbes())) {
					return defect("probe %d is calculated of probe %d of %d", i, part, len(m.GetProbes()))
				}
				p.Of = append(p.Of, int(part))
			}
		}
		r.Probes = append(r.Probes, p)
	}
	parts := make([]int, len(r.Probes))
	for i := range r.Probes {
		switch n := r.parts(i, parts); {
		case n < 0:
			return defect("probe %d is calculated of itself", i)
		case n > MaxParts:
			return defect("probe %d is calculated of more than %d others", i, MaxParts)
		}
	}
	return nil
}

// parts counts the checks that a probe comes to, up to MaxParts+1; -1 if it is calculated of itself.
// known has what was counted before, -1 while a probe is being counted.
func (r *Record) parts(probe int, known []int) int {
	if known[probe] != 0 {
		return known[probe]
	}
	known[probe] = -1
	count := 0
	for _, part := range r.Probes[probe].Of {
		n := r.parts(part, known)
		if n < 0 {
			return -1
		}
		count = min(count+n, MaxParts+1)
	}
	known[probe] = max(count, 1)
	return known[probe]
}

func (r *Record) readPools(m *steeringpb.Record) error {
	if n := len(m.GetPools()); n == 0 || n > MaxPools {
		return defect("%d pools, wanted 1 to %d", n, MaxPools)
	}
	seen := map[string]bool{}
	targets := 0
	for i, p := range m.GetPools() {
		if p.GetName() == "" || seen[p.GetName()] {
			return defect("pool %d has the name %q, which is empty or another's", i, p.GetName())
		}
		seen[p.GetName()] = true
		pool, err := r.readPool(p, i == 0)
		if err != nil {
			return err
		}
		r.Pools = append(r.Pools, pool)
		if targets += len(pool.Targets); targets > MaxTargets {
			return defect("more than %d targets", MaxTargets)
		}
	}
	return nil
}

func (r *Record) readPool(p *steeringpb.Pool, first bool) (pool Pool, err error) {
	pool = Pool{
		Name: p.GetName(), Datacenter: p.GetDatacenter(), Policy: p.GetPolicy(), Weight: p.GetWeight(),
		MinHealthy: int(max(1, p.GetMinHealthy())), MaxAnswers: int(min(p.GetMaxAnswers(), MaxTargets)),
		Geo: Geo{Countries: p.GetGeo().GetCountries(), Continents: p.GetGeo().GetContinents(), ASNs: p.GetGeo().GetAsns()},
	}
	if steeringpb.PoolPolicy_name[int32(pool.Policy)] == "" {
		return pool, defect("pool %s: policy %d is not known", pool.Name, pool.Policy)
	}
	if pool.Weight > maxWeight {
		return pool, defect("pool %s: weight %d is above %d", pool.Name, pool.Weight, maxWeight)
	}
	if pool.Probes, err = r.probeIndexes(pool.Name, p.GetProbes()); err != nil {
		return pool, err
	}
	if pool.Gates, err = r.probeIndexes(pool.Name, p.GetGates()); err != nil {
		return pool, err
	}
	if len(p.GetTargets()) == 0 {
		return pool, defect("pool %s has no targets", pool.Name)
	}
	known := map[string]bool{}
	for i, text := range p.GetTargets() {
		t, err := readTarget(text.GetAddress(), text.GetName())
		if err != nil {
			return pool, defect("pool %s: %v", pool.Name, err)
		}
		if text.GetWeight() > maxWeight || text.GetPort() > 1<<16-1 {
			return pool, defect("pool %s: target %s: weight %d or port %d is too high", pool.Name, &t, text.GetWeight(), text.GetPort())
		}
		t.Weight, t.Port, t.Probed = text.GetWeight(), uint16(text.GetPort()), t.String()
		if a := text.GetProbeAddress(); a != "" {
			if _, err := netip.ParseAddr(a); err != nil {
				return pool, defect("pool %s: target %s: probe address %q is none", pool.Name, &t, a)
			}
			t.Probed = a
		}
		isName := t.Name != ""
		if first && i == 0 {
			r.Names = isName
		}
		switch {
		case isName != r.Names:
			return pool, defect("pool %s: target %s: targets must be all addresses or all names", pool.Name, &t)
		case t.Name == r.Owner:
			return pool, defect("pool %s: target %s is the record itself", pool.Name, &t)
		case known[t.String()]:
			return pool, defect("pool %s has target %s twice", pool.Name, &t)
		}
		known[t.String()] = true
		pool.Targets = append(pool.Targets, t)
	}
	return pool, nil
}

func (r *Record) probeIndexes(pool string, indexes []uint32) (all []int, err error) {
	if len(indexes) > MaxPoolProbes {
		return nil, defect("pool %s has %d probes, at most %d", pool, len(indexes), MaxPoolProbes)
	}
	for _, i := range indexes {
		if int64(i) >= int64(len(r.Probes)) {
			return nil, defect("pool %s has probe %d of %d", pool, i, len(r.Probes))
		}
		all = append(all, int(i))
	}
	return all, nil
}

// readTarget reads an address or a name in presentation form, exactly one of which is given.
func readTarget(address, name string) (t Target, err error) {
	if (address == "") == (name == "") {
		return t, fmt.Errorf("a target has both an address %q and a name %q, or neither", address, name)
	}
	if address != "" {
		if t.Address, err = netip.ParseAddr(address); err != nil {
			return t, fmt.Errorf("target %q is no address", address)
		}
		if t.Address.Zone() != "" || t.Address.IsUnspecified() || t.Address.Is4In6() {
			return t, fmt.Errorf("target %s is no address that clients can reach", address)
		}
		return t, nil
	}
	if t.Name, err = zone.ParseName(name, ""); err != nil {
		return t, fmt.Errorf("target: %w", err)
	}
	return t, nil
}

func (r *Record) readRules(m *steeringpb.Record) error {
	if len(m.GetRules()) > MaxRules {
		return defect("%d rules, at most %d", len(m.GetRules()), MaxRules)
	}
	for i, text := range m.GetRules() {
		rule := Rule{}
		if n := len(text.GetNetworks()); n == 0 || n > MaxNetworks {
			return defect("rule %d has %d networks, wanted 1 to %d", i, n, MaxNetworks)
		}
		for _, n := range text.GetNetworks() {
			p, err := netip.ParsePrefix(n)
			if err != nil {
				return defect("rule %d: %q is no network", i, n)
			}
			rule.Networks = append(rule.Networks, p)
		}
		for _, name := range text.GetPools() {
			index := r.poolIndex(name)
			if index < 0 {
				return defect("rule %d names pool %q, which there is not", i, name)
			}
			if !slices.Contains(rule.Pools, index) {
				rule.Pools = append(rule.Pools, index)
			}
		}
		if len(rule.Pools) == 0 {
			return defect("rule %d names no pool", i)
		}
		r.Rules = append(r.Rules, rule)
	}
	if places := (1 + len(r.Rules)) * r.geoPlaces(); places > MaxPlaces {
		return defect("rules and pools tell %d kinds of clients apart, at most %d", places, MaxPlaces)
	}
	if len(r.Rules) == 0 {
		return nil
	}
	var err error
	if r.rules, err = r.ruleLocator(nil); err != nil {
		return defect("%v", err)
	}
	return nil
}

// ruleLocator locates clients: 0 those in no rule, 1 those that are blocked, if any are, then those of
// each rule. A block goes before all rules, and among these the first counts.
func (r *Record) ruleLocator(blocked []netip.Prefix) (*zone.Locator, error) {
	var places []zone.Place
	first := 1
	if len(blocked) > 0 {
		first = 2
	}
	for _, p := range blocked {
		places = append(places, zone.Place{Network: p, Location: 1})
	}
	for i, rule := range r.Rules {
		for _, p := range rule.Networks {
			places = append(places, zone.Place{Network: p, Location: uint16(first + i)})
		}
	}
	return zone.NewLocator(first+len(r.Rules), places, zone.Lowest)
}

// AliasTo returns the names that Owner may answer to be an alias of, each once, sorted; none of nil, of addresses and of names
// that are flattened.
func (r *Record) AliasTo() []zone.Name {
	if r == nil || !r.Names || r.Flatten || r.SRV >= 0 {
		return nil
	}
	var all []zone.Name
	for i := range r.Pools {
		for j := range r.Pools[i].Targets {
			all = append(all, r.Pools[i].Targets[j].Name)
		}
	}
	for i := range r.Fallback {
		all = append(all, r.Fallback[i].Name)
	}
	all = slices.DeleteFunc(all, func(n zone.Name) bool { return n == "" }) // a fallback may be addresses
	slices.SortFunc(all, zone.Name.Compare)
	return slices.Compact(all)
}

func (r *Record) poolIndex(name string) int {
	return slices.IndexFunc(r.Pools, func(p Pool) bool { return p.Name == name })
}

func (r *Record) readFallback(m *steeringpb.Record) error {
	if r.WhenAllDown != steeringpb.AllDown_FALLBACK {
		return nil
	}
	if n := len(m.GetFallback()); n == 0 || n > MaxFallback {
		return defect("%d fallbacks, wanted 1 to %d", n, MaxFallback)
	}
	for _, text := range m.GetFallback() {
		var t Target
		var err error
		if _, isAddress := netip.ParseAddr(text); isAddress == nil {
			t, err = readTarget(text, "")
		} else {
			t, err = readTarget("", text)
		}
		if err != nil {
			return defect("fallback: %v", err)
		}
		t.Weight, t.Probed = 1, t.String()
		r.Fallback = append(r.Fallback, t)
	}
	if r.Fallback[0].Name != "" && len(r.Fallback) > 1 || slices.ContainsFunc(r.Fallback[1:], func(t Target) bool { return t.Name != "" }) {
		return defect("fallbacks are addresses, or one name")
	}
	if r.Fallback[0].Name == r.Owner {
		return defect("the fallback is the record itself")
	}
	if r.Fallback[0].Name != "" && !r.Names {
		return defect("the fallback %s is a name: it would be answered as an alias, which can't take turns with addresses", &r.Fallback[0])
	}
	return nil
}

func (r *Record) readServices(m *steeringpb.Record) (err error) {
	if len(m.GetServices()) > MaxServices {
		return defect("%d services, at most %d", len(m.GetServices()), MaxServices)
	}
	for i, s := range m.GetServices() {
		if steeringpb.Service_Kind_name[int32(s.GetKind())] == "" || s.GetPort() > 1<<16-1 || len(s.GetAlpn()) > 8 {
			return defect("service %d: kind %d, port %d, %d protocols", i, s.GetKind(), s.GetPort(), len(s.GetAlpn()))
		}
		for _, id := range s.GetAlpn() {
			if id == "" || len(id) > 32 {
				return defect("service %d: %q is no protocol", i, id)
			}
		}
		if s.GetKind() == steeringpb.Service_HTTPS && r.Names && !r.Flatten {
			return defect("service %d: HTTPS can't stand beside an alias", i)
		}
		r.Services = append(r.Services, Service{Kind: s.GetKind(), Label: s.GetLabel(), Port: uint16(s.GetPort()), Alpn: s.GetAlpn()})
		if s.GetKind() == steeringpb.Service_SRV && m.GetSrvLabel() != "" && m.GetSrvLabel() == s.GetLabel() {
			r.SRV = i
		}
	}
	if m.GetSrvLabel() != "" {
		if r.SRV < 0 {
			return defect("there is no SRV service %q", m.GetSrvLabel())
		}
		if r.Host, err = zone.ParseName(m.GetHost(), ""); err != nil {
			return defect("host: %v", err)
		}
	}
	if len(r.Services) == 0 || r.Names && !r.Flatten {
		return nil // names have each their own port
	}
	for _, p := range r.Pools {
		for _, t := range p.Targets {
			if t.Port != p.Targets[0].Port {
				return defect("pool %s: its addresses have different ports, and all are answered under one name: use names as targets, or a pool for each port", p.Name)
			}
		}
	}
	return nil
}

func (r *Record) readResolvers(m *steeringpb.Record) error {
	if r.Flatten && !r.Names {
		return defect("flatten is for targets that are names")
	}
	if len(m.GetResolvers()) > 8 {
		return defect("%d resolvers, at most 8", len(m.GetResolvers()))
	}
	for _, text := range m.GetResolvers() {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return defect("resolver %q is no address with a port", text)
		}
		r.Resolvers = append(r.Resolvers, a)
	}
	return nil
}

// DecodeZoneSettings reads the rdata of the TypeZoneSettings record at an apex: the networks of
// resolvers whose ECS is believed.
func DecodeZoneSettings(rdata string) (trusted []netip.Prefix, err error) {
	var m steeringpb.ZoneSettings
	if err := proto.Unmarshal([]byte(rdata), &m); err != nil {
		return nil, fmt.Errorf("zone settings do not decode: %w", err)
	}
	for _, text := range m.GetEcsTrusted() {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("zone settings: trusted resolvers: %q is no network", text)
		}
		trusted = append(trusted, p)
	}
	return trusted, nil
}
