package controllers

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
)

var (
	metricServerWanted = prometheus.NewDesc("fingerpost_hub_server_zones_wanted",
		"Zones that a connected server is to serve.", serverLabels, nil)
	metricServerCurrent = prometheus.NewDesc("fingerpost_hub_server_zones_current",
		"Zones that a connected server serves in the published version and has on disk.", serverLabels, nil)
	serverLabels = []string{"datacenter", "group", "server"}

	metricTransfers = prometheus.NewDesc("fingerpost_hub_transfers_total",
		"Zones sent to servers: whole, as changes, as a version without content, or asked to be dropped; and documents, such as settings.", []string{"kind"}, nil)
	metricTransferred = prometheus.NewDesc("fingerpost_hub_transferred_bytes_total",
		"Octets of encoded zone content sent to servers.", nil, nil)
)

// hubMetrics tells how far the connected servers are, of which a manager that does not lead has none, and what was sent
// to them.
type hubMetrics struct{ hub *control.Hub }

// Describe implements prometheus.Collector.
func (hubMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- metricServerWanted
	ch <- metricServerCurrent
	ch <- metricTransfers
	ch <- metricTransferred
}

// Collect implements prometheus.Collector.
func (m hubMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.hub.Servers() {
		labels := []string{s.ID.Datacenter, s.ID.Group, s.ID.Name}
		ch <- prometheus.MustNewConstMetric(metricServerWanted, prometheus.GaugeValue, float64(s.Wanted), labels...)
		ch <- prometheus.MustNewConstMetric(metricServerCurrent, prometheus.GaugeValue, float64(s.Current), labels...)
	}
	sent := m.hub.Sent()
	for kind, n := range map[string]uint64{"whole": sent.Whole, "changes": sent.Changes, "version": sent.Versions, "removal": sent.Removals, "document": sent.Documents} {
		ch <- prometheus.MustNewConstMetric(metricTransfers, prometheus.CounterValue, float64(n), kind)
	}
	ch <- prometheus.MustNewConstMetric(metricTransferred, prometheus.CounterValue, float64(sent.Octets))
}
