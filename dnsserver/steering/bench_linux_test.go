package steering

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// manyDatacenters have so many networks, /24 and /48 in turn, in eight datacenters.
func manyDatacenters(t testing.TB, networks int) *World {
	t.Helper()
	m := &steeringpb.Topology{Key: []byte("key")}
	for i := range 8 {
		m.Datacenters = append(m.Datacenters, &steeringpb.Datacenter{Name: fmt.Sprintf("dc-%c", 'a'+i), Rank: uint32(i)})
	}
	for i := range networks {
		dc := m.Datacenters[i*5%8]
		dc.Networks = append(dc.Networks, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255), fmt.Sprintf("2001:db8:%x::/48", i))
	}
	w, err := NewWorld(m)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func poolsOf(count int) string {
	text := ""
	for i := range count {
		text += fmt.Sprintf("pool p%d dc-%c: 10.9.%d.1 10.9.%d.2 10.9.%d.3 2001:db8:9::%d\n", i, 'a'+i%8, i, i, i, i)
	}
	return text
}

// steeredZone has so many steered names h0, h1, ..., all ready, and as many static ones s0, s1, ...
func steeredZone(t testing.TB, names int, st *zone.Steered) (*zone.View, zone.Name) {
	t.Helper()
	apex := parsed(t, "bank.")
	soa := zone.SOA{MName: apex, RName: apex, Minimum: 300}
	nodes := []zone.Node{zone.NewNode(apex, zone.NewRRset(zone.TypeSOA, 300, soa.Pack()))}
	for i := range names {
		nodes = append(nodes,
			zone.NewNode(parsed(t, fmt.Sprintf("h%d.bank.", i)), zone.NewRRset(zone.TypeSteered, 0, []byte("x"))),
			zone.NewNode(parsed(t, fmt.Sprintf("s%d.bank.", i)), zone.NewRRset(zone.TypeA, 60, []byte{10, 9, 0, 1}, []byte{10, 9, 0, 2}, []byte{10, 9, 0, 3})))
	}
	content, err := zone.NewContent(apex, nodes)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zone.NewServed(content, zone.Version{Serial: 1, Digest: content.Digest()})
	if err != nil {
		t.Fatal(err)
	}
	v := &zone.View{}
	v.Update([]*zone.Served{z}, nil)
	for i := range names {
		if !v.SetSteered(apex, parsed(t, fmt.Sprintf("h%d.bank.", i)), st) {
			t.Fatal("a name is not steered")
		}
	}
	return v, apex
}

