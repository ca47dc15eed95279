package zone

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// ednsOption is an option as it stands in an OPT record.
func ednsOption(code uint16, data string) string {
	b := binary.BigEndian.AppendUint16(nil, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return string(append(b, data...))
}

// askOptions asks v for the A of www.example.test with options, over a transport and at a time when
// the cookie of RFC 9018 A.1 is fresh.
func askOptions(t testing.TB, v *View, s *Scratch, from string, over Transport, options string) string {
	t.Helper()
	message := packet{0, [4]uint16{1, 0, 0, 1}, []byte(string(rawQuestion(wireWWW, TypeA, classIN)) + opt(options))}.bytes()
	s.Now = 1559731985
	reply := v.Answer(s, make([]byte, MaxMessage), message, netip.MustParseAddr(from), over)
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("%v: %x", err, reply)
	}
	var said []string
	line, _, _ := strings.Cut(present(t, reply), " ")
	said = append(said, strings.TrimSpace(line))
	o := m.IsEdns0()
	if o == nil {
		return strings.Join(append(said, "no OPT"), "; ")
	}
	for _, option := range o.Option {
		switch x := option.(type) {
		case *dns.EDNS0_COOKIE:
			said = append(said, "cookie "+x.Cookie)
		case *dns.EDNS0_NSID:
			said = append(said, "nsid "+string(unhex(t, x.Nsid)))
		case *dns.EDNS0_SUBNET:
			said = append(said, "subnet "+x.String())
		default:
			said = append(said, fmt.Sprintf("option %d", option.Option()))
		}
	}
	return strings.Join(said, "; ")
}

