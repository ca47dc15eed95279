package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func commitDocuments(t testing.TB, s *Store, f Fence, docs ...Document) {
	t.Helper()
	if err := s.CommitDocuments(f, docs...); err != nil {
		t.Fatal(err)
	}
}

func requireDocuments(t testing.TB, found Found, want ...Document) {
	t.Helper()
	same := func(a, b Document) bool { return a.Kind == b.Kind && bytes.Equal(a.Body, b.Body) }
	if !slices.EqualFunc(found.Documents, want, same) || len(found.LostDocuments) > 0 {
		t.Fatalf("found %d documents, lost %q; want %d", len(found.Documents), found.LostDocuments, len(want))
	}
}

func TestDocumentsComeBack(t *testing.T) {
	dir := t.TempDir()
	s, found := open(t, dir)
	requireDocuments(t, found)
	z := version(t, apexes[1], 1, 50)
	commit(t, s, Fence{1, "a"}, put(z))
	large := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	settings, overrides, empty := Document{"settings", []byte("one")}, Document{"overrides", large}, Document{"topology", nil}
	commitDocuments(t, s, Fence{2, "a"}, settings, overrides, empty)
	s, found = reopen(t, s, dir, z)
	requireDocuments(t, found, overrides, settings, empty)
	if found.Fence != (Fence{2, "a"}) {
		t.Errorf("fence is %v", found.Fence)
	}
	settings.Body = []byte("two")
	commitDocuments(t, s, Fence{2, "a"}, settings)
	next := version(t, apexes[1], 2, 50)
	commit(t, s, Fence{3, "a"}, put(next))
	s, found = reopen(t, s, dir, next)
	requireDocuments(t, found, overrides, settings, empty)
	if err := s.CommitDocuments(Fence{3, "a"}, Document{"", nil}); err == nil {
		t.Error("a document without a kind was taken")
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v (%v)", info.Mode(), err)
	}
}

// TestDocumentsAreWrittenAnewWithTheFile: a file that breaks in use loses none, whether the
// next write is of a zone or of a document.
func TestDocumentsAreWrittenAnewWithTheFile(t *testing.T) {
	dir := t.TempDir()
	z, d, other := version(t, apexes[1], 1, 500), Document{"settings", []byte("one")}, Document{"topology", []byte("kept")}
	for name, write := range map[string]func(*Store) error{
		"a zone":     func(s *Store) error { return s.Commit(Fence{1, "a"}, put(z)) },
		"a document": func(s *Store) error { return s.CommitDocuments(Fence{1, "a"}, d) },
	} {
		t.Run(name, func(t *testing.T) {
			reports := 0
			s, _, err := Open(dir, func(error) { reports++ })
			if err != nil {
				t.Fatal(err)
			}
			commit(t, s, Fence{1, "a"}, put(z))
			commitDocuments(t, s, Fence{1, "a"}, d, other)
			if err := os.Truncate(filepath.Join(dir, fileName), 0); err != nil {
				t.Fatal(err)
			}
			z, d.Body = version(t, apexes[1], z.Version.Serial+1, 500), append(slices.Clone(d.Body), '+')
			if err := write(s); err != nil || reports != 1 {
				t.Fatalf("%v, %d reports", err, reports)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			_, found := open(t, dir)
			if name == "a document" {
				requireDocuments(t, found, d, other)
			} else if requireZones(t, found, z); len(found.Documents) != 2 {
				t.Errorf("%d documents", len(found.Documents))
			}
		})
	}
}

// TestDamagedDocuments: each document is there as it was, or is reported as lost; never is
// one there that nobody wrote.
func TestDamagedDocuments(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	commit(t, s, Fence{1, "a"}, put(version(t, apexes[1], 1, 20)))
	var docs []Document
	for i := range 6 {
		docs = append(docs, Document{fmt.Sprintf("kind-%d", i), bytes.Repeat([]byte{byte(i)}, 1<<(3*i))})
		commitDocuments(t, s, Fence{1, "a"}, docs[i])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	file = used(file)
	lost, none := 0, 0
	for seed := range uint64(200) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), damage(file, rand.New(rand.NewPCG(seed, 0))), 0o600); err != nil {
			t.Fatal(err)
		}
		var reports []string
		s, found, err := Open(dir, func(err error) { reports = append(reports, err.Error()) })
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, d := range found.Documents {
			if !slices.ContainsFunc(docs, func(o Document) bool { return o.Kind == d.Kind && bytes.Equal(o.Body, d.Body) }) {
				t.Fatalf("seed %d: found a document %q of %d octets", seed, d.Kind, len(d.Body))
			}
		}
		for _, kind := range found.LostDocuments {
			if want := fmt.Sprintf("document %q is lost", kind); !slices.ContainsFunc(reports, func(r string) bool { return strings.Contains(r, want) }) {
				t.Errorf("seed %d: %s, reported is %q", seed, want, reports)
			}
		}
		switch n := len(found.Documents) + len(found.LostDocuments); {
		case len(found.LostDocuments) > 0:
			lost++
		case n < len(docs) && len(reports) == 0:
			t.Errorf("seed %d: %d documents and no report", seed, n)
		case n < len(docs):
			none++
		}
		_, found2 := reopen(t, s, dir, pointers(found.Zones)...)
		requireDocuments(t, found2, found.Documents...)
	}
	if lost == 0 || none == 0 {
		t.Errorf("the damage is not of all kinds: %d, %d", lost, none)
	}
}

func pointers(zones []Zone) []*Zone {
	var all []*Zone
	for i := range zones {
		all = append(all, &zones[i])
	}
	return all
}

func TestDocumentsOnAFullDisk(t *testing.T) {
	if !alone(t) {
		return
	}
	dir := t.TempDir()
	s, _ := open(t, dir)
	small := Document{"settings", []byte("small")}
	commitDocuments(t, s, Fence{1, "a"}, small)
	lift := limitFileSize(t, 200<<10)
	large := Document{"overrides", make([]byte, 1<<20)}
	if err := s.CommitDocuments(Fence{2, "a"}, large); !IsFull(err) {
		t.Fatalf("commit on a full disk says %v", err)
	}
	s, found := reopen(t, s, dir)
	requireDocuments(t, found, small)
	lift()
	commitDocuments(t, s, Fence{2, "a"}, large)
	_, found = reopen(t, s, dir)
	requireDocuments(t, found, large, small)
}
