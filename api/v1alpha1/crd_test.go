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
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
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
