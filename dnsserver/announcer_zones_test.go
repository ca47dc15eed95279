package dnsserver

import (
	"testing"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func TestOfANewZoneAgentsAreToldTheApexAndWhereAliasesLead(t *testing.T) {
	load := func(apex zone.Name, text string) *control.Installed {
		t.Helper()
		c, _, faults := zone.Load(apex, text)
		if c == nil {
			t.Fatal(faults)
		}
		return &control.Installed{Content: c, Version: zone.Version{Serial: 1}}
	}
	const bank, shop = zone.Name("\x04bank\x00"), zone.Name("\x04shop\x00")
	a := newAnnouncer(&zone.View{}, logr.Discard())
	a.zoneChanged(shop, nil, load(shop, "@ 60 SOA ns hostmaster 1 2 3 4 5\n@ 60 NS ns\nns 60 A 10.0.0.1\nwww 60 CNAME www.bank.\n"))
	if told, _ := a.log.Counts(); told != 0 {
		t.Fatalf("%d changes are told of a server that had nothing", told)
	}
	a.complete.Store(true)
	before := load(bank, "@ 60 SOA ns hostmaster 1 2 3 4 5\n@ 60 NS ns\nns 60 A 10.0.0.1\nwww 60 A 10.0.0.2\nftp 60 A 10.0.0.3\nsub 60 NS ns.test.\n")
	a.zoneChanged(bank, nil, before)
	if told, _ := a.log.Counts(); told != 2 {
		t.Errorf("%d changes are told, and not bank and www.bank", told)
	}
	a.zoneChanged(bank, before, nil)
	if told, _ := a.log.Counts(); told != 4 {
		t.Errorf("%d changes are told after it is gone, and not as many again", told)
	}
}
