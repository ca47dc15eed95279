package zone

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/miekg/dns"
)

// askState asks for a name with OptionState and what is given in it; "-" if it does not come back.
func askState(t testing.TB, v *View, name string, qtype uint16, in string, over Transport) string {
	t.Helper()
	p := packet{0, [4]uint16{1, 0, 0, 1}, []byte(string(rawQuestion(string(mustName(t, name)), qtype, classIN)) + opt(ednsOption(OptionState, in)))}
	s, a := &Scratch{Now: 1559731985}, &Ahead{Now: 1559731985}
	reply := ask(v, s, p.bytes(), over)
	v.Ahead(a, [][]byte{p.bytes()})
	if prepared := v.AnswerAhead(s, a, 0, make([]byte, MaxMessage), p.bytes(), client, over); !bytes.Equal(reply, prepared) {
		t.Errorf("prepared, the answer is %x, else %x", prepared, reply)
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("%v: %x", err, reply)
	}
	said := dns.RcodeToString[m.Rcode]
	if m.Truncated {
		said += " truncated"
	}
	for _, o := range m.IsEdns0().Option {
		if l, is := o.(*dns.EDNS0_LOCAL); is && l.Code == OptionState {
			serial, state, ok := ParseState(l.Data)
			if !ok {
				t.Errorf("the option has %x", l.Data)
			}
			return fmt.Sprintf("%s %d/%d", said, serial, state)
		}
	}
	return said + " -"
}

func TestStateIsToldToWhoAsks(t *testing.T) {
	text := "@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\nalias CNAME www\nfar CNAME aliased\nstatic A 10.0.0.7\nsub NS ns.sub\nns.sub A 10.0.0.2\nto-sub CNAME x.sub\n*.wild A 10.0.0.9\n"
	for i := range 200 {
		text += fmt.Sprintf("large A 10.1.0.%d\n", i)
	}
	content := served(t, "example.test.", text).content
	steered := map[string]*Answers{
		"www":     answersOf(address("10.9.9.9")),
		"aliased": answersOf(alias(t, "www.example.test.")),
		"down":    answersOf(Outcome{Rcode: RcodeServFail, EDE: EDENoReachableAuthority}),
		"blocked": answersOf(Outcome{Rcode: RcodeRefused, EDE: EDEBlocked}),
		"*.geo":   answersOf(address("10.9.9.8")),
		"unready": nil,
	}
	owner := func(label string) Name { return mustName(t, label+".example.test.") }
	for label := range steered {
		var err error
		if content, err = content.With(NewNode(owner(label), NewRRset(TypeSteered, 0, []byte("x")), NewRRset(TypeMX, 60, []byte("\x00\x0a\x00")))); err != nil {
			t.Fatal(err)
		}
	}
	v := viewOf(again(t, content, 4294967295))
	states := map[string]uint64{"www": 1<<64 - 1, "aliased": 7, "down": 8, "blocked": 9, "*.geo": 10}
	for label, a := range steered {
		if a == nil {
			continue
		}
		a.State = states[label]
		if !v.SetSteered(mustName(t, "example.test."), owner(label), steeredTo(t, a)) {
			t.Fatalf("%s is not steered", label)
		}
	}
	for sentence, tc := range map[string]struct {
		name  string
		qtype uint16
		in    string
		want  string
	}{
		"a steered name has a state":                        {"www.example.test.", TypeA, "", "NOERROR 4294967295/18446744073709551615"},
		"also without data":                                 {"www.example.test.", TypeAAAA, "", "NOERROR 4294967295/18446744073709551615"},
		"also for types that are not steered":               {"www.example.test.", TypeMX, "", "NOERROR 4294967295/18446744073709551615"},
		"an alias has that of its target":                   {"alias.example.test.", TypeA, "", "NOERROR 4294967295/18446744073709551615"},
		"of two steered names in a chain it is the first's": {"aliased.example.test.", TypeA, "", "NOERROR 4294967295/7"},
		"an alias to such a chain has it too":               {"far.example.test.", TypeA, "", "NOERROR 4294967295/7"},
		"a wildcard's is that of all names below it":        {"any.geo.example.test.", TypeA, "", "NOERROR 4294967295/10"},
		"a name that fails on purpose has one":              {"down.example.test.", TypeA, "", "SERVFAIL 4294967295/8"},
		"a name that is not steered has 0":                  {"static.example.test.", TypeA, "", "NOERROR 4294967295/0"},
		"the apex too":                                      {"example.test.", TypeSOA, "", "NOERROR 4294967295/0"},
		"no data is an answer":                              {"static.example.test.", TypeMX, "", "NOERROR 4294967295/0"},
		"no name is an answer":                              {"nope.example.test.", TypeA, "", "NXDOMAIN 4294967295/0"},
		"what a wildcard makes is an answer":                {"x.wild.example.test.", TypeA, "", "NOERROR 4294967295/0"},
		"an alias into a delegation is an answer":           {"to-sub.example.test.", TypeA, "", "NOERROR 4294967295/0"},
		"a truncated reply tells":                           {"large.example.test.", TypeA, "", "NOERROR truncated 4294967295/0"},
		"a referral does not":                               {"x.sub.example.test.", TypeA, "", "NOERROR -"},
		"a refusal does not":                                {"example.org.", TypeA, "", "REFUSED -"},
		"nor one by steering":                               {"blocked.example.test.", TypeA, "", "REFUSED -"},
		"a steered name that is not decided yet has none":   {"unready.example.test.", TypeA, "", "SERVFAIL -"},
		"nor for types that are not steered":                {"unready.example.test.", TypeMX, "", "NOERROR -"},
		"an option with something in it is not a question":  {"www.example.test.", TypeA, "x", "NOERROR -"},
		"nor is one with what an answer has in it":          {"www.example.test.", TypeA, "123456789012", "NOERROR -"},
	} {
		t.Run(sentence, func(t *testing.T) {
			for _, over := range []Transport{UDP, TCP, TLS} {
				want := tc.want
				if over != UDP && sentence == "a truncated reply tells" {
					want = "NOERROR 4294967295/0"
				}
				if got := askState(t, v, tc.name, tc.qtype, tc.in, over); got != want {
					t.Errorf("answered %s, wanted %s", got, want)
				}
			}
		})
	}
}

