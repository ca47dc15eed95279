package zone

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func mustName(t testing.TB, s string) Name {
	t.Helper()
	n, err := ParseName(s, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func a(ip byte) RRset { return NewRRset(TypeA, 60, []byte{10, 0, 0, ip}) }

func TestCanonicalOrder(t *testing.T) {
	// The example of RFC 4034 §6.1.
	want := []string{"example.", "a.example.", "yljkjljk.a.example.", "Z.a.example.", "zABC.a.EXAMPLE.",
		"z.example.", `\001.z.example.`, "*.z.example.", `\200.z.example.`}
	var names []Name
	for _, s := range want {
		names = append(names, mustName(t, s))
	}
	shuffled := slices.Clone(names)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	slices.SortFunc(shuffled, Name.Compare)
	if !slices.Equal(shuffled, names) {
		t.Errorf("sorted order is %q", shuffled)
	}
}

// drawNodes draws a small world of owners, so that changes meet the same owners often.
func drawNodes(t *rapid.T, label string) []Node {
	owner := rapid.Custom(func(t *rapid.T) Name {
		n := Name("\x04test\x00")
		for range rapid.IntRange(0, 3).Draw(t, "depth") {
			n, _ = n.Child(rapid.SampledFrom([]string{"a", "b", "*", "\x00", "\x01", "\x00\x01", "a\x00", "zz"}).Draw(t, "label"))
		}
		return n
	})
	node := rapid.Custom(func(t *rapid.T) Node {
		var sets []RRset
		for _, typ := range []uint16{TypeA, TypeTXT} {
			if rapid.Bool().Draw(t, "has") {
				sets = append(sets, NewRRset(typ, 60, []byte{byte(rapid.IntRange(0, 3).Draw(t, "value"))}))
			}
		}
		return NewNode(owner.Draw(t, "owner"), sets...)
	})
	return rapid.SliceOfN(node, 0, 30).Draw(t, label)
}

// last keeps the last node of every owner, as With does.
func last(nodes []Node) map[Name]Node {
	m := map[Name]Node{}
	for _, n := range nodes {
		if len(n.RRsets) == 0 {
			delete(m, n.Owner)
		} else {
			m[n.Owner] = n
		}
	}
	return m
}

func contentOf(t *rapid.T, m map[Name]Node) *Content {
	var nodes []Node
	for _, n := range m {
		nodes = append(nodes, n)
	}
	c, err := NewContent("\x04test\x00", nodes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHistoryDoesNotMatterToContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := drawNodes(t, "nodes")
		model := last(nodes)
		want := contentOf(t, model)
		got, err := (&Content{apex: "\x04test\x00"}).With(nodes...)
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest() != want.Digest() {
			t.Fatalf("digest after changes differs from that of the same content built at once")
		}
		if got.Owners() != len(model) {
			t.Fatalf("%d owners, want %d", got.Owners(), len(model))
		}
		var prev Name
		records := 0
		for n := range got.All() {
			if m := model[n.Owner]; !n.Equal(&m) {
				t.Fatalf("node %s differs from the model", n.Owner)
			}
			if prev != "" && prev.Compare(n.Owner) >= 0 {
				t.Fatalf("%s comes after %s", n.Owner, prev)
			}
			prev = n.Owner
			records += n.Records()
		}
		if got.Records() != records {
			t.Fatalf("Records() = %d, want %d", got.Records(), records)
		}
		for owner := range model {
			for n := owner; n != ""; n = n.Parent() {
				if !got.Exists(n) {
					t.Fatalf("%s does not exist, although %s does", n, owner)
				}
			}
		}
	})
}

func TestDiffIsWhatChanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, after := last(drawNodes(t, "before")), last(drawNodes(t, "after"))
		old, current := contentOf(t, before), contentOf(t, after)
		changed := map[Name]bool{}
		var patch []Node
		for ch := range Diff(old, current) {
			changed[ch.Owner] = true
			b, a := before[ch.Owner], after[ch.Owner]
			if (ch.Old == nil) != (len(b.RRsets) == 0) || (ch.New == nil) != (len(a.RRsets) == 0) {
				t.Fatalf("change of %s has the wrong sides", ch.Owner)
			}
			if slices.Equal(b.RRsets, a.RRsets) {
				t.Fatalf("%s is reported and did not change", ch.Owner)
			}
			n := Node{Owner: ch.Owner}
			if ch.New != nil {
				n = *ch.New
			}
			patch = append(patch, n)
		}
		patched, err := old.With(patch...)
		if err != nil {
			t.Fatal(err)
		}
		if patched.Digest() != current.Digest() {
			t.Fatal("old content with the changes is not the new content")
		}
	})
}

func TestNodeEncodingRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, n := range drawNodes(t, "nodes") {
			b := AppendNode(nil, n)
			got, size, err := DecodeNode(append(b, 1, 2, 3))
			if err != nil || size != len(b) || !got.Equal(&n) {
				t.Fatalf("decoded %v, size %d of %d, error %v", got, size, len(b), err)
			}
			for cut := range len(b) {
				if _, _, err := DecodeNode(b[:cut]); err == nil {
					t.Fatalf("an encoding cut at %d of %d was accepted", cut, len(b))
				}
			}
		}
	})
}

func TestNextSerial(t *testing.T) {
	const today, later = 1_800_000_000, 3_000_000_000 // unix seconds
	for rule, c := range map[string]struct {
		prev, floor uint32
		now         int64
		want        uint32
	}{
		"the first serial is the time":            {0, 0, today, today},
		"the time wins over an older serial":      {1_700_000_000, 0, today, today},
		"a serial ahead of the time grows by 1":   {1_900_000_000, 0, today, 1_900_000_001},
		"the same second grows by 1":              {today, 0, today, today + 1},
		"a floor above lifts":                     {1_700_000_000, 2_100_000_000, today, 2_100_000_000},
		"a floor below does nothing":              {1_900_000_000, 5, today, 1_900_000_001},
		"dates as serials go on by 1":             {2_026_112_299, 0, today, 2_026_112_300},
		"the time is ahead of one near the wrap":  {4_200_000_000, 0, today, today},
		"over the wrap 0 is skipped":              {1<<32 - 1, 0, later, 1},
		"the 33rd bit of the time takes no part":  {0, 0, 1<<32 + 7, 7},
		"a time of 0 is not taken for never":      {0, 0, 1 << 32, 1},
		"a floor counts in serial arithmetic too": {1<<32 - 1, 5, later, 5},
	} {
		if got := NextSerial(c.prev, c.floor, time.Unix(c.now, 0)); got != c.want {
			t.Errorf("%s: NextSerial(%d, %d) = %d, want %d", rule, c.prev, c.floor, got, c.want)
		}
	}
}

func FuzzDecodeNode(f *testing.F) {
	f.Add(AppendNode(nil, NewNode("\x01a\x04test\x00", a(1), NewRRset(TypeTXT, 5, []byte("\x01x"), []byte("\x01y")))))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, size, err := DecodeNode(b)
		if err != nil {
			return
		}
		if again := AppendNode(nil, n); !bytes.Equal(lowered(b[:size], len(n.Owner)), again) {
			t.Errorf("accepted %x, which encodes as %x", b[:size], again)
		}
	})
}

// lowered is b with the owner in its first n octets in lower case.
func lowered(b []byte, n int) []byte {
	b = slices.Clone(b)
	return append([]byte(lower(b[:n:n])), b[n:]...)
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"www.example.", `a\.b.c`, `\000\255.x.`, "*.", "@", "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s, Root)
		if err != nil {
			return
		}
		if again, err := ParseName(n.String(), ""); err != nil || again != n {
			t.Errorf("%q parses as %q, which reads back as %q, %v", s, n, again, err)
		}
		if wire, size, err := NameFromWire([]byte(n)); err != nil || wire != n || size != len(n) {
			t.Errorf("%q: wire form %x does not read back: %v", s, string(n), err)
		}
	})
}

func BenchmarkWith(b *testing.B) {
	for _, owners := range []int{1e2, 1e5} {
		b.Run(fmt.Sprintf("owners=%d", owners), func(b *testing.B) {
			var nodes []Node
			for i := range owners {
				n, _ := Name("\x04test\x00").Child(fmt.Sprintf("h%d", i))
				nodes = append(nodes, NewNode(n, a(1)))
			}
			c, err := NewContent("\x04test\x00", nodes)
			if err != nil {
				b.Fatal(err)
			}
			change := NewNode(nodes[owners/2].Owner, a(2))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.With(change); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
