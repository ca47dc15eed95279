package render

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
)

// Labels of what the operator makes for servers.
const (
	LabelManagedBy  = "app.kubernetes.io/managed-by"
	LabelDatacenter = "fingerpost.dev/datacenter"
	LabelGroup      = "fingerpost.dev/group"
	// LabelService is on Services: ServiceOfClients or ServiceOfPeers.
	LabelService = "fingerpost.dev/service"
	// LabelServing is on pods: "true" while clients may be sent to them, "false" when they are about to leave.
	LabelServing = "fingerpost.dev/serving"

	// labelPrefix is that of the labels that are for the operator alone.
	labelPrefix = "fingerpost.dev/"

	ManagedBy        = "fingerpost"
	ServiceOfClients = "clients"
	ServiceOfPeers   = "peers"
)

// ExposureAnnotation is on Services for clients: what the Service is for, as exposureKey writes it.
const ExposureAnnotation = "fingerpost.dev/exposure"

// Ports in pods. Pods on the network of their node answer DNS on port 53.
const (
	portDNS     = 53
	podPortDNS  = 5353
	podPortHTTP = 8053
	podPortPeer = 8054
)

const (
	// serverUser is the user and group that servers run as.
	serverUser = 65532
	// stateFolder, tlsFolder: where pods have the disk copy and the certificate.
	stateFolder = "/var/lib/fingerpost"
	tlsFolder   = "/etc/fingerpost/tls"
	// serversName is the app.kubernetes.io/name of servers.
	serversName = "fingerpost-dnsserver"
	// containerName is that of the only container.
	containerName = "dnsserver"
	// stateVolume is the name of the volume with the disk copy, and of its claim.
	stateVolume = "state"
	// stopGrace is how many seconds a server has to end after it has drained.
	stopGrace = 20
)

// Object is an object of Kubernetes.
type Object interface {
	metav1.Object
	runtime.Object
}

// WorkloadInputs is all that the objects of one Managed server group depend on.
type WorkloadInputs struct {
	Datacenter *v1alpha1.Datacenter
	Group      v1alpha1.ServerGroup
	Namespace  string   // where servers run
	Image      string   // for groups that name none
	Hubs       []string // HOST:PORT of managers, in order of preference
	Replicas   int      // servers that there are to be now
	// Owned: the objects are in the cluster of the Datacenter, which owns them.
	Owned bool
	// Running is the StatefulSet as it is; nil if there is none. Volumes of one that runs stay as they are.
	Running *appsv1.StatefulSet
	// DefaultStorage: the cluster has a default StorageClass.
	DefaultStorage bool
	// Services are the group's Services for clients that there are.
	Services []corev1.Service
}

// WorkloadName is the name of the objects of a server group, at most 52 characters, so that Kubernetes can append a hash
// where a label takes 63. Names that are too long, and those whose group has a "-" in it, have a hash at the end: no
// two groups share a name.
func WorkloadName(group Location) string {
	name := "fingerpost-" + group.Datacenter + "-" + group.Group
	if len(name) <= longestName && !strings.Contains(group.Group, "-") {
		return name
	}
	return hashedName(name, group.Datacenter, group.Group)
}

// longestName is the number of characters that the names of objects may have.
const longestName = 52

// hashedName is a name, cut where it is too long, and a hash of what it stands for. Parts have no dots.
func hashedName(name string, parts ...string) string {
	suffix := "-" + shortHash(strings.Join(parts, "."))
	return strings.TrimRight(name[:min(len(name), longestName-len(suffix))], "-") + suffix
}

// shortHash is 8 characters that go into the names of objects.
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}

// WorkloadSelector has the labels that all objects of a server group have, and no others.
func WorkloadSelector(group Location) map[string]string {
	return map[string]string{LabelDatacenter: group.Datacenter, LabelGroup: group.Group}
}

// DatacenterSelector has the labels that all objects of a datacenter's servers have.
func DatacenterSelector(datacenter string) map[string]string {
	return map[string]string{LabelManagedBy: ManagedBy, LabelDatacenter: datacenter}
}

// workloadLabels are for every object of a server group.
func workloadLabels(group Location) map[string]string {
	labels := WorkloadSelector(group)
	labels[LabelManagedBy] = ManagedBy
	labels["app.kubernetes.io/name"] = serversName
	labels["app.kubernetes.io/instance"] = group.Datacenter + "." + group.Group
	if len(labels["app.kubernetes.io/instance"]) > 63 {
		labels["app.kubernetes.io/instance"] = WorkloadName(group)
	}
	return labels
}

