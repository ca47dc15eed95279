package store

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func mustName(t testing.TB, s string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(s, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// apexes are those of the small zones that the tests share: the root and others.
var apexes = []zone.Name{"\x00", "\x04bank\x00", "\x03pay\x04bank\x00", "\x04corp\x00", "\x01\x00\x04corp\x00", "\x03www\x04corp\x00"}

// version makes a zone of so many owners and an apex; which owners there are and what they
// have depends on the serial.
func version(t testing.TB, apex zone.Name, serial uint32, owners int) *Zone {
	t.Helper()
	soa := zone.SOA{MName: apex, RName: apex, Refresh: 1, Retry: 2, Expire: 3, Minimum: 4}
	nodes := []zone.Node{zone.NewNode(apex, zone.NewRRset(zone.TypeSOA, 60, soa.Pack()), zone.NewRRset(zone.TypeNS, 60, []byte("\x02ns\x00")))}
	for i := range uint32(owners) {
		if (serial+i)%5 == 0 {
			continue
		}
		owner, err := apex.Child(fmt.Sprintf("h%d", i))
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, zone.NewNode(owner, zone.NewRRset(zone.TypeA, 60, binary.BigEndian.AppendUint32(nil, serial/(i+1)))))
	}
	c, err := zone.NewContent(apex, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return &Zone{Content: c, Version: zone.Version{Serial: serial, Digest: c.Digest()}, Source: "ns/" + apex.String(), Cluster: "cluster-1"}
}

func put(z *Zone) Change { return Change{z.Content.Apex(), z} }

// open opens a store that must have nothing to report.
func open(t testing.TB, dir string) (*Store, Found) {
	t.Helper()
	s, found, err := Open(dir, func(err error) { t.Errorf("reported: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, found
}

// reopen closes the store, opens it again and requires it to have exactly these zones.
func reopen(t testing.TB, s *Store, dir string, want ...*Zone) (*Store, Found) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, found := open(t, dir)
	requireZones(t, found, want...)
	return s, found
}

func requireZones(t testing.TB, found Found, want ...*Zone) {
	t.Helper()
	var got, wanted []string
	for _, z := range found.Zones {
		got = append(got, text(z))
	}
	slices.SortFunc(want, func(a, b *Zone) int { return a.Content.Apex().Compare(b.Content.Apex()) })
	for _, z := range want {
		wanted = append(wanted, text(*z))
	}
	if !slices.Equal(got, wanted) {
		t.Fatalf("zones are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wanted, "\n"))
	}
}

func text(z Zone) string {
	return fmt.Sprintf("%s %d %s %s %s", z.Content.Apex(), z.Version.Serial, z.Content.Digest(), z.Source, z.Cluster)
}

func commit(t testing.TB, s *Store, f Fence, changes ...Change) {
	t.Helper()
	if err := s.Commit(f, changes...); err != nil {
		t.Fatal(err)
	}
}

func TestZonesComeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	s, found := open(t, dir)
	if len(found.Zones) > 0 || found.Fence != (Fence{}) {
		t.Fatalf("a new store has %v", found)
	}
	f1, f2 := Fence{1, "a"}, Fence{1 << 60, "cluster-b"}
	var zones []*Zone
	for i, apex := range apexes {
		zones = append(zones, version(t, apex, 1, i*i*i*i))
	}
	for _, z := range zones {
		commit(t, s, f1, put(z))
	}
	s, found = reopen(t, s, dir, zones...)
	if found.Fence != f1 {
		t.Errorf("fence is %v", found.Fence)
	}
	// Changes, a removal, a new zone, and one that changes twice, in one commit.
	zones[1], zones[2] = version(t, apexes[1], 2, 5), version(t, apexes[2], 7, 300)
	other := version(t, mustName(t, "other."), 1, 3)
	commit(t, s, f2, put(zones[1]), put(version(t, apexes[2], 6, 10)), put(zones[2]), Change{apexes[3], nil}, put(other), Change{mustName(t, "never.was."), nil})
	left := []*Zone{zones[0], zones[1], zones[2], zones[4], zones[5], other}
	s, found = reopen(t, s, dir, left...)
	if found.Fence != f2 {
		t.Errorf("fence is %v", found.Fence)
	}
	// The same content under another version and source, then everything gone.
	left[0].Version.Serial, left[0].Source, left[0].Cluster = 9, "", strings.Repeat("c", 65535)
	commit(t, s, f2, put(left[0]))
	s, _ = reopen(t, s, dir, left...)
	var all []Change
	for _, z := range left {
		all = append(all, Change{z.Content.Apex(), nil})
	}
	commit(t, s, f2, all...)
	s, found = reopen(t, s, dir)
	if found.Fence != f2 {
		t.Errorf("fence is %v", found.Fence)
	}
	commit(t, s, Fence{})
	_, found = reopen(t, s, dir)
	if found.Fence != (Fence{}) {
		t.Errorf("fence is %v", found.Fence)
	}
}

// TestChangesEqualWholeZones: whatever changes between versions, the store has the last one.
func TestChangesEqualWholeZones(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	rnd := rand.New(rand.NewPCG(1, 2))
	last := map[zone.Name]*Zone{}
	for i := range 60 {
		var changes []Change
		for range 1 + rnd.IntN(4) {
			apex := apexes[rnd.IntN(len(apexes))]
			if rnd.IntN(6) == 0 {
				changes = append(changes, Change{apex, nil})
				delete(last, apex)
				continue
			}
			last[apex] = version(t, apex, rnd.Uint32N(20), rnd.IntN(1000))
			changes = append(changes, put(last[apex]))
		}
		commit(t, s, Fence{}, changes...)
		if i%6 == 0 {
			var want []*Zone
			for _, z := range last {
				want = append(want, z)
			}
			s, _ = reopen(t, s, dir, want...)
		}
	}
}

func TestCommitRefusesContentOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	z := version(t, apexes[1], 1, 5)
	z.Version.Digest = version(t, apexes[1], 2, 5).Version.Digest
	if err := s.Commit(Fence{1, "a"}, put(z)); err == nil {
		t.Error("accepted")
	}
	if err := s.Commit(Fence{1, "a"}, Change{apexes[2], version(t, apexes[1], 1, 5)}); err == nil {
		t.Error("accepted")
	}
	_, found := reopen(t, s, dir)
	if found.Fence != (Fence{}) {
		t.Errorf("fence is %v", found.Fence)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	_, _, err := Open(dir, func(error) {})
	if err == nil || !strings.Contains(err.Error(), "another process uses "+dir) {
		t.Errorf("the second one gets %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(Fence{}); err == nil {
		t.Error("a closed store takes a commit")
	}
	_, _ = open(t, dir)
}

func TestDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(filepath.Join(file, "store"), func(error) {}); err == nil {
		t.Error("opened")
	}
}

const inChildOf = "FINGERPOST_STORE_TEST"

// alone runs the test in a process of its own, and reports true there and false here: the
// limit on files concerns all that a process writes.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inChildOf) == t.Name() {
		return true
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), inChildOf+"="+t.Name())
	if out, err := child.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// limitFileSize makes writes beyond so many octets of any file fail, as on a full disk.
func limitFileSize(t *testing.T, octets uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	set := func(limit syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	set(syscall.Rlimit{Cur: octets, Max: before.Max})
	t.Cleanup(func() { set(before) })
	return func() { set(before) }
}

func TestDiskFull(t *testing.T) {
	if !alone(t) {
		return
	}
	dir := t.TempDir()
	s, _ := open(t, dir)
	small, other := version(t, apexes[1], 1, 10), version(t, apexes[2], 1, 10)
	commit(t, s, Fence{1, "a"}, put(small), put(other))
	lift := limitFileSize(t, 200<<10)
	large := version(t, apexes[1], 2, 30000)
	for range 3 {
		err := s.Commit(Fence{2, "a"}, put(large), Change{apexes[2], nil})
		if err == nil || !IsFull(err) || !strings.Contains(err.Error(), "the disk is full") {
			t.Fatalf("commit on a full disk says %v", err)
		}
	}
	// What fits is taken.
	third := version(t, apexes[3], 1, 10)
	commit(t, s, Fence{1, "a"}, put(third))
	s, found := reopen(t, s, dir, small, other, third)
	if found.Fence != (Fence{1, "a"}) {
		t.Errorf("fence is %v", found.Fence)
	}
	if err := s.Commit(Fence{2, "a"}, put(large)); !IsFull(err) {
		t.Fatalf("commit on a full disk says %v", err)
	}
	lift()
	commit(t, s, Fence{2, "a"}, put(large), Change{apexes[2], nil})
	reopen(t, s, dir, large, third)
}

// TestDiskFullFromTheStart: a store that cannot even write its file is one all the same.
func TestDiskFullFromTheStart(t *testing.T) {
	if !alone(t) {
		return
	}
	dir := t.TempDir()
	lift := limitFileSize(t, 4096)
	reports := 0
	s, _, err := Open(dir, func(err error) {
		if reports++; !IsFull(err) {
			t.Errorf("reported: %v", err)
		}
	})
	if err != nil || reports != 1 {
		t.Fatalf("error %v, %d reports", err, reports)
	}
	z := version(t, apexes[1], 1, 10)
	if err := s.Commit(Fence{1, "a"}, put(z)); !IsFull(err) {
		t.Fatalf("commit says %v", err)
	}
	lift()
	commit(t, s, Fence{1, "a"}, put(z))
	reopen(t, s, dir, z)
}

// TestFileDamagedUnderneath: when the file breaks while it is in use, a new one is written
// from memory and nothing is lost.
func TestFileDamagedUnderneath(t *testing.T) {
	for name, damage := range map[string]func(f *os.File) error{
		"cut to nothing": func(f *os.File) error { return f.Truncate(0) },
		"overwritten":    func(f *os.File) error { _, err := f.WriteAt(bytes.Repeat([]byte{0xa5}, 1<<17), 0); return err },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var reports []error
			s, _, err := Open(dir, func(err error) { reports = append(reports, err) })
			if err != nil {
				t.Fatal(err)
			}
			one, two := version(t, apexes[1], 1, 500), version(t, apexes[2], 1, 500)
			commit(t, s, Fence{1, "a"}, put(one), put(two))
			f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(damage(f), f.Close()); err != nil {
				t.Fatal(err)
			}
			one = version(t, apexes[1], 2, 500)
			commit(t, s, Fence{1, "a"}, put(one))
			if len(reports) != 1 || !strings.Contains(reports[0].Error(), "given up") {
				t.Errorf("reported %v", reports)
			}
			three := version(t, apexes[3], 1, 5)
			commit(t, s, Fence{1, "a"}, put(three))
			reopen(t, s, dir, one, two, three)
			if _, err := os.Stat(filepath.Join(dir, asideFor+"1")); err != nil {
				t.Error(err)
			}
		})
	}
}

const childDir = "FINGERPOST_STORE_CHILD"

// TestChildThatIsKilled is the other side of TestKilledWhileWriting. It tells of each commit
// before and after, one line each: "try" or "ack", and the serial of each zone in it.
func TestChildThatIsKilled(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return // not a test of its own
	}
	s, found := open(t, dir)
	serials := map[zone.Name]uint32{}
	for _, z := range found.Zones {
		serials[z.Content.Apex()] = z.Version.Serial
	}
	rnd := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	for {
		what := ""
		var changes []Change
		for _, i := range rnd.Perm(len(apexes))[:1+rnd.IntN(3)] {
			serials[apexes[i]]++
			what += fmt.Sprintf(" %d=%d", i, serials[apexes[i]])
			changes = append(changes, put(version(t, apexes[i], serials[apexes[i]], killedOwners(i))))
		}
		fmt.Println("try" + what)
		commit(t, s, Fence{uint64(serials[apexes[0]]), "a"}, changes...)
		fmt.Println("ack" + what)
	}
}

