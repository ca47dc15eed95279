package health_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

var update = flag.Bool("update", false, "rewrite the answers of stories, and docs/failure-modes.md")

// Columns of a story: the records that all of them have.
var columns = []struct {
	heading, name string
	policy        steeringpb.Policy
	hold          bool
	byHand        bool
	delay         time.Duration
}{
	{"Nearest", "nearest", steeringpb.Policy_NEAREST, false, false, 0},
	{"", "nearest-hold", steeringpb.Policy_NEAREST, true, false, 0},
	{"Failover", "failover", steeringpb.Policy_FAILOVER, false, false, time.Minute},
	{"", "failover-hold", steeringpb.Policy_FAILOVER, true, false, time.Minute},
	{"by hand", "by-hand", steeringpb.Policy_FAILOVER, false, true, 0},
	{"", "by-hand-hold", steeringpb.Policy_FAILOVER, true, true, 0},
	{"Weighted", "weighted", steeringpb.Policy_WEIGHTED, false, false, 0},
	{"", "weighted-hold", steeringpb.Policy_WEIGHTED, true, false, 0},
}

func storyRecords(topo *steeringpb.Topology) []*steeringpb.Record {
	probe := probeEvery(10*time.Second, 2*time.Second, 3, 2)
	var all []*steeringpb.Record
	for _, c := range columns {
		r := recordOf(topo, c.name, c.policy, probe)
		r.HoldOnPeerLoss = c.hold
		r.FailoverManual, r.FailbackManual = c.byHand, c.byHand
		r.FailbackDelay = uint64(c.delay.Milliseconds())
		all = append(all, r)
	}
	return all
}

// TestStories plays what is left of the bar in each story of testdata, and compares what is right of it.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	if *update {
		t.Cleanup(func() {
			if err := os.WriteFile(failureModes, []byte(failureModesPage(t)), 0o644); err != nil {
				t.Error(err)
			}
		})
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := parseStory(archive)
			if err != nil {
				t.Fatal(err)
			}
			got := s.play(t)
			if *update {
				archive.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if want := string(archive.Files[1].Data); got != want {
				t.Errorf("answers differ; this is what they are:\n%s", got)
			}
		})
	}
}

// story is a file of testdata.
type story struct {
	topology *steeringpb.Topology
	hub      string // its datacenter
	events   []storyEvent
}

type storyEvent struct {
	at   time.Duration
	text string
}

func parseStory(a *txtar.Archive) (*story, error) {
	if len(a.Files) != 2 || a.Files[0].Name != "estate" || a.Files[1].Name != "story" {
		return nil, fmt.Errorf("want the files estate and story")
	}
	s := &story{}
	servers, anchors := 2, false
	var names []string
	for line := range strings.Lines(string(a.Files[0].Data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "datacenters":
			names = strings.Fields(value)
		case "servers":
			n, err := strconv.Atoi(value)
			if err != nil {
				return nil, err
			}
			servers = n
		case "anchors":
			anchors = value == "yes"
		case "hub":
			s.hub = value
		default:
			return nil, fmt.Errorf("estate: %q", line)
		}
	}
	s.topology = estate(servers, anchors, names...)
	for line := range strings.Lines(string(a.Files[1].Data)) {
		left, _, found := strings.Cut(line, "|")
		at, text, _ := strings.Cut(strings.TrimSpace(left), " ")
		if text = strings.TrimSpace(text); !found && at == "" || text == "" || at == "time" {
			continue
		}
		d, err := time.ParseDuration(at)
		if err != nil {
			return nil, fmt.Errorf("story: %q: %w", line, err)
		}
		s.events = append(s.events, storyEvent{d, text})
	}
	return s, nil
}

const (
	tick   = 100 * time.Millisecond
	settle = 500 * time.Millisecond // changes within this are one row
)

