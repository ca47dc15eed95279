package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// TestImageAgreesWithBolt: of files that bbolt wrote, both read the same elements, and every
// page is accounted for.
func TestImageAgreesWithBolt(t *testing.T) {
	for _, pageSize := range []int{1024, 4096, 16384} {
		path := filepath.Join(t.TempDir(), "db")
		db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize, FreelistType: bolt.FreelistMapType, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(uint64(pageSize), 0))
		for i := range 151 {
			err := db.Update(func(tx *bolt.Tx) error {
				top, err := tx.CreateBucketIfNotExists([]byte{byte(rnd.IntN(3))})
				if err != nil {
					return err
				}
				sub := []byte{byte(rnd.IntN(5))}
				if rnd.IntN(10) == 0 {
					if err := top.DeleteBucket(sub); err != nil && top.Bucket(sub) != nil {
						return err
					}
				}
				b, err := top.CreateBucketIfNotExists(sub)
				if err != nil {
					return err
				}
				for range rnd.IntN(200) {
					key := fmt.Appendf(nil, "key %d", rnd.IntN(2000))
					value := bytes.Repeat([]byte{1}, rnd.IntN(40))
					if rnd.IntN(100) == 0 {
						value = make([]byte, rnd.IntN(40000))
					}
					if rnd.IntN(4) == 0 {
						err = b.Delete(key)
					} else {
						err = b.Put(key, value)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if i%10 > 0 {
				continue
			}
			if want, got := boltElements(t, db), imageElements(t, path); !slices.Equal(got, want) {
				t.Fatalf("page size %d: %d elements, want %d", pageSize, len(got), len(want))
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func element(path string, key, value []byte) string { return fmt.Sprintf("%s/%x=%x", path, key, value) }

func boltElements(t *testing.T, db *bolt.DB) (all []string) {
	t.Helper()
	var walk func(path string, b *bolt.Bucket) error
	walk = func(path string, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return walk(fmt.Sprintf("%s/%x", path, k), b.Bucket(k))
			}
			all = append(all, element(path, k, v))
			return nil
		})
	}
	err := db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(k []byte, b *bolt.Bucket) error { return walk(fmt.Sprintf("%x", k), b) })
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func imageElements(t *testing.T, path string) (all []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	im, err := openImage(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	var visit func(path string) func(key, value []byte, bucket bool)
	visit = func(path string) func(key, value []byte, bucket bool) {
		return func(key, value []byte, bucket bool) {
			if !bucket {
				all = append(all, element(path, key, value))
				return
			}
			name := fmt.Sprintf("%x", key)
			if path != "" {
				name = path + "/" + name
			}
			if err := im.walk(value, visit(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(im.walkRoot(visit("")), im.checkFree()); err != nil {
		t.Fatal(err)
	}
	return all
}

// sample writes a store with zones of all sizes through some versions, and returns the file and the zones.
func sample(t testing.TB, sizes ...int) (file []byte, zones []*Zone) {
	t.Helper()
	dir := t.TempDir()
	s, _ := open(t, dir)
	for serial := range uint32(6) {
		zones = nil
		for i, size := range sizes {
			zones = append(zones, version(t, apexes[i], serial+1, size))
			commit(t, s, Fence{7, "a"}, put(zones[i]))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	return file, zones
}

// damage spoils a copy of a file in one of the ways of disks: single bits, a sector of noise,
// a page that went to the wrong place or was never written, an end that is missing.
func damage(file []byte, rnd *rand.Rand) []byte {
	b := bytes.Clone(file)
	const sector, page = 512, 4096
	switch rnd.IntN(5) {
	case 0:
		for range 1 + rnd.IntN(8) {
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		}
	case 1:
		at := rnd.IntN(len(b)/sector) * sector
		for i := range sector {
			b[at+i] = byte(rnd.Uint32())
		}
	case 2:
		from, to := rnd.IntN(len(b)/page)*page, rnd.IntN(len(b)/page)*page
		copy(b[to:to+page], b[from:from+page])
	case 3:
		at := rnd.IntN(len(b)/page) * page
		clear(b[at : at+page])
	case 4:
		b = b[:rnd.IntN(len(b))]
	}
	return b
}

// used cuts what bbolt took in advance off the end of a file, so that damage hits data.
func used(file []byte) []byte {
	return file[:(len(bytes.TrimRight(file, "\x00"))+4095)/4096*4096]
}

// TestDamagedFiles: whatever happens to the file, opening it neither fails nor panics; each
// zone is there as it was or reported as lost; the damaged file is kept, and the next start
// finds the rest in order.
func TestDamagedFiles(t *testing.T) {
	file, zones := sample(t, 300, 4, 0, 2000, 40)
	file = used(file)
	whole, withLoss, nothing := 0, 0, 0
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
		var good []*Zone
		for i := range found.Zones {
			z := found.Zones[i]
			at := slices.Index(apexes, z.Content.Apex())
			if at < 0 || z.Version.Serial != zones[at].Version.Serial && len(reports) == 0 || z.Content.Digest() != version(t, apexes[at], z.Version.Serial, z.owners(t)).Content.Digest() {
				t.Fatalf("seed %d: found %s", seed, text(z))
			}
			good = append(good, &z)
		}
		for _, lost := range found.Lost {
			if !slices.ContainsFunc(reports, func(r string) bool { return strings.Contains(r, "zone "+lost.String()+" is lost") }) {
				t.Errorf("seed %d: zone %s is lost, reported is %q", seed, lost, reports)
			}
		}
		switch {
		case len(good)+len(found.Lost) == len(zones):
			if len(found.Lost) > 0 {
				withLoss++
			} else {
				whole++
			}
		case len(reports) == 0:
			t.Errorf("seed %d: %d zones and no report", seed, len(good))
		default:
			nothing++ // not even names are left
		}
		if _, err := os.Stat(filepath.Join(dir, asideFor+"1")); (err == nil) != (len(reports) > 0) {
			t.Errorf("seed %d: %d reports, and the copy of the damaged file: %v", seed, len(reports), err)
		}
		again := version(t, apexes[0], 99, 50)
		commit(t, s, found.Fence, put(again))
		good = slices.DeleteFunc(good, func(z *Zone) bool { return z.Content.Apex() == apexes[0] })
		s, _ = reopen(t, s, dir, append(good, again)...)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d files with all zones, %d with lost ones, %d without even the names", whole, withLoss, nothing)
	if whole == 0 || withLoss == 0 || nothing == 0 {
		t.Error("the damage is not of all kinds")
	}
}

// owners finds the argument that version made the zone with.
func (z *Zone) owners(t *testing.T) int {
	t.Helper()
	return map[zone.Name]int{apexes[0]: 300, apexes[1]: 4, apexes[2]: 0, apexes[3]: 2000, apexes[4]: 40}[z.Content.Apex()]
}

// TestDamagedFilesAreKeptInBounds: of many damaged files the last ones are kept.
func TestDamagedFilesAreKeptInBounds(t *testing.T) {
	dir := t.TempDir()
	for range 6 {
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte("no store at all"), 0o600); err != nil {
			t.Fatal(err)
		}
		reports := 0
		s, found, err := Open(dir, func(error) { reports++ })
		if err != nil || len(found.Zones)+len(found.Lost) > 0 || reports != 1 {
			t.Fatalf("found %v, %d reports, error %v", found, reports, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := filepath.Glob(filepath.Join(dir, asideFor+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range kept {
		kept[i] = filepath.Base(kept[i])
	}
	if want := []string{asideFor + "4", asideFor + "5", asideFor + "6"}; !slices.Equal(kept, want) {
		t.Errorf("kept %v, want %v", kept, want)
	}
}

// TestLostFence: the epochs of zones stand in for a fence that is damaged.
func TestLostFence(t *testing.T) {
	file, _ := sample(t, 10)
	at := bytes.Index(file, encodeFence(Fence{7, "a"}))
	for ; at >= 0; at = bytes.Index(file, encodeFence(Fence{7, "a"})) {
		file[at+1] ^= 1
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), file, 0o600); err != nil {
		t.Fatal(err)
	}
	reported := ""
	s, found, err := Open(dir, func(err error) { reported += err.Error() })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if found.Fence.Epoch != 7 || len(found.Zones) != 1 || !strings.Contains(reported, "the highest epoch seen is missing") {
		t.Errorf("found %v, reported %q", found, reported)
	}
}

// FuzzImage: no file makes the reader panic or read more than it has; a file that it finds
// sound is sound for bbolt, too, which then can write to it without hurting the other zones.
func FuzzImage(f *testing.F) {
	file, _ := sample(f, 3, 20)
	f.Add(used(file))
	small := filepath.Join(f.TempDir(), "db")
	db, err := bolt.Open(small, 0o600, &bolt.Options{PageSize: 512, NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	s := &Store{}
	z := version(f, apexes[1], 1, 3)
	if err := s.fillOnly(db, Fence{1, "a"}, z); err != nil {
		f.Fatal(err)
	}
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(small)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:min(len(b), 512*16)])
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) > 1<<18 {
			return
		}
		im, err := openImage(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		found, damage := readImage(im)
		if len(damage) > 0 || int64(im.pageSize)*4 > int64(len(file)) {
			return
		}
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(path, 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		added := version(t, mustName(t, "added."), 1, 10)
		if err := s.fillOnly(db, Fence{1, "a"}, added); err != nil {
			t.Fatal(err)
		}
		again, damage, err := readFile(path)
		if err != nil || len(damage) > 0 {
			t.Fatalf("after a write: %v, %v", damage, err)
		}
		zones := slices.DeleteFunc(again.Zones, func(z Zone) bool { return z.Content.Apex() == added.Content.Apex() })
		var want []*Zone
		for i := range found.Zones {
			if found.Zones[i].Content.Apex() != added.Content.Apex() {
				want = append(want, &found.Zones[i])
			}
		}
		requireZones(t, Found{Zones: zones}, want...)
	})
}

// fillOnly writes one zone to a file.
func (*Store) fillOnly(db *bolt.DB, f Fence, z *Zone) error {
	return db.Update(func(tx *bolt.Tx) error {
		w, err := newWriter(tx)
		if err != nil {
			return err
		}
		return errors.Join(w.fence(f), w.replace(z.Content.Apex(), f, z))
	})
}

// FuzzDecode: values of the file are read or refused, and what is read writes the same again.
func FuzzDecode(f *testing.F) {
	z := version(f, apexes[1], 1, 3)
	f.Add(encodeHeader(apexes[1], header{z.Version, z.Source, z.Cluster, 7}))
	f.Add(encodeFence(Fence{7, "a"}))
	f.Add(encodeDocument(Document{"settings", []byte("body")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, appendSum(bytes.Clone(b), string(apexes[1])), appendSum(bytes.Clone(b), string(keyFence))} {
			if h, err := decodeHeader(b, apexes[1]); err == nil && !bytes.Equal(encodeHeader(apexes[1], h), b) {
				t.Errorf("header %x reads as %v", b, h)
			}
			if fence, err := decodeFence(b); err == nil && !bytes.Equal(encodeFence(fence), b) {
				t.Errorf("fence %x reads as %v", b, fence)
			}
			if d, err := decodeDocument("settings", b); err == nil && !bytes.Equal(encodeDocument(d), b) {
				t.Errorf("document %x reads as %v", b, d)
			}
		}
	})
}
