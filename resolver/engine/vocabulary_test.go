package engine

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"
)

// leaves calls f with each text of a document, and a function that puts another one in its place.
func leaves(v any, f func(text string, put func(string))) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if text, is := v[key].(string); is {
				f(text, func(other string) { v[key] = other })
			}
			leaves(v[key], f)
		}
	case []any:
		for i := range v {
			if text, is := v[i].(string); is {
				f(text, func(other string) { v[i] = other })
			}
			leaves(v[i], f)
		}
	}
}

var (
	literal = regexp.MustCompile(`'[^'\\]*'|"[^"\\]*"`)
	value   = regexp.MustCompile(`(\[[0-9a-f:.]+\]:|[0-9A-Za-z_.:/@#!*-])+`)
	list    = regexp.MustCompile(`v([,;=] ?v)+`)
	setting = regexp.MustCompile(`^ *[a-z0-9-]+$`)
	space   = regexp.MustCompile(`\s+`)
)

// shape is what is left of a line of a rendered file without its values.
func shape(line string) string {
	key := ""
	// In files of settings the first word is the setting.
	if at := strings.IndexAny(line, ":="); at >= 0 && setting.MatchString(line[:at]) {
		key, line = line[:at+1], line[at+1:]
	}
	line = value.ReplaceAllString(literal.ReplaceAllString(line, "v"), "v")
	return key + space.ReplaceAllString(list.ReplaceAllString(line, "v"), " ")
}

// FuzzVocabulary puts a text in the place of each one that a Config has. Whatever is read and rendered has lines that are
// those of other configurations but for their values: nothing ends a string, a line or a list.
func FuzzVocabulary(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden files", err)
	}
	folder, err := ParsePath("/run/fingerpost")
	if err != nil {
		f.Fatal(err)
	}
	var documents [][]byte
	shapes := map[string]bool{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		documents = append(documents, archive.Files[0].Data)
		for _, rendered := range archive.Files[1:] {
			for line := range strings.Lines(string(rendered.Data)) {
				shapes[shape(line)] = true
			}
		}
	}
	texts := 0
	for _, d := range documents {
		var tree any
		if err := yaml.Unmarshal(d, &tree); err != nil {
			f.Fatal(err)
		}
		leaves(tree, func(text string, _ func(string)) {
			f.Add(texts, text)
			texts++
		})
	}
	for i := range texts {
		for _, hostile := range []string{"a'b", `a"b`, `a\b`, "a\nb", "a b", "/a'b", "/a\nb", "fe80::1%x'y", "[fe80::1%x'y]:53", "[fe80::1%x\ny]:53", "10.0.0.0/8\n", `. IN DS 1 13 2 'x'`, "$INCLUDE /x"} {
			f.Add(i, hostile)
		}
	}
	f.Fuzz(func(t *testing.T, which int, text string) {
		for _, d := range documents {
			var tree any
			if err := yaml.Unmarshal(d, &tree); err != nil {
				t.Fatal(err)
			}
			has := false
			leaves(tree, func(_ string, put func(string)) {
				if which == 0 {
					put(text)
					has = true
				}
				which--
			})
			if !has {
				continue
			}
			changed, err := json.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			c := &Config{}
			if yaml.UnmarshalStrict(changed, c) != nil || c.Check() != nil {
				continue
			}
			for _, p := range products {
				r, err := Render(p, c, folder)
				if err != nil {
					t.Fatalf("%s: %v", p, err)
				}
				for _, file := range r.Files {
					for line := range strings.Lines(file.Content) {
						if s := shape(line); !shapes[s] {
							t.Errorf("%q: %s/%s has the line %q: %q", text, p, file.Name, line, s)
						}
					}
				}
			}
		}
	})
}
