package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// endpoint is the HTTP side: /healthz and /livez, /readyz, /servingz, /metrics and /top.
type endpoint struct {
	listener net.Listener
	server   *http.Server
}

// checkTimeout bounds one answer to /readyz and its like.
const checkTimeout = 2 * time.Second

// listenHTTP binds address. top may be nil.
func listenHTTP(address string, state *checks, metrics prometheus.Gatherer, top *topNames) (*endpoint, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s for HTTP: %w", address, cause(err))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	for path, check := range map[string]struct {
		does string
		ask  func(context.Context) error
	}{"/readyz": {"ready", state.ready}, "/servingz": {"serving", state.serving}, "/livez": {"live", state.live}} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
			defer cancel()
			if err := check.ask(ctx); err != nil {
				http.Error(w, "not "+check.does+": "+err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		})
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	if top != nil {
		mux.Handle("GET /top", top)
	}
	return &endpoint{l, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}}, nil
}

// serve answers until ctx ends.
func (e *endpoint) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = e.server.Close() })
	defer stop()
	if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving HTTP on %s: %w", e.listener.Addr(), err)
	}
	return nil
}
