package zone

import (
	"encoding/binary"
	"slices"
	"sync"
)

// This file makes what answers are copied from: parts of replies in wire form, made by the same
// code that makes replies when nothing is ready, so that their octets are the same.
//
// Ready parts suit a message whose question is for a certain name or, if they are shifted, for
// one below it: names that end like the question's are pointers into it.

// compiler makes ready parts.
type compiler struct {
	scratch Scratch
	asked   []byte
	reply   []byte
}

// compilers are many zones' one after the other, for each takes much memory.
var compilers = sync.Pool{New: func() any {
	c := &compiler{scratch: Scratch{general: true}, reply: make([]byte, MaxMessage)}
	c.scratch.query = &c.scratch.own
	return c
}}

// ask begins a reply to a question for a name.
func (c *compiler) ask(name []byte) *message {
	s := &c.scratch
	var header [headerSize]byte
	c.asked = append(append(append(c.asked[:0], header[:]...), name...), 0, 0, 0, 0)
	s.message.noting, s.message.pointers = false, s.message.pointers[:0]
	s.query.hasQuestion, s.query.end = true, len(c.asked)
	s.query.name.read(name)
	s.message.begin(c.reply, len(c.reply), s.query, &s.tsig, c.asked)
	return &s.message
}

// readyRecords is an RRset in wire form for a question whose name is the owner's: 2 octets with the
// number of records, and these. It is empty for types whose records need no more than a
// pointer to the question before them, and has no more than the number 0 where records must
// be made for each question. Between number and record of a CNAME stand 8 octets with the hash of
// its target, 0 if that is outside the zone.
type readyRecords []byte

var unready = readyRecords{0, 0}

func (r readyRecords) records() uint16 { return binary.LittleEndian.Uint16(r) }
func (r readyRecords) wire() []byte    { return r[2:] }

// alias is what a ready CNAME has.
func (r readyRecords) alias() (target uint64, wire []byte) {
	return binary.LittleEndian.Uint64(r[2:]), r[10:]
}

// maxReady bounds ready parts, in octets: what is larger is rarely asked for over UDP.
const maxReady = 2048

// appendReadySet appends the ready form of a set of f to dst.
func (x *indexer) appendReadySet(dst []byte, f *fields, set RRset) []byte {
	if _, names := compressible(set.Type); names == 0 {
		return dst
	}
	if f.owner == "" && (set.Type == TypeNS || set.Type == TypeSOA) { // with addresses; of a version
		return append(dst, unready...)
	}
	m := x.ask([]byte(f.name))
	start := m.n
	m.put([]byte(f.name), set, set.TTL)
	plain := 0
	for rest := set.rdata; rest != ""; {
		var rdata string
		rdata, rest = next(rest)
		plain += plainHead + len(rdata)
	}
	switch size := m.n - start; {
	case size == plain && set.Type != TypeCNAME:
		return dst
	case size == 0 || size > maxReady || len(f.name) == 1:
		return append(dst, unready...)
	}
	dst = binary.LittleEndian.AppendUint16(dst, m.counts[sectionAnswer])
	if set.Type == TypeCNAME {
		target := uint64(0)
		if rdata := Name(set.firstRData()); rdata.Within(x.apex) {
			target = hashName([]byte(rdata))
		}
		dst = binary.LittleEndian.AppendUint64(dst, target)
	}
	return append(dst, m.b[start:m.n]...)
}

// referral is a delegation for questions at its cut or below, without DS and OPT. Integers are
// little-endian:
//
//	1  isReferral
//	1  number of shifts
//	2  number of NS records
//	2  number of additional records
//	2  size of the records in wire form, and flagDS
//	8  hash of the cut's name
//	   of each shift 2 octets: where in the records a pointer stands
//	   the records
type referral []byte

const (
	referralHeader = 16
	isReferral     = 255     // and not the size of an owner
	flagDS         = 1 << 15 // the cut has DS
)

func (r referral) count() int         { return int(r[1]) }
func (r referral) servers() uint16    { return binary.LittleEndian.Uint16(r[2:]) }
func (r referral) additional() uint16 { return binary.LittleEndian.Uint16(r[4:]) }
func (r referral) hasDS() bool        { return binary.LittleEndian.Uint16(r[6:])&flagDS != 0 }
func (r referral) wire() []byte {
	return r[referralHeader+2*r.count():][:binary.LittleEndian.Uint16(r[6:])&^flagDS]
}
func (r referral) hash() uint64               { return binary.LittleEndian.Uint64(r[8:]) }
func (r referral) shifts() []byte             { return r[referralHeader:][:2*r.count()] }
func (r referral) size() int                  { return wholeUnits(referralHeader + 2*r.count() + len(r.wire())) }
func (x *index) referral(ref uint32) referral { return referral(x.at(ref)) }

