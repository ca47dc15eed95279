package dnsserver

import (
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// FuzzSettings reads arbitrary documents. What is taken makes sense; what is not leaves no secret
// in the error.
func FuzzSettings(f *testing.F) {
	const secret = "sixteen octets!!"
	f.Add(encode(f, &controlpb.Settings{
		MaxUdpSize: 4096, Nsid: true, CookieSecrets: [][]byte{[]byte(secret)}, Resolvers: []string{"10.1.0.53/32"},
		Limits:     &controlpb.Limits{LogOnly: true, Responses: 1, Slip: 2, Queries: 3, Ipv4Prefix: 24, Ipv6Prefix: 56, Exempt: []string{"10.0.0.0/8"}},
		Transports: &controlpb.Transports{NoTcp: true, DotPort: 853, DohPort: 443, HttpdnsPort: 80},
	}))
	f.Add(encode(f, &controlpb.Settings{CookieSecrets: [][]byte{[]byte(secret), []byte(secret[1:])}}))
	f.Add([]byte(secret))
	addresses := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53")}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m controlpb.Settings
		malformed := proto.Unmarshal(body, &m)
		var g groupSettings
		if err := g.take(body); err != nil {
			networks := strings.Join(append(m.GetResolvers(), m.GetLimits().GetExempt()...), " ") // which are no secret
			if strings.Contains(err.Error(), secret[:8]) && !strings.Contains(networks, secret[:8]) {
				t.Errorf("the error quotes the document: %v", err)
			}
			return
		}
		if malformed != nil {
			t.Fatalf("taken, and %v", malformed)
		}
		s, err := settingsFrom(&m, addresses)
		if err != nil {
			t.Fatal(err)
		}
		if s.MaxUDP != 0 && (s.MaxUDP < 512 || s.MaxUDP > zone.MostUDP) || len(s.CookieSecrets) != len(m.GetCookieSecrets()) {
			t.Errorf("taken as %d octets and %d secrets", s.MaxUDP, len(s.CookieSecrets))
		}
		for _, all := range [][]netip.AddrPort{s.Transports.DoT, s.Transports.DoH, s.Transports.HTTPDNS} {
			if len(all) != 0 && len(all) != len(addresses) {
				t.Errorf("a transport is open at %v", all)
			}
		}
	})
}
