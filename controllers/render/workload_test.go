package render_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// TestWorkloads renders the objects of the groups in testdata/workloads, as they are applied.
func TestWorkloads(t *testing.T) {
	goldens(t, "testdata/workloads/*.txtar", "want.yaml", func(t *testing.T, in []byte) string { t.Helper(); return workload(t, in) })
}

func workload(t *testing.T, in []byte) string {
	t.Helper()
	var place struct {
		metav1.TypeMeta `json:",inline"`
		Namespace       string   `json:"namespace"`
		Hubs            []string `json:"hubs"`
		Owned           bool     `json:"owned"`
		DefaultStorage  bool     `json:"defaultStorage"`
	}
	var dc v1alpha1.Datacenter
	documents := bytes.Split(in, []byte("\n---\n"))
	for i, into := range []any{&place, &dc} {
		if err := yaml.UnmarshalStrict(documents[i], into); err != nil {
			t.Fatal(err)
		}
	}
	if len(place.Hubs) == 0 {
		place.Hubs = []string{"fingerpost-hub.fingerpost-system.svc:8443"}
	}
	var all []render.Object
	for _, g := range dc.Spec.ServerGroups {
		all = append(all, render.Workload(render.WorkloadInputs{
			Datacenter: &dc, Group: g, Namespace: place.Namespace, Image: "fingerpost/dnsserver:test", Hubs: place.Hubs,
			Replicas: render.DeclaredServers(g), Owned: place.Owned, DefaultStorage: place.DefaultStorage,
		})...)
	}
	return manifests(t, all)
}

func TestWorkloadNames(t *testing.T) {
	long := strings.Repeat("x", 60)
	names := map[string]render.Location{}
	for _, l := range []render.Location{
		{Datacenter: "dc-a", Group: "root"}, {Datacenter: "a-b", Group: "c"}, {Datacenter: "a", Group: "b-c"}, {Datacenter: "a-b-c", Group: "d"},
		{Datacenter: "a", Group: "b-c-d"}, {Datacenter: "a-b", Group: "c-d"}, {Datacenter: long, Group: "root"}, {Datacenter: long, Group: "roots"},
		{Datacenter: "a", Group: "b--c"}, {Datacenter: "a--b", Group: "c"},
	} {
		name := render.WorkloadName(l)
		if other, taken := names[name]; taken {
			t.Errorf("%v and %v are both called %s", l, other, name)
		}
		names[name] = l
		if len(name) > 52 || !strings.HasPrefix(name, "fingerpost-") {
			t.Errorf("%v is called %s, %d characters", l, name, len(name))
		}
	}
	if names["fingerpost-dc-a-root"] != (render.Location{Datacenter: "dc-a", Group: "root"}) {
		t.Errorf("names are %v", names)
	}
}

func TestVolumesOfAGroupThatRunsStayAsTheyAre(t *testing.T) {
	in := render.WorkloadInputs{
		Datacenter: &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: "dc-a"}}, Group: v1alpha1.ServerGroup{Name: "root", Management: v1alpha1.ServerGroupManaged},
	}
	for name, c := range map[string]struct {
		storage, default_, ran bool // ran: with a volume each
		volumes                int
	}{
		"no StorageClass, then one": {default_: true, ran: false, volumes: 0},
		"a StorageClass, then none": {default_: false, ran: true, volumes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			in := in
			in.DefaultStorage = c.ran
			before := render.Workload(in)
			in.Running, in.DefaultStorage = statefulSet(t, before), c.default_
			if got := len(statefulSet(t, render.Workload(in)).Spec.VolumeClaimTemplates); got != c.volumes {
				t.Errorf("%d volumes, wanted %d", got, c.volumes)
			}
		})
	}
}

