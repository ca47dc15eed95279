package controllers_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// managedEstate has a Managed group in dc-a, with the exposure; another in dc-b, whose servers somebody else has started; and
// the root above both, at the address. Resolvers keep a delegation for three seconds.
func managedEstate(exposure, root string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: dns-root}
---
apiVersion: v1
kind: Namespace
metadata: {name: payments}
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-a}
spec:
  rank: 1
  serverGroups:
  - {name: authoritative, management: Managed, replicas: 1, image: "test.invalid/dnsserver:test"%s}
---
apiVersion: fingerpost.dev/v1alpha1
kind: Datacenter
metadata: {name: dc-b}
spec:
  rank: 2
  serverGroups:
  - {name: root, management: External, addresses: [%s]}
  - {name: authoritative, management: External, addresses: [198.51.100.11]}
---
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: root, namespace: dns-root}
spec:
  name: "."
  serverGroup: root
  ttl: {infrastructure: 3s}
  allowedChildren: [{namespaces: {from: All}, names: ["*"]}]
---
apiVersion: fingerpost.dev/v1alpha1
kind: DNSZone
metadata: {name: corp, namespace: payments}
spec:
  name: corp
  serverGroup: authoritative
  ttl: {infrastructure: 2s}
  records: [{name: www, type: A, values: [10.0.0.1]}]
