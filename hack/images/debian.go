package images

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/fingerpost-dns/fingerpost/hack/controlplane"
)

// Sources is where Debian's packages come from unless Options say otherwise, as in sources.list(5): the release that the
// engines' configurations are tested with.
const Sources = `deb [signed-by=` + keyring + `] http://deb.debian.org/debian bookworm main
deb [signed-by=` + keyring + `] http://deb.debian.org/debian bookworm-updates main
deb [signed-by=` + keyring + `] http://deb.debian.org/debian-security bookworm-security main
`

// keyring is where Debian has the keys of its archive. Other systems may lack it: see keys.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// debianPackage is a package of Debian as its archive has it: nothing of its scripts has run.
type debianPackage struct {
	Name, Version, Architecture string
	Control                     []byte
	Files                       []File // all have Content
}

// debian is packages for one architecture.
type debian []debianPackage

// debianCache returns the folder that keeps Debian's packages.
func debianCache() (string, error) {
	cache, err := controlplane.CacheDir()
	return filepath.Join(cache, "debian-archives"), err
}

// getDebian returns packages with all that they depend on, the newest that the sources have, sorted by name. Archives are kept
// in the folder cache, which is made if absent. If the sources can't be read, progress is told so, and the packages are those of
// the last time. Nothing is installed: any user may do this, for any architecture.
func getDebian(ctx context.Context, sources, cache, arch string, names []string, progress io.Writer) (debian, error) {
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("images of engines are made of Debian's packages, which needs %s; without it name the other images", program)
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	state, err := os.MkdirTemp("", "fingerpost-apt-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(state)
	held, err := keys(ctx, keyring, cache)
	if err != nil {
		return nil, fmt.Errorf("getting the keys of Debian's archive: %w", err)
	}
	a, err := newAPT(filepath.Join(state, "debian"), strings.ReplaceAll(sources, keyring, held), arch)
	if err != nil {
		return nil, err
	}
	kept := filepath.Join(cache, fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, sources, arch, names)))[:12]+".plan")
	plan, err := a.plan(ctx, names)
	if err == nil {
		err = renameio.WriteFile(kept, plan, 0o644)
	} else if last, none := os.ReadFile(kept); none == nil {
		fmt.Fprintf(progress, "Debian's packages are those of the last time: %v\n", err)
		plan, err = last, nil
	}
	if err != nil {
		return nil, err
	}
	var all debian
	var missing []string
	for _, found := range planned.FindAllStringSubmatch(string(plan), -1) {
		p := debianPackage{Name: found[1], Version: found[2], Architecture: found[3]}
		all = append(all, p)
		if _, err := os.Stat(filepath.Join(cache, p.archive())); err != nil {
			missing = append(missing, p.Name+"="+p.Version)
		}
	}
	slices.SortFunc(all, func(a, b debianPackage) int { return strings.Compare(a.Name, b.Name) })
	if len(missing) > 0 {
		if _, err := a.get(ctx, append([]string{"download"}, missing...)...); err != nil {
			return nil, err
		}
	}
	for i := range all {
		archive := filepath.Join(cache, all[i].archive())
		if content, err := os.ReadFile(filepath.Join(a.downloads(), all[i].archive())); err == nil {
			if err := renameio.WriteFile(archive, content, 0o644); err != nil {
				return nil, err
			}
		}
		if all[i].Control, all[i].Files, err = readArchive(ctx, archive); err != nil {
			return nil, fmt.Errorf("reading %s: %w", archive, err)
		}
	}
	return all, nil
}

// keys returns the file with the keys of Debian's archive: the installed one, or, as on Ubuntu, that of a package of the machine's own
// sources, which is kept in the folder cache.
func keys(ctx context.Context, installed, cache string) (string, error) {
	kept := filepath.Join(cache, filepath.Base(keyring))
	for _, file := range []string{installed, kept} {
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	state, err := os.MkdirTemp("", "fingerpost-apt-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(state)
	a, err := machineAPT(state)
	if err != nil {
		return "", err
	}
	const name = "debian-archive-keyring"
	for _, args := range [][]string{{"update"}, {"download", name}} {
		if _, err := a.get(ctx, args...); err != nil {
			return "", err
		}
	}
	archives, err := filepath.Glob(filepath.Join(a.downloads(), name+"_*.deb"))
	if err != nil || len(archives) == 0 {
		return "", fmt.Errorf("apt-get download has left no %s: %w", name, err)
	}
	_, files, err := readArchive(ctx, archives[0])
	if err != nil {
		return "", err
	}
	wanted := strings.TrimPrefix(keyring, "/")
	for range 2 { // it may be a link to its new name
		i := slices.IndexFunc(files, func(f File) bool { return f.Name == wanted })
		if i < 0 {
			break
		}
		if files[i].Mode&fs.ModeSymlink == 0 {
			return kept, renameio.WriteFile(kept, files[i].Content, 0o644)
		}
		wanted = path.Join(path.Dir(wanted), string(files[i].Content))
	}
	return "", fmt.Errorf("package %s has no %s", name, keyring)
}

// apt is apt-get, with a state of its own.
type apt struct {
	dir     string
	options []string
}

// machineAPT makes one in a folder, for the sources of this machine.
func machineAPT(dir string) (apt, error) {
	a := apt{dir: dir, options: []string{
		"-qq", "-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache"),
		"-o", "APT::Sandbox::User=", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Languages=none", "-o", "Debug::NoLocking=1",
	}}
	for _, folder := range []string{filepath.Join(dir, "lists", "partial"), filepath.Join(dir, "cache", "archives", "partial"), a.downloads()} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return a, err
		}
	}
	return a, nil
}

