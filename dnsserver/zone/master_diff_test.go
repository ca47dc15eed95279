package zone

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// zoneWriter writes random master files in all the forms that RFC 1035 §5.1 leaves open.
type zoneWriter struct {
	*rand.Rand
	text  strings.Builder
	lines int
	// starts are the lines on which an entry with an owner of its own starts.
	starts []int
}

func (w *zoneWriter) pick(s ...string) string { return s[w.IntN(len(s))] }

func (w *zoneWriter) chance(percent int) bool { return w.IntN(100) < percent }

func (w *zoneWriter) name() string {
	return w.pick("a", "B", "c.d", "WWW", "*", "*.e", "@", "x\\.y", "z\\032z", "\\255", "_tcp.f", "g.example.", "H.Other.", "q-1", "\\@", "w\\;w")
}

func (w *zoneWriter) ttl() string {
	return w.pick("0", "60", "3600", "1h", "1H30m", "2d", "1w", "86400")
}

func (w *zoneWriter) hex(octets int) string {
	var s strings.Builder
	for range octets {
		fmt.Fprintf(&s, w.pick("%02x", "%02X"), w.IntN(256))
	}
	return s.String()
}

func (w *zoneWriter) texts() []string {
	var s []string
	for range 1 + w.IntN(3) {
		s = append(s, w.pick("plain", `"quoted"`, `""`, `"with blank"`, `"semi;colon (paren"`, `"esc\"aped\\"`, `"\000\127\255"`, `es\;c`, `"`+strings.Repeat("x", w.IntN(256))+`"`))
	}
	return s
}

// record returns a type and the words of its rdata.
func (w *zoneWriter) record() (typ string, rdata []string) {
	n := func(limit int) string { return fmt.Sprint(w.IntN(limit)) }
	switch typ = w.pick("A", "AAAA", "NS", "CNAME", "PTR", "DNAME", "MX", "SRV", "TXT", "SPF", "CAA", "SOA", "DS", "SSHFP", "TLSA",
		"NAPTR", "HTTPS", "SVCB", "HINFO", "RP", "AFSDB", "KX", "MINFO", "URI", "LOC", "APL", "DNSKEY", "OPENPGPKEY", "EUI48", "TYPE731", "TYPE1"); typ {
	case "A":
		return typ, []string{fmt.Sprintf("%d.%d.%d.%d", w.IntN(256), w.IntN(256), w.IntN(256), w.IntN(256))}
	case "AAAA":
		return typ, []string{w.pick("::", "::1", "2001:DB8::a", "::ffff:1.2.3.4", "fe80:0:0:0:1:2:3:4")}
	case "NS", "CNAME", "PTR", "DNAME":
		return typ, []string{w.name()}
	case "MX", "AFSDB", "KX":
		return typ, []string{n(65536), w.name()}
	case "SRV":
		return typ, []string{n(65536), n(65536), n(65536), w.name()}
	case "TXT", "SPF":
		return typ, w.texts()
	case "HINFO":
		return typ, []string{w.pick("pc", `"x y"`), w.pick("os", `"a b"`)}
	case "CAA":
		return typ, []string{w.pick("0", "128"), w.pick("issue", "issuewild", "iodef"), w.pick(`"ca.example"`, `"ca; a=b"`, `";"`)}
	case "SOA":
		return typ, []string{w.name(), w.name(), fmt.Sprint(w.Uint32()), w.ttl(), w.ttl(), w.ttl(), n(1 << 31)}
	case "DS":
		return typ, []string{n(65536), w.pick("8", "13", "RSASHA256"), "2", w.hex(16), w.hex(16)}
	case "SSHFP":
		return typ, []string{"4", "2", w.hex(32)}
	case "TLSA":
		return typ, []string{n(4), n(2), "1", w.hex(20), w.hex(12)}
	case "NAPTR":
		return typ, []string{n(65536), n(65536), w.pick(`"u"`, `""`), w.pick(`"E2U+sip"`, `""`), w.pick(`"!^.*$!sip:a@b!"`, `""`), w.name()}
	case "HTTPS", "SVCB":
		return typ, append([]string{n(65536), w.pick(".", "svc", "g.example.")},
			w.pick("alpn=h2", `alpn="h2,h3"`, "alpn=h3 port=443 mandatory=port", "ipv4hint=1.2.3.4,5.6.7.8", "key65000=ab", "alpn=h2 no-default-alpn", "ipv6hint=::1 ech=AAAA", ""))
	case "RP", "MINFO":
		return typ, []string{w.name(), w.name()}
	case "URI":
		return typ, []string{n(65536), n(65536), `"https://x/y z"`}
	case "LOC":
		return typ, []string{n(90), n(60), n(60), "N", n(180), n(60), n(60), "E", "10m"}
	case "APL":
		return typ, []string{"1:10.0.0.0/8", "!2:2001:db8::/32"}
	case "DNSKEY":
		return typ, []string{"257", "3", "8", "AwEA", "AQ=="}
	case "OPENPGPKEY":
		return typ, []string{"AwEA", "AQ=="}
	case "EUI48":
		return typ, []string{"00-00-5e-00-53-2a"}
	case "TYPE1":
		return typ, []string{`\#`, "4", w.hex(4)}
	default:
		size := 1 + w.IntN(20)
		return typ, []string{`\#`, fmt.Sprint(size + 2), w.hex(size), w.hex(2)}
	}
}

