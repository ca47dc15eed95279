package zone

import (
	"crypto/sha256"
	"encoding/hex"
)

// GuardPolicy bounds how much one update may remove without a person's approval. The zero
// policy lets everything pass only if it removes nothing.
type GuardPolicy struct {
	MinDeletes       int // so many records may always go
	MaxDeletePercent int // beyond MinDeletes: so many percent, 0 to 100
}

// Exceeded reports whether removing so many of so many records needs approval: more than
// MinDeletes and also more than MaxDeletePercent.
func (p GuardPolicy) Exceeded(removed, of int) bool {
	return removed > p.MinDeletes && removed*100 > p.MaxDeletePercent*of
}

// Removal is what an update would take away.
type Removal struct {
	Records  int    // records that go, names under removed delegations included
	Of       int    // records of the old content, counted the same way
	Examples []Name // the first owners that lose records, at most MaxRemovalExamples, canonical order
	Digest   string // identifies what goes, for approval; 16 hexadecimal digits, "" if nothing goes
}

// MaxRemovalExamples bounds Removal.Examples.
const MaxRemovalExamples = 5

// Removals compares two versions of a zone. under tells how many records disappear from
// the hierarchy below a delegation at the given owner when its NS RRset is removed whole;
// nil counts none. A nil before removes nothing.
//
// The digest depends on the records removed and on nothing else, so that an approval stays
// good while other parts of the zone change.
func Removals(before, after *Content, under func(Name) int) Removal {
	r := Removal{}
	if before == nil {
		return r
	}
	r.Of = before.Records()
	hash := sha256.New()
	for ch := range Diff(before, after) {
		if ch.Old == nil || ch.Removed() == 0 {
			continue
		}
		gone := make([]RRset, 0, len(ch.Old.RRsets))
		for _, s := range ch.Old.RRsets {
			lost := ch.lost(s)
			lost.TTL = 0
			gone = append(gone, lost)
			if s.Type == TypeNS && !ch.New.Has(TypeNS) && under != nil {
				below := under(ch.Owner)
				r.Records += below
				r.Of += below
			}
		}
		r.Records += ch.Removed()
		if len(r.Examples) < MaxRemovalExamples {
			r.Examples = append(r.Examples, ch.Owner)
		}
		hash.Write(AppendNode(nil, NewNode(ch.Owner, gone...)))
	}
	if r.Records > 0 {
		r.Digest = hex.EncodeToString(hash.Sum(nil)[:8])
	}
	return r
}
