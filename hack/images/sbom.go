package images

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// The parts of SPDX 2.3 in JSON that an SBOM of packages needs. https://spdx.github.io/spdx-spec/v2.3/
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		ID            string             `json:"SPDXID"`
		DataLicense   string             `json:"dataLicense"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"` // unique for the content
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"` // the program is the first
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID               string         `json:"SPDXID"`
		Name             string         `json:"name"`
		Version          string         `json:"versionInfo"`
		Purpose          string         `json:"primaryPackagePurpose,omitempty"`
		DownloadLocation string         `json:"downloadLocation"`
		FilesAnalyzed    bool           `json:"filesAnalyzed"`
		Checksums        []spdxChecksum `json:"checksums,omitempty"`
		ExternalRefs     []spdxRef      `json:"externalRefs"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

const noAssertion = "NOASSERTION"

// notInID is what an SPDX identifier can't have.
var notInID = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

// sbom says what an image is made of: a Go program, the modules that are linked into it, Go, and packages of Debian beside
// it. version is the program's own. It depends on the program's bytes and the packages' versions alone.
func sbom(image, path, version string, packages debian) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading what %s is made of: %w", path, err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	program := filepath.Base(path)
	self := golang(info.Main.Path, version)
	self.ID, self.Name, self.Purpose = "SPDXRef-Program", program, "APPLICATION"
	self.Checksums = []spdxChecksum{{"SHA256", sum}}
	d := spdxDocument{
		Version: "SPDX-2.3", ID: "SPDXRef-DOCUMENT", DataLicense: "CC0-1.0",
		Name:          image + " " + version,
		Creation:      spdxCreation{commitTime(info).Format(time.RFC3339), []string{"Tool: fingerpost-hack-images"}},
		Packages:      []spdxPackage{self, golang("stdlib", strings.TrimPrefix(info.GoVersion, "go"))},
		Relationships: []spdxRelationship{{"SPDXRef-DOCUMENT", "DESCRIBES", self.ID}},
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		d.Packages = append(d.Packages, golang(m.Path, m.Version))
	}
	for _, p := range packages {
		d.Packages = append(d.Packages, p.spdx())
		sum = fmt.Sprintf("%x", sha256.Sum256([]byte(sum+p.archive())))
	}
	d.Namespace = "https://fingerpost.dev/spdx/" + image + "-" + sum
	slices.SortFunc(d.Packages[1:], func(a, b spdxPackage) int { return strings.Compare(a.ID, b.ID) })
	for _, p := range d.Packages[1:] {
		d.Relationships = append(d.Relationships, spdxRelationship{self.ID, "DEPENDS_ON", p.ID})
	}
	return json.MarshalIndent(d, "", " ")
}

// golang returns a module as a package.
func golang(module, version string) spdxPackage {
	return spdxPackage{
		ID: "SPDXRef-" + notInID.ReplaceAllString(module, "-"), Name: module, Version: version,
		DownloadLocation: noAssertion,
		ExternalRefs:     []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + module + "@" + strings.ReplaceAll(version, "+", "%2B")}},
	}
}

// spdx returns a package of Debian as one of SPDX.
func (p debianPackage) spdx() spdxPackage {
	version := url.QueryEscape(p.Version)
	return spdxPackage{
		ID: "SPDXRef-deb-" + notInID.ReplaceAllString(p.Name, "-"), Name: p.Name, Version: p.Version,
		DownloadLocation: noAssertion,
		ExternalRefs:     []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:deb/debian/" + url.PathEscape(p.Name) + "@" + version + "?arch=" + p.Architecture}},
	}
}

// commitTime is when the commit was made that a program was built from; the epoch if that is not known.
func commitTime(info *debug.BuildInfo) time.Time {
	t, err := time.Parse(time.RFC3339, setting(info, "vcs.time"))
	if err != nil {
		return time.Unix(0, 0).UTC()
	}
	return t.UTC()
}

// setting returns a setting of a build, empty if it was not set.
func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
