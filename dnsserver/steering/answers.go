package steering

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// seed keys what is picked for clients of a host. Its SRV owners have the same.
func seed(key []byte, host zone.Name) uint64 {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(key))))
	h.Write(key)
	h.Write([]byte(host))
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// identity is what rendezvous hashing knows a pool or a target by.
func identity(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}

// resolve returns the addresses of a name that is flattened; none if it has none or is not known.
func resolve(in *Inputs, t *Target) []netip.Addr {
	if in.Resolved == nil {
		return nil
	}
	addresses, _, ok := in.Resolved(t.Name)
	if !ok {
		return nil
	}
	return addresses
}

// part is a set of targets that is answered, with what of a pool matters for that.
type part struct {
	pool    *Pool
	targets []Target // in the order of the pool
}

// answered returns what a pool answers with some of its targets.
func answered(p *Pool, set targets) part {
	out := part{pool: p}
	for i := range p.Targets {
		if set.has(i) {
			out.targets = append(out.targets, p.Targets[i])
		}
	}
	return out
}

// sets makes the RRsets of a part.
func (r *Record) sets(in *Inputs, p part, ttl uint32) []zone.Set {
	switch {
	case r.SRV >= 0:
		return []zone.Set{r.srv(p, ttl)}
	case p.targets[0].Name != "" && !r.Flatten:
		return []zone.Set{names(p, ttl)}
	}
	all := addressesOf(in, p)
	var sets []zone.Set
	for _, typ := range []uint16{zone.TypeA, zone.TypeAAAA} {
		if s, ok := addresses(p.pool, all, typ, ttl); ok {
			sets = append(sets, s)
		}
	}
	for i := range r.Services {
		if s := &r.Services[i]; s.Kind == steeringpb.Service_HTTPS && len(sets) > 0 {
			sets = append(sets, https(s, p, sets, ttl))
			break // one RRset of the type
		}
	}
	return sets
}

// address is one with the weight that it has in its pool.
type address struct {
	netip.Addr
	weight uint32
}

// shareOf is what the addresses of a name divide among themselves; all numbers up to 8 divide it.
const shareOf = 840

// addressesOf returns the addresses of a part, each once, and no more than MaxTargets.
func addressesOf(in *Inputs, p part) []address {
	all := make([]address, 0, len(p.targets))
	for i := range p.targets {
		t := &p.targets[i]
		if t.Name == "" {
			all = append(all, address{t.Address, t.Weight})
			continue
		}
		found := resolve(in, t)
		for _, a := range found {
			if a = a.Unmap(); !slices.ContainsFunc(all, func(b address) bool { return b.Addr == a }) {
				all = append(all, address{a, t.Weight * shareOf / uint32(len(found))})
			}
		}
	}
	return all[:min(len(all), MaxTargets)]
}

// addresses makes an RRset of those that are of the type; ok false if none is.
func addresses(p *Pool, all []address, typ uint16, ttl uint32) (s zone.Set, ok bool) {
	s = zone.Set{Type: typ, TTL: ttl}
	for _, a := range all {
		if a.Is4() == (typ == zone.TypeA) {
			s.RData = append(s.RData, a.AsSlice())
			s.Weights = append(s.Weights, a.weight)
			s.IDs = append(s.IDs, identity(a.String()))
		}
	}
	pick(&s, p, zone.PickRotate)
	return s, len(s.RData) > 0
}

// names makes the RRset of an alias.
func names(p part, ttl uint32) zone.Set {
	s := zone.Set{Type: zone.TypeCNAME, TTL: ttl}
	for i := range p.targets {
		t := &p.targets[i]
		s.RData = append(s.RData, []byte(t.Name))
		s.Weights = append(s.Weights, t.Weight)
		s.IDs = append(s.IDs, identity(t.String()))
	}
	pick(&s, p.pool, zone.PickTurn)
	return s
}

// pick has a set answered as its pool wants it. In turn is how RoundRobin is done.
func pick(s *zone.Set, p *Pool, inTurn zone.Pick) {
	s.Max = p.MaxAnswers
	switch p.Policy {
	case steeringpb.PoolPolicy_POOL_ROUND_ROBIN:
		s.Pick, s.Weights, s.IDs = inTurn, nil, nil
		return
	case steeringpb.PoolPolicy_POOL_WEIGHTED:
		s.Pick, s.IDs = zone.PickWeighted, nil
		if !slices.ContainsFunc(s.Weights, func(w uint32) bool { return w > 0 }) {
			for i := range s.Weights {
				s.Weights[i] = 1
			}
		}
	case steeringpb.PoolPolicy_POOL_CLIENT_HASH:
		s.Pick, s.Weights = zone.PickHash, nil
	default:
		s.Pick, s.Weights, s.IDs = zone.PickFirst, nil, nil
	}
	s.Max = max(s.Max, 1)
}

