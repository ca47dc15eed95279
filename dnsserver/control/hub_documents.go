package control

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// desiredDocument is a document that the servers of a group are to have.
type desiredDocument struct {
	Document
	digest   zone.Digest
	revision uint64 // unique; a refused one is sent again only after DocumentRetry
}

// PublishDocument makes d what the servers of a group have of its kind, those that join later too. The latest call wins,
// the same body again changes nothing; a server that has it already is sent nothing. The error says that d can't be sent.
func (h *Hub) PublishDocument(g GroupKey, d Document) error {
	if err := d.check(); err != nil {
		return fmt.Errorf("publishing to group %s: %w", g, err)
	}
	digest := d.Digest()
	h.change(func(n *notes) {
		of := h.documents[g]
		if of == nil {
			of = map[string]*desiredDocument{}
			h.documents[g] = of
		}
		if was := of[d.Kind]; was != nil && was.digest == digest {
			return
		}
		h.documentRevision++
		of[d.Kind] = &desiredDocument{Document: d, digest: digest, revision: h.documentRevision}
		h.reconsiderDocument(g, d.Kind, n)
	})
	return nil
}

// WithdrawDocument ends PublishDocument: servers of the group keep what they have of the kind, and are sent nothing.
func (h *Hub) WithdrawDocument(g GroupKey, kind string) {
	h.change(func(n *notes) {
		if h.documents[g][kind] != nil {
			delete(h.documents[g], kind)
			h.reconsiderDocument(g, kind, n)
		}
	})
}

func (h *Hub) reconsiderDocument(g GroupKey, kind string, n *notes) {
	for _, p := range h.peers {
		if p.group == g {
			p.reconsiderDocument(kind, n)
		}
	}
}

// ServerDocument is one document that a server is to have.
type ServerDocument struct {
	Kind       string
	Digest     zone.Digest // of what it is to have
	Current    bool        // it has that
	NotDurable bool        // what it has is not on its disk
	Nack       *Nack       // it refused what was sent last; nil: it did not
}

// documentSlot is one document at one server: what it has and what it should have.
type documentSlot struct {
	held       zone.Digest
	holds      bool
	notDurable bool
	flight     *documentFlight // sent or about to be, and not answered; nil: none

	nack         *Nack
	nackRevision uint64

	wanted, current bool // as counted in peer.wantedDocuments and currentDocuments
}

// documentFlight is a transfer of a document.
type documentFlight struct {
	id        uint64
	document  *desiredDocument
	committed bool // all of it was given to the stream
}

// reconsiderDocument brings what is derived of one document up to date, as reconsider does for a zone.
func (p *peer) reconsiderDocument(kind string, n *notes) {
	d, s := p.hub.documents[p.group][kind], p.documents[kind]
	wanted := d != nil && p.takesDocuments
	if s == nil {
		if !wanted {
			return
		}
		s = &documentSlot{}
		p.documents[kind] = s
	}
	count(&p.wantedDocuments, &s.wanted, wanted)
	count(&p.currentDocuments, &s.current, wanted && s.holds && s.held == d.digest)
	if s.nack != nil && (d == nil || d.revision != s.nackRevision) {
		s.nack = nil
	}
	if s.due() {
		p.documentsDue = true
		p.poke()
	}
	p.noteSync(n)
}

func (s *documentSlot) due() bool { return s.wanted && !s.current && s.flight == nil && s.nack == nil }

// launchDocument puts the next document that is due in p.out. hub.mu is held.
func (p *peer) launchDocument() {
	if !p.documentsDue {
		return
	}
	for _, kind := range slices.Sorted(maps.Keys(p.documents)) {
		s := p.documents[kind]
		if !s.due() {
			continue
		}
		p.lastID++
		f := &documentFlight{id: p.lastID, document: p.hub.documents[p.group][kind]}
		s.flight = f
		p.documentFlights[f.id] = f
		p.toldSynced = false
		p.put(&controlpb.HubMessage{Message: &controlpb.HubMessage_Begin{
			Begin: &controlpb.Begin{Transfer: f.id, Resource: documentMessage(f.document.Document, f.document.digest)},
		}})
		for _, part := range documentChunks(f.document.Body) {
			p.put(&controlpb.HubMessage{Message: &controlpb.HubMessage_Chunk{Chunk: &controlpb.Chunk{Transfer: f.id, Nodes: part}}})
		}
		p.put(&controlpb.HubMessage{Message: &controlpb.HubMessage_Commit{Commit: &controlpb.Commit{Transfer: f.id}}})
		return
	}
	p.documentsDue = false
}

