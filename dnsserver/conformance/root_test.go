package conformance

import (
	"compress/gzip"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// rootZone is the IANA root zone of 2020-09-13 as a private root: an SOA and name servers of
// its own in place of the internet's, and nothing of DNSSEC but DS.
func rootZone(t testing.TB) (zoneText, []string) {
	t.Helper()
	f, err := os.Open("../zone/testdata/root.zone.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(". 86400 IN SOA ns-a. hostmaster. 2020091300 1800 900 604800 86400\n. 86400 IN NS ns-a.\n. 86400 IN NS ns-b.\n" +
		"ns-a. 86400 IN A 10.0.0.1\nns-a. 86400 IN AAAA 2001:db8::1\nns-b. 86400 IN A 10.0.0.2\n")
	names := map[string]bool{".": true}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		owner, typ := fields[0], fields[3]
		if owner == "." || typ == "RRSIG" || typ == "NSEC" || typ == "DNSKEY" {
			continue
		}
		b.WriteString(line)
		names[owner] = true
	}
	return zoneText{".", b.String()}, slices.Sorted(maps.Keys(names))
}
