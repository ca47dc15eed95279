// Package limit decides which queries and replies are too many: response rate limiting as BIND
// does it, limits on queries, and fair shares for who asks much. It reads no clock and does no I/O.
package limit

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"net/netip"
	"sync/atomic"
)

// Time is nanoseconds since some moment before, the same for all calls. It never goes back by
// more than workers differ.
type Time = int64

// Rates are what a Limiter lets pass.
type Rates struct {
	// Responses bounds the replies of one class about one subject to one client prefix, and Queries
	// all queries of one client prefix, per second; up to MaxRate, 0 is no limit.
	Responses, Queries int
	// Slip is which of what is too much is Slip instead of Drop: each 1st, 2nd, ... up to MaxSlip;
	// 0: none.
	Slip int
	// IPv4Prefix and IPv6Prefix are lengths of client prefixes; 0 stands for 32 and 128.
	IPv4Prefix, IPv6Prefix int
}

// Bounds of Rates.
const (
	MaxRate = 100000
	MaxSlip = 10
)

// Verdict is what to do with a reply.
type Verdict uint8

const (
	// Pass means that it is not too much.
	Pass Verdict = iota
	// Slip means that the client is told to ask in a way that shows its address.
	Slip
	// Drop means that it gets nothing.
	Drop
)

// Accounts is what clients have used up. It takes a fixed amount of memory, is shared by all
// workers, and takes no lock. When it is full, those who asked least lately are forgotten. Who is
// kept where can't be foreseen by clients.
type Accounts struct {
	seed maphash.Seed
	sets []accountSet // a power of two
}

// accountSet is the places that one account may have. It fills a cache line.
type accountSet [8]atomic.Uint64

// A place is 0, or from the highest bit: which account it is, how many of its replies were dropped
// since the last one that slipped, and until when its credit is used up. An account is charged by
// moving that time on, and has credit again as time passes.
const (
	timeBits = 42
	slipBits = 4
	tagShift = timeBits + slipBits
	timeMask = 1<<timeBits - 1
	slipMask = 1<<slipBits - 1

	// tickBits of a Time are dropped: a tick is about a microsecond.
	tickBits = 10
	second   = 1_000_000_000 >> tickBits // in ticks
	// burst is how much credit there is at most, and window for how long who has asked too much is
	// dropped after that at most, in ticks. Both are BIND's defaults.
	burst  = second
	window = 15 * second
)

// NewAccounts makes room for so many accounts, at 8 octets each.
func NewAccounts(room int) *Accounts {
	sets := 1
	for sets*len(accountSet{}) < room {
		sets *= 2
	}
	return &Accounts{seed: maphash.MakeSeed(), sets: make([]accountSet, sets)}
}

// charge takes cost from an account and reports whether there was credit for it. If there was not,
// slipped is true for each slip-th time.
func (a *Accounts) charge(account uint64, now Time, cost int64, slip int) (credit, slipped bool) {
	tick := now >> tickBits
	tag := account >> tagShift
	if tag == 0 {
		tag = 1 // a place that is 0 is free
	}
	set := &a.sets[account&uint64(len(a.sets)-1)]
	const attempts = 4
	for range attempts {
		at, old := set.find(tag, tick)
		used, slips := int64(0), uint64(0)
		if old>>tagShift == tag {
			slips = old >> timeBits & slipMask
			if used = max(0, ticksAhead(old, tick)); used > burst+window {
				used = 0 // of an account that was not used for weeks
			}
		}
		used += cost
		slipped = false
		if credit = used <= burst; !credit && slip > 0 {
			slips++
			if slipped = slips >= uint64(slip); slipped {
				slips = 0
			}
		}
		used = min(used, burst+window)
		if set[at].CompareAndSwap(old, tag<<tagShift|slips<<timeBits|uint64(tick+used)&timeMask) {
			return credit, slipped
		}
	}
	return true, false // the account is in such use that one more counts for nothing
}

