package dnsserver

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func encode(t testing.TB, m *controlpb.Settings) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestSettingsAreReadFromTheirDocument(t *testing.T) {
	addresses := []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53"), netip.MustParseAddrPort("192.0.2.1:5353"),
	}
	secret := strings.Repeat("s", 16)
	got, err := settingsFrom(&controlpb.Settings{
		MaxUdpSize: 4096, Nsid: true, CookieSecrets: [][]byte{[]byte(secret), []byte(strings.Repeat("t", 16))}, Resolvers: []string{"10.1.0.53/32", "2001:db8:a::/48"},
		Limits:     &controlpb.Limits{LogOnly: true, Responses: 1, Slip: 2, Queries: 3, Ipv4Prefix: 24, Ipv6Prefix: 56, Exempt: []string{"10.0.0.0/8"}},
		Transports: &controlpb.Transports{NoTcp: true, DotPort: 853, HttpdnsPort: 80},
	}, addresses)
	if err != nil {
		t.Fatal(err)
	}
	at := func(port uint16) []netip.AddrPort {
		return []netip.AddrPort{netip.AddrPortFrom(addresses[0].Addr(), port), netip.AddrPortFrom(addresses[1].Addr(), port)}
	}
	want := Settings{
		MaxUDP: 4096, NSID: true, CookieSecrets: [][16]byte{[16]byte([]byte(secret)), [16]byte([]byte(strings.Repeat("t", 16)))},
		Resolvers:  []netip.Prefix{netip.MustParsePrefix("10.1.0.53/32"), netip.MustParsePrefix("2001:db8:a::/48")},
		Limits:     Limits{LogOnly: true, Responses: 1, Slip: 2, Queries: 3, IPv4Prefix: 24, IPv6Prefix: 56, Exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		Transports: Transports{NoTCP: true, DoT: at(853), HTTPDNS: at(80)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v\nwant %+v", got, want)
	}
	if got, err := settingsFrom(&controlpb.Settings{}, addresses); err != nil || !reflect.DeepEqual(got, Settings{}) {
		t.Errorf("the defaults are %+v, %v", got, err)
	}
}

func TestSettingsThatCannotBeReadSaySoWithoutSecrets(t *testing.T) {
	const secret = "c2VjcmV0"
	for name, test := range map[string]struct {
		body []byte
		want string
	}{
		"no message":            {[]byte(secret), "can't be read"},
		"a secret too short":    {encode(t, &controlpb.Settings{CookieSecrets: [][]byte{[]byte(secret)}}), "cookie secret 1 has 8 octets"},
		"a resolver's name":     {encode(t, &controlpb.Settings{Resolvers: []string{"resolver"}}), "networks of resolvers"},
		"an exempt address":     {encode(t, &controlpb.Settings{Limits: &controlpb.Limits{Exempt: []string{"10.0.0.1"}}}), "networks of exempt clients"},
		"a port too high":       {encode(t, &controlpb.Settings{Transports: &controlpb.Transports{DohPort: 65536}}), "no port"},
		"a size out of bounds":  {encode(t, &controlpb.Settings{MaxUdpSize: 9000}), "9000"},
		"a rate out of bounds":  {encode(t, &controlpb.Settings{Limits: &controlpb.Limits{Queries: 1 << 31}}), "queries"},
		"a prefix out of range": {encode(t, &controlpb.Settings{Limits: &controlpb.Limits{Ipv4Prefix: 33}}), "33"},
	} {
		t.Run(name, func(t *testing.T) {
			var g groupSettings
			err := g.take(test.body)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("refused with %v, want %q", err, test.want)
			}
			if g.message != nil {
				t.Error("it is kept for the server")
			}
		})
	}
}

func TestADocumentThatNobodyKnowsIsTaken(t *testing.T) {
	var d documents
	got := ""
	d.handle("settings", func(body []byte) error { got = string(body); return nil })
	for _, kind := range []string{"of-a-later-version", "settings"} {
		if err := d.take(kind, []byte(kind)); err != nil {
			t.Error(err)
		}
	}
	if got != "settings" {
		t.Errorf("handled %q", got)
	}
}

// awaitLongAnswer asks for an answer of some 3,000 octets until it comes whole, or cut: queries that were
// on their way when settings changed are answered by these or those.
func awaitLongAnswer(t testing.TB, s *Server, whole bool) {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion("long.example.test.", dns.TypeTXT)
	q.SetEdns0(4096, false)
	for range 5 {
		m := exchangeWith(t, "udp", s.Addresses()[0], q)
		if m.Truncated != whole {
			if whole && len(m.Answer) != 13 {
				t.Errorf("a whole answer has %d records", len(m.Answer))
			}
			return
		}
	}
	t.Errorf("the answer is not whole=%v", whole)
}

const longZone = `$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 10.0.0.1
`

func TestSettingsTakeEffectAtOnceAndBeforeTheHubIsMet(t *testing.T) {
	text := longZone
	for range 13 {
		text += "long TXT \"" + strings.Repeat(string(rune('a'+strings.Count(text, "long"))), 220) + "\"\n"
	}
	serveLong := func() *Server {
		view := &zone.View{}
		view.Update([]*zone.Served{loadZone(t, "example.test", text)}, nil)
		return serve(t, Options{Addresses: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, View: view, Log: testr.New(t), Identity: "auth-1"})
	}
	large := encode(t, &controlpb.Settings{MaxUdpSize: 4096, Nsid: true})

	var g groupSettings
	if err := g.take(large); err != nil { // from disk: there is no server yet
		t.Fatal(err)
	}
	s := serveLong()
	awaitLongAnswer(t, s, false)
	if err := g.configure(s); err != nil {
		t.Fatal(err)
	}
	awaitLongAnswer(t, s, true)
	if err := g.take(encode(t, &controlpb.Settings{})); err != nil { // from the hub
		t.Fatal(err)
	}
	awaitLongAnswer(t, s, false)
	if err := g.take(encode(t, &controlpb.Settings{MaxUdpSize: 100})); err == nil {
		t.Error("settings without sense are taken")
	}
	if tried, _ := g.retry(); tried {
		t.Error("there was nothing to try again")
	}
}

func TestATransportThatCannotBeOpenedIsTriedAgain(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint32(taken.Addr().(*net.TCPAddr).Port)
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(t)}, nil)
	s := serve(t, Options{Addresses: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, View: view, Log: logr.Discard()})
	var g groupSettings
	body := encode(t, &controlpb.Settings{MaxUdpSize: 4096, Transports: &controlpb.Transports{HttpdnsPort: port}})
	if err := g.take(body); err != nil {
		t.Fatal(err)
	}
	if err := g.configure(s); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port in use says %v", err)
	}
	if err := g.take(body); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port in use says %v to the hub", err)
	}
	if tried, err := g.retry(); !tried || err == nil {
		t.Errorf("tried again: %v, %v", tried, err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	if tried, err := g.retry(); !tried || err != nil {
		t.Errorf("tried again: %v, %v", tried, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", taken.Addr().String())
	if err != nil {
		t.Fatalf("nobody listens now: %v", err)
	}
	_ = conn.Close()
	if tried, _ := g.retry(); tried {
		t.Error("there is nothing to try again")
	}
}