func TestOptions(t *testing.T) {
	const client = "\x24\x64\xc4\xab\xcf\x10\xc9\x57"
	const server = "\x01\x00\x00\x00\x5c\xf7\x9f\x11\x1f\x81\x30\xc3\xee\xe2\x94\x80"
	const learned = "cookie 2464c4abcf10c957010000005cf79f111f8130c3eee29480"
	subnet := func(data string) string { return ednsOption(optionSubnet, data) }
	const trusted, other = "198.51.100.100", "198.51.100.200"

	v := viewOf(served(t, "example.test.", "@ SOA ns.test. hostmaster 1 2 3 4 5\n@ NS ns.test.\nwww A 10.0.0.1\n"))
	if !v.TrustSubnets(mustName(t, "example.test."), NewNetworks([]netip.Prefix{netip.MustParsePrefix(trusted + "/32"), netip.MustParsePrefix("fe80::/64")})) {
		t.Fatal("the zone is not served")
	}
	all := &Config{NSID: "dc-a/auth-1", Cookies: [][16]byte{secret(t, "e5e973e5a6b2a43f48e7dc849e37bfcf")}}
	for sentence, tc := range map[string]struct {
		options string
		from    string // other if empty
		config  *Config
		want    string
	}{
		"no option gets none":                               {config: all, want: "NOERROR"},
		"a client cookie gets a server cookie":              {options: ednsOption(optionCookie, client), from: trusted, config: all, want: "NOERROR; " + learned},
		"a good cookie comes back":                          {options: ednsOption(optionCookie, client+server), from: trusted, config: all, want: "NOERROR; " + learned},
		"of two cookies the first counts":                   {options: ednsOption(optionCookie, client) + ednsOption(optionCookie, client+server+"x"), from: trusted, config: all, want: "NOERROR; " + learned},
		"a second cookie may be malformed":                  {options: ednsOption(optionCookie, client) + ednsOption(optionCookie, ""), from: trusted, config: all, want: "NOERROR; " + learned},
		"a cookie is ignored by who makes none":             {options: ednsOption(optionCookie, client), want: "NOERROR"},
		"a cookie of 7 octets is malformed":                 {options: ednsOption(optionCookie, client[1:]), config: all, want: "FORMERR"},
		"no cookie in the option is malformed":              {options: ednsOption(optionCookie, ""), config: all, want: "FORMERR"},
		"a server cookie of 7 octets is malformed":          {options: ednsOption(optionCookie, client+server[:7]), config: all, want: "FORMERR"},
		"a server cookie of 33 octets is malformed":         {options: ednsOption(optionCookie, client+server+server+"x"), config: all, want: "FORMERR"},
		"so it is for who makes no cookies":                 {options: ednsOption(optionCookie, client+server+server+"x"), want: "FORMERR"},
		"who asks for the name gets it":                     {options: ednsOption(optionNSID, ""), config: all, want: "NOERROR; nsid dc-a/auth-1"},
		"what is in the question for it does not matter":    {options: ednsOption(optionNSID, "who?"), config: all, want: "NOERROR; nsid dc-a/auth-1"},
		"the name is not told where it is off":              {options: ednsOption(optionNSID, ""), want: "NOERROR"},
		"NSID and a cookie go together":                     {options: ednsOption(optionNSID, "") + ednsOption(optionCookie, client), from: trusted, config: all, want: "NOERROR; nsid dc-a/auth-1; " + learned},
		"unknown options are ignored":                       {options: ednsOption(65001, "abc") + ednsOption(100, "") + ednsOption(9, ""), config: all, want: "NOERROR"},
		"the keepalive option means nothing over UDP":       {options: ednsOption(optionKeepAlive, ""), config: all, want: "NOERROR"},
		"half an option has no OPT in reply":                {options: "\x00", config: all, want: "FORMERR; no OPT"},
		"an option beyond the end has none either":          {options: ednsOption(optionNSID, "") + "\x00\x0a\x00\x09" + client, config: all, want: "FORMERR; no OPT"},
		"a subnet of a resolver that is not trusted":        {options: subnet("\x00\x01\x18\x00\xc0\x00\x02"), want: "NOERROR"},
		"a trusted subnet is repeated with a scope":         {options: subnet("\x00\x01\x18\x00\xc0\x00\x02"), from: trusted, want: "NOERROR; subnet 192.0.2.0/24/0"},
		"of two subnets the first counts":                   {options: subnet("\x00\x01\x18\x00\xc0\x00\x02") + subnet("\x00\x01\x08\x00\x0a"), from: trusted, want: "NOERROR; subnet 192.0.2.0/24/0"},
		"a trusted resolver may be link-local":              {options: subnet("\x00\x01\x18\x00\xc0\x00\x02"), from: "fe80::1%lo", want: "NOERROR; subnet 192.0.2.0/24/0"},
		"an IPv6 subnet is repeated":                        {options: subnet("\x00\x02\x38\x00\x20\x01\x0d\xb8\x00\x01\x02"), from: trusted, want: "NOERROR; subnet [2001:db8:1:200::]/56/0"},
		"a whole IPv6 address is a subnet":                  {options: subnet("\x00\x02\x80\x00\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"), from: trusted, want: "NOERROR; subnet [2001:db8::1]/128/0"},
		"no subnet is repeated":                             {options: subnet("\x00\x01\x00\x00"), from: trusted, want: "NOERROR; subnet 0.0.0.0/0/0"},
		"no subnet of no family is none":                    {options: subnet("\x00\x00\x00\x00"), from: trusted, want: "NOERROR; subnet 0.0.0.0/0/0"},
		"family 0 with a prefix is malformed":               {options: subnet("\x00\x00\x08\x00\x0a"), want: "FORMERR"},
		"family 3 is malformed":                             {options: subnet("\x00\x03\x08\x00\x0a"), want: "FORMERR"},
		"a prefix longer than IPv4 has is malformed":        {options: subnet("\x00\x01\x21\x00\x0a\x00\x00\x01\x00"), want: "FORMERR"},
		"a prefix longer than IPv6 has is malformed":        {options: subnet("\x00\x02\x81\x00" + strings.Repeat("\x01", 17)), want: "FORMERR"},
		"a scope in a query is malformed":                   {options: subnet("\x00\x01\x18\x18\xc0\x00\x02"), want: "FORMERR"},
		"more address than the prefix needs is malformed":   {options: subnet("\x00\x01\x18\x00\xc0\x00\x02\x00"), want: "FORMERR"},
		"less address than the prefix needs is malformed":   {options: subnet("\x00\x01\x18\x00\xc0\x00"), want: "FORMERR"},
		"a bit behind the prefix is malformed":              {options: subnet("\x00\x01\x17\x00\xc0\x00\x03"), want: "FORMERR"},
		"the last bit of the prefix is none behind it":      {options: subnet("\x00\x01\x17\x00\xc0\x00\x02"), from: trusted, want: "NOERROR; subnet 192.0.2.0/23/0"},
		"an address without prefix is malformed":            {options: subnet("\x00\x01\x00\x00\x0a"), want: "FORMERR"},
		"a subnet cut in its head is malformed":             {options: subnet("\x00\x01\x00"), want: "FORMERR"},
		"no octet in a subnet is malformed":                 {options: subnet(""), want: "FORMERR"},
		"malformed options make no cookie":                  {options: ednsOption(optionCookie, client) + subnet(""), from: trusted, config: all, want: "FORMERR"},
		"a client cookie behind a subnet is answered too":   {options: subnet("\x00\x01\x00\x00") + ednsOption(optionCookie, client), from: trusted, config: all, want: "NOERROR; " + learned + "; subnet 0.0.0.0/0/0"},
		"a cookie and a subnet that counts for nothing":     {options: subnet("\x00\x01\x08\x00\x0a") + ednsOption(optionCookie, client), config: &Config{}, want: "NOERROR"},
		"65,000 octets of unknown options over UDP are one": {options: ednsOption(65001, strings.Repeat("x", 65000)), config: all, want: "NOERROR"},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := &Scratch{Config: tc.config}
			from := tc.from
			if from == "" {
				from = other
			}
			for _, over := range []Transport{UDP, TCP} {
				if got := askOptions(t, v, s, from, over, tc.options); got != tc.want {
					t.Errorf("answered %q, wanted %q", got, tc.want)
				}
			}
			// Nothing of it is left for the next query.
			if got := askOptions(t, v, s, from, UDP, ""); got != "NOERROR" {
				t.Errorf("without options answered %q", got)
			}
		})
	}
	for sentence, tc := range map[string]struct {
		options string
		config  *Config
		want    string
	}{
		"without question a client cookie gets a server cookie": {ednsOption(optionCookie, client), all, "NOERROR edns=1232 option=10 0/0/0/1"},
		"without question a good cookie is confirmed":           {ednsOption(optionCookie, client+server), all, "NOERROR edns=1232 option=10 0/0/0/1"},
		"without question another cookie is BADCOOKIE":          {ednsOption(optionCookie, client+server[1:]+"x"), all, "BADCOOKIE edns=1232 option=10 0/0/0/1"},
		"without question and cookie it is malformed":           {ednsOption(optionNSID, ""), all, "FORMERR edns=1232 option=3 0/0/0/1"},
		"without question where no cookies are made too":        {ednsOption(optionCookie, client), nil, "FORMERR edns=1232 0/0/0/1"},
		"without question and options too":                      {"", all, "FORMERR edns=1232 0/0/0/1"},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := &Scratch{Config: tc.config, Now: 1559731985}
			message := packet{0, [4]uint16{0, 0, 0, 1}, []byte(opt(tc.options))}.bytes()
			if got := summary(t, v.Answer(s, make([]byte, MaxUDP), message, netip.MustParseAddr(trusted), UDP)); got != tc.want {
				t.Errorf("answered %s, wanted %s", got, tc.want)
			}
		})
	}
	t.Run("a version above 0 is a bad version, whatever its options", func(t *testing.T) {
		rdata := ednsOption(optionCookie, "x") + ednsOption(optionNSID, "")
		message := packet{0, [4]uint16{1, 0, 0, 1}, []byte(string(rawQuestion(wireWWW, TypeA, classIN)) + rawRecord("\x00", TypeOPT, 4096, 0x00010000, rdata))}.bytes()
		if got := summary(t, v.Answer(&Scratch{Config: all}, make([]byte, MaxUDP), message, netip.MustParseAddr(other), UDP)); got != "BADVERS edns=1232 1/0/0/1" {
			t.Errorf("answered %s", got)
		}
	})
}

