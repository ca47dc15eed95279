package zone

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Record is one record of a master file, class IN.
type Record struct {
	Owner  Name
	Type   uint16
	TTL    uint32 // seconds
	HasTTL bool   // false: neither the record nor anything before it says a TTL; TTL is 0
	RData  []byte // uncompressed wire form, as CheckRData returns it; may share memory, nobody may change it
	Line   int    // where the record starts, from 1
	Column int    // of its first word, from 1, in octets
}

// Fault is an entry of a master file that was left out, and why.
type Fault struct {
	Line    int    // of the word at fault, from 1; 0 for the zone as a whole
	Column  int    // from 1, in octets
	Text    string // that line, shortened, printable
	Err     error
	Warning bool // nothing is lost that can be served; set by Load alone
}

// Error is "line 3, column 9: " and the cause, or the cause alone for a zone as a whole.
func (f *Fault) Error() string {
	if f.Line == 0 {
		return f.Err.Error()
	}
	return fmt.Sprintf("line %d, column %d: %v", f.Line, f.Column, f.Err)
}

func (f *Fault) Unwrap() error { return f.Err }

// Place is where in the file of the given path the fault is, in the form that editors follow:
// PATH:LINE:COLUMN, or PATH for a zone as a whole.
func (f *Fault) Place(path string) string {
	if f.Line == 0 {
		return path
	}
	return fmt.Sprintf("%s:%d:%d", path, f.Line, f.Column)
}

// Reason is the reason of the condition or finding that the fault becomes.
func (f *Fault) Reason() string { return reasonOf(f.Err, "SyntaxError") }

// EntryError reports an entry of a master file that is no record: its reason is SyntaxError,
// BadTTL, UnknownType, UnsupportedClass or UnsupportedDirective.
type EntryError struct {
	reason string
	defect string
}

func (e *EntryError) Error() string { return e.defect }

// Reason is the reason of the condition or finding that the error becomes.
func (e *EntryError) Reason() string { return e.reason }

// ParseMaster yields the records of a master file (RFC 1035 §5, RFC 2308 §4) in its order.
// It is total: an entry at fault is left out and yields its Fault beside an empty Record,
// and reading goes on with the next entry. Time is linear in the text, and memory is
// bounded by the largest entry.
//
// Names are relative to origin until an $ORIGIN says otherwise. A record without TTL has
// that of the last $TTL, else the last one stated by a record (RFC 1035 §5.1); a SOA
// its minimum. Records that would take their owner or origin from an entry at fault are at
// fault too, lest they end up at a wrong name. $INCLUDE and $GENERATE are refused: the text
// is all there is.
func ParseMaster(text string, origin Name) iter.Seq2[Record, *Fault] {
	return func(yield func(Record, *Fault) bool) {
		m := newMasterReader(text, origin)
		var block []byte // holds the rdata of many records
		m.read(len(text), func(r *Record, fault *Fault) bool {
			if fault != nil {
				return yield(Record{}, fault)
			}
			if cap(block)-len(block) < len(r.RData) {
				block = make([]byte, 0, max(len(r.RData), min(1<<16, len(text)-m.at+256)))
			}
			start := len(block)
			block = append(block, r.RData...)
			kept := *r
			kept.RData = block[start:len(block):len(block)]
			return yield(kept, nil)
		})
	}
}

// carried is what one entry of a master file hands on to the next.
type carried struct {
	origin     Name
	originLost bool // the last $ORIGIN is at fault
	owner      Name // of the last record, "" before the first
	ownerLost  bool // the last record's owner is at fault
	ttl        uint32
	hasTTL     bool // ttl is what records without one get
	directive  bool // ttl is that of a $TTL
	// ttlUnknown tells that reading began in the middle of a file, and no TTL was stated since.
	ttlUnknown bool
}

// masterReader is a master file that is being read.
type masterReader struct {
	lexer
	carried
	ownerText string // what owner was made of; "" if the same text may be another name now
	guessed   bool   // a record's TTL depends on one that is not known, see ttlUnknown
	next      int    // the first word of the entry not yet read; after an error, one behind that at fault
	scratch   []byte
	names     arena
}

func newMasterReader(text string, origin Name) *masterReader {
	m := &masterReader{lexer: lexer{src: text, position: position{line: 1}}, carried: carried{origin: origin}}
	m.at = len(text) - len(strings.TrimPrefix(text, "\ufeff"))
	return m
}

// read reads the entries that begin before end, and calls found with each record, or with the
// fault of an entry, until there are no more or found returns false. The record and its rdata
// are found's only until it returns.
func (m *masterReader) read(end int, found func(*Record, *Fault) bool) {
	var r Record
	m.stop = end
	for m.at < end {
		blank, fault := m.entry()
		if fault != nil {
			m.afterLexFault(blank)
			if !found(nil, m.newFault(fault.position, fault.err)) {
				return
			}
			continue
		}
		if len(m.tokens) == 0 {
			return
		}
		is, err := m.readEntry(&r, blank)
		switch {
		case err != nil:
			if !found(nil, m.faultOf(err)) {
				return
			}
		case is:
			if !found(&r, nil) {
				return
			}
		}
	}
}

