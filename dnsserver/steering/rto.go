package steering

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Jitter is by how much the time between two probes varies at most, in percent.
const Jitter = 10

// Times from the last vote to the new answer, at the most: one exchange between servers, and making the
// answers of a record ready.
const (
	CombineTime = 150 * time.Millisecond
	CompileTime = 50 * time.Millisecond
)

// FlushTime is how long resolvers with an agent take, at the most, to forget an answer that has changed and to have the new
// one. It takes agents that hear of the change from a server, and an authority of the name that answers them.
const FlushTime = time.Second

// Failover is what the worst-case failover is reckoned from: the longest time from the death of a target
// until nobody that asked has its address any more, as far as caches keep to TTLs.
type Failover struct {
	Interval         time.Duration // between probes
	IdleInterval     time.Duration // while nobody asks; 0: Interval
	FailureThreshold int
	Timeout          time.Duration
	HoldDown         time.Duration
	VoteTTL          time.Duration
	TTL              time.Duration // of the answers, over the chain of aliases that leads to them
	// Flush is how long the resolvers that clients ask take to forget an answer that has changed; 0: they keep it for its TTL.
	Flush time.Duration
	// ClientCache is the most that clients keep an answer themselves, if less than the TTL. It counts where Flush is not 0.
	ClientCache time.Duration
}

// kept is for how long an answer is in somebody's cache that can't be flushed.
func (f Failover) kept() time.Duration {
	if f.Flush > 0 {
		return min(f.TTL, f.ClientCache)
	}
	return f.TTL
}

// after is how long it takes from the last vote until nobody has the old answer.
func (f Failover) after() time.Duration { return CombineTime + CompileTime + f.Flush + f.kept() }

// between is the time between probes that counts.
func (f Failover) between() time.Duration { return max(f.Interval, f.IdleInterval) }

// detection is how long it takes until enough probes have failed, or until votes that are not renewed
// lapse.
func (f Failover) detection() time.Duration {
	probes := f.between() * time.Duration(100+Jitter) / 100 * time.Duration(f.FailureThreshold)
	return max(probes+f.Timeout+f.HoldDown, f.VoteTTL)
}

// Worst is the worst-case failover.
func (f Failover) Worst() time.Duration { return f.detection() + f.after() }

// String writes the sum, e.g. "3 x 10s x 1.1 + 2s + 0.2s + 60s = 95.2s"; where resolvers are flushed
// "3 x 10s x 1.1 + 2s + 0.2s + 1s of flushing + 5s at clients = 41.2s".
func (f Failover) String() string {
	var s strings.Builder
	if detection := f.detection(); detection == f.VoteTTL {
		fmt.Fprintf(&s, "%s until votes lapse", InSeconds(detection))
	} else {
		fmt.Fprintf(&s, "%d x %s x %g + %s", f.FailureThreshold, InSeconds(f.between()), 1+Jitter/100.0, InSeconds(f.Timeout))
		if f.HoldDown > 0 {
			fmt.Fprintf(&s, " + %s", InSeconds(f.HoldDown))
		}
	}
	fmt.Fprintf(&s, " + %s", InSeconds(CombineTime+CompileTime))
	switch {
	case f.Flush == 0:
		fmt.Fprintf(&s, " + %s", InSeconds(f.TTL))
	case f.kept() == 0:
		fmt.Fprintf(&s, " + %s of flushing", InSeconds(f.Flush))
	default:
		fmt.Fprintf(&s, " + %s of flushing + %s at clients", InSeconds(f.Flush), InSeconds(f.kept()))
	}
	fmt.Fprintf(&s, " = %s", InSeconds(f.Worst()))
	return s.String()
}

// InSeconds writes a duration as status does, rounded up to milliseconds: 95.2s, 0.2s.
func InSeconds(d time.Duration) string {
	ms := math.Ceil(float64(d) / float64(time.Millisecond))
	return strconv.FormatFloat(ms/1000, 'f', -1, 64) + "s"
}

// Remedy is what could be changed so that an objective is met; zero values stay as they are.
type Remedy struct {
	TTL              time.Duration
	Interval         time.Duration // and the idle interval, if that is longer
	FailureThreshold int
}

// With returns f with a remedy.
func (f Failover) With(r Remedy) Failover {
	if r.TTL > 0 {
		f.TTL = r.TTL
	}
	if r.Interval > 0 {
		f.Interval = r.Interval
		f.IdleInterval = min(f.IdleInterval, r.Interval)
	}
	if r.FailureThreshold > 0 {
		f.FailureThreshold = r.FailureThreshold
	}
	return f
}

// String writes a remedy, e.g. "interval 3s with TTL 47s".
func (r Remedy) String() string {
	var parts []string
	if r.FailureThreshold > 0 {
		parts = append(parts, fmt.Sprintf("failureThreshold %d", r.FailureThreshold))
	}
	if r.Interval > 0 {
		parts = append(parts, "interval "+InSeconds(r.Interval))
	}
	if r.TTL > 0 {
		parts = append(parts, "TTL "+InSeconds(r.TTL))
	}
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return parts[0] + " with " + strings.Join(parts[1:], " and ")
}

