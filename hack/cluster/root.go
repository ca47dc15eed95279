//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelSettings are what a kubelet wants of the whole computer, as paths below /proc/sys. It changes what is otherwise.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// isolate gives the machine a root file system of its own: the programs of this computer, read-only, and its own /var, /run
// and /tmp. What is mounted here is seen nowhere else. The mount namespace is this machine's already.
func (m machine) isolate() error {
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return fmt.Errorf("setting the host's name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("parting with the computer's mounts: %w", err)
	}
	root := filepath.Join(m.disk(), "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", root, "tmpfs", unix.MS_NOSUID, "mode=0755,size=16m"); err != nil {
		return err
	}
	if err := m.furnish(root); err != nil {
		return err
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // the old root is now on top of the new one
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	for setting, value := range kernelSettings {
		if err := stand(setting, value); err != nil {
			return err
		}
	}
	// kubelet and containers hand mounts to one another.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// furnish fills the folder that becomes the root.
func (m machine) furnish(root string) error {
	own := []string{"proc", "sys", "dev", "run", "tmp", "var"}
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := "/"+e.Name(), filepath.Join(root, e.Name())
		switch {
		case slices.Contains(own, e.Name()):
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, to); err != nil {
				return err
			}
		case e.IsDir():
			if err := bind(from, to, unix.MS_REC|unix.MS_RDONLY); err != nil {
				return err
			}
		}
	}
	for _, name := range own {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"var/lib", "var/log", "var/tmp", "tmp"} {
		if err := os.MkdirAll(filepath.Join(m.disk(), dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("/run", filepath.Join(m.disk(), "var", "run")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, step := range []func() error{
		func() error { return mount("proc", filepath.Join(root, "proc"), "proc", 0, "") },
		func() error { return mount("sysfs", filepath.Join(root, "sys"), "sysfs", 0, "") },
		func() error { return bind("/sys/fs/cgroup", filepath.Join(root, "sys/fs/cgroup"), unix.MS_REC) },
		func() error { return bind("/dev", filepath.Join(root, "dev"), unix.MS_REC) },
		func() error { return mount("tmpfs", filepath.Join(root, "run"), "tmpfs", 0, "mode=0755") },
		func() error { return bind(filepath.Join(m.disk(), "tmp"), filepath.Join(root, "tmp"), 0) },
		func() error { return bind(filepath.Join(m.disk(), "var"), filepath.Join(root, "var"), 0) },
		// What may be below the folders that were replaced, or has to be written to:
		func() error { return bind(m.Programs.Cache, root+m.Programs.Cache, unix.MS_RDONLY) },
		func() error { return bind(m.Programs.Assets, root+m.Programs.Assets, unix.MS_RDONLY) },
		func() error { return bind(m.Dir, root+m.Dir, 0) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", kind, target, err)
	}
	return nil
}

// bind shows a folder or file in another place, too. Of flags, MS_RDONLY is for the folder itself, not for what is
// mounted below it.
func bind(from, to string, flags uintptr) error {
	if _, err := os.Stat(to); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|flags&unix.MS_REC, ""); err != nil {
		return fmt.Errorf("showing %s at %s: %w", from, to, err)
	}
	if flags&unix.MS_RDONLY == 0 {
		return nil
	}
	if err := unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("showing %s at %s read-only: %w", from, to, err)
	}
	return nil
}

// stand puts a file over a kernel setting, for this machine's processes alone.
func stand(setting, value string) error {
	over := filepath.Join("/proc/sys", setting)
	if _, err := os.Stat(over); errors.Is(err, fs.ErrNotExist) {
		return nil // not of this kernel
	}
	file := filepath.Join("/run/kernel", strings.ReplaceAll(setting, "/", "."))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
		return err
	}
	return bind(file, over, 0)
}
