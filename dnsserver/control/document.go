package control

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Document is octets of a kind that the hub has servers keep beside zones. What they mean is
// for those to know who write and read them; they may be secret, so that neither errors nor
// logs quote them.
type Document struct {
	Kind string // 1 to 63 of a-z, 0-9 and -
	Body []byte // at most MaxDocument; not to be changed once it was handed over
}

const (
	// MaxDocument bounds the body of a document, in octets.
	MaxDocument = 4 << 20
	// MaxReport bounds the body of a report, in octets: it is one message.
	MaxReport = 768 << 10

	maxKinds = 64 // of documents at one server

	maxReports = 2048 // kinds of reports of one server
)

// Digest is the SHA-256 of the body.
func (d Document) Digest() zone.Digest { return zone.Digest(sha256.Sum256(d.Body)) }

func (d Document) check() error {
	switch {
	case !isKind(d.Kind):
		return fmt.Errorf("%q is no kind of documents", clip(d.Kind))
	case len(d.Body) > MaxDocument:
		return fmt.Errorf("document %q has %d octets, more than %d", d.Kind, len(d.Body), MaxDocument)
	}
	return nil
}

func isKind(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// HeldDocument is what is known of a document that is in force, without its body.
type HeldDocument struct {
	Kind       string
	Digest     zone.Digest
	NotDurable bool // the copy on disk is still missing or older
}

// resource names what a server has: a zone, or else the kind of a document.
type resource struct {
	apex     zone.Name
	document string
}

func zoneResource(apex zone.Name) resource { return resource{apex: apex} }

func (r resource) String() string {
	if r.document != "" {
		return fmt.Sprintf("document %q", r.document)
	}
	return "zone " + r.apex.String()
}

func documentMessage(d Document, digest zone.Digest) *controlpb.Begin_Document {
	return &controlpb.Begin_Document{Document: &controlpb.Document{Kind: d.Kind, Digest: digest[:], Size: uint32(len(d.Body))}}
}

// documentChunks cuts a body into the parts of messages; an empty one into none.
func documentChunks(body []byte) [][]byte {
	var parts [][]byte
	for ; len(body) > 0; body = body[min(len(body), chunkSize):] {
		parts = append(parts, body[:min(len(body), chunkSize)])
	}
	return parts
}

// incoming is a document on its way in.
type incoming struct {
	kind   string
	digest zone.Digest
	size   int
	body   []byte
}

func parseDocument(m *controlpb.Document) (*incoming, error) {
	d := &incoming{kind: m.GetKind(), size: int(m.GetSize())}
	if !isKind(d.kind) {
		return nil, fmt.Errorf("document of kind %q is %w", clip(d.kind), errMalformed)
	}
	if d.size > MaxDocument {
		return nil, fmt.Errorf("document %q is %w", d.kind, errTooLarge)
	}
	var err error
	if d.digest, err = digestOf(m.GetDigest()); err != nil {
		return nil, fmt.Errorf("document %q: %w", d.kind, err)
	}
	return d, nil
}

func (d *incoming) add(part []byte) error {
	if len(part) > d.size-len(d.body) {
		return fmt.Errorf("document %q is %w that it states, %d octets", d.kind, errTooLarge, d.size)
	}
	d.body = append(d.body, part...)
	return nil
}

// document returns the whole; the error wraps errMalformed or is errDigest.
func (d *incoming) document() (Document, error) {
	if len(d.body) != d.size {
		return Document{}, fmt.Errorf("document %q is %w: %d octets of %d came", d.kind, errMalformed, len(d.body), d.size)
	}
	doc := Document{Kind: d.kind, Body: d.body}
	if doc.Digest() != d.digest {
		return Document{}, fmt.Errorf("document %q: %w", d.kind, errDigest)
	}
	return doc, nil
}
