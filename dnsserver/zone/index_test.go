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
		versions := []version{{content, newIndex(content)}}
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
				node := v.index.find([]byte(name))
				switch want := v.content.Node(name); {
				case (node != nil) != v.content.Exists(name):
					t.Fatalf("version %d: %s exists: %v, and is found: %v", i, name, v.content.Exists(name), node != nil)
				case want != nil && !slices.Equal(node.RRsets, want.RRsets):
					t.Fatalf("version %d: %s has %v, wanted %v", i, name, node, want)
				case want == nil && node != nil && (len(node.RRsets) > 0 || node.Owner != name):
					t.Fatalf("version %d: the empty non-terminal %s is %v", i, name, node)
				}
			}
		}
	})
}

// TestIndexOfALargeZone has many branches, and loses all again.
func TestIndexOfALargeZone(t *testing.T) {
	z := syntheticZone(t, 20000)
	full := newIndex(z.content)
	var gone []Node
	for n := range z.content.All() {
		if full.find([]byte(n.Owner)) != n {
			t.Fatalf("%s is not found", n.Owner)
		}
		if n != z.apex {
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
	if empty.find([]byte(z.Apex())) != z.apex {
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
			newIndex(z.content)
		}
	})
	b.Run("change", func(b *testing.B) {
		x := newIndex(z.content)
		changed, err := z.content.With(NewNode(mustName(b, "h500.example.test."), a(77)))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			x.with(z.content, changed)
		}
	})
}
