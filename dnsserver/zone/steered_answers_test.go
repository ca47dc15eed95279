package zone

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// address is an outcome with addresses, all answered with a TTL of 60 s.
func address(texts ...string) Outcome {
	sets := map[uint16]*Set{}
	for _, text := range texts {
		a := netip.MustParseAddr(text)
		typ := TypeAAAA
		if a.Is4() {
			typ = TypeA
		}
		if sets[typ] == nil {
			sets[typ] = &Set{Type: typ, TTL: 60}
		}
		sets[typ].RData = append(sets[typ].RData, a.AsSlice())
	}
	var o Outcome
	for _, typ := range []uint16{TypeA, TypeAAAA} {
		if sets[typ] != nil {
			o.Sets = append(o.Sets, *sets[typ])
		}
	}
	return o
}

func alias(t testing.TB, targets ...string) Outcome {
	t.Helper()
	s := Set{Type: TypeCNAME, TTL: 60, Pick: PickTurn}
	for _, target := range targets {
		s.RData = append(s.RData, []byte(mustName(t, target)))
	}
	return Outcome{Sets: []Set{s}}
}

// answersOf gives everybody the same outcome.
func answersOf(o Outcome) *Answers {
	types := []uint16{TypeA, TypeAAAA}
	if len(o.Sets) == 1 && o.Sets[0].Type == TypeCNAME {
		types = []uint16{TypeCNAME}
	}
	return &Answers{
		Seed: 4711, TTL: 60, Slot: 60, Types: types, Cells: []int{0},
		Choices: []Choice{{Of: []Alternative{{}}}}, Outcomes: []Outcome{o},
	}
}

func steeredTo(t testing.TB, a *Answers) *Steered {
	t.Helper()
	st, err := NewSteered(a)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func dimensions(t testing.TB, all ...Dimension) *Dimensions {
	t.Helper()
	by, err := NewDimensions(all...)
	if err != nil {
		t.Fatal(err)
	}
	return by
}

// nearest gives clients of 10.1.0.0/16 and 2001:db8:1::/48 the first outcome, those of 10.2.0.0/16 and
// 2001:db8:2::/48 the second, and others the third.
func nearest(t testing.TB, outcomes [3]Outcome) *Answers {
	t.Helper()
	l, err := NewLocator(3, []Place{
		{netip.MustParsePrefix("10.1.0.0/16"), 1}, {netip.MustParsePrefix("10.2.0.0/16"), 2},
		{netip.MustParsePrefix("2001:db8:1::/48"), 1}, {netip.MustParsePrefix("2001:db8:2::/48"), 2},
	}, Longest)
	if err != nil {
		t.Fatal(err)
	}
	a := answersOf(outcomes[0])
	a.By = dimensions(t, Dimension{Where: l, Count: 3})
	a.Cells = []int{2, 0, 1}
	a.Outcomes = outcomes[:]
	a.Choices = []Choice{{Of: []Alternative{{Outcome: 0}}}, {Of: []Alternative{{Outcome: 1}}}, {Of: []Alternative{{Outcome: 2}}}}
	return a
}

// steeredView serves example.test. with steered names, of which the map has the answers.
func steeredView(t testing.TB, names map[string]*Answers) *View {
	t.Helper()
	z := served(t, "example.test.", `@ 3600 SOA ns hostmaster 1 2 3 4 300
@ NS ns
ns A 10.0.0.1
alias CNAME www
www MX 10 ns
www HTTPS 1 . alpn=h2
static A 10.0.0.7
loop CNAME back
`)
	content := z.content
	for owner := range names {
		name := mustName(t, owner)
		sets := slices.Clone(content.Node(name).sets())
		next, err := content.With(NewNode(name, append(sets, NewRRset(TypeSteered, 0, []byte("x")))...))
		if err != nil {
			t.Fatal(err)
		}
		content = next
	}
	v := viewOf(again(t, content, 1))
	for owner, a := range names {
		if a != nil && !v.SetSteered(z.Apex(), mustName(t, owner), steeredTo(t, a)) {
			t.Fatalf("%s is not steered", owner)
		}
	}
	return v
}

// from asks v like question does, with the client's address, and ecs=PREFIX for a Client Subnet option.
func from(t testing.TB, v *View, s *Scratch, client, line string) *dns.Msg {
	t.Helper()
	var subnet string
	words := strings.Fields(line)
	for i, w := range words {
		if value, ok := strings.CutPrefix(w, "ecs="); ok {
			subnet = value
			words = slices.Delete(words, i, i+1)
			break
		}
	}
	message, over := question(t, strings.Join(words, " "))
	if subnet != "" {
		var m dns.Msg
		if err := m.Unpack(message); err != nil {
			t.Fatal(err)
		}
		p := netip.MustParsePrefix(subnet)
		o := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
		if p.Addr().Is6() {
			o.Family = 2
		}
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, o)
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		message = packed
	}
	reply := v.Answer(s, make([]byte, 0, MaxMessage), message, netip.MustParseAddr(client), over)
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("%s: the reply does not parse: %v", line, err)
	}
	return &m
}

