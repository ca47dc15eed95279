package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// tape turns the input of a fuzz test into choices; at its end all choices are 0.
type tape struct{ rest []byte }

func (t *tape) byte() byte {
	if len(t.rest) == 0 {
		return 0
	}
	b := t.rest[0]
	t.rest = t.rest[1:]
	return b
}

func (t *tape) below(n int) int { return int(t.byte()) % n }

func (t *tape) bytes() []byte {
	n := min(int(t.byte()), len(t.rest))
	b := t.rest[:n]
	t.rest = t.rest[n:]
	return slices.Clone(b)
}

// worldOf is a few zones with a few versions each, so that arbitrary choices often fit.
var worldOf = sync.OnceValue(func() (zones [3][4]Zone) {
	for i := range zones {
		for j := range zones[i] {
			zones[i][j] = published(content(fmt.Sprintf("z%d.test", i), 3+3*j%7, map[int]byte{j: byte(j)}), uint32(j+1))
			zones[i][j].Guard = zone.GuardPolicy{MinDeletes: 2, MaxDeletePercent: 40}
		}
	}
	return zones
})

func (t *tape) zone() Zone { return worldOf()[t.below(3)][t.below(4)] }

// nodes are those of some zone, whole or changes, cut and damaged somewhere.
func (t *tape) nodes() []byte {
	a, b := t.zone(), t.zone()
	nodes := wholeZone(a.Content)
	if t.below(2) == 0 {
		nodes = changes(b.Content, a.Content)
	}
	var all []byte
	for part := range chunks(nodes, 1<<16) {
		all = append(all, part...)
	}
	switch t.below(6) {
	case 0:
		all = all[:min(len(all), int(t.byte()))]
	case 1:
		if len(all) > 0 {
			all[int(t.byte())%len(all)] ^= t.byte()
		}
	case 2:
		all = t.bytes()
	}
	return all
}

// document is one of few, so that arbitrary choices often fit.
func (t *tape) document() Document {
	return Document{[]string{"settings", "topology"}[t.below(2)], []byte{byte(t.below(3))}}
}

func (t *tape) apex() []byte {
	if t.below(8) == 0 {
		return t.bytes()
	}
	return []byte(t.zone().Content.Apex())
}

func (t *tape) hubMessage() *controlpb.HubMessage {
	id := uint64(t.below(4))
	epoch := uint64(t.below(4))
	switch t.below(12) {
	case 10, 11:
		d := t.document()
		begin := documentMessage(d, d.Digest()).Document
		switch t.below(6) {
		case 0:
			begin.Kind = string(t.bytes())
		case 1:
			begin.Digest = t.bytes()
		case 2:
			begin.Size = uint32(t.byte()) << 16
		}
		if t.below(2) == 0 {
			return hubMessage(epoch, &controlpb.Chunk{Transfer: id, Nodes: d.Body})
		}
		return hubMessage(epoch, &controlpb.Begin{Transfer: id, Resource: &controlpb.Begin_Document{Document: begin}})
	case 0:
		m := &controlpb.HubMessage{}
		if proto.Unmarshal(t.bytes(), m) != nil {
			return &controlpb.HubMessage{}
		}
		return m
	case 1, 2:
		f := flight{id: id, zone: t.zone()}
		f.apex = f.zone.Content.Apex()
		if t.below(2) == 0 {
			f.base = t.zone().Content
		}
		f.zone.Predecessor = uint32(t.below(6))
		begin := f.beginMessage().GetBegin()
		switch t.below(8) {
		case 0:
			begin.GetZone().Apex = t.bytes()
		case 1:
			begin.GetZone().Version = versionMessage(t.zone().Version)
		case 2:
			begin.GetZone().Base = t.bytes()
		}
		return hubMessage(epoch, begin)
	case 3, 4:
		return hubMessage(epoch, &controlpb.Chunk{Transfer: id, Nodes: t.nodes()})
	case 5, 6:
		return hubMessage(epoch, &controlpb.Commit{Transfer: id})
	case 7:
		m := &controlpb.Remove{Transfer: id, Last: t.below(2) == 0}
		for range t.below(4) {
			m.Apexes = append(m.Apexes, t.apex())
		}
		if t.below(2) == 0 {
			m.Approved = namesDigest([]zone.Name{t.zone().Content.Apex()})
		}
		return hubMessage(epoch, m)
	case 8:
		d := t.zone().Version.Digest
		return hubMessage(epoch, &controlpb.Fetch{Fetch: id, Apex: t.apex(), Digest: d[:]})
	default:
		return hubMessage(epoch, &controlpb.Welcome{Cluster: []string{here, here, "cluster-0", ""}[t.below(4)]})
	}
}

