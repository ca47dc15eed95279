//go:build linux

package estate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// Files of the checkout that describe the estate.
const (
	datacentersFile = "config/samples/10-datacenters.yaml"
	rolesFile       = "config/rbac/role.yaml"
	tenantRolesFile = "config/rbac/probe_secrets.yaml"
	kindsFolder     = "config/crd/bases"
)

// Namespace is the operator's own.
const Namespace = "fingerpost-system"

// Ports of servers and managers, each on the program's own address.
const (
	DNSPort  = 53
	peerPort = 8054
	HTTPPort = 8080 // metrics, of both

	HubPort    = 8443
	healthPort = 8081
)

// managerAddresses are where the two managers listen.
var managerAddresses = [2]netip.Addr{netip.AddrFrom4([4]byte{127, 30, 0, 1}), netip.AddrFrom4([4]byte{127, 30, 0, 2})}

// Addresses returns all fixed addresses that an estate listens on.
func Addresses() ([]netip.AddrPort, error) {
	servers, err := declaredServers()
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	for _, s := range servers {
		for _, port := range []uint16{DNSPort, peerPort, HTTPPort} {
			all = append(all, netip.AddrPortFrom(s.Addr, port))
		}
	}
	for _, a := range managerAddresses {
		for _, port := range []uint16{HubPort, HTTPPort, healthPort} {
			all = append(all, netip.AddrPortFrom(a, port))
		}
	}
	return all, nil
}

// Program is a manager, a dnsserver, or what else an estate runs.
type Program struct {
	Name string // unique: its log and messages have it
	Path string
	Args []string
	Env  []string
	Addr netip.Addr

	proc   *process.Process // nil: does not run
	killed chan struct{}    // closed before proc is killed
}

// Server is a dnsserver.
type Server struct {
	Program
	Datacenter, Group, Instance string
}

// declaredServers returns the servers of the samples' Datacenters: one for each address, in the order of the file.
func declaredServers() ([]*Server, error) {
	text, err := os.ReadFile(datacentersFile)
	if err != nil {
		return nil, err
	}
	var servers []*Server
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
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
				s := &Server{Datacenter: dc.Name, Group: g.Name, Instance: "ns" + strconv.Itoa(i+1)}
				s.Name, s.Addr = strings.Join([]string{"dnsserver", s.Datacenter, s.Group, s.Instance}, "-"), addr
				servers = append(servers, s)
			}
		}
	}
	return servers, nil
}

