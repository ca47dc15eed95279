package zone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"sync/atomic"
)

// Answers is what a steered name answers to whom, as a Steered is made of it.
//
// A client's location in each of By gives a cell, a cell a choice, a choice one of its outcomes,
// and the outcome has the RRsets.
type Answers struct {
	// Seed keys what is picked by hash. It depends on the name and on a key that servers share,
	// and on nothing that changes: then all of them pick the same, for all types.
	Seed uint64
	// TTL is the answers', in seconds: the SOA of NODATA has no more (RFC 2308 §5).
	TTL uint32
	// Slot is how long a client's weighted pick and turn stay, in seconds, at least 1. It is best
	// the TTL as it was declared, which does not change with health.
	Slot uint32
	// Types are those that the name answers from here, also with NODATA; all others come from
	// the RRsets beside it. With CNAME it answers all types from here.
	Types []uint16
	// By is what the answer depends on of the client's address; nil for a name whose answer is
	// the same everywhere. Prefixed tells that it depends on the prefix of PickHash too. ECS
	// scopes come from these two: health never changes them.
	By       *Dimensions
	Prefixed bool
	// Cells has an index into Choices for each combination of classes, those of the last
	// dimension next to each other. Without dimensions there is one.
	Cells    []int
	Choices  []Choice
	Outcomes []Outcome
	// State is told to those who ask for it by OptionState; not 0 in what servers answer.
	State uint64
}

// Dimension divides clients into classes by where they are.
type Dimension struct {
	Where *Locator
	// Classes has the class of each location; nil: each location is a class.
	Classes []uint16
	Count   int // of classes
}

// Dimensions are up to three. They are immutable, and best shared by all names that have the same: what
// all read stays in the caches of the CPU.
type Dimensions struct {
	all   []Dimension
	cells int
}

const (
	maxDimensions = 3
	// maxCells bounds the memory of one name.
	maxCells = 1 << 20
)

// NewDimensions puts dimensions together. What does not fit is an error.
func NewDimensions(all ...Dimension) (*Dimensions, error) {
	if len(all) == 0 || len(all) > maxDimensions {
		return nil, fmt.Errorf("%d dimensions, wanted 1 to %d", len(all), maxDimensions)
	}
	by := &Dimensions{all: slices.Clone(all), cells: 1}
	for i, d := range all {
		if d.Where == nil || d.Count < 1 || d.Classes == nil && d.Count != d.Where.Locations() ||
			d.Classes != nil && len(d.Classes) != d.Where.Locations() {
			return nil, fmt.Errorf("dimension %d does not fit its locations", i)
		}
		for _, c := range d.Classes {
			if int(c) >= d.Count {
				return nil, fmt.Errorf("dimension %d has class %d of %d", i, c, d.Count)
			}
		}
		if by.cells *= d.Count; by.cells > maxCells {
			return nil, fmt.Errorf("more than %d combinations of classes", maxCells)
		}
	}
	return by, nil
}

// cell returns which combination of classes a client is in.
func (by *Dimensions) cell(client netip.Addr) (cell uint32) {
	for i := range by.all {
		d := &by.all[i]
		class := d.Where.Locate(client)
		if d.Classes != nil {
			class = d.Classes[class]
		}
		cell = cell*uint32(d.Count) + uint32(class)
	}
	return cell
}

// Pick is how one of several is picked.
type Pick uint8

const (
	// PickFirst is the first. Of the records of an RRset, those from the first on.
	PickFirst Pick = iota
	// PickTurn gives each client all of them in turn, one for a time slot of Slot seconds.
	PickTurn
	// PickWeighted gives each client one by weight, drawn anew for each time slot of Slot seconds.
	PickWeighted
	// PickHash gives each client prefix, /24 or /56, always the same: rendezvous hashing. If one
	// is missing, those move whose pick it was, and no others.
	PickHash
	// PickRotate begins with another record for each query. It is for RRsets.
	PickRotate
)

