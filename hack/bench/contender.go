//go:build linux

package main

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
	"strings"
	"text/template"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost-dns/fingerpost/hack/bench/blast"
	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// contestant is a contender that runs.
type contestant struct {
	contender
	settings  contenderSettings
	address   netip.AddrPort
	process   *process.Process
	processes group
	loaded    time.Duration // from its start to the first answer
	used      time.Duration // CPU time until then
}

// field is servers that run with the same zones.
type field struct {
	zones    workload.Zones
	ipv6     bool
	tls      bool
	features bool
	anyCPU   bool // they are not kept on serverCPU

	files   []zoneFile // of zones
	running []*contestant
}

// write writes the zones below a folder.
func (f *field) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f.files = nil
	for _, z := range f.zones {
		apex := strings.TrimSuffix(z.Apex(), ".")
		path := filepath.Join(dir, apex+".zone")
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = z.WriteTo(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		f.files = append(f.files, zoneFile{apex, path})
	}
	return nil
}

// start adds a server to the field, and returns when it answers.
func (f *field) start(b *bench, c contender) (*contestant, error) {
	ip := "127.0.0.1"
	if f.ipv6 {
		ip = "::1"
	}
	addr := netip.MustParseAddr(ip)
	s := contenderSettings{Zones: f.files, IP: ip, Features: f.features, Modules: pdnsModules()}
	var err error
	if s.Dir, err = os.MkdirTemp(b.dir, strings.ReplaceAll(c.name, " ", "-")+"-*"); err != nil {
		return nil, err
	}
	if s.Port, err = freePort(addr); err != nil {
		return nil, err
	}
	if f.tls {
		if s.TLSPort, err = freePort(addr); err != nil {
			return nil, err
		}
		s.Cert, s.Key = b.path("tls", "tls.crt"), b.path("tls", "tls.key")
	}
	one, err := b.startContender(c, s, f.anyCPU, f.zones.FirstName())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	f.running = append(f.running, one)
	return one, nil
}

// stop ends all servers of the field.
func (f *field) stop() (err error) {
	for _, c := range f.running {
		err = errors.Join(err, c.process.Stop(5*time.Second))
	}
	f.running = nil
	return err
}

// fill makes text of a template.
func fill(text string, s contenderSettings) (string, error) {
	t, err := template.New("").Parse(text)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = t.Execute(&out, s)
	return out.String(), err
}

// startContender runs a server until the inner process ends or it is stopped, and returns when it answers.
func (b *bench) startContender(c contender, s contenderSettings, anyCPU bool, firstName string) (*contestant, error) {
	if c.program == "" {
		return nil, errors.New("it is not there")
	}
	for name, text := range c.files {
		content, err := fill(text, s)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	if c.prepare != nil {
		if err := c.prepare(s); err != nil {
			return nil, err
		}
	}
	var args []string
	for _, a := range c.args {
		filled, err := fill(a, s)
		if err != nil {
			return nil, err
		}
		if filled != "" || a == "" {
			args = append(args, filled)
		}
	}
	path, err := exec.LookPath(c.program)
	if err != nil {
		return nil, err
	}
	options := process.Options{Name: c.name, Dir: s.Dir, Env: []string{"PATH=" + os.Getenv("PATH")}, Log: filepath.Join(s.Dir, "log")}
	began := time.Now()
	var p *process.Process
	if anyCPU {
		p, err = process.Start(options, path, args...)
	} else {
		p, err = startPinned(options, serverCPU, path, args...)
	}
	if err != nil {
		return nil, err
	}
	one := &contestant{contender: c, settings: s, address: netip.AddrPortFrom(netip.MustParseAddr(s.IP), s.Port), process: p}
	if err := one.await(b.ctx, firstName, began); err != nil {
		return nil, errors.Join(err, p.Stop(0))
	}
	if one.processes, err = groupOf(p.PID()); err != nil {
		return nil, err
	}
	one.used, err = one.processes.cpuTime()
	return one, err
}

// await returns when the server gives its first answer.
func (c *contestant) await(ctx context.Context, firstName string, began time.Time) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("that takes too long"))
	defer cancel()
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	go func() {
		select {
		case <-c.process.Exited():
			ended(errors.New("it has ended"))
		case <-ctx.Done():
		}
	}()
	first, err := estate.Await(ctx, c.address, firstName, dns.TypeA, func(m *dns.Msg) bool {
		return m.Response && (!c.answers || m.Authoritative && len(m.Answer) > 0)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.process.LastWords())
	}
	c.loaded = first.Sub(began)
	return nil
}

// pdnsModules is the folder with PowerDNS's backends, which came with the program.
func pdnsModules() string {
	program, err := exec.LookPath("pdns_server")
	if err != nil {
		return ""
	}
	for _, pattern := range []string{filepath.Join(filepath.Dir(program), "../root/usr/lib/*/pdns"), "/usr/lib/*/pdns"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	return ""
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

// round is what one server did in one round.
type round struct {
	cpu    float64 // nanoseconds of the server's a query
	other  float64 // of its other threads than asking.thread, as share of the time
	thread int     // that used most CPU time
	result *blast.Result
}

// asking says how a server is asked.
type asking struct {
	questions workload.Questions
	sources   []netip.Addr
	rate      float64 // a second; 0: as fast as it answers
	length    time.Duration
	thread    int // whose CPU time counts; 0: all
}

// warm is for how long a server is asked before anything is measured.
const warm = time.Second

// ask has a server answer over UDP.
func (c *contestant) ask(a asking) (round, error) {
	var used [2]map[int]time.Duration
	var failed error
	mark := 0
	result, err := blast.Run(blast.Options{
		Server: c.address, Questions: a.questions, CPU: generatorCPU, Sources: a.sources, Rate: a.rate, Warm: warm, Length: a.length,
		Mark: func() {
			var err error
			used[mark], err = c.processes.threads()
			failed = errors.Join(failed, err)
			mark++
		},
	})
	if err := errors.Join(err, failed); err != nil {
		return round{}, err
	}
	if result.Answers == 0 {
		return round{}, errSilent
	}
	r := round{result: result}
	total, most := time.Duration(0), time.Duration(0)
	for thread, ran := range used[1] {
		ran -= used[0][thread]
		total += ran
		if ran > most {
			most, r.thread = ran, thread
		}
	}
	counts := total
	if a.thread != 0 {
		counts = used[1][a.thread] - used[0][a.thread]
		r.other = float64(total-counts) / float64(result.Elapsed)
	}
	r.cpu = float64(counts) / float64(result.Answers)
	return r, nil
}
