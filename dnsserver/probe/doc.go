// Package probe asks targets whether they are up: the I/O of health checking. New makes a Prober of what a HealthProbe
// says, one kind of probe a file; a Scheduler runs many of them, each in its interval; Anchors tells whether this
// server is cut off.
//
// Nothing here decides what is up: a Result is what one probe from one server saw. Verdicts, votes and Calculated
// probes, which ask nobody, are made of Results elsewhere.
//
// What a target sends is judged and never kept or quoted: the words of a Result are ours or those of the probe's owner.
package probe
