package render

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// PoolTransportsFolder is where pods of a Managed pool have the certificate of spec.transports, as tls.crt and tls.key.
const PoolTransportsFolder = "/etc/fingerpost/transports"

// PoolInputs is all that the configuration of a pool's members in one datacenter depends on.
type PoolInputs struct {
	Pool        *v1alpha1.ResolverPool
	Datacenter  *v1alpha1.Datacenter                // one of PoolDatacenters
	Datacenters []*v1alpha1.Datacenter              // all that there are, in any order
	Zones       map[types.NamespacedName]*Placement // what is decided about every DNSZone
	Namespace   string                              // the operator's own
	Servers     []TopologyServer                    // those with a stream to the hub, in any order
	// Texts are the response policy zones of ConfigMaps, by name. One that is missing is not configured.
	Texts map[v1alpha1.DomainName]string
	// Certificate and Key are those of spec.transports, in PEM, for members of an External pool, which get them with their
	// configuration; nil if it has none.
	Certificate, Key []byte
}

// PoolRendered is what the members of a pool in one datacenter are told.
type PoolRendered struct {
	Pool *pool.Pool
	// Text is Pool as agents read it: the document of a member that somebody else starts, the file of one in a pod.
	Text []byte
	// Unsupported is what of the spec the programs can't do, by program, in words of the spec; sorted.
	Unsupported map[v1alpha1.ResolverEngine][]string
}

// maxPoolText bounds PoolRendered.Text: it has to fit into a ConfigMap, which is stored beside other fields.
const maxPoolText = 900 << 10

// PoolDatacenters are the datacenters that a pool is in, by name. An error is a Refusal about one that it names and can't be in; it is
// in the others all the same. Where there are none, there is an error.
func PoolDatacenters(p *v1alpha1.ResolverPool, all []*v1alpha1.Datacenter) (chosen []*v1alpha1.Datacenter, err error) {
	byName := map[v1alpha1.DatacenterName]*v1alpha1.Datacenter{}
	for _, dc := range all {
		byName[v1alpha1.DatacenterName(dc.Name)] = dc
		if PoolIn(p, dc) {
			chosen = append(chosen, dc)
		}
	}
	slices.SortFunc(chosen, func(a, b *v1alpha1.Datacenter) int { return cmp.Compare(a.Name, b.Name) })
	for _, name := range p.Spec.Datacenters.Names {
		switch dc := byName[name]; {
		case dc == nil:
			return chosen, refuse(v1alpha1.ReasonUnknownDatacenter, "spec.datacenters names %s, and there is no such Datacenter", name)
		case dc.Spec.Role == v1alpha1.DatacenterRoleWitness:
			return chosen, refuse(v1alpha1.ReasonNoDatacenters, "spec.datacenters names %s, which is a Witness: it answers no clients", name)
		}
	}
	if len(chosen) == 0 {
		return nil, refuse(v1alpha1.ReasonNoDatacenters, "there is no Datacenter that answers clients")
	}
	return chosen, nil
}

// PoolIn reports whether a pool has members in a datacenter, as far as the two say.
func PoolIn(p *v1alpha1.ResolverPool, dc *v1alpha1.Datacenter) bool {
	names := p.Spec.Datacenters.Names
	return dc.Spec.Role != v1alpha1.DatacenterRoleWitness && dc.DeletionTimestamp.IsZero() &&
		(len(names) == 0 || slices.Contains(names, v1alpha1.DatacenterName(dc.Name)))
}

