//go:build linux

package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

// Central is the name of the cluster that all datacenters are in unless they have their own.
const Central = "central"

// Options say what Up makes.
type Options struct {
	Dir      string // for all that it writes. Made if absent, and gone after Down
	Programs Programs
	// Datacenters are nodes by name, at most nine, each a DNS label of at most 10 characters.
	Datacenters []string
	// Own are those of them that are a cluster of their own, with an API server on the node; its name is the datacenter's.
	Own []string
	// Host connects this computer. At most one cluster may have that.
	Host bool
	// Stay lets the cluster outlive this process.
	Stay     bool
	Images   []string // archives of images that every node gets
	Progress io.Writer
}

// Cluster is all machines of one Options.Dir. It is for one goroutine, but for Dial, RunAt and the methods that only tell
// something.
type Cluster struct {
	dir string

	mu    sync.Mutex
	state state
	lines []*os.File // whose end ends machines
}

// state is what is kept in Dir/cluster.json, before anything is done that would have to be undone without this process.
type state struct {
	Boot     string             `json:"boot"` // of the computer: machines do not outlive it
	Cgroup   string             `json:"cgroup"`
	Host     bool               `json:"host"`
	Stay     bool               `json:"stay"`
	Machines []machine          `json:"machines"` // in the order of start
	Running  map[string]running `json:"running"`  // by name; what was killed is here until it is started again
}

const stateFile = "cluster.json"

//go:embed addons.yaml
var addons string

// Patience of Up.
const (
	bootPatience  = 2 * time.Minute
	readyPatience = 2 * time.Minute
)

