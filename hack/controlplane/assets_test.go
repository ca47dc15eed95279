package controlplane

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestVersionIsTheOneThatIsBuilt(t *testing.T) {
	content, err := os.ReadFile("../k8s/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "k8s.io/kubernetes " + Version + " "; !strings.Contains(string(content), want) {
		t.Errorf("hack/k8s/go.mod does not require %s", want)
	}
}

// writes returns a source that makes files of the programs' names.
func writes(calls *atomic.Int32) source {
	return source{"writing", func(_ context.Context, into string, programs []string) error {
		calls.Add(1)
		for _, name := range programs {
			if err := os.WriteFile(filepath.Join(into, name), []byte("#!/bin/true\n"), 0o755); err != nil {
				return err
			}
		}
		return nil
	}}
}

func fails(text string) source {
	return source{"failing", func(_ context.Context, into string, programs []string) error {
		if err := os.WriteFile(filepath.Join(into, programs[0]), []byte("half"), 0o755); err != nil {
			return err
		}
		return errors.New(text)
	}}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range found {
		names = append(names, f.Name())
	}
	return names
}

func TestCallersAtTheSameTimeInstallOnce(t *testing.T) {
	var calls atomic.Int32
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f := programFolder{path: filepath.Join(dir, "v1"), sources: []source{writes(&calls)}, progress: io.Discard}
			if err := f.ensure(t.Context(), []string{"etcd", "kubectl"}); err != nil {
				t.Error(err)
			}
			if missing := f.missing([]string{"etcd", "kubectl"}); len(missing) != 0 {
				t.Errorf("%v missing after ensure", missing)
			}
		})
	}
	wg.Wait()
	if calls.Load() != 1 {
		t.Errorf("installed %d times, want once", calls.Load())
	}
	if got, want := entries(t, dir), []string{"v1", "v1.lock"}; !slices.Equal(got, want) {
		t.Errorf("cache has %v, want %v", got, want)
	}
}

