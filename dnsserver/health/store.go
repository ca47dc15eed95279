package health

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// Stored is an entry on disk.
type Stored struct {
	Key   []byte
	Value []byte // nil: to be deleted
}

// What is stored, by the first octet of the key. Values begin with a version.
const (
	keyAlive = 'a' // when the server last wrote this: int64, Unix milliseconds
	keyCheck = 'c' // and the CheckID: what this server made of it
	keyLatch = 'l' // and record, pool and scope, each with a length: the rest of a Latch

	storeVersion = 1
)

// The age of what is stored is known to within so long.
const aliveEvery = 15 * time.Second

var errStored = errors.New("not an entry of this version")

// storedCheck is what is known of a check beyond a restart.
type storedCheck struct {
	vote     State
	silent   bool
	since    int64
	falls    [flapFalls]int64 // 0: none
	local    statement
	verdicts []Verdict
}

// Unsaved returns what changed since the call before, for the disk; nil if nothing did. Call it every second or so, and
// before the server ends.
func (m *Machine) Unsaved(now time.Time) []Stored {
	m.enter(now)
	if m.stored != nil && now.Sub(m.born) >= remembered { // nobody asked for these
		for id := range m.stored {
			m.unsaved[id] = true
		}
		m.stored = nil
	}
	m.forgetLatches(now)
	var all []Stored
	for id := range m.unsaved {
		s := Stored{Key: append([]byte{keyCheck}, id[:]...)}
		if c := m.parts[id[0]][id]; c != nil && len(c.subjects) > 0 {
			s.Value = encodeCheck(c)
		}
		all = append(all, s)
	}
	for key := range m.unsavedLatch {
		s := Stored{Key: latchKey(key)}
		if l, ok := m.latches[key]; ok {
			s.Value = encodeLatch(l)
		}
		all = append(all, s)
	}
	clear(m.unsaved)
	clear(m.unsavedLatch)
	if !now.Before(m.nextAlive) || len(all) > 0 {
		m.nextAlive = now.Add(aliveEvery)
		all = append(all, Stored{[]byte{keyAlive}, binary.BigEndian.AppendUint64([]byte{storeVersion}, uint64(now.UnixMilli()))})
	}
	slices.SortFunc(all, func(a, b Stored) int { return slices.Compare(a.Key, b.Key) })
	return all
}

// Kept returns all that another Machine of this server would be told as stored to go on from here: also what Unsaved has
// returned before. It changes nothing.
func (m *Machine) Kept(now time.Time) []Stored {
	all := []Stored{{[]byte{keyAlive}, binary.BigEndian.AppendUint64([]byte{storeVersion}, uint64(now.UnixMilli()))}}
	for key, l := range m.latches {
		all = append(all, Stored{latchKey(key), encodeLatch(l)})
	}
	for c := range m.checks() {
		if len(c.subjects) > 0 {
			all = append(all, Stored{append([]byte{keyCheck}, c.id[:]...), encodeCheck(c)})
		}
	}
	return all
}

// forgetLatches drops entries that can't matter any more.
func (m *Machine) forgetLatches(now time.Time) {
	if now.Before(m.nextForget) {
		return
	}
	m.nextForget = now.Add(time.Hour)
	limit := now.Add(-rememberLatch).UnixMilli()
	for key, l := range m.latches {
		if l.At < limit && (!l.Out || m.records[l.Record] == nil) {
			m.latchDigest -= l.digest()
			delete(m.latches, key)
			m.unsavedLatch[key] = true
		}
	}
}

