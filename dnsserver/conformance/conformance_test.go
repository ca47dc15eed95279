package conformance

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/conformance/worlds"
)

var (
	seed      = flag.Uint64("seed", 1, "of the first world's zones and questions")
	seeds     = flag.Uint64("seeds", 1, "how many worlds, each of the next seed")
	questions = flag.Int("questions", 2000, "how many are asked about each world, and about the root zone")
)

// TestAgreesWithPeers asks all servers the same about the same zones. What two of the three
// peers agree on is what ours has to answer, but for the differences that normal takes out.
// Where all three differ (endless chains, chains into another zone served here), rcode and
// flags are those of one of them.
func TestAgreesWithPeers(t *testing.T) {
	var total tally
	for n := range *seeds {
		seed := *seed + n
		t.Run(fmt.Sprintf("generated zones of seed %d", seed), func(t *testing.T) {
			var zones []zoneText
			var names []string
			for i, apex := range []string{"alpha.test.", "beta.test.", "deep.in.alpha.test.", "c.alpha.test.", "a.b.beta.test.", "x.test.", "1.168.192.in-addr.arpa."} {
				text, n := worlds.Zone(seed*100+uint64(i), apex)
				zones = append(zones, zoneText{apex, text})
				names = append(names, n...)
			}
			names = append(names, "test.", "nowhere.invalid.", ".")
			total.add(compare(t, seed, zones, names))
		})
	}
	t.Run("the root zone", func(t *testing.T) {
		z, names := rootZone(t)
		total.add(compare(t, *seed, []zoneText{z}, names))
	})
	t.Logf("%d worlds: %v", *seeds+1, &total)
}

// tally counts questions by how the answers compare.
type tally struct {
	agreed    int
	undecided int // the peers have no common answer, and ours is in the range of theirs
	differs   int // each is an error of the test
}

func (a *tally) add(b tally) {
	a.agreed += b.agreed
	a.undecided += b.undecided
	a.differs += b.differs
}

func (a *tally) String() string {
	return fmt.Sprintf("%d questions: ours agrees on %d and differs on %d; the peers have no common answer to %d",
		a.agreed+a.undecided+a.differs, a.agreed, a.differs, a.undecided)
}

// compare asks all servers about zones that it has them serve, questions about these names.
func compare(t *testing.T, seed uint64, zones []zoneText, names []string) (count tally) {
	t.Helper()
	all := []*server{startPeer(t, "NSD", zones), startPeer(t, "Knot", zones), startPeer(t, "BIND", zones), startOurs(t, zones)}
	r := rand.New(rand.NewPCG(seed, 2))
	defer func() { t.Log(&count) }()
	const enough = 20 // errors that are shown
	for range *questions {
		m, tcp := worlds.Question(r, names)
		message, err := m.Pack()
		if err != nil {
			t.Fatalf("%v: %v", m.Question[0], err)
		}
		c := askAll(t, all, m, message, tcp)
		if !c.agrees && !tcp {
			// Sizes differ with how names are compressed, and so does what of a referral's
			// additional data is left out first. What is complete, or had to be cut, is as right
			// as the whole answer.
			whole := askAll(t, all, m, message, true)
			if c.answers[ours] == whole.answers[ours] || len(whole.replies[ours]) > limit(m) {
				c = whole
			}
		}
		switch {
		case c.agrees:
			count.agreed++
			continue
		case leaves(m, c.replies[ours], all[ours].apexes) && slices.Contains(c.answers[:ours], c.answers[ours]):
			count.undecided++
			continue
		case !c.common && slices.ContainsFunc(c.answers[:ours], func(a string) bool { return firstLine(a) == firstLine(c.answers[ours]) }):
			count.undecided++
			continue
		}
		t.Errorf("%s, EDNS %v, TCP %v\nours: %s\nNSD: %s\nKnot: %s\nBIND: %s", m.Question[0].String(), m.IsEdns0() != nil, tcp,
			c.answers[ours], c.answers[0], c.answers[1], c.answers[2])
		if count.differs++; count.differs == enough {
			t.Error("and more")
			return count
		}
	}
	if count.undecided > *questions/20 {
		t.Error("the peers differ too often for this test to tell anything")
	}
	return count
}

// ours is the place of our server behind the peers.
const ours = 3

// compared is what all servers answer to one question.
type compared struct {
	replies [4][]byte
	answers [4]string // normal of each
	common  bool      // two peers have the same answer
	agrees  bool      // and it is ours
}

func askAll(t testing.TB, all []*server, m *dns.Msg, message []byte, tcp bool) (c compared) {
	t.Helper()
	for i, s := range all {
		c.replies[i] = s.ask(t, message, tcp)
		c.answers[i] = normal(t, s, m, c.replies[i])
	}
	var want string
	want, c.common = majority(c.answers[:ours])
	c.agrees = c.common && c.answers[ours] == want
	return c
}

