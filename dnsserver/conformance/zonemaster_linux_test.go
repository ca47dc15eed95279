package conformance

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
)

var zonemaster = flag.Bool("zonemaster", false, "run zonemaster-cli on a private root, which make conformance does")

// estateServer has a name and addresses that are nobody's but in the private network of the test; Zonemaster
// wants public ones, and several networks.
type estateServer struct {
	name    string
	v4, v6  string
	records []string // the addresses, as records
}

func newEstateServer(name, v4, v6 string) estateServer {
	return estateServer{name, v4, v6, []string{name + " 3600 IN A " + v4, name + " 3600 IN AAAA " + v6}}
}

// estateZone is a zone with the servers that have it.
type estateZone struct {
	apex    string
	servers []estateServer
	records []string
}

func (z *estateZone) text() zoneText {
	lines := []string{fmt.Sprintf("%s 3600 IN SOA %s hostmaster.trading.bank. 2026112201 14400 3600 1209600 3600", z.apex, z.servers[0].name)}
	for _, s := range z.servers {
		lines = append(lines, fmt.Sprintf("%s 3600 IN NS %s", z.apex, s.name))
	}
	return zoneText{z.apex, strings.Join(append(lines, z.records...), "\n") + "\n"}
}

// delegate has z delegate a zone, with glue.
func (z *estateZone) delegate(child estateZone) {
	for _, s := range child.servers {
		z.records = append(z.records, fmt.Sprintf("%s 3600 IN NS %s", child.apex, s.name))
		if dns.IsSubDomain(z.apex, s.name) && !strings.Contains(strings.Join(z.records, "\n"), s.records[0]) {
			z.records = append(z.records, s.records...)
		}
	}
}

// bankEstate is a private root with .bank, three levels below it, and names for all addresses.
func bankEstate() []estateZone {
	pair := func(apex, v4, v6 string) []estateServer {
		return []estateServer{newEstateServer("ns1."+apex, v4+".1.1", v6+":1::1"), newEstateServer("ns2."+apex, v4+".129.1", v6+":2::1")}
	}
	root := estateZone{apex: ".", servers: pair("root-servers.bank.", "44.10", "2a0a")}
	bank := estateZone{apex: "bank.", servers: pair("bank.", "45.20", "2a0b"), records: []string{"www.bank. 3600 IN A 45.20.1.2"}}
	trading := estateZone{apex: "trading.bank.", servers: pair("trading.bank.", "46.30", "2a0c"), records: []string{
		"trading.bank. 3600 IN MX 10 mail.trading.bank.", "mail.trading.bank. 3600 IN A 46.30.1.2", "*.wild.trading.bank. 3600 IN A 46.30.1.3", "www.trading.bank. 3600 IN CNAME mail.trading.bank.",
	}}
	desk := estateZone{apex: "desk.trading.bank.", servers: pair("desk.trading.bank.", "47.40", "2a0d"), records: []string{
		"desk.trading.bank. 3600 IN MX 10 mail.trading.bank.", "www.desk.trading.bank. 3600 IN A 47.40.1.2",
	}}
	arpa := estateZone{apex: "arpa.", servers: bank.servers}
	for _, z := range []estateZone{root, bank, trading, desk} {
		for _, s := range z.servers {
			for _, address := range []string{s.v4, s.v6} {
				name, err := dns.ReverseAddr(address)
				if err != nil {
					panic(err) // they are constants
				}
				arpa.records = append(arpa.records, fmt.Sprintf("%s 3600 IN PTR %s", name, s.name))
			}
		}
	}
	for _, z := range []*estateZone{&bank, &trading, &desk} {
		for _, s := range z.servers {
			z.records = append(z.records, s.records...)
		}
	}
	for _, s := range root.servers {
		root.records, bank.records = append(root.records, s.records...), append(bank.records, s.records...)
	}
	root.delegate(bank)
	root.delegate(arpa)
	bank.delegate(trading)
	trading.delegate(desk)
	return []estateZone{root, bank, trading, desk, arpa}
}

// excusedFindings are what Zonemaster says above its level INFO, and why that is no fault of ours. Those of the root alone
// start with "root ".
var excusedFindings = map[string]string{
	"NOT_SIGNED":               "zones are not signed",
	"NEITHER_DNSKEY_NOR_DS":    "zones are not signed",
	"root IS_A_RECURSOR":       "that the root's servers have authority over every name that does not exist looks like recursion to Zonemaster 4.6; it says so of NSD too",
	"root EXTRA_ADDRESS_CHILD": "the root has no parent to list its servers",
}

