package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/fingerpost-dns/fingerpost/dnsserver/changes"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/health"
	"github.com/fingerpost-dns/fingerpost/dnsserver/mesh"
	"github.com/fingerpost-dns/fingerpost/dnsserver/store"
	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

// HubConfig is for a server whose zones come from a hub.
type HubConfig struct {
	Hubs []string // HOST:PORT, in order of preference; at least one

	// Certificate, Key and Roots are PEM files, which are read again when they change.
	Certificate, Key, Roots string

	Name       string   // of this server, unique in its group
	StateDir   string   // where zones are kept
	Siblings   []string // HOST:PORT of other servers of the group, or of names that stand for all of it; may be empty
	PeerListen string   // ADDR:PORT where siblings get copies, peers tell their votes and resolvers are told of changes; "" for none

	// PeerAddress is HOST:PORT of PeerListen as others reach it; "" stands for PeerListen, at the
	// address that the hub sees if that is on all of this machine.
	PeerAddress string

	Own []netip.Addr // addresses that this server answers on, which probes must not reach by default
	Geo []string     // files with where clients are, in the MaxMind format; read again when they change
}

// hubSource is the stream to the hub, the store behind it and the copies for siblings.
type hubSource struct {
	cfg     HubConfig
	view    *zone.View
	log     logr.Logger
	started time.Time
	version string

	files     *control.Files
	replica   *Replica
	documents documents
	settings  groupSettings
	client    *control.Client
	memory    *store.Memory
	mesh      *mesh.Mesh
	steerer   *steerer
	announcer *announcer
	peers     net.Listener // nil without PeerListen
	fromDisk  bool         // there were zones on disk
}

func newHubSource(cfg HubConfig, view *zone.View, version string, log logr.Logger) *hubSource {
	return &hubSource{cfg: cfg, view: view, log: log, started: time.Now(), version: version, announcer: newAnnouncer(view, log)}
}

// start serves what is on disk. The hub may be out of reach for as long as it likes.
func (h *hubSource) start() error {
	var err error
	if h.files, err = control.NewFiles(h.cfg.Certificate, h.cfg.Key, h.cfg.Roots); err != nil {
		return fmt.Errorf("reading certificates: %w", err)
	}
	if h.cfg.PeerListen != "" {
		if h.peers, err = net.Listen("tcp", h.cfg.PeerListen); err != nil {
			return fmt.Errorf("listening on %s for siblings: %w", h.cfg.PeerListen, cause(err))
		}
	}
	if h.replica, err = OpenReplica(h.cfg.StateDir, h.view, h.log); err != nil {
		h.close()
		return err
	}
	h.fromDisk = h.view.Ready()
	h.documents.handle(documentSettings, h.settings.take)
	h.client, err = control.NewClient(control.ClientOptions{
		Hubs: h.cfg.Hubs, Siblings: h.cfg.Siblings, Credentials: h.files.Credentials(),
		Name: h.cfg.Name, SoftwareVersion: h.version, Peer: h.peerAddress(), Replica: h.replica, Log: h.log, OnState: h.onState,
	})
	if err == nil {
		err = h.steer()
	}
	if err != nil {
		h.close()
		return err
	}
	h.log.Info("zones loaded", "zones", h.view.Len(), "damaged", len(h.replica.Lost()))
	return nil
}

// peerAddress is where others reach the listener for siblings, as control.ClientOptions wants it.
func (h *hubSource) peerAddress() string {
	switch {
	case h.peers == nil:
		return ""
	case h.cfg.PeerAddress != "":
		if host, port, err := net.SplitHostPort(h.cfg.PeerAddress); err == nil {
			return net.JoinHostPort(host, port) // without brackets where none belong, as templates write them
		}
		return h.cfg.PeerAddress
	}
	bound := h.peers.Addr().(*net.TCPAddr)
	if bound.IP.IsUnspecified() {
		return fmt.Sprintf(":%d", bound.Port)
	}
	return bound.String()
}

// configure has the server go by the settings that are on disk, before the hub is met. What can't
// be opened now is tried again by run.
func (h *hubSource) configure(server *Server) {
	if err := h.settings.configure(server); err != nil {
		h.log.Error(err, "not all settings are in force; they are tried again")
	}
}

