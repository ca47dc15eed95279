package zone

import (
	"net/netip"
	"testing"
)

// BenchmarkFeatures answers queries for one name that say more and more. Compare with "plain".
func BenchmarkFeatures(b *testing.B) {
	v := viewOf(syntheticZone(b, 1e4))
	v.TrustSubnets(mustName(b, "example.test."), NewNetworks([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}))
	config := &Config{NSID: "dc-a/auth-1", Cookies: [][16]byte{{1}, {2}}}
	const now = 1559731985
	cookie := func(from string, age int64, secret int) string {
		var c [clientCookieSize + maxServerCookie]byte
		copy(c[:], "abcdefgh")
		answerCookie(&c, clientCookieSize, config.Cookies[secret:], netip.MustParseAddr(from), now-age)
		return ednsOption(optionCookie, string(c[:clientCookieSize+serverCookieSize]))
	}
	subnet := ednsOption(optionSubnet, "\x00\x01\x18\x00\xc0\x00\x02")
	for _, tc := range []struct{ name, from, options string }{
		{"plain", "192.0.2.1", "-"},
		{"edns", "192.0.2.1", ""},
		{"client-cookie", "192.0.2.1", ednsOption(optionCookie, "abcdefgh")},
		{"good-cookie", "192.0.2.1", cookie("192.0.2.1", 100, 0)},
		{"good-cookie-ipv6", "2001:db8::1", cookie("2001:db8::1", 100, 0)},
		{"renewed-cookie", "192.0.2.1", cookie("192.0.2.1", 2000, 0)},
		{"old-secret", "192.0.2.1", cookie("192.0.2.1", 100, 1)},
		{"nsid", "192.0.2.1", ednsOption(optionNSID, "")},
		{"subnet-not-trusted", "198.51.100.1", subnet},
		{"subnet", "192.0.2.1", subnet},
		{"state", "192.0.2.1", ednsOption(OptionState, "")},
		{"all", "192.0.2.1", cookie("192.0.2.1", 100, 0) + ednsOption(optionNSID, "") + subnet},
	} {
		b.Run(tc.name, func(b *testing.B) {
			p := packet{0, [4]uint16{1}, rawQuestion("\x04h100\x07example\x04test\x00", TypeA, classIN)}
			if tc.options != "-" {
				p.counts[3] = 1
				p.body = append(p.body, opt(tc.options)...)
			}
			message, from := p.bytes(), netip.MustParseAddr(tc.from)
			s, dst := &Scratch{Config: config, Now: now, Quarantine: &Quarantine{}}, make([]byte, MaxUDP)
			b.ReportAllocs()
			for b.Loop() {
				if r := v.Answer(s, dst, message, from, UDP); r[3]&0xf != 0 || r[7] != 1 {
					b.Fatalf("%x", r)
				}
			}
		})
	}
}
