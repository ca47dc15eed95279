package charts_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestLint(t *testing.T) {
	for _, helm := range helms {
		for _, values := range valuesFiles(t) {
			t.Run(helm+" "+filepath.Base(values), func(t *testing.T) {
				t.Parallel()
				args := []string{"lint", "--strict", chart}
				if values != "" {
					args = append(args, "--values", values)
				}
				mustTool(t, helm, args...)
			})
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	mustTool(t, "helm-unittest", "--strict", chart)
}

// TestBothHelmsRenderTheSame also has the YAML of every template parsed strictly.
func TestBothHelmsRenderTheSame(t *testing.T) {
	for _, values := range valuesFiles(t) {
		t.Run(filepath.Base(values), func(t *testing.T) {
			t.Parallel()
			var args []string
			if values != "" {
				args = []string{"--values", values}
			}
			three, four := render(t, "helm3", args...), render(t, "helm4", args...)
			if len(three) != len(four) {
				t.Fatalf("Helm 3 makes %d objects, Helm 4 %d", len(three), len(four))
			}
			for i := range three {
				if diff := cmp.Diff(three[i].Object, four[i].Object); diff != "" {
					t.Errorf("%s %s differs:\n%s", three[i].GetKind(), three[i].GetName(), diff)
				}
			}
		})
	}
}

func TestWrongValuesAreRefusedWithTheirPath(t *testing.T) {
	for name, c := range map[string]struct{ values, path, says string }{
		"a name that is none of the values":   {"replica: 3", "", "replica"},
		"a text for a number":                 {"replicas: two", "/replicas", "got string, want integer"},
		"a negative number":                   {"replicas: -1", "/replicas", "minimum"},
		"a word that is not one of those":     {"image: {pullPolicy: Sometimes}", "/image/pullPolicy", "IfNotPresent"},
		"a digest without algorithm":          {"image: {digests: {manager: abc}}", "/image/digests/manager", "pattern"},
		"an endpoint without port":            {"hub: {endpoints: [hub.example.net]}", "/hub/endpoints/0", "pattern"},
		"an endpoint given twice":             {"hub: {endpoints: ['a:1', 'a:1']}", "/hub/endpoints", "equal"},
		"a duration without unit":             {"leaderElection: {leaseDuration: '60'}", "/leaderElection/leaseDuration", "pattern"},
		"a number for a label":                {"podLabels: {a: 1}", "/podLabels/a", "got number, want string"},
		"a namespace in capitals":             {"watchNamespaces: [Payments]", "/watchNamespaces/0", "pattern"},
		"an argument that is no flag":         {"extraArgs: [verbose]", "/extraArgs/0", "pattern"},
		"a datacenter with a bad name":        {"datacenters: {DC_A: {}}", "/datacenters", "DC_A"},
		"a field that no datacenter has":      {"datacenters: {dc-a: {network: [10.0.0.0/8]}}", "/datacenters/dc-a", "network"},
		"one text for a list of networks":     {"datacenters: {dc-a: {networks: 10.0.0.0/8}}", "/datacenters/dc-a/networks", "got string, want array"},
		"a group without management":          {"datacenters: {dc-a: {serverGroups: [{name: root}]}}", "/datacenters/dc-a/serverGroups/0", "management"},
		"a way to be managed that is none":    {"datacenters: {dc-a: {serverGroups: [{name: root, management: Auto}]}}", "/datacenters/dc-a/serverGroups/0/management", "Managed"},
		"a name for the root zone":            {"rootZone: {spec: {name: corp, serverGroup: root}}", "/rootZone/spec", "name"},
		"a root zone whose records are a map": {"rootZone: {spec: {records: {a: b}}}", "/rootZone/spec/records", "want array"},
	} {
		for _, helm := range helms {
			t.Run(helm+" "+name, func(t *testing.T) {
				t.Parallel()
				file := filepath.Join(t.TempDir(), "values.yaml")
				if err := os.WriteFile(file, []byte(c.values), 0o644); err != nil {
					t.Fatal(err)
				}
				_, err := tool(t, os.DevNull, helm, "template", chart, "--values", file)
				if err == nil {
					t.Fatal("it renders")
				}
				if text := err.Error(); !strings.Contains(text, "at '"+c.path+"'") || !strings.Contains(text, c.says) {
					t.Errorf("it says:\n%s\nwanted the path '%s' and %q", text, c.path, c.says)
				}
			})
		}
	}
}

// TestKindsAreThoseOfTheRepository compares the CRDs of the chart with those of config/crd/bases, and with what fits.
func TestKindsAreThoseOfTheRepository(t *testing.T) {
	const most = 200 << 10
	bases, err := filepath.Glob("../config/crd/bases/*.yaml")
	if err != nil || len(bases) == 0 {
		t.Fatalf("%v %v", bases, err)
	}
	specs := map[string]any{}
	for _, o := range render(t, "helm4", "--show-only", "templates/crds.yaml") {
		specs[o.GetName()] = o.Object["spec"]
		text, err := yaml.Marshal(o.Object)
		if err != nil || len(text) > most {
			t.Errorf("%s has %d octets (%v)", o.GetName(), len(text), err)
		}
	}
	if len(specs) != len(bases) {
		t.Errorf("the chart has %d kinds, the repository %d", len(specs), len(bases))
	}
	for _, base := range bases {
		text, err := os.ReadFile(base)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range parse(t, string(text)) {
			if !reflect.DeepEqual(o.Object["spec"], specs[o.GetName()]) {
				t.Errorf("%s: %s", o.GetName(), cmp.Diff(o.Object["spec"], specs[o.GetName()]))
			}
		}
	}
}

func TestPackageIsSmallAndHasWhatItNeeds(t *testing.T) {
	dir := t.TempDir()
	for _, helm := range helms {
		to := filepath.Join(dir, helm)
		mustTool(t, helm, "package", chart, "--destination", to)
		packed, err := filepath.Glob(to + "/fingerpost-*.tgz")
		if err != nil || len(packed) != 1 {
			t.Fatalf("%v %v", packed, err)
		}
		info, err := os.Stat(packed[0])
		if err != nil || info.Size() > 1<<20 {
			t.Errorf("%s: %v (%v)", helm, info, err)
		}
		if diff := cmp.Diff(template(t, helm, chart), template(t, helm, packed[0])); diff != "" {
			t.Errorf("%s: the package renders otherwise:\n%s", helm, diff)
		}
	}
}

// TestAlertsAreOfMetricsThatExist looks for the names of metrics in the sources.
func TestAlertsAreOfMetricsThatExist(t *testing.T) {
	text, err := os.ReadFile(chart + "/files/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations map[string]string
		}
	}
	if err := yaml.Unmarshal(text, &groups); err != nil {
		t.Fatal(err)
	}
	known := sources(t, "../dnsserver/*.go", "../controllers/metrics.go", "../resolver/metrics.go")
	metric := regexp.MustCompile(`fingerpost_(?:dnsserver|hub|resolver)_[a-z_]+`)
	alerts := 0
	for _, g := range groups {
		for _, r := range g.Rules {
			alerts++
			for _, name := range metric.FindAllString(r.Expr, -1) {
				short := strings.TrimPrefix(strings.TrimPrefix(name, "fingerpost_dnsserver_"), "fingerpost_resolver_")
				if !strings.Contains(known, `"`+name+`"`) && !strings.Contains(known, `("`+short+`"`) && !strings.Contains(known, `prefix + "`+short+`"`) {
					t.Errorf("%s: there is no metric %s", r.Alert, name)
				}
			}
			for _, annotation := range []string{"summary", "description", "action"} {
				if r.Annotations[annotation] == "" {
					t.Errorf("%s: no %s", r.Alert, annotation)
				}
			}
		}
	}
	if alerts < 10 {
		t.Errorf("%d alerts", alerts)
	}
}

func sources(t *testing.T, patterns ...string) string {
	t.Helper()
	var all strings.Builder
	for _, p := range patterns {
		files, err := filepath.Glob(p)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v %v", p, files, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
	}
	return all.String()
}
