// Package resolver is the agent beside a recursive server: it writes the server's configuration and has it checked, starts
// it, changes it by the lightest way that keeps clients served, goes back if that made things worse, asks it what a client
// would ask, starts it again when it dies, and has it forget names whose answers have changed.
package resolver