// PoolConfig is what the members of a pool in one datacenter are told. An error is a Refusal: what they do stays as it is.
func PoolConfig(in PoolInputs) (PoolRendered, error) {
	spec := &in.Pool.Spec
	hints, err := in.rootHints()
	if err != nil {
		return PoolRendered{}, err
	}
	p := &pool.Pool{Config: engine.Config{RootHints: hints}, Members: map[engine.Product]pool.Member{}}
	r := poolReader{files: map[string]string{}}
	p.Clients = r.networks("clientNetworks", spec.ClientNetworks)
	p.AuthorityNetworks = in.authorityNetworks(r.networks("authorityNetworks", spec.AuthorityNetworks))
	p.LoopbackServers = slices.ContainsFunc(p.AuthorityNetworks, func(n netip.Prefix) bool { return n.Addr().IsLoopback() })
	p.SourceNetworks = r.networks("sourceNetworks", spec.SourceNetworks)
	if spec.InternetAccess.Mode == v1alpha1.InternetForward {
		p.Forward = r.forward(spec.InternetAccess.Forward)
		if p.Internal, err = in.internal(p.Forward); err != nil {
			return PoolRendered{}, err
		}
	}
	p.TTL = engine.TTL{Min: r.duration("ttl.min", spec.TTL.Min), Max: r.duration("ttl.max", spec.TTL.Max), Negative: r.duration("ttl.negative", spec.TTL.Negative)}
	p.ClientMaxTTL = r.duration("clientMaxTTL", spec.ClientMaxTTL)
	p.Prefetch = spec.Prefetch == v1alpha1.SwitchEnabled
	p.KeepWarm = r.names("keepWarm", spec.KeepWarm)
	if s := spec.ServeStale; s != nil {
		p.ServeStale = &engine.ServeStale{
			MaxAge: r.duration("serveStale.maxAge", &s.MaxAge), TTL: r.duration("serveStale.ttl", &s.TTL), Patience: r.duration("serveStale.patience", &s.Patience),
		}
	}
	p.RandomCase = spec.QueryNameCase == v1alpha1.QueryNameCaseRandomized
	if e := spec.ECS; e != nil {
		p.ECS = &engine.ECS{Zones: r.names("ecs.zones", e.Zones), IPv4: int(ptr.Deref(e.IPv4PrefixLength, 0)), IPv6: int(ptr.Deref(e.IPv6PrefixLength, 0))}
	}
	if spec.DNSSEC.Mode == v1alpha1.DNSSECValidate {
		p.TrustAnchors = read(&r, "dnssec.trustAnchors", spec.DNSSEC.TrustAnchors, engine.ParseAnchor)
	}
	p.Limits = engine.Limits{Client: int(ptr.Deref(spec.Limits.ClientQueriesPerSecond, 0)), Domain: int(ptr.Deref(spec.Limits.DomainQueriesPerSecond, 0))}
	for i, n := range spec.Limits.NAT {
		networks := r.networks(fmt.Sprintf("limits.nat[%d].networks", i), n.Networks)
		p.Limits.NAT = append(p.Limits.NAT, engine.NATLimit{Networks: networks, Client: int(ptr.Deref(n.QueriesPerSecond, 0))})
	}
	p.Block.Names = r.names("blockLists.names", spec.BlockLists.Names)
	p.Block.Patterns = read(&r, "blockLists.patterns", spec.BlockLists.Patterns, engine.ParsePattern)
	p.Block.RPZ = r.policyZones(spec.BlockLists.RPZ, in.Texts)
	if l := spec.QueryLog; l != nil {
		p.Dnstap = &engine.Dnstap{Socket: r.path("queryLog.dnstap.socket", l.Dnstap.Socket)}
	}
	in.transports(p, &r)
	for _, m := range spec.Members {
		p.Members[engine.Product(m.Engine)] = pool.Member{Threads: int(ptr.Deref(m.Threads, 0)), CacheMiB: int(ptr.Deref(m.CacheMiB, 0))}
	}
	if p.RecursionCheck = r.name("recursionCheck", spec.RecursionCheck); spec.RecursionCheck == "" {
		p.RecursionCheck = in.deepest()
	}
	p.Notifiers = in.notifiers()
	if len(r.files) > 0 {
		p.Files = r.files
	}
	if err := errors.Join(r.errs...); err != nil {
		return PoolRendered{}, refuse(v1alpha1.ReasonInvalidConfiguration, "%s", oneLine(err))
	}
	return finish(p, spec.Members)
}

