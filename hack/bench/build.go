//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

// buildCoreDNS returns the path of CoreDNS, which is built once and kept outside of the checkout. The working directory is
// the root of the checkout.
func buildCoreDNS(ctx context.Context) (string, error) {
	const module = "hack/bench/coredns"
	sources := sha256.New()
	fmt.Fprintln(sources, runtime.Version(), runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		sources.Write(text)
	}
	cache, err := controlplane.CacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "coredns", fmt.Sprintf("%x", sources.Sum(nil)[:6]), "coredns")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	fmt.Fprintln(os.Stderr, "Building CoreDNS (half a minute or two the first time)")
	partial := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(partial)
	build := exec.CommandContext(ctx, "go", "-C", module, "build", "-trimpath", "-ldflags", "-s -w", "-o", partial)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Cancel = func() error { return build.Process.Signal(os.Interrupt) }
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, bytes.TrimSpace(out))
	}
	return path, os.Rename(partial, path)
}

// buildEcho compiles the echo in C into a folder. Without a C compiler the error is errNoCompiler.
func buildEcho(ctx context.Context, dir string) (string, error) {
	compiler, err := exec.LookPath("cc")
	if err != nil {
		if compiler, err = exec.LookPath("gcc"); err != nil {
			return "", errNoCompiler
		}
	}
	path := filepath.Join(dir, "echo")
	out, err := exec.CommandContext(ctx, compiler, "-O2", "-o", path, "hack/bench/echo/echo.c").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("compiling the echo: %w\n%s", err, out)
	}
	return path, nil
}

var errNoCompiler = errors.New("this machine has no C compiler (cc): the echo is the one in Go")
