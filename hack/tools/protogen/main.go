// Command protogen compiles protobuf definitions and writes the Go code that plugins make of them, as protoc does,
// without protoc: every part is a Go module, so that `make generate` needs nothing but Go.
//
//	protogen -root DIR -plugin PATH [-plugin PATH ...] FILE...
//
// FILE is a .proto below DIR, named relative to it with forward slashes; imports are looked up below DIR too (the
// well-known types are built in). Generated files are written beside the .proto they come from. Nothing is written
// unless all files compile and all plugins succeed. Errors carry file, line and column.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func main() {
	root := flag.String("root", ".", "folder that file names and imports are relative to")
	var plugins []string
	flag.Func("plugin", "protoc plugin to run; repeatable", func(path string) error {
		plugins = append(plugins, path)
		return nil
	})
	flag.Parse()
	if err := run(context.Background(), *root, plugins, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root string, plugins, files []string) error {
	if len(files) == 0 || len(plugins) == 0 {
		return errors.New("needs at least one -plugin and one file")
	}
	request, err := compile(ctx, root, files)
	if err != nil {
		return err
	}
	input, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding the request to the plugins: %w", err)
	}
	var generated []*pluginpb.CodeGeneratorResponse_File
	for _, plugin := range plugins {
		out, err := generate(ctx, plugin, input)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(plugin), err)
		}
		generated = append(generated, out...)
	}
	for _, f := range generated {
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(f.GetName())), []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compile returns the request that protoc would send to its plugins: descriptors of the files and of all that they
// import, imported before importing, with comments.
func compile(ctx context.Context, root string, files []string) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	linked, err := compiler.Compile(ctx, files...)
	if err != nil {
		return nil, err
	}
	return &pluginpb.CodeGeneratorRequest{
		FileToGenerate: files,
		Parameter:      new("paths=source_relative"),
		ProtoFile:      importsFirst(linked),
	}, nil
}

func importsFirst(files linker.Files) []*descriptorpb.FileDescriptorProto {
	var ordered []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var visit func(protoreflect.FileDescriptor)
	visit = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			visit(f.Imports().Get(i).FileDescriptor)
		}
		ordered = append(ordered, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, f := range files {
		visit(f)
	}
	return ordered
}

// generate runs one plugin on an encoded CodeGeneratorRequest.
func generate(ctx context.Context, plugin string, request []byte) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Stdin = bytes.NewReader(request)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return nil, fmt.Errorf("decoding its response: %w", err)
	}
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	return response.GetFile(), nil
}