// finish has the programs' own rules say what they think of a Pool.
func finish(p *pool.Pool, members []v1alpha1.ResolverMember) (PoolRendered, error) {
	out := PoolRendered{Pool: p, Unsupported: map[v1alpha1.ResolverEngine][]string{}}
	if err := p.Check(); err != nil {
		return PoolRendered{}, refuse(v1alpha1.ReasonInvalidConfiguration, "%s", inSpecWords(oneLine(err)))
	}
	somewhere := *p
	somewhere.SourceNetworks = nil
	folder, _ := engine.ParsePath("/run/resolver")
	for _, m := range members {
		product := engine.Product(m.Engine)
		c, err := somewhere.At(pool.Host{Engine: product, Listen: []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), portDNS)}, Files: folder.String()})
		if err != nil {
			return PoolRendered{}, refuse(v1alpha1.ReasonInvalidConfiguration, "%s", inSpecWords(oneLine(err)))
		}
		rendered, err := engine.Render(product, c, folder)
		if err != nil {
			return PoolRendered{}, refuse(v1alpha1.ReasonInvalidConfiguration, "%s", inSpecWords(oneLine(err)))
		}
		for _, u := range rendered.Unsupported {
			out.Unsupported[m.Engine] = append(out.Unsupported[m.Engine], inSpecWords(u.Feature)+": "+u.Reason)
		}
	}
	text, err := yaml.Marshal(p)
	switch {
	case err != nil:
		return PoolRendered{}, refuse(v1alpha1.ReasonInvalidConfiguration, "it can't be written: %v", err)
	case len(text) > maxPoolText:
		return PoolRendered{}, refuse(v1alpha1.ReasonInvalidConfiguration,
			"what members are told has %d KiB, and %d are the most: have large response policy zones transferred from blockLists.rpz.primaries", len(text)>>10, maxPoolText>>10)
	}
	out.Text = text
	return out, nil
}

// specWords are fields of a Pool, and what they are in the spec. The first that begins a field counts.
var specWords = []struct{ field, spec string }{
	{"clients", "clientNetworks"}, {"tls", "transports"}, {"ports", "transports"}, {"forward", "internetAccess.forward"}, {"internal", "internetAccess.forward"},
	{"threads", "members.threads"}, {"cacheMiB", "members.cacheMiB"}, {"randomCase", "queryNameCase"}, {"trustAnchors", "dnssec.trustAnchors"},
	{"limits.client", "limits.clientQueriesPerSecond"}, {"limits.domain", "limits.domainQueriesPerSecond"}, {"block", "blockLists"},
	{"dnstap", "queryLog.dnstap"}, {"rootHints", "rootZone"},
}

// inSpecWords writes a text that begins with a field of a Pool with the spec's word for it.
func inSpecWords(text string) string {
	for _, w := range specWords {
		if rest, is := strings.CutPrefix(text, w.field); is && (rest == "" || strings.ContainsAny(rest[:1], " .[:")) {
			return w.spec + rest
		}
	}
	return text
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// poolReader turns texts of a spec into values, and keeps what is wrong with them: the API server has checked nearly all.
type poolReader struct {
	errs  []error
	files map[string]string
}

func read[T, V any](r *poolReader, field string, texts []T, parse func(T) (V, error)) []V {
	var all []V
	for i, text := range texts {
		v, err := parse(text)
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s[%d]: %w", field, i, err))
			continue
		}
		all = append(all, v)
	}
	return all
}

func (r *poolReader) networks(field string, of []v1alpha1.CIDR) []netip.Prefix {
	all := read(r, field, of, func(text v1alpha1.CIDR) (netip.Prefix, error) { return netip.ParsePrefix(string(text)) })
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

func (r *poolReader) names(field string, of []v1alpha1.DomainName) []engine.Name {
	return read(r, field, of, func(text v1alpha1.DomainName) (engine.Name, error) { return engine.ParseName(string(text)) })
}

// name reads one name; "" is none.
func (r *poolReader) name(field string, text v1alpha1.DomainName) engine.Name {
	if text == "" {
		return engine.Name{}
	}
	name, err := engine.ParseName(string(text))
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", field, err))
	}
	return name
}

func (r *poolReader) path(field, text string) engine.Path {
	path, err := engine.ParsePath(text)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", field, err))
	}
	return path
}

