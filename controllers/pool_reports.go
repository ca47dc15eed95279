package controllers

import (
	"reflect"
	"regexp"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// PoolReports is what agents of resolver pools have last told. All of it can be lost: agents tell it again to the next leader.
type PoolReports struct {
	OnPool func(types.NamespacedName) // a pool of which an agent tells something new; does not block

	mu      sync.Mutex
	reports map[control.ServerID]*pool.Report
}

// poolOf is the pool whose certificate a server has; false: it is no agent of a pool.
func poolOf(id control.ServerID) (types.NamespacedName, bool) {
	namespace, name, is := pool.ParseGroup(id.Group)
	return types.NamespacedName{Namespace: namespace, Name: name}, is
}

// Take takes one report. One that can't be read, or is not of an agent, changes nothing.
func (r *PoolReports) Take(id control.ServerID, body []byte) {
	key, is := poolOf(id)
	report, err := pool.DecodeReport(body)
	if !is || err != nil {
		return
	}
	report.NotReady, report.Refused = steady(report.NotReady), steady(report.Refused)
	if report.Recursion != nil {
		report.Recursion.Why = steady(report.Recursion.Why)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.reports[id]
	if r.reports == nil {
		r.reports = map[control.ServerID]*pool.Report{}
	}
	r.reports[id] = report
	if before == nil || !reflect.DeepEqual(telling(before), telling(report)) {
		r.OnPool(key)
	}
}

var passing = []struct {
	what  *regexp.Regexp
	stays string
}{
	{regexp.MustCompile(`fingerpost-check-[0-9a-f]+`), "*"},          // a name that nobody has
	{regexp.MustCompile(` for [0-9]+(\.[0-9]+)?m?s\b`), " for long"}, // ever longer
	{regexp.MustCompile(`:[0-9]+->`), "->"},                          // a socket's own port
	{regexp.MustCompile(`\[[0-9]{9,}\] `), ""},                       // Unbound's clock
	{regexp.MustCompile(`\[[0-9]+:[0-9]+\]`), ""},                    // its process and thread
}

// steady is a text about a trouble that is the same as long as the trouble is: what is another one each time is left out.
func steady(text string) string {
	for _, p := range passing {
		text = p.what.ReplaceAllString(text, p.stays)
	}
	return text
}

// telling is what of a report statuses are made of: what only counts or measures is left out.
func telling(r *pool.Report) pool.Report {
	l := *r
	l.At, l.Counters, l.Flush.Waiting, l.Flush.Outcomes = l.Started, nil, 0, nil
	if l.Recursion != nil {
		l.Recursion = &pool.Recursion{OK: l.Recursion.OK, Why: l.Recursion.Why}
	}
	return l
}

// Of returns what an agent has told, not to be changed; nil: nothing.
func (r *PoolReports) Of(id control.ServerID) *pool.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reports[id]
}

// Connection calls for the pool of an agent that has joined or left. Of one that has left nothing is known any more.
func (r *PoolReports) Connection(id control.ServerID, here bool) {
	key, is := poolOf(id)
	if !is {
		return
	}
	r.mu.Lock()
	if !here {
		delete(r.reports, id)
	}
	r.mu.Unlock()
	r.OnPool(key)
}
