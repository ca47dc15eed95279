package dnsserver

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// announcer tells resolver agents of the names that this server answers otherwise than before.
//
// Nothing is told of what a server has on disk when it starts, nor of the zones that one without any gets first: it has not
// answered otherwise. What the hub has changed meanwhile comes as new versions, and of steered names the state in which they
// were before the start is remembered: both is told.
type announcer struct {
	view    *zone.View
	log     *changes.Log
	aliases *changes.Aliases
	service *changes.Service
	// complete: the server has had all of its zones, so that one that it gets is new.
	complete atomic.Bool
}

func newAnnouncer(view *zone.View, log logr.Logger) *announcer {
	a := &announcer{view: view, log: changes.NewLog(), aliases: changes.NewAliases(log)}
	a.service = changes.NewService(a.log, a.aliases.Of, log)
	return a
}

func (a *announcer) register(r grpc.ServiceRegistrar) { a.service.Register(r) }

// zoneChanged tells of a zone that the view answers otherwise for by now; nil stands for one that is not served. It reports
// whether that is news.
func (a *announcer) zoneChanged(apex zone.Name, before, after *control.Installed) (news bool) {
	e := &changes.Edit{Apex: apex, At: time.Now(), State: func(owner zone.Name) uint64 { return a.view.State(apex, owner) }}
	if before != nil {
		e.Before = before.Content
	}
	if after != nil {
		e.After, e.Serial = after.Content, after.Version.Serial
	}
	a.aliases.Take(e)
	if news = before != nil || a.complete.Load(); news {
		all, beyond := e.Changes()
		if before == nil || after == nil { // the apex is told with all beneath it: that is enough, but for names elsewhere
			all = slices.DeleteFunc(all, func(c changes.Change) bool { return c.Name != apex && len(a.aliases.Of(c.Name)) == 0 })
			beyond = 0
		}
		a.log.Add(all...)
		a.log.Miss(beyond)
	}
	return news
}

var (
	metricWatchers      = metric("change_watchers", "Resolver agents that are told of changes.")
	metricTold          = metric("changes_total", "Changes of the answers of names that resolver agents were told of, or would be if there were any.")
	metricUntold        = metric("changes_dropped_total", "Names whose answers changed and that agents may not have been told of, because there were too many at once.")
	metricAliases       = metric("aliases", "CNAME records known, which agents are told of with their targets.")
	metricAliasesBeyond = metric("aliases_dropped", "CNAME records that are not, because there are too many.")
)

// Describe implements prometheus.Collector.
func (*announcer) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{metricWatchers, metricTold, metricUntold, metricAliases, metricAliasesBeyond} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a *announcer) Collect(ch chan<- prometheus.Metric) {
	told, dropped := a.log.Counts()
	known, beyond := a.aliases.Counts()
	for d, n := range map[*prometheus.Desc]int{metricWatchers: a.service.Watchers(), metricAliases: known, metricAliasesBeyond: beyond} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n))
	}
	ch <- prometheus.MustNewConstMetric(metricTold, prometheus.CounterValue, float64(told))
	ch <- prometheus.MustNewConstMetric(metricUntold, prometheus.CounterValue, float64(dropped))
}
