//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fingerpost-dns/fingerpost/hack/bench/workload"
)

// Names of contenders, as tables show them.
const (
	ours         = "Fingerpost"
	cEcho        = "C echo"
	goEcho       = "Go echo"
	gdnsd        = "gdnsd"
	knot         = "Knot DNS"
	nsd          = "NSD"
	bind         = "BIND"
	powerdns     = "PowerDNS"
	coredns      = "CoreDNS"
	corednsCache = "CoreDNS with cache"
)

// all are the contenders that answer from zones.
var all = []string{ours, gdnsd, knot, nsd, bind, powerdns, coredns}

// withEcho is list with the echo that there is behind ours.
func (b *bench) withEcho(list []string) []string {
	return append([]string{ours, b.echoName()}, list[1:]...)
}

func (b *bench) echoName() string {
	if b.Echo == "" {
		return goEcho
	}
	return cEcho
}

// contender is a server that can be compared with others. All are told to do the same: one worker, minimal answers over UDP
// of up to 1232 octets, no rotation of answers, no limits of rates that are reached.
type contender struct {
	name    string
	program string            // in PATH, or a path
	args    []string          // templates of contenderSettings
	files   map[string]string // the same, by name in Dir
	prepare func(contenderSettings) error
	answers bool // with the zones' records
}

// zoneFile is a zone that a contender has.
type zoneFile struct {
	Apex string `json:"apex"` // without its final dot
	Path string `json:"path"`
}

// contenderSettings are what a contender's arguments and configuration are made of.
type contenderSettings struct {
	Dir       string // of its own
	Zones     []zoneFile
	IP        string
	Port      uint16
	TLSPort   uint16 // 0 for none
	Cert, Key string // files in PEM; "" for none
	Features  bool   // cookies, NSID and limits of rates, as far as there are any
	Modules   string // folder of PowerDNS's backends
}

// At is IP and port as most write it.
func (s contenderSettings) At() string { return s.at(s.Port) }

// AtTLS is IP and port of DNS over TLS.
func (s contenderSettings) AtTLS() string { return s.at(s.TLSPort) }

func (s contenderSettings) at(port uint16) string {
	if strings.Contains(s.IP, ":") {
		return fmt.Sprintf("[%s]:%d", s.IP, port)
	}
	return fmt.Sprintf("%s:%d", s.IP, port)
}

// IPv6 tells of which family IP is.
func (s contenderSettings) IPv6() bool { return strings.Contains(s.IP, ":") }

// contenders are all that there are, by name.
func (b *bench) contenders() map[string]contender {
	self, err := os.Executable()
	if err != nil {
		self = "/proc/self/exe"
	}
	known := map[string]contender{}
	for _, c := range []contender{
		{name: cEcho, program: b.Echo, args: []string{"{{.IP}}", "{{.Port}}"}},
		{name: goEcho, program: self, args: []string{echoArgument, "{{.At}}"}},
		{
			name: ours, program: filepath.Join(b.Programs.Bin, "dnsserver"), answers: true, args: oursArgs,
			files: map[string]string{"zones": "{{range .Zones}}{{.Apex}} {{.Path}}\n{{end}}"},
		},
		{name: gdnsd, program: "gdnsd", answers: true, args: []string{"-c", "{{.Dir}}", "start"}, files: map[string]string{"config": gdnsdConfig}, prepare: gdnsdZones},
		{name: knot, program: "knotd", answers: true, args: []string{"-c", "{{.Dir}}/config"}, files: map[string]string{"config": knotConfig}},
		{name: nsd, program: "nsd", answers: true, args: []string{"-d", "-c", "{{.Dir}}/config"}, files: map[string]string{"config": nsdConfig}},
		{name: bind, program: "named", answers: true, args: []string{"-f", "-n", "1", "-c", "{{.Dir}}/config"}, files: map[string]string{"config": bindConfig}},
		{
			name: powerdns, program: "pdns_server", answers: true, args: []string{"--config-dir={{.Dir}}"},
			files: map[string]string{"pdns.conf": pdnsConfig, "named.conf": "{{range .Zones}}zone \"{{.Apex}}\" { type native; file \"{{.Path}}\"; };\n{{end}}"},
		},
		{name: coredns, program: b.CoreDNS, answers: true, args: []string{"-conf", "{{.Dir}}/Corefile", "-quiet"}, files: map[string]string{"Corefile": corefile("")}},
		{name: corednsCache, program: b.CoreDNS, answers: true, args: []string{"-conf", "{{.Dir}}/Corefile", "-quiet"}, files: map[string]string{"Corefile": corefile("  cache 3600 {\n    success 1000000\n    denial 1000000\n  }\n")}},
	} {
		known[c.name] = c
	}
	return known
}

// gdnsdZones puts zones where gdnsd looks for them: in a folder, by name.
func gdnsdZones(s contenderSettings) error {
	dir := filepath.Join(s.Dir, "zones")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, z := range s.Zones {
		if err := os.Symlink(z.Path, filepath.Join(dir, z.Apex)); err != nil {
			return err
		}
	}
	return nil
}

