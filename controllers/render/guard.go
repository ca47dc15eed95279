package render

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fingerpost-dns/fingerpost/api/v1alpha1"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// GuardInputs is all that decides whether an update may remove what it would remove.
type GuardInputs struct {
	Published *zone.Content // what servers hold or are to hold; nil: nothing was ever published
	Desired   *Result
	// Applied is the last result of which everything was published; nil when the leader is
	// new. AppliedRecords are the counts of that result's sources, from the zone's status; nil if
	// they are not known.
	Applied        *Result
	AppliedRecords map[string]int
	Policy         zone.GuardPolicy
	Approved       string // the digest of the removal that a person approved
	// Under counts the records that servers hold of a child zone and all zones below it.
	Under func(child zone.Name) int
}

// Decision is what the guard lets pass.
type Decision struct {
	Content  *zone.Content
	Withheld *Withheld // nil: nothing is held back
	// Approved is the digest of a removal that passes only because a person approved it.
	Approved string
}

// Withheld is a removal that waits for approval.
type Withheld struct {
	zone.Removal
	Reason string // of the condition RemovalWithheld
	Why    string // which limit was exceeded, in words
	// Delegations are the child zones whose delegation stays on that account: so must they.
	Delegations []zone.Name
}

// Guard compares what is wanted with what is published. If the update would remove more than
// the policy allows of the zone or of one source, or a source's last content is unknown, all
// its removals are held back; additions pass. What the operator itself makes, the SOA, the
// name servers and their addresses, follows the Datacenters at once.
func Guard(in GuardInputs) Decision {
	removal := zone.Removals(in.Published, in.Desired.Content, in.Under)
	if removal.Records == 0 {
		return Decision{Content: in.Desired.Content}
	}
	reason, why := in.exceeded(removal)
	switch {
	case reason == "":
		return Decision{Content: in.Desired.Content}
	case removal.Digest == in.Approved:
		return Decision{Content: in.Desired.Content, Approved: in.Approved}
	}
	d := Decision{Withheld: &Withheld{Removal: removal, Reason: reason, Why: why}}
	var kept []zone.Node
	for ch := range zone.Diff(in.Published, in.Desired.Content) {
		if ch.Removed() == 0 || in.operators(ch.Owner) {
			continue
		}
		if ch.Old.Has(zone.TypeNS) && !ch.New.Has(zone.TypeNS) {
			d.Withheld.Delegations = append(d.Withheld.Delegations, ch.Owner)
		}
		kept = append(kept, keep(ch))
	}
	content, err := in.Desired.Content.With(kept...)
	if err != nil {
		panic(fmt.Sprintf("guarding zone %s: %v", in.Desired.Content.Apex(), err)) // owners come from the zone itself
	}
	d.Content = content
	return d
}

// exceeded returns the reason to hold the removal back, "" if there is none.
func (in GuardInputs) exceeded(removal zone.Removal) (reason, why string) {
	if vanished := in.vanished(); len(vanished) > 0 {
		return v1alpha1.ReasonSourceVanished, fmt.Sprintf("%s is missing, and what came from it is not known", strings.Join(vanished, ", "))
	}
	if in.Policy.Exceeded(removal.Records, removal.Of) {
		return v1alpha1.ReasonMassRemoval, fmt.Sprintf("more than %d records and more than %d%% of the zone", in.Policy.MinDeletes, in.Policy.MaxDeletePercent)
	}
	for _, s := range in.lost(removal.Records) {
		if in.Policy.Exceeded(s.lost, s.of) {
			return v1alpha1.ReasonMassRemoval, fmt.Sprintf("%d of the %s of %s: more than %d records and more than %d%%",
				s.lost, count(s.of, "record"), s.name, in.Policy.MinDeletes, in.Policy.MaxDeletePercent)
		}
	}
	return "", ""
}

type loss struct {
	name     string
	lost, of int
}

// vanished lists the missing sources of which something may be published.
func (in GuardInputs) vanished() []string {
	return slices.DeleteFunc(slices.Clone(in.Desired.Unknown), func(name string) bool {
		return in.AppliedRecords != nil && in.AppliedRecords[name] == 0
	})
}

// lost counts what each source would lose of all that is removed, in the order of sources: by
// comparing records where the leader remembers what was applied. Else it knows how many there
// were, and takes each for the one that lost them: additions, which pass, would hide a loss
// from anybody who counts again.
func (in GuardInputs) lost(removed int) []loss {
	var losses []loss
	if in.Applied == nil {
		for _, name := range sortedKeys(in.AppliedRecords) {
			of := in.AppliedRecords[name]
			losses = append(losses, loss{name, min(of, removed), of})
		}
		return losses
	}
	for _, s := range in.Applied.sources {
		losses = append(losses, loss{s.name, 0, s.records})
	}
	for ch := range zone.Diff(in.Published, in.Desired.Content) {
		if ch.Old == nil {
			continue
		}
		for _, set := range ch.Old.RRsets {
			for gone := range set.Without(ch.New.RRset(set.Type)).All() {
				for i, s := range in.Applied.sources {
					for _, rec := range s.owners[ch.Owner] {
						if rec.Type == set.Type && string(rec.RData) == gone {
							losses[i].lost++
						}
					}
				}
			}
		}
	}
	return losses
}

// operators reports whether the owner's records are the operator's own, other than a
// delegation that vanishes.
func (in GuardInputs) operators(owner zone.Name) bool {
	if owner == in.Desired.settings.apex {
		return false // the SOA and NS are left as desired by keep
	}
	if len(in.Desired.operator[owner]) > 0 {
		return true
	}
	// The address of a name server of this very zone, whose datacenter serves it no longer.
	return in.Applied != nil && owner.Parent() == in.Desired.settings.apex && len(in.Applied.operator[owner]) > 0 &&
		in.Applied.operator[owner][0].Type != zone.TypeNS
}

// keep returns the changed owner's new node together with the records that would go, less
// those that can't stand beside the new ones.
func keep(ch zone.Change) zone.Node {
	sets := map[uint16]zone.RRset{}
	if ch.New != nil {
		for _, s := range ch.New.RRsets {
			sets[s.Type] = s
		}
	}
	apex := ch.Old.Has(zone.TypeSOA)
	for _, old := range ch.Old.RRsets {
		lost := old.Without(sets[old.Type])
		current, stays := sets[old.Type]
		_, alias := sets[zone.TypeCNAME]
		switch {
		case lost.Empty(), alias && old.Type != zone.TypeCNAME:
		case apex && (old.Type == zone.TypeSOA || old.Type == zone.TypeNS):
		case stays && (old.Type == zone.TypeCNAME || old.Type == zone.TypeDNAME || zone.IsPrivate(old.Type)):
		case stays:
			sets[old.Type] = current.Union(lost)
		case old.Type == zone.TypeCNAME && len(sets) > 0:
		default:
			sets[old.Type] = lost
		}
	}
	list := make([]zone.RRset, 0, len(sets))
	for _, s := range sets {
		list = append(list, s)
	}
	return zone.NewNode(ch.Owner, list...)
}
