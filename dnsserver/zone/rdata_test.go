package zone

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestParseRDataOfManifests(t *testing.T) {
	origin := Name("\x03com\x00")
	long := strings.Repeat("x", 300)
	for rule, c := range map[string]struct {
		typ  string
		text string
		want string // presentation form, or what the error ends in
	}{
		"names without a dot are relative":         {"MX", "10 mail", "10 mail.com."},
		"names with a dot are absolute":            {"MX", "10 mail.Example.ORG.", "10 mail.example.org."},
		"@ is the origin":                          {"NS", "@", "com."},
		"blanks around do not matter":              {"A", "  10.0.0.1\n", "10.0.0.1"},
		"lines are joined":                         {"SOA", "ns host (\n1 2\n3 4 5 )\n", "ns.com. host.com. 1 2 3 4 5"},
		"lines are joined without parentheses too": {"SRV", "1 2\n3 sip", "1 2 3 sip.com."},
		"TXT needs no quotes":                      {"TXT", "v=spf1 mx -all", `"v=spf1 mx -all"`},
		"a semicolon is no comment":                {"TXT", "v=DKIM1; k=rsa; p=AA(==", `"v=DKIM1; k=rsa; p=AA(=="`},
		"escapes count in TXT without quotes":      {"TXT", `v=DKIM1\; k\061rsa`, `"v=DKIM1; k=rsa"`},
		"quoted TXT is one text each":              {"TXT", `"a b" "c"`, `"a b" "c"`},
		"quoted TXT may have parentheses":          {"TXT", "( \"a\"\n\"b\" )", `"a" "b"`},
		"an empty text needs quotes":               {"TXT", `""`, `""`},
		"no TXT at all is an error":                {"TXT", " ", "TXT wants TEXT...: text is missing"},
		"a long text is divided":                   {"TXT", long, `"` + long[:255] + `" "` + long[255:] + `"`},
		"a long quoted text is an error":           {"TXT", `"` + long + `"`, "is longer than 255 octets: divide it into several quoted texts"},
		"quotes inside TXT stay":                   {"TXT", `say "hi"`, `"say \"hi\""`},
		"CAA takes a lone semicolon":               {"CAA", "0 issue ;", `0 issue ";"`},
		"CAA values with blanks need quotes":       {"CAA", "0 issue ca; a=1", `CAA wants FLAGS TAG VALUE: "a=1" is left over`},
		"any type can be octets":                   {"A", `\# 4 0a000001`, "10.0.0.1"},
		"TXT can be octets":                        {"TXT", `\# 2 0161`, `"a"`},
		"octets must fit the type":                 {"AAAA", `\# 4 0a000001`, "AAAA wants ADDRESS: address is cut short or not well formed"},
		"names in octets are folded":               {"NS", `\# 3 014100`, "a."},
		"unknown types are octets":                 {"TYPE731", `\# 2 abcd`, `\# 2 abcd`},
		"unknown types have no other form":         {"TYPE731", "abcd", `write the rdata as \# LENGTH HEX (RFC 3597)`},
		"types of others keep semicolons":          {"NINFO", `"1;2" 3;4`, `\# 8 03313b3203333b34`},
		"query types are no data":                  {"AXFR", "", "type AXFR is for queries and transactions, zones have no such records"},
		"an open quote is an error":                {"TXT", `"a`, "the quote is not closed in its line"},
		"an open parenthesis is an error":          {"A", "( 10.0.0.1", "the parenthesis is never closed"},
		"nothing is an error":                      {"MX", "", "MX wants PREFERENCE HOST: preference is missing"},
		"CNAME wants one name":                     {"CNAME", "a b", `CNAME wants HOST: "b" is left over`},
		"a name too long is an error":              {"CNAME", strings.Repeat("abcdefg.", 32), "is longer than 255 octets"},
		"HTTPS in alias form":                      {"HTTPS", "0 cdn.example.net.", "0 cdn.example.net."},
		"types of others are checked by the wire":  {"LOC", "91 N 0 E 0", `LOC: bad LOC Latitude: "91"`},
	} {
		typ, ok := TypeFromString(c.typ)
		if !ok {
			t.Fatal(c.typ)
		}
		rdata, err := ParseRData(typ, c.text, origin)
		if err != nil {
			got := err.Error()
			if !strings.HasSuffix(got, c.want) {
				t.Errorf("%s: error is %q, want one that ends in %q", rule, got, c.want)
			}
			continue
		}
		if got := RDataString(typ, string(rdata)); got != c.want {
			t.Errorf("%s: %s %q is %s, want %s", rule, c.typ, c.text, got, c.want)
		}
	}
}

func TestParseRDataWithoutOrigin(t *testing.T) {
	for typ, text := range map[uint16]string{TypeNS: "a", 107: "10 a"} { // NS, LP
		rdata, err := ParseRData(typ, text, "")
		if err != nil || !bytes.HasSuffix(rdata, []byte("\x01a\x00")) {
			t.Errorf("%s %s is %x, %v", TypeString(typ), text, rdata, err)
		}
	}
}

