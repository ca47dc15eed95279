package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// resolverImages is a repeatable flag: the images of members of pools, by engine.
type resolverImages map[v1alpha1.ResolverEngine]string

// defaultResolverImages are those that are built with a version.
func defaultResolverImages(version string) resolverImages {
	images := resolverImages{}
	for _, e := range []v1alpha1.ResolverEngine{v1alpha1.EngineUnbound, v1alpha1.EngineKnotResolver, v1alpha1.EngineRecursor} {
		images[e] = "fingerpost/resolver-" + strings.ToLower(string(e)) + ":" + version
	}
	return images
}

func (i resolverImages) Set(text string) error {
	name, image, found := strings.Cut(text, "=")
	if !found || image == "" {
		return fmt.Errorf("%q is not ENGINE=IMAGE", text)
	}
	product, err := engine.ParseProduct(name)
	if err != nil {
		return err
	}
	i[v1alpha1.ResolverEngine(product)] = image
	return nil
}

func (i resolverImages) String() string {
	var texts []string
	for _, e := range slices.Sorted(maps.Keys(i)) {
		texts = append(texts, string(e)+"="+i[e])
	}
	return strings.Join(texts, ",")
}

func (resolverImages) Type() string { return "image" }
