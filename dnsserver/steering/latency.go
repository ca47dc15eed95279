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
	if l.in.Latency == nil || len(l.w.datacenters) == 0 {
		return 0, false
	}
	from := l.w.datacenters[max(0, place-1)].Name
	var sum time.Duration
	count := 0
	p := &l.r.Pools[o.pool]
	for i := range p.Targets {
		if !o.set.has(i) {
			continue
		}
		if one, measured := l.target(from, p, &p.Targets[i]); measured {
			sum += one
			count++
		}
	}
	if count == 0 {
		return 0, false
	}
	return sum / time.Duration(count), true
}

// target is how long a target takes by the first of its probes that knows.
func (l *latency) target(from string, p *Pool, t *Target) (rtt time.Duration, ok bool) {
	for _, probe := range p.Probes {
		var checks []Check
		l.r.eachCheck(probe, t.Probed, func(c Check) { checks = append(checks, c) })
		for _, c := range checks {
			if rtt, ok = l.in.Latency(from, c); ok {
				return rtt, true
			}
		}
	}
	return 0, false
}
