package v1alpha1_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// minimal returns an object of each kind with what is required and nothing else, by kind. The Datacenter, which is in no
// namespace, has the namespace in its name.
func minimal(namespace string) map[string]client.Object {
	m := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: namespace} }
	return map[string]client.Object{
		"Datacenter": &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: "dc-" + namespace}, Spec: v1alpha1.DatacenterSpec{Region: "north"}},
		"DNSZone": &v1alpha1.DNSZone{ObjectMeta: m("pay"), Spec: v1alpha1.DNSZoneSpec{
			Name: "pay.bank", ServerGroup: "authoritative",
		}},
		"HealthProbe": &v1alpha1.HealthProbe{ObjectMeta: m("https"), Spec: v1alpha1.HealthProbeSpec{
			Type: v1alpha1.ProbeHTTPS, HTTPS: &v1alpha1.HTTPSProbe{},
		}},
		"DynamicRecord": &v1alpha1.DynamicRecord{ObjectMeta: m("app"), Spec: v1alpha1.DynamicRecordSpec{
			ZoneRef: v1alpha1.ZoneRef{Name: "pay"}, Host: "app", Steering: v1alpha1.Steering{Policy: v1alpha1.SteeringNearest},
			Pools: []v1alpha1.Pool{{Name: "a", Targets: []v1alpha1.Target{{Address: "10.1.9.9"}}}},
		}},
		"TrafficOverride": &v1alpha1.TrafficOverride{ObjectMeta: m("drain"), Spec: v1alpha1.TrafficOverrideSpec{
			Action: v1alpha1.OverrideDrain, Drain: &v1alpha1.OverrideTarget{Datacenter: "dc-b"},
			Expires: metav1.Date(2099, 12, 1, 4, 0, 0, 0, time.UTC),
		}},
		"ResolverPool": &v1alpha1.ResolverPool{ObjectMeta: m("office"), Spec: v1alpha1.ResolverPoolSpec{
			Class: "office", Members: []v1alpha1.ResolverMember{{Engine: v1alpha1.EngineUnbound}}, ClientNetworks: []v1alpha1.CIDR{"10.0.0.0/8"},
		}},
	}
}

// conditions returns the conditions in the object's status.
func conditions(t *testing.T, o client.Object) []metav1.Condition {
	t.Helper()
	switch o := o.(type) {
	case *v1alpha1.Datacenter:
		return o.Status.Conditions
	case *v1alpha1.DNSZone:
		return o.Status.Conditions
	case *v1alpha1.DynamicRecord:
		return o.Status.Conditions
	case *v1alpha1.HealthProbe:
		return o.Status.Conditions
	case *v1alpha1.ResolverPool:
		return o.Status.Conditions
	case *v1alpha1.TrafficOverride:
		return o.Status.Conditions
	}
	t.Fatalf("unknown kind %T", o)
	return nil
}

func TestFreshObjectsAreNotReady(t *testing.T) {
	c := apiServer(t)
	for kind, o := range minimal(namespace(t)) {
		t.Run(kind, func(t *testing.T) {
			if err := c.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			remove(t, c, o)
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				t.Fatal(err)
			}
			got := conditions(t, o)
			for _, condition := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionReady} {
				switch c := meta.FindStatusCondition(got, condition); {
				case c == nil:
					t.Errorf("no condition %s", condition)
				case c.Status != metav1.ConditionUnknown || c.Reason != v1alpha1.ReasonPending:
					t.Errorf("%s is %s/%s, want Unknown/%s", condition, c.Status, c.Reason, v1alpha1.ReasonPending)
				}
			}
		})
	}
}