// Choice is one of some outcomes.
type Choice struct {
	Pick Pick
	Of   []Alternative // at least one
}

// Alternative is an outcome that may be picked.
type Alternative struct {
	Outcome int    // index into Answers.Outcomes
	Weight  uint32 // for PickWeighted; not all 0
	ID      uint64 // for PickHash: of what it stands for
}

// Outcome is what is answered for all types that the name answers.
type Outcome struct {
	Rcode uint16 // RcodeSuccess, RcodeServFail, or RcodeRefused: that is for the types beside too
	EDE   uint16 // INFO-CODE of RFC 8914 below 256; 0: none
	Sets  []Set  // one for each type; NODATA for others. CNAME alone
}

// Set is an RRset of which some records are answered.
type Set struct {
	Type uint16
	TTL  uint32
	// RData has the records in the order to answer, in uncompressed wire form.
	RData [][]byte
	// Pick is what the answer begins with. The others follow in order, the first after the last.
	Pick    Pick
	Max     int      // records in an answer; 0: all. Of CNAME one
	Weights []uint32 // of each record, for PickWeighted; not all 0
	IDs     []uint64 // of each record, for PickHash
}

// Steered is what a steered name answers by now. It is immutable, but for noting when what was
// answered last.
//
// All that is decided for a query is in one string, and what a query reads of it is close together: a
// query waits for memory about as often as one for a static name.
type Steered struct {
	data     string
	by       *Dimensions // nil: one cell
	seed     uint64
	slot     uint32
	ttl      uint32
	types    typeSet
	prefixed bool
	own      bool     // cells are in few, else in data
	few      [24]cell // so that most names are two cache lines and what is answered
	// handed has for each outcome when it was answered last, in Unix seconds; the last element
	// is for all outcomes that have none of their own.
	handed [8]atomic.Uint32
}

// cell is a place in Steered.data, in units, of what clients of one combination of classes get: an
// outcome, or a choice among several.
type cell = uint16

// typeSet is the types that a steered name may answer.
type typeSet uint8

const (
	ownAll typeSet = 1 << iota
	ownAddresses
	ownHTTPS
	ownSRV
)

func (t typeSet) has(qtype uint16) bool {
	switch qtype {
	case TypeA, TypeAAAA:
		return t&(ownAddresses|ownAll) != 0
	case TypeHTTPS:
		return t&(ownHTTPS|ownAll) != 0
	case TypeSRV:
		return t&(ownSRV|ownAll) != 0
	}
	return t&ownAll != 0
}

func typesOf(types []uint16) (t typeSet, err error) {
	for _, typ := range types {
		switch typ {
		case TypeA, TypeAAAA:
			t |= ownAddresses
		case TypeHTTPS:
			t |= ownHTTPS
		case TypeSRV:
			t |= ownSRV
		case TypeCNAME:
			t |= ownAll
		default:
			return 0, fmt.Errorf("a name is not steered for type %s", TypeString(typ))
		}
	}
	if t == 0 {
		return 0, errors.New("a steered name answers at least one type")
	}
	return t, nil
}

// Layout of Steered.data; numbers are little-endian. Choices and outcomes begin at multiples of unit.
//
//	cells     2 octets each, if there are many
//	choice    pick 1, count 1, 0, 0, then alternatives: outcome in units 4, weight summed up 4, ID 8
//	outcome   pickNone 1, count of sets 1, RCODE 1, INFO-CODE 1, index into handed 1, 0 3, then sets
//	set       type 2, size with all this 2, pick 1, count 1, most 1, size of each record or 0 1; unless
//	          records have one size, their ends 2 each from the first record on, and one before;
//	          then, for PickWeighted, weights summed up 4 each, for PickHash IDs 8 each; then
//	          the records in wire form, the owner a pointer to the question
//	state     8, at the end
const (
	unit            = 8
	choiceHead      = 4
	alternativeSize = 16
	outcomeHead     = 8
	setHead         = 8
	recordHead      = 12 // owner, type, class, TTL, length

	pickNone = 0xff // of what is no choice
)

