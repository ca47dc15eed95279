package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// Outcome is what became of a changed name.
type Outcome string

// Outcomes.
const (
	// Confirmed: no authority that answers has the change before it, and the engine answers what they do.
	Confirmed Outcome = "Confirmed"
	// NotCached: no authority that answers has the change before it, and the engine had nothing of the name.
	NotCached Outcome = "NotCached"
	// Unconfirmed: it was flushed, and the engine or one of the authorities still says something else. It is looked at
	// again.
	Unconfirmed Outcome = "Unconfirmed"
	// NoAuthority: nothing was flushed, because nobody could be asked for the new answer. It is looked at again.
	NoAuthority Outcome = "NoAuthority"
	// NotFlushable: the engine keeps answers for each client's network, and can't be made to forget these.
	NotFlushable Outcome = "NotFlushable"
	// Failed: the engine did not take the flush. It is looked at again.
	Failed Outcome = "Failed"
)

// settled reports whether there is nothing left to do but for servers that did not answer.
func (o Outcome) settled() bool { return o == Confirmed || o == NotCached || o == NotFlushable }

// Limits of flushing.
const (
	flushTime     = 2 * time.Second        // after which a name is Unconfirmed
	flushPause    = 5 * time.Millisecond   // before a name is looked at again, doubled with each look
	longestLater  = 30 * time.Second       // the most that this comes to
	doubtAfter    = time.Second            // until a name that was not cached is looked at once more
	awaitTime     = 50 * time.Millisecond  // that servers behind the first are waited for before the first flush
	flushWorkers  = 32                     // names worked on at the same time
	flushRate     = 5000                   // names flushed a second
	treeRate      = 10                     // names a second with all below them: apart, so that nobody waits for these
	flushBatch    = 64                     // names in one command
	flushLanes    = 4                      // commands at the same time
	backLook      = 250 * time.Millisecond // between looks at which servers are back
	laterFor      = 10 * time.Minute       // after this long the TTL has done it
	remembered    = 15 * time.Minute       // how long it is known what has been worked on: longer than servers tell it again
	mostRemember  = 50000                  // names
	mostAliases   = 5000                   // of one name
	mostMissed    = 100                    // zones that are flushed when it is not known what has changed
	missedFor     = time.Hour              // how long this is told
	mostSamples   = 256                    // answers of authorities that one answer of the engine is looked for in
	sampleServers = 2                      // that are asked for other types than A
)

// flusher has an engine forget names whose answers have changed. Each name is worked on by one worker at a time, however
// many servers tell that it has changed.
type flusher struct {
	agent  *Agent
	find   *authorities
	asker  *exchange      // of the engine
	from   [32]netip.Addr // where the engine is asked from: limits of clients are for each address
	tell   rate.Sometimes // of names that are not confirmed
	limit  *rate.Limiter  // of names
	trees  *rate.Limiter  // of names with all below them
	batch  chan forgetting
	wake   chan struct{} // one element: the queue has names
	listen listeners

	mu    sync.Mutex
	names map[changedName]*changed
	queue []*changed
	ended map[Outcome]uint64 // looks at names
	// missed is when a server last told that it does not know any more what has changed.
	missed time.Time
}

// changedName is a name in a zone: a delegation is in another one than what it leads to. A person tells no zone.
type changedName struct{ apex, name zone.Name }

// changed is a name whose answers have changed. Fields are guarded by flusher.mu.
type changed struct {
	changes.Change // of all that was told: Before are the states that no server may be in
	queued         bool
	working        bool
	flushed        bool // since there was something new
	news           bool // since a worker took it
	last           Outcome
	told           Outcome          // the last that was counted
	doubted        bool             // it was NotCached, and is looked at once more
	quick          bool             // what is next is that look
	known          *samples         // of whoever works on it; nil: none
	missing        []netip.Addr     // authorities that did not answer last
	looked         time.Time        // last; zero: never
	heard          time.Time        // when there was something new last
	pause          time.Duration    // before the last look
	retry          *time.Timer      // of the next one; nil: there was none
	waiting        []chan<- Outcome // told how it ended; never full
}

