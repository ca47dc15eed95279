package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// Change is a name whose answers are other ones now.
type Change struct {
	Name    zone.Name
	Aliases []zone.Name // that lead to Name: their answers hold its records
}

// Outcome is what became of a Change.
type Outcome string

// Outcomes.
const (
	// Confirmed: the engine answers what all authorities do that answer.
	Confirmed Outcome = "Confirmed"
	// Unconfirmed: it was flushed, and the engine or one of the authorities still says something else. It is looked at
	// again.
	Unconfirmed Outcome = "Unconfirmed"
	// NoAuthority: nothing was flushed, because nobody could be asked for the new answer. It is looked at again.
	NoAuthority Outcome = "NoAuthority"
	// Failed: the engine did not take the flush. It is looked at again.
	Failed Outcome = "Failed"
)

// Limits of flushing.
const (
	flushTime    = 2 * time.Second        // for one Change, from its start
	flushPause   = 5 * time.Millisecond   // before the first repetition, doubled with each
	longestFlush = 200 * time.Millisecond // between repetitions
	flushWorkers = 32                     // at the same time
	flushRate    = 5000                   // flushes a second
	laterPause   = time.Second            // between looks at what is not settled
	laterFor     = 10 * time.Minute       // after this long the TTL has done it
)

// flusher has an engine forget names whose answers have changed.
type flusher struct {
	agent *Agent
	find  authorities
	limit *rate.Limiter
	slots chan struct{}

	mu    sync.Mutex
	later map[zone.Name]unsettled
}

// unsettled is a Change that has to be looked at again.
type unsettled struct {
	change  Change
	missing []netip.Addr // authorities that did not answer; the Change is flushed again when one does
	until   time.Time
	flush   bool // the engine's answer was not confirmed: it is flushed again in any case
}

func newFlusher(a *Agent) *flusher {
	return &flusher{agent: a, limit: rate.NewLimiter(flushRate, flushRate), slots: make(chan struct{}, flushWorkers), later: map[zone.Name]unsettled{}}
}

// Flush has the engine forget changed names, and returns what became of each, in their order, when the engine has its new
// answers or flushTime is over for each. It ends early with ctx; what is left then is Unconfirmed.
//
// A name is not flushed while no authority answers: the old copy is all there is. Authorities that do not answer to the
// engine's own address do not count; a name is flushed again when one of them is back, as is what was not Confirmed.
func (a *Agent) Flush(ctx context.Context, changes []Change) []Outcome {
	outcomes := make([]Outcome, len(changes))
	var all sync.WaitGroup
	for i, c := range changes {
		outcomes[i] = Unconfirmed
		select {
		case a.flusher.slots <- struct{}{}:
		case <-ctx.Done():
			continue
		}
		all.Go(func() {
			defer func() { <-a.flusher.slots }()
			outcomes[i] = a.flusher.settle(ctx, c)
		})
	}
	all.Wait()
	return outcomes
}

