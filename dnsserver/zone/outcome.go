package zone

import "encoding/binary"

// Class is what kind of reply a reply is, as response rate limits see it.
type Class uint8

const (
	// ClassError is none of the others, whatever the question.
	ClassError Class = iota
	// ClassAnswer has records of the name and type asked for, perhaps at the end of a chain.
	ClassAnswer
	// ClassNoData says that the name has no such records.
	ClassNoData
	// ClassNXDomain says that there is no such name.
	ClassNXDomain
	// ClassReferral says that the name is delegated.
	ClassReferral
)

// Rcode returns the response code, extended ones included (RFC 6891 §6.1.3), of the last
// reply made in s.
func (s *Scratch) Rcode() uint16 { return s.rcode }

// Cookie returns what the cookie of the last query that was replied to says of its client.
func (s *Scratch) Cookie() Cookie { return s.cookie }

// Class returns the kind of the last reply.
func (s *Scratch) Class() Class { return s.class }

// Subject returns a hash of what the last reply is about, which replies of its class have in
// common that are the same to who sends many: name and type of an answer; the name without data;
// the zone without the name; the cut; nothing for errors. Names made by a wildcard or a DNAME
// count as one.
func (s *Scratch) Subject() uint64 { return s.about }

// Quarantined reports whether the last query was refused because it is in Quarantine.
func (s *Scratch) Quarantined() bool { return s.quarantined }

// Truncate returns the last reply, which is not nil, without its records and with TC set, so that
// the client asks again over TCP.
func (s *Scratch) Truncate() []byte {
	m := &s.message
	m.bare()
	m.b[2] |= flagTC
	return m.b[:m.n]
}

// RefuseCookie makes of the last reply one with BADCOOKIE (RFC 7873 §5.2.3): the client is to ask
// again with the cookie that it has. It is for queries with a cookie that is not a GoodCookie.
func (s *Scratch) RefuseCookie() []byte {
	m := &s.message
	m.bare()
	s.rcode = RcodeBadCookie
	m.b[2] &^= flagAA | flagTC
	m.b[3] = m.b[3]&^0xf | byte(RcodeBadCookie&0xf)
	m.b[m.options[0]+5] = byte(RcodeBadCookie >> 4)
	return m.b[:m.n]
}

// bare takes all records but OPT out of a finished reply.
func (m *message) bare() {
	question := headerSize
	if m.question > 0 {
		question += m.question + 4
	}
	m.n = question + copy(m.b[question:], m.b[m.options[0]:m.options[1]])
	h := m.b[:headerSize]
	clear(h[6:])
	if m.options[1] > 0 {
		binary.BigEndian.PutUint16(h[10:], 1)
	}
	m.options = [2]int{question, m.n}
}
