package health_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

- With two datacenters and nothing else, a dead datacenter and a cut link look alike. Trust moves, and with a cut link each side
  serves what it sees; Hold stays until a person decides.
- A witness, or anchors in each datacenter, tells the two apart: Hold then moves too, when the datacenter is dead, and only then.
- The hub appears in no decision: its death changes no answer.
- Servers that restart go on with what they and the others know.

`

// Estates of stories, by the beginning of their files' names.
var storyEstates = []struct{ prefix, heading string }{
	{"2", "Two datacenters"},
	{"2-anchors", "Two datacenters with anchors"},
	{"2-witness", "Two datacenters and a witness"},
	{"3", "Three datacenters"},
	{"5", "Five datacenters"},
}

// TestFailureModesAreDocumented holds docs/failure-modes.md to the stories.
func TestFailureModesAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString(failureModesHead)
	told := 0
	for _, e := range storyEstates {
		files, err := filepath.Glob("testdata/" + e.prefix + "-[0-9]-*.txtar")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "## %s\n\n", e.heading)
		for _, file := range files {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "### %s\n\n```\n%s```\n\n", strings.TrimSuffix(strings.TrimSpace(string(archive.Comment)), "."), archive.Files[1].Data)
			told++
		}
	}
	if all, err := filepath.Glob("testdata/*.txtar"); err != nil || told != len(all) {
		t.Errorf("%d of %d stories are told; %v", told, len(all), err)
	}
	want := strings.TrimSuffix(b.String(), "\n")
	if *update {
		if err := os.WriteFile(failureModes, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(failureModes)
	if err != nil || string(got) != want {
		t.Errorf("docs/failure-modes.md does not tell the stories (%v): run with -update", err)
	}
}
