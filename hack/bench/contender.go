//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// contender is a server that can be compared with others. All are told to do the same: one worker, minimal answers over UDP
// of up to 1232 octets, no limits of rates, no rotation of answers, and nothing but the one zone.
type contender struct {
	name    string
	program string   // in PATH, or a path
	args    []string // {{.Address}} and the like stand for settings, {{.Config}} for the configuration file
	config  string   // the same; "" for none
	answers bool     // with the zone's records
}

// contenderSettings are what a contender's arguments and configuration are made of.
type contenderSettings struct {
	Dir    string // of its own
	Zone   string // path of the master file of workload.Apex
	Apex   string
	IP     string
	Port   uint16
	Config string
}

// Address is IP and port.
func (s contenderSettings) Address() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(s.IP), s.Port)
}

// ours is the name of our server, with which the others are compared.
const ours = "Fingerpost"

// contenders returns all, ours first.
func (b *bench) contenders() []contender {
	self, err := os.Executable()
	if err != nil {
		self = "/proc/self/exe"
	}
	return []contender{
		{
			name: ours, program: filepath.Join(b.Programs.Bin, "dnsserver"), answers: true,
			args: []string{"--zone", "{{.Apex}}={{.Zone}}", "--listen", "{{.Address}}", "--http-listen", "", "--threads", "1"},
		},
		{
			name: "NSD", program: "nsd", answers: true, args: []string{"-d", "-c", "{{.Config}}"},
			config: `server:
  ip-address: {{.IP}}@{{.Port}}
  server-count: 1
  reuseport: yes
  username: ""
  zonesdir: "{{.Dir}}"
  database: ""
  logfile: "{{.Dir}}/nsd.log"
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
  ipv6-edns-size: 1232
remote-control:
  control-enable: no
zone:
  name: "{{.Apex}}"
  zonefile: "{{.Zone}}"
`,
		},
		{
			name: "Knot DNS", program: "knotd", answers: true, args: []string{"-c", "{{.Config}}"},
			config: `server:
  rundir: {{.Dir}}
  listen: {{.IP}}@{{.Port}}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
  socket-affinity: on
  udp-max-payload: 1232
  answer-rotation: off
database:
  storage: {{.Dir}}
template:
  - id: default
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
zone:
  - domain: "{{.Apex}}"
    file: {{.Zone}}
`,
		},
		{name: "echo", program: self, args: []string{echoArgument, "{{.Address}}"}},
	}
}

// contestant is a contender that runs.
type contestant struct {
	contender
	address   netip.AddrPort
	process   *process.Process
	processes group
	loaded    time.Duration // from its start to the first answer
}

// startContender runs a server on its CPU until the inner process ends or stop is called, and returns when it answers.
func (b *bench) startContender(c contender, zoneFile string, addr netip.Addr) (*contestant, error) {
	s := contenderSettings{Dir: b.path(strings.ReplaceAll(c.name, " ", "-")), Zone: zoneFile, Apex: strings.TrimSuffix(workload.Apex, "."), IP: addr.String()}
	s.Config = filepath.Join(s.Dir, "config")
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if s.Port, err = freePort(addr); err != nil {
		return nil, err
	}
	fill := func(text string) string {
		var out strings.Builder
		if err == nil {
			var t *template.Template
			if t, err = template.New(c.name).Parse(text); err == nil {
				err = t.Execute(&out, s)
			}
		}
		return out.String()
	}
	config, args := fill(c.config), make([]string, len(c.args))
	for i, a := range c.args {
		args[i] = fill(a)
	}
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.Config, []byte(config), 0o644); err != nil {
		return nil, err
	}
	path, err := exec.LookPath(c.program)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p, err := startPinned(process.Options{Name: c.name, Dir: s.Dir, Env: []string{"PATH=" + os.Getenv("PATH")}, Log: filepath.Join(s.Dir, "log")}, serverCPU, path, args...)
	if err != nil {
		return nil, err
	}
	one := &contestant{contender: c, address: s.Address(), process: p}
	ctx, cancel := context.WithTimeoutCause(b.ctx, 2*time.Minute, fmt.Errorf("%s does not start:\n%s", c.name, p.LastWords()))
	defer cancel()
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	go func() {
		select {
		case <-p.Exited():
			ended(fmt.Errorf("%s has ended:\n%s", c.name, p.LastWords()))
		case <-ctx.Done():
		}
	}()
	first, err := estate.Await(ctx, one.address, workload.FirstName, dns.TypeA, func(m *dns.Msg) bool {
		return m.Response && (!c.answers || m.Authoritative && len(m.Answer) > 0)
	})
	if err != nil {
		return nil, err
	}
	one.loaded = first.Sub(began)
	if one.processes, err = groupOf(p.PID()); err != nil {
		return nil, err
	}
	return one, nil
}

// freePort returns a UDP port that is free for TCP too.
func freePort(addr netip.Addr) (uint16, error) {
	for {
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		if err != nil {
			return 0, err
		}
		port := tcp.Addr().(*net.TCPAddr).AddrPort().Port()
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		tcp.Close()
		if err == nil {
			udp.Close()
			return port, nil
		}
	}
}

// stop ends the server.
func (c *contestant) stop() error { return c.process.Stop(5 * time.Second) }
