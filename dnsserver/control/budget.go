package control

import (
	"sync"
	"time"
)

// budget bounds the octets of whole zones that are on their way to all servers together, so
// that many servers that come back at once share the line instead of all being late. First
// come, first served.
//
// A share that is not given back in the time that the slowest reasonable server would need
// is taken back: a stuck server never delays another.
type budget struct {
	mu      sync.Mutex
	size    int64
	used    int64
	waiting []*lease
}

// lease is a share of the budget, or the wait for one.
type lease struct {
	budget  *budget
	size    int64
	granted func() // called when the share is there, also from within ask; must not block or use the budget
	timer   *time.Timer
	state   leaseState
}

type leaseState int

const (
	leaseWaiting leaseState = iota
	leaseHeld
	leaseOver
)

// The patience with a lease: a base for round trips and disks, and the slowest pace at which
// a server may take its share.
const (
	leaseBase = 5 * time.Second
	leasePace = 2 << 20 // octets a second
)

// ask requests a share of so many octets; one larger than the whole budget waits for all of it.
func (b *budget) ask(size int64, granted func()) *lease {
	l := &lease{budget: b, size: min(size, b.size), granted: granted}
	b.mu.Lock()
	b.waiting = append(b.waiting, l)
	b.grantLocked()
	b.mu.Unlock()
	return l
}

func (b *budget) grantLocked() {
	for len(b.waiting) > 0 && b.used+b.waiting[0].size <= b.size {
		l := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.used += l.size
		l.state = leaseHeld
		l.timer = time.AfterFunc(leaseBase+time.Duration(l.size/leasePace)*time.Second, l.release)
		l.granted()
	}
}

// held reports whether the share was granted, and also that it was and is taken back.
func (l *lease) held() bool {
	l.budget.mu.Lock()
	defer l.budget.mu.Unlock()
	return l.state != leaseWaiting
}

// release gives the share back, or the wait up. It may be called again, and on nil.
func (l *lease) release() {
	if l == nil {
		return
	}
	b := l.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	switch l.state {
	case leaseWaiting:
		for i, w := range b.waiting {
			if w == l {
				b.waiting = append(b.waiting[:i:i], b.waiting[i+1:]...)
				break
			}
		}
	case leaseHeld:
		b.used -= l.size
		l.timer.Stop()
	case leaseOver:
		return
	}
	l.state = leaseOver
	b.grantLocked()
}
