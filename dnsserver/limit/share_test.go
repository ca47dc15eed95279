package limit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// worker is a model of one worker and its socket, in virtual time: what does not fit the queue is
// lost, whoever sent it, as the kernel does it.
type worker struct {
	now   Time
	queue []pair
	share *Share // nil: it answers whatever comes
	full  Time   // since when there is more than it can do; 0 while there is not

	answered, lost, shed map[pair]int
}

type pair struct {
	client netip.Addr
	name   uint64
}

const (
	queueSize  = 500
	fullBatch  = 64
	receiveFor = 1000 // ns
	answerFor  = 3000 // more
	overloadIn = 20 * ms
	capacity   = 1e9 / (receiveFor + answerFor) // queries a second
)

func newWorker(share *Share) *worker {
	return &worker{share: share, answered: map[pair]int{}, lost: map[pair]int{}, shed: map[pair]int{}}
}

// run has queries come at rates a second for so many seconds, at random moments.
func (w *worker) run(r *rand.Rand, seconds float64, rates map[pair]float64) {
	var pairs []pair
	var rate []float64
	total := 0.0
	for _, p := range allPairs(rates) {
		pairs, rate = append(pairs, p), append(rate, rates[p])
		total += rates[p]
	}
	end := w.now + Time(seconds*1e9)
	arrival := w.now
	arrive := func(until Time) {
		for arrival < until {
			at := r.Float64() * total
			i := 0
			for at >= rate[i] && i < len(rate)-1 {
				at -= rate[i]
				i++
			}
			if len(w.queue) < queueSize {
				w.queue = append(w.queue, pairs[i])
			} else {
				w.lost[pairs[i]]++
			}
			arrival += Time(r.ExpFloat64() / total * 1e9)
		}
	}
	for w.now < end {
		arrive(w.now)
		batch := w.queue[:min(fullBatch, len(w.queue))]
		switch {
		case len(batch) < fullBatch:
			w.full = 0
		case w.full == 0:
			w.full = w.now
		case w.share != nil && w.now-w.full > overloadIn:
			w.share.Overloaded(w.now)
		}
		start := w.now
		for _, p := range batch {
			w.now += receiveFor
			if w.share != nil && !w.share.Admit(start, p.client, p.name) {
				w.shed[p]++
				continue
			}
			w.now += answerFor
			w.answered[p]++
		}
		w.queue = append(w.queue[:0], w.queue[len(batch):]...)
		if len(batch) == 0 {
			w.now += 10000
		}
	}
}

func allPairs(rates map[pair]float64) (all []pair) {
	for name := range uint64(1000) {
		for c := range 8 {
			p := pair{resolver(c), name}
			if rates[p] > 0 {
				all = append(all, p)
			}
		}
	}
	return all
}

func resolver(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}) }

// even has four resolvers ask for so many names, as much together as a part of the capacity.
func even(names int, part float64) map[pair]float64 {
	rates := map[pair]float64{}
	for c := range 4 {
		for n := range names {
			rates[pair{resolver(c), uint64(n)}] = part * capacity / float64(4*names)
		}
	}
	return rates
}

// TestFourResolversAt80PercentLoseNothing is what a company's server sees: nearly all queries come
// from four addresses of one /24.
func TestFourResolversAt80PercentLoseNothing(t *testing.T) {
	for _, names := range []int{1, 10, 1000} {
		w := newWorker(&Share{})
		w.run(rand.New(rand.NewPCG(1, 2)), 3, even(names, 0.8))
		if len(w.lost)+len(w.shed) > 0 || w.share.Active() {
			t.Errorf("%d names: lost %v, shed %v, active %t", names, w.lost, w.shed, w.share.Active())
		}
	}
}

// TestAStormStarvesNobodyElse has one resolver ask for one name more than the worker can answer.
func TestAStormStarvesNobodyElse(t *testing.T) {
	storm := pair{resolver(0), 3}
	for _, names := range []int{10, 200} {
		rates := even(names, 0.4)
		rates[storm] = 1.2 * capacity
		lossOfOthers := func(w *worker) float64 {
			answered, all := 0, 0
			for p := range rates {
				if p != storm {
					answered += w.answered[p]
					all += w.answered[p] + w.lost[p] + w.shed[p]
				}
			}
			return 1 - float64(answered)/float64(all)
		}
		without, with := newWorker(nil), newWorker(&Share{})
		without.run(rand.New(rand.NewPCG(1, 2)), 10, rates)
		with.run(rand.New(rand.NewPCG(1, 2)), 10, rates)
		if before := lossOfOthers(without); before < 0.3 {
			t.Fatalf("the model has no overload: %v", before)
		}
		if loss := lossOfOthers(with); loss > 0.1 {
			t.Errorf("%d names: %.1f%% of others' queries are lost, %.1f%% without shares", names, 100*loss, 100*lossOfOthers(without))
		}
		for p, n := range with.shed {
			if p != storm && n > (with.answered[p]+n)/50 {
				t.Errorf("%d names: of %v %d are shed and %d answered", names, p, n, with.answered[p])
			}
		}
		// What is left over is the storm's.
		if n := with.answered[storm]; n < int(10*0.2*capacity) {
			t.Errorf("%d names: of the storm %d are answered", names, n)
		}
		// It ends with the storm.
		with.shed, with.lost = map[pair]int{}, map[pair]int{}
		delete(rates, storm)
		with.run(rand.New(rand.NewPCG(3, 4)), 0.5, rates)
		if with.share.Active() {
			t.Error("shares stay active")
		}
		if n := len(with.shed); n > 0 {
			t.Errorf("%d pairs lose queries after the storm", n)
		}
	}
}

// TestAverageIsNeverShed overloads a worker evenly, so that there is nobody to take from.
func TestAverageIsNeverShed(t *testing.T) {
	var s Share
	now := Time(0)
	for range 50 {
		s.Overloaded(now)
		seen := map[string]int{}
		for i := range 1000 {
			name := uint64(i % 100)
			if !s.Admit(now, one, name) {
				seen[fmt.Sprint(name)]++
			}
		}
		if len(seen) > 0 {
			t.Fatalf("pairs that ask no more than others lose queries: %v", seen)
		}
		now += SharePeriod
	}
}
