//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
)

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