// NewSteered makes ready answers. What does not fit together is an error.
func NewSteered(a *Answers) (*Steered, error) {
	types, err := typesOf(a.Types)
	if err != nil {
		return nil, err
	}
	if a.TTL > MaxTTL || a.Slot == 0 || a.Slot > MaxTTL {
		return nil, fmt.Errorf("TTL %d or time slot %d is not up to %d", a.TTL, a.Slot, MaxTTL)
	}
	st := &Steered{seed: a.Seed, ttl: a.TTL, slot: a.Slot, types: types, by: a.By, prefixed: a.Prefixed}
	cells := 1
	if a.By != nil {
		cells = a.By.cells
	}
	if len(a.Cells) != cells {
		return nil, fmt.Errorf("%d cells for %d combinations of locations", len(a.Cells), cells)
	}
	st.own = cells <= len(st.few)
	e := &encoder{b: make([]byte, 0, 2*cells+128*len(a.Outcomes)+64*len(a.Choices))}
	if !st.own {
		e.b = e.b[:2*cells]
	}
	outcomes := make([]uint32, len(a.Outcomes))
	for i := range a.Outcomes {
		if outcomes[i], err = e.outcome(&a.Outcomes[i], min(i, len(st.handed)-1)); err != nil {
			return nil, err
		}
	}
	choices := make([]uint32, len(a.Choices))
	for i := range a.Choices {
		if choices[i], err = e.choice(&a.Choices[i], outcomes); err != nil {
			return nil, err
		}
	}
	if len(e.b) > unit<<16 {
		return nil, fmt.Errorf("answers take %d octets", len(e.b))
	}
	for i, c := range a.Cells {
		if c < 0 || c >= len(choices) {
			return nil, fmt.Errorf("cell %d has choice %d of %d", i, c, len(choices))
		}
		if st.own {
			st.few[i] = cell(choices[c])
		} else {
			binary.LittleEndian.PutUint16(e.b[2*i:], cell(choices[c]))
		}
	}
	st.data = string(binary.LittleEndian.AppendUint64(e.b, a.State))
	return st, nil
}

type encoder struct{ b []byte }

// place begins a choice or an outcome and returns where, in units.
func (e *encoder) place() uint32 {
	for len(e.b)%unit != 0 {
		e.b = append(e.b, 0)
	}
	return uint32(len(e.b) / unit)
}

func (e *encoder) choice(c *Choice, outcomes []uint32) (place uint32, err error) {
	if len(c.Of) == 0 || len(c.Of) > 255 || c.Pick > PickHash {
		return 0, fmt.Errorf("pick %d of %d outcomes", c.Pick, len(c.Of))
	}
	sum := uint64(0)
	for _, a := range c.Of {
		if a.Outcome < 0 || a.Outcome >= len(outcomes) {
			return 0, fmt.Errorf("outcome %d of %d", a.Outcome, len(outcomes))
		}
		sum += uint64(a.Weight)
	}
	if c.Pick == PickFirst || len(c.Of) == 1 {
		return outcomes[c.Of[0].Outcome], checkWeights(c.Pick, sum)
	}
	place = e.place()
	e.b = append(e.b, byte(c.Pick), byte(len(c.Of)), 0, 0)
	sum = 0
	for _, a := range c.Of {
		sum += uint64(a.Weight)
		e.b = binary.LittleEndian.AppendUint32(e.b, outcomes[a.Outcome])
		e.b = binary.LittleEndian.AppendUint32(e.b, uint32(sum))
		e.b = binary.LittleEndian.AppendUint64(e.b, a.ID)
	}
	return place, checkWeights(c.Pick, sum)
}

