package steering

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// entries counts what a resolver that sends ECS keeps for one name and type, as RFC 7871 §7.3.1 has it: one
// entry for each network that an answer was stated for, where clients in all /24 of the networks ask, and
// with outside also clients all over the rest of the address space.
func entries(st *zone.Steered, networks []netip.Prefix, outside bool) int {
	kept := map[netip.Prefix]bool{}
	ask := func(client netip.Addr) netip.Prefix {
		// SOURCE is /24: what is stated for longer prefixes is kept for that.
		entry := netip.PrefixFrom(client, min(st.Scope(client), 24)).Masked()
		kept[entry] = true
		return entry
	}
	for _, n := range networks {
		for a := n.Addr(); n.Contains(a); {
			a = after(ask(a))
			if !a.IsValid() {
				break
			}
		}
	}
	if outside {
		for a := netip.IPv4Unspecified(); a.IsValid(); {
			a = after(ask(a))
		}
	}
	return len(kept)
}

// after is the first address behind a network, invalid if it is the last.
func after(n netip.Prefix) netip.Addr {
	b := n.Addr().As4()
	v := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	v += 1 << (32 - n.Bits())
	if v >= 1<<32 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// TestECSEntries has the figures of docs: what resolvers need for a zone with 8 datacenters and 200 networks.
func TestECSEntries(t *testing.T) {
	for _, tc := range []struct {
		sentence       string
		network        func(i int) string // the i-th of 200
		dc             func(i int) int
		inside, within int // entries for clients in the networks, and for all there are
	}{
		{"each datacenter has a block of its own, divided into 25 networks", func(i int) string { return fmt.Sprintf("10.%d.%d.0/21", i/25*32, i%25*8) }, func(i int) int { return i / 25 }, 24, 96},
		{"200 /16 that go round the datacenters", func(i int) string { return fmt.Sprintf("10.%d.0.0/16", i) }, func(i int) int { return i % 8 }, 200, 211},
		{"200 /24 all over 10.0.0.0/8", func(i int) string { return fmt.Sprintf("10.%d.%d.0/24", i*13%256, i*101%256) }, func(i int) int { return i % 8 }, 200, 1864},
	} {
		t.Run(tc.sentence, func(t *testing.T) {
			m := &steeringpb.Topology{}
			for i := range 8 {
				m.Datacenters = append(m.Datacenters, &steeringpb.Datacenter{Name: fmt.Sprintf("dc-%c", 'a'+i), Rank: uint32(i)})
			}
			var networks []netip.Prefix
			for i := range 200 {
				dc := m.Datacenters[tc.dc(i)]
				dc.Networks = append(dc.Networks, tc.network(i))
				networks = append(networks, netip.MustParsePrefix(tc.network(i)))
			}
			w, err := NewWorld(m)
			if err != nil {
				t.Fatal(err)
			}
			r := record(t, "policy Nearest\n"+poolsOf(8))
			st := Compile(r, &Inputs{Now: now, World: w}).Steered
			if inside, within := entries(st, networks, false), entries(st, networks, true); inside != tc.inside || within != tc.within {
				t.Errorf("%d entries for clients in the networks, %d for all, wanted %d and %d", inside, within, tc.inside, tc.within)
			}
			same := Compile(record(t, "policy Failover\n"+poolsOf(8)), &Inputs{Now: now, World: w}).Steered
			if all := entries(same, networks, true); all != 1 {
				t.Errorf("%d entries for a name that is the same everywhere", all)
			}
		})
	}
}
