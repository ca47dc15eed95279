package changes

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func mustName(t testing.TB, text string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(text, zone.Root)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// say is a change as tests write it: "app.bank.* 1,2>3 #7" is of the name and of those beneath, which left states 1 and 2 and is
// in 3, by serial 7.
func say(c *Change) string {
	text := c.Name.String()
	if c.Beneath {
		text += "*"
	}
	if len(c.Before) > 0 {
		var before []string
		for _, s := range c.Before {
			before = append(before, strconv.FormatUint(s, 10))
		}
		text += fmt.Sprintf(" %s>%d", strings.Join(before, ","), c.After)
	}
	if c.Serial != 0 {
		text += fmt.Sprintf(" #%d", c.Serial)
	}
	return text
}

// understand reads what say writes.
func understand(t testing.TB, text string) Change {
	t.Helper()
	words := strings.Fields(text)
	c := Change{Name: mustName(t, strings.TrimSuffix(words[0], "*")), Apex: mustName(t, "bank."), Beneath: strings.HasSuffix(words[0], "*")}
	for _, w := range words[1:] {
		var before uint64
		var err error
		if serial, is := strings.CutPrefix(w, "#"); is {
			var n uint64
			n, err = strconv.ParseUint(serial, 10, 32)
			c.Serial = uint32(n)
		} else if _, err = fmt.Sscanf(w, "%d>%d", &before, &c.After); err == nil {
			c.Before = []uint64{before}
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	}
	return c
}

// TestWhatWatchersAreTold has one watcher look at certain moments, and others come new.
func TestWhatWatchersAreTold(t *testing.T) {
	for sentence, story := range map[string]string{
		"a change is told once": `
			0s   app.bank. 1>2
			look app.bank. 1>2
			look`,
		"who comes later is told what changed in the last ten minutes": `
			0s   app.bank. 1>2
			new  app.bank. 1>2
			600s
			new  app.bank. 1>2
			601s
			new`,
		"several changes of a name are one, and all states that it left are old": `
			0s   app.bank. 1>2
			1s   app.bank. 2>3
			look app.bank. 1,2>3`,
		"a state that it is in again is not old: only the one between": `
			0s   app.bank. 1>2
			1s   app.bank. 2>1
			look app.bank. 2>1
			2s   app.bank. 1>2
			look app.bank. 1>2
			new  app.bank. 1>2`,
		"who knows of a change is told what came after it": `
			0s   app.bank. 1>2
			look app.bank. 1>2
			1s   app.bank. 2>3
			look app.bank. 2>3
			new  app.bank. 1,2>3`,
		"a state that was left too long ago to be cached is not old": `
			0s   app.bank. 1>2
			599s app.bank. 2>3
			1190s app.bank. 3>4
			new  app.bank. 2,3>4`,
		"names come in the order in which they changed last": `
			0s   a.bank. 1>2
			0s   b.bank. 3>4
			0s   a.bank. 2>5
			look b.bank. 3>4; a.bank. 1,2>5`,
		"an edit has the serial by which servers are known that have it": `
			0s   www.bank. #7
			1s   www.bank. #9
			look www.bank. #9`,
		"who knows of the edit need not know it of the servers when steering moves": `
			0s   app.bank. #7
			look app.bank. #7
			1s   app.bank. 1>2
			look app.bank. 1>2
			new  app.bank. 1>2 #7`,
		"an edit does not change the state": `
			0s   app.bank. 1>2
			1s   app.bank. #7
			look app.bank. 1>2 #7`,
		"a zone that is gone has no serial": `
			0s   www.bank. #7
			1s   www.bank.
			look www.bank.`,
		"nor are there states to leave: others may serve it on": `
			0s   app.bank. 1>2
			1s   app.bank.
			look app.bank.`,
		"what was beneath a name stays so": `
			0s   sub.bank.* #7
			1s   sub.bank. #8
			look sub.bank.* #8`,
		"of too many states the oldest are forgotten": `
			0s   app.bank. 1>2; app.bank. 2>3; app.bank. 3>4; app.bank. 4>5; app.bank. 5>6; app.bank. 6>7; app.bank. 7>8; app.bank. 8>9; app.bank. 9>10
			0s   app.bank. 10>11; app.bank. 11>12; app.bank. 12>13; app.bank. 13>14; app.bank. 14>15; app.bank. 15>16; app.bank. 16>17; app.bank. 17>18
			look app.bank. 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17>18`,
	} {
		t.Run(sentence, func(t *testing.T) {
			l := NewLog()
			began := time.Now()
			now := began
			look := func(at cursor, want string) cursor {
				t.Helper()
				found, next, missed, wake := l.since(now, at, 100)
				var got []string
				for i := range found {
					got = append(got, say(&found[i].Change))
				}
				if strings.Join(got, "; ") != want || missed || wake == nil {
					t.Errorf("after %s told %q, missed %t, wanted %q", now.Sub(began), strings.Join(got, "; "), missed, want)
				}
				return next
			}
			_, at, _, _ := l.since(now, cursor{}, 100)
			for line := range strings.Lines(strings.TrimSpace(story)) {
				what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
				rest = strings.TrimSpace(rest)
				switch what {
				case "look":
					at = look(at, rest)
				case "new":
					look(cursor{}, rest)
				default:
					after, err := time.ParseDuration(what)
					if err != nil {
						t.Fatal(err)
					}
					now = began.Add(after)
					for text := range strings.SplitSeq(rest, ";") {
						if text = strings.TrimSpace(text); text != "" {
							c := understand(t, text)
							c.At = now
							l.Add(c)
						}
					}
				}
			}
		})
	}
}

func TestChangesOfAnotherProcessAreAllNew(t *testing.T) {
	l := NewLog()
	l.Add(Change{Name: mustName(t, "a.bank."), At: time.Now()})
	_, at, _, _ := l.since(time.Now(), cursor{}, 100)
	if found, _, _, _ := l.since(time.Now(), at, 100); len(found) != 0 {
		t.Errorf("told %d names again", len(found))
	}
	again := NewLog()
	again.Add(Change{Name: mustName(t, "a.bank."), At: time.Now()})
	if found, next, missed, _ := again.since(time.Now(), at, 100); len(found) != 1 || missed || next.boot != again.boot {
		t.Errorf("of a new process told %d names, missed %t", len(found), missed)
	}
}

// TestALogIsBounded puts more names than it keeps, with two watchers, of whom one has seen some.
func TestALogIsBounded(t *testing.T) {
	l := NewLog()
	now := time.Now()
	put := func(from, to int) {
		all := make([]Change, 0, to-from)
		for i := from; i < to; i++ {
			all = append(all, Change{Name: mustName(t, fmt.Sprintf("h%d.bank.", i)), Serial: 1, At: now})
		}
		l.Add(all...)
	}
	read := func(at cursor) (names int, missed bool) {
		for more := true; more; {
			found, next, lost, wake := l.since(now, at, 1000)
			names, missed, more, at = names+len(found), missed || lost, wake == nil, next
		}
		return names, missed
	}
	put(0, 10)
	_, early, _, _ := l.since(now, cursor{}, 100)
	put(10, 20)
	_, late, _, _ := l.since(now, cursor{}, 100)
	put(20, maxNames+15)
	if names, missed := read(late); names != maxNames-5 || missed {
		t.Errorf("who had seen what is forgotten was told %d names, missed %t", names, missed)
	}
	if names, missed := read(early); names != maxNames || !missed {
		t.Errorf("who had not was told %d names, missed %t", names, missed)
	}
	if names, missed := read(cursor{}); names != maxNames || missed {
		t.Errorf("who came late was told %d names, missed %t", names, missed)
	}
	if told, dropped := l.Counts(); told != maxNames+15 || dropped != 15 {
		t.Errorf("counted %d told and %d dropped", told, dropped)
	}
	_, at, _, wake := l.since(now, late, maxNames)
	l.Miss(7)
	select {
	case <-wake:
	default:
		t.Error("nobody hears of changes that are not told")
	}
	if found, next, missed, _ := l.since(now, at, 100); len(found) != 0 || !missed {
		t.Errorf("told %d names, missed %t", len(found), missed)
	} else if _, _, missed, _ = l.since(now, next, 100); missed {
		t.Error("told twice that something is missing")
	}
	if _, dropped := l.Counts(); dropped != 22 {
		t.Errorf("counted %d dropped", dropped)
	}
}

func TestAwaits(t *testing.T) {
	for sentence, tc := range map[string]struct {
		change Change
		serial uint32
		state  uint64
		want   bool
	}{
		"a server in the old state":                             {Change{Before: []uint64{1}, After: 2}, 5, 1, true},
		"not one in the new state":                              {Change{Before: []uint64{1}, After: 2}, 5, 2, false},
		"nor one that has decided for itself":                   {Change{Before: []uint64{1}, After: 2}, 5, 3, false},
		"one in a state of before that":                         {Change{Before: []uint64{1, 4}, After: 2}, 5, 4, true},
		"one where the name is not steered yet":                 {Change{Before: []uint64{0}, After: 2}, 5, 0, true},
		"one with an older version of the zone":                 {Change{Serial: 7}, 6, 0, true},
		"not one with this version":                             {Change{Serial: 7}, 7, 0, false},
		"nor one with a newer version":                          {Change{Serial: 7}, 8, 0, false},
		"serials go round":                                      {Change{Serial: 7}, 4294967295, 0, true},
		"both an edit and steering: one that lacks the edit":    {Change{Serial: 7, Before: []uint64{1}, After: 2}, 6, 2, true},
		"both an edit and steering: one that lacks the state":   {Change{Serial: 7, Before: []uint64{1}, After: 2}, 7, 1, true},
		"both an edit and steering: not one that lacks neither": {Change{Serial: 7, Before: []uint64{1}, After: 2}, 7, 2, false},
		"none is awaited to drop a zone":                        {Change{}, 6, 0, false},
	} {
		if got := tc.change.Awaits(tc.serial, tc.state); got != tc.want {
			t.Errorf("%s: %t", sentence, got)
		}
	}
}

func TestAliases(t *testing.T) {
	content := func(text string) *zone.Content {
		t.Helper()
		if text == "" {
			return nil
		}
		c, _, faults := zone.Load(mustName(t, "bank."), "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 10.0.0.1\n"+text)
		if c == nil {
			t.Fatal(faults)
		}
		return c
	}
	a := NewAliases(logr.Discard())
	var before *zone.Content
	expect := func(sentence, name string, want ...string) {
		t.Helper()
		var got []string
		for _, alias := range a.Of(mustName(t, name)) {
			got = append(got, alias.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: aliases of %s (-want +got):\n%s", sentence, name, diff)
		}
	}
	step := func(text string) {
		t.Helper()
		after := content(text)
		a.Take(&Edit{Apex: mustName(t, "bank."), Before: before, After: after})
		before = after
	}
	step("www CNAME app\napp CNAME app.pay.corp.\nmail A 10.0.0.2\n")
	expect("over several steps", "app.pay.corp.", "app.bank.", "www.bank.")
	expect("straight", "app.bank.", "www.bank.")
	expect("of no alias", "mail.bank.")
	a.Replace(mustName(t, "shop.corp."), nil, []zone.Name{mustName(t, "www.bank.")})
	expect("across zones", "app.pay.corp.", "app.bank.", "www.bank.", "shop.corp.")
	step("www CNAME mail\napp CNAME app.pay.corp.\nmail A 10.0.0.2\n")
	expect("what leads elsewhere now", "app.pay.corp.", "app.bank.")
	expect("is told there", "mail.bank.", "www.bank.", "shop.corp.")
	step("www CNAME mail\napp A 10.0.0.3\nmail A 10.0.0.2\n")
	expect("what is an alias no more", "app.pay.corp.")
	step("a CNAME b\nb CNAME c\nc CNAME a\n")
	expect("a loop ends", "a.bank.", "b.bank.", "c.bank.")
	step("")
	expect("a zone that is gone", "a.bank.")
	expect("leaves other zones alone", "www.bank.", "shop.corp.")
	a.Replace(mustName(t, "shop.corp."), []zone.Name{mustName(t, "www.bank.")}, nil)
	if known, beyond := a.Counts(); known != 0 || beyond != 0 || len(a.owners) != 0 {
		t.Errorf("%d aliases known, %d not, and %d targets are left", known, beyond, len(a.owners))
	}
	to := mustName(t, "popular.bank.")
	for i := range MaxAliases + 10 {
		a.Replace(mustName(t, fmt.Sprintf("h%d.bank.", i)), nil, []zone.Name{to})
	}
	if got := len(a.Of(to)); got != MaxAliases {
		t.Errorf("%d aliases of one name are told", got)
	}
}

func TestAliasesAreBounded(t *testing.T) {
	a := NewAliases(logr.Discard())
	a.most = 3
	to := []zone.Name{mustName(t, "app.bank.")}
	for i := range 5 {
		a.Replace(mustName(t, fmt.Sprintf("h%d.bank.", i)), nil, to)
	}
	expect := func(known, beyond int) {
		t.Helper()
		if k, b := a.Counts(); k != known || b != beyond || len(a.Of(to[0])) != known {
			t.Errorf("%d known, %d not, wanted %d and %d", k, b, known, beyond)
		}
	}
	expect(3, 2)
	a.Replace(mustName(t, "h4.bank."), to, nil)
	expect(3, 1)
	a.Replace(mustName(t, "h0.bank."), to, nil)
	expect(2, 1)
	a.Replace(mustName(t, "h5.bank."), nil, to)
	expect(3, 1)
}

func TestEdits(t *testing.T) {
	for sentence, tc := range map[string]struct {
		before, after string // "-" for no zone
		want          []string
	}{
		"a record comes":                         {"", "www A 10.0.0.7", []string{"www.bank. #2"}},
		"a record goes":                          {"www A 10.0.0.7", "", []string{"www.bank. #2"}},
		"a record is another":                    {"www A 10.0.0.7\nftp A 10.0.0.8", "www A 10.0.0.9\nftp A 10.0.0.8", []string{"www.bank. #2"}},
		"a type comes beside":                    {"www A 10.0.0.7", "www A 10.0.0.7\nwww AAAA 2001:db8::1", []string{"www.bank. #2"}},
		"a TTL is no answer":                     {"www 60 A 10.0.0.7", "www 5 A 10.0.0.7", nil},
		"nor is the SOA":                         {"", "", nil},
		"the apex has other name servers":        {"", "@ NS ns2\nns2 A 10.0.0.2", []string{"bank. #2", "ns2.bank. #2"}},
		"a wildcard is for all beneath":          {"", "*.any A 10.0.0.7", []string{`*.any.bank.* #2`}},
		"a DNAME too":                            {"", "old DNAME new.test.", []string{"old.bank.* #2"}},
		"a delegation too":                       {"", "sub NS ns.test.", []string{"sub.bank.* #2"}},
		"what becomes a delegation too":          {"sub A 10.0.0.7", "sub NS ns.test.", []string{"sub.bank.* #2"}},
		"what is none any more too":              {"sub NS ns.test.", "sub A 10.0.0.7", []string{"sub.bank.* #2"}},
		"glue is of the delegation":              {"sub NS ns.sub\nns.sub A 10.0.0.7", "sub NS ns.sub\nns.sub A 10.0.0.8", []string{"sub.bank.* #2"}},
		"with it, once":                          {"sub NS ns.sub\nns.sub A 10.0.0.7", "sub NS ns.sub\nsub NS ns2.sub\nns.sub A 10.0.0.8\nns2.sub A 10.0.0.9", []string{"sub.bank.* #2"}},
		"names below a delegation that comes":    {"www.sub A 10.0.0.7", "sub NS ns.test.\nwww.sub A 10.0.0.8", []string{"sub.bank.* #2"}},
		"a new zone has all its names":           {"-", "www A 10.0.0.7", []string{"bank.* #2", "ns.bank. #2", "www.bank. #2"}},
		"a zone that goes had them":              {"www A 10.0.0.7", "-", []string{"bank.*", "ns.bank.", "www.bank."}},
		"names that are only above others don't": {"", "a.b.c A 10.0.0.7", []string{"a.b.c.bank. #2"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			load := func(text string, serial int) *zone.Content {
				if text == "-" {
					return nil
				}
				c, _, faults := zone.Load(mustName(t, "bank."), fmt.Sprintf("$TTL 60\n@ SOA ns hostmaster %d 2 3 4 %d\n@ NS ns\nns A 10.0.0.1\n%s\n", serial, serial, text))
				if c == nil {
					t.Fatal(faults)
				}
				return c
			}
			e := &Edit{Apex: mustName(t, "bank."), Before: load(tc.before, 1), After: load(tc.after, 2), Serial: 2, State: func(zone.Name) uint64 { return 0 }}
			if e.After == nil {
				e.Serial = 0
			}
			all, beyond := e.Changes()
			var got []string
			for i := range all {
				got = append(got, say(&all[i]))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || beyond != 0 {
				t.Errorf("%d beyond, and (-want +got):\n%s", beyond, diff)
			}
		})
	}
}

func TestEditsAreBoundedAndLeaveSteeringAlone(t *testing.T) {
	apex := mustName(t, "bank.")
	var nodes []zone.Node
	for i := range maxEdited + 5 {
		nodes = append(nodes, zone.NewNode(mustName(t, fmt.Sprintf("h%d.bank.", i)), zone.NewRRset(zone.TypeA, 60, []byte{10, 0, byte(i >> 8), byte(i)})))
	}
	c, err := zone.NewContent(apex, nodes)
	if err != nil {
		t.Fatal(err)
	}
	e := &Edit{Apex: apex, After: c, Serial: 2, State: func(zone.Name) uint64 { return 0 }}
	if all, beyond := e.Changes(); len(all) != maxEdited || beyond != 5 {
		t.Errorf("%d changes and %d beyond", len(all), beyond)
	}
	app := mustName(t, "app.bank.")
	steered := func(spec, text string) *zone.Content {
		t.Helper()
		c, err := zone.NewContent(apex, []zone.Node{zone.NewNode(app, zone.NewRRset(zone.TypeSteered, 0, []byte(spec)), zone.NewRRset(zone.TypeTXT, 60, []byte(text)))})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	e = &Edit{Apex: apex, Before: steered("one", "\x01x"), After: steered("two", "\x01x"), Serial: 3, State: func(zone.Name) uint64 { return 7 }}
	if all, _ := e.Changes(); len(all) != 0 {
		t.Errorf("how a name is steered is told as %s", say(&all[0]))
	}
	e.After = steered("two", "\x01y")
	if all, _ := e.Changes(); len(all) != 1 || all[0].After != 7 || all[0].Serial != 3 {
		t.Errorf("what is beside is told as %+v", all)
	}
}
