package zone

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
)

// maxLinks bounds the CNAME records in one answer, synthesised ones included. A client
// goes on from the last target itself.
const maxLinks = 16

// Scratch is the memory that answering takes. Each worker has its own and uses it again for
// every query; the zero value is ready.
type Scratch struct {
	// KeepAlive is how long an idle connection stays open, in units of 100 ms, stated over TCP to
	// clients that ask (RFC 7828). The caller sets it; 0 states nothing.
	KeepAlive uint16

	// Config is how to answer; nil stands for the zero Config. The caller may set another one
	// between queries.
	Config *Config

	// Now is the time in Unix seconds. The caller sets it, once for a number of queries.
	Now int64

	// TrustSubnet has every zone believe the Client Subnet option, whoever sends it: the caller
	// vouches for it.
	TrustSubnet bool

	// Quarantine holds questions that are refused; nil holds none.
	Quarantine *Quarantine

	none    Config
	query   *query // the present one: own, or one of an Ahead
	own     query
	ahead   *prepared // what is known already of the present query, or nil
	parsed  bool      // query is of the present message
	asked   options
	tsig    tsig
	client  netip.Addr
	cookie  Cookie
	message message
	rcode   uint16
	ede     int    // INFO-CODE of RFC 8914, or edeNone
	edeText string // adds to it, or ""

	quarantined   bool // the question is in Quarantine
	subnetTrusted bool // the question is about the client in asked.subnet

	class Class
	about uint64 // hash of what the reply is about, see Subject

	general bool // nothing ready is used

	rotation rotations

	wild   [2 + MaxName]byte       // name of a wildcard
	dnames [maxLinks]*byte         // record whose DNAME the answer has, of each link of the chain; nil for a CNAME
	seen   [maxLinks][MaxName]byte // names of the chain before the present one, in wire form
	alias  [MaxName]byte           // the next name of the chain, in wire form
	server dissected               // a name server whose addresses are looked up
}

// Answer replies to message and returns the reply, or nil where nothing is owed because the
// message is no query.
//
// dst lends its memory from its start to its capacity; its length does not matter. MaxUDP
// octets, over TCP and TLS MaxMessage, hold every reply; less truncates replies earlier, and may not
// be less than MaxUDP. Message and dst may be the same memory if both start at the same
// octet. The reply is valid until dst is used again.
//
// The address is the client's, an IPv4 one never in IPv6 form; steered names alone look at it.
//
// What is answered is what NSD, Knot DNS and BIND answer. Where they differ:
//   - A chain of CNAME and DNAME does not leave the zone of the question, as with Knot and
//     BIND: what a zone answers depends on nothing else. It ends after maxLinks records or
//     where it closes to a loop, with NOERROR.
//   - ANY gets one RRset of the name, over TCP too (RFC 8482 §4.1), as with NSD and Knot.
//   - Class ANY gets the records of IN without AA, as with NSD (RFC 1035 §6.2).
//   - The DS RRset of a cut comes with its referral if DO is set, also in zones that are not
//     signed (RFC 4035 §3.1.4): none of the three does.
//   - Positive answers carry no authority section and no additional data, but the addresses
//     of the apex NS (priming, RFC 9609 §4.2).
//   - The DS at the apex of a zone served here that the zone above does not delegate: NODATA,
//     as with NSD. An NXDOMAIN would deny the whole child (RFC 8020).
//   - CD is copied (RFC 4035 §3.1.6) as with BIND.
func (v *View) Answer(s *Scratch, dst, message []byte, client netip.Addr, over Transport) []byte {
	s.query, s.ahead = &s.own, nil
	return v.answer(s, dst, message, client, over)
}