func checkWeights(p Pick, sum uint64) error {
	if p == PickWeighted && (sum == 0 || sum>>32 != 0) {
		return fmt.Errorf("weights have the sum %d", sum)
	}
	return nil
}

func (e *encoder) outcome(o *Outcome, handed int) (place uint32, err error) {
	if len(o.Sets) > 255 || o.Rcode > 255 || o.EDE > 255 {
		return 0, fmt.Errorf("%d RRsets, RCODE %d, INFO-CODE %d", len(o.Sets), o.Rcode, o.EDE)
	}
	place = e.place()
	e.b = append(e.b, pickNone, byte(len(o.Sets)), byte(o.Rcode), byte(o.EDE), byte(handed), 0, 0, 0)
	for i := range o.Sets {
		if o.Sets[i].Type == TypeCNAME && len(o.Sets) > 1 {
			return 0, errors.New("CNAME stands beside other data (RFC 1034 §3.6.2)")
		}
		if err := e.set(&o.Sets[i]); err != nil {
			return 0, err
		}
	}
	return place, nil
}

func (e *encoder) set(s *Set) error {
	count := len(s.RData)
	most := s.Max
	switch {
	case s.Type == TypeCNAME:
		most = 1
	case most <= 0 || most > count:
		most = count
	}
	if count == 0 || count > 255 || s.TTL > MaxTTL ||
		s.Pick == PickWeighted && len(s.Weights) != count || s.Pick == PickHash && len(s.IDs) != count || s.Pick > PickRotate {
		return fmt.Errorf("RRset of type %s: %d records, TTL %d, pick %d of %d weights, %d identities",
			TypeString(s.Type), count, s.TTL, s.Pick, len(s.Weights), len(s.IDs))
	}
	start := len(e.b)
	e.b = binary.LittleEndian.AppendUint16(e.b, s.Type)
	e.b = append(e.b, 0, 0, byte(s.Pick), byte(count), byte(most), 0)
	each := recordHead + len(s.RData[0])
	if slices.ContainsFunc(s.RData, func(r []byte) bool { return recordHead+len(r) != each }) || each > 255 {
		end := 0
		e.b = binary.LittleEndian.AppendUint16(e.b, 0)
		for _, r := range s.RData {
			end += recordHead + len(r)
			e.b = binary.LittleEndian.AppendUint16(e.b, uint16(end))
		}
	} else {
		e.b[start+7] = byte(each)
	}
	switch s.Pick {
	case PickWeighted:
		sum := uint64(0)
		for _, w := range s.Weights {
			sum += uint64(w)
			e.b = binary.LittleEndian.AppendUint32(e.b, uint32(sum))
		}
		if err := checkWeights(s.Pick, sum); err != nil {
			return err
		}
	case PickHash:
		for _, id := range s.IDs {
			e.b = binary.LittleEndian.AppendUint64(e.b, id)
		}
	}
	for _, r := range s.RData {
		e.b = binary.BigEndian.AppendUint16(e.b, 0xc000|headerSize)
		e.b = binary.BigEndian.AppendUint16(e.b, s.Type)
		e.b = binary.BigEndian.AppendUint16(e.b, classIN)
		e.b = binary.BigEndian.AppendUint32(e.b, s.TTL)
		e.b = binary.BigEndian.AppendUint16(e.b, uint16(len(r)))
		e.b = append(e.b, r...)
	}
	size := len(e.b) - start
	if size > 1<<16-1 {
		return fmt.Errorf("RRset of type %s is longer than a message", TypeString(s.Type))
	}
	binary.LittleEndian.PutUint16(e.b[start+2:], uint16(size))
	return nil
}

// Numbers in data.

func le16(s string, at uint32) uint16 { return uint16(s[at]) | uint16(s[at+1])<<8 }

func le32(s string, at uint32) uint32 {
	return uint32(s[at]) | uint32(s[at+1])<<8 | uint32(s[at+2])<<16 | uint32(s[at+3])<<24
}