`, exposure, root)
}

// otherProvider is an exposure that no Service of the default provider can have.
const otherProvider = ", exposure: {loadBalancerClass: test.invalid/other}"

// datacenterOf and zoneOf are dc-a and corp of a managed estate.
func datacenterOf(estate string) string { return strings.Split(estate, "---\n")[2] }
func zoneOf(estate string) string       { return strings.Split(estate, "---\n")[5] }

// grown is a managed estate with its servers: root, in dc-b, and one of dc-a that answers at its own address, which nothing refers to.
type grown struct {
	*estate
	manager     *manager
	root, first *process
	port        uint16
}

func growEstate(t *testing.T) *grown {
	t.Helper()
	e := newEstate(t, managedEstate("", "203.0.113.1"))
	g := &grown{estate: e}
	own := netip.MustParseAddrPort(freeDNSAddress(t))
	g.port, e.dnsPort = own.Port(), own.Port()
	g.manager = e.startManager(0)
	g.root = e.startProcess(control.ServerID{Datacenter: "dc-b", Group: "root", Name: "root"}, t.TempDir())
	g.first = g.server("first", own.Addr())
	e.awaitCondition("payments", "corp", v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	return g
}

// server starts one of dc-a that answers at the addresses.
func (g *grown) server(name string, at ...netip.Addr) *process {
	g.t.Helper()
	p := g.newProcess(control.ServerID{Datacenter: "dc-a", Group: "authoritative", Name: name}, g.t.TempDir())
	p.config.Options.Addresses = nil
	for _, a := range at {
		p.config.Options.Addresses = append(p.config.Options.Addresses, netip.AddrPortFrom(a, g.port))
	}
	p.address = p.config.Options.Addresses[0].String()
	p.start()
	return p
}

// address is one that nobody listens at, which is used at the port of the estate.
func (g *grown) address() netip.Addr {
	g.t.Helper()
	return netip.MustParseAddrPort(freeDNSAddress(g.t)).Addr()
}

// service waits for a Service of dc-a whose exposure has the text, and which is none of those.
func (g *grown) service(exposure string, but ...string) *corev1.Service {
	g.t.Helper()
	var found *corev1.Service
	g.poll(func() error {
		var list corev1.ServiceList
		if err := g.api.List(g.t.Context(), &list, client.MatchingLabels{render.LabelDatacenter: "dc-a", render.LabelService: render.ServiceOfClients}); err != nil {
			return err
		}
		for _, s := range list.Items {
			if strings.Contains(s.Annotations[render.ExposureAnnotation], exposure) && !slices.Contains(but, s.Name) {
				found = &s
				return nil
			}
		}
		return fmt.Errorf("no Service for %q among %d", exposure, len(list.Items))
	})
	return found
}

// give is what a provider of load balancers does: it sets the addresses in the status of a Service.
func (g *grown) give(s *corev1.Service, addresses ...netip.Addr) {
	g.t.Helper()
	patch := client.MergeFrom(s.DeepCopy())
	s.Status.LoadBalancer.Ingress = nil
	for _, a := range addresses {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a.String()})
	}
	if err := g.api.Status().Patch(g.t.Context(), s, patch); err != nil {
		g.t.Fatal(err)
	}
}

func (g *grown) reload(s *corev1.Service) *corev1.Service {
	g.t.Helper()
	if err := g.api.Get(g.t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
		g.t.Fatal(err)
	}
	return s
}

// awaitDatacenterZones waits until corp's status says that the datacenter serves it.
func (g *grown) awaitDatacenterZones(name string) {
	g.t.Helper()
	g.poll(func() error {
		if z := g.zone("payments", "corp"); !slices.ContainsFunc(z.Status.Datacenters, func(s v1alpha1.ZoneDatacenterStatus) bool { return string(s.Name) == name }) {
			return fmt.Errorf("datacenters are %v", z.Status.Datacenters)
		}
		return nil
	})
}

// referral is what the root's server says of corp: each name server with its addresses.
func (g *grown) referral() string {
	reply, err := dns.Exchange(new(dns.Msg).SetQuestion("www.corp.", dns.TypeA), g.root.address)
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, rr := range reply.Ns {
		if ns, ok := rr.(*dns.NS); ok {
			text := ns.Ns
			for _, extra := range reply.Extra {
				switch glue := extra.(type) {
				case *dns.A:
					if glue.Hdr.Name == ns.Ns {
						text += " " + glue.A.String()
					}
				case *dns.AAAA:
					if glue.Hdr.Name == ns.Ns {
						text += " " + glue.AAAA.String()
					}
				}
			}
			all = append(all, text)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

const referralToB = "ns-dc-b.corp. 198.51.100.11"

func (g *grown) awaitReferral(want string) {
	g.t.Helper()
	g.poll(func() error {
		if got := g.referral(); got != want {
			return fmt.Errorf("the root refers to %q, want %q", got, want)
		}
		return nil
	})
}

// awaitAddresses waits until the status has the addresses with their states, and the condition the reason.
func (g *grown) awaitAddresses(reason, want string) {
	g.t.Helper()
	g.poll(func() error {
		var dc v1alpha1.Datacenter
		if err := g.api.Get(g.t.Context(), client.ObjectKey{Name: "dc-a"}, &dc); err != nil {
			return err
		}
		var all []string
		for _, k := range render.KnownAddresses(&dc, "authoritative") {
			all = append(all, fmt.Sprintf("%s %s", k.Address, k.State))
		}
		c := meta.FindStatusCondition(dc.Status.Conditions, v1alpha1.ConditionAddressesReady)
		if got := strings.Join(all, ", "); got != want || c == nil || c.Reason != reason {
			return fmt.Errorf("addresses are %q, want %q; condition %+v", got, want, c)
		}
		return nil
	})
}

// awaitEvent waits for an Event about dc-a.
func (g *grown) awaitEvent(reason, note string) {
	g.t.Helper()
	g.poll(func() error {
		var list eventsv1.EventList
		if err := g.api.List(g.t.Context(), &list); err != nil {
			return err
		}
		if !slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool {
			return e.Regarding.Name == "dc-a" && e.Reason == reason && strings.Contains(e.Note, note)
		}) {
			return fmt.Errorf("no Event %s with %q among %d", reason, note, len(list.Items))
		}
		return nil
	})
}

// awaitHints waits until the root hints have the address.
func (g *grown) awaitHints(address string) {
	g.t.Helper()
	g.poll(func() error {
		var cm corev1.ConfigMap
		if err := g.api.Get(g.t.Context(), client.ObjectKey{Namespace: operatorNamespace, Name: "fingerpost-root-hints"}, &cm); err != nil {
			return err
		}
		if hints := cm.Data["root.hints"]; !strings.Contains(hints, "NS   ns-dc-b.\n") || !strings.Contains(hints, "A    "+address+"\n") {
			return fmt.Errorf("hints are %q", hints)
		}
		return nil
	})
}

// soa asks an address for corp.
func (g *grown) soa(at netip.Addr) error {
	reply, err := dns.Exchange(new(dns.Msg).SetQuestion("corp.", dns.TypeSOA), netip.AddrPortFrom(at, g.port).String())
	if err == nil && (reply.Rcode != dns.RcodeSuccess || !reply.Authoritative) {
		err = fmt.Errorf("%s", reply)
	}
	return err
}

func TestGlueFollowsTheAddressesOfServices(t *testing.T) {
	g := growEstate(t)
	a, b := g.address(), g.address()

	// Without an address there is no name server in dc-a.
	first := g.service("LoadBalancer")
	g.awaitAddresses(v1alpha1.ReasonNoAddress, "")
	g.awaitReferral(referralToB)

	// The provider gives an address, but nobody answers there.
	g.give(first, a)
	g.awaitAddresses(v1alpha1.ReasonAddressSilent, a.String()+" Pending")
	if got := g.referral(); got != referralToB {
		t.Errorf("the root refers to %q before %s answers", got, a)
	}
	before := g.server("second", a, b)
	g.awaitReferral("ns-dc-a.corp. " + a.String() + ", " + referralToB)
	g.awaitAddresses(v1alpha1.ReasonAddressesDelegated, a.String()+" Delegated")
	g.awaitEvent("AddressDelegated", a.String())
	g.poll(func() error {
		if got := g.dig(before, "ns-dc-a.corp.", dns.TypeA); !strings.Contains(got, a.String()) {
			return fmt.Errorf("the zone itself has %s", got)
		}
		return nil
	})

	// Another provider is to give the address: a second Service leads to the same servers, while the first goes on.
	g.apply(datacenterOf(managedEstate(otherProvider, "203.0.113.1")))
	second := g.service("class=test.invalid/other", first.Name)
	g.awaitAddresses(v1alpha1.ReasonNoAddress, a.String()+" Delegated")
	g.give(second, b)
	g.awaitReferral("ns-dc-a.corp. " + b.String() + ", " + referralToB)
	left := time.Now()
	g.awaitEvent("AddressLeaving", a.String())
	g.awaitHints("203.0.113.1")
	g.apply(strings.Split(managedEstate(otherProvider, "203.0.113.2"), "---\n")[3])
	g.awaitHints("203.0.113.2")
	if err := g.soa(a); err != nil {
		t.Errorf("%s is not answered any more: %v", a, err)
	}

	// A manager that restarts meanwhile goes on where the one before was.
	g.manager.stop()
	g.startManager(1)
	g.poll(func() error {
		if err := g.soa(a); err != nil && time.Since(left) < 3*time.Second {
			t.Fatalf("%s is not answered any more: %v", a, err)
		}
		var s corev1.Service
		if err := g.api.Get(g.t.Context(), client.ObjectKeyFromObject(first), &s); err == nil {
			return fmt.Errorf("Service %s is still there", s.Name)
		} else if !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	})
	if kept := time.Since(left); kept < 3*time.Second {
		t.Errorf("%s was let go %s after the last delegation to it, which resolvers keep for 3s", a, kept)
	}
	g.awaitAddresses(v1alpha1.ReasonAddressesDelegated, b.String()+" Delegated")

	// The provider takes the address away, without warning: it is in no answer any more. Where it was the zone's only one it would stay.
	g.give(g.reload(second))
	g.awaitReferral(referralToB)
	g.awaitEvent(v1alpha1.ReasonAddressLost, b.String())
	g.awaitAddresses(v1alpha1.ReasonAddressLost, b.String()+" Lost")
	g.give(g.reload(second), b)
	g.awaitReferral("ns-dc-a.corp. " + b.String() + ", " + referralToB)
	g.awaitAddresses(v1alpha1.ReasonAddressesDelegated, b.String()+" Delegated")
}

func TestTheLastAddressStaysInTheGlueWhenItIsLost(t *testing.T) {
	g := growEstate(t)
	g.apply(strings.Replace(zoneOf(managedEstate("", "203.0.113.1")), "serverGroup: authoritative", "serverGroup: authoritative\n  datacenters: {names: [dc-a]}", 1))
	a := g.address()
	g.server("second", a)
	s := g.service("LoadBalancer")
	g.give(s, a)
	g.awaitReferral("ns-dc-a.corp. " + a.String())
	g.give(g.reload(s))
	g.awaitAddresses(v1alpha1.ReasonAddressLost, a.String()+" Lost")
	g.awaitEvent(v1alpha1.ReasonAddressLost, a.String())
	// What comes after shows that the loss was dealt with.
	g.apply(strings.Replace(strings.Replace(zoneOf(managedEstate("", "203.0.113.1")), "serverGroup: authoritative", "serverGroup: authoritative\n  datacenters: {names: [dc-a]}", 1), "10.0.0.1", "10.0.0.2", 1))
	g.poll(func() error {
		if got := g.dig(g.first, "www.corp.", dns.TypeA); !strings.Contains(got, "10.0.0.2") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	if got, want := g.referral(), "ns-dc-a.corp. "+a.String(); got != want {
		t.Errorf("the root refers to %q, want %q: a zone without any address is a zone that does not exist", got, want)
	}
}

func TestAGroupLeavesTheDelegationBeforeItGoes(t *testing.T) {
	g := growEstate(t)
	a := g.address()
	p := g.server("second", a)
	g.give(g.service("LoadBalancer"), a)
	g.awaitReferral("ns-dc-a.corp. " + a.String() + ", " + referralToB)
	g.awaitDatacenterZones("dc-a")
	g.apply("apiVersion: fingerpost.dev/v1alpha1\nkind: Datacenter\nmetadata: {name: dc-a}\nspec: {rank: 1}\n")
	g.awaitReferral(referralToB)
	left := time.Now()
	g.poll(func() error {
		if err := g.soa(a); err != nil && time.Since(left) < 3*time.Second {
			t.Fatalf("%s lets go of the zone %s after the last referral to it: %v", p.address, time.Since(left), err)
		}
		var dc v1alpha1.Datacenter
		if err := g.api.Get(t.Context(), client.ObjectKey{Name: "dc-a"}, &dc); err != nil {
			return err
		}
		if known := render.KnownAddresses(&dc, "authoritative"); len(known) > 0 {
			return fmt.Errorf("addresses are %v", known)
		}
		return nil
	})
	if kept := time.Since(left); kept < 3*time.Second {
		t.Errorf("%s was let go %s after the last delegation to it, which resolvers keep for 3s", a, kept)
	}
}
