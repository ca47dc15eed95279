package render

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// Labels of what the operator makes for the members of ResolverPools, beside LabelManagedBy and LabelDatacenter. Whatever
// has LabelPool belongs to a pool, and to no server group.
const (
	LabelPool          = "fingerpost.dev/pool"
	LabelPoolNamespace = "fingerpost.dev/pool-namespace"
	LabelEngine        = "fingerpost.dev/engine"
)

const (
	// ConfigurationAnnotation is on pods of members: the digest of the ConfigMap that they are to have read. Kubelets bring a
	// ConfigMap up to date when something about the pod changes; else they take a minute or more.
	ConfigurationAnnotation = "fingerpost.dev/configuration"
	// templateAnnotation is on Deployments: the digest of the pods' template as it was rendered.
	templateAnnotation = "fingerpost.dev/template"
)

const (
	// poolFolder is where members have their pool's ConfigMap, and poolFile the configuration in it.
	poolFolder = "/etc/fingerpost/pool"
	poolFile   = "pool.yaml"
	// resolverFolder is in memory: the engine's files and sockets, and the cache of Knot Resolver.
	resolverFolder = "/run/fingerpost-resolver"
	// resolverName is that of the only container of a member.
	resolverName = "resolver"
	// podPortResolverHTTP is the port of health, metrics and status in pods of members.
	podPortResolverHTTP = 8056
	// memberLeave is how many seconds a member that is to end answers on as if nothing were, while it is taken out of its
	// Service and health checks of load balancers follow.
	memberLeave = 24
	// memberDrain is how many seconds a member answers on when it says that it is not ready any more: kube-proxy leads
	// away then what flows of UDP began before.
	memberDrain = 6
)

// PoolPlace is one pool in one datacenter.
type PoolPlace struct {
	Pool       types.NamespacedName
	Datacenter string
}

// PoolWorkloadInputs is all that the objects of one Managed pool in one datacenter depend on.
type PoolWorkloadInputs struct {
	Pool       *v1alpha1.ResolverPool
	Datacenter *v1alpha1.Datacenter
	Namespace  string // where members run
	// Images are those of members that name none.
	Images map[v1alpha1.ResolverEngine]string
	// Config is what members are told, and Text the same as they read it.
	Config *pool.Pool
	Text   []byte
	Hubs   []string // HOST:PORT of managers, in order of preference
	// Owned: the objects are in the cluster of the Datacenter, which owns them.
	Owned bool
	// Running are the pool's Deployments as they are. The number of replicas of one that is scaled by load is not given
	// but when it is made.
	Running []appsv1.Deployment
}

// PoolWorkloadName is the name of the objects of a pool in a datacenter, or of one of its engines (none: ""). It has 52
// characters at most, and the hash of all that it stands for at its end; it does not begin as names of server groups.
func PoolWorkloadName(p PoolPlace, engine v1alpha1.ResolverEngine) string {
	name := "resolver-" + p.Datacenter + "-" + p.Pool.Name
	if engine != "" {
		name += "-" + strings.ToLower(string(engine))
	}
	return hashedName(name, p.Datacenter, p.Pool.Namespace, p.Pool.Name, string(engine))
}

// PoolCertificateSecret is the name of the Secret at a place with the certificate that clients of DoT and DoH are shown.
func PoolCertificateSecret(p PoolPlace) string { return PoolWorkloadName(p, "") + "-transports" }

// PoolSelector has the labels that all objects of a pool in a datacenter have, and no others' objects.
func PoolSelector(p PoolPlace) map[string]string {
	return map[string]string{LabelDatacenter: p.Datacenter, LabelPool: p.Pool.Name, LabelPoolNamespace: p.Pool.Namespace}
}

// PoolOf is the pool that an object was made for; false: for none.
func PoolOf(o metav1.Object) (PoolPlace, bool) {
	l := o.GetLabels()
	p := PoolPlace{Datacenter: l[LabelDatacenter], Pool: types.NamespacedName{Namespace: l[LabelPoolNamespace], Name: l[LabelPool]}}
	return p, p.Pool.Name != ""
}

