//go:build linux

package estate

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

// Programs are folders with what an estate runs.
type Programs struct {
	Assets string `json:"assets"` // etcd, kube-apiserver and kubectl
	Bin    string `json:"bin"`    // manager, dnsserver and resolver-agent
}

// Prepare gets and builds programs, makes the root of the checkout the working directory, and puts into PATH the DNS tools
// and peers that are asked for (see hack/deps). It tells stderr what may take long.
func Prepare(ctx context.Context, tools ...string) (p Programs, err error) {
	if p, err = prepare(ctx, tools, "manager", "dnsserver", "resolver-agent"); err != nil {
		return p, err
	}
	if p.Assets = os.Getenv("KUBEBUILDER_ASSETS"); p.Assets == "" {
		p.Assets, err = controlplane.Assets(ctx, os.Stderr)
	}
	return p, err
}

// PrepareServer is Prepare for those who need dnsserver alone: there are no Assets and no other programs.
func PrepareServer(ctx context.Context, tools ...string) (Programs, error) {
	return prepare(ctx, tools, "dnsserver")
}

func prepare(ctx context.Context, tools []string, programs ...string) (p Programs, err error) {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return p, fmt.Errorf("finding the checkout: %w", err)
	}
	if err := os.Chdir(root); err != nil {
		return p, err
	}
	if len(tools) > 0 {
		path, err := output(ctx, "hack/deps", tools...)
		if err != nil {
			return p, fmt.Errorf("getting %s: %w", strings.Join(tools, ", "), err)
		}
		if err := os.Setenv("PATH", path); err != nil {
			return p, err
		}
	}
	p.Bin = filepath.Join(root, "bin")
	what := strings.Join(programs, ", ")
	fmt.Fprintf(os.Stderr, "Building %s (a minute or two the first time)\n", what)
	args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", p.Bin + "/"}
	for _, program := range programs {
		args = append(args, "./cmd/"+program)
	}
	build := exec.CommandContext(ctx, "go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	build.Cancel = func() error { return build.Process.Signal(os.Interrupt) } // go passes it on to its compilers
	if err := build.Run(); err != nil {
		return p, fmt.Errorf("building %s: %w", what, err)
	}
	return p, nil
}

// output runs a command and returns what it prints, without space around. Its complaints go to stderr.
func output(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}
