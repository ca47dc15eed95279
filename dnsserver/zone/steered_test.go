package zone

import (
	"strings"
	"testing"
)

// withSteered is a zone with steered names: www with MX, and the wildcard *.wild.
func withSteered(t testing.TB) *Served {
	t.Helper()
	z := served(t, "example.test.", "@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\nalias CNAME www\nwww MX 10 ns\n")
	private := func(typ uint16) RRset { return NewRRset(typ, 0, []byte("settings")) }
	apex, www, wild := z.Apex(), mustName(t, "www.example.test."), mustName(t, "*.wild.example.test.")
	content, err := z.content.With(
		NewNode(apex, append(z.apex.RRsets, private(TypeZoneSettings))...),
		NewNode(www, append(z.content.Node(www).RRsets, private(TypeSteered))...),
		NewNode(wild, private(TypeSteered)))
	if err != nil {
		t.Fatal(err)
	}
	return again(t, content, 1)
}

// again is content under a serial.
func again(t testing.TB, content *Content, serial uint32) *Served {
	t.Helper()
	z, err := NewServed(content, Version{Serial: serial, Digest: content.Digest()})
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestSteeredNamesWithoutAnswersFail(t *testing.T) {
	v := viewOf(withSteered(t))
	for line, want := range map[string]string{
		"www.example.test. A +edns=1232":         "SERVFAIL aa edns=1232 ede=14",
		"WWW.example.test. SRV +edns=1232":       "SERVFAIL aa edns=1232 ede=14",
		"www.example.test. TXT":                  "SERVFAIL aa",
		"www.example.test. TYPE65400":            "SERVFAIL aa",
		"alias.example.test. AAAA":               "SERVFAIL aa",
		"any.thing.wild.example.test. A":         "SERVFAIL aa",
		"www.example.test. MX":                   "NOERROR aa",
		"www.example.test. ANY":                  "NOERROR aa",
		"wild.example.test. A":                   "NOERROR aa",
		"nope.www.example.test. A":               "NXDOMAIN aa",
		"example.test. TYPE65401":                "NOERROR aa",
		"example.test. ANY +edns=1232 class=ANY": "NOERROR edns=1232",
	} {
		message, over := question(t, line)
		got := present(t, ask(v, &Scratch{}, message, over))
		if first, _, _ := strings.Cut(got, "\n"); first != want {
			t.Errorf("%s is answered\n%s", line, got)
		}
		if strings.Contains(got, "TYPE654") {
			t.Errorf("%s tells what is for servers alone:\n%s", line, got)
		}
	}
}

// TestSteeredNamesKeepTheirSlots follows names through versions of a zone.
func TestSteeredNamesKeepTheirSlots(t *testing.T) {
	z := withSteered(t)
	apex, www := z.Apex(), mustName(t, "www.example.test.")
	v, ready := viewOf(z), steeredTo(t, answersOf(address("10.9.9.9")))
	expect := func(sentence, want string) {
		t.Helper()
		message, over := question(t, "www.example.test. A")
		if got := summary(t, ask(v, &Scratch{}, message, over)); got != want {
			t.Errorf("%s: answered %s, wanted %s", sentence, got, want)
		}
	}
	expect("nothing is set", "SERVFAIL aa 1/0/0/0")
	for _, name := range []Name{apex, mustName(t, "ns.example.test."), mustName(t, "nope.example.test.")} {
		if v.SetSteered(apex, name, ready) {
			t.Errorf("%s takes answers", name)
		}
	}
	if v.SetSteered(www, www, ready) {
		t.Error("a zone that is not served takes answers")
	}
	if !v.SetSteered(apex, www, ready) {
		t.Error("the name takes no answers")
	}
	const answered = "NOERROR aa 1/1/0/0"
	expect("answers are set", answered)

	other, err := z.content.With(NewNode(mustName(t, "other.example.test."), a(9)), NewNode(www, z.content.Node(www).RRset(TypeSteered)))
	if err != nil {
		t.Fatal(err)
	}
	v.Update([]*Served{again(t, other, 2)}, nil)
	expect("the zone changes", answered)
	v.Update([]*Served{withSteered(t)}, nil)
	expect("the zone is loaded again", answered)

	gone, err := v.Zone(apex).content.With(NewNode(www, a(3)))
	if err != nil {
		t.Fatal(err)
	}
	v.Update([]*Served{again(t, gone, 3)}, nil)
	expect("the name has an address instead", "NOERROR aa 1/1/0/0")
	if v.SetSteered(apex, www, ready) {
		t.Error("a name that is not steered takes answers")
	}
	v.Update([]*Served{withSteered(t)}, nil)
	expect("the name is steered again", "SERVFAIL aa 1/0/0/0")
}

func TestPrivateTypesAreRefused(t *testing.T) {
	for _, line := range []string{`www TYPE65400 \# 1 00`, `@ TYPE65401 \# 1 00`} {
		_, _, faults := Load(mustName(t, "example.test."), "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns.example.org.\n"+line+"\n")
		if len(faults) != 1 || faults[0].Warning || faults[0].Line != 4 || faults[0].Reason() != "UnknownType" {
			t.Errorf("%s: %v", line, faults)
		}
	}
	for _, typ := range []uint16{TypeSteered, TypeZoneSettings} {
		if _, err := ParseRData(typ, `\# 1 00`, Root); err == nil {
			t.Errorf("%s is read", TypeString(typ))
		}
		if _, err := CheckRData(typ, []byte("x")); err == nil {
			t.Errorf("%s is accepted", TypeString(typ))
		}
	}
}