// FuzzServer feeds a server arbitrary messages of a hub. Whatever comes: it does not panic,
// installs nothing whose digest does not match, never goes back behind its fence, and
// answers what it committed to answer.
func FuzzServer(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 1, 1, 0, 0, 1, 0, 7, 1, 1, 3, 0, 0, 0, 0, 1, 5, 1, 1, 5})
	f.Add([]byte{2, 1, 7, 1, 3, 0, 0, 0, 1, 0, 0, 2, 0, 1, 1, 0, 9, 0})
	f.Fuzz(func(t *testing.T, input []byte) {
		in := tape{input}
		r := newMemory(newBell())
		for range in.below(4) {
			r.put(in.zone(), []string{here, "cluster-0"}[in.below(2)])
		}
		var fence Fence
		r.before = func(z Installed) {
			if z.Content.Digest() != z.Version.Digest {
				t.Errorf("zone %s: installing content %s as version %s", z.Content.Apex(), z.Content.Digest(), z.Version)
			}
		}
		c, err := NewClient(ClientOptions{Hubs: []string{"none"}, Name: "one", Replica: r, Log: logr.Discard(), MaxZoneBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		answers := map[uint64]int{}
		s := newSession(c, func(m *controlpb.ServerMessage) error {
			mu.Lock()
			defer mu.Unlock()
			answers[m.GetAck().GetTransfer()+m.GetNack().GetTransfer()+m.GetRemoved().GetTransfer()]++
			return nil
		}, "")
		commits := map[uint64]int{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		recv := func() (*controlpb.HubMessage, error) {
			if now := r.Fence(); !fence.Admits(now) {
				t.Errorf("the fence went from %v to %v", fence, now)
			} else {
				fence = now
			}
			if len(in.rest) == 0 {
				return nil, io.EOF
			}
			m := in.hubMessage()
			if id := m.GetCommit().GetTransfer() + m.GetRemove().GetTransfer(); m.GetCommit() != nil || m.GetRemove().GetLast() {
				commits[id]++
			}
			return m, nil
		}
		err = s.run(ctx, cancel, hubMessage(1, &controlpb.Welcome{Cluster: here}), recv)
		for id, n := range answers {
			if id != 0 && n > commits[id] {
				t.Errorf("%d answers to %d commits of transfer %d", n, commits[id], id)
			}
		}
		if errors.Is(err, io.EOF) { // nothing was wrong: every commit has its answer, but for what was under way
			for id, n := range commits {
				if id != 0 && answers[id]+workers < n {
					t.Errorf("%d answers to %d commits of transfer %d", answers[id], n, id)
				}
			}
		}
		for _, d := range r.Documents() {
			if has, _ := r.Document(d.Kind); has.check() != nil || has.Digest() != d.Digest {
				t.Errorf("document %q is in force with %d octets", d.Kind, len(has.Body))
			}
		}
		for _, h := range r.Held() {
			z, _ := r.Zone(h.Apex)
			if z.Content.Digest() != z.Version.Digest || z.Content.Apex() != h.Apex {
				t.Errorf("%s is held as %v", h.Apex, z.Version)
			}
		}
	})
}

func (t *tape) serverMessage() *controlpb.ServerMessage {
	id := uint64(t.below(6))
	v := versionMessage(t.zone().Version)
	switch t.below(11) {
	case 9:
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_Report{Report: &controlpb.Report{Kind: []string{"verdicts", ""}[t.below(2)]}}}
	case 10:
		d := t.document()
		digest := d.Digest()
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_Ack{
			Ack: &controlpb.Ack{Transfer: uint64(t.below(2)) * id, Version: &controlpb.Version{Digest: digest[:]}, Document: d.Kind},
		}}
	case 0:
		m := &controlpb.ServerMessage{}
		if proto.Unmarshal(t.bytes(), m) != nil {
			return &controlpb.ServerMessage{}
		}
		return m
	case 1:
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_Hello{Hello: &controlpb.Hello{
			Protocol: ProtocolVersion, Name: "one", Epoch: uint64(t.below(3)), Cluster: here, Documents: t.below(3) > 0, Peer: ":8444",
		}}}
	case 2:
		m := &controlpb.Held{Last: t.below(3) > 0}
		for range t.below(4) {
			m.Zones = append(m.Zones, &controlpb.HeldZone{
				Apex: t.apex(), Version: versionMessage(t.zone().Version), Cluster: []string{"", "cluster-0"}[t.below(2)], NotDurable: t.below(2) == 0,
			})
		}
		for range t.below(3) {
			d := t.document()
			digest := d.Digest()
			m.Documents = append(m.Documents, &controlpb.HeldDocument{Kind: d.Kind, Digest: digest[:], NotDurable: t.below(2) == 0})
		}
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_Held{Held: m}}
	case 3:
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_NotDurable{NotDurable: &controlpb.NotDurable{Transfer: id, Apex: t.apex(), Version: v}}}
	case 4:
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_Nack{Nack: &controlpb.Nack{
			Transfer: id, Reason: controlpb.Nack_Reason(t.below(10)), Epoch: uint64(t.byte()), Removal: &controlpb.Removal{Examples: [][]byte{t.bytes()}},
		}}}
	case 5:
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_Removed{Removed: &controlpb.Removed{Transfer: id}}}
	case 6:
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_FetchChunk{FetchChunk: &controlpb.FetchChunk{Fetch: id, Nodes: t.nodes(), Last: t.below(2) == 0}}}
	case 7:
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_FetchFailed{FetchFailed: &controlpb.FetchFailed{Fetch: id}}}
	default:
		return &controlpb.ServerMessage{Message: &controlpb.ServerMessage_Ack{Ack: &controlpb.Ack{Transfer: id, Apex: t.apex(), Version: v}}}
	}
}

