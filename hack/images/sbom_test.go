package images

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestTheSBOMNamesTheProgramGoAndEveryModuleOnce(t *testing.T) {
	self := filepath.Join(t.TempDir(), "program")
	if said, err := exec.Command("go", "build", "-o", self, "./cmd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	text, err := sbom("manager", self, "v1.2.3+b", nil)
	if err != nil {
		t.Fatal(err)
	}
	var d spdxDocument
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	program := d.Packages[0]
	if program.Name != filepath.Base(self) || program.Version != "v1.2.3+b" ||
		program.ExternalRefs[0].Locator != "pkg:golang/github.com/fingerpost-dns/fingerpost@v1.2.3%2Bb" {
		t.Errorf("the program is %+v", program)
	}
	if len(program.Checksums) != 1 || !strings.HasSuffix(d.Namespace, program.Checksums[0].Value) {
		t.Errorf("the document %s is not that of the program with checksums %v", d.Namespace, program.Checksums)
	}
	versions, ids := map[string]string{}, map[string]bool{}
	for _, p := range d.Packages {
		versions[p.Name] = p.Version
		if ids[p.ID] {
			t.Errorf("%s twice", p.ID)
		}
		ids[p.ID] = true
		relation := spdxRelationship{program.ID, "DEPENDS_ON", p.ID}
		if p.ID == program.ID {
			relation = spdxRelationship{d.ID, "DESCRIBES", p.ID}
		}
		if !slices.Contains(d.Relationships, relation) {
			t.Errorf("nothing says how %s is related", p.ID)
		}
	}
	if got, want := "go"+versions["stdlib"], runtime.Version(); got != want {
		t.Errorf("Go is %s, want %s", got, want)
	}
	if versions["github.com/opencontainers/image-spec"] != "v1.1.1" {
		t.Errorf("a module that is linked is missing from %v", versions)
	}
	again, err := sbom("manager", self, "v1.2.3+b", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, again) {
		t.Error("the same program gives another SBOM")
	}
}

func TestOnlyGoProgramsHaveASBOM(t *testing.T) {
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := sbom("manager", path, "v1", nil); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error: %v", err)
	}
}
