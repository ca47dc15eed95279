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
	// MaxUDP bounds replies over UDP, whatever the client offers: what passes every
	// network in one fragment.
	MaxUDP = 1232
	// classicUDP is what a client without EDNS takes (RFC 1035 §4.2.1).
	classicUDP = 512
)

// Response codes (IANA registry "DNS RCODEs"); those from 16 on need an OPT record.
const (
	RcodeSuccess  uint16 = 0
	RcodeFormErr  uint16 = 1
	RcodeServFail uint16 = 2
	RcodeNXDomain uint16 = 3
	RcodeNotImp   uint16 = 4
	RcodeRefused  uint16 = 5
	RcodeYXDomain uint16 = 6
	RcodeNotAuth  uint16 = 9
	RcodeBadVers  uint16 = 16
)

const (
	classIN  = 1
	classANY = 255

	typeTSIG = 250

	tsigBadKey = 17 // RFC 8945 §3

	edeNone             = -1
	edeNotReady         = 14 // RFC 8914 §4.15
	edeNotAuthoritative = 20 // RFC 8914 §4.21
	optionEDE           = 15
	optionKeepAlive     = 11 // RFC 7828
	optionPadding       = 12 // RFC 7830

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
	copy(n.wire[:], b[:n.size])
	for at := 0; at < n.size; at += 8 {
		word := n.wire[at : at+8]
		binary.LittleEndian.PutUint64(word, foldEight(binary.LittleEndian.Uint64(word)))
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

// query is what the parser found in one message.
type query struct {
	id     uint16
	opcode uint8
	rd, cd bool

	hasQuestion bool // name, qtype, qclass and end are valid
	name        dissected
	qtype       uint16
	qclass      uint16
	end         int // of the question section, from the start of the message

	do      bool // the client knows DNSSEC, RFC 3225
	edns    bool // one valid OPT record; the two fields below are valid
	version uint8
	size    int // of UDP messages that the client takes, in octets

	keepAlive bool // the client asks how long an idle connection stays, RFC 7828
	padding   bool // the client pads, RFC 7830

	tsig tsig
}

// tsig is what an error answer needs to repeat of a TSIG record (RFC 8945 §5.2.1).
type tsig struct {
	present    bool
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
	wellFormed
)

// parse reads message strictly, by RFC 1035 §4.1, RFC 6891 §6.1 and RFC 8945 §5.1. It keeps
// no reference to the message. Records that have no meaning in a query are skipped.
func (q *query) parse(message []byte) verdict {
	q.hasQuestion, q.edns, q.do, q.keepAlive, q.padding, q.tsig.present = false, false, false, false, false, false
	if len(message) < headerSize || message[2]&0x80 != 0 {
		return silence
	}
	q.id = binary.BigEndian.Uint16(message)
	q.opcode = message[2] >> 3 & 0xf
	q.rd = message[2]&0x01 != 0
	q.cd = message[3]&0x10 != 0
	if q.opcode != 0 {
		return notImplemented
	}
	if binary.BigEndian.Uint16(message[4:]) != 1 || !q.name.read(message[headerSize:]) {
		return malformed
	}
	q.end = headerSize + q.name.size + 4
	if q.end > len(message) {
		return malformed
	}
	q.qtype = binary.BigEndian.Uint16(message[q.end-4:])
	q.qclass = binary.BigEndian.Uint16(message[q.end-2:])
	q.hasQuestion = true

	answers := int(binary.BigEndian.Uint16(message[6:])) + int(binary.BigEndian.Uint16(message[8:]))
	additional := int(binary.BigEndian.Uint16(message[10:]))
	at := q.end
	for i := range answers + additional {
		next, ok := q.record(message, at, i >= answers, i == answers+additional-1)
		if !ok {
			q.edns = false
			return malformed
		}
		at = next
	}
	if at != len(message) {
		q.edns = false
		return malformed
	}
	return wellFormed
}

// record reads the record at message[at:] and returns where the next starts. OPT and TSIG
// belong into the additional section, OPT once and TSIG as the last record.
func (q *query) record(message []byte, at int, additional, last bool) (next int, ok bool) {
	owner := at
	if at, ok = skipName(message, at); !ok || at+10 > len(message) {
		return 0, false
	}
	typ := binary.BigEndian.Uint16(message[at:])
	class := binary.BigEndian.Uint16(message[at+2:])
	ttl := message[at+4 : at+8]
	rdata := at + 10
	next = rdata + int(binary.BigEndian.Uint16(message[at+8:]))
	if next > len(message) {
		return 0, false
	}
	switch typ {
	case TypeOPT:
		if !additional || q.edns || message[owner] != 0 || !q.options(message[rdata:next]) {
			return 0, false
		}
		q.edns = true
		q.size = int(class)
		q.version = ttl[1]
		q.do = binary.BigEndian.Uint16(ttl[2:])&flagDO != 0
	case typeTSIG:
		if !additional || !last || class != classANY || !q.tsig.read(message, owner, rdata, next) {
			return 0, false
		}
	}
	return next, true
}

// options reads EDNS options (RFC 6891 §6.1.2); false if their lengths do not fit. What is in
// them is not looked at: none changes an answer.
func (q *query) options(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		end := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if end > len(b) {
			return false
		}
		switch binary.BigEndian.Uint16(b) {
		case optionKeepAlive:
			q.keepAlive = true
		case optionPadding:
			q.padding = true
		}
		b = b[end:]
	}
	return true
}

func (t *tsig) read(message []byte, owner, rdata, end int) bool {
	key, _, ok := expandName(t.names[:0:MaxName], message, owner)
	if !ok {
		return false
	}
	t.key = len(key)
	names, at, ok := expandName(t.names[:t.key:t.key+MaxName], message, rdata)
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
	t.present = at == end
	return t.present
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
