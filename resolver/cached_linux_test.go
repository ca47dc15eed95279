package resolver

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/bench/blast"
)

// BenchmarkCachedAnswers tells how many questions for 1,000 names in its cache an engine with one thread answers in a second,
// and how long clients wait when they ask half as many. The engine has all CPUs but the one that asks.
func BenchmarkCachedAnswers(b *testing.B) {
	w := newWorld(b)
	w.startSpy("spied.corp.")
	var names []string
	var questions []byte
	for i := range 1000 {
		names = append(names, fmt.Sprintf("t3600-n%d.spied.corp.", i))
		packed, err := question(names[i], dns.TypeA, true).Pack()
		if err != nil {
			b.Fatal(err)
		}
		questions = append(binary.BigEndian.AppendUint16(questions, uint16(len(packed))), packed...)
	}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		b.Fatal(err)
	}
	asking := 0
	for cpus.Count() > 1 && !cpus.IsSet(asking) {
		asking++
	}
	cpus.Clear(asking)
	var clients []netip.Addr
	for i := range 8 {
		clients = append(clients, netip.AddrFrom4([4]byte{10, 5, 0, byte(i + 1)}))
	}
	for _, p := range products {
		b.Run("engine="+string(p), func(b *testing.B) {
			s := startPool(b, p, w.config())
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.current().process.pid()))
			if err != nil {
				b.Fatal(err)
			}
			for _, task := range tasks {
				if id, err := strconv.Atoi(task.Name()); err != nil || unix.SchedSetaffinity(id, &cpus) != nil {
					b.Fatalf("giving thread %s other CPUs: %v", task.Name(), err)
				}
			}
			for _, name := range names {
				s.ask(name)
			}
			load := blast.Options{Server: s.at, Questions: questions, CPU: asking, Sources: clients, Window: 256, Warm: time.Second, Length: 3 * time.Second}
			for b.Loop() {
				load.Rate = 0
				most, err := blast.Run(load)
				if err != nil {
					b.Fatal(err)
				}
				load.Rate = most.Rate() / 2
				half, err := blast.Run(load)
				if err != nil {
					b.Fatal(err)
				}
				if half.WithAnswer != half.Answers || half.Answers == 0 {
					b.Errorf("%d of %d answers have an address", half.WithAnswer, half.Answers)
				}
				b.ReportMetric(most.Rate(), "most/s")
				b.ReportMetric(half.Rate(), "half/s")
				for quantile, unit := range map[float64]string{0.5: "p50-ms", 0.99: "p99-ms", 0.999: "p99.9-ms"} {
					b.ReportMetric(float64(half.Latency.Quantile(quantile))/1e6, unit)
				}
				b.ReportMetric(float64(half.Lost), "lost")
			}
		})
	}
}