// ServerSecret is the name of the Secret with the certificate of the servers of one group of a datacenter. That one's name
// has no dots, so that no two pairs share a name.
func ServerSecret(group Location) string {
	return "fingerpost-server." + group.Datacenter + "." + group.Group
}

// Workload returns the objects that run the servers of one group, in the order in which they are to be applied. They have
// the fields that the operator owns and no others. The Secret with the certificate is not among them.
func Workload(in WorkloadInputs) []Object {
	objects := []Object{in.serviceAccount(), in.networkPolicy(), in.disruptionBudget(), in.peerService()}
	if exposureOf(in.Group).Type != v1alpha1.ExposureHostNetwork {
		objects = append(objects, in.clientService())
	}
	return append(objects, in.statefulSet())
}

// OwnedFields are the fields of an object of Workload, as they are applied: those that are set, and no status.
func OwnedFields(o Object) (map[string]any, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, fmt.Errorf("converting %T %s: %w", o, o.GetName(), err)
	}
	delete(fields, "status")
	return withoutNulls(fields), nil
}

// withoutNulls drops what the types write of fields that are not set.
func withoutNulls(fields map[string]any) map[string]any {
	maps.DeleteFunc(fields, func(_ string, v any) bool { return v == nil })
	for _, v := range fields {
		switch v := v.(type) {
		case map[string]any:
			withoutNulls(v)
		case []any:
			for _, e := range v {
				if m, is := e.(map[string]any); is {
					withoutNulls(m)
				}
			}
		}
	}
	return fields
}

func (in WorkloadInputs) key() Location {
	return Location{Datacenter: in.Datacenter.Name, Group: in.Group.Name}
}

func (in WorkloadInputs) hostNetwork() bool {
	return exposureOf(in.Group).Type == v1alpha1.ExposureHostNetwork
}

func (in WorkloadInputs) meta(name string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: in.Namespace, Name: name, Labels: workloadLabels(in.key())}
	if in.Owned {
		m.OwnerReferences = []metav1.OwnerReference{ownedBy(in.Datacenter)}
	}
	return m
}

func ownedBy(dc *v1alpha1.Datacenter) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: v1alpha1.SchemeGroupVersion.String(), Kind: "Datacenter", Name: dc.Name, UID: dc.UID, Controller: new(true)}
}

func (in WorkloadInputs) serviceAccount() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		TypeMeta:                     metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta:                   in.meta(WorkloadName(in.key())),
		AutomountServiceAccountToken: new(false),
	}
}

// disruptionBudget lets others take down one server at a time, and those that do not answer anyway.
func (in WorkloadInputs) disruptionBudget() *policyv1.PodDisruptionBudget {
	return &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: in.meta(WorkloadName(in.key())),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable:             new(intstr.FromInt32(1)),
			UnhealthyPodEvictionPolicy: ptr.To(policyv1.AlwaysAllow),
			Selector:                   &metav1.LabelSelector{MatchLabels: WorkloadSelector(in.key())},
		},
	}
}

// networkPolicy lets clients and peers in from everywhere, and scrapers from within the cluster. Servers may reach
// everything: what they probe is anywhere.
func (in WorkloadInputs) networkPolicy() *networkingv1.NetworkPolicy {
	open := networkingv1.NetworkPolicyIngressRule{}
	for _, p := range in.clientPorts() {
		open.Ports = append(open.Ports, networkingv1.NetworkPolicyPort{Protocol: new(p.protocol), Port: new(intstr.FromInt32(p.pod))})
	}
	open.Ports = append(open.Ports, networkingv1.NetworkPolicyPort{Protocol: ptr.To(corev1.ProtocolTCP), Port: new(intstr.FromInt32(podPortPeer))})
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: in.meta(WorkloadName(in.key())),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: WorkloadSelector(in.key())},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{open, {
				From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}},
				Ports: []networkingv1.NetworkPolicyPort{{Protocol: ptr.To(corev1.ProtocolTCP), Port: new(intstr.FromInt32(podPortHTTP))}},
			}},
		},
	}
}

// clientPort is where clients ask, and where the pod listens for it.
type clientPort struct {
	name     string
	protocol corev1.Protocol
	client   int32
	pod      int32
}

