package controllers_test

import (
	"context"
	"fmt"
	"os"
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
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

// cluster is an API server with the CRDs of config/crd/bases, shared by the tests of this package and started by the first
// that asks for it.
var cluster struct {
	once   sync.Once
	err    error
	plane  *controlplane.ControlPlane
	client client.WithWatch // the administrator's
}

func TestMain(m *testing.M) {
	code := m.Run()
	if cluster.plane != nil {
		if err := cluster.plane.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the control plane:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// apiServer returns an administrator's client of the shared API server.
func apiServer(t *testing.T) client.WithWatch {
	t.Helper()
	cluster.once.Do(func() { cluster.err = startCluster(t.Context()) })
	if cluster.err != nil {
		t.Fatal(cluster.err)
	}
	return cluster.client
}

func startCluster(ctx context.Context) (err error) {
	if cluster.plane, err = controlplane.Start(ctx, controlplane.Options{}); err == nil {
		cluster.client, err = equip(cluster.plane)
	}
	return err
}

// equip installs the CRDs and returns an administrator's client.
func equip(plane *controlplane.ControlPlane) (client.WithWatch, error) {
	crds := envtest.CRDInstallOptions{Paths: []string{"../config/crd/bases"}, ErrorIfPathMissing: true}
	if _, err := envtest.InstallCRDs(plane.Config(), crds); err != nil {
		return nil, fmt.Errorf("installing CRDs: %w", err)
	}
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return client.NewWithWatch(plane.Config(), client.Options{Scheme: scheme})
}

// newNamespace makes a namespace that no other test uses.
func newNamespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := apiServer(t).Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}
