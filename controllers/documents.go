package controllers

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
)

// Kinds of the documents that servers get beside zones.
const (
	documentSettings = "settings" // controlpb.Settings
	documentTopology = "topology" // steeringpb.Topology
)

// TopologySecret is the name of the Secret with the key that servers choose by where weights or hashes decide.
const TopologySecret = "fingerpost-topology"

const (
	topologyKey     = "key"
	topologyKeySize = 32
)

// DocumentReconciler publishes what servers are told beside zones: to each server group its settings, and to all the
// topology. It has one object, the estate, so requests are all alike.
type DocumentReconciler struct {
	Client client.Reader // cached
	Hub    *control.Hub
	// Settled reports whether the servers have said where they are. Before that the topology would lack some.
	Settled func() bool
	// Published is called, perhaps again, when all that can be published is. It does not block.
	Published func()
	// Forget drops what is known of servers that there are no more; nil: nothing is known.
	Forget    func(known func(control.ServerID) bool)
	APIServer []netip.Addr // addresses of the API server, as far as known
	Now       func() time.Time

	cookies   cookieKeeper
	key       []byte // of the topology; nil: not read yet
	published map[control.GroupKey]bool
}

// +kubebuilder:rbac:groups="",namespace=system,resources=secrets,verbs=get;create;update
// +kubebuilder:rbac:groups=fingerpost.dev,resources=datacenters;resolverpools,verbs=get;list;watch

// Reconcile publishes all documents. What can't be read keeps only that from being published which depends on it.
func (r *DocumentReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	now := r.Now()
	var list v1alpha1.DatacenterList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, fmt.Errorf("listing Datacenters: %w", err)
	}
	datacenters := pointers(list.Items)
	members, err := r.members(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	groups := groupsOf(datacenters, members)
	r.withdraw(groups)
	next, errs := now.Add(secretCheck), []error(nil)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		due, err := r.settings(ctx, name, groups[name], now)
		if err != nil {
			errs = append(errs, err)
		} else {
			next = earlier(next, due)
		}
	}
	if r.Settled() {
		if missing := undeclared(r.Hub, datacenters); len(missing) > 0 {
			log.FromContext(ctx).Info("Servers are not told who is where: some have zones of another hub cluster and are of datacenters that are not declared here", "datacenters", missing)
		} else if err := r.topology(ctx, datacenters, groups); err != nil {
			errs = append(errs, err)
		}
		if r.Forget != nil {
			r.Forget(r.known(datacenters))
		}
		r.Published()
	}
	return reconcile.Result{RequeueAfter: max(next.Sub(now), statusInterval)}, errors.Join(errs...)
}

func pointers(list []v1alpha1.Datacenter) []*v1alpha1.Datacenter {
	all := make([]*v1alpha1.Datacenter, len(list))
	for i := range list {
		all[i] = &list[i]
	}
	return all
}

// undeclared lists the datacenters of connected servers that another hub cluster knew and that are not declared here: their
// Datacenters are yet to be applied. Without them servers everywhere would forget their networks and their votes.
func undeclared(hub *control.Hub, datacenters []*v1alpha1.Datacenter) []string {
	return slices.DeleteFunc(hub.ForeignDatacenters(), func(name string) bool {
		return slices.ContainsFunc(datacenters, func(dc *v1alpha1.Datacenter) bool { return dc.Name == name })
	})
}

// placedGroup is a server group at its place.
type placedGroup struct {
	control.GroupKey
	spec v1alpha1.ServerGroup
}