func newFlusher(a *Agent) *flusher {
	f := &flusher{
		agent: a, find: newAuthorities(), asker: newExchange(), tell: rate.Sometimes{First: 10, Interval: time.Second},
		limit: rate.NewLimiter(flushRate, flushRate), trees: rate.NewLimiter(treeRate, treeRate), batch: make(chan forgetting), wake: make(chan struct{}, 1),
		names: map[changedName]*changed{}, ended: map[Outcome]uint64{}, listen: listeners{connected: map[string]bool{}},
	}
	for i := range f.from {
		f.from[i] = beside(netip.AddrPortFrom(netip.IPv4Unspecified(), dnsPort))
	}
	return f
}

// toEngine is one of the ways to the engine.
func (f *flusher) toEngine(r *running) path {
	if !r.at.Addr().Is4() {
		return path{to: r.at}
	}
	return path{f.from[rand.N(len(f.from))], r.at}
}

// Flush has the engine forget changed names, and returns what became of each, in their order, when the engine has its new
// answers or flushTime is over for each. It ends early with ctx; what is left then is Unconfirmed. A change without states and
// serial is one that a person knows of: all servers have to agree.
//
// A name is not flushed while no authority answers: the old copy is all there is. Authorities that do not answer to the
// engine's own address do not count; a name is flushed again when one of them is back, as is what was not settled.
func (a *Agent) Flush(ctx context.Context, all []changes.Change) []Outcome {
	results := make([]chan Outcome, len(all))
	for i := range all {
		results[i] = make(chan Outcome, 1)
	}
	a.flusher.hear(all, results)
	outcomes := make([]Outcome, len(all))
	for i := range all {
		outcomes[i] = Unconfirmed
		select {
		case outcomes[i] = <-results[i]:
		case <-ctx.Done():
		}
	}
	return outcomes
}

// hear has workers look at changed names. results is nil, or has a channel with room for each.
func (f *flusher) hear(all []changes.Change, results []chan Outcome) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range all {
		key := changedName{all[i].Apex, all[i].Name}
		c, known := f.names[key]
		if !known {
			c = &changed{Change: changes.Change{Name: all[i].Name, Apex: all[i].Apex}}
			f.names[key] = c
		}
		if results != nil {
			c.waiting = append(c.waiting, results[i])
		}
		if c.merge(&all[i]) || !known || results != nil {
			c.news, c.flushed, c.heard, c.pause, c.told, c.doubted, c.quick = true, false, now, 0, "", false, false
			f.enqueue(c)
		} else if !c.last.settled() {
			f.enqueue(c) // one server more has got so far
		}
	}
}

// miss has zones forgotten, with all below them, as a server does not know any more what has changed: those that were asked for
// lately, whose servers answer.
func (f *flusher) miss() (zones []zone.Name) {
	now := time.Now()
	zones = f.find.present(now.Add(-2*contactInterval), mostMissed)
	f.mu.Lock()
	f.missed = now.UTC().Truncate(time.Second)
	f.mu.Unlock()
	all, results := make([]changes.Change, len(zones)), make([]chan Outcome, len(zones))
	for i, apex := range zones {
		all[i], results[i] = changes.Change{Name: apex, Apex: apex, Beneath: true}, make(chan Outcome, 1)
	}
	f.hear(all, results)
	return zones
}

// merge adds what a server tells, and reports whether it was not known.
func (c *changed) merge(told *changes.Change) (news bool) {
	for _, state := range told.Before {
		if state != told.After && !slices.Contains(c.Before, state) {
			c.Before, news = append(c.Before, state), true
		}
	}
	// The server is in After: a name may come back to a state that it has left.
	if len(told.Before) > 0 {
		c.Before = slices.DeleteFunc(c.Before, func(state uint64) bool { return state == told.After })
	}
	if told.Serial != 0 && (c.Serial == 0 || zone.SerialLess(c.Serial, told.Serial)) {
		c.Serial, news = told.Serial, true
	}
	if told.Beneath && !c.Beneath {
		c.Beneath, news = true, true
	}
	for _, alias := range told.Aliases {
		if _, known := slices.BinarySearchFunc(c.Aliases, alias, zone.Name.Compare); !known && len(c.Aliases) < mostAliases {
			c.Aliases = append(c.Aliases, alias)
			slices.SortFunc(c.Aliases, zone.Name.Compare)
			news = true
		}
	}
	return news
}

