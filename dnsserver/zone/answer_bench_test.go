package zone

import (
	"fmt"
	"strings"
	"testing"
)

// syntheticZone has so many hosts, one in 20 of them a delegation with glue.
func syntheticZone(t testing.TB, hosts int) *Served {
	t.Helper()
	apex := mustName(t, "example.test.")
	nodes := make([]Node, 0, hosts+hosts/20+1)
	child := func(n Name, label string) Name {
		c, err := n.Child(label)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ns := child(apex, "ns")
	soa := SOA{MName: ns, RName: ns, Refresh: 3600, Retry: 600, Expire: 86400, Minimum: 60}
	nodes = append(nodes, NewNode(apex, NewRRset(TypeSOA, 300, soa.Pack()), NewRRset(TypeNS, 300, []byte(ns))), NewNode(ns, a(1)))
	for i := range hosts {
		owner := child(apex, fmt.Sprintf("h%d", i))
		if i%20 != 19 {
			nodes = append(nodes, NewNode(owner, NewRRset(TypeA, 300, []byte{10, byte(i >> 16), byte(i >> 8), byte(i)})))
			continue
		}
		ns1, ns2 := child(owner, "ns1"), child(owner, "ns2")
		nodes = append(nodes, NewNode(owner, NewRRset(TypeNS, 300, []byte(ns1), []byte(ns2))), NewNode(ns1, a(1)), NewNode(ns2, a(2)))
	}
	content, err := NewContent(apex, nodes)
	if err != nil {
		t.Fatal(err)
	}
	z, err := NewServed(content, Version{Serial: 1, Digest: content.Digest()})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// benchQuestions holds for a zone of so many hosts some of each kind of answer.
func benchQuestions(t testing.TB, hosts int) map[string][][]byte {
	t.Helper()
	kinds := map[string][][]byte{}
	for i := range 64 {
		host := i * (hosts / 64) / 20 * 20
		for kind, format := range map[string]string{
			"hit":      "h%d.example.test. A +edns=1232",
			"nodata":   "h%d.example.test. AAAA +edns=1232",
			"nxdomain": "nope%d.example.test. A +edns=1232",
			"referral": "www.h%d.example.test. A +edns=1232",
		} {
			n := host
			if kind == "referral" {
				n += 19
			}
			message, _ := question(t, fmt.Sprintf(format, n))
			kinds[kind] = append(kinds[kind], message)
		}
	}
	return kinds
}

func BenchmarkAnswer(b *testing.B) {
	for _, hosts := range []int{1e2, 1e4, 1e6} {
		v := viewOf(syntheticZone(b, hosts))
		for _, kind := range []string{"hit", "nodata", "nxdomain", "referral"} {
			questions := benchQuestions(b, hosts)[kind]
			b.Run(fmt.Sprintf("names=%d/%s", hosts, kind), func(b *testing.B) {
				s, dst := &Scratch{}, make([]byte, MaxUDP)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if v.Answer(s, dst, questions[i%len(questions)], client, UDP) == nil {
						b.Fatal("silence")
					}
					i++
				}
			})
		}
	}
}

func TestAnswersDoNotAllocate(t *testing.T) {
	zones, questions := archives(t)
	v := viewOf(zones...)
	s, dst := &Scratch{}, make([]byte, MaxUDP)
	for _, q := range questions {
		if allocs := testing.AllocsPerRun(10, func() { v.Answer(s, dst, q, client, UDP) }); allocs != 0 {
			var name dissected
			name.read(q[12:])
			t.Errorf("%s: %v allocations", strings.TrimSpace(Name(name.name()).String()), allocs)
		}
	}
	a := &Ahead{}
	v.Ahead(a, questions)
	if allocs := testing.AllocsPerRun(10, func() { v.Ahead(a, questions) }); allocs != 0 {
		t.Errorf("looking ahead: %v allocations", allocs)
	}
}