// killedOwners is the number of owners of zone i in the storm: from very few to many pages.
func killedOwners(i int) int { return 5 << (i * 3 / 2) }

// TestKilledWhileWriting: after kill -9 each zone is as it was acknowledged last, or as the
// commit under way would have made it; and that commit is there for all its zones or for none.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	acked := map[int]uint32{} // serials
	rnd := rand.New(rand.NewPCG(1, 1))
	for round := range 25 {
		child := exec.Command(os.Args[0], "-test.run=^TestChildThatIsKilled$")
		child.Env = append(os.Environ(), childDir+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		killAfter := 1 + rnd.IntN(60)
		var flying map[int]uint32
		lines := bufio.NewScanner(out)
		for seen := 1; lines.Scan(); seen++ {
			line := lines.Text()
			kind, zones, _ := strings.Cut(line, " ")
			parsed := map[int]uint32{}
			for word := range strings.FieldsSeq(zones) {
				var i int
				var serial uint32
				if _, err := fmt.Sscanf(word, "%d=%d", &i, &serial); err != nil {
					t.Fatalf("child says %q", line)
				}
				parsed[i] = serial
			}
			switch kind {
			case "try":
				flying = parsed
			case "ack":
				maps.Copy(acked, parsed)
				flying = nil
			default:
				t.Fatalf("child says %q", line)
			}
			if seen == killAfter {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || child.ProcessState.Exited() {
			t.Fatalf("the child ended by itself: %v", err)
		}
		s, found := open(t, dir)
		have := map[int]Zone{}
		for _, z := range found.Zones {
			have[slices.Index(apexes, z.Content.Apex())] = z
		}
		arrived := 0
		for i, serial := range flying {
			if have[i].Version.Serial == serial {
				arrived++
				acked[i] = serial
			}
		}
		if arrived != 0 && arrived != len(flying) {
			t.Errorf("round %d: %d of %d zones of one commit arrived", round, arrived, len(flying))
		}
		for i, serial := range acked {
			want := version(t, apexes[i], serial, killedOwners(i))
			if have[i].Content == nil || text(have[i]) != text(*want) {
				t.Errorf("round %d: zone %s is %v, acknowledged was %v", round, apexes[i], have[i].Version, want.Version)
			}
		}
		if len(have) != len(acked) {
			t.Errorf("round %d: %d zones, acknowledged were %d", round, len(have), len(acked))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, asideFor+"1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was set aside: %v", err)
	}
}
