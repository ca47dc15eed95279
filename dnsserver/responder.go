package dnsserver

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/limit"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// maxRcode bounds the response codes that are counted one by one; higher ones count as it.
const maxRcode = 23

// What is counted, behind the response codes.
const (
	ignored = maxRcode + 1 + iota // messages that are owed no reply
	goodCookie
	badCookie
	clientCookie
	quarantined // queries refused because answering them failed before
	shed        // queries of resolvers that asked for more than their share
	limited     // from here on limits times outcomes

	counted = limited + limits*outcomes
)

// Limits that a query or its reply may be over.
const (
	responseLimit = iota
	queryLimit
	limits
)

// What becomes of what is over a limit.
const (
	dropped = iota
	slipped
	cookieRefused
	onlyLogged
	outcomes
)

// counters are one worker's. Only it adds to them, and a worker with many messages at once adds
// but once for all, so that adding costs next to nothing.
type counters struct {
	_        [128]byte // keeps neighbours out of the cache lines, which come in pairs
	messages [counted]atomic.Uint64
	failures atomic.Uint64 // of the socket
	_        [128]byte
}

// answerer is zone.View as far as a responder needs it.
type answerer interface {
	Answer(s *zone.Scratch, dst, message []byte, client netip.Addr, over zone.Transport) []byte
	Ahead(a *zone.Ahead, messages [][]byte)
	AnswerAhead(s *zone.Scratch, a *zone.Ahead, i int, dst, message []byte, client netip.Addr, over zone.Transport) []byte
}

// answering is what all responders of a server share.
type answering struct {
	view       answerer
	settings   atomic.Pointer[live] // never nil
	started    time.Time
	panics     panics
	quarantine zone.Quarantine
	overLimit  overLimit
	taps       []tap // copied by each responder
}

// responder answers for one worker. It is not for concurrent use.
type responder struct {
	*answering
	live    *live // of the present messages
	now     limit.Time
	scratch *zone.Scratch
	before  zone.Ahead
	known   int    // how many messages before has
	next    int    // index of the next message
	read    uint64 // what was read ahead must be used
	over    zone.Transport
	via     transport // of connections
	counts  *counters
	share   limit.Share
	watched *watched // nil if nobody watches

	fresh   [counted]uint32 // what is not yet in counts
	touched uint64          // which of fresh are not 0, a bit each
}

var _ [64 - counted]struct{} // touched has a bit for each

func newResponder(shared *answering, over zone.Transport, counts *counters) *responder {
	r := &responder{answering: shared, over: over, counts: counts, watched: newWatched(shared.taps)}
	r.scratch = &zone.Scratch{Quarantine: &shared.quarantine}
	r.begin(time.Now())
	return r
}

// begin is called before messages are answered, once for all that are there at this time.
func (r *responder) begin(now time.Time) {
	r.known, r.next = 0, 0
	r.live = r.settings.Load()
	r.now = now.Sub(r.started).Nanoseconds()
	r.scratch.Config = &r.live.config
	r.scratch.Now = now.Unix()
}

// answer is zone.View.Answer, counted. A panic costs one query: it is answered SERVFAIL.
func (r *responder) answer(dst, message []byte, client netip.Addr) (reply []byte) {
	r.begin(time.Now())
	defer r.count()
	defer func() {
		if cause := recover(); cause != nil {
			reply = r.failed(cause, dst, message, client)
		}
	}()
	return r.answerOne(dst, message, client)
}

// answerOne is answer for callers with many messages: they call begin before them and count
// behind, and failed for one that panics.
func (r *responder) answerOne(dst, message []byte, client netip.Addr) []byte {
	r.next++
	if r.watched != nil && r.watched.next(message) {
		reply := r.reply(dst, message, client)
		r.watched.show(reply, client, r)
		return reply
	}
	return r.reply(dst, message, client)
}

func (r *responder) reply(dst, message []byte, client netip.Addr) []byte {
	if r.share.Active() && !r.admit(message, client) {
		r.add(shed)
		return nil
	}
	var reply []byte
	if i := r.next - 1; i < r.known {
		reply = r.view.AnswerAhead(r.scratch, &r.before, i, dst, message, client, r.over)
	} else {
		reply = r.view.Answer(r.scratch, dst, message, client, r.over)
	}
	if reply == nil {
		r.add(ignored)
		return nil
	}
	switch r.scratch.Cookie() {
	case zone.NoCookie:
	case zone.GoodCookie:
		r.add(goodCookie)
	case zone.BadCookie:
		r.add(badCookie)
	case zone.ClientCookie:
		r.add(clientCookie)
	}
	if r.scratch.Quarantined() {
		r.add(quarantined)
	}
	if r.live.limits != nil && r.over == zone.UDP {
		if reply = r.limit(reply, client); reply == nil {
			return nil
		}
	}
	r.add(min(int(r.scratch.Rcode()), maxRcode))
	return reply
}

// add counts one more of what is counted.
func (r *responder) add(kind int) {
	r.fresh[kind]++
	r.touched |= 1 << kind
}

