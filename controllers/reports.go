package controllers

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// Reports is what servers have last told of steered names, and of how they see each other. All of it can be lost: servers
// tell it again to the next leader.
type Reports struct {
	Clock    clock.PassiveClock
	OnRecord func(types.NamespacedName) // a record of which a server tells something new; does not block
	OnServer func(control.ServerID)     // a server that sees the others otherwise; does not block

	mu      sync.Mutex
	servers map[control.ServerID]*serverReports
}

// serverReports is what one server has told.
type serverReports struct {
	heard   time.Time
	kinds   map[string]map[string]*steeringpb.RecordReport // records by source, by kind of the report
	vantage *steeringpb.VantageReport
}

const (
	steeringReports = "steering-"
	vantageReport   = "vantage"
)

// Take takes one report. One that can't be read changes nothing.
func (r *Reports) Take(id control.ServerID, kind string, body []byte) {
	v, report := &steeringpb.VantageReport{}, &steeringpb.Report{} // read before anybody has to wait: it has hundreds of records
	readable := true
	switch {
	case kind == vantageReport:
		readable = proto.Unmarshal(body, v) == nil
	case strings.HasPrefix(kind, steeringReports):
		readable = proto.Unmarshal(body, report) == nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.servers[id]
	if s == nil {
		s = &serverReports{kinds: map[string]map[string]*steeringpb.RecordReport{}}
		if r.servers == nil {
			r.servers = map[control.ServerID]*serverReports{}
		}
		r.servers[id] = s
	}
	s.heard = r.Clock.Now()
	switch {
	case !readable:
	case kind == vantageReport:
		if !proto.Equal(v, s.vantage) {
			before := s.vantage
			s.vantage = v
			r.OnServer(id)
			if before.GetIsolated() != v.GetIsolated() || !slices.Equal(before.GetUnreachable(), v.GetUnreachable()) {
				r.allChanged(s) // whether somebody could confirm a datacenter's death
			}
		}
	case strings.HasPrefix(kind, steeringReports):
		s.keepDivision(kind, r.changed)
		before, now := s.kinds[kind], make(map[string]*steeringpb.RecordReport, len(report.GetRecords()))
		for _, record := range report.GetRecords() {
			now[record.GetSource()] = record
			if !proto.Equal(before[record.GetSource()], record) {
				r.changed(record.GetSource())
			}
		}
		for source := range before {
			if now[source] == nil {
				r.changed(source)
			}
		}
		s.kinds[kind] = now
	}
}

// keepDivision drops reports of another division of the records than that of the kind, such as steering-64-01f: all of them
// are told again.
func (s *serverReports) keepDivision(kind string, changed func(source string)) {
	division := kind[:strings.LastIndex(kind, "-")]
	for other, records := range s.kinds {
		if other[:strings.LastIndex(other, "-")] == division {
			return // all are of one
		}
		for source := range records {
			changed(source)
		}
		delete(s.kinds, other)
	}
}

// Contact notes that the hub has to do with a server, such as that it leaves: until now it has answered as it has told last.
func (r *Reports) Contact(id control.ServerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.servers[id]; s != nil {
		s.heard = r.Clock.Now()
	}
}

func (r *Reports) changed(source string) {
	if key, ok := parseSource(source); ok {
		r.OnRecord(key)
	}
}

// RecordReport is what one server tells of one record.
type RecordReport struct {
	Server control.ServerID
	Heard  time.Time // last contact with the server, at the latest; for one that is connected it may be long ago
	*steeringpb.RecordReport
}

// Of returns what servers tell of a record, by server.
func (r *Reports) Of(key types.NamespacedName) []RecordReport {
	source := key.String()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []RecordReport
	for id, s := range r.servers {
		for _, records := range s.kinds {
			if record := records[source]; record != nil {
				all = append(all, RecordReport{id, s.heard, record})
				break
			}
		}
	}
	slices.SortFunc(all, func(a, b RecordReport) int { return compareServers(a.Server, b.Server) })
	return all
}

// Connection calls for the records that a server has told of: it has joined or left, and they count it or not.
func (r *Reports) Connection(id control.ServerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.servers[id]; s != nil {
		r.allChanged(s)
	}
}

func (r *Reports) allChanged(s *serverReports) {
	for _, records := range s.kinds {
		for source := range records {
			r.changed(source)
		}
	}
}

// Sees returns whether the votes of a datacenter can be had, and count: it is connected to the hub or else heard by a server
// of another datacenter that is, and has not told that it is isolated.
func (r *Reports) Sees(connected map[control.ServerID]bool) func(datacenter string) bool {
	return func(datacenter string) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		heard, isolated := false, false
		for id := range connected {
			var v *steeringpb.VantageReport
			if s := r.servers[id]; s != nil {
				v = s.vantage
			}
			switch {
			case id.Datacenter == datacenter && !v.GetIsolated():
				return true
			case id.Datacenter == datacenter:
				isolated = true
			case v != nil && !slices.Contains(v.GetUnreachable(), datacenter):
				heard = true
			}
		}
		return heard && !isolated
	}
}

// Vantages returns how the servers of a datacenter see the others, by server.
func (r *Reports) Vantages(datacenter string) map[control.ServerID]*steeringpb.VantageReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[control.ServerID]*steeringpb.VantageReport{}
	for id, s := range r.servers {
		if id.Datacenter == datacenter && s.vantage != nil {
			all[id] = s.vantage
		}
	}
	return all
}

// Told returns the overrides that servers have in force from a hub, for each server that has told of some.
func (r *Reports) Told() (all [][]*steeringpb.Override) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.servers {
		if told := s.vantage.GetTold(); len(told) > 0 {
			all = append(all, told)
		}
	}
	return all
}

// Forget drops what servers have told that no Datacenter has any more, and calls for the records that they told of.
func (r *Reports) Forget(known func(control.ServerID) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range r.servers {
		if !known(id) {
			delete(r.servers, id)
			r.allChanged(s)
		}
	}
}

func compareServers(a, b control.ServerID) int {
	return cmp.Or(cmp.Compare(a.Datacenter, b.Datacenter), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Name, b.Name))
}
