package health_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
)

const failureModes = "../../docs/failure-modes.md"

const failureModesHead = `# What is answered when what breaks

These tables are stories that the tests play: several servers in each datacenter, links that can be cut, and the very code
that decides in production, on a clock of their own. This page is made of them (` + "`make golden`" + `); a table that is not true
any more fails the tests.

How to read a table. Each column is a name with a pool of one target in each datacenter: pool a in dc-a, b in dc-b and so on.

| column | the name |
| --- | --- |
| Nearest | each client gets the nearest datacenter |
| Failover | everybody gets the first pool that is up; it returns to an earlier one after ` + "`failback.delay`" + `, one minute here |
| by hand | the same with ` + "`failover.mode: Manual` and `failback.mode: Manual`" + `: a person decides |
| Weighted | shares of clients, between pools of equal weight |
| Trust, Hold | ` + "`onPeerLoss: TrustLocal` and `Hold`" + ` |

On the left is what happens and when; on the right what the servers of a datacenter answer from then on to clients near them,
whenever that changes. ` + "`a+b`" + ` is shared between two pools. ` + "`(a)`" + ` is answered though these clients do not reach it: what a
failover is about to end, or what holding costs. ` + "`-`" + ` is no answer: the server is gone. ` + "`?`" + ` is a failure of the first moments, before
a server knows anything.

Probes run every 10 s with a timeout of 2 s; three must fail. That, and the ` + "`voteTTL`" + ` of 5 s, is the time between a death and
the move; resolvers add the TTL. Faster probes move sooner: see the arithmetic in [steering.md](steering.md).

In short:

- TrustLocal: each side of a split serves what works for it. Hold: all give one answer, and it moves only when somebody
  besides the datacenter that moves it says that it must.
- With two datacenters and nothing else, a dead datacenter and a cut link look alike. TrustLocal moves; Hold stays until a
  person decides.
- A witness tells the two apart: Hold then moves when the datacenter is dead, and not when a link is cut. Anchors do so if
  what cuts the datacenters off from each other cuts them off from each other's anchors as well.
- The hub appears in no decision: its death changes no answer.
- Servers that restart go on with what they and the others know.
- When what broke is well again nothing jumps: who did not move stays, who moved returns by the record's rule.
`

// Estates of stories, by the beginning of their files' names.
var storyEstates = []struct{ prefix, heading, text string }{
	{"2", "Two datacenters", "The most common estate, here without anchors and witness: nothing tells a dead datacenter from a cut link."},
	{"2-anchors", "Two datacenters with anchors", `Each Datacenter names anchors, addresses in two other places, such as routers of its providers. A datacenter that reaches
none of its own is cut off. One that is silent while its anchors answer is taken for dead.`},
	{"2-witness", "Two datacenters and a witness", "A third place has a server that votes and answers nobody (`role: Witness`). There are no anchors here."},
	{"3", "Three datacenters", "With anchors. All three vote on every target."},
	{"5", "Five datacenters", `With anchors. On a target vote its own datacenter and the two nearest: on a those are dc-a, dc-b and dc-c. The others
follow.`},
}

func TestFailureModesAreDocumented(t *testing.T) {
	if *update {
		return // TestStories writes it when it is through
	}
	got, err := os.ReadFile(failureModes)
	if err != nil || string(got) != failureModesPage(t) {
		t.Errorf("docs/failure-modes.md does not tell the stories (%v): run with -update", err)
	}
}

// failureModesPage is the page that the stories make.
func failureModesPage(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(failureModesHead)
	told := 0
	for _, e := range storyEstates {
		files, err := filepath.Glob("testdata/" + e.prefix + "-[0-9]-*.txtar")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\nWhat clients near dc-b are given:\n\n| |", e.heading, e.text)
		for i, c := range columns {
			fmt.Fprintf(&b, " %s, %s |", columns[i-i%2].heading, either(c.hold, "Hold", "Trust"))
		}
		b.WriteString("\n|" + strings.Repeat(" --- |", 1+len(columns)) + "\n")
		var stories strings.Builder
		for _, file := range files {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			title, prose, _ := strings.Cut(string(archive.Comment), "\n")
			log := string(archive.Files[1].Data)
			fmt.Fprintf(&b, "| %s | %s |\n", title, strings.Join(summary(t, log), " | "))
			fmt.Fprintf(&stories, "\n### %s: %s\n\n%s\n\n```\n%s```\n", e.heading, strings.ToLower(title[:1])+title[1:], strings.TrimSpace(prose), log)
			told++
		}
		b.WriteString(stories.String())
	}
	if all, err := filepath.Glob("testdata/*.txtar"); err != nil || told != len(all) {
		t.Errorf("%d of %d stories are told; %v", told, len(all), err)
	}
	return b.String()
}

// summary says for each column of a story what clients near dc-b are given before and after the first thing that breaks, or
// the return of the datacenter if that is what the story is about, until something else happens.
func summary(t *testing.T, log string) []string {
	t.Helper()
	cause := ""
	if strings.Contains(log, "dc-a returns") && !strings.Contains(log, "at a server") {
		cause = "dc-a returns"
	}
	var began, at time.Duration
	var before, now []string
	when := make([]string, len(columns))
	for line := range strings.Lines(log) {
		left, right, _ := strings.Cut(line, "|")
		moment, event, _ := strings.Cut(strings.TrimSpace(left), " ")
		event = strings.TrimSpace(event)
		if moment == "time" {
			continue
		}
		if moment != "" {
			d, err := time.ParseDuration(moment)
			if err != nil {
				t.Fatal(err)
			}
			at = d
		}
		switch cells := strings.Fields(right); {
		case event == "all servers start", event == "hub dies", strings.Contains(event, "restarts"):
		case event != "" && before != nil, event == "the end":
			return changes(either(before == nil, now, before), now, when)
		case event != "" && (cause == "" || event == cause):
			before, began = now, at
		case len(cells) == 1+len(columns) && covers(cells[0], "dc-b") && cells[1] != "-" && cells[1] != "?":
			for i := range columns {
				if before != nil && bare(now[i]) != bare(cells[1+i]) {
					when[i] = fmt.Sprintf(" after %.0f s", (at - began).Seconds())
				}
			}
			now = cells[1:]
		}
	}
	t.Fatal("a story without an end")
	return nil
}

func changes(before, now, when []string) []string {
	all := slices.Clone(now)
	for i := range all {
		if when[i] != "" {
			all[i] = before[i] + " → " + now[i] + when[i]
		}
	}
	return all
}

// bare is an answer without what is said of it.
func bare(answer string) string { return strings.NewReplacer("(", "", ")", "").Replace(answer) }

// covers reports whether the label of a row, such as dc-a,b, is of a datacenter.
func covers(label, dc string) bool {
	names := strings.Split(label, ",")
	return names[0] == dc || slices.Contains(names[1:], letter(dc))
}