// TestWhoAQuestionIsAbout is for answers that depend on the client.
func TestWhoAQuestionIsAbout(t *testing.T) {
	v := viewOf(served(t, "example.test.", "@ SOA ns.test. hostmaster 1 2 3 4 5\n@ NS ns.test.\nwww A 10.0.0.1\n"))
	s := &Scratch{}
	about := func() string {
		network, stated := s.clientNetwork()
		if stated {
			return "stated " + network.String()
		}
		return network.String()
	}
	subnet := ednsOption(optionSubnet, "\x00\x01\x18\x00\xc0\x00\x02")
	askOptions(t, v, s, "2001:db8::7", UDP, subnet)
	if got := about(); got != "2001:db8::7/128" {
		t.Errorf("from who is not trusted: %s", got)
	}
	v.TrustSubnets(mustName(t, "example.test."), NewNetworks([]netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}))
	askOptions(t, v, s, "2001:db8::7", UDP, subnet)
	if got := about(); got != "stated 192.0.2.0/24" {
		t.Errorf("from who is trusted: %s", got)
	}
	s.setScope(20)
	var m dns.Msg
	if err := m.Unpack(s.finishAgain()); err != nil {
		t.Fatal(err)
	}
	if got := m.IsEdns0().Option[0].String(); got != "192.0.2.0/24/20" {
		t.Errorf("with scope 20 the reply has %s", got)
	}
	askOptions(t, v, s, "2001:db8::7", UDP, "")
	if got := about(); got != "2001:db8::7/128" {
		t.Errorf("without the option: %s", got)
	}
	askOptions(t, v, s, "2001:db8::7", UDP, ednsOption(optionSubnet, "\x00\x01\x00\x00"))
	if got := about(); got != "2001:db8::7/128" {
		t.Errorf("from a client that wants to be unknown: %s", got)
	}
	if s.setScope(20); s.message.scope != 0 {
		t.Error("a client that wants to be unknown gets a scope (RFC 7871 §7.2.1)")
	}

	s.TrustSubnet = true
	if got := askOptions(t, v, s, "192.0.2.200", UDP, subnet); got != "NOERROR; subnet 192.0.2.0/24/0" || about() != "stated 192.0.2.0/24" {
		t.Errorf("where the caller vouches for the option: %s, %s", got, about())
	}
	s.TrustSubnet = false

	// A new version of the zone trusts the same; the next setting replaces it.
	z := served(t, "example.test.", "@ SOA ns.test. hostmaster 2 2 3 4 5\n@ NS ns.test.\nwww A 10.0.0.2\n")
	v.Update([]*Served{z}, nil)
	if got := askOptions(t, v, s, "2001:db8::7", UDP, subnet); got != "NOERROR; subnet 192.0.2.0/24/0" {
		t.Errorf("after an update: %s", got)
	}
	v.TrustSubnets(mustName(t, "example.test."), nil)
	if got := askOptions(t, v, s, "2001:db8::7", UDP, subnet); got != "NOERROR" {
		t.Errorf("after trust has ended: %s", got)
	}
	if v.TrustSubnets(mustName(t, "elsewhere."), nil) {
		t.Error("a zone that is not served trusts somebody")
	}
}

