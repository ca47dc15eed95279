package controllers

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// KindsError reports CustomResourceDefinitions of the cluster with which a manager can't work: what it writes into
// fields that they lack would be dropped without a word.
type KindsError struct {
	Defects []string // one for each definition, each with its name; sorted; not empty
}

func (e *KindsError) Error() string {
	return "the kinds in the cluster are not those of this manager: " + strings.Join(e.Defects, "; ") +
		". Install those of its version: helm upgrade with crds.enabled=true, or manager crds print | kubectl apply --server-side --force-conflicts -f -"
}

// Reason is the reason of an Event, or of a condition.
func (*KindsError) Reason() string { return "KindsOutdated" }

// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,verbs=get,resourceNames=datacenters.fingerpost.dev;dnszones.fingerpost.dev;dynamicrecords.fingerpost.dev;healthprobes.fingerpost.dev;resolverpools.fingerpost.dev;trafficoverrides.fingerpost.dev

// CheckKinds compares the CustomResourceDefinitions of a cluster with those that a manager was built with. What lacks
// nothing of these will do, such as that of a newer version: kinds only grow. Else the error is a KindsError.
func CheckKinds(ctx context.Context, live client.Reader, built []*apiextensionsv1.CustomResourceDefinition) error {
	var defects []string
	for _, want := range built {
		var have apiextensionsv1.CustomResourceDefinition
		err := live.Get(ctx, types.NamespacedName{Name: want.Name}, &have)
		switch {
		case apierrors.IsNotFound(err):
			defects = append(defects, want.Name+" is not there")
		case err != nil:
			return fmt.Errorf("reading CustomResourceDefinition %s: %w", want.Name, err)
		default:
			if lacks := lacking(want, &have); len(lacks) > 0 {
				defects = append(defects, want.Name+" lacks "+abridged(lacks))
			}
		}
	}
	if len(defects) > 0 {
		return &KindsError{Defects: defects}
	}
	return nil
}

// abridged lists the first three of sorted texts, and says how many more there are.
func abridged(texts []string) string {
	const most = 3
	if len(texts) <= most {
		return strings.Join(texts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:most], ", "), len(texts)-most)
}

// lacking returns what the definition have does not offer of want: versions, fields, values of enumerations. It is sorted.
func lacking(want, have *apiextensionsv1.CustomResourceDefinition) []string {
	if !established(have) {
		return []string{"acceptance by the API server"}
	}
	var lacks []string
	for _, w := range want.Spec.Versions {
		i := slices.IndexFunc(have.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == w.Name && v.Served })
		if i < 0 {
			lacks = append(lacks, "version "+w.Name)
			continue
		}
		h := have.Spec.Versions[i]
		if w.Subresources != nil && w.Subresources.Status != nil && (h.Subresources == nil || h.Subresources.Status == nil) {
			lacks = append(lacks, "subresource status")
		}
		if w.Schema == nil || h.Schema == nil {
			continue // of which the API server takes none
		}
		lacks = append(lacks, lackingSchema("", w.Schema.OpenAPIV3Schema, h.Schema.OpenAPIV3Schema)...)
	}
	slices.Sort(lacks)
	return lacks
}

func established(crd *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
}

// lackingSchema returns the paths, such as spec.serverGroups[].image, under path which only want has.
func lackingSchema(path string, want, have *apiextensionsv1.JSONSchemaProps) []string {
	if want == nil {
		return nil
	}
	if have == nil {
		return []string{path}
	}
	var lacks []string
	if len(have.Enum) > 0 {
		for _, value := range want.Enum {
			if !slices.ContainsFunc(have.Enum, func(h apiextensionsv1.JSON) bool { return bytes.Equal(h.Raw, value.Raw) }) {
				lacks = append(lacks, path+"="+strings.Trim(string(value.Raw), `"`))
			}
		}
	}
	for name, field := range want.Properties {
		under := strings.TrimPrefix(path+"."+name, ".")
		if h, ok := have.Properties[name]; ok {
			lacks = append(lacks, lackingSchema(under, &field, &h)...)
		} else if have.XPreserveUnknownFields == nil || !*have.XPreserveUnknownFields {
			lacks = append(lacks, under)
		}
	}
	if want.Items != nil && have.Items != nil {
		lacks = append(lacks, lackingSchema(path+"[]", want.Items.Schema, have.Items.Schema)...)
	}
	if want.AdditionalProperties != nil && have.AdditionalProperties != nil {
		lacks = append(lacks, lackingSchema(path+".*", want.AdditionalProperties.Schema, have.AdditionalProperties.Schema)...)
	}
	return lacks
}
