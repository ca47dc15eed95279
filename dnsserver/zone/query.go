package zone

import "encoding/binary"

// Transport is what a query came over; it bounds the size of the reply.
type Transport uint8

// Transports. TLS is every encrypted one, DNS over HTTPS too: it differs from TCP in padding.
const (
	UDP Transport = iota
	TCP
	TLS
)

// Sizes of messages, in octets; replies over TCP have up to MaxMessage.
const (
	headerSize = 12
	// MaxUDP bounds replies over UDP, whatever the client offers, unless a Config says
	// otherwise: what passes every network in one fragment. It is also what clients are told
	// that the server takes.
	MaxUDP = 1232
	// MostUDP is the most that a Config may say.
	MostUDP = 4096
	// classicUDP is what a client without EDNS takes (RFC 1035 §4.2.1).
	classicUDP = 512
)

// Response codes (IANA registry "DNS RCODEs"); those from 16 on need an OPT record.
const (
	RcodeSuccess   uint16 = 0
	RcodeFormErr   uint16 = 1
	RcodeServFail  uint16 = 2
	RcodeNXDomain  uint16 = 3
	RcodeNotImp    uint16 = 4
	RcodeRefused   uint16 = 5
	RcodeYXDomain  uint16 = 6
	RcodeNotAuth   uint16 = 9
	RcodeBadVers   uint16 = 16
	RcodeBadCookie uint16 = 23
)

const (
	classIN  = 1
	classANY = 255

	typeTSIG = 250

	tsigBadKey = 17 // RFC 8945 §3

	flagDO = 1 << 15 // of the OPT record's flags, RFC 3225
)

// maxLabels is how many labels fit a name of MaxName octets, without the root's.
const maxLabels = (MaxName - 1) / 2

// dissected is a name taken apart for lookups. The zero value is no name.
type dissected struct {
	wire   [MaxName + 1]byte // lower case, the first size octets; whole words
	size   int
	labels int                  // without the root's
	start  [maxLabels + 1]uint8 // where in wire the labels start, from the left; the last is the root's
}

// read takes apart the uncompressed name at the start of b; false if there is none.
func (n *dissected) read(b []byte) bool {
	at, labels := 0, 0
	for {
		if at >= len(b) || at >= MaxName {
			return false
		}
		n.start[labels] = uint8(at)
		l := int(b[at])
		if l == 0 {
			break
		}
		if l > MaxLabel || labels == maxLabels {
			return false
		}
		labels++
		at += l + 1
	}
	n.size, n.labels = at+1, labels
	if len(b) < n.size+7 { // so that words end in b
		var whole [MaxName + 8]byte
		b = whole[:copy(whole[:], b[:n.size])+7]
	}
	for at := 0; at < n.size; at += 8 {
		binary.LittleEndian.PutUint64(n.wire[at:at+8], foldEight(binary.LittleEndian.Uint64(b[at:at+8])))
	}
	return true
}

// foldEight makes eight octets lower case; the lengths of labels are below all letters.
func foldEight(octets uint64) uint64 {
	const each = 0x0101010101010101
	low := octets & (0x7f * each)
	fromA := low + (0x80-'A')*each // the highest bit of each octet that is at least 'A'
	pastZ := low + (0x7f-'Z')*each // of each that is more than 'Z'
	upper := (fromA ^ pastZ) &^ octets & (0x80 * each)
	return octets | upper>>2
}

// readString is read of the name that is the whole of s.
func (n *dissected) readString(s string) bool {
	var b [MaxName]byte
	return n.read(b[:copy(b[:], s)]) && n.size == len(s)
}

// name returns the name in wire form.
func (n *dissected) name() []byte { return n.wire[:n.size] }

// suffix returns the last so many labels with the root's in wire form.
func (n *dissected) suffix(depth int) []byte { return n.wire[n.start[n.labels-depth]:n.size] }

// within reports whether n is apex, a name of so many labels, or below it.
func (n *dissected) within(apex Name, labels int) bool {
	return n.labels >= labels && string(n.suffix(labels)) == string(apex)
}

