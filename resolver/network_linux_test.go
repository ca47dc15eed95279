package resolver

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
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
