package store_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/fingerpost-dns/fingerpost/dnsserver/store"
)

// remember leaves a memory in the folder in which a is 1.
func remember(t *testing.T, dir string) {
	t.Helper()
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
}

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
			remember(t, dir)
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

// TestAGoodMemoryIsNotSetAside: that it can't be opened, or written, now says nothing of what is in it.
func TestAGoodMemoryIsNotSetAside(t *testing.T) {
	for why, hinder := range map[string]func(t *testing.T, path string) (undo func()){
		"somebody else has it": func(t *testing.T, path string) func() {
			t.Helper()
			db, err := bolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			return func() { db.Close() }
		},
		"the process has no more descriptors": func(t *testing.T, _ string) func() {
			t.Helper()
			var limit syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
			few := limit
			few.Cur = 0
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(why, func(t *testing.T) {
			dir := t.TempDir()
			remember(t, dir)
			undo := hinder(t, filepath.Join(dir, "memory.db"))
			m, damaged, err := store.OpenMemory(dir)
			undo()
			if m != nil || damaged != nil || err == nil {
				t.Fatalf("opened %v, damaged %v, error %v", m, damaged, err)
			}
			if m, damaged, err = store.OpenMemory(dir); err != nil || damaged != nil {
				t.Fatalf("afterwards damaged is %v, error %v", damaged, err)
			}
			defer m.Close()
			if got, err := m.LoadState(); err != nil || string(got["a"]) != "1" {
				t.Errorf("afterwards it has %v, error %v", got, err)
			}
		})
	}
}

// TestAMemoryOpensWhereNothingCanBeWritten: what it has is known all the same.
func TestAMemoryOpensWhereNothingCanBeWritten(t *testing.T) {
	dir := t.TempDir()
	remember(t, dir)
	path := filepath.Join(dir, "memory.db")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := store.OpenMemory(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if after, err := os.Stat(path); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("to open it has written: %v, %v; %v", before.ModTime(), after.ModTime(), err)
	}
}
