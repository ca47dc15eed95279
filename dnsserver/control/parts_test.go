package control

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func noCheck(*x509.Certificate) error { return nil }

func TestGroupURIs(t *testing.T) {
	for text, want := range map[string]GroupKey{
		"fingerpost://datacenter/dc-a/group/root":           {"dc-a", "root"},
		"fingerpost://datacenter/a/group/authoritative-2":   {"a", "authoritative-2"},
		"fingerpost://datacenter/a/group/pool.dns.office":   {"a", "pool.dns.office"},
		"fingerpost://datacenter/a/group/pool..office":      {},
		"fingerpost://datacenter/a/group/..":                {},
		"fingerpost://hub":                                  {},
		"fingerpost://datacenter/dc-a/group/":               {},
		"fingerpost://datacenter//group/root":               {},
		"fingerpost://datacenter/dc-a/group/root/":          {},
		"fingerpost://datacenter/dc-a/groups/root":          {},
		"fingerpost://datacenter/DC-A/group/root":           {},
		"fingerpost://datacenter/dc.a/group/root":           {},
		"fingerpost://datacenter/-dc/group/root":            {},
		"fingerpost://datacenter/dc%2Da/group/root":         {},
		"fingerpost://datacenter:53/dc-a/group/root":        {},
		"fingerpost://me@datacenter/dc-a/group/root":        {},
		"fingerpost://datacenter/dc-a/group/root?x=y":       {},
		"fingerpost://datacenter/dc-a/group/root#x":         {},
		"https://datacenter/dc-a/group/root":                {},
		"fingerpost://elsewhere/dc-a/group/root":            {},
		"fingerpost://datacenter/dc-a/group/root/group/two": {},
		"fingerpost:datacenter/dc-a/group/root":             {},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseGroupURI(u)
		if got != want || (err != nil) != (want == GroupKey{}) {
			t.Errorf("%s is %v, %v", text, got, err)
		}
		if err == nil && got.URI().String() != text {
			t.Errorf("%s becomes %s", text, got.URI())
		}
	}
}

