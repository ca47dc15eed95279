package control

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// AbsenceLimit bounds how many zones may go from one server without a person's approval. The
// zero value stands for the default of 10 zones and 30 percent; negative numbers for 0.
type AbsenceLimit struct {
	Zones   int // so many zones may always go within absenceWindow
	Percent int // beyond Zones: so many percent of what the server held
}

func (l AbsenceLimit) orDefault() AbsenceLimit {
	if l == (AbsenceLimit{}) {
		return AbsenceLimit{Zones: 10, Percent: 30}
	}
	return AbsenceLimit{max(0, l.Zones), max(0, l.Percent)}
}

// Exceeded reports whether the removal of so many of so many zones needs approval: more than
// Zones and also more than Percent.
func (l AbsenceLimit) Exceeded(gone, of int) bool {
	return gone > l.Zones && gone*100 > l.Percent*of
}

// absenceWindow is how long a removed zone counts together with the next ones: a storm of
// single removals is one mass removal.
const absenceWindow = 10 * time.Minute

// removals counts the zones that went from a server in the last absenceWindow; those that a
// person approved do not count. Times of one removals never go back.
type removals struct{ steps []removalStep }

type removalStep struct {
	at    time.Time
	zones int
}

// add counts removed zones; those of one second become one step, which bounds the steps.
func (r *removals) add(now time.Time, zones int) {
	if n := len(r.steps); n > 0 && now.Sub(r.steps[n-1].at) < time.Second {
		r.steps[n-1].zones += zones
		return
	}
	r.steps = append(r.steps, removalStep{now, zones})
}

func (r *removals) recent(now time.Time) int {
	for len(r.steps) > 0 && now.Sub(r.steps[0].at) >= absenceWindow {
		r.steps = r.steps[1:]
	}
	count := 0
	for _, s := range r.steps {
		count += s.zones
	}
	return count
}

// absentZone is a zone that a server holds and nobody wants there.
type absentZone struct {
	apex     zone.Name
	foreign  bool // it came from another hub cluster
	withheld bool // its removal was held back before, and not approved since
}

// absenceRuling says what happens to the absent zones of one server.
type absenceRuling struct {
	remove   []zone.Name // go now, no approval needed
	held     []zone.Name // in canonical order
	digest   string      // of held; "" if nothing is held
	approved bool        // held may go too, under the digest
}

// ruleOnAbsence decides which of the absent zones may go from a server that holds so many
// zones and lost so many recently. Zones of another cluster always need approval; and what
// was held back once goes on needing it, however much time passes.
func ruleOnAbsence(absent []absentZone, holds, recent int, limit AbsenceLimit, approved func(digest string) bool) absenceRuling {
	exceeded := limit.Exceeded(len(absent)+recent, holds+recent)
	var r absenceRuling
	for _, z := range absent {
		if exceeded || z.foreign || z.withheld {
			r.held = append(r.held, z.apex)
		} else {
			r.remove = append(r.remove, z.apex)
		}
	}
	slices.SortFunc(r.remove, zone.Name.Compare)
	slices.SortFunc(r.held, zone.Name.Compare)
	r.digest = namesDigest(r.held)
	r.approved = len(r.held) > 0 && approved(r.digest)
	return r
}

// namesDigest identifies a set of names given in canonical order: 16 hexadecimal digits, ""
// for none.
func namesDigest(names []zone.Name) string {
	if len(names) == 0 {
		return ""
	}
	h := sha256.New()
	for _, n := range names {
		h.Write([]byte(n)) // wire form delimits itself
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