// restore takes what was stored by the process before.
func (m *Machine) restore(now time.Time, stored []Stored) {
	var alive int64
	checks := map[CheckID]storedCheck{}
	for _, s := range stored {
		if len(s.Key) == 0 || len(s.Value) == 0 || s.Value[0] != storeVersion {
			continue
		}
		r := &reader{rest: s.Value[1:]}
		switch s.Key[0] {
		case keyAlive:
			if t := r.fixed(); r.err == nil {
				alive = int64(t)
			}
		case keyCheck:
			if c := decodeCheck(r); r.err == nil && len(s.Key) == 1+len(CheckID{}) {
				checks[CheckID(s.Key[1:])] = c
			}
		case keyLatch:
			k := &reader{rest: s.Key[1:]}
			l := Latch{LatchKey: LatchKey{Record: k.text(), Pool: k.text(), Scope: k.text()}}
			l.Out, l.Person, l.At, l.By = r.octet() == 1, r.octet() == 1, int64(r.fixed()), r.text()
			if k.err == nil && r.err == nil {
				m.putLatch(l)
				delete(m.unsavedLatch, l.LatchKey)
			}
		}
	}
	m.latched = time.Time{}
	age := now.Sub(time.UnixMilli(alive))
	if age >= remembered || age < -remembered {
		for id := range checks {
			m.unsaved[id] = true
		}
		return
	}
	m.stored = checks
}

// claim gives a subject, and the first time its check, what was stored of it.
func (m *Machine) claim(s *subject) {
	c := s.check
	old, ok := m.stored[c.id]
	if !ok {
		return
	}
	if c.local.state == Unknown {
		c.local = old.local
	}
	if state, _ := c.tracker.State(); state == Unknown && old.vote != Unknown {
		c.tracker.state, c.tracker.silent, c.tracker.since = old.vote, old.silent, time.UnixMilli(old.since)
		for i, at := range old.falls {
			if at != 0 {
				c.tracker.falls[i] = time.UnixMilli(at)
			}
		}
	}
	for _, v := range old.verdicts {
		if v.Home == s.home && v.Hold == s.hold {
			s.state, s.since = v.State, v.Since
		}
	}
}

func latchKey(k LatchKey) []byte {
	return appendText(appendText(appendText([]byte{keyLatch}, k.Record), k.Pool), k.Scope)
}

func encodeLatch(l Latch) []byte {
	b := []byte{storeVersion, byte(number(l.Out)), byte(number(l.Person))}
	return appendText(binary.BigEndian.AppendUint64(b, uint64(l.At)), l.By)
}

func encodeCheck(c *check) []byte {
	state, since := c.tracker.State()
	b := []byte{storeVersion, byte(state), byte(number(c.tracker.silent))}
	b = appendTime(b, since)
	for _, f := range c.tracker.falls {
		b = appendTime(b, f)
	}
	b = append(b, byte(c.local.state))
	b = binary.BigEndian.AppendUint64(b, uint64(c.local.since))
	b = binary.AppendUvarint(b, uint64(len(c.subjects)))
	for _, s := range c.subjects {
		b = appendText(b, s.home)
		b = append(b, byte(number(s.hold)), byte(s.state))
		b = binary.BigEndian.AppendUint64(b, uint64(s.since))
	}
	return b
}

func decodeCheck(r *reader) storedCheck {
	c := storedCheck{vote: r.state(), silent: r.octet() == 1, since: int64(r.fixed())}
	for i := range c.falls {
		c.falls[i] = int64(r.fixed())
	}
	c.local = statement{r.state(), int64(r.fixed())}
	n := r.number()
	for range min(n, uint64(len(r.rest))) {
		c.verdicts = append(c.verdicts, Verdict{Home: r.text(), Hold: r.octet() == 1, State: r.state(), Since: int64(r.fixed())})
	}
	return c
}

// appendTime appends Unix milliseconds; 0 for the zero time.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads an entry. After an error everything is zero.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(n uint64) []byte {
	if r.err != nil || n > uint64(len(r.rest)) {
		r.err, r.rest = errStored, nil
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) octet() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) state() State {
	s := State(r.octet())
	if s > Down {
		r.err = errStored
		return Unknown
	}
	return s
}

func (r *reader) fixed() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.err, r.rest = errStored, nil
		return 0
	}
	r.take(uint64(size))
	return n
}

func (r *reader) text() string { return string(r.take(r.number())) }
