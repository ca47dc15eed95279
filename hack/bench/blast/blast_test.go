//go:build linux

package blast

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

// The test binary is the echo server too.
const echoVariable = "FINGERPOST_TEST_ECHO"

func TestMain(m *testing.M) {
	if at := os.Getenv(echoVariable); at != "" {
		fmt.Println(Echo(netip.MustParseAddrPort(at)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// echoServer runs until the test ends.
func echoServer(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	socket, err := open(netip.AddrPortFrom(netip.MustParseAddr(host), 0), unix.Bind)
	if err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(socket)
	port := 0
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		port = b.Port
	case *unix.SockaddrInet6:
		port = b.Port
	}
	address := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), echoVariable+"="+address.String())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the end of the test's context kills it
	return address
}

func TestEveryQuestionIsAnsweredOrLost(t *testing.T) {
	for name, c := range map[string]struct {
		host    string
		sockets int
		rate    float64
		sources []netip.Addr
	}{
		"as fast as it goes":        {host: "127.0.0.1", sockets: 1},
		"from many ports":           {host: "127.0.0.1", sockets: 8},
		"from many addresses":       {host: "127.0.0.1", sources: workload.Sources(8)},
		"over IPv6":                 {host: "::1", sockets: 1},
		"at a rate that is allowed": {host: "127.0.0.1", sockets: 1, rate: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			marks := 0
			r, err := Run(Options{
				Server: echoServer(t, c.host), Questions: workload.Zones{workload.NewZone(100)}.Questions(1000, workload.Usual, nil), Sockets: c.sockets, Sources: c.sources, Rate: c.rate,
				Warm: 500 * time.Millisecond, Length: 200 * time.Millisecond, Mark: func() { marks++ },
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Answers == 0 || r.Rcodes[0] != r.Answers || r.WithAnswer != 0 || r.Octets < r.Answers*answerHeader {
				t.Errorf("an echo is %+v", r)
			}
			if marks != 2 || r.Elapsed < 200*time.Millisecond {
				t.Errorf("%d marks, %s measured", marks, r.Elapsed)
			}
			// What was late while the machine was busy is made up for; without a limit it would be a hundred times as much.
			if c.rate > 0 && r.Rate() > 10*c.rate {
				t.Errorf("%.0f questions in a second, wanted %.0f", r.Rate(), c.rate)
			}
			if p50, p99 := r.Latency.Quantile(0.5), r.Latency.Quantile(0.99); p50 <= 0 || p99 < p50 {
				t.Errorf("half of the answers take up to %s, 99%% up to %s", p50, p99)
			}
		})
	}
}

func TestAServerThatIsSilentLosesQuestions(t *testing.T) {
	socket, err := open(netip.MustParseAddrPort("127.0.0.1:0"), unix.Bind)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	bound, err := unix.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(Options{
		Server:    netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(bound.(*unix.SockaddrInet4).Port)),
		Questions: workload.Zones{workload.NewZone(100)}.Questions(1000, workload.Usual, nil), Window: 16, Length: 2 * Lost,
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Answers != 0 || r.Lost < 16 {
		t.Errorf("%d answers and %d lost", r.Answers, r.Lost)
	}
}

func TestQuantilesAreWithinThreePercent(t *testing.T) {
	var h Histogram
	if h.Quantile(0.99) != 0 {
		t.Error("nothing was counted")
	}
	for us := range 10_000 {
		h.Add(time.Duration(us)*time.Microsecond, 1)
	}
	for q, want := range map[float64]time.Duration{0.5: 5 * time.Millisecond, 0.99: 9900 * time.Microsecond} {
		if got := h.Quantile(q); got < want-want/30 || got > want+want/30 {
			t.Errorf("quantile %v is %s, wanted %s", q, got, want)
		}
	}
	for _, d := range []time.Duration{0, 1, 31, 32, 33, 63, 64, 65, 1000, time.Second, time.Hour} {
		if got := longest(bucket(d)); got < d || got > d+d/steps {
			t.Errorf("%s is counted as %s", d, got)
		}
	}
}
