package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fingerpost-dns/fingerpost/hack/process"
)

// Options say where a control plane runs. The zero value is right for tests.
type Options struct {
	// Assets is the folder with etcd and kube-apiserver, as from the function Assets. Empty: $KUBEBUILDER_ASSETS.
	Assets string
	// Dir is for etcd's data, keys, kubeconfigs and logs. It is made if absent and left at the end: a later Start on it has
	// the same objects, and clients of before go on working if the address is the same. One control plane at a time may use it.
	// Empty: a temporary folder that Stop removes.
	Dir string
	// APIServer and Etcd are the loopback addresses to listen on; etcd trusts all that can reach its own. A zero value
	// is 127.0.0.1 with a free port. A free port stays the same until Stop.
	APIServer, Etcd netip.AddrPort
	// APIServerFlags are put behind kube-apiserver's flags and override them.
	APIServerFlags []string
	// Nodes makes it the control plane of a cluster that has nodes: kube-controller-manager and kube-scheduler run too, service
	// accounts are as in any cluster, and the address of the API server, which must be given and which nodes must
	// reach, is that of the Service kubernetes. A kubelet's user is system:node:NAME, in the group system:nodes.
	Nodes bool
}

// ControlPlane is a running etcd with a kube-apiserver. Authorization is RBAC. Unless Options.Nodes is set there is no
// controller manager: namespaces that are deleted stay Terminating, nothing is garbage-collected, and pods get no service
// account by default.
// Its processes end with this one, but the temporary folder of Options stays unless Stop is called. Methods must not be
// called at the same time.
type ControlPlane struct {
	options    Options
	dir        string
	temporary  bool // dir is removed by Stop
	authority  *authority
	config     *rest.Config
	etcd       *process.Process
	apiServer  *process.Process   // nil while it is stopped
	others     []*process.Process // kube-controller-manager and kube-scheduler
	releases   []func()           // of held ports
	sharePorts []string           // flag of kube-apiserver if its port is held
}

