package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// benchmarkTargets are ports of targets in a process of their own, at every loopback address, so that what they cost is
// not counted.
type benchmarkTargets struct {
	TCP       uint16 `json:"tcp"`
	HTTP      uint16 `json:"http"`
	HTTPS     uint16 `json:"https"`
	GRPC      uint16 `json:"grpc"`
	DNS       uint16 `json:"dns"`
	Authority string `json:"authority"`
}

// benchTargets is the other side of startTargets: it serves until its input ends.
func benchTargets() {
	var t testing.B
	a := newAuthority(&t)
	config := &tls.Config{Certificates: []tls.Certificate{a.issue(-day, day)}}
	var all benchmarkTargets
	all.Authority = a.pem
	open := func(port *uint16) net.Listener {
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			panic(err)
		}
		*port = netip.MustParseAddrPort(l.Addr().String()).Port()
		return l
	}
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	go func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}(open(&all.TCP))
	go func(l net.Listener) { _ = (&http.Server{Handler: ok, ErrorLog: quiet}).Serve(l) }(open(&all.HTTP))
	go func(l net.Listener) {
		_ = (&http.Server{Handler: ok, ErrorLog: quiet, TLSConfig: config}).ServeTLS(l, "", "")
	}(open(&all.HTTPS))
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, grpchealth.NewServer())
	go func(l net.Listener) { _ = g.Serve(l) }(open(&all.GRPC))
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetReply(q)) })
	l := open(&all.DNS)
	packets, err := net.ListenPacket("udp4", l.Addr().String())
	if err != nil {
		panic(err)
	}
	go func() { _ = dns.ActivateAndServe(l, nil, answer) }()
	go func() { _ = dns.ActivateAndServe(nil, packets, answer) }()
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func startTargets(b *testing.B) benchmarkTargets {
	b.Helper()
	command := exec.CommandContext(b.Context(), "/proc/self/exe")
	command.Env = append(os.Environ(), "PROBE_TEST_CHILD=targets")
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = command.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var t benchmarkTargets
	if err != nil || json.Unmarshal(line, &t) != nil {
		b.Fatalf("targets: %v, %q", err, line)
	}
	return t
}

// kinds returns a probe of each type.
func (t benchmarkTargets) kinds() map[string]*steeringpb.Probe {
	all := map[string]*steeringpb.Probe{
		"TCP":  {Type: &steeringpb.Probe_Tcp{Tcp: &steeringpb.Tcp{Port: uint32(t.TCP)}}},
		"HTTP": {Type: &steeringpb.Probe_Http{Http: &steeringpb.Http{Port: uint32(t.HTTP), Path: "/healthz", BodyContains: "ok"}}},
		"HTTPS": {Type: &steeringpb.Probe_Http{Http: &steeringpb.Http{Port: uint32(t.HTTPS), Path: "/healthz", Tls: true,
			Host: "app.pay.bank", CertificateAuthority: t.Authority}}},
		"TLS":     {Type: &steeringpb.Probe_Tls{Tls: &steeringpb.Tls{Port: uint32(t.HTTPS), ServerName: "app.pay.bank", CertificateAuthority: t.Authority}}},
		"GRPC":    {Type: &steeringpb.Probe_Grpc{Grpc: &steeringpb.Grpc{Port: uint32(t.GRPC)}}},
		"DNS":     {Type: &steeringpb.Probe_Dns{Dns: &steeringpb.Dns{Port: uint32(t.DNS), Name: "app.pay.bank", Type: "A"}}},
		"DNS-TCP": {Type: &steeringpb.Probe_Dns{Dns: &steeringpb.Dns{Port: uint32(t.DNS), Name: "app.pay.bank", Type: "A", Tcp: true}}},
	}
	for _, p := range all {
		p.Interval, p.Timeout = 10_000, 2_000
	}
	return all
}

// cpu is what this process has used.
func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkProbe reports the CPU time of a probe. Over loopback the system counts a part of what the target does to us.
func BenchmarkProbe(b *testing.B) {
	for name, cfg := range startTargets(b).kinds() {
		b.Run("type="+name, func(b *testing.B) {
			p, err := New(cfg, anywhere())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			before, n := cpu(), 0
			for b.Loop() {
				if r := p.Probe(b.Context(), localhost); r.Outcome != Up {
					b.Fatal(r)
				}
				n++
			}
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(n), "cpu-us/op")
		})
	}
	b.Run("type=ICMP", func(b *testing.B) {
		for b.Loop() {
			command := inNamespace(b.Context(), "pings")
			out, err := command.CombinedOutput()
			var us float64
			if _, scanErr := fmt.Sscan(string(out), &us); err != nil || scanErr != nil {
				b.Fatalf("%v: %s", err, out)
			}
			b.ReportMetric(us, "cpu-us/op")
		}
	})
}