// settle flushes one Change, and keeps it for later if that is not the end of it.
func (f *flusher) settle(ctx context.Context, c Change) Outcome {
	began := time.Now()
	outcome, missing, err := f.flush(ctx, c)
	f.agent.metrics.flushes.WithLabelValues(string(outcome)).Inc()
	if outcome == Confirmed {
		f.agent.metrics.flushTime.Observe(time.Since(began).Seconds())
	} else {
		f.agent.o.Log.Info("the flush is not confirmed", "name", c.Name.String(), "outcome", outcome, "why", fmt.Sprint(err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if outcome == Confirmed && len(missing) == 0 {
		delete(f.later, c.Name)
		return outcome
	}
	until := began.Add(laterFor)
	if u, ok := f.later[c.Name]; ok {
		until = u.until
	}
	f.later[c.Name] = unsettled{c, missing, until, outcome != Confirmed}
	return outcome
}

// rrtypes are the types that a change of answers is looked for in.
var rrtypes = []uint16{dns.TypeA, dns.TypeAAAA}

// flush flushes, asks and repeats until the engine says what all authorities say that answer. missing are those that did not.
func (f *flusher) flush(ctx context.Context, c Change) (outcome Outcome, missing []netip.Addr, err error) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	r := f.agent.current()
	outcome = NoAuthority
	for pause := flushPause; ; pause = min(2*pause, longestFlush) {
		var agreed []string
		servers, err := f.find.of(ctx, r.config, r.at, c.Name)
		if err == nil {
			agreed, missing, err = consensus(ctx, r.config, servers, c.Name)
		}
		switch {
		case errors.Is(err, errNoAuthority):
			// Not flushed. What was flushed before stays so.
			return outcome, servers, err
		case err == nil, errors.Is(err, errDisagree):
			switch e := f.forget(ctx, r, c); {
			case errors.Is(e, errLate):
				return Unconfirmed, missing, e
			case e != nil:
				return Failed, missing, e
			}
			outcome = Unconfirmed
			if err == nil {
				if err = answers(ctx, r.at, c.Name, agreed); err == nil {
					return Confirmed, missing, nil
				}
			}
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return outcome, missing, err
		}
	}
}

// errLate says that the time for a flush is over.
var errLate = errors.New("too late to flush")

// forget has the engine forget a name with its aliases. It fails with errLate when there is no time left.
func (f *flusher) forget(ctx context.Context, r *running, c Change) error {
	for _, name := range append([]zone.Name{c.Name}, c.Aliases...) {
		if f.limit.Wait(ctx) != nil {
			return errLate
		}
		if err := r.control.Flush(ctx, name); err != nil {
			if ctx.Err() != nil {
				return errLate
			}
			return err
		}
	}
	return nil
}

// errDisagree says that not all authorities have the same answer.
var errDisagree = errors.New("authorities disagree")

// consensus is what authorities say of a name, for each of rrtypes. It fails with errNoAuthority or errDisagree.
func consensus(ctx context.Context, c *engine.Config, servers []netip.Addr, name zone.Name) (agreed []string, missing []netip.Addr, err error) {
	type result struct {
		got     []reply
		missing []netip.Addr
	}
	results := make([]result, len(rrtypes))
	var all sync.WaitGroup
	for i, t := range rrtypes {
		all.Go(func() {
			results[i].got, results[i].missing = askAll(ctx, c, servers, name.String(), t, authoritative)
		})
	}
	all.Wait()
	for i := range rrtypes {
		answer, found := "", false
		for _, r := range results[i].got {
			if !authoritative(r.message) {
				continue
			}
			if s := said(r.message); found && s != answer {
				err = errDisagree
			} else {
				answer, found = s, true
			}
		}
		if !found {
			return nil, servers, fmt.Errorf("%s: %w", name, errNoAuthority)
		}
		agreed = append(agreed, answer)
	}
	return agreed, results[0].missing, err
}

// answers fails if the engine says other things of a name than the given ones, one for each of rrtypes.
func answers(ctx context.Context, at netip.AddrPort, name zone.Name, want []string) error {
	for i, t := range rrtypes {
		reply, err := ask(ctx, netip.Addr{}, at, question(name.String(), t, true))
		if err != nil {
			return err
		}
		if got := said(reply); got != want[i] {
			return fmt.Errorf("the engine says %q of %s %s, authorities %q", got, name, dns.TypeToString[t], want[i])
		}
	}
	return nil
}

// run looks again at what is not settled until ctx ends.
func (f *flusher) run(ctx context.Context) {
	tick := time.NewTicker(laterPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.again(ctx)
		}
	}
}

// again flushes what was not confirmed, and what has an authority that is back.
func (f *flusher) again(ctx context.Context) {
	f.mu.Lock()
	var all []unsettled
	for name, u := range f.later {
		if time.Now().After(u.until) {
			delete(f.later, name)
			continue
		}
		all = append(all, u)
	}
	f.mu.Unlock()
	var changes []Change
	// One question finds out about a server, not one for each name.
	back := map[netip.Addr]bool{}
	config := f.agent.current().config
	for _, u := range all {
		due := u.flush
		for _, s := range u.missing {
			if _, asked := back[s]; !asked {
				got, _ := askAll(ctx, config, []netip.Addr{s}, u.change.Name.String(), dns.TypeA, authoritative)
				back[s] = len(got) > 0 && authoritative(got[0].message)
			}
			due = due || back[s]
		}
		if due {
			changes = append(changes, u.change)
		}
	}
	f.agent.Flush(ctx, changes)
}
