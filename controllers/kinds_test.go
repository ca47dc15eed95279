package controllers_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/config/crd"
	"github.com/fingerpost-dns/fingerpost/controllers"
)

// definitions is a cluster that has these CustomResourceDefinitions.
type definitions []*apiextensionsv1.CustomResourceDefinition

func (d definitions) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	i := slices.IndexFunc(d, func(c *apiextensionsv1.CustomResourceDefinition) bool { return c.Name == key.Name })
	if i < 0 {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "customresourcedefinitions"}, key.Name)
	}
	d[i].DeepCopyInto(object.(*apiextensionsv1.CustomResourceDefinition))
	return nil
}

func (definitions) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nobody may list them")
}

func TestCheckKinds(t *testing.T) {
	spec := func(c *apiextensionsv1.CustomResourceDefinition) map[string]apiextensionsv1.JSONSchemaProps {
		return c.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties
	}
	for name, c := range map[string]struct {
		change func(installed definitions) definitions
		says   []string // none: they will do
	}{
		"those of the manager will do": {func(d definitions) definitions { return d }, nil},
		"newer ones will do": {func(d definitions) definitions {
			spec(d[0])["new"] = apiextensionsv1.JSONSchemaProps{Type: "string"}
			return d
		}, nil},
		"a field that is missing": {func(d definitions) definitions {
			delete(spec(d[0]), "networks")
			return d
		}, []string{"datacenters.fingerpost.dev lacks spec.networks. Install those", "crds.enabled=true"}},
		"a field in a list": {func(d definitions) definitions {
			delete(spec(d[0])["serverGroups"].Items.Schema.Properties, "replicas")
			return d
		}, []string{"lacks spec.serverGroups[].replicas. "}},
		"a value that may not be given": {func(d definitions) definitions {
			role := spec(d[0])["role"]
			role.Enum = role.Enum[:1]
			spec(d[0])["role"] = role
			return d
		}, []string{"lacks spec.role=Witness. "}},
		"many fields are counted": {func(d definitions) definitions {
			clear(spec(d[0]))
			return d
		}, []string{" and ", " more. "}},
		"kinds that are not there": {func(d definitions) definitions {
			return d[2:]
		}, []string{"datacenters.fingerpost.dev is not there; dnszones.fingerpost.dev is not there. "}},
		"a version that is not served": {func(d definitions) definitions {
			d[1].Spec.Versions[0].Served = false
			return d
		}, []string{"dnszones.fingerpost.dev lacks version v1alpha1. "}},
		"a kind without status": {func(d definitions) definitions {
			d[1].Spec.Versions[0].Subresources = nil
			return d
		}, []string{"dnszones.fingerpost.dev lacks subresource status. "}},
		"a kind that is not established": {func(d definitions) definitions {
			d[1].Status.Conditions = nil
			return d
		}, []string{"dnszones.fingerpost.dev lacks acceptance by the API server. "}},
	} {
		t.Run(name, func(t *testing.T) {
			built, installed := builtKinds(t), definitions(builtKinds(t))
			for _, d := range installed {
				d.Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue}}
			}
			err := controllers.CheckKinds(t.Context(), c.change(installed), built)
			if len(c.says) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[*controllers.KindsError](err); !ok {
				t.Fatalf("error %v, wanted a KindsError", err)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("it says %q, wanted %q in it", err, text)
				}
			}
		})
	}
}

func builtKinds(t *testing.T) []*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	built, err := crd.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	return built
}
