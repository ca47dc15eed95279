package dnsserver

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
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
	ready := readiness(s, view, from)
	expect := func(sentence, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		switch err := ready(ctx); {
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
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	expect("when it ends", "shutting down")
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
