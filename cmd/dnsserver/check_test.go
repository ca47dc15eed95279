package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// checkers are how the peers check a zone: they say what is wrong, and exit with a status that is not 0.
var checkers = [][]string{
	{"named-checkzone", "-i", "local", "example.test", "FILE"},
	{"kzonecheck", "-o", "example.test", "FILE"},
	{"nsd-checkzone", "example.test", "FILE"},
}

// TestCheckAgreesWithPeers checks zones with ours, BIND's, Knot's and NSD's: what two of the
// three refuse is refused, but for the differences given with their reasons. Where
// peers name lines, ours are among them.
func TestCheckAgreesWithPeers(t *testing.T) {
	const soa, ns = "$TTL 300\n@ SOA ns hostmaster 7 3600 600 86400 60\n", "@ NS ns\nns A 10.0.0.1\n"
	const head = soa + ns // four lines, three records
	for sentence, tc := range map[string]struct {
		text    string
		want    string // FILE stands for the path; the line for a zone that is good is left out
		good    bool
		first   bool   // peers name the line where they noticed, ours the one that has to change
		differs string // why ours says the opposite of most peers
	}{
		"a plain zone": {text: head + "www A 10.0.0.2\n", good: true},
		"a zone with every form of a master file": {
			text: head + "$ORIGIN sub.example.test.\na 60 IN A 10.0.0.2\n  IN 60 TXT ( \"b\" ; comment\n \"c\" )\n@ TYPE65300 \\# 2 0102\n\\000.x A 10.0.0.3\n", good: true,
		},
		"no SOA":                           {text: "$TTL 300\n" + ns, want: "FILE: example.test. SOA: the zone has none at its apex (RFC 1035 §5.2)\n"},
		"no NS":                            {text: soa, want: "FILE: example.test. NS: the zone has none at its apex (RFC 1035 §5.2)\n"},
		"two SOA":                          {text: head + "@ SOA ns hostmaster 8 3600 600 86400 60\n", want: "FILE:5:1: example.test. SOA: the zone has two (RFC 1035 §5.2)\n"},
		"one SOA twice":                    {text: soa + strings.SplitAfter(soa, "\n")[1] + ns, good: true},
		"SOA below the apex":               {text: head + "a SOA ns hostmaster 8 3600 600 86400 60\n", want: "FILE:5:1: a.example.test. SOA: SOA belongs to the apex example.test. alone (RFC 1035 §5.2)\n"},
		"a bad address":                    {text: head + "www A 10.0.0\n", want: "FILE:5:7: "},
		"an IPv6 address for A":            {text: head + "www A ::1\n", want: "FILE:5:7: "},
		"a number too large":               {text: head + "@ MX 65536 ns\n", want: "FILE:5:6: "},
		"an unknown type":                  {text: head + "www NOSUCH 1\n", want: "FILE:5:5: "},
		"rdata with a word too many":       {text: head + "www A 10.0.0.2 10.0.0.3\n", want: "FILE:5:"},
		"rdata that is missing":            {text: head + "www MX 10\n", want: "FILE:5:"},
		"a parenthesis without its end":    {text: head + "www TXT ( \"a\"\n", first: true, want: "FILE:5:"},
		"a quote without its end":          {text: head + "www TXT \"a\n", want: "FILE:5:"},
		"a label of 64 octets":             {text: head + strings.Repeat("a", 64) + " A 10.0.0.2\n", want: "FILE:5:1: "},
		"an empty label":                   {text: head + "a..b A 10.0.0.2\n", want: "FILE:5:1: "},
		"a TTL that is none":               {text: head + "$TTL never\n", want: "FILE:5:"},
		"class CH":                         {text: head + "www CH A 10.0.0.2\n", want: "FILE:5:"},
		"an unknown directive":             {text: head + "$NOSUCH x\n", want: "FILE:5:1: "},
		"an include that does not exist":   {text: head + "$INCLUDE nowhere\n", want: "FILE:5:1: "},
		"an empty file":                    {text: "", want: "FILE: example.test. SOA: the zone has none at its apex (RFC 1035 §5.2)\n"},
		"SOA without its last number":      {text: "$TTL 300\n@ SOA ns hostmaster 7 3600 600 86400\n" + ns, want: "FILE: example.test. SOA: the zone has none at its apex (RFC 1035 §5.2)\nFILE:2:37: SOA wants PRIMARY CONTACT SERIAL REFRESH RETRY EXPIRE MINIMUM: minimum is missing\n"},
		"a character-string of 256 octets": {text: head + "www TXT " + strings.Repeat("a", 256) + "\n", want: "FILE:5:9: "},
		"an escape beyond an octet":        {text: head + "a\\256 A 10.0.0.2\n", want: "FILE:5:1: ", differs: "NSD warns of it, and all who take it serve another name than is written"},
		"a name of 256 octets":             {text: head + strings.Repeat(strings.Repeat("a", 47)+".", 5) + "aa A 10.0.0.2\n", want: "FILE:5:1: "},
		"SRV without a port":               {text: head + "a SRV 1 1 ns\n", want: "FILE:5:"},
		"unknown rdata that is too short":  {text: head + "a TYPE65400 \\# 3 0102\n", want: "FILE:5:"},
		"an odd number of digits":          {text: head + "a TYPE65400 \\# 2 01020\n", want: "FILE:5:"},
		"DS with a digest of wrong length": {text: head + "a NS ns\na DS 1 8 2 0102\n", want: "FILE:6:"},
		"HTTPS with a key twice":           {text: head + "a HTTPS 1 . port=1 port=2\n", want: "FILE:5:"},
		"HTTPS with a port that is none":   {text: head + "a HTTPS 1 . port=65536\n", want: "FILE:5:"},
		"a first record without an owner":  {text: "$TTL 300\n SOA ns hostmaster 7 3600 600 86400 60\n" + ns, want: "FILE: example.test. SOA: the zone has none at its apex (RFC 1035 §5.2)\nFILE:2:2: the first record has no owner\n"},
		"a record without a TTL":           {text: "@ NS ns\n@ 300 SOA ns hostmaster 7 3600 600 86400 60\nns 300 A 10.0.0.1\n", want: "FILE: example.test. NS: the zone has none at its apex (RFC 1035 §5.2)\nFILE:1:1: example.test. NS: it has no TTL, and no $TTL and no record before it states one\n", differs: "NSD and Knot give it 3600, which nobody has written (RFC 2308 §4)"},
		"a TTL beyond 31 bits":             {text: head + "a 2147483648 A 10.0.0.2\n", want: "FILE:5:3: ", differs: "it would mean 0 to resolvers (RFC 2181 §8), which is the opposite of what is written"},
		"a TTL beyond 32 bits":             {text: head + "a 4294967296 A 10.0.0.2\n", want: "FILE:5:3: "},
		"a type for questions":             {text: head + "a AXFR x\n", want: "FILE:5:"},
		"CAA with a bad tag":               {text: head + "a CAA 0 is-sue \"x\"\n", want: "FILE:5:"},
		"LOC that is no place":             {text: head + "a LOC 91 N 0 E 0m\n", want: "FILE:5:"},
		"CNAME beside other data": {
			text: head + "a CNAME ns\na A 10.0.0.2\n", first: true, want: "FILE:5:1: a.example.test. CNAME: CNAME cannot be beside other data (RFC 1034 §3.6.2)\n",
		},
		"two CNAME":           {text: head + "a CNAME ns\na CNAME b\n", first: true, want: "FILE:5:1: a.example.test. CNAME: only one record can be here, the first in canonical order stays\n"},
		"two DNAME":           {text: head + "a DNAME x.\na DNAME y.\n", want: "FILE:6:1: a.example.test. DNAME: only one record can be here, the first in canonical order stays\n"},
		"a name below DNAME":  {text: head + "a DNAME x.\nb.a A 10.0.0.2\n", want: "FILE:6:1: b.a.example.test. A: it is below the DNAME of a.example.test. (RFC 6672 §2.4)\n", first: true},
		"a record elsewhere":  {text: head + "www.example. A 10.0.0.2\n", want: "FILE:5:1: warning: www.example. A: it is outside zone example.test.\n", good: true},
		"TTLs that differ":    {text: head + "a 60 A 10.0.0.2\na 90 A 10.0.0.3\n", want: "FILE:6:1: warning: a.example.test. A: its TTL is not that of line 5; all get the lowest, 60\n", good: true},
		"a name behind a cut": {text: head + "s NS ns.x.\na.s TXT b\n", want: "FILE:6:1: warning: a.s.example.test. TXT: it is hidden by the delegation of s.example.test.\n", good: true},
		"glue":                {text: head + "s NS ns.s\nns.s A 10.0.0.2\nt NS ns.s\n", good: true},
		"a cut at its server": {text: head + "s NS s\ns A 10.0.0.2\n", good: true},
		"MX to an address, a wildcard, elsewhere and nowhere": {
			text: head + "a MX 1 ns\nb MX 1 x.wild\n*.wild A 10.0.0.2\nc MX 1 mail.x.\nd MX 0 .\n", good: true,
		},
		"apex NS without an address": {
			text: soa + "@ NS ns\n", want: "FILE:3:1: warning: example.test. NS: ns.example.test. has no address in this zone\n", good: true,
			differs: "names of one zone come from many users here: one mistake stops none of the others",
		},
		"apex NS that is an alias": {
			text: head + "@ NS a\na CNAME ns\n", want: "FILE:5:1: warning: example.test. NS: a.example.test. is an alias, which it must not be (RFC 2181 §10.3)\n", good: true,
			differs: "as above",
		},
		"a delegation without glue": {
			text: head + "s NS ns.s\n", want: "FILE:5:1: warning: s.example.test. NS: ns.s.example.test. is behind this delegation and has no address as glue (RFC 9471 §2.1)\n", good: true,
		},
		"MX without an address": {
			text: head + "a MX 1 b\n", want: "FILE:5:1: warning: a.example.test. MX: b.example.test. has no address in this zone\n", good: true,
		},
		"MX that is an alias": {
			text: head + "a MX 1 b\nb CNAME ns\n", want: "FILE:5:1: warning: a.example.test. MX: b.example.test. is an alias, which it must not be (RFC 2181 §10.3)\n", good: true,
		},
		"MX below DNAME": {
			text: head + "a MX 1 x.d\nd DNAME y.\n", want: "FILE:5:1: warning: a.example.test. MX: x.d.example.test. is an alias, which it must not be (RFC 2181 §10.3)\n", good: true,
		},
		"SRV without an address": {
			text: head + "_a._tcp SRV 1 1 1 b\n", want: "FILE:5:1: warning: _a._tcp.example.test. SRV: b.example.test. has no address in this zone\n", good: true,
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "zone"), tc.text)
			lines, good := findings(t, "example.test="+path)
			last := strings.LastIndex("\n"+strings.TrimSuffix(lines, "\n"), "\n")
			if got, loaded := lines[:last], strings.HasPrefix(lines[last:], "zone example.test.: loaded serial 7, "); good != tc.good || loaded != tc.good {
				t.Errorf("served %t, wanted %t:\n%s", good, tc.good, lines)
			} else if loaded {
				lines = got
			}
			want := strings.ReplaceAll(tc.want, "FILE", path)
			if strings.HasSuffix(want, "\n") && lines != want || !strings.HasPrefix(lines, want) || want == "" && lines != "" || strings.Count(lines, "\n") > max(strings.Count(want, "\n"), 1) {
				t.Errorf("it said\n%swanted\n%s", lines, want)
			}
			said, refusing := askCheckers(t, path)
			if agrees := (refusing < 2) == tc.good; agrees != (tc.differs == "") {
				t.Errorf("served %t; difference expected: %q. %d peers refuse it:\n%s", tc.good, tc.differs, refusing, said)
			}
			if theirs := linesNamed(path, said); !tc.good && tc.differs == "" && len(theirs) > 0 {
				for line := range linesNamed(path, lines) {
					if !theirs[line] && !tc.first {
						t.Errorf("line %s is none of those that peers name:\n%s", line, said)
					}
				}
			}
		})
	}
}

