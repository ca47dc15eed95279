package resolver

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// leaks sees every packet of the network.
type leaks struct {
	mu   sync.Mutex
	seen map[string]bool // "udp from 10.1.1.1 to 192.0.2.1:53"
}

// watchLeaks collects UDP and TCP destinations outside the given networks until the test ends.
func watchLeaks(t *testing.T, inside ...netip.Prefix) *leaks {
	t.Helper()
	l := &leaks{seen: map[string]bool{}}
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20); err != nil {
		// Without privileges over the machine the limit is the machine's.
		_ = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<20)
	}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		packet := make([]byte, 128)
		for {
			n, _, err := unix.Recvfrom(socket, packet, 0)
			if err != nil {
				select {
				case <-done:
					return
				default:
					continue
				}
			}
			if to, what, ok := destination(packet[:n]); ok && !slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(to.Addr()) }) {
				l.mu.Lock()
				l.seen[what] = true
				l.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		<-stopped
		unix.Close(socket)
	})
	return l
}

// none fails the test if anything was seen up to a phase of it.
func (l *leaks) none(t *testing.T, phase string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for what := range l.seen {
		t.Errorf("%s: %s", phase, what)
	}
}

// destination reads IP headers of UDP and TCP. what says it in words.
func destination(packet []byte) (to netip.AddrPort, what string, ok bool) {
	names := map[byte]string{unix.IPPROTO_UDP: "udp", unix.IPPROTO_TCP: "tcp"}
	var protocol byte
	var from, a netip.Addr
	head := 40
	switch {
	case len(packet) >= 24 && packet[0]>>4 == 4:
		head = int(packet[0]&15) * 4
		protocol, from, a = packet[9], netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))
	case len(packet) >= 44 && packet[0]>>4 == 6:
		protocol, from, a = packet[6], netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40]))
	default:
		return to, "", false
	}
	name, ok := names[protocol]
	if !ok || len(packet) < head+4 {
		return to, "", false
	}
	to = netip.AddrPortFrom(a, binary.BigEndian.Uint16(packet[head+2:]))
	return to, fmt.Sprintf("%s from %s to %s", name, from, to), true
}

