package controllers

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/controllers/render"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

// PoolConfigs works out what the members of ResolverPools are told.
type PoolConfigs struct {
	Client    client.Reader // cached
	Live      client.Reader // for texts and certificates, which no cache has
	Hub       *control.Hub
	Estate    *EstateReconciler
	Namespace string // the operator's own
}

// PoolConfig is what the members of a pool in one datacenter are told.
type PoolConfig struct {
	Datacenter *v1alpha1.Datacenter // not to be changed
	// Refused is why they are told nothing new; nil: they are told what follows.
	Refused render.Refusal
	render.PoolRendered
}

// Of returns what the members of a pool are told, by datacenter. A Refusal is about the others, which go on as they are: all, if there
// are no configs. It is complete only once the estate is.
func (c *PoolConfigs) Of(ctx context.Context, p *v1alpha1.ResolverPool) ([]PoolConfig, render.Refusal, error) {
	var list v1alpha1.DatacenterList
	if err := c.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, fmt.Errorf("listing Datacenters: %w", err)
	}
	in := render.PoolInputs{Pool: p, Datacenters: pointers(list.Items), Zones: c.Estate.Placements(), Namespace: c.Namespace}
	for _, s := range c.Hub.Servers() {
		in.Servers = append(in.Servers, render.TopologyServer{Datacenter: s.ID.Datacenter, Group: s.ID.Group, Name: s.ID.Name, Peer: s.Peer})
	}
	datacenters, err := render.PoolDatacenters(p, in.Datacenters)
	elsewhere, _ := errors.AsType[render.Refusal](err)
	if len(datacenters) == 0 {
		return nil, elsewhere, nil
	}
	if err := c.read(ctx, &in); err != nil {
		if refused, is := errors.AsType[render.Refusal](err); is {
			return nil, refused, nil
		}
		return nil, nil, err
	}
	configs := make([]PoolConfig, len(datacenters))
	for i, dc := range datacenters {
		in.Datacenter = dc
		configs[i].Datacenter = dc
		if configs[i].PoolRendered, err = render.PoolConfig(in); err != nil {
			configs[i].Refused, _ = errors.AsType[render.Refusal](err)
		}
	}
	return configs, elsewhere, nil
}

// read reads what a pool names besides: response policy zones, and the certificate of an External one. What is missing is a
// Refusal.
func (c *PoolConfigs) read(ctx context.Context, in *render.PoolInputs) error {
	in.Texts = map[v1alpha1.DomainName]string{}
	for _, z := range in.Pool.Spec.BlockLists.RPZ {
		ref := z.ConfigMapKeyRef
		if ref == nil {
			continue
		}
		key := types.NamespacedName{Namespace: in.Pool.Namespace, Name: ref.Name}
		var cm corev1.ConfigMap
		if err := c.Live.Get(ctx, key, &cm); apierrors.IsNotFound(err) {
			return render.Refuse(v1alpha1.ReasonSourceNotFound, "blockLists.rpz: there is no ConfigMap %s", key)
		} else if err != nil {
			return fmt.Errorf("reading ConfigMap %s: %w", key, err)
		}
		text, has := cm.Data[ref.Key]
		if !has {
			data, binary := cm.BinaryData[ref.Key]
			if !binary {
				return render.Refuse(v1alpha1.ReasonSourceNotFound, "blockLists.rpz: ConfigMap %s has no key %q", key, ref.Key)
			}
			text = string(data)
		}
		in.Texts[z.Name] = text
	}
	if in.Pool.Spec.Transports.CertificateSecretRef == nil {
		return nil
	}
	certificate, key, err := c.Certificate(ctx, in.Pool)
	if in.Pool.Spec.Management == v1alpha1.ResolverPoolExternal {
		in.Certificate, in.Key = certificate, key
	}
	return err
}

// Certificate returns that of a pool's spec.transports, and its key, in PEM. An error is a Refusal if a person has to do
// something about the Secret; it never quotes what is in it.
func (c *PoolConfigs) Certificate(ctx context.Context, p *v1alpha1.ResolverPool) (certificate, key []byte, err error) {
	name := types.NamespacedName{Namespace: p.Namespace, Name: p.Spec.Transports.CertificateSecretRef.Name}
	found, err := readCertificate(ctx, c.Live, name)
	switch {
	case err != nil:
		return nil, nil, err
	case found.fault != nil:
		return nil, nil, found.fault
	}
	return found.certificate.GetCertificate(), found.certificate.GetKey(), nil
}
