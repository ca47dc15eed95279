package render_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// benchZone is a zone of so many records, in sources of at most 20,000, as ConfigMaps can hold them.
func benchZone(records int) render.Inputs {
	z := &v1alpha1.DNSZone{}
	z.Name, z.Namespace, z.UID, z.Generation = "corp", "dns", "uid", 1
	z.Spec.Name = "corp"
	in := render.Inputs{Zone: z, Placement: &render.Placement{Apex: "\x04corp\x00", Locations: []render.Location{{Datacenter: "dc-a", Group: "g"}}}}
	for first := 0; first < records; first += 20_000 {
		var text strings.Builder
		for i := first; i < min(first+20_000, records); i++ {
			fmt.Fprintf(&text, "host%d.dept%d A 10.%d.%d.%d\n", i, i%40, i>>16, i>>8&255, i&255)
		}
		in.Sources = append(in.Sources, render.Source{Name: fmt.Sprintf("configmap/part-%d/zone", first), Version: "1", Text: text.String()})
	}
	return in
}

// BenchmarkZoneChange renders a zone of which one record changed in one of its sources.
func BenchmarkZoneChange(b *testing.B) {
	for _, records := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			in := benchZone(records)
			prev := render.Zone(in, nil)
			before := in.Sources[0]
			after := before
			after.Version, after.Text = "2", strings.Replace(before.Text, "host7.dept7 A 10.0.0.7\n", "host7.dept7 A 10.9.9.9\n", 1)
			versions := [2]render.Source{before, after}
			turn := 0
			b.ReportAllocs()
			for b.Loop() {
				turn++
				in.Sources[0] = versions[turn%2]
				next := render.Zone(in, prev)
				if next.Content.Digest() == prev.Content.Digest() {
					b.Fatal("nothing changed")
				}
				prev = next
			}
		})
	}
}

// BenchmarkZoneFull renders a zone from nothing, as a new leader does.
func BenchmarkZoneFull(b *testing.B) {
	for _, records := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			in := benchZone(records)
			b.ReportAllocs()
			for b.Loop() {
				if render.Zone(in, nil).Content.Owners() < records {
					b.Fatal("records are missing")
				}
			}
		})
	}
}