func (v *View) answer(s *Scratch, dst, message []byte, client netip.Addr, over Transport) []byte {
	q := s.query
	s.parsed, s.quarantined = false, false
	quarantine := s.Quarantine.any(s.Now)
	if quarantine && s.Quarantine.Holds(wholeMessage(message), s.Now) {
		s.quarantined = true
		return nil // nobody knows if it is a query
	}
	found := s.parse(message)
	if found == silence {
		return nil
	}
	s.parsed = true
	sound := s.begin(dst, message, client, over)
	authoritative := false
	switch {
	case found == notImplemented:
		s.rcode = RcodeNotImp
	case found == malformed:
		s.rcode = RcodeFormErr
	case q.tsig > 0:
		s.rcode = RcodeNotAuth
	case q.edns && q.version > 0:
		s.rcode = RcodeBadVers
	case !sound, found == questionless && s.cookie == NoCookie:
		s.rcode = RcodeFormErr
	case found == questionless: // asks for a cookie, RFC 7873 §5.4
		if s.cookie == BadCookie {
			s.rcode = RcodeBadCookie
		}
	case quarantine && s.Quarantine.Holds(q.fingerprint(), s.Now):
		s.quarantined = true
		s.rcode, s.ede, s.edeText = RcodeRefused, EDEOther, "this question failed before"
	case q.qclass != classIN && q.qclass != classANY, q.qtype == TypeAXFR, q.qtype == TypeIXFR:
		s.rcode, s.ede = RcodeRefused, EDENotSupported
	default:
		z, child, ready := s.authority(v)
		if !ready {
			s.rcode, s.ede = RcodeServFail, EDENotReady
			break
		}
		if z == nil {
			s.rcode, s.ede = RcodeRefused, EDENotAuthoritative
			break
		}
		if q.edns && s.asked.subnet.present && (s.TrustSubnet || z.trusted.Contains(client)) {
			s.trustSubnet()
		}
		s.class, s.about = ClassAnswer, q.hash+uint64(q.qtype)
		authoritative = s.resolve(z)
		if child && s.rcode == RcodeNXDomain {
			s.rcode = RcodeSuccess // it exists here, whether or not the parent delegates it
		}
		if s.message.asksState && authoritative {
			s.message.hasState, s.message.serial = true, z.version.Serial
		}
		authoritative = authoritative && q.qclass == classIN
	}
	return s.finish(authoritative)
}

// begin begins the reply to the message that was parsed. It reports whether the options of an OPT
// record are sound; if they are not even framed there is no OPT record any more.
func (s *Scratch) begin(dst, message []byte, client netip.Addr, over Transport) (sound bool) {
	q, m := s.query, &s.message
	c := s.Config
	if c == nil {
		c = &s.none
	}
	s.client, s.cookie, s.subnetTrusted = client, NoCookie, false
	s.rcode, s.ede, s.edeText = RcodeSuccess, edeNone, ""
	s.class, s.about = ClassError, 0
	m.keepAlive, m.nsid, m.cookie, m.subnet, m.scope, m.padded = 0, "", false, false, 0, false
	m.asksState, m.hasState, m.state = false, false, 0
	s.asked.subnet.present = false
	sound = true
	if q.edns && q.options[0] < q.options[1] && q.version == 0 {
		sound = s.readOptions(c, message[q.options[0]:q.options[1]], over)
	}
	if q.tsig > 0 {
		s.tsig.read(message, q.tsig)
	}
	limit := MaxMessage
	if over == UDP {
		limit = classicUDP
		if q.edns {
			limit = min(max(q.size, classicUDP), c.maxUDP())
		}
	}
	m.begin(dst, min(limit, cap(dst)), q, &s.tsig, message)
	return sound
}

