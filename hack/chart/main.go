// Command chart writes those files of charts/fingerpost that follow from others: the CRDs and the manager's rights, as they
// are in config, and values.schema.json, which has the schemas of Datacenter and DNSZone in it. `make manifests` calls it
// in the root of the repository.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

const (
	chart = "charts/fingerpost"
	bases = "config/crd/bases"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run() error {
	if err := mirror(bases, filepath.Join(chart, "files", "crds")); err != nil {
		return err
	}
	for _, name := range []string{"role.yaml", "probe_secrets.yaml"} {
		if err := copyFile(filepath.Join("config/rbac", name), filepath.Join(chart, "files", name)); err != nil {
			return err
		}
	}
	schema, err := valuesSchema()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(chart, "values.schema.json"), schema, 0o644)
}

// mirror makes to a folder with the files of from and no others.
func mirror(from, to string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".yaml" {
			continue
		}
		if err := copyFile(filepath.Join(from, f.Name()), filepath.Join(to, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o644)
}

// valuesSchema returns the schema of this folder with definitions of the specs that values may hold.
func valuesSchema() ([]byte, error) {
	text, err := os.ReadFile("hack/chart/values.schema.json")
	if err != nil {
		return nil, err
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		return nil, fmt.Errorf("hack/chart/values.schema.json: %w", err)
	}
	definitions := schema["definitions"].(map[string]any)
	datacenter, err := specSchema("datacenters")
	if err != nil {
		return nil, err
	}
	datacenter["type"] = []string{"object", "null"} // null leaves out a datacenter that another file of values has
	definitions["datacenterSpec"] = datacenter
	zone, err := specSchema("dnszones")
	if err != nil {
		return nil, err
	}
	delete(zone["properties"].(map[string]any), "name") // it is always "."
	zone["required"] = slices.DeleteFunc(zone["required"].([]any), func(name any) bool { return name == "name" })
	definitions["rootZoneSpec"] = zone
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	err = encoder.Encode(schema)
	return out.Bytes(), err
}

// specSchema returns the schema of spec in a kind's CRD.
func specSchema(plural string) (map[string]any, error) {
	path := filepath.Join(bases, "fingerpost.dev_"+plural+".yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	text, err = json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		return nil, err
	}
	strict(schema)
	return schema, nil
}

// strict turns the schema of a CRD into a JSON schema that has no place for unknown fields. Rules in CEL are the API
// server's; descriptions are for kubectl explain.
func strict(schema map[string]any) {
	for key := range schema {
		switch key {
		case "description", "default", "example", "format", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type":
			delete(schema, key)
		}
	}
	if either, _ := schema["x-kubernetes-int-or-string"].(bool); either {
		delete(schema, "x-kubernetes-int-or-string")
		schema["type"] = []any{"integer", "string"}
	}
	if properties, ok := schema["properties"].(map[string]any); ok {
		if open, _ := schema["x-kubernetes-preserve-unknown-fields"].(bool); !open {
			schema["additionalProperties"] = false
		}
		for _, p := range properties {
			strict(p.(map[string]any))
		}
	}
	delete(schema, "x-kubernetes-preserve-unknown-fields")
	for _, key := range []string{"items", "additionalProperties"} {
		if under, ok := schema[key].(map[string]any); ok {
			strict(under)
		}
	}
}
