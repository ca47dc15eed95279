package dnsserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// DefaultPort is DNS.
const DefaultPort = 53

// Config is all that a server is told when it starts. Either Zones or ZoneList, or both, or
// Hub are set.
type Config struct {
	// Options of the sockets. Without Addresses the server answers on all of this machine, on
	// DefaultPort. Run sets View and Certificate, and
	// Identity to the name of a server with a hub if there is none.
	Options Options
	// TLS is the certificate for DNS over TLS and over HTTPS; nil for that towards the hub, which
	// a server that runs alone has not.
	TLS *CertificateConfig
	// HTTPListen is HOST:PORT of health checks and metrics; "" for none.
	HTTPListen string
	// Port is that of the addresses if Options has none; 0 is DefaultPort.
	Port uint16
	// DrainDelay is for how long everything goes on after the end of Run's context, but for being ready: until those who
	// send clients here have followed.
	DrainDelay time.Duration

	Zones    []ZoneFile
	ZoneList string          // path of a file with lines "NAME FILE"
	Reload   <-chan struct{} // each element reads the zone files again; may be nil

	Hub *HubConfig

	// CookieSecretFile has the secrets of cookies, instead of Options.Settings: a line of 32
	// hexadecimal digits for each, the first makes cookies and all are accepted. Reload reads it again.
	CookieSecretFile string

	// Dnstap tells others of queries and replies; nil tells nobody.
	Dnstap *DnstapConfig
	// TopEvery has the names that are asked for most at /top of HTTPListen: one of so many queries is
	// counted, 0 is none.
	TopEvery uint32

	Version string // of the program
}

// Ports of transports where an address has none. HTTPDNS has no port of its own: it is HTTP.
const (
	DefaultDoTPort     = 853
	DefaultDoHPort     = 443
	DefaultHTTPDNSPort = 80
)

// ParseListen reads ADDR or ADDR:PORT, with brackets around an IPv6 address that a port
// follows. The port is the given one if there is none.
func ParseListen(text string, port uint16) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a.Unmap(), port), nil
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address of this machine, ADDR or ADDR:PORT ([ADDR]:PORT for IPv6)", text)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// ParseNetwork reads an address, which stands for itself alone, or ADDRESS/BITS.
func ParseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network, ADDR or ADDR/BITS", text)
	}
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its prefix; the network is %s", text, p.Masked())
	}
	return p, nil
}

// allAddresses are those of IPv4 and, where the machine has it, of IPv6.
func allAddresses(port uint16) []netip.AddrPort {
	all := []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), port)}
	if probe, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback}); err == nil {
		_ = probe.Close()
		all = append(all, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	}
	return all
}

// ownAddresses are those at which a server is reached that listens on these.
func ownAddresses(listening []netip.AddrPort) []netip.Addr {
	var own []netip.Addr
	all := false
	for _, a := range listening {
		if a.Addr().IsUnspecified() {
			all = true
		} else {
			own = append(own, a.Addr())
		}
	}
	if !all {
		return own
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return own // there are none that are known
	}
	for _, a := range addresses {
		if n, is := a.(*net.IPNet); is {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, ip.Unmap())
			}
		}
	}
	return own
}

// source is where zones come from: files or the hub.
type source interface {
	// start fills the view with what there is at once.
	start() error
	// run keeps the view up to date until ctx ends.
	run(ctx context.Context) error
	// ready says why what is served is not yet what should be, or nil.
	ready() error
	prometheus.Collector
}

