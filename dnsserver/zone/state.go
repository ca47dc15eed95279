package zone

import "encoding/binary"

// OptionState is the code of an EDNS option for resolver agents (from the range for local use, RFC 6891 §9). A query has it
// empty. A reply to such a query has it if the server answers with authority, also if there is no such name or no data: with
// the serial of the zone that the answer is from, and the state of the name, 8 octets. That is 0 unless the name is steered: then
// it is Answers.State, of the first steered name that an alias led to.
const OptionState = 65310

// stateSize is the length of what is in the option: 4 octets of the serial and 8 of the state.
const stateSize = 12

// ParseState reads what is in an OptionState of a reply; false if it is not of the right length.
func ParseState(data []byte) (serial uint32, state uint64, ok bool) {
	if len(data) != stateSize {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(data), binary.BigEndian.Uint64(data[4:]), true
}

// State returns the state that a name of a zone is in, whatever leads to it: 0 unless it is steered and has answers.
func (v *View) State(apex, owner Name) uint64 {
	if slot := v.steered(apex, owner); slot != nil {
		if st := slot.answers.Load(); st != nil {
			return st.State()
		}
	}
	return 0
}
