package resolver

import (
	"cmp"
	"crypto"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signedZone is a zone with DNSSEC (RFC 4034), whose names have one label below the apex. It implements dns.Handler.
type signedZone struct {
	t       testing.TB
	apex    string
	key     *dns.DNSKEY
	private crypto.Signer
	sets    map[string]map[uint16][]dns.RR
	glue    []dns.RR
}

// signZone returns the zone of the records. The apex's SOA and DNSKEY are added. Addresses that come after the NS records of a
// name above are glue.
func signZone(t testing.TB, apex string, records ...string) *signedZone {
	t.Helper()
	z := &signedZone{t: t, apex: apex, sets: map[string]map[uint16][]dns.RR{}}
	z.key = &dns.DNSKEY{Hdr: dns.RR_Header{Name: apex, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	private, err := z.key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	z.private = private.(crypto.Signer)
	z.add(z.key)
	for _, text := range append(records, apex+" 3600 IN SOA ns.corp. hostmaster.corp. 1 1800 900 604800 60") {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		if z.cut(rr.Header().Name) != "" && rr.Header().Name != z.cut(rr.Header().Name) {
			z.glue = append(z.glue, rr)
			continue
		}
		z.add(rr)
	}
	names := slices.SortedFunc(maps.Keys(z.sets), z.order)
	for i, name := range names {
		next := names[(i+1)%len(names)]
		nsec := &dns.NSEC{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}, NextDomain: next}
		nsec.TypeBitMap = append(slices.Collect(maps.Keys(z.sets[name])), dns.TypeRRSIG, dns.TypeNSEC)
		slices.Sort(nsec.TypeBitMap)
		z.add(nsec)
	}
	return z
}

func (z *signedZone) add(rr dns.RR) {
	h := rr.Header()
	if z.sets[h.Name] == nil {
		z.sets[h.Name] = map[uint16][]dns.RR{}
	}
	z.sets[h.Name][h.Rrtype] = append(z.sets[h.Name][h.Rrtype], rr)
}

// order is the canonical one (RFC 4034 §6.1) of names with at most one label below the apex.
func (z *signedZone) order(a, b string) int {
	return cmp.Or(cmp.Compare(dns.CountLabel(a), dns.CountLabel(b)), strings.Compare(a, b))
}

// cut is the name of the delegation that a name belongs to, or "".
func (z *signedZone) cut(name string) string {
	for owner, sets := range z.sets {
		if owner != z.apex && sets[dns.TypeNS] != nil && dns.IsSubDomain(owner, name) {
			return owner
		}
	}
	return ""
}

// signed is a set with its signature. The set of the name "bogus" has that of other data.
func (z *signedZone) signed(name string, rrtype uint16) []dns.RR {
	set := z.sets[name][rrtype]
	if len(set) == 0 {
		return nil
	}
	sig := &dns.RRSIG{
		Hdr:       dns.RR_Header{Name: name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: set[0].Header().Ttl},
		Algorithm: z.key.Algorithm, SignerName: z.apex, KeyTag: z.key.KeyTag(),
		Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(time.Hour).Unix()),
	}
	if err := sig.Sign(z.private, set); err != nil {
		z.t.Errorf("signing %s: %v", name, err)
	}
	if a, ok := set[0].(*dns.A); ok && strings.HasPrefix(name, "bogus.") {
		other := *a
		other.A = []byte{198, 18, 6, 6}
		set = []dns.RR{&other}
	}
	return append(slices.Clone(set), sig)
}

// ServeDNS implements dns.Handler.
func (z *signedZone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.Compress = true, true
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(1232, o.Do())
	}
	name, rrtype := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	cut := z.cut(name)
	switch {
	case cut != "" && (name != cut || rrtype != dns.TypeDS):
		m.Authoritative = false
		m.Ns = append(slices.Clone(z.sets[cut][dns.TypeNS]), z.signed(cut, dns.TypeDS)...)
		m.Extra = append(slices.Clone(z.glue), m.Extra...)
	case z.sets[name][rrtype] != nil:
		m.Answer = z.signed(name, rrtype)
	default:
		m.Ns = z.signed(z.apex, dns.TypeSOA)
		denied := []string{name}
		if z.sets[name] == nil {
			m.Rcode = dns.RcodeNameError
			denied = append(denied, "*."+strings.TrimPrefix(z.apex, "."))
		}
		shown := map[string]bool{}
		for _, d := range denied {
			before := z.apex
			for owner := range z.sets {
				if z.order(owner, d) <= 0 && z.order(owner, before) > 0 {
					before = owner
				}
			}
			if !shown[before] {
				m.Ns = append(m.Ns, z.signed(before, dns.TypeNSEC)...)
			}
			shown[before] = true
		}
	}
	_ = w.WriteMsg(m)
}
