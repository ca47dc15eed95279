//go:build !race

package dnsserver

// raceDetector is whether memory is used for finding races too.
const raceDetector = false