// Up starts a cluster and returns when all nodes are ready and resolve its names. If it fails, everything has ended but the
// logs in Dir/logs.
func Up(ctx context.Context, o Options) (_ *Cluster, err error) {
	if os.Getuid() != 0 {
		return nil, errors.New("a cluster needs root")
	}
	switch open, err := Open(o.Dir); {
	case err == nil && open.anyAlive():
		return nil, fmt.Errorf("the cluster in %s runs already", o.Dir)
	case err == nil: // of a run that was killed, or before the computer started
		if err := open.Down(); err != nil {
			return nil, err
		}
	case !errors.Is(err, ErrNone):
		return nil, err
	}
	if o.Host {
		if err := hostFree(); err != nil {
			return nil, err
		}
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	name := fnv.New32a()
	fmt.Fprint(name, o.Dir)
	c := &Cluster{dir: o.Dir, state: state{Boot: boot, Cgroup: fmt.Sprintf("fingerpost-%08x", name.Sum32()), Host: o.Host, Stay: o.Stay, Running: map[string]running{}}}
	c.state.Machines = c.plan(o)
	if err := os.MkdirAll(filepath.Join(c.dir, "images"), 0o755); err != nil {
		return nil, err
	}
	if err := c.save(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	for _, archive := range o.Images {
		if err := c.keepImage(archive); err != nil {
			return nil, err
		}
	}
	for _, m := range c.state.Machines {
		if m.Kind == node {
			if err := makeCgroup(c.state.Cgroup, m.Name); err != nil {
				return nil, err
			}
		}
	}
	began := time.Now()
	tell := func(what string) { fmt.Fprintf(o.Progress, "%5.1f s  %s\n", time.Since(began).Seconds(), what) }
	if err := c.boot(ctx, wan); err != nil {
		return nil, err
	}
	if o.Host {
		if err := plugHost(c.state.Running[string(wan)]); err != nil {
			return nil, err
		}
	}
	if err := c.boot(ctx, controlPlane); err != nil {
		return nil, err
	}
	tell("the control plane is ready")
	if err := c.boot(ctx, node); err != nil {
		return nil, err
	}
	tell("kubelets run")
	for _, cl := range c.clusters() {
		if err := c.complete(ctx, cl); err != nil {
			return nil, err
		}
	}
	tell("all nodes are ready")
	return c, nil
}

// plan returns the machines of a cluster.
func (c *Cluster) plan(o Options) []machine {
	template := machine{Dir: o.Dir, Programs: o.Programs, Datacenters: len(o.Datacenters)}
	central := cluster{Name: Central, API: netip.AddrPortFrom(centralAPI.Addr(), apiPort)}
	for _, dc := range o.Datacenters {
		if !slices.Contains(o.Own, dc) {
			central.Nodes = append(central.Nodes, dc)
		}
	}
	w, cp := template, template
	w.Name, w.Kind, w.Address = string(wan), wan, wanAddress
	cp.Name, cp.Kind, cp.Address, cp.Cluster = "control-plane", controlPlane, centralAPI, central
	all := []machine{w, cp}
	for i, dc := range o.Datacenters {
		n := template
		n.Name, n.Kind, n.Number, n.Address, n.Cluster = dc, node, i+1, nodeAddress(i+1), central
		n.Cgroup = filepath.Join(c.state.Cgroup, dc)
		if slices.Contains(o.Own, dc) {
			n.ControlPlane = true
			n.Cluster = cluster{Name: dc, API: netip.AddrPortFrom(n.Address.Addr(), apiPort), Nodes: []string{dc}}
		}
		all = append(all, n)
	}
	return all
}

// boot starts all machines of a kind and returns when they do what they are for.
func (c *Cluster) boot(ctx context.Context, k kind) error {
	var names []string
	for _, m := range c.state.Machines {
		if m.Kind == k {
			names = append(names, m.Name)
		}
	}
	return c.start(ctx, names...)
}

func (c *Cluster) start(ctx context.Context, names ...string) error {
	var all []*starting
	for _, name := range names {
		m, err := c.machine(name)
		if err != nil {
			return err
		}
		s, err := m.start()
		if err != nil {
			return err
		}
		all = append(all, s)
		c.mu.Lock()
		c.state.Running[name] = s.running
		c.lines = append(c.lines, s.lifeline)
		at := c.state.Running[string(wan)]
		c.mu.Unlock()
		if err := c.save(); err != nil {
			return err
		}
		if m.Kind != wan {
			if err := plug(at, name, s.running); err != nil {
				return err
			}
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, s := range all {
		wg.Go(func() {
			if errs[i] = s.boot(ctx, bootPatience); errs[i] == nil && c.state.Stay {
				errs[i] = s.keep()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// complete gives a cluster what every one has, and returns when its nodes are ready.
func (c *Cluster) complete(ctx context.Context, cl cluster) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	if err := c.kubectl(ctx, cl.Name, strings.NewReader(addons), "apply", "-f", "-"); err != nil {
		return err
	}
	var nodes []string
	for _, n := range cl.Nodes {
		nodes = append(nodes, "node/"+n)
	}
	for _, condition := range []string{"create", "condition=Ready"} {
		if err := c.kubectl(ctx, cl.Name, nil, append([]string{"wait", "--for", condition, "--timeout=5m"}, nodes...)...); err != nil {
			return err
		}
	}
	return c.kubectl(ctx, cl.Name, nil, "rollout", "status", "-n", "kube-system", "daemonset/coredns", "--timeout=5m")
}

// kubectl runs kubectl against a cluster.
func (c *Cluster) kubectl(ctx context.Context, cluster string, stdin io.Reader, args ...string) error {
	programs := c.Programs()
	cmd := exec.CommandContext(ctx, filepath.Join(programs.Assets, "kubectl"), args...)
	cmd.Env = []string{"KUBECONFIG=" + c.Kubeconfig(cluster), "HOME=" + c.dir, "PATH=" + programs.Path}
	cmd.Stdin = stdin
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := c.RunAt(string(wan), cmd); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// ErrNone is that there is no cluster in a folder.
var ErrNone = errors.New("there is no cluster")

// Open returns the cluster that Up has left in a folder, whether it runs or not.
func Open(dir string) (*Cluster, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNone, dir)
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir}
	if err := json.Unmarshal(text, &c.state); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if boot != c.state.Boot {
		c.state.Running = map[string]running{}
	}
	return c, nil
}

func (c *Cluster) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, err := json.MarshalIndent(c.state, "", " ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(c.dir, stateFile), text, 0o644)
}

// bootID names the time since the computer was started.
func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

func (c *Cluster) anyAlive() bool {
	for _, r := range c.state.Running {
		if r.alive() {
			return true
		}
	}
	return false
}

// Down ends the cluster and removes all of it. What is gone already is no error.
func (c *Cluster) Down() error {
	if err := c.stop(); err != nil {
		return err
	}
	return os.RemoveAll(c.dir)
}

// stop ends the cluster and leaves its folder.
func (c *Cluster) stop() error {
	errs := make([]error, 0, len(c.state.Running)+2)
	for name, r := range c.state.Running {
		if err := r.kill(); err != nil {
			errs = append(errs, fmt.Errorf("ending %s: %w", name, err))
		}
	}
	for _, line := range c.lines {
		line.Close() // kept ones are closed already
	}
	c.lines = nil
	if c.state.Host {
		errs = append(errs, unplugHost())
	}
	return errors.Join(append(errs, removeCgroup(c.state.Cgroup))...)
}

// clusters returns the central cluster and those of datacenters.
func (c *Cluster) clusters() []cluster {
	var all []cluster
	for _, m := range c.state.Machines {
		if (m.Kind == controlPlane && len(m.Cluster.Nodes) > 0) || m.ControlPlane {
			all = append(all, m.Cluster)
		}
	}
	return all
}

// machine returns a machine by name.
func (c *Cluster) machine(name string) (machine, error) {
	i := slices.IndexFunc(c.state.Machines, func(m machine) bool { return m.Name == name })
	if i < 0 {
		var names []string
		for _, m := range c.state.Machines {
			names = append(names, m.Name)
		}
		return machine{}, fmt.Errorf("there is no machine %s, but %s", name, strings.Join(names, ", "))
	}
	return c.state.Machines[i], nil
}

// running returns a machine that runs.
func (c *Cluster) running(name string) (running, error) {
	if _, err := c.machine(name); err != nil {
		return running{}, err
	}
	c.mu.Lock()
	r := c.state.Running[name]
	c.mu.Unlock()
	if !r.alive() {
		return r, fmt.Errorf("machine %s does not run", name)
	}
	return r, nil
}

// Partition cuts a datacenter off from everything else, and Heal connects it again.
func (c *Cluster) Partition(datacenter string) error { return c.link(datacenter, "down") }

// Heal is the end of Partition.
func (c *Cluster) Heal(datacenter string) error { return c.link(datacenter, "up") }

func (c *Cluster) link(name, to string) error {
	if _, err := c.running(name); err != nil {
		return err
	}
	at, err := c.running(string(wan))
	if err != nil {
		return err
	}
	return inNetwork(at.PID, func() error { return ip("link set " + name + " " + to) })
}

// Kill ends a machine at once, with all that runs on it. Its disk stays.
func (c *Cluster) Kill(name string) error {
	r, err := c.running(name)
	if err != nil {
		return err
	}
	return r.kill()
}

// Start starts a machine that was killed, from its disk, and returns when its daemons run.
func (c *Cluster) Start(ctx context.Context, name string) error {
	if name == string(wan) {
		return errors.New("wan can't be started again: the others hang on its cables")
	}
	m, err := c.machine(name)
	if err != nil {
		return err
	}
	if _, err := c.running(name); err == nil {
		return fmt.Errorf("machine %s runs already", name)
	}
	if m.Kind == node {
		// A computer that boots has no control groups of before; a kubelet would look at each for seconds.
		if err := removeCgroup(m.Cgroup); err != nil {
			return err
		}
		if err := makeCgroup(c.state.Cgroup, m.Name); err != nil {
			return err
		}
	}
	return c.start(ctx, name)
}

// keepImage copies an archive to where nodes find it at their start.
func (c *Cluster) keepImage(archive string) error {
	content, err := os.ReadFile(archive)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(c.dir, "images", filepath.Base(archive)), content, 0o644)
}

// LoadImage gives all nodes the images of an archive (Image.Write, docker save, podman save): at once those that run, others
// at their start. Archives of equal file names replace one another there.
func (c *Cluster) LoadImage(archive string) error {
	if err := c.keepImage(archive); err != nil {
		return err
	}
	for _, m := range c.state.Machines {
		r, err := c.running(m.Name)
		if m.Kind != node || err != nil {
			continue
		}
		if err := importImage(fmt.Sprintf("/proc/%d/root%s", r.PID, containerdSocket), archive); err != nil {
			return fmt.Errorf("node %s: %w", m.Name, err)
		}
	}
	return nil
}

// Kubeconfig returns the path of the kubeconfig of a cluster's administrator.
func (c *Cluster) Kubeconfig(cluster string) string {
	return filepath.Join(c.dir, "clusters", cluster, "admin.kubeconfig")
}

// Config returns the administrator's configuration for a cluster, for clients in this process. They reach the API
// server also if this computer is not connected.
func (c *Cluster) Config(cluster string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig(cluster))
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		return c.Dial(ctx, string(wan), network, netip.Addr{}, to)
	}
	return config, nil
}

// MachineStatus is what Status tells of a machine.
type MachineStatus struct {
	Name, Kind, Cluster string
	Address             netip.Addr
	PID                 int // 0: it does not run
	Cut                 bool
}

// Status returns the state of all machines.
func (c *Cluster) Status() []MachineStatus {
	var all []MachineStatus
	at, wanErr := c.running(string(wan))
	for _, m := range c.state.Machines {
		s := MachineStatus{Name: m.Name, Kind: string(m.Kind), Cluster: m.Cluster.Name, Address: m.Address.Addr()}
		if r, err := c.running(m.Name); err == nil {
			s.PID = r.PID
			if m.Kind != wan && wanErr == nil {
				s.Cut = inNetwork(at.PID, func() error { return isUp(m.Name) }) != nil
			}
		}
		all = append(all, s)
	}
	return all
}

// Exec returns a command that runs on a machine as if by a shell there: in its network, with its processes and files.
func (c *Cluster) Exec(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	r, err := c.running(name)
	if err != nil {
		return nil, err
	}
	m, err := c.machine(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", fmt.Sprint(r.PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--"}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+m.Programs.Path, "HOME=/var", "CONTAINERD_ADDRESS="+containerdSocket, "CONTAINERD_NAMESPACE=k8s.io")
	return cmd, nil
}

// Programs returns what machines run.
func (c *Cluster) Programs() Programs { return c.state.Machines[0].Programs }

// Logs returns the folder with the output of all that runs on the machines' own, in files MACHINE-PROGRAM.log.
func (c *Cluster) Logs() string { return filepath.Join(c.dir, "logs") }

// DefaultDir returns the folder of the cluster that `make cluster-up` makes.
func DefaultDir() (string, error) {
	cache, err := controlplane.CacheDir()
	return filepath.Join(cache, "cluster"), err
}
