//go:build linux

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups is where the kernel shows control groups: one hierarchy (version 2), or a folder for each of several (version 1).
const cgroups = "/sys/fs/cgroup"

// hierarchies returns the folders that a kubelet makes control groups in.
func hierarchies() ([]string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroups, &fs); err != nil {
		return nil, err
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{cgroups}, nil
	}
	entries, err := os.ReadDir(cgroups)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() { // others are symbolic links to them
			all = append(all, filepath.Join(cgroups, e.Name()))
		}
	}
	return all, nil
}

// makeCgroup makes a control group, PARENT/NAME, in all hierarchies, with all controllers that they have.
func makeCgroup(parent, name string) error {
	roots, err := hierarchies()
	if err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	for _, root := range roots {
		for _, dir := range []string{filepath.Join(root, parent), filepath.Join(root, parent, name)} {
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if err := inherit(dir); err != nil {
				return fmt.Errorf("control group %s: %w", dir, err)
			}
		}
	}
	return nil
}

// inherit gives a new control group what it does not have of itself: in version 1 its CPUs and memory nodes, in version 2 its
// controllers.
func inherit(dir string) error {
	above := filepath.Dir(dir)
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || len(bytes.TrimSpace(have)) > 0 { // of another hierarchy, or it has them
			continue
		}
		want, err := os.ReadFile(filepath.Join(above, file))
		if err != nil || len(bytes.TrimSpace(want)) == 0 { // version 2, where empty is all
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, file), want, 0o644); err != nil {
			return err
		}
	}
	available, err := os.ReadFile(filepath.Join(above, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	passed := filepath.Join(above, "cgroup.subtree_control")
	have, err := os.ReadFile(passed)
	if err != nil {
		return err
	}
	for controller := range strings.FieldsSeq(string(available)) {
		if slices.Contains(strings.Fields(string(have)), controller) {
			continue
		}
		if err := os.WriteFile(passed, []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("passing on the controller %s: %w", controller, err)
		}
	}
	return nil
}

// removeCgroup removes a control group with all below it from all hierarchies. The kernel needs a moment to let go of
// processes that were killed.
func removeCgroup(name string) error {
	roots, err := hierarchies()
	if err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	end := time.After(20 * time.Second)
	for {
		var errs []error
		for _, root := range roots {
			errs = append(errs, removeFolders(filepath.Join(root, name)))
		}
		if err := errors.Join(errs...); err == nil {
			return nil
		}
		select {
		case <-end:
			return fmt.Errorf("control groups: %w", errors.Join(errs...))
		case <-retry.C:
		}
	}
}

// removeFolders removes a folder and the folders below it, but no file: those of a control group go with it.
func removeFolders(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeFolders(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
