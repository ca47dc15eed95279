package control

import (
	"context"
	"fmt"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Fence says who may change what a server holds. Epochs grow with every new leader of a hub,
// over all hub clusters; the zero Fence was never raised and is below every other.
type Fence struct {
	Epoch   uint64
	Cluster string // identity of the hub's cluster; two clusters with one epoch exclude each other
}

// Admits reports whether a change under o may be applied where f is the highest fence seen.
func (f Fence) Admits(o Fence) bool {
	return o.Epoch > f.Epoch || o == f
}

// Installed is one zone as a server has it.
type Installed struct {
	Content *zone.Content
	Version zone.Version // Version.Digest is Content.Digest()
	Source  string       // namespace/name of the DNSZone it was made from
	Cluster string       // the hub's cluster that published it, or confirmed it last
}

// Held is what is known of an installed zone without its content.
type Held struct {
	Apex    zone.Name
	Version zone.Version
	Source  string // as in Installed
	Cluster string // as in Installed
	Records int    // Content.Records()

	// NotDurable is set while the zone is served and its copy on disk is still missing or older.
	NotDurable bool
}

// Replica is the zones that one server serves and keeps on disk, the documents that came with
// them, and the highest fence that it has seen. Methods may be called concurrently, Install and Remove for different zones
// too: an implementation can put their writes to disk together. Two changes of one zone or
// of one kind of documents are never under way at once.
type Replica interface {
	// Held lists the zones in canonical order of their apexes.
	Held() []Held

	// Zone returns one zone; ok is false if the server does not have it.
	Zone(apex zone.Name) (z Installed, ok bool)

	// Install puts z in the place of what the server has of that zone, all or nothing, and
	// returns when z is served and durable. The fence is compared and raised together with
	// the change: a change under a fence that the highest one does not admit is refused with
	// a StaleEpochError and changes nothing, however long ago it was sent.
	//
	// When z is served but could not be made durable, the error is a NotDurableError; the
	// implementation tries again by itself and calls the OnDurable function when it has
	// succeeded. Any other error means that nothing was changed. Where only version, source
	// or cluster differ from what is installed, Content is the very same pointer.
	Install(ctx context.Context, f Fence, z Installed) error

	// Remove takes the zone away, under the same rules as Install. Removing a zone that the
	// server does not have succeeds.
	Remove(ctx context.Context, f Fence, apex zone.Name) error

	// Fence returns the highest fence seen.
	Fence() Fence

	// Raise makes f the highest fence, durably, or fails with a StaleEpochError if the present
	// one does not admit it. After a NotDurableError f is in force until the next restart.
	Raise(ctx context.Context, f Fence) error

	// OnDurable sets the function that is called, and must not block, when a zone is durable
	// for which Install returned a NotDurableError. It is set once, before the first change.
	OnDurable(func(apex zone.Name, v zone.Version))

	// Documents lists the documents in force, by kind.
	Documents() []HeldDocument

	// Document returns one of them; ok is false if the server does not have it.
	Document(kind string) (d Document, ok bool)

	// InstallDocument puts d in force in the place of the document of its kind, under the same
	// rules as Install, and keeps it. An error that is neither a StaleEpochError nor a
	// NotDurableError refuses it: what was in force before still is. It is told to the hub.
	InstallDocument(ctx context.Context, f Fence, d Document) error

	// OnDocumentDurable is OnDurable for documents.
	OnDocumentDurable(func(kind string, digest zone.Digest))

	// LostDocuments is Lost for documents: their kinds.
	LostDocuments() []string

	// Lost lists the zones whose copy on disk was found damaged and set aside at start and
	// which were not installed again since. Empty for a store that lost nothing or all.
	Lost() []zone.Name
}

// StaleEpochError refuses a change that a leader sent which is none any more.
type StaleEpochError struct {
	Fence, Seen Fence // of the change, and the highest one
}

func (e *StaleEpochError) Error() string {
	return fmt.Sprintf("epoch %d of cluster %q is stale: epoch %d of cluster %q was seen", e.Fence.Epoch, e.Fence.Cluster, e.Seen.Epoch, e.Seen.Cluster)
}

// NotDurableError reports a change that is in force but not on disk.
type NotDurableError struct {
	Err error // what the disk said
}

func (e *NotDurableError) Error() string { return "in force but not durable: " + e.Err.Error() }
func (e *NotDurableError) Unwrap() error { return e.Err }
