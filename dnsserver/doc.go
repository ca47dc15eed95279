// Package dnsserver is the authoritative server as one process: sockets, zone files or the
// hub's stream and the disk store behind them, and the HTTP endpoint beside them.
//
// What is answered is the business of package zone; this one moves octets. Run puts all
// parts together.
package dnsserver
