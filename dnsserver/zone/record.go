package zone

import "encoding/binary"

// record is what an index knows of one name, in memory that has no pointers and is never written
// again. The nil record is that of no name. Integers are little-endian:
//
//	1  size of the owner's name without the zone's
//	1  flags
//	2  number of RRsets
//	2  size of the record in units, 0 if it takes more than fit
//	   the owner's name in wire form, without the zone's
//	1  labels of the zone cut or DNAME above the name, if flagCovered
//	4  ref of the referral, 0 if there is none ready; if flagCut
//	4  number of the slot, if flagSteered
//	   the RRsets, sorted by type
type record []byte

const recordHeader = 6

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

// owner returns the name in wire form, without the zone's name that follows.
func (r record) owner() []byte { return r[recordHeader : recordHeader+int(r[0])] }

func (r record) isWildcard() bool {
	return r[0] >= 2 && r[recordHeader] == 1 && r[recordHeader+1] == '*'
}

// cover returns the labels of the zone cut or DNAME above the name, if flagCovered.
func (r record) cover() int { return int(r[recordHeader+int(r[0])]) }

// refs is where the refs after the owner start.
func (r record) refs() int {
	at := recordHeader + int(r[0])
	if r.is(flagCovered) {
		at++
	}
	return at
}

// referral returns the ref of the referral, if flagCut.
func (r record) referral() uint32 { return binary.LittleEndian.Uint32(r[r.refs():]) }

func (r record) setReferral(ref uint32) { binary.LittleEndian.PutUint32(r[r.refs():], ref) }

// slot returns the number of the slot, if flagSteered.
func (r record) slot() uint32 {
	at := r.refs()
	if r.is(flagCut) {
		at += 4
	}
	return binary.LittleEndian.Uint32(r[at:])
}

// size returns how many octets the record takes.
func (r record) size() int {
	if units := int(binary.LittleEndian.Uint16(r[4:])); units > 0 {
		return units * chunkUnit
	}
	sets := r.sets()
	for sets.count > 0 {
		sets.skip()
	}
	return wholeUnits(len(r) - len(sets.rest))
}

// stored is one RRset of a record, and whatever stands behind it; nil for none. Either
//
//	2  type
//	4  TTL
//	2  size of the packed records, less than largeSet
//	   the packed records, as in RRset
//
// or, if there is a ready form or much else,
//
//	2  type
//	4  TTL
//	2  largeSet
//	4  size of the packed records
//	2  size of the ready form
//	   the packed records
//	   the ready form, see readyRecords
type stored []byte

const (
	smallHead = 8
	largeHead = 14
	largeSet  = 1 << 15
)

func (s stored) typ() uint16 { return binary.LittleEndian.Uint16(s) }
func (s stored) ttl() uint32 { return binary.LittleEndian.Uint32(s[2:]) }

// packed returns the records as RRset has them.
func (s stored) packed() []byte {
	if size := int(binary.LittleEndian.Uint16(s[6:])); size != largeSet {
		return s[smallHead : smallHead+size]
	}
	return s[largeHead : largeHead+int(binary.LittleEndian.Uint32(s[8:]))]
}

// ready returns the ready form, which may be empty.
func (s stored) ready() readyRecords {
	if binary.LittleEndian.Uint16(s[6:]) != largeSet {
		return nil
	}
	at := largeHead + int(binary.LittleEndian.Uint32(s[8:]))
	return readyRecords(s[at : at+int(binary.LittleEndian.Uint16(s[12:]))])
}

// RRset returns the set, which shares the record's memory.
func (s stored) RRset() RRset {
	return RRset{Type: s.typ(), TTL: s.ttl(), rdata: fixedString(s.packed())}
}

// sets is what is left to be read of a record's RRsets.
type sets struct {
	count int
	rest  stored // begins with the next one, if count is not 0
}

func (r record) sets() sets {
	if r == nil {
		return sets{}
	}
	at := recordHeader + int(r[0])
	if r[1]&(flagCovered|flagCut|flagSteered) != 0 {
		at = r.refs()
		if r.is(flagCut) {
			at += 4
		}
		if r.is(flagSteered) {
			at += 4
		}
	}
	return sets{int(binary.LittleEndian.Uint16(r[2:])), stored(r[at:])}
}

