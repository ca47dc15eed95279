package health_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

var (
	runs = flag.Int("runs", 100, "random sequences of each kind")
	seed = flag.Uint64("seed", 1, "of the first of them; the others follow")
)

func TestRandomPartitionsAreAnsweredAsTheModelAllows(t *testing.T) { randomRuns(t, partitions) }

func TestRandomKillsPausesAndRestartsAreAnsweredAsTheModelAllows(t *testing.T) {
	randomRuns(t, killings)
}

func randomRuns(t *testing.T, events func(*rand.Rand, *drama)) {
	t.Helper()
	for n := range *runs {
		s := *seed + uint64(n)
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			t.Parallel()
			play(t, rand.New(rand.NewPCG(s, 0)), events)
		})
	}
}

// drama is a random sequence of events.
type drama struct {
	w   *world
	m   *model
	log []string
	// pace is how many times faster than told time passes between events, for real servers.
	pace int
}

func (d *drama) do(text string) {
	d.m.look()
	d.log = append(d.log, fmt.Sprintf("%s %s", d.w.now.Sub(epoch), text))
	do := d.w.do
	if d.w.real != nil {
		do = d.w.real.do
	}
	if err := do(text); err != nil {
		d.w.t.Fatal(err)
	}
	d.m.look()
}

// wait lets time pass, and looks every second and whenever a server decides something.
func (d *drama) wait(length time.Duration) {
	if d.w.real != nil {
		d.w.real.wait(length/time.Duration(d.pace), d.m.look)
		return
	}
	for until := d.w.now.Add(length); d.w.now.Before(until); {
		d.w.run(d.w.now.Add(time.Second))
		d.m.look()
	}
}

func play(t *testing.T, rng *rand.Rand, events func(*rand.Rand, *drama)) {
	t.Helper()
	estates := [][]string{{"dc-a", "dc-b"}, {"dc-a", "dc-b", "dc-w"}, {"dc-a", "dc-b", "dc-c"}}
	names := estates[rng.IntN(len(estates))]
	topo := estate(1+rng.IntN(2), rng.IntN(2) == 0, names...)
	probe := probeEvery(2*time.Second, time.Second, 2, 2)
	var records []*steeringpb.Record
	for i, r := range storyRecords(topo) {
		r.Probes = []*steeringpb.Probe{probe}
		if columns[i].delay > 0 {
			r.FailbackDelay = 10_000
		}
		records = append(records, r)
	}
	w := newWorld(t, topo, records)
	w.hubAt = names[rng.IntN(2)]
	m := newModel(w, modelTimes{
		fallsFrom: 2 * time.Second, falls: 9 * time.Second, risesFrom: 2 * time.Second, rises: 22 * time.Second, first: 4 * time.Second,
		contact: 5 * time.Second, silenceFrom: 3 * time.Second, silence: 8 * time.Second, oneWay: 13 * time.Second,
		isolation: 5 * time.Second, reach: 2 * time.Second, young: 9 * time.Second, save: 2 * time.Second, slack: 3 * time.Second, answers: 3 * time.Second,
	})
	(&drama{w: w, m: m}).play(rng, events)
}

// play lets events happen, and tells what the model has not allowed.
func (d *drama) play(rng *rand.Rand, events func(*rand.Rand, *drama)) {
	w, m, t := d.w, d.m, d.w.t
	t.Helper()
	d.wait(40 * time.Second)
	events(rng, d)
	if len(m.failures) > 0 {
		for _, line := range d.log {
			t.Log(line)
		}
		t.Logf("estate of %d datacenters, %d servers each, anchors %v, hub in %s", len(w.dcs), len(w.servers)/len(w.dcs), len(w.topo.GetDatacenters()[0].GetAnchors()) > 0, w.hubAt)
		for _, f := range m.failures[:min(len(m.failures), 10)] {
			t.Error(f)
		}
		return
	}
	t.Logf("%d answers, %d of them the only one allowed", m.checked, m.exact)
	if m.exact*either(w.real == nil, 4, 20) < m.checked { // around real ones more happens in the time that they may take
		t.Errorf("only in %d of %d cases one answer alone was allowed: the model says too little", m.exact, m.checked)
	}
}