// enqueue has a worker look at a name. f.mu is held.
func (f *flusher) enqueue(c *changed) {
	if c.queued || c.working {
		return
	}
	c.queued = true
	f.queue = append(f.queue, c)
	f.signal()
}

func (f *flusher) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run works on names until ctx ends.
func (f *flusher) run(ctx context.Context) {
	var all sync.WaitGroup
	for range flushLanes {
		all.Go(func() { f.forgetAll(ctx) })
	}
	all.Go(func() { f.keepContact(ctx) })
	for range flushWorkers {
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case <-f.wake:
				}
				for ctx.Err() == nil && f.next(ctx) {
				}
			}
		})
	}
	tick := time.NewTicker(backLook)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			f.again(time.Now())
		}
	}
	all.Wait()
}

// keepContact knows the servers of zones whose names have changed lately, and of those that are to be kept warm.
func (f *flusher) keepContact(ctx context.Context) {
	tick := time.NewTicker(contactInterval)
	defer tick.Stop()
	for {
		c, _ := f.agent.doing()
		r := f.agent.current()
		for _, zone := range append(slices.Clone(c.KeepWarm), c.RecursionCheck) {
			if zone == (engine.Name{}) {
				continue
			}
			if _, _, fresh := f.find.known(zoneName(zone)); !fresh {
				_, _ = f.find.of(ctx, r.config, r.at, zoneName(zone), false)
			}
		}
		f.find.refresh(ctx, r.config, r.at)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// next looks at the name that waits longest. It reports false if none does.
func (f *flusher) next(ctx context.Context) bool {
	f.mu.Lock()
	if len(f.queue) == 0 {
		f.mu.Unlock()
		return false
	}
	c := f.queue[0]
	f.queue = f.queue[1:]
	if len(f.queue) > 0 {
		f.signal() // another worker may take it
	}
	c.queued, c.working, c.news = false, true, false
	job := *c
	c.quick = false
	job.Before, job.Aliases = slices.Clone(c.Before), slices.Clone(c.Aliases)
	f.mu.Unlock()

	if job.known == nil || !job.heard.Equal(job.known.since) {
		job.known = newSamples(&job)
	}
	began := time.Now()
	result := f.look(ctx, &job)

	f.mu.Lock()
	defer f.mu.Unlock()
	c.working, c.last, c.missing, c.looked, c.known = false, result.outcome, result.missing, began, job.known
	if c.news {
		f.enqueue(c)
		return true
	}
	c.flushed = result.flushed
	if result.outcome != Unconfirmed || time.Since(c.heard) >= flushTime {
		f.end(c, &result)
	}
	switch {
	case !result.outcome.settled():
		c.pause = min(max(2*c.pause, flushPause), longestLater)
		f.later(c, c.pause, func() bool { return !c.last.settled() && time.Since(c.heard) < laterFor })
	case result.outcome == NotCached && !c.doubted:
		c.doubted = true
		f.later(c, doubtAfter, func() bool {
			c.quick = c.doubted && c.last == NotCached && !c.queued && !c.working
			return c.quick
		})
	}
	return true
}

// later has a worker look at a name after a pause, if that is needed then. f.mu is held, also when it is asked whether.
func (f *flusher) later(c *changed, pause time.Duration, needed func() bool) {
	if c.retry != nil {
		c.retry.Stop()
	}
	c.retry = time.AfterFunc(pause, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if needed() {
			f.enqueue(c)
		}
	})
}

// end tells what became of a name, as far as it has not been told. f.mu is held.
func (f *flusher) end(c *changed, result *seen) {
	for _, w := range c.waiting {
		w <- result.outcome
	}
	c.waiting = nil
	if c.told == result.outcome {
		return
	}
	c.told = result.outcome
	f.ended[result.outcome]++
	f.agent.metrics.flushes.WithLabelValues(string(result.outcome)).Inc()
	if result.outcome.settled() {
		c.known = nil
		f.agent.metrics.flushTime.Observe(time.Since(c.heard).Seconds())
		return
	}
	f.tell.Do(func() {
		f.agent.o.Log.Info("the flush is not confirmed", "name", c.Name.String(), "outcome", result.outcome, "why", fmt.Sprint(result.err))
	})
}

// again has workers look once more at names of which an authority is back, and forgets old ones.
func (f *flusher) again(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, c := range f.names {
		switch age := now.Sub(c.heard); {
		case c.queued || c.working:
		case age > remembered || age > laterFor && len(f.names) > mostRemember:
			delete(f.names, key)
		case age < laterFor && slices.ContainsFunc(c.missing, func(s netip.Addr) bool { return f.find.answeredSince(s, c.looked) }):
			// What it has said to the engine meanwhile may be old.
			c.flushed, c.pause, c.told, c.doubted = false, 0, "", false
			f.enqueue(c)
		}
	}
}

// seen is what became of one look at a name.
type seen struct {
	outcome Outcome
	flushed bool         // now or before
	missing []netip.Addr // authorities that did not answer
	err     error        // why it is not settled
}

// look flushes if no server has the change before it, or those that have are late, and asks the engine. It is to be repeated
// until the engine answers what servers do.
func (f *flusher) look(ctx context.Context, c *changed) seen {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	r := f.agent.current()
	s := seen{outcome: Unconfirmed, flushed: c.flushed}
	if c.quick {
		return f.doubt(ctx, r, c)
	}
	var ahead []netip.Addr
	servers, silent := f.find.isSilent(zoneOf(c))
	err := errNoAuthority
	if !silent {
		if servers, err = f.find.of(ctx, r.config, r.at, zoneOf(c), c.Apex != ""); err == nil {
			ahead, s.missing, err = f.survey(ctx, r.config, servers, c)
		}
		f.find.heard(zoneOf(c), servers, !errors.Is(err, errNoAuthority))
	}
	s.err = err
	behind := errors.Is(err, errBehind)
	switch {
	case ctx.Err() != nil: // that nobody answers means nothing now
	case errors.Is(err, errNoAuthority):
		s.missing = servers
		if !c.flushed {
			s.outcome = NoAuthority
		}
	case behind && !c.flushed && time.Since(c.heard) < awaitTime:
	case err == nil || behind:
		f.settle(ctx, r, c, &s, ahead, behind)
	}
	return s
}

// doubt looks whether the engine has got something of a name since it had nothing: an answer that was on its way when the change
// was heard is an old one. Then the name is looked at as any other.
func (f *flusher) doubt(ctx context.Context, r *running, c *changed) seen {
	s := seen{outcome: Unconfirmed, missing: c.missing}
	if _, servers, _ := f.find.known(zoneOf(c)); !slices.ContainsFunc(servers, func(server netip.Addr) bool {
		return f.find.answeredSince(server, time.Now().Add(-2*contactInterval))
	}) {
		return s
	}
	held, err := f.forget(ctx, r, c)
	switch {
	case err != nil:
		s.err = err
	case held:
		s.flushed = true
	default:
		s.outcome = NotCached
	}
	return s
}

// settle flushes if that has to be, and has the engine asked.
func (f *flusher) settle(ctx context.Context, r *running, c *changed, s *seen, ahead []netip.Addr, behind bool) {
	if !s.flushed {
		held, err := f.forget(ctx, r, c)
		if err != nil {
			if s.err = err; !errors.Is(err, errLate) {
				s.outcome = Failed
			}
			return
		}
		s.flushed = true
		switch {
		case notFlushable(f.agent.o.Product, r.config, c.Name):
			s.outcome = NotFlushable
			return
		case held || f.agent.isKeptWarm(c.Name):
		case behind:
			s.flushed = false // it may be asked for meanwhile
			return
		default:
			s.outcome = NotCached
			return
		}
	}
	f.sample(ctx, r.config, ahead, c.known)
	switch err := f.answers(ctx, r, c.known); {
	case err != nil:
		s.err, s.flushed = err, false
	case !behind:
		s.outcome = Confirmed
	}
}

// zoneOf is the name whose servers have a change: its zone's apex if it is known.
func zoneOf(c *changed) zone.Name {
	if c.Apex != "" {
		return c.Apex
	}
	return c.Name
}

// notFlushable reports whether the engine keeps answers to a name that no command of it forgets.
func notFlushable(p engine.Product, c *engine.Config, name zone.Name) bool {
	return slices.ContainsFunc(lastingZones(p, c), func(z engine.Name) bool { return name.Within(zoneName(z)) })
}

// lastingZones are those that the engine keeps answers of for each client's network, which it can't be made to forget.
func lastingZones(p engine.Product, c *engine.Config) []engine.Name {
	if p != engine.Unbound || c.ECS == nil {
		return nil
	}
	return c.ECS.Zones
}

// errLate says that the time for a flush is over.
var errLate = errors.New("too late to flush")

// forgetting is names that are to be forgotten.
type forgetting struct {
	names []zone.Name
	done  chan<- forgotten // one element
}

type forgotten struct {
	held bool // the engine had something, as far as it can tell
	err  error
}

// forget has the engine forget a name with its aliases, and reports whether it may have had something of them. It fails with
// errLate when there is no time left.
func (f *flusher) forget(ctx context.Context, r *running, c *changed) (held bool, err error) {
	names := append([]zone.Name{c.Name}, c.Aliases...)
	if f.agent.o.Product == engine.Unbound && len(c.Before) > 0 && !c.Beneath {
		// A command costs it more than questions, and it does not tell what it had.
		names = slices.DeleteFunc(names, func(name zone.Name) bool { return !f.caches(ctx, r, name) })
	}
	for part := range slices.Chunk(names, flushBatch) {
		if f.limit.WaitN(ctx, len(part)) != nil {
			return held, errLate
		}
		done := make(chan forgotten, 1)
		select {
		case f.batch <- forgetting{part, done}:
		case <-ctx.Done():
			return held, errLate
		}
		result := <-done
		held = held || result.held
		if result.err != nil {
			return held, result.err
		}
	}
	if !c.Beneath {
		return held, nil
	}
	top := c.Name
	if strings.HasPrefix(top.String(), "*.") {
		top = top.Parent() // names that the wildcard stands for are below its parent
	}
	if f.trees.Wait(ctx) != nil {
		return held, errLate
	}
	return true, f.agent.current().control.FlushTree(ctx, top)
}

// caches reports whether Unbound has something of a steered name, as far as can be known: without recursion desired it answers
// the agent from its cache alone.
func (f *flusher) caches(ctx context.Context, r *running, name zone.Name) bool {
	return slices.Contains(concurrently(steeredTypes, func(t uint16) bool {
		reply, err := f.asker.ask(ctx, f.toEngine(r), question(name.String(), t, false))
		return err != nil || reply.Rcode != dns.RcodeSuccess || len(reply.Answer) > 0 ||
			slices.ContainsFunc(reply.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
	}), true)
}

// Types of names.
var (
	steeredTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSRV}
	otherTypes   = []uint16{dns.TypeTXT, dns.TypeMX}
)

// forgetAll has the engine forget what workers want, as much at once as there is.
func (f *flusher) forgetAll(ctx context.Context) {
	for {
		var jobs []forgetting
		var names []zone.Name
		select {
		case <-ctx.Done():
			return
		case j := <-f.batch:
			jobs, names = append(jobs, j), append(names, j.names...)
		}
		for more := true; more && len(names) < flushBatch; {
			select {
			case j := <-f.batch:
				jobs, names = append(jobs, j), append(names, j.names...)
			default:
				more = false
			}
		}
		one, cancel := context.WithTimeout(ctx, flushTime)
		held, err := f.agent.current().control.Flush(one, names...)
		cancel()
		for _, j := range jobs {
			had := err != nil || slices.Contains(held[:len(j.names)], true)
			if err == nil {
				held = held[len(j.names):]
			}
			j.done <- forgotten{had, err}
		}
	}
}

// report is what is told of flushing.
func (f *flusher) report(p engine.Product, c *engine.Config) pool.Flush {
	r := pool.Flush{Notifiers: f.listen.list(), NotFlushable: lastingZones(p, c)}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.missed) < missedFor {
		r.Missed = f.missed
	}
	for _, c := range f.names {
		if (!c.last.settled() || len(c.missing) > 0) && now.Sub(c.heard) < laterFor {
			r.Waiting++
		}
	}
	if len(f.ended) > 0 {
		r.Outcomes = map[string]uint64{}
	}
	for outcome, n := range f.ended {
		r.Outcomes[string(outcome)] = n
	}
	return r
}

