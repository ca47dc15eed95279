package zone

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// rootZone is the IANA root zone of 2020-09-13, without its SOA.
func rootZone(t testing.TB) string {
	t.Helper()
	f, err := os.Open("testdata/root.zone.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// recordText is "line owner TTL type rdata"; the TTL is - where there is none.
func recordText(r Record) string {
	ttl := "-"
	if r.HasTTL {
		ttl = fmt.Sprint(r.TTL)
	}
	return fmt.Sprintf("%d %s %s %s %s", r.Line, r.Owner, ttl, TypeString(r.Type), RDataString(r.Type, string(r.RData)))
}

func faultText(f *Fault) string {
	severity := f.Reason()
	if f.Warning {
		severity += " (warning)"
	}
	s := fmt.Sprintf("%s: %v\n", severity, f)
	if f.Text != "" {
		s += "    " + f.Text + "\n"
	}
	return s
}

func TestParseMaster(t *testing.T) {
	golden(t, "testdata/master/*.txtar", func(t *testing.T, in string) map[string]string {
		t.Helper()
		var records, faults strings.Builder
		for r, fault := range ParseMaster(in, mustName(t, "example.")) {
			if fault != nil {
				faults.WriteString(faultText(fault))
			} else {
				fmt.Fprintln(&records, recordText(r))
			}
		}
		return map[string]string{"want.records": records.String(), "want.faults": faults.String()}
	})
}

// TestRootZone: every record of the real root zone is read and goes through its
// presentation form unchanged.
func TestRootZone(t *testing.T) {
	count := 0
	for r, fault := range ParseMaster(rootZone(t), Root) {
		if fault != nil {
			t.Fatal(fault)
		}
		count++
		again, err := ParseRData(r.Type, RDataString(r.Type, string(r.RData)), Root)
		if err != nil || !bytes.Equal(again, r.RData) {
			t.Fatalf("%s reads back as %x, %v", recordText(r), again, err)
		}
	}
	if count != 17186 {
		t.Errorf("%d records, want 17186", count)
	}
}

// TestWorkIsLinear: texts made to be read again and again cost time in proportion to their
// size. What grows with the square takes minutes at this size.
func TestWorkIsLinear(t *testing.T) {
	const size = 1 << 20
	for name, unit := range map[string]string{
		"open parentheses":              "(",
		"pairs of parentheses":          "()",
		"lines with an open one":        "a (\n",
		"lines with a closed one":       "a )\n",
		"entries that never close":      "a A (\n 1.2.3.4\n",
		"quotes":                        "\"",
		"lines with an open quote":      "a TXT \"\n",
		"open quotes in parentheses":    "a TXT ( \"\n",
		"backslashes":                   "\\",
		"owners alone":                  "a\n",
		"one long word":                 "a",
		"words without end":             "a ",
		"comments":                      ";\n",
		"octets that are not printable": "\x00 ",
		"one TXT without end":           "a TXT ( \"x\"\n",
	} {
		start := time.Now()
		faults := 0
		for _, fault := range ParseMaster(strings.Repeat(unit, size/len(unit)), Root) {
			if fault != nil {
				faults++
			}
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: %d faults in %v", name, faults, took)
		}
	}
}

func TestFaultsCanBeHandled(t *testing.T) {
	for r, fault := range ParseMaster("a MX 10 b..c\n", Root) {
		if r.Owner != "" || r.RData != nil {
			t.Errorf("a fault comes with record %v", r)
		}
		var value *ValueError
		var name *NameError
		if !errors.As(fault, &value) || value.Type != TypeMX || !errors.As(fault, &name) || name.Text != "b..c" {
			t.Errorf("the causes of %v are %v and %v", fault, value, name)
		}
		if fault.Reason() != "BadName" {
			t.Errorf("reason is %s", fault.Reason())
		}
	}
}

func TestReadingStopsWithTheReader(t *testing.T) {
	for _, text := range []string{"a A 1.2.3.4\nb A 1.2.3.4\n", "(\n(\n", "a b\nc d\n"} {
		count := 0
		for _, fault := range ParseMaster(text, Root) {
			if count++; fault == nil && count > 1 {
				t.Errorf("%q: read on", text)
			}
			break
		}
	}
}

func TestParseTTL(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "3600": 3600, "1h": 3600, "1H30m": 5400, "1w2d3h4m5s": 788645, "1h30": 3630, "2147483647": MaxTTL, "007": 7,
		"2147483648": -1, "99999999999999999999": -1, "3551w": -1, "": -1, "h": -1, "1x": -1, "-1": -1, "1 h": -1, "1.5h": -1,
	} {
		got, ok := parseTTL(text)
		if ok != (want >= 0) || ok && int64(got) != want {
			t.Errorf("parseTTL(%q) = %d, %t", text, got, ok)
		}
	}
}

func FuzzParseMaster(f *testing.F) {
	for _, s := range []string{
		"$ORIGIN example.\n$TTL 1h\n@ SOA ns host 1 2h 3 4 5\n\tNS ns\nns A 10.0.0.1\n",
		"a 60 IN MX 10 ( mail ; c\n )\n  TXT \"a b\" c\\032d\n", "a IN 60 HTTPS 1 . alpn=\"h2,h3\" port=443\n",
		"a ( A\nb TXT \"x\nc TYPE1 \\# 4 01020304\n", "a CAA 0 issue \"x\"\nb LOC 51 30 12 N 0 7 39 W 0\nc APL 1:10.0.0.0/8\n",
		"a NAPTR 1 1 u x !a! .\nb DS 1 8 2 00\nc HIP 2 200100107B1A74DF365639CC39F1D578 AwE= r.\n",
	} {
		f.Add(s)
	}
	origin := Name("\x01o\x00")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		last := 0
		for r, fault := range ParseMaster(text, origin) {
			if fault != nil {
				if fault.Line < 1 || fault.Line > lines || fault.Column < 1 || fault.Column > len(text)+1 {
					t.Errorf("fault at line %d, column %d of %d lines", fault.Line, fault.Column, lines)
				}
				if len(fault.Text) > 80 || strings.ContainsFunc(fault.Text, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("text of the fault is %q", fault.Text)
				}
				if fault.Reason() == "" || fault.Error() == "" {
					t.Error("fault without reason")
				}
				continue
			}
			if r.Line <= last {
				t.Errorf("record of line %d after one of line %d", r.Line, last)
			}
			last = r.Line
			if _, size, err := NameFromWire([]byte(r.Owner)); err != nil || size != len(r.Owner) {
				t.Errorf("owner %x is no name: %v", string(r.Owner), err)
			}
			checked, err := CheckRData(r.Type, bytes.Clone(r.RData))
			if err != nil || !bytes.Equal(checked, r.RData) {
				t.Errorf("%s: rdata %x checks as %x, %v", TypeString(r.Type), r.RData, checked, err)
			}
			// Written out, the record reads back to the same.
			line := fmt.Sprintf("%s %d %s %s\n", r.Owner, r.TTL, TypeString(r.Type), RDataString(r.Type, string(r.RData)))
			for again, fault := range ParseMaster(line, Root) {
				if fault != nil || again.Owner != r.Owner || again.TTL != r.TTL || again.Type != r.Type || !bytes.Equal(again.RData, r.RData) {
					t.Errorf("%q reads back as %v, %v", line, again, fault)
				}
			}
		}
	})
}

func BenchmarkParseMaster(b *testing.B) {
	for name, text := range map[string]string{"root": rootZone(b), "hosts=15000": hosts(15000)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				for _, fault := range ParseMaster(text, Root) {
					if fault != nil {
						b.Fatal(fault)
					}
				}
			}
		})
	}
}

// hosts is a zone with so many address records.
func hosts(n int) string {
	var s strings.Builder
	s.WriteString("$TTL 300\n@ SOA ns host 1 3600 600 86400 60\n@ NS ns\n")
	for i := range n {
		fmt.Fprintf(&s, "host%d.dept%d\t\tIN\tA\t10.%d.%d.%d\n", i, i%40, i>>16, i>>8&255, i&255)
	}
	return s.String()
}
