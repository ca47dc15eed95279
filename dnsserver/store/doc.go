// Package store keeps the installed zones and documents of one server on disk: crash-safe, checksummed,
// in one file that bbolt writes.
//
// bbolt has no checksums on its pages, and a damaged file can make it panic, beyond recover too,
// or overwrite what was good. So bbolt never sees a file before this package has read all
// of it by itself and found every page sound and every zone as its digest says. What is
// not is left behind in a copy of the file, and a new file is written with the rest.
//
// docs/adr/0003-disk-store.md has the reasons and the figures.
package store