// TestNothingLeavesForOthers runs all products with what makes them ask by themselves, on a private root that has the
// internet's top level: no server of it is asked, whatever happens. Every address would be reached.
func TestNothingLeavesForOthers(t *testing.T) {
	w := newWorld(t)
	leaks := watchLeaks(t, inside...)
	anchor, err := engine.ParseAnchor("signed.corp. IN DS 12345 13 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D")
	if err != nil {
		t.Fatal(err)
	}
	var members []*member
	var configs []*engine.Config
	for _, p := range products {
		c := w.configOf(p)
		// IPv6 is on: engines look for servers there.
		c.AuthorityNetworks = append(c.AuthorityNetworks, netip.MustParsePrefix("fd00::/8"))
		c.Source = append(c.Source, netip.MustParseAddr("fd00:1::53"))
		c.TrustAnchors, c.RandomCase, c.Prefetch = []engine.Anchor{anchor}, true, true
		c.TTL.Min = engine.Duration(6 * time.Second)
		c.ServeStale = &engine.ServeStale{MaxAge: engine.Duration(time.Hour), Patience: engine.Duration(500 * time.Millisecond)}
		configs = append(configs, c)
		members = append(members, startPool(t, p, c))
	}
	n := 0
	// ask has every engine asked for names of ours, of which one is in no cache, and of others; an answer is owed to nobody.
	ask := func() {
		n++
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		var asked sync.WaitGroup
		for _, m := range members {
			for _, q := range []struct {
				name string
				of   uint16
			}{
				{"app.pay.corp.", dns.TypeA}, {fmt.Sprintf("n%d.deep.pay.corp.", n), dns.TypeA}, {"x.signed.corp.", dns.TypeA}, {fmt.Sprintf("n%d.", n), dns.TypeA},
				{".", dns.TypeNS}, {".", dns.TypeDNSKEY}, {"com.", dns.TypeDS}, {"com.", dns.TypeNS}, {"arpa.", dns.TypeSOA},
				{fmt.Sprintf("www%d.example.com.", n), dns.TypeA}, {fmt.Sprintf("www%d.example.org.", n), dns.TypeAAAA}, {"a.root-servers.net.", dns.TypeA},
				{"nobody.test.", dns.TypeA}, {"localhost.", dns.TypeA}, {"home.arpa.", dns.TypeA}, {"x.local.", dns.TypeA}, {"recursor-4.8.8.security-status.secpoll.powerdns.com.", dns.TypeTXT},
				{fmt.Sprintf("%d.1.1.10.in-addr.arpa.", n), dns.TypePTR}, {"1.1.168.192.in-addr.arpa.", dns.TypePTR}, {"8.8.8.8.in-addr.arpa.", dns.TypePTR}, {"1.0.0.2.ip6.arpa.", dns.TypePTR},
			} {
				asked.Go(func() { _, _ = ask(ctx, netip.Addr{}, m.at, question(q.name, q.of, true)) })
			}
			// The agent looks for the servers of a name that has moved.
			asked.Go(func() {
				m.Flush(ctx, []changes.Change{{Name: mustZoneName(t, "www.example.com.")}, {Name: mustZoneName(t, "app.pay.corp.")}})
			})
		}
		asked.Wait()
	}
	resolves := func(phase string) {
		t.Helper()
		for i, m := range members {
			eventually(t, fmt.Sprintf("%s: %s resolves", phase, products[i]), func() bool {
				n++
				return m.ask(fmt.Sprintf("n%d.deep.pay.corp.", n)).Rcode == dns.RcodeNameError
			})
		}
	}
	reload := func(most time.Duration) {
		t.Helper()
		for i, m := range members {
			c := *configs[i]
			c.TTL.Max = engine.Duration(most)
			m.set(&c)
			if err := m.Refused(); err != nil {
				t.Fatal(err)
			}
		}
	}

	leaks.none(t, "start")
	resolves("start")
	ask()
	leaks.none(t, "operation")
	reload(2 * time.Hour)
	ask()
	leaks.none(t, "reload")

	for _, root := range []string{"10.1.0.1", "10.2.0.1"} {
		w.servers[root].stop()
	}
	ask()
	leaks.none(t, "outage of the root")
	for dc := 1; dc <= 2; dc++ {
		for _, a := range w.datacenter(dc) {
			a.stop()
		}
	}
	ask()
	leaks.none(t, "outage of all authorities")
	// They start without a server that they could learn the root's from.
	for i, m := range members {
		dead := m.current()
		if err := syscall.Kill(dead.process.pid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, fmt.Sprintf("%s runs again", products[i]), func() bool { return m.current() != dead && m.Ready() == nil })
	}
	ask()
	leaks.none(t, "restart without authorities")

	for dc := 1; dc <= 2; dc++ {
		for _, a := range w.datacenter(dc) {
			w.start(a)
		}
	}
	resolves("the end of the outage")
	reload(time.Hour)
	ask()
	leaks.none(t, "the end of the outage")
}

// TestWithoutAuthorityNetworksReferralsAreFollowed shows that what the test above looks for is seen.
func TestWithoutAuthorityNetworksReferralsAreFollowed(t *testing.T) {
	w := newWorld(t)
	leaks := watchLeaks(t, inside...)
	c := w.config()
	c.AuthorityNetworks, c.Source = nil, nil
	s := startPool(t, engine.Unbound, c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _ = ask(ctx, netip.Addr{}, s.at, question("www.example.com.", dns.TypeA, true))
	eventually(t, "a question to the servers of com is seen", func() bool {
		leaks.mu.Lock()
		defer leaks.mu.Unlock()
		return len(leaks.seen) > 0
	})
}
