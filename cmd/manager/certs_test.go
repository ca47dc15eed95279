package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers"
	"github.com/fingerpost-dns/fingerpost/controllers/pki"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

// TestCertsExport exports from a real API server the certificates that real reconcilers have put there.
func TestCertsExport(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	cp, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	crds := envtest.CRDInstallOptions{Paths: []string{"../../config/crd/bases"}, ErrorIfPathMissing: true}
	if _, err := envtest.InstallCRDs(cp.Config(), crds); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(cp.Config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: controllers.DefaultNamespace}}); err != nil {
		t.Fatal(err)
	}
	e := &estate{
		api:        api,
		kubeconfig: cp.Kubeconfig(),
		dir:        t.TempDir(),
		issuer: controllers.CertificateIssuer{
			Secrets: api, Writer: api, Events: &events.FakeRecorder{}, Namespace: controllers.DefaultNamespace,
			Policy: pki.DefaultPolicy(), Now: time.Now,
		},
	}
	// One after the other: each finds what the one before has left.
	t.Run("the command line is checked first", func(t *testing.T) {
		for name, c := range map[string]struct {
			args []string
			want string
		}{
			"no group at all":           {[]string{"--dir", e.dir}, "at least one of the flags in the group [all datacenter] is required"},
			"a datacenter alone":        {[]string{"--dir", e.dir, "--datacenter", "dc-a"}, "[datacenter group]"},
			"a group and all":           {[]string{"--dir", e.dir, "--all", "--datacenter", "dc-a", "--group", "root"}, "none of the others can be"},
			"no folder":                 {[]string{"--all"}, `required flag(s) "dir" not set`},
			"an empty folder":           {[]string{"--all", "--dir", ""}, "--dir must name a folder"},
			"a name that is no label":   {[]string{"--dir", e.dir, "--datacenter", "dc.a", "--group", "root"}, `--datacenter "dc.a"`},
			"a path for a group":        {[]string{"--dir", e.dir, "--datacenter", "dc-a", "--group", "../root"}, `--group "../root"`},
			"a pool that is no name":    {[]string{"--dir", e.dir, "--datacenter", "dc-a", "--group", "pool.dns-root.Office"}, `--group "Office"`},
			"a kubeconfig that is away": {[]string{"--dir", e.dir, "--all", "--kubeconfig", e.dir + "/none"}, "reading the kubeconfig"},
			"an argument":               {[]string{"--dir", e.dir, "--all", "dc-a"}, "unknown command"},
		} {
			t.Run(name, func(t *testing.T) {
				_, err := e.export(t, c.args...)
				expectError(t, err, c.want)
			})
		}
	})
	t.Run("without a Datacenter there is nothing to export", func(t *testing.T) {
		_, err := e.export(t, "--all", "--dir", e.dir, "--kubeconfig", e.kubeconfig)
		expectError(t, err, "there is no Datacenter yet")
	})
	t.Run("a Secret that never comes ends in a clear message", func(t *testing.T) {
		_, err := e.export(t, "--datacenter", "dc-a", "--group", "root", "--dir", e.dir, "--kubeconfig", e.kubeconfig, "--timeout", "300ms")
		expectError(t, err, "secret fingerpost-system/fingerpost-server.dc-a.root did not appear: "+
			"is there a Datacenter dc-a with a server group or pool root, and does a manager lead? waited 300ms")
		if files, _ := os.ReadDir(e.dir); len(files) != 0 {
			t.Errorf("%d files were written", len(files))
		}
	})
	t.Run("a Secret that comes later is waited for", func(t *testing.T) {
		dc := e.datacenter(t, "dc-a", "root", "authoritative")
		looked := make(chan struct{})
		exported := make(chan error, 1)
		var out bytes.Buffer
		go func() {
			waiting := exporter{reader: &firstLook{Reader: e.api, looked: looked}, namespace: controllers.DefaultNamespace, out: &out, now: time.Now}
			exported <- waiting.export(t.Context(), control.GroupKey{Datacenter: "dc-a", Group: "root"}, filepath.Join(e.dir, "dc-a", "root"))
		}()
		<-looked
		e.issue(t, dc)
		if err := <-exported; err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.HasPrefix(got, "dc-a/root: "+e.dir+"/dc-a/root written, valid until 2") {
			t.Errorf("it says %q", got)
		}
	})
	t.Run("all groups of all Datacenters are exported", func(t *testing.T) {
		e.issue(t, e.datacenter(t, "dc-b", "root", "authoritative"))
		e.mustExport(t, "--all")
		for _, group := range []string{"dc-a/root", "dc-a/authoritative", "dc-b/root", "dc-b/authoritative"} {
			for name, want := range map[string]fs.FileMode{"tls.crt": 0o644, "tls.key": 0o600, "ca.crt": 0o644} {
				info, err := os.Stat(filepath.Join(e.dir, group, name))
				if err != nil {
					t.Error(err)
				} else if info.Mode() != want {
					t.Errorf("%s/%s: mode %s, wanted %s", group, name, info.Mode(), want)
				}
			}
			if files, err := os.ReadDir(filepath.Join(e.dir, group)); err != nil || len(files) != 3 {
				t.Errorf("%s: %v (%v)", group, files, err)
			}
		}
	})
	t.Run("all takes External pools with it, in their datacenters", func(t *testing.T) {
		for name, management := range map[string]v1alpha1.ResolverPoolManagement{"office": v1alpha1.ResolverPoolExternal, "production": v1alpha1.ResolverPoolManaged} {
			p := &v1alpha1.ResolverPool{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1alpha1.ResolverPoolSpec{
				Class: "office", Management: management, Datacenters: v1alpha1.DatacenterSelection{Names: []v1alpha1.DatacenterName{"dc-b"}},
				Members: []v1alpha1.ResolverMember{{Engine: v1alpha1.EngineUnbound}}, ClientNetworks: []v1alpha1.CIDR{"10.0.0.0/8"},
			}}
			if err := e.api.Create(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := e.api.Delete(context.WithoutCancel(t.Context()), p); err != nil {
					t.Error(err)
				}
			})
		}
		var dc v1alpha1.Datacenter
		if err := e.api.Get(t.Context(), client.ObjectKey{Name: "dc-b"}, &dc); err != nil {
			t.Fatal(err)
		}
		e.issue(t, &dc)
		out := e.mustExport(t, "--all")
		if !strings.Contains(out, "dc-b/pool.default.office: "+e.dir+"/dc-b/pool.default.office written") || strings.Count(out, "pool.") != 2 {
			t.Errorf("it says:\n%s", out)
		}
		if out := e.mustExport(t, "--datacenter", "dc-b", "--group", "pool.default.office"); !strings.HasPrefix(out, "dc-b/pool.default.office: ") {
			t.Errorf("alone it says:\n%s", out)
		}
	})
	t.Run("a second export changes nothing but what is old", func(t *testing.T) {
		key := filepath.Join(e.dir, "dc-a", "root", "tls.key")
		want, err := os.ReadFile(key)
		if err != nil {
			t.Fatal(err)
		}
		if out := e.mustExport(t, "--all"); strings.Count(out, " unchanged, valid until ") != 4 {
			t.Errorf("it says:\n%s", out)
		}
		if err := os.Chmod(key, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(e.dir, "dc-b", "root", "ca.crt"), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		if out := e.mustExport(t, "--all"); strings.Count(out, " unchanged, valid until ") != 2 || strings.Count(out, " written, valid until ") != 2 {
			t.Errorf("it says:\n%s", out)
		}
		info, err := os.Stat(key)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("a key that all could read stays so: %v (%v)", info, err)
		}
		if got, err := os.ReadFile(key); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the key has changed (%v)", err)
		}
	})
	t.Run("the files complete a handshake with the hub and with siblings", func(t *testing.T) {
		credentials := func(group string) control.Credentials {
			t.Helper()
			dir := filepath.Join(e.dir, group)
			files, err := control.NewFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			return files.Credentials()
		}
		hub, server := control.ServerTLS(e.hub.Credentials()), credentials("dc-a/root")

		caller, err := handshake(t, hub, control.HubTLS(server))
		if err != nil {
			t.Fatalf("server to hub: %v", err)
		}
		if caller.Version != tls.VersionTLS13 {
			t.Errorf("version %s", tls.VersionName(caller.Version))
		}
		group, err := control.CertifiedGroup(caller.VerifiedChains[0][0])
		if err != nil || group != (control.GroupKey{Datacenter: "dc-a", Group: "root"}) {
			t.Errorf("the hub takes the server for one of %s (%v)", group, err)
		}
		if _, err := handshake(t, control.ServerTLS(server), control.SiblingTLS(credentials("dc-a/root"))); err != nil {
			t.Errorf("server to sibling: %v", err)
		}
		if _, err := handshake(t, control.ServerTLS(credentials("dc-b/root")), control.SiblingTLS(server)); err == nil {
			t.Error("a server takes one of another datacenter for its sibling")
		}
		if _, err := handshake(t, control.ServerTLS(credentials("dc-b/root")), control.HubTLS(server)); err == nil {
			t.Error("a server takes another server for the hub")
		}
		nobody := control.HubTLS(server)
		nobody.GetClientCertificate = nil
		if _, err := handshake(t, hub, nobody); err == nil {
			t.Error("the hub lets in who has no certificate")
		}
		byName := &tls.Config{ServerName: "localhost", GetClientCertificate: control.HubTLS(server).GetClientCertificate}
		if byName.RootCAs, err = server.Roots(); err != nil {
			t.Fatal(err)
		}
		if _, err := handshake(t, hub, byName); err != nil {
			t.Errorf("a client that checks the name: %v", err)
		}
	})
	t.Run("a Secret that can't be used is not exported", func(t *testing.T) {
		dir := t.TempDir()
		key := client.ObjectKey{Namespace: controllers.DefaultNamespace, Name: "fingerpost-server.dc-a.root"}
		var s corev1.Secret
		if err := e.api.Get(t.Context(), key, &s); err != nil {
			t.Fatal(err)
		}
		s.Data["tls.key"] = []byte("oops")
		if err := e.api.Update(t.Context(), &s); err != nil {
			t.Fatal(err)
		}
		_, err := e.export(t, "--datacenter", "dc-a", "--group", "root", "--dir", dir, "--kubeconfig", e.kubeconfig)
		expectError(t, err, "secret fingerpost-system/fingerpost-server.dc-a.root can't be used: tls.crt and tls.key")
		if files, _ := os.ReadDir(dir); len(files) != 0 {
			t.Errorf("%d files were written", len(files))
		}
	})
	t.Run("an unreachable API server is named as such", func(t *testing.T) {
		listening, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := listening.Addr().String()
		listening.Close()
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://" + address + "'}}]\n" +
			"contexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n"
		if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = e.export(t, "--datacenter", "dc-a", "--group", "root", "--dir", e.dir, "--kubeconfig", kubeconfig)
		expectError(t, err, "connection refused")
	})
}

