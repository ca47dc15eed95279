package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// entry is a file of an archive, without its name.
type entry struct {
	Mode     fs.FileMode
	Uid, Gid int
	Content  string // of a link, where it leads
}

// unpack returns what is in a tar archive by name, folders with a slash behind.
func unpack(t *testing.T, archive io.Reader) map[string]entry {
	t.Helper()
	files := map[string]entry{}
	for r := tar.NewReader(archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = entry{header.FileInfo().Mode(), header.Uid, header.Gid, string(content) + header.Linkname}
	}
}

// unpacked is what a reader of an OCI layout finds for one platform.
type unpacked struct {
	config ocispec.ImageConfig
	files  map[string]entry
}

// read follows an OCI layout from its index, and holds digests and sizes against what is there. It returns what is found by
// architecture, and the annotations of the image.
func read(t *testing.T, archive []byte) (map[string]unpacked, map[string]string) {
	t.Helper()
	layout := unpack(t, bytes.NewReader(archive))
	blob := func(d ocispec.Descriptor) string {
		t.Helper()
		content := layout["blobs/sha256/"+d.Digest.Encoded()].Content
		if int64(len(content)) != d.Size || digest.FromString(content) != d.Digest {
			t.Fatalf("blob %s of %d octets is not what its descriptor says", d.Digest, len(content))
		}
		return content
	}
	parse := func(text string, into any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	var version ocispec.ImageLayout
	if parse(layout["oci-layout"].Content, &version); version.Version != "1.0.0" {
		t.Errorf("the layout's version is %q", version.Version)
	}
	var index ocispec.Index
	parse(layout["index.json"].Content, &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("the layout has %d images", len(index.Manifests))
	}
	annotations := index.Manifests[0].Annotations
	manifests := index.Manifests
	if manifests[0].MediaType == ocispec.MediaTypeImageIndex {
		parse(blob(manifests[0]), &index)
		manifests = index.Manifests
	}
	all := map[string]unpacked{}
	for _, m := range manifests {
		var manifest ocispec.Manifest
		var image ocispec.Image
		parse(blob(m), &manifest)
		parse(blob(manifest.Config), &image)
		if m.Platform != nil && m.Platform.Architecture != image.Architecture {
			t.Errorf("the index says %s, the image %s", m.Platform.Architecture, image.Architecture)
		}
		u := unpacked{image.Config, map[string]entry{}}
		for i, l := range manifest.Layers {
			content := []byte(blob(l))
			if l.MediaType == ocispec.MediaTypeImageLayerGzip {
				zip, err := gzip.NewReader(bytes.NewReader(content))
				if err != nil {
					t.Fatal(err)
				}
				if content, err = io.ReadAll(zip); err != nil {
					t.Fatal(err)
				}
			}
			if got := digest.FromBytes(content); got != image.RootFS.DiffIDs[i] {
				t.Errorf("layer %d is %s, its configuration says %s", i, got, image.RootFS.DiffIDs[i])
			}
			maps.Copy(u.files, unpack(t, bytes.NewReader(content)))
		}
		all[image.Architecture] = u
	}
	return all, annotations
}

// programs writes a file for each architecture and returns an image of them.
func programs(t *testing.T) Image {
	t.Helper()
	image := Image{
		Name: "registry.example:5000/team/program:v1", Created: time.Unix(1_700_000_000, 0).UTC(),
		Config: config("manager", "v1", "0123abc"),
	}
	dir := t.TempDir()
	for _, arch := range []string{"amd64", "arm64"} {
		path := filepath.Join(dir, arch)
		if err := os.WriteFile(path, []byte("of "+arch), 0o600); err != nil {
			t.Fatal(err)
		}
		image.Platforms = append(image.Platforms, Platform{arch, []File{
			{Name: "program", Path: path, Mode: 0o755}, {Name: "list", Path: path, Mode: 0o644},
			{Name: "tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}, {Name: "tmp/link", Mode: fs.ModeSymlink | 0o777, Content: []byte("../program")},
		}})
	}
	return image
}

func write(t *testing.T, image Image) []byte {
	t.Helper()
	var archive bytes.Buffer
	if _, err := image.Write(&archive); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func TestAnImageHasEachPlatformsFilesAndItsConfiguration(t *testing.T) {
	image := programs(t)
	found, annotations := read(t, write(t, image))
	for _, arch := range []string{"amd64", "arm64"} {
		want := unpacked{image.Config, map[string]entry{
			"program": {Mode: 0o755, Content: "of " + arch},
			"list":    {Mode: 0o644, Content: "of " + arch},
			"tmp/":    {Mode: fs.ModeDir | fs.ModeSticky | 0o777}, "tmp/link": {Mode: fs.ModeSymlink | 0o777, Content: "../program"},
		}}
		if diff := cmp.Diff(want, found[arch], cmp.AllowUnexported(unpacked{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", arch, diff)
		}
	}
	want := map[string]string{"io.containerd.image.name": image.Name, "org.opencontainers.image.ref.name": "v1"}
	if diff := cmp.Diff(want, annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

func TestTheSameFilesGiveTheSameBytesWheneverTheyWereMade(t *testing.T) {
	image := programs(t)
	first := write(t, image)
	for _, p := range image.Platforms {
		if err := os.Chtimes(p.Files[0].Path, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first, write(t, image)) {
		t.Error("an image depends on when its files were made")
	}
}

func TestAnImageNeedsATag(t *testing.T) {
	image := programs(t)
	image.Name = "registry.example:5000/team/program"
	if _, err := image.Write(io.Discard); err == nil {
		t.Error("an image without a tag was written")
	}
}

func TestAVersionIsMadeATag(t *testing.T) {
	if got := Tag("v1.2.3-rc.1+build.5"); got != "v1.2.3-rc.1_build.5" {
		t.Errorf("tag %q", got)
	}
}