// clientPorts are those of the group's transports. DNS comes first.
func (in WorkloadInputs) clientPorts() []clientPort {
	dns := int32(podPortDNS)
	if in.hostNetwork() {
		dns = portDNS
	}
	ports := []clientPort{{"dns-udp", corev1.ProtocolUDP, portDNS, dns}}
	t := in.Group.Transports
	if t.TCP != v1alpha1.TransportClosed {
		ports = append(ports, clientPort{"dns-tcp", corev1.ProtocolTCP, portDNS, dns})
	}
	for _, over := range []struct {
		name   string
		access v1alpha1.TransportAccess
		port   int32
	}{
		{"dot", t.DoT.Access, t.DoT.Port},
		{"doh", t.DoH.Access, t.DoH.Port},
		{"httpdns", t.HTTPDNS.Access, t.HTTPDNS.Port},
	} {
		shared := slices.ContainsFunc(ports, func(p clientPort) bool { return p.client == over.port && p.protocol == corev1.ProtocolTCP })
		if over.access == v1alpha1.TransportOpen && !shared { // HTTPDNS may be on the port of DNS over HTTPS
			ports = append(ports, clientPort{over.name, corev1.ProtocolTCP, over.port, over.port})
		}
	}
	return ports
}

// peerService gives servers of the group the addresses of all of them, also of those that are not ready.
func (in WorkloadInputs) peerService() *corev1.Service {
	s := in.service(peersName(in.key()), ServiceOfPeers)
	s.Spec = corev1.ServiceSpec{
		ClusterIP: corev1.ClusterIPNone, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack), PublishNotReadyAddresses: true,
		Selector: WorkloadSelector(in.key()),
		Ports:    []corev1.ServicePort{{Name: "peers", Protocol: corev1.ProtocolTCP, Port: podPortPeer, TargetPort: intstr.FromInt32(podPortPeer)}},
	}
	return s
}

func peersName(group Location) string { return WorkloadName(group) + "-peers" }

func (in WorkloadInputs) service(name, of string) *corev1.Service {
	s := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: in.meta(name)}
	s.Labels[LabelService] = of
	return s
}

// clientService is what brings clients to the servers, with the clients' own addresses.
func (in WorkloadInputs) clientService() *corev1.Service {
	exposure := exposureOf(in.Group)
	s := in.service(ClientService(in.key(), in.Group, in.Services), ServiceOfClients)
	s.Annotations = maps.Clone(exposure.Annotations)
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[ExposureAnnotation] = exposureKey(exposure)
	s.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack),
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
		Selector:              WorkloadSelector(in.key()),
	}
	s.Spec.Selector[LabelServing] = "true"
	for _, p := range in.clientPorts() {
		port := corev1.ServicePort{Name: p.name, Protocol: p.protocol, Port: p.client, TargetPort: intstr.FromInt32(p.pod)}
		if p.client == portDNS { // by name, since pods that are yet to restart may have it elsewhere
			port.TargetPort, port.NodePort = intstr.FromString(p.name), ptr.Deref(exposure.NodePort, 0)
		}
		s.Spec.Ports = append(s.Spec.Ports, port)
	}
	switch exposure.Type {
	case v1alpha1.ExposureNodePort:
		s.Spec.Type = corev1.ServiceTypeNodePort
	case v1alpha1.ExposureExternalIPs:
		s.Spec.Type, s.Spec.ExternalIPs = corev1.ServiceTypeClusterIP, texts(exposure.Addresses)
	default:
		if exposure.LoadBalancerClass != "" {
			s.Spec.LoadBalancerClass = &exposure.LoadBalancerClass
		}
		if len(exposure.Addresses) == 1 {
			s.Spec.LoadBalancerIP = string(exposure.Addresses[0])
		}
	}
	return s
}

// exposureOf is how clients reach the group, as written or by default.
func exposureOf(g v1alpha1.ServerGroup) v1alpha1.ServerExposure {
	exposure := ptr.Deref(g.Exposure, v1alpha1.ServerExposure{})
	if exposure.Type == "" {
		exposure.Type = v1alpha1.ExposureLoadBalancer
	}
	return exposure
}

// exposureKey writes what a Service is for: type, class of load balancer, node port, and addresses, with blanks between them.
func exposureKey(e v1alpha1.ServerExposure) string {
	parts := []string{string(e.Type)}
	if e.LoadBalancerClass != "" {
		parts = append(parts, "class="+e.LoadBalancerClass)
	}
	if e.NodePort != nil {
		parts = append(parts, fmt.Sprintf("port=%d", *e.NodePort))
	}
	return strings.Join(append(parts, slices.Sorted(slices.Values(texts(e.Addresses)))...), " ")
}

