package render_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden renders the estates in testdata: in.yaml holds the objects, want what becomes of
// each zone, record by record, and what is found wrong with it.
func TestGolden(t *testing.T) {
	goldens(t, "testdata/*.txtar", "want", func(t *testing.T, in []byte) string {
		t.Helper()
		return describe(t, parseEstate(t, in))
	})
}

// goldens holds for each story that become makes of its first file what stands in its second; with -update it is written
// there, under the name want.
func goldens(t *testing.T, pattern, want string, become func(t *testing.T, in []byte) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := become(t, archive.Files[0].Data)
			if *update {
				archive.Files = append(archive.Files[:1], txtar.File{Name: want, Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(archive.Files) != 2 {
				t.Fatalf("%s has no want; run with -update", file)
			}
			if diff := cmp.Diff(string(archive.Files[1].Data), got); diff != "" {
				t.Errorf("%s\n(-want +got)\n%s", bytes.TrimSpace(archive.Comment), diff)
			}
		})
	}
}

// world is an estate with the ConfigMaps that its zones import.
type world struct {
	render.Estate
	dynamic    []*v1alpha1.DynamicRecord
	probes     map[types.NamespacedName]*v1alpha1.HealthProbe
	configMaps map[types.NamespacedName]*corev1.ConfigMap
	overrides  []*v1alpha1.TrafficOverride
	reports    []reported
	missing    map[types.NamespacedName]render.Refusal // Secrets
	pools      []*v1alpha1.ResolverPool
}

