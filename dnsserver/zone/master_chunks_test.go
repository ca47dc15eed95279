package zone

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// fine cuts texts into many pieces, however short they are.
func fine(threads int) sharing { return sharing{threads: threads, chunk: 1, runs: 1} }

// foundIn is a part of a text as words.
type foundIn struct{ entries []string }

func (f *foundIn) found(r *Record, fault *Fault) {
	if fault != nil {
		f.entries = append(f.entries, fmt.Sprintf("%v %q %s", fault, fault.Text, fault.Reason()))
	} else {
		f.entries = append(f.entries, fmt.Sprintf("%d %s", r.Column, recordText(*r)))
	}
}

// inChunks is what readChunks finds in all of a text.
func inChunks(text string, origin Name, s sharing) (entries []string) {
	for _, part := range readChunks(text, origin, s, func(int) *foundIn { return &foundIn{} }) {
		entries = append(entries, part.entries...)
	}
	return entries
}

func requireSameInChunks(t testing.TB, text string, origin Name) {
	t.Helper()
	var whole foundIn
	for r, fault := range ParseMaster(text, origin) {
		whole.found(&r, fault)
	}
	for _, threads := range []int{2, 3, 7, 40} {
		got := inChunks(text, origin, fine(threads))
		for i := range max(len(got), len(whole.entries)) {
			if i >= len(got) || i >= len(whole.entries) || got[i] != whole.entries[i] {
				t.Fatalf("%d threads, entry %d: in chunks %q, as a whole %q\n%q", threads, i, got[min(i, len(got)):min(i+1, len(got))],
					whole.entries[min(i, len(whole.entries)):min(i+1, len(whole.entries))], text)
			}
		}
	}
}

// TestChunksAreReadAsTheWhole: wherever a text is cut, what is found is the same.
func TestChunksAreReadAsTheWhole(t *testing.T) {
	origin := mustName(t, "example.")
	for name, text := range map[string]string{
		"nothing":                                   "",
		"a byte order mark":                         "\ufeffa 60 A 10.0.0.1\nb A 10.0.0.2\n",
		"no newline at the end":                     "a 60 A 10.0.0.1\nb A 10.0.0.2",
		"comments where chunks meet":                strings.Repeat("a 60 A 10.0.0.1\n; c\n\n ; d\n", 20),
		"an origin that counts later":               "$ORIGIN x.\n" + strings.Repeat("a 60 A 10.0.0.1\n", 20) + "$ORIGIN y\n" + strings.Repeat("b 60 A 10.0.0.1\n", 20),
		"an origin that is lost":                    strings.Repeat("a 60 A 10.0.0.1\n", 10) + "$ORIGIN a..b\n" + strings.Repeat("b 60 A 10.0.0.1\nc. 60 A 10.0.0.1\n", 20),
		"an origin inside of a record":              strings.Repeat("a 60 A 10.0.0.1\n", 10) + "a TXT ( x\n$ORIGIN b\n )\n" + strings.Repeat("b 60 A 10.0.0.1\n", 20),
		"a TTL inside of a record":                  "$TTL 5\n" + strings.Repeat("a A 10.0.0.1\n", 10) + "a TXT ( x\n$TTL 60\n )\n" + strings.Repeat("b A 10.0.0.1\n", 20),
		"a TTL that only a record states":           "a 77 A 10.0.0.1\n" + strings.Repeat("b A 10.0.0.1\n", 20),
		"no TTL":                                    strings.Repeat("b A 10.0.0.1\n", 20),
		"TTLs of records":                           strings.Repeat("a 77 A 10.0.0.1\nb A 10.0.0.1\n", 20),
		"TTLs of records after a directive":         strings.Repeat("a 77 A 10.0.0.1\nb A 10.0.0.1\n", 20) + "$TTL 5\n" + strings.Repeat("a 78 A 10.0.0.1\nb A 10.0.0.1\n", 20),
		"the TTL of the SOA":                        "@ SOA a b 1 2 3 4 5\n" + strings.Repeat("b A 10.0.0.1\n@ SOA a b 1 2 3 4 6\n", 20),
		"records that look like several":            strings.Repeat("a 60 TXT ( x\nb\nc\n) \n", 20),
		"a parenthesis that nothing closes":         strings.Repeat("a 60 A 10.0.0.1\n", 20) + "b A (\n" + strings.Repeat("a 60 A 10.0.0.1\n", 20),
		"parentheses that nothing closes":           strings.Repeat("a 60 A 10.0.0.1\nb A (\n", 20),
		"quotes that nothing closes":                strings.Repeat("a 60 TXT \"x\nb 60 TXT \"y\"\n", 20),
		"owners that are those of the entry before": strings.Repeat("a 60 A 10.0.0.1\n  A 10.0.0.2\n\tTXT x\n", 20),
		"owners of entries at fault":                strings.Repeat("a..b 60 A 10.0.0.1\n  A 10.0.0.2\na 60 A x\n\tA 10.0.0.1\n", 20),
		"carriage returns":                          strings.Repeat("a 60 A 10.0.0.1\r\n\r\n", 20),
		"directives alone":                          strings.Repeat("$ORIGIN a\n$TTL 5\n$INCLUDE x\n", 5),
		"a directive in a parenthesis":              strings.Repeat("$ORIGIN ( a\n)\nb 60 A 10.0.0.1\n", 5),
	} {
		t.Run(name, func(t *testing.T) { requireSameInChunks(t, text, origin) })
	}
	for seed := range uint64(100) {
		w := zoneWriter{Rand: rand.New(rand.NewPCG(seed, 2))}
		text := w.write(60)
		requireSameInChunks(t, text, origin)
		for range w.IntN(4) { // and damaged
			at := w.IntN(len(text))
			text = text[:at] + w.pick("(", ")", "\"", "\n", "$", "\\", " ", ";", "\n$ORIGIN x\n", "\n$TTL 7\n") + text[at+w.IntN(min(5, len(text)-at)):]
		}
		requireSameInChunks(t, text, origin)
	}
}

