package dnsserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/store"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

var _ control.Replica = (*Replica)(nil)

// installed makes a version of a zone; what its one host has depends on the serial, and
// owners more than one make it large.
func installed(t testing.TB, apex string, serial uint32, owners int) control.Installed {
	t.Helper()
	name, err := zone.ParseName(apex, "")
	if err != nil {
		t.Fatal(err)
	}
	soa := zone.SOA{MName: name, RName: name, Refresh: 1, Retry: 2, Expire: 3, Minimum: 4}
	nodes := []zone.Node{zone.NewNode(name, zone.NewRRset(zone.TypeSOA, 60, soa.Pack()), zone.NewRRset(zone.TypeNS, 60, []byte("\x02ns\x00")))}
	for i := range owners {
		owner, err := name.Child(fmt.Sprintf("h%d", i))
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, zone.NewNode(owner, zone.NewRRset(zone.TypeA, 60, binary.BigEndian.AppendUint32(nil, serial))))
	}
	c, err := zone.NewContent(name, nodes)
	if err != nil {
		t.Fatal(err)
	}
	return control.Installed{Content: c, Version: zone.Version{Serial: serial, Digest: c.Digest()}, Source: "ns/zone", Cluster: "a"}
}

var epoch1, epoch2, epoch3 = control.Fence{Epoch: 1, Cluster: "a"}, control.Fence{Epoch: 2, Cluster: "a"}, control.Fence{Epoch: 3, Cluster: "b"}

