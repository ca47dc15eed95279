package zone

import "time"

// NextSerial returns the SOA serial to publish after prev, once content has changed.
// Serials are 32-bit sequence numbers (RFC 1982 §3); the result compares greater than
// prev, also over the wrap, and never below floor, which a prev of 0 ("never published")
// leaves to decide together with the unix time. The result is never 0.
func NextSerial(prev, floor uint32, now time.Time) uint32 {
	next := uint32(now.Unix())
	if prev != 0 && !SerialLess(prev, next) {
		next = prev + 1
	}
	if floor != 0 && SerialLess(next, floor) {
		next = floor
	}
	if next == 0 {
		next = 1
	}
	return next
}

// SerialLess reports a < b in RFC 1982 §3.2 arithmetic; pairs exactly 2^31 apart, which the
// RFC leaves undefined, compare as not less.
func SerialLess(a, b uint32) bool { return a != b && b-a < 1<<31 }
