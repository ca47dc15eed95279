//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// The addresses of doc.go.
var (
	wanAddress    = netip.MustParsePrefix("10.88.0.254/24")
	hostAddress   = netip.MustParsePrefix("10.88.0.253/24")
	centralAPI    = netip.MustParsePrefix("10.88.0.1/24")
	allPods       = netip.MustParsePrefix("10.244.0.0/16")
	allServices   = netip.MustParsePrefix("10.89.0.0/16")
	apiPort       = uint16(6443)
	clusterDNS    = netip.MustParseAddr("10.96.0.10")
	hostInterface = "fingerpost0" // of this computer, at its end of the cable to wan
)

func nodeAddress(number int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, 0, byte(10 + number)}), 24)
}

func pods(number int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(number), 0}), 24)
}

func services(number int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 89, byte(number), 0}), 24)
}

// ServiceAddress returns the nth address that is forwarded to the node of a datacenter; both count from 1.
func ServiceAddress(datacenter, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 89, byte(datacenter), byte(n)})
}

// ClientAddress returns the address at wan of a client that is near to a datacenter, which counts from 1.
func ClientAddress(datacenter int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(datacenter), 0, 9})
}

// bridge is what wan connects machines with.
const bridge = "wan"

// forward makes this machine the way between all others.
func (m machine) forward() error {
	lines := []string{
		"link set lo up",
		// Of its own accord a bridge has the lowest address of its ports, and another when that port goes: everybody would talk to
		// the old one until neighbours are asked again.
		"link add " + bridge + " address 02:00:0a:58:00:fe type bridge",
		"addr add " + m.Address.String() + " dev " + bridge,
		"link set " + bridge + " up",
	}
	for n := 1; n <= m.Datacenters; n++ {
		via := " via " + nodeAddress(n).Addr().String()
		lines = append(lines,
			"addr add "+ClientAddress(n).String()+"/32 dev lo",
			"route add "+pods(n).String()+via,
			"route add "+services(n).String()+via,
		)
	}
	if err := ip(lines...); err != nil {
		return err
	}
	// A packet leaves by the bridge that it came by: nobody is to learn a shorter way.
	return errors.Join(setting("net/ipv4/ip_forward", "1"), setting("net/ipv4/conf/all/send_redirects", "0"), setting("net/ipv4/conf/"+bridge+"/send_redirects", "0"))
}

// connect gives the machine its address and its way to others.
func (m machine) connect() error {
	if err := ip("link set lo up", "addr add "+m.Address.String()+" dev eth0", "link set eth0 up", "route add default via "+wanAddress.Addr().String()); err != nil {
		return err
	}
	if err := setting("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	const bridged = "net/bridge/bridge-nf-call-iptables" // pods of one node reach each other by Services, too
	if _, err := os.Stat(filepath.Join("/proc/sys", bridged)); err != nil {
		return nil //nolint:nilerr // without br_netfilter packets between pods of one node pass kube-proxy by
	}
	return setting(bridged, "1")
}

// ip runs commands of iproute2 here.
func ip(lines ...string) error {
	for _, line := range lines {
		if said, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, bytes.TrimSpace(said))
		}
	}
	return nil
}

// setting changes a setting of this network namespace.
func setting(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644)
}

// inNetwork calls a function in the network of a machine. What it makes belongs to that network: sockets, also when they are
// used elsewhere, and processes. It must not leave its work to other goroutines.
func inNetwork(pid int, call func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and nobody else gets into its network
		done <- func() error {
			namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return err
			}
			defer namespace.Close()
			if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering the network of process %d: %w", pid, err)
			}
			return call()
		}()
	}()
	return <-done
}

// plug connects a machine with wan.
func plug(at running, name string, m running) error {
	return inNetwork(at.PID, func() error {
		if exists(name) { // of the machine that was killed a moment ago
			_ = ip("link del " + name) // fails if the kernel has just done so
		}
		return ip(
			fmt.Sprintf("link add %s type veth peer name eth0 netns %d", name, m.PID),
			fmt.Sprintf("link set %s master %s up", name, bridge),
		)
	})
}

// plugHost connects this computer with wan. It can then reach all machines, pods and Services' addresses.
func plugHost(at running) error {
	if err := ip(fmt.Sprintf("link add %s type veth peer name host netns %d", hostInterface, at.PID)); err != nil {
		return err
	}
	if err := inNetwork(at.PID, func() error { return ip("link set host master " + bridge + " up") }); err != nil {
		return err
	}
	via := " via " + wanAddress.Addr().String()
	return ip(
		"addr add "+hostAddress.String()+" dev "+hostInterface,
		"link set "+hostInterface+" up",
		"route add "+allPods.String()+via,
		"route add "+allServices.String()+via,
	)
}

// exists reports whether this network has an interface of that name.
func exists(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

// isUp fails unless this network has an interface of that name that is not switched off.
func isUp(name string) error {
	i, err := net.InterfaceByName(name)
	if err == nil && i.Flags&net.FlagUp == 0 {
		err = fmt.Errorf("interface %s is down", name)
	}
	return err
}

// unplugHost takes the interface away if it is there.
func unplugHost() error {
	if !exists(hostInterface) {
		return nil
	}
	if err := ip("link del " + hostInterface); err != nil && exists(hostInterface) { // else the kernel was first: wan is gone
		return err
	}
	return nil
}

// hostFree fails if this computer has addresses that the cluster would hide.
func hostFree() error {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range addresses {
		have, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		for _, want := range []netip.Prefix{hostAddress.Masked(), allPods, allServices} {
			if want.Overlaps(have.Masked()) {
				return fmt.Errorf("this computer has the address %s, and the cluster needs %s for itself", have, want)
			}
		}
	}
	return nil
}

// Dial opens a connection from a machine: from wan as a client in the middle of the network, from a node as one that a
// partition has cut off with it. local may be the zero value.
func (c *Cluster) Dial(ctx context.Context, from, network string, local netip.Addr, to netip.AddrPort) (net.Conn, error) {
	at, err := c.running(from)
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	err = inNetwork(at.PID, func() (err error) {
		d := net.Dialer{}
		if local.IsValid() {
			switch network {
			case "udp":
				d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
			case "tcp":
				d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
			}
		}
		conn, err = d.DialContext(ctx, network, to.String())
		return err
	})
	return conn, err
}

// RunAt runs a command in the network of a machine, but with this computer's files and processes.
func (c *Cluster) RunAt(from string, cmd *exec.Cmd) error {
	at, err := c.running(from)
	if err != nil {
		return err
	}
	if err := inNetwork(at.PID, cmd.Start); err != nil {
		return err
	}
	return cmd.Wait()
}
