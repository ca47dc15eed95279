// Package conformance compares the server with NSD, Knot DNS and BIND: the same zones, the
// same questions, and what two of the three answer is what ours has to answer.
package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/go-logr/logr/testr"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// zoneText is a zone as all servers load it.
type zoneText struct {
	Apex string // absolute
	Text string // master file
}

// server is one that answers, ours or a peer.
type server struct {
	name    string
	address netip.AddrPort
	apexes  map[string]bool // of the zones served, in lower case
	udp     net.Conn
	tcp     net.Conn
}

// peer says how a server is started in the foreground.
type peer struct {
	program string   // in PATH
	args    []string // %s stands for the configuration file
	ready   string   // in the line of its log that says that zones are loaded
	refused string   // in a line before, if a zone was not loaded; "" for a peer that does not start then
	config  string   // template of settings
}

// settings is what configurations are made of.
type settings struct {
	Dir   string // of its own, with the zones as files named by their place in Zones
	IP    string
	Port  uint16
	Zones []zoneText
}

var peers = map[string]peer{
	"NSD": {
		program: "nsd", args: []string{"-d", "-c", "%s"}, ready: "nsd started",
		config: `server:
  ip-address: {{.IP}}@{{.Port}}
  server-count: 1
  username: ""
  zonesdir: "{{.Dir}}"
  database: ""
  logfile: ""
  verbosity: 1
  pidfile: "{{.Dir}}/nsd.pid"
  xfrdfile: "{{.Dir}}/xfrd.state"
  zonelistfile: "{{.Dir}}/zone.list"
  xfrdir: "{{.Dir}}"
  cookie-secret-file: "{{.Dir}}/cookie"
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
  minimal-responses: yes
  round-robin: no
  ipv4-edns-size: 1232
remote-control:
  control-enable: no
{{range $i, $z := .Zones}}zone:
  name: "{{$z.Apex}}"
  zonefile: "{{$i}}.zone"
{{end}}`,
	},
	"Knot": {
		program: "knotd", args: []string{"-c", "%s"}, ready: "server started",
		config: `server:
  rundir: {{.Dir}}
  listen: {{.IP}}@{{.Port}}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
  udp-max-payload: 1232
  answer-rotation: off
database:
  storage: {{.Dir}}
log:
  - target: stderr
    any: info
template:
  - id: default
    storage: {{.Dir}}
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
zone:
{{range $i, $z := .Zones}}  - domain: "{{$z.Apex}}"
    file: {{$i}}.zone
{{end}}`,
	},
	"BIND": {
		program: "named", args: []string{"-g", "-n", "1", "-c", "%s"}, ready: "all zones loaded", refused: "not loaded due to errors",
		config: `options {
  directory "{{.Dir}}";
  listen-on port {{.Port}} { {{.IP}}; };
  listen-on-v6 { none; };
  pid-file "{{.Dir}}/named.pid";
  session-keyfile "{{.Dir}}/session.key";
  recursion no;
  minimal-responses yes;
  minimal-any yes;
  max-udp-size 1232;
  edns-udp-size 1232;
  notify no;
  allow-query { any; };
  allow-transfer { none; };
  dnssec-validation no;
  empty-zones-enable no;
  check-names primary ignore;
  check-integrity no;
  max-records-per-type 0;
  max-types-per-name 0;
};
controls { };
{{range $i, $z := .Zones}}zone "{{$z.Apex}}" { type primary; file "{{$.Dir}}/{{$i}}.zone"; };
{{end}}`,
	},
}