// duration reads one duration; nil and "" are 0.
func (r *poolReader) duration(field string, text *v1alpha1.Duration) engine.Duration {
	if text == nil || *text == "" {
		return 0
	}
	d, err := text.Parse()
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", field, err))
	}
	return engine.Duration(d)
}

func (r *poolReader) address(field string, text v1alpha1.IP, port *int32, otherwise int32) netip.AddrPort {
	a, err := netip.ParseAddr(string(text))
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("%s: %w", field, err))
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(ptr.Deref(port, otherwise)))
}

// file has a text written at every member, and returns its path there.
func (r *poolReader) file(kind, text string) engine.Path {
	name := kind + "-" + shortHash(text)
	r.files[name] = text
	return r.path(kind, pool.FilesFolder+"/"+name)
}

func (r *poolReader) forward(rules []v1alpha1.ForwardRule) []engine.Forward {
	var all []engine.Forward
	for i, rule := range rules {
		field := fmt.Sprintf("internetAccess.forward[%d]", i)
		f := engine.Forward{Zones: r.names(field+".zones", rule.Zones)}
		for j, u := range rule.Upstreams {
			field := fmt.Sprintf("%s.upstreams[%d]", field, j)
			upstream := engine.Upstream{Address: r.address(field+".address", u.Address, u.Port, 53)}
			if u.TLS != nil {
				upstream.Address = r.address(field+".address", u.Address, u.Port, 853)
				upstream.TLS = &engine.UpstreamTLS{Name: r.name(field+".tls.serverName", u.TLS.ServerName), CA: r.file("upstream-ca", u.TLS.CABundle)}
			}
			f.Upstreams = append(f.Upstreams, upstream)
		}
		all = append(all, f)
	}
	return all
}

func (r *poolReader) policyZones(of []v1alpha1.ResponsePolicyZone, texts map[v1alpha1.DomainName]string) []engine.RPZ {
	var all []engine.RPZ
	for i, z := range of {
		field := fmt.Sprintf("blockLists.rpz[%d]", i)
		rpz := engine.RPZ{Name: r.name(field+".name", z.Name)}
		for j, at := range z.Primaries {
			rpz.Primaries = append(rpz.Primaries, r.address(fmt.Sprintf("%s.primaries[%d]", field, j), at.Address, at.Port, 53))
		}
		if z.ConfigMapKeyRef != nil {
			text, is := texts[z.Name]
			if !is {
				continue
			}
			rpz.File = r.file("rpz", text)
		}
		all = append(all, rpz)
	}
	return all
}

// transports says how clients ask besides.
func (in PoolInputs) transports(p *pool.Pool, r *poolReader) {
	port := func(access v1alpha1.TransportAccess, port int32) uint16 {
		if access != v1alpha1.TransportOpen {
			return 0
		}
		return uint16(port)
	}
	t := in.Pool.Spec.Transports
	p.Ports = pool.Ports{DoT: port(t.DoT.Access, t.DoT.Port), DoH: port(t.DoH.Access, t.DoH.Port)}
	switch {
	case p.Ports.DoT == 0 && p.Ports.DoH == 0:
	case in.Pool.Spec.Management == v1alpha1.ResolverPoolExternal:
		p.TLS = &engine.TLS{Certificate: r.file("tls.crt", string(in.Certificate)), Key: r.file("tls.key", string(in.Key))}
	default:
		p.TLS = &engine.TLS{Certificate: r.path("transports", PoolTransportsFolder+"/tls.crt"), Key: r.path("transports", PoolTransportsFolder+"/tls.key")}
	}
	if proxy := in.Pool.Spec.ProxyProtocol; proxy != nil {
		p.Ports.Proxy = uint16(proxy.Port)
		p.ProxyProtocol = &engine.ProxyProtocol{From: r.networks("proxyProtocol.from", proxy.From)}
	}
}