func TestStateIsAskedForWithoutAllocation(t *testing.T) {
	v := viewOf(served(t, "example.test.", "@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nwww A 10.0.0.1\n"))
	q := packet{0, [4]uint16{1, 0, 0, 1}, []byte(string(rawQuestion(wireWWW, TypeA, classIN)) + opt(ednsOption(OptionState, "")))}.bytes()
	s, dst := &Scratch{}, make([]byte, MaxUDP)
	if allocs := testing.AllocsPerRun(10, func() { v.Answer(s, dst, q, client, UDP) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestRepliesWithStateKeepToTheirSize fills a reply up to each size around the limit.
func TestRepliesWithStateKeepToTheirSize(t *testing.T) {
	v := viewOf()
	for octets := 1100; octets < 1240; octets++ {
		z := served(t, "example.test.", "@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\n")
		var rdata []byte
		for left := octets; left > 0; left -= 256 {
			part := bytes.Repeat([]byte{'x'}, min(left, 256)-1)
			rdata = append(append(rdata, byte(len(part))), part...)
		}
		content, err := z.content.With(NewNode(mustName(t, "www.example.test."), NewRRset(TypeTXT, 60, rdata)))
		if err != nil {
			t.Fatal(err)
		}
		v.Update([]*Served{again(t, content, 5)}, nil)
		q := packet{0, [4]uint16{1, 0, 0, 1}, []byte(string(rawQuestion(wireWWW, TypeTXT, classIN)) + opt(ednsOption(OptionState, "")))}.bytes()
		reply := ask(v, &Scratch{}, q, UDP)
		whole := headerSize + len(wireWWW) + 4 + plainHead + len(rdata) + optSize + optionHead + stateSize
		switch truncated := reply[2]&flagTC != 0; {
		case truncated != (whole > MaxUDP):
			t.Errorf("%d octets: truncated is %t", whole, truncated)
		case !truncated && len(reply) != whole:
			t.Errorf("%d octets, wanted %d", len(reply), whole)
		}
	}
}
