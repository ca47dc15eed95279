package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

func icmpOf(timeout time.Duration) *steeringpb.Probe {
	p := probeOf(timeout)
	p.Type = &steeringpb.Probe_Icmp{Icmp: &steeringpb.Icmp{}}
	return p
}

// TestICMP pings in a network of its own, where it may say who may ping.
func TestICMP(t *testing.T) {
	out, err := inNamespace(t.Context(), "ping").CombinedOutput()
	if err != nil {
		t.Fatalf("%v (the test needs user namespaces)\n%s", err, out)
	}
	want := `nobody may: Unknown: ICMP not permitted (net.ipv4.ping_group_range)
anchors, when nobody may: [true true false]
127.0.0.1: Up
::1: Up
::ffff:127.0.0.2: Up
127.0.0.1, denied: Unknown: denied by the datacenter's probes.deniedNetworks
10.0.0.1, no route: Down: network is unreachable
anchors: [true true false]
127.0.0.1, silent: Down: no answer within 150ms
`
	if string(out) != want {
		t.Errorf("got\n%s\nwanted\n%s", out, want)
	}
}

// inNamespace returns a child that has a network of its own.
func inNamespace(ctx context.Context, child string) *exec.Cmd {
	command := exec.CommandContext(ctx, "/proc/self/exe")
	command.Env = append(os.Environ(), "PROBE_TEST_CHILD="+child)
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return command
}

// pingInNamespace is the other side of TestICMP. Nothing but the host itself is reachable.
func pingInNamespace() {
	try := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	try(linkUp("lo"))
	say := func(what string, r Result) { fmt.Printf("%s: %s\n", what, r) }
	ping := func(target string, env Env, timeout time.Duration) Result {
		p, err := New(icmpOf(timeout), env)
		try(err)
		return p.Probe(context.Background(), netip.MustParseAddr(target))
	}
	say("nobody may", ping("127.0.0.1", anywhere(), late))
	fmt.Println("anchors, when nobody may:", anchors())
	try(os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0))
	for _, target := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.2"} {
		say(target, ping(target, anywhere(), late))
	}
	say("127.0.0.1, denied", ping("127.0.0.1", Env{}, late))
	say("10.0.0.1, no route", ping("10.0.0.1", anywhere(), late))
	fmt.Println("anchors:", anchors())
	try(os.WriteFile("/proc/sys/net/ipv4/icmp_echo_ignore_all", []byte("1"), 0))
	say("127.0.0.1, silent", ping("127.0.0.1", anywhere(), soon))
}

func anchors() []bool {
	ctx, cancel := context.WithTimeout(context.Background(), late)
	defer cancel()
	return Anchors(ctx, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("10.0.0.1")})
}

// linkUp sets a link up.
func linkUp(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

func TestOnlyTheAnswerIsTheAnswer(t *testing.T) {
	data := []byte("0123456789abcdef")
	message := func(kind icmp.Type, data []byte) []byte {
		m, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: 7, Seq: 0, Data: data}}).Marshal(nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for name, c := range map[string]struct {
		message      []byte
		from, target netip.Addr
		want         bool
	}{
		"the answer is":                         {message(ipv4.ICMPTypeEchoReply, data), four, four, true},
		"from the address in its IPv6 form too": {message(ipv4.ICMPTypeEchoReply, data), netip.MustParseAddr("::ffff:192.0.2.1"), four, true},
		"over IPv6 too":                         {message(ipv6.ICMPTypeEchoReply, data), six, six, true},
		"from another address it is not":        {message(ipv4.ICMPTypeEchoReply, data), netip.MustParseAddr("192.0.2.2"), four, false},
		"with other data it is not":             {message(ipv4.ICMPTypeEchoReply, slices.Concat(data[1:], data[:1])), four, four, false},
		"the request is not":                    {message(ipv4.ICMPTypeEcho, data), four, four, false},
		"another message is not":                {message(ipv4.ICMPTypeDestinationUnreachable, data), four, four, false},
		"a type of the other protocol is not":   {message(ipv6.ICMPTypeEchoReply, data), four, four, false},
		"half an answer is not":                 {message(ipv4.ICMPTypeEchoReply, data)[:12], four, four, false},
		"nothing is not":                        {nil, four, four, false},
	} {
		if got := isEcho(c.message, c.from, c.target, data); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
