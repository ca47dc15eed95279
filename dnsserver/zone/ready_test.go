package zone

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/conformance/worlds"
)

// world is generated zones, as a View of them, and their names.
func world(t testing.TB, seed uint64) (zones []*Served, names []string) {
	t.Helper()
	for i, apex := range []string{"alpha.test.", "beta.test.", "deep.in.alpha.test.", "c.alpha.test.", "x.test."} {
		text, n := worlds.Zone(seed*100+uint64(i), apex)
		zones = append(zones, fromText(t, apex, text))
		names = append(names, n...)
	}
	return zones, append(names, "test.", "nowhere.invalid.", ".")
}

// fromText is a zone of a master file that may have faults.
func fromText(t testing.TB, apex, text string) *Served {
	t.Helper()
	content, version, _ := Load(mustName(t, apex), text)
	if content == nil {
		t.Fatalf("zone %s is not loaded", apex)
	}
	z, err := NewServed(content, version)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// differ asks both views the same, one of them perhaps without what is ready, and reports the first
// question that they do not answer with the same octets. The first view prepares for most batches.
func differ(t testing.TB, r *rand.Rand, names []string, questions int, has, wants *View, general bool) {
	t.Helper()
	s, plain, a := &Scratch{}, &Scratch{general: general}, &Ahead{}
	reply, other := make([]byte, MaxMessage), make([]byte, MaxMessage)
	for asked := 0; asked < questions; {
		batch := make([][]byte, r.IntN(64))
		over := make([]Transport, len(batch))
		for i := range batch {
			m, tcp := worlds.Question(r, names)
			if tcp {
				over[i] = TCP
			}
			var err error
			if batch[i], err = m.Pack(); err != nil {
				t.Fatal(err)
			}
		}
		asked += len(batch) + 1
		ahead := r.IntN(4) > 0
		if ahead {
			has.Ahead(a, batch)
		}
		for i, message := range batch {
			var got []byte
			if ahead {
				got = has.AnswerAhead(s, a, i, reply, message, client, over[i])
			} else {
				got = has.Answer(s, reply, message, client, over[i])
			}
			want := wants.Answer(plain, other, message, client, over[i])
			if !bytes.Equal(got, want) {
				t.Fatalf("%x, over %d, ahead %v, is answered\n%s%x\nwanted\n%s%x", message, over[i], ahead, present(t, got), got, present(t, want), want)
			}
			if s.Rcode() != plain.Rcode() || s.Class() != plain.Class() || s.Subject() != plain.Subject() {
				t.Fatalf("%x: rcode %d, class %d, subject %x, wanted %d, %d, %x", message,
					s.Rcode(), s.Class(), s.Subject(), plain.Rcode(), plain.Class(), plain.Subject())
			}
		}
	}
}

func TestWhatIsReadyChangesNoAnswer(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			zones, names := world(t, seed)
			v := viewOf(zones...)
			differ(t, rand.New(rand.NewPCG(seed, 3)), names, 3000, v, v, true)
		})
	}
	t.Run("the root zone", func(t *testing.T) {
		const ours = ". 86400 SOA ns-a. hostmaster. 1 1800 900 604800 86400\n. 86400 NS ns-a.\nns-a. 86400 A 10.0.0.1\n"
		z := fromText(t, ".", ours+rootZone(t))
		var names []string
		for n := range z.content.All() {
			names = append(names, n.Owner.String())
		}
		v := viewOf(z)
		differ(t, rand.New(rand.NewPCG(1, 3)), names, 20000, v, v, true)
	})
}

// TestVersionsAnswerLikeZonesLoadedAnew turns one zone into another in steps: a version made from
// the one before answers like one that is made of the content alone.
func TestVersionsAnswerLikeZonesLoadedAnew(t *testing.T) {
	const apex = "alpha.test."
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 4))
			text, names := worlds.Zone(seed, apex)
			z := fromText(t, apex, text)
			grown := viewOf(z)
			content := z.content
			for step := range 12 {
				text, more := worlds.Zone(seed*1000+uint64(step), apex)
				names = append(names, more...)
				next := fromText(t, apex, text)
				var nodes []Node
				for ch := range Diff(content, next.content) {
					if r.IntN(12) > 0 {
						continue
					}
					if ch.New == nil {
						nodes = append(nodes, Node{Owner: ch.Owner})
					} else if kept, _ := CheckNode(content.apex, *ch.New); ch.Owner != content.apex || len(nodes) == 0 {
						nodes = append(nodes, kept)
					}
				}
				var err error
				if content, err = content.With(nodes...); err != nil {
					t.Fatal(err)
				}
				z := again(t, content, uint32(step+2))
				grown.Update([]*Served{z}, nil)
				differ(t, r, names, 800, grown, viewOf(z), step%2 == 0)
			}
		})
	}
}

// TestLongHistoriesAnswerLikeZonesLoadedAnew changes a zone again and again: memory does not grow
// without bound, and what is moved to save it stays the same.
func TestLongHistoriesAnswerLikeZonesLoadedAnew(t *testing.T) {
	const apex = "alpha.test."
	r := rand.New(rand.NewPCG(1, 5))
	text, names := worlds.Zone(1, apex)
	z := fromText(t, apex, text)
	grown := viewOf(z)
	content, changes := z.content, []Node(nil)
	for seed := range uint64(20) {
		text, more := worlds.Zone(100+seed, apex)
		names = append(names, more...)
		for n := range fromText(t, apex, text).content.All() {
			if kept, _ := CheckNode(content.apex, *n); len(kept.RRsets) > 0 && n.Owner != content.apex {
				changes = append(changes, kept, Node{Owner: n.Owner})
			}
		}
	}
	for step := range 12000 {
		var err error
		if content, err = content.With(changes[r.IntN(len(changes))]); err != nil {
			t.Fatal(err)
		}
		grown.Update([]*Served{again(t, content, uint32(step+2))}, nil)
		x := grown.Zone(content.apex).index
		octets := 0
		for _, c := range x.chunks {
			octets += len(c)
		}
		if octets != x.memory.octets || x.memory.octets > 2*x.memory.live+3*spareOctets {
			t.Fatalf("%d octets in chunks, %d counted, %d live", octets, x.memory.octets, x.memory.live)
		}
		if step%600 == 0 {
			differ(t, r, names, 2000, grown, viewOf(again(t, content, uint32(step+2))), false)
		}
	}
}
