//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/fingerpost-dns/fingerpost/hack/estate"
)

// backendArgument, with ADDRESS:PORT behind it, makes this program one of the backends that the steered names lead to.
const backendArgument = "backend"

// serveBackend is a web server: healthy while it runs.
func serveBackend(ctx context.Context, listen string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "this is", listen) })
	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // what is in flight ends with it
	return server.ListenAndServe()
}

const backendPort = 8000

// backendAddresses are where the backends of each datacenter listen. They are in its networks, as the clients are.
var backendAddresses = map[string][]netip.Addr{
	"dc-a": {netip.AddrFrom4([4]byte{127, 11, 1, 1}), netip.AddrFrom4([4]byte{127, 11, 1, 2})},
	"dc-b": {netip.AddrFrom4([4]byte{127, 21, 1, 1}), netip.AddrFrom4([4]byte{127, 21, 1, 2})},
}

// startBackends starts all of them, those of dc-a first.
func (s *story) startBackends() {
	self, err := os.Executable()
	s.must(err)
	for _, dc := range []string{"dc-a", "dc-b"} {
		for i, addr := range backendAddresses[dc] {
			p := &estate.Program{
				Name: fmt.Sprintf("backend-%s-%d", dc, i+1), Path: self, Addr: addr, Env: os.Environ(),
				Args: []string{backendArgument, netip.AddrPortFrom(addr, backendPort).String()},
			}
			s.Others = append(s.Others, p)
			s.must(s.Start(p))
		}
	}
}

// backends are those of one datacenter.
func (s *story) backends(datacenter string) (all []*estate.Program) {
	for _, p := range s.Others {
		if strings.HasPrefix(p.Name, "backend-"+datacenter+"-") {
			all = append(all, p)
		}
	}
	return all
}