// short writes a reply as its rcode, EDE, scope and the rdata of its answers.
func short(m *dns.Msg) string {
	var words []string
	words = append(words, dns.RcodeToString[m.Rcode])
	if m.Truncated {
		words = append(words, "tc")
	}
	if o := m.IsEdns0(); o != nil {
		for _, option := range o.Option {
			switch option := option.(type) {
			case *dns.EDNS0_EDE:
				words = append(words, fmt.Sprintf("ede=%d", option.InfoCode))
			case *dns.EDNS0_SUBNET:
				words = append(words, fmt.Sprintf("scope=%d", option.SourceScope))
			}
		}
	}
	for _, rr := range m.Answer {
		words = append(words, strings.ReplaceAll(strings.TrimPrefix(rr.String(), rr.Header().String()), "\t", " "))
	}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			words = append(words, fmt.Sprintf("soa=%d", soa.Hdr.Ttl))
		}
	}
	return strings.Join(words, " ")
}

func TestSteeredAnswers(t *testing.T) {
	a, b, c := address("10.1.9.9", "2001:db8:1::9"), address("10.2.9.9"), address("10.3.9.9")
	near := nearest(t, [3]Outcome{a, b, c})
	blocked := nearest(t, [3]Outcome{{Rcode: RcodeRefused, EDE: EDEBlocked}, b, c})
	web := answersOf(Outcome{Sets: append(address("10.1.9.9").Sets, Set{Type: TypeHTTPS, TTL: 60, RData: [][]byte{{0, 1, 0}}})})
	web.Types = append(web.Types, TypeHTTPS)
	srv := answersOf(Outcome{Sets: []Set{{Type: TypeSRV, TTL: 60, RData: [][]byte{append([]byte{0, 0, 0, 0, 31, 144}, mustName(t, "www.example.test.")...)}}}})
	srv.Types = []uint16{TypeSRV}
	many := make([]string, 80)
	for i := range many {
		many[i] = fmt.Sprintf("10.4.0.%d", i)
	}
	wide := answersOf(address(many...))
	v := steeredView(t, map[string]*Answers{
		"www.example.test.":           near,
		"example.test.":               near,
		"*.wild.example.test.":        near,
		"web.example.test.":           web,
		"blocked.example.test.":       blocked,
		"down.example.test.":          answersOf(Outcome{Rcode: RcodeServFail, EDE: EDENoReachableAuthority}),
		"none.example.test.":          answersOf(Outcome{}),
		"stale.example.test.":         answersOf(Outcome{EDE: EDEStaleAnswer, Sets: a.Sets}),
		"_sip._tcp.www.example.test.": srv,
		"in.example.test.":            answersOf(alias(t, "static.example.test.")),
		"out.example.test.":           answersOf(alias(t, "static.example.net.")),
		"back.example.test.":          answersOf(alias(t, "loop.example.test.")),
		"wide.example.test.":          wide,
		"soon.example.test.":          nil,
	})
	v.TrustSubnets(mustName(t, "example.test."), NewNetworks([]netip.Prefix{netip.MustParsePrefix("10.0.0.53/32")}))
	for _, tc := range []struct{ sentence, client, ask, want string }{
		{"a client near the first place gets its address", "10.1.0.1", "www.example.test. A", "NOERROR 10.1.9.9"},
		{"a client near the second gets another", "10.2.0.1", "www.example.test. A", "NOERROR 10.2.9.9"},
		{"a client in no network gets the third", "192.0.2.1", "www.example.test. A", "NOERROR 10.3.9.9"},
		{"a client with IPv6 is located too", "2001:db8:2::1", "www.example.test. A", "NOERROR 10.2.9.9"},
		{"the chosen place has an IPv6 address", "10.1.0.1", "www.example.test. AAAA", "NOERROR 2001:db8:1::9"},
		{"one without is no data, for as long as the record's TTL", "10.2.0.1", "www.example.test. AAAA", "NOERROR soa=60"},
		{"no data of a type beside has the zone's TTL", "10.2.0.1", "www.example.test. TXT", "NOERROR soa=300"},
		{"RRsets beside are answered", "10.2.0.1", "www.example.test. MX", "NOERROR 10 ns.example.test."},
		{"a static HTTPS stands beside if the name has none of its own", "10.2.0.1", "www.example.test. HTTPS", `NOERROR 1 . alpn="h2"`},
		{"ANY gets what stands beside", "10.2.0.1", "www.example.test. ANY", "NOERROR 10 ns.example.test."},
		{"ANY gets the steered RRset if nothing does", "10.2.0.1", "any.wild.example.test. ANY", "NOERROR 10.2.9.9"},
		{"an alias leads to a steered name", "10.2.0.1", "alias.example.test. A", "NOERROR www.example.test. 10.2.9.9"},
		{"no data behind an alias", "10.2.0.1", "alias.example.test. AAAA", "NOERROR www.example.test. soa=60"},
		{"the apex is steered", "10.1.0.1", "example.test. A", "NOERROR 10.1.9.9"},
		{"and keeps its NS", "10.1.0.1", "example.test. NS", "NOERROR ns.example.test."},
		{"a wildcard answers for names below it", "10.1.0.1", "a.b.wild.example.test. A", "NOERROR 10.1.9.9"},
		{"HTTPS comes from the same outcome", "10.1.0.1", "web.example.test. HTTPS", "NOERROR 1 ."},
		{"SRV below the host", "10.1.0.1", "_sip._tcp.www.example.test. SRV", "NOERROR 0 0 8080 www.example.test."},
		{"and nothing else there", "10.1.0.1", "_sip._tcp.www.example.test. A", "NOERROR soa=300"},
		{"a failure says why", "10.1.0.1", "down.example.test. A +edns=1232", "SERVFAIL ede=22"},
		{"but not for types that the name does not steer", "10.1.0.1", "down.example.test. TXT +edns=1232", "NOERROR soa=300"},
		{"no data at all", "10.1.0.1", "none.example.test. A", "NOERROR soa=60"},
		{"a stale answer says so", "10.1.0.1", "stale.example.test. A +edns=1232", "NOERROR ede=3 10.1.9.9"},
		{"who is blocked is refused", "10.1.0.1", "blocked.example.test. A +edns=1232", "REFUSED ede=15"},
		{"for all types", "10.1.0.1", "blocked.example.test. TXT +edns=1232", "REFUSED ede=15"},
		{"others are not", "10.2.0.1", "blocked.example.test. A +edns=1232", "NOERROR 10.2.9.9"},
		{"not ready yet", "10.2.0.1", "soon.example.test. A +edns=1232", "SERVFAIL ede=14"},
		{"a name as target is followed in the zone", "10.2.0.1", "in.example.test. A", "NOERROR static.example.test. 10.0.0.7"},
		{"not if the alias is asked for", "10.2.0.1", "in.example.test. CNAME", "NOERROR static.example.test."},
		{"not out of it", "10.2.0.1", "out.example.test. A", "NOERROR static.example.net."},
		{"an alias stands for all types", "10.2.0.1", "out.example.test. TXT", "NOERROR static.example.net."},
		{"a loop ends", "10.2.0.1", "loop.example.test. A", "NOERROR back.example.test. loop.example.test."},
		{"what does not fit is cut", "10.2.0.1", "wide.example.test. A +edns=1232", "NOERROR tc"},

		{"a trusted resolver's client is located", "10.0.0.53", "www.example.test. A ecs=10.2.3.0/24", "NOERROR scope=16 10.2.9.9"},
		{"an untrusted one's is not, and the option not repeated", "10.1.0.53", "www.example.test. A ecs=10.2.3.0/24", "NOERROR 10.1.9.9"},
		{"a client that hides gets what the resolver gets, with scope 0", "10.0.0.53", "www.example.test. A ecs=0.0.0.0/0", "NOERROR scope=0 10.3.9.9"},
		{"the scope of a client in no network leaves networks out", "10.0.0.53", "www.example.test. A ecs=10.3.0.0/16", "NOERROR scope=16 10.3.9.9"},
		{"and is as wide as can be", "10.0.0.53", "www.example.test. A ecs=192.0.2.0/24", "NOERROR scope=1 10.3.9.9"},
		{"a network beside the two", "10.0.0.53", "www.example.test. A ecs=10.0.1.0/24", "NOERROR scope=16 10.3.9.9"},
		{"IPv6 as well", "10.0.0.53", "www.example.test. A ecs=2001:db8:2:1::/64", "NOERROR scope=48 10.2.9.9"},
		{"no data has a scope", "10.0.0.53", "www.example.test. AAAA ecs=10.2.3.0/24", "NOERROR scope=16 soa=60"},
		{"a static type has none", "10.0.0.53", "www.example.test. MX ecs=10.2.3.0/24", "NOERROR scope=0 10 ns.example.test."},
		{"an answer that is the same everywhere has none", "10.0.0.53", "web.example.test. A ecs=10.2.3.0/24", "NOERROR scope=0 10.1.9.9"},
		{"an alias has the scope of what it leads to", "10.0.0.53", "alias.example.test. A ecs=10.2.3.0/24", "NOERROR scope=16 www.example.test. 10.2.9.9"},
	} {
		t.Run(tc.sentence, func(t *testing.T) {
			for _, general := range []bool{false, true} {
				m := from(t, v, &Scratch{general: general}, tc.client, tc.ask)
				if got := short(m); got != tc.want {
					t.Errorf("answered %s", got)
				}
				if aa := m.Rcode != dns.RcodeRefused; m.Authoritative != aa {
					t.Errorf("AA is %v", m.Authoritative)
				}
			}
		})
	}
}