func (w *zoneWriter) line(s string) {
	w.text.WriteString(s)
	w.lines += strings.Count(s, "\n")
}

func (w *zoneWriter) blank() string { return w.pick(" ", "\t", "  ", "\t\t ") }

// write makes a file of so many entries.
func (w *zoneWriter) write(entries int) string {
	w.line("$TTL 300\nfirst A 10.0.0.1\n")
	for range entries {
		switch {
		case w.chance(5):
			w.line(w.pick("\n", "; a comment ( \"\n", "   \n", "\t; x\n"))
			continue
		case w.chance(3):
			w.line("$TTL" + w.blank() + w.ttl() + w.pick("\n", " ; c\n"))
			continue
		case w.chance(3):
			w.line("$ORIGIN" + w.blank() + w.pick("example.", "sub", "a.b", "sub.example.", "other.") + "\n")
			continue
		}
		entry := ""
		if w.chance(70) {
			entry = w.name()
			w.starts = append(w.starts, w.lines+1)
		}
		entry += w.blank()
		typ, rdata := w.record()
		ttl, class := w.ttl()+w.blank(), w.pick("IN", "in", "CLASS1")+w.blank()
		entry += w.pick("", ttl, class, ttl+class, class+ttl) + w.pick(typ, strings.ToLower(typ))
		opened := false
		for _, word := range rdata {
			entry += w.blank()
			switch {
			case !opened && w.chance(5):
				opened = true
				entry += "( "
			case opened && w.chance(20):
				entry += w.pick("\n", "; c ) \"\n", "\n\n\t", "\n  ")
			case opened && w.chance(10):
				opened = false
				entry += ") "
			}
			entry += word
		}
		if opened {
			entry += w.pick(" )", "\n)")
		}
		w.line(entry + w.pick("\n", " \n", " ; comment\n", "\r\n"))
	}
	return w.text.String()
}

type plainRecord struct {
	owner Name
	typ   uint16
	ttl   uint32
	rdata string
}

func (r plainRecord) String() string {
	return fmt.Sprintf("%s %d %s %s", r.owner, r.ttl, TypeString(r.typ), RDataString(r.typ, r.rdata))
}