func parseEstate(t testing.TB, data []byte) *world {
	t.Helper()
	w := &world{configMaps: map[types.NamespacedName]*corev1.ConfigMap{}, probes: map[types.NamespacedName]*v1alpha1.HealthProbe{}}
	w.missing = map[types.NamespacedName]render.Refusal{}
	w.Incumbents = map[zone.Name]types.NamespacedName{}
	w.NamespaceLabels = map[string]map[string]string{}
	label := func(namespace string) {
		w.NamespaceLabels[namespace] = map[string]string{"kubernetes.io/metadata.name": namespace}
	}
	for i, doc := range bytes.Split(data, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatal(err)
		}
		read := func(into any) {
			if err := yaml.UnmarshalStrict(doc, into); err != nil {
				t.Fatalf("document %d: %v", i+1, err)
			}
		}
		switch kind.Kind {
		case "Estate":
			var e struct {
				metav1.TypeMeta `json:",inline"`
				ApexNamespaces  []string          `json:"apexNamespaces"`
				Incumbents      map[string]string `json:"incumbents"`
			}
			read(&e)
			w.ApexNamespaces = e.ApexNamespaces
			for name, holder := range e.Incumbents {
				namespace, object, _ := strings.Cut(holder, "/")
				w.Incumbents[mustName(t, name)] = types.NamespacedName{Namespace: namespace, Name: object}
			}
		case "Datacenter":
			dc := &v1alpha1.Datacenter{}
			read(dc)
			w.Datacenters = append(w.Datacenters, dc)
		case "DNSZone":
			z := &v1alpha1.DNSZone{}
			read(z)
			z.UID, z.Generation = types.UID(z.Namespace+"/"+z.Name), 1
			w.Zones = append(w.Zones, z)
			label(z.Namespace)
		case "DynamicRecord":
			r := &v1alpha1.DynamicRecord{}
			read(r)
			w.dynamic = append(w.dynamic, r)
			label(r.Namespace)
		case "HealthProbe":
			p := &v1alpha1.HealthProbe{}
			read(p)
			w.probes[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = p
		case "TrafficOverride":
			o := &v1alpha1.TrafficOverride{}
			read(o)
			w.overrides = append(w.overrides, o)
		case "Report":
			var r reported
			read(&r)
			w.reports = append(w.reports, r)
		case "MissingSecret":
			var s metav1.PartialObjectMetadata
			read(&s)
			w.missing[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = render.Refuse(v1alpha1.ReasonSecretNotFound, "there is no Secret %s/%s", s.Namespace, s.Name)
		case "ResolverPool":
			p := &v1alpha1.ResolverPool{}
			read(p)
			p.Generation = 1
			w.pools = append(w.pools, p)
		case "ConfigMap":
			cm := &corev1.ConfigMap{}
			read(cm)
			w.configMaps[types.NamespacedName{Namespace: cm.Namespace, Name: cm.Name}] = cm
		default:
			t.Fatalf("document %d has kind %q", i+1, kind.Kind)
		}
	}
	return w
}

func mustName(t testing.TB, s string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(s, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sources does what the controller does: it looks up what a zone imports.
func (w *world) sources(z *v1alpha1.DNSZone) []render.Source {
	var sources []render.Source
	for _, from := range z.Spec.RecordsFrom {
		ref := from.ConfigMapKeyRef
		src := render.Source{Name: fmt.Sprintf("configmap/%s/%s", ref.Name, ref.Key)}
		src.Missing = true
		if cm := w.configMaps[types.NamespacedName{Namespace: z.Namespace, Name: ref.Name}]; cm != nil {
			if text, ok := cm.Data[ref.Key]; ok {
				src.Text, src.Version, src.Missing = text, text, false
			}
		}
		sources = append(sources, src)
	}
	return sources
}

// describe writes what becomes of every zone, parents first: children ask what is hidden.
func describe(t testing.TB, w *world) string {
	t.Helper()
	placements := render.Hierarchy(w.Estate)
	zones := slices.Clone(w.Zones)
	slices.SortFunc(zones, func(a, b *v1alpha1.DNSZone) int {
		pa, pb := placements[render.Key(a)], placements[render.Key(b)]
		if c := pa.Apex.Labels() - pb.Apex.Labels(); c != 0 {
			return c
		}
		return strings.Compare(render.Key(a).String(), render.Key(b).String())
	})
	hidden := map[zone.Name]render.Hidden{}
	var out strings.Builder
	for _, z := range zones {
		p := placements[render.Key(z)]
		if p.Refused != nil {
			kept := ""
			if p.Keep {
				kept = " (servers keep what they have)"
			}
			fmt.Fprintf(&out, "# %s (%s): %s: %s%s\n\n", p.Apex, render.Key(z), p.Refused.Reason(), p.Refused, kept)
			continue
		}
		fmt.Fprintf(&out, "# %s (%s): served at %s\n", p.Apex, render.Key(z), p.Locations)
		steered := w.steered(z, p)
		result := render.Zone(render.Inputs{Zone: z, Placement: p, Sources: w.sources(z), Hides: hidden[p.Apex], Steered: steered}, nil)
		maps.Copy(hidden, result.Hidden)
		out.WriteString(records(result.Content))
		for _, r := range w.dynamic {
			key := types.NamespacedName{Namespace: r.Namespace, Name: r.Name}
			d := steered.Decisions[key]
			switch {
			case d == nil:
			case d.Refused != nil:
				fmt.Fprintf(&out, "- DynamicRecord %s: %s: %s\n", key, d.Refused.Reason(), d.Refused)
			case result.RefusedRecords()[key.String()] != nil:
				fmt.Fprintf(&out, "- DynamicRecord %s: %s\n", key, result.RefusedRecords()[key.String()].Reason())
			}
		}
		for _, f := range result.Findings {
			fmt.Fprintf(&out, "! %s:%d: %s: %s: %s\n", f.Source, f.Line, f.Record, f.Reason, f.Message)
		}
		out.WriteString("\n")
	}
	return out.String()
}

// steered does what the controller does: it finds the DynamicRecords of a zone.
func (w *world) steered(z *v1alpha1.DNSZone, p *render.Placement) *render.Steered {
	in := render.SteeredInputs{Zone: z, Placement: p, Probes: w.probes, Secrets: w.missing, NamespaceLabels: w.NamespaceLabels, Datacenters: map[string]*v1alpha1.Datacenter{}}
	for _, dc := range w.Datacenters {
		in.Datacenters[dc.Name] = dc
	}
	for _, r := range w.dynamic {
		if render.ZoneOf(r) == render.Key(z) {
			in.Records = append(in.Records, r)
		}
	}
	return render.SteerZone(in)
}

// inJSON writes what servers are told, on one line.
func inJSON(rdata string, m proto.Message) string {
	if err := proto.Unmarshal([]byte(rdata), m); err != nil {
		return err.Error()
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		return err.Error()
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil { // protojson varies its spaces
		return err.Error()
	}
	return compact.String()
}

func records(c *zone.Content) string {
	var out strings.Builder
	for n := range c.All() {
		for _, s := range n.RRsets {
			for rdata := range s.All() {
				text := zone.RDataString(s.Type, rdata)
				switch s.Type {
				case zone.TypeSteered:
					text = inJSON(rdata, &steeringpb.Record{})
				case zone.TypeZoneSettings:
					text = inJSON(rdata, &steeringpb.ZoneSettings{})
				}
				fmt.Fprintf(&out, "%s %d %s %s\n", n.Owner, s.TTL, zone.TypeString(s.Type), text)
			}
		}
	}
	return out.String()
}
