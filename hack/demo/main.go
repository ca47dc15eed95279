//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
	"github.com/fingerpost-dns/fingerpost/hack/estate"
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
	case len(args) == 1 && args[0] == estate.ProbeArgument:
		return estate.Probe()
	case len(args) == 2 && args[0] == backendArgument:
		return serveBackend(ctx, args[1])
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
	estate.Programs
	Dir          string `json:"dir"`          // of the run; empty at the start
	Private      bool   `json:"private"`      // in a network namespace of its own
	Unprivileged bool   `json:"unprivileged"` // the user is not root: there, in a user namespace too
	Stay         bool   `json:"stay"`         // no story: stay when the zones are served
}

// prepare gets and builds what the demo runs, makes the root of the checkout the working directory, and finds out
// which network can be used. It tells stderr what may take long.
func prepare(ctx context.Context) (s settings, err error) {
	s.Unprivileged = os.Getuid() != 0
	if s.Programs, err = estate.Prepare(ctx, "dig", "unbound", "unbound-checkconf", "kresd"); err != nil {
		return s, err
	}
	wanted, err := estate.Addresses()
	if err != nil {
		return s, err
	}
	for _, addresses := range backendAddresses {
		for _, a := range addresses {
			wanted = append(wanted, netip.AddrPortFrom(a, backendPort))
		}
	}
	for _, addresses := range resolverAddresses {
		for _, a := range addresses {
			wanted = append(wanted, netip.AddrPortFrom(a, estate.DNSPort), netip.AddrPortFrom(a, resolverPort))
		}
	}
	s.Private, err = estate.ChooseNetwork(ctx, wanted)
	return s, err
}