// PoolWorkload returns the objects that run the members of one pool in one datacenter, in the order in which they are to be
// applied. They have the fields that the operator owns and no others. Secrets are not among them.
func PoolWorkload(in PoolWorkloadInputs) []Object {
	objects := []Object{in.serviceAccount(), in.networkPolicy(), in.disruptionBudget(), in.configMap(), in.service()}
	for _, m := range PoolMembers(in.Pool) {
		objects = append(objects, in.deployment(m))
		if m.Autoscaling != nil {
			objects = append(objects, in.autoscaler(m))
		}
	}
	return objects
}

// PoolMembers are the members of a pool, by engine.
func PoolMembers(p *v1alpha1.ResolverPool) []v1alpha1.ResolverMember {
	return slices.SortedFunc(slices.Values(p.Spec.Members), func(a, b v1alpha1.ResolverMember) int { return strings.Compare(string(a.Engine), string(b.Engine)) })
}

func (in PoolWorkloadInputs) place() PoolPlace {
	return PoolPlace{Pool: types.NamespacedName{Namespace: in.Pool.Namespace, Name: in.Pool.Name}, Datacenter: in.Datacenter.Name}
}

// meta is for an object of one engine, or of the whole pool (engine "").
func (in PoolWorkloadInputs) meta(engine v1alpha1.ResolverEngine) metav1.ObjectMeta {
	name := PoolWorkloadName(in.place(), engine)
	m := metav1.ObjectMeta{Namespace: in.Namespace, Name: name, Labels: PoolSelector(in.place())}
	m.Labels[LabelManagedBy] = ManagedBy
	m.Labels["app.kubernetes.io/name"] = "fingerpost-resolver"
	m.Labels["app.kubernetes.io/instance"] = name
	if engine != "" {
		m.Labels[LabelEngine] = string(engine)
	}
	if in.Owned {
		m.OwnerReferences = []metav1.OwnerReference{ownedBy(in.Datacenter)}
	}
	return m
}

// selector chooses the pods of one engine, or of the whole pool (engine "").
func (in PoolWorkloadInputs) selector(engine v1alpha1.ResolverEngine) *metav1.LabelSelector {
	s := &metav1.LabelSelector{MatchLabels: PoolSelector(in.place())}
	if engine != "" {
		s.MatchLabels[LabelEngine] = string(engine)
	}
	return s
}

func (in PoolWorkloadInputs) serviceAccount() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: in.meta(""), AutomountServiceAccountToken: new(false),
	}
}

// disruptionBudget counts the members of all engines together, and never lets the last of several go.
func (in PoolWorkloadInputs) disruptionBudget() *policyv1.PodDisruptionBudget {
	most := int32(1)
	if d := in.Pool.Spec.Disruption; d != nil {
		most = ptr.Deref(d.MaxUnavailable, most)
	}
	members := int32(0)
	for _, m := range in.Pool.Spec.Members {
		members += DeclaredMembers(m)
	}
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: in.meta(""),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable:             new(intstr.FromInt32(max(1, min(most, members-1)))),
			UnhealthyPodEvictionPolicy: ptr.To(policyv1.AlwaysAllow),
			Selector:                   in.selector(""),
		},
	}
}

// DeclaredMembers is how many members of one engine there are to be in each datacenter, at least where load decides.
func DeclaredMembers(m v1alpha1.ResolverMember) int32 {
	if a := m.Autoscaling; a != nil {
		return ptr.Deref(a.MinReplicas, 2)
	}
	return ptr.Deref(m.Replicas, 2)
}

func (in PoolWorkloadInputs) configMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: in.meta(""), Data: map[string]string{poolFile: string(in.Text)},
	}
}

// ConfigurationDigest identifies the content of a pool's ConfigMap.
func ConfigurationDigest(c *corev1.ConfigMap) string { return digestOf(c.Data) }