func le64(s string, at uint32) uint64 { return uint64(le32(s, at)) | uint64(le32(s, at+4))<<32 }

// asker is who an answer is picked for.
type asker struct {
	client netip.Addr
	now    int64 // Unix seconds
	// hash is of the name and the client's prefix, turn the present time slot.
	hash, turn uint64
	ready      bool // hash and turn are valid
}

// Prefixes of clients that pick alike.
const (
	hashedBits4 = 24
	hashedBits6 = 56
)

// prepare makes the hash, once.
func (k *asker) prepare(st *Steered) {
	if k.ready {
		return
	}
	k.ready = true
	var prefix uint64
	if a := k.client; a.Is4() || a.Is4In6() {
		prefix = 1<<32 | uint64(fourOf(a)>>(32-hashedBits4))
	} else {
		prefix = 1<<63 | sixOf(a).hi>>(64-hashedBits6)
	}
	k.hash = mix(st.seed, prefix)
	// Names end their slots at different times.
	k.turn = (uint64(k.now) + st.seed%uint64(st.slot)) / uint64(st.slot)
}

// mix is a hash of two numbers that every server computes alike.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	x := hi ^ lo
	x ^= x >> 32
	x *= 0xff51afd7ed558ccd
	return x ^ x>>29
}

// at returns where the outcome or choice for a client is in data.
func (st *Steered) at(client netip.Addr) uint32 {
	if st.by == nil {
		return uint32(st.few[0]) * unit
	}
	c := st.by.cell(client)
	if st.own {
		return uint32(st.few[c]) * unit
	}
	return uint32(le16(st.data, 2*c)) * unit
}

// outcome returns where the outcome for a client is in data that at leads to.
func (st *Steered) outcome(at uint32, k *asker) uint32 {
	if st.data[at] == pickNone {
		return at
	}
	return st.pick(at, k)
}

// pick returns where the outcome is that the choice at the place gives a client.
func (st *Steered) pick(choice uint32, k *asker) uint32 {
	d := st.data
	k.prepare(st)
	at, count := choice+choiceHead, uint32(d[choice+1])
	chosen := uint32(0)
	switch Pick(d[choice]) {
	case PickTurn:
		chosen = uint32((k.hash + k.turn) % uint64(count))
	case PickWeighted:
		chosen = weighted(d, at+4, alternativeSize, count, mix(k.hash, k.turn))
	case PickHash:
		chosen = rendezvous(d, at+8, alternativeSize, count, k.hash)
	}
	return le32(d, at+chosen*alternativeSize) * unit
}

// weighted picks by hash from weights summed up, which stand at a distance.
func weighted(d string, at, distance, count uint32, hash uint64) uint32 {
	total := le32(d, at+(count-1)*distance)
	drawn, _ := bits.Mul64(hash, uint64(total))
	for i := range count {
		if drawn < uint64(le32(d, at+i*distance)) {
			return i
		}
	}
	return count - 1
}

// rendezvous picks the one of the IDs, which stand at a distance, that goes best with the hash.
func rendezvous(d string, at, distance, count uint32, hash uint64) uint32 {
	best, highest := uint32(0), uint64(0)
	for i := range count {
		if score := mix(hash, le64(d, at+i*distance)); score >= highest {
			best, highest = i, score
		}
	}
	return best
}

// readySet is one RRset out of data.
type readySet struct {
	typ   uint16
	pick  Pick
	count uint32 // of records
	first uint32 // to be answered, and
	most  uint32 // so many
	each  uint32 // octets of a record; 0: see ends
	ends  uint32 // place of the ends of records
	by    uint32 // place of weights or IDs
	wire  string // from the first record on
}

