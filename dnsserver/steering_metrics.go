package dnsserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost-dns/fingerpost/dnsserver/steering/steeringpb"
)

var (
	metricTargets      = metric("steering_targets", "Targets of steered names, by state. One of two records counts twice.", "state")
	metricSteered      = metric("steering_records", "Steered names, by what decides their answers to clients of this datacenter.", "state")
	metricChecks       = metric("probe_checks", "Checks that run: pairs of a probe and an address.")
	metricProbes       = metric("probes_total", "Probes that were begun.")
	metricInFlight     = metric("probes_in_flight", "Probes that wait for a target.")
	metricProbesWait   = metric("probes_waiting", "Probes that are due and wait for others to end. More than 0 for long: targets are seen late.")
	metricProbesNeeded = metric("probes_needed", "Probes that would be in flight if no target answered. Keep it below probes_in_flight_limit.")
	metricProbesLimit  = metric("probes_in_flight_limit", "Most probes in flight at once.")
	metricProbesLate   = metric("probe_late_seconds", "By how much the probe begun last was late.")
	metricPeers        = metric("mesh_peers_connected", "Servers that hear the votes of this one.")
	metricIsolated     = metric("isolated", "1 while no anchor of the datacenter answers, else 0.")
	metricSick         = metric("vantage_sick", "1 while the server abstains from votes, since its siblings see up what it sees down, else 0.")
	metricUnheard      = metric("datacenters_unreachable", "Datacenters of whose servers none is heard.")
	metricLocal        = metric("local_overrides", "Overrides in force that were made at a server, by dnsserver ctl.")
	metricHealthPanics = metric("health_panics_total", "How often deciding what is up has failed and begun anew. More than 0 is a fault of this program.")
	metricGeo          = metric("geo_databases_current", "1 if the databases of --geo-database are in force as they are, 0 if they can't be read.")
)

// Describe implements prometheus.Collector.
func (s *steerer) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		metricTargets, metricSteered, metricChecks, metricProbes, metricInFlight, metricProbesWait, metricProbesNeeded, metricProbesLimit,
		metricProbesLate, metricPeers, metricIsolated, metricSick, metricUnheard, metricLocal, metricHealthPanics, metricGeo,
	} {
		ch <- d
	}
}

var targetLabels = map[steeringpb.TargetReport_State]string{
	steeringpb.TargetReport_UP: "up", steeringpb.TargetReport_DEGRADED: "degraded", steeringpb.TargetReport_DOWN: "down",
	steeringpb.TargetReport_UNKNOWN: "unknown",
}

var recordLabels = map[steeringpb.RecordReport_State]string{
	steeringpb.RecordReport_PREFERRED: "preferred", steeringpb.RecordReport_FAILED_OVER: "failed-over", steeringpb.RecordReport_ALL_DOWN: "all-down",
	steeringpb.RecordReport_HELD: "held", steeringpb.RecordReport_AWAITING: "awaiting", steeringpb.RecordReport_OVERRIDDEN: "overridden",
	steeringpb.RecordReport_NOT_READY: "not-ready",
}

// Collect implements prometheus.Collector.
func (s *steerer) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	targets, records := map[steeringpb.TargetReport_State]int{}, map[steeringpb.RecordReport_State]int{}
	s.mu.Lock()
	for _, src := range s.sources {
		if src.report == nil {
			records[steeringpb.RecordReport_NOT_READY]++
			continue
		}
		records[src.report.GetState()]++
		for _, t := range src.report.GetTargets() {
			targets[t.GetState()]++
		}
	}
	now, local := uint64(time.Now().UnixMilli()), 0
	for _, o := range s.local.messages() {
		if o.GetExpires() > now {
			local++
		}
	}
	vantage, current, panics := s.machine.Vantage(), s.geography.good, s.panics
	s.mu.Unlock()
	for state, label := range targetLabels {
		gauge(metricTargets, float64(targets[state]), label)
	}
	for state, label := range recordLabels {
		gauge(metricSteered, float64(records[state]), label)
	}
	stats := s.scheduler.Stats()
	ch <- prometheus.MustNewConstMetric(metricProbes, prometheus.CounterValue, float64(stats.Probes))
	ch <- prometheus.MustNewConstMetric(metricHealthPanics, prometheus.CounterValue, float64(panics))
	gauge(metricChecks, float64(stats.Checks))
	gauge(metricInFlight, float64(stats.InFlight))
	gauge(metricProbesWait, float64(stats.Waiting))
	gauge(metricProbesNeeded, stats.Needed)
	gauge(metricProbesLimit, float64(stats.MaxInFlight))
	gauge(metricProbesLate, stats.Late.Seconds())
	gauge(metricPeers, float64(s.opts.Peers()))
	gauge(metricIsolated, truth(vantage.Isolated))
	gauge(metricSick, truth(vantage.Sick))
	gauge(metricUnheard, float64(len(vantage.Unreachable)))
	gauge(metricLocal, float64(local))
	if len(s.geography.files) > 0 {
		gauge(metricGeo, truth(current))
	}
}

// crowdedAgain is how often it is told that there are more probes than can run.
const crowdedAgain = time.Hour

// tellCrowded logs when more probes might be in flight than may.
func (s *steerer) tellCrowded(now time.Time) {
	stats := s.scheduler.Stats()
	if stats.Needed <= float64(stats.MaxInFlight) || now.Sub(s.crowded) < crowdedAgain {
		return
	}
	s.crowded = now
	s.opts.Log.Info("there are more probes than this server can run if targets do not answer: dead ones are seen late then. "+
		"Raise intervals, lower timeouts, or let the process open more files", "needed", int(stats.Needed), "limit", stats.MaxInFlight)
}
