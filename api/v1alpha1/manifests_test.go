package v1alpha1_test

import (
	"bytes"
	"context"

	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// manifest is a file of testdata: its comment at the top, and its objects. Bad ones have the comments
//
//	# why it is refused, in a sentence
//	# want: FIELD: MESSAGE
//
// with one want line for each error. The last object is the bad one; those before it are fine.
type manifest struct {
	want    []string
	objects []*unstructured.Unstructured
}

func readManifest(t *testing.T, file string) manifest {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			break
		}
		if want, ok := strings.CutPrefix(line, "# want: "); ok {
			m.want = append(m.want, strings.TrimSpace(want))
		}
	}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		switch err := documents.Decode(o); {
		case errors.Is(err, io.EOF):
			return m
		case err != nil:
			t.Fatalf("%s: %v", file, err)
		case len(o.Object) > 0:
			m.objects = append(m.objects, o)
		}
	}
}

// manifests returns the files of a folder of testdata by name.
func manifests(t *testing.T, folder string) map[string]manifest {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests in testdata/%s (%v)", folder, err)
	}
	all := make(map[string]manifest)
	for _, file := range files {
		all[strings.TrimSuffix(filepath.Base(file), ".yaml")] = readManifest(t, file)
	}
	return all
}

// apply creates the object, or updates it if it exists. Objects of namespaced kinds go to the namespace given.
func apply(ctx context.Context, c client.Client, o *unstructured.Unstructured, namespace string) error {
	if namespaced, err := c.IsObjectNamespaced(o); err != nil {
		return err
	} else if namespaced {
		o.SetNamespace(namespace)
	}
	err := c.Create(ctx, o)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	old := &unstructured.Unstructured{}
	old.SetGroupVersionKind(o.GroupVersionKind())
	if err := c.Get(ctx, client.ObjectKeyFromObject(o), old); err != nil {
		return err
	}
	o.SetResourceVersion(old.GetResourceVersion())
	return c.Update(ctx, o)
}

// remove deletes the object after the test. Cluster-scoped objects of one test must not meet those of another.
func remove(t *testing.T, c client.Client, o client.Object) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), o); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// complaints returns the single errors in an answer of the API server.
func complaints(err error) []string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return []string{err.Error()}
	}
	if d := status.Status().Details; d != nil && len(d.Causes) > 0 {
		all := make([]string, 0, len(d.Causes))
		for _, c := range d.Causes {
			all = append(all, c.Field+": "+c.Message)
		}
		return all
	}
	return []string{status.Status().Message}
}

// skipped is what the API server adds to errors that keep it from evaluating CEL.
const skipped = "some validation rules were not checked because the object was invalid"

// says reports whether an error is the wanted one, written FIELD: MESSAGE. The API server puts the value between them.
func says(got, want string) bool {
	field, message, _ := strings.Cut(want, ": ")
	return strings.Contains(got, field+": ") && strings.Contains(got, message)
}

// TestBadManifestsAreRefusedWithTheReason also holds that the reason does not drown in others: every error is an expected one.
func TestBadManifestsAreRefusedWithTheReason(t *testing.T) {
	c := apiServer(t)
	for name, m := range manifests(t, "bad") {
		t.Run(name, func(t *testing.T) {
			if len(m.want) == 0 || len(m.objects) == 0 {
				t.Fatal("the file needs a line `# want: ERROR` at the top, and an object")
			}
			ns := namespace(t)
			last := len(m.objects) - 1
			for _, o := range m.objects[:last] {
				if err := apply(t.Context(), c, o, ns); err != nil {
					t.Fatalf("%s %s is fine and was refused: %v", o.GetKind(), o.GetName(), err)
				}
				remove(t, c, o)
			}
			err := apply(t.Context(), c, m.objects[last], ns)
			if err == nil {
				remove(t, c, m.objects[last])
				t.Fatalf("admitted; want %q", m.want)
			}
			got := complaints(err)
			for _, want := range m.want {
				if !slices.ContainsFunc(got, func(g string) bool { return says(g, want) }) {
					t.Errorf("no error contains\n%s\nerrors:\n%s", want, strings.Join(got, "\n"))
				}
			}
			for _, g := range got {
				if !strings.Contains(g, skipped) && !slices.ContainsFunc(m.want, func(want string) bool { return says(g, want) }) {
					t.Errorf("unexpected error besides: %s", g)
				}
			}
		})
	}
}

