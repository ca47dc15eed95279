// Command dnsserver is the authoritative server: it answers DNS for zones from files, or for
// those that a hub pushes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"

	"github.com/fingerpost-dns/fingerpost/dnsserver"
)

// version is stamped by the build.
var version = "devel"

func main() {
	// A busy UDP worker gives its share of Go's parallelism back once in 10 ms. With as many shares
	// again, TCP, the hub and the rest get theirs from the kernel, as any program does.
	cpus := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(2 * cpus)
	if os.Getenv("GOGC") == "" {
		// Nearly all memory is zones, which the garbage collector does not look into: it costs little
		// to run often.
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := command(cpus).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "dnsserver: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

const (
	summary = `Answers DNS with authority, over UDP and TCP, either alone with zones from files or for a hub.

Alone, zones are master files (RFC 1035), named by --zone and --zone-list. All must load, or the server does not
start. SIGHUP reads the list and the files again: a zone whose file is bad stays as it was, and the log says so; a
zone that is listed no more is no longer served.

For a hub, zones are pushed down a stream that the server opens to the hub that leads. What was received is kept in
--state-dir, from which the server starts when no hub answers. A server that has nothing copies from a sibling of its
group. tls.crt, tls.key and ca.crt in --tls-dir, written by "manager certs export", say of which datacenter and group
the server is; they are read again when they change.

Besides UDP and TCP, clients may ask over TLS (--dot), HTTPS (--doh) and as JSON over HTTP (--httpdns). A server with a
hub is told the transports of its group by the hub.

SIGTERM and SIGINT end the server when what was asked is answered; with --drain-delay so much later, so that those who
send clients to it can follow. A second one ends it at once. It logs to stderr, never a line for each query.`

	examples = `  # a zone from a file, for this machine alone
  dnsserver --zone example.test=example.test.zone --listen 127.0.0.1:5353

  # many zones, on two addresses; lines of the list are "NAME FILE", files are relative to it
  dnsserver --zone-list /etc/fingerpost/zones --listen 192.0.2.1 --listen 2001:db8::1

  # DNS over TLS and HTTPS, and JSON for applications that bypass their resolver, with one certificate
  dnsserver --zone example.test=example.test.zone --listen 192.0.2.1 --dot 192.0.2.1 --doh 192.0.2.1 --httpdns 192.0.2.1:443 \
    --tls-cert /etc/fingerpost/tls/server.crt --tls-key /etc/fingerpost/tls/server.key

  # one of two servers of a group that two managers feed
  dnsserver --hub hub-a.example.net:9443 --hub hub-b.example.net:9443 --tls-dir /etc/fingerpost/tls \
    --state-dir /var/lib/fingerpost --listen 192.0.2.1 --peer-listen 192.0.2.1:9444 --sibling 192.0.2.2:9444`
)

// command has so many CPUs to use.
func command(cpus int) *cobra.Command {
	var (
		cfg       dnsserver.Config
		hub       dnsserver.HubConfig
		zones     []string
		listen    []string
		dot       []string
		doh       []string
		httpdns   []string
		tlsDir    string
		shown     dnsserver.CertificateConfig
		resolvers []string
		exempt    []string
		dnstap    dnsserver.DnstapConfig
		logFormat string
		alone     = []string{
			"zone", "zone-list", "dot", "doh", "httpdns", "no-tcp", "max-udp", "nsid", "cookie-secret-file", "resolver",
			"rrl", "rrl-slip", "query-limit", "limit-exempt", "limit-ipv4-prefix", "limit-ipv6-prefix", "limit-log-only",
		}
		hubs = []string{"tls-dir", "state-dir", "sibling", "peer-listen", "peer-address", "geo-database"}
	)
	c := &cobra.Command{
		Use:               "dnsserver {--zone NAME=FILE... | --zone-list FILE | --hub HOST:PORT...}",
		Short:             "Authoritative DNS server",
		Long:              summary,
		Example:           examples,
		Version:           version,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := exclusive(cmd, alone, append(hubs, "hub")); err != nil {
				return err
			}
			log, err := logger(os.Stderr, logFormat)
			if err != nil {
				return err
			}
			if cfg.Zones, err = each(zones, "zone", dnsserver.ParseZoneFile); err != nil {
				return err
			}
			for _, f := range []struct {
				name  string
				texts []string
				port  uint16
				to    *[]netip.AddrPort
			}{
				{"listen", listen, cfg.Port, &cfg.Options.Addresses},
				{"dot", dot, dnsserver.DefaultDoTPort, &cfg.Options.Transports.DoT},
				{"doh", doh, dnsserver.DefaultDoHPort, &cfg.Options.Transports.DoH},
				{"httpdns", httpdns, dnsserver.DefaultHTTPDNSPort, &cfg.Options.Transports.HTTPDNS},
			} {
				if *f.to, err = each(f.texts, f.name, func(text string) (netip.AddrPort, error) { return dnsserver.ParseListen(text, f.port) }); err != nil {
					return err
				}
			}
			switch {
			case shown != dnsserver.CertificateConfig{}:
				cfg.TLS = &shown
			case len(dot)+len(doh) > 0:
				return errors.New("--dot and --doh need --tls-cert and --tls-key")
			}
			if cfg.Options.Resolvers, err = each(resolvers, "resolver", dnsserver.ParseNetwork); err != nil {
				return err
			}
			if cfg.Options.Limits.Exempt, err = each(exempt, "limit-exempt", dnsserver.ParseNetwork); err != nil {
				return err
			}
			if dnstap.Target != "" {
				cfg.Dnstap = &dnstap
			}
			cfg.Options.Log, cfg.Options.Identity, cfg.Version = log, hub.Name, version
			if hub.PeerAddress != "" && hub.PeerListen == "" {
				return errors.New("--peer-address needs --peer-listen: there must be somebody there")
			}
			if len(hub.Hubs) > 0 {
				if tlsDir == "" {
					return errors.New("--hub needs --tls-dir: the hub knows servers by their certificates")
				}
				hub.Certificate, hub.Key, hub.Roots = filepath.Join(tlsDir, "tls.crt"), filepath.Join(tlsDir, "tls.key"), filepath.Join(tlsDir, "ca.crt")
				cfg.Hub = &hub
			}
			reload, stop := onHangup()
			defer stop()
			cfg.Reload = reload
			if cfg.Options.Workers <= 0 {
				cfg.Options.Workers = cpus
			}
			return dnsserver.Run(cmd.Context(), cfg)
		},
	}
	c.SetVersionTemplate("dnsserver {{.Version}}\n")
	c.AddCommand(checkCommand(cpus), ctlCommand())

	f := c.Flags()
	f.SortFlags = false
	f.StringArrayVar(&zones, "zone", nil, "`NAME=FILE` of a zone to serve; repeatable")
	f.StringVar(&cfg.ZoneList, "zone-list", "", "`FILE` with a line \"NAME FILE\" for each zone; paths are relative to the list")
	f.StringArrayVar(&hub.Hubs, "hub", nil, "`HOST:PORT` of a manager, in order of preference; repeatable")
	f.StringVar(&tlsDir, "tls-dir", "", "`folder` with tls.crt, tls.key and ca.crt of this server")
	f.StringVar(&hub.StateDir, "state-dir", "/var/lib/fingerpost", "`folder` where zones from the hub are kept")
	f.StringVar(&hub.Name, "name", hostname(), "`name` of this server, unique in its group; also what it calls itself in NSID and dnstap")
	f.StringArrayVar(&hub.Siblings, "sibling", nil, "`HOST:PORT` of another server of the group, as in its --peer-listen, or of a name that stands for all of them; repeatable")
	f.StringVar(&hub.PeerListen, "peer-listen", "", "`ADDR:PORT` where siblings get copies of the zones, servers of other datacenters tell their votes, and resolvers hear what changes")
	f.StringVar(&hub.PeerAddress, "peer-address", "", "`HOST:PORT` of --peer-listen as servers of other datacenters reach it (default: --peer-listen, at the address that the hub sees)")
	f.StringArrayVar(&hub.Geo, "geo-database", nil, "`FILE` that says where clients are, in the MaxMind format (GeoLite2-Country, GeoLite2-ASN and the like), for names steered by Geo; repeatable; read again when it changes")
	f.StringSliceVar(&listen, "listen", nil, "`ADDR[:PORT]` to answer on, [ADDR]:PORT for IPv6; repeatable, or with commas between (default: every address of this machine)")
	f.Uint16Var(&cfg.Port, "port", dnsserver.DefaultPort, "`PORT` of those --listen that have none")
	f.StringArrayVar(&dot, "dot", nil, "`ADDR[:PORT]` for DNS over TLS, default port 853; repeatable. 0.0.0.0 and [::] stand for all of --listen")
	f.StringArrayVar(&doh, "doh", nil, "`ADDR[:PORT]` for DNS over HTTPS at /dns-query, default port 443; repeatable")
	f.StringArrayVar(&httpdns, "httpdns", nil, "`ADDR[:PORT]` for JSON at /resolve?name=&type=&client=, default port 80; repeatable. In clear text, but under TLS where --doh is as well")
	f.StringVar(&shown.Certificate, "tls-cert", "", "`file` with the certificate for --dot and --doh and those above it, in PEM; read again when it changes (default for a hub: that of --tls-dir)")
	f.StringVar(&shown.Key, "tls-key", "", "`file` with its key")
	f.BoolVar(&cfg.Options.Transports.NoTCP, "no-tcp", false, "take no connections on --listen: what does not fit into UDP can't be asked for then")
	f.IntVar(&cfg.Options.MaxUDP, "max-udp", 1232, "most `octets` of a reply over UDP, 512 to 4096")
	f.BoolVar(&cfg.Options.NSID, "nsid", false, "tell --name to clients that ask who answers (RFC 5001)")
	f.StringVar(&cfg.CookieSecretFile, "cookie-secret-file", "", "`file` with the secrets of DNS cookies that the servers of a group share, a line of 32 hexadecimal digits for each: the first makes cookies, all are accepted (default: each server makes its own)")
	f.StringArrayVar(&resolvers, "resolver", nil, "`ADDR` or network of a resolver of yours, exempt from limits; repeatable")
	f.IntVar(&cfg.Options.Limits.Responses, "rrl", 0, "most equal `replies` a second to one client over UDP; 0 is no limit")
	f.IntVar(&cfg.Options.Limits.Slip, "rrl-slip", 2, "of replies that are too many each `N`th goes out truncated, the others are dropped; 0 for none, up to 10")
	f.IntVar(&cfg.Options.Limits.Queries, "query-limit", 0, "most `queries` a second of one client over UDP; 0 is no limit")
	f.StringArrayVar(&exempt, "limit-exempt", nil, "`ADDR` or network of clients without limits; repeatable")
	f.IntVar(&cfg.Options.Limits.IPv4Prefix, "limit-ipv4-prefix", 32, "`bits` of IPv4 addresses that are one client")
	f.IntVar(&cfg.Options.Limits.IPv6Prefix, "limit-ipv6-prefix", 128, "`bits` of IPv6 addresses that are one client")
	f.BoolVar(&cfg.Options.Limits.LogOnly, "limit-log-only", false, "answer what is over limits, only count and log it")
	f.StringVar(&dnstap.Target, "dnstap", "", "tell queries and replies to `unix:PATH`, a socket, or file:PATH; what is not read in time is dropped")
	f.Uint32Var(&dnstap.Every, "dnstap-every", 1, "tell one of so many `queries`")
	f.Uint32Var(&cfg.TopEvery, "top-every", 100, "count one of so many `queries` for /top of --http-listen, the names that are asked for most; 0 for none")
	f.StringVar(&cfg.HTTPListen, "http-listen", "127.0.0.1:8053", "`ADDR:PORT` of /livez, /readyz, /servingz, /metrics and /top; empty for none")
	f.DurationVar(&cfg.DrainDelay, "drain-delay", 0, "for how long the server answers on after SIGTERM: /readyz is bad at once, /servingz for the last 6s")
	f.IntVar(&cfg.Options.Workers, "threads", 0, "`number` of threads that read zone files, and then answer over UDP on all addresses (default: the CPUs that may be used)")
	f.IntVar(&cfg.Options.MaxConnections, "tcp-connections", 10000, "`number` of connections at once, over every transport")
	f.IntVar(&cfg.Options.MaxClientConnections, "tcp-client-connections", 1000, "`number` of connections at once from one address")
	f.DurationVar(&cfg.Options.IdleTimeout, "tcp-idle-timeout", dnsserver.DefaultIdleTimeout, "how long a connection may take to bring the next query")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	return c
}

// exclusive refuses flags of both ways to get zones, and flags for a hub without one.
func exclusive(cmd *cobra.Command, alone, hub []string) error {
	given := func(names []string) (set []string) {
		for _, name := range names {
			if cmd.Flags().Changed(name) {
				set = append(set, "--"+name)
			}
		}
		return set
	}
	files, pushed := given(alone), given(hub)
	switch {
	case len(files) > 0 && len(pushed) > 0:
		return fmt.Errorf("%s for a server that runs alone does not go with %s for one with a hub", strings.Join(files, ", "), strings.Join(pushed, ", "))
	case len(pushed) > 0 && !cmd.Flags().Changed("hub"):
		return fmt.Errorf("%s needs --hub", strings.Join(pushed, ", "))
	case len(files) == 0 && len(pushed) == 0:
		return errors.New("no zones to serve: give --zone or --zone-list, or --hub (see --help)")
	}
	return nil
}

// each parses the values of a repeatable flag.
func each[T any](texts []string, flag string, parse func(string) (T, error)) ([]T, error) {
	var values []T
	for _, text := range texts {
		v, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		values = append(values, v)
	}
	return values, nil
}

func logger(w io.Writer, format string) (logr.Logger, error) {
	switch format {
	case "text":
		return logr.FromSlogHandler(slog.NewTextHandler(w, nil)), nil
	case "json":
		return logr.FromSlogHandler(slog.NewJSONHandler(w, nil)), nil
	default:
		return logr.Logger{}, fmt.Errorf("--log-format: %q is neither text nor json", format)
	}
}

// onHangup yields an element for SIGHUP; several in a row may be one.
func onHangup() (reload <-chan struct{}, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	c := make(chan struct{})
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-signals:
			}
			select {
			case <-done:
				return
			case c <- struct{}{}:
			}
		}
	}()
	return c, func() { signal.Stop(signals); close(done) }
}

// hostname is the machine's first label, which is what a pod is called.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(name, ".")
	return name
}