// resolve answers the question from z into the message, RFC 1034 §4.3.2, and follows
// aliases as long as they stay in z. It sets s.rcode and returns the AA bit.
func (s *Scratch) resolve(z *Served) (authoritative bool) {
	q, m := s.query, &s.message
	name := &q.name // of the question, then of each target
	for links := 0; ; links++ {
		f := s.find(z, name, links)
		size := 0 // of the target in s.alias
		switch f.what {
		case atCut:
			if links > 0 || !s.readyReferral(z, f) {
				s.referral(z, name.suffix(f.depth), f)
			}
			return links > 0 // AA is about the first owner of the answer, RFC 1035 §4.1.1
		case missing:
			s.rcode = RcodeNXDomain // of the last name of the chain, RFC 6604 §2.1
			s.class, s.about = ClassNXDomain, z.index.apexHash
			s.negative(z)
			return true
		case belowAlias:
			dname := f.record.RRset(TypeDNAME)
			s.dnames[links] = &f.record[0]
			if links == 0 {
				s.about = hashName(name.suffix(f.depth)) // the names below it are without number
			}
			if !slices.Contains(s.dnames[:links], s.dnames[links]) && !m.need(m.put(name.suffix(f.depth), dname, dname.TTL)) {
				return true
			}
			if size = substitute(&s.alias, name, f.depth, dname); size == 0 {
				s.rcode = RcodeYXDomain // RFC 6672 §2.2
				return true
			}
			if !m.need(m.putCNAME(name.name(), dname.TTL, s.alias[:size])) || q.qtype == TypeCNAME {
				return true
			}
		case exists:
			s.dnames[links] = nil
			set := f.record.choose(q.qtype)
			if links == 0 && f.record.isWildcard() {
				s.about = hashName(f.record.owner()) // as above
			}
			if f.record.is(flagSteered) {
				var answered bool
				if size, answered = s.steered(z, name, links, set == nil, z.index.slots[f.record.slot()]); answered {
					if size == 0 {
						return s.rcode != RcodeRefused
					}
					break
				}
			}
			if set == nil {
				s.negative(z)
				return true
			}
			follows := set.typ() == TypeCNAME && q.qtype != TypeCNAME && q.qtype != TypeANY
			if links == 0 && s.ready(z, f, set, follows) {
				return true
			}
			rrset := set.RRset()
			if rrset.Type == TypeSOA && f.isApex {
				rrset = z.soa
			}
			if !m.need(m.put(name.name(), rrset, rrset.TTL)) {
				return true
			}
			if rrset.Type == TypeNS && f.isApex {
				s.addresses(z, rrset, nil, 0)
			}
			if !follows {
				return true
			}
			size = copy(s.alias[:], rrset.firstRData())
		}
		if !s.follow(z, name, s.alias[:size], links) {
			return true
		}
	}
}

// ready answers with a set for the question's own name as it was made ready, if it was. follows
// tells that a CNAME is to be followed.
func (s *Scratch) ready(z *Served, f found, set stored, follows bool) bool {
	m := &s.message
	if s.general || m.question == 1 {
		return false
	}
	ready := set.ready()
	switch {
	case len(ready) == 0:
		return m.putPlain(toQuestion, set)
	case f.synthesised || ready.records() == 0:
		return false
	case set.typ() == TypeCNAME:
		return s.readyAlias(z, set, ready, follows)
	case !m.putReady(ready.wire()):
		return false
	}
	m.counts[sectionAnswer] += ready.records()
	return true
}

// readyAlias answers with a ready CNAME and, if it is to be followed, with what its target has,
// unless that takes more than a look at the target.
func (s *Scratch) readyAlias(z *Served, set stored, ready readyRecords, follows bool) bool {
	m := &s.message
	before := m.n
	hash, wire := ready.alias()
	if !m.putReady(wire) {
		return false
	}
	m.counts[sectionAnswer]++
	if !follows || hash == 0 {
		return true
	}
	// A target that is the end of the question's name is a pointer there; to any other one that
	// stands here now a pointer leads.
	owner := uint16(0xc000 | before + plainHead)
	if len(wire) == plainHead+pointerSize {
		owner = binary.BigEndian.Uint16(wire[plainHead:])
	}
	target := s.target(z, hash, set.packed()[2:])
	if target != nil && !target.is(flagCut|flagCovered|flagSteered) {
		found := target.choose(s.query.qtype)
		if found != nil && found.typ() == s.query.qtype && len(found.ready()) == 0 && m.putPlain(owner, found) {
			return true
		}
	}
	m.n = before
	m.counts[sectionAnswer]--
	return false
}

// target returns the record of the target of a ready CNAME, nil if it does not exist or is the apex.
func (s *Scratch) target(z *Served, hash uint64, name []byte) (r record) {
	x := z.index
	switch {
	case len(name) == len(x.apex):
		return nil
	case s.ahead != nil:
		return x.confirm(s.ahead.second, tagOf(hash), name)
	}
	return x.findTagged(tagOf(hash), name)
}