// What servers say does not settle a change.
var (
	errBehind = errors.New("authorities have the change before them")
	errAnswer = errors.New("the engine does not answer what authorities do")
)

// samples is what authorities that have a change answer for its name; for its zone's apex if all beneath the name changes.
type samples struct {
	name      string
	since     time.Time // when the change was heard
	rrtypes   []uint16  // that the engine is asked for
	given     map[uint16]map[string]bool
	positions []position // of servers when this was given
}

func newSamples(c *changed) *samples {
	// What is beneath a name may be for others to say, who need not answer: there it is the zone that servers have to have.
	name := c.Name
	if c.Beneath && c.Apex != "" {
		name = c.Apex
	}
	k := &samples{name: name.String(), since: c.heard, rrtypes: slices.Clone(steeredTypes)}
	if len(c.Before) == 0 {
		k.rrtypes = append(k.rrtypes, otherTypes...)
	}
	k.forget()
	return k
}

// forget leaves no answers.
func (k *samples) forget() {
	k.given = map[uint16]map[string]bool{}
	for _, t := range k.rrtypes {
		k.given[t] = map[string]bool{}
	}
}

// add notes an answer.
func (k *samples) add(m *dns.Msg) {
	if of := k.given[m.Question[0].Qtype]; len(of) < mostSamples {
		of[said(m)] = true
	}
}

