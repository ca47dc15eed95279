package workload

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

var client = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// asked counts what a zone answers to questions.
type asked struct {
	all, nxdomain, referral, nodata, edns int
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
		if q.IsEdns0() != nil {
			n.edns++
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

func TestQuestionsAreMixedAsAsked(t *testing.T) {
	const questions = 20_000
	var text strings.Builder
	made := NewZone(5_000)
	if _, err := made.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	apex, err := zone.ParseName(Apex, "")
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
	view := &zone.View{}
	view.Update([]*zone.Served{served}, nil)
	for name, mix := range map[string]Mix{"usual": Usual, "random names alone": {NXDomain: 100}} {
		t.Run(name, func(t *testing.T) {
			got := ask(t, view, made.Questions(questions, mix))
			for kind, c := range map[string][2]int{
				"NXDOMAIN": {got.nxdomain, mix.NXDomain}, "referrals": {got.referral, mix.Referral},
				"NODATA": {got.nodata, mix.NoData}, "EDNS": {got.edns, mix.EDNS},
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
	if !bytes.Equal(a.Questions(500, Usual), b.Questions(500, Usual)) {
		t.Error("questions about one zone differ")
	}
}
