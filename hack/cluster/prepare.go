//go:build linux

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/images"
)

// Programs are what machines run. All folders are absolute.
type Programs struct {
	Cache  string `json:"cache"`  // what was built and unpacked
	Assets string `json:"assets"` // Kubernetes and etcd
	Path   string `json:"path"`   // PATH with containerd, ctr, runc, the CNI plugins, nft and ip
}

// Images that every cluster needs, by the names that nodes know them by.
const (
	pauseImage   = "fingerpost.local/pause:dev"
	coreDNSImage = "fingerpost.local/coredns:dev"
)

// Prepare gets and builds what Up needs, and packs what every cluster needs as images. It returns the programs, and
// the images' archives in the folder into. The working directory is in the checkout. It tells progress what may take long.
func Prepare(ctx context.Context, into string, progress io.Writer) (p Programs, archives []string, err error) {
	if os.Getuid() != 0 {
		return p, nil, errors.New("a cluster needs root: it makes namespaces, mounts, control groups and network devices. Run it as root")
	}
	root, err := output(ctx, progress, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return p, nil, fmt.Errorf("finding the checkout: %w", err)
	}
	if p.Cache, err = controlplane.CacheDir(); err != nil {
		return p, nil, err
	}
	tools := exec.CommandContext(ctx, filepath.Join(root, "hack", "deps"), "containerd", "ctr", "runc", "host-local", "nft", "ip", "dig")
	if p.Path, err = run(tools, progress); err != nil {
		return p, nil, fmt.Errorf("getting containerd and its like: %w", err)
	}
	if err := os.Setenv("PATH", p.Path); err != nil {
		return p, nil, err
	}
	if _, err := controlplane.Assets(ctx, progress); err != nil { // these may be had by downloading
		return p, nil, err
	}
	if p.Assets, err = controlplane.Assets(ctx, progress, "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"); err != nil {
		return p, nil, err
	}
	coreDNS, err := controlplane.CoreDNS(ctx, progress)
	if err != nil {
		return p, nil, fmt.Errorf("building CoreDNS: %w", err)
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		return p, nil, err
	}
	pause := filepath.Join(into, "pause")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", pause, "./hack/cluster/pause")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if _, err := run(build, progress); err != nil {
		return p, nil, fmt.Errorf("building pause: %w", err)
	}
	for name, program := range map[string]string{pauseImage: pause, coreDNSImage: coreDNS} {
		archive, err := Pack(into, name, program)
		if err != nil {
			return p, nil, err
		}
		archives = append(archives, archive)
	}
	return p, archives, nil
}

// Pack makes an image of one static program of this computer, which is its entry point, and writes it into a folder. It returns
// the path of the archive.
func Pack(into, name, program string) (string, error) {
	base := filepath.Base(program)
	archive := filepath.Join(into, base+".tar")
	_, err := images.WriteFile(images.Image{
		Name: name, Created: time.Unix(0, 0).UTC(),
		Config:    ocispec.ImageConfig{Entrypoint: []string{"/" + base}, User: "65532:65532", WorkingDir: "/"},
		Platforms: []images.Platform{{Architecture: runtime.GOARCH, Files: []images.File{{Name: base, Path: program, Mode: 0o755}}}},
	}, archive)
	if err != nil {
		return "", fmt.Errorf("packing %s: %w", name, err)
	}
	return archive, nil
}

func output(ctx context.Context, complaints io.Writer, name string, args ...string) (string, error) {
	return run(exec.CommandContext(ctx, name, args...), complaints)
}

// run runs a command and returns what it prints, without space around.
func run(cmd *exec.Cmd, complaints io.Writer) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, complaints
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}
