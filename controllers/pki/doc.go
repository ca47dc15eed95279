// Package pki decides which certificates the stream between hub and servers needs, when one is due, and how the CA
// that signs them is succeeded without cutting anybody off; and it makes them.
//
// The package does no I/O and never reads the clock: the content of Secrets and the time are arguments. Only new keys
// are not a function of the arguments. Nothing here logs, and no error quotes a key.
package pki

import (
	"fmt"
	"time"
)

// Policy says how long certificates live. The zero value is not valid.
type Policy struct {
	// LeafLife is how long certificates of the hub and of servers are valid. It is also how long a CA is trusted by
	// everybody before it signs: by then whoever has a valid certificate has fetched it since.
	LeafLife time.Duration
	// RenewAt is the part of its life, in percent, after which a leaf is renewed.
	RenewAt int
	// CALife is how long a CA is valid.
	CALife time.Duration
	// Skew is how far the clocks of the hub and the servers may be behind the manager's: certificates are valid from
	// that long before they were made.
	Skew time.Duration
}

// DefaultPolicy is 90 days, renewed after two thirds; CAs of 10 years; clocks one hour behind.
func DefaultPolicy() Policy {
	const day = 24 * time.Hour
	return Policy{LeafLife: 90 * day, RenewAt: 66, CALife: 3650 * day, Skew: time.Hour}
}

// The bounds of a Policy.
const (
	minLeafLife = time.Minute
	minRenewAt  = 10
	maxRenewAt  = 90
	// leavesPerCA is how many lives of a leaf the end of a CA takes: announced, succeeded, outlived by its last leaves.
	leavesPerCA = 3
)

// Validate reports the first value that certificates could not be kept valid with.
func (p Policy) Validate() error {
	switch {
	case p.LeafLife < minLeafLife:
		return fmt.Errorf("life of certificates %s: must be %s or more", p.LeafLife, minLeafLife)
	case p.RenewAt < minRenewAt || p.RenewAt > maxRenewAt:
		return fmt.Errorf("renewal of certificates after %d%% of their life: must be %d%% to %d%%", p.RenewAt, minRenewAt, maxRenewAt)
	case p.CALife/(leavesPerCA+1) < p.LeafLife:
		return fmt.Errorf("life of the CA %s: must be %d times that of certificates (%s) or more", p.CALife, leavesPerCA+1, p.LeafLife)
	case p.Skew < 0:
		return fmt.Errorf("clock skew %s: must not be negative", p.Skew)
	}
	return nil
}

// due returns when a leaf that is valid from notBefore to notAfter is to be renewed.
func (p Policy) due(notBefore, notAfter time.Time) time.Time {
	made := notBefore.Add(p.Skew)
	return made.Add(notAfter.Sub(made) / 100 * time.Duration(p.RenewAt))
}
