package images

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Repository is where the images of this project are by name, if a registry has them.
const Repository = "docker.io/fingerpost"

// user is nobody's: what "nonroot" is called in other images.
const user = "65532:65532"

// Programs are those of this project that run in a cluster.
func Programs() []string { return []string{"manager", "dnsserver"} }

// Options say what Build builds.
type Options struct {
	Checkout      string   // of this project, of which all comes
	Version       string   // stamped into programs, and the tag of images. Not empty
	Out           string   // folder, made if absent
	Architectures []string // amd64, arm64
	Programs      []string // of cmd/ in the checkout
	Progress      io.Writer
}

// Built is an image that Build has made.
type Built struct {
	Name   string        // as in Image
	File   string        // an archive as of Image.Write
	Digest digest.Digest // of its index
}

// Build compiles programs and packs each into an image, in the order of the programs. Besides, it leaves in Out/linux-ARCH what
// the images are made of, for the Dockerfile: the programs, and their SBOMs as PROGRAM.spdx.json.
func Build(ctx context.Context, o Options) ([]Built, error) {
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, err
	}
	for _, arch := range o.Architectures {
		if err := compile(ctx, o, arch, filepath.Join(out, "linux-"+arch)); err != nil {
			return nil, err
		}
	}
	var all []Built
	for _, program := range o.Programs {
		built, err := pack(o, program, out)
		if err != nil {
			return nil, fmt.Errorf("image of %s: %w", program, err)
		}
		all = append(all, built)
	}
	return all, nil
}

// compile builds the programs for one architecture into a folder.
func compile(ctx context.Context, o Options, arch, into string) error {
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(o.Progress, "Building %s %s for %s\n", strings.Join(o.Programs, " and "), o.Version, arch)
	args := []string{"build", "-trimpath", "-ldflags", "-s -w -X main.version=" + o.Version, "-o", into + "/"}
	for _, program := range o.Programs {
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

// pack makes the image of a program of which out/linux-ARCH has the binaries.
func pack(o Options, program, out string) (Built, error) {
	image := Image{Name: Repository + "/" + program + ":" + Tag(o.Version)}
	for _, arch := range o.Architectures {
		binary := filepath.Join(out, "linux-"+arch, program)
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return Built{}, err
		}
		text, err := sbom(binary, o.Version)
		if err != nil {
			return Built{}, err
		}
		if err := os.WriteFile(binary+listSuffix, text, 0o644); err != nil {
			return Built{}, err
		}
		image.Created = commitTime(info)
		image.Config = config(program, o.Version, setting(info, "vcs.revision"))
		image.Platforms = append(image.Platforms, Platform{Architecture: arch, Files: files(program, binary)})
	}
	built := Built{Name: image.Name, File: filepath.Join(out, "fingerpost-"+program+".tar")}
	var err error
	built.Digest, err = WriteFile(image, built.File)
	return built, err
}

// listSuffix makes the name of a program's SBOM.
const listSuffix = ".spdx.json"

// files is what the image of a program holds; binary has its SBOM beside it.
func files(program, binary string) []File {
	return []File{{program, binary, 0o755}, {program + listSuffix, binary + listSuffix, 0o644}}
}

// config is what the Dockerfile says of a program, too.
func config(program, version, revision string) ocispec.ImageConfig {
	return ocispec.ImageConfig{
		User:       user,
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, // what builders set
		Entrypoint: []string{"/" + program},
		WorkingDir: "/",
		Labels: map[string]string{
			ocispec.AnnotationTitle:    "fingerpost-" + program,
			ocispec.AnnotationVersion:  version,
			ocispec.AnnotationRevision: revision,
			ocispec.AnnotationLicenses: "Apache-2.0",
		},
	}
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
