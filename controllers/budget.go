package controllers

import (
	"cmp"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

// StatusBudget decides when a status may be written: not before what it says has lasted, at
// most once in statusInterval for an object, and at most so many a second for all. What comes
// and goes meanwhile, as every change on its way to the servers does, is never written.
type StatusBudget struct {
	limiter *rate.Limiter
	mu      sync.Mutex
	differs map[types.NamespacedName]difference
	wrote   map[types.NamespacedName]time.Time
}

// difference is a status that is not what is true.
type difference struct {
	since time.Time
	turn  *rate.Reservation // its place in the line of all writes; nil: not in it
}

// NewStatusBudget allows so many writes a second in all.
func NewStatusBudget(perSecond int) *StatusBudget {
	return &StatusBudget{
		limiter: rate.NewLimiter(rate.Limit(perSecond), perSecond),
		differs: map[types.NamespacedName]difference{}, wrote: map[types.NamespacedName]time.Time{},
	}
}

// Other returns a budget for objects of another kind, which may have the same names. Both share the writes a second.
func (b *StatusBudget) Other() *StatusBudget {
	return &StatusBudget{limiter: b.limiter, differs: map[types.NamespacedName]difference{}, wrote: map[types.NamespacedName]time.Time{}}
}

// Wait returns how long a write of the object has to wait, if it is to be written when its
// status has differed for so long; 0 grants it. Each object that may be written gets a turn
// of its own: however many wait, each asks once.
func (b *StatusBudget) Wait(key types.NamespacedName, now time.Time, lasting time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, known := b.differs[key]
	if !known {
		d.since = now
		b.differs[key] = d
	}
	if wait := max(lasting-now.Sub(d.since), statusInterval-now.Sub(b.wrote[key])); wait > 0 {
		return wait
	}
	if d.turn == nil {
		d.turn = b.limiter.ReserveN(now, 1)
	}
	wait := d.turn.DelayFrom(now)
	if wait <= 0 {
		d.turn, wait = nil, 0
	}
	b.differs[key] = d
	return wait
}

// Same notes that the object's status is as it should be, or that the object is gone.
func (b *StatusBudget) Same(key types.NamespacedName, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(key, now)
}

func (b *StatusBudget) end(key types.NamespacedName, now time.Time) {
	if turn := b.differs[key].turn; turn != nil {
		turn.CancelAt(now)
	}
	delete(b.differs, key)
}

// Wrote notes a write of the object.
func (b *StatusBudget) Wrote(key types.NamespacedName, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(key, now)
	b.wrote[key] = now
	if len(b.wrote) > 1024 {
		for k, t := range b.wrote {
			if now.Sub(t) > statusInterval {
				delete(b.wrote, k)
			}
		}
	}
}

func compareKeys(a, b types.NamespacedName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// parseSource reads what types.NamespacedName.String writes.
func parseSource(s string) (types.NamespacedName, bool) {
	namespace, name, ok := strings.Cut(s, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}, ok && name != ""
}
