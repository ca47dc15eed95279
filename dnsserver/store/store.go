package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Zone is one installed zone.
type Zone struct {
	Content *zone.Content
	Version zone.Version // Version.Digest is Content.Digest()
	Source  string       // namespace/name of the DNSZone it was made from; at most 65,535 octets
	Cluster string       // the hub's cluster that published it; at most 65,535 octets
}

// Fence is the highest epoch that was seen, and the hub's cluster of which it is one.
type Fence struct {
	Epoch   uint64
	Cluster string // at most 65,535 octets
}

// Document is octets of a kind, the meaning of which is not known here. They may be secret.
type Document struct {
	Kind string // 1 to 255 octets
	Body []byte
}

// Change puts Zone in the place of what the store has of zone Apex; nil removes it.
type Change struct {
	Apex zone.Name
	Zone *Zone
}

// Found is what Open read from disk.
type Found struct {
	Zones []Zone // in canonical order of their apexes, each verified by its digest
	Fence Fence
	Lost  []zone.Name // zones that were there and are damaged, in canonical order

	Documents     []Document // by kind, each verified
	LostDocuments []string   // kinds of those that were there and are damaged, in order
}

const (
	fileName = "zones.db"
	newName  = "zones.db.new"
	lockName = "lock"
	asideFor = "zones.db.damaged-" // and a number from 1
	maxAside = 3                   // of the copies with the highest numbers so many are kept
)

// Store is one directory with installed zones and documents, which only its owner may read. Its methods may be called concurrently; they
// take turns.
type Store struct {
	dir    string
	report func(error)
	lock   *os.File

	mu     sync.Mutex
	zones  map[zone.Name]Zone  // what is on disk
	docs   map[string]Document // the same
	fence  Fence               // the same
	db     *bolt.DB            // nil: there is no file that can be written to
	aside  bool                // the present file is damaged: it is kept when it is replaced
	closed bool
	// After a write that failed the file may have it or not. Zones in unsure are written
	// whole the next time, and the fence too.
	unsure      map[zone.Name]bool
	unsureFence bool
}

// Open reads all zones of a directory, which it makes if need be, and takes it for this process.
//
// It fails only if another process has the directory, or if the directory or the file in it
// cannot be read at all. Whatever is wrong with the file's content is told to report, here
// and later, and leaves the other zones alone: the file is kept beside under another name and
// a new one is written. If no file can be written now, each Commit tries it again.
func Open(dir string, report func(error)) (*Store, Found, error) {
	s := &Store{dir: dir, report: report, zones: map[zone.Name]Zone{}, docs: map[string]Document{}, unsure: map[zone.Name]bool{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, Found{}, fmt.Errorf("opening the store: %w", err)
	}
	var err error
	if s.lock, err = lockDir(dir); err != nil {
		return nil, Found{}, err
	}
	found, err := s.load()
	if err != nil {
		_ = s.lock.Close()
		return nil, Found{}, err
	}
	return s, found, nil
}

// lockDir takes a directory for this process as long as the file returned is open. A
// directory that can only be read can be taken too, if it was written to before.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		if readOnly, err2 := os.Open(path); err2 == nil {
			f, err = readOnly, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("opening the store: another process uses %s", dir)
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// load reads the file and gets ready to write.
func (s *Store) load() (Found, error) {
	found, damage, err := readFile(s.path(fileName))
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return Found{}, fmt.Errorf("reading the store: %w", err)
	}
	s.fence = found.Fence
	for _, z := range found.Zones {
		s.zones[z.Content.Apex()] = z
	}
	for _, d := range found.Documents {
		s.docs[d.Kind] = d
	}
	for _, d := range damage {
		s.report(fmt.Errorf("store %s: %w", s.path(fileName), d))
	}
	s.aside = len(damage) > 0
	if fresh || s.aside {
		err = s.rewrite(s.fence, s.zones, s.docs)
	} else {
		s.db, err = openBolt(s.path(fileName), false)
	}
	if err != nil {
		s.report(fmt.Errorf("store %s cannot be written: %w", s.path(fileName), err))
	}
	return found, nil
}