func TestClientService(t *testing.T) {
	key := render.Location{Datacenter: "dc-a", Group: "root"}
	balanced := func(addresses ...v1alpha1.IP) v1alpha1.ServerExposure {
		return v1alpha1.ServerExposure{Type: v1alpha1.ExposureLoadBalancer, Addresses: addresses}
	}
	external := func(addresses ...v1alpha1.IP) v1alpha1.ServerExposure {
		return v1alpha1.ServerExposure{Type: v1alpha1.ExposureExternalIPs, Addresses: addresses}
	}
	ports := func(port int32) v1alpha1.ServerExposure {
		e := v1alpha1.ServerExposure{Type: v1alpha1.ExposureNodePort, Addresses: []v1alpha1.IP{"192.0.2.9"}}
		if port != 0 {
			e.NodePort = &port
		}
		return e
	}
	for name, c := range map[string]struct {
		before, after v1alpha1.ServerExposure
		given         string // by the provider of load balancers
		same          bool
	}{
		"nothing has changed": {balanced(), balanced(), "192.0.2.1", true},
		"the address that the provider chose is written down":      {balanced(), balanced("192.0.2.1"), "192.0.2.1", true},
		"another address than the provider chose is wanted":        {balanced(), balanced("192.0.2.2"), "192.0.2.1", false},
		"the provider has given none yet":                          {balanced(), balanced("192.0.2.2"), "", true},
		"another static address":                                   {balanced("192.0.2.1"), balanced("192.0.2.2"), "192.0.2.1", false},
		"one address more: no second Service could have the first": {balanced("192.0.2.1"), balanced("192.0.2.1", "192.0.2.2"), "192.0.2.1", true},
		"whatever address there is":                                {balanced("192.0.2.1"), balanced(), "192.0.2.1", true},
		"from a load balancer to node ports":                       {balanced(), ports(0), "192.0.2.1", false},
		"the forwarder has another address":                        {ports(30053), func() v1alpha1.ServerExposure { e := ports(30053); e.Addresses = []v1alpha1.IP{"192.0.2.8"}; return e }(), "", true},
		"another node port":                                        {ports(30053), ports(30054), "", false},
		"any node port":                                            {ports(30053), ports(0), "", true},
		"external addresses change":                                {external("192.0.2.1"), external("192.0.2.1", "192.0.2.2"), "", false},
		"external addresses in another order":                      {external("192.0.2.2", "192.0.2.1"), external("192.0.2.1", "192.0.2.2"), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			group := func(e v1alpha1.ServerExposure) v1alpha1.ServerGroup {
				return v1alpha1.ServerGroup{Name: "root", Management: v1alpha1.ServerGroupManaged, Exposure: &e}
			}
			in := render.WorkloadInputs{Datacenter: &v1alpha1.Datacenter{ObjectMeta: metav1.ObjectMeta{Name: "dc-a"}}, Group: group(c.before)}
			live := clientServices(render.Workload(in))
			if c.given != "" {
				live[0].Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: c.given}}
			}
			got := render.ClientService(key, group(c.after), live)
			if (got == live[0].Name) != c.same {
				t.Errorf("clients come by %s, where %s was", got, live[0].Name)
			}
			in.Group, in.Services = group(c.after), live
			after := clientServices(render.Workload(in))
			if len(after) != 1 || after[0].Name != got {
				t.Errorf("rendered is %v, not %s", after, got)
			}
			if back := render.ClientService(key, group(c.before), append(live, after...)); !c.same && back != live[0].Name {
				t.Errorf("back again by %s, where %s still is", back, live[0].Name)
			}
		})
	}
}

func TestServicesStayWhileResolversMayCome(t *testing.T) {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "old", Annotations: map[string]string{render.ExposureAnnotation: "ExternalIPs 192.0.2.1 192.0.2.2"}}}
	for state, stays := range map[v1alpha1.ServerAddressState]bool{
		v1alpha1.ServerAddressPending: false, v1alpha1.ServerAddressDelegated: true, v1alpha1.ServerAddressLeaving: true,
	} {
		status := &v1alpha1.ServerGroupStatus{Addresses: []v1alpha1.ServerAddress{{Address: "192.0.2.9", State: v1alpha1.ServerAddressDelegated}, {Address: "192.0.2.2", State: state}}}
		if got := render.ServiceStays(s, status, "", []corev1.Service{*s}); got != stays {
			t.Errorf("with an address that is %s: stays %v", state, got)
		}
	}
	if render.ServiceStays(s, nil, "", nil) {
		t.Error("stays though nothing is known of its group")
	}
	for name, c := range map[string]struct {
		known, old, present string
		stays               bool
	}{
		"an address that the present Service has too":      {"192.0.2.1 Delegated 0", "old ExternalIPs 192.0.2.1 | 192.0.2.1", "new ExternalIPs 192.0.2.1 192.0.2.2 | 192.0.2.1 192.0.2.2", false},
		"an address of a node port":                        {"192.0.2.1 Leaving 0, 192.0.2.2 Delegated 0", "old NodePort", "new LoadBalancer | 192.0.2.2", true},
		"a node port with no address but the present ones": {"192.0.2.2 Delegated 0", "old NodePort", "new LoadBalancer | 192.0.2.2", false},
	} {
		old, present := serviceIn(c.old), serviceIn(c.present)
		if got := render.ServiceStays(&old, &v1alpha1.ServerGroupStatus{Addresses: knownIn(t, c.known)}, "new", []corev1.Service{old, present}); got != c.stays {
			t.Errorf("%s: stays %v", name, got)
		}
	}
}

