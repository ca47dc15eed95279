package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a program for one platform or several, packed with what Platforms list and nothing else: its base is scratch.
type Image struct {
	// Name is what a kubelet calls it, with registry and tag: docker.io/fingerpost/dnsserver:v1.
	Name    string
	Created time.Time // part of the bytes: not the clock's, if these are to be the same again
	Config  ocispec.ImageConfig
	// Platforms has one entry for each architecture, in the order of preference of tools that ask for none.
	Platforms []Platform
}

// Platform is what an image holds on one architecture of Linux.
type Platform struct {
	Architecture string // in Go's words, which are those of OCI: amd64, arm64
	Files        []File // a folder, if it is listed, before what is in it
}

// File is a file of an image. Its owner is root, whatever it is here.
type File struct {
	Name string      // from the root folder of the image on, without a slash before
	Path string      // here; empty: the file holds Content
	Mode fs.FileMode // permissions and the sticky bit; ModeDir for a folder, ModeSymlink for a link
	// Content is what a file without a Path holds, and where a link leads.
	Content []byte
}

// nameAnnotation says how containerd is to name an image that it imports.
const nameAnnotation = "io.containerd.image.name"

// Write writes the image as a tar archive of an OCI layout, which `ctr images import`, `podman load`, `skopeo copy
// oci-archive:` and `docker load` read. Platforms are behind one index. It returns the digest of the index, by which a
// registry would know the image.
func (i Image) Write(w io.Writer) (digest.Digest, error) {
	_, tag, tagged := strings.Cut(i.Name[strings.LastIndexByte(i.Name, '/')+1:], ":")
	if !tagged {
		return "", fmt.Errorf("the name %q of an image has no tag", i.Name)
	}
	l := layout{out: tar.NewWriter(w), written: map[digest.Digest]bool{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, p := range i.Platforms {
		manifest, err := l.platform(i, p)
		if err != nil {
			return "", fmt.Errorf("packing %s for %s: %w", i.Name, p.Architecture, err)
		}
		index.Manifests = append(index.Manifests, manifest)
	}
	all, err := l.object(ocispec.MediaTypeImageIndex, index)
	if err != nil {
		return "", err
	}
	all.Annotations = map[string]string{nameAnnotation: i.Name, ocispec.AnnotationRefName: tag}
	entry := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{all}}
	for _, file := range []struct {
		name    string
		content any
	}{{ocispec.ImageIndexFile, entry}, {ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}} {
		text, err := json.Marshal(file.content)
		if err != nil {
			return "", err
		}
		if err := add(l.out, File{Name: file.name, Mode: 0o644, Content: text}); err != nil {
			return "", err
		}
	}
	return all.Digest, l.out.Close()
}

// layout is an OCI layout that is being written.
type layout struct {
	out     *tar.Writer
	written map[digest.Digest]bool
}

// platform writes the blobs of one platform and returns the descriptor of its manifest.
func (l layout) platform(i Image, p Platform) (ocispec.Descriptor, error) {
	var archive bytes.Buffer
	files := tar.NewWriter(&archive)
	for _, f := range p.Files {
		if f.Path != "" {
			var err error
			if f.Content, err = os.ReadFile(f.Path); err != nil {
				return ocispec.Descriptor{}, err
			}
		}
		if err := add(files, f); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if err := files.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if _, err := zip.Write(archive.Bytes()); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := zip.Close(); err != nil {
		return ocispec.Descriptor{}, err
	}
	layer, err := l.blob(ocispec.MediaTypeImageLayerGzip, packed.Bytes())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	platform := ocispec.Platform{OS: "linux", Architecture: p.Architecture}
	config, err := l.object(ocispec.MediaTypeImageConfig, ocispec.Image{
		Created: &i.Created, Platform: platform, Config: i.Config,
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(archive.Bytes())}},
		History: []ocispec.History{{Created: &i.Created, CreatedBy: "make images"}},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest, err := l.object(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: []ocispec.Descriptor{layer},
	})
	manifest.Platform = &platform
	return manifest, err
}

// object writes a document as a blob.
func (l layout) object(mediaType string, document any) (ocispec.Descriptor, error) {
	text, err := json.Marshal(document)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return l.blob(mediaType, text)
}

func (l layout) blob(mediaType string, content []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if l.written[d.Digest] {
		return d, nil
	}
	l.written[d.Digest] = true
	name := strings.Join([]string{ocispec.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded()}, "/")
	return d, add(l.out, File{Name: name, Mode: 0o644, Content: content})
}

// add puts a file of root's, whose content is read, into an archive. It is as old as the epoch: no bit depends on when it was
// packed.
func add(w *tar.Writer, f File) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Mode: int64(f.Mode.Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if f.Mode&fs.ModeSticky != 0 {
		header.Mode |= 0o1000
	}
	switch {
	case f.Mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, f.Name+"/"
		return w.WriteHeader(header)
	case f.Mode&fs.ModeSymlink != 0:
		header.Typeflag, header.Linkname = tar.TypeSymlink, string(f.Content)
		return w.WriteHeader(header)
	}
	header.Size = int64(len(f.Content))
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(f.Content)
	return err
}
