package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// wholeZone yields all nodes of c.
func wholeZone(c *zone.Content) iter.Seq[zone.Node] {
	return func(yield func(zone.Node) bool) {
		for n := range c.All() {
			if !yield(*n) {
				return
			}
		}
	}
}

// changes yields the nodes that make after of before, by Content.With.
func changes(before, after *zone.Content) iter.Seq[zone.Node] {
	return func(yield func(zone.Node) bool) {
		for ch := range zone.Diff(before, after) {
			n := zone.Node{Owner: ch.Owner}
			if ch.New != nil {
				n = *ch.New
			}
			if !yield(n) {
				return
			}
		}
	}
}

// chunks cuts the encoded sequence of nodes (control.proto) into parts of at most size
// octets. No part is empty; without nodes there is none. Parts belong to the receiver.
func chunks(nodes iter.Seq[zone.Node], size int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var pending, scratch []byte
		for n := range nodes {
			scratch = zone.AppendNode(scratch[:0], n)
			pending = binary.AppendUvarint(pending, uint64(len(scratch)))
			pending = append(pending, scratch...)
			if len(pending) < size {
				continue
			}
			for ; len(pending) >= size; pending = pending[size:] {
				if !yield(pending[:size:size]) {
					return
				}
			}
			pending = append(make([]byte, 0, size), pending...) // parts given away are not written to again
		}
		if len(pending) > 0 {
			yield(pending)
		}
	}
}

// sizeOf returns the octets of the encoded sequence of nodes, or some number above limit if
// it has more than limit.
func sizeOf(nodes iter.Seq[zone.Node], limit int64) int64 {
	var size int64
	var scratch [binary.MaxVarintLen64]byte
	for n := range nodes {
		node := int64(len(n.Owner) + 2)
		for _, s := range n.RRsets {
			node += 10
			for r := range s.All() {
				node += int64(2 + len(r))
			}
		}
		size += node + int64(binary.PutUvarint(scratch[:], uint64(node)))
		if size > limit {
			break
		}
	}
	return size
}

const noLimit = int64(1) << 62

// nodeCost is what a received node counts for at least, in octets: about what it takes in
// memory, so that a bound on what is received bounds memory too.
const nodeCost = 64

var (
	errTooLarge  = errors.New("larger than the limit")
	errMalformed = errors.New("malformed")
)

// assembly collects the nodes of one transfer. Errors wrap errTooLarge or errMalformed.
type assembly struct {
	apex  zone.Name
	base  *zone.Content // what the nodes change; nil: they are all there are
	room  int64         // octets that may still come
	tail  []byte        // of the sequence: a node that is not complete yet
	nodes []zone.Node
}

// add takes the next part of the sequence; it keeps no reference to it.
func (a *assembly) add(part []byte) error {
	a.room -= int64(len(part))
	if a.room < 0 {
		return fmt.Errorf("zone %s: %w", a.apex, errTooLarge)
	}
	rest := part
	if len(a.tail) > 0 {
		a.tail = append(a.tail, part...)
		rest = a.tail
	}
	for len(rest) > 0 {
		size, prefix := binary.Uvarint(rest)
		if prefix < 0 {
			return fmt.Errorf("zone %s: length of a node is %w", a.apex, errMalformed)
		}
		if prefix == 0 {
			break
		}
		if size > uint64(a.room)+uint64(len(rest)-prefix) {
			return fmt.Errorf("zone %s: a node is %w", a.apex, errTooLarge)
		}
		if size > uint64(len(rest)-prefix) {
			break
		}
		n, used, err := zone.DecodeNode(rest[prefix : prefix+int(size)])
		if err != nil {
			return fmt.Errorf("zone %s is %w: %w", a.apex, errMalformed, err)
		}
		if used != int(size) {
			return fmt.Errorf("zone %s: node %s is %w: %d octets follow it", a.apex, n.Owner, errMalformed, int(size)-used)
		}
		if a.room -= max(0, nodeCost-int64(prefix)-int64(size)); a.room < 0 {
			return fmt.Errorf("zone %s: %w", a.apex, errTooLarge)
		}
		a.nodes = append(a.nodes, n)
		rest = rest[prefix+int(size):]
	}
	a.tail = append(a.tail[:0], rest...)
	return nil
}

// content returns what the complete sequence makes. Its digest is still to be compared.
func (a *assembly) content() (*zone.Content, error) {
	if len(a.tail) > 0 {
		return nil, fmt.Errorf("zone %s is %w: it ends inside a node", a.apex, errMalformed)
	}
	var c *zone.Content
	var err error
	if a.base != nil {
		c, err = a.base.With(a.nodes...)
	} else {
		c, err = zone.NewContent(a.apex, a.nodes)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return c, nil
}

func apexOf(b []byte) (zone.Name, error) {
	n, size, err := zone.NameFromWire(b)
	if err != nil || size != len(b) || string(n) != string(b) {
		return "", fmt.Errorf("apex % x is %w", b[:min(len(b), zone.MaxName)], errMalformed)
	}
	return n, nil
}

func digestOf(b []byte) (zone.Digest, error) {
	if len(b) != len(zone.Digest{}) {
		return zone.Digest{}, fmt.Errorf("digest of %d octets is %w", len(b), errMalformed)
	}
	return zone.Digest(b), nil
}

func versionOf(v *controlpb.Version) (zone.Version, error) {
	d, err := digestOf(v.GetDigest())
	return zone.Version{Serial: v.GetSerial(), Digest: d}, err
}

func versionMessage(v zone.Version) *controlpb.Version {
	return &controlpb.Version{Serial: v.Serial, Digest: v.Digest[:]}
}

// clip bounds a text from the other end that is kept or shown.
func clip(s string) string {
	const limit = 512
	if len(s) > limit {
		return s[:limit]
	}
	return s
}
