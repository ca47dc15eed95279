package zone

import "encoding/binary"

// message writes a reply: the question as it came, RRsets whole or not at all, and the OPT
// and TSIG records for which room is kept.
type message struct {
	b     []byte // the reply's memory; what is written is b[:n]
	n     int
	limit int // RRsets end here
	kept  int // octets kept behind limit for OPT and TSIG

	section   int // index into counts of where RRsets go
	counts    [3]uint16
	truncated bool

	// What the OPT record has, beside an extended error.
	keepAlive uint16 // RFC 7828, in units of 100 ms; 0 for nothing
	nsid      string // RFC 5001; "" for nothing
	cookie    bool   // RFC 7873
	asksState bool   // room is kept for OptionState
	hasState  bool   // it is known, too
	serial    uint32 // of it
	state     uint64
	subnet    bool   // RFC 7871
	scope     uint8  // of subnet
	padded    bool   // to blocks of paddedBlock octets, RFC 7830
	options   [2]int // where the OPT record starts and ends; 0 for none

	question int  // octets of the question's name, 0 without question
	seeded   bool // names has the question's name too
	names    nameTable
	labels   suffixes
	rdata    [MaxName]byte // a name of rdata, out of its string

	noting   bool  // pointers takes where pointers stand
	pointers []int // of ready parts
}

// Sections of a message after the question (RFC 1035 §4.1).
const (
	sectionAnswer = iota
	sectionAuthority
	sectionAdditional
)

const (
	optSize     = 11
	optionHead  = 4  // code and length
	optionSize  = 6  // of an option that is a number
	tsigSize    = 26 // without the names: type, class, TTL, length; times, MAC size, ID, error, other
	pointerSize = 2

	paddedBlock = 468 // RFC 8467 §4.1
)

// begin starts the reply to message at dst, which must hold headerSize and the question,
// and limits it to so many octets.
func (m *message) begin(dst []byte, limit int, q *query, sig *tsig, asked []byte) {
	m.b = dst[:limit]
	m.n = headerSize
	m.section, m.counts, m.truncated = sectionAnswer, [3]uint16{}, false
	m.names.reset()
	m.question, m.seeded = 0, false
	if q.hasQuestion {
		m.n = q.end
		m.question = q.name.size
		if &m.b[0] != &asked[0] {
			copy(m.b[headerSize:q.end], asked[headerSize:q.end])
		}
	}
	m.kept = 0
	if q.edns {
		m.kept += optSize + m.optionsSize()
	}
	if q.tsig > 0 {
		m.kept += sig.size()
	}
	m.limit = max(limit-m.kept, m.n)
}

// optionsSize is how many octets of options go out in any case. For an extended error and padding
// no room is kept.
func (m *message) optionsSize() (n int) {
	if m.keepAlive > 0 {
		n += optionSize
	}
	if m.nsid != "" {
		n += optionHead + len(m.nsid)
	}
	if m.cookie {
		n += optionHead + clientCookieSize + serverCookieSize
	}
	if m.asksState {
		n += optionHead + stateSize
	}
	return n
}

// keep keeps so many more octets for OPT. No record has been put yet.
func (m *message) keep(octets int) {
	m.kept += octets
	m.limit = max(m.limit-octets, m.n)
}

// put appends the records of set with the given TTL, all or none. The owner is an
// uncompressed name.
func (m *message) put(owner []byte, set RRset, ttl uint32) bool {
	start := m.mark()
	before, names := compressible(set.Type)
	at := 0
	for rest := set.rdata; rest != ""; {
		var rdata string
		rdata, rest = next(rest)
		if at = m.head(owner, at, set.Type, ttl); at < 0 || !m.body(rdata, before, names) {
			m.rollback(start)
			return false
		}
	}
	return true
}

// plainHead is how much of a record stands before its rdata if the owner is a pointer.
const plainHead = pointerSize + 10

// toQuestion is a pointer to the question's name.
const toQuestion = 0xc000 | headerSize

