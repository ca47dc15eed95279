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
	differs map[types.NamespacedName]time.Time // since when the status written is not what is true
	wrote   map[types.NamespacedName]time.Time
}

// NewStatusBudget allows so many writes a second in all.
func NewStatusBudget(perSecond int) *StatusBudget {
	return &StatusBudget{
		limiter: rate.NewLimiter(rate.Limit(perSecond), perSecond),
		differs: map[types.NamespacedName]time.Time{}, wrote: map[types.NamespacedName]time.Time{},
	}
}

// Wait returns how long a write of the object has to wait, if it is to be written when its
// status has differed for so long; 0 grants it.
func (b *StatusBudget) Wait(key types.NamespacedName, now time.Time, lasting time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	since, known := b.differs[key]
	if !known {
		since = now
		b.differs[key] = now
	}
	if wait := max(lasting-now.Sub(since), statusInterval-now.Sub(b.wrote[key])); wait > 0 {
		return wait
	}
	res := b.limiter.ReserveN(now, 1)
	if wait := res.DelayFrom(now); wait > 0 {
		res.CancelAt(now)
		return wait
	}
	return 0
}

// Same notes that the object's status is as it should be.
func (b *StatusBudget) Same(key types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.differs, key)
}

// Wrote notes a write of the object.
func (b *StatusBudget) Wrote(key types.NamespacedName, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.differs, key)
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
