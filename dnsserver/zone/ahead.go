package zone

import "net/netip"

// Ahead is what View.Ahead prepares. Each worker has its own; the zero value is ready.
type Ahead struct {
	// Client, unless nil, returns where the i-th message comes from, and Now is what Scratch.Now
	// will be. What is answered does not depend on them.
	Client func(i int) netip.Addr
	Now    int64

	prepared []prepared
	lookups  []lookup
	steered  []*prepared
	touched  byte // what is read must be used
}

// prepared is what is known of a message before it is answered.
type prepared struct {
	query   query
	verdict verdict
	ready   bool    // there are zones at all
	child   bool    // see authority
	zone    *Served // nil if there is none for the question
	// record is the first one with the tag of the question's name, or nil. second is the same
	// for the target of its CNAME, or for the name above if record is nil.
	record, second record
	// answers are those of record, if it is steered: the outcome at place is for who is asking.
	answers *Steered
	asker   asker
	place   uint32
}

// lookup is one of many that are made at once.
type lookup struct {
	index  *index
	of     *prepared
	page   *page
	line   *line
	tag    uint32
	record record
}

// Ahead prepares for answering many messages, each by AnswerAhead. It brings what answers are
// made of into the caches of the CPU: it takes one step for all messages before the next step
// for any, so that the CPU waits for memory once for many and not for each. Messages may be
// anything.
func (v *View) Ahead(a *Ahead, messages [][]byte) {
	if len(a.prepared) < len(messages) {
		a.prepared = make([]prepared, len(messages))
		a.lookups = make([]lookup, 0, len(messages))
	}
	all := a.prepared[:len(messages)]
	zones := v.zones.Load()
	lookups := a.lookups[:0]
	var last *Served // questions that follow one another are often about one zone
	for i, message := range messages {
		p := &all[i]
		p.zone, p.record, p.second, p.answers = nil, nil, nil, nil
		p.ready = zones != nil
		if p.verdict = p.query.parse(message); p.verdict != wellFormed || zones == nil {
			continue
		}
		name := &p.query.name
		if p.query.qtype != TypeDS && zones.same(last, name) {
			p.zone, p.child = last, false
		} else if p.zone, p.child = zones.authority(name, p.query.qtype); p.zone == nil {
			continue
		}
		last = p.zone
		if x := p.zone.index; x.labels < name.labels && name.labels <= x.depth {
			lookups = append(lookups, lookup{index: x, of: p, tag: tagOf(p.query.hash)})
		}
	}
	a.look(lookups)
	for i := range lookups {
		l := &lookups[i]
		l.of.record = l.record
	}
	a.lookSteered(all)

	// Once more, for what the first names lead to.
	lookups = lookups[:0]
	for i := range all {
		p := &all[i]
		if p.zone == nil {
			continue
		}
		x, name := p.zone.index, &p.query.name
		if p.record != nil {
			if hash := p.record.aliasHash(); hash != 0 {
				lookups = append(lookups, lookup{index: x, of: p, tag: tagOf(hash)})
			}
		} else if above := min(name.labels-1, x.depth); above > x.labels {
			lookups = append(lookups, lookup{index: x, of: p, tag: tagOf(hashName(name.suffix(above)))})
		}
	}
	a.look(lookups)
	touched := byte(0)
	for i := range lookups {
		l := &lookups[i]
		r := l.record
		l.of.second = r
		if r != nil && r.is(flagCut) && r.referral() != 0 {
			ref := l.index.referral(r.referral())
			touched += touch(ref, 0) + touch(ref, 1) + touch(ref, 2)
		}
	}
	a.touched += touched
	clear(a.lookups[:cap(a.lookups)]) // they would keep an old version of a zone in memory
}

// look fills in the records of lookups and reads their beginnings.
func (a *Ahead) look(lookups []lookup) {
	for i := range lookups {
		l := &lookups[i]
		l.page = l.index.table.page(l.tag)
	}
	touched := uint64(0)
	for i := range lookups {
		l := &lookups[i]
		l.line = l.page.line(l.tag)
		touched += l.line[0]
	}
	for i := range lookups {
		l := &lookups[i]
		l.record = l.index.seek(l.page, l.line, l.tag)
	}
	for i := range lookups {
		if r := lookups[i].record; r != nil {
			touched += uint64(r[0] + r[min(len(r)-1, 40)])
		}
	}
	a.touched = byte(touched)
}

// Subject returns what Scratch.Subject will say of the reply to the message with index i, if that is a ClassAnswer as it
// seems to become.
func (a *Ahead) Subject(i int) (about uint64, ok bool) {
	p := &a.prepared[i]
	if p.zone == nil || p.record == nil || p.record.is(flagCut) {
		return 0, false
	}
	return p.query.hash + uint64(p.query.qtype), true
}

const cacheLine = 64 // octets, of most CPUs

// touch reads b so many cache lines behind its start.
func touch(b []byte, line int) byte { return b[min(len(b)-1, line*cacheLine)] }

// AnswerAhead is Answer to the message with index i of those that the last Ahead has prepared. Each
// can be answered once, and may not have changed.
func (v *View) AnswerAhead(s *Scratch, a *Ahead, i int, dst, message []byte, client netip.Addr, over Transport) []byte {
	p := &a.prepared[i]
	s.query, s.ahead = &p.query, p
	reply := v.answer(s, dst, message, client, over)
	s.ahead = nil
	p.zone, p.record, p.second, p.answers = nil, nil, nil, nil // a worker without work keeps no old version of a zone in memory
	return reply
}

// parse reads the message, or takes what is prepared.
func (s *Scratch) parse(message []byte) verdict {
	if s.ahead != nil {
		return s.ahead.verdict
	}
	return s.query.parse(message)
}

// authority returns the zone for the question, see zoneSet.authority; ready is false if the view
// had no Update.
func (s *Scratch) authority(v *View) (z *Served, child, ready bool) {
	if p := s.ahead; p != nil {
		return p.zone, p.child, p.ready
	}
	zones := v.zones.Load()
	if zones == nil {
		return nil, false, false
	}
	z, child = zones.authority(&s.query.name, s.query.qtype)
	return z, child, true
}