// retrySettings tries to open what could not be opened at the start, until that is done.
func (h *hubSource) retrySettings(ctx context.Context) {
	tick := time.NewTicker(settingsRetry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch tried, err := h.settings.retry(); {
		case !tried:
			return
		case err == nil:
			h.log.Info("all settings are in force")
		default:
			h.log.Info("not all settings are in force", "reason", err.Error())
		}
	}
}

// settingsRetry is how often it is tried to open what could not be opened at the start.
const settingsRetry = 30 * time.Second

// steer makes what answers steered names.
func (h *hubSource) steer() error {
	group, err := h.files.Group()
	if err != nil {
		return fmt.Errorf("reading the server's group: %w", err)
	}
	var memory steeringMemory
	opened, damaged, err := store.OpenMemory(h.cfg.StateDir)
	if err != nil { // such as a full disk: there are answers all the same
		h.log.Error(err, "what is decided will not be kept over a restart")
	} else {
		h.memory, memory = opened, opened
	}
	if damaged != nil {
		h.log.Error(damaged, "what was decided before can't be read, and is set aside")
	}
	self := health.ServerID{Datacenter: group.Datacenter, Group: group.Group, Name: h.cfg.Name}
	h.mesh = mesh.New(mesh.Options{
		Self: self, Credentials: h.files.Credentials(), Log: h.log,
		OnMessage:   func(from health.ServerID, m health.Message) { h.steerer.hear(from, m) },
		OnConnected: func(peer health.ServerID) { h.steerer.connected(peer) },
		OnOverrides: func(overrides [][]byte) { h.steerer.hearOverrides(overrides) },
	})
	h.steerer, err = newSteerer(steererOptions{
		Self: self, View: h.view, Log: h.log, Report: h.client.Report, Unreport: h.client.Unreport, Send: h.mesh.Send, SetPeers: h.mesh.SetPeers,
		SendOverrides: h.mesh.SendOverrides, Memory: memory, Own: h.cfg.Own, Geo: h.cfg.Geo,
		Peers: func() int { return len(h.mesh.Connected()) }, Changed: func(c changes.Change) { h.announcer.log.Add(c) }, Leads: h.announcer.aliases.Replace,
	})
	if err != nil {
		return err
	}
	for _, kind := range []string{documentTopology, documentOverrides, documentSecrets} {
		h.documents.handle(kind, func(body []byte) error { return h.steerer.document(kind, body) })
	}
	h.replica.HandleDocuments(h.documents.take)
	h.replica.OnZone(h.zoneChanged)
	h.announcer.complete.Store(h.fromDisk)
	h.steerer.step() // what can be answered is, before the first query
	return nil
}

// zoneChanged takes a version of a zone that the view answers from by now; nil stands for none.
func (h *hubSource) zoneChanged(apex zone.Name, before, after *control.Installed) {
	news := h.announcer.zoneChanged(apex, before, after)
	var was, is *zone.Content
	if before != nil {
		was = before.Content
	}
	if after != nil {
		is = after.Content
	}
	h.steerer.zoneChanged(apex, was, is, news)
}

// onState says that there is nothing to wait for when the hub or a sibling has sent all,
// which may be nothing.
func (h *hubSource) onState(s control.State) {
	if !s.Synced && !s.CopiedAll {
		return
	}
	if !h.view.Ready() {
		h.view.Update(nil, nil)
	}
	h.announcer.complete.Store(true)
}

func (h *hubSource) run(ctx context.Context) error {
	defer h.close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return h.client.Run(ctx) })
	group.Go(func() error { h.files.Watch(ctx, h.log); return nil })
	group.Go(func() error { h.retrySettings(ctx); return nil })
	group.Go(func() error { return h.steerer.run(ctx) })
	group.Go(func() error { return h.mesh.Run(ctx) })
	group.Go(func() error {
		if err := h.steerer.serveControl(ctx, h.cfg.StateDir); err != nil {
			h.log.Error(err, "there is no control of this server on its machine") // which is no reason not to answer
		}
		return nil
	})
	if h.peers != nil {
		server := grpc.NewServer(control.ServerOptions(h.files.Credentials())...)
		control.NewSibling(h.replica, h.files.Credentials()).Register(server)
		h.mesh.Register(server)
		h.announcer.register(server)
		group.Go(func() error {
			if err := server.Serve(h.peers); ctx.Err() == nil {
				return err
			}
			return nil // stopped, perhaps before it began
		})
		context.AfterFunc(ctx, server.Stop)
		h.log.Info("serving siblings", "address", h.peers.Addr().String())
	}
	return group.Wait()
}

