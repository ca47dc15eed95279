package render

import (
	"fmt"
	"strings"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// RootHints writes the root hints of the published root zone as a master file (RFC 1035 §5): its NS and their addresses, in
// order; "" if it has no name server with an address, which is nothing to hand to a resolver.
func RootHints(root *zone.Content) string {
	var b strings.Builder
	known := false
	line := func(owner zone.Name, set zone.RRset, data string) {
		fmt.Fprintf(&b, "%-24s %d %-4s %s\n", owner, set.TTL, zone.TypeString(set.Type), data)
	}
	servers := root.Node(root.Apex()).RRset(zone.TypeNS)
	for rdata := range servers.All() {
		host, _, err := zone.NameFromWire([]byte(rdata))
		if err != nil {
			continue
		}
		line(root.Apex(), servers, host.String())
		for _, a := range publishedAddresses(root, host) {
			typ := zone.TypeAAAA
			if a.Is4() {
				typ = zone.TypeA
			}
			line(host, root.Node(host).RRset(typ), a.String())
			known = true
		}
	}
	if !known {
		return ""
	}
	return b.String()
}
