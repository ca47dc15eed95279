package charts_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

// conform has kubeconform check what the chart renders with each file of values against the schemas of an API server that
// has our kinds. Kinds of the Prometheus operator are not checked: the API server does not know them.
func conform(t *testing.T, config *rest.Config) {
	t.Helper()
	schemas := writeSchemas(t, config)
	for _, values := range valuesFiles(t) {
		var args []string
		if values != "" {
			args = []string{"--values", values}
		}
		rendered := filepath.Join(t.TempDir(), "rendered.yaml")
		if err := os.WriteFile(rendered, []byte(template(t, "helm4", chart, args...)), 0o644); err != nil {
			t.Fatal(err)
		}
		summary := mustTool(t, "kubeconform", "-strict", "-summary", "-skip", "ServiceMonitor,PodMonitor,PrometheusRule",
			"-schema-location", schemas+"/{{.Group}}_{{.ResourceKind}}_{{.ResourceAPIVersion}}.json", rendered)
		if !strings.Contains(summary, "Invalid: 0, Errors: 0") {
			t.Errorf("%s: %s", values, summary)
		}
	}
}

// writeSchemas writes a JSON schema for every kind of the API server into a folder: GROUP_kind_VERSION.json, where the
// group is v1 for the kinds without one.
func writeSchemas(t *testing.T, config *rest.Config) string {
	t.Helper()
	dir := t.TempDir()
	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := api.OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := path.Schema("application/json")
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Components struct {
				Schemas map[string]map[string]any `json:"schemas"`
			} `json:"components"`
		}
		if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), "#/components/schemas/", "#/definitions/")), &doc); err != nil {
			t.Fatal(err)
		}
		for _, schema := range doc.Components.Schemas {
			closeObjects(schema)
		}
		for name, schema := range doc.Components.Schemas {
			kinds, ok := schema["x-kubernetes-group-version-kind"].([]any)
			if !ok || len(kinds) != 1 {
				continue // part of others
			}
			kind := kinds[0].(map[string]any)
			group, version := kind["group"].(string), kind["version"].(string)
			if group == "" {
				group = version
			}
			out, err := json.Marshal(map[string]any{"$ref": "#/definitions/" + name, "definitions": doc.Components.Schemas})
			if err != nil {
				t.Fatal(err)
			}
			file := fmt.Sprintf("%s_%s_%s.json", group, strings.ToLower(kind["kind"].(string)), version)
			if err := os.WriteFile(filepath.Join(dir, file), out, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// closeObjects has a schema refuse fields that it does not name.
func closeObjects(schema map[string]any) {
	delete(schema, "format") // Kubernetes has its own
	properties, ok := schema["properties"].(map[string]any)
	if open, _ := schema["x-kubernetes-preserve-unknown-fields"].(bool); ok && !open && schema["additionalProperties"] == nil {
		schema["additionalProperties"] = false
	}
	for _, p := range properties {
		closeObjects(p.(map[string]any))
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if under, ok := schema[key].(map[string]any); ok {
			closeObjects(under)
		}
	}
}