// insideVariable tells the test that it is in a private network.
const insideVariable = "FINGERPOST_TEST_PRIVATE_NETWORK"

// TestZonemaster has Zonemaster examine a private root and three levels below it, all of them ours.
func TestZonemaster(t *testing.T) {
	switch {
	case !*zonemaster:
		return
	case os.Getenv(insideVariable) == "":
		again(t)
		return
	}
	zones := bankEstate()
	served := map[string][]zoneText{} // by name of a server
	byName := map[string]estateServer{}
	for _, z := range zones {
		for _, s := range z.servers {
			served[s.name] = append(served[s.name], z.text())
			byName[s.name] = s
		}
	}
	var addresses []string
	for _, s := range byName {
		addresses = append(addresses, s.v4, s.v6)
	}
	haveAddresses(t, addresses)
	for name, texts := range served {
		s := byName[name]
		startOursWith(t, texts, dnsserver.Options{Addresses: []netip.AddrPort{
			netip.AddrPortFrom(netip.MustParseAddr(s.v4), 53), netip.AddrPortFrom(netip.MustParseAddr(s.v6), 53),
		}})
	}
	var hints strings.Builder
	for _, s := range zones[0].servers {
		fmt.Fprintf(&hints, ". 3600 IN NS %s\n%s\n", s.name, strings.Join(s.records, "\n"))
	}
	path := filepath.Join(t.TempDir(), "hints")
	write(t, path, hints.String())
	var all sync.WaitGroup
	for _, z := range zones {
		all.Go(func() { examine(t, z.apex, path) })
	}
	all.Wait()
}

// examine has Zonemaster examine one zone.
func examine(t *testing.T, apex, hints string) {
	t.Helper()
	name := strings.TrimSuffix(apex, ".")
	if name == "" {
		name = "."
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "zonemaster-cli", "--hints", hints, "--level", "INFO", "--json", "--no-progress", name)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v: make conformance gets zonemaster-cli\n%s", apex, err, &stderr)
		return
	}
	var findings []struct {
		Level    string         `json:"level"`
		Tag      string         `json:"tag"`
		Testcase string         `json:"testcase"`
		Args     map[string]any `json:"args"`
	}
	if err := json.Unmarshal(out, &findings); err != nil {
		t.Errorf("%s: %v\n%s", apex, err, out)
		return
	}
	counts := map[string]int{}
	for _, f := range findings {
		counts[f.Level]++
		if f.Level == "INFO" || f.Level == "DEBUG" {
			continue
		}
		tag := f.Tag
		if apex == "." && excusedFindings["root "+tag] != "" {
			tag = "root " + tag
		}
		if excusedFindings[tag] == "" {
			t.Errorf("%s: %s %s %s %v", apex, f.Level, f.Testcase, f.Tag, f.Args)
		}
	}
	t.Logf("%s: %v", apex, counts)
	if counts["INFO"] < 20 {
		t.Errorf("%s: Zonemaster has hardly looked at it:\n%s", apex, out)
	}
}

// again runs this test in a network namespace of its own, as root there, in which port 53 and every address is free.
func again(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-zonemaster")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("in a network of its own: %v", err)
	}
}

// haveAddresses brings up the loopback device with addresses.
func haveAddresses(t *testing.T, addresses []string) {
	t.Helper()
	device := func(name string) *unix.Ifreq {
		r, err := unix.NewIfreq(name)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	control := func(socket int, request uint, r *unix.Ifreq) {
		if err := unix.IoctlIfreq(socket, request, r); err != nil {
			t.Fatal(err)
		}
	}
	v4, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(v4)
	v6, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(v6)
	up := device("lo")
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	control(v4, unix.SIOCSIFFLAGS, up)
	index := device("lo")
	control(v4, unix.SIOCGIFINDEX, index)
	for i, text := range addresses {
		address := netip.MustParseAddr(text)
		if address.Is4() {
			alias := device(fmt.Sprintf("lo:%d", i))
			if err := alias.SetInet4Addr(address.AsSlice()); err != nil {
				t.Fatal(err)
			}
			control(v4, unix.SIOCSIFADDR, alias)
			continue
		}
		request := struct { // in6_ifreq of linux/ipv6.h
			address [16]byte
			bits    uint32
			index   int32
		}{address.As16(), 128, int32(index.Uint32())}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(v6), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request))); errno != 0 {
			t.Fatal(errno)
		}
		// The kernel makes sure in the background that nobody else has the address.
		for deadline := time.Now().Add(patience); ; runtime.Gosched() {
			probe, err := net.ListenUDP("udp6", &net.UDPAddr{IP: address.AsSlice()})
			if err == nil {
				_ = probe.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
}