func TestNextRestart(t *testing.T) {
	// A pod is written as it is: new or old, then + (ready) or - (not), then c if it is current, then e if it ends.
	for rule, c := range map[string]struct {
		pods              string // by ordinal
		replicas          int
		restart, waitsFor string
	}{
		"all is as it should be":                                    {"new+c new+c", 2, "", ""},
		"nobody restarts what is not outdated":                      {"new- new+c", 2, "", ""},
		"the last goes first":                                       {"old+c old+c", 2, "p-1", ""},
		"the next goes when the one before is current":              {"old+c new+c", 2, "p-0", ""},
		"not before it is ready":                                    {"old+c new-", 2, "", "p-1 is not ready"},
		"not before it is connected and current":                    {"old+c new+", 2, "", "p-1 is not connected with every zone current"},
		"not while one ends":                                        {"old+c old+ce", 2, "", "p-1 ends"},
		"not while one is missing":                                  {"old+c", 2, "", "1 of 2 pods are there"},
		"a server that does not answer goes first":                  {"old- old+c", 2, "p-0", ""},
		"even when the other is new and not current":                {"old- new+", 2, "p-0", ""},
		"one that is broken in the new way stops it":                {"old+c old+c new-", 3, "", "p-2 is not ready"},
		"none goes while two others are behind":                     {"old+ old+ old+c", 3, "", "p-1, p-0: not connected with every zone current"},
		"one that is behind goes before one that is not":            {"old+ old+c", 2, "p-0", ""},
		"one server alone restarts":                                 {"old+c", 1, "p-0", ""},
		"one server alone restarts though the hub does not hear it": {"old+", 1, "p-0", ""},
	} {
		t.Run(rule, func(t *testing.T) {
			var pods []render.ServerPod
			for i, text := range strings.Fields(c.pods) {
				pods = append(pods, render.ServerPod{
					Name: "p-" + string(rune('0'+i)), Ordinal: i, Outdated: strings.HasPrefix(text, "old"),
					Ready: strings.Contains(text, "+") && !strings.HasSuffix(text, "e"), Current: strings.Contains(text, "c"), Ending: strings.HasSuffix(text, "e"),
				})
			}
			restart, waiting := render.NextRestart(pods, c.replicas)
			if restart != c.restart || waiting != c.waitsFor {
				t.Errorf("restart %q, waiting for %q; want %q, %q", restart, waiting, c.restart, c.waitsFor)
			}
		})
	}
}

func TestLeave(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	since := func(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
	for rule, c := range map[string]struct {
		declared, running int
		pods              []render.ServerPod
		want              render.Departure
	}{
		"as many as there are":      {2, 2, []render.ServerPod{{Ordinal: 0}, {Ordinal: 1}}, render.Departure{Replicas: 2}},
		"more come at once":         {3, 2, nil, render.Departure{Replicas: 3}},
		"who leaves is taken out":   {1, 2, []render.ServerPod{{Ordinal: 0}, {Name: "b", Ordinal: 1}}, render.Departure{Replicas: 2, Withdraw: []string{"b"}, Again: 10 * time.Second, Waiting: "servers leave"}},
		"and stays a while":         {1, 2, []render.ServerPod{{Name: "b", Ordinal: 1, Leaving: since(4)}}, render.Departure{Replicas: 2, Again: 6 * time.Second, Waiting: "servers leave"}},
		"and ends then":             {1, 2, []render.ServerPod{{Name: "b", Ordinal: 1, Leaving: since(10)}}, render.Departure{Replicas: 1}},
		"but not while it is known": {1, 2, []render.ServerPod{{Name: "b", Ordinal: 1, Leaving: since(99), Delegated: true}}, render.Departure{Replicas: 2, Waiting: "b leaves when resolvers have forgotten its addresses"}},
		"who stays after all":       {2, 2, []render.ServerPod{{Name: "b", Ordinal: 1, Leaving: since(3)}}, render.Departure{Replicas: 2, Return: []string{"b"}}},
		"one that is not there":     {1, 2, []render.ServerPod{{Ordinal: 0}}, render.Departure{Replicas: 1}},
	} {
		t.Run(rule, func(t *testing.T) {
			if diff := cmp.Diff(c.want, render.Leave(c.declared, c.running, c.pods, now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func statefulSet(t *testing.T, objects []render.Object) *appsv1.StatefulSet {
	t.Helper()
	for _, o := range objects {
		if set, is := o.(*appsv1.StatefulSet); is {
			return set
		}
	}
	t.Fatal("no StatefulSet")
	return nil
}

func clientServices(objects []render.Object) []corev1.Service {
	var all []corev1.Service
	for _, o := range objects {
		if s, is := o.(*corev1.Service); is && s.Labels[render.LabelService] == render.ServiceOfClients {
			all = append(all, *s)
		}
	}
	return all
}
