package changes

import (
	"container/list"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

const (
	// keep is for how long changes are told to those who come later.
	keep = 10 * time.Minute
	// maxNames bounds the names of a Log. For one more the one that has not changed for longest is forgotten.
	maxNames = 20000
	// maxStates bounds the states that a name has left.
	maxStates = 16
)

// Log is what changed in the last 10 minutes, by name. It is for concurrent use.
//
// Watchers read from it at their own pace: whoever is slow gets several changes of a name as one, and costs nothing.
type Log struct {
	boot uint64

	mu       sync.Mutex
	names    map[key]*list.Element // of order
	order    list.List             // of *entry, by position
	position uint64                // of the last change
	lost     uint64                // the highest position of those that are forgotten
	wake     chan struct{}         // closed at the next change
	told     uint64                // changes ever
	dropped  uint64                // names that were forgotten before their time, or never known
}

// key is a name in one zone: a delegation is in another zone than what it leads to.
type key struct{ apex, name zone.Name }

type entry struct {
	change   Change // without Aliases and Before
	position uint64
	zoned    uint64 // the position of the change that Serial is of
	left     []left // the oldest first; no state is there twice
}

// left is a state that a name has left.
type left struct {
	state    uint64
	position uint64
	at       time.Time
}

// NewLog returns an empty one.
func NewLog() *Log {
	return &Log{boot: rand.Uint64() | 1, names: map[key]*list.Element{}, wake: make(chan struct{})}
}

// Add puts changes, which the server answers by already. Of Before there is one state, which the name was in, or none if a new
// version of the zone changed something else. With neither a state nor a serial the zone has gone. Aliases are ignored.
func (l *Log) Add(all ...Change) {
	if len(all) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range all {
		l.add(&all[i])
	}
	l.stir()
}

func (l *Log) add(c *Change) {
	l.position++
	l.told++
	k := key{c.Apex, c.Name}
	at := l.names[k]
	if at == nil {
		at = l.order.PushBack(&entry{change: Change{Name: c.Name, Apex: c.Apex, After: c.After}})
		l.names[k] = at
	}
	l.order.MoveToBack(at)
	e := at.Value.(*entry)
	e.position, e.change.At = l.position, c.At
	e.change.Beneath = e.change.Beneath || c.Beneath
	switch {
	case len(c.Before) > 0:
		l.leave(e, c)
	case c.Serial != 0:
		e.change.Serial, e.zoned = c.Serial, l.position
	default: // the zone is another server's now, if anybody's: nothing is known of who has it in what state
		e.change.Serial, e.zoned, e.change.After, e.left = 0, l.position, c.After, nil
	}
	l.expire(c.At)
	for l.order.Len() > maxNames {
		l.dropped++
		l.forget(l.order.Front())
	}
}

// leave notes that a name has left a state. l.mu is held.
func (l *Log) leave(e *entry, c *Change) {
	e.change.After = c.After
	since := c.At.Add(-keep)
	e.left = slices.DeleteFunc(e.left, func(s left) bool {
		return s.at.Before(since) || s.state == c.After || slices.Contains(c.Before, s.state)
	})
	for _, state := range c.Before {
		if state != c.After {
			e.left = append(e.left, left{state, l.position, c.At})
		}
	}
	if over := len(e.left) - maxStates; over > 0 {
		e.left = slices.Delete(e.left, 0, over)
	}
}

// Miss notes that so many names changed that are not told.
func (l *Log) Miss(names int) {
	if names == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped += uint64(names)
	l.position++
	l.lost = l.position
	l.stir()
}

// Counts returns how many changes were put, and how many names watchers may not have been told of.
func (l *Log) Counts() (told, dropped uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told, l.dropped
}

// stir has watchers look. l.mu is held.
func (l *Log) stir() {
	close(l.wake)
	l.wake = make(chan struct{})
}

// expire forgets what is too old. l.mu is held.
func (l *Log) expire(now time.Time) {
	for at := l.order.Front(); at != nil && now.Sub(at.Value.(*entry).change.At) > keep; at = l.order.Front() {
		l.forget(at)
	}
}

func (l *Log) forget(at *list.Element) {
	e := l.order.Remove(at).(*entry)
	delete(l.names, key{e.change.Apex, e.change.Name})
	l.lost = max(l.lost, e.position)
}

// cursor is up to where a watcher has read.
type cursor struct{ boot, position uint64 }

// read is a change that a watcher gets, and where it is.
type read struct {
	Change
	position uint64
}

// since returns up to most names that changed after c, those that changed first before others, and the cursor behind them.
// missed tells that others are forgotten. wake is closed when there are more; it is nil if there are more already.
func (l *Log) since(now time.Time, c cursor, most int) (found []read, next cursor, missed bool, wake <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(now)
	if c.boot != l.boot || c.position > l.position {
		c = cursor{boot: l.boot}
	} else {
		missed = c.position < l.lost
	}
	at := l.order.Back()
	for at != nil && at.Value.(*entry).position > c.position {
		at = at.Prev()
	}
	if at == nil {
		at = l.order.Front()
	} else {
		at = at.Next()
	}
	next = cursor{l.boot, max(c.position, l.lost)}
	for ; at != nil && len(found) < most; at = at.Next() {
		e := at.Value.(*entry)
		change := e.change
		if e.zoned <= c.position {
			change.Serial = 0
		}
		for _, s := range e.left {
			if s.position > c.position {
				change.Before = append(change.Before, s.state)
			}
		}
		found = append(found, read{change, e.position})
		next.position = e.position
	}
	if at == nil {
		next.position, wake = l.position, l.wake
	}
	return found, next, missed, wake
}
