//go:build linux

// Command demo shows Fingerpost at work on one machine: a real API server, two managers and the DNS servers of two
// datacenters, from kubectl apply to dig.
//
//	demo         tells the story and leaves nothing behind
//	demo up      leaves all of it running after the zones are served, and says how to use it
//	demo down    stops what `demo up` left running
//
// The working directory must be in a checkout. The program has two processes. The outer one gets what is needed, over the
// network if need be, makes the folder of the run and removes it. The inner one runs everything, in a network
// namespace of its own where that is possible: there any address and port may be bound, and nothing of the machine is
// touched. Both hold an end of one socket pair, so that each notices when the other is gone, even by kill -9.
// Everything that the inner process starts dies with it.
package main