// FuzzHub feeds the hub arbitrary messages of a server, among changes of what is wanted.
// Whatever comes: it does not panic, counts right, fetches nothing whose digest does not
// match, and gives all of its budget back.
func FuzzHub(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 1, 0, 3, 3, 3, 3, 1, 0, 0, 0, 8})
	f.Add([]byte{1, 0, 0, 2, 3, 0, 0, 1, 0, 0, 0, 2, 1, 1, 0, 7, 3, 3, 3, 0, 1, 5, 3, 4, 4, 4})
	f.Fuzz(func(t *testing.T, input []byte) {
		in := tape{input}
		h := NewHub(HubOptions{Cluster: here, Log: logr.Discard(), MaxBytesInFlight: 1000, OnZone: func(zone.Name) {}, OnServer: func(ServerID) {}, OnEpoch: func(uint64) {}})
		h.Lead(1)
		p, err := h.admit(group, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var fetches sync.WaitGroup
		asked := 0
		for len(in.rest) > 0 && !p.over() {
			switch in.below(8) {
			case 0, 1:
				if err := p.handle(in.serverMessage()); err != nil {
					p.end(err)
				}
			case 2:
				z := in.zone()
				if in.below(4) == 0 {
					z.Groups = []GroupKey{{"dc-b", "root"}}
				}
				h.Publish(z)
			case 3, 4:
				for range in.below(6) {
					p.next()
				}
			case 5:
				h.Retain(in.zone().Content.Apex())
			case 6:
				h.Withdraw(in.zone().Content.Apex())
			case 7:
				switch in.below(6) {
				case 4:
					if err := h.PublishDocument(group, in.document()); err != nil {
						t.Fatal(err)
					}
				case 5:
					h.WithdrawDocument(group, in.document().Kind)
				case 0:
					h.SetComplete()
				case 1:
					h.ApproveAbsence(group.Datacenter, p.absence.Digest)
				case 2:
					h.Lead(uint64(in.below(5)))
				case 3:
					z := in.zone()
					if asked++; asked > maxFetches {
						break
					}
					fetches.Go(func() {
						c, err := h.Fetch(ctx, z.Content.Apex(), z.Version.Digest)
						if err == nil && c.Digest() != z.Version.Digest {
							t.Errorf("fetched content %s for %s", c.Digest(), z.Version.Digest)
						}
					})
				}
			}
			checkCounts(t, h, p)
		}
		cancel()
		fetches.Wait()
		p.stopBulk()
		h.leave(p)
		if h.budget.used != 0 || len(h.budget.waiting) != 0 {
			t.Errorf("%d octets are still in flight, %d wait", h.budget.used, len(h.budget.waiting))
		}
	})
}