// digestOf identifies what encodes as JSON: 16 hexadecimal digits.
func digestOf(v any) string {
	text, _ := json.Marshal(v) // of types of Kubernetes, which encode
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// networkPolicy lets clients in from everywhere, since those who are not of clientNetworks are told so by REFUSED; who says
// whose queries he brings, from the load balancers alone; scrapers from within the cluster. Members reach authorities,
// upstreams, those who tell of changes, and managers, on the ports of each; so no query leaves for anywhere else.
func (in PoolWorkloadInputs) networkPolicy() *networkingv1.NetworkPolicy {
	open := networkingv1.NetworkPolicyIngressRule{}
	rules := []networkingv1.NetworkPolicyIngressRule{open}
	for _, p := range in.clientPorts() {
		port := networkingv1.NetworkPolicyPort{Protocol: new(p.protocol), Port: new(intstr.FromInt32(p.pod))}
		if p.name != "proxy-udp" && p.name != "proxy-tcp" {
			rules[0].Ports = append(rules[0].Ports, port)
			continue
		}
		if len(rules) == 1 {
			rules = append(rules, networkingv1.NetworkPolicyIngressRule{From: blocks(parsePrefixes(in.Pool.Spec.ProxyProtocol.From))})
		}
		rules[1].Ports = append(rules[1].Ports, port)
	}
	rules = append(rules, networkingv1.NetworkPolicyIngressRule{
		From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}}, Ports: []networkingv1.NetworkPolicyPort{tcpPort(podPortResolverHTTP)},
	})
	return &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}, ObjectMeta: in.meta(""),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *in.selector(""),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     rules, Egress: in.egress(),
		},
	}
}

func tcpPort(port int32) networkingv1.NetworkPolicyPort {
	return networkingv1.NetworkPolicyPort{Protocol: ptr.To(corev1.ProtocolTCP), Port: new(intstr.FromInt32(port))}
}

// bothPorts are those of DNS over UDP and TCP.
func bothPorts(port int32) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{{Protocol: ptr.To(corev1.ProtocolUDP), Port: new(intstr.FromInt32(port))}, tcpPort(port)}
}

// egress is whom members may reach.
func (in PoolWorkloadInputs) egress() []networkingv1.NetworkPolicyEgressRule {
	c := in.Config
	authorities := map[netip.Prefix]bool{}
	for _, p := range c.AuthorityNetworks {
		authorities[p.Masked()] = true
	}
	for _, s := range c.RootHints {
		for _, a := range s.Addresses {
			authorities[host(a)] = true
		}
	}
	for _, z := range c.Internal {
		for _, a := range z.Servers {
			authorities[host(a)] = true
		}
	}
	others := map[netip.AddrPort][]networkingv1.NetworkPolicyPort{} // upstreams, and primaries of response policy zones
	for _, z := range c.Block.RPZ {
		for _, at := range z.Primaries {
			others[at] = bothPorts(int32(at.Port()))
		}
	}
	for _, f := range c.Forward {
		for _, u := range f.Upstreams {
			if others[u.Address] == nil {
				others[u.Address] = []networkingv1.NetworkPolicyPort{tcpPort(int32(u.Address.Port()))}
			}
			if u.TLS == nil {
				others[u.Address] = bothPorts(int32(u.Address.Port()))
			}
		}
	}
	to := networkingv1.NetworkPolicyEgressRule{Ports: bothPorts(portDNS)}
	if len(c.AuthorityNetworks) > 0 { // else they may be anywhere
		to.To = blocks(outermost(authorities))
	}
	// Where a server's address is that of a Service of the cluster, what counts is the pod behind it.
	servers := networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{}, PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{LabelManagedBy: ManagedBy, "app.kubernetes.io/name": serversName}},
	}
	rules := []networkingv1.NetworkPolicyEgressRule{to, {To: []networkingv1.NetworkPolicyPeer{servers}, Ports: bothPorts(podPortDNS)}}
	for _, at := range slices.SortedFunc(maps.Keys(others), netip.AddrPort.Compare) {
		rules = append(rules, networkingv1.NetworkPolicyEgressRule{To: blocks([]netip.Prefix{host(at.Addr())}), Ports: others[at]})
	}
	return append(rules, towards(slices.Concat(c.Notifiers.Local, c.Notifiers.Others, in.Hubs))...)
}

