package steering

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// state digests who is answered what, never to 0. It is the same on every server that decided the same from the same record and
// topology. It does not depend on TTLs, on why something is answered, nor on the addresses that names are flattened to, which
// every server looks up for itself: there the names count.
func (k *compiler) state(a *zone.Answers) uint64 {
	d := digest{}
	outcomes := make([]uint64, len(a.Outcomes))
	for i := range a.Outcomes {
		outcomes[i] = d.of(func() { k.digestOutcome(&d, i, &a.Outcomes[i]) })
	}
	choices := make([]uint64, len(a.Choices))
	for i := range a.Choices {
		choices[i] = d.of(func() {
			c := &a.Choices[i]
			d.number(uint64(c.Pick))
			for _, alternative := range c.Of {
				d.number(outcomes[alternative.Outcome])
				d.number(uint64(alternative.Weight))
				if c.Pick == zone.PickHash {
					d.number(alternative.ID)
				}
			}
		})
	}
	all := d.of(func() {
		for _, typ := range a.Types {
			d.number(uint64(typ))
		}
		d.number(k.plan.clients)
		d.networks(k.acting.blocked)
		for _, cell := range a.Cells {
			d.number(choices[cell])
		}
	})
	return max(all, 1)
}

func (k *compiler) digestOutcome(d *digest, i int, o *zone.Outcome) {
	d.number(uint64(o.Rcode))
	if k.r.Flatten {
		for _, name := range k.result.targets[i] {
			d.text(name)
		}
	}
	for i := range o.Sets {
		s := &o.Sets[i]
		if k.r.Flatten && s.Type != zone.TypeSRV {
			continue
		}
		d.number(uint64(s.Type))
		d.number(uint64(s.Pick))
		d.number(uint64(s.Max))
		answered := s.RData
		if s.Pick == zone.PickFirst && s.Max > 0 {
			answered = answered[:min(s.Max, len(answered))]
		}
		d.number(uint64(len(answered)))
		for _, rdata := range answered {
			d.text(string(rdata))
		}
		for _, weight := range s.Weights {
			d.number(uint64(weight))
		}
	}
}

// digestClients digests how the record tells clients apart, beside by databases.
func (r *Record) digestClients(p *plan) uint64 {
	d := digest{}
	return d.of(func() {
		d.number(uint64(len(r.Rules)))
		for i := range r.Rules {
			d.networks(r.Rules[i].Networks)
		}
		if len(p.places) == 1 {
			return
		}
		for _, place := range p.places {
			d.text(place)
		}
		if p.geo == nil {
			d.number(p.world.networks)
		}
	})
}

// digestNetworks digests who is near which datacenter.
func (w *World) digestNetworks() uint64 {
	d := digest{}
	return d.of(func() {
		for i := range w.datacenters {
			d.text(w.datacenters[i].Name)
			d.networks(w.datacenters[i].Networks)
		}
	})
}

// digest is what is to be digested, each part so that it can't be taken for another.
type digest struct{ b []byte }

// of digests what write puts.
func (d *digest) of(write func()) uint64 {
	d.b = d.b[:0]
	write()
	sum := sha256.Sum256(d.b)
	return binary.BigEndian.Uint64(sum[:])
}

func (d *digest) number(n uint64) { d.b = binary.BigEndian.AppendUint64(d.b, n) }

func (d *digest) text(s string) {
	d.number(uint64(len(s)))
	d.b = append(d.b, s...)
}

func (d *digest) networks(all []netip.Prefix) {
	d.number(uint64(len(all)))
	for _, n := range all {
		d.text(n.String())
	}
}
