package zone

import (
	"fmt"
	"strings"
)

// token is one word of a master file: src[start:end], without the quotes around a quoted one.
type token struct {
	start, end int
	position        // where the word or its opening quote is
	quoted     bool // a character-string in quotes
	inner      bool // a word such as alpn="h2 h3", which has a quoted part
}

// position is a place in a text.
type position struct {
	at   int
	line int // from 1
	bol  int // where the line begins
}

// lexer divides a master file into entries (RFC 1035 §5.1). Quotes and comments end with
// their line at the latest, and parentheses do not nest: so an entry at fault takes no more
// of the text with it than it must, and no part of the text is read more than twice.
type lexer struct {
	src string
	position
	tokens []token // the entry's words; the next call of entry overwrites them
	value  bool    // src is the value of one record: no comments, and line breaks are blanks
	stop   int     // where a line starts from which on no entry is wanted, unless one has started before
}

// lexFault is what the lexer finds wrong itself; err is an EntryError.
type lexFault struct {
	position
	err error
}

func newLexFault(at position, defect string) *lexFault {
	return &lexFault{at, &EntryError{"SyntaxError", defect}}
}

const (
	defectQuote     = "the quote is not closed in its line"
	defectBackslash = "a backslash ends the line"
)

// endsWord marks the octets that end a word.
var endsWord = func() (ends [256]bool) {
	for _, c := range " \t\r\n;()\"" {
		ends[c] = true
	}
	return ends
}()

// entry reads the words of the next entry into l.tokens; there are none at stop or when the text ends.
// blank tells that the entry starts with blanks, so that it has no owner of its own. After
// a fault the words are those before it, and the next entry starts where the text makes
// sense again.
func (l *lexer) entry() (blank bool, fault *lexFault) {
	l.tokens = l.tokens[:0]
	var open position // of the parenthesis that is open, line 0 for none
	first := true     // nothing of the entry has been read
	for l.at < len(l.src) {
		c := l.src[l.at]
		switch {
		case c == '\n':
			l.newline()
			switch {
			case l.value, open.line > 0:
			case fault != nil || len(l.tokens) > 0:
				return blank, fault
			case l.at == l.stop:
				return false, nil
			default:
				blank, first = false, true
			}
			continue
		case c == ' ', c == '\t', c == '\r':
			blank = blank || first
			first = false
			l.at++
			continue
		case c == ';' && !l.value:
			l.skipLine()
			continue
		}
		first = false
		here := l.position
		switch {
		case c == '(' && open.line > 0:
			if fault == nil {
				fault = newLexFault(open, fmt.Sprintf("the parenthesis is not closed before the next one in line %d", l.line))
			}
			l.resync(fault.position)
			return blank, fault
		case c == '(':
			l.at++
			if fault == nil {
				open = here
			}
		case c == ')' && open.line == 0:
			if fault == nil {
				fault = newLexFault(here, "nothing opens this parenthesis")
			}
			l.skipLine()
		case c == ')':
			l.at++
			open = position{}
		default:
			inner, defect := l.skipWord()
			if defect != "" {
				if fault == nil {
					fault = newLexFault(here, defect)
				}
				l.skipLine()
			}
			if fault != nil {
				continue // behind a fault only the end of the entry matters
			}
			t := token{start: here.at, end: l.at, position: here, quoted: c == '"', inner: inner}
			if t.quoted {
				t.start++
				t.end--
			}
			l.tokens = append(l.tokens, t)
		}
	}
	if open.line > 0 {
		if fault == nil {
			fault = newLexFault(open, "the parenthesis is never closed")
		}
		l.resync(fault.position)
	}
	return blank, fault
}

func (p *position) newline() {
	p.at++
	p.line++
	p.bol = p.at
}

// skipLine goes to the end of the line.
func (l *lexer) skipLine() {
	if i := strings.IndexByte(l.src[l.at:], '\n'); i >= 0 {
		l.at += i
	} else {
		l.at = len(l.src)
	}
}

// resync goes to the first line behind that of p which starts with a word: lines that start
// with blanks are taken for the rest of the entry whose parenthesis is not closed.
func (l *lexer) resync(p position) {
	l.position = p
	for {
		l.skipLine()
		if l.at == len(l.src) {
			return
		}
		l.newline()
		if l.at == len(l.src) || strings.IndexByte(" \t\r\n;()", l.src[l.at]) < 0 {
			return
		}
	}
}

// skipWord reads one word, or one text in quotes. inner tells of a quoted part in a word,
// which then ends there; defect is what is wrong with it, or "".
func (l *lexer) skipWord() (inner bool, defect string) {
	if l.src[l.at] == '"' {
		return false, l.skipQuoted()
	}
	for start := l.at; l.at < len(l.src); l.at++ {
		switch c := l.src[l.at]; {
		case c == '\\':
			if l.at++; l.at == len(l.src) || l.src[l.at] == '\n' {
				return false, defectBackslash
			}
		case !endsWord[c], c == ';' && l.value:
		case c == '"' && l.at > start && l.src[l.at-1] == '=':
			return true, l.skipQuoted()
		default:
			return false, ""
		}
	}
	return false, ""
}

// skipQuoted reads from one quote over the next.
func (l *lexer) skipQuoted() (defect string) {
	for l.at++; l.at < len(l.src); l.at++ {
		switch l.src[l.at] {
		case '\\':
			if l.at++; l.at < len(l.src) && l.src[l.at] == '\n' {
				return defectQuote
			}
		case '\n':
			return defectQuote
		case '"':
			l.at++
			return ""
		}
	}
	l.at = len(l.src)
	return defectQuote
}