func TestSteeredAnswersAreTheSameReadyOrNot(t *testing.T) {
	a := address("10.1.9.9", "10.1.9.10", "10.1.9.11", "2001:db8::1", "2001:db8::2")
	for i := range a.Sets {
		a.Sets[i].Pick, a.Sets[i].Max = PickRotate, 2
	}
	v := steeredView(t, map[string]*Answers{"www.example.test.": answersOf(a), "*.wild.example.test.": answersOf(a)})
	ready, plain := &Scratch{}, &Scratch{general: true}
	for range 7 {
		for _, line := range []string{"www.example.test. A", "wWw.example.test. AAAA +edns=1232", "x.wild.example.test. A", "www.example.test. AAAA +tcp"} {
			message, over := question(t, line)
			if one, two := ask(v, ready, message, over), ask(v, plain, message, over); !bytes.Equal(one, two) {
				t.Errorf("%s:\n%x\n%x", line, one, two)
			}
		}
	}
}

func TestRotationBeginsWithEachRecordInTurn(t *testing.T) {
	o := address("10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1", "2001:db8::2")
	o.Sets[0].Pick, o.Sets[1].Pick = PickRotate, PickRotate
	v, s := steeredView(t, map[string]*Answers{"www.example.test.": answersOf(o)}), &Scratch{}
	var first []string
	for range 6 {
		words := strings.Fields(short(from(t, v, s, "10.1.0.1", "www.example.test. A")))
		if len(words) != 4 {
			t.Fatalf("answered %v", words)
		}
		first = append(first, words[1])
		from(t, v, s, "10.1.0.1", "www.example.test. AAAA")
	}
	if !slices.Equal(first[:3], first[3:]) || len(slices.Compact(slices.Sorted(slices.Values(first)))) != 3 {
		t.Errorf("answers begin with %v", first)
	}
}

