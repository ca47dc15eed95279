package controllers

import (
	"testing"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

func TestWhatWasWrittenStandsInForAnOlderCache(t *testing.T) {
	version := func(resourceVersion string, records int32) *v1alpha1.DNSZone {
		z := &v1alpha1.DNSZone{}
		z.Namespace, z.Name, z.ResourceVersion, z.Status.Records = "corp", "pay", resourceVersion, records
		return z
	}
	for name, c := range map[string]struct {
		cached, want *v1alpha1.DNSZone
		kept         bool
	}{
		"before both writes":    {version("5", 0), version("7", 2), true},
		"between the writes":    {version("6", 1), version("7", 2), true},
		"after both writes":     {version("7", 2), version("7", 2), false},
		"somebody else's write": {version("8", 9), version("8", 9), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := &ZoneReconciler{}
			r.wrote(version("5", 0), version("6", 1))
			r.wrote(version("6", 1), version("7", 2))
			z := c.cached.DeepCopy()
			r.catchUp(z)
			if z.ResourceVersion != c.want.ResourceVersion || z.Status.Records != c.want.Status.Records {
				t.Errorf("it is version %s of %d records, wanted %s of %d", z.ResourceVersion, z.Status.Records, c.want.ResourceVersion, c.want.Status.Records)
			}
			if kept := len(r.written) > 0; kept != c.kept {
				t.Errorf("it is remembered: %v, wanted %v", kept, c.kept)
			}
		})
	}
	r := &ZoneReconciler{}
	r.wrote(version("5", 0), version("6", 1))
	r.wrote(version("8", 9), version("9", 3)) // others wrote 7 and 8
	if z := version("5", 0); true {
		if r.catchUp(z); z.Status.Records != 0 {
			t.Error("a cache of before others' writes gets what was made of theirs")
		}
	}
}
