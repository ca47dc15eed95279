package controlplane

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// CoreDNS returns the path of CoreDNS with the plugins of hack/bench/coredns, which is built once and kept in the cache folder. The
// working directory must be in a checkout. What goes on is told to progress.
func CoreDNS(ctx context.Context, progress io.Writer) (string, error) {
	root, err := checkout()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	module, sources := filepath.Join(root, "hack", "bench", "coredns"), sha256.New()
	fmt.Fprintln(sources, runtime.Version(), runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		sources.Write(text)
	}
	folder := programFolder{
		path: filepath.Join(cache, "coredns", fmt.Sprintf("%x", sources.Sum(nil)[:6])),
		sources: []source{{"building", func(ctx context.Context, into string, _ []string) error {
			return compile(ctx, module, into, "building CoreDNS", progress, ".")
		}}},
		progress: progress,
	}
	const program = "coredns"
	if err := folder.ensure(ctx, []string{program}); err != nil {
		return "", fmt.Errorf("getting CoreDNS: %w", err)
	}
	return filepath.Join(folder.path, program), nil
}
