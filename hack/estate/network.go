//go:build linux

package estate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ProbeArgument makes a program that calls Network and Inside try out the network that it is started in: its main is to call
// Probe then and nothing else.
const ProbeArgument = "probe-network"

// Self returns a command that starts this program again, in a private network if so wanted. It is the leader of a session of
// its own: what the terminal signals goes to this process alone.
func Self(private bool, args ...string) *exec.Cmd {
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

// ChooseNetwork reports whether a private network can be had, in which any address and port is free and nothing of the
// machine is touched. If not, it tells stderr, and the machine's own has all the wanted addresses free and this user may
// use them; else it fails, and the error says what to do.
func ChooseNetwork(ctx context.Context, wanted []netip.AddrPort) (private bool, err error) {
	said, forbidden := Self(true, ProbeArgument).CombinedOutput()
	if forbidden == nil {
		return true, nil
	}
	why := strings.TrimSpace(string(said))
	if why == "" {
		why = forbidden.Error()
	}
	switch err := free(ctx, wanted); {
	case errors.Is(err, os.ErrPermission):
		return false, fmt.Errorf("this user gets no network namespace of its own (%s), and may not use port 53 (%w): run it as root", why, err)
	case err != nil:
		return false, fmt.Errorf("%w, which is needed here (make demo-down stops a demo that was left running)", err)
	}
	fmt.Fprintf(os.Stderr, "There is no network namespace to be had (%s): this runs in the machine's own network.\n", why)
	return false, nil
}

// Probe fails if port 53 of loopback addresses can't be used here.
func Probe() error {
	if err := RaiseLoopback(); err != nil {
		return err
	}
	return free(context.Background(), []netip.AddrPort{netip.MustParseAddrPort("127.10.1.1:53")})
}

// RaiseLoopback brings up the loopback device, which is down in a new network namespace.
func RaiseLoopback() error {
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

// lifeline is the descriptor of RunInside's process that is closed when the outer process is gone: the first of ExtraFiles.
const lifeline = 3

// RunInside starts this program again with the arguments, in a private network if so wanted, and returns when it has ended.
// The other process is told by Inside when ctx ends or this process does, even by kill -9.
func RunInside(ctx context.Context, private bool, args ...string) error {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ours.Close()
	cmd := Self(private, args...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { ours.Close() })()
	return cmd.Wait()
}

// Inside returns a context that ends when the process that called RunInside wants so or is gone. In a private network it
// brings up the loopback device.
func Inside(ctx context.Context, private bool) (context.Context, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	outer := os.NewFile(lifeline, "lifeline")
	unix.CloseOnExec(lifeline)
	go func() {
		_, _ = io.Copy(io.Discard, outer)
		cancel(errors.New("interrupted"))
	}()
	if private {
		if err := RaiseLoopback(); err != nil {
			return nil, err
		}
	}
	return ctx, nil
}
