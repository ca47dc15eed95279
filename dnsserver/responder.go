package dnsserver

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// maxRcode bounds the response codes that are counted one by one; higher ones count as it.
const maxRcode = 23

// counters are one worker's. Only it adds to them, so that adding costs next to nothing.
type counters struct {
	_         [64]byte // keeps neighbours out of the cache line
	responses [maxRcode + 1]atomic.Uint64
	ignored   atomic.Uint64 // messages that are owed no reply
	failures  atomic.Uint64 // of the socket
	_         [64]byte
}

// responder answers for one worker. It is not for concurrent use.
type responder struct {
	view    *zone.View
	scratch *zone.Scratch
	over    zone.Transport
	counts  *counters
	panics  *panics
}

func newResponder(view *zone.View, over zone.Transport, counts *counters, p *panics) *responder {
	return &responder{view: view, scratch: &zone.Scratch{}, over: over, counts: counts, panics: p}
}

// answer is zone.View.Answer, counted. A panic costs one query: it is answered SERVFAIL.
func (r *responder) answer(dst, message []byte, client netip.Addr) (reply []byte) {
	defer func() {
		if cause := recover(); cause != nil {
			r.panics.note(cause, message, client)
			r.scratch = &zone.Scratch{}
			reply = serverFailure(dst, message)
		}
	}()
	reply = r.view.Answer(r.scratch, dst, message, client, r.over)
	if reply == nil {
		r.counts.ignored.Add(1)
	} else {
		r.counts.responses[min(r.scratch.Rcode(), maxRcode)].Add(1)
	}
	return reply
}

// serverFailure is a reply without any section: ID, opcode and RD of the query alone.
func serverFailure(dst, message []byte) []byte {
	if len(message) < 12 || cap(dst) < 12 {
		return nil
	}
	reply := dst[:12]
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