// members are the addresses from which members of ResolverPools ask.
func (r *DocumentReconciler) members(ctx context.Context) ([]v1alpha1.CIDR, error) {
	var list v1alpha1.ResolverPoolList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing ResolverPools: %w", err)
	}
	var all []v1alpha1.CIDR
	for i := range list.Items {
		for _, text := range list.Items[i].Status.SourceAddresses {
			if a, err := netip.ParseAddr(string(text)); err == nil {
				all = append(all, v1alpha1.CIDR(netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()).String()))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// groupsOf returns the server groups of all datacenters by name, those of one name in the order of datacenters. members are
// resolvers of theirs beside those in their specs.
func groupsOf(datacenters []*v1alpha1.Datacenter, members []v1alpha1.CIDR) map[string][]placedGroup {
	groups := map[string][]placedGroup{}
	for _, dc := range datacenters {
		for _, g := range dc.Spec.ServerGroups {
			for _, m := range members {
				if !slices.Contains(g.Resolvers, m) {
					g.Resolvers = append(slices.Clip(g.Resolvers), m)
				}
			}
			groups[g.Name] = append(groups[g.Name], placedGroup{control.GroupKey{Datacenter: dc.Name, Group: g.Name}, render.WithAddresses(dc, g)})
		}
	}
	for _, of := range groups {
		slices.SortFunc(of, func(a, b placedGroup) int { return cmp.Compare(a.Datacenter, b.Datacenter) })
	}
	return groups
}

// withdraw lets go of groups that are declared no more.
func (r *DocumentReconciler) withdraw(groups map[string][]placedGroup) {
	declared := map[control.GroupKey]bool{}
	for _, of := range groups {
		for _, g := range of {
			declared[g.GroupKey] = true
		}
	}
	for g := range r.published {
		if !declared[g] {
			r.Hub.WithdrawDocument(g, documentSettings)
			r.Hub.WithdrawDocument(g, documentTopology)
		}
	}
	r.published = declared
}

// settings publishes the settings of the groups of one name, and takes the steps that are due with their cookies. It
// returns when the next is due.
func (r *DocumentReconciler) settings(ctx context.Context, name string, groups []placedGroup, now time.Time) (time.Time, error) {
	publish := func() (cookieSecrets, error) {
		secrets, err := r.cookies.secrets(ctx, name, now)
		if secrets.current == nil {
			return secrets, err
		}
		errs := []error{err}
		for _, g := range groups {
			errs = append(errs, r.publish(g.GroupKey, documentSettings, SettingsMessage(g.spec, secrets.inOrder())))
		}
		return secrets, errors.Join(errs...)
	}
	secrets, err := publish()
	if err != nil {
		return time.Time{}, err
	}
	steps, err := r.cookies.advance(ctx, name, r.everywhere(groups), now)
	if err != nil {
		return time.Time{}, err
	}
	if steps != "" {
		log.FromContext(ctx).Info("Cookie secrets changed", "group", name, "steps", steps)
		if secrets, err = publish(); err != nil {
			return time.Time{}, err
		}
	}
	return secrets.due(r.cookies.rotation), nil
}

// everywhere reports whether every server that the groups should have is there and has the settings as published.
func (r *DocumentReconciler) everywhere(groups []placedGroup) bool {
	missing := map[control.GroupKey]int{}
	for _, g := range groups {
		missing[g.GroupKey] = render.DeclaredServers(g.spec)
	}
	for _, s := range r.Hub.Servers() {
		if _, of := missing[s.ID.GroupKey()]; !of {
			continue
		}
		missing[s.ID.GroupKey()]--
		if !slices.ContainsFunc(s.Documents, func(d control.ServerDocument) bool { return d.Kind == documentSettings && d.Current }) {
			return false
		}
	}
	for _, n := range missing {
		if n > 0 {
			return false
		}
	}
	return true
}

// SettingsMessage is what the servers of a group are told. Of the cookie secrets the first makes cookies.
func SettingsMessage(g v1alpha1.ServerGroup, cookieSecrets [][]byte) *controlpb.Settings {
	m := &controlpb.Settings{
		Nsid: g.NSID == v1alpha1.SwitchEnabled, CookieSecrets: cookieSecrets, Resolvers: texts(g.Resolvers),
		Transports: &controlpb.Transports{NoTcp: g.Transports.TCP == v1alpha1.TransportClosed},
	}
	m.MaxUdpSize = number(g.MaxUDPSize)
	if mode := render.LimitsMode(g); mode != v1alpha1.LimitsOff {
		l := g.Limits
		m.Limits = &controlpb.Limits{
			LogOnly: mode == v1alpha1.LimitsLog, Responses: number(l.ResponsesPerSecond), Slip: number(l.Slip), Queries: number(l.QueriesPerSecond),
			Ipv4Prefix: number(l.IPv4PrefixLength), Ipv6Prefix: number(l.IPv6PrefixLength), Exempt: texts(l.Exempt),
		}
	}
	port := func(access v1alpha1.TransportAccess, port int32) uint32 {
		if access != v1alpha1.TransportOpen {
			return 0
		}
		return uint32(port)
	}
	t := g.Transports
	m.Transports.DotPort = port(t.DoT.Access, t.DoT.Port)
	m.Transports.DohPort = port(t.DoH.Access, t.DoH.Port)
	m.Transports.HttpdnsPort = port(t.HTTPDNS.Access, t.HTTPDNS.Port)
	return m
}

// number is a field that the API server has checked; nil, which has no default there, is 0.
func number(n *int32) uint32 {
	if n == nil {
		return 0
	}
	return uint32(*n)
}

func texts[T ~string](list []T) []string {
	var all []string
	for _, t := range list {
		all = append(all, string(t))
	}
	return all
}

// known returns whether there is a server, connected or not.
func (r *DocumentReconciler) known(datacenters []*v1alpha1.Datacenter) func(control.ServerID) bool {
	all := map[control.ServerID]bool{}
	for _, s := range r.Hub.Servers() {
		all[s.ID] = true
	}
	for _, dc := range datacenters {
		for _, s := range dc.Status.Servers {
			all[control.ServerID{Datacenter: dc.Name, Group: s.Group, Name: s.Name}] = true
		}
	}
	return func(id control.ServerID) bool { return all[id] }
}

// voting returns the names of the groups whose zones have steered names.
func (r *DocumentReconciler) voting(ctx context.Context) (map[string]bool, error) {
	var records v1alpha1.DynamicRecordList
	var zones v1alpha1.DNSZoneList
	for _, list := range []client.ObjectList{&records, &zones} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("listing what is steered: %w", err)
		}
	}
	steered := map[types.NamespacedName]bool{}
	for i := range records.Items {
		steered[render.ZoneOf(&records.Items[i])] = true
	}
	voting := map[string]bool{}
	for i := range zones.Items {
		if z := &zones.Items[i]; steered[render.Key(z)] {
			voting[z.Spec.ServerGroup] = true
		}
	}
	return voting, nil
}

