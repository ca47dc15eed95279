package render_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
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
			for _, e := range slices.Sorted(maps.Keys(rendered.Unsupported)) {
				for _, u := range rendered.Unsupported[e] {
					fmt.Fprintf(&out, "# %s does not do %s\n", e, u)
				}
			}
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
