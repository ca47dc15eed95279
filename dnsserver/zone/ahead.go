package zone

import "net/netip"

// Ahead is what View.Ahead prepares. Each worker has its own; the zero value is ready.
type Ahead struct {
	prepared []prepared
	touched  byte // what is read must be used
}

// prepared is what is known of a message before it is answered.
type prepared struct {
	query   query
	verdict verdict
	ready   bool    // there are zones at all
	zone    *Served // nil if there is none for the question
	child   bool    // see authority
	page    *page   // where the name is looked up, and then another one; nil for none
	tag     uint32  // of the other one
	record  record  // the first with the tag of the name, or nil
	second  record  // of the name above, if record is nil
}

// Ahead prepares for answering many messages, each by AnswerAhead. It brings what answers are
// made of into the caches of the CPU: it takes one step for all messages before the next step
// for any, so that the CPU waits for memory once for many and not for each. Messages may be
// anything.
func (v *View) Ahead(a *Ahead, messages [][]byte) {
	for len(a.prepared) < len(messages) {
		a.prepared = append(a.prepared, prepared{})
	}
	all := a.prepared[:len(messages)]
	zones := v.zones.Load()
	touched := uint64(0)
	for i := range all {
		p := &all[i]
		p.zone, p.page, p.record, p.second = nil, nil, nil, nil
		p.ready = zones != nil
		if p.verdict = p.query.parse(messages[i]); p.verdict != wellFormed || zones == nil {
			continue
		}
		name := &p.query.name
		p.zone, p.child = zones.authority(name, p.query.qtype)
		if p.zone == nil || name.labels == p.zone.labels {
			continue
		}
		x := p.zone.index
		if name.labels > x.depth {
			continue
		}
		tag := tagOf(p.query.hash)
		if p.page = x.table.page(tag); p.page != nil {
			touched += p.page[tag%pageSlots]
		}
	}
	for i := range all {
		p := &all[i]
		if p.zone == nil {
			continue
		}
		x, name := p.zone.index, &p.query.name
		if p.page != nil {
			p.record = x.seek(p.page, tagOf(p.query.hash))
			p.page = nil
		}
		if r := p.record; r != nil {
			touched += uint64(r[0]) + uint64(r[min(len(r)-1, cacheLine-1)])
		} else if above := name.labels - 1; above > x.labels && above <= x.depth {
			p.tag = tagOf(hashName(name.suffix(above)))
			if p.page = x.table.page(p.tag); p.page != nil {
				touched += p.page[p.tag%pageSlots]
			}
		}
	}
	for i := range all {
		p := &all[i]
		if p.page == nil {
			continue
		}
		p.second = p.zone.index.seek(p.page, p.tag)
		if r := p.second; r != nil {
			touched += uint64(r[0]) + uint64(r[min(len(r)-1, cacheLine-1)])
		}
	}
	for i := range all {
		p := &all[i]
		if r := p.second; r != nil && r.is(flagCut) && r.referral() != 0 {
			ref := p.zone.index.referral(r.referral())
			touched += uint64(ref[0]) + uint64(ref[min(len(ref)-1, cacheLine)]) + uint64(ref[min(len(ref)-1, 2*cacheLine)])
		}
	}
	a.touched = byte(touched)
}

const cacheLine = 64 // octets, of most CPUs

// AnswerAhead is Answer to the message with index i of those that the last Ahead has prepared. Each
// can be answered once, and may not have changed.
func (v *View) AnswerAhead(s *Scratch, a *Ahead, i int, dst, message []byte, client netip.Addr, over Transport) []byte {
	p := &a.prepared[i]
	s.query, s.ahead = &p.query, p
	reply := v.answer(s, dst, message, client, over)
	s.ahead = nil
	p.zone, p.record, p.second = nil, nil, nil // a worker without work keeps no old version of a zone in memory
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