// BenchmarkFlip compiles a record whose first pool has gone down and has its answers served, in zones of all
// sizes.
func BenchmarkFlip(b *testing.B) {
	w := manyDatacenters(b, 200)
	for _, names := range []int{1, 10000} {
		for _, tc := range []struct{ name, record string }{
			{"Nearest/pools=2", "policy Nearest\n" + poolsOf(2)},
			{"Nearest/pools=8", "policy Nearest\n" + poolsOf(8)},
			{"Nearest/pools=16", "policy Nearest\n" + poolsOf(16)},
			{"Failover/pools=3", "policy Failover\n" + poolsOf(3)},
			{"Weighted/pools=8", "policy Weighted\n" + poolsOf(8)},
			{"Nearest/pools=8/rules=16", "policy Nearest\n" + poolsOf(8) + rulesOf(16)},
			{"LastGood/pools=8", "policy Nearest\nalldown LastGood\n" + poolsOf(8)},
		} {
			r := record(b, tc.record)
			up, down := view(b, r, ""), view(b, r, "p0: down")
			res := Compile(r, &Inputs{Now: now, World: w, Health: up})
			v, apex := steeredZone(b, names, res.Steered)
			owner := parsed(b, "h0.bank.")
			b.Run(fmt.Sprintf("names=%d/%s", names, tc.name), func(b *testing.B) {
				b.ReportAllocs()
				start := cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)
				in := &Inputs{Now: now, World: w, Memory: res.Memory}
				i := 0
				for b.Loop() {
					in.Health = up
					if i++; i%2 != 0 {
						in.Health = down
					}
					res := Compile(r, in)
					in.Memory = res.Memory
					if !v.SetSteered(apex, owner, res.Steered) {
						b.Fatal("not steered")
					}
				}
				b.ReportMetric(float64((cpuTime(b, unix.CLOCK_PROCESS_CPUTIME_ID)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// cpuTime is what the present thread, or the process with the garbage collector, has used: what counts on a
// machine that others use too.
func cpuTime(t testing.TB, clock int32) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func rulesOf(count int) string {
	text := ""
	for i := range count {
		text += fmt.Sprintf("rule 10.200.%d.0/24 p%d\n", i, i%8)
	}
	return text
}

// BenchmarkAnswer answers steered names beside static ones, all over a zone, from clients in all networks.
func BenchmarkAnswer(b *testing.B) {
	const names = 10000
	w := manyDatacenters(b, 200)
	for _, tc := range []struct{ name, record string }{
		{"static", "policy Nearest\n" + poolsOf(8)},
		{"Nearest", "policy Nearest\n" + poolsOf(8)},
		{"Weighted", "policy Weighted\n" + poolsOf(8)},
		{"ClientHash", "policy ClientHash\n" + poolsOf(8)},
		{"Failover", "policy Failover\n" + poolsOf(8)},
		{"rules", "policy Nearest\n" + poolsOf(8) + rulesOf(16)},
	} {
		r := record(b, tc.record)
		v, apex := steeredZone(b, names, nil)
		for i := range names { // each has its own, as in a server
			res := Compile(r, &Inputs{Now: now, World: w})
			if !v.SetSteered(apex, parsed(b, fmt.Sprintf("h%d.bank.", i)), res.Steered) {
				b.Fatal("not steered")
			}
		}
		letter := "h"
		if tc.name == "static" {
			letter = "s"
		}
		var questions [4096][]byte
		var four, six [4096]netip.Addr
		for i := range questions {
			owner := parsed(b, fmt.Sprintf("%s%d.bank.", letter, i*7919%names))
			q := append([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1}, owner...)
			questions[i] = append(q, 0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0)
			n := i * 31 % 200
			four[i] = netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(i)})
			six[i] = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(n >> 8), byte(n), 15: byte(i)})
		}
		for family, addrs := range map[string]*[4096]netip.Addr{"IPv4": &four, "IPv6": &six} {
			b.Run(fmt.Sprintf("%s/%s", tc.name, family), func(b *testing.B) {
				const batch = 64 // as a worker does
				s, dst := &zone.Scratch{Now: now.Unix()}, make([]byte, zone.MaxUDP)
				first := 0
				a := &zone.Ahead{Now: now.Unix(), Client: func(i int) netip.Addr { return addrs[first+i] }}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				b.ReportAllocs()
				start := cpuTime(b, unix.CLOCK_THREAD_CPUTIME_ID)
				i := 0
				for b.Loop() {
					if i %= len(questions); i%batch == 0 {
						first = i
						v.Ahead(a, questions[i:i+batch])
					}
					if len(v.AnswerAhead(s, a, i%batch, dst, questions[i], addrs[i], zone.UDP)) < 50 {
						b.Fatal("no answer")
					}
					i++
				}
				b.ReportMetric(float64((cpuTime(b, unix.CLOCK_THREAD_CPUTIME_ID)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// BenchmarkGeoTable makes a table of databases as large as those in use.
func BenchmarkGeoTable(b *testing.B) {
	countries := func(yield func(netip.Prefix, Country) bool) {
		for i := range 300000 {
			n := i * 43
			c := Country{Code: string([]byte{'A' + byte(i*7%26), 'A' + byte(i*11%10)}), Continent: "EU"}
			four := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 16), byte(n >> 8), byte(n)}), 24-i%5).Masked()
			six := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20 | byte(n>>20&0xf), byte(n >> 12), byte(n >> 4), byte(n << 4)}), 32+i%3)
			if !yield(four, c) || i%2 == 0 && !yield(six, c) {
				return
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewGeoTable(countries, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
