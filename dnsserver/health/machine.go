package health

import (
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// Machine is the health of all steered names as one server sees it. It is not safe for concurrent use.
//
// Call the methods that tell it something, then Step, which says what follows; and call Step when Output.Wake comes. now
// must have a monotonic reading, or at least never go back.
type Machine struct {
	self ServerID
}

// New returns the machine of a server that starts at now. boot differs from that of the process before. stored is what
// Unsaved returned, the latest of each key, in any order; entries that do not parse are left out.
func New(self ServerID, boot uint64, now time.Time, stored []Stored) *Machine { return nil }

// SetTopology tells what datacenters and servers there are. The server itself need not be among them.
func (m *Machine) SetTopology(now time.Time, t *steeringpb.Topology) {}

// SetRecord adds a record, or replaces the one of the same source. r must not change afterwards. Of several Records with
// one source (SRV owners) give any: they have the same pools.
func (m *Machine) SetRecord(now time.Time, r *steeringpb.Record) {}

// RemoveRecord removes a record. Its latches stay for a month, in case that it comes back.
func (m *Machine) RemoveRecord(now time.Time, source string) {}

// SetControls replaces what overrides mean for a record. They are kept for records that are not there yet.
func (m *Machine) SetControls(now time.Time, source string, c Controls) {}

// Result tells what a probe saw that ends now. Results of checks that are not run any more are ignored.
func (m *Machine) Result(now time.Time, id CheckID, r Result) {}

// AnchorRound tells whether any anchor of a datacenter answered, after each was asked once: of its own (isolation), and of
// all others that have anchors (Hold). Every second or two.
func (m *Machine) AnchorRound(now time.Time, datacenter string, answered bool) {}

// Receive takes a message of a peer, whose datacenter and group were proved.
func (m *Machine) Receive(now time.Time, from ServerID, msg Message) {}

// Connected tells that messages reach the peer again: it is told what it missed. That a connection broke need not be told:
// a peer is lost when it was not heard for a voteTTL.
func (m *Machine) Connected(now time.Time, peer ServerID) {}

// Step does what is due, and returns what follows from all that was told since the Step before.
func (m *Machine) Step(now time.Time) Output { return Output{} }

// Output is what a Step asks for. Nothing in it is touched by the Machine later.
type Output struct {
	Send    []Envelope
	Changed []string  // sources of records whose View changed, sorted: compile them again
	Run     []Check   // to be probed from now on
	Stop    []CheckID // not any more
	Events  []Event
	Wake    time.Time // Step again then, at the latest
}

// Envelope is a message and who gets it.
type Envelope struct {
	To      ServerID // zero: every connected peer
	Message Message
}

// Answering reports whether steered names may be answered: latches were adopted, or there was nobody to adopt from
// within 2 s. Once true it stays.
func (m *Machine) Answering() bool { return false }

// Ready reports whether the server may call itself ready: Answering, and each check had a first result or 30 s passed.
// Once true it stays.
func (m *Machine) Ready() bool { return false }

// View returns what the answers of a record are made of. False: there is no such record.
func (m *Machine) View(source string) (View, bool) { return View{}, false }

// Vantage returns how the server sees the others.
func (m *Machine) Vantage() Vantage { return Vantage{} }

// Vantage is how a server sees itself and the others.
type Vantage struct {
	Isolated, Sick bool
	Unreachable    []string // datacenters that have servers, none of which is heard, sorted
}

// Unsaved returns what changed since the call before, for the disk; nil if nothing did. Call it every second or so, and
// before the server ends.
func (m *Machine) Unsaved(now time.Time) []Stored { return nil }

// Stored is an entry on disk.
type Stored struct {
	Key   []byte
	Value []byte // nil: to be deleted
}
