package v1alpha1

import (
	"fmt"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Duration is a length of time as in the Gateway API (GEP-2257): whole numbers with the units h, m, s and ms, the larger
// unit first by custom, such as 30s, 5m, 1h30m or 500ms. At most four numbers of at most five digits. There is no unit
// for days: a week is 168h.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$')",message="must be a duration of hours, minutes, seconds or milliseconds, such as 24h, 5m, 30s or 1h30m (no days, no fractions, at most 5 digits before each unit)"
type Duration string

var durationForm = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// Parse returns the duration that d writes. The empty string, which stands for a field that was left out, is an error:
// callers know their default. Every value that the API server admits parses.
func (d Duration) Parse() (time.Duration, error) {
	if !durationForm.MatchString(string(d)) {
		return 0, fmt.Errorf("parsing duration %q: not of the form 1h30m, 5m, 30s or 500ms", string(d))
	}
	v, err := time.ParseDuration(string(d))
	if err != nil {
		return 0, fmt.Errorf("parsing duration %q: %w", string(d), err)
	}
	return v, nil
}

// IP is an IPv4 or IPv6 address, such as 192.0.2.1 or 2001:db8::1.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=45
// +kubebuilder:validation:XValidation:rule="isIP(self)",message="must be an IPv4 or IPv6 address, such as 192.0.2.1 or 2001:db8::1, without port, zone or prefix length"
type IP string

// CIDR is a network, such as 10.1.0.0/16 or 2001:db8:a::/48.
//
// +kubebuilder:validation:MinLength=4
// +kubebuilder:validation:MaxLength=49
// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self).masked() == cidr(self)",message="must be a network in CIDR form, with the bits after the prefix zero, such as 10.1.0.0/16 or 2001:db8:a::/48"
type CIDR string

// DatacenterName is the name of a Datacenter: a DNS label of at most 60 characters.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=60
type DatacenterName string

// NamespacesFrom says which namespaces are meant.
//
// +kubebuilder:validation:Enum=Same;All;Selector
type NamespacesFrom string

const (
	// NamespacesFromSame means the namespace of the object that holds the selection. A cluster-scoped object has none.
	NamespacesFromSame NamespacesFrom = "Same"
	// NamespacesFromAll means every namespace.
	NamespacesFromAll NamespacesFrom = "All"
	// NamespacesFromSelector means the namespaces whose labels match a selector.
	NamespacesFromSelector NamespacesFrom = "Selector"
)

// NamespaceSelection chooses namespaces.
//
// +kubebuilder:validation:XValidation:rule="(self.from == 'Selector') == has(self.selector)",message="selector is required when from is Selector, and must be left out otherwise"
type NamespaceSelection struct {
	// from is Same (the namespace of this object), All (every namespace) or Selector (the namespaces that match
	// the selector). Default: Same.
	//
	// +optional
	// +kubebuilder:default=Same
	From NamespacesFrom `json:"from,omitempty"`

	// selector chooses namespaces by their labels; only with from: Selector. Every namespace has the label
	// kubernetes.io/metadata.name with its own name, e.g.
	// {matchLabels: {kubernetes.io/metadata.name: payments}}. An empty selector matches every namespace.
	//
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// DatacenterSelection chooses datacenters.
type DatacenterSelection struct {
	// names are the names of Datacenter objects, e.g. [dc-a, dc-b]. Empty or left out: every datacenter that has what
	// this object needs there.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	Names []DatacenterName `json:"names,omitzero"`
}

// RecordTTL is the TTL of a record: by the name of one of the zone's classes, or as a value. Exactly one of the two.
//
// +kubebuilder:validation:XValidation:rule="has(self.class) != has(self.value)",message="give exactly one of class (the name of one of the zone's ttl.classes) and value (a duration such as 60s)"
type RecordTTL struct {
	// class is the name of one of the zone's ttl.classes, e.g. critical.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Class string `json:"class,omitempty"`

	// value is the TTL itself, in whole seconds, e.g. 60s or 1h. Values outside the zone's ttl.min and ttl.max are
	// served with the nearer of the two.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.contains('ms')",message="a TTL is a whole number of seconds: write 30s, 5m or 24h, without milliseconds"
	Value *Duration `json:"value,omitempty"`
}
