package zone

import "encoding/binary"

// SmallestTTL returns for how many seconds a reply holds, the smallest TTL of its answer and
// authority sections: a negative answer's SOA has the time that the denial holds (RFC 2308 §5).
// ok is false if they are empty, or the reply is not well formed.
func SmallestTTL(reply []byte) (ttl uint32, ok bool) {
	if len(reply) < headerSize {
		return 0, false
	}
	at := headerSize
	for range binary.BigEndian.Uint16(reply[4:]) {
		if at, ok = skipName(reply, at); !ok || at+4 > len(reply) {
			return 0, false
		}
		at += 4
	}
	records := int(binary.BigEndian.Uint16(reply[6:])) + int(binary.BigEndian.Uint16(reply[8:]))
	ttl = 1<<32 - 1
	for range records {
		if at, ok = skipName(reply, at); !ok || at+10 > len(reply) {
			return 0, false
		}
		ttl = min(ttl, binary.BigEndian.Uint32(reply[at+4:]))
		if at += 10 + int(binary.BigEndian.Uint16(reply[at+8:])); at > len(reply) {
			return 0, false
		}
	}
	return ttl, records > 0
}
