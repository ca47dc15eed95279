package engine

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// Pattern is a regular expression that products have in common, in the syntax of RE2 (https://golang.org/s/re2syntax). It is
// looked for in names in lower case without their final dot; anywhere, where it does not begin with ^ or end with $. It has
//   - characters, \. for a dot and . for any character;
//   - classes: [a-z0-9], [^.], \d, \w;
//   - one of these with *, + or ?, or {2}, {2,4}, {2,}
//
// and neither | nor groups. Patterns that may take long are refused: two of *, + and {2,}, and one more after a ^; each may
// be eight of ? and the optional part of {2,4} instead. The zero Pattern is none.
type Pattern struct {
	text string
	lua  string // the same as a pattern of Lua 5.1 (§5.4.1)
}

// maxEffort bounds how many ways there are to find out that a name, of up to 253 characters, has no such thing: its logarithm
// to base 2.
const maxEffort = 24

// ParsePattern reads a regular expression.
func ParsePattern(text string) (Pattern, error) {
	if len(text) > 255 {
		return Pattern{}, fmt.Errorf("a pattern of %d characters: 255 at most", len(text))
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' || 'A' <= c && c <= 'Z' {
			return Pattern{}, fmt.Errorf("pattern %q has other characters than names in lower case", text)
		}
	}
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return Pattern{}, fmt.Errorf("pattern %q: %w", text, err)
	}
	if regexp.MustCompile(text).MatchString("") {
		return Pattern{}, fmt.Errorf("pattern %q is in every name", text)
	}
	t := luaPattern{effort: 8} // it begins at any character
	if err := t.sequence(re); err != nil {
		return Pattern{}, fmt.Errorf("pattern %q %w", text, err)
	}
	if t.effort > maxEffort || len(t.text) > 1024 {
		return Pattern{}, fmt.Errorf("pattern %q may take long: there are two of *, + and {2,}, and three after a ^, or eight of ? instead of one of these", text)
	}
	return Pattern{text, t.text}, nil
}

func (p Pattern) String() string { return p.text }

// MarshalText implements encoding.TextMarshaler.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Pattern) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePattern(string(text))
	return err
}

// luaPattern is one that is being written.
type luaPattern struct {
	text   string
	effort int // see maxEffort
}

// sequence writes items one after another; ^ is the first, $ the last.
func (t *luaPattern) sequence(re *syntax.Regexp) error {
	items := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		items = re.Sub
	}
	for i, item := range items {
		switch {
		case item.Op == syntax.OpBeginText && i == 0:
			t.text += "^"
			t.effort -= 8
		case item.Op == syntax.OpEndText && i == len(items)-1:
			t.text += "$"
		case item.Op == syntax.OpLiteral:
			for _, c := range item.Rune {
				one, err := luaItem(&syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{c}, Flags: item.Flags})
				if err != nil {
					return err
				}
				t.text += one
			}
		default:
			if err := t.repeated(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// repeated writes an item as often as it comes.
func (t *luaPattern) repeated(re *syntax.Regexp) error {
	least, most, item := 1, 1, re // most -1: without end
	switch re.Op {
	case syntax.OpStar:
		least, most, item = 0, -1, re.Sub[0]
	case syntax.OpPlus:
		least, most, item = 1, -1, re.Sub[0]
	case syntax.OpQuest:
		least, most, item = 0, 1, re.Sub[0]
	case syntax.OpRepeat:
		least, most, item = re.Min, re.Max, re.Sub[0]
	}
	one, err := luaItem(item)
	if err != nil {
		return err
	}
	t.text += strings.Repeat(one, least)
	if most < 0 {
		t.text += one + "*"
		t.effort += 8
		return nil
	}
	t.text += strings.Repeat(one+"?", most-least)
	t.effort += most - least
	return nil
}

// luaItem is a pattern of one character.
func luaItem(re *syntax.Regexp) (string, error) {
	switch re.Op {
	case syntax.OpLiteral:
		if c := re.Rune[0]; len(re.Rune) == 1 && re.Flags&syntax.FoldCase == 0 && strings.ContainsRune(written, c) {
			return luaCharacter(c), nil
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return ".", nil
	case syntax.OpCharClass:
		return luaClass(re.Rune)
	}
	return "", fmt.Errorf("has %q: there are characters, classes of them, and how often one of these comes, and neither | nor groups", re)
}

// written are the characters that products write names with, but for quotes and escapes, which no pattern has.
const written = "!#$%&()*+,-./0123456789:;<=>?@[]^_`abcdefghijklmnopqrstuvwxyz{|}~"

// luaClass is a pattern for one character of ranges, each of a first and a last one.
func luaClass(ranges []rune) (string, error) {
	var in, out strings.Builder
	for _, c := range written {
		is := false
		for i := 0; i+1 < len(ranges); i += 2 {
			is = is || ranges[i] <= c && c <= ranges[i+1]
		}
		if is {
			in.WriteString(luaCharacter(c))
		} else {
			out.WriteString(luaCharacter(c))
		}
	}
	switch {
	case in.Len() == 0:
		return "", errors.New("has a class without characters of names")
	case out.Len() == 0:
		return ".", nil
	case in.Len() <= out.Len():
		return "[" + in.String() + "]", nil
	default:
		return "[^" + out.String() + "]", nil
	}
}

// luaCharacter is a pattern for one character.
func luaCharacter(c rune) string {
	if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
		return string(c)
	}
	return "%" + string(c)
}
