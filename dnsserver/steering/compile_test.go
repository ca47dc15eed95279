package steering

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

const (
	twoPools = `
policy Nearest
pool a dc-a: 10.1.9.9 10.1.9.10
pool b dc-b: 10.2.9.9
`
	inOrder = `
policy Failover
pool a dc-a: 10.1.9.9 10.1.9.10
pool b dc-b: 10.2.9.9
pool c dc-c: 10.3.9.9
`
	anyone = "192.0.2.1"
)

func TestCompile(t *testing.T) {
	for _, tc := range []struct {
		sentence, record, health, overrides string
		want                                []string // "QUESTION => ANSWER"
	}{
		// Nearest
		{"each client gets the pool of its datacenter", twoPools, "", "", []string{
			"10.1.0.1 => 10.1.9.10 10.1.9.9", "10.2.0.1 => 10.2.9.9", "2001:db8:1::1 => 10.1.9.10 10.1.9.9"}},
		{"a client in a datacenter without a pool gets the next by rank", twoPools, "", "", []string{"10.3.0.1 => 10.1.9.10 10.1.9.9"}},
		{"a client in nobody's networks gets the first by rank", twoPools, "", "", []string{anyone + " => 10.1.9.10 10.1.9.9"}},
		{"the pool whose targets are down is left", twoPools, "a: down", "", []string{"10.1.0.1 => 10.2.9.9", anyone + " => 10.2.9.9"}},
		{"a target that is down is left out", twoPools, "a: down up", "", []string{"10.1.0.1 => 10.1.9.10"}},
		{"the datacenter that is preferred goes before rank", twoPools + "pool c dc-c: 10.3.9.9", "a: down", "", []string{
			"10.1.0.1 => 10.3.9.9", anyone + " => 10.2.9.9"}},
		{"of two pools of one datacenter the first counts", "policy Nearest\npool x dc-a: 10.1.0.1\npool y dc-a: 10.1.0.2", "", "", []string{"10.1.0.1 => 10.1.0.1"}},
		{"a pool in no datacenter is the farthest", "policy Nearest\npool x: 10.9.0.1\npool b dc-b: 10.2.9.9", "", "", []string{"10.1.0.1 => 10.2.9.9"}},
		{"who nobody could judge yet is used", twoPools, "a: unknown, b: unknown", "", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"a closed gate takes the whole pool", twoPools, "a: gated", "", []string{"10.1.0.1 => 10.2.9.9"}},

		// Degraded, minHealthy, weight 0
		{"who is degraded is used after those that are up", twoPools, "a: degraded up", "", []string{"10.1.0.1 => 10.1.9.10"}},
		{"also where those are of another pool", twoPools, "a: degraded degraded", "", []string{"10.1.0.1 => 10.2.9.9"}},
		{"but before nothing", twoPools, "a: degraded down, b: down", "", []string{"10.1.0.1 => 10.1.9.9", "10.2.0.1 => 10.1.9.9"}},
		{"a pool with fewer healthy targets than it needs is left", "policy Nearest\npool a dc-a min=2: 10.1.9.9 10.1.9.10\npool b dc-b: 10.2.9.9", "a: up down", "",
			[]string{"10.1.0.1 => 10.2.9.9"}},
		{"those that are degraded count to what it needs", "policy Nearest\npool a dc-a min=2: 10.1.9.9 10.1.9.10\npool b dc-b: 10.2.9.9", "a: up degraded, b: degraded", "",
			[]string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"if all pools have too few, the healthy targets of the best pool are answered",
			"policy Nearest\npool a dc-a min=2: 10.1.9.9 10.1.9.10\npool b dc-b min=2: 10.2.9.9 10.2.9.10", "a: up down, b: down up", "",
			[]string{"10.1.0.1 => 10.1.9.9", "10.2.0.1 => 10.2.9.10"}},
		{"a target with weight 0 is used when nothing else is healthy", "policy Nearest\npool a dc-a: 10.1.9.9 10.1.9.10/0\npool b dc-b: 10.2.9.9", "a: down up, b: down", "",
			[]string{"10.1.0.1 => 10.1.9.10"}},
		{"and not before", "policy Nearest\npool a dc-a: 10.1.9.9 10.1.9.10/0\npool b dc-b: 10.2.9.9", "a: down up", "", []string{"10.1.0.1 => 10.2.9.9"}},

		// Failover and latches
		{"failover chooses the first pool that is up", inOrder, "a: down", "", []string{"10.3.0.1 => 10.2.9.9"}},
		{"the first pool again when it is back", inOrder, "b: down", "", []string{"10.3.0.1 => 10.1.9.10 10.1.9.9"}},
		{"a pool that was left is not used although it is up", inOrder, "a: up out", "", []string{"10.3.0.1 => 10.2.9.9"}},
		{"unless nothing else is", inOrder, "a: up out, b: down, c: down", "", []string{"10.3.0.1 => 10.1.9.10 10.1.9.9"}},
		{"a pool that awaits a person stays in use with all its targets", inOrder, "a: down awaiting", "", []string{"10.3.0.1 => 10.1.9.10 10.1.9.9"}},
		{"or with those that are up", inOrder, "a: down up awaiting", "", []string{"10.3.0.1 => 10.1.9.10"}},

		// All down
		{"all down: all targets of the pool that would be chosen were all up", twoPools, "a: down, b: down", "", []string{
			"10.1.0.1 => 10.1.9.10 10.1.9.9", "10.2.0.1 => 10.2.9.9"}},
		{"also if the pool answers one at a time, and what has weight 0", "policy Nearest\npool a dc-a Failover: 10.1.9.9 10.1.9.10/0", "a: down", "", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"all down: no data", twoPools + "alldown NoData", "a: down, b: down", "", []string{"10.1.0.1 => nodata"}},
		{"all down: failure", twoPools + "alldown ServFail", "a: down, b: down", "", []string{"10.1.0.1 => SERVFAIL", "10.1.0.1 TXT => nodata"}},
		{"all down: fallback", twoPools + "alldown Fallback 10.9.9.9 2001:db8::9", "a: down, b: down", "", []string{
			"10.1.0.1 => 10.9.9.9", "10.1.0.1 AAAA => 2001:db8::9"}},
		{"all down and nothing was ever good: as if all were to be returned", twoPools + "alldown LastGood", "a: down, b: down", "", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"all closed is all down", twoPools + "alldown ServFail", "a: gated, b: gated", "", []string{"10.1.0.1 => SERVFAIL"}},
		{"weight 0 is not all down", "policy Nearest\npool a dc-a: 10.1.9.9/0\nalldown ServFail", "", "", []string{"10.1.0.1 => 10.1.9.9"}},

		// Types
		{"no healthy address of the type in the chosen pool is no data", "policy Nearest\npool a dc-a: 10.1.9.9\npool b dc-b: 10.2.9.9 2001:db8:2::9", "", "", []string{
			"10.1.0.1 AAAA => nodata", "10.2.0.1 AAAA => 2001:db8:2::9"}},
		{"and types agree when the pool moves", "policy Nearest\npool a dc-a: 10.1.9.9 2001:db8:1::9\npool b dc-b: 10.2.9.9", "a: down", "", []string{
			"10.1.0.1 => 10.2.9.9", "10.1.0.1 AAAA => nodata"}},

		// Inside a pool
		{"failover inside a pool answers its first healthy target", "policy Nearest\npool a dc-a Failover: 10.1.9.9 10.1.9.10 10.1.9.11", "a: down up up", "", []string{"10.1.0.1 => 10.1.9.10"}},
		{"with maxAnswers the first two", "policy Nearest\npool a dc-a Failover max=2: 10.1.9.9 10.1.9.10 10.1.9.11", "", "", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"weighted inside a pool answers one", "policy Nearest\npool a dc-a Weighted: 10.1.9.9/10 10.1.9.10/0", "", "", []string{"10.1.0.1 => 10.1.9.9"}},
		{"its target with weight 0 when the other is down", "policy Nearest\npool a dc-a Weighted: 10.1.9.9/10 10.1.9.10/0", "a: down up", "", []string{"10.1.0.1 => 10.1.9.10"}},

		// Between pools, by weight
		{"a pool with weight 0 is not used", "policy Weighted\npool a dc-a weight=1: 10.1.9.9\npool b dc-b weight=0: 10.2.9.9", "", "", []string{"10.2.0.1 => 10.1.9.9", "10.3.0.1 => 10.1.9.9"}},
		{"but when no other is healthy", "policy Weighted\npool a dc-a weight=1: 10.1.9.9\npool b dc-b weight=0: 10.2.9.9", "a: down", "", []string{"10.2.0.1 => 10.2.9.9"}},

		// Rules
		{"a rule sends its clients to its pools", twoPools + "rule 10.1.7.0/24 b", "", "", []string{"10.1.7.1 => 10.2.9.9", "10.1.8.1 => 10.1.9.10 10.1.9.9"}},
		{"the first rule that matches counts, not the longest network", twoPools + "rule 10.1.0.0/16 b\nrule 10.1.7.0/24 a", "", "", []string{"10.1.7.1 => 10.2.9.9"}},
		{"the policy chooses among the pools of a rule", twoPools + "pool c dc-c: 10.3.9.9\nrule 10.1.7.0/24 b,c", "", "", []string{"10.1.7.1 => 10.3.9.9"}},
		{"all down of a rule's pools is all down for its clients", twoPools + "rule 10.1.7.0/24 b\nalldown ServFail", "b: down", "", []string{
			"10.1.7.1 => SERVFAIL", "10.2.0.1 => 10.1.9.10 10.1.9.9"}},

		// Names
		{"a name is answered as an alias", "policy Failover\npool a: one.example.net\npool b: two.example.net", "a: down", "", []string{"10.1.0.1 => two.example.net.", "10.1.0.1 TXT => two.example.net."}},
		{"one of several at a time", "policy Failover\npool a Failover: one.example.net two.example.net", "a: down up", "", []string{"10.1.0.1 => two.example.net."}},
		{"a fallback name", "policy Failover\npool a: one.example.net\nalldown Fallback sorry.example.net", "a: down", "", []string{"10.1.0.1 => sorry.example.net."}},

		// Services
		{"HTTPS has the addresses of the chosen pool as hints", twoPools + "service https 8443 h2,h3", "", "", []string{
			`10.2.0.1 HTTPS => 1 . alpn="h2,h3" port="8443" ipv4hint="10.2.9.9"`}},
		{"without a port that is the default, with IPv6", "policy Nearest\npool a dc-a: 10.1.9.9 2001:db8:1::9\nservice https 443", "", "", []string{
			`10.2.0.1 HTTPS => 1 . ipv4hint="10.1.9.9" ipv6hint="2001:db8:1::9"`}},
		{"without hints where one address is picked for each client", "policy Nearest\npool a dc-a ClientHash: 10.1.9.9 10.1.9.10\nservice https 443 h2", "", "", []string{
			`10.2.0.1 HTTPS => 1 . alpn="h2"`}},
		{"a port of the targets goes before the service's", "policy Nearest\npool a dc-a: 10.1.9.9@8080\nservice https 443", "", "", []string{
			`10.2.0.1 HTTPS => 1 . port="8080" ipv4hint="10.1.9.9"`}},
		{"SRV leads to the host whose addresses are the pool's", "policy Nearest\npool a dc-a: 10.1.9.9@5061\npool b dc-b: 10.2.9.9\nservice _sip._tcp 5060\nsrv _sip._tcp", "", "", []string{
			"10.1.0.1 SRV => 0 0 5061 app.pay.bank.", "10.2.0.1 SRV => 0 0 5060 app.pay.bank.", "10.2.0.1 A => nodata"}},
		{"SRV has each name with its port and weight", "policy Failover\npool a Weighted: one.example.net/3@1 two.example.net/5\nservice _sip._tcp 5060\nsrv _sip._tcp", "", "", []string{
			"10.1.0.1 SRV => 0 3 1 one.example.net. 0 5 5060 two.example.net."}},
		{"and names in order by priority", "policy Failover\npool a Failover: one.example.net two.example.net\nservice _sip._tcp 5060\nsrv _sip._tcp", "", "", []string{
			"10.1.0.1 SRV => 0 0 5060 one.example.net. 1 0 5060 two.example.net."}},

		// Overrides
		{"a drain moves clients away", twoPools, "", "Drain dc-a", []string{"10.1.0.1 => 10.2.9.9"}},
		{"of a pool", twoPools, "", "Drain pool=b", []string{"10.2.0.1 => 10.1.9.10 10.1.9.9"}},
		{"of a target", twoPools, "", "Drain target=10.1.9.9", []string{"10.1.0.1 => 10.1.9.10"}},
		{"a drain of what is not there does nothing", twoPools, "", "Drain dc-x", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"a drain that would leave too little does nothing", twoPools, "b: down", "Drain dc-a", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"unless it may", twoPools, "b: down", "Drain dc-a keep=0", []string{"10.1.0.1 => 10.2.9.9"}},
		{"of two drains the narrower goes first", twoPools, "", "Drain dc-a; Drain pool=b", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"then the older", twoPools, "", "Drain pool=a; Drain pool=b age=1", []string{"10.2.0.1 => 10.1.9.10 10.1.9.9"}},
		{"what is drained is not returned when all is down", twoPools, "a: down, b: down", "Drain dc-b keep=0", []string{"10.2.0.1 => 10.1.9.10 10.1.9.9"}},
		{"if a person drains all there is no data", twoPools, "", "Drain dc-a keep=0; Drain dc-b keep=0", []string{"10.1.0.1 => nodata"}},
		{"force moves all clients", twoPools, "", "Force dc-b", []string{"10.1.0.1 => 10.2.9.9", anyone + " => 10.2.9.9"}},
		{"before rules", twoPools + "rule 10.1.7.0/24 a", "", "Force dc-b", []string{"10.1.7.1 => 10.2.9.9"}},
		{"and before drains", twoPools, "", "Force dc-b; Drain dc-b", []string{"10.1.0.1 => 10.2.9.9"}},
		{"to what is up", twoPools, "b: down", "Force dc-b", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"if it is not told to ignore health", twoPools, "b: down", "Force dc-b ignore", []string{"10.1.0.1 => 10.2.9.9"}},
		{"to one target", twoPools, "", "Force target=10.1.9.10", []string{"10.2.0.1 => 10.1.9.10"}},
		{"below what its pool needs", "policy Nearest\npool a dc-a min=2: 10.1.9.9 10.1.9.10\npool b dc-b: 10.2.9.9", "", "Force target=10.1.9.10", []string{"10.2.0.1 => 10.1.9.10"}},
		{"of two forces the narrower decides", twoPools, "", "Force dc-b; Force target=10.1.9.9", []string{"10.2.0.1 => 10.1.9.9"}},
		{"then the older", twoPools, "", "Force pool=a; Force pool=b age=5", []string{"10.1.0.1 => 10.2.9.9"}},
		{"one that forces nothing does not keep the next from it", twoPools, "b: down", "Force target=10.2.9.9; Force dc-a", []string{"10.2.0.1 => 10.1.9.10 10.1.9.9"}},
		{"clients of blocked networks are refused", twoPools, "", "Block 10.1.7.0/24", []string{"10.1.7.1 => REFUSED", "10.1.7.1 TXT => REFUSED", "10.1.8.1 => 10.1.9.10 10.1.9.9"}},
		{"before rules", twoPools + "rule 10.1.0.0/16 b", "", "Block 10.1.7.0/24", []string{"10.1.7.1 => REFUSED", "10.1.8.1 => 10.2.9.9"}},
		{"also of a name that is the same everywhere", inOrder, "", "Block 10.1.7.0/24,2001:db8:7::/48", []string{"10.1.7.1 => REFUSED", "2001:db8:7::1 => REFUSED", anyone + " => 10.1.9.10 10.1.9.9"}},
		{"what has expired does nothing", twoPools, "", "Drain dc-a expired", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
		{"nor what is for other records", twoPools, "", "Drain dc-a other", []string{"10.1.0.1 => 10.1.9.10 10.1.9.9"}},
	} {
		t.Run(tc.sentence, func(t *testing.T) {
			r := record(t, tc.record)
			res := Compile(r, &Inputs{Now: now, World: threeDatacenters(t), Health: view(t, r, tc.health), Overrides: overrides(t, tc.overrides)})
			s := serve(t, r, res.Steered)
			for _, line := range tc.want {
				question, want, _ := strings.Cut(line, " => ")
				if got := s.ask(t, question); got != want {
					t.Errorf("%s is answered %s, wanted %s", question, got, want)
				}
			}
		})
	}
}

// TestWhatHappenedBefore compiles again and again, each time with the memory of the time before, as a server
// does, also over a restart: the memory is written and read.
func TestWhatHappenedBefore(t *testing.T) {
	type step struct{ health, overrides, want string } // of a client at 10.1.0.1
	for sentence, tc := range map[string]struct {
		record string
		steps  []step
	}{
		"all down: what was answered last while something was up": {twoPools + "alldown LastGood", []step{
			{"a: up", "", "10.1.9.10 10.1.9.9"}, {"a: up down", "", "10.1.9.9"}, {"a: down, b: down", "", "10.1.9.9"}, {"a: down, b: down", "", "10.1.9.9"},
			{"a: down", "", "10.2.9.9"}, {"a: down, b: down", "", "10.2.9.9"}}},
		"frozen answers stay as they were": {twoPools, []step{
			{"a: up down", "", "10.1.9.9"}, {"a: down", "Freeze", "10.1.9.9"}, {"a: up", "Freeze", "10.1.9.9"}, {"a: up", "Freeze; Force dc-b; Drain dc-a", "10.1.9.9"},
			{"a: up", "", "10.1.9.10 10.1.9.9"}}},
		"all that was returned too": {"policy Nearest\npool a Failover: 10.1.9.9 10.1.9.10", []step{
			{"a: down", "", "10.1.9.10 10.1.9.9"}, {"", "Freeze", "10.1.9.10 10.1.9.9"}, {"", "", "10.1.9.9"}}},
		"frozen failures too": {twoPools + "alldown ServFail", []step{
			{"a: down, b: down", "", "SERVFAIL"}, {"", "Freeze", "SERVFAIL"}, {"", "", "10.1.9.10 10.1.9.9"}}},
		"what is frozen without a past is as health has it": {twoPools, []step{{"a: down", "Freeze", "10.2.9.9"}, {"", "Freeze", "10.2.9.9"}}},
		"a drain ends with what it would leave too little of": {twoPools, []step{
			{"", "Drain dc-b", "10.1.9.10 10.1.9.9"}, {"a: down", "Drain dc-b", "10.2.9.9"}, {"", "Drain dc-b", "10.1.9.10 10.1.9.9"}}},
	} {
		t.Run(sentence, func(t *testing.T) {
			r, w := record(t, tc.record), threeDatacenters(t)
			var memory Memory
			for i, step := range tc.steps {
				res := Compile(r, &Inputs{Now: now.Add(time.Duration(i) * time.Second), World: w, Health: view(t, r, step.health), Overrides: overrides(t, step.overrides), Memory: memory})
				if got := serve(t, r, res.Steered).ask(t, "10.1.0.1"); got != step.want {
					t.Errorf("step %d: answered %s, wanted %s", i+1, got, step.want)
				}
				written, err := json.Marshal(res.Memory)
				if err != nil {
					t.Fatal(err)
				}
				memory = Memory{}
				if err := json.Unmarshal(written, &memory); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestLastGoodIsStale(t *testing.T) {
	r, w := record(t, twoPools+"alldown LastGood"), threeDatacenters(t)
	first := Compile(r, &Inputs{Now: now, World: w, Health: view(t, r, "")})
	res := Compile(r, &Inputs{Now: now, World: w, Health: view(t, r, "a: down, b: down"), Memory: first.Memory})
	if got := describe(&res.Summary); got != "-: a AllDown, dc-a: a AllDown, dc-b: b AllDown, dc-c: a AllDown" {
		t.Errorf("summary %s", got)
	}
	s := serve(t, r, res.Steered)
	s.ask(t, "10.1.0.1")
	if s.scratch.Rcode() != zone.RcodeSuccess {
		t.Errorf("rcode %d", s.scratch.Rcode())
	}
}

func TestTTL(t *testing.T) {
	flips := func(in time.Duration) func(r *Record, in *Inputs) {
		return func(_ *Record, i *Inputs) { i.Health.Pools[0].Targets[0].FlipIn = in }
	}
	for sentence, tc := range map[string]struct {
		record, overrides string
		change            func(r *Record, in *Inputs)
		want              uint32
	}{
		"explicit": {twoPools + "ttl 17", "", nil, 17},
		"0":        {twoPools + "ttl 0", "", nil, 0},
		"derived while nothing points to a change":      {twoPools + "ttl 5..60", "", nil, 60},
		"derived, no longer than until a possible flip": {twoPools + "ttl 5..60", "", flips(21900 * time.Millisecond), 21},
		"derived, but no less than its least":           {twoPools + "ttl 5..60", "", flips(2 * time.Second), 5},
		"not derived, whatever may flip":                {twoPools, "", flips(2 * time.Second), 60},
		"raised":                                        {twoPools + "ttl 5..60", "RaiseTTL 300", flips(2 * time.Second), 300},
		"not lowered by what raises":                    {twoPools, "RaiseTTL 30", nil, 60},
		"raised by the narrower":                        {twoPools, "RaiseTTL 300; RaiseTTL 200 narrow", nil, 200},
	} {
		t.Run(sentence, func(t *testing.T) {
			r := record(t, tc.record)
			in := &Inputs{Now: now, World: threeDatacenters(t), Health: view(t, r, ""), Overrides: overrides(t, tc.overrides)}
			if tc.change != nil {
				tc.change(r, in)
			}
			res := Compile(r, in)
			s := serve(t, r, res.Steered)
			if got := s.ttl(t, "10.1.0.1"); got != tc.want || res.TTL != tc.want {
				t.Errorf("TTL %d, and %d by the result, wanted %d", got, res.TTL, tc.want)
			}
		})
	}
}

func TestSummary(t *testing.T) {
	for sentence, tc := range map[string]struct{ record, health, overrides, want, serving string }{
		"all is well":              {twoPools, "", "", "-: a Preferred, dc-a: a Preferred, dc-b: b Preferred, dc-c: a Preferred", "dc-a,dc-b"},
		"one place has failed":     {twoPools, "a: down", "", "-: b FailedOver, dc-a: b FailedOver, dc-b: b Preferred, dc-c: b FailedOver", "dc-b"},
		"all are down":             {twoPools + "alldown ServFail", "a: down, b: down", "", "-: - AllDown, dc-a: - AllDown, dc-b: - AllDown, dc-c: - AllDown", ""},
		"nothing is judged":        {twoPools, "a: unknown, b: unknown", "", "-: a NotReady, dc-a: a NotReady, dc-b: b NotReady, dc-c: a NotReady", "dc-a,dc-b"},
		"a person must decide":     {inOrder + "failover Manual", "a: down awaiting", "", "-: a Awaiting -> b", "dc-a"},
		"a person must let it in":  {inOrder + "failback Manual", "a: up out", "", "-: b FailedOver -> a", "dc-b"},
		"it comes in by itself":    {inOrder, "a: up out", "", "-: b FailedOver", "dc-b"},
		"nobody confirms":          {inOrder, "a: up held", "", "-: a Held", "dc-a"},
		"a drain decides":          {twoPools, "", "Drain dc-a", "-: b Overridden, dc-a: b Overridden, dc-b: b Preferred, dc-c: b Overridden", "dc-b"},
		"rules come after":         {inOrder + "rule 10.7.0.0/16 c", "", "", "-: a Preferred, rule 0 -: c Preferred", "dc-a"},
		"pools that share":         {"policy Weighted\npool a dc-a: 10.1.9.9\npool b: 10.2.9.9", "", "", "-: a+b Preferred", "b,dc-a"},
		"pools that share no more": {"policy RoundRobin\npool a dc-a: 10.1.9.9\npool b: 10.2.9.9", "a: down", "", "-: b FailedOver", "b"},
	} {
		t.Run(sentence, func(t *testing.T) {
			r := record(t, tc.record)
			res := Compile(r, &Inputs{Now: now, World: threeDatacenters(t), Health: view(t, r, tc.health), Overrides: overrides(t, tc.overrides)})
			if got := strings.ReplaceAll(describe(&res.Summary), "AwaitingApproval", "Awaiting"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if got := strings.Join(res.Summary.Serving, ","); got != tc.serving {
				t.Errorf("serving %s, wanted %s", got, tc.serving)
			}
		})
	}
}

func TestEffects(t *testing.T) {
	for sentence, tc := range map[string]struct {
		health, overrides string
		want              []string
	}{
		"a drain":                         {"", "Drain dc-a", []string{"Drain o-1 acts: drains 2 of 3 targets"}},
		"one that would leave too little": {"b: down", "Drain dc-a", []string{"Drain o-1: would leave 0 healthy targets, and keepAtLeast is 1: nothing is drained"}},
		"one of nothing":                  {"", "Drain target=10.9.9.9", []string{"Drain o-1: there is no target 10.9.9.9 to drain"}},
		"of what is drained already":      {"", "Drain dc-a; Drain target=10.1.9.9", []string{"Drain o-2 acts: drains 1 of 3 targets", "Drain o-1 acts: drains 2 of 3 targets"}},
		"in the order in which they decide": {"", "Block 10.0.0.0/8; Drain dc-a; Force dc-b; Freeze", []string{
			"Freeze o-4 acts: keeps answers as they were", "Force o-3: answers are frozen by ops/o-4", "Drain o-2: answers are frozen by ops/o-4",
			"Block o-1 acts: refuses clients of 1 networks"}},
		"a force goes before a drain": {"", "Drain dc-a; Force dc-a", []string{"Force o-2 acts: forces datacenter dc-a", "Drain o-1: answers are forced by ops/o-2"}},
		"a narrower force":            {"", "Force dc-a; Force dc-a pool=a", []string{"Force o-2 acts: forces datacenter dc-a, pool a", "Force o-1: ops/o-2 goes before it"}},
		"a force of what is down":     {"b: down", "Force dc-b", []string{"Force o-1: nothing of datacenter dc-b is up: the policy goes on"}},
		"a TTL":                       {"", "RaiseTTL 300", []string{"RaiseTTL o-1 acts: raises the TTL to 300 s"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			r := record(t, twoPools)
			res := Compile(r, &Inputs{Now: now, World: threeDatacenters(t), Health: view(t, r, tc.health), Overrides: overrides(t, tc.overrides)})
			var got []string
			for _, e := range res.Effects {
				line := e.Action.String() + " " + strings.TrimPrefix(e.Source, "ops/")
				if e.Acts {
					line += " acts"
				}
				got = append(got, line+": "+e.Text)
			}
			if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			if want := now.Add(time.Hour); !res.Until.Equal(want) {
				t.Errorf("to be compiled again at %s, wanted %s", res.Until, want)
			}
		})
	}
}