// TestGoodManifestsAreKeptAsWritten holds for testdata/good, for config/samples, and for both ways to read an object: nothing that a user
// wrote is dropped or rewritten on the way through the API server and the Go types, and a program that reads an object
// and writes it back changes nothing.
func TestGoodManifestsAreKeptAsWritten(t *testing.T) {
	c := apiServer(t)
	for name, m := range manifests(t, "good") {
		t.Run(name, func(t *testing.T) { keptAsWritten(t, c, m, namespace(t)) })
	}
}

func keptAsWritten(t *testing.T, c client.Client, m manifest, ns string) {
	t.Helper()
	for _, o := range m.objects {
		written := o.DeepCopy()
		if err := apply(t.Context(), c, o, ns); err != nil {
			t.Fatalf("%s %s was refused: %v", o.GetKind(), o.GetName(), err)
		}
		remove(t, c, o)

		typed, err := c.Scheme().New(o.GroupVersionKind())
		if err != nil {
			t.Fatal(err)
		}
		kept, ok := typed.(client.Object)
		if !ok {
			t.Fatalf("%T is not an object", typed)
		}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), kept); err != nil {
			t.Fatal(err)
		}
		if lost := missing("", written.Object["spec"], asMap(t, kept)["spec"]); len(lost) > 0 {
			t.Errorf("%s %s: not as written: %s", o.GetKind(), o.GetName(), strings.Join(lost, "; "))
		}
		generation, before := kept.GetGeneration(), asMap(t, kept)["spec"]
		if err := c.Update(t.Context(), kept); err != nil {
			t.Fatalf("writing %s %s back: %v", o.GetKind(), o.GetName(), err)
		}
		if diff := cmp.Diff(before, asMap(t, kept)["spec"]); diff != "" || kept.GetGeneration() != generation {
			t.Errorf("%s %s: reading and writing back makes generation %d of %d:\n%s", o.GetKind(), o.GetName(), kept.GetGeneration(), generation, diff)
		}
	}
}

// object returns the object in a JSON text.
func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return o
}

func asMap(t *testing.T, o runtime.Object) map[string]any {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// missing returns the paths of values in want that got does not have; got may have more fields, but no other lists.
func missing(path string, want, got any) []string {
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok && len(want) > 0 {
			return []string{path + " is lost"}
		}
		var lost []string
		for k, v := range want {
			lost = append(lost, missing(path+"."+k, v, g[k])...)
		}
		return lost
	case []any:
		g, _ := got.([]any)
		if len(g) != len(want) {
			return []string{fmt.Sprintf("%s has %d entries of %d", path, len(g), len(want))}
		}
		var lost []string
		for i := range want {
			lost = append(lost, missing(fmt.Sprintf("%s[%d]", path, i), want[i], g[i])...)
		}
		return lost
	default:
		if fmt.Sprint(want) != fmt.Sprint(got) {
			return []string{fmt.Sprintf("%s is %v, was written as %v", path, got, want)}
		}
		return nil
	}
}

// TestSamples applies config/samples in the order of the files, as the demo and the first-time user do.
func TestSamples(t *testing.T) {
	c := apiServer(t)
	files, err := filepath.Glob("../../config/samples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples (%v)", err)
	}
	managed, err := filepath.Glob("../../config/samples/managed/*.yaml") // instead of some of the others
	if err != nil || len(managed) == 0 {
		t.Fatalf("no samples of servers that the operator runs (%v)", err)
	}
	kinds := map[string]bool{}
	for _, file := range append(files, managed...) {
		m := readManifest(t, file)
		for _, o := range m.objects {
			kinds[o.GetKind()] = true
			if o.GetKind() == "Namespace" {
				ns := &corev1.Namespace{}
				ns.Name = o.GetName()
				if err := c.Create(t.Context(), ns); err != nil {
					t.Fatal(err)
				}
				continue
			}
			keptAsWritten(t, c, manifest{objects: []*unstructured.Unstructured{o}}, o.GetNamespace())
		}
	}
	for kind := range crds(t) {
		if !kinds[kind] {
			t.Errorf("config/samples has no %s", kind)
		}
	}
}
