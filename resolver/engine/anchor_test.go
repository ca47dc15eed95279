package engine

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
)

var (
	sha1Digits   = strings.Repeat("0f", 20)
	sha256Digits = strings.Repeat("A5", 32)
	sha384Digits = strings.Repeat("1b", 48)
	rsaKey       = "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw=="
	ecdsaKey     = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 64)))
)

func TestAnchorsAreWrittenAnew(t *testing.T) {
	for text, want := range map[string]struct{ record, ds string }{
		"corp IN DS 1 13 2 " + sha256Digits:                          {"corp. 3600 IN DS 1 13 2 " + sha256Digits, "1 13 2 " + sha256Digits},
		"CORP. 60 DS 1 8 1 " + sha1Digits[:7] + " " + sha1Digits[7:]: {"corp. 60 IN DS 1 8 1 " + strings.ToUpper(sha1Digits), "1 8 1 " + strings.ToUpper(sha1Digits)},
		". DS 65535 15 4 (\n" + sha384Digits + " ) ; of a ceremony":  {". 3600 IN DS 65535 15 4 " + strings.ToUpper(sha384Digits), "65535 15 4 " + strings.ToUpper(sha384Digits)},
		"dskey.example.com. 86400 IN DNSKEY 256 3 5 " + rsaKey[:9] + " " + rsaKey[9:]: { // RFC 4509 §2.3
			"dskey.example.com. 86400 IN DNSKEY 256 3 5 " + rsaKey, "60485 5 2 D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A"},
	} {
		a, err := ParseAnchor(text)
		if err != nil || a.String() != want.record || a.DS() != want.ds {
			t.Errorf("%q: got %q with DS %q, %v; want %q, %q", text, a, a.DS(), err, want.record, want.ds)
		}
	}
}

func TestAnchorsThatAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"a program for a digest":     `corp. IN DS 1 13 2 AB'.._G['\111\115'].execute('id')..'`,
		"a program for a key":        `corp. IN DNSKEY 257 3 13 '..os.execute('id')..'`,
		"an escape for an octet":     `corp. IN DS 1 13 2 \039` + sha256Digits,
		"a quoted digest":            `corp. IN DS 1 13 2 "` + sha256Digits + `"`,
		"a quote in the owner":       `a'b. IN DS 1 13 2 ` + sha256Digits,
		"a quoted key with blanks":   `corp. IN DNSKEY 257 3 13 "` + ecdsaKey + `"`,
		"a digest that is too short": "corp. IN DS 1 13 2 " + sha256Digits[2:],
		"a digest that is too long":  "corp. IN DS 1 13 2 " + sha256Digits + "00",
		"half an octet":              "corp. IN DS 1 13 2 " + sha256Digits[1:],
		"a digest of another type":   "corp. IN DS 1 13 1 " + sha256Digits,
		"a type that is not known":   "corp. IN DS 1 13 3 " + sha256Digits,
		"no digest":                  "corp. IN DS 1 13 2",
		"another class":              "corp. CH DS 1 13 2 " + sha256Digits,
		"a key that is not base64":   "corp. IN DNSKEY 257 3 13 !!!!",
		"a key that is cut off":      "corp. IN DNSKEY 257 3 13 " + ecdsaKey[:40],
		"a key beyond a message":     "corp. IN DNSKEY 257 3 8 " + base64.StdEncoding.EncodeToString(make([]byte, 1<<16)),
		"no key":                     "corp. IN DNSKEY 257 3 13",
		"another protocol":           "corp. IN DNSKEY 257 4 13 " + ecdsaKey,
		"a key that is revoked":      "corp. IN DNSKEY 385 3 13 " + ecdsaKey,
		"a key that is of no zone":   "corp. IN DNSKEY 1 3 13 " + ecdsaKey,
		"another type":               "corp. IN CDS 1 13 2 " + sha256Digits,
		"two records":                "corp. IN DS 1 13 2 " + sha256Digits + "\ncorp. IN DS 2 13 2 " + sha256Digits,
		"a file":                     "$INCLUDE /etc/passwd",
		"many records":               "$GENERATE 1-9 $.corp. IN DS $ 13 2 " + sha256Digits,
		"nothing":                    "",
		"a comment":                  "; corp.",
	} {
		t.Run(name, func(t *testing.T) {
			if a, err := ParseAnchor(text); err == nil {
				t.Errorf("%q was read as %q", text, a)
			}
		})
	}
}

var safeAnchor = regexp.MustCompile(`^([a-z0-9_-]+\.)*\.? [0-9]+ IN (DS [0-9]+ [0-9]+ [124] [0-9A-F]+|DNSKEY 25[67] 3 [0-9]+ [A-Za-z0-9+/]+=*)$`)

// FuzzParseAnchor: an anchor ends no string or line of a file, has a DS, and means the same when it is read again.
func FuzzParseAnchor(f *testing.F) {
	for _, seed := range []string{
		"corp. IN DS 1 13 2 " + sha256Digits, ". DS 1 8 1 " + sha1Digits, "corp. IN DNSKEY 257 3 13 " + ecdsaKey, "corp. DNSKEY 256 3 8 AwEAAQ==",
		`corp. IN DS 1 13 2 AB'.._G['\111\115']..'`, `corp. IN DNSKEY 257 3 13 "a" 'b'`, "$INCLUDE /etc/passwd", "corp. DNSKEY 257 3 1 AA==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAnchor(text)
		if err != nil {
			return
		}
		if !safeAnchor.MatchString(a.String()) || !safeAnchor.MatchString(a.Owner()+" 0 IN DS "+a.DS()) {
			t.Errorf("%q is %q, DS %q", text, a, a.DS())
		}
		if again, err := ParseAnchor(a.String()); err != nil || again != a {
			t.Errorf("%q became %q, %v", text, again, err)
		}
	})
}
