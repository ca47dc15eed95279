package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"

	"github.com/fingerpost-dns/fingerpost/dnsserver/zone"
)

func TestParseListen(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1:53",
		"192.0.2.1:5353":        "192.0.2.1:5353",
		"0.0.0.0":               "0.0.0.0:53",
		"2001:db8::1":           "[2001:db8::1]:53",
		"[2001:db8::1]:5353":    "[2001:db8::1]:5353",
		"::":                    "[::]:53",
		"fe80::1%eth0":          "[fe80::1%eth0]:53",
		"[fe80::1%eth0]:53":     "[fe80::1%eth0]:53",
		"::ffff:192.0.2.1":      "192.0.2.1:53",
		"[::ffff:192.0.2.1]:54": "192.0.2.1:54",
		"":                      "",
		"localhost":             "",
		"localhost:53":          "",
		":53":                   "",
		"192.0.2.1:":            "",
		"192.0.2.1:65536":       "",
		"192.0.2":               "",
		"[2001:db8::1]":         "",
	} {
		got, err := ParseListen(text, DefaultPort)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q is read as %s", text, got)
		case want != "" && (err != nil || got.String() != want):
			t.Errorf("%q is read as %s, %v, wanted %s", text, got, err, want)
		}
	}
}

// stubSource is a source that says what it is told to.
type stubSource struct {
	source
	err error
}

func (s stubSource) ready() error { return s.err }

func TestReadiness(t *testing.T) {
	view := &zone.View{}
	s, err := Listen(Options{Addresses: []netip.AddrPort{loopback(), loopback()}, View: view, Log: testr.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	serveCtx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	from := &stubSource{}
	state := newChecks(s, view, from)
	expect := func(sentence, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		switch err := state.ready(ctx); {
		case want == "" && err != nil:
			t.Errorf("%s: %v", sentence, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, wanted %q", sentence, err, want)
		}
	}
	expect("without zones", "no zones were received yet")
	view.Update(nil, nil)
	go func() { done <- s.Serve(serveCtx) }()
	expect("with no zones to serve", "")
	view.Update([]*zone.Served{exampleZone(t)}, nil)
	expect("with a zone", "")
	from.err = errors.New("half a state")
	expect("while zones are missing", "half a state")
	from.err = nil
	if err := s.Probe(t.Context(), loadZone(t, "elsewhere.test", "$TTL 1\n@ SOA a b 1 2 3 4 5\n@ NS a\n")); err == nil {
		t.Error("a probe for a zone that is not served succeeds")
	}
	s.leaving.Store(true)
	expect("when it leaves", "shutting down")
	if err := state.serving(t.Context()); err != nil {
		t.Errorf("while it leaves and answers on, it is not serving: %v", err)
	}
	s.parting.Store(true)
	if err := state.serving(t.Context()); err == nil {
		t.Error("at the end of the drain delay it is serving")
	}
	s.parting.Store(false)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	expect("when it ends", "shutting down")
	if err := state.serving(t.Context()); err == nil {
		t.Error("a server that has ended is serving")
	}
}

func TestServingMeansThatEveryZoneWasAskedFor(t *testing.T) {
	view := &zone.View{}
	s := serve(t, Options{View: view})
	state := newChecks(s, view, &stubSource{})
	var zones []*zone.Served
	for i := range 50 {
		zones = append(zones, loadZone(t, fmt.Sprintf("z%d.test", i), "$TTL 1\n@ SOA a b 1 2 3 4 5\n@ NS a\n"))
	}
	view.Update(zones, nil)
	before := s.replies()
	if err := state.serving(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.replies() - before; n != 51 {
		t.Errorf("%d questions answered, wanted one for each of 50 zones, and one for one of them", n)
	}
	before = s.replies()
	if err := state.serving(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.replies() - before; n != 1 {
		t.Errorf("%d questions answered the second time, wanted one", n)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	view.Update([]*zone.Served{loadZone(t, "more.test", "$TTL 1\n@ SOA a b 1 2 3 4 5\n@ NS a\n")}, nil)
	if err := state.serving(late); err == nil {
		t.Error("serving although there was no time to ask for the new zone")
	}
}

func TestLiveIsWhoAnswersAnybody(t *testing.T) {
	view := &zone.View{}
	s, err := Listen(Options{Addresses: []netip.AddrPort{loopback()}, View: view, Log: testr.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	state := newChecks(s, view, &stubSource{})
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := state.live(soon); err == nil {
		t.Error("a server that answers nobody is live")
	}
	s.udpCounts[0].messages[zone.RcodeRefused].Add(1)
	if err := state.live(soon); err != nil {
		t.Errorf("somebody got a reply, but not the check: %v", err)
	}
	if err := state.live(soon); err == nil {
		t.Error("live although nobody got a reply since")
	}
}

func TestDrainedEndsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, end := context.WithCancel(t.Context())
		var told []string
		later, stop := drained(ctx, 15*time.Second, func() { told = append(told, "leave") }, func() { told = append(told, "part") })
		defer stop()
		end()
		for _, c := range []struct {
			seconds int
			told    string
			over    bool
		}{{0, "leave", false}, {8, "leave", false}, {10, "leave part", false}, {14, "leave part", false}, {16, "leave part", true}} {
			time.Sleep(time.Until(began.Add(time.Duration(c.seconds) * time.Second))) // of the bubble
			synctest.Wait()
			if got := strings.Join(told, " "); got != c.told || (later.Err() != nil) != c.over {
				t.Errorf("after %d s of 15: told %q, ended by %v", c.seconds, got, later.Err())
			}
		}
	})
}

func TestRunNeedsZonesFromOnePlace(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{ZoneList: "x", Hub: &HubConfig{}},
	} {
		cfg.Options.Log = logr.Discard()
		if err := Run(t.Context(), cfg); err == nil {
			t.Errorf("%+v runs", cfg)
		}
	}
}

func TestRegistryTakesAllParts(t *testing.T) {
	view := &zone.View{}
	s := serve(t, Options{View: view})
	families, err := registry("v1", s, &zoneFiles{}).Gather()
	if err != nil || len(families) == 0 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
}

func TestPeerAddressesHaveBracketsOnlyAroundIPv6(t *testing.T) {
	peers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peers.Close()
	for given, want := range map[string]string{
		"[10.1.2.3]:8054": "10.1.2.3:8054", "[2001:db8::1]:8054": "[2001:db8::1]:8054", "host.example:8054": "host.example:8054", "10.1.2.3:8054": "10.1.2.3:8054",
	} {
		h := hubSource{cfg: HubConfig{PeerAddress: given}, peers: peers}
		if got := h.peerAddress(); got != want {
			t.Errorf("%s is told as %s", given, got)
		}
	}
}
