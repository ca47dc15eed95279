package zone

import "unsafe"

// This file, and no other of the package, is unsafe: RRsets of records and of nodes are one type
// by it, and answering copies none.

// fixedString is b as a string without a copy. Nobody may write to b any more. As a slice does, it
// keeps the memory that it is part of.
func fixedString(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // chunks are written once, before others see them
}
