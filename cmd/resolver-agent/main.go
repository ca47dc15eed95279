// Command resolver-agent runs a recursive server: it writes its configuration, watches it by real queries and has it
// forget names whose answers have changed.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
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

What the server does is in a file, in words that all products share (docs/resolvers.md). The file is read again when it
changes and on SIGHUP. A configuration that the server refuses, or with which it does not resolve what it could before, is
taken back: the server goes on as it was, and the log says why.

/readyz of --http-listen is good while the server answers a name of its own; /metrics is for Prometheus, /status for
people. POST /v1/flush of --flush-listen takes names whose answers have changed.

SIGTERM and SIGINT make the agent unready; --drain later it ends the server, and itself.`

	examples = `  resolver-agent --engine Unbound --config pool.yaml --dir /run/resolver

  # the same, with a check of the whole hierarchy, and flushes by those who have a certificate of ours
  resolver-agent --engine KnotResolver --config pool.yaml --dir /run/resolver --recursion-check pay.corp \
    --flush-listen 192.0.2.53:8054 --flush-tls-dir /etc/fingerpost/tls`
)

func command() *cobra.Command {
	var (
		product, config, dir, httpListen, flushListen, flushTLS, check, logFormat string
		drain                                                                     time.Duration
	)
	c := &cobra.Command{
		Use:               "resolver-agent --engine NAME --config FILE",
		Short:             "Agent of a recursive DNS server",
		Long:              summary,
		Example:           examples,
		Version:           version,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := resolver.Options{Drain: drain, EngineLog: os.Stderr}
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
			if check != "" {
				if o.RecursionCheck, err = zone.ParseName(check, ""); err != nil {
					return fmt.Errorf("--recursion-check: %w", err)
				}
			}
			file := &watched{path: config}
			o.Config = file.read
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			o.Changed = file.changes(ctx)
			return run(cmd.Context(), o, httpListen, flushListen, flushTLS)
		},
	}
	c.SetVersionTemplate("resolver-agent {{.Version}}\n")
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&product, "engine", "", "Unbound, KnotResolver or Recursor (required)")
	f.StringVar(&config, "config", "", "`FILE` that says what the server does, YAML or JSON (required)")
	f.StringVar(&dir, "dir", "/run/fingerpost-resolver", "`folder` of the server's files, sockets and cache")
	f.StringVar(&check, "recursion-check", "", "`zone` at the end of the hierarchy, below which names that nobody has are asked for (default: none)")
	f.DurationVar(&drain, "drain", 5*time.Second, "how long to answer on, unready, before the end")
	f.StringVar(&httpListen, "http-listen", "127.0.0.1:8056", "`ADDR:PORT` of /healthz, /readyz, /metrics and /status; empty for none")
	f.StringVar(&flushListen, "flush-listen", "", "`ADDR:PORT` of POST /v1/flush (default: none)")
	f.StringVar(&flushTLS, "flush-tls-dir", "", "`folder` with tls.crt, tls.key and ca.crt: clients of --flush-listen need a certificate of that authority. Without it the address has to be of loopback")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	for _, required := range []string{"engine", "config"} {
		if err := c.MarkFlagRequired(required); err != nil {
			panic(err)
		}
	}
	return c
}

// run runs the agent with its HTTP sides.
func run(ctx context.Context, o resolver.Options, httpListen, flushListen, flushTLS string) error {
	agent := resolver.New(o)
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var sides sync.WaitGroup
	defer sides.Wait()
	defer cancel()
	for _, side := range []struct {
		at     string
		listen func(string) (net.Listener, error)
		serve  func(context.Context, net.Listener) error
	}{
		{httpListen, func(at string) (net.Listener, error) { return net.Listen("tcp", at) }, func(ctx context.Context, l net.Listener) error { return resolver.Serve(ctx, l, agent.Handler()) }},
		{flushListen, func(at string) (net.Listener, error) { return listenFlush(at, flushTLS) }, func(ctx context.Context, l net.Listener) error {
			return resolver.Serve(ctx, l, agent.FlushHandler())
		}},
	} {
		if side.at == "" {
			continue
		}
		l, err := side.listen(side.at)
		if err != nil {
			return err
		}
		sides.Go(func() {
			if err := side.serve(serving, l); err != nil {
				o.Log.Error(err, "HTTP")
			}
		})
	}
	return agent.Run(ctx)
}

// listenFlush listens with the certificate in folder, and asks clients for one; without a folder on loopback alone. The
// files are read again for every connection: they are renewed.
func listenFlush(at, folder string) (net.Listener, error) {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, err
	}
	if folder == "" {
		if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			l.Close()
			return nil, fmt.Errorf("--flush-listen %s is not of loopback: it needs --flush-tls-dir, or anybody could empty the cache", at)
		}
		return l, nil
	}
	load := func() (*tls.Config, error) {
		certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
		if err != nil {
			return nil, err
		}
		ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			return nil, errors.New("ca.crt has no certificates")
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}, nil
	}
	if _, err := load(); err != nil {
		l.Close()
		return nil, fmt.Errorf("--flush-tls-dir: %w", err)
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return load() },
	}), nil
}

// watched is a file that is read again when it changes, also if it is a link that is turned to another one.
type watched struct {
	path string
	mu   sync.Mutex
	last []byte // as it was read last
}

// lookEvery is how often the file is looked at.
const lookEvery = time.Second

func (w *watched) read() (*engine.Config, error) {
	text, err := os.ReadFile(w.path)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.last = text
	w.mu.Unlock()
	c := &engine.Config{}
	if err := yaml.UnmarshalStrict(text, c); err != nil {
		return nil, fmt.Errorf("%s: %w", w.path, err)
	}
	return c, nil
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
				same := err != nil || bytes.Equal(text, w.last)
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