// close gives up what start took. What the disk lacks is tried once more.
func (h *hubSource) close() {
	if h.peers != nil {
		_ = h.peers.Close()
	}
	if h.replica != nil {
		if err := h.replica.Close(); err != nil {
			h.log.Error(err, "closing the store")
		}
	}
	if h.memory != nil {
		if err := h.memory.Close(); err != nil {
			h.log.Error(err, "closing the memory")
		}
	}
}

// ready: a server that started with zones on disk answers for them, hub or not. One that
// started empty would deny names that it is about to get.
func (h *hubSource) ready() error {
	if s := h.client.State(); !h.fromDisk && !s.Synced && !s.CopiedAll {
		return errors.New("not all zones were received yet")
	}
	return h.steerer.ready()
}

var (
	metricConnected    = metric("hub_connected", "1 while there is a stream to a hub that leads, else 0.")
	metricStaleness    = metric("hub_staleness_seconds", "Time since the last contact with a hub that leads, or since the start without one.")
	metricSynced       = metric("hub_synced", "1 if the hub has said since the start that it has sent everything, else 0.")
	metricEpoch        = metric("hub_epoch", "The highest epoch of a leader that was seen.")
	metricInstalled    = metric("zones_installed_total", "Versions of zones that were installed, from the hub or a sibling.")
	metricDocuments    = metric("documents_installed_total", "Documents that came into force, from the hub or a sibling: settings, for instance.")
	metricRemoved      = metric("zones_removed_total", "Zones that were removed for the hub.")
	metricCopied       = metric("zones_copied_total", "Zones that came from a sibling.")
	metricNacks        = metric("nacks_total", "Versions of zones and documents that were refused, by reason.", "reason")
	metricNotDurable   = metric("zones_not_durable", "Zones that are served and of which the disk has no or an older copy.")
	metricLost         = metric("zones_lost", "Zones whose copy on disk was damaged and that were not received again yet.")
	metricCertificates = metric("certificate_expiry_timestamp_seconds", "When the certificate in force expires.")
)

// Describe implements prometheus.Collector.
func (h *hubSource) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		metricConnected, metricStaleness, metricSynced, metricEpoch, metricInstalled, metricDocuments, metricRemoved, metricCopied, metricNacks,
		metricNotDurable, metricLost, metricCertificates,
	} {
		ch <- d
	}
	h.steerer.Describe(ch)
	h.announcer.Describe(ch)
}

// Collect implements prometheus.Collector.
func (h *hubSource) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := h.client.State()
	last := s.LastContact
	if last.IsZero() {
		last = h.started
	}
	notDurable := 0
	for _, z := range h.replica.Held() {
		if z.NotDurable {
			notDurable++
		}
	}
	expires, _ := h.files.Status() // Files.Watch tells why newer files can't be used
	gauge(metricConnected, truth(s.Hub != ""))
	gauge(metricStaleness, max(0, time.Since(last).Seconds()))
	gauge(metricSynced, truth(s.Synced))
	gauge(metricEpoch, float64(s.Fence.Epoch))
	count(metricInstalled, s.Installed)
	count(metricDocuments, s.Documents)
	count(metricRemoved, s.Removed)
	count(metricCopied, s.Copied)
	for reason, n := range s.Nacks {
		count(metricNacks, n, reason)
	}
	gauge(metricNotDurable, float64(notDurable))
	gauge(metricLost, float64(len(h.replica.Lost())))
	gauge(metricCertificates, float64(expires.Unix()))
	h.steerer.Collect(ch)
	h.announcer.Collect(ch)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