// exposed is what exposureKey wrote on a Service; "" for the type of one that nobody wrote it on.
func exposed(s *corev1.Service) (typ v1alpha1.ExposureType, addresses []netip.Addr) {
	for i, part := range strings.Fields(s.Annotations[ExposureAnnotation]) {
		if i == 0 {
			typ = v1alpha1.ExposureType(part)
		} else if a, err := netip.ParseAddr(part); err == nil {
			addresses = append(addresses, a.Unmap())
		}
	}
	return typ, addresses
}

// ClientService is the name of the Service that clients of the group are to come by, given those that there are (live). It
// is the one that is there if that can become what is wanted without giving up its addresses; else another one is made
// beside it, and the first stays until resolvers have forgotten its addresses.
func ClientService(key Location, group v1alpha1.ServerGroup, live []corev1.Service) string {
	exposure := exposureOf(group)
	name, want := WorkloadName(key), exposureKey(exposure)
	services := slices.SortedFunc(slices.Values(live), func(a, b corev1.Service) int { return strings.Compare(a.Name, b.Name) })
	for _, s := range services {
		if s.Annotations[ExposureAnnotation] == want {
			return s.Name
		}
	}
	taken := false
	for _, s := range services {
		if becomes(&s, exposure) {
			return s.Name
		}
		taken = taken || s.Name == name
	}
	if taken {
		return name + "-" + shortHash(want)
	}
	return name
}

// becomes reports whether the Service can be changed to the exposure in place: clients find it where they did, at one
// address at least. A Service of externalIPs is as well made anew.
func becomes(s *corev1.Service, to v1alpha1.ServerExposure) bool {
	typ, has := exposed(s)
	if typ != to.Type {
		return false
	}
	switch to.Type {
	case v1alpha1.ExposureNodePort:
		is := func(p corev1.ServicePort) bool { return p.Port == portDNS && p.NodePort != *to.NodePort }
		return to.NodePort == nil || !slices.ContainsFunc(s.Spec.Ports, is)
	case v1alpha1.ExposureLoadBalancer:
		if ptr.Deref(s.Spec.LoadBalancerClass, "") != to.LoadBalancerClass {
			return false
		}
		has = append(has, ServiceAddresses(s)...)
		return len(to.Addresses) == 0 || len(has) == 0 || slices.ContainsFunc(to.Addresses, func(text v1alpha1.IP) bool {
			a, err := netip.ParseAddr(string(text))
			return err == nil && slices.Contains(has, a.Unmap())
		})
	}
	return false
}

// ServiceAddresses are those at which clients reach the Service from outside: what the provider of load balancers has given,
// or what is forwarded or brought to it as the Datacenter says.
func ServiceAddresses(s *corev1.Service) []netip.Addr {
	typ, all := exposed(s)
	if typ != v1alpha1.ExposureLoadBalancer {
		return all
	}
	all = nil
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(ingress.IP); err == nil {
			all = append(all, a.Unmap())
		}
	}
	return all
}

// ServiceStays reports whether resolvers may still come to an address of a Service that clients are not to come by any more, and
// that does not lead to the one that they are to come by (present, "" for none of services). What is forwarded to a NodePort no
// Service knows: it stays for every address that no other explains.
func ServiceStays(s *corev1.Service, status *v1alpha1.ServerGroupStatus, present string, services []corev1.Service) bool {
	if status == nil {
		return false
	}
	has, leads, explained := ServiceAddresses(s), []netip.Addr(nil), []netip.Addr(nil)
	for _, o := range services {
		if o.Name == present {
			leads = ServiceAddresses(&o)
		}
		if o.Name != s.Name {
			explained = append(explained, ServiceAddresses(&o)...)
		}
	}
	return slices.ContainsFunc(status.Addresses, func(known v1alpha1.ServerAddress) bool {
		a := parsed(known.Address)
		switch {
		case known.State == v1alpha1.ServerAddressPending || slices.Contains(leads, a):
			return false
		case s.Spec.Type == corev1.ServiceTypeNodePort:
			return !slices.Contains(explained, a)
		}
		return slices.Contains(has, a)
	})
}