// trusted reads a master file with miekg/dns.
func trusted(t testing.TB, text string, origin Name) []plainRecord {
	t.Helper()
	var records []plainRecord
	zp := dns.NewZoneParser(strings.NewReader(text), origin.String(), "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		wire := make([]byte, dns.Len(rr)+1024)
		end, err := dns.PackRR(rr, wire, 0, nil, false)
		if err != nil {
			t.Fatalf("%v: %v", rr, err)
		}
		owner, size, err := NameFromWire(wire)
		if err != nil {
			t.Fatal(err)
		}
		// The reader keeps names in rdata in lower case; miekg/dns as they are written.
		rdata, err := CheckRData(rr.Header().Rrtype, wire[size+10:end])
		if err != nil {
			t.Fatalf("%v: %v", rr, err)
		}
		records = append(records, plainRecord{owner, rr.Header().Rrtype, rr.Header().Ttl, string(rdata)})
	}
	if err := zp.Err(); err != nil {
		t.Fatalf("the trusted parser: %v", err)
	}
	return records
}

func read(text string, origin Name) (records []plainRecord, faults []*Fault) {
	for r, fault := range ParseMaster(text, origin) {
		if fault != nil {
			faults = append(faults, fault)
		} else {
			records = append(records, plainRecord{r.Owner, r.Type, r.TTL, string(r.RData)})
		}
	}
	return records, faults
}

func requireSame(t testing.TB, got, want []plainRecord) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("record %d is missing: %v", i, want[i])
		case i >= len(want):
			t.Fatalf("record %d is too much: %v", i, got[i])
		case got[i] != want[i]:
			t.Fatalf("record %d is\n%v, want\n%v", i, got[i], want[i])
		}
	}
}

// TestAgreesWithTrustedParser: on files that miekg/dns takes, both read the same records.
func TestAgreesWithTrustedParser(t *testing.T) {
	origin := mustName(t, "example.")
	for seed := range uint64(300) {
		w := zoneWriter{Rand: rand.New(rand.NewPCG(seed, 0))}
		text := w.write(100)
		got, faults := read(text, origin)
		if len(faults) > 0 {
			t.Fatalf("seed %d: %v\n%s", seed, faults[0], faults[0].Text)
		}
		requireSame(t, got, trusted(t, text, origin))
	}
	got, faults := read(rootZone(t), Root)
	if len(faults) > 0 {
		t.Fatal(faults[0])
	}
	requireSame(t, got, trusted(t, rootZone(t), Root))
}

// TestFaultsStayAlone: an entry at fault is reported with its line, and all other records
// are read as if it were not there.
func TestFaultsStayAlone(t *testing.T) {
	bad := []string{
		"bad A 10.0.0.256\n", "bad 60 IN MX ten mail\n", "bad TXT \"open\n", "bad A 10.0.0.1 )\n", "bad BOGUS x\n", "bad CH A 10.0.0.1\n",
		"b..d A 10.0.0.1\n", "$INCLUDE x\n", "$TTL x\n", "bad HTTPS 1 . alpn=\"h2\n", "bad A ( 10.0.0.1 10.0.0.2 )\n", "bad TXT ( \"open\n \"x\" )\n",
		"bad A 10.0.0.1 \\\n", "bad SOA ( a b\n 1 x )\n", "bad A ( (10.0.0.1) )\n", "bad 99999999999 A 10.0.0.1\n", "bad\n", "bad LOC x\n",
	}
	origin := mustName(t, "example.")
	for seed := range uint64(300) {
		w := zoneWriter{Rand: rand.New(rand.NewPCG(seed, 1))}
		text := w.write(30)
		want, _ := read(text, origin)
		at := w.starts[w.IntN(len(w.starts))]
		lines := strings.SplitAfter(text, "\n")
		entry := bad[int(seed)%len(bad)]
		damaged := strings.Join(slices.Concat(lines[:at-1], []string{entry}, lines[at-1:]), "")
		got, faults := read(damaged, origin)
		if len(faults) != 1 || faults[0].Line < at || faults[0].Line >= at+strings.Count(entry, "\n") {
			t.Fatalf("seed %d: %q in line %d gives faults %v", seed, entry, at, faults)
		}
		requireSame(t, got, want)
	}
}