func TestFilesAreReadAgainWhenTheyHaveChanged(t *testing.T) {
	dir := t.TempDir()
	cert, key, roots := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")
	ca := newAuthority(t)
	write := func(path, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keyOf := func(c any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(c)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	if _, err := NewFiles(cert, key, roots); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing files: %v", err)
	}
	first, second := ca.issue(t, group.URI()), ca.issue(t, group.URI())
	write(cert, "CERTIFICATE", first.Certificate[0])
	write(key, "PRIVATE KEY", keyOf(first.PrivateKey))
	if err := os.WriteFile(roots, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFiles(cert, key, roots); err == nil {
		t.Error("a file without authorities was accepted")
	}
	write(roots, "CERTIFICATE", ca.cert.Raw)

	synctest.Test(t, func(t *testing.T) {
		f, err := NewFiles(cert, key, roots)
		if err != nil {
			t.Fatal(err)
		}
		shows := func(want []byte) {
			t.Helper()
			time.Sleep(recheck)
			got, err := f.Credentials().Certificate()
			if err != nil || !bytes.Equal(got.Certificate[0], want) {
				t.Errorf("another certificate is in force (%v)", err)
			}
		}
		shows(first.Certificate[0])
		write(cert, "CERTIFICATE", second.Certificate[0])
		shows(first.Certificate[0]) // its key is not there yet
		if _, err := f.Status(); err == nil {
			t.Error("a certificate without its key is no problem")
		}
		write(key, "PRIVATE KEY", keyOf(second.PrivateKey))
		shows(second.Certificate[0])
		if expires, err := f.Status(); err != nil || !expires.Equal(second.Leaf.NotAfter) {
			t.Errorf("status is %v, %v", expires, err)
		}
		if err := os.Remove(roots); err != nil {
			t.Fatal(err)
		}
		shows(second.Certificate[0])
		if pool, err := f.Credentials().Roots(); err != nil || !pool.Equal(ca.pool) {
			t.Errorf("authorities are gone with their file (%v)", err)
		}
		if _, err := f.Status(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("status is %v", err)
		}
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{size: 100}
		var granted []string
		ask := func(name string, size int64) *lease {
			return b.ask(size, func() { granted = append(granted, name) })
		}
		is := func(want ...string) {
			t.Helper()
			if !slices.Equal(granted, want) {
				t.Errorf("granted are %v, wanted %v", granted, want)
			}
		}
		a, c := ask("a", 60), ask("c", 60)
		d := ask("d", 10)
		is("a") // d waits behind c: large ones are not starved
		if !a.held() || c.held() || d.held() {
			t.Error("held is wrong")
		}
		a.release()
		a.release()
		is("a", "c", "d")
		huge := ask("huge", 1<<40)
		e := ask("e", 1)
		c.release()
		is("a", "c", "d")
		d.release()
		is("a", "c", "d", "huge")
		gone := ask("gone", 1)
		gone.release()
		huge.release()
		is("a", "c", "d", "huge", "e")
		e.release()

		// One that is never given back is taken back.
		start := time.Now()
		stuck := ask("stuck", 100)
		ask("next", 100)
		time.Sleep(leaseBase - time.Nanosecond)
		synctest.Wait()
		is("a", "c", "d", "huge", "e", "stuck")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		is("a", "c", "d", "huge", "e", "stuck", "next")
		if time.Since(start) != leaseBase || !stuck.held() {
			t.Error("the patience is wrong")
		}
		stuck.release()
		time.Sleep(time.Minute)
		synctest.Wait()
		if b.used != 0 || len(b.waiting) != 0 {
			t.Errorf("%d are used, %d wait", b.used, len(b.waiting))
		}
	})
}

func TestPausesGrowAndStayBelowASecond(t *testing.T) {
	var p pauses
	for i, want := range []int{50, 100, 200, 400, 600, 600} {
		if got := p.next(maxPause, 0.5); got != time.Duration(want)*time.Millisecond*3/4 {
			t.Errorf("pause %d is %s", i, got)
		}
	}
	for range 100 {
		if got := p.next(maxPause, 0.999); got > maxPause {
			t.Errorf("pause is %s", got)
		}
	}
	if got := p.next(refusedWait, 0); got != refusedWait/2 {
		t.Errorf("pause after a refusal is %s", got)
	}
	p.reset()
	if got := p.next(refusedWait, 0); got != minPause/2 {
		t.Errorf("first pause is %s", got)
	}
	if worst := maxPause + stagger*3; worst >= time.Second {
		t.Errorf("a new leader is found after %s", worst)
	}
}

// drawContent draws a zone of a small world, so that two of them have much in common.
func drawContent(t *rapid.T, label string) *zone.Content {
	owners := rapid.SliceOfDistinct(rapid.IntRange(0, 12), rapid.ID[int]).Draw(t, label)
	var nodes []zone.Node
	for _, o := range owners {
		var rdata [][]byte
		for range rapid.IntRange(1, 4).Draw(t, "records") {
			rdata = append(rdata, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "rdata"))
		}
		nodes = append(nodes, zone.NewNode(mustName(fmt.Sprintf("h%d.test", o)), zone.NewRRset(zone.TypeTXT, uint32(o%3), rdata...)))
	}
	c, err := zone.NewContent(mustName("test"), nodes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNodesInChunksOfAnySizeMakeTheSameContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := drawContent(t, "before"), drawContent(t, "after")
		size := rapid.IntRange(1, 700).Draw(t, "size")
		for _, base := range []*zone.Content{nil, before} {
			nodes := wholeZone(after)
			if base != nil {
				nodes = changes(base, after)
			}
			a := assembly{apex: mustName("test"), base: base, room: 1 << 20}
			var all [][]byte
			total := 0
			for part := range chunks(nodes, size) {
				if len(part) == 0 || len(part) > size {
					t.Fatalf("a part of %d octets", len(part))
				}
				all = append(all, part)
				total += len(part)
			}
			for _, part := range all { // only now: parts are not written to again
				if err := a.add(part); err != nil {
					t.Fatal(err)
				}
			}
			got, err := a.content()
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest() != after.Digest() {
				t.Fatal("other content came out")
			}
			if n := sizeOf(nodes, noLimit); n != int64(total) {
				t.Fatalf("size is %d, counted %d", total, n)
			}
			if total > 0 && sizeOf(nodes, int64(total)-1) < int64(total) {
				t.Fatal("the limit of the count is wrong")
			}
		}
	})
}

func TestAnAssemblyIsBoundedByWhatItTakesInMemory(t *testing.T) {
	a := assembly{apex: zone.Root, room: 10 * nodeCost}
	tiny := []byte{3, 0, 0, 0} // the root without RRsets
	for i := range 11 {
		err := a.add(tiny)
		if i < 10 == (err != nil) {
			t.Fatalf("node %d: %v", i, err)
		}
	}
}
