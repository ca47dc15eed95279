//go:build linux

// Package blast asks a DNS server as many questions as it can answer, from one CPU, and measures how it answers. It takes
// about as little time a question as the kernel allows, so that the server is what limits the rate. Echo is
// the other end of that: the least that a server can do.
package blast
