package controllers

import "sync"

// pendingSet hands items to a function that may block, one after the other, from a caller
// that must not. An item that is waiting already is not added again.
type pendingSet struct {
	deliver func(any)
	mu      sync.Mutex
	waiting map[any]bool
	order   []any
	running bool
}

func newPendingSet(deliver func(any)) *pendingSet {
	return &pendingSet{deliver: deliver, waiting: map[any]bool{}}
}

func (p *pendingSet) add(item any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting[item] {
		return
	}
	p.waiting[item] = true
	p.order = append(p.order, item)
	if !p.running {
		p.running = true
		go p.run()
	}
}

func (p *pendingSet) run() {
	for {
		p.mu.Lock()
		if len(p.order) == 0 {
			p.running = false
			p.mu.Unlock()
			return
		}
		item := p.order[0]
		p.order = p.order[1:]
		delete(p.waiting, item)
		p.mu.Unlock()
		p.deliver(item)
	}
}
