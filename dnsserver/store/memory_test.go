package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fingerpost-dns/fingerpost/dnsserver/store"
)

func TestMemoryKeepsWhatWasSaved(t *testing.T) {
	dir := t.TempDir()
	m, damaged, err := store.OpenMemory(dir)
	if err != nil || damaged != nil {
		t.Fatal(err, damaged)
	}
	if err := m.SaveState(map[string][]byte{"a": []byte("1"), "b": {}, "c": []byte("3")}); err != nil {
		t.Fatal(err)
	}
	if err := m.SaveState(map[string][]byte{"a": []byte("2"), "c": nil}); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m, damaged, err = store.OpenMemory(dir)
	if err != nil || damaged != nil {
		t.Fatal(err, damaged)
	}
	defer m.Close()
	got, err := m.LoadState()
	if diff := cmp.Diff(map[string][]byte{"a": []byte("2"), "b": {}}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}

// TestADamagedMemoryIsSetAside: a server whose disk has gone wrong starts all the same.
func TestADamagedMemoryIsSetAside(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut short":     func(b []byte) []byte { return b[:len(b)/3] },
		"overwritten":   func(b []byte) []byte { clear(b); return b },
		"another file":  func([]byte) []byte { return []byte("hello") },
		"empty of meta": func(b []byte) []byte { clear(b[:8192]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m, _, err := store.OpenMemory(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.SaveState(map[string][]byte{"a": []byte("1")}); err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "memory.db")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			m, damaged, err := store.OpenMemory(dir)
			if err != nil || damaged == nil {
				t.Fatalf("damaged is %v, error %v", damaged, err)
			}
			defer m.Close()
			if got, err := m.LoadState(); err != nil || len(got) != 0 {
				t.Errorf("it has %v, error %v", got, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "memory.db.damaged")); err != nil {
				t.Error(err)
			}
		})
	}
}