// checkCounts compares what a peer keeps count of with what there is.
func checkCounts(t *testing.T, h *Hub, p *peer) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !p.ready() {
		return
	}
	wanted, current, holds, flights := 0, 0, 0, 0
	for apex, s := range p.zones {
		d := h.zones[apex]
		if d.wantedBy(group) {
			wanted++
			if s.held.Version == d.zone.Version {
				current++
			}
			if _, waits := p.dirty.in[apex]; p.due(d, s) && !waits {
				t.Fatalf("zone %s is due and forgotten", apex)
			}
		}
		if s.holds() {
			holds++
			if _, absent := p.absent[apex]; !s.wanted && !s.removing && s.flight == nil && absent != (d == nil || d.published()) {
				t.Fatalf("zone %s: absent is %v", apex, absent)
			}
		}
		if s.flight != nil {
			flights++
		}
		if s.content != nil && s.content.Digest() != s.held.Version.Digest {
			t.Fatalf("zone %s: the base is not what the server holds", apex)
		}
	}
	wantedDocuments, currentDocuments := 0, 0
	for kind, s := range p.documents {
		if d := h.documents[group][kind]; d != nil && p.takesDocuments {
			wantedDocuments++
			if s.holds && s.held == d.digest {
				currentDocuments++
			}
			if s.due() && !p.documentsDue {
				t.Fatalf("document %q is due and forgotten", kind)
			}
		}
		if s.flight != nil && p.documentFlights[s.flight.id] != s.flight {
			t.Fatalf("document %q is in flight and forgotten", kind)
		}
	}
	if p.wantedDocuments != wantedDocuments || p.currentDocuments != currentDocuments {
		t.Fatalf("counted %d documents wanted, %d current; there are %d, %d", p.wantedDocuments, p.currentDocuments, wantedDocuments, currentDocuments)
	}
	if p.wanted != wanted || p.current != current || p.holds != holds || len(p.flights) != flights {
		t.Fatalf("counted %d wanted, %d current, %d held, %d in flight; there are %d, %d, %d, %d", p.wanted, p.current, p.holds, len(p.flights), wanted, current, holds, flights)
	}
}

// FuzzCopy feeds a server that copies arbitrary messages of a sibling.
func FuzzCopy(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 1, 1, 0, 0, 2, 1, 0, 0, 0, 1, 5, 3, 1})
	f.Fuzz(func(t *testing.T, input []byte) {
		in := tape{input}
		r := newMemory(newBell())
		r.before = func(z Installed) {
			if z.Content.Digest() != z.Version.Digest {
				t.Errorf("zone %s: installing content %s as version %s", z.Content.Apex(), z.Content.Digest(), z.Version)
			}
		}
		c, err := NewClient(ClientOptions{Hubs: []string{"none"}, Name: "one", Replica: r, Log: logr.Discard(), MaxZoneBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		copies := newCopier(c)
		for len(in.rest) > 0 {
			id := uint64(in.below(2))
			m := &controlpb.CopyMessage{}
			switch in.below(7) {
			case 5:
				d := in.document()
				m.Message = &controlpb.CopyMessage_Begin{Begin: &controlpb.Begin{Transfer: id, Resource: documentMessage(d, in.document().Digest())}}
			case 6:
				m.Message = &controlpb.CopyMessage_Chunk{Chunk: &controlpb.Chunk{Transfer: id, Nodes: in.document().Body}}
			case 0:
				m.Message = &controlpb.CopyMessage_Offer{Offer: &controlpb.Offer{Epoch: uint64(in.byte()), Cluster: here, Zones: uint32(in.below(2))}}
			case 1:
				z := in.zone()
				b := &controlpb.Zone{Apex: in.apex(), Version: versionMessage(z.Version), Cluster: here}
				m.Message = &controlpb.CopyMessage_Begin{Begin: &controlpb.Begin{Transfer: id, Resource: &controlpb.Begin_Zone{Zone: b}}}
			case 2:
				m.Message = &controlpb.CopyMessage_Chunk{Chunk: &controlpb.Chunk{Transfer: id, Nodes: in.nodes()}}
			case 3:
				m.Message = &controlpb.CopyMessage_Commit{Commit: &controlpb.Commit{Transfer: id}}
			case 4:
				_ = proto.Unmarshal(in.bytes(), m)
			}
			if copies.take(t.Context(), m) != nil {
				break
			}
		}
		_ = copies.finish()
	})
}
