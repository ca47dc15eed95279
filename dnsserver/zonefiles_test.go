package dnsserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// TestZoneFilesOfAllSizesLoadInTheirOrder: whatever thread reads a file, its zone is where it was asked for.
func TestZoneFilesOfAllSizesLoadInTheirOrder(t *testing.T) {
	const head = "$TTL 60\n@ SOA ns host 1 2 3 4 5\n@ NS ns\n"
	large := head + strings.Repeat("ns A 10.0.0.1 ; "+strings.Repeat("x", 1000)+"\n", largeFile/1000)
	dir := t.TempDir()
	var files []ZoneFile
	for i := range 30 {
		text := fmt.Sprintf("%sns A 10.0.0.%d\n", head, i)
		if i%10 == 5 {
			text = large
		}
		path := filepath.Join(dir, fmt.Sprint(i))
		if i != 7 {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		apex, err := zone.ParseName(fmt.Sprintf("z%d.test", i), "")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, ZoneFile{apex, path})
	}
	for _, threads := range []int{1, 4} {
		for i, l := range loadZoneFiles(files, threads) {
			switch {
			case i == 7:
				if l.err == nil || !strings.Contains(l.err.Error(), "z7.test.") {
					t.Errorf("a file that is not there: %v", l.err)
				}
			case l.err != nil:
				t.Error(l.err)
			case l.file != files[i] || l.zone.Apex() != files[i].Apex || l.zone.Content().Records() != 3:
				t.Errorf("%d threads: %s is in place of %s", threads, l.zone.Apex(), files[i].Apex)
			}
		}
	}
}
