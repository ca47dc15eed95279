package zone

import (
	"fmt"
	"strings"
	"testing"
)

// contentText is one line a record, in canonical order.
func contentText(c *Content) string {
	if c == nil {
		return ""
	}
	var s strings.Builder
	for n := range c.All() {
		for _, set := range n.RRsets {
			for rdata := range set.All() {
				fmt.Fprintf(&s, "%s %d %s %s\n", n.Owner, set.TTL, TypeString(set.Type), RDataString(set.Type, rdata))
			}
		}
	}
	return s.String()
}

func TestLoad(t *testing.T) {
	golden(t, "testdata/load/*.txtar", func(t *testing.T, in string) map[string]string {
		t.Helper()
		c, v, faults := Load(mustName(t, "example."), in)
		if (c == nil) != v.IsZero() || c != nil && v.Digest != c.Digest() {
			t.Errorf("version is %v", v)
		}
		text := ""
		for _, f := range faults {
			text += faultText(f)
		}
		return map[string]string{"want.zone": fmt.Sprintf("serial %d\n%s", v.Serial, contentText(c)), "want.faults": text}
	})
}

func TestLoadCountsFaultsBeyondALimit(t *testing.T) {
	text := "@ 60 SOA ns host 1 2 3 4 5\n@ 60 NS ns\n" + strings.Repeat("a A x\n", 1500)
	c, _, faults := Load(mustName(t, "example."), text)
	if c.Records() != 2 || len(faults) != 1001 {
		t.Fatalf("%d records, %d faults", c.Records(), len(faults))
	}
	last := faults[1000]
	if last.Warning || last.Reason() != "MoreFaults" || !strings.Contains(last.Error(), "500 more faults, 500 of them") {
		t.Errorf("the last fault is %v", last)
	}
}

func TestLoadRootZone(t *testing.T) {
	const soa = ". 86400 SOA a.root-servers.net. nstld.verisign-grs.com. 2020091300 1800 900 604800 86400\n"
	c, v, faults := Load(Root, soa+rootZone(t))
	if len(faults) != 1 || !faults[0].Warning || !strings.Contains(faults[0].Error(), "without 2 DNSKEY") {
		t.Errorf("faults are %v", faults)
	}
	if v.Serial != 2020091300 || c.Records() != 17186-2+1 {
		t.Errorf("serial %d, %d records", v.Serial, c.Records())
	}
	if n := c.Node(mustName(t, "com.")); n.RRset(TypeNS).Len() != 13 || n.RRset(TypeDS).Len() != 1 {
		t.Errorf("com. is %v", n)
	}
}

func BenchmarkLoad(b *testing.B) {
	const soa = ". 86400 SOA a.root-servers.net. nstld.verisign-grs.com. 2020091300 1800 900 604800 86400\n"
	text := soa + rootZone(b)
	b.ReportAllocs()
	for b.Loop() {
		if c, _, _ := Load(Root, text); c == nil {
			b.Fatal("no zone")
		}
	}
}