// srv makes the SRV RRset (RFC 2782): names have each their record, addresses are those of the host.
// Clients choose among the records as the pool would: by weight, or in the order of priority.
func (r *Record) srv(p part, ttl uint32) zone.Set {
	service := &r.Services[r.SRV]
	s := zone.Set{Type: zone.TypeSRV, TTL: ttl}
	add := func(priority, weight int, port uint16, name zone.Name) {
		if port == 0 {
			port = service.Port
		}
		b := binary.BigEndian.AppendUint16(nil, uint16(priority))
		b = binary.BigEndian.AppendUint16(b, uint16(min(weight, 1<<16-1)))
		b = binary.BigEndian.AppendUint16(b, port)
		s.RData = append(s.RData, append(b, name...))
	}
	if p.targets[0].Name == "" || r.Flatten {
		add(0, 0, p.targets[0].Port, r.Host) // all have the same port
		return s
	}
	for i := range p.targets {
		t := &p.targets[i]
		switch p.pool.Policy {
		case steeringpb.PoolPolicy_POOL_FAILOVER:
			add(i, 0, t.Port, t.Name)
		case steeringpb.PoolPolicy_POOL_WEIGHTED:
			add(0, int(t.Weight), t.Port, t.Name)
		default:
			add(0, 1, t.Port, t.Name)
		}
		s.IDs = append(s.IDs, identity(t.String()))
	}
	s.Max = p.pool.MaxAnswers
	if p.pool.Policy == steeringpb.PoolPolicy_POOL_CLIENT_HASH {
		s.Pick, s.Max = zone.PickHash, max(s.Max, 1)
	}
	return s
}

// Keys of HTTPS parameters (RFC 9460 §14.3.2).
const (
	paramALPN     = 1
	paramPort     = 3
	paramIPv4Hint = 4
	paramIPv6Hint = 6
)

// https makes the HTTPS RRset (RFC 9460): one record in service mode about the owner itself. The
// addresses are hints if all clients get them: who picks one is to ask for it.
func https(service *Service, p part, addresses []zone.Set, ttl uint32) zone.Set {
	rdata := []byte{0, 1, 0} // priority 1, target "."
	param := func(key uint16, value []byte) {
		rdata = binary.BigEndian.AppendUint16(rdata, key)
		rdata = binary.BigEndian.AppendUint16(rdata, uint16(len(value)))
		rdata = append(rdata, value...)
	}
	if len(service.Alpn) > 0 {
		var ids []byte
		for _, id := range service.Alpn {
			ids = append(append(ids, byte(len(id))), id...)
		}
		param(paramALPN, ids)
	}
	port := p.targets[0].Port
	if port == 0 {
		port = service.Port
	}
	if port != 0 && port != 443 {
		param(paramPort, binary.BigEndian.AppendUint16(nil, port))
	}
	for i := range addresses {
		s := &addresses[i]
		count := len(s.RData)
		if s.Max > 0 {
			count = min(count, s.Max)
		}
		if len(s.RData) > 1 && (count < len(s.RData) && s.Pick != zone.PickFirst || s.Pick == zone.PickWeighted || s.Pick == zone.PickHash) {
			continue
		}
		key := uint16(paramIPv4Hint)
		if s.Type == zone.TypeAAAA {
			key = paramIPv6Hint
		}
		param(key, slices.Concat(s.RData[:count]...))
	}
	return zone.Set{Type: zone.TypeHTTPS, TTL: ttl, RData: [][]byte{rdata}}
}

// LargestReply returns the type for which a reply may be the longest, and how many octets its question and
// records take at the most, without an OPT record: with all targets of a pool, as when all is down. Names that
// are looked up count with as many IPv6 addresses as there may be.
func (r *Record) LargestReply() (qtype uint16, octets int) {
	largest := func(p part) {
		var sets []zone.Set
		switch {
		case r.Flatten && r.SRV < 0:
			sets = []zone.Set{{Type: zone.TypeAAAA, RData: slices.Repeat([][]byte{make([]byte, 16)}, MaxTargets)}}
		default:
			sets = r.sets(&Inputs{}, p, 0)
		}
		for i := range sets {
			size := messageHead + len(r.Owner)
			for _, rdata := range sets[i].RData {
				size += recordHead + len(rdata)
			}
			if sets[i].Type == zone.TypeCNAME { // one record
				size = messageHead + len(r.Owner) + recordHead + zone.MaxName
			}
			if size > octets {
				qtype, octets = sets[i].Type, size
			}
		}
	}
	for i := range r.Pools {
		p := answered(&r.Pools[i], ^targets(0))
		p.pool = &Pool{}
		largest(p)
	}
	if len(r.Fallback) > 0 {
		largest(part{&Pool{}, r.Fallback})
	}
	return qtype, octets
}

const (
	messageHead = 12 + 4 // and the question's name
	recordHead  = 12     // the owner being a pointer
)
