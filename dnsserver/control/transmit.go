package control

import (
	"iter"
	"math"
	"slices"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// lightDelta is up to how many octets a delta is sent at once and outside the budget: the
// change of a few records never waits for somebody's whole zones.
const lightDelta = 64 << 10

// next returns the next message to send, or nil if there is none now. Only transmit calls it.
func (p *peer) next() *controlpb.HubMessage {
	if len(p.out) == 0 {
		p.prepare()
	}
	if len(p.out) == 0 {
		return nil
	}
	m := p.out[0]
	p.out = p.out[1:]
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if p.over() {
		return nil
	}
	m.Epoch = p.hub.epoch
	sent := &p.hub.sent
	switch m := m.GetMessage().(type) {
	case *controlpb.HubMessage_Begin:
		switch f := p.flights[m.Begin.GetTransfer()]; {
		case m.Begin.GetDocument() != nil:
			sent.Documents++
		case f.base == nil:
			sent.Whole++
		case f.base.Digest() == f.zone.Version.Digest:
			sent.Versions++
		default:
			sent.Changes++
		}
	case *controlpb.HubMessage_Chunk:
		if p.documentFlights[m.Chunk.GetTransfer()] == nil {
			sent.Octets += uint64(len(m.Chunk.GetNodes()))
		}
	case *controlpb.HubMessage_Commit:
		if f := p.documentFlights[m.Commit.GetTransfer()]; f != nil {
			f.committed = true
		} else {
			p.flights[m.Commit.GetTransfer()].committed = true
		}
	case *controlpb.HubMessage_Remove:
		sent.Removals += uint64(len(m.Remove.GetApexes()))
		p.batch.sent = m.Remove.GetLast()
	}
	return m
}

// prepare fills p.out, if there is anything to send.
func (p *peer) prepare() {
	if p.prepareWelcome(); len(p.out) > 0 {
		return
	}
	for {
		p.hub.mu.Lock()
		if !p.ready() || p.over() {
			p.hub.mu.Unlock()
			return
		}
		if p.launchDocument(); len(p.out) > 0 {
			p.hub.mu.Unlock()
			return
		}
		var f *flight
		if p.sending == nil || !p.bulkTurn {
			f = p.launch()
		}
		p.hub.mu.Unlock()
		p.bulkTurn = f != nil
		switch {
		case f != nil:
			p.begin(f)
		case p.sending != nil:
			p.sendChunk()
		default:
			if !p.openBulk() {
				p.prepareRest()
				return
			}
		}
		if len(p.out) > 0 {
			return
		}
	}
}

// prepareWelcome sends what concerns the stream itself and fetches: they wait for no zone.
func (p *peer) prepareWelcome() {
	h := p.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.oweWelcome {
		p.oweWelcome = false
		p.put(&controlpb.HubMessage{Message: &controlpb.HubMessage_Welcome{Welcome: &controlpb.Welcome{Cluster: h.opts.Cluster}}})
		return
	}
	if len(p.asked) > 0 {
		f := p.asked[0]
		p.asked = p.asked[1:]
		p.put(&controlpb.HubMessage{Message: &controlpb.HubMessage_Fetch{
			Fetch: &controlpb.Fetch{Fetch: f.id, Apex: []byte(f.apex), Digest: f.digest[:]},
		}})
	}
}

func (p *peer) put(m ...*controlpb.HubMessage) { p.out = append(p.out, m...) }

// launch takes the next dirty zone that is still to be sent, and decides what of it; nil if
// there is none. hub.mu is held.
func (p *peer) launch() *flight {
	for {
		apex, ok := p.dirty.take()
		if !ok {
			return nil
		}
		d, s := p.hub.zones[apex], p.zones[apex]
		if s == nil || !p.due(d, s) {
			continue
		}
		p.lastID++
		f := &flight{id: p.lastID, apex: apex, zone: d.zone, revision: d.revision, base: s.content}
		s.flight = f
		p.flights[f.id] = f
		p.toldSynced = false
		return f
	}
}

// begin sends a small change at once, and puts all else in the line for the budget.
func (p *peer) begin(f *flight) {
	if f.base != nil {
		var small []byte
		for part := range chunks(changes(f.base, f.zone.Content), lightDelta) {
			if small != nil || len(part) == lightDelta {
				small = nil
				f.size = math.MaxInt64
				break
			}
			small = part
		}
		if f.size == 0 {
			p.put(f.beginMessage())
			if len(small) > 0 {
				p.put(f.chunkMessage(small))
			}
			p.put(f.commitMessage())
			return
		}
	}
	p.bulk = append(p.bulk, f)
}

// openBulk starts sending the first transfer of the line when it has got its share. It
// reports whether another look at what is to be done is worth while.
func (p *peer) openBulk() bool {
	if len(p.bulk) == 0 {
		return false
	}
	f := p.bulk[0]
	if f.lease == nil {
		p.measure(f)
		l := p.hub.budget.ask(f.size, p.poke)
		p.hub.mu.Lock()
		f.lease = l
		if p.over() {
			l.release()
		}
		p.hub.mu.Unlock()
	}
	if !f.lease.held() {
		return false
	}
	p.bulk = p.bulk[1:]
	still := false
	p.hub.change(func(n *notes) {
		if p.over() {
			return
		}
		d, s := p.hub.zones[f.apex], p.zones[f.apex]
		if still = d.wantedBy(p.group); still {
			f.zone, f.revision = d.zone, d.revision // the latest wins
			return
		}
		f.lease.release()
		delete(p.flights, f.id)
		s.flight = nil
		p.reconsider(f.apex, n)
	})
	if !still {
		return true
	}
	nodes := wholeZone(f.zone.Content)
	if f.base != nil {
		nodes = changes(f.base, f.zone.Content)
	}
	f.pull, f.stop = iter.Pull(chunks(nodes, chunkSize))
	p.sending = f
	p.put(f.beginMessage())
	return true
}

// measure finds the size of a bulk transfer, and whether the whole zone is less than what
// has changed.
func (p *peer) measure(f *flight) {
	p.hub.mu.Lock()
	d := p.hub.zones[f.apex]
	whole := int64(0)
	if d != nil && d.zone.Version.Digest == f.zone.Version.Digest {
		whole = d.octets
	}
	p.hub.mu.Unlock()
	if whole == 0 {
		whole = sizeOf(wholeZone(f.zone.Content), noLimit)
		p.hub.mu.Lock()
		if d := p.hub.zones[f.apex]; d != nil && d.zone.Version.Digest == f.zone.Version.Digest {
			d.octets = whole
		}
		p.hub.mu.Unlock()
	}
	f.size = whole
	if f.base == nil {
		return
	}
	if changed := sizeOf(changes(f.base, f.zone.Content), whole); changed < whole {
		f.size = changed
	} else {
		f.base = nil
	}
}

func (p *peer) sendChunk() {
	if part, ok := p.sending.pull(); ok {
		p.put(p.sending.chunkMessage(part))
		return
	}
	p.put(p.sending.commitMessage())
	p.sending.stop()
	p.sending = nil
}

// stopBulk ends what was being sent when the stream ends.
func (p *peer) stopBulk() {
	if p.sending != nil {
		p.sending.stop()
	}
}

func (f *flight) beginMessage() *controlpb.HubMessage {
	z := zoneMessage(f.apex, Installed{Version: f.zone.Version, Source: f.zone.Source})
	if f.base != nil {
		d := f.base.Digest()
		z.Base = d[:]
	}
	z.Guard = &controlpb.Guard{
		MinDeletes:       uint32(max(0, min(f.zone.Guard.MinDeletes, math.MaxInt32))),
		MaxDeletePercent: uint32(max(0, min(f.zone.Guard.MaxDeletePercent, 100))),
	}
	z.Predecessor = f.zone.Predecessor
	z.ApprovedRemoval = f.zone.ApprovedRemoval
	return &controlpb.HubMessage{Message: &controlpb.HubMessage_Begin{
		Begin: &controlpb.Begin{Transfer: f.id, Resource: &controlpb.Begin_Zone{Zone: z}},
	}}
}

func zoneMessage(apex zone.Name, z Installed) *controlpb.Zone {
	return &controlpb.Zone{Apex: []byte(apex), Version: versionMessage(z.Version), Source: z.Source, Cluster: z.Cluster}
}

func (f *flight) chunkMessage(part []byte) *controlpb.HubMessage {
	return &controlpb.HubMessage{Message: &controlpb.HubMessage_Chunk{Chunk: &controlpb.Chunk{Transfer: f.id, Nodes: part}}}
}

func (f *flight) commitMessage() *controlpb.HubMessage {
	return &controlpb.HubMessage{Message: &controlpb.HubMessage_Commit{Commit: &controlpb.Commit{Transfer: f.id}}}
}

// prepareRest comes when no zone can be sent: removals, and after them the word that
// nothing is left to do.
func (p *peer) prepareRest() {
	p.hub.change(func(n *notes) {
		if p.over() || !p.hub.complete {
			return
		}
		if p.ruleDue && p.batch == nil {
			p.ruleDue = false
			p.rule(n)
		}
		if len(p.out) == 0 && !p.toldSynced && len(p.flights) == 0 && len(p.documentFlights) == 0 && p.batch == nil && len(p.dirty.order) == 0 && !p.documentsDue {
			p.toldSynced = true
			p.put(&controlpb.HubMessage{Message: &controlpb.HubMessage_Synced{Synced: &controlpb.Synced{}}})
		}
	})
}

// rule decides on the absent zones, puts the removal of those that may go in p.out and the
// others in the report. hub.mu is held.
func (p *peer) rule(n *notes) {
	h := p.hub
	past := h.past[p.id]
	recent := 0
	if past != nil {
		recent = past.removed.recent(h.opts.Now())
	}
	absent := make([]absentZone, 0, len(p.absent))
	for apex := range p.absent {
		absent = append(absent, absentZone{
			apex: apex, foreign: p.zones[apex].held.Cluster != h.opts.Cluster, withheld: past != nil && past.withheld[apex],
		})
	}
	r := ruleOnAbsence(absent, p.holds, recent, h.opts.MaxAbsent, func(digest string) bool { return p.approves(digest) })
	switch {
	case len(r.remove) > 0:
		p.removeBatch(r.remove, "")
	case r.approved:
		p.removeBatch(r.held, r.digest)
		r.held, r.digest = nil, ""
	}
	if len(r.held) > 0 {
		past = h.pastOf(p.id)
		for _, apex := range r.held {
			past.withheld[apex] = true
		}
	}
	if r.digest != p.absence.Digest {
		p.absence = Absence{Count: len(r.held), Digest: r.digest, Examples: append([]zone.Name(nil), r.held[:min(len(r.held), zone.MaxRemovalExamples)]...)}
		n.server(p.id)
		if len(r.held) > 0 {
			h.opts.Log.Info("zones that nobody wants are kept until their removal is approved", "server", p.id, "zones", len(r.held), "digest", r.digest)
		}
	}
}

func (p *peer) approves(digest string) bool {
	return digest != p.refused && slices.Contains(p.hub.approved[p.id.Datacenter], digest)
}

// removeParts bounds the names in one message: they take at most 255 octets each.
const removeParts = 1000

func (p *peer) removeBatch(apexes []zone.Name, approved string) {
	p.lastID++
	p.batch = &batch{id: p.lastID, apexes: apexes, approved: approved}
	p.toldSynced = false
	for _, apex := range apexes {
		p.zones[apex].removing = true
		delete(p.absent, apex)
	}
	for rest := apexes; len(rest) > 0; {
		part := rest[:min(len(rest), removeParts)]
		rest = rest[len(part):]
		m := &controlpb.Remove{Transfer: p.batch.id, Last: len(rest) == 0}
		for _, apex := range part {
			m.Apexes = append(m.Apexes, []byte(apex))
		}
		if m.Last {
			m.Approved = approved
		}
		p.put(&controlpb.HubMessage{Message: &controlpb.HubMessage_Remove{Remove: m}})
	}
}
