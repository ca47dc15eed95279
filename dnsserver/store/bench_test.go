package store

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// rootZone is the IANA root zone with a SOA.
func rootZone(t testing.TB) *Zone {
	t.Helper()
	f, err := os.Open("../zone/testdata/root.zone.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	c, v, _ := zone.Load(zone.Root, ". 86400 SOA . . 1 2 3 4 5\n"+string(text))
	return &Zone{Content: c, Version: v, Source: "dns-root/root", Cluster: "a"}
}

// small makes n zones of 10 owners.
func small(t testing.TB, n int) []Change {
	t.Helper()
	var changes []Change
	for i := range n {
		changes = append(changes, put(version(t, mustName(t, fmt.Sprintf("zone%d.", i)), 1, 10)))
	}
	return changes
}

// BenchmarkOpen is the start from disk: reading, verifying, and getting ready to write.
func BenchmarkOpen(b *testing.B) {
	for name, changes := range map[string][]Change{
		"root zone":    {put(rootZone(b))},
		"zones=1000":   small(b, 1000),
		"zones=20000":  small(b, 20000),
		"owners=1e+05": {put(version(b, apexes[1], 1, 1e5))},
	} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			s, _ := open(b, dir)
			commit(b, s, Fence{1, "a"}, changes...)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				s, _ = open(b, dir)
			}
		})
	}
}

// BenchmarkCommit is one change of one record, durable.
func BenchmarkCommit(b *testing.B) {
	for _, owners := range []int{1e2, 1e5} {
		b.Run(fmt.Sprintf("owners=%d", owners), func(b *testing.B) {
			s, _ := open(b, b.TempDir())
			z := version(b, apexes[1], 1, owners)
			commit(b, s, Fence{1, "a"}, put(z))
			owner, err := apexes[1].Child("h3")
			if err != nil {
				b.Fatal(err)
			}
			for i := uint32(0); b.Loop(); i++ {
				next := *z
				next.Content, err = z.Content.With(zone.NewNode(owner, zone.NewRRset(zone.TypeA, i%1000, []byte{1, 2, 3, 4})))
				if err != nil {
					b.Fatal(err)
				}
				next.Version = zone.Version{Serial: i, Digest: next.Content.Digest()}
				commit(b, s, Fence{1, "a"}, put(&next))
				z = &next
			}
		})
	}
}

// BenchmarkCommitZones is 1,000 new zones, so many in each commit.
func BenchmarkCommitZones(b *testing.B) {
	zones := small(b, 1000)
	for _, together := range []int{1, 16, 1000} {
		b.Run(fmt.Sprintf("together=%d", together), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s, _ := open(b, b.TempDir())
				b.StartTimer()
				for at := 0; at < len(zones); at += together {
					commit(b, s, Fence{1, "a"}, zones[at:min(at+together, len(zones))]...)
				}
			}
		})
	}
}

// BenchmarkCommitWhole is a zone written for the first time.
func BenchmarkCommitWhole(b *testing.B) {
	for name, z := range map[string]*Zone{"root zone": rootZone(b), "owners=1e+05": version(b, apexes[1], 1, 1e5)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s, _ := open(b, b.TempDir())
				b.StartTimer()
				commit(b, s, Fence{1, "a"}, put(z))
			}
		})
	}
}
