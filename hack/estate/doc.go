//go:build linux

// Package estate runs on one machine what Fingerpost runs on many: a real API server, two managers and the DNS servers of
// the samples' datacenters, on addresses in 127.0.0.0/8 and in a network namespace of its own where one is to be had.
package estate
