package render

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// declaredAddresses are those that a Managed group's exposure states.
func declaredAddresses(g v1alpha1.ServerGroup) (all []netip.Addr) {
	for _, text := range exposureOf(g).Addresses {
		if a := parsed(text); a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// ExposureInputs is what is known of the ways to the servers of one Managed group.
type ExposureInputs struct {
	Datacenter string
	Group      *v1alpha1.ServerGroup // as declared; nil: it is not any more
	Known      []v1alpha1.ServerAddress
	Services   []corev1.Service // of the group, also of exposures before; in any order
	Nodes      []NodeAddress    // for servers on the network of their nodes
}

// NodeAddress is an address of a node that runs a server of the group on its own network.
type NodeAddress struct {
	Address netip.Addr
	Pod     string // "": it runs none at the moment
	Ready   bool
}

// Ways are the addresses of one Managed group.
type Ways struct {
	Wanted, Held []netip.Addr // as AddressInputs has them; sorted
	Waits        string       // what keeps the group from having addresses; "": nothing
}

// Exposed returns which addresses a group is to have, and which it has.
func Exposed(in ExposureInputs) Ways {
	var w Ways
	claimed := map[netip.Addr]bool{}
	nodePort := false
	for _, s := range in.Services {
		for _, a := range ServiceAddresses(&s) {
			claimed[a] = true
			w.Held = append(w.Held, a)
		}
		nodePort = nodePort || s.Spec.Type == corev1.ServiceTypeNodePort
	}
	for _, n := range in.Nodes {
		claimed[n.Address] = true
		w.Held = append(w.Held, n.Address)
	}
	if nodePort { // what forwards to it is not known to Kubernetes: all that nothing else explains may be its addresses
		for _, k := range in.Known {
			if a := parsed(k.Address); !claimed[a] {
				w.Held = append(w.Held, a)
			}
		}
	}
	if in.Group != nil {
		in.want(&w)
	}
	w.Wanted, w.Held = sortAddresses(w.Wanted), sortAddresses(w.Held)
	return w
}

func (in ExposureInputs) want(w *Ways) {
	g := *in.Group
	present, ok := in.present()
	switch typ := exposureOf(g).Type; {
	case typ == v1alpha1.ExposureHostNetwork:
		for _, n := range in.Nodes {
			if n.Ready && ordinal(n.Pod) < DeclaredServers(g) {
				w.Wanted = append(w.Wanted, n.Address)
			}
		}
		w.Waits = "no server on a node is ready yet"
	case !ok:
		w.Wanted = declaredAddresses(g)
		w.Waits = "its Service is not there yet"
	case typ == v1alpha1.ExposureNodePort:
		w.Wanted = declaredAddresses(g)
		w.Held = append(w.Held, w.Wanted...)
	case typ == v1alpha1.ExposureExternalIPs, len(declaredAddresses(g)) > 0:
		w.Wanted = declaredAddresses(g)
		w.Waits = fmt.Sprintf("the provider of load balancers has not given them to Service %s", present.Name)
	default:
		w.Wanted = ServiceAddresses(&present)
		w.Waits = fmt.Sprintf("the provider of load balancers has given Service %s no address", present.Name)
		for _, i := range present.Status.LoadBalancer.Ingress {
			if i.IP == "" && i.Hostname != "" {
				w.Waits = fmt.Sprintf("the provider of load balancers has given Service %s the host name %s, and glue needs addresses: "+
					"ask it for static ones and state them in exposure.addresses with type NodePort, or use another type", present.Name, i.Hostname)
			}
		}
	}
}

// present is the Service of the group's present exposure.
func (in ExposureInputs) present() (corev1.Service, bool) {
	if exposureOf(*in.Group).Type == v1alpha1.ExposureHostNetwork {
		return corev1.Service{}, false
	}
	name := ClientService(Location{Datacenter: in.Datacenter, Group: in.Group.Name}, *in.Group, in.Services)
	for _, s := range in.Services {
		if s.Name == name {
			return s, true
		}
	}
	return corev1.Service{}, false
}

// ordinal is the number of a StatefulSet's pod; one without a number comes after all.
func ordinal(pod string) int {
	n, err := strconv.Atoi(pod[strings.LastIndexByte(pod, '-')+1:])
	if err != nil {
		return 1 << 30
	}
	return n
}

// InfrastructureTTL is how long resolvers keep the zone's NS records, and the addresses of its name servers.
func InfrastructureTTL(z *v1alpha1.DNSZone) time.Duration {
	return time.Duration(seconds(z.Spec.TTL.Infrastructure, defaultInfrastructureTTL)) * time.Second
}
