package zone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// Record types that the package itself decides on (IANA registry "Resource Record (RR) TYPEs").
const (
	TypeA          uint16 = 1
	TypeNS         uint16 = 2
	TypeCNAME      uint16 = 5
	TypeSOA        uint16 = 6
	TypePTR        uint16 = 12
	TypeMX         uint16 = 15
	TypeTXT        uint16 = 16
	TypeAAAA       uint16 = 28
	TypeSRV        uint16 = 33
	TypeNAPTR      uint16 = 35
	TypeDNAME      uint16 = 39
	TypeOPT        uint16 = 41
	TypeDS         uint16 = 43
	TypeRRSIG      uint16 = 46
	TypeNSEC       uint16 = 47
	TypeDNSKEY     uint16 = 48
	TypeNSEC3      uint16 = 50
	TypeNSEC3PARAM uint16 = 51
	TypeCDS        uint16 = 59
	TypeCDNSKEY    uint16 = 60
	TypeSVCB       uint16 = 64
	TypeHTTPS      uint16 = 65
	TypeIXFR       uint16 = 251
	TypeAXFR       uint16 = 252
	TypeANY        uint16 = 255
)

// MaxTTL is the largest TTL (RFC 2181 §8), in seconds.
const MaxTTL = 1<<31 - 1

// RRset is the records of one owner and type (RFC 2181 §5): one TTL, no duplicates, rdata
// in uncompressed wire form and in canonical order (RFC 4034 §6.3). RRsets are comparable.
type RRset struct {
	Type uint16
	TTL  uint32 // seconds
	// rdata holds every record as two octets of length and the rdata.
	rdata string
}

// NewRRset builds an RRset from rdata in uncompressed wire form; order and duplicates of
// the input do not matter. It keeps no reference to the input. Without rdata the result is
// the empty RRset, which stands for none.
func NewRRset(typ uint16, ttl uint32, rdata ...[]byte) RRset {
	sorted := slices.Clone(rdata)
	slices.SortFunc(sorted, bytes.Compare)
	sorted = slices.CompactFunc(sorted, bytes.Equal)
	size := 0
	for _, r := range sorted {
		size += 2 + len(r)
	}
	packed := make([]byte, 0, size)
	for _, r := range sorted {
		packed = binary.BigEndian.AppendUint16(packed, uint16(len(r)))
		packed = append(packed, r...)
	}
	return RRset{Type: typ, TTL: ttl, rdata: string(packed)}
}

// All yields the rdata of every record in canonical order.
func (s RRset) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for rest := s.rdata; len(rest) >= 2; {
			end := 2 + (int(rest[0])<<8 | int(rest[1]))
			if !yield(rest[2:end]) {
				return
			}
			rest = rest[end:]
		}
	}
}

// Len counts the records.
func (s RRset) Len() int {
	count := 0
	for range s.All() {
		count++
	}
	return count
}

// Empty reports whether the set has no record.
func (s RRset) Empty() bool { return s.rdata == "" }

// Without returns the set less the records of other, whose type and TTL do not matter.
func (s RRset) Without(other RRset) RRset {
	gone := map[string]bool{}
	for r := range other.All() {
		gone[r] = true
	}
	var kept [][]byte
	for r := range s.All() {
		if !gone[r] {
			kept = append(kept, []byte(r))
		}
	}
	return NewRRset(s.Type, s.TTL, kept...)
}

// Union returns the records of both sets under the type and TTL of s.
func (s RRset) Union(other RRset) RRset {
	var all [][]byte
	for r := range s.All() {
		all = append(all, []byte(r))
	}
	for r := range other.All() {
		all = append(all, []byte(r))
	}
	return NewRRset(s.Type, s.TTL, all...)
}

// Node is an owner name and all RRsets there, sorted by type, one for each type, none empty.
// A node without RRsets stands for "nothing at this owner".
type Node struct {
	Owner  Name
	RRsets []RRset
}

// RRset returns the node's set of the type, or the empty set.
func (n *Node) RRset(typ uint16) RRset {
	if n != nil {
		for _, s := range n.RRsets {
			if s.Type == typ {
				return s
			}
		}
	}
	return RRset{Type: typ}
}

