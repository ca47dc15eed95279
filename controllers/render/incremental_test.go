package render_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// TestIncrementalRenderingEqualsFull edits a zone in random ways and renders each version
// from memory and from nothing: content, findings and all else that anybody sees must be equal.
func TestIncrementalRenderingEqualsFull(t *testing.T) {
	owners := []string{"@", "a", "b.a", "c", "d.c", "*.c", "ns-dc-a", "child", "x.child", "ns-dc-a.child", "out.example."}
	types_ := map[string][]string{
		"A": {"10.0.0.1", "10.0.0.2", "10.0.0.300"}, "CNAME": {"a", "b.a"}, "NS": {"ns.example.", "ns.c"}, "TXT": {"x", "y"},
		"DNAME": {"z.example."}, "DS": {"1 8 2 9D6BAE62219231C99FAA479716B6E4619330CE8206670AEA6C1673A055DC3AF2"}, "DNSKEY": {"257 3 8 AwEAAQ=="},
	}
	typeNames := slices.Sorted(func(yield func(string) bool) {
		for name := range types_ {
			if !yield(name) {
				return
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		text := func(label string) string {
			var b strings.Builder
			if rapid.Bool().Draw(t, "ttl") {
				fmt.Fprintf(&b, "$TTL %d\n", rapid.IntRange(1, 3).Draw(t, "seconds"))
			}
			for range rapid.IntRange(0, 12).Draw(t, label) {
				typ := rapid.SampledFrom(typeNames).Draw(t, "type")
				fmt.Fprintf(&b, "%s %s %s\n", rapid.SampledFrom(owners).Draw(t, "owner"), typ, rapid.SampledFrom(types_[typ]).Draw(t, "value"))
			}
			return b.String()
		}
		z := &v1alpha1.DNSZone{}
		z.Name, z.Namespace, z.UID = "corp", "dns", "uid"
		z.Spec.Name = "corp"
		texts := []string{text("first"), text("second")}
		var prev *render.Result
		for version := range rapid.IntRange(2, 5).Draw(t, "versions") {
			switch rapid.IntRange(0, 6).Draw(t, "edit") {
			case 0, 1, 2:
				i := rapid.IntRange(0, 1).Draw(t, "which")
				texts[i] = text("edited")
			case 3:
				z.Spec.TTL.Default = v1alpha1.Duration(fmt.Sprintf("%ds", rapid.IntRange(1, 3).Draw(t, "default")))
			case 4:
				z.Spec.Records = nil
				for _, owner := range owners[:rapid.IntRange(0, 4).Draw(t, "inline")] {
					z.Spec.Records = append(z.Spec.Records, v1alpha1.ZoneRecord{Name: owner, Type: "TXT", Values: []string{fmt.Sprint(version)}})
				}
			}
			z.Generation++
			in := render.Inputs{Zone: z, Placement: &render.Placement{Apex: "\x04corp\x00", Locations: []render.Location{{Datacenter: "dc-a", Group: "g"}}}}
			servers := []render.NameServer{{Datacenter: "dc-a", Host: mustChild("\x04corp\x00", "ns-dc-a"),
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 2).Draw(t, "address"))})}}}
			in.Placement.NameServers = servers
			if rapid.Bool().Draw(t, "child") {
				child := mustChild("\x04corp\x00", "child")
				in.Placement.Children = []render.Delegation{{Child: child, Source: types.NamespacedName{Namespace: "n", Name: "c"},
					NameServers: []render.NameServer{{Datacenter: "dc-a", Host: mustChild(child, "ns-dc-a"), Addresses: servers[0].Addresses}}}}
			}
			for i, s := range texts {
				in.Sources = append(in.Sources, render.Source{Name: fmt.Sprintf("configmap/%d/z", i), Text: s, Version: s})
			}
			full := render.Zone(in, nil)
			incremental := render.Zone(in, prev)
			if full.Content.Digest() != incremental.Content.Digest() {
				t.Fatalf("version %d: content differs (-full +incremental)\n%s", version, cmp.Diff(records(full.Content), records(incremental.Content)))
			}
			if diff := cmp.Diff(full.Findings, incremental.Findings); diff != "" {
				t.Fatalf("version %d: findings differ (-full +incremental)\n%s", version, diff)
			}
			if diff := cmp.Diff(full.Hidden, incremental.Hidden); diff != "" {
				t.Fatalf("version %d: hidden names differ (-full +incremental)\n%s", version, diff)
			}
			if diff := cmp.Diff(full.SourceRecords(), incremental.SourceRecords()); diff != "" {
				t.Fatalf("version %d: counts differ (-full +incremental)\n%s", version, diff)
			}
			prev = incremental
		}
	})
}