// newAPT makes one in a folder, for an architecture of which nothing is installed, and sources as in sources.list(5).
func newAPT(dir, sources, arch string) (apt, error) {
	a, err := machineAPT(dir)
	if err != nil {
		return a, err
	}
	for name, content := range map[string]string{"sources.list": sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return a, err
		}
	}
	for _, option := range []string{
		"Dir::State::status=" + filepath.Join(dir, "status"), "Dir::Etc::SourceList=" + filepath.Join(dir, "sources.list"), "Dir::Etc::SourceParts=/dev/null",
		"APT::Architecture=" + arch, "APT::Architectures::=" + arch, "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	} {
		a.options = append(a.options, "-o", option)
	}
	return a, nil
}

// downloads is the folder that get is run in.
func (a apt) downloads() string { return filepath.Join(a.dir, "downloads") }

// get runs apt-get.
func (a apt) get(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", slices.Concat(a.options, args)...)
	cmd.Dir, cmd.Env = a.downloads(), append(os.Environ(), "LC_ALL=C")
	return output(cmd)
}

// plan reads the sources and returns what apt-get would install.
func (a apt) plan(ctx context.Context, names []string) ([]byte, error) {
	if _, err := a.get(ctx, "update"); err != nil {
		return nil, err
	}
	return a.get(ctx, append([]string{"--simulate", "--no-install-recommends", "install"}, names...)...)
}

// planned is a line of apt-get --simulate: name, version, architecture.
var planned = regexp.MustCompile(`(?m)^Inst (\S+) \((\S+) [^\n]*\[(\w+)\]\)`)

// archive is how apt-get download names the file of a package.
func (p debianPackage) archive() string {
	return p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + "_" + p.Architecture + ".deb"
}

// readArchive returns what an archive of a package says of it, and holds.
func readArchive(ctx context.Context, archive string) (control []byte, files []File, err error) {
	if control, err = output(exec.CommandContext(ctx, "dpkg-deb", "--field", archive)); err != nil {
		return nil, nil, err
	}
	content, err := output(exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", archive))
	if err != nil {
		return nil, nil, err
	}
	byName := map[string]File{}
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return control, files, nil
		}
		if err != nil {
			return nil, nil, err
		}
		f := File{Name: merged(header.Name), Mode: header.FileInfo().Mode() & (fs.ModePerm | fs.ModeSticky | fs.ModeDir | fs.ModeSymlink)}
		switch header.Typeflag {
		case tar.TypeReg:
			if f.Content, err = io.ReadAll(r); err != nil {
				return nil, nil, err
			}
		case tar.TypeLink:
			of := byName[merged(header.Linkname)]
			f.Mode, f.Content = of.Mode, of.Content
		case tar.TypeSymlink:
			f.Content = []byte(header.Linkname)
		}
		if f.Name != "." {
			byName[f.Name] = f
			files = append(files, f)
		}
	}
}

// merged returns where a file of a package is in a root folder whose bin, sbin and lib are links into usr.
func merged(name string) string {
	name = path.Clean(name)
	if first, _, _ := strings.Cut(name, "/"); slices.Contains(inUsr, first) {
		return "usr/" + name
	}
	return name
}

var inUsr = []string{"bin", "lib", "lib64", "sbin"}

