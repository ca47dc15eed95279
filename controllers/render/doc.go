// Package render turns objects into what servers serve: which zones are accepted and who
// delegates to whom (Hierarchy), a zone's content with findings about what had to be left
// out (Zone), what the guard lets pass (Guard), and the statuses that say so.
//
// The package is pure: no I/O, no clock. Same input, same result, to the byte.
package render