func TestTheNextSourceIsTriedWhenOneFails(t *testing.T) {
	var calls atomic.Int32
	var progress bytes.Buffer
	f := programFolder{path: filepath.Join(t.TempDir(), "v1"), sources: []source{fails("no network"), writes(&calls)}, progress: &progress}
	if err := f.ensure(t.Context(), []string{"etcd"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(progress.String(), "failing: no network") {
		t.Errorf("progress %q does not say why the first source was left", progress.String())
	}
	content, err := os.ReadFile(filepath.Join(f.path, "etcd"))
	if err != nil || string(content) == "half" {
		t.Errorf("etcd is %q, %v: what a failed source left was installed", content, err)
	}
}

func TestAFailedInstallationLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f := programFolder{path: filepath.Join(dir, "v1"), sources: []source{fails("no network"), fails("no compiler")}, progress: io.Discard}
	err := f.ensure(t.Context(), []string{"etcd"})
	if err == nil || !strings.Contains(err.Error(), "no network") || !strings.Contains(err.Error(), "no compiler") {
		t.Errorf("error %v does not say why each source failed", err)
	}
	if got := entries(t, filepath.Join(dir, "v1")); len(got) != 0 {
		t.Errorf("installed in spite of the error: %v", got)
	}
	if got, want := entries(t, dir), []string{"v1", "v1.lock"}; !slices.Equal(got, want) {
		t.Errorf("cache has %v, want %v", got, want)
	}
}

func TestWhatAKilledInstallationLeftIsRemoved(t *testing.T) {
	var calls atomic.Int32
	dir := t.TempDir()
	left := filepath.Join(dir, "v1.partial-123")
	if err := os.Mkdir(left, 0o755); err != nil {
		t.Fatal(err)
	}
	f := programFolder{path: filepath.Join(dir, "v1"), sources: []source{writes(&calls)}, progress: io.Discard}
	if err := f.ensure(t.Context(), []string{"etcd"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("the leftover is still there")
	}
}

func TestOnlyMissingProgramsAreObtained(t *testing.T) {
	var asked []string
	spy := source{"spying", func(_ context.Context, into string, programs []string) error {
		asked = programs
		return os.WriteFile(filepath.Join(into, programs[0]), nil, 0o755)
	}}
	f := programFolder{path: t.TempDir(), sources: []source{spy}, progress: io.Discard}
	if err := os.WriteFile(filepath.Join(f.path, "etcd"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := f.ensure(t.Context(), []string{"etcd", "kubelet"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"kubelet"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
}

func TestALockHolderIsWaitedForUntilTheContextEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var progress bytes.Buffer
	if _, err := lock(ctx, path, &progress); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a held lock was taken: %v", err)
	}
	if !strings.Contains(progress.String(), "waiting for another process") {
		t.Errorf("progress %q does not say what is waited for", progress.String())
	}
	unlock()
	unlock, err = lock(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestCompileMakesStaticProgramsOfAModule(t *testing.T) {
	module, into := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{
		"go.mod":        "module example.org/m\n\ngo 1.26\n",
		"hello/main.go": "package main\n\nfunc main() { println(\"hello\") }\n",
		"bad/main.go":   "package main\n\nfunc main() { undefined() }\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(module, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := compile(t.Context(), module, into, "building", io.Discard, "example.org/m/hello"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(into, "hello")).CombinedOutput(); err != nil || string(out) != "hello\n" {
		t.Errorf("hello says %q, %v", out, err)
	}
	if err := compile(t.Context(), module, into, "building", io.Discard, "example.org/m/bad"); err == nil || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("error %v is not the compiler's", err)
	}
}

func TestProgressCountsWhatTheGoToolNames(t *testing.T) {
	o := &goOutput{}
	for _, piece := range []string{"go: downloading example.org/a v1", ".0.0\nfmt\n", "example.org/a\n# example.org/b\nb.go:1:1: undefined: x"} {
		if _, err := o.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := o.far(7), "2 of 7 packages, 1 modules downloaded, "; got != want {
		t.Errorf("far: %q, want %q", got, want)
	}
	if err := o.complaints(); err == nil || !strings.Contains(err.Error(), "# example.org/b\nb.go:1:1: undefined: x") {
		t.Errorf("complaints: %v", err)
	}
}

func TestACommandIsInterruptedWhenTheContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "sleep", "1000")
	stopped := make(chan error, 1)
	go func() {
		_, err := runWithProgress(cmd, "sleeping", 0, io.Discard)
		stopped <- err
	}()
	cancel()
	if err := <-stopped; err == nil {
		t.Error("a command that was interrupted has no error")
	}
}

// release serves an index of envtest releases with one of the given version, which has the given programs.
func release(t *testing.T, version string, programs ...string) (index string) {
	t.Helper()
	var archive bytes.Buffer
	zipped := gzip.NewWriter(&archive)
	files := tar.NewWriter(zipped)
	for _, name := range programs {
		content := "#!/bin/sh\necho " + name + " " + version + "\n"
		err := files.WriteHeader(&tar.Header{Name: "controller-tools/envtest/" + name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(files, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(files.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	name := fmt.Sprintf("envtest-%s-%s-%s.tar.gz", version, runtime.GOOS, runtime.GOARCH)
	mux.HandleFunc("/index.yaml", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "releases:\n  %s:\n    %s:\n      hash: %x\n      selfLink: %s/archive\n", version, name, sha512.Sum512(archive.Bytes()), server.URL)
	})
	mux.HandleFunc("/archive", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(archive.Bytes()) // a client that is gone has its own error
	})
	return server.URL + "/index.yaml"
}

func TestDownloadTakesTheReleaseOrAnotherPatchOfIt(t *testing.T) {
	for name, version := range map[string]string{
		"the very release":                         Version,
		"another patch where the release is later": Version[:strings.LastIndex(Version, ".")] + ".0",
	} {
		t.Run(name, func(t *testing.T) {
			into := t.TempDir()
			if err := download(t.Context(), release(t, version, "etcd", "kubectl"), into, []string{"etcd", "kubectl"}, io.Discard); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(filepath.Join(into, "kubectl")).Output()
			if want := "kubectl " + version + "\n"; err != nil || string(out) != want {
				t.Errorf("kubectl says %q, %v, want %q", out, err, want)
			}
		})
	}
}

func TestDownloadFailsWhereThereIsNoRelease(t *testing.T) {
	for name, index := range map[string]string{
		"of that minor version":     release(t, "v1.2.3", "etcd"),
		"with that program":         release(t, Version, "kubectl"),
		"because nothing is served": "http://127.0.0.1:1/index.yaml",
	} {
		t.Run(name, func(t *testing.T) {
			if err := download(t.Context(), index, t.TempDir(), []string{"etcd"}, io.Discard); err == nil {
				t.Error("no error")
			}
		})
	}
}
