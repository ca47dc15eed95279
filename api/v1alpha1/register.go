package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of every kind of this package.
const GroupName = "fingerpost.dev"

// SchemeGroupVersion is the group and version of this package. The generated apply configurations refer to it by this name.
var SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// AddToScheme adds every kind of this package, and its list, to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(SchemeGroupVersion,
		&Datacenter{}, &DatacenterList{},
		&DNSZone{}, &DNSZoneList{},
		&DynamicRecord{}, &DynamicRecordList{},
		&HealthProbe{}, &HealthProbeList{},
		&ResolverPool{}, &ResolverPoolList{},
		&TrafficOverride{}, &TrafficOverrideList{},
	)
	metav1.AddToGroupVersion(s, SchemeGroupVersion)
	return nil
}