// play returns the story with the answers.
func (s *story) play(t *testing.T) string {
	t.Helper()
	w := newWorld(t, s.topology, storyRecords(s.topology))
	w.hubAt = s.hub
	var b strings.Builder
	row := func(at, event, who string, answers []string) {
		line := fmt.Sprintf("%-7s%-38s| %-12s", at, event, who)
		for i, a := range answers {
			line += fmt.Sprintf(" %-*s", w.width(i), a)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	var headings, kinds []string
	for i, c := range columns {
		headings = append(headings, c.heading)
		kinds = append(kinds, []string{"Trust", "Hold"}[i%2])
	}
	row("time", "what happens", "answers of", headings)
	row("", "", "", kinds)

	last := map[string]string{}
	var since time.Time
	changes := func() {
		now := w.snapshot()
		differ := func() bool {
			for name, answers := range now {
				if last[name] != answers {
					return true
				}
			}
			return false
		}
		switch {
		case !differ():
			since = time.Time{}
			return
		case since.IsZero():
			since = w.now
			return
		case w.now.Sub(since) < settle:
			return
		}
		for i, group := range w.group(now, last) {
			at := ""
			if i == 0 {
				at = fmt.Sprintf("%.1fs", since.Sub(epoch).Seconds())
			}
			row(at, "", group.label, strings.Split(group.answers, " "))
		}
		last, since = now, time.Time{}
	}
	for _, e := range s.events {
		for w.now.Before(epoch.Add(e.at)) {
			w.run(w.now.Add(tick))
			changes()
		}
		row(fmt.Sprintf("%.0fs", e.at.Seconds()), e.text, "", nil)
		if err := w.do(e.text); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// width is of a column.
func (w *world) width(column int) int {
	n := 0
	for _, d := range w.dcs {
		if !d.witness {
			n++
		}
	}
	if columns[column].policy == steeringpb.Policy_WEIGHTED {
		return max(7, 2*n+1)
	}
	return 5
}

// snapshot is what each server answers, by its name, to clients near it: columns in order.
func (w *world) snapshot() map[string]string {
	all := map[string]string{}
	for _, s := range w.servers {
		if s.site.witness {
			continue
		}
		var answers []string
		for _, r := range w.records {
			answers = append(answers, w.mark(s.answer(r, s.id.Datacenter), s.id.Datacenter))
		}
		all[s.id.Name] = strings.Join(answers, " ")
	}
	return all
}

// mark puts the pools of an answer in parentheses whose target clients in a datacenter do not reach.
func (w *world) mark(answer, near string) string {
	pools := strings.Split(answer, "+")
	for i, p := range pools {
		for _, a := range w.targets {
			if letter(a.dc) == p && (a.dead || !w.passes(near, a.dc) || !w.passes(a.dc, near)) {
				pools[i] = "(" + p + ")"
			}
		}
	}
	return strings.Join(pools, "+")
}

type answerGroup struct{ label, answers string }

// group puts servers together that answer the same, of those that answer other than last: whole datacenters if all of
// their servers do.
func (w *world) group(now, last map[string]string) []answerGroup {
	var groups []answerGroup
	add := func(label, answers string) {
		i := slices.IndexFunc(groups, func(g answerGroup) bool { return g.answers == answers })
		if i < 0 {
			groups = append(groups, answerGroup{label, answers})
			return
		}
		groups[i].label += "," + letter(label)
	}
	for _, d := range w.dcs {
		var mine []*server
		same, moved := true, false
		for _, s := range w.servers {
			if s.site == d && !d.witness {
				mine = append(mine, s)
				same = same && now[s.id.Name] == now[mine[0].id.Name]
				moved = moved || now[s.id.Name] != last[s.id.Name]
			}
		}
		if same && moved {
			add(d.name, now[mine[0].id.Name])
			continue
		}
		for _, s := range mine {
			if now[s.id.Name] != last[s.id.Name] {
				add(s.id.Name, now[s.id.Name])
			}
		}
	}
	return groups
}

// do makes something happen that a story tells.
func (w *world) do(text string) error {
	words := strings.Fields(text)
	has := func(pattern string) bool {
		want := strings.Fields(pattern)
		if len(want) != len(words) {
			return false
		}
		for i := range want {
			if want[i] != words[i] && want[i] != "*" {
				return false
			}
		}
		return true
	}
	aimAt := func(pool string) *aim {
		for _, a := range w.targets {
			if letter(a.dc) == pool {
				return a
			}
		}
		return &aim{}
	}
	switch {
	case has("all servers start"), has("the end"):
	case has("target * dies"):
		aimAt(words[1]).dead = true
	case has("target * returns"):
		aimAt(words[1]).dead = false
	case has("* goes silent"):
		w.siteDies(words[0])
	case has("* returns") && strings.HasPrefix(words[0], "dc-"):
		w.siteReturns(words[0])
	case has("link * - * is cut"):
		w.lose(words[1], words[3])
		w.lose(words[3], words[1])
	case has("link * - * is mended"):
		w.mend(words[1], words[3])
		w.mend(words[3], words[1])
	case has("packets * -> * are lost"):
		w.lose(words[1], words[3])
	case has("packets * -> * arrive"):
		w.mend(words[1], words[3])
	case has("* is cut off"):
		w.site(words[0]).cut = true
	case has("* is connected again"):
		w.site(words[0]).cut = false
	case has("* loses its anchors"):
		w.anchor[[2]string{words[0], words[0]}] = true
	case has("* finds its anchors"):
		delete(w.anchor, [2]string{words[0], words[0]})
	case has("hub dies"):
		w.hubDead = true
	case has("hub returns"):
		w.hubDead = false
	case has("* restarts"):
		w.server(words[0]).restart(false)
	case has("* restarts, empty"):
		w.server(strings.TrimSuffix(words[0], ",")).restart(true)
	case has("a person forces *"), has("a person forces * at a server"), has("a person fails back"), has("the override ends"):
		return w.override(words)
	default:
		return fmt.Errorf("nobody knows how to do this: %q", text)
	}
	return nil
}

// override acts on the records by hand.
func (w *world) override(words []string) error {
	pb := &steeringpb.Override{
		Source: "test/o", Records: []string{"test/by-hand", "test/by-hand-hold"},
		Created: uint64(w.now.UnixMilli()), Expires: uint64(w.now.Add(24 * time.Hour).UnixMilli()),
	}
	switch words[2] {
	case "forces":
		pb.Action = &steeringpb.Override_Force{Force: &steeringpb.Force{Pool: words[3]}}
	case "fails":
		pb.Action = &steeringpb.Override_Failback{Failback: &steeringpb.Failback{}}
	default:
		w.setOverrides(nil)
		return nil
	}
	o, err := steering.NewOverride(pb)
	if err != nil {
		return err
	}
	var at *server
	if len(words) > 4 {
		at = w.server("dc-b-1")
	}
	w.setOverrides(at, o)
	return nil
}