// answeredDocument returns the transfer of a document that the server may answer now, and forgets it; nil if the
// transfer is none of a document.
func (p *peer) answeredDocument(id uint64) (*documentFlight, *documentSlot) {
	f := p.documentFlights[id]
	if f == nil || !f.committed {
		return nil, nil
	}
	delete(p.documentFlights, id)
	s := p.documents[f.document.Kind]
	s.flight = nil
	return f, s
}

func (p *peer) installedDocument(f *documentFlight, s *documentSlot, notDurable bool, n *notes) {
	s.held, s.holds, s.notDurable, s.nack = f.document.digest, true, notDurable, nil
	p.reconsiderDocument(f.document.Kind, n)
	n.server(p.id)
	p.poke()
}

func (p *peer) refusedDocument(f *documentFlight, s *documentSlot, m *controlpb.Nack, n *notes) {
	kind := f.document.Kind
	s.nack = &Nack{Version: zone.Version{Digest: f.document.digest}, Reason: reasonName(m.GetReason()), Message: clip(m.GetMessage())}
	s.nackRevision = f.document.revision
	p.hub.opts.Log.Info("server refused a document", "server", p.id, "kind", kind, "reason", s.nack.Reason, "message", s.nack.Message)
	refusal := s.nack
	// What kept it from taking effect, such as a port in use, may pass.
	time.AfterFunc(p.hub.opts.DocumentRetry, func() {
		p.hub.change(func(n *notes) {
			if s.nack == refusal && !p.over() {
				s.nack = nil
				p.reconsiderDocument(kind, n)
			}
		})
	})
	p.reconsiderDocument(kind, n)
	n.server(p.id)
	p.poke()
}

func (p *peer) takeHeldDocument(m *controlpb.HeldDocument) error {
	kind := m.GetKind()
	if !isKind(kind) {
		return malformed("Held: %q is no kind of documents", clip(kind))
	}
	digest, err := digestOf(m.GetDigest())
	if err != nil {
		return malformed("Held: document %q: %v", kind, err)
	}
	s := p.documents[kind] // there already if it was published meanwhile
	if s == nil {
		s = &documentSlot{}
		p.documents[kind] = s
	}
	if s.holds {
		return malformed("Held: document %q comes twice", kind)
	}
	if p.heldDocuments++; p.heldDocuments > maxKinds {
		return malformed("Held: more than %d documents", maxKinds)
	}
	s.held, s.holds, s.notDurable = digest, true, m.GetNotDurable()
	return nil
}

// takeReport returns a report that is for OnReport.
func (p *peer) takeReport(m *controlpb.Report) (ServerID, error) {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	switch {
	case p.state < stateListing:
		return ServerID{}, malformed("Report is not expected now")
	case !isKind(m.GetKind()) || len(m.GetBody()) > MaxReport:
		return ServerID{}, malformed("report of kind %q and %d octets", clip(m.GetKind()), len(m.GetBody()))
	}
	return p.id, nil
}

// reachable completes the address that a server says its peers reach it at: without a host it is where the stream comes
// from. "" if that is no address.
func reachable(stated string, from net.Addr) string {
	host, port, err := net.SplitHostPort(stated)
	if err != nil || len(host) > 253 {
		return ""
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return ""
	}
	if host == "" {
		if from == nil {
			return ""
		}
		if host, _, err = net.SplitHostPort(from.String()); err != nil {
			return ""
		}
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c > '~' {
			return ""
		}
	}
	return net.JoinHostPort(host, port)
}
