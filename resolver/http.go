package resolver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// Handler answers /healthz, /readyz, /metrics and /status: for the machine's own monitoring.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.Ready(); err != nil {
			http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, a.describe()) })
	return mux
}

// FlushRequest is the body of POST /v1/flush. Names are in presentation form.
type FlushRequest struct {
	Changes []FlushChange `json:"changes"` // up to MaxChanges
}

// FlushChange is one name whose answers have changed.
type FlushChange struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
}

// FlushReply says what became of each change, in the request's order.
type FlushReply struct {
	Outcomes []Outcome `json:"outcomes"`
}

// Bounds of one request.
const (
	MaxChanges   = 10000
	maxFlushBody = 8 << 20
)

// FlushHandler answers POST /v1/flush, for those who know that names have changed. Whoever may ask can empty the cache: it
// is to be served to them alone.
func (a *Agent) FlushHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/flush", func(w http.ResponseWriter, r *http.Request) {
		all, err := readFlush(http.MaxBytesReader(w, r.Body, maxFlushBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if a.current() == nil {
			http.Error(w, "the engine has not been started yet: its cache is empty", http.StatusServiceUnavailable)
			return
		}
		// The flush goes on if whoever asked has gone.
		outcomes := a.Flush(context.WithoutCancel(r.Context()), all)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(FlushReply{outcomes})
	})
	return mux
}

// readFlush reads a FlushRequest.
func readFlush(body io.Reader) ([]changes.Change, error) {
	var request FlushRequest
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&request); err != nil {
		return nil, err
	}
	if n := len(request.Changes); n == 0 || n > MaxChanges {
		return nil, fmt.Errorf("%d changes: a request has 1 to %d", n, MaxChanges)
	}
	all := make([]changes.Change, len(request.Changes))
	for i, c := range request.Changes {
		var err error
		if all[i].Name, err = zone.ParseName(c.Name, ""); err != nil {
			return nil, err
		}
		for _, text := range c.Aliases {
			alias, err := zone.ParseName(text, "")
			if err != nil {
				return nil, err
			}
			all[i].Aliases = append(all[i].Aliases, alias)
		}
	}
	return all, nil
}

// Serve answers HTTP on a listener until ctx ends.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}