// TestTypesAndServersAgreeOnTheirPick asks two servers for all types of a name that is shared between pools.
func TestTypesAndServersAgreeOnTheirPick(t *testing.T) {
	for _, pick := range []Pick{PickTurn, PickWeighted, PickHash} {
		a := answersOf(Outcome{})
		a.Choices = []Choice{{Pick: pick}}
		a.Outcomes = nil
		for i := range 4 {
			a.Outcomes = append(a.Outcomes, address(fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprintf("2001:db8::%d", i+1)))
			a.Choices[0].Of = append(a.Choices[0].Of, Alternative{Outcome: i, Weight: 10, ID: uint64(i)})
		}
		one, two := steeredView(t, map[string]*Answers{"www.example.test.": a}), steeredView(t, map[string]*Answers{"www.example.test.": a})
		seen := map[string]bool{}
		for i := range 200 {
			client := fmt.Sprintf("10.%d.%d.1", i%7, i)
			now := int64(1700000000 + 13*i)
			four := short(from(t, one, &Scratch{Now: now}, client, "www.example.test. A"))
			sixes := short(from(t, two, &Scratch{Now: now}, client, "www.example.test. AAAA"))
			if four[len(four)-1] != sixes[len(sixes)-1] {
				t.Fatalf("pick %d: %s and %s", pick, four, sixes)
			}
			seen[four] = true
		}
		if len(seen) != 4 {
			t.Errorf("pick %d: only %v", pick, seen)
		}
	}
}

