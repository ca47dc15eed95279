package zone

import (
	"encoding/binary"
	"sync/atomic"
)

// Private types of records that tell servers of steered names (RFC 6895 §3.1). They travel in
// zone content alone: no zone text has them, and no answer.
const (
	// TypeSteered is at the owner of a steered name: one record, a steeringpb.Record.
	TypeSteered uint16 = 65400
	// TypeZoneSettings is at the apex: one record, a steeringpb.ZoneSettings.
	TypeZoneSettings uint16 = 65401
)

// IsPrivate reports whether records of the type are for servers alone.
func IsPrivate(typ uint16) bool { return typ == TypeSteered || typ == TypeZoneSettings }

// maySteer reports whether a name that is not ready yet might be steered for the type.
func maySteer(qtype uint16) bool {
	switch qtype {
	case TypeA, TypeAAAA, TypeCNAME, TypeHTTPS, TypeSRV:
		return true
	}
	return false
}

// steeredSlot holds the answers of one steered name. All versions of a zone share it, as long
// as the name stays steered.
type steeredSlot struct {
	answers atomic.Pointer[Steered] // nil: not ready
}

// SetSteered makes a steered name answer from answers, in every version of the zone until it is
// not steered any more. It is one atomic store, and reports whether there is such a name: an
// Update that brings it must return first.
func (v *View) SetSteered(apex, owner Name, answers *Steered) bool {
	slot := v.steered(apex, owner)
	if slot == nil {
		return false
	}
	slot.answers.Store(answers)
	return true
}

// steered returns the slot of a steered name, nil if it is none.
func (v *View) steered(apex, owner Name) *steeredSlot {
	z := v.Zone(apex)
	if z == nil {
		return nil
	}
	r := z.index.find([]byte(owner))
	if r == nil || !r.is(flagSteered) {
		return nil
	}
	return z.index.slots[r.slot()]
}

// steered answers the question for name, which is q.name, or the last target of its chain of so many
// links, from the slot of the steered name that it is or that it is synthesised from. bare tells that
// there is no RRset beside that answers the question. It reports whether the question was answered: if
// not, the name's other RRsets do that.
//
// It appends to s.message what belongs there and sets s.rcode and s.ede. If it appends a CNAME
// that is to be followed, it copies the target to s.alias and returns its size, else 0.
func (s *Scratch) steered(z *Served, name *dissected, links int, bare bool, slot *steeredSlot) (alias int, answered bool) {
	st := slot.answers.Load()
	qtype := s.query.qtype
	if st == nil {
		s.message.asksState = false // it is not known yet
		if !bare && !maySteer(qtype) {
			return 0, false
		}
		s.fail(RcodeServFail, EDENotReady)
		return 0, true
	}
	if m := &s.message; m.asksState && m.state == 0 {
		m.state = st.State()
	}
	network, stated := s.clientNetwork()
	k := asker{client: network.Addr(), now: s.Now}
	o := s.outcome(st, &k)
	rcode, ede := uint16(st.data[o+2]), int(st.data[o+3])
	if own := st.types.has(qtype) || qtype == TypeANY && bare; !own && rcode != RcodeRefused {
		return 0, false
	}
	st.note(o, s.Now)
	if stated {
		s.setScope(max(int(s.message.scope), st.Scope(k.client)))
	}
	if rcode != RcodeSuccess {
		s.fail(rcode, ede)
		return 0, true
	}
	if ede != 0 {
		s.explain(ede, "")
	}
	set, ok := st.set(o, qtype)
	if !ok {
		s.steeredNegative(z, st.ttl)
		return 0, true
	}
	st.begin(&set, &k, &s.rotation)
	if set.typ == TypeCNAME {
		return s.steeredAlias(name, st, &set), true
	}
	if links > 0 || s.general || s.message.question == 1 || !s.putSteered(st, &set) {
		s.message.need(s.putAny(name.name(), st, &set))
	}
	return 0, true
}

// fail makes of what was put so far a reply without records.
func (s *Scratch) fail(rcode uint16, ede int) {
	s.message.discard()
	s.class, s.about = ClassError, 0
	s.rcode = rcode
	if ede != 0 {
		s.explain(ede, "")
	}
}