func openReplica(t testing.TB, dir string) (*Replica, *zone.View) {
	t.Helper()
	view := &zone.View{}
	r, err := OpenReplica(dir, view, testr.New(t.(*testing.T)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, view
}

func closeReplica(t testing.TB, r *Replica) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// requireServed requires view and replica to have exactly these zones.
func requireServed(t testing.TB, r *Replica, view *zone.View, want ...control.Installed) {
	t.Helper()
	held := r.Held()
	if len(held) != len(want) || view.Len() != len(want) {
		t.Fatalf("%d zones held, %d served, want %d", len(held), view.Len(), len(want))
	}
	for _, z := range want {
		apex := z.Content.Apex()
		got, ok := r.Zone(apex)
		served := view.Zone(apex)
		if !ok || served == nil || got.Version != z.Version || got.Source != z.Source || got.Cluster != z.Cluster ||
			got.Content.Digest() != z.Content.Digest() || served.Version() != z.Version || served.Content() != got.Content {
			t.Fatalf("zone %s is %v, served is %v, want %v", apex, got.Version, served, z.Version)
		}
	}
	if !slices.IsSortedFunc(held, func(a, b control.Held) int { return a.Apex.Compare(b.Apex) }) {
		t.Error("Held is not in order")
	}
}

func install(t testing.TB, r *Replica, f control.Fence, z control.Installed) {
	t.Helper()
	if err := r.Install(t.Context(), f, z); err != nil {
		t.Fatal(err)
	}
}

func TestReplicaStartsFromDisk(t *testing.T) {
	dir := t.TempDir()
	r, view := openReplica(t, dir)
	if view.Ready() {
		t.Fatal("a replica without zones fills the view")
	}
	if err := r.Remove(t.Context(), epoch1, "\x05never\x00"); err != nil || view.Ready() {
		t.Fatalf("removing what was not there: %v, view ready %t", err, view.Ready())
	}
	one, two, three := installed(t, ".", 1, 1), installed(t, "bank.", 1, 1), installed(t, "corp.", 1, 1)
	for _, z := range []control.Installed{one, two, three} {
		install(t, r, epoch1, z)
	}
	requireServed(t, r, view, one, two, three)
	two = installed(t, "bank.", 2, 5)
	install(t, r, epoch2, two)
	if err := r.Remove(t.Context(), epoch2, three.Content.Apex()); err != nil {
		t.Fatal(err)
	}
	// The same content under another version.
	one.Version.Serial, one.Source = 8, "other/zone"
	install(t, r, epoch2, one)
	closeReplica(t, r)
	r, view = openReplica(t, dir)
	requireServed(t, r, view, one, two)
	if r.Fence() != epoch2 {
		t.Errorf("fence is %v", r.Fence())
	}
	if err := r.Raise(t.Context(), epoch3); err != nil {
		t.Fatal(err)
	}
	closeReplica(t, r)
	r, _ = openReplica(t, dir)
	if r.Fence() != epoch3 {
		t.Errorf("fence is %v", r.Fence())
	}
}

func TestReplicaRefusesStaleEpochs(t *testing.T) {
	r, view := openReplica(t, t.TempDir())
	z := installed(t, "bank.", 1, 1)
	install(t, r, epoch2, z)
	for name, change := range map[string]func(f control.Fence) error{
		"Install": func(f control.Fence) error { return r.Install(t.Context(), f, installed(t, "bank.", 2, 1)) },
		"Remove":  func(f control.Fence) error { return r.Remove(t.Context(), f, z.Content.Apex()) },
		"Raise":   func(f control.Fence) error { return r.Raise(t.Context(), f) },
	} {
		for _, f := range []control.Fence{{}, epoch1, {Epoch: 2, Cluster: "other"}} {
			err := change(f)
			if stale, ok := errors.AsType[*control.StaleEpochError](err); !ok || stale.Fence != f || stale.Seen != epoch2 {
				t.Errorf("%s under %v: %v", name, f, err)
			}
		}
	}
	requireServed(t, r, view, z)
}

func TestReplicaRefusesWhatCannotBeServed(t *testing.T) {
	r, view := openReplica(t, t.TempDir())
	z := installed(t, "bank.", 1, 1)
	install(t, r, epoch1, z)
	bare, err := zone.NewContent(z.Content.Apex(), nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong := installed(t, "bank.", 2, 1)
	wrong.Version.Digest = z.Version.Digest
	for _, bad := range []control.Installed{{Content: bare, Version: zone.Version{Serial: 2, Digest: bare.Digest()}}, wrong} {
		err := r.Install(t.Context(), epoch2, bad)
		if _, undurable := errors.AsType[*control.NotDurableError](err); err == nil || undurable {
			t.Errorf("install says %v", err)
		}
	}
	if r.Fence() != epoch1 {
		t.Errorf("fence is %v", r.Fence())
	}
	requireServed(t, r, view, z)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	closeReplica(t, r)
	if err := r.Install(ctx, epoch2, installed(t, "bank.", 2, 1)); err == nil {
		t.Error("a closed replica takes a zone")
	}
}

func TestReplicaListsLostZones(t *testing.T) {
	dir := t.TempDir()
	r, _ := openReplica(t, dir)
	large, small, other := installed(t, "large.", 1, 3000), installed(t, "small.", 1, 1), installed(t, "other.", 1, 3000)
	for _, z := range []control.Installed{large, small, other} {
		install(t, r, epoch1, z)
	}
	closeReplica(t, r)
	path := filepath.Join(dir, "zones.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, apex := range []string{"\x05large\x00", "\x05other\x00"} { // one octet of an owner
		spoiled := 0
		for i := 0; i+12 < len(b); i++ {
			if string(b[i:i+6+len(apex)]) == "\x05h1234"+apex {
				b[i+2] ^= 1
				spoiled++
			}
		}
		if spoiled == 0 {
			t.Fatal("owner not found in the file")
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r, view := openReplica(t, dir)
	requireServed(t, r, view, small)
	if lost := r.Lost(); !slices.Equal(lost, []zone.Name{large.Content.Apex(), other.Content.Apex()}) {
		t.Errorf("lost are %v", lost)
	}
	install(t, r, epoch1, large)
	if err := r.Remove(t.Context(), epoch1, other.Content.Apex()); err != nil {
		t.Fatal(err)
	}
	if lost := r.Lost(); len(lost) > 0 {
		t.Errorf("lost are %v", lost)
	}
	closeReplica(t, r)
	r, view = openReplica(t, dir)
	requireServed(t, r, view, small, large)
}

func TestReplicaServesWhatDoesNotFitTheDisk(t *testing.T) {
	// In a process of its own: the limit on files concerns all that a process writes.
	const inChild = "FINGERPOST_REPLICA_TEST"
	if os.Getenv(inChild) == "" {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), inChild+"=1")
		if out, err := child.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	lift := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}
	defer lift()
	dir := t.TempDir()
	small, large := installed(t, "small.", 1, 1), installed(t, "large.", 2, 20000)
	old := installed(t, "large.", 1, 1)
	synctest.Test(t, func(t *testing.T) {
		view := &zone.View{}
		r, err := OpenReplica(dir, view, logr.Discard())
		if err != nil {
			t.Fatal(err)
		}
		durable := make(chan string, 1)
		r.OnDurable(func(apex zone.Name, v zone.Version) { durable <- fmt.Sprintf("%s %d", apex, v.Serial) })
		install(t, r, epoch1, old)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 200 << 10, Max: before.Max}); err != nil {
			t.Fatal(err)
		}
		err = r.Install(t.Context(), epoch2, large)
		if undurable, ok := errors.AsType[*control.NotDurableError](err); !ok || !store.IsFull(undurable.Err) {
			t.Fatalf("install says %v", err)
		}
		requireServed(t, r, view, large)
		if held := r.Held(); !held[0].NotDurable || r.Fence() != epoch2 {
			t.Errorf("held is %v under %v", held, r.Fence())
		}
		// What fits goes to disk at once, and one zone does not hold up another.
		install(t, r, epoch2, small)
		time.Sleep(time.Minute) // of the bubble: the disk is tried again
		if held := r.Held(); !held[0].NotDurable || held[1].NotDurable {
			t.Errorf("held is %v", held)
		}
		lift()
		if got := <-durable; got != "large. 2" {
			t.Errorf("durable is %s", got)
		}
		if held := r.Held(); held[0].NotDurable {
			t.Errorf("held is %v", held)
		}
		closeReplica(t, r)
	})
	r, view := openReplica(t, dir)
	requireServed(t, r, view, large, small)
}

// hanging is a disk that answers only when it is told to.
type hanging struct {
	disk
	started chan struct{} // one element for each Commit begun
	proceed chan error    // what it says, after it did its work; closed: it does its work at once
}

func (h *hanging) Commit(f store.Fence, changes ...store.Change) error {
	select {
	case h.started <- struct{}{}:
	default:
	}
	err := <-h.proceed
	return errors.Join(h.disk.Commit(f, changes...), err)
}

func openHanging(t *testing.T, dir string) (*Replica, *zone.View, *hanging) {
	t.Helper()
	s, found, err := store.Open(dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	h := &hanging{s, make(chan struct{}, 1), make(chan error)}
	view := &zone.View{}
	return newReplica(h, found, view, logr.Discard()), view, h
}

func TestReplicaServesWhileTheDiskHangs(t *testing.T) {
	dir := t.TempDir()
	one, two := installed(t, "one.", 1, 1), installed(t, "two.", 1, 1)
	synctest.Test(t, func(t *testing.T) {
		r, view, h := openHanging(t, dir)
		durable := make(chan zone.Name, 2)
		r.OnDurable(func(apex zone.Name, _ zone.Version) { durable <- apex })
		for _, z := range []control.Installed{one, two} { // one is with the disk, two waits before it
			start := time.Now()
			err := r.Install(t.Context(), epoch1, z)
			if undurable, ok := errors.AsType[*control.NotDurableError](err); !ok || !errors.Is(undurable, errSlowDisk) || time.Since(start) != defaultSlowDisk {
				t.Fatalf("after %v install says %v", time.Since(start), err)
			}
		}
		requireServed(t, r, view, one, two)
		close(h.proceed)
		got := []zone.Name{<-durable, <-durable}
		slices.Sort(got)
		if !slices.Equal(got, []zone.Name{one.Content.Apex(), two.Content.Apex()}) {
			t.Errorf("durable are %v", got)
		}
		closeReplica(t, r)
	})
	r, view := openReplica(t, dir)
	requireServed(t, r, view, one, two)
	if r.Fence() != epoch1 {
		t.Errorf("fence is %v", r.Fence())
	}
}

// TestReplicaDecidesAtTheMomentOfApply: a change that was admitted before a slow write is
// refused after it if the epoch has grown, and taken off the disk again.
func TestReplicaDecidesAtTheMomentOfApply(t *testing.T) {
	dir := t.TempDir()
	before, late, other := installed(t, "one.", 1, 1), installed(t, "one.", 2, 1), installed(t, "two.", 1, 1)
	synctest.Test(t, func(t *testing.T) {
		r, view, h := openHanging(t, dir)
		go func() { h.proceed <- nil }()
		install(t, r, epoch1, before)
		<-h.started
		r.slowDisk = time.Second
		done := make(chan error)
		go func() { // patient by nine seconds
			o := &order{fence: epoch1, apex: late.Content.Apex(), zone: &late, result: make(chan error, 1)}
			o.served, _ = zone.NewServed(late.Content, late.Version)
			r.orders <- o
			done <- <-o.result
		}()
		<-h.started
		if err := r.Install(t.Context(), epoch2, other); !errors.Is(err, errSlowDisk) {
			t.Fatalf("install says %v", err)
		}
		close(h.proceed)
		err := <-done
		if _, ok := errors.AsType[*control.StaleEpochError](err); !ok {
			t.Fatalf("the late change gets %v", err)
		}
		requireServed(t, r, view, before, other)
		closeReplica(t, r)
	})
	r, view := openReplica(t, dir)
	requireServed(t, r, view, before, other)
	if r.Fence() != epoch2 {
		t.Errorf("fence is %v", r.Fence())
	}
}

// counting counts commits.
type counting struct {
	disk
	commits atomic.Int64
}

func (c *counting) Commit(f store.Fence, changes ...store.Change) error {
	c.commits.Add(1)
	return c.disk.Commit(f, changes...)
}

func TestReplicaSharesWrites(t *testing.T) {
	dir := t.TempDir()
	s, found, err := store.Open(dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{disk: s}
	view := &zone.View{}
	r := newReplica(c, found, view, logr.Discard())
	var zones []control.Installed
	for i := range 320 {
		zones = append(zones, installed(t, fmt.Sprintf("zone%d.", i), 1, 3))
	}
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := w; i < len(zones); i += 16 {
				if err := r.Install(t.Context(), epoch1, zones[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	requireServed(t, r, view, zones...)
	if n := c.commits.Load(); n > int64(len(zones))/2 {
		t.Errorf("%d zones took %d commits", len(zones), n)
	}
	closeReplica(t, r)
	r, view = openReplica(t, dir)
	requireServed(t, r, view, zones...)
}

// moody is a disk that refuses at random, sometimes after it has done its work.
type moody struct {
	disk
	mu  sync.Mutex
	rnd *rand.Rand
	bad bool
}

func (m *moody) Commit(f store.Fence, changes ...store.Change) error {
	return m.commit(func() error { return m.disk.Commit(f, changes...) })
}

func (m *moody) CommitDocuments(f store.Fence, documents ...store.Document) error {
	return m.commit(func() error { return m.disk.CommitDocuments(f, documents...) })
}

func (m *moody) commit(write func() error) error {
	m.mu.Lock()
	mood := m.rnd.IntN(4)
	if !m.bad {
		mood = 3
	}
	m.mu.Unlock()
	if mood == 0 {
		return errors.New("not now")
	}
	err := write()
	if mood == 1 {
		return errors.New("done, but I do not say so")
	}
	return err
}

// TestReplicaEndsWithWhatItServes: whatever the disk does, the replica serves what it said
// it does, and what it serves is on disk in the end.
func TestReplicaEndsWithWhatItServes(t *testing.T) {
	for seed := range uint64(20) {
		dir := t.TempDir()
		model := map[int]control.Installed{}
		documents := map[string]string{}
		var fence control.Fence
		synctest.Test(t, func(t *testing.T) {
			s, found, err := store.Open(dir, func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			m := &moody{disk: s, rnd: rand.New(rand.NewPCG(seed, 0)), bad: true}
			view := &zone.View{}
			r := newReplica(m, found, view, logr.Discard())
			var mu sync.Mutex
			var all sync.WaitGroup
			for i := range 6 { // each goroutine has a zone of its own
				rnd := rand.New(rand.NewPCG(seed, uint64(i+1)))
				all.Go(func() {
					for serial := range uint32(30) {
						f := control.Fence{Epoch: uint64(serial/3 + rnd.Uint32N(2)), Cluster: "a"}
						z := installed(t, fmt.Sprintf("zone%d.", i), serial+1, rnd.IntN(4))
						var err error
						removes := rnd.IntN(5) == 0
						if removes {
							err = r.Remove(t.Context(), f, z.Content.Apex())
						} else {
							err = r.Install(t.Context(), f, z)
						}
						_, stale := errors.AsType[*control.StaleEpochError](err)
						_, undurable := errors.AsType[*control.NotDurableError](err)
						mu.Lock()
						switch {
						case err != nil && !stale && !undurable:
							t.Errorf("seed %d: %v", seed, err)
						case stale:
						case removes:
							delete(model, i)
						default:
							model[i] = z
						}
						mu.Unlock()
						if rnd.IntN(4) == 0 {
							time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
						}
					}
				})
			}
			for i := range 2 {
				rnd := rand.New(rand.NewPCG(seed, uint64(i+100)))
				all.Go(func() {
					for n := range 30 {
						d := control.Document{Kind: fmt.Sprintf("kind-%d", i), Body: fmt.Append(nil, n)}
						err := r.InstallDocument(t.Context(), control.Fence{Epoch: uint64(n / 3), Cluster: "a"}, d)
						_, stale := errors.AsType[*control.StaleEpochError](err)
						_, undurable := errors.AsType[*control.NotDurableError](err)
						mu.Lock()
						switch {
						case err != nil && !stale && !undurable:
							t.Errorf("seed %d: %v", seed, err)
						case !stale:
							documents[d.Kind] = string(d.Body)
						}
						mu.Unlock()
						if rnd.IntN(4) == 0 {
							time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
						}
					}
				})
			}
			all.Wait()
			var want []control.Installed
			for _, z := range model {
				want = append(want, z)
			}
			requireServed(t, r, view, want...)
			requireDocuments(t, r, documents)
			fence = r.Fence()
			m.mu.Lock()
			m.bad = false
			m.mu.Unlock()
			time.Sleep(2 * lastRetry)
			for _, h := range r.Held() {
				if h.NotDurable {
					t.Errorf("seed %d: %s is not durable", seed, h.Apex)
				}
			}
			for _, d := range r.Documents() {
				if d.NotDurable {
					t.Errorf("seed %d: %s is not durable", seed, d.Kind)
				}
			}
			closeReplica(t, r)
		})
		r, view := openReplica(t, dir)
		var want []control.Installed
		for _, z := range model {
			want = append(want, z)
		}
		requireServed(t, r, view, want...)
		requireDocuments(t, r, documents)
		if r.Fence() != fence {
			t.Errorf("seed %d: fence on disk is %v, was %v", seed, r.Fence(), fence)
		}
		closeReplica(t, r)
	}
}