// Has reports whether the node has records of the type.
func (n *Node) Has(typ uint16) bool { return !n.RRset(typ).Empty() }

// Records counts the node's records.
func (n *Node) Records() int {
	if n == nil {
		return 0
	}
	count := 0
	for _, s := range n.RRsets {
		count += s.Len()
	}
	return count
}

// Equal reports whether both nodes have the same owner, types, TTLs and records.
func (n *Node) Equal(o *Node) bool { return n.Owner == o.Owner && slices.Equal(n.RRsets, o.RRsets) }

// NewNode puts RRsets into a node's order; empty ones are left out. Two sets of one type are
// a fault of the caller.
func NewNode(owner Name, sets ...RRset) Node {
	kept := make([]RRset, 0, len(sets))
	for _, s := range sets {
		if !s.Empty() {
			kept = append(kept, s)
		}
	}
	slices.SortFunc(kept, func(a, b RRset) int { return int(a.Type) - int(b.Type) })
	return Node{Owner: owner, RRsets: kept}
}

// AppendNode appends the encoding of n, used on the stream and on disk: owner in wire form,
// the count of RRsets, then of each its type, TTL, length of the packed records and these.
// Integers are big-endian: 2 octets for count and type, 4 for TTL and length.
func AppendNode(dst []byte, n Node) []byte {
	dst = append(dst, n.Owner...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(n.RRsets)))
	for _, s := range n.RRsets {
		dst = binary.BigEndian.AppendUint16(dst, s.Type)
		dst = binary.BigEndian.AppendUint32(dst, s.TTL)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(s.rdata)))
		dst = append(dst, s.rdata...)
	}
	return dst
}

var errTruncated = errors.New("encoded node is truncated")

// DecodeNode reads one node from the start of b and returns its encoded size. It accepts
// only what AppendNode makes of a valid node: sorted types, sorted records without
// duplicates, TTLs up to MaxTTL. Whether rdata fits its type is not checked.
func DecodeNode(b []byte) (n Node, size int, err error) {
	owner, at, err := NameFromWire(b)
	if err != nil {
		return Node{}, 0, fmt.Errorf("decoding a node: %w", err)
	}
	n.Owner = owner
	if len(b) < at+2 {
		return Node{}, 0, errTruncated
	}
	count := int(binary.BigEndian.Uint16(b[at:]))
	at += 2
	for range count {
		if len(b) < at+10 {
			return Node{}, 0, errTruncated
		}
		s := RRset{Type: binary.BigEndian.Uint16(b[at:]), TTL: binary.BigEndian.Uint32(b[at+2:])}
		length := int(binary.BigEndian.Uint32(b[at+6:]))
		at += 10
		if length > len(b)-at {
			return Node{}, 0, errTruncated
		}
		s.rdata = string(b[at : at+length])
		at += length
		if err := s.check(); err != nil {
			return Node{}, 0, fmt.Errorf("decoding %s type %d: %w", owner, s.Type, err)
		}
		if len(n.RRsets) > 0 && n.RRsets[len(n.RRsets)-1].Type >= s.Type {
			return Node{}, 0, fmt.Errorf("decoding %s: types are not in order", owner)
		}
		n.RRsets = append(n.RRsets, s)
	}
	return n, at, nil
}

func (s RRset) check() error {
	if s.TTL > MaxTTL {
		return fmt.Errorf("TTL %d is above %d (RFC 2181 §8)", s.TTL, MaxTTL)
	}
	if s.rdata == "" {
		return errors.New("RRset is empty")
	}
	prev, first := "", true
	for rest := s.rdata; rest != ""; first = false {
		if len(rest) < 2 {
			return errTruncated
		}
		end := 2 + (int(rest[0])<<8 | int(rest[1]))
		if len(rest) < end {
			return errTruncated
		}
		r := rest[2:end]
		if !first && r <= prev {
			return errors.New("records are not in canonical order")
		}
		prev = r
		rest = rest[end:]
	}
	return nil
}