// estate is what the tests export from.
type estate struct {
	api        client.Client
	kubeconfig string
	dir        string
	issuer     controllers.CertificateIssuer
	hub        *controllers.HubCertificateSource
}

// export runs `manager certs export` and returns what it prints.
func (e *estate) export(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := certsCommand()
	cmd.SetArgs(append([]string{"export"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func (e *estate) mustExport(t *testing.T, args ...string) string {
	t.Helper()
	out, err := e.export(t, append(args, "--kubeconfig", e.kubeconfig, "--dir", e.dir)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// issue lets a leading manager do its work for the Datacenter, once.
func (e *estate) issue(t *testing.T, dc *v1alpha1.Datacenter) {
	t.Helper()
	e.hub = controllers.NewHubCertificateSource(e.api, e.issuer.Namespace)
	hub := &controllers.HubCertificateReconciler{CertificateIssuer: e.issuer, Source: e.hub, AuthorityChanged: func() {}}
	if _, err := hub.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Error(err)
	}
	servers := &controllers.CertificateReconciler{CertificateIssuer: e.issuer, Scheme: e.api.Scheme(), Pools: e.api}
	if _, err := servers.Reconcile(t.Context(), dc); err != nil {
		t.Error(err)
	}
}

func (e *estate) datacenter(t *testing.T, name string, groups ...string) *v1alpha1.Datacenter {
	t.Helper()
	dc := &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, g := range groups {
		dc.Spec.ServerGroups = append(dc.Spec.ServerGroups, v1alpha1.ServerGroup{Name: g, Management: v1alpha1.ServerGroupManaged})
	}
	if err := e.api.Create(t.Context(), dc); err != nil {
		t.Fatal(err)
	}
	return dc
}

// firstLook tells when the first Get has found nothing.
type firstLook struct {
	client.Reader
	looked chan struct{}
}

func (f *firstLook) Get(ctx context.Context, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
	err := f.Reader.Get(ctx, key, obj, opts...)
	if f.looked != nil && err != nil {
		close(f.looked)
		f.looked = nil
	}
	return err
}

// handshake lets client dial server and returns what the server then knows of the client. The error is that of either.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	listening, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	dialled := make(chan error, 1)
	go func() {
		conn, err := tls.Dial("tcp", listening.Addr().String(), client)
		if err == nil {
			_, err = io.ReadAll(conn) // the server's verdict comes after the client's handshake (RFC 8446 §2)
			conn.Close()
		}
		dialled <- err
	}()
	accepted, err := listening.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Server(accepted, server)
	err = conn.HandshakeContext(t.Context())
	state := conn.ConnectionState()
	if err == nil {
		err = conn.Close()
	} else {
		accepted.Close()
	}
	return state, errors.Join(err, <-dialled)
}

func TestCertificateFlags(t *testing.T) {
	flags := pflag.NewFlagSet("manager", pflag.ContinueOnError)
	o := certificateFlags(flags)
	if err := flags.Parse([]string{"--hub-name", "Hub.example.net", "--hub-name", "192.0.2.1", "--certificate-life", "48h", "--certificate-renew-at=50"}); err != nil {
		t.Fatal(err)
	}
	if len(o.HubNames) != 2 || o.HubNames[0].String() != "hub.example.net" || o.HubNames[1].String() != "192.0.2.1" {
		t.Errorf("hub names %v", o.HubNames)
	}
	if o.Policy.LeafLife != 48*time.Hour || o.Policy.RenewAt != 50 || o.Policy.CALife != pki.DefaultPolicy().CALife {
		t.Errorf("policy %+v", o.Policy)
	}
	expectError(t, flags.Parse([]string{"--hub-name", "hub.example.net:8443"}), "without port")
}

// expectError fails t unless err has the text want.
func expectError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, wanted one with %q", err, want)
	}
}