// root returns the root folder of an image that runs the programs of some packages, and the packages that are in it: these
// as they are but for documentation and what starts daemons, and of what they depend on the shared libraries that
// they are linked with. Copyright notices are there for all.
func (d debian) root(whole []string) ([]File, debian, error) {
	libraries := map[string]int{} // package that has it, by file name
	for i, p := range d {
		for _, f := range p.Files {
			if isLibrary(f) {
				libraries[path.Base(f.Name)] = i
			}
		}
	}
	var kept debian
	done := map[int]bool{}
	var keep func(i int) error
	keep = func(i int) error {
		if i < 0 || done[i] {
			return nil
		}
		done[i] = true
		p := d[i]
		entire := slices.Contains(whole, p.Name)
		p.Files = slices.DeleteFunc(slices.Clone(p.Files), func(f File) bool {
			return !isCopyright(f) && !isLibrary(f) && (!entire || isUnwanted(f))
		})
		kept = append(kept, p)
		for _, f := range p.Files {
			if isCopyright(f) && f.Mode&fs.ModeSymlink != 0 {
				if err := keep(d.index(path.Base(string(f.Content)))); err != nil {
					return err
				}
			}
			needed, err := linkedWith(f)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", f.Name, p.Name, err)
			}
			for _, name := range needed {
				of, is := libraries[name]
				if !is {
					return fmt.Errorf("%s of %s needs %s, which no package has", f.Name, p.Name, name)
				}
				if err := keep(of); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, name := range whole {
		if err := keep(d.index(name)); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(kept, func(a, b debianPackage) int { return strings.Compare(a.Name, b.Name) })

	files := map[string]File{}
	put := func(f File) {
		for folder := path.Dir(f.Name); folder != "."; folder = path.Dir(folder) {
			if _, is := files[folder]; !is {
				files[folder] = File{Name: folder, Mode: fs.ModeDir | 0o755}
			}
		}
		files[f.Name] = f
	}
	for _, folder := range inUsr {
		put(File{Name: "usr/" + folder, Mode: fs.ModeDir | 0o755})
		put(File{Name: folder, Mode: fs.ModeSymlink | 0o777, Content: []byte("usr/" + folder)})
	}
	for _, p := range kept {
		for _, f := range p.Files {
			put(f)
		}
		// Scanners look for packages here.
		put(File{Name: "var/lib/dpkg/status.d/" + p.Name, Mode: 0o644, Content: p.Control})
	}
	id, _, _ := strings.Cut(user, ":")
	put(File{Name: "etc/passwd", Mode: 0o644, Content: fmt.Appendf(nil, "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:%s:%s:nonroot:/:/sbin/nologin\n", id, id)})
	put(File{Name: "etc/group", Mode: 0o644, Content: fmt.Appendf(nil, "root:x:0:\nnonroot:x:%s:\n", id)})
	put(File{Name: "etc/nsswitch.conf", Mode: 0o644, Content: []byte("passwd: files\ngroup: files\nhosts: files dns\n")})
	return slices.SortedFunc(maps.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) }), kept, nil
}

// isLibrary reports whether the dynamic linker finds a file without being told where.
func isLibrary(f File) bool {
	folder := path.Dir(f.Name)
	return !f.Mode.IsDir() && (folder == "usr/lib64" || folder == "usr/lib" || path.Dir(folder) == "usr/lib" && strings.Contains(folder, "-linux-gnu")) && strings.Contains(path.Base(f.Name), ".so")
}

// linkedWith returns the names of the shared libraries that a program or library needs: none if the file is neither.
func linkedWith(f File) ([]string, error) {
	if !bytes.HasPrefix(f.Content, []byte(elf.ELFMAG)) {
		return nil, nil
	}
	file, err := elf.NewFile(bytes.NewReader(f.Content))
	if err != nil {
		return nil, err
	}
	return file.ImportedLibraries()
}

// isCopyright reports whether a file says who may copy a package: it, or a link to the folder of another package that has it.
func isCopyright(f File) bool {
	doc, is := strings.CutPrefix(f.Name, "usr/share/doc/")
	return is && !f.Mode.IsDir() && (path.Base(doc) == "copyright" || !strings.Contains(doc, "/"))
}

// isUnwanted reports whether nothing in an image reads a file.
func isUnwanted(f File) bool {
	return slices.ContainsFunc([]string{
		"etc/apparmor.d", "etc/cron.d", "etc/default", "etc/init.d", "etc/insserv.conf.d", "etc/profile.d", "etc/resolvconf", "etc/skel", "etc/update-motd.d",
		"home", "boot", "usr/games", "usr/include", "usr/src", "usr/lib/systemd", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "usr/share/base-files", "usr/share/bug",
		"usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/man",
	}, func(folder string) bool { return f.Name == folder || strings.HasPrefix(f.Name, folder+"/") })
}

// index returns where a package is, and less than 0 if it is not there.
func (d debian) index(name string) int {
	return slices.IndexFunc(d, func(p debianPackage) bool { return p.Name == name })
}

// output runs a program and returns what it prints.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, bytes.TrimSpace(complaints.Bytes()))
	}
	return out.Bytes(), nil
}
