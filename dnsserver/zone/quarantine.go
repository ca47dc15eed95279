package zone

import (
	"hash/maphash"
	"sync/atomic"
)

// Quarantine remembers questions that are refused for a while because answering them failed, up to
// QuarantineSize; for one more the oldest is forgotten. The zero Quarantine is empty. It is for
// concurrent use and takes no lock; nil is empty too.
type Quarantine struct {
	until atomic.Int64 // when the last one ends: after it nobody looks further
	next  atomic.Uint32
	kept  [QuarantineSize]struct {
		question atomic.Uint64
		until    atomic.Int64
	}
}

// QuarantineSize bounds a Quarantine.
const QuarantineSize = 64

// Add has a question refused until a time in Unix seconds. It reports whether it was not before.
func (k *Quarantine) Add(question uint64, now, until int64) (fresh bool) {
	if k.Holds(question, now) {
		return false
	}
	place := &k.kept[k.next.Add(1)%QuarantineSize]
	place.until.Store(0)
	place.question.Store(question)
	place.until.Store(until)
	for {
		last := k.until.Load()
		if last >= until || k.until.CompareAndSwap(last, until) {
			return true
		}
	}
}

// any reports whether there may be a question that is refused. It costs next to nothing.
func (k *Quarantine) any(now int64) bool { return k != nil && now < k.until.Load() }

// Holds reports whether a question is refused.
func (k *Quarantine) Holds(question uint64, now int64) bool {
	if !k.any(now) {
		return false
	}
	for i := range k.kept {
		if p := &k.kept[i]; p.question.Load() == question && now < p.until.Load() {
			return true
		}
	}
	return false
}

// Len counts the questions that are refused.
func (k *Quarantine) Len(now int64) (n int) {
	if !k.any(now) {
		return 0
	}
	for i := range k.kept {
		if now < k.kept[i].until.Load() {
			n++
		}
	}
	return n
}

// Question returns what identifies the question that the last call of Answer was about, also if
// that call has panicked: name without case, type, class and what it says about EDNS, which all
// may have to do with how the answer is made. If the message, with its ID taken out, was not even
// parsed, or has no question, it is that.
func (s *Scratch) Question(message []byte) uint64 {
	if !s.parsed || !s.query.hasQuestion {
		return wholeMessage(message)
	}
	return s.query.fingerprint()
}

func (q *query) fingerprint() uint64 {
	edns := uint64(0)
	if q.edns {
		edns = 1
		if q.do {
			edns = 2
		}
		if q.options[0] < q.options[1] {
			edns += 2
		}
	}
	return q.hash ^ (edns<<32|uint64(q.qtype)<<16|uint64(q.qclass))*0x9e3779b97f4a7c15
}

func wholeMessage(message []byte) uint64 {
	if len(message) < 2 {
		return 0
	}
	return maphash.Bytes(indexSeed, message[2:])
}
