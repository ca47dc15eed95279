//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	interrupted := ctx.Err() != nil
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	if interrupted {
		os.Exit(130) // as shells do
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0:
		return demo(ctx)
	case len(args) == 1 && args[0] == "up":
		return up(ctx)
	case len(args) == 1 && args[0] == "down":
		return down(ctx)
	case len(args) == 1 && args[0] == probeArgument:
		return probeNetwork()
	case len(args) == 2 && args[0] == insideArgument:
		return inside(ctx, args[1])
	}
	return errors.New("usage: demo [up | down]")
}

// demo tells the story.
func demo(ctx context.Context) error {
	s, err := prepare(ctx)
	if err != nil {
		return err
	}
	if s.Dir, err = os.MkdirTemp("", "fingerpost-demo-*"); err != nil {
		return err
	}
	_, err = s.runInside(ctx)
	return err
}

// up starts everything and returns when it runs by itself.
func up(ctx context.Context) error {
	dir, err := upDir()
	if err != nil {
		return err
	}
	if pid, err := lockHolder(dir); err != nil {
		return err
	} else if pid != 0 {
		return fmt.Errorf("it runs already, as process %d in %s (make demo-down stops it)", pid, dir)
	}
	s, err := prepare(ctx)
	if err != nil {
		return err
	}
	s.Dir, s.Stay = dir, true
	if err := os.RemoveAll(dir); err != nil { // of a run that was killed
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	stays, err := s.runInside(ctx)
	if stays && ctx.Err() != nil { // interrupted at the very end
		return down(context.WithoutCancel(ctx))
	}
	return err
}

// down stops what up has started, and removes its folder.
func down(ctx context.Context) error {
	dir, err := upDir()
	if err != nil {
		return err
	}
	pid, err := lockHolder(dir)
	if err != nil {
		return err
	}
	if pid == 0 {
		fmt.Println("nothing runs")
		return os.RemoveAll(dir)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping process %d: %w", pid, err)
	}
	if err := awaitUnlocked(ctx, dir); err != nil {
		return err
	}
	fmt.Println("stopped")
	return nil
}

// upDir returns the folder of `demo up`, one a user. It may not exist.
func upDir() (string, error) {
	cache, err := controlplane.CacheDir()
	return filepath.Join(cache, "demo"), err
}

// settings is what the outer process tells the inner one.
type settings struct {
	Dir          string // of the run; empty at the start
	Assets       string // folder with etcd, kube-apiserver and kubectl
	Bin          string // folder with manager and dnsserver
	Private      bool   // in a network namespace of its own
	Unprivileged bool   // the user is not root: there, in a user namespace too
	Stay         bool   // no story: stay when the zones are served
}

// prepare gets and builds what the demo runs, makes the root of the checkout the working directory, and finds out
// which network can be used. It tells stderr what may take long.
func prepare(ctx context.Context) (settings, error) {
	s := settings{Assets: os.Getenv("KUBEBUILDER_ASSETS"), Unprivileged: os.Getuid() != 0}
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return s, fmt.Errorf("finding the checkout: %w", err)
	}
	if err := os.Chdir(root); err != nil {
		return s, err
	}
	if _, err := exec.LookPath("dig"); err != nil {
		path, err := output(ctx, "hack/deps", "dig")
		if err != nil {
			return s, fmt.Errorf("getting dig: %w", err)
		}
		if err := os.Setenv("PATH", path); err != nil {
			return s, err
		}
	}
	if s.Assets == "" {
		if s.Assets, err = controlplane.Assets(ctx, os.Stderr); err != nil {
			return s, err
		}
	}
	s.Bin = filepath.Join(root, "bin")
	fmt.Fprintln(os.Stderr, "Building manager and dnsserver (a minute or two the first time)")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", s.Bin+"/", "./cmd/manager", "./cmd/dnsserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	build.Cancel = func() error { return build.Process.Signal(os.Interrupt) } // go passes it on to its compilers
	if err := build.Run(); err != nil {
		return s, fmt.Errorf("building manager and dnsserver: %w", err)
	}
	s.Private, err = chooseNetwork(ctx)
	return s, err
}

// output runs a command and returns what it prints, without space around. Its complaints go to stderr.
func output(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = io.Writer(&out), os.Stderr
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}
