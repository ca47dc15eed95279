package zone

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"
)

func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func secret(t testing.TB, digits string) [16]byte {
	t.Helper()
	return [16]byte(unhex(t, digits))
}

// TestCookies has the examples of RFC 9018 appendix A, and the rules of its section 4.3.
func TestCookies(t *testing.T) {
	const (
		rfc, before, after = "e5e973e5a6b2a43f48e7dc849e37bfcf", "dd3bdf9344b678b185a6f5cb60fca715", "445536bcd2513298075a5d379663c962"
		learned            = "2464c4abcf10c957010000005cf79f111f8130c3eee29480" // appendix A.1
		at                 = 1559731985                                         // when
	)
	for sentence, tc := range map[string]struct {
		secrets []string
		client  string
		cookie  string
		now     int64
		want    Cookie
		reply   string // "" for the same, "new" for another one
	}{
		"A.1: a client learns its cookie":                     {[]string{rfc}, "198.51.100.100", "2464c4abcf10c957", at, ClientCookie, learned},
		"A.2: a cookie of 40 minutes is renewed":              {[]string{rfc}, "198.51.100.100", learned, 1559734385, GoodCookie, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"},
		"A.3: reserved bits are hashed as they come":          {[]string{rfc}, "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", 1559727985, GoodCookie, ""},
		"A.3: and are 0 in the cookie that renews it":         {[]string{rfc}, "203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", 1559734700, BadCookie, "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e"},
		"A.4: one by the secret before is renewed by the new": {[]string{after, before}, "2001:db8:220:1:59de:d0f4:8769:82b8", "22681ab97d52c298010000005cf7c57926556bd0934c72f8", 1559741961, GoodCookie, "22681ab97d52c298010000005cf7c609a6bb79d16625507a"},

		"a fresh cookie stays":                       {[]string{rfc}, "198.51.100.100", learned, at, GoodCookie, ""},
		"one of 30 minutes stays":                    {[]string{rfc}, "198.51.100.100", learned, at + 1800, GoodCookie, ""},
		"one of a second more is renewed":            {[]string{rfc}, "198.51.100.100", learned, at + 1801, GoodCookie, "new"},
		"one of an hour is accepted":                 {[]string{rfc}, "198.51.100.100", learned, at + 3600, GoodCookie, "new"},
		"one of a second more is not":                {[]string{rfc}, "198.51.100.100", learned, at + 3601, BadCookie, "new"},
		"one from a clock 5 minutes ahead is":        {[]string{rfc}, "198.51.100.100", learned, at - 300, GoodCookie, ""},
		"one from a clock further ahead is not":      {[]string{rfc}, "198.51.100.100", learned, at - 301, BadCookie, "new"},
		"a secret that is about to be used is known": {[]string{after, rfc}, "198.51.100.100", learned, at, GoodCookie, "new"},
		"one by a secret that is gone is bad":        {[]string{after, before}, "198.51.100.100", learned, at, BadCookie, "new"},
		"another client's cookie is bad":             {[]string{rfc}, "198.51.100.101", learned, at, BadCookie, "new"},
		"another version is bad":                     {[]string{rfc}, "198.51.100.100", "2464c4abcf10c957020000005cf79f111f8130c3eee29480", at, BadCookie, "new"},
		"another client cookie with it is bad":       {[]string{rfc}, "198.51.100.100", "2464c4abcf10c958010000005cf79f111f8130c3eee29480", at, BadCookie, "new"},
		"a server cookie of 8 octets is bad":         {[]string{rfc}, "198.51.100.100", learned[:32], at, BadCookie, "new"},
		"a server cookie of 32 octets is bad":        {[]string{rfc}, "198.51.100.100", learned + learned[16:], at, BadCookie, "new"},
		"an IPv6 client's is not that of IPv4":       {[]string{rfc}, "::c633:6464", learned, at, BadCookie, "new"},
	} {
		t.Run(sentence, func(t *testing.T) {
			var secrets [][16]byte
			for _, s := range tc.secrets {
				secrets = append(secrets, secret(t, s))
			}
			var cookie [clientCookieSize + maxServerCookie]byte
			size := copy(cookie[:], unhex(t, tc.cookie))
			client := netip.MustParseAddr(tc.client)
			if got := answerCookie(&cookie, size, secrets, client, tc.now); got != tc.want {
				t.Errorf("the cookie is worth %d, wanted %d", got, tc.want)
			}
			got := hex.EncodeToString(cookie[:clientCookieSize+serverCookieSize])
			switch {
			case tc.reply == "" && got != tc.cookie, len(tc.reply) > 3 && got != tc.reply:
				t.Errorf("the reply has %s", got)
			case tc.reply == "new":
				if got[:16] != tc.cookie[:16] || got[16:32] != fmt.Sprintf("01000000%08x", tc.now) {
					t.Errorf("the reply has %s", got)
				}
				if answerCookie(&cookie, clientCookieSize+serverCookieSize, secrets, client, tc.now) != GoodCookie {
					t.Errorf("the reply's cookie %s is not accepted", got)
				}
			}
		})
	}
}
