// Package charts_test checks the chart with Helm 3 and Helm 4: that it lints, that wrong values are refused, what it
// renders, its life in a real API server, and that the rights which it gives are all that the manager needs.
package charts_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

const (
	chart     = "fingerpost"
	namespace = "fingerpost-system"
)

// helms are the programs of both versions of Helm.
var helms = []string{"helm3", "helm4"}

var chartTools = sync.OnceValues(func() (string, error) { return controlplane.ChartTools(context.Background(), os.Stderr) })

// bin is the folder of programs; it goes at the end.
var bin string

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	var err error
	if bin, err = os.MkdirTemp("", "fingerpost-charts-*"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(bin)
	os.Exit(code)
}

var built = sync.OnceValue(func() error {
	out, err := exec.Command("go", "build", "-o", bin+"/", "../cmd/manager", "../cmd/dnsserver").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building manager and dnsserver: %w\n%s", err, out)
	}
	return nil
})

// program returns the path of a program of this checkout: manager or dnsserver.
func program(t *testing.T, name string) string {
	t.Helper()
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(bin, name)
}

// tool runs one of the chart's tools and returns what it writes to stdout; the error has what it writes to stderr. It knows
// nothing of the user's own configuration.
func tool(t *testing.T, kubeconfig, name string, args ...string) (string, error) {
	t.Helper()
	dir, err := chartTools()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, name), args...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "KUBECONFIG=" + kubeconfig, "NO_COLOR=1"}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// mustTool is tool without a cluster, which must succeed.
func mustTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tool(t, os.DevNull, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// valuesFiles returns the files of values that the chart must render with; the first, "", is none.
func valuesFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("files of values: %v %v", files, err)
	}
	return append([]string{""}, files...)
}

// template returns what a version of Helm makes of a chart.
func template(t *testing.T, helm, chart string, args ...string) string {
	t.Helper()
	version := "--kube-version=" + controlplane.Version // Helm 3 takes 1.20 for granted if its build does not say better
	return mustTool(t, helm, append([]string{"template", "fingerpost", chart, "--namespace", namespace, version}, args...)...)
}

// render returns the objects that a version of Helm makes of the chart.
func render(t *testing.T, helm string, args ...string) []*unstructured.Unstructured {
	t.Helper()
	return parse(t, template(t, helm, chart, args...))
}

// parse reads YAML documents.
func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var objects []*unstructured.Unstructured
	for doc := range strings.SplitSeq("\n"+text, "\n---") {
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(doc), &o.Object); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
	return objects
}

// startCluster returns a real API server without a controller manager or nodes: Deployments get no pods.
func startCluster(t *testing.T) (*controlplane.ControlPlane, client.WithWatch) {
	t.Helper()
	plane, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	utilruntime.Must(apiextensionsv1.AddToScheme(scheme))
	api, err := client.NewWithWatch(plane.Config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return plane, api
}