// topology publishes who is where to every group.
func (r *DocumentReconciler) topology(ctx context.Context, datacenters []*v1alpha1.Datacenter, groups map[string][]placedGroup) error {
	if err := r.readKey(ctx); err != nil {
		return err
	}
	voting, err := r.voting(ctx)
	if err != nil {
		return err
	}
	in := render.TopologyInputs{Datacenters: datacenters, Voting: voting, Key: r.key, APIServer: r.APIServer}
	for _, s := range r.Hub.Servers() {
		in.Connected = append(in.Connected, render.TopologyServer{Datacenter: s.ID.Datacenter, Group: s.ID.Group, Name: s.ID.Name, Peer: s.Peer})
	}
	message := render.Topology(in)
	var errs []error
	for _, of := range groups {
		for _, g := range of {
			errs = append(errs, r.publish(g.GroupKey, documentTopology, message))
		}
	}
	return errors.Join(errs...)
}

// readKey reads the key of the topology, and makes it if there is none. Another key would only spread clients anew: one
// that is damaged is replaced.
func (r *DocumentReconciler) readKey(ctx context.Context) error {
	if r.key != nil {
		return nil
	}
	held, err := r.cookies.read(ctx, TopologySecret)
	if err != nil {
		return err
	}
	key := held.Data[topologyKey]
	if len(key) != topologyKeySize {
		key = make([]byte, topologyKeySize)
		_, _ = rand.Read(key) // never fails
		want := held.DeepCopy()
		if want.ResourceVersion == "" {
			want.Type = corev1.SecretTypeOpaque
		}
		setData(want, map[string][]byte{topologyKey: key})
		if _, err := r.cookies.write(ctx, held, want); err != nil {
			return err
		}
	}
	r.key = key
	return nil
}

// publish encodes so that equal messages have equal digests.
func (r *DocumentReconciler) publish(g control.GroupKey, kind string, m proto.Message) error {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding %s for group %s: it has invalid text", kind, g) // err may quote
	}
	return r.Hub.PublishDocument(g, control.Document{Kind: kind, Body: body})
}

// apiServerAddresses returns the address of the API server in the URL that the manager calls, if it has one.
func apiServerAddresses(host string) []netip.Addr {
	if u, err := url.Parse(host); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	return nil
}
