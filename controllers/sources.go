package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
)

// zonesByConfigMap is the cache's index of DNSZones by the ConfigMaps that they import.
const zonesByConfigMap = "spec.recordsFrom.configMapKeyRef.name"

// configMapMetadata is the kind under which the cache holds ConfigMaps: their text, up to a
// megabyte each, stays out of memory.
func configMapMetadata() *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	return m
}

func indexConfigMaps(o client.Object) []string {
	var names []string
	for _, src := range o.(*v1alpha1.DNSZone).Spec.RecordsFrom {
		if src.ConfigMapKeyRef != nil {
			names = append(names, src.ConfigMapKeyRef.Name)
		}
	}
	return names
}

// zonesOf lists the zones that import a ConfigMap.
func (r *ZoneReconciler) zonesOf(ctx context.Context, o client.Object) []reconcile.Request {
	var zones v1alpha1.DNSZoneList
	if err := r.Client.List(ctx, &zones, client.InNamespace(o.GetNamespace()), client.MatchingFields{zonesByConfigMap: o.GetName()}, client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	requests := make([]reconcile.Request, len(zones.Items))
	for i := range zones.Items {
		requests[i] = reconcile.Request{NamespacedName: render.Key(&zones.Items[i])}
	}
	return requests
}

// sources reads what spec.recordsFrom names. Text that is parsed already, by its version, is
// not read again. Only an answer of "not found" makes a source missing: any other error is
// one, and an empty cache is never taken for an empty zone.
func (r *ZoneReconciler) sources(ctx context.Context, z *v1alpha1.DNSZone, known *render.Result) ([]render.Source, error) {
	maps := map[string]*corev1.ConfigMap{} // several keys of one ConfigMap are read once
	var sources []render.Source
	for _, from := range z.Spec.RecordsFrom {
		ref := from.ConfigMapKeyRef
		if ref == nil {
			continue
		}
		src := render.Source{Name: fmt.Sprintf("configmap/%s/%s", ref.Name, ref.Key)}
		key := types.NamespacedName{Namespace: z.Namespace, Name: ref.Name}
		cached := configMapMetadata()
		if err := r.Client.Get(ctx, key, cached); err == nil && known.Parsed(src.Name, sourceVersion(cached)) {
			src.Version = sourceVersion(cached)
			sources = append(sources, src)
			continue
		}
		cm, read := maps[ref.Name]
		if !read {
			cm = &corev1.ConfigMap{}
			if err := r.Live.Get(ctx, key, cm); apierrors.IsNotFound(err) {
				cm = nil
			} else if err != nil {
				return nil, fmt.Errorf("reading ConfigMap %s: %w", key, err)
			}
			maps[ref.Name] = cm
		}
		if cm == nil {
			src.Missing = true
		} else if text, ok := cm.Data[ref.Key]; ok {
			src.Text, src.Version = text, sourceVersion(cm)
		} else if data, ok := cm.BinaryData[ref.Key]; ok {
			src.Text, src.Version = string(data), sourceVersion(cm)
		} else {
			src.Missing = true
		}
		sources = append(sources, src)
	}
	return sources, nil
}

func sourceVersion(o metav1.Object) string { return string(o.GetUID()) + "/" + o.GetResourceVersion() }
