package control

import (
	"strings"
	"testing"
)

// FuzzQuote: a literal never ends before its end, whatever it holds, and means what it was made of.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "app.pay.corp.", `a\039`, "a'b", "a\nb", "]]", "\\", "\x00\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		literal := quote(text)
		if inner := literal[1 : len(literal)-1]; strings.ContainsAny(inner, "'\n\r\"[]") {
			t.Errorf("%q is %s", text, literal)
		}
		if got, err := unquote(literal); err != nil || got != text {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	})
}

// FuzzUnquote: foreign text is refused or read, without a panic.
func FuzzUnquote(f *testing.F) {
	f.Add(`'{"value":"it\039s"}'`)
	f.Add(`'\'`)
	f.Add(`'\25'`)
	f.Fuzz(func(_ *testing.T, text string) { _, _ = unquote(text) })
}