// startPeer runs a peer until the test ends. It fails the test if the peer is not installed.
func startPeer(t testing.TB, name string, zones []zoneText) *server {
	t.Helper()
	p := peers[name]
	program, err := exec.LookPath(p.program)
	if err != nil {
		if program, err = exec.LookPath(filepath.Join("/usr/sbin", p.program)); err != nil {
			t.Fatalf("%s is missing: make test gets it, see hack/deps: %v", name, err)
		}
	}
	s := settings{Dir: t.TempDir(), Zones: zones}
	address := freeAddress(t, name)
	s.IP, s.Port = address.Addr().String(), address.Port()
	for i, z := range zones {
		write(t, filepath.Join(s.Dir, fmt.Sprintf("%d.zone", i)), z.Text)
	}
	var config bytes.Buffer
	if err := template.Must(template.New(name).Parse(p.config)).Execute(&config, s); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(s.Dir, p.program+".conf")
	write(t, conf, config.String())

	var args []string
	for _, a := range p.args {
		args = append(args, strings.ReplaceAll(a, "%s", conf))
	}
	cmd := exec.Command(program, args...)
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = input, input
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // NSD forks
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = input.Close()
	started := make(chan error, 1)
	var log sync.WaitGroup
	log.Go(func() {
		var said strings.Builder
		lines := bufio.NewScanner(output)
		for lines.Scan() && !strings.Contains(lines.Text(), p.ready) {
			fmt.Fprintln(&said, lines.Text())
		}
		if !strings.Contains(lines.Text(), p.ready) || p.refused != "" && strings.Contains(said.String(), p.refused) {
			started <- errors.New(said.String())
			return
		}
		started <- nil
		_, _ = io.Copy(io.Discard, output) // until the peer ends
	})
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = cmd.Wait() // its exit status says nothing
		log.Wait()
	})
	select {
	case err := <-started:
		if err != nil {
			t.Fatalf("%s did not start:\n%v", name, err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s does not start", name)
	}
	return connect(t, name, address, zones)
}

// freeAddress is where a peer can listen. BIND takes only addresses that an interface has.
func freeAddress(t testing.TB, name string) netip.AddrPort {
	t.Helper()
	ip := net.IPv4(127, byte(1+rand.IntN(254)), byte(rand.IntN(256)), byte(1+rand.IntN(254)))
	if name == "BIND" {
		ip = net.IPv4(127, 0, 0, 1)
	}
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := l.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// startOurs runs our server until the test ends.
func startOurs(t *testing.T, zones []zoneText) *server {
	t.Helper()
	return startOursWith(t, zones, dnsserver.Options{})
}

// startOursWith is startOurs with options; View and Log are set here, and Addresses where there are none.
func startOursWith(t *testing.T, zones []zoneText, o dnsserver.Options) *server {
	t.Helper()
	view := &zone.View{}
	var served []*zone.Served
	for _, z := range zones {
		apex, err := zone.ParseName(z.Apex, "")
		if err != nil {
			t.Fatal(err)
		}
		content, version, faults := zone.Load(apex, z.Text)
		for _, f := range faults {
			if !f.Warning {
				t.Fatalf("zone %s: %v: %s", z.Apex, f, f.Text)
			}
		}
		s, err := zone.NewServed(content, version)
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, s)
	}
	view.Update(served, nil)
	if o.View, o.Log = view, testr.New(t); len(o.Addresses) == 0 {
		o.Addresses = []netip.AddrPort{netip.AddrPortFrom(freeAddress(t, "ours").Addr(), 0)}
	}
	s, err := dnsserver.Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return connect(t, "ours", s.Addresses()[0], zones)
}

func connect(t testing.TB, name string, address netip.AddrPort, zones []zoneText) *server {
	t.Helper()
	conn, err := net.Dial("udp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	apexes := map[string]bool{}
	for _, z := range zones {
		apexes[strings.ToLower(z.Apex)] = true
	}
	return &server{name: name, address: address, apexes: apexes, udp: conn}
}

// patience is how long a server may take to answer before that counts as silence.
const patience = 2 * time.Second

// ask sends a message and returns the reply, nil for silence.
func (s *server) ask(t testing.TB, message []byte, tcp bool) []byte {
	t.Helper()
	if tcp {
		return s.askTCP(t, message)
	}
	if err := s.udp.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.udp.Write(message); err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	reply := make([]byte, 65535)
	for {
		n, err := s.udp.Read(reply)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if n >= 2 && len(message) >= 2 && [2]byte(reply) == [2]byte(message) {
			return reply[:n]
		}
	}
}

func (s *server) askTCP(t testing.TB, message []byte) []byte {
	t.Helper()
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
	for again := range 2 { // the connection of the last question may have been idle too long
		fresh := s.tcp == nil
		if fresh {
			conn, err := net.Dial("tcp", s.address.String())
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			s.tcp = conn
		}
		_ = s.tcp.SetDeadline(time.Now().Add(patience))
		var size [2]byte
		_, err := s.tcp.Write(framed)
		if err == nil {
			_, err = io.ReadFull(s.tcp, size[:])
		}
		if err == nil {
			reply := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err = io.ReadFull(s.tcp, reply); err == nil {
				return reply
			}
		}
		s.tcp = nil
		if fresh || again > 0 {
			return nil
		}
	}
	return nil
}
