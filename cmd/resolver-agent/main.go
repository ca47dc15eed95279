// Command resolver-agent runs a recursive server: it writes its configuration, watches it by real queries and has it
// forget names whose answers have changed.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/resolver"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
)

// version is stamped by the build.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "resolver-agent: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

const (
	summary = `Runs a recursive server (Unbound, Knot Resolver 5 or PowerDNS Recursor), whose program is in PATH.

What the server does is said in words that all products share (docs/resolvers.md): in a file, which is read again when it
changes and on SIGHUP, or by the managers of --hub, whose last word is kept in --dir for starts without them. A configuration
that the server refuses, or with which it does not resolve what it could before, is taken back: the server goes on as it was,
and the log, /status and the managers are told why.

Authoritative servers that the configuration names tell whose answers have changed: these names the server is made to forget.

/readyz of --http-listen is good while the server answers a name of its own; /metrics is for Prometheus, /status for
people. POST /v1/flush of --flush-listen takes names whose answers have changed from people.

SIGTERM and SIGINT make the agent unready; --drain later it ends the server, and itself.`

	examples = `  resolver-agent --engine Unbound --config pool.yaml --dir /run/resolver

  # what the server does is said by managers, and changes of names by servers; 53 is the port
  resolver-agent --engine KnotResolver --hub hub-a.example.net:9443 --hub hub-b.example.net:9443 --tls-dir /etc/fingerpost/tls \
    --dir /var/lib/fingerpost-resolver --listen 192.0.2.53,2001:db8::53

  # in a pod: the file is a ConfigMap, and managers are told how it does
  resolver-agent --engine Recursor --config /etc/pool/pool.yaml --hub hub:9443 --tls-dir /etc/fingerpost/tls --listen "$(POD_IPS)"`
)

// sides are the programs and people that an agent talks to beside its engine. Without hubs and credentials there are none.
type sides struct {
	config, httpListen, flushListen string
	port                            uint16
	listen                          []string
	tlsDir                          string
	hub                             resolver.HubOptions
}

func command() *cobra.Command {
	var (
		product, dir, logFormat string
		drain, spread           time.Duration
		s                       sides
	)
	c := &cobra.Command{
		Use:               "resolver-agent --engine NAME {--config FILE | --hub HOST:PORT...}",
		Short:             "Agent of a recursive DNS server",
		Long:              summary,
		Example:           examples,
		Version:           version,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := resolver.Options{Drain: drain, Spread: spread, Name: s.hub.Name, Version: version, EngineLog: os.Stderr}
			var err error
			switch logFormat {
			case "text":
				o.Log = logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil))
			case "json":
				o.Log = logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil))
			default:
				return fmt.Errorf("--log-format: %q is neither text nor json", logFormat)
			}
			if o.Product, err = engine.ParseProduct(product); err != nil {
				return fmt.Errorf("--engine: %w", err)
			}
			if dir, err = filepath.Abs(dir); err != nil {
				return err
			}
			if o.Folder, err = engine.ParsePath(dir); err != nil {
				return fmt.Errorf("--dir: %w", err)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			for _, text := range s.listen {
				at, err := parseListen(text, s.port)
				if err != nil {
					return fmt.Errorf("--listen: %w", err)
				}
				o.Listen = append(o.Listen, at)
			}
			switch {
			case s.config == "" && len(s.hub.Hubs) == 0:
				return errors.New("either --config or --hub has to say what the server does")
			case len(s.hub.Hubs) > 0 && s.tlsDir == "":
				return errors.New("--hub needs --tls-dir")
			}
			return s.run(cmd.Context(), o)
		},
	}
	c.SetVersionTemplate("resolver-agent {{.Version}}\n")
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&product, "engine", "", "Unbound, KnotResolver or Recursor (required)")
	f.StringVar(&s.config, "config", "", "`FILE` that says what the server does, YAML or JSON (default: the managers of --hub say it)")
	f.StringVar(&dir, "dir", "/run/fingerpost-resolver", "`folder` of the server's files, sockets and cache, and of what managers have said")
	f.StringSliceVar(&s.listen, "listen", nil, "`ADDR[:PORT]` where clients ask if the configuration does not say, [ADDR]:PORT for IPv6; repeatable, or with commas between")
	f.Uint16Var(&s.port, "port", 53, "`PORT` of those --listen that have none")
	f.StringArrayVar(&s.hub.Hubs, "hub", nil, "`HOST:PORT` of a manager, in order of preference; repeatable")
	f.StringVar(&s.tlsDir, "tls-dir", "", "`folder` with tls.crt, tls.key and ca.crt of this agent, read again when they change. Without it no changes of names are heard")
	f.StringVar(&s.hub.Name, "name", hostname(), "`name` of this agent, unique in its pool")
	f.DurationVar(&drain, "drain", 5*time.Second, "how long to answer on, unready, before the end")
	f.DurationVar(&spread, "restart-spread", time.Minute, "within which the name says when an engine that answers is restarted, if a configuration empties its cache")
	f.StringVar(&s.httpListen, "http-listen", "127.0.0.1:8056", "`ADDR:PORT` of /healthz, /readyz, /metrics and /status; empty for none")
	f.StringVar(&s.flushListen, "flush-listen", "", "`ADDR:PORT` of POST /v1/flush (default: none). On other addresses than loopback it needs --tls-dir, and clients a certificate of that authority")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	if err := c.MarkFlagRequired("engine"); err != nil {
		panic(err)
	}
	return c
}