// openBolt opens a file that is sound, or makes one. Panics become errors.
func openBolt(path string, fresh bool) (db *bolt.DB, err error) {
	defer recoverFault(&err)()
	return bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoSync: fresh, NoStatistics: true})
}

// faultError is a panic of bbolt: the file is not what it was when it was verified, or its
// disk does not give it back.
type faultError struct{ cause any }

func (e *faultError) Error() string { return fmt.Sprintf("the file is damaged: %v", e.cause) }

// recoverFault makes panics and invalid memory accesses of this goroutine, until the function
// that it returns is called deferred, errors.
func recoverFault(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			*err = &faultError{p}
		}
	}
}

// readFile reads all that is good in a file. Damage tells what is not; the error is that of
// a file that is not there or cannot be read.
func readFile(path string) (found Found, damage []error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Found{}, nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return Found{}, nil, err
	}
	im, err := openImage(f, info.Size())
	if err != nil {
		return Found{}, []error{fmt.Errorf("all zones are lost: %w", err)}, nil
	}
	found, damage = readImage(im)
	return found, damage, nil
}

// readImage reads all zones that verify. Zones that do not, or that the index has in
// addition, are lost, one error each; other damage has its own.
func readImage(im *image) (found Found, damage []error) {
	fail := func(what string, err error) {
		if err != nil {
			damage = append(damage, fmt.Errorf("%s: %w", what, err))
		}
	}
	fail("zones may be older than they were", im.flaw)
	buckets := map[string][]byte{}
	fail("table of contents", im.walkRoot(func(key, value []byte, bucket bool) {
		if bucket {
			buckets[string(key)] = value
		}
	}))
	var all []*rawZone
	expected := map[zone.Name]bool{}
	name := func(key []byte) (zone.Name, bool) {
		n, size, err := zone.NameFromWire(key)
		return n, err == nil && size == len(key)
	}
	if b, ok := buckets[string(bucketIndex)]; ok {
		fail("index", im.walk(b, func(key, _ []byte, _ bool) {
			if apex, ok := name(key); ok {
				expected[apex] = true
			}
		}))
	} else {
		damage = append(damage, errors.New("the index is missing"))
	}
	if b, ok := buckets[string(bucketZones)]; ok {
		fail("list of zones", im.walk(b, func(key, value []byte, bucket bool) {
			if apex, ok := name(key); ok && bucket {
				z := &rawZone{apex: apex}
				if err := im.walk(value, z.add); z.err == nil {
					z.err = err
				}
				all = append(all, z)
				expected[apex] = true
			}
		}))
	} else {
		damage = append(damage, errors.New("the list of zones is missing"))
	}
	missing := map[string]error{} // documents that are expected and not read yet
	if b, ok := buckets[string(bucketState)]; ok {
		known := false
		fail("state", im.walk(b, func(key, value []byte, _ bool) {
			if kind, ok := strings.CutPrefix(string(key), keyDocument); ok {
				missing[kind] = errors.New("it is missing")
			}
			if bytes.Equal(key, keyFence) {
				var err error
				found.Fence, err = decodeFence(value)
				known = err == nil
			}
		}))
		if !known {
			damage = append(damage, errors.New("the highest epoch seen is missing"))
		}
	} else {
		damage = append(damage, errors.New("the state is missing"))
	}
	if b, ok := buckets[string(bucketDocuments)]; ok {
		fail("documents", im.walk(b, func(key, value []byte, _ bool) {
			d, err := decodeDocument(string(key), value)
			if err != nil {
				missing[string(key)] = err
				return
			}
			delete(missing, d.Kind)
			found.Documents = append(found.Documents, d)
		}))
	}
	found.LostDocuments = slices.Sorted(maps.Keys(missing))
	for _, kind := range found.LostDocuments {
		fail(fmt.Sprintf("document %q is lost", kind), missing[kind])
	}
	fail("structure", im.checkFree())

	zones, headers, errs := verify(all)
	for i, z := range all {
		if errs[i] != nil {
			fail(fmt.Sprintf("zone %s is lost", z.apex), errs[i])
			continue
		}
		delete(expected, z.apex)
		found.Zones = append(found.Zones, zones[i])
		if headers[i].epoch > found.Fence.Epoch { // only if the fence itself is lost
			found.Fence = Fence{headers[i].epoch, headers[i].cluster}
		}
	}
	found.Lost = slices.SortedFunc(maps.Keys(expected), zone.Name.Compare)
	for _, apex := range found.Lost {
		if !slices.ContainsFunc(all, func(z *rawZone) bool { return z.apex == apex }) {
			damage = append(damage, fmt.Errorf("zone %s is lost", apex))
		}
	}
	slices.SortFunc(found.Zones, func(a, b Zone) int { return a.Content.Apex().Compare(b.Content.Apex()) })
	return found, damage
}

