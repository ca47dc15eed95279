package v1alpha1_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

const crdFolder = "../../config/crd/bases"

// oldestKubernetes is the oldest release that the CRDs are made for: their rules use nothing newer.
var oldestKubernetes = version.MajorMinor(1, 34)

// crds returns the CRDs of config/crd/bases by kind.
func crds(t *testing.T) map[string]*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(crdFolder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs in %s (%v)", crdFolder, err)
	}
	byKind := make(map[string]*apiextensionsv1.CustomResourceDefinition)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(text, crd); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		byKind[crd.Spec.Names.Kind] = crd
	}
	return byKind
}

// rule is one CEL rule and its estimated cost, as the API server computes it when a CRD is created.
type rule struct {
	path, text string
	cost       uint64 // worst case of one evaluation times the number of places where it may be evaluated in one object
}

// TestCostOfRulesIsFarFromTheLimits prints what the rules of each CRD cost. The API server refuses a CRD above its limits; what one
// release estimates may not be what the next one does, so that we stay well below.
func TestCostOfRulesIsFarFromTheLimits(t *testing.T) {
	const (
		perRule = validation.StaticEstimatedCostLimit * 30 / 100
		perCRD  = validation.StaticEstimatedCRDCostLimit * 30 / 100
	)
	for kind, crd := range crds(t) {
		t.Run(kind, func(t *testing.T) {
			schema := &apiextensions.JSONSchemaProps{}
			if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, schema, nil); err != nil {
				t.Fatal(err)
			}
			rules := costs(t, "", schema, validation.RootCELContext(schema))
			slices.SortFunc(rules, func(a, b rule) int {
				if a.cost != b.cost {
					return int(int64(b.cost) - int64(a.cost))
				}
				return strings.Compare(a.path, b.path)
			})
			var total uint64
			var table strings.Builder
			w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
			for i, r := range rules {
				total += r.cost
				if r.cost > perRule {
					t.Errorf("rule costs %d of %d, over 30%%: %s: %s", r.cost, validation.StaticEstimatedCostLimit, r.path, r.text)
				}
				if i < 10 {
					text := r.text
					if len(text) > 100 {
						text = text[:100] + "..."
					}
					fmt.Fprintf(w, "%d\t %.2f%%\t %s: %s\n", r.cost, float64(r.cost)*100/validation.StaticEstimatedCostLimit, r.path, text)
				}
			}
			if total > perCRD {
				t.Errorf("all rules cost %d of %d, over 30%%", total, validation.StaticEstimatedCRDCostLimit)
			}
			w.Flush()
			t.Logf("%s: %d rules cost %d, %.2f%% of the limit of a CRD; the most expensive, with their share of the limit of a rule:\n%s",
				kind, len(rules), total, float64(total)*100/validation.StaticEstimatedCRDCostLimit, table.String())
		})
	}
}

// costs compiles the rules of schema and of everything in it with what the oldest Kubernetes knows, and returns their costs.
func costs(t *testing.T, path string, schema *apiextensions.JSONSchemaProps, ctx *validation.CELSchemaContext) []rule {
	t.Helper()
	var all []rule
	if len(schema.XValidations) > 0 {
		info, err := ctx.TypeInfo()
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		compiled, err := cel.Compile(info.Schema, info.DeclType, celconfig.PerCallLimit, environment.MustBaseEnvSet(oldestKubernetes), cel.NewExpressionsEnvLoader())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for i, c := range compiled {
			text := schema.XValidations[i].Rule
			if c.Error != nil {
				t.Errorf("%s: %s: %v", path, text, c.Error)
				continue
			}
			places := c.MaxCardinality
			if ctx.MaxCardinality != nil {
				places = *ctx.MaxCardinality
			}
			all = append(all, rule{path, text, c.MaxCost * places})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		p := schema.Properties[name]
		all = append(all, costs(t, path+"."+name, &p, ctx.ChildPropertyContext(&p, name))...)
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		all = append(all, costs(t, path+"[]", schema.Items.Schema, ctx.ChildItemsContext(schema.Items.Schema))...)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		p := schema.AdditionalProperties.Schema
		all = append(all, costs(t, path+"{}", p, ctx.ChildAdditionalPropertiesContext(p))...)
	}
	return all
}

// TestCRDsAreSmall: a CRD above 256 KiB can't be applied by kubectl without --server-side.
func TestCRDsAreSmall(t *testing.T) {
	for kind, crd := range crds(t) {
		text, err := yaml.Marshal(crd)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) >= 200<<10 {
			t.Errorf("the CRD of %s has %d KiB, over 200", kind, len(text)>>10)
		}
		t.Logf("%s: %d KiB", kind, len(text)>>10)
	}
}

// TestSchemas holds rules of the design for every field of every kind: it is explained, with its default and its choices; every list and
// string has a limit and every list says how it is merged; there are no fractions, and no maps but of pods, Services and
// nodes, as Kubernetes has them.
func TestSchemas(t *testing.T) {
	for kind, crd := range crds(t) {
		t.Run(kind, func(t *testing.T) {
			root := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
			if root.Description == "" {
				t.Error("the kind has no description")
			}
			for _, part := range []string{"spec", "status"} {
				p := root.Properties[part]
				checkSchema(t, part, &p)
			}
		})
	}
}

func checkSchema(t *testing.T, path string, s *apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	if !strings.HasSuffix(path, "[]") && s.Description == "" {
		t.Errorf("%s has no description", path)
	}
	description := strings.Join(strings.Fields(s.Description), " ")
	if s.Default != nil {
		if d := strings.Trim(string(s.Default.Raw), `"`); !strings.ContainsAny(d, "{[") && !strings.Contains(description, "Default: "+d) {
			t.Errorf("%s: the description does not say `Default: %s`", path, d)
		}
	}
	for _, choice := range s.Enum {
		if c := strings.Trim(string(choice.Raw), `"`); !strings.Contains(description, c) {
			t.Errorf("%s: the description does not explain %s", path, c)
		}
	}
	switch s.Type {
	case "string":
		if s.MaxLength == nil && len(s.Enum) == 0 && s.Format != "date-time" {
			t.Errorf("%s: a string without a limit", path)
		}
	case "integer":
		if s.Minimum == nil {
			t.Errorf("%s: an integer without a lowest value", path)
		}
	case "array":
		if s.MaxItems == nil {
			t.Errorf("%s: a list without a limit", path)
		}
		if s.XListType == nil {
			t.Errorf("%s: a list that does not say how it is merged", path)
		}
		checkSchema(t, path+"[]", s.Items.Schema)
	case "object":
		handedOn := strings.Contains(path, ".pods.") || strings.HasSuffix(path, ".exposure.annotations") || strings.HasSuffix(path, ".nodeSelector")
		if s.AdditionalProperties != nil && (!handedOn || s.MaxProperties == nil) {
			t.Errorf("%s: a map, or one without a limit", path)
		}
	case "": // an amount such as 2Gi
		if !s.XIntOrString {
			t.Errorf("%s: no type", path)
		}
	default:
		t.Errorf("%s: type %s", path, s.Type)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if name == "selector" || name == "conditions" {
			continue // of Kubernetes
		}
		p := s.Properties[name]
		checkSchema(t, path+"."+name, &p)
	}
}
