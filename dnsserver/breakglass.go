package dnsserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering"
	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

const (
	// localPrefix begins the sources of overrides that were made at a server.
	localPrefix = "local/"
	// longestLocal is how long such an override may last: who needs more has had the time to mend the control plane.
	longestLocal = 24 * time.Hour
	// forgetLocal is how long ones that must have ended are told to peers: the clocks of some may be behind.
	forgetLocal = time.Hour
	// Bounds of their number, and of their size together: all go in one message to peers, and in one report to the hub.
	maxLocal     = 256
	maxLocalSize = 512 << 10
)

// errFull refuses an override for want of room.
var errFull = fmt.Errorf("there are %d overrides, or %d octets of them, already: an ended one counts for %s", maxLocal, maxLocalSize, longestLocal)

// localOverrides are break-glass overrides: made at any server, told to all peers, kept over restarts. Of one source the
// one made last counts; one that is ended early is made again with its end.
type localOverrides struct {
	bySource map[string]*steeringpb.Override
	size     int // of all in bySource, encoded
	read     []*steering.Override
	unsaved  map[string]bool
}

func (l *localOverrides) load(now time.Time, state map[string][]byte) {
	for key, body := range state {
		o := &steeringpb.Override{}
		if _, is := cutPrefix(key, overrideState); is && proto.Unmarshal(body, o) == nil {
			_ = l.merge(now, o) // one that is refused is no loss: it was not in force
		}
	}
	l.unsaved = nil
}

// newer reports whether o goes before what is known of its source.
func (l *localOverrides) newer(o *steeringpb.Override) bool {
	known := l.bySource[o.GetSource()]
	return known == nil || o.GetCreated() > known.GetCreated() || o.GetCreated() == known.GetCreated() && o.GetExpires() < known.GetExpires()
}

// merge takes an override that is newer than what is known of its source. Whatever a peer's clock shows, it ends within
// twice longestLocal.
func (l *localOverrides) merge(now time.Time, o *steeringpb.Override) error {
	size := proto.Size(o)
	known := l.bySource[o.GetSource()]
	if known != nil {
		size -= proto.Size(known)
	}
	switch {
	case !strings.HasPrefix(o.GetSource(), localPrefix) || len(o.GetSource()) > 80:
		return fmt.Errorf("source %q is not local/NAME", o.GetSource())
	case o.GetCreated() > uint64(now.Add(longestLocal).UnixMilli()) || o.GetExpires() > o.GetCreated()+uint64(longestLocal/time.Millisecond):
		return fmt.Errorf("an override made at a server lasts %s at most", longestLocal)
	case known == nil && len(l.bySource) >= maxLocal, l.size+size > maxLocalSize:
		return errFull
	}
	if _, err := steering.NewOverride(o); err != nil {
		return err
	}
	if l.bySource == nil {
		l.bySource = map[string]*steeringpb.Override{}
	}
	l.bySource[o.GetSource()] = o
	l.size += size
	l.changed(o.GetSource())
	return nil
}

func (l *localOverrides) changed(source string) {
	if l.unsaved == nil {
		l.unsaved = map[string]bool{}
	}
	l.unsaved[source] = true
	l.read = nil
	for _, o := range l.messages() {
		if read, err := steering.NewOverride(o); err == nil {
			l.read = append(l.read, read)
		}
	}
}

// forget drops those that must have ended long ago. One that was ended early is kept as long as a peer, which did not hear of
// that, may have it in force: then it would bring it back.
func (l *localOverrides) forget(now time.Time) {
	for source, o := range l.bySource {
		if now.After(time.UnixMilli(int64(o.GetCreated())).Add(longestLocal + forgetLocal)) {
			delete(l.bySource, source)
			l.size -= proto.Size(o)
			l.changed(source)
		}
	}
}

func (l *localOverrides) all() []*steering.Override { return l.read }

// messages are all of them, by source.
func (l *localOverrides) messages() []*steeringpb.Override {
	all := make([]*steeringpb.Override, 0, len(l.bySource))
	for _, o := range l.bySource {
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b *steeringpb.Override) int { return cmp.Compare(a.GetSource(), b.GetSource()) })
	return all
}

func (l *localOverrides) encoded() [][]byte {
	var all [][]byte
	for _, o := range l.messages() {
		if body, err := marshal.Marshal(o); err == nil {
			all = append(all, body)
		}
	}
	return all
}

// save adds what changed to entries for the disk.
func (l *localOverrides) save(entries map[string][]byte) {
	for source := range l.unsaved {
		var body []byte
		if o := l.bySource[source]; o != nil {
			body, _ = marshal.Marshal(o) // it came out of Unmarshal, or went through NewOverride
		}
		entries[overrideState+source] = body
	}
	l.unsaved = nil
}

// override makes a break-glass override, and has the peers told.
func (s *steerer) override(o *steeringpb.Override) error {
	now := time.Now()
	o.Created = uint64(now.UnixMilli())
	s.mu.Lock()
	if known := s.local.bySource[o.GetSource()]; known.GetCreated() >= o.Created {
		o.Created = known.GetCreated() + 1 // whoever made it has a clock that is ahead
	}
	if err := s.local.merge(now, o); err != nil {
		s.mu.Unlock()
		return err
	}
	s.allDirty()
	all := s.local.encoded()
	s.mu.Unlock()
	s.poke()
	s.opts.SendOverrides(all)
	s.save() // last: a disk may take long
	return nil
}