// newFault reports err at the place.
func (m *masterReader) newFault(p position, err error) *Fault {
	line := m.src[p.bol:]
	if i := strings.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	return &Fault{Line: p.line, Column: p.at - p.bol + 1, Text: printable(line), Err: err}
}

// faultOf reports err at the word that was read last; nil for nil.
func (m *masterReader) faultOf(err error) *Fault {
	if err == nil {
		return nil
	}
	p := m.tokens[0].position
	if m.next > 0 && len(m.tokens) > 0 {
		t := m.tokens[min(m.next, len(m.tokens))-1]
		p = t.position
		if m.next > len(m.tokens) { // something is missing: behind the last word
			p.at = t.end
		}
	}
	return m.newFault(p, err)
}

// printable shortens a line to 80 octets at most, with escapes for what is not printable.
func printable(line string) string {
	const limit = 80
	line = strings.Trim(line, " \t\r")
	cut := len(line) > limit
	if cut {
		line = line[:limit]
	}
	q := strconv.QuoteToASCII(strings.ReplaceAll(line, "\t", " "))
	q = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q[1 : len(q)-1])
	if cut || len(q) > limit {
		q = q[:min(len(q), limit-3)] + "..."
	}
	return q
}

// afterLexFault keeps the owner of an entry of which only the first words could be read.
func (m *masterReader) afterLexFault(blank bool) {
	m.next = 0
	switch {
	case blank:
	case len(m.tokens) == 0:
		m.ownerLost = true
	case m.isDirective():
		if strings.EqualFold(m.word(), "$ORIGIN") {
			m.originLost, m.ownerText = true, ""
		}
	default:
		_ = m.readOwner() // its fault matters less than the lexer's
	}
}

func (m *masterReader) word() string {
	t := m.tokens[m.next]
	return m.src[t.start:t.end]
}

func (m *masterReader) isDirective() bool {
	return !m.tokens[0].quoted && m.src[m.tokens[0].start] == '$'
}

// readEntry reads the entry in m.tokens; is tells whether it is a record.
func (m *masterReader) readEntry(r *Record, blank bool) (is bool, err error) {
	m.next = 0
	if !blank && m.isDirective() {
		return false, m.readDirective()
	}
	if err := m.readRecord(r, blank); err != nil {
		return false, err
	}
	return true, nil
}

// readDirective reads $ORIGIN and $TTL, and refuses the others.
func (m *masterReader) readDirective() error {
	name := strings.ToUpper(m.word())
	m.next++
	switch name {
	case "$ORIGIN":
		origin, err := m.readOrigin()
		m.ownerText = "" // the same text is another name now
		if err != nil {
			m.originLost = true
			return err
		}
		m.origin, m.originLost = origin, false
		return nil
	case "$TTL":
		text, err := m.argument("$TTL", "TTL")
		if err != nil {
			return err
		}
		ttl, ok := parseTTL(text)
		if !ok {
			return badTTL(text)
		}
		m.ttl, m.hasTTL, m.directive, m.ttlUnknown = ttl, true, true, false
		return nil
	case "$INCLUDE":
		return &EntryError{"UnsupportedDirective", "$INCLUDE is refused: a zone is read from one text only"}
	case "$GENERATE":
		return &EntryError{"UnsupportedDirective", "$GENERATE is refused: write its records out"}
	default:
		return &EntryError{"UnsupportedDirective", fmt.Sprintf("%s is no directive; a name that starts with $ is written \\$", shown(name))}
	}
}

func (m *masterReader) readOrigin() (Name, error) {
	text, err := m.argument("$ORIGIN", "NAME")
	switch {
	case err != nil:
		return "", err
	case m.originLost && !isAbsolute(text):
		return "", errLostOrigin(text)
	}
	return ParseName(text, m.origin)
}

// argument reads the only argument of a directive.
func (m *masterReader) argument(directive, wants string) (string, error) {
	switch {
	case len(m.tokens) < 2:
		m.next = len(m.tokens) + 1
		return "", &EntryError{"SyntaxError", fmt.Sprintf("%s wants %s", directive, wants)}
	case len(m.tokens) > 2:
		m.next = 3
		return "", &EntryError{"SyntaxError", fmt.Sprintf("%s wants %s: %s is left over", directive, wants, shown(m.src[m.tokens[2].start:m.tokens[2].end]))}
	case m.tokens[1].quoted || m.tokens[1].inner:
		m.next = 2
		return "", &EntryError{"SyntaxError", fmt.Sprintf("%s wants %s without quotes", directive, wants)}
	}
	text := m.word()
	m.next = 2
	return text, nil
}

