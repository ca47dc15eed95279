package images

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// containerVariable tells this binary that it is the parent of a container: the image's name and root folder.
const containerVariable = "FINGERPOST_TEST_CONTAINER"

func TestMain(m *testing.M) {
	if image, root, is := strings.Cut(os.Getenv(containerVariable), "="); is {
		runtime.LockOSThread() // rights are a thread's
		if err := askEngine(image, root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// engines are the images with one, and what the agent calls it.
var engines = map[string]string{"resolver-unbound": "Unbound", "resolver-knotresolver": "KnotResolver", "resolver-recursor": "Recursor"}

func TestKeysOfDebiansArchiveAreGotWhereTheMachineHasNone(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.gpg")
	cache := t.TempDir()
	file, err := keys(t.Context(), none, cache)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAPT(t.TempDir(), strings.ReplaceAll(Sources, keyring, file), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.get(t.Context(), "update"); err != nil {
		t.Errorf("the archive is not believed by the keys in %s: %v", file, err)
	}
	if again, err := keys(t.Context(), none, cache); err != nil || again != file {
		t.Errorf("the second time: %s, %v", again, err)
	}
}

// engineRoots returns the root folders of images with an engine, by name, and the packages in them.
func engineRoots(t *testing.T, arch string) (map[string]map[string]File, map[string]debian) {
	t.Helper()
	cache, err := debianCache()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for image := range engines {
		names = append(names, contents[image].packages...)
	}
	slices.Sort(names)
	packages, err := getDebian(t.Context(), Sources, cache, arch, slices.Compact(names), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	roots, in := map[string]map[string]File{}, map[string]debian{}
	for image := range engines {
		files, kept, err := packages.root(contents[image].packages)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%s: files have no order", image)
		}
		roots[image], in[image] = map[string]File{}, kept
		for _, f := range files {
			roots[image][f.Name] = f
		}
	}
	return roots, in
}

// exists reports whether a name leads to something in a root folder, over links.
func exists(root map[string]File, name string) bool {
	for range 40 {
		at, rest, _ := strings.Cut(name, "/")
		for {
			f, is := root[at]
			if !is {
				return false
			}
			if f.Mode&fs.ModeSymlink != 0 {
				to := string(f.Content)
				if !path.IsAbs(to) {
					to = path.Join(path.Dir(at), to)
				}
				name = strings.TrimPrefix(path.Join(to, rest), "/")
				break
			}
			if rest == "" {
				return true
			}
			var next string
			next, rest, _ = strings.Cut(rest, "/")
			at = path.Join(at, next)
		}
	}
	return false
}

func TestImagesOfEnginesHaveAllThatTheyAreLinkedWithAndWhoMayCopyIt(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	triplets := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
	for _, arch := range []string{"amd64", "arm64"} {
		roots, packages := engineRoots(t, arch)
		for image, root := range roots {
			t.Run(image+" "+arch, func(t *testing.T) {
				programs := 0
				for name, f := range root {
					if f.Mode&fs.ModeSymlink != 0 {
						if !exists(root, name) {
							t.Errorf("%s leads to %s, which is not there", name, f.Content)
						}
					}
					if !bytes.HasPrefix(f.Content, []byte(elf.ELFMAG)) {
						continue
					}
					programs++
					file, err := elf.NewFile(bytes.NewReader(f.Content))
					if err != nil {
						t.Fatal(err)
					}
					if file.Machine != machines[arch] {
						t.Errorf("%s is for %s", name, file.Machine)
					}
					if interpreter := file.Section(".interp"); interpreter != nil {
						text, err := interpreter.Data()
						if err != nil {
							t.Fatal(err)
						}
						if !exists(root, strings.Trim(string(text), "/\x00")) {
							t.Errorf("%s is run by %s, which is not there", name, text)
						}
					}
					libraries, err := file.ImportedLibraries()
					if err != nil {
						t.Fatal(err)
					}
					for _, library := range libraries {
						if !exists(root, "lib/"+triplets[arch]+"/"+library) {
							t.Errorf("%s needs %s, which is not there", name, library)
						}
					}
				}
				if programs < 10 {
					t.Errorf("%d programs and libraries", programs)
				}
				for _, p := range packages[image] {
					if !exists(root, "usr/share/doc/"+p.Name+"/copyright") {
						t.Errorf("nothing says who may copy %s", p.Name)
					}
					if f := root["var/lib/dpkg/status.d/"+p.Name]; !bytes.Contains(f.Content, []byte("\nVersion: "+p.Version+"\n")) {
						t.Errorf("nothing tells scanners of %s %s: %q", p.Name, p.Version, f.Content)
					}
				}
			})
		}
	}
}

func TestEnginesAnswerInTheirImages(t *testing.T) {
	roots, _ := engineRoots(t, runtime.GOARCH)
	for image, files := range roots {
		t.Run(image, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range slices.SortedFunc(maps.Values(files), func(a, b File) int { return strings.Compare(a.Name, b.Name) }) {
				var err error
				switch at := filepath.Join(root, f.Name); {
				case f.Mode.IsDir():
					err = os.Mkdir(at, f.Mode.Perm()|0o700)
				case f.Mode&fs.ModeSymlink != 0:
					err = os.Symlink(string(f.Content), at)
				default:
					err = os.WriteFile(at, f.Content, f.Mode.Perm())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			build := exec.Command("go", "build", "-o", filepath.Join(root, contents[image].program), "../../cmd/"+contents[image].program)
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if said, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			id := 65532
			if !strings.HasPrefix(user, fmt.Sprint(id)+":") {
				t.Fatalf("images run as %s", user)
			}
			// The user that images have, in namespaces of its own, until it asks for less with all rights over them.
			container := estate.Self(false, "-test.run", "^$")
			container.Env = append(os.Environ(), containerVariable+"="+image+"="+root)
			container.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: os.Getgid(), Size: 1}},
				AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SYS_CHROOT},
				Pdeathsig:   syscall.SIGKILL,
			}
			if said, err := container.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
		})
	}
}

// containerConfig has engines load most of what they come with. The authorities are nobody.
const containerConfig = `
listen: ["127.0.0.1:53"]
clients: [127.0.0.0/8]
rootHints: [{name: ns-a, addresses: [127.0.0.9]}]
authorityNetworks: [127.0.0.0/8]
loopbackServers: true
cacheMiB: 8
ttl: {min: 6s, max: 1h, negative: 30s}
prefetch: true
serveStale: {maxAge: 24h}
randomCase: true
ecs: {zones: [near.corp], ipv4: 20}
trustAnchors: [". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"]
limits: {client: 200, domain: 1000}
block: {names: [ads.example]}
`

// askEngine runs an image whose root folder is given as a container does that is restricted: a root that is
// read-only but for /run, no capabilities, no more rights by any program, and ports from 0 on for everybody. It returns nil
// when the engine has answered and ended in order.
func askEngine(image, root string) (err error) {
	if err := estate.RaiseLoopback(); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
		return err
	}
	for _, m := range []struct {
		from, to, kind string
		flags          uintptr
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{root, root, "", unix.MS_BIND},
		{"proc", filepath.Join(root, "proc"), "proc", 0},
		{"/dev", filepath.Join(root, "dev"), "", unix.MS_BIND | unix.MS_REC},
		{"tmpfs", filepath.Join(root, "run"), "tmpfs", 0},
		{"none", root, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY | locked(root)},
	} {
		if err := unix.Mount(m.from, m.to, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.to, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "run", "pool.yaml"), []byte(containerConfig), 0o600); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	c := config(image, "v1", "")
	agent := exec.Command(c.Entrypoint[0], "--engine", engines[image], "--config", "/run/pool.yaml", "--drain", "0s")
	agent.Err = nil // it is not here, but in the root folder
	var said bytes.Buffer
	agent.Dir, agent.Env, agent.Stdout, agent.Stderr = c.WorkingDir, c.Env, &said, &said
	agent.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: syscall.SIGKILL}
	if err := agent.Start(); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, agent.Process.Signal(syscall.SIGTERM), agent.Wait())
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, said.Bytes())
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		reply, err := http.Get("http://127.0.0.1:8056/readyz")
		if err == nil {
			_ = reply.Body.Close()
			if reply.StatusCode == http.StatusOK {
				break
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("the agent is not ready")
		}
	}
	for name, want := range map[string]int{"ready.resolver-agent.invalid.": dns.RcodeSuccess, "www.ads.example.": dns.RcodeNameError} {
		reply, err := dns.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeTXT), "127.0.0.1:53")
		if err != nil {
			return err
		}
		if reply.Rcode != want || want == dns.RcodeSuccess && len(reply.Answer) != 1 {
			return fmt.Errorf("the answer about %s is\n%s", name, reply)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "here"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		return errors.Join(errors.New("the root folder is not read-only"), err)
	}
	return nil
}

