package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// fetch is content that was asked of a server.
type fetch struct {
	id       uint64
	apex     zone.Name
	digest   zone.Digest
	assembly assembly      // receive's goroutine only
	moved    chan struct{} // one element: a part has come
	done     chan error    // one element: the end; nil: content is set
	content  *zone.Content
}

// fetchPatience is how long a server may send nothing of what it was asked for.
const fetchPatience = 10 * time.Second

// fetch asks the server for content and waits for it.
func (p *peer) fetch(ctx context.Context, apex zone.Name, digest zone.Digest) (*zone.Content, error) {
	f := &fetch{
		apex: apex, digest: digest, assembly: assembly{apex: apex, room: p.hub.opts.MaxZoneBytes},
		moved: make(chan struct{}, 1), done: make(chan error, 1),
	}
	p.hub.mu.Lock()
	p.lastID++
	f.id = p.lastID
	p.fetching[f.id] = f
	p.asked = append(p.asked, f)
	p.hub.mu.Unlock()
	p.poke()
	defer func() {
		p.hub.mu.Lock()
		delete(p.fetching, f.id)
		p.asked = slices.DeleteFunc(p.asked, func(o *fetch) bool { return o == f })
		p.hub.mu.Unlock()
	}()
	patience := time.NewTimer(fetchPatience)
	defer patience.Stop()
	for {
		select {
		case err := <-f.done:
			return f.content, err
		case <-f.moved:
			patience.Reset(fetchPatience)
		case <-patience.C:
			return nil, fmt.Errorf("nothing came for %s", fetchPatience)
		case <-p.ended:
			return nil, p.cause
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *peer) fetchOf(id uint64) *fetch {
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	return p.fetching[id]
}

// takeFetched takes a part of fetched content; parts that nobody waits for any more are
// dropped. Content that is not what was asked for fails the fetch, and nothing else.
func (p *peer) takeFetched(m *controlpb.FetchChunk) error {
	f := p.fetchOf(m.GetFetch())
	if f == nil {
		return nil
	}
	err := f.assembly.add(m.GetNodes())
	if err == nil && !m.GetLast() {
		select {
		case f.moved <- struct{}{}:
		default:
		}
		return nil
	}
	var c *zone.Content
	if err == nil {
		c, err = f.assembly.content()
	}
	if err == nil && c.Digest() != f.digest {
		err = errDigest
	}
	p.finishFetch(f, c, err)
	return nil
}

var errDigest = errors.New("the content is not what its digest says")

func (p *peer) failFetch(m *controlpb.FetchFailed) {
	if f := p.fetchOf(m.GetFetch()); f != nil {
		p.finishFetch(f, nil, errors.New(clip(m.GetMessage())))
	}
}

func (p *peer) finishFetch(f *fetch, c *zone.Content, err error) {
	p.hub.mu.Lock()
	delete(p.fetching, f.id)
	p.hub.mu.Unlock()
	if err == nil {
		f.content = c
	}
	f.done <- err
}
