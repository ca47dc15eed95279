package dnsserver

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/limit"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// batchesOf returns a server that answers nothing yet, and how it is to answer over UDP.
func batchesOf(t *testing.T, addresses ...netip.AddrPort) (*Server, *udpBatches) {
	t.Helper()
	view := &zone.View{}
	view.Update([]*zone.Served{exampleZone(t)}, nil)
	s, err := Listen(Options{Addresses: addresses, View: view, Log: logr.Discard(), Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s, s.udp.(*udpBatches)
}

func TestWorkersShareTheSocketsOfAllAddresses(t *testing.T) {
	for sentence, tc := range map[string]struct {
		workers, addresses int
		want               []int // sockets of each worker that has one
	}{
		"one worker has all addresses":                                {1, 5, []int{5}},
		"each of few workers has each address":                        {4, 3, []int{3, 3, 3, 3}},
		"with many addresses, each is at fewer workers":               {64, 100, append(slices.Repeat([]int{15}, 24), slices.Repeat([]int{16}, 40)...)},
		"with very many addresses, each is at one worker":             {3, 2000, []int{666, 667, 667}},
		"with more workers than there may be sockets, some are spare": {2000, 1, slices.Repeat([]int{1}, 1024)},
	} {
		t.Run(sentence, func(t *testing.T) {
			p := newUDPBatches(tc.workers, tc.addresses)
			fd := 0
			for range tc.addresses {
				var fds []int
				for range p.sockets {
					fd++
					fds = append(fds, fd)
				}
				p.bound = append(p.bound, fds)
			}
			var got []int
			seen := map[int32]bool{}
			for _, w := range p.workers(func() *responder { return &responder{} }) {
				sockets := w.(*batchWorker).polled[1:]
				got = append(got, len(sockets))
				for _, s := range sockets {
					seen[s.Fd] = true
				}
			}
			slices.Sort(got)
			slices.Sort(tc.want)
			if !slices.Equal(got, tc.want) || len(seen) != fd {
				t.Errorf("workers have %v sockets of %d, wanted %v of %d", got, len(seen), tc.want, fd)
			}
		})
	}
}

// TestControlMessagesThatAreCut has the kernel tell more than there is room for, so that where
// the query was sent to is cut off.
func TestControlMessagesThatAreCut(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0"} {
		s, batches := batchesOf(t, netip.MustParseAddrPort(address))
		if err := unix.SetsockoptInt(batches.bound[0][0], unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx) }()
		host := netip.IPv6Loopback()
		if address[0] == '0' {
			host = netip.MustParseAddr("127.0.0.1")
		}
		c := newUDPClient(t, netip.AddrPortFrom(host, s.Addresses()[0].Port()))
		q, err := query("www.example.test.").Pack()
		if err != nil {
			t.Fatal(err)
		}
		c.send(q)
		if got := c.replies(); len(got) != 1 {
			t.Errorf("%s: %d replies", address, len(got))
		}
		stop()
		if err := <-served; err != nil {
			t.Errorf("%s: serving ended with %v", address, err)
		}
	}
}

func TestSourceControl(t *testing.T) {
	v4 := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 3, Spec_dst: [4]byte{10, 0, 0, 1}, Addr: [4]byte{10, 0, 0, 2}})
	v6 := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte{0x20, 1, 15: 1}, Ifindex: 3})
	local := unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte{0xfe, 0x80, 15: 1}, Ifindex: 3})
	if max(len(v4), len(v6)) > controlRoom {
		t.Fatalf("control messages of %d and %d octets do not fit %d", len(v4), len(v6), controlRoom)
	}
	for sentence, tc := range map[string]struct{ got, want []byte }{
		"an IPv4 reply leaves from the address in the query's header":       {v4, unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{10, 0, 0, 2}, Addr: [4]byte{10, 0, 0, 2}})},
		"an IPv6 reply may take another interface":                          {v6, unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte{0x20, 1, 15: 1}})},
		"a reply from a link-local address leaves by the query's interface": {local, slices.Clone(local)},
		"no control message makes none":                                     {nil, nil},
		"a cut header makes none":                                           {slices.Clone(v4)[:unix.SizeofCmsghdr-1], nil},
		"a header that announces more than there is makes none":             {slices.Clone(v6)[:unix.CmsgLen(8)], nil},
		"a message of another kind makes none":                              {unix.UnixRights(1), nil},
	} {
		if got := sourceControl(tc.got); !bytes.Equal(got, tc.want) || (got == nil) != (tc.want == nil) {
			t.Errorf("%s: %x, wanted %x", sentence, got, tc.want)
		}
	}
}

