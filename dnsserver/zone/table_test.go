package zone

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestTableHoldsWhatWasAdded follows tables through changes, with tags that meet: each version has
// what was there when it was made, also after later ones.
func TestTableHoldsWhatWasAdded(t *testing.T) {
	tags := rapid.Custom(func(t *rapid.T) uint32 {
		// Few pages, few homes, and equal tags.
		return uint32(rapid.IntRange(0, 3).Draw(t, "high"))<<30 | uint32(rapid.IntRange(0, 20).Draw(t, "low"))
	})
	type slot struct{ tag, ref uint32 }
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			table table
			has   map[slot]bool
		}
		now := version{newTable(0, 1), map[slot]bool{}}
		var versions []version
		last := uint32(0)
		for range rapid.IntRange(0, 400).Draw(t, "changes") {
			all := slices.SortedFunc(maps.Keys(now.has), func(a, b slot) int { return int(a.ref) - int(b.ref) })
			switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
			case kind < 6 || len(all) == 0:
				last++
				s := slot{tags.Draw(t, "tag"), last}
				now.table.add(s.tag, s.ref)
				now.has[s] = true
			case kind < 7:
				last++
				s := rapid.SampledFrom(all).Draw(t, "replaced")
				now.table.replace(s.tag, s.ref, last)
				delete(now.has, s)
				now.has[slot{s.tag, last}] = true
			case kind < 9:
				s := rapid.SampledFrom(all).Draw(t, "removed")
				now.table.remove(s.tag, s.ref)
				delete(now.has, s)
			default:
				versions = append(versions, version{now.table, maps.Clone(now.has)})
				now.table.root = slices.Clone(now.table.root)
				now.table.stamp++
			}
		}
		for i, v := range append(versions, now) {
			if v.table.used != len(v.has) {
				t.Fatalf("version %d uses %d slots for %d", i, v.table.used, len(v.has))
			}
			want := map[uint32][]uint32{}
			for s := range v.has {
				want[s.tag] = append(want[s.tag], s.ref)
				if !v.table.has(s.tag, s.ref) || v.table.has(s.tag+100, s.ref) {
					t.Fatalf("version %d does not have %v alone", i, s)
				}
			}
			for tag, refs := range want {
				p := v.table.page(tag)
				var got []uint32
				for steps := uint32(0); ; steps++ {
					var ref uint32
					if ref, steps = p.next(tag, steps); ref == 0 {
						break
					}
					got = append(got, ref)
				}
				if first, full := p.line(tag).find(tag); first != got[0] && (first != 0 || !full) {
					t.Fatalf("version %d has %d first for tag %d, wanted %d", i, first, tag, got[0])
				}
				slices.Sort(got)
				slices.Sort(refs)
				if !slices.Equal(got, refs) {
					t.Fatalf("version %d has %v for tag %d, wanted %v", i, got, tag, refs)
				}
			}
		}
	})
}

// TestNamesOfOneTagAreToldApart begins with a record that has the tag and another owner.
func TestNamesOfOneTagAreToldApart(t *testing.T) {
	z := syntheticZone(t, 100)
	x := newIndex(z.content, nil)
	other := x.find([]byte(mustName(t, "h1.example.test.")))
	for _, owner := range []string{"h2.example.test.", "nope.example.test."} {
		name := mustName(t, owner)
		got := x.confirm(other, tagOf(hashName([]byte(name))), []byte(name))
		if want := x.find([]byte(name)); (got == nil) != (want == nil) || got != nil && &got[0] != &want[0] {
			t.Errorf("%s is found to be %v, wanted %v", owner, got, want)
		}
	}
}
