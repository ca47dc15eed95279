package dnsserver

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// quietSteerer is one that nobody else is told of.
func quietSteerer(t *testing.T, o steererOptions) *steerer {
	t.Helper()
	o.Self, o.View, o.Log = health.ServerID{Datacenter: "dc-a", Group: "g", Name: "1"}, &zone.View{}, logr.Discard()
	o.Report, o.Unreport = func(string, []byte) error { return nil }, func(string) {}
	o.Send, o.SetPeers, o.SendOverrides = func([]health.Envelope) {}, func([]mesh.Peer) {}, func([][]byte) {}
	o.Peers = func() int { return 3 }
	s, err := newSteerer(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// gathered is the value of each metric without labels, or of its label's value.
func gathered(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

func TestGeoDatabasesAreReadAgainWhenTheyChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "countries.mmdb")
	write := func(body []byte) {
		t.Helper()
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile("geo/testdata/countries.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	s := quietSteerer(t, steererOptions{Geo: []string{path}})
	const current = "fingerpost_dnsserver_geo_databases_current"
	s.readGeography()
	if s.geo != nil || gathered(t, s)[current] != 0 {
		t.Error("a file that is not there yet gave something")
	}
	write(good)
	s.readGeography()
	first := s.geo
	if first == nil || gathered(t, s)[current] != 1 {
		t.Fatal("a database that appeared is not read")
	}
	if s.readGeography(); s.geo != first {
		t.Error("a database that is as it was is read again")
	}
	write([]byte("no database"))
	if s.readGeography(); s.geo != first || gathered(t, s)[current] != 0 {
		t.Error("a damaged database takes away what was known, or is not told")
	}
	write(good)
	if s.readGeography(); s.geo == first || gathered(t, s)[current] != 1 {
		t.Error("a mended database is not read")
	}
}

func TestMetricsOfSteering(t *testing.T) {
	s := quietSteerer(t, steererOptions{})
	s.sources["n/a"] = &steeredSource{report: &steeringpb.RecordReport{State: steeringpb.RecordReport_FAILED_OVER, Targets: []*steeringpb.TargetReport{
		{State: steeringpb.TargetReport_UP}, {State: steeringpb.TargetReport_DOWN}, {State: steeringpb.TargetReport_DOWN},
	}}}
	s.sources["n/b"] = &steeredSource{}
	got := gathered(t, s)
	for name, want := range map[string]float64{
		"steering_targets up": 1, "steering_targets down": 2, "steering_targets unknown": 0, "steering_records failed-over": 1,
		"steering_records not-ready": 1, "steering_records preferred": 0, "mesh_peers_connected": 3, "isolated": 0, "vantage_sick": 0,
		"datacenters_unreachable": 0, "local_overrides": 0, "probes_total": 0, "probe_checks": 0,
	} {
		if value, has := got["fingerpost_dnsserver_"+name]; !has || value != want {
			t.Errorf("%s is %v, wanted %v", name, value, want)
		}
	}
	if got["fingerpost_dnsserver_probes_in_flight_limit"] < 1 {
		t.Error("there is no limit of probes in flight")
	}
	if _, has := got["fingerpost_dnsserver_geo_databases_current"]; has {
		t.Error("there are no databases, and they have a metric")
	}
}

func TestWhatProbesMayReachFollowsTheTopology(t *testing.T) {
	own := netip.MustParseAddr("10.0.0.53")
	s := quietSteerer(t, steererOptions{Own: []netip.Addr{own}})
	for _, c := range []struct {
		sentence string
		here     *steeringpb.Datacenter
		denied   map[string]bool
	}{
		{"before there is a topology the default holds", nil, map[string]bool{"10.0.0.53": true, "127.0.0.1": true, "10.0.0.1": false}},
		{"by default own addresses are denied, and the API server's", &steeringpb.Datacenter{DefaultDenied: true, DeniedNetworks: []string{"10.9.0.1/32"}},
			map[string]bool{"10.0.0.53": true, "127.0.0.1": true, "10.9.0.1": true, "10.0.0.1": false}},
		{"a stated list stands for itself", &steeringpb.Datacenter{DeniedNetworks: []string{"10.0.0.0/30"}},
			map[string]bool{"10.0.0.53": false, "127.0.0.1": false, "10.0.0.1": true}},
		{"an empty one denies nothing", &steeringpb.Datacenter{}, map[string]bool{"10.0.0.53": false, "127.0.0.1": false}},
	} {
		if c.here != nil {
			c.here.Name = "dc-a"
			body, err := proto.Marshal(&steeringpb.Topology{Datacenters: []*steeringpb.Datacenter{c.here, {Name: "dc-b", DeniedNetworks: []string{"10.0.0.0/8"}}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.document(documentTopology, body); err != nil {
				t.Fatalf("%s: %v", c.sentence, err)
			}
		}
		for text, want := range c.denied {
			if got := s.denied(netip.MustParseAddr(text)); got != want {
				t.Errorf("%s: %s is denied: %v", c.sentence, text, got)
			}
		}
	}
}

func TestOwnAddresses(t *testing.T) {
	at := func(texts ...string) (list []netip.AddrPort) {
		for _, text := range texts {
			list = append(list, netip.MustParseAddrPort(text))
		}
		return list
	}
	if got := ownAddresses(at("192.0.2.1:53", "[2001:db8::1]:53")); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}) {
		t.Errorf("addresses that are stated are %v", got)
	}
	got := ownAddresses(at("0.0.0.0:53"))
	if slices.ContainsFunc(got, netip.Addr.IsUnspecified) || !slices.Contains(got, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("all addresses of this machine are %v", got)
	}
}

func TestACertificateThatTheHubCannotReadStays(t *testing.T) {
	s := quietSteerer(t, steererOptions{})
	certificate, key := selfSigned(t, "probe")
	take := func(certificates ...*steeringpb.Certificate) {
		t.Helper()
		body, err := proto.Marshal(&steeringpb.Certificates{Certificates: certificates})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.document(documentSecrets, body); err != nil {
			t.Fatal(err)
		}
	}
	take(&steeringpb.Certificate{Secret: "n/a", Certificate: certificate, Key: key})
	take(&steeringpb.Certificate{Secret: "n/a"}, &steeringpb.Certificate{Secret: "n/b"})
	if _, err := s.certificate("n/a"); err != nil {
		t.Error(err)
	}
	if _, err := s.certificate("n/b"); err == nil {
		t.Error("one that never was is there")
	}
	take()
	if _, err := s.certificate("n/a"); err == nil {
		t.Error("one that nobody names any more is there")
	}
}
