package zone

import (
	"encoding/binary"
	"fmt"
)

// Version names what a server serves of a zone. Equal serials always mean equal content:
// the leader reserves the pair in the API before it pushes.
type Version struct {
	Serial uint32
	Digest Digest
}

func (v Version) String() string { return fmt.Sprintf("%d/%.12s", v.Serial, v.Digest) }

// IsZero reports whether v is no version: nothing was ever published.
func (v Version) IsZero() bool { return v == Version{} }

// SOA is the rdata of a start of authority (RFC 1035 §3.3.13); times in seconds.
type SOA struct {
	MName, RName                            Name
	Serial, Refresh, Retry, Expire, Minimum uint32
}

// Pack returns the rdata in uncompressed wire form.
func (s SOA) Pack() []byte {
	b := append([]byte(s.MName), s.RName...)
	for _, v := range []uint32{s.Serial, s.Refresh, s.Retry, s.Expire, s.Minimum} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// ParseSOA reads rdata in uncompressed wire form.
func ParseSOA(rdata string) (SOA, error) {
	b := []byte(rdata)
	var s SOA
	for _, name := range []*Name{&s.MName, &s.RName} {
		n, size, err := NameFromWire(b)
		if err != nil {
			return SOA{}, fmt.Errorf("SOA rdata: %w", err)
		}
		*name, b = n, b[size:]
	}
	if len(b) != 20 {
		return SOA{}, fmt.Errorf("SOA rdata: %d octets after the names, wanted 20", len(b))
	}
	for i, v := range []*uint32{&s.Serial, &s.Refresh, &s.Retry, &s.Expire, &s.Minimum} {
		*v = binary.BigEndian.Uint32(b[4*i:])
	}
	return s, nil
}