// verify builds the zones on all CPUs.
func verify(all []*rawZone) (zones []Zone, headers []header, errs []error) {
	zones, headers, errs = make([]Zone, len(all)), make([]header, len(all)), make([]error, len(all))
	var workers sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), len(all)) {
		workers.Go(func() {
			for i := range next {
				zones[i], headers[i], errs[i] = all[i].zone()
				all[i].nodes = nil
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	workers.Wait()
	return zones, headers, errs
}

// Commit makes the fence and all changes durable, all or nothing: when it returns nil they
// are on disk. Of several changes of one zone the last counts. After an error the store
// is as good as before, and IsFull tells whether the disk was full.
func (s *Store) Commit(f Fence, changes ...Change) error {
	zones := map[zone.Name]*Zone{}
	for _, ch := range changes {
		switch z := ch.Zone; {
		case z == nil:
		case z.Content.Apex() != ch.Apex || z.Content.Digest() != z.Version.Digest:
			return fmt.Errorf("storing zone %s: its content is not that of its version", ch.Apex)
		case max(len(z.Source), len(z.Cluster), len(f.Cluster)) > maxText:
			return fmt.Errorf("storing zone %s: source or cluster is longer than %d octets", ch.Apex, maxText)
		}
		zones[ch.Apex] = ch.Zone
	}
	return s.commit(f, zones, nil)
}

// CommitDocuments puts documents in the place of those of their kinds, as Commit does with zones. Bodies are not to be
// changed afterwards.
func (s *Store) CommitDocuments(f Fence, documents ...Document) error {
	for _, d := range documents {
		if len(d.Kind) == 0 || len(d.Kind) > maxKind || len(f.Cluster) > maxText {
			return fmt.Errorf("storing a document: a kind of %d octets, or a cluster of %d, can't be stored", len(d.Kind), len(f.Cluster))
		}
	}
	return s.commit(f, nil, documents)
}

func (s *Store) commit(f Fence, zones map[zone.Name]*Zone, docs []Document) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("the store is closed")
	}
	if s.db != nil {
		err := s.update(f, zones, docs)
		if err == nil {
			s.record(f, zones, docs)
			return nil
		}
		s.unsureFence = true
		for apex := range zones {
			s.unsure[apex] = true
		}
		if IsFull(err) {
			s.renew()
			return fmt.Errorf("the disk is full: %w", err)
		}
		s.abandon(err)
	}
	// There is no file to change: the whole store is written to a new one.
	next, nextDocs := maps.Clone(s.zones), maps.Clone(s.docs)
	apply(next, zones)
	for _, d := range docs {
		nextDocs[d.Kind] = d
	}
	if err := s.rewrite(f, next, nextDocs); err != nil {
		if IsFull(err) {
			return fmt.Errorf("the disk is full: %w", err)
		}
		return err
	}
	s.record(f, zones, docs)
	return nil
}

// record notes what is on disk now.
func (s *Store) record(f Fence, changes map[zone.Name]*Zone, docs []Document) {
	s.fence, s.unsureFence = f, false
	apply(s.zones, changes)
	for _, d := range docs {
		s.docs[d.Kind] = d
	}
	for apex := range changes {
		delete(s.unsure, apex)
	}
}

func apply(zones map[zone.Name]Zone, changes map[zone.Name]*Zone) {
	for apex, z := range changes {
		if z == nil {
			delete(zones, apex)
		} else {
			zones[apex] = *z
		}
	}
}

// IsFull reports whether err says that there is no room left: on the disk, in the quota, or
// in a file of this process.
func IsFull(err error) bool {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		// bbolt passes some errors on as text.
		if err != nil && (errors.Is(err, full) || strings.Contains(err.Error(), full.Error())) {
			return true
		}
	}
	return false
}