// hearOverrides takes the break-glass overrides of a peer; what is new is told on.
func (s *steerer) hearOverrides(bodies [][]byte) {
	news, now := false, time.Now()
	s.mu.Lock()
	for _, body := range bodies {
		o := &steeringpb.Override{}
		if proto.Unmarshal(body, o) == nil && s.local.newer(o) && s.local.merge(now, o) == nil {
			news = true
		}
	}
	if news {
		s.allDirty()
	}
	all := s.local.encoded()
	s.mu.Unlock()
	if news {
		s.poke()
		s.opts.SendOverrides(all)
	}
}

// ControlRecord is what the control tells of a steered name.
type ControlRecord struct {
	Source   string   `json:"source"`
	Name     string   `json:"name"`
	State    string   `json:"state"`
	Pools    []string `json:"pools"`
	Override string   `json:"override,omitempty"`
	Healthy  string   `json:"healthy"`
}

// serveControl answers on a unix socket in the state directory that only the server's own user can open, until ctx ends. It
// works without any hub: it is for the day when there is none.
func (s *steerer) serveControl(ctx context.Context, stateDir string) error {
	l, err := listenControl(stateDir)
	if err != nil {
		return err
	}
	defer os.Remove(ControlPath(stateDir)) // if it stays, the next process removes it
	return s.serveControlOn(ctx, l)
}

func (s *steerer) serveControlOn(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /overrides", s.listOverrides)
	mux.HandleFunc("POST /overrides", s.makeOverride)
	mux.HandleFunc("GET /records", s.listRecords)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving control: %w", err)
	}
	return nil
}

// concerned refuses an override that would do nothing here: at three in the morning a typing error must not look like a drain.
func (s *steerer) concerned(o *steeringpb.Override) error {
	if o.GetExpires() <= uint64(time.Now().UnixMilli()) {
		return nil // the end of one
	}
	var place interface {
		GetDatacenter() string
		GetPool() string
		GetTarget() string
	}
	switch a := o.GetAction().(type) {
	case *steeringpb.Override_Drain:
		place = a.Drain
	case *steeringpb.Override_Force:
		place = a.Force
	}
	has := func(r *steeringpb.Record) bool {
		return place == nil || slices.ContainsFunc(r.GetPools(), func(p *steeringpb.Pool) bool {
			return (place.GetDatacenter() == "" || place.GetDatacenter() == p.GetDatacenter()) && (place.GetPool() == "" || place.GetPool() == p.GetName()) &&
				(place.GetTarget() == "" || slices.ContainsFunc(p.GetTargets(), func(t *steeringpb.Target) bool { return t.GetAddress() == place.GetTarget() }))
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known, some := map[string]bool{}, false
	for _, src := range s.sources {
		known[src.source] = true
		if o.GetAllRecords() || slices.Contains(o.GetRecords(), src.source) {
			some = some || has(src.spec)
		}
	}
	for _, name := range o.GetRecords() {
		if !known[name] {
			return fmt.Errorf("this server answers no DynamicRecord %q (write NAMESPACE/NAME)", name)
		}
	}
	if !some {
		return errors.New("no DynamicRecord that this server answers has such a datacenter, pool or target")
	}
	return nil
}

// stateNames are what the status of DynamicRecords calls the states.
var stateNames = map[steeringpb.RecordReport_State]string{
	steeringpb.RecordReport_PREFERRED: "Preferred", steeringpb.RecordReport_FAILED_OVER: "FailedOver", steeringpb.RecordReport_ALL_DOWN: "AllDown",
	steeringpb.RecordReport_HELD: "Held", steeringpb.RecordReport_AWAITING: "AwaitingApproval", steeringpb.RecordReport_OVERRIDDEN: "Overridden",
	steeringpb.RecordReport_NOT_READY: "NotReady",
}

func (s *steerer) listOverrides(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	all := &steeringpb.Overrides{Overrides: s.local.messages()}
	s.mu.Unlock()
	body, err := protojson.Marshal(all)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(body) // who has gone needs no answer
}

func (s *steerer) makeOverride(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLocalSize))
	o := &steeringpb.Override{}
	if err == nil {
		err = protojson.Unmarshal(body, o)
	}
	if err == nil {
		err = s.concerned(o)
	}
	if err == nil {
		err = s.override(o)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *steerer) listRecords(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	var all []ControlRecord
	for _, src := range s.sources {
		if src.report == nil {
			continue
		}
		up := 0
		for _, t := range src.report.GetTargets() {
			if t.GetState() == steeringpb.TargetReport_UP {
				up++
			}
		}
		all = append(all, ControlRecord{
			Source: src.source, Name: src.spec.GetHost(), State: stateNames[src.report.GetState()], Pools: src.report.GetPools(),
			Override: src.report.GetOverride(), Healthy: fmt.Sprintf("%d/%d", up, len(src.report.GetTargets())),
		})
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b ControlRecord) int { return cmp.Compare(a.Source, b.Source) })
	_ = json.NewEncoder(w).Encode(all) // who has gone needs no answer
}