func mustChild(n zone.Name, label string) zone.Name {
	c, err := n.Child(label)
	if err != nil {
		panic(err)
	}
	return c
}

// guardCase builds a published zone of 100 hosts, 50 from each of two ConfigMaps, and what an
// edit makes of it.
func guardCase(t testing.TB, edit func(texts []string) []string) (published, desired *render.Result, sources []render.Source) {
	t.Helper()
	texts := make([]string, 2)
	for i := range 100 {
		texts[i/50] += fmt.Sprintf("h%d A 10.0.0.%d\n", i, i)
	}
	z := &v1alpha1.DNSZone{}
	z.Name, z.Namespace, z.UID, z.Generation = "corp", "dns", "uid", 1
	z.Spec.Name = "corp"
	in := render.Inputs{Zone: z, Placement: &render.Placement{Apex: "\x04corp\x00"}}
	with := func(texts []string) render.Inputs {
		in.Sources = nil
		for i, s := range texts {
			in.Sources = append(in.Sources, render.Source{Name: fmt.Sprintf("configmap/%d/z", i), Text: s, Version: s, Missing: s == "gone"})
		}
		return in
	}
	published = render.Zone(with(texts), nil)
	after := with(edit(slices.Clone(texts)))
	return published, render.Zone(after, published), after.Sources
}

func TestGuard(t *testing.T) {
	policy := zone.GuardPolicy{MinDeletes: 10, MaxDeletePercent: 30}
	lines := func(s string, n int) string { return strings.Join(strings.SplitAfter(s, "\n")[n:], "") }
	readdress := func(texts []string) []string {
		texts[0] = strings.ReplaceAll(texts[0], "10.0.0.", "10.9.9.")
		return texts
	}
	for rule, c := range map[string]struct {
		edit      func([]string) []string
		amnesia   bool // a new leader: nothing but the status is remembered
		withheld  int
		serves    string
		servesToo string
	}{
		"a few removals pass": {
			edit: func(s []string) []string { s[0] = lines(s[0], 10); return s }, withheld: 0,
		},
		"more than a third of the zone is held back": {
			edit: func(s []string) []string { return []string{lines(s[0], 40), s[1]} }, withheld: 40, servesToo: "h0",
		},
		"a third of one source is held back, though it is little of the zone": {
			edit: func(s []string) []string { s[1] = lines(s[1], 20); return s }, withheld: 20, servesToo: "h50",
		},
		"so it is by a leader that knows only counts": {
			edit: func(s []string) []string { s[1] = lines(s[1], 20); return s }, amnesia: true, withheld: 20, servesToo: "h50",
		},
		"and one that finds as many other records in a source": {
			edit: func(s []string) []string {
				s[1] = lines(s[1], 20) + strings.ReplaceAll(s[1][:20*15], "h", "n")
				return s
			}, amnesia: true, withheld: 20, servesToo: "h50",
		},
		"records that move to another source do not look removed to it": {
			edit: func(s []string) []string { return []string{lines(s[0]+s[1], 3), ""} }, amnesia: true, withheld: 0, serves: "h99",
		},
		"new addresses for half of the names are a mass edit: the old stay beside the new": {
			edit: readdress, withheld: 50, serves: "h1", servesToo: "h1",
		},
		"additions pass while removals are held back": {
			edit: func(s []string) []string { s[0] = "new A 10.0.0.1\n"; return s }, withheld: 50, serves: "new", servesToo: "h0",
		},
		"records that move to another source are not removed": {
			edit: func(s []string) []string { return []string{"", s[0] + s[1]} }, withheld: 0, serves: "h0",
		},
		"a ConfigMap that vanished keeps its last content": {
			edit: func(s []string) []string { s[0] = "gone"; return s }, withheld: 0, serves: "h0",
		},
	} {
		t.Run(rule, func(t *testing.T) {
			published, desired, _ := guardCase(t, c.edit)
			in := render.GuardInputs{Published: published.Content, Desired: desired, Applied: published, AppliedRecords: published.SourceRecords(), Policy: policy}
			if c.amnesia {
				in.Applied = nil
			}
			d := render.Guard(in)
			got := 0
			if d.Withheld != nil {
				got = d.Withheld.Records
			}
			if got != c.withheld {
				t.Fatalf("%d records withheld, want %d", got, c.withheld)
			}
			for _, name := range []string{c.serves, c.servesToo} {
				if name != "" && d.Content.Node(mustChild("\x04corp\x00", name)) == nil {
					t.Errorf("%s is not served", name)
				}
			}
			if d.Withheld == nil {
				return
			}
			// What is held back stays held back, whatever the leader remembers, until it is approved.
			again := in
			again.Published = d.Content
			if e := render.Guard(again); e.Withheld == nil || e.Content.Digest() != d.Content.Digest() || e.Withheld.Digest != d.Withheld.Digest {
				t.Error("the next rendering lets the removal pass, or asks for another approval")
			}
			again.Approved = d.Withheld.Digest
			if e := render.Guard(again); e.Withheld != nil || e.Content.Digest() != desired.Content.Digest() {
				t.Error("an approved removal is still held back")
			}
			again.Approved = "0123456789abcdef"
			if e := render.Guard(again); e.Withheld == nil {
				t.Error("the approval of another removal lets this one pass")
			}
		})
	}
}

