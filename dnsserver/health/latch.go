package health

import "cmp"

// Latch says that a pool of a record was left, or returned to.
//
// All servers keep the latches of all records, and merge what they hear: of one Key the later entry stands. So they all
// have the same set as soon as they are connected, whatever happened before. What a server does follows from the set
// and its own datacenter: see Latches in the documentation of Machine.
type Latch struct {
	LatchKey
	Out    bool   // left; else in use again
	At     int64  // Unix milliseconds; always later than what the deciding server knew of the Key before
	By     string // the server that decided
	Person bool   // a person decided, by an override
}

// LatchKey is what an entry is about.
type LatchKey struct {
	Record string // source
	Pool   string // name
	// Scope is the datacenter that decided for itself alone, or empty: for all. A datacenter follows the later of its
	// own entry and the one for all.
	Scope string
}

// After reports whether l stands over o, of the same Key.
func (l Latch) After(o Latch) bool {
	switch {
	case l.At != o.At:
		return l.At > o.At
	case l.Out != o.Out:
		return l.Out
	default:
		return cmp.Compare(l.By, o.By) > 0
	}
}
