package health

import "time"

// State is what is held of a target.
type State uint8

const (
	// Unknown is a target that nobody could judge yet. It is used.
	Unknown State = iota
	// Up is a target that is used.
	Up
	// Degraded is up, but not for much longer, or not well. It votes as up, and is used where no other is Up.
	Degraded
	// Down is a target that is not used.
	Down
)

func (s State) String() string {
	switch s {
	case Up:
		return "Up"
	case Degraded:
		return "Degraded"
	case Down:
		return "Down"
	default:
		return "Unknown"
	}
}

// IsUp reports whether s is Up or Degraded: the side of a vote that it counts for.
func (s State) IsUp() bool { return s == Up || s == Degraded }

// Result is what one probe saw.
type Result struct {
	// Outcome is Unknown if nothing was learned of the target, for a reason on this side.
	Outcome State
	// Silent: Down because nothing came back, or the network says that there is no way. The target may be innocent.
	Silent bool
	// Failure says why the Outcome is not Up, in our own words: nothing that the target sent. Empty if it is Up.
	Failure string
	// Took is how long the probe lasted. It ended when the Result is handed over.
	Took time.Duration
	// Latency is smoothed over the last answered probes; 0: none was.
	Latency time.Duration
}