func TestASourceThatNeverGaveAnythingHoldsNothingBack(t *testing.T) {
	published, _, _ := guardCase(t, func(s []string) []string { return s })
	texts := published.SourceRecords()
	_, _, sources := guardCase(t, func(s []string) []string { s[0] = strings.Join(strings.SplitAfter(s[0], "\n")[1:], ""); return s })
	z := &v1alpha1.DNSZone{}
	z.Name, z.Namespace, z.UID, z.Generation = "corp", "dns", "uid", 1
	z.Spec.Name = "corp"
	desired := render.Zone(render.Inputs{Zone: z, Placement: &render.Placement{Apex: "\x04corp\x00"},
		Sources: append(sources, render.Source{Name: "configmap/never/z", Missing: true})}, nil)
	in := render.GuardInputs{Published: published.Content, Desired: desired, AppliedRecords: texts, Policy: zone.GuardPolicy{MinDeletes: 10, MaxDeletePercent: 30}}
	if d := render.Guard(in); d.Withheld != nil {
		t.Errorf("withheld: %+v", d.Withheld)
	}
	in.AppliedRecords = nil // the status was lost: perhaps it gave something
	if d := render.Guard(in); d.Withheld == nil {
		t.Error("what a missing source may have given is removed")
	}
}

func TestGuardKeepsWhatAVanishedSourceGaveWhenNothingIsRemembered(t *testing.T) {
	published, _, _ := guardCase(t, func(s []string) []string { return s })
	z := &v1alpha1.DNSZone{}
	z.Name, z.Namespace, z.UID, z.Generation = "corp", "dns", "uid", 1
	z.Spec.Name = "corp"
	z.Spec.Records = []v1alpha1.ZoneRecord{{Name: "new", Type: "A", Values: []string{"10.1.1.1"}}}
	desired := render.Zone(render.Inputs{Zone: z, Placement: &render.Placement{Apex: "\x04corp\x00"},
		Sources: []render.Source{{Name: "configmap/0/z", Missing: true}, {Name: "configmap/1/z", Missing: true}}}, nil)
	d := render.Guard(render.GuardInputs{Published: published.Content, Desired: desired, Policy: zone.GuardPolicy{MinDeletes: 1000, MaxDeletePercent: 100}})
	if d.Withheld == nil || d.Withheld.Reason != v1alpha1.ReasonSourceVanished {
		t.Fatalf("withheld: %+v", d.Withheld)
	}
	for _, name := range []string{"h0", "h99", "new"} {
		if d.Content.Node(mustChild("\x04corp\x00", name)) == nil {
			t.Errorf("%s is not served", name)
		}
	}
}