// askCheckers has all peers check a zone. It returns what they say, and how many refuse it.
func askCheckers(t *testing.T, path string) (said string, refusing int) {
	t.Helper()
	for _, c := range checkers {
		var args []string
		for _, a := range c[1:] {
			args = append(args, strings.ReplaceAll(a, "FILE", path))
		}
		out, err := exec.CommandContext(t.Context(), c[0], args...).CombinedOutput()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			refusing++
			said += fmt.Sprintf("%s refuses it:\n%s", c[0], out)
		case err != nil:
			t.Fatalf("%v: hack/deps prints a PATH that has it", err)
		default:
			said += fmt.Sprintf("%s takes it:\n%s", c[0], out)
		}
	}
	return said, refusing
}

// linesNamed returns the lines of a file that findings are about.
func linesNamed(path, findings string) map[string]bool {
	lines := map[string]bool{}
	for _, found := range regexp.MustCompile(regexp.QuoteMeta(path)+`:(\d+)`).FindAllStringSubmatch(findings, -1) {
		lines[found[1]] = true
	}
	return lines
}

// findings runs the check and returns what it said, and whether all zones can be served.
func findings(t *testing.T, zones ...string) (stdout string, good bool) {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := process(t, append([]string{"check"}, zones...)...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatal(err)
	}
	if (err == nil) != (stderr.Len() == 0) || strings.Count(stderr.String(), "\n") > 1 {
		t.Errorf("it ended with %v and said %s", err, stderr.String())
	}
	return out.String(), err == nil
}

func TestCheckReportsOnEveryZone(t *testing.T) {
	dir := t.TempDir()
	good, bad := zoneFile(t, dir, "good", 5, "www A 10.0.0.2"), zoneFile(t, dir, "bad", 6, "www A 10.0.0")
	lines, ok := findings(t, "bad.test="+bad, "gone.test="+dir+"/gone", "good.test.="+good)
	if ok || !strings.HasPrefix(lines, bad+":5:7: ") || !strings.Contains(lines, "\n"+dir+"/gone: open ") ||
		!strings.HasSuffix(lines, "\nzone good.test.: loaded serial 5, 4 records\n") || strings.Count(lines, "\n") != 3 {
		t.Errorf("it said\n%s", lines)
	}
	if lines, ok := findings(t, "good.test="+good, "other.test="+good); !ok || strings.Count(lines, "\n") != 2 {
		t.Errorf("good zones are reported as\n%s", lines)
	}
	for _, args := range [][]string{nil, {"good.test"}, {"a..b=" + good}} {
		if lines, ok := findings(t, args...); ok || lines != "" {
			t.Errorf("%q is reported as %s", args, lines)
		}
	}
}
