package dnsserver

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

// compile gives the view the answers of a record as they are to be now. mu is held.
func (s *steerer) compile(now time.Time, src *steeredSource) {
	view, known := s.machine.View(now, src.source)
	if !known {
		return
	}
	src.until = time.Time{}
	var decided *steering.Result
	for _, key := range sortedKeys(src.names) {
		n := src.names[key]
		result := s.compiled(n.record, &steering.Inputs{
			Now: now, World: s.world, Health: &view, Geo: s.geo, Resolved: s.flatten.of(n.record),
			Overrides: s.overrides(), Memory: n.memory,
		})
		if result == nil {
			continue // it goes on answering as before
		}
		if !result.Until.IsZero() && (src.until.IsZero() || result.Until.Before(src.until)) {
			src.until = result.Until
		}
		s.give(now, key, n, result)
		if n.record.SRV < 0 || decided == nil {
			decided = result
		}
	}
	if decided == nil {
		return
	}
	s.wakeAt(src.until)
	if !reflect.DeepEqual(src.controls, decided.Controls) {
		src.controls = decided.Controls
		s.machine.SetControls(now, src.source, decided.Controls)
		s.poke()
	}
	src.decided = decided
	s.report(now, src, &view)
}

// report has the hub told of a record, if there is something new. mu is held.
func (s *steerer) report(now time.Time, src *steeredSource, view *health.View) {
	report := s.reportOf(now, src, view, src.decided)
	if !proto.Equal(report, src.report) {
		src.report = report
		s.unreports[src.kind] = true
	}
}

func sortedKeys(names map[ownerKey]*steeredName) []ownerKey {
	keys := make([]ownerKey, 0, len(names))
	for k := range names {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b ownerKey) int { return cmp.Or(a.apex.Compare(b.apex), a.owner.Compare(b.owner)) })
	return keys
}

// give has the view answer.
func (s *steerer) give(now time.Time, key ownerKey, n *steeredName, result *steering.Result) {
	if !s.opts.View.SetSteered(key.apex, key.owner, result.Steered) {
		return // the zone has changed again: there is a call on its way
	}
	s.tell(now, key, n, result.Steered.State())
	if n.result == nil {
		n.ledger.Begin(now, n.memory, time.Duration(n.record.TTL)*time.Second)
	}
	n.ledger.Replace(now, result)
	if n.result == nil || !n.memory.Equal(result.Memory) {
		n.changed = now
	}
	if n.result == nil || !n.memory.Same(result.Memory) {
		if body, err := json.Marshal(result.Memory); err == nil {
			s.unsaved[memoryKey(key)] = body
		}
	}
	n.result, n.memory = result, result.Memory
}

func memoryKey(k ownerKey) string { return memoryState + k.apex.String() + "/" + k.owner.String() }

// recall returns what was decided about a name before the last restart.
func (s *steerer) recall(key ownerKey) steering.Memory {
	var m steering.Memory
	if body := s.remembered[memoryKey(key)]; body != nil {
		_ = json.Unmarshal(body, &m) // what can't be read is as if it were not there
		delete(s.remembered, memoryKey(key))
	}
	return m
}

// save writes what changed to disk.
func (s *steerer) save() {
	if s.opts.Memory == nil {
		return
	}
	s.mu.Lock()
	entries := s.unsaved
	s.unsaved = map[string][]byte{}
	s.guard(func() {
		for _, e := range s.machine.Unsaved(time.Now()) {
			entries[healthState+string(e.Key)] = e.Value
		}
	})
	s.local.save(entries)
	s.flatten.save(entries)
	s.mu.Unlock()
	if len(entries) == 0 {
		return
	}
	if err := s.opts.Memory.SaveState(entries); err != nil {
		s.opts.Log.Error(err, "saving what was decided")
		s.mu.Lock()
		for key, value := range entries {
			if _, newer := s.unsaved[key]; !newer {
				s.unsaved[key] = value
			}
		}
		s.mu.Unlock()
	}
}