// putPlain is put for sets whose rdata is not compressed, with a pointer to their owner.
func (m *message) putPlain(owner uint16, set stored) bool {
	ttl := set.ttl()
	head := uint64(owner)<<48 | uint64(set.typ())<<32 | classIN<<16 | uint64(ttl>>16)
	tail := ttl << 16
	at, count := m.n, m.counts[m.section]
	for rest := set.packed(); len(rest) >= 2; {
		size := int(rest[0])<<8 | int(rest[1])
		if at+plainHead+size > m.limit {
			return false
		}
		b := m.b[at : at+plainHead+size]
		binary.BigEndian.PutUint64(b, head)
		binary.BigEndian.PutUint32(b[8:], tail|uint32(size))
		if size == 4 { // nearly always
			*(*[4]byte)(b[plainHead:]) = [4]byte(rest[2:])
		} else {
			copy(b[plainHead:], rest[2:2+size])
		}
		at += plainHead + size
		count++
		rest = rest[2+size:]
	}
	m.n, m.counts[m.section] = at, count
	return true
}

// putReady appends records in wire form. The caller counts them. It reports false if there is no
// room.
func (m *message) putReady(wire []byte) bool {
	if m.n+len(wire) > m.limit {
		return false
	}
	m.n += copy(m.b[m.n:], wire)
	return true
}

// shift moves the pointer at the place, a part of the message, by so many octets.
func (m *message) shift(at, by int) {
	b := m.b[at : at+pointerSize]
	binary.BigEndian.PutUint16(b, binary.BigEndian.Uint16(b)+uint16(by))
}

// next splits the packed records of an RRset after the first.
func next(packed string) (rdata, rest string) {
	end := 2 + (int(packed[0])<<8 | int(packed[1]))
	return packed[2:end], packed[end:]
}

// putCNAME appends a CNAME record, or nothing if there is no room. Both names are
// uncompressed.
func (m *message) putCNAME(owner []byte, ttl uint32, target []byte) bool {
	start := m.mark()
	if m.head(owner, 0, TypeCNAME, ttl) < 0 {
		m.rollback(start)
		return false
	}
	rdata := m.n
	if m.name(target) < 0 {
		m.rollback(start)
		return false
	}
	m.close(rdata)
	return true
}

// need notes that the reply lacks something that belongs into it unless ok.
func (m *message) need(ok bool) bool {
	m.truncated = m.truncated || !ok
	return ok
}

// mark is a state of a message to go back to.
type mark struct {
	n, names int
	count    uint16
	seeded   bool
}

func (m *message) mark() mark { return mark{m.n, m.names.count, m.counts[m.section], m.seeded} }

// discard takes all records away.
func (m *message) discard() {
	m.n, m.section, m.counts, m.truncated = headerSize, sectionAnswer, [3]uint16{}, false
	if m.question > 0 {
		m.n += m.question + 4
	}
	m.names.reset()
	m.seeded = false
}

func (m *message) rollback(to mark) {
	m.n, m.counts[m.section] = to.n, to.count
	m.names.truncate(to.names)
	m.seeded = to.seeded
}

// head appends a record up to its length field. ownerAt, unless 0, is where the owner's
// name stands already. It returns where it stands now, 0 if nothing can point there, and
// -1 if there is no room.
func (m *message) head(owner []byte, ownerAt int, typ uint16, ttl uint32) int {
	if ownerAt == 0 {
		if ownerAt = m.name(owner); ownerAt < 0 {
			return -1
		}
	} else {
		if m.n+pointerSize > m.limit {
			return -1
		}
		m.pointer(ownerAt)
	}
	if m.n+10 > m.limit {
		return -1
	}
	h := m.b[m.n : m.n+10]
	binary.BigEndian.PutUint16(h, typ)
	binary.BigEndian.PutUint16(h[2:], classIN)
	binary.BigEndian.PutUint32(h[4:], ttl)
	m.n += 10
	return ownerAt
}

// body appends the rdata of the record that head began; so many names after the octets
// before are compressed. Rdata that does not fit its type goes out as it is.
func (m *message) body(rdata string, before, names int) bool {
	start := m.n
	for ; names > 0 && len(rdata) > before; names-- {
		size := wellFormedName(rdata[before:])
		if size == 0 {
			break
		}
		if m.n+before > m.limit {
			return false
		}
		m.n += copy(m.b[m.n:], rdata[:before])
		if m.name(m.rdata[:copy(m.rdata[:], rdata[before:before+size])]) < 0 {
			return false
		}
		rdata = rdata[before+size:]
		before = 0
	}
	if m.n+len(rdata) > m.limit {
		return false
	}
	m.n += copy(m.b[m.n:], rdata)
	m.close(start)
	return true
}