// query is what the parser found in one message. It keeps no reference to the message.
type query struct {
	id     uint16
	opcode uint8
	rd, cd bool

	hasQuestion bool // name, hash, qtype, qclass and end are valid
	name        dissected
	hash        uint64 // of name
	qtype       uint16
	qclass      uint16
	end         int // of the question section, from the start of the message

	edns    bool // one OPT record; the fields below are valid
	do      bool // the client knows DNSSEC, RFC 3225
	version uint8
	size    int    // of UDP messages that the client takes, in octets
	options [2]int // where the options in the message start and end

	tsig int // where the TSIG record in the message starts, 0 for none
}

// tsig is what an error answer needs to repeat of a TSIG record (RFC 8945 §5.2.1).
type tsig struct {
	names      [2 * MaxName]byte // key name, algorithm name: wire form, uncompressed
	key        int               // size of the key name
	algorithm  int               // size of the algorithm name
	time       [8]byte           // time signed and fudge
	originalID uint16
}

// verdict is what the parser makes of a message.
type verdict uint8

const (
	silence   verdict = iota // nothing is owed: not a query
	malformed                // FORMERR
	notImplemented
	questionless // well-formed, but asks for nothing
	wellFormed
)

// counts of a message's four sections in one number.
const (
	oneQuestion = 1 << 48
	oneRecord   = 1 // in the additional section
)

// parse reads message strictly, by RFC 1035 §4.1, RFC 6891 §6.1.1 and RFC 8945 §5.1, but for
// what is in the OPT record, for which there is options.read. Records that have no meaning in a
// query are skipped.
func (q *query) parse(message []byte) verdict {
	q.hasQuestion, q.edns, q.do, q.tsig = false, false, false, 0
	if len(message) < headerSize || message[2]&0x80 != 0 {
		return silence
	}
	q.id = binary.BigEndian.Uint16(message)
	q.opcode = message[2] >> 3 & 0xf
	q.rd = message[2]&0x01 != 0
	q.cd = message[3]&0x10 != 0
	if q.opcode != 0 {
		q.rd, q.cd = false, false // these mean something in QUERY alone (RFC 8906 §3.1.4)
		return notImplemented
	}
	counts := binary.BigEndian.Uint64(message[4:])
	if counts>>48 == 0 && q.edns0(message, counts) {
		return questionless
	}
	if counts>>48 != 1 || !q.name.read(message[headerSize:]) {
		return malformed
	}
	q.end = headerSize + q.name.size + 4
	if q.end > len(message) {
		return malformed
	}
	q.qtype = binary.BigEndian.Uint16(message[q.end-4:])
	q.qclass = binary.BigEndian.Uint16(message[q.end-2:])
	q.hash = hashName(q.name.name())
	q.hasQuestion = true

	// Nearly all queries end here, or behind one OPT record.
	rest := message[q.end:]
	if counts == oneQuestion && len(rest) == 0 {
		return wellFormed
	}
	if counts == oneQuestion+oneRecord && len(rest) >= optSize && binary.BigEndian.Uint32(rest)>>8 == uint32(TypeOPT) &&
		optSize+int(binary.BigEndian.Uint16(rest[9:])) == len(rest) {
		q.opt(message, q.end+1, len(message))
		return wellFormed
	}
	if !q.records(message, counts) {
		q.edns, q.tsig = false, 0
		return malformed
	}
	return wellFormed
}

// edns0 reads a message without question, which is one only if it has an OPT record (RFC 9619 §3).
func (q *query) edns0(message []byte, counts uint64) bool {
	q.end = headerSize
	if !q.records(message, counts) || q.tsig > 0 {
		q.edns, q.tsig = false, 0
	}
	return q.edns
}

// HashQuestion returns a hash of the name that a message asks for, without case; 0 if there is none.
func HashQuestion(message []byte) uint64 {
	var name dissected
	if len(message) < headerSize || !name.read(message[headerSize:]) {
		return 0
	}
	return hashName(name.name())
}

// QuestionString returns the name and the type that a message asks for, for people to read; "" if
// it has no question.
func QuestionString(message []byte) string {
	var q query
	if len(message) < headerSize || !q.name.read(message[headerSize:]) || headerSize+q.name.size+4 > len(message) {
		return ""
	}
	return Name(q.name.name()).String() + " " + TypeString(binary.BigEndian.Uint16(message[headerSize+q.name.size:]))
}