// Start returns a control plane that is ready: it serves requests and has its default roles and namespaces. ctx bounds the
// start alone, and two minutes do. If it fails, nothing is left running, and the error has the last
// lines of the log of whatever did not start.
func Start(ctx context.Context, options Options) (_ *ControlPlane, err error) {
	if options.Assets == "" {
		if options.Assets = os.Getenv("KUBEBUILDER_ASSETS"); options.Assets == "" {
			return nil, errors.New("starting a control plane: KUBEBUILDER_ASSETS is not set (`make test` sets it; by hand: export KUBEBUILDER_ASSETS=$(go run ./hack/controlplane/cmd assets))")
		}
	}
	c := &ControlPlane{options: options}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting a control plane: %w", err), c.Stop())
		}
	}()
	if err := c.prepare(); err != nil {
		return nil, err
	}
	if err := c.startEtcd(); err != nil {
		return nil, err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return nil, err
	}
	if options.Nodes {
		if err := c.startControllers(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// prepare fills dir, and settles addresses and identities.
func (c *ControlPlane) prepare() (err error) {
	if c.options.Dir == "" {
		c.dir, err = os.MkdirTemp("", "fingerpost-controlplane-*")
		c.temporary = true
	} else {
		c.dir, err = filepath.Abs(c.options.Dir)
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.path("pki"), 0o700); err != nil {
		return err
	}
	if c.authority, err = loadOrMakeAuthority(c.path("pki")); err != nil {
		return err
	}
	apiServer := c.options.APIServer
	if apiServer.Port() == 0 {
		if apiServer, err = c.hold(apiServer.Addr()); err != nil {
			return err
		}
		c.sharePorts = []string{"--permit-port-sharing"}
	}
	c.options.APIServer = apiServer
	if err := c.writeKeys(); err != nil {
		return err
	}
	if err := c.WriteKubeconfig(c.Kubeconfig(), "admin", "system:masters"); err != nil {
		return err
	}
	c.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return err
	}
	c.config.QPS = -1 // no limit: whoever tests limits sets his own
	return nil
}

// writeKeys issues the API server's certificate for its address of this time, and one by which kubelets know it. The key that signs service account tokens
// is kept, so that tokens outlive a restart.
func (c *ControlPlane) writeKeys() error {
	cert, key, err := c.authority.server(c.options.APIServer.Addr().AsSlice(), []byte{10, 96, 0, 1})
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("pki", "apiserver.crt"), cert, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(c.path("pki", "apiserver.key"), key, 0o600); err != nil {
		return err
	}
	if cert, key, err = c.authority.client("kube-apiserver-kubelet-client", []string{"system:masters"}); err != nil {
		return err
	}
	if err := os.WriteFile(c.path("pki", "kubelet-client.crt"), cert, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(c.path("pki", "kubelet-client.key"), key, 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(c.path("pki", "sa.key")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, key, err = c.authority.client("service-accounts", nil) // for its key alone
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("pki", "sa.key"), key, 0o600)
}

func (c *ControlPlane) hold(addr netip.Addr) (netip.AddrPort, error) {
	if !addr.IsValid() {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	held, release, err := hold(addr)
	if err == nil {
		c.releases = append(c.releases, release)
	}
	return held, err
}

func (c *ControlPlane) startEtcd() error {
	var share []string
	var err error
	if c.options.Etcd.Port() == 0 {
		if c.options.Etcd, err = c.hold(c.options.Etcd.Addr()); err != nil {
			return err
		}
		share = []string{"--socket-reuse-port"}
	}
	c.etcd, err = c.start("etcd", append([]string{
		"--data-dir", c.path("etcd"),
		"--listen-client-urls", "http://" + c.options.Etcd.String(),
		"--advertise-client-urls", "http://" + c.options.Etcd.String(),
		"--listen-peer-urls", "http://" + netip.AddrPortFrom(c.options.Etcd.Addr(), 0).String(), // any port: it has no peers
		"--unsafe-no-fsync", // what is lost in a power cut is throw-away
		"--log-level", "warn",
	}, share...)...)
	return err
}

// start runs a program of the assets in the control plane's folder.
func (c *ControlPlane) start(name string, args ...string) (*process.Process, error) {
	return process.Start(process.Options{Name: name, Dir: c.dir, Log: c.path(name + ".log")}, filepath.Join(c.options.Assets, name), args...)
}

// StartAPIServer starts the API server after StopAPIServer and returns when it is ready, as Start does.
func (c *ControlPlane) StartAPIServer(ctx context.Context) (err error) {
	if c.apiServer != nil {
		return errors.New("the API server runs already")
	}
	at := c.options.APIServer
	flags := append([]string{
		"--etcd-servers", "http://" + c.options.Etcd.String(),
		"--bind-address", at.Addr().String(),
		"--secure-port", fmt.Sprint(at.Port()),
		"--advertise-address", at.Addr().String(),
		"--tls-cert-file", c.path("pki", "apiserver.crt"),
		"--tls-private-key-file", c.path("pki", "apiserver.key"),
		"--client-ca-file", c.path("pki", "ca.crt"),
		"--authorization-mode", "RBAC",
		"--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file", c.path("pki", "sa.key"),
		"--service-account-signing-key-file", c.path("pki", "sa.key"),
		"--allow-privileged",
	}, c.sharePorts...)
	if c.options.Nodes {
		flags = append(flags,
			"--kubelet-client-certificate", c.path("pki", "kubelet-client.crt"),
			"--kubelet-client-key", c.path("pki", "kubelet-client.key"),
			"--kubelet-preferred-address-types", "InternalIP",
			"--authorization-mode", "Node", // too
			"--enable-admission-plugins", "NodeRestriction",
		)
	} else {
		flags = append(flags,
			"--endpoint-reconciler-type", "none", // refuses loopback addresses
			"--disable-admission-plugins", "ServiceAccount", // who would make a namespace's default account?
		)
	}
	c.apiServer, err = c.start("kube-apiserver", append(flags, c.options.APIServerFlags...)...)
	if err != nil {
		return err
	}
	if err := c.ready(ctx); err != nil {
		return errors.Join(err, c.StopAPIServer())
	}
	return nil
}

// startControllers runs kube-controller-manager and kube-scheduler, which wait for the API server by themselves whenever it
// is not there. They serve nothing.
func (c *ControlPlane) startControllers() error {
	for name, flags := range map[string][]string{
		"kube-scheduler": nil,
		"kube-controller-manager": {
			"--use-service-account-credentials",
			"--root-ca-file", c.path("pki", "ca.crt"),
			"--service-account-private-key-file", c.path("pki", "sa.key"),
			"--cluster-signing-cert-file", c.path("pki", "ca.crt"),
			"--cluster-signing-key-file", c.path("pki", "ca.key"),
			"--node-monitor-grace-period", "20s",
		},
	} {
		kubeconfig := c.path(name + ".kubeconfig")
		if err := c.WriteKubeconfig(kubeconfig, "system:"+name); err != nil {
			return err
		}
		p, err := c.start(name, append([]string{"--kubeconfig", kubeconfig, "--secure-port", "0", "--leader-elect=false"}, flags...)...)
		if err != nil {
			return err
		}
		c.others = append(c.others, p)
	}
	return nil
}

// ready waits until the API server says that it is ready and has made the namespaces that every cluster has.
func (c *ControlPlane) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	last := errors.New("it has not been asked yet")
	for _, path := range []string{"/readyz", "/api/v1/namespaces/kube-system", "/api/v1/namespaces/default"} {
		for last != nil {
			select {
			case <-c.etcd.Exited():
				return fmt.Errorf("etcd has ended:\n%s", c.etcd.LastWords())
			case <-c.apiServer.Exited():
				return fmt.Errorf("kube-apiserver has ended:\n%s", c.apiServer.LastWords())
			case <-ctx.Done():
				return fmt.Errorf("kube-apiserver is not ready: %w: %w\n%s", ctx.Err(), last, c.apiServer.LastWords())
			case <-retry.C:
				last = get(ctx, client, c.config.Host+path)
			}
		}
		last = errors.New("it has not been asked yet")
	}
	return nil
}

// get returns an error unless the answer is 200.
func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

// StopAPIServer stops the API server; etcd and its data stay. A second time it does nothing.
func (c *ControlPlane) StopAPIServer() error {
	if c.apiServer == nil {
		return nil
	}
	if err := c.apiServer.Stop(c.grace()); err != nil {
		return err
	}
	c.apiServer = nil
	return nil
}

// Stop ends the processes and releases ports and, if it was temporary, the folder. A second time it does nothing.
func (c *ControlPlane) Stop() error {
	var err error
	for _, p := range c.others {
		err = errors.Join(err, p.Stop(0)) // they keep nothing
	}
	c.others = nil
	err = errors.Join(err, c.StopAPIServer())
	if c.etcd != nil {
		err = errors.Join(err, c.etcd.Stop(c.grace()))
		c.etcd = nil
	}
	for _, release := range c.releases {
		release()
	}
	c.releases = nil
	if c.temporary {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// grace is how long processes may take to end in order: no time if what they would save is thrown away.
func (c *ControlPlane) grace() time.Duration {
	if c.temporary {
		return 0
	}
	return 10 * time.Second
}

// Wait returns when one of the processes has ended that should not, and says which. No other method but Stop may be called
// afterwards.
func (c *ControlPlane) Wait() error {
	ended := make(chan error)
	for name, p := range map[string]*process.Process{"etcd": c.etcd, "kube-apiserver": c.apiServer} {
		go func() { <-p.Exited(); ended <- fmt.Errorf("%s has ended:\n%s", name, p.LastWords()) }()
	}
	for _, p := range c.others {
		go func() { <-p.Exited(); ended <- fmt.Errorf("a controller has ended:\n%s", p.LastWords()) }()
	}
	return <-ended
}

// Config returns a copy of the administrator's configuration, without client-side rate limits.
func (c *ControlPlane) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig returns the path of the administrator's kubeconfig, which holds all it needs.
func (c *ControlPlane) Kubeconfig() string { return c.path("admin.kubeconfig") }

// WriteKubeconfig writes a kubeconfig for a user who is in the given groups. The user is known by a certificate and
// may do what RBAC grants to user and groups; a service account is the user system:serviceaccount:NAMESPACE:NAME.
func (c *ControlPlane) WriteKubeconfig(path, user string, groups ...string) error {
	cert, key, err := c.authority.client(user, groups)
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["fingerpost"] = &clientcmdapi.Cluster{Server: "https://" + c.options.APIServer.String(), CertificateAuthorityData: c.authority.certPEM}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts["fingerpost"] = &clientcmdapi.Context{Cluster: "fingerpost", AuthInfo: user}
	config.CurrentContext = "fingerpost"
	return clientcmd.WriteToFile(*config, path)
}

// path returns a path below the control plane's folder.
func (c *ControlPlane) path(elements ...string) string {
	return filepath.Join(append([]string{c.dir}, elements...)...)
}
