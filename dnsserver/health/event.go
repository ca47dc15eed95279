package health

// Event is something that a person may care about. Every server tells what it sees; those of one datacenter tell the same.
type Event struct {
	Kind       EventKind
	Record     string // source; empty: about a datacenter or this server
	Pool       string
	Datacenter string // PeerLost and PeerBack: which
}

// EventKind is what happened.
type EventKind string

// Kinds of events, with those that end them.
const (
	FailedOver       EventKind = "FailedOver"       // a pool was left
	FailoverAwaited  EventKind = "FailoverAwaited"  // a pool is down, and a person must decide
	FailedBack       EventKind = "FailedBack"       // a pool is used again
	FailbackAwaited  EventKind = "FailbackAwaited"  // a pool is up again, and a person must decide
	Held             EventKind = "Held"             // a pool does not change, for nobody confirms
	Disagreement     EventKind = "Disagreement"     // a vote is tied
	PeerLost         EventKind = "PeerLost"         // no server of a datacenter is heard any more
	PeerBack         EventKind = "PeerBack"         // one is heard again
	Isolated         EventKind = "Isolated"         // no anchor answers this server
	IsolationEnded   EventKind = "IsolationEnded"   // one does again
	VantageSick      EventKind = "VantageSick"      // this server abstains
	VantageRecovered EventKind = "VantageRecovered" // and votes again
)