// picks counts for many clients and time slots which of the alternatives they get.
func picks(st *Steered, clients, slots int) map[uint32]int {
	counts := map[uint32]int{}
	for i := range clients {
		for j := range slots {
			k := asker{client: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), now: 1700000000 + int64(60*j)}
			counts[st.outcome(st.at(k.client), &k)]++
		}
	}
	return counts
}

func TestSharesConvergeToWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(0, 1000), 1, 16).Draw(t, "weights")
		sum := uint32(0)
		a := &Answers{
			Seed: rapid.Uint64().Draw(t, "seed"), TTL: 60, Slot: 60, Types: []uint16{TypeA}, Cells: []int{0}, Choices: []Choice{{Pick: PickWeighted}},
		}
		for i, w := range weights {
			sum += w
			a.Outcomes = append(a.Outcomes, Outcome{})
			a.Choices[0].Of = append(a.Choices[0].Of, Alternative{Outcome: i, Weight: w})
		}
		st, err := NewSteered(a)
		if sum == 0 {
			if err == nil {
				t.Fatal("nothing can be picked, and it is no error")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		const clients, slots = 200, 50
		counts := picks(st, clients, slots)
		for i, alternative := range a.Choices[0].Of {
			share := float64(alternative.Weight) / float64(sum)
			got := float64(counts[st.placeOf(i)]) / (clients * slots)
			if deviation := 5*math.Sqrt(share*(1-share)/(clients*slots)) + 1e-9; math.Abs(got-share) > deviation {
				t.Fatalf("alternative %d of %v has a share of %.4f, wanted %.4f", i, weights, got, share)
			}
		}
	})
}

// placeOf returns the place of the i-th alternative's outcome of the only choice.
func (st *Steered) placeOf(i int) uint32 {
	at := st.at(netip.Addr{})
	if st.data[at] == pickNone {
		return at
	}
	return le32(st.data, at+choiceHead+uint32(i)*alternativeSize) * unit
}

func TestTurnsGiveEachClientAllInTurn(t *testing.T) {
	a := &Answers{Seed: 99, TTL: 60, Slot: 60, Types: []uint16{TypeA}, Cells: []int{0}, Choices: []Choice{{Pick: PickTurn}}}
	for i := range 5 {
		a.Outcomes = append(a.Outcomes, Outcome{})
		a.Choices[0].Of = append(a.Choices[0].Of, Alternative{Outcome: i})
	}
	st := steeredTo(t, a)
	for client := range 50 {
		seen := map[uint32]int{}
		for slot := range 10 {
			k := asker{client: netip.AddrFrom4([4]byte{10, 0, byte(client), 1}), now: 1700000000 + int64(60*slot)}
			seen[st.outcome(st.at(k.client), &k)]++
		}
		for o, count := range seen {
			if count != 2 {
				t.Errorf("client %d got outcome at %d %d times of 10", client, o, count)
			}
		}
	}
}