func TestDefaultsOfAZone(t *testing.T) {
	c := apiServer(t)
	want := v1alpha1.DNSZoneSpec{
		Name: "pay.bank", ServerGroup: "authoritative",
		TTL: v1alpha1.ZoneTTL{Default: "60s", Negative: "30s", Infrastructure: "24h", Min: "0s", Max: "168h"},
		SOA: v1alpha1.ZoneSOA{Refresh: "1h", Retry: "15m", Expire: "336h"},
		AllowedRecords: []v1alpha1.AllowedRecords{{
			Namespaces: v1alpha1.NamespaceSelection{From: v1alpha1.NamespacesFromSame}, Hosts: []string{"*"},
		}},
		Guard: v1alpha1.ZoneGuard{MaxDeletePercent: ptr.To[int32](30), MinDeletes: ptr.To[int32](10)},
	}
	for name, written := range map[string]string{
		"nothing written":       `{"name": "pay.bank", "serverGroup": "authoritative"}`,
		"empty objects written": `{"name": "pay.bank", "serverGroup": "authoritative", "ttl": {}, "soa": {}, "guard": {}}`,
		"nulls written":         `{"name": "pay.bank", "serverGroup": "authoritative", "ttl": null, "soa": null, "guard": null, "allowedRecords": null}`,
	} {
		t.Run(name, func(t *testing.T) {
			o := object(t, `{"apiVersion": "fingerpost.dev/v1alpha1", "kind": "DNSZone", "metadata": {"name": "pay"}, "spec": `+written+`}`)
			if err := apply(t.Context(), c, o, namespace(t)); err != nil {
				t.Fatal(err)
			}
			z := &v1alpha1.DNSZone{}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), z); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, z.Spec); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefaultsOfAServerGroup(t *testing.T) {
	c := apiServer(t)
	want := v1alpha1.ServerGroup{
		Name: "root", Management: v1alpha1.ServerGroupManaged, MaxUDPSize: ptr.To[int32](1232), NSID: v1alpha1.SwitchDisabled,
		Limits: v1alpha1.ServerLimits{
			ResponsesPerSecond: ptr.To[int32](200), Slip: ptr.To[int32](2), QueriesPerSecond: ptr.To[int32](0),
			IPv4PrefixLength: ptr.To[int32](32), IPv6PrefixLength: ptr.To[int32](128),
		},
		Transports: v1alpha1.ServerTransports{
			TCP:     v1alpha1.TransportOpen,
			DoT:     v1alpha1.DoTTransport{Access: v1alpha1.TransportClosed, Port: 853},
			DoH:     v1alpha1.DoHTransport{Access: v1alpha1.TransportClosed, Port: 443},
			HTTPDNS: v1alpha1.HTTPDNSTransport{Access: v1alpha1.TransportClosed, Port: 80},
		},
	}
	for name, written := range map[string]string{
		"nothing written":       `{"name": "root", "management": "Managed"}`,
		"empty objects written": `{"name": "root", "management": "Managed", "limits": {}, "transports": {"dot": {}, "doh": {}, "httpdns": {}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			o := object(t, `{"apiVersion": "fingerpost.dev/v1alpha1", "kind": "Datacenter", "metadata": {"name": "dc-defaults"}, "spec": {"serverGroups": [`+written+`]}}`)
			if err := apply(t.Context(), c, o, namespace(t)); err != nil {
				t.Fatal(err)
			}
			remove(t, c, o)
			dc := &v1alpha1.Datacenter{}
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), dc); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]v1alpha1.ServerGroup{want}, dc.Spec.ServerGroups); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDurations holds Parse against the API server: what one takes, the other takes.
func TestDurations(t *testing.T) {
	c := apiServer(t)
	ns := namespace(t)
	for text, want := range map[string]time.Duration{
		"0s": 0, "30s": 30 * time.Second, "1h30m": 90 * time.Minute, "500ms": 500 * time.Millisecond, "24h": 24 * time.Hour,
		"1h1m1s1ms": time.Hour + time.Minute + time.Second + time.Millisecond, "99999h": 99999 * time.Hour, "5m5m": 10 * time.Minute,
		"1d": -1, "1.5s": -1, "-5s": -1, "+5s": -1, "5": -1, "s5": -1, "5 s": -1, "5S": -1, "100000s": -1, "1us": -1, "1ns": -1, "1h1m1s1ms1s": -1, "5s\n": -1,
	} {
		t.Run(text, func(t *testing.T) {
			d := v1alpha1.Duration(text)
			r, ok := minimal(ns)["DynamicRecord"].(*v1alpha1.DynamicRecord)
			if !ok {
				t.Fatal("not a DynamicRecord")
			}
			r.Spec.Objectives.RTO = &d
			err := c.Create(t.Context(), r, client.DryRunAll)
			got, parseErr := d.Parse()
			if want < 0 {
				if err == nil || parseErr == nil {
					t.Errorf("not a duration; the API server says %v, Parse says %v", err, parseErr)
				}
				return
			}
			if err != nil || parseErr != nil || got != want {
				t.Errorf("want %v; Parse gives %v, %v; the API server says %v", want, got, parseErr, err)
			}
		})
	}
	if _, err := v1alpha1.Duration("").Parse(); err == nil {
		t.Error("a duration that was left out parses")
	}
}

// TestLargestZone holds that the limits fit together: a zone with as many entries as each list may have is admitted, within the
// cost that the API server spends on one object.
func TestLargestZone(t *testing.T) {
	c := apiServer(t)
	z, ok := minimal(namespace(t))["DNSZone"].(*v1alpha1.DNSZone)
	if !ok {
		t.Fatal("not a DNSZone")
	}
	for i := range 32 {
		z.Spec.TTL.Classes = append(z.Spec.TTL.Classes, v1alpha1.TTLClass{Name: fmt.Sprintf("class-%d", i), TTL: "5s"})
	}
	for i := range 1000 {
		r := v1alpha1.ZoneRecord{
			Name: fmt.Sprintf("host-%d.%s", i, strings.Repeat("label.", 10)+"end"), Type: "AAAA", TTL: &v1alpha1.RecordTTL{Class: "class-1"},
		}
		for j := range 4 {
			r.Values = append(r.Values, fmt.Sprintf("2001:db8:1111:2222:3333:4444:%x:%x", i, j))
		}
		z.Spec.Records = append(z.Spec.Records, r)
	}
	for i := range 64 {
		z.Spec.RecordsFrom = append(z.Spec.RecordsFrom, v1alpha1.RecordsSource{ConfigMapKeyRef: &v1alpha1.ConfigMapKeyRef{
			Name: fmt.Sprintf("part-%d.%s", i, strings.Repeat("long.", 40)+"name"), Key: "zonefile",
		}})
		grant := v1alpha1.AllowedRecords{Namespaces: v1alpha1.NamespaceSelection{From: v1alpha1.NamespacesFromAll}}
		for j := range 16 {
			grant.Hosts = append(grant.Hosts, fmt.Sprintf("*.host-%d-%d.%s", i, j, strings.Repeat("label.", 10)+"end"))
		}
		z.Spec.AllowedRecords = append(z.Spec.AllowedRecords, grant)
	}
	for i := range 128 {
		grant := v1alpha1.AllowedChildren{Namespaces: v1alpha1.NamespaceSelection{From: v1alpha1.NamespacesFromAll}}
		for j := range 16 {
			grant.Names = append(grant.Names, fmt.Sprintf("*.child-%d-%d.%s", i, j, strings.Repeat("label.", 10)+"pay.bank"))
		}
		z.Spec.AllowedChildren = append(z.Spec.AllowedChildren, grant)
	}
	if err := c.Create(t.Context(), z); err != nil {
		t.Fatalf("the largest zone was refused: %v", err)
	}
	z.Spec.Records = append(z.Spec.Records, v1alpha1.ZoneRecord{Name: "one-more", Type: "A", Values: []string{"10.1.0.1"}})
	if err := c.Update(t.Context(), z); err == nil || !strings.Contains(err.Error(), "spec.records: Too many: 1001: must have at most 1000 items") {
		t.Errorf("1,001 records: %v", err)
	}
}

func TestZonesAreSelectedByNameAndGroup(t *testing.T) {
	c := apiServer(t)
	ns := namespace(t)
	for _, name := range []string{"pay.bank", "trade.bank"} {
		z := &v1alpha1.DNSZone{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns}, Spec: v1alpha1.DNSZoneSpec{Name: name, ServerGroup: "group-of-" + ns}}
		if err := c.Create(t.Context(), z); err != nil {
			t.Fatal(err)
		}
	}
	for selector, want := range map[string][]string{
		"spec.name=trade.bank":                                       {"trade.bank"},
		"spec.serverGroup=group-of-" + ns:                            {"pay.bank", "trade.bank"},
		"spec.serverGroup=group-of-" + ns + ",spec.name!=trade.bank": {"pay.bank"},
	} {
		got := strings.Fields(kubectl(t, "get", "dnszones", "--namespace", ns, "--field-selector", selector, "-o", "jsonpath={.items[*].spec.name}"))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s selects %v, want %v", selector, got, want)
		}
	}
}

// TestColumns holds what `kubectl get` shows: the columns of the design, by the kinds' short names, filled from a status that
// controllers may write.
func TestColumns(t *testing.T) {
	c := apiServer(t)
	ns := namespace(t)
	objects := minimal(ns)
	now := metav1.Now()
	condition := func(conditionType, reason string, status metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{Type: conditionType, Status: status, Reason: reason, LastTransitionTime: now}
	}
	fill := map[string]func(client.Object){
		"Datacenter": func(o client.Object) {
			o.(*v1alpha1.Datacenter).Status = v1alpha1.DatacenterStatus{
				ObservedGeneration: 1,
				Conditions:         []metav1.Condition{condition(v1alpha1.ConditionReady, v1alpha1.ReasonReady, metav1.ConditionTrue)},
				ServersReady:       "3/4", Synced: "2/3",
				Servers: []v1alpha1.ServerStatus{
					{Group: "root", Name: "s1", State: v1alpha1.ServerConnected, Version: "v0.1.0", Zones: "1/1"},
					{Group: "authoritative", Name: "s1", State: v1alpha1.ServerDisconnected},
				},
			}
		},
		"DNSZone": func(o client.Object) {
			o.(*v1alpha1.DNSZone).Status = v1alpha1.DNSZoneStatus{
				ObservedGeneration: 1,
				Conditions: []metav1.Condition{
					condition(v1alpha1.ConditionReady, v1alpha1.ReasonNoServers, metav1.ConditionFalse),
					condition(v1alpha1.ConditionDelegated, v1alpha1.ReasonDelegated, metav1.ConditionTrue),
				},
				Published:  &v1alpha1.PublishedVersion{Serial: 4026112201, Digest: "d1", Records: 7},
				Programmed: "3/4", Parent: "dns-root/root", Mode: v1alpha1.ZoneModePrimary, Records: 7, NameServers: []string{"ns-dc-a.pay.bank"},
				Datacenters:   []v1alpha1.ZoneDatacenterStatus{{Name: "dc-a", Servers: "2/2", Serial: ptr.To[int64](4026112201)}, {Name: "dc-b", Servers: "1/2"}},
				Findings:      []v1alpha1.Finding{{Source: "configmap/legacy/zone", Line: 812, Record: "x", Reason: v1alpha1.FindingSyntaxError, Message: "m"}},
				FindingsTotal: 1,
			}
		},
	}
	for kind, test := range map[string]struct {
		shortName      string
		columns, wider string
		row            string // of -o wide, AGE left out; empty: not looked at
	}{
		"Datacenter":      {"dc", "NAME READY SERVERS SYNCED VANTAGE AGE", "", "dc-" + ns + " True 3/4 2/3"},
		"DNSZone":         {"dz", "NAME ZONE SERIAL PROGRAMMED DELEGATED READY AGE", "PARENT GROUP MODE RECORDS REASON", "pay pay.bank 4026112201 3/4 True False dns-root/root authoritative Primary 7 NoServers"},
		"DynamicRecord":   {"dr", "NAME HOST POLICY HEALTHY SERVING TTL READY AGE", "WORST-FAILOVER OVERRIDE REASON", "app app Nearest Unknown Pending"},
		"HealthProbe":     {"hp", "NAME TYPE INTERVAL USED-BY UP DOWN READY AGE", "", "https HTTPS 10s Unknown"},
		"ResolverPool":    {"rp", "NAME CLASS ENGINES READY-MEMBERS READY AGE", "DATACENTERS VIP", "office office Unknown"},
		"TrafficOverride": {"to", "NAME ACTION TARGET EXPIRES SAFE-AT READY AGE", "", "drain Drain 2099-12-01T04:00:00Z Unknown"},
	} {
		t.Run(kind, func(t *testing.T) {
			o := objects[kind]
			if err := c.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			remove(t, c, o)
			if f := fill[kind]; f != nil {
				f(o)
				wanted := asMap(t, o)["status"]
				if err := c.Status().Update(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(wanted, asMap(t, o)["status"]); diff != "" {
					t.Errorf("the API server changes the status (-written +kept):\n%s", diff)
				}
			}
			header := func(args ...string) string {
				out := kubectl(t, append([]string{"get", test.shortName, "--namespace", ns}, args...)...)
				return strings.Join(strings.Fields(strings.SplitN(out, "\n", 2)[0]), " ")
			}
			if got := header(); got != test.columns {
				t.Errorf("columns\n%s, want\n%s", got, test.columns)
			}
			if got, want := header("-o", "wide"), strings.TrimSpace(test.columns+" "+test.wider); got != want {
				t.Errorf("wide columns\n%s, want\n%s", got, want)
			}
			out := kubectl(t, "get", test.shortName, o.GetName(), "--namespace", ns, "-o", "wide", "--no-headers")
			row := slices.DeleteFunc(strings.Fields(out), func(cell string) bool {
				_, err := time.ParseDuration(cell)
				return err == nil && cell != "10s" || cell == "<none>"
			})
			if got := strings.Join(row, " "); got != test.row {
				t.Errorf("row\n%s, want\n%s", got, test.row)
			}
		})
	}
}

func TestOneCategoryHasAllKinds(t *testing.T) {
	c := apiServer(t)
	ns := namespace(t)
	for _, o := range minimal(ns) {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		remove(t, c, o)
	}
	got := strings.Fields(kubectl(t, "get", "dns", "--namespace", ns, "-o", "name"))
	slices.Sort(got)
	want := []string{
		"datacenter.fingerpost.dev/dc-" + ns, "dnszone.fingerpost.dev/pay", "dynamicrecord.fingerpost.dev/app",
		"healthprobe.fingerpost.dev/https", "resolverpool.fingerpost.dev/office", "trafficoverride.fingerpost.dev/drain",
	}
	if !slices.Equal(got, want) {
		t.Errorf("kubectl get dns shows %v, want %v", got, want)
	}
}

func TestExplain(t *testing.T) {
	apiServer(t)
	for field, want := range map[string]string{
		"datacenters":                     "A DNS label of at most 60 characters",
		"dnszones.spec.records.values":    `The value of a TXT record is the text itself`,
		"dnszones.spec.ttl.negative":      "Default: 30s.",
		"datacenters.spec.role":           "ENUM: Full Witness",
		"trafficoverrides.spec.expires":   `"2099-12-01T04:00:00Z"`,
		"dnszones.spec.soa.serialFloor":   "FIELD: serialFloor <integer>",
		"dnszones.spec.datacenters.names": "FIELD: names <[]string>",
	} {
		got := strings.Join(strings.Fields(kubectl(t, "explain", field)), " ")
		if !strings.Contains(strings.ToLower(got), strings.ToLower(want)) {
			t.Errorf("kubectl explain %s does not say %q:\n%s", field, want, got)
		}
	}
}
