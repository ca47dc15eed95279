package zone

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of RFC 1035 §2.3.4, in octets of the wire form.
const (
	MaxName  = 255
	MaxLabel = 63
)

// Name is an absolute domain name in wire form (RFC 1035 §3.1), letters in lower case:
// length-prefixed labels closed by the zero octet of the root, 1 to 255 octets.
// Names are comparable and may be map keys. The zero value "" is no name at all.
type Name string

// Root is the name of the root zone, ".".
const Root Name = "\x00"

// NameError reports why a text is no domain name.
type NameError struct {
	Text   string
	Defect string
}

func (e *NameError) Error() string { return fmt.Sprintf("name %q %s", e.Text, e.Defect) }

// Reason is the reason of the condition or finding that the error becomes.
func (*NameError) Reason() string { return "BadName" }

// ParseName reads a name in presentation form (RFC 1035 §5.1: escapes \X and \DDD).
// A name without a final dot is relative to origin; "@" is origin itself. Letters are
// folded to lower case. With an empty origin every name counts as absolute.
func ParseName(text string, origin Name) (Name, error) {
	var buf [MaxName + 1]byte
	w, err := appendName(buf[:0], text, origin)
	return Name(w), err
}

// appendName appends to w, which is empty, the wire form of what ParseName reads.
func appendName(w []byte, text string, origin Name) ([]byte, error) {
	switch text {
	case "":
		return nil, &NameError{text, "is empty"}
	case "@":
		if origin == "" {
			return nil, &NameError{text, "stands for an origin, and there is none"}
		}
		return append(w, origin...), nil
	case ".":
		return append(w, 0), nil
	}
	w, absolute, err := appendLabels(w, text)
	if err != nil {
		return nil, err
	}
	foldWire(w)
	switch {
	case absolute:
	case origin == "":
		w = append(w, 0)
	default:
		w = append(w, origin...)
	}
	if len(w) > MaxName {
		return nil, &NameError{text, fmt.Sprintf("is longer than %d octets", MaxName)}
	}
	return w, nil
}

// appendLabels appends the labels of text; the root's zero octet only if text is absolute,
// which is if it ends in a dot.
func appendLabels(w []byte, text string) (wire []byte, absolute bool, err error) {
	start := len(w)
	w = append(w, 0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case '.':
			if len(w) == start+1 {
				return nil, false, &NameError{text, "has an empty label"}
			}
			w[start] = byte(len(w) - start - 1)
			start = len(w)
			w = append(w, 0)
			continue
		case '\\':
			octet, size, err := unescape(text[i:])
			if err != nil {
				return nil, false, &NameError{text, err.Error()}
			}
			c = octet
			i += size - 1
		}
		if len(w)-start > MaxLabel {
			return nil, false, &NameError{text, fmt.Sprintf("has a label longer than %d octets", MaxLabel)}
		}
		if len(w) >= MaxName+1 {
			return nil, false, &NameError{text, fmt.Sprintf("is longer than %d octets", MaxName)}
		}
		w = append(w, c)
	}
	w[start] = byte(len(w) - start - 1)
	return w, w[start] == 0, nil
}

var errEscape = errors.New(`has a bad escape (RFC 1035 §5.1 has \X and \DDD)`)

// unescape reads the escape that s starts with and returns its octet and length in s.
func unescape(s string) (octet byte, size int, err error) {
	if len(s) < 2 {
		return 0, 0, errEscape
	}
	if s[1] < '0' || s[1] > '9' {
		return s[1], 2, nil
	}
	if len(s) < 4 {
		return 0, 0, errEscape
	}
	v := 0
	for _, d := range []byte(s[1:4]) {
		if d < '0' || d > '9' {
			return 0, 0, errEscape
		}
		v = v*10 + int(d-'0')
	}
	if v > 255 {
		return 0, 0, errEscape
	}
	return byte(v), 4, nil
}

// foldWire makes the letters A-Z of a wire form lower case: length octets are at most 63 and
// never letters.
func foldWire(w []byte) {
	for i, c := range w {
		if 'A' <= c && c <= 'Z' {
			w[i] = c + ('a' - 'A')
		}
	}
}

// lower is the name of a wire form, which it folds in place.
func lower(w []byte) Name {
	foldWire(w)
	return Name(w)
}