// locked returns the flags of a mount that a user namespace may not take away.
func locked(path string) uintptr {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0
	}
	return uintptr(s.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_RELATIME)
}

func TestTheSBOMOfAnEngineListsPackages(t *testing.T) {
	self := filepath.Join(t.TempDir(), "program")
	if said, err := exec.Command("go", "build", "-o", self, "./cmd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	list := func(packages debian) (d spdxDocument) {
		t.Helper()
		text, err := sbom("resolver-unbound", self, "v1", packages)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	unbound := debianPackage{Name: "unbound", Version: "1.17.1-2+deb12u4", Architecture: "arm64"}
	d := list(debian{unbound})
	i := slices.IndexFunc(d.Packages, func(p spdxPackage) bool { return p.Name == "unbound" })
	if i < 0 {
		t.Fatal("it does not")
	}
	if got, want := d.Packages[i].ExternalRefs[0].Locator, "pkg:deb/debian/unbound@1.17.1-2%2Bdeb12u4?arch=arm64"; got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	if !slices.Contains(d.Relationships, spdxRelationship{d.Packages[0].ID, "DEPENDS_ON", d.Packages[i].ID}) {
		t.Error("nothing says how unbound is related")
	}
	unbound.Version = "1.17.1-2+deb12u5"
	if list(debian{unbound}).Namespace == d.Namespace {
		t.Error("another version has a document of the same namespace")
	}
}
