package workload

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// SteeredApex is the zone whose names are answered by where the client is.
const SteeredApex = "gslb.test."

// What there is to steer.
const (
	SteeredNames = 100
	Datacenters  = 64
	networks     = 20_000 // of each family
)

// Network says which datacenter is for clients of a network.
type Network struct {
	Prefix     netip.Prefix
	Datacenter int // from 0
}

// SteeredName is the i-th name, absolute.
func SteeredName(i int) string { return fmt.Sprintf("g%d.%s", i, SteeredApex) }

// SteeredAddress is where clients of a datacenter go, whatever the name.
func SteeredAddress(datacenter int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + datacenter)})
}

// Clients are where clients come from: 10.0.0.0/8 and fd00:10::/32 tell it by ECS, 127.0.0.0/8 are source addresses of this machine.
var clients = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("fd00:10::/32")}

// Networks returns networks of all lengths from 16 to 24, for IPv6 from 40 to 56, many of them in one another, sorted.
func Networks() []Network {
	random := rand.New(rand.NewPCG(3, networks))
	seen := map[netip.Prefix]bool{}
	var all []Network
	for _, client := range clients {
		for range networks {
			octets, shortest, steps := client.Addr().AsSlice(), 16, 9
			if client.Addr().Is6() {
				shortest, steps = 40, 17
			}
			for i := client.Bits() / 8; i < len(octets); i++ {
				octets[i] = byte(random.Uint32())
			}
			address, _ := netip.AddrFromSlice(octets)
			p := netip.PrefixFrom(address, shortest+random.IntN(steps)).Masked()
			if !seen[p] {
				seen[p] = true
				all = append(all, Network{p, random.IntN(Datacenters)})
			}
		}
	}
	slices.SortFunc(all, func(a, b Network) int { return a.Prefix.Compare(b.Prefix) })
	return all
}

// SteeredZone is the zone as a master file, but for the steered names.
const SteeredZone = "$ORIGIN " + SteeredApex + "\n$TTL 300\n@ 3600 SOA ns1 hostmaster 1 7200 900 1209600 300\n@ NS ns1\nns1 A 192.0.2.1\n"

// WriteGdnsd writes what gdnsd's configuration needs for the steered names: maps of its plugin geoip.
func WriteGdnsd(w io.Writer) error {
	var s strings.Builder
	s.WriteString("service_types => { }\nplugins => { geoip => { maps => { m => { datacenters => [")
	var addresses strings.Builder
	for dc := range Datacenters {
		if dc > 0 {
			s.WriteString(",")
			addresses.WriteString(",")
		}
		fmt.Fprintf(&s, " dc%d", dc)
		fmt.Fprintf(&addresses, " dc%d => %s", dc, SteeredAddress(dc))
	}
	s.WriteString(" ], nets => {\n")
	for _, n := range Networks() {
		fmt.Fprintf(&s, "%s => [ dc%d ],\n", n.Prefix, n.Datacenter)
	}
	s.WriteString("} } }, resources => {\n")
	for i := range SteeredNames {
		fmt.Fprintf(&s, "g%d => { map => m, service_types => up, dcmap => {%s } },\n", i, addresses.String())
	}
	s.WriteString("} } }\n")
	_, err := io.WriteString(w, s.String())
	return err
}

// GdnsdZone is the zone with the steered names, as gdnsd reads it.
func GdnsdZone() string {
	var s strings.Builder
	s.WriteString(strings.Replace(SteeredZone, "$ORIGIN "+SteeredApex+"\n$TTL 300\n", "", 1))
	for i := range SteeredNames {
		fmt.Fprintf(&s, "g%d 30 DYNA geoip!g%d\n", i, i)
	}
	return s.String()
}

// SteeredQuestions makes so many questions for the steered names. With ECS they say that the client is in a network of 24 bits, or
// of 48 if it has IPv6 (RFC 7871 §6).
func SteeredQuestions(n int, ecs, ipv6 bool) Questions {
	random := rand.New(rand.NewPCG(4, SteeredNames))
	questions := Questions{}.Add("ns1."+SteeredApex, typeA, nil)
	for range n - 1 {
		var options []byte
		switch {
		case ecs && ipv6:
			options = option(8, []byte{0, 2, 48, 0, 0xfd, 0, 0, 0x10, byte(random.Uint32()), byte(random.Uint32())})
		case ecs:
			options = option(8, []byte{0, 1, 24, 0, 10, byte(random.Uint32()), byte(random.Uint32())})
		}
		questions = questions.Add(SteeredName(random.IntN(SteeredNames)), typeA, OPT(options))
	}
	return questions
}

// Sources returns so many source addresses of this machine, all over 127.0.0.0/8.
func Sources(n int) []netip.Addr {
	random := rand.New(rand.NewPCG(5, uint64(n)))
	sources := make([]netip.Addr, n)
	for i := range sources {
		sources[i] = netip.AddrFrom4([4]byte{127, byte(1 + random.IntN(250)), byte(random.Uint32()), byte(1 + random.IntN(250))})
	}
	return sources
}
