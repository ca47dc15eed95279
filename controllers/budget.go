package controllers

import (
	"cmp"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

// StatusBudget bounds the writing of statuses: one write in statusInterval for an object,
// and so many a second for all.
type StatusBudget struct {
	limiter *rate.Limiter
	mu      sync.Mutex
	wrote   map[types.NamespacedName]time.Time
}

// NewStatusBudget allows so many writes a second in all.
func NewStatusBudget(perSecond int) *StatusBudget {
	return &StatusBudget{limiter: rate.NewLimiter(rate.Limit(perSecond), perSecond), wrote: map[types.NamespacedName]time.Time{}}
}

// Wait returns how long a write of the object has to wait; 0 grants it.
func (b *StatusBudget) Wait(key types.NamespacedName, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait := statusInterval - now.Sub(b.wrote[key]); wait > 0 {
		return wait
	}
	res := b.limiter.ReserveN(now, 1)
	if wait := res.DelayFrom(now); wait > 0 {
		res.CancelAt(now)
		return wait
	}
	return 0
}

// Wrote notes a write of the object.
func (b *StatusBudget) Wrote(key types.NamespacedName, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
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