// idleAfter is how long nobody must have asked for a name until its probes go to their idle interval.
const idleAfter = 5 * time.Minute

// idle tells the scheduler which checks are of names that nobody asks for.
func (s *steerer) idle() {
	s.mu.Lock()
	now := time.Now()
	asked, all := map[health.CheckID]bool{}, map[health.CheckID]bool{}
	for _, src := range s.sources {
		if !slices.ContainsFunc(src.spec.GetProbes(), func(p *steeringpb.Probe) bool { return p.GetIdleInterval() > 0 }) {
			continue
		}
		recent := false
		for _, n := range src.names {
			recent = recent || n.result == nil || now.Unix()-n.result.Steered.Asked() < int64(idleAfter/time.Second)
		}
		for _, id := range s.machine.Checks(src.source) {
			all[id] = true
			asked[id] = asked[id] || recent
		}
	}
	s.mu.Unlock()
	for id := range all {
		s.scheduler.SetIdle(!asked[id], id)
	}
}

// Records are reported in so many kinds of reports at first, so that one change repeats little; and in twice as many, up to
// mostReportParts, whenever a report would become too large.
const (
	reportParts     = 32
	mostReportParts = 1024
)

// reportKind is the kind of the report that has a record, if there are so many, a power of 2.
func reportKind(source string, parts int) string {
	h := sha256.Sum256([]byte(source))
	return fmt.Sprintf("steering-%d-%03x", parts, int(binary.BigEndian.Uint16(h[:]))%parts)
}

// divide has records reported in twice as many kinds. The hub drops those of another division when it meets the first of the
// new one. mu is held.
func (s *steerer) divide() {
	s.parts *= 2
	for kind := range s.kinds {
		s.opts.Unreport(kind)
	}
	clear(s.kinds)
	clear(s.unreports)
	for _, src := range s.sources {
		src.kind = reportKind(src.source, s.parts)
		if s.kinds[src.kind] == nil {
			s.kinds[src.kind] = map[string]*steeredSource{}
		}
		s.kinds[src.kind][src.source] = src
		s.unreports[src.kind] = true
	}
}

// reportsEvery is how often the hub is told, at most: what changes soon after waits, for a report has many records.
const reportsEvery = 500 * time.Millisecond

// reportsDue is when there is something to tell; zero: there is nothing. mu is held.
func (s *steerer) reportsDue() time.Time {
	if len(s.unreports)+len(s.shown) == 0 {
		return time.Time{}
	}
	return s.reported.Add(reportsEvery)
}

// reports makes the reports that have changed, by kind, when they are due. mu is held.
func (s *steerer) reports(now time.Time) map[string]proto.Message {
	reports := map[string]proto.Message{}
	vantage := s.machine.Vantage()
	v := &steeringpb.VantageReport{Isolated: vantage.Isolated, Sick: vantage.Sick, Unreachable: vantage.Unreachable, Local: s.local.messages(), Told: s.toldInForce(now)}
	if body, err := marshal.Marshal(v); err == nil && (s.vantage == nil || string(body) != *s.vantage) {
		text := string(body)
		s.vantage = &text
		reports["vantage"] = v
	}
	if due := s.reportsDue(); due.IsZero() || due.After(now) {
		return reports
	}
	s.reported = now
	for source := range s.shown {
		if src := s.sources[source]; src != nil && src.decided != nil {
			if view, known := s.machine.View(now, source); known {
				s.report(now, src, &view)
			}
		}
	}
	clear(s.shown)
	for !s.makeReports(reports) {
		s.divide()
	}
	clear(s.unreports)
	return reports
}

