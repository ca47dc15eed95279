package probe

import (
	"container/heap"
	"container/list"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
)

// Jitter is by how much of the interval the time between two probes of a check is longer or shorter at most, so that
// checks do not stay in step.
const Jitter = 0.1

const (
	// early is within what a new check is probed for the first time whose place in a long interval is later than twice
	// that.
	early = 10 * time.Second
	// tick is how exact the schedule is: what is due within it begins together.
	tick = 5 * time.Millisecond
	// lost is how late a Scheduler that was stopped must be to spread what it missed, and not to catch up at once.
	lost = time.Second
)

// Options are those of a Scheduler.
type Options struct {
	// Deliver is told the Result of each probe, by several goroutines at a time, of one check by one. No probe of the
	// check begins before it returns. It must not call Set or Update. Results of checks that were removed, and those
	// that are Canceled, are not delivered.
	Deliver func(health.CheckID, Result)
	// MaxInFlight is how many probes may run at a time, each with a file descriptor and memory of its own; 0: 8192, or
	// half of the files that the process may open if that is less. As long as Stats.Needed is less, no check waits for
	// others, whatever targets do. If it is more, new checks and those whose last probe took most of its time share three
	// quarters of the places, and wait for them; those of targets that answer have the rest for themselves.
	MaxInFlight int
	// Seed differs from server to server, so that they do not ask a target at the same moment.
	Seed uint64
}

// Stats is what a Scheduler does.
type Stats struct {
	Checks   int
	InFlight int // probes that run
	Waiting  int // those that are due and wait for one of the places of MaxInFlight
	// Needed is how many probes run at a time if no target at all answers: the sum of timeout / interval. MaxInFlight
	// should be more by a tenth.
	Needed      float64
	MaxInFlight int
	Probes      uint64        // begun so far
	Late        time.Duration // by which the one begun last was late
}

// Scheduler runs checks: each once in its interval, give or take Jitter, with one probe at a time; new ones and those that
// were missed spread over time. It is for concurrent use. It needs no goroutine for a check that does not run.
type Scheduler struct {
	options Options
	wake    chan struct{}

	mu      sync.Mutex
	run     context.Context // nil: Run was not called, or has ended
	running sync.WaitGroup
	random  *rand.Rand
	checks  map[health.CheckID]*check
	due     schedule
	// waiting are due; the slow ones only if they can't start for having enough places already. Both in order of time.
	waiting, waitingSlow list.List
	inFlight, slow       int
	probes               uint64
	late                 time.Duration
}

// check is a Check with its state, which is under the Scheduler's mu but for the last two fields.
type check struct {
	Check
	idle    bool
	removed bool
	began   time.Time          // the last probe; zero: none
	due     time.Time          // the next one
	second  time.Time          // when the one after the first is due at the latest, if that was early; else zero
	place   int                // in the schedule; -1: not there
	waiting *list.Element      // nil: it does not wait
	cancel  context.CancelFunc // nil: it does not run
	slow    bool               // the last probe took most of its time, or there was none

	delivery sync.Mutex // held while a result is delivered
	rtt      RTT        // of delivery
}

// NewScheduler returns a Scheduler without checks. It does nothing until Run.
func NewScheduler(o Options) *Scheduler {
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = max(min(8192, openFiles()/2), 1)
	}
	return &Scheduler{
		options: o,
		wake:    make(chan struct{}, 1),
		random:  rand.New(rand.NewPCG(o.Seed, 0)),
		checks:  map[health.CheckID]*check{},
	}
}

// Run probes until ctx ends. When it returns no probe runs and no result will be delivered.
func (s *Scheduler) Run(ctx context.Context) {
	s.mu.Lock()
	s.run = ctx
	s.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		}
		timer.Reset(s.begin(time.Now()))
	}
	s.mu.Lock()
	s.run = nil
	s.mu.Unlock()
	s.running.Wait()
}

// begin starts what is due and returns in how long something will be.
func (s *Scheduler) begin(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.due) > 0 && now.Sub(s.due[0].due) > lost {
		s.spread(now)
	}
	for len(s.due) > 0 && !s.due[0].due.After(now) {
		c := heap.Pop(&s.due).(*check)
		if c.slow {
			c.waiting = s.waitingSlow.PushBack(c)
		} else {
			c.waiting = s.waiting.PushBack(c)
		}
	}
	s.fill(now)
	if len(s.due) == 0 {
		return time.Hour
	}
	return max(s.due[0].due.Sub(now), tick)
}

