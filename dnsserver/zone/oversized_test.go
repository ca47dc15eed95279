package zone

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// many writes so many records of a name.
func many(owner, typ string, count int, rdata func(i int) string) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, "%s %s %s\n", owner, typ, rdata(i))
	}
	return b.String()
}

func nthAddress(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250) }

func TestOversized(t *testing.T) {
	const head = "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n"
	text := func(i int) string { return fmt.Sprintf("%03d%s", i, strings.Repeat("a", 100)) }
	for sentence, tc := range map[string]struct {
		text string
		want []string // OWNER TYPE, with "referral" and the octets
	}{
		"a small zone":                       {"www A 10.0.0.2\n*.w A 10.0.0.2\nsub NS ns.sub\nns.sub A 10.0.0.3\n", nil},
		"as many addresses as fit":           {many("a", "A", 71, nthAddress), nil},
		"one address more":                   {many("a", "A", 72, nthAddress), []string{"a.example.test. A 1238"}},
		"fewer below a wildcard":             {many("*.a", "A", 57, nthAddress), []string{"*.a.example.test. A 1237"}},
		"texts":                              {many("a", "TXT", 20, text), []string{"a.example.test. TXT 2406"}},
		"two types of one name":              {many("a", "TXT", 20, text) + many("a", "A", 200, nthAddress), []string{"a.example.test. A 3286", "a.example.test. TXT 2406"}},
		"names that are compressed":          {many("@", "MX", 90, func(i int) string { return fmt.Sprintf("%d m%d", i, i%9) }), []string{"example.test. MX 1551"}},
		"an alias to what does not fit":      {many("a", "A", 72, nthAddress) + "b CNAME a\nc CNAME b\n", []string{"a.example.test. A 1238", "b.example.test. A 1254", "c.example.test. A 1270"}},
		"an alias to what just fits":         {many("a", "A", 71, nthAddress) + "b CNAME a\n", []string{"b.example.test. A 1238"}},
		"aliases in a circle":                {"a CNAME b\nb CNAME a\n", nil},
		"an alias below a wildcard":          {many("a", "A", 60, nthAddress) + "*.b CNAME a\n", []string{"*.b.example.test. A 1301"}},
		"an alias to a wildcard":             {many("*.a", "A", 56, nthAddress) + "b CNAME " + strings.Repeat("x", 60) + "." + strings.Repeat("x", 60) + ".a\n", nil},
		"an alias behind a delegation":       {many("a.s", "A", 90, nthAddress) + "s NS a.s\nb CNAME a.s\n", []string{"s.example.test. NS 1781 referral"}},
		"addresses hidden by a delegation":   {many("a.s", "A", 90, nthAddress) + "s NS ns.x.\n", nil},
		"a DS RRset":                         {"s NS ns.x.\n" + many("s", "DS", 30, func(i int) string { return fmt.Sprintf("%d 8 2 %s", i, strings.Repeat("ab", 32)) }), []string{"s.example.test. DS 1526", "s.example.test. NS 1783 referral"}},
		"servers' glue":                      {many("s", "NS", 13, func(i int) string { return fmt.Sprintf("ns%d.s", i) }) + many("ns1.s", "A", 40, nthAddress), nil},
		"more of it":                         {many("s", "NS", 13, func(i int) string { return fmt.Sprintf("ns%d.s", i) }) + many("ns1.s", "A", 45, nthAddress), []string{"s.example.test. NS 1282 referral"}},
		"glue elsewhere need not fit":        {"s NS a.t\ns NS b.s\nt NS ns.x.\nb.s A 10.0.0.1\n" + many("a.t", "A", 200, nthAddress), nil},
		"unless there is no other":           {"s NS a.t\nt NS ns.x.\n" + many("a.t", "A", 200, nthAddress), []string{"s.example.test. NS 3543 referral"}},
		"or one of two fits":                 {"s NS a.t\ns NS b.t\nt NS ns.x.\nb.t A 10.0.0.1\n" + many("a.t", "A", 200, nthAddress), nil},
		"records below DNAME are not served": {"d DNAME x.\n" + many("a.d", "A", 90, nthAddress), nil},
		"the apex too":                       {many("@", "NS", 90, func(i int) string { return fmt.Sprintf("n%d.x.", i) }), []string{"example.test. NS 1712"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			apex, err := ParseName("example.test", "")
			if err != nil {
				t.Fatal(err)
			}
			c, _, faults := Load(apex, head+tc.text)
			var got []string
			if c == nil || len(faults) > 0 && !strings.Contains(tc.text, "DNAME") && !strings.Contains(sentence, "hidden") {
				t.Fatal(faults)
			}
			for o := range Oversized(c, MaxUDP) {
				line := fmt.Sprintf("%s %s %d", o.Owner, TypeString(o.Type), o.Size)
				if o.Referral {
					line += " referral"
				}
				got = append(got, line)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, wanted %q", got, tc.want)
			}
		})
	}
}