// TestMostChunksAreReadOnce: reading in chunks is of use only if what is assumed about the
// text before them mostly holds.
func TestMostChunksAreReadOnce(t *testing.T) {
	for name, text := range map[string]string{
		"a TTL for all":           hosts(20_000),
		"a TTL in every record":   rootZone(t),
		"an origin for each name": "$TTL 60\n" + strings.Repeat("$ORIGIN a.example.\nwww A 10.0.0.1\n", 20_000),
		"the usual dump":          strings.Repeat("$ORIGIN a.example.\n$TTL 60\nwww A 10.0.0.1\n  TXT ( \"x\"\n    \"y\" )\n", 20_000),
	} {
		for _, threads := range []int{2, 8} {
			s := sharingFor(threads)
			var begun atomic.Int32
			readChunks(text, Root, s, func(int) *foundIn {
				begun.Add(1)
				return &foundIn{}
			})
			if chunks := len(divide(text, Root, s.count(len(text), s.chunk))); chunks < 2 || int(begun.Load()) != chunks {
				t.Errorf("%s: %d chunks on %d threads, of which %d were read again", name, chunks, threads, int(begun.Load())-chunks)
			}
		}
	}
}

// TestThreadsDoNotMatter: zone, version and faults are the same on any number of threads.
func TestThreadsDoNotMatter(t *testing.T) {
	apex := mustName(t, "example.")
	report := func(c *Content, v Version, faults []*Fault) string {
		var s strings.Builder
		fmt.Fprintln(&s, v)
		for _, f := range faults {
			s.WriteString(faultText(f))
		}
		return s.String() + contentText(c)
	}
	for seed := range uint64(60) {
		w := zoneWriter{Rand: rand.New(rand.NewPCG(seed, 3))}
		text := "@ 60 SOA a b 1 2 3 4 5\n@ 60 NS a\n" + w.write(300)
		want := report(Load(apex, text))
		for _, threads := range []int{2, 5, 16} {
			if got := report(load(apex, text, fine(threads))); got != want {
				t.Fatalf("seed %d on %d threads:\n%s\nwant\n%s", seed, threads, got, want)
			}
		}
	}
	faulty := "@ 60 SOA a b 1 2 3 4 5\n@ 60 NS a\n" + strings.Repeat("a A x\nb 60 A 10.0.0.1\nb 61 A 10.0.0.1\nc.other. A 10.0.0.1\n", 900)
	if got, want := report(load(apex, faulty, fine(5))), report(Load(apex, faulty)); got != want {
		t.Errorf("a thousand faults:\n%s\nwant\n%s", got, want)
	}
}