// TestALossMovesOnlyItsOwnClients takes one of several away from rendezvous hashing.
func TestALossMovesOnlyItsOwnClients(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 16).Draw(t, "pools")
		lost := rapid.IntRange(0, n-1).Draw(t, "lost")
		seed := rapid.Uint64().Draw(t, "seed")
		build := func(without int) (*Steered, []uint64) {
			a := &Answers{Seed: seed, TTL: 60, Slot: 60, Types: []uint16{TypeA}, Cells: []int{0}, Choices: []Choice{{Pick: PickHash}}}
			var ids []uint64
			for i := range n {
				if i == without {
					continue
				}
				ids = append(ids, uint64(i)*0x9e3779b97f4a7c15)
				a.Outcomes = append(a.Outcomes, Outcome{})
				a.Choices[0].Of = append(a.Choices[0].Of, Alternative{Outcome: len(ids) - 1, ID: ids[len(ids)-1]})
			}
			st, err := NewSteered(a)
			if err != nil {
				t.Fatal(err)
			}
			return st, ids
		}
		before, ids := build(-1)
		after, left := build(lost)
		index := func(st *Steered, ids []uint64, client netip.Addr) uint64 {
			k := asker{client: client}
			place := st.outcome(st.at(k.client), &k)
			for i := range ids {
				if st.placeOf(i) == place {
					return ids[i]
				}
			}
			t.Fatal("no such outcome")
			return 0
		}
		own := 0
		const clients = 2000
		for i := range clients {
			client := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 77})
			was, is := index(before, ids, client), index(after, left, client)
			switch {
			case was == ids[lost]:
				own++
			case was != is:
				t.Fatalf("client %s moved from %x to %x, and %x was lost", client, was, is, ids[lost])
			}
			if other := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 3}); index(before, ids, other) != was {
				t.Fatalf("two clients of one /24 get different answers")
			}
		}
		if share := 1 / float64(n); math.Abs(float64(own)/clients-share) > 6*math.Sqrt(share*(1-share)/clients) {
			t.Fatalf("one of %d has a share of %.3f", n, float64(own)/clients)
		}
	})
}

func TestSteeredTellsWhatWasAnsweredWhen(t *testing.T) {
	near := nearest(t, [3]Outcome{address("10.1.9.9"), address("10.2.9.9"), address("10.3.9.9")})
	v := steeredView(t, map[string]*Answers{"www.example.test.": near})
	st := v.steeredOf(t, "www.example.test.")
	if st.Asked() != 0 {
		t.Errorf("asked at %d", st.Asked())
	}
	for i, client := range []string{"10.1.0.1", "10.2.0.1", "10.1.0.1"} {
		from(t, v, &Scratch{Now: int64(1700000000 + i)}, client, "www.example.test. A")
	}
	from(t, v, &Scratch{Now: 1700000009}, "10.1.0.1", "www.example.test. MX")
	if got := []int64{st.Handed(0), st.Handed(1), st.Handed(2), st.Asked()}; !slices.Equal(got, []int64{1700000002, 1700000001, 0, 1700000002}) {
		t.Errorf("answered at %v", got)
	}
}

func (v *View) steeredOf(t testing.TB, owner string) *Steered {
	t.Helper()
	z := v.Zone(mustName(t, "example.test."))
	return z.index.slots[z.index.find([]byte(mustName(t, owner))).slot()].answers.Load()
}

