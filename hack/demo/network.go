//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// probeArgument makes this program try out the network that it is started in, and do nothing else.
const probeArgument = "probe-network"

// self returns a command that starts this program again, in a private network if so wanted. It is the leader of a session of
// its own: what the terminal signals goes to this process alone.
func self(private bool, args ...string) *exec.Cmd {
	path, err := os.Executable()
	if err != nil {
		path = "/proc/self/exe"
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if private {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	if uid := os.Getuid(); private && uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return cmd
}

// chooseNetwork reports whether a private network can be had. If not, the machine's own has all addresses free and
// this user may use them; else it fails, and the error says what to do.
func chooseNetwork(ctx context.Context) (private bool, err error) {
	said, forbidden := self(true, probeArgument).CombinedOutput()
	if forbidden == nil {
		return true, nil
	}
	why := strings.TrimSpace(string(said))
	if why == "" {
		why = forbidden.Error()
	}
	wanted, err := addresses()
	if err != nil {
		return false, err
	}
	switch err := free(ctx, wanted); {
	case errors.Is(err, os.ErrPermission):
		return false, fmt.Errorf("this user gets no network namespace of its own (%s), and may not use port 53 (%w): run it as root", why, err)
	case err != nil:
		return false, fmt.Errorf("%w, which the demo needs for itself (make demo-down stops a demo that was left running)", err)
	}
	fmt.Fprintf(os.Stderr, "There is no network namespace to be had (%s): this runs in the machine's own network.\n", why)
	return false, nil
}

// probeNetwork fails if port 53 of loopback addresses can't be used here.
func probeNetwork() error {
	if err := raiseLoopback(); err != nil {
		return err
	}
	return free(context.Background(), []netip.AddrPort{netip.MustParseAddrPort("127.10.1.1:53")})
}

// raiseLoopback brings up the loopback device, which is down in a new network namespace.
func raiseLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bringing up the loopback device: %w", err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bringing up the loopback device: %w", err)
	}
	return nil
}

// free fails with the first address that this process can't listen on, by UDP and TCP.
func free(ctx context.Context, addresses []netip.AddrPort) error {
	var config net.ListenConfig
	for _, a := range addresses {
		tcp, err := config.Listen(ctx, "tcp", a.String())
		if err != nil {
			return err
		}
		tcp.Close()
		udp, err := config.ListenPacket(ctx, "udp", a.String())
		if err != nil {
			return err
		}
		udp.Close()
	}
	return nil
}
