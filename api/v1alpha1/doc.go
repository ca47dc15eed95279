// Package v1alpha1 holds the kinds of the API group fingerpost.dev, version v1alpha1: their fields, defaults,
// validation (OpenAPI and CEL, as markers) and the names of conditions, reasons and annotations.
//
// The comments of the kinds and their fields are what `kubectl explain` prints: they are written for the user who
// writes the manifest, with units, defaults and an example.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package="applyconfiguration"
// +groupName=fingerpost.dev
package v1alpha1
