package zone

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// ValueError reports rdata that does not fit its type.
type ValueError struct {
	Type   uint16
	Defect string // what is wrong, starting with the field's name where there is one
	Err    error  // the cause where it has a reason of its own, or nil
}

func (e *ValueError) Error() string {
	if wants := wants(e.Type); wants != "" {
		return fmt.Sprintf("%s wants %s: %s", TypeString(e.Type), wants, e.Defect)
	}
	return fmt.Sprintf("%s: %s", TypeString(e.Type), e.Defect)
}

func (e *ValueError) Unwrap() error { return e.Err }

// Reason is the reason of the condition or finding that the error becomes.
func (e *ValueError) Reason() string { return reasonOf(e.Err, "BadValue") }

// reasonOf is the reason that err carries, or the fallback.
func reasonOf(err error, fallback string) string {
	if r, ok := errors.AsType[interface {
		error
		Reason() string
	}](err); ok {
		return r.Reason()
	}
	return fallback
}

// kind is the form of one field of rdata.
type kind uint8

const (
	kindU8 kind = iota
	kindU16
	kindU32
	kindTime      // seconds in 4 octets, up to MaxTTL; units as in a TTL may be used
	kindIPv4      // 4 octets
	kindIPv6      // 16 octets
	kindName      // uncompressed, lower case
	kindText      // character-string (RFC 1035 §3.3), up to 255 octets
	kindTag       // character-string of 1 to 15 letters and digits (RFC 8659 §4.1)
	kindAlgorithm // DNSSEC algorithm: a number of 8 bits or its mnemonic
	// The kinds below take all that is left of the rdata.
	kindTexts  // one character-string or more
	kindOctets // one word, without length octet
	kindHex    // may be divided by blanks
	kindBase64 // may be divided by blanks
)

type field struct {
	name string // as messages call it
	kind kind
}

var (
	layoutHost       = []field{{"host", kindName}}
	layoutPreference = []field{{"preference", kindU16}, {"host", kindName}}
	layoutTexts      = []field{{"text", kindTexts}}
	layoutDigest     = []field{{"key-tag", kindU16}, {"algorithm", kindAlgorithm}, {"digest-type", kindU8}, {"digest", kindHex}}
	layoutKey        = []field{{"flags", kindU16}, {"protocol", kindU8}, {"algorithm", kindAlgorithm}, {"key", kindBase64}}
	layoutCert       = []field{{"usage", kindU8}, {"selector", kindU8}, {"matching-type", kindU8}, {"data", kindHex}}
)

// layouts are the types whose rdata is a row of fields. Names in them are those of RFC 4034
// §6.2, whose case carries nothing: they are folded, as NSD does, so that equal records
// have equal octets. All other types keep their octets.
var layouts = map[uint16][]field{
	TypeA:     {{"address", kindIPv4}},
	TypeAAAA:  {{"address", kindIPv6}},
	TypeNS:    layoutHost,
	TypeCNAME: layoutHost,
	TypePTR:   layoutHost,
	TypeDNAME: layoutHost,
	TypeMX:    layoutPreference,
	TypeSOA: {
		{"primary", kindName}, {"contact", kindName}, {"serial", kindU32},
		{"refresh", kindTime}, {"retry", kindTime}, {"expire", kindTime}, {"minimum", kindTime},
	},
	TypeSRV: {{"priority", kindU16}, {"weight", kindU16}, {"port", kindU16}, {"target", kindName}},
	TypeTXT: layoutTexts,
	typeSPF: layoutTexts,
	TypeNAPTR: {
		{"order", kindU16}, {"preference", kindU16}, {"flags", kindText}, {"services", kindText},
		{"regexp", kindText}, {"replacement", kindName},
	},
	TypeDS:         layoutDigest,
	typeDLV:        layoutDigest,
	TypeCDS:        layoutDigest,
	TypeDNSKEY:     layoutKey,
	TypeCDNSKEY:    layoutKey,
	typeSSHFP:      {{"algorithm", kindU8}, {"fingerprint-type", kindU8}, {"fingerprint", kindHex}},
	typeTLSA:       layoutCert,
	typeSMIMEA:     layoutCert,
	typeCAA:        {{"flags", kindU8}, {"tag", kindTag}, {"value", kindOctets}},
	typeURI:        {{"priority", kindU16}, {"weight", kindU16}, {"target", kindOctets}},
	typeHINFO:      {{"cpu", kindText}, {"os", kindText}},
	typeMINFO:      {{"mailbox", kindName}, {"error-mailbox", kindName}},
	typeRP:         {{"mailbox", kindName}, {"texts", kindName}},
	typeAFSDB:      layoutPreference,
	typeRT:         layoutPreference,
	typeKX:         layoutPreference,
	typePX:         {{"preference", kindU16}, {"map822", kindName}, {"mapx400", kindName}},
	typeDHCID:      {{"data", kindBase64}},
	typeOPENPGPKEY: {{"key", kindBase64}},
}

