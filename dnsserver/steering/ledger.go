package steering

import (
	"slices"
	"time"
)

// Ledger keeps account, for one record of one server, of how long resolvers may hold answers with a target
// that is not answered any more: from what was really handed out, and when. The zero Ledger is of a record
// that was never answered. It is not safe for concurrent use.
type Ledger struct {
	present *Result
	// until is when the last answer with a target that was handed out before present has expired.
	until map[string]time.Time
	since time.Time // Begin; zero: what was before is known
}

// Begin says that the server starts at now without knowing what it handed out before: it counts as having
// handed out until now all that it remembers, with the longest TTL that it may have had: that of the record, or
// what an override had raised it to.
func (l *Ledger) Begin(now time.Time, m Memory, longest time.Duration) {
	l.since = now
	until := now.Add(max(longest, time.Duration(m.TTL)*time.Second))
	if m.Held.After(until) {
		until = m.Held
	}
	for i := range m.Classes {
		for _, g := range m.Classes[i].Given {
			for _, t := range g.Targets {
				l.extend(t, until)
			}
		}
	}
}

// Replace is called right after each SetSteered, with what is answered from now on.
func (l *Ledger) Replace(now time.Time, next *Result) {
	for t, until := range l.until {
		if !until.After(now) {
			delete(l.until, t)
		}
	}
	l.book()
	l.present = next
}

// book enters what was handed out of the present answers.
func (l *Ledger) book() {
	if l.present == nil {
		return
	}
	for i, targets := range l.present.targets {
		at := l.present.Steered.Handed(i)
		if at == 0 {
			continue
		}
		// The time of a query is that of its batch, in whole seconds.
		until := time.Unix(at+1, 0).Add(time.Duration(l.present.TTL) * time.Second).UTC()
		for _, t := range targets {
			l.extend(t, until)
		}
	}
}

func (l *Ledger) extend(target string, until time.Time) {
	if l.until == nil {
		l.until = map[string]time.Time{}
	}
	if until.After(l.until[target]) {
		l.until[target] = until
	}
}

// Settled returns when whoever was given a target that is not answered now must have dropped it; zero if
// nobody holds such an answer at now, or no targets are answered to anybody.
func (l *Ledger) Settled(now time.Time) time.Time {
	var settled time.Time
	for t, until := range l.until {
		if until.After(now) && until.After(settled) && !l.answers(t) {
			settled = until
		}
	}
	return settled
}

// Released returns when whoever was given one of the targets must have dropped it, if it is answered to
// nobody any more; ok false if one of them still is.
func (l *Ledger) Released(now time.Time, targets []string) (at time.Time, ok bool) {
	at = now
	for _, t := range targets {
		if l.answers(t) {
			return time.Time{}, false
		}
		if until := l.until[t]; until.After(at) {
			at = until
		}
	}
	return at, true
}

func (l *Ledger) answers(target string) bool {
	return l.present != nil && slices.ContainsFunc(l.present.targets, func(all []string) bool { return slices.Contains(all, target) })
}

// ServerAnswer is what is known of one server for SafeAt.
type ServerAnswer struct {
	Name string
	// Settled is what the server last said of it (Ledger.Settled), zero if nobody holds an old
	// answer; of a server that has the change.
	Settled time.Time
	// Contact is when the server was last heard, for one that can't be asked now, or does not have
	// the change yet: it counts as having handed out the old answer until then. Zero: it was asked.
	Contact time.Time
}

// SafeAt returns when every resolver that got an old answer from one of the servers must have dropped it,
// and which servers it waits for, sorted; now if none holds one. old is the TTL that answers had. Servers
// that can't be asked go on handing out the old answer as long as nobody knows better: certain is false.
func SafeAt(now time.Time, servers []ServerAnswer, old time.Duration) (at time.Time, waiting []string, certain bool) {
	at, certain = now, true
	for _, s := range servers {
		until := s.Settled
		if !s.Contact.IsZero() {
			certain = false
			until = s.Contact.Add(old)
		}
		if until.After(now) {
			waiting = append(waiting, s.Name)
		}
		if until.After(at) {
			at = until
		}
	}
	slices.Sort(waiting)
	return at, waiting, certain
}
