package render_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// serviceIn reads "NAME TYPE KEY | ADDRESSES": KEY is what the Service was made for, as its annotation has it.
func serviceIn(text string) corev1.Service {
	head, addresses, _ := strings.Cut(text, "|")
	f := strings.Fields(head)
	s := corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: f[0], Annotations: map[string]string{render.ExposureAnnotation: strings.Join(f[1:], " ")}}}
	switch v1alpha1.ExposureType(f[1]) {
	case v1alpha1.ExposureLoadBalancer:
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		for a := range strings.FieldsSeq(addresses) {
			ingress := corev1.LoadBalancerIngress{IP: a}
			if _, err := netip.ParseAddr(a); err != nil {
				ingress = corev1.LoadBalancerIngress{Hostname: a}
			}
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, ingress)
		}
	case v1alpha1.ExposureNodePort:
		s.Spec.Type = corev1.ServiceTypeNodePort
	default:
		s.Spec.Type, s.Spec.ExternalIPs = corev1.ServiceTypeClusterIP, strings.Fields(addresses)
	}
	return s
}

func TestExposed(t *testing.T) {
	exposure := func(typ v1alpha1.ExposureType, addresses ...v1alpha1.IP) *v1alpha1.ServerExposure {
		return &v1alpha1.ServerExposure{Type: typ, Addresses: addresses}
	}
	for name, c := range map[string]struct {
		exposure     *v1alpha1.ServerExposure
		removed      bool
		known        string
		services     []string
		nodes        []render.NodeAddress
		wanted, held string
		waits        string
	}{
		"a load balancer's addresses are wanted as they come": {
			services: []string{"fingerpost-dc-a-auth LoadBalancer | 192.0.2.1 2001:db8::1"}, wanted: "192.0.2.1 2001:db8::1", held: "192.0.2.1 2001:db8::1", waits: "no address",
		},
		"without a Service there is nothing": {waits: "not there yet"},
		"a load balancer without an address": {services: []string{"fingerpost-dc-a-auth LoadBalancer"}, waits: "given Service fingerpost-dc-a-auth no address"},
		"a load balancer with a host name":   {services: []string{"fingerpost-dc-a-auth LoadBalancer | lb.example.net"}, waits: "host name lb.example.net"},
		"of a load balancer's addresses those that are stated are wanted": {
			exposure: exposure("LoadBalancer", "192.0.2.1"), services: []string{"fingerpost-dc-a-auth LoadBalancer 192.0.2.1 | 192.0.2.1 192.0.2.9"},
			wanted: "192.0.2.1", held: "192.0.2.1 192.0.2.9", waits: "not given them",
		},
		"a second load balancer is what is wanted beside the first": {
			exposure: exposure("LoadBalancer", "192.0.2.2"), known: "192.0.2.1 Delegated 0",
			services: []string{"fingerpost-dc-a-auth LoadBalancer 192.0.2.1 | 192.0.2.1", "fingerpost-dc-a-auth-2 LoadBalancer 192.0.2.2 | 192.0.2.2"},
			wanted:   "192.0.2.2", held: "192.0.2.1 192.0.2.2", waits: "not given them",
		},
		"the first is kept while the second is not there": {
			exposure: exposure("LoadBalancer", "192.0.2.2"), services: []string{"fingerpost-dc-a-auth LoadBalancer 192.0.2.1 | 192.0.2.1"},
			wanted: "192.0.2.2", held: "192.0.2.1", waits: "not there yet",
		},
		"external addresses are there with their Service": {
			exposure: exposure("ExternalIPs", "192.0.2.1"), services: []string{"fingerpost-dc-a-auth ExternalIPs 192.0.2.1 | 192.0.2.1"}, wanted: "192.0.2.1", held: "192.0.2.1", waits: "not given them",
		},
		"a node port has what is stated, and what it had": {
			exposure: exposure("NodePort", "192.0.2.2"), known: "192.0.2.1 Delegated 0", services: []string{"fingerpost-dc-a-auth NodePort"},
			wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2",
		},
		"a node port is kept for what it had when a load balancer comes": {
			known: "192.0.2.1 Delegated 0", services: []string{"fingerpost-dc-a-auth NodePort", "fingerpost-dc-a-auth-2 LoadBalancer | 192.0.2.2"},
			wanted: "192.0.2.2", held: "192.0.2.1 192.0.2.2", waits: "no address",
		},
		"nodes with ready servers are wanted": {
			exposure: exposure("HostNetwork"), nodes: []render.NodeAddress{
				{Address: netip.MustParseAddr("192.0.2.1"), Pod: "auth-0", Ready: true}, {Address: netip.MustParseAddr("192.0.2.2"), Pod: "auth-1"},
				{Address: netip.MustParseAddr("192.0.2.3"), Pod: "auth-2", Ready: true}, {Address: netip.MustParseAddr("192.0.2.4")},
			}, wanted: "192.0.2.1", held: "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4", waits: "no server on a node is ready",
		},
		"of a group that goes nothing is wanted": {
			removed: true, services: []string{"fingerpost-dc-a-auth LoadBalancer | 192.0.2.1"}, held: "192.0.2.1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := render.ExposureInputs{Datacenter: "dc-a", Known: knownIn(t, c.known), Nodes: c.nodes}
			if !c.removed {
				in.Group = &v1alpha1.ServerGroup{Name: "auth", Management: v1alpha1.ServerGroupManaged, Exposure: c.exposure}
			}
			for _, s := range c.services {
				in.Services = append(in.Services, serviceIn(s))
			}
			got := render.Exposed(in)
			if !slices.Equal(got.Wanted, addressesIn(c.wanted)) || !slices.Equal(got.Held, addressesIn(c.held)) || !strings.Contains(got.Waits, c.waits) {
				t.Errorf("wanted %v, held %v, waits %q", got.Wanted, got.Held, got.Waits)
			}
		})
	}
}
