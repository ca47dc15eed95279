//go:build linux

package estate

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAnAddressInUseIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	at := netip.MustParseAddrPort(taken.Addr().String())
	if err := free(t.Context(), []netip.AddrPort{at}); err == nil || !strings.Contains(err.Error(), at.String()) {
		t.Errorf("the error %v does not name %s", err, at)
	}
}

func TestTheSamplesDeclareTwoServersInEveryGroup(t *testing.T) {
	t.Chdir("../..")
	servers, err := declaredServers()
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string]int{}
	for _, s := range servers {
		groups[s.Datacenter+"/"+s.Group]++
	}
	want := map[string]int{"dc-a/root": 2, "dc-a/authoritative": 2, "dc-b/root": 2, "dc-b/authoritative": 2}
	if diff := cmp.Diff(want, groups); diff != "" {
		t.Error(diff)
	}
}

func TestMetricsAreSummedOverTheirSeries(t *testing.T) {
	text := "# HELP zones_total Zones.\nzones_total{group=\"a\",zone=\"a b}\"} 2\nzones_total{group=\"a\",zone=\"b\"} 3\nzones 7\nbad x\n"
	for name, test := range map[string]struct {
		metric string
		labels []string
		want   float64
	}{
		"all series":                   {"zones_total", nil, 5},
		"those with a label":           {"zones_total", []string{`zone="b"`}, 3},
		"those with all of the labels": {"zones_total", []string{`zone="b"`, `group="a"`}, 3},
		"without labels":               {"zones", nil, 7},
		"a metric that there is not":   {"zone", nil, 0},
		"what is not a number":         {"bad", nil, 0},
	} {
		if got := Sum(text, test.metric, test.labels...); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
