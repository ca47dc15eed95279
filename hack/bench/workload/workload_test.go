package workload

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

var client = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// asked counts what a zone answers to questions.
type asked struct {
	all, nxdomain, referral, nodata, large, edns, cookies int
}

func ask(t *testing.T, view *zone.View, questions Questions) (n asked) {
	t.Helper()
	scratch, reply := &zone.Scratch{}, make([]byte, zone.MaxUDP)
	for rest := questions; len(rest) > 0; n.all++ {
		size := 2 + int(binary.BigEndian.Uint16(rest))
		var q, m dns.Msg
		if err := q.Unpack(rest[2:size]); err != nil {
			t.Fatalf("question %d: %v", n.all, err)
		}
		if err := m.Unpack(view.Answer(scratch, reply, rest[2:size], client, zone.UDP)); err != nil {
			t.Fatal(err)
		}
		if opt := q.IsEdns0(); opt != nil {
			n.edns++
			n.cookies += len(opt.Option)
		}
		if len(m.Answer) > 2 {
			n.large++
		}
		switch {
		case m.Rcode == dns.RcodeNameError:
			n.nxdomain++
		case m.Rcode != dns.RcodeSuccess:
			t.Fatalf("%s: %s", &q, &m)
		case !m.Authoritative:
			n.referral++
		case len(m.Answer) == 0:
			n.nodata++
		}
		rest = rest[size:]
	}
	return n
}

// serve makes a view of zones.
func serve(t *testing.T, zones Zones) *zone.View {
	t.Helper()
	view := &zone.View{}
	var all []*zone.Served
	for _, made := range zones {
		var text strings.Builder
		if _, err := made.WriteTo(&text); err != nil {
			t.Fatal(err)
		}
		apex, err := zone.ParseName(made.Apex(), "")
		if err != nil {
			t.Fatal(err)
		}
		content, version, faults := zone.Load(apex, text.String())
		if len(faults) > 0 {
			t.Fatal(faults[0])
		}
		served, err := zone.NewServed(content, version)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, served)
	}
	view.Update(all, nil)
	return view
}

func TestQuestionsAreMixedAsAsked(t *testing.T) {
	const questions = 20_000
	one := Zones{NewZone(5_000)}
	for name, tc := range map[string]struct {
		zones Zones
		mix   Mix
	}{
		"usual":              {one, Usual},
		"random names alone": {one, Mix{NXDomain: 100}},
		"large RRsets":       {one, Mix{Large: 100, EDNS: 100}},
		"cookies":            {one, Mix{EDNS: 70, Cookies: 20}},
		"many zones":         {NewZones(200, 20), Usual},
	} {
		t.Run(name, func(t *testing.T) {
			got, mix := ask(t, serve(t, tc.zones), tc.zones.Questions(questions, tc.mix, []byte("12345678"))), tc.mix
			for kind, c := range map[string][2]int{
				"NXDOMAIN": {got.nxdomain, mix.NXDomain}, "referrals": {got.referral, mix.Referral},
				"NODATA": {got.nodata, mix.NoData}, "EDNS": {got.edns, mix.EDNS}, "large": {got.large, mix.Large}, "cookies": {got.cookies, mix.Cookies},
			} {
				if share := 100 * float64(c[0]) / questions; share < float64(c[1])-1 || share > float64(c[1])+1 {
					t.Errorf("%s: %.1f%%, wanted %d%%", kind, share, c[1])
				}
			}
			if got.all != questions {
				t.Errorf("%d questions, wanted %d", got.all, questions)
			}
		})
	}
}

func TestEqualArgumentsMakeEqualWork(t *testing.T) {
	a, b := NewZone(1000), NewZone(1000)
	if a.text.String() != b.text.String() {
		t.Error("two zones of one size differ")
	}
	if !bytes.Equal(Zones{a}.Questions(500, Usual, nil), Zones{b}.Questions(500, Usual, nil)) {
		t.Error("questions about one zone differ")
	}
}

// TestSteeredQuestionsAreForNetworks: clients are where networks are, and say so in options that can be read.
func TestSteeredQuestionsAreForNetworks(t *testing.T) {
	all := Networks()
	within := func(a netip.Addr) bool {
		return slices.ContainsFunc(all, func(n Network) bool { return n.Prefix.Contains(a) })
	}
	for name, tc := range map[string]struct{ ipv6 bool }{"IPv4": {false}, "IPv6": {true}} {
		t.Run(name, func(t *testing.T) {
			inside := 0
			questions := SteeredQuestions(200, true, tc.ipv6)
			for rest := questions[2+len(questions.First()):]; len(rest) > 0; {
				size := 2 + int(binary.BigEndian.Uint16(rest))
				var m dns.Msg
				if err := m.Unpack(rest[2:size]); err != nil {
					t.Fatal(err)
				}
				subnet, ok := m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET)
				if !ok {
					t.Fatalf("no ECS: %s", &m)
				}
				if address, ok := netip.AddrFromSlice(subnet.Address); ok && within(address.Unmap()) {
					inside++
				}
				rest = rest[size:]
			}
			if inside < 100 {
				t.Errorf("%d of 200 clients are in a network", inside)
			}
		})
	}
	for _, source := range Sources(64) {
		if !source.IsLoopback() {
			t.Errorf("%s is no address of this machine", source)
		}
	}
}
