package engine

import (
	"strings"
	"testing"
)

func TestPatternsInLua(t *testing.T) {
	for pattern, want := range map[string]string{
		`^ad[0-9]+\.`:       `^ad[0123456789][0123456789]*%.`,
		`\.tracker\.`:       `%.tracker%.`,
		`-{2,3}cdn$`:        `%-%-%-?cdn$`,
		`^x[^.]*$`:          `^x[^%.]*$`,
		`^..\d?corp`:        `^..[0123456789]?corp`,
		`a|b`:               `[ab]`,
		`%a`:                `%%a`,
		`^[a-c]{2,}_\w{0}x`: `^[abc][abc][abc]*%_x`,
	} {
		p, err := ParsePattern(pattern)
		if err != nil || p.lua != want {
			t.Errorf("%s: got %s, %v; want %s", pattern, p.lua, err, want)
		}
	}
}

// FuzzParsePattern: a pattern ends no string or line of a file, and means the same when it is read again.
func FuzzParsePattern(f *testing.F) {
	for _, seed := range []string{`^ad[0-9]+\.`, `\x27`, `[!-~]`, `[^\x00-\x{10ffff}]`, `a{2,}`, `(?i)a`, `a|b`, `\Qa'b\E`, "a$b", `[^'"]`, `[[:punct:]]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePattern(text)
		if err != nil {
			return
		}
		if strings.ContainsAny(p.lua, "'\"\\\x00\r\n") || len(p.lua) > 1024 {
			t.Errorf("%q is %q", text, p.lua)
		}
		if again, err := ParsePattern(p.String()); err != nil || again != p {
			t.Errorf("%q became %q, %v", text, again, err)
		}
	})
}
