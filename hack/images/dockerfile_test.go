package images

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// buildah builds a target of the Dockerfile for an architecture from a folder, and returns it as an OCI archive. It runs in
// a user namespace with this user alone, and so needs no rights.
func buildah(t *testing.T, context, program, arch, version, revision string) []byte {
	t.Helper()
	path, err := exec.LookPath("buildah")
	if err != nil {
		t.Fatal("no buildah in PATH: run make test, or put `hack/deps` into it")
	}
	dir := t.TempDir()
	archive := filepath.Join(dir, "image.tar")
	policy := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600); err != nil { // nothing is pulled
		t.Fatal(err)
	}
	args := []string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs", "--storage-opt", "vfs.ignore_chown_errors=true",
		"build", "--signature-policy", policy, "--isolation", "chroot", "--platform", "linux/" + arch, "--target", program,
		"--build-arg", "VERSION=" + version, "--build-arg", "REVISION=" + revision,
		"-f", "../../Dockerfile", "-t", "oci-archive:" + archive + ":" + version, context,
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "TMPDIR="+dir, "_CONTAINERS_USERNS_CONFIGURED=1", "_CONTAINERS_ROOTLESS_UID=0", "BUILDAH_ISOLATION=chroot")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("buildah: %v\n%s", err, said)
	}
	content, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestTheDockerfileMakesWhatMakeImagesMakes(t *testing.T) {
	const version, revision = "v1.2.3", "0123abc"
	programs := []string{"manager", "dnsserver"} // engines are another Debian there: the whole of it
	context := t.TempDir()
	for _, arch := range []string{"amd64", "arm64"} {
		dir := filepath.Join(context, "bin", "images", "linux-"+arch)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, program := range programs {
			for _, name := range []string{program, program + ".spdx.json"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(name+" of "+arch), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			ours := Image{Name: Repository + "/" + program + ":" + version, Created: time.Unix(0, 0), Config: config(program, version, revision)}
			for _, arch := range []string{"amd64", "arm64"} {
				binary := filepath.Join(context, "bin", "images", "linux-"+arch, program)
				ours.Platforms = append(ours.Platforms, Platform{arch, files(program, filepath.Dir(binary))})
			}
			want, _ := read(t, write(t, ours))
			for _, arch := range slices.Sorted(maps.Keys(want)) {
				found, _ := read(t, buildah(t, context, program, arch, version, revision))
				got, is := found[arch]
				if !is {
					t.Fatalf("buildah made no image for %s", arch)
				}
				maps.DeleteFunc(got.config.Labels, func(name, _ string) bool { return name == "io.buildah.version" })
				if diff := cmp.Diff(want[arch], got, cmp.AllowUnexported(unpacked{})); diff != "" {
					t.Errorf("%s (-make images +Dockerfile):\n%s", arch, diff)
				}
			}
		})
	}
}
