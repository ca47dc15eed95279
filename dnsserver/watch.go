package dnsserver

import (
	"math/rand/v2"
	"net/netip"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// seen is a query and what became of it. Its octets are valid only until watch returns.
type seen struct {
	query  []byte
	reply  []byte         // nil: nothing was sent
	client netip.AddrPort // port 0 if it is not known
	over   zone.Transport
	via    transport // of connections
	at     int64     // Unix seconds
}

// watcher is shown some of what is asked. It is for concurrent use, and never waits.
type watcher interface{ watch(x *seen) }

// tap shows a watcher every n-th query.
type tap struct {
	every uint32
	to    watcher
}

// watched is what shows queries of one responder to watchers.
type watched struct {
	taps []tap
	left []uint32 // queries of each tap before the next that it is shown
	due  uint64   // taps that are shown the present query, a bit each
	port uint16   // of the present client; 0: not known
	seen seen     // its query is a copy: replies are written over queries
}

// newWatched returns nil if nobody watches.
func newWatched(taps []tap) *watched {
	if len(taps) == 0 {
		return nil
	}
	w := &watched{taps: taps}
	for _, t := range taps {
		w.left = append(w.left, rand.Uint32N(t.every)) // not all workers show the same ones
	}
	return w
}

// next goes on with the next query, and reports whether it is shown to anybody: then show is called
// when it is answered.
func (w *watched) next(query []byte) bool {
	w.due = 0
	for i := range w.left {
		if w.left[i] > 0 {
			w.left[i]--
			continue
		}
		w.left[i] = w.taps[i].every - 1
		w.due |= 1 << i
	}
	if w.due == 0 {
		return false
	}
	w.seen.query = append(w.seen.query[:0], query...)
	return true
}

// show shows the present query with its reply.
func (w *watched) show(reply []byte, client netip.Addr, r *responder) {
	w.seen.reply, w.seen.client = reply, netip.AddrPortFrom(client, w.port)
	w.seen.over, w.seen.via, w.seen.at = r.over, r.via, r.scratch.Now
	for i := range w.taps {
		if w.due&(1<<i) != 0 {
			w.taps[i].to.watch(&w.seen)
		}
	}
	w.seen.reply = nil
}
