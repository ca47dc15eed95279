// Package zone is what a zone is and how it answers: names, RRsets, versioned content,
// master files, and the view that finds, chooses and encodes answers.
//
// The package is pure: it does no I/O and never reads the clock. Values are immutable once
// they are published, so readers never lock.
package zone