func (in WorkloadInputs) statefulSet() *appsv1.StatefulSet {
	key := in.key()
	template, claims := in.pod(), in.claims()
	if len(claims) == 0 {
		template.Spec.Volumes = append(template.Spec.Volumes, corev1.Volume{Name: stateVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	return &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: in.meta(WorkloadName(key)),
		Spec: appsv1.StatefulSetSpec{
			Replicas:    new(int32(in.Replicas)),
			ServiceName: peersName(key),
			Selector:    &metav1.LabelSelector{MatchLabels: WorkloadSelector(key)},
			Template:    template,
			// One that can't start must not keep the others from it; and it is decided here who restarts when.
			PodManagementPolicy:  appsv1.ParallelPodManagement,
			UpdateStrategy:       appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType},
			RevisionHistoryLimit: ptr.To[int32](2),
			VolumeClaimTemplates: claims,
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
			},
		},
	}
}

// claims are for the volumes with the disk copies; none: they are as short-lived as the pods.
func (in WorkloadInputs) claims() []corev1.PersistentVolumeClaim {
	switch {
	case in.Running != nil && len(in.Running.Spec.VolumeClaimTemplates) == 0:
		return nil
	case in.Running == nil && in.Group.Storage == nil && !in.DefaultStorage:
		return nil
	}
	storage := ptr.Deref(in.Group.Storage, v1alpha1.ServerStorage{})
	size := storage.Size
	if size.IsZero() {
		size = resource.MustParse("1Gi")
	}
	claim := corev1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Name: stateVolume, Labels: workloadLabels(in.key())},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			VolumeMode:  ptr.To(corev1.PersistentVolumeFilesystem),
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}
	if storage.StorageClassName != "" {
		claim.Spec.StorageClassName = &storage.StorageClassName
	}
	return []corev1.PersistentVolumeClaim{claim}
}

func (in WorkloadInputs) pod() corev1.PodTemplateSpec {
	key, pods := in.key(), ptr.Deref(in.Group.Pods, v1alpha1.ServerPods{})
	labels := podLabels(pods, workloadLabels(key))
	labels[LabelServing] = "true"
	drain := drainSeconds(in.Group)
	spec := corev1.PodSpec{
		ServiceAccountName:            WorkloadName(key),
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		TerminationGracePeriodSeconds: new(drain + stopGrace),
		Containers:                    []corev1.Container{in.container(drain)},
		Volumes: []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: ServerSecret(key), DefaultMode: ptr.To[int32](0o440),
		}}}},
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: ptr.To[int64](serverUser), RunAsGroup: ptr.To[int64](serverUser), FSGroup: ptr.To[int64](serverUser),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			// Transports may be opened on their usual ports below 1024 without a restart.
			Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}},
		},
	}
	if in.hostNetwork() {
		// Kubernetes gives capabilities to nobody but root. This one has no others.
		spec.HostNetwork, spec.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet
		spec.SecurityContext.RunAsNonRoot, spec.SecurityContext.RunAsUser, spec.SecurityContext.Sysctls = nil, ptr.To[int64](0), nil
	}
	for _, topology := range []string{corev1.LabelHostname, corev1.LabelTopologyZone} {
		spec.TopologySpreadConstraints = append(spec.TopologySpreadConstraints, spread(topology, &metav1.LabelSelector{MatchLabels: WorkloadSelector(key)}))
	}
	schedule(&spec, pods, in.Datacenter.Spec.NodeSelector)
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: pods.Annotations}, Spec: spec}
}

// podLabels are own, and what users give pods besides. None of theirs can make of a pod one of another group, or of another pool.
func podLabels(pods v1alpha1.ServerPods, own map[string]string) map[string]string {
	labels := maps.Clone(own)
	for key, value := range pods.Labels {
		if _, is := own[key]; !is && !strings.HasPrefix(key, labelPrefix) {
			labels[key] = value
		}
	}
	return labels
}

// spread has pods that the selector chooses be as many in each part of a topology, as far as possible.
func spread(topology string, of *metav1.LabelSelector) corev1.TopologySpreadConstraint {
	return corev1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: topology, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: of}
}

// schedule puts into a pod's spec where it may run, and with whose credentials its image is pulled. nodes are labels beside
// those of pods, which count where both have one.
func schedule(spec *corev1.PodSpec, pods v1alpha1.ServerPods, nodes ...v1alpha1.NodeSelector) {
	spec.PriorityClassName = pods.PriorityClassName
	spec.NodeSelector = nodeLabels(append(nodes, pods.NodeSelector)...)
	for _, t := range pods.Tolerations {
		spec.Tolerations = append(spec.Tolerations, corev1.Toleration{
			Key: t.Key, Operator: corev1.TolerationOperator(t.Operator), Value: t.Value, Effect: corev1.TaintEffect(t.Effect), TolerationSeconds: t.TolerationSeconds,
		})
	}
	for _, name := range pods.ImagePullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
}