// Run serves until ctx has ended DrainDelay ago, and then answers what is under way. Sockets are bound last: a
// server that can't load its zones never takes a query.
func Run(ctx context.Context, cfg Config) error {
	view := &zone.View{}
	var shown *tlsFiles
	if cfg.TLS != nil {
		var err error
		if shown, err = openTLSFiles(*cfg.TLS); err != nil {
			return err
		}
	}
	var secrets *cookieSecrets
	if cfg.CookieSecretFile != "" {
		secrets = &cookieSecrets{path: cfg.CookieSecretFile, again: cfg.Reload, next: make(chan struct{}), log: cfg.Options.Log}
		var err error
		if cfg.Options.CookieSecrets, err = secrets.read(); err != nil {
			return fmt.Errorf("reading the secrets of cookies: %w", err)
		}
		cfg.Reload = secrets.next
	}
	if len(cfg.Options.Addresses) == 0 {
		cfg.Options.Addresses = allAddresses(cmp.Or(cfg.Port, DefaultPort))
	}
	if cfg.Hub != nil {
		hub := *cfg.Hub
		hub.Own = append(slices.Clone(hub.Own), ownAddresses(cfg.Options.Addresses)...)
		cfg.Hub = &hub
	}
	from, err := newSource(cfg, view)
	if err != nil {
		return err
	}
	if err := from.start(); err != nil {
		return err
	}
	parts := []prometheus.Collector{from}
	cfg.Options.View = view
	if shown != nil {
		cfg.Options.Certificate = shown.certificate
		parts = append(parts, shown)
	} else if h, ok := from.(*hubSource); ok {
		cfg.Options.Certificate = h.files.Credentials().Certificate
	}
	log := cfg.Options.Log
	var told *dnstap
	if cfg.Dnstap != nil {
		if told, err = newDnstap(cfg.Dnstap.Target, cfg.Options.Identity, cfg.Version, log); err != nil {
			return fmt.Errorf("telling of queries: %w", err)
		}
		cfg.Options.taps = append(cfg.Options.taps, tap{max(cfg.Dnstap.Every, 1), told})
		parts = append(parts, told)
	}
	var top *topNames
	if cfg.TopEvery > 0 && cfg.HTTPListen != "" {
		top = newTopNames(cfg.TopEvery)
		cfg.Options.taps = append(cfg.Options.taps, tap{cfg.TopEvery, top})
	}
	if cfg.Hub != nil && cfg.Options.Identity == "" {
		cfg.Options.Identity = cfg.Hub.Name
	}
	server, err := Listen(cfg.Options)
	if err != nil {
		return err
	}
	if h, ok := from.(*hubSource); ok {
		h.configure(server)
	}
	asked, stop := drained(ctx, cfg.DrainDelay, func() {
		server.leaving.Store(true)
		log.Info("leaving: not ready any more, answering on", "for", cfg.DrainDelay.String())
	}, func() { server.parting.Store(true) })
	defer stop()
	group, ctx := errgroup.WithContext(asked)
	if cfg.HTTPListen != "" {
		http, err := listenHTTP(cfg.HTTPListen, newChecks(server, view, from), registry(cfg.Version, append(parts, server)...), top)
		if err != nil {
			server.close()
			return err
		}
		log.Info("serving HTTP", "address", http.listener.Addr().String())
		// Health is told until the last query is answered.
		httpCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		group.Go(func() error { return http.serve(httpCtx) })
		group.Go(func() error { defer stop(); return server.Serve(ctx) })
	} else {
		group.Go(func() error { return server.Serve(ctx) })
	}
	if secrets != nil {
		group.Go(func() error { return secrets.run(ctx, server) })
	}
	if told != nil {
		group.Go(func() error { return told.run(ctx) })
	}
	if shown != nil {
		group.Go(func() error { shown.files.Watch(ctx, log); return nil })
	}
	for _, l := range server.listeners.addresses() {
		if l.over != overTCP {
			log.Info("answering over "+l.over.title(), "address", l.address)
		}
	}
	log.Info("answering", "addresses", server.Addresses(), "zones", view.Len(), "version", cfg.Version)
	group.Go(func() error { return from.run(ctx) })
	err = group.Wait()
	log.Info("stopped")
	return err
}

func newSource(cfg Config, view *zone.View) (source, error) {
	alone := len(cfg.Zones) > 0 || cfg.ZoneList != ""
	switch {
	case alone && cfg.Hub != nil:
		return nil, errors.New("zones come from files or from the hub, not from both")
	case cfg.Hub != nil:
		return newHubSource(*cfg.Hub, view, cfg.Version, cfg.Options.Log), nil
	case alone:
		threads := cfg.Options.Workers
		if threads <= 0 {
			threads = runtime.GOMAXPROCS(0)
		}
		return &zoneFiles{fixed: cfg.Zones, list: cfg.ZoneList, view: view, threads: threads, again: cfg.Reload, log: cfg.Options.Log}, nil
	default:
		return nil, errors.New("no zones to serve: neither files nor a hub are given")
	}
}

// registry gathers the metrics of one server.
func registry(version string, parts ...prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "fingerpost", Subsystem: "dnsserver", Name: "build_info",
		Help: "1, with the version of the program.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(parts...)
	return r
}

// farewell is the end of DrainDelay in which clients that were never told to go elsewhere are led there: the server is not
// serving any more, so that kube-proxy forgets which flows went to it, and answers those that come all the same.
const farewell = 6 * time.Second

// drained returns a context that ends delay after ctx. It calls leave at the end of ctx, and part before its own, for
// farewell or half of delay. stop ends it.
func drained(ctx context.Context, delay time.Duration, leave, part func()) (_ context.Context, stop func()) {
	if delay <= 0 {
		return ctx, func() {}
	}
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	last := min(farewell, delay/2)
	stopped := context.AfterFunc(ctx, func() {
		leave()
		timer := time.NewTimer(delay - last)
		defer timer.Stop()
		for _, next := range []func(){func() { part(); timer.Reset(last) }, cancel} {
			select {
			case <-timer.C:
				next()
			case <-later.Done():
				return
			}
		}
	})
	return later, func() { stopped(); cancel() }
}
