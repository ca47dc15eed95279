package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Memory is small entries that must survive a restart and that nobody else has, such as what servers have decided. Losing
// it is bad luck and never stops a server: a file that can't be read is set aside.
type Memory struct{ db *bolt.DB }

const (
	memoryName    = "memory.db"
	memoryDamaged = "memory.db.damaged"
	memoryLock    = 5 * time.Second // somebody else has the file; the directory is locked by Store already
)

var bucketMemory = []byte("memory")

// OpenMemory opens the memory of a directory that a Store is open in. damaged says what was set aside, or nil. A file that
// is good, and can't be opened for another reason, such as a full disk, stays where it is: err says why.
func OpenMemory(dir string) (m *Memory, damaged error, err error) {
	path := filepath.Join(dir, memoryName)
	db, failed := openMemory(path)
	if failed == nil {
		return &Memory{db}, nil, nil
	}
	if !isDamage(failed) {
		return nil, nil, fmt.Errorf("opening %s: %w", path, failed)
	}
	if err := os.Rename(path, filepath.Join(dir, memoryDamaged)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, failed, fmt.Errorf("setting aside %s: %w", path, err)
	}
	if db, err = openMemory(path); err != nil {
		return nil, failed, fmt.Errorf("opening %s: %w", path, err)
	}
	return &Memory{db}, failed, nil
}

// isDamage reports whether what is in a file is why it can't be opened, and not the system: it has no room, say, or no
// permission, or somebody else has the file open.
func isDamage(err error) bool {
	var system syscall.Errno
	return !errors.Is(err, bolterrors.ErrTimeout) && (!errors.As(err, &system) || system == syscall.EIO)
}

// openMemory opens a file of which every page can be read.
func openMemory(path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a file that is cut short faults where it is mapped
	defer func() {
		if cause := recover(); cause != nil { // what bbolt does with a damaged page
			err = fmt.Errorf("%s is damaged: %v", path, cause)
		}
		if err != nil && db != nil {
			err = errors.Join(err, db.Close())
			db = nil
		}
	}()
	if db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: memoryLock, FreelistType: bolt.FreelistMapType}); err != nil {
		return nil, err
	}
	isNew := false
	err = db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketMemory)
		if isNew = b == nil; isNew {
			return nil
		}
		return b.ForEach(func(_, _ []byte) error { return nil })
	})
	if err == nil && isNew { // else nothing is written: there may be no room
		err = db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(bucketMemory)
			return err
		})
	}
	return db, err
}

// LoadState returns all entries. Those that are damaged are missing.
func (m *Memory) LoadState() (map[string][]byte, error) {
	entries := map[string][]byte{}
	err := m.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMemory).ForEach(func(key, value []byte) error {
			if len(value) >= 4 && binary.BigEndian.Uint32(value) == memorySum(key, value[4:]) {
				entries[string(key)] = append([]byte{}, value[4:]...)
			}
			return nil
		})
	})
	return entries, err
}

// SaveState writes entries, all or none, and returns when they are on disk. Nil removes an entry.
func (m *Memory) SaveState(entries map[string][]byte) error {
	return m.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketMemory)
		for key, value := range entries {
			var err error
			if value == nil {
				err = b.Delete([]byte(key))
			} else {
				err = b.Put([]byte(key), append(binary.BigEndian.AppendUint32(nil, memorySum([]byte(key), value)), value...))
			}
			if err != nil {
				return fmt.Errorf("saving %q: %w", key, err)
			}
		}
		return nil
	})
}

func memorySum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// Close gives the file free.
func (m *Memory) Close() error { return m.db.Close() }