// nodeLabels are the labels that nodes must have, of all selectors; of values for the same key the last one counts. nil:
// every node will do.
func nodeLabels(selectors ...v1alpha1.NodeSelector) map[string]string {
	var labels map[string]string
	for _, selector := range selectors {
		for key, value := range selector {
			if labels == nil {
				labels = map[string]string{}
			}
			labels[key] = string(value)
		}
	}
	return labels
}

// drainSeconds is how long a server that is told to end goes on answering: until kube-proxy has followed, and the health
// checks of a load balancer, which are slow.
func drainSeconds(g v1alpha1.ServerGroup) int64 {
	if exposureOf(g).Type == v1alpha1.ExposureLoadBalancer {
		return 30
	}
	return 15
}

func (in WorkloadInputs) container(drain int64) corev1.Container {
	pods := ptr.Deref(in.Group.Pods, v1alpha1.ServerPods{})
	c := corev1.Container{
		Name:  containerName,
		Image: ServerImage(in.Group, in.Image),
		Env:   []corev1.EnvVar{fromPod("POD_NAME", "metadata.name"), fromPod("POD_IP", "status.podIP")},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{{Name: stateVolume, MountPath: stateFolder}, {Name: "tls", MountPath: tlsFolder, ReadOnly: true}},
		// An answer to whoever asks it, oneself too, is life enough; one that loads many zones may take its time to begin.
		StartupProbe:  probe("/livez", 2, 300),
		LivenessProbe: probe("/livez", 10, 6),
		// Serving, not ready: a server that ends is not ready, and answers whom kube-proxy still sends to it.
		ReadinessProbe: probe("/servingz", 2, 2),
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
		}},
	}
	if r := pods.Resources; r != nil {
		c.Resources = corev1.ResourceRequirements{Requests: resourceList(r.Requests), Limits: resourceList(r.Limits)}
	}
	for _, hub := range in.Hubs {
		c.Args = append(c.Args, "--hub="+hub)
	}
	c.Args = append(c.Args, "--name=$(POD_NAME)", "--tls-dir="+tlsFolder, "--state-dir="+stateFolder)
	if in.hostNetwork() {
		c.Env = append(c.Env, fromPod("HOST_IPS", "status.hostIPs"))
		c.Args = append(c.Args, "--listen=$(HOST_IPS)")
		c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_BIND_SERVICE"}
	} else {
		c.Args = append(c.Args, fmt.Sprintf("--port=%d", podPortDNS))
	}
	c.Args = append(c.Args,
		fmt.Sprintf("--http-listen=:%d", podPortHTTP),
		fmt.Sprintf("--peer-listen=:%d", podPortPeer), fmt.Sprintf("--peer-address=[$(POD_IP)]:%d", podPortPeer),
		fmt.Sprintf("--sibling=%s.%s.svc:%d", peersName(in.key()), in.Namespace, podPortPeer),
		fmt.Sprintf("--drain-delay=%ds", drain))
	dns := in.clientPorts()[0].pod
	c.Ports = []corev1.ContainerPort{ // without those of other transports, which come and go without a restart
		{Name: "dns-udp", Protocol: corev1.ProtocolUDP, ContainerPort: dns},
		{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, ContainerPort: dns},
		{Name: "http", Protocol: corev1.ProtocolTCP, ContainerPort: podPortHTTP},
		{Name: "peers", Protocol: corev1.ProtocolTCP, ContainerPort: podPortPeer},
	}
	return c
}

// fromPod is a variable with what Kubernetes knows of the pod.
func fromPod(name, field string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: field}}}
}

// ServerImage is the image of a group's servers, given that of groups that name none; "" if nobody says.
func ServerImage(g v1alpha1.ServerGroup, byDefault string) string {
	if g.Image != "" {
		return g.Image
	}
	return byDefault
}

func resourceList(amounts map[string]resource.Quantity) corev1.ResourceList {
	var list corev1.ResourceList
	for name, q := range amounts {
		if list == nil {
			list = corev1.ResourceList{}
		}
		list[corev1.ResourceName(name)] = q
	}
	return list
}

// probe asks path each period seconds; so many failures in a row count.
func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(podPortHTTP), Scheme: corev1.URISchemeHTTP}},
		PeriodSeconds: period, TimeoutSeconds: 5, FailureThreshold: failures,
	}
}
