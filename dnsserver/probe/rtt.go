package probe

import "time"

// RTT is a latency smoothed over the probes that were answered, as TCP smooths its own (RFC 6298): each moves it by an
// eighth of the difference. The zero value has seen none.
type RTT struct {
	smoothed time.Duration
}

// Observe takes in the result of the next probe. What was not answered does not count.
func (r *RTT) Observe(result Result) {
	switch {
	case result.Outcome != Up && result.Outcome != Degraded:
	case r.smoothed == 0:
		r.smoothed = max(result.Latency, 1)
	default:
		r.smoothed = max(r.smoothed+(result.Latency-r.smoothed)/8, 1)
	}
}

// Value returns the smoothed latency; 0: no probe was answered yet.
func (r *RTT) Value() time.Duration { return r.smoothed }
