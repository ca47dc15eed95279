package zone

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// golden runs one test for each txtar file that matches the pattern. got makes of the file
// "in.zone" the texts of the other files, which all start with "want.".
func golden(t *testing.T, pattern string, got func(t *testing.T, in string) map[string]string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files match %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(bytes.TrimSpace(ar.Comment)) == 0 {
				t.Error("the file does not start with a sentence")
			}
			in := ""
			for _, f := range ar.Files {
				if f.Name == "in.zone" {
					in = string(f.Data)
				}
			}
			results := got(t, in)
			for i, f := range ar.Files {
				result, ok := results[f.Name]
				if !ok {
					continue
				}
				delete(results, f.Name)
				if string(f.Data) != result && !*update {
					t.Errorf("%s is\n%s\nwant\n%s", f.Name, result, f.Data)
				}
				ar.Files[i].Data = []byte(result)
			}
			if len(results) > 0 && !*update {
				t.Errorf("the file lacks %d results", len(results))
			}
			for _, name := range slices.Sorted(maps.Keys(results)) {
				ar.Files = append(ar.Files, txtar.File{Name: name, Data: []byte(results[name])})
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
