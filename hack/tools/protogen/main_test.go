package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// plugins builds the two plugins that `make generate` uses.
func plugins(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the plugins: %v\n%s", err, out)
	}
	return []string{filepath.Join(dir, "protoc-gen-go"), filepath.Join(dir, "protoc-gen-go-grpc")}
}

func TestGeneratesMessagesAndServicesBesideTheirDefinition(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), root, plugins(t), []string{"greet/name.proto", "greet/greet.proto"}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"greet/name.pb.go":       "type Name struct",
		"greet/greet.pb.go":      "// Text is never empty.",
		"greet/greet_grpc.pb.go": "Greet(ctx context.Context, opts ...grpc.CallOption) (grpc.BidiStreamingClient[Name, Greeting], error)",
	} {
		got, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(got), want) {
			t.Errorf("%s lacks %q", file, want)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "greet/name_grpc.pb.go")); err == nil {
		t.Error("a file without services got gRPC code")
	}
}

func TestAnErrorNamesFileAndLineAndWritesNothing(t *testing.T) {
	root := t.TempDir()
	source := "syntax = \"proto3\";\nmessage A {\n  Missing b = 1;\n}\n"
	if err := os.WriteFile(filepath.Join(root, "bad.proto"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), root, []string{"/nonexistent"}, []string{"bad.proto"})
	if err == nil || !strings.Contains(err.Error(), "bad.proto:3:") {
		t.Errorf("error %v does not name bad.proto:3", err)
	}
	if files, _ := filepath.Glob(filepath.Join(root, "*.go")); len(files) != 0 {
		t.Errorf("written in spite of the error: %v", files)
	}
}
