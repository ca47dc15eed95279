package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Version is the release of Kubernetes that Assets provides: that of k8s.io/kubernetes in hack/k8s/go.mod.
const Version = "v1.37.1"

// CacheDir returns the folder, outside every checkout, for what tests and demo download or build: $FINGERPOST_CACHE,
// else fingerpost in the user's cache folder. It may not exist yet.
func CacheDir() (string, error) {
	if dir := os.Getenv("FINGERPOST_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a cache folder (FINGERPOST_CACHE names one): %w", err)
	}
	return filepath.Join(dir, "fingerpost"), nil
}

// Assets returns a folder that holds the named programs of Kubernetes (kube-apiserver, kubectl, kubelet, ...) and etcd; no
// names mean etcd, kube-apiserver and kubectl. What is missing there is downloaded as envtest's release where that can
// be reached and has no less than what is asked for, else built from hack/k8s, for which the working directory must be
// in a checkout; building takes minutes.
// A program appears in the folder complete or not at all, and callers at the same time wait for one another.
// What goes on is told to progress, a line at least every ten seconds.
func Assets(ctx context.Context, progress io.Writer, programs ...string) (string, error) {
	if len(programs) == 0 {
		programs = envtest
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	folder := programFolder{
		path: filepath.Join(cache, "k8s", fmt.Sprintf("%s-%s-%s", Version, runtime.GOOS, runtime.GOARCH)),
		sources: []source{{"building", func(ctx context.Context, into string, programs []string) error {
			return build(ctx, into, programs, progress)
		}}},
		progress: progress,
	}
	if !slices.ContainsFunc(programs, func(p string) bool { return !slices.Contains(envtest, p) }) {
		folder.sources = slices.Insert(folder.sources, 0, source{"downloading", func(ctx context.Context, into string, programs []string) error {
			return download(ctx, "", into, programs, progress)
		}})
	}
	if err := folder.ensure(ctx, programs); err != nil {
		return "", fmt.Errorf("getting Kubernetes %s: %w", Version, err)
	}
	return folder.path, nil
}

// envtest is what its releases hold.
var envtest = []string{"etcd", "kube-apiserver", "kubectl"}

// programFolder is a folder of executables that fills itself.
type programFolder struct {
	path     string
	sources  []source // in order of preference; never empty
	progress io.Writer
}

// source is one way to get programs. obtain leaves them all, as executables, in the empty folder into.
type source struct {
	name   string
	obtain func(ctx context.Context, into string, programs []string) error
}

// ensure returns when all programs are there.
func (f programFolder) ensure(ctx context.Context, programs []string) error {
	if len(f.missing(programs)) == 0 {
		return nil
	}
	if err := os.MkdirAll(f.path, 0o755); err != nil {
		return err
	}
	unlock, err := lock(ctx, f.path+".lock", f.progress)
	if err != nil {
		return err
	}
	defer unlock()
	missing := f.missing(programs)
	if len(missing) == 0 {
		return nil
	}
	for _, left := range f.partial() { // by a process that was killed: we have the lock
		if err := os.RemoveAll(left); err != nil {
			return err
		}
	}
	var failed []error
	for _, s := range f.sources {
		err := f.install(ctx, s, missing)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s: %w", s.name, err)
		if ctx.Err() != nil {
			return err
		}
		fmt.Fprintln(f.progress, err)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// missing returns those of the programs that are not there as executable files.
func (f programFolder) missing(programs []string) []string {
	var missing []string
	for _, name := range programs {
		if info, err := os.Stat(filepath.Join(f.path, name)); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}

// partial returns the folders of unfinished installations.
func (f programFolder) partial() []string {
	found, err := filepath.Glob(f.path + ".partial-*")
	if err != nil { // a bracket in the path of the cache: nothing is found, nothing is removed
		return nil
	}
	return found
}

func (f programFolder) install(ctx context.Context, s source, programs []string) error {
	partial, err := os.MkdirTemp(filepath.Dir(f.path), filepath.Base(f.path)+".partial-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(partial)
	if err := s.obtain(ctx, partial, programs); err != nil {
		return err
	}
	for _, name := range programs {
		if err := syncFile(filepath.Join(partial, name)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(partial, name), filepath.Join(f.path, name)); err != nil {
			return err
		}
	}
	return nil
}

// syncFile makes the content of a file durable, so that a rename does not survive a power cut that the content does not.
func syncFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}

// lock takes an exclusive lock on a file, which it makes if need be and which stays; it waits for other holders until
// ctx ends. The kernel gives the lock back if the process dies.
func lock(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644) // close-on-exec: children do not hold it
	if err != nil {
		return nil, err
	}
	retry := time.NewTicker(100 * time.Millisecond)
	defer retry.Stop()
	for told := false; ; {
		switch err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return func() { file.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			file.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		case !told:
			fmt.Fprintf(progress, "waiting for another process that holds %s\n", path)
			told = true
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, ctx.Err()
		case <-retry.C:
		}
	}
}

// build compiles programs from the module hack/k8s of this checkout.
func build(ctx context.Context, into string, programs []string, progress io.Writer) error {
	root, err := checkout()
	if err != nil {
		return err
	}
	const etcd = "go.etcd.io/etcd/server/v3" // go names its program "server"
	var packages []string
	for _, name := range programs {
		if name == "etcd" {
			packages = append(packages, etcd)
		} else {
			packages = append(packages, "k8s.io/kubernetes/cmd/"+name)
		}
	}
	module := filepath.Join(root, "hack", "k8s")
	what := fmt.Sprintf("building %s of Kubernetes %s", strings.Join(programs, ", "), Version)
	if err := compile(ctx, module, into, what, progress, packages...); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(into, "server")); err == nil {
		return os.Rename(filepath.Join(into, "server"), filepath.Join(into, "etcd"))
	}
	return nil
}

// compile builds main packages of a module into a folder, statically and reproducibly, with Version stamped into what is
// Kubernetes.
func compile(ctx context.Context, module, into, what string, progress io.Writer, packages ...string) error {
	env := append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-deps"}, packages...)...)
	list.Dir, list.Env = module, env
	deps, err := runWithProgress(list, what+": modules", 0, progress)
	if err != nil {
		return err
	}
	goBuild := exec.CommandContext(ctx, "go", append([]string{
		"build", "-v", "-trimpath", "-o", into + string(filepath.Separator),
		"-ldflags", "-X k8s.io/component-base/version.gitVersion=" + Version,
	}, packages...)...)
	goBuild.Dir, goBuild.Env = module, env
	_, err = runWithProgress(goBuild, what, strings.Count(deps, "\n"), progress)
	return err
}

// download gets programs as envtest's release of Version, or another patch of the same minor release if there is none
// yet. index overrides where the releases are listed; "" is setup-envtest's own.
func download(ctx context.Context, index, into string, programs []string, progress io.Writer) error {
	root, err := checkout()
	if err != nil {
		return err
	}
	if err := compile(ctx, filepath.Join(root, "hack", "tools"), into, "building setup-envtest", progress,
		"sigs.k8s.io/controller-runtime/tools/setup-envtest"); err != nil {
		return err
	}
	exact := strings.TrimPrefix(Version, "v")
	minor := exact[:strings.LastIndex(exact, ".")] + ".x"
	setupEnvtest := func(ctx context.Context, limit time.Duration, args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		args = append(args, "--bin-dir", filepath.Join(into, "envtest"))
		if index != "" {
			args = append(args, "--index", index)
		}
		out, err := runWithProgress(exec.CommandContext(ctx, filepath.Join(into, "setup-envtest"), args...),
			"downloading Kubernetes "+minor, 0, progress)
		if cause := ctx.Err(); cause != nil {
			return "", fmt.Errorf("after %v: %w", limit, cause)
		}
		return out, err
	}
	available, err := setupEnvtest(ctx, 10*time.Second, "list", minor)
	if err != nil {
		return err
	}
	want := minor
	if strings.Contains(available, Version+" ") {
		want = exact
	}
	dir, err := setupEnvtest(ctx, 5*time.Minute, "use", "--print", "path", want)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // setup-envtest makes it read-only
		return err
	}
	for _, name := range programs {
		err := os.Rename(filepath.Join(dir, name), filepath.Join(into, name))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("envtest's release has no %s", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkout returns the root of the checkout that holds the working directory.
func checkout() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.Contains(string(content), "module github.com/fingerpost-dns/fingerpost\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not in a checkout of Fingerpost, where the build is described", start)
		}
	}
}