// limit returns what is sent to the client instead of the reply that was made last, if limits want
// that; nil for nothing.
func (r *responder) limit(reply []byte, client netip.Addr) []byte {
	l, s := r.live, r.scratch
	if l.exempt.Contains(client) {
		return reply
	}
	over := queryLimit
	verdict := l.limits.Query(r.now, client)
	cookie := s.Cookie()
	if verdict == limit.Pass && cookie != zone.GoodCookie {
		over = responseLimit
		verdict = l.limits.Response(r.now, client, uint8(s.Class()), s.Subject())
	}
	if verdict == limit.Pass {
		return reply
	}
	r.overLimit.note(r.now, over, l, client, reply)
	outcome := dropped
	switch {
	case l.logOnly:
		outcome = onlyLogged
	case (cookie == zone.ClientCookie || cookie == zone.BadCookie) && l.limits.Refusal(r.now, client) == limit.Pass:
		outcome, reply = cookieRefused, s.RefuseCookie()
	case verdict == limit.Slip:
		outcome, reply = slipped, s.Truncate()
	default:
		reply = nil
	}
	r.add(limited + over*outcomes + outcome)
	return reply
}

// overloaded says that more comes than the worker can answer.
func (r *responder) overloaded() {
	if r.live.resolvers != nil {
		r.share.Overloaded(r.now)
	}
}

// admit reports whether a query, of which there are too many, is to be answered.
func (r *responder) admit(message []byte, client netip.Addr) bool {
	if !r.live.resolvers.Contains(client) {
		return true
	}
	return r.share.Admit(r.now, client, zone.HashQuestion(message))
}

// ahead prepares for answering many messages. Behind it, before begin is called again, answerOne is
// called for each of them in order. They can be answered without.
func (r *responder) ahead(messages [][]byte) {
	defer func() {
		if cause := recover(); cause != nil {
			r.panics.note(cause, nil, netip.Addr{})
		}
	}()
	r.before.Now = r.scratch.Now
	r.view.Ahead(&r.before, messages)
	r.known = len(messages)
	if l := r.live.limits; l != nil && r.over == zone.UDP && r.before.Client != nil {
		for i := range messages {
			if about, ok := r.before.Subject(i); ok {
				r.read ^= l.Touch(r.before.Client(i), uint8(zone.ClassAnswer), about)
			}
		}
	}
}

// quarantineFor is for how long a question that could not be answered is refused.
const quarantineFor = 5 * 60 // seconds

// failed returns what is replied to the message that caused a panic. The question is refused for a
// while: what fails once fails again, and may do harm each time.
func (r *responder) failed(cause any, dst, message []byte, client netip.Addr) []byte {
	if r.quarantine.Add(r.scratch.Question(message), r.scratch.Now, r.scratch.Now+quarantineFor) {
		r.panics.note(cause, message, client)
	} else {
		r.panics.count.Add(1)
	}
	r.scratch = &zone.Scratch{
		KeepAlive: r.scratch.KeepAlive, Config: r.scratch.Config, Now: r.scratch.Now,
		TrustSubnet: r.scratch.TrustSubnet, Quarantine: r.scratch.Quarantine,
	}
	reply := serverFailure(dst, message)
	if reply != nil {
		r.add(int(zone.RcodeServFail))
	}
	return reply
}

// count adds to the counters what was answered since the last time.
func (r *responder) count() {
	for ; r.touched != 0; r.touched &= r.touched - 1 {
		kind := bits.TrailingZeros64(r.touched)
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

// panics counts what must never happen, and tells of it, but not more often than every
// panicsApart: there may be very many.
type panics struct {
	count atomic.Uint64
	next  atomic.Int64 // Unix nanoseconds, when the next may be told of
	log   logr.Logger
}

const panicsApart = 10 * time.Second

func (p *panics) note(cause any, message []byte, client netip.Addr) {
	p.count.Add(1)
	now := time.Now().UnixNano()
	if next := p.next.Load(); now < next || !p.next.CompareAndSwap(next, now+int64(panicsApart)) {
		return
	}
	p.log.Error(fmt.Errorf("panic: %v", cause), "answering failed; the question is refused for some minutes",
		"client", client, "query", hex.EncodeToString(message), "stack", string(debug.Stack()))
}

// overLimit tells of clients that are over limits, the first at once and then one of many.
type overLimit struct {
	next atomic.Int64 // when the next may be told of
	log  logr.Logger
}

// overLimitApart is how far apart lines of the log are.
const overLimitApart = limit.Time(time.Minute)

// note takes a reply that is over a limit.
func (o *overLimit) note(now limit.Time, over int, l *live, client netip.Addr, reply []byte) {
	if next := o.next.Load(); now < next || !o.next.CompareAndSwap(next, now+overLimitApart) {
		return
	}
	o.log.Info("a client is over a limit, maybe others are; metrics count them", "client", client.String(),
		"limit", limitNames[over], "asked", zone.QuestionString(reply), "logOnly", l.logOnly)
}

var limitNames = [limits]string{"responses", "queries"}
