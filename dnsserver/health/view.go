package health

import "time"

// View is what the answers of a record are made of.
type View struct {
	Pools []PoolView // as in the record
	// Held: a verdict would have changed, and does not, because a datacenter is lost and nobody confirms.
	Held bool
	// Frozen: this datacenter is isolated; verdicts on other datacenters' targets stay as they are.
	Frozen bool
	// Disagreement: a vote is tied.
	Disagreement bool
	// SplitRisk: the record holds on peer loss, and for some pool nobody could ever confirm.
	SplitRisk bool
}

// PoolView is what is known of one pool.
type PoolView struct {
	// Gated: a gate of the pool is down: none of its targets is used.
	Gated bool
	// Out: the pool was left. It is used only when no pool is up that is in.
	Out bool
	// Awaiting: the pool is down, and only a person moves clients away from it: they are answered from it still.
	Awaiting bool
	// Up: at least min_healthy targets are up, and no gate is down.
	Up bool
	// ReturnAt is when an Out pool that is up comes in again; zero: it is down, or a person must decide.
	ReturnAt time.Time
	// Since is when the latch last changed; zero: never.
	Since   time.Time
	Targets []TargetView // as in the record
}

// TargetView is what is known of one target: all its probes together, of which each must be up.
type TargetView struct {
	State State
	Since time.Time // of the State; zero if it is Unknown or the target has no probe
	Held  bool
	// Up of Electorate datacenters say up, by the probe that is worst off. Dissenting say otherwise than State, sorted.
	Up, Electorate int
	Dissenting     []string
	// Failure is why the last probe from here failed, of the first probe that did. Empty: none did.
	Failure string
	// FlipIn is the shortest time until votes from here could change the State: 0 if it has no probe.
	FlipIn time.Duration
	// Latency is how soon the target answers probes from each datacenter, for records with the policy LATENCY.
	// Datacenters without a measurement are missing. Nil: none has one.
	Latency map[string]time.Duration
}

// Controls are what overrides in force mean for a record's latches. The zero value is: nothing.
type Controls struct {
	// Frozen: no latch changes (Freeze).
	Frozen bool
	// Failback: pools that are out come in as soon as they are up, without delay and whoever should decide (Failback).
	Failback bool
	// Forced are the pools that all clients are sent to (Force), by index. A pool that is down and waits for a person
	// is left, if it is not among them: the person has decided.
	Forced []int
	// Drained are pools without a target that may be answered (Drain), by index: no failover goes there.
	Drained []int
}
