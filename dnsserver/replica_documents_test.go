package dnsserver

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/store"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func requireDocuments(t testing.TB, r *Replica, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, h := range r.Documents() {
		d, ok := r.Document(h.Kind)
		if !ok || d.Digest() != h.Digest {
			t.Errorf("document %q is not what is held", h.Kind)
		}
		got[h.Kind] = string(d.Body)
	}
	if !maps.Equal(got, want) {
		t.Errorf("documents are %q, want %q", got, want)
	}
}

func installDocument(t testing.TB, r *Replica, f control.Fence, kind, body string) {
	t.Helper()
	if err := r.InstallDocument(t.Context(), f, control.Document{Kind: kind, Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

func TestReplicaHandsDocumentsToTheHandlerAndKeepsThem(t *testing.T) {
	dir := t.TempDir()
	r, _ := openReplica(t, dir)
	handled := ""
	refuse := ""
	handler := func(kind string, body []byte) error {
		if string(body) == refuse {
			return errors.New("not this one")
		}
		handled += kind + "=" + string(body) + " "
		return nil
	}
	r.HandleDocuments(handler)
	installDocument(t, r, epoch1, "settings", "1")
	installDocument(t, r, epoch2, "overrides", "2")
	installDocument(t, r, epoch2, "settings", "3")
	refuse = "4"
	err := r.InstallDocument(t.Context(), epoch2, control.Document{Kind: "settings", Body: []byte("4")})
	if err == nil || err.Error() != "not this one" {
		t.Errorf("a refused one says %v", err)
	}
	if err := r.InstallDocument(t.Context(), epoch1, control.Document{Kind: "settings"}); !errors.As(err, new(*control.StaleEpochError)) {
		t.Errorf("one of an old epoch says %v", err)
	}
	if want := "settings=1 overrides=2 settings=3 "; handled != want {
		t.Errorf("handled %q, want %q", handled, want)
	}
	requireDocuments(t, r, map[string]string{"settings": "3", "overrides": "2"})
	if r.Fence() != epoch2 {
		t.Errorf("fence is %v", r.Fence())
	}

	closeReplica(t, r)
	r, view := openReplica(t, dir)
	requireDocuments(t, r, map[string]string{"settings": "3", "overrides": "2"})
	if view.Ready() {
		t.Error("documents fill the view")
	}
	handled, refuse = "", "3" // another version of the program, for instance
	r.HandleDocuments(handler)
	requireDocuments(t, r, map[string]string{"overrides": "2"})
	if handled != "overrides=2 " {
		t.Errorf("handled %q at the start", handled)
	}
	refuse = ""
	installDocument(t, r, epoch3, "settings", "3")
	requireDocuments(t, r, map[string]string{"settings": "3", "overrides": "2"})
	info, err := os.Stat(filepath.Join(dir, "zones.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
}

// hangingDocuments is a disk that takes no documents until it is told to.
type hangingDocuments struct {
	disk
	proceed chan struct{}
}

func (h *hangingDocuments) CommitDocuments(f store.Fence, documents ...store.Document) error {
	<-h.proceed
	return h.disk.CommitDocuments(f, documents...)
}

func TestADocumentIsInForceWhileTheDiskHangs(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, found, err := store.Open(dir, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		h := &hangingDocuments{s, make(chan struct{})}
		r := newReplica(h, found, &zone.View{}, logr.Discard())
		handled := ""
		r.HandleDocuments(func(_ string, body []byte) error { handled = string(body); return nil })
		durable := make(chan zone.Digest, 1)
		r.OnDocumentDurable(func(_ string, d zone.Digest) { durable <- d })
		start := time.Now()
		d := control.Document{Kind: "settings", Body: []byte("1")}
		if err := r.InstallDocument(t.Context(), epoch1, d); !errors.Is(err, errSlowDisk) || time.Since(start) != defaultSlowDisk {
			t.Errorf("after %v install says %v", time.Since(start), err)
		}
		if held := r.Documents(); handled != "1" || len(held) != 1 || !held[0].NotDurable {
			t.Errorf("handled %q, held %v", handled, held)
		}
		if err := r.Raise(t.Context(), epoch2); !errors.As(err, new(*control.NotDurableError)) {
			t.Errorf("raising says %v", err)
		}
		close(h.proceed) // what was in force under its fence goes to disk under a later one
		if got := <-durable; got != d.Digest() {
			t.Errorf("durable is %v", got)
		}
		if held := r.Documents(); held[0].NotDurable {
			t.Errorf("held is %v", held)
		}
		closeReplica(t, r)
	})
	r, _ := openReplica(t, dir)
	requireDocuments(t, r, map[string]string{"settings": "1"})
	if r.Fence() != epoch2 {
		t.Errorf("fence is %v", r.Fence())
	}
}
