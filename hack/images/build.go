package images

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Repository is where the images of this project are by name, if a registry has them.
const Repository = "docker.io/fingerpost"

// user is nobody's: what "nonroot" is called in other images.
const user = "65532:65532"

// content says what an image holds beside its SBOM.
type content struct {
	program  string   // of cmd/ in the checkout: the entry point
	packages []string // of Debian, complete, with the libraries that they need; none: nothing but the program
}

// contents are those of all images that run in a cluster.
var contents = map[string]content{
	"manager":               {program: "manager"},
	"dnsserver":             {program: "dnsserver"},
	"resolver-unbound":      engine("unbound"),
	"resolver-knotresolver": engine("knot-resolver", "libluajit-5.1-common", "lua-sec", "lua-socket"),
	"resolver-recursor":     engine("pdns-recursor", "publicsuffix"),
}

// engine is the agent with an engine that it runs.
func engine(packages ...string) content {
	return content{"resolver-agent", append([]string{"base-files", "dns-root-data"}, packages...)}
}

// Names are those of all images, sorted.
func Names() []string { return slices.Sorted(maps.Keys(contents)) }

// Options say what Build builds.
type Options struct {
	Checkout      string   // of this project, of which all comes but Debian's packages
	Version       string   // stamped into programs, and the tag of images. Not empty
	Out           string   // folder, made if absent
	Architectures []string // amd64, arm64
	Images        []string // of Names
	Sources       string   // of Debian's packages, as in sources.list(5). Empty: Sources
	Progress      io.Writer
}

// Built is an image that Build has made.
type Built struct {
	Name   string        // as in Image
	File   string        // an archive as of Image.Write
	Digest digest.Digest // of its index
}

// Build compiles programs, gets Debian's packages for the images that need any, and packs them into images, in the order that
// they are asked for. Besides, it leaves in Out/linux-ARCH what the images have of this project, for the Dockerfile: the
// programs, and the images' SBOMs as IMAGE.spdx.json.
func Build(ctx context.Context, o Options) ([]Built, error) {
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, err
	}
	cache, err := debianCache()
	if err != nil {
		return nil, err
	}
	var programs, packages []string
	for _, name := range o.Images {
		c, is := contents[name]
		if !is {
			return nil, fmt.Errorf("there is no image %s, but %s", name, strings.Join(Names(), ", "))
		}
		programs, packages = append(programs, c.program), append(packages, c.packages...)
	}
	slices.Sort(programs)
	slices.Sort(packages)
	programs, packages = slices.Compact(programs), slices.Compact(packages)
	distribution := map[string]debian{} // by architecture
	for _, arch := range o.Architectures {
		if err := compile(ctx, o, programs, arch, filepath.Join(out, "linux-"+arch)); err != nil {
			return nil, err
		}
		if len(packages) == 0 {
			continue
		}
		fmt.Fprintf(o.Progress, "Getting %s of Debian for %s\n", strings.Join(packages, ", "), arch)
		if distribution[arch], err = getDebian(ctx, cmp.Or(o.Sources, Sources), cache, arch, packages, o.Progress); err != nil {
			return nil, err
		}
	}
	var all []Built
	for _, name := range o.Images {
		built, err := pack(o, name, out, distribution)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		all = append(all, built)
	}
	return all, nil
}

// compile builds the programs for one architecture into a folder.
func compile(ctx context.Context, o Options, programs []string, arch, into string) error {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(o.Progress, "Building %s %s for %s\n", strings.Join(programs, ", "), o.Version, arch)
	args := []string{"build", "-trimpath", "-ldflags", "-s -w -X main.version=" + o.Version, "-o", into + "/"}
	for _, program := range programs {
		args = append(args, "./cmd/"+program)
	}
	build := exec.CommandContext(ctx, "go", args...)
	build.Dir = o.Checkout
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	build.Cancel = func() error { return build.Process.Signal(os.Interrupt) } // go passes it on to its compilers
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building for %s: %w\n%s", arch, err, bytes.TrimSpace(said))
	}
	return nil
}

// pack makes an image of the programs in out/linux-ARCH and of packages by architecture.
func pack(o Options, name, out string, distribution map[string]debian) (Built, error) {
	c := contents[name]
	image := Image{Name: Repository + "/" + name + ":" + Tag(o.Version)}
	for _, arch := range o.Architectures {
		folder := filepath.Join(out, "linux-"+arch)
		info, err := buildinfo.ReadFile(filepath.Join(folder, c.program))
		if err != nil {
			return Built{}, err
		}
		var root []File
		var packages debian
		if len(c.packages) > 0 {
			if root, packages, err = distribution[arch].root(c.packages); err != nil {
				return Built{}, err
			}
		}
		text, err := sbom(name, filepath.Join(folder, c.program), o.Version, packages)
		if err != nil {
			return Built{}, err
		}
		if err := os.WriteFile(filepath.Join(folder, name+listSuffix), text, 0o644); err != nil {
			return Built{}, err
		}
		image.Created = commitTime(info)
		image.Config = config(name, o.Version, setting(info, "vcs.revision"))
		image.Platforms = append(image.Platforms, Platform{Architecture: arch, Files: append(root, files(name, folder)...)})
	}
	built := Built{Name: image.Name, File: filepath.Join(out, "fingerpost-"+name+".tar")}
	var err error
	built.Digest, err = WriteFile(image, built.File)
	return built, err
}

// listSuffix makes the name of an image's SBOM.
const listSuffix = ".spdx.json"

// files is what an image holds of a folder with programs and SBOMs.
func files(name, folder string) []File {
	program, list := contents[name].program, name+listSuffix
	return []File{{Name: program, Path: filepath.Join(folder, program), Mode: 0o755}, {Name: list, Path: filepath.Join(folder, list), Mode: 0o644}}
}

// config is what the Dockerfile says of an image, too.
func config(name, version, revision string) ocispec.ImageConfig {
	c := ocispec.ImageConfig{
		User:       user,
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, // what builders set
		Entrypoint: []string{"/" + contents[name].program},
		WorkingDir: "/",
		Labels: map[string]string{
			ocispec.AnnotationTitle:    "fingerpost-" + name,
			ocispec.AnnotationVersion:  version,
			ocispec.AnnotationRevision: revision,
		},
	}
	if len(contents[name].packages) == 0 { // those of packages are in the image, many
		c.Labels[ocispec.AnnotationLicenses] = "Apache-2.0"
	}
	return c
}

// Tag returns a version as the tag of an image, which may not have the + of semantic versions.
func Tag(version string) string { return strings.ReplaceAll(version, "+", "_") }

// WriteFile writes an image into a file, as Image.Write does. The file is there complete or not at all.
func WriteFile(image Image, path string) (digest.Digest, error) {
	file, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return "", err
	}
	sum, err := image.Write(file)
	if err != nil {
		return "", errors.Join(err, file.Cleanup())
	}
	return sum, file.CloseAtomicallyReplace()
}