// root is the zone that members begin at; a Refusal if there is none.
func (in PoolInputs) root() (*Placement, error) {
	if ref := in.Pool.Spec.RootZone; ref != nil {
		key := types.NamespacedName{Namespace: cmp.Or(ref.Namespace, in.Pool.Namespace), Name: ref.Name}
		switch place := in.Zones[key]; {
		case place == nil:
			return nil, refuse(v1alpha1.ReasonNoRootZone, "spec.rootZone names DNSZone %s, which does not exist: members would ask the root servers of the internet", key)
		case place.Apex != rootApex:
			return nil, refuse(v1alpha1.ReasonNoRootZone, "spec.rootZone names DNSZone %s, which is zone %s and not the root", key, place.Apex)
		case place.Refused != nil && !place.Keep:
			return nil, refuse(v1alpha1.ReasonNoRootZone, "spec.rootZone names DNSZone %s, which is not accepted: %v", key, place.Refused)
		default:
			return place, nil
		}
	}
	for _, place := range in.Zones {
		if place.Apex == rootApex && served(place) {
			return place, nil
		}
	}
	return nil, refuse(v1alpha1.ReasonNoRootZone, "there is no DNSZone \".\" that is accepted: members would ask the root servers of the internet")
}

const rootApex = zone.Name("\x00")

// served reports whether servers have the zone, as far as objects say.
func served(place *Placement) bool {
	return place.Apex != "" && (place.Refused == nil || place.Keep)
}

// rootHints are the servers of the root zone.
func (in PoolInputs) rootHints() ([]engine.RootServer, error) {
	root, err := in.root()
	if err != nil {
		return nil, err
	}
	var hints []engine.RootServer
	for _, ns := range root.NameServers {
		if name, err := engine.ParseName(ns.Host.String()); err == nil && len(ns.Addresses) > 0 {
			hints = append(hints, engine.RootServer{Name: name, Addresses: ns.Addresses})
		}
	}
	if len(hints) == 0 {
		return nil, refuse(v1alpha1.ReasonNoRootZone, "no server of the root zone has an address yet: members would ask the root servers of the internet")
	}
	return hints, nil
}

