package steering

import "time"

// latency chooses the pool whose targets answer soonest, seen from the datacenter that the client is
// near, of those that are measured; else the nearest. Clients in nobody's networks get what clients of
// the datacenter first in rank get.
//
// The pool that was chosen before stays until another is quicker by the hysteresis.
type latency struct {
	nearest
	in *Inputs
}

func (l *latency) choose(place int, of []option, before *Remembered) choice {
	best, fastest := -1, time.Duration(0)
	present, its := -1, time.Duration(0)
	for i, o := range of {
		rtt, ok := l.rtt(place, o)
		if !ok {
			continue
		}
		if best < 0 || rtt < fastest || rtt == fastest && l.compare(place, o, of[best]) < 0 {
			best, fastest = i, rtt
		}
		if before != nil && len(before.Given) == 1 && before.Given[0].Pool == l.r.Pools[o.pool].Name {
			present, its = i, rtt
		}
	}
	switch {
	case best < 0:
		return l.nearest.choose(place, of, before)
	case present >= 0 && fastest > its-its*time.Duration(l.r.Hysteresis)/100:
		return first(of[present])
	}
	return first(of[best])
}

// rtt is the mean of the targets of an option that are measured.
func (l *latency) rtt(place int, o option) (rtt time.Duration, ok bool) {
	seen := l.in.pool(o.pool)
	if seen == nil || len(l.w.datacenters) == 0 {
		return 0, false
	}
	from := l.w.datacenters[max(0, place-1)].Name
	var sum, count time.Duration
	for i := range seen.Targets {
		if one, measured := seen.Targets[i].Latency[from]; measured && o.set.has(i) {
			sum += one
			count++
		}
	}
	if count == 0 {
		return 0, false
	}
	return sum / count, true
}
