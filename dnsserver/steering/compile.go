package steering

import (
	"net/netip"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// State is what the voters make of a target.
type State uint8

const (
	// Unknown: nobody could judge it yet. It is used like one that is Up.
	Unknown State = iota
	Up
	// Degraded: used where too few are Up.
	Degraded
	Down
)

func (s State) String() string { return [...]string{"Unknown", "Up", "Degraded", "Down"}[s] }

// Check is a probe of one address or name: what is run, voted on and has a State.
type Check struct {
	Probe   int // index into Record.Probes; never a Calculated one
	Address string
}

// Latch is what the memory of a record says of one of its pools.
type Latch uint8

const (
	// Follow: health alone decides.
	Follow Latch = iota
	// Held: the pool stays in use although it is down, since what it is judged by can't be trusted:
	// its datacenter can't be seen (onPeerLoss).
	Held
	// Awaiting: it stays in use although it is down, until a person decides (failover by hand).
	Awaiting
	// Out: it was given up and is not used although it is up again, until the failback delay is
	// over or a person decides. It is used before all is given up.
	Out
)

// Inputs is all that decides what a record answers. Nil functions and the zero values have the meaning
// given.
type Inputs struct {
	Now   time.Time
	World *World
	Geo   *GeoTable // nil: no database, clients are of unknown countries
	// State is of each check; nil: all are Up.
	State func(Check) State
	// Flip is the least time until the state of a check may be another; nil: a long time. It is
	// asked only for records whose TTL is derived.
	Flip func(Check) time.Duration
	// Latency is how long the target behind a check takes to answer, seen from a datacenter's
	// servers, smoothed; ok false if it is not known. Nil: nothing is known.
	Latency func(datacenter string, c Check) (rtt time.Duration, ok bool)
	// Resolved has the addresses of a name that is flattened, and their TTL in seconds; ok false if
	// it was never looked up with success. Nil: no name was.
	Resolved func(zone.Name) (addresses []netip.Addr, ttl uint32, ok bool)
	Latches  []Latch // of each pool; none: all Follow
	// Overrides are those there are, in any order; those that are over or concern other records do
	// not count.
	Overrides []*Override
	Memory    Memory
}

// Result is what a record answers.
type Result struct {
	Steered *zone.Steered // for View.SetSteered
	Memory  Memory        // for the next Compile, also after a restart
	Summary Summary
	// Effects are what the overrides in force do, in the order in which they decide.
	Effects []Effect
	// Until is when an override ends, and all is to be compiled again; zero if none does.
	Until time.Time
	TTL   uint32 // of the answers, in seconds

	// targets that each outcome of Steered has, in the order of Answers.Outcomes.
	targets [][]string
}

// Memory is what was decided before. It is immutable, and kept as JSON over restarts.
type Memory struct {
	Classes []Remembered `json:"classes,omitempty"`
}

// Clients are some of the clients, who all get the same choice.
type Clients struct {
	// Rule is the index of the record's rule that they match, -1 for none.
	Rule int `json:"rule"`
	// Location is the datacenter that they are near, with the policy Geo the pools that are for
	// them, in order; "" where neither matters or is known.
	Location string `json:"location,omitempty"`
}

// Remembered is what some clients are given.
type Remembered struct {
	Clients
	Given []Given `json:"given"`
	// Good is what they were given last while a target was up; nil if that is Given.
	Good  []Given   `json:"good,omitempty"`
	Since time.Time `json:"since"` // Given
}

// Given is one of the answers that clients are given.
type Given struct {
	Pool    string   `json:"pool,omitempty"` // empty: not from a pool
	Targets []string `json:"targets,omitempty"`
	Weight  uint32   `json:"weight,omitempty"`
	// Instead is what is answered without a pool: a name of steeringpb.AllDown.
	Instead string `json:"instead,omitempty"`
}

// Summary is a record's state for people.
type Summary struct {
	Healthy, Targets int          // targets that are Up or Degraded, and all
	Pools            []PoolState  // in the order of the record
	Clients          []ClientsGet // those that match no rule, by location in order of rank; then each rule's
	// Serving are the datacenters that are answered to clients that match no rule, sorted; a pool
	// in no datacenter counts by its own name.
	Serving  []string
	Override string // source of the override that decides; "" if none acts
}

// PoolState is how one pool is.
type PoolState struct {
	Name    string
	Targets []TargetState // in the order of the pool
	Healthy int           // Up, Degraded or Unknown, whatever overrides say
	Usable  bool          // gates are up, and Healthy is at least minHealthy
	Latch   Latch
}

// TargetState is how one target is.
type TargetState struct {
	Address string
	State   State
	Drained bool
}

// Why says why clients get what they get.
type Why uint8

// Values of Why.
const (
	Preferred  Why = iota // the policy's first choice
	FailedOver            // another than that
	AllDown               // no target is up
	IsHeld                // Latch Held
	IsAwaiting            // Latch Awaiting
	Overridden            // by an override
	NotReady              // nothing is judged yet
)

func (w Why) String() string {
	return [...]string{"Preferred", "FailedOver", "AllDown", "Held", "AwaitingApproval", "Overridden", "NotReady"}[w]
}

// ClientsGet is what some clients are given.
type ClientsGet struct {
	Clients
	Pools   []string // the most preferred first; all that share the clients; none without a pool
	Targets []string
	Why     Why
	// Awaiting is the pool that the answer would move to if a person let it; "" if none.
	Awaiting string
	Since    time.Time
}

// GeoTable is where clients' countries are.
type GeoTable struct{}
