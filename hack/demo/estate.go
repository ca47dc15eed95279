//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

const (
	operatorNamespace = "fingerpost-system"
	datacentersFile   = "config/samples/10-datacenters.yaml"

	dnsPort  = 53
	peerPort = 8054
	httpPort = 8080

	hubPort     = 8443
	metricsPort = 8080
	healthPort  = 8081
)

// managerAddresses are where the two managers listen.
var managerAddresses = [2]netip.Addr{netip.AddrFrom4([4]byte{127, 30, 0, 1}), netip.AddrFrom4([4]byte{127, 30, 0, 2})}

// addresses returns all fixed addresses that an estate listens on.
func addresses() ([]netip.AddrPort, error) {
	servers, err := declaredServers()
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	for _, s := range servers {
		for _, port := range []uint16{dnsPort, peerPort, httpPort} {
			all = append(all, netip.AddrPortFrom(s.addr, port))
		}
	}
	for _, a := range managerAddresses {
		for _, port := range []uint16{hubPort, metricsPort, healthPort} {
			all = append(all, netip.AddrPortFrom(a, port))
		}
	}
	return all, nil
}

// program is a manager or a dnsserver.
type program struct {
	name string // unique: its log and messages have it
	path string
	args []string
	env  []string
	addr netip.Addr

	proc   *process.Process // nil: does not run
	killed chan struct{}    // closed before proc is killed
}

// server is a dnsserver.
type server struct {
	program
	datacenter, group, instance string
}

// declaredServers returns the servers of the samples' Datacenters: one for each address, in the order of the file.
func declaredServers() ([]*server, error) {
	text, err := os.ReadFile(datacentersFile)
	if err != nil {
		return nil, err
	}
	var servers []*server
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var dc v1alpha1.Datacenter
		if err := yaml.UnmarshalStrict(document, &dc); err != nil {
			return nil, fmt.Errorf("%s: %w", datacentersFile, err)
		}
		for _, g := range dc.Spec.ServerGroups {
			for i, a := range g.Addresses {
				addr, err := netip.ParseAddr(string(a))
				if err != nil {
					return nil, fmt.Errorf("%s: %w", datacentersFile, err)
				}
				instance := "ns" + strconv.Itoa(i+1)
				s := &server{datacenter: dc.Name, group: g.Name, instance: instance}
				s.name, s.addr = strings.Join([]string{"dnsserver", dc.Name, g.Name, instance}, "-"), addr
				servers = append(servers, s)
			}
		}
	}
	return servers, nil
}

// estate is everything that runs on this machine: one hub cluster and the servers of the datacenters. It is for one
// goroutine.
type estate struct {
	settings
	// ctx ends when one of the programs ends by itself; its cause says which.
	ctx      context.Context
	died     context.CancelCauseFunc
	cp       *controlplane.ControlPlane // nil before start
	managers []*program
	servers  []*server
}

// newEstate returns an estate of which nothing runs yet. The settings' folder must exist.
func newEstate(ctx context.Context, s settings) (*estate, error) {
	e := &estate{settings: s}
	e.ctx, e.died = context.WithCancelCause(ctx)
	for _, folder := range []string{"logs", "controlplane"} {
		if err := os.MkdirAll(e.path(folder), 0o755); err != nil {
			return nil, err
		}
	}
	var hubs []string
	for i, a := range managerAddresses {
		at := func(port uint16) string { return netip.AddrPortFrom(a, port).String() }
		hubs = append(hubs, "--hub", at(hubPort))
		e.managers = append(e.managers, &program{
			name: fmt.Sprintf("manager-%d", i+1), addr: a, path: filepath.Join(s.Bin, "manager"),
			args: []string{
				"--namespace", operatorNamespace, "--apex-namespaces", "dns-root",
				"--hub-listen", at(hubPort), "--hub-name", a.String(),
				"--metrics-listen", at(metricsPort), "--health-listen", at(healthPort),
				"--lease-duration", "4s", "--lease-renew-deadline", "3s", "--lease-retry-period", "1s",
			},
			env: []string{"KUBECONFIG=" + e.path("manager.kubeconfig"), "HOME=" + e.Dir},
		})
	}
	var err error
	if e.servers, err = declaredServers(); err != nil {
		return nil, err
	}
	for _, srv := range e.servers {
		at := func(s *server, port uint16) string { return netip.AddrPortFrom(s.addr, port).String() }
		srv.path = filepath.Join(s.Bin, "dnsserver")
		srv.args = append([]string{
			"--name", srv.instance, "--listen", srv.addr.String(), "--http-listen", at(srv, httpPort),
			"--tls-dir", e.path("certs", srv.datacenter, srv.group), "--state-dir", e.path("state", srv.datacenter, srv.group, srv.instance),
			"--peer-listen", at(srv, peerPort),
		}, hubs...)
		for _, other := range e.servers {
			if other != srv && other.datacenter == srv.datacenter && other.group == srv.group {
				srv.args = append(srv.args, "--sibling", at(other, peerPort))
			}
		}
	}
	return e, nil
}

