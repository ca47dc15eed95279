package v1alpha1_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// cluster is an API server with the CRDs of config/crd/bases, shared by the tests of this package and started by the first
// that asks for it.
var cluster struct {
	once       sync.Once
	err        error
	env        *envtest.Environment
	client     client.Client // refuses unknown fields
	kubeconfig string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if cluster.env != nil {
		if err := cluster.env.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the control plane:", err)
			code = 1
		}
		if err := os.RemoveAll(filepath.Dir(cluster.kubeconfig)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// apiServer returns a client of the shared API server.
func apiServer(t *testing.T) client.Client {
	t.Helper()
	cluster.once.Do(func() { cluster.err = startCluster() })
	if cluster.err != nil {
		t.Fatal(cluster.err)
	}
	return cluster.client
}

func startCluster() error {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return fmt.Errorf("KUBEBUILDER_ASSETS is not set: run the tests by `make test`, which gets etcd, kube-apiserver and kubectl")
	}
	folder, err := os.MkdirTemp("", "fingerpost-api-*")
	if err != nil {
		return err
	}
	cluster.kubeconfig = filepath.Join(folder, "kubeconfig")
	env := &envtest.Environment{CRDDirectoryPaths: []string{crdFolder}, ErrorIfCRDPathMissing: true}
	cluster.env = env
	config, err := env.Start()
	if err != nil {
		return fmt.Errorf("starting the control plane: %w", err)
	}
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	cluster.client = client.WithFieldValidation(c, metav1.FieldValidationStrict)
	user, err := env.AddUser(envtest.User{Name: "tester", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return err
	}
	text, err := user.KubeConfig()
	if err != nil {
		return err
	}
	return os.WriteFile(cluster.kubeconfig, text, 0o600)
}

// kubectl runs the real kubectl against the shared API server and returns what it prints.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	apiServer(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.kubeconfig, "HOME="+filepath.Dir(cluster.kubeconfig))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// namespace makes a namespace that no other test uses.
func namespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := apiServer(t).Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}