// gdnsdSteered is gdnsd with the steered zone beside.
func gdnsdSteered(s contenderSettings) error {
	if err := gdnsdZones(s); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "zones", strings.TrimSuffix(workload.SteeredApex, ".")), []byte(workload.GdnsdZone()), 0o644); err != nil {
		return err
	}
	config, err := os.OpenFile(filepath.Join(s.Dir, "config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer config.Close()
	return workload.WriteGdnsd(config)
}

var oursArgs = []string{
	"--zone-list", "{{.Dir}}/zones", "--listen", "{{.At}}", "--http-listen", "", "--threads", "1",
	"{{if .Features}}--nsid{{end}}", "{{if .Features}}--name=bench{{end}}", "{{if .Features}}--rrl=100000{{end}}", "{{if .Features}}--query-limit=100000{{end}}",
	"{{if .TLSPort}}--dot={{.AtTLS}}{{end}}", "{{if .TLSPort}}--tls-cert={{.Cert}}{{end}}", "{{if .TLSPort}}--tls-key={{.Key}}{{end}}",
}

const gdnsdConfig = `options => {
  listen => { "{{.At}}" => { udp_threads => 1, tcp_threads => 1 } },
  zones_default_ttl => 300,
  run_dir => {{.Dir}}/run,
  state_dir => {{.Dir}}/state,
  max_edns_response => 1232,
  max_edns_response_v6 => 1232,
  tcp_clients_per_thread => 1000,
  edns_client_subnet => true,
  {{if .Features}}nsid_ascii => bench,{{else}}disable_cookies => true,{{end}}
}
`

const knotConfig = `server:
  rundir: {{.Dir}}
  listen: {{.IP}}@{{.Port}}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
  socket-affinity: on
  udp-max-payload: 1232
  answer-rotation: off
  tcp-max-clients: 1000
  nsid: "{{if .Features}}bench{{end}}"
database:
  storage: {{.Dir}}
{{if .Features}}mod-cookies:
  - id: default
mod-rrl:
  - id: default
    rate-limit: 10000000
{{end}}template:
  - id: default
    zonefile-sync: -1
    journal-content: none
    semantic-checks: off
    {{if .Features}}global-module: [mod-cookies/default, mod-rrl/default]{{end}}
zone:
{{range .Zones}}  - domain: "{{.Apex}}"
    file: {{.Path}}
{{end}}`

const nsdConfig = `server:
  ip-address: {{.IP}}@{{.Port}}
{{if .TLSPort}}  ip-address: {{.IP}}@{{.TLSPort}}
  tls-port: {{.TLSPort}}
  tls-service-key: "{{.Key}}"
  tls-service-pem: "{{.Cert}}"
{{end}}  server-count: 1
  reuseport: yes
  username: ""
  zonesdir: "{{.Dir}}"
  database: ""
  logfile: "{{.Dir}}/nsd.log"
  pidfile: "{{.Dir}}/nsd.pid"
  xfrdfile: "{{.Dir}}/xfrd.state"
  zonelistfile: "{{.Dir}}/zone.list"
  xfrdir: "{{.Dir}}"
  cookie-secret-file: "{{.Dir}}/cookie"
  tcp-count: 1000
{{if .Features}}  rrl-ratelimit: 10000000
  answer-cookie: yes
  nsid: "ascii_bench"
{{else}}  rrl-ratelimit: 0
{{end}}  rrl-whitelist-ratelimit: 0
  minimal-responses: yes
  round-robin: no
  ipv4-edns-size: 1232
  ipv6-edns-size: 1232
remote-control:
  control-enable: no
{{range .Zones}}zone:
  name: "{{.Apex}}"
  zonefile: "{{.Path}}"
{{end}}`

const bindConfig = `{{if .TLSPort}}tls bench { key-file "{{.Key}}"; cert-file "{{.Cert}}"; };
{{end}}options {
  directory "{{.Dir}}";
{{if .IPv6}}  listen-on { none; };
  listen-on-v6 port {{.Port}} { {{.IP}}; };
{{else}}  listen-on port {{.Port}} { {{.IP}}; };
{{if .TLSPort}}  listen-on port {{.TLSPort}} tls bench { {{.IP}}; };
{{end}}  listen-on-v6 { none; };
{{end}}  pid-file "{{.Dir}}/named.pid";
  session-keyfile "{{.Dir}}/session.key";
  recursion no;
  minimal-responses yes;
  rrset-order { order none; };
  max-udp-size 1232;
  edns-udp-size 1232;
  tcp-clients 1000;
  notify no;
  allow-query { any; };
  allow-transfer { none; };
  dnssec-validation no;
  empty-zones-enable no;
  zone-statistics none;
  max-records-per-type 0;
  max-types-per-name 0;
{{if .Features}}  answer-cookie yes;
  server-id "bench";
  rate-limit { responses-per-second 1000; log-only yes; };
{{else}}  answer-cookie no;
{{end}}};
controls { };
logging { channel none { null; }; category default { none; }; };
{{range .Zones}}zone "{{.Apex}}" { type primary; file "{{.Path}}"; };
{{end}}`

const pdnsConfig = `launch=bind
module-dir={{.Modules}}
bind-config={{.Dir}}/named.conf
bind-check-interval=0
local-address={{.IP}}
local-port={{.Port}}
socket-dir={{.Dir}}
setuid=
setgid=
daemon=no
guardian=no
receiver-threads=1
distributor-threads=1
reuseport=yes
cache-ttl=3600
query-cache-ttl=3600
negquery-cache-ttl=3600
max-packet-cache-entries=2000000
max-cache-entries=2000000
udp-truncation-threshold=1232
max-tcp-connections=1000
loglevel=3
disable-syslog=yes
version-string=anonymous
security-poll-suffix=
{{if .Features}}edns-cookie-secret=00112233445566778899aabbccddeeff
server-id=bench
{{else}}server-id=disabled
{{end}}`

// corefile is CoreDNS's configuration, with more of each server.
func corefile(more string) string {
	const zones = "{{range .Zones}}  file {{.Path}} {{.Apex}} {\n    reload 0\n  }\n{{end}}"
	return ".:{{.Port}} {\n  bind {{.IP}}\n" + more + zones + "}\n" +
		"{{if .TLSPort}}tls://.:{{.TLSPort}} {\n  bind {{.IP}}\n  tls {{.Cert}} {{.Key}}\n" + more + zones + "}\n{{end}}"
}
