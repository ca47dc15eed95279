package zone

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"
)

const outcomeZone = `@ SOA ns hostmaster 1 2 3 4 5
@ NS ns
ns A 10.0.0.1
www A 10.0.0.1
www TXT "x"
other A 10.0.0.1
alias CNAME www
lost CNAME nowhere
*.wild A 10.0.0.1
*.wilder CNAME www
tree DNAME other
sub NS ns.sub
ns.sub A 10.0.0.2
`

// TestWhatRepliesAreAbout has pairs of questions. Response rate limits count their replies together
// if they cost the same account.
func TestWhatRepliesAreAbout(t *testing.T) {
	v := viewOf(served(t, "example.test.", outcomeZone), served(t, "other.test.", outcomeZone))
	type account struct {
		class   Class
		subject uint64
	}
	of := func(line string) account {
		s := &Scratch{}
		message, over := question(t, line)
		ask(v, s, message, over)
		return account{s.Class(), s.Subject()}
	}
	for sentence, tc := range map[string]struct {
		one, other string
		class      Class // of the first
		same       bool
	}{
		"the same question":                          {"www.example.test. A", "www.example.test. A", ClassAnswer, true},
		"case makes no difference":                   {"www.example.test. A", "wWw.EXAMPLE.test. A", ClassAnswer, true},
		"EDNS makes no difference":                   {"www.example.test. A", "www.example.test. A +edns=1232", ClassAnswer, true},
		"another name":                               {"www.example.test. A", "other.example.test. A", ClassAnswer, false},
		"another type":                               {"www.example.test. A", "www.example.test. TXT", ClassAnswer, false},
		"another zone":                               {"www.example.test. A", "www.other.test. A", ClassAnswer, false},
		"an alias is not its target":                 {"alias.example.test. A", "www.example.test. A", ClassAnswer, false},
		"a name without data, whatever the type":     {"www.example.test. AAAA", "www.example.test. MX", ClassNoData, true},
		"names without data are apart":               {"www.example.test. AAAA", "other.example.test. AAAA", ClassNoData, false},
		"names without data are not those with":      {"www.example.test. AAAA", "www.example.test. A", ClassNoData, false},
		"names that do not exist in one zone":        {"a.example.test. A", "b.c.example.test. MX", ClassNXDomain, true},
		"names that do not exist in two zones":       {"a.example.test. A", "a.other.test. A", ClassNXDomain, false},
		"an alias whose target does not exist":       {"lost.example.test. A", "a.example.test. A", ClassNXDomain, true},
		"names that a wildcard makes":                {"a.wild.example.test. A", "b.c.wild.example.test. A", ClassAnswer, true},
		"without data too":                           {"a.wild.example.test. TXT", "b.wild.example.test. MX", ClassNoData, true},
		"aliases that a wildcard makes":              {"a.wilder.example.test. A", "b.wilder.example.test. A", ClassAnswer, true},
		"what two wildcards make":                    {"a.wild.example.test. A", "a.wilder.example.test. A", ClassAnswer, false},
		"names below a DNAME that do not exist":      {"a.tree.example.test. A", "b.tree.example.test. A", ClassNXDomain, true},
		"a DNAME itself":                             {"a.tree.example.test. CNAME", "b.tree.example.test. CNAME", ClassAnswer, true},
		"names below one cut":                        {"a.sub.example.test. A", "sub.example.test. MX", ClassReferral, true},
		"names below two cuts":                       {"a.sub.example.test. A", "a.sub.other.test. A", ClassReferral, false},
		"errors of all kinds":                        {"elsewhere. A", "www.example.test. AXFR", ClassError, true},
		"an error is no answer":                      {"elsewhere. A", "www.example.test. A", ClassError, false},
		"names without data are not missing ones":    {"www.example.test. AAAA", "a.example.test. AAAA", ClassNoData, false},
		"an empty non-terminal is without data":      {"wild.example.test. A", "wild.example.test. TXT", ClassNoData, true},
		"a DS that is not there is without data too": {"sub.example.test. DS", "sub.example.test. DS", ClassNoData, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			one, other := of(tc.one), of(tc.other)
			if one.class != tc.class || (one == other) != tc.same {
				t.Errorf("%s is about %v, %s about %v", tc.one, one, tc.other, other)
			}
		})
	}
}

