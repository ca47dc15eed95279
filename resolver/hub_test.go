package resolver

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/fingerpost-dns/fingerpost/dnsserver/control"
	"github.com/fingerpost-dns/fingerpost/dnsserver/control/controltest"
	"github.com/fingerpost-dns/fingerpost/resolver/engine"
	"github.com/fingerpost-dns/fingerpost/resolver/pool"
)

// join has an agent talk to a hub until the test ends or stop is called.
func (s *member) join(ca *controltest.Authority, hub string, configured bool) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Join(ctx, HubOptions{Hubs: []string{hub}, Credentials: ca.Credentials(agents.URI()), Name: "one", Configured: configured})
	}()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
		ended <- nil
	}
	s.t.Cleanup(stop)
	return stop
}

// one is the agent of these tests.
var one = control.ServerID{Datacenter: agents.Datacenter, Group: agents.Group, Name: "one"}

// publishPool has a hub tell agents what to do, and returns the digest.
func publishPool(t *testing.T, h *testHub, do *pool.Pool) string {
	t.Helper()
	text, err := json.Marshal(do)
	if err == nil {
		err = h.PublishDocument(agents, control.Document{Kind: pool.DocumentKind, Body: text})
	}
	if err != nil {
		t.Fatal(err)
	}
	return pool.Digest(text)
}

// TestAnAgentGoesByItsHub is the life of an agent whose configuration comes from a hub: it is told the first, a better one and a
// bad one, and starts again when the hub is gone.
func TestAnAgentGoesByItsHub(t *testing.T) {
	w := newWorld(t)
	ca := controltest.NewAuthority(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			h := startHub(t, ca)
			do := pool.Pool{Config: *w.config(), RecursionCheck: mustName(t, "deep.pay.corp.")}
			listen := do.Listen
			do.Listen, do.Source = nil, nil
			o := Options{Product: p, Folder: shortFolder(t), Listen: listen, Version: "v1"}
			s := newMember(t, o, do)
			stop := s.join(ca, h.address, false)
			eventually(t, "an agent that knows nothing is reported as unready", func() bool {
				r := h.report(one)
				return r != nil && !r.Ready && r.NotReady != "" && r.Engine == p
			})
			first := publishPool(t, h, &do)
			eventually(t, "it is ready by its first configuration, and resolves", func() bool {
				r := h.report(one)
				return r.Ready && r.Configuration == first && r.Newest == first && r.Recursion != nil && r.Recursion.OK
			})
			r := h.report(one)
			if r.EngineVersion == "" || r.Version != "v1" || len(r.Listen) != 1 || r.Listen[0] != listen[0] || len(r.Source) != 1 || r.Source[0] != listen[0].Addr() {
				t.Errorf("it reports %+v", r)
			}
			do.Block.Names = []engine.Name{mustName(t, "blocked.corp.")}
			second := publishPool(t, h, &do)
			eventually(t, "the second is in force", func() bool { return h.report(one).Configuration == second })

			bad := do
			file, err := engine.ParsePath("/nonexistent/rpz.zone")
			if err != nil {
				t.Fatal(err)
			}
			bad.Block.RPZ = []engine.RPZ{{Name: mustName(t, "rpz.corp."), File: file}}
			third := publishPool(t, h, &bad)
			eventually(t, "the bad one is refused, and the agent says why", func() bool {
				r := h.report(one)
				return r.Newest == third && r.Refused != "" && r.Configuration == second && r.Ready
			})
			eventually(t, "the hub has the refusal from the stream", func() bool {
				for _, server := range h.Agents() {
					for _, d := range server.Documents {
						if d.Kind == pool.DocumentKind && d.Nack != nil && strings.Contains(d.Nack.Message, "nonexistent") {
							return true
						}
					}
				}
				return false
			})
			if got := said(s.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("it resolves %q", got)
			}

			stop()
			s.cancel()
			h.stop()
			again := newMember(t, o, do)
			again.join(ca, h.address, false)
			eventually(t, "it is ready by what it has kept", func() bool { return again.Ready() == nil && again.Report().Configuration == second })
			if got := said(again.ask("app.pay.corp.")); got != "10.9.9.9" {
				t.Errorf("without its hub it resolves %q", got)
			}
		})
	}
}

// TestAFileIsNotOverruled: what the hub has is for agents without a file.
func TestAFileIsNotOverruled(t *testing.T) {
	w := newWorld(t)
	ca := controltest.NewAuthority(t)
	h := startHub(t, ca)
	s := startMember(t, Options{Product: engine.Unbound}, pool.Pool{Config: *w.config()})
	own := s.Report().Configuration
	other := pool.Pool{Config: *w.config()}
	other.Threads = 2
	publishPool(t, h, &other)
	s.join(ca, h.address, true)
	eventually(t, "the hub hears of the agent, and has its acknowledgement", func() bool {
		servers := h.Agents()
		return h.report(one) != nil && len(servers) == 1 && len(servers[0].Documents) == 1 && servers[0].Synced()
	})
	if r := s.Report(); r.Configuration != own || r.Refused != "" {
		t.Errorf("it goes by %s, not %s: %s", r.Configuration, own, r.Refused)
	}
}

func TestPoolsBringFiles(t *testing.T) {
	w := newWorld(t)
	for _, p := range products {
		t.Run(string(p), func(t *testing.T) {
			do := pool.Pool{Config: *w.config(), Files: map[string]string{
				"rpz-1.zone": "$ORIGIN rpz.corp.\n@ 60 IN SOA ns.corp. hostmaster.corp. 1 3600 600 86400 60\n@ 60 IN NS ns.corp.\napp.pay.corp 60 IN CNAME .\n",
			}}
			file, err := engine.ParsePath(pool.FilesFolder + "/rpz-1.zone")
			if err != nil {
				t.Fatal(err)
			}
			do.Block.RPZ = []engine.RPZ{{Name: mustName(t, "rpz.corp."), File: file}}
			do.SourceNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			do.Source = do.Config.Source
			s := startMember(t, Options{Product: p}, do)
			if got := said(s.ask("app.pay.corp.")); got != "NXDOMAIN" {
				t.Errorf("a name of the file is %q", got)
			}
		})
	}
}

func TestAReplicaTakesNothingFromLeadersOfBefore(t *testing.T) {
	path := shortFolder(t).String() + "/hub.json"
	var taken [][]byte
	open := func() *replica {
		return openReplica(path, newMember(t, Options{Product: engine.Unbound}, pool.Pool{}).o.Log, func(_ context.Context, d control.Document) error {
			taken = append(taken, d.Body)
			return nil
		})
	}
	r := open()
	document := func(text string) control.Document {
		return control.Document{Kind: pool.DocumentKind, Body: []byte(text)}
	}
	if err := r.InstallDocument(t.Context(), control.Fence{Epoch: 2, Cluster: "a"}, document("new")); err != nil {
		t.Fatal(err)
	}
	r = open() // a restart
	if err := r.InstallDocument(t.Context(), control.Fence{Epoch: 1, Cluster: "a"}, document("old")); err == nil {
		t.Error("a document of a leader of before is taken")
	}
	if held := r.Documents(); len(held) != 1 || held[0].Digest != document("new").Digest() || held[0].NotDurable {
		t.Errorf("it has %+v", held)
	}
	r.begin(t.Context())
	if len(taken) != 2 || !bytes.Equal(taken[1], []byte("new")) {
		t.Errorf("taken are %q", taken)
	}
}
