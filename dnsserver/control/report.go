package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controlpb"
)

// reportEvery is how often the hub gets a report of one kind at most.
const reportEvery = time.Second

// reports are the latest bodies that the hub is to have, by kind. The zero value has none.
type reports struct {
	mu     sync.Mutex
	latest map[string]report
	// versions counts bodies, of all kinds.
	versions uint64
	more     chan struct{} // closed when there is something new, and replaced; nil: nobody waits
}

type report struct {
	body    []byte
	version uint64 // higher for a later one
}

// Report has the hub that leads told the body, and one that leads after it too, in the place
// of the last report of the kind. Bodies that follow each other within a second become one;
// body is not to be changed afterwards. It never waits, and works without a hub. It fails if
// body is longer than MaxReport, or kind is none.
func (c *Client) Report(kind string, body []byte) error {
	switch {
	case !isKind(kind):
		return fmt.Errorf("%q is no kind of reports", clip(kind))
	case len(body) > MaxReport:
		return fmt.Errorf("report %q has %d octets, more than %d", kind, len(body), MaxReport)
	}
	r := &c.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.latest[kind]; !known && len(r.latest) >= maxReports {
		return fmt.Errorf("report %q: there are %d others", kind, maxReports)
	}
	if r.latest == nil {
		r.latest = map[string]report{}
	}
	r.versions++
	r.latest[kind] = report{body, r.versions}
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
	return nil
}

// Unreport has nobody told a kind any more: a hub that leads later does not hear of it.
func (c *Client) Unreport(kind string) {
	c.reports.mu.Lock()
	defer c.reports.mu.Unlock()
	delete(c.reports.latest, kind)
}

// send tells all there is and then what is new, until ctx ends.
func (r *reports) send(ctx context.Context, say func(*controlpb.ServerMessage)) {
	type told struct {
		version uint64
		at      time.Time
	}
	sent := map[string]told{}
	for {
		r.mu.Lock()
		latest := maps.Clone(r.latest)
		if r.more == nil {
			r.more = make(chan struct{})
		}
		more := r.more
		r.mu.Unlock()
		var next <-chan time.Time
		soonest := reportEvery
		for _, kind := range slices.Sorted(maps.Keys(latest)) {
			last := sent[kind]
			if latest[kind].version == last.version {
				continue
			}
			if wait := reportEvery - time.Since(last.at); !last.at.IsZero() && wait > 0 {
				soonest = min(soonest, wait)
				next = time.After(soonest)
				continue
			}
			say(&controlpb.ServerMessage{Message: &controlpb.ServerMessage_Report{Report: &controlpb.Report{Kind: kind, Body: latest[kind].body}}})
			sent[kind] = told{latest[kind].version, time.Now()}
		}
		select {
		case <-more:
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}