// TestRepliesCutShort cuts every reply of the archives, for who asks too much.
func TestRepliesCutShort(t *testing.T) {
	zones, questions := archives(t)
	v := viewOf(zones...)
	s := &Scratch{Config: &Config{Cookies: [][16]byte{{1}}}, Now: 1e9}
	for _, q := range questions {
		var asked dns.Msg
		if err := asked.Unpack(q); err != nil {
			t.Fatal(err)
		}
		with := []byte(nil)
		if asked.IsEdns0() != nil {
			asked.IsEdns0().Option = append(asked.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"})
			var err error
			if with, err = asked.Pack(); err != nil {
				t.Fatal(err)
			}
		}
		check := func(reply []byte, what string, rcode int, tc bool) {
			t.Helper()
			var m dns.Msg
			if err := m.Unpack(reply); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			got := m.Rcode
			if o := m.IsEdns0(); o != nil {
				got |= o.ExtendedRcode() &^ 0xf
			}
			if len(m.Answer)+len(m.Ns) > 0 || len(m.Question) != 1 || m.Question[0] != asked.Question[0] || m.Truncated != tc ||
				got != rcode || m.Id != asked.Id || !m.Response || (m.IsEdns0() == nil) != (asked.IsEdns0() == nil) || len(m.Extra) > 1 {
				t.Fatalf("%s of\n%v\nis\n%v", what, &asked, &m)
			}
		}
		for _, over := range []Transport{UDP, TCP} {
			ask(v, s, q, over)
			if s.query.tsig > 0 || s.query.opcode != 0 {
				continue
			}
			rcode := int(s.Rcode())
			check(s.Truncate(), "the truncated reply", rcode, true)
			if with == nil {
				continue
			}
			whole := append([]byte(nil), ask(v, s, with, over)...)
			if s.Cookie() != ClientCookie {
				t.Fatalf("the cookie is %d", s.Cookie())
			}
			refusal := s.RefuseCookie()
			check(refusal, "BADCOOKIE", dns.RcodeBadCookie, false)
			if s.Rcode() != RcodeBadCookie || refusal[2]&flagAA != 0 {
				t.Errorf("rcode %d, flags %x", s.Rcode(), refusal[2])
			}
			if len(refusal) > len(with)+serverCookieSize {
				t.Errorf("%d octets for a query of %d: that is what attackers like", len(refusal), len(with))
			}
			var m, before dns.Msg
			if m.Unpack(refusal) != nil || before.Unpack(whole) != nil || fmt.Sprint(m.IsEdns0().Option) != fmt.Sprint(before.IsEdns0().Option) {
				t.Errorf("options are %v, were %v", m.IsEdns0().Option, before.IsEdns0().Option)
			}
		}
	}
}

func TestQuarantine(t *testing.T) {
	v := viewOf(served(t, "example.test.", outcomeZone))
	k := &Quarantine{}
	s := &Scratch{Quarantine: k, Now: 1000}
	rcode := func(line string) string {
		message, over := question(t, line)
		return summary(t, ask(v, s, message, over))
	}
	const www, answered = "www.example.test. A +edns=1232", "NOERROR aa edns=1232 1/1/0/1"
	if got := rcode(www); got != answered {
		t.Fatal(got)
	}
	bad := s.Question(nil)
	if !k.Add(bad, s.Now, 1300) || k.Add(bad, s.Now, 1300) {
		t.Error("the question is not new once")
	}
	for line, want := range map[string]string{
		www:                                "REFUSED edns=1232 ede=0 1/0/0/1",
		"WWW.example.test. A +edns=4096":   "REFUSED edns=1232 ede=0 1/0/0/1",
		"www.example.test. A":              "NOERROR aa 1/1/0/0",
		"www.example.test. TXT +edns=1232": answered,
		"other.example.test. A +edns=1232": answered,
		"www.example.test. A +do":          "NOERROR aa edns=1232 do 1/1/0/1",
	} {
		if got := rcode(line); got != want || s.Quarantined() != (want[0] == 'R') {
			t.Errorf("%s is answered %s, wanted %s", line, got, want)
		}
	}
	if s.Now = 1299; k.Len(s.Now) != 1 || rcode(www) == answered {
		t.Error("it is over too early")
	}
	if s.Now = 1300; k.Len(s.Now) != 0 || rcode(www) != answered {
		t.Error("it is not over")
	}
	// A message that does not even parse is known as it is.
	message, _ := question(t, www)
	s.parsed = false
	k.Add(s.Question(message), s.Now, 1600)
	message[0]++
	if reply := ask(v, s, message, UDP); reply != nil || !s.Quarantined() {
		t.Errorf("it is answered %x", reply)
	}
	if got := rcode("other.example.test. A"); got != "NOERROR aa 1/1/0/0" {
		t.Errorf("another is answered %s", got)
	}
	for i := range uint64(10 * QuarantineSize) {
		k.Add(i, s.Now, 2000)
	}
	if k.Len(s.Now) != QuarantineSize || !k.Holds(10*QuarantineSize-1, s.Now) || k.Holds(9*QuarantineSize-1, s.Now) {
		t.Errorf("%d questions are kept", k.Len(s.Now))
	}
	if (*Quarantine)(nil).Holds(1, 1) || (&Quarantine{}).Holds(0, 0) {
		t.Error("nothing holds something")
	}
}
