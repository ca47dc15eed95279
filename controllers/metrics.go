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
)

// hubMetrics tells how far the connected servers are. A manager that does not lead has none.
type hubMetrics struct{ hub *control.Hub }

// Describe implements prometheus.Collector.
func (hubMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- metricServerWanted
	ch <- metricServerCurrent
}

// Collect implements prometheus.Collector.
func (m hubMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.hub.Servers() {
		labels := []string{s.ID.Datacenter, s.ID.Group, s.ID.Name}
		ch <- prometheus.MustNewConstMetric(metricServerWanted, prometheus.GaugeValue, float64(s.Wanted), labels...)
		ch <- prometheus.MustNewConstMetric(metricServerCurrent, prometheus.GaugeValue, float64(s.Current), labels...)
	}
}