// update writes the changes to the present file.
func (s *Store) update(f Fence, changes map[zone.Name]*Zone, docs []Document) (err error) {
	defer recoverFault(&err)()
	return s.db.Update(func(tx *bolt.Tx) error {
		w, err := newWriter(tx)
		if err != nil {
			return err
		}
		if f != s.fence || s.unsureFence {
			if err := w.fence(f); err != nil {
				return err
			}
		}
		for _, apex := range slices.SortedFunc(maps.Keys(changes), zone.Name.Compare) {
			z := changes[apex]
			old, ok := s.zones[apex]
			switch {
			case z == nil:
				err = w.remove(apex)
			case ok && !s.unsure[apex]:
				err = w.change(apex, f, &old, z)
			default:
				err = w.replace(apex, f, z)
			}
			if err != nil {
				return fmt.Errorf("storing zone %s: %w", apex, err)
			}
		}
		return w.putDocuments(tx, docs)
	})
}

// renew opens the file again after a write that did not fit: bbolt would go on asking for as
// much room as that write needed.
func (s *Store) renew() {
	err := s.db.Close()
	s.db = nil
	if err == nil {
		s.db, err = openBolt(s.path(fileName), false)
	}
	if err != nil {
		s.report(fmt.Errorf("store %s cannot be written: %w", s.path(fileName), err))
	}
}

// abandon gives up the present file after an error that says that it cannot be relied on.
func (s *Store) abandon(err error) {
	s.report(fmt.Errorf("store %s is given up, and a new file written: %w", s.path(fileName), err))
	if _, fault := errors.AsType[*faultError](err); !fault {
		_ = s.db.Close()
	} // else its locks may be held for ever: it stays open and unused
	s.db, s.aside = nil, true
}

// batchOwners bounds the owners that one transaction of rewrite holds in memory, but for
// those of a single zone.
const batchOwners = 50_000