// follow makes name the target of an alias, the links-th of the chain, counted from 0. It
// reports false where the chain ends: outside z, in a loop, at the bound.
func (s *Scratch) follow(z *Served, name *dissected, target []byte, links int) bool {
	if links == maxLinks-1 {
		return false
	}
	copy(s.seen[links][:], name.name())
	if !name.read(target) || !name.within(z.Apex(), z.labels) {
		return false
	}
	for i := range links + 1 {
		if bytes.HasPrefix(s.seen[i][:], name.name()) {
			return false
		}
	}
	return true
}

// substitute writes the name under a DNAME owner, its last depth labels replaced by the
// DNAME's target, to dst and returns its size; 0 if that makes no name, as one too long.
func substitute(dst *[MaxName]byte, name *dissected, depth int, dname RRset) int {
	kept := name.start[name.labels-depth]
	target := dname.firstRData()
	if int(kept)+len(target) > MaxName || wellFormedName(target) != len(target) {
		return 0
	}
	size := copy(dst[:], name.wire[:kept])
	return size + copy(dst[size:], target)
}

// negative appends the SOA of NXDOMAIN and NODATA (RFC 2308 §2).
func (s *Scratch) negative(z *Served) {
	m, name := &s.message, &s.query.name
	if q := s.query; s.class == ClassAnswer && m.counts[sectionAnswer] == 0 {
		s.class = ClassNoData
		if s.about == q.hash+uint64(q.qtype) {
			s.about = q.hash
		}
	}
	m.section = sectionAuthority
	if !s.readyNegative(z) {
		m.need(m.put(name.suffix(z.labels), z.soa, z.negative))
	}
}

// readyNegative is negative if the answer has nothing else.
func (s *Scratch) readyNegative(z *Served) bool {
	m, name, soa := &s.message, &s.query.name, &z.readySOA
	if s.general || m.counts[sectionAnswer] > 0 || len(soa.wire) == 0 {
		return false
	}
	if name.labels > z.labels {
		if label := labelWord(name.suffix(z.labels + 1)); label == soa.labels[0] || label == soa.labels[1] {
			return false
		}
	}
	start := m.n
	if !m.putReady(soa.wire) {
		return false
	}
	m.counts[sectionAuthority]++
	if by := name.size - len(z.Apex()); by > 0 {
		for _, at := range soa.shifts {
			m.shift(start+int(at), by)
		}
	}
	return true
}

// readyReferral is referral for the question's own name, if it is ready and fits.
func (s *Scratch) readyReferral(z *Served, f found) bool {
	m := &s.message
	ref := f.record.referral()
	if s.general || ref == 0 || f.inside {
		return false
	}
	r := z.index.referral(ref)
	if s.query.do && r.hasDS() {
		return false
	}
	start := m.n
	if !m.putReady(r.wire()) {
		return false
	}
	s.class, s.about = ClassReferral, r.hash()
	m.counts[sectionAuthority] = r.servers()
	m.counts[sectionAdditional] = r.additional()
	if by := s.query.name.size - len(z.Apex()) - int(f.record[0]); by > 0 {
		for shifts := r.shifts(); len(shifts) > 1; shifts = shifts[2:] {
			m.shift(start+int(binary.LittleEndian.Uint16(shifts)), by)
		}
	}
	return true
}

// referral answers with the delegation at the cut of the given name (RFC 1034 §4.3.2 step
// 3b): its NS, its DS if the client knows DNSSEC, and the name servers' addresses.
func (s *Scratch) referral(z *Served, cut []byte, f found) {
	m := &s.message
	s.class, s.about = ClassReferral, hashName(cut)
	m.section = sectionAuthority
	ns, ds := f.record.RRset(TypeNS), f.record.RRset(TypeDS)
	if !m.need(m.put(cut, ns, ns.TTL)) {
		return
	}
	if s.query.do && !ds.Empty() && !m.need(m.put(cut, ds, ds.TTL)) {
		return
	}
	s.addresses(z, ns, cut, f.depth)
}

