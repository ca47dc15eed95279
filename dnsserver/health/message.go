package health

// ServerID is who a server is. Its mesh connection proves Datacenter and Group.
type ServerID struct {
	Datacenter, Group, Name string
}

func (s ServerID) String() string { return s.Datacenter + "/" + s.Group + "/" + s.Name }

// Message is what a server tells a peer: exactly one field is set. Messages of one server to one peer arrive in the
// order sent, or not at all: what was lost is found by Heartbeats and asked for again.
//
// Receivers own what they get; senders do not touch it after Step returned it.
type Message struct {
	Heartbeat *Heartbeat
	Ballots   *Ballots
	Ask       *Ask
	Table     *Table
	Latches   *Latches
}

// Heartbeat renews all votes of its sender at once, and sums up what else it has told. It goes to every peer: five in a
// voteTTL, on a new connection, and when one of its flags changes.
type Heartbeat struct {
	Boot  uint64 // of the sender's process: votes of another one are not continued
	Began int64  // since when it runs without having stood still, Unix milliseconds
	Seq   uint64 // of the last Ballots sent
	// Digest is over all ballots of the sender as of Seq, LatchDigest over all latches that it knows.
	Digest, LatchDigest uint64

	// Settled: the sender has caught up after its start; what it says of verdicts and latches is first-hand.
	Settled bool
	// Isolated: the sender's datacenter has anchors, and none answers the sender.
	Isolated bool
	// Sick: the sender does not trust its own view, and abstains.
	Sick bool
	// Anchors are the other datacenters whose anchors answer the sender, sorted.
	Anchors []string
}

// Ballots are changed votes: each replaces its sender's former ballot of that check. At most 500.
type Ballots struct {
	Boot    uint64
	Seq     uint64 // one more than the message before
	Ballots []Ballot
}

// Ballot is all that one server has to say of one check. One that is zero but for Check withdraws it.
type Ballot struct {
	Check CheckID
	Vote  State // the server's own
	Since int64 // Unix milliseconds, by the server's clock, as everywhere below

	// Datacenter is what the server makes of its and its siblings' votes: it decides while those are tied.
	Datacenter      State
	DatacenterSince int64

	Latency uint32 // smoothed, in microseconds; 0: not measured, or wanted by no record

	Verdicts []Verdict // sorted by Home and Hold; one each in most cases
}

// Verdict is a server's verdict on one check for the targets of one datacenter. It matters to siblings in a tie, and to
// those that start.
type Verdict struct {
	Home  string // datacenter of the target; empty: none
	Hold  bool   // for records that hold on peer loss
	State State
	Since int64
}

// Ask asks the receiver for a Heartbeat, then for those of its ballots that the sender does not have, and last for its
// latches, if they are others than the sender's. Until it has got them, the sender takes no notice of a peer: what it
// hears may have waited somewhere while it was not running.
type Ask struct {
	Nonce uint64 // differs each time that the sender started, or stood still
	// Digests are, by the first octet of the check, over the receiver's ballots as the sender has them. 256, or none
	// if it has none.
	Digests     []uint64
	LatchDigest uint64 // as in Heartbeat
}

// Table answers Ask: all ballots of the sender in some of the 256 parts of its table. Parts of one table may come in
// several messages.
type Table struct {
	Boot    uint64
	Seq     uint64 // the table has all Ballots up to this one
	Parts   []uint8
	Ballots []Ballot
	Last    bool // no more Tables of this answer follow
}

// Latches are entries that changed, or all that the sender knows, at most 2,000 or some 512 KiB a message. They are merged: see Latch.
type Latches struct {
	Latches []Latch
	Last    bool   // with these the receiver has got all that the sender knows
	Nonce   uint64 // of the Ask that these answer; 0: none
}