// wants lists the fields of a type's presentation form, "" if they are not known here.
func wants(typ uint16) string {
	if isSVCB(typ) {
		return "PRIORITY TARGET KEY=VALUE..."
	}
	var names []string
	for _, f := range layouts[typ] {
		name := strings.ToUpper(f.name)
		if f.kind == kindTexts {
			name += "..."
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// ParseRData reads one record's rdata as people write it in a manifest: the presentation
// form of the type, or \# LENGTH HEX (RFC 3597 §5) for any. Relative names end at origin.
//
// Other than in a master file, line breaks are blanks, a semicolon starts no comment, and
// TXT that does not start with a quote is one text, blanks included, cut into
// character-strings of 255 octets: v=spf1 mx -all needs no quotes.
//
// The result is uncompressed wire form.
func ParseRData(typ uint16, text string, origin Name) ([]byte, error) {
	if err := checkData(typ); err != nil {
		return nil, err
	}
	if whole := strings.TrimSpace(text); layouts[typ] != nil && layouts[typ][0].kind == kindTexts && whole != "" &&
		!strings.HasPrefix(strings.TrimLeft(whole, "( \t\r\n"), `"`) && !isGeneric(whole) {
		return wholeText(typ, whole)
	}
	l := lexer{src: text, position: position{line: 1}, value: true}
	if _, fault := l.entry(); fault != nil {
		return nil, fault.err
	}
	r := rdataReader{src: text, tokens: l.tokens, origin: origin}
	return r.parse(nil, typ)
}

func isGeneric(text string) bool { return text == `\#` || strings.HasPrefix(text, `\# `) }

// wholeText makes one or more character-strings of a text without quotes.
func wholeText(typ uint16, text string) ([]byte, error) {
	octets, err := appendUnescaped(nil, text)
	if err != nil {
		return nil, &ValueError{typ, "text " + err.Error(), nil}
	}
	var rdata []byte
	for {
		size := min(len(octets), 255)
		rdata = append(append(rdata, byte(size)), octets[:size]...)
		if octets = octets[size:]; len(octets) == 0 {
			break
		}
	}
	if len(rdata) > maxRData {
		return nil, tooLong(typ)
	}
	return rdata, nil
}

// maxRData is what RDLENGTH can say.
const maxRData = 1<<16 - 1

func tooLong(typ uint16) error {
	return &ValueError{Type: typ, Defect: fmt.Sprintf("it is longer than %d octets", maxRData)}
}

// rdataReader reads the fields of one record's rdata from words.
type rdataReader struct {
	src    string
	tokens []token
	next   int  // the first word not yet read; after an error, one behind the word at fault
	origin Name // where relative names end
	lost   bool // origin is not known: relative names are at fault
}

func (r *rdataReader) more() bool { return r.next < len(r.tokens) }

// take returns the next word; ok is false at the end.
func (r *rdataReader) take() (t token, text string, ok bool) {
	if !r.more() {
		r.next = len(r.tokens) + 1
		return token{}, "", false
	}
	t = r.tokens[r.next]
	r.next++
	return t, r.src[t.start:t.end], true
}

// parse appends the rdata of the type to dst, which is empty.
func (r *rdataReader) parse(dst []byte, typ uint16) ([]byte, error) {
	if err := checkData(typ); err != nil {
		return nil, err
	}
	if r.more() && !r.tokens[r.next].quoted && r.src[r.tokens[r.next].start:r.tokens[r.next].end] == `\#` {
		return r.generic(dst, typ)
	}
	layout := layouts[typ]
	var err error
	switch {
	case isSVCB(typ):
		dst, err = r.svcb(dst)
	case layout == nil:
		return r.foreign(typ)
	}
	for _, f := range layout {
		if dst, err = r.field(dst, f); err != nil {
			break
		}
	}
	if err == nil && r.more() {
		_, text, _ := r.take()
		err = fmt.Errorf("%s is left over", shown(text))
	}
	if err == nil {
		err = checkValue(typ, string(dst))
	}
	if err != nil {
		return nil, valueError(typ, err)
	}
	if len(dst) > maxRData {
		return nil, tooLong(typ)
	}
	return dst, nil
}

// valueError makes err, which names the field, an error of the type; a cause with a reason
// of its own keeps it.
func valueError(typ uint16, err error) error {
	return &ValueError{typ, err.Error(), errors.Unwrap(err)}
}

// shown is text quoted for a message, cut after 60 octets.
func shown(text string) string {
	if len(text) > 60 {
		return strconv.QuoteToASCII(text[:57]) + "..."
	}
	return strconv.QuoteToASCII(text)
}

// field appends one field; the error starts with the field's name.
func (r *rdataReader) field(dst []byte, f field) ([]byte, error) {
	if f.kind >= kindTexts && f.kind != kindOctets {
		return r.rest(dst, f)
	}
	t, text, ok := r.take()
	if !ok {
		return nil, fmt.Errorf("%s is missing", f.name)
	}
	if t.inner {
		return nil, fmt.Errorf("%s %s has a quote inside", f.name, shown(text))
	}
	switch f.kind {
	case kindText, kindTag, kindOctets:
		return appendText(dst, f, text)
	}
	if t.quoted {
		return nil, fmt.Errorf("%s %s must not be quoted", f.name, shown(text))
	}
	switch f.kind {
	case kindU8:
		return appendNumber(dst, f.name, text, 8)
	case kindU16:
		return appendNumber(dst, f.name, text, 16)
	case kindU32:
		return appendNumber(dst, f.name, text, 32)
	case kindTime:
		seconds, ok := parseTTL(text)
		if !ok {
			return nil, fmt.Errorf("%s %s is not a time such as 3600 or 1h, up to %d seconds", f.name, shown(text), MaxTTL)
		}
		return binary.BigEndian.AppendUint32(dst, seconds), nil
	case kindAlgorithm:
		if number, ok := dns.StringToAlgorithm[strings.ToUpper(text)]; ok {
			return append(dst, number), nil
		}
		return appendNumber(dst, f.name, text, 8)
	case kindIPv4:
		ip, err := netip.ParseAddr(text)
		if err != nil || !ip.Is4() {
			return nil, fmt.Errorf("%s %s is not an IPv4 address", f.name, shown(text))
		}
		octets := ip.As4()
		return append(dst, octets[:]...), nil
	case kindIPv6:
		ip, err := netip.ParseAddr(text)
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return nil, fmt.Errorf("%s %s is not an IPv6 address", f.name, shown(text))
		}
		octets := ip.As16()
		return append(dst, octets[:]...), nil
	default:
		return r.name(dst, f.name, text, true)
	}
}

func appendNumber(dst []byte, field, text string, bits int) ([]byte, error) {
	v, err := strconv.ParseUint(text, 10, bits)
	if err != nil || text[0] == '+' {
		return nil, fmt.Errorf("%s %s is not a number 0-%d", field, shown(text), uint64(1)<<bits-1)
	}
	for bits > 0 {
		bits -= 8
		dst = append(dst, byte(v>>bits))
	}
	return dst, nil
}

// name appends a name; whether its letters are folded is the type's matter.
func (r *rdataReader) name(dst []byte, field, text string, folded bool) ([]byte, error) {
	if r.lost && !isAbsolute(text) {
		return nil, fmt.Errorf("%s: %w", field, errLostOrigin(text))
	}
	var buf [MaxName + 1]byte
	w, err := appendName(buf[:0], text, r.origin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if !folded && text != "@" && text != "." {
		asWritten, _, _ := appendLabels(make([]byte, 0, MaxName+1), text)
		copy(w, asWritten)
	}
	return append(dst, w...), nil
}

// errLostOrigin refuses a name that is relative to an $ORIGIN which is itself at fault.
func errLostOrigin(text string) error {
	return &NameError{text, "is relative to an $ORIGIN that is left out"}
}

// isAbsolute reports whether a name in presentation form ends in a dot that is no escape.
func isAbsolute(text string) bool {
	rest, dot := strings.CutSuffix(text, ".")
	backslashes := len(rest) - len(strings.TrimRight(rest, `\`))
	return dot && backslashes%2 == 0
}

// appendText appends one word as character-string, tag, or octets without length.
func appendText(dst []byte, f field, text string) ([]byte, error) {
	start := len(dst)
	if f.kind != kindOctets {
		dst = append(dst, 0)
	}
	body := len(dst)
	dst, err := appendUnescaped(dst, text)
	if err != nil {
		return nil, fmt.Errorf("%s %s %w", f.name, shown(text), err)
	}
	size := len(dst) - body
	switch {
	case f.kind == kindOctets:
		return dst, nil
	case size > 255:
		return nil, fmt.Errorf("%s %s is longer than 255 octets: divide it into several quoted texts", f.name, shown(text))
	case f.kind == kindTag && !isTag(dst[body:]):
		return nil, fmt.Errorf("%s %s is not 1 to 15 letters and digits", f.name, shown(text))
	}
	dst[start] = byte(size)
	return dst, nil
}

func isTag(tag []byte) bool {
	for _, c := range tag {
		if c < '0' || c > '9' && c < 'A' || c > 'Z' && c < 'a' || c > 'z' {
			return false
		}
	}
	return len(tag) > 0 && len(tag) <= 15
}

// appendUnescaped appends the octets of a text with escapes \X and \DDD.
func appendUnescaped(dst []byte, text string) ([]byte, error) {
	for {
		i := strings.IndexByte(text, '\\')
		if i < 0 {
			return append(dst, text...), nil
		}
		dst = append(dst, text[:i]...)
		octet, size, err := unescape(text[i:])
		if err != nil {
			return nil, err
		}
		dst = append(dst, octet)
		text = text[i+size:]
	}
}

// rest appends a field that takes all words left.
func (r *rdataReader) rest(dst []byte, f field) ([]byte, error) {
	if !r.more() {
		r.take()
		return nil, fmt.Errorf("%s is missing", f.name)
	}
	if f.kind == kindTexts {
		for r.more() {
			t, text, _ := r.take()
			texts := []string{text}
			if t.inner { // a="b c" is two texts here, as BIND and NSD have it
				quote := strings.Index(text, `="`) + 1
				texts = []string{text[:quote], text[quote+1 : len(text)-1]}
			}
			for _, text := range texts {
				var err error
				if dst, err = appendText(dst, field{f.name, kindText}, text); err != nil {
					return nil, err
				}
			}
		}
		return dst, nil
	}
	var digits []byte
	for r.more() {
		t, text, _ := r.take()
		if t.quoted || t.inner {
			return nil, fmt.Errorf("%s %s must not be quoted", f.name, shown(text))
		}
		digits = append(digits, text...)
	}
	if f.kind == kindHex {
		octets, err := hex.AppendDecode(dst, digits)
		if err != nil {
			return nil, fmt.Errorf("%s %s is not an even number of hexadecimal digits", f.name, shown(string(digits)))
		}
		return octets, nil
	}
	octets, err := base64.StdEncoding.AppendDecode(dst, digits)
	if err != nil {
		return nil, fmt.Errorf("%s %s is not base64", f.name, shown(string(digits)))
	}
	return octets, nil
}

// generic reads \# LENGTH HEX (RFC 3597 §5).
func (r *rdataReader) generic(dst []byte, typ uint16) ([]byte, error) {
	r.take()
	_, text, ok := r.take()
	length, err := strconv.ParseUint(text, 10, 16)
	if !ok || err != nil || text[0] == '+' {
		return nil, &ValueError{Type: typ, Defect: `\# wants LENGTH HEX: length ` + shown(text) + " is not a number 0-65535"}
	}
	if length > 0 || r.more() {
		if dst, err = r.rest(dst, field{"hex", kindHex}); err != nil {
			return nil, &ValueError{Type: typ, Defect: `\# wants LENGTH HEX: ` + err.Error()}
		}
	}
	if len(dst) != int(length) {
		return nil, &ValueError{Type: typ, Defect: fmt.Sprintf(`\# wants LENGTH HEX: length is %d, but there are %d octets`, length, len(dst))}
	}
	folded, err := CheckRData(typ, dst)
	if err != nil {
		return nil, err
	}
	return folded, nil
}

// CheckRData reports whether rdata, in uncompressed wire form, fits its type. It returns the
// form that a zone keeps: names of the types of RFC 4034 §6.2 in lower case. The result
// may share memory with rdata, which may be changed. Types nobody knows fit always.
func CheckRData(typ uint16, rdata []byte) ([]byte, error) {
	if err := checkData(typ); err != nil {
		return nil, err
	}
	if len(rdata) > maxRData {
		return nil, tooLong(typ)
	}
	if err := checkWire(typ, string(rdata)); err != nil {
		return nil, err
	}
	at := 0
	for _, f := range layouts[typ] {
		size := f.size(string(rdata[at:]))
		if f.kind == kindName {
			foldWire(rdata[at : at+size])
		}
		at += size
	}
	return rdata, nil
}

// checkWire reports whether rdata is well formed.
func checkWire(typ uint16, rdata string) error {
	layout := layouts[typ]
	if layout == nil && !isSVCB(typ) {
		if _, known := dns.TypeToRR[typ]; known && !isForeign(typ, rdata) {
			return &ValueError{Type: typ, Defect: "it is no valid rdata of this type"}
		}
		return nil
	}
	if layout != nil {
		rest := rdata
		for _, f := range layout {
			size := f.size(rest)
			if size < 0 {
				return &ValueError{Type: typ, Defect: f.name + " is cut short or not well formed"}
			}
			rest = rest[size:]
		}
		if rest != "" {
			return &ValueError{Type: typ, Defect: fmt.Sprintf("%d octets are left over", len(rest))}
		}
	}
	if err := checkValue(typ, rdata); err != nil {
		return valueError(typ, err)
	}
	return nil
}

// size returns the length of the field at the start of wire, -1 if it is not well formed.
func (f field) size(wire string) int {
	fixed := -1
	switch f.kind {
	case kindU8, kindAlgorithm:
		fixed = 1
	case kindU16:
		fixed = 2
	case kindU32, kindTime, kindIPv4:
		fixed = 4
	case kindIPv6:
		fixed = 16
	case kindName:
		return nameSize(wire)
	case kindText, kindTag:
		if wire == "" || len(wire) < 1+int(wire[0]) || f.kind == kindTag && !isTag([]byte(wire[1:1+int(wire[0])])) {
			return -1
		}
		return 1 + int(wire[0])
	case kindTexts:
		text := field{f.name, kindText}
		for rest := wire; rest != "" || wire == ""; {
			size := text.size(rest)
			if size < 0 {
				return -1
			}
			rest = rest[size:]
		}
		return len(wire)
	case kindHex, kindBase64:
		if wire == "" {
			return -1
		}
		return len(wire)
	case kindOctets:
		return len(wire)
	}
	if len(wire) < fixed {
		return -1
	}
	if f.kind == kindTime && wire[0] > 127 {
		return -1
	}
	return fixed
}

// nameSize is the length of the uncompressed name at the start of wire, or -1.
func nameSize(wire string) int {
	for size := 0; size < len(wire) && size < MaxName; {
		l := int(wire[size])
		if l == 0 {
			return size + 1
		}
		if l > MaxLabel {
			return -1
		}
		size += l + 1
	}
	return -1
}

// checkValue holds the rules that go beyond single fields.
func checkValue(typ uint16, rdata string) error {
	switch {
	case isSVCB(typ):
		return checkSVCB(rdata)
	case typ == TypeDS || typ == TypeCDS || typ == typeDLV:
		// RFC 4034 §5.1.4, RFC 4509 §2.1, RFC 5933 §4, RFC 6605 §2
		want := map[byte]int{1: 20, 2: 32, 3: 32, 4: 48}[rdata[3]]
		if got := len(rdata) - 4; want != 0 && got != want {
			return fmt.Errorf("digest has %d octets, digest type %d has %d", got, rdata[3], want)
		}
	case typ == typeURI && len(rdata) == 4: // RFC 7553 §4.4
		return errors.New("target is empty")
	}
	return nil
}

// RDataString returns the presentation form of rdata as a zone keeps it: ParseRData and
// master files read it back to the same octets. Names are absolute. Rdata that does not fit
// its type, or that nobody knows a form for, is shown as \# LENGTH HEX (RFC 3597 §5).
func RDataString(typ uint16, rdata string) string {
	layout := layouts[typ]
	switch {
	case layout == nil && !isSVCB(typ):
		if s, err := foreignString(typ, rdata); err == nil {
			return s
		}
		return genericString(rdata)
	case checkWire(typ, rdata) != nil:
		return genericString(rdata)
	case isSVCB(typ):
		return svcbString(rdata)
	}
	var b []byte
	for i, f := range layout {
		if i > 0 {
			b = append(b, ' ')
		}
		size := f.size(rdata)
		b = f.appendString(b, rdata[:size])
		rdata = rdata[size:]
	}
	return string(b)
}

func genericString(rdata string) string {
	if rdata == "" {
		return `\# 0`
	}
	return fmt.Sprintf(`\# %d %x`, len(rdata), rdata)
}

// appendString appends the presentation form of one well-formed field.
func (f field) appendString(b []byte, wire string) []byte {
	switch f.kind {
	case kindU8, kindAlgorithm:
		return strconv.AppendUint(b, uint64(wire[0]), 10)
	case kindU16:
		return strconv.AppendUint(b, uint64(wire[0])<<8|uint64(wire[1]), 10)
	case kindU32, kindTime:
		return strconv.AppendUint(b, uint64(binary.BigEndian.Uint32([]byte(wire))), 10)
	case kindIPv4, kindIPv6:
		ip, _ := netip.AddrFromSlice([]byte(wire))
		return ip.AppendTo(b)
	case kindName:
		return append(b, Name(wire).String()...)
	case kindText:
		return appendQuoted(b, wire[1:])
	case kindTag:
		return append(b, wire[1:]...)
	case kindTexts:
		for i := 0; i < len(wire); i += 1 + int(wire[i]) {
			if i > 0 {
				b = append(b, ' ')
			}
			b = appendQuoted(b, wire[i+1:i+1+int(wire[i])])
		}
		return b
	case kindOctets:
		return appendQuoted(b, wire)
	case kindHex:
		return append(b, strings.ToUpper(hex.EncodeToString([]byte(wire)))...)
	default:
		return base64.StdEncoding.AppendEncode(b, []byte(wire))
	}
}

// appendQuoted appends a text in quotes, with the escapes it needs there.
func appendQuoted(b []byte, text string) []byte {
	b = append(b, '"')
	for _, c := range []byte(text) {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = append(b, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// foreign reads a type that only miekg/dns knows.
func (r *rdataReader) foreign(typ uint16) ([]byte, error) {
	if _, known := dns.TypeToRR[typ]; !known {
		r.take()
		return nil, &ValueError{Type: typ, Defect: `no presentation form is known: write the rdata as \# LENGTH HEX (RFC 3597)`}
	}
	var text strings.Builder
	fmt.Fprintf(&text, ". 0 IN %s", TypeString(typ))
	for r.more() {
		t, word, _ := r.take()
		text.WriteByte(' ')
		if t.quoted {
			word = `"` + word + `"`
		} else {
			word = escapeSemicolons(word)
		}
		text.WriteString(word)
	}
	r.next = 1 // which word is at fault is not known
	if r.lost {
		return nil, &ValueError{Type: typ, Defect: "it may hold names relative to an $ORIGIN that is left out"}
	}
	rdata, err := foreignRData(typ, text.String(), cmp.Or(r.origin, Root))
	if err != nil {
		return nil, &ValueError{Type: typ, Defect: err.Error()}
	}
	return rdata, nil
}

// escapeSemicolons keeps miekg/dns from seeing a comment in a word of ParseRData.
func escapeSemicolons(word string) string {
	if strings.IndexByte(word, ';') < 0 {
		return word
	}
	var b []byte
	for i := 0; i < len(word); i++ {
		switch {
		case word[i] == '\\' && i+1 < len(word):
			b = append(b, '\\')
			i++
		case word[i] == ';':
			b = append(b, '\\')
		}
		b = append(b, word[i])
	}
	return string(b)
}

// foreignRData reads the text of one record with miekg/dns. Its parser takes more than it
// should; what does not come back from the wire as it went there is refused.
func foreignRData(typ uint16, text string, origin Name) (rdata []byte, err error) {
	defer recoverInto(&err)
	zp := dns.NewZoneParser(strings.NewReader(text+"\n"), origin.String(), "")
	rr, ok := zp.Next()
	if err := zp.Err(); err != nil {
		return nil, errors.New(foreignDefect(err))
	}
	if !ok || rr.Header().Rrtype != typ {
		return nil, errors.New("it is no record")
	}
	if _, ok := zp.Next(); ok || zp.Err() != nil {
		return nil, errors.New("it is more than one record")
	}
	rdata, err = packForeign(rr)
	if err != nil {
		return nil, errors.New(foreignDefect(err))
	}
	if !isForeign(typ, string(rdata)) {
		return nil, errors.New("it is no valid rdata of this type")
	}
	return rdata, nil
}

// isForeign reports whether miekg/dns reads rdata of the type and writes the same again.
func isForeign(typ uint16, rdata string) bool {
	again, err := func() (again []byte, err error) {
		defer recoverInto(&err)
		rr, err := unpackForeign(typ, rdata)
		if err != nil {
			return nil, err
		}
		return packForeign(rr)
	}()
	return err == nil && string(again) == rdata
}

// foreignString is the presentation form by miekg/dns, provided that it reads back to the
// same octets.
func foreignString(typ uint16, rdata string) (s string, err error) {
	defer recoverInto(&err)
	rr, err := unpackForeign(typ, rdata)
	if err != nil {
		return "", err
	}
	s = strings.TrimPrefix(rr.String(), rr.Header().String())
	if strings.ContainsAny(s, "\n\r;") || isGeneric(s) {
		return "", errors.New("presentation form is not that of one record")
	}
	again, err := ParseRData(typ, s, Root)
	if err == nil && string(again) != rdata {
		err = errors.New("presentation form reads back to other rdata")
	}
	return s, err
}

// foreignHeader is that of a record of the root: name, type, class, TTL, RDLENGTH.
const foreignHeader = 11

func packForeign(rr dns.RR) ([]byte, error) {
	// What dns.Len expects is enough but for unusual escapes.
	for _, size := range []int{dns.Len(rr) + foreignHeader, foreignHeader + maxRData} {
		buf := make([]byte, size)
		end, err := dns.PackRR(rr, buf, 0, nil, false)
		if err == nil {
			return buf[foreignHeader:end:end], nil
		}
		if size >= foreignHeader+maxRData {
			return nil, err
		}
	}
	return nil, errors.New("it is too long")
}

func unpackForeign(typ uint16, rdata string) (dns.RR, error) {
	if rdata == "" && typ != typeAPL && typ != dns.TypeNULL {
		return nil, errors.New("rdata is empty")
	}
	wire := make([]byte, 0, foreignHeader+len(rdata))
	wire = append(wire, 0)
	wire = binary.BigEndian.AppendUint16(wire, typ)
	wire = binary.BigEndian.AppendUint16(wire, dns.ClassINET)
	wire = binary.BigEndian.AppendUint32(wire, 0)
	wire = binary.BigEndian.AppendUint16(wire, uint16(len(rdata)))
	wire = append(wire, rdata...)
	rr, end, err := dns.UnpackRR(wire, 0)
	if err == nil && end != len(wire) {
		err = errors.New("octets are left over")
	}
	return rr, err
}

// foreignDefect is what miekg/dns says, without its prefix and its position.
func foreignDefect(err error) string {
	s := strings.TrimPrefix(err.Error(), "dns: ")
	if i := strings.LastIndex(s, " at line: "); i >= 0 {
		s = s[:i]
	}
	return s
}

// recoverInto turns a panic of a parser that others wrote into an error, so that no text
// and no rdata stops the caller.
func recoverInto(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("it cannot be read: %v", p)
	}
}