// steeredNegative is negative with a SOA whose TTL is not above the steered name's.
func (s *Scratch) steeredNegative(z *Served, ttl uint32) {
	start := s.message.n
	s.negative(z)
	if m := &s.message; ttl < z.negative && m.n > start {
		at := start + pointerSize
		if m.b[start] == 0 { // the root is its own name
			at = start + 1
		}
		binary.BigEndian.PutUint32(m.b[at+4:], ttl)
	}
}

// steeredAlias appends a CNAME and, unless it is all that was asked for, copies the target to s.alias.
func (s *Scratch) steeredAlias(name *dissected, st *Steered, set *readySet) (alias int) {
	target := set.wire[st.end(set, set.first)+recordHead : st.end(set, set.first+1)]
	size := copy(s.alias[:], target)
	if !s.message.need(s.message.putCNAME(name.name(), set.ttl(), s.alias[:size])) || s.query.qtype == TypeCNAME || s.query.qtype == TypeANY {
		return 0
	}
	return size
}

// putSteered appends the records of a set, for the question's own name; false if there is no room.
func (s *Scratch) putSteered(st *Steered, set *readySet) bool {
	m := &s.message
	from, last := st.end(set, set.first), set.first+set.most
	if last <= set.count {
		if !m.putReadyString(set.wire[from:st.end(set, last)]) {
			return false
		}
	} else {
		tail, head := set.wire[from:st.end(set, set.count)], set.wire[:st.end(set, last-set.count)]
		if m.n+len(tail)+len(head) > m.limit {
			return false
		}
		m.putReadyString(tail)
		m.putReadyString(head)
	}
	m.counts[sectionAnswer] += uint16(set.most)
	return true
}

// putReadyString is putReady.
func (m *message) putReadyString(wire string) bool {
	if m.n+len(wire) > m.limit {
		return false
	}
	m.n += copy(m.b[m.n:], wire)
	return true
}

// putAny appends the records of a set, for any name, all or none.
func (s *Scratch) putAny(owner []byte, st *Steered, set *readySet) bool {
	m := &s.message
	start := m.mark()
	at := 0
	for i := range set.most {
		record := (set.first + i) % set.count
		rdata := set.wire[st.end(set, record)+recordHead : st.end(set, record+1)]
		if at = m.head(owner, at, set.typ, set.ttl()); at < 0 || !m.body(rdata, 0, 0) {
			m.rollback(start)
			return false
		}
	}
	return true
}

// lookSteered reads what will be answered to messages about steered names.
func (a *Ahead) lookSteered(all []prepared) {
	found := a.steered[:0]
	for i := range all {
		if p := &all[i]; p.record != nil && p.record.is(flagSteered) {
			found = append(found, p)
			p.asker = asker{now: a.Now}
			if a.Client != nil {
				p.asker.client = a.Client(i)
			}
		}
	}
	a.steered = found
	for _, p := range found {
		p.answers = p.zone.index.slots[p.record.slot()].answers.Load()
	}
	touched := uint32(0)
	for _, p := range found {
		if p.answers != nil {
			touched += uint32(p.answers.types) + p.answers.handed[0].Load()
		}
	}
	for _, p := range found {
		if st := p.answers; st != nil {
			p.place = st.at(p.asker.client)
			touched += uint32(st.data[p.place]) + uint32(st.data[min(int(p.place)+cacheLine, len(st.data)-1)])
		}
	}
	for _, p := range found {
		if st := p.answers; st != nil && st.data[p.place] != pickNone {
			p.place = st.pick(p.place, &p.asker)
			touched += uint32(st.data[p.place]) + uint32(st.data[min(int(p.place)+cacheLine, len(st.data)-1)])
		}
	}
	a.touched += byte(touched)
}

// outcome returns where the outcome for who is asking is in the data of st.
func (s *Scratch) outcome(st *Steered, k *asker) uint32 {
	if p := s.ahead; p != nil && p.answers == st && p.asker.client == k.client && p.asker.now == k.now {
		*k = p.asker
		return p.place
	}
	return st.outcome(st.at(k.client), k)
}
