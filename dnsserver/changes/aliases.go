package changes

import (
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// maxIndexed bounds the aliases of an Aliases.
const maxIndexed = 200_000

// Aliases is which names lead to which, by the CNAMEs of all zones of a server. It is for concurrent use. Names that a wildcard
// or a DNAME makes are not in it.
type Aliases struct {
	log  logr.Logger
	most int

	mu     sync.Mutex
	owners map[zone.Name][]zone.Name // of CNAMEs, by their target, once for each zone that has them
	count  int
	beyond int  // those for which there was no room
	full   bool // it was told that there is none
}

// NewAliases returns an empty index of up to 200,000 aliases.
func NewAliases(log logr.Logger) *Aliases {
	return &Aliases{log: log, most: maxIndexed, owners: map[zone.Name][]zone.Name{}}
}

// Replace takes note that what an owner leads to was and is another. Neither may have the same name twice.
func (a *Aliases) Replace(owner zone.Name, was, is []zone.Name) {
	if slices.Equal(was, is) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, target := range was {
		a.remove(owner, target)
	}
	for _, target := range is {
		a.add(owner, target)
	}
}

func (a *Aliases) add(owner, target zone.Name) {
	if a.count >= a.most {
		a.beyond++
		if !a.full {
			a.full = true
			a.log.Info("there are too many aliases: resolvers will not be told of all that change with their targets", "most", a.most)
		}
		return
	}
	a.count++
	all, known := a.owners[target]
	if !known { // names may be parts of what is large
		target = zone.Name(strings.Clone(string(target)))
	}
	a.owners[target] = append(all, zone.Name(strings.Clone(string(owner))))
}

func (a *Aliases) remove(owner, target zone.Name) {
	all := a.owners[target]
	i := slices.Index(all, owner)
	switch {
	case i < 0:
		a.beyond--
		return
	case len(all) == 1:
		delete(a.owners, target)
	default:
		a.owners[target] = slices.Delete(all, i, i+1)
	}
	a.count--
}

// Of returns the names that lead to one, straight or over others, sorted; of more than MaxAliases those that are nearest.
func (a *Aliases) Of(name zone.Name) []zone.Name {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.owners[name]) == 0 {
		return nil
	}
	var found []zone.Name
	seen := map[zone.Name]bool{name: true}
	for next := []zone.Name{name}; len(next) > 0; next = next[1:] {
		for _, owner := range a.owners[next[0]] {
			if !seen[owner] && len(found) < MaxAliases {
				seen[owner] = true
				found = append(found, owner)
				next = append(next, owner)
			}
		}
	}
	slices.SortFunc(found, zone.Name.Compare)
	return found
}

// Counts returns how many aliases are known, and how many are not because there are too many.
func (a *Aliases) Counts() (known, beyond int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count, a.beyond
}