// Meets reports whether the worst case is within an objective.
func (f Failover) Meets(rto time.Duration) bool { return f.Worst() <= rto }

// Remedies returns what would meet an objective that is not met, the smallest change first: another TTL;
// another interval, the longest that leaves the TTL as it is, or the shortest with the TTL that it needs;
// and if neither does, fewer failures. TTLs are whole seconds and at least leastTTL, and 1 s; intervals are
// whole seconds above the timeout. Each was checked by Worst. None: nothing of this meets it.
func (f Failover) Remedies(rto, leastTTL time.Duration) []Remedy {
	if f.Meets(rto) {
		return nil
	}
	leastTTL = max(leastTTL, time.Second)
	var all []Remedy
	if r, ok := f.remedyTTL(Remedy{}, rto, leastTTL); ok {
		all = append(all, r)
	}
	if r, ok := f.remedyInterval(Remedy{}, rto, leastTTL); ok {
		all = append(all, r)
	}
	for threshold := f.FailureThreshold - 1; len(all) == 0 && threshold > 0; threshold-- {
		less := Remedy{FailureThreshold: threshold}
		if f.With(less).Meets(rto) {
			return []Remedy{less}
		}
		if r, ok := f.remedyTTL(less, rto, leastTTL); ok {
			return []Remedy{r}
		}
		if r, ok := f.remedyInterval(less, rto, leastTTL); ok {
			return []Remedy{r}
		}
	}
	return all
}

// remedyTTL adds to a remedy the longest TTL that is below the present one and meets the objective.
func (f Failover) remedyTTL(r Remedy, rto, leastTTL time.Duration) (Remedy, bool) {
	g := f.With(r)
	r.TTL = (rto - (g.Worst() - g.kept())).Truncate(time.Second)
	return r, leastTTL <= r.TTL && r.TTL < f.kept() && f.With(r).Meets(rto)
}

// remedyInterval adds an interval below the present one, with a TTL where it needs one.
func (f Failover) remedyInterval(r Remedy, rto, leastTTL time.Duration) (Remedy, bool) {
	shortest := max(f.Timeout.Truncate(time.Second)+time.Second, time.Second)
	g := f.With(r)
	if shortest >= g.between() {
		return r, false
	}
	// What is left for each probe if all else stays.
	left := rto - g.after() - g.Timeout - g.HoldDown
	longest := (left / time.Duration(g.FailureThreshold) * 100 / (100 + Jitter)).Truncate(time.Second)
	if r.Interval = longest; shortest <= longest && longest < g.between() && f.With(r).Meets(rto) {
		return r, true
	}
	r.Interval = shortest
	return f.remedyTTL(r, rto, leastTTL)
}

// Explain writes for a condition how the worst case compares to an objective, with what would meet it, e.g.
// "3 x 10s x 1.1 + 2s + 0.2s + 60s = 95.2s > 60s; TTL 24s meets it, or interval 3s with TTL 47s".
func (f Failover) Explain(rto, leastTTL time.Duration) string {
	if f.Meets(rto) {
		return fmt.Sprintf("%s <= %s", f, InSeconds(rto))
	}
	remedies := f.Remedies(rto, leastTTL)
	if len(remedies) == 0 {
		return fmt.Sprintf("%s > %s; no TTL from %s on and no interval above the timeout meet it", f, InSeconds(rto), InSeconds(max(leastTTL, time.Second)))
	}
	texts := make([]string, len(remedies))
	for i, r := range remedies {
		texts[i] = r.String()
	}
	texts[0] += " meets it"
	return fmt.Sprintf("%s > %s; %s", f, InSeconds(rto), strings.Join(texts, ", or "))
}

// Failover returns what the record's worst case is reckoned from, by the slowest of its probes; ok false if
// it has none, so that nobody would notice. A derived TTL counts with its least: answers never outlive
// the soonest flip by more.
func (r *Record) Failover(voteTTL time.Duration) (f Failover, ok bool) {
	used := make([]bool, len(r.Probes))
	var use func(probe int)
	use = func(probe int) {
		if !used[probe] {
			used[probe] = true
			for _, part := range r.Probes[probe].Of {
				use(part)
			}
		}
	}
	for i := range r.Pools {
		for _, probe := range r.Pools[i].Probes {
			use(probe)
		}
		for _, probe := range r.Pools[i].Gates {
			use(probe)
		}
	}
	for i, p := range r.Probes {
		if !used[i] || p.Of != nil {
			continue
		}
		g := Failover{
			Interval: milliseconds(p.Spec.GetInterval()), IdleInterval: milliseconds(p.Spec.GetIdleInterval()),
			FailureThreshold: int(max(1, p.Spec.GetFailureThreshold())), Timeout: milliseconds(p.Spec.GetTimeout()),
			HoldDown: milliseconds(p.Spec.GetHoldDown()), VoteTTL: voteTTL, TTL: time.Duration(r.LeastTTL) * time.Second,
		}
		if !ok || g.Worst() > f.Worst() {
			f, ok = g, true
		}
	}
	return f, ok
}

// milliseconds converts what NewRecord has checked.
func milliseconds(ms uint64) time.Duration { return time.Duration(ms) * time.Millisecond }