// find returns the place of an account and what is there; if it has none, the place that it is to
// take.
func (set *accountSet) find(tag uint64, tick int64) (at int, word uint64) {
	for i := range set {
		if word := set[i].Load(); word>>tagShift == tag {
			return i, word
		}
	}
	oldest := int64(math.MaxInt64)
	for i := range set {
		there := set[i].Load()
		if there == 0 {
			return i, 0
		}
		if ahead := ticksAhead(there, tick); ahead < oldest {
			at, word, oldest = i, there, ahead
		}
	}
	return at, word
}

// ticksAhead returns how far ahead of now a place's time is; negative behind it.
func ticksAhead(word uint64, now int64) int64 {
	const unused = 64 - timeBits
	return int64(word-uint64(now)) << unused >> unused
}

// Limiter applies Rates to Accounts. It is immutable and for concurrent use.
type Limiter struct {
	accounts        *Accounts
	response, query int64 // costs in ticks
	slip            int
	four, six       int // bits of addresses that do not count
}

// Limiter returns one that uses a, to which others may apply other rates.
func (a *Accounts) Limiter(rates Rates) *Limiter {
	l := &Limiter{accounts: a, slip: rates.Slip, response: cost(rates.Responses), query: cost(rates.Queries)}
	if rates.IPv4Prefix > 0 {
		l.four = 32 - rates.IPv4Prefix
	}
	if rates.IPv6Prefix > 0 {
		l.six = 128 - rates.IPv6Prefix
	}
	return l
}

// cost is what one costs of which so many may pass in a second.
func cost(rate int) int64 {
	if rate == 0 {
		return 0
	}
	return max(1, (second+int64(rate)/2)/int64(rate))
}

// Kinds of accounts; those of replies are by class.
const (
	ofReplies  = 0
	ofQueries  = 1 << 8
	ofRefusals = 1 << 9
)

// Response judges a reply to a client, by its class and a hash of what it is about. It counts
// against the client whatever the verdict, so that who goes on asking too much gets nothing.
func (l *Limiter) Response(now Time, client netip.Addr, class uint8, subject uint64) Verdict {
	return l.judge(now, client, ofReplies|uint64(class), subject, l.response)
}

// Touch reads what Response will, so that the CPU has it in its caches by then; the result says nothing, but must be used.
func (l *Limiter) Touch(client netip.Addr, class uint8, subject uint64) uint64 {
	a := l.accounts
	return a.sets[l.account(client, ofReplies|uint64(class), subject)&uint64(len(a.sets)-1)][0].Load()
}

// Query judges a query from a client.
func (l *Limiter) Query(now Time, client netip.Addr) Verdict {
	return l.judge(now, client, ofQueries, 0, l.query)
}

// Refusal judges a short reply that tells a client to prove its address, instead of what Response
// or Query would not let pass. A client needs few.
func (l *Limiter) Refusal(now Time, client netip.Addr) Verdict {
	return l.judge(now, client, ofRefusals, 0, max(l.response, l.query))
}

func (l *Limiter) judge(now Time, client netip.Addr, kind, subject uint64, cost int64) Verdict {
	if cost == 0 {
		return Pass
	}
	credit, slipped := l.accounts.charge(l.account(client, kind, subject), now, cost, l.slip)
	switch {
	case credit:
		return Pass
	case slipped:
		return Slip
	}
	return Drop
}

// account is a hash of a client's prefix, the kind and the subject.
func (l *Limiter) account(client netip.Addr, kind, subject uint64) uint64 {
	var key [32]byte
	if client.Is4() {
		a := client.As4()
		binary.NativeEndian.PutUint64(key[:], uint64(binary.BigEndian.Uint32(a[:])>>l.four))
		kind |= 4 << 16
	} else {
		a := client.As16()
		hi, lo := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
		if l.six >= 64 {
			hi, lo = hi>>(l.six-64), 0
		} else {
			lo >>= l.six
		}
		binary.NativeEndian.PutUint64(key[:], hi)
		binary.NativeEndian.PutUint64(key[8:], lo)
	}
	binary.NativeEndian.PutUint64(key[16:], kind)
	binary.NativeEndian.PutUint64(key[24:], subject)
	return maphash.Bytes(l.accounts.seed, key[:])
}