// finishAgain writes what follows the records once more.
func (s *Scratch) finishAgain() []byte {
	s.message.n = s.message.options[0]
	s.message.counts[sectionAdditional]--
	return s.finish(true)
}

func TestExtendedErrors(t *testing.T) {
	v := viewOf(served(t, "example.test.", "@ SOA ns.test. hostmaster 1 2 3 4 5\n@ NS ns.test.\n"))
	ask := func(s *Scratch, additional string) *dns.Msg {
		p := packet{0, [4]uint16{1}, []byte(string(rawQuestion("\x04else\x00", TypeA, classIN)) + additional)}
		if additional != "" {
			p.counts[3] = 1
		}
		var m dns.Msg
		if err := m.Unpack(v.Answer(s, make([]byte, MaxUDP), p.bytes(), client, UDP)); err != nil {
			t.Fatal(err)
		}
		return &m
	}
	s := &Scratch{}
	if m := ask(s, ""); m.IsEdns0() != nil || m.Rcode != dns.RcodeRefused {
		t.Errorf("a client without EDNS gets %v", m)
	}
	ede := ask(s, opt("")).IsEdns0().Option
	if len(ede) != 1 || ede[0].(*dns.EDNS0_EDE).InfoCode != EDENotAuthoritative {
		t.Errorf("a client with EDNS gets %v", ede)
	}
	// A text goes out where it fits, else the code alone, else neither.
	for room, want := range map[int]string{0: "", 5: "", 6: "15 ", 14: "15 ", 15: "15 by policy", 100: "15 by policy"} {
		ask(s, opt(""))
		s.explain(EDEBlocked, "by policy")
		s.message.b = s.message.b[:s.message.options[0]+optSize+room]
		var m dns.Msg
		if err := m.Unpack(s.finishAgain()); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, o := range m.IsEdns0().Option {
			e := o.(*dns.EDNS0_EDE)
			got = fmt.Sprint(e.InfoCode, " ", e.ExtraText)
		}
		if got != want {
			t.Errorf("with room for %d octets: %q, wanted %q", room, got, want)
		}
	}
}