// TestOversizedAgreesWithAnswers asks for everything in random zones: what is truncated is what was
// said to be.
func TestOversizedAgreesWithAnswers(t *testing.T) {
	apex := mustName(t, "example.test")
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		b.WriteString("$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n")
		owners := []string{"a", "*.w", "b", "s", "ns.s", "ns1.s", "t", "ns.t", "c.b", "d"}
		for _, owner := range owners {
			label := rapid.StringMatching("[a-z]{1,40}").Draw(t, "label")
			switch kind := rapid.IntRange(0, 3).Draw(t, "kind"); {
			case owner == "s" || owner == "t":
				for i := range rapid.IntRange(1, 40).Draw(t, "servers") {
					server := rapid.SampledFrom([]string{"ns.s", "ns1.s", "ns.t", "a", "x.", label + ".x."}).Draw(t, "server")
					if strings.HasSuffix(server, ".x.") {
						server = fmt.Sprint("n", i) + server
					}
					fmt.Fprintf(&b, "%s NS %s\n", owner, server)
				}
				if kind == 0 {
					b.WriteString(many(owner, "DS", rapid.IntRange(1, 12).Draw(t, "ds"), func(i int) string { return fmt.Sprintf("%d 8 2 %s", i, strings.Repeat("ab", 32)) }))
				}
			case kind == 0 && !strings.HasPrefix(owner, "ns"):
				fmt.Fprintf(&b, "%s CNAME %s\n", owner, rapid.SampledFrom([]string{"a", "b", "d", "q.w", label + ".w", "x."}).Draw(t, "target"))
			case kind == 1:
				b.WriteString(many(owner, "MX", rapid.IntRange(1, 60).Draw(t, "mx"), func(i int) string { return fmt.Sprintf("%d %s%d", i, label, i%7) }))
				fallthrough
			default:
				b.WriteString(many(owner, "A", rapid.IntRange(1, 90).Draw(t, "addresses"), nthAddress))
			}
		}
		c, version, _ := Load(apex, b.String())
		z, err := NewServed(c, version)
		if err != nil {
			t.Fatal(err)
		}
		v := &View{}
		v.Update([]*Served{z}, nil)
		limit := rapid.IntRange(800, 2000).Draw(t, "limit")
		said := map[string]bool{}
		for o := range Oversized(c, limit) {
			said[o.Owner.String()+TypeString(o.Type)+fmt.Sprint(o.Referral)] = true
		}
		// The room for a client subnet is taken off: no zone here trusts one.
		s := &Scratch{Config: &Config{MaxUDP: limit - optionHead - 4 - 7, Cookies: [][16]byte{{1}}}}
		for n := range c.All() {
			cut, _ := above(c, n.Owner)
			for _, set := range append(n.RRsets, RRset{Type: TypeA}) {
				asked, typ, key := n.Owner, set.Type, n.Owner.String()+TypeString(set.Type)+"false"
				if set.Type == TypeCNAME {
					continue // asked for with the types that it leads to
				}
				if cut != nil && (n != cut || typ != TypeDS) {
					asked, typ, key = "\x01*"+cut.Owner, TypeTXT, cut.Owner.String()+"NStrue"
				}
				if asked.IsWildcard() {
					asked = Name(longest(asked.Parent()))
				}
				for _, typ := range []uint16{typ, TypeMX} {
					if typ == TypeMX && !n.Has(TypeCNAME) {
						continue
					}
					if n.Has(TypeCNAME) {
						key = n.Owner.String() + TypeString(typ) + "false"
					}
					m := new(dns.Msg)
					m.SetQuestion(asked.String(), typ)
					m.SetEdns0(4096, true)
					m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}}
					message, err := m.Pack()
					if err != nil {
						t.Fatal(err)
					}
					reply := v.Answer(s, make([]byte, 0, MostUDP), message, netip.MustParseAddr("192.0.2.1"), UDP)
					if truncated := reply[2]&2 != 0; truncated != said[key] {
						t.Fatalf("%s %s: truncated %t, said %t, limit %d, in\n%s", asked, TypeString(typ), truncated, said[key], limit, b.String())
					}
				}
			}
		}
	})
}

func BenchmarkOversized(b *testing.B) {
	for _, names := range []int{1e3, 1e5} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			var text strings.Builder
			text.WriteString("$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n")
			for i := range names {
				switch i % 4 {
				case 0:
					fmt.Fprintf(&text, "s%d NS ns.s%d\ns%d NS ns\nns.s%d A 10.0.0.1\n", i, i, i, i)
				case 1:
					fmt.Fprintf(&text, "a%d CNAME h%d\n", i, i+1)
				default:
					fmt.Fprintf(&text, "h%d A 10.0.0.1\nh%d AAAA 2001:db8::1\n", i, i)
				}
			}
			c, _, faults := Load(mustName(b, "example.test"), text.String())
			if len(faults) > 0 {
				b.Fatal(faults[0])
			}
			for b.Loop() {
				for o := range Oversized(c, MaxUDP) {
					b.Fatal(o)
				}
			}
		})
	}
}