// has reports whether an answer is one that authorities give, or is made of records that they give where what they give
// differs from one question to the next.
func (k *samples) has(m *dns.Msg) bool {
	given, text := k.given[m.Question[0].Qtype], said(m)
	if given[text] || len(given) < 2 {
		return given[text]
	}
	records := map[string]bool{}
	for answer := range given {
		for record := range strings.SplitSeq(answer, "\n") {
			records[record] = true
		}
	}
	for record := range strings.SplitSeq(text, "\n") {
		if !records[record] {
			return false
		}
	}
	return true
}

// survey asks the servers of a name what they say, which is added to what is known of it. It fails with errNoAuthority, or with
// errBehind if one that answers has the change before it. ahead are those that have it, the nearest first, and missing those
// that do not answer.
//
// Servers that know zone.OptionState tell how far they are. Others are of other products: what they answer has to be what
// those do, or all of them.
func (f *flusher) survey(ctx context.Context, c *engine.Config, servers []netip.Addr, n *changed) (ahead, missing []netip.Addr, err error) {
	known := n.known
	got, missing := f.find.askAll(ctx, c, servers, known.name, dns.TypeA, authoritative)
	got = slices.DeleteFunc(got, func(r reply) bool { return !authoritative(r.message) })
	if len(got) == 0 {
		return nil, servers, fmt.Errorf("%s: %w", known.name, errNoAuthority)
	}
	behind := func(s netip.Addr, format string, args ...any) {
		err = fmt.Errorf("%w: %s %s", errBehind, s, fmt.Sprintf(format, args...))
	}
	var moved, others []reply
	var positions []position
	for _, r := range got {
		p := positionOf(r.message)
		switch {
		case p == nil:
			others = append(others, r)
			continue
		case len(n.Before) == 0 && n.Serial == 0: // nobody has told where it has to be
			if len(positions) > 0 && !p.agrees(positions[0]) {
				behind(r.server, "is at %s, another at %s", p, positions[0])
			}
		case n.Awaits(p.serial, p.state):
			behind(r.server, "is at %s", p)
			continue
		}
		moved, positions = append(moved, r), append(positions, *p)
	}
	if !slices.Equal(positions, known.positions) || n.Serial == 0 && err != nil && len(n.Before) == 0 {
		known.forget()
	}
	known.positions = positions
	if len(moved) == 0 && err == nil { // all are of other products
		known.forget()
		for _, r := range others[1:] {
			if said(r.message) != said(others[0].message) {
				behind(r.server, "answers %q, another %q", said(r.message), said(others[0].message))
			}
		}
		moved, others = others, nil
	}
	for _, r := range moved {
		known.add(r.message)
		ahead = append(ahead, r.server)
	}
	for _, r := range others {
		if err == nil && !known.has(r.message) {
			behind(r.server, "answers %q", said(r.message))
		}
	}
	slices.SortStableFunc(ahead, func(a, b netip.Addr) int { return cmp.Compare(f.find.distance(a), f.find.distance(b)) })
	return ahead, missing, err
}