var errWireName = errors.New("name is not in uncompressed wire form")

// NameFromWire reads the uncompressed name at the start of b and returns its length in b.
func NameFromWire(b []byte) (n Name, size int, err error) {
	for {
		if size >= len(b) || size >= MaxName {
			return "", 0, errWireName
		}
		l := int(b[size])
		if l == 0 {
			size++
			break
		}
		if l > MaxLabel {
			return "", 0, errWireName
		}
		size += l + 1
	}
	var buf [MaxName]byte
	return lower(append(buf[:0], b[:size]...)), size, nil
}

// String returns the presentation form with a final dot; octets outside printable ASCII
// and those special in master files are escaped.
func (n Name) String() string {
	if n == "" {
		return ""
	}
	if n == Root {
		return "."
	}
	var s strings.Builder
	for label := range n.LabelSeq() {
		for i := range len(label) {
			c := label[i]
			switch {
			case strings.IndexByte(`."\;()@$`, c) >= 0:
				s.WriteByte('\\')
				s.WriteByte(c)
			case c <= ' ' || c > '~':
				fmt.Fprintf(&s, "\\%03d", c)
			default:
				s.WriteByte(c)
			}
		}
		s.WriteByte('.')
	}
	return s.String()
}

// LabelSeq yields the labels from the leftmost on, without the root's empty one.
func (n Name) LabelSeq() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := 0; i < len(n) && n[i] != 0; i += int(n[i]) + 1 {
			if !yield(string(n[i+1 : i+1+int(n[i])])) {
				return
			}
		}
	}
}

// Labels counts the labels without the root's empty one: 0 for the root.
func (n Name) Labels() int {
	count := 0
	for i := 0; i < len(n) && n[i] != 0; i += int(n[i]) + 1 {
		count++
	}
	return count
}

// Parent returns the name without its leftmost label, or "" for the root.
func (n Name) Parent() Name {
	if len(n) <= 1 {
		return ""
	}
	return n[1+int(n[0]):]
}

// Within reports whether n is apex or a name below it.
func (n Name) Within(apex Name) bool {
	if len(n) < len(apex) || n[len(n)-len(apex):] != apex {
		return false
	}
	cut := len(n) - len(apex)
	i := 0
	for i < cut {
		i += int(n[i]) + 1
	}
	return i == cut
}

// Below reports whether n is strictly below apex.
func (n Name) Below(apex Name) bool { return len(n) > len(apex) && n.Within(apex) }

// IsWildcard reports whether the leftmost label is "*" (RFC 4592 §2.1.1).
func (n Name) IsWildcard() bool { return len(n) > 2 && n[0] == 1 && n[1] == '*' }

// Child returns label.n; it fails when the label or the whole grows too long.
// The label is taken as octets, not as presentation form.
func (n Name) Child(label string) (Name, error) {
	if label == "" || len(label) > MaxLabel || 1+len(label)+len(n) > MaxName {
		return "", &NameError{label, "is no label that fits before " + n.String()}
	}
	return lower(append(append([]byte{byte(len(label))}, label...), n...)), nil
}

// Compare orders names canonically (RFC 4034 §6.1).
func (n Name) Compare(o Name) int { return strings.Compare(n.key(), o.key()) }

// SortKey is n in a form whose byte order is the canonical order of names. It has at most
// 2*MaxName octets, none for the root.
func (n Name) SortKey() string { return n.key() }

// key is n in a form whose byte order is the canonical order of names, and of which the
// keys of all names below n start with n's own: labels from the root down, each closed by
// 0x00, with 0x00 and 0x01 inside a label escaped as 0x01 0x01 and 0x01 0x02.
func (n Name) key() string {
	var buf [2*MaxName + 1]byte
	return string(n.appendKey(buf[:0]))
}

func (n Name) appendKey(k []byte) []byte {
	var starts [128]uint8
	count := 0
	for i := 0; i < len(n) && n[i] != 0; i += int(n[i]) + 1 {
		starts[count] = uint8(i)
		count++
	}
	for ; count > 0; count-- {
		at := int(starts[count-1])
		for _, c := range []byte(n[at+1 : at+1+int(n[at])]) {
			if c <= 1 {
				k = append(k, 1, c+1)
			} else {
				k = append(k, c)
			}
		}
		k = append(k, 0)
	}
	return k
}
