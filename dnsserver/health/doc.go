// Package health decides which targets are up, for whom, and which pools a steered name has left.
//
// It goes from results to answers in five steps, each a value that a person can look at:
//
//	Result   what one probe of one server saw
//	vote     what a server makes of its results (Tracker), and a datacenter of its servers' votes
//	verdict  what a server makes of the datacenters' votes (Combine): the state of a target
//	latch    that a pool was left, and not yet returned to (Latch)
//	View     states and latches of one record: what its answers are compiled from
//
// One Machine a server does all of that. The package is pure: it does no I/O and never reads the clock. Time is an
// argument, messages to peers and things to store are results.
package health