// makeReports makes the reports of the kinds that are to be told again. It reports whether none is too large, or that can't be
// helped. mu is held.
func (s *steerer) makeReports(reports map[string]proto.Message) bool {
	made := map[string]proto.Message{}
	for kind := range s.unreports {
		all := make([]*steeringpb.RecordReport, 0, len(s.kinds[kind]))
		size := 0
		for _, src := range s.kinds[kind] {
			if src.report != nil {
				all = append(all, src.report)
				size += proto.Size(src.report) + 8
			}
		}
		if size > control.MaxReport && s.parts < mostReportParts {
			return false
		}
		slices.SortFunc(all, func(a, b *steeringpb.RecordReport) int { return cmp.Compare(a.GetSource(), b.GetSource()) })
		made[kind] = &steeringpb.Report{Records: all}
	}
	maps.Copy(reports, made)
	return true
}

// Bounds of the hub's overrides in a report, beside those that were made at servers.
const (
	mostTold     = 256
	mostToldSize = 192 << 10
)

// toldInForce are the hub's overrides that have not ended, for a hub that does not know them.
func (s *steerer) toldInForce(now time.Time) []*steeringpb.Override {
	var all []*steeringpb.Override
	size := 0
	for _, o := range s.told.GetOverrides() {
		if o.GetExpires() <= uint64(now.UnixMilli()) {
			continue
		}
		if size += proto.Size(o); size > mostToldSize || len(all) == mostTold {
			break
		}
		all = append(all, o)
	}
	return all
}

var marshal = proto.MarshalOptions{Deterministic: true}

// reportOf is what the hub is told of a record.
func (s *steerer) reportOf(now time.Time, src *steeredSource, view *health.View, r *steering.Result) *steeringpb.RecordReport {
	report := &steeringpb.RecordReport{Source: src.source, Override: r.Summary.Override, Disagreement: view.Disagreement}
	for _, p := range view.Pools {
		for _, t := range p.Targets {
			target := &steeringpb.TargetReport{
				State: targetReports[t.State], Up: uint32(t.Up), Electorate: uint32(t.Electorate), Dissenting: t.Dissenting, Held: t.Held,
			}
			if t.State != health.Up { // a failure that changed nothing is no news
				target.Failure = t.Failure
			}
			if !t.Since.IsZero() {
				target.Since = uint64(t.Since.UnixMilli())
			}
			report.Targets = append(report.Targets, target)
		}
	}
	for _, c := range r.Summary.Clients {
		if c.Rule < 0 && c.Location == s.opts.Self.Datacenter || len(r.Summary.Clients) == 1 || c.Rule < 0 && report.Pools == nil && c.Location == "" {
			report.Pools, report.State, report.Awaiting = c.Pools, reportStates[c.Why], c.Awaiting
			if c.Location == s.opts.Self.Datacenter {
				break
			}
		}
	}
	for _, e := range r.Effects {
		report.Effects = append(report.Effects, &steeringpb.RecordReport_Effect{Source: e.Source, Acts: e.Acts, Text: e.Text})
	}
	for _, n := range src.names {
		report.Settled = max(report.Settled, unixMilli(n.ledger.Settled(now)))
		report.Changed = max(report.Changed, unixMilli(n.changed))
	}
	return report
}

func unixMilli(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMilli())
}

var targetReports = [...]steeringpb.TargetReport_State{
	health.Unknown: steeringpb.TargetReport_UNKNOWN, health.Up: steeringpb.TargetReport_UP,
	health.Degraded: steeringpb.TargetReport_DEGRADED, health.Down: steeringpb.TargetReport_DOWN,
}

var reportStates = [...]steeringpb.RecordReport_State{
	steering.Preferred: steeringpb.RecordReport_PREFERRED, steering.FailedOver: steeringpb.RecordReport_FAILED_OVER,
	steering.AllDown: steeringpb.RecordReport_ALL_DOWN, steering.Held: steeringpb.RecordReport_HELD,
	steering.Awaiting: steeringpb.RecordReport_AWAITING, steering.Overridden: steeringpb.RecordReport_OVERRIDDEN,
	steering.NotReady: steeringpb.RecordReport_NOT_READY,
}
