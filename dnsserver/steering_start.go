package dnsserver

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// compiled is steering.Compile, and nil for a record that it fails for: others have no part in that.
func (s *steerer) compiled(r *steering.Record, in *steering.Inputs) (result *steering.Result) {
	defer func() {
		if cause := recover(); cause != nil {
			s.opts.Log.Error(fmt.Errorf("panic: %v", cause), "a record can't be compiled; it is answered as before", "record", r.Source, "stack", string(debug.Stack()))
		}
	}()
	return steering.Compile(r, in)
}

// answerEarly answers, after a restart and before peers were heard, the names that no latch of theirs could matter to, from
// what is on disk. mu is held.
func (s *steerer) answerEarly(now time.Time) {
	if s.machine.Answering() {
		return
	}
	for source := range s.dirty { // it stays so
		src := s.sources[source]
		if src == nil || !src.mayAnswerEarly() {
			continue
		}
		if view, known := s.machine.View(now, source); known && judged(&view) {
			s.compile(now, src)
		}
	}
}

// mayAnswerEarly reports whether the record was answered before the restart, has not been since, and would at worst give
// for a moment an address that others have left: not where moving is for one side or a person to decide.
func (src *steeredSource) mayAnswerEarly() bool {
	r := src.spec
	if r.GetPolicy() == steeringpb.Policy_FAILOVER || r.GetFailoverManual() || r.GetFailbackManual() || r.GetHoldOnPeerLoss() {
		return false
	}
	for _, n := range src.names {
		if n.result != nil || len(n.memory.Classes) == 0 {
			return false
		}
	}
	return true
}

// judged reports whether it is known of every target whether it is up.
func judged(v *health.View) bool {
	for _, p := range v.Pools {
		for _, t := range p.Targets {
			if t.State == health.Unknown {
				return false
			}
		}
	}
	return true
}
