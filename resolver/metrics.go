package resolver

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/fingerpost-dns/fingerpost/resolver/control"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// metrics of an agent and its engine. Those of the engine are asked for when somebody looks.
type metrics struct {
	agent         *Agent
	registry      *prometheus.Registry
	engine        map[control.Statistic]*prometheus.Desc
	up            *prometheus.Desc
	ready         *prometheus.Desc
	inForce       *prometheus.Desc
	probe         prometheus.Histogram
	deaths        prometheus.Counter
	refusals      prometheus.Counter
	changes       *prometheus.CounterVec // by "by"
	recursion     prometheus.Gauge
	recursionTime prometheus.Gauge
	heard         prometheus.Counter
	missed        prometheus.Counter
	flushes       *prometheus.CounterVec // by "outcome"
	flushTime     prometheus.Histogram
}

const prefix = "fingerpost_resolver_"

// buckets of times from a local answer to a failing recursion, in seconds.
var buckets = []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}

func newMetrics(a *Agent) *metrics {
	engineLabel := prometheus.Labels{"engine": string(a.o.Product)}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, help, nil, engineLabel)
	}
	m := &metrics{
		agent: a, registry: prometheus.NewRegistry(), engine: map[control.Statistic]*prometheus.Desc{},
		up:      desc("engine_up", "1 if the engine tells its statistics."),
		ready:   desc("ready", "1 if clients are to be sent here."),
		inForce: desc("configuration_in_force", "1 if the newest configuration is in force, 0 if it was refused."),
		probe: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "probe_seconds", Help: "Time of answers to the local name.", ConstLabels: engineLabel, Buckets: buckets,
		}),
		deaths:   prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "engine_deaths_total", Help: "Ends of the engine that nobody asked for.", ConstLabels: engineLabel}),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "configurations_refused_total", Help: "Configurations that were refused or taken back.", ConstLabels: engineLabel}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "configurations_total", Help: "Configurations that came into force, by what it took: Started, ReloadPart, Reload, Replace, Restart.", ConstLabels: engineLabel,
		}, []string{"by"}),
		recursion: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: prefix + "recursion_ok", Help: "1 if authorities answered the last recursion check.", ConstLabels: engineLabel,
		}),
		recursionTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: prefix + "recursion_seconds", Help: "Time of the last recursion check.", ConstLabels: engineLabel,
		}),
		heard: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "changes_heard_total", Help: "Names whose answers changed, as servers told: each tells.", ConstLabels: engineLabel,
		}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "changes_missed_total", Help: "Times that a server did not know any more what had changed: zones were flushed.", ConstLabels: engineLabel,
		}),
		flushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "flushes_total", Help: "Looks at names whose answers changed, by outcome: Confirmed, NotCached, Unconfirmed, NoAuthority, NotFlushable, Failed.", ConstLabels: engineLabel,
		}, []string{"outcome"}),
		flushTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "flush_seconds", Help: "Time from hearing of a changed name until the engine has its new answer.", ConstLabels: engineLabel, Buckets: buckets,
		}),
	}
	for statistic, help := range map[control.Statistic]string{
		control.Queries: "Queries of clients.", control.CacheHits: "Queries answered from the cache.", control.CacheMisses: "Queries that authorities were asked for.",
		control.Stale: "Answers from expired records.", control.Prefetches: "Records asked for before they expired.",
		control.NoError: "Answers NOERROR.", control.NXDomain: "Answers NXDOMAIN.", control.ServFail: "Answers SERVFAIL.",
		control.Refused: "Queries of those who are not answered.", control.Limited: "Queries over a limit.",
		control.Upstream: "Questions to authorities and upstreams.", control.Timeouts: "Questions to authorities and upstreams without an answer.",
	} {
		m.engine[statistic] = desc(string(statistic)+"_total", help)
	}
	m.engine[control.CacheEntries] = desc(string(control.CacheEntries), "Entries of the cache.")
	m.engine[control.AnswerSeconds] = desc(string(control.AnswerSeconds), "Mean time of answers, as the engine measures it (docs/resolvers.md).")
	m.registry.MustRegister(m, m.probe, m.deaths, m.refusals, m.changes, m.recursion, m.recursionTime, m.heard, m.missed, m.flushes, m.flushTime,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.up
	to <- m.ready
	to <- m.inForce
	for _, d := range m.engine {
		to <- d
	}
}

// statisticsTimeout bounds how long a hung engine delays metrics.
const statisticsTimeout = 2 * time.Second

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, on bool) {
		v := 0.0
		if on {
			v = 1
		}
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	gauge(m.ready, m.agent.Ready() == nil)
	gauge(m.inForce, m.agent.Refused() == nil)
	r := m.agent.current()
	if r == nil {
		gauge(m.up, false)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), statisticsTimeout)
	defer cancel()
	s, err := r.control.Statistics(ctx)
	gauge(m.up, err == nil)
	for statistic, value := range s {
		kind := prometheus.CounterValue
		if statistic == control.CacheEntries || statistic == control.AnswerSeconds {
			kind = prometheus.GaugeValue
		}
		to <- prometheus.MustNewConstMetric(m.engine[statistic], kind, value)
	}
}

// recursed tells the last recursion check.
func (m *metrics) recursed(r *pool.Recursion) {
	v := 0.0
	if r.OK {
		v = 1
	}
	m.recursion.Set(v)
	m.recursionTime.Set(r.Seconds)
}
