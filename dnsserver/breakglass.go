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
	// forgetLocal is how long ended ones are told to peers, so that none comes back.
	forgetLocal = time.Hour
	// maxLocal bounds them.
	maxLocal = 256
)

// localOverrides are break-glass overrides: made at any server, told to all peers, kept over restarts. Of one source the
// one made last counts; one that is ended early is made again with its end.
type localOverrides struct {
	bySource map[string]*steeringpb.Override
	read     []*steering.Override
	unsaved  map[string]bool
}

func (l *localOverrides) load(state map[string][]byte) {
	for key, body := range state {
		o := &steeringpb.Override{}
		if _, is := cutPrefix(key, overrideState); is && proto.Unmarshal(body, o) == nil {
			l.merge(o)
		}
	}
	l.unsaved = nil
}

// merge takes an override if it is newer than what is known of its source, and reports whether it is.
func (l *localOverrides) merge(o *steeringpb.Override) bool {
	known := l.bySource[o.GetSource()]
	if known != nil && (known.GetCreated() > o.GetCreated() || known.GetCreated() == o.GetCreated() && known.GetExpires() <= o.GetExpires()) {
		return false
	}
	if !strings.HasPrefix(o.GetSource(), localPrefix) || known == nil && len(l.bySource) >= maxLocal ||
		o.GetExpires() > o.GetCreated()+uint64(longestLocal/time.Millisecond) {
		return false
	}
	if _, err := steering.NewOverride(o); err != nil {
		return false
	}
	if l.bySource == nil {
		l.bySource = map[string]*steeringpb.Override{}
	}
	l.bySource[o.GetSource()] = o
	l.changed(o.GetSource())
	return true
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

// forget drops those that ended long ago.
func (l *localOverrides) forget(now time.Time) {
	for source, o := range l.bySource {
		if now.After(time.UnixMilli(int64(o.GetExpires())).Add(forgetLocal)) {
			delete(l.bySource, source)
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
	switch {
	case !strings.HasPrefix(o.GetSource(), localPrefix) || len(o.GetSource()) > 80:
		return fmt.Errorf("source %q is not local/NAME", o.GetSource())
	case o.GetExpires() > uint64(now.Add(longestLocal).UnixMilli()):
		return fmt.Errorf("an override made here lasts %s at most", longestLocal)
	}
	o.Created = uint64(now.UnixMilli())
	if _, err := steering.NewOverride(o); err != nil {
		return err
	}
	s.mu.Lock()
	if !s.local.merge(o) {
		s.mu.Unlock()
		return fmt.Errorf("there are %d overrides already, or a newer one of that name", maxLocal)
	}
	s.allDirty()
	all := s.local.encoded()
	s.mu.Unlock()
	s.save()
	s.poke()
	s.opts.SendOverrides(all)
	return nil
}

// hearOverrides takes the break-glass overrides of a peer; what is new is told on.
func (s *steerer) hearOverrides(bodies [][]byte) {
	news := false
	s.mu.Lock()
	for _, body := range bodies {
		o := &steeringpb.Override{}
		if proto.Unmarshal(body, o) == nil && s.local.merge(o) {
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

// ControlSocket is where a server's own control is, under its state directory.
const ControlSocket = "control.sock"

// controlRecord is what the control tells of a steered name.
type controlRecord struct {
	Source   string   `json:"source"`
	Name     string   `json:"name"`
	State    string   `json:"state"`
	Pools    []string `json:"pools"`
	Override string   `json:"override,omitempty"`
	Healthy  string   `json:"healthy"`
}

// serveControl answers on a unix socket that only the server's own user can open, until ctx ends. It works without any
// hub: it is for the day when there is none.
func (s *steerer) serveControl(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an old control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listening for control: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("protecting the control socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /overrides", s.listOverrides)
	mux.HandleFunc("POST /overrides", s.makeOverride)
	mux.HandleFunc("GET /records", s.listRecords)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving control: %w", err)
	}
	return nil
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
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	o := &steeringpb.Override{}
	if err == nil {
		err = protojson.Unmarshal(body, o)
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
	var all []controlRecord
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
		all = append(all, controlRecord{
			Source: src.source, Name: src.spec.GetHost(), State: src.report.GetState().String(), Pools: src.report.GetPools(),
			Override: src.report.GetOverride(), Healthy: fmt.Sprintf("%d/%d", up, len(src.report.GetTargets())),
		})
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b controlRecord) int { return cmp.Compare(a.Source, b.Source) })
	_ = json.NewEncoder(w).Encode(all) // who has gone needs no answer
}