// rewrite writes a new file and puts it in the place of the present one, of which a copy is
// kept if it is damaged. After an error the present file is as it was.
func (s *Store) rewrite(f Fence, zones map[zone.Name]Zone, docs map[string]Document) (err error) {
	path := s.path(newName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openBolt(path, true)
	if err != nil {
		_ = os.Remove(path)
		return err
	}
	if err := s.fill(db, f, zones, docs); err != nil {
		if _, fault := errors.AsType[*faultError](err); !fault {
			_ = db.Close()
		}
		_ = os.Remove(path)
		return err
	}
	s.db, s.aside, s.unsure = db, false, map[zone.Name]bool{}
	return nil
}

// fill writes all zones and documents to the new file and puts it in place.
func (s *Store) fill(db *bolt.DB, f Fence, zones map[zone.Name]Zone, docs map[string]Document) (err error) {
	defer recoverFault(&err)()
	rest := slices.SortedFunc(maps.Keys(zones), zone.Name.Compare)
	for first := true; first || len(rest) > 0; first = false {
		err := db.Update(func(tx *bolt.Tx) error {
			w, err := newWriter(tx)
			if err != nil {
				return err
			}
			if err := w.fence(f); err != nil {
				return err
			}
			if first {
				if err := w.putDocuments(tx, slices.Collect(maps.Values(docs))); err != nil {
					return err
				}
			}
			for owners := 0; owners < batchOwners && len(rest) > 0; rest = rest[1:] {
				z := zones[rest[0]]
				if err := w.replace(rest[0], f, &z); err != nil {
					return err
				}
				owners += z.Content.Owners()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := db.Sync(); err != nil {
		return err
	}
	db.NoSync = false
	if s.aside {
		if err := s.setAside(); err != nil {
			return err
		}
	}
	if err := os.Rename(s.path(newName), s.path(fileName)); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// setAside keeps the present file under the next free number, and of its predecessors the
// last ones.
func (s *Store) setAside() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var numbers []int
	for _, e := range entries {
		if text, ok := strings.CutPrefix(e.Name(), asideFor); ok {
			if n, err := strconv.Atoi(text); err == nil && n > 0 {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	name := func(n int) string { return s.path(asideFor + strconv.Itoa(n)) }
	// A link keeps the file in place until the new one takes it; not all file systems have it.
	err = os.Link(s.path(fileName), name(next))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(s.path(fileName), name(next))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for len(numbers) >= maxAside {
		if err := os.Remove(name(numbers[0])); err != nil {
			return err
		}
		numbers = numbers[1:]
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}

// Close gives the directory free. What Commit returned nil for is on disk already.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	return cmp.Or(err, s.lock.Close())
}

// writer writes zones in one transaction.
type writer struct {
	zones, index, state *bolt.Bucket
}

func newWriter(tx *bolt.Tx) (w writer, err error) {
	for _, b := range []struct {
		name []byte
		to   **bolt.Bucket
	}{{bucketZones, &w.zones}, {bucketIndex, &w.index}, {bucketState, &w.state}} {
		if *b.to, err = tx.CreateBucketIfNotExists(b.name); err != nil {
			return writer{}, err
		}
	}
	return w, nil
}

func (w writer) fence(f Fence) error { return w.state.Put(keyFence, encodeFence(f)) }

func (w writer) putDocuments(tx *bolt.Tx, docs []Document) error {
	if len(docs) == 0 {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists(bucketDocuments)
	if err != nil {
		return err
	}
	for _, d := range docs {
		if err := w.state.Put([]byte(keyDocument+d.Kind), nil); err != nil {
			return err
		}
		if err := b.Put([]byte(d.Kind), encodeDocument(d)); err != nil {
			return fmt.Errorf("storing document %q: %w", d.Kind, err)
		}
	}
	return nil
}

func (w writer) remove(apex zone.Name) error {
	if err := w.zones.DeleteBucket([]byte(apex)); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
		return err
	}
	return w.index.Delete([]byte(apex))
}

// replace writes a zone whatever the file has of it.
func (w writer) replace(apex zone.Name, f Fence, z *Zone) error {
	if err := w.remove(apex); err != nil {
		return err
	}
	if err := w.index.Put([]byte(apex), nil); err != nil {
		return err
	}
	b, err := w.zones.CreateBucket([]byte(apex))
	if err != nil {
		return err
	}
	b.FillPercent = 0.9 // keys come in order
	for n := range z.Content.All() {
		if err := putNode(b, n); err != nil {
			return err
		}
	}
	return putHeader(b, apex, f, z)
}

// change writes what differs from what the file has.
func (w writer) change(apex zone.Name, f Fence, old, z *Zone) error {
	b := w.zones.Bucket([]byte(apex))
	if b == nil {
		return w.replace(apex, f, z)
	}
	for ch := range zone.Diff(old.Content, z.Content) {
		var err error
		if ch.New == nil {
			err = b.Delete([]byte(keyNode + ch.Owner.SortKey()))
		} else {
			err = putNode(b, ch.New)
		}
		if err != nil {
			return err
		}
	}
	return putHeader(b, apex, f, z)
}

func putNode(b *bolt.Bucket, n *zone.Node) error {
	return b.Put([]byte(keyNode+n.Owner.SortKey()), zone.AppendNode(nil, *n))
}

func putHeader(b *bolt.Bucket, apex zone.Name, f Fence, z *Zone) error {
	return b.Put(keyHeader, encodeHeader(apex, header{z.Version, z.Source, z.Cluster, f.Epoch}))
}