// hostname is this machine's, up to the first dot.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(name, ".")
	return name
}

// parseListen reads ADDR[:PORT].
func parseListen(text string, port uint16) (netip.AddrPort, error) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at, nil
	}
	at, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return netip.AddrPortFrom(at, port), err
}

// run runs the agent with all its sides.
func (s *sides) run(ctx context.Context, o resolver.Options) error {
	group, ctx := errgroup.WithContext(ctx)
	// What serves people and managers ends after the engine.
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var files *control.Files
	if s.tlsDir != "" {
		var err error
		if files, err = control.NewFiles(filepath.Join(s.tlsDir, "tls.crt"), filepath.Join(s.tlsDir, "tls.key"), filepath.Join(s.tlsDir, "ca.crt")); err != nil {
			return fmt.Errorf("--tls-dir: %w", err)
		}
		o.Watch.Credentials, o.Watch.Name = files.Credentials(), s.hub.Name
		group.Go(func() error { files.Watch(serving, o.Log); return nil })
	}
	agent := resolver.New(o)
	for _, side := range []struct {
		at      string
		secure  bool
		handler http.Handler
	}{{s.httpListen, false, agent.Handler()}, {s.flushListen, true, agent.FlushHandler()}} {
		if side.at == "" {
			continue
		}
		l, err := net.Listen("tcp", side.at)
		if err == nil && side.secure {
			l, err = secure(l, files)
		}
		if err != nil {
			return err
		}
		group.Go(func() error { return resolver.Serve(serving, l, side.handler) })
	}
	if s.config != "" {
		file := &watched{path: s.config}
		// Without managers nobody but who has started the agent hears what is wrong.
		group.Go(func() error { return file.follow(ctx, agent, len(s.hub.Hubs) > 0) })
	}
	if len(s.hub.Hubs) > 0 {
		s.hub.Credentials, s.hub.Configured = files.Credentials(), s.config != ""
		group.Go(func() error { return agent.Join(serving, s.hub) })
	}
	group.Go(func() error {
		agent.Run(ctx)
		cancel()
		return nil
	})
	return group.Wait()
}

// secure is a listener whose clients need a certificate; on loopback anybody may be one if there are no files.
func secure(l net.Listener, files *control.Files) (net.Listener, error) {
	if files != nil {
		return tls.NewListener(l, control.ServerTLS(files.Credentials())), nil
	}
	if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		l.Close()
		return nil, fmt.Errorf("--flush-listen %s is not of loopback: it needs --tls-dir, or anybody could empty the cache", l.Addr())
	}
	return l, nil
}

// watched is a file that is read again when it changes, also if it is a link that is turned to another one.
type watched struct {
	path string
	mu   sync.Mutex
	last []byte // as it was read last; nil: it could not be
}

const (
	lookEvery    = time.Second     // between looks at the file
	firstRetry   = 5 * time.Second // until a configuration that was refused is tried again
	longestRetry = time.Minute     // what this grows to
)

// follow has the agent do what the file says until ctx ends. The first must be good, unless patient. What is refused is tried
// again after growing pauses, as what it lacks may come: but for a text that is none.
func (w *watched) follow(ctx context.Context, agent *resolver.Agent, patient bool) error {
	changed := w.changes(ctx)
	pause := firstRetry
	for first := true; ctx.Err() == nil; {
		text, err := os.ReadFile(w.path)
		w.mu.Lock()
		w.last = text
		w.mu.Unlock()
		done := make(chan error, 1)
		if err != nil {
			agent.Refuse(err)
			done <- err
		} else {
			go func() { done <- agent.Configure(ctx, text) }()
		}
		var again <-chan time.Time
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				waits = false
			case <-changed:
				waits, pause = false, firstRetry
			case <-again:
				waits = false
			case err := <-done:
				if err != nil && first && !patient && ctx.Err() == nil {
					return fmt.Errorf("%s: %w", w.path, err)
				}
				first = false
				if none := (*resolver.TextError)(nil); err != nil && !errors.As(err, &none) {
					// Half and all of the pause, so that a pool's members do not try as one.
					again = time.After(pause/2 + rand.N(pause/2))
					pause = min(2*pause, longestRetry)
				}
			}
		}
	}
	return nil
}

// changes yields an element when the file is another one than the one that was read last, and for SIGHUP, until ctx ends.
func (w *watched) changes(ctx context.Context) <-chan struct{} {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	changed := make(chan struct{})
	go func() {
		defer signal.Stop(hangup)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
			case <-tick.C:
				text, err := os.ReadFile(w.path)
				w.mu.Lock()
				same := err != nil || w.last != nil && bytes.Equal(text, w.last)
				w.mu.Unlock()
				if same {
					continue
				}
			}
			select {
			case <-ctx.Done():
				return
			case changed <- struct{}{}:
			}
		}
	}()
	return changed
}