// towards are the rules for HOST:PORTs over TLS: of those who tell of changes, and of managers. Where one of them is a name the
// cluster's own DNS may be asked for it.
func towards(hosts []string) []networkingv1.NetworkPolicyEgressRule {
	ports, named := map[int32]bool{}, false
	for _, h := range hosts {
		port, err := strconv.ParseUint(h[strings.LastIndexByte(h, ':')+1:], 10, 16)
		if err != nil {
			continue
		}
		ports[int32(port)] = true
		_, err = netip.ParseAddrPort(h)
		named = named || err != nil
	}
	var rules []networkingv1.NetworkPolicyEgressRule
	if len(ports) > 0 {
		rule := networkingv1.NetworkPolicyEgressRule{}
		for _, p := range slices.Sorted(maps.Keys(ports)) {
			rule.Ports = append(rule.Ports, tcpPort(p))
		}
		rules = append(rules, rule)
	}
	if named {
		rules = append(rules, networkingv1.NetworkPolicyEgressRule{
			To: []networkingv1.NetworkPolicyPeer{{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
				PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}},
			}, {IPBlock: &networkingv1.IPBlock{CIDR: nodeLocalDNS}}},
			Ports: bothPorts(portDNS),
		})
	}
	return rules
}

// nodeLocalDNS is where NodeLocal DNSCache answers on each node.
const nodeLocalDNS = "169.254.20.10/32"

func host(a netip.Addr) netip.Prefix { a = a.Unmap(); return netip.PrefixFrom(a, a.BitLen()) }

// outermost are the networks that no other one of them holds, sorted.
func outermost(networks map[netip.Prefix]bool) []netip.Prefix {
	sorted := slices.SortedFunc(maps.Keys(networks), netip.Prefix.Compare) // a network before those in it
	var all []netip.Prefix
	for _, p := range sorted {
		if n := len(all); n == 0 || !all[n-1].Contains(p.Addr()) {
			all = append(all, p)
		}
	}
	return all
}

func blocks(networks []netip.Prefix) []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for _, p := range networks {
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: p.String()}})
	}
	return peers
}