func TestNewSteeredRefusesWhatDoesNotFit(t *testing.T) {
	l, err := NewLocator(2, nil, Longest)
	if err != nil {
		t.Fatal(err)
	}
	for sentence, change := range map[string]func(a *Answers){
		"no types":                           func(a *Answers) { a.Types = nil },
		"a type that is not steered":         func(a *Answers) { a.Types = []uint16{TypeMX} },
		"no time slot":                       func(a *Answers) { a.Slot = 0 },
		"no cell":                            func(a *Answers) { a.Cells = nil },
		"a cell for a choice that is none":   func(a *Answers) { a.Cells[0] = 1 },
		"a choice of nothing":                func(a *Answers) { a.Choices[0].Of = nil },
		"an outcome that is none":            func(a *Answers) { a.Choices[0].Of[0].Outcome = 1 },
		"fewer cells than locations":         func(a *Answers) { a.By = dimensions(t, Dimension{Where: l, Count: 2}) },
		"an RRset without records":           func(a *Answers) { a.Outcomes[0].Sets[0].RData = nil },
		"weights of other records":           func(a *Answers) { a.Outcomes[0].Sets[0].Pick = PickWeighted },
		"weights that are all 0":             func(a *Answers) { s := &a.Outcomes[0].Sets[0]; s.Pick, s.Weights = PickWeighted, []uint32{0} },
		"identities of other records":        func(a *Answers) { a.Outcomes[0].Sets[0].Pick = PickHash },
		"an alias beside other data":         func(a *Answers) { a.Outcomes[0].Sets[0].Type = TypeCNAME },
		"more records than a message":        func(a *Answers) { a.Outcomes[0].Sets[0].RData = slices.Repeat([][]byte{make([]byte, 1000)}, 70) },
		"a TTL that is too long":             func(a *Answers) { a.TTL = 1 << 31 },
		"a TTL of an RRset that is too long": func(a *Answers) { a.Outcomes[0].Sets[0].TTL = 1 << 31 },
	} {
		a := answersOf(address("10.0.0.1", "2001:db8::1"))
		change(a)
		if _, err := NewSteered(a); err == nil {
			t.Errorf("%s: no error", sentence)
		}
	}
}

func TestNewDimensionsRefusesWhatDoesNotFit(t *testing.T) {
	l, err := NewLocator(2, nil, Longest)
	if err != nil {
		t.Fatal(err)
	}
	for sentence, all := range map[string][]Dimension{
		"none":                        nil,
		"more than three":             slices.Repeat([]Dimension{{Where: l, Count: 2}}, 4),
		"other locations":             {{Where: l, Count: 3}},
		"classes for other locations": {{Where: l, Classes: []uint16{0}, Count: 1}},
		"a class that is none":        {{Where: l, Classes: []uint16{0, 1}, Count: 1}},
	} {
		if _, err := NewDimensions(all...); err == nil {
			t.Errorf("%s: no error", sentence)
		}
	}
}

func TestSteeredAnswersDoNotAllocate(t *testing.T) {
	o := address("10.0.0.1", "10.0.0.2", "2001:db8::1")
	o.Sets[0].Pick = PickRotate
	near := nearest(t, [3]Outcome{o, address("10.2.9.9"), alias(t, "static.example.test.")})
	near.Choices[2] = Choice{Pick: PickWeighted, Of: []Alternative{{Outcome: 2, Weight: 3}, {Outcome: 1, Weight: 4}}}
	v := steeredView(t, map[string]*Answers{"www.example.test.": near})
	s, dst := &Scratch{Now: 1700000000}, make([]byte, MaxUDP)
	for _, line := range []string{"www.example.test. A", "www.example.test. AAAA +edns=1232", "alias.example.test. A", "www.example.test. MX"} {
		for _, client := range []string{"10.1.0.1", "10.2.0.1", "192.0.2.1", "2001:db8:1::1"} {
			message, _ := question(t, line)
			address := netip.MustParseAddr(client)
			if allocs := testing.AllocsPerRun(20, func() { v.Answer(s, dst, message, address, UDP) }); allocs != 0 {
				t.Errorf("%s from %s: %v allocations", line, client, allocs)
			}
		}
	}
}

