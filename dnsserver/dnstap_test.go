package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	frames "github.com/dnstap/golang-dnstap"
	"github.com/go-logr/logr"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// told returns a line for each frame up to the end of the stream or the n-th.
func told(t *testing.T, from io.Reader, both bool, n int) (lines []string) {
	t.Helper()
	r, err := frames.NewReader(from, &frames.ReaderOptions{Bidirectional: both})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1<<17)
	for len(lines) != n {
		size, err := r.ReadFrame(b)
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		var d frames.Dnstap
		if err := proto.Unmarshal(b[:size], &d); err != nil {
			t.Fatal(err)
		}
		m := d.Message
		octets := m.QueryMessage
		if m.GetType() == frames.Message_AUTH_RESPONSE {
			octets = m.ResponseMessage
			if len(m.QueryMessage) > 0 || m.GetResponseTimeSec() < m.GetQueryTimeSec() {
				t.Errorf("a response with a query, or before it: %v", &d)
			}
		}
		var said dns.Msg
		if err := said.Unpack(octets); err != nil {
			t.Fatal(err)
		}
		if age := time.Since(time.Unix(int64(m.GetQueryTimeSec()), int64(m.GetQueryTimeNsec()))); age < 0 || age > time.Hour {
			t.Errorf("told of the time %v ago", age)
		}
		address, _ := netip.AddrFromSlice(m.QueryAddress)
		lines = append(lines, fmt.Sprint(string(d.Identity), " ", m.GetType(), " ", m.GetSocketFamily(), " ", m.GetSocketProtocol(),
			" ", address, " ", m.QueryPort != nil, " ", said.Question[0].Name, " ", len(said.Answer)))
	}
	return lines
}

// tapping runs a dnstap until the test ends or stop is called, which returns when it has ended.
func tapping(t *testing.T, target string) (d *dnstap, stop func()) {
	t.Helper()
	d, err := newDnstap(target, "auth-1", "v1", logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	d.retry = time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return d, stop
}

func listenUnix(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestDnstapTellsOfQueriesAndReplies(t *testing.T) {
	eachUDPPath(t, testDnstapTellsOfQueriesAndReplies)
}

func testDnstapTellsOfQueriesAndReplies(t *testing.T, udp func(workers, addresses int) udpPath) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dnstap")
	l := listenUnix(t, path)
	d, _ := tapping(t, "unix:"+path)
	address := netip.MustParseAddrPort("[::1]:0")
	s := serve(t, Options{Addresses: []netip.AddrPort{address}, Workers: 1, taps: []tap{{1, d}}, udp: udp})
	c := newUDPClient(t, s.Addresses()[0])
	for _, name := range []string{"www.example.test.", "nope.example.test."} {
		c.send(question(t, name))
	}
	c.replies() // asks for the root, which is refused, too
	client := dns.Client{Net: "tcp"}
	if _, _, err := client.Exchange(query("big.example.test."), s.Addresses()[0].String()); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := told(t, conn, true, 8)
	want := []string{
		"auth-1 AUTH_QUERY INET6 UDP ::1 true www.example.test. 0",
		"auth-1 AUTH_RESPONSE INET6 UDP ::1 true www.example.test. 1",
		"auth-1 AUTH_QUERY INET6 UDP ::1 true nope.example.test. 0",
		"auth-1 AUTH_RESPONSE INET6 UDP ::1 true nope.example.test. 0",
		"auth-1 AUTH_QUERY INET6 UDP ::1 true last. 0",
		"auth-1 AUTH_RESPONSE INET6 UDP ::1 true last. 0",
		"auth-1 AUTH_QUERY INET6 TCP ::1 false big.example.test. 0",
		"auth-1 AUTH_RESPONSE INET6 TCP ::1 false big.example.test. 2000",
	}
	if !slices.Equal(got, want) {
		t.Errorf("told of\n%s\nwanted\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// show has a watcher see n queries without a network.
func show(t *testing.T, w watcher, n int) {
	t.Helper()
	x := &seen{query: question(t, "www.example.test."), client: netip.MustParseAddrPort("192.0.2.1:5353"), over: zone.UDP}
	for range n {
		w.watch(x)
	}
}

// TestDnstapDropsWhatIsNotRead has nobody listen, then somebody who does not read.
func TestDnstapDropsWhatIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dnstap")
	d, stop := tapping(t, "unix:"+path)
	const n = 20 * dnstapQueue
	show(t, d, n)
	l := listenUnix(t, path)
	conn, err := l.Accept() // tried again
	if err != nil {
		t.Fatal(err)
	}
	if _, err := frames.NewReader(conn, &frames.ReaderOptions{Bidirectional: true}); err != nil {
		t.Fatal(err)
	}
	show(t, d, 20*n)
	conn.Close()
	stop()
	if frames, dropped := d.frames.Load(), d.dropped.Load(); dropped == 0 || frames+dropped > 21*n || len(d.spare) > dnstapQueue {
		t.Errorf("%d written and %d dropped of %d", frames, dropped, 21*n)
	}
}

// TestDnstapConnectsAgain has who reads go and come back.
func TestDnstapConnectsAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dnstap")
	l := listenUnix(t, path)
	d, _ := tapping(t, "unix:"+path)
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			show(t, d, 1)
			runtime.Gosched()
		}
	})
	for range 5 {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := told(t, conn, true, 1); len(got) != 1 || got[0] != "auth-1 AUTH_QUERY INET UDP 192.0.2.1 true www.example.test. 0" {
			t.Errorf("told of %q", got)
		}
		conn.Close()
	}
	stop()
	asking.Wait()
}

func TestDnstapToAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tap")
	for run := range 3 {
		d, stop := tapping(t, "file:"+path)
		show(t, d, 10+run)
		stop()
		read := func(path string, want int) {
			t.Helper()
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := told(t, f, false, -1); len(got) != want || d.frames.Load() != uint64(10+run) {
				t.Errorf("%s has %d queries, wanted %d", path, len(got), want)
			}
		}
		read(path, 10+run)
		if run > 0 {
			read(path+".old", 10+run-1)
		}
	}
	if _, err := newDnstap("tcp:127.0.0.1:6000", "", "", logr.Discard()); err == nil {
		t.Error("a target that is neither socket nor file")
	}
}

// TestTapsSeeEveryNthQuery has two watchers.
func TestTapsSeeEveryNthQuery(t *testing.T) {
	all, some := &shown{}, &shown{}
	w := newWatched([]tap{{1, all}, {10, some}})
	for i := range 1000 {
		if w.next([]byte{byte(i)}) {
			w.show([]byte{byte(i), 1}, netip.MustParseAddr("192.0.2.1"), &responder{scratch: &zone.Scratch{}})
		}
	}
	if len(*all) != 1000 || len(*some) != 100 {
		t.Errorf("%d and %d of 1000 queries are shown", len(*all), len(*some))
	}
	for i, x := range *all {
		if x != byte(i) {
			t.Fatalf("query %d is shown as %d", i, x)
		}
	}
	if newWatched(nil) != nil {
		t.Error("something watches for nobody")
	}
}

// shown is the first octets of queries that it is shown.
type shown []byte

func (c *shown) watch(x *seen) { *c = append(*c, x.query[0]) }
