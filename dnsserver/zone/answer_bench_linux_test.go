package zone

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

// BenchmarkMix asks in random order what authoritative servers are asked, about names all over a
// zone, in batches as a worker has them. CPU time is what counts on a machine that others use too.
func BenchmarkMix(b *testing.B) {
	for _, names := range []int{100, 1e4, 111e3, 1e6} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) { benchmarkMix(b, names) })
	}
}

func benchmarkMix(b *testing.B, names int) {
	b.Helper()
	made := workload.NewZone(names)
	var text strings.Builder
	if _, err := made.WriteTo(&text); err != nil {
		b.Fatal(err)
	}
	v := viewOf(fromText(b, workload.Apex, text.String()))
	text.Reset()
	questions := made.Questions(max(1e4, names), workload.Usual)
	runtime.GC()
	for _, ahead := range []bool{false, true} {
		b.Run(fmt.Sprintf("ahead=%v", ahead), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var received [64][512]byte
			var batch [64][]byte
			s, a, left := &Scratch{}, &Ahead{}, questions
			b.ReportAllocs()
			start := cpuTime(b)
			for i := 0; b.Loop(); i++ {
				if i %= len(batch); i == 0 {
					for at := range batch {
						if len(left) == 0 {
							left = questions
						}
						size := int(left[0])<<8 | int(left[1])
						batch[at] = received[at][:copy(received[at][:], left[2:2+size])]
						left = left[2+size:]
					}
					if ahead {
						v.Ahead(a, batch[:])
					}
				}
				if ahead {
					v.AnswerAhead(s, a, i, batch[i][:0], batch[i], client, UDP)
				} else {
					v.Answer(s, batch[i][:0], batch[i], client, UDP)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkUpdate changes one name after the other and serves each version.
func BenchmarkUpdate(b *testing.B) {
	for _, names := range []int{100, 1e4, 1e6} {
		b.Run(fmt.Sprintf("names=%d", names), func(b *testing.B) {
			z := syntheticZone(b, names)
			v := viewOf(z)
			content := z.content
			hosts := make([]Name, 1000)
			for i := range hosts {
				hosts[i] = mustName(b, fmt.Sprintf("h%d.example.test.", i*(names/100)/10/20*20))
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			start := cpuTime(b)
			for i := 0; b.Loop(); i++ {
				var err error
				if content, err = content.With(NewNode(hosts[i%len(hosts)], a(byte(i/len(hosts))))); err != nil {
					b.Fatal(err)
				}
				v.Update([]*Served{again(b, content, uint32(i+2))}, nil)
			}
			b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is what the present thread has used.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
