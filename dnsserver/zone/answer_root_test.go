package zone

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestRootReferrals serves the IANA root zone as a private root. Every one of its 1,508
// delegations comes with NS, DS and all the glue there is; priming with our servers alone.
func TestRootReferrals(t *testing.T) {
	const ours = ". 86400 SOA ns-a. hostmaster. 1 1800 900 604800 86400\n. 86400 NS ns-a.\n. 86400 NS ns-b.\n" +
		"ns-a. 86400 A 10.0.0.1\nns-a. 86400 AAAA 2001:db8::1\nns-b. 86400 A 10.0.0.2\n"
	records := map[string]map[string][]string{} // by owner and type
	var text strings.Builder
	text.WriteString(ours)
	zp := dns.NewZoneParser(strings.NewReader(rootZone(t)), ".", "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		h := rr.Header()
		if h.Name == "." {
			continue // the internet's own servers and keys
		}
		text.WriteString(rr.String() + "\n")
		if records[h.Name] == nil {
			records[h.Name] = map[string][]string{}
		}
		typ := dns.TypeToString[h.Rrtype]
		records[h.Name][typ] = append(records[h.Name][typ], strings.ToLower(rr.String()))
	}
	if err := zp.Err(); err != nil {
		t.Fatal(err)
	}
	content, version, faults := Load(Root, text.String())
	for _, f := range faults {
		if !f.Warning {
			t.Fatal(f)
		}
	}
	z, err := NewServed(content, version)
	if err != nil {
		t.Fatal(err)
	}
	v, s := viewOf(z), &Scratch{}

	message, _ := question(t, ". NS +edns=1232")
	want := "NOERROR aa edns=1232\nanswer\n  . 86400 IN NS ns-a.\n  . 86400 IN NS ns-b.\n" +
		"additional\n  ns-a. 86400 IN A 10.0.0.1\n  ns-a. 86400 IN AAAA 2001:db8::1\n  ns-b. 86400 IN A 10.0.0.2\n"
	if got := present(t, ask(v, s, message, UDP)); got != want {
		t.Errorf("priming is answered\n%s", got)
	}

	delegations, withDS, truncated := 0, 0, 0
	for _, owner := range slices.Sorted(maps.Keys(records)) {
		here := records[owner]
		if len(here["NS"]) == 0 {
			continue
		}
		delegations++
		authority := slices.Sorted(slices.Values(append(slices.Clone(here["NS"]), here["DS"]...)))
		if len(here["DS"]) > 0 {
			withDS++
		}
		var glue []string
		for _, ns := range here["NS"] {
			server := records[ns[strings.LastIndexByte(ns, '\t')+1:]]
			glue = append(append(glue, server["A"]...), server["AAAA"]...)
		}
		slices.Sort(glue)
		for _, name := range []string{owner, "www.example." + owner} {
			message, _ := question(t, name+" A +do")
			var m dns.Msg
			if err := m.Unpack(ask(v, s, message, TCP)); err != nil {
				t.Fatal(err)
			}
			if m.Authoritative || m.Rcode != dns.RcodeSuccess || len(m.Answer) > 0 {
				t.Errorf("%s is not answered by a referral: %v", name, &m)
			}
			if got := texts(m.Ns); !slices.Equal(got, authority) {
				t.Errorf("%s: authority is\n%s\nwanted\n%s", name, strings.Join(got, "\n"), strings.Join(authority, "\n"))
			}
			if got := texts(m.Extra); !slices.Equal(got, slices.Compact(slices.Clone(glue))) {
				t.Errorf("%s: glue is\n%s\nwanted\n%s", name, strings.Join(got, "\n"), strings.Join(glue, "\n"))
			}
			if err := m.Unpack(ask(v, s, message, UDP)); err != nil {
				t.Fatal(err)
			}
			if got := texts(m.Ns); !slices.Equal(got, authority) {
				t.Errorf("%s: authority over UDP is\n%s", name, strings.Join(got, "\n"))
			}
			if m.Truncated {
				truncated++
			}
		}
	}
	if delegations != 1508 || withDS == 0 {
		t.Errorf("%d delegations, %d with DS", delegations, withDS)
	}
	if truncated > 0 {
		t.Errorf("%d referrals do not fit %d octets", truncated, MaxUDP)
	}
}

func texts(rrs []dns.RR) []string {
	var all []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			all = append(all, strings.ToLower(rr.String()))
		}
	}
	slices.Sort(all)
	return all
}