func TestBatchesDoNotAllocate(t *testing.T) {
	s, batches := batchesOf(t, netip.MustParseAddrPort("127.0.0.1:0"))
	w := s.udpWork[0].(*batchWorker)
	w.fit()
	fd := batches.bound[0][0]
	c := newUDPClient(t, s.Addresses()[0])
	if err := c.SetReadBuffer(1 << 22); err != nil {
		t.Fatal(err)
	}
	q, err := query("www.example.test.").Pack()
	if err != nil {
		t.Fatal(err)
	}
	if allocs := testing.AllocsPerRun(100, func() {
		for range 2 * batchSize / 3 {
			c.send(q)
		}
		n, err := w.batch.receive(fd)
		if err != nil || n != 2*batchSize/3 {
			t.Fatalf("received %d, %v", n, err)
		}
		w.answer()
		if failed := w.batch.send(fd); failed != 0 {
			t.Fatalf("%d replies are not sent", failed)
		}
	}); allocs != 0 {
		t.Errorf("a batch allocates %v times", allocs)
	}
}

// TestOverload has a worker's socket hold more than it can take, by the worker's own clock.
func TestOverload(t *testing.T) {
	ms := limit.Time(time.Millisecond)
	type received struct {
		at        limit.Time
		datagrams int
	}
	for sentence, tc := range map[string]struct {
		rounds []received
		want   bool
	}{
		"whole batches for 20 ms are overload":          {[]received{{0, 64}, {10 * ms, 64}, {20 * ms, 64}}, true},
		"whole batches for less are a burst":            {[]received{{0, 64}, {10 * ms, 64}, {19 * ms, 64}}, false},
		"a batch that is not whole ends it":             {[]received{{0, 64}, {10 * ms, 63}, {11 * ms, 64}, {30 * ms, 64}}, false},
		"two bursts with nothing between them are none": {[]received{{0, 64}, {10 * ms, 0}, {1000 * ms, 64}}, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, _ := batchesOf(t, netip.MustParseAddrPort("127.0.0.1:0"))
			if err := s.Configure(Settings{Resolvers: prefixes("10.0.0.0/8")}); err != nil {
				t.Fatal(err)
			}
			w := s.udpWork[0].(*batchWorker)
			w.responder.begin(time.Now())
			for _, r := range tc.rounds {
				w.responder.now = r.at
				w.load(0, r.datagrams)
			}
			if got := w.responder.share.Active(); got != tc.want {
				t.Errorf("shares are active: %t", got)
			}
		})
	}
	s, _ := batchesOf(t, netip.MustParseAddrPort("127.0.0.1:0"))
	w := s.udpWork[0].(*batchWorker)
	for i := range 10 {
		w.responder.now = limit.Time(i) * 100 * ms
		w.load(0, batchSize)
	}
	if w.responder.share.Active() {
		t.Error("without resolvers there is nobody to share")
	}
}

// TestRepliesThatCannotBeSentCostNoOthers has replies to port 0, which no datagram can go to, among others.
func TestRepliesThatCannotBeSentCostNoOthers(t *testing.T) {
	s, batches := batchesOf(t, netip.MustParseAddrPort("127.0.0.1:0"))
	w := s.udpWork[0].(*batchWorker)
	w.fit()
	c := newUDPClient(t, s.Addresses()[0])
	for range 10 {
		c.send(last)
	}
	if n, err := w.batch.receive(batches.bound[0][0]); n != 10 || err != nil {
		t.Fatalf("received %d, %v", n, err)
	}
	for _, i := range []int{0, 4, 5, 9} {
		w.batch.peers[i][2], w.batch.peers[i][3] = 0, 0
	}
	w.answer()
	if failed := w.batch.send(batches.bound[0][0]); failed != 4 {
		t.Errorf("%d replies are not sent, wanted 4", failed)
	}
	for i := range 6 {
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 512)); err != nil {
			t.Fatalf("reply %d: %v", i, err)
		}
	}
}