// authorityNetworks are the addresses of all authoritative servers, in whatever state they are, so that who follows an old
// referral is let, and what the spec has beside.
func (in PoolInputs) authorityNetworks(stated []netip.Prefix) []netip.Prefix {
	all := slices.Clone(stated)
	add := func(addresses ...netip.Addr) {
		for _, a := range addresses {
			a = a.Unmap()
			if !slices.ContainsFunc(stated, func(n netip.Prefix) bool { return n.Contains(a) }) {
				all = append(all, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	for _, dc := range in.Datacenters {
		groups := slices.Clone(dc.Spec.ServerGroups)
		for _, name := range LeavingGroups(dc) {
			groups = append(groups, v1alpha1.ServerGroup{Name: name, Management: v1alpha1.ServerGroupManaged})
		}
		for _, g := range groups {
			for _, text := range WithAddresses(dc, g).Addresses {
				if a := parsed(text); a.IsValid() && dc.Spec.Role != v1alpha1.DatacenterRoleWitness {
					add(a)
				}
			}
		}
	}
	for _, place := range in.Zones {
		for _, ns := range place.NameServers {
			add(ns.Addresses...)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// internal are the operator's zones at which its names begin again below forwarded ones, with their servers, by name. A zone
// of the operator itself can't be forwarded.
func (in PoolInputs) internal(rules []engine.Forward) ([]engine.InternalZone, error) {
	forwarded := map[zone.Name]bool{}
	for _, f := range rules {
		for _, z := range f.Zones {
			name, err := zone.ParseName(z.String(), "")
			if err != nil {
				return nil, refuse(v1alpha1.ReasonInvalidConfiguration, "internetAccess.forward: %v", err)
			}
			forwarded[name] = true
		}
	}
	own := map[zone.Name]*Placement{}
	for _, place := range in.Zones {
		if place.Apex != rootApex && served(place) {
			own[place.Apex] = place
		}
	}
	var all []engine.InternalZone
	for _, apex := range slices.SortedFunc(maps.Keys(own), zone.Name.Compare) {
		if forwarded[apex] {
			return nil, refuse(v1alpha1.ReasonInvalidConfiguration, "internetAccess.forward has %s, which is a zone of the operator: it stays where it is", apex)
		}
		begins := false
		for above := apex.Parent(); above != "" && own[above] == nil; above = above.Parent() {
			if begins = forwarded[above]; begins {
				break
			}
		}
		name, err := engine.ParseName(apex.String())
		if !begins || err != nil { // names of others stand in no question that engines are told of
			continue
		}
		z := engine.InternalZone{Zone: name}
		for _, ns := range own[apex].NameServers {
			z.Servers = append(z.Servers, ns.Addresses...)
		}
		if len(z.Servers) > 0 {
			all = append(all, z)
		}
	}
	return all, nil
}

// deepest is the zone with the most labels, forward ones first, then the first by name; the zero Name if there is none
// below the root.
func (in PoolInputs) deepest() engine.Name {
	var best *Placement
	var name engine.Name
	reverse := func(p *Placement) int {
		if strings.HasSuffix(p.Apex.String(), ".arpa.") {
			return 1
		}
		return 0
	}
	for _, place := range in.Zones {
		n, err := engine.ParseName(place.Apex.String())
		if place.Apex == rootApex || place.Refused != nil || len(place.NameServers) == 0 || err != nil {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(reverse(place), reverse(best)), cmp.Compare(best.Apex.Labels(), place.Apex.Labels()), place.Apex.Compare(best.Apex)) < 0 {
			best, name = place, n
		}
	}
	return name
}

// maxNotifiers bounds both lists of Notifiers.
const maxNotifiers = 256

// notifiers are where servers tell which answers have changed: those of the datacenter, and all others for when none of
// these can be reached. Managed groups in the cluster of the members have a name that stands for all of their servers.
func (in PoolInputs) notifiers() pool.Notifiers {
	var n pool.Notifiers
	for _, dc := range in.Datacenters {
		near := in.peers(dc)
		if dc.Name == in.Datacenter.Name {
			n.Local = near
		} else {
			n.Others = append(n.Others, near...)
		}
	}
	slices.Sort(n.Others)
	n.Others = slices.Compact(n.Others)
	n.Local, n.Others = n.Local[:min(len(n.Local), maxNotifiers)], n.Others[:min(len(n.Others), maxNotifiers)]
	return n
}

// peers are the peer listeners of a datacenter's servers as members of the pool reach them, sorted.
func (in PoolInputs) peers(dc *v1alpha1.Datacenter) []string {
	told := map[string][]string{} // by group
	add := func(group, peer string) {
		if peer != "" && !slices.Contains(told[group], peer) {
			told[group] = append(told[group], peer)
		}
	}
	for _, s := range in.Servers {
		if s.Datacenter == dc.Name {
			add(s.Group, s.Peer)
		}
	}
	for _, s := range dc.Status.Servers {
		add(s.Group, s.PeerAddress)
	}
	managed := in.Pool.Spec.Management != v1alpha1.ResolverPoolExternal
	var all []string
	for _, g := range dc.Spec.ServerGroups {
		if managed && g.Management == v1alpha1.ServerGroupManaged && clusterOf(dc) == clusterOf(in.Datacenter) {
			all = append(all, peersName(Location{dc.Name, g.Name})+"."+in.namespaceOf(dc)+".svc:"+strconv.Itoa(podPortPeer))
		} else {
			all = append(all, told[g.Name]...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// clusterOf is the name of the Secret with the kubeconfig of a datacenter's cluster; "" for that of the operator.
func clusterOf(dc *v1alpha1.Datacenter) string {
	if c := dc.Spec.Cluster; c != nil && c.KubeconfigSecretRef != nil {
		return c.KubeconfigSecretRef.Name + "/" + c.KubeconfigSecretRef.Key
	}
	return ""
}

// namespaceOf is where the operator runs servers of a datacenter.
func (in PoolInputs) namespaceOf(dc *v1alpha1.Datacenter) string {
	if c := dc.Spec.Cluster; c != nil {
		return c.Namespace
	}
	return in.Namespace
}