// parsePrefixes reads networks that were checked when they were applied; others are left out.
func parsePrefixes(list []v1alpha1.CIDR) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range list {
		if p, err := netip.ParsePrefix(string(text)); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

// clientPorts are those of the pool's transports. DNS comes first.
func (in PoolWorkloadInputs) clientPorts() []clientPort {
	ports := []clientPort{{"dns-udp", corev1.ProtocolUDP, portDNS, podPortDNS}, {"dns-tcp", corev1.ProtocolTCP, portDNS, podPortDNS}}
	t := in.Pool.Spec.Transports
	if t.DoT.Access == v1alpha1.TransportOpen {
		ports = append(ports, clientPort{"dot", corev1.ProtocolTCP, t.DoT.Port, t.DoT.Port})
	}
	if t.DoH.Access == v1alpha1.TransportOpen {
		ports = append(ports, clientPort{"doh", corev1.ProtocolTCP, t.DoH.Port, t.DoH.Port})
	}
	if p := in.Pool.Spec.ProxyProtocol; p != nil {
		ports = append(ports, clientPort{"proxy-udp", corev1.ProtocolUDP, p.Port, p.Port}, clientPort{"proxy-tcp", corev1.ProtocolTCP, p.Port, p.Port})
	}
	return ports
}

// poolExposure is how clients reach the members of a pool, as written or by default.
func poolExposure(p *v1alpha1.ResolverPool) v1alpha1.ResolverExposure {
	exposure := ptr.Deref(p.Spec.Exposure, v1alpha1.ResolverExposure{})
	if exposure.Type == "" {
		exposure.Type = v1alpha1.ResolverLoadBalancer
	}
	if exposure.ExternalTrafficPolicy == "" {
		exposure.ExternalTrafficPolicy = v1alpha1.TrafficLocal
	}
	return exposure
}

// service is what brings clients to the members of all engines.
func (in PoolWorkloadInputs) service() *corev1.Service {
	exposure := poolExposure(in.Pool)
	var addresses []v1alpha1.IP
	for _, d := range exposure.Datacenters {
		if string(d.Name) == in.Datacenter.Name {
			addresses = d.Addresses
		}
	}
	s := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: in.meta("")}
	s.Annotations = maps.Clone(exposure.Annotations)
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[ExposureAnnotation] = exposureKey(v1alpha1.ServerExposure{
		Type: v1alpha1.ExposureType(exposure.Type), Addresses: addresses, LoadBalancerClass: exposure.LoadBalancerClass, NodePort: exposure.NodePort,
	})
	s.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceType(exposure.Type), IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack), Selector: in.selector("").MatchLabels,
	}
	if exposure.Type != v1alpha1.ResolverClusterIP {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicy(exposure.ExternalTrafficPolicy)
	}
	if exposure.InternalTrafficPolicy != "" {
		s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicy(exposure.InternalTrafficPolicy))
	}
	if exposure.TrafficDistribution != "" {
		s.Spec.TrafficDistribution = new(string(exposure.TrafficDistribution))
	}
	for _, p := range in.clientPorts() {
		port := corev1.ServicePort{Name: p.name, Protocol: p.protocol, Port: p.client, TargetPort: intstr.FromInt32(p.pod)}
		if p.client == portDNS {
			port.NodePort = ptr.Deref(exposure.NodePort, 0)
		}
		s.Spec.Ports = append(s.Spec.Ports, port)
	}
	switch exposure.Type {
	case v1alpha1.ResolverExternalIPs:
		s.Spec.Type, s.Spec.ExternalIPs = corev1.ServiceTypeClusterIP, texts(addresses)
	case v1alpha1.ResolverClusterIP:
		if len(addresses) > 0 {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = string(addresses[0]), texts(addresses)
		}
	case v1alpha1.ResolverLoadBalancer:
		if exposure.LoadBalancerClass != "" {
			s.Spec.LoadBalancerClass = &exposure.LoadBalancerClass
		}
		if len(addresses) == 1 {
			s.Spec.LoadBalancerIP = string(addresses[0])
		}
	}
	return s
}

// ServiceReplaced reports whether a Service (live) can't become what is wanted but by being made anew: its class of load balancer and
// its own addresses do not change.
func ServiceReplaced(live, want *corev1.Service) bool {
	if live.Spec.Type == corev1.ServiceTypeLoadBalancer && want.Spec.Type == live.Spec.Type && ptr.Deref(live.Spec.LoadBalancerClass, "") != ptr.Deref(want.Spec.LoadBalancerClass, "") {
		return true
	}
	return want.Spec.ClusterIP != "" && !slices.Equal(live.Spec.ClusterIPs, want.Spec.ClusterIPs)
}

// deployment runs the members of one engine.
func (in PoolWorkloadInputs) deployment(m v1alpha1.ResolverMember) *appsv1.Deployment {
	template := in.pod(m)
	d := &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: in.meta(m.Engine),
		Spec: appsv1.DeploymentSpec{
			Selector: in.selector(m.Engine), Template: template,
			// A new member answers before an old one goes: caches are cold one by one.
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxUnavailable: new(intstr.FromInt32(0)), MaxSurge: new(intstr.FromInt32(1)),
			}},
			MinReadySeconds: 5, RevisionHistoryLimit: ptr.To[int32](2),
		},
	}
	d.Annotations = map[string]string{templateAnnotation: digestOf(template)}
	made := slices.ContainsFunc(in.Running, func(r appsv1.Deployment) bool { return r.Name == d.Name })
	if m.Autoscaling == nil || !made {
		d.Spec.Replicas = new(DeclaredMembers(m))
	}
	return d
}