// TestLookingAheadChangesNoSteeredAnswer asks with and without looking ahead, where what was looked at is right, and
// where it is not: of another client, of another time, of answers that have been replaced.
func TestLookingAheadChangesNoSteeredAnswer(t *testing.T) {
	near := nearest(t, [3]Outcome{address("10.1.9.9", "2001:db8:1::9"), address("10.2.9.9"), address("10.3.9.9")})
	drawn := answersOf(Outcome{})
	drawn.Outcomes, drawn.Choices = nil, []Choice{{Pick: PickWeighted}}
	for i := range 8 {
		drawn.Outcomes = append(drawn.Outcomes, address(fmt.Sprintf("10.0.0.%d", i)))
		drawn.Choices[0].Of = append(drawn.Choices[0].Of, Alternative{Outcome: i, Weight: 1})
	}
	v := steeredView(t, map[string]*Answers{"www.example.test.": near, "web.example.test.": drawn, "*.wild.example.test.": near, "soon.example.test.": nil})
	var messages [][]byte
	for _, line := range []string{"www.example.test. A", "web.example.test. A", "alias.example.test. A", "a.wild.example.test. A", "soon.example.test. A", "www.example.test. MX", "web.example.test. AAAA"} {
		message, _ := question(t, line)
		messages = append(messages, message)
	}
	clients := []string{"10.1.0.1", "10.2.0.1", "192.0.2.1", "2001:db8:2::1"}
	a := &Ahead{}
	for round := range 40 {
		at := netip.MustParseAddr(clients[round%len(clients)])
		a.Client, a.Now = func(int) netip.Addr { return at }, int64(1700000000+60*round)
		v.Ahead(a, messages)
		client, now := at, a.Now
		switch round % 5 {
		case 1:
			client = netip.MustParseAddr(clients[(round+1)%len(clients)])
		case 2:
			now += 600
		case 3:
			near.Outcomes[0], near.Outcomes[1] = near.Outcomes[1], near.Outcomes[0]
			v.SetSteered(mustName(t, "example.test."), mustName(t, "www.example.test."), steeredTo(t, near))
		case 4:
			a.Client = nil
		}
		one, two := &Scratch{Now: now}, &Scratch{Now: now}
		for i, message := range messages {
			got := v.AnswerAhead(one, a, i, make([]byte, MaxUDP), message, client, UDP)
			if want := v.Answer(two, make([]byte, MaxUDP), message, client, UDP); !bytes.Equal(got, want) {
				t.Fatalf("round %d, message %d: answered ahead\n%x\nand else\n%x", round, i, got, want)
			}
		}
	}
}

// TestAnswersChangeWhileTheyAreGiven replaces answers, and versions of the zone, while others ask: everybody gets one
// or the other, whole.
func TestAnswersChangeWhileTheyAreGiven(t *testing.T) {
	one, two := steeredTo(t, answersOf(address("10.0.0.1", "10.0.0.2"))), steeredTo(t, answersOf(address("10.0.1.1", "10.0.1.2", "10.0.1.3")))
	v := steeredView(t, map[string]*Answers{"www.example.test.": answersOf(address("10.0.0.1", "10.0.0.2"))})
	apex, owner := mustName(t, "example.test."), mustName(t, "www.example.test.")
	message, _ := question(t, "www.example.test. A")
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() {
			s, a, dst := &Scratch{Now: 1700000000}, &Ahead{Client: func(int) netip.Addr { return client }}, make([]byte, MaxUDP)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				v.Ahead(a, [][]byte{message, message})
				for j := range 2 {
					var m dns.Msg
					if err := m.Unpack(v.AnswerAhead(s, a, j, dst, message, client, UDP)); err != nil || len(m.Answer) != 2 && len(m.Answer) != 3 {
						t.Errorf("answered %v: %v", m.Answer, err)
						return
					}
				}
			}
		})
	}
	for i := 0; i < 2000 || one.Asked() == 0 && two.Asked() == 0; i++ {
		v.SetSteered(apex, owner, one)
		v.SetSteered(apex, owner, two)
		if i%100 == 0 {
			z := v.Zone(apex)
			next, err := z.content.With(NewNode(mustName(t, "other.example.test."), a(byte(i/100))))
			if err != nil {
				t.Fatal(err)
			}
			v.Update([]*Served{again(t, next, uint32(i+2))}, nil)
		}
	}
	close(stop)
	asking.Wait()
	if one.Asked() == 0 && two.Asked() == 0 {
		t.Error("nobody asked")
	}
}
