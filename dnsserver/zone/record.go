package zone

import (
	"encoding/binary"
	"unsafe"
)

// record is what an index knows of one name, in memory that has no pointers and is never written
// again. The nil record is that of no name. Integers are little-endian:
//
//	1  size of the owner's name
//	1  flags
//	1  labels of the zone cut or DNAME above the name, if flagCovered
//	1  unused
//	2  number of RRsets
//	2  size of the record in units of 8 octets, 0 if it takes more than fit
//	   the owner's name in wire form
//	4  ref of the referral, 0 if there is none ready; if flagCut
//	4  number of the slot, if flagSteered
//	   the RRsets, sorted by type, of each:
//	2      type
//	4      TTL
//	4      size of the packed records
//	2      size of the ready answer
//	       the packed records, as in RRset
//	       the ready answer, see readyRecords
type record []byte

const recordHeader = 8

// Flags of a record.
const (
	flagCut      = 1 << iota // it has NS and is not the apex
	flagDNAME                // it has DNAME
	flagCovered              // there is a zone cut or a DNAME above it
	flagWildcard             // the name "*" below it exists
	flagSteered              // it has TypeSteered
	flagServer               // a referral that is ready has its addresses, and its owner is not below the cut
)

func (r record) is(flag uint8) bool { return r[1]&flag != 0 }

// owner returns the name in wire form.
func (r record) owner() []byte { return r[recordHeader : recordHeader+int(r[0])] }

func (r record) cover() int { return int(r[2]) }

// behindOwner is where the fields after the owner start.
func (r record) behindOwner() int { return recordHeader + int(r[0]) }

// referral returns the ref of the referral, if flagCut.
func (r record) referral() uint32 { return binary.LittleEndian.Uint32(r[r.behindOwner():]) }

func (r record) slot() uint32 {
	at := r.behindOwner()
	if r.is(flagCut) {
		at += 4
	}
	return binary.LittleEndian.Uint32(r[at:])
}

// rrsets is what is left to be read of a record's RRsets.
type rrsets struct {
	count int
	rest  []byte
}

// chosen is one RRset of a record.
type chosen struct {
	RRset
	ready readyRecords
}

const setHeader = 12

func (r record) sets() rrsets {
	if r == nil {
		return rrsets{}
	}
	at := r.behindOwner()
	if r[1]&(flagCut|flagSteered) != 0 {
		if r.is(flagCut) {
			at += 4
		}
		if r.is(flagSteered) {
			at += 4
		}
	}
	return rrsets{int(binary.LittleEndian.Uint16(r[4:])), r[at:]}
}

// typ is the type of the next RRset; there must be one.
func (s *rrsets) typ() uint16 { return binary.LittleEndian.Uint16(s.rest) }

// skip goes behind the next RRset.
func (s *rrsets) skip() {
	size := setHeader + int(binary.LittleEndian.Uint32(s.rest[6:])) + int(binary.LittleEndian.Uint16(s.rest[10:]))
	s.count--
	s.rest = s.rest[size:]
}

// get reads the next RRset. It refers to the record's memory.
func (s *rrsets) get() chosen {
	size := int(binary.LittleEndian.Uint32(s.rest[6:]))
	packed := s.rest[setHeader : setHeader+size]
	ready := s.rest[setHeader+size:]
	return chosen{
		RRset: RRset{Type: s.typ(), TTL: binary.LittleEndian.Uint32(s.rest[2:]), rdata: fixedString(packed)},
		ready: ready[:binary.LittleEndian.Uint16(s.rest[10:])],
	}
}

// fixedString is b as a string without a copy. Nobody may write to b any more.
//
// It is what lets RRsets of records and of nodes be one type. Strings of chunks keep these in
// memory, as slices do.
func fixedString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// RRset returns the record's set of the type, or the empty set.
func (r record) RRset(typ uint16) RRset {
	for sets := r.sets(); sets.count > 0; sets.skip() {
		if sets.typ() == typ {
			return sets.get().RRset
		}
	}
	return RRset{Type: typ}
}

// aliasHash returns the hash of the target of a CNAME that is the first RRset, if it is ready and
// the target is in the zone, else 0.
func (r record) aliasHash() uint64 {
	sets := r.sets()
	if sets.count == 0 || sets.typ() != TypeCNAME {
		return 0
	}
	ready := sets.get().ready
	if ready.records() == 0 {
		return 0
	}
	hash, _ := ready.alias()
	return hash
}

// plain returns the record's set of the type if that is all that there is to say, without any
// compression.
func (r record) plain(typ uint16) (set RRset, ok bool) {
	for sets := r.sets(); sets.count > 0; sets.skip() {
		switch found := sets.typ(); {
		case found == TypeCNAME:
			return RRset{}, false
		case found == typ:
			c := sets.get()
			return c.RRset, len(c.ready) == 0 && !IsPrivate(typ)
		}
	}
	return RRset{}, false
}

// fields are what a record is made of.
type fields struct {
	owner Name
	// Without flagCut, flagDNAME and flagSteered, which follow from the sets.
	flags    uint8
	cover    int
	atApex   bool
	referral uint32
	slot     uint32
	sets     []RRset
}

// appendRecord appends the record of f to dst, up to a multiple of 8 octets. ready appends the
// ready answer of a set to a slice, or nothing.
func appendRecord(dst []byte, f *fields, ready func(dst []byte, set RRset) []byte) []byte {
	start := len(dst)
	for _, set := range f.sets {
		switch {
		case set.Type == TypeNS && !f.atApex:
			f.flags |= flagCut
		case set.Type == TypeDNAME:
			f.flags |= flagDNAME
		case set.Type == TypeSteered:
			f.flags |= flagSteered
		}
	}
	le := binary.LittleEndian
	dst = append(dst, byte(len(f.owner)), f.flags, byte(f.cover), 0)
	dst = le.AppendUint16(dst, uint16(len(f.sets)))
	dst = append(dst, 0, 0)
	dst = append(dst, f.owner...)
	if f.flags&flagCut != 0 {
		dst = le.AppendUint32(dst, f.referral)
	}
	if f.flags&flagSteered != 0 {
		dst = le.AppendUint32(dst, f.slot)
	}
	for _, set := range f.sets {
		dst = le.AppendUint16(dst, set.Type)
		dst = le.AppendUint32(dst, set.TTL)
		dst = le.AppendUint32(dst, uint32(len(set.rdata)))
		dst = le.AppendUint16(dst, 0)
		size := len(dst) - 2
		dst = append(dst, set.rdata...)
		before := len(dst)
		dst = ready(dst, set)
		le.PutUint16(dst[size:], uint16(len(dst)-before))
	}
	for (len(dst)-start)%8 != 0 {
		dst = append(dst, 0)
	}
	if units := (len(dst) - start) / 8; units <= 0xffff {
		le.PutUint16(dst[start+6:], uint16(units))
	}
	return dst
}

// size returns how many octets the record takes.
func (r record) size() int {
	if units := int(binary.LittleEndian.Uint16(r[6:])); units > 0 {
		return units * 8
	}
	sets := r.sets()
	for sets.count > 0 {
		sets.skip()
	}
	return (len(r) - len(sets.rest) + 7) / 8 * 8
}

func (r record) setReferral(ref uint32) { binary.LittleEndian.PutUint32(r[r.behindOwner():], ref) }