func TestSizesOverUDP(t *testing.T) {
	var text strings.Builder
	text.WriteString("@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns.elsewhere.\n")
	const sets = 300
	for n := range sets {
		for i := range n + 1 {
			fmt.Fprintf(&text, "n%d A 10.0.%d.%d\n", n, i/250, i%250)
		}
	}
	v := viewOf(served(t, "example.test.", text.String()))
	for sentence, tc := range map[string]struct {
		config *Config
		offers int // 0: no EDNS
		want   int // octets that have no TC
	}{
		"without EDNS 512 octets, whatever is allowed":       {&Config{MaxUDP: 4096}, 0, 512},
		"1232 octets by default":                             {nil, 4096, 1232},
		"no more than the client takes":                      {&Config{MaxUDP: 4096}, 1400, 1400},
		"a client that takes less than 512 octets takes 512": {&Config{MaxUDP: 4096}, 100, 512},
		"no more than is allowed":                            {&Config{MaxUDP: 2000}, 65535, 2000},
		"512 octets where that is all":                       {&Config{MaxUDP: 512}, 4096, 512},
		"4096 octets where they are allowed":                 {&Config{MaxUDP: 4096}, 4096, 4096},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := &Scratch{Config: tc.config}
			for n := range sets {
				m := new(dns.Msg)
				m.SetQuestion(fmt.Sprintf("n%d.example.test.", n), dns.TypeA)
				if tc.offers > 0 {
					m.SetEdns0(uint16(tc.offers), false)
				}
				message, err := m.Pack()
				if err != nil {
					t.Fatal(err)
				}
				whole := len(v.Answer(s, make([]byte, MaxMessage), message, client, TCP))
				reply := v.Answer(s, make([]byte, MostUDP), message, client, UDP)
				if truncated := reply[2]&flagTC != 0; truncated != (whole > tc.want) || len(reply) > tc.want {
					t.Fatalf("%d octets of %d, TC %t", len(reply), whole, truncated)
				}
			}
		})
	}
}

// FuzzOptions holds what is read of options to what a plain reading of their RFCs gives.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{
		"", ednsOption(optionCookie, "12345678"), ednsOption(optionCookie, "1234567812345678") + ednsOption(optionNSID, ""),
		ednsOption(optionSubnet, "\x00\x01\x18\x00\xc0\x00\x02") + ednsOption(optionPadding, "\x00\x00"), "\x00\x08\xff\xff",
		ednsOption(optionSubnet, "\x00\x02\x39\x00\x20\x01\x0d\xb8\x00\x01\x02\x80") + ednsOption(optionKeepAlive, ""),
	} {
		f.Add([]byte(seed))
	}
	var o options
	f.Fuzz(func(t *testing.T, b []byte) {
		framed, sound := o.read(b)
		var cookies, subnets [][]byte
		nsid := false
		rest := b
		for len(rest) >= 4 && len(rest) >= 4+int(rest[2])<<8+int(rest[3]) {
			code, data := int(rest[0])<<8+int(rest[1]), rest[4:4+int(rest[2])<<8+int(rest[3])]
			switch code {
			case 3:
				nsid = true
			case 8:
				subnets = append(subnets, data)
			case 10:
				cookies = append(cookies, data)
			}
			rest = rest[4+len(data):]
		}
		if framed != (len(rest) == 0) {
			t.Fatalf("framed is %t, and %d octets are left", framed, len(rest))
		}
		if !framed {
			return
		}
		if sound && nsid != o.nsid {
			t.Errorf("asks for the name: %t", o.nsid)
		}
		if sound && (len(cookies) > 0) != (o.cookieSize > 0) || sound && len(cookies) > 0 && !bytes.Equal(cookies[0], o.cookie[:o.cookieSize]) {
			t.Errorf("the cookie is %x", o.cookie[:o.cookieSize])
		}
		if sound && len(cookies) > 0 && len(cookies[0]) != 8 && (len(cookies[0]) < 16 || len(cookies[0]) > 40) {
			t.Errorf("a cookie of %d octets is sound (RFC 7873 §4)", len(cookies[0]))
		}
		if sound && len(subnets) > 0 {
			s := subnets[0]
			var whole [16]byte
			copy(whole[:], s[4:])
			size := map[byte]int{0: 0, 1: 4, 2: 16}[s[1]]
			if int(s[2]) > 8*size || s[3] != 0 || s[0] != 0 || len(s) != 4+(int(s[2])+7)/8 {
				t.Errorf("the subnet %x is sound (RFC 7871 §6)", s)
			}
			if a, ok := netip.AddrFromSlice(whole[:size]); ok {
				p := netip.PrefixFrom(a, int(s[2]))
				if p.Masked() != p {
					t.Errorf("the subnet %v has bits behind its prefix", p)
				}
				if got := o.subnet.prefix(); s[2] > 0 && got != p {
					t.Errorf("the subnet is %v, wanted %v", got, p)
				}
			}
		}
	})
}
