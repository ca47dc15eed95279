//go:build linux

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// containerdSocket is where a node's containerd listens, in the file system of the node.
const containerdSocket = "/run/containerd/containerd.sock"

// Kubeconfigs in the folder of a cluster, beside that of the control plane's administrator.
const proxyKubeconfig = "kube-proxy.kubeconfig"

func nodeKubeconfig(name string) string { return name + ".kubeconfig" }

// govern runs the control plane of the machine's cluster. What ends by itself is told to ended.
func (m machine) govern(ended chan<- error) error {
	dir := m.Cluster.dir(m.Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cp, err := controlplane.Start(context.Background(), controlplane.Options{
		Assets: m.Programs.Assets, Dir: dir, APIServer: m.Cluster.API, Nodes: true,
	})
	if err != nil {
		return err
	}
	for _, name := range m.Cluster.Nodes {
		if err := cp.WriteKubeconfig(filepath.Join(dir, nodeKubeconfig(name)), "system:node:"+name, "system:nodes"); err != nil {
			return err
		}
	}
	if err := cp.WriteKubeconfig(filepath.Join(dir, proxyKubeconfig), "system:kube-proxy"); err != nil {
		return err
	}
	go func() { ended <- cp.Wait() }()
	return nil
}

// serve makes the machine a node.
func (m machine) serve(ended chan<- error) error {
	plugins, err := exec.LookPath("host-local")
	if err != nil {
		return fmt.Errorf("finding the CNI plugins: %w", err)
	}
	settings := nodeSettings{
		machine: m, Pods: pods(m.Number).String(), AllPods: allPods.String(), DNS: clusterDNS.String(), Socket: containerdSocket,
		Plugins: filepath.Dir(plugins), Pause: pauseImage, Snapshotter: "overlayfs", Authority: filepath.Join(m.Cluster.dir(m.Dir), "pki", "ca.crt"),
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/var", &fs); err != nil {
		return err
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC { // which can't be put on itself
		settings.Snapshotter = "native"
	}
	for name, text := range nodeFiles {
		var file bytes.Buffer
		if err := text.Execute(&file, settings); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, file.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if err := m.daemon(ended, "containerd", "--config", "/run/etc/containerd.toml"); err != nil {
		return err
	}
	if err := listens(containerdSocket, 30*time.Second); err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(m.Dir, "images", "*.tar"))
	if err != nil {
		return err
	}
	for _, file := range images {
		if err := importImage(containerdSocket, file); err != nil {
			return err
		}
	}
	clusterDir := m.Cluster.dir(m.Dir)
	if err := m.daemon(ended, filepath.Join(m.Programs.Assets, "kubelet"), "--config", "/run/etc/kubelet.yaml",
		"--kubeconfig", filepath.Join(clusterDir, nodeKubeconfig(m.Name)),
		"--hostname-override", m.Name, "--node-ip", m.Address.Addr().String(),
		"--node-labels", "topology.kubernetes.io/region=fingerpost,topology.kubernetes.io/zone="+m.Name); err != nil {
		return err
	}
	return m.daemon(ended, filepath.Join(m.Programs.Assets, "kube-proxy"), "--config", "/run/etc/kube-proxy.yaml")
}

// daemon starts a program that runs as long as the machine.
func (m machine) daemon(ended chan<- error, program string, args ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	name := filepath.Base(program)
	p, err := process.Start(process.Options{Name: name, Dir: "/", Env: os.Environ(), Log: m.log(name)}, path, args...)
	if err != nil {
		return err
	}
	go func() {
		<-p.Exited()
		ended <- fmt.Errorf("%s has ended by itself:\n%s", name, p.LastWords())
	}()
	return nil
}

// listens returns when somebody listens on a unix socket.
func listens(socket string, patience time.Duration) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for end := time.After(patience); ; {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-end:
			return err
		case <-retry.C:
		}
	}
}

// importImage gives the containerd at a socket the images of an archive, for this computer's architecture.
func importImage(socket, file string) error {
	said, err := exec.Command("ctr", "--address", socket, "--namespace", "k8s.io", "images", "import", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("importing %s: %w\n%s", file, err, bytes.TrimSpace(said))
	}
	return nil
}

// nodeSettings is what nodeFiles are made of.
type nodeSettings struct {
	machine
	Pods, AllPods, DNS, Socket, Plugins, Pause, Snapshotter, Authority string
}

// ClusterDir is the folder with the kubeconfigs.
func (s nodeSettings) ClusterDir() string { return s.Cluster.dir(s.Dir) }

// nodeFiles are the configuration of a node, in its own file system.
var nodeFiles = map[string]*template.Template{
	"/run/etc/resolv.conf": text(`# A node knows no names but those of its own cluster.
`),
	"/run/etc/cni/10-pods.conflist": text(`{"cniVersion": "0.4.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
   "type": "host-local", "ranges": [[{"subnet": "{{.Pods}}"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni-addresses"}}]}
`),
	"/run/etc/containerd.toml": text(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.opt"]
[grpc]
address = "{{.Socket}}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{{.Pause}}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{{.Snapshotter}}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{{.Plugins}}"
conf_dir = "/run/etc/cni"
`),
	"/run/etc/kubelet.yaml": text(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{{.Cgroup}}
enforceNodeAllocatable: []
failSwapOn: false
containerRuntimeEndpoint: unix://{{.Socket}}
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "{{.Authority}}"}}
authorization: {mode: Webhook}
clusterDomain: cluster.local
clusterDNS: ["{{.DNS}}"]
resolvConf: /run/etc/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 15
`),
	"/run/etc/kube-proxy.yaml": text(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {{.Name}}
clientConnection: {kubeconfig: "{{.ClusterDir}}/` + proxyKubeconfig + `"}
clusterCIDR: {{.AllPods}}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`),
}

func text(t string) *template.Template { return template.Must(template.New("").Parse(t)) }
