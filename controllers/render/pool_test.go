package render_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/config/crd"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// TestPools renders the pools of the estates in testdata/pools: want has what members are told in each datacenter, or why
// they are told nothing.
func TestPools(t *testing.T) {
	goldens(t, "testdata/pools/*.txtar", "want.yaml", func(t *testing.T, in []byte) string {
		t.Helper()
		return pools(t, parseEstate(t, in))
	})
}

func pools(t *testing.T, w *world) string {
	t.Helper()
	var out strings.Builder
	for _, p := range w.pools {
		datacenters, err := render.PoolDatacenters(p, w.Datacenters)
		if err != nil {
			fmt.Fprintf(&out, "# %s: %s\n", p.Name, refused(t, err))
		}
		for _, dc := range datacenters {
			rendered, err := render.PoolConfig(w.poolInputs(p, dc))
			if err != nil {
				fmt.Fprintf(&out, "# %s in %s: %s\n", p.Name, dc.Name, refused(t, err))
				continue
			}
			fmt.Fprintf(&out, "# %s in %s\n%s", p.Name, dc.Name, rendered.Text)
			if again, err := pool.Decode(rendered.Text); err != nil {
				t.Errorf("agents don't read it: %v", err)
			} else if _, err := again.At(pool.Host{Engine: engine.Unbound, Files: "/f", Addresses: []netip.Addr{netip.MustParseAddr("10.1.9.7")}}); err != nil {
				t.Errorf("agents can't fill in what is theirs: %v", err)
			}
		}
	}
	return out.String()
}

func refused(t *testing.T, err error) string {
	t.Helper()
	r, is := errors.AsType[render.Refusal](err)
	if !is {
		t.Fatalf("%v is no Refusal", err)
	}
	return r.Reason() + ": " + r.Error()
}

// poolInputs does what the controller does: it finds all that a pool depends on.
func (w *world) poolInputs(p *v1alpha1.ResolverPool, dc *v1alpha1.Datacenter) render.PoolInputs {
	in := render.PoolInputs{
		Pool: p, Datacenter: dc, Datacenters: w.Datacenters, Zones: render.Hierarchy(w.Estate), Namespace: "fingerpost-system",
		Texts: map[v1alpha1.DomainName]string{}, Certificate: []byte("certificate of " + p.Name), Key: []byte("key of " + p.Name),
	}
	for _, z := range p.Spec.BlockLists.RPZ {
		if ref := z.ConfigMapKeyRef; ref != nil {
			in.Texts[z.Name] = w.configMaps[types.NamespacedName{Namespace: p.Namespace, Name: ref.Name}].Data[ref.Key]
		}
	}
	return in
}

// TestWhatProgramsCanNotDoIsSaidInWordsOfTheSpec: users know no others.
func TestWhatProgramsCanNotDoIsSaidInWordsOfTheSpec(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/pools/everything-written.txtar")
	if err != nil {
		t.Fatal(err)
	}
	w := parseEstate(t, archive.Files[0].Data)
	rendered, err := render.PoolConfig(w.poolInputs(w.pools[0], w.Datacenters[0]))
	if err != nil {
		t.Fatal(err)
	}
	for engine, want := range map[v1alpha1.ResolverEngine]string{
		v1alpha1.EngineKnotResolver: "members.threads: ", v1alpha1.EngineRecursor: "transports.dot: ", v1alpha1.EngineUnbound: "ecs.zones: ",
	} {
		if !slices.ContainsFunc(rendered.Unsupported[engine], func(u string) bool { return strings.HasPrefix(u, want) }) {
			t.Errorf("%s: nothing of %q in\n%s", engine, want, strings.Join(rendered.Unsupported[engine], "\n"))
		}
	}
	schema := specFields(t)
	for engine, all := range rendered.Unsupported {
		for _, u := range all {
			field, _, _ := strings.Cut(u, ":")
			if !schema[field] {
				t.Errorf("%s does not do %q, which is no field of the spec", engine, field)
			}
		}
	}
}

// specFields are the fields of a ResolverPool's spec, without indices.
func specFields(t *testing.T) map[string]bool {
	t.Helper()
	kinds, err := crd.Definitions()
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	var walk func(path string, s *apiextensionsv1.JSONSchemaProps)
	walk = func(path string, s *apiextensionsv1.JSONSchemaProps) {
		fields[path] = true
		if s.Items != nil {
			walk(path, s.Items.Schema)
		}
		for name, of := range s.Properties {
			walk(strings.TrimPrefix(path+"."+name, "."), &of)
		}
	}
	for _, k := range kinds {
		if k.Spec.Names.Kind == "ResolverPool" {
			spec := k.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
			walk("", &spec)
		}
	}
	return fields
}