// readOwner reads the owner at the start of an entry.
func (m *masterReader) readOwner() error {
	t, text := m.tokens[m.next], m.word()
	m.next++
	if text == m.ownerText && !t.quoted {
		m.ownerLost = false
		return nil
	}
	m.ownerText, m.ownerLost = "", true
	switch {
	case t.quoted || t.inner:
		return &EntryError{"SyntaxError", fmt.Sprintf("owner %s must not be quoted", shown(text))}
	case m.originLost && !isAbsolute(text):
		return errLostOrigin(text)
	}
	var buf [MaxName + 1]byte
	owner, err := appendName(buf[:0], text, m.origin)
	if err != nil {
		return err
	}
	m.owner, m.ownerText, m.ownerLost = Name(m.names.text(owner)), text, false
	return nil
}

// readRecord reads [owner] [TTL] [class] type rdata, TTL and class in either order.
func (m *masterReader) readRecord(r *Record, blank bool) error {
	*r = Record{Line: m.tokens[0].line, Column: m.tokens[0].at - m.tokens[0].bol + 1}
	switch {
	case !blank:
		if err := m.readOwner(); err != nil {
			return err
		}
	case m.ownerLost:
		return &EntryError{"SyntaxError", "the owner would be that of an entry that is left out"}
	case m.owner == "":
		return &EntryError{"SyntaxError", "the first record has no owner"}
	}
	r.Owner = m.owner
	stated, err := m.readHead(r)
	if err != nil {
		return err
	}
	rdata := rdataReader{src: m.src, tokens: m.tokens, next: m.next, origin: m.origin, lost: m.originLost}
	m.scratch, err = rdata.parse(m.scratch[:0], r.Type)
	m.next = rdata.next
	if err != nil {
		return err
	}
	r.RData = m.scratch
	switch {
	case stated:
		if !m.directive {
			m.ttl, m.hasTTL, m.ttlUnknown = r.TTL, true, false
		}
	case m.hasTTL:
		r.TTL, r.HasTTL = m.ttl, true
	case m.ttlUnknown:
		m.guessed = true
	case r.Type == TypeSOA:
		if soa, err := ParseSOA(string(r.RData)); err == nil {
			r.TTL, r.HasTTL = soa.Minimum, true
			m.ttl, m.hasTTL = soa.Minimum, true
		}
	}
	return nil
}

// readHead reads what stands between owner and rdata; stated tells whether a TTL does.
func (m *masterReader) readHead(r *Record) (stated bool, err error) {
	class := false
	for {
		if m.next == len(m.tokens) {
			m.next++
			return false, &EntryError{"SyntaxError", "the record has no type"}
		}
		t, text := m.tokens[m.next], m.word()
		m.next++
		if t.quoted || t.inner {
			return false, &EntryError{"SyntaxError", fmt.Sprintf("%s in quotes stands where TTL, class or type is wanted", shown(text))}
		}
		if text[0] >= '0' && text[0] <= '9' {
			ttl, ok := parseTTL(text)
			switch {
			case stated:
				return false, &EntryError{"UnknownType", fmt.Sprintf("%s is no record type", shown(text))}
			case !ok:
				return false, badTTL(text)
			}
			r.TTL, r.HasTTL, stated = ttl, true, true
			continue
		}
		if typ, ok := TypeFromString(text); ok && (class || !strings.EqualFold(text, "ANY")) {
			r.Type = typ
			return stated, checkData(typ)
		}
		switch in, ok := parseClass(text); {
		case !ok || class:
			return false, &EntryError{"UnknownType", fmt.Sprintf("%s is no record type", shown(text))}
		case !in:
			return false, &EntryError{"UnsupportedClass", fmt.Sprintf("class %s is not served, only IN is", text)}
		}
		class = true
	}
}

// parseClass tells whether s is a class, and whether it is IN (RFC 3597 §5: CLASS1).
func parseClass(s string) (in, ok bool) {
	switch s = strings.ToUpper(s); s {
	case "IN":
		return true, true
	case "CH", "HS", "CS", "NONE", "ANY":
		return false, true
	}
	number, ok := numbered([]byte(s), "CLASS")
	return number == 1, ok
}

// parseTTL reads seconds, or numbers with units: 1w2d3h4m5s in any order and case. The
// largest is MaxTTL.
func parseTTL(s string) (seconds uint32, ok bool) {
	const units = "smhdw"
	scale := [...]uint64{1, 60, 3600, 86400, 604800}
	total, number, digits := uint64(0), uint64(0), 0
	for _, c := range []byte(s) {
		if '0' <= c && c <= '9' {
			number = number*10 + uint64(c-'0')
			digits++
		} else {
			unit := strings.IndexByte(units, c|0x20)
			if unit < 0 || digits == 0 {
				return 0, false
			}
			total += number * scale[unit]
			number, digits = 0, 0
		}
		if number > MaxTTL || total > MaxTTL {
			return 0, false
		}
	}
	total += number
	return uint32(total), s != "" && total <= MaxTTL
}

func badTTL(text string) error {
	return &EntryError{"BadTTL", fmt.Sprintf("TTL %s is not a time such as 3600 or 1h30m, up to %d seconds (RFC 2181 §8)", shown(text), MaxTTL)}
}