// close ends the record whose rdata starts at the given place.
func (m *message) close(rdata int) {
	binary.BigEndian.PutUint16(m.b[rdata-2:], uint16(m.n-rdata))
	m.counts[m.section]++
}

// name appends a name, compressed. It returns where the whole name stands in the message, 0
// if nothing can point there, and -1 if there is no room.
func (m *message) name(name []byte) int {
	if at := m.inQuestion(name); at != 0 {
		if m.n+pointerSize > m.limit {
			return -1
		}
		m.pointer(at)
		return at
	}
	m.seed()
	s := &m.labels
	s.read(name)
	for i := range s.count {
		from := int(s.start[i])
		offset := m.names.find(s.hash[i], m.b, name[from:])
		if offset == 0 {
			continue
		}
		if m.n+from+pointerSize > m.limit {
			return -1
		}
		whole := m.copyName(name[:from], i)
		m.pointer(offset)
		if i == 0 {
			return offset
		}
		return whole
	}
	if m.n+len(name) > m.limit {
		return -1
	}
	return m.copyName(name, s.count)
}

// inQuestion returns where the name stands at the end of the question's, or 0. It is what owners
// are nearly always found by.
func (m *message) inQuestion(name []byte) int {
	at := headerSize + m.question - len(name)
	label := headerSize
	for label < at {
		label += 1 + int(m.b[label])
	}
	if label != at || len(name) == 1 {
		return 0
	}
	asked := m.b[at : at+len(name)]
	for i, c := range name {
		if asked[i] != c && fold(asked[i]) != fold(c) {
			return 0
		}
	}
	return at
}

// seed makes the question's name known for compression, once.
func (m *message) seed() {
	if m.seeded {
		return
	}
	m.seeded = true
	if m.question == 0 {
		return
	}
	m.labels.read(m.b[headerSize:])
	for i := range m.labels.count {
		m.names.add(m.labels.hash[i], headerSize+int(m.labels.start[i]))
	}
}

// copyName appends the first octets of the name in m.labels, which hold so many labels, and
// makes them known for compression.
func (m *message) copyName(name []byte, labels int) (at int) {
	at = m.n
	m.n += copy(m.b[m.n:], name)
	for i := range labels {
		m.names.add(m.labels.hash[i], at+int(m.labels.start[i]))
	}
	if labels == 0 || at > maxPointer {
		return 0
	}
	return at
}

func (m *message) pointer(offset int) {
	if m.noting {
		m.pointers = append(m.pointers, m.n)
	}
	binary.BigEndian.PutUint16(m.b[m.n:], 0xc000|uint16(offset))
	m.n += pointerSize
}

// finish appends OPT and TSIG, writes the header and returns the reply.
func (s *Scratch) finish(authoritative bool) []byte {
	q, m := s.query, &s.message
	m.options = [2]int{}
	if q.edns {
		s.opt()
	}
	if q.tsig > 0 {
		s.tsig.answer(m)
	}
	h := m.b[:headerSize]
	binary.BigEndian.PutUint16(h, q.id)
	h[2] = 0x80 | q.opcode<<3
	if authoritative {
		h[2] |= flagAA
	}
	if m.truncated {
		h[2] |= flagTC
	}
	if q.rd {
		h[2] |= 0x01
	}
	h[3] = byte(s.rcode & 0xf)
	if q.cd {
		h[3] |= 0x10
	}
	questions := uint16(0)
	if q.hasQuestion {
		questions = 1
	}
	binary.BigEndian.PutUint16(h[4:], questions)
	for i, count := range m.counts {
		binary.BigEndian.PutUint16(h[6+2*i:], count)
	}
	return m.b[:m.n]
}

// Flags in the third octet of a message.
const (
	flagAA = 0x04
	flagTC = 0x02
)