// Options say what an estate is made of.
type Options struct {
	Programs
	Dir string // of the run; it exists

	ApexNamespaces []string // of the managers
	// LeaseDuration is after how long a leader that is silent is replaced, RenewDeadline after how long without the API
	// server it gives up, and RetryPeriod how often managers look. All zero: the managers' own defaults.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// Estate is everything that runs: one hub cluster and the servers of its datacenters. It is for one goroutine.
type Estate struct {
	Options
	// Context ends when one of the programs ends by itself, unless Tolerate was called; its cause says which.
	Context      context.Context
	ControlPlane *controlplane.ControlPlane // nil before StartControlPlane
	Managers     []*Program
	Servers      []*Server
	Others       []*Program // what else was started, such as targets of probes

	died     context.CancelCauseFunc
	tolerant atomic.Bool // a program that ends by itself is none of the estate's business
}

// New returns an estate of which nothing runs yet. The working directory is the root of the checkout.
func New(ctx context.Context, o Options) (*Estate, error) {
	e := &Estate{Options: o}
	e.Context, e.died = context.WithCancelCause(ctx)
	for _, folder := range []string{"logs", "controlplane"} {
		if err := os.MkdirAll(e.Path(folder), 0o755); err != nil {
			return nil, err
		}
	}
	var hubs []string
	for i, a := range managerAddresses {
		hubs = append(hubs, "--hub", at(a, HubPort))
		m := &Program{
			Name: fmt.Sprintf("manager-%d", i+1), Addr: a, Path: filepath.Join(o.Bin, "manager"),
			Args: []string{
				"--namespace", Namespace, "--apex-namespaces", strings.Join(o.ApexNamespaces, ","),
				"--hub-listen", at(a, HubPort), "--hub-name", a.String(),
				"--metrics-listen", at(a, HTTPPort), "--health-listen", at(a, healthPort),
			},
			Env: []string{"KUBECONFIG=" + e.Path("manager.kubeconfig"), "HOME=" + e.Dir}, // nothing of the user's own configuration
		}
		if o.LeaseDuration > 0 {
			m.Args = append(m.Args, "--lease-duration", o.LeaseDuration.String(), "--lease-renew-deadline", o.RenewDeadline.String(), "--lease-retry-period", o.RetryPeriod.String())
		}
		e.Managers = append(e.Managers, m)
	}
	var err error
	if e.Servers, err = declaredServers(); err != nil {
		return nil, err
	}
	for _, srv := range e.Servers {
		srv.Path = filepath.Join(o.Bin, "dnsserver")
		srv.Args = append([]string{
			"--name", srv.Instance, "--listen", srv.Addr.String(), "--http-listen", at(srv.Addr, HTTPPort),
			"--tls-dir", e.Path("certs", srv.Datacenter, srv.Group), "--state-dir", e.Path("state", srv.Datacenter, srv.Group, srv.Instance),
			"--peer-listen", at(srv.Addr, peerPort),
		}, hubs...)
		for _, other := range e.Servers {
			if other != srv && other.Datacenter == srv.Datacenter && other.Group == srv.Group {
				srv.Args = append(srv.Args, "--sibling", at(other.Addr, peerPort))
			}
		}
	}
	return e, nil
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// Of returns the servers of a group, in all datacenters.
func (e *Estate) Of(group string) []*Server {
	return slices.DeleteFunc(slices.Clone(e.Servers), func(s *Server) bool { return s.Group != group })
}

// Up starts everything, in an API server that has the kinds, the samples' Datacenters and nothing else of Fingerpost's,
// and returns when all servers are in sync with the leader.
func (e *Estate) Up() error {
	if err := e.StartControlPlane(); err != nil {
		return err
	}
	for _, line := range []string{"kubectl apply --server-side -f " + kindsFolder, "kubectl create namespace " + Namespace} {
		if _, err := e.Shell(line); err != nil {
			return err
		}
	}
	if err := e.Authorize(); err != nil {
		return err
	}
	for _, m := range e.Managers {
		if err := e.Start(m); err != nil {
			return err
		}
	}
	if err := e.Until(time.Minute, "a manager leads", func() bool { return e.Leader() != nil }); err != nil {
		return err
	}
	if _, err := e.Shell("kubectl apply -f " + datacentersFile); err != nil {
		return err
	}
	if _, err := e.Shell("manager certs export --all --dir " + e.Path("certs")); err != nil {
		return err
	}
	for _, srv := range e.Servers {
		if err := e.Start(&srv.Program); err != nil {
			return err
		}
	}
	_, err := e.Shell("kubectl wait --for=condition=Ready datacenters --all --timeout=60s")
	return err
}

// StartControlPlane starts an API server that has nothing of Fingerpost's.
func (e *Estate) StartControlPlane() (err error) {
	e.ControlPlane, err = controlplane.Start(e.Context, controlplane.Options{Assets: e.Assets, Dir: e.Path("controlplane")})
	return err
}

// Authorize gives the managers the rights that they have in any cluster, and no more. The operator's namespace exists.
func (e *Estate) Authorize() error {
	const account = Namespace + ":fingerpost-manager"
	for _, line := range []string{
		"sed 's/namespace: system$/namespace: " + Namespace + "/' " + rolesFile + " | kubectl apply -f -",
		"kubectl apply -f " + tenantRolesFile,
		"kubectl create clusterrolebinding fingerpost-manager --clusterrole=fingerpost-manager --serviceaccount=" + account,
		"kubectl create rolebinding fingerpost-manager -n " + Namespace + " --role=fingerpost-manager --serviceaccount=" + account,
	} {
		if _, err := e.Shell(line); err != nil {
			return err
		}
	}
	return e.ControlPlane.WriteKubeconfig(e.Path("manager.kubeconfig"), "system:serviceaccount:"+account)
}

// Tolerate has the estate go on when programs end, from now on: people play with it.
func (e *Estate) Tolerate() { e.tolerant.Store(true) }

// Start runs a program. Its log begins with the command line.
func (e *Estate) Start(p *Program) error {
	log := e.Path("logs", p.Name+".log")
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "$ %s\n", strings.Join(append(append(slices.Clone(p.Env), p.Path), p.Args...), " "))
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	proc, err := process.Start(process.Options{Name: p.Name, Env: p.Env, Log: log}, p.Path, p.Args...)
	if err != nil {
		return err
	}
	p.proc, p.killed = proc, make(chan struct{})
	go func(killed <-chan struct{}) {
		<-proc.Exited()
		select {
		case <-killed:
		default:
			if e.tolerant.Load() {
				return
			}
			e.died(fmt.Errorf("%s has ended by itself:\n%s", p.Name, proc.LastWords()))
		}
	}(p.killed)
	return nil
}

// Running reports whether the program was started and not killed.
func (p *Program) Running() bool { return p.proc != nil }

// PID returns the number of a running program's process.
func (p *Program) PID() int { return p.proc.PID() }

// Kill ends a program as kill -9 does. One that does not run stays so.
func (p *Program) Kill() error {
	if p.proc == nil {
		return nil
	}
	close(p.killed)
	err := p.proc.Stop(0)
	p.proc = nil
	return err
}

// Stop ends everything and returns when it has ended.
func (e *Estate) Stop() error {
	var errs []error
	for _, m := range e.Managers {
		errs = append(errs, m.Kill())
	}
	for _, s := range e.Servers {
		errs = append(errs, s.Kill())
	}
	for _, p := range e.Others {
		errs = append(errs, p.Kill())
	}
	if e.ControlPlane != nil {
		errs = append(errs, e.ControlPlane.Stop())
	}
	return errors.Join(errs...)
}

// Path returns a path below the folder of the run.
func (e *Estate) Path(elements ...string) string {
	return filepath.Join(append([]string{e.Dir}, elements...)...)
}

// Environment is what commands of Shell find set.
func (e *Estate) Environment() map[string]string {
	return map[string]string{
		"KUBECONFIG": e.ControlPlane.Kubeconfig(),
		"PATH":       strings.Join([]string{e.Assets, e.Bin, os.Getenv("PATH")}, ":"),
		"RUN":        e.Dir,
		"HOME":       e.Dir, // kubectl keeps a cache there, and nothing of the user's own configuration is read
	}
}

// Shell runs a command line by bash and returns what it prints; if it fails, the error has that too.
func (e *Estate) Shell(line string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(e.Context, "bash", "-o", "pipefail", "-c", line)
	cmd.Stdout, cmd.Stderr = &out, &out
	for name, value := range e.Environment() {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", line, err, out.String())
	}
	return out.String(), nil
}

// Leader returns the manager that leads, nil if none does.
func (e *Estate) Leader() *Program {
	for _, m := range e.Managers {
		if m.Running() && e.Leads(m) {
			return m
		}
	}
	return nil
}

// Leads reports whether a manager leads.
func (e *Estate) Leads(m *Program) bool {
	text, err := Metrics(e.Context, m)
	return err == nil && Sum(text, "leader_election_master_status") == 1
}

// Until waits for something that takes no more than limit, by asking every few milliseconds.
func (e *Estate) Until(limit time.Duration, what string, is func() bool) error {
	ctx, cancel := context.WithTimeoutCause(e.Context, limit, fmt.Errorf("after %s it is still not so: %s", limit, what))
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
