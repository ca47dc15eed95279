package resolver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/renameio/v2"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// replica keeps the documents that come from a hub, in one file. It takes no zones. It is for concurrent use.
type replica struct {
	path string
	log  logr.Logger
	// take puts a document in force, or refuses it.
	take func(ctx context.Context, d control.Document) error

	mu        sync.Mutex
	fence     control.Fence
	documents map[string]control.Document
	behind    map[string]bool // kinds whose copy in the file is missing or older
	durable   func(kind string, digest zone.Digest)
}

// keptDocuments is what the file holds, as JSON.
type keptDocuments struct {
	Epoch     uint64            `json:"epoch"`
	Cluster   string            `json:"cluster"`
	Documents map[string][]byte `json:"documents"` // by kind
}

// rewriteInterval is how long it is until a file that could not be written is tried again.
const rewriteInterval = 10 * time.Second

// openReplica reads the file, which need not be there. One that can't be read is as if it was not: the hub sends all again.
func openReplica(path string, log logr.Logger, take func(ctx context.Context, d control.Document) error) *replica {
	r := &replica{path: path, log: log, take: take, documents: map[string]control.Document{}, behind: map[string]bool{}}
	text, err := os.ReadFile(path)
	var k keptDocuments
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		log.Error(err, "what the hub has sent before can't be read", "file", path)
	default:
		r.fence = control.Fence{Epoch: k.Epoch, Cluster: k.Cluster}
		for kind, body := range k.Documents {
			r.documents[kind] = control.Document{Kind: kind, Body: body}
		}
	}
	return r
}

// begin puts the documents of the file in force. Those that are refused are forgotten, so that the hub sends them again.
func (r *replica) begin(ctx context.Context) {
	for _, held := range r.Documents() {
		d, _ := r.Document(held.Kind)
		if err := r.take(ctx, d); err != nil {
			r.log.Error(err, "what the hub has sent before is refused", "kind", d.Kind)
			r.mu.Lock()
			delete(r.documents, d.Kind)
			r.mu.Unlock()
		}
	}
}

// run writes again what could not be written, until ctx ends.
func (r *replica) run(ctx context.Context) {
	tick := time.NewTicker(rewriteInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		late := map[string]zone.Digest{}
		if len(r.behind) > 0 && r.write() == nil {
			for kind := range r.behind {
				late[kind] = r.documents[kind].Digest()
			}
			clear(r.behind)
		}
		r.mu.Unlock()
		for kind, digest := range late {
			r.durable(kind, digest)
		}
	}
}

// write puts all into the file, at once or not at all. r.mu is held.
func (r *replica) write() error {
	k := keptDocuments{Epoch: r.fence.Epoch, Cluster: r.fence.Cluster, Documents: map[string][]byte{}}
	for kind, d := range r.documents {
		k.Documents[kind] = d.Body
	}
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return renameio.WriteFile(r.path, text, 0o600)
}

// InstallDocument implements control.Replica.
func (r *replica) InstallDocument(ctx context.Context, f control.Fence, d control.Document) error {
	if err := r.admit(f); err != nil {
		return err
	}
	if err := r.take(ctx, d); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.documents[d.Kind] = d
	if err := r.write(); err != nil {
		r.behind[d.Kind] = true
		return &control.NotDurableError{Err: err}
	}
	clear(r.behind)
	return nil
}

// admit raises the fence in memory.
func (r *replica) admit(f control.Fence) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fence.Admits(f) {
		return &control.StaleEpochError{Fence: f, Seen: r.fence}
	}
	r.fence = f
	return nil
}

// Raise implements control.Replica.
func (r *replica) Raise(_ context.Context, f control.Fence) error {
	if r.Fence() == f {
		return nil
	}
	if err := r.admit(f); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.write(); err != nil {
		return &control.NotDurableError{Err: err}
	}
	return nil
}

// Fence implements control.Replica.
func (r *replica) Fence() control.Fence {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fence
}

// Documents implements control.Replica.
func (r *replica) Documents() (held []control.HeldDocument) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(r.documents)) {
		held = append(held, control.HeldDocument{Kind: kind, Digest: r.documents[kind].Digest(), NotDurable: r.behind[kind]})
	}
	return held
}

// Document implements control.Replica.
func (r *replica) Document(kind string) (control.Document, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.documents[kind]
	return d, ok
}

// OnDocumentDurable implements control.Replica.
func (r *replica) OnDocumentDurable(f func(kind string, digest zone.Digest)) { r.durable = f }

// LostDocuments implements control.Replica.
func (*replica) LostDocuments() []string { return nil }

// Install implements control.Replica: there are no zones here.
func (*replica) Install(_ context.Context, _ control.Fence, z control.Installed) error {
	return fmt.Errorf("zone %s: a recursive server has no zones", z.Content.Apex())
}

// Remove implements control.Replica.
func (*replica) Remove(context.Context, control.Fence, zone.Name) error { return nil }

// Held implements control.Replica.
func (*replica) Held() []control.Held { return nil }

// Zone implements control.Replica.
func (*replica) Zone(zone.Name) (control.Installed, bool) { return control.Installed{}, false }

// OnDurable implements control.Replica.
func (*replica) OnDurable(func(zone.Name, zone.Version)) {}

// Lost implements control.Replica.
func (*replica) Lost() []zone.Name { return nil }