// partitions cuts links one and two ways and datacenters off, and mends all at the end.
func partitions(rng *rand.Rand, d *drama) {
	pick := func() (string, string) {
		i := rng.IntN(len(d.w.dcs))
		j := (i + 1 + rng.IntN(len(d.w.dcs)-1)) % len(d.w.dcs)
		return d.w.dcs[i].name, d.w.dcs[j].name
	}
	for range 4 + rng.IntN(5) {
		a, b := pick()
		switch rng.IntN(9) {
		case 7:
			d.do(a + either(rng.IntN(2) == 0, " loses its anchors", " finds its anchors"))
		case 8:
			d.person(rng.IntN(3))
		case 0, 1:
			d.do(fmt.Sprintf("link %s - %s is cut", a, b))
		case 2:
			d.do(fmt.Sprintf("link %s - %s is mended", a, b))
		case 3:
			d.do(fmt.Sprintf("packets %s -> %s are lost", a, b))
		case 4:
			d.do(a + " is cut off")
		case 5:
			d.do(a + " is connected again")
		case 6:
			d.do("target " + letter(d.w.dcs[rng.IntN(2)].name) + either(rng.IntN(2) == 0, " dies", " returns"))
		}
		d.wait(time.Duration(1+rng.IntN(45)) * time.Second)
	}
	d.heal()
}

// killings kills, pauses and restarts targets, servers, datacenters and the hub, and mends all at the end.
func killings(rng *rand.Rand, d *drama) {
	for range 6 + rng.IntN(6) {
		s := d.w.servers[rng.IntN(len(d.w.servers))]
		switch rng.IntN(12) {
		case 0, 1:
			d.do("target " + letter(d.w.dcs[rng.IntN(2)].name) + either(rng.IntN(3) > 0, " dies", " returns"))
		case 2:
			if !s.site.dead {
				d.do(s.id.Name + " restarts")
			}
		case 3:
			if !s.site.dead {
				d.do(s.id.Name + " restarts, empty")
			}
		case 4, 5:
			d.pause(s, !s.paused)
		case 6:
			if !s.site.dead {
				d.do(s.site.name + " goes silent")
			}
		case 7:
			if s.site.dead {
				d.do(s.site.name + " returns")
			}
		case 8:
			d.do(either(d.w.hubDead, "hub returns", "hub dies"))
		default:
			d.person(rng.IntN(3))
		}
		d.wait(time.Duration(1+rng.IntN(40)) * time.Second)
	}
	d.heal()
}

// pause has a server stand still, or go on.
func (d *drama) pause(s *server, still bool) {
	if !s.alive || s.paused == still {
		return
	}
	d.m.look()
	d.log = append(d.log, fmt.Sprintf("%s %s %s", d.w.now.Sub(epoch), s.id.Name, either(still, "stands still", "goes on")))
	switch {
	case d.w.real != nil:
		d.w.real.pause(s, still)
	case still:
		s.pause()
	default:
		s.resume()
	}
	d.m.look()
}

// person acts on the records that are by hand, through the hub.
func (d *drama) person(what int) {
	if d.w.hubDead {
		return
	}
	text := [...]string{"a person forces b", "a person fails back", "the override ends"}[what]
	d.m.person([...]string{"force b", "fail back", ""}[what])
	d.do(text)
}

// heal mends everything. Then all servers must give the answers of good days.
func (d *drama) heal() {
	for _, a := range d.w.dcs {
		if a.cut {
			d.do(a.name + " is connected again")
		}
		if a.dead {
			d.do(a.name + " returns")
		}
		d.do(a.name + " finds its anchors")
		for _, b := range d.w.dcs {
			if a != b {
				d.do(fmt.Sprintf("link %s - %s is mended", a.name, b.name))
			}
		}
		if !a.witness {
			d.do("target " + letter(a.name) + " returns")
		}
	}
	for _, s := range d.w.servers {
		d.pause(s, false)
	}
	if d.w.hubDead {
		d.do("hub returns")
	}
	d.wait(20 * time.Second)
	d.person(2)
	d.wait(40 * time.Second)
	d.person(1)
	d.wait(60 * time.Second)
	for _, s := range d.w.servers {
		if s.site.witness {
			continue
		}
		for i, r := range d.w.records {
			want := "a"
			switch columns[i].policy {
			case steeringpb.Policy_NEAREST:
				want = letter(s.site.name)
			case steeringpb.Policy_WEIGHTED:
				want = either(len(d.w.targets) == 3, "a+b+c", "a+b")
			}
			if got := s.answer(r, s.site.name); !d.m.permits(map[string]bool{want: true}, got) {
				d.m.failures = append(d.m.failures, fmt.Sprintf("when all is well again %s answers %s with %s, not %s", s.id.Name, r.Source, got, want))
			}
		}
	}
}

func either[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}
