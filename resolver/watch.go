package resolver

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// localPatience is how long no server of the agent's datacenter is connected until those of others are listened to.
const localPatience = 2 * time.Second

// listeners are the servers that tell changes, and are connected.
type listeners struct {
	mu        sync.Mutex
	connected map[string]bool
}

func (l *listeners) set(server string, connected bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if connected {
		l.connected[server] = true
	} else {
		delete(l.connected, server)
	}
}

// list is sorted; nil if there are none.
func (l *listeners) list() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for server := range l.connected {
		all = append(all, server)
	}
	slices.Sort(all)
	return all
}

// watch listens to the servers that the configuration names until ctx ends.
func (a *Agent) watch(ctx context.Context) {
	if a.o.Watch.Credentials.Certificate == nil {
		return
	}
	for ctx.Err() == nil {
		c, replaced := a.doing()
		one, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { a.listen(one, c.Notifiers) })
		for same := true; same; {
			select {
			case <-ctx.Done():
				same = false
			case <-replaced:
				var next *configuration
				next, replaced = a.doing()
				same = reflect.DeepEqual(next.Notifiers, c.Notifiers)
			}
		}
		cancel()
		all.Wait()
	}
}

// listen hears local servers, and others while no local one is connected, until ctx ends.
func (a *Agent) listen(ctx context.Context, n pool.Notifiers) {
	var mu sync.Mutex
	local := 0 // connected
	turned := make(chan struct{}, 1)
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		a.hear(ctx, n.Local, func(connected bool) {
			mu.Lock()
			defer mu.Unlock()
			if connected {
				local++
			} else {
				local--
			}
			select {
			case turned <- struct{}{}:
			default:
			}
		})
	})
	for ctx.Err() == nil {
		patience := time.NewTimer(localPatience)
		for alone := false; !alone; {
			select {
			case <-ctx.Done():
				return
			case <-turned:
				patience.Reset(localPatience)
			case <-patience.C:
				mu.Lock()
				alone = local == 0
				mu.Unlock()
				if !alone {
					patience.Reset(localPatience)
				}
			}
		}
		if len(n.Others) > 0 {
			a.o.Log.Info("no server of this datacenter tells changes: others are listened to")
		}
		other, cancel := context.WithCancel(ctx)
		all.Go(func() { a.hear(other, n.Others, func(bool) {}) })
		for alone := true; alone && ctx.Err() == nil; {
			select {
			case <-ctx.Done():
			case <-turned:
				mu.Lock()
				alone = local == 0
				mu.Unlock()
			}
		}
		cancel()
	}
}

// hear works on what servers tell until ctx ends.
func (a *Agent) hear(ctx context.Context, servers []string, turned func(connected bool)) {
	if len(servers) == 0 {
		return
	}
	o := a.o.Watch
	o.Servers, o.Log = servers, a.o.Log
	o.OnChanges = func(server string, all []changes.Change, missed bool) {
		if missed {
			a.metrics.missed.Inc()
			a.o.Log.Info("names have changed that can't be known any more: zones are forgotten", "server", server, "zones", fmt.Sprint(a.flusher.miss()))
		}
		a.metrics.heard.Add(float64(len(all)))
		a.flusher.hear(all, nil)
	}
	o.OnConnected = func(server string, connected bool) {
		a.flusher.listen.set(server, connected)
		turned(connected)
	}
	changes.Watch(ctx, o)
}