// of returns the servers of a group, in all datacenters.
func (e *estate) of(group string) []*server {
	return slices.DeleteFunc(slices.Clone(e.servers), func(s *server) bool { return s.group != group })
}

// start runs a program. Its log begins with the command line.
func (e *estate) start(p *program) error {
	log := e.path("logs", p.name+".log")
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "$ %s\n", strings.Join(append(append(slices.Clone(p.env), p.path), p.args...), " "))
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	proc, err := process.Start(process.Options{Name: p.name, Env: p.env, Log: log}, p.path, p.args...)
	if err != nil {
		return err
	}
	p.proc, p.killed = proc, make(chan struct{})
	go func(killed <-chan struct{}) {
		<-proc.Exited()
		select {
		case <-killed:
		default:
			e.died(fmt.Errorf("%s has ended by itself:\n%s", p.name, proc.LastWords()))
		}
	}(p.killed)
	return nil
}

// kill ends a program as kill -9 does.
func (p *program) kill() error {
	if p.proc == nil {
		return nil
	}
	close(p.killed)
	err := p.proc.Stop(0)
	p.proc = nil
	return err
}

// stop ends everything and returns when it has ended.
func (e *estate) stop() error {
	var errs []error
	for _, m := range e.managers {
		errs = append(errs, m.kill())
	}
	for _, s := range e.servers {
		errs = append(errs, s.kill())
	}
	if e.cp != nil {
		errs = append(errs, e.cp.Stop())
	}
	return errors.Join(errs...)
}

// path returns a path below the folder of the run.
func (e *estate) path(elements ...string) string {
	return filepath.Join(append([]string{e.Dir}, elements...)...)
}

// environment is what commands of the story, and of a person who enters, find set.
func (e *estate) environment() map[string]string {
	return map[string]string{
		"KUBECONFIG": e.cp.Kubeconfig(),
		"PATH":       strings.Join([]string{e.Assets, e.Bin, os.Getenv("PATH")}, ":"),
		"RUN":        e.Dir,
		"HOME":       e.Dir, // kubectl keeps a cache there, and nothing of the user's own configuration is read
	}
}

// shell runs a command line by bash and returns what it prints.
func (e *estate) shell(line string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(e.ctx, "bash", "-o", "pipefail", "-c", line)
	cmd.Stdout, cmd.Stderr = &out, &out
	for name, value := range e.environment() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return out.String(), err
}

// metric returns the sum of all series of one metric at an address, with the given text in their labels.
func metric(ctx context.Context, at netip.AddrPort, name, label string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return sumOf(string(text), name, label)
}

// sumOf adds up a metric in Prometheus' text format. It fails if there is none.
func sumOf(text, name, label string) (sum float64, err error) {
	found := false
	for l := range strings.Lines(text) {
		series, value, ok := strings.Cut(strings.TrimSpace(l), " ")
		base, labels, _ := strings.Cut(series, "{")
		if !ok || base != name || !strings.Contains(labels, label) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	return sum, nil
}
