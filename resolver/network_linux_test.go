package resolver

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// insideVariable tells the tests that they are in a network of their own.
const insideVariable = "FINGERPOST_TEST_RESOLVER_NETWORK"

// TestMain runs the tests again in a network namespace, where every address is this machine's and every port is free.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		if err := takeAllAddresses(); err != nil {
			fmt.Fprintln(os.Stderr, "the private network:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the other process ends with this thread
	cmd := estate.Self(true, os.Args[1:]...)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, "these tests need a network namespace of their own, as root or by user namespaces:", err)
		}
		os.Exit(1)
	}
}

// takeAllAddresses makes every address one of the loopback device, so that nothing leaves and all can be listened on.
func takeAllAddresses() error {
	if err := estate.RaiseLoopback(); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0); err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := struct {
			unix.NlMsghdr
			unix.RtMsg
			unix.RtAttr
			device uint32
		}{
			NlMsghdr: unix.NlMsghdr{Type: unix.RTM_NEWROUTE, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE},
			RtMsg:    unix.RtMsg{Family: family, Table: unix.RT_TABLE_LOCAL, Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_HOST, Type: unix.RTN_LOCAL},
			RtAttr:   unix.RtAttr{Len: unix.SizeofRtAttr + 4, Type: unix.RTA_OIF},
			device:   1, // the loopback device of every namespace
		}
		request.NlMsghdr.Len = uint32(unsafe.Sizeof(request))
		octets := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
		if err := unix.Sendto(socket, octets, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		reply := make([]byte, 4096)
		n, _, err := unix.Recvfrom(socket, reply, 0)
		if err != nil {
			return err
		}
		if n < unix.SizeofNlMsghdr+4 {
			return fmt.Errorf("a reply of %d octets", n)
		}
		if code := int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); code != 0 && syscall.Errno(-code) != unix.EEXIST { // workers of a fuzz target find it done
			return fmt.Errorf("routing everything to loopback: %w", syscall.Errno(-code))
		}
	}
	return nil
}

// leaks sees every packet of the network.
type leaks struct {
	mu   sync.Mutex
	seen map[string]bool // "udp 192.0.2.1:53"
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
				l.seen[what+" "+to.String()] = true
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

// none fails the test if anything was seen.
func (l *leaks) none(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for what := range l.seen {
		t.Errorf("left for %s", what)
	}
}

// destination reads IP headers of UDP and TCP.
func destination(packet []byte) (to netip.AddrPort, what string, ok bool) {
	names := map[byte]string{unix.IPPROTO_UDP: "udp", unix.IPPROTO_TCP: "tcp"}
	var protocol byte
	var a netip.Addr
	head := 40
	switch {
	case len(packet) >= 24 && packet[0]>>4 == 4:
		head = int(packet[0]&15) * 4
		protocol, a = packet[9], netip.AddrFrom4([4]byte(packet[16:20]))
	case len(packet) >= 44 && packet[0]>>4 == 6:
		protocol, a = packet[6], netip.AddrFrom16([16]byte(packet[24:40]))
	default:
		return to, "", false
	}
	what, ok = names[protocol]
	if !ok || len(packet) < head+4 {
		return to, "", false
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(packet[head+2:])), what, true
}
