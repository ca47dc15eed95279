package zone

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestIndexFindsWhatExists follows a zone through changes: each version's index has the names
// that exist in it and no others, also after later versions were made.
func TestIndexFindsWhatExists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := contentOf(t, last(drawNodes(t, "first")))
		candidates := map[Name]bool{}
		type version struct {
			content *Content
			index   *index
		}
		versions := []version{{content, newIndex(content, nil)}}
		for range rapid.IntRange(0, 4).Draw(t, "changes") {
			nodes := drawNodes(t, "change")
			now := versions[len(versions)-1]
			next, err := now.content.With(nodes...)
			if err != nil {
				t.Fatal(err)
			}
			versions = append(versions, version{next, now.index.with(now.content, next)})
		}
		for _, v := range versions {
			for n := range v.content.All() {
				for name := n.Owner; name != v.content.Apex(); name = name[1+name[0]:] {
					candidates[name] = true
				}
			}
		}
		for i, v := range versions {
			for name := range maps.Keys(candidates) {
				found := v.index.find([]byte(name))
				switch want := v.content.Node(name); {
				case (found != nil) != v.content.Exists(name):
					t.Fatalf("version %d: %s exists: %v, and is found: %v", i, name, v.content.Exists(name), found != nil)
				case found == nil:
				case !slices.Equal(rrsetsOf(found), want.sets()):
					t.Fatalf("version %d: %s has %v, wanted %v", i, name, rrsetsOf(found), want)
				}
			}
		}
	})
}

// rrsetsOf returns the sets of a record.
func rrsetsOf(r record) (all []RRset) {
	for sets := r.sets(); sets.count > 0; sets.skip() {
		all = append(all, sets.rest.RRset())
	}
	return all
}

// TestIndexOfALargeZone has many branches, and loses all again.
func TestIndexOfALargeZone(t *testing.T) {
	z := syntheticZone(t, 20000)
	full := newIndex(z.content, nil)
	var gone []Node
	for n := range z.content.All() {
		if !slices.Equal(rrsetsOf(full.find([]byte(n.Owner))), n.RRsets) {
			t.Fatalf("%s is not found", n.Owner)
		}
		if n.Owner != z.Apex() {
			gone = append(gone, Node{Owner: n.Owner})
		}
	}
	rest, err := z.content.With(gone...)
	if err != nil {
		t.Fatal(err)
	}
	empty := full.with(z.content, rest)
	back := empty.with(rest, z.content)
	for _, n := range gone {
		if empty.find([]byte(n.Owner)) != nil {
			t.Fatalf("%s is still found", n.Owner)
		}
		if back.find([]byte(n.Owner)) == nil || full.find([]byte(n.Owner)) == nil {
			t.Fatalf("%s is not found any more", n.Owner)
		}
	}
	if !slices.Equal(rrsetsOf(empty.find([]byte(z.Apex()))), z.apex.RRsets) {
		t.Error("the apex is not found")
	}
}

func TestFoldEight(t *testing.T) {
	for c := range 256 {
		for shift := 0; shift < 64; shift += 8 {
			const others = 0x5b5a41407a61ff00 // around the letters
			word := others&^(0xff<<shift) | uint64(c)<<shift
			want := uint64(0)
			for at := 0; at < 64; at += 8 {
				want |= uint64(fold(byte(word>>at))) << at
			}
			if got := foldEight(word); got != want {
				t.Fatalf("%016x becomes %016x, wanted %016x", word, got, want)
			}
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	z := syntheticZone(b, 1e5)
	b.Run("build", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			newIndex(z.content, nil)
		}
	})
	b.Run("change", func(b *testing.B) {
		versions := [2]*Content{z.content}
		var err error
		if versions[1], err = z.content.With(NewNode(mustName(b, "h500.example.test."), a(77))); err != nil {
			b.Fatal(err)
		}
		x := newIndex(z.content, nil)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			x = x.with(versions[i%2], versions[(i+1)%2])
		}
	})
}