// spread has checks that should have begun long ago begin over as long a time as they were missed in.
func (s *Scheduler) spread(now time.Time) {
	missed := now.Sub(s.due[0].due)
	for _, c := range s.due {
		if c.due.Before(now) {
			c.due = now.Add(time.Duration(s.random.Float64() * float64(min(c.interval(), missed))))
		}
	}
	heap.Init(&s.due)
}

// fill gives free places to checks that wait.
func (s *Scheduler) fill(now time.Time) {
	for s.run != nil && s.inFlight < s.options.MaxInFlight {
		queue := &s.waiting
		if queue.Len() == 0 {
			queue = &s.waitingSlow
			if queue.Len() == 0 || s.slow >= max(s.options.MaxInFlight*3/4, 1) {
				return
			}
		}
		s.start(queue.Remove(queue.Front()).(*check), now)
	}
}

func (s *Scheduler) start(c *check, now time.Time) {
	ctx, cancel := context.WithCancel(s.run)
	c.waiting, c.cancel, c.began = nil, cancel, now
	s.late = now.Sub(c.due)
	s.probes++
	s.inFlight++
	if c.slow {
		s.slow++
	}
	s.running.Add(1)
	go s.probe(ctx, c, c.Check, c.slow)
}

// probe runs one probe of a check as it was then, delivers what came of it, and says when the next one is due.
func (s *Scheduler) probe(ctx context.Context, c *check, as Check, slow bool) {
	defer s.running.Done()
	result := as.Prober.Probe(ctx, as.Address)
	if result.Code != Canceled {
		c.delivery.Lock()
		if ctx.Err() == nil { // neither removed nor at the end
			c.rtt.Observe(result)
			result.Smoothed = c.rtt.Value()
			s.options.Deliver(as.ID, result)
		}
		c.delivery.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.cancel()
	c.cancel = nil
	s.inFlight--
	if slow {
		s.slow--
	}
	now := time.Now()
	if !c.removed {
		c.slow = now.Sub(c.began) > c.Timeout/2
		s.queue(c, s.next(c, now))
	}
	s.fill(now)
}

// next returns when a check that has begun is due again.
func (s *Scheduler) next(c *check, now time.Time) time.Time {
	at := c.began.Add(jittered(c.interval(), s.random.Float64()))
	if c.second.After(now) && c.second.Before(at) {
		at = c.second
	}
	c.second = time.Time{}
	if at.Before(now) { // as after a change of the interval
		return now
	}
	return at
}

// jittered returns an interval with as much of Jitter as the random number says, which is in [0,1).
func jittered(interval time.Duration, random float64) time.Duration {
	return time.Duration(float64(interval) * (1 + Jitter*(2*random-1)))
}

// queue puts a check that neither runs nor waits into the schedule.
func (s *Scheduler) queue(c *check, due time.Time) {
	c.due = due
	if c.place < 0 {
		heap.Push(&s.due, c)
	} else {
		heap.Fix(&s.due, c.place)
	}
	if c.place == 0 && s.run != nil {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// enter puts a new check into the schedule: at a place in the interval that is always the same for it, and for all
// checks together as if they had been probed forever. If that is far, it is probed once before.
func (s *Scheduler) enter(c *check, now time.Time) {
	first := time.Duration(s.hash(c, 0) * float64(jittered(c.interval(), s.hash(c, 1))))
	if first >= 2*early {
		c.second = now.Add(first)
		first = time.Duration(s.hash(c, 2) * float64(early))
	}
	s.queue(c, now.Add(first))
}

// hash returns the nth number in [0,1) of a check: always the same, and evenly over all checks.
func (s *Scheduler) hash(c *check, n uint64) float64 {
	x := binary.BigEndian.Uint64(c.ID[:8]) ^ s.options.Seed
	x += (n + 1) * 0x9e3779b97f4a7c15 // SplitMix64
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return float64(x>>11) / (1 << 53)
}

// Set has the Scheduler run the checks given and no others. Of those that it runs already the settings are taken over:
// the schedule goes on. When it returns, none of those that are gone delivers a result; their probes have been called
// off. Of checks with one ID the first counts.
func (s *Scheduler) Set(checks []Check) {
	s.mu.Lock()
	wanted := make(map[health.CheckID]bool, len(checks))
	now := time.Now()
	for _, c := range checks {
		if !wanted[c.ID] {
			wanted[c.ID] = true
			s.put(c, now)
		}
	}
	var gone []*check
	for id, c := range s.checks {
		if !wanted[id] {
			s.drop(c)
			gone = append(gone, c)
		}
	}
	s.fill(now)
	s.mu.Unlock()
	settle(gone)
}

// Update is Set for a few changes: checks to run, or to run with other settings, and those to run no longer. IDs that
// are not known are ignored. A check in both is run.
func (s *Scheduler) Update(run []Check, remove []health.CheckID) {
	s.mu.Lock()
	wanted := make(map[health.CheckID]bool, len(run))
	now := time.Now()
	for _, c := range run {
		wanted[c.ID] = true
		s.put(c, now)
	}
	var gone []*check
	for _, id := range remove {
		if c := s.checks[id]; c != nil && !wanted[id] {
			s.drop(c)
			gone = append(gone, c)
		}
	}
	s.fill(now)
	s.mu.Unlock()
	settle(gone)
}

// SetIdle says whether nobody asks for what hangs on the checks: then they are probed in their IdleInterval. New checks
// are not idle. IDs that are not known are ignored.
func (s *Scheduler) SetIdle(idle bool, ids ...health.CheckID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, id := range ids {
		if c := s.checks[id]; c != nil && c.idle != idle {
			before := c.interval()
			c.idle = idle
			s.changed(c, before, now)
		}
	}
}

// Stats returns what the Scheduler does at the moment.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := Stats{
		Checks: len(s.checks), InFlight: s.inFlight, Waiting: s.waiting.Len() + s.waitingSlow.Len(),
		MaxInFlight: s.options.MaxInFlight, Probes: s.probes, Late: s.late,
	}
	for _, c := range s.checks {
		n.Needed += min(float64(c.Timeout)/float64(c.interval()), 1)
	}
	return n
}

// put takes in a check, new or not.
func (s *Scheduler) put(wanted Check, now time.Time) {
	if c := s.checks[wanted.ID]; c != nil {
		before := c.interval()
		c.Check = wanted
		s.changed(c, before, now)
		return
	}
	c := &check{Check: wanted, place: -1, slow: true}
	s.checks[c.ID] = c
	s.enter(c, now)
}

// changed has a check whose interval may have become shorter follow it at once. What would be overdue then is spread
// over the new interval.
func (s *Scheduler) changed(c *check, before time.Duration, now time.Time) {
	interval := c.interval()
	if interval >= before || c.place < 0 || c.began.IsZero() {
		return
	}
	due := c.began.Add(interval)
	if due.Before(now) {
		due = now.Add(time.Duration(s.random.Float64() * float64(interval)))
	}
	if due.Before(c.due) {
		s.queue(c, due)
	}
}

// drop takes a check out and calls its probe off.
func (s *Scheduler) drop(c *check) {
	delete(s.checks, c.ID)
	c.removed = true
	if c.place >= 0 {
		heap.Remove(&s.due, c.place)
	}
	if c.waiting != nil {
		s.waiting.Remove(c.waiting) // in one of the two: the other does nothing
		s.waitingSlow.Remove(c.waiting)
	}
	if c.cancel != nil {
		c.cancel()
	}
}

// settle waits for deliveries of checks that were dropped.
func settle(dropped []*check) {
	for _, c := range dropped {
		c.delivery.Lock()
		c.delivery.Unlock() //nolint:gocritic,staticcheck // nothing is guarded: whoever had it has delivered
	}
}

func (c *check) interval() time.Duration {
	if c.idle && c.IdleInterval > 0 {
		return c.IdleInterval
	}
	return c.Interval
}

// schedule is a heap of checks, the one that is due first in front.
type schedule []*check

func (h *schedule) Len() int           { return len(*h) }
func (h *schedule) Less(i, j int) bool { return (*h)[i].due.Before((*h)[j].due) }

func (h *schedule) Swap(i, j int) {
	all := *h
	all[i], all[j] = all[j], all[i]
	all[i].place, all[j].place = i, j
}

// Push implements heap.Interface.
func (h *schedule) Push(x any) {
	c := x.(*check)
	c.place = len(*h)
	*h = append(*h, c)
}

// Pop implements heap.Interface.
func (h *schedule) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	c.place = -1
	return c
}
