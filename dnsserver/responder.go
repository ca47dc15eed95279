package dnsserver

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// maxRcode bounds the response codes that are counted one by one; higher ones count as it.
const maxRcode = 23

// ignored is where counters have the messages that are owed no reply, behind the response codes.
const ignored = maxRcode + 1

// counters are one worker's. Only it adds to them, and a worker with many messages at once adds
// but once for all, so that adding costs next to nothing.
type counters struct {
	_        [128]byte // keeps neighbours out of the cache lines, which come in pairs
	messages [ignored + 1]atomic.Uint64
	failures atomic.Uint64 // of the socket
	_        [128]byte
}

// answerer is zone.View as far as a responder needs it.
type answerer interface {
	Answer(s *zone.Scratch, dst, message []byte, client netip.Addr, over zone.Transport) []byte
	Ahead(a *zone.Ahead, messages [][]byte)
}

// responder answers for one worker. It is not for concurrent use.
type responder struct {
	view    answerer
	scratch *zone.Scratch
	before  zone.Ahead
	over    zone.Transport
	counts  *counters
	panics  *panics

	fresh   [ignored + 1]uint32 // what is not yet in counts
	touched uint32              // which of fresh are not 0, a bit each
}

func newResponder(view answerer, over zone.Transport, counts *counters, p *panics) *responder {
	return &responder{view: view, scratch: &zone.Scratch{}, over: over, counts: counts, panics: p}
}

// answer is zone.View.Answer, counted. A panic costs one query: it is answered SERVFAIL.
func (r *responder) answer(dst, message []byte, client netip.Addr) (reply []byte) {
	defer r.count()
	defer func() {
		if cause := recover(); cause != nil {
			reply = r.failed(cause, dst, message, client)
		}
	}()
	return r.answerOne(dst, message, client)
}

// answerOne is answer for callers with many messages: they call count themselves after a number
// of them, and failed for one that panics.
func (r *responder) answerOne(dst, message []byte, client netip.Addr) []byte {
	reply := r.view.Answer(r.scratch, dst, message, client, r.over)
	kind := ignored
	if reply != nil {
		kind = min(int(r.scratch.Rcode()), maxRcode)
	}
	r.fresh[kind]++
	r.touched |= 1 << kind
	return reply
}

// ahead prepares for answering many messages, for each of which answerOne is called then. They
// can be answered without.
func (r *responder) ahead(messages [][]byte) {
	defer func() {
		if cause := recover(); cause != nil {
			r.panics.note(cause, nil, netip.Addr{})
		}
	}()
	r.view.Ahead(&r.before, messages)
}

// failed returns what is replied to the message that caused a panic.
func (r *responder) failed(cause any, dst, message []byte, client netip.Addr) []byte {
	r.panics.note(cause, message, client)
	r.scratch = &zone.Scratch{KeepAlive: r.scratch.KeepAlive}
	return serverFailure(dst, message)
}

// count adds to the counters what was answered since the last time.
func (r *responder) count() {
	for ; r.touched != 0; r.touched &= r.touched - 1 {
		kind := bits.TrailingZeros32(r.touched)
		r.counts.messages[kind].Add(uint64(r.fresh[kind]))
		r.fresh[kind] = 0
	}
}

// serverFailure is a reply without any section: ID, opcode and RD of the query alone.
func serverFailure(dst, message []byte) []byte {
	if len(message) < header || cap(dst) < header {
		return nil
	}
	reply := dst[:header]
	copy(reply, message[:3])
	reply[2] = reply[2]&0x79 | 0x80
	reply[3] = byte(zone.RcodeServFail)
	clear(reply[4:])
	return reply
}

// panics counts what must never happen, and tells of the first.
type panics struct {
	count atomic.Uint64
	once  sync.Once
	log   logr.Logger
}

func (p *panics) note(cause any, message []byte, client netip.Addr) {
	p.count.Add(1)
	p.once.Do(func() {
		p.log.Error(fmt.Errorf("panic: %v", cause), "answering failed; later failures are only counted",
			"client", client, "query", hex.EncodeToString(message), "stack", string(debug.Stack()))
	})
}