// leaves reports whether the reply's chain of aliases leads into another zone served than
// that of the question. NSD and BIND go on there, each in its way; Knot and ours do not.
func leaves(asked *dns.Msg, reply []byte, apexes map[string]bool) bool {
	closest := func(name string) string {
		name = dns.CanonicalName(name)
		for i, end := 0, false; !end; i, end = dns.NextLabel(name, i) {
			if apexes[name[i:]] {
				return name[i:]
			}
		}
		return ""
	}
	var m dns.Msg
	if m.Unpack(reply) != nil {
		return false
	}
	return slices.ContainsFunc(m.Answer, func(rr dns.RR) bool {
		cname, ok := rr.(*dns.CNAME)
		return ok && closest(cname.Target) != "" && closest(cname.Target) != closest(asked.Question[0].Name)
	})
}

// limit is how long a reply over UDP may be.
func limit(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), 512), 1232)
	}
	return 512
}

// majority returns what two of three agree on, ok false if there is no such answer.
func majority(answers []string) (answer string, ok bool) {
	switch {
	case answers[0] == answers[1] || answers[0] == answers[2]:
		return answers[0], true
	case answers[1] == answers[2]:
		return answers[1], true
	}
	return "", false
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// normal writes what matters of a reply: rcode, flags, and the sections as sets without case.
// These differences are allowed, for the reasons given:
//   - ANY: one RRset is enough, and which is free (RFC 8482 §4.1); rcode and flags count.
//   - DS in a referral to a client that sets DO: ours sends it in unsigned zones too, as a
//     resolver with a trust anchor for the child needs it (RFC 4035 §3.1.4), the peers do not.
//   - Additional records of answers that are no referral and no apex NS: optional (RFC 1034
//     §4.3.2 step 6, RFC 2181 §9).
//   - Truncated replies: what they hold is free, resolvers ask again (RFC 2181 §9).
//   - DS at the apex of a zone served that its parent, served too, does not delegate: NXDOMAIN
//     counts as NODATA. Knot and BIND deny the name; NSD and ours do not, for RFC 8020 would
//     extend the denial to all of the child.
func normal(t testing.TB, s *server, asked *dns.Msg, reply []byte) string {
	t.Helper()
	if reply == nil {
		return "silence"
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("%s, %v: %v", s.name, asked.Question[0], err)
	}
	var b strings.Builder
	if m.Rcode == dns.RcodeNameError && asked.Question[0].Qtype == dns.TypeDS && s.apexes[dns.CanonicalName(asked.Question[0].Name)] {
		m.Rcode = dns.RcodeSuccess
	}
	b.WriteString(dns.RcodeToString[m.Rcode])
	for _, flag := range []struct {
		name string
		set  bool
	}{{"aa", m.Authoritative}, {"tc", m.Truncated}, {"rd", m.RecursionDesired}, {"ra", m.RecursionAvailable}, {"z", m.Zero}, {"ad", m.AuthenticatedData}} {
		if flag.set {
			b.WriteString(" " + flag.name)
		}
	}
	if opt := m.IsEdns0(); opt != nil {
		fmt.Fprintf(&b, " edns=%d version=%d do=%v", opt.UDPSize(), opt.Version(), opt.Do())
	}
	if len(m.Question) != 1 || m.Question[0] != asked.Question[0] {
		fmt.Fprintf(&b, " question %v", m.Question)
	}
	if m.Truncated || asked.Question[0].Qtype == dns.TypeANY {
		return b.String()
	}
	referral := len(m.Ns) > 0 && !has(m.Ns, dns.TypeSOA)
	section(&b, "answer", m.Answer, nil)
	section(&b, "authority", m.Ns, func(rr dns.RR) bool { return referral && rr.Header().Rrtype == dns.TypeDS })
	if referral || has(m.Answer, dns.TypeNS) {
		section(&b, "additional", m.Extra, nil)
	}
	return b.String()
}

func has(rrs []dns.RR, typ uint16) bool {
	return slices.ContainsFunc(rrs, func(rr dns.RR) bool { return rr.Header().Rrtype == typ })
}

func section(b *strings.Builder, title string, rrs []dns.RR, without func(dns.RR) bool) {
	set := map[string]bool{}
	for _, rr := range rrs {
		if rr.Header().Rrtype == dns.TypeOPT || without != nil && without(rr) {
			continue
		}
		set[strings.ToLower(rr.String())] = true
	}
	if len(set) > 0 {
		fmt.Fprintf(b, "\n  %s\n    %s", title, strings.Join(slices.Sorted(maps.Keys(set)), "\n    "))
	}
}
