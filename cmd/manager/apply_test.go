package main

import (
	"testing"
)

func TestParseObjects(t *testing.T) {
	const dc = "apiVersion: fingerpost.dev/v1alpha1\nkind: Datacenter\nmetadata: {name: dc-a}\n"
	for name, c := range map[string]struct {
		text    string
		want    int
		wantErr string
	}{
		"nothing is no object":                 {"", 0, ""},
		"empty documents are left out":         {"---\n---\n" + dc + "---\n# nothing\n", 1, ""},
		"many documents":                       {dc + "---\n" + dc, 2, ""},
		"a kind of others is refused":          {dc + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", 0, "document 2: /v1, Kind=Secret"},
		"an object without a name is refused":  {"apiVersion: fingerpost.dev/v1alpha1\nkind: Datacenter\n", 0, `"" is no object`},
		"a key that is there twice is refused": {dc + "kind: DNSZone\n", 0, "document 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := parseObjects([]byte(c.text))
			if c.wantErr != "" {
				expectError(t, err, c.wantErr)
			} else if err != nil {
				t.Fatal(err)
			}
			if len(objects) != c.want {
				t.Errorf("%d objects, wanted %d", len(objects), c.want)
			}
		})
	}
}
