package resolver

import (
	"slices"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// A delegation to servers that this network does not reach changes at those of the zone above, and a name may be in two zones.
func TestADelegationChangesWhereItIs(t *testing.T) {
	w := newWorld(t)
	serial := uint32(w.serial(".", "10.9.9.9"))
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			s := startPool(t, p, w.config())
			s.ask("app.pay.corp.")
			for name, change := range map[string]changes.Change{
				"servers that nobody reaches":    {Name: mustZoneName(t, "org."), Apex: zone.Root, Beneath: true, Serial: serial},
				"servers that are ours":          {Name: mustZoneName(t, "corp."), Apex: zone.Root, Beneath: true, Serial: serial},
				"the same name, of its own zone": {Name: mustZoneName(t, "corp."), Apex: mustZoneName(t, "corp."), Serial: 1},
			} {
				if got := s.Flush(t.Context(), []changes.Change{change}); !slices.Equal(got, []Outcome{Confirmed}) && !slices.Equal(got, []Outcome{NotCached}) {
					t.Errorf("%s: the flush is %v", name, got)
				}
			}
			if n := s.Report().Flush.Waiting; n != 0 {
				t.Errorf("%d names wait", n)
			}
		})
	}
}

// The delegations of a whole top level change at once, and the flush of a single name does not wait for them.
func TestNoNameWaitsForDelegations(t *testing.T) {
	w := newWorld(t)
	s := startPool(t, engine.Unbound, w.config())
	s.ask("app.pay.corp.")
	var all []changes.Change
	for _, letter := range "abcdefghijklmnopqrstuvwxyz" {
		for _, other := range "abcdefghijklmnopqrstuvwxyz" {
			all = append(all, changes.Change{Name: mustZoneName(t, string([]rune{letter, other, '.'})), Apex: zone.Root, Beneath: true, Serial: uint32(w.serial(".", "10.9.9.9"))})
		}
	}
	s.flusher.hear(all, nil)
	w.move(payCorp, "10.9.9.10", 1, 2)
	eventually(t, "the name is flushed", func() bool { return slices.Equal(s.Flush(t.Context(), app(t)), []Outcome{Confirmed}) })
	if got := said(s.ask("app.pay.corp.")); got != "10.9.9.10" {
		t.Errorf("it is %q", got)
	}
	if n := s.Report().Flush.Waiting; n == 0 {
		t.Error("no delegation waits any more: this tells nothing")
	}
}