// autoscaler keeps free what the pool says of what members can do.
func (in PoolWorkloadInputs) autoscaler(m v1alpha1.ResolverMember) *autoscalingv2.HorizontalPodAutoscaler {
	a := m.Autoscaling
	used := 100 - ptr.Deref(a.HeadroomPercent, 30)
	metric := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &used},
	}}
	if a.Metric == v1alpha1.AutoscaleQueries {
		most := int64(ptr.Deref(a.QueriesPerSecond, 0)) * int64(used) / 100
		metric = autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{
			Metric: autoscalingv2.MetricIdentifier{Name: queriesMetric},
			Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(max(1, most), resource.DecimalSI)},
		}}
	}
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"}, ObjectMeta: in.meta(m.Engine),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: PoolWorkloadName(in.place(), m.Engine)},
			MinReplicas:    new(DeclaredMembers(m)), MaxReplicas: a.MaxReplicas, Metrics: []autoscalingv2.MetricSpec{metric},
		},
	}
}

// queriesMetric is the metric of pods by which the number of members is chosen.
const queriesMetric = "fingerpost_resolver_queries_per_second"

func (in PoolWorkloadInputs) pod(m v1alpha1.ResolverMember) corev1.PodTemplateSpec {
	pods := ptr.Deref(m.Pods, v1alpha1.ServerPods{})
	labels := podLabels(pods, in.meta(m.Engine).Labels)
	var architecture v1alpha1.NodeSelector
	if m.Architecture != "" {
		architecture = v1alpha1.NodeSelector{corev1.LabelArchStable: v1alpha1.LabelValue(m.Architecture)}
	}
	spec := corev1.PodSpec{
		ServiceAccountName:            PoolWorkloadName(in.place(), ""),
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		TerminationGracePeriodSeconds: ptr.To[int64](memberLeave + memberDrain + stopGrace),
		Containers:                    []corev1.Container{in.container(m)},
		Volumes: []corev1.Volume{
			{Name: "pool", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: PoolWorkloadName(in.place(), "")}, DefaultMode: ptr.To[int32](0o444),
			}}},
			secretVolume("tls", ServerSecret(Location{Datacenter: in.Datacenter.Name, Group: pool.GroupName(in.Pool.Namespace, in.Pool.Name)}), false),
			secretVolume("transports", PoolCertificateSecret(in.place()), true), // so that DoT and DoH are opened without a restart
			{Name: "run", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
				Medium: corev1.StorageMediumMemory, SizeLimit: resource.NewQuantity((cacheMiB(m)+runMiB)<<20, resource.BinarySI),
			}}},
		},
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: ptr.To[int64](serverUser), RunAsGroup: ptr.To[int64](serverUser), FSGroup: ptr.To[int64](serverUser),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			// Transports may be opened on their usual ports below 1024.
			Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}},
		},
		// Members of one engine are on several nodes, and rather on those without members of another: a node that dies takes
		// few of each. Kubernetes has one constraint for each topology.
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{
			spread(corev1.LabelHostname, in.selector(m.Engine)), spread(corev1.LabelTopologyZone, in.selector(m.Engine)),
		},
		Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{
			Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: in.selector("")},
		}}}},
	}
	if l := in.Pool.Spec.QueryLog; l != nil {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "dnstap", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{
			Path: path.Dir(l.Dnstap.Socket), Type: ptr.To(corev1.HostPathDirectory),
		}}})
	}
	schedule(&spec, pods, in.Datacenter.Spec.NodeSelector, architecture)
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: pods.Annotations}, Spec: spec}
}

// runMiB is how much memory files may take beside the cache: configurations, block lists, sockets.
const runMiB = 64

func cacheMiB(m v1alpha1.ResolverMember) int64 { return int64(ptr.Deref(m.CacheMiB, 64)) }

func secretVolume(name, secret string, optional bool) corev1.Volume {
	v := corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret, DefaultMode: ptr.To[int32](0o440)}}}
	if optional {
		v.Secret.Optional = new(true)
	}
	return v
}

