package dnsserver

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// maxZoneMetrics bounds the zones that have metrics of their own: a server with more zones
// gives none, for what watches it has to keep every one of them.
const maxZoneMetrics = 1000

// metric describes one metric of this server.
func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("fingerpost", "dnsserver", name), help, labels, nil)
}

var (
	metricResponses   = metric("responses_total", "Replies sent, by response code; those from 23 on count as 23.", "transport", "rcode")
	metricIgnored     = metric("ignored_messages_total", "Messages that are owed no reply: responses, and less than a header.", "transport")
	metricFailures    = metric("socket_failures_total", "Failed system calls on sockets.", "transport")
	metricPanics      = metric("panics_total", "Queries that were answered SERVFAIL because answering panicked. The first is in the log.")
	metricLimited     = metric("limited_total", "Replies over UDP that were over a limit of their client, by what became of them.", "limit", "outcome")
	metricShed        = metric("shed_queries_total", "Queries of resolvers over UDP that were dropped because there were more than can be answered, and that resolver asked most for that name.")
	metricCookies     = metric("cookies_total", "Queries with a DNS cookie: client is one without a server cookie.", "transport", "cookie")
	metricQuarantined = metric("quarantined_questions", "Questions that are refused for some minutes because answering them panicked.")
	metricQuarantine  = metric("quarantined_total", "Queries refused because answering such a question panicked before.", "transport")
	metricConnections = metric("connections", "Open connections. Those to an address of DNS over HTTPS count there, whatever they bring.", "transport")
	metricRefused     = metric("connections_refused_total", "Connections closed at once because there were too many of that client.")
	metricEvicted     = metric("connections_evicted_total", "Connections closed to make room for others: idle ones of clients with most connections.")
	metricHandshakes  = metric("tls_handshakes_failed_total", "Connections that ended before TLS was agreed on.", "transport")
	metricZones       = metric("zones", "Zones served.")
	metricSerial      = metric("zone_serial", "SOA serial of a zone served. Left out by servers of more than 1,000 zones.", "zone")
	metricRecords     = metric("zone_records", "Records of a zone served. Left out by servers of more than 1,000 zones.", "zone")
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		metricResponses, metricIgnored, metricFailures, metricPanics, metricLimited, metricShed, metricCookies, metricQuarantined, metricQuarantine, metricConnections, metricRefused, metricEvicted, metricHandshakes, metricZones, metricSerial, metricRecords,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	ways := map[string][]*counters{"udp": s.udpCounts}
	for over, n := range s.streams.counts() {
		way := transport(over)
		ways[way.String()] = []*counters{s.listeners.exchanges[over].counts}
		gauge(metricConnections, float64(n), way.String())
		if way.protocols() != nil {
			count(metricHandshakes, s.listeners.handshakes[over].Load(), way.String())
		}
	}
	for transport, workers := range ways {
		for rcode := range maxRcode + 1 {
			n := sum(workers, func(c *counters) *atomic.Uint64 { return &c.messages[rcode] })
			if n > 0 || rcode <= int(zone.RcodeRefused) {
				count(metricResponses, n, transport, rcodeName(rcode))
			}
		}
		count(metricIgnored, sum(workers, func(c *counters) *atomic.Uint64 { return &c.messages[ignored] }), transport)
		for kind, name := range map[int]string{goodCookie: "good", badCookie: "bad", clientCookie: "client"} {
			count(metricCookies, sum(workers, func(c *counters) *atomic.Uint64 { return &c.messages[kind] }), transport, name)
		}
		count(metricQuarantine, sum(workers, func(c *counters) *atomic.Uint64 { return &c.messages[quarantined] }), transport)
		count(metricFailures, sum(workers, func(c *counters) *atomic.Uint64 { return &c.failures }), transport)
	}
	for over, limit := range limitNames {
		for outcome, name := range [outcomes]string{"dropped", "truncated", "badcookie", "logged"} {
			kind := limited + over*outcomes + outcome
			count(metricLimited, sum(s.udpCounts, func(c *counters) *atomic.Uint64 { return &c.messages[kind] }), limit, name)
		}
	}
	count(metricShed, sum(s.udpCounts, func(c *counters) *atomic.Uint64 { return &c.messages[shed] }))
	gauge(metricQuarantined, float64(s.answering.quarantine.Len(time.Now().Unix())))
	count(metricPanics, s.answering.panics.count.Load())
	count(metricRefused, s.streams.refused.Load())
	count(metricEvicted, s.streams.evicted.Load())

	zones := s.opts.View.Len()
	gauge(metricZones, float64(zones))
	if zones > maxZoneMetrics {
		return
	}
	for z := range s.opts.View.Zones() {
		name := z.Apex().String()
		gauge(metricSerial, float64(z.Version().Serial), name)
		gauge(metricRecords, float64(z.Content().Records()), name)
	}
}

func sum(workers []*counters, of func(*counters) *atomic.Uint64) uint64 {
	var n uint64
	for _, c := range workers {
		n += of(c).Load()
	}
	return n
}

func rcodeName(rcode int) string {
	if rcode == int(zone.RcodeBadVers) {
		return "BADVERS" // miekg/dns calls 16 BADSIG, which TSIG does
	}
	if name, ok := dns.RcodeToString[rcode]; ok {
		return name
	}
	return strconv.Itoa(rcode)
}
