package resolver

import (
	"slices"
	"strings"
	"testing"

	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// TestNamesAreKeptWarm: engines ask for a name again and again though no client does.
func TestNamesAreKeptWarm(t *testing.T) {
	w := newWorld(t)
	spy := w.startSpy("told.corp.")
	name := func(p engine.Product) string { return "t6-" + strings.ToLower(string(p)) + ".told.corp." }
	for _, p := range products {
		startMember(t, Options{Product: p}, pool.Pool{Config: *w.configOf(p), KeepWarm: []engine.Name{mustName(t, name(p))}})
	}
	for _, p := range products {
		eventually(t, string(p)+" has asked three times, for two types each", func() bool {
			return len(slices.DeleteFunc(spy.of(name(p)), func(a sighting) bool { return a.agent })) >= 6
		})
	}
}