func (in PoolWorkloadInputs) container(m v1alpha1.ResolverMember) corev1.Container {
	check := func(path string, period, patience, failures int32) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(podPortResolverHTTP), Scheme: corev1.URISchemeHTTP}},
			PeriodSeconds: period, TimeoutSeconds: patience, FailureThreshold: failures,
		}
	}
	c := corev1.Container{
		Name:  resolverName,
		Image: MemberImage(m, in.Images),
		Env:   []corev1.EnvVar{fromPod("POD_NAME", "metadata.name"), fromPod("POD_IPS", "status.podIPs")},
		Args: []string{
			"--engine=" + string(m.Engine), "--config=" + path.Join(poolFolder, poolFile), "--listen=$(POD_IPS)", fmt.Sprintf("--port=%d", podPortDNS),
			"--dir=" + resolverFolder, fmt.Sprintf("--http-listen=:%d", podPortResolverHTTP), fmt.Sprintf("--drain=%ds", memberDrain),
		},
		Ports: []corev1.ContainerPort{ // without those of other transports, which come and go without a restart
			{Name: "dns-udp", Protocol: corev1.ProtocolUDP, ContainerPort: podPortDNS},
			{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, ContainerPort: podPortDNS},
			{Name: "http", Protocol: corev1.ProtocolTCP, ContainerPort: podPortResolverHTTP},
		},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "pool", MountPath: poolFolder, ReadOnly: true}, {Name: "tls", MountPath: tlsFolder, ReadOnly: true},
			{Name: "transports", MountPath: PoolTransportsFolder, ReadOnly: true}, {Name: "run", MountPath: resolverFolder},
		},
		// The agent answers for itself, whatever its engine and the authorities do: it restarts the engine by itself.
		LivenessProbe: check("/healthz", 10, 5, 6),
		// The agent knows within 2 s of an engine that hangs, and Kubernetes a second later.
		ReadinessProbe: check("/readyz", 1, 1, 1),
		Lifecycle:      &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: memberLeave}}},
		Resources:      memberResources(m),
	}
	for _, hub := range in.Hubs {
		c.Args = append(c.Args, "--hub="+hub)
	}
	c.Args = append(c.Args, "--tls-dir="+tlsFolder, "--name=$(POD_NAME)")
	if l := in.Pool.Spec.QueryLog; l != nil {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "dnstap", MountPath: path.Dir(l.Dnstap.Socket)})
	}
	return c
}

// memberResources are those that the pool says; by default what an engine needs with its cache, which takes more memory than it
// holds. Where load decides the number of members, each asks for the CPUs that it can use: of them, some are to stay free.
func memberResources(m v1alpha1.ResolverMember) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: *resource.NewQuantity((128+2*cacheMiB(m))<<20, resource.BinarySI),
	}}
	given := m.Pods != nil && m.Pods.Resources != nil
	if given {
		r = corev1.ResourceRequirements{Requests: resourceList(m.Pods.Resources.Requests), Limits: resourceList(m.Pods.Resources.Limits)}
	}
	_, requested := r.Requests[corev1.ResourceCPU]
	if a := m.Autoscaling; a != nil && a.Metric != v1alpha1.AutoscaleQueries && (!given || !requested) {
		if r.Requests == nil {
			r.Requests = corev1.ResourceList{}
		}
		cpus := *resource.NewQuantity(int64(ptr.Deref(m.Threads, 1)), resource.DecimalSI)
		if limit, has := r.Limits[corev1.ResourceCPU]; has && limit.Cmp(cpus) < 0 {
			cpus = limit
		}
		r.Requests[corev1.ResourceCPU] = cpus
	}
	return r
}

// MemberImage is the image of a member, given those of members that name none; "" if nobody says.
func MemberImage(m v1alpha1.ResolverMember, byDefault map[v1alpha1.ResolverEngine]string) string {
	if m.Image != "" {
		return m.Image
	}
	return byDefault[m.Engine]
}
