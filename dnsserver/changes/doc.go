// Package changes tells resolver agents of names whose answers changed, so that they have their engines forget the old ones.
//
// A server puts into its Log what changed, once it answers so, and a Service tells those who watch. An agent watches many
// servers by Watch. Which servers answer the new way already, an agent asks each by zone.OptionState and Change.Awaits.
package changes

import (
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Change is a name whose answers changed, once or several times.
type Change struct {
	Name, Apex zone.Name
	// Beneath tells that names below Name change too, any of them: the zone comes or goes, or there is a delegation or a DNAME.
	// Of a wildcard it is those below its parent.
	Beneath bool
	// Aliases are CNAMEs in the server's zones that lead to Name, straight or over others; sorted.
	Aliases []zone.Name
	// Before are the states that the name has left and is not in again, the oldest first. After is the one that it is in. A
	// state is a digest of what a steered name answers, TTLs apart: servers that have decided the same are in the same. Names
	// that are not steered are in state 0.
	Before []uint64
	After  uint64
	// Serial is that of the version of the zone that brought the last change; 0: no new version did.
	Serial uint32
	At     time.Time // of the last change, in milliseconds
}

// Awaits reports whether a server that answers for the name from a version of the zone with this serial, in this state, still
// has the change before it. A server that went another way is not awaited: it has decided, if not the same.
func (c *Change) Awaits(serial uint32, state uint64) bool {
	return c.Serial != 0 && zone.SerialLess(serial, c.Serial) || slices.Contains(c.Before, state)
}