// skip goes behind the next RRset.
func (s *sets) skip() {
	size := int(binary.LittleEndian.Uint16(s.rest[6:]))
	if size != largeSet {
		size += smallHead
	} else {
		size = largeHead + int(binary.LittleEndian.Uint32(s.rest[8:])) + int(binary.LittleEndian.Uint16(s.rest[12:]))
	}
	s.count--
	s.rest = s.rest[size:]
}

// RRset returns the record's set of the type, or the empty set.
func (r record) RRset(typ uint16) RRset {
	for all := r.sets(); all.count > 0; all.skip() {
		if all.rest.typ() == typ {
			return all.rest.RRset()
		}
	}
	return RRset{Type: typ}
}

// choose returns the RRset that answers qtype, nil for NODATA. A CNAME answers every type but those
// that may stand beside it (RFC 4035 §2.5), were the zone signed.
func (r record) choose(qtype uint16) stored {
	for all := r.sets(); all.count > 0; all.skip() {
		typ := all.rest.typ()
		if (typ == qtype || qtype == TypeANY || typ == TypeCNAME && qtype != TypeRRSIG && qtype != TypeNSEC) && !IsPrivate(typ) {
			return all.rest
		}
	}
	return nil
}

// aliasHash returns the hash of the target of a CNAME that is the first RRset, if it is ready and
// the target is in the zone, else 0.
func (r record) aliasHash() uint64 {
	all := r.sets()
	if all.count == 0 || all.rest.typ() != TypeCNAME {
		return 0
	}
	ready := all.rest.ready()
	if ready.records() == 0 {
		return 0
	}
	hash, _ := ready.alias()
	return hash
}

// fields are what a record is made of.
type fields struct {
	name  Name
	owner Name // of name what is before the zone's
	// Without flagCut, flagDNAME and flagSteered, which follow from the sets.
	flags    uint8
	cover    int
	referral uint32
	slot     uint32
	sets     []RRset
}

// appendRecord appends the record of f to dst, in whole units. ready appends the
// ready answer of a set to a slice, or nothing.
func appendRecord(dst []byte, f *fields, ready func(dst []byte, set RRset) []byte) []byte {
	start := len(dst)
	for _, set := range f.sets {
		switch {
		case set.Type == TypeNS && f.owner != "":
			f.flags |= flagCut
		case set.Type == TypeDNAME:
			f.flags |= flagDNAME
		case set.Type == TypeSteered:
			f.flags |= flagSteered
		}
	}
	le := binary.LittleEndian
	dst = append(dst, byte(len(f.owner)), f.flags)
	dst = le.AppendUint16(dst, uint16(len(f.sets)))
	dst = append(dst, 0, 0)
	dst = append(dst, f.owner...)
	if f.flags&flagCovered != 0 {
		dst = append(dst, byte(f.cover))
	}
	if f.flags&flagCut != 0 {
		dst = le.AppendUint32(dst, f.referral)
	}
	if f.flags&flagSteered != 0 {
		dst = le.AppendUint32(dst, f.slot)
	}
	for _, set := range f.sets {
		dst = le.AppendUint16(dst, set.Type)
		dst = le.AppendUint32(dst, set.TTL)
		head := len(dst)
		dst = le.AppendUint16(dst, largeSet)
		dst = le.AppendUint32(dst, uint32(len(set.rdata)))
		dst = le.AppendUint16(dst, 0)
		dst = append(dst, set.rdata...)
		before := len(dst)
		dst = ready(dst, set)
		if size := len(dst) - before; size > 0 || len(set.rdata) >= largeSet {
			le.PutUint16(dst[head+6:], uint16(size))
			continue
		}
		le.PutUint16(dst[head:], uint16(len(set.rdata)))
		dst = append(dst[:head+2], set.rdata...)
	}
	for (len(dst)-start)%chunkUnit != 0 {
		dst = append(dst, 0)
	}
	if units := (len(dst) - start) / chunkUnit; units <= 0xffff {
		le.PutUint16(dst[start+4:], uint16(units))
	}
	return dst
}
