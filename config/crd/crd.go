// Package crd holds the CustomResourceDefinitions of the folder bases, for the manager to check those of its cluster by.
package crd

import (
	"embed"
	"fmt"
	"io/fs"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

//go:embed bases/*.yaml
var bases embed.FS

// Files returns the texts of the definitions, a YAML document each, sorted by name.
func Files() ([][]byte, error) {
	paths, err := fs.Glob(bases, "bases/*.yaml")
	if err != nil {
		return nil, err
	}
	files := make([][]byte, len(paths))
	for i, path := range paths {
		if files[i], err = bases.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Definitions returns the definitions, sorted by name.
func Definitions() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	files, err := Files()
	if err != nil {
		return nil, err
	}
	definitions := make([]*apiextensionsv1.CustomResourceDefinition, len(files))
	for i, text := range files {
		definitions[i] = &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(text, definitions[i]); err != nil {
			return nil, fmt.Errorf("definition %d: %w", i, err)
		}
	}
	return definitions, nil
}