// TestPartsAreInOrder: the nodes of all parts together are in canonical order, each owner once.
func TestPartsAreInOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var lines []string
	for i := range 5000 {
		lines = append(lines, fmt.Sprintf("h%d.d%d 60 A 10.0.%d.%d\n", i%3000, i%17, i/256%256, i%256))
	}
	r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	text := "@ 60 SOA a b 1 2 3 4 5\n@ 60 NS a\n" + strings.Join(lines, "")
	c, _, faults := load(mustName(t, "example."), text, fine(4))
	if len(faults) > 0 || c.Records() != 5002 {
		t.Fatalf("%d records, %v", c.Records(), faults)
	}
	var owners []Name
	for n := range c.All() {
		owners = append(owners, n.Owner)
	}
	if !slices.IsSortedFunc(owners, Name.Compare) || len(slices.Compact(owners)) != c.Owners() {
		t.Errorf("%d owners, %d of them once", c.Owners(), len(slices.Compact(owners)))
	}
}

func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"$ORIGIN example.\n$TTL 1h\n@ SOA ns host 1 2h 3 4 5\n\tNS ns\nns A 10.0.0.1\n",
		"a 60 A (\nb\n) \n$TTL 5\nc TXT \"\n$ORIGIN x\nd A 10.0.0.1\n e\n", "a A 10.0.0.1\nb 60 A 10.0.0.1\nc A 10.0.0.1\n",
	} {
		f.Add(s, uint8(3))
	}
	origin := Name("\x01o\x00")
	f.Fuzz(func(t *testing.T, text string, threads uint8) {
		var whole foundIn
		for r, fault := range ParseMaster(text, origin) {
			whole.found(&r, fault)
		}
		if got := inChunks(text, origin, fine(2+int(threads%16))); !slices.Equal(got, whole.entries) {
			t.Errorf("in chunks %q, as a whole %q", got, whole.entries)
		}
	})
}

// plainRecords are the records of a part of a text.
type plainRecords struct {
	all    []plainRecord
	faults []*Fault
}

func (p *plainRecords) found(r *Record, fault *Fault) {
	if fault != nil {
		p.faults = append(p.faults, fault)
		return
	}
	p.all = append(p.all, plainRecord{r.Owner, r.Type, r.TTL, string(r.RData)})
}

// TestLargeFilesAgreeWithTrustedParser: in chunks as large as those of real zones.
func TestLargeFilesAgreeWithTrustedParser(t *testing.T) {
	origin := mustName(t, "example.")
	w := zoneWriter{Rand: rand.New(rand.NewPCG(1, 4))}
	text := w.write(100_000)
	var got []plainRecord
	parts := readChunks(text, origin, sharingFor(4), func(int) *plainRecords { return &plainRecords{} })
	for _, p := range parts {
		for _, fault := range p.faults {
			t.Error(fault)
		}
		got = append(got, p.all...)
	}
	if len(parts) < 8 {
		t.Errorf("%d parts", len(parts))
	}
	requireSame(t, got, trusted(t, text, origin))
}
