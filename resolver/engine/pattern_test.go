package engine

import "testing"

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
