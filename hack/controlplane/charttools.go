package controlplane

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
)

// chartTools are the programs of ChartTools and the packages of hack/helm that they are built from.
var chartTools = map[string]string{
	"helm3":         "helm.sh/helm/v3/cmd/helm",
	"helm4":         "helm.sh/helm/v4/cmd/helm",
	"helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
	"helm-docs":     "github.com/norwoodj/helm-docs/cmd/helm-docs",
	"kubeconform":   "github.com/yannh/kubeconform/cmd/kubeconform",
}

// ChartTools returns a folder that holds helm3, helm4, helm-unittest, helm-docs and kubeconform, in the versions of
// hack/helm/go.mod. The working directory must be in a checkout. What is missing is built, which takes two minutes; else it
// is as Assets.
func ChartTools(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	root, err := checkout()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "hack", "helm")
	pins, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	folder := programFolder{
		path: filepath.Join(cache, "helm", fmt.Sprintf("%.6x-%s-%s", sha256.Sum256(pins), runtime.GOOS, runtime.GOARCH)),
		sources: []source{{"building", func(ctx context.Context, into string, programs []string) error {
			return buildChartTools(ctx, module, into, programs, progress)
		}}},
		progress: progress,
	}
	if err := folder.ensure(ctx, slices.Sorted(maps.Keys(chartTools))); err != nil {
		return "", fmt.Errorf("getting Helm: %w", err)
	}
	return folder.path, nil
}

// buildChartTools compiles programs one by one, for two are called helm.
func buildChartTools(ctx context.Context, module, into string, programs []string, progress io.Writer) error {
	for _, name := range programs {
		apart := filepath.Join(into, "of-"+name)
		if err := os.Mkdir(apart, 0o755); err != nil {
			return err
		}
		if err := compile(ctx, module, apart, "building "+name, progress, chartTools[name]); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(apart, filepath.Base(chartTools[name])), filepath.Join(into, name)); err != nil {
			return err
		}
	}
	return nil
}
