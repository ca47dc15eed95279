//go:build linux

// Command bench measures Fingerpost as its users meet it: over sockets, with real programs, on this machine alone.
//
//	go run ./hack/bench [FLAGS] [NAME...]     # all benchmarks, or those named
//
// The working directory must be in a checkout. The program has two processes. The outer one gets and builds what is needed.
// The inner one measures, in a network namespace of its own where that is possible; everything that it starts
// ends with it. A benchmark is a function that returns tables: a new one goes into benchmarks, and its place into
// docs/benchmarks.md.
package main