// opt appends the OPT record (RFC 6891 §6.1.2).
func (s *Scratch) opt() {
	q, m, o := s.query, &s.message, &s.asked
	m.options[0] = m.n
	b := m.b[m.n : m.n+optSize]
	b[0] = 0
	binary.BigEndian.PutUint16(b[1:], TypeOPT)
	binary.BigEndian.PutUint16(b[3:], MaxUDP)
	b[5] = byte(s.rcode >> 4)
	b[6] = 0 // the version spoken here
	flags := uint16(0)
	if q.do {
		flags = flagDO
	}
	binary.BigEndian.PutUint16(b[7:], flags)
	m.n += optSize
	start := m.n
	if s.ede != edeNone {
		m.extendedError(s.ede, s.edeText)
	}
	if m.keepAlive > 0 {
		binary.BigEndian.PutUint16(m.option(optionKeepAlive, 2), m.keepAlive)
	}
	if m.nsid != "" {
		copy(m.option(optionNSID, len(m.nsid)), m.nsid)
	}
	if m.hasState {
		b := m.option(OptionState, stateSize)
		binary.BigEndian.PutUint32(b, m.serial)
		binary.BigEndian.PutUint64(b[4:], m.state)
	}
	if m.cookie {
		copy(m.option(optionCookie, clientCookieSize+serverCookieSize), o.cookie[:])
	}
	if m.subnet {
		b := m.option(optionSubnet, o.subnet.size()-optionHead)
		binary.BigEndian.PutUint16(b, o.subnet.family)
		b[2], b[3] = o.subnet.source, m.scope
		copy(b[4:], o.subnet.address[:])
	}
	if m.padded {
		sig := 0
		if q.tsig > 0 {
			sig = s.tsig.size()
		}
		m.pad(sig)
	}
	binary.BigEndian.PutUint16(b[9:], uint16(m.n-start))
	m.counts[sectionAdditional]++
	m.options[1] = m.n
}

// option appends the head of an EDNS option and returns where its octets go.
func (m *message) option(code uint16, size int) []byte {
	b := m.b[m.n : m.n+optionHead+size]
	binary.BigEndian.PutUint16(b, code)
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	m.n += len(b)
	return b[optionHead:]
}

// extendedError appends an Extended DNS Error, without its text if that has no room, or nothing if
// there is none at all: nobody needs it.
func (m *message) extendedError(code int, text string) {
	room := len(m.b) - m.n - (m.kept - optSize)
	if room < optionSize+len(text) {
		text = ""
	}
	if room < optionSize {
		return
	}
	b := m.option(optionEDE, 2+len(text))
	binary.BigEndian.PutUint16(b, uint16(code))
	copy(b[2:], text)
}

// pad appends the Padding option that makes the whole reply, with so many octets behind it, a
// multiple of paddedBlock, or as long as there is room. Where there is none, nothing is lost.
func (m *message) pad(behind int) {
	end := m.n + optionHead + behind
	if end > len(m.b) {
		return
	}
	clear(m.option(optionPadding, min((paddedBlock-end%paddedBlock)%paddedBlock, len(m.b)-end)))
}

// size is that of the record that answers a signed query.
func (t *tsig) size() int { return tsigSize + t.key + t.algorithm }

// answer appends to m what answers a signed query of which no key is known: unsigned, with error
// BADKEY (RFC 8945 §5.3.2).
func (t *tsig) answer(m *message) {
	b := append(m.b[:m.n:cap(m.b)], t.names[:t.key]...)
	b = binary.BigEndian.AppendUint16(b, typeTSIG)
	b = binary.BigEndian.AppendUint16(b, classANY)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(t.algorithm+16))
	b = append(b, t.names[t.key:t.key+t.algorithm]...)
	b = append(b, t.time[:]...)
	b = binary.BigEndian.AppendUint16(b, 0) // no MAC
	b = binary.BigEndian.AppendUint16(b, t.originalID)
	b = binary.BigEndian.AppendUint16(b, tsigBadKey)
	b = binary.BigEndian.AppendUint16(b, 0)
	m.n = len(b)
	m.counts[sectionAdditional]++
}

// firstRData returns the rdata of the first record of a set that is not empty.
func (s RRset) firstRData() string {
	rdata, _ := next(s.rdata)
	return rdata
}