// addresses appends what z has of A and AAAA of the servers that ns names, below zone cuts
// too. With a cut, a name of so many labels, those of servers below it must all fit, or the reply is truncated
// (RFC 9471 §3.1). The others are left out where there is no room, unless nothing else
// leads to the cut (§3.2).
func (s *Scratch) addresses(z *Served, ns RRset, cut []byte, labels int) {
	m := &s.message
	m.section = sectionAdditional
	put, omitted := false, false
	for _, inDomain := range []bool{true, false} {
		for rest := ns.rdata; rest != ""; {
			var server string
			server, rest = next(rest)
			if !s.server.readString(server) || !s.server.within(z.Apex(), z.labels) ||
				inDomain != (cut != nil && s.server.labels >= labels && bytes.Equal(s.server.suffix(labels), cut)) {
				continue
			}
			record := z.server(&s.server, &s.wild)
			for _, typ := range [...]uint16{TypeA, TypeAAAA} {
				set := record.RRset(typ)
				switch {
				case set.Empty():
				case m.put(s.server.name(), set, set.TTL):
					put = true
				case inDomain:
					m.truncated = true
					return
				default:
					omitted = true
				}
			}
		}
	}
	if cut != nil && omitted && !put {
		m.truncated = true
	}
}

// server returns the record with the addresses of a name server, glue or not, or nil. wild
// lends memory.
func (z *Served) server(name *dissected, wild *[2 + MaxName]byte) record {
	r := z.index.suffix(name, name.labels)
	if r == nil {
		if encloser, depth := z.index.encloser(name); encloser.is(flagWildcard) {
			r = z.synthesis(name, depth, wild)
		}
	}
	return r
}

// outcome is what a name is to a zone.
type outcome uint8

const (
	missing    outcome = iota // no such name
	exists                    // record has its RRsets or, from a wildcard, those it is given; none for an empty non-terminal
	atCut                     // at or below the zone cut of record
	belowAlias                // below the DNAME of record
)

type found struct {
	what        outcome
	isApex      bool
	synthesised bool // from a wildcard
	inside      bool // there are names below the cut at or above the name
	record      record
	depth       int // labels of the cut or the DNAME's owner
}

// find looks up the name of the question, or the target of so many aliases, in its zone: RFC 1034
// §4.3.2 step 3 with RFC 4592 and RFC 6672. At a zone cut DS is the parent's own, RFC 4035 §3.1.4.1.
func (s *Scratch) find(z *Served, name *dissected, links int) found {
	x := z.index
	var r record
	depth := name.labels
	switch {
	case depth == x.labels:
		r = x.top
	case links > 0:
		r = x.suffix(name, depth)
	case depth > x.depth:
	case s.ahead != nil:
		r = x.confirm(s.ahead.record, tagOf(s.query.hash), name.name())
	default:
		r = x.findTagged(tagOf(s.query.hash), name.name())
	}
	if r == nil {
		r, depth = x.encloser(name)
	}
	inside := r.is(flagCovered)
	if inside {
		depth = r.cover()
		r = x.suffix(name, depth)
	}
	switch below := depth < name.labels; {
	case r.is(flagCut) && (below || s.query.qtype != TypeDS):
		return found{what: atCut, record: r, depth: depth, inside: inside}
	case r.is(flagDNAME) && below:
		return found{what: belowAlias, record: r, depth: depth}
	case !below:
		return found{what: exists, record: r, isApex: depth == z.labels}
	case r.is(flagWildcard):
		return found{what: exists, record: z.synthesis(name, depth, &s.wild), synthesised: true}
	}
	return found{what: missing}
}

// synthesis returns the source of synthesis, the "*" below the closest encloser (RFC 4592
// §3.3.1), which exists. wild lends memory.
func (z *Served) synthesis(name *dissected, encloser int, wild *[2 + MaxName]byte) record {
	return z.index.find(append(append(wild[:0], 1, '*'), name.suffix(encloser)...))
}
