package engine

import (
	"crypto/sha256"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestFilesThatChangeAreReadAgain: another text in a file that a Config names has each server that reads it do so again, and no
// other.
func TestFilesThatChangeAreReadAgain(t *testing.T) {
	const config = `{listen: ['10.1.0.53:53'], clients: [10.0.0.0/8], rootHints: [{name: ns-a, addresses: [10.1.0.1]}],
tls: {dot: ['10.1.0.53:853'], certificate: /tls.crt, key: /tls.key}, block: {rpz: [{name: a, file: /rpz}, {name: b, primaries: ['10.1.0.9:53']}]},
forward: [{zones: [a], upstreams: [{address: '10.3.0.1:853', tls: {name: x, ca: /ca}}]}, {zones: [b], upstreams: [{address: '10.3.0.2:853', tls: {name: x, ca: /ca}}]}]}`
	c := &Config{}
	if err := yaml.UnmarshalStrict([]byte(config), c); err != nil {
		t.Fatal(err)
	}
	if got := join(c.ReadFiles(), " "); got != "/ca /rpz /tls.crt /tls.key" {
		t.Errorf("files that are read: %s", got)
	}
	for path, want := range map[string]map[Product]Change{
		"/tls.crt": {Unbound: Restart, KnotResolver: Replace},
		"/tls.key": {Unbound: Restart, KnotResolver: Replace},
		"/ca":      {Unbound: Restart, KnotResolver: Replace},
		"/rpz":     {Unbound: Reload, KnotResolver: Replace, Recursor: ReloadPart},
		"/another": {},
	} {
		for _, p := range products {
			rendered := func(text string) *Rendered {
				c := *c
				c.FileDigests = map[Path][sha256.Size]byte{mustPath(t, path): sha256.Sum256([]byte(text))}
				r, err := Render(p, &c, mustPath(t, "/run/fingerpost"))
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			before, after := rendered("one"), rendered("two")
			if again := rendered("one"); again.Generation != before.Generation {
				t.Errorf("%s %s: %s and %s with the same text", p, path, before.Generation, again.Generation)
			}
			change, isRead := want[p]
			if (after.Generation != before.Generation) != isRead {
				t.Errorf("%s %s: %s, and %s with another text", p, path, before.Generation, after.Generation)
			}
			var got Change
			for i, f := range after.Files {
				if f.Content != before.Files[i].Content {
					got = max(got, f.Change)
				}
			}
			if got != change {
				t.Errorf("%s %s: another text is read by %s, want %s", p, path, got, change)
			}
		}
	}
}