func TestRDataThatDoesNotFitIsShownAsOctets(t *testing.T) {
	for _, c := range []struct {
		typ   uint16
		rdata string
	}{
		{TypeA, "0a0000"}, {TypeNS, "c00c"}, {TypeMX, "00"}, {TypeTXT, ""}, {TypeTXT, "0261"}, {TypeDS, "000108"},
		{TypeDS, "0001080100"}, {typeCAA, "000120"}, {TypeHTTPS, "0001"}, {TypeHTTPS, "0001000003000100"}, {TypeHTTPS, "000100ffff0000"},
		{29, "00"}, {TypeSOA, "0000"}, {typeAPL, "0001"}, {731, "00"}, {TypeOPT, "00"},
	} {
		rdata, err := hex.DecodeString(c.rdata)
		if err != nil {
			t.Fatal(err)
		}
		if got := RDataString(c.typ, string(rdata)); !isGeneric(got) {
			t.Errorf("%s of %s is %s", TypeString(c.typ), c.rdata, got)
		}
		if _, err := CheckRData(c.typ, rdata); err == nil && c.typ != 731 {
			t.Errorf("%s takes %s", TypeString(c.typ), c.rdata)
		}
	}
}

func TestTypes(t *testing.T) {
	for text, want := range map[string]int{
		"A": 1, "aaaa": 28, "https": 65, "TYPE65": 65, "type731": 731, "TYPE65535": 65535, "ANY": 255,
		"": -1, "TYPE": -1, "TYPE65536": -1, "TYPE-1": -1, "TYPE+1": -1, "None": -1, "Reserved": -1, "IN": -1, "NOSUCHTYPEATALLHERE": -1,
	} {
		typ, ok := TypeFromString(text)
		if ok != (want >= 0) || ok && int(typ) != want {
			t.Errorf("TypeFromString(%q) = %d, %t", text, typ, ok)
		}
	}
	for typ := range 1 << 16 {
		s := TypeString(uint16(typ))
		if back, ok := TypeFromString(s); !ok || int(back) != typ {
			t.Fatalf("type %d is %s, which is %d", typ, s, back)
		}
	}
	for typ, want := range map[uint16]bool{0: false, 1: true, 41: false, 127: true, 128: false, 249: false, 255: false, 256: true, 65280: true, 65535: false} {
		if IsData(typ) != want {
			t.Errorf("IsData(%d) = %t", typ, !want)
		}
	}
}

// FuzzRData: rdata that fits its type comes back from its presentation form as it was.
func FuzzRData(f *testing.F) {
	for typ, rdata := range map[uint16]string{
		TypeA: "0a000001", TypeMX: "000a016100", TypeTXT: "0161", TypeHTTPS: "00010000010003026832", typeCAA: "000569737375653b",
		TypeNAPTR: "000100010175017800000", 29: "00121613 8b0cf2c8 80000000 00989680", 42: "00010801 0a", 55: "1002000420 0100", TypeDS: "0001080100",
	} {
		b, _ := hex.DecodeString(strings.ReplaceAll(rdata, " ", ""))
		f.Add(typ, b)
	}
	for typ := range mnemonics {
		f.Add(typ, make([]byte, 20))
	}
	f.Fuzz(func(t *testing.T, typ uint16, rdata []byte) {
		checked, err := CheckRData(typ, bytes.Clone(rdata))
		if err != nil {
			if _, ok := layouts[typ]; ok && !isGeneric(RDataString(typ, string(rdata))) {
				t.Errorf("%s of bad rdata %x is %s", TypeString(typ), rdata, RDataString(typ, string(rdata)))
			}
			return
		}
		text := RDataString(typ, string(checked))
		again, err := ParseRData(typ, text, Root)
		if err != nil || !bytes.Equal(again, checked) {
			t.Errorf("%s of %x is %s, which is %x, %v", TypeString(typ), checked, text, again, err)
		}
	})
}

// FuzzParseRData: texts of values never stop the reader, and what is taken fits its type.
func FuzzParseRData(f *testing.F) {
	for typ, text := range map[uint16]string{
		TypeMX: "10 mail", TypeTXT: "v=spf1; -all", TypeHTTPS: `1 . alpn="h2,h3"`, 29: "51 30 12 N 0 7 39 W 0", 1: `\# 4 01020304`, typeCAA: `0 issue "x;y"`,
	} {
		f.Add(typ, text)
	}
	for typ := range mnemonics {
		f.Add(typ, "1 2 3 a. AQ== 00")
	}
	f.Fuzz(func(t *testing.T, typ uint16, text string) {
		rdata, err := ParseRData(typ, text, "\x01o\x00")
		if err != nil {
			return
		}
		checked, err := CheckRData(typ, bytes.Clone(rdata))
		if err != nil || !bytes.Equal(checked, rdata) {
			t.Errorf("%s %q is %x, which checks as %x, %v", TypeString(typ), text, rdata, checked, err)
		}
	})
}