// referrals makes ready the referrals of topmost zone cuts.
func (x *indexer) referrals(cuts []Name) {
	z := &Served{content: x.content, labels: x.labels, index: &x.index}
	for _, cut := range cuts {
		tag := tagOf(hashName([]byte(cut)))
		ref := x.ref(tag, cut)
		r := x.at(ref)
		made := x.compile(z, cut, r)
		before := r.referral()
		if made == nil && before == 0 {
			continue
		}
		x.releaseReferral(before)
		to := uint32(0)
		if made != nil {
			var b []byte
			to, b = x.take(wholeUnits(len(made)))
			copy(b, made)
		}
		x.renew(tag, ref).setReferral(to)
	}
}

// compile makes a referral, nil if there is none that suits all questions below the cut.
func (x *indexer) compile(z *Served, cut Name, r record) referral {
	ns := r.RRset(TypeNS)
	var others []Name // servers with addresses in the zone that are not below the cut
	for rest := ns.rdata; rest != ""; {
		var rdata string
		rdata, rest = next(rest)
		name, size, err := NameFromWire([]byte(rdata))
		if err != nil || size != len(rdata) {
			return nil
		}
		if !name.Within(x.apex) {
			continue
		}
		// Names that do not exist may be found in a wildcard; and a question may be for a name
		// below one of them, which the reply would point to.
		if x.find([]byte(name)) == nil {
			return nil
		}
		if !name.Within(cut) {
			others = append(others, name)
		}
	}
	m := x.ask([]byte(cut))
	m.noting = true
	start := m.n
	x.scratch.referral(z, []byte(cut), found{what: atCut, record: r, depth: cut.Labels()})
	size := m.n - start
	// Two names of 255 octets, one in the question and one before a pointer, still leave room
	// for pointers; and all labels of the question and of the referral fit the table of names.
	if m.truncated || size > maxReady || len(m.pointers) > 255 || m.names.count > len(m.names.added)-maxLabels {
		return nil
	}
	le := binary.LittleEndian
	made := append(make(referral, 0, referralHeader+2*len(m.pointers)+size), isReferral, byte(len(m.pointers)))
	flags := uint16(0)
	if r.RRset(TypeDS).rdata != "" {
		flags = flagDS
	}
	made = le.AppendUint16(made, m.counts[sectionAuthority])
	made = le.AppendUint16(made, m.counts[sectionAdditional])
	made = le.AppendUint16(made, uint16(size)|flags)
	made = le.AppendUint64(made, hashName([]byte(cut)))
	for _, at := range m.pointers {
		made = le.AppendUint16(made, uint16(at-start))
	}
	made = append(made, m.b[start:m.n]...)
	for _, name := range others {
		tag := tagOf(hashName([]byte(name)))
		ref := x.ref(tag, name)
		if !x.at(ref).is(flagServer) {
			x.renew(tag, ref)[1] |= flagServer
		}
	}
	return made
}

// readySOA is the SOA record of negative answers, for a question whose name is the apex.
type readySOA struct {
	wire   []byte
	shifts []uint16
	// labels are those below the apex of names in the rdata, as far as a word holds them: a
	// reply to a question with one of them could point to more.
	labels [2]uint64
}

func newReadySOA(z *Served) readySOA {
	c := compilers.Get().(*compiler)
	defer compilers.Put(c)
	m := c.ask([]byte(z.Apex()))
	m.noting = true
	start := m.n
	if !m.put([]byte(z.Apex()), z.soa, z.negative) || m.n-start > maxReady {
		return readySOA{}
	}
	r := readySOA{wire: slices.Clone(m.b[start:m.n])}
	for _, at := range m.pointers {
		r.shifts = append(r.shifts, uint16(at-start))
	}
	soa, err := ParseSOA(z.soa.firstRData())
	if err != nil {
		return readySOA{}
	}
	for i, name := range []Name{soa.MName, soa.RName} {
		if name.Below(z.Apex()) {
			for name.Labels() > z.labels+1 {
				name = name.Parent()
			}
			r.labels[i] = labelWord([]byte(name))
		}
	}
	return r
}

// labelWord is the first label of a name in wire form, as far as a word holds it.
func labelWord(name []byte) uint64 {
	var b [8]byte
	copy(b[:], name[:min(len(b), 1+int(name[0]))])
	return binary.LittleEndian.Uint64(b[:])
}