// pings is the other side of the benchmark of ICMP.
func pings() {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(linkUp("lo"))
	must(os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0))
	p, err := New(icmpOf(late), anywhere())
	must(err)
	const n = 10_000
	before := cpu()
	for range n {
		if r := p.Probe(context.Background(), localhost); r.Outcome != Up {
			panic(r)
		}
	}
	fmt.Println(float64((cpu() - before).Microseconds()) / n)
}

// BenchmarkTargets runs 20,000 targets at 10 s for two intervals each time and reports how many cores this process took, what it
// held at most, and how late the latest probe was. "silent" are targets that drop packets.
func BenchmarkTargets(b *testing.B) {
	const interval = 10 * time.Second
	targets := startTargets(b)
	kinds := targets.kinds()
	silent := tcpOf(fullPort(b, "0.0.0.0"), 2*time.Second)
	silentWeb := httpOf(&steeringpb.Http{Port: uint32(fullPort(b, "0.0.0.0"))}, 2*time.Second)
	mute := httpOf(&steeringpb.Http{Port: uint32(blackholeOutside(b))}, 2*time.Second)
	for _, c := range []struct {
		name string
		n    int
		mix  []*steeringpb.Probe
	}{
		{"TCP", 20_000, []*steeringpb.Probe{kinds["TCP"]}},
		{"HTTP", 20_000, []*steeringpb.Probe{kinds["HTTP"]}},
		{"GRPC", 20_000, []*steeringpb.Probe{kinds["GRPC"]}},
		{"DNS", 20_000, []*steeringpb.Probe{kinds["DNS"]}},
		{"HTTPS", 5_000, []*steeringpb.Probe{kinds["HTTPS"]}}, // for a machine that can't be all those targets
		{"HTTPS", 20_000, []*steeringpb.Probe{kinds["HTTPS"]}},
		{"TCP-silent", 20_000, []*steeringpb.Probe{silent}},
		{"HTTP-silent", 20_000, []*steeringpb.Probe{silentWeb}},
		{"HTTP-mute", 20_000, []*steeringpb.Probe{mute}},
		{"HTTP-half-silent", 20_000, []*steeringpb.Probe{kinds["HTTP"], silentWeb}},
	} {
		n, mix := c.n, c.mix
		b.Run(fmt.Sprintf("targets=%d/type=%s", n, c.name), func(b *testing.B) {
			var up, other atomic.Int64
			s := NewScheduler(Options{Deliver: func(_ health.CheckID, r Result) {
				if r.Outcome == Up {
					up.Add(1)
				} else {
					other.Add(1)
				}
			}})
			maker := NewMaker(anywhere())
			checks := make([]Check, n)
			for i := range checks {
				cfg, address := mix[i%len(mix)], netip.AddrFrom4([4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)}).String()
				cfg.Interval = uint64(interval.Milliseconds())
				checks[i] = maker.Check(health.Check{ID: health.NewCheckID(cfg, address), Probe: cfg, Address: address})
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan struct{})
			go func() { defer close(done); s.Run(ctx) }()
			s.Set(checks)
			<-time.After(interval) // every target was asked once
			before, began := cpu(), time.Now()
			up.Store(0)
			other.Store(0)
			var flight, goroutines, latest float64
			for b.Loop() {
				for end := time.Now().Add(2 * interval); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
					t := s.Stats()
					flight, latest = max(flight, float64(t.InFlight)), max(latest, t.Late.Seconds()*1000)
					goroutines = max(goroutines, float64(runtime.NumGoroutine()))
				}
			}
			took := time.Since(began)
			b.ReportMetric((cpu()-before).Seconds()/took.Seconds(), "cores")
			b.ReportMetric(float64(up.Load())/took.Seconds(), "up/s")
			b.ReportMetric(float64(other.Load())/took.Seconds(), "down/s")
			b.ReportMetric(flight, "max-in-flight")
			b.ReportMetric(goroutines, "max-goroutines")
			b.ReportMetric(latest, "max-late-ms")
			b.ReportMetric(memory()/(1<<20), "MiB")
			b.ReportMetric(0, "ns/op")
			cancel()
			<-done
		})
	}
}

// memory is what the Go runtime has of the system, in octets.
func memory() float64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return float64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}

// blackholeOutside is a blackhole in another process, at every loopback address: nobody accepts, and the system does in
// the place of who listens.
func blackholeOutside(b *testing.B) uint16 {
	b.Helper()
	command := exec.CommandContext(b.Context(), "/proc/self/exe")
	command.Env = append(os.Environ(), "PROBE_TEST_CHILD=blackhole")
	in, err := command.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = command.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.TrimSpace(line)).Port()
}

// muteTargets is the other side of blackholeOutside.
func muteTargets() {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}
