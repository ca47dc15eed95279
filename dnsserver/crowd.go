package dnsserver

import (
	"container/list"
	"iter"
	"net/netip"
)

// crowd is a set of streams that knows at any time which of them is the fairest to close: of the
// clients with most streams the one to which nothing happened for longest, and of its streams the
// one that was idle for longest. What happens is that a stream comes, is active or goes. Every
// operation costs the same for all sizes. The zero crowd is empty; it is not for concurrent use.
type crowd struct {
	size    int
	clients map[netip.Addr]*crowdClient
	// levels[n] holds the clients with n+1 streams, those to which nothing happened for longest
	// first. The last level is not empty.
	levels []*list.List // of *crowdClient
}

type crowdClient struct {
	address netip.Addr
	streams list.List     // of *stream, those idle for longest first; never empty
	place   *list.Element // in its level
}

// of counts the streams of a client.
func (w *crowd) of(address netip.Addr) int {
	if client := w.clients[address]; client != nil {
		return client.streams.Len()
	}
	return 0
}

// add takes in a stream that is not in any crowd, as the one that was active last.
func (w *crowd) add(c *stream) {
	client := w.clients[c.client]
	if client == nil {
		client = &crowdClient{address: c.client}
		if w.clients == nil {
			w.clients = map[netip.Addr]*crowdClient{}
		}
		w.clients[c.client] = client
	} else {
		w.leave(client)
	}
	c.place = client.streams.PushBack(c)
	w.size++
	w.enter(client)
}

// touch makes c the stream that was active last. One that is not in the crowd stays out.
func (w *crowd) touch(c *stream) {
	if c.place == nil {
		return
	}
	client := w.clients[c.client]
	client.streams.MoveToBack(c.place)
	w.levels[client.streams.Len()-1].MoveToBack(client.place)
}

// remove takes c out and reports true. One that is not in the crowd stays out.
func (w *crowd) remove(c *stream) bool {
	if c.place == nil {
		return false
	}
	client := w.clients[c.client]
	w.leave(client)
	client.streams.Remove(c.place)
	c.place = nil
	w.size--
	if client.streams.Len() == 0 {
		delete(w.clients, c.client)
	} else {
		w.enter(client)
	}
	for len(w.levels) > 0 && w.levels[len(w.levels)-1].Len() == 0 {
		w.levels = w.levels[:len(w.levels)-1]
	}
	return true
}

// evict takes out the stream that is the fairest to close, nil if there is none.
func (w *crowd) evict() *stream {
	if w.size == 0 {
		return nil
	}
	client := w.levels[len(w.levels)-1].Front().Value.(*crowdClient)
	c := client.streams.Front().Value.(*stream)
	w.remove(c)
	return c
}

// enter puts a client with streams into its level, as the one to which something happened last.
func (w *crowd) enter(client *crowdClient) {
	n := client.streams.Len()
	for len(w.levels) < n {
		w.levels = append(w.levels, list.New())
	}
	client.place = w.levels[n-1].PushBack(client)
}

// leave takes a client with streams out of its level, which may leave the last one empty.
func (w *crowd) leave(client *crowdClient) {
	w.levels[client.streams.Len()-1].Remove(client.place)
}

// all yields every stream, in no order. The crowd must not change meanwhile.
func (w *crowd) all() iter.Seq[*stream] {
	return func(yield func(*stream) bool) {
		for _, client := range w.clients {
			for e := client.streams.Front(); e != nil; e = e.Next() {
				if !yield(e.Value.(*stream)) {
					return
				}
			}
		}
	}
}