// records reads what follows the question, to the end of the message. OPT and TSIG belong into
// the additional section, OPT once and TSIG as the last record.
func (q *query) records(message []byte, counts uint64) (ok bool) {
	answers := int(counts>>32&0xffff) + int(counts>>16&0xffff)
	all := answers + int(counts&0xffff)
	at := q.end
	for i := range all {
		owner := at
		if at, ok = skipName(message, at); !ok || at+10 > len(message) {
			return false
		}
		next := at + 10 + int(binary.BigEndian.Uint16(message[at+8:]))
		if next > len(message) {
			return false
		}
		switch binary.BigEndian.Uint16(message[at:]) {
		case TypeOPT:
			if i < answers || q.edns || message[owner] != 0 {
				return false
			}
			q.opt(message, at, next)
		case typeTSIG:
			if i < answers || i != all-1 || !new(tsig).read(message, owner) {
				return false
			}
			q.tsig = owner
		}
		at = next
	}
	return at == len(message)
}

// opt reads the OPT record whose owner ends at message[at:] and which ends at end.
func (q *query) opt(message []byte, at, end int) {
	q.edns = true
	q.size = int(binary.BigEndian.Uint16(message[at+2:]))
	q.version = message[at+5]
	q.do = binary.BigEndian.Uint16(message[at+6:])&flagDO != 0
	q.options = [2]int{at + 10, end}
}

// read reads the TSIG record at message[at:], which fits the message.
func (t *tsig) read(message []byte, at int) bool {
	key, at, ok := expandName(t.names[:0:MaxName], message, at)
	if !ok || binary.BigEndian.Uint16(message[at+2:]) != classANY {
		return false
	}
	t.key = len(key)
	end := at + 10 + int(binary.BigEndian.Uint16(message[at+8:]))
	names, at, ok := expandName(t.names[:t.key:t.key+MaxName], message, at+10)
	if !ok || at+10 > end {
		return false
	}
	t.algorithm = len(names) - t.key
	copy(t.time[:], message[at:])
	at += 10 + int(binary.BigEndian.Uint16(message[at+8:])) // the MAC, which nobody can check
	if at+6 > end {
		return false
	}
	t.originalID = binary.BigEndian.Uint16(message[at:])
	at += 6 + int(binary.BigEndian.Uint16(message[at+4:]))
	return at == end
}

// skipName returns where the possibly compressed name at message[at:] ends.
func skipName(message []byte, at int) (end int, ok bool) {
	start := at
	for at < len(message) {
		switch l := int(message[at]); {
		case l == 0:
			return at + 1, at+1-start <= MaxName
		case l <= MaxLabel:
			at += l + 1
		default:
			return at + 2, backward(message, at, start)
		}
	}
	return 0, false
}

// backward reports whether message[at:] is a compression pointer to a place in the message
// before start.
func backward(message []byte, at, start int) bool {
	if at+2 > len(message) || message[at] < 0xc0 {
		return false
	}
	target := int(binary.BigEndian.Uint16(message[at:]) & 0x3fff)
	return headerSize <= target && target < start
}

// expandName appends the possibly compressed name at message[at:] to dst, whose capacity
// bounds it, and returns where the name ends in the message.
func expandName(dst, message []byte, at int) (name []byte, end int, ok bool) {
	if end, ok = skipName(message, at); !ok {
		return nil, 0, false
	}
	start := at
	for at < len(message) {
		l := int(message[at])
		if l > MaxLabel {
			if !backward(message, at, start) {
				return nil, 0, false
			}
			at = int(binary.BigEndian.Uint16(message[at:]) & 0x3fff)
			start = at
			continue
		}
		if at+1+l > len(message) || len(dst)+1+l > cap(dst) {
			return nil, 0, false
		}
		dst = append(dst, message[at:at+1+l]...)
		if l == 0 {
			return dst, end, true
		}
		at += l + 1
	}
	return nil, 0, false
}