// set returns the RRset for a type out of an outcome. A CNAME is for every type.
func (st *Steered) set(outcome uint32, qtype uint16) (set readySet, ok bool) {
	d := st.data
	at := outcome + outcomeHead
	for count := d[outcome+1]; count > 0; count-- {
		typ, size := le16(d, at), uint32(le16(d, at+2))
		if typ != qtype && typ != TypeCNAME && qtype != TypeANY {
			at += size
			continue
		}
		set.typ, set.pick = typ, Pick(d[at+4])
		set.count, set.most, set.each = uint32(d[at+5]), uint32(d[at+6]), uint32(d[at+7])
		set.ends = at + setHead
		set.by = set.ends
		if set.each == 0 {
			set.by += 2 * (set.count + 1)
		}
		wire := set.by
		switch set.pick {
		case PickWeighted:
			wire += 4 * set.count
		case PickHash:
			wire += 8 * set.count
		}
		set.wire = d[wire : at+size]
		return set, true
	}
	return set, false
}

// ttl is that of the records.
func (set *readySet) ttl() uint32 {
	w := set.wire
	return uint32(w[6])<<24 | uint32(w[7])<<16 | uint32(w[8])<<8 | uint32(w[9])
}

// rotations counts answers whose records are rotated, apart for names and types: who always asks for A and then
// for AAAA would get every other record of two.
type rotations [64]uint8

// begin picks the record that the answer begins with.
func (st *Steered) begin(set *readySet, k *asker, r *rotations) {
	switch {
	case set.count == 1:
	case set.pick == PickRotate:
		n := &r[(uint32(st.seed)+uint32(set.typ))%uint32(len(r))]
		set.first = uint32(*n) % set.count
		if *n++; uint32(*n) >= set.count {
			*n = 0
		}
	case set.pick != PickFirst:
		k.prepare(st)
		switch set.pick {
		case PickTurn:
			set.first = uint32((k.hash>>32 + k.turn) % uint64(set.count))
		case PickWeighted:
			set.first = weighted(st.data, set.by, 4, set.count, mix(k.hash, ^k.turn))
		case PickHash:
			set.first = rendezvous(st.data, set.by, 8, set.count, k.hash)
		}
	}
}

// end returns where the first so many records of a set end in its wire form.
func (st *Steered) end(set *readySet, records uint32) uint32 {
	if set.each > 0 {
		return records * set.each
	}
	return uint32(le16(st.data, set.ends+2*records))
}

// State is that of the Answers.
func (st *Steered) State() uint64 { return le64(st.data, uint32(len(st.data)-8)) }

// note remembers that an outcome is answered.
func (st *Steered) note(outcome uint32, now int64) {
	h := &st.handed[st.data[outcome+4]]
	if seconds := uint32(now); h.Load() < seconds { // a store for each query would keep CPUs waiting for each other
		h.Store(seconds)
	}
}

// Handed returns when an outcome, by its index in Answers.Outcomes, was answered last, in Unix
// seconds; 0 if never. Of many outcomes the last ones are taken for one.
func (st *Steered) Handed(outcome int) int64 {
	return int64(st.handed[min(outcome, len(st.handed)-1)].Load())
}

// Asked returns when the name was asked last for a type that it answers itself, in Unix seconds;
// 0 if never.
func (st *Steered) Asked() int64 {
	last := uint32(0)
	for i := range st.handed {
		last = max(last, st.handed[i].Load())
	}
	return int64(last)
}

// Scope returns the length of the prefix around a client for which all answer the same, as far as
// it depends on where clients are: what ECS has as SCOPE PREFIX-LENGTH (RFC 7871 §7.2.1). It is 0
// only for a name whose answer never depends on that.
func (st *Steered) Scope(client netip.Addr) int {
	if st.by == nil && !st.prefixed {
		return 0
	}
	scope := 1
	if st.by != nil {
		for i := range st.by.all {
			scope = max(scope, st.by.all[i].Where.Block(client))
		}
	}
	if !st.prefixed {
		return scope
	}
	if client.Is4() || client.Is4In6() {
		return max(scope, hashedBits4)
	}
	return max(scope, hashedBits6)
}