// sample asks the nearest of those that have a change for the types that were not asked for yet.
func (f *flusher) sample(ctx context.Context, c *engine.Config, ahead []netip.Addr, known *samples) {
	for _, replies := range concurrently(known.rrtypes[1:], func(t uint16) []reply {
		replies, _ := f.find.askAll(ctx, c, ahead[:min(len(ahead), sampleServers)], known.name, t, authoritative)
		return replies
	}) {
		for _, r := range replies {
			if authoritative(r.message) {
				known.add(r.message)
			}
		}
	}
}

// concurrently returns what f says of each, in their order.
func concurrently[T, R any](of []T, f func(T) R) []R {
	results := make([]R, len(of))
	var all sync.WaitGroup
	for i := range of {
		all.Go(func() { results[i] = f(of[i]) })
	}
	all.Wait()
	return results
}

// position is how far a server is with a name.
type position struct {
	serial uint32
	state  uint64
}

func (p position) String() string { return fmt.Sprintf("state %x of serial %d", p.state, p.serial) }

// agrees reports whether two servers answer the same: a steered name in one state, another one from one version of its zone.
func (p position) agrees(o position) bool {
	return p.state == o.state && (p.state != 0 || p.serial == o.serial)
}

// positionOf is what a server says of itself; nil: it is of another product.
func positionOf(m *dns.Msg) *position {
	o := m.IsEdns0()
	if o == nil {
		return nil
	}
	for _, e := range o.Option {
		local, is := e.(*dns.EDNS0_LOCAL)
		if !is || local.Code != zone.OptionState {
			continue
		}
		if serial, state, ok := zone.ParseState(local.Data); ok {
			return &position{serial, state}
		}
	}
	return nil
}

// answers fails if the engine says something of a name that no authority does.
func (f *flusher) answers(ctx context.Context, r *running, known *samples) error {
	// Threads of the Recursor keep answers of their own; which thread a question gets to is for the kernel to say.
	times := 1
	if f.agent.o.Product == engine.Recursor && r.config.Threads > 1 {
		times = 2 * r.config.Threads
	}
	asked := slices.DeleteFunc(slices.Clone(known.rrtypes), func(t uint16) bool { return len(known.given[t]) == 0 }) // else nobody could be
	return errors.Join(concurrently(slices.Repeat(asked, times), func(t uint16) error {
		reply, err := f.asker.ask(ctx, f.toEngine(r), question(known.name, t, true))
		if err == nil && !known.has(reply) {
			err = fmt.Errorf("%w: %s %s %q", errAnswer, known.name, dns.TypeToString[t], said(reply))
		}
		return err
	})...)
}
